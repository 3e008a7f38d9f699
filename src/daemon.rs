//! `silktail run`: wires follower, delivery and ledger together, and takes them apart again at a stop.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Hooked;
use tokio::sync::Semaphore;

use crate::background::Background;
use crate::config::{self, Config};
use crate::deliver::{DeliverError, Delivery, Outcome, Settle, Settlement, SiteSettings};
use crate::event::Event;
use crate::follow::source::{Happened, Place, Sink, counts_of};
use crate::follow::watch::{Wake, Watches};
use crate::follow::{Follower, FormatChoice, Start, Target, Wishes};
use crate::format::{BUILTIN, Format};
use crate::journal::{self, ANSWER};
use crate::ledger::{self, Advance, Ledger, LedgerError, LogRow, Role};
use crate::lines::Cut;
use crate::oddities::{Fit, FitChange, FrontProxy, Proxied};
use crate::offsets::{LogId, Origin, SiteId};
use crate::outbox::{Rooms, Settler};
use crate::pipeline;
use crate::status::access::{Listen, Token};
use crate::status::counters::{Counters, Sum};
use crate::status::live;
use crate::status::logs::size_of;
use crate::status::server::{self, Listening};
use crate::visitor::repeats::Repeats;

/// How long a stop may take: what is in flight is waited for this long.
pub const STOP_GRACE: Duration = Duration::from_secs(20);
/// Visitors' requests that the repeat window remembers, all sites together; the least recently used leave first.
pub const WINDOW_ENTRIES: usize = 262_144;

/// Why the daemon couldn't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The ledger can't be opened or read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The HTTP client can't be built.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// A thread or the runtime can't be started.
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
    /// The status page's address.
    #[error("cannot listen on {0} for [status]: {1}; choose another address, or stop what listens there")]
    Listen(Listen, #[source] std::io::Error),
    /// The follower's thread is gone.
    #[error("the follower ended unexpectedly; nothing is lost, start again and report this")]
    FollowerGone,
}

/// What the thread that reloads is asked for.
#[derive(Debug)]
pub enum Ask {
    /// Read the configuration anew.
    Reload,
    /// End: who still holds the ledger keeps its database from being closed.
    End,
}

/// Signals caught from the first moment; they wait until somebody takes them.
#[derive(Debug)]
pub struct Signals(Hooked);

impl Signals {
    /// Catches SIGTERM, SIGINT and SIGHUP.
    ///
    /// # Errors
    /// Those of the system.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self(Hooked::new([SIGTERM, SIGINT, SIGHUP])?))
    }

    /// Brings the signals to the follower, and SIGHUP to whoever reloads; the second that asks to stop ends the process
    /// at once.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn forward(mut self, wakes: SyncSender<Wake>, reloads: Sender<Ask>) -> std::io::Result<()> {
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let mut stopping = false;
            for signal in self.0.forever() {
                match signal {
                    // At a stop there is nobody left to reload.
                    SIGHUP => drop(reloads.send(Ask::Reload)),
                    _ if stopping => {
                        tracing::warn!("stopped at once; what was in flight may be sent again");
                        // Restores the default and raises it: the exit status says what happened.
                        let _ = signal_hook::low_level::emulate_default_handler(signal);
                    }
                    _ => {
                        stopping = true;
                        ledger::hurry();
                        tracing::info!("stopping: sending what waits");
                        // Blocks while the follower is busy; it takes its wakes between two blocks.
                        let _ = wakes.send(Wake::Stop);
                    }
                }
            }
        })?;
        Ok(())
    }
}

/// The pipeline's view of a configured site.
pub fn pipeline_site(site: config::Site, id: SiteId) -> pipeline::Site {
    pipeline::Site {
        id,
        name: site.name,
        context: site.context,
        hosts: site.hosts,
        rules: site.rules,
        bots: site.bots,
        exclude_ips: site.exclude_ips,
        trusted_proxies: site.trusted_proxies,
        respect_dnt: site.respect_dnt,
        repeat_window: site.repeat_window,
    }
}

