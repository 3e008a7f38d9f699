//! The status page: one page that needs nothing else. It is whole without a script and then loads itself anew; where
//! scripts run, a small one keeps it up to date. Pure: what is known in, HTML out.
//!
//! What strangers may have written (names of logs, answers of the endpoint) is text on it, and never an address or a key.
//! However much is configured, it shows what is worst, and says how much more there is.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::counters::Reload;
use super::history::Minute;
use super::live::LiveSite;
use super::logs::Standing;
use super::words;
use crate::journal::Said;
use crate::ledger::{Counts, SiteTotal};
use crate::pipeline::FATES;
use crate::report::{escaped, grouped};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// What the page may do: run its own script and style, known by their hashes, and ask for itself.
pub const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-M55pJwdHU7aPV6Enbcws3/9SytfbhgEWV5Aix1cDyD4='; \
    style-src 'sha256-g0Luu0aq8k7qfcB3CyLF541cBgK4YRvn++goSbm9QFI='; \
    img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Sites that are shown.
const SITES: usize = 50;
/// Logs that are shown.
const LOGS: usize = 25;

/// Minutes that a plot shows at least.
const PLOT_LEAST: usize = 30;

/// What is shown.
#[derive(Debug)]
pub struct View<'v> {
    /// The time.
    pub now: Timestamp,
    /// When the daemon started.
    pub started: Timestamp,
    /// Where the state is.
    pub state_dir: &'v Path,
    /// Why it isn't ready.
    pub troubles: &'v [String],
    /// The configured sites as they are now.
    pub sites: &'v [LiveSite],
    /// Lines by site (`None`: nobody's), from the ledger.
    pub counts: &'v [(Option<String>, Counts)],
    /// Events by site, from the ledger.
    pub totals: &'v [SiteTotal],
    /// The followed logs.
    pub logs: &'v [Standing],
    /// The last hours, minute by minute.
    pub history: &'v [Minute],
    /// The last try to reload.
    pub reload: Option<&'v Reload>,
    /// The last warnings and errors, newest first.
    pub recent: &'v [Said],
}

/// The page.
pub fn page(view: &View<'_>) -> String {
    let mut out = String::with_capacity(32 * 1024);
    let ready = view.troubles.is_empty();
    let state = if ready { "ready" } else { "not ready" };
    // Writing to a string can't fail.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>silktail: {state}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E%3Cpath \
         d='M1 7V4h1v3zM3 7V1h1v6zM5 7V3h1v4z' fill='%230a5cc4'/%3E%3C/svg%3E\">\n\
         <noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <p id=\"gone\" class=\"bad state\" role=\"status\"></p>\n<main>\n"
    );
    head(view, ready, &mut out);
    tiles(view, &mut out);
    plots(view, &mut out);
    fates(view, &mut out);
    sites(view, &mut out);
    logs(view, &mut out);
    recent(view, &mut out);
    let _ = write!(
        out,
        "<footer>The state is in <code>{}</code>. For machines: <a href=\"/metrics\">metrics</a>, \
         <a href=\"/healthz\">health</a>, <a href=\"/readyz\">readiness</a>.</footer>\n</main>\n<script>{SCRIPT}</script>\n\
         </body>\n</html>\n",
        escaped(&view.state_dir.display().to_string())
    );
    out
}

fn since(view: &View<'_>, at: Timestamp) -> Duration {
    Duration::try_from(view.now.duration_since(at)).unwrap_or_default()
}

fn head(view: &View<'_>, ready: bool, out: &mut String) {
    let (class, state) = if ready { ("good", "● ready") } else { ("bad", "▲ not ready") };
    let _ = writeln!(
        out,
        "<header><h1>silktail <span>{}</span></h1><span class=\"state {class}\">{state}</span>\
         <span class=\"soft\">up {} · as of <time datetime=\"{:.0}\">{}</time></span></header>",
        env!("CARGO_PKG_VERSION"),
        words::time(since(view, view.started)),
        view.now,
        view.now.strftime("%H:%M:%S UTC"),
    );
    let refused = view.reload.filter(|reload| !reload.applied);
    if ready && refused.is_none() {
        return;
    }
    out.push_str("<section class=\"troubles\"><h2>What is wrong</h2>\n<ul>");
    for trouble in view.troubles {
        let _ = writeln!(out, "<li>{}</li>", escaped(trouble));
    }
    if let Some(reload) = refused {
        let _ = writeln!(
            out,
            "<li>The configuration was refused {} ago, and the old one goes on: {}.</li>",
            words::time(since(view, reload.at)),
            escaped(reload.error.as_deref().unwrap_or_default()),
        );
    }
    out.push_str("</ul></section>\n");
}

