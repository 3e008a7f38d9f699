//! `silktail backfill`: reads logs once, to their end, through the same stages as the daemon.
//!
//! What an earlier run has settled is passed over: each (site, log) has ranges in the ledger, and only what no range
//! covers is read. `linger` is measured by the log's time, so that the same log gives the same POSTs every time.

mod ahead;
mod kept;
mod stream;

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::batch::{Batch, Batcher};
use crate::deliver::payload::{self, PropertyKey};
use crate::deliver::{Delivery, Settle, Settlement};
use crate::event::Event;
use crate::follow::file::{self, Opened};
use crate::follow::identity::{self, Who};
use crate::follow::known::Known;
use crate::follow::rewritten;
use crate::follow::source::{self, Reader, Sink};
use crate::follow::{self, FormatChoice};
use crate::format::{Format, Reading};
use crate::ledger::{Advance, Fingerprint, Ledger, LedgerError, LogRow, overlaps};
use crate::lines::{Cut, Cutter};
use crate::offsets::{LogId, SiteId};
use crate::outbox::{Rooms, Settler};
use crate::pipeline::{self, Pipeline, Site, Taken};
use crate::summary::Summary;
use crate::visitor::bots;
use crate::visitor::repeats::Repeats;
use ahead::{Bytes, Pool};
pub use kept::Kept;
use stream::{Part, Reached, Stream};

/// What a backfill that was told to stop ends with.
const STOPPED: &str = "stopped; run the same command again to go on";

/// After this long without any delivery a backfill gives up; run again, it goes on.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Where lines come from.
#[derive(Debug, Clone)]
pub enum Input {
    /// A file; `live` where the server still writes it: its unfinished last line is left.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether it is a site's log itself, not a rotated sibling.
        live: bool,
    },
    /// Standard input.
    Stdin(Arc<Kept>),
}

impl Input {
    /// Its name in messages.
    pub fn path(&self) -> &Path {
        match self {
            Input::File { path, .. } => path,
            Input::Stdin(_) => Path::new("-"),
        }
    }

    fn is_live(&self) -> bool {
        matches!(self, Input::File { live: true, .. })
    }

    fn open(&self) -> io::Result<Opened> {
        match self {
            Input::File { path, .. } => file::open(path),
            Input::Stdin(kept) => kept.open(),
        }
    }
}

/// A moment, or a day of the log's own calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Anywhere on earth.
    At(Timestamp),
    /// Its midnight in the log's zone.
    Day(jiff::civil::Date),
}

impl Moment {
    /// RFC 3339, or a date.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(day) = text.parse::<jiff::civil::Date>().map_err(|_| ())
            && text.len() == 10
        {
            return Ok(Moment::Day(day));
        }
        let wrong = |_| "neither a date (2026-11-01) nor a time with its offset (2026-11-01T12:00:00Z)".to_owned();
        text.parse().map(Moment::At).map_err(wrong)
    }

    /// Whether it may be later than another; between a day and a moment, the day's zone tells.
    pub fn may_follow(self, other: Moment) -> bool {
        match (self, other) {
            (Moment::At(one), Moment::At(other)) => one > other,
            (Moment::Day(one), Moment::Day(other)) => one > other,
            _ => true,
        }
    }

    fn in_zone(self, zone: &TimeZone) -> Timestamp {
        match self {
            Moment::At(at) => at,
            Moment::Day(day) => zone.to_timestamp(day.at(0, 0, 0, 0)).unwrap_or(Timestamp::MIN),
        }
    }
}

/// Which lines are meant, by the log's time: from `since` on, before `until`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    /// The first moment.
    pub since: Option<Moment>,
    /// The first moment that isn't meant any more.
    pub until: Option<Moment>,
    /// Nothing older than this, whatever `since` says.
    pub oldest: Option<Timestamp>,
}

impl Period {
    fn is_all(&self) -> bool {
        *self == Period::default()
    }

    /// Whether a log may have lines that are meant, as far as its ends show it.
    pub fn may_hold(&self, extent: &Extent) -> bool {
        // Logs are out of order by a transfer's length, and a day is up to 14 hours away from UTC's.
        let slack = jiff::SignedDuration::from_hours(15);
        let after = |time: Timestamp| time.saturating_add(slack).unwrap_or(Timestamp::MAX);
        let too_late =
            extent.first.zip(self.until).is_some_and(|(first, until)| after(until.in_zone(&TimeZone::UTC)) <= first);
        let too_early = |bound: Timestamp| extent.last.is_some_and(|last| after(last) < bound);
        !too_late
            && !self.since.is_some_and(|since| too_early(since.in_zone(&TimeZone::UTC)))
            && !self.oldest.is_some_and(too_early)
    }

    fn holds(&self, time: Timestamp, zone: &TimeZone) -> bool {
        self.since.is_none_or(|since| time >= since.in_zone(zone))
            && self.until.is_none_or(|until| time < until.in_zone(zone))
            && self.oldest.is_none_or(|oldest| time >= oldest)
    }
}

