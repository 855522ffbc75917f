use http::Request;
use testkit::{Origin, exchange};

use crate::h2_peers;
use crate::support::{Gateway, Setup};

const ADMIN: &str = "[health_check]\nenabled = false\n\
    [[virtual_hosts]]\ndomain = \"a.example\"\nenabled_backends_tag = \"all\"\n\
    [[virtual_hosts.routes]]\npath_prefix = \"/admin\"\n\
    fault = { abort_status = 403, abort_percent = 100 }\n\
    [[virtual_hosts.routes]]\npath_prefix = \"/api\"\nstrip_prefix = true\n";

async fn status(gateway: &Gateway, target: &str) -> u16 {
    let request = format!("GET {target} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    let answer = exchange(gateway.address, request.as_bytes()).await;
    answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{target}: {answer}"))
}

#[tokio::test]
async fn odd_path_spelling_does_not_bypass_a_route() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup { tables: ADMIN, ..Setup::default() }).await;
    for (target, expected) in [
        ("/admin", 403),
        ("/admin/x?y", 403),
        ("/%61dmin", 403),
        ("//admin", 403),
        ("/x/../admin", 403),
        ("/x/%2e%2e/admin/", 403),
        ("http://a.example/admin", 403),
        ("/admin;x=1", 400),
        ("/x/..;/admin", 400),
        ("/admin%2fx", 400),
        ("/x%2f..%2fadmin", 400),
        ("/x%252f..%252fadmin", 400),
        ("/\\admin", 400),
        ("/%5cadmin", 400),
        ("/%c0%af", 400),
        ("/a%00", 400),
        ("/a%2500", 400),
        ("/admin%0a", 400),
        ("/ad%0Dmin", 400),
        ("/admin%250a", 400),
        ("/admin%0d%0aX:%20y", 400),
        ("/x/.%0a./admin", 400),
        ("/100%", 400),
        ("/../admin", 400),
        ("admin", 400),
        ("x:/admin", 400),
        ("x://a.example/admin", 400),
        ("http:/\\a.example/admin", 400),
        ("*", 400),
    ] {
        assert_eq!(status(&gateway, target).await, expected, "{target}");
    }
    assert_eq!(origin.received().len(), 0, "{:?}", origin.received());
}

#[tokio::test]
async fn odd_path_spelling_does_not_bypass_a_route_over_http2() {
    let origin = Origin::start().await;
    let setup = Setup { proxy: "http2_cleartext = true", tables: ADMIN };
    let gateway = Gateway::start(&[&origin], setup).await;
    let client = h2_peers::connect(gateway.address).await;
    for (path, expected) in [
        ("/%61dmin", 403),
        ("//admin", 403),
        ("/x/../admin", 403),
        ("/admin%2fx", 400),
        ("/..;/admin", 400),
        ("/admin%0a", 400),
        ("/a%00", 400),
    ] {
        let request = Request::get(format!("http://a.example{path}")).body(()).unwrap();
        let answer = h2_peers::send(&client, request, "").await.unwrap();
        assert_eq!(answer.status, expected, "{path}");
    }
    assert_eq!(origin.received().len(), 0);
}

#[tokio::test]
async fn path_sent_to_the_backend_is_unchanged_or_unambiguous() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup { tables: ADMIN, ..Setup::default() }).await;
    for (target, expected) in [
        ("/bucket//a%2fb;v=1/50%25?q=/../%2f", "/bucket//a%2fb;v=1/50%25?q=/../%2f"),
        ("/x/./%7euser/../y?q", "/x/y?q"),
        ("/search/a%0d%0ab%09?q=%0d%0a`", "/search/a%0d%0ab%09?q=%0d%0a`"),
        ("/a|b^c'[1]{x}?q=`a|b`\\^{}[]'%zz", "/a|b^c'[1]{x}?q=`a|b`\\^{}[]'%zz"),
        ("/api/a%2fb//c?q", "/a%2fb//c?q"),
        ("//api/users", "/users"),
        ("http://a.example/x/../y", "/y"),
    ] {
        origin.forget();
        status(&gateway, target).await;
        let received = origin.received();
        assert_eq!(received[0].uri.to_string().trim_start_matches("http://a.example"), expected, "{target}");
    }
}
