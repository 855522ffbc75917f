//! Authentication and access rules: attempts to get past `[auth]` and `[access]`, over real sockets, with an
//! origin that records the requests that reach it.

mod access;
mod attempts;
mod foreign;
mod forward;
mod forward_cookies;
mod guesses;
mod identity;
mod issuer;
mod paths;
mod tokens;
mod users;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::sha::sha256;
use tempfile::TempDir;
use testkit::{Origin, exchange};
use tokens::Signer;

use crate::support::{Gateway, Setup};

const ISSUER: &str = "https://login.test/";
const AUDIENCE: &str = "shop";
/// Secret that signs the tokens of `/hs`.
const SECRET: &str = "a secret of thirty-two bytes or more";
/// API key that `/key` accepts.
const KEY: &str = "k-5f0c1d3e7b9a4c2d";
const PASSWORD: &str = "open:sesame";

/// A gateway before an origin, with one route for each kind of credentials.
struct Scene {
    gateway: Gateway,
    origin: Origin,
    signer: Signer,
    files: TempDir,
}

impl Scene {
    async fn start() -> Scene {
        Scene::start_with("", "").await
    }

    /// Starts a scene with additional keys of `[proxy]` and additional tables.
    async fn start_with(proxy: &str, more: &str) -> Scene {
        let (origin, signer, files) = (Origin::start().await, Signer::new(), tempfile::tempdir().unwrap());
        let write = |name: &str, text: String| std::fs::write(files.path().join(name), text).unwrap();
        write("users", format!("alice:{}\nJürgen:{}\n", bcrypt(PASSWORD), bcrypt("schön")));
        write("keys", format!("till:{}\n", hex::encode(sha256(KEY.as_bytes()))));
        write("public.pem", signer.public_pem());
        write("secret", format!("{SECRET}\n"));
        let path = |name: &str| files.path().join(name).display().to_string();
        let claims = format!(
            "issuer = \"{ISSUER}\"\naudience = \"{AUDIENCE}\"\nleeway_secs = 5\n\
             forward_claims = {{ sub = \"X-User\", role = \"X-Role\" }}\n"
        );
        let routes = [
            route("/basic", &format!("users_file = \"{}\"\nuser_header = \"X-User\"\n", path("users"))),
            route("/jwt", &format!("kind = \"jwt\"\npublic_key_file = \"{}\"\n{claims}", path("public.pem"))),
            route(
                "/admin",
                &format!(
                    "kind = \"jwt\"\npublic_key_file = \"{}\"\n{claims}require = {{ role = \"admin\" }}\n",
                    path("public.pem")
                ),
            ),
            route("/hs", &format!("kind = \"jwt\"\nsecret_file = \"{}\"\n{claims}", path("secret"))),
            route(
                "/key",
                &format!("kind = \"api_key\"\nkeys_file = \"{}\"\nuser_header = \"X-User\"\n", path("keys")),
            ),
        ];
        let tables = format!(
            "[health_check]\nenabled = false\n[[virtual_hosts]]\ndomain = \"shop.test\"\n\
             enabled_backends_tag = \"all\"\n{}{more}",
            routes.concat()
        );
        let gateway = Gateway::start(&[&origin], Setup { proxy, tables: &tables }).await;
        Scene { gateway, origin, signer, files }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Sends a GET of `path` with these lines of header fields, and returns the response.
    async fn ask(&self, path: &str, fields: &str) -> String {
        self.ask_raw(&format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n{fields}")).await
    }

    /// Sends this request head, to which the function adds the end, and returns the response.
    async fn ask_raw(&self, head: &str) -> String {
        exchange(self.gateway.address, format!("{head}Connection: close\r\n\r\n").as_bytes()).await
    }
}

/// Returns a route with an `[auth]` table.
fn route(prefix: &str, auth: &str) -> String {
    format!("[[virtual_hosts.routes]]\npath_prefix = \"{prefix}\"\n[virtual_hosts.routes.auth]\n{auth}")
}

fn bcrypt(password: &str) -> String {
    bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap().format_for_version(bcrypt::Version::TwoY)
}

fn basic(pair: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(pair))
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

/// Returns the value of a header field of a response; "" if it is missing.
fn field<'a>(answer: &'a str, name: &str) -> &'a str {
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let mut named = fields.filter(|(found, _)| found.eq_ignore_ascii_case(name));
    named.next().map_or("", |(_, value)| value)
}
