//! The codec over the unbuffered connections of rustls 0.23.
//!
//! rustls is given one whole record at a time, and is then asked for its next state until it has nothing to say. What it has
//! read of a record without being done with it, a piece of a handshake message, it wants to see again in front of the next:
//! that is `partial`.

use std::sync::Arc;

use ringport_platform::buf::{PoolBuf, RxQueue, TxQueue};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, ReadEarlyData, UnbufferedConnectionCommon,
    UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, CommonState, ServerConfig};

use super::{ClientHello, RecordSizing, TlsCodec, TlsError, TlsInfo, TlsLimit, TlsLimits, TlsPhase};

/// A connection of rustls 0.23, client or server. Some 1.5 KiB beside what rustls allocates.
pub struct RustlsCodec {
    conn: Conn,
    limits: TlsLimits,
    sizing: RecordSizing,
    server_name: Option<String>,
    /// Deciphered pieces of a handshake message that is not whole, as rustls left them.
    partial: Vec<u8>,
    started: bool,
    peer_closed: bool,
    closed: Closed,
    /// Received during the handshake, without early data.
    handshake_bytes: usize,
    /// Records in a row that brought no application data.
    idle_records: u32,
    early_bytes: u64,
    /// Records and bytes sent while [`RecordSizing::Dynamic`] still counts.
    sent_records: usize,
    sent_bytes: usize,
    failed: Option<TlsError>,
}

/// Where the end of writing is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closed {
    No,
    /// Asked for before the handshake was done.
    Wanted,
    Sent,
}

enum Conn {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

impl RustlsCodec {
    /// A client that asks for `name`. Nothing is sent before the first [`TlsCodec::read`].
    ///
    /// # Errors
    /// [`TlsError::Local`]: the configuration contradicts itself.
    pub fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        limits: TlsLimits,
    ) -> Result<Self, TlsError> {
        Ok(RustlsCodec::new(Conn::Client(UnbufferedClientConnection::new(config, name)?), limits))
    }

    /// A server with this configuration, whatever the client asks for.
    ///
    /// # Errors
    /// [`TlsError::Local`]: the configuration contradicts itself.
    pub fn server(config: Arc<ServerConfig>, limits: TlsLimits) -> Result<Self, TlsError> {
        Ok(RustlsCodec::new(Conn::Server(UnbufferedServerConnection::new(config)?), limits))
    }

    /// A server with the configuration that was chosen for this hello, which is still in the input.
    ///
    /// # Errors
    /// As [`RustlsCodec::server`].
    pub fn server_for(
        hello: ClientHello,
        config: Arc<ServerConfig>,
        limits: TlsLimits,
    ) -> Result<Self, TlsError> {
        let mut codec = RustlsCodec::server(config, limits)?;
        codec.server_name = hello.server_name;
        Ok(codec)
    }

    /// With records of such lengths.
    #[must_use]
    pub fn with_sizing(mut self, sizing: RecordSizing) -> Self {
        self.sizing = sizing;
        self
    }

    fn new(conn: Conn, limits: TlsLimits) -> Self {
        RustlsCodec {
            conn,
            limits,
            sizing: RecordSizing::Full,
            server_name: None,
            partial: Vec::new(),
            started: false,
            peer_closed: false,
            closed: Closed::No,
            handshake_bytes: 0,
            idle_records: 0,
            early_bytes: 0,
            sent_records: 0,
            sent_bytes: 0,
            failed: None,
        }
    }

