//! Reads the times of log lines: bytes in, a moment out. Pure.
//!
//! The two forms that nearly all logs use (`10/Oct/2026:13:55:36 +0000` and RFC 3339) are read by hand, everything else by
//! jiff's strptime. A time without an offset is in the format's zone.

use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::FormatError;

/// How a time is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Clock {
    /// Whatever of the forms below it looks like.
    Auto,
    /// Seconds since 1970 with an optional fraction; more digits mean milli-, micro- or nanoseconds.
    Unix,
    /// A strptime pattern.
    Pattern(Box<str>),
}

impl Clock {
    /// The clock for a pattern of the user's, or why it can't be one.
    pub(super) fn from_pattern(pattern: &str) -> Result<Clock, FormatError> {
        // The fast paths read these, and what is near them.
        match pattern {
            "%d/%b/%Y:%H:%M:%S %z"
            | "%d/%b/%Y:%T %z"
            | "%d/%b/%Y:%H:%M:%S"
            | "%Y-%m-%dT%H:%M:%S%z"
            | "%Y-%m-%dT%H:%M:%S%:z"
            | "%Y-%m-%dT%H:%M:%S%.f%:z"
            | "%FT%T%z"
            | "%FT%T%:z"
            | "%Y-%m-%d %H:%M:%S"
            | "%F %T" => return Ok(Clock::Auto),
            // Told apart by their size, where a fraction follows without a dot.
            "%s" | "%s.%f" | "%s%.f" | "%s%f" => return Ok(Clock::Unix),
            _ => {}
        }
        let clock = Clock::Pattern(pattern.into());
        let error = |message: String| FormatError {
            message,
            span: None,
            help: Some("a time pattern looks like `%d/%b/%Y:%H:%M:%S %z`".to_owned()),
        };
        let sample = Timestamp::UNIX_EPOCH.to_zoned_datetime(TimeZone::UTC);
        let sample = jiff::fmt::strtime::format(pattern, &sample)
            .map_err(|cause| error(format!("the time pattern `{pattern}` can't be used: {cause}")))?;
        match clock.read(sample.as_bytes(), &TimeZone::UTC, None) {
            Some(_) => Ok(clock),
            None => Err(error(format!("the time pattern `{pattern}` doesn't give a date and a time"))),
        }
    }

    /// The moment that the text names. `after` is the time of the log's line before: it decides what an hour that the
    /// clocks repeat means.
    pub(super) fn read(&self, text: &[u8], zone: &TimeZone, after: Option<Timestamp>) -> Option<Moment> {
        match self {
            Clock::Auto => auto(text, zone, after),
            Clock::Unix => unix(text).map(Moment::from),
            Clock::Pattern(pattern) => {
                if let Some((pattern, text, name)) = without_zone_name(pattern, text) {
                    let is_utc = matches!(name, b"GMT" | b"UTC" | b"UCT" | b"Z");
                    let zone = if is_utc { &TimeZone::UTC } else { zone };
                    let civil = BrokenDownTime::parse(pattern, text).ok()?.to_datetime().ok()?;
                    return named(civil, zone, name).or_else(|| local(civil, zone, after)).map(Moment::from);
                }
                let offset = trailing_offset(text);
                let text = text.trim_ascii();
                let parsed = BrokenDownTime::parse(pattern.as_bytes(), text).ok()?;
                if parsed.offset().is_some() || parsed.timestamp().is_some() {
                    return parsed.to_timestamp().ok().map(|time| Moment { time, offset });
                }
                let civil = parsed.to_datetime().ok()?;
                match written_out(pattern) {
                    Some(seconds) => {
                        let time = Offset::from_seconds(seconds).ok()?.to_timestamp(civil).ok()?;
                        Some(Moment { time, offset: Some(seconds) })
                    }
                    None => local(civil, zone, after).map(Moment::from),
                }
            }
        }
    }
}

/// Pattern and text without the zone's name, and that: `CET` isn't one zone's alone, so any but UTC's is taken for the
/// format's. `None`: the pattern has none.
fn without_zone_name<'t>(pattern: &str, text: &'t [u8]) -> Option<(String, Vec<u8>, &'t [u8])> {
    let at = pattern.split(' ').position(|word| word == "%Z")?;
    let mut words: Vec<&[u8]> = text.split(|b| *b == b' ').filter(|word| !word.is_empty()).collect();
    let name = if at < words.len() { words.remove(at) } else { b"" };
    let rest: Vec<&str> = pattern.split(' ').filter(|word| *word != "%Z").collect();
    Some((rest.join(" "), words.join(&b' '), name))
}

