//! What a log line means: the bytes of a line in, an [`Entry`] out, whatever wrote the log. Pure.
//!
//! Every notation (nginx's `log_format`, Apache's `LogFormat`, a regex, a map of JSON keys, a built-in name) compiles to
//! one [`Format`]. Wherever the fields stand between fixed delimiters that is a splitter, which copies nothing but the
//! fields whose escapes have to be undone.
//!
//! ```
//! use silktail::format::Format;
//!
//! let combined = Format::builtin("combined", &jiff::tz::TimeZone::UTC).ok_or("no such format")?;
//! let line = br#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET /a.pdf HTTP/1.1" 200 51200 "-" "Mozilla/5.0""#;
//! let entry = combined.parse(line).ok_or("the line doesn't fit")?;
//! assert_eq!(entry.path.as_deref(), Some(&b"/a.pdf"[..]));
//! # Ok::<(), &str>(())
//! ```

mod apache;
mod builtin;
mod detect;
mod json;
mod ltsv;
mod nginx;
mod reading;
mod regex;
mod slot;
mod split;
mod time;
mod unescape;
mod w3c;

use std::ops::Range;
use std::sync::Arc;

use jiff::SignedDuration;
use jiff::tz::TimeZone;

pub use builtin::BUILTIN;
pub use detect::detect;
pub use json::slip_of;
pub use reading::Reading;
pub use split::{Glance, Glimpse, Marks, Quoted, Quotes};
pub use unescape::unescape;

use self::json::Keys;
use self::regex::Groups;
use crate::entry::{Entry, FIELDS};
use slot::{Slot, When, fields_given};
use split::{Splitter, Stop, Tail};

/// How the lines of a log are read. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Format {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: Arc<str>,
    /// The format as written, which misfits point into.
    text: String,
    zone: TimeZone,
    reader: Reader,
    fields: Vec<&'static str>,
    extra: Vec<Arc<str>>,
}

#[derive(Debug)]
enum Reader {
    /// The ways to write the format, the usual one first.
    Split(Vec<Splitter>),
    Regex(Groups),
    Json(Keys),
    Ltsv,
    W3c,
}

/// Why a format can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FormatError {
    /// What is wrong.
    pub message: String,
    /// Where, in bytes of the string that was given.
    pub span: Option<Range<usize>>,
    /// What to do.
    pub help: Option<String>,
}

/// Where a line stops fitting a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The format as written.
    pub format_text: String,
    /// The part of it that the line doesn't give.
    pub format_span: Range<usize>,
    /// The byte of the line from which on it doesn't fit.
    pub line_at: usize,
}

impl Format {
    /// A format by its name, one of [`BUILTIN`].
    pub fn builtin(name: &str, zone: &TimeZone) -> Option<Format> {
        builtin::format(name, zone)
    }

    /// A regex whose named groups are the fields.
    pub fn regex(name: &str, pattern: &str, time: Option<&str>, zone: TimeZone) -> Result<Format, FormatError> {
        Ok(Format::new(name, pattern, zone, Reader::Regex(Groups::new(pattern, time)?)))
    }

    /// Why a `time` pattern can't be used; `None` if it can.
    pub fn time_error(pattern: &str) -> Option<FormatError> {
        time::Clock::from_pattern(pattern).err()
    }

    /// Apache's `LogFormat`: the directive, or just its string.
    pub fn apache(name: &str, text: &str, zone: TimeZone) -> Result<Format, FormatError> {
        let splitter = Splitter::new(apache::items(text)?, Tail::Closed, true)?;
        needs_a_client_and_a_target(splitter.slots(), "%h", "%r")?;
        Ok(Format::new(name, text, zone, Reader::Split(vec![splitter])))
    }

    /// nginx's `log_format`: the directive, its strings, or the bare string.
    pub fn nginx(name: &str, text: &str, zone: TimeZone) -> Result<Format, FormatError> {
        let (items, escaped) = nginx::items(text)?;
        let splitter = Splitter::new(items, Tail::Closed, escaped)?;
        needs_a_client_and_a_target(splitter.slots(), "$remote_addr", "$request")?;
        Ok(Format::new(name, text, zone, Reader::Split(vec![splitter])))
    }

    /// One JSON object a line: pairs of a field and the key, or the path into nested objects, that holds it.
    pub fn json(
        name: &str,
        fields: &[(String, String)],
        time: Option<&str>,
        zone: TimeZone,
    ) -> Result<Format, FormatError> {
        let keys = Keys::new(fields, time)?;
        needs_a_client_and_a_target(keys.slots(), "ip", "request")?;
        let text = keys.text();
        Ok(Format::new(name, &text, zone, Reader::Json(keys)))
    }

    /// The format as it was written.
    pub fn text(&self) -> &str {
        &self.inner.text
    }

    /// The zone of times that are written without an offset.
    pub fn zone(&self) -> &TimeZone {
        &self.inner.zone
    }

    fn new(name: &str, text: &str, zone: TimeZone, reader: Reader) -> Format {
        let slots: Vec<Slot> = match &reader {
            Reader::Split(ways) => ways.first().map(|way| way.slots().cloned().collect()).unwrap_or_default(),
            Reader::Regex(groups) => groups.slots().cloned().collect(),
            Reader::Json(keys) => keys.slots().cloned().collect(),
            Reader::Ltsv => ltsv::slots().cloned().collect(),
            Reader::W3c => w3c::slots(),
        };
        let fields = fields_given(slots.iter());
        let mut extra: Vec<Arc<str>> = Vec::new();
        for slot in slots {
            if let Slot::Extra(name) = slot
                && !extra.contains(&name)
            {
                extra.push(name);
            }
        }
        let inner = Inner { name: name.into(), text: text.to_owned(), zone, reader, fields, extra };
        Format { inner: Arc::new(inner) }
    }

