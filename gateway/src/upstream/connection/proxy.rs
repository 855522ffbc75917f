//! Pingora's proxy with a custom connector. Pingora builds such a proxy only inside one of its services, and returns
//! only a reference to the proxy. The gateway's listeners need the proxy itself, so it is moved out of the service.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use pingora::apps::HttpServerOptions;
use pingora::proxy::{HttpProxy, ProcessCustomSession, ProxyHttp, ProxyServiceBuilder};
use pingora::server::configuration::ServerConf;

use super::BackendConnector;

/// Returns a proxy that runs the phases of `phases`, and connects to backends with `connector`.
pub fn http_proxy<P>(
    conf: &Arc<ServerConf>,
    phases: P,
    connector: BackendConnector,
    options: HttpServerOptions,
) -> HttpProxy<P, BackendConnector>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync + 'static,
{
    // Clients speak HTTP, not a custom protocol.
    let on_custom: ProcessCustomSession<P, BackendConnector> = Arc::new(|_, _, _| Box::pin(async { None }));
    let builder = ProxyServiceBuilder::new(conf, phases).custom(connector, on_custom).server_options(options);
    let service = ManuallyDrop::new(builder.build());
    #[expect(
        clippy::expect_used,
        reason = "a service has its proxy until it is started, which this one never is"
    )]
    let proxy = service.app_logic().expect("the proxy of a service that has not started");
    // SAFETY: `proxy` points to a valid value that is owned by `service`. The service is neither used nor dropped after
    // this, so the value has one owner: it is moved, not copied.
    unsafe { std::ptr::read(proxy) }
}