/// The moment in an hour that the clocks repeat whose name in that zone is this one: `CEST` before `CET`.
fn named(civil: DateTime, zone: &TimeZone, name: &[u8]) -> Option<Timestamp> {
    let both = zone.to_ambiguous_zoned_datetime(civil);
    let moments =
        [both.clone().earlier(), both.later()].into_iter().filter_map(|moment| Some(moment.ok()?.timestamp()));
    moments.into_iter().find(|moment| zone.to_offset_info(*moment).abbreviation().as_bytes() == name)
}

/// The offset that each time has because the pattern itself ends with it: the `Z` of `%Y-%m-%dT%H:%M:%SZ`.
fn written_out(pattern: &str) -> Option<i32> {
    if pattern.ends_with('Z') && !pattern.ends_with("%Z") {
        return Some(0);
    }
    [6, 5].into_iter().find_map(|len| offset(&pattern.as_bytes()[pattern.len().checked_sub(len)?..]).flatten())
}

/// A moment, and how it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub time: Timestamp,
    /// Seconds east of UTC, where the text says it.
    pub offset: Option<i32>,
}

impl From<Timestamp> for Moment {
    fn from(time: Timestamp) -> Self {
        Moment { time, offset: None }
    }
}

fn auto(text: &[u8], zone: &TimeZone, after: Option<Timestamp>) -> Option<Moment> {
    let mut text = text.trim_ascii();
    text = text.strip_prefix(b"[").unwrap_or(text);
    text = text.strip_suffix(b"]").unwrap_or(text);
    match text {
        [_, _, b'/', ..] => clf(text, zone, after),
        [_, _, _, _, b'-' | b'/', ..] => iso(text, zone, after),
        _ => unix(text).map(Moment::from),
    }
}

/// `10/Oct/2026:13:55:36 +0000`; fraction and offset may be missing.
fn clf(text: &[u8], zone: &TimeZone, after: Option<Timestamp>) -> Option<Moment> {
    let [d1, d0, b'/', m1, m2, m3, b'/', y3, y2, y1, y0, b':' | b' ', rest @ ..] = text else { return None };
    let month = match [m1 | 0x20, m2 | 0x20, m3 | 0x20] {
        [b'j', b'a', b'n'] => 1,
        [b'f', b'e', b'b'] => 2,
        [b'm', b'a', b'r'] => 3,
        [b'a', b'p', b'r'] => 4,
        [b'm', b'a', b'y'] => 5,
        [b'j', b'u', b'n'] => 6,
        [b'j', b'u', b'l'] => 7,
        [b'a', b'u', b'g'] => 8,
        [b's', b'e', b'p'] => 9,
        [b'o', b'c', b't'] => 10,
        [b'n', b'o', b'v'] => 11,
        [b'd', b'e', b'c'] => 12,
        _ => return None,
    };
    clock_of_day([year([*y3, *y2, *y1, *y0])?, month, two([*d1, *d0])?], rest, zone, after)
}

/// `2026-10-10T13:55:36+00:00`; fraction and offset may be missing, a space may stand for the `T`, and slashes for the
/// hyphens.
fn iso(text: &[u8], zone: &TimeZone, after: Option<Timestamp>) -> Option<Moment> {
    let [y3, y2, y1, y0, b'-' | b'/', m1, m0, b'-' | b'/', d1, d0, b'T' | b't' | b' ', rest @ ..] = text else {
        return None;
    };
    clock_of_day([year([*y3, *y2, *y1, *y0])?, two([*m1, *m0])?, two([*d1, *d0])?], rest, zone, after)
}

