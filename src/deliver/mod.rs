//! Sends batches to the endpoint and says what became of them.
//!
//! One task decides (batching, whose turn, when to try again); each POST is a task of its own. A POST's place among
//! `max_in_flight` is free only when its outcome is committed: that bounds what a crash can double.

pub mod backoff;
pub mod client;
pub mod connect;
mod dispatcher;
pub mod http;
pub mod limit;
pub mod payload;
mod settings;
mod site;
mod stats;
pub mod verdict;

use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use payload::PropertyKey;
pub use settings::{DeliverError, EndpointSettings, SiteSettings};
pub use stats::{SiteSnapshot, Stats};

use crate::batch::Batch;
use crate::event::Event;
use crate::offsets::LogId;
use client::Client;
use dispatcher::{Command, Dispatcher};

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint took it.
    Delivered,
    /// It never will.
    Rejected {
        /// Its answer, if there was one.
        status: Option<u16>,
        /// Why.
        reason: String,
    },
}

/// A batch with its outcome.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// What was sent.
    pub batch: Batch,
    /// What became of it.
    pub outcome: Outcome,
}

/// Who remembers outcomes.
pub trait Settle: Send + Sync + 'static {
    /// Resolves when the outcome is committed.
    fn settle(&self, settlement: Settlement) -> impl Future<Output = ()> + Send;
    /// The path of a log, for those who are told of its lines.
    fn path_of(&self, _log: LogId) -> Option<Arc<Path>> {
        None
    }
}

/// A running delivery.
#[derive(Debug)]
pub struct Delivery<S> {
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared<S>>,
}

#[derive(Debug)]
struct Shared<S> {
    settle: Arc<S>,
    requests: AtomicU64,
    snapshot: Mutex<Vec<SiteSnapshot>>,
    stats: Mutex<Stats>,
}

impl<S: Settle> Delivery<S> {
    /// Starts on the tokio runtime that this is called in.
    ///
    /// # Errors
    /// [`DeliverError`].
    pub fn start(sites: Vec<SiteSettings>, settle: Arc<S>) -> Result<Self, DeliverError> {
        let (commands, received) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            settle,
            requests: AtomicU64::new(0),
            snapshot: Mutex::default(),
            stats: Mutex::default(),
        });
        let mut dispatcher = Dispatcher::new(sites, Arc::clone(&shared), commands.clone())?;
        dispatcher.show();
        tokio::spawn(dispatcher.run(received));
        Ok(Self { commands, shared })
    }

    /// Takes an event; it lingers for company. Never blocks: how much waits is bounded by the caller.
    pub fn submit(&self, event: Box<Event>) {
        // The dispatcher outlives all handles but at the very end, when nothing is sent any more.
        let _ = self.commands.send(Command::Event(event));
    }

    /// Takes a batch that has lingered already.
    pub fn submit_batch(&self, batch: Batch) {
        let _ = self.commands.send(Command::Batch(Box::new(batch)));
    }

    /// Goes on with other settings: what waits is sent by them, and sites that wait for their set-up to be mended try at
    /// once. Sites that aren't among them any more send what they have, by the settings they had.
    ///
    /// # Errors
    /// [`DeliverError`]; nothing has changed then.
    pub fn reload(&self, sites: Vec<SiteSettings>) -> Result<(), DeliverError> {
        let mut clients: Vec<(EndpointSettings, Client)> = Vec::new();
        for site in &sites {
            if !clients.iter().any(|(known, _)| *known == site.endpoint) {
                clients.push((site.endpoint.clone(), Client::new(&site.endpoint)?));
            }
        }
        let _ = self.commands.send(Command::Reload(sites, clients));
        Ok(())
    }

    /// POSTs sent so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Each site as it is now.
    pub fn snapshot(&self) -> Vec<SiteSnapshot> {
        self.shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends what waits, without lingering and without waiting for another try, but begins no POST after `sending`; gives
    /// up after `grace`. Returns how many events were left.
    pub async fn stop(&self, sending: Duration, grace: Duration) -> usize {
        let (done, stopped) = oneshot::channel();
        if self.commands.send(Command::Stop(done, Instant::now() + sending)).is_ok() {
            // Out of time: what is in flight is cut off.
            let _ = tokio::time::timeout(grace, stopped).await;
        }
        self.snapshot().iter().map(|site| site.waiting + site.in_flight).sum()
    }
}
