//! Rate limits that several gateways count in a real Redis, which may be down, slow, or return wrong replies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use testkit::tls::Authority;
use testkit::{Client, DEADLINE, Origin, Process, Signal, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::redis::{self, Redis};
use crate::support::{ConfigFile, GATEWAY, Gateway, Setup, config};

/// A store timeout that is long enough for a Redis on a busy machine.
const PATIENT: &str = "store_timeout_ms = 5000\n";

const LOST: &str = "the store of rate limits does not answer";
const FOUND: &str = "the store of rate limits answers";
const UNUSABLE: &str = "the store of rate limits cannot be used";

/// Returns a rate limit with a store.
fn limit(requests: u32, url: &str, more: &str) -> String {
    format!("[rate_limit]\nrequests = {requests}\nwindow_secs = 3600\nstore = \"{url}\"\n{more}")
}

async fn gateway(origin: &Origin, tables: &str) -> Gateway {
    Gateway::start(&[origin], Setup { tables, ..Setup::default() }).await
}

/// Starts a gateway and waits until it counts in its store.
async fn sharing(origin: &Origin, tables: &str) -> Gateway {
    let gateway = gateway(origin, tables).await;
    gateway.process.line(FOUND).await;
    gateway
}

async fn is_up(gateway: &Gateway) -> bool {
    gateway.metric("proxy_rate_limit_store_up{").await == 1.0
}

fn said(gateway: &Gateway, text: &str) -> usize {
    gateway.process.output().matches(text).count()
}

async fn fallbacks(gateway: &Gateway, url: &str, reason: &str) -> f64 {
    let series = format!("proxy_rate_limit_fallbacks_total{{reason=\"{reason}\",store=\"{url}\"}}");
    gateway.metric(&series).await
}

/// Continuous requests of several clients, and their responses.
struct Load {
    ends: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<(u16, Duration)>>>,
}

impl Load {
    fn on(gateway: &Gateway) -> Load {
        let ends = Arc::<AtomicBool>::default();
        let client = || {
            let (ends, url) = (ends.clone(), gateway.url("/"));
            tokio::spawn(async move {
                let (client, mut answers) = (Client::new(), Vec::new());
                while !ends.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    answers.push((client.status(&url).await.unwrap(), asked.elapsed()));
                }
                answers
            })
        };
        Load { clients: (0..4).map(|_| client()).collect(), ends: ends.clone() }
    }

    /// Stops the requests. Returns the status and the response time of each.
    async fn answers(self) -> Vec<(u16, Duration)> {
        self.ends.store(true, Ordering::Relaxed);
        let mut answers = Vec::new();
        for client in self.clients {
            answers.extend(client.await.unwrap());
        }
        answers
    }
}

#[tokio::test]
async fn two_gateways_let_exactly_as_many_through_together_as_one() {
    if !redis::is_there() {
        return;
    }
    let (redis, url) = Redis::start_on_tcp().await;
    let origin = Origin::start().await;
    let tables = limit(100, &url, PATIENT);
    let (one, other) = (sharing(&origin, &tables).await, sharing(&origin, &tables).await);
    let ask = |url: String| async move {
        let client = Client::new();
        let mut statuses = Vec::new();
        for _ in 0..40 {
            statuses.push(client.status(&url).await.unwrap());
        }
        statuses
    };
    let asked: Vec<_> =
        [&one, &other, &one, &other].map(|gateway| tokio::spawn(ask(gateway.url("/")))).into_iter().collect();
    let mut statuses = Vec::new();
    for asked in asked {
        statuses.extend(asked.await.unwrap());
    }
    let count = |status: u16| statuses.iter().filter(|known| **known == status).count();
    assert_eq!((count(200), count(429)), (100, 60));
    assert_eq!(origin.count("/"), 100);

    let refused = other.get("/").await;
    assert!(refused.header("ratelimit").starts_with("\"default\";r=0;t="), "{refused:?}");
    let retry_after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((3000..=3600).contains(&retry_after), "{retry_after}");
    assert_eq!(refused.json()["violated-policies"], serde_json::json!(["default"]));

    let keys = redis.keys();
    let [key] = keys.iter().filter(|key| !key.ends_with("probe")).collect::<Vec<_>>()[..] else {
        panic!("{keys:?}")
    };
    assert!(!key.contains("127.0.0.1") && key.starts_with("gateway:rate:"), "{key}");
    let left: i64 = ::redis::from_redis_value(redis.ask(&["PTTL", key])).unwrap();
    assert!((1..=3_600_000).contains(&left), "it goes when its window has passed: {left}");

    // The gateway caches a refusal of Redis until the window has passed.
    redis.ask(&["DEL", key]);
    assert_eq!(other.get("/").await.status, 429);
    assert!(redis.keys().iter().all(|key| key.ends_with("probe")), "{:?}", redis.keys());
    assert_eq!((said(&one, LOST), said(&other, LOST)), (0, 0));
}

