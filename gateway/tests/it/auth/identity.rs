//! Identity fields that backends get: the identity that the client has proved, no identity that the client only
//! claims, and not the credentials.

use bytes::Bytes;
use http::Request;
use serde_json::json;
use testkit::{Origin, eventually};

use super::{KEY, PASSWORD, Scene, basic, bearer, route, status};
use crate::h2_peers::{connect, send};
use crate::support::{Gateway, Setup};

/// Fields by which a client could claim another identity, in the spellings that backends accept.
const FORGED: &[&str] = &[
    "X-User: root",
    "x-user: root",
    "X_User: root",
    "x_user: root",
    "X-User: root\r\nX-User: root",
    "X-Role: admin",
    "X_ROLE: admin",
    "X-Forwarded-User: root",
    "X_Forwarded_User: root",
    // The same name in the environment of a CGI program (RFC 3875 4.1.18).
    "X.User: root",
    "X!Role: admin",
    "X~Forwarded~User: root",
    "X-Client-Cert-Subject: CN=root",
    "X_Client_Cert_Subject: CN=root",
    "Client-Cert: :AA==:",
    "X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1",
    "X-Real-IP: 10.0.0.1",
    // The gateway removes fields that Connection names. It must not remove its own field with the client's.
    "Connection: close, X-User\r\nX-User: root",
    "Connection: close, x-user, x-role, x-api-key",
];

#[tokio::test]
async fn forged_identity_fields_do_not_reach_the_backend() {
    let scene = Scene::start().await;
    let token = scene.signer.token_with(json!({ "role": ["a", "b"] }));
    let ways = [
        ("/basic", basic(&format!("alice:{PASSWORD}")), "alice", ""),
        ("/jwt", bearer(&token), "alice", "a,b"),
        ("/jwt", bearer(&scene.signer.good()), "alice", ""),
        ("/key", format!("X-Api-Key: {KEY}\r\n"), "till", ""),
        // On a route without authentication, a request to the same backend has no identity.
        ("/", String::new(), "", ""),
        ("/elsewhere", String::new(), "", ""),
    ];
    for forged in FORGED {
        for (path, proof, user, role) in &ways {
            scene.origin.forget();
            let answer = scene.ask(path, &format!("{forged}\r\n{proof}")).await;
            let received = scene.origin.received();
            assert_eq!(received.len(), 1, "{forged} {path}: {answer}");
            let received = &received[0];
            let values = |name: &str| {
                let values = received.headers.get_all(name).iter();
                values.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>().join("|")
            };
            assert_eq!(
                (values("x-user").as_str(), values("x-role").as_str()),
                (*user, *role),
                "{forged} {path}"
            );
            for name in received.headers.keys().map(http::HeaderName::as_str) {
                let is_ours = ["x-user", "x-role", "x-forwarded-for", "x-real-ip"].contains(&name);
                let value = values(name);
                assert!(
                    is_ours
                        || !["root", "admin", ":AA==:", "10.0.0.1"].iter().any(|word| value.contains(word)),
                    "{forged} {path}: {name}: {value}"
                );
            }
            assert_eq!(
                (values("x-real-ip").as_str(), values("x-forwarded-for").as_str()),
                ("127.0.0.1", "127.0.0.1")
            );
        }
    }
}

#[tokio::test]
async fn forged_identity_fields_do_not_pass_over_http2() {
    let scene = Scene::start_with("http2_cleartext = true\n", "").await;
    let client = connect(scene.gateway.address).await;
    let get = |path: &str| {
        let request = Request::get(format!("http://shop.test{path}"));
        request.header("x-user", "root").header("x_role", "admin")
    };
    let refused = send(&client, get("/jwt").body(()).unwrap(), "").await.unwrap();
    assert_eq!((refused.status.as_u16(), scene.origin.received().len()), (401, 0));
    let good = format!("Bearer {}", scene.signer.good());
    let forged = get("/jwt").header("authorization", &good).header("authorization", &good);
    assert_eq!(send(&client, forged.body(()).unwrap(), "").await.unwrap().status, 400);
    assert_eq!(scene.origin.received().len(), 0);
    send(&client, get("/jwt").header("authorization", &good).body(()).unwrap(), "").await.unwrap();
    let received = scene.origin.received();
    assert_eq!(
        (received.len(), received[0].header("x-user"), received[0].header("x_role")),
        (1, "alice", "")
    );
    assert_eq!(received[0].header("authorization"), "");
}

#[tokio::test]
async fn credentials_stay_at_the_gateway_by_default() {
    let shadow = Origin::start().await;
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    std::fs::write(&users, format!("alice:{}\n", super::bcrypt(PASSWORD))).unwrap();
    let table = format!("users_file = \"{}\"\nuser_header = \"X-Consumer\"\n", users.display());
    let mirrored = route("/mirrored", &table)
        .replace("[virtual_hosts.routes.auth]", "mirror_tag = \"shadow\"\n[virtual_hosts.routes.auth]");
    let more = format!(
        "{}{mirrored}[[backends]]\nid = \"shadow\"\naddress = \"{}\"\ntags = [\"shadow\"]\n",
        route("/passed", &format!("{table}pass_credentials = true\n")),
        shadow.address()
    );
    let scene = Scene::start_with("", &more).await;
    let password = basic(&format!("alice:{PASSWORD}"));
    for (path, fields, kept) in [
        ("/basic", password.clone(), false),
        ("/mirrored", password.clone(), false),
        ("/jwt", bearer(&scene.signer.good()), false),
        ("/key", format!("X-Api-Key: {KEY}\r\n"), false),
        ("/passed", password.clone(), true),
        // On a route without authentication, the gateway removes nothing: the field may belong to the backend.
        ("/", password.clone(), true),
    ] {
        scene.origin.forget();
        scene.ask(path, &fields).await;
        let received = scene.origin.received();
        assert_eq!(received.len(), 1, "{path}");
        let proof = ["authorization", "x-api-key"].map(|name| received[0].header(name).to_owned()).concat();
        assert_eq!(!proof.is_empty(), kept, "{path}: {proof}");
    }
    eventually!(shadow.count("/mirrored") == 1);
    let copy = &shadow.received()[0];
    assert_eq!((copy.header("authorization"), copy.header("x-consumer")), ("", "alice"));
}

