//! Formats of one JSON object a line: which key holds which field.
//!
//! The line is walked once, and only the values that a key asks for are looked at; a string without escapes is borrowed
//! from the line. Logs aren't always JSON to the letter: nginx's `escape=default` writes `\xHH`, and raw bytes may not be
//! UTF-8 or be control characters. All that is taken; an object that isn't closed is not.

use std::borrow::Cow;
use std::sync::Arc;

use super::FormatError;
use super::slot::{Slot, When, complete};
use super::split::Stop;
use super::time::Clock;
use super::unescape::unescape;
use crate::entry::{Entry, FIELDS, Text};

/// The fields and where in the object each is found.
#[derive(Debug)]
pub(super) struct Keys {
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    slot: Slot,
    /// As written, which may be a literal key.
    path: String,
    steps: Vec<Step>,
    /// Where `path` stands in the format's text.
    at: usize,
}

#[derive(Debug)]
enum Step {
    Name(String),
    Index(usize),
}

/// How many keys can be asked for: one bit each.
const MOST_KEYS: usize = 64;

/// How deep objects may be nested in a line.
const DEEPEST: usize = 64;

impl Keys {
    /// Compiles pairs of field and path.
    pub(super) fn new(fields: &[(String, String)], time: Option<&str>) -> Result<Keys, FormatError> {
        let clock = time.map_or(Ok(Clock::Auto), Clock::from_pattern)?;
        if fields.len() > MOST_KEYS {
            return Err(FormatError {
                message: format!("more than {MOST_KEYS} keys"),
                span: None,
                help: Some("leave out what no rule or template uses".to_owned()),
            });
        }
        let mut keys = Vec::new();
        let mut at = 0;
        for (field, path) in fields {
            if let Some(close) = slip_of(field) {
                return Err(FormatError {
                    message: format!("unknown field `{field}`"),
                    span: None,
                    help: Some(format!("did you mean `{close}`?")),
                });
            }
            if path.is_empty() {
                return Err(FormatError {
                    message: format!("`{field}` has an empty key"),
                    span: None,
                    help: Some(
                        "give a key of the log's objects, or a path like `request.headers.Referer[0]`".to_owned(),
                    ),
                });
            }
            let slot = match Slot::of_field(field) {
                Some(Slot::Time(_)) => Slot::Time(clock.clone()),
                Some(slot) => slot,
                None => Slot::Extra(Arc::from(field.as_str())),
            };
            keys.push(Key { slot, path: path.clone(), steps: steps(path), at });
            at += path.len() + 1;
        }
        Ok(Keys { keys })
    }

    /// The format as misfits show it: the keys, one after the other.
    pub(super) fn text(&self) -> String {
        self.keys.iter().map(|key| key.path.as_str()).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> + Clone {
        self.keys.iter().map(|key| &key.slot)
    }

    pub(super) fn read<'l>(&self, line: &'l [u8], when: When<'_>, entry: &mut Entry<'l>) -> Result<(), Stop> {
        let whole = |line_at: usize| Stop { format_span: 0..self.text().len(), line_at };
        let mut walk = Walk { line, at: 0, keys: &self.keys, found: [const { None }; MOST_KEYS] };
        walk.space();
        if line.get(walk.at) != Some(&b'{') {
            return Err(whole(0));
        }
        let all = self.keys.iter().enumerate().fold(0, |all, (at, _)| all | 1 << at);
        if walk.value(all, 0, 0, false).is_none() {
            return Err(whole(walk.at.min(line.len())));
        }
        walk.space();
        if walk.at < line.len() {
            return Err(whole(walk.at));
        }
        // An object of another log has none of the keys that make a request.
        let request = |slot: &Slot| matches!(slot.field(), Some("request" | "target" | "path"));
        if !self.keys.iter().zip(&walk.found).any(|(key, found)| request(&key.slot) && found.is_some()) {
            return Err(whole(0));
        }
        for (key, found) in self.keys.iter().zip(walk.found) {
            let Some(Found { at, value, .. }) = found else { continue };
            if !value.is_empty() && !key.slot.take(value, when, entry) {
                return Err(Stop { format_span: key.at..key.at + key.path.len(), line_at: at });
            }
        }
        complete(entry);
        Ok(())
    }
}

/// A value that a key asks for.
struct Found<'l> {
    at: usize,
    value: Text<'l>,
    /// By a literal key, which goes before a path.
    literal: bool,
}

/// One pass over a line. Sets of keys are bits: those whose path leads to where the walk is.
struct Walk<'l, 'k> {
    line: &'l [u8],
    at: usize,
    keys: &'k [Key],
    found: [Option<Found<'l>>; MOST_KEYS],
}

impl<'l> Walk<'l, '_> {
    fn space(&mut self) {
        while self.line.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    /// Passes a byte that must be there.
    fn pass(&mut self, byte: u8) -> Option<()> {
        (self.line.get(self.at) == Some(&byte)).then(|| self.at += 1)
    }

    /// Walks a value, `depth` steps down the paths of `open`; gives what it would look like in a plain log if it is
    /// something that can be a field, and if that is `wanted`.
    fn value(&mut self, open: u64, depth: usize, nested: usize, wanted: bool) -> Option<Option<Text<'l>>> {
        if nested > DEEPEST {
            return None;
        }
        match *self.line.get(self.at)? {
            b'"' => {
                let (text, escaped) = self.string()?;
                Some(Some(if escaped && wanted { unescape(text) } else { Cow::Borrowed(text) }))
            }
            b'{' => self.object(open, depth, nested).map(|()| None),
            b'[' => self.array(open, depth, nested, wanted),
            _ => self.word(),
        }
    }

