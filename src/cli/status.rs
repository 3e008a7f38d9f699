//! `silktail status`: sites, logs, offsets, backlog, counts, last error; from the ledger, so it works when the daemon is
//! down.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;

use super::{Failure, load, print, printable, say};
use crate::config;
use crate::follow::discover;
use crate::journal::shown_json;
use crate::ledger::{Ledger, LedgerError};
use crate::pipeline::FATES;
use crate::status::picture::picture;
use crate::status::{live, words};

/// The arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Show it again every 2 seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(2);

/// Shows the state.
pub fn run(config_path: &Path, args: &Args) -> Result<(), Failure> {
    let (loaded, state_dir, names, patterns) = match load(config_path) {
        Ok(config) => {
            let names: Vec<String> = config.sites.iter().map(|site| site.name.clone()).collect();
            let patterns = config.sites.into_iter().map(|site| (site.name, site.logs)).collect();
            (Ok(()), config.state_dir, names, Some(patterns))
        }
        // A daemon goes on by the old configuration, and how it does is what one wants to know now.
        Err(failure) => {
            let env = |name: &str| std::env::var(name).ok();
            let Some(state_dir) = config::state_dir(config_path, &env) else { return Err(failure) };
            let Some(names) = known_sites(&state_dir)? else { return Err(failure) };
            say("the state that it names, all the same:");
            (Err(failure), state_dir, names, None::<HashMap<String, Vec<String>>>)
        }
    };
    let reads = |site: &str, path: &Path| {
        patterns.as_ref().is_none_or(|patterns| {
            patterns.get(site).is_some_and(|logs| logs.iter().any(|pattern| discover::is_for(pattern, path)))
        })
    };
    let status = || {
        let live = live::read(&state_dir);
        picture(&state_dir, &names, live.as_ref(), reads).map_err(|error| Failure::from_error(&error))
    };
    let terminal = std::io::stdout().is_terminal();
    let colour = crate::journal::may_colour(terminal);
    let shown = || -> Result<String, Failure> {
        let status = status()?;
        let json = || if terminal { shown_json(&status.to_string()).into_owned() } else { status.to_string() };
        Ok(if args.json { json() + "\n" } else { text(&status, colour, Timestamp::now()) })
    };
    if !args.watch {
        return print(&shown()?).and(loaded);
    }
    watch(&shown, terminal && !args.json).and(loaded)
}

/// The sites that a state knows; `None`: there is none yet.
fn known_sites(state_dir: &Path) -> Result<Option<Vec<String>>, Failure> {
    let failed = |error: LedgerError| Failure::from_error(&error);
    let Some(reader) = Ledger::open_read_only(state_dir).map_err(failed)? else { return Ok(None) };
    Ok(Some(reader.totals().map_err(failed)?.into_iter().map(|total| total.site).collect()))
}

/// Shows it again and again, on a screen of its own where that is a terminal.
fn watch(shown: &dyn Fn() -> Result<String, Failure>, on_screen: bool) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("cannot handle signals: {error}"));
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGWINCH]).map_err(failed)?;
    let (sender, came) = channel();
    let forward = move || signals.forever().take_while(|signal| sender.send(*signal).is_ok()).for_each(drop);
    std::thread::Builder::new().name("signals".into()).spawn(forward).map_err(failed)?;
    if on_screen {
        // The alternate screen, without a cursor: what stood there comes back at the end.
        print("\x1b[?1049h\x1b[?25l")?;
    }
    let ended = loop {
        let next = shown().and_then(|picture| {
            // Home, the picture, and whatever was below it away: no flicker.
            print(&if on_screen { format!("\x1b[H{}\x1b[J", fitted(&picture, screen())) } else { picture + "\n" })
        });
        if next.is_err() {
            break next;
        }
        match came.recv_timeout(EVERY) {
            Err(RecvTimeoutError::Timeout) | Ok(SIGWINCH) => {}
            Ok(_) | Err(RecvTimeoutError::Disconnected) => break Ok(()),
        }
    };
    if on_screen {
        print("\x1b[?25h\x1b[?1049l")?;
    }
    ended
}

