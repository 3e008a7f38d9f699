//! What listens where `[status] listen` says: `/metrics`, `/healthz`, `/readyz` and the status page. Everything is worked
//! out when it is asked for: idling costs nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use tokio::net::TcpListener;

use super::counters::Counters;
use super::live::{self, Live};
use super::metrics::{Exposition, Kind};
use super::page;
use super::picture::picture;
use crate::deliver::{Delivery, Settle};
use crate::ledger::Ledger;
use crate::offsets::SiteId;
use crate::outbox::Rooms;

/// A follower that hasn't come round for so long hangs; it comes round every 10 seconds at least.
const HANGS_AFTER: i64 = 60;
/// A site whose endpoint has refused for so long isn't ready.
const TROUBLED_AFTER: Duration = Duration::from_secs(60);

/// Names of the sites by their numbers; a reload changes them.
pub type Names = Arc<Mutex<Vec<(SiteId, String)>>>;

/// What it shows.
#[derive(Debug)]
pub struct Shown<S> {
    /// Where the ledger lies.
    pub state_dir: PathBuf,
    /// The ledger.
    pub ledger: Ledger,
    /// Who delivers.
    pub delivery: Arc<Delivery<S>>,
    /// How much waits.
    pub rooms: Arc<Rooms>,
    /// The sites.
    pub names: Names,
    /// What is counted.
    pub counters: Arc<Counters>,
}

/// Serves until the runtime ends.
pub async fn serve<S: Settle>(listener: TcpListener, shown: Arc<Shown<S>>) {
    let app = Router::new()
        .route("/", get(status_page::<S>))
        .route("/metrics", get(metrics::<S>))
        .route("/healthz", get(healthy::<S>))
        .route("/readyz", get(ready::<S>))
        .with_state(shown);
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "the status page ended");
    }
}

/// Takes the address.
///
/// # Errors
/// Those of the system: it is taken, or not this machine's.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, body).into_response()
}

const PLAIN: &str = "text/plain; charset=utf-8";

