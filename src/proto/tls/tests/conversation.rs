//! A whole connection: handshake, data, new keys, an end each.

use ringport_platform::buf::{PoolBuf, RxQueue};
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};

use super::{Api, Configs, End, TLS12, TLS13, VERSIONS, carry, configs, open, tx};
use crate::proto::tls::{Provider, RecordSizing, RustlsCodec, TlsError, TlsLimits, TlsPhase};

const ENDS: [(Api, Api); 3] =
    [(Api::Ours, Api::Ours), (Api::Ours, Api::Buffered), (Api::Buffered, Api::Ours)];

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// Everything once, with the bytes in pieces of `chunk`.
fn converse(configs: &Configs, apis: (Api, Api), is_tls13: bool, chunk: usize) {
    let mut client = End::new(configs.client(apis.0));
    let mut server = End::new(configs.server(apis.1));
    carry(&mut client, &mut server, chunk);
    assert_eq!((&client.error, &server.error), (&None, &None), "{apis:?} {chunk}");
    assert_eq!((client.phase(), server.phase()), (TlsPhase::Open, TlsPhase::Open));
    for (from_client, len) in [(true, 1), (false, 16 * 1024), (true, 16 * 1024 + 1), (false, 70_000)] {
        let (from, to) = if from_client { (&mut client, &mut server) } else { (&mut server, &mut client) };
        from.write(&pattern(len));
        if is_tls13 && len == 1 {
            let End { codec, output, .. } = from;
            codec.refresh_keys(output).expect("TLS 1.3 has it");
        }
        from.write(b"and more");
        from.sent().chunks(chunk).for_each(|piece| to.receive(piece));
        assert!(to.received() == [&pattern(len)[..], b"and more"].concat(), "{apis:?} {chunk} {len}");
        carry(&mut client, &mut server, chunk);
    }
    // Half closed: the server goes on.
    client.close();
    carry(&mut client, &mut server, chunk);
    assert_eq!((client.phase(), server.phase()), (TlsPhase::Open, TlsPhase::PeerClosed));
    assert_eq!(server.codec.read_end(), Ok(()));
    server.write(b"the rest");
    server.close();
    server.close();
    // RFC 8446 6.1: what comes behind it is ignored.
    let mut end = server.sent();
    end.extend_from_slice(b"garbage behind the end");
    end.chunks(chunk).for_each(|piece| client.receive(piece));
    assert_eq!(client.received(), b"the rest");
    assert_eq!((client.phase(), server.phase()), (TlsPhase::Closed, TlsPhase::Closed));
    assert!(client.input.is_empty());
    assert_eq!((&client.error, &server.error), (&None, &None));
    assert_eq!(client.codec.read_end(), Ok(()));
    server.write(b"too late");
    assert_eq!(server.error, Some(TlsError::WriteClosed));
}

#[test]
fn both_roles_with_both_apis_in_pieces() {
    for version in VERSIONS {
        let configs = configs(&[version]);
        for apis in ENDS {
            for chunk in [1, 7, 1_400, usize::MAX] {
                converse(&configs, apis, version.version == ProtocolVersion::TLSv1_3, chunk);
            }
        }
    }
}

/// Carries a handshake and data each way, with each direction's stream cut once, at `cut`. Returns how long the longer was.
fn cut_once(configs: &Configs, cut: usize) -> usize {
    let (mut client, mut server) = configs.ours();
    let (mut up, mut down) = (0, 0);
    client.read();
    for turn in 0.. {
        assert!(turn < 20, "no end");
        if client.phase() == TlsPhase::Open && turn == 10 {
            client.write(b"ping");
            server.write(b"pong");
        }
        for is_up in [true, false] {
            let (from, to, so_far) = if is_up {
                (&mut client, &mut server, &mut up)
            } else {
                (&mut server, &mut client, &mut down)
            };
            let bytes = from.sent();
            let at = cut.saturating_sub(*so_far).min(bytes.len());
            *so_far += bytes.len();
            to.receive(&bytes[..at]);
            to.receive(&bytes[at..]);
        }
        if turn > 12 {
            break;
        }
    }
    assert_eq!((&client.error, &server.error), (&None, &None), "cut at {cut}");
    assert_eq!((client.received(), server.received()), (b"pong".to_vec(), b"ping".to_vec()), "cut at {cut}");
    up.max(down)
}

#[test]
fn every_cut() {
    for version in VERSIONS {
        let mut configs = configs(&[version]);
        // Fewer bytes than with the post-quantum group, and all sorts of records all the same.
        let mut crypto = Provider::default().crypto();
        crypto.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
        let crypto = std::sync::Arc::new(crypto);
        let client = rustls::ClientConfig::builder_with_provider(crypto)
            .with_protocol_versions(&[version])
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(std::sync::Arc::new(super::raw_peer::TakesAll))
            .with_no_client_auth();
        configs.client = client;
        // Each a full one.
        configs.client.resumption = rustls::client::Resumption::disabled();
        let mut longest = 1;
        let mut cut = 0;
        while cut <= longest {
            longest = cut_once(&configs, cut);
            cut += 1;
        }
        assert!(cut > 500, "{cut}");
    }
}

