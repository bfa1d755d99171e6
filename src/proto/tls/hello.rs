//! A client's first message, read before it is known which configuration answers it.

use ringport_platform::buf::{RxQueue, TxQueue};
use rustls::server::{Accepted, Acceptor};

use super::{TlsError, TlsLimit, TlsLimits};

/// What a client's hello says for the choice of a configuration. Nothing of it is authentic yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The name that it asks for, in lower case; never an address (RFC 6066 3).
    pub server_name: Option<String>,
    /// The protocols that it would speak, in its order.
    pub alpn: Vec<Vec<u8>>,
}

/// Reads a hello and leaves it in the queue, for the codec of the configuration that is chosen.
///
/// The hello is parsed twice that way. A server that has nothing to choose does without.
pub struct HelloReader {
    acceptor: Acceptor,
    /// Bytes of the queue that the acceptor has.
    fed: usize,
    max: usize,
}

impl HelloReader {
    /// For one connection.
    pub fn new(limits: TlsLimits) -> Self {
        HelloReader { acceptor: Acceptor::default(), fed: 0, max: limits.handshake_bytes }
    }

    /// Looks at `input`, all that has come so far, and takes nothing; `None` while the hello is not whole. Not to be called
    /// again after a hello or an error.
    ///
    /// # Errors
    /// The peer's fault, or a limit; `output` may hold an alert for it.
    pub fn read(&mut self, input: &RxQueue, output: &mut TxQueue) -> Result<Option<ClientHello>, TlsError> {
        let mut skip = self.fed;
        for part in input.parts() {
            let mut rest = part.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            while !rest.is_empty() {
                let mut piece = &rest[..rest.len().min(self.max - self.fed)];
                // Its buffer is full only of a message that it would refuse.
                let read = self.acceptor.read_tls(&mut piece).unwrap_or(0);
                if read == 0 {
                    return Err(TlsError::Limit(TlsLimit::HandshakeBytes));
                }
                self.fed += read;
                rest = &rest[read..];
                match self.acceptor.accept() {
                    Ok(Some(accepted)) => return Ok(Some(ClientHello::of(&accepted))),
                    Ok(None) => {}
                    Err((error, mut alert)) => {
                        let mut bytes = Vec::new();
                        alert.write_all(&mut bytes).expect("a vector takes everything");
                        output.push(bytes);
                        return Err(error.into());
                    }
                }
            }
        }
        Ok(None)
    }
}

impl ClientHello {
    fn of(accepted: &Accepted) -> Self {
        let hello = accepted.client_hello();
        ClientHello {
            server_name: hello.server_name().map(str::to_ascii_lowercase),
            alpn: hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect(),
        }
    }

    /// Tells a client that nothing here answers to the name that it asks for.
    pub fn refuse(output: &mut TxQueue) {
        output.push(UNRECOGNIZED_NAME);
    }
}

/// A fatal alert unrecognized_name(112) before there are keys. RFC 6066 3, RFC 8446 6.
const UNRECOGNIZED_NAME: &[u8; 7] = &[21, 3, 3, 0, 2, 2, 112];