    /// Runs `work`, sends what it made even when it failed, and remembers the failure.
    fn guarded(
        &mut self,
        output: &mut TxQueue,
        work: impl FnOnce(&mut Self, &mut Vec<u8>) -> Result<(), TlsError>,
    ) -> Result<(), TlsError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut made = Vec::new();
        let result = work(self, &mut made);
        output.push(made);
        if let Err(error) = &result
            && *error != TlsError::WriteClosed
        {
            self.failed = Some(error.clone());
            self.partial = Vec::new();
        }
        result
    }

    fn read_records(
        &mut self,
        input: &mut RxQueue,
        plain: &mut RxQueue,
        max: usize,
        made: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        if !self.started {
            self.started = true;
            self.drive_partial(None, plain, made)?;
        }
        while plain.len() < max && !self.peer_closed {
            let Some(record) = front_record(input) else { break };
            self.meter(record)?;
            let was_handshake = self.conn.common().is_handshaking();
            let brought = self.read_record(record, input, plain, made)?;
            self.progress(record, brought, was_handshake)?;
            if self.closed == Closed::Wanted && !self.conn.common().is_handshaking() {
                self.send_close(plain, made)?;
            }
        }
        if self.peer_closed {
            input.consume(input.len());
        }
        Ok(())
    }

    /// Whether a record may still come.
    fn meter(&self, record: usize) -> Result<(), TlsError> {
        let so_far =
            if self.conn.common().is_handshaking() { self.handshake_bytes } else { self.partial.len() };
        if so_far + record > self.limits.handshake_bytes.max(MAX_RECORD) {
            return Err(TlsError::Limit(TlsLimit::HandshakeBytes));
        }
        Ok(())
    }

    /// Counts a record that was read, and what it brought.
    fn progress(&mut self, record: usize, brought: usize, was_handshake: bool) -> Result<(), TlsError> {
        if was_handshake {
            if brought == 0 {
                self.handshake_bytes += record;
            } else {
                self.early_bytes += brought as u64;
            }
            return Ok(());
        }
        self.idle_records = if brought == 0 { self.idle_records + 1 } else { 0 };
        if self.idle_records > self.limits.idle_records {
            return Err(TlsError::Limit(TlsLimit::IdleRecords));
        }
        Ok(())
    }

    /// Reads the record in front, which is whole or fails by what is there. Returns the bytes of plaintext that it brought.
    fn read_record(
        &mut self,
        len: usize,
        input: &mut RxQueue,
        plain: &mut RxQueue,
        made: &mut Vec<u8>,
    ) -> Result<usize, TlsError> {
        let before = plain.len();
        input.gather(len);
        let buf = &mut input.front_mut()[..len];
        if self.partial.is_empty() {
            let done = self.conn.drive(buf, None, plain, made, &mut self.peer_closed)?;
            self.partial.extend_from_slice(&buf[done..]);
        } else {
            self.partial.extend_from_slice(buf);
            self.drive_partial(None, plain, made)?;
        }
        input.consume(len);
        Ok(plain.len() - before)
    }

    fn drive_partial(
        &mut self,
        act: Option<Act<'_>>,
        plain: &mut RxQueue,
        made: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        let done = self.conn.drive(&mut self.partial, act, plain, made, &mut self.peer_closed)?;
        if done == self.partial.len() {
            self.partial = Vec::new();
        } else {
            self.partial.drain(..done);
        }
        Ok(())
    }

    /// What rustls is asked to do between two reads: nothing waits in it then that could become plaintext.
    fn act(&mut self, act: Act<'_>, made: &mut Vec<u8>) -> Result<(), TlsError> {
        let mut none = RxQueue::new();
        let result = self.drive_partial(Some(act), &mut none, made);
        debug_assert!(none.is_empty(), "plaintext is taken with the record that brings it");
        result
    }

    fn send_close(&mut self, plain: &mut RxQueue, made: &mut Vec<u8>) -> Result<(), TlsError> {
        self.closed = Closed::Sent;
        self.drive_partial(Some(Act::Close), plain, made)
    }

    /// The plaintext of the next record at most.
    fn record_len(&mut self) -> usize {
        if self.sizing == RecordSizing::Full || self.sent_bytes >= DYNAMIC_UNTIL {
            return MAX_PLAIN;
        }
        self.sent_records += 1;
        (self.sent_records * DYNAMIC_STEP).min(MAX_PLAIN)
    }

    /// Encrypts the front of `plain`: pieces that are shorter than a record share one.
    fn write_front(&mut self, plain: &mut TxQueue, made: &mut Vec<u8>) -> Result<(), TlsError> {
        let record = self.record_len();
        let front = plain.slices().next().unwrap_or_default();
        let taken = if front.len() >= record || front.len() == plain.len() {
            // rustls cuts what is longer into full records.
            let most = if record == MAX_PLAIN { MAX_BATCH } else { record };
            let batch = &front[..front.len().min(most)];
            self.act(Act::Encrypt(batch), made)?;
            batch.len()
        } else {
            let mut batch = Vec::with_capacity(record.min(plain.len()));
            for slice in plain.slices() {
                batch.extend_from_slice(&slice[..slice.len().min(record - batch.len())]);
                if batch.len() == record {
                    break;
                }
            }
            self.act(Act::Encrypt(&batch), made)?;
            batch.len()
        };
        plain.advance(taken);
        self.sent_bytes = self.sent_bytes.saturating_add(taken);
        Ok(())
    }
}

