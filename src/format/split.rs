//! Splits a line into fields between fixed delimiters: what `log_format`, `LogFormat` and the built-in formats compile to.
//!
//! A field ends where the text that follows it in the format is found. Quoted fields know backslash escapes; a quote that
//! isn't followed by the rest of the delimiter is part of the field, and so is one after which the rest of the line
//! wouldn't fit. Nothing is allocated for a field without escapes.

mod glance;
mod plain;
mod quotes;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

pub use glance::{Glance, Glimpse};
use glance::{Glanced, TimeBefore};
use plain::Plain;
pub use quotes::{Marks, Quoted, Quotes};

use super::FormatError;
use super::slot::{Slot, When, complete};
use super::time::Clock;
use super::unescape::unescape;
use crate::entry::Entry;

/// A part of a format as its parser saw it.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// Fixed text.
    Text { bytes: Vec<u8>, span: Range<usize> },
    /// A variable.
    Var(Var),
}

/// A variable of a format.
#[derive(Debug, Clone)]
pub(super) struct Var {
    pub slot: Slot,
    /// Its own name, under which it is kept when its field is taken by a better one.
    pub name: String,
    /// Which of several variables for one field gives it: the lowest.
    pub rank: u8,
    /// The byte its value always begins with, if it isn't empty.
    pub starts: Option<u8>,
    /// Its value is that byte alone, or empty.
    pub is_mark: bool,
    /// How a time is written, as strptime pattern: variables that are parts of one time are joined.
    pub time: Option<String>,
    pub span: Range<usize>,
}

impl Var {
    pub(super) fn new(slot: Slot, name: &str, span: Range<usize>) -> Var {
        Var { slot, name: name.to_owned(), rank: 0, starts: None, is_mark: false, time: None, span }
    }
}

/// What may follow the last field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// Only white space.
    Closed,
    /// Further fields, which are ignored.
    Open,
}

/// A compiled format.
#[derive(Debug, Clone)]
pub(super) struct Splitter {
    head: Literal,
    pieces: Vec<Piece>,
    tail: Tail,
    escaped: bool,
    /// Double quotes of the format itself: a line with no more has none in its fields.
    quotes: usize,
    glanced: Option<Glanced>,
    time_before: Option<TimeBefore>,
    plain: Option<Plain>,
    /// Whether a user agent is neither in quotes nor told from what follows it.
    misleads: bool,
}

/// How many quoted fields, and how many delimiters in each, are tried where a line doesn't fit at first.
const PIECES_RETRIED: usize = 3;
const DELIMITERS_PASSED: usize = 4;

/// A field that is to hold some of what looks like the delimiter after it.
#[derive(Debug, Clone, Copy)]
struct Passed {
    piece: usize,
    delimiters: usize,
}

#[derive(Debug, Clone)]
struct Literal {
    bytes: Vec<u8>,
    span: Range<usize>,
}

#[derive(Debug, Clone)]
struct Piece {
    slot: Slot,
    span: Range<usize>,
    /// What follows it; empty at the format's end, and before a piece that marks its own start.
    until: Literal,
    /// Stands in double quotes, so that a backslash escapes the next byte.
    quoted: bool,
    /// Never holds a space.
    compact: bool,
    /// May be a list, with a space after each comma or around a colon; of a range, one after its unit, too.
    list: bool,
    /// How often `until` occurs in the value itself (the space in a time).
    skip: usize,
    /// What the line must go on with after `until`, so that it is the delimiter and not part of the value.
    look: Look,
    starts: Option<u8>,
    is_mark: bool,
    /// The last of the pieces that follow each other without delimiter, mostly this one.
    group: usize,
    /// By itself, and without its delimiter in it but where it is quoted.
    plain: bool,
    /// Nothing needs to be seen behind its delimiter.
    settled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Anything,
    /// Fields that are bare or in quotes, to the line's end.
    Fields,
    Digit,
    /// Digits or `-`, and then the delimiter after them.
    Number,
    /// `HTTP/` and a version, `-`, or nothing, and then the delimiter after them.
    Protocol,
    /// So many of the delimiter's first byte, as the format has from there on: the fields there hold none.
    Exactly(usize),
}

/// Where a line stopped fitting.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stop {
    pub format_span: Range<usize>,
    pub line_at: usize,
}

impl Stop {
    /// The same in a line with `by` bytes more in front.
    pub(super) fn shifted(self, by: usize) -> Stop {
        Stop { line_at: self.line_at + by, ..self }
    }
}

