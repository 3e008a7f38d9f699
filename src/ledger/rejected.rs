//! Events that the endpoint refused for good, as the state keeps them: for 30 days and up to 100,000, the oldest leave
//! first.

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
/// Rejected events that are kept at most; the oldest go first. An event is at most some tens of KiB, usually 500 bytes.
pub(super) const MAX: i64 = 100_000;

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

/// All rejected events, or one site's, oldest first.
pub(super) fn all(db: &Connection, site: Option<&str>) -> rusqlite::Result<Vec<Rejected>> {
    let mut query = db.prepare(
        "SELECT rejected.id, site.name, log.path, rejected.at, rejected.status, rejected.reason, rejected.event,
         rejected.site, rejected.log, rejected.line_end
         FROM rejected JOIN site ON site.id = rejected.site JOIN log ON log.id = rejected.log
         WHERE ?1 IS NULL OR site.name = ?1 ORDER BY rejected.id",
    )?;
    let rows = query.query_map([site], |row| {
        let Ok(stored) = serde_json::from_str::<Stored>(&row.get::<_, String>(6)?) else { return Ok(None) };
        let end = row.get::<_, i64>(9)?.cast_unsigned();
        let origin = Origin {
            site: SiteId(row.get(7)?),
            log: LogId(row.get(8)?),
            line: Span { start: stored.line_start.unwrap_or(end.saturating_sub(1)), end },
        };
        let Stored { ip, user_agent, view_width, page, event, url, properties, time, .. } = stored;
        Ok(Some(Rejected {
            id: row.get(0)?,
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
        }))
    })?;
    rows.filter_map(Result::transpose).collect()
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