impl<S: Settle> Shown<S> {
    fn live(&self) -> Live {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner).clone();
        live::now(&names, &self.delivery, &self.rooms)
    }

    /// Why it isn't ready.
    fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        if !self.counters.following.load(Ordering::Relaxed) {
            troubles.push("not following yet".to_owned());
        }
        let unreadable = self.counters.unreadable.load(Ordering::Relaxed);
        if unreadable > 0 {
            troubles.push(format!("{unreadable} logs can't be read"));
        }
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for site in self.delivery.snapshot() {
            let Some((_, name)) = names.iter().find(|(id, _)| *id == site.id) else { continue };
            if site.troubled_for.is_some_and(|time| time >= TROUBLED_AFTER) {
                let error = site.last_error.unwrap_or_default();
                troubles.push(format!("site {name}: nothing delivered for a while ({}): {error}", site.state));
            }
        }
        troubles
    }

    fn exposition(&self) -> String {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let name = |site: Option<SiteId>| {
            let known = names.iter().find(|(id, _)| Some(*id) == site).map(|(_, name)| name.clone());
            known.unwrap_or_default()
        };
        let mut out = Exposition::default();
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        out.family("silktail_build_info", Kind::Gauge, "The version that runs.", [(version, 1.0)]);
        let lines = self
            .counters
            .lines()
            .into_iter()
            .map(|((site, fate), count)| (vec![("site", name(site)), ("outcome", fate.to_owned())], count as f64));
        out.family(
            "silktail_lines_total",
            Kind::Counter,
            "Lines read, by their fate; site is empty for nobody's.",
            lines,
        );
        let reasons = self.counters.reasons().into_iter().map(|((site, fate, reason), count)| {
            (vec![("site", name(site)), ("outcome", fate.to_owned()), ("reason", reason.to_owned())], count as f64)
        });
        out.family("silktail_line_reasons_total", Kind::Counter, "Why lines were excluded, bots or repeats.", reasons);
        self.delivery_metrics(&mut out, &name);
        self.log_metrics(&mut out);
        let counters = &self.counters;
        out.single(
            "silktail_rotations_total",
            Kind::Counter,
            "Logs that were renamed or removed.",
            counters.rotations.load(Ordering::Relaxed) as f64,
        );
        out.single(
            "silktail_truncations_total",
            Kind::Counter,
            "Logs that were truncated or overwritten.",
            counters.truncations.load(Ordering::Relaxed) as f64,
        );
        out.single(
            "silktail_open_logs",
            Kind::Gauge,
            "Logs that are open.",
            counters.files.load(Ordering::Relaxed) as f64,
        );
        out.single(
            "silktail_unreadable_logs",
            Kind::Gauge,
            "Logs that are there and can't be read.",
            counters.unreadable.load(Ordering::Relaxed) as f64,
        );
        let (commits, last) = self.ledger.commits();
        out.single("silktail_ledger_commits_total", Kind::Counter, "Commits of the state.", commits as f64);
        out.single(
            "silktail_ledger_last_commit_timestamp_seconds",
            Kind::Gauge,
            "When the state was last committed.",
            last as f64,
        );
        let reloaded = f64::from(u8::from(counters.reloaded.load(Ordering::Relaxed)));
        out.single(
            "silktail_config_last_reload_successful",
            Kind::Gauge,
            "Whether the last reload was taken into use.",
            reloaded,
        );
        let at = counters.reloaded_at.load(Ordering::Relaxed) as f64;
        out.single(
            "silktail_config_last_reload_success_timestamp_seconds",
            Kind::Gauge,
            "When the configuration was last taken into use.",
            at,
        );
        out.text()
    }

    fn delivery_metrics(&self, out: &mut Exposition, name: &impl Fn(Option<SiteId>) -> String) {
        let stats = self.delivery.stats();
        let posts = stats.answers.iter().map(|((site, status), count)| {
            let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
            (vec![("site", name(Some(*site))), ("status", status)], *count as f64)
        });
        out.family(
            "silktail_posts_total",
            Kind::Counter,
            "POSTs by the status of their answer; none: no answer.",
            posts,
        );
        out.single("silktail_post_retries_total", Kind::Counter, "POSTs that were sent again.", stats.retries as f64);
        out.histogram(
            "silktail_post_duration_seconds",
            "Time until a POST's answer.",
            &stats.durations,
            stats.longer,
            stats.seconds,
        );
        let live = self.live();
        let of = |value: fn(&live::LiveSite) -> f64| {
            live.sites.iter().map(move |site| (vec![("site", site.name.clone())], value(site))).collect::<Vec<_>>()
        };
        out.family(
            "silktail_waiting_events",
            Kind::Gauge,
            "Events read and not settled.",
            of(|site| site.waiting as f64),
        );
        out.family(
            "silktail_posts_in_flight",
            Kind::Gauge,
            "POSTs that await an answer.",
            of(|site| site.in_flight as f64),
        );
        let sending = of(|site| f64::from(u8::from(site.state == "sending")));
        out.family(
            "silktail_site_sending",
            Kind::Gauge,
            "1 where the endpoint takes events, 0 where the site pauses or waits.",
            sending,
        );
    }

    fn log_metrics(&self, out: &mut Exposition) {
        let names: Vec<String> = self.live().sites.into_iter().map(|site| site.name).collect();
        // A state that can't be read now shows no logs; what is wrong with it is in the journal.
        let picture = picture(&self.state_dir, &names, None).unwrap_or_default();
        let of = |list: &str, label: &'static str, from: &str, key: &str| -> Vec<(Vec<(&'static str, String)>, f64)> {
            let items = picture[list].as_array().into_iter().flatten();
            items
                .filter_map(|item| Some((vec![(label, item[from].as_str()?.to_owned())], item[key].as_u64()? as f64)))
                .collect()
        };
        // Two logs may have had one name, one after the other: the last is the one that is there.
        let last = |mut samples: Vec<(Vec<(&'static str, String)>, f64)>| {
            let mut seen = std::collections::HashSet::new();
            samples.reverse();
            samples.retain(|(labels, _)| seen.insert(labels.clone()));
            samples
        };
        for (name, help, key) in [
            ("silktail_log_offset_bytes", "Bytes of a log before which everything is settled.", "offset"),
            ("silktail_log_size_bytes", "Bytes of a log.", "size"),
            ("silktail_log_lag_bytes", "Bytes of a log that aren't settled.", "lag_bytes"),
        ] {
            out.family(name, Kind::Gauge, help, last(of("logs", "path", "path", key)));
        }
        for (name, help, key) in [
            ("silktail_events_delivered_total", "Events delivered, ever.", "delivered"),
            ("silktail_events_rejected_total", "Events refused for good, ever.", "rejected"),
        ] {
            out.family(name, Kind::Counter, help, of("sites", "site", "name", key));
        }
    }
}

async fn status_page<S: Settle>(State(shown): State<Arc<Shown<S>>>) -> Response {
    let live = shown.live();
    let names: Vec<String> = live.sites.iter().map(|site| site.name.clone()).collect();
    match picture(&shown.state_dir, &names, Some(&live)) {
        Ok(picture) => {
            let uptime = Timestamp::now().as_second() - shown.counters.started.as_second();
            let page = page::page(&picture, &shown.troubles(), uptime);
            answer(StatusCode::OK, "text/html; charset=utf-8", page)
        }
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n")),
    }
}

async fn metrics<S: Settle>(State(shown): State<Arc<Shown<S>>>) -> Response {
    answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", shown.exposition())
}

async fn healthy<S: Settle>(State(shown): State<Arc<Shown<S>>>) -> Response {
    let idle = Timestamp::now().as_second() - shown.counters.turned.load(Ordering::Relaxed);
    if shown.counters.following.load(Ordering::Relaxed) && idle > HANGS_AFTER {
        return answer(
            StatusCode::SERVICE_UNAVAILABLE,
            PLAIN,
            format!("the follower hasn't come round for {idle} s\n"),
        );
    }
    answer(StatusCode::OK, PLAIN, "ok\n".to_owned())
}

async fn ready<S: Settle>(State(shown): State<Arc<Shown<S>>>) -> Response {
    let troubles = shown.troubles();
    if troubles.is_empty() {
        return answer(StatusCode::OK, PLAIN, "ready\n".to_owned());
    }
    answer(StatusCode::SERVICE_UNAVAILABLE, PLAIN, troubles.join("\n") + "\n")
}