/// Whether a variable holds what a client or another server has sent, or a name in words: it may be anything.
fn is_sent(name: &str) -> bool {
    let those = ["http_", "sent_", "cookie_", "arg_", "upstream_", "remote_user", "geoip", "ssl_client"];
    those.iter().any(|prefix| name.starts_with(prefix))
}

impl Piece {
    /// Whether its value holds no space and no mark that stands between fields.
    fn is_word(&self) -> bool {
        let words = matches!(
            self.slot,
            Slot::Number
                | Slot::Status
                | Slot::Bytes
                | Slot::Host
                | Slot::Ip
                | Slot::IpPort
                | Slot::Method
                | Slot::Protocol
        );
        match &self.slot {
            // Of the others nearly all are numbers and names.
            Slot::Extra(name) => !is_sent(name),
            slot => words || matches!(slot, Slot::Time(Clock::Unix)),
        }
    }
}

impl Splitter {
    /// Whether a user agent is read that may end elsewhere.
    pub(super) fn misleads(&self) -> bool {
        self.misleads
    }

    /// Whether nothing that stands directly behind a path could be part of its last word.
    pub(super) fn ends_paths_clearly(&self) -> bool {
        self.pieces.iter().all(|piece| {
            let is_path = matches!(piece.slot, Slot::Request | Slot::Target | Slot::Path { .. });
            !is_path || piece.until.bytes.first().is_none_or(|byte| !byte.is_ascii_alphanumeric())
        })
    }

