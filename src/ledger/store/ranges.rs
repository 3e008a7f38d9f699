//! What was read of each log for each site: where `run` stands, and what backfills have claimed.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::logs::GIVEN_UP;
use super::{Ledger, LedgerError, int, site_number, uint};
use crate::ledger::{ends, recent};
use crate::offsets::{LogId, SiteId};

/// Where a followed log goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Everything before is settled.
    pub watermark: u64,
    /// Ends of settled lines above it.
    pub settled: Vec<u64>,
}

/// Where following a log begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// The offset.
    pub at: u64,
    /// The first byte before it, from the wanted start on, that no backfill has claimed.
    pub gap: Option<u64>,
}

impl Begun {
    /// After all stretches that backfills have claimed, in their order; at `start` where there are none.
    pub(super) fn after(claimed: &[(u64, u64)], start: u64, size: u64) -> Self {
        let Some(end) = claimed.iter().map(|(_, until)| *until).max() else { return Self { at: start, gap: None } };
        let at = end.min(size);
        let read =
            claimed.iter().fold(start, |read, (from, until)| if *from <= read { read.max(*until) } else { read });
        Self { at, gap: (read < at).then_some(read) }
    }
}

/// Bytes of a log that a backfill has to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Where to begin.
    pub from: u64,
    /// Where to end.
    pub until: u64,
    /// Ends of settled lines in it.
    pub settled: Vec<u64>,
    /// An earlier run has claimed it and not finished.
    pub resumed: bool,
}

