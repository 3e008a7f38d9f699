//! `silktail run`: wires follower, delivery and ledger together, and takes them apart again at a stop.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Hooked;

use crate::config::{self, Config};
use crate::deliver::{DeliverError, Delivery, SiteSettings};
use crate::event::Event;
use crate::follow::watch::{Wake, Watches};
use crate::follow::{Follower, FormatChoice, Start, Target, source::Sink};
use crate::format::{BUILTIN, Format};
use crate::ledger::{Advance, Ledger, LedgerError, LogRow, Role};
use crate::lines::Cut;
use crate::oddities::{Fit, FitChange, FrontProxy, Proxied};
use crate::offsets::{LogId, SiteId};
use crate::outbox::{Rooms, Settler};
use crate::pipeline;
use crate::status::live;
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
    /// The follower's thread is gone.
    #[error("the follower ended unexpectedly; nothing is lost, start again and report this")]
    FollowerGone,
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

    /// Brings the signals to the follower; the second that asks to stop ends the process at once.
    pub fn forward(mut self, wakes: SyncSender<Wake>) -> std::io::Result<()> {
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let mut stopping = false;
            for signal in self.0.forever() {
                match signal {
                    SIGHUP => tracing::warn!(hint = "restart to use a changed configuration", "reload isn't there yet"),
                    _ if stopping => {
                        tracing::warn!("stopped at once; what was in flight may be sent again");
                        // Restores the default and raises it: the exit status says what happened.
                        let _ = signal_hook::low_level::emulate_default_handler(signal);
                    }
                    _ => {
                        stopping = true;
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

struct Outlet {
    ledger: Ledger,
    rooms: Arc<Rooms>,
    delivery: Arc<Delivery<Settler>>,
    watched: Mutex<Watched>,
}

/// What is odd so far, by site and by log.
#[derive(Default)]
struct Watched {
    proxies: HashMap<SiteId, FrontProxy>,
    fits: HashMap<LogId, Fit>,
}

impl Sink for Outlet {
    fn submit(&self, event: Event) {
        self.rooms.enter(event.origin.site);
        self.delivery.submit(event);
    }

    fn has_room(&self, site: SiteId) -> bool {
        self.rooms.has_room(site)
    }

    fn advance(&self, advance: Advance) {
        self.ledger.advance(advance);
    }

    fn update(&self, row: LogRow) {
        if row.ended {
            self.watched.lock().unwrap_or_else(PoisonError::into_inner).fits.remove(&row.id);
        }
        self.ledger.update_log(row);
    }

    fn already_sent(&self, _site: SiteId) {}

    fn saw(&self, row: &LogRow, pipeline: &pipeline::Pipeline, taken: &pipeline::Taken, cut: Cut<'_>) {
        // Only the follower's thread comes here; a lock that nobody else wants costs nothing to speak of.
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = taken.outcome != pipeline::Outcome::Unparsed;
        let path = row.path.display();
        match watched.fits.entry(row.id).or_default().see(fits, cut.span().start) {
            Some(FitChange::Misfits { unfit, lines, first_offset }) => tracing::warn!(
                %path, format = pipeline.format.name(), unfit, lines, first_offset,
                hint = "`silktail explain` shows where a line stops fitting",
                "lines don't fit the format"
            ),
            Some(FitChange::Fits) => {
                tracing::info!(%path, format = pipeline.format.name(), "lines fit the format again")
            }
            None => {}
        }
        let Some((client, site)) = taken.client.zip(taken.site.and_then(|index| pipeline.sites.get(index))) else {
            return;
        };
        if let Some(found) = watched.proxies.entry(site.id).or_default().see(client) {
            tracing::warn!(site = site.name, %path, hint = Proxied::HINT, "{}", found.what());
        }
    }
}

/// Follows until a signal says stop.
///
/// # Errors
/// [`DaemonError`]: nothing was started, or the state can't be kept.
pub fn run(config: Config, signals: Signals) -> Result<(), DaemonError> {
    let ledger = Ledger::open(&config.state_dir, Role::Daemon)?;
    let mut repeats = Repeats::new(ledger.secret(), WINDOW_ENTRIES);
    repeats.restore(ledger.touches()?.into_iter());
    let (wakes, woken) = sync_channel(1_024);
    signals.forward(wakes.clone())?;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let rooms = Arc::new(Rooms::default());
    let settler = Arc::new(Settler { ledger: ledger.clone(), rooms: Arc::clone(&rooms), wakes: Some(wakes.clone()) });
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
    let names: Vec<(SiteId, String)> = deliveries.iter().map(|site| (site.id, site.name.clone())).collect();
    let delivery = {
        let _inside = runtime.enter();
        Arc::new(Delivery::start(deliveries, settler)?)
    };
    let outlet = Outlet {
        ledger: ledger.clone(),
        rooms: Arc::clone(&rooms),
        delivery: Arc::clone(&delivery),
        watched: Mutex::default(),
    };
    let start = match config.follow.start {
        config::Start::End => Start::End,
        config::Start::Beginning => Start::Beginning,
    };
    let follower = Follower::new(
        targets,
        start,
        config.follow.max_line,
        ledger.clone(),
        repeats,
        outlet,
        Watches::new(wakes),
        woken,
    )?;
    let live =
        runtime.spawn(live::publish(live::path(&config.state_dir), names, Arc::clone(&delivery), Arc::clone(&rooms)));
    let thread = std::thread::Builder::new().name("follower".into()).spawn(move || {
        follower.run(|files| {
            tracing::info!(files, "ready");
            // Outside systemd there is nobody to notify.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        })
    })?;
    let followed = thread.join().map_err(|_| DaemonError::FollowerGone);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    live.abort();
    // What can't be remembered isn't waited for.
    let grace = if ledger.is_stuck() { Duration::from_secs(1) } else { STOP_GRACE };
    let unsent = runtime.block_on(delivery.stop(grace));
    runtime.shutdown_timeout(Duration::from_secs(1));
    live::remove(&config.state_dir);
    ledger.sync()?;
    if unsent > 0 {
        tracing::info!(events = unsent, "stopped; what wasn't sent is read again at the next start");
    } else {
        tracing::info!("stopped; everything read was sent");
    }
    followed??;
    Ok(())
}

/// The state directory's lock and database, for messages.
pub fn state_file(state_dir: &Path) -> PathBuf {
    state_dir.join("silktail.db")
}
