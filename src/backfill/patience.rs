//! When to stop hoping that what is under way will be delivered.

use std::time::{Duration, Instant};

use super::{End, PATIENCE, STOPPED};
use crate::deliver::{Delivery, Settle};
use crate::offsets::SiteId;
use crate::outbox::Rooms;

/// Waits until nothing waits any more, or nothing more can be hoped for.
pub(super) fn settle_all<S: Settle>(
    delivery: &Delivery<S>,
    rooms: &Rooms,
    sites: &[SiteId],
    stop: &dyn Fn() -> bool,
) -> End {
    let mut patience = Patience::new(rooms, sites);
    loop {
        let open: Vec<SiteId> = sites.iter().copied().filter(|site| rooms.open(*site) > 0).collect();
        if open.is_empty() {
            return End::Done;
        }
        if stop() {
            return End::Left(STOPPED.to_owned());
        }
        if let Some(why) = patience.lost(delivery, rooms, &open) {
            return End::Left(why);
        }
        rooms.wait_for_an_end(&open, Duration::from_millis(200));
    }
}

/// When to stop hoping.
pub(super) struct Patience {
    open: usize,
    since: Instant,
}

impl Patience {
    pub(super) fn new(rooms: &Rooms, sites: &[SiteId]) -> Self {
        Self { open: sites.iter().map(|site| rooms.open(*site)).sum(), since: Instant::now() }
    }

    pub(super) fn lost<S: Settle>(&mut self, delivery: &Delivery<S>, rooms: &Rooms, open: &[SiteId]) -> Option<String> {
        let left: usize = open.iter().map(|site| rooms.open(*site)).sum();
        if left != self.open {
            *self = Self { open: left, since: Instant::now() };
        }
        let snapshot = delivery.snapshot();
        let stuck = |id: &SiteId| snapshot.iter().any(|site| site.id == *id && site.is_set_up_wrongly());
        if open.iter().all(stuck) {
            let error = snapshot.iter().find(|site| stuck(&site.id)).and_then(|site| site.last_error.clone());
            return Some(format!(
                "the endpoint refuses this site's property ({}); mend property_key or url, then run the same command again",
                error.unwrap_or_default()
            ));
        }
        (self.since.elapsed() >= PATIENCE)
            .then(|| "nothing could be delivered for 10 minutes; run the same command again later to go on".to_owned())
    }
}
