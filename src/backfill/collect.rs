//! What becomes of the lines that are read: events for their POSTs in the log's order, counts, and progress.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::{SignedDuration, Timestamp};

use super::{Options, Progress};
use crate::batch::{Batch, Batcher};
use crate::deliver::payload::{self, PropertyKey};
use crate::deliver::{Delivery, Settle, Settlement};
use crate::event::Event;
use crate::follow::source::{self, Sink};
use crate::journal::shown_json;
use crate::ledger::{Advance, Ledger, LogRow};
use crate::lines::Cut;
use crate::offsets::{LogId, SiteId};
use crate::outbox::{Rooms, Settler};
use crate::pipeline::{self, Pipeline, Taken};
use crate::summary::Summary;

/// Gives batches out by their numbers: the order of their first lines.
#[derive(Debug, Default)]
pub(super) struct InOrder {
    pub(super) next: u64,
    /// Those that came before their turn.
    pub(super) early: BTreeMap<u64, Batch>,
}

impl InOrder {
    /// The same batch, if it is its turn; else it waits for that.
    #[inline]
    fn take(&mut self, batch: Batch) -> Option<Batch> {
        if batch.number != self.next {
            self.early.insert(batch.number, batch);
            return None;
        }
        self.next += 1;
        Some(batch)
    }

    /// One that has waited, and whose turn it is now.
    #[inline]
    fn take_early(&mut self) -> Option<Batch> {
        if self.early.is_empty() {
            return None;
        }
        let batch = self.early.remove(&self.next)?;
        self.next += 1;
        Some(batch)
    }
}

/// Where batches go.
pub enum Outlet {
    /// To the endpoint.
    Send {
        /// Who delivers.
        delivery: Arc<Delivery<Counted>>,
        /// How much waits.
        rooms: Arc<Rooms>,
        /// What is settled.
        ledger: Ledger,
    },
    /// To standard output, one exact JSON body a line.
    DryRun(hashbrown::HashMap<SiteId, PropertyKey>),
}

/// A settler that counts, too.
pub struct Counted {
    /// Brings outcomes to the ledger.
    pub settler: Settler,
    /// (delivered, rejected) events so far.
    pub counts: Arc<std::sync::Mutex<(u64, u64)>>,
    /// Where POSTs are counted.
    pub progress: Arc<Progress>,
}

impl Settle for Counted {
    fn path_of(&self, log: LogId) -> Option<Arc<Path>> {
        self.settler.path_of(log)
    }

    async fn settle(&self, settlement: Settlement) {
        let events = settlement.batch.len() as u64;
        let delivered = matches!(settlement.outcome, crate::deliver::Outcome::Delivered);
        self.settler.settle(settlement).await;
        self.progress.posts.fetch_add(1, Ordering::Relaxed);
        let mut counts = self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if delivered { counts.0 += events } else { counts.1 += events }
    }
}

/// Batches by the log's time and counts what was read.
pub(super) struct Collector<'a> {
    pub(super) outlet: &'a Outlet,
    pub(super) options: &'a Options,
    pub(super) names: HashMap<SiteId, String>,
    /// Whether what is read is remembered: not where it is sent again.
    pub(super) recording: Cell<bool>,
    pub(super) state: RefCell<State>,
}

pub(super) struct State {
    /// Enough POSTs were made.
    pub(super) limited: bool,
    pub(super) batcher: Batcher<Timestamp>,
    /// Events of each site that wait for company.
    pub(super) lingering: HashMap<SiteId, usize>,
    pub(super) clock: Timestamp,
    /// How long an event of a site waits for company that came when the clock stood there, and until when.
    pub(super) patience: Option<((SiteId, Timestamp), SignedDuration, Timestamp)>,
    /// Times after this are wrong: the present when it began, and an hour for clocks that differ.
    pub(super) latest: Timestamp,
    pub(super) order: InOrder,
    /// Batches whose time has come: room that is used again.
    pub(super) due: Vec<Batch>,
    pub(super) summary: Summary,
    /// Events that the progress doesn't show yet.
    pub(super) unshown: u64,
    /// Bodies that are to be written together.
    pub(super) bodies: Vec<u8>,
    pub(super) written: Result<(), io::Error>,
}

/// Bytes of bodies that are written together.
const WRITTEN_AT_ONCE: usize = 64 * 1024;

impl State {
    /// Writes the bodies that have come together.
    pub(super) fn write(&mut self) {
        if self.written.is_ok() {
            let mut out = io::stdout().lock();
            let written = match out.is_terminal() {
                true => out.write_all(shown_json(&String::from_utf8_lossy(&self.bodies)).as_bytes()),
                false => out.write_all(&self.bodies),
            };
            self.written = written.and_then(|()| out.flush());
            // Nobody reads on, or the disk is full.
            self.limited |= self.written.is_err();
        }
        self.bodies.clear();
    }
}

