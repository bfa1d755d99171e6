//! The `Date` of responses. RFC 9110 6.6.1.

use std::time::{Instant, SystemTime};

use crate::proto::http_date::{HttpDate, http_date};

/// The date of a core, worked out once a second.
#[derive(Default)]
pub(super) struct DateClock(Option<(HttpDate, Instant)>);

impl DateClock {
    /// What `Date` says at `now`.
    pub(super) fn at(&mut self, now: Instant, time_of_day: impl FnOnce() -> SystemTime) -> HttpDate {
        if let Some((text, _)) = self.0.filter(|&(_, until)| now < until) {
            return text;
        }
        let (text, lasts) = http_date(time_of_day());
        self.0 = Some((text, now + lasts));
        text
    }
}

/// Fields with a date behind them, where there is one and none of them is `Date`: a handler's own counts.
pub(super) struct Dated<'d, I> {
    fields: I,
    date: Option<&'d HttpDate>,
}

pub(super) fn dated<'a: 'd, 'd, I>(fields: I, date: Option<&'d HttpDate>) -> Dated<'d, I::IntoIter>
where
    I: IntoIterator<Item = (&'a str, &'a [u8])>,
{
    Dated { fields: fields.into_iter(), date }
}

impl<'a: 'd, 'd, I> Iterator for Dated<'d, I>
where
    I: Iterator<Item = (&'a str, &'a [u8])>,
{
    type Item = (&'d str, &'d [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        match self.fields.next() {
            Some((name, value)) => {
                if name.eq_ignore_ascii_case("date") {
                    self.date = None;
                }
                Some((name, value))
            }
            None => self.date.take().map(|date| ("date", &date[..])),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use super::{DateClock, dated};

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an instant to count from")]
    fn the_system_is_asked_once_a_second() {
        let (mut clock, mut asked) = (DateClock::default(), 0);
        let start = Instant::now();
        let day = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_250);
        let mut at = |millis| {
            let date = clock.at(start + Duration::from_millis(millis), || {
                asked += 1;
                day + Duration::from_millis(millis)
            });
            (date, asked)
        };
        let (first, _) = at(0);
        assert_eq!(&first, b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(749), (first, 1));
        let (second, asked) = at(750);
        assert_eq!((&second, asked), (b"Sun, 06 Nov 1994 08:49:38 GMT", 2));
        assert_eq!(at(1749), (second, 2));
    }

    #[test]
    fn a_date_stands_behind_other_fields_and_there_is_one() {
        let date = *b"Sun, 06 Nov 1994 08:49:37 GMT";
        let own = [("x-a", &b"1"[..]), ("DATE", b"yesterday")];
        let names = |fields: &[(&'static str, &'static [u8])], date| -> Vec<String> {
            dated(fields.iter().copied(), date).map(|(name, _)| name.to_owned()).collect()
        };
        assert_eq!(names(&own[..1], Some(&date)), ["x-a", "date"]);
        assert_eq!(names(&own, Some(&date)), ["x-a", "DATE"]);
        assert_eq!(names(&own[..1], None), ["x-a"]);
    }
}
