//! How log lines are written: one a line, level first, then what happened, then the facts; or one JSON object a line.
//!
//! A level is chosen by consequence. ERROR: data is lost or someone must act. WARN: odd, nothing lost. INFO: life events,
//! and one summary a minute. At INFO and above never an address, a query string or a raw line: the file and the offset are
//! given instead.
//!
//! The same WARN or ERROR about the same site or log is said once a minute and counted besides ([`Recurring`]). The last of
//! them are kept for the status page ([`recent`]).

use std::collections::{HashMap, VecDeque};
use std::fmt::{Debug, Write as _};
use std::hash::Hash;
use std::io::{IsTerminal, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// The target of lines that answer what somebody has just asked for (a reload): they are said each time.
pub const ANSWER: &str = "silktail::answer";
/// For how long the same line is counted instead of said.
const WINDOW: Duration = Duration::from_secs(60);
/// Sites and logs that one kind of line names within that time; more are counted.
const ABOUT_MAX: usize = 100;
/// Lines that are kept for the status page.
const RECENT: usize = 20;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Form {
    /// For people
    #[default]
    Text,
    /// One JSON object a line: time, level, message, and the facts
    Json,
}

/// A WARN or an ERROR that was said.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// When.
    pub at: Timestamp,
    /// `false`: a warning.
    pub is_error: bool,
    /// What happened.
    pub message: String,
    /// The facts, as the line has them.
    pub facts: String,
    /// What to do.
    pub hint: Option<String>,
}

static LINES: OnceLock<Arc<Lines>> = OnceLock::new();

/// Sends log lines to standard error; where that is the journal, with the priority that it understands. Colour only on a
/// terminal, and never with `NO_COLOR`.
pub fn start(form: Form) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let level = std::env::var("SILKTAIL_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    let journal = std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_standard_error(&stream));
    let lines = Arc::new(Lines { form, colour, journal, memory: Mutex::default() });
    // A second start changes nothing: the first one's lines go on.
    if LINES.set(Arc::clone(&lines)).is_ok() {
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(level).with(Shared(lines)));
    }
}

/// Says of the lines that were counted instead of said how many they were; but for `all`, only after a minute.
pub fn say_recurring(all: bool) {
    if let Some(lines) = LINES.get() {
        lines.say_recurring(all);
    }
}

/// The last warnings and errors, newest first.
pub fn recent() -> Vec<Said> {
    LINES.get().map(|lines| lines.lock().recent.iter().rev().cloned().collect()).unwrap_or_default()
}

