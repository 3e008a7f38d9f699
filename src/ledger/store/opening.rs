//! Opens the state, or begins it; nothing is guessed around.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::believed::Believed;
use super::error::database_error;
use super::queue::Shared;
use super::reader::LedgerReader;
use super::state::{
    VERSION, beside, connect, forget_if_possible, give_link_to_owner, give_to_owner, is_there, lay_out, prepare,
    refuse_links, refuse_network, remove_aside,
};
use super::waits::{Waits, Who};
use super::writing::Writing;
use super::{Ledger, LedgerError, Role, Writer};

/// How long opening is tried where SQLite can't open what lies there.
const OPENING: Duration = Duration::from_secs(2);
/// Memory for pages of the database, in KiB (negative, as SQLite has it): what checks or reads it as a whole seldom
/// comes back to a page.
pub(super) const READER_CACHE: i64 = -256;
pub(super) const WRITER_CACHE: i64 = -512;
/// What a daemon holds as long as it runs.
const DAEMON_LOCK: &str = "daemon.lock";
pub(super) const NO_STATE: &str = "it holds no state of silktail";

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
        // One for each role, which only one process has: what lies there is left over from one that was killed.
        let aside = match role {
            Role::Daemon => "silktail.db.new-daemon",
            Role::Beside => "silktail.db.new-backfill",
        };
        remove_aside(&state_dir.join(aside));
        if !is_there(&path)? {
            drop(private(state_dir, aside)?);
            lay_out(&state_dir.join(aside), &path)?;
        }
        let waits = Waits::new(&path);
        let mut writer = connect(&path, &waits, Who::Writer)?;
        let secret = prepare(&mut writer, &path)?;
        let believed = Believed::at_opening(&mut writer);
        // That can wait for another time.
        writer.busy_timeout(Duration::ZERO).map_err(|error| database_error(&path, error))?;
        forget_if_possible(&writer);
        waits.guide(&mut writer, Who::Writer).map_err(|error| database_error(&path, error))?;
        waits.end(Who::Writer);
        // Its tables are written to all over.
        writer.pragma_update(None, "cache_size", WRITER_CACHE).map_err(|error| database_error(&path, error))?;
        for name in ["silktail.db-wal", "silktail.db-shm"] {
            give_link_to_owner(state_dir, &state_dir.join(name));
        }
        let reader = Mutex::new(connect(&path, &waits, Who::Reader)?);
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            reader,
            waits,
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
                .spawn(move || Writing::new(shared, writer, believed).run())
                .map_err(trouble)?
        };
        let writer = Arc::new(Writer { shared: Arc::clone(&shared), thread: Mutex::new(Some(thread)) });
        Ok(Self { shared, _writer: writer })
    }

    /// Whether a daemon has the state now.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn has_a_daemon(&self) -> Result<bool, LedgerError> {
        let state_dir = self.shared.path.parent().unwrap_or(Path::new(""));
        let file = private(state_dir, DAEMON_LOCK)?;
        match file.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(LedgerError::Directory { path: state_dir.to_path_buf(), error }),
        }
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
        Role::Daemon => (DAEMON_LOCK, "daemon"),
        Role::Beside => ("backfill.lock", "backfill or `rejected`"),
    };
    let file = private(state_dir, name)?;
    let path = state_dir.to_path_buf();
    let mut locked = file.try_lock();
    // A backfill that asks whether there is a daemon has the place for a moment.
    for _ in 0..10 {
        if !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LedgerError::Locked { path, who }),
        Err(TryLockError::Error(error)) => Err(LedgerError::Directory { path, error }),
    }
}
