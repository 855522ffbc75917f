//! Backends by name: DNS changes its answers, fails, and recovers.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use testkit::{Dns, Failure, Fault, Faulty, Process, Service, eventually};

use super::client::{Ask, ask};
use super::harness::{LIMIT, PROXY, report};
use super::scenes::{EITHER, scene};
use super::{OTHER, SOUND};
use crate::support::{ConfigFile, GATEWAY, Gateway};

const NAME: &str = "web.test";

/// Time for several lookups. The gateway retries a failed lookup after one, two and four seconds, and a silent
/// server costs a timeout.
const SOME_ROUNDS: Duration = Duration::from_secs(30);

/// Starts a gateway with one backend, whose configured address is `address`.
async fn gateway(dns: &Dns, address: &str) -> Gateway {
    gateway_asking(&dns.address().to_string(), address).await
}

async fn gateway_asking(servers: &str, address: &str) -> Gateway {
    Gateway::start_with_config(&config(servers, address)).await
}

fn config(servers: &str, address: &str) -> String {
    format!(
        "[proxy]\nlisten_addr_http = \"127.0.0.1:0\"\nmanagement_api_addr = \"127.0.0.1:0\"\n{PROXY}\
         nameservers = [\"{servers}\"]\n[metrics]\nlisten_addr = \"127.0.0.1:0\"\n[health_check]\nenabled = false\n\
         [logging]\naccess_log = false\n[[virtual_hosts]]\ndomain = \"*\"\nenabled_backends_tag = \"all\"\n\
         [[backends]]\nid = \"named\"\naddress = \"{address}\"\ntags = [\"all\"]\n"
    )
}

fn ip(faulty: &Faulty) -> IpAddr {
    faulty.address().ip()
}

/// Waits for `times` more lookups of the name with this result.
async fn looks_up(gateway: &Gateway, result: &str, times: f64) {
    let series = format!("proxy_dns_lookups_total{{result=\"{result}\"}}");
    let before = gateway.metric(&series).await;
    eventually!(within SOME_ROUNDS, gateway.metric(&series).await >= before + times);
}

/// Sends requests until one reaches `backend`, which happens some time after the DNS change. Every request must
/// succeed meanwhile.
async fn is_found(gateway: &Gateway, backend: &Faulty) {
    let before = backend.seen("GET", "/found");
    eventually!(within SOME_ROUNDS, {
        assert_eq!(ask(gateway.address, Ask::get("/found"), LIMIT).await, "200");
        backend.seen("GET", "/found") > before
    });
}

/// Sends requests until ten in a row do not reach `backend`.
async fn is_left(gateway: &Gateway, backend: &Faulty) {
    eventually!(within SOME_ROUNDS, {
        let before = backend.seen("GET", "/left");
        for _ in 0..10 {
            assert_eq!(ask(gateway.address, Ask::get("/left"), LIMIT).await, "200");
        }
        backend.seen("GET", "/left") == before
    });
}

#[tokio::test]
async fn backend_name_changes_its_address() {
    let (dns, [a, b]) = (Dns::start().await, Faulty::twins().await);
    dns.addresses(NAME, 1, &[ip(&a)]);
    let gateway = gateway(&dns, &format!("{NAME}:{}", a.address().port())).await;
    let mut tried = vec![scene("a name leads to the one", &gateway, [&a, &b], [SOUND; 3]).await];

    dns.addresses(NAME, 1, &[ip(&a), ip(&b)]);
    is_found(&gateway, &b).await;
    tried.push(scene("then to both", &gateway, [&a, &b], [EITHER; 3]).await);
    is_found(&gateway, &a).await;
    is_found(&gateway, &b).await;

    dns.addresses(NAME, 1, &[ip(&b)]);
    is_left(&gateway, &a).await;
    tried.push(scene("then to the other", &gateway, [&a, &b], [OTHER; 3]).await);
    report(&tried);
}

#[tokio::test]
async fn a_name_that_vanishes_and_returns() {
    let scenes = async |what: &str, failure| {
        let (dns, [a, b]) = (Dns::start().await, Faulty::twins().await);
        dns.addresses(NAME, 1, &[ip(&a)]);
        let gateway = gateway(&dns, &format!("{NAME}:{}", a.address().port())).await;
        dns.fail(NAME, failure);
        looks_up(&gateway, "failed", 1.0).await;
        let gone = scene(&format!("a name vanishes ({what})"), &gateway, [&a, &b], [SOUND; 3]).await;
        dns.addresses(NAME, 1, &[ip(&b)]);
        is_found(&gateway, &b).await;
        [gone, scene("it returns elsewhere", &gateway, [&a, &b], [OTHER; 3]).await]
    };
    let (not_found, failed, silent) = futures::join!(
        scenes("NXDOMAIN", Failure::NotFound),
        scenes("SERVFAIL", Failure::ServerFailure),
        scenes("no answer", Failure::Silence)
    );
    report(&[not_found, failed, silent].into_iter().flatten().collect::<Vec<_>>());
}

const SERVICE: &str = "_http._tcp.test";

/// Returns an SRV record for `faulty`. A lower `priority` is preferred.
fn place<'a>(faulty: &Faulty, target: &'a str, priority: u16) -> Service<'a> {
    Service { priority, weight: 1, port: faulty.address().port(), target }
}

/// Starts a DNS server that knows the hosts of the service, and two backends on these hosts.
async fn service() -> (Dns, Faulty, Faulty) {
    let dns = Dns::start().await;
    for host in ["a.test", "b.test"] {
        dns.addresses(host, 1, &[Ipv4Addr::LOCALHOST.into()]);
    }
    (dns, Faulty::start(Fault::None).await, Faulty::start(Fault::None).await)
}

