//! `silktail rejected`: the events that the endpoint refused for good, to look at, to send again, to forget.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Failure, load, print, print_json, printable, say};
use crate::backfill::PATIENCE;
use crate::batch::Batch;
use crate::daemon::delivery_site;
use crate::deliver::{Delivery, Outcome, Settle, Settlement, SiteSnapshot};
use crate::journal;
use crate::ledger::{Ledger, Rejected, Role};

/// The arguments of `rejected`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

/// What to do with them.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show them: when, whose, the endpoint's answer, the log and the offset of the line
    List {
        #[command(flatten)]
        chosen: Chosen,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Send them again; what is taken is forgotten, what is refused stays
    ///
    /// The API has no time field: they are recorded as happening now.
    Retry {
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Forget them
    Drop {
        #[command(flatten)]
        chosen: Chosen,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
}

/// Which of them.
#[derive(Debug, clap::Args)]
struct Chosen {
    /// Their numbers, as `list` shows them; without one, all
    #[arg(value_name = "NUMBER")]
    ids: Vec<i64>,
    /// Those of one site only
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
}

/// Lists, retries or drops.
pub fn run(config_path: &Path, args: &Args) -> Result<(), Failure> {
    let config = load(config_path)?;
    journal::start(journal::Form::Text);
    let (What::List { chosen, .. } | What::Retry { chosen } | What::Drop { chosen, .. }) = &args.what;
    let failed = |error: &dyn std::error::Error| Failure::from_error(error);
    let reader = Ledger::open_read_only(&config.state_dir).map_err(|error| failed(&error))?;
    let all = || reader.iter().flat_map(|reader| reader.rejected(chosen.site.as_deref()));
    let found = all().map(|rejected| Ok(rejected.map_err(|error| failed(&error))?.id));
    let mut ids = found.collect::<Result<Vec<i64>, Failure>>()?;
    // What a site was refused is there also after it was taken out of the configuration.
    if let Some(name) = &chosen.site
        && ids.is_empty()
        && !config.sites.iter().any(|site| site.name == *name)
    {
        let names: Vec<&str> = config.sites.iter().map(|site| site.name.as_str()).collect();
        let shown = printable(name);
        return Err(Failure::Usage(format!("no site is named `{shown}`; there are: {}", names.join(", "))));
    }
    if let Some(missing) = chosen.ids.iter().find(|id| !ids.contains(id)) {
        return Err(Failure::Failed(format!("no rejected event has the number {missing}")));
    }
    ids.retain(|id| chosen.ids.is_empty() || chosen.ids.contains(id));
    let is_chosen = |rejected: &Rejected| ids.binary_search(&rejected.id).is_ok();
    let events = all()
        .map(|rejected| rejected.map_err(|error| failed(&error)))
        .filter(|rejected| rejected.as_ref().map_or(true, is_chosen));
    let open = || Ledger::open(&config.state_dir, Role::Beside).map_err(|error| failed(&error));
    match &args.what {
        What::List { json, .. } => list(events, *json),
        _ if ids.is_empty() => print("there is none\n"),
        What::Drop { yes, .. } => {
            if !yes {
                confirm(&format!("Forget {} rejected events?", ids.len()))?;
            }
            let ledger = open()?;
            for id in &ids {
                ledger.drop_rejected(*id).map_err(|error| failed(&error))?;
            }
            print(&format!("{} rejected events forgotten\n", ids.len()))
        }
        What::Retry { .. } => {
            let rejected = events.collect::<Result<Vec<_>, Failure>>()?;
            let known = |rejected: &Rejected| config.sites.iter().any(|site| site.name == rejected.site);
            let (rejected, orphans): (Vec<_>, Vec<_>) = rejected.into_iter().partition(known);
            let mut of_site: BTreeMap<String, usize> = BTreeMap::new();
            orphans.iter().for_each(|orphan| *of_site.entry(printable(&orphan.site)).or_default() += 1);
            for (site, count) in &of_site {
                say(&format!(
                    "warning: {count} events are of `{site}`, a site that the configuration doesn't have: put it back, or \
                     forget them with `silktail rejected drop --site {site}`"
                ));
            }
            let ledger = open()?;
            ledger.has_room().map_err(|error| failed(&error))?;
            retry(&config, &ledger, rejected, orphans.len())
        }
    }
}

fn confirm(question: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage("nobody can be asked here: say --yes".to_owned()));
    }
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::Failed(format!("cannot read the answer: {error}")))?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Failure::Failed("nothing was done".to_owned()))
}