    /// Compiles a format's parts; `escaped` unless the log is written without escapes.
    pub(super) fn new(mut items: Vec<Item>, tail: Tail, escaped: bool) -> Result<Splitter, FormatError> {
        join_times(&mut items)?;
        share_fields(&mut items);
        trim_end(&mut items);
        let mut head = Literal { bytes: Vec::new(), span: 0..0 };
        let mut pieces: Vec<Piece> = Vec::new();
        for item in items {
            match item {
                Item::Text { bytes, span } => {
                    let literal = pieces.last_mut().map_or(&mut head, |piece| &mut piece.until);
                    if literal.bytes.is_empty() {
                        literal.span = span;
                    } else {
                        literal.span.end = span.end;
                    }
                    literal.bytes.extend(bytes);
                }
                Item::Var(var) => {
                    if let Some(before) = pieces.last()
                        && before.until.bytes.is_empty()
                        && !before.is_mark
                        && var.starts.is_none()
                    {
                        return Err(FormatError {
                            message: "nothing tells where one variable ends and the next begins".to_owned(),
                            span: Some(before.span.start..var.span.end),
                            help: Some("put a space or another delimiter between them".to_owned()),
                        });
                    }
                    let end = var.span.end;
                    pieces.push(Piece {
                        compact: matches!(var.slot, Slot::Host | Slot::Number | Slot::Status | Slot::Bytes),
                        list: match &var.slot {
                            Slot::ForwardedFor | Slot::Range => true,
                            Slot::Extra(name) => name.starts_with("upstream_"),
                            _ => false,
                        },
                        slot: var.slot,
                        span: var.span,
                        until: Literal { bytes: Vec::new(), span: end..end },
                        quoted: false,
                        skip: 0,
                        look: Look::Anything,
                        starts: var.starts,
                        is_mark: var.is_mark,
                        group: 0,
                        plain: false,
                        settled: false,
                    });
                    if let (Some(pattern), Some(piece)) = (var.time, pieces.last_mut()) {
                        piece.skip = spaces_in(&pattern);
                    }
                }
            }
        }
        if pieces.is_empty() {
            return Err(FormatError { message: "the format has no variables".to_owned(), span: None, help: None });
        }
        let count = pieces.len();
        let mut group = count - 1;
        let mut misleads = false;
        for at in (0..pieces.len()).rev() {
            let next_look = pieces.get(at + 1).map_or(Look::Anything, |next| match &next.slot {
                slot if slot.is_number() => Look::Number,
                // `$host:$server_port`: an IPv6 address has colons, too.
                Slot::Extra(name) if name.ends_with("_port") && !is_sent(name) => Look::Number,
                Slot::Time(Clock::Auto | Clock::Unix) => Look::Digit,
                Slot::Protocol => Look::Protocol,
                _ => Look::Anything,
            });
            let opens = if at == 0 { head.bytes.last() } else { pieces[at - 1].until.bytes.last() };
            let quoted = opens == Some(&b'"');
            let (this, later) = (&pieces[at], &pieces[at + 1..]);
            let before_words = this.until.bytes.first().filter(|_| later.iter().all(Piece::is_word)).map(|lead| {
                later.iter().map(|piece| memchr::memchr_iter(*lead, &piece.until.bytes).count()).sum::<usize>()
            });
            let common = this.until.bytes.first().is_some_and(|lead| b" ,;:/()".contains(lead));
            misleads |=
                this.slot == Slot::UserAgent && !quoted && !later.is_empty() && common && before_words.is_none();
            let piece = &mut pieces[at];
            if !piece.until.bytes.is_empty() {
                group = at;
            }
            piece.group = group;
            piece.quoted = quoted;
            let bare_next = piece
                .until
                .bytes
                .strip_prefix(b"\"")
                .is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_whitespace));
            piece.look = match next_look {
                Look::Anything if quoted && bare_next => Look::Fields,
                Look::Anything if !quoted && piece.slot == Slot::UserAgent => {
                    before_words.map_or(Look::Anything, Look::Exactly)
                }
                other => other,
            };
            // A delimiter longer than a space isn't in a time.
            if piece.until.bytes != b" " {
                piece.skip = 0;
            }
            piece.plain = piece.group == at && piece.skip == 0 && !piece.list;
            piece.settled = at + 1 < count && piece.look == Look::Anything;
        }
        let literals = std::iter::once(&head).chain(pieces.iter().map(|piece| &piece.until));
        let quotes = literals.map(|literal| memchr::memchr_iter(b'"', &literal.bytes).count()).sum();
        let mut splitter =
            Splitter { head, pieces, tail, escaped, quotes, glanced: None, time_before: None, plain: None, misleads };
        splitter.glanced = Glanced::of(&splitter);
        splitter.time_before = TimeBefore::of(&splitter);
        splitter.plain = Plain::of(&splitter);
        Ok(splitter)
    }

    /// The slots in the format's order.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> + Clone {
        self.pieces.iter().map(|piece| &piece.slot)
    }

    /// Reads a line into an empty entry, or says where it stops fitting.
    pub(super) fn read<'l>(&self, line: &'l [u8], when: When<'_>, entry: &mut Entry<'l>) -> Result<(), Stop> {
        let stop = match self.read_with(line, when, None, entry) {
            Ok(()) => return Ok(()),
            Err(stop) => stop,
        };
        // A writer that doesn't escape quotes may have put a delimiter into a field: perhaps a later one makes all fit.
        if memchr::memchr_iter(b'"', line).count() <= self.quotes {
            return Err(stop);
        }
        let quoted = self.pieces.iter().enumerate().rev().filter(|(_, piece)| piece.quoted);
        for (piece, passed) in
            quoted.take(PIECES_RETRIED).flat_map(|(at, _)| (1..=DELIMITERS_PASSED).map(move |n| (at, n)))
        {
            *entry = Entry::default();
            if self.read_with(line, when, Some(Passed { piece, delimiters: passed }), entry).is_ok() {
                return Ok(());
            }
        }
        Err(stop)
    }

    fn read_with<'l>(
        &self,
        line: &'l [u8],
        when: When<'_>,
        passed: Option<Passed>,
        entry: &mut Entry<'l>,
    ) -> Result<(), Stop> {
        let head = &self.head;
        if !line.starts_with(&head.bytes) {
            let same = line.iter().zip(&head.bytes).take_while(|(a, b)| a == b).count();
            return Err(Stop { format_span: head.span.clone(), line_at: same });
        }
        // Hardly any line has a backslash: looked for once, not in each field.
        let escaped = self.escaped && memchr::memchr(b'\\', line).is_some();
        let mut at = head.bytes.len();
        let mut from = 0;
        while let Some(first) = self.pieces.get(from) {
            let passed = passed.filter(|passed| passed.piece == from).map_or(0, |passed| passed.delimiters);
            // Nearly always the first that looks like the delimiter is it.
            let plain = if passed == 0 && !escaped { self.plain_end(from, first, line, at) } else { None };
            let Some(end) = plain.or_else(|| self.end(from, line, at, passed, escaped)) else {
                // What is missing is the delimiter.
                let missing = self.pieces.get(first.group).map_or(&first.span, |last| &last.until.span);
                let format_span = first.span.start..missing.end.max(first.span.end);
                return Err(Stop { format_span, line_at: at });
            };
            if first.group == from {
                let value = &line[at..end];
                let value = if escaped { unescape(value) } else { Cow::Borrowed(value) };
                if !first.slot.take(value, when, entry) {
                    return Err(Stop { format_span: first.span.clone(), line_at: at });
                }
                at = end + first.until.bytes.len();
                from += 1;
                continue;
            }
            let group = from..first.group + 1;
            let mut start = at;
            for index in group.clone() {
                let Some(piece) = self.pieces.get(index) else { break };
                let stop = self.pieces.get(index + 1).filter(|_| index + 1 < group.end);
                let stop = stop.map_or(end, |next| split_point(piece, next, line, start, end));
                let value = &line[start..stop];
                let value = if escaped { unescape(value) } else { Cow::Borrowed(value) };
                if !piece.slot.take(value, when, entry) {
                    return Err(Stop { format_span: piece.span.clone(), line_at: start });
                }
                start = stop;
            }
            at = end + self.pieces.get(first.group).map_or(0, |last| last.until.bytes.len());
            from = group.end;
        }
        complete(entry);
        Ok(())
    }

    /// Where the value that begins at `start` ends, if it has no escapes and the first that looks like its delimiter is it.
    /// What [`Splitter::end`] says then, in less time.
    #[inline]
    fn plain_end(&self, index: usize, piece: &Piece, line: &[u8], start: usize) -> Option<usize> {
        let until = &piece.until.bytes[..];
        let lead = *until.first()?;
        if let Look::Exactly(many) = piece.look {
            return exact_end(until, line, start, many);
        }
        if !piece.plain {
            return None;
        }
        let rest = line.get(start..)?;
        let len = if piece.quoted {
            memchr::memchr(lead, rest)
        } else {
            // What isn't quoted is short.
            rest.iter().position(|byte| *byte == lead)
        }?;
        let end = start + len;
        let is_it = stands_at(until, line, end)
            && (piece.settled || self.goes_on(index, line, end + until.len(), true, &mut Tried::default()))
            && !(piece.compact && lead != b' ' && rest[..len].contains(&b' '));
        is_it.then_some(end)
    }

    /// Where the value that begins at `start` ends: where the delimiter after it begins.
    fn end(&self, index: usize, line: &[u8], start: usize, passed: usize, escaped: bool) -> Option<usize> {
        let first = self.pieces.get(index)?;
        let last = self.pieces.get(first.group)?;
        let rest = line.get(start..)?;
        // What follows it without delimiter may hold what it can't: a path behind its host has spaces where it is decoded.
        let value_of_first = |end: usize| match self.pieces.get(index + 1).filter(|_| first.group > index) {
            Some(next) => &line[start..split_point(first, next, line, start, end)],
            None => &line[start..end],
        };
        if last.until.bytes.is_empty() {
            let blank = |b: &u8| matches!(b, b' ' | b'\t');
            let end = match self.tail {
                Tail::Open => rest.iter().position(blank).unwrap_or(rest.len()),
                Tail::Closed => rest.trim_ascii_end().len(),
            };
            return Some(start + end).filter(|&end| !first.compact || !value_of_first(end).iter().any(blank));
        }
        if let Look::Exactly(many) = last.look {
            return exact_end(&last.until.bytes, line, start, many);
        }
        let escapes = first.quoted && escaped;
        let find = |escapes, strict| self.find(first, last, line, start, passed, escapes, strict);
        let end = find(escapes, true);
        // Some writers leave backslashes and quotes as they are; but a line that was cut off behind an escaped quote is
        // likelier than one with more fields behind a backslash. And a number that isn't one is better blamed itself.
        let is_last = first.group + 1 == self.pieces.len();
        let plausible = |end: &usize| !is_last || line[end + last.until.bytes.len()..].trim_ascii_end().is_empty();
        let end = end.or_else(|| if escapes { find(false, true).filter(plausible) } else { None });
        let end = end.or_else(|| find(escapes, false))?;
        if first.compact && memchr::memchr(b' ', value_of_first(end)).is_some() {
            return None;
        }
        Some(end)
    }

    #[expect(clippy::too_many_arguments, reason = "one search, told apart by what it takes for the delimiter")]
    fn find(
        &self,
        first: &Piece,
        last: &Piece,
        line: &[u8],
        start: usize,
        mut passed: usize,
        escapes: bool,
        strict: bool,
    ) -> Option<usize> {
        let until = &last.until.bytes[..];
        let lead = *until.first()?;
        let mut skip = first.skip;
        let mut from = start;
        let mut tried = Tried::default();
        loop {
            let rest = line.get(from..)?;
            let at = from
                + if escapes && lead != b'\\' {
                    memchr::memchr2(lead, b'\\', rest)
                } else if first.quoted {
                    memchr::memchr(lead, rest)
                } else {
                    // What isn't quoted is short.
                    rest.iter().position(|byte| *byte == lead)
                }?;
            if line[at] != lead {
                from = at + 2;
                continue;
            }
            if stands_at(until, line, at) {
                if skip > 0 {
                    skip -= 1;
                } else if first.list
                    && (in_list(line, start, at) || first.slot == Slot::Range && in_range(line, start, at))
                {
                    // The next part follows.
                } else if self.goes_on(first.group, line, at + until.len(), strict, &mut tried) {
                    if passed == 0 {
                        return Some(at);
                    }
                    passed -= 1;
                }
            }
            from = at + 1;
        }
    }

    /// Whether the line, from just after a delimiter on, looks as the format wants it.
    fn goes_on(&self, index: usize, line: &[u8], at: usize, strict: bool, tried: &mut Tried) -> bool {
        let rest = line.get(at..).unwrap_or_default();
        let Some(next) = self.pieces.get(index + 1) else {
            let quoted = self.pieces.get(index).is_some_and(|piece| piece.quoted);
            return match (self.tail, rest.first()) {
                (Tail::Closed, _) => rest.trim_ascii_start().is_empty(),
                (Tail::Open, None) => true,
                (Tail::Open, Some(b' ' | b'\t' | b',' | b';')) => !(quoted && strict) || are_fields(line, at, tried),
                (Tail::Open, Some(_)) => false,
            };
        };
        if !strict {
            return true;
        }
        match self.pieces.get(index).map_or(Look::Anything, |piece| piece.look) {
            Look::Fields => memchr::memchr(b'"', rest).is_none() || are_fields(line, at, tried),
            Look::Anything => true,
            // Found from the line's end.
            Look::Exactly(_) => true,
            Look::Digit => rest.first().is_some_and(u8::is_ascii_digit),
            Look::Protocol => {
                // nginx has none of a request that it can't make out.
                let is_none = !next.until.bytes.is_empty() && begins_with(rest, &next.until.bytes);
                // A version further on is likelier to be it.
                let is_none = is_none && memchr::memmem::find(rest, b"HTTP/").is_none();
                if is_none && self.goes_on(index + 1, line, at + next.until.bytes.len(), strict, tried) {
                    return true;
                }
                let version = rest
                    .strip_prefix(b"HTTP/")
                    .map(|rest| &rest[rest.iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count()..]);
                version.or_else(|| rest.strip_prefix(b"-")).is_some_and(|rest| match next.until.bytes.first() {
                    None => rest.first().is_none_or(u8::is_ascii_whitespace),
                    Some(_) => begins_with(rest, &next.until.bytes),
                })
            }
            Look::Number => {
                let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
                let after = match (digits, rest.first()) {
                    (0, Some(b'-')) => 1,
                    // Quoted numbers may be missing altogether.
                    (0, Some(b'"')) if next.quoted => 0,
                    (0, _) => return false,
                    (digits, _) => digits,
                };
                let rest = &rest[after..];
                match next.until.bytes.first() {
                    None => rest.first().is_none_or(|b| b.is_ascii_whitespace()),
                    Some(_) => begins_with(rest, &next.until.bytes),
                }
            }
        }
    }
}

