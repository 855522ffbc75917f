//! What it costs to know who asks: `cargo bench -p gateway --bench auth`.
//!
//! A password that was right a moment ago (the usual case: a browser sends it with each request), a key, and a token by
//! each family of algorithms. Tokens are not kept: the figures here would have to say that it is worth it.

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
use openssl::pkey::PKey;
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
    let asked = Asked { request: &request, client: None, is_https: true, host: None, id: &id };
    let passes = || runtime.block_on(policy.check(black_box(&asked))).passed().is_ok();
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
fn a_token(bencher: Bencher<'_, '_>, algorithm: &str) {
    let directory = tempfile::tempdir().unwrap();
    let algorithm: Algorithm = algorithm.parse().unwrap();
    let (key, public) = match algorithm {
        Algorithm::HS256 => (EncodingKey::from_secret(SECRET.as_bytes()), None),
        Algorithm::RS256 => {
            let rsa = Rsa::generate(2048).unwrap();
            (
                EncodingKey::from_rsa_der(&rsa.private_key_to_der().unwrap()),
                Some(rsa.public_key_to_pem().unwrap()),
            )
        }
        Algorithm::ES256 => {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
            let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
            let public = key.public_key_to_pem().unwrap();
            (EncodingKey::from_ec_der(&key.private_key_to_pkcs8().unwrap()), Some(public))
        }
        _ => {
            let key = PKey::generate_ed25519().unwrap();
            let public = key.public_key_to_pem().unwrap();
            (EncodingKey::from_ed_der(&key.private_key_to_pkcs8().unwrap()), Some(public))
        }
    };
    let table = match public {
        Some(pem) => format!("public_key_file = \"{}\"", file(&directory, pem)),
        None => format!("secret_file = \"{}\"", file(&directory, SECRET)),
    };
    let policy = policy(&format!("kind = \"jwt\"\n{table}\nforward_claims = {{ sub = \"X-User\" }}"));
    let claims =
        serde_json::json!({ "sub": "alice", "exp": 4_102_444_800_u64, "iss": "https://login.example/" });
    let token = jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).unwrap();
    measure(bencher, &policy, ("authorization", format!("Bearer {token}")));
}
