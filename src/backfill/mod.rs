//! `silktail backfill`: reads logs once, to their end, through the same stages as the daemon.
//!
//! What an earlier run has settled is passed over: each (site, log) has ranges in the ledger, and only what no range
//! covers is read. `linger` is measured by the log's time, so that the same log gives the same POSTs every time.

mod ahead;
mod claim;
mod collect;
mod kept;
mod patience;
mod period;
mod stream;

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::batch::Batcher;
use crate::follow::FormatChoice;
use crate::follow::file::{self, Opened};
use crate::follow::known::Known;
use crate::ledger::{Ledger, LedgerError};
use crate::offsets::{LogId, SiteId};
use crate::pipeline::Site;
use crate::summary::Summary;
use crate::visitor::bots;
use crate::visitor::repeats::Repeats;
use ahead::Pool;
use claim::Opening;
use collect::{Collector, InOrder, State};
pub use collect::{Counted, Outlet};
pub use kept::Kept;
use patience::settle_all;
use period::ENDS;
pub use period::{Extent, Moment, Period, extent};
use stream::{Reached, Stream};

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
    /// The patterns of the logs that `run` follows, all sites' together.
    pub followed: Vec<String>,
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
            patience: None,
            latest: Timestamp::now().saturating_add(SignedDuration::from_hours(1)).unwrap_or(Timestamp::MAX),
            order: InOrder::default(),
            due: Vec::new(),
            summary: Summary::default(),
            unshown: 0,
            bodies: Vec::new(),
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
        match work.group(group) {
            Ok(End::Done) => {}
            Ok(left) => end = left,
            Err(error) => {
                // What was made until then is true all the same.
                collector.state.borrow_mut().write();
                return Err(error);
            }
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
    state.write();
    state.written.map_err(BackfillError::Write)?;
    let mut summary = state.summary;
    summary.finish();
    summary.elapsed_seconds = began.elapsed().as_secs_f64();
    Ok((summary, end))
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
                    if stream.is_damaged {
                        let summary = &mut self.collector.state.borrow_mut().summary;
                        summary.files += 1;
                        summary.bytes += stream.read_to;
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
