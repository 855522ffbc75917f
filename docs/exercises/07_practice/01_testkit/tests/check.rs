//! Checks that the learner's test accepts a right proxy, and finds every wrong one.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use ex0701::check;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::*;
use testkit::{Origin, expect, serve};

/// Mistake of a proxy under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    ForwardsElsewhere,
    AnswersItself,
    LosesTheMethod,
    AddsNoId,
    AddsTheSameId,
    KeepsTheClientsId,
    ForwardsInternalPaths,
    ForwardsBelowInternal,
    HidesADeadUpstream,
}

/// Proxy that keeps all promises but one.
struct Proxy {
    upstream: std::net::SocketAddr,
    mistake: Mistake,
    ids: AtomicUsize,
}

impl Proxy {
    async fn answer(&self, session: &mut Session, status: u16) -> Result<bool> {
        let mut response = ResponseHeader::build(status, None)?;
        response.insert_header("Content-Length", "0")?;
        session.write_response_header(Box::new(response), true).await?;
        Ok(true)
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, _ctx: &mut ()) -> Result<bool> {
        if self.mistake == Mistake::AnswersItself {
            while session.read_request_body().await?.is_some() {}
            return self.answer(session, 200).await;
        }
        let path = session.req_header().uri.path();
        let is_internal = match self.mistake {
            Mistake::ForwardsInternalPaths => false,
            Mistake::ForwardsBelowInternal => path == "/internal",
            _ => path == "/internal" || path.starts_with("/internal/"),
        };
        if is_internal { self.answer(session, 404).await } else { Ok(false) }
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        match self.mistake {
            Mistake::ForwardsElsewhere => request.set_uri(http::Uri::from_static("/anything")),
            Mistake::LosesTheMethod => request.set_method(http::Method::PUT),
            _ => {}
        }
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        match self.mistake {
            Mistake::AddsNoId => {
                request.remove_header("x-request-id");
                Ok(())
            }
            Mistake::AddsTheSameId => request.insert_header("x-request-id", "id"),
            Mistake::KeepsTheClientsId if request.headers.contains_key("x-request-id") => Ok(()),
            _ => request.insert_header("x-request-id", format!("id-{id}")),
        }
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        _ctx: &mut (),
        error: Box<Error>,
    ) -> Box<Error> {
        let hides = self.mistake == Mistake::HidesADeadUpstream;
        if hides { Error::explain(HTTPStatus(404), "hidden") } else { error }
    }
}

async fn verdict(mistake: Mistake) -> Result<(), String> {
    let mut origin = Origin::start().await;
    let proxy = serve(Proxy { upstream: origin.address(), mistake, ids: AtomicUsize::new(0) });
    check(&mut origin, &proxy).await
}

#[tokio::test]
async fn right_proxy_passes_the_test() {
    for turn in 1..=3 {
        expect!(
            verdict(Mistake::None).await,
            Ok(()),
            "your test with a proxy that keeps all promises, in turn {turn}"
        );
    }
}

#[tokio::test]
async fn wrong_proxies_fail_the_test() {
    expect!(verdict(Mistake::None).await, Ok(()), "your test with a proxy that keeps all promises");
    for (mistake, what) in [
        (Mistake::AnswersItself, "answers 200 itself"),
        (Mistake::ForwardsElsewhere, "sends every request to another path"),
        (Mistake::LosesTheMethod, "changes the method"),
        (Mistake::AddsNoId, "adds no X-Request-Id"),
        (Mistake::AddsTheSameId, "adds the same X-Request-Id to every request"),
        (Mistake::KeepsTheClientsId, "keeps the X-Request-Id of the client"),
        (Mistake::ForwardsInternalPaths, "forwards internal paths"),
        (Mistake::ForwardsBelowInternal, "forwards paths below /internal"),
        (Mistake::HidesADeadUpstream, "answers 404 when the upstream is down"),
    ] {
        expect!(verdict(mistake).await.is_err(), true, "whether your test finds a proxy that {what}");
    }
}