/// How to read, beside what.
#[derive(Debug, Default)]
pub struct Options {
    /// How long a visitor's event waits for company, by the log's time.
    pub linger: hashbrown::HashMap<SiteId, Duration>,
    /// Events in one POST.
    pub max_events: usize,
    /// Longest line, in bytes.
    pub max_line: usize,
    /// POSTs after which nothing more is read.
    pub limit: Option<u64>,
    /// Sends what was sent already, too.
    pub again: bool,
    /// Which lines.
    pub period: Period,
    /// Threads that read.
    pub jobs: usize,
    /// Where it is, for those that show it.
    pub progress: Arc<Progress>,
}

/// How far it has come, seen from another thread.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes on the disk that are read or passed over.
    pub bytes: AtomicU64,
    /// Lines read.
    pub lines: AtomicU64,
    /// Events found.
    pub events: AtomicU64,
    /// POSTs that were answered, or printed.
    pub posts: AtomicU64,
    /// Files finished.
    pub files: AtomicU64,
    /// Which, until somebody has shown them.
    pub finished: std::sync::Mutex<Vec<PathBuf>>,
}

/// One input with the sites that read it.
#[derive(Debug, Clone)]
pub struct Job {
    /// What to read.
    pub input: Input,
    /// In file order: all of them, since they say whose each line is.
    pub sites: Vec<Arc<Site>>,
    /// Only this one's lines are read; `None`: all.
    pub only: Option<SiteId>,
    /// How.
    pub format: FormatChoice,
    /// When its first line was written, if that is known.
    pub first: Option<Timestamp>,
}

impl Job {
    /// Who reads it: places in its sites, and `None` for the log's own count.
    fn readers(&self) -> impl Iterator<Item = Option<usize>> {
        let wanted = |index: &usize| self.only.is_none_or(|only| self.sites[*index].id == only);
        std::iter::once(None).chain((0..self.sites.len()).filter(wanted).map(Some))
    }

    /// The sites whose lines are read.
    fn wanted(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.readers().flatten().map(|index| &self.sites[index])
    }
}

/// Why a backfill couldn't go on.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// A file can't be read.
    #[error("cannot read `{}`", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// Standard output can't be written.
    #[error("cannot write the POSTs")]
    Write(#[source] io::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What became of the events, beside the counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All that was read is settled.
    Done,
    /// Something is left: why, and what to do.
    Left(String),
}

/// Gives batches out by their numbers: the order of their first lines.
#[derive(Debug, Default)]
struct InOrder {
    next: u64,
    /// Those that came before their turn.
    early: BTreeMap<u64, Batch>,
}

impl InOrder {
    fn finish(&mut self, batch: Batch, out: &mut Vec<Batch>) {
        if batch.number != self.next {
            self.early.insert(batch.number, batch);
            return;
        }
        self.next += 1;
        out.push(batch);
        while let Some(batch) = self.early.remove(&self.next) {
            self.next += 1;
            out.push(batch);
        }
    }
}

/// Where batches go.
pub enum Outlet {
    /// To the endpoint.
    Send {
        /// Who delivers.
        delivery: Arc<Delivery<Counted>>,
        /// How much waits.
        rooms: Arc<Rooms>,
        /// What is settled.
        ledger: Ledger,
    },
    /// To standard output, one exact JSON body a line.
    DryRun(hashbrown::HashMap<SiteId, PropertyKey>),
}

/// A settler that counts, too.
pub struct Counted {
    /// Brings outcomes to the ledger.
    pub settler: Settler,
    /// (delivered, rejected) events so far.
    pub counts: Arc<std::sync::Mutex<(u64, u64)>>,
    /// Where POSTs are counted.
    pub progress: Arc<Progress>,
}

impl Settle for Counted {
    async fn settle(&self, settlement: Settlement) {
        let events = settlement.batch.len() as u64;
        let delivered = matches!(settlement.outcome, crate::deliver::Outcome::Delivered);
        self.settler.settle(settlement).await;
        self.progress.posts.fetch_add(1, Ordering::Relaxed);
        let mut counts = self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if delivered { counts.0 += events } else { counts.1 += events }
    }
}

/// Batches by the log's time and counts what was read.
struct Collector<'a> {
    outlet: &'a Outlet,
    options: &'a Options,
    names: HashMap<SiteId, String>,
    /// Whether what is read is remembered: not where it is sent again.
    recording: Cell<bool>,
    state: RefCell<State>,
}

struct State {
    /// Enough POSTs were made.
    limited: bool,
    batcher: Batcher<Timestamp>,
    /// Events of each site that wait for company.
    lingering: HashMap<SiteId, usize>,
    clock: Timestamp,
    order: InOrder,
    /// Batches whose time has come, those of them whose turn it is, and a body: room that is used again.
    due: Vec<Batch>,
    turn: Vec<Batch>,
    line: Vec<u8>,
    summary: Summary,
    out: io::BufWriter<io::Stdout>,
    written: Result<(), io::Error>,
}