fn tiles(view: &View<'_>, out: &mut String) {
    let configured = |total: &&SiteTotal| view.sites.iter().any(|site| site.name == total.site);
    let totals = || view.totals.iter().filter(configured);
    let delivered: u64 = totals().map(|total| total.delivered).sum();
    let rejected: u64 = totals().map(|total| total.rejected).sum();
    let waiting: usize = view.sites.iter().map(|site| site.waiting).sum();
    let in_flight: usize = view.sites.iter().map(|site| site.in_flight).sum();
    let behind: u64 = view.logs.iter().map(|log| log.lag_bytes).sum();
    let late = view.logs.iter().map(|log| log.lag).max().unwrap_or_default();
    let sending = view.sites.iter().filter(|site| site.state == "sending").count();
    let waits = view.sites.iter().filter(|site| site.state == "misconfigured").count();
    let lagging = view.logs.iter().filter(|log| !log.lag.is_zero()).count();
    let tiles: [(&str, String, String); 6] = [
        ("Events delivered", grouped(delivered), "ever".to_owned()),
        (
            "Waiting",
            grouped(waiting as u64),
            format!("{in_flight} POST{} under way", if in_flight == 1 { "" } else { "s" }),
        ),
        (
            "Rejected",
            grouped(rejected),
            if rejected > 0 { "see: silktail rejected list" } else { "refused for good" }.to_owned(),
        ),
        (
            "Behind",
            words::bytes(behind),
            if late.is_zero() { "nothing late".to_owned() } else { format!("{} late", words::time(late)) },
        ),
        (
            "Sites sending",
            format!("{sending} of {}", view.sites.len()),
            if waits > 0 { format!("{waits} set up wrongly") } else { "none set up wrongly".to_owned() },
        ),
        (
            "Logs open",
            grouped(view.logs.len() as u64),
            if lagging > 0 { format!("{lagging} with open lines") } else { "all settled".to_owned() },
        ),
    ];
    out.push_str("<dl class=\"tiles\">");
    for (name, value, more) in tiles {
        let class = if name == "Rejected" && rejected > 0 { " class=\"odd\"" } else { "" };
        let _ = write!(out, "<div><dt>{name}</dt><dd{class}>{value}<small>{}</small></dd></div>", escaped(&more));
    }
    out.push_str("</dl>\n");
}

fn plots(view: &View<'_>, out: &mut String) {
    // Since the start, where that is not so long ago: of a fresh start, a plot of hours shows a line at its edge.
    let up = usize::try_from(since(view, view.started).as_secs() / 60 + 1).unwrap_or(usize::MAX);
    let minutes = up.max(PLOT_LEAST).min(view.history.len());
    let history = &view.history[view.history.len() - minutes..];
    let title = if minutes < 120 { format!("{minutes} minutes") } else { format!("{} hours", minutes / 60) };
    let _ = writeln!(out, "<section><h2>The last {title}</h2>\n<div class=\"plots\">");
    for (name, value) in [
        ("Events delivered a minute", (|minute| minute.delivered) as fn(&Minute) -> u64),
        ("Lines read a minute", |minute| minute.lines),
    ] {
        let values: Vec<u64> = history.iter().map(value).collect();
        plot(view.now, name, &values, out);
    }
    out.push_str("</div></section>\n");
}

