//! The state as a JSON value, as `status --json` prints it: from the ledger, with what a running daemon knows besides.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};

use super::live::Live;
use crate::ledger::{Counts, Ledger, LedgerError, StatusRow};
use crate::offsets::LogId;

/// Sites (those of the configuration, by name) and logs. `reads` says whether a path is one that a site of the configuration
/// follows.
///
/// # Errors
/// Those of reading the ledger.
pub fn picture(
    state_dir: &Path,
    names: &[String],
    live: Option<&Live>,
    reads: impl Fn(&str, &Path) -> bool,
) -> Result<Value, LedgerError> {
    let reader = Ledger::open_read_only(state_dir)?;
    let (rows, totals) = match &reader {
        Some(reader) => (reader.status()?, reader.totals()?),
        None => (Vec::new(), Vec::new()),
    };
    let mut by_site: HashMap<&str, Counts> = HashMap::new();
    let mut by_log: Vec<(LogId, Vec<&StatusRow>)> = Vec::new();
    for row in &rows {
        if let Some(site) = &row.site {
            *by_site.entry(site).or_default() += row.counts;
        }
        match by_log.last_mut().filter(|(log, _)| *log == row.log) {
            Some((_, of)) => of.push(row),
            None => by_log.push((row.log, vec![row])),
        }
    }
    let totals: HashMap<&str, _> = totals.iter().map(|total| (total.site.as_str(), total)).collect();
    let seen: HashMap<&str, _> =
        live.into_iter().flat_map(|live| &live.sites).map(|seen| (seen.name.as_str(), seen)).collect();
    let sites: Vec<Value> = names
        .iter()
        .map(|name| {
            let (seen, total) = (seen.get(name.as_str()), totals.get(name.as_str()));
            json!({
                "name": name,
                "counts": counts(by_site.get(name.as_str()).copied().unwrap_or_default()),
                "waiting": seen.map_or(0, |seen| seen.waiting),
                "in_flight": seen.map_or(0, |seen| seen.in_flight),
                "delivered": total.map_or(0, |total| total.delivered),
                "rejected": total.map_or(0, |total| total.rejected),
                "state": seen.map_or("stopped", |seen| seen.state.as_str()),
                "last_delivered": seen.and_then(|seen| seen.last_delivered),
                "last_error": seen.and_then(|seen| seen.last_error.clone()),
                "remedy": seen.and_then(|seen| seen.remedy.clone()),
            })
        })
        .collect();
    let logs: Vec<Value> = by_log
        .iter()
        .filter_map(|(_, of)| {
            let first = of.first()?;
            let is_followed = names.iter().any(|name| reads(name, &first.path));
            // A site that isn't configured any more, or doesn't read this log any more, keeps its place, and holds nobody
            // back. A rotated log has a name that is nobody's.
            let is_current = |row: &&&StatusRow| {
                let site = row.site.as_ref();
                site.is_none_or(|site| names.contains(site) && (!is_followed || reads(site, &first.path)))
            };
            let offset = of.iter().filter(is_current).map(|row| row.watermark).min().unwrap_or(0);
            let size = size_of(first);
            let sites: Vec<&str> = of.iter().filter(is_current).filter_map(|row| row.site.as_deref()).collect();
            Some(json!({
                "path": first.path.display().to_string(),
                "followed": !first.ended && is_followed,
                "offset": offset,
                "size": size,
                "lag_bytes": size.map(|size| size.saturating_sub(offset)),
                "last_read": first.last_read,
                "sites": sites,
                "counts": counts(sum(of.iter().copied())),
            }))
        })
        .collect();
    Ok(json!({
        "running": live.is_some(),
        "state_dir": state_dir.display().to_string(),
        "status_page": live.and_then(|live| live.status.clone()),
        "trouble": live.and_then(|live| live.trouble.clone()),
        "reload": live.and_then(|live| live.reload.clone()),
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
