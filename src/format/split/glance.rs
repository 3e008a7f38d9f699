//! A glance at a line: the few fields that most rules turn on, without reading the others.
//!
//! Most lines of a log are nobody's event, and it takes little to see that. Where a line has as many double quotes as the
//! format itself, each of them is one of the format's if the line fits at all, so that those around the request are found by
//! counting. That a time stands before them shows that the line is of the format at all. Where a glance says something,
//! reading the line would say the same, or that it doesn't fit; where a line is in any way unusual a glance says nothing, and
//! the line is read.

use jiff::tz::TimeZone;

use super::{Look, Piece, Quoted, Splitter, begins_with};
use crate::entry::request_parts;
use crate::format::slot::{Slot, number};
use crate::format::time::Clock;
use crate::sixteen::holds_any;

/// What a glance at a line has shown. Absent fields are `None`, as in an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance<'l> {
    /// `GET`.
    pub method: Option<&'l [u8]>,
    /// The target's path, percent-encoding kept.
    pub path: &'l [u8],
    /// Whether it is ASCII, and nothing in it is percent-encoded.
    pub is_plain: bool,
    /// The response's status code.
    pub status: Option<u16>,
}

/// What is remembered from one glance at a log to the next: many lines have the time of the line before.
#[derive(Debug, Default)]
pub struct Glimpse {
    /// What stands before a time that was read, and its text.
    time: Vec<u8>,
}

impl Glimpse {
    /// To be used with another log.
    pub fn forget(&mut self) {
        self.time.clear();
    }
}

/// How a format's lines are glanced at: where the request stands between its quotes, and the status behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glanced {
    /// Double quotes of the format itself up to the one before the request.
    before: usize,
    /// What stands between request and status.
    between: Vec<u8>,
    /// What follows the status.
    until: Vec<u8>,
    /// Double quotes of the format itself from there on.
    behind: usize,
}

/// The time that stands before a request.
#[derive(Debug, Clone)]
pub(super) struct TimeBefore {
    clock: Clock,
    /// What stands before it, and between it and the request.
    lead: Vec<u8>,
    opening: Vec<u8>,
}

impl TimeBefore {
    /// Of a format; `None`: it has it elsewhere, or writes it otherwise.
    pub(super) fn of(splitter: &Splitter) -> Option<Self> {
        let at = splitter.slots().position(|slot| *slot == Slot::Request)?.checked_sub(1)?;
        let piece = splitter.pieces.get(at)?;
        let Slot::Time(clock @ (Clock::Auto | Clock::Unix)) = &piece.slot else { return None };
        let lead = at.checked_sub(1).map_or(&splitter.head, |before| &splitter.pieces[before].until).bytes.clone();
        let opening = piece.until.bytes.clone();
        (!lead.is_empty() && piece.group == at && piece.skip == 0).then(|| Self { clock: clock.clone(), lead, opening })
    }

    /// Whether a time stands there: the last one that was read, or another.
    #[inline]
    fn stands_in(&self, head: &[u8], zone: &TimeZone, glimpse: &mut Glimpse) -> Option<()> {
        let head = head.strip_suffix(&self.opening[..])?;
        if !glimpse.time.is_empty() && head.ends_with(&glimpse.time) {
            return Some(());
        }
        let at = memchr::memrchr(*self.lead.last()?, head)? + 1;
        let from = at.checked_sub(self.lead.len()).filter(|from| head[*from..at] == self.lead)?;
        // Which of two hours a time without an offset means depends on the lines before.
        self.clock.read(&head[at..], zone, None)?.offset?;
        glimpse.time.clear();
        glimpse.time.extend_from_slice(&head[from..]);
        Some(())
    }
}