impl Collector<'_> {
    fn give(&self, state: &mut State, batches: impl IntoIterator<Item = Batch>) {
        for batch in batches {
            match self.outlet {
                Outlet::Send { delivery, .. } => {
                    let lingering = state.lingering.entry(batch.site()).or_default();
                    *lingering = lingering.saturating_sub(batch.len());
                    delivery.submit_batch(batch);
                }
                Outlet::DryRun(keys) => {
                    let mut turn = std::mem::take(&mut state.turn);
                    state.order.finish(batch, &mut turn);
                    for batch in turn.drain(..) {
                        let Some(key) = keys.get(&batch.site()) else { continue };
                        let line = &mut state.line;
                        line.clear();
                        payload::body(key, &batch, false, line);
                        line.push(b'\n');
                        state.summary.requests += 1;
                        self.options.progress.posts.fetch_add(1, Ordering::Relaxed);
                        if state.written.is_ok() {
                            state.written = state.out.write_all(line);
                            // Nobody reads on, or the disk is full.
                            state.limited |= state.written.is_err();
                        }
                        batch.spare();
                    }
                    state.turn = turn;
                }
            }
        }
    }

    fn flush(&self) {
        let state = &mut *self.state.borrow_mut();
        let batches = state.batcher.drain();
        self.give(state, batches);
    }
}

impl Sink for Collector<'_> {
    fn submit(&self, event: Box<Event>) {
        let state = &mut *self.state.borrow_mut();
        state.summary.event(&event);
        // Logs are a little out of order; the latest time seen is the log's clock.
        state.clock = state.clock.max(event.time.unwrap_or(state.clock));
        let mut due = std::mem::take(&mut state.due);
        state.batcher.take_due(state.clock, &mut due);
        self.give(state, due.drain(..));
        state.due = due;
        let linger = self.options.linger.get(&event.origin.site).copied().unwrap_or_default();
        let linger = jiff::SignedDuration::try_from(linger).unwrap_or_default();
        let due = state.clock.checked_add(linger).unwrap_or(Timestamp::MAX);
        if let Outlet::Send { rooms, .. } = self.outlet {
            rooms.enter(event.origin.site);
            *state.lingering.entry(event.origin.site).or_default() += 1;
        }
        self.options.progress.events.fetch_add(1, Ordering::Relaxed);
        // What the log wrote late may be far from what waits: only near ones travel together, whichever came first.
        let are_near = |one: &Event, other: &Event| {
            one.time.zip(other.time).is_none_or(|(one, other)| one.duration_since(other).abs() < linger)
        };
        let full = state.batcher.add_beside(event, due, are_near);
        self.give(state, full);
        state.limited |= self.options.limit.is_some_and(|limit| state.batcher.opened() >= limit);
    }

    fn has_room(&self, site: SiteId) -> bool {
        if self.state.borrow().limited {
            return false;
        }
        let Outlet::Send { rooms, .. } = self.outlet else { return true };
        if rooms.has_room(site) {
            return true;
        }
        // What is on its way makes room, and what lingers by the log's time goes on lingering: how long an endpoint takes
        // must not tell which events travel together.
        let lingering = self.state.borrow().lingering.get(&site).copied().unwrap_or(0);
        if lingering < rooms.open(site) {
            return false;
        }
        // Nothing else is left, and it would never be sent while nothing is read.
        self.flush();
        rooms.has_room(site)
    }

    fn advance(&self, advance: Advance) {
        let name = advance.site.and_then(|site| self.names.get(&site)).map(String::as_str);
        let counts = source::counts_of(&advance);
        self.options.progress.lines.fetch_add(counts.lines, Ordering::Relaxed);
        self.state.borrow_mut().summary.add(name, counts);
        if let Outlet::Send { ledger, .. } = self.outlet
            && self.recording.get()
        {
            ledger.advance(advance);
        }
    }

    fn already_sent(&self, site: SiteId) {
        self.state.borrow_mut().summary.was_settled(self.names.get(&site).map(String::as_str));
    }

    fn saw(&self, row: &LogRow, _pipeline: &Pipeline, taken: &Taken, cut: Cut<'_>) {
        if let Some(reason) = taken.outcome.reason() {
            self.state.borrow_mut().summary.reason(taken.outcome.name(), reason);
        } else if let (pipeline::Outcome::Unparsed, Cut::Line(line)) = (&taken.outcome, cut) {
            self.state.borrow_mut().summary.sample(&row.path, line.span.start, line.bytes);
        }
    }

    fn update(&self, row: LogRow) {
        if let Outlet::Send { ledger, .. } = self.outlet
            && self.recording.get()
        {
            ledger.update_log(row);
        }
    }
}

/// From when to when an input's lines are, as far as its ends show it, and how many bytes it has on the disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extent {
    /// Bytes on the disk.
    pub bytes: u64,
    /// The first line's time.
    pub first: Option<Timestamp>,
    /// The last line's time; an archive's last write, which is later.
    pub last: Option<Timestamp>,
}

/// Bytes at a file's ends in which lines with a time are looked for.
const ENDS: usize = 64 * 1024;

/// Looks at an input's ends.
///
/// # Errors
/// Those of reading it.
pub fn extent(input: &Input, choice: &FormatChoice) -> io::Result<Extent> {
    let opened = input.open()?;
    let (bytes, _) = opened.file.on_disk();
    let mut first = follow::first_bytes(&opened.file)?;
    if !first.contains(&b'\n') {
        first.push(b'\n');
    }
    let Some(decided) = follow::decide_format(choice, None, &first) else {
        return Ok(Extent { bytes, ..Extent::default() });
    };
    let mut reading = Reading::default();
    let mut time = |line: &[u8]| decided.format.parse_in(&mut reading, line).and_then(|entry| entry.time);
    let first = first.split(|&byte| byte == b'\n').find_map(&mut time);
    let mut last_of = |end: &[u8]| end.split(|&byte| byte == b'\n').filter_map(&mut time).last();
    let last = match input {
        Input::Stdin(kept) if !kept.end().is_empty() => last_of(kept.end()),
        _ if opened.file.is_packed() => opened.modified.and_then(|at| Timestamp::try_from(at).ok()),
        _ => last_of(&file::read_before(&opened.file, opened.size, ENDS)?),
    };
    Ok(Extent { bytes, first, last })
}

