//! pingora's reverse proxy on one thread, as its documentation builds one.
//!
//!     serve-pingora proxy ADDRESS --origin ADDRESS

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora_core::Result;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

struct ToOrigin(SocketAddr);

#[async_trait]
impl ProxyHttp for ToOrigin {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, work, address, option, origin] = arguments.as_slice() else {
        panic!("usage: serve-pingora proxy ADDRESS --origin ADDRESS");
    };
    assert_eq!((work.as_str(), option.as_str()), ("proxy", "--origin"), "it does nothing else");
    let origin = origin.parse().unwrap_or_else(|_| panic!("{origin:?} is no address"));
    // One worker needs nobody to take its tasks.
    let conf = ServerConf {
        threads: 1,
        work_stealing: false,
        upstream_keepalive_pool_size: 1024,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, ToOrigin(origin));
    service.add_tcp(address);
    server.add_service(service);
    server.run_forever();
}
