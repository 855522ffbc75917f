//! What it costs to know who asks: `cargo bench -p gateway --bench auth`.
//!
//! A password or a token that was right a moment ago (the usual case: clients send them with each request), a key, and
//! tokens by each family of algorithms that nobody has seen before.

#![allow(clippy::unwrap_used, reason = "in a benchmark, a panic is the report")]

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use divan::{Bencher, black_box};
use gateway::config::Source;
use gateway::live::{Names, Store};
use gateway::policy::auth::{Asked, Auth};
use gateway::telemetry::Metrics;
use http::HeaderValue;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use pingora::http::RequestHeader;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn main() {
    divan::main();
}

/// The policy of a gateway with this `[auth]` table.
fn policy(table: &str) -> Arc<Auth> {
    let text = format!(
        "[auth]\n{table}\n[[virtual_hosts]]\ndomain = \"a\"\nenabled_backends_tag = \"a\"\n\
         [[backends]]\nid = \"a\"\naddress = \"127.0.0.1:3001\"\ntags = [\"a\"]\n"
    );
    let source = Source::built_in("bench", text);
    let parsed = source.read().unwrap();
    let store = Store::new(source, parsed, Names::Resolved, Arc::new(Metrics::new().unwrap())).unwrap();
    let snapshot = store.load();
    snapshot.routes.values().next().and_then(|route| route.auth.clone()).unwrap()
}

fn file(directory: &TempDir, text: impl AsRef<[u8]>) -> String {
    let file = directory.path().join("file");
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn measure(bencher: Bencher<'_, '_>, policy: &Auth, field: (&'static str, String)) {
    let runtime = Runtime::new().unwrap();
    let mut request = RequestHeader::build("GET", b"/", None).unwrap();
    request.insert_header(field.0, field.1).unwrap();
    let id = HeaderValue::from_static("id");
    let asked = Asked { request: &request, path: "/", client: None, is_https: true, host: None, id: &id };
    let passes = || runtime.block_on(policy.check(black_box(&asked)).verdict()).passed().is_ok();
    assert!(passes());
    bencher.bench_local(passes);
}

#[divan::bench]
fn a_password_that_was_right_before(bencher: Bencher<'_, '_>) {
    let directory = tempfile::tempdir().unwrap();
    let users = format!("alice:{}\n", bcrypt::hash("a", 4).unwrap());
    let policy = policy(&format!("users_file = \"{}\"", file(&directory, users)));
    measure(bencher, &policy, ("authorization", format!("Basic {}", STANDARD.encode("alice:a"))));
}

#[divan::bench]
fn a_key(bencher: Bencher<'_, '_>) {
    let directory = tempfile::tempdir().unwrap();
    let hash: String = openssl::sha::sha256(b"key").iter().map(|byte| format!("{byte:02x}")).collect();
    let policy =
        policy(&format!("kind = \"api_key\"\nkeys_file = \"{}\"", file(&directory, format!("a:{hash}"))));
    measure(bencher, &policy, ("x-api-key", "key".to_owned()));
}

#[divan::bench(args = ["HS256", "RS256", "ES256", "EdDSA"])]
fn a_token_that_was_right_before(bencher: Bencher<'_, '_>, algorithm: &str) {
    let (_directory, policy, tokens) = tokens(algorithm, 1);
    measure(bencher, &policy, ("authorization", tokens[0].clone()));
}

#[divan::bench(args = ["HS256", "RS256", "ES256", "EdDSA"], sample_count = 10, sample_size = 100)]
fn a_new_token(bencher: Bencher<'_, '_>, algorithm: &str) {
    let (_directory, policy, tokens) = tokens(algorithm, 1_000);
    let runtime = Runtime::new().unwrap();
    let id = HeaderValue::from_static("id");
    let requests = tokens.into_iter().map(|token| {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.insert_header("authorization", token).unwrap();
        request
    });
    let requests: Vec<RequestHeader> = requests.collect();
    let mut turn = requests.iter().cycle();
    bencher.bench_local(|| {
        let asked = Asked {
            request: turn.next().unwrap(),
            path: "/",
            client: None,
            is_https: true,
            host: None,
            id: &id,
        };
        assert!(runtime.block_on(policy.check(black_box(&asked)).verdict()).passed().is_ok());
    });
}

/// A policy that believes tokens by this algorithm, and some of them.
fn tokens(algorithm: &str, count: usize) -> (TempDir, Arc<Auth>, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let algorithm: Algorithm = algorithm.parse().unwrap();
    let (key, public) = key(algorithm);
    let table = match public {
        Some(pem) => format!("public_key_file = \"{}\"", file(&directory, pem)),
        None => format!("secret_file = \"{}\"", file(&directory, SECRET)),
    };
    let policy = policy(&format!("kind = \"jwt\"\n{table}\nforward_claims = {{ sub = \"X-User\" }}"));
    let token = |n| {
        let claims = serde_json::json!({ "sub": "alice", "exp": 4_102_444_800_u64, "jti": n });
        format!("Bearer {}", jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).unwrap())
    };
    (directory, policy, (0..count).map(token).collect())
}

/// A key to sign with, and what verifies it where that is another one.
fn key(algorithm: Algorithm) -> (EncodingKey, Option<Vec<u8>>) {
    let pkcs8 = |key: PKey<Private>| (key.private_key_to_pkcs8().unwrap(), key.public_key_to_pem().unwrap());
    match algorithm {
        Algorithm::HS256 => (EncodingKey::from_secret(SECRET.as_bytes()), None),
        Algorithm::RS256 => {
            let rsa = Rsa::generate(2048).unwrap();
            let public = rsa.public_key_to_pem().unwrap();
            (EncodingKey::from_rsa_der(&rsa.private_key_to_der().unwrap()), Some(public))
        }
        Algorithm::ES256 => {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
            let (private, public) = pkcs8(PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap());
            (EncodingKey::from_ec_der(&private), Some(public))
        }
        _ => {
            let (private, public) = pkcs8(PKey::generate_ed25519().unwrap());
            (EncodingKey::from_ed_der(&private), Some(public))
        }
    }
}
