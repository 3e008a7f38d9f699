//! Formats of one JSON object a line: which key holds which field.
//!
//! Logs aren't always JSON to the letter: nginx's `escape=default` writes `\xHH`, and raw bytes may not be UTF-8. Both are
//! mended in a copy; what isn't UTF-8 becomes U+FFFD.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::FormatError;
use super::slot::{Slot, When, complete};
use super::split::Stop;
use super::time::Clock;
use crate::entry::{Entry, FIELDS};

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

impl Keys {
    /// Compiles pairs of field and path.
    pub(super) fn new(fields: &[(String, String)], time: Option<&str>) -> Result<Keys, FormatError> {
        let clock = time.map_or(Ok(Clock::Auto), Clock::from_pattern)?;
        let mut keys = Vec::new();
        let mut at = 0;
        for (field, path) in fields {
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
        if !line.trim_ascii_start().starts_with(b"{") {
            return Err(whole(0));
        }
        let object: Value = serde_json::from_slice(line)
            .or_else(|_| serde_json::from_slice(&mend(line)))
            .map_err(|error| whole(error.column().saturating_sub(1).min(line.len())))?;
        let mut found = false;
        for key in &self.keys {
            let Some(value) = key.find(&object) else { continue };
            found = true;
            let Some(text) = text(value) else { continue };
            if !key.slot.take(Cow::Owned(text.into_bytes()), when, entry) {
                return Err(Stop { format_span: key.at..key.at + key.path.len(), line_at: 0 });
            }
        }
        // An object of another log has none of the keys that make a request.
        if !found || !self.has_a_request(&object) {
            return Err(whole(0));
        }
        complete(entry);
        Ok(())
    }

    fn has_a_request(&self, object: &Value) -> bool {
        let request = |slot: &Slot| matches!(slot.field(), Some("request" | "target" | "path"));
        self.keys.iter().any(|key| request(&key.slot) && key.find(object).is_some())
    }
}

impl Key {
    fn find<'v>(&self, object: &'v Value) -> Option<&'v Value> {
        if let Some(value) = object.get(&self.path) {
            return Some(value);
        }
        if self.steps.len() < 2 {
            return None;
        }
        self.steps.iter().try_fold(object, |value, step| match step {
            // Header names come in any case.
            Step::Name(name) => value.get(name).or_else(|| {
                value.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
            }),
            Step::Index(index) => value.get(index),
        })
    }
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

/// A value as a log would write it; of a list, as Caddy and others log headers, all parts.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Object(_) => None,
        Value::Bool(truth) => Some(truth.to_string()),
        // serde_json prints a whole float as `200.0`.
        Value::Number(number) => {
            let text = number.to_string();
            Some(text.strip_suffix(".0").map_or(text.clone(), str::to_owned))
        }
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => Some(parts.iter().filter_map(self::text).collect::<Vec<_>>().join(", ")),
    }
}

/// Makes JSON of what is nearly JSON: `\xHH` is undone, control characters and bad UTF-8 are replaced.
fn mend(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len() + 16);
    let mut rest = line;
    let mut open = false;
    while let Some((&b, after)) = rest.split_first() {
        match (b, after.first()) {
            (b'\\', Some(b'x' | b'X')) if after.get(1..3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) => {
                let byte = super::unescape(&rest[..4]);
                match byte.first() {
                    Some(&byte @ (0..0x20 | b'"' | b'\\' | 0x7f)) => out.extend(format!("\\u{byte:04x}").bytes()),
                    _ => out.extend_from_slice(&byte),
                }
                rest = rest.get(4..).unwrap_or_default();
            }
            // An escape that JSON has is kept, another one's backslash is itself.
            (b'\\', Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' | b'u')) => {
                out.extend_from_slice(&rest[..2]);
                rest = &rest[2..];
            }
            (b'\\', _) => {
                out.extend_from_slice(b"\\\\");
                rest = after;
            }
            (0..0x20, _) if open => {
                out.extend(format!("\\u{b:04x}").bytes());
                rest = after;
            }
            _ => {
                open ^= b == b'"';
                out.push(b);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned().into_bytes()
}

/// A name that is nearly a field's is more likely a slip than an extra of that name.
pub(super) fn slip(fields: &[(String, String)]) -> Option<FormatError> {
    let known = |name: &str| FIELDS.contains(&name) || name == "request";
    fields.iter().map(|(name, _)| name).filter(|name| !known(name)).find_map(|name| {
        let close =
            FIELDS.into_iter().chain(["request"]).find(|field| strsim::damerau_levenshtein(field, name) == 1)?;
        Some(FormatError {
            message: format!("unknown field `{name}`"),
            span: None,
            help: Some(format!("did you mean `{close}`?")),
        })
    })
}