#[tokio::test]
async fn a_service_that_moves_vanishes_and_returns() {
    let (dns, a, b) = service().await;
    dns.services(SERVICE, 1, &[place(&a, "a.test", 0)]);
    let gateway = gateway(&dns, &format!("srv:{SERVICE}")).await;
    let mut tried = vec![scene("a service is in the one place", &gateway, [&a, &b], [SOUND; 3]).await];

    dns.services(SERVICE, 1, &[place(&a, "a.test", 0), place(&b, "b.test", 0)]);
    is_found(&gateway, &b).await;
    tried.push(scene("then in both", &gateway, [&a, &b], [EITHER; 3]).await);

    dns.services(SERVICE, 1, &[place(&b, "b.test", 0)]);
    is_left(&gateway, &a).await;
    tried.push(scene("then in the other", &gateway, [&a, &b], [OTHER; 3]).await);

    dns.fail(SERVICE, Failure::NotFound);
    looks_up(&gateway, "failed", 1.0).await;
    tried.push(scene("it vanishes (NXDOMAIN)", &gateway, [&a, &b], [OTHER; 3]).await);

    dns.services(SERVICE, 1, &[place(&a, "a.test", 0)]);
    is_found(&gateway, &a).await;
    is_left(&gateway, &b).await;
    tried.push(scene("it returns in the one place", &gateway, [&a, &b], [SOUND; 3]).await);
    report(&tried);
}

#[tokio::test]
async fn srv_service_with_one_unresolvable_host() {
    let (dns, a, b) = service().await;
    dns.services(SERVICE, 1, &[place(&a, "a.test", 0), place(&b, "b.test", 1)]);
    let gateway = gateway(&dns, &format!("srv:{SERVICE}")).await;
    let mut tried = vec![scene("of two places one comes first", &gateway, [&a, &b], [SOUND; 3]).await];

    // The first lookup may have been under way, the second one sees the failure, and the third one shows that
    // the gateway has handled it.
    dns.fail("a.test", Failure::ServerFailure);
    looks_up(&gateway, "answered", 3.0).await;
    tried.push(scene("its host cannot be looked up (SERVFAIL)", &gateway, [&a, &b], [SOUND; 3]).await);
    report(&tried);
}

#[tokio::test]
async fn failing_dns_server_falls_back_to_the_other() {
    let (bad, good, backend) = (Dns::start().await, Dns::start().await, Faulty::start(Fault::None).await);
    bad.fail(NAME, Failure::ServerFailure);
    good.addresses(NAME, 1, &[ip(&backend)]);
    for servers in [[&bad, &good], [&good, &bad]] {
        let servers = servers.map(|server| server.address().to_string()).join("\", \"");
        let gateway = gateway_asking(&servers, &format!("{NAME}:{}", backend.address().port())).await;
        looks_up(&gateway, "answered", 2.0).await;
        assert_eq!(ask(gateway.address, Ask::get("/"), LIMIT).await, "200");
        assert_eq!(gateway.metric("proxy_dns_lookups_total{result=\"failed\"}").await, 0.0);
    }
}

#[tokio::test]
async fn names_with_underscores_resolve() {
    let (dns, backend) = (Dns::start().await, Faulty::start(Fault::None).await);
    dns.addresses("shop_web_1", 1, &[ip(&backend)]);
    dns.services("_http._tcp.my_app.test", 1, &[place(&backend, "shop_web_1", 0)]);
    for address in [&format!("shop_web_1:{}", backend.address().port()), "srv:_http._tcp.my_app.test"] {
        let gateway = gateway(&dns, address).await;
        assert_eq!(ask(gateway.address, Ask::get("/"), LIMIT).await, "200", "{address}");
    }
    // A target of "." means that the service is not available (RFC 2782).
    dns.services("_http._tcp.my_app.test", 1, &[place(&backend, ".", 0)]);
    let file = ConfigFile::new(&config(&dns.address().to_string(), "srv:_http._tcp.my_app.test"));
    let (code, said) = Process::run(GATEWAY, &["-c", &file.path().display().to_string()], &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("address of backend 'named': the name has no address"), "{said}");
}

#[tokio::test]
async fn dns_servers_without_edns_are_supported() {
    for (code, answer) in [(1, "FORMERR"), (4, "NOTIMP")] {
        let (dns, backend) = (Dns::start().await, Faulty::start(Fault::None).await);
        dns.addresses(NAME, 1, &[ip(&backend)]);
        dns.refuse_edns(code);
        let gateway = gateway(&dns, &format!("{NAME}:{}", backend.address().port())).await;
        assert_eq!(ask(gateway.address, Ask::get("/"), LIMIT).await, "200", "{answer}");
        gateway.process.line(&format!("answered with {answer}: further queries to it go without EDNS")).await;
        looks_up(&gateway, "answered", 2.0).await;
        assert_eq!(gateway.metric("proxy_dns_lookups_total{result=\"failed\"}").await, 0.0);
    }
}

#[tokio::test]
async fn a_start_while_dns_is_down() {
    let (dns, backend) = (Dns::start().await, Faulty::start(Fault::None).await);
    dns.fail(NAME, Failure::ServerFailure);
    let gateway = gateway(&dns, &format!("{NAME}:{}", backend.address().port())).await;
    gateway.process.line("cannot be looked up yet").await;
    assert!(ask(gateway.address, Ask::get("/"), LIMIT).await.starts_with("503 destination_unavailable"));
    dns.addresses(NAME, 1, &[ip(&backend)]);
    eventually!(within SOME_ROUNDS, ask(gateway.address, Ask::get("/"), LIMIT).await == "200");
}