    /// Whether lines may be passed over unread that don't hold certain bytes: each line means the same whatever came
    /// before it, and what ends a path is no letter or digit.
    pub fn can_be_searched(&self) -> bool {
        match &self.inner.reader {
            // Directives say what the lines after them mean.
            Reader::W3c => false,
            // A regex may end a path wherever it likes.
            Reader::Regex(_) => false,
            Reader::Split(ways) => ways.iter().all(Splitter::ends_paths_clearly),
            Reader::Json(_) | Reader::Ltsv => true,
        }
    }

    /// Whether a glance can show anything at this format's lines: see [`Format::glance`].
    pub fn can_be_glanced_at(&self) -> bool {
        matches!(&self.inner.reader, Reader::Split(ways) if Splitter::can_be_glanced_at(ways))
    }

    /// Double quotes of a line at which a glance can show anything.
    pub fn quotes(&self) -> usize {
        match &self.inner.reader {
            Reader::Split(ways) => ways.first().map_or(0, Splitter::quotes),
            _ => 0,
        }
    }

    /// Whether there is a control character, like a tab, in each line that is told by its quotes.
    pub fn has_controls(&self) -> bool {
        matches!(&self.inner.reader, Reader::Split(ways) if ways.first().is_some_and(Splitter::has_controls))
    }

    /// What a glance shows of a line with so many quotes ([`Format::quotes`]) and no backslash, which is what reading it would
    /// say if it fits at all; `None`: nothing, it must be read.
    pub fn glance<'l>(&self, line: &'l [u8], quotes: Quoted<'_>, glimpse: &mut Glimpse) -> Option<Glance<'l>> {
        let Reader::Split(ways) = &self.inner.reader else { return None };
        ways.first()?.glance(line, quotes, &self.inner.zone, glimpse)
    }

    /// Whether it has a user agent of which it can't be told where it ends: neither in quotes nor before fields without spaces.
    pub fn misleads(&self) -> bool {
        matches!(&self.inner.reader, Reader::Split(ways) if ways.iter().any(Splitter::misleads))
    }

    /// Whether some of this format's lines can be read by their quotes: see [`Format::parse_plain`].
    pub fn is_told_by_quotes(&self) -> bool {
        matches!(&self.inner.reader, Reader::Split(ways) if ways.first().is_some_and(Splitter::reads_plain_lines))
    }

