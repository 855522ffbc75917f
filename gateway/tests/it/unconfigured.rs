//! Start without a configuration option: the gateway uses a file that it finds, variables, or the demo.

use std::path::Path;

use testkit::tls::handshake;
use testkit::{Behaviour, Client, DEADLINE, Origin, Process, Response, eventually, free_address};
use tokio::net::TcpStream;

use crate::support::{GATEWAY, Setup, address_in, config};

/// Variables for the ports that the tests do not look at.
const QUIET: [(&str, &str); 2] =
    [("PINGORA_ENABLE_METRICS", "false"), ("PINGORA_ENABLE_MANAGEMENT", "false")];

/// Starts the gateway in `directory`.
fn started_in(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
    let directory = directory.display().to_string();
    let script = ["-c", "cd \"$1\" && shift && exec \"$0\" \"$@\"", GATEWAY, &directory];
    Process::spawn("sh", &[&script, arguments].concat(), variables)
}

async fn get(process: &Process) -> Response {
    let address = address_in(&process.line("listening on http://").await);
    Client::new().get(format!("http://{address}/")).await
}

/// Returns a configuration that is recognizable by its `X-Found` field.
fn named(origin: &Origin, name: &str) -> String {
    let tables = format!("[headers]\nresponse_set = {{ X-Found = \"{name}\" }}");
    config(&[origin.address()], Setup { tables: &tables, ..Setup::default() })
}

#[tokio::test]
async fn the_file_of_the_current_directory_is_taken_and_named() {
    let origin = Origin::start().await;
    let directory = tempfile::tempdir().unwrap();
    for name in ["gateway.toml", "config.toml"] {
        std::fs::write(directory.path().join(name), named(&origin, name)).unwrap();
        let process = started_in(directory.path(), &[], &[]);
        process.line(&format!("the configuration is {name} (choose another one with --config)")).await;
        assert_eq!(get(&process).await.header("x-found"), name);
    }
    // The option has precedence over a file that is found.
    let process = started_in(directory.path(), &["run", "-c", "gateway.toml"], &[("RUST_LOG", "info")]);
    assert_eq!(get(&process).await.header("x-found"), "gateway.toml");
    assert!(!process.output().contains("the configuration is"), "{}", process.output());

    let mut check = started_in(directory.path(), &["check"], &[]);
    assert!(check.ended(DEADLINE).await.success());
    assert!(check.output().contains("the configuration is config.toml"), "{}", check.output());
}

#[tokio::test]
async fn backends_from_variables_need_no_file() {
    let origin = Origin::start().await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.toml"), "title = \"another program's\"\n").unwrap();
    let address = origin.address().to_string();
    let backend = ("PINGORA_BACKEND_ADDR", address.as_str());
    let listen = ("PINGORA_LISTEN_ADDR", "127.0.0.1:0");
    let by_variable = started_in(directory.path(), &[], &[backend, listen, QUIET[0], QUIET[1]]);
    assert_eq!(get(&by_variable).await.status, 200);
    let by_option = started_in(directory.path(), &["--backend", &address], &[listen, QUIET[0], QUIET[1]]);
    assert_eq!(get(&by_option).await.status, 200);

    let mut found = started_in(directory.path(), &[], &[]);
    assert_eq!(found.ended(DEADLINE).await.code(), Some(1));
    assert!(found.output().contains("config.toml:1:1: unknown key `title`"), "{}", found.output());
}

#[tokio::test]
async fn unknown_variable_is_an_error_not_the_demo() {
    let variables = [("PINGORA_ENABEL_TLS", "true")];
    let (code, said) = Process::run(GATEWAY, &[], &variables).await;
    assert_eq!(code, Some(1), "{said}");
    let expected = "PINGORA_ENABEL_TLS: there is no such variable (did you mean `PINGORA_ENABLE_TLS`?)";
    assert_eq!(said, expected);
}

