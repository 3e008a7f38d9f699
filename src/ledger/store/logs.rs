//! What is known of logs: which there are, by what each is told, and whether it is still followed.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, TransactionBehavior, params};

use super::ranges::insert_range;
use super::state::forget_if_possible;
use super::{Ledger, LedgerError, queue::lock};
use crate::ledger::Fingerprint;
use crate::ledger::outline::{self, Outline, Request};
use crate::offsets::{LogId, SiteId};

/// How many logs are added before the next look at what can be forgotten.
pub(super) const FORGET_EVERY: i64 = 256;

/// `ended` of a log that was followed and can't be found any more.
pub(super) const GIVEN_UP: i64 = 2;
const SELECT_LOG: &str = "SELECT id, path, dev, ino, fingerprint, format, last_read, ended FROM log";

/// What is known of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRow {
    /// The ledger's number for it.
    pub id: LogId,
    /// Its last name. Shared with those that follow it: ten thousand logs have long ones.
    pub path: Arc<Path>,
    /// Device number, a hint.
    pub dev: u64,
    /// Inode number, a hint.
    pub ino: u64,
    /// Who it is.
    pub fingerprint: Fingerprint,
    /// The format that `auto` decided on; shared like the name.
    pub format: Option<Arc<str>>,
    /// When it was last read from.
    pub last_read: Option<Timestamp>,
    /// Read to its end and closed; nobody writes to it any more.
    pub ended: bool,
}

impl Ledger {
    /// The logs, in the order in which they were taken in.
    ///
    /// # Errors
    /// Those of the database.
    pub fn logs(&self) -> Result<Vec<LogRow>, LedgerError> {
        let mut rows = Vec::new();
        self.each_log(|row| rows.push(row))?;
        Ok(rows)
    }

    /// The same, one by one; `take` can't ask the ledger itself.
    ///
    /// # Errors
    /// Those of the database.
    pub fn each_log(&self, mut take: impl FnMut(LogRow)) -> Result<(), LedgerError> {
        // What waits to be written is part of what is known.
        self.sync()?;
        self.ask(|db| {
            let mut query = db.prepare(&format!("{SELECT_LOG} ORDER BY id"))?;
            let rows = query.query_map([], log_row)?;
            for row in rows {
                take(row?);
            }
            drop(query);
            // The pages that were gone through lie among the rows, and won't be asked for again.
            db.execute_batch("PRAGMA shrink_memory")
        })
    }

    /// Gives back the memory of what was asked for.
    ///
    /// # Errors
    /// Those of the database.
    pub fn let_go(&self) -> Result<(), LedgerError> {
        self.ask(|db| db.execute_batch("PRAGMA shrink_memory"))
    }

    /// One of them, as far as it is committed.
    ///
    /// # Errors
    /// Those of the database.
    pub fn log(&self, id: LogId) -> Result<Option<LogRow>, LedgerError> {
        self.ask(|db| db.prepare_cached(&format!("{SELECT_LOG} WHERE id = ?1"))?.query_row([id.0], log_row).optional())
    }

