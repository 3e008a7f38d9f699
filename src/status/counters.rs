//! What the daemon counts for its metrics, since its start. Cheap to add to; nothing happens until somebody asks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::history::{History, Minute};
use super::logs::Logs;
use crate::ledger::Counts;
use crate::offsets::SiteId;
use crate::pipeline::FATES;

/// Names of logs that are told apart; what is counted of more goes to a nameless one.
pub const PATHS_MAX: usize = 500;

/// Lines by site (`None`: nobody's) and fate.
type Lines = BTreeMap<(Option<SiteId>, &'static str), u64>;
/// The same with the reason.
type Reasons = BTreeMap<(Option<SiteId>, &'static str, &'static str), u64>;

/// What has happened to the logs of each name.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// How often it was renamed or removed.
    pub rotations: u64,
    /// How often it was truncated or overwritten.
    pub truncations: u64,
    /// How often it was given up without being read to its end.
    pub given_up: u64,
    /// Bytes that are known to have been unread then.
    pub unread: u64,
}

/// All that has been counted, for the summary that is logged.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// Lines read.
    pub lines: u64,
    /// Events made of them.
    pub events: u64,
    /// Events delivered.
    pub delivered: u64,
    /// Events rejected.
    pub rejected: u64,
}

impl Sum {
    /// What came since an earlier sum.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            lines: self.lines - earlier.lines,
            events: self.events - earlier.events,
            delivered: self.delivered - earlier.delivered,
            rejected: self.rejected - earlier.rejected,
        }
    }
}

/// The last try to reload the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// Whether it was taken into use.
    pub applied: bool,
    /// When.
    pub at: Timestamp,
    /// Why not.
    pub error: Option<String>,
}

/// Counts and states that the daemon's threads leave here.
#[derive(Debug)]
pub struct Counters {
    lines: Mutex<Lines>,
    reasons: Mutex<Reasons>,
    lives: Mutex<BTreeMap<String, Life>>,
    history: Mutex<History>,
    sum: Mutex<Sum>,
    logs: Mutex<Logs>,
    reload: Mutex<Option<Reload>>,
    /// Logs that are open.
    pub files: AtomicUsize,
    /// Logs that are there and can't be read.
    pub unreadable: AtomicUsize,
    /// Whether everything that can be opened has been.
    pub following: AtomicBool,
    /// When the follower last came round, in seconds since 1970.
    pub turned: AtomicI64,
    /// When the configuration was last taken into use, in seconds since 1970.
    pub configured_at: AtomicI64,
    /// When the daemon started.
    pub started: Timestamp,
}

impl Default for Counters {
    fn default() -> Self {
        let now = Timestamp::now();
        Self {
            lines: Mutex::default(),
            reasons: Mutex::default(),
            lives: Mutex::default(),
            history: Mutex::default(),
            sum: Mutex::default(),
            logs: Mutex::default(),
            reload: Mutex::default(),
            files: AtomicUsize::new(0),
            unreadable: AtomicUsize::new(0),
            following: AtomicBool::new(false),
            turned: AtomicI64::new(now.as_second()),
            configured_at: AtomicI64::new(now.as_second()),
            started: now,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts stay true whatever happened to the thread that held them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The minute that it is, since 1970.
pub fn minute() -> i64 {
    Timestamp::now().as_second().div_euclid(60)
}

impl Counters {
    /// Adds the lines of a reading.
    pub fn add(&self, site: Option<SiteId>, counts: Counts) {
        let [_, by_fate @ ..] = counts.values();
        let mut lines = lock(&self.lines);
        for (fate, count) in FATES.into_iter().zip(by_fate).filter(|(_, count)| *count > 0) {
            *lines.entry((site, fate)).or_default() += count;
        }
        drop(lines);
        let mut history = lock(&self.history);
        let minute = history.at(minute());
        minute.lines += counts.lines;
        minute.events += counts.event;
        drop(history);
        let mut sum = lock(&self.sum);
        sum.lines += counts.lines;
        sum.events += counts.event;
    }

    /// Adds events that were settled.
    pub fn settled(&self, events: u64, rejected: bool) {
        let mut sum = lock(&self.sum);
        if rejected {
            sum.rejected += events;
            return;
        }
        sum.delivered += events;
        drop(sum);
        lock(&self.history).at(minute()).delivered += events;
    }

    /// Adds one line's reason.
    pub fn reason(&self, site: Option<SiteId>, fate: &'static str, reason: &'static str) {
        *lock(&self.reasons).entry((site, fate, reason)).or_default() += 1;
    }

    /// Something has happened to the log of a name.
    pub fn happened(&self, path: &Path, count: impl FnOnce(&mut Life)) {
        let mut lives = lock(&self.lives);
        let path = path.display().to_string();
        let name = if lives.len() < PATHS_MAX || lives.contains_key(&path) { path } else { String::new() };
        count(lives.entry(name).or_default());
    }

    /// Lines by site and fate.
    pub fn lines(&self) -> Lines {
        lock(&self.lines).clone()
    }

    /// Lines by site, fate and reason.
    pub fn reasons(&self) -> Reasons {
        lock(&self.reasons).clone()
    }

    /// What has happened to the logs, by name.
    pub fn lives(&self) -> BTreeMap<String, Life> {
        lock(&self.lives).clone()
    }

    /// All that was counted.
    pub fn sum(&self) -> Sum {
        *lock(&self.sum)
    }

    /// The last hours, minute by minute.
    pub fn history(&self) -> Vec<Minute> {
        lock(&self.history).last(minute())
    }

    /// The logs that are followed.
    pub fn logs(&self) -> MutexGuard<'_, Logs> {
        lock(&self.logs)
    }

    /// The follower has come round.
    pub fn turn(&self, files: usize, unreadable: usize) {
        self.files.store(files, Ordering::Relaxed);
        self.unreadable.store(unreadable, Ordering::Relaxed);
        self.turned.store(Timestamp::now().as_second(), Ordering::Relaxed);
    }

    /// A reload was taken into use, or refused: why.
    pub fn reload(&self, refused: Option<String>) {
        let at = Timestamp::now();
        if refused.is_none() {
            self.configured_at.store(at.as_second(), Ordering::Relaxed);
        }
        *lock(&self.reload) = Some(Reload { applied: refused.is_none(), at, error: refused });
    }

    /// The last reload, if there was one.
    pub fn last_reload(&self) -> Option<Reload> {
        lock(&self.reload).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_logs_are_bounded_and_nothing_is_lost_of_their_counts() {
        let counters = Counters::default();
        for log in 0..10_000 {
            counters.happened(Path::new(&format!("/var/log/{log}.log")), |life| life.rotations += 1);
        }
        counters.happened(Path::new("/var/log/7.log"), |life| life.truncations += 1);
        let lives = counters.lives();
        assert_eq!(lives.len(), PATHS_MAX + 1);
        assert_eq!(lives["/var/log/7.log"], Life { rotations: 1, truncations: 1, ..Life::default() });
        assert_eq!(lives.values().map(|life| life.rotations).sum::<u64>(), 10_000);
    }
}