/// How a site's logs are read, among the built-in formats and the user's.
pub fn format_choice(site: &config::Site, formats: &[Format]) -> FormatChoice {
    match &site.format {
        config::FormatChoice::Fixed(format) => FormatChoice::Fixed(format.clone()),
        config::FormatChoice::Auto => {
            let zone = jiff::tz::TimeZone::system();
            let builtin = BUILTIN.iter().filter_map(|name| Format::builtin(name, &zone));
            FormatChoice::Auto(formats.iter().cloned().chain(builtin).collect())
        }
    }
}

/// What delivery needs of a configured site.
pub fn delivery_site(site: &config::Site, id: SiteId) -> SiteSettings {
    SiteSettings {
        id,
        name: site.name.clone(),
        property_key: site.property_key.clone(),
        endpoint: site.endpoint.clone(),
    }
}

/// A settler that lets those who watch know.
#[derive(Debug)]
struct Watching {
    settler: Settler,
    counters: Arc<Counters>,
}

impl Settle for Watching {
    fn path_of(&self, log: LogId) -> Option<Arc<Path>> {
        // Of nearly all it is known here; to ask the state takes its turn.
        let open = self.counters.logs().path(log);
        open.or_else(|| self.settler.path_of(log))
    }

    async fn settle(&self, settlement: Settlement) {
        let origins: Vec<Origin> = settlement.batch.events().map(|event| event.origin).collect();
        let rejected = settlement.outcome != Outcome::Delivered;
        self.settler.settle(settlement).await;
        self.counters.settled(origins.len() as u64, rejected);
        self.counters.logs().settled(&origins);
    }
}

struct Outlet {
    ledger: Ledger,
    rooms: Arc<Rooms>,
    delivery: Arc<Delivery<Watching>>,
    counters: Arc<Counters>,
    /// Whether systemd wants to hear that the follower comes round.
    watchdog: bool,
    watched: Mutex<Watched>,
}

/// What is odd so far, by site and by log.
#[derive(Default)]
struct Watched {
    proxies: HashMap<SiteId, FrontProxy>,
    fits: HashMap<LogId, Fit>,
}

impl Sink for Outlet {
    fn submit(&self, event: Box<Event>) {
        self.rooms.enter(event.origin.site, event.weight());
        self.counters.logs().opened(event.origin, Instant::now());
        self.delivery.submit(event);
    }

    fn has_room(&self, site: SiteId) -> bool {
        self.rooms.has_room(site)
    }

    fn is_sending(&self, site: SiteId) -> bool {
        self.delivery.snapshot().iter().all(|seen| seen.id != site || seen.state == "sending")
    }

    fn advance(&self, advance: Advance) {
        self.counters.add(advance.site, counts_of(&advance));
        self.ledger.advance(advance);
    }

    fn update(&self, row: LogRow) {
        if row.ended {
            self.watched.lock().unwrap_or_else(PoisonError::into_inner).fits.remove(&row.id);
        }
        self.ledger.update_log(row);
    }

    fn already_sent(&self, _site: SiteId) {}

    fn happened(&self, what: Happened<'_>) {
        match what {
            Happened::Rotation(path) => self.counters.happened(path, |life| life.rotations += 1),
            Happened::Truncation(path) => self.counters.happened(path, |life| life.truncations += 1),
            Happened::GivenUp { path, unread } => self.counters.happened(path, |life| {
                life.given_up += 1;
                life.unread += unread;
            }),
            Happened::Turn { files, unreadable } => {
                self.counters.turn(files, unreadable);
                if self.watchdog {
                    // Where it can't be told, the watchdog bites: that is what it is for.
                    let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
                }
            }
        }
    }

    fn stands(&self, log: LogId, place: Place) {
        self.counters.logs().stands(log, place);
    }

    fn left(&self, log: LogId) {
        self.counters.logs().left(log);
    }

