//! Passwords and API keys: responses to clients, changes of the files, and invalid files.

use testkit::{Origin, Process, Signal, eventually};

use super::{KEY, PASSWORD, Scene, basic, bcrypt, bearer, field, status};
use crate::support::{ConfigFile, GATEWAY, Gateway, Setup};

#[tokio::test]
async fn clients_are_told_what_they_need() {
    let scene = Scene::start().await;
    let said = async |path: &str, fields: &str| {
        let answer = scene.ask(path, fields).await;
        (status(&answer), field(&answer, "www-authenticate").to_owned(), answer)
    };
    let plain = "Bearer realm=\"gateway\"";
    let basic_challenge = "Basic realm=\"gateway\", charset=\"UTF-8\"";
    for (path, fields, expected, challenge) in [
        ("/basic", String::new(), 401, basic_challenge.to_owned()),
        ("/basic", basic("alice:x"), 401, basic_challenge.to_owned()),
        ("/key", String::new(), 401, "ApiKey realm=\"gateway\", header=\"x-api-key\"".to_owned()),
        ("/jwt", String::new(), 401, plain.to_owned()),
        (
            "/jwt",
            bearer("a.b.c"),
            401,
            format!("{plain}, error=\"invalid_token\", error_description=\"this is not a valid token\""),
        ),
        (
            "/admin",
            bearer(&scene.signer.good()),
            403,
            format!(
                "{plain}, error=\"insufficient_scope\", error_description=\"the token is valid, but lacks a claim that is required here\""
            ),
        ),
    ] {
        let (status, told, answer) = said(path, &fields).await;
        assert_eq!((status, told), (expected, challenge), "{path} {fields}");
        assert!(answer.contains("application/problem+json"), "{answer}");
        assert!(answer.contains("x-content-type-options: nosniff"), "{answer}");
    }
    let keeps = testkit::converse(
        scene.gateway.address,
        &[
            "GET /basic HTTP/1.1\r\nHost: shop.test\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n",
        ],
    );
    assert_eq!(keeps.await.matches("HTTP/1.1 ").count(), 2, "the connection goes on");
}

#[tokio::test]
async fn changed_file_applies_at_once_and_broken_file_does_not() {
    let scene = Scene::start().await;
    let (alice, bob) = (basic(&format!("alice:{PASSWORD}")), basic("bob:b"));
    let write = |name: &str, text: &str| {
        let draft = scene.file("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, scene.file(name)).unwrap();
    };
    assert_eq!(status(&scene.ask("/basic", &alice).await), 404);
    assert_eq!(status(&scene.ask("/basic", &bob).await), 401);
    write("users", &format!("bob:{}\n", bcrypt("b")));
    eventually!(status(&scene.ask("/basic", &bob).await) == 404);
    assert_eq!(status(&scene.ask("/basic", &alice).await), 401, "what she had proved counts no more");
    let both = |password: &str| format!("bob:{}\nalice:{}\n", bcrypt("b"), bcrypt(password));
    write("users", &both(PASSWORD));
    eventually!(status(&scene.ask("/basic", &alice).await) == 404);
    write("users", &both("another"));
    eventually!(status(&scene.ask("/basic", &basic("alice:another")).await) == 404);
    assert_eq!(status(&scene.ask("/basic", &alice).await), 401, "nor with a password that is no more hers");
    for broken in ["", "bob\n", "bob:$apr1$x$y\n"] {
        write("users", broken);
        eventually!(scene.gateway.metric("proxy_config_last_reload_successful").await == 0.0);
        assert_eq!(status(&scene.ask("/basic", &bob).await), 404, "the old one stays in use");
        write("users", &format!("bob:{}\n", bcrypt("b")));
        eventually!(scene.gateway.metric("proxy_config_last_reload_successful").await == 1.0);
    }
    scene.gateway.process.line("its hash is MD5").await;
    // Some editors write a byte order mark at the start of a file.
    write("users", &format!("\u{feff}carol:{}\n", bcrypt("c")));
    eventually!(status(&scene.ask("/basic", &basic("carol:c")).await) == 404);
    write("users", &format!("bob:{}\n", bcrypt("b")));
    std::fs::remove_file(scene.file("keys")).unwrap();
    scene.gateway.process.line("cannot read").await;
    scene.gateway.process.signal(Signal::SIGHUP);
    assert_eq!(status(&scene.ask("/key", &format!("X-Api-Key: {KEY}\r\n")).await), 404);
}

#[tokio::test]
async fn files_that_are_no_good_are_named_with_their_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("users"), "# ours\nalice:$apr1$x$y\n").unwrap();
    std::fs::write(path("keys"), format!("till:{KEY}\n")).unwrap();
    std::fs::write(path("swapped"), format!("{KEY}:till\n")).unwrap();
    std::fs::write(path("secret"), "too short\n").unwrap();
    std::fs::write(path("public.pem"), "no PEM\n").unwrap();
    for (table, said) in [
        (format!("users_file = \"{}\"", path("users")), ":2:14: ".to_owned()),
        (format!("users_file = \"{}\"", path("users")), format!("{}:2: its hash is MD5", path("users"))),
        (format!("users_file = \"{}\"", path("none")), "cannot read".to_owned()),
        (
            format!("kind = \"api_key\"\nkeys_file = \"{}\"", path("keys")),
            format!("{}:1: expected a name, ':' and the 64 hexadecimal digits", path("keys")),
        ),
        (
            format!("kind = \"api_key\"\nkeys_file = \"{}\"", path("swapped")),
            format!("{}:1: expected a name, ':' and the 64 hexadecimal digits", path("swapped")),
        ),
        (
            format!("kind = \"jwt\"\nsecret_file = \"{}\"", path("secret")),
            "the secret has 9 bytes and needs 32".to_owned(),
        ),
        (
            format!("kind = \"jwt\"\npublic_key_file = \"{}\"", path("public.pem")),
            "there is no public key in PEM".to_owned(),
        ),
        (
            format!("kind = \"forward\"\nurl = \"https://a.test/\"\nca_file = \"{}\"", path("public.pem")),
            "holds no certificate".to_owned(),
        ),
    ] {
        let config = format!(
            "[auth]\n{table}\n[[virtual_hosts]]\ndomain = \"*\"\nenabled_backends_tag = \"a\"\n\
             [[backends]]\nid = \"a\"\naddress = \"127.0.0.1:1\"\ntags = [\"a\"]\n"
        );
        let file = ConfigFile::new(&config);
        let (code, output) =
            Process::run(GATEWAY, &["check", "-c", &file.path().display().to_string()], &[]).await;
        assert!(code == Some(1) && output.contains(&said), "{table}\n-- says {output}\n-- not {said}");
        assert!(!output.contains(KEY) && !output.contains("too short"), "{output}");
    }
}