/// Whether a delimiter, whose first byte was found, stands there. Most are of a byte or three.
#[inline]
fn stands_at(until: &[u8], line: &[u8], at: usize) -> bool {
    match until {
        [_] => true,
        [_, second] => line.get(at + 1) == Some(second),
        [_, second, third] => line.get(at + 1) == Some(second) && line.get(at + 2) == Some(third),
        _ => line[at..].starts_with(until),
    }
}

/// Where a value ends behind whose delimiter there are so many more of its first byte, and none in the fields there.
fn exact_end(until: &[u8], line: &[u8], start: usize, many: usize) -> Option<usize> {
    let lead = *until.first()?;
    let within = memchr::memchr_iter(lead, &until[1..]).count();
    let value = line.trim_ascii_end().get(start..)?;
    let end = start + memchr::memrchr_iter(lead, value).nth(many + within)?;
    stands_at(until, line, end).then_some(end)
}

/// Whether bytes begin with a delimiter.
#[inline]
fn begins_with(rest: &[u8], until: &[u8]) -> bool {
    until.first().is_none_or(|first| rest.first() == Some(first) && stands_at(until, rest, 0))
}

/// From where on a line was tried for fields and isn't. A field full of quotes would be gone through to the line's end from
/// each of them, and a client that sends 8 KiB of them could hold the reading up.
#[derive(Debug, Default)]
struct Tried {
    /// Once: nearly always the first try fits, and needn't be remembered.
    before: bool,
    in_vain: BTreeSet<usize>,
}