#[test]
fn what_was_agreed_on() {
    let mut configs = configs(&[TLS13, TLS12]);
    configs.client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    configs.server.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (client, server) = configs.ours();
    assert!(client.codec.info().is_none() && server.codec.info().is_none());
    let (client, server) = open(&configs);
    for end in [&client, &server] {
        let info = end.codec.info().expect("open");
        assert_eq!(info.version, ProtocolVersion::TLSv1_3);
        assert_eq!(info.alpn, Some(&b"http/1.1"[..]));
        assert_eq!(info.kind, HandshakeKind::Full);
        assert_eq!((info.early_bytes, info.server_name), (0, None));
        // Post-quantum by default where the provider has it.
        let first = Provider::default().crypto().kx_groups[0].name();
        assert_eq!(info.group, Some(first));
        #[cfg(feature = "aws-lc-rs")]
        assert_eq!(first, NamedGroup::X25519MLKEM768);
    }
    assert_eq!(client.codec.info().expect("open").peer_certificates.map(<[_]>::len), Some(1));
    assert_eq!(server.codec.info().expect("open").peer_certificates, None);
}

/// The lengths of the records in `bytes`, without headers.
fn records(bytes: &[u8]) -> Vec<usize> {
    let (mut rest, mut lens) = (bytes, Vec::new());
    while !rest.is_empty() {
        let len = usize::from(u16::from_be_bytes([rest[3], rest[4]]));
        lens.push(len);
        rest = &rest[5 + len..];
    }
    lens
}

/// In TLS 1.3 a record is longer than its plaintext by a type and a tag.
const SEALED: usize = 17;

#[test]
fn small_pieces_share_a_record_and_large_ones_are_cut() {
    let configs = configs(&[TLS13]);
    let (mut client, mut server) = open(&configs);
    let mut plain = tx();
    for len in [3, 10, 16_384, 40_000] {
        plain.push(pattern(len));
    }
    client.codec.write(&mut plain, &mut client.output).expect("open");
    assert!(plain.is_empty());
    let bytes = client.sent();
    let expected = [16_384, 16_384, 16_384, 7_245];
    assert_eq!(records(&bytes), expected.map(|len| len + SEALED));
    server.receive(&bytes);
    assert_eq!(server.received(), [pattern(3), pattern(10), pattern(16_384), pattern(40_000)].concat());
}

#[test]
fn the_first_records_may_be_short() {
    let configs = configs(&[TLS13]);
    let config = std::sync::Arc::new(configs.client.clone());
    let client = RustlsCodec::client(config, super::name(), TlsLimits::default()).expect("in order");
    let mut client = End::new(Box::new(client.with_sizing(RecordSizing::Dynamic)));
    let mut server = End::new(configs.server(Api::Buffered));
    carry(&mut client, &mut server, usize::MAX);
    client.write(&pattern(200_000));
    let bytes = client.sent();
    let lens: Vec<_> = records(&bytes).into_iter().map(|len| len - SEALED).collect();
    assert_eq!(lens[..3], [1_300, 2_600, 3_900]);
    assert!(lens[15..lens.len() - 1].iter().all(|len| *len == 16 * 1024), "{lens:?}");
    server.receive(&bytes);
    assert_eq!(server.received(), pattern(200_000));
}

/// Taking stops behind the record that brings enough; what is left waits in the queue, as back-pressure.
#[test]
fn no_more_is_read_than_asked_for() {
    let configs = configs(&[TLS13]);
    let (mut client, mut server) = open(&configs);
    for _ in 0..10 {
        client.write(&[7; 100]);
    }
    let bytes = client.sent();
    let (mut input, mut plain) = (RxQueue::new(), RxQueue::new());
    input.push(PoolBuf::copied(&bytes));
    for (max, expected) in [(0, 0), (1, 100), (100, 100), (101, 200), (450, 500), (usize::MAX, 1_000)] {
        server.codec.read(&mut input, &mut plain, max, &mut server.output).expect("in order");
        assert_eq!(plain.len(), expected, "{max}");
        assert_eq!(input.len(), bytes.len() / 10 * (1_000 - expected) / 100);
    }
}

/// Before the handshake is done nothing is taken, and an end is remembered.
#[test]
fn written_and_closed_too_early() {
    for version in VERSIONS {
        let configs = configs(&[version]);
        let (mut client, mut server) = configs.ours();
        client.read();
        let mut plain = tx();
        plain.push("early");
        client.codec.write(&mut plain, &mut client.output).expect("no error");
        assert_eq!(plain.len(), 5);
        assert!(client.codec.refresh_keys(&mut client.output).is_err());
        client.close();
        carry(&mut client, &mut server, usize::MAX);
        assert_eq!((client.phase(), server.phase()), (TlsPhase::Open, TlsPhase::PeerClosed));
        assert_eq!(
            client.codec.write(&mut plain, &mut client.output),
            Err(TlsError::WriteClosed),
            "writing ended"
        );
        // It is the caller's fault, and the connection goes on.
        server.write(b"fine");
        carry(&mut client, &mut server, usize::MAX);
        assert_eq!(client.received(), b"fine");
    }
}

#[test]
fn keys_are_refreshed_in_tls_13_alone() {
    let (mut client, _) = open(&configs(&[TLS12]));
    let refreshed = client.codec.refresh_keys(&mut client.output);
    assert!(matches!(refreshed, Err(TlsError::Local(_))), "{refreshed:?}");
    assert!(client.output.is_empty());
    let (mut client, mut server) = open(&configs(&[TLS13]));
    client.close();
    assert_eq!(client.codec.refresh_keys(&mut client.output), Err(TlsError::WriteClosed));
    carry(&mut client, &mut server, usize::MAX);
    assert_eq!(client.codec.phase(), TlsPhase::Open);
}
