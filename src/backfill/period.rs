//! Which part of the time is meant, and from when to when an input's lines are.

use std::io;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Input;
use crate::follow::{self, FormatChoice, file};
use crate::format::Reading;

/// A moment, or a day of the log's own calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Anywhere on earth.
    At(Timestamp),
    /// Its midnight in the log's zone.
    Day(jiff::civil::Date),
}

impl Moment {
    /// RFC 3339, or a date.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(day) = text.parse::<jiff::civil::Date>().map_err(|_| ())
            && text.len() == 10
        {
            return Ok(Moment::Day(day));
        }
        let wrong = |_| "neither a date (2026-11-01) nor a time with its offset (2026-11-01T12:00:00Z)".to_owned();
        text.parse().map(Moment::At).map_err(wrong)
    }

    /// Whether it may be later than another; between a day and a moment, the day's zone tells.
    pub fn may_follow(self, other: Moment) -> bool {
        match (self, other) {
            (Moment::At(one), Moment::At(other)) => one > other,
            (Moment::Day(one), Moment::Day(other)) => one > other,
            _ => true,
        }
    }

    pub(super) fn in_zone(self, zone: &TimeZone) -> Timestamp {
        match self {
            Moment::At(at) => at,
            Moment::Day(day) => zone.to_timestamp(day.at(0, 0, 0, 0)).unwrap_or(Timestamp::MIN),
        }
    }
}

/// Which lines are meant, by the log's time: from `since` on, before `until`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    /// The first moment.
    pub since: Option<Moment>,
    /// The first moment that isn't meant any more.
    pub until: Option<Moment>,
    /// Nothing older than this, whatever `since` says.
    pub oldest: Option<Timestamp>,
}

impl Period {
    pub(super) fn is_all(&self) -> bool {
        *self == Period::default()
    }

    /// Whether a log may have lines that are meant, as far as its ends show it.
    pub fn may_hold(&self, extent: &Extent) -> bool {
        // Logs are out of order by a transfer's length, and a day is up to 14 hours away from UTC's.
        let slack = jiff::SignedDuration::from_hours(15);
        let after = |time: Timestamp| time.saturating_add(slack).unwrap_or(Timestamp::MAX);
        let too_late =
            extent.first.zip(self.until).is_some_and(|(first, until)| after(until.in_zone(&TimeZone::UTC)) <= first);
        let too_early = |bound: Timestamp| extent.last.is_some_and(|last| after(last) < bound);
        !too_late
            && !self.since.is_some_and(|since| too_early(since.in_zone(&TimeZone::UTC)))
            && !self.oldest.is_some_and(too_early)
    }

    pub(super) fn holds(&self, time: Timestamp, zone: &TimeZone) -> bool {
        self.since.is_none_or(|since| time >= since.in_zone(zone))
            && self.until.is_none_or(|until| time < until.in_zone(zone))
            && self.oldest.is_none_or(|oldest| time >= oldest)
    }
}

/// From when to when an input's lines are, as far as its ends show it, and how many bytes it has on the disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extent {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Bytes that were given: of standard input less may be kept.
    pub given: u64,
    /// The first line's time.
    pub first: Option<Timestamp>,
    /// The last line's time; an archive's last write, which is later.
    pub last: Option<Timestamp>,
    /// Whether it is that.
    pub is_packed: bool,
}

/// Bytes at a file's ends in which lines with a time are looked for.
pub(super) const ENDS: usize = 64 * 1024;

/// Looks at an input's ends.
///
/// # Errors
/// Those of reading it.
pub fn extent(input: &Input, choice: &FormatChoice) -> io::Result<Extent> {
    let opened = input.open()?;
    let (bytes, _) = opened.file.on_disk();
    let given = match input {
        Input::Stdin(kept) => kept.given(),
        Input::File { .. } => bytes,
    };
    let mut first = follow::deciding_bytes(&opened.file)?;
    if !first.contains(&b'\n') {
        first.push(b'\n');
    }
    let Some(decided) = follow::decide_format(choice, None, &first) else {
        return Ok(Extent { bytes, given, ..Extent::default() });
    };
    let mut reading = Reading::default();
    let mut time = |line: &[u8]| decided.format.parse_in(&mut reading, line).and_then(|entry| entry.time);
    let first = first.split(|&byte| byte == b'\n').find_map(&mut time);
    let mut last_of = |end: &[u8]| end.split(|&byte| byte == b'\n').filter_map(&mut time).last();
    let last = match input {
        Input::Stdin(kept) if !kept.end().is_empty() => last_of(kept.end()),
        _ if opened.file.is_packed() => opened.modified.and_then(|at| Timestamp::try_from(at).ok()),
        _ => last_of(&file::read_before(&opened.file, opened.size, ENDS)?),
    };
    let is_packed = opened.file.is_packed() && !matches!(input, Input::Stdin(kept) if !kept.end().is_empty());
    Ok(Extent { bytes, given, first, last, is_packed })
}
