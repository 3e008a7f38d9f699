//! Follows the logs: finds them, reads each on across its life, and sends every line through its pipeline.
//!
//! In: patterns, wakes, the ledger's positions. Out: events and advances, to a [`source::Sink`]. One plain thread takes
//! fair turns over the files with unread bytes; it blocks when there is nothing to do.

mod adopt;
pub mod archive;
pub mod decide;
pub mod discover;
pub mod file;
pub mod identity;
pub(crate) mod known;
mod look;
mod moment;
mod reload;
pub(crate) mod rewritten;
mod rotated;
pub mod scan;
pub mod source;
mod truncated;
mod turns;
mod unsent;
pub mod watch;
pub mod wishes;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use crate::ledger::{Ledger, LedgerError};
use crate::offsets::{LogId, SiteId};
use crate::visitor::repeats::Repeats;
pub use decide::{Decided, decide_format, deciding_bytes};
use known::Known;
use moment::Moment;
use reload::{Parked, Wanted, new_patterns};
use rotated::Since;
use source::{Buffers, Happened, Sink, Source};
use truncated::Truncated;
use unsent::AllUnsent;
use watch::{Wake, Watches};
pub use wishes::{FormatChoice, Start, Target, Wishes};

/// How long a renamed file must have been quiet before its handle is closed: the server writes on until it reopens.
const QUIET: Duration = Duration::from_secs(5);
/// An archive that ends in the middle is taken for finished when it hasn't been written to for this long.
const SETTLED: Duration = Duration::from_secs(60);
/// The clock that a file system stamps with is a tick or so behind.
const TICK: Duration = Duration::from_millis(20);

/// An archive that ended in the middle when it was read.
#[derive(Debug, Clone, Copy)]
struct Unfinished {
    /// When it had been written to.
    modified: Option<SystemTime>,
    /// When that was.
    read: Instant,
}

impl Unfinished {
    /// Whether there is nothing to be gained yet by reading it again: it is as it was and may go on, or it is written to just
    /// now.
    fn waits(self, modified: Option<SystemTime>) -> bool {
        let settled = modified.is_none_or(|at| at.elapsed().is_ok_and(|ago| ago > SETTLED));
        self.read.elapsed() < watch::FALLBACK_POLL || self.modified == modified && !settled
    }
}

