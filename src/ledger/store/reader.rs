//! The ledger as others see it: only to be looked at, while a daemon or a backfill writes.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use jiff::Timestamp;
use rusqlite::Connection;

use super::error::database_error;
use super::{LedgerError, uint};
use crate::ledger::Counts;
use crate::ledger::rejected::{self, Rejected};
use crate::offsets::LogId;

/// Counts of one site (or of nobody) in one log, for `status`.
#[derive(Debug, Clone)]
pub struct StatusRow {
    /// `None`: lines that belong to no site.
    pub site: Option<String>,
    /// The log.
    pub log: LogId,
    /// Its last name.
    pub path: PathBuf,
    /// Its last inode.
    pub ino: u64,
    /// Nobody writes to it any more, or it can't be found.
    pub ended: bool,
    /// When it was last read from.
    pub last_read: Option<Timestamp>,
    /// The furthest watermark.
    pub watermark: u64,
    /// Lines below the watermark.
    pub counts: Counts,
}

/// What became of a site's events.
#[derive(Debug, Clone)]
pub struct SiteTotal {
    /// The site.
    pub site: String,
    /// Events.
    pub delivered: u64,
    /// Events.
    pub rejected: u64,
}

/// The state, for looking at it.
#[derive(Debug)]
pub struct LedgerReader {
    pub(super) db: Connection,
    pub(super) path: PathBuf,
    /// The state's layout: nothing is changed by looking at it.
    pub(super) version: i64,
}

impl LedgerReader {
    /// The rejected events, or one site's, oldest first; the errors are those of the database.
    ///
    /// A page of them is read at a time: they are more than should be in memory, and whoever looks at them at leisure mustn't
    /// keep the state's own log from being emptied meanwhile.
    pub fn rejected(&self, site: Option<&str>) -> impl Iterator<Item = Result<Rejected, LedgerError>> {
        let mut page = VecDeque::new();
        let mut behind = Some(0);
        std::iter::from_fn(move || {
            while page.is_empty() {
                match rejected::page(&self.db, site, behind?) {
                    Ok(Some((more, last))) => (page, behind) = (VecDeque::from(more), Some(last)),
                    Ok(None) => behind = None,
                    Err(error) => {
                        behind = None;
                        return Some(Err(database_error(&self.path, error)));
                    }
                }
            }
            page.pop_front().map(Ok)
        })
    }

    /// Each site's part of each log, and nobody's.
    ///
    /// # Errors
    /// Those of the database.
    pub fn status(&self) -> Result<Vec<StatusRow>, LedgerError> {
        let rows = || {
            let mut query = self.db.prepare(
                "SELECT site.name, log.id, log.path, log.ino, max(range.watermark), sum(lines), sum(too_long), sum(unparsed),
                 sum(unmatched), sum(excluded), sum(bot), sum(repeat), sum(event), log.ended, log.last_read
                 FROM range JOIN log ON log.id = range.log LEFT JOIN site ON site.id = range.site
                 GROUP BY range.site, range.log ORDER BY log.id, range.site",
            )?;
            let rows = query.query_map([], |row| {
                let mut values = [0; 8];
                for (index, value) in values.iter_mut().enumerate() {
                    *value = uint(row.get(5 + index)?);
                }
                Ok(StatusRow {
                    site: row.get(0)?,
                    log: LogId(row.get(1)?),
                    path: PathBuf::from(OsString::from_vec(row.get(2)?)),
                    ino: row.get::<_, i64>(3)?.cast_unsigned(),
                    ended: row.get::<_, i64>(13)? != 0,
                    last_read: row.get::<_, Option<i64>>(14)?.and_then(|at| Timestamp::from_microsecond(at).ok()),
                    watermark: uint(row.get(4)?),
                    counts: Counts::from_values(values),
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        rows().map_err(|error| database_error(&self.path, error))
    }

    /// Each site's lines by fate, and nobody's; of all logs that are remembered.
    ///
    /// # Errors
    /// Those of the database.
    pub fn counts(&self) -> Result<Vec<(Option<String>, Counts)>, LedgerError> {
        let rows = || {
            let mut query = self.db.prepare(
                "SELECT site.name, sum(lines), sum(too_long), sum(unparsed), sum(unmatched), sum(excluded), sum(bot), sum(repeat),
                 sum(event) FROM range LEFT JOIN site ON site.id = range.site GROUP BY range.site",
            )?;
            let rows = query.query_map([], |row| {
                let mut values = [0; 8];
                for (index, value) in values.iter_mut().enumerate() {
                    *value = uint(row.get(1 + index)?);
                }
                Ok((row.get(0)?, Counts::from_values(values)))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        rows().map_err(|error| database_error(&self.path, error))
    }

    /// Each site's events by what became of them.
    ///
    /// # Errors
    /// Those of the database.
    pub fn totals(&self) -> Result<Vec<SiteTotal>, LedgerError> {
        let rows = || {
            let mut query = self.db.prepare(match self.version {
                1 => {
                    "SELECT name, delivered, (SELECT count(*) FROM rejected WHERE site = site.id) FROM site ORDER BY id"
                }
                _ => {
                    "SELECT name, site.delivered + coalesce(sum(range.delivered), 0),
                     (SELECT count(*) FROM rejected WHERE site = site.id)
                     FROM site LEFT JOIN range ON range.site = site.id GROUP BY site.id ORDER BY site.id"
                }
            })?;
            let rows = query.query_map([], |row| {
                Ok(SiteTotal { site: row.get(0)?, delivered: uint(row.get(1)?), rejected: uint(row.get(2)?) })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        rows().map_err(|error| database_error(&self.path, error))
    }
}
