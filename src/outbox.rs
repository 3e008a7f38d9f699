//! Bounds what waits to be sent, and brings the outcome of each POST to the ledger.
//!
//! The log itself is the queue: when too much waits, reading stops. Every site always has room for something, so one
//! site's trouble never takes the others' share.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::deliver::{self, Settle, Settlement};
use crate::follow::watch::Wake;
use crate::ledger::{Ledger, Rejection};
use crate::offsets::{LogId, Origin, SiteId};

/// Events that may wait in memory, all sites together: a few MiB.
const TOTAL: usize = 8_192;
/// Events of one site that may wait.
const PER_SITE: usize = 2_048;
/// Bytes of memory that they may take. Mostly they take less than half of that; but a client may send a URL, a referer and a
/// user agent of 8 KB each, and a server logs them.
const TOTAL_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of one site's.
const BYTES_PER_SITE: usize = TOTAL_BYTES / 4;

/// How many events of each site wait or are in flight, and how much memory they take.
#[derive(Debug, Default)]
pub struct Rooms {
    open: Mutex<Open>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    bytes: usize,
    sites: HashMap<SiteId, Held>,
    /// Threads in [`Rooms::wait`].
    waiting: usize,
}

/// What a site holds.
#[derive(Debug, Default)]
struct Held {
    events: usize,
    bytes: usize,
    /// It had no room, and half of what it held isn't settled yet: a reader that is woken for each event reads a block
    /// for each.
    full: bool,
}

impl Rooms {
    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        // Counters stay true whatever happened to the thread that held them.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more event of a site waits, of so many bytes.
    pub fn enter(&self, site: SiteId, bytes: usize) {
        let mut open = self.lock();
        open.total += 1;
        open.bytes += bytes;
        let held = open.sites.entry(site).or_default();
        held.events += 1;
        held.bytes += bytes;
    }

    /// Some events of a site are settled, of so many bytes in all. `true`: a reader may have been waiting for that.
    pub fn leave(&self, site: SiteId, events: usize, bytes: usize) -> bool {
        let mut open = self.lock();
        open.total = open.total.saturating_sub(events);
        open.bytes = open.bytes.saturating_sub(bytes);
        let (bound, bytes_bound) = open.bounds();
        let held = open.sites.entry(site).or_default();
        held.events = held.events.saturating_sub(events);
        held.bytes = held.bytes.saturating_sub(bytes);
        let freed = held.full && held.events <= bound / 2 && held.bytes <= bytes_bound / 2;
        held.full &= !freed;
        let wakes = open.waiting > 0 && (freed || held_nothing(&open, site));
        drop(open);
        if wakes {
            self.changed.notify_all();
        }
        freed
    }

    /// Whether a site may read on.
    pub fn has_room(&self, site: SiteId) -> bool {
        let mut open = self.lock();
        let (bound, bytes_bound) = open.bounds();
        let held = open.sites.entry(site).or_default();
        held.full |= held.events >= bound || held.bytes >= bytes_bound;
        !held.full
    }

    /// Events of a site that wait or are in flight.
    pub fn open(&self, site: SiteId) -> usize {
        self.lock().sites.get(&site).map_or(0, |held| held.events)
    }

    /// Events of all sites that wait or are in flight.
    pub fn total(&self) -> usize {
        self.lock().total
    }

    /// Waits until a site has room, for as long as `patience` at most.
    pub fn wait_for_room(&self, site: SiteId, patience: Duration) {
        self.wait(patience, |open| open.sites.get(&site).is_none_or(|held| !held.full));
    }

    /// Waits until one of these sites holds nothing any more, for as long as `patience` at most.
    pub fn wait_for_an_end(&self, sites: &[SiteId], patience: Duration) {
        self.wait(patience, |open| sites.iter().any(|site| held_nothing(open, *site)));
    }

    fn wait(&self, patience: Duration, done: impl Fn(&Open) -> bool) {
        let mut open = self.lock();
        open.waiting += 1;
        let waited = self.changed.wait_timeout_while(open, patience, |open| !done(open));
        waited.unwrap_or_else(PoisonError::into_inner).0.waiting -= 1;
    }
}

fn held_nothing(open: &Open, site: SiteId) -> bool {
    open.sites.get(&site).is_none_or(|held| held.events == 0)
}