#[tokio::test]
async fn log_names_the_user_but_no_credentials() {
    let scene = Scene::start().await;
    let token = scene.signer.good();
    scene.ask("/jwt", &bearer(&token)).await;
    scene.gateway.process.line("user=\"alice\"").await;
    scene.ask("/basic", &basic(&format!("alice:{PASSWORD}"))).await;
    scene.ask("/basic", &basic("mallory:guess")).await;
    scene.gateway.process.line("error=\"credentials_invalid\"").await;
    let said = scene.gateway.process.output();
    for secret in [&token, PASSWORD, "guess", "mallory", "$2y$"] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[tokio::test]
async fn open_route_does_not_open_its_neighbours() {
    let shop = "[[virtual_hosts]]\ndomain = \"open.test\"\nenabled_backends_tag = \"all\"\n[virtual_hosts.auth]\n\
        kind = \"api_key\"\nkeys_file = \"KEYS\"\n";
    let open = route("/health", "kind = \"none\"\n");
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    std::fs::write(&keys, format!("till:{}\n", hex::encode(openssl::sha::sha256(KEY.as_bytes())))).unwrap();
    let more = format!("{shop}{open}").replace("KEYS", &keys.display().to_string());
    let scene = Scene::start_with("", &more).await;
    for (path, expected) in [("/health", 200), ("/", 401), ("/healthy", 401)] {
        let answer = scene.ask_raw(&format!("GET {path} HTTP/1.1\r\nHost: open.test\r\n")).await;
        assert_eq!(status(&answer), expected, "{path}: {answer}");
    }
    // Clients send the credentials for one part of the host also to the other parts.
    scene.origin.forget();
    scene.ask_raw(&format!("GET /health HTTP/1.1\r\nHost: open.test\r\nX-Api-Key: {KEY}\r\n")).await;
    assert_eq!(scene.origin.received()[0].header("x-api-key"), "", "the key ends at the gateway");
    let request = Request::options(scene.gateway.url("/")).header("Host", "open.test");
    let answer = testkit::Client::new().send(request.body(Bytes::new()).unwrap()).await;
    assert_eq!(answer.status, 401, "no method goes around it");
}

#[tokio::test]
async fn credentials_for_the_gateway_do_not_reach_open_host_backends() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        std::fs::write(directory.path().join(name), text).unwrap();
        directory.path().join(name).display().to_string()
    };
    let users = file("users", format!("alice:{}\n", super::bcrypt(PASSWORD)));
    let keys = file("keys", format!("till:{}\n", hex::encode(openssl::sha::sha256(KEY.as_bytes()))));
    let (password, key) = (basic(&format!("alice:{PASSWORD}")), format!("X-Api-Key: {KEY}\r\n"));
    for (table, proof, name, kept) in [
        (format!("users_file = \"{users}\"\n"), &password, "authorization", ""),
        (format!("kind = \"api_key\"\nkeys_file = \"{keys}\"\n"), &key, "x-api-key", ""),
        // Another field belongs to the backend.
        (
            format!("kind = \"api_key\"\nkeys_file = \"{keys}\"\nheader = \"X-Other\"\n"),
            &key,
            "x-api-key",
            KEY,
        ),
    ] {
        let origin = Origin::start().await;
        let tables = format!(
            "[health_check]\nenabled = false\n[auth]\n{table}[[virtual_hosts]]\ndomain = \"open.test\"\n\
             enabled_backends_tag = \"all\"\n[virtual_hosts.auth]\nkind = \"none\"\n[[virtual_hosts.routes]]\n\
             path_prefix = \"/part\"\n[[virtual_hosts]]\ndomain = \"shut.test\"\nenabled_backends_tag = \"all\"\n"
        );
        let gateway = Gateway::start(&[&origin], Setup { tables: &tables, ..Setup::default() }).await;
        let ask = async |host: &str, path: &str| {
            let head = format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\n{proof}Cookie: s=1\r\nConnection: close\r\n\r\n"
            );
            status(&testkit::exchange(gateway.address, head.as_bytes()).await)
        };
        for path in ["/", "/part"] {
            origin.forget();
            assert_ne!(ask("open.test", path).await, 401);
            let received = &origin.received()[0];
            assert_eq!((received.header(name), received.header("cookie")), (kept, "s=1"), "{table} {path}");
        }
        // On the closed host the credentials count. Otherwise the checks above would prove nothing.
        assert_eq!(ask("shut.test", "/").await == 401, !kept.is_empty(), "{table}");
    }
}