#[tokio::test]
async fn https_by_a_variable_alone() {
    let origin = Origin::start().await;
    let backend = origin.address().to_string();
    let variables = [
        ("PINGORA_BACKEND_ADDR", backend.as_str()),
        ("PINGORA_LISTEN_ADDR", "127.0.0.1:0"),
        ("PINGORA_ENABLE_TLS", "true"),
        ("PINGORA_TLS_ADDR", "127.0.0.1:0"),
        QUIET[0],
        QUIET[1],
    ];
    let process = Process::spawn(GATEWAY, &[], &variables);
    process.line("virtual host '*' has no certificate").await;
    assert_eq!(get(&process).await.status, 200, "HTTP beside it");
    let https = address_in(&process.line("listening on https://").await);
    let stream = handshake(https, Some("localhost"), |_| Ok(())).await.unwrap();
    let names = stream.ssl().peer_certificate().unwrap().subject_alt_names().unwrap();
    assert_eq!(names[0].dnsname(), Some("localhost"));
    let answer =
        testkit::exchange_over(stream, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(answer.await.starts_with("HTTP/1.1 200 OK"));

    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().display().to_string();
    assert_eq!(Process::run(GATEWAY, &["dev-cert", "own.test", "--out", &out], &[]).await.0, Some(0));
    let (cert, key) = (format!("{out}/own.test.crt"), format!("{out}/own.test.key"));
    let files = [("PINGORA_TLS_CERT_FILE", cert.as_str()), ("PINGORA_TLS_KEY_FILE", key.as_str())];
    let process = Process::spawn(GATEWAY, &[], &[&variables[..], &files].concat());
    let https = address_in(&process.line("listening on https://").await);
    let stream = handshake(https, None, |_| Ok(())).await.unwrap();
    let names = stream.ssl().peer_certificate().unwrap().subject_alt_names().unwrap();
    assert_eq!(names[0].dnsname(), Some("own.test"));
    assert!(!process.output().contains("has no certificate"), "{}", process.output());

    let missing = [files[0], ("PINGORA_TLS_KEY_FILE", "/no/such.key")];
    let (code, said) = Process::run(GATEWAY, &[], &[&variables[..], &missing].concat()).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("PINGORA_TLS_KEY_FILE: cannot read '/no/such.key'"), "{said}");
}

#[tokio::test]
async fn rust_log_applies_unless_option_or_variable_overrides_it() {
    let backend = Origin::start().await.address().to_string();
    let (off, ours) = (("RUST_LOG", "off"), ("PINGORA_LOG_LEVEL", "info"));
    for (arguments, variables, is_said) in [
        (&[][..], &[off][..], false),
        (&[], &[off, ours], true),
        (&["--log-level", "error"], &[off, ours], false),
        (&["--log-level", "info"], &[off], true),
    ] {
        let address = free_address();
        let listen = address.to_string();
        let arguments = [&["--backend", &backend, "--listen", &listen], arguments].concat();
        let process = Process::spawn(GATEWAY, &arguments, &[&QUIET, variables].concat());
        eventually!(TcpStream::connect(address).await.is_ok());
        if is_said {
            process.line("listening on").await;
        } else {
            // The gateway responds only after it would have logged the line.
            Client::new().get(format!("http://{address}/")).await;
            assert!(!process.output().contains("listening on"), "{arguments:?}: {}", process.output());
        }
    }
}

/// A backend without a health page, such as `python3 -m http.server`.
#[tokio::test]
async fn backend_without_health_path_is_healthy_by_default() {
    let origin = Origin::start().await;
    origin.behave(Behaviour::Status(404));
    let backend = origin.address().to_string();
    let variables = [
        ("PINGORA_BACKEND_ADDR", backend.as_str()),
        ("PINGORA_LISTEN_ADDR", "127.0.0.1:0"),
        ("PINGORA_METRICS_ADDR", "127.0.0.1:0"),
        ("PINGORA_HEALTH_CHECK_INTERVAL_SECONDS", "1"),
        QUIET[1],
    ];
    let process = Process::spawn(GATEWAY, &[], &variables);
    process.line("any status below 500 passes").await;
    let metrics = address_in(&process.line("metrics on http://").await);
    let status = || async {
        let text = Client::new().get(format!("http://{metrics}/metrics")).await.text();
        let line = text.lines().find(|line| line.starts_with("health_check_status{"));
        line.map(|line| line.ends_with(" 1"))
    };
    // One probe more than the number that makes the backend unhealthy.
    eventually!(within 2 * DEADLINE, origin.count("/health") >= 4, "it is not probed");
    assert_eq!(status().await, Some(true));
    assert_eq!(get(&process).await.status, 404, "the backend's own answer");
    origin.behave(Behaviour::Status(500));
    eventually!(within 2 * DEADLINE, status().await == Some(false), "an answer of 500 passes");

    origin.behave(Behaviour::Status(404));
    let strict = [&variables[..], &[("PINGORA_HEALTH_CHECK_PATH", "/health")]].concat();
    let process = Process::spawn(GATEWAY, &[], &strict);
    process.line("backend is unhealthy").await;
    assert!(!process.output().contains("any status below 500"), "{}", process.output());
}

#[tokio::test]
async fn responses_have_the_gateway_identification_fields() {
    let origin = Origin::start().await;
    let backend = origin.address().to_string();
    let process = Process::spawn(GATEWAY, &["--backend", &backend, "--listen", "127.0.0.1:0"], &QUIET);
    let answer = get(&process).await;
    let said = ["x-forwarded-by", "x-proxy", "x-load-balancer"].map(|name| answer.header(name));
    assert_eq!(said, ["rust-pingora", "gateway", "pingora"]);
}
