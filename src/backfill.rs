//! `silktail backfill`: reads logs once, to their end, through the same stages as the daemon.
//!
//! What an earlier run has settled is passed over: each (site, log) has ranges in the ledger, and only what no range
//! covers is read. `linger` is measured by the log's time, so that the same log gives the same POSTs every time.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use crate::batch::{Batch, Batcher};
use crate::deliver::payload::{self, PropertyKey};
use crate::deliver::{Delivery, Settle, Settlement};
use crate::event::Event;
use crate::follow::file::{self, Opened};
use crate::follow::identity::{self, Who};
use crate::follow::source::{self, Reader, Recall, Sink, Source, Turn};
use crate::follow::{self, FormatChoice};
use crate::ledger::{Advance, Counts, Fingerprint, Ledger, LedgerError, LogRow};
use crate::lines::Cutter;
use crate::offsets::{LogId, Origin, SiteId};
use crate::outbox::{Rooms, Settler};
use crate::pipeline::{Pipeline, Site};
use crate::visitor::repeats::Repeats;

/// After this long without any delivery a backfill gives up; run again, it goes on.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Where lines come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A file; `live` where the server still writes it: its unfinished last line is left.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether it is a site's log itself, not a rotated sibling.
        live: bool,
    },
    /// Standard input.
    Stdin,
}

/// One input with the sites that read it.
#[derive(Debug, Clone)]
pub struct Job {
    /// What to read.
    pub input: Input,
    /// In file order.
    pub sites: Vec<Arc<Site>>,
    /// How.
    pub format: FormatChoice,
}

/// What a backfill did, as `--json` shows it. `delivered` and `rejected` count events.
#[derive(Debug, Default, Clone, Copy, Serialize)]
#[expect(missing_docs, reason = "the names are the documentation: they are those of the contract's JSON")]
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
    pub requests: u64,
    pub delivered: u64,
    pub rejected: u64,
    pub elapsed_seconds: f64,
}