/// The follower and all the logs it holds.
pub struct Follower<S> {
    targets: Vec<Target>,
    start: Start,
    max_line: usize,
    rest: Duration,
    /// When this run began.
    began: Timestamp,
    ledger: Ledger,
    repeats: Repeats,
    sink: S,
    watches: Watches,
    wakes: Receiver<Wake>,
    sources: Vec<Source>,
    /// Patterns that no earlier run had.
    new_patterns: BTreeSet<String>,
    /// When an earlier run has last known all that lay under a pattern.
    known_before: BTreeMap<String, Option<SystemTime>>,
    /// What was said of paths that can't be followed: once, until it changes.
    troubles: BTreeMap<PathBuf, String>,
    /// A hash of the names that were there at the last look.
    found: u64,
    /// Other names under which notifications may report a log.
    real_paths: BTreeMap<PathBuf, PathBuf>,
    /// Readers whose site or log isn't followed any more: their place is known better than the ledger knows it, for what
    /// they have read may still wait to be sent.
    parked: Parked,
    /// A configuration that couldn't be taken up yet.
    wanted: Option<Wanted>,
    /// Archives that were read to their end, and files that aren't to be read: nobody writes into them any more.
    finished: HashSet<Archive>,
    /// Archives that end in the middle and may be on their way still, by their inodes.
    unfinished: HashMap<(u64, u64), Unfinished>,
    /// When the names were last looked at, by the clock as it goes now.
    looked: Option<Moment>,
    /// By how much the clock was set back while nobody was there to see it: what the ledger knows of times is by the
    /// clock as it went before.
    set_back: Duration,
    /// When that was last stored.
    looking_stored: Option<Instant>,
    /// Whether something may have happened that nobody will tell.
    look_again: bool,
    /// When that was last done, how long it took, and whether a file that isn't open has been written to since.
    looked_at: Instant,
    look_took: Duration,
    wants_to_look: bool,
    /// Files that aren't logs; forgotten at each look.
    unconcerned: HashSet<PathBuf>,
    /// Files that lay under a followed name and couldn't be read, or had no complete line yet (and which log they are
    /// then), by device and inode.
    unopened: HashMap<(u64, u64), (PathBuf, Option<LogId>)>,
    /// Followed names some of whose rotated siblings couldn't be read: what was written since then is searched for.
    search: BTreeMap<PathBuf, Since>,
    /// Logs that were truncated, as far as it was noticed: what is under their name now is another. With the bytes of
    /// them that were known to be unread then.
    cut: BTreeMap<LogId, u64>,
    /// Logs of which nothing had been read at the last look: if one is truncated, only its copy can tell.
    unread: HashSet<LogId>,
    /// Files that were truncated in place: where one has no name any more, what was written to it since is nowhere else.
    truncated: Vec<Truncated>,
    /// How far logs that were let go have been read in this run: what isn't settled of that is on its way.
    read_to: HashMap<(Option<SiteId>, LogId), u64>,
    read_to_checked: usize,
    /// Logs that were followed, whose names no pattern fits any more, and that aren't there any more either: what has come under
    /// new patterns may be they.
    orphans: HashSet<LogId>,
    /// Whether they are searched for now.
    seeks_orphans: bool,
    /// Under which names logs were followed for sites, as far as it was asked since the last look.
    followed_names: HashMap<SiteId, HashSet<PathBuf>>,
    /// Logs of an earlier run that aren't done with, and not found yet.
    left_over: BTreeSet<LogId>,
    /// Whether it was said that the state can't be written.
    is_stuck: bool,
    /// Rotated logs that wait for their site: said once each.
    waiting: HashSet<LogId>,
    /// Rotated logs that were let go, as long as it isn't known that all of them is sent.
    unsent: AllUnsent,
    /// Logs that may be open at a time.
    open_max: usize,
    /// What the ledger knows, while one look comes right after the other.
    known: Option<Known>,
}

/// What became of an opened file.
enum Adopted {
    Source(Box<Source>),
    /// Its format can't be decided yet, or it can't be read.
    NotYet,
    /// It is a known log whose bytes were changed after all of it was read.
    ReadBefore,
    /// A backfill has taken a log in meanwhile, and it may be this one.
    Outrun,
}

/// Descriptors that are left for connections, the state and the system.
const DESCRIPTORS_SPARED: usize = 128;

/// An archive as it was when it was looked at: device, inode, last write.
type Archive = (u64, u64, Option<SystemTime>);

impl<S: Sink> Follower<S> {
    /// Builds a follower that has looked at nothing yet.
    ///
    /// # Errors
    /// Those of reading the ledger.
    pub fn new(
        wishes: Wishes,
        ledger: Ledger,
        repeats: Repeats,
        sink: S,
        watches: Watches,
        wakes: Receiver<Wake>,
    ) -> Result<Self, LedgerError> {
        let new_patterns = new_patterns(&wishes.targets, &ledger)?;
        let Wishes { targets, start, max_line, rest } = wishes;
        Ok(Self {
            targets,
            start,
            max_line,
            rest,
            began: Timestamp::now(),
            ledger,
            repeats,
            sink,
            watches,
            wakes,
            sources: Vec::new(),
            new_patterns,
            troubles: BTreeMap::new(),
            found: 0,
            real_paths: BTreeMap::new(),
            parked: Parked::new(),
            wanted: None,
            finished: HashSet::new(),
            unfinished: HashMap::new(),
            looked: None,
            set_back: Duration::ZERO,
            looking_stored: None,
            look_again: false,
            known_before: BTreeMap::new(),
            looked_at: Instant::now(),
            look_took: Duration::ZERO,
            wants_to_look: false,
            unconcerned: HashSet::new(),
            unopened: HashMap::new(),
            search: BTreeMap::new(),
            cut: BTreeMap::new(),
            orphans: HashSet::new(),
            seeks_orphans: false,
            followed_names: HashMap::new(),
            left_over: BTreeSet::new(),
            unread: HashSet::new(),
            truncated: Vec::new(),
            read_to: HashMap::new(),
            read_to_checked: 512,
            is_stuck: false,
            waiting: HashSet::new(),
            unsent: AllUnsent::new(),
            open_max: open_max(),
            known: None,
        })
    }