impl TlsCodec for RustlsCodec {
    fn read(
        &mut self,
        input: &mut RxQueue,
        plain: &mut RxQueue,
        max: usize,
        output: &mut TxQueue,
    ) -> Result<TlsPhase, TlsError> {
        self.guarded(output, |codec, made| codec.read_records(input, plain, max, made))?;
        Ok(self.phase())
    }

    fn read_end(&mut self) -> Result<(), TlsError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.peer_closed {
            return Ok(());
        }
        let is_handshake = self.phase() == TlsPhase::Handshake;
        let error = if is_handshake { TlsError::EndedInHandshake } else { TlsError::Truncated };
        self.failed = Some(error.clone());
        Err(error)
    }

    fn write(&mut self, plain: &mut TxQueue, output: &mut TxQueue) -> Result<(), TlsError> {
        while !plain.is_empty() && self.phase() != TlsPhase::Handshake {
            self.guarded(output, |codec, made| match codec.closed {
                Closed::No => codec.write_front(plain, made),
                Closed::Wanted | Closed::Sent => Err(TlsError::WriteClosed),
            })?;
        }
        self.guarded(output, |_, _| Ok(()))
    }

    fn close(&mut self, output: &mut TxQueue) -> Result<(), TlsError> {
        self.guarded(output, |codec, made| {
            if codec.closed == Closed::Sent {
                return Ok(());
            }
            if codec.conn.common().is_handshaking() {
                codec.closed = Closed::Wanted;
                return Ok(());
            }
            codec.send_close(&mut RxQueue::new(), made)
        })
    }

    fn refresh_keys(&mut self, output: &mut TxQueue) -> Result<(), TlsError> {
        if self.phase() == TlsPhase::Handshake {
            return Err(TlsError::Local(rustls::Error::HandshakeNotComplete));
        }
        if self.conn.common().protocol_version() != Some(rustls::ProtocolVersion::TLSv1_3) {
            let why = "TLS 1.2 has no key update".to_owned();
            return Err(TlsError::Local(rustls::Error::General(why)));
        }
        self.guarded(output, |codec, made| match codec.closed {
            Closed::No => codec.act(Act::Refresh, made),
            Closed::Wanted | Closed::Sent => Err(TlsError::WriteClosed),
        })
    }

    fn phase(&self) -> TlsPhase {
        match (self.conn.common().is_handshaking(), self.peer_closed, self.closed) {
            (true, ..) => TlsPhase::Handshake,
            (false, true, Closed::Sent) => TlsPhase::Closed,
            (false, true, Closed::No | Closed::Wanted) => TlsPhase::PeerClosed,
            (false, false, _) => TlsPhase::Open,
        }
    }

    fn info(&self) -> Option<TlsInfo<'_>> {
        let common = self.conn.common();
        if common.is_handshaking() {
            return None;
        }
        Some(TlsInfo {
            version: common.protocol_version()?,
            suite: common.negotiated_cipher_suite()?.suite(),
            group: common.negotiated_key_exchange_group().map(|group| group.name()),
            alpn: common.alpn_protocol(),
            server_name: self.server_name.as_deref(),
            peer_certificates: common.peer_certificates(),
            kind: common.handshake_kind()?,
            early_bytes: self.early_bytes,
        })
    }
}

