//! What brings nothing is counted: at the limit it goes on, beyond it the connection has failed.

use std::sync::Arc;

use rustls::{AlertDescription, ContentType, PeerMisbehaved};

use super::raw_peer::RawPeer;
use super::{Configs, End, TLS13, VERSIONS, carry, configs, open};
use crate::proto::tls::{RustlsCodec, TlsError, TlsLimit, TlsLimits, TlsPhase};

fn limited_server(configs: &Configs, limits: TlsLimits) -> End {
    let config = Arc::new(configs.server.clone());
    End::new(Box::new(RustlsCodec::server(config, limits).expect("in order")))
}

#[test]
fn handshake_bytes() {
    for version in VERSIONS {
        let configs = configs(&[version]);
        // What the handshake takes is measured first; random values do not change its length, but signatures do, and the
        // client makes none.
        let shake = |limit| {
            let limits = TlsLimits { handshake_bytes: limit, ..TlsLimits::default() };
            let (mut client, _) = configs.ours();
            let mut server = limited_server(&configs, limits);
            client.read();
            let mut took = 0;
            while server.error.is_none() {
                let bytes = client.sent();
                took += bytes.len();
                server.receive(&bytes);
                client.receive(&server.sent());
                if bytes.is_empty() {
                    break;
                }
            }
            (took, server.error)
        };
        let floor = 16 * 1024 + 2048 + 5;
        let (took, error) = shake(usize::MAX);
        assert_eq!(error, None);
        // The hello alone is below the least that a limit can be, which is a record.
        assert!(took < floor);
        assert_eq!(shake(0).1, None, "a limit is never below a record");
    }
    // A handshake that goes beyond: a client hello of 20 KiB in records of 1 KiB.
    let server = |limit| {
        let mut server =
            limited_server(&configs(&[TLS13]), TlsLimits { handshake_bytes: limit, ..TlsLimits::default() });
        let mut message = vec![1, 0, 0x50, 0];
        message.resize(20 * 1024, 0);
        for piece in message.chunks(1_024) {
            let mut record = vec![22, 3, 1, 4, 0];
            record.extend_from_slice(piece);
            server.receive(&record);
        }
        server
    };
    // The message is 20 KiB and 4 bytes, so that it is not whole, and nothing is wrong with it so far.
    let records = 20 * (1_024 + 5);
    let mut fits = server(records);
    assert_eq!(fits.error, None);
    let End { codec, input, plain, output, .. } = &mut fits;
    input.push(ringport_platform::buf::PoolBuf::copied(&[22, 3, 1, 0, 1, 0]));
    let beyond = codec.read(input, plain, usize::MAX, output);
    assert_eq!(beyond, Err(TlsError::Limit(TlsLimit::HandshakeBytes)));
    assert_eq!(server(records - 1).error, Some(TlsError::Limit(TlsLimit::HandshakeBytes)));
}

/// A handshake message in pieces after the handshake: what has been read of it waits in the codec, and is bounded.
#[test]
fn a_message_in_pieces_after_the_handshake() {
    let configs = configs(&[TLS13]);
    let limits = TlsLimits { handshake_bytes: 32 * 1024, idle_records: 1_000 };
    let mut server = limited_server(&configs, limits);
    let mut peer = RawPeer::connect(&configs, &mut server);
    // A key update of 40,000 bytes is no key update, but that shows when it is whole.
    let header = [24, 0, 0x9c, 0x40];
    server.receive(&peer.record(ContentType::Handshake, &header));
    let mut count = 0;
    while server.error.is_none() {
        server.receive(&peer.record(ContentType::Handshake, &[0; 1_000]));
        count += 1;
    }
    assert_eq!(server.error, Some(TlsError::Limit(TlsLimit::HandshakeBytes)));
    // 1,022 bytes each on the wire, and 26 of the header's record.
    assert_eq!(count, (32 * 1024 - 26) / 1_022 + 1);

    // A short one in two pieces is no trouble, and a write between the two does not disturb it.
    let mut server = limited_server(&configs, limits);
    let mut peer = RawPeer::connect(&configs, &mut server);
    server.receive(&peer.record(ContentType::Handshake, &[24, 0]));
    server.write(b"between");
    server.receive(&peer.record(ContentType::Handshake, &[0, 1, 0]));
    assert_eq!(server.error, None);
    // Other records may not come between.
    let mut server = limited_server(&configs, limits);
    let mut peer = RawPeer::connect(&configs, &mut server);
    server.receive(&peer.record(ContentType::Handshake, &[24, 0]));
    server.receive(&peer.record(ContentType::ApplicationData, b"between"));
    let expected = PeerMisbehaved::MessageInterleavedWithHandshakeMessage;
    assert_eq!(server.error, Some(TlsError::Protocol(expected.into())));
}

/// Sends `count` records without data; whether the server went on, and what it says.
fn idle(limits: TlsLimits, count: u32, record: impl Fn(&mut RawPeer) -> Vec<u8>) -> Option<TlsError> {
    let configs = configs(&[TLS13]);
    let mut server = limited_server(&configs, limits);
    let mut peer = RawPeer::connect(&configs, &mut server);
    for _ in 0..count {
        server.receive(&record(&mut peer));
    }
    if server.error.is_none() {
        // Data ends the row.
        server.receive(&peer.record(ContentType::ApplicationData, b"data"));
        assert_eq!(server.received(), b"data");
        for _ in 0..count {
            server.receive(&record(&mut peer));
        }
    }
    server.error
}

