//! The attempt table: ways in which an attacker without valid credentials tries to get in, one row each. The
//! gateway must refuse each attempt with the status in the row, and no attempt may reach the origin.

use serde_json::json;

use super::tokens::{Signer, claims, encode, hmac, now, token};
use super::{KEY, PASSWORD, SECRET, Scene, basic, bearer, field, status};

/// Name of the attempt, path, header fields, and the expected status.
type Attempt = (&'static str, &'static str, String, u16);

async fn all_are_refused(scene: &Scene, attempts: Vec<Attempt>) -> usize {
    for (what, path, fields, expected) in &attempts {
        let answer = scene.ask(path, fields).await;
        assert_eq!(status(&answer), *expected, "{what}: {answer}");
        let challenged = !field(&answer, "www-authenticate").is_empty();
        assert!(challenged || *expected != 401, "{what}: 401 asks for something: {answer}");
        assert!(answer.contains("\"request_id\":"), "{what}: {answer}");
    }
    assert_eq!(scene.origin.received().len(), 0, "{:?}", scene.origin.received());
    attempts.len()
}

/// Tokens with a wrong signature or a wrong header.
fn forged(signer: &Signer) -> Vec<Attempt> {
    let good = signer.good();
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
    let rs256 = json!({ "alg": "RS256", "typ": "JWT" });
    let mallory = Signer::new();
    let with = |header: serde_json::Value| bearer(&signer.token(&header, &claims(json!({}))));
    let unsigned = |alg: &str| bearer(&token(&json!({ "alg": alg }), &claims(json!({})), |_| Vec::new()));
    let confused = |secret: &[u8]| {
        bearer(&token(&json!({ "alg": "HS256" }), &claims(json!({})), |message| hmac(secret, message)))
    };
    let root = encode(claims(json!({ "sub": "root" })).to_string());
    let mut flipped = signature.to_owned().into_bytes();
    flipped[20] = if flipped[20] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    let pem = signer.public_pem();
    let mut embedded = mallory.jwk("mine");
    embedded["alg"] = json!("RS256");
    let embedded = json!({ "alg": "RS256", "kid": "mine", "jwk": embedded });
    vec![
        ("no token", "/jwt", String::new(), 401),
        ("other claims, old signature", "/jwt", bearer(&format!("{header}.{root}.{signature}")), 401),
        ("a bit of the signature", "/jwt", bearer(&format!("{header}.{payload}.{flipped}")), 401),
        ("somebody else's key", "/jwt", bearer(&mallory.good()), 401),
        ("signature stripped, dot left", "/jwt", bearer(&format!("{header}.{payload}.")), 401),
        ("signature stripped, dot too", "/jwt", bearer(&format!("{header}.{payload}")), 401),
        ("signature truncated", "/jwt", bearer(&good[..good.len() - 8]), 401),
        ("signature of nothing", "/jwt", bearer(&format!("{header}.{payload}.AA")), 401),
        ("payload stripped", "/jwt", bearer(&format!("{header}..{signature}")), 401),
        ("header stripped", "/jwt", bearer(&format!(".{payload}.{signature}")), 401),
        ("five parts, as if encrypted", "/jwt", bearer(&format!("{good}.a.b")), 401),
        ("padding in the parts", "/jwt", bearer(&format!("{header}=.{payload}.{signature}")), 401),
        ("no base64", "/jwt", bearer("a.b.!"), 401),
        ("no JSON", "/jwt", bearer(&format!("{}.{payload}.{signature}", encode("no JSON"))), 401),
        ("alg none, unsigned", "/jwt", unsigned("none"), 401),
        ("alg None", "/jwt", unsigned("None"), 401),
        ("alg NONE", "/jwt", unsigned("NONE"), 401),
        ("alg nOnE", "/jwt", unsigned("nOnE"), 401),
        ("alg empty", "/jwt", unsigned(""), 401),
        ("alg with a space", "/jwt", unsigned("none "), 401),
        ("alg none with a good signature", "/jwt", with(json!({ "alg": "none" })), 401),
        ("no alg", "/jwt", with(json!({ "typ": "JWT" })), 401),
        (
            "alg twice",
            "/jwt",
            {
                let header = encode("{\"alg\":\"RS256\",\"alg\":\"none\"}");
                bearer(&format!("{header}.{payload}.{signature}"))
            },
            401,
        ),
        ("alg HS256, secret is the public key as PEM", "/jwt", confused(pem.as_bytes()), 401),
        ("the same without the last line break", "/jwt", confused(pem.trim_end().as_bytes()), 401),
        ("alg HS256, secret is the public key as DER", "/jwt", confused(&signer.public_der()), 401),
        ("alg HS256, empty secret", "/jwt", confused(b""), 401),
        (
            "alg HS256 for the public key's route, the other's secret",
            "/jwt",
            confused(SECRET.as_bytes()),
            401,
        ),
        ("alg RS256 for a secret", "/hs", bearer(&good), 401),
        ("alg HS256, guessed secret", "/hs", confused(b"secret"), 401),
        ("alg HS256, the file with its line break", "/hs", confused(format!("{SECRET}\n").as_bytes()), 401),
        ("alg RS512 with a signature of RS256", "/jwt", with(json!({ "alg": "RS512" })), 401),
        ("alg PS256 with a signature of RS256", "/jwt", with(json!({ "alg": "PS256" })), 401),
        ("alg ES256 with a signature of RS256", "/jwt", with(json!({ "alg": "ES256" })), 401),
        ("alg EdDSA with a signature of RS256", "/jwt", with(json!({ "alg": "EdDSA" })), 401),
        ("a key of its own, embedded", "/jwt", bearer(&mallory.token(&embedded, &claims(json!({})))), 401),
        (
            "a key of its own, at a URL (jku)",
            "/jwt",
            {
                bearer(
                    &mallory
                        .token(&json!({ "alg": "RS256", "jku": "http://127.0.0.1:1/" }), &claims(json!({}))),
                )
            },
            401,
        ),
        (
            "a certificate of its own, at a URL (x5u)",
            "/jwt",
            {
                bearer(
                    &mallory
                        .token(&json!({ "alg": "RS256", "x5u": "http://127.0.0.1:1/" }), &claims(json!({}))),
                )
            },
            401,
        ),
        (
            "kid as a path, signed with an empty file",
            "/hs",
            {
                let header = json!({ "alg": "HS256", "kid": "../../../dev/null" });
                bearer(&token(&header, &claims(json!({})), |message| hmac(b"", message)))
            },
            401,
        ),
        (
            "kid as SQL that yields a secret",
            "/hs",
            {
                let header = json!({ "alg": "HS256", "kid": "x' UNION SELECT 'secret" });
                bearer(&token(&header, &claims(json!({})), |message| hmac(b"secret", message)))
            },
            401,
        ),
        ("crit that nobody knows", "/jwt", with(json!({ "alg": "RS256", "crit": ["x"], "x": 1 })), 401),
        ("crit, empty", "/jwt", with(json!({ "alg": "RS256", "crit": [] })), 401),
        ("b64 false", "/jwt", with(json!({ "alg": "RS256", "b64": false, "crit": ["b64"] })), 401),
        ("compressed", "/jwt", with(json!({ "alg": "RS256", "zip": "DEF" })), 401),
        ("a token for logging out", "/jwt", with(json!({ "alg": "RS256", "typ": "logout+jwt" })), 401),
        (
            "another signer's name for our key",
            "/jwt",
            bearer(&mallory.token(&rs256, &claims(json!({})))),
            401,
        ),
    ]
}

