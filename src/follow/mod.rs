//! Follows the logs: finds them, reads each on across its life, and sends every line through its pipeline.
//!
//! In: patterns, wakes, the ledger's positions. Out: events and advances, to a [`source::Sink`]. One plain thread takes
//! fair turns over the files with unread bytes; it blocks when there is nothing to do.

mod adopt;
pub mod archive;
pub mod discover;
pub mod file;
pub mod identity;
pub(crate) mod known;
mod moment;
pub(crate) mod rewritten;
mod rotated;
pub mod scan;
pub mod source;
mod unsent;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use hashbrown::{DefaultHashBuilder, HashTable};
use jiff::Timestamp;

use crate::format::{self, Format};
use crate::ledger::{Ledger, LedgerError};
use crate::offsets::{LogId, SiteId};
use crate::pipeline::Site;
use crate::visitor::repeats::Repeats;
use adopt::Log;
use file::{Opened, Stamp};
use identity::Who;
use known::Known;
use moment::Moment;
use source::{Buffers, Happened, Reader, Sink, Source, Turn};
use unsent::AllUnsent;
use watch::{Wake, Watches};

/// How long a renamed file must have been quiet before its handle is closed: the server writes on until it reopens.
const QUIET: Duration = Duration::from_secs(5);
/// Writes to files that aren't open, but may be logs, are followed by a look at all names so often at most.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Other files in the logs' directories that are known to be none.
const UNCONCERNED: usize = 1_024;
/// An archive that ends in the middle is taken for finished when it hasn't been written to for this long.
const SETTLED: Duration = Duration::from_secs(60);
/// Bytes of a log's beginning from which `auto` decides.
const DETECT_BYTES: usize = 64 * 1024;
/// Lines from which `auto` decides.
const DETECT_LINES: usize = 100;

/// How a site's lines are read.
#[derive(Debug, Clone)]
pub enum FormatChoice {
    /// The most specific of these that fits the log.
    Auto(Vec<Format>),
    /// This one.
    Fixed(Format),
}

/// A site's wish to follow what matches a pattern.
#[derive(Debug, Clone)]
pub struct Target {
    /// A path or a glob.
    pub pattern: String,
    /// Who reads it.
    pub site: Arc<Site>,
    /// How.
    pub format: FormatChoice,
}

/// Where to begin in logs that match a pattern when it is first run with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// After the last newline.
    #[default]
    End,
    /// At the first byte.
    Beginning,
}

/// What is to be followed, and how.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// Who reads what.
    pub targets: Vec<Target>,
    /// Where to begin in logs of new patterns.
    pub start: Start,
    /// Longest line, in bytes.
    pub max_line: usize,
    /// How long it may take from a line to its event where lines come one after the other: see [`Wishes::rest_for`].
    pub rest: Duration,
}

impl Wishes {
    /// How long the follower rests after it has read all there was, where events linger for so long anyway: a busy log's
    /// lines are read by the hundred then, for less effort. The first line after a quiet while isn't kept
    /// waiting.
    pub fn rest_for(linger: Duration) -> Duration {
        /// Nobody sees it in events that linger for seconds.
        const MAX: Duration = Duration::from_millis(50);
        (linger / 20).min(MAX)
    }
}

/// Decides how a log's lines are read, by its first lines; `None` while it has no complete line.
pub fn decide_format(choice: &FormatChoice, stored: Option<&str>, first_bytes: &[u8]) -> Option<Decided> {
    let candidates = match choice {
        FormatChoice::Fixed(format) => return Some(Decided { format: format.clone(), fits: true }),
        FormatChoice::Auto(candidates) => candidates,
    };
    // A decision holds for the file's life, so that a restart in the middle of garbage doesn't change it.
    if let Some(format) = stored.and_then(|name| candidates.iter().find(|format| format.name() == name)) {
        return Some(Decided { format: format.clone(), fits: true });
    }
    let end = memchr::memrchr(b'\n', first_bytes)?;
    let lines: Vec<&[u8]> =
        first_bytes[..end].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).take(DETECT_LINES).collect();
    match format::detect(candidates, &lines) {
        Some(format) => Some(Decided { format, fits: true }),
        None => candidates
            .iter()
            .find(|format| format.name() == "combined")
            .or(candidates.first())
            .map(|format| Decided { format: format.clone(), fits: false }),
    }
}

/// A format, and whether the lines at hand fit it.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The format.
    pub format: Format,
    /// `false`: nothing fitted, and this is the guess that will show as `unparsed`.
    pub fits: bool,
}