    fn object(&mut self, open: u64, depth: usize, nested: usize) -> Option<()> {
        self.pass(b'{')?;
        self.space();
        if self.pass(b'}').is_some() {
            return Some(());
        }
        loop {
            self.space();
            let (name, escaped) = self.string()?;
            let name = if escaped { unescape(name) } else { Cow::Borrowed(name) };
            self.space();
            self.pass(b':')?;
            self.space();
            let mut literal = 0;
            let mut deeper = 0;
            let mut ending = 0;
            if open != 0 {
                for (index, key) in self.keys.iter().enumerate().filter(|(index, _)| open & 1 << index != 0) {
                    if depth == 0 && key.path.as_bytes() == &*name {
                        literal |= 1 << index;
                    } else if let Some(Step::Name(wanted)) = key.steps.get(depth)
                        && (key.steps.len() > 1 || depth > 0)
                        // Header names come in any case.
                        && wanted.as_bytes().eq_ignore_ascii_case(&name)
                    {
                        if depth + 1 == key.steps.len() { ending |= 1 << index } else { deeper |= 1 << index }
                    }
                }
            }
            let at = self.at;
            let wanted = literal | ending != 0;
            let value = self.value(deeper, depth + 1, nested + 1, wanted)?;
            if let Some(value) = value.filter(|_| wanted) {
                self.keep(literal, at, &value, true);
                self.keep(ending, at, &value, false);
            }
            self.space();
            if self.pass(b',').is_none() {
                return self.pass(b'}');
            }
        }
    }

    /// A list, as Caddy and others log headers; without an index all its parts are meant.
    fn array(&mut self, open: u64, depth: usize, nested: usize, wanted: bool) -> Option<Option<Text<'l>>> {
        self.pass(b'[')?;
        self.space();
        if self.pass(b']').is_some() {
            return Some(None);
        }
        let mut all: Option<Text<'l>> = None;
        for index in 0.. {
            self.space();
            let mut deeper = 0;
            let mut ending = 0;
            if open != 0 {
                for (at, key) in self.keys.iter().enumerate().filter(|(at, _)| open & 1 << at != 0) {
                    if matches!(key.steps.get(depth), Some(Step::Index(wanted)) if *wanted == index) {
                        if depth + 1 == key.steps.len() { ending |= 1 << at } else { deeper |= 1 << at }
                    }
                }
            }
            let at = self.at;
            let value = self.value(deeper, depth + 1, nested + 1, wanted || ending != 0)?;
            if let Some(value) = value.filter(|_| wanted || ending != 0) {
                self.keep(ending, at, &value, false);
                all = Some(match all {
                    None => value,
                    Some(before) => Cow::Owned([&*before, b", ", &*value].concat()),
                });
            }
            self.space();
            if self.pass(b',').is_none() {
                break;
            }
        }
        self.pass(b']')?;
        Some(all)
    }

    /// What stands between quotes, and whether there is a backslash in it.
    fn string(&mut self) -> Option<(&'l [u8], bool)> {
        self.pass(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += memchr::memchr2(b'"', b'\\', self.line.get(self.at..)?)?;
            if self.line.get(self.at) == Some(&b'"') {
                self.at += 1;
                return Some((&self.line[start..self.at - 1], escaped));
            }
            escaped = true;
            self.at += 2;
        }
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Option<Option<Text<'l>>> {
        let rest = self.line.get(self.at..)?;
        let len = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b)).count();
        let word = &rest[..len];
        self.at += len;
        match word {
            b"null" => Some(None),
            b"true" | b"false" => Some(Some(Cow::Borrowed(word))),
            [b'-' | b'0'..=b'9', ..] if is_number(word) => Some(Some(whole(word))),
            _ => None,
        }
    }

    fn keep(&mut self, keys: u64, at: usize, value: &Text<'l>, literal: bool) {
        let mut left = keys;
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            left &= left - 1;
            if let Some(held) = self.found.get_mut(index)
                && (literal || !held.as_ref().is_some_and(|held| held.literal))
            {
                *held = Some(Found { at, value: value.clone(), literal });
            }
        }
    }
}

/// A number in digits alone, if that is what it is: some writers print whole numbers as floats (`200.0`, `5e3`).
fn whole(word: &[u8]) -> Text<'_> {
    let short = word.strip_suffix(b".0").unwrap_or(word);
    let exponent = memchr::memchr2(b'e', b'E', short).filter(|at| short[..*at].len() < 16);
    let float = exponent.and_then(|_| std::str::from_utf8(short).ok()?.parse::<f64>().ok());
    match float.filter(|float| float.fract() == 0.0 && (0.0..1e15).contains(float)) {
        Some(float) => Cow::Owned(format!("{float:.0}").into_bytes()),
        None => Cow::Borrowed(short),
    }
}

fn is_number(word: &[u8]) -> bool {
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    digits.first().is_some_and(u8::is_ascii_digit) && digits.iter().all(|b| b.is_ascii_digit() || b"+-.eE".contains(b))
}

/// `a.b[0].c` in its steps.
fn steps(path: &str) -> Vec<Step> {
    let mut out = Vec::new();
    for part in path.split('.') {
        let (name, mut indices) = part.split_at(part.find('[').unwrap_or(part.len()));
        if !name.is_empty() {
            out.push(Step::Name(name.to_owned()));
        }
        while let Some((index, rest)) = indices.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            out.push(index.parse().map_or_else(|_| Step::Name(index.to_owned()), Step::Index));
            indices = rest;
        }
    }
    out
}

/// A name that is nearly a field's is more likely a slip than an extra of that name: the field.
pub fn slip_of(name: &str) -> Option<&'static str> {
    let mut known = FIELDS.into_iter().chain(["request"]);
    if known.clone().any(|field| field == name) {
        return None;
    }
    known.find(|field| strsim::damerau_levenshtein(field, name) == 1)
}