/// Reads all jobs in order and waits until what they made is settled.
///
/// # Errors
/// [`BackfillError`]; what was sent until then is remembered.
pub fn run(
    jobs: Vec<Job>,
    outlet: &Outlet,
    mut repeats: Repeats,
    options: &Options,
    stop: &dyn Fn() -> bool,
) -> Result<(Summary, End), BackfillError> {
    let began = Instant::now();
    let collector = Collector {
        outlet,
        options,
        names: jobs.iter().flat_map(|job| &job.sites).map(|site| (site.id, site.name.clone())).collect(),
        recording: Cell::new(true),
        state: RefCell::new(State {
            limited: false,
            batcher: Batcher::new(options.max_events),
            lingering: HashMap::new(),
            clock: Timestamp::MIN,
            order: InOrder::default(),
            due: Vec::new(),
            turn: Vec::new(),
            line: Vec::new(),
            summary: Summary::default(),
            out: io::BufWriter::with_capacity(64 * 1024, io::stdout()),
            written: Ok(()),
        }),
    };
    let mut end = End::Done;
    if jobs.iter().flat_map(|job| &job.sites).any(|site| site.bots.as_ref().is_some_and(|bots| bots.asks_the_lists())) {
        bots::prepare();
    }
    let helps = matches!(outlet, Outlet::DryRun(_));
    let pool =
        Pool::new(options.jobs.max(1), helps).map_err(|error| BackfillError::Read(PathBuf::from("threads"), error))?;
    let known = match outlet {
        Outlet::Send { ledger, .. } => Known::of(ledger)?,
        Outlet::DryRun(_) => Known::default(),
    };
    let repeats = &mut repeats;
    let mut work = Work { collector: &collector, options, repeats, stop, ids: 0, known, seen: HashMap::new(), pool };
    for group in groups(jobs) {
        if stop() {
            end = End::Left(STOPPED.to_owned());
            break;
        }
        match work.group(group)? {
            End::Done => {}
            left => end = left,
        }
        if collector.state.borrow().limited {
            break;
        }
    }
    drop(work);
    collector.flush();
    if let Outlet::Send { delivery, rooms, ledger } = outlet {
        let sites: Vec<SiteId> = delivery.snapshot().iter().map(|site| site.id).collect();
        if let End::Left(why) = settle_all(delivery, rooms, &sites, stop) {
            end = End::Left(why);
        }
        ledger.sync()?;
    }
    let mut state = collector.state.into_inner();
    state.written.and_then(|()| state.out.flush()).map_err(BackfillError::Write)?;
    let mut summary = state.summary;
    summary.finish();
    summary.elapsed_seconds = began.elapsed().as_secs_f64();
    Ok((summary, end))
}

/// Waits until nothing waits any more, or nothing more can be hoped for.
fn settle_all<S: Settle>(delivery: &Delivery<S>, rooms: &Rooms, sites: &[SiteId], stop: &dyn Fn() -> bool) -> End {
    let mut patience = Patience::new(rooms, sites);
    loop {
        let open: Vec<SiteId> = sites.iter().copied().filter(|site| rooms.open(*site) > 0).collect();
        if open.is_empty() {
            return End::Done;
        }
        if stop() {
            return End::Left(STOPPED.to_owned());
        }
        if let Some(why) = patience.lost(delivery, rooms, &open) {
            return End::Left(why);
        }
        rooms.wait_for_an_end(&open, Duration::from_millis(200));
    }
}

/// When to stop hoping.
struct Patience {
    open: usize,
    since: Instant,
}

impl Patience {
    fn new(rooms: &Rooms, sites: &[SiteId]) -> Self {
        Self { open: sites.iter().map(|site| rooms.open(*site)).sum(), since: Instant::now() }
    }

    fn lost<S: Settle>(&mut self, delivery: &Delivery<S>, rooms: &Rooms, open: &[SiteId]) -> Option<String> {
        let left: usize = open.iter().map(|site| rooms.open(*site)).sum();
        if left != self.open {
            *self = Self { open: left, since: Instant::now() };
        }
        let snapshot = delivery.snapshot();
        let stuck = |id: &SiteId| snapshot.iter().any(|site| site.id == *id && site.is_set_up_wrongly());
        if open.iter().all(stuck) {
            let error = snapshot.iter().find(|site| stuck(&site.id)).and_then(|site| site.last_error.clone());
            return Some(format!(
                "the endpoint refuses this site's property ({}); mend property_key or url, then run the same command again",
                error.unwrap_or_default()
            ));
        }
        (self.since.elapsed() >= PATIENCE)
            .then(|| "nothing could be delivered for 10 minutes; run the same command again later to go on".to_owned())
    }
}