/// Shows them as they are read: all of them at once may be more than should be in memory.
fn list(rejected: impl Iterator<Item = Result<Rejected, Failure>>, json: bool) -> Result<(), Failure> {
    const SOME: usize = 64 * 1024;
    let show = if json { print_json } else { print };
    let mut out = String::new();
    let mut none = true;
    for rejected in rejected {
        let Rejected { id, site, log, at, status, reason, event } = rejected?;
        none = false;
        if out.len() >= SOME {
            show(&std::mem::take(&mut out))?;
        }
        if json {
            let properties: serde_json::Map<_, _> =
                event.properties.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            let line = json!({
                "number": id, "site": site, "at": at.to_string(), "status": status, "reason": reason,
                "log": log.display().to_string(), "offset": event.origin.line.start,
                "time": event.time.map(|time| time.to_string()), "event": &*event.name, "url": event.url,
                "page": event.page, "ip": event.visitor.ip, "user_agent": event.visitor.user_agent,
                "view_width": event.visitor.view_width, "properties": properties,
            });
            out.push_str(&format!("{line}\n"));
        } else {
            let status = status.map_or_else(|| "-".to_owned(), |status| status.to_string());
            let excerpt: String = printable(&reason).chars().take(120).collect();
            out.push_str(&format!(
                "{id:>6}  {at}  {site}  {status}  {}  {}\n        {}, offset {}: {excerpt}\n",
                printable(&event.name),
                printable(&event.url),
                printable(&log.display().to_string()),
                event.origin.line.start,
            ));
        }
    }
    if none && !json {
        out.push_str("there is none\n");
    }
    show(&out)
}

/// Takes what became of events that were in the state as rejected.
struct Retried {
    ledger: Ledger,
    /// Delivered, refused again.
    counts: Mutex<(usize, usize)>,
    changed: tokio::sync::Notify,
}

impl Settle for Retried {
    async fn settle(&self, settlement: Settlement) {
        // By its number: one line's event may be there twice.
        let id = settlement.batch.number.cast_signed();
        for event in settlement.batch.events() {
            let kept = match &settlement.outcome {
                Outcome::Delivered => self.ledger.rejected_was_delivered(id, event.origin.site),
                Outcome::Rejected { status, reason } => self.ledger.rejected_again(id, *status, reason),
            };
            if let Err(error) = kept {
                say(&format!("error: {error}; event {id} may be sent again by the next retry"));
            }
        }
        let count = settlement.batch.len();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if settlement.outcome == Outcome::Delivered {
            counts.0 += count
        } else {
            counts.1 += count
        }
        drop(counts);
        self.changed.notify_one();
    }
}

/// Sends them; `orphans` are left in any case.
fn retry(
    config: &crate::config::Config,
    ledger: &Ledger,
    mut rejected: Vec<Rejected>,
    orphans: usize,
) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::from_error(error);
    let all = rejected.len();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut term = signal(SignalKind::terminate()).map_err(|error| failed(&error))?;
        let mut int = signal(SignalKind::interrupt()).map_err(|error| failed(&error))?;
        let mut sites = Vec::new();
        for site in &config.sites {
            let id = ledger.site(&site.name).map_err(|error| failed(&error))?;
            let mut settings = delivery_site(site, id);
            // Whoever says retry means these, however old.
            settings.endpoint.max_age = std::time::Duration::ZERO;
            sites.push(settings);
        }
        let retried =
            Arc::new(Retried { ledger: ledger.clone(), counts: Mutex::default(), changed: tokio::sync::Notify::new() });
        let delivery = Delivery::start(sites, Arc::clone(&retried)).map_err(|error| failed(&error))?;
        // Those first that were tried longest ago: where the set-up is blamed for a score of them, the next retry begins with
        // others.
        rejected.sort_by_key(|rejected| (rejected.at, rejected.id));
        for Rejected { id, event, .. } in rejected {
            delivery.submit_batch(Batch::of(id.cast_unsigned(), event));
        }
        let counts = || *retried.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stopped = false;
        let mut taken = (0, Instant::now());
        loop {
            let (delivered, refused) = counts();
            // Sites that are set up wrongly keep theirs; the others are finished first.
            let sites = delivery.snapshot();
            let mut left = sites.iter().filter(|site| site.waiting + site.in_flight > 0).peekable();
            let stuck = left.peek().is_some() && left.all(SiteSnapshot::is_set_up_wrongly);
            if delivered + refused > taken.0 {
                taken = (delivered + refused, Instant::now());
            }
            if delivered + refused >= all || stuck || stopped || taken.1.elapsed() >= PATIENCE {
                break;
            }
            tokio::select! {
                () = retried.changed.notified() => {}
                () = tokio::time::sleep(std::time::Duration::from_millis(200)) => {}
                _ = term.recv() => stopped = true,
                _ = int.recv() => stopped = true,
            }
        }
        delivery.stop(Duration::ZERO, crate::daemon::STOP_GRACE).await;
        ledger.sync().map_err(|error| failed(&error))?;
        let (delivered, refused) = counts();
        let left = all - delivered - refused + orphans;
        print(&format!("{delivered} delivered, {refused} refused again, {left} left\n"))?;
        if delivered < all {
            let error = delivery.snapshot().into_iter().find_map(|site| site.last_error);
            let why = error.map_or_else(String::new, |error| format!(": {}", printable(&error)));
            return Err(Failure::Failed(format!("not all were taken{why}")));
        }
        if orphans > 0 {
            return Err(Failure::Failed(format!("{orphans} are of sites that the configuration doesn't have")));
        }
        Ok(())
    })
}
