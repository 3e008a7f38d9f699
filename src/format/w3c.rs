//! The W3C extended log format, as IIS and CloudFront write it: `#Fields:` lines say what the lines after them hold.
//!
//! Times are in UTC. IIS writes spaces as `+`, CloudFront percent-encodes; other writers put strings in double quotes.
//! A line is taken only if it has exactly the fields that were announced: a stray space would shift all of them.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::reading::Reading;
use super::slot::{Slot, When, complete};
use super::split::Stop;
use super::time::Clock;
use crate::entry::{Entry, Text};

/// The lines that those after them depend on.
pub(super) const DIRECTIVES: &[&[u8]] = &[b"#Fields:", b"#Date:"];

/// What is kept beyond the standard fields, where a log has it.
pub(super) const EXTRA: [&str; 8] = [
    "s_sitename",
    "s_ip",
    "s_port",
    "sc_substatus",
    "time_taken",
    "x_edge_location",
    "x_edge_result_type",
    "x_edge_request_id",
];

/// What every log of this format may give.
pub(super) fn slots() -> Vec<Slot> {
    let fields = [
        "ip",
        "time",
        "method",
        "target",
        "protocol",
        "status",
        "bytes",
        "referer",
        "user_agent",
        "host",
        "user",
        "forwarded_for",
        "range",
        "dnt",
        "gpc",
    ];
    let fields = fields.into_iter().filter_map(Slot::of_field);
    fields.chain(EXTRA.into_iter().map(|name| Slot::Extra(Arc::from(name)))).collect()
}

/// What a `#Fields:` line announces.
#[derive(Debug)]
pub(super) struct Columns {
    columns: Vec<Column>,
    writer: Writer,
}

/// How values are made to hold no spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// IIS: `+` for a space.
    Plus,
    /// CloudFront: percent-encoding on top of whatever the client sent.
    Percent,
}

#[derive(Debug, Clone, PartialEq)]
enum Column {
    Ignored,
    Date,
    Time,
    RangeStart,
    RangeEnd,
    Value(Slot),
}

impl Columns {
    fn new(fields: &[u8]) -> Columns {
        let text = String::from_utf8_lossy(fields).to_ascii_lowercase();
        let names: Vec<&str> = text.split_ascii_whitespace().collect();
        let writer = if names.iter().any(|name| name.starts_with("x-edge-")) { Writer::Percent } else { Writer::Plus };
        let mut columns: Vec<(Column, u8)> = names.iter().map(|name| column(name)).collect();
        // Of several columns for one field the best gives it.
        for at in 0..columns.len() {
            let Column::Value(slot) = &columns[at].0 else { continue };
            let Some(field) = slot.field() else { continue };
            let better = columns.iter().enumerate().any(|(other, (column, rank))| {
                let same = matches!(column, Column::Value(slot) if slot.field() == Some(field));
                same && (*rank, other) < (columns[at].1, at)
            });
            if better {
                columns[at].0 = Column::Ignored;
            }
        }
        Columns { columns: columns.into_iter().map(|(column, _)| column).collect(), writer }
    }
}

/// What a column holds, and which of several for one field gives it: the lowest.
fn column(name: &str) -> (Column, u8) {
    let value = |slot: Slot| Column::Value(slot);
    match name {
        "date" => (Column::Date, 0),
        "time" => (Column::Time, 0),
        "timestamp" => (value(Slot::Time(Clock::Auto)), 0),
        "c-ip" => (value(Slot::Ip), 0),
        "cs-username" => (value(Slot::User), 0),
        "cs-method" => (value(Slot::Method), 0),
        "cs-uri-stem" => (value(Slot::Path { decoded: true }), 0),
        "cs-uri-query" => (value(Slot::Query { marked: false }), 0),
        "cs-uri" => (value(Slot::Target), 0),
        "cs-protocol-version" | "cs-version" => (value(Slot::Protocol), 0),
        "sc-status" => (value(Slot::Status), 0),
        "sc-bytes" => (value(Slot::Bytes), 0),
        // CloudFront's `cs(Host)` is the distribution's own name; this is what the client asked for.
        "x-host-header" => (value(Slot::Host), 0),
        "cs-host" | "cs(host)" => (value(Slot::Host), 1),
        "cs(referer)" => (value(Slot::Referer), 0),
        "cs(user-agent)" => (value(Slot::UserAgent), 0),
        "x-forwarded-for" | "cs(x-forwarded-for)" => (value(Slot::ForwardedFor), 0),
        "cs(range)" => (value(Slot::Range), 0),
        "sc-range-start" => (Column::RangeStart, 0),
        "sc-range-end" => (Column::RangeEnd, 0),
        "cs(dnt)" => (value(Slot::Dnt), 0),
        "cs(sec-gpc)" => (value(Slot::Gpc), 0),
        other => {
            let own = other.replace('-', "_");
            let column = if EXTRA.contains(&own.as_str()) {
                value(Slot::Extra(Arc::from(own.as_str())))
            } else {
                Column::Ignored
            };
            (column, 0)
        }
    }
}