/// Tokens with a valid signature and invalid claims.
fn claimed(signer: &Signer) -> Vec<Attempt> {
    let with = |changes| bearer(&signer.token_with(changes));
    vec![
        ("expired", "/jwt", with(json!({ "exp": now() - 60 })), 401),
        ("expired long ago", "/jwt", with(json!({ "exp": 1 })), 401),
        ("no exp", "/jwt", with(json!({ "exp": null })), 401),
        ("exp as text", "/jwt", with(json!({ "exp": (now() + 600).to_string() })), 401),
        ("exp negative", "/jwt", with(json!({ "exp": -1 })), 401),
        ("exp beyond all numbers", "/jwt", with(json!({ "exp": 1e300 })), 401),
        ("not valid yet", "/jwt", with(json!({ "nbf": now() + 60 })), 401),
        ("nbf as text", "/jwt", with(json!({ "nbf": "0" })), 401),
        ("wrong issuer", "/jwt", with(json!({ "iss": "https://evil.test/" })), 401),
        ("issuer without its slash", "/jwt", with(json!({ "iss": "https://login.test" })), 401),
        (
            "several issuers",
            "/jwt",
            with(json!({ "iss": ["https://login.test/", "https://evil.test/"] })),
            401,
        ),
        ("no issuer", "/jwt", with(json!({ "iss": null })), 401),
        ("wrong audience", "/jwt", with(json!({ "aud": "till" })), 401),
        ("several wrong audiences", "/jwt", with(json!({ "aud": ["till", "shop2"] })), 401),
        ("no audience", "/jwt", with(json!({ "aud": null })), 401),
        (
            "an array for claims",
            "/jwt",
            { bearer(&signer.token(&json!({ "alg": "RS256" }), &json!([claims(json!({}))]))) },
            401,
        ),
        (
            "a line break in a claim that is passed on",
            "/jwt",
            with(json!({ "sub": "a\r\nX-Role: admin" })),
            401,
        ),
        ("a space before one", "/jwt", with(json!({ "sub": " root" })), 401),
        ("a comma in an array that is passed on", "/jwt", with(json!({ "role": ["a,admin"] })), 401),
        ("no role", "/admin", with(json!({})), 403),
        ("another role", "/admin", with(json!({ "role": "administrator" })), 403),
        ("roles without ours", "/admin", with(json!({ "role": ["a", "Admin"] })), 403),
        ("a role inside another", "/admin", with(json!({ "role": { "admin": true } })), 403),
    ]
}

