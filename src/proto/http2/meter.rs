//! Counts frames before they are parsed, and what the connection sends. RFC 9113 10.5.
//!
//! Frames that cost a peer next to nothing and us some work each draw on a budget of their kind: a burst, refilled with
//! time, and refilled by the work that makes such frames fair (an answered request, DATA sent). What the parser limits
//! itself (streams, header lists, unread DATA) is not counted again.

use std::fmt;
use std::time::Instant;

/// How many frames of a kind there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// At once.
    pub burst: u32,
    /// And how many of these come back in a second.
    pub per_second: u32,
}

/// The budgets of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameBudgets {
    /// PING, answers to ours included. Default 100, and 10 a second; each DATA frame either way and each HEADERS received
    /// give one back.
    pub ping: Budget,
    /// SETTINGS, acknowledgements aside. Default 50, and 1 a second.
    pub settings: Budget,
    /// PRIORITY and PRIORITY_UPDATE. Default 200, and 20 a second; each HEADERS received gives four back.
    pub priority: Budget,
    /// WINDOW_UPDATE. Default 1,000, and 100 a second; each DATA frame sent gives four back, each HEADERS received two.
    pub window_update: Budget,
    /// WINDOW_UPDATE of less than 256 bytes, with which a peer asks for frames that are hardly more than their headers.
    /// Default 1,000, and 100 a second.
    pub small_window_update: Budget,
    /// RST_STREAM ("rapid reset"). Default 200, and 50 a second; each stream that we end, and each that a client opens,
    /// gives one back.
    pub reset: Budget,
    /// RST_STREAM that a peer's faults make us send ("made you reset"). Default 100, and 10 a second.
    pub provoked_reset: Budget,
    /// DATA without payload that does not end its stream. Default 100, and 10 a second.
    pub empty_data: Budget,
    /// GOAWAY, and types that nobody knows: a frame of these counts once, and once more for each KiB. Default 100, and 10 a
    /// second; each HEADERS received gives two back.
    pub unknown: Budget,
    /// CONTINUATION frames behind one HEADERS. Default 16.
    pub continuation_count: u32,
    /// Bytes of one compressed header block, in all its frames. Default 48 KiB.
    pub header_block_bytes: u32,
}

impl Default for FrameBudgets {
    fn default() -> Self {
        let budget = |burst, per_second| Budget { burst, per_second };
        FrameBudgets {
            ping: budget(100, 10),
            settings: budget(50, 1),
            priority: budget(200, 20),
            window_update: budget(1000, 100),
            small_window_update: budget(1000, 100),
            reset: budget(200, 50),
            provoked_reset: budget(100, 10),
            empty_data: budget(100, 10),
            unknown: budget(100, 10),
            continuation_count: 16,
            header_block_bytes: 48 * 1024,
        }
    }
}

/// Which budget a peer has used up. The connection ends with GOAWAY `ENHANCE_YOUR_CALM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flood {
    /// [`FrameBudgets::ping`].
    Ping,
    /// [`FrameBudgets::settings`].
    Settings,
    /// [`FrameBudgets::priority`].
    Priority,
    /// [`FrameBudgets::window_update`].
    WindowUpdate,
    /// [`FrameBudgets::small_window_update`].
    SmallWindowUpdate,
    /// [`FrameBudgets::reset`].
    Reset,
    /// [`FrameBudgets::provoked_reset`].
    ProvokedReset,
    /// [`FrameBudgets::empty_data`].
    EmptyData,
    /// [`FrameBudgets::unknown`].
    Unknown,
    /// [`FrameBudgets::continuation_count`].
    Continuation,
    /// [`FrameBudgets::header_block_bytes`].
    HeaderBlock,
}

impl Flood {
    /// What the GOAWAY says besides its code.
    pub fn reason(self) -> &'static str {
        match self {
            Flood::Ping => "too many PING",
            Flood::Settings => "too many SETTINGS",
            Flood::Priority => "too many PRIORITY",
            Flood::WindowUpdate => "too many WINDOW_UPDATE",
            Flood::SmallWindowUpdate => "too many small WINDOW_UPDATE",
            Flood::Reset => "too many RST_STREAM",
            Flood::ProvokedReset => "too many streams with faults",
            Flood::EmptyData => "too many empty DATA",
            Flood::Unknown => "too many frames of no known type",
            Flood::Continuation => "too many CONTINUATION",
            Flood::HeaderBlock => "header block too large",
        }
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

/// Counts the frames of one connection, both ways.
///
/// Bytes may come in pieces of any length, with the same result. Whoever drives a connection without [`Conn`] puts
/// [`Meter::read`] before its parser and [`Meter::wrote`] behind it.
///
/// [`Conn`]: super::Conn
#[derive(Clone, Debug)]
pub struct Meter {
    budgets: FrameBudgets,
    client: bool,
    inbound: Frames,
    outbound: Frames,
    ping: Bucket,
    settings: Bucket,
    priority: Bucket,
    window_update: Bucket,
    small_window_update: Bucket,
    reset: Bucket,
    provoked_reset: Bucket,
    empty_data: Bucket,
    unknown: Bucket,
    /// Of the header block that is being received.
    continuation_count: u32,
    header_block_bytes: u32,
    going_away: bool,
    /// The highest stream of which HEADERS were sent.
    last_sent: u32,
}

impl Meter {
    /// For the server's side, which is sent a preface first.
    pub fn server(budgets: FrameBudgets, now: Instant) -> Self {
        Meter::new(budgets, now, false)
    }