impl Ledger {
    /// Where `run` goes on in a log; `None`: it has never followed it for this site.
    ///
    /// # Errors
    /// Those of the database.
    pub fn position(&self, site: Option<SiteId>, log: LogId) -> Result<Option<Position>, LedgerError> {
        self.ask(|db| {
            // Asked for each log at a start.
            let mut query = db.prepare_cached(
                "SELECT watermark, settled FROM range WHERE site = ?1 AND log = ?2 AND until_offset IS NULL",
            )?;
            let position = |row: &rusqlite::Row<'_>| {
                Ok(Position { watermark: uint(row.get(0)?), settled: settled_from(&row.get::<_, String>(1)?) })
            };
            query.query_row(params![site_number(site), log.0], position).optional()
        })
    }

    /// Whether `run` has followed a log from its first byte on: not one that goes on where another was read to.
    ///
    /// # Errors
    /// Those of the database.
    pub fn is_followed_from_its_beginning(&self, log: LogId) -> Result<bool, LedgerError> {
        self.ask(|db| {
            let mut query = db.prepare_cached(
                "SELECT from_offset = 0 AND NOT EXISTS (SELECT 1 FROM meta WHERE key = 'read-before-' || ?2)
                 FROM range WHERE site = ?1 AND log = ?2 AND until_offset IS NULL",
            )?;
            Ok(query.query_row(params![site_number(None), log.0], |row| row.get(0)).optional()?.unwrap_or(false))
        })
    }

    /// The names under which `run` has followed logs for a site.
    ///
    /// # Errors
    /// Those of the database.
    pub fn names_followed(&self, site: SiteId) -> Result<HashSet<PathBuf>, LedgerError> {
        self.ask(|db| {
            let mut query = db.prepare(
                "SELECT DISTINCT log.path FROM range JOIN log ON log.id = range.log WHERE site = ?1 AND until_offset IS NULL",
            )?;
            let name = |row: &rusqlite::Row<'_>| Ok(PathBuf::from(OsString::from_vec(row.get(0)?)));
            query.query_map([site.0], name)?.collect()
        })
    }

    /// Begins to follow a log of `size` bytes: where backfills have ended, or at `start` where none has read it.
    ///
    /// # Errors
    /// Those of the database.
    pub fn follow(&self, site: Option<SiteId>, log: LogId, start: u64, size: u64) -> Result<Begun, LedgerError> {
        self.ask(|db| {
            // A backfill that claims what nobody has claimed must come before or after.
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut query = change.prepare_cached(
                "SELECT from_offset, until_offset FROM range WHERE site = ?1 AND log = ?2 AND until_offset IS NOT NULL ORDER BY from_offset",
            )?;
            let claimed = query
                .query_map(params![site_number(site), log.0], |row| Ok((uint(row.get(0)?), uint(row.get(1)?))))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            drop(query);
            let begun = Begun::after(&claimed, start, size);
            insert_range(&change, site, log, begun.at, None, None)?;
            change.commit()?;
            Ok(begun)
        })
    }

    /// Claims, for a backfill that reads it by the rules of this digest, what of `wanted` nobody has claimed of a log's
    /// first `size` bytes. Gives that, and whole what an earlier backfill has claimed and not finished; and, unless the log
    /// `is_followed`, what `run` hasn't sent of it, which is claimed then as well: followed again, it is from behind that on.
    ///
    /// # Errors
    /// Those of the database.
    pub fn claim(
        &self,
        (site, log): (Option<SiteId>, LogId),
        is_followed: bool,
        size: u64,
        wanted: &[(u64, u64)],
        digest: Option<u64>,
    ) -> Result<Vec<Range>, LedgerError> {
        self.ask(|db| {
            // A daemon that begins to follow the log must come before or after.
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if !is_followed {
                let mut query = change.prepare_cached(
                    "SELECT id, watermark FROM range WHERE site = ?1 AND log = ?2 AND until_offset IS NULL",
                )?;
                let begun = query
                    .query_row(params![site_number(site), log.0], |row| Ok((row.get::<_, i64>(0)?, uint(row.get(1)?))))
                    .optional()?;
                drop(query);
                let is_wanted = |from| crate::ledger::overlaps(wanted, from, size).eq([(from, size)]);
                if let Some((range, _)) = begun.filter(|(_, from)| *from < size && is_wanted(*from)) {
                    let ours = params![range, int(size), digest.map(u64::cast_signed)];
                    change.execute("UPDATE range SET until_offset = ?2, digest = ?3 WHERE id = ?1", ours)?;
                }
            }
            let mut claimed = Vec::new();
            for range in uncovered(&change, site, log, size)? {
                if range.resumed {
                    claimed.push(range);
                    continue;
                }
                for (from, until) in crate::ledger::overlaps(wanted, range.from, range.until) {
                    insert_range(&change, site, log, from, Some(until), digest)?;
                    claimed.push(Range { from, until, settled: Vec::new(), resumed: false });
                }
            }
            change.commit()?;
            Ok(claimed)
        })
    }

    /// Opens again what backfills have read of a log for a site by other rules: it is to be read again, and only lines
    /// that weren't sent are to be sent. Says how many stretches those are.
    ///
    /// # Errors
    /// Those of the database.
    pub fn reopen(&self, site: SiteId, log: LogId, digest: u64) -> Result<usize, LedgerError> {
        self.sync()?;
        self.ask(|db| {
            let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut query = change.prepare(
                "SELECT id, settled FROM range WHERE site = ?1 AND log = ?2 AND until_offset IS NOT NULL AND digest <> ?3",
            )?;
            let of = params![site.0, log.0, digest.cast_signed()];
            let stale = query
                .query_map(of, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            drop(query);
            let mut recent = if stale.is_empty() { HashMap::new() } else { recent::sent(&change)? };
            for (range, settled) in &stale {
                let mut ends = settled_from(settled);
                ends.extend(recent.remove(range).unwrap_or_default());
                let mut query = change.prepare_cached("SELECT ends FROM sent WHERE range = ?1")?;
                for blob in query.query_map([range], |row| row.get::<_, Vec<u8>>(0))? {
                    ends.extend(ends::decode(&blob?));
                }
                ends.sort_unstable();
                ends.dedup();
                change.execute(
                    "UPDATE range SET watermark = from_offset, settled = ?2, digest = ?3, lines = 0, too_long = 0, unparsed = 0,
                     unmatched = 0, excluded = 0, bot = 0, repeat = 0, event = 0 WHERE id = ?1",
                    params![range, serde_json::to_string(&ends).unwrap_or_default(), digest.cast_signed()],
                )?;
            }
            change.commit()?;
            Ok(stale.len())
        })
    }

    /// A claim without a known end (an archive's, standard input's) was read to its end.
    ///
    /// # Errors
    /// Those of the database.
    pub fn end_claim(&self, site: Option<SiteId>, log: LogId, end: u64) -> Result<(), LedgerError> {
        self.ask(|db| {
            let of = params![site_number(site), log.0, int(end), int(u64::MAX >> 1)];
            db.execute(
                "DELETE FROM range WHERE site = ?1 AND log = ?2 AND until_offset = ?4 AND from_offset >= ?3",
                of,
            )?;
            db.execute("UPDATE range SET until_offset = ?3 WHERE site = ?1 AND log = ?2 AND until_offset = ?4", of)
        })
        .map(|_| ())
    }

    /// What of a log is settled for a site, in stretches.
    ///
    /// # Errors
    /// Those of the database.
    pub fn covered(&self, site: Option<SiteId>, log: LogId) -> Result<Vec<(u64, u64)>, LedgerError> {
        self.ask(|db| {
            let mut query = db.prepare(
                "SELECT from_offset, watermark FROM range WHERE site = ?1 AND log = ?2 AND watermark > from_offset ORDER BY from_offset",
            )?;
            let of = params![site_number(site), log.0];
            let rows = query.query_map(of, |row| Ok((uint(row.get(0)?), uint(row.get(1)?))))?;
            rows.collect()
        })
    }

    /// Whether anything of a log was ever read for a site, or is claimed.
    ///
    /// # Errors
    /// Those of the database.
    pub fn has_read(&self, site: SiteId, log: LogId) -> Result<bool, LedgerError> {
        self.ask(|db| {
            let mut query = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM range WHERE site = ?1 AND log = ?2)")?;
            query.query_row(params![site.0, log.0], |row| row.get(0))
        })
    }
}

