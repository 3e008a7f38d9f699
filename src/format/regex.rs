//! Formats that are the user's own regex: named groups are fields.

use std::borrow::Cow;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ast::{self, Ast};

use super::FormatError;
use super::slot::{Slot, When, complete};
use super::split::Stop;
use super::time::Clock;
use super::unescape::unescape;
use crate::entry::{Entry, FIELDS};

/// A compiled regex and what its groups mean.
#[derive(Debug)]
pub(super) struct Groups {
    regex: Regex,
    /// The index of each named group and where its text goes.
    slots: Vec<(usize, Slot)>,
    pattern: String,
}

impl Groups {
    /// Compiles a pattern with the time pattern that goes with it.
    pub(super) fn new(pattern: &str, time: Option<&str>) -> Result<Groups, FormatError> {
        let regex = compile(pattern)?;
        let clock = time.map_or(Ok(Clock::Auto), Clock::from_pattern)?;
        let mut slots = Vec::new();
        for (index, name) in regex.capture_names().enumerate() {
            let Some(name) = name else { continue };
            let slot = match Slot::of_field(name) {
                Some(Slot::Time(_)) => Slot::Time(clock.clone()),
                Some(slot) => slot,
                None => Slot::Extra(Arc::from(name)),
            };
            slots.push((index, slot));
        }
        let has = |name: &str| slots.iter().any(|(_, slot)| slot.field() == Some(name));
        let mut missing = Vec::new();
        if !has("ip") && !has("forwarded_for") {
            missing.push("`ip`");
        }
        if !has("user_agent") {
            missing.push("`user_agent`");
        }
        if !has("request") && !has("target") && !has("path") {
            missing.push("`request` or `target`");
        }
        if !missing.is_empty() {
            let groups = if missing.len() == 1 { "a named group" } else { "named groups" };
            return Err(FormatError {
                message: format!("the regex lacks {groups} for {}", list(&missing)),
                span: None,
                help: Some(likely_meant(&slots).unwrap_or_else(|| r"write a group as `(?P<ip>\S+)`".to_owned())),
            });
        }
        Ok(Groups { regex, slots, pattern: pattern.to_owned() })
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> + Clone {
        self.slots.iter().map(|(_, slot)| slot)
    }

    pub(super) fn read<'l>(&self, line: &'l [u8], when: When<'_>, entry: &mut Entry<'l>) -> Result<(), Stop> {
        let Some(captures) = self.regex.captures(line) else {
            return Err(Stop { format_span: 0..self.pattern.len(), line_at: 0 });
        };
        for (index, slot) in &self.slots {
            let Some(found) = captures.get(*index) else { continue };
            if !slot.take(unescape(found.as_bytes()), when, entry) {
                let group = slot.field().and_then(|name| self.group_span(name));
                return Err(Stop { format_span: group.unwrap_or(0..self.pattern.len()), line_at: found.start() });
            }
        }
        complete(entry);
        Ok(())
    }

    fn group_span(&self, name: &str) -> Option<std::ops::Range<usize>> {
        let start = self.pattern.find(&format!("<{name}>"))?;
        Some(start..start + name.len() + 2)
    }

    /// The longest beginning of the pattern that fits says where the line stops fitting; `None` if the whole fits.
    /// Slow: for messages, not for every line.
    pub(super) fn stop(&self, line: &[u8]) -> Option<Stop> {
        if self.regex.is_match(line) {
            return None;
        }
        for end in beginnings(&self.pattern) {
            if let Some(regex) = self.pattern.get(..end).and_then(|beginning| compile(beginning).ok())
                && let Some(found) = regex.find(line)
            {
                return Some(Stop { format_span: end..self.pattern.len(), line_at: found.end() });
            }
        }
        Some(Stop { format_span: 0..self.pattern.len(), line_at: 0 })
    }
}

/// Compiles for bytes: logs hold what isn't UTF-8, and `.` must fit that too.
fn compile(pattern: &str) -> Result<Regex, FormatError> {
    RegexBuilder::new(pattern).unicode(false).build().or_else(|_| Regex::new(pattern)).map_err(|error| {
        let span = match ast::parse::Parser::new().parse(pattern) {
            Err(error) => Some(error.span().start.offset..error.span().end.offset),
            Ok(_) => None,
        };
        let message = match ast::parse::Parser::new().parse(pattern) {
            Err(error) => error.kind().to_string(),
            Ok(_) => error.to_string(),
        };
        FormatError { message: format!("bad regex: {message}"), span, help: None }
    })
}

/// The places where the pattern can be cut, the last first.
fn beginnings(pattern: &str) -> Vec<usize> {
    let Ok(Ast::Concat(ref concat)) = ast::parse::Parser::new().parse(pattern) else { return Vec::new() };
    let mut ends: Vec<usize> = concat.asts.iter().map(|part| part.span().end.offset).collect();
    ends.pop();
    ends.reverse();
    ends
}

/// A group whose name is nearly that of a field.
fn likely_meant(slots: &[(usize, Slot)]) -> Option<String> {
    slots.iter().find_map(|(_, slot)| {
        let Slot::Extra(name) = slot else { return None };
        let alias = match name.to_ascii_lowercase().as_str() {
            "agent" | "useragent" | "ua" | "http_user_agent" => Some("user_agent"),
            "remote_addr" | "client" | "clientip" | "client_ip" | "addr" | "host" => Some("ip"),
            "url" | "uri" | "request_uri" => Some("target"),
            _ => None,
        };
        let close = FIELDS.into_iter().chain(["request"]).find(|field| strsim::damerau_levenshtein(field, name) <= 2);
        let meant = alias.or(close)?;
        Some(format!("did you mean `{meant}` by `{name}`?"))
    })
}

fn list(names: &[&str]) -> Cow<'static, str> {
    match names {
        [] => Cow::Borrowed(""),
        [one] => Cow::Owned((*one).to_owned()),
        [rest @ .., last] => Cow::Owned(format!("{} and {last}", rest.join(", "))),
    }
}
