//! Takes a body out of the received bytes. Data is never copied; chunk lines are read byte by byte, each once.
//!
//! ```text
//! Length ----------------------------------------------------------------+
//! UntilClose --end of input--------------------------------------------+ |
//! Size -digit-> Size -CR-> LineLf -LF-> Data -> DataCr -> DataLf -> Size v v
//!        `-;-> Ext -CR-----^   `-size 0-> Trailers -empty line---------> Done
//! ```

use ringport_platform::buf::{PoolBuf, RxQueue};

use super::error::Error;
use super::head::Trailers;
use super::parse::parse_trailers;
use super::scan::{HeadScan, ScanLimits};
use super::{BodyLen, Limits};

/// Leading zeros count, so that no sender can stretch a size line.
const MAX_SIZE_DIGITS: u8 = 15;

#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// Bytes of the chunk line so far.
    line_bytes: usize,
    /// Bytes of all extensions so far.
    ext_bytes: usize,
    /// Bytes that the body may still have.
    allowed: u64,
    /// Whether a part of the body was taken.
    begun: bool,
    scan: HeadScan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    Size {
        digits: u8,
        size: u64,
    },
    /// Space behind the size, which only an extension may follow.
    Space {
        size: u64,
    },
    Ext {
        size: u64,
    },
    LineLf {
        size: u64,
    },
    Data(u64),
    DataCr,
    DataLf,
    Trailers,
    Done,
}

const NEXT_CHUNK: State = State::Size { digits: 0, size: 0 };

pub(super) enum Decoded {
    NeedInput,
    Data(PoolBuf),
    Trailers(Trailers),
    End,
}

impl Decoder {
    /// # Errors
    /// If the announced length is over the limit.
    pub(super) fn new(len: BodyLen, limits: &Limits) -> Result<Self, Error> {
        let allowed = limits.body_bytes.unwrap_or(u64::MAX);
        let state = match len {
            BodyLen::None | BodyLen::Tunnel | BodyLen::Length(0) => State::Done,
            BodyLen::Length(len) if len > allowed => return Err(Error::BodyTooLarge),
            BodyLen::Length(len) => State::Length(len),
            BodyLen::Chunked => NEXT_CHUNK,
            BodyLen::UntilClose => State::UntilClose,
        };
        Ok(Decoder { state, line_bytes: 0, ext_bytes: 0, allowed, begun: false, scan: HeadScan::default() })
    }

