//! Checks that a valid token tells the upstream the user, and that every made-up token gets 401.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ex0409::{ISSUER, JwtAuth};
use http::Request;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use openssl::base64::encode_block;
use serde_json::{Value, json};
use testkit::{Client, Origin, Response, expect, serve};

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

fn in_an_hour() -> u64 {
    (SystemTime::now() + Duration::from_secs(3600)).duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn signed(claims: Value, algorithm: Algorithm, secret: &[u8]) -> String {
    encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret)).unwrap()
}

async fn ask(origin: &Origin, token: &str) -> Result<Response, String> {
    let proxy = serve(JwtAuth::new(origin.address(), SECRET));
    let request = Request::get(proxy.url("/"))
        .header("Authorization", format!("Bearer {token}"))
        .header("X-User", "root")
        .header("X_User", "root")
        .body(Default::default());
    Client::new().try_send(request.unwrap()).await
}

fn status(answer: &Result<Response, String>) -> Result<u16, &String> {
    answer.as_ref().map(|answer| answer.status.as_u16())
}

#[tokio::test]
async fn a_valid_token_passes_and_the_upstream_gets_the_user() {
    let origin = Origin::start().await;
    let claims = json!({ "sub": "ada", "iss": ISSUER, "exp": in_an_hour() });
    let answer = ask(&origin, &signed(claims, Algorithm::HS256, SECRET)).await;
    expect!(status(&answer), Ok(200), "GET / with a valid token");
    let received = origin.received();
    let users: Vec<_> = received[0].headers.get_all("x-user").iter().collect();
    expect!(users, ["ada"], "X-User at the upstream, when ada has sent X-User: root");
    expect!(received[0].header("x_user"), "", "X_User at the upstream, which some upstreams take for X-User");
    expect!(received[0].header("authorization"), "", "Authorization at the upstream");
}

#[tokio::test]
async fn expired_forged_and_foreign_tokens_get_401() {
    let origin = Origin::start().await;
    let good = json!({ "sub": "ada", "iss": ISSUER, "exp": in_an_hour() });
    let unsigned = {
        let part = |value: Value| {
            let text = encode_block(value.to_string().as_bytes());
            text.trim_end_matches('=').replace('+', "-").replace('/', "_")
        };
        format!("{}.{}.", part(json!({ "alg": "none", "typ": "JWT" })), part(good.clone()))
    };
    let expired = json!({ "sub": "ada", "iss": ISSUER, "exp": 1_000_000_000 });
    let for_ever = json!({ "sub": "ada", "iss": ISSUER });
    let stranger = json!({ "sub": "ada", "iss": "https://evil.test", "exp": in_an_hour() });
    let anonymous = json!({ "sub": "ada", "exp": in_an_hour() });
    let nameless = json!({ "iss": ISSUER, "exp": in_an_hour() });
    let early = json!({ "sub": "ada", "iss": ISSUER, "exp": 2 * in_an_hour(), "nbf": in_an_hour() });
    let tokens = [
        ("that has expired", signed(expired, Algorithm::HS256, SECRET)),
        ("that never expires", signed(for_ever, Algorithm::HS256, SECRET)),
        ("from another issuer", signed(stranger, Algorithm::HS256, SECRET)),
        ("without an issuer", signed(anonymous, Algorithm::HS256, SECRET)),
        ("without a user", signed(nameless, Algorithm::HS256, SECRET)),
        ("that is not valid yet", signed(early, Algorithm::HS256, SECRET)),
        ("signed with another secret", signed(good.clone(), Algorithm::HS256, b"another secret altogether")),
        ("signed with another algorithm", signed(good, Algorithm::HS384, SECRET)),
        ("that is not signed (alg none)", unsigned),
        ("that is not a JWT", "rubbish".to_owned()),
    ];
    for (what, token) in tokens {
        let answer = ask(&origin, &token).await;
        expect!(status(&answer), Ok(401), "GET / with a token {what}");
        expect!(answer.unwrap().header("www-authenticate"), contains "Bearer", "WWW-Authenticate of the 401");
    }
    expect!(origin.received().len(), 0, "how many of these requests the upstream got");
}
