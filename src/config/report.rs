//! Every problem of a configuration at once: file, line, column, the text underlined, the likely fix.

use std::ops::Range;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::deliver::payload::redact;
use crate::journal::misleads;

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
        format!("{}{}: {counts}{end}\n", self.render_problems(colour), plain(&self.main))
    }

    /// The problems as text. Property keys and tokens are hidden in quoted lines.
    pub fn render_problems(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in &self.problems {
            let level = if problem.error { Level::ERROR } else { Level::WARNING };
            let source = problem.source.and_then(|index| self.sources.get(index));
            let (text, changes) = source.map(|source| redact_keys(&source.text)).unwrap_or_default();
            let path = source.map(|source| plain(&source.path.display().to_string())).unwrap_or_default();
            let (message, label) = (plain(&problem.message), plain(&problem.label));
            let help = problem.help.as_deref().map(plain);
            let title = level.primary_title(message.as_str());
            let mut group = Group::with_title(title);
            if source.is_some() {
                let Range { start, end } = problem.span;
                let span = on_boundaries(&text, moved(start, &changes, false)..moved(end, &changes, true));
                let annotation = AnnotationKind::Primary.span(span).label(label.as_str());
                group = group.element(Snippet::source(text.as_str()).path(path.as_str()).annotation(annotation));
            }
            if let Some(help) = &help {
                group = group.element(Level::HELP.message(help.as_str()));
            }
            out.push_str(&renderer.render(&[group]));
            out.push_str("\n\n");
        }
        out
    }
}