impl Glanced {
    /// Of a format; `None`: a glance can show nothing at its lines.
    pub(super) fn of(splitter: &Splitter) -> Option<Self> {
        let apart = |slot: &Slot| !matches!(slot, Slot::Method | Slot::Target | Slot::Path { .. } | Slot::Query { .. });
        if !splitter.slots().all(apart) || splitter.slots().filter(|slot| **slot == Slot::Status).count() != 1 {
            return None;
        }
        let mut requests = splitter.slots().enumerate().filter(|(_, slot)| **slot == Slot::Request);
        let (at, None) = (requests.next()?.0, requests.next()) else { return None };
        let [request, status, ..] = splitter.pieces.get(at..)? else { return None };
        let by_itself = |at: usize, piece: &Piece| piece.group == at && piece.skip == 0 && !piece.list;
        let is_plain = by_itself(at, request)
            && by_itself(at + 1, status)
            && status.slot == Slot::Status
            && !status.quoted
            && request.quoted
            && request.look == Look::Number
            && request.until.bytes.first() == Some(&b'"')
            && status.until.bytes.first().is_some_and(|byte| !byte.is_ascii_digit());
        let before = splitter.quotes_before(at);
        let glanced = Self {
            before,
            between: request.until.bytes.clone(),
            until: status.until.bytes.clone(),
            behind: splitter.quotes - splitter.quotes_before(at + 2),
        };
        is_plain.then_some(glanced)
    }

    /// Whether what this way to write a format shows of a line, the other says too, or that the line doesn't fit.
    fn agrees(&self, other: &Self) -> bool {
        let never_both = !self.between.starts_with(&other.between) && !other.between.starts_with(&self.between);
        // Where one fits to the status, the other doesn't fit at all.
        self == other || never_both && self.quotes() == other.quotes()
    }

    /// Those before the request, and all of the format.
    fn quotes(&self) -> (usize, usize) {
        (self.before, self.before + quotes_in(&self.between) + quotes_in(&self.until) + self.behind)
    }
}

fn quotes_in(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'"', bytes).count()
}

impl Splitter {
    /// Double quotes of the format itself before the piece at an index.
    pub(super) fn quotes_before(&self, at: usize) -> usize {
        let literals = self.pieces.iter().take(at).map(|piece| &piece.until);
        quotes_in(&self.head.bytes) + literals.map(|literal| quotes_in(&literal.bytes)).sum::<usize>()
    }

    /// Whether a glance can show anything at lines of a format that is written in these ways.
    pub(in crate::format) fn can_be_glanced_at(ways: &[Splitter]) -> bool {
        let Some(usual) = ways.first().filter(|way| way.time_before.is_some()).and_then(|way| way.glanced.as_ref())
        else {
            return false;
        };
        ways.iter().all(|way| way.glanced.as_ref().is_some_and(|other| usual.agrees(other)))
    }

    /// Double quotes of a line at which a glance can show anything.
    pub(in crate::format) fn quotes(&self) -> usize {
        self.quotes
    }

    /// Whether there is a control character in each line: a tab, mostly.
    pub(in crate::format) fn has_controls(&self) -> bool {
        let mut literals = std::iter::once(&self.head).chain(self.pieces.iter().map(|piece| &piece.until));
        literals.any(|literal| literal.bytes.iter().any(u8::is_ascii_control))
    }