/// Takes a line that begins with `#`: it is no request, but may say how to read those after it.
pub(super) fn learn(line: &[u8], reading: &mut Reading) {
    let after = |name: &[u8]| {
        line.get(..name.len()).filter(|start| start.eq_ignore_ascii_case(name)).and_then(|_| line.get(name.len()..))
    };
    if let Some(fields) = after(b"#Fields:") {
        reading.columns = Some(Arc::new(Columns::new(fields)));
    } else if let Some(date) = after(b"#Date:") {
        reading.date = date.trim_ascii_start().first_chunk().map(|date| Box::new(*date));
    }
}

/// Reads a request with what the lines before it have announced.
pub(super) fn read<'l>(reading: &Reading, line: &'l [u8], entry: &mut Entry<'l>) -> Result<(), Stop> {
    let whole = |line_at: usize| Stop { format_span: 0..0, line_at };
    let Some(columns) = reading.columns.as_deref().filter(|columns| !columns.columns.is_empty()) else {
        return Err(whole(0));
    };
    let tabs = memchr::memchr(b'\t', line).is_some();
    // Tabs may stand around an empty value; spaces can't.
    let mut rest = if tabs { line } else { line.trim_ascii() };
    let (mut date, mut clock): (Option<&[u8]>, Option<&[u8]>) = (reading.date.as_ref().map(|date| &date[..]), None);
    let (mut from, mut to): (Option<&[u8]>, Option<&[u8]>) = (None, None);
    let when = When { zone: &TimeZone::UTC, after: None, last: &reading.last };
    let count = columns.columns.len();
    for (index, column) in columns.columns.iter().enumerate() {
        let at = line.len() - rest.len().min(line.len());
        let (value, quoted, left) = next_value(rest, tabs);
        if left.is_none() && index + 1 < count {
            return Err(whole(line.len()));
        }
        rest = left.unwrap_or_default();
        let absent = value.is_empty() || value == b"-";
        match column {
            Column::Ignored => {}
            Column::Date => date = (!absent).then_some(value),
            Column::Time => clock = (!absent).then_some(value),
            Column::RangeStart => from = (!absent).then_some(value),
            Column::RangeEnd => to = (!absent).then_some(value),
            Column::Value(slot) => {
                let value = if quoted { undouble(value) } else { columns.writer.undo(slot, value) };
                // Paths are made ones that can be decoded again above.
                let slot = match slot {
                    Slot::Path { .. } if !quoted => &Slot::Path { decoded: false },
                    slot => slot,
                };
                if !slot.take(value, when, entry) {
                    return Err(whole(at));
                }
            }
        }
        if index + 1 == count && left.is_some_and(|left| !left.trim_ascii().is_empty()) {
            return Err(whole(line.len() - rest.len()));
        }
    }
    if let Some(clock) = clock {
        let date = date.unwrap_or_default();
        entry.time = Some(moment(date, clock).ok_or_else(|| whole(0))?);
    }
    // CloudFront logs what was asked for in parts.
    if let (Some(from), None) = (from, &entry.range) {
        entry.range = Some(Cow::Owned([b"bytes=", from, b"-", to.unwrap_or_default()].concat()));
    }
    complete(entry);
    Ok(())
}

/// A value, whether it stood in quotes, and what follows its separator, if there is one.
type Value<'l> = (&'l [u8], bool, Option<&'l [u8]>);

fn next_value(rest: &[u8], tabs: bool) -> Value<'_> {
    if let Some(quoted) = quoted_value(rest, tabs) {
        return quoted;
    }
    let end = if tabs { memchr::memchr(b'\t', rest) } else { memchr::memchr(b' ', rest) };
    match end {
        Some(end) => (&rest[..end], false, Some(after_separator(&rest[end..], tabs))),
        None => (rest.trim_ascii_end(), false, None),
    }
}