    /// For the client's side, which sends a preface first.
    pub fn client(budgets: FrameBudgets, now: Instant) -> Self {
        Meter::new(budgets, now, true)
    }

    fn new(budgets: FrameBudgets, now: Instant, client: bool) -> Self {
        let bucket = |budget: Budget| Bucket { budget, left: budget.burst, since: now };
        let (inbound, outbound) = if client { (0, PREFACE_LEN) } else { (PREFACE_LEN, 0) };
        Meter {
            budgets,
            client,
            inbound: Frames::behind(inbound),
            outbound: Frames::behind(outbound),
            ping: bucket(budgets.ping),
            settings: bucket(budgets.settings),
            priority: bucket(budgets.priority),
            window_update: bucket(budgets.window_update),
            small_window_update: bucket(budgets.small_window_update),
            reset: bucket(budgets.reset),
            provoked_reset: bucket(budgets.provoked_reset),
            empty_data: bucket(budgets.empty_data),
            unknown: bucket(budgets.unknown),
            continuation_count: 0,
            header_block_bytes: 0,
            going_away: false,
            last_sent: 0,
        }
    }

    /// Counts received bytes. `bytes` is to be parsed if this passes.
    ///
    /// # Errors
    /// The budget that is used up. The same bytes may hold more than one such frame; the connection is to be ended.
    pub fn read(&mut self, now: Instant, mut bytes: &[u8]) -> Result<(), Flood> {
        while let Some(frame) = self.inbound.next(&mut bytes) {
            self.received(now, frame)?;
        }
        Ok(())
    }

    /// Counts sent bytes.
    ///
    /// # Errors
    /// The budget that is used up: of resets that the peer provokes.
    pub fn wrote(&mut self, now: Instant, mut bytes: &[u8]) -> Result<(), Flood> {
        while let Some(frame) = self.outbound.next(&mut bytes) {
            self.sent(now, frame)?;
        }
        Ok(())
    }

    /// Whether a GOAWAY was received.
    pub(super) fn is_going_away(&self) -> bool {
        self.going_away
    }

    /// Whether nothing was sent of a stream, in the client's role.
    pub(super) fn is_unsent(&self, stream: u32) -> bool {
        self.client && stream > self.last_sent
    }

    /// Whether what was sent ends with a whole frame.
    pub(super) fn sent_whole_frames(&self) -> bool {
        self.outbound.at_boundary()
    }

    /// How many of `bytes` belong to the frame that was sent in part.
    pub(super) fn rest_of_frame(&self, bytes: &[u8]) -> usize {
        let mut frames = self.outbound;
        let mut taken = 0;
        while taken < bytes.len() && !frames.at_boundary() {
            let mut one = &bytes[taken..=taken];
            frames.next(&mut one);
            taken += 1;
        }
        taken
    }

    fn received(&mut self, now: Instant, frame: Frame) -> Result<(), Flood> {
        match frame.kind {
            DATA if frame.len > 0 => self.ping.give(1),
            DATA if frame.flags & END_STREAM != 0 => {}
            DATA => self.empty_data.take(now, 1, Flood::EmptyData)?,
            HEADERS | PUSH_PROMISE => {
                self.continuation_count = 0;
                self.header_block_bytes = 0;
                self.header_block(frame)?;
                self.ping.give(1);
                self.priority.give(4);
                self.window_update.give(2);
                self.unknown.give(2);
            }
            PRIORITY | PRIORITY_UPDATE => self.priority.take(now, 1, Flood::Priority)?,
            RST_STREAM => self.reset.take(now, 1, Flood::Reset)?,
            SETTINGS if frame.flags & ACK != 0 => {}
            SETTINGS => self.settings.take(now, 1, Flood::Settings)?,
            PING => self.ping.take(now, 1, Flood::Ping)?,
            WINDOW_UPDATE if frame.word & !RESERVED_BIT < SMALL_UPDATE => {
                self.small_window_update.take(now, 1, Flood::SmallWindowUpdate)?;
            }
            WINDOW_UPDATE => self.window_update.take(now, 1, Flood::WindowUpdate)?,
            CONTINUATION => {
                self.continuation_count += 1;
                if self.continuation_count > self.budgets.continuation_count {
                    return Err(Flood::Continuation);
                }
                self.header_block(frame)?;
            }
            kind => {
                self.going_away |= kind == GOAWAY;
                self.unknown.take(now, 1 + frame.len / 1024, Flood::Unknown)?;
            }
        }
        Ok(())
    }