/// Jobs that share sites, in the order of their first lines: what is read of them comes together by time. Groups share
/// nothing, so they follow each other.
fn groups(jobs: Vec<Job>) -> Vec<Vec<Job>> {
    let mut groups: Vec<(BTreeSet<SiteId>, Vec<Job>)> = Vec::new();
    for job in jobs {
        let mut sites: BTreeSet<SiteId> = job.sites.iter().map(|site| site.id).collect();
        let mut together = Vec::new();
        groups.retain_mut(|(others, jobs)| {
            let shares = others.iter().any(|site| sites.contains(site));
            if shares {
                sites.append(others);
                together.append(jobs);
            }
            !shares
        });
        together.push(job);
        groups.push((sites, together));
    }
    groups.into_iter().map(|(_, jobs)| jobs).collect()
}

struct Work<'a> {
    collector: &'a Collector<'a>,
    options: &'a Options,
    repeats: &'a mut Repeats,
    stop: &'a dyn Fn() -> bool,
    /// Numbers for logs of a dry run, which has no ledger.
    ids: i64,
    /// The logs that are known, to the ledger when it was last asked or to a dry run. Asked for each log, that would be all
    /// the time that ten thousand small ones take.
    known: Known,
    /// Up to where this run has read logs, for each site and for the log's own count. The ledger may not have that yet, for
    /// what was found there is on its way; and a dry run has none.
    seen: HashMap<(Option<SiteId>, LogId), u64>,
    pool: Pool,
}

/// Logs that are open at a time. Those whose time has come all the same wait until one is read to its end.
const OPEN_MAX: usize = 32;

/// Readers that begin at the same place, and where they end.
type Ranges = BTreeMap<(u64, u64), Vec<(Option<usize>, BTreeSet<u64>)>>;

/// What became of an input that was to be opened.
enum Opening {
    Stream(Box<Stream>),
    /// It has no line yet.
    Empty,
    /// A log that is being read begins alike. Whether it is the same is known once that has been read.
    Later,
}