/// The bytes from which [`decide_format`] decides.
///
/// # Errors
/// Those of reading the file.
pub fn first_bytes(opened: &Opened) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; DETECT_BYTES];
    let filled = file::read_at(&opened.file, &mut bytes, 0)?;
    bytes.truncate(filled);
    Ok(bytes)
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
    parked: HashMap<(LogId, Option<SiteId>), Reader>,
    /// Archives that were read to their end, and files that aren't to be read: nobody writes into them any more.
    finished: HashSet<Archive>,
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
    search: BTreeMap<PathBuf, SystemTime>,
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

/// A file that was truncated in place.
struct Truncated {
    /// The name under which it was followed.
    name: Arc<Path>,
    /// A handle of its own.
    file: std::fs::File,
    /// When that was noticed.
    noticed: Instant,
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

/// What is known while names are looked at.
struct Looking {
    /// What the ledger knows, with what was added since it was asked.
    known: Option<Known>,
    /// What is open; `None`: nobody has asked yet, as at nearly all looks.
    open: Option<Open>,
}

/// What is open.
struct Open {
    /// Its files.
    inodes: HashSet<(u64, u64)>,
    /// Its logs.
    logs: HashSet<LogId>,
}

impl Open {
    fn of(sources: &[Source]) -> Self {
        let (inodes, logs) = sources.iter().map(|source| ((source.row.dev, source.row.ino), source.row.id)).unzip();
        Self { inodes, logs }
    }
}

/// The names of open logs that have them still, found by their sources' places: a set of names would be several times as
/// large.
struct OpenNames {
    places: HashTable<usize>,
    hasher: DefaultHashBuilder,
}

impl OpenNames {
    fn of(sources: &[Source]) -> Self {
        let (mut places, hasher) = (HashTable::with_capacity(sources.len()), DefaultHashBuilder::default());
        let hash = |place: &usize| hasher.hash_one(&*sources[*place].path);
        for place in (0..sources.len()).filter(|place| sources[*place].leaving.is_none()) {
            places.insert_unique(hash(&place), place, hash);
        }
        Self { places, hasher }
    }