    fn header_block(&mut self, frame: Frame) -> Result<(), Flood> {
        self.header_block_bytes = self.header_block_bytes.saturating_add(frame.len);
        if self.header_block_bytes > self.budgets.header_block_bytes {
            return Err(Flood::HeaderBlock);
        }
        Ok(())
    }

    fn sent(&mut self, now: Instant, frame: Frame) -> Result<(), Flood> {
        match frame.kind {
            DATA | HEADERS => {
                if frame.kind == DATA {
                    self.ping.give(1);
                    self.window_update.give(4);
                } else if self.client {
                    self.last_sent = self.last_sent.max(frame.stream);
                    self.reset.give(1);
                }
                if frame.flags & END_STREAM != 0 {
                    self.reset.give(1);
                }
                Ok(())
            }
            RST_STREAM if is_provoked(frame.word) => self.provoked_reset.take(now, 1, Flood::ProvokedReset),
            _ => Ok(()),
        }
    }
}

/// Whether a reset with that code answers what the peer did wrong; the others are the doing of whoever drives the machine.
fn is_provoked(code: u32) -> bool {
    // PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, COMPRESSION_ERROR.
    matches!(code, 1 | 3 | 5 | 6 | 7 | 9)
}

/// What is left of a budget.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    budget: Budget,
    left: u32,
    /// Until when what comes back is counted in `left`.
    since: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant, cost: u32, flood: Flood) -> Result<(), Flood> {
        self.refill(now);
        self.left = self.left.checked_sub(cost).ok_or(flood)?;
        Ok(())
    }

    fn give(&mut self, count: u32) {
        self.left = self.left.saturating_add(count).min(self.budget.burst);
    }

    fn refill(&mut self, now: Instant) {
        let rate = u128::from(self.budget.per_second);
        let Some(elapsed) = now.checked_duration_since(self.since).filter(|_| rate > 0) else { return };
        let whole = elapsed.as_nanos() * rate / NANOS;
        if whole == 0 {
            return;
        }
        // A part of a frame is not lost, but nothing is saved up above the burst.
        let rest = elapsed.as_nanos() - whole * NANOS / rate;
        self.since = now - std::time::Duration::from_nanos(rest as u64);
        self.give(u32::try_from(whole).unwrap_or(u32::MAX));
    }
}

const NANOS: u128 = 1_000_000_000;

/// What is seen of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    /// Bytes of its payload.
    len: u32,
    /// The first four of these, for WINDOW_UPDATE and RST_STREAM.
    word: u32,
}

/// Finds the frames in a stream of bytes.
#[derive(Clone, Copy, Debug)]
struct Frames {
    /// The header, and the first bytes of the payload where they are looked at.
    front: [u8; HEADER_LEN + WORD_LEN],
    have: usize,
    /// Bytes before the next header.
    skip: usize,
}

impl Frames {
    fn behind(skip: usize) -> Self {
        Frames { front: [0; HEADER_LEN + WORD_LEN], have: 0, skip }
    }

    fn at_boundary(&self) -> bool {
        self.have == 0 && self.skip == 0
    }

    /// The next frame that begins in `bytes`, of which what was read is taken off.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        *bytes = &bytes[skipped..];
        loop {
            let want = if self.have < HEADER_LEN { HEADER_LEN } else { HEADER_LEN + self.word_len() };
            let count = (want - self.have).min(bytes.len());
            self.front[self.have..self.have + count].copy_from_slice(&bytes[..count]);
            self.have += count;
            *bytes = &bytes[count..];
            if self.have < want {
                return None;
            }
            if want == HEADER_LEN + self.word_len() {
                return Some(self.take());
            }
        }
    }

    /// Bytes of the payload that are looked at, once the header is there.
    fn word_len(&self) -> usize {
        let looked_at = matches!(self.front[3], WINDOW_UPDATE | RST_STREAM);
        if looked_at { self.payload_len().min(WORD_LEN) } else { 0 }
    }

    fn payload_len(&self) -> usize {
        let [high, middle, low, ..] = self.front;
        usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)
    }

    fn take(&mut self) -> Frame {
        let (len, word_len) = (self.payload_len(), self.word_len());
        let word = if word_len == WORD_LEN {
            let [.., a, b, c, d] = self.front;
            u32::from_be_bytes([a, b, c, d])
        } else {
            0
        };
        self.have = 0;
        self.skip = len - word_len;
        let [_, _, _, kind, flags, a, b, c, d, ..] = self.front;
        Frame { kind, flags, stream: u32::from_be_bytes([a, b, c, d]), len: len as u32, word }
    }
}

const HEADER_LEN: usize = 9;
const WORD_LEN: usize = 4;
pub(super) const PREFACE_LEN: usize = 24;

/// An increment below it asks for a frame that is mostly overhead.
const SMALL_UPDATE: u32 = 256;

/// RFC 9113 6.9: to be ignored.
const RESERVED_BIT: u32 = 1 << 31;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const PRIORITY: u8 = 0x2;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PUSH_PROMISE: u8 = 0x5;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;
/// RFC 9218 7.1; the parser knows it not.
const PRIORITY_UPDATE: u8 = 0x10;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
