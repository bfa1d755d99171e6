//! The `Date` of responses, worked out once a second.

use std::time::{Duration, SystemTime};

use ringport::proto::http1::FieldBlock;
use ringport_platform::core::CoreTime;

use super::log::civil;

/// `Sun, 06 Nov 1994 08:49:37 GMT`, RFC 9110 5.6.7.
pub(crate) type HttpDate = [u8; 29];

/// Gives the date of now without asking the system each time.
pub(crate) struct Clock {
    text: HttpDate,
    /// `Date` with what is put behind it.
    fields: FieldBlock,
    behind: FieldBlock,
    until: Option<CoreTime>,
}

impl Clock {
    /// `behind` is what [`Clock::fields`] puts behind the date.
    pub(crate) fn new(behind: FieldBlock) -> Self {
        Clock { text: format(SystemTime::UNIX_EPOCH), fields: FieldBlock::default(), behind, until: None }
    }

    /// The date at `now`, which is the core's.
    pub(crate) fn date(&mut self, now: CoreTime) -> HttpDate {
        self.follow(now);
        self.text
    }

    /// The same as a field, with what is put behind it.
    pub(crate) fn fields(&mut self, now: CoreTime) -> &FieldBlock {
        self.follow(now);
        &self.fields
    }

    #[inline]
    fn follow(&mut self, now: CoreTime) {
        if self.until.is_none_or(|until| now >= until) {
            self.read(now);
        }
    }

    #[cold]
    fn read(&mut self, now: CoreTime) {
        let time = SystemTime::now();
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.text = format(time);
        let (text, behind) = (&self.text, &self.behind);
        let fields = self.fields.fill(|out| {
            out.put("date", text)?;
            out.put_block(behind);
            Ok(())
        });
        fields.expect("a date is visible ASCII");
        self.until = Some(now + Duration::from_nanos(1_000_000_000 - u64::from(since.subsec_nanos())));
    }
}

/// Once a second on each core, so without the formatter of the standard library.
fn format(time: SystemTime) -> HttpDate {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (since / 86_400, since % 86_400);
    let (year, month, day) = civil(days);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    // The first day was a Thursday.
    text[..3].copy_from_slice(DAYS[(days as usize + 4) % 7].as_bytes());
    text[8..11].copy_from_slice(MONTHS[month as usize - 1].as_bytes());
    let year = year % 10_000;
    for (at, number) in [
        (5, day),
        (12, year / 100),
        (14, year % 100),
        (17, second / 3_600),
        (20, second / 60 % 60),
        (23, second % 60),
    ] {
        text[at] = b'0' + (number / 10) as u8;
        text[at + 1] = b'0' + (number % 10) as u8;
    }
    text
}

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::format;
    use std::time::{Duration, SystemTime};

    #[test]
    fn dates_are_those_of_the_rfc() {
        for (second, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_827_696, "Tue, 29 Feb 2000 12:34:56 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            let text = format(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
            assert_eq!(std::str::from_utf8(&text), Ok(expected));
        }
    }
}
