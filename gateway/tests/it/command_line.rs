use std::net::TcpListener;

use testkit::{Client, Origin, Process};

use crate::support::{ConfigFile, GATEWAY, Setup, config};

async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    Process::run(GATEWAY, arguments, variables).await
}

#[tokio::test]
async fn check_says_ok_or_everything_that_is_wrong() {
    let good = ConfigFile::new(&config(&["127.0.0.1:1".parse().unwrap()], Setup::default()));
    let path = good.path().display().to_string();
    assert_eq!(run(&["check", "-c", &path], &[]).await, (Some(0), "ok".to_owned()));

    let bad = ConfigFile::new("[proxy]\nthreads = \"four\"\nlisten = 1\n[tracing]\n");
    let path = bad.path().display().to_string();
    for arguments in [&["check", "-c", &path][..], &["-c", &path], &["run", "--config", &path]] {
        let (code, said) = run(arguments, &[]).await;
        assert_eq!(code, Some(1), "{said}");
        let expected = [
            format!("{path}:2:11: `threads`: invalid type"),
            format!("{path}:3:1: unknown key `listen`"),
            format!("{path}:4:2: `tracing` is not supported yet"),
            format!("{path}: there is no virtual host"),
        ];
        for line in expected {
            assert!(said.contains(&line), "{line} not in\n{said}");
        }
    }
}

#[tokio::test]
async fn check_explains_what_is_wrong_with_the_access_log() {
    let text = "[logging]\naccess_format = \"{statu}\"\naccess_fields = [\"patj\"]\n\
                access_sample_percent = { \"2xx\" = 101 }\n";
    let file = ConfigFile::new(text);
    let (code, said) = run(&["check", "-c", &file.path().display().to_string()], &[]).await;
    for fault in [
        "gateway.toml:2:17: unknown field `statu`, expected one of `timestamp`, ",
        "gateway.toml:3:18: unknown value `patj` (did you mean `path`?); expected `timestamp` or ",
        "gateway.toml:4:35: 101 is not a share; expected 0 to 100",
    ] {
        assert!(code == Some(1) && said.contains(fault), "{fault} not in\n{said}");
    }
}

/// A pre-commit hook or a CI job does not have the secrets of the machine for which the file is made. The
/// gateway has them.
#[tokio::test]
async fn check_and_explain_do_without_the_secrets_that_run_needs() {
    let directory = tempfile::tempdir().unwrap();
    let [token, secret] = ["token", "secret"].map(|name| directory.path().join(name));
    let set = ["GATEWAY_ADMIN_TOKEN", "THE_JWT_SECRET", "THE_REDIS_PASSWORD"];
    let all: Vec<(&str, &str)> = set.map(|name| (name, "a-secret-of-more-than-32-bytes-000")).to_vec();
    let backends = ["127.0.0.1:1".parse().unwrap()];
    let text = |admin: &str, jwt: &str| {
        let proxy = "management_api_addr = \"0.0.0.0:0\"\n";
        let tables = format!(
            "[admin]\n{admin}\n[auth]\nkind = \"jwt\"\n{jwt}\n\
             [rate_limit]\nstore = \"redis://127.0.0.1:1\"\nstore_password_env = \"THE_REDIS_PASSWORD\"\n"
        );
        let text = config(&backends, Setup { proxy: "", tables: &tables });
        text.replace("management_api_addr = \"127.0.0.1:0\"\n", proxy)
    };
    let by_variable = ConfigFile::new(&text("", "secret_env = \"THE_JWT_SECRET\""));
    let files = (format!("token_file = {token:?}"), format!("secret_file = {secret:?}"));
    let by_file = ConfigFile::new(&text(&files.0, &files.1));
    for (file, lacking) in [
        (
            &by_variable,
            ["variable GATEWAY_ADMIN_TOKEN", "variable THE_JWT_SECRET", "variable THE_REDIS_PASSWORD"],
        ),
        (&by_file, ["/token", "/secret", "variable THE_REDIS_PASSWORD"]),
    ] {
        let path = file.path().display().to_string();
        let (code, said) = run(&["check", "-c", &path], &[]).await;
        assert_eq!(code, Some(0), "{said}");
        let is_told = |lack: &str| {
            let mut lines = said.lines().filter(|line| line.starts_with("warning: "));
            lines.any(|line| line.contains(lack) && line.contains("`gateway run` does not start without it"))
        };
        assert!(lacking.iter().all(|lack| is_told(lack)), "{lacking:?}\n{said}");
        let (code, said) = run(&["explain", "-c", &path, "GET", "http://a.example/"], &[]).await;
        assert!(code == Some(0) && said.contains("pool          all"), "{said}");
        assert!(lacking[1..].iter().all(|lack| said.contains(lack)), "{said}");
        // The command `run` needs each of them.
        let (code, said) = run(&["run", "-c", &path], &[]).await;
        assert!(code == Some(1) && said.contains(lacking[0]), "{said}");
    }
    let path = by_variable.path().display().to_string();
    for (i, lacking) in set.iter().enumerate().skip(1) {
        let mut others = all.clone();
        others.remove(i);
        let (code, said) = run(&["run", "-c", &path], &others).await;
        assert!(code == Some(1) && said.contains(&format!("variable {lacking} is not set")), "{said}");
    }
    assert_eq!(run(&["check", "-c", &path], &all).await, (Some(0), "ok".to_owned()));
    // An existing file with invalid content is an error for both commands.
    let path = by_file.path().display().to_string();
    std::fs::write(&secret, "short").unwrap();
    let (code, said) = run(&["check", "-c", &path], &all).await;
    assert!(code == Some(1) && said.contains("the secret has 5 bytes"), "{said}");
    std::fs::write(&secret, "a-secret-of-more-than-32-bytes-000").unwrap();
    std::fs::write(&token, "").unwrap();
    let (code, said) = run(&["check", "-c", &path], &all).await;
    assert!(code == Some(1) && said.contains("/token is empty"), "{said}");
}