    /// Whether everything up to the end has been taken.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes that are still to come, where known.
    pub(super) fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            // Chunks, or all that comes: only the end tells.
            _ => None,
        }
    }

    /// Counts `count` bytes of a body of known length that were taken off the connection and do not come here.
    ///
    /// # Panics
    /// If the body has no such length, or less is left.
    pub(super) fn take_past(&mut self, count: u64) {
        let State::Length(left) = self.state else {
            panic!("only a known length can be counted past the machine")
        };
        let left = left.checked_sub(count).expect("no more is taken than the body has");
        // No limit: the announced length was found to be within it.
        self.state = if left == 0 { State::Done } else { State::Length(left) };
    }

    pub(super) fn poll(&mut self, rx: &mut RxQueue, eof: bool, limits: &Limits) -> Result<Decoded, Error> {
        loop {
            match self.state {
                State::Done => return Ok(Decoded::End),
                State::UntilClose if rx.is_empty() && eof => self.state = State::Done,
                _ if rx.is_empty() => return Ok(Decoded::NeedInput),
                State::UntilClose => {
                    return self.data(rx, u64::MAX, limits).map(|(data, _)| Decoded::Data(data));
                }
                State::Length(left) => {
                    let (data, taken) = self.data(rx, left, limits)?;
                    self.state = if taken == left { State::Done } else { State::Length(left - taken) };
                    return Ok(Decoded::Data(data));
                }
                State::Data(left) => {
                    let (data, taken) = self.data(rx, left, limits)?;
                    self.state = if taken == left { State::DataCr } else { State::Data(left - taken) };
                    return Ok(Decoded::Data(data));
                }
                State::Trailers => {
                    let Some(trailers) = self.trailers(rx, limits)? else {
                        return Ok(Decoded::NeedInput);
                    };
                    self.state = State::Done;
                    match trailers {
                        Some(trailers) => return Ok(Decoded::Trailers(trailers)),
                        None => continue,
                    }
                }
                _ => self.line(rx, limits)?,
            }
        }
    }

    /// The body, if its length was announced and it lies in the first view; its limit was looked at with its length.
    pub(super) fn take_whole(&mut self, rx: &mut RxQueue) -> Option<PoolBuf> {
        let State::Length(len) = self.state else { return None };
        let len = usize::try_from(len).ok().filter(|len| !self.begun && *len <= rx.front().len())?;
        self.state = State::Done;
        rx.pop(len)
    }

    /// Takes what has arrived of `left` bytes.
    fn data(&mut self, rx: &mut RxQueue, left: u64, limits: &Limits) -> Result<(PoolBuf, u64), Error> {
        let max = usize::try_from(left).unwrap_or(usize::MAX);
        let data = rx.pop(max).unwrap_or_else(|| PoolBuf::copied(&[]));
        debug_assert!(!data.is_empty() && data.len() <= max);
        let taken = data.len() as u64;
        self.begun = true;
        if limits.body_bytes.is_some() {
            self.allowed = self.allowed.checked_sub(taken).ok_or(Error::BodyTooLarge)?;
        }
        Ok((data, taken))
    }

    /// Runs the bytes of chunk lines, and of the CRLF behind chunk data, through the states.
    fn line(&mut self, rx: &mut RxQueue, limits: &Limits) -> Result<(), Error> {
        let mut used = 0;
        for &byte in rx.front() {
            used += 1;
            self.state = self.step(byte, limits)?;
            if matches!(self.state, State::Data(_) | State::Trailers) {
                break;
            }
        }
        rx.consume(used);
        Ok(())
    }

    fn step(&mut self, byte: u8, limits: &Limits) -> Result<State, Error> {
        self.line_bytes += 1;
        if self.line_bytes > limits.chunk_line_bytes {
            return Err(Error::ChunkExtTooLarge);
        }
        match (self.state, byte) {
            (State::Size { digits, size }, byte) if byte.is_ascii_hexdigit() => {
                if digits == MAX_SIZE_DIGITS {
                    return Err(Error::Chunk);
                }
                Ok(State::Size { digits: digits + 1, size: size << 4 | hex_value(byte) })
            }
            (State::Size { digits: 0, .. }, _) => Err(Error::Chunk),
            (State::Size { size, .. } | State::Ext { size }, b'\r') => Ok(State::LineLf { size }),
            (State::Size { size, .. } | State::Space { size }, b' ' | b'\t') => {
                self.extend(State::Space { size }, limits)
            }
            (State::Size { size, .. } | State::Space { size }, b';') => {
                self.extend(State::Ext { size }, limits)
            }
            (State::Ext { size }, byte) if byte == b'\t' || !byte.is_ascii_control() => {
                self.extend(State::Ext { size }, limits)
            }
            (State::LineLf { size }, b'\n') => self.begin_chunk(size, limits),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                self.line_bytes = 0;
                Ok(NEXT_CHUNK)
            }
            _ => Err(Error::Chunk),
        }
    }

    fn extend(&mut self, next: State, limits: &Limits) -> Result<State, Error> {
        self.ext_bytes += 1;
        if self.ext_bytes > limits.chunk_ext_bytes { Err(Error::ChunkExtTooLarge) } else { Ok(next) }
    }

    fn begin_chunk(&mut self, size: u64, limits: &Limits) -> Result<State, Error> {
        self.line_bytes = 0;
        if limits.body_bytes.is_some() && size > self.allowed {
            return Err(Error::BodyTooLarge);
        }
        Ok(if size == 0 { State::Trailers } else { State::Data(size) })
    }

    /// The trailer section once it is whole; `Some(None)` if it has no field.
    fn trailers(&mut self, rx: &mut RxQueue, limits: &Limits) -> Result<Option<Option<Trailers>>, Error> {
        let bounds = ScanLimits {
            first_line: limits.trailer_bytes,
            first_line_error: Error::TrailersTooLarge,
            total: limits.trailer_bytes,
            total_error: Error::TrailersTooLarge,
        };
        let Some(len) = self.scan.poll(rx, bounds)? else { return Ok(None) };
        if len == b"\r\n".len() {
            rx.consume(len);
            return Ok(Some(None));
        }
        parse_trailers(rx.take(len).freeze(), limits).map(|trailers| Some(Some(trailers)))
    }
}

/// Of a digit that was looked at before.
fn hex_value(digit: u8) -> u64 {
    u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    })
}
