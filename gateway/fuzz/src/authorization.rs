//! Checks of credentials, which any client can forge: user names with passwords, API keys and tokens.
//!
//! The first line of the input names the kind of credentials. Each further line is the value of a header field.
//! With the kind `signed`, the lines are a token's header and claims, which are signed here with the right key.

use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use gateway::config::{self, AuthKind};
use gateway::policy::Verdict;
use gateway::policy::auth::{Auth, AuthCaches, AuthRequest, Compiler};
use gateway::telemetry::KeySetMetrics;
use gateway::util::secrets::Secrets;
use http::HeaderValue;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use pingora::http::RequestHeader;
use serde_json::Value;
use tempfile::TempDir;

/// The user `alice`, and the hash of "secret" with the lowest cost that bcrypt allows.
const USERS: &str = "alice:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
const PAIR: &[u8] = b"alice:secret";
/// The key of `bob`: the hash of "a-key-of-the-fuzzer".
const KEYS: &str = "bob:6811fd4eeabf785d6a58a70d2dd62ec3e406ae5e7816b7351b6b19f773e15bba\n";
const KEY: &[u8] = b"a-key-of-the-fuzzer";
const SECRET: &str =
    "a secret of the fuzzer that is long enough to sign with, by any of the three algorithms";

/// Checks that the gateway accepts a request only if it has exactly one field with credentials, and an
/// independent, more lenient reader finds them right, too.
pub fn check(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let (kind, rest) = (lines.next().unwrap_or_default(), lines.collect::<Vec<_>>());
    match kind {
        b"basic" => fields(&policies().basic, "authorization", &rest, |value| {
            after("basic", value).is_some_and(|pair| lenient(STANDARD, pair).as_deref() == Some(PAIR))
        }),
        b"key" => fields(&policies().key, "x-api-key", &rest, |value| value.trim_ascii() == KEY),
        b"bearer" => fields(&policies().token, "authorization", &rest, |value| {
            after("bearer", value).is_some_and(is_signed)
        }),
        b"signed" => signed(&rest),
        _ => {}
    }
}

fn fields(auth: &Auth, name: &'static str, values: &[&[u8]], is_right: impl Fn(&[u8]) -> bool) {
    let values: Vec<HeaderValue> =
        values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok()).collect();
    if is_let_in(auth, name, &values) {
        assert!(matches!(&values[..], [value] if is_right(value.as_bytes())), "{values:?} is let in");
    }
}

/// Checks that a token with the right signature is accepted only if its header and claims are right.
fn signed(parts: &[&[u8]]) {
    let [header, claims] = parts else { return };
    let encode = |part: &[u8]| engine(URL_SAFE, DecodePaddingMode::RequireNone, false).encode(part);
    let message = format!("{}.{}", encode(header), encode(claims));
    let token = format!("Bearer {message}.{}", encode(&mac(MessageDigest::sha256(), message.as_bytes())));
    let Ok(value) = HeaderValue::from_str(&token) else { return };
    if !is_let_in(&policies().token, "authorization", &[value]) {
        return;
    }
    let said = format!("{} {} is let in", header.escape_ascii(), claims.escape_ascii());
    let (header, claims) = (json(header), json(claims));
    assert_eq!(header["alg"], "HS256", "{said}");
    for not_understood in ["crit", "b64", "enc", "zip"] {
        assert!(header.get(not_understood).is_none_or(Value::is_null), "{said}");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    assert!(claims["exp"].as_f64().is_some_and(|end| end > now - 31.0), "{said}");
    assert!(claims["nbf"].as_f64().is_none_or(|begin| begin < now + 31.0), "{said}");
    assert!(claims.get("aud").is_none_or(Value::is_null), "it is for somebody else: {said}");
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|_| panic!("{} is no JSON", text.escape_ascii()))
}

fn is_let_in(auth: &Auth, name: &'static str, values: &[HeaderValue]) -> bool {
    let (Ok(mut request), Ok(runtime)) = (
        RequestHeader::build("GET", b"/", None),
        tokio::runtime::Builder::new_current_thread().enable_all().build(),
    ) else {
        panic!("nobody can ask")
    };
    for value in values {
        assert!(request.append_header(name, value).is_ok());
    }
    let id = HeaderValue::from_static("id");
    let asked =
        AuthRequest { request: &request, path: "/", client: None, is_https: true, host: None, id: &id };
    matches!(runtime.block_on(auth.check(&asked).verdict()), Verdict::Continue(_))
}

