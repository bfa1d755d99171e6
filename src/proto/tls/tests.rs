//! Both roles against themselves and against rustls's buffered API, which is the oracle: what the two do with the same bytes
//! has to be the same, in both versions and however the bytes are cut.

mod conversation;
mod faults;
mod hello;
mod limits;
mod oracle;
mod raw_peer;
mod resumption;

use std::sync::Arc;

use ringport_platform::buf::{Pool, PoolBuf, PoolSpec, RxQueue, TxQueue};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use self::oracle::BufferedCodec;
use super::{Provider, RustlsCodec, TlsCodec, TlsError, TlsLimits, TlsPhase};
use crate::pki::{Authority, Identity};

const TLS12: &SupportedProtocolVersion = &rustls::version::TLS12;
const TLS13: &SupportedProtocolVersion = &rustls::version::TLS13;
const VERSIONS: [&SupportedProtocolVersion; 2] = [TLS12, TLS13];
const NAME: &str = "server.test";

/// A configuration of each side, made to be changed.
#[derive(Clone)]
struct Configs {
    client: ClientConfig,
    server: ServerConfig,
}

fn configs(versions: &[&'static SupportedProtocolVersion]) -> Configs {
    let authority = Authority::new("test authority");
    configs_with(versions, &authority, &authority.issue(&[NAME]))
}

fn configs_with(
    versions: &[&'static SupportedProtocolVersion],
    trusted: &Authority,
    identity: &Identity,
) -> Configs {
    let crypto = Arc::new(Provider::default().crypto());
    let client = ClientConfig::builder_with_provider(crypto.clone())
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots(trusted))
        .with_no_client_auth();
    let (chain, key) = parsed(identity);
    let server = ServerConfig::builder_with_provider(crypto)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    Configs { client, server }
}

fn roots(authority: &Authority) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.cert.as_bytes()).expect("PEM")).expect("a root");
    Arc::new(roots)
}

fn parsed(identity: &Identity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(identity.cert.as_bytes()).map(|cert| cert.expect("PEM"));
    (chain.collect(), PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("PEM"))
}

fn name() -> ServerName<'static> {
    NAME.try_into().expect("a name")
}

/// Which API a side is on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Api {
    Ours,
    Buffered,
}

impl Configs {
    fn client(&self, api: Api) -> Box<dyn TlsCodec> {
        let config = Arc::new(self.client.clone());
        match api {
            Api::Ours => {
                Box::new(RustlsCodec::client(config, name(), TlsLimits::default()).expect("in order"))
            }
            Api::Buffered => Box::new(BufferedCodec::client(config, name())),
        }
    }

    fn server(&self, api: Api) -> Box<dyn TlsCodec> {
        let config = Arc::new(self.server.clone());
        match api {
            Api::Ours => Box::new(RustlsCodec::server(config, TlsLimits::default()).expect("in order")),
            Api::Buffered => Box::new(BufferedCodec::server(config)),
        }
    }

    fn ours(&self) -> (End, End) {
        (End::new(self.client(Api::Ours)), End::new(self.server(Api::Ours)))
    }
}

/// A side with its queues.
struct End {
    codec: Box<dyn TlsCodec>,
    input: RxQueue,
    plain: RxQueue,
    output: TxQueue,
    /// What its first failure said.
    error: Option<TlsError>,
}

impl End {
    fn new(codec: Box<dyn TlsCodec>) -> Self {
        End { codec, input: RxQueue::new(), plain: RxQueue::new(), output: tx(), error: None }
    }

    /// Gives it bytes, in pieces that do not follow each other in memory.
    fn receive(&mut self, bytes: &[u8]) {
        self.input.push(PoolBuf::copied(bytes));
        self.read();
    }

    fn read(&mut self) {
        let read = self.codec.read(&mut self.input, &mut self.plain, usize::MAX, &mut self.output);
        self.note(read.map(drop));
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut plain = tx();
        plain.push(bytes.to_vec());
        let written = self.codec.write(&mut plain, &mut self.output);
        assert!(plain.is_empty() || written.is_err(), "not taken");
        self.note(written);
    }

    fn close(&mut self) {
        let closed = self.codec.close(&mut self.output);
        self.note(closed);
    }

    fn note(&mut self, result: Result<(), TlsError>) {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }

    fn sent(&mut self) -> Vec<u8> {
        let bytes = self.output.slices().collect::<Vec<_>>().concat();
        self.output.clear();
        bytes
    }

    fn received(&mut self) -> Vec<u8> {
        let bytes = self.plain.parts().collect::<Vec<_>>().concat();
        self.plain.consume(self.plain.len());
        bytes
    }

    fn phase(&self) -> TlsPhase {
        self.codec.phase()
    }
}

fn tx() -> TxQueue {
    TxQueue::new(Pool::new(PoolSpec { min_chunks: 0, ..PoolSpec::default() }))
}

/// Carries what the two send in pieces of `chunk` bytes until both are silent.
fn carry(client: &mut End, server: &mut End, chunk: usize) {
    client.read();
    loop {
        let to_server = client.sent();
        to_server.chunks(chunk).for_each(|piece| server.receive(piece));
        let to_client = server.sent();
        to_client.chunks(chunk).for_each(|piece| client.receive(piece));
        if to_server.is_empty() && to_client.is_empty() {
            return;
        }
    }
}

/// A connection of two of ours, open.
fn open(configs: &Configs) -> (End, End) {
    let (mut client, mut server) = configs.ours();
    carry(&mut client, &mut server, usize::MAX);
    assert_eq!((&client.error, &server.error), (&None, &None));
    assert_eq!((client.phase(), server.phase()), (TlsPhase::Open, TlsPhase::Open));
    (client, server)
}
