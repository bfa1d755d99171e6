//! Every fault has its name, on both sides, and its alert goes out before it is told.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{AlertDescription, PeerIncompatible, ServerConfig};

use super::{
    Api, Configs, End, NAME, Provider, TLS12, TLS13, VERSIONS, carry, configs, configs_with, open, parsed,
    roots,
};
use crate::pki::{Authority, Validity};
use crate::proto::tls::{CertificateFault, TlsError, TlsPhase};

/// What both sides say in the end.
fn shake(configs: &Configs) -> (TlsError, TlsError) {
    let (mut client, mut server) = configs.ours();
    carry(&mut client, &mut server, usize::MAX);
    // With the oracle in the place of either it is the same.
    for (ours, other) in [(Api::Ours, Api::Buffered), (Api::Buffered, Api::Ours)] {
        let (mut other_client, mut other_server) =
            (End::new(configs.client(ours)), End::new(configs.server(other)));
        carry(&mut other_client, &mut other_server, usize::MAX);
        assert_eq!(other_client.error, client.error);
        assert_eq!(other_server.error, server.error);
    }
    (client.error.expect("a fault"), server.error.expect("a fault"))
}

#[test]
fn certificates() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("a stranger"));
    for version in VERSIONS {
        let mut rows: Vec<(Configs, &str, AlertDescription)> = Vec::new();
        let with = |identity| configs_with(&[version], &authority, &identity);
        rows.push((with(stranger.issue(&[NAME])), "UnknownIssuer", AlertDescription::UnknownCA));
        rows.push((with(authority.issue(&["other.test"])), "WrongName", AlertDescription::BadCertificate));
        let past = authority.issue_valid(&[NAME], Validity::Past);
        rows.push((with(past), "Expired", AlertDescription::CertificateExpired));
        let future = authority.issue_valid(&[NAME], Validity::Future);
        rows.push((with(future), "NotYetValid", AlertDescription::CertificateExpired));
        for (configs, expected, alert) in rows {
            let (mut client, mut server) = configs.ours();
            carry(&mut client, &mut server, usize::MAX);
            let Some(TlsError::Certificate(fault)) = client.error else { panic!("{:?}", client.error) };
            assert!(format!("{fault:?}").starts_with(expected), "{fault:?}");
            // webpki's wrong name has an alert of its own in some versions; what counts is that it arrives.
            let Some(TlsError::Alert(told)) = server.error else { panic!("{:?}", server.error) };
            if expected != "WrongName" {
                assert_eq!(told, alert);
            }
            assert_eq!(client.codec.phase(), TlsPhase::Handshake);
        }
    }
}

#[test]
fn client_certificates() {
    let authority = Authority::new("ours");
    for version in VERSIONS {
        let mut configs = configs_with(&[version], &authority, &authority.issue(&[NAME]));
        let crypto = Arc::new(Provider::default().crypto());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(&authority), crypto.clone());
        let (chain, key) = parsed(&authority.issue(&[NAME]));
        configs.server = ServerConfig::builder_with_provider(crypto.clone())
            .with_protocol_versions(&[version])
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("roots"))
            .with_single_cert(chain, key)
            .expect("a pair");
        let (client, server) = shake(&configs);
        assert_eq!(server, TlsError::Certificate(CertificateFault::Missing));
        // RFC 8446 6.2; TLS 1.2 has no alert of its own for it.
        let told = [AlertDescription::CertificateRequired, AlertDescription::HandshakeFailure];
        assert!(matches!(client, TlsError::Alert(alert) if told.contains(&alert)), "{client:?}");

        for (issuer, is_known) in [(&authority, true), (&Authority::new("a stranger"), false)] {
            let (chain, key) = parsed(&issuer.issue(&["client.test"]));
            configs.client = rustls::ClientConfig::builder_with_provider(crypto.clone())
                .with_protocol_versions(&[version])
                .expect("versions")
                .with_root_certificates(roots(&authority))
                .with_client_auth_cert(chain, key)
                .expect("a pair");
            if is_known {
                let (_, server) = open(&configs);
                assert_eq!(server.codec.info().expect("open").peer_certificates.map(<[_]>::len), Some(1));
            } else {
                let (client, server) = shake(&configs);
                assert_eq!(server, TlsError::Certificate(CertificateFault::UnknownIssuer));
                assert_eq!(client, TlsError::Alert(AlertDescription::UnknownCA));
            }
        }
    }
}

