//! How log lines are written: one a line, level first, then what happened, then the facts; or one JSON object a line.
//!
//! A level is chosen by consequence. ERROR: data is lost or someone must act. WARN: odd, nothing lost. INFO: life events,
//! and one summary a minute. At INFO and above never an address, a query string or a raw line: the file and the offset are
//! given instead.
//!
//! The same WARN or ERROR about the same site or log is said once a minute, or again once an INFO has said that something
//! changed there, but not for ever; what is not said is counted (`Recurring`). The last of them are kept for the status
//! page ([`recent`]).

use std::borrow::Cow;
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
/// How often a line is said within that time where something has changed in between.
const SAID_MAX: u32 = 10;
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
    /// How often the same was said or counted of the same site or log.
    pub times: u64,
    /// Which site or log.
    about: String,
}

impl Said {
    /// What was said once.
    pub fn once(at: Timestamp, is_error: bool, message: String, facts: String, hint: Option<String>) -> Self {
        Self { at, is_error, message, facts, hint, times: 1, about: String::new() }
    }
}

static LINES: OnceLock<Arc<Lines>> = OnceLock::new();

/// Whether what goes to a terminal, if it is one, is to be coloured: not with `NO_COLOR`, nor on one that can't.
pub fn may_colour(is_terminal: bool) -> bool {
    let is_set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    is_terminal && is_set("NO_COLOR").is_none() && is_set("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// Sends log lines to standard error; where that is the journal, with the priority that it understands. Colour only on a
/// terminal, and never with `NO_COLOR`.
pub fn start(form: Form) {
    let colour = may_colour(std::io::stderr().is_terminal());
    let asked = std::env::var("SILKTAIL_LOG").ok().filter(|level| !level.is_empty());
    let level = asked.as_ref().map_or(Ok(LevelFilter::INFO), |level| level.parse());
    let is_wrong = level.is_err();
    let level = level.unwrap_or(LevelFilter::INFO);
    let journal = std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_standard_error(&stream));
    let lines = Arc::new(Lines { form, colour, journal, memory: Mutex::default() });
    // A second start changes nothing: the first one's lines go on.
    if LINES.set(Arc::clone(&lines)).is_ok() {
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(level).with(Shared(lines)));
        if is_wrong {
            let hint = "error, warn, info, debug or trace";
            tracing::warn!(asked, hint, "SILKTAIL_LOG isn't a level");
        }
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

/// Whether a character that somebody else chose mustn't be shown as it is: it controls a terminal, turns the direction of
/// what follows (Unicode Standard Annex 9, section 2), or ends a line.
pub(crate) fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON as it may be shown: what misleads as JSON's own escapes, so that it says the same. Line feeds and tabs stay: within texts
/// JSON escapes them itself.
pub(crate) fn shown_json(json: &str) -> Cow<'_, str> {
    let hides = |c: char| misleads(c) && !matches!(c, '\n' | '\t');
    if !json.contains(hides) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if hides(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// A character as it may be shown: what misleads as escapes.
fn shown(c: char) -> impl Iterator<Item = char> {
    let escaped = misleads(c).then(|| c.escape_default());
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
        let change = level == Level::INFO && !key.is_empty();
        if event.metadata().target() != ANSWER && (level <= Level::WARN || change) {
            let kind = (event.metadata().callsite(), key.clone());
            let mut memory = self.lock();
            // What is counted of many things together is about none of them.
            let sketch = |about_many| {
                let about = if about_many { Vec::new() } else { about };
                Sketch { level, message: facts.message.clone(), about }
            };
            let (is_news, counted) = memory.recurring.is_news(kind, now, sketch);
            if change {
                // What was said before of this site or log, and this too, would be news again.
                memory.recurring.over(|(_, about)| *about == key);
            }
            drop(memory);
            self.write_counted(counted);
            if !is_news {
                return;
            }
        }
        // The lines of a configuration's diagnostics are no events of their own: the one that sums them up is.
        if level <= Level::WARN && !(event.metadata().target() == ANSWER && facts.facts.is_empty()) {
            self.keep(level, &facts, Timestamp::now());
        }
        self.write(level, &facts);
    }

    fn say_recurring(&self, all: bool) {
        let due = self.lock().recurring.due(Instant::now(), if all { Duration::ZERO } else { WINDOW });
        self.write_counted(due);
    }

    fn write_counted(&self, counted: impl IntoIterator<Item = Counted<Sketch>>) {
        for (sketch, times, over) in counted {
            let mut facts = Facts { message: sketch.message, facts: sketch.about };
            facts.facts.push(("repeated", Fact::number(times.into())));
            facts.facts.push(("in", Fact::text(&format!("{}s", over.as_secs()))));
            if sketch.level <= Level::WARN {
                self.keep(sketch.level, &facts, Timestamp::now());
            }
            self.write(sketch.level, &facts);
        }
    }

    /// Keeps a warning or an error for the status page; the same about the same is one.
    fn keep(&self, level: Level, facts: &Facts, now: Timestamp) {
        let fact = |wanted: &str| facts.facts.iter().find(|(name, _)| *name == wanted).map(|(_, fact)| fact);
        let shown = facts.facts.iter().filter(|(name, _)| *name != "hint");
        let text = shown.map(|(name, fact)| format!("{name}={}", fact.shown)).collect::<Vec<_>>().join(" ");
        let hint = fact("hint").map(Fact::plain);
        let mut said = Said::once(now, level == Level::ERROR, facts.message.clone(), text, hint);
        said.about = facts.about().iter().map(|(_, fact)| format!("{}\n", fact.shown)).collect();
        let more = fact("repeated").and_then(|fact| fact.value.as_u64());
        let recent = &mut self.lock().recent;
        let same = recent.iter().position(|known| known.message == said.message && known.about == said.about);
        if let Some(known) = same.and_then(|index| recent.remove(index)) {
            said.times = known.times + more.unwrap_or(1);
            if more.is_some() {
                // It says no more than how often.
                (said.facts, said.hint) = (known.facts, known.hint);
            }
        }
        recent.push_back(said);
        let surplus = recent.len().saturating_sub(RECENT);
        recent.drain(..surplus);
    }

    fn write(&self, level: Level, facts: &Facts) {
        let now = Timestamp::now();
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
        // It goes to a terminal, or to the journal, which shows it on one.
        shown_json(&Value::Object(map).to_string()).into_owned()
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
    /// How often it was said since then.
    said: u32,
    /// How often it was only counted.
    counted: u64,
    /// Whether it would be news again.
    is_over: bool,
    first: V,
}

/// The first line, how many like it were counted, in what time.
type Counted<V> = (V, u64, Duration);

impl<K, V> Default for Recurring<K, V> {
    fn default() -> Self {
        Self { known: HashMap::new() }
    }
}

impl<C: Clone + Eq + Hash, V> Recurring<(C, String), V> {
    /// Whether a line is to be said (else it is counted), and what is to be said first of those like it. `first` is told
    /// whether it stands for lines about many things.
    fn is_news(&mut self, key: (C, String), now: Instant, first: impl FnOnce(bool) -> V) -> (bool, Option<Counted<V>>) {
        let is_old = |known: &Recurred<V>| now.duration_since(known.since) >= WINDOW;
        let counted = match self.known.remove_entry(&key) {
            Some((_, known)) if is_old(&known) => {
                let over = now.duration_since(known.since);
                (known.counted > 0).then_some((known.first, known.counted, over))
            }
            Some((key, mut known)) => {
                let is_news = known.is_over && known.said < SAID_MAX;
                known.said += u32::from(is_news);
                known.counted += u64::from(!is_news);
                known.is_over &= !is_news;
                self.known.insert(key, known);
                return (is_news, None);
            }
            None => None,
        };
        self.known.retain(|_, known| known.counted > 0 || !is_old(known));
        let kind = key.0.clone();
        if self.known.keys().filter(|(of, _)| *of == kind).count() < ABOUT_MAX {
            self.known.insert(key, Recurred { since: now, said: 1, counted: 0, is_over: false, first: first(false) });
            return (true, counted);
        }
        // About so many things that they are counted together.
        let rest = Recurred { since: now, said: SAID_MAX, counted: 0, is_over: false, first: first(true) };
        self.known.entry((kind, String::new())).or_insert(rest).counted += 1;
        (false, counted)
    }

    /// From now on what is so is news again, unless it was said often enough.
    fn over(&mut self, is_so: impl Fn(&(C, String)) -> bool) {
        self.known.iter_mut().filter(|(key, _)| is_so(key)).for_each(|(_, known)| known.is_over = true);
    }

    /// What was counted for at least `after`.
    fn due(&mut self, now: Instant, after: Duration) -> Vec<Counted<V>> {
        let due = self.known.extract_if(|_, known| known.counted > 0 && now.duration_since(known.since) >= after);
        due.map(|(_, known)| (known.first, known.counted, now.duration_since(known.since))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_recurs_is_said_once_and_then_counted() {
        let mut lines: Recurring<(u8, String), &str> = Recurring::default();
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let say = |lines: &mut Recurring<_, _>, about: &str, second| {
            lines.is_news((1, about.to_owned()), at(second), |_| "first")
        };
        assert_eq!(say(&mut lines, "a", 0), (true, None), "news");
        assert_eq!([say(&mut lines, "a", 1), say(&mut lines, "a", 30)], [(false, None), (false, None)], "counted");
        assert_eq!(say(&mut lines, "b", 2), (true, None), "about another log");
        assert_eq!(lines.due(at(59), WINDOW), []);
        assert_eq!(lines.due(at(60), WINDOW), [("first", 2, WINDOW)], "only what was repeated");
        assert_eq!(say(&mut lines, "a", 61), (true, None), "after that it is news again");
        assert_eq!(say(&mut lines, "a", 62), (false, None));
        assert_eq!(say(&mut lines, "a", 200), (true, Some(("first", 1, Duration::from_secs(139)))), "nobody had asked");
    }

    #[test]
    fn what_was_over_is_news_again_but_not_for_ever() {
        let mut lines: Recurring<(u8, String), ()> = Recurring::default();
        let now = Instant::now();
        let mut said = 0;
        for _ in 0..100 {
            said += u32::from(lines.is_news((1, "a".to_owned()), now, |_| ()).0);
            lines.over(|(_, about)| about == "a");
        }
        assert_eq!(said, SAID_MAX);
        assert_eq!(lines.due(now, Duration::ZERO), [((), 100 - u64::from(SAID_MAX), Duration::ZERO)]);
    }

    #[test]
    fn a_kind_of_line_about_very_many_things_is_bounded() {
        let mut lines: Recurring<(u8, String), usize> = Recurring::default();
        let now = Instant::now();
        let said =
            (0..10_000).filter(|n| lines.is_news((1, n.to_string()), now, |many| if many { 0 } else { *n }).0).count();
        assert_eq!(said, ABOUT_MAX);
        assert!(lines.known.len() <= ABOUT_MAX + 1, "{}", lines.known.len());
        assert!(lines.is_news((2, String::new()), now, |_| 0).0, "another kind is not affected");
        assert_eq!(lines.due(now, Duration::ZERO), [(0, (10_000 - ABOUT_MAX) as u64, Duration::ZERO)]);
    }

    #[test]
    fn json_as_it_is_shown_says_the_same_and_nothing_in_it_misleads() {
        let text: String = (0..0x3000).filter_map(char::from_u32).chain(['\u{10ffff}', '📥']).collect();
        let value = serde_json::json!({ "a": [text, 1], "\u{9b}": "\u{202e}x\u{7f}" });
        for json in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let shown = shown_json(&json);
            assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
            assert_eq!(shown.chars().find(|c| misleads(*c) && *c != '\n'), None);
        }
        assert_eq!(shown_json("{\"a\":\"\u{9b}31m\"}"), r#"{"a":"\u009b31m"}"#);
        assert!(matches!(shown_json("{\"a\":\"é\\n\"}\n"), Cow::Borrowed(_)), "what doesn't mislead stays");
    }

    #[test]
    fn nothing_in_a_line_can_forge_another() {
        let mut facts = Facts { message: "can't read file".to_owned(), facts: Vec::new() };
        facts.facts.push(("path", Fact::text("a\n<3>ERROR b\u{1b}[31m\u{9b}0m")));
        facts.facts.push(("unread", Fact::number(7.into())));
        let mut text = String::new();
        facts.text(Level::WARN, None, false, &mut text);
        assert_eq!(text, " WARN can't read file path=\"a\\n<3>ERROR b\\u{1b}[31m\\u{9b}0m\" unread=7");
        let json = facts.json(Level::WARN, Timestamp::UNIX_EPOCH);
        assert_eq!(
            json,
            "{\"time\":\"1970-01-01T00:00:00Z\",\"level\":\"WARN\",\"message\":\"can't read file\",\
             \"path\":\"a\\n<3>ERROR b\\u001b[31m\\u009b0m\",\"unread\":7}"
        );
    }
}