/// One value a minute, the last is now.
fn plot(now: Timestamp, name: &str, values: &[u64], out: &mut String) {
    const HEIGHT: f64 = 100.0;
    let most = values.iter().copied().max().unwrap_or(0);
    let sum: u64 = values.iter().sum();
    let y = |value: u64| HEIGHT - value as f64 * (HEIGHT - 4.0) / most.max(1) as f64;
    let mut edge = String::new();
    let mut before = None;
    for (minute, value) in values.iter().enumerate() {
        // A step where it changes: most minutes are like the one before.
        if before == Some(*value) {
            continue;
        }
        let _ = match before {
            None => write!(edge, "M{minute} {:.1}", y(*value)),
            Some(_) => write!(edge, "H{minute}V{:.1}", y(*value)),
        };
        before = Some(*value);
    }
    let width = values.len();
    let _ = write!(edge, "H{width}");
    let at = |minutes: usize| {
        let ago = i64::try_from(width - minutes).unwrap_or(0) * 60;
        let time = Timestamp::from_second(now.as_second() - ago).unwrap_or(now);
        time.strftime("%H:%M").to_string()
    };
    let _ = writeln!(
        out,
        "<figure><figcaption><strong>{name}</strong><span class=\"soft\">{} in all, at most {}</span></figcaption>\n\
         <svg class=\"plot\" viewBox=\"0 0 {width} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{name} from {} to {} UTC: {} in all, at most {} in a minute\">\
         <path class=\"grid\" d=\"M0 4H{width}M0 52H{width}\"/><path class=\"area\" d=\"{edge}V{HEIGHT}H0Z\"/>\
         <path class=\"edge\" d=\"{edge}\"/></svg>\n\
         <div class=\"ticks\" aria-hidden=\"true\"><span>{}</span><span>{}</span><span>{} UTC</span></div></figure>",
        grouped(sum),
        grouped(most),
        at(0),
        at(width),
        grouped(sum),
        grouped(most),
        at(0),
        at(width / 2),
        at(width),
    );
}

/// What a fate means, in a few words.
fn meaning(fate: &str) -> &'static str {
    match fate {
        "event" => "counted, and sent to Silktide",
        "repeat" => "the same visitor had just fetched the same thing",
        "bot" => "a crawler, a library, a tool",
        "excluded" => "a rule, a setting or the host says no",
        "unmatched" => "no rule fits: pages, pictures, scripts",
        "unparsed" => "doesn't fit the format",
        _ => "longer than max_line",
    }
}

/// A part of a whole, as a bar.
fn bar(part: u64, all: u64, class: &str, name: &str, out: &mut String) {
    let percent = if all == 0 { 0.0 } else { part as f64 * 100.0 / all as f64 };
    // What is there shows.
    let width = if part == 0 { 0.0 } else { percent.max(0.5) };
    let _ = write!(
        out,
        "<svg class=\"share\" role=\"img\" aria-label=\"{name}: {}\"><rect class=\"rail\" width=\"100%\" height=\"100%\" rx=\"3\"/>\
         <rect class=\"{class}\" width=\"{width:.1}%\" height=\"100%\" rx=\"3\"/></svg>",
        words::share(part, all),
    );
}

fn fates(view: &View<'_>, out: &mut String) {
    let mut sum = Counts::default();
    view.counts.iter().for_each(|(_, counts)| sum += *counts);
    let [lines, by_fate @ ..] = sum.values();
    let _ = writeln!(
        out,
        "<section><h2>What became of {} settled lines</h2>\n<div class=\"scroll\" id=\"fates\" tabindex=\"0\" role=\"region\" \
         aria-label=\"Lines by fate\"><table>\n<thead><tr><th scope=\"col\">fate</th><th scope=\"col\" class=\"n\">lines</th>\
         <th scope=\"col\" class=\"n\">share</th><th scope=\"col\">of all lines</th><th scope=\"col\" class=\"wide\">meaning</th>\
         </tr></thead><tbody>",
        grouped(lines)
    );
    for (fate, count) in FATES.into_iter().zip(by_fate).rev() {
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"n\">{}</td><td>",
            fate.replace('_', " "),
            grouped(count),
            escaped(&words::share(count, lines)),
        );
        bar(count, lines, fate, fate, out);
        let _ = writeln!(out, "</td><td class=\"soft wide\">{}</td></tr>", meaning(fate));
    }
    out.push_str("</tbody></table></div></section>\n");
}

