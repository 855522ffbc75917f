//! Small gateway: reads the file that its only argument names, and serves what the file says.

use std::error::Error;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use ex0505::config::Config;
use ex0505::drain::Drain;
use ex0505::health::HealthChecker;
use ex0505::live::Live;
use ex0505::proxy::Gateway;
use ex0505::reload::Reloader;
use ex0505::telemetry::{MetricsPage, Telemetry};
use pingora::apps::http_app::HttpServer;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;
use pingora::services::listening::Service;

fn main() -> std::result::Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().json().init();
    let file = PathBuf::from(std::env::args().nth(1).ok_or("expected one file, as in: ex0505 gateway.toml")?);
    let config = Config::parse(&std::fs::read_to_string(&file)?).map_err(|faults| faults.join("\n"))?;
    let [clients, metrics] =
        [config.proxy.listen_addr_http, config.proxy.metrics_addr].map(|it| it.to_string());
    for address in [&clients, &metrics] {
        // Pingora would end only the one service that cannot bind, and the process would be deaf.
        TcpListener::bind(address).map_err(|error| format!("cannot bind {address}: {error}"))?;
    }
    let grace_period_seconds = Some(config.proxy.shutdown_timeout_secs);
    let conf = ServerConf { grace_period_seconds, ..Default::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();

    let (live, telemetry) = (Arc::new(Live::new(config)), Arc::new(Telemetry::new()?));
    let gateway = Gateway::new(live.clone(), telemetry.clone());
    let mut proxy = http_proxy_service(&server.configuration, gateway);
    proxy.add_tcp(&clients);
    server.add_service(proxy);
    let mut page = Service::new("metrics".to_owned(), HttpServer::new_app(MetricsPage(telemetry.clone())));
    page.add_tcp(&metrics);
    server.add_service(page);
    server.add_service(background_service("health checks", HealthChecker(live.clone())));
    server.add_service(background_service("reload", Reloader { live, file }));
    server.add_service(background_service("drain", Drain(telemetry)));
    server.run_forever()
}
