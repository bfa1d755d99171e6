//! Finds the end of a head as bytes arrive, looking at each byte once.

use ringport_platform::buf::RxQueue;

use super::error::Error;

/// Where a scan for the empty line stands.
///
/// ```text
/// LineStart --other--> Line --CR--> LineCr --LF--> LineStart --CR--> EndCr --LF--> found
/// ```
///
/// CR and LF occur in these places only; anywhere else they are an error, before any parser sees them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeadScan {
    /// Bytes of the queue that have been looked at.
    scanned: usize,
    /// Bytes of the first line with its CRLF, once it has ended.
    first_line: Option<usize>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    LineStart,
    Line,
    LineCr,
    EndCr,
}

/// How far a scan may look, and what it says beyond.
#[derive(Clone, Copy)]
pub(super) struct ScanLimits {
    pub(super) first_line: usize,
    pub(super) first_line_error: Error,
    pub(super) total: usize,
    pub(super) total_error: Error,
}

/// Views that an unfinished head may lie in; of more those at the end are joined, so that a head which comes byte by
/// byte costs n log n and not n squared.
const MAX_PARTS: usize = 16;

impl HeadScan {
    /// Whether no byte has been looked at.
    pub(super) fn is_untouched(&self) -> bool {
        self.scanned == 0
    }

    /// Looks at the bytes that are new in `rx`. The count of bytes up to and with the empty line, once it is there.
    pub(super) fn poll(&mut self, rx: &mut RxQueue, limits: ScanLimits) -> Result<Option<usize>, Error> {
        let mut part_start = 0;
        for part in rx.parts() {
            let part_end = part_start + part.len();
            while self.scanned < part_end {
                let allowed = self.first_line.map_or(limits.first_line.min(limits.total), |_| limits.total);
                if self.scanned >= allowed {
                    break;
                }
                let window = &part[self.scanned - part_start..part_end.min(allowed) - part_start];
                if self.step(window)? {
                    return Ok(Some(self.scanned));
                }
            }
            part_start = part_end;
        }
        if self.first_line.is_none() && self.scanned >= limits.first_line.min(limits.total) {
            return Err(limits.first_line_error);
        }
        if self.scanned >= limits.total {
            return Err(limits.total_error);
        }
        if rx.parts().nth(MAX_PARTS).is_some() {
            rx.join_tail();
        }
        Ok(None)
    }

    /// Takes at least one byte of a window that is not empty; stops behind each line.
    fn step(&mut self, window: &[u8]) -> Result<bool, Error> {
        debug_assert!(!window.is_empty());
        if matches!(self.state, State::LineStart | State::Line) {
            let Some(at) = memchr::memchr2(b'\r', b'\n', window) else {
                self.scanned += window.len();
                self.state = State::Line;
                return Ok(false);
            };
            if window[at] == b'\n' {
                return Err(Error::BareLineEnd);
            }
            let empty = self.state == State::LineStart && at == 0;
            self.scanned += at + 1;
            self.state = if empty { State::EndCr } else { State::LineCr };
            return Ok(false);
        }
        if window[0] != b'\n' {
            return Err(Error::BareLineEnd);
        }
        self.scanned += 1;
        self.first_line.get_or_insert(self.scanned);
        let found = self.state == State::EndCr;
        self.state = State::LineStart;
        Ok(found)
    }
}