fn sites(view: &View<'_>, out: &mut String) {
    let counts: HashMap<&str, Counts> =
        view.counts.iter().filter_map(|(site, counts)| Some((site.as_deref()?, *counts))).collect();
    let totals: HashMap<&str, &SiteTotal> = view.totals.iter().map(|total| (total.site.as_str(), total)).collect();
    let mut shown: Vec<&LiveSite> = view.sites.iter().collect();
    // Those in trouble first, then those with most to send; else in the configuration's order.
    shown.sort_by_key(|site| (site.state == "sending", site.last_error.is_none(), std::cmp::Reverse(site.waiting)));
    let more = shown.len().saturating_sub(SITES);
    out.push_str(
        "<section><h2>Sites</h2>\n<div class=\"scroll\" id=\"sites\" tabindex=\"0\" role=\"region\" aria-label=\"Sites\"><table>\n\
         <thead><tr><th scope=\"col\">site</th><th scope=\"col\">endpoint</th><th scope=\"col\">last delivered</th>\
         <th scope=\"col\" class=\"n\">waiting</th><th scope=\"col\" class=\"n\">under way</th>\
         <th scope=\"col\" class=\"n\">delivered</th><th scope=\"col\" class=\"n\">rejected</th>\
         <th scope=\"col\" class=\"n\">lines</th><th scope=\"col\" class=\"n\">events</th>\
         <th scope=\"col\" class=\"n\">repeats</th><th scope=\"col\" class=\"n\">bots</th></tr></thead><tbody>\n",
    );
    for site in shown.into_iter().take(SITES) {
        let (class, state) = match site.state.as_str() {
            "sending" if site.last_error.is_none() => ("good", "● takes events"),
            "sending" => ("odd", "● some fail"),
            "pausing" => ("odd", "▲ pausing"),
            "misconfigured" => ("bad", "▲ waits for its set-up"),
            _ => ("soft", "not known yet"),
        };
        let total = totals.get(site.name.as_str());
        let counts = counts.get(site.name.as_str()).copied().unwrap_or_default();
        let last = match site.last_delivered {
            Some(at) => format!("{} ago", words::time(since(view, at))),
            None => "not in this run".to_owned(),
        };
        let _ = write!(
            out,
            "<tr{}><th scope=\"row\">{}</th><td class=\"nowrap {class}\">{state}</td><td class=\"nowrap\">{last}</td>",
            if site.last_error.is_some() { " class=\"over\"" } else { "" },
            escaped(&site.name),
        );
        for number in [
            site.waiting as u64,
            site.in_flight as u64,
            total.map_or(0, |total| total.delivered),
            total.map_or(0, |total| total.rejected),
            counts.lines,
            counts.event,
            counts.repeat,
            counts.bot,
        ] {
            let _ = write!(out, "<td class=\"n\">{}</td>", grouped(number));
        }
        out.push_str("</tr>\n");
        if let Some(error) = &site.last_error {
            let remedy = site.remedy.as_deref().map(|remedy| format!("<br>→ {}", escaped(remedy)));
            let _ = writeln!(
                out,
                "<tr class=\"under\"><td colspan=\"11\"><div class=\"note\"><span class=\"{class}\">{}</span>{}</div></td></tr>",
                escaped(error),
                remedy.unwrap_or_default(),
            );
        }
    }
    out.push_str("</tbody></table></div>");
    and_more(more, "sites, which are doing better", out);
    out.push_str("</section>\n");
}

fn and_more(more: usize, what: &str, out: &mut String) {
    if more > 0 {
        let _ = write!(out, "<p class=\"soft\">And {} more {what}.</p>", grouped(more as u64));
    }
}