/// Text that may quote the file, as it may be shown.
fn plain(text: &str) -> String {
    text.chars().map(|c| if misleads(c) && c != '\n' { '?' } else { c }).collect()
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

/// Hides what may be a property key or a token: whatever is written behind those names, and elsewhere a run of letters and
/// digits as long as a key, or a shorter one on a line that speaks of keys.
fn redact_keys(text: &str) -> (String, Vec<Change>) {
    let mut out = String::with_capacity(text.len());
    let mut changes = Vec::new();
    let mut at = 0;
    // The quotes of a string that goes on over several lines.
    let mut open: Option<&str> = None;
    for line in text.split_inclusive('\n') {
        let speaks_of_keys = line.to_ascii_lowercase().contains("key");
        let mut values = key_values(line, &mut open).into_iter().peekable();
        let start = at;
        let mut rest = line;
        while !rest.is_empty() {
            let here = at - start;
            if let Some(value) = values.next_if(|value| value.start == here) {
                let (secret, after) = rest.split_at(value.len());
                let shown = redact(secret);
                changes.push((at, secret.len(), shown.len()));
                out.push_str(&shown);
                at += secret.len();
                rest = after;
                continue;
            }
            let until = values.peek().map_or(rest.len(), |value| value.start - here);
            let run = rest[..until].find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(until);
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
            if run == until {
                continue;
            }
            if let Some(c) = after.chars().next() {
                // What would mislead on a terminal never reaches it.
                let shown = if misleads(c) && !matches!(c, '\n' | '\t' | '\r') { '?' } else { c };
                if shown.len_utf8() != c.len_utf8() {
                    changes.push((at, c.len_utf8(), shown.len_utf8()));
                }
                out.push(shown);
                at += c.len_utf8();
                rest = &after[c.len_utf8()..];
            }
        }
    }
    (out, changes)
}

/// Where in a line property keys and tokens stand, in order: what `property_key` or `token`, or nearly that, is set to,
/// quotes left out.
/// `open` is a string that an earlier line began. A `${NAME}` is no key.
fn key_values(line: &str, open: &mut Option<&'static str>) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    let end = line.trim_end().len();
    loop {
        let quote = match open.take() {
            Some(quote) => Some(quote),
            None => {
                let Some(value) = next_key_value(line, from) else { break };
                from = value;
                let quotes = ["\"\"\"", "'''", "\"", "'"];
                let quote = quotes.into_iter().find(|quote| line[from..].starts_with(quote));
                from += quote.map_or(0, str::len);
                quote
            }
        };
        let stop = match quote {
            Some(quote) => line[from..].find(quote).map(|len| from + len),
            // A list of them can't be meant, but may be written.
            None if line[from..].starts_with('[') => line[from..].find(']').map(|len| from + len),
            None => line[from..].find([',', '}', '#']).map(|len| from + line[from..from + len].trim_end().len()),
        };
        if stop.is_none() && quote.is_some_and(|quote| quote.len() == 3) {
            *open = quote;
        }
        let value = from..stop.unwrap_or(end).max(from);
        from = value.end + stop.map_or(0, |_| quote.map_or(0, str::len));
        let text = &line[value.clone()];
        let is_variable = text.starts_with("${") && text.ends_with('}');
        if !text.is_empty() && !is_variable {
            found.push(value);
        }
        if open.is_some() || from >= end {
            break;
        }
    }
    found
}

/// Where the value of the next key begins, from `from` on, that is called `property_key` or `token`, or nearly so.
fn next_key_value(line: &str, from: usize) -> Option<usize> {
    let mut from = from;
    loop {
        let equals = from + line.get(from..)?.find('=')?;
        let name = line[from..equals].trim_end().trim_end_matches(['"', '\'']);
        let name = name.rsplit(|c: char| !c.is_ascii_alphanumeric() && !"_-".contains(c)).next().unwrap_or_default();
        let lower = name.to_ascii_lowercase();
        let value = equals + 1 + line[equals + 1..].len() - line[equals + 1..].trim_start().len();
        let is_key = strsim::damerau_levenshtein(&lower, "property_key") <= 3 && !lower.ends_with("file");
        if is_key || strsim::damerau_levenshtein(&lower, "token") <= 1 {
            return Some(value);
        }
        from = equals + 1;
    }
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
    fn nothing_that_misleads_is_shown_of_a_file_and_places_stay_where_they_are() {
        let text = "# \u{9b}31m\u{202e}\u{7f}\u{1b}[0m é\nname = \"x\u{9b}y\"\n";
        let (shown, changes) = redact_keys(text);
        assert_eq!(shown, "# ?31m???[0m é\nname = \"x?y\"\n");
        for word in ["31m", "é", "name", "y"] {
            let at = text.find(word).unwrap();
            assert_eq!(moved(at, &changes, false), shown.find(word).unwrap(), "{word}");
        }
        let problem = Problem {
            error: true,
            source: Some(0),
            span: text.find("x").unwrap()..text.find("y").unwrap(),
            message: "unknown `\u{9b}x`".to_owned(),
            label: "\u{9b}".to_owned(),
            help: Some("\u{202e}".to_owned()),
        };
        let sources = vec![Source { path: "/etc/\u{9b}x".into(), text: text.to_owned() }];
        let report = Report::new("/etc/\u{9b}x".to_owned(), sources, vec![problem]).render(false);
        assert_eq!(report.chars().find(|c| misleads(*c) && *c != '\n'), None, "{report}");
    }

    #[test]
    fn whatever_a_property_key_or_token_is_set_to_is_hidden_and_nothing_else() {
        for (text, want) in [
            ("property_key = \"8bce2be8-c07a-84a7-0e71-04634b42878b\" # x", "property_key = \"8bce…878b\" # x"),
            ("property_key = \"s3cret\"", "property_key = \"…\""),
            ("property_kye = 'PASSWORDPASSWORDPASSWORDPASSWOR'", "property_kye = 'PASS…SWOR'"),
            ("\tproperty-key=s3cret # x", "\tproperty-key=… # x"),
            ("\"property_key\" = \"s3cret", "\"property_key\" = \"…"),
            ("property_key = [\"s3cret\", \"x\"] # y", "property_key = …] # y"),
            ("property_key = '''\ns3cret\n'''\nname = 'docs'", "property_key = '''\n…\n'''\nname = 'docs'"),
            (
                "site = [{ name = \"docs\", property_key = \"s3 cret\", logs = \"x\" }]",
                "site = [{ name = \"docs\", property_key = \"…\", logs = \"x\" }]",
            ),
            ("property_key = \"${SILKTAIL_KEY}\"", "property_key = \"${SILKTAIL_KEY}\""),
            ("property_key = \"\"", "property_key = \"\""),
            ("property_key_file = \"docs.key\"", "property_key_file = \"docs.key\""),
            ("token = \"open sesame\"", "token = \"…\""),
            (
                "status = { listen = \"x\", token='open sesame', a = 1 }",
                "status = { listen = \"x\", token='…', a = 1 }",
            ),
            ("token=\"open sesame", "token=\"…"),
            ("token_file = \"status.token\"\ntoken = \"\"", "token_file = \"status.token\"\ntoken = \"\""),
            ("properties = { plan = \"x\" }", "properties = { plan = \"x\" }"),
        ] {
            assert_eq!(redact_keys(text).0, want, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_can_be_redacted(text in "((property_key|x|é| |=|\"|'|,|#|\\n|[a-z0-9]{0,34}){0,12}\\n?){0,3}") {
            let (redacted, changes) = redact_keys(&text);
            proptest::prop_assert_eq!(moved(text.len(), &changes, true), redacted.len());
        }
    }
}
