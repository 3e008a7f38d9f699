//! `silktail explain`: what is read from a line, which rule decides, and the POST it becomes.

use std::ffi::OsString;
use std::io::{Cursor, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Failure, load, print, print_json, printable};
use crate::batch::Batcher;
use crate::config::{Config, Expectation, Want};
use crate::daemon::{WINDOW_ENTRIES, format_choice, pipeline_site};
use crate::deliver::payload::{self, PropertyKey};
use crate::entry::{Entry, FIELDS};
use crate::follow::scan::directives_before;
use crate::follow::{FormatChoice, decide_format, deciding_bytes, discover, file};
use crate::format::{Format, Misfit, Reading};
use crate::lines::{Cut, Cutter, Line};
use crate::offsets::{LogId, SiteId, Span};
use crate::pipeline::{Outcome, Pipeline, Taken};
use crate::visitor::repeats::Repeats;

/// The arguments of `explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The line; without it, each line of standard input
    #[arg(value_name = "LINE", allow_hyphen_values = true)]
    line: Option<OsString>,
    /// The site whose rules are meant; else the one that `hosts` says, or the only one
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// One JSON object for each line
    #[arg(long)]
    json: bool,
}

/// Explains lines.
pub fn run(config_path: &Path, args: &Args) -> Result<(), Failure> {
    let config = load(config_path)?;
    let mut input: Box<dyn Read> = match &args.line {
        Some(line) => {
            let line = line.as_bytes();
            let end: &[u8] = if line.ends_with(b"\n") { b"" } else { b"\n" };
            Box::new(Cursor::new([line, end].concat()))
        }
        None => Box::new(std::io::stdin().lock()),
    };
    let mut repeats = Repeats::new([0; 16], WINDOW_ENTRIES);
    let max_line = config.follow.max_line;
    let mut chunk = vec![0; CHUNK];
    // What was read of a line that hasn't ended. Each is explained as soon as it has: it may come from a log that goes on.
    let mut unfinished = Vec::new();
    let mut explaining = None;
    let mut at = 0_u64;
    let mut first = true;
    loop {
        let read = read_some(&mut input, &mut chunk)
            .map_err(|error| Failure::Failed(format!("cannot read standard input: {error}")))?;
        let ended = read == 0;
        // The last line may have no newline.
        let mut rest: &[u8] = if ended && !unfinished.is_empty() { b"\n" } else { &chunk[..read] };
        while let Some(end) = memchr::memchr(b'\n', rest) {
            keep(&mut unfinished, &rest[..end], max_line);
            let (explainer, readings) = match &mut explaining {
                Some(known) => known,
                // Where no log shows the format, the first lines do.
                none => {
                    let input = [unfinished.as_slice(), &rest[end..]].concat();
                    none.insert(Explainer::new(config.clone(), args.site.as_deref(), &input, false)?)
                }
            };
            // Of a long line more has gone by; no two lines have one place all the same.
            let span = Span { start: at, end: at + unfinished.len() as u64 + 1 };
            at = span.end;
            let explained = explainer.explain(Line { bytes: &unfinished, span }, readings, &mut repeats);
            if args.json {
                print_json(&format!("{}\n", explained.json()))?;
            } else {
                print(&format!("{}{}", if first { "" } else { "\n" }, explained.text()))?;
            }
            first = false;
            drop(explained);
            unfinished.clear();
            rest = &rest[end + 1..];
        }
        if ended {
            return Ok(());
        }
        keep(&mut unfinished, rest, max_line);
    }
}

/// Bytes that are read at a time.
const CHUNK: usize = 64 * 1024;

/// Reads what is there, or waits for something.
fn read_some(input: &mut impl Read, chunk: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match input.read(chunk) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Adds to a line what has come of it. A line has no NULs before it, as when a log is followed, and of one that is too long
/// just enough is kept to see that it is.
fn keep(line: &mut Vec<u8>, more: &[u8], max_line: usize) {
    let nuls = if line.is_empty() { more.iter().take_while(|byte| **byte == 0).count() } else { 0 };
    let more = &more[nuls..];
    let room = max_line.saturating_add(1).saturating_sub(line.len());
    line.extend_from_slice(&more[..more.len().min(room)]);
}

/// What came of the last line of `input` instead of what is wanted, with its explanation; `None`: as wanted.
///
/// # Errors
/// There is no line.
pub(super) fn disagreement(config: &Config, expectation: &Expectation) -> Result<Option<(String, String)>, Failure> {
    let input = format!("{}\n", expectation.line.trim_end_matches('\n'));
    let (explainer, mut readings) =
        Explainer::new(config.clone(), expectation.site.as_deref(), input.as_bytes(), true)?;
    let mut repeats = Repeats::new([0; 16], WINDOW_ENTRIES);
    let mut bytes = input.as_bytes();
    let mut cutter = Cutter::new(0, usize::MAX);
    let mut last = None;
    while let Some(Cut::Line(line)) = cutter.next_line(&mut bytes) {
        last = Some(explainer.explain(line, &mut readings, &mut repeats));
    }
    let last = last.ok_or_else(|| Failure::Failed(format!("{}: there is no line", expectation.place)))?;
    Ok(last.differs(&expectation.want).map(|difference| (difference, last.text())))
}

/// Logs of a site that are asked for their formats, at most.
const LOGS_ASKED: usize = 1_000;

/// A pipeline for each format that is in question, and the keys.
struct Explainer {
    pipelines: Vec<Pipeline>,
    keys: Vec<(SiteId, PropertyKey)>,
    max_line: usize,
    max_events: usize,
}

struct Explained<'a> {
    /// The only site that is in question.
    only: Option<&'a str>,
    line: String,
    format: &'a Format,
    pipeline: &'a Pipeline,
    bytes: &'a [u8],
    misfit: Option<Misfit>,
    entry: Option<Entry<'a>>,
    taken: Taken,
    payload: Option<Value>,
}

