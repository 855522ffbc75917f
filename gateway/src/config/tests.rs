//! Tests of the whole configuration: each possible fault of a file, and a comparison of reference file and schema.

use serde_json::Value;

use super::{Auth, Config, HealthCheck};

/// Virtual host and backend that make any other text a complete configuration.
pub(super) const COMPLETE: &str = "
[[virtual_hosts]]
domain = \"*\"
enabled_backends_tag = \"a\"
[[backends]]
id = \"one\"
address = \"127.0.0.1:3001\"
tags = [\"a\"]
";

/// Invalid texts. The error of each text has one line, which contains the given part.
const BAD: &[(&str, &str)] = &[
    ("", "file: there is no virtual host"),
    ("[proxy]\nlisten_addr_http = []\n", "file:2:20: there is no listener"),
    (
        "[proxy]\nlisten_addr_http = [\"127.0.0.1:1\", \"127.0.0.1:1\"]\n",
        "file:2:20: 127.0.0.1:1 is used by two listeners",
    ),
    ("[proxy]\nlisten_addr_http = \"127.0.0.1:9090\"\n", "127.0.0.1:9090 is used by two listeners"),
    (
        "[proxy]\nlisten_addr_http = \"localhost\"\n",
        "file:2:20: `listen_addr_http`: 'localhost': expected IP:PORT",
    ),
    ("[proxy]\nthreads = -1\n", "file:2:11: `threads`: invalid value: integer `-1`"),
    ("[proxy]\nthreads = 100000\n", "file:2:11: at most 1024 threads"),
    ("[proxy]\nupgrade_sock = \"a.sock\"\n", "file:2:16: \"a.sock\" is relative"),
    ("[proxy]\nupgrade_sock = \"/\\u0000\"\n", "file:2:16: not a valid path of a Unix socket"),
    ("[proxy]\nrequest_timeout_secs = 0\n", "file:2:24: `request_timeout_secs`: 0 is out of range"),
    (
        "[proxy]\nlisten_addr = \"127.0.0.1:443\"\nself_signed = false\n",
        "file:2:15: no virtual host has a certificate",
    ),
    ("[proxy]\nproxy_protocol = true\n", "file:2:18: no client can connect"),
    ("[proxy]\ntrusted_proxies = [\"10.0.0.0/8\", \"10.0.0\"]\n", "'10.0.0' is not a valid network"),
    ("[tracing]\nsample_percent = 1\n", "file:1:2: `tracing` is not supported yet"),
    ("[proxy]\nproblems_url = \"docs\"\n", "file:2:16: \"docs\" is not a valid URL of a page"),
    (
        "[proxy]\nproblems_url = \"https://a/#b\"\n",
        "file:2:16: \"https://a/#b\" is not a valid URL of a page",
    ),
    ("[cors]\n", "file:1:1: it needs an origin"),
    ("[cors]\nallow_origins = [\"https://a.example/\"]\n", "(did you mean `https://a.example`?)"),
    (
        "[cors]\nallow_origins = [\"*\"]\nallow_credentials = true\n",
        "file:2:17: \"*\" cannot be combined with `allow_credentials`",
    ),
    ("[cors]\nallow_origins = [\"*\"]\nallow_methods = [\"get\"]\n", "did you mean `GET`?"),
    (
        "[cors]\nallow_origins = [\"https://a.example\", \"https://b\", \"https://A.example:443\"]\n",
        "file:2:52: this origin is listed twice",
    ),
    ("[cors]\nallow_origins = [\"*\", \"https://a.example\"]\n", "file:2:17: \"*\" includes all the others"),
    (
        "[cors]\nallow_origins = [\"*\"]\nallow_headers = [\"X-A\", \"*\"]\n",
        "file:3:17: \"*\" includes all the others",
    ),
    (
        "[cors]\nallow_origins = [\"*\"]\nallow_methods = [\"GET\", \"TRACE\"]\n",
        "file:3:25: no browser sends TRACE for a page",
    ),
    (
        "[cors]\nallow_origins = [\"*\"]\nexpose_headers = [\"Set-Cookie\"]\n",
        "file:3:18: no browser shows Set-Cookie",
    ),
    (
        "[cors]\nallow_origins = [\"*\"]\n[headers]\nresponse_add = { \"Access-Control-Allow-Private-Network\" = \"true\" }\n",
        "file:4:16: beside a `cors` table, no rule can set Access-Control-… fields",
    ),
    (
        "[compression]\ntypes = [\"text/*\", \"text/event-stream\"]\n",
        "file:2:20: it is never compressed, because each message must reach the client at once",
    ),
    ("[compression]\nalgorithms = []\n", "file:2:14: it needs at least one algorithm"),
    ("[compression]\nalgorithms = [\"gzip\", \"gzip\"]\n", "file:2:14: an algorithm is listed twice"),
    ("[compression]\nalgorithms = [\"deflate\"]\n", "unknown value `deflate`"),
    ("[compression]\ntypes = [\"html\"]\n", "'html' is not a valid media type"),
    ("[access]\ndeny = [\"10.0.0.0/8\", \"x\"]\n", "'x' is not a valid network"),
    (
        "[access]\nallow = [\"192.0.2.1\", \"10.0.0.0/8\"]\ndeny = [\"0.0.0.0/1\", \"::/0\"]\n",
        "file:2:23: 10.0.0.0/8 has no effect: `deny` covers the whole network and takes precedence",
    ),
    (
        "[access]\nallow = [\"10.0.0.0/8\"]\ndeny = [\"0.0.0.0/1\", \"128.0.0.0/1\"]\n",
        "file:2:10: 10.0.0.0/8 has no effect",
    ),
    ("[auth]\nrealm = \"r\"\n", "file:1:1: kind = \"basic\" needs `users_file`"),
    (
        "[auth]\nusers_file = \"u\"\nuser_header = \"X-User\"\n[headers]\nrequest_set = { X_User = \"root\" }\n",
        "file:5:15: x_user is set by the `auth` table, to tell the backend who the user is",
    ),
    (
        "[auth]\nusers_file = \"u\"\nuser_header = \"X-User\"\n[headers]\nrequest_add = { X-User = \"root\" }\n",
        "file:5:15: x-user is set by the `auth` table",
    ),
    (
        "[auth]\nkind = \"jwt\"\nsecret_env = \"S\"\nforward_claims = { sub = \"X-User\" }\n[headers]\nrequest_remove = [\"X-User\"]\n",
        "file:6:18: x-user is set by the `auth` table",
    ),
    ("[auth]\nkind = \"digest\"\nusers_file = \"u\"\n", "file:2:8: unknown value `digest`"),
    ("[auth]\nusers_file = \"u\"\nissuer = \"i\"\n", "file:3:10: it has no effect with kind = \"basic\""),
    ("[auth]\nkind = \"jwt\"\nsecret_env = \"S\"\nsecret = \"x\"\n", "unknown key `secret`"),
    ("[retry]\non_status = [502, 200]\n", "file:2:19: 200 is not the status code of an error"),
    ("[retry]\nbackoff_base_ms = 0\n", "file:2:19: `backoff_base_ms`: 0 is out of range"),
    ("[retry]\nbackoff_base_ms = 50\nbackoff_max_ms = 20\n", "file:3:18: it is less than `backoff_base_ms`"),
    ("[retry]\nbudget_percent = 101\n", "file:2:18: `budget_percent`: 101 is out of range"),
    ("[circuit_breaker]\nconsecutive_failures = 0\n", "file:2:24: `consecutive_failures`: invalid value"),
    ("[circuit_breaker]\nfailure_percent = 0\n", "file:2:19: 0 is out of range"),
    ("[circuit_breaker]\nwindow_secs = 61\n", "file:2:15: at most 60 seconds"),
    ("[circuit_breaker]\nopen_secs = 10\nmax_open_secs = 5\n", "file:3:17: it is less than `open_secs`"),
    ("[upstream]\nprotocol = \"auto\"\n", "file:2:12: \"auto\" is negotiated in the TLS handshake"),
    ("[upstream]\nprotocol = \"http3\"\n", "file:2:12: unknown value `http3`"),
    ("[upstream]\nsni = \"a.example\"\n", "file:2:7: it has no effect without `tls = true`"),
    ("[upstream]\ntls = true\nsni = \"a b\"\n", "file:3:7: \"a b\" is neither a host name nor an IP address"),
    ("[upstream]\ntcp_keepalive_secs = 40000\n", "file:2:22: at most 32767 seconds"),
    ("[upstream]\nh2_window_bytes = 1000\n", "file:2:19: expected 16384 to 16777216 bytes"),
    ("[upstream]\nh2_window_bytes = 20000000\n", "file:2:19: expected 16384 to 16777216 bytes"),
    ("[proxy]\nmax_http2_streams = 0\n", "file:2:21: `max_http2_streams`: invalid value"),
    ("[proxy]\nmax_response_header_fields = 300\n", "file:2:30: at most 256"),
    ("[proxy]\nmax_response_header_bytes = 2000000\n", "file:2:29: at most 1048575"),
    (
        "[upstream]\ntls = true\nsni = \"a\"\nclient_cert_file = \"a.pem\"\n",
        "file:4:20: the certificate needs its key",
    ),
    ("[upstream]\ntls = true\n", "file:9:11: backend 'one' is used over TLS, and there is no name"),
    ("[upstream]\nmax_inflight_per_backend = -1\n", "file:2:28: `max_inflight_per_backend`: invalid value"),
    (
        "[balancing]\nhash_key = \"path\"\n",
        "file:2:12: `hash_key`: 'path' is not a valid key; expected client_ip",
    ),
    ("[balancing]\nhash_key = \"cookie:a b\"\n", "'a b' cannot be the name of a cookie"),
    ("[balancing]\nsticky_cookie = \"a b\"\n", "file:2:17: \"a b\" cannot be the name of a cookie"),
    ("[health_check]\nhost = \"a b\"\n", "file:2:8: \"a b\" is not a valid host"),
    ("[health_check]\nkind = \"grpc\"\npath = \"/\"\n", "file:3:8: `path` has no effect with this `kind`"),
    ("[health_check]\nslow_start_secs = -1\n", "file:2:19: `slow_start_secs`: invalid value"),
    ("[retry]\nattempts = 1000\n", "file:2:12: at most 16 attempts"),
    ("[balancing]\nalgorithm = \"wieghted\"\n", "file:2:13: unknown value `wieghted`"),
    (
        "[rate_limit]\nkey = \"ip\"\n",
        "file:2:7: `key`: 'ip' is not a valid key; expected client_ip, header:NAME",
    ),
    ("[rate_limit]\nkey = \"cookie:a b\"\n", "file:2:7: `key`: 'a b' cannot be the name of a cookie"),
    ("[rate_limit]\nkey = \"jwt:\"\n", "file:2:7: `key`: 'jwt:' is not a valid key"),
    ("[rate_limit]\nkey = \"header:Host\"\n", "file:2:7: `key`: 'header:Host' is not a valid key: the host"),
    ("[rate_limit]\nname = \"a b\"\n", "file:2:8: not a valid name of a window"),
    ("[[rate_limit]]\nrequests = 16777216\n", "file:2:12: at most 16777215 requests"),
    (
        "[[rate_limit]]\nname = \"a\"\n[[rate_limit]]\nname = \"a\"\nwindow_secs = 1\n",
        "file:4:8: 'a' is defined twice",
    ),
    (
        "[[rate_limit]]\n[[rate_limit]]\nwindow_secs = 1\nrequest = 1\n",
        "file:4:1: unknown key `request` (did you mean `requests`?)",
    ),
    (
        "rate_limit = [{}, {}, {}, {}, {}, {}, {}, {}, {}]\n",
        "file:1:14: at most 8 windows can apply together",
    ),
    (
        "[rate_limit]\nstore = \"redis://:sesame@host\"\n",
        "file:2:9: `store`: the URL must not contain a user, a password or options",
    ),
    ("[rate_limit]\nstore_timeout_ms = 10\n", "file:2:20: it has no effect without a Redis `store`"),
    (
        "[[rate_limit]]\nrequests = 5\n[[rate_limit]]\nwindow_secs = 60\n",
        "file:4:15: another window counts the same requests in the same time and store",
    ),
    ("[rate_limit]\nstore_password_env = \"A\"\n", "file:2:22: it has no effect without a Redis `store`"),
    (
        "[rate_limit]\nstore = \"redis://a\"\nstore_ca_file = \"a\"\n",
        "file:3:17: it has no effect without TLS",
    ),
    ("[rate_limit]\nstore = \"redis://a\"\nstore_user = \"a\"\n", "file:3:14: a user needs a password"),
    (
        "[rate_limit]\nstore = \"redis://a\"\nstore_timeout_ms = 5001\n",
        "file:3:20: a request waits at most 5000",
    ),
    (
        "[[rate_limit]]\nstore = \"redis://a\"\n[[rate_limit]]\nwindow_secs = 1\n[[rate_limit]]\nwindow_secs = 2\nstore = \"redis://b\"\n",
        "file:7:9: windows that apply together must share one store",
    ),
    ("[proxy]\nrate_limit_clients = 16777217\n", "file:2:22: at most 16777216 clients"),
    ("[rate_limit]\nrequests = 0\n", "file:2:12: `requests`: invalid value"),
    ("[rate_limit]\nrequests = 16777216\n", "file:2:12: at most 16777215 requests"),
    ("[logging]\nlevel = \"lodu\"\n", "file:2:9: 'lodu' is not a log level"),
    ("[logging]\nformat = \"xml\"\n", "file:2:10: unknown value `xml`; expected `text` or `json`"),
    ("[logging]\noutput = \"file\"\nfile_path = \"\"\n", "file:3:13: output = \"file\" needs"),
    ("[health_check]\nkind = \"tcp\"\npath = \"/\"\n", "file:3:8: `path` has no effect with this `kind`"),
    ("[health_check]\npath = \"health\"\n", "file:2:8: \"health\" is not a valid path"),
    (
        "[health_check]\nexpected_status = \"ok\"\n",
        "file:2:19: `expected_status`: 'ok' is not a valid set of status codes",
    ),
    ("[headers]\nrequest_set = { \"Content-Length\" = \"1\" }\n", "belongs to the connection"),
    ("[health_check]\npath = \"/a<b>\"\n", "file:2:8: \"/a<b>\" is not a valid path"),
    ("[logging]\nlevel = \"gateway=loud,x=y\"\n", "file:2:9: 'loud' is not a log level"),
    ("[logging]\nlevel = \"gateway[x=debug\"\n", "file:2:9: 'gateway[x=debug' is not a valid filter"),
    ("[headers]\nrequest_add = { \"Host\" = \"a\" }\n", "file:2:15: a request has one Host"),
    ("[headers]\nrequest_set = { \"X-A\" = \"1\", \"x-a\" = \"2\" }\n", "'x-a' is defined twice"),
    ("[headers]\nrequest_set = { \"X-A\" = \"a\\nb\" }\n", "cannot be the value of a header field"),
    ("[[virtual_hosts]]\nenabled_backends_tag = \"a\"\n", "needs a `domain`"),
    ("[[virtual_hosts]]\ndomain = \"b\"\n", "a virtual host needs `enabled_backends_tag`"),
    (
        "[[virtual_hosts]]\ndomain = \"b:80\"\nenabled_backends_tag = \"a\"\n",
        "file:2:10: 'b:80' is not a valid domain",
    ),
    (
        "[[virtual_hosts]]\ndomain = \"*.*.b\"\nenabled_backends_tag = \"a\"\n",
        "file:2:10: '*.*.b' is not a valid domain",
    ),
    (
        "[[virtual_hosts]]\ndomain = \"b\"\naliases = [\"c\", \"B.\"]\nenabled_backends_tag = \"a\"\n",
        "file:3:17: 'B.' is defined twice (the first is 'b')",
    ),
    (
        "[[virtual_hosts]]\ndomain = \"b\"\nhttp_to_https = true\nenabled_backends_tag = \"a\"\n",
        "file:3:17: the gateway has no HTTPS listener",
    ),
    (
        "[[virtual_hosts]]\ndomain = \"b\"\ncert_file = [\"a\", \"b\"]\nkey_file = \"c\"\nenabled_backends_tag = \"a\"\n",
        "file:3:13: each certificate needs its key: there are 2 in `cert_file` and 1 in `key_file`",
    ),
    (
        "[[virtual_hosts]]\ndomain = \"b\"\ncert_file = \"a\"\nkey_file = \"c\"\nenabled_backends_tag = \"a\"\n",
        "file:3:13: it has no effect without an HTTPS listener; set `proxy.listen_addr`",
    ),
    (
        "[[virtual_hosts]]\ndomain = \"b\"\ndefault = true\nenabled_backends_tag = \"a\"\n",
        "file:3:11: the virtual host has no certificate; set `cert_file` and `key_file`, or `acme`",
    ),
    (
        "[[virtual_hosts]]\ndomain = \"b\"\nclient_certificate = \"optional\"\nenabled_backends_tag = \"a\"\n",
        "file:3:22: it needs `client_ca_file`",
    ),
    ("[limits]\nmax_uri_bytes = 0\n", "file:2:17: `max_uri_bytes`: invalid value: integer `0`"),
    (
        "[limits]\nmax_uri_bytes = 4097\nmax_header_bytes = 4096\n",
        "file:2:17: it is larger than `max_header_bytes`",
    ),
    (
        "[proxy]\nmax_connections = 10\nmax_connections_per_ip = 11\n",
        "file:3:26: it is larger than `max_connections`",
    ),
    (
        "[headers]\nrequest_set = { \"X-A\" = \"1\" }\nrequest_remove = [\"x-a\"]\n",
        "file:3:18: x-a is both set and removed",
    ),
    ("[limits]\nmax_uri_bytes = 65001\n", "file:2:17: at most 65000 bytes"),
    ("[limits]\nmax_header_bytes = 1048577\n", "file:2:20: at most 1048576 bytes"),
    ("[limits]\nmin_body_bytes_per_sec = 1048577\n", "file:2:26: at most 1048576 bytes a second"),
    ("[limits]\nbody_timeout_secs = 0\n", "file:2:21: `body_timeout_secs`: 0 is out of range"),
    ("[limits]\nmax_request_body_bytes = -1\n", "file:2:26: `max_request_body_bytes`: invalid value"),
    ("[proxy]\nmin_send_bytes_per_sec = 1048577\n", "file:2:26: at most 1048576 bytes a second"),
    ("[proxy]\nmax_connections_per_ip = -1\n", "file:2:26: `max_connections_per_ip`: invalid value"),
    ("[limits]\nmax_header_fields = 257\n", "file:2:21: at most 256 fields"),
    ("[security_headers]\nx_frame_options = \"a\\nb\"\n", "cannot be the value of a header field"),
    (
        "[[virtual_hosts]]\ndomain = \"b\"\nenabled_backends_tag = \"aa\"\n",
        "file:3:24: no backend has the tag 'aa'",
    ),
    ("[lets_encrypt]\nemail = \"ops\"\n", "file:2:9: \"ops\" is not a valid email address"),
    ("[lets_encrypt]\ncache_dir = \"\"\n", "file:2:13: certificates and their keys need a directory"),
    (
        "[lets_encrypt]\ndirectory_url = \"http://ca.example/dir\"\n",
        "file:2:17: \"http://ca.example/dir\" is not a valid URL of an ACME server",
    ),
    ("[lets_encrypt]\nca_file = \"ca.pem\"\n", "file:2:11: it has no effect without `directory_url`"),
    ("[lets_encrypt]\nchallenge = \"dns-01\"\n", "file:2:13: unknown value `dns-01`"),
    (
        "[[virtual_hosts]]\ndomain = \"b\"\nacme = true\nenabled_backends_tag = \"a\"\n",
        "file:3:8: a certificate by ACME needs the table [lets_encrypt]",
    ),
    (
        "[lets_encrypt]\n[[virtual_hosts]]\ndomain = \"b\"\nacme = true\nenabled_backends_tag = \"a\"\n",
        "file:4:8: the certificate has no effect without an HTTPS listener; set `proxy.listen_addr`",
    ),
    (
        "[proxy]\nlisten_addr = \"127.0.0.1:8443\"\n[lets_encrypt]\n[[virtual_hosts]]\ndomain = \"b\"\n\
         aliases = [\"*.b\"]\nacme = true\nenabled_backends_tag = \"a\"\n",
        "file:7:8: '*.b' is a wildcard",
    ),
    (
        "[proxy]\nlisten_addr = \"127.0.0.1:8443\"\n[lets_encrypt]\n[[virtual_hosts]]\ndomain = \"10.0.0.1\"\n\
         acme = true\nenabled_backends_tag = \"a\"\n",
        "file:6:8: '10.0.0.1' is an IP address",
    ),
    ("[[backends]]\naddress = \"127.0.0.1:1\"\ntags = [\"a\"]\n", "a backend needs an `id`"),
    ("[[backends]]\nid = \"x\"\ntags = [\"a\"]\n", "backend 'x' needs an `address`"),
    ("[[backends]]\nid = \"x\"\naddress = \"127.0.0.1:1\"\n", "a backend needs `tags`"),
    ("[[backends]]\nid = \"one\"\naddress = \"127.0.0.1:1\"\ntags = [\"a\"]\n", "'one' is defined twice"),
    (
        "[[backends]]\nid = \"a b\"\naddress = \"127.0.0.1:1\"\ntags = [\"a\"]\n",
        "file:2:6: \"a b\" is not a valid id",
    ),
    (
        "[[backends]]\nid = \"x\"\naddress = \"127.0.0.1:1\"\ntags = [\"a\"]\nweight = 0\n",
        "file:5:10: `weight`: 0 is out of range; to send a backend no requests, set `drained = true`",
    ),
    (
        "[[backends]]\nid = \"x\"\naddress = \"127.0.0.1:1\"\ntags = [\"a\"]\nweight = 1001\n",
        "file:5:10: `weight`: 1001 is out of range: expected 1 to 1000",
    ),
    (
        "[[backends]]\nid = \"x\"\naddress = \"unix:app.sock\"\ntags = [\"a\"]\n",
        "file:3:11: `address`: 'unix:app.sock' is not a valid address: expected unix:/path",
    ),
];

#[test]
fn each_bad_file_gets_one_clear_error() {
    for (text, expected) in BAD {
        let whole = if text.is_empty() { String::new() } else { format!("{text}{COMPLETE}") };
        let error = Config::parse("file", &whole).expect_err(text).to_string();
        assert!(
            error.lines().any(|line| line.contains(expected)),
            "{text}\n-- says\n{error}\n-- not\n{expected}"
        );
        assert_eq!(error.lines().count(), 1, "one fault, one line:\n{text}\n{error}");
    }
}

#[test]
fn decoding_stops_after_one_hundred_faults() {
    let error = Config::parse("file", &"[[virtual_hosts]]\ndomian = \"a\"\n".repeat(500)).unwrap_err();
    assert_eq!(error.faults.len(), 100);
    assert!(error.faults.iter().all(|fault| fault.detail.starts_with("unknown key `domian`")), "{error}");
}

/// Invalid keys of a route, each with a part of its error. The keys begin in line 5 of the file.
const BAD_ROUTES: &[(&str, &str)] = &[
    ("", "file:4:1: a route needs a condition"),
    (
        "path = \"/a\"\npath_prefix = \"/a\"\n",
        "file:4:1: a route has only one of `path`, `path_prefix` and `path_regex`; remove the others",
    ),
    ("path = \"/a\"\nmirror_tag = \"b\"\n", "file:6:14: no backend has the tag 'b'"),
    ("path = \"/a\"\nfault = { delay_percent = 5 }\n", "file:6:27: it needs `delay_ms`"),
    ("path = \"/a\"\nfault = { abort_percent = 5 }\n", "file:6:27: it needs `abort_status`"),
    ("path = \"/a\"\nfault = { abort_status = 101 }\n", "file:6:26: 101 is not a final status code"),
    ("path = \"a\"\n", "file:5:8: \"a\" cannot be the path of a request"),
    ("path_prefix = \"/a?b\"\n", "file:5:15: \"/a?b\" cannot be the path of a request"),
    ("path_prefix = \"/a b\"\n", "file:5:15: \"/a b\" cannot be the path of a request"),
    ("path = \"/a/../b\"\n", "file:5:8: \"/a/../b\" matches no request: the gateway reads it as \"/b\""),
    ("path_prefix = \"/%61\"\n", "the gateway reads it as \"/a\""),
    ("path_regex = \"^/\\\\w{50}\"\n", "is not a valid regular expression: "),
    (
        "path_regex = \"^/v[0-9+/\"\n",
        "file:5:14: `path_regex`: '^/v[0-9+/' is not a valid regular expression: ",
    ),
    (
        "path = \"/a\"\nmethods = [\"get\"]\n",
        "file:6:11: `methods`: 'get' is not a valid method (did you mean `GET`?)",
    ),
    ("path = \"/a\"\nmethods = [\"A B\"]\n", "'A B' is not a valid method"),
    ("header_match = { \"a b\" = \"1\" }\n", "'a b' is not a valid name of a header field"),
    ("path = \"/a\"\nenabled_backends_tag = \"b\"\n", "file:6:24: no backend has the tag 'b'"),
    ("path = \"/a\"\nstrip_prefix = true\n", "file:6:16: it has no effect without `path_prefix`"),
    ("path = \"/a\"\nrewrite = \"/b\"\n", "file:6:11: it has no effect without `path_regex`"),
    ("path_regex = \"/a\"\nrewrite = \"/b?c\"\n", "file:6:11: \"/b?c\" cannot be a part of a path"),
    (
        "path_regex = \"^/a/(.*)$\"\nrewrite = \"/$2\"\n",
        "file:6:11: there is no `$2`: `path_regex` has one group",
    ),
    ("path_regex = \"^/a/(.*)$\"\nrewrite = \"/$name\"\n", "no group of `path_regex` is called 'name'"),
    ("path_regex = \"^/a/(.*)$\"\nrewrite = \"/$path\"\n", "`$path` is not allowed here"),
    ("path_regex = \"^/a/(.*)$\"\nrewrite = \"/a/../$1\"\n", "cannot be a part of a path"),
    ("path_regex = \"^/a/(.*)$\"\nrewrite = \"/%/$1\"\n", "cannot be a part of a path"),
    (
        "path_regex = \"^/a/(.*)$\"\nredirect = \"/$2\"\n",
        "file:6:12: there is no `$2`: `path_regex` has one group",
    ),
    ("path = \"/a\"\nredirect = \"/$1\"\n", "file:6:12: there is no `$1`: the route has no `path_regex`"),
    (
        "path_regex = \"^/a(.*)$\"\nredirect = \"https://a.example$1\"\n",
        "file:6:12: text from the client could become a part of the redirect's host",
    ),
    ("path = \"/a\"\nredirect = \"/b\"\nredirect_status = 200\n", "file:7:19: `redirect_status`: "),
    ("path = \"/a\"\nredirect_status = 301\n", "file:6:19: it has no effect without `redirect`"),
    ("path = \"/a\"\nredirect = \"there\"\n", "file:6:12: \"there\" is not a valid redirect target"),
    ("path = \"/a\"\nredirect = \"/b\\r\\nX: 1\"\n", "is not a valid redirect target"),
    (
        "path = \"/a\"\nredirect = \"/b\"\nenabled_backends_tag = \"a\"\n",
        "file:7:24: it has no effect beside `redirect`",
    ),
    (
        "path = \"/a\"\n[virtual_hosts.routes.rate_limit]\nkey = \"jwt:sub\"\n",
        "file:7:7: no route with this limit authenticates clients, so no client has a claim",
    ),
    (
        "path = \"/a\"\n[virtual_hosts.routes.rate_limit]\nkey = \"jwt:role\"\n[virtual_hosts.routes.auth]\nusers_file = \"u\"\n",
        "file:7:7: no route with this limit authenticates clients with a token (`kind = \"jwt\"`), so no client has this claim",
    ),
    ("path = \"/a\"\npath_prefx = \"/a\"\n", "unknown key `path_prefx` (did you mean `path_prefix`?)"),
    (
        "path = \"/a\"\n[[virtual_hosts.routes]]\npath = \"/a\"\n",
        "file:6:1: the route '= /a' is defined twice; no request would reach the second one",
    ),
    ("path = \"/a\"\n[virtual_hosts.routes.retry]\nattempts = 17\n", "file:7:12: at most 16 attempts"),
    (
        "path = \"/a\"\n[[virtual_hosts.routes.rate_limit]]\n[[virtual_hosts.routes.rate_limit]]\nrequests = 0\n",
        "file:8:12: `requests`: invalid value",
    ),
];

#[test]
fn each_bad_route_gets_one_clear_error() {
    for (route, expected) in BAD_ROUTES {
        let text = format!(
            "[[virtual_hosts]]\ndomain = \"b\"\nenabled_backends_tag = \"a\"\n[[virtual_hosts.routes]]\n{route}{COMPLETE}"
        );
        let error = Config::parse("file", &text).expect_err(route).to_string();
        assert!(error.contains(expected), "{route}\n-- says\n{error}\n-- not\n{expected}");
        assert_eq!(error.lines().count(), 1, "one fault, one line:\n{route}\n{error}");
    }
}

const REFERENCE: &str = include_str!("../../config/reference.toml");

#[test]
fn the_reference_shows_the_defaults() {
    let mut reference = Config::parse("reference.toml", REFERENCE).unwrap();
    // The reference shows an example for a key without a default.
    let health_check = reference.health_check.take().unwrap();
    assert_eq!(
        HealthCheck { kind: None, path: None, expected_status: None, ..health_check },
        HealthCheck::default()
    );
    assert_eq!(reference.balancing.take(), Some(Default::default()));
    assert_eq!(reference.upstream.take(), Some(Default::default()));
    assert_eq!(reference.retry.take(), Some(Default::default()));
    assert_eq!(reference.circuit_breaker.take(), Some(Default::default()));
    assert_eq!(reference.rate_limit.take(), Some(Default::default()));
    assert_eq!(reference.headers.take(), Some(Default::default()));
    assert_eq!(reference.limits.take(), Some(Default::default()));
    assert_eq!(reference.security_headers.take(), Some(Default::default()));
    assert_eq!(reference.access.take(), Some(Default::default()));
    let users_file = "users.htpasswd".to_owned();
    assert_eq!(reference.auth.take(), Some(Auth { users_file, ..Auth::default() }));
    assert_eq!(reference.compression.take(), Some(Default::default()));
    let mut cors = reference.cors.take().unwrap();
    cors.allow_origins.clear();
    assert_eq!(cors, Default::default());
    assert_eq!(reference.lets_encrypt.take(), Some(Default::default()));
    // The reference shows an example for a key without a default.
    reference.proxy.listen_addr.0.clear();
    reference.virtual_hosts.clear();
    reference.backends.clear();
    reference.tests.clear();
    assert_eq!(reference, Config::default());
}

#[test]
fn unsupported_keys_of_the_reference_are_refused() {
    let (mut expected, mut in_refused_table) = (Vec::new(), false);
    for line in REFERENCE.lines() {
        let (refused, line) = line.strip_prefix("#- ").map_or((false, line), |line| (true, line));
        let name = line.trim_matches(['[', ' ']).split([']', ' ']).next().unwrap_or_default();
        let name = name.rsplit('.').next().unwrap_or_default();
        if line.starts_with('[') {
            in_refused_table = refused;
            expected.extend(refused.then_some(name));
        } else if refused && !in_refused_table {
            expected.push(name);
        }
    }
    let whole: String =
        REFERENCE.lines().map(|line| format!("{}\n", line.trim_start_matches("#- "))).collect();
    let error = Config::parse("all", &whole).unwrap_err();
    let mut found: Vec<String> = error.faults.into_iter().map(|fault| fault.detail).collect();
    let mut expected: Vec<String> =
        expected.into_iter().map(|name| format!("`{name}` is not supported yet")).collect();
    found.sort_unstable();
    found.dedup();
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(found, expected);
}

#[test]
fn keepalive_pool_size_is_the_largest_in_use() {
    let size = |text: &str| Config::parse("file", text).unwrap().keepalive_pool_size().get();
    let table = |at: &str, size: usize| format!("[{at}upstream]\nkeepalive_pool_size = {size}\n");
    let host = "[[virtual_hosts]]\ndomain = \"*\"\nenabled_backends_tag = \"a\"\n";
    let backend = "[[backends]]\nid = \"one\"\naddress = \"127.0.0.1:3001\"\ntags = [\"a\"]\n";
    let route = "[[virtual_hosts.routes]]\npath = \"/a\"\n";
    let (top, inner) = (table("", 10), table("virtual_hosts.", 5));
    let innermost = table("virtual_hosts.routes.", 20);
    assert_eq!(size(&format!("{top}{host}{backend}")), 10);
    assert_eq!(size(&format!("{top}{host}{inner}{backend}")), 5, "no virtual host uses the top-level table");
    assert_eq!(size(&format!("{top}{host}{inner}{route}{innermost}{backend}")), 20);
}

/// Adds each key of `schema` to `keys`: its path, and its part of the schema (with description and default).
fn schema_keys(schema: &Value, root: &Value, at: &str, keys: &mut Vec<(String, Value)>) {
    let resolved = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    let either = resolved["anyOf"].as_array().into_iter().flatten();
    for inner in either.chain(resolved.get("items")) {
        schema_keys(inner, root, at, keys);
    }
    for (key, property) in resolved["properties"].as_object().into_iter().flatten() {
        let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        keys.push((at.clone(), property.clone()));
        schema_keys(property, root, &at, keys);
    }
}

#[test]
fn schema_reference_and_defaults_agree() {
    let schema = super::json_schema();
    let reference: toml::Table = REFERENCE.parse().unwrap();
    let reference = serde_json::to_value(reference).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(&reference).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let unknown = serde_json::json!({ "proxy": { "prot": 1 } });
    assert!(!validator.is_valid(&unknown), "the schema allows an unknown key");

    let mut keys = Vec::new();
    schema_keys(&schema, &schema, "", &mut keys);
    assert!(keys.len() > 100, "{}", keys.len());
    for (path, property) in &keys {
        assert!(
            property["description"].is_string() || property["$ref"].is_string(),
            "{path} has no description"
        );
        let key = path.rsplit('.').next().unwrap();
        let is_named = |line: &str| {
            let line = line.trim_start();
            line.starts_with(&format!("{key} ="))
                || line.contains(&format!("{key} = "))
                || line.trim_matches(['[', ']']).split(']').next() == Some(key)
                || line.starts_with(&format!("[virtual_hosts.{key}]"))
                || line.starts_with(&format!("[[virtual_hosts.{key}]]"))
                || line.starts_with(&format!("[[{key}]]"))
        };
        assert!(
            REFERENCE.lines().any(is_named) || ["redirect", "status"].contains(&key),
            "{path} is not in the reference"
        );
    }
    let defaults = Config::default().to_json();
    for (key, table) in schema["properties"].as_object().unwrap() {
        if let Some(default) = table.get("default") {
            let actual = defaults.get(key).unwrap_or(&Value::Null);
            let is_empty = actual.is_null() && default.as_array().is_none_or(Vec::is_empty);
            assert!(actual == default || is_empty, "{key}: {default} in the schema, {actual} in the code");
        }
    }
}

#[test]
fn config_as_json_is_read_back_unchanged() {
    let config = Config::parse("reference.toml", REFERENCE).unwrap();
    let again: Config = serde_json::from_value(config.to_json()).unwrap();
    assert_eq!(again, config);
}

/// Loads the configuration from the project's original requirements.
#[test]
fn sample_with_two_backend_versions_loads_unchanged() {
    let text = r#"
        [proxy]
        listen_addr_http = "0.0.0.0:80"
        management_api_addr = "127.0.0.1:8080"
        [logging]
        level = "info"
        format = "text"
        [metrics]
        enabled = true
        listen_addr = "0.0.0.0:9090"
        [health_check]
        interval_secs = 10
        timeout_secs = 5
        unhealthy_threshold = 3
        healthy_threshold = 2
        [[virtual_hosts]]
        domain = "example.com"
        enabled_backends_tag = "a"
        http_to_https = false
        [[backends]]
        id = "web-v1"
        address = "localhost:3001"
        tags = ["a"]
        [[backends]]
        id = "web-v2"
        address = "localhost:3002"
        tags = ["b"]
    "#;
    let config = Config::parse("file", text).unwrap();
    assert_eq!(config.backends.len(), 2);
}

const EXAMPLE: &str = include_str!("../../config/config.example.toml");

#[test]
fn the_example_has_two_pools_and_both_listeners() {
    let config = Config::parse("config.example.toml", EXAMPLE).unwrap();
    assert_eq!((config.proxy.listen_addr_http.0.len(), config.proxy.listen_addr.0.len()), (1, 1));
    let mut tags: Vec<&String> = config.backends.iter().flat_map(|backend| &backend.tags).collect();
    tags.dedup();
    assert_eq!(tags, ["a", "b"]);
}