#[test]
fn records_without_data() {
    let five = TlsLimits { idle_records: 5, ..TlsLimits::default() };
    let empty = |peer: &mut RawPeer| peer.record(ContentType::ApplicationData, b"");
    assert_eq!(idle(five, 5, empty), None);
    assert_eq!(idle(five, 6, empty), Some(TlsError::Limit(TlsLimit::IdleRecords)));
    // With more room rustls has its own limit for empty ones in a row.
    let too_many = TlsError::Protocol(PeerMisbehaved::TooManyEmptyFragments.into());
    assert_eq!(idle(TlsLimits::default(), 32, empty), None);
    assert_eq!(idle(TlsLimits::default(), 33, empty), Some(too_many));
    // Four warnings in all, data or not between them.
    let warning = |peer: &mut RawPeer| peer.record(ContentType::Alert, &[1, 90]);
    let too_many = TlsError::Protocol(PeerMisbehaved::TooManyWarningAlertsReceived.into());
    assert_eq!(idle(TlsLimits::default(), 2, warning), None);
    assert_eq!(idle(TlsLimits::default(), 3, warning), Some(too_many));
}

#[test]
fn key_updates_in_a_row() {
    for (count, is_fine) in [(32, true), (33, false)] {
        let (mut client, mut server) = open(&configs(&[TLS13]));
        for _ in 0..count {
            client.codec.refresh_keys(&mut client.output).expect("open");
        }
        let bytes = client.sent();
        server.receive(&bytes);
        assert_eq!(server.error.is_none(), is_fine, "{count}: {:?}", server.error);
        if is_fine {
            // Many requests, one answer, before the next data.
            server.write(b"data");
            carry(&mut client, &mut server, usize::MAX);
            assert_eq!(client.received(), b"data");
            client.codec.refresh_keys(&mut client.output).expect("open");
            client.write(b"more");
            carry(&mut client, &mut server, usize::MAX);
        }
    }
}

#[test]
fn alerts_and_records_that_belong_nowhere() {
    let rows: [(ContentType, &[u8], TlsError); 5] = [
        (ContentType::Alert, &[2, 40], TlsError::Alert(AlertDescription::HandshakeFailure)),
        // RFC 8446 6: every alert but two is fatal, whatever level it says.
        (ContentType::Alert, &[1, 40], TlsError::Alert(AlertDescription::HandshakeFailure)),
        (ContentType::Alert, &[2, 120], TlsError::NoAlpn),
        (
            ContentType::Alert,
            &[2],
            TlsError::Protocol(rustls::Error::InvalidMessage(rustls::InvalidMessage::MissingData(
                "AlertDescription",
            ))),
        ),
        (
            ContentType::Heartbeat,
            &[1],
            TlsError::Protocol(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)),
        ),
    ];
    for (typ, payload, expected) in rows {
        let configs = configs(&[TLS13]);
        let mut server = limited_server(&configs, TlsLimits::default());
        let mut peer = RawPeer::connect(&configs, &mut server);
        server.receive(&peer.record(typ, payload));
        assert_eq!(server.error, Some(expected));
    }
}

/// In TLS 1.2 keys are used until they are used up, in TLS 1.3 until they are replaced.
#[test]
fn keys_wear_out() {
    for version in VERSIONS {
        let configs = configs_that_wear_out(&[version], 20);
        let (mut client, mut server) = open(&configs);
        let mut refused = 0;
        for _ in 0..60 {
            client.write(b"x");
            let bytes = client.sent();
            server.receive(&bytes);
            refused += u32::from(client.error.is_some());
        }
        let received = server.received().len();
        if version.version == rustls::ProtocolVersion::TLSv1_3 {
            assert_eq!((received, refused), (60, 0));
        } else {
            assert!(received < 25 && refused > 30, "{received} {refused}");
            assert_eq!(client.error, Some(TlsError::KeysExhausted));
            assert_eq!((server.error.as_ref(), server.phase()), (None, TlsPhase::PeerClosed));
        }
    }
}

fn configs_that_wear_out(versions: &[&'static rustls::SupportedProtocolVersion], limit: u64) -> Configs {
    use rustls::{SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite};
    let mut configs = configs(versions);
    let mut crypto = crate::proto::tls::Provider::default().crypto();
    for suite in &mut crypto.cipher_suites {
        *suite = match *suite {
            SupportedCipherSuite::Tls12(known) => {
                let mut common = Tls12CipherSuite { ..copy12(known) };
                common.common.confidentiality_limit = limit;
                SupportedCipherSuite::Tls12(Box::leak(Box::new(common)))
            }
            SupportedCipherSuite::Tls13(known) => {
                let mut common = Tls13CipherSuite { ..copy13(known) };
                common.common.confidentiality_limit = limit;
                SupportedCipherSuite::Tls13(Box::leak(Box::new(common)))
            }
        };
    }
    configs.client = rustls::ClientConfig::builder_with_provider(Arc::new(crypto))
        .with_protocol_versions(versions)
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(super::raw_peer::TakesAll))
        .with_no_client_auth();
    configs
}

fn common(known: &rustls::crypto::CipherSuiteCommon) -> rustls::crypto::CipherSuiteCommon {
    rustls::crypto::CipherSuiteCommon {
        suite: known.suite,
        hash_provider: known.hash_provider,
        confidentiality_limit: known.confidentiality_limit,
    }
}

fn copy12(known: &rustls::Tls12CipherSuite) -> rustls::Tls12CipherSuite {
    rustls::Tls12CipherSuite {
        common: common(&known.common),
        prf_provider: known.prf_provider,
        kx: known.kx,
        sign: known.sign,
        aead_alg: known.aead_alg,
    }
}

fn copy13(known: &rustls::Tls13CipherSuite) -> rustls::Tls13CipherSuite {
    rustls::Tls13CipherSuite {
        common: common(&known.common),
        hkdf_provider: known.hkdf_provider,
        aead_alg: known.aead_alg,
        quic: known.quic,
    }
}
