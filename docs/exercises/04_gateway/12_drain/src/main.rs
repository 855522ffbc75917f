//! Program of the exercise. It listens on `LISTEN_ADDR`, and forwards every request to the upstream that is
//! its only argument.

use ex0412::{Draining, conf};
use pingora::prelude::*;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let upstream = std::env::args()
        .nth(1)
        .ok_or("no upstream given; expected one IP:PORT, as in: ex0412 127.0.0.1:3001")?
        .parse()?;
    let mut server = Server::new_with_opt_and_conf(None, conf());
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Draining { upstream });
    proxy.add_tcp(&std::env::var("LISTEN_ADDR").unwrap_or_else(|_| "127.0.0.1:6188".to_owned()));
    server.add_service(proxy);
    server.run_forever()
}
