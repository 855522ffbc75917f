//! Checks that a reload moves new requests, does not change those in flight, and happens as a whole or not at
//! all.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use async_trait::async_trait;
use ex0411::{Config, Reloadable};
use http::Request;
use pingora::http::ResponseHeader;
use pingora::prelude::*;
use testkit::{Client, Origin, eventually, expect, serve};

/// Proxy that is shared with the test. The test reloads it while it serves.
struct Shared(Arc<Reloadable>);

#[async_trait]
impl ProxyHttp for Shared {
    type CTX = <Reloadable as ProxyHttp>::CTX;
    fn new_ctx(&self) -> Self::CTX {
        self.0.new_ctx()
    }
    /// Reloads at the worst moment: when the request has begun, and has no upstream yet.
    async fn request_filter(&self, session: &mut Session, _ctx: &mut Self::CTX) -> Result<bool> {
        if let Some(text) = session.get_header("X-Reload").and_then(|text| text.to_str().ok()) {
            let reloaded = self.0.reload(&text.replace(';', "\n"));
            expect!(reloaded, Ok(()), "a reload between two phases of a request");
        }
        Ok(false)
    }
    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        self.0.upstream_peer(session, ctx).await
    }
    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        self.0.response_filter(session, response, ctx).await
    }
}

fn started(origin: &Origin) -> Arc<Reloadable> {
    Arc::new(Reloadable::new(Config { name: "first".to_owned(), upstream: origin.address() }))
}

fn second(origin: &Origin) -> String {
    format!("name = \"second\"\nupstream = \"{}\"\n", origin.address())
}

#[tokio::test]
async fn a_reload_moves_new_requests() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let live = started(&a);
    let proxy = serve(Shared(live.clone()));
    let client = Client::new();
    expect!(client.get(proxy.url("/")).await.header("x-config"), "first", "X-Config before the reload");
    expect!(live.reload(&second(&b)), Ok(()), "a reload with a good text");
    let answer = client.get(proxy.url("/")).await;
    expect!(answer.header("x-origin"), b.label(), "the upstream that answers after the reload");
    expect!(answer.header("x-config"), "second", "X-Config after the reload");
}

#[tokio::test]
async fn a_request_in_flight_keeps_its_configuration() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let live = started(&a);
    let proxy = serve(Shared(live.clone()));
    let url = proxy.url("/delay/500");
    let in_flight = tokio::spawn(async move { Client::new().get(url).await });
    eventually!(a.count("/delay/500") == 1);
    expect!(live.reload(&second(&b)), Ok(()), "a reload while a request waits for its upstream");
    let answer = in_flight.await.unwrap();
    expect!(answer.header("x-origin"), a.label(), "the upstream of the request that began before the reload");
    expect!(answer.header("x-config"), "first", "X-Config of the request that began before the reload");
}

#[tokio::test]
async fn a_request_sees_one_configuration_in_all_its_phases() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let live = started(&a);
    expect!(live.reload(&second(&b)), Ok(()), "a reload with a good text");
    let proxy = serve(Shared(live.clone()));
    let third = format!("name = \"third\";upstream = \"{}\"", a.address());
    let request = Request::get(proxy.url("/")).header("X-Reload", third).body(Default::default()).unwrap();
    let answer = Client::new().send(request).await;
    expect!(answer.header("x-origin"), b.label(), "the upstream of a request that began before a reload");
    expect!(answer.header("x-config"), "second", "X-Config of a request that began before a reload");
}

#[tokio::test]
async fn a_bad_text_changes_nothing() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let live = started(&a);
    let proxy = serve(Shared(live.clone()));
    expect!(live.reload(&second(&b)), Ok(()), "a reload with a good text");
    for bad in ["name = \"third\"", "name = \"third\"\nupstream = \"nowhere\"", "upstream ="] {
        let reloaded = catch_unwind(AssertUnwindSafe(|| live.reload(bad)));
        let refused =
            reloaded.map_or("a panic", |result| if result.is_err() { "refused" } else { "accepted" });
        expect!(refused, "refused", "a reload with the text {bad:?}");
    }
    let answer = Client::new().get(proxy.url("/")).await;
    expect!(answer.header("x-config"), "second", "X-Config after three reloads that were refused");
    expect!(answer.header("x-origin"), b.label(), "the upstream after three reloads that were refused");
}
