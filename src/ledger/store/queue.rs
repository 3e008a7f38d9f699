//! What waits for the writer, and who waits for it.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::waits::Waits;
use super::{Ledger, LedgerError, LogRow};
use crate::ledger::Advance;
use crate::ledger::rejected::Rejection;
use crate::offsets::Origin;

/// Advances that may wait for the writer before reading stops.
pub(super) const QUEUE: usize = 64;

/// How often whoever is held up looks whether the writer is, too.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Lines that are settled, those of them that were rejected, and who waits for the commit.
pub(super) type Settled = (Vec<Origin>, Vec<Rejection>, Option<oneshot::Sender<Committed>>);

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) outcomes: VecDeque<Settled>,
    pub(super) advances: VecDeque<Advance>,
    pub(super) logs: Vec<LogRow>,
    pub(super) syncs: Vec<std::sync::mpsc::Sender<bool>>,
    /// The last try to write has failed.
    pub(super) stuck: bool,
    pub(super) closed: bool,
    /// The writer waits for work: else it needn't be woken, which costs a system call each time.
    pub(super) idle: bool,
    /// It will wake by itself within [`SYNC_AFTER`].
    pub(super) dozes: bool,
    /// Somebody holds a [`Waking`].
    pub(super) to_be_woken: bool,
    /// Threads that wait for the writer to take what there is.
    pub(super) held_up: usize,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) queue: Mutex<Queue>,
    pub(super) filled: Condvar,
    pub(super) emptied: Condvar,
    /// For questions and claims; the writer has a connection of its own.
    pub(super) reader: Mutex<Connection>,
    pub(super) waits: Arc<Waits>,
    pub(super) path: PathBuf,
    pub(super) secret: [u8; 16],
    /// Commits so far, and when the last one was, in seconds since 1970.
    pub(super) commits: AtomicU64,
    pub(super) last_commit: AtomicI64,
    pub(super) _lock: File,
}

impl Queue {
    /// Whether something must be written now: somebody waits for it, or it has become much. What was merely read can wait
    /// for company: if it is lost it is read again.
    pub(super) fn is_urgent(&self) -> bool {
        !self.outcomes.is_empty() || !self.syncs.is_empty() || self.closed || self.advances.len() >= QUEUE / 2
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_urgent() && self.advances.is_empty() && self.logs.is_empty()
    }
}

impl Shared {
    /// There is work for the writer that can wait for as long as that dozes.
    pub(super) fn wake_in_time(&self, queue: MutexGuard<'_, Queue>) {
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
    pub(super) fn tell(mut waiting: Vec<oneshot::Sender<Committed>>) {
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

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the mutexes guard is replaced whole or only added to: it stays true when a holder panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// Takes what was read; waits while the writer is far behind.
    pub fn advance(&self, advance: Advance) {
        let mut queue = lock(&self.shared.queue);
        // A writer that is stuck isn't waited for, or nobody could stop us; the follower reads no more meanwhile. One that
        // waits for another process can't tell.
        while queue.advances.len() >= QUEUE && !queue.closed && !queue.stuck && !self.shared.waits.are_long() {
            queue.held_up += 1;
            let waited = self.shared.emptied.wait_timeout(queue, LOOK_EVERY);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
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
        self.shared.waits.are_long() || lock(&self.shared.queue).stuck
    }

    /// Why the state can't be written now, if it can't.
    pub fn trouble(&self) -> Option<&'static str> {
        if self.shared.waits.are_long() {
            return Some("another process has the state locked: a sqlite3 shell, a backup?");
        }
        lock(&self.shared.queue).stuck.then_some("the state can't be written: is the disk full?")
    }
}