    /// Takes a new log in and gives it its number; `None`: another process has taken one in since `newest` was the newest,
    /// and it may be the same.
    ///
    /// A log that is followed is so from an offset on, in the same transaction: one that was only taken in would be known
    /// after a crash, and nobody would look for it.
    ///
    /// # Errors
    /// Those of the database.
    pub fn add_log(
        &self,
        row: &LogRow,
        newest: LogId,
        followed_from: Option<u64>,
    ) -> Result<Option<LogId>, LedgerError> {
        self.ask(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let last: i64 = change.query_row("SELECT coalesce(max(id), 0) FROM log", [], |row| row.get(0))?;
            if last > newest.0 {
                return Ok(None);
            }
            change.execute(
                "INSERT INTO log (path, dev, ino, fingerprint, format, last_read, ended) VALUES (?1,?2,?3,?4,?5,?6,?7)",
                params![
                    row.path.as_os_str().as_bytes(),
                    row.dev.cast_signed(),
                    row.ino.cast_signed(),
                    fingerprint_text(row),
                    row.format.as_deref(),
                    row.last_read.map(Timestamp::as_microsecond),
                    row.ended
                ],
            )?;
            let id = change.last_insert_rowid();
            if let Some(from) = followed_from {
                insert_range(&change, None, LogId(id), from, None, None)?;
            }
            change.commit()?;
            if id % FORGET_EVERY == 0 {
                forget_if_possible(db);
            }
            Ok(Some(LogId(id)))
        })
    }

    /// Stores what is known of a log, in order with its advances.
    pub fn update_log(&self, row: LogRow) {
        let mut queue = lock(&self.shared.queue);
        queue.logs.retain(|known| known.id != row.id);
        queue.logs.push(row);
        self.shared.wake_in_time(queue);
    }

    /// Logs that were followed and aren't done with: not read to their end, or with events of these sites that aren't
    /// settled.
    ///
    /// # Errors
    /// Those of the database.
    pub fn left_over(&self, sites: &[SiteId]) -> Result<HashSet<LogId>, LedgerError> {
        self.sync()?;
        let sites: Vec<String> = sites.iter().map(|site| site.0.to_string()).collect();
        self.ask(|db| {
            let mut query = db.prepare(&format!(
                "SELECT log.id FROM log JOIN range own ON own.log = log.id AND own.site = 0 AND own.until_offset IS NULL
                 WHERE log.ended = 0 OR log.ended = 1 AND EXISTS (
                     SELECT 1 FROM range WHERE range.log = log.id AND until_offset IS NULL AND watermark < own.watermark
                     AND site IN ({}))",
                sites.join(", ")
            ))?;
            let rows = query.query_map([], |row| row.get(0))?;
            rows.map(|id| id.map(LogId)).collect()
        })
    }

    /// What stands before the place from which a new log is followed was read in another one: it is no backfill's.
    ///
    /// # Errors
    /// Those of the database.
    pub fn was_read_before(&self, log: LogId) -> Result<(), LedgerError> {
        self.ask(|db| {
            let change = db.transaction()?;
            change.execute("UPDATE range SET from_offset = 0 WHERE log = ?1 AND until_offset IS NULL", [log.0])?;
            // For a site that comes back it doesn't begin there.
            change.execute("INSERT OR IGNORE INTO meta VALUES ('read-before-' || ?1, '')", [log.0])?;
            change.commit()
        })
    }

    /// A log that was followed can't be found any more: what is left of it is a backfill's, if the file is still to be
    /// had.
    ///
    /// # Errors
    /// Those of the database.
    pub fn give_up(&self, log: LogId) -> Result<(), LedgerError> {
        self.ask(|db| db.execute("UPDATE log SET ended = ?2 WHERE id = ?1", [log.0, GIVEN_UP])).map(|_| ())
    }

    /// A log's first requests, and the last ones before a place to which it was read, with that, as far as they are known.
    ///
    /// # Errors
    /// Those of the database.
    pub fn outline(&self, log: LogId) -> Result<Outline, LedgerError> {
        let read = |row: &rusqlite::Row<'_>| {
            let last = row.get_ref(1)?.as_blob().unwrap_or_default();
            let last = last.split_first_chunk().map(|(at, rest)| (u64::from_le_bytes(*at), outline::from_bytes(rest)));
            Ok(Outline { first: outline::from_bytes(row.get_ref(0)?.as_blob().unwrap_or_default()), last })
        };
        let query = "SELECT first, last FROM outline WHERE log = ?1";
        self.ask(|db| db.prepare_cached(query)?.query_row([log.0], read).optional()).map(Option::unwrap_or_default)
    }

    /// Stores a log's first requests.
    ///
    /// # Errors
    /// Those of the database.
    pub fn keep_first(&self, log: LogId, first: &[Request]) -> Result<(), LedgerError> {
        let store = "INSERT INTO outline (log, first) VALUES (?1, ?2) ON CONFLICT (log) DO UPDATE SET first = ?2";
        self.ask(|db| db.prepare_cached(store)?.execute(params![log.0, outline::to_bytes(first)])).map(|_| ())
    }

    /// Stores logs' last requests before the places to which they were read, and those.
    ///
    /// # Errors
    /// Those of the database.
    pub fn keep_last(&self, logs: &[(LogId, u64, Vec<Request>)]) -> Result<(), LedgerError> {
        self.ask(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (log, place, last) in logs {
                change
                    .prepare_cached(
                        "INSERT INTO outline (log, last) VALUES (?1, ?2) ON CONFLICT (log) DO UPDATE SET last = ?2",
                    )?
                    .execute(params![log.0, [&place.to_le_bytes()[..], &outline::to_bytes(last)].concat()])?;
            }
            change.commit()
        })
    }
}

pub(super) fn log_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<LogRow> {
    let fingerprint: String = row.get(4)?;
    let last_read: Option<i64> = row.get(6)?;
    Ok(LogRow {
        id: LogId(row.get(0)?),
        path: PathBuf::from(OsString::from_vec(row.get(1)?)).into(),
        dev: row.get::<_, i64>(2)?.cast_unsigned(),
        ino: row.get::<_, i64>(3)?.cast_unsigned(),
        fingerprint: serde_json::from_str(&fingerprint).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Text, Box::new(error))
        })?,
        format: row.get::<_, Option<String>>(5)?.map(Arc::from),
        last_read: last_read.and_then(|at| Timestamp::from_microsecond(at).ok()),
        ended: row.get(7)?,
    })
}

pub(super) fn fingerprint_text(row: &LogRow) -> String {
    serde_json::to_string(&row.fingerprint).unwrap_or_default()
}
