//! `silktail status`: sites, logs, offsets, backlog, counts, last error; from the ledger, so it works when the daemon is
//! down.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{Failure, load, print, printable};
use crate::status::live;
use crate::status::picture::picture;

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
    let config = load(config_path)?;
    let names: Vec<String> = config.sites.iter().map(|site| site.name.clone()).collect();
    let shown = || {
        let live = live::read(&config.state_dir);
        let status = picture(&config.state_dir, &names, live.as_ref()).map_err(|error| Failure::from_error(&error))?;
        Ok(if args.json { format!("{status}\n") } else { text(&status) })
    };
    if !args.watch {
        return print(&shown()?);
    }
    let terminal = std::io::stdout().is_terminal();
    loop {
        // Home, the picture, and whatever was below it away: no flicker.
        let picture = shown()?;
        let screen = match terminal {
            true => format!("\x1b[H{}\x1b[J", picture.replace('\n', "\x1b[K\n")),
            false => picture + "\n",
        };
        print(&screen)?;
        std::thread::sleep(EVERY);
    }
}

fn text(status: &Value) -> String {
    let number = |value: &Value| value.as_u64().map_or_else(|| "?".to_owned(), |number| number.to_string());
    let mut out = if status["running"] == true { "running\n".to_owned() } else { "not running\n".to_owned() };
    for site in status["sites"].as_array().into_iter().flatten() {
        out.push_str(&format!(
            "site {}: {}, {} waiting, {} in flight, {} delivered, {} rejected\n",
            site["name"].as_str().unwrap_or_default(),
            site["state"].as_str().unwrap_or_default(),
            number(&site["waiting"]),
            number(&site["in_flight"]),
            number(&site["delivered"]),
            number(&site["rejected"]),
        ));
        out.push_str(&format!("  {}\n", counts_text(&site["counts"])));
        if let Some(error) = site["last_error"].as_str() {
            out.push_str(&format!("  last error: {}\n", printable(error)));
        }
    }
    for log in status["logs"].as_array().into_iter().flatten() {
        out.push_str(&format!(
            "log {}: at {} of {}, {} behind\n  {}\n",
            printable(log["path"].as_str().unwrap_or_default()),
            number(&log["offset"]),
            number(&log["size"]),
            number(&log["lag_bytes"]),
            counts_text(&log["counts"]),
        ));
    }
    out
}

fn counts_text(counts: &Value) -> String {
    let parts: Vec<String> = counts
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, count)| *name == "lines" || count.as_u64() != Some(0))
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    parts.join("  ")
}