    /// Whether a name is among them; sources may have been added since.
    fn hold(&self, name: &Path, sources: &[Source]) -> bool {
        self.places.find(self.hasher.hash_one(name), |place| *sources[*place].path == *name).is_some()
    }
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
            parked: HashMap::new(),
            finished: HashSet::new(),
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
                Some(Flow::Stop) => return self.passing(|this| this.outline_ends()).map(|_| ()),
                Some(Flow::Quiet) => buffers.release(),
                Some(Flow::On) | None => {}
            }
        }
    }

    /// Finds all there is to follow, what was rotated away while nobody looked before all else. Where it couldn't be
    /// remembered it is done again.
    fn begin(&mut self) -> Result<(), LedgerError> {
        self.look_at_all(&BTreeSet::new())
    }

    /// The first look of a run or by a new configuration; `followed`: patterns that were followed until now.
    fn look_at_all(&mut self, followed: &BTreeSet<String>) -> Result<(), LedgerError> {
        self.known = Some(self.known()?);
        let all = self.look_and_look_back(followed);
        self.known = None;
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

    /// From now on these patterns aren't new; but those are of which nothing may be read yet: `start` holds for what lies there
    /// when that is mended.
    fn know_patterns(&mut self) -> Result<(), LedgerError> {
        let forbidden: Vec<&PathBuf> =
            self.troubles.iter().filter(|(_, why)| why.contains("Permission denied")).map(|(path, _)| path).collect();
        let is_hidden = |pattern: &String| {
            let is_its = |path: &&&PathBuf| discover::is_for(pattern, path) || Path::new(pattern).starts_with(path);
            forbidden.iter().any(|path| is_its(&path))
                && !self.sources.iter().any(|source| discover::is_for(pattern, &source.row.path))
        };
        let (hidden, known) = std::mem::take(&mut self.new_patterns).into_iter().partition(is_hidden);
        self.new_patterns = hidden;
        for pattern in &known as &BTreeSet<String> {
            self.ledger.add_pattern(pattern)?;
        }
        Ok(())
    }

    /// Goes on with another configuration: logs and sites that stay keep their place, and what was read stays read.
    fn reload(&mut self, wishes: Wishes) -> Result<(), LedgerError> {
        self.new_patterns = new_patterns(&wishes.targets, &self.ledger)?;
        self.remember_looking(true)?;
        let before: BTreeSet<String> = self.targets.iter().map(|target| target.pattern.clone()).collect();
        Wishes { targets: self.targets, start: self.start, max_line: self.max_line, rest: self.rest } = wishes;
        for mut source in std::mem::take(&mut self.sources) {
            let targets = self.matching(&source.row.path);
            let choice = targets.first().and_then(|index| self.targets.get(*index)).map(|target| &target.format);
            let Some(choice) = choice else {
                tracing::info!(path = %source.path.display(), offset = source.read_to(), "file isn't followed any more");
                self.sink.left(source.row.id);
                self.park(&mut source);
                continue;
            };
            let first = source.first_bytes().unwrap_or_default();
            let decided = decide_format(choice, source.row.format.as_deref(), &first);
            let format = decided.map_or_else(|| source.pipeline.format.clone(), |decided| decided.format);
            source.row.format = Some(format.shared_name());
            self.hand_over(&mut source, format, &targets)?;
            self.sink.update(source.row.clone());
            self.sources.push(source);
        }
        // What comes back after it wasn't followed for a while, may have been rotated.
        self.look_at_all(&before)
    }

    /// From now on a log is read for other sites, or by another format: who read it goes on where it was, who is new begins
    /// where the log stands.
    fn hand_over(&mut self, source: &mut Source, format: Format, targets: &[usize]) -> Result<(), LedgerError> {
        let at = source.own_offset();
        self.park(source);
        let (id, path) = (source.row.id, Arc::clone(&source.path));
        let log = Log { id, path: &path, size: source.file.size().unwrap_or(at) };
        let sites = self.sites_of(targets);
        source.readers.push(self.reader(None, None, log, at)?);
        for (index, site) in sites.iter().enumerate() {
            source.readers.push(self.reader(Some(index), Some(site.id), log, at)?);
        }
        let pipeline = self.pipeline(format, sites);
        source.go_on_with(pipeline);
        Ok(())
    }

    /// Takes a log's readers out of use; they go on from where they are, should they be wanted again.
    fn park(&mut self, source: &mut Source) {
        for reader in source.readers.drain(..) {
            let site = reader.site.and_then(|index| source.pipeline.sites.get(index)).map(|site| site.id);
            self.parked.insert((source.row.id, site), reader);
        }
    }

    /// The targets whose pattern a path matches, whether it exists or not.
    fn matching(&self, path: &Path) -> Vec<usize> {
        let fits = |target: &Target| discover::matches(&target.pattern, path);
        (0..self.targets.len()).filter(|index| fits(&self.targets[*index])).collect()
    }

    /// The sites of some targets, each once, in file order.
    fn sites_of(&self, targets: &[usize]) -> Vec<Arc<Site>> {
        let mut sites: Vec<Arc<Site>> = Vec::new();
        for target in targets.iter().filter_map(|index| self.targets.get(*index)) {
            if !sites.iter().any(|site| site.id == target.site.id) {
                sites.push(Arc::clone(&target.site));
            }
        }
        sites
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

    /// One turn for each log with unread bytes. `true`: some have more.
    fn turns(&mut self, buffers: &mut Buffers) -> Result<bool, LedgerError> {
        let mut more = false;
        let mut truncated = Vec::new();
        let mut replaced = Vec::new();
        for index in 0..self.sources.len() {
            let source = &mut self.sources[index];
            if !source.due {
                continue;
            }
            let before = source.progress();
            let turn = source.turn(buffers, &mut self.repeats, &self.sink);
            if source.leaving.is_some() && !source.file.is_packed() && source.progress() != before {
                // It is written to still.
                source.leaving = Some(Instant::now());
            }
            let has_read = source.progress() != before;
            let behind = matches!(turn, Ok(Turn::More | Turn::Full) | Err(_));
            self.sink.stands(source.row.id, source.place(behind));
            if has_read && turn.is_ok() {
                self.outline(index)?;
            }
            let source = &mut self.sources[index];
            match turn {
                Ok(Turn::More) => {
                    more = true;
                    if let Some(since) = &mut source.leaving {
                        *since = Instant::now();
                    }
                }
                Ok(Turn::End) => {
                    source.due = false;
                    if let Some(damage) = source.file.damage() {
                        // Perhaps it is still being written; what it holds so far is read, and not again.
                        let written = source.modified.and_then(|at| at.elapsed().ok());
                        if written.is_none_or(|ago| ago > SETTLED) {
                            tracing::warn!(path = %source.path.display(), %damage, "an archive can't be read to its end");
                            self.sink.happened(Happened::GivenUp { path: &source.row.path, unread: source.unread() });
                            self.finished.insert((source.row.dev, source.row.ino, source.modified));
                        } else {
                            let since = source.modified.unwrap_or(SystemTime::UNIX_EPOCH);
                            let known = self.search.entry(source.row.path.to_path_buf()).or_insert(since);
                            *known = since.min(*known);
                        }
                        replaced.push(index);
                    } else if source.leaving.is_some_and(|since| source.file.is_packed() || since.elapsed() >= QUIET) {
                        source.finish(buffers, &mut self.repeats, &self.sink).unwrap_or_else(|error| {
                            tracing::warn!(path = %source.path.display(), %error, "can't read the last line");
                            self.sink.happened(Happened::GivenUp { path: &source.row.path, unread: source.unread() });
                        });
                        source.row.ended = true;
                        self.sink.update(source.row.clone());
                        if source.file.is_packed() {
                            self.finished.insert((source.row.dev, source.row.ino, source.modified));
                        }
                        replaced.push(index);
                    }
                }
                Ok(Turn::Full) => {
                    source.due = false;
                    if source.leaving.is_some() && self.waiting.insert(source.row.id) {
                        tracing::warn!(
                            path = %source.path.display(), unread = source.backlog(), offset = source.read_to(),
                            hint = "keep rotated logs until the endpoint takes events again (logrotate's `rotate`)",
                            "a rotated log can't be sent now; what is unsent of it is lost if it is removed before a restart"
                        );
                    }
                }
                Ok(Turn::Truncated) => {
                    self.sink.happened(Happened::Truncation(&source.row.path));
                    let inodes = self.sources.iter().map(|source| (source.row.dev, source.row.ino));
                    let held: HashSet<(u64, u64)> = inodes.collect();
                    let source = &mut self.sources[index];
                    let handle = source.file.plain().and_then(|file| file.try_clone().ok());
                    let name = source.row.path.clone();
                    self.truncated.extend(handle.map(|file| Truncated { name, file, noticed: Instant::now() }));
                    match copy_of(source).filter(|(_, copy)| !held.contains(&(copy.dev, copy.ino))) {
                        Some((path, copy)) => {
                            tracing::info!(
                                path = %source.path.display(), copy = %path.display(),
                                "file truncated or overwritten, reading the rest of its copy and then its new content"
                            );
                            source.continue_in(path.into(), copy);
                            truncated.push(source.row.clone());
                            more = true;
                        }
                        None => {
                            tracing::info!(
                                path = %source.path.display(), offset = source.read_to(),
                                "file truncated or overwritten, reading its new content"
                            );
                            // It may be on its way to another name, or be compressed just now.
                            self.cut.insert(source.row.id, source.unread());
                            truncated.push(source.row.clone());
                            replaced.push(index);
                        }
                    }
                }
                Err(error) => {
                    // Tried again at the next poll.
                    source.due = false;
                    self.troubles.entry(source.path.to_path_buf()).or_insert_with(|| {
                        tracing::warn!(path = %source.path.display(), %error, "can't read file, will keep trying");
                        error.to_string()
                    });
                }
            }
        }
        for row in &truncated {
            self.search_after_truncation(row);
        }
        if !truncated.is_empty() || !replaced.is_empty() {
            for index in replaced.into_iter().rev() {
                let source = self.sources.remove(index);
                self.waiting.remove(&source.row.id);
                if source.row.ended {
                    self.watch_what_is_unsent(&source);
                }
                self.sink.left(source.row.id);
                self.remember_reading(&source)?;
            }
            self.look()?;
            // What was found now waits for nothing.
            more |= self.sources.iter().any(|source| source.due);
        }
        Ok(more)
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

    /// How often names are looked at for the sake of files that aren't open: a tenth of the time at most goes into it.
    fn look_every(&self) -> Duration {
        LOOK_EVERY.max(self.look_took.saturating_mul(9))
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
                Wake::Reload(wishes) => {
                    self.reload(*wishes)?;
                    tracing::info!(files = self.sources.len(), "following by the new configuration");
                }
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

    /// `false`: no log of that name is open.
    fn mark_due(&mut self, path: &Path) -> bool {
        let path = self.real_paths.get(path).map_or(path, PathBuf::as_path);
        let mut known = false;
        let (whole, name) = (path.as_os_str(), path.file_name());
        for source in &mut self.sources {
            // A path is compared part by part; of ten thousand, nearly all differ in their last one.
            let same = source.path.as_os_str() == whole || (source.path.file_name() == name && *source.path == *path);
            source.due |= same || source.leaving.is_some();
            // What is written under the name of a log that is leaving is its successor's.
            known |= same && source.leaving.is_none();
        }
        known
    }

    /// Whether what is written to a file that isn't open may be a log's: error logs lie in the same directory.
    fn concerns(&mut self, path: &Path) -> bool {
        let path = self.real_paths.get(path).map_or(path, PathBuf::as_path);
        if self.unconcerned.contains(path) {
            return false;
        }
        let is_its = |source: &&Source| discover::is_plainly_rotated(path, &source.row.path);
        if let Some(of) = self.sources.iter().find(is_its).map(|source| Arc::clone(&source.row.path)) {
            // Perhaps it was closed already. It was written to just now, but that may have been heard late.
            let since = SystemTime::now().checked_sub(SETTLED).unwrap_or(SystemTime::UNIX_EPOCH);
            self.search_again(&of, since);
            return true;
        }
        if self.targets.iter().any(|target| discover::is_for(&target.pattern, path)) {
            return true;
        }
        if self.unconcerned.len() < UNCONCERNED {
            self.unconcerned.insert(path.to_path_buf());
        }
        false
    }

    /// Holds the open files against the names there are now.
    fn look(&mut self) -> Result<(), LedgerError> {
        let began = Moment::now();
        self.looked_at = Instant::now();
        self.wants_to_look = false;
        self.unconcerned.clear();
        self.allow_for_the_clock(&began);
        let patterns: Vec<String> = self.targets.iter().map(|target| target.pattern.clone()).collect();
        let mut unlisted = Vec::new();
        let found = discover::paths(&patterns, |directory, error| unlisted.push((directory.to_path_buf(), error)));
        self.troubles.retain(|path, _| {
            found.contains_key(path)
                || unlisted.iter().any(|(directory, _)| directory == path)
                || !path.is_dir() && path.symlink_metadata().is_ok()
        });
        for (directory, error) in unlisted {
            self.say_trouble(&directory, &error);
        }
        // Under its name nothing tells any more whether a log that is leaving is written to.
        self.sources.iter_mut().for_each(|source| source.due |= source.leaving.is_some());
        let unread = self.sources.iter().filter(|source| self.unread.contains(&source.row.id));
        let mut moved: BTreeSet<PathBuf> = unread.map(|source| source.row.path.to_path_buf()).collect();
        for source in self.sources.iter_mut().filter(|source| source.leaving.is_none()) {
            let there = std::fs::metadata(&source.path).ok();
            let there = there.filter(|meta| (meta.dev(), meta.ino()) == (source.row.dev, source.row.ino));
            if let Some(meta) = there {
                // Whether anybody has told of it or not.
                source.due |= source.seen != Some(Stamp::of(&meta));
            } else {
                tracing::info!(path = %source.path.display(), "file renamed or removed, reading it to its end");
                self.sink.happened(Happened::Rotation(&source.row.path));
                source.leaving = Some(Instant::now());
                source.due = true;
                moved.insert(source.path.to_path_buf());
            }
        }
        let open = OpenNames::of(&self.sources);
        let new = found.keys().filter(|path| !open.hold(path, &self.sources)).count();
        let mut looking = self.looking();
        // At once: a vector that grows by and by leaves holes as large as itself.
        self.sources.reserve_exact(new);
        for (path, targets) in &found {
            if open.hold(path, &self.sources) {
                continue;
            }
            // At the first look nothing is known to have moved; a copy of each name would only lie between the logs.
            if self.looked.is_some() {
                moved.insert(path.clone());
            }
            self.open(path, targets, &mut looking)?;
        }
        self.keep(looking);
        self.find_what_was_rotated_since_the_last_look(&moved, &found)?;
        self.read_what_has_lost_its_name()?;
        self.looked = Some(began);
        // The first look of a run, or by a new configuration, isn't all: what was rotated before is searched for after it.
        if self.looking_stored.is_some() {
            self.remember_looking(new > 0 || !moved.is_empty())?;
        }
        let unread = self.sources.iter().filter(|source| source.row.fingerprint.marks.is_empty());
        self.unread = unread.map(|source| source.row.id).collect();
        // Where every name still has its file, no link leads elsewhere now.
        let mut names = DefaultHasher::new();
        found.keys().for_each(|path| path.hash(&mut names));
        let names = names.finish();
        if new > 0 || !moved.is_empty() || names != self.found {
            self.real_paths = found
                .keys()
                .filter_map(|path| Some((std::fs::canonicalize(path).ok()?, path.clone())))
                .filter(|(real, path)| real != path)
                .collect();
            self.found = names;
        }
        let mut directories: BTreeSet<PathBuf> =
            patterns.iter().map(|pattern| discover::watched_directory(pattern)).collect();
        // By their order those of one directory mostly come one after the other.
        let mut last = None;
        let folders = found.keys().filter_map(|path| path.parent());
        directories.extend(folders.filter(|folder| last.replace(*folder) != Some(*folder)).map(Path::to_path_buf));
        directories.extend(self.real_paths.keys().filter_map(|path| path.parent().map(Path::to_path_buf)));
        if self.watches.set(directories) {
            // A file that came before its directory was watched is seen by looking once more.
            self.look_again = true;
        }
        Ok(())
    }

    /// What was written to a log after it was truncated, and is in no directory any more.
    fn read_what_has_lost_its_name(&mut self) -> Result<(), LedgerError> {
        use std::os::unix::fs::MetadataExt;
        for truncated in std::mem::take(&mut self.truncated) {
            // What can't be asked for its state can't be read either.
            let Ok(meta) = truncated.file.metadata() else { continue };
            let held = self.sources.iter().any(|source| (source.row.dev, source.row.ino) == (meta.dev(), meta.ino()));
            if held || meta.nlink() > 0 {
                continue;
            }
            let handle = truncated.file.try_clone().and_then(archive::Content::of);
            let Ok(file) = handle else { continue };
            let (name, modified) = (&truncated.name, meta.modified().ok());
            let opened = Opened { file, dev: meta.dev(), ino: meta.ino(), size: meta.len(), modified };
            if !first_bytes(&opened).is_ok_and(|first| first.contains(&b'\n')) {
                // The server may still have it open.
                self.truncated.extend((truncated.noticed.elapsed() < QUIET).then_some(truncated));
                continue;
            }
            // Compressed before it was removed: it is found where it is now.
            let others = discover::related(name).into_iter().filter_map(|path| file::open(&path).ok());
            if others.into_iter().any(|other| identity::begin_alike(&opened, &other).unwrap_or(false)) {
                continue;
            }
            // Its archive may have been opened and moved on while these were listed.
            let mut archives = self
                .sources
                .iter()
                .filter(|source| source.file.is_packed() && discover::are_related(name, &source.path));
            if archives.any(|archive| identity::holds_the_same(&opened, &archive.file).unwrap_or(false)) {
                continue;
            }
            let mut known = self.known()?;
            let targets = self.matching(name);
            match self.adopt(name, name, opened, Who::New, &mut known, &targets)? {
                Adopted::Source(mut source) => {
                    source.leaving = Some(Instant::now());
                    self.sources.push(*source);
                }
                Adopted::NotYet | Adopted::ReadBefore => {}
                Adopted::Outrun => self.truncated.push(truncated),
            }
        }
        Ok(())
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
    files.saturating_sub(DESCRIPTORS_SPARED).max(1)
}

/// The patterns that no earlier run had.
fn new_patterns(targets: &[Target], ledger: &Ledger) -> Result<BTreeSet<String>, LedgerError> {
    let known = ledger.patterns()?;
    Ok(targets.iter().map(|target| target.pattern.clone()).filter(|pattern| !known.contains_key(pattern)).collect())
}

/// What `copytruncate` has copied a log to before it cut it.
fn copy_of(source: &Source) -> Option<(PathBuf, Opened)> {
    // Under a glob it may have been rotated since, and be known by its new name.
    let mut copies = discover::related(&source.row.path);
    copies.retain(|path| **path != *source.row.path);
    // What can't be read is no copy that would help.
    copies.into_iter().rev().find_map(|path| {
        let opened = file::open(&path).ok()?;
        let continues = identity::continues(&opened, &source.row.fingerprint).unwrap_or(false);
        continues.then_some((path, opened))
    })
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

    use super::*;
    use crate::event::Event;
    use crate::ledger::{Advance, LogRow, Role};
    use crate::rules::{Hosts, KeepQuery, PageSource, Rules, SiteContext};

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
                base_url,
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
