//! What the daemon counts for its metrics, since its start. Cheap to add to; nothing happens until somebody asks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::ledger::Counts;
use crate::offsets::SiteId;
use crate::pipeline::FATES;

/// Lines by site (`None`: nobody's) and fate.
type Lines = BTreeMap<(Option<SiteId>, &'static str), u64>;
/// The same with the reason.
type Reasons = BTreeMap<(Option<SiteId>, &'static str, &'static str), u64>;

/// Counts and states that the daemon's threads leave here.
#[derive(Debug)]
pub struct Counters {
    lines: Mutex<Lines>,
    reasons: Mutex<Reasons>,
    /// Logs that were renamed or removed.
    pub rotations: AtomicU64,
    /// Logs that were truncated or overwritten.
    pub truncations: AtomicU64,
    /// Logs that are open.
    pub files: AtomicUsize,
    /// Logs that are there and can't be read.
    pub unreadable: AtomicUsize,
    /// Whether everything that can be opened has been.
    pub following: AtomicBool,
    /// When the follower last came round, in seconds since 1970.
    pub turned: AtomicI64,
    /// Whether the last reload was taken into use.
    pub reloaded: AtomicBool,
    /// When it was, in seconds since 1970.
    pub reloaded_at: AtomicI64,
    /// When the daemon started.
    pub started: Timestamp,
}

impl Default for Counters {
    fn default() -> Self {
        let now = Timestamp::now();
        Self {
            lines: Mutex::default(),
            reasons: Mutex::default(),
            rotations: AtomicU64::new(0),
            truncations: AtomicU64::new(0),
            files: AtomicUsize::new(0),
            unreadable: AtomicUsize::new(0),
            following: AtomicBool::new(false),
            turned: AtomicI64::new(now.as_second()),
            reloaded: AtomicBool::new(true),
            reloaded_at: AtomicI64::new(now.as_second()),
            started: now,
        }
    }
}

impl Counters {
    /// Adds the lines of a reading.
    pub fn add(&self, site: Option<SiteId>, counts: Counts) {
        let [_, by_fate @ ..] = counts.values();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for (fate, count) in FATES.into_iter().zip(by_fate).filter(|(_, count)| *count > 0) {
            *lines.entry((site, fate)).or_default() += count;
        }
    }

    /// Adds one line's reason.
    pub fn reason(&self, site: Option<SiteId>, fate: &'static str, reason: &'static str) {
        *self.reasons.lock().unwrap_or_else(PoisonError::into_inner).entry((site, fate, reason)).or_default() += 1;
    }

    /// Lines by site and fate.
    pub fn lines(&self) -> Lines {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lines by site, fate and reason.
    pub fn reasons(&self) -> Reasons {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The follower has come round.
    pub fn turn(&self, files: usize, unreadable: usize) {
        self.files.store(files, Ordering::Relaxed);
        self.unreadable.store(unreadable, Ordering::Relaxed);
        self.turned.store(Timestamp::now().as_second(), Ordering::Relaxed);
    }

    /// A reload was taken into use, or refused.
    pub fn reload(&self, applied: bool) {
        self.reloaded.store(applied, Ordering::Relaxed);
        if applied {
            self.reloaded_at.store(Timestamp::now().as_second(), Ordering::Relaxed);
        }
    }
}
