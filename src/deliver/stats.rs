//! What delivery shows of itself.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::offsets::SiteId;

/// Refusals in a row of one POST after the other by which a site is given up where nobody waits for it to be mended.
const SURE_AFTER: u32 = 4;

/// One site's delivery, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteSnapshot {
    /// Which.
    pub id: SiteId,
    /// Events that wait for their POST.
    pub waiting: usize,
    /// POSTs under way.
    pub in_flight: usize,
    /// `sending`, `pausing` or `misconfigured`.
    pub state: &'static str,
    /// What went wrong last, until something is delivered.
    pub last_error: Option<String>,
    /// What to do about it.
    pub remedy: Option<&'static str>,
    /// When something was last delivered in this run.
    pub delivered_at: Option<Timestamp>,
    /// For how long it hasn't been `sending`.
    pub troubled_for: Option<Duration>,
    /// Tries in a row that were refused as the set-up's fault.
    pub tries: u32,
}

impl SiteSnapshot {
    /// Whether it waits for its set-up to be mended, and several POSTs have shown that: one may be refused for what it
    /// holds.
    pub fn is_set_up_wrongly(&self) -> bool {
        self.state == "misconfigured" && self.in_flight == 0 && self.tries >= SURE_AFTER
    }
}

/// Upper bounds of the histogram of POSTs' durations, in seconds.
const BOUNDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// What delivery has done since it began.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// POSTs by site and the status of their answer; `None`: there was none.
    pub answers: BTreeMap<(SiteId, Option<u16>), u64>,
    /// POSTs that were sent again.
    pub retries: u64,
    /// POSTs by duration: upper bound in seconds, and how many lie between it and the one before.
    pub durations: Vec<(f64, u64)>,
    /// POSTs that took longer.
    pub longer: u64,
    /// The sum of all durations, in seconds.
    pub seconds: f64,
}

impl Stats {
    pub(super) fn add(&mut self, site: SiteId, status: Option<u16>, took: Duration) {
        if self.durations.is_empty() {
            self.durations = BOUNDS.iter().map(|bound| (*bound, 0)).collect();
        }
        *self.answers.entry((site, status)).or_default() += 1;
        let seconds = took.as_secs_f64();
        self.seconds += seconds;
        match self.durations.iter_mut().find(|(bound, _)| seconds <= *bound) {
            Some((_, count)) => *count += 1,
            None => self.longer += 1,
        }
    }
}
