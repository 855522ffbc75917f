//! Parses a file of users and their password hashes, as `htpasswd -B` writes it: one `name:hash` a line, with a
//! hash of bcrypt or argon2. Other hashes are refused, because their passwords can be guessed quickly.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params};
use http::HeaderName;

use super::Identity;
use super::cache::{Cache, Digest};

/// Accepted costs of bcrypt, as powers of two: bcrypt requires at least 2^4 rounds, and 2^14 rounds take about
/// a second. Higher costs are refused, because other clients wait while an attacker's guess is hashed.
const BCRYPT_COSTS: RangeInclusive<u32> = 4..=14;
/// Maximum parameters of argon2, which take about as long as bcrypt: memory in KiB, memory times passes, lanes.
const MAX_ARGON2: (u32, u64, u32) = (256 * 1024, 512 * 1024, 16);

/// Users of a file, with the cache of proved passwords.
pub(super) struct Users {
    users: HashMap<String, Arc<User>>,
    /// Sorted names of the users. One of the users stands in for an unknown name: see [`Users::stand_in`].
    names: Vec<String>,
    /// Proved credentials with their users. After a change of the file the cache stays, so that not all
    /// passwords have to be hashed again at once: see [`Users::known`].
    cache: Arc<Cache<Arc<User>>>,
}

/// User from a line of the file.
struct User {
    hash: Hash,
    identity: Arc<Identity>,
}

#[derive(PartialEq)]
enum Hash {
    Bcrypt(String),
    Argon2(Box<PasswordHash>),
}

impl Users {
    /// Parses the users in `text`, the content of `file`. Backends get the name in `field`.
    ///
    /// # Errors
    /// Returns a description of the first faulty line, and a remedy.
    pub(super) fn read(file: &str, text: &str, field: Option<&HeaderName>) -> Result<Self, String> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line.trim_end())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: &str| format!("{file}:{number}: {what}");
            let Some((name, hash)) = line.split_once(':') else {
                return Err(wrong("expected `name:hash`; make such a line with `htpasswd -B`"));
            };
            if name.is_empty() || name.chars().any(char::is_control) || name.trim() != name {
                return Err(wrong("this name cannot be sent in a request"));
            }
            // The message does not show the name: if the operator swapped both parts, the name is a password or
            // a hash.
            let hash = Hash::parse(hash).map_err(|what| wrong(&what))?;
            let identity = Arc::new(Identity::named(name, field));
            if users.insert(name.to_owned(), Arc::new(User { hash, identity })).is_some() {
                return Err(wrong("this name is defined twice"));
            }
        }
        if users.is_empty() {
            // An empty file is most likely only half written, and no client could pass with it.
            return Err(format!("'{file}' holds no user; add one with `htpasswd -B {file} NAME`"));
        }
        let mut names: Vec<String> = users.keys().cloned().collect();
        names.sort_unstable();
        let cache = Cache::new()?;
        Ok(Users { users, names, cache: Arc::new(cache) })
    }

    /// Returns the users with the cache of `before`, the users before the file was changed.
    pub(super) fn after(self, before: &Users) -> Self {
        Users { cache: before.cache.clone(), ..self }
    }

    /// Returns a keyed hash of a name and a password. Returns `None` if OpenSSL cannot compute it.
    pub(super) fn digest(&self, pair: &str) -> Option<Digest> {
        self.cache.digest(pair.as_bytes())
    }

    /// Returns the user whose proved credentials are in the cache, if the user's line in the file has not
    /// changed since the proof.
    pub(super) fn known(&self, digest: &Digest) -> Option<Arc<Identity>> {
        let proved = self.cache.find(digest, Instant::now())?;
        let user = self.users.get(&proved.identity.name)?;
        (user.hash == proved.hash).then(|| user.identity.clone())
    }

    /// Returns the user with this name and password, and caches the proof. The check takes long. If all hashes
    /// cost the same, it takes equally long for an unknown name, so that clients cannot find out names.
    pub(super) fn verify(&self, pair: &str, digest: Digest) -> Option<Arc<Identity>> {
        let (name, password) = pair.split_once(':')?;
        let known = self.users.get(name);
        let user = known.or_else(|| self.stand_in(name))?;
        if !user.hash.is_of(password) || known.is_none() {
            return None;
        }
        self.cache.keep(digest, user.clone(), Instant::now());
        Some(user.identity.clone())
    }

    /// Returns a user to compare with in place of the unknown `name`. The same name always gets the same user,
    /// because different times for one name would reveal that it is unknown.
    fn stand_in(&self, name: &str) -> Option<&Arc<User>> {
        let digest = self.cache.digest(name.as_bytes())?;
        let number = u64::from_le_bytes(digest[..8].try_into().ok()?);
        let at = usize::try_from(number % self.names.len() as u64).ok()?;
        self.users.get(self.names.get(at)?)
    }
}

