//! The ledger's storage: one SQLite database in `state_dir`, one thread that writes.
//!
//! The writer commits whatever has come since its last commit, outcomes before advances, and answers an outcome only
//! when it is committed. What was merely read waits for an outcome, for a second at most: if it is lost, it is read again.
//! It syncs to disk at most one second after a commit. A commit that fails (a full disk) is tried
//! again until it works; meanwhile nothing is answered, so nothing is sent that could not be remembered.

mod reader;
mod state;
mod writing;

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};
use tokio::sync::oneshot;

pub use reader::LedgerReader;
use state::{
    VERSION, beside, connect, forget_if_possible, give_link_to_owner, give_to_owner, is_there, lay_out, prepare,
    refuse_links, refuse_network,
};
use writing::Writing;

use super::ends;
use super::outline::{self, Request};
use super::rejected::{self, Rejection};
use super::{Advance, Counts, Fingerprint, recent};
use crate::offsets::{LogId, Origin, SiteId, Span};
use crate::visitor::repeats::{Kept, Key, Touch};

/// A commit reaches the disk after this long at most.
const SYNC_AFTER: Duration = Duration::from_secs(1);
/// How long opening is tried where SQLite can't open what lies there.
const OPENING: Duration = Duration::from_secs(2);
/// Advances that may wait for the writer before reading stops.
const QUEUE: usize = 64;

/// Why the state can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The directory or a file in it.
    #[error("cannot use state_dir `{}`: {error}; it must be a directory on a local disk that this user may write to", .path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another process holds it.
    #[error("state_dir `{}` is in use by another silktail {who}; stop it first, or give each its own state_dir", .path.display())]
    Locked {
        /// Which.
        path: PathBuf,
        /// `daemon`, or what may run beside it.
        who: &'static str,
    },
    /// A network file system.
    #[error("state_dir `{}` is on a network file system, which cannot hold the state safely; use a local disk", .0.display())]
    Network(PathBuf),
    /// A newer version wrote it.
    #[error("the state in `{}` was written by a newer silktail (layout {found}, this one knows {VERSION}); use that version", .path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its layout.
        found: i64,
    },
    /// Not a database, or a damaged one.
    #[error("the state in `{}` cannot be read ({reason}); restore it, or begin anew with `silktail run --state-reset`, which keeps the broken file", .path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
        /// SQLite's words.
        reason: String,
    },
    /// Any other trouble with the database.
    #[error("cannot read or write the state in `{}`: {error}", .path.display())]
    Database {
        /// Which file.
        path: PathBuf,
        /// SQLite's words.
        error: rusqlite::Error,
    },
    /// The disk is full, or fails; the writer goes on trying.
    #[error("the state in `{}` can't be written now", .0.display())]
    Stuck(PathBuf),
    /// The writer's thread is gone.
    #[error("the state's writer has ended")]
    WriterGone,
}

impl LedgerError {
    /// Whether it may be over in a while without anybody touching the state: a full disk, a lock that is held.
    pub fn is_passing(&self) -> bool {
        match self {
            LedgerError::Stuck(_) => true,
            LedgerError::Database { error, .. } => matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::DiskFull
                        | ErrorCode::SystemIoFailure
                        | ErrorCode::DatabaseBusy
                        | ErrorCode::DatabaseLocked
                        | ErrorCode::CannotOpen
                )
            ),
            _ => false,
        }
    }
}

/// What a process may do with the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `run`: one for each state directory.
    Daemon,
    /// `backfill`: beside the daemon.
    Beside,
}

/// What is known of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRow {
    /// The ledger's number for it.
    pub id: LogId,
    /// Its last name. Shared with those that follow it: ten thousand logs have long ones.
    pub path: Arc<Path>,
    /// Device number, a hint.
    pub dev: u64,
    /// Inode number, a hint.
    pub ino: u64,
    /// Who it is.
    pub fingerprint: Fingerprint,
    /// The format that `auto` decided on; shared like the name.
    pub format: Option<Arc<str>>,
    /// When it was last read from.
    pub last_read: Option<Timestamp>,
    /// Read to its end and closed; nobody writes to it any more.
    pub ended: bool,
}

/// Where a followed log goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Everything before is settled.
    pub watermark: u64,
    /// Ends of settled lines above it.
    pub settled: Vec<u64>,
}

/// Where following a log begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// The offset.
    pub at: u64,
    /// The first byte before it, from the wanted start on, that no backfill has claimed.
    pub gap: Option<u64>,
}

impl Begun {
    /// After all stretches that backfills have claimed, in their order; at `start` where there are none.
    fn after(claimed: &[(u64, u64)], start: u64, size: u64) -> Self {
        let Some(end) = claimed.iter().map(|(_, until)| *until).max() else { return Self { at: start, gap: None } };
        let at = end.min(size);
        let read =
            claimed.iter().fold(start, |read, (from, until)| if *from <= read { read.max(*until) } else { read });
        Self { at, gap: (read < at).then_some(read) }
    }
}

/// Bytes of a log that a backfill has to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Where to begin.
    pub from: u64,
    /// Where to end.
    pub until: u64,
    /// Ends of settled lines in it.
    pub settled: Vec<u64>,
    /// An earlier run has claimed it and not finished.
    pub resumed: bool,
}

/// Counts of one site (or of nobody) in one log, for `status`.
#[derive(Debug, Clone)]
pub struct StatusRow {
    /// `None`: lines that belong to no site.
    pub site: Option<String>,
    /// The log.
    pub log: LogId,
    /// Its last name.
    pub path: PathBuf,
    /// Its last inode.
    pub ino: u64,
    /// Nobody writes to it any more, or it can't be found.
    pub ended: bool,
    /// When it was last read from.
    pub last_read: Option<Timestamp>,
    /// The furthest watermark.
    pub watermark: u64,
    /// Lines below the watermark.
    pub counts: Counts,
}

/// What became of a site's events.
#[derive(Debug, Clone)]
pub struct SiteTotal {
    /// The site.
    pub site: String,
    /// Events.
    pub delivered: u64,
    /// Events.
    pub rejected: u64,
}

/// Lines that are settled, those of them that were rejected, and who waits for the commit.
type Settled = (Vec<Origin>, Vec<Rejection>, Option<oneshot::Sender<Committed>>);

#[derive(Debug, Default)]
struct Queue {
    outcomes: VecDeque<Settled>,
    advances: VecDeque<Advance>,
    logs: Vec<LogRow>,
    syncs: Vec<std::sync::mpsc::Sender<bool>>,
    /// The last try to write has failed.
    stuck: bool,
    closed: bool,
    /// The writer waits for work: else it needn't be woken, which costs a system call each time.
    idle: bool,
    /// It will wake by itself within [`SYNC_AFTER`].
    dozes: bool,
    /// Somebody holds a [`Waking`].
    to_be_woken: bool,
    /// Threads that wait for the writer to take what there is.
    held_up: usize,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    emptied: Condvar,
    /// For questions and claims; the writer has a connection of its own.
    reader: Mutex<Connection>,
    path: PathBuf,
    secret: [u8; 16],
    /// Commits so far, and when the last one was, in seconds since 1970.
    commits: AtomicU64,
    last_commit: AtomicI64,
    _lock: File,
}

/// The open ledger; clones share it. The last one that goes writes what is left.
#[derive(Debug, Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
    _writer: Arc<Writer>,
}

#[derive(Debug)]
struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.filled.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            // A writer that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