    fn saw(&self, row: &LogRow, pipeline: &pipeline::Pipeline, taken: &pipeline::Taken, cut: Cut<'_>) {
        if let Some(reason) = taken.outcome.reason() {
            let site = taken.site.and_then(|index| pipeline.sites.get(index)).map(|site| site.id);
            self.counters.reason(site, taken.outcome.name(), reason);
        }
        // Only the follower's thread comes here; a lock that nobody else wants costs nothing to speak of.
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = taken.outcome != pipeline::Outcome::Unparsed;
        let change = watched.fits.entry(row.id).or_default().see(fits, cut.span().start);
        say_fit(change, row, pipeline);
        let Some((client, site)) = taken.client.zip(taken.site.and_then(|index| pipeline.sites.get(index))) else {
            return;
        };
        if let Some(found) = watched.proxies.entry(site.id).or_default().see(client) {
            let path = row.path.display();
            tracing::warn!(site = site.name, %path, hint = Proxied::HINT, "{}", found.what());
        }
    }

    fn glanced_at(&self, row: &LogRow, pipeline: &pipeline::Pipeline, lines: u64, offset: u64) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let change = watched.fits.entry(row.id).or_default().see_fitting(lines, offset);
        say_fit(change, row, pipeline);
    }
}

/// Says that a log's lines don't fit its format any more, or fit it again.
fn say_fit(change: Option<FitChange>, row: &LogRow, pipeline: &pipeline::Pipeline) {
    let path = row.path.display();
    match change {
        Some(FitChange::Misfits { unfit, lines, first_offset }) => tracing::warn!(
            %path, format = pipeline.format.name(), unfit, lines, first_offset,
            hint = "`silktail explain` shows where a line stops fitting",
            "lines don't fit the format"
        ),
        Some(FitChange::Fits) => tracing::info!(%path, format = pipeline.format.name(), "lines fit the format again"),
        None => {}
    }
}

