//! Formats of fields between fixed delimiters, split without a regex.
//!
//! The wild is allowed for where it can be told: further fields behind the last, a missing offset or brackets around the
//! time, unescaped quotes inside a quoted field (it ends at a quote before the next delimiter), user names with spaces.

use std::ops::Range;

use jiff::tz::TimeZone;

use super::{Misfit, time, unescape::unescape};
use crate::entry::{Entry, Text};

/// A field and how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Up to a space.
    Word(&'static str),
    /// Up to ` [`: user names may hold spaces.
    User,
    /// In brackets.
    Time,
    /// In quotes.
    Quoted(&'static str),
}

/// A format of parts, a space between each two.
#[derive(Debug)]
pub struct Delimited {
    parts: &'static [Part],
    text: &'static str,
}

const COMMON: &[Part] = &[
    Part::Word("ip"),
    Part::Word(""),
    Part::User,
    Part::Time,
    Part::Quoted("request"),
    Part::Word("status"),
    Part::Word("bytes"),
];
const COMBINED: &[Part] = &[
    Part::Word("ip"),
    Part::Word(""),
    Part::User,
    Part::Time,
    Part::Quoted("request"),
    Part::Word("status"),
    Part::Word("bytes"),
    Part::Quoted("referer"),
    Part::Quoted("user_agent"),
];
const VHOST_COMBINED: &[Part] = &[
    Part::Word("vhost"),
    Part::Word("ip"),
    Part::Word(""),
    Part::User,
    Part::Time,
    Part::Quoted("request"),
    Part::Word("status"),
    Part::Word("bytes"),
    Part::Quoted("referer"),
    Part::Quoted("user_agent"),
];

impl Delimited {
    /// The built-in format of this name. `common` and `combined` are Apache's; Debian's `vhost_combined` begins `%v:%p`.
    pub fn builtin(name: &str) -> Option<Self> {
        Some(match name {
            "common" => Self { parts: COMMON, text: r#"%h %l %u %t "%r" %>s %O"# },
            "combined" => Self { parts: COMBINED, text: r#"%h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i""# },
            "vhost_combined" => {
                Self { parts: VHOST_COMBINED, text: r#"%v:%p %h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i""# }
            }
            _ => return None,
        })
    }

    /// Whether it reads a field.
    pub fn has(&self, name: &str) -> bool {
        self.parts.iter().any(|part| match part {
            Part::Word(field) | Part::Quoted(field) => *field == name || *field == "vhost" && name == "host",
            Part::User => name == "user",
            Part::Time => name == "time",
        })
    }

    /// How many parts it has.
    pub fn fields(&self) -> usize {
        self.parts.len()
    }

    /// Reads a line; the error says which part failed, and where in the line.
    pub fn parse<'l>(&self, line: &'l [u8], zone: &TimeZone) -> Result<Entry<'l>, (usize, usize)> {
        let bom = if line.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let end = line.len() - usize::from(line.ends_with(b"\r"));
        let mut entry = Entry::default();
        let mut at = bom;
        for (index, part) in self.parts.iter().enumerate() {
            let failed = (index, at);
            if index > 0 {
                if line[..end].get(at) != Some(&b' ') {
                    return Err(failed);
                }
                at += 1;
            }
            let rest = &line[at.min(end)..end];
            let last = index + 1 == self.parts.len();
            let found = match part {
                Part::Word(_) => word(rest),
                Part::User => user(rest),
                Part::Time => bracketed(rest),
                Part::Quoted(_) => quoted(rest, self.parts.get(index + 1), last),
            };
            let (value, taken) = found.ok_or((index, at))?;
            let value = &rest[value];
            self.set(&mut entry, *part, value, zone).ok_or((index, at))?;
            at += taken;
        }
        // What stands behind the last field is its own if a space parts them.
        if at < end && line[at] != b' ' { Err((self.parts.len() - 1, at)) } else { Ok(entry) }
    }

    fn set<'l>(&self, entry: &mut Entry<'l>, part: Part, value: &'l [u8], zone: &TimeZone) -> Option<()> {
        let present = || -> Option<Text<'l>> { (!value.is_empty() && value != b"-").then(|| unescape(value)) };
        match part {
            Part::Word("ip") => {
                if value.is_empty() {
                    return None;
                }
                entry.ip = present();
            }
            Part::Word("vhost") => {
                let host = value.iter().rposition(|byte| *byte == b':').map_or(value, |colon| &value[..colon]);
                entry.host = (!host.is_empty() && host != b"-").then(|| unescape(host));
            }
            Part::Word("status") => match value {
                b"-" => {}
                value => entry.status = Some(number(value).and_then(|n| u16::try_from(n).ok()).filter(|n| *n < 1_000)?),
            },
            Part::Word("bytes") => match value {
                b"-" => {}
                value => entry.bytes = Some(number(value)?),
            },
            Part::User => entry.user = present(),
            Part::Time => match value {
                b"-" | b"" => {}
                value => entry.time = Some(time::any(value, zone)?),
            },
            Part::Quoted("request") => {
                // An absolute target gives the host; a server's own name for itself then gives way to what was asked for.
                if let Some(request) = present() {
                    entry.set_request(request);
                }
            }
            Part::Quoted("referer") => entry.referer = present(),
            Part::Quoted("user_agent") => entry.user_agent = present(),
            Part::Word(_) | Part::Quoted(_) => {}
        }
        Some(())
    }

    /// Where a line stops fitting.
    pub fn misfit(&self, line: &[u8], zone: &TimeZone) -> Option<Misfit> {
        let (part, line_at) = self.parse(line, zone).err()?;
        let start = self.text.split(' ').take(part).map(|token| token.len() + 1).sum::<usize>();
        let len = self.text.split(' ').nth(part).map_or(0, str::len);
        Some(Misfit {
            format_text: self.text.to_owned(),
            format_span: start..start + len,
            line_at: line_at.min(line.len()),
        })
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// A value's place in the rest of the line, and how much of it the part takes.
type Found = Option<(Range<usize>, usize)>;

fn word(rest: &[u8]) -> Found {
    let end = memchr::memchr(b' ', rest).unwrap_or(rest.len());
    (end > 0).then_some((0..end, end))
}

fn user(rest: &[u8]) -> Found {
    // The time's bracket ends the name; without brackets around the time the name is one word.
    match memchr::memmem::find(rest, b" [") {
        Some(end) if memchr::memchr(b'"', &rest[..end]).is_none() => Some((0..end, end)),
        _ => word(rest),
    }
}

fn bracketed(rest: &[u8]) -> Found {
    if rest.first() == Some(&b'[') {
        let end = memchr::memchr(b']', rest)?;
        return Some((1..end, end + 1));
    }
    let end = memchr::memmem::find(rest, b" \"")?;
    Some((0..end, end))
}

/// A quoted value ends at a quote that isn't escaped and that the next part can follow.
fn quoted(rest: &[u8], next: Option<&Part>, last: bool) -> Found {
    if rest.first() != Some(&b'"') {
        return None;
    }
    let mut from = 1;
    while let Some(at) = memchr::memchr(b'"', rest.get(from..)?).map(|at| from + at) {
        let backslashes = rest[1..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        let after = &rest[at + 1..];
        let fits = match next {
            Some(Part::Quoted(_)) => after.starts_with(b" \""),
            Some(Part::Word("status")) => {
                matches!(after, [b' ', b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b' ', ..] | [b' ', b'-', b' ', ..])
            }
            Some(_) => after.starts_with(b" "),
            None => after.is_empty() || after.starts_with(b" "),
        };
        if backslashes % 2 == 0 && fits {
            return Some((1..at, at + 1));
        }
        from = at + 1;
    }
    let _ = last;
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse<'l>(name: &str, line: &'l str) -> Option<Entry<'l>> {
        Delimited::builtin(name).unwrap().parse(line.as_bytes(), &TimeZone::UTC).ok()
    }

    const TAIL: &str = r#"[10/Oct/2026:13:55:36 +0000] "GET /a.pdf HTTP/1.1" 200 512 "-" "Mozilla/5.0""#;

    #[test]
    fn lines_in_the_wild_are_read_for_what_they_hold() {
        for (name, line, user_agent) in [
            ("plain", format!("192.0.2.7 - - {TAIL}"), "Mozilla/5.0"),
            ("a field more", format!("192.0.2.7 - - {TAIL} \"203.0.113.9\" 0.001"), "Mozilla/5.0"),
            ("trailing space", format!("192.0.2.7 - - {TAIL} "), "Mozilla/5.0"),
            ("CRLF", format!("192.0.2.7 - - {TAIL}\r"), "Mozilla/5.0"),
            ("BOM", format!("\u{feff}192.0.2.7 - - {TAIL}"), "Mozilla/5.0"),
            ("a user with spaces", format!("192.0.2.7 - some one {TAIL}"), "Mozilla/5.0"),
            ("IPv6", format!("2001:db8::1 - - {TAIL}"), "Mozilla/5.0"),
        ] {
            let entry = parse("combined", &line).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(entry.text("user_agent").as_deref(), Some(user_agent), "{name}");
            assert_eq!(entry.text("path").as_deref(), Some("/a.pdf"), "{name}");
            assert_eq!(entry.status, Some(200), "{name}");
        }
    }

    #[test]
    fn quotes_inside_fields_are_kept() {
        let line =
            r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET /say-"hi".pdf HTTP/1.1" 200 5 "\x22r\"" "a \"b\" \\""#;
        let entry = parse("combined", line).unwrap();
        assert_eq!(entry.text("path").as_deref(), Some("/say-\"hi\".pdf"));
        assert_eq!(entry.text("referer").as_deref(), Some("\"r\""));
        assert_eq!(entry.text("user_agent").as_deref(), Some("a \"b\" \\"));
    }

    #[test]
    fn what_is_no_such_line_does_not_fit() {
        for (name, line) in [
            ("empty", ""),
            ("one word", "hello"),
            ("cut in half", r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET /a.p"#),
            ("a bad time", r#"192.0.2.7 - - [99/Oct/2026:13:55:36 +0000] "GET / HTTP/1.1" 200 1 "-" "x""#),
            ("a bad status", r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET / HTTP/1.1" ok 1 "-" "x""#),
        ] {
            assert_eq!(parse("combined", line), None, "{name}");
        }
    }

    #[test]
    fn the_host_of_vhost_combined_has_no_port() {
        let line = format!("docs.example.org:443 192.0.2.7 - - {TAIL}");
        assert_eq!(parse("vhost_combined", &line).unwrap().text("host").as_deref(), Some("docs.example.org"));
        let line = format!("[2001:db8::1]:443 192.0.2.7 - - {TAIL}");
        assert_eq!(parse("vhost_combined", &line).unwrap().text("host").as_deref(), Some("[2001:db8::1]"));
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            for name in super::super::BUILTIN {
                let _ = Delimited::builtin(name).unwrap().misfit(&line, &TimeZone::UTC);
            }
        }

        /// What nginx writes of a user agent is read back, whatever its bytes.
        #[test]
        fn fields_come_back_as_they_were_sent(agent in proptest::collection::vec(any::<u8>(), 2..40)) {
            let mut escaped = String::new();
            for byte in &agent {
                match byte {
                    0..=0x1f | b'"' | b'\\' | 0x7f.. => escaped.push_str(&format!("\\x{byte:02X}")),
                    byte => escaped.push(char::from(*byte)),
                }
            }
            let line = format!(r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET / HTTP/1.1" 200 1 "-" "{escaped}""#);
            let entry = parse("combined", &line).unwrap();
            prop_assert_eq!(entry.user_agent.as_deref(), Some(agent.as_slice()));
        }
    }
}
