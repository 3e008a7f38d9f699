//! The patterns that were followed, and when all that lay under them was last known.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::{Ledger, LedgerError};

impl Ledger {
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
}