/// Follows until a signal says stop.
///
/// # Errors
/// [`DaemonError`]: nothing was started, or the state can't be kept.
pub fn run(config: Config, signals: Signals) -> Result<(), DaemonError> {
    let (wakes, woken) = sync_channel(1_024);
    let (reloads, asked) = channel();
    signals.forward(wakes.clone(), reloads.clone())?;
    let ledger = Ledger::open(&config.state_dir, Role::Daemon)?;
    let mut repeats = Repeats::new(ledger.secret(), WINDOW_ENTRIES);
    repeats.restore(ledger.touches()?.into_iter());

    let background = Background::start()?;
    let rooms = Arc::new(Rooms::default());
    let counters = Arc::new(Counters::default());
    let settler = Settler { ledger: ledger.clone(), rooms: Arc::clone(&rooms), wakes: Some(wakes.clone()) };
    let settler = Arc::new(Watching { settler, counters: Arc::clone(&counters) });
    let (path, state_dir) = (config.path.clone(), config.state_dir.clone());
    let (listen, token) = config.status.clone().map(|status| (status.listen, status.token)).unzip();
    let token = Arc::new(Mutex::new(token.flatten()));
    let (wishes, deliveries) = take_apart(config, &ledger)?;
    let names = Arc::new(Mutex::new(names_of(&deliveries)));
    let delivery = {
        let _inside = background.enter();
        Arc::new(Delivery::start(deliveries, settler)?)
    };
    let watchdog = sd_notify::watchdog_enabled();
    let outlet = Outlet {
        ledger: ledger.clone(),
        rooms: Arc::clone(&rooms),
        delivery: Arc::clone(&delivery),
        counters: Arc::clone(&counters),
        watchdog: watchdog.is_some(),
        watched: Mutex::default(),
    };
    let listening = match &listen {
        None => None,
        Some(listen) => {
            let bound = background.block_on(Listening::bind(listen));
            Some(bound.map_err(|error| DaemonError::Listen(listen.clone(), error))?)
        }
    };
    let status = listening.as_ref().map(Listening::address).transpose()?;
    if let (Some(listening), Some(address)) = (listening, &status) {
        tracing::info!(address, "status page and metrics");
        let shown = server::Shown {
            state_dir: state_dir.clone(),
            ledger: ledger.clone(),
            delivery: Arc::clone(&delivery),
            rooms: Arc::clone(&rooms),
            names: Arc::clone(&names),
            counters: Arc::clone(&counters),
            token: Arc::clone(&token),
            turns: Semaphore::new(1),
        };
        background.spawn(server::serve(listening, Arc::new(shown)));
    }
    let reloader = Reloader {
        path,
        state_dir: state_dir.clone(),
        listen: listen.clone(),
        token,
        counters: Arc::clone(&counters),
        ledger: ledger.clone(),
        delivery: Arc::clone(&delivery),
        names: Arc::clone(&names),
        wakes: wakes.clone(),
    };
    let reloading = std::thread::Builder::new().name("reload".into()).spawn(move || {
        while let Ok(Ask::Reload) = asked.recv() {
            reloader.reload();
        }
    })?;
    // Between two turns there may be much to read: it is heard of twice in the time that it has.
    let watches = Watches::new(wakes).turning_within(watchdog.map_or(Duration::MAX, |within| within / 3));
    let follower = Follower::new(wishes, ledger.clone(), repeats, outlet, watches, woken)?;
    let live = background.spawn(live::publish(
        live::path(&state_dir),
        names,
        Arc::clone(&delivery),
        Arc::clone(&rooms),
        Arc::clone(&counters),
        ledger.clone(),
        status,
    ));
    let summary = Arc::new(Mutex::new(Summary::new(Arc::clone(&counters), Arc::clone(&rooms))));
    let minutes = background.spawn(say_each_minute(Arc::clone(&summary)));
    let thread = std::thread::Builder::new().name("follower".into()).spawn(move || {
        follower.run(|files| {
            counters.following.store(true, Ordering::Relaxed);
            tracing::info!(files, "ready");
            // Outside systemd there is nobody to notify.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        })
    })?;
    let followed = thread.join().map_err(|_| DaemonError::FollowerGone);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    live.abort();
    minutes.abort();
    // It may be gone already, or have panicked and said so.
    let _ = reloads.send(Ask::End);
    let _ = reloading.join();
    // What can't be remembered isn't waited for.
    let grace = if ledger.is_stuck() { Duration::from_secs(1) } else { STOP_GRACE };
    let unsent = background.block_on(delivery.stop(grace / 2, grace));
    drop(background);
    live::remove(&state_dir);
    if let Some(Listen::Unix(path)) = &listen {
        // A socket that is left behind is taken over at the next start.
        let _ = std::fs::remove_file(path);
    }
    ledger.sync()?;
    summary.lock().unwrap_or_else(PoisonError::into_inner).say();
    if unsent > 0 {
        tracing::info!(
            events = unsent,
            "stopped; what wasn't sent is read again at the next start, from logs that are still there"
        );
    } else {
        tracing::info!("stopped; everything read was sent");
    }
    followed??;
    Ok(())
}

/// What the follower and the delivery each need of a configuration; sites get their numbers from the ledger.
fn take_apart(config: Config, ledger: &Ledger) -> Result<(Wishes, Vec<SiteSettings>), LedgerError> {
    let mut targets = Vec::new();
    let mut deliveries = Vec::new();
    for site in config.sites {
        let id = ledger.site(&site.name)?;
        deliveries.push(delivery_site(&site, id));
        let (format, logs) = (format_choice(&site, &config.formats), site.logs.clone());
        let site = Arc::new(pipeline_site(site, id));
        targets.extend(logs.into_iter().map(|pattern| Target {
            pattern,
            site: Arc::clone(&site),
            format: format.clone(),
        }));
    }
    let start = match config.follow.start {
        config::Start::End => Start::End,
        config::Start::Beginning => Start::Beginning,
    };
    let linger = deliveries.iter().map(|site| site.endpoint.linger).min().unwrap_or_default();
    let rest = Wishes::rest_for(linger);
    Ok((Wishes { targets, start, max_line: config.follow.max_line, rest }, deliveries))
}

fn names_of(deliveries: &[SiteSettings]) -> Vec<(SiteId, String)> {
    deliveries.iter().map(|site| (site.id, site.name.clone())).collect()
}

/// Takes a changed configuration into use, whole or not at all.
struct Reloader {
    path: PathBuf,
    state_dir: PathBuf,
    listen: Option<Listen>,
    token: Arc<Mutex<Option<Token>>>,
    counters: Arc<Counters>,
    ledger: Ledger,
    delivery: Arc<Delivery<Watching>>,
    names: Arc<Mutex<Vec<(SiteId, String)>>>,
    wakes: SyncSender<Wake>,
}

impl Reloader {
    fn reload(&self) {
        let refused = self.try_reload().err();
        self.counters.reload(refused);
    }

    /// Takes the configuration into use; or why not, in few words: the rest has been said.
    fn try_reload(&self) -> Result<(), String> {
        let path = self.path.display();
        let env = |name: &str| std::env::var(name).ok();
        let loaded = match config::load(&self.path, &env) {
            Ok(loaded) => loaded,
            Err(report) => {
                // The diagnostics as `check` gives them, each line in the journal.
                let lines = report.render_problems(false);
                for line in lines.lines().filter(|line| !line.is_empty()) {
                    tracing::error!(target: ANSWER, "{line}");
                }
                let hint = "mend it and reload again; `silktail check` says the same";
                tracing::error!(target: ANSWER, %path, errors = report.errors, hint, "configuration refused, the old one goes on");
                let plural = if report.errors == 1 { "" } else { "s" };
                return Err(format!("{path} has {} error{plural}: `silktail check` says what is wrong", report.errors));
            }
        };
        let listen = loaded.config.status.as_ref().map(|status| status.listen.clone());
        for (key, changed) in
            [("state_dir", loaded.config.state_dir != self.state_dir), ("[status] listen", listen != self.listen)]
        {
            if changed {
                let hint = "restart the service, or take the change back";
                tracing::error!(target: ANSWER, %path, hint, "`{key}` can't change while running: configuration refused, the old one goes on");
                return Err(format!("`{key}` can't change while running: {hint}"));
            }
        }
        for line in loaded.warnings.render_problems(false).lines().filter(|line| !line.is_empty()) {
            tracing::warn!(target: ANSWER, "{line}");
        }
        let token = loaded.config.status.as_ref().and_then(|status| status.token.clone());
        let taken = take_apart(loaded.config, &self.ledger).map_err(DaemonError::from);
        let applied = taken.and_then(|(wishes, deliveries)| {
            let names = names_of(&deliveries);
            // Before the follower: it may have events of a new site at once.
            self.delivery.reload(deliveries)?;
            *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
            Ok(wishes)
        });
        match applied {
            Ok(wishes) => {
                *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
                tracing::info!(target: ANSWER, %path, "configuration reloaded");
                // A stop that comes in between wins.
                let _ = self.wakes.send(Wake::Reload(Box::new(wishes)));
                Ok(())
            }
            Err(error) => {
                tracing::error!(target: ANSWER, %path, %error, "configuration refused, the old one goes on");
                Err(error.to_string())
            }
        }
    }
}

/// What has happened since it was last said.
#[derive(Debug)]
struct Summary {
    counters: Arc<Counters>,
    rooms: Arc<Rooms>,
    said: Sum,
    at: Instant,
}

impl Summary {
    fn new(counters: Arc<Counters>, rooms: Arc<Rooms>) -> Self {
        Self { said: counters.sum(), counters, rooms, at: Instant::now() }
    }

    /// Says it, if there is something to say.
    fn say(&mut self) {
        let now = self.counters.sum();
        let in_seconds = std::mem::replace(&mut self.at, Instant::now()).elapsed().as_secs_f64().round() as u64;
        let Sum { lines, events, delivered, rejected } = now.since(&std::mem::replace(&mut self.said, now));
        if lines + delivered + rejected == 0 {
            return;
        }
        let logs = self.counters.logs().clone();
        let lag_bytes: u64 = logs.standing(self.at, size_of).iter().map(|log| log.lag_bytes).sum();
        let waiting = self.rooms.total();
        tracing::info!(lines, events, delivered, rejected, waiting, lag_bytes, in_seconds, "summary");
    }
}

/// The summary, and the warnings that were only counted.
async fn say_each_minute(summary: Arc<Mutex<Summary>>) {
    const MINUTE: Duration = Duration::from_secs(60);
    let mut minutes = tokio::time::interval_at(tokio::time::Instant::now() + MINUTE, MINUTE);
    minutes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        minutes.tick().await;
        summary.lock().unwrap_or_else(PoisonError::into_inner).say();
        journal::say_recurring(false);
    }
}
