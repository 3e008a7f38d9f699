//! Rotated logs that were read to their end while their site takes no events: what isn't sent of them is nowhere but in
//! the rotated file, and whoever removes that should know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Follower;
use super::source::{Sink, Source};
use crate::ledger::LedgerError;
use crate::offsets::{LogId, SiteId};
use crate::pipeline::Site;

/// Where a site seems to take events, this long is enough for the last of them, however long they linger.
const GRACE: Duration = Duration::from_secs(600);
/// How often it is looked at whether they are sent.
pub(super) const EVERY: Duration = Duration::from_secs(5);

/// What a site has read of a log that was let go.
pub(super) struct Unsent {
    path: Arc<std::path::Path>,
    site: Arc<Site>,
    read_to: u64,
    since: Instant,
    checked: Instant,
}

/// By log and site.
pub(super) type AllUnsent = BTreeMap<(LogId, SiteId), Unsent>;

impl<S: Sink> Follower<S> {
    /// A rotated log is let go: whether it was sent whole will be seen.
    pub(super) fn watch_what_is_unsent(&mut self, source: &Source) {
        let now = Instant::now();
        for reader in &source.readers {
            let Some(site) = reader.site.and_then(|site| source.pipeline.sites.get(site)) else { continue };
            let unsent = Unsent {
                path: Arc::clone(&source.path),
                site: Arc::clone(site),
                read_to: reader.cutter.offset(),
                since: now,
                checked: now,
            };
            self.unsent.insert((source.row.id, site.id), unsent);
        }
    }

    /// Says which rotated logs have events that can't be sent now: each once.
    pub(super) fn say_what_is_unsent(&mut self) -> Result<(), LedgerError> {
        let now = Instant::now();
        let mut done = Vec::new();
        for ((log, site), unsent) in &mut self.unsent {
            if now.duration_since(unsent.checked) < EVERY {
                continue;
            }
            unsent.checked = now;
            let settled = self.ledger.position(Some(*site), *log)?.map_or(0, |position| position.watermark);
            if settled >= unsent.read_to {
                done.push((*log, *site));
            } else if !self.sink.is_sending(*site) || now.duration_since(unsent.since) >= GRACE {
                tracing::warn!(
                    site = unsent.site.name, path = %unsent.path.display(), offset = settled,
                    hint = "keep rotated logs until the endpoint takes events again (logrotate's `rotate`)",
                    "a rotated log can't be sent now; what is unsent of it is lost if it is removed before a restart"
                );
                done.push((*log, *site));
            }
        }
        for key in done {
            self.unsent.remove(&key);
        }
        Ok(())
    }
}
