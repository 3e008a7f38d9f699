//! A glance at a line: the few fields that most rules turn on, without reading the others.
//!
//! Most lines of a log are nobody's event, and it takes little to see that: what stands behind the last of these fields
//! isn't looked at. Where a glance says something, reading the line would say the same, if the line fits at all; where a
//! line is in any way unusual it says nothing, and the line is read.

use super::{Look, Piece, Splitter, begins_with, stands_at};
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
    /// How many of the format's pieces a glance goes through: up to the last of request and status. `None`: it can't show
    /// anything at lines of this format.
    fn glanced_pieces(&self) -> Option<usize> {
        let known = |slot: &Slot| {
            !matches!(
                slot,
                Slot::Method | Slot::Target | Slot::Path { .. } | Slot::Query { .. } | Slot::Time(Clock::Pattern(_))
            )
        };
        let simple = |(at, piece): (usize, &Piece)| {
            piece.group == at
                && piece.skip == 0
                && !piece.list
                && (at + 1 == self.pieces.len() || !piece.until.bytes.is_empty())
        };
        let mut requests = self.slots().enumerate().filter(|(_, slot)| **slot == Slot::Request);
        let (request, None) = (requests.next()?.0, requests.next()) else { return None };
        let status = self.slots().position(|slot| *slot == Slot::Status).unwrap_or(0);
        let all = self.slots().all(known) && self.pieces.iter().enumerate().all(simple);
        // What ends the last of them is looked for as well.
        Some(request.max(status) + 1).filter(|len| all && *len < self.pieces.len())
    }

    /// Whether a glance can show anything at lines of this format.
    pub(in crate::format) fn can_be_glanced_at(&self) -> bool {
        self.glanced.is_some()
    }

    /// What a glance shows of a line; `None`: nothing, it must be read.
    pub(in crate::format) fn glance<'l>(
        &self,
        line: &'l [u8],
        when: When<'_>,
        glimpse: &mut Glimpse,
    ) -> Option<Glance<'l>> {
        let glanced = self.glanced.as_ref()?;
        if !begins_with(line, &self.head.bytes) {
            return None;
        }
        let mut at = self.head.bytes.len();
        let (mut request, mut status) = (None, None);
        for (index, piece) in self.pieces.get(..glanced.pieces)?.iter().enumerate() {
            let until = &piece.until.bytes[..];
            let rest = line.get(at..)?;
            if let Slot::Time(clock) = &piece.slot {
                // Most lines have the time of the line before.
                let len = glimpse.time.len();
                if !(len > 0 && rest.starts_with(&glimpse.time) && begins_with(&rest[len..], until)) {
                    let value = &rest[..simple_end(piece, until, rest)?];
                    // Which of two hours a time without an offset means depends on the lines before.
                    clock.read(value, when.zone, when.after)?.offset?;
                    glimpse.time.clear();
                    glimpse.time.extend_from_slice(value);
                }
                at += glimpse.time.len() + until.len();
                continue;
            }
            let len = simple_end(piece, until, rest)?;
            let value = &rest[..len];
            at += len + until.len();
            // That a number follows is seen when its turn comes; and else the delimiter may be another.
            let seen_next = piece.look == Look::Number && index + 1 < glanced.pieces;
            if piece.look != Look::Anything && !seen_next && !self.goes_on(index, line, at, true) {
                return None;
            }
            match &piece.slot {
                Slot::Request => request = Some(value).filter(|value| !value.is_empty() && *value != b"-"),
                slot if slot.is_number() && value != b"-" => {
                    let number = number(value)?;
                    if *slot == Slot::Status {
                        status = Some(u16::try_from(number).ok()?);
                    }
                }
                _ if piece.compact && value.contains(&b' ') => return None,
                // They may hold anything.
                _ => {}
            }
        }
        if self.escaped && memchr::memchr(b'\\', &line[..at]).is_some() {
            return None;
        }
        // With as many quotes as the format has, what follows fits or doesn't, but what was seen can't be anything else.
        if glanced.quotes + memchr::memchr_iter(b'"', &line[at..]).count() != self.quotes {
            self.goes_on_to_the_end(line, at, glanced.pieces)?;
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

    /// Whether the line fits from there on, with the pieces from `first` on, each up to the first that looks like its
    /// delimiter.
    fn goes_on_to_the_end(&self, line: &[u8], mut at: usize, first: usize) -> Option<()> {
        if self.escaped && memchr::memchr(b'\\', &line[at..]).is_some() {
            return None;
        }
        for (index, piece) in self.pieces.iter().enumerate().skip(first) {
            let end = match piece.until.bytes.is_empty() {
                false => self.plain_end(index, piece, line, at)?,
                true => self.end(index, line, at, 0, false)?,
            };
            let value = line.get(at..end)?;
            at = end + piece.until.bytes.len();
            let is_absent = value.is_empty() || value == b"-";
            match &piece.slot {
                Slot::Time(_) => return None,
                slot if slot.is_number() && !is_absent => drop(number(value)?),
                _ => {}
            }
        }
        Some(())
    }
}

/// Where the first that looks like a piece's delimiter begins. Quotes before the first quoted field leave it open where
/// that begins.
#[inline]
fn simple_end(piece: &Piece, until: &[u8], rest: &[u8]) -> Option<usize> {
    let lead = *until.first()?;
    let len = if piece.quoted {
        memchr::memchr(lead, rest)?
    } else {
        // What isn't quoted is short.
        let end = rest.iter().position(|byte| *byte == lead || *byte == b'"')?;
        if rest[end] != lead {
            return None;
        }
        end
    };
    stands_at(until, rest, len).then_some(len)
}

/// What a glance goes through.
#[derive(Debug, Clone)]
pub(super) struct Glanced {
    /// So many pieces.
    pieces: usize,
    /// Double quotes of the format itself up to there.
    quotes: usize,
}

impl Glanced {
    /// Of a format; `None`: a glance shows nothing at its lines.
    pub(super) fn of(splitter: &Splitter) -> Option<Self> {
        let pieces = splitter.glanced_pieces()?;
        let literals = splitter.pieces.iter().take(pieces).map(|piece| &piece.until);
        let literals = std::iter::once(&splitter.head).chain(literals);
        let quotes = literals.map(|literal| memchr::memchr_iter(b'"', &literal.bytes).count()).sum();
        Some(Self { pieces, quotes })
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
                let mut glimpse = Glimpse::default();
                for _ in 0..2 {
                    let Some(seen) = format.glance(line, &mut glimpse) else { continue };
                    let Some(entry) = format.parse(line) else { continue };
                    prop_assert_eq!(entry.method.as_deref(), seen.method);
                    prop_assert_eq!(entry.path.as_deref(), Some(seen.path));
                    prop_assert_eq!(entry.status, seen.status);
                }
            }
        }
    }
}
