//! The buffered API of rustls behind the same trait: simpler to drive, and used by everybody else.

use std::io::{Read, Write};
use std::sync::Arc;

use ringport_platform::buf::{PoolBuf, RxQueue, TxQueue};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use crate::proto::tls::{TlsCodec, TlsError, TlsInfo, TlsPhase};

pub(super) struct BufferedCodec {
    pub(super) conn: Connection,
    peer_closed: bool,
    closed: bool,
    failed: Option<TlsError>,
}

impl BufferedCodec {
    pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Self {
        BufferedCodec::new(Connection::Client(ClientConnection::new(config, name).expect("in order")))
    }

    pub(super) fn server(config: Arc<ServerConfig>) -> Self {
        BufferedCodec::new(Connection::Server(ServerConnection::new(config).expect("in order")))
    }

    fn new(mut conn: Connection) -> Self {
        conn.set_buffer_limit(None);
        BufferedCodec { conn, peer_closed: false, closed: false, failed: None }
    }

    fn flush(&mut self, output: &mut TxQueue) {
        let mut bytes = Vec::new();
        while self.conn.wants_write() {
            self.conn.write_tls(&mut bytes).expect("a vector takes everything");
        }
        output.push(bytes);
    }

    fn take_plain(&mut self, plain: &mut RxQueue) {
        let mut bytes = [0; 4096];
        // Nothing more is `WouldBlock`, the end of the peer no byte.
        while let Ok(len @ 1..) = self.conn.reader().read(&mut bytes) {
            plain.push(PoolBuf::copied(&bytes[..len]));
        }
    }
}

impl TlsCodec for BufferedCodec {
    fn read(
        &mut self,
        input: &mut RxQueue,
        plain: &mut RxQueue,
        _max: usize,
        output: &mut TxQueue,
    ) -> Result<TlsPhase, TlsError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        while let Some(piece) = input.pop(usize::MAX) {
            let mut rest = &piece[..];
            while !rest.is_empty() && !self.peer_closed {
                self.conn.read_tls(&mut rest).expect("room");
                let state = self.conn.process_new_packets();
                self.take_plain(plain);
                match state {
                    Ok(state) => self.peer_closed = state.peer_has_closed(),
                    Err(error) => {
                        self.flush(output);
                        self.failed = Some(error.into());
                        return Err(self.failed.clone().expect("just set"));
                    }
                }
            }
        }
        self.flush(output);
        Ok(self.phase())
    }

    fn read_end(&mut self) -> Result<(), TlsError> {
        if self.peer_closed { Ok(()) } else { Err(TlsError::Truncated) }
    }

    fn write(&mut self, plain: &mut TxQueue, output: &mut TxQueue) -> Result<(), TlsError> {
        if self.conn.is_handshaking() {
            return Ok(());
        }
        if self.closed && !plain.is_empty() {
            return Err(TlsError::WriteClosed);
        }
        let slices: Vec<_> = plain.slices().map(std::io::IoSlice::new).collect();
        let written = self.conn.writer().write_vectored(&slices).expect("no limit");
        assert_eq!(written, plain.len());
        plain.clear();
        self.flush(output);
        Ok(())
    }

    fn close(&mut self, output: &mut TxQueue) -> Result<(), TlsError> {
        self.closed = true;
        self.conn.send_close_notify();
        self.flush(output);
        Ok(())
    }

    fn refresh_keys(&mut self, output: &mut TxQueue) -> Result<(), TlsError> {
        self.conn.refresh_traffic_keys()?;
        self.flush(output);
        Ok(())
    }

    fn phase(&self) -> TlsPhase {
        match (self.conn.is_handshaking(), self.peer_closed, self.closed) {
            (true, ..) => TlsPhase::Handshake,
            (false, true, true) => TlsPhase::Closed,
            (false, true, false) => TlsPhase::PeerClosed,
            (false, false, _) => TlsPhase::Open,
        }
    }

    fn info(&self) -> Option<TlsInfo<'_>> {
        Some(TlsInfo {
            version: self.conn.protocol_version()?,
            suite: self.conn.negotiated_cipher_suite()?.suite(),
            group: self.conn.negotiated_key_exchange_group().map(|group| group.name()),
            alpn: self.conn.alpn_protocol(),
            server_name: None,
            peer_certificates: self.conn.peer_certificates(),
            kind: self.conn.handshake_kind()?,
            early_bytes: 0,
        })
    }
}