/// Columns and rows of the terminal.
fn screen() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// What has room on the screen; what hasn't is said.
fn fitted(picture: &str, (columns, rows): (usize, usize)) -> String {
    let lines: Vec<&str> = picture.lines().collect();
    let room = if lines.len() > rows { rows.saturating_sub(1) } else { lines.len() };
    let mut out: Vec<String> = lines.iter().take(room).map(|line| cut(line, columns)).collect();
    if room < lines.len() {
        out.push(cut(&format!("… {} more lines", lines.len() - room), columns));
    }
    // The last line has no newline: it would scroll.
    out.join("\x1b[K\n") + "\x1b[K"
}

/// A line's first characters; escapes take no room.
fn cut(line: &str, columns: usize) -> String {
    let mut out = String::new();
    let mut room = columns;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            out.push(c);
            // Of those that are used here, each ends with an m.
            out.extend(chars.by_ref().take_while(|c| *c != 'm'));
            out.push('m');
        } else if room > 0 {
            out.push(c);
            room -= 1;
        }
    }
    out
}

/// A cell of a table: its text, and how it is painted.
struct Cell {
    text: String,
    paint: Paint,
    left: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Paint {
    Plain,
    Bold,
    Soft,
    Good,
    Odd,
    Bad,
}

impl Paint {
    fn on(self, text: &str, colour: bool) -> String {
        let code = match self {
            _ if !colour => return text.to_owned(),
            Paint::Plain => return text.to_owned(),
            Paint::Bold => "1",
            Paint::Soft => "2",
            Paint::Good => "32",
            Paint::Odd => "33",
            Paint::Bad => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

fn left(text: impl Into<String>, paint: Paint) -> Cell {
    Cell { text: text.into(), paint, left: true }
}

fn right(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), paint: Paint::Plain, left: false }
}

fn count(value: &Value) -> Cell {
    right(value.as_u64().map_or_else(|| "?".to_owned(), |number| number.to_string()))
}

/// Rows with their columns in line; `under` follows a row and keeps to no column.
fn table(heads: &[&str], rows: Vec<(Vec<Cell>, Vec<String>)>, colour: bool, out: &mut String) {
    let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
    for (cells, _) in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let line = |cells: &[Cell]| {
        let mut text = String::new();
        for (index, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let blank = " ".repeat(width - cell.text.chars().count());
            let painted = cell.paint.on(&cell.text, colour);
            text.push_str(if index > 0 { "  " } else { "" });
            text.push_str(&if cell.left { painted + &blank } else { blank + &painted });
        }
        text.truncate(text.trim_end().len());
        text + "\n"
    };
    let first = rows.first().map(|(cells, _)| cells.iter().map(|cell| cell.left).collect::<Vec<_>>());
    let aligned = first.unwrap_or_default().into_iter().chain(std::iter::repeat(true));
    let head = |(head, left): (&&str, bool)| Cell { text: (*head).to_owned(), paint: Paint::Bold, left };
    out.push_str(&line(&heads.iter().zip(aligned).map(head).collect::<Vec<_>>()));
    for (cells, under) in &rows {
        out.push_str(&line(cells));
        under.iter().for_each(|text| out.push_str(&format!("{text}\n")));
    }
}

fn ago(value: &Value, now: Timestamp) -> String {
    let at = value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    match at.map(|at| Duration::try_from(now.duration_since(at)).unwrap_or_default()) {
        Some(time) => format!("{} ago", words::time(time)),
        None => "-".to_owned(),
    }
}

fn text(status: &Value, colour: bool, now: Timestamp) -> String {
    let said = |value: &Value| printable(value.as_str().unwrap_or_default());
    let mut out = String::new();
    let running = status["running"] == true;
    let state = if running { Paint::Good.on("running", colour) } else { Paint::Bad.on("not running", colour) };
    out.push_str(&format!("silktail {}: {state}", env!("CARGO_PKG_VERSION")));
    if status["status_page"].is_string() {
        out.push_str(&format!("; status page at {}", said(&status["status_page"])));
    }
    out.push('\n');
    if status["trouble"].is_string() {
        out.push_str(&Paint::Bad.on(&said(&status["trouble"]), colour));
        out.push('\n');
    }
    let reload = &status["reload"];
    if reload["applied"] == false {
        let text = format!(
            "configuration refused {}, the old one goes on: {}",
            ago(&reload["at"], now),
            said(&reload["error"])
        );
        out.push_str(&Paint::Bad.on(&text, colour));
        out.push('\n');
    }
    out.push('\n');
    sites(status, colour, now, &mut out);
    let counts = &status["counts"];
    let lines = counts["lines"].as_u64().unwrap_or(0);
    out.push_str(&format!("\n{}  {lines}", Paint::Bold.on("LINES", colour)));
    for fate in FATES.into_iter().rev() {
        let count = counts[fate].as_u64().unwrap_or(0);
        if count > 0 {
            out.push_str(&format!("  {fate} {count} ({})", words::share(count, lines)));
        }
    }
    out.push_str("\n\n");
    logs(status, colour, now, &mut out);
    out
}

fn sites(status: &Value, colour: bool, now: Timestamp, out: &mut String) {
    let rows = status["sites"].as_array().into_iter().flatten().map(|site| {
        let state = printable(site["state"].as_str().unwrap_or_default());
        let paint = match state.as_str() {
            "sending" => Paint::Good,
            "pausing" => Paint::Odd,
            "misconfigured" => Paint::Bad,
            _ => Paint::Soft,
        };
        let mut rejected = count(&site["rejected"]);
        if site["rejected"] != 0 {
            rejected.paint = Paint::Odd;
        }
        let cells = vec![
            left(printable(site["name"].as_str().unwrap_or_default()), Paint::Plain),
            left(state, paint),
            count(&site["waiting"]),
            count(&site["delivered"]),
            rejected,
            right(ago(&site["last_delivered"], now)),
            count(&site["counts"]["lines"]),
            count(&site["counts"]["event"]),
            count(&site["counts"]["repeat"]),
            count(&site["counts"]["bot"]),
            count(&site["in_flight"]),
        ];
        let mut under = Vec::new();
        if let Some(error) = site["last_error"].as_str() {
            under.push(paint_error(paint, &format!("  last error: {}", printable(error)), colour));
        }
        if let Some(remedy) = site["remedy"].as_str() {
            under.push(format!("  {}", printable(remedy)));
        }
        (cells, under)
    });
    // What matters first: a narrow terminal shows no more.
    let heads = [
        "SITE",
        "STATE",
        "WAITING",
        "DELIVERED",
        "REJECTED",
        "LAST DELIVERED",
        "LINES",
        "EVENTS",
        "REPEATS",
        "BOTS",
        "IN FLIGHT",
    ];
    table(&heads, rows.collect(), colour, out);
}

fn paint_error(paint: Paint, text: &str, colour: bool) -> String {
    if paint == Paint::Good { Paint::Odd } else { paint }.on(text, colour)
}

fn logs(status: &Value, colour: bool, now: Timestamp, out: &mut String) {
    let all: Vec<&Value> = status["logs"].as_array().into_iter().flatten().collect();
    let mut followed: Vec<&Value> = all.iter().copied().filter(|log| log["followed"] == true).collect();
    followed.sort_by_key(|log| std::cmp::Reverse(log["lag_bytes"].as_u64()));
    let bytes = |value: &Value| right(value.as_u64().map_or_else(|| "?".to_owned(), words::bytes));
    let rows = followed.iter().map(|log| {
        let mut behind = bytes(&log["lag_bytes"]);
        if log["lag_bytes"] != 0 {
            behind.paint = Paint::Odd;
        }
        let counts = &log["counts"];
        let cells = vec![
            behind,
            bytes(&log["offset"]),
            bytes(&log["size"]),
            right(ago(&log["last_read"], now)),
            count(&counts["lines"]),
            count(&counts["unparsed"]),
            count(&counts["too_long"]),
            left(printable(log["path"].as_str().unwrap_or_default()), Paint::Plain),
        ];
        (cells, Vec::new())
    });
    let heads = ["BEHIND", "SETTLED", "SIZE", "LAST READ", "LINES", "UNPARSED", "TOO LONG", "LOG"];
    table(&heads, rows.collect(), colour, out);
    let others = all.len() - followed.len();
    if others > 0 {
        let text =
            format!("and {others} that were rotated away, or aren't followed any more (`status --json` has them)\n");
        out.push_str(&Paint::Soft.on(&text, colour));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> Value {
        let counts = |lines: u64, event: u64| {
            json!({"lines": lines, "too_long": 0, "unparsed": 0, "unmatched": lines - event, "excluded": 0, "bot": 0,
                   "repeat": 0, "event": event})
        };
        json!({
            "running": true, "status_page": "http://127.0.0.1:9464/",
            "reload": {"applied": false, "at": "2026-11-10T11:58:00Z", "error": "config.toml has 2 errors: `silktail check` says what is wrong"},
            "counts": counts(1_000, 10),
            "sites": [
                {"name": "docs", "state": "sending", "waiting": 0, "in_flight": 0, "delivered": 10, "rejected": 0,
                 "counts": counts(990, 10), "last_delivered": "2026-11-10T11:59:48Z", "last_error": null, "remedy": null},
                {"name": "a longer name", "state": "misconfigured", "waiting": 412, "in_flight": 1, "delivered": 0,
                 "rejected": 3, "counts": counts(10, 0), "last_delivered": null, "last_error": "status 403 \u{1b}[31mno",
                 "remedy": "compare property_key"},
            ],
            "logs": [
                {"path": "/var/log/a.log", "followed": true, "offset": 1_500, "size": 1_500, "lag_bytes": 0,
                 "counts": counts(990, 10), "last_read": "2026-11-10T11:59:59Z"},
                {"path": "/var/log/nginx/b.log", "followed": true, "offset": 5, "size": 2_000_005, "lag_bytes": 2_000_000,
                 "counts": counts(10, 0), "last_read": null},
                {"path": "/var/log/a.log", "followed": false, "offset": 1, "size": null, "lag_bytes": null,
                 "counts": counts(0, 0), "last_read": null},
            ],
        })
    }

    #[test]
    fn the_state_at_a_glance() {
        let now = "2026-11-10T12:00:00Z".parse().unwrap();
        let want = format!(
            "\
silktail {}: running; status page at http://127.0.0.1:9464/
configuration refused 2 min 0 s ago, the old one goes on: config.toml has 2 errors: `silktail check` says what is wrong

SITE           STATE          WAITING  DELIVERED  REJECTED  LAST DELIVERED  LINES  EVENTS  REPEATS  BOTS  IN FLIGHT
docs           sending              0         10         0        12 s ago    990      10        0     0          0
a longer name  misconfigured      412          0         3               -     10       0        0     0          1
  last error: status 403 \\u{{1b}}[31mno
  compare property_key

LINES  1000  event 10 (1.0 %)  unmatched 990 (99.0 %)

BEHIND  SETTLED    SIZE  LAST READ  LINES  UNPARSED  TOO LONG  LOG
2.0 MB      5 B  2.0 MB          -     10         0         0  /var/log/nginx/b.log
   0 B   1.5 kB  1.5 kB    1 s ago    990         0         0  /var/log/a.log
and 1 that were rotated away, or aren't followed any more (`status --json` has them)
",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(text(&status(), false, now), want);
        // In colour it is the same text.
        let mut plain = String::new();
        let coloured = text(&status(), true, now);
        let mut parts = coloured.split('\x1b');
        plain.push_str(parts.next().unwrap());
        parts.for_each(|part| plain.push_str(part.split_once('m').unwrap().1));
        assert_eq!(plain.lines().map(str::trim_end).collect::<Vec<_>>(), want.lines().collect::<Vec<_>>());
    }

    #[test]
    fn what_has_no_room_on_the_screen_is_cut_and_said() {
        let picture = "first line\n\x1b[31mred\x1b[0m and more\nthird\nfourth\n";
        assert_eq!(fitted(picture, (5, 9)), "first\x1b[K\n\x1b[31mred\x1b[0m a\x1b[K\nthird\x1b[K\nfourt\x1b[K");
        assert_eq!(fitted(picture, (80, 2)), "first line\x1b[K\n… 3 more lines\x1b[K");
    }
}
