//! Every problem of a configuration at once: file, line, column, the text underlined, the likely fix.

use std::ops::Range;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

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

    /// The whole report as text. Property keys are redacted in quoted lines.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in &self.problems {
            let level = if problem.error { Level::ERROR } else { Level::WARNING };
            let source = problem.source.and_then(|index| self.sources.get(index));
            let text = source.map(|source| redact_keys(&source.text)).unwrap_or_default();
            let path = source.map(|source| source.path.display().to_string()).unwrap_or_default();
            let title = level.primary_title(problem.message.as_str());
            let mut group = Group::with_title(title);
            if source.is_some() {
                let span = on_boundaries(&text, problem.span.clone());
                let annotation = AnnotationKind::Primary.span(span).label(problem.label.as_str());
                group = group.element(Snippet::source(text.as_str()).path(path.as_str()).annotation(annotation));
            }
            if let Some(help) = &problem.help {
                group = group.element(Level::HELP.message(help.as_str()));
            }
            out.push_str(&renderer.render(&[group]));
            out.push_str("\n\n");
        }
        let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        let counts = format!("{}, {}", plural(self.errors, "error"), plural(self.warnings, "warning"));
        let end = if self.errors > 0 { "; nothing was started" } else { "" };
        out.push_str(&format!("{}: {counts}{end}\n", self.main));
        out
    }
}

/// Hides what may be a property key: a quoted run of letters and digits on a line that speaks of keys, or any such run
/// that is as long as one. The text keeps its length, so that spans stay true.
fn redact_keys(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let speaks_of_keys = line.to_ascii_lowercase().contains("key");
        let mut run = String::new();
        let flush = |run: &mut String, out: &mut String| {
            if run.len() >= 32 || speaks_of_keys && run.len() >= 16 && run.bytes().any(|b| b.is_ascii_digit()) {
                // `…` takes three bytes: nine letters stay besides the dots that keep the length.
                let hidden = run.len() - 8;
                out.push_str(&run[..4]);
                out.push('…');
                out.push_str(&"·".repeat((hidden - 3) / 2));
                out.push_str(&".".repeat((hidden - 3) % 2));
                out.push_str(&run[run.len() - 4..]);
            } else {
                out.push_str(run);
            }
            run.clear();
        };
        for c in line.chars() {
            if c.is_ascii_alphanumeric() {
                run.push(c);
            } else {
                flush(&mut run, &mut out);
                // Control characters of a file never reach the terminal as they are.
                out.push(if c.is_control() && !matches!(c, '\n' | '\t' | '\r') && c.len_utf8() == 1 { '?' } else { c });
            }
        }
        flush(&mut run, &mut out);
    }
    out
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
    fn a_property_key_is_hidden_and_the_text_keeps_its_length() {
        let text = "property_key = \"8bce2be8c07a84a70e7104634b42878b\"\nname = \"docs\"\n";
        let redacted = redact_keys(text);
        assert_eq!(redacted.len(), text.len());
        assert!(redacted.contains("8bce…") && redacted.contains("878b") && !redacted.contains("2be8c07a"));
        assert!(redacted.contains("docs"));
    }
}
