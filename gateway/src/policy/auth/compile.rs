//! Compiles an `[auth]` table and reads the files that it names. State of the previous configuration that is
//! still valid is taken over: proved passwords, fetched keys, open connections.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};
use openssl::sha::sha256;

use super::jwks::{KeySet, Timing};
use super::keys::Key;
use super::users::Users;
use super::{Auth, AuthMethod, api_key, basic, forward, jwt};
use crate::config::{self, AuthKind};
use crate::telemetry::KeySetMetrics;
use crate::util::http_client::{BodilessClient, Roots};
use crate::util::secrets::Secrets;
use crate::util::{files, http_client};

/// Value in an `[auth]` table that the gateway cannot use.
#[derive(Debug)]
pub struct BadAuth {
    /// Key of the table that has the value.
    pub key: &'static str,
    /// Description of the fault.
    pub detail: String,
}

/// Default time between two fetches of keys.
const REFRESH: Duration = Duration::from_secs(300);

/// State that outlives a change of the configuration, in maps by the values that identify it.
#[derive(Clone, Default)]
pub struct AuthCaches {
    /// Users with their proved passwords, by the file and the field that tells a backend the name.
    users: HashMap<(String, Option<HeaderName>), Known>,
    /// HTTP clients with their open connections, by the root certificates that they trust.
    clients: HashMap<Roots, BodilessClient>,
    key_sets: HashMap<KeySource, Arc<KeySet>>,
}

/// Hash of a file's content, and the users in the file.
type Known = ([u8; 32], Arc<Users>);

/// Values that identify a key set: URL, trusted root certificates, and time between two fetches.
type KeySource = (String, Roots, Duration);

impl AuthCaches {
    /// Returns every key set that the gateway must fetch.
    pub fn key_sets(&self) -> impl Iterator<Item = &Arc<KeySet>> {
        self.key_sets.values()
    }
}

/// Compiler for the `[auth]` tables of a configuration. A table of several routes is compiled once.
pub struct Compiler<'c> {
    before: AuthCaches,
    kept: AuthCaches,
    made: HashMap<usize, Option<Arc<Auth>>>,
    metrics: Box<dyn Fn(&str) -> KeySetMetrics + 'c>,
    secrets: &'c Secrets,
}

impl<'c> Compiler<'c> {
    /// Creates a compiler that takes over state from `before`. `metrics` returns the metrics of the key set at
    /// a URL.
    pub fn new(
        before: AuthCaches,
        metrics: impl Fn(&str) -> KeySetMetrics + 'c,
        secrets: &'c Secrets,
    ) -> Self {
        Compiler {
            before,
            kept: AuthCaches::default(),
            made: HashMap::new(),
            metrics: Box::new(metrics),
            secrets,
        }
    }

    /// Returns the state that outlives the next change.
    pub fn finish(self) -> AuthCaches {
        self.kept
    }

    /// Compiles a table. Returns `None` if the table requires no authentication.
    ///
    /// # Errors
    /// Returns the key of the value that cannot be used, and the fault.
    pub fn compile(&mut self, table: &'c config::Auth) -> Result<Option<Arc<Auth>>, BadAuth> {
        let which = std::ptr::from_ref(table).addr();
        if let Some(made) = self.made.get(&which) {
            return Ok(made.clone());
        }
        let user_header = table.user_header.as_ref().map(|name| &name.0);
        let means = match table.kind {
            AuthKind::None => None,
            AuthKind::Basic => {
                Some(AuthMethod::Basic(basic::Basic::new(self.users(table, user_header)?, &table.realm)))
            }
            AuthKind::ApiKey => {
                let text = read("keys_file", &table.keys_file)?;
                let keys =
                    api_key::Keys::read(&table.keys_file, &text, user_header).map_err(bad("keys_file"))?;
                Some(AuthMethod::ApiKey(api_key::ApiKey::new(table.key_header(), keys, &table.realm)))
            }
            AuthKind::Jwt => Some(AuthMethod::Jwt(jwt::Jwt::new(table, self.jwt_keys(table)?))),
            AuthKind::Forward => {
                let (uri, http) = (uri("url", &table.url)?, self.client(table)?.1);
                Some(AuthMethod::Forward(Box::new(forward::Forward::new(table, uri, http))))
            }
        };
        let removed = table.proof();
        let made = means.map(|means| Arc::new(Auth { means, removed, kind: table.kind }));
        self.made.insert(which, made.clone());
        Ok(made)
    }

    fn users(&mut self, table: &config::Auth, field: Option<&HeaderName>) -> Result<Arc<Users>, BadAuth> {
        let (file, text) = (&table.users_file, read("users_file", &table.users_file)?);
        let (which, says) = ((file.clone(), field.cloned()), sha256(text.as_bytes()));
        let known = self.kept.users.get(&which).or_else(|| self.before.users.get(&which));
        let users = match known {
            Some((said, users)) if *said == says => users.clone(),
            known => {
                let users = Users::read(file, &text, field).map_err(bad("users_file"))?;
                Arc::new(match known {
                    Some((_, before)) => users.after(before),
                    None => users,
                })
            }
        };
        self.kept.users.insert(which, (says, users.clone()));
        Ok(users)
    }