impl Queue {
    /// Whether something must be written now: somebody waits for it, or it has become much. What was merely read can wait
    /// for company: if it is lost it is read again.
    fn is_urgent(&self) -> bool {
        !self.outcomes.is_empty() || !self.syncs.is_empty() || self.closed || self.advances.len() >= QUEUE / 2
    }

    fn is_empty(&self) -> bool {
        !self.is_urgent() && self.advances.is_empty() && self.logs.is_empty()
    }
}

impl Shared {
    /// There is work for the writer that can wait for as long as that dozes.
    fn wake_in_time(&self, queue: MutexGuard<'_, Queue>) {
        if !queue.dozes || queue.is_urgent() {
            self.wake(queue);
        }
    }

    /// There is work for the writer.
    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let wakes = std::mem::take(&mut queue.idle);
        queue.to_be_woken = false;
        drop(queue);
        if wakes {
            self.filled.notify_one();
        }
    }
}

/// Says that an outcome is committed; when it is let go, it says so to the others of the same commit. The writer would
/// have to wake the thread that all of them are waited for on for each, which is a system call; that thread tells itself
/// for nothing.
#[derive(Debug)]
pub struct Committed(Vec<oneshot::Sender<Committed>>);

impl Committed {
    /// Answers all who wait.
    fn tell(mut waiting: Vec<oneshot::Sender<Committed>>) {
        let Some(first) = waiting.pop() else { return };
        // Whoever asked may be gone: a stop. Then the others are told from here.
        drop(first.send(Committed(waiting)));
    }
}

impl Drop for Committed {
    fn drop(&mut self) {
        for other in self.0.drain(..) {
            drop(other.send(Committed(Vec::new())));
        }
    }
}

/// Wakes the ledger's writer when it is let go.
#[derive(Debug)]
#[must_use = "letting it go at once writes each outcome by itself"]
pub struct Waking(Arc<Shared>);