#[tokio::test]
async fn request_counts_in_local_and_shared_windows_or_in_none() {
    if !redis::is_there() {
        return;
    }
    let redis = Redis::start().await;
    let origin = Origin::start().await;
    let store = format!("store = \"{}\"\n{PATIENT}", redis.url());
    let tables = format!(
        "[[rate_limit]]\nname = \"key\"\nrequests = 2\nkey = \"header:X-Key\"\n{store}\
         [[rate_limit]]\nname = \"here\"\nrequests = 4\n\
         [[rate_limit]]\nname = \"all\"\nrequests = 100\n{store}"
    );
    let gateway = sharing(&origin, &tables).await;
    let client = Client::new();
    let ask = |key: &str| {
        let request = http::Request::get(gateway.url("/")).header("X-Key", key);
        client.send(request.body(bytes::Bytes::new()).unwrap())
    };
    let first = ask("a").await;
    assert_eq!(
        first.header("ratelimit-policy"),
        "\"here\";q=4;w=60, \"key\";q=2;w=60, \"all\";q=100;w=60",
        "those that are counted here come first"
    );
    assert_eq!(first.status, 200);
    assert_eq!(ask("a").await.status, 200);
    for n in 0..5 {
        let refused = ask("a").await;
        assert_eq!(refused.status, 429);
        assert_eq!(refused.json()["violated-policies"], serde_json::json!(["key"]));
        let fields = refused.header("ratelimit");
        assert!(fields.contains("\"here\";r=2;") && fields.contains("\"key\";r=0;"), "{fields}");
        assert_eq!(fields.contains("\"all\";r=98;"), n == 0, "Redis was asked once: {fields}");
    }
    // Counting must continue after Redis has lost the script.
    redis.ask(&["SCRIPT", "FLUSH"]);
    assert_eq!([ask("b").await.status, ask("c").await.status], [200, 200]);
    let refused = ask("d").await;
    assert_eq!(refused.json()["violated-policies"], serde_json::json!(["here"]));
    assert_eq!(gateway.metric("proxy_rate_limited_total{policy=\"key\"").await, 5.0);
    assert_eq!(gateway.metric("proxy_rate_limited_total{policy=\"here\"").await, 1.0);
    assert_eq!(said(&gateway, LOST), 0);
}

#[tokio::test]
async fn killed_redis_fails_no_request_and_is_used_again_when_back() {
    if !redis::is_there() {
        return;
    }
    let (mut redis, url) = Redis::start_on_tcp().await;
    let origin = Origin::start().await;
    let tables = limit(1_000_000, &url, PATIENT);
    let (one, other) = (sharing(&origin, &tables).await, sharing(&origin, &tables).await);
    assert!(is_up(&one).await && is_up(&other).await);
    let unusable = (said(&one, UNUSABLE), said(&other, UNUSABLE));
    let load = Load::on(&one);
    eventually!(origin.received().len() > 20);
    redis.kill().await;
    eventually!(!is_up(&one).await && !is_up(&other).await);
    let before = origin.received().len();
    eventually!(origin.received().len() > before + 20);
    redis.again().await;
    eventually!(is_up(&one).await && is_up(&other).await);
    let before = origin.received().len();
    eventually!(origin.received().len() > before + 20);
    let answers = load.answers().await;
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    for gateway in [&one, &other] {
        eventually!((said(gateway, LOST), said(gateway, FOUND)) == (1, 2));
    }
    assert_eq!((said(&one, UNUSABLE), said(&other, UNUSABLE)), unusable, "that it is away was told");
    assert!(fallbacks(&one, &url, "away").await >= 1.0);
    // Both gateways must see the same count.
    let left = |answer: &testkit::Response| -> u32 {
        let field = answer.header("ratelimit").split([';', '=']).nth(2).unwrap_or_default().to_owned();
        field.parse().unwrap()
    };
    let (here, there) = (left(&one.get("/").await), left(&other.get("/").await));
    assert_eq!(here, there + 1);
}