fn logs(view: &View<'_>, out: &mut String) {
    let mut shown: Vec<&Standing> = view.logs.iter().collect();
    shown.sort_by_key(|log| std::cmp::Reverse((log.lag, log.lag_bytes)));
    let more = shown.len().saturating_sub(LOGS);
    out.push_str(
        "<section><h2>Logs</h2>\n<div class=\"scroll\" id=\"logs\" tabindex=\"0\" role=\"region\" aria-label=\"Logs\"><table>\n\
         <thead><tr><th scope=\"col\">log</th><th scope=\"col\" class=\"n\">behind</th><th scope=\"col\" class=\"n\">late</th>\
         <th scope=\"col\" class=\"n\">settled</th><th scope=\"col\" class=\"n\">of</th><th scope=\"col\">share</th></tr></thead><tbody>\n",
    );
    for log in shown.into_iter().take(LOGS) {
        let _ = write!(
            out,
            "<tr><th scope=\"row\" class=\"path\">{}</th><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td>",
            escaped(&log.path.display().to_string()),
            words::bytes(log.lag_bytes),
            if log.lag.is_zero() { "–".to_owned() } else { words::time(log.lag) },
            words::bytes(log.offset),
            log.size.map_or_else(|| "archive".to_owned(), words::bytes),
        );
        if let Some(size) = log.size {
            bar(log.offset, size.max(log.offset), "read", "settled", out);
        }
        out.push_str("</td></tr>\n");
    }
    if view.logs.is_empty() {
        out.push_str("<tr><td colspan=\"6\" class=\"soft\">No log is open.</td></tr>\n");
    }
    out.push_str("</tbody></table></div>");
    and_more(more, "logs, which are less behind", out);
    out.push_str("</section>\n");
}

