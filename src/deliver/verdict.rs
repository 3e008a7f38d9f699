//! What an answer means: one table.

/// What is to be done after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It arrived.
    Delivered,
    /// Try again later.
    Retry,
    /// This POST isn't wanted: halve it, and set a single event aside.
    Refused,
    /// The property or the endpoint is set up wrongly: the site waits.
    Misconfigured,
}

/// The verdict on an HTTP status.
pub fn verdict(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Delivered,
        408 | 425 | 429 | 500..=599 => Verdict::Retry,
        400 | 409 | 413 | 414 | 415 | 422 => Verdict::Refused,
        // The set-up is wrong, not the event: someone will mend it, and nothing may be lost until then. A redirect is
        // never followed: a POST carries personal data.
        _ => Verdict::Misconfigured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_contracts() {
        for (name, statuses, want) in [
            ("accepted", vec![200, 202, 204], Verdict::Delivered),
            ("not now", vec![408, 425, 429, 500, 502, 503, 504], Verdict::Retry),
            ("not this", vec![400, 409, 413, 414, 415, 422], Verdict::Refused),
            ("not so", vec![301, 302, 307, 308, 401, 403, 404, 405, 410, 451], Verdict::Misconfigured),
        ] {
            for status in statuses {
                assert_eq!(verdict(status), want, "{name}: {status}");
            }
        }
    }
}
