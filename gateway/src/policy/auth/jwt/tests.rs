//! Tests with valid tokens, and with tokens that are invalid in every known way.

use jsonwebtoken::{EncodingKey, get_current_timestamp};
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use serde_json::json;

use super::*;
use crate::config::AuthKind;
use crate::policy::auth::jwk_set::JwkSet;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn policy(toml: &str, keys: Vec<Key>) -> Jwt {
    let table: config::Auth = toml::from_str(&format!("kind = \"jwt\"\n{toml}")).unwrap();
    assert_eq!(table.kind, AuthKind::Jwt);
    Jwt::new(&table, VerificationKeys::Fixed(keys.into()))
}

fn with_secret(toml: &str) -> Jwt {
    policy(toml, vec![Key::secret(SECRET).unwrap()])
}

fn claims(changes: Value) -> Value {
    let mut claims = json!({ "sub": "alice", "exp": get_current_timestamp() + 600 });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn signed(claims: &Value) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

/// Returns the name of the client, or else the status and the error description of the reply.
async fn outcome(policy: &Jwt, token: &str) -> Result<String, (u16, String)> {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    match policy.check(&headers).verdict().await {
        Verdict::Continue(identity) => Ok(identity.name.clone()),
        Verdict::Reply(reply) => {
            let challenge = reply.fields()["www-authenticate"].to_str().unwrap();
            let said = challenge.split("error_description=").nth(1).unwrap_or_default();
            Err((reply.status(), said.trim_matches('"').to_owned()))
        }
    }
}

#[tokio::test]
async fn token_times_are_checked_with_leeway() {
    let now = get_current_timestamp();
    let policy = with_secret("leeway_secs = 5");
    for (changes, expected) in [
        (json!({}), ""),
        (json!({ "nbf": now - 1 }), ""),
        (json!({ "nbf": now + 3 }), ""),
        (json!({ "exp": now - 3 }), ""),
        (json!({ "exp": (now + 60) as f64 + 0.5 }), ""),
        (json!({ "exp": now - 60 }), "the token has expired"),
        (json!({ "exp": 0 }), "the token has expired"),
        (json!({ "nbf": now + 60 }), "the token is not valid yet"),
        (json!({ "exp": null }), "the token lacks a claim that is required here"),
        (json!({ "exp": (now + 60).to_string() }), "the token lacks a claim that is required here"),
        (json!({ "exp": -1 }), "the token lacks a claim that is required here"),
        (json!({ "exp": 1e300 }), "the token lacks a claim that is required here"),
        (json!({ "exp": [now + 60] }), "this is not a valid token"),
        (json!({ "nbf": "soon" }), "this is not a valid token"),
    ] {
        let found = outcome(&policy, &signed(&claims(changes.clone()))).await;
        let expected =
            if expected.is_empty() { Ok("alice".to_owned()) } else { Err((401, expected.to_owned())) };
        assert_eq!(found, expected, "{changes}");
    }
}

#[tokio::test]
async fn verified_token_is_cached_until_expiry_or_new_keys() {
    let mut policy = with_secret("leeway_secs = 0");
    let token = signed(&claims(json!({})));
    let find = |policy: &Jwt| policy.proved(&policy.cache.as_ref()?.digest(token.as_bytes())?);
    assert!(find(&policy).is_none());
    let first = outcome(&policy, &token).await;
    assert_eq!(
        (first, find(&policy).map(|found| found.name.clone())),
        (Ok("alice".to_owned()), Some("alice".to_owned()))
    );
    let forged = format!("{}A", &token[..token.len() - 1]);
    assert!(outcome(&policy, &forged).await.is_err() || forged == token);

    let digest = policy.cache.as_ref().and_then(|cache| cache.digest(token.as_bytes())).unwrap();
    let proved = policy.cache.as_ref().and_then(|cache| cache.find(&digest, Instant::now())).unwrap();
    assert!(proved.until > get_current_timestamp() + 500 && proved.until < get_current_timestamp() + 700);
    let expired = Proved { until: get_current_timestamp() - 1, ..proved };
    policy.cache.as_ref().unwrap().keep(digest, expired.clone(), Instant::now());
    assert!(find(&policy).is_none(), "it has expired in the meantime");

    policy.cache.as_ref().unwrap().keep(digest, Proved { until: u64::MAX, ..expired }, Instant::now());
    assert!(find(&policy).is_some());
    policy.keys =
        VerificationKeys::Fixed(vec![Key::secret(b"another secret of thirty-two bytes").unwrap()].into());
    assert!(find(&policy).is_none(), "the keys are others");
    assert_eq!(outcome(&policy, &token).await.unwrap_err().0, 401);
}

#[tokio::test]
async fn token_of_another_issuer_or_audience_gets_401() {
    let both = with_secret("issuer = \"us\"\naudience = [\"shop\", \"till\"]");
    let neither = with_secret("");
    for (changes, of_both, of_neither) in [
        (json!({ "iss": "us", "aud": "shop" }), "", "the token is for another audience"),
        (json!({ "iss": "us", "aud": ["other", "till"] }), "", "the token is for another audience"),
        (
            json!({ "iss": "us", "aud": [] }),
            "the token is for another audience",
            "the token is for another audience",
        ),
        (
            json!({ "iss": "us", "aud": "other" }),
            "the token is for another audience",
            "the token is for another audience",
        ),
        (json!({ "iss": "us" }), "the token lacks a claim that is required here", ""),
        (
            json!({ "aud": "shop" }),
            "the token lacks a claim that is required here",
            "the token is for another audience",
        ),
        (
            json!({ "iss": "US", "aud": "shop" }),
            "the token's issuer is not accepted here",
            "the token is for another audience",
        ),
        (
            json!({ "iss": ["them", "us"], "aud": "shop" }),
            "the token's issuer is not accepted here",
            "the token is for another audience",
        ),
        (
            json!({ "iss": "us", "aud": 7 }),
            "the token lacks a claim that is required here",
            "the token is for another audience",
        ),
        (
            json!({ "iss": "us", "aud": ["shop", 7] }),
            "the token lacks a claim that is required here",
            "the token is for another audience",
        ),
        (
            json!({ "iss": 7 }),
            "the token lacks a claim that is required here",
            "the token's issuer is not accepted here",
        ),
    ] {
        let token = signed(&claims(changes.clone()));
        for (policy, expected) in [(&both, of_both), (&neither, of_neither)] {
            let found = outcome(policy, &token).await;
            let expected =
                if expected.is_empty() { Ok("alice".to_owned()) } else { Err((401, expected.to_owned())) };
            assert_eq!(found, expected, "{changes}");
        }
    }
}

#[tokio::test]
async fn missing_required_claim_gets_403() {
    let policy =
        with_secret("require = { scope = [\"read\", \"write\"], \"realm.roles\" = \"admin\", n = \"7\" }");
    for (changes, expected) in [
        (json!({ "scope": "a read", "realm": { "roles": ["x", "admin"] }, "n": 7 }), 200),
        (json!({ "scope": "write", "realm": { "roles": "admin" }, "n": ["7"] }), 200),
        (json!({ "scope": "reads", "realm": { "roles": ["admin"] }, "n": 7 }), 403),
        (json!({ "scope": "read", "realm": { "roles": "x admin" }, "n": 7 }), 403),
        (json!({ "scope": "read", "realm": { "roles": { "admin": true } }, "n": 7 }), 403),
        (json!({ "scope": "read", "realm": { "roles": ["admin"] } }), 403),
        (json!({}), 403),
    ] {
        let found = outcome(&policy, &signed(&claims(changes.clone()))).await;
        assert_eq!(found.map_or_else(|(status, _)| status, |_| 200), expected, "{changes}");
    }
}

#[tokio::test]
async fn claims_are_forwarded_unchanged_or_refused() {
    let policy = with_secret("forward_claims = { sub = \"X-User\", roles = \"X-Roles\", n = \"X-N\" }");
    let VerificationKeys::Fixed(keys) = &policy.keys else { panic!("a secret is fixed") };
    let told = |changes: Value| {
        let token = signed(&claims(changes));
        let identity = policy.verify(token.as_bytes(), keys.clone()).map_err(|_| ())?.identity;
        let mut request = pingora::http::RequestHeader::build("GET", b"/", None).unwrap();
        identity.on_request(&mut request).unwrap();
        let field = |name| {
            request.headers.get(name).map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap())
        };
        Ok::<_, ()>(["x-user", "x-roles", "x-n"].map(field).map(Option::unwrap_or_default))
    };
    for (changes, expected) in [
        (json!({ "roles": ["a", "b"], "n": 7 }), Ok(["alice", "a,b", "7"])),
        (json!({ "roles": "a, b", "n": true }), Ok(["alice", "a, b", "true"])),
        (json!({ "sub": "Jürgen", "roles": [], "n": null }), Ok(["Jürgen", "", ""])),
        (json!({ "sub": { "name": "alice" } }), Err(())),
        (json!({ "roles": "", "n": u64::MAX }), Ok(["alice", "", "18446744073709551615"])),
        (json!({ "n": i64::MIN, "roles": [1, true] }), Ok(["alice", "1,true", "-9223372036854775808"])),
        (json!({ "roles": ["a,admin"] }), Err(())),
        (json!({ "roles": ["a", ["b"]] }), Err(())),
        (json!({ "roles": ["a", null] }), Err(())),
        (json!({ "roles": ["a", { "b": 1 }] }), Err(())),
        (json!({ "roles": [1.5] }), Err(())),
        (json!({ "roles": { "a": true } }), Err(())),
        // Two different user numbers may be equal after rounding to a 64-bit floating-point number.
        (json!({ "n": 1.5 }), Err(())),
        (json!({ "n": 12_345_678_901_234_567_890_123_f64 }), Err(())),
        (json!({ "sub": "a\r\nX-Role: admin" }), Err(())),
        (json!({ "sub": "a\nb" }), Err(())),
        (json!({ "sub": "a\u{0}" }), Err(())),
        (json!({ "sub": "a\u{7f}" }), Err(())),
        (json!({ "sub": "a\u{85}b" }), Err(())),
        (json!({ "sub": " admin" }), Err(())),
        (json!({ "sub": "a\tb" }), Err(())),
    ] {
        let expected = expected.map(|fields| fields.map(str::to_owned));
        assert_eq!(told(changes.clone()), expected, "{changes}");
    }
}