/// Whether what follows the last field of a format, from `at` on, is further fields, each bare or in quotes: else the quote
/// before it was one of the field's own.
fn are_fields(line: &[u8], at: usize, tried: &mut Tried) -> bool {
    let remembers = std::mem::replace(&mut tried.before, true);
    let fit = fields_fit(line.get(at..).unwrap_or_default(), |left| !remembers || tried.in_vain.insert(left));
    if fit {
        tried.in_vain.clear();
    }
    fit
}

/// The same; `goes_on` is asked wherever a field begins, by the bytes that are left.
fn fields_fit(mut rest: &[u8], mut goes_on: impl FnMut(usize) -> bool) -> bool {
    let separates = |b: &u8| matches!(b, b' ' | b'\t' | b',' | b';');
    loop {
        let blank = rest.iter().take_while(|b| separates(b)).count();
        rest = &rest[blank..];
        if !goes_on(rest.len()) {
            return false;
        }
        // A line cut off where a field begins looks like a field that ends in a blank and a quote, which is rarer.
        if rest == b"\"" {
            return true;
        }
        let Some((&opening, inner)) = rest.split_first() else { return true };
        let end = if opening == b'"' {
            let mut from = 0;
            let close = loop {
                match inner.get(from..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
                    None => return false,
                    Some(at) if inner[from + at] == b'"' => break from + at,
                    Some(at) => from += at + 2,
                }
            };
            close + 2
        } else {
            let end = rest.iter().position(separates).unwrap_or(rest.len());
            let is_bare = |at: usize| rest[..at].iter().rev().take_while(|b| **b == b'\\').count() % 2 == 0;
            if memchr::memchr_iter(b'"', &rest[..end]).any(is_bare) {
                return false;
            }
            end
        };
        rest = rest.get(end..).unwrap_or_default();
        if !rest.first().is_none_or(separates) {
            return false;
        }
    }
}

