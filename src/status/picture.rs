//! The state as a JSON value: what `status`, the status page and the metrics all show.

use std::path::Path;

use serde_json::{Value, json};

use super::live::Live;
use crate::ledger::{Counts, Ledger, LedgerError, StatusRow};

/// Sites (those of the configuration, by name) and logs, from the ledger, with what a running daemon knows besides.
///
/// # Errors
/// Those of reading the ledger.
pub fn picture(state_dir: &Path, names: &[String], live: Option<&Live>) -> Result<Value, LedgerError> {
    let reader = Ledger::open_read_only(state_dir)?;
    let (rows, totals) = match &reader {
        Some(reader) => (reader.status()?, reader.totals()?),
        None => (Vec::new(), Vec::new()),
    };
    let sites: Vec<Value> = names
        .iter()
        .map(|name| {
            let mine = rows.iter().filter(|row| row.site.as_deref() == Some(name.as_str()));
            let seen = live.and_then(|live| live.sites.iter().find(|seen| seen.name == *name));
            let total = totals.iter().find(|total| total.site == *name);
            json!({
                "name": name,
                "counts": counts(sum(mine)),
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
                "counts": counts(sum(of.iter().copied())),
            }))
        })
        .collect();
    Ok(json!({
        "running": live.is_some(),
        "state_dir": state_dir.display().to_string(),
        "counts": counts(sum(rows.iter())),
        "sites": sites,
        "logs": logs,
    }))
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

fn counts(counts: Counts) -> Value {
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
