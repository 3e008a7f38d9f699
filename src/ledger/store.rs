//! The ledger's storage: one SQLite database in `state_dir`, one thread that writes.
//!
//! The writer commits whatever has come since its last commit, outcomes before advances, and answers an outcome only
//! when it is committed. What was merely read waits for an outcome, for a second at most: if it is lost, it is read again.
//! It syncs to disk at most one second after a commit. A commit that fails (a full disk) is tried
//! again until it works; meanwhile nothing is answered, so nothing is sent that could not be remembered.

mod believed;
mod error;
mod logs;
mod opening;
mod patterns;
mod queue;
mod ranges;
mod reader;
mod state;
mod waits;
mod writing;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;

pub use error::LedgerError;
pub use logs::LogRow;
pub use queue::{Committed, Waking};
pub use ranges::{Begun, Position, Range};
pub use reader::{LedgerReader, SiteTotal, StatusRow};
pub use waits::hurry;

use super::{recent, rejected};
use crate::offsets::{LogId, Origin, SiteId, Span};
use crate::visitor::repeats::{Kept, Key, Touch};
use error::database_error;
use queue::{Shared, lock};
use waits::Who;

/// A commit reaches the disk after this long at most.
const SYNC_AFTER: Duration = Duration::from_secs(1);
/// Where the log's own row stands in place of a site's.
const OWN: i64 = 0;

/// What a process may do with the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `run`: one for each state directory.
    Daemon,
    /// `backfill`: beside the daemon.
    Beside,
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

fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

impl Ledger {
    /// Keys the hashes of the repeat window.
    pub fn secret(&self) -> [u8; 16] {
        self.shared.secret
    }

    fn ask<T>(&self, question: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, LedgerError> {
        let mut db = lock(&self.shared.reader);
        let answer = question(&mut db);
        self.shared.waits.end(Who::Reader);
        answer.map_err(|error| database_error(&self.shared.path, error))
    }

    /// Makes sure that there is room for the outcomes of what is in flight, before anything is sent: who finds out only then
    /// that there is none sends the same at the next start, and at the one after that.
    ///
    /// # Errors
    /// [`LedgerError::NoRoom`].
    pub fn has_room(&self) -> Result<(), LedgerError> {
        let path = &self.shared.path;
        match path.parent().is_none_or(state::has_room) {
            true => Ok(()),
            false => Err(LedgerError::NoRoom(path.clone())),
        }
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
}

fn site_number(site: Option<SiteId>) -> i64 {
    site.map_or(OWN, |site| site.0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use jiff::SignedDuration;
    use tokio::sync::oneshot;

    use super::queue::Committed;
    use super::ranges::insert_range;
    use super::state::forget;
    use super::writing::RECENT_MAX;
    use super::*;
    use crate::ledger::rejected::Rejection;
    use crate::ledger::{Advance, Counts, Fingerprint, Step};

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
        backfill.claim((Some(site), log), true, 100, &[(0, 100)], Some(1)).unwrap();
        assert_eq!(daemon.follow(Some(site), log, 0, 100).unwrap().at, 100);
        let position = || daemon.position(Some(site), log).unwrap().unwrap().watermark;
        let left = |size| {
            let left = backfill.claim((Some(site), log), true, size, &[(0, size)], Some(1)).unwrap();
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
        let again = backfill.claim((Some(site), log), true, 100, &[(0, 100)], Some(2)).unwrap();
        assert_eq!(again[0].settled, (1..=6).map(|line| line * 10).collect::<Vec<_>>(), "none is to be sent again");
        assert_eq!(totals(&daemon), [(13, 0)]);
    }

    #[test]
    fn a_backfill_takes_what_no_other_has() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), Role::Beside).unwrap();
        let (site, log) = (ledger.site("docs").unwrap(), add_log(&ledger, &row()));
        begin(&ledger, Some(site), log, 100, None);
        let claim = |wanted: &[(u64, u64)]| ledger.claim((Some(site), log), true, 150, wanted, None).unwrap();
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
        let claim = |log, size| ledger.claim((Some(site), log), true, size, &[(0, size)], None).unwrap();
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
        let claimed = backfill.claim((Some(site), log), true, 100, &[(0, 100)], None).unwrap();
        assert_eq!(claimed, [Range { from: 0, until: 100, settled: vec![], resumed: false }]);
        assert_eq!(daemon.follow(Some(site), log, 0, 120).unwrap(), Begun { at: 100, gap: None });
        assert_eq!(backfill.claim((Some(site), log), true, 120, &[(0, 120)], None).unwrap()[0].until, 100);
        assert_eq!(backfill.claim((None, log), true, 120, &[(0, 120)], None).unwrap()[0].until, 120, "the log's own");
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
    fn rejected_events_are_bounded_in_bytes_and_read_a_page_at_a_time() {
        const ONE: usize = 32 * 1024;
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), Role::Daemon).unwrap();
        let (site, log) = (ledger.site("docs").unwrap(), add_log(&ledger, &row()));
        begin(&ledger, Some(site), log, 0, None);
        let event = |padding: usize| {
            let url = "x".repeat(padding);
            format!(
                r#"{{"ip":"192.0.2.1","user_agent":"","view_width":null,"page":"","event":"download","url":"{url}","properties":[]}}"#
            )
        };
        let refuse = |numbers: std::ops::Range<u64>, padding: usize| {
            let lines: Vec<Origin> = numbers.map(|number| line(10 * number, 10 * (number + 1))).collect();
            let refused = |origin: &Origin| Rejection {
                origin: *origin,
                status: Some(400),
                reason: "no".to_owned(),
                event: event(padding),
            };
            let (done, committed) = oneshot::channel();
            drop(ledger.settle(lines.clone(), lines.iter().map(refused).collect(), done));
            committed.blocking_recv().unwrap();
        };
        let kept = || {
            let reader = Ledger::open_read_only(folder.path()).unwrap().unwrap();
            reader.rejected(None).map(|rejected| rejected.map(|one| one.id)).collect::<Result<Vec<_>, _>>().unwrap()
        };
        let size = || ledger.ask(|db| rejected::size(db)).unwrap();
        refuse(0..250, 0);
        assert_eq!(kept(), (1..=250).collect::<Vec<_>>(), "of several pages");
        let many = rejected::MAX_BYTES as u64 / ONE as u64;
        refuse(250..many, ONE);
        assert_eq!(kept().len() as u64, many, "there is room for them");
        // What another process has forgotten is counted no more.
        ledger.ask(|db| db.execute("DELETE FROM rejected WHERE id > ?1 - 300", [many.cast_signed()])).unwrap();
        refuse(many..many + 290, ONE);
        assert_eq!(kept().len() as u64, many - 10);
        assert!(size() <= rejected::MAX_BYTES, "{}", size());
        refuse(many + 290..many + 900, ONE);
        let left = kept();
        assert!(size() <= rejected::MAX_BYTES && left[0] > 250 && left.len() as u64 > many / 2, "{}", left.len());
        assert_eq!(*left.last().unwrap() as u64, many + 900, "the oldest go first");
        ledger.ask(|db| db.execute("UPDATE rejected SET event = '{' WHERE id < 1500", [])).unwrap();
        assert_eq!(kept(), left.into_iter().filter(|id| *id >= 1_500).collect::<Vec<_>>(), "what can be read");
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
                ledger.claim((Some(site), log), true, 100, &[(0, 100)], None),
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