impl Drop for Waking {
    fn drop(&mut self) {
        self.0.wake(lock(&self.0.queue));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the mutexes guard is replaced whole or only added to: it stays true when a holder panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Memory for pages of the database, in KiB (negative, as SQLite has it): what checks or reads it as a whole seldom
/// comes back to a page.
const READER_CACHE: i64 = -256;
const WRITER_CACHE: i64 = -512;
const OWN: i64 = 0;
const NO_STATE: &str = "it holds no state of silktail";
/// How many logs are added before the next look at what can be forgotten.
const FORGET_EVERY: i64 = 256;
/// `ended` of a log that was followed and can't be found any more.
const GIVEN_UP: i64 = 2;

impl Ledger {
    /// Opens the state, or begins it.
    ///
    /// # Errors
    /// [`LedgerError`]: nothing is guessed around.
    pub fn open(state_dir: &Path, role: Role) -> Result<Self, LedgerError> {
        let began = Instant::now();
        loop {
            match Self::open_now(state_dir, role) {
                // Whoever closes it last removes what lies beside it, and who opens it in that moment may miss that.
                Err(LedgerError::Database { error, .. })
                    if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) && began.elapsed() < OPENING =>
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                done => return done,
            }
        }
    }

    fn open_now(state_dir: &Path, role: Role) -> Result<Self, LedgerError> {
        let trouble = |error| LedgerError::Directory { path: state_dir.to_path_buf(), error };
        if !state_dir.exists() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(trouble)?;
        }
        refuse_network(state_dir)?;
        refuse_links(state_dir)?;
        let held = hold(state_dir, role)?;
        let path = state_dir.join("silktail.db");
        if !is_there(&path)? {
            let aside = format!("silktail.db.new-{}", std::process::id());
            drop(private(state_dir, &aside)?);
            lay_out(&state_dir.join(&aside), &path)?;
        }
        let mut writer = connect(&path)?;
        let secret = prepare(&mut writer, &path)?;
        forget_if_possible(&writer);
        // Its tables are written to all over.
        writer.pragma_update(None, "cache_size", WRITER_CACHE).map_err(|error| database_error(&path, error))?;
        for name in ["silktail.db-wal", "silktail.db-shm"] {
            give_link_to_owner(state_dir, &state_dir.join(name));
        }
        let reader = Mutex::new(connect(&path)?);
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            reader,
            path,
            secret,
            commits: AtomicU64::new(0),
            last_commit: AtomicI64::new(0),
            _lock: held,
        });
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("ledger".into())
                .spawn(move || Writing::new(shared, writer).run())
                .map_err(trouble)?
        };
        let writer = Arc::new(Writer { shared: Arc::clone(&shared), thread: Mutex::new(Some(thread)) });
        Ok(Self { shared, _writer: writer })
    }

    /// Opens the state for looking at it; `None` where there is none yet.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open_read_only(state_dir: &Path) -> Result<Option<LedgerReader>, LedgerError> {
        let path = state_dir.join("silktail.db");
        if !is_there(&path)? {
            return Ok(None);
        }
        let wrong = |error| database_error(&path, error);
        let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(wrong)?;
        db.busy_timeout(Duration::from_secs(10)).map_err(wrong)?;
        let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(wrong)?;
        if version > VERSION {
            return Err(LedgerError::Newer { path, found: version });
        }
        if version == 0 {
            return Err(LedgerError::Broken { path, reason: NO_STATE.to_owned() });
        }
        Ok(Some(LedgerReader { db, path, version }))
    }

    /// Sets the state aside, and says where it is now: nowhere where something is already.
    ///
    /// # Errors
    /// [`LedgerError::Locked`] where another process uses it, which would go on with what was set aside; those of the file
    /// system.
    pub fn reset(state_dir: &Path) -> Result<Option<PathBuf>, LedgerError> {
        if !state_dir.exists() {
            return Ok(None);
        }
        let _held = [hold(state_dir, Role::Daemon)?, hold(state_dir, Role::Beside)?];
        let path = state_dir.join("silktail.db");
        let mut aside = (Timestamp::now().as_second()..).map(|at| state_dir.join(format!("silktail.db.broken-{at}")));
        let is_free = |aside: &PathBuf| {
            // Of a state whose database was gone, only what lay beside it was kept.
            ["", "-wal", "-shm"].iter().all(|suffix| beside(aside, suffix).symlink_metadata().is_err())
        };
        let Some(aside) = aside.find(is_free) else { return Ok(None) };
        let mut moved = false;
        for suffix in ["", "-wal", "-shm"] {
            match std::fs::rename(beside(&path, suffix), beside(&aside, suffix)) {
                Ok(()) => moved = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(LedgerError::Directory { path: state_dir.to_path_buf(), error }),
            }
        }
        Ok(moved.then_some(aside))
    }

    /// Keys the hashes of the repeat window.
    pub fn secret(&self) -> [u8; 16] {
        self.shared.secret
    }

    fn ask<T>(&self, question: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, LedgerError> {
        question(&mut lock(&self.shared.reader)).map_err(|error| database_error(&self.shared.path, error))
    }

    /// A site's number, by its name.
    ///
    /// # Errors
    /// Those of the database.
    pub fn site(&self, name: &str) -> Result<SiteId, LedgerError> {
        self.ask(|db| {
            db.execute("INSERT OR IGNORE INTO site (name) VALUES (?1)", [name])?;
            db.query_row("SELECT id FROM site WHERE name = ?1", [name], |row| row.get(0)).map(SiteId)
        })
    }

    /// The logs, in the order in which they were taken in.
    ///
    /// # Errors
    /// Those of the database.
    pub fn logs(&self) -> Result<Vec<LogRow>, LedgerError> {
        let mut rows = Vec::new();
        self.each_log(|row| rows.push(row))?;
        Ok(rows)
    }

    /// The same, one by one; `take` can't ask the ledger itself.
    ///
    /// # Errors
    /// Those of the database.
    pub fn each_log(&self, mut take: impl FnMut(LogRow)) -> Result<(), LedgerError> {
        // What waits to be written is part of what is known.
        self.sync()?;
        self.ask(|db| {
            let mut query = db.prepare(&format!("{SELECT_LOG} ORDER BY id"))?;
            let rows = query.query_map([], log_row)?;
            for row in rows {
                take(row?);
            }
            drop(query);
            // The pages that were gone through lie among the rows, and won't be asked for again.
            db.execute_batch("PRAGMA shrink_memory")
        })
    }

    /// Gives back the memory of what was asked for.
    ///
    /// # Errors
    /// Those of the database.
    pub fn let_go(&self) -> Result<(), LedgerError> {
        self.ask(|db| db.execute_batch("PRAGMA shrink_memory"))
    }

    /// One of them, as far as it is committed.
    ///
    /// # Errors
    /// Those of the database.
    pub fn log(&self, id: LogId) -> Result<Option<LogRow>, LedgerError> {
        self.ask(|db| db.prepare_cached(&format!("{SELECT_LOG} WHERE id = ?1"))?.query_row([id.0], log_row).optional())
    }

    /// Takes a new log in and gives it its number; `None`: another process has taken one in since `newest` was the newest,
    /// and it may be the same.
    ///
    /// A log that is followed is so from an offset on, in the same transaction: one that was only taken in would be known
    /// after a crash, and nobody would look for it.
    ///
    /// # Errors
    /// Those of the database.
    pub fn add_log(
        &self,
        row: &LogRow,
        newest: LogId,
        followed_from: Option<u64>,
    ) -> Result<Option<LogId>, LedgerError> {
        self.ask(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let last: i64 = change.query_row("SELECT coalesce(max(id), 0) FROM log", [], |row| row.get(0))?;
            if last > newest.0 {
                return Ok(None);
            }
            change.execute(
                "INSERT INTO log (path, dev, ino, fingerprint, format, last_read, ended) VALUES (?1,?2,?3,?4,?5,?6,?7)",
                params![
                    row.path.as_os_str().as_bytes(),
                    row.dev.cast_signed(),
                    row.ino.cast_signed(),
                    fingerprint_text(row),
                    row.format.as_deref(),
                    row.last_read.map(Timestamp::as_microsecond),
                    row.ended
                ],
            )?;
            let id = change.last_insert_rowid();
            if let Some(from) = followed_from {
                insert_range(&change, None, LogId(id), from, None, None)?;
            }
            change.commit()?;
            if id % FORGET_EVERY == 0 {
                forget_if_possible(db);
            }
            Ok(Some(LogId(id)))
        })
    }

    /// A log's first requests, and the last ones before the place to which it was read, as far as they are known.
    ///
    /// # Errors
    /// Those of the database.
    pub fn outline(&self, log: LogId) -> Result<(Vec<Request>, Vec<Request>), LedgerError> {
        let read = |row: &rusqlite::Row<'_>| {
            let requests =
                |index| row.get_ref(index).map(|blob| outline::from_bytes(blob.as_blob().unwrap_or_default()));
            Ok((requests(0)?, requests(1)?))
        };
        let query = "SELECT first, last FROM outline WHERE log = ?1";
        self.ask(|db| db.prepare_cached(query)?.query_row([log.0], read).optional()).map(Option::unwrap_or_default)
    }

    /// Stores a log's first requests.
    ///
    /// # Errors
    /// Those of the database.
    pub fn keep_first(&self, log: LogId, first: &[Request]) -> Result<(), LedgerError> {
        let store = "INSERT INTO outline (log, first) VALUES (?1, ?2) ON CONFLICT (log) DO UPDATE SET first = ?2";
        self.ask(|db| db.prepare_cached(store)?.execute(params![log.0, outline::to_bytes(first)])).map(|_| ())
    }

    /// Stores logs' last requests before the places to which they were read.
    ///
    /// # Errors
    /// Those of the database.
    pub fn keep_last(&self, logs: &[(LogId, Vec<Request>)]) -> Result<(), LedgerError> {
        self.ask(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (log, last) in logs {
                change
                    .prepare_cached(
                        "INSERT INTO outline (log, last) VALUES (?1, ?2) ON CONFLICT (log) DO UPDATE SET last = ?2",
                    )?
                    .execute(params![log.0, outline::to_bytes(last)])?;
            }
            change.commit()
        })
    }

    /// Stores what is known of a log, in order with its advances.
    pub fn update_log(&self, row: LogRow) {
        let mut queue = lock(&self.shared.queue);
        queue.logs.retain(|known| known.id != row.id);
        queue.logs.push(row);
        self.shared.wake_in_time(queue);
    }

    /// The `logs` patterns that were run with before, and when the follower last knew all that lay under their names.
    ///
    /// # Errors
    /// Those of the database.
    pub fn patterns(&self) -> Result<HashMap<String, Option<Timestamp>>, LedgerError> {
        self.ask(|db| {
            let mut query = db.prepare("SELECT text, looked FROM pattern")?;
            let time = |at: Option<i64>| at.and_then(|at| Timestamp::from_microsecond(at).ok());
            query.query_map([], |row| Ok((row.get(0)?, time(row.get(1)?))))?.collect()
        })
    }

    /// What the clocks showed at the last look that was remembered.
    ///
    /// # Errors
    /// Those of the database.
    pub fn clock(&self) -> Result<Option<String>, LedgerError> {
        self.ask(|db| db.query_row("SELECT value FROM meta WHERE key = 'clock'", [], |row| row.get(0)).optional())
    }

    /// Remembers when all that lay under these patterns' names was known, and what the clocks showed then.
    ///
    /// # Errors
    /// Those of the database.
    pub fn looked<'p>(
        &self,
        patterns: impl Iterator<Item = &'p str>,
        at: Timestamp,
        clock: Option<&str>,
    ) -> Result<(), LedgerError> {
        self.ask(|db| {
            let change = db.transaction()?;
            let mut set = change.prepare("UPDATE pattern SET looked = ?1 WHERE text = ?2")?;
            for pattern in patterns {
                set.execute(params![at.as_microsecond(), pattern])?;
            }
            drop(set);
            match clock {
                Some(clock) => change.execute("INSERT OR REPLACE INTO meta VALUES ('clock', ?1)", [clock])?,
                None => change.execute("DELETE FROM meta WHERE key = 'clock'", [])?,
            };
            change.commit()
        })
    }

    /// Remembers that a pattern was run with.
    ///
    /// # Errors
    /// Those of the database.
    pub fn add_pattern(&self, pattern: &str) -> Result<(), LedgerError> {
        self.ask(|db| db.execute("INSERT OR IGNORE INTO pattern (text) VALUES (?1)", [pattern])).map(|_| ())
    }

    /// Where `run` goes on in a log; `None`: it has never followed it for this site.
    ///
    /// # Errors
    /// Those of the database.
    pub fn position(&self, site: Option<SiteId>, log: LogId) -> Result<Option<Position>, LedgerError> {
        self.ask(|db| {
            // Asked for each log at a start.
            let mut query = db.prepare_cached(
                "SELECT watermark, settled FROM range WHERE site = ?1 AND log = ?2 AND until_offset IS NULL",
            )?;
            let position = |row: &rusqlite::Row<'_>| {
                Ok(Position { watermark: uint(row.get(0)?), settled: settled_from(&row.get::<_, String>(1)?) })
            };
            query.query_row(params![site_number(site), log.0], position).optional()
        })
    }

    /// Begins to follow a log of `size` bytes: where backfills have ended, or at `start` where none has read it.
    ///
    /// # Errors
    /// Those of the database.
    pub fn follow(&self, site: Option<SiteId>, log: LogId, start: u64, size: u64) -> Result<Begun, LedgerError> {
        self.ask(|db| {
            // A backfill that claims what nobody has claimed must come before or after.
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut query = change.prepare_cached(
                "SELECT from_offset, until_offset FROM range WHERE site = ?1 AND log = ?2 AND until_offset IS NOT NULL ORDER BY from_offset",
            )?;
            let claimed = query
                .query_map(params![site_number(site), log.0], |row| Ok((uint(row.get(0)?), uint(row.get(1)?))))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            drop(query);
            let begun = Begun::after(&claimed, start, size);
            insert_range(&change, site, log, begun.at, None, None)?;
            change.commit()?;
            Ok(begun)
        })
    }

    /// Logs that were followed and aren't done with: not read to their end, or with events of these sites that aren't
    /// settled.
    ///
    /// # Errors
    /// Those of the database.
    pub fn left_over(&self, sites: &[SiteId]) -> Result<HashSet<LogId>, LedgerError> {
        self.sync()?;
        let sites: Vec<String> = sites.iter().map(|site| site.0.to_string()).collect();
        self.ask(|db| {
            let mut query = db.prepare(&format!(
                "SELECT log.id FROM log JOIN range own ON own.log = log.id AND own.site = 0 AND own.until_offset IS NULL
                 WHERE log.ended = 0 OR log.ended = 1 AND EXISTS (
                     SELECT 1 FROM range WHERE range.log = log.id AND until_offset IS NULL AND watermark < own.watermark
                     AND site IN ({}))",
                sites.join(", ")
            ))?;
            let rows = query.query_map([], |row| row.get(0))?;
            rows.map(|id| id.map(LogId)).collect()
        })
    }

    /// What stands before the place from which a new log is followed was read in another one: it is no backfill's.
    ///
    /// # Errors
    /// Those of the database.
    pub fn was_read_before(&self, log: LogId) -> Result<(), LedgerError> {
        self.ask(|db| {
            db.execute("UPDATE range SET from_offset = 0 WHERE log = ?1 AND until_offset IS NULL", [log.0]).map(|_| ())
        })
    }

    /// A log that was followed can't be found any more: what is left of it is a backfill's, if the file is still to be
    /// had.
    ///
    /// # Errors
    /// Those of the database.
    pub fn give_up(&self, log: LogId) -> Result<(), LedgerError> {
        self.ask(|db| db.execute("UPDATE log SET ended = ?2 WHERE id = ?1", [log.0, GIVEN_UP])).map(|_| ())
    }

    /// Claims, for a backfill that reads it by the rules of this digest, what of `wanted` nobody has claimed of a log's
    /// first `size` bytes. Gives that, and whole what an earlier backfill has claimed and not finished.
    ///
    /// # Errors
    /// Those of the database.
    pub fn claim(
        &self,
        site: Option<SiteId>,
        log: LogId,
        size: u64,
        wanted: &[(u64, u64)],
        digest: Option<u64>,
    ) -> Result<Vec<Range>, LedgerError> {
        self.ask(|db| {
            // A daemon that begins to follow the log must come before or after.
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut claimed = Vec::new();
            for range in uncovered(&change, site, log, size)? {
                if range.resumed {
                    claimed.push(range);
                    continue;
                }
                for (from, until) in super::overlaps(wanted, range.from, range.until) {
                    insert_range(&change, site, log, from, Some(until), digest)?;
                    claimed.push(Range { from, until, settled: Vec::new(), resumed: false });
                }
            }
            change.commit()?;
            Ok(claimed)
        })
    }

    /// Opens again what backfills have read of a log for a site by other rules: it is to be read again, and only lines
    /// that weren't sent are to be sent. Says how many stretches those are.
    ///
    /// # Errors
    /// Those of the database.
    pub fn reopen(&self, site: SiteId, log: LogId, digest: u64) -> Result<usize, LedgerError> {
        self.sync()?;
        self.ask(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut query = change.prepare(
                "SELECT id, settled FROM range WHERE site = ?1 AND log = ?2 AND until_offset IS NOT NULL AND digest <> ?3",
            )?;
            let of = params![site.0, log.0, digest.cast_signed()];
            let stale = query
                .query_map(of, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            drop(query);
            let mut recent = if stale.is_empty() { HashMap::new() } else { recent::sent(&change)? };
            for (range, settled) in &stale {
                let mut ends = settled_from(settled);
                ends.extend(recent.remove(range).unwrap_or_default());
                let mut query = change.prepare_cached("SELECT ends FROM sent WHERE range = ?1")?;
                for blob in query.query_map([range], |row| row.get::<_, Vec<u8>>(0))? {
                    ends.extend(ends::decode(&blob?));
                }
                ends.sort_unstable();
                ends.dedup();
                change.execute(
                    "UPDATE range SET watermark = from_offset, settled = ?2, digest = ?3, lines = 0, too_long = 0, unparsed = 0,
                     unmatched = 0, excluded = 0, bot = 0, repeat = 0, event = 0 WHERE id = ?1",
                    params![range, serde_json::to_string(&ends).unwrap_or_default(), digest.cast_signed()],
                )?;
            }
            change.commit()?;
            Ok(stale.len())
        })
    }

    /// A claim without a known end (an archive's, standard input's) was read to its end.
    ///
    /// # Errors
    /// Those of the database.
    pub fn end_claim(&self, site: Option<SiteId>, log: LogId, end: u64) -> Result<(), LedgerError> {
        self.ask(|db| {
            let of = params![site_number(site), log.0, int(end), int(u64::MAX >> 1)];
            db.execute(
                "DELETE FROM range WHERE site = ?1 AND log = ?2 AND until_offset = ?4 AND from_offset >= ?3",
                of,
            )?;
            db.execute("UPDATE range SET until_offset = ?3 WHERE site = ?1 AND log = ?2 AND until_offset = ?4", of)
        })
        .map(|_| ())
    }

    /// What of a log is settled for a site, in stretches.
    ///
    /// # Errors
    /// Those of the database.
    pub fn covered(&self, site: Option<SiteId>, log: LogId) -> Result<Vec<(u64, u64)>, LedgerError> {
        self.ask(|db| {
            let mut query = db.prepare(
                "SELECT from_offset, watermark FROM range WHERE site = ?1 AND log = ?2 AND watermark > from_offset ORDER BY from_offset",
            )?;
            let of = params![site_number(site), log.0];
            let rows = query.query_map(of, |row| Ok((uint(row.get(0)?), uint(row.get(1)?))))?;
            rows.collect()
        })
    }

    /// Whether anything of a log was ever read for a site, or is claimed.
    ///
    /// # Errors
    /// Those of the database.
    pub fn has_read(&self, site: SiteId, log: LogId) -> Result<bool, LedgerError> {
        self.ask(|db| {
            let mut query = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM range WHERE site = ?1 AND log = ?2)")?;
            query.query_row(params![site.0, log.0], |row| row.get(0))
        })
    }

    /// Takes what was read; waits while the writer is far behind.
    pub fn advance(&self, advance: Advance) {
        let mut queue = lock(&self.shared.queue);
        // A writer that is stuck isn't waited for, or nobody could stop us; the follower reads no more meanwhile.
        while queue.advances.len() >= QUEUE && !queue.closed && !queue.stuck {
            queue.held_up += 1;
            queue = self.shared.emptied.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.held_up -= 1;
        }
        queue.advances.push_back(advance);
        self.shared.wake_in_time(queue);
    }

    /// These lines' events are delivered, or rejected where `rejections` says so; `done` is answered once that is
    /// committed.
    ///
    /// Where the writer has nothing to do it sleeps on until what this gives is let go: whoever holds that brings along
    /// what else has come, and lets go without waiting for more.
    pub fn settle(
        &self,
        origins: Vec<Origin>,
        rejections: Vec<Rejection>,
        done: oneshot::Sender<Committed>,
    ) -> Option<Waking> {
        let mut queue = lock(&self.shared.queue);
        queue.outcomes.push_back((origins, rejections, Some(done)));
        let wakes = queue.idle && !queue.to_be_woken;
        queue.to_be_woken |= wakes;
        wakes.then(|| Waking(Arc::clone(&self.shared)))
    }

    /// The stored repeat window, least recently used first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn touches(&self) -> Result<Vec<Touch>, LedgerError> {
        self.ask(|db| {
            let mut query =
                db.prepare("SELECT key, first, last, site, log, line_start, line_end FROM kept ORDER BY used")?;
            let time = |at: i64| Timestamp::from_microsecond(at).unwrap_or_default();
            let rows = query.query_map([], |row| {
                Ok(Touch {
                    key: Key(row.get(0)?),
                    kept: Kept {
                        first: time(row.get(1)?),
                        last: time(row.get(2)?),
                        origin: Origin {
                            site: SiteId(row.get(3)?),
                            log: LogId(row.get(4)?),
                            line: Span { start: uint(row.get(5)?), end: uint(row.get(6)?) },
                        },
                    },
                })
            })?;
            let mut touches = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            recent::read(db, |touch| touches.push(touch))?;
            Ok(touches)
        })
    }

    /// Forgets a rejected event.
    ///
    /// # Errors
    /// Those of the database.
    pub fn drop_rejected(&self, id: i64) -> Result<(), LedgerError> {
        self.ask(|db| rejected::drop(db, id)).map(|_| ())
    }

    /// A rejected event was delivered after all.
    ///
    /// # Errors
    /// Those of the database.
    pub fn rejected_was_delivered(&self, id: i64, site: SiteId) -> Result<(), LedgerError> {
        self.ask(|db| rejected::delivered(db, id, site))
    }

    /// A rejected event was refused again: the newest answer is kept.
    ///
    /// # Errors
    /// Those of the database.
    pub fn rejected_again(&self, id: i64, status: Option<u16>, reason: &str) -> Result<(), LedgerError> {
        self.ask(|db| rejected::refused_again(db, id, status, reason)).map(|_| ())
    }

    /// Commits since it was opened, and when the last one was, in seconds since 1970.
    pub fn commits(&self) -> (u64, i64) {
        (self.shared.commits.load(Ordering::Relaxed), self.shared.last_commit.load(Ordering::Relaxed))
    }

    /// Returns when everything that was given to the ledger is committed and on disk.
    ///
    /// # Errors
    /// [`LedgerError::Stuck`] where it can't be written now; [`LedgerError::WriterGone`].
    pub fn sync(&self) -> Result<(), LedgerError> {
        let (done, synced) = std::sync::mpsc::channel();
        {
            let mut queue = lock(&self.shared.queue);
            if queue.stuck {
                return Err(LedgerError::Stuck(self.shared.path.clone()));
            }
            queue.syncs.push(done);
            self.shared.wake(queue);
        }
        match synced.recv() {
            Ok(true) => Ok(()),
            Ok(false) => Err(LedgerError::Stuck(self.shared.path.clone())),
            Err(_) => Err(LedgerError::WriterGone),
        }
    }

    /// Whether the state can't be written now: what is read meanwhile could not be remembered.
    pub fn is_stuck(&self) -> bool {
        lock(&self.shared.queue).stuck
    }
}