    /// Reads the next line of a log, without its line ending, that has so many quotes ([`Format::quotes`]) and no backslash,
    /// as [`Format::parse_into`] does, in less time; `false`: it isn't a plain one, and must be read by that, into another
    /// entry.
    pub fn parse_plain<'l>(
        &self,
        reading: &mut Reading,
        line: &'l [u8],
        quotes: Quoted<'_>,
        entry: &mut Entry<'l>,
    ) -> bool {
        let Reader::Split(ways) = &self.inner.reader else { return false };
        // Without what `trimmed` takes off, or may.
        let (Some(way), false) = (ways.first(), matches!(line, [0xef, ..] | [.., b'\r' | b'\n'])) else { return false };
        let when = When { zone: &self.inner.zone, after: reading.time, last: &reading.last };
        let fits = way.read_plain(line, quotes, when, entry).is_some();
        if fits && entry.time.is_some() {
            reading.time = entry.time;
        }
        fits
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The same, to be kept.
    pub fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.inner.name)
    }

    /// Reads a line by itself; `None` if it doesn't fit.
    pub fn parse<'l>(&self, line: &'l [u8]) -> Option<Entry<'l>> {
        self.parse_in(&mut Reading::default(), line)
    }

    /// Reads the next line of a log; `None` if it doesn't fit.
    ///
    /// A line that is no request but fits (see [`Format::is_directive`]) gives an empty entry.
    pub fn parse_in<'l>(&self, reading: &mut Reading, line: &'l [u8]) -> Option<Entry<'l>> {
        let mut entry = Entry::default();
        self.parse_into(reading, line, &mut entry).then_some(entry)
    }

    /// The same into an empty entry, which is large and better not handed from one to the other; `false`: it doesn't fit.
    pub fn parse_into<'l>(&self, reading: &mut Reading, line: &'l [u8], entry: &mut Entry<'l>) -> bool {
        if self.is_directive(line) {
            w3c::learn(trimmed(line).1, reading);
            return true;
        }
        let fits = self.read(line, reading, entry).is_ok();
        if fits && entry.time.is_some() {
            reading.time = entry.time;
        }
        fits
    }

    /// Whether a line is no request, but says something about the lines after it.
    pub fn is_directive(&self, line: &[u8]) -> bool {
        matches!(self.inner.reader, Reader::W3c) && trimmed(line).1.starts_with(b"#")
    }

    /// What the lines begin with whose last one a reading must be shown, one of each, before it can begin in the middle
    /// of a log. Empty for formats whose lines stand for themselves.
    pub fn directives(&self) -> &'static [&'static [u8]] {
        if matches!(self.inner.reader, Reader::W3c) { w3c::DIRECTIVES } else { &[] }
    }

    /// Whether both are one, and not only alike.
    pub fn is(&self, other: &Format) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Whether the line's time, having no offset, may be either of two: it is in an hour that the clocks repeat.
    pub fn is_ambiguous(&self, line: &[u8]) -> bool {
        let Some(entry) = self.parse(line).filter(|entry| entry.offset.is_none()) else { return false };
        let Some(time) = entry.time else { return false };
        let after = time.saturating_add(SignedDuration::from_mins(60)).ok();
        let mut other = Entry::default();
        let read = self.read(line, &Reading { time: after, ..Reading::default() }, &mut other);
        read.is_ok() && other.time != Some(time)
    }

    /// Whether a field, or an extra name, can be given by this format.
    pub fn gives(&self, field: &str) -> bool {
        if FIELDS.contains(&field) {
            return self.inner.fields.contains(&field);
        }
        self.inner.extra.iter().any(|name| &**name == field)
    }

    /// The names of what it gives beyond the standard fields.
    pub fn extra(&self) -> Vec<Arc<str>> {
        self.inner.extra.clone()
    }

    /// Where a line stops fitting; `None` if it fits.
    pub fn misfit(&self, line: &[u8]) -> Option<Misfit> {
        self.misfit_in(&Reading::default(), line)
    }

    /// Where the next line of a log stops fitting; `None` if it fits.
    pub fn misfit_in(&self, reading: &Reading, line: &[u8]) -> Option<Misfit> {
        if self.is_directive(line) {
            return None;
        }
        let mut stop = self.read(line, reading, &mut Entry::default()).err()?;
        if let Reader::Regex(groups) = &self.inner.reader {
            let (at, line) = trimmed(line);
            if let Some(closer) = groups.stop(line) {
                stop = Stop { line_at: at + closer.line_at, ..closer };
            }
        }
        Some(Misfit { format_text: self.inner.text.clone(), format_span: stop.format_span, line_at: stop.line_at })
    }

    /// Reads a line into an empty entry.
    fn read<'l>(&self, line: &'l [u8], reading: &Reading, entry: &mut Entry<'l>) -> Result<(), Stop> {
        let when = When { zone: &self.inner.zone, after: reading.time, last: &reading.last };
        let (start, line) = trimmed(line);
        let read = match &self.inner.reader {
            Reader::Split(ways) => read_split(ways, line, when, entry),
            Reader::Regex(groups) => groups.read(line, when, entry),
            Reader::Json(keys) => keys.read(line, when, entry),
            Reader::Ltsv => ltsv::read(line, when, entry),
            Reader::W3c => w3c::read(reading, line, entry),
        };
        read.map_err(|stop| stop.shifted(start))
    }

    /// How much a format means: the number of fields, then its length.
    pub(crate) fn specificity(&self) -> (usize, usize) {
        (self.inner.fields.len() + self.inner.extra.len(), self.inner.text.len())
    }
}

/// Reads a line the first of the ways that fits.
fn read_split<'l>(ways: &[Splitter], line: &'l [u8], when: When<'_>, entry: &mut Entry<'l>) -> Result<(), Stop> {
    let mut stopped: Option<Stop> = None;
    for way in ways {
        match way.read(line, when, entry) {
            Ok(()) => return Ok(()),
            // Only the first way's spans are those of the format as written.
            Err(stop) => stopped = stopped.or(Some(stop)),
        }
        *entry = Entry::default();
    }
    Err(stopped.unwrap_or(Stop { format_span: 0..0, line_at: 0 }))
}

/// A line without byte order mark and line ending, and where that begins.
fn trimmed(line: &[u8]) -> (usize, &[u8]) {
    let rest = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let ending = rest.iter().rev().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    (line.len() - rest.len(), &rest[..rest.len() - ending])
}

