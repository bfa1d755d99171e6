//! The `Date` of responses, worked out once a second.

use std::time::SystemTime;

use ringport::proto::http_date::{HttpDate, http_date};
use ringport::proto::http1::FieldBlock;
use ringport_platform::core::CoreTime;

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
        let text = http_date(SystemTime::UNIX_EPOCH).0;
        Clock { text, fields: FieldBlock::default(), behind, until: None }
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
        let (text, lasts) = http_date(SystemTime::now());
        self.text = text;
        let (text, behind) = (&self.text, &self.behind);
        let fields = self.fields.fill(|out| {
            out.put("date", text)?;
            out.put_block(behind);
            Ok(())
        });
        fields.expect("a date is visible ASCII");
        self.until = Some(now + lasts);
    }
}