    /// What a glance shows of a line that has so many quotes and no backslash; `None`: nothing, it must be read.
    pub(in crate::format) fn glance<'l>(
        &self,
        line: &'l [u8],
        quotes: Quoted<'_>,
        zone: &TimeZone,
        glimpse: &mut Glimpse,
    ) -> Option<Glance<'l>> {
        let Glanced { before, between, until, .. } = self.glanced.as_ref()?;
        let (start, end) = (quotes.at(before.checked_sub(1)?)? + 1, quotes.at(*before)?);
        self.time_before.as_ref()?.stands_in(&line[..start], zone, glimpse)?;
        let (request, rest) = (&line[start..end], &line[end..]);
        if !begins_with(rest, between) {
            return None;
        }
        let rest = &rest[between.len()..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (status, rest) = match (digits, rest.first()) {
            (0, Some(b'-')) => (None, &rest[1..]),
            (0, _) => return None,
            (digits, _) => (Some(u16::try_from(number(&rest[..digits])?).ok()?), &rest[digits..]),
        };
        if !begins_with(rest, until) {
            return None;
        }
        let (method, (from, to), _) = request_parts(request);
        let target = &request[from..to];
        if target.first() != Some(&b'/') || target.last() == Some(&b' ') {
            return None;
        }
        let is_plain = !holds_any(target, *b"?#%");
        let path = match is_plain {
            true => target,
            false => &target[..memchr::memchr2(b'?', b'#', target).unwrap_or(target.len())],
        };
        Some(Glance { method: method.map(|(from, to)| &request[from..to]), path, is_plain, status })
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    use super::{Glance, Glimpse};
    use crate::format::{Format, Marks, Quotes};

    const FORMATS: [&str; 3] = ["common", "combined", "vhost_combined"];

    /// What a glance shows of a line, which has its newline.
    fn glance<'l>(format: &Format, line: &'l [u8], glimpse: &mut Glimpse) -> Option<Glance<'l>> {
        let mut quotes = Quotes::default();
        let (quoted, end) = quotes.of_line(line, 0, Marks { quotes: format.quotes(), clean: false })?;
        format.glance(&line[..end], quoted, glimpse)
    }

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
                format!("192.0.2.7 - - [10/Nov/2026:10:00:00 +0100] \"{request}\" 206 5 \"-\" \"Mozilla/5.0 (X11)\"\n");
            let seen = glance(&combined, line.as_bytes(), &mut glimpse);
            let want = want.map(|(method, path, status)| (Some(method.as_bytes()), path.as_bytes(), status));
            assert_eq!(seen.map(|seen| (seen.method, seen.path, seen.status)), want, "{request}");
        }
        // What is in another format, be it as alike, is read, and so found not to fit.
        for start in ["192.0.2.7 - - ", "192.0.2.7 - - [] ", "[yesterday] ", "10/Nov/2026:10:00:00 +0100] "] {
            let line = format!("{start}\"GET / HTTP/1.1\" 200 5 \"-\" \"Mozilla/5.0 (X11)\"\n");
            assert_eq!(glance(&combined, line.as_bytes(), &mut glimpse), None, "{start}");
        }
    }

    fn part(of: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
        proptest::sample::select(of)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8_000))]
        /// What a glance shows, reading says, unless the line doesn't fit further on.
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
            noise in proptest::collection::vec(part(&[
                "\"", " ", "] \"", " [", "\" ", "\" \"", " - ", "200", "/b", "GET /c HTTP/1.1", "\\", "\\\"", "-", "\t",
                "10/Nov/2026:10:00:00 +0100", "[10/Nov/2026:10:00:00 +0100] \"", "\"GET /d HTTP/1.1\" 200 ",
            ]), 0..6),
        ) {
            let format = Format::builtin(FORMATS[format], &TimeZone::UTC).unwrap();
            let line = format!(
                "{host}{client} - {user} [{time}] \"{request}\" {status} {bytes} \"{referer}\" \"{agent}\"{end}"
            );
            let (start, rest) = line.as_bytes().split_at(cut.min(line.len()));
            let disturbed = [start, noise.concat().as_bytes(), rest].concat();
            for line in [start, line.as_bytes(), &disturbed] {
                let (mut glimpse, whole) = (Glimpse::default(), [line, b"\n"].concat());
                for _ in 0..2 {
                    let Some(seen) = glance(&format, &whole, &mut glimpse) else { continue };
                    let Some(entry) = format.parse(line) else { continue };
                    prop_assert_eq!(entry.method.as_deref(), seen.method);
                    prop_assert_eq!(entry.path.as_deref(), Some(seen.path));
                    prop_assert!(!seen.is_plain || seen.path.is_ascii() && !seen.path.contains(&b'%'));
                    prop_assert_eq!(entry.status, seen.status);
                }
            }
        }
    }
}