#[tokio::test]
async fn forward_auth_over_plain_http_is_warned_of() {
    for (url, is_warned_of) in
        [("http://auth.example.com/?code=s3cret", true), ("http://127.0.0.1:9/", false)]
    {
        let tables = format!("[auth]\nkind = \"forward\"\nurl = \"{url}\"\n");
        let backends = ["127.0.0.1:1".parse().unwrap()];
        let file = ConfigFile::new(&crate::support::config(
            &backends,
            Setup { tables: &tables, ..Setup::default() },
        ));
        let check = ["check", "-c", &file.path().display().to_string()];
        let (code, output) = Process::run(GATEWAY, &check, &[]).await;
        assert_eq!((code, output.contains("ok")), (Some(0), true), "{output}");
        let warned = output.contains("warning: forward auth calls 'auth.example.com' over http");
        assert!(warned == is_warned_of && !output.contains("s3cret"), "{output}");
    }
}

#[tokio::test]
async fn secrets_in_urls_are_hidden_and_kept() {
    let origin = Origin::start().await;
    let url = "http://127.0.0.1:1/check?code=s3cret";
    let tables = format!("[auth]\nkind = \"forward\"\nurl = \"{url}\"\n");
    let gateway = Gateway::start(&[&origin], Setup { tables: &tables, ..Setup::default() }).await;
    assert_eq!(gateway.get("/").await.status, 503);
    let mut config = gateway.read("/config").await;
    assert_eq!(config["auth"]["url"], "http://127.0.0.1:1/check?***");
    config["auth"]["timeout_ms"] = 700.into();
    let changed = gateway.api("PUT", "/config", Some(config.clone())).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let file = std::fs::read_to_string(gateway.file()).unwrap();
    assert!(file.contains(url) && file.contains("700"), "{file}");
    config["auth"]["url"] = "http://127.0.0.1:2/check?***".into();
    let refused = gateway.api("PUT", "/config", Some(config)).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["errors"][0]["pointer"]),
        (422, &"/auth/url".into())
    );
    let history = gateway.api("GET", "/config/history", None).await.text();
    let (said, metrics) = (gateway.process.output(), gateway.monitor("/metrics").await.text());
    for shown in [changed.text(), history, said, metrics] {
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}

#[tokio::test]
async fn a_secret_may_come_from_a_variable() {
    let origin = Origin::start().await;
    let tables = "[auth]\nkind = \"jwt\"\nsecret_env = \"LOGIN_SECRET\"\n";
    let config = crate::support::config(&[origin.address()], Setup { tables, ..Setup::default() });
    let gateway = Gateway::start_from(ConfigFile::new(&config), &[("LOGIN_SECRET", super::SECRET)]).await;
    let claims = super::tokens::claims(serde_json::json!({ "iss": null, "aud": null }));
    let header = serde_json::json!({ "alg": "HS256" });
    let token = super::tokens::token(&header, &claims, |message| {
        super::tokens::hmac(super::SECRET.as_bytes(), message)
    });
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}Connection: close\r\n\r\n", bearer(&token));
    assert_eq!(status(&testkit::exchange(gateway.address, head.as_bytes()).await), 200);
    let shown = gateway.read("/config").await.to_string();
    assert!(!shown.contains(super::SECRET), "{shown}");
    assert!(!gateway.process.output().contains(super::SECRET));
}

#[tokio::test]
async fn explain_says_what_a_route_demands() {
    let scene = Scene::start().await;
    let file = scene.gateway.file().display().to_string();
    for (path, said) in
        [("/jwt/x", "they must be valid (jwt); otherwise 401"), ("/key", "valid (api_key); otherwise 401")]
    {
        let url = format!("http://shop.test{path}");
        let (code, output) = Process::run(GATEWAY, &["explain", "-c", &file, "GET", &url], &[]).await;
        assert!(code == Some(0) && output.contains(said) && output.contains("auth (route)"), "{output}");
    }
    let (_, output) = Process::run(GATEWAY, &["explain", "-c", &file, "GET", "http://shop.test/"], &[]).await;
    assert!(output.contains("auth (default)") && !output.contains("  auth  "), "{output}");
}
