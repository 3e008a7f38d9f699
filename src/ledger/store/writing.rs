//! The writer's thread: everything that has come since its last commit, in one transaction.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::believed::Believed;
use super::logs::{LogRow, fingerprint_text};
use super::queue::{Committed, Queue, Settled, Shared, lock};
use super::ranges::settled_from;
use super::waits::{REMEDY, Who};
use super::{SYNC_AFTER, int, site_number, uint};
use crate::ledger::rejected::{self, Rejection};
use crate::ledger::{Advance, Counts, Progress, recent};
use crate::offsets::LogId;
use crate::visitor::repeats::Touch;

/// Entries of the repeat window that are stored at most.
const KEPT_MAX: i64 = 262_144;
/// Bytes of entries of the repeat window, and ends of lines that were sent, that are stored in the order of their commits
/// before they are sorted into their tables: each lies anywhere in those, and a commit writes every page that it has touched.
pub(super) const RECENT_MAX: usize = 8_192 * recent::ENTRY;

/// How often rejected events that are too old are looked for, where there are new ones.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Logs that are remembered to have ended while something of them is open.
const ENDED_MAX: usize = 16_384;

struct Open {
    row: i64,
    from: u64,
    until: Option<u64>,
    progress: Progress,
    counts: Counts,
    /// Events whose lines are in it.
    delivered: u64,
    dirty: bool,
}

impl Open {
    fn holds(&self, end: u64) -> bool {
        end > self.from && self.until.is_none_or(|until| end <= until)
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// The writer's thread and what it has in hand.
pub(super) struct Writing {
    shared: Arc<Shared>,
    db: Connection,
    ranges: HashMap<(i64, LogId), Vec<Open>>,
    dirty: HashSet<(i64, LogId)>,
    /// Logs that nobody reads any more.
    ended: HashSet<LogId>,
    touches: Vec<Touch>,
    logs: Vec<LogRow>,
    rejections: Vec<Rejection>,
    /// Events delivered of sites, the lines of which are in no range.
    strays: HashMap<i64, u64>,
    /// Settled lines of ranges that backfills read.
    sent: HashMap<i64, Vec<u64>>,
    unsynced: Option<Instant>,
    used: i64,
    /// Bytes that wait to be sorted in.
    recent: usize,
    /// When there are so many.
    sort_at: usize,
    stored_touches: i64,
    /// When rejected events that are too old were last looked for: all of them are, one by one.
    swept: Option<Instant>,
    /// Bytes of rejected events, as far as they are known here: other processes add some and take some away. They are counted
    /// where there are too many of them, and when they are looked through anyway.
    rejected: i64,
    /// By which rejected events are too old.
    believed: Believed,
    /// The database's file as it was opened, and when it was last looked whether that is what lies there.
    file: Option<(u64, u64)>,
    looked: Instant,
}

impl Writing {
    pub(super) fn new(shared: Arc<Shared>, db: Connection, believed: Believed) -> Self {
        let used = db.query_row("SELECT coalesce(max(used), 0) FROM kept", [], |row| row.get(0)).unwrap_or(0);
        let recent = recent::size(&db).unwrap_or(RECENT_MAX);
        let file = inode(&shared.path);
        Self {
            file,
            looked: Instant::now(),
            shared,
            db,
            ranges: HashMap::new(),
            dirty: HashSet::new(),
            ended: HashSet::new(),
            touches: Vec::new(),
            logs: Vec::new(),
            rejections: Vec::new(),
            strays: HashMap::new(),
            sent: HashMap::new(),
            unsynced: None,
            used,
            recent,
            sort_at: RECENT_MAX,
            // What earlier runs have left over the bound goes with the first that are sorted in.
            stored_touches: KEPT_MAX / 8,
            swept: None,
            rejected: 0,
            believed,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let mut work = self.wait();
            let mut answers: Vec<oneshot::Sender<Committed>> = Vec::new();
            let mut waiting = std::mem::take(&mut work.outcomes);
            let mut advances = std::mem::take(&mut work.advances);
            let mut pause = Duration::from_millis(50);
            let mut said = false;
            // Until it is all written: what can't be remembered isn't answered.
            loop {
                match self.write(&mut waiting, &mut advances, &mut work.logs, &mut answers) {
                    Ok(()) => break,
                    Err(error) => {
                        if !said {
                            let is_locked = error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy);
                            let hint = if is_locked {
                                REMEDY
                            } else {
                                "free disk space or mend the disk; nothing is sent until then"
                            };
                            tracing::error!(path = %self.shared.path.display(), %error, hint, "can't write the state, will keep trying");
                            said = true;
                        }
                        // Where it is the database's own log that has filled the disk, this makes room.
                        self.sync_to_disk();
                        if !self.wait_stuck(pause, &mut work.syncs) {
                            return;
                        }
                        pause = (pause * 2).min(Duration::from_secs(2));
                    }
                }
            }
            // Not before it is written: it would be said at each try that somebody has it locked.
            if self.shared.waits.end(Who::Writer) || said {
                lock(&self.shared.queue).stuck = false;
                tracing::info!(path = %self.shared.path.display(), "the state can be written again");
            }
            Committed::tell(answers);
            if !work.syncs.is_empty() {
                self.sync_to_disk();
            }
            for done in work.syncs {
                let _ = done.send(true);
            }
            if work.closed {
                self.sync_to_disk();
                return;
            }
        }
    }

    /// Waits for work, or for the time at which a commit must reach the disk: what can wait is written with it.
    fn wait(&mut self) -> Queue {
        let shared = Arc::clone(&self.shared);
        let mut queue = lock(&shared.queue);
        loop {
            let left = self.unsynced.map(|since| SYNC_AFTER.saturating_sub(since.elapsed()));
            let is_time = left.is_none_or(|left| left.is_zero());
            if queue.is_urgent() || (is_time && !queue.is_empty()) {
                let (closed, stuck, held_up) = (queue.closed, queue.stuck, queue.held_up);
                let work = std::mem::take(&mut *queue);
                (queue.closed, queue.stuck, queue.held_up) = (closed, stuck, held_up);
                drop(queue);
                if held_up > 0 {
                    shared.emptied.notify_all();
                }
                if self.unsynced.is_some_and(|since| since.elapsed() >= SYNC_AFTER) {
                    self.sync_to_disk();
                }
                return Queue { closed, ..work };
            }
            (queue.idle, queue.dozes) = (true, left.is_some());
            queue = match left {
                None => shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => {
                    queue.idle = false;
                    drop(queue);
                    self.sync_to_disk();
                    lock(&shared.queue)
                }
                Some(left) => shared.filled.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
            };
            queue.dozes = false;
        }
    }

    /// Waits before the next try; nobody is kept waiting for it. `false`: nobody needs it any more.
    fn wait_stuck(&self, pause: Duration, syncs: &mut Vec<std::sync::mpsc::Sender<bool>>) -> bool {
        let until = Instant::now() + pause;
        let mut queue = lock(&self.shared.queue);
        queue.stuck = true;
        self.shared.emptied.notify_all();
        loop {
            for done in syncs.drain(..).chain(queue.syncs.drain(..)) {
                // Whoever asked may be gone.
                let _ = done.send(false);
            }
            let left = until.saturating_duration_since(Instant::now());
            if queue.closed || left.is_zero() {
                return !queue.closed;
            }
            queue.idle = true;
            queue = self.shared.filled.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
            queue.idle = false;
        }
    }

    fn sync_to_disk(&mut self) {
        // A passive checkpoint syncs the log first. Where a reader is in the way the next one does it.
        match self.db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            Ok(()) => self.unsynced = None,
            Err(error) => {
                self.unsynced = Some(Instant::now());
                tracing::debug!(%error, "checkpoint put off");
            }
        }
    }

