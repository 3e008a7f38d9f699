//! By what time it is decided what is old enough to be forgotten: the wall clock's, but never on its word alone.
//!
//! A clock may be years ahead for one start (no battery, a wrong answer from the network), and what was forgotten by it is
//! gone. So the state keeps a time that it believes. While the state is open that goes on as time passes, by the clock that
//! nobody can set. Where the wall clock shows more (the state was closed for a while, or the clock is wrong) it must have stood by
//! it for [`STANDS`]: then what it showed at first is believed. A clock that shows less is believed at once, since
//! nothing is forgotten too early by it.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

/// How long the wall clock must have stood by what it shows, in seconds.
const STANDS: i64 = 7 * 24 * 3600;
/// How often it is looked at while the state is open.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// The time that is believed.
#[derive(Debug)]
pub(super) struct Believed {
    /// Seconds since 1970, at the last look.
    at: i64,
    looked: Instant,
}

impl Believed {
    /// At an opening. Where nothing can be written or read (a full disk) it is the beginning of all time, before which nothing is.
    pub(super) fn at_opening(db: &mut Connection) -> Self {
        let now = Timestamp::now().as_second();
        let look = |db: &mut Connection| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let at = look(&change, 0, now)?;
            change.commit().map(|()| at)
        };
        let at = look(db).unwrap_or_else(|error: rusqlite::Error| {
            tracing::debug!(%error, "nothing is forgotten");
            0
        });
        Self { at, looked: Instant::now() }
    }

    /// Now, in seconds since 1970.
    pub(super) fn now(&self) -> i64 {
        let passed = i64::try_from(self.looked.elapsed().as_secs()).unwrap_or(0);
        self.at.saturating_add(passed).min(Timestamp::now().as_second())
    }

    /// From time to time, with what is being written.
    pub(super) fn look(&mut self, change: &Connection) -> rusqlite::Result<()> {
        if self.looked.elapsed() >= LOOK_EVERY {
            *self = Self { at: look(change, self.now(), Timestamp::now().as_second())?, looked: Instant::now() };
        }
        Ok(())
    }
}

/// What was believed when the clock was looked at last; the beginning of all time where it never was.
pub(super) fn at_last_look(db: &Connection) -> rusqlite::Result<Timestamp> {
    let at = get(db, "believed")?.and_then(|at| Timestamp::from_second(at).ok());
    Ok(at.unwrap_or(Timestamp::MIN))
}

fn get(db: &Connection, key: &str) -> rusqlite::Result<Option<i64>> {
    db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

/// Looks at the clock, and remembers what is to be believed, which it gives; `passed`: what is already, since time has passed.
pub(super) fn look(db: &Connection, passed: i64, now: i64) -> rusqlite::Result<i64> {
    let (believed, seen) = match (get(db, "believed")?, get(db, "seen")?) {
        (Some(believed), Some(seen)) => judge(believed.max(passed), seen, now),
        // A state that is new, or of a version that didn't look: it was written to at some time.
        _ => {
            let written = "SELECT max(at) FROM (SELECT max(last_read) / 1000000 AS at FROM log UNION SELECT max(at) FROM rejected)";
            let written: Option<i64> = db.query_row(written, [], |row| row.get(0))?;
            (written.map_or(now, |at| at.min(now)), now)
        }
    };
    let mut set = db.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?;
    set.execute(params!["believed", believed])?;
    set.execute(params!["seen", seen])?;
    Ok(believed)
}

/// What is believed after a look at the clock, and since when the clock has stood by what it shows.
fn judge(believed: i64, seen: i64, now: i64) -> (i64, i64) {
    match now.saturating_sub(seen) {
        // It was ahead then, or is behind now.
        ..0 => (believed.min(now), now),
        0..STANDS => (believed.min(now), seen),
        _ => (believed.max(seen).min(now), now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;
    const YEAR: i64 = 365 * DAY;

    #[test]
    fn a_clock_that_is_wrong_for_less_than_a_week_makes_nothing_old() {
        // Days at which the state is opened, what the clock is wrong by then, and how many days behind what is believed may be.
        type Openings = &'static [(i64, i64, i64)];
        let plays: [(&str, Openings); 5] = [
            ("right", &[(0, 0, 0), (1, 0, 1), (7, 0, 7), (14, 0, 7), (15, 0, 8), (90, 0, 76)]),
            ("ahead once", &[(0, 0, 0), (30, 5 * YEAR, 30), (31, 0, 31), (38, 0, 7), (45, 0, 7)]),
            (
                "ahead for some days",
                &[(0, 0, 0), (30, 5 * YEAR, 30), (32, 5 * YEAR, 32), (36, 5 * YEAR, 36), (37, 0, 37), (44, 0, 7)],
            ),
            ("ahead at first", &[(0, 5 * YEAR, -5 * YEAR / DAY), (1, 0, 0), (8, 0, 7)]),
            (
                "behind once",
                &[(0, 0, 0), (30, -50 * YEAR, 30 + 50 * YEAR / DAY), (31, 0, 31 + 50 * YEAR / DAY), (38, 0, 7)],
            ),
        ];
        for (name, openings) in plays {
            let db = Connection::open_in_memory().unwrap();
            db.execute_batch(include_str!("../schema.sql")).unwrap();
            let began = 60 * YEAR;
            for (day, wrong, behind) in openings {
                let now = began + day * DAY;
                let believed = look(&db, 0, now + wrong).unwrap();
                assert!(believed <= now.max(now + wrong), "{name}, day {day}");
                assert!(now - believed <= behind * DAY, "{name}, day {day}: {} behind", (now - believed) / DAY);
                assert!(name == "ahead at first" || believed <= now, "{name}, day {day}");
            }
        }
    }

    #[test]
    fn time_that_passes_while_the_state_is_open_is_believed() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(include_str!("../schema.sql")).unwrap();
        assert_eq!(look(&db, 0, 100 * DAY).unwrap(), 100 * DAY);
        // Closed for a month; then the clock has stood by it for a week.
        assert_eq!(look(&db, 0, 130 * DAY).unwrap(), 100 * DAY);
        assert_eq!(look(&db, 103 * DAY, 133 * DAY).unwrap(), 103 * DAY);
        assert_eq!(look(&db, 107 * DAY, 137 * DAY).unwrap(), 130 * DAY);
        assert_eq!(look(&db, 136 * DAY, 143 * DAY).unwrap(), 136 * DAY);
    }

    #[test]
    fn a_state_that_nobody_has_looked_at_is_as_old_as_what_was_written_to_it_last() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(include_str!("../schema.sql")).unwrap();
        let insert = "INSERT INTO log (path, dev, ino, fingerprint, last_read) VALUES (x'', 0, 0, '', ?1)";
        db.execute(insert, [7_000_000 * DAY]).unwrap();
        db.execute(
            "INSERT INTO rejected (site, log, line_end, at, reason, event) VALUES (1, 1, 1, ?1, '', '')",
            [9 * DAY],
        )
        .unwrap();
        assert_eq!(look(&db, 0, 5 * YEAR).unwrap(), 9 * DAY);
    }
}