    /// Follows until it is told to stop; `ready` is called once every log that can be read has been opened.
    ///
    /// # Errors
    /// Those of the ledger: without it nothing could be remembered.
    pub fn run(mut self, ready: impl FnOnce(usize)) -> Result<(), LedgerError> {
        let mut ready = Some(ready);
        let mut buffers = Buffers::default();
        loop {
            // What can't be remembered isn't read.
            let stuck = self.ledger.is_stuck();
            if !stuck
                && ready.is_some()
                && self.passing(Self::begin)?.is_some()
                && let Some(ready) = ready.take()
            {
                ready(self.sources.len());
            }
            let begun = ready.is_none();
            let is_due = self.sources.iter().any(|source| source.due);
            let more = begun && !stuck && self.passing(|this| this.turns(&mut buffers))?.unwrap_or(false);
            if !self.unsent.is_empty() && !stuck {
                self.passing(Self::say_what_is_unsent)?;
            }
            if is_due && !more {
                self.watches.rest(self.rest);
            }
            // A pipe or a directory that a pattern matches is no log.
            let is_there =
                |trouble: &&String| !["No such file", "not a regular file"].iter().any(|no| trouble.contains(no));
            let unreadable = self.troubles.values().filter(is_there).count();
            self.sink.happened(Happened::Turn { files: self.sources.len(), unreadable });
            match self.passing(|this| this.wait(more))? {
                Some(Flow::Stop) => {
                    self.outline_ends();
                    return Ok(());
                }
                Some(Flow::Quiet) => buffers.release(),
                Some(Flow::On) | None => {}
            }
        }
    }

    /// Finds all there is to follow, what was rotated away while nobody looked before all else. Where it couldn't be
    /// remembered it is done again.
    fn begin(&mut self) -> Result<(), LedgerError> {
        // Nothing is read, and so nothing is sent, before its outcome has room.
        self.ledger.has_room()?;
        self.look_at_all(&BTreeSet::new())
    }

    /// The first look of a run or by a new configuration; `followed`: patterns that were followed until now.
    fn look_at_all(&mut self, followed: &BTreeSet<String>) -> Result<(), LedgerError> {
        self.known = Some(self.known()?);
        let all = self.look_and_look_back(followed);
        self.known = None;
        self.followed_names = HashMap::new();
        all?;
        // Each log was asked for; that isn't done again.
        self.ledger.let_go()?;
        self.know_patterns()?;
        self.remember_looking(true)
    }

    fn look_and_look_back(&mut self, followed: &BTreeSet<String>) -> Result<(), LedgerError> {
        let names = self.names_read_before(followed)?;
        self.looking_stored = None;
        self.look()?;
        self.find_what_was_rotated_away(names)
    }