impl Work<'_> {
    /// Reads logs side by side: always the one whose next event is the oldest. A log is opened when its time has come.
    fn group(&mut self, jobs: Vec<Job>) -> Result<End, BackfillError> {
        let mut end = End::Done;
        let first = |job: &Job| job.first.unwrap_or(Timestamp::MIN);
        let firsts: Vec<Timestamp> = jobs.iter().map(first).collect();
        let mut next: BinaryHeap<Reverse<(Timestamp, usize)>> =
            firsts.iter().enumerate().map(|(index, first)| Reverse((*first, index))).collect();
        let mut waiting: Vec<Option<Job>> = jobs.into_iter().map(Some).collect();
        let mut open: BTreeMap<usize, Box<Stream>> = BTreeMap::new();
        // Those whose time has come while there was no room for them, and those that may be what is being read already.
        let mut no_room = BinaryHeap::new();
        let mut held_up = Vec::new();
        loop {
            if open.len() < OPEN_MAX {
                next.extend(no_room.pop());
            }
            let Some(Reverse((time, index))) = next.pop() else { return Ok(end) };
            let until = next.peek().map(|Reverse((time, _))| *time);
            let of_file = |path: &Path, trouble| match trouble {
                Trouble::Io(error) => BackfillError::Read(path.to_path_buf(), error),
                Trouble::Ledger(error) => BackfillError::Ledger(error),
            };
            let mut stream = match open.remove(&index) {
                Some(stream) => stream,
                None if open.len() >= OPEN_MAX => {
                    no_room.push(Reverse((time, index)));
                    continue;
                }
                None => {
                    let Some(job) = waiting[index].take() else { continue };
                    let opening = self.open(&job, open.values().map(|stream| &**stream));
                    if let Err(Trouble::Io(error)) = &opening
                        && error.kind() == io::ErrorKind::NotFound
                    {
                        // What lay there has another name now: it is read under that, or the next time.
                        end = End::Left(format!(
                            "`{}` is gone, rotated perhaps; run the same command again",
                            job.input.path().display()
                        ));
                        continue;
                    }
                    match opening.map_err(|trouble| of_file(job.input.path(), trouble))? {
                        Opening::Stream(stream) => stream,
                        Opening::Later => {
                            waiting[index] = Some(job);
                            held_up.push(Reverse((time, index)));
                            continue;
                        }
                        Opening::Empty => {
                            self.finished(job.input.path());
                            continue;
                        }
                    }
                }
            };
            let path = stream.path.clone();
            let reached = stream
                .advance(until, &mut self.pool, self.collector, self.repeats, self.stop)
                .map_err(|trouble| of_file(&path, trouble))?;
            match reached {
                Reached::Later(time) => {
                    open.insert(index, stream);
                    next.push(Reverse((time, index)));
                }
                Reached::Enough => {
                    open.values_mut().for_each(|stream| stream.settle_for_now(self.collector));
                    return Ok(end);
                }
                Reached::End(ended) => {
                    let sites = stream.pipeline.sites.iter().map(|site| site.id);
                    let read = sites.filter(|site| !stream.waiting.contains(site)).map(Some);
                    for site in std::iter::once(None).chain(read) {
                        let seen = self.seen.entry((site, stream.row.id)).or_default();
                        *seen = stream.read_to.max(*seen);
                    }
                    self.known.put(stream.row);
                    match ended {
                        End::Done => self.finished(&path),
                        left => end = left,
                    }
                    next.extend(held_up.drain(..));
                    if (self.stop)() && !(next.is_empty() && no_room.is_empty()) {
                        open.values_mut().for_each(|stream| stream.settle_for_now(self.collector));
                        return Ok(End::Left(STOPPED.to_owned()));
                    }
                }
            }
        }
    }

    fn finished(&self, path: &Path) {
        self.collector.state.borrow_mut().summary.files += 1;
        self.options.progress.files.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut finished) = self.options.progress.finished.lock() {
            finished.push(path.to_path_buf());
        }
    }

    fn ledger(&self) -> Option<&Ledger> {
        match self.collector.outlet {
            Outlet::Send { ledger, .. } => Some(ledger),
            Outlet::DryRun(_) => None,
        }
    }

    /// Up to where this run has read a log for a site.
    fn seen_to(&self, site: Option<SiteId>, log: LogId) -> u64 {
        self.seen.get(&(site, log)).copied().unwrap_or(0)
    }

    /// Which of the known logs an input is.
    fn known(&mut self, job: &Job, opened: &Opened) -> Result<Option<Arc<LogRow>>, Trouble> {
        let known = self.identified(job.input.path(), opened)?;
        match known {
            Some(row) if self.is_another_sites(job, opened, &row)? => Ok(None),
            known => Ok(known),
        }
    }

    /// Whether a site's own log only has the same lines as another site's: one client may have asked both for the same. The
    /// daemon follows them as two, too.
    fn is_another_sites(&self, job: &Job, opened: &Opened, row: &LogRow) -> Result<bool, Trouble> {
        let inode = (row.dev, row.ino);
        if !job.input.is_live()
            || inode == (opened.dev, opened.ino)
            || !file::inode(&row.path).is_ok_and(|at| at == inode)
        {
            return Ok(false);
        }
        for site in job.wanted().map(|site| site.id) {
            let is_known = match self.ledger() {
                Some(ledger) => ledger.has_read(site, row.id)?,
                None => self.seen.contains_key(&(Some(site), row.id)),
            };
            if is_known {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Which of the known logs a file is, by its content.
    fn identified(&mut self, path: &Path, opened: &Opened) -> Result<Option<Arc<LogRow>>, Trouble> {
        for asked in [false, true] {
            let rows = self.known.rows();
            match identity::identify(path, opened, rows, |_| true, &HashMap::new())? {
                Who::New | Who::Copy => return Ok(None),
                // Its content says so, and what more a daemon may know of it by now can't contradict that.
                Who::Known(index) if asked || rows[index].fingerprint.head_len > 0 || opened.size == 0 => {
                    return Ok(Some(Arc::clone(&rows[index])));
                }
                Who::CutBack(index, _) if asked => return Ok(Some(Arc::clone(&rows[index]))),
                Who::Known(_) | Who::CutBack(..) => self.ask_again()?,
            }
        }
        Ok(None)
    }

    /// Takes over what a daemon has learnt of logs meanwhile.
    fn ask_again(&mut self) -> Result<(), LedgerError> {
        if let Outlet::Send { ledger, .. } = self.collector.outlet {
            self.known = Known::of(ledger)?;
        }
        Ok(())
    }

    /// Opens an input, and claims what is left to read of it.
    fn open<'s>(&mut self, job: &Job, mut others: impl Iterator<Item = &'s Stream>) -> Result<Opening, Trouble> {
        let live = job.input.is_live();
        let path = job.input.path().to_path_buf();
        let opened = job.input.open()?;
        let head = identity::head(&opened)?;
        if others.any(|other| other.row.fingerprint.head_len > 0 && other.row.fingerprint.agrees_head(&head)) {
            return Ok(Opening::Later);
        }
        let mut first_lines = follow::first_bytes(&opened.file)?;
        if !live && !first_lines.contains(&b'\n') {
            first_lines.push(b'\n');
        }
        let (mut row, decided) = loop {
            let known = self.known(job, &opened)?;
            let stored = known.as_ref().and_then(|row| row.format.as_deref());
            let Some(decided) = follow::decide_format(&job.format, stored, &first_lines) else {
                return Ok(Opening::Empty);
            };
            if let Some(known) = known {
                // With what a daemon has learnt of it since: all of it is stored again.
                let newer = match self.ledger() {
                    Some(ledger) if !self.seen.contains_key(&(None, known.id)) => ledger.log(known.id)?,
                    _ => None,
                };
                break (newer.unwrap_or_else(|| LogRow::clone(&known)), decided);
            }
            if self.was_changed(job, &path, &opened, (&decided.format, &first_lines))? {
                return Ok(Opening::Empty);
            }
            if let Some(row) = self.add(&path, &opened, decided.format.name())? {
                if let Some(ledger) = self.ledger() {
                    let first = rewritten::first_requests(&decided.format, &first_lines, ledger.secret());
                    ledger.keep_first(row.id, &first)?;
                }
                self.known.put(row.clone());
                break (row, decided);
            }
            // A daemon has taken a log in meanwhile, and it may be this one.
            self.ask_again()?;
        };
        stream::complete_head(&mut row, &opened.file)?;
        let live = live && !opened.file.is_packed();
        let size = if live { file::after_last_newline(&opened.file, opened.size)? } else { opened.size };
        let meant = self.meant(&opened, &decided.format, size)?;
        let ranges = self.ranges(&row, job, size, &meant, &decided.format)?;
        let repeated = if self.options.again { self.covered(&row, job, size, &meant)? } else { Ranges::new() };
        let passed = ranges.keys().chain(repeated.keys()).copied().collect();
        self.count_passed_over(&opened, passed, &meant, (&row, job))?;
        let new = ranges.into_iter().map(|range| (true, range));
        let again = repeated.into_iter().map(|range| (false, range));
        let max_line = self.options.max_line;
        let parts = new.chain(again).map(|(recording, (bounds, readers))| {
            let reader = |(site, settled)| Reader::new(site, Cutter::new(bounds.0, max_line), settled);
            Part { recording, bounds, readers: readers.into_iter().map(reader).collect() }
        });
        Ok(Opening::Stream(Box::new(Stream {
            parts: parts.collect(),
            file: stream::witness(&opened.file)?,
            on_disk: stream::on_disk(&opened.file),
            bytes: Some(Bytes::of(opened.file)),
            read_to: 0,
            size,
            row,
            path,
            pipeline: Arc::new(Pipeline::new(decided.format, job.sites.clone())),
            max_line,
            shown: 0,
            current: None,
            waiting: Vec::new(),
            left: None,
        })))
    }

    /// Whether a file that nobody knows is a log that these sites' readers have read, and whose bytes were changed since.
    fn was_changed(
        &mut self,
        job: &Job,
        path: &Path,
        opened: &Opened,
        lines: (&Format, &[u8]),
    ) -> Result<bool, Trouble> {
        let Outlet::Send { ledger, .. } = self.collector.outlet else { return Ok(false) };
        if self.options.again || path == Path::new("-") {
            return Ok(false);
        }
        let related = self.known.related(path);
        let Some((_, row)) = rewritten::which(path, opened, lines, ledger, related)? else {
            return Ok(false);
        };
        for site in job.wanted() {
            if !ledger.has_read(site.id, row.id)? {
                return Ok(false);
            }
        }
        tracing::warn!(
            path = %path.display(), log = %row.path.display(),
            hint = "`--again` sends it all; with `--until`, what is older than what was read",
            "a log was changed after it was read, passing it over"
        );
        Ok(true)
    }

    /// Takes a new log in; `None`: there is a newer one than the newest that was known.
    fn add(&mut self, path: &Path, opened: &Opened, format: &str) -> Result<Option<LogRow>, Trouble> {
        let mut row = LogRow {
            id: LogId(0),
            path: path.into(),
            dev: opened.dev,
            ino: opened.ino,
            fingerprint: Fingerprint::of_head(&identity::head(opened)?),
            format: Some(format.into()),
            last_read: None,
            // Nobody writes to standard input's any more, and nobody will find it.
            ended: path == Path::new("-"),
        };
        row.id = match self.ledger() {
            Some(ledger) => match ledger.add_log(&row, self.known.newest(), None)? {
                Some(id) => id,
                None => return Ok(None),
            },
            None => {
                self.ids += 1;
                LogId(self.ids)
            }
        };
        Ok(Some(row))
    }

    /// The stretches of whole lines that the period holds. A line without a time belongs to the one before it.
    fn meant(&self, opened: &Opened, format: &Format, size: u64) -> Result<Vec<(u64, u64)>, Trouble> {
        let period = &self.options.period;
        if period.is_all() {
            return Ok(vec![(0, size)]);
        }
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut cutter = Cutter::new(0, self.options.max_line);
        let mut buffer = vec![0; source::BLOCK.max(self.options.max_line.saturating_add(2))];
        let mut inside = None;
        let mut leading = 0;
        let mut reading = Reading::default();
        let mut take = |cut: Cut<'_>| {
            let entry = match cut {
                Cut::Line(line) => format.parse_in(&mut reading, line.bytes),
                Cut::TooLong(_) => None,
            };
            let holds = entry.and_then(|entry| {
                let offset = entry.offset.and_then(|seconds| jiff::tz::Offset::from_seconds(seconds).ok());
                let zone = offset.map(TimeZone::fixed);
                Some(period.holds(entry.time?, zone.as_ref().unwrap_or(format.zone())))
            });
            let Some(holds) = holds.or(inside) else { return };
            let span = cut.span();
            let first = inside.is_none();
            inside = Some(holds);
            if holds {
                // What stands before the first time (a header) goes with it.
                let start = if first { leading } else { span.start };
                match runs.last_mut() {
                    Some(last) if last.1 == start => last.1 = span.end,
                    _ => runs.push((start, span.end)),
                }
            } else {
                leading = span.end;
            }
        };
        loop {
            let at = cutter.wants();
            let want = usize::try_from(size.saturating_sub(at)).unwrap_or(buffer.len()).min(buffer.len());
            let filled = file::read_at(&opened.file, &mut buffer[..want], at)?;
            let mut bytes = &buffer[..filled];
            while let Some(cut) = cutter.next_line(&mut bytes) {
                take(cut);
            }
            if filled == 0 || cutter.wants() == at {
                if let Some(cut) = cutter.last_line(bytes) {
                    take(cut);
                }
                return Ok(runs);
            }
        }
    }

    /// What is left to read, and for whom; the claims on it are in the ledger when this returns.
    fn ranges(
        &self,
        row: &LogRow,
        job: &Job,
        size: u64,
        meant: &[(u64, u64)],
        format: &Format,
    ) -> Result<Ranges, Trouble> {
        let mut ranges = Ranges::new();
        let sites = &job.sites;
        for index in job.readers() {
            let seen_to = self.seen_to(index.map(|index| sites[index].id), row.id);
            let Some(ledger) = self.ledger() else {
                for stretch in overlaps(meant, seen_to, u64::MAX) {
                    ranges.entry(stretch).or_default().push((index, BTreeSet::new()));
                }
                continue;
            };
            let site = index.map(|index| sites[index].id);
            let digest = index.map(|index| digest(format, &sites[index]));
            if let (Some(site), Some(digest)) = (site, digest) {
                let reopened = ledger.reopen(site, row.id, digest)?;
                self.collector.state.borrow_mut().summary.read_again += reopened as u64;
            }
            for range in ledger.claim(site, row.id, size, meant, digest)? {
                let start = range.from.max(seen_to);
                for (from, until) in overlaps(meant, start, range.until) {
                    if range.resumed && from != start {
                        // Its lines are settled in their order; what lies before these must come first.
                        tracing::warn!(
                            path = %row.path.display(), offset = range.from,
                            hint = "run the earlier command again, then this one",
                            "an earlier backfill of this log isn't finished, and what it has left is not in this period"
                        );
                        continue;
                    }
                    let settled = range.settled.iter().copied().collect();
                    ranges.entry((from, until)).or_default().push((index, settled));
                }
            }
        }
        Ok(ranges)
    }

    /// What earlier runs have settled, to be sent again.
    fn covered(&self, row: &LogRow, job: &Job, size: u64, meant: &[(u64, u64)]) -> Result<Ranges, Trouble> {
        let mut ranges = Ranges::new();
        let Some(ledger) = self.ledger() else { return Ok(ranges) };
        for index in job.readers() {
            let site = index.map(|index| job.sites[index].id);
            for (from, until) in ledger.covered(site, row.id)? {
                for stretch in overlaps(meant, from.max(self.seen_to(site, row.id)), until.min(size)) {
                    ranges.entry(stretch).or_default().push((index, BTreeSet::new()));
                }
            }
        }
        Ok(ranges)
    }

    /// Counts the lines that are meant and that no site reads again: an earlier run has settled them, or they are a
    /// daemon's, which hasn't yet.
    fn count_passed_over(
        &self,
        opened: &Opened,
        mut read: Vec<(u64, u64)>,
        meant: &[(u64, u64)],
        (row, job): (&LogRow, &Job),
    ) -> Result<(), Trouble> {
        read.sort_unstable();
        let mut settled_to = u64::MAX;
        if let Some(ledger) = self.ledger() {
            for site in job.wanted() {
                let position = ledger.position(Some(site.id), row.id)?;
                settled_to = position.map_or(settled_to, |position| settled_to.min(position.watermark));
            }
        }
        let (mut passed, mut left) = (0, 0);
        for (start, end) in meant {
            let mut at = *start;
            for (from, until) in read.iter().copied().chain([(*end, *end)]) {
                let from = from.min(*end);
                passed += lines_in(opened, at, from.min(settled_to))?;
                left += lines_in(opened, at.max(settled_to), from)?;
                at = at.max(until.min(*end));
            }
        }
        let summary = &mut self.collector.state.borrow_mut().summary;
        summary.already_sent += passed;
        summary.left_to_run += left;
        Ok(())
    }
}

