//! Reading a line that is in no way unusual, by where its quotes are.
//!
//! Where a line has as many double quotes as the format itself, and no backslash, each of them is one of the format's, if
//! the line fits at all: a field that ends before one needn't be searched for its end. What is read so is what
//! [`Splitter::read`] reads; where anything isn't as it mostly is, nothing is, and that one has its say.

use super::{Look, Piece, Quoted, Splitter, Tried, begins_with};
use crate::entry::Entry;
use crate::format::slot::{Slot, When, complete};
use crate::sixteen::position;

/// How each field of a format is found in such a line: what a piece says of that, in a few words.
#[derive(Debug, Clone)]
pub(super) struct Plain(Vec<Field>);

#[derive(Debug, Clone)]
struct Field {
    slot: Slot,
    end: End,
    /// The delimiter that follows.
    until: Box<[u8]>,
    /// Its first bytes, and which bits of them count.
    first: u64,
    mask: u64,
    /// May not hold a space, though its delimiter doesn't begin with one.
    is_word: bool,
    /// The piece before it is a delimiter only before a number.
    is_number: bool,
    then: Then,
    /// One of these three is to be seen to.
    asks_for_more: bool,
}

/// What the line must go on with behind a delimiter.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Anything,
    Digit,
    /// That takes more than a look at the next byte.
    More,
}

#[derive(Debug, Clone, Copy)]
enum End {
    /// So many bytes before the line's quote of this index.
    BeforeQuote { index: usize, bytes: usize },
    /// At the first of these bytes.
    At(u8),
    /// With the line.
    WithLine,
}

/// Bytes of a delimiter that are compared at once.
const AT_ONCE: usize = size_of::<u64>();

impl Plain {
    /// Of a format; `None`: its fields are to be told apart in other ways, too.
    pub(super) fn of(splitter: &Splitter) -> Option<Self> {
        let (mut before, many) = (Look::Anything, splitter.pieces.len());
        let field = |(at, piece): (usize, &Piece)| {
            // From the line's end.
            if let Look::Exactly(_) = piece.look {
                return None;
            }
            let until = &piece.until.bytes[..];
            let end = match (memchr::memchr(b'"', until), until.first()) {
                (Some(bytes), _) => End::BeforeQuote { index: splitter.quotes_before(at), bytes },
                (None, Some(first)) => End::At(*first),
                (None, None) => End::WithLine,
            };
            let (mut bytes, mut mask) = ([0; AT_ONCE], [0; AT_ONCE]);
            for ((byte, known), counts) in until.iter().zip(&mut bytes).zip(&mut mask) {
                (*known, *counts) = (*byte, 0xff);
            }
            // A list has spaces, at which it may be told from what follows.
            let may_go_on = piece.list && (until.first() != Some(&b'"') || piece.slot == Slot::Range);
            let then = match piece.look {
                // That is seen at the end.
                _ if at + 1 == many => Then::Anything,
                Look::Anything => Then::Anything,
                // Whether it is one shows when it is taken.
                Look::Number if splitter.pieces.get(at + 1).is_some_and(|next| next.slot.is_number()) => Then::Anything,
                Look::Digit => Then::Digit,
                Look::Number | Look::Fields | Look::Protocol | Look::Exactly(_) => Then::More,
            };
            let is_by_itself = piece.group == at && piece.skip == 0 && !may_go_on;
            let is_word = piece.compact && !matches!(end, End::At(b' '));
            let is_number = std::mem::replace(&mut before, piece.look) == Look::Number;
            is_by_itself.then(|| Field {
                slot: piece.slot.clone(),
                end,
                until: until.into(),
                first: u64::from_le_bytes(bytes),
                mask: u64::from_le_bytes(mask),
                is_word,
                is_number,
                then,
                asks_for_more: is_word || is_number || then != Then::Anything,
            })
        };
        splitter.pieces.iter().enumerate().map(field).collect::<Option<_>>().map(Self)
    }
}

impl Field {
    /// Whether its delimiter stands at the beginning of what follows it.
    #[inline]
    fn ends_before(&self, rest: &[u8]) -> bool {
        match rest.first_chunk() {
            Some(first) => {
                u64::from_le_bytes(*first) & self.mask == self.first
                    && (self.until.len() <= AT_ONCE || rest.starts_with(&self.until))
            }
            // The line is at its end.
            None => rest.starts_with(&self.until),
        }
    }
}

impl Splitter {
    /// Whether [`Splitter::read_plain`] can read any line.
    pub(in crate::format) fn reads_plain_lines(&self) -> bool {
        self.plain.is_some()
    }