/// A string in quotes, in which a quote is doubled. IIS and CloudFront write none: there a quote is one of the client's.
fn quoted_value(rest: &[u8], tabs: bool) -> Option<Value<'_>> {
    let inner = rest.strip_prefix(b"\"")?;
    let mut from = 0;
    loop {
        let at = from + memchr::memchr(b'"', inner.get(from..)?)?;
        match inner.get(at + 1) {
            Some(b'"') => from = at + 2,
            None => return Some((&inner[..at], true, None)),
            Some(b' ' | b'\t') => return Some((&inner[..at], true, Some(after_separator(&inner[at + 1..], tabs)))),
            Some(_) => return None,
        }
    }
}

fn after_separator(rest: &[u8], tabs: bool) -> &[u8] {
    if tabs { rest.get(1..).unwrap_or_default() } else { rest.trim_ascii_start() }
}

/// A quote within quotes is doubled.
fn undouble(value: &[u8]) -> Text<'_> {
    if memchr::memchr(b'"', value).is_none() {
        return Cow::Borrowed(value);
    }
    let mut out = Vec::with_capacity(value.len());
    let mut doubled = false;
    for &b in value {
        doubled = b == b'"' && !doubled;
        if !doubled {
            out.push(b);
        }
    }
    Cow::Owned(out)
}

impl Writer {
    fn undo<'l>(self, slot: &Slot, value: &'l [u8]) -> Text<'l> {
        match (self, slot) {
            (Writer::Plus, Slot::Path { .. }) => stem(value),
            (Writer::Plus, Slot::UserAgent | Slot::User) if memchr::memchr(b'+', value).is_some() => {
                Cow::Owned(value.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect())
            }
            (Writer::Percent, Slot::Path { .. } | Slot::Query { .. } | Slot::Target | Slot::Referer) => singly(value),
            (Writer::Percent, Slot::UserAgent | Slot::ForwardedFor | Slot::User | Slot::Range) => {
                let once = decoded(value);
                // Older logs are encoded twice.
                if memchr::memchr(b'%', &once).is_some_and(|at| once[at..].windows(3).any(|three| three == b"%20")) {
                    Cow::Owned(decoded(&once).into_owned())
                } else {
                    once
                }
            }
            _ => Cow::Borrowed(value),
        }
    }
}

/// IIS logs the path decoded, but spaces as `+`; it refuses requests with a `+` of their own unless told otherwise.
/// The encoding is put back, so that the path is one again.
fn stem(path: &[u8]) -> Text<'_> {
    if !path.iter().any(|b| b"+%?#".contains(b)) {
        return Cow::Borrowed(path);
    }
    let mut out = Vec::with_capacity(path.len() + 8);
    for (at, &b) in path.iter().enumerate() {
        let hex = |at: usize| path.get(at).is_some_and(u8::is_ascii_hexdigit);
        match b {
            b'+' => out.extend_from_slice(b"%20"),
            b'%' if !(hex(at + 1) && hex(at + 2)) => out.extend_from_slice(b"%25"),
            b'?' => out.extend_from_slice(b"%3F"),
            b'#' => out.extend_from_slice(b"%23"),
            _ => out.push(b),
        }
    }
    Cow::Owned(out)
}

/// Undoes the encoding of per cent signs that were part of an encoding already: `%2520`.
fn singly(text: &[u8]) -> Text<'_> {
    if memchr::memchr(b'%', text).is_none_or(|at| !text[at..].windows(3).any(|three| three == b"%25")) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&b) = text.get(at) {
        let rest = &text[at..];
        out.push(b);
        let encoded =
            rest.starts_with(b"%25") && rest.get(3..5).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        at += if encoded { 3 } else { 1 };
    }
    Cow::Owned(out)
}

fn decoded(text: &[u8]) -> Text<'_> {
    percent_encoding::percent_decode(text).into()
}

/// Date and clock make a moment, in UTC.
fn moment(date: &[u8], clock: &[u8]) -> Option<jiff::Timestamp> {
    let mut text = [b' '; 40];
    let len = date.len() + 1 + clock.len();
    text.get_mut(..date.len())?.copy_from_slice(date);
    text.get_mut(date.len() + 1..len)?.copy_from_slice(clock);
    Clock::Auto.read(text.get(..len)?, &TimeZone::UTC, None).map(|moment| moment.time)
}