impl Collector<'_> {
    fn give(&self, state: &mut State, batches: impl IntoIterator<Item = Batch>) {
        for batch in batches {
            match self.outlet {
                Outlet::Send { delivery, .. } => {
                    let lingering = state.lingering.entry(batch.site()).or_default();
                    *lingering = lingering.saturating_sub(batch.len());
                    delivery.submit_batch(batch);
                }
                Outlet::DryRun(keys) => {
                    let mut next = state.order.take(batch);
                    while let Some(batch) = next {
                        if let Some(key) = keys.get(&batch.site()) {
                            payload::body(key, &batch, false, &mut state.bodies);
                            state.bodies.push(b'\n');
                            state.summary.requests += 1;
                        }
                        if state.bodies.len() >= WRITTEN_AT_ONCE {
                            state.write();
                        }
                        batch.spare();
                        next = state.order.take_early();
                    }
                }
            }
        }
    }

    pub(super) fn flush(&self) {
        let state = &mut *self.state.borrow_mut();
        let batches = state.batcher.drain();
        self.give(state, batches);
        self.show(state);
    }

    /// Shows how far it has come.
    fn show(&self, state: &mut State) {
        let progress = &self.options.progress;
        progress.events.fetch_add(std::mem::take(&mut state.unshown), Ordering::Relaxed);
        if let Outlet::DryRun(_) = self.outlet {
            progress.posts.store(state.summary.requests, Ordering::Relaxed);
        }
    }
}

impl Sink for Collector<'_> {
    fn submit(&self, event: Box<Event>) {
        let state = &mut *self.state.borrow_mut();
        state.summary.event(&event);
        // Logs are a little out of order; the latest time seen is the log's clock.
        // A line from the future says nothing of when the others come.
        let time = event.time.filter(|time| *time <= state.latest);
        state.clock = state.clock.max(time.unwrap_or(state.clock));
        let mut due = std::mem::take(&mut state.due);
        state.batcher.take_due(state.clock, &mut due);
        self.give(state, due.drain(..));
        state.due = due;
        let (_, linger, due) = match state.patience {
            Some(known) if known.0 == (event.origin.site, state.clock) => known,
            _ => {
                let linger = self.options.linger.get(&event.origin.site).copied().unwrap_or_default();
                let linger = SignedDuration::try_from(linger).unwrap_or_default();
                let due = state.clock.checked_add(linger).unwrap_or(Timestamp::MAX);
                *state.patience.insert(((event.origin.site, state.clock), linger, due))
            }
        };
        if let Outlet::Send { rooms, .. } = self.outlet {
            rooms.enter(event.origin.site, event.weight());
            *state.lingering.entry(event.origin.site).or_default() += 1;
        }
        state.unshown += 1;
        // What the log wrote late may be far from what waits: only near ones travel together, whichever came first.
        let are_near = |one: &Event, other: &Event| {
            one.time.zip(other.time).is_none_or(|(one, other)| one.duration_since(other).abs() < linger)
        };
        let full = state.batcher.add_beside(event, due, are_near);
        self.give(state, full);
        state.limited |= self.options.limit.is_some_and(|limit| state.batcher.opened() >= limit);
    }

    fn has_room(&self, site: SiteId) -> bool {
        if self.state.borrow().limited {
            return false;
        }
        let Outlet::Send { rooms, .. } = self.outlet else { return true };
        if rooms.has_room(site) {
            return true;
        }
        // Here it may stay for a while.
        self.show(&mut self.state.borrow_mut());
        // What is on its way makes room, and what lingers by the log's time goes on lingering: how long an endpoint takes
        // must not tell which events travel together.
        let lingering = self.state.borrow().lingering.get(&site).copied().unwrap_or(0);
        if lingering < rooms.open(site) {
            return false;
        }
        // Nothing else is left, and it would never be sent while nothing is read.
        self.flush();
        rooms.has_room(site)
    }

    fn advance(&self, advance: Advance) {
        let name = advance.site.and_then(|site| self.names.get(&site)).map(String::as_str);
        let counts = source::counts_of(&advance);
        self.options.progress.lines.fetch_add(counts.lines, Ordering::Relaxed);
        let state = &mut *self.state.borrow_mut();
        state.summary.add(name, counts);
        self.show(state);
        if let Outlet::Send { ledger, .. } = self.outlet
            && self.recording.get()
        {
            ledger.advance(advance);
        }
    }

    fn keeps_lines(&self) -> bool {
        matches!(self.outlet, Outlet::Send { .. })
    }

    fn already_sent(&self, site: SiteId) {
        self.state.borrow_mut().summary.was_settled(self.names.get(&site).map(String::as_str));
    }

    fn saw(&self, row: &LogRow, _pipeline: &Pipeline, taken: &Taken, cut: Cut<'_>) {
        if let Some(reason) = taken.outcome.reason() {
            self.state.borrow_mut().summary.reason(taken.outcome.name(), reason);
        } else if let (pipeline::Outcome::Unparsed, Cut::Line(line)) = (&taken.outcome, cut) {
            self.state.borrow_mut().summary.sample(&row.path, line.span.start, line.bytes);
        }
    }

    fn update(&self, row: LogRow) {
        if let Outlet::Send { ledger, .. } = self.outlet
            && self.recording.get()
        {
            ledger.update_log(row);
        }
    }
}
