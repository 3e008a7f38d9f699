//! What a backfill did: the fates of the lines, whose they were and why, what was downloaded most. A value that is
//! added to while lines pass, shown as text, as JSON, or as a page ([`crate::report`]).

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;
use serde::Serialize;

use crate::event::Event;
use crate::frequent::Frequent;
use crate::ledger::Counts;
use crate::sixteen::holds_any;

/// URLs that are shown.
const TOP: usize = 10;
/// Lines that don't fit, shown.
const SAMPLES: usize = 5;
/// Bytes of such a line that are shown.
const SAMPLE_BYTES: usize = 200;
/// Bytes of the longest extension that is counted by itself, and how many are.
const EXTENSION: usize = 8;
const EXTENSIONS: usize = 1_000;

/// What a backfill did, as `--json` shows it. `delivered` and `rejected` count events.
#[derive(Debug, Default, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are the documentation: they are those of the JSON")]
pub struct Summary {
    pub files: u64,
    pub bytes: u64,
    pub lines: u64,
    pub too_long: u64,
    pub unparsed: u64,
    pub unmatched: u64,
    pub excluded: u64,
    pub bot: u64,
    pub repeat: u64,
    pub event: u64,
    pub already_sent: u64,
    /// Lines that are `run`'s and that it hasn't settled yet; in no other count either.
    pub left_to_run: u64,
    pub requests: u64,
    pub delivered: u64,
    pub rejected: u64,
    pub elapsed_seconds: f64,
    /// Stretches that were read again since the rules have changed.
    pub read_again: u64,
    /// By fate and reason: `excluded: {ip: 3}`.
    pub reasons: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// The lines of each site, by its name.
    pub sites: BTreeMap<String, SiteCounts>,
    /// The event URLs that occurred most, and how often.
    pub top_urls: Vec<(String, u64)>,
    /// Some lines that don't fit the format.
    pub unparsed_samples: Vec<Sample>,
    #[serde(skip)]
    pub(crate) plots: Plots,
}

/// Lines of one site by their fate.
#[derive(Debug, Default, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are those of the fates: see `pipeline::Outcome`")]
pub struct SiteCounts {
    pub lines: u64,
    pub unmatched: u64,
    pub excluded: u64,
    pub bot: u64,
    pub repeat: u64,
    pub event: u64,
}

/// A line that doesn't fit the format.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The log.
    pub path: String,
    /// Where the line begins.
    pub offset: u64,
    /// Its beginning.
    pub line: String,
}

/// What only the report shows.
#[derive(Debug, Default, Clone)]
pub(crate) struct Plots {
    urls: Frequent,
    /// Events that count for an earlier run, by site.
    taken_back: BTreeMap<Option<String>, u64>,
    /// The day that was counted last, and how many events.
    today: Option<(Today, u64)>,
    /// Events by the log's day, as the log's clock has it.
    pub days: BTreeMap<Date, u64>,
    /// Events by the extension of their URL's path: see [`extension`].
    extensions: hashbrown::HashMap<u64, u64>,
}

/// The extension of a path in lower case, its first byte the lowest of the number; `None`: it has none, or a long or odd one.
fn extension(path: &[u8]) -> Option<u64> {
    let mut text = 0_u64;
    for (len, byte) in path.iter().rev().take(EXTENSION + 1).enumerate() {
        match byte {
            b'.' => return Some(text).filter(|_| len > 0),
            _ if len == EXTENSION || !byte.is_ascii_alphanumeric() => return None,
            _ => text = text << 8 | u64::from(byte.to_ascii_lowercase()),
        }
    }
    None
}

impl Plots {
    /// Events by the extension of their URL's path.
    pub fn extensions(&self) -> impl Iterator<Item = (String, u64)> {
        let name =
            |extension: &u64| String::from_utf8_lossy(&extension.to_le_bytes()).trim_end_matches('\0').to_owned();
        self.extensions.iter().map(move |(extension, count)| (name(extension), *count))
    }

    /// Another day begins.
    fn close(&mut self, day: Option<(Today, u64)>) {
        if let Some((today, count)) = day {
            *self.days.entry(today.date).or_default() += count;
        }
    }
}

/// A day by a clock so many seconds east of UTC, and what it holds.
#[derive(Debug, Clone)]
struct Today {
    offset: i32,
    date: Date,
    from: Timestamp,
    until: Timestamp,
}

impl Today {
    /// The day of a moment; `None`: there is no such day.
    fn of(time: Timestamp, offset: i32) -> Option<Self> {
        let zone = Offset::from_seconds(offset).ok()?;
        let date = zone.to_datetime(time).date();
        let start = |date: Date| zone.to_timestamp(date.at(0, 0, 0, 0)).ok();
        Some(Self { offset, date, from: start(date)?, until: start(date.tomorrow().ok()?)? })
    }

    fn holds(&self, time: Timestamp, offset: i32) -> bool {
        self.offset == offset && (self.from..self.until).contains(&time)
    }
}

impl Summary {
    /// Lines of one log for one site, or for none.
    pub fn add(&mut self, site: Option<&str>, counts: Counts) {
        self.lines += counts.lines;
        self.too_long += counts.too_long;
        self.unparsed += counts.unparsed;
        self.unmatched += counts.unmatched;
        self.excluded += counts.excluded;
        self.bot += counts.bot;
        self.repeat += counts.repeat;
        self.event += counts.event;
        if let Some(site) = site {
            let of = self.sites.entry(site.to_owned()).or_default();
            of.lines += counts.lines;
            of.unmatched += counts.unmatched;
            of.excluded += counts.excluded;
            of.bot += counts.bot;
            of.repeat += counts.repeat;
            of.event += counts.event;
        }
    }