#[tokio::test]
async fn check_warns_of_https_redirect_without_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().display().to_string();
    let (code, files) = run(&["dev-cert", "--out", &out, "one.example", "*.wild.example"], &[]).await;
    assert_eq!(code, Some(0), "{files}");
    let host = |domain: &str, more: &str| {
        format!(
            "[[virtual_hosts]]\ndomain = {domain:?}\nenabled_backends_tag = \"all\"\nhttp_to_https = true\n{more}\n"
        )
    };
    let hosts = [
        host("one.example", &format!("{files}\naliases = [\"a.wild.example\"]\ndefault = true")),
        // The default certificate covers these hosts.
        host("b.wild.example", ""),
        host("*.wild.example", ""),
        host("lacking.example", ""),
        host("*.lacking.example", ""),
        host("ordered.example", "acme = true"),
    ];
    let base = config(
        &["127.0.0.1:1".parse().unwrap()],
        Setup { proxy: "listen_addr = \"127.0.0.1:0\"", tables: "[lets_encrypt]" },
    );
    let file = ConfigFile::new(&format!("{base}{}", hosts.concat()));
    let (code, said) = run(&["check", "-c", &file.path().display().to_string()], &[]).await;
    assert_eq!(code, Some(0), "{said}");
    let lacking: Vec<&str> = said.lines().filter(|line| line.contains("(http_to_https)")).collect();
    let of = |name: &str| {
        lacking.iter().filter(|line| line.contains(&format!("no certificate for '{name}'"))).count()
    };
    assert_eq!((of("lacking.example"), of("*.lacking.example"), lacking.len()), (1, 1, 2), "{said}");
}

#[tokio::test]
async fn missing_file_bad_address_unknown_name_are_exit_code_1() {
    let (code, said) = run(&["-c", "/nowhere/gateway.toml"], &[]).await;
    assert_eq!(code, Some(1));
    assert!(said.starts_with("/nowhere/gateway.toml: cannot read the configuration: "), "{said}");

    let (code, said) =
        run(&[], &[("PINGORA_BACKEND_ADDR", "nonsense"), ("PINGORA_MAX_CONNECTIONS", "many")]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("PINGORA_BACKEND_ADDR: 'nonsense' is not a valid address"), "{said}");
    assert!(said.contains("PINGORA_MAX_CONNECTIONS: 'many' is not a whole number"), "{said}");

    let nowhere = ("PINGORA_BACKEND_ADDR", "nowhere.invalid:80");
    let ports = [("PINGORA_LISTEN_ADDR", "127.0.0.1:0"), ("PINGORA_METRICS_ADDR", "127.0.0.1:0")];
    let no_api = ("PINGORA_ENABLE_MANAGEMENT", "false");
    let (code, said) = run(&[], &[nowhere, ports[0], ports[1], no_api]).await;
    assert_eq!(code, Some(1));
    assert!(
        said.contains("cannot resolve 'nowhere.invalid:80', the address of backend 'backend-1'"),
        "{said}"
    );
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2() {
    for arguments in [&["serve"][..], &["--port", "80"], &["--listen", "here"], &["--backend", "nonsense"]] {
        let (code, said) = run(arguments, &[]).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("error: "), "{said}");
    }
}