    /// Does something that needs the ledger; `None` where the state can't be written now: it is tried again.
    fn passing<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, LedgerError>) -> Result<Option<T>, LedgerError> {
        match act(self) {
            Ok(done) => Ok(Some(done)),
            Err(error) if error.is_passing() => {
                self.look_again = true;
                if !std::mem::replace(&mut self.is_stuck, true) {
                    let hint = "nothing is lost; reading goes on once it can be written";
                    tracing::error!(%error, hint, "can't go on");
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn patience(&self) -> Duration {
        if self.is_stuck || self.ledger.is_stuck() {
            return watch::FALLBACK_POLL;
        }
        if self.look_again {
            return Duration::ZERO;
        }
        let mut poll = self.watches.poll_interval(self.sources.len());
        if !self.search.is_empty() {
            poll = poll.min(watch::FALLBACK_POLL);
        }
        if !self.unsent.is_empty() {
            poll = poll.min(unsent::EVERY);
        }
        if self.wants_to_look {
            poll = poll.min(self.look_every());
        }
        let leaving = self.sources.iter().any(|source| source.leaving.is_some());
        if leaving || !self.truncated.is_empty() { poll.min(QUIET / 5) } else { poll }
    }

    /// Waits for a wake, and takes all that have come; not at all where there is `more` to read.
    fn wait(&mut self, more: bool) -> Result<Flow, LedgerError> {
        let mut look = self.look_again;
        let mut flow = Flow::On;
        let patience = self.patience();
        let stuck = self.is_stuck || self.ledger.is_stuck();
        // From the last look on: a busy log wakes it again and again, and names are looked at all the same.
        let left = if stuck { patience } else { patience.saturating_sub(self.looked_at.elapsed()) };
        let first = match self.wakes.recv_timeout(if more { Duration::ZERO } else { left }) {
            Ok(wake) => Some(wake),
            Err(RecvTimeoutError::Timeout) if more || left.is_zero() => None,
            Err(RecvTimeoutError::Timeout) => {
                look = true;
                flow = Flow::Quiet;
                None
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(Flow::Stop),
        };
        look |= !stuck && self.looked_at.elapsed() >= patience;
        let mut next = first;
        while let Some(wake) = next {
            match wake {
                Wake::Stop => return Ok(Flow::Stop),
                Wake::Reload(wishes) => self.want(*wishes),
                Wake::Renamed => look = true,
                Wake::Room => self.sources.iter_mut().for_each(|source| source.due = true),
                Wake::Written(paths) => {
                    for path in paths {
                        if !self.mark_due(&path) && self.concerns(&path) {
                            self.wants_to_look = true;
                        }
                    }
                }
            }
            next = self.wakes.try_recv().ok();
        }
        if self.ledger.is_stuck() {
            self.look_again = true;
            return Ok(Flow::On);
        }
        self.reload()?;
        look |= self.wants_to_look && self.looked_at.elapsed() >= self.look_every();
        if look || self.watches.missed() {
            self.look_again = false;
            self.look()?;
            self.look_took = self.looked_at.elapsed();
            if !self.new_patterns.is_empty() {
                self.know_patterns()?;
            }
            self.is_stuck = false;
        }
        Ok(flow)
    }
}

/// Logs that may be open at a time: what the process may open, once its limit is as high as it can be.
fn open_max() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    // The usual soft limit of 1,024 is for programs that use select(2).
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        limit.current = limit.maximum;
    }
    let files = limit.current.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    // Where few are allowed, logs have half of them.
    files.saturating_sub(DESCRIPTORS_SPARED).max(files / 2).max(1)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    /// The same, and nothing has come for a while.
    Quiet,
    Stop,
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::Write;
    use std::rc::Rc;
    use std::sync::mpsc::sync_channel;

    use jiff::tz::TimeZone;

    use super::file::Stamp;
    use super::*;
    use crate::event::Event;
    use crate::format::Format;
    use crate::ledger::{Advance, LogRow, Role};
    use crate::pipeline::Site;
    use crate::rules::{Hosts, KeepQuery, PageSource, Rules, SiteContext};
    use std::path::Path;
    use std::sync::Arc;

    const MAX_LINE: usize = 64 * 1024;

    /// Remembers the URLs of the events that it is given, and tells the ledger what is known of the logs.
    #[derive(Clone)]
    struct Seen {
        urls: Rc<RefCell<Vec<String>>>,
        ledger: Ledger,
    }

    impl Sink for Seen {
        fn submit(&self, event: Box<Event>) {
            self.urls.borrow_mut().push(event.url);
        }
        fn has_room(&self, _site: SiteId) -> bool {
            true
        }
        fn advance(&self, _advance: Advance) {}
        fn already_sent(&self, _site: SiteId) {}
        fn update(&self, row: LogRow) {
            self.ledger.update_log(row);
        }
    }

    fn site(id: SiteId) -> Arc<Site> {
        let base_url = url::Url::parse("https://docs.example.org").unwrap();
        Arc::new(Site {
            id,
            name: "docs".to_owned(),
            context: SiteContext {
                hosts: Hosts::of_base_url(&base_url),
                base_url: base_url.into(),
                keep_query: KeepQuery::Only(Vec::new()),
                page: vec![PageSource::OwnUrl],
                view_width: None,
            },
            hosts: None,
            rules: Rules::downloads(vec![200]),
            bots: None,
            exclude_ips: Vec::new(),
            trusted_proxies: Vec::new(),
            respect_dnt: true,
            repeat_window: Duration::ZERO,
        })
    }

    /// A follower of a pattern from the beginning, and who wakes it.
    fn follower(folder: &Path, pattern: &str) -> (Follower<Seen>, std::sync::mpsc::SyncSender<Wake>) {
        let ledger = Ledger::open(&folder.join("state"), Role::Daemon).unwrap();
        let combined = Format::builtin("combined", &TimeZone::UTC).unwrap();
        let target = Target {
            pattern: folder.join(pattern).display().to_string(),
            site: site(ledger.site("docs").unwrap()),
            format: FormatChoice::Fixed(combined),
        };
        let (wake, wakes) = sync_channel(64);
        let wishes =
            Wishes { targets: vec![target], start: Start::Beginning, max_line: MAX_LINE, rest: Duration::ZERO };
        let (repeats, watches) = (Repeats::new([0; 16], 100), Watches::new(wake.clone()));
        let seen = Seen { urls: Rc::default(), ledger: ledger.clone() };
        (Follower::new(wishes, ledger, repeats, seen, watches, wakes).unwrap(), wake)
    }

    fn line(target: &str) -> String {
        format!("192.0.2.1 - - [10/Nov/2026:10:00:00 +0000] \"GET {target} HTTP/1.1\" 200 5 \"-\" \"Firefox\"\n")
    }

    #[test]
    fn the_copy_of_a_truncated_log_is_known_under_whatever_name_rotation_gave_both_before_anybody_looked() {
        // Whether anybody looked before the truncation is noticed, decides who is asked which file is the copy.
        for (pattern, looks_first) in
            [("access.log", true), ("access.log", false), ("access.log*", true), ("access.log*", false)]
        {
            let folder = tempfile::tempdir().unwrap();
            let name = |number: usize| match number {
                0 => folder.path().join("access.log"),
                number => folder.path().join(format!("access.log.{number}")),
            };
            let pdf = |n: usize| line(&format!("/{n}.pdf"));
            std::fs::write(name(0), pdf(0) + &pdf(1)).unwrap();
            let (mut follower, _wake) = follower(folder.path(), pattern);
            follower.begin().unwrap();
            let mut buffers = Buffers::default();
            while follower.turns(&mut buffers).unwrap() {}
            std::fs::OpenOptions::new().append(true).open(name(0)).unwrap().write_all(pdf(2).as_bytes()).unwrap();
            std::fs::copy(name(0), name(1)).unwrap();
            std::fs::OpenOptions::new().write(true).open(name(0)).unwrap().set_len(0).unwrap();
            for n in [3, 4] {
                std::fs::rename(name(2), name(3)).unwrap_or_default();
                std::fs::rename(name(1), name(2)).unwrap();
                std::fs::rename(name(0), name(1)).unwrap();
                std::fs::write(name(0), pdf(n)).unwrap();
            }
            if looks_first {
                follower.look().unwrap();
            }
            for _ in 0..4 {
                follower.sources.iter_mut().for_each(|source| source.due = true);
                while follower.turns(&mut buffers).unwrap() {}
                follower.look().unwrap();
            }
            let mut got = follower.sink.urls.borrow().clone();
            got.sort();
            let want: Vec<String> = (0..5).map(|n| format!("https://docs.example.org/{n}.pdf")).collect();
            assert_eq!(got, want, "{pattern}, {looks_first}");
        }
    }

    #[test]
    fn what_was_truncated_and_packed_is_read_from_its_archive_alone_wherever_that_has_moved() {
        let folder = tempfile::tempdir().unwrap();
        let (log, archive) = (folder.path().join("access.log"), folder.path().join("access.log.1.gz"));
        std::fs::write(&log, line("/0.pdf") + &line("/1.pdf")).unwrap();
        let (mut follower, _wake) = follower(folder.path(), "access.log");
        follower.begin().unwrap();
        let mut buffers = Buffers::default();
        while follower.turns(&mut buffers).unwrap() {}
        let file = std::fs::File::open(&log).unwrap();
        std::fs::write(&log, line("/2.pdf")).unwrap();
        let mut packed =
            flate2::write::GzEncoder::new(std::fs::File::create(&archive).unwrap(), flate2::Compression::fast());
        packed.write_all(line("/2.pdf").as_bytes()).unwrap();
        packed.finish().unwrap();
        std::fs::remove_file(&log).unwrap();
        follower.sources.iter_mut().for_each(|source| source.due = true);
        follower.turns(&mut buffers).unwrap();
        assert!(follower.sources.iter().any(|source| source.file.is_packed()), "the archive is open");
        // As a listing shows it that was read while names moved on.
        std::fs::rename(&archive, folder.path().join("elsewhere")).unwrap();
        follower.truncated.push(Truncated { name: log.as_path().into(), file, noticed: Instant::now() });
        follower.read_what_has_lost_its_name().unwrap();
        while follower.turns(&mut buffers).unwrap() {}
        let got = follower.sink.urls.borrow().clone();
        let want: Vec<String> = (0..3).map(|n| format!("https://docs.example.org/{n}.pdf")).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn an_archive_that_may_go_on_is_not_read_again_and_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        (0..2_000).for_each(|n| packed.write_all(line(&format!("/{n}.pdf")).as_bytes()).unwrap());
        let packed = packed.finish().unwrap();
        let (archive, half) = (folder.path().join("access.log.1.gz"), packed.len() / 2);
        std::fs::write(&archive, &packed[..half]).unwrap();
        for pattern in ["access.log*", "access.log"] {
            let _ = std::fs::remove_dir_all(folder.path().join("state"));
            let (mut follower, _wake) = follower(folder.path(), pattern);
            follower.begin().unwrap();
            if pattern == "access.log" {
                follower.search_again(&folder.path().join("access.log"), Since::all(SystemTime::UNIX_EPOCH));
                follower.look().unwrap();
            }
            let mut buffers = Buffers::default();
            let turns = (0..20).take_while(|_| follower.turns(&mut buffers).unwrap()).count();
            assert!(turns < 20, "{pattern}");
            let read = follower.sink.urls.borrow().len();
            assert!((1..2_000).contains(&read), "{pattern}: {read}");
            // It goes on.
            std::fs::write(&archive, &packed).unwrap();
            follower.unfinished.values_mut().for_each(|one| one.read -= watch::FALLBACK_POLL);
            follower.look().unwrap();
            while follower.turns(&mut buffers).unwrap() {}
            assert_eq!(follower.sink.urls.borrow().len(), 2_000, "{pattern}");
            std::fs::write(&archive, &packed[..half]).unwrap();
        }
    }

    #[test]
    fn a_log_that_was_taken_in_is_followed_from_that_moment_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        for (number, content) in ["", &line("/a.pdf")].into_iter().enumerate() {
            std::fs::write(&path, content).unwrap();
            let (follower, _wake) = follower(folder.path(), "access.log");
            let known = follower.known().unwrap();
            let mut row = Follower::<Seen>::new_row(&path, &file::open(&path).unwrap(), 0);
            assert!(follower.add_log(&mut row, 7, &known).unwrap());
            // Killed here, the next run knows that it has to look for it.
            let position = follower.ledger.position(None, row.id).unwrap();
            assert_eq!(position.map(|position| position.watermark), Some(7), "log {number}");
        }
    }

    #[test]
    fn a_look_reads_what_was_written_to_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let log = |name: &str| folder.path().join(format!("{name}.log"));
        for name in ["appended", "overwritten", "quiet"] {
            std::fs::write(log(name), "a line\n").unwrap();
        }
        let (mut follower, _wake) = follower(folder.path(), "*.log");
        follower.begin().unwrap();
        follower.turns(&mut Buffers::default()).unwrap();
        // As if the clocks had ticked since they were written.
        for source in &mut follower.sources {
            source.seen = Some(Stamp::of(&std::fs::metadata(&source.path).unwrap()));
        }
        let due = |follower: &Follower<Seen>| -> Vec<String> {
            let due = follower.sources.iter().filter(|source| source.due);
            due.map(|source| source.path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
        };
        follower.look().unwrap();
        assert_eq!(due(&follower), Vec::<String>::new());
        // Clocks of file systems tick every few milliseconds.
        let changed = |name: &str, write: &dyn Fn(&mut std::fs::File)| {
            let before = Stamp::of(&std::fs::metadata(log(name)).unwrap());
            while Stamp::of(&std::fs::metadata(log(name)).unwrap()) == before {
                write(&mut std::fs::OpenOptions::new().write(true).open(log(name)).unwrap());
            }
        };
        changed("overwritten", &|file| file.write_all(b"a LINE\n").unwrap());
        changed("appended", &|file| {
            std::io::Seek::seek(file, std::io::SeekFrom::End(0)).unwrap();
            file.write_all(b"more\n").unwrap();
        });
        follower.look().unwrap();
        assert_eq!(due(&follower), ["appended", "overwritten"]);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(12))]
        /// However much waits in one log, a line of another waits for one block of it and no more, wherever the two stand
        /// among the others.
        #[test]
        fn a_line_of_a_small_log_waits_no_longer_than_a_turn(
            small in 1_usize..5,
            big_at in 0_usize..5,
            rounds in proptest::collection::vec(0_usize..4, 1..5),
        ) {
            let folder = tempfile::tempdir().unwrap();
            // Logs are taken in the order of their names.
            let big = folder.path().join(format!("{}-big.log", big_at.min(small)));
            let block = source::BLOCK.max(MAX_LINE + 2);
            std::fs::write(&big, line("/page").repeat((rounds.len() + 2) * block / line("/page").len())).unwrap();
            let name = |at: usize| folder.path().join(format!("{at}-small.log"));
            (0..small).for_each(|at| std::fs::write(name(at), "").unwrap());
            let (mut follower, wake) = follower(folder.path(), "*.log");
            follower.look().unwrap();
            let mut buffers = Buffers::default();
            let read_of_big = |follower: &Follower<Seen>| {
                follower.sources.iter().find(|source| *source.path == *big).map_or(0, Source::read_to)
            };
            let mut want = Vec::new();
            for (round, at) in rounds.into_iter().enumerate() {
                let at = at % small;
                let target = format!("/{round}.pdf");
                let mut file = std::fs::OpenOptions::new().append(true).open(name(at)).unwrap();
                file.write_all(line(&target).as_bytes()).unwrap();
                want.push(format!("https://docs.example.org{target}"));
                wake.send(Wake::Written(vec![name(at)])).unwrap();
                follower.wait(true).unwrap();
                let before = read_of_big(&follower);
                proptest::prop_assert!(follower.turns(&mut buffers).unwrap(), "the big log has more");
                proptest::prop_assert_eq!(&*follower.sink.urls.borrow(), &want, "in round {}", round);
                let read = read_of_big(&follower) - before;
                proptest::prop_assert!((1..=block as u64).contains(&read), "{} bytes in one turn", read);
            }
        }
    }
}
