//! A server of HTTP/1.1 and HTTP/2 on all cores, over TLS where it is given a certificate:
//! `cargo run --example https_server [ADDRESS [CERTIFICATE.pem KEY.pem]]`, then
//! `curl --http2-prior-knowledge http://127.0.0.1:8080/` or `curl --cacert CERTIFICATE.pem https://localhost:8080/`.

use std::error::Error;
use std::io;

use http::StatusCode;
use ringport::http::{Exchange, ExchangeError, Server};
use ringport::proto::http1::BodyLen;
use ringport::runtime::native::{Native, NativeSpec};
use ringport::spec::{HttpServerSpec, Identity, ListenSpec, Pem, TlsServerSpec};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let mut listen = ListenSpec::builder(format!("tcp://{address}").parse()?);
    if let (Some(cert), Some(key)) = (args.next(), args.next()) {
        let identity = Identity { cert: Pem::File(cert.into()), key: Pem::File(key.into()) };
        listen = listen.tls(TlsServerSpec::builder(identity).build()?);
    }
    let spec = HttpServerSpec::builder(listen.build()?).build()?;

    let cores = std::thread::available_parallelism()?.get();
    let parts = Server::<Native>::open(&spec, cores)?;
    println!("listening on {}", parts[0].local_addr());
    // Each core takes its part; the kernel spreads the connections over them.
    let parts = std::sync::Mutex::new(parts);
    let running = NativeSpec::from_env()?.launch(cores, move |runtime, core| {
        let part = parts.lock().expect("nobody panics").pop().expect("a part for each core");
        async move {
            let server = Server::new(part, &runtime).map_err(io::Error::other)?;
            let handle = server.handle();
            runtime.core().spawn_detached(async move {
                core.drain.wait().await;
                handle.drain();
            });
            server.serve(answer).await.map_err(io::Error::other)
        }
    })?;
    running.join().into_iter().try_for_each(|core| core.result.map(drop))?;
    Ok(())
}

/// `/echo` sends the body back as it comes, anything else is greeted.
async fn answer(mut request: Exchange) -> Result<(), ExchangeError> {
    if request.head().path() != "/echo" {
        let body = format!("Hello, {}!\n", request.head().path().trim_start_matches('/'));
        return request.respond(StatusCode::OK, [("content-type", &b"text/plain"[..])], body);
    }
    request.send_head(StatusCode::OK, [], BodyLen::Chunked)?;
    while let Some(data) = request.recv().await? {
        request.send(data).await?;
    }
    request.finish()
}