    fn jwt_keys(&mut self, table: &config::Auth) -> Result<jwt::VerificationKeys, BadAuth> {
        if !table.jwks_url.is_empty() {
            return self.key_set(table).map(jwt::VerificationKeys::Set);
        }
        let keys = if !table.public_key_file.is_empty() {
            let file = &table.public_key_file;
            let named = |detail| format!("'{file}': {detail}");
            Key::from_pem(&read("public_key_file", file)?)
                .map_err(|detail| bad("public_key_file")(named(detail)))?
        } else if !table.secret_file.is_empty() {
            shared("secret_file", self.secrets.file("auth.secret_file", &table.secret_file))?
        } else {
            shared("secret_env", self.secrets.variable("auth.secret_env", &table.secret_env))?
        };
        Ok(jwt::VerificationKeys::Fixed(keys.into()))
    }

    fn key_set(&mut self, table: &config::Auth) -> Result<Arc<KeySet>, BadAuth> {
        let (url, uri) = (&table.jwks_url, uri("jwks_url", &table.jwks_url)?);
        let (roots, http) = self.client(table)?;
        let refresh = table.jwks_refresh_secs.map_or(REFRESH, |secs| secs.duration());
        let which = (url.clone(), roots, refresh);
        let known = self.kept.key_sets.get(&which).or_else(|| self.before.key_sets.get(&which)).cloned();
        let set = known.unwrap_or_else(|| {
            Arc::new(KeySet::new(url, uri, http, Timing::refreshing(refresh), (self.metrics)(url)))
        });
        self.kept.key_sets.insert(which, set.clone());
        Ok(set)
    }

    fn client(&mut self, table: &config::Auth) -> Result<(Roots, BodilessClient), BadAuth> {
        let roots = http_client::roots(&table.ca_file).map_err(bad("ca_file"))?;
        let known = self.kept.clients.get(&roots).or_else(|| self.before.clients.get(&roots)).cloned();
        let made = known.map_or_else(|| http_client::client(&roots), Ok);
        let http = made.map_err(|error| bad("ca_file")(format!("TLS cannot be set up: {error}")))?;
        self.kept.clients.insert(roots.clone(), http.clone());
        Ok((roots, http))
    }
}

/// Creates the key of a shared secret. Returns no key if the secret is missing: every token is then refused.
fn shared(key: &'static str, secret: Result<Option<String>, String>) -> Result<Vec<Key>, BadAuth> {
    let Some(secret) = secret.map_err(bad(key))? else { return Ok(Vec::new()) };
    Ok(vec![Key::secret(secret.trim().as_bytes()).map_err(bad(key))?])
}

fn bad(key: &'static str) -> impl Fn(String) -> BadAuth {
    move |detail| BadAuth { key, detail }
}

fn read(key: &'static str, file: &str) -> Result<String, BadAuth> {
    files::read_text(Path::new(file)).map_err(bad(key))
}

/// Parses a URL. The validation of the configuration has already refused invalid URLs.
fn uri(key: &'static str, url: &str) -> Result<Uri, BadAuth> {
    url.parse().map_err(|error| bad(key)(format!("not a valid URL: {error}")))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use http::{HeaderMap, header};

    use super::super::Checked;
    use super::super::basic::Basic;
    use super::*;
    use crate::reply::Verdict;
    use crate::telemetry::Metrics;

    fn line(name: &str, password: &str) -> String {
        let hash = bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap();
        format!("{name}:{}\n", hash.format_for_version(bcrypt::Version::TwoY))
    }

    fn compiled(table: &config::Auth, before: AuthCaches) -> (Arc<Auth>, AuthCaches) {
        let metrics = Metrics::new().unwrap();
        let secrets = Secrets::required();
        let mut compiler = Compiler::new(before, |url| metrics.auth.key_set(url), &secrets);
        let auth = compiler.compile(table).unwrap().unwrap();
        (auth, compiler.finish())
    }

    fn check<'a>(auth: &'a Auth, pair: &str) -> Checked<'a> {
        let AuthMethod::Basic(basic) = &auth.means else { panic!("this is basic") };
        let value = format!("Basic {}", STANDARD.encode(pair)).parse().unwrap();
        Basic::check(basic, &HeaderMap::from_iter([(header::AUTHORIZATION, value)]), None)
    }

    #[tokio::test]
    async fn proved_password_survives_changes_to_other_users() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("users");
        let write = |lines: &[String]| std::fs::write(&file, lines.concat()).unwrap();
        let table = config::Auth { users_file: file.display().to_string(), ..config::Auth::default() };
        write(&[line("alice", "a"), line("bob", "b")]);
        let (auth, kept) = compiled(&table, AuthCaches::default());
        for pair in ["alice:a", "bob:b"] {
            assert!(matches!(check(&auth, pair).verdict().await, Verdict::Continue(_)));
        }
        write(&[line("alice", "a"), line("carol", "c")]);
        let (auth, kept) = compiled(&table, kept);
        assert!(matches!(check(&auth, "alice:a"), Checked::AtOnce(Verdict::Continue(_))));
        assert!(matches!(check(&auth, "bob:b").verdict().await, Verdict::Reply(_)));
        write(&[line("alice", "another")]);
        let (auth, _) = compiled(&table, kept);
        assert!(matches!(check(&auth, "alice:a").verdict().await, Verdict::Reply(_)));
    }
}