/// Opens a file of the state, or makes it, for its owner alone.
fn private(state_dir: &Path, name: &str) -> Result<File, LedgerError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    // A link would have root write to whatever the directory's owner chooses.
    options.custom_flags(i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0));
    let file = options.open(state_dir.join(name));
    let file = file.map_err(|error| LedgerError::Directory { path: state_dir.to_path_buf(), error })?;
    give_to_owner(state_dir, &file);
    Ok(file)
}

/// Takes the place that only one process may have, for as long as the file is open.
fn hold(state_dir: &Path, role: Role) -> Result<File, LedgerError> {
    let (name, who) = match role {
        Role::Daemon => ("daemon.lock", "daemon"),
        Role::Beside => ("backfill.lock", "backfill or `rejected`"),
    };
    let file = private(state_dir, name)?;
    let path = state_dir.to_path_buf();
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LedgerError::Locked { path, who }),
        Err(TryLockError::Error(error)) => Err(LedgerError::Directory { path, error }),
    }
}

/// What of a log's first `size` bytes is left for a backfill to read.
fn uncovered(db: &Connection, site: Option<SiteId>, log: LogId, size: u64) -> rusqlite::Result<Vec<Range>> {
    let mut query = db.prepare(
        "SELECT from_offset, until_offset, watermark, settled, log.ended FROM range JOIN log ON log.id = range.log
         WHERE site = ?1 AND log = ?2 ORDER BY from_offset",
    )?;
    let rows = query.query_map(params![site_number(site), log.0], |row| {
        let until: Option<i64> = row.get(1)?;
        let given_up = row.get::<_, i64>(4)? == GIVEN_UP;
        let until = until.map(uint).or(given_up.then_some(u64::MAX));
        Ok((uint(row.get(0)?), until, uint(row.get(2)?), row.get::<_, String>(3)?))
    })?;
    let mut left = Vec::new();
    let mut at = 0;
    for row in rows {
        let (from, until, watermark, settled) = row?;
        if at < from.min(size) {
            left.push(Range { from: at, until: from.min(size), settled: Vec::new(), resumed: false });
        }
        match until {
            // `run` has all from here on.
            None => at = u64::MAX,
            Some(until) => {
                if watermark < until.min(size) {
                    let settled = settled_from(&settled);
                    left.push(Range { from: watermark, until: until.min(size), settled, resumed: true });
                }
                at = at.max(until);
            }
        }
    }
    if at < size {
        left.push(Range { from: at, until: size, settled: Vec::new(), resumed: false });
    }
    Ok(left)
}