    /// Reads a line without line ending that has so many quotes as the format and no backslash into an empty entry; `None`:
    /// it must be read with more care, into another.
    // Within another function it would have few registers.
    #[inline(never)]
    pub(in crate::format) fn read_plain<'l>(
        &self,
        line: &'l [u8],
        quotes: Quoted<'_>,
        when: When<'_>,
        entry: &mut Entry<'l>,
    ) -> Option<()> {
        let Plain(fields) = self.plain.as_ref()?;
        if !begins_with(line, &self.head.bytes) {
            return None;
        }
        let mut at = self.head.bytes.len();
        for (index, field) in fields.iter().enumerate() {
            let rest = line.get(at..)?;
            let len = match field.end {
                End::BeforeQuote { index, bytes } => quotes.at(index)?.checked_sub(bytes + at)?,
                End::At(byte) => position(rest, byte)?,
                // What ends with the line may end before the blanks there.
                End::WithLine => Some(rest.len()).filter(|_| rest.iter().all(|byte| *byte > b' '))?,
            };
            let (value, rest) = rest.split_at_checked(len)?;
            if !field.ends_before(rest) {
                return None;
            }
            at += len + field.until.len();
            if field.asks_for_more && !self.has_more(field, index, value, line, at) {
                return None;
            }
            if !matches!(value, b"" | b"-") && !field.slot.take_borrowed(value, when, entry) {
                return None;
            }
        }
        complete(entry);
        (at == line.len()).then_some(())
    }

    /// Whether a field's value, and what follows its delimiter, are what must be there.
    fn has_more(&self, field: &Field, index: usize, value: &[u8], line: &[u8], at: usize) -> bool {
        if field.is_word && value.contains(&b' ') || field.is_number && value.is_empty() {
            return false;
        }
        match field.then {
            Then::Anything => true,
            Then::Digit => line.get(at).is_some_and(u8::is_ascii_digit),
            Then::More => self.goes_on(index, line, at, true, &mut Tried::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    use crate::entry::Entry;
    use crate::format::{Format, Marks, Quotes, Reading};

    fn formats() -> Vec<Format> {
        let builtin = |name: &str| Format::builtin(name, &TimeZone::UTC).unwrap();
        let nginx = |text: &str| Format::nginx("mine", text, TimeZone::UTC).unwrap();
        let apache = |text: &str| Format::apache("mine", text, TimeZone::UTC).unwrap();
        vec![
            builtin("common"),
            builtin("combined"),
            builtin("vhost_combined"),
            nginx(
                r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" "$http_x_forwarded_for""#,
            ),
            nginx(
                r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" $host $request_time"#,
            ),
            nginx(
                r#"escape=json '{"ip":"$remote_addr","t":$msec,"user":"$remote_user","r":"$request","s":$status,"b":"$bytes_sent","ua":"$http_user_agent"}'"#,
            ),
            nginx("$remote_addr\t$remote_user\t$time_iso8601\t$request\t$status\t$bytes_sent\t$http_user_agent\n"),
            apache(r#"%h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i" "%{Content-Range}o" %H "%V""#),
            nginx(r#"$remote_addr [$time_local] $host "$request" $status "$http_user_agent""#),
            nginx(r#"$remote_addr [$time_local] "$request" $status $host:$server_port "$http_user_agent""#),
            nginx("$remote_addr|$time_iso8601|$request_method|$request_uri|$server_protocol|$status|$http_user_agent"),
            nginx(r#"$remote_addr [$time_local] "$request" $status $http_user_agent $host $request_time"#),
        ]
    }

    /// How the next line, which has its newline, is read by its quotes; `None`: it isn't.
    fn plain<'l>(format: &Format, reading: &mut Reading, line: &'l [u8]) -> Option<Entry<'l>> {
        let (mut quotes, mut entry) = (Quotes::default(), Entry::default());
        let (quoted, end) = quotes.of_line(line, 0, Marks { quotes: format.quotes(), clean: false })?;
        format.parse_plain(reading, &line[..end], quoted, &mut entry).then_some(entry)
    }

    #[test]
    fn ordinary_lines_are_read_so() {
        let parts =
            ["192.0.2.7", "-", "10/Nov/2026:10:00:00 +0100", "GET /a?b HTTP/1.1", "200", "5", "-", "Mozilla/5.0 (X11)"];
        let [ip, user, time, request, status, bytes, referer, agent] = parts;
        let common = format!("{ip} - {user} [{time}] \"{request}\" {status} {bytes}");
        let combined = format!("{common} \"{referer}\" \"{agent}\"");
        let lines = [
            common,
            combined.clone(),
            format!("docs.example.org:443 {combined}"),
            format!("{combined} \"192.0.2.7, 192.0.2.8\""),
            format!("{combined} docs.example.org 0.003"),
            format!(
                r#"{{"ip":"{ip}","t":1791640536.000,"user":"","r":"{request}","s":{status},"b":"{bytes}","ua":"{agent}"}}"#
            ),
            format!("{ip}\t{user}\t2026-10-10T13:55:36+00:00\t{request}\t{status}\t{bytes}\tcurl/8.1"),
            format!("{combined} \"bytes 0-9/10\" HTTP/1.1 \"docs.example.org\""),
        ];
        for (number, (format, line)) in formats().iter().zip(lines).enumerate() {
            assert!(format.parse(line.as_bytes()).is_some(), "{line}");
            let whole = format!("{line}\n");
            // A range may go on behind a space, and is read with more care.
            let is_plain =
                format.is_told_by_quotes() && plain(format, &mut Reading::default(), whole.as_bytes()).is_some();
            assert_eq!(is_plain, number != 7, "{line}");
        }
    }

    fn part(of: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
        proptest::sample::select(of)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        /// Whatever a line is, what is read of it by its quotes is what reading it says.
        #[test]
        fn lines_are_read_as_with_more_care(
            number in 0_usize..12,
            host in part(&["a.example", "[2001:db8::1]", "a b", "-", "", "a:80"]),
            port in part(&["443", "-", "", "443,443", "x"]),
            protocol in part(&["HTTP/1.1", "-", "", "x"]),
            fields in (
                part(&["192.0.2.7", "-", "", "a b", "\"", "::1", "docs.example.org:80 192.0.2.7", "\u{feff}1"]),
                part(&["-", "me", "a b", "\"\"", "[", "", "me [x"]),
                part(&[
                    "10/Nov/2026:10:00:00 +0100", "10/Nov/2026:10:00:00", "31/Feb/2026:10:00:00 +0000", "-", "", "x",
                    "10/Nov/2026:10:00:00 +0100] ", "2026-10-10T13:55:36+00:00", "1791640536.000",
                ]),
                part(&[
                    "GET /a.pdf HTTP/1.1", "GET /a?b#c", "-", "", "/", "GET  /a HTTP/1.1", "GET /a  HTTP/1.1", "GET *",
                    "G\"T /a\" 200 5", "\\x16\\x03", "GET /a\" HTTP/1.1", "GET http://h/a HTTP/1.1", "GET /é HTTP/1.1",
                ]),
                part(&["200", "-", "", "99999", "2x", "200 200", "-1", "+1"]),
                part(&["5", "-", "", "99999999999999999999", "5\" ", "5 5"]),
                part(&["-", "https://docs.example.org/", "\"", "a\" \"b", "\\", "", "a b"]),
                part(&["Mozilla/5.0", "", "-", "a\"b", "\\\"", "a\" \"b", "Mozilla/5.0 (X11)"]),
            ),
            more in part(&["", " \"-\"", " \"1, 2\"", " h 0.1", " h:80 -", " \"bytes 0-9/10\" HTTP/1.1 \"h\"", " - - \"\"", " "]),
            end in part(&["", "", "", " ", " more", " \"x\"", "\r", "\"", "\0"]),
            cut in 0_usize..400,
            noise in proptest::collection::vec(part(&[
                "\"", " ", "] \"", " [", "\" ", "\" \"", " - ", "200", "/b", "GET /c HTTP/1.1", "\\", "\\\"", "-", "\t", ",\"s\":",
                "10/Nov/2026:10:00:00 +0100", "[10/Nov/2026:10:00:00 +0100] \"", "\"GET /d HTTP/1.1\" 200 ",
            ]), 0..6),
        ) {
            let format = &formats()[number];
            let (client, user, time, request, status, bytes, referer, agent) = fields;
            let line = match number {
                5 => format!(
                    r#"{{"ip":"{client}","t":{time},"user":"{user}","r":"{request}","s":{status},"b":"{bytes}","ua":"{agent}"}}{end}"#
                ),
                6 => format!("{client}\t{user}\t{time}\t{request}\t{status}\t{bytes}\t{agent}{end}"),
                8 => format!("{client} [{time}] {host} \"{request}\" {status} \"{agent}\"{end}"),
                9 => format!("{client} [{time}] \"{request}\" {status} {host}:{port} \"{agent}\"{end}"),
                10 => format!("{client}|{time}|GET|{host}/{user}|{protocol}|{status}|{agent}{end}"),
                11 => format!("{client} [{time}] \"{request}\" {status} {agent} {host} {bytes}{end}"),
                _ => format!("{client} - {user} [{time}] \"{request}\" {status} {bytes} \"{referer}\" \"{agent}\"{more}{end}"),
            };
            let line = if number == 0 { line.split(" \"-").next().unwrap_or_default().to_owned() } else { line };
            let (start, rest) = line.as_bytes().split_at(cut.min(line.len()));
            let disturbed = [start, noise.concat().as_bytes(), rest].concat();
            for line in [start, line.as_bytes(), &disturbed] {
                let (mut reading, whole) = (Reading::default(), [line, b"\n"].concat());
                for _ in 0..2 {
                    let Some(read) = plain(format, &mut reading, &whole) else { continue };
                    let parsed = format.parse(line);
                    prop_assert_eq!(reading.time, read.time);
                    prop_assert_eq!(Some(read), parsed);
                }
            }
        }
    }
}
