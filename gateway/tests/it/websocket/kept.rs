//! WebSockets after ordinary requests. The gateway then has idle connections to the backend, on which no tunnel
//! can start.

use testkit::tls::Authority;
use testkit::{Behaviour, Origin, eventually};

use super::{connect, echoed};
use crate::support::{Gateway, Setup};

/// Opens WebSockets on `gateway`, each after ordinary requests to every backend.
async fn alternate(gateway: &Gateway, backends: usize, rounds: usize) {
    for _ in 0..rounds {
        for _ in 0..backends {
            assert_eq!(gateway.get("/anything").await.status, 200);
        }
        let mut socket = connect(gateway).await;
        echoed(&mut socket, "hello".into()).await;
        socket.close(None).await.unwrap();
    }
    eventually!(gateway.metric("proxy_websockets_active").await == 0.0);
    eventually!(gateway.metric("proxy_requests_active").await == 0.0);
}

#[tokio::test]
async fn websocket_opens_after_requests_for_every_balancing() {
    let origins = [Origin::start().await, Origin::start().await];
    let both = [&origins[0], &origins[1]];
    for (backends, tables) in [
        (&both[..1], ""),
        (&both[..], ""),
        (&both[..], "[balancing]\nsticky_cookie = \"at\"\n"),
        (&both[..], "[balancing]\nalgorithm = \"least_connections\"\n"),
        (&both[..1], "[upstream]\nidle_timeout_secs = 1\n"),
    ] {
        let tables = format!("[health_check]\nenabled = false\n{tables}");
        let gateway = Gateway::start(backends, Setup { tables: &tables, ..Setup::default() }).await;
        alternate(&gateway, backends.len(), 10).await;
    }
}

#[tokio::test]
async fn a_socket_opens_behind_ordinary_requests_to_a_backend_of_tls() {
    let authority = Authority::new();
    let origin = Origin::start_tls(&authority.issue("web.test")).await;
    for protocol in ["http1", "auto"] {
        let tables = format!(
            "[health_check]\nenabled = false\n[upstream]\ntls = true\nsni = \"web.test\"\nprotocol = \"{protocol}\"\n\
             ca_file = \"{}\"\n",
            authority.certificate_file().display()
        );
        let gateway = Gateway::start(&[&origin], Setup { tables: &tables, ..Setup::default() }).await;
        alternate(&gateway, 1, 10).await;
    }
}

#[tokio::test]
async fn websocket_opens_on_the_second_attempt() {
    let (failing, origin) = (Origin::start().await, Origin::start().await);
    let tables = "[health_check]\nenabled = false\n[circuit_breaker]\nenabled = false\n";
    let gateway = Gateway::start(&[&failing, &origin], Setup { tables, ..Setup::default() }).await;
    for _ in 0..4 {
        assert_eq!(gateway.get("/anything").await.status, 200);
    }
    failing.behave(Behaviour::Reset);
    for _ in 0..4 {
        let mut socket = connect(&gateway).await;
        echoed(&mut socket, "hello".into()).await;
    }
    assert!(failing.count("/ws") > 0, "it was asked");
}