/// Whether the space at `at` stands between the parts of a list: `200, 502 : 200`.
fn in_list(line: &[u8], start: usize, at: usize) -> bool {
    let before = line.get(start..at).unwrap_or_default();
    let from_here = line.get(at..).unwrap_or_default();
    from_here.starts_with(b" ") && (before.ends_with(b",") || before.ends_with(b" :") || from_here.starts_with(b" : "))
}

/// Whether the space at `at` stands behind a range's unit, as Content-Range has it: `bytes 0-99/200`, `bytes */200` (RFC 9110,
/// section 14.4).
fn in_range(line: &[u8], start: usize, at: usize) -> bool {
    let rest = line.get(at + 1..).unwrap_or_default();
    let numbers = rest.iter().take_while(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'*')).count();
    numbers > 0 && rest.get(numbers) == Some(&b'/') && line.get(start..at) == Some(b"bytes")
}

/// Where, between `start` and `end`, a piece ends and the next begins that follows without delimiter.
fn split_point(piece: &Piece, next: &Piece, line: &[u8], start: usize, end: usize) -> usize {
    let value = &line[start..end];
    if piece.is_mark {
        return start + usize::from(!value.is_empty() && value.first().copied() == piece.starts);
    }
    next.starts.and_then(|mark| memchr::memchr(mark, value)).map_or(end, |at| start + at)
}