/// How many lines a stretch has; the last of a log that nobody writes any more may lack its newline.
fn lines_in(opened: &Opened, from: u64, until: u64) -> io::Result<u64> {
    let (mut at, mut lines, mut last) = (from, 0, b'\n');
    let mut block = Vec::new();
    while at < until {
        let want = usize::try_from(until - at).unwrap_or(source::BLOCK).min(source::BLOCK);
        block.resize(want, 0);
        let filled = file::read_at(&opened.file, &mut block, at)?;
        if filled == 0 {
            break;
        }
        lines += memchr::memchr_iter(b'\n', &block[..filled]).count() as u64;
        at += filled as u64;
        last = block[filled - 1];
    }
    Ok(lines + u64::from(last != b'\n'))
}

/// What decides which lines become events, as a number: the format, and all of a site but where its events go.
fn digest(format: &Format, site: &Site) -> u64 {
    let Site { context, hosts, rules, bots, exclude_ips, trusted_proxies, respect_dnt, repeat_window, .. } = site;
    let text = format!(
        "{} {} {context:?} {hosts:?} {rules:?} {bots:?} {exclude_ips:?} {trusted_proxies:?} {respect_dnt} {repeat_window:?}",
        format.name(),
        format.text(),
    );
    let mut hasher = siphasher::sip::SipHasher13::new();
    std::hash::Hasher::write(&mut hasher, text.as_bytes());
    std::hash::Hasher::finish(&hasher)
}

enum Trouble {
    Io(io::Error),
    Ledger(LedgerError),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Io(error)
    }
}

impl From<LedgerError> for Trouble {
    fn from(error: LedgerError) -> Self {
        Trouble::Ledger(error)
    }
}