/// The bytes of the record in front, with its header, once they are there. What no record begins with is given at once, for
/// rustls to refuse: another type than 20 to 24, or a length that may not be. RFC 8446 5.1.
fn front_record(input: &mut RxQueue) -> Option<usize> {
    if !matches!(input.front().first()?, 20..=24) {
        return Some(1);
    }
    if input.len() < HEADER {
        return None;
    }
    let header: &[u8] = input.gather(HEADER);
    let len = HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
    if len == HEADER || len >= MAX_RECORD {
        return Some(HEADER);
    }
    (input.len() >= len).then_some(len)
}

/// What is to be done when the connection is open.
enum Act<'a> {
    Encrypt(&'a [u8]),
    Close,
    Refresh,
}

impl Conn {
    fn common(&self) -> &CommonState {
        match self {
            Conn::Client(conn) => conn,
            Conn::Server(conn) => conn,
        }
    }

    fn drive(
        &mut self,
        buf: &mut [u8],
        act: Option<Act<'_>>,
        plain: &mut RxQueue,
        made: &mut Vec<u8>,
        peer_closed: &mut bool,
    ) -> Result<usize, TlsError> {
        let drive = Drive { act, plain, made, peer_closed };
        match self {
            Conn::Client(conn) => drive.run::<ClientConnectionData>(conn, buf),
            Conn::Server(conn) => drive.run::<ServerConnectionData>(conn, buf),
        }
    }
}

/// What the two roles do not share in rustls's types.
trait Side: Sized {
    fn process<'c, 'i>(
        conn: &'c mut UnbufferedConnectionCommon<Self>,
        buf: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self>;

    fn take_early(early: ReadEarlyData<'_, '_, Self>, plain: &mut RxQueue) -> Result<(), rustls::Error>;
}

impl Side for ClientConnectionData {
    fn process<'c, 'i>(
        conn: &'c mut UnbufferedConnectionCommon<Self>,
        buf: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self> {
        conn.process_tls_records(buf)
    }

    fn take_early(_: ReadEarlyData<'_, '_, Self>, _: &mut RxQueue) -> Result<(), rustls::Error> {
        unreachable!("only a server receives early data")
    }
}

impl Side for ServerConnectionData {
    fn process<'c, 'i>(
        conn: &'c mut UnbufferedConnectionCommon<Self>,
        buf: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self> {
        conn.process_tls_records(buf)
    }

    fn take_early(mut early: ReadEarlyData<'_, '_, Self>, plain: &mut RxQueue) -> Result<(), rustls::Error> {
        while let Some(record) = early.next_record() {
            plain.push(PoolBuf::copied(record?.payload));
        }
        Ok(())
    }
}

/// One run of rustls's states, until it has nothing to say.
struct Drive<'a> {
    act: Option<Act<'a>>,
    plain: &'a mut RxQueue,
    made: &'a mut Vec<u8>,
    peer_closed: &'a mut bool,
}

impl Drive<'_> {
    /// Returns how much of `buf` rustls is done with.
    fn run<S: Side>(
        mut self,
        conn: &mut UnbufferedConnectionCommon<S>,
        buf: &mut [u8],
    ) -> Result<usize, TlsError> {
        let mut done = 0;
        loop {
            let UnbufferedStatus { discard, state, .. } = S::process(conn, &mut buf[done..]);
            let state = match state {
                Ok(state) => state,
                Err(error) => {
                    done += discard;
                    self.take_alerts(conn, &mut buf[done..]);
                    return Err(error.into());
                }
            };
            let is_quiet = match state {
                ConnectionState::ReadTraffic(mut traffic) => {
                    // Its records say that nothing beside `discard` is to be dropped: they are copies already.
                    while let Some(record) = traffic.next_record() {
                        self.plain.push(PoolBuf::copied(record?.payload));
                    }
                    false
                }
                ConnectionState::ReadEarlyData(early) => {
                    S::take_early(early, self.plain)?;
                    false
                }
                ConnectionState::EncodeTlsData(encode) => {
                    self.encode(encode);
                    false
                }
                ConnectionState::TransmitTlsData(transmit) => {
                    transmit.done();
                    false
                }
                ConnectionState::PeerClosed => {
                    *self.peer_closed = true;
                    false
                }
                ConnectionState::WriteTraffic(write) => match self.act.take() {
                    Some(act) => self.act(act, write)?,
                    None => true,
                },
                ConnectionState::BlockedHandshake | ConnectionState::Closed => true,
                // Later versions may add states; none of them is skipped.
                other => {
                    return Err(TlsError::Local(rustls::Error::General(format!("unknown state {other:?}"))));
                }
            };
            done += discard;
            if is_quiet {
                return Ok(done);
            }
        }
    }