#[tokio::test]
async fn a_taken_port_is_one_line_with_the_key_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (code, said) = run(&["--listen", &address.to_string(), "--backend", "127.0.0.1:1"], &[]).await;
    assert_eq!(code, Some(1));
    assert!(
        said.starts_with(&format!("gateway: cannot listen on {address} (proxy.listen_addr_http): ")),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1);

    let address = address.to_string();
    let variables = [
        ("PINGORA_LISTEN_ADDR", "127.0.0.1:0"),
        ("PINGORA_MANAGEMENT_ADDR", "127.0.0.1:0"),
        ("PINGORA_METRICS_ADDR", &address),
    ];
    let (code, said) = run(&[], &variables).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("(metrics.listen_addr)") && said.lines().count() == 1, "{said}");
}

#[tokio::test]
async fn variables_and_options_alone_serve_backends() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let backends = format!("{},{}", a.address(), b.address());
    let process = Process::spawn(
        GATEWAY,
        &["run", "--listen", "127.0.0.1:0"],
        &[
            ("PINGORA_BACKEND_SERVERS", &backends),
            ("PINGORA_ENABLE_METRICS", "false"),
            ("PINGORA_ENABLE_MANAGEMENT", "false"),
        ],
    );
    let line = process.line("listening on http://").await;
    let url = line.split("listening on ").nth(1).unwrap().to_owned();
    for _ in 0..4 {
        assert_eq!(Client::new().get(&url).await.status, 200);
    }
    assert_eq!((a.count("/"), b.count("/")), (2, 2));
    assert!(!process.output().contains("metrics on") && !process.output().contains("management API"));
}

#[tokio::test]
async fn management_api_on_all_addresses_needs_a_token() {
    let open = config(&["127.0.0.1:1".parse().unwrap()], Setup::default())
        .replace("management_api_addr = \"127.0.0.1:0\"", "management_api_addr = \"0.0.0.0:0\"");
    let file = ConfigFile::new(&open);
    let path = file.path().display().to_string();
    let (code, said) = run(&["-c", &path], &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("0.0.0.0:0") && said.contains("set the variable GATEWAY_ADMIN_TOKEN"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    // The token may exist on the machine for which the file is made.
    let (code, warned) = run(&["check", "-c", &path], &[]).await;
    let told = said.trim_start_matches("gateway: ");
    let expected = format!("warning: {told}; `gateway run` does not start without it");
    assert!(code == Some(0) && warned.lines().any(|line| line == expected), "{warned}\n{expected}");
    let token = [("GATEWAY_ADMIN_TOKEN", "s3cret")];
    assert_eq!(run(&["check", "-c", &path], &token).await, (Some(0), "ok".to_owned()));
}

#[tokio::test]
async fn the_schema_is_printed() {
    let (code, said) = run(&["schema"], &[]).await;
    let schema: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &schema["title"]), (Some(0), &"Config".into()));
}

#[tokio::test]
async fn version_names_the_pinned_pingora() {
    let (code, said) = run(&["version"], &[]).await;
    assert_eq!(code, Some(0));
    assert!(said.starts_with("gateway ") && said.ends_with("(pingora 0.9.1)"), "{said}");
    assert!(run(&["--help"], &[]).await.1.contains("Usage: gateway"));
}

#[tokio::test]
async fn the_sample_and_the_reference_are_valid() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().display().to_string();
    assert_eq!(run(&["dev-cert", "app.example.com", "--out", &out], &[]).await.0, Some(0));
    let hash = bcrypt::hash_with_salt("a", 4, [7; 16]).unwrap().format_for_version(bcrypt::Version::TwoY);
    std::fs::write(directory.path().join("users.htpasswd"), format!("alice:{hash}\n")).unwrap();
    for file in ["proxy.toml", "demo.toml", "reference.toml", "config.example.toml"] {
        let text = std::fs::read_to_string(format!("{}/config/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        // The reference names three files that the reader is expected to have.
        let path = directory.path().join(file);
        std::fs::write(
            &path,
            text.replace("\"app.crt", &format!("\"{out}/app.example.com.crt"))
                .replace("\"app.key", &format!("\"{out}/app.example.com.key"))
                .replace("\"users.htpasswd", &format!("\"{out}/users.htpasswd")),
        )
        .unwrap();
        let (status, said) = run(&["check", "-c", &path.display().to_string()], &[]).await;
        let said: Vec<&str> = said.lines().filter(|line| !line.contains("has no certificate")).collect();
        assert_eq!((status, &said[..]), (Some(0), &["ok"][..]), "{file}");
    }
}
