//! Why a connection cannot go on, and whose fault that is.

use std::fmt;

use rustls::{AlertDescription, CertificateError, PeerIncompatible};

/// Why a TLS connection cannot go on.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer gave up, for this reason. What it did not like is ours or its own.
    Alert(AlertDescription),
    /// The two know no application protocol in common (ALPN); either side may have found out.
    NoAlpn,
    /// The peer's certificate was refused.
    Certificate(CertificateFault),
    /// No version, cipher suite, group or signature in common. Neither side is at fault.
    Incompatible(PeerIncompatible),
    /// The peer broke the protocol, or speaks another one.
    Protocol(rustls::Error),
    /// The peer went beyond a limit of ours.
    Limit(TlsLimit),
    /// The stream ended without the peer's close_notify: what came may not be the whole. RFC 8446 6.1.
    Truncated,
    /// The stream ended before the handshake was done.
    EndedInHandshake,
    /// Something is written after the end of writing. The caller's fault.
    WriteClosed,
    /// These keys may encrypt nothing more, and TLS 1.2 has no others. Writing has ended with a close_notify.
    KeysExhausted,
    /// Our side cannot: its configuration, or what the version does not have.
    Local(rustls::Error),
}

/// What is wrong with a peer's certificate.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CertificateFault {
    /// One was asked for, and none was sent.
    Missing,
    /// Its time is over; with the times where they are known.
    Expired(CertificateError),
    /// Its time has not come.
    NotYetValid(CertificateError),
    /// It is of another name; with the names where they are known.
    WrongName(CertificateError),
    /// Nobody who is trusted stands behind it.
    UnknownIssuer,
    /// It was revoked.
    Revoked,
    /// Malformed, badly signed, not meant for this use, or else.
    Other(CertificateError),
}

/// A limit of [`TlsLimits`](super::TlsLimits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsLimit {
    /// [`TlsLimits::handshake_bytes`](super::TlsLimits::handshake_bytes).
    HandshakeBytes,
    /// [`TlsLimits::idle_records`](super::TlsLimits::idle_records).
    IdleRecords,
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        use rustls::Error as E;
        match error {
            E::AlertReceived(AlertDescription::NoApplicationProtocol) | E::NoApplicationProtocol => {
                TlsError::NoAlpn
            }
            E::AlertReceived(alert) => TlsError::Alert(alert),
            E::InvalidCertificate(error) => TlsError::Certificate(error.into()),
            E::NoCertificatesPresented => TlsError::Certificate(CertificateFault::Missing),
            E::PeerIncompatible(why) => TlsError::Incompatible(why),
            E::InappropriateMessage { .. }
            | E::InappropriateHandshakeMessage { .. }
            | E::InvalidEncryptedClientHello(_)
            | E::InvalidMessage(_)
            | E::DecryptError
            | E::PeerMisbehaved(_)
            | E::PeerSentOversizedRecord => TlsError::Protocol(error),
            // What is left, and what later versions add, is about our configuration and our machine.
            other => TlsError::Local(other),
        }
    }
}

impl From<CertificateError> for CertificateFault {
    fn from(error: CertificateError) -> Self {
        use CertificateError as E;
        match error {
            E::Expired | E::ExpiredContext { .. } => CertificateFault::Expired(error),
            E::NotValidYet | E::NotValidYetContext { .. } => CertificateFault::NotYetValid(error),
            E::NotValidForName | E::NotValidForNameContext { .. } => CertificateFault::WrongName(error),
            E::UnknownIssuer => CertificateFault::UnknownIssuer,
            E::Revoked => CertificateFault::Revoked,
            other => CertificateFault::Other(other),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Alert(alert) => write!(f, "the peer gave up with the alert {alert:?}"),
            TlsError::NoAlpn => f.write_str("no application protocol in common (ALPN)"),
            TlsError::Certificate(fault) => write!(f, "the peer's certificate is refused: {fault}"),
            TlsError::Incompatible(why) => write!(f, "nothing in common with the peer: {why:?}"),
            TlsError::Protocol(error) => write!(f, "the peer does not speak TLS, or breaks it: {error}"),
            TlsError::Limit(TlsLimit::HandshakeBytes) => f.write_str("the peer's handshake is too long"),
            TlsError::Limit(TlsLimit::IdleRecords) => {
                f.write_str("the peer sends one record after the other without data")
            }
            TlsError::Truncated => f.write_str("the stream ended without close_notify, perhaps cut off"),
            TlsError::EndedInHandshake => f.write_str("the peer ended before the handshake was done"),
            TlsError::WriteClosed => f.write_str("written after the end of writing"),
            TlsError::KeysExhausted => f.write_str("the keys of this connection are used up"),
            TlsError::Local(error) => write!(f, "TLS cannot go on here: {error}"),
        }
    }
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateFault::Missing => f.write_str("it sent none"),
            CertificateFault::Expired(error) => write!(f, "it has expired ({error})"),
            CertificateFault::NotYetValid(error) => write!(f, "it is not valid yet ({error})"),
            CertificateFault::WrongName(error) => write!(f, "it is for other names ({error})"),
            CertificateFault::Other(error) => error.fmt(f),
            CertificateFault::UnknownIssuer => f.write_str("nobody who is trusted has issued it"),
            CertificateFault::Revoked => f.write_str("it was revoked"),
        }
    }
}

impl std::error::Error for TlsError {}