impl Explainer {
    /// Also gives what each pipeline's reading must know before the first line. `by_itself`: where `auto` finds a format for the
    /// input, no log is asked for another.
    fn new(config: Config, only: Option<&str>, input: &[u8], by_itself: bool) -> Result<(Self, Vec<Reading>), Failure> {
        if let Some(name) = only
            && !config.sites.iter().any(|site| site.name == name)
        {
            let names: Vec<&str> = config.sites.iter().map(|site| site.name.as_str()).collect();
            return Err(Failure::Usage(format!(
                "no site is named `{}`; there are: {}",
                printable(name),
                names.join(", ")
            )));
        }
        let (max_line, max_events) = (config.follow.max_line, config.endpoint.max_events);
        let formats = config.formats.clone();
        let mut pipelines: Vec<Pipeline> = Vec::new();
        let mut readings = Vec::new();
        let mut logs_of: Vec<Vec<PathBuf>> = Vec::new();
        let mut keys = Vec::new();
        for (index, site) in config.sites.into_iter().enumerate() {
            if only.is_some_and(|name| name != site.name) {
                continue;
            }
            let id = SiteId(i64::try_from(index).unwrap_or(i64::MAX));
            keys.push((id, site.property_key.clone()));
            let choice = format_choice(&site, &formats);
            let from_input = || Some((decide_format(&choice, None, input)?, Reading::default()));
            let paths: Vec<PathBuf> = site.logs.iter().flat_map(|pattern| discover::expand(pattern)).collect();
            // Each of its logs may have a format of its own. An expectation says what becomes of a line whatever they hold.
            let mut ways: Vec<(Format, Reading, Vec<PathBuf>)> = Vec::new();
            let is_told = by_itself
                && matches!(choice, FormatChoice::Auto(_))
                && decide_format(&choice, None, input).is_some_and(|decided| decided.fits);
            let logs = if is_told { &[][..] } else { &paths[..paths.len().min(LOGS_ASKED)] };
            for path in logs {
                let decide = || {
                    let opened = file::open(path).ok()?;
                    let first = deciding_bytes(&opened.file).ok()?;
                    let decided = decide_format(&choice, None, &first).filter(|decided| decided.fits)?;
                    // The lines are taken for such as follow the log's last.
                    let reading = directives_before(&opened.file, &decided.format, opened.size).unwrap_or_default();
                    Some((decided.format, reading))
                };
                let Some((format, reading)) = decide() else { continue };
                match ways.iter_mut().find(|(known, ..)| known.name() == format.name()) {
                    Some((_, _, logs)) => logs.push(path.clone()),
                    None => ways.push((format, reading, vec![path.clone()])),
                }
            }
            if ways.is_empty() {
                let Some((decided, reading)) = from_input() else { continue };
                ways.push((decided.format, reading, paths));
            }
            let patterns: Vec<PathBuf> = site.logs.iter().map(PathBuf::from).collect();
            let site = Arc::new(pipeline_site(site, id));
            for (format, reading, mut paths) in ways {
                paths.extend(patterns.iter().cloned());
                // Sites that share a log have one pipeline, as when it is followed.
                let together = pipelines.iter().zip(&logs_of).position(|(pipeline, logs)| {
                    pipeline.format.name() == format.name() && paths.iter().any(|path| logs.contains(path))
                });
                match together {
                    Some(at) => {
                        pipelines[at].sites.push(Arc::clone(&site));
                        logs_of[at].extend(paths);
                    }
                    None => {
                        pipelines.push(Pipeline::new(format, vec![Arc::clone(&site)]));
                        readings.push(reading);
                        logs_of.push(paths);
                    }
                }
            }
        }
        if pipelines.is_empty() {
            return Err(Failure::Failed("there is no line to explain".to_owned()));
        }
        Ok((Self { pipelines, keys, max_line, max_events }, readings))
    }