fn recent(view: &View<'_>, out: &mut String) {
    out.push_str("<section><h2>Last warnings and errors</h2>\n");
    if view.recent.is_empty() {
        out.push_str("<p class=\"soft\">None since the start.</p></section>\n");
        return;
    }
    out.push_str(
        "<div class=\"scroll\" id=\"recent\" tabindex=\"0\" role=\"region\" aria-label=\"Last warnings and errors\"><table>\n\
         <thead><tr><th scope=\"col\">when</th><th scope=\"col\">what, and what to do</th></tr></thead><tbody>\n",
    );
    for said in view.recent {
        let (class, level) = if said.is_error { ("bad", "error") } else { ("odd", "warning") };
        let _ = writeln!(
            out,
            "<tr><td class=\"nowrap\"><time datetime=\"{:.0}\">{} ago</time><br><span class=\"{class}\">{level}</span></td>\
             <td class=\"path\"><strong>{}</strong>{}<br><span class=\"soft\">{}</span>{}</td></tr>",
            said.at,
            words::time(since(view, said.at)),
            escaped(&said.message),
            if said.times > 1 { format!(" ({} times)", grouped(said.times)) } else { String::new() },
            escaped(&said.facts),
            said.hint.as_deref().map(|hint| format!("<br>→ {}", escaped(hint))).unwrap_or_default(),
        );
    }
    out.push_str("</tbody></table></div></section>\n");
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::offsets::LogId;

    fn hash(text: &str) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let mut out = String::new();
        for part in digest.as_ref().chunks(3) {
            let bits = part.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
            for digit in 0..4 {
                let is_there = digit <= part.len();
                out.push(if is_there { char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]) } else { '=' });
            }
        }
        out
    }

    fn shown(sites: &[LiveSite], logs: &[Standing], troubles: &[String], recent: &[Said]) -> String {
        let now: Timestamp = "2026-11-10T12:00:00Z".parse().unwrap();
        let history: Vec<Minute> = (0..360).map(|n| Minute { lines: n, events: n / 9, delivered: n / 10 }).collect();
        let counts = Counts { lines: 1_000_000, unmatched: 999_000, event: 999, too_long: 1, ..Counts::default() };
        page(&View {
            now,
            started: "2026-11-10T08:48:00Z".parse().unwrap(),
            state_dir: Path::new("/var/lib/silktail"),
            troubles,
            sites,
            counts: &[(Some("docs".to_owned()), counts)],
            totals: &[SiteTotal { site: "docs".to_owned(), delivered: 999, rejected: 2 }],
            logs,
            history: &history,
            reload: None,
            recent,
        })
    }

    /// The browser runs neither, if they differ by a space.
    #[test]
    fn the_policy_knows_the_script_and_the_style() {
        for (name, text) in [("script", SCRIPT), ("style", STYLE)] {
            let want = format!("{name}-src 'sha256-{}';", hash(text));
            assert!(POLICY.contains(&want), "POLICY must hold {want}");
        }
        let page = shown(&[], &[], &[], &[]);
        assert!(
            page.contains(&format!("<style>{STYLE}</style>")) && page.contains(&format!("<script>{SCRIPT}</script>"))
        );
        assert!(!page.contains(" style=") && !page.contains(" onclick="), "the policy forbids them");
        let outside = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http:") && !outside.contains("https:") && !outside.contains("//cdn"), "{outside}");
    }

    /// WCAG 2.2, 1.4.3: text needs 4.5 to 1, also on the bars' cards, in the light and in the dark.
    #[test]
    fn every_text_has_enough_contrast() {
        let luminance = |colour: &str| -> f64 {
            let digits = match colour.len() {
                3 => colour.chars().flat_map(|digit| [digit, digit]).collect(),
                _ => colour.to_owned(),
            };
            let channel = |at: usize| {
                let value = f64::from(u8::from_str_radix(&digits[at..at + 2], 16).unwrap()) / 255.0;
                if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4)
        };
        let (light, dark) = STYLE.split_once("@media (prefers-color-scheme: dark)").unwrap();
        for (name, scheme) in [("light", light), ("dark", dark)] {
            let colour = |name: &str| {
                let value = scheme.split(&format!("--{name}: #")).nth(1).unwrap();
                luminance(&value[..value.find(';').unwrap()])
            };
            for text in ["ink", "soft", "good", "bad", "odd", "bar"] {
                for ground in ["paper", "card"] {
                    let (one, other) = (colour(text), colour(ground));
                    let contrast = (one.max(other) + 0.05) / (one.min(other) + 0.05);
                    assert!(contrast >= 4.5, "{name}: {text} on {ground} has {contrast:.2}");
                }
            }
        }
    }

    #[test]
    fn what_strangers_wrote_is_text_on_the_page() {
        let evil = "<script>alert(1)</script>\"'\u{1b}[31m";
        let site = LiveSite {
            name: evil.to_owned(),
            state: "misconfigured".to_owned(),
            last_error: Some(evil.to_owned()),
            remedy: Some(evil.to_owned()),
            ..LiveSite::default()
        };
        let log = Standing {
            id: LogId(1),
            path: PathBuf::from(evil).into(),
            offset: 5,
            size: Some(10),
            lag_bytes: 5,
            lag: Duration::from_secs(3),
        };
        let text = || evil.to_owned();
        let said = Said::once(Timestamp::UNIX_EPOCH, true, text(), text(), Some(text()));
        let page = shown(&[site], &[log], &[evil.to_owned()], &[said]);
        assert!(!page.contains("<script>alert") && !page.contains('\u{1b}'), "{page}");
        assert_eq!(page.matches("&lt;script&gt;alert(1)&lt;/script&gt;").count(), 8, "{page}");
    }

    #[test]
    fn ten_thousand_sites_and_logs_fit_on_a_page_with_the_worst_on_top() {
        let site = |n: usize| LiveSite {
            name: format!("site{n}"),
            state: if n == 7_777 { "pausing" } else { "sending" }.to_owned(),
            ..LiveSite::default()
        };
        let sites: Vec<LiveSite> = (0..10_000).map(site).collect();
        let log = |n: u64| Standing {
            id: LogId(1),
            path: PathBuf::from(format!("/var/log/{n}.log")).into(),
            offset: 5,
            size: Some(10),
            lag_bytes: 5,
            lag: Duration::from_secs(if n == 8_888 { 100 } else { 0 }),
        };
        let logs: Vec<Standing> = (0..10_000).map(log).collect();
        let page = shown(&sites, &logs, &[], &[]);
        assert!(page.len() < 100_000, "{}", page.len());
        assert!(page.find(">site7777<").unwrap() < page.find(">site0<").unwrap());
        assert!(page.find("8888.log").unwrap() < page.find("/0.log").unwrap());
        assert!(page.contains("And 9\u{202f}950 more sites") && page.contains("And 9\u{202f}975 more logs"));
    }
}
