//! Any bytes as a script for a client and a server: who writes how much, who ends or takes new keys, in which pieces the bytes
//! come, and which bit of them is wrong. The two do not panic and make no more than they were given reason for; what arrives is
//! what was written, unless a bit was wrong, and then no more than a beginning of it.
//!
//! What is left of the script is then given to a server as it is; rustls's buffered API says the same of it.
#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use ringport::buf::{Pool, PoolBuf, PoolSpec, RxQueue, TxQueue};
use ringport::proto::tls::{HelloReader, Provider, RustlsCodec, TlsCodec, TlsError, TlsLimits};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};

fuzz_target!(|input: &[u8]| {
    let Some((&version, script)) = input.split_first() else { return };
    let (client, server) = &configs()[usize::from(version % 2)];
    let name = ServerName::try_from("server.test").expect("a name");
    let client = RustlsCodec::client(client.clone(), name, TlsLimits::default()).expect("in order");
    let codec = RustlsCodec::server(server.clone(), TlsLimits::default()).expect("in order");
    let mut ends = [End::new(client), End::new(codec)];
    ends[0].read();
    let mut is_sound = true;
    let (steps, raw) = script.split_at(script.iter().position(|&step| step == 0xff).unwrap_or(script.len()));
    for step in steps.chunks_exact(2) {
        let who = usize::from(step[0] & 1);
        let amount = usize::from(step[1]);
        match step[0] >> 1 & 7 {
            0 => ends[who].write(amount * 97),
            1 => ends[who].note(|codec, output| codec.close(output)),
            2 => ends[who].note(|codec, output| codec.refresh_keys(output)),
            3 if step[0] & 0x80 != 0 => is_sound &= !ends[who].flip(amount),
            // Pieces of every length, all of them the more often.
            4 => ends[who].hand(amount + 1),
            _ => ends[who].hand(usize::MAX),
        }
        let moved = std::mem::take(&mut ends[who].handed);
        let other = &mut ends[1 - who];
        if !moved.is_empty() {
            other.input.push(PoolBuf::copied(&moved));
            other.read();
        }
    }
    for who in [0, 1] {
        let (wrote, read) = (ends[who].wrote, ends[1 - who].read);
        assert!(read <= wrote, "{read} of {wrote}");
        // Handshake flights, alerts, and what goes around each write and each new key.
        assert!(ends[who].made <= 16_384 + wrote * 2 + steps.len() * 100, "{} made", ends[who].made);
        assert!(!is_sound || ends[who].failed.as_ref().is_none_or(is_ours), "{:?}", ends[who].failed);
    }
    bare(server, raw);
});

/// Faults that a sound peer brings about.
fn is_ours(error: &TlsError) -> bool {
    // Scripts may ask for keys over and over.
    matches!(error, TlsError::Limit(_) | TlsError::Protocol(_))
}

/// A server that gets these bytes, and nothing else.
fn bare(config: &Arc<ServerConfig>, bytes: &[u8]) {
    let mut oracle = ServerConnection::new(config.clone()).expect("in order");
    let mut rest = bytes;
    let mut expected = Ok(());
    while !rest.is_empty() && expected.is_ok() {
        oracle.read_tls(&mut rest).expect("room");
        expected = oracle.process_new_packets().map(drop).map_err(TlsError::from);
    }
    let mut input = RxQueue::new();
    input.push(PoolBuf::copied(bytes));
    let _ = HelloReader::new(TlsLimits::default()).read(&input, &mut tx());
    let mut server = RustlsCodec::server(config.clone(), TlsLimits::default()).expect("in order");
    let read = server.read(&mut input, &mut RxQueue::new(), usize::MAX, &mut tx());
    assert!(read.is_err() || expected.is_ok(), "{read:?} {expected:?}");
}

struct End {
    codec: RustlsCodec,
    input: RxQueue,
    output: TxQueue,
    handed: Vec<u8>,
    failed: Option<TlsError>,
    wrote: usize,
    read: usize,
    made: usize,
}

impl End {
    fn new(codec: RustlsCodec) -> Self {
        let (input, output) = (RxQueue::new(), tx());
        End { codec, input, output, handed: Vec::new(), failed: None, wrote: 0, read: 0, made: 0 }
    }

    fn note(&mut self, work: impl FnOnce(&mut RustlsCodec, &mut TxQueue) -> Result<(), TlsError>) {
        let before = self.output.len();
        if let Err(error) = work(&mut self.codec, &mut self.output)
            && !matches!(error, TlsError::WriteClosed | TlsError::Local(_))
        {
            self.failed.get_or_insert(error);
        }
        self.made += self.output.len() - before;
    }

    fn read(&mut self) {
        let (mut input, mut plain) = (std::mem::take(&mut self.input), RxQueue::new());
        self.note(|codec, output| codec.read(&mut input, &mut plain, usize::MAX, output).map(drop));
        assert!(plain.parts().flatten().all(|&byte| byte == 7));
        self.read += plain.len();
        self.input = input;
    }

    fn write(&mut self, len: usize) {
        let mut plain = tx();
        plain.push(vec![7; len]);
        self.note(|codec, output| codec.write(&mut plain, output));
        self.wrote += len - plain.len();
    }

    /// Takes what the other side is to get next.
    fn hand(&mut self, max: usize) {
        let bytes = self.output.slices().collect::<Vec<_>>().concat();
        let count = bytes.len().min(max);
        self.handed.extend_from_slice(&bytes[..count]);
        self.output.advance(count);
    }

    /// Whether there was a bit to make wrong.
    fn flip(&mut self, at: usize) -> bool {
        let mut bytes = self.output.slices().collect::<Vec<_>>().concat();
        let len = bytes.len();
        let Some(byte) = bytes.get_mut(at * 7 % len.max(1)) else { return false };
        *byte ^= 1 << (at % 8);
        self.output.clear();
        self.output.push(bytes);
        true
    }
}

fn tx() -> TxQueue {
    TxQueue::new(Pool::new(PoolSpec { min_chunks: 0, ..PoolSpec::default() }))
}

/// For TLS 1.2 and for TLS 1.3.
fn configs() -> &'static [(Arc<ClientConfig>, Arc<ServerConfig>); 2] {
    static CONFIGS: OnceLock<[(Arc<ClientConfig>, Arc<ServerConfig>); 2]> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let pair = rcgen::generate_simple_self_signed(["server.test".to_owned()]).expect("a certificate");
        let cert: CertificateDer<'static> = pair.cert.der().clone();
        let key = pair.signing_key.serialize_der();
        [&rustls::version::TLS12, &rustls::version::TLS13].map(|version| config(version, &cert, &key))
    })
}

fn config(
    version: &'static SupportedProtocolVersion,
    cert: &CertificateDer<'static>,
    key: &[u8],
) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let crypto = Arc::new(Provider::default().crypto());
    let mut roots = RootCertStore::empty();
    roots.add(cert.clone()).expect("a root");
    let client = ClientConfig::builder_with_provider(crypto.clone())
        .with_protocol_versions(&[version])
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let key = PrivateKeyDer::Pkcs8(key.to_vec().into());
    let server = ServerConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[version])
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.clone()], key)
        .expect("a pair");
    (Arc::new(client), Arc::new(server))
}