#[tokio::test]
async fn hanging_redis_delays_one_request_for_the_timeout() {
    if !redis::is_there() {
        return;
    }
    let redis = Redis::start().await;
    let origin = Origin::start().await;
    // The timeout is long, so that even on a busy machine a request that waits differs clearly from one that
    // does not.
    let gateway = sharing(&origin, &limit(1_000_000, &redis.url(), "store_timeout_ms = 2000\n")).await;
    assert_eq!(gateway.get("/").await.status, 200);
    redis.hang();
    let asked = Instant::now();
    assert_eq!(gateway.get("/").await.status, 200);
    assert!(asked.elapsed() >= Duration::from_secs(2), "it did not wait: {:?}", asked.elapsed());
    assert!(!is_up(&gateway).await);
    let asked = Instant::now();
    for _ in 0..50 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert!(asked.elapsed() < Duration::from_secs(50), "they waited, each for itself: {:?}", asked.elapsed());
    assert_eq!(fallbacks(&gateway, &redis.url(), "too_late").await, 1.0);
    assert_eq!(fallbacks(&gateway, &redis.url(), "away").await, 50.0);
    redis.go_on();
    eventually!(is_up(&gateway).await);
    eventually!((said(&gateway, LOST), said(&gateway, FOUND)) == (1, 2));
}

#[tokio::test]
async fn read_only_redis_is_unused_until_it_accepts_writes() {
    if !redis::is_there() {
        return;
    }
    let redis = Redis::start().await;
    let origin = Origin::start().await;
    let gateway = sharing(&origin, &limit(3, &redis.url(), PATIENT)).await;
    let spoil_and_mend: [[&[&str]; 2]; 2] = [
        [&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]],
        [&["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]],
    ];
    for (n, [spoil, mend]) in spoil_and_mend.into_iter().enumerate() {
        redis.ask(spoil);
        assert_eq!(gateway.get("/").await.status, 200, "{spoil:?}");
        assert!(!is_up(&gateway).await, "{spoil:?}");
        assert_eq!(fallbacks(&gateway, &redis.url(), "failed").await, n as f64 + 1.0);
        redis.ask(mend);
        eventually!(is_up(&gateway).await);
    }
    eventually!(said(&gateway, LOST) == 2);
    // The local window has counted two requests, the store none.
    let answer = gateway.get("/").await;
    assert!(answer.header("ratelimit").starts_with("\"default\";r=2;"), "{answer:?}");
}

#[tokio::test]
async fn a_password_comes_from_the_environment_and_is_shown_nowhere() {
    if !redis::is_there() {
        return;
    }
    let (redis, url) = Redis::start_on_tcp().await;
    let may = ["~gateway:rate:*", "+eval", "+evalsha", "+get", "+pttl", "+set", "+incr"];
    redis.ask(&[&["ACL", "SETUSER", "gate", "on", ">sesame"][..], &may].concat());
    redis.ask(&["CONFIG", "SET", "requirepass", "another"]);
    let origin = Origin::start().await;
    let login = format!("store_user = \"gate\"\nstore_password_env = \"STORE_PASSWORD\"\n{PATIENT}");
    let tables = limit(100, &url, &login);
    let start = |password: &'static str| {
        let file =
            ConfigFile::new(&config(&[origin.address()], Setup { tables: &tables, ..Setup::default() }));
        async move { Gateway::start_from(file, &[("STORE_PASSWORD", password)]).await }
    };
    let right = start("sesame").await;
    right.process.line(FOUND).await;
    assert_eq!(right.get("/").await.status, 200);
    let wrong = start("barley").await;
    wrong.process.line("authentication failed").await;
    assert_eq!(wrong.get("/").await.status, 200);
    assert!(!is_up(&wrong).await);
    for gateway in [&right, &wrong] {
        let shown = [
            gateway.process.output(),
            gateway.read("/config").await.to_string(),
            gateway.monitor("/metrics").await.text(),
        ];
        for shown in shown {
            assert!(!shown.contains("sesame") && !shown.contains("barley"), "{shown}");
        }
    }
    assert_eq!(said(&wrong, "authentication failed"), 1, "the same is not told again");
}

#[tokio::test]
async fn a_password_that_is_not_set_is_a_mistake_with_its_place() {
    let tables = limit(1, "redis://127.0.0.1", "store_password_env = \"STORE_PASSWORD_OF_NOBODY\"\n");
    let backend = "127.0.0.1:1".parse().unwrap();
    let file = ConfigFile::new(&config(&[backend], Setup { tables: &tables, ..Setup::default() }));
    let path = file.path().display().to_string();
    let (code, said) = Process::run(GATEWAY, &["--config", &path], &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(":11:22: the environment variable STORE_PASSWORD_OF_NOBODY is not set"), "{said}");
}