    /// Whether nothing follows from it.
    fn act<S>(&mut self, act: Act<'_>, mut write: WriteTraffic<'_, S>) -> Result<bool, TlsError> {
        let sealed = match act {
            Act::Encrypt(bytes) => {
                let records = bytes.len() / MAX_PLAIN + 1;
                self.seal(bytes.len() + records * OVERHEAD, |room| write.encrypt(bytes, room))
            }
            Act::Close => self.seal(OVERHEAD + 2, |room| write.queue_close_notify(room)),
            Act::Refresh => {
                write.refresh_traffic_keys()?;
                return Ok(false);
            }
        };
        match sealed {
            Ok(()) => Ok(true),
            Err(EncryptError::EncryptExhausted) => {
                // A close_notify waits in TLS 1.2; in TLS 1.3 keys are refreshed long before.
                let _ = self.seal(OVERHEAD + 2, |room| write.queue_close_notify(room));
                Err(TlsError::KeysExhausted)
            }
            Err(EncryptError::InsufficientSize(size)) => {
                unreachable!("{} bytes were asked for and given", size.required_size)
            }
        }
    }

    /// Has `write` fill room at the end of what was made; `want` bytes, or as many as it asks for.
    fn seal(
        &mut self,
        want: usize,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), EncryptError> {
        let at = self.made.len();
        self.made.resize(at + want, 0);
        let mut result = write(&mut self.made[at..]);
        if let Err(EncryptError::InsufficientSize(size)) = &result {
            // A key update goes in front.
            self.made.resize(at + size.required_size, 0);
            result = write(&mut self.made[at..]);
        }
        self.made.truncate(at + *result.as_ref().unwrap_or(&0));
        result.map(drop)
    }

    fn encode<S>(&mut self, mut encode: EncodeTlsData<'_, S>) {
        let at = self.made.len();
        // Asked without room, it tells how much it takes.
        let Err(EncodeError::InsufficientSize(size)) = encode.encode(&mut []) else { return };
        self.made.resize(at + size.required_size, 0);
        encode.encode(&mut self.made[at..]).expect("it asked for this much");
    }

    /// An alert waits behind the error that it tells of.
    fn take_alerts<S: Side>(&mut self, conn: &mut UnbufferedConnectionCommon<S>, buf: &mut [u8]) {
        while conn.wants_write() {
            match S::process(conn, buf).state {
                Ok(ConnectionState::EncodeTlsData(encode)) => self.encode(encode),
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// Type, version, length. RFC 8446 5.1.
const HEADER: usize = 5;
/// No record is as long, with its header: TLS 1.2 allows 2,048 bytes around the plaintext, which no cipher needs. RFC 5246 6.2.3.
const MAX_RECORD: usize = HEADER + MAX_PLAIN + 2048;
/// The plaintext of a record at most. RFC 8446 5.1.
const MAX_PLAIN: usize = 16 * 1024;
/// Plaintext encrypted into one allocation at most.
const MAX_BATCH: usize = 4 * MAX_PLAIN;
/// Around the plaintext of a record at most: header, nonce and tag of AES-GCM in TLS 1.2.
const OVERHEAD: usize = HEADER + 8 + 16;
/// What [`RecordSizing::Dynamic`] makes each record longer than the one before: a TCP segment's payload.
const DYNAMIC_STEP: usize = 1_300;
/// Bytes after which [`RecordSizing::Dynamic`] makes full records.
const DYNAMIC_UNTIL: usize = 128 * 1024;
