//! Every problem of a configuration at once: file, line, column, the text underlined, the likely fix.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::LazyLock;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use regex::Regex;

use crate::deliver::payload::redact;

/// One file's text.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub path: PathBuf,
    pub text: String,
}

/// One problem.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub error: bool,
    pub source: Option<usize>,
    pub span: Range<usize>,
    pub message: String,
    pub label: String,
    pub help: Option<String>,
}

/// All problems that were found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// How many of them forbid to start.
    pub errors: usize,
    /// How many don't.
    pub warnings: usize,
    pub(super) sources: Vec<Source>,
    pub(super) problems: Vec<Problem>,
    pub(super) main: String,
}

impl Report {
    pub(super) fn new(main: String, sources: Vec<Source>, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.source, problem.span.start));
        let errors = problems.iter().filter(|problem| problem.error).count();
        Self { errors, warnings: problems.len() - errors, sources, problems, main }
    }

    /// The whole report as text, with what it comes to.
    pub fn render(&self, colour: bool) -> String {
        let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        let counts = format!("{}, {}", plural(self.errors, "error"), plural(self.warnings, "warning"));
        let end = if self.errors > 0 { "; nothing was started" } else { "" };
        format!("{}{}: {counts}{end}\n", self.render_problems(colour), self.main)
    }

    /// The problems as text. Property keys and tokens are hidden in quoted lines.
    pub fn render_problems(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in &self.problems {
            let level = if problem.error { Level::ERROR } else { Level::WARNING };
            let source = problem.source.and_then(|index| self.sources.get(index));
            let (text, changes) = source.map(|source| redact_keys(&source.text)).unwrap_or_default();
            let path = source.map(|source| source.path.display().to_string()).unwrap_or_default();
            let title = level.primary_title(problem.message.as_str());
            let mut group = Group::with_title(title);
            if source.is_some() {
                let Range { start, end } = problem.span;
                let span = on_boundaries(&text, moved(start, &changes, false)..moved(end, &changes, true));
                let annotation = AnnotationKind::Primary.span(span).label(problem.label.as_str());
                group = group.element(Snippet::source(text.as_str()).path(path.as_str()).annotation(annotation));
            }
            if let Some(help) = &problem.help {
                group = group.element(Level::HELP.message(help.as_str()));
            }
            out.push_str(&renderer.render(&[group]));
            out.push_str("\n\n");
        }
        out
    }
}

/// `line:column` of a place, both from 1; columns count characters.
pub(super) fn line_and_column(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |start| start.chars().count()) + 1;
    format!("{line}:{column}")
}

/// A stretch of text that became another: where it was, how long, and how long what stands there now is.
type Change = (usize, usize, usize);

/// The value of a `token`, wherever it is given.
static TOKEN: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"\btoken\s*=\s*["']([^"'\n]*)"#).unwrap_or_else(|_| unreachable!("a fixed pattern")));

/// Hides what may be a property key: a run of letters and digits as long as one, or a shorter one on a line that speaks
/// of keys; and whatever stands behind `token =`.
fn redact_keys(text: &str) -> (String, Vec<Change>) {
    let mut out = String::with_capacity(text.len());
    let mut changes = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let speaks_of_keys = line.to_ascii_lowercase().contains("key");
        let tokens: Vec<Range<usize>> =
            TOKEN.captures_iter(line).filter_map(|found| Some(found.get(1)?.range())).collect();
        let mut rest = line;
        while !rest.is_empty() {
            let done = line.len() - rest.len();
            if let Some(token) = tokens.iter().find(|token| token.start == done && !token.is_empty()) {
                changes.push((at, token.len(), '…'.len_utf8()));
                out.push('…');
                at += token.len();
                rest = &line[token.end..];
            }
            let run = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let (word, after) = rest.split_at(run);
            let secret = word.len() >= 32
                || speaks_of_keys && word.len() >= 16 && word.bytes().any(|byte| byte.is_ascii_digit());
            if secret {
                let shown = redact(word);
                changes.push((at, word.len(), shown.len()));
                out.push_str(&shown);
            } else {
                out.push_str(word);
            }
            at += word.len();
            rest = after;
            if let Some(c) = after.chars().next() {
                // Control characters of a file never reach the terminal as they are.
                let shown = if c.is_ascii_control() && !matches!(c, '\n' | '\t' | '\r') { '?' } else { c };
                out.push(shown);
                at += c.len_utf8();
                rest = &after[c.len_utf8()..];
            }
        }
    }
    (out, changes)
}

/// Where a place of the text as it was is now. What lies inside a change is at its beginning or end.
fn moved(at: usize, changes: &[Change], end: bool) -> usize {
    let (mut added, mut removed) = (0, 0);
    for (start, old, new) in changes {
        if at >= start + old {
            added += new;
            removed += old;
        } else if at > *start {
            return start + added - removed + if end { *new } else { 0 };
        }
    }
    at + added - removed
}

fn on_boundaries(text: &str, span: Range<usize>) -> Range<usize> {
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = span.end.clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_key_is_hidden_and_places_move_with_it() {
        let text = "property_key = \"8bce2be8c07a84a70e7104634b42878b\" # x\nname = \"docs\"\n";
        let (redacted, changes) = redact_keys(text);
        assert_eq!(redacted, "property_key = \"8bce…878b\" # x\nname = \"docs\"\n");
        for word in ["property_key", "# x", "docs"] {
            let at = text.find(word).unwrap();
            assert_eq!(moved(at, &changes, false), redacted.find(word).unwrap(), "{word}");
        }
        let inside = text.find("2be8").unwrap();
        assert_eq!(moved(inside, &changes, false), redacted.find("8bce").unwrap());
    }

    #[test]
    fn a_token_is_hidden_whatever_it_looks_like() {
        for line in [
            "token = \"open sesame\"",
            "status = { listen = \"x\", token='open sesame', a = 1 }",
            "token=\"open sesame",
        ] {
            let (redacted, changes) = redact_keys(line);
            assert_eq!(redacted, line.replace("open sesame", "…"));
            assert_eq!(changes.len(), 1, "{line}");
        }
        assert_eq!(redact_keys("token_file = \"status.token\"\ntoken = \"\"").1, []);
    }
}