const SELECT_LOG: &str = "SELECT id, path, dev, ino, fingerprint, format, last_read, ended FROM log";

fn log_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<LogRow> {
    let fingerprint: String = row.get(4)?;
    let last_read: Option<i64> = row.get(6)?;
    Ok(LogRow {
        id: LogId(row.get(0)?),
        path: PathBuf::from(OsString::from_vec(row.get(1)?)).into(),
        dev: row.get::<_, i64>(2)?.cast_unsigned(),
        ino: row.get::<_, i64>(3)?.cast_unsigned(),
        fingerprint: serde_json::from_str(&fingerprint).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Text, Box::new(error))
        })?,
        format: row.get::<_, Option<String>>(5)?.map(Arc::from),
        last_read: last_read.and_then(|at| Timestamp::from_microsecond(at).ok()),
        ended: row.get(7)?,
    })
}

fn insert_range(
    db: &Connection,
    site: Option<SiteId>,
    log: LogId,
    from: u64,
    until: Option<u64>,
    digest: Option<u64>,
) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO range (site, log, from_offset, until_offset, watermark, digest) VALUES (?1, ?2, ?3, ?4, ?3, ?5)",
        params![site_number(site), log.0, int(from), until.map(int), digest.map(u64::cast_signed)],
    )
    .map(|_| ())
}