#[tokio::test]
async fn over_tls_a_redis_must_prove_who_it_is() {
    if !redis::is_there() {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (_redis, url) = Redis::start_on_tls(&authority, &authority.issue("localhost")).await;
    let origin = Origin::start().await;
    let tables = |authority: &Authority, url: &str| {
        let ca_file = authority.certificate_file();
        limit(100, url, &format!("store_ca_file = \"{}\"\n{PATIENT}", ca_file.display()))
    };
    let trusting = sharing(&origin, &tables(&authority, &url)).await;
    assert!(trusting.get("/").await.header("ratelimit").starts_with("\"default\";r=99;"));
    assert_eq!(fallbacks(&trusting, &url, "away").await, 0.0);

    let other_name = url.replace("localhost", "127.0.0.1");
    for tables in [tables(&stranger, &url), tables(&authority, &other_name)] {
        let doubting = gateway(&origin, &tables).await;
        doubting.process.line("certificate verify failed").await;
        assert_eq!(doubting.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn replaced_store_ca_file_applies_at_once() {
    if !redis::is_there() {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (_redis, url) = Redis::start_on_tls(&authority, &authority.issue("localhost")).await;
    let (origin, directory) = (Origin::start().await, tempfile::tempdir().unwrap());
    let roots = directory.path().join("roots.pem");
    let replace = |authority: &Authority| {
        std::fs::copy(authority.certificate_file(), directory.path().join("draft")).unwrap();
        std::fs::rename(directory.path().join("draft"), &roots).unwrap();
    };
    replace(&stranger);
    let tables = limit(100, &url, &format!("store_ca_file = \"{}\"\n{PATIENT}", roots.display()));
    let gateway = gateway(&origin, &tables).await;
    gateway.process.line("certificate verify failed").await;
    replace(&authority);
    gateway.process.line(FOUND).await;
    // A certificate that was trusted before is not trusted after the change.
    replace(&stranger);
    eventually!(!is_up(&gateway).await);
    assert_eq!(gateway.get("/").await.status, 200);
}

/// Accepts a connection, counts one request, and then sends data without end.
async fn babble(listener: TcpListener) -> std::io::Error {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut question = [0; 4096];
    assert!(stream.read(&mut question).await.unwrap() > 0);
    stream.write_all(b"*3\r\n:1\r\n:1\r\n:1000\r\n$999999999999\r\n").await.unwrap();
    let babble = vec![b'x'; 64 * 1024];
    // Several times as much as the socket buffers hold.
    for _ in 0..1024 {
        if let Err(error) = stream.write_all(&babble).await {
            return error;
        }
    }
    panic!("the gateway has taken 64 MiB");
}

#[tokio::test]
async fn endless_redis_reply_ends_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let babbling = tokio::spawn(babble(listener));
    let origin = Origin::start().await;
    let gateway = gateway(&origin, &limit(100, &url, PATIENT)).await;
    babbling.await.unwrap();
    eventually!(!is_up(&gateway).await);
    let answer = gateway.get("/").await;
    assert!(answer.header("ratelimit").starts_with("\"default\";r=99;"), "it counts by itself: {answer:?}");
}

#[tokio::test]
async fn a_store_comes_and_goes_with_the_configuration() {
    if !redis::is_there() {
        return;
    }
    let redis = Redis::start().await;
    let origin = Origin::start().await;
    let config = |tables: &str| config(&[origin.address()], Setup { tables, ..Setup::default() });
    let gateway = gateway(&origin, "[rate_limit]\nrequests = 7\n").await;
    gateway.edit(&config(&limit(100, &redis.url(), PATIENT)));
    eventually!(said(&gateway, FOUND) == 1);
    assert!(gateway.get("/").await.header("ratelimit").starts_with("\"default\";r=99;"));
    // A change of other values must keep the connection to the store.
    gateway.edit(&config(&limit(200, &redis.url(), PATIENT)));
    eventually!(gateway.get("/").await.header("ratelimit-policy") == "\"default\";q=200;w=3600");
    assert_eq!(said(&gateway, FOUND), 1);
    gateway.edit(&config("[rate_limit]\nrequests = 7\n"));
    eventually!(!gateway.monitor("/metrics").await.text().contains("proxy_rate_limit_store_up{"));
    assert_eq!((gateway.get("/").await.status, said(&gateway, LOST)), (http::StatusCode::OK, 0));
}

#[tokio::test]
async fn a_gateway_that_stops_does_not_wait_for_its_store() {
    if !redis::is_there() {
        return;
    }
    let redis = Redis::start().await;
    let origin = Origin::start().await;
    let mut gateway = sharing(&origin, &limit(100, &redis.url(), PATIENT)).await;
    assert_eq!(gateway.get("/").await.status, 200);
    redis.hang();
    gateway.process.signal(Signal::SIGTERM);
    assert!(gateway.process.ended(DEADLINE).await.success());
    assert_eq!(said(&gateway, LOST), 0);
}
