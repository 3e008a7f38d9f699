//! How log lines are written: one a line, level first, then what happened, then the facts.
//!
//! A level is chosen by consequence. ERROR: data is lost or someone must act. WARN: odd, nothing lost. INFO: life events.
//! At INFO and above never an address, a query string or a raw line: the file and the offset are given instead.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::debug_fn;

/// A character as it may be shown: control characters as escapes.
fn shown(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = escaped.is_none().then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

/// Sends log lines to standard error. Colour only on a terminal, and never with `NO_COLOR`.
pub fn start() {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let level = std::env::var("SILKTAIL_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    let lines = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        // A file's name may hold anything, and must not write to the terminal or forge a line.
        .fmt_fields(
            debug_fn(|out, field, value| {
                let text = format!("{value:?}");
                let text: String = text.chars().flat_map(shown).collect();
                if field.name() == "message" { out.write_str(&text) } else { write!(out, "{field}={text}") }
            })
            .delimited(" "),
        )
        .with_max_level(level);
    // The journal writes its own times; a terminal or a file has none.
    let started = if std::env::var_os("JOURNAL_STREAM").is_some() {
        tracing::subscriber::set_global_default(lines.without_time().finish())
    } else {
        tracing::subscriber::set_global_default(lines.finish())
    };
    // A second start changes nothing: the first one's lines go on.
    let _ = started;
}
