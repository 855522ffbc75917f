//! Access rules by client address (`[access]`).

use std::net::IpAddr;

use testkit::{Origin, exchange_from};

use super::{field, route, status};
use crate::support::{Gateway, Setup};

const TABLES: &str = "[access]\nallow = [\"127.0.0.0/8\"]\ndeny = [\"127.0.0.6\"]\n[[virtual_hosts]]\n\
    domain = \"shop.test\"\nenabled_backends_tag = \"all\"\n[[virtual_hosts.routes]]\npath_prefix = \"/all\"\n\
    [virtual_hosts.routes.access]\n[[virtual_hosts.routes]]\npath_prefix = \"/one\"\n\
    [virtual_hosts.routes.access]\nallow = [\"127.0.0.7\"]\n";

async fn ask(gateway: &Gateway, from: &str, path: &str, fields: &str) -> u16 {
    let from: IpAddr = from.parse().unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n{fields}\r\n");
    status(&exchange_from(from, gateway.address, head.as_bytes()).await)
}

#[tokio::test]
async fn innermost_access_table_decides() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup { tables: TABLES, ..Setup::default() }).await;
    let claims = "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n";
    for (from, path, expected) in [
        ("127.0.0.1", "/", 200),
        ("127.0.0.6", "/", 403),
        ("127.0.0.6", "/all", 404),
        ("127.0.0.7", "/one", 404),
        ("127.0.0.1", "/one", 403),
    ] {
        origin.forget();
        assert_eq!(ask(&gateway, from, path, "").await, expected, "{from} {path}");
        assert_eq!(ask(&gateway, from, path, claims).await, expected, "{from} {path}, and says otherwise");
        assert_eq!(origin.received().is_empty(), expected == 403);
    }
    let series = "proxy_auth_failures_total{reason=\"address_denied\",route=\"/one\",vhost=\"shop.test\"}";
    assert_eq!(gateway.metric(series).await, 2.0);
}

#[tokio::test]
async fn trusted_proxy_names_the_client_address() {
    let origin = Origin::start().await;
    let setup = Setup { proxy: "trusted_proxies = [\"127.0.0.9\"]\n", tables: TABLES };
    let gateway = Gateway::start(&[&origin], setup).await;
    for (client, expected) in
        [("127.0.0.1", 200), ("127.0.0.6", 403), ("192.0.2.1", 403), ("::ffff:127.0.0.6", 403)]
    {
        let fields = format!("X-Forwarded-For: {client}\r\n");
        assert_eq!(ask(&gateway, "127.0.0.9", "/", &fields).await, expected, "{client}");
    }
}

#[tokio::test]
async fn an_address_is_refused_before_a_password_is_asked_for() {
    let origin = Origin::start().await;
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    std::fs::write(&users, format!("alice:{}\n", super::bcrypt("a"))).unwrap();
    let tables = format!("{TABLES}{}", route("/two", &format!("users_file = \"{}\"\n", users.display())));
    let gateway = Gateway::start(&[&origin], Setup { tables: &tables, ..Setup::default() }).await;
    let answer = |from: &'static str| {
        let address = gateway.address;
        let head = "GET /two HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
        async move { exchange_from(from.parse().unwrap(), address, head.as_bytes()).await }
    };
    let denied = answer("127.0.0.6").await;
    assert_eq!((status(&denied), field(&denied, "www-authenticate")), (403, ""), "{denied}");
    assert_eq!(status(&answer("127.0.0.1").await), 401);
}
