//! A glance at a line: the few fields that most rules turn on, without reading the others.
//!
//! Most lines of a log are nobody's event, and it takes little to see that. Where a glance says something, reading the
//! line would say the same; where a line is in any way unusual it says nothing, and the line is read.

use super::{Splitter, begins_with};
use crate::entry::request_parts;
use crate::format::slot::{Slot, When, number};
use crate::format::time::Clock;

/// What a glance at a line has shown. Absent fields are `None`, as in an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance<'l> {
    /// `GET`.
    pub method: Option<&'l [u8]>,
    /// The target's path, percent-encoding kept.
    pub path: &'l [u8],
    /// The response's status code.
    pub status: Option<u16>,
}

/// What is remembered from one glance to the next: many lines have the time of the line before.
#[derive(Debug, Default)]
pub struct Glimpse {
    /// The text of a time that was read and has an offset.
    time: Vec<u8>,
}

impl Splitter {
    /// Whether a glance can show anything at lines of this format.
    pub(in crate::format) fn can_be_glanced_at(&self) -> bool {
        let known = |slot: &Slot| {
            !matches!(
                slot,
                Slot::Method | Slot::Target | Slot::Path { .. } | Slot::Query { .. } | Slot::Time(Clock::Pattern(_))
            )
        };
        self.slots().filter(|slot| **slot == Slot::Request).count() == 1
            && self.slots().all(known)
            && self.pieces.iter().enumerate().all(|(at, piece)| piece.group == at && piece.skip == 0 && !piece.list)
    }

    /// What a glance shows of a line; `None`: nothing, it must be read.
    pub(in crate::format) fn glance<'l>(
        &self,
        line: &'l [u8],
        when: When<'_>,
        glimpse: &mut Glimpse,
    ) -> Option<Glance<'l>> {
        let mut at = self.head.bytes.len();
        if !begins_with(line, &self.head.bytes) || (self.escaped && memchr::memchr(b'\\', line).is_some()) {
            return None;
        }
        let (mut request, mut status) = (None, None);
        for (index, piece) in self.pieces.iter().enumerate() {
            let end = match piece.until.bytes.is_empty() {
                false => self.plain_end(index, piece, line, at)?,
                true => self.end(index, line, at, 0, false)?,
            };
            let value = line.get(at..end)?;
            at = end + piece.until.bytes.len();
            if value.is_empty() || value == b"-" {
                continue;
            }
            match &piece.slot {
                Slot::Request => request = Some(value),
                Slot::Status => status = Some(u16::try_from(number(value)?).ok()?),
                Slot::Number | Slot::Bytes => drop(number(value)?),
                Slot::Time(clock) if value != glimpse.time => {
                    // Which of two hours a time without an offset means depends on the lines before.
                    clock.read(value, when.zone, when.after)?.offset?;
                    glimpse.time.clear();
                    glimpse.time.extend_from_slice(value);
                }
                // They may hold anything.
                _ => {}
            }
        }
        let request = request?;
        let (method, (from, to), _) = request_parts(request);
        let target = &request[from..to];
        if target.first() != Some(&b'/') || target.last() == Some(&b' ') {
            return None;
        }
        let path = &target[..memchr::memchr2(b'?', b'#', target).unwrap_or(target.len())];
        Some(Glance { method: method.map(|(from, to)| &request[from..to]), path, status })
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    use super::Glimpse;
    use crate::format::Format;

    const FORMATS: [&str; 3] = ["common", "combined", "vhost_combined"];

    #[test]
    fn ordinary_lines_are_seen_through() {
        let mut glimpse = Glimpse::default();
        let combined = Format::builtin("combined", &TimeZone::UTC).unwrap();
        assert!(combined.can_be_glanced_at());
        for (request, want) in [
            ("GET /a/b.pdf?x=1 HTTP/1.1", Some(("GET", "/a/b.pdf", Some(206)))),
            ("GET / HTTP/2.0", Some(("GET", "/", Some(206)))),
            ("HEAD /a b#c HTTP/1.1", Some(("HEAD", "/a b", Some(206)))),
            ("-", None),
            ("GET http://docs.example.org/a HTTP/1.1", None),
            (r"GET /\x22 HTTP/1.1", None),
        ] {
            let line =
                format!("192.0.2.7 - - [10/Nov/2026:10:00:00 +0100] \"{request}\" 206 5 \"-\" \"Mozilla/5.0 (X11)\"");
            let seen = combined.glance(line.as_bytes(), &mut glimpse);
            let want = want.map(|(method, path, status)| (Some(method.as_bytes()), path.as_bytes(), status));
            assert_eq!(seen.map(|seen| (seen.method, seen.path, seen.status)), want, "{request}");
        }
    }

    fn part(of: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
        proptest::sample::select(of)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        /// What a glance shows, reading says: of the line, and that it fits.
        #[test]
        fn a_glance_shows_what_reading_says(
            format in 0..FORMATS.len(),
            host in part(&["docs.example.org:443 ", "", "x:y ", "- "]),
            client in part(&["192.0.2.7", "-", "", "a b", "\"", "::1"]),
            user in part(&["-", "me", "a b", "\"\"", "["]),
            time in part(&[
                "10/Nov/2026:10:00:00 +0100", "10/Nov/2026:10:00:00", "31/Feb/2026:10:00:00 +0000", "-", "", "x",
                "10/Nov/2026:10:00:00 +0100] ",
            ]),
            request in part(&[
                "GET /a.pdf HTTP/1.1", "GET /a?b#c", "-", "", "/", "GET  /a HTTP/1.1", "GET /a  HTTP/1.1", "G\"T /a\" 200 5",
                "GET *", "\\x16\\x03", "GET /a\" HTTP/1.1", "get /\\\"a HTTP/1.0", "GET //h/a HTTP/1.1", "1 /a HTTP/1.1",
            ]),
            status in part(&["200", "-", "", "99999", "2x", "200 200"]),
            bytes in part(&["5", "-", "", "99999999999999999999", "5\" "]),
            referer in part(&["-", "https://docs.example.org/", "\"", "a\" \"b", "\\", ""]),
            agent in part(&["Mozilla/5.0", "", "-", "a\"b", "\\\"", "a\" \"b"]),
            end in part(&["", " ", " more", " \"x\"", "\r", "\"", "\0"]),
            cut in 0_usize..400,
        ) {
            let format = Format::builtin(FORMATS[format], &TimeZone::UTC).unwrap();
            let line = format!(
                "{host}{client} - {user} [{time}] \"{request}\" {status} {bytes} \"{referer}\" \"{agent}\"{end}"
            );
            for line in [&line.as_bytes()[..cut.min(line.len())], line.as_bytes()] {
                let mut glimpse = Glimpse::default();
                for _ in 0..2 {
                    let Some(seen) = format.glance(line, &mut glimpse) else { continue };
                    let entry = format.parse(line);
                    prop_assert!(entry.is_some(), "{}", String::from_utf8_lossy(line));
                    let entry = entry.unwrap();
                    prop_assert_eq!(entry.method.as_deref(), seen.method);
                    prop_assert_eq!(entry.path.as_deref(), Some(seen.path));
                    prop_assert_eq!(entry.status, seen.status);
                }
            }
        }
    }
}
