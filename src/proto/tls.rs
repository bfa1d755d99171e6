//! TLS 1.2 and 1.3 as a machine between two pairs of queues, both roles. RFC 8446, RFC 5246.
//!
//! ```text
//! server   HelloReader --hello--> configuration chosen --the same bytes--.
//!          (where one configuration serves all, it begins here)          v
//! client   ---------------------------------------------------------> Handshake
//!
//! Handshake --both Finished--> Open --close_notify came--> PeerClosed --close()--> Closed
//!                              Open --close()--> Open, reads go on --close_notify came--> Closed
//! any of them --the peer's fault, or a limit--> failed: its alert is in the output, every later call says the same
//! ```
//!
//! A driver's turn, with `input` as it was received, and `output` to be sent:
//!
//! ```text
//! receive into input -> read(input, plain, max, output) -> use plain -> write(plain, output) -> send output
//! the stream below ended -> read_end()
//! ```
//!
//! Who owns which bytes: received bytes belong to the caller's queue until a record of them is whole, and a record is
//! deciphered where it lies. From there on they are the codec's; it keeps none but the pieces of a handshake message that
//! spans records. Plaintext to send belongs to the caller's queue until [`TlsCodec::write`] has taken it, which is at once when
//! the handshake is done, and not at all before.
//!
//! * [`TlsCodec::close`] sends close_notify and ends writing; reading goes on, as TCP's does. Before the handshake is done
//!   it is remembered, and sent right after it.
//! * An end of the stream below without a close_notify is [`TlsError::Truncated`]: what came may not be the whole.
//! * Dropping a codec sends nothing. Whoever gives a connection up drops the stream below with it.
//! * Bad input, from the first byte on, fails the codec; where the protocol has an alert for it, the alert is put into the
//!   output before the error is returned, so a driver sends the output first and closes then. What the peer sent after its
//!   close_notify is dropped unread (RFC 8446 6.1).
//! * What makes no progress is counted ([`TlsLimits`]): handshake bytes, and records without application data (empty ones,
//!   key updates, tickets, warnings). A record of more than its 16 KiB and an unknown version of it fail by its first five bytes.
//!
//! rustls does the cryptography and the messages; time (for certificates) and randomness are its own. Its 0.23 unbuffered API
//! is behind [`RustlsCodec`]; it copies a record once on each way, and allocates for it, which the shape of [`TlsCodec`] does not
//! ask for. A machine that sends early data is missing: that API does not tell a client whether the server took it.

mod codec;
mod error;
mod hello;
mod provider;

#[cfg(test)]
mod tests;

use ringport_platform::buf::{RxQueue, TxQueue};
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion};

pub use codec::RustlsCodec;
pub use error::{CertificateFault, TlsError, TlsLimit};
pub use hello::{ClientHello, HelloReader};
pub use provider::Provider;

/// A TLS connection without its stream.
pub trait TlsCodec {
    /// Takes whole records from the front of `input` until `plain` holds `max` bytes, or more by what the last record
    /// brought; appends to `output` what is to be sent: handshake messages, alerts.
    ///
    /// The first call of a client puts its hello into `output`, with or without input.
    ///
    /// # Errors
    /// See [`TlsError`]; `output` may hold an alert that is to be sent all the same, and `plain` what came before.
    fn read(
        &mut self,
        input: &mut RxQueue,
        plain: &mut RxQueue,
        max: usize,
        output: &mut TxQueue,
    ) -> Result<TlsPhase, TlsError>;

    /// The stream below has ended, and everything that it brought was read.
    ///
    /// # Errors
    /// [`TlsError::Truncated`] where the peer did not say that this is the end, [`TlsError::EndedInHandshake`] before there was
    /// anything to end.
    fn read_end(&mut self) -> Result<(), TlsError>;

    /// Takes all of `plain` and appends it to `output` as records; takes nothing while the handshake goes on.
    ///
    /// # Errors
    /// [`TlsError::WriteClosed`] after [`TlsCodec::close`]; [`TlsError::KeysExhausted`] when TLS 1.2 may encrypt no more.
    fn write(&mut self, plain: &mut TxQueue, output: &mut TxQueue) -> Result<(), TlsError>;

    /// Ends writing. Idempotent.
    ///
    /// # Errors
    /// Only of a codec that has failed.
    fn close(&mut self, output: &mut TxQueue) -> Result<(), TlsError>;

    /// Encrypts with new keys from here on, and asks the peer to. RFC 8446 4.6.3. Happens by itself before keys wear out.
    ///
    /// # Errors
    /// [`TlsError::Local`] in TLS 1.2, which has no such thing, and before the handshake is done.
    fn refresh_keys(&mut self, output: &mut TxQueue) -> Result<(), TlsError>;

    /// How far the connection is.
    fn phase(&self) -> TlsPhase;

    /// What was agreed on; `None` before the handshake is done.
    fn info(&self) -> Option<TlsInfo<'_>>;
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsPhase {
    /// Nothing can be written, and what is read may be early data only.
    Handshake,
    /// Reads and, before [`TlsCodec::close`], writes.
    Open,
    /// The peer has ended; writes go on.
    PeerClosed,
    /// Both have ended.
    Closed,
}

/// What the two sides agreed on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TlsInfo<'a> {
    /// The version of the protocol.
    pub version: ProtocolVersion,
    /// The cipher suite.
    pub suite: CipherSuite,
    /// The group of the key exchange; `None` where a resumed session did without.
    pub group: Option<NamedGroup>,
    /// The protocol to speak, if any was agreed on.
    pub alpn: Option<&'a [u8]>,
    /// Of a server that chose its configuration by the hello: the name that the client asked for.
    pub server_name: Option<&'a str>,
    /// The peer's certificate and what it sent with it. In a resumed session those of the first.
    pub peer_certificates: Option<&'a [CertificateDer<'static>]>,
    /// Whether the handshake was a full one, a full one with another round trip, or resumed.
    pub kind: HandshakeKind,
    /// So many of the first received bytes came as early data, and may have been replayed by somebody else (RFC 8446 8).
    pub early_bytes: u64,
}

/// What a peer may send without getting anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsLimits {
    /// Bytes received until the handshake is done, without early data; later, of one handshake message with all around it.
    /// Default 128 KiB; at least a record, 18 KiB. A message alone takes 64 KiB at most, whatever this says.
    pub handshake_bytes: usize,
    /// Records without application data in a row, after the handshake: tickets, key updates, empty records. Default 64.
    pub idle_records: u32,
}

impl Default for TlsLimits {
    fn default() -> Self {
        TlsLimits { handshake_bytes: 128 * 1024, idle_records: 64 }
    }
}

/// How long records are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RecordSizing {
    /// As long as they may be: least work for both sides.
    #[default]
    Full,
    /// Those of the first 128 KiB grow from about a TCP segment, so that a peer on a slow path can use the first bytes before
    /// 16 KiB have come.
    Dynamic,
}
