//! A point in time as HTTP writes it. RFC 9110 5.6.7.

use std::time::{Duration, SystemTime};

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
pub type HttpDate = [u8; 29];

/// What `Date` says at `time`, and for how long that holds: a second at most. Years have four digits; what is before 1970 is
/// written as its first second.
pub fn http_date(time: SystemTime) -> (HttpDate, Duration) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    // Once a second on each core, so without the formatter of the standard library.
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
    (text, Duration::from_nanos(1_000_000_000 - u64::from(since.subsec_nanos())))
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar, whose pattern repeats every 146,097 days.
pub fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months counted from March, so that the leap day is the last of the year.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::{civil, http_date};
    use std::time::{Duration, SystemTime};

    #[test]
    fn dates_are_those_of_the_rfc() {
        for (second, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_827_696, "Tue, 29 Feb 2000 12:34:56 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::new(second, 750_000_000);
            let (text, lasts) = http_date(time);
            assert_eq!(std::str::from_utf8(&text), Ok(expected));
            assert_eq!(lasts, Duration::from_millis(250));
            assert_ne!(http_date(time + lasts).0, text, "a second later");
        }
    }

    #[test]
    fn days_follow_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
            (20_454, (2026, 1, 1)),
        ] {
            assert_eq!(civil(days), expected, "day {days}");
        }
    }
}
