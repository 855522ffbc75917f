//! Credentials for an outer `[auth]` table, or for a neighbouring route of the host. Clients send them to every
//! part of the host, so no backend may see them. Other credentials belong to the backend and pass.

use testkit::{Origin, exchange};

use super::{KEY, PASSWORD, basic, bcrypt, status};
use crate::support::{Gateway, Setup};

const BASIC: &str = "users_file = \"USERS\"\n";
const API_KEY: &str = "kind = \"api_key\"\nkeys_file = \"KEYS\"\n";
const FORWARD: &str = "kind = \"forward\"\nurl = \"http://DECIDES/\"\n";
const NONE: &str = "kind = \"none\"\n";

/// The `[auth]` tables of each level; "" for none.
struct Tables {
    top: &'static str,
    host: &'static str,
    route: &'static str,
}

impl Tables {
    /// Returns the names of the credentials that reach the backend, for a request to `/part/x` that has both.
    async fn passed_on(&self) -> Vec<&'static str> {
        let (origin, decides) = (Origin::start().await, Origin::start().await);
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| {
            std::fs::write(directory.path().join(name), text).unwrap();
            directory.path().join(name).display().to_string()
        };
        let users = file("users", format!("alice:{}\n", bcrypt(PASSWORD)));
        let keys = file("keys", format!("till:{}\n", hex::encode(openssl::sha::sha256(KEY.as_bytes()))));
        let table = |at: &str, auth: &str| {
            let head = if auth.is_empty() { String::new() } else { format!("[{at}]\n{auth}") };
            head.replace("USERS", &users).replace("KEYS", &keys)
        };
        let tables = format!(
            "[health_check]\nenabled = false\n{}[[virtual_hosts]]\ndomain = \"part.test\"\nenabled_backends_tag = \"all\"\n\
             {}[[virtual_hosts.routes]]\npath_prefix = \"/closed\"\n{}[[virtual_hosts.routes]]\n\
             path_prefix = \"/part\"\n{}",
            table("auth", self.top),
            table("virtual_hosts.auth", self.host),
            table("virtual_hosts.routes.auth", BASIC),
            table("virtual_hosts.routes.auth", self.route),
        );
        let tables = tables.replace("DECIDES", &decides.address().to_string());
        let gateway = Gateway::start(&[&origin], Setup { tables: &tables, ..Setup::default() }).await;
        let proofs = format!("{}X-Api-Key: {KEY}\r\n", basic(&format!("alice:{PASSWORD}")));
        let head = format!("GET /part/x HTTP/1.1\r\nHost: part.test\r\n{proofs}Connection: close\r\n\r\n");
        let answer = exchange(gateway.address, head.as_bytes()).await;
        let received = origin.received();
        assert_eq!((received.len(), status(&answer)), (1, 404), "{answer}");
        let is_there = |name: &&str| !received[0].header(name).is_empty();
        ["authorization", "x-api-key"].into_iter().filter(is_there).collect()
    }
}

#[tokio::test]
async fn credentials_of_outer_tables_do_not_reach_the_backend() {
    let cases = [
        ("host basic, route api_key", Tables { top: "", host: BASIC, route: API_KEY }, vec![]),
        ("host api_key, route basic", Tables { top: "", host: API_KEY, route: BASIC }, vec![]),
        ("host basic, route forward", Tables { top: "", host: BASIC, route: FORWARD }, vec!["x-api-key"]),
        ("top basic, host api_key, route none", Tables { top: BASIC, host: API_KEY, route: NONE }, vec![]),
        ("top basic, host api_key", Tables { top: BASIC, host: API_KEY, route: "" }, vec![]),
        ("top forward, host basic", Tables { top: FORWARD, host: BASIC, route: "" }, vec!["x-api-key"]),
    ];
    for (case, tables, expected) in cases {
        assert_eq!(tables.passed_on().await, expected, "{case}");
    }
}

#[tokio::test]
async fn credentials_of_neighbouring_routes_reach_the_backend() {
    let both = vec!["authorization", "x-api-key"];
    for route in ["", NONE] {
        let open = Tables { top: "", host: "", route };
        assert_eq!(open.passed_on().await, both, "{route:?}, beside a closed part");
    }
    assert_eq!(Tables { top: "", host: NONE, route: NONE }.passed_on().await, both);
}

#[tokio::test]
async fn credentials_are_passed_on_only_when_configured() {
    const PASSED: &str = "users_file = \"USERS\"\npass_credentials = true\n";
    const KEY_PASSED: &str = "kind = \"api_key\"\nkeys_file = \"KEYS\"\npass_credentials = true\n";
    for (host, route, expected) in [
        (PASSED, API_KEY, vec!["authorization"]),
        (PASSED, NONE, vec!["authorization", "x-api-key"]),
        (BASIC, KEY_PASSED, vec!["authorization", "x-api-key"]),
        (BASIC, PASSED, vec!["authorization", "x-api-key"]),
        (PASSED, BASIC, vec!["x-api-key"]),
    ] {
        assert_eq!(Tables { top: "", host, route }.passed_on().await, expected, "{host}{route}");
    }
}