    fn explain<'a>(&'a self, line: Line<'a>, readings: &mut [Reading], repeats: &mut Repeats) -> Explained<'a> {
        let before = readings.to_vec();
        let mut entries: Vec<Option<Entry<'a>>> = (self.pipelines.iter().zip(readings))
            .map(|(pipeline, reading)| pipeline.format.parse_in(reading, line.bytes))
            .collect();
        // One with a site that asks for the line's host; else the first whose format fits and that has a site for the line;
        // else the first.
        let fits = |(pipeline, entry): (&Pipeline, &Option<Entry<'_>>)| {
            let owned = |entry| pipeline.format.is_directive(line.bytes) || pipeline.route(entry).is_some();
            entry.as_ref().is_some_and(owned)
        };
        let is_asked_for = |(pipeline, entry): (&Pipeline, &Option<Entry<'_>>)| {
            let site = entry.as_ref().filter(|entry| entry.host.is_some()).and_then(|entry| pipeline.route(entry));
            site.is_some_and(|site| pipeline.sites[site].hosts.is_some())
        };
        let read = || self.pipelines.iter().zip(&entries);
        // `new` refuses an empty list.
        let chosen = read().position(is_asked_for).or_else(|| {
            let first = read().position(fits)?;
            // Of a site's logs one may be of a format that fits nearly anything.
            let site = |at: usize| self.pipelines[at].sites.first().map(|site| site.id);
            let own = read().enumerate().filter(|(at, way)| site(*at) == site(first) && fits(*way)).map(|(at, _)| at);
            own.min_by_key(|at| std::cmp::Reverse(self.pipelines[*at].format.specificity()))
        });
        let chosen = chosen.unwrap_or(0);
        let (pipeline, entry) = (&self.pipelines[chosen], entries.swap_remove(chosen));
        let misfit = pipeline.format.misfit_in(&before[chosen], line.bytes);
        let mut taken = if line.bytes.len() > self.max_line {
            pipeline.judge(Cut::TooLong(line.span), LogId(0), &mut Reading::default())
        } else {
            pipeline.judge_parsed(entry.as_ref(), line, LogId(0))
        };
        taken.ask(repeats);
        let payload = match &taken.outcome {
            Outcome::Event(event) => self.payload(event.as_ref().clone()),
            _ => None,
        };
        let only = match self.pipelines.as_slice() {
            [Pipeline { sites, .. }] if sites.len() == 1 => sites.first().map(|site| site.name.as_str()),
            _ => None,
        };
        let (shown, more) = match line.bytes.get(..self.max_line) {
            Some(beginning) if beginning.len() < line.bytes.len() => (beginning, "…"),
            _ => (line.bytes, ""),
        };
        Explained {
            only,
            line: String::from_utf8_lossy(shown).into_owned() + more,
            format: &pipeline.format,
            pipeline,
            bytes: line.bytes,
            misfit,
            entry,
            taken,
            payload,
        }
    }

    fn payload(&self, event: crate::event::Event) -> Option<Value> {
        let (_, key) = self.keys.iter().find(|(id, _)| *id == event.origin.site)?;
        let mut batcher = Batcher::new(self.max_events.max(2));
        let mut batches: Vec<_> = batcher.add(event, 0_u8).into_iter().collect();
        batches.extend(batcher.drain());
        let mut body = Vec::new();
        payload::body(key, batches.first()?, true, &mut body);
        serde_json::from_slice(&body).ok()
    }
}