/// Valid tokens in the wrong place or the wrong form.
fn brought(signer: &Signer) -> Vec<Attempt> {
    let good = signer.good();
    let line = bearer(&good);
    let cookie = format!("Cookie: access_token={good}; Authorization=Bearer {good}\r\n");
    vec![
        ("two tokens", "/jwt", format!("{line}{line}"), 400),
        ("a token and a password", "/jwt", format!("{line}{}", basic("alice:x")), 400),
        ("two in one field", "/jwt", format!("Authorization: Bearer {good}, Bearer {good}\r\n"), 401),
        ("scheme Basic", "/jwt", format!("Authorization: Basic {good}\r\n"), 401),
        ("scheme Token", "/jwt", format!("Authorization: Token {good}\r\n"), 401),
        ("no scheme", "/jwt", format!("Authorization: {good}\r\n"), 401),
        ("scheme and nothing", "/jwt", "Authorization: Bearer\r\n".to_owned(), 401),
        ("no space", "/jwt", format!("Authorization: Bearer{good}\r\n"), 401),
        ("in another field", "/jwt", format!("Proxy-Authorization: Bearer {good}\r\n"), 401),
        ("in X-Authorization", "/jwt", format!("X-Authorization: Bearer {good}\r\n"), 401),
        ("in a cookie", "/jwt", cookie, 401),
        ("quoted", "/jwt", format!("Authorization: Bearer \"{good}\"\r\n"), 401),
        ("a huge one", "/jwt", bearer(&format!("{good}{}", "A".repeat(20_000))), 401),
        ("only dots", "/jwt", bearer(&".".repeat(10_000)), 401),
        ("another method", "/jwt", "X-HTTP-Method-Override: OPTIONS\r\n".to_owned(), 401),
    ]
}