/// What of a log's first `size` bytes is left for a backfill to read.
pub(super) fn uncovered(db: &Connection, site: Option<SiteId>, log: LogId, size: u64) -> rusqlite::Result<Vec<Range>> {
    let mut query = db.prepare(
        "SELECT from_offset, until_offset, watermark, settled, log.ended FROM range JOIN log ON log.id = range.log
         WHERE site = ?1 AND log = ?2 ORDER BY from_offset",
    )?;
    let rows = query.query_map(params![site_number(site), log.0], |row| {
        let until: Option<i64> = row.get(1)?;
        let given_up = row.get::<_, i64>(4)? == GIVEN_UP;
        let until = until.map(uint).or(given_up.then_some(u64::MAX));
        Ok((uint(row.get(0)?), until, uint(row.get(2)?), row.get::<_, String>(3)?))
    })?;
    let mut left = Vec::new();
    let mut at = 0;
    for row in rows {
        let (from, until, watermark, settled) = row?;
        if at < from.min(size) {
            left.push(Range { from: at, until: from.min(size), settled: Vec::new(), resumed: false });
        }
        match until {
            // `run` has all from here on.
            None => at = u64::MAX,
            Some(until) => {
                if watermark < until.min(size) {
                    let settled = settled_from(&settled);
                    left.push(Range { from: watermark, until: until.min(size), settled, resumed: true });
                }
                at = at.max(until);
            }
        }
    }
    if at < size {
        left.push(Range { from: at, until: size, settled: Vec::new(), resumed: false });
    }
    Ok(left)
}

pub(super) fn insert_range(
    db: &Connection,
    site: Option<SiteId>,
    log: LogId,
    from: u64,
    until: Option<u64>,
    digest: Option<u64>,
) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO range (site, log, from_offset, until_offset, watermark, digest) VALUES (?1, ?2, ?3, ?4, ?3, ?5)",
        params![site_number(site), log.0, int(from), until.map(int), digest.map(u64::cast_signed)],
    )
    .map(|_| ())
}

pub(super) fn settled_from(text: &str) -> Vec<u64> {
    // Written by this program in the same transaction as its watermark; what can't be read is sent again, not lost.
    serde_json::from_str(text).unwrap_or_default()
}