/// Whether `device:inode`, as systemd gives them (systemd.exec(5), `$JOURNAL_STREAM`), are those of standard error: a
/// child with another standard error inherits the variable.
fn is_standard_error(stream: &str) -> bool {
    let Ok(stat) = rustix::fs::fstat(std::io::stderr()) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

/// A character as it may be shown: control characters as escapes.
fn shown(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = escaped.is_none().then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

/// What is the same, and what it is about; a kind that speaks of too many things is one.
type Kind = (Identifier, String);

#[derive(Debug, Default)]
struct Memory {
    recurring: Recurring<Kind, Sketch>,
    recent: VecDeque<Said>,
}

/// What a line that is only counted would say.
#[derive(Debug, Clone)]
struct Sketch {
    level: Level,
    message: String,
    about: Vec<(&'static str, Fact)>,
}

#[derive(Debug)]
struct Lines {
    form: Form,
    colour: bool,
    journal: bool,
    memory: Mutex<Memory>,
}

struct Shared(Arc<Lines>);

impl<S: Subscriber> Layer<S> for Shared {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        self.0.take(event);
    }
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        // What is kept here is shown; it needn't be right after a panic.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, event: &Event<'_>) {
        let mut facts = Facts::default();
        event.record(&mut facts);
        let level = *event.metadata().level();
        let about = facts.about();
        let key: String = about.iter().map(|(_, fact)| format!("{}\n", fact.shown)).collect();
        let now = Instant::now();
        match level {
            Level::ERROR | Level::WARN if event.metadata().target() != ANSWER => {
                let sketch = || Sketch { level, message: facts.message.clone(), about };
                if !self.lock().recurring.is_news((event.metadata().callsite(), key), now, sketch) {
                    return;
                }
            }
            // Something has changed there: what was said before would be news again.
            Level::INFO if !key.is_empty() => {
                let counted = self.lock().recurring.forget(now, |(_, about)| *about == key);
                self.write_counted(counted);
            }
            _ => {}
        }
        self.write(level, &facts);
    }

    fn say_recurring(&self, all: bool) {
        let due = self.lock().recurring.due(Instant::now(), if all { Duration::ZERO } else { WINDOW });
        self.write_counted(due);
    }

    fn write_counted(&self, counted: Vec<(Sketch, u64, Duration)>) {
        for (sketch, times, over) in counted {
            let mut facts = Facts { message: sketch.message, facts: sketch.about };
            facts.facts.push(("repeated", Fact::number(times.into())));
            facts.facts.push(("in", Fact::text(&format!("{}s", over.as_secs()))));
            self.write(sketch.level, &facts);
        }
    }

    fn write(&self, level: Level, facts: &Facts) {
        let now = Timestamp::now();
        if level <= Level::WARN {
            let hint = facts.facts.iter().find(|(name, _)| *name == "hint").map(|(_, fact)| fact.plain());
            let shown = facts.facts.iter().filter(|(name, _)| *name != "hint");
            let said = Said {
                at: now,
                is_error: level == Level::ERROR,
                message: facts.message.clone(),
                facts: shown.map(|(name, fact)| format!("{name}={}", fact.shown)).collect::<Vec<_>>().join(" "),
                hint,
            };
            let recent = &mut self.lock().recent;
            recent.push_back(said);
            let surplus = recent.len().saturating_sub(RECENT);
            recent.drain(..surplus);
        }
        let mut line = String::new();
        if self.journal {
            // sd-daemon(3): read from standard error, and taken off.
            let _ = write!(line, "<{}>", priority(level));
        }
        match self.form {
            Form::Json => line.push_str(&facts.json(level, now)),
            Form::Text => facts.text(level, (!self.journal).then_some(now), self.colour, &mut line),
        }
        line.push('\n');
        // In one piece, so that threads don't mix. Where standard error is closed there is nobody to tell.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

/// syslog(3)'s priorities.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// One fact of a line.
#[derive(Debug, Clone)]
struct Fact {
    /// As text has it: texts in quotes, nothing that could forge a line.
    shown: String,
    value: Value,
}

impl Fact {
    fn text(text: &str) -> Self {
        Self { shown: format!("{text:?}").chars().flat_map(shown).collect(), value: text.into() }
    }

    fn number(value: Value) -> Self {
        Self { shown: value.to_string(), value }
    }

    fn plain(&self) -> String {
        self.value.as_str().map_or_else(|| self.value.to_string(), str::to_owned)
    }
}

/// A line's message and facts, in their order.
#[derive(Debug, Default)]
struct Facts {
    message: String,
    facts: Vec<(&'static str, Fact)>,
}

impl Facts {
    /// Whom it is about: the same line about another site or log is another.
    fn about(&self) -> Vec<(&'static str, Fact)> {
        self.facts.iter().filter(|(name, _)| matches!(*name, "site" | "path")).cloned().collect()
    }

    fn add(&mut self, field: &Field, fact: Fact) {
        match field.name() {
            "message" => self.message = fact.plain().chars().flat_map(shown).collect(),
            name => self.facts.push((name, fact)),
        }
    }

    fn json(&self, level: Level, now: Timestamp) -> String {
        let mut map = Map::new();
        map.insert("time".to_owned(), now.to_string().into());
        map.insert("level".to_owned(), level.as_str().into());
        map.insert("message".to_owned(), self.message.as_str().into());
        map.extend(self.facts.iter().map(|(name, fact)| ((*name).to_owned(), fact.value.clone())));
        Value::Object(map).to_string()
    }

    fn text(&self, level: Level, now: Option<Timestamp>, colour: bool, out: &mut String) {
        let paint = |code: &'static str| if colour { code } else { "" };
        let (soft, end) = (paint("\x1b[2m"), paint("\x1b[0m"));
        let name = match level {
            Level::ERROR => paint("\x1b[31m"),
            Level::WARN => paint("\x1b[33m"),
            Level::INFO => paint("\x1b[32m"),
            _ => soft,
        };
        if let Some(now) = now {
            let _ = write!(out, "{soft}{now:.6}{end} ");
        }
        let _ = write!(out, "{name}{:>5}{end} {}", level.as_str(), self.message);
        for (name, fact) in &self.facts {
            let _ = write!(out, " {soft}{name}={end}{}", fact.shown);
        }
    }
}

impl Visit for Facts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Fact::text(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Fact::number(value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Fact::number(value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Fact::number(value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Fact::number(value.into()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A file's name may hold anything, and must not write to the terminal or forge a line.
        let text = format!("{value:?}");
        let fact = Fact { shown: text.chars().flat_map(shown).collect(), value: text.into() };
        self.add(field, fact);
    }
}

/// Counts what is said again and again. `K` is what makes two lines the same, `V` what is kept of the first. Pure.
#[derive(Debug)]
struct Recurring<K, V> {
    known: HashMap<K, Recurred<V>>,
}

#[derive(Debug)]
struct Recurred<V> {
    since: Instant,
    times: u64,
    first: V,
}

impl<K, V> Default for Recurring<K, V> {
    fn default() -> Self {
        Self { known: HashMap::new() }
    }
}

impl<C: Clone + Eq + Hash, V> Recurring<(C, String), V> {
    /// Whether a line is to be said; else it is counted.
    fn is_news(&mut self, key: (C, String), now: Instant, first: impl FnOnce() -> V) -> bool {
        let kind = key.0.clone();
        if let Some(known) = self.known.get_mut(&key) {
            // Nothing was counted, so nothing is left to be said of the last time.
            if known.times == 0 && now.duration_since(known.since) >= WINDOW {
                known.since = now;
                return true;
            }
            known.times += 1;
            return false;
        }
        self.known.retain(|_, known| known.times > 0 || now.duration_since(known.since) < WINDOW);
        if self.known.keys().filter(|(of, _)| *of == kind).count() < ABOUT_MAX {
            self.known.insert(key, Recurred { since: now, times: 0, first: first() });
            return true;
        }
        // About so many things that they are counted together.
        let rest = self.known.entry((kind, String::new()));
        rest.or_insert_with(|| Recurred { since: now, times: 0, first: first() }).times += 1;
        false
    }

    /// From now on what is so is news again; gives what was counted of it.
    fn forget(&mut self, now: Instant, is_so: impl Fn(&(C, String)) -> bool) -> Vec<(V, u64, Duration)> {
        let gone = self.known.extract_if(|key, _| is_so(key)).filter(|(_, known)| known.times > 0);
        gone.map(|(_, known)| (known.first, known.times, now.duration_since(known.since))).collect()
    }

    /// What was counted for at least `after`: the first line, how many like it, in what time.
    fn due(&mut self, now: Instant, after: Duration) -> Vec<(V, u64, Duration)>
    where
        V: Clone,
    {
        let mut due = Vec::new();
        self.known.retain(|_, known| {
            let over = now.duration_since(known.since);
            if known.times > 0 && over >= after {
                due.push((known.first.clone(), known.times, over));
            }
            known.times > 0 && over < after || known.times == 0 && over < WINDOW
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_recurs_is_said_once_and_then_counted() {
        let mut recurring: Recurring<(u8, String), &str> = Recurring::default();
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let mut say = |about: &str, second| recurring.is_news((1, about.to_owned()), at(second), || "first");
        assert!(say("a", 0), "news");
        assert!(!say("a", 1) && !say("a", 30), "counted");
        assert!(say("b", 2), "about another log");
        assert_eq!(recurring.due(at(59), WINDOW), []);
        assert_eq!(recurring.due(at(60), WINDOW), [("first", 2, WINDOW)], "only what was repeated");
        assert!(recurring.is_news((1, "a".to_owned()), at(61), || ""), "after that it is news again");
        assert!(!recurring.is_news((1, "a".to_owned()), at(62), || ""));
        assert_eq!(recurring.forget(at(63), |(_, about)| about == "a"), [("", 1, Duration::from_secs(2))]);
        assert!(recurring.is_news((1, "a".to_owned()), at(63), || ""), "it had been well in between");
    }

    #[test]
    fn a_kind_of_line_about_very_many_things_is_bounded() {
        let mut recurring: Recurring<(u8, String), usize> = Recurring::default();
        let now = Instant::now();
        let said = (0..10_000).filter(|n| recurring.is_news((1, n.to_string()), now, || *n)).count();
        assert_eq!(said, ABOUT_MAX);
        assert!(recurring.known.len() <= ABOUT_MAX + 1, "{}", recurring.known.len());
        assert!(recurring.is_news((2, String::new()), now, || 0), "another kind is not affected");
        assert_eq!(recurring.due(now, Duration::ZERO), [(ABOUT_MAX, (10_000 - ABOUT_MAX) as u64, Duration::ZERO)]);
    }

    #[test]
    fn nothing_in_a_line_can_forge_another() {
        let mut facts = Facts { message: "can't read file".to_owned(), facts: Vec::new() };
        facts.facts.push(("path", Fact::text("a\n<3>ERROR b\u{1b}[31m")));
        facts.facts.push(("unread", Fact::number(7.into())));
        let mut text = String::new();
        facts.text(Level::WARN, None, false, &mut text);
        assert_eq!(text, " WARN can't read file path=\"a\\n<3>ERROR b\\u{1b}[31m\" unread=7");
        let json = facts.json(Level::WARN, Timestamp::UNIX_EPOCH);
        assert_eq!(
            json,
            "{\"time\":\"1970-01-01T00:00:00Z\",\"level\":\"WARN\",\"message\":\"can't read file\",\
             \"path\":\"a\\n<3>ERROR b\\u001b[31m\",\"unread\":7}"
        );
    }
}
