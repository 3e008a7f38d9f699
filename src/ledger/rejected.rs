//! Events that the endpoint refused for good, as the state keeps them: for 30 days and up to 100,000, or 64 MiB of them; the
//! oldest leave first.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use jiff::Timestamp;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use crate::event::{Clean, Event, Visitor};
use crate::offsets::{LogId, Origin, SiteId, Span};

/// Rejected events are kept this long.
pub(super) const SECONDS: i64 = 30 * 24 * 3600;
/// Rejected events that are kept at most; the oldest go first. An event usually is 500 bytes.
pub(super) const MAX: i64 = 100_000;
/// Bytes of them that are kept at most: who sends requests can make each some tens of KiB.
pub(super) const MAX_BYTES: i64 = 64 << 20;
/// Rejected events that are read at a time.
const PAGE: i64 = 100;

/// An event that was refused for good, on its way into the state.
#[derive(Debug, Clone)]
pub struct Rejection {
    pub(super) origin: Origin,
    pub(super) status: Option<u16>,
    pub(super) reason: String,
    pub(super) event: String,
}

/// An event as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    ip: IpAddr,
    user_agent: String,
    view_width: Option<u32>,
    page: String,
    event: String,
    url: String,
    properties: Vec<(String, String)>,
    #[serde(default)]
    time: Option<Timestamp>,
    #[serde(default)]
    line_start: Option<u64>,
}

impl Rejection {
    /// Bytes that it takes in the state.
    pub(super) fn size(&self) -> i64 {
        i64::try_from(self.reason.len() + self.event.len()).unwrap_or(i64::MAX)
    }

    /// Keeps what is needed to look at it and to send it again.
    pub fn new(event: &Event, status: Option<u16>, reason: &str) -> Self {
        let stored = Stored {
            ip: event.visitor.ip,
            user_agent: event.visitor.user_agent.clone(),
            view_width: event.visitor.view_width,
            page: event.page.clone(),
            event: event.name.to_string(),
            url: event.url.clone(),
            properties: event.properties.clone(),
            time: event.time,
            line_start: Some(event.origin.line.start),
        };
        // Strings, numbers and lists always become JSON.
        let event_json = serde_json::to_string(&stored).unwrap_or_default();
        Self { origin: event.origin, status, reason: reason.to_owned(), event: event_json }
    }
}

/// A rejected event, got out of the state.
#[derive(Debug, Clone)]
pub struct Rejected {
    /// Its number.
    pub id: i64,
    /// Whose.
    pub site: String,
    /// The log its line stands in, by its last name.
    pub log: PathBuf,
    /// When it was rejected.
    pub at: Timestamp,
    /// The endpoint's answer, if there was one.
    pub status: Option<u16>,
    /// Why: an excerpt of the answer.
    pub reason: String,
    /// The event, with its line's place.
    pub event: Event,
}

/// A page of the rejected events, or of one site's, oldest first: those behind a number, and the last number of the page.
/// `None`: there are no more. What can't be read is passed over.
pub(super) fn page(db: &Connection, site: Option<&str>, behind: i64) -> rusqlite::Result<Option<(Vec<Rejected>, i64)>> {
    let mut query = db.prepare_cached(
        "SELECT rejected.id, site.name, log.path, rejected.at, rejected.status, rejected.reason, rejected.event,
         rejected.site, rejected.log, rejected.line_end
         FROM rejected JOIN site ON site.id = rejected.site JOIN log ON log.id = rejected.log
         WHERE rejected.id > ?2 AND (?1 IS NULL OR site.name = ?1) ORDER BY rejected.id LIMIT ?3",
    )?;
    let rows = query.query_map(params![site, behind, PAGE], |row| {
        let id = row.get(0)?;
        let Ok(stored) = serde_json::from_str::<Stored>(&row.get::<_, String>(6)?) else { return Ok((id, None)) };
        let end = row.get::<_, i64>(9)?.cast_unsigned();
        let origin = Origin {
            site: SiteId(row.get(7)?),
            log: LogId(row.get(8)?),
            line: Span { start: stored.line_start.unwrap_or(end.saturating_sub(1)), end },
        };
        let Stored { ip, user_agent, view_width, page, event, url, properties, time, .. } = stored;
        let rejected = Rejected {
            id,
            site: row.get(1)?,
            log: PathBuf::from(OsString::from_vec(row.get(2)?)),
            at: Timestamp::from_second(row.get(3)?).unwrap_or_default(),
            status: row.get(4)?,
            reason: row.get(5)?,
            event: Event {
                visitor: Visitor { ip, user_agent, view_width },
                page,
                name: event.into(),
                url,
                properties,
                time,
                clean: Clean::default(),
                // Only a backfill's summary asks for it.
                offset: None,
                origin,
            },
        };
        Ok((id, Some(rejected)))
    })?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let Some((last, _)) = rows.last() else { return Ok(None) };
    let last = *last;
    Ok(Some((rows.into_iter().filter_map(|(_, rejected)| rejected).collect(), last)))
}

/// Bytes that the rejected events take.
pub(super) fn size(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("SELECT coalesce(sum(octet_length(event) + octet_length(reason)), 0) FROM rejected", [], |row| {
        row.get(0)
    })
}

/// Forgets the oldest, so that no more than `most` bytes stay; says how many they were.
pub(super) fn forget_beyond(db: &Connection, most: i64) -> rusqlite::Result<usize> {
    db.execute(
        "DELETE FROM rejected WHERE id <= (
             SELECT max(id) FROM (
                 SELECT id, sum(octet_length(event) + octet_length(reason)) OVER (ORDER BY id DESC) AS size FROM rejected
             ) WHERE size > ?1)",
        [most],
    )
}

/// Forgets one.
pub(super) fn drop(db: &Connection, id: i64) -> rusqlite::Result<usize> {
    db.execute("DELETE FROM rejected WHERE id = ?1", [id])
}

/// One was delivered after all.
pub(super) fn delivered(db: &mut Connection, id: i64, site: SiteId) -> rusqlite::Result<()> {
    let change = db.transaction()?;
    if drop(&change, id)? > 0 {
        change.execute("UPDATE site SET delivered = delivered + 1 WHERE id = ?1", [site.0])?;
    }
    change.commit()
}

/// One was refused again.
pub(super) fn refused_again(db: &Connection, id: i64, status: Option<u16>, reason: &str) -> rusqlite::Result<usize> {
    let now = Timestamp::now().as_second();
    db.execute("UPDATE rejected SET at = ?2, status = ?3, reason = ?4 WHERE id = ?1", params![id, now, status, reason])
}
