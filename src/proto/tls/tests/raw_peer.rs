//! A peer that sends any record that one may think of, with the right keys.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConnection, ConnectionTrafficSecrets, ContentType, DigitallySignedStruct, ProtocolVersion,
    SignatureScheme, SupportedCipherSuite,
};

use super::{Configs, End, name};
use crate::proto::tls::Provider;

/// A client of TLS 1.3 after its handshake, with the keys taken out.
pub(super) struct RawPeer {
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl RawPeer {
    /// Shakes hands with `server`.
    pub(super) fn connect(configs: &Configs, server: &mut End) -> Self {
        let mut config = configs.client.clone();
        config.enable_secret_extraction = true;
        let mut conn = ClientConnection::new(Arc::new(config), name()).expect("in order");
        while conn.is_handshaking() || conn.wants_write() {
            let mut bytes = Vec::new();
            while conn.wants_write() {
                conn.write_tls(&mut bytes).expect("a vector takes everything");
            }
            server.receive(&bytes);
            let answer = server.sent();
            let mut rest = &answer[..];
            while !rest.is_empty() {
                conn.read_tls(&mut rest).expect("room");
                conn.process_new_packets().expect("in order");
            }
        }
        let Some(SupportedCipherSuite::Tls13(suite)) = conn.negotiated_cipher_suite() else {
            panic!("not TLS 1.3");
        };
        let (sequence, secrets) = conn.dangerous_extract_secrets().expect("allowed").tx;
        let (key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
            _ => panic!("an unknown suite"),
        };
        RawPeer { encrypter: suite.aead_alg.encrypter(key, iv), sequence }
    }

    /// The next record.
    pub(super) fn record(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let message = OutboundPlainMessage {
            typ,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(payload),
        };
        let sealed = self.encrypter.encrypt(message, self.sequence).expect("encrypted");
        self.sequence += 1;
        sealed.encode()
    }
}

/// A client that does not look at certificates.
#[derive(Debug)]
pub(super) struct TakesAll;

impl ServerCertVerifier for TakesAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Provider::default().crypto().signature_verification_algorithms.supported_schemes()
    }
}
