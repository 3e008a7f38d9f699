//! What only the running daemon knows (what waits, what is in flight, the last error), left beside the state for
//! `silktail status`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::counters::{Counters, Reload};
use crate::deliver::{Delivery, Settle, SiteSnapshot};
use crate::ledger::Ledger;
use crate::offsets::SiteId;
use crate::outbox::Rooms;

/// The daemon's knowledge of its sites.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// The daemon's process: without it, this is old.
    pub pid: u32,
    /// Where its status page is, if it has one.
    #[serde(default)]
    pub status: Option<String>,
    /// The last try to reload its configuration.
    #[serde(default)]
    pub reload: Option<Reload>,
    /// Why it can't write the state now.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Each site of its configuration.
    pub sites: Vec<LiveSite>,
}

/// One site, as the daemon sees it now.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveSite {
    /// The site's name.
    pub name: String,
    /// Events read and not yet in a POST that is under way.
    pub waiting: usize,
    /// POSTs that await an answer.
    pub in_flight: usize,
    /// `sending`, or why not.
    pub state: String,
    /// What went wrong last, until something is delivered.
    pub last_error: Option<String>,
    /// What to do about it.
    #[serde(default)]
    pub remedy: Option<String>,
    /// When something was last delivered in this run.
    #[serde(default)]
    pub last_delivered: Option<Timestamp>,
}

/// Where it is left.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("live.json")
}

/// Reads what a running daemon has left; `None` where no daemon runs.
pub fn read(state_dir: &Path) -> Option<Live> {
    let live: Live = serde_json::from_slice(&std::fs::read(path(state_dir)).ok()?).ok()?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(live.pid).ok()?)?;
    match rustix::process::test_kill_process(pid) {
        Ok(()) | Err(rustix::io::Errno::PERM) => Some(live),
        Err(_) => None,
    }
}

/// Takes it away at a stop.
pub fn remove(state_dir: &Path) {
    // If it can't be removed, its process number says that it is old.
    let _ = std::fs::remove_file(path(state_dir));
}

/// The sites as they are now.
pub fn now<S: Settle>(
    names: &[(SiteId, String)],
    delivery: &Delivery<S>,
    rooms: &Rooms,
    reload: Option<Reload>,
    trouble: Option<&str>,
) -> Live {
    let snapshot: HashMap<SiteId, SiteSnapshot> = delivery.snapshot().into_iter().map(|site| (site.id, site)).collect();
    let sites = names
        .iter()
        .map(|(id, name)| {
            let seen = snapshot.get(id);
            LiveSite {
                name: name.clone(),
                waiting: rooms.open(*id),
                in_flight: seen.map_or(0, |site| site.in_flight),
                state: seen.map_or_else(String::new, |site| site.state.to_string()),
                last_error: seen.and_then(|site| site.last_error.clone()),
                remedy: seen.and_then(|site| site.remedy).map(str::to_owned),
                // To the second: what is written aside needn't be written anew for less.
                last_delivered: seen.and_then(|site| Timestamp::from_second(site.delivered_at?.as_second()).ok()),
            }
        })
        .collect();
    Live { pid: std::process::id(), status: None, reload, trouble: trouble.map(str::to_owned), sites }
}

/// Writes it once a second, but only when something has changed: idling costs nothing.
pub async fn publish<S: Settle>(
    path: PathBuf,
    names: Arc<Mutex<Vec<(SiteId, String)>>>,
    delivery: Arc<Delivery<S>>,
    rooms: Arc<Rooms>,
    counters: Arc<Counters>,
    ledger: Ledger,
    status: Option<String>,
) {
    let mut written = None;
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        let names = names.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = now(&names, &delivery, &rooms, counters.last_reload(), ledger.trouble());
        let live = Live { status: status.clone(), ..now };
        if written.as_ref() == Some(&live) {
            continue;
        }
        let Ok(bytes) = serde_json::to_vec(&live) else { continue };
        let aside = path.with_extension("json.new");
        // A full disk leaves the old picture; the ledger says what matters about it.
        if std::fs::write(&aside, bytes).and_then(|()| std::fs::rename(&aside, &path)).is_ok() {
            written = Some(live);
        }
    }
}