/// Returns the text after the scheme. The case of the scheme does not matter.
fn after<'v>(scheme: &str, value: &'v [u8]) -> Option<&'v [u8]> {
    let (given, rest) = value.trim_ascii().split_at_checked(scheme.len())?;
    given.eq_ignore_ascii_case(scheme.as_bytes()).then(|| rest.trim_ascii())
}

fn is_signed(token: &[u8]) -> bool {
    let parts: Vec<_> = token.split(|byte| *byte == b'.').collect();
    let [header, _, signature] = parts[..] else { return false };
    let digest = match lenient(URL_SAFE, header).map(|header| json(&header)["alg"].clone()) {
        Some(Value::String(name)) if name == "HS256" => MessageDigest::sha256(),
        Some(Value::String(name)) if name == "HS384" => MessageDigest::sha384(),
        Some(Value::String(name)) if name == "HS512" => MessageDigest::sha512(),
        _ => return false,
    };
    let message = &token[..token.len() - signature.len() - 1];
    lenient(URL_SAFE, signature) == Some(mac(digest, message))
}

fn mac(digest: MessageDigest, message: &[u8]) -> Vec<u8> {
    let made =
        PKey::hmac(SECRET.as_bytes()).and_then(|key| Signer::new(digest, &key)?.sign_oneshot_to_vec(message));
    made.unwrap_or_else(|error| panic!("nothing can be signed: {error}"))
}

fn lenient(alphabet: base64::alphabet::Alphabet, text: &[u8]) -> Option<Vec<u8>> {
    engine(alphabet, DecodePaddingMode::Indifferent, true).decode(text).ok()
}

fn engine(alphabet: base64::alphabet::Alphabet, padding: DecodePaddingMode, lenient: bool) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new().with_encode_padding(false);
    let config = config.with_decode_padding_mode(padding).with_decode_allow_trailing_bits(lenient);
    GeneralPurpose::new(&alphabet, config)
}

/// Policies for all kinds of credentials.
struct Policies {
    basic: Arc<Auth>,
    key: Arc<Auth>,
    token: Arc<Auth>,
}

fn policies() -> &'static Policies {
    static POLICIES: OnceLock<Policies> = OnceLock::new();
    POLICIES.get_or_init(|| {
        let Ok(files) = tempfile::tempdir() else { panic!("there is no place for files") };
        let table = config::Auth::default();
        let basic =
            config::Auth { kind: AuthKind::Basic, users_file: file(&files, "users", USERS), ..table.clone() };
        let key =
            config::Auth { kind: AuthKind::ApiKey, keys_file: file(&files, "keys", KEYS), ..table.clone() };
        let token =
            config::Auth { kind: AuthKind::Jwt, secret_file: file(&files, "secret", SECRET), ..table };
        Policies { basic: compiled(&basic), key: compiled(&key), token: compiled(&token) }
    })
}

fn compiled(table: &config::Auth) -> Arc<Auth> {
    let metrics = |_: &str| -> KeySetMetrics { panic!("keys are fetched") };
    match Compiler::new(AuthCaches::default(), metrics, &Secrets::required()).compile(table) {
        Ok(Some(auth)) => auth,
        other => panic!("the policy cannot be made: {other:?}"),
    }
}

/// Writes a file that an `[auth]` table can name, and returns its path. The file must exist only while the
/// table is compiled.
fn file(directory: &TempDir, name: &str, text: &str) -> String {
    let file = directory.path().join(name);
    if let Err(error) = std::fs::write(&file, text) {
        panic!("cannot write {}: {error}", file.display());
    }
    file.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the premise of the checks above, which would also pass if no client were ever accepted.
    #[test]
    fn valid_credentials_are_accepted() {
        let Policies { basic, key, token } = policies();
        for (auth, name, seed) in [
            (basic, "authorization", include_str!("../seeds/authorization/basic_right")),
            (key, "x-api-key", include_str!("../seeds/authorization/key_right")),
            (token, "authorization", include_str!("../seeds/authorization/bearer_right")),
        ] {
            let value = seed.lines().nth(1).unwrap();
            assert!(is_let_in(auth, name, &[HeaderValue::from_static(value)]), "{seed}");
        }
    }
}
