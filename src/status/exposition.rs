//! Every metric there is, with its meaning. Pure: what was counted in, text out.
//!
//! Bounded whatever is configured: series by log are those of the first [`PATHS_MAX`] names, in their order (which stays,
//! where "the worst" would bring other names each time); what holds for all logs is in metrics without a name.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::counters::{Counters, Life, PATHS_MAX};
use super::live::LiveSite;
use super::logs::Standing;
use super::metrics::{Dialect, Exposition, Kind, Labels};
use crate::deliver::Stats;
use crate::ledger::SiteTotal;
use crate::offsets::SiteId;

/// What the metrics are made of.
#[derive(Debug)]
pub struct Facts<'f> {
    /// Names of the configured sites.
    pub names: &'f [(SiteId, String)],
    /// What is counted.
    pub counters: &'f Counters,
    /// What delivery has done.
    pub stats: &'f Stats,
    /// The configured sites as they are now.
    pub sites: &'f [LiveSite],
    /// Events by site, from the ledger.
    pub totals: &'f [SiteTotal],
    /// The followed logs, by path.
    pub logs: &'f [Standing],
    /// Commits of the ledger, and when the last one was.
    pub commits: (u64, i64),
    /// Whether the state can be written now.
    pub writable: bool,
}

/// The text of all metrics.
pub fn exposition(facts: &Facts<'_>, dialect: Dialect) -> String {
    let mut out = Exposition::new(dialect);
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    out.family("silktail_build_info", Kind::Info, "The version that runs.", [(version, 1.0)]);
    let started = facts.counters.started.as_second() as f64;
    out.single("silktail_start_timestamp_seconds", Kind::Gauge, "When it was started.", started);
    lines(facts, &mut out);
    delivery(facts, &mut out);
    logs(facts, &mut out);
    state(facts, &mut out);
    out.text()
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn lines(facts: &Facts<'_>, out: &mut Exposition) {
    let names: HashMap<SiteId, &str> = facts.names.iter().map(|(id, name)| (*id, name.as_str())).collect();
    // Sites that were taken out of the configuration have no series any more.
    let named = |site: Option<SiteId>| match site {
        Some(site) => names.get(&site).map(|name| (*name).to_owned()),
        None => Some(String::new()),
    };
    let lines = facts.counters.lines().into_iter().filter_map(|((site, fate), count)| {
        Some((vec![("site", named(site)?), ("outcome", fate.to_owned())], count as f64))
    });
    let help = "Lines read since the start, by their fate; site is empty for lines that can't be given to a site.";
    out.family("silktail_lines_total", Kind::Counter, help, lines);
    let reasons = facts.counters.reasons().into_iter().filter_map(|((site, fate, reason), count)| {
        let labels = vec![("site", named(site)?), ("outcome", fate.to_owned()), ("reason", reason.to_owned())];
        Some((labels, count as f64))
    });
    out.family("silktail_line_reasons_total", Kind::Counter, "Why lines were excluded, bots or repeats.", reasons);
    let posts = facts.stats.answers.iter().filter_map(|((site, status), count)| {
        let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        Some((vec![("site", named(Some(*site))?), ("status", status)], *count as f64))
    });
    out.family("silktail_posts_total", Kind::Counter, "POSTs by the status of their answer; none: no answer.", posts);
}

fn delivery(facts: &Facts<'_>, out: &mut Exposition) {
    let stats = facts.stats;
    let help = "POSTs that weren't answered, or with a status that says to come back: they are sent again.";
    out.single("silktail_post_retries_total", Kind::Counter, help, stats.retries as f64);
    let help = "Time until a POST's answer.";
    out.histogram("silktail_post_duration_seconds", help, &stats.durations, stats.longer, stats.seconds);
    let of = |value: fn(&LiveSite) -> f64| {
        facts.sites.iter().map(move |site| (vec![("site", site.name.clone())], value(site))).collect::<Vec<_>>()
    };
    let waiting = of(|site| site.waiting as f64);
    out.family("silktail_waiting_events", Kind::Gauge, "Events that are read and not settled.", waiting);
    let in_flight = of(|site| site.in_flight as f64);
    out.family("silktail_posts_in_flight", Kind::Gauge, "POSTs that await an answer.", in_flight);
    let sending = of(|site| flag(site.state == "sending"));
    let help = "1 where the endpoint takes events, 0 where the site pauses or waits for its set-up to be mended.";
    out.family("silktail_site_sending", Kind::Gauge, help, sending);
    let waits = of(|site| flag(site.state == "misconfigured"));
    let help = "1 where the property or the endpoint is set up wrongly and the site waits.";
    out.family("silktail_site_misconfigured", Kind::Gauge, help, waits);
    let configured = |total: &&SiteTotal| facts.sites.iter().any(|site| site.name == total.site);
    let totals = |value: fn(&SiteTotal) -> u64| {
        let totals = facts.totals.iter().filter(configured);
        totals.map(move |total| (vec![("site", total.site.clone())], value(total) as f64)).collect::<Vec<_>>()
    };
    let delivered = totals(|total| total.delivered);
    out.family("silktail_events_delivered_total", Kind::Counter, "Events delivered, ever.", delivered);
    let rejected = facts.counters.sum().rejected as f64;
    let help = "Events refused for good since the start.";
    out.single("silktail_events_rejected_total", Kind::Counter, help, rejected);
    let rejected = totals(|total| total.rejected);
    let help = "Events refused for good that `silktail rejected` hasn't sent or dropped.";
    out.family("silktail_rejected_events", Kind::Gauge, help, rejected);
}

/// The logs of one name: after a rotation two of them may be open.
#[derive(Debug, Default, Clone, Copy)]
struct Named {
    offset: u64,
    size: Option<u64>,
    lag_bytes: u64,
    lag: Duration,
}

fn logs(facts: &Facts<'_>, out: &mut Exposition) {
    let mut names: BTreeMap<String, Named> = BTreeMap::new();
    for log in facts.logs {
        let named = names.entry(log.path.display().to_string()).or_default();
        // They come in the order of their numbers: the last is the newest.
        (named.offset, named.size) = (log.offset, log.size);
        named.lag_bytes += log.lag_bytes;
        named.lag = named.lag.max(log.lag);
    }
    let of = |value: fn(&Named) -> Option<f64>| {
        let shown = names.iter().take(PATHS_MAX);
        shown.filter_map(move |(path, log)| Some((vec![("path", path.clone())], value(log)?))).collect::<Vec<_>>()
    };
    let offset = of(|log| Some(log.offset as f64));
    let help = "Offset in the log before which everything is settled.";
    out.family("silktail_log_offset_bytes", Kind::Gauge, help, offset);
    let size = of(|log| log.size.map(|size| size as f64));
    out.family("silktail_log_size_bytes", Kind::Gauge, "Bytes of the log.", size);
    let lag = of(|log| Some(log.lag_bytes as f64));
    let help = "Bytes of the log that aren't settled, those of its rotated file that is still being read too.";
    out.family("silktail_log_lag_bytes", Kind::Gauge, help, lag);
    let late = of(|log| Some(log.lag.as_secs_f64()));
    let help = "Age of the oldest line of the log that isn't settled: since it was read, or since it was known to be \
                unread; 0 where nothing is behind.";
    out.family("silktail_log_lag_seconds", Kind::Gauge, help, late);

    let lives = facts.counters.lives();
    let count = |value: fn(&Life) -> u64| -> Vec<(Labels, f64)> {
        lives.iter().map(|(path, life)| (vec![("path", path.clone())], value(life) as f64)).collect()
    };
    for (name, help, value) in [
        (
            "silktail_log_rotations_total",
            "How often the log was renamed or removed.",
            (|life| life.rotations) as fn(&Life) -> u64,
        ),
        ("silktail_log_truncations_total", "How often the log was truncated or overwritten in place.", |life| {
            life.truncations
        }),
        ("silktail_log_given_up_total", "How often a log was given up that wasn't read to its end.", |life| {
            life.given_up
        }),
        (
            "silktail_log_given_up_unread_bytes_total",
            "Bytes that are known to have been unread when the log was given up.",
            |life| life.unread,
        ),
    ] {
        out.family(name, Kind::Counter, help, count(value));
    }
    let counters = facts.counters;
    let sum: u64 = facts.logs.iter().map(|log| log.lag_bytes).sum();
    let most = facts.logs.iter().map(|log| log.lag).max().unwrap_or_default();
    for (name, help, value) in [
        ("silktail_logs_open", "Logs that are open.", counters.files.load(Ordering::Relaxed) as f64),
        (
            "silktail_logs_unreadable",
            "Logs that are there and can't be read.",
            counters.unreadable.load(Ordering::Relaxed) as f64,
        ),
        (
            "silktail_logs_unlisted",
            "Names of logs without a series of their own.",
            names.len().saturating_sub(PATHS_MAX) as f64,
        ),
        ("silktail_logs_lag_bytes", "Bytes that aren't settled, of all logs.", sum as f64),
        (
            "silktail_logs_lag_seconds",
            "The greatest age of a line that isn't settled, of all logs.",
            most.as_secs_f64(),
        ),
    ] {
        out.single(name, Kind::Gauge, help, value);
    }
}

fn state(facts: &Facts<'_>, out: &mut Exposition) {
    let counters = facts.counters;
    let turned = counters.turned.load(Ordering::Relaxed) as f64;
    let help = "When the follower last came round; every 10 s or so, whatever happens.";
    out.single("silktail_follower_turn_timestamp_seconds", Kind::Gauge, help, turned);
    let (commits, last) = facts.commits;
    out.single("silktail_ledger_commits_total", Kind::Counter, "Commits of the state.", commits as f64);
    let help = "When the state was last committed: only where something was read; 0: not since the start.";
    out.single("silktail_ledger_last_commit_timestamp_seconds", Kind::Gauge, help, last as f64);
    let help = "1 where the state can be written, 0 where the disk is full or fails: nothing is read or sent then.";
    out.single("silktail_ledger_writable", Kind::Gauge, help, flag(facts.writable));
    let applied = counters.last_reload().is_none_or(|reload| reload.applied);
    let help = "Whether the last reload was taken into use.";
    out.single("silktail_config_last_reload_successful", Kind::Gauge, help, flag(applied));
    let at = counters.configured_at.load(Ordering::Relaxed) as f64;
    let help = "When the configuration was last taken into use.";
    out.single("silktail_config_last_reload_success_timestamp_seconds", Kind::Gauge, help, at);
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::ledger::Counts;
    use crate::offsets::LogId;

    #[test]
    fn ten_thousand_logs_and_sites_that_went_make_no_more_than_a_bounded_text() {
        let counters = Counters::default();
        let names = [(SiteId(1), "docs".to_owned())];
        for site in [None, Some(SiteId(1)), Some(SiteId(8)), Some(SiteId(9))] {
            counters.add(site, Counts { lines: 1, unparsed: 1, ..Counts::default() });
        }
        let log = |n: i64, lag| Standing {
            id: LogId(n),
            path: PathBuf::from(format!("/var/log/{:05}.log", n % 10_000)).into(),
            offset: 7,
            size: Some(10),
            lag_bytes: 3,
            lag: Duration::from_secs(lag),
        };
        // The first name twice: renamed, and made anew.
        let logs: Vec<Standing> = (0..10_000).map(|n| log(n, 1)).chain([log(10_000, 9)]).collect();
        let facts = Facts {
            names: &names,
            counters: &counters,
            stats: &Stats::default(),
            sites: &[],
            totals: &[],
            logs: &logs,
            commits: (1, 2),
            writable: true,
        };
        let text = exposition(&facts, Dialect::Prometheus);
        let has = |line: &str| text.lines().any(|it| it == line);
        assert_eq!(text.matches("silktail_log_lag_bytes{").count(), PATHS_MAX);
        assert!(text.len() < 400_000, "{}", text.len());
        for line in [
            "silktail_log_lag_bytes{path=\"/var/log/00000.log\"} 6",
            "silktail_log_lag_seconds{path=\"/var/log/00000.log\"} 9",
            "silktail_logs_unlisted 9500",
            "silktail_logs_lag_bytes 30003",
            "silktail_logs_lag_seconds 9",
            "silktail_lines_total{site=\"docs\",outcome=\"unparsed\"} 1",
            "silktail_lines_total{site=\"\",outcome=\"unparsed\"} 1",
        ] {
            assert!(has(line), "{line} in\n{}", &text[..text.len().min(4_000)]);
        }
        assert_eq!(text.matches("silktail_lines_total{").count(), 2, "no series for sites that aren't any more");
    }
}