/// Without these two no line could ever become an event.
fn needs_a_client_and_a_target<'s>(
    slots: impl Iterator<Item = &'s Slot> + Clone,
    client: &str,
    request: &str,
) -> Result<(), FormatError> {
    let fields = fields_given(slots);
    let message = if !fields.contains(&"ip") && !fields.contains(&"forwarded_for") {
        format!("the format doesn't log the client's address (`{client}`)")
    } else if !fields.contains(&"target") {
        format!("the format doesn't log what was requested (`{request}`)")
    } else {
        return Ok(());
    };
    Err(FormatError { message, span: None, help: Some("add it to the server's log format, and here".to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(format: &Format, line: &[u8], fields: &[&str]) -> Vec<String> {
        let entry = format.parse(line).unwrap_or_else(|| panic!("{:?}", format.misfit(line)));
        let text = |field: &&str| entry.text(field).unwrap_or("none".into()).into_owned();
        fields.iter().map(text).collect()
    }

    #[test]
    fn where_a_field_without_quotes_ends_is_told_by_what_follows() {
        const UA: &str = "Mozilla/5.0 (X11; Linux x86_64) Gecko/1, like; Firefox/144.0";
        for (format, line, host, misleads) in [
            ("$status $http_user_agent $host $request_time", format!("200 {UA} a.example 0.003"), "a.example", false),
            ("$status $http_user_agent ($host)", format!("200 {UA} (a.example)"), "a.example", false),
            ("$status,$http_user_agent,$host", format!("200,{UA},a.example"), "a.example", false),
            ("$host $status $http_user_agent", format!("a.example 200 {UA}"), "a.example", false),
            ("$host $status $http_user_agent $http_accept", format!("a.example 200 {UA} */*"), "a.example", true),
            (
                "$host:$server_port $status \"$http_user_agent\"",
                format!("[2001:db8::1]:443 200 \"{UA}\""),
                "[2001:db8::1]",
                false,
            ),
            (
                "$host:$server_port $status \"$http_user_agent\"",
                format!("a.example:80 200 \"{UA}\""),
                "a.example",
                false,
            ),
        ] {
            let format = Format::nginx("mine", &format!("$remote_addr \"$request\" {format}"), TimeZone::UTC).unwrap();
            let line = format!("192.0.2.7 \"GET /a.pdf HTTP/1.1\" {line}");
            let entry = format.parse(line.as_bytes()).unwrap_or_else(|| panic!("{:?}", format.misfit(line.as_bytes())));
            assert_eq!(format.misleads(), misleads, "{}", format.text());
            assert_eq!(entry.text("host").as_deref(), Some(host), "{}", format.text());
            assert_eq!(entry.text("user_agent").as_deref() == Some(UA), !misleads, "{}", format.text());
        }
    }

    #[test]
    fn a_request_that_nginx_could_not_make_out_fits() {
        let text = "$remote_addr|$request_uri|$server_protocol|$status|$http_referer|$http_user_agent";
        let format = Format::nginx("mine", text, TimeZone::UTC).unwrap();
        for (line, want) in [
            ("192.0.2.7|/a||505|-|b", ["/a", "none", "505", "b"]),
            ("192.0.2.7|/a|b|HTTP/1.1|200|-|b", ["/a|b", "HTTP/1.1", "200", "b"]),
            ("192.0.2.7|/a||HTTP/1.1|200|-|b", ["/a|", "HTTP/1.1", "200", "b"]),
            ("192.0.2.7|/a||b|HTTP/1.1|200|-|b", ["/a||b", "HTTP/1.1", "200", "b"]),
            ("192.0.2.7|||400|-|-", ["none", "none", "400", "none"]),
        ] {
            assert_eq!(show(&format, line.as_bytes(), &["path", "protocol", "status", "user_agent"]), want, "{line}");
        }
    }

    const ALL: [&str; 9] = ["ip", "time", "target", "path", "query", "status", "bytes", "user_agent", "host"];

    #[test]
    fn log_format_is_read_as_nginx_users_write_it() {
        for (name, format, line, want) in [
            (
                "the directive",
                "log_format mine '$remote_addr - $remote_user [$time_local] '\n  '\"$request\" $status $body_bytes_sent '\n '\"$http_user_agent\" $host';\n",
                r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET /a?b HTTP/1.1" 200 5 "UA \x22x\x22" docs.example.org"#,
                ["192.0.2.7", "2026-10-10T13:55:36Z", "/a?b", "/a", "b", "200", "5", "UA \"x\"", "docs.example.org"],
            ),
            (
                "comments in between and around",
                "# ours; 'not' theirs\nlog_format mine # the name\n escape=default # the default\n '$remote_addr [$time_local] ' # \"who\"; when\n '\"$request\" $status $body_bytes_sent #1 ' '\"$http_user_agent\" $host'; # end\n",
                r#"192.0.2.7 [10/Oct/2026:13:55:36 +0000] "GET /a?b HTTP/1.1" 200 5 #1 "UA" docs.example.org"#,
                ["192.0.2.7", "2026-10-10T13:55:36Z", "/a?b", "/a", "b", "200", "5", "UA", "docs.example.org"],
            ),
            (
                "the bare string, parts side by side",
                r#"$remote_addr $time_iso8601 $request_method $scheme://$host$uri$is_args$args $status "$http_user_agent""#,
                r#"192.0.2.7 2026-10-10T13:55:36+00:00 GET https://docs.example.org/a?b=c 200 "UA""#,
                ["192.0.2.7", "2026-10-10T13:55:36Z", "/a?b=c", "/a", "b=c", "200", "none", "UA", "docs.example.org"],
            ),
            (
                "no query where one may be",
                r#"$remote_addr $msec ${request_method} $host$uri$is_args$args $status"#,
                "192.0.2.7 1791640536.000 GET docs.example.org/a 200",
                ["192.0.2.7", "2026-10-10T13:55:36Z", "/a", "/a", "none", "200", "none", "none", "docs.example.org"],
            ),
            (
                "JSON by hand",
                r#"log_format j escape=json '{"ip":"$remote_addr","t":$msec,"r":"$request","s":$status,"b":$bytes_sent,"ua":"$http_user_agent","h":"$http_host"}';"#,
                r#"{"ip":"192.0.2.7","t":1791640536.000,"r":"GET /a\"b HTTP/1.1","s":206,"b":9,"ua":"","h":"docs.example.org:443"}"#,
                [
                    "192.0.2.7",
                    "2026-10-10T13:55:36Z",
                    "/a\"b",
                    "/a\"b",
                    "none",
                    "206",
                    "9",
                    "none",
                    "docs.example.org:443",
                ],
            ),
            (
                "no escapes",
                r#"escape=none '$remote_addr|$time_iso8601|$request|$status|$body_bytes_sent|$http_user_agent'"#,
                r#"192.0.2.7|2026-10-10T13:55:36Z|GET /a\x41 HTTP/1.1|200|5|"#,
                ["192.0.2.7", "2026-10-10T13:55:36Z", r"/a\x41", r"/a\x41", "none", "200", "5", "none", "none"],
            ),
            (
                "a decoded path directly behind its host",
                r#"$remote_addr [$time_iso8601] "$request_method $scheme://$host$uri" $status "$http_user_agent""#,
                r#"192.0.2.7 [2026-10-10T13:55:36Z] "GET https://docs.example.org/annual report.pdf" 200 "UA""#,
                [
                    "192.0.2.7",
                    "2026-10-10T13:55:36Z",
                    "/annual report.pdf",
                    "/annual report.pdf",
                    "none",
                    "200",
                    "none",
                    "UA",
                    "docs.example.org",
                ],
            ),
            (
                "an escaped quote at the end of a bare field",
                r#"escape=json '$remote_addr $time_iso8601 "$http_user_agent" $request_method $request_uri $server_protocol $status'"#,
                r#"192.0.2.7 2026-10-10T13:55:36Z "UA x" GET /a.pdf?q=\" HTTP/2.0 200"#,
                ["192.0.2.7", "2026-10-10T13:55:36Z", "/a.pdf?q=\"", "/a.pdf", "q=\"", "200", "none", "UA x", "none"],
            ),
            (
                "a bare time with a space in it",
                r#"$remote_addr $time_local $request_uri $status"#,
                "192.0.2.7 10/Oct/2026:13:55:36 +0000 /a?b 200",
                ["192.0.2.7", "2026-10-10T13:55:36Z", "/a?b", "/a", "b", "200", "none", "none", "none"],
            ),
        ] {
            let format =
                Format::nginx("mine", format, TimeZone::UTC).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert_eq!(show(&format, line.as_bytes(), &ALL), want, "{name}");
        }
    }

    #[test]
    fn other_variables_are_kept_under_their_own_names() {
        let text =
            r#"$remote_addr [$time_local] "$request" $status $request_time "$sent_http_x_file" $upstream_status $uri"#;
        let format = Format::nginx("mine", text, TimeZone::UTC).unwrap();
        let line = br#"192.0.2.7 [10/Oct/2026:13:55:36 +0000] "GET /a HTTP/1.1" 200 0.002 "f" 200, 502 /index"#;
        assert_eq!(
            show(&format, line, &["request_time", "sent_http_x_file", "upstream_status", "uri", "path"]),
            ["0.002", "f", "200, 502", "/index", "/a"]
        );
        assert!(format.gives("request_time") && format.gives("query") && !format.gives("host"));
    }

    #[test]
    fn a_bare_range_is_read_with_its_spaces() {
        for (variable, range) in [
            ("http_range", "bytes=0-1, 5-6"),
            ("http_range", "bytes=0-"),
            ("sent_http_content_range", "bytes 0-99/200"),
            ("sent_http_content_range", "bytes */200"),
            ("sent_http_content_range", "bytes"),
        ] {
            let text = format!(r#"$remote_addr "$request" $status ${variable} $request_time $host"#);
            let format = Format::nginx("mine", &text, TimeZone::UTC).unwrap();
            let line = format!(r#"192.0.2.7 "GET /a HTTP/1.1" 206 {range} 0.001 docs.example.org"#);
            let want = [range, "0.001", "docs.example.org"];
            assert_eq!(show(&format, line.as_bytes(), &["range", "request_time", "host"]), want, "{variable}");
        }
    }

    #[test]
    fn a_width_that_is_none_is_absent_and_no_reason_to_disbelieve_the_line() {
        let text = r#"$remote_addr "$request" $status $cookie_view_width"#;
        let format = Format::nginx("mine", text, TimeZone::UTC).unwrap();
        for (width, want) in [("979", Some(979)), ("0", None), ("-5", None), ("wide", None), ("99999999999", None)] {
            let line = format!(r#"192.0.2.7 "GET /a HTTP/1.1" 200 {width}"#);
            assert_eq!(format.parse(line.as_bytes()).unwrap().view_width, want, "{width}");
        }
    }

    #[test]
    fn log_format_errors_point_at_the_place() {
        for (name, format, span) in [
            ("side by side", "$remote_addr$status $request", Some("$remote_addr$status")),
            ("no name", "$remote_addr $ $request", Some("$")),
            ("unclosed brace", "${remote_addr $request", Some("${remote_addr")),
            ("an escaping nobody knows", "escape=xml '$remote_addr $request'", Some("escape=xml")),
            ("an unfinished string", "log_format a '$remote_addr $request", Some("'$remote_addr $request")),
            ("no client", "[$time_local] $request", None),
            ("no request", "$remote_addr [$time_local]", None),
            ("nothing", "", None),
        ] {
            let error = Format::nginx("mine", format, TimeZone::UTC).expect_err(name);
            assert_eq!(error.span.map(|span| &format[span]), span, "{name}");
        }
    }

    #[test]
    fn apache_log_format_is_read_as_its_users_write_it() {
        for (name, format, line, want) in [
            (
                "the directive",
                r#"LogFormat "%v:%p %h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\"" vhost_combined"#,
                r#"docs.example.org:443 192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET /a?b HTTP/1.1" 200 5 "-" "UA""#,
                ["192.0.2.7", "2026-10-10T13:55:36Z", "/a?b", "/a", "b", "200", "5", "UA", "docs.example.org"],
            ),
            (
                "modifiers, statuses, path and query",
                r#"%{c}a %a %V %m %U%q %H %!200,304>s %b %400,501{User-Agent}i"#,
                "192.0.2.1 192.0.2.7 docs.example.org GET /a%b?c HTTP/1.1 200 - Mozilla/5.0 (X11)",
                [
                    "192.0.2.7",
                    "none",
                    "/a%25b?c",
                    "/a%25b",
                    "c",
                    "200",
                    "none",
                    "Mozilla/5.0 (X11)",
                    "docs.example.org",
                ],
            ),
            (
                "an end beside the beginning",
                r#"%{begin}t %{end}t %{%H:%M}t %h "%r" %>s %b %{c}h"#,
                r#"[10/Oct/2026:13:55:36 +0000] [10/Oct/2026:13:55:40 +0000] 13:55 192.0.2.7 "GET /a HTTP/1.1" 200 5 198.51.100.1"#,
                ["192.0.2.7", "2026-10-10T13:55:36Z", "/a", "/a", "none", "200", "5", "none", "none"],
            ),
            (
                "the end alone, in a zone by name",
                r#"%{end:%a, %d %b %Y %H:%M:%S %Z}t %h "%r" %>s"#,
                r#"Sat, 10 Oct 2026 13:55:36 GMT 192.0.2.7 "GET /a HTTP/1.1" 200"#,
                ["192.0.2.7", "2026-10-10T13:55:36Z", "/a", "/a", "none", "200", "none", "none", "none"],
            ),
            (
                "spaces in a decoded path before the protocol",
                r#"%h "%m %U%q %H" %>s "%{User-Agent}i""#,
                r#"192.0.2.7 "GET /a b HTTP/c.pdf?d HTTP/1.1" 200 "UA""#,
                ["192.0.2.7", "none", "/a b HTTP/c.pdf?d", "/a b HTTP/c.pdf", "d", "200", "none", "UA", "none"],
            ),
            (
                "a time in parts",
                r#"%h [%{%d/%b/%Y %T}t.%{msec_frac}t %{%z}t] "%r" %s %B"#,
                r#"192.0.2.7 [10/Oct/2026 13:55:36.250 +0000] "GET /a HTTP/1.1" 200 0"#,
                ["192.0.2.7", "2026-10-10T13:55:36.25Z", "/a", "/a", "none", "200", "0", "none", "none"],
            ),
            (
                "seconds and their fraction",
                r#"%h %{begin:sec}t.%{begin:usec_frac}t "%r" %D %^FB %{end:msec}t"#,
                r#"192.0.2.7 1791640536.250000 "GET /a HTTP/1.1" 1234 - 1791640537000"#,
                ["192.0.2.7", "2026-10-10T13:55:36.25Z", "/a", "/a", "none", "none", "none", "none", "none"],
            ),
            (
                "a bare time with a space in it",
                r#"%h %{%F %T}t %>s "%r""#,
                r#"192.0.2.7 2026-10-10 13:55:36 200 "GET /a HTTP/1.1""#,
                ["192.0.2.7", "2026-10-10T13:55:36Z", "/a", "/a", "none", "200", "none", "none", "none"],
            ),
        ] {
            let format =
                Format::apache("mine", format, TimeZone::UTC).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert_eq!(show(&format, line.as_bytes(), &ALL), want, "{name}");
        }
    }

    #[test]
    fn apache_errors_point_at_the_place() {
        for (name, format, span) in [
            ("side by side", "%h%u %r", Some("%h%u")),
            ("an unknown letter", "%h %r %J", Some("%J")),
            ("an unclosed argument", "%h %r %{Referer", Some("%{Referer")),
            ("cut short", "%h %r %>", Some("%>")),
            ("a nickname", "CustomLog /var/log/a.log combined", Some("combined")),
            ("a time that is none", "%h %r %{%H}t", Some("%{%H}t")),
        ] {
            let error = Format::apache("mine", format, TimeZone::UTC).expect_err(name);
            assert_eq!(error.span.map(|span| &format[span]), span, "{name}");
        }
    }

    #[test]
    fn json_keys_may_be_literal_or_paths() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(field, key)| ((*field).to_owned(), (*key).to_owned())).collect()
        };
        let keys = pairs(&[
            ("ip", "client.ip"),
            ("time", "ts"),
            ("request", "request"),
            ("status", "status"),
            ("bytes", "bytes"),
            ("user_agent", "headers.user-agent[0]"),
            ("host", "a.b"),
        ]);
        let format = Format::json("mine", &keys, None, TimeZone::UTC).unwrap();
        for (name, line) in [
            (
                "plain",
                &br#"{"client":{"ip":"192.0.2.7"},"ts":1791640536.0,"request":"GET /a?b HTTP/1.1","status":200,"bytes":5,"headers":{"User-Agent":["UA \"x\""]},"a.b":"h"}"#[..],
            ),
            (
                "numbers in quotes, nginx's escapes, milliseconds",
                br#"{"client":{"ip":"192.0.2.7"},"ts":"1791640536000","request":"GET /a?b HTTP/1.1","status":"200","bytes":"5","headers":{"User-Agent":["UA \x22x\x22"]},"a.b":"h","a":{"b":"no"}}"#,
            ),
        ] {
            let want = ["192.0.2.7", "2026-10-10T13:55:36Z", "/a?b", "/a", "b", "200", "5", "UA \"x\"", "h"];
            assert_eq!(show(&format, line, &ALL), want, "{name}");
        }
        let line = b"{\"client\":{\"ip\":\"192.0.2.7\"},\"request\":\"GET /\xff HTTP/1.1\",\"a.b\":\"\"}";
        assert_eq!(show(&format, line, &["target", "host"]), ["/\u{fffd}", "none"]);
        for line in ["", "[]", "{", r#"{"level":"info"}"#, r#"{"request":"GET / HTTP/1.1","status":"many"}"#] {
            assert!(format.parse(line.as_bytes()).is_none(), "{line}");
            assert!(format.misfit(line.as_bytes()).is_some(), "{line}");
        }
        let slip = Format::json("mine", &pairs(&[("ip", "a"), ("requst", "b")]), None, TimeZone::UTC).unwrap_err();
        assert_eq!(slip.help.as_deref(), Some("did you mean `request`?"));
    }

    #[test]
    fn caddy_logs_need_no_configuration() {
        let format = Format::builtin("caddy", &TimeZone::UTC).unwrap();
        let line = br#"{"level":"info","ts":1791640536.25,"logger":"http.log.access","msg":"handled request","request":{"remote_ip":"192.0.2.7","remote_port":"5","proto":"HTTP/2.0","method":"GET","host":"docs.example.org","uri":"/a.pdf?x","headers":{"User-Agent":["UA"]}},"bytes_read":0,"user_id":"","duration":0.1,"size":5,"status":200}"#;
        let want =
            ["192.0.2.7", "2026-10-10T13:55:36.25Z", "/a.pdf?x", "/a.pdf", "x", "200", "5", "UA", "docs.example.org"];
        assert_eq!(show(&format, line, &ALL), want);
    }

    #[test]
    fn a_regex_gives_what_its_groups_name() {
        let pattern = r#"^(?P<ip>\S+) \[(?P<time>[^\]]+)\] "(?P<request>[^"]*)" (?P<status>\d+) (?P<tenant>\S+) "(?P<user_agent>[^"]*)"$"#;
        let format = Format::regex("mine", pattern, Some("%Y/%m/%d %H:%M:%S"), TimeZone::UTC).unwrap();
        let line = b"192.0.2.7 [2026/10/10 13:55:36] \"GET /\xff\\x41 HTTP/1.1\" 200 t1 \"UA\"\r\n";
        assert_eq!(
            show(&format, line, &["ip", "time", "target", "status", "tenant", "user_agent"]),
            ["192.0.2.7", "2026-10-10T13:55:36Z", "/\u{fffd}A", "200", "t1", "UA"]
        );
        assert_eq!(format.extra(), ["tenant".into()]);
        let misfit = format.misfit(b"192.0.2.7 [2026/10/10 13:55:36] GET /").unwrap();
        assert_eq!(misfit.line_at, 32);
    }

    #[test]
    fn a_regex_without_a_necessary_group_is_refused() {
        for (name, pattern, message) in [
            ("no ip", r"(?P<request>.*)(?P<user_agent>.*)", "the regex lacks a named group for `ip`"),
            ("no request", r"(?P<ip>.*)(?P<user_agent>.*)", "the regex lacks a named group for `request` or `target`"),
            ("two", r"(?P<target>.*)", "the regex lacks named groups for `ip` and `user_agent`"),
            ("bad", r"(?P<ip>.*", "bad regex: unclosed group"),
        ] {
            let error = Format::regex("mine", pattern, None, TimeZone::UTC).expect_err(name);
            assert_eq!(error.message, message, "{name}");
        }
    }

    #[test]
    fn combined_is_read_as_it_is_found() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let format = Format::builtin("combined", &zone).unwrap();
        for (name, line, want) in [
            (
                "more fields",
                r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0200] "GET /a HTTP/1.1" 200 5 "-" "UA" 0.1 "x" -"#,
                "UA",
            ),
            ("no offset", r#"192.0.2.7 - - [10/Oct/2026:13:55:36] "GET /a HTTP/1.1" 200 5 "-" "UA""#, "UA"),
            ("no brackets", r#"192.0.2.7 - - 10/Oct/2026:13:55:36 +0200 "GET /a HTTP/1.1" 200 5 "-" "UA""#, "UA"),
            ("tabs", "192.0.2.7\t-\t-\t[10/Oct/2026:13:55:36 +0200]\t\"GET /a HTTP/1.1\"\t200\t5\t\"-\"\t\"UA\"", "UA"),
            (
                "a quote inside",
                r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0200] "GET /a HTTP/1.1" 200 5 "-" "U"A""#,
                "U\"A",
            ),
            (
                "quotes and a space inside",
                r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0200] "GET /a HTTP/1.1" 200 5 "-" "6" "U" A""#,
                "6\" \"U\" A",
            ),
            (
                "quotes inside, more fields",
                r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0200] "GET /a HTTP/1.1" 200 5 "-" "say "U" A" "x y" 1"#,
                "say \"U\" A",
            ),
            ("a backslash", r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0200] "GET /a HTTP/1.1" 200 5 "-" "UA\""#, "UA\\"),
            ("an empty user", r#"192.0.2.7 - "" [10/Oct/2026:13:55:36 +0200] "GET /a HTTP/1.1" 200 5 "-" "UA""#, "UA"),
            ("user [x]", r#"192.0.2.7 - a [b [10/Oct/2026:13:55:36 +0200] "GET /a HTTP/1.1" 200 5 "-" "UA""#, "UA"),
        ] {
            let got = show(&format, line.as_bytes(), &["time", "path", "status", "bytes", "user_agent"]);
            assert_eq!(got, ["2026-10-10T11:55:36Z", "/a", "200", "5", want], "{name}");
        }
    }

    #[test]
    fn a_host_in_front_needs_no_port_and_is_not_taken_for_the_client() {
        let all = [
            Format::builtin("combined", &TimeZone::UTC).unwrap(),
            Format::builtin("vhost_combined", &TimeZone::UTC).unwrap(),
        ];
        let rest = r#"[10/Oct/2026:13:55:36 +0000] "GET /a HTTP/1.1" 200 5 "-" "UA""#;
        for (start, name, want) in [
            ("docs.example.org:443 192.0.2.7 - - ", "vhost_combined", ["docs.example.org", "192.0.2.7", "none"]),
            ("docs.example.org 192.0.2.7 - - ", "vhost_combined", ["docs.example.org", "192.0.2.7", "none"]),
            ("docs.example.org 192.0.2.7 - john doe ", "vhost_combined", ["docs.example.org", "192.0.2.7", "john doe"]),
            ("192.0.2.7 - - ", "combined", ["none", "192.0.2.7", "none"]),
            ("192.0.2.7 - john doe ", "combined", ["none", "192.0.2.7", "john doe"]),
        ] {
            let line = format!("{start}{rest}");
            let format = detect(&all, &[line.as_bytes()]).unwrap();
            assert_eq!(format.name(), name, "{start}");
            assert_eq!(show(&format, line.as_bytes(), &["host", "ip", "user"]), want, "{start}");
        }
    }

    #[test]
    fn a_misfit_says_where() {
        let format = Format::builtin("combined", &TimeZone::UTC).unwrap();
        for (name, line, part, rest) in [
            (
                "status",
                r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET /a HTTP/1.1" ok 5 "-" "UA""#,
                "%>s",
                r#"ok 5 "-" "UA""#,
            ),
            (
                "time",
                r#"192.0.2.7 - - [10/Foo/2026:13:55:36 +0000] "GET /a HTTP/1.1" 200 5 "-" "UA""#,
                "%t",
                r#"10/Foo"#,
            ),
            ("common", r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET /a HTTP/1.1" 200 5"#, r#"%b ""#, "5"),
        ] {
            let misfit = format.misfit(line.as_bytes()).expect(name);
            assert_eq!(&misfit.format_text[misfit.format_span], part, "{name}");
            assert!(line[misfit.line_at..].starts_with(rest), "{name}: {}", &line[misfit.line_at..]);
        }
    }

    fn every_format() -> Vec<Format> {
        let mut all: Vec<Format> = BUILTIN.iter().filter_map(|name| Format::builtin(name, &TimeZone::UTC)).collect();
        all.push(Format::nginx("n", "$host$uri$is_args$args $remote_addr|$time_local $status", TimeZone::UTC).unwrap());
        all.push(Format::apache("a", r"%U%q %h %{%F %T}t %s", TimeZone::UTC).unwrap());
        all
    }

    proptest! {
        #[test]
        fn any_line_is_taken(line in r#"[ "\\\[\]:/?x0-9{}|\t\x80-\u{100}-]{0,60}"#, raw in proptest::collection::vec(any::<u8>(), 0..60)) {
            for format in every_format() {
                for line in [line.as_bytes(), &raw] {
                    prop_assert_eq!(format.parse(line).is_none(), format.misfit(line).is_some());
                }
            }
        }

        #[test]
        fn any_cut_of_a_line_is_taken(cut in 0usize..100) {
            let line = br#"docs.example.org:443 192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET /a HTTP/1.1" 200 5 "-" "UA\x22""#;
            for format in every_format() {
                let _ = format.parse(&line[..cut.min(line.len())]);
                let _ = format.parse(&line[cut.min(line.len())..]);
            }
        }

        #[test]
        fn any_text_is_a_format_or_an_error(text in r#"[%$ahrtu{}'"\\ ;<>!^é,0-9]{0,20}"#) {
            for text in [text.clone(), format!("log_format {text}"), format!("LogFormat {text}"), format!("CustomLog {text}")] {
                for made in [Format::nginx("n", &text, TimeZone::UTC), Format::apache("a", &text, TimeZone::UTC)] {
                    if let Err(FormatError { span: Some(span), .. }) = made {
                        prop_assert!(text.get(span).is_some());
                    }
                }
            }
        }

        #[test]
        fn what_a_client_sends_is_what_is_read(agent in proptest::collection::vec(1u8.., 1..30), nginx: bool) {
            let mut logged = String::new();
            for &b in &agent {
                match b {
                    b'"' | b'\\' if !nginx => logged.extend(['\\', char::from(b)]),
                    b' '..=b'~' if !b"\"\\".contains(&b) => logged.push(char::from(b)),
                    _ => logged.push_str(&format!("\\x{b:02X}")),
                }
            }
            let line = format!("192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] \"GET /a HTTP/1.1\" 200 5 \"-\" \"{logged}\"");
            let format = Format::builtin("combined", &TimeZone::UTC).unwrap();
            let entry = format.parse(line.as_bytes()).unwrap();
            prop_assert_eq!(entry.user_agent.as_deref().unwrap_or(b"-"), &agent[..]);
        }
    }
}
