//! What is done while another process has the state locked: it is waited for, it is said, and a stop is obeyed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

/// How long another process's write is waited for: a backfill runs at the lowest priority, and may be stopped by whatever
/// else the machine does in the middle of one.
const BUSY: Duration = Duration::from_secs(60);
/// After so long it is said: it is no write of silktail's own then, but a lock that somebody holds.
const SAY_AFTER: Duration = Duration::from_secs(3);
/// How long it is waited for at a stop.
const AT_A_STOP: Duration = Duration::from_secs(2);
/// Milliseconds between two looks, the last of them again and again: as SQLite has it.
const PAUSES: [u64; 8] = [1, 2, 5, 10, 15, 20, 25, 50];

/// What to do about it.
pub(super) const REMEDY: &str = "end the other program: a sqlite3 shell, a backup; nothing is lost";

/// Whether this process was told to stop.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// From now on a lock on the state holds nobody up for long: this process was told to stop.
pub fn hurry() {
    STOPPING.store(true, Ordering::Relaxed);
}

/// The two connections of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// That of the writer's thread.
    Writer,
    /// That of questions and claims.
    Reader,
}

/// Which of a state's connections have been waiting for another process for so long that it was said.
#[derive(Debug)]
pub(super) struct Waits {
    path: PathBuf,
    writer: AtomicBool,
    reader: AtomicBool,
}

impl Waits {
    pub(super) fn new(path: &Path) -> Arc<Self> {
        Arc::new(Self { path: path.to_path_buf(), writer: AtomicBool::new(false), reader: AtomicBool::new(false) })
    }

    fn of(&self, who: Who) -> &AtomicBool {
        match who {
            Who::Writer => &self.writer,
            Who::Reader => &self.reader,
        }
    }

    /// Whether another process has the state locked.
    pub(super) fn are_long(&self) -> bool {
        self.writer.load(Ordering::Relaxed) || self.reader.load(Ordering::Relaxed)
    }

    /// What one of them waited for is over. `true`: it was said that it waits.
    pub(super) fn end(&self, who: Who) -> bool {
        let flag = self.of(who);
        // Nearly always it is not: no write to what others look at.
        flag.load(Ordering::Relaxed) && flag.swap(false, Ordering::Relaxed)
    }

    /// Has a connection wait so.
    pub(super) fn guide(self: &Arc<Self>, db: &mut Connection, who: Who) -> rusqlite::Result<()> {
        let waits = Arc::clone(self);
        let mut began = Instant::now();
        db.busy_handler(Some(move |tries: i32| {
            if tries == 0 {
                began = Instant::now();
            }
            waits.goes_on(who, began.elapsed(), usize::try_from(tries).unwrap_or(0))
        }))
    }

    /// Whether it is waited on; then some of the time has passed.
    fn goes_on(&self, who: Who, waited: Duration, tries: usize) -> bool {
        if waited >= SAY_AFTER && !self.of(who).load(Ordering::Relaxed) {
            if !self.are_long() {
                tracing::warn!(path = %self.path.display(), hint = REMEDY, "another process has the state locked, will keep trying");
            }
            self.of(who).store(true, Ordering::Relaxed);
        }
        if waited >= if STOPPING.load(Ordering::Relaxed) { AT_A_STOP } else { BUSY } {
            return false;
        }
        let pause = PAUSES.get(tries).or(PAUSES.last()).copied().unwrap_or(50);
        std::thread::sleep(Duration::from_millis(pause));
        true
    }
}