impl Summary {
    fn add(&mut self, counts: Counts) {
        self.lines += counts.lines;
        self.too_long += counts.too_long;
        self.unparsed += counts.unparsed;
        self.unmatched += counts.unmatched;
        self.excluded += counts.excluded;
        self.bot += counts.bot;
        self.repeat += counts.repeat;
        self.event += counts.event;
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

/// Gives a batch out once no earlier line's batch is still open: the order of their first lines.
#[derive(Debug, Default)]
struct InOrder {
    next: u64,
    numbers: HashMap<Origin, u64>,
    unfinished: BTreeSet<u64>,
    ready: BTreeMap<u64, Batch>,
}

impl InOrder {
    fn enter(&mut self, origin: Origin) {
        self.numbers.insert(origin, self.next);
        self.unfinished.insert(self.next);
        self.next += 1;
    }

    fn finish(&mut self, batch: Batch) -> Vec<Batch> {
        let mut first = None;
        for event in &batch.events {
            if let Some(number) = self.numbers.remove(&event.origin) {
                self.unfinished.remove(&number);
                first.get_or_insert(number);
            }
        }
        self.ready.insert(first.unwrap_or(self.next), batch);
        let open = self.unfinished.first().copied().unwrap_or(u64::MAX);
        let later = self.ready.split_off(&open);
        std::mem::replace(&mut self.ready, later).into_values().collect()
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
    DryRun(HashMap<SiteId, PropertyKey>),
}

/// A settler that counts, too.
pub struct Counted {
    /// Brings outcomes to the ledger.
    pub settler: Settler,
    /// (delivered, rejected) events so far.
    pub counts: Arc<std::sync::Mutex<(u64, u64)>>,
}

impl Settle for Counted {
    async fn settle(&self, settlement: Settlement) {
        let events = settlement.batch.events.len() as u64;
        let delivered = matches!(settlement.outcome, crate::deliver::Outcome::Delivered);
        self.settler.settle(settlement).await;
        let mut counts = self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if delivered { counts.0 += events } else { counts.1 += events }
    }
}

/// Batches by the log's time and counts what was read.
struct Collector<'a> {
    outlet: &'a Outlet,
    linger: HashMap<SiteId, Duration>,
    state: RefCell<State>,
}

struct State {
    batcher: Batcher<Timestamp>,
    clock: Timestamp,
    order: InOrder,
    summary: Summary,
    written: Result<(), io::Error>,
}

impl Collector<'_> {
    fn give(&self, state: &mut State, batches: Vec<Batch>) {
        for batch in batches {
            match self.outlet {
                Outlet::Send { delivery, .. } => delivery.submit_batch(batch),
                Outlet::DryRun(keys) => {
                    for batch in state.order.finish(batch) {
                        let Some(key) = keys.get(&batch.site) else { continue };
                        let mut line = Vec::new();
                        payload::body(key, &batch, false, &mut line);
                        line.push(b'\n');
                        state.summary.requests += 1;
                        if state.written.is_ok() {
                            state.written = io::stdout().lock().write_all(&line);
                        }
                    }
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
    fn submit(&self, event: Event) {
        let state = &mut *self.state.borrow_mut();
        // Logs are a little out of order; the latest time seen is the log's clock.
        state.clock = state.clock.max(event.time.unwrap_or(state.clock));
        let due = state.batcher.due(state.clock);
        self.give(state, due);
        let linger = self.linger.get(&event.origin.site).copied().unwrap_or_default();
        let linger = jiff::SignedDuration::try_from(linger).unwrap_or_default();
        let due = state.clock.checked_add(linger).unwrap_or(Timestamp::MAX);
        match self.outlet {
            Outlet::Send { rooms, .. } => rooms.enter(event.origin.site),
            Outlet::DryRun(_) => state.order.enter(event.origin),
        }
        let full = state.batcher.add(event, due);
        self.give(state, full.into_iter().collect());
    }

    fn has_room(&self, site: SiteId) -> bool {
        let Outlet::Send { rooms, .. } = self.outlet else { return true };
        if rooms.has_room(site) {
            return true;
        }
        // What lingers by the log's time would never be sent while nothing is read.
        self.flush();
        rooms.has_room(site)
    }

    fn advance(&self, advance: Advance) {
        self.state.borrow_mut().summary.add(source::counts_of(&advance));
        if let Outlet::Send { ledger, .. } = self.outlet {
            ledger.advance(advance);
        }
    }

    fn already_sent(&self, _site: SiteId) {
        let summary = &mut self.state.borrow_mut().summary;
        summary.already_sent += 1;
        summary.lines = summary.lines.wrapping_sub(1);
        summary.event = summary.event.wrapping_sub(1);
    }

    fn update(&self, row: LogRow) {
        if let Outlet::Send { ledger, .. } = self.outlet {
            ledger.update_log(row);
        }
    }
}

/// Reads all jobs in order and waits until what they made is settled.
///
/// # Errors
/// [`BackfillError`]; what was sent until then is remembered.
pub fn run(
    jobs: Vec<Job>,
    outlet: &Outlet,
    mut repeats: Repeats,
    linger: HashMap<SiteId, Duration>,
    max_events: usize,
    max_line: usize,
    stop: &dyn Fn() -> bool,
) -> Result<(Summary, End), BackfillError> {
    let began = Instant::now();
    let collector = Collector {
        outlet,
        linger,
        state: RefCell::new(State {
            batcher: Batcher::new(max_events),
            clock: Timestamp::MIN,
            order: InOrder::default(),
            summary: Summary::default(),
            written: Ok(()),
        }),
    };
    let mut end = End::Done;
    let mut reading = Reading { collector: &collector, repeats: &mut repeats, max_line, stop, ids: 0 };
    for job in jobs {
        match reading.job(job)? {
            End::Done => {}
            left => {
                end = left;
                if stop() {
                    break;
                }
            }
        }
        collector.state.borrow_mut().summary.files += 1;
    }
    collector.flush();
    if let Outlet::Send { delivery, rooms, ledger } = outlet {
        let sites: Vec<SiteId> = delivery.snapshot().iter().map(|site| site.id).collect();
        if let End::Left(why) = settle_all(delivery, rooms, &sites, stop) {
            end = End::Left(why);
        }
        ledger.sync()?;
        collector.state.borrow_mut().summary.requests = delivery.requests();
    }
    let state = collector.state.into_inner();
    state.written.map_err(BackfillError::Write)?;
    let mut summary = state.summary;
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
            return End::Left("stopped; run the same command again to go on".to_owned());
        }
        if let Some(why) = patience.lost(delivery, rooms, &open) {
            return End::Left(why);
        }
        rooms.wait(Duration::from_millis(200));
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
        let stuck = |id: &SiteId| snapshot.iter().any(|site| site.id == *id && site.state == "misconfigured");
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

struct Reading<'a> {
    collector: &'a Collector<'a>,
    repeats: &'a mut Repeats,
    max_line: usize,
    stop: &'a dyn Fn() -> bool,
    /// Numbers for logs of a dry run, which has no ledger.
    ids: i64,
}

/// Readers that begin at the same place, and where they end.
type Ranges = BTreeMap<(u64, u64), Vec<(Option<usize>, HashSet<u64>)>>;

impl Reading<'_> {
    fn job(&mut self, job: Job) -> Result<End, BackfillError> {
        match &job.input {
            Input::File { path, live } => {
                let path = path.clone();
                self.file(&path, *live, job).map_err(|error| match error {
                    Trouble::Io(error) => BackfillError::Read(path, error),
                    Trouble::Ledger(error) => BackfillError::Ledger(error),
                })
            }
            Input::Stdin => self.stdin(job).map_err(|error| match error {
                Trouble::Io(error) => BackfillError::Read(PathBuf::from("-"), error),
                Trouble::Ledger(error) => BackfillError::Ledger(error),
            }),
        }
    }

    fn ledger(&self) -> Option<&Ledger> {
        match self.collector.outlet {
            Outlet::Send { ledger, .. } => Some(ledger),
            Outlet::DryRun(_) => None,
        }
    }

    fn file(&mut self, path: &Path, live: bool, job: Job) -> Result<End, Trouble> {
        let opened = file::open(path)?;
        let first = follow::first_bytes(&opened)?;
        let rows = match self.ledger() {
            Some(ledger) => ledger.logs()?,
            None => Vec::new(),
        };
        let known = match identity::identify(path, &opened, &rows, &HashSet::new())? {
            Who::Known(index) | Who::CutBack(index, _) => rows.get(index),
            Who::New => None,
        };
        let mut first_lines = first;
        if !live && !first_lines.contains(&b'\n') {
            first_lines.push(b'\n');
        }
        let stored = known.and_then(|row| row.format.as_deref());
        let Some(decided) = follow::decide_format(&job.format, stored, &first_lines) else { return Ok(End::Done) };
        let row = self.row(path, &opened, known, decided.format.name())?;
        let size = if live { file::after_last_newline(&opened.file, opened.size)? } else { opened.size };
        self.collector.state.borrow_mut().summary.bytes += opened.size;
        let ranges = self.ranges(&row, &job.sites, size)?;
        self.count_passed_over(&opened, &ranges, size)?;
        let mut source = Source {
            row,
            file: opened.file,
            pipeline: Arc::new(Pipeline { format: decided.format, sites: job.sites }),
            readers: Vec::new(),
            leaving: None,
            path: path.to_path_buf(),
            due: true,
            recall: Recall::default(),
        };
        let mut buffer = Vec::new();
        for ((from, until), readers) in ranges {
            source.readers = readers
                .into_iter()
                .map(|(site, settled)| Reader { site, cutter: Cutter::new(from, self.max_line), settled })
                .collect();
            if let left @ End::Left(_) = self.range(&mut source, until, &mut buffer)? {
                return Ok(left);
            }
        }
        Ok(End::Done)
    }

    /// Reads one range to its end, as fast as its sites' events leave.
    fn range(&mut self, source: &mut Source, until: u64, buffer: &mut Vec<u8>) -> Result<End, Trouble> {
        let mut patience: Option<Patience> = None;
        loop {
            if (self.stop)() {
                return Ok(End::Left("stopped; run the same command again to go on".to_owned()));
            }
            match source.turn_until(until, buffer, self.repeats, self.collector)? {
                Turn::More => patience = None,
                Turn::End => {
                    source.finish_until(until, buffer, self.repeats, self.collector)?;
                    return Ok(End::Done);
                }
                Turn::Full => {
                    let Outlet::Send { delivery, rooms, .. } = self.collector.outlet else { continue };
                    let sites: Vec<SiteId> = source.pipeline.sites.iter().map(|site| site.id).collect();
                    let waiting: Vec<SiteId> = sites.iter().copied().filter(|site| !rooms.has_room(*site)).collect();
                    let patience = patience.get_or_insert_with(|| Patience::new(rooms, &sites));
                    if let Some(why) = patience.lost(delivery, rooms, &waiting).filter(|_| !waiting.is_empty()) {
                        return Ok(End::Left(why));
                    }
                    rooms.wait(Duration::from_millis(200));
                }
                Turn::Truncated => {
                    return Ok(End::Left(format!(
                        "`{}` was truncated while it was read; run the same command again",
                        source.path.display()
                    )));
                }
            }
        }
    }

    fn stdin(&mut self, job: Job) -> Result<End, Trouble> {
        let mut input = io::stdin().lock();
        let mut buffer = vec![0; source::BLOCK.max(self.max_line.saturating_add(2))];
        let mut filled = 0;
        let mut source: Option<Source> = None;
        loop {
            let more = match input.read(&mut buffer[filled..]) {
                Ok(more) => more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            filled += more;
            self.collector.state.borrow_mut().summary.bytes += more as u64;
            if (self.stop)() {
                return Ok(End::Left("stopped".to_owned()));
            }
            if more > 0 && filled < buffer.len() {
                continue;
            }
            if source.is_none() {
                source = self.stdin_source(&job, &buffer[..filled], more == 0)?;
            }
            let Some(source) = &mut source else { return Ok(End::Done) };
            let rest = source.feed(&buffer[..filled], more == 0, self.repeats, self.collector);
            buffer.copy_within(filled - rest..filled, 0);
            filled = rest;
            self.wait_for_room(source);
            if more == 0 {
                return Ok(End::Done);
            }
        }
    }

    /// Standard input can't be read again, so it waits for room rather than stop at a line.
    fn wait_for_room(&self, source: &Source) {
        let Outlet::Send { rooms, .. } = self.collector.outlet else { return };
        while source.pipeline.sites.iter().any(|site| !self.collector.has_room(site.id)) && !(self.stop)() {
            rooms.wait(Duration::from_millis(200));
        }
    }

    fn stdin_source(&mut self, job: &Job, first: &[u8], ended: bool) -> Result<Option<Source>, Trouble> {
        let mut lines = first.to_vec();
        if ended || !lines.contains(&b'\n') {
            lines.push(b'\n');
        }
        let Some(decided) = follow::decide_format(&job.format, None, &lines) else { return Ok(None) };
        let head = &first[..first.len().min(crate::ledger::HEAD_MAX)];
        let mut row = LogRow {
            id: LogId(0),
            path: PathBuf::from("-"),
            dev: 0,
            ino: 0,
            fingerprint: Fingerprint::of_head(head),
            format: Some(decided.format.name().to_owned()),
            last_read: None,
            ended: true,
        };
        self.ids += 1;
        row.id = match self.ledger() {
            Some(ledger) => ledger.add_log(&row)?,
            None => LogId(self.ids),
        };
        let mut readers = Vec::new();
        for index in std::iter::once(None).chain((0..job.sites.len()).map(Some)) {
            if let Some(ledger) = self.ledger() {
                ledger.begin(index.map(|index| job.sites[index].id), row.id, 0, Some(u64::MAX >> 1))?;
            }
            readers.push(Reader { site: index, cutter: Cutter::new(0, self.max_line), settled: HashSet::new() });
        }
        Ok(Some(Source {
            row,
            file: std::fs::File::open("/dev/null")?,
            pipeline: Arc::new(Pipeline { format: decided.format, sites: job.sites.clone() }),
            readers,
            leaving: None,
            path: PathBuf::from("-"),
            due: true,
            recall: Recall::default(),
        }))
    }

    fn row(&mut self, path: &Path, opened: &Opened, known: Option<&LogRow>, format: &str) -> Result<LogRow, Trouble> {
        if let Some(known) = known {
            return Ok(known.clone());
        }
        let mut row = LogRow {
            id: LogId(0),
            path: path.to_path_buf(),
            dev: opened.dev,
            ino: opened.ino,
            fingerprint: Fingerprint::of_head(&identity::head(opened)?),
            format: Some(format.to_owned()),
            last_read: None,
            ended: false,
        };
        self.ids += 1;
        row.id = match self.ledger() {
            Some(ledger) => ledger.add_log(&row)?,
            None => LogId(self.ids),
        };
        Ok(row)
    }

    /// What is left to read, and for whom; the claims on it are in the ledger when this returns.
    fn ranges(&self, row: &LogRow, sites: &[Arc<Site>], size: u64) -> Result<Ranges, Trouble> {
        let mut ranges = Ranges::new();
        for index in std::iter::once(None).chain((0..sites.len()).map(Some)) {
            let Some(ledger) = self.ledger() else {
                ranges.entry((0, size)).or_default().push((index, HashSet::new()));
                continue;
            };
            let site = index.map(|index| sites[index].id);
            for range in ledger.uncovered(site, row.id, size)? {
                if !range.resumed {
                    ledger.begin(site, row.id, range.from, Some(range.until))?;
                }
                let settled = range.settled.into_iter().collect();
                ranges.entry((range.from, range.until)).or_default().push((index, settled));
            }
        }
        Ok(ranges)
    }

    /// Counts the lines that no site reads again.
    fn count_passed_over(&self, opened: &Opened, ranges: &Ranges, size: u64) -> Result<(), Trouble> {
        let mut covered_to = 0;
        let mut passed = 0;
        let mut block = vec![0; source::BLOCK];
        let mut starts: Vec<(u64, u64)> = ranges.keys().copied().collect();
        starts.push((size, size));
        for (from, until) in starts {
            while covered_to < from {
                let want = usize::try_from(from - covered_to).unwrap_or(block.len()).min(block.len());
                let filled = file::read_at(&opened.file, &mut block[..want], covered_to)?;
                if filled == 0 {
                    break;
                }
                passed += memchr::memchr_iter(b'\n', &block[..filled]).count() as u64;
                covered_to += filled as u64;
            }
            covered_to = covered_to.max(until);
        }
        self.collector.state.borrow_mut().summary.already_sent += passed;
        Ok(())
    }
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