fn site_number(site: Option<SiteId>) -> i64 {
    site.map_or(OWN, |site| site.0)
}

fn settled_from(text: &str) -> Vec<u64> {
    // Written by this program in the same transaction as its watermark; what can't be read is sent again, not lost.
    serde_json::from_str(text).unwrap_or_default()
}

fn fingerprint_text(row: &LogRow) -> String {
    serde_json::to_string(&row.fingerprint).unwrap_or_default()
}

fn database_error(path: &Path, error: rusqlite::Error) -> LedgerError {
    let path = path.to_path_buf();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            LedgerError::Broken { path, reason: error.to_string() }
        }
        _ => LedgerError::Database { path, error },
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::state::forget;
    use super::writing::RECENT_MAX;
    use super::*;
    use crate::ledger::Step;

    fn line(start: u64, end: u64) -> Origin {
        Origin { site: SiteId(1), log: LogId(1), line: Span { start, end } }
    }

    fn opened(read_to: u64, lines: &[(u64, u64)]) -> Advance {
        let steps = lines
            .iter()
            .map(|(start, end)| Step {
                counts: Counts { lines: 1, event: 1, ..Counts::default() },
                open: Some(Span { start: *start, end: *end }),
                touches: Vec::new(),
            })
            .collect();
        Advance { site: Some(SiteId(1)), log: LogId(1), read_to, steps }
    }

    fn row() -> LogRow {
        LogRow {
            id: LogId(0),
            path: Path::new("/var/log/nginx/docs.log").into(),
            dev: 1,
            ino: u64::MAX,
            fingerprint: Fingerprint::of_head(b"first"),
            format: Some("combined".into()),
            last_read: None,
            ended: false,
        }
    }

    fn settle(ledger: &Ledger, origin: Origin) {
        let (done, committed) = oneshot::channel();
        drop(ledger.settle(vec![origin], Vec::new(), done));
        committed.blocking_recv().unwrap();
    }

    /// Claims a range; `until`: `None` where `run` follows.
    fn begin(ledger: &Ledger, site: Option<SiteId>, log: LogId, from: u64, until: Option<u64>) {
        ledger.ask(|db| insert_range(db, site, log, from, until, None)).unwrap();
    }

    /// Delivered and rejected of each site.
    fn totals(ledger: &Ledger) -> Vec<(u64, u64)> {
        ledger.sync().unwrap();
        let folder = ledger.shared.path.parent().unwrap();
        let totals = Ledger::open_read_only(folder).unwrap().unwrap().totals().unwrap();
        totals.iter().map(|total| (total.delivered, total.rejected)).collect()
    }

    fn add_log(ledger: &Ledger, row: &LogRow) -> LogId {
        ledger.add_log(row, LogId(i64::MAX), None).unwrap().unwrap()
    }

    #[test]
    fn all_outcomes_of_a_commit_are_told_whoever_is_gone() {
        for gone in [None, Some(0), Some(1), Some(2)] {
            let (waiting, answers): (Vec<_>, Vec<_>) = (0..3).map(|_| oneshot::channel()).unzip();
            let mut answers: Vec<_> = answers.into_iter().enumerate().collect();
            answers.retain(|(nth, _)| Some(*nth) != gone);
            Committed::tell(waiting);
            // Whoever is told first may be asked last: it tells the others when it lets go.
            for (nth, answer) in answers.into_iter().rev() {
                assert!(answer.blocking_recv().is_ok(), "the {nth}th, without the {gone:?}th");
            }
        }
    }

    #[test]
    fn what_was_settled_is_remembered_and_the_rest_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), Role::Daemon).unwrap();
        let (site, log) = (ledger.site("docs").unwrap(), add_log(&ledger, &row()));
        begin(&ledger, Some(site), log, 0, None);
        ledger.advance(opened(40, &[(0, 10), (10, 20), (20, 30)]));
        settle(&ledger, line(0, 10));
        settle(&ledger, line(20, 30));
        let secret = ledger.secret();
        drop(ledger);
        let ledger = Ledger::open(folder.path(), Role::Daemon).unwrap();
        let position = ledger.position(Some(site), log).unwrap().unwrap();
        assert_eq!((position.watermark, position.settled), (10, vec![30]));
        assert_eq!(ledger.logs().unwrap(), [LogRow { id: log, ..row() }]);
        assert_eq!(ledger.site("docs").unwrap(), site);
        assert_eq!(ledger.secret(), secret);
        let status = Ledger::open_read_only(folder.path()).unwrap().unwrap().status().unwrap();
        assert_eq!(status[0].counts.lines, 1, "only what is below the watermark");
    }

    /// Each of them keeps in memory how far the log was read; neither may write what it knows of the other's stretch.
    #[test]
    fn a_daemon_and_a_backfill_of_one_log_leave_each_other_s_stretches_alone() {
        let folder = tempfile::tempdir().unwrap();
        let backfill = Ledger::open(folder.path(), Role::Beside).unwrap();
        let daemon = Ledger::open(folder.path(), Role::Daemon).unwrap();
        let (site, log) = (backfill.site("docs").unwrap(), add_log(&backfill, &row()));
        backfill.claim(Some(site), log, 100, &[(0, 100)], Some(1)).unwrap();
        assert_eq!(daemon.follow(Some(site), log, 0, 100).unwrap().at, 100);
        let position = || daemon.position(Some(site), log).unwrap().unwrap().watermark;
        let left = |size| {
            let left = backfill.claim(Some(site), log, size, &[(0, size)], Some(1)).unwrap();
            left.iter().map(|range| range.from).collect::<Vec<_>>()
        };
        // In turns, so that each has loaded the log's stretches before the other goes on.
        for step in 0..3 {
            let (own, other) = (20 * step, 100 + 20 * step);
            backfill.advance(opened(own + 20, &[(own, own + 10), (own + 10, own + 20)]));
            settle(&backfill, line(own, own + 10));
            settle(&backfill, line(own + 10, own + 20));
            backfill.sync().unwrap();
            assert_eq!((position(), left(100)), (other, vec![own + 20]), "the backfill's step {step}");
            daemon.advance(opened(other + 20, &[(other, other + 10), (other + 10, other + 20)]));
            settle(&daemon, line(other, other + 10));
            settle(&daemon, line(other + 10, other + 20));
            daemon.sync().unwrap();
            assert_eq!((position(), left(100)), (other + 20, vec![own + 20]), "the daemon's step {step}");
        }
        // By other rules it is read again, while the daemon goes on.
        assert_eq!(backfill.reopen(site, log, 2).unwrap(), 1);
        daemon.advance(opened(180, &[(160, 170)]));
        settle(&daemon, line(160, 170));
        daemon.sync().unwrap();
        assert_eq!((position(), left(100)), (180, vec![0]), "opened again");
        let again = backfill.claim(Some(site), log, 100, &[(0, 100)], Some(2)).unwrap();
        assert_eq!(again[0].settled, (1..=6).map(|line| line * 10).collect::<Vec<_>>(), "none is to be sent again");
        assert_eq!(totals(&daemon), [(13, 0)]);
    }

    #[test]
    fn a_backfill_takes_what_no_other_has() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), Role::Beside).unwrap();
        let (site, log) = (ledger.site("docs").unwrap(), add_log(&ledger, &row()));
        begin(&ledger, Some(site), log, 100, None);
        let claim = |wanted: &[(u64, u64)]| ledger.claim(Some(site), log, 150, wanted, None).unwrap();
        assert_eq!(claim(&[(120, 150)]), []);
        let left = claim(&[(0, 150)]);
        assert_eq!(left, [Range { from: 0, until: 100, settled: vec![], resumed: false }]);
        ledger.advance(opened(50, &[(20, 30)]));
        ledger.sync().unwrap();
        let left = claim(&[(0, 150)]);
        assert_eq!(left, [Range { from: 20, until: 100, settled: vec![], resumed: true }]);
        settle(&ledger, line(20, 30));
        ledger.advance(opened(100, &[]));
        ledger.sync().unwrap();
        assert_eq!(claim(&[(0, 150)]), []);
    }

    #[test]
    fn a_claim_that_is_given_up_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), Role::Beside).unwrap();
        let (site, log) = (ledger.site("docs").unwrap(), add_log(&ledger, &row()));
        let other = add_log(&ledger, &LogRow { path: Path::new("other").into(), ..row() });
        let claim = |log, size| ledger.claim(Some(site), log, size, &[(0, size)], None).unwrap();
        claim(log, 100);
        ledger.advance(opened(100, &[(0, 10)]));
        ledger.sync().unwrap();
        // As of an archive whose end isn't known: there is nothing behind what was read before.
        claim(log, u64::MAX >> 1);
        ledger.advance(opened(u64::MAX >> 1, &[]));
        ledger.sync().unwrap();
        ledger.end_claim(Some(site), log, 100).unwrap();
        claim(other, 1_000);
        settle(&ledger, line(0, 10));
        assert_eq!(claim(other, 1_000), [Range { from: 0, until: 1_000, settled: vec![], resumed: true }]);
    }

    #[test]
    fn of_two_processes_that_find_a_log_at_once_one_takes_it_in() {
        let folder = tempfile::tempdir().unwrap();
        let daemon = Ledger::open(folder.path(), Role::Daemon).unwrap();
        let backfill = Ledger::open(folder.path(), Role::Beside).unwrap();
        let nothing = LogId(0);
        let log = daemon.add_log(&row(), nothing, None).unwrap().unwrap();
        assert_eq!(backfill.add_log(&row(), nothing, None).unwrap(), None);
        assert_eq!(backfill.logs().unwrap(), [LogRow { id: log, ..row() }]);
        assert!(backfill.add_log(&row(), log, None).unwrap().is_some(), "another log");
        // Whoever comes first has the bytes, and the other the rest.
        let site = daemon.site("docs").unwrap();
        let claimed = backfill.claim(Some(site), log, 100, &[(0, 100)], None).unwrap();
        assert_eq!(claimed, [Range { from: 0, until: 100, settled: vec![], resumed: false }]);
        assert_eq!(daemon.follow(Some(site), log, 0, 120).unwrap(), Begun { at: 100, gap: None });
        assert_eq!(backfill.claim(Some(site), log, 120, &[(0, 120)], None).unwrap()[0].until, 100);
        assert_eq!(backfill.claim(None, log, 120, &[(0, 120)], None).unwrap()[0].until, 120, "the log's own");
    }

    #[test]
    fn following_begins_where_backfills_ended() {
        let begun = |at, gap| Begun { at, gap };
        for (name, claimed, start, want) in [
            ("none", vec![], 0, begun(0, None)),
            ("none, at the end", vec![], 200, begun(200, None)),
            ("all", vec![(0, 150)], 0, begun(150, None)),
            ("all, in two", vec![(0, 70), (70, 150)], 0, begun(150, None)),
            ("the first part", vec![(0, 50)], 0, begun(50, None)),
            ("the first part, at the end", vec![(0, 50)], 200, begun(50, None)),
            ("the last part", vec![(100, 150)], 0, begun(150, Some(0))),
            ("the last part, at the end", vec![(100, 150)], 200, begun(150, None)),
            ("two parts", vec![(0, 50), (100, 150)], 0, begun(150, Some(50))),
            ("to an end that isn't known yet", vec![(0, u64::MAX >> 1)], 0, begun(200, None)),
        ] {
            assert_eq!(Begun::after(&claimed, start, 200), want, "{name}");
        }
    }

    #[test]
    fn broken_state_is_never_guessed_around() {
        let folder = tempfile::tempdir().unwrap();
        drop(Ledger::open(folder.path(), Role::Daemon).unwrap());
        let path = folder.path().join("silktail.db");
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, vec![0; good.len()]).unwrap();
        assert!(matches!(Ledger::open(folder.path(), Role::Daemon), Err(LedgerError::Broken { .. })));
        let aside = Ledger::reset(folder.path()).unwrap().unwrap();
        assert!(aside.exists());
        drop(Ledger::open(folder.path(), Role::Daemon).unwrap());
        // Within the same second.
        let another = Ledger::reset(folder.path()).unwrap().unwrap();
        assert!(aside.exists() && another.exists() && aside != another);
        drop(Ledger::open(folder.path(), Role::Daemon).unwrap());
        let db = Connection::open(&path).unwrap();
        db.pragma_update(None, "user_version", 99).unwrap();
        drop(db);
        let newer = Ledger::open(folder.path(), Role::Daemon);
        assert!(matches!(newer, Err(LedgerError::Newer { found: 99, .. })));
    }

    #[test]
    fn the_repeat_window_comes_back_in_the_order_of_its_use() {
        let folder = tempfile::tempdir().unwrap();
        let touch = |key: u64, at: u64| {
            let mut bytes = [0; 16];
            // They lie anywhere among each other, as hashes do.
            bytes[..8].copy_from_slice(&key.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
            let time = Timestamp::from_microsecond(1_790_000_000_000_000 + int(at)).unwrap();
            Touch { key: Key(bytes), kept: Kept { first: time, last: time, origin: line(at, at + 1) } }
        };
        // More than are stored before they are sorted in, every third of them used once more later, in two runs.
        let count = (RECENT_MAX / recent::ENTRY) as u64 + 1_000;
        let all: Vec<Touch> = (0..count)
            .map(|at| touch(at, at))
            .chain((0..count).step_by(3).map(|key| touch(key, count + key)))
            .collect();
        for part in all.chunks(all.len() / 2 + 1) {
            let ledger = Ledger::open(folder.path(), Role::Daemon).unwrap();
            let (site, log) = match ledger.logs().unwrap().first() {
                Some(known) => (ledger.site("docs").unwrap(), known.id),
                None => {
                    let (site, log) = (ledger.site("docs").unwrap(), add_log(&ledger, &row()));
                    begin(&ledger, Some(site), log, 0, None);
                    (site, log)
                }
            };
            for touches in part.chunks(500) {
                let step = Step { counts: Counts::default(), open: None, touches: touches.to_vec() };
                ledger.advance(Advance { site: Some(site), log, read_to: 1, steps: vec![step] });
                ledger.sync().unwrap();
            }
        }
        let stored = Ledger::open(folder.path(), Role::Daemon).unwrap().touches().unwrap();
        // As the window takes them: of a key the last.
        let last_of_each = |touches: &[Touch]| {
            let mut seen = HashSet::new();
            let mut last: Vec<Touch> = touches.iter().rev().filter(|touch| seen.insert(touch.key)).cloned().collect();
            last.reverse();
            last
        };
        let db = Connection::open(folder.path().join("silktail.db")).unwrap();
        let sorted: i64 = db.query_row("SELECT count(*) FROM kept", [], |row| row.get(0)).unwrap();
        assert!(
            (RECENT_MAX / recent::ENTRY..stored.len()).contains(&(sorted as usize)),
            "{sorted} of {} were sorted in",
            stored.len()
        );
        assert!(last_of_each(&stored) == last_of_each(&all));
    }

    #[test]
    fn a_state_of_the_first_layout_is_read_and_brought_up_to_date() {
        // Not all of them had a place for the newest of the window.
        for has_recent in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let ledger = Ledger::open(folder.path(), Role::Daemon).unwrap();
            let (site, log) = (ledger.site("docs").unwrap(), add_log(&ledger, &row()));
            begin(&ledger, Some(site), log, 0, None);
            drop(ledger);
            let db = Connection::open(folder.path().join("silktail.db")).unwrap();
            db.execute_batch(
                "DROP TABLE outline; DROP TRIGGER keep_totals; DROP INDEX rejected_of; DROP TABLE recent;
                 ALTER TABLE range DROP COLUMN delivered;
                 ALTER TABLE site ADD COLUMN rejected INTEGER NOT NULL DEFAULT 0;
                 UPDATE site SET delivered = 7, rejected = 3;
                 INSERT INTO rejected (site, log, line_end, at, reason, event) VALUES (1, 1, 10, 0, '', '{}');
                 PRAGMA user_version = 1",
            )
            .unwrap();
            if has_recent {
                db.execute_batch("CREATE TABLE recent (touches BLOB NOT NULL)").unwrap();
                db.execute("INSERT INTO recent (touches) VALUES (zeroblob(64))", []).unwrap();
            }
            drop(db);
            let looked_at = Ledger::open_read_only(folder.path()).unwrap().unwrap().totals().unwrap();
            assert_eq!((looked_at[0].delivered, looked_at[0].rejected), (7, 1));
            for opening in 0..2 {
                let ledger = Ledger::open(folder.path(), Role::Daemon).unwrap();
                assert_eq!(ledger.touches().unwrap().len(), usize::from(has_recent));
                let end = 10 * (opening + 1);
                ledger.advance(opened(end, &[(end - 10, end)]));
                settle(&ledger, line(end - 10, end));
                assert_eq!(totals(&ledger), [(8 + opening, 1)]);
            }
        }
    }

    #[test]
    fn what_became_of_a_site_s_events_is_remembered_longer_than_their_log() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), Role::Daemon).unwrap();
        let (site, log) = (ledger.site("docs").unwrap(), add_log(&ledger, &row()));
        begin(&ledger, Some(site), log, 0, None);
        ledger.advance(opened(20, &[(0, 10), (10, 20)]));
        settle(&ledger, line(0, 10));
        let refused =
            Rejection { origin: line(10, 20), status: Some(400), reason: "no".to_owned(), event: "{}".to_owned() };
        drop(ledger.settle(vec![line(10, 20)], vec![refused.clone()], oneshot::channel().0));
        // Of a log that was forgotten meanwhile.
        let elsewhere = Origin { log: LogId(9), ..line(0, 10) };
        settle(&ledger, elsewhere);
        assert_eq!(totals(&ledger), [(2, 1)]);
        ledger.ask(|db| db.execute("DELETE FROM range", [])).unwrap();
        assert_eq!(totals(&ledger), [(2, 1)]);
        ledger.rejected_was_delivered(1, site).unwrap();
        assert_eq!(totals(&ledger), [(3, 0)]);
        ledger.rejected_was_delivered(1, site).unwrap();
        assert_eq!(totals(&ledger), [(3, 0)], "one that isn't there");
        let refused = Rejection { origin: line(20, 30), ..refused };
        drop(ledger.settle(vec![line(20, 30)], vec![refused], oneshot::channel().0));
        assert_eq!(totals(&ledger), [(3, 1)]);
        ledger.drop_rejected(2).unwrap();
        assert_eq!(totals(&ledger), [(3, 0)], "one that was dropped");
    }

    #[test]
    fn logs_that_are_done_with_are_forgotten_in_the_end_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), Role::Daemon).unwrap();
        let site = ledger.site("docs").unwrap();
        let now = Timestamp::now();
        let days_ago = |days: i64| Some(now - SignedDuration::from_hours(24 * days));
        // (read so many days ago, ended, followed, settled)
        let add = |days: i64, ended: bool, followed: bool, settled: bool| {
            let log = add_log(&ledger, &LogRow { last_read: days_ago(days), ended, ..row() });
            for of in [None, Some(site)] {
                begin(&ledger, of, log, 0, (!followed).then_some(100));
            }
            let steps = if settled { Vec::new() } else { opened(50, &[(0, 10)]).steps };
            ledger.advance(Advance { site: None, log, read_to: 50, steps: Vec::new() });
            ledger.advance(Advance { site: Some(site), log, read_to: 50, steps });
            ledger.sync().unwrap();
            log
        };
        let still_followed = add(500, false, true, true);
        let not_sent = add(500, true, true, false);
        let old = add(500, true, true, true);
        let read_by_a_backfill = add(500, false, false, true);
        let young = add(10, true, true, true);
        let younger = add(5, true, true, true);
        let ids = || ledger.logs().unwrap().into_iter().map(|row| row.id).collect::<Vec<_>>();
        ledger.ask(|db| forget(db, now, 10)).unwrap();
        assert_eq!(ids(), [still_followed, not_sent, young, younger], "not {old:?}, {read_by_a_backfill:?}");
        assert_eq!(ledger.covered(Some(site), read_by_a_backfill).unwrap(), []);
        ledger.ask(|db| forget(db, now, 1)).unwrap();
        assert_eq!(ids(), [still_followed, not_sent, younger], "the one read longest ago gives way");
    }

    #[test]
    fn no_damage_to_the_state_makes_it_panic() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), Role::Daemon).unwrap();
        let (site, log) = (ledger.site("docs").unwrap(), add_log(&ledger, &row()));
        begin(&ledger, Some(site), log, 0, None);
        ledger.advance(opened(40, &[(0, 10), (10, 20), (20, 30)]));
        settle(&ledger, line(20, 30));
        drop(ledger);
        let path = folder.path().join("silktail.db");
        let good = std::fs::read(&path).unwrap();
        // Values that are text of our own, not SQLite's structure, are hit as well.
        let mut numbers = 1_u64;
        let mut chance = |end: usize| {
            numbers = numbers.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (numbers >> 33) as usize % end
        };
        for _ in 0..60 {
            let mut bytes = good.clone();
            for _ in 0..1 + chance(40) {
                let at = chance(bytes.len());
                bytes[at] = chance(256) as u8;
            }
            let _ = std::fs::remove_file(folder.path().join("silktail.db-wal"));
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(Some(reader)) = Ledger::open_read_only(folder.path()) {
                let _ = (reader.status(), reader.totals());
            }
            let Ok(ledger) = Ledger::open(folder.path(), Role::Daemon) else { continue };
            let _ = (ledger.logs(), ledger.touches(), ledger.position(Some(site), log), ledger.left_over(&[site]));
            let _ = (
                ledger.claim(Some(site), log, 100, &[(0, 100)], None),
                ledger.covered(Some(site), log),
                ledger.patterns(),
            );
        }
    }

    #[test]
    fn one_daemon_for_each_state() {
        let folder = tempfile::tempdir().unwrap();
        let first = Ledger::open(folder.path(), Role::Daemon).unwrap();
        assert!(matches!(Ledger::open(folder.path(), Role::Daemon), Err(LedgerError::Locked { .. })));
        drop(Ledger::open(folder.path(), Role::Beside).unwrap());
        drop(first);
        drop(Ledger::open(folder.path(), Role::Daemon).unwrap());
    }
}