/// The rest that both have: `13:55:36`, a fraction, an offset.
fn clock_of_day(date: [i32; 3], text: &[u8], zone: &TimeZone, after: Option<Timestamp>) -> Option<Moment> {
    let [h1, h0, b':', m1, m0, b':', s1, s0, rest @ ..] = text else { return None };
    let (hour, minute, second) = (two([*h1, *h0])?, two([*m1, *m0])?, two([*s1, *s0])?);
    let [year, month, day] = date;
    if !(1..=12).contains(&month) || !(1..=month_length(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // A leap second has no number of its own.
    let second = second.min(59);
    let (nanos, rest) = match rest {
        [b'.' | b',', digits @ ..] => fraction(digits)?,
        _ => (0, rest),
    };
    match offset(rest.trim_ascii())? {
        Some(offset) => {
            let days = days_since_1970(year, month, day);
            let seconds = days * 86_400 + i64::from(hour * 3600 + minute * 60 + second) - i64::from(offset);
            Timestamp::new(seconds, nanos).ok().map(|time| Moment { time, offset: Some(offset) })
        }
        None => {
            let small = |n: i32| i8::try_from(n).ok();
            let year = i16::try_from(year).ok()?;
            let (month, day) = (small(month)?, small(day)?);
            let civil = DateTime::new(year, month, day, small(hour)?, small(minute)?, small(second)?, nanos).ok()?;
            local(civil, zone, after).map(Moment::from)
        }
    }
}

/// The digits of a fraction of a second as nanoseconds, and what follows them.
fn fraction(text: &[u8]) -> Option<(i32, &[u8])> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let nanos = (0..9).fold(0, |value, at| {
        let digit = if at < digits { i32::from(text[at] - b'0') } else { 0 };
        value * 10 + digit
    });
    Some((nanos, &text[digits..]))
}

/// Seconds east of Greenwich; `Some(None)` where nothing is said.
fn offset(text: &[u8]) -> Option<Option<i32>> {
    let (sign, hours, minutes) = match text {
        [] => return Some(None),
        b"Z" | b"z" | b"UTC" | b"GMT" => return Some(Some(0)),
        [sign, h1, h0, b':', m1, m0] | [sign, h1, h0, m1, m0] => (sign, two([*h1, *h0])?, two([*m1, *m0])?),
        [sign, h1, h0] => (sign, two([*h1, *h0])?, 0),
        _ => return None,
    };
    let seconds = hours * 3600 + minutes * 60;
    match sign {
        b'+' => Some(Some(seconds)),
        b'-' => Some(Some(-seconds)),
        _ => None,
    }
}

/// The offset from UTC, in seconds, that a time ends with; `None`: it doesn't say one.
pub(super) fn trailing_offset(text: &[u8]) -> Option<i32> {
    let text = text.trim_ascii();
    let text = text.strip_suffix(b"]").unwrap_or(text);
    if let [.., digit, b'Z' | b'z'] = text {
        return digit.is_ascii_digit().then_some(0);
    }
    // `13:55:36 +0200`, `13:55:36+02:00`; a date's `-10-10` is no offset, for something follows a time of day.
    [6, 5].into_iter().find_map(|len| {
        let at = text.len().checked_sub(len)?;
        offset(&text[at..]).flatten().filter(|_| text[..at].contains(&b':'))
    })
}

fn unix(text: &[u8]) -> Option<Timestamp> {
    let text = text.trim_ascii();
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 || digits > 19 {
        return None;
    }
    let whole: i128 = text[..digits].iter().fold(0, |value, b| value * 10 + i128::from(b - b'0'));
    let unit: i128 = match whole {
        0..100_000_000_000 => 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    let part = match &text[digits..] {
        [] => 0,
        [b'.' | b',', rest @ ..] => match fraction(rest)? {
            (nanos, []) => i128::from(nanos) * unit / 1_000_000_000,
            // A float as JSON writers print it: 1.7914497e9.
            _ => return float(text),
        },
        _ => return float(text),
    };
    Timestamp::from_nanosecond(whole * unit + part).ok()
}

fn float(text: &[u8]) -> Option<Timestamp> {
    let seconds: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    Timestamp::from_duration(SignedDuration::try_from_secs_f64(seconds).ok()?).ok()
}

/// A moment named without an offset. Of the two readings of an hour that is repeated in autumn, the one that keeps the
/// log going forward: the earlier, unless the log is already past it by more than lines are out of order (by a
/// transfer's length). A line before that is further ahead than the end of the repeated hour is a stray one and says
/// nothing.
fn local(civil: DateTime, zone: &TimeZone, after: Option<Timestamp>) -> Option<Timestamp> {
    let (slack, stray) = (SignedDuration::from_mins(5), SignedDuration::from_mins(150));
    let earlier = zone.to_ambiguous_zoned_datetime(civil).compatible().ok()?.timestamp();
    match after {
        Some(after) if slack < after.duration_since(earlier) && after.duration_since(earlier) < stray => {
            Some(zone.to_ambiguous_zoned_datetime(civil).later().ok()?.timestamp())
        }
        _ => Some(earlier),
    }
}

fn two([tens, ones]: [u8; 2]) -> Option<i32> {
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| i32::from(tens - b'0') * 10 + i32::from(ones - b'0'))
}

fn year([a, b, c, d]: [u8; 4]) -> Option<i32> {
    Some(two([a, b])? * 100 + two([c, d])?)
}

fn month_length(year: i32, month: i32) -> i32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar, counting years from March so that the leap day is last.
fn days_since_1970(year: i32, month: i32, day: i32) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    i64::from(era) * 146_097 + i64::from(of_era * 365 + of_era / 4 - of_era / 100 + of_year) - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_what_a_time_ends_with() {
        for (text, want) in [
            ("[10/Oct/2026:13:55:36 +0200]", Some(7200)),
            ("10/Oct/2026:13:55:36 -0330", Some(-12600)),
            ("2026-10-10T13:55:36+02:00", Some(7200)),
            ("2026-10-10T13:55:36.123Z", Some(0)),
            ("2026-10-10T13:55:36", None),
            ("2026-10-10", None),
            ("1790000000.123", None),
            ("", None),
        ] {
            assert_eq!(trailing_offset(text.as_bytes()), want, "{text}");
        }
    }
    use proptest::prelude::*;

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    #[test]
    fn times_are_read_as_logs_write_them() {
        for (name, text, want) in [
            ("clf", "10/Oct/2026:13:55:36 +0000", Some("2026-10-10T13:55:36Z")),
            ("clf west", "31/Dec/2026:23:00:00 -0330", Some("2027-01-01T02:30:00Z")),
            ("clf in brackets", "[10/Oct/2026:13:55:36 +0200]", Some("2026-10-10T11:55:36Z")),
            ("clf without offset", "10/Oct/2026:13:55:36", Some("2026-10-10T11:55:36Z")),
            ("clf with a fraction", "10/Oct/2026:13:55:36.25 +0000", Some("2026-10-10T13:55:36.25Z")),
            ("leap day", "29/Feb/2024:00:00:00 +0000", Some("2024-02-29T00:00:00Z")),
            ("no leap day", "29/Feb/2026:00:00:00 +0000", None),
            ("leap second", "31/Dec/2016:23:59:60 +0000", Some("2016-12-31T23:59:59Z")),
            ("not a month", "10/Foo/2026:13:55:36 +0000", None),
            ("25 o'clock", "10/Oct/2026:25:55:36 +0000", None),
            ("iso", "2026-10-10T13:55:36+02:00", Some("2026-10-10T11:55:36Z")),
            ("iso zulu", "2026-10-10T13:55:36.123456Z", Some("2026-10-10T13:55:36.123456Z")),
            ("slashes", "2026/10/10 13:55:36.25", Some("2026-10-10T11:55:36.25Z")),
            ("iso with a space, local", "2026-01-10 13:55:36", Some("2026-01-10T12:55:36Z")),
            ("seconds", "1791640536", Some("2026-10-10T13:55:36Z")),
            ("seconds and milliseconds", "1791640536.250", Some("2026-10-10T13:55:36.25Z")),
            ("milliseconds", "1791640536250", Some("2026-10-10T13:55:36.25Z")),
            ("microseconds", "1791640536250000", Some("2026-10-10T13:55:36.25Z")),
            ("a float", "1.7916405360e9", Some("2026-10-10T13:55:36Z")),
            ("nothing", "", None),
            ("a dash", "-", None),
            ("words", "yesterday", None),
        ] {
            let got = Clock::Auto.read(text.as_bytes(), &berlin(), None).map(|moment| moment.time.to_string());
            assert_eq!(got.as_deref(), want, "{name}");
        }
    }

    #[test]
    fn patterns_of_the_users_are_read_or_refused() {
        let clock = Clock::from_pattern("%Y%m%d-%H%M%S%z").unwrap();
        let got = clock.read(b"20261010-135536+0100", &TimeZone::UTC, None).map(|moment| moment.time.to_string());
        assert_eq!(got.as_deref(), Some("2026-10-10T12:55:36Z"));
        let clock = Clock::from_pattern("%d.%m.%Y %H:%M:%S").unwrap();
        let got = clock.read(b"10.10.2026 13:55:36", &berlin(), None).map(|moment| moment.time.to_string());
        assert_eq!(got.as_deref(), Some("2026-10-10T11:55:36Z"));
        for pattern in ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S +00:00", "%Y-%m-%d %H:%M:%S %Z"] {
            let text = pattern.replace("%Y-%m-%d", "2026-10-10").replace("%H:%M:%S", "13:55:36").replace("%Z", "UTC");
            let got = Clock::from_pattern(pattern).unwrap().read(text.as_bytes(), &berlin(), None).unwrap();
            assert_eq!(got.time.to_string(), "2026-10-10T13:55:36Z", "{pattern}");
        }
        // An hour that the clocks repeat is the one that is named; a name that isn't the zone's says nothing.
        let clock = Clock::from_pattern("%Y-%m-%d %H:%M:%S %Z").unwrap();
        for (text, want) in [
            ("2026-10-25 02:30:00 CEST", "2026-10-25T00:30:00Z"),
            ("2026-10-25 02:30:00 CET", "2026-10-25T01:30:00Z"),
            ("2026-10-25 02:30:00 EST", "2026-10-25T00:30:00Z"),
            ("2026-10-10 13:55:36 CET", "2026-10-10T11:55:36Z"),
        ] {
            let got = clock.read(text.as_bytes(), &berlin(), None).map(|moment| moment.time.to_string());
            assert_eq!(got.as_deref(), Some(want), "{text}");
        }
        assert!(Clock::from_pattern("%H:%M").is_err());
        assert!(Clock::from_pattern("%d/%b/%Y %!").is_err());
    }

    #[test]
    fn in_the_repeated_hour_the_log_goes_forward() {
        let at = |text: &str, after: Option<&str>| {
            let after = after.map(|after| after.parse().unwrap());
            Clock::Auto.read(text.as_bytes(), &berlin(), after).unwrap().time.to_string()
        };
        let (first, second) = ("2026-10-25T00:10:00Z", "2026-10-25T01:10:00Z");
        assert_eq!(at("25/Oct/2026:02:10:00", None), first);
        assert_eq!(at("25/Oct/2026:02:10:00", Some("2026-10-25T00:10:05Z")), first);
        assert_eq!(at("25/Oct/2026:02:10:00", Some("2026-10-25T00:59:59Z")), second);
        assert_eq!(at("25/Oct/2026:02:10:00", Some("2099-01-01T00:00:00Z")), first, "a stray line before");
        // A quiet log, twice through the hour.
        let mut after = None;
        let times = ["01:50", "02:10", "02:30", "02:50", "02:10", "02:30", "02:29", "02:50", "03:00"].map(|clock| {
            let text = format!("25/Oct/2026:{clock}:00");
            let time = Clock::Auto.read(text.as_bytes(), &berlin(), after).unwrap().time;
            after = Some(time);
            time.to_string()[11..16].to_owned()
        });
        assert_eq!(times, ["23:50", "00:10", "00:30", "00:50", "01:10", "01:30", "01:29", "01:50", "02:00"]);
    }

    proptest! {
        #[test]
        fn the_fast_path_agrees_with_jiff(second in -2_000_000_000i64..30_000_000_000, offset in -14i8..=14) {
            let time = Timestamp::from_second(second).unwrap();
            let zoned = time.to_zoned_datetime(jiff::tz::offset(offset).to_time_zone());
            for pattern in ["%d/%b/%Y:%H:%M:%S %z", "%Y-%m-%dT%H:%M:%S%:z"] {
                let text = zoned.strftime(pattern).to_string();
                prop_assert_eq!(Clock::Auto.read(text.as_bytes(), &TimeZone::UTC, None).map(|moment| moment.time), Some(time));
            }
        }

        #[test]
        fn any_bytes_are_taken(text in "[0-9TZ:/+.eE -]{0,30}") {
            let _ = Clock::Auto.read(text.as_bytes(), &TimeZone::UTC, None);
        }
    }
}