    fn write(
        &mut self,
        outcomes: &mut VecDeque<Settled>,
        advances: &mut VecDeque<Advance>,
        logs: &mut Vec<LogRow>,
        answers: &mut Vec<oneshot::Sender<Committed>>,
    ) -> rusqlite::Result<()> {
        // Into memory first, each item once; what is in memory is written below, again if it must be.
        while let Some((origins, _, _)) = outcomes.front() {
            for origin in origins {
                self.load((origin.site.0, origin.log), origin.line.end)?;
            }
            let Some((origins, rejections, done)) = outcomes.pop_front() else { break };
            for origin in &origins {
                let key = (origin.site.0, origin.log);
                let delivered = u64::from(rejections.is_empty());
                if let Some(open) = self.find(key, origin.line.end) {
                    open.progress.settle(origin.line.end);
                    open.delivered += delivered;
                    let range = open.until.map(|_| open.row);
                    self.touched(key, origin.line.end);
                    if let Some(range) = range {
                        self.sent.entry(range).or_default().push(origin.line.end);
                    }
                } else {
                    *self.strays.entry(origin.site.0).or_default() += delivered;
                }
            }
            self.rejections.extend(rejections);
            answers.extend(done);
        }
        while let Some(advance) = advances.front() {
            let key = (site_number(advance.site), advance.log);
            let end = advance.read_to;
            self.load(key, end)?;
            let Some(advance) = advances.pop_front() else { break };
            if let Some(open) = self.find(key, end) {
                open.progress.advance(advance);
                self.touched(key, end);
            }
        }
        self.logs.append(logs);
        self.commit()
    }