/// Several time variables with only text between them are one time: `%{%d/%b/%Y %T}t.%{msec_frac}t %{%z}t`.
fn join_times(items: &mut Vec<Item>) -> Result<(), FormatError> {
    let mut out: Vec<Item> = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        let Item::Var(Var { time: Some(pattern), span, name, .. }) = &item else {
            out.push(item);
            continue;
        };
        let partial = is_partial(pattern);
        let joined = match &mut out[..] {
            [.., Item::Var(before), Item::Text { bytes, .. }]
                if bytes.len() <= 3 && before.name == *name && before.time.is_some() =>
            {
                let text = String::from_utf8_lossy(bytes).replace('%', "%%");
                let before_partial = before.time.as_deref().is_some_and(is_partial);
                if partial || before_partial {
                    if let Some(whole) = &mut before.time {
                        whole.push_str(&text);
                        whole.push_str(pattern);
                    }
                    before.span.end = span.end;
                    Some(true)
                } else {
                    None
                }
            }
            [.., Item::Var(before)] if before.name == *name && before.time.is_some() => {
                if let Some(whole) = &mut before.time {
                    whole.push_str(pattern);
                }
                before.span.end = span.end;
                Some(false)
            }
            _ => None,
        };
        match joined {
            Some(true) => {
                out.pop();
            }
            Some(false) => {}
            None => out.push(item),
        }
    }
    let is_whole = |item: &Item| match item {
        Item::Var(Var { time: Some(pattern), .. }) => Clock::from_pattern(pattern).is_ok(),
        Item::Var(Var { slot, .. }) => matches!(slot, Slot::Time(_)),
        Item::Text { .. } => false,
    };
    let told = out.iter().any(is_whole);
    for item in &mut out {
        if let Item::Var(Var { time, slot, span, name, .. }) = item
            && let Some(pattern) = time
        {
            match Clock::from_pattern(pattern) {
                Ok(clock) => *slot = Slot::Time(clock),
                // A clock without its day is no time, but may stand beside one.
                Err(_) if told => *slot = Slot::Extra(Arc::from(name.as_str())),
                Err(mut error) => {
                    error.span = Some(span.clone());
                    return Err(error);
                }
            }
        }
    }
    *items = out;
    Ok(())
}

/// Whether a time pattern lacks its date or its clock, so that it must be part of a longer one.
fn is_partial(pattern: &str) -> bool {
    Clock::from_pattern(pattern).is_err()
        || !(pattern.contains("%z") || pattern.contains("%:z") || pattern.contains("%s"))
}

/// Of several variables for one field the best gives it; the others are kept under their own names.
fn share_fields(items: &mut [Item]) {
    let mut taken: Vec<(&'static str, u8, usize)> = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let Item::Var(var) = item else { continue };
        let Some(field) = var.slot.field() else { continue };
        match taken.iter_mut().find(|(name, ..)| *name == field) {
            Some(held) if var.rank < held.1 => (held.1, held.2) = (var.rank, at),
            Some(_) => {}
            None => taken.push((field, var.rank, at)),
        }
    }
    let has = |name: &str| taken.iter().any(|(field, ..)| *field == name);
    let (request, target) = (has("request"), has("target"));
    for (at, item) in items.iter_mut().enumerate() {
        let Item::Var(var) = item else { continue };
        let Some(field) = var.slot.field() else { continue };
        let covered = match field {
            "method" | "target" | "protocol" => request,
            "path" | "query" => request || target,
            _ => false,
        };
        if covered || !taken.iter().any(|(name, _, holder)| *name == field && *holder == at) {
            var.slot = Slot::Extra(Arc::from(var.name.as_str()));
        }
    }
}

/// White space at the end of a format means nothing, since it is allowed at the end of a line anyway.
fn trim_end(items: &mut Vec<Item>) {
    while let Some(Item::Text { bytes, span }) = items.last_mut() {
        let kept = bytes.trim_ascii_end().len();
        span.end = span.end.saturating_sub(bytes.len() - kept).max(span.start);
        bytes.truncate(kept);
        if kept > 0 {
            break;
        }
        items.pop();
    }
}

/// How many spaces a time written by this pattern holds.
fn spaces_in(pattern: &str) -> usize {
    pattern.matches(' ').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// What was tried before, at places further ahead in the line, doesn't change the answer.
        #[test]
        fn what_was_tried_in_vain_needs_no_second_look(line in "([ \"]{0,3}[a\\\\,;]{0,2}){0,12}") {
            let mut tried = Tried::default();
            for at in 0..=line.len() {
                let alone = are_fields(line.as_bytes(), at, &mut Tried::default());
                proptest::prop_assert_eq!(are_fields(line.as_bytes(), at, &mut tried), alone, "{:?} from {}", line, at);
            }
        }
    }
}