#[test]
fn nothing_in_common() {
    for version in VERSIONS {
        let mut configs = configs(&[version]);
        configs.client.alpn_protocols = vec![b"h2".to_vec()];
        configs.server.alpn_protocols = vec![b"http/1.1".to_vec()];
        assert_eq!(shake(&configs), (TlsError::NoAlpn, TlsError::NoAlpn));
    }
    let (old, new) = (configs(&[TLS12]), configs(&[TLS13]));
    let (client, server) = shake(&Configs { client: old.client.clone(), server: new.server.clone() });
    assert_eq!(server, TlsError::Incompatible(PeerIncompatible::Tls12NotOfferedOrEnabled));
    assert_eq!(client, TlsError::Alert(AlertDescription::ProtocolVersion));
    let (client, server) = shake(&Configs { client: new.client, server: old.server });
    assert_eq!(server, TlsError::Incompatible(PeerIncompatible::Tls12NotOfferedOrEnabled));
    assert_eq!(client, TlsError::Alert(AlertDescription::ProtocolVersion));
}

#[test]
fn the_stream_ends() {
    for version in VERSIONS {
        let configs = configs(&[version]);
        let (mut client, mut server) = configs.ours();
        client.read();
        assert_eq!(client.codec.read_end(), Err(TlsError::EndedInHandshake));
        client.read();
        assert_eq!(client.error, Some(TlsError::EndedInHandshake), "it stays so");
        assert_eq!(server.codec.read_end(), Err(TlsError::EndedInHandshake));

        let (mut client, mut server) = open(&configs);
        client.write(b"whole");
        client.write(b"cut off");
        client.close();
        let bytes = client.sent();
        // All but the close_notify, which is the last record, and then less and less.
        server.receive(&bytes[..bytes.len() - 40]);
        assert_eq!(server.received(), b"whole");
        assert_eq!(server.codec.read_end(), Err(TlsError::Truncated));
        assert_eq!(server.codec.read_end(), Err(TlsError::Truncated));
        let mut plain = super::tx();
        plain.push("more");
        assert_eq!(server.codec.write(&mut plain, &mut server.output), Err(TlsError::Truncated));
        assert_eq!(server.codec.close(&mut server.output), Err(TlsError::Truncated));
        let closed = client.codec.read_end();
        assert_eq!(closed, Err(TlsError::Truncated), "its own end is not the peer's");
    }
    // Anybody may have written a close_notify that comes before the keys: it ends nothing.
    let mut server = End::new(configs(&[TLS13]).server(Api::Ours));
    server.receive(&[21, 3, 3, 0, 2, 1, 0]);
    assert_eq!((&server.error, server.phase()), (&None, TlsPhase::Handshake));
    assert_eq!(server.codec.read_end(), Err(TlsError::EndedInHandshake));
}