impl Explained<'_> {
    /// Where it isn't what is wanted, in words.
    fn differs(&self, want: &Want) -> Option<String> {
        let outcome = &self.taken.outcome;
        let got = match outcome.reason() {
            Some(reason) => format!("{} ({reason})", outcome.name()),
            None => outcome.name().to_owned(),
        };
        if want.outcome != outcome.name() || want.reason.as_deref().is_some_and(|want| Some(want) != outcome.reason()) {
            let reason = want.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
            return Some(format!("expected {}{reason}, got {got}", want.outcome));
        }
        let event = match outcome {
            Outcome::Event(event) => Some(event),
            _ => None,
        };
        let ip = event.map(|event| event.visitor.ip.to_string());
        let mut pairs = vec![
            ("event", want.event.as_deref(), event.map(|event| &*event.name)),
            ("url", want.url.as_deref(), event.map(|event| event.url.as_str())),
            ("page", want.page.as_deref(), event.map(|event| event.page.as_str())),
            ("ip", want.ip.as_deref(), ip.as_deref()),
        ];
        for (name, value) in &want.properties {
            let got = event.and_then(|event| event.properties.iter().find(|(known, _)| known == name));
            pairs.push((name, Some(value), got.map(|(_, value)| value.as_str())));
        }
        let (name, want, got) = pairs.into_iter().find(|(_, want, got)| want.is_some() && want != got)?;
        let got = got.map_or_else(|| "none".to_owned(), |got| format!("`{}`", printable(got)));
        Some(format!("expected {name} `{}`, got {got}", printable(want.unwrap_or_default())))
    }

    fn site(&self) -> Option<&str> {
        let own = self.taken.site.map(|index| self.pipeline.sites[index].name.as_str());
        own.or(self.only)
    }

    fn fields(&self) -> Option<Map<String, Value>> {
        let entry = self.entry.as_ref().filter(|_| self.taken.outcome != Outcome::TooLong)?;
        let mut fields = Map::new();
        for name in FIELDS.iter().copied().chain(entry.extra.iter().map(|(name, _)| &**name)) {
            let value = match name {
                "status" => entry.status.map(Value::from),
                "bytes" => entry.bytes.map(Value::from),
                "view_width" => entry.view_width.map(Value::from),
                name => entry.text(name).map(|text| Value::from(text.into_owned())),
            };
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        }
        Some(fields)
    }

    fn json(&self) -> String {
        let rule = self.taken.rule.map(|index| index + 1);
        json!({
            "line": self.line,
            "site": self.site(),
            "format": self.format.name(),
            "fields": self.fields(),
            "outcome": self.taken.outcome.name(),
            "reason": self.taken.outcome.reason(),
            "rule": rule,
            "payload": self.payload,
        })
        .to_string()
    }

    fn text(&self) -> String {
        let mut out = format!("line     {}\n", printable(&self.line));
        if self.taken.outcome == Outcome::TooLong {
            out.push_str("outcome  too_long: longer than `max_line`\n");
            return out;
        }
        let Some(entry) = &self.entry else {
            out.push_str(&format!("format   `{}` doesn't fit\n", self.format.name()));
            if let Some(misfit) = &self.misfit {
                let before = |text: &str, at: usize| printable(text.get(..at).unwrap_or(text)).chars().count();
                out.push_str(&format!("         {}\n", printable(&misfit.format_text)));
                let caret = before(&misfit.format_text, misfit.format_span.start);
                out.push_str(&format!("         {}^ this part of the format\n", " ".repeat(caret)));
                out.push_str(&format!("         {}\n", printable(&self.line)));
                let prefix = String::from_utf8_lossy(&self.bytes[..misfit.line_at.min(self.bytes.len())]);
                let caret = printable(&prefix).chars().count();
                out.push_str(&format!("         {}^ doesn't fit here\n", " ".repeat(caret)));
            }
            out.push_str(&format!("outcome  {}\n", self.taken.outcome.name()));
            return out;
        };
        out.push_str(&format!("format   `{}` fits\n", self.format.name()));
        let fields = self.fields().unwrap_or_default();
        let shown: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", printable(value.as_str().unwrap_or(&value.to_string()))))
            .collect();
        out.push_str(&format!("entry    {}\n", shown.join(" ")));
        if let Some(site) = self.taken.site.map(|index| &self.pipeline.sites[index]) {
            out.push_str(&format!("site     {}\n", site.name));
            for (index, rule) in site.rules.0.iter().enumerate() {
                let verdict = match rule.conditions.miss(entry, &site.context) {
                    Some(miss) => format!("no: {miss}"),
                    None => "yes".to_owned(),
                };
                out.push_str(&format!("rule {:<3} {verdict}\n", index + 1));
                if self.taken.rule == Some(index) {
                    break;
                }
            }
        }
        match &self.taken.outcome {
            Outcome::Event(event) => {
                out.push_str(&format!("event    {}  {}", event.name, printable(&event.url)));
                if entry.query.is_some() && !event.url.contains('?') {
                    out.push_str("   (query dropped: see `keep_query`)");
                }
                out.push('\n');
            }
            other => {
                let reason = other.reason().map_or_else(String::new, |reason| format!(": {reason}"));
                out.push_str(&format!("outcome  {}{reason}\n", other.name()));
            }
        }
        if let Some(payload) = &self.payload {
            out.push_str(&format!("POST     {}\n", printable(&payload.to_string())));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_line_without_an_end_no_more_is_kept_than_shows_that_it_is_too_long() {
        for size in 1..20 {
            let mut line = Vec::new();
            for piece in [&b"\0\0\0\0\0\0"[..], &b"first\0"[..], &b"x".repeat(1_000)].concat().chunks(size) {
                keep(&mut line, piece, 8);
            }
            assert_eq!(line, b"first\0xxx", "pieces of {size} bytes");
        }
    }
}
