//! Checks that an upstream that stalls soon gives 504, that a dead one gives 502, and that a healthy one is
//! not disturbed.

use std::net::SocketAddr;
use std::time::Duration;

use ex0103::Timeouts;
use pingora::ErrorType::{ConnectTimedout, ReadTimedout, WriteTimedout};
use testkit::{Behaviour, Client, Origin, expect, serve};

/// Returns the status of GET / through the proxy, or the error.
async fn status(upstream: SocketAddr) -> Result<u16, String> {
    let proxy = serve(Timeouts { upstream });
    Client::new().status(proxy.url("/")).await
}

#[tokio::test]
async fn an_upstream_that_is_well_is_not_disturbed() {
    let origin = Origin::start().await;
    expect!(status(origin.address()).await, Ok(200), "GET / of an upstream that answers");
}

#[tokio::test]
async fn an_upstream_that_stalls_is_a_504() {
    let origin = Origin::start().await;
    origin.behave(Behaviour::Stall);
    expect!(
        status(origin.address()).await,
        Ok(504),
        "GET / of an upstream that accepts requests and never responds"
    );
}

#[tokio::test]
async fn an_upstream_that_is_dead_stays_a_502() {
    let origin = Origin::dead();
    let peer = Timeouts { upstream: origin.address() }.peer();
    expect!(peer.is_ok(), true, "peer() returns a peer");
    expect!(status(origin.address()).await, Ok(502), "GET / of an upstream that refuses connections");
}

#[test]
fn each_kind_of_timeout_is_a_504() {
    for kind in [ConnectTimedout, ReadTimedout, WriteTimedout] {
        let what = format!("the status of {kind:?}");
        expect!(ex0103::status(&pingora::Error::new(kind)), 504, "{what}");
    }
}

#[tokio::test]
async fn every_timeout_is_under_a_second() {
    let peer = Timeouts { upstream: SocketAddr::from(([127, 0, 0, 1], 1)) }.peer();
    let options = peer.map(|peer| peer.options).map_err(|error| error.to_string());
    let short = |timeout: fn(&pingora::upstreams::peer::PeerOptions) -> Option<Duration>| {
        options
            .as_ref()
            .map(timeout)
            .map(|timeout| timeout.is_some_and(|timeout| timeout < Duration::from_secs(1)))
    };
    expect!(short(|options| options.connection_timeout), Ok(true), "connection_timeout is under a second");
    expect!(short(|options| options.read_timeout), Ok(true), "read_timeout is under a second");
    expect!(short(|options| options.write_timeout), Ok(true), "write_timeout is under a second");
}