    /// What is in memory is in the state now. What has nothing open, and gets nothing more, is let go: if it does after all,
    /// it is loaded again.
    fn let_go(&mut self) {
        let mut newly_ended = false;
        for row in &self.logs {
            newly_ended |= row.ended && self.ended.insert(row.id);
            if !row.ended {
                self.ended.remove(&row.id);
            }
        }
        let mut asked: Vec<(i64, LogId)> = Vec::with_capacity(self.dirty.len());
        for key in self.dirty.drain() {
            for open in self.ranges.get_mut(&key).into_iter().flatten() {
                open.dirty = false;
            }
            asked.push(key);
        }
        if newly_ended {
            asked.extend(self.ranges.keys().filter(|(_, log)| self.ended.contains(log)));
        }
        for key in asked {
            let is_done = |open: &Open| {
                let is_read =
                    self.ended.contains(&key.1) || open.until.is_some_and(|until| open.progress.watermark() >= until);
                is_read && open.progress.has_nothing_open()
            };
            if self.ranges.get(&key).is_some_and(|all| all.iter().all(is_done)) {
                self.ranges.remove(&key);
            }
        }
        // What is still open of one of them stays for this run.
        if self.ended.len() > ENDED_MAX {
            self.ended.clear();
        }
    }

    fn find(&mut self, key: (i64, LogId), end: u64) -> Option<&mut Open> {
        self.ranges.get_mut(&key)?.iter_mut().find(|open| open.holds(end))
    }

    /// Makes sure that the range that holds an offset is in memory.
    fn load(&mut self, key: (i64, LogId), end: u64) -> rusqlite::Result<()> {
        if self.find(key, end).is_some() {
            return Ok(());
        }
        let known: HashSet<i64> = self.ranges.get(&key).into_iter().flatten().map(|open| open.row).collect();
        let mut query = self.db.prepare_cached(
            "SELECT id, from_offset, until_offset, watermark, settled, lines, too_long, unparsed, unmatched, excluded, bot, repeat, event,
             delivered FROM range WHERE site = ?1 AND log = ?2",
        )?;
        let rows = query.query_map(params![key.0, key.1.0], |row| {
            let until: Option<i64> = row.get(2)?;
            let mut values = [0; 8];
            for (index, value) in values.iter_mut().enumerate() {
                *value = uint(row.get(5 + index)?);
            }
            Ok(Open {
                row: row.get(0)?,
                from: uint(row.get(1)?),
                until: until.map(uint),
                progress: Progress::resume(uint(row.get(3)?), settled_from(&row.get::<_, String>(4)?)),
                counts: Counts::from_values(values),
                delivered: uint(row.get(13)?),
                dirty: false,
            })
        })?;
        let mut new = Vec::new();
        for row in rows {
            let row = row?;
            if !known.contains(&row.row) {
                new.push(row);
            }
        }
        drop(query);
        self.ranges.entry(key).or_default().extend(new);
        Ok(())
    }

    /// The range that holds an offset was changed, and no other: the log's others are other processes' perhaps, and what
    /// is known of those here is from when they were loaded.
    fn touched(&mut self, key: (i64, LogId), end: u64) {
        let Some(open) = self.find(key, end) else { return };
        let (counts, released) = open.progress.take_released();
        open.counts += counts;
        open.dirty = true;
        self.dirty.insert(key);
        self.touches.extend(released);
    }

