use testkit::{Origin, exchange};

use crate::support::{Gateway, Setup};

const TRUSTED: &str = "trusted_proxies = [\"127.0.0.0/8\"]\n";

async fn ask(gateway: &Gateway, fields: &str) -> String {
    let request = format!("GET /anything HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n{fields}\r\n");
    exchange(gateway.address, request.as_bytes()).await
}

#[tokio::test]
async fn trusted_field_is_believed_and_the_other_removed() {
    let origin = Origin::start().await;
    let both = "X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\
                Forwarded: for=\"[2001:db8::1]:80\";proto=http\r\n";
    for (field, client, proto) in
        [("", "192.0.2.1", "https"), ("trusted_field = \"forwarded\"\n", "2001:db8::1", "http")]
    {
        origin.forget();
        let proxy = format!("{TRUSTED}{field}");
        let gateway = Gateway::start(&[&origin], Setup { proxy: &proxy, ..Setup::default() }).await;
        ask(&gateway, both).await;
        let received = origin.received();
        let received = received.iter().find(|request| request.uri.path() == "/anything").unwrap();
        assert_eq!(received.header("x-forwarded-for"), client);
        assert_eq!(received.header("x-real-ip"), client);
        assert_eq!(received.header("x-forwarded-proto"), proto);
        assert!(!received.headers.contains_key("forwarded"));
    }
}

#[tokio::test]
async fn the_scheme_of_a_websocket_is_that_of_its_connection() {
    let origin = Origin::start().await;
    for (trusted_field, name, value) in [
        ("", "X-Forwarded-Proto", "{}"),
        ("", "X-Forwarded-Proto", "http, {},"),
        ("trusted_field = \"forwarded\"\n", "Forwarded", "for=192.0.2.7;proto={}"),
    ] {
        let proxy = format!("{TRUSTED}{trusted_field}");
        let hsts = "[security_headers]\nstrict_transport_security = \"max-age=60\"\n\
             [[virtual_hosts]]\ndomain = \"a.example\"\nenabled_backends_tag = \"all\"\nhttp_to_https = true\n\
             [virtual_hosts.balancing]\nsticky_cookie = \"at\"\n";
        let gateway = Gateway::start(&[&origin], Setup { proxy: &proxy, tables: hsts }).await;
        for (scheme, is_https) in
            [("wss", true), ("https", true), ("WSS", true), ("ws", false), ("http", false)]
        {
            origin.forget();
            let answer = ask(&gateway, &format!("{name}: {}\r\n", value.replace("{}", scheme))).await;
            let has = |what: &str| answer.to_lowercase().contains(what);
            assert_eq!(has("http/1.1 200 "), is_https, "{name}: {scheme}: {answer}");
            assert_eq!(has("http/1.1 308 "), !is_https, "{name}: {scheme}: {answer}");
            assert_eq!(has("strict-transport-security: max-age=60"), is_https, "{name}: {scheme}: {answer}");
            assert_eq!(has("; secure"), is_https, "{name}: {scheme}: {answer}");
            for request in origin.received().iter().filter(|request| request.uri.path() == "/anything") {
                assert_eq!(request.header("x-forwarded-proto"), "https", "{name}: {scheme}");
            }
        }
    }
}

#[tokio::test]
async fn rate_limit_counts_the_forwarded_client_address() {
    let origin = Origin::start().await;
    let setup = Setup { proxy: TRUSTED, tables: "[rate_limit]\nrequests = 1\n" };
    let gateway = Gateway::start(&[&origin], setup).await;
    let status = async |fields: &str| ask(&gateway, fields).await[9..12].to_owned();
    assert_eq!(status("X-Forwarded-For: 192.0.2.1\r\n").await, "200");
    assert_eq!(status("X-Forwarded-For: 6.6.6.6, 192.0.2.1:99\r\n").await, "429", "the same one");
    assert_eq!(status("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: ::ffff:192.0.2.1\r\n").await, "429");
    assert_eq!(status("X-Forwarded-For: 192.0.2.2\r\n").await, "200", "another one");
}

#[tokio::test]
async fn identity_fields_are_removed_in_every_spelling() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup::default()).await;
    ask(
        &gateway,
        "X-User: admin\r\nX_User: admin\r\nRemote-User: admin\r\nTrue-Client-IP: 6.6.6.6\r\n\
         CF-Connecting-IP: 6.6.6.6\r\nX-Original-URL: /admin\r\nClient-Cert: ::\r\nX-Auth-Request-User: admin\r\n",
    )
    .await;
    let received = origin.received();
    let received = received.iter().find(|request| request.uri.path() == "/anything").unwrap();
    let claims = received
        .headers
        .iter()
        .filter(|(_, value)| matches!(value.to_str(), Ok("admin" | "6.6.6.6" | "/admin" | "::")));
    assert_eq!(claims.count(), 0, "{:?}", received.headers);
    assert_eq!(received.header("x-real-ip"), "127.0.0.1");
}