impl Open {
    /// A site may hold a quarter of what the others left, in events and in bytes: sites that wait take less and less, and
    /// never all. One that holds nothing has room for an event, whatever its size.
    fn bounds(&self) -> (usize, usize) {
        let a_quarter = |of: usize, taken| (of.saturating_sub(taken) / 4).max(1);
        (PER_SITE.min(a_quarter(TOTAL, self.total)), BYTES_PER_SITE.min(a_quarter(TOTAL_BYTES, self.bytes)))
    }
}

/// Takes outcomes to the ledger; an outcome is final once it is committed.
#[derive(Debug)]
pub struct Settler {
    /// Where outcomes are kept; `None`: nowhere.
    pub ledger: Ledger,
    /// Who waits and how much.
    pub rooms: Arc<Rooms>,
    /// Told when a full site has room again.
    pub wakes: Option<SyncSender<Wake>>,
}

impl Settle for Settler {
    fn path_of(&self, log: LogId) -> Option<Arc<Path>> {
        self.ledger.log(log).ok().flatten().map(|row| row.path)
    }

    async fn settle(&self, settlement: Settlement) {
        let Settlement { batch, outcome } = settlement;
        let origins: Vec<Origin> = batch.events().map(|event| event.origin).collect();
        let rejections = match &outcome {
            deliver::Outcome::Delivered => Vec::new(),
            deliver::Outcome::Rejected { status, reason } => {
                batch.events().map(|event| Rejection::new(event, *status, reason)).collect()
            }
        };
        let (done, committed) = tokio::sync::oneshot::channel();
        if let Some(waking) = self.ledger.settle(origins, rejections, done) {
            // Answers that are here already are written in the same commit: whoever has one has its turn first.
            tokio::task::yield_now().await;
            drop(waking);
        }
        // The ledger answers once the commit worked; where it is gone for good, nothing more is sent either.
        if committed.await.is_err() {
            std::future::pending::<()>().await;
        }
        if self.rooms.leave(batch.site(), batch.len(), batch.weight())
            && let Some(wakes) = &self.wakes
        {
            // Where the channel is full, it is told as soon as it isn't: nobody else would tell it.
            if let Err(TrySendError::Full(wake)) = wakes.try_send(Wake::Room) {
                let wakes = wakes.clone();
                tokio::task::spawn_blocking(move || wakes.send(wake));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    /// An event as it mostly is.
    const ORDINARY: usize = Event::OVERHEAD + 500;

    #[test]
    fn sites_that_wait_leave_room_for_the_others() {
        let rooms = Rooms::default();
        for site in 0..1_000 {
            while rooms.has_room(SiteId(site)) {
                rooms.enter(SiteId(site), ORDINARY);
            }
            assert!(rooms.open(SiteId(site)) >= 1, "site {site} can send something");
        }
        assert!(rooms.lock().total <= TOTAL + 1_000);
        assert!(rooms.lock().total > TOTAL / 2, "ordinary events aren't held to be large");
    }

    #[test]
    fn large_events_fill_a_room_before_they_are_many() {
        const LARGE: usize = 40 * 1024;
        let rooms = Rooms::default();
        for site in 0..100 {
            while rooms.has_room(SiteId(site)) {
                rooms.enter(SiteId(site), LARGE);
            }
            assert!(rooms.open(SiteId(site)) >= 1, "site {site} can send something");
        }
        let bytes = rooms.lock().bytes;
        assert!(bytes <= TOTAL_BYTES + 100 * LARGE, "{bytes} bytes");
        for site in 0..100 {
            let site = SiteId(site);
            let freed = (0..rooms.open(site)).any(|_| rooms.leave(site, 1, LARGE));
            assert!(freed && rooms.has_room(site), "{site:?} reads on");
            rooms.leave(site, rooms.open(site), rooms.open(site) * LARGE);
        }
        let open = rooms.lock();
        assert_eq!((open.total, open.bytes), (0, 0));
    }

    #[test]
    fn leaving_gives_room_back() {
        for bytes in [ORDINARY, 40 * 1024] {
            let rooms = Rooms::default();
            let site = SiteId(1);
            while rooms.has_room(site) {
                rooms.enter(site, bytes);
            }
            let full = rooms.open(site);
            let said: Vec<usize> = (0..full).rev().filter(|_| rooms.leave(site, 1, bytes)).collect();
            let [left] = said[..] else { panic!("a full site that gets room is said once: {said:?}") };
            assert!((full / 4..full * 3 / 4).contains(&left), "{left} of {full}: not for each event");
            assert!(rooms.has_room(site));
        }
    }
}
