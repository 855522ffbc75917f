//! Measures the cost of authentication.
//!
//! The cases are: a password or a token that was accepted before (the usual case, since clients send it with
//! each request), an API key, and new tokens for each family of signature algorithms.

use std::cell::LazyCell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use criterion::{Bencher, BenchmarkId, Criterion};
use gateway::policy::auth::{Auth, AuthRequest};
use http::HeaderValue;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use pingora::http::RequestHeader;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::compiled;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const ALGORITHMS: [&str; 4] = ["HS256", "RS256", "ES256", "EdDSA"];
/// Number of tokens to make. After the last token, the benchmark continues with the first token and a new
/// policy, which has not cached any of them.
const TOKENS: usize = 1_000;

pub fn benchmarks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("auth");
    let password = LazyCell::new(password);
    group.bench_function("password_known", |bencher| {
        measure(bencher, &password.1, std::slice::from_ref(&password.2));
    });
    let key = LazyCell::new(api_key);
    group.bench_function("api_key", |bencher| measure(bencher, &key.1, std::slice::from_ref(&key.2)));
    for algorithm in ALGORITHMS {
        let known = LazyCell::new(|| tokens(algorithm, 1));
        group.bench_function(BenchmarkId::new("token_known", algorithm), |bencher| {
            measure(bencher, &policy(&known.1), &known.2);
        });
    }
    for algorithm in ALGORITHMS {
        let new = LazyCell::new(|| tokens(algorithm, TOKENS));
        group.bench_function(BenchmarkId::new("token_new", algorithm), |bencher| {
            measure_new(bencher, &new.1, &new.2);
        });
    }
    group.finish();
}

/// Returns the policy of a gateway with this `[auth]` table.
fn policy(table: &str) -> Arc<Auth> {
    let text = format!(
        "[auth]\n{table}\n[[virtual_hosts]]\ndomain = \"a\"\nenabled_backends_tag = \"a\"\n\
         [[backends]]\nid = \"a\"\naddress = \"127.0.0.1:3001\"\ntags = [\"a\"]\n"
    );
    let snapshot = compiled(&text).load();
    snapshot.routes.values().next().and_then(|route| route.auth.clone()).unwrap()
}

fn file(directory: &TempDir, text: impl AsRef<[u8]>) -> String {
    let file = directory.path().join("file");
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

/// Returns a request with this header field as its credentials.
fn request(name: &'static str, value: &str) -> RequestHeader {
    let mut request = RequestHeader::build("GET", b"/", None).unwrap();
    request.insert_header(name, value).unwrap();
    request
}

/// Directory of the policy's file, the policy, and a request that it accepts.
type Scene = (TempDir, Arc<Auth>, RequestHeader);

fn password() -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let users = format!("alice:{}\n", bcrypt::hash("a", 4).unwrap());
    let policy = policy(&format!("users_file = \"{}\"", file(&directory, users)));
    (directory, policy, request("authorization", &format!("Basic {}", STANDARD.encode("alice:a"))))
}

fn api_key() -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let hash = hex::encode(openssl::sha::sha256(b"key"));
    let keys_file = file(&directory, format!("a:{hash}"));
    let policy = policy(&format!("kind = \"api_key\"\nkeys_file = \"{keys_file}\""));
    (directory, policy, request("x-api-key", "key"))
}

/// Measures a check of the requests, one after the other, by the same policy.
fn measure(bencher: &mut Bencher<'_>, policy: &Auth, requests: &[RequestHeader]) {
    let runtime = Runtime::new().unwrap();
    let id = HeaderValue::from_static("id");
    let mut turn = requests.iter().cycle();
    bencher.iter(|| check(&runtime, policy, turn.next().unwrap(), &id));
}

/// Measures checks in which the policy sees each request for the first time. Replaces the policy, made from the
/// same `[auth]` table, after the last request.
fn measure_new(bencher: &mut Bencher<'_>, table: &str, requests: &[RequestHeader]) {
    let runtime = Runtime::new().unwrap();
    let id = HeaderValue::from_static("id");
    bencher.iter_custom(|checks| {
        let (mut spent, mut left) = (Duration::ZERO, usize::try_from(checks).unwrap());
        while left > 0 {
            let (policy, number) = (policy(table), left.min(requests.len()));
            let begun = Instant::now();
            requests[..number].iter().for_each(|request| check(&runtime, &policy, request, &id));
            spent += begun.elapsed();
            left -= number;
        }
        spent
    });
}

fn check(runtime: &Runtime, policy: &Auth, request: &RequestHeader, id: &HeaderValue) {
    let asked = AuthRequest { request, path: "/", client: None, is_https: true, host: None, id };
    assert!(runtime.block_on(policy.check(black_box(&asked)).verdict()).passed().is_ok());
}

/// Returns the `[auth]` table of a policy that accepts tokens signed with `algorithm`, and `count` requests
/// with such tokens.
fn tokens(algorithm: &str, count: usize) -> (TempDir, String, Vec<RequestHeader>) {
    let directory = tempfile::tempdir().unwrap();
    let algorithm: Algorithm = algorithm.parse().unwrap();
    let (key, public) = key(algorithm);
    let table = match public {
        Some(pem) => format!("public_key_file = \"{}\"", file(&directory, pem)),
        None => format!("secret_file = \"{}\"", file(&directory, SECRET)),
    };
    let table = format!("kind = \"jwt\"\n{table}\nforward_claims = {{ sub = \"X-User\" }}");
    let token = |n| {
        let claims = serde_json::json!({ "sub": "alice", "exp": 4_102_444_800_u64, "jti": n });
        let token = jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).unwrap();
        request("authorization", &format!("Bearer {token}"))
    };
    (directory, table, (0..count).map(token).collect())
}

/// Returns a signing key, and the public key that verifies its signatures if the algorithm is asymmetric.
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
