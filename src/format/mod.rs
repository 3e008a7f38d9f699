//! What a log line means: every format compiles to one parser of bytes → [`Entry`]. Pure.

mod delimited;
mod detect;
mod regex;
mod time;
mod unescape;

use std::ops::Range;
use std::sync::Arc;

use jiff::tz::TimeZone;

pub use detect::detect;
pub use unescape::unescape;

use crate::entry::Entry;

/// The formats that need no definition.
pub const BUILTIN: &[&str] = &["common", "combined", "vhost_combined"];

/// Why a format can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatError {
    /// What is wrong.
    pub message: String,
    /// Where in the user's string, in bytes.
    pub span: Option<Range<usize>>,
    /// The likely fix.
    pub help: Option<String>,
}

/// Where a line stops fitting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The format as text.
    pub format_text: String,
    /// The first part of it that failed.
    pub format_span: Range<usize>,
    /// The place in the line, in bytes.
    pub line_at: usize,
}

/// A compiled format; clones share it.
#[derive(Debug, Clone)]
pub struct Format(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    parser: Parser,
    zone: TimeZone,
}

#[derive(Debug)]
enum Parser {
    Delimited(delimited::Delimited),
    Regex(regex::RegexFormat),
}

impl Format {
    /// One of [`BUILTIN`]; `zone` is for times without an offset.
    pub fn builtin(name: &str, zone: &TimeZone) -> Option<Self> {
        let parser = Parser::Delimited(delimited::Delimited::builtin(name)?);
        Some(Self(Arc::new(Inner { name: name.to_owned(), parser, zone: zone.clone() })))
    }

    /// The user's own regex with named groups; `time` is a strptime pattern.
    ///
    /// # Errors
    /// A bad regex or time pattern, or a group that is missing: `ip`, `user_agent`, and `request` or `target`.
    pub fn regex(name: &str, pattern: &str, time: Option<&str>, zone: TimeZone) -> Result<Self, FormatError> {
        let parser = Parser::Regex(regex::RegexFormat::new(pattern, time)?);
        Ok(Self(Arc::new(Inner { name: name.to_owned(), parser, zone })))
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Reads a line; `None`: it doesn't fit.
    pub fn parse<'l>(&self, line: &'l [u8]) -> Option<Entry<'l>> {
        match &self.0.parser {
            Parser::Delimited(format) => format.parse(line, &self.0.zone).ok(),
            Parser::Regex(format) => format.parse(line, &self.0.zone),
        }
    }

    /// Whether entries of this format can have a field.
    pub fn gives(&self, field: &str) -> bool {
        let requested = ["method", "target", "path", "query", "protocol"];
        let has = |name: &str| match &self.0.parser {
            Parser::Delimited(format) => format.has(name),
            Parser::Regex(format) => format.has(name),
        };
        has(field) || requested.contains(&field) && (has("request") || has("target"))
    }

    /// Names beyond the standard fields.
    pub fn extra(&self) -> Vec<Arc<str>> {
        match &self.0.parser {
            Parser::Delimited(_) => Vec::new(),
            Parser::Regex(format) => format.extra(),
        }
    }

    /// Where a line that doesn't fit stops fitting; `None` where that can't be told.
    pub fn misfit(&self, line: &[u8]) -> Option<Misfit> {
        match &self.0.parser {
            Parser::Delimited(format) => format.misfit(line, &self.0.zone),
            Parser::Regex(_) => None,
        }
    }

    /// How many fields it reads: the more, the more specific.
    fn specificity(&self) -> usize {
        match &self.0.parser {
            Parser::Delimited(format) => format.fields(),
            Parser::Regex(format) => format.fields(),
        }
    }
}