fn header(json: Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as ENGINE;
    let message = format!("{}.{}", ENGINE.encode(json.to_string()), ENGINE.encode(claims.to_string()));
    format!("{message}.{}", ENGINE.encode(sign(message.as_bytes())))
}

fn hmac(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = PKey::hmac(secret).unwrap();
    move |message| {
        let mut signer = openssl::sign::Signer::new(openssl::hash::MessageDigest::sha256(), &key).unwrap();
        signer.sign_oneshot_to_vec(message).unwrap()
    }
}

/// Tests that a token has only one spelling, without padding (RFC 7515 2), because a list of revoked tokens
/// would not find a second spelling.
#[tokio::test]
async fn a_token_has_one_spelling() {
    let policy = with_secret("");
    let token = header(json!({ "alg": "HS256" }), &claims(json!({})), hmac(SECRET));
    assert!(outcome(&policy, &token).await.is_ok());
    let parts: Vec<&str> = token.split('.').collect();
    for i in 0..3 {
        let mut padded: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        padded[i].push('=');
        let (status, _) = outcome(&policy, &padded.join(".")).await.unwrap_err();
        assert_eq!(status, 401, "part {i}");
    }
    // A signature of 32 bytes leaves two bits of the last character unused.
    let last = token.chars().last().unwrap();
    for other in
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars().filter(|c| *c != last)
    {
        let changed = format!("{}{other}", &token[..token.len() - 1]);
        assert!(outcome(&policy, &changed).await.is_err(), "{last} became {other}");
    }
}