fn passwords_and_keys() -> Vec<Attempt> {
    let right = basic(&format!("alice:{PASSWORD}"));
    let key = |value: &str| format!("X-Api-Key: {value}\r\n");
    vec![
        ("nothing", "/basic", String::new(), 401),
        ("wrong password", "/basic", basic("alice:wrong"), 401),
        ("empty password", "/basic", basic("alice:"), 401),
        ("password up to its colon", "/basic", basic("alice:open"), 401),
        ("password with more behind it", "/basic", basic(&format!("alice:{PASSWORD}x")), 401),
        ("password with NUL behind it", "/basic", basic(&format!("alice:{PASSWORD}\0")), 401),
        ("name in capitals", "/basic", basic(&format!("ALICE:{PASSWORD}")), 401),
        ("unknown name", "/basic", basic(&format!("mallory:{PASSWORD}")), 401),
        ("empty name", "/basic", basic(&format!(":{PASSWORD}")), 401),
        ("no colon", "/basic", basic("alice"), 401),
        (
            "the hash in place of the password",
            "/basic",
            basic(&format!("alice:{}", super::bcrypt(PASSWORD))),
            401,
        ),
        ("bad base64", "/basic", "Authorization: Basic ????\r\n".to_owned(), 401),
        ("not UTF-8", "/basic", "Authorization: Basic YWxpY2U6/w==\r\n".to_owned(), 401),
        ("two fields", "/basic", format!("{right}{right}"), 400),
        ("a wrong field before the right one", "/basic", format!("{}{right}", basic("alice:x")), 400),
        ("scheme Bearer", "/basic", right.replace("Basic", "Bearer"), 401),
        ("huge", "/basic", basic(&format!("alice:{}", "x".repeat(20_000))), 401),
        ("no key", "/key", String::new(), 401),
        ("empty key", "/key", key(""), 401),
        ("wrong key", "/key", key("k-0000000000000000"), 401),
        (
            "the hash in place of the key",
            "/key",
            key(&hex::encode(openssl::sha::sha256(KEY.as_bytes()))),
            401,
        ),
        ("key in capitals", "/key", key(&KEY.to_uppercase()), 401),
        ("beginning of the key", "/key", key(&KEY[..8]), 401),
        ("two keys", "/key", format!("{}{}", key(KEY), key(KEY)), 400),
        ("a wrong key and the right one", "/key", key(&format!("x, {KEY}")), 401),
        ("key in X_Api_Key", "/key", format!("X_Api_Key: {KEY}\r\n"), 401),
        ("key as bearer token", "/key", bearer(KEY), 401),
        ("a right password for the keys' route", "/key", right, 401),
        ("a right key for the passwords' route", "/basic", key(KEY), 401),
    ]
}

#[tokio::test]
async fn no_attempt_gets_past_and_the_origin_sees_none() {
    let scene = Scene::start().await;
    let signer = &scene.signer;
    let mut tried = 0;
    for table in [forged(signer), claimed(signer), brought(signer), passwords_and_keys()] {
        tried += all_are_refused(&scene, table).await;
    }
    assert!(tried >= 110, "{tried} attempts");
    eprintln!("{tried} attempts, none got past");
    let reason = |reason: &str, route: &str| {
        format!("proxy_auth_failures_total{{reason=\"{reason}\",route=\"{route}\",vhost=\"shop.test\"}}")
    };
    assert_eq!(scene.gateway.metric(&reason("not_allowed", "/admin")).await, 4.0);
    assert_eq!(scene.gateway.metric(&reason("credentials_missing", "/key")).await, 4.0);

    // Valid credentials must pass. Otherwise the refusals above would prove nothing.
    let token = |changes| bearer(&signer.token_with(changes));
    let hs = token_of_secret();
    for (path, fields) in [
        ("/jwt", token(json!({}))),
        ("/jwt", token(json!({})).replace("Bearer", "bEARER")),
        ("/admin", token(json!({ "role": ["x", "admin"] }))),
        ("/hs", bearer(&hs)),
        ("/basic", basic(&format!("alice:{PASSWORD}"))),
        ("/basic", basic("Jürgen:schön")),
        ("/key", format!("x-api-key: {KEY}\r\n")),
    ] {
        let answer = scene.ask(path, &fields).await;
        assert_ne!(status(&answer), 401, "{path}: {answer}");
        assert_eq!(scene.origin.received().len(), 1, "{path}: {answer}");
        scene.origin.forget();
    }
}

#[tokio::test]
async fn a_token_in_the_query_is_none() {
    let scene = Scene::start().await;
    let path = format!("/jwt?access_token={}", scene.signer.good());
    let answer = scene.ask(&path, "").await;
    assert_eq!((status(&answer), scene.origin.received().len()), (401, 0), "{answer}");
    assert_eq!(field(&answer, "www-authenticate"), "Bearer realm=\"gateway\"", "nothing was presented");
}

fn token_of_secret() -> String {
    token(&json!({ "alg": "HS256" }), &claims(json!({})), |message| hmac(SECRET.as_bytes(), message))
}
