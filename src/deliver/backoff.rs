//! When to try again. Pure: the clock and chance are inputs.

use std::time::Duration;

use jiff::Timestamp;

/// The first pause is at most this long.
const FIRST: Duration = Duration::from_millis(500);

/// The pause after the `failures`-th failure: doubled up to `max`, between half and all of it by `chance` (0 to 1).
/// What the endpoint asked for is obeyed, up to `max`.
pub fn pause(failures: u32, max: Duration, retry_after: Option<Duration>, chance: f64) -> Duration {
    let doubled = FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(31))).min(max);
    let jittered = doubled.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0));
    retry_after.map_or(jittered, |asked| asked.min(max).max(jittered))
}

/// A POST that failed this often…
const POISON_FAILURES: u32 = 20;
/// …over this long, while others of its site were delivered, is set aside.
const POISON_AFTER: Duration = Duration::from_secs(3600);

/// Whether it is the POST that is at fault, and not the endpoint.
pub fn is_poison(failures: u32, failing_for: Duration, delivered_meanwhile: u64) -> bool {
    failures >= POISON_FAILURES && failing_for >= POISON_AFTER && delivered_meanwhile > 0
}

/// Reads `Retry-After`: seconds, or an HTTP date.
pub fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // Longer than any pause, however many digits.
        return Some(Duration::from_secs(header.parse().unwrap_or(u64::MAX)));
    }
    // All three forms that an HTTP date may have (RFC 9110, section 5.6.7), and a little more of the usual one.
    let at = match httpdate::parse_http_date(header) {
        Ok(at) => Timestamp::try_from(at).ok()?,
        Err(_) => jiff::fmt::rfc2822::parse(header).ok()?.timestamp(),
    };
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let max = Duration::from_secs(300);
        assert_eq!(pause(1, max, None, 1.0), FIRST);
        assert_eq!(pause(2, max, None, 1.0), FIRST * 2);
        assert_eq!(pause(1, max, None, 0.0), FIRST / 2);
        assert_eq!(pause(u32::MAX, max, None, 1.0), max);
        assert_eq!(pause(1, max, Some(Duration::from_secs(7)), 1.0), Duration::from_secs(7));
        assert_eq!(pause(1, max, Some(Duration::from_secs(86_400)), 1.0), max, "capped");
    }

    #[test]
    fn a_post_is_at_fault_where_it_fails_for_an_hour_and_others_do_not() {
        let hour = Duration::from_secs(3600);
        for (name, failures, failing_for, delivered, want) in [
            ("often, long, others delivered", 20, hour, 1, true),
            ("not often enough", 19, hour * 9, 1_000, false),
            ("not long enough", 1_000, hour - Duration::from_secs(1), 1_000, false),
            ("the endpoint is away for days", 1_000, hour * 48, 0, false),
        ] {
            assert_eq!(is_poison(failures, failing_for, delivered), want, "{name}");
        }
        // With the usual pauses twenty tries take about an hour.
        let tries = (1..20).map(|failures| pause(failures, Duration::from_secs(300), None, 1.0)).sum::<Duration>();
        assert!(tries > hour / 2 && tries < hour * 2, "{tries:?}");
    }

    #[test]
    fn both_forms_of_retry_after_are_read() {
        let now = "2026-11-10T12:00:00Z".parse().unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Tue, 10 Nov 2026 12:02:00 GMT", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Tue, 10 Nov 2026 11:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("Tuesday, 10-Nov-26 12:02:00 GMT", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Tue Nov 10 12:02:00 2026", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("99999999999999999999999", now), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(retry_after("soon", now), None);
    }
}