/// One bit of a hello is wrong, each in turn: both APIs say the same, to the caller and to the peer.
#[test]
fn every_bit_of_a_hello() {
    for version in VERSIONS {
        let mut configs = configs(&[version]);
        let mut crypto = Provider::default().crypto();
        crypto.kx_groups.retain(|group| group.name() == rustls::NamedGroup::X25519);
        configs.client = rustls::ClientConfig::builder_with_provider(Arc::new(crypto))
            .with_protocol_versions(&[version])
            .expect("versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut client = End::new(configs.client(Api::Ours));
        client.read();
        let hello = client.sent();
        let mut refused = 0;
        for bit in 0..hello.len() * 8 {
            let mut bytes = hello.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (mut ours, mut oracle) =
                (End::new(configs.server(Api::Ours)), End::new(configs.server(Api::Buffered)));
            ours.receive(&bytes);
            oracle.receive(&bytes);
            assert_eq!(ours.error, oracle.error, "bit {bit}");
            if ours.error.is_some() {
                refused += 1;
                // An answer that began before the fault is random, and so is how long its signature is.
                let (ours, oracle) = (ours.sent(), oracle.sent());
                let is_alert = ours.first() == Some(&21);
                let is_as_good =
                    ours == oracle || (!is_alert && record_types(&ours) == record_types(&oracle));
                assert!(is_as_good, "bit {bit}");
            }
        }
        assert!(refused > 100, "{refused}");
    }
}

fn record_types(mut bytes: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let [kind, _, _, high, low, ..] = *bytes {
        types.push(kind);
        bytes = &bytes[5 + usize::from(u16::from_be_bytes([high, low]))..];
    }
    assert!(bytes.is_empty(), "whole records");
    types
}

/// One byte of what a server sends is wrong, each in turn: the client never takes it, and says the same in both APIs.
#[test]
fn every_byte_of_an_answer() {
    for version in VERSIONS {
        let configs = configs(&[version]);
        let mut at = 0;
        loop {
            let answer_to = |client: &mut End, at: usize| {
                let mut server = End::new(configs.server(Api::Ours));
                client.read();
                server.receive(&client.sent());
                let mut answer = server.sent();
                let len = answer.len();
                if let Some(byte) = answer.get_mut(at) {
                    *byte ^= 0x10;
                }
                client.receive(&answer);
                len
            };
            let mut ours = End::new(configs.client(Api::Ours));
            let len = answer_to(&mut ours, at);
            assert_ne!(ours.codec.phase(), TlsPhase::Open, "byte {at}");
            let waits = ours.error.is_none();
            assert!(!waits || at < len, "byte {at}");
            at += 13;
            // Signatures are not equally long each time.
            if at + 8 > len {
                break;
            }
        }
    }
}

/// A record that cannot be read after our own end once failed an assertion of rustls.
#[test]
fn garbage_after_our_end() {
    for version in VERSIONS {
        let (mut client, mut server) = open(&configs(&[version]));
        server.close();
        client.receive(&server.sent());
        server.receive(&[23, 3, 3, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(server.error, Some(TlsError::Protocol(rustls::Error::DecryptError)));
    }
}

#[test]
fn what_errors_say() {
    use crate::proto::tls::TlsLimit;
    let rows = [
        (TlsError::Alert(AlertDescription::UnknownCA), "the alert UnknownCA"),
        (TlsError::NoAlpn, "ALPN"),
        (TlsError::Certificate(CertificateFault::Missing), "it sent none"),
        (TlsError::Certificate(CertificateFault::Revoked), "revoked"),
        (TlsError::Certificate(CertificateFault::UnknownIssuer), "nobody who is trusted"),
        (rustls::Error::InvalidCertificate(rustls::CertificateError::Expired).into(), "it has expired"),
        (rustls::Error::InvalidCertificate(rustls::CertificateError::Revoked).into(), "revoked"),
        (rustls::Error::InvalidCertificate(rustls::CertificateError::BadSignature).into(), "BadSignature"),
        (TlsError::Incompatible(PeerIncompatible::NoCipherSuitesInCommon), "NoCipherSuitesInCommon"),
        (TlsError::Protocol(rustls::Error::DecryptError), "cannot decrypt"),
        (TlsError::Limit(TlsLimit::HandshakeBytes), "handshake is too long"),
        (TlsError::Limit(TlsLimit::IdleRecords), "without data"),
        (TlsError::Truncated, "without close_notify"),
        (TlsError::EndedInHandshake, "before the handshake was done"),
        (TlsError::WriteClosed, "after the end of writing"),
        (TlsError::KeysExhausted, "used up"),
        (rustls::Error::FailedToGetRandomBytes.into(), "cannot go on here"),
    ];
    for (error, part) in rows {
        assert!(error.to_string().contains(part), "{error}");
    }
}
