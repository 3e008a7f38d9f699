//! `silktail status`: sites, logs, offsets, backlog, counts, last error; from the ledger, so it works when the daemon is
//! down.

use std::path::Path;

use serde_json::{Value, json};

use super::{Failure, load, print, printable};
use crate::ledger::{Counts, Ledger, StatusRow};
use crate::status::live;

/// The arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Shows the state.
pub fn run(config_path: &Path, args: &Args) -> Result<(), Failure> {
    let config = load(config_path)?;
    let reader = Ledger::open_read_only(&config.state_dir).map_err(|error| Failure::from_error(&error))?;
    let rows = match &reader {
        Some(reader) => reader.status().map_err(|error| Failure::from_error(&error))?,
        None => Vec::new(),
    };
    let totals = match &reader {
        Some(reader) => reader.totals().map_err(|error| Failure::from_error(&error))?,
        None => Vec::new(),
    };
    let live = live::read(&config.state_dir);
    let sites: Vec<Value> = config
        .sites
        .iter()
        .map(|site| {
            let mine = rows.iter().filter(|row| row.site.as_deref() == Some(site.name.as_str()));
            let counts = sum(mine);
            let seen = live.as_ref().and_then(|live| live.sites.iter().find(|seen| seen.name == site.name));
            let total = totals.iter().find(|total| total.site == site.name);
            json!({
                "name": site.name,
                "counts": counts_json(counts),
                "waiting": seen.map_or(0, |seen| seen.waiting),
                "in_flight": seen.map_or(0, |seen| seen.in_flight),
                "delivered": total.map_or(0, |total| total.delivered),
                "rejected": total.map_or(0, |total| total.rejected),
                "state": seen.map_or("stopped", |seen| seen.state.as_str()),
                "last_error": seen.and_then(|seen| seen.last_error.clone()),
            })
        })
        .collect();
    let mut ids: Vec<_> = rows.iter().map(|row| row.log).collect();
    ids.sort();
    ids.dedup();
    let logs: Vec<Value> = ids
        .into_iter()
        .filter_map(|id| {
            let of: Vec<&StatusRow> = rows.iter().filter(|row| row.log == id).collect();
            let first = of.first()?;
            let offset = of.iter().map(|row| row.watermark).min().unwrap_or(0);
            let size = size_of(first);
            let names: Vec<&str> = of.iter().filter_map(|row| row.site.as_deref()).collect();
            Some(json!({
                "path": first.path.display().to_string(),
                "offset": offset,
                "size": size,
                "lag_bytes": size.map(|size| size.saturating_sub(offset)),
                "sites": names,
                "counts": counts_json(sum(of.iter().copied())),
            }))
        })
        .collect();
    let status = json!({
        "running": live.is_some(),
        "state_dir": config.state_dir.display().to_string(),
        "counts": counts_json(sum(rows.iter())),
        "sites": sites,
        "logs": logs,
    });
    if args.json { print(&format!("{status}\n")) } else { print(&text(&status)) }
}

fn sum<'a>(rows: impl Iterator<Item = &'a StatusRow>) -> Counts {
    let mut sum = Counts::default();
    for row in rows {
        sum += row.counts;
    }
    sum
}

/// The size of the file, if its name still holds it.
fn size_of(row: &StatusRow) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(&row.path).ok()?;
    (meta.ino() == row.ino).then_some(meta.len())
}

fn counts_json(counts: Counts) -> Value {
    json!({
        "lines": counts.lines,
        "too_long": counts.too_long,
        "unparsed": counts.unparsed,
        "unmatched": counts.unmatched,
        "excluded": counts.excluded,
        "bot": counts.bot,
        "repeat": counts.repeat,
        "event": counts.event,
    })
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