#[tokio::test]
async fn token_header_does_not_change_the_verification() {
    let policy = with_secret("");
    let good = claims(json!({}));
    for (json, expected) in [
        (json!({ "alg": "HS256" }), 200),
        (json!({ "alg": "HS256", "typ": "JWT" }), 200),
        (json!({ "alg": "HS256", "typ": "application/at+jwt", "kid": "../../etc/passwd" }), 200),
        (json!({ "alg": "HS256", "jku": "https://evil.example/", "x5u": "https://evil.example/" }), 200),
        (json!({ "alg": "HS256", "typ": "logout+jwt" }), 401),
        (json!({ "alg": "HS256", "crit": ["exp"] }), 401),
        (json!({ "alg": "HS256", "crit": [] }), 401),
        (json!({ "alg": "HS256", "b64": false }), 401),
        (json!({ "alg": "HS256", "b64": true }), 401),
        (json!({ "alg": "HS256", "zip": "DEF" }), 401),
        (json!({ "alg": "HS256", "enc": "A128GCM" }), 401),
        (json!({ "alg": "HS384" }), 401),
        (json!({ "alg": "none" }), 401),
        (json!({ "alg": "None" }), 401),
        (json!({ "alg": "nOnE" }), 401),
        (json!({ "alg": "hs256" }), 401),
        (json!({ "alg": "" }), 401),
        (json!({ "alg": null }), 401),
        (json!({ "alg": ["HS256"] }), 401),
        (json!({ "typ": "JWT" }), 401),
        (json!([]), 401),
    ] {
        let token = header(json.clone(), &good, hmac(SECRET));
        let found = outcome(&policy, &token).await.map_or_else(|(status, _)| status, |_| 200);
        assert_eq!(found, expected, "{json}");
    }
}