    /// What is written to a file that was removed or replaced is gone with the next start, and nobody would notice before.
    fn is_still_there(&mut self) -> rusqlite::Result<()> {
        if self.looked.elapsed() < SYNC_AFTER {
            return Ok(());
        }
        if self.file.is_some() && inode(&self.shared.path) != self.file {
            let moved = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY_DBMOVED);
            let what = "the state's file was removed or replaced: put it back, or restart silktail to begin anew";
            return Err(rusqlite::Error::SqliteFailure(moved, Some(what.to_owned())));
        }
        self.looked = Instant::now();
        Ok(())
    }

    /// One transaction with all that is new in memory.
    fn commit(&mut self) -> rusqlite::Result<()> {
        if self.dirty.is_empty() && self.logs.is_empty() && self.rejections.is_empty() && self.strays.is_empty() {
            return Ok(());
        }
        self.is_still_there()?;
        let change = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (mut used, mut recent, mut stored) = (self.used, self.recent, self.stored_touches);
        let (mut swept, mut rejected) = (self.swept, self.rejected);
        {
            let mut update = change.prepare_cached(
                "UPDATE range SET watermark = ?2, settled = ?3, lines = ?4, too_long = ?5, unparsed = ?6, unmatched = ?7,
                 excluded = ?8, bot = ?9, repeat = ?10, event = ?11, delivered = ?12 WHERE id = ?1",
            )?;
            for key in &self.dirty {
                for open in self.ranges.get(key).into_iter().flatten().filter(|open| open.dirty) {
                    let settled: Vec<u64> = open.progress.settled_above().collect();
                    let settled = serde_json::to_string(&settled).unwrap_or_else(|_| "[]".to_owned());
                    let [lines, too_long, unparsed, unmatched, excluded, bot, repeat, event] =
                        open.counts.values().map(int);
                    update.execute(params![
                        open.row,
                        int(open.progress.watermark()),
                        settled,
                        lines,
                        too_long,
                        unparsed,
                        unmatched,
                        excluded,
                        bot,
                        repeat,
                        event,
                        int(open.delivered)
                    ])?;
                }
            }
            recent += recent::append(&change, &self.touches, &self.sent)?;
            if recent >= self.sort_at {
                // It takes room on the disk; where there is none, things go on without it for a while.
                self.sort_at = recent.saturating_add(RECENT_MAX);
                stored += recent::sort_in(&change, &mut used)?;
                (recent, self.sort_at) = (0, RECENT_MAX);
            }
            let mut log = change.prepare_cached(
                "UPDATE log SET path = ?2, dev = ?3, ino = ?4, fingerprint = ?5, format = ?6, last_read = ?7, ended = ?8 WHERE id = ?1",
            )?;
            for row in &self.logs {
                log.execute(params![
                    row.id.0,
                    row.path.as_os_str().as_bytes(),
                    row.dev.cast_signed(),
                    row.ino.cast_signed(),
                    fingerprint_text(row),
                    row.format.as_deref(),
                    row.last_read.map(Timestamp::as_microsecond),
                    row.ended
                ])?;
            }
            let mut stray = change.prepare_cached("UPDATE site SET delivered = delivered + ?2 WHERE id = ?1")?;
            for (site, delivered) in &self.strays {
                stray.execute(params![site, int(*delivered)])?;
            }
            let now = Timestamp::now().as_second();
            let mut reject = change.prepare_cached(
                "INSERT INTO rejected (site, log, line_end, at, status, reason, event) VALUES (?1,?2,?3,?4,?5,?6,?7)",
            )?;
            for rejection in &self.rejections {
                rejected += rejection.size();
                let Rejection { origin, status, reason, event } = rejection;
                reject.execute(params![
                    origin.site.0,
                    origin.log.0,
                    int(origin.line.end),
                    now,
                    status,
                    reason,
                    event
                ])?;
            }
            if !self.rejections.is_empty() {
                if swept.is_none_or(|at| at.elapsed() >= SWEEP_EVERY) {
                    let oldest = self.believed.now() - rejected::SECONDS;
                    change.execute("DELETE FROM rejected WHERE at < ?1", [oldest])?;
                    rejected = rejected::size(&change)?;
                    swept = Some(Instant::now());
                }
                let mut surplus = change
                    .execute("DELETE FROM rejected WHERE id <= (SELECT max(id) FROM rejected) - ?1", [rejected::MAX])?;
                if rejected > rejected::MAX_BYTES {
                    rejected = rejected::size(&change)?;
                }
                if rejected > rejected::MAX_BYTES {
                    // Some more go than must, so that they needn't be counted again with the next.
                    surplus += rejected::forget_beyond(&change, rejected::MAX_BYTES / 16 * 15)?;
                    rejected = rejected::size(&change)?;
                }
                if surplus > 0 {
                    let hint = "`silktail rejected list` shows why events are refused; mend it, then `rejected retry`";
                    tracing::error!(events = surplus, hint, "too many rejected events, the oldest are gone");
                }
            }
            self.believed.look(&change)?;
            if stored > KEPT_MAX / 8 {
                change.execute(
                    "DELETE FROM kept WHERE used <= (SELECT used FROM kept ORDER BY used DESC LIMIT 1 OFFSET ?1)",
                    [KEPT_MAX],
                )?;
                stored = 0;
            }
        }
        change.commit()?;
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.shared.last_commit.store(Timestamp::now().as_second(), Ordering::Relaxed);
        (self.used, self.recent, self.stored_touches) = (used, recent, stored);
        (self.swept, self.rejected) = (swept, rejected);
        self.let_go();
        self.touches.clear();
        self.logs.clear();
        self.rejections.clear();
        self.strays.clear();
        self.sent.clear();
        self.unsynced.get_or_insert_with(Instant::now);
        Ok(())
    }
}
