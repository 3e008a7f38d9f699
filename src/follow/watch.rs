//! Wakes the follower when something happens in a directory; a poll stands behind it where notifications don't work.
//!
//! Directories are watched, not files: ten thousand logs in a hundred directories cost a hundred watches.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use notify::{EventKind, RecursiveMode, Watcher as _};

/// Why the follower wakes.
#[derive(Debug)]
pub enum Wake {
    /// These files have new bytes, perhaps.
    Written(Vec<PathBuf>),
    /// Names have come, gone or changed.
    Renamed,
    /// A site that was full has room again.
    Room,
    /// Another configuration holds for what is read from now on.
    Reload(Box<super::Wishes>),
    /// Read no further.
    Stop,
}

/// How often all files are looked at where notifications work; they may still be lost, on network file systems always.
pub const SAFETY_POLL: Duration = Duration::from_secs(10);
/// A look at a file takes some microseconds: with thousands of them it is taken less often, so that idling costs nothing.
const SAFETY_POLL_PER_FILE: Duration = Duration::from_millis(3);
const SAFETY_POLL_MAX: Duration = Duration::from_secs(30);
/// The same where a directory can't be watched.
pub const FALLBACK_POLL: Duration = Duration::from_millis(500);

/// The watches that are held now.
pub struct Watches {
    watcher: Option<notify::RecommendedWatcher>,
    /// With device and inode: a directory that was renamed takes its watch along.
    watched: BTreeMap<PathBuf, Option<(u64, u64)>>,
    failed: BTreeSet<PathBuf>,
    missed: Arc<AtomicBool>,
    /// Until when nobody listens.
    resting: Arc<Mutex<Option<Instant>>>,
    /// The longest time between two turns, whatever happens.
    longest: Duration,
}

impl std::fmt::Debug for Watches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watches").field("watched", &self.watched).field("failed", &self.failed).finish()
    }
}

impl Watches {
    /// Watches nothing yet; what happens is told to `wakes`.
    pub fn new(wakes: SyncSender<Wake>) -> Self {
        let missed = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&missed);
        let resting = Arc::new(Mutex::new(None));
        let rested = Arc::clone(&resting);
        let tell = move |event: notify::Result<notify::Event>| {
            let wake = match event {
                Ok(event) => match event.kind {
                    EventKind::Access(_) => return,
                    EventKind::Modify(notify::event::ModifyKind::Data(_)) => Wake::Written(event.paths),
                    _ => Wake::Renamed,
                },
                // Lost notifications: look at everything.
                Err(_) => Wake::Renamed,
            };
            // A full channel means that the follower is behind anyway: it looks at all files when it gets there.
            if wakes.try_send(wake).is_err() {
                told.store(true, Ordering::Release);
            }
            // The system makes one of all that happens to a file meanwhile.
            let until: Option<Instant> = *rested.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(left) = until.and_then(|until| until.checked_duration_since(Instant::now())) {
                std::thread::sleep(left);
            }
        };
        let watcher = notify::recommended_watcher(tell)
            .inspect_err(|error| {
                tracing::warn!(%error, hint = "files are polled instead", "can't watch for changes");
            })
            .ok();
        Self { watcher, watched: BTreeMap::new(), failed: BTreeSet::new(), missed, resting, longest: Duration::MAX }
    }

    /// Watches exactly these directories from now on. `true`: some of them weren't watched until now, and what happened
    /// in them a moment ago wasn't told.
    pub fn set(&mut self, directories: BTreeSet<PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let mut new = false;
        self.failed.retain(|path| directories.contains(path));
        let inode = |path: &PathBuf| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
        self.watched.retain(|path, watched| {
            let stays = directories.contains(path) && *watched == inode(path);
            if !stays {
                // It may be gone already, and the watch with it.
                let _ = watcher.unwatch(path);
            }
            stays
        });
        for path in directories {
            if self.watched.contains_key(&path) {
                continue;
            }
            let identity = inode(&path);
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    new = true;
                    self.failed.remove(&path);
                    self.watched.insert(path, identity);
                }
                Err(error) => {
                    if self.failed.insert(path.clone()) {
                        let hint = match error.kind {
                            notify::ErrorKind::MaxFilesWatch => "raise fs.inotify.max_user_watches; polled meanwhile",
                            _ => "its files are polled instead",
                        };
                        tracing::warn!(path = %path.display(), %error, hint, "can't watch directory");
                    }
                }
            }
        }
        new
    }

    /// Sleeps for a while, and so does what listens to the system: a busy log would wake it with each write.
    pub fn rest(&self, duration: Duration) {
        if duration.is_zero() {
            return;
        }
        *self.resting.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_add(duration);
        std::thread::sleep(duration);
    }

    /// Whether wakes were lost since the last call.
    pub fn missed(&self) -> bool {
        self.missed.swap(false, Ordering::AcqRel)
    }

    /// The same, with no longer between two turns than this: a watchdog waits for them.
    pub fn turning_within(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// How long the follower may sleep before it looks at all files, so many, by itself.
    pub fn poll_interval(&self, files: usize) -> Duration {
        if self.watcher.is_none() || !self.failed.is_empty() {
            return FALLBACK_POLL;
        }
        let files = u32::try_from(files).unwrap_or(u32::MAX);
        SAFETY_POLL.max(SAFETY_POLL_PER_FILE.saturating_mul(files)).min(SAFETY_POLL_MAX).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_written_while_nobody_listens_is_told_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("access.log");
        let mut log = std::fs::File::create(&path).unwrap();
        let (wakes, woken) = std::sync::mpsc::sync_channel(4_096);
        let mut watches = Watches::new(wakes);
        assert!(watches.set(BTreeSet::from([folder.path().canonicalize().unwrap()])));
        for rest in [0, 1, 20].map(Duration::from_millis) {
            std::thread::scope(|scope| {
                scope.spawn(|| (0..1_000).for_each(|_| log.write_all(b"a line\n").unwrap()));
                watches.rest(rest);
            });
            let is_ours = |wake: Wake| matches!(wake, Wake::Written(paths) if paths == [path.clone()]);
            assert!(is_ours(woken.recv_timeout(Duration::from_secs(60)).unwrap()), "{rest:?}");
            while woken.try_recv().is_ok() {}
            // Whatever is still to be told of those: one more write is told of, however long it rested.
            log.write_all(b"a line\n").unwrap();
            assert!(is_ours(woken.recv_timeout(Duration::from_secs(60)).unwrap()), "{rest:?}");
            assert!(!watches.missed());
        }
    }
}