fn rsa() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

fn ec(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn public_pem(key: &PKey<Private>) -> String {
    String::from_utf8(key.public_key_to_pem().unwrap()).unwrap()
}

#[tokio::test]
async fn each_public_key_verifies_what_its_owner_signs() {
    let (rsa, p256, p384, ed) =
        (rsa(), ec(Nid::X9_62_PRIME256V1), ec(Nid::SECP384R1), PKey::generate_ed25519().unwrap());
    let pems = [&rsa, &p256, &p384, &ed].map(public_pem);
    let policy = policy("", Key::from_pem(&pems.concat()).unwrap());
    let good = claims(json!({}));
    let pkcs8 = |key: &PKey<Private>| key.private_key_to_pkcs8().unwrap();
    for (algorithm, key) in [
        (Algorithm::RS256, EncodingKey::from_rsa_der(&rsa.rsa().unwrap().private_key_to_der().unwrap())),
        (Algorithm::PS512, EncodingKey::from_rsa_der(&rsa.rsa().unwrap().private_key_to_der().unwrap())),
        (Algorithm::ES256, EncodingKey::from_ec_der(&pkcs8(&p256))),
        (Algorithm::ES384, EncodingKey::from_ec_der(&pkcs8(&p384))),
        (Algorithm::EdDSA, EncodingKey::from_ed_der(&pkcs8(&ed))),
    ] {
        let token = jsonwebtoken::encode(&Header::new(algorithm), &good, &key).unwrap();
        assert_eq!(outcome(&policy, &token).await, Ok("alice".to_owned()), "{algorithm:?}");
    }
    // A public key is not accepted as a secret, no matter in which form it is written.
    for pem in &pems {
        for secret in [pem.as_bytes(), pem.trim_end().as_bytes()] {
            let token = header(json!({ "alg": "HS256" }), &good, hmac(secret));
            let (status, said) = outcome(&policy, &token).await.unwrap_err();
            assert_eq!(
                (status, said.as_str()),
                (401, "the token is not signed with a key that is accepted here")
            );
        }
    }
}

#[tokio::test]
async fn algorithm_that_is_not_listed_gets_401() {
    let rsa = rsa();
    let policy = policy("algorithms = [\"PS256\"]", Key::from_pem(&public_pem(&rsa)).unwrap());
    let key = EncodingKey::from_rsa_der(&rsa.rsa().unwrap().private_key_to_der().unwrap());
    for (algorithm, expected) in [(Algorithm::PS256, 200), (Algorithm::RS256, 401), (Algorithm::PS512, 401)] {
        let token = jsonwebtoken::encode(&Header::new(algorithm), &claims(json!({})), &key).unwrap();
        let found = outcome(&policy, &token).await.map_or_else(|(status, _)| status, |_| 200);
        assert_eq!(found, expected, "{algorithm:?}");
    }
}

#[test]
fn a_certificate_holds_a_key() {
    let certificate = testkit::tls::Authority::new().certificate().to_pem().unwrap();
    let text = format!("the issuer's:\n{}", String::from_utf8(certificate).unwrap());
    assert_eq!(Key::from_pem(&text).unwrap()[0].algorithms, [Algorithm::ES256]);
}

#[test]
fn unusable_keys_are_reported() {
    let said = |pem: &str| Key::from_pem(pem).err().unwrap_or_default();
    assert!(Key::secret(&SECRET[1..]).err().unwrap().contains("the secret has 31 bytes and needs 32"));
    assert_eq!(said("no key"), "there is no public key in PEM");
    let private = String::from_utf8(rsa().private_key_to_pem_pkcs8().unwrap()).unwrap();
    assert!(said(&private).contains("there is a private key, which belongs to the issuer alone"));
    let short = PKey::from_rsa(Rsa::generate(1024).unwrap()).unwrap();
    assert!(said(&public_pem(&short)).contains("an RSA key of 1024 bits; at least 2048"));
    assert!(said(&public_pem(&ec(Nid::SECP521R1))).contains("neither P-256 nor P-384"));
    assert!(said("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").contains("damaged"));
    assert!(said("-----BEGIN DH PARAMETERS-----\n").contains("there is a DH PARAMETERS"));
}

#[test]
fn key_set_yields_only_signing_keys() {
    let set = |keys: Value| JwkSet::read(json!({ "keys": keys }).to_string().as_bytes()).map(|set| set.keys);
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let ed = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "ed" });
    let with = |name: &str, value: &str| {
        let mut key = ed.clone();
        key[name] = json!(value);
        key
    };
    let kept = set(json!([
        ed,
        with("use", "sig"),
        with("use", "enc"),
        with("alg", "EdDSA"),
        with("alg", "RS256"),
        with("alg", "none"),
        with("crv", "X25519"),
        { "kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0" },
        { "kty": "PQ", "x": "?" },
        7,
    ]));
    assert_eq!(kept.unwrap().len(), 3);
    let unusable = json!([{ "kty": "oct", "k": "AA" }]);
    assert!(set(unusable).err().unwrap().contains("there is no key in it that signs tokens"));
    assert!(set(json!([])).unwrap().is_empty(), "the issuer has taken all of them back");
    assert!(set(json!(vec![json!({}); 101])).err().unwrap().contains("there are 101 keys"));
    for nonsense in [&b""[..], b"<html>", b"{}", b"[]", b"{\"keys\":{}}", b"{\"keys\":\xff}"] {
        assert!(JwkSet::read(nonsense).err().unwrap().contains("not a JSON Web Key Set"));
    }
}