impl Hash {
    fn parse(text: &str) -> Result<Self, String> {
        if ["$2y$", "$2b$", "$2a$"].iter().any(|kind| text.starts_with(kind)) {
            let damaged = "the bcrypt hash is damaged; make a new one with `htpasswd -B`";
            let parts: bcrypt::HashParts = text.parse().map_err(|_| damaged)?;
            if text.as_bytes().get(4) == Some(&b'+') {
                // Rust parses "+4" as a number, but other programs that read hashes do not.
                return Err(damaged.to_owned());
            }
            if !BCRYPT_COSTS.contains(&parts.get_cost()) {
                let (least, most) = BCRYPT_COSTS.into_inner();
                return Err(format!("its bcrypt cost is {}; expected {least} to {most}", parts.get_cost()));
            }
            return Ok(Hash::Bcrypt(text.to_owned()));
        }
        if text.starts_with("$argon2") {
            let parsed =
                PasswordHash::new(text).ok().filter(|hash| hash.hash.is_some() && hash.salt.is_some());
            let parameters = parsed.as_ref().and_then(|hash| Params::try_from(hash).ok());
            let (Some(hash), Some(parameters)) = (parsed, parameters) else {
                return Err(
                    "the argon2 hash is damaged; expected $argon2id$v=19$m=…,t=…,p=…$salt$hash".to_owned()
                );
            };
            let (memory, work, lanes) = MAX_ARGON2;
            let works = u64::from(parameters.m_cost()) * u64::from(parameters.t_cost());
            if parameters.m_cost() > memory || works > work || parameters.p_cost() > lanes {
                return Err(format!(
                    "its argon2 parameters are too large; at most m={memory}, m times t {work}, and p={lanes}"
                ));
            }
            return Ok(Hash::Argon2(Box::new(hash)));
        }
        let kind = match text {
            _ if text.starts_with("$apr1$") || text.starts_with("$1$") => "MD5",
            _ if text.starts_with("{SHA}") || text.starts_with("{SSHA}") => "SHA-1",
            _ if text.starts_with("$5$") || text.starts_with("$6$") => "SHA-2 crypt",
            _ => "neither bcrypt nor argon2",
        };
        Err(format!(
            "its hash is {kind}, which is too weak or not supported; make a new one with `htpasswd -B`"
        ))
    }