    /// An event's line was read again that an earlier run had settled: it counts there, not here.
    pub fn was_settled(&mut self, site: Option<&str>) {
        self.already_sent += 1;
        // The line's counts are added after this, with those of its block, and taken back at the end.
        *self.plots.taken_back.entry(site.map(str::to_owned)).or_default() += 1;
    }

    /// Why a line was excluded, a bot's or a repeat.
    pub fn reason(&mut self, fate: &'static str, reason: &'static str) {
        *self.reasons.entry(fate).or_default().entry(reason).or_default() += 1;
    }

    /// A line that doesn't fit.
    pub fn sample(&mut self, path: &Path, offset: u64, line: &[u8]) {
        if self.unparsed_samples.len() < SAMPLES {
            let line = String::from_utf8_lossy(&line[..line.len().min(SAMPLE_BYTES)]).into_owned();
            self.unparsed_samples.push(Sample { path: path.display().to_string(), offset, line });
        }
    }

    /// An event that is to be sent.
    #[inline(never)]
    pub fn event(&mut self, event: &Event) {
        let plots = &mut self.plots;
        plots.urls.add(&event.url);
        if let Some(time) = event.time {
            let offset = event.offset.unwrap_or(0);
            // Most events are of the same day as the one before.
            match &mut plots.today {
                Some((today, count)) if today.holds(time, offset) => *count += 1,
                today => {
                    let before = std::mem::replace(today, Today::of(time, offset).map(|today| (today, 1)));
                    plots.close(before);
                }
            }
        }
        let url = event.url.as_bytes();
        let path = match holds_any(url, *b"?##") {
            true => &url[..memchr::memchr2(b'?', b'#', url).unwrap_or(url.len())],
            false => url,
        };
        let mut extension = extension(path).unwrap_or(u64::from_le_bytes(*b"(none)\0\0"));
        if plots.extensions.len() >= EXTENSIONS && !plots.extensions.contains_key(&extension) {
            extension = u64::from_le_bytes(*b"(other)\0");
        }
        *plots.extensions.entry(extension).or_default() += 1;
    }

    /// Everything has been added.
    pub fn finish(&mut self) {
        let today = self.plots.today.take();
        self.plots.close(today);
        for (site, count) in std::mem::take(&mut self.plots.taken_back) {
            self.lines = self.lines.saturating_sub(count);
            self.event = self.event.saturating_sub(count);
            if let Some(of) = site.and_then(|site| self.sites.get_mut(&site)) {
                of.lines = of.lines.saturating_sub(count);
                of.event = of.event.saturating_sub(count);
            }
        }
        self.top_urls = std::mem::take(&mut self.plots.urls).most(TOP);
    }

    /// The fates in the order in which they are shown.
    pub fn fates(&self) -> [(&'static str, u64); 7] {
        [
            ("event", self.event),
            ("repeat", self.repeat),
            ("bot", self.bot),
            ("excluded", self.excluded),
            ("unmatched", self.unmatched),
            ("unparsed", self.unparsed),
            ("too_long", self.too_long),
        ]
    }

    /// Why lines had a fate: `ip 3, range 7`.
    pub fn why(&self, fate: &str) -> String {
        let reasons = self.reasons.get(fate).into_iter().flatten();
        reasons.map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ")
    }

    /// The summary as text.
    pub fn text(&self, dry_run: bool, printable: impl Fn(&str) -> String) -> String {
        let mut text = format!(
            "read       {} files, {} bytes, {} lines in {:.1} s\n",
            self.files, self.bytes, self.lines, self.elapsed_seconds
        );
        for (name, count) in self.fates() {
            let why = self.why(name);
            let why = if why.is_empty() { why } else { format!("   {why}") };
            text.push_str(&format!("  {name:<10} {count}{why}\n"));
        }
        if self.sites.len() > 1 {
            for (name, of) in &self.sites {
                text.push_str(&format!(
                    "site       {}: {} lines, {} events, {} repeats, {} bots, {} excluded\n",
                    printable(name),
                    of.lines,
                    of.event,
                    of.repeat,
                    of.bot,
                    of.excluded
                ));
            }
        }
        if self.read_again > 0 {
            text.push_str(&format!(
                "again      {} stretches, since the rules have changed: lines that were sent are not sent again\n",
                self.read_again
            ));
        }
        if self.left_to_run > 0 {
            text.push_str(&format!(
                "left to    {} lines that `run` has begun with: it sends them when it runs, or, of a log that it follows no more, a \
                 backfill does while it is stopped\n",
                self.left_to_run
            ));
        }
        if self.already_sent > 0 {
            text.push_str(&format!("passed by  {} lines that an earlier run had settled\n", self.already_sent));
        }
        for (url, count) in &self.top_urls {
            text.push_str(&format!("{count:>10}  {}\n", printable(url)));
        }
        for Sample { path, offset, line } in &self.unparsed_samples {
            let line: String = printable(line).chars().take(100).collect();
            text.push_str(&format!("unparsed   {}, offset {offset}: {line}\n", printable(path)));
        }
        let did = if dry_run {
            format!("would send {} events in {} POSTs, recorded as happening now\n", self.event, self.requests)
        } else {
            format!(
                "sent       {} events, recorded as happening now, {} rejected; {} POSTs, each try counted\n",
                self.delivered, self.rejected, self.requests
            )
        };
        text.push_str(&did);
        text
    }
}
