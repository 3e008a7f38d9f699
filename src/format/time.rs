//! Times as logs write them.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

/// `10/Oct/2026:13:55:36 +0000`, the time of the common log format; without an offset it is in `zone`.
pub fn common(bytes: &[u8], zone: &TimeZone) -> Option<Timestamp> {
    let number = |from: usize, to: usize| -> Option<i16> {
        let digits = bytes.get(from..to)?;
        digits.iter().try_fold(0_i16, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i16::from(digit - b'0')))
    };
    let small = |from: usize, to: usize| number(from, to).and_then(|number| i8::try_from(number).ok());
    let separators = [(2, b'/'), (6, b'/'), (11, b':'), (14, b':'), (17, b':')];
    if separators.iter().any(|(at, byte)| bytes.get(*at) != Some(byte)) {
        return None;
    }
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let month = bytes.get(3..6)?;
    let month = MONTHS.iter().position(|name| name.as_slice() == month)?;
    let month = i8::try_from(month + 1).ok()?;
    let second = small(18, 20)?;
    // A leap second is the last one of its minute.
    let time =
        DateTime::new(number(7, 11)?, month, small(0, 2)?, small(12, 14)?, small(15, 17)?, second.min(59), 0).ok()?;
    match bytes.get(20..)? {
        [] => zone.to_ambiguous_timestamp(time).compatible().ok(),
        [b' ', sign @ (b'+' | b'-'), ..] if bytes.len() == 26 => {
            let minutes = i64::from(number(22, 24)?) * 60 + i64::from(number(24, 26)?);
            let offset = if *sign == b'-' { -minutes } else { minutes };
            let utc = TimeZone::UTC.to_timestamp(time).ok()?;
            Timestamp::from_second(utc.as_second().checked_sub(offset * 60)?).ok()
        }
        _ => None,
    }
}

/// A time by a strptime pattern; without an offset it is in `zone`.
pub fn by_pattern(bytes: &[u8], pattern: &str, zone: &TimeZone) -> Option<Timestamp> {
    let parsed = BrokenDownTime::parse(pattern.as_bytes(), bytes).ok()?;
    if let Ok(timestamp) = parsed.to_timestamp() {
        return Some(timestamp);
    }
    zone.to_ambiguous_timestamp(parsed.to_datetime().ok()?).compatible().ok()
}

/// Any of the times that need no pattern: RFC 3339, the common log format, seconds since 1970.
pub fn any(bytes: &[u8], zone: &TimeZone) -> Option<Timestamp> {
    let text = std::str::from_utf8(bytes).ok()?;
    common(bytes, zone)
        .or_else(|| text.parse().ok())
        .or_else(|| text.parse::<DateTime>().ok().and_then(|time| zone.to_ambiguous_timestamp(time).compatible().ok()))
        .or_else(|| {
            let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
            let seconds: i64 = seconds.parse().ok()?;
            let nanos: i32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
            Timestamp::new(seconds, nanos).ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_servers_write_them() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap_or(TimeZone::fixed(jiff::tz::offset(2)));
        for (name, text, want) in [
            ("UTC", "10/Oct/2026:13:55:36 +0000", Some("2026-10-10T13:55:36Z")),
            ("east", "10/Oct/2026:13:55:36 +0530", Some("2026-10-10T08:25:36Z")),
            ("west", "10/Oct/2026:13:55:36 -0700", Some("2026-10-10T20:55:36Z")),
            ("no offset", "10/Oct/2026:13:55:36", Some("2026-10-10T11:55:36Z")),
            ("leap second", "31/Dec/2016:23:59:60 +0000", Some("2016-12-31T23:59:59Z")),
            ("no such day", "31/Feb/2026:13:55:36 +0000", None),
            ("no such month", "10/Okt/2026:13:55:36 +0000", None),
            ("cut off", "10/Oct/2026:13:5", None),
            ("empty", "", None),
            ("garbage", "xxxxxxxxxxxxxxxxxxxxxxxxxx", None),
        ] {
            assert_eq!(common(text.as_bytes(), &berlin), want.map(|want| want.parse().unwrap()), "{name}");
        }
    }

    #[test]
    fn a_pattern_reads_times_with_and_without_an_offset() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let with = by_pattern(b"2026-10-10 13:55:36 +0000", "%Y-%m-%d %H:%M:%S %z", &zone);
        assert_eq!(with, "2026-10-10T13:55:36Z".parse().ok());
        let without = by_pattern(b"2026-10-10 13:55:36", "%Y-%m-%d %H:%M:%S", &zone);
        assert_eq!(without, "2026-10-10T12:55:36Z".parse().ok());
        assert_eq!(by_pattern(b"yesterday", "%Y-%m-%d", &zone), None);
    }
}