    fn is_of(&self, password: &str) -> bool {
        match self {
            // Bcrypt uses the first 72 bytes of a password, here and in `htpasswd`.
            Hash::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Hash::Argon2(hash) => Argon2::default().verify_password(password.as_bytes(), &**hash).is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The hashes look like those of `htpasswd -nbB -C 4` and `argon2 … -id -m 3 -t 1 -p 1 -e`.
    fn bcrypt(password: &str) -> String {
        bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap().format_for_version(bcrypt::Version::TwoY)
    }

    fn argon2(password: &str) -> String {
        use argon2::password_hash::CustomizedPasswordHasher;
        let params = Params::new(8, 1, 1, None).unwrap();
        let hasher = Argon2::default();
        let made = hasher.hash_password_customized(password.as_bytes(), &[7; 16], None, None, params);
        made.unwrap().to_string()
    }

    fn name(users: &Users, name: &str, password: &str) -> Option<String> {
        let pair = format!("{name}:{password}");
        users.verify(&pair, users.digest(&pair)?).map(|identity| identity.name.clone())
    }

    #[test]
    fn right_password_passes_and_others_do_not() {
        let text = format!(
            "# ours\n\nalice:{}\nbob:{}\r\nJürgen:{}\nlong:{}\n",
            bcrypt("a:b"),
            argon2("geheim"),
            bcrypt("ä"),
            bcrypt(&"x".repeat(80))
        );
        let users = Users::read("users", &text, None).unwrap();
        for (who, password) in
            [("alice", "a:b"), ("bob", "geheim"), ("Jürgen", "ä"), ("long", &"x".repeat(72))]
        {
            assert_eq!(name(&users, who, password).as_deref(), Some(who));
        }
        for (who, password) in [
            ("alice", "a"),
            ("alice", ""),
            ("alice", "a:b\0"),
            ("long", &"x".repeat(71)),
            ("bob", "a:b"),
            ("Alice", "a:b"),
            ("", "a:b"),
            ("carol", "a:b"),
        ] {
            assert_eq!(name(&users, who, password), None, "{who} {password:?}");
        }
    }

    #[test]
    fn unknown_name_is_compared_with_another_user() {
        let users = Users::read("users", &format!("alice:{}\n", bcrypt("a")), None).unwrap();
        assert!(users.stand_in("nobody").is_some(), "or it would cost less");
        assert_eq!(
            name(&users, "nobody", "a"),
            None,
            "not even with the password of the one it is compared with"
        );
    }

    #[test]
    fn faulty_line_is_reported_with_a_remedy() {
        let good = bcrypt("a");
        let good_at = |cost: &str| format!("alice:{}\n", good.replace("$04$", cost));
        let costs = |costs: &str| format!("alice:{}\n", argon2("a").replace("m=8,t=1,p=1", costs));
        for (text, said) in [
            (String::new(), "'users' holds no user"),
            ("# nobody\n".to_owned(), "'users' holds no user"),
            (format!("alice:{good}\nbob\n"), "users:2: expected `name:hash`"),
            (format!("{good}\n"), "users:1: expected `name:hash`"),
            (format!(":{good}\n"), "users:1: this name cannot be sent"),
            (format!("a\tb:{good}\n"), "users:1: this name cannot be sent"),
            (format!("alice:{good}\nalice:{good}\n"), "users:2: this name is defined twice"),
            ("alice:$apr1$x$y\n".to_owned(), "users:1: its hash is MD5"),
            (format!("{good}:alice\n"), "users:1: its hash is neither"),
            ("sesame:alice\n".to_owned(), "users:1: its hash is neither"),
            ("alice:{SHA}x=\n".to_owned(), "its hash is SHA-1"),
            ("alice:$6$x$y\n".to_owned(), "its hash is SHA-2 crypt"),
            ("alice:secret\n".to_owned(), "its hash is neither bcrypt nor argon2"),
            (format!("alice:{}\n", &good[..40]), "the bcrypt hash is damaged"),
            (format!("alice:{}\n", good.replace("$04$", "$31$")), "its bcrypt cost is 31; expected 4 to 14"),
            (format!("alice:{}\n", good.replace("$04$", "$03$")), "its bcrypt cost is 3; expected 4 to 14"),
            (format!("alice:{}\n", good.replace("$04$", "$15$")), "its bcrypt cost is 15; expected 4 to 14"),
            (format!("alice:{}\n", good.replace("$04$", "$+4$")), "the bcrypt hash is damaged"),
            (format!("alice:{}!\n", &good[..59]), "the bcrypt hash is damaged"),
            ("alice:$argon2id$v=19$m=8\n".to_owned(), "the argon2 hash is damaged"),
            (costs("m=262145,t=1,p=1"), "at most m=262144, m times t 524288, and p=16"),
            (costs("m=262144,t=3,p=1"), "its argon2 parameters are too large"),
            (costs("m=65536,t=9,p=1"), "its argon2 parameters are too large"),
            (costs("m=4294967295,t=4294967295,p=1"), "its argon2 parameters are too large"),
            (costs("m=262144,t=1,p=17"), "its argon2 parameters are too large"),
        ] {
            let error = Users::read("users", &text, None).err().unwrap_or_default();
            assert!(error.contains(said), "{text}\n-- says {error}\n-- not {said}");
            let is_shown = |secret| error.contains(secret);
            assert!(!is_shown(&good[..20]) && !is_shown("sesame"), "nothing of a line is shown: {error}");
        }
        for good in [costs("m=262144,t=2,p=16"), costs("m=65536,t=8,p=1"), good_at("$14$")] {
            assert!(Users::read("users", &good, None).is_ok(), "{good}");
        }
    }

    #[test]
    fn proof_is_valid_until_the_line_changes() {
        let file = |alice: &str, others: &str| {
            Users::read("users", &format!("{others}alice:{}\n", bcrypt(alice)), None).unwrap()
        };
        let users = file("a", "");
        let digest = users.digest("alice:a").unwrap();
        let known = |users: &Users| users.known(&digest).map(|identity| identity.name.clone());
        assert_eq!(known(&users), None);
        assert_eq!(name(&users, "alice", "a").as_deref(), Some("alice"));
        assert_eq!(name(&users, "alice", "b"), None);
        assert!(users.known(&users.digest("alice:b").unwrap()).is_none(), "failures are not kept");

        let grown = file("a", &format!("bob:{}\n", argon2("b"))).after(&users);
        assert_eq!(known(&grown).as_deref(), Some("alice"), "another line has come");
        let changed = file("c", "").after(&grown);
        assert_eq!(known(&changed), None, "it is no more the password");
        let removed = Users::read("users", &format!("bob:{}\n", bcrypt("a")), None).unwrap().after(&changed);
        assert_eq!(known(&removed), None);
        // A check against an old line that ends after the line has changed proves nothing for the new line.
        assert!(
            name(&users, "alice", "a").is_some() && known(&removed).is_none() && known(&changed).is_none()
        );
        assert_eq!(known(&file("a", "")), None, "another file knows nobody");
    }
}
