//! How far the logs are that are followed now, and how late. Told by the follower and the settler, asked by whoever looks.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::follow::archive::UNKNOWN;
use crate::follow::source::Place;
use crate::offsets::{LogId, Origin};

/// The logs that are open, and the events that are read and not settled: these are bounded by the outbox.
#[derive(Debug, Default, Clone)]
pub struct Logs {
    /// By their number.
    places: Vec<Kept>,
    /// Since when it is known of the few that are behind.
    behind: HashMap<LogId, Instant>,
    open: HashMap<Origin, Instant>,
}

/// A place as it is kept: there are ten thousand.
#[derive(Debug, Clone)]
struct Kept {
    id: LogId,
    path: Arc<Path>,
    inode: (u64, u64),
    /// An archive's is [`UNKNOWN`].
    size: u64,
    read_to: u64,
}

/// A log as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The ledger's number for it.
    pub id: LogId,
    /// The name under which it is followed.
    pub path: Arc<Path>,
    /// Everything before is settled.
    pub offset: u64,
    /// Its bytes; `None`: an archive's aren't known.
    pub size: Option<u64>,
    /// Its bytes that aren't settled.
    pub lag_bytes: u64,
    /// The age of its oldest line that isn't settled: since it was read, or since it was known to be unread.
    pub lag: Duration,
}

impl Logs {
    /// A log is here now.
    pub fn stands(&mut self, log: LogId, place: Place) {
        let Place { path, inode, size, read_to, behind_since } = place;
        match behind_since {
            Some(since) => self.behind.insert(log, since),
            None => self.behind.remove(&log),
        };
        let kept = Kept { id: log, path, inode, size: size.unwrap_or(UNKNOWN), read_to };
        match self.at(log) {
            Ok(at) => self.places[at] = kept,
            Err(at) => self.places.insert(at, kept),
        }
    }

    /// A log isn't open any more.
    pub fn left(&mut self, log: LogId) {
        self.behind.remove(&log);
        if let Ok(at) = self.at(log) {
            self.places.remove(at);
        }
    }

    /// The path of a log that is open.
    pub fn path(&self, log: LogId) -> Option<Arc<Path>> {
        self.at(log).ok().map(|at| Arc::clone(&self.places[at].path))
    }

    fn at(&self, log: LogId) -> Result<usize, usize> {
        self.places.binary_search_by_key(&log, |place| place.id)
    }

    /// An event is read and waits to be settled.
    pub fn opened(&mut self, event: Origin, now: Instant) {
        self.open.insert(event, now);
    }

    /// Events are settled.
    pub fn settled(&mut self, events: &[Origin]) {
        for event in events {
            self.open.remove(event);
        }
    }

    /// Every open log, by its path. `size_of` asks the system: the size of the file of that name, if it still is the one
    /// with that device and inode.
    pub fn standing(&self, now: Instant, size_of: impl Fn(&Path, (u64, u64)) -> Option<u64>) -> Vec<Standing> {
        let mut waiting: HashMap<LogId, (u64, Instant)> = HashMap::new();
        for (origin, since) in &self.open {
            let known = waiting.entry(origin.log).or_insert((origin.line.start, *since));
            *known = (known.0.min(origin.line.start), known.1.min(*since));
        }
        let mut all: Vec<Standing> = self
            .places
            .iter()
            .map(|place| {
                let open = waiting.get(&place.id);
                let offset = open.map_or(place.read_to, |(start, _)| place.read_to.min(*start));
                let size = Some(place.size).filter(|size| *size != UNKNOWN);
                let size = size.map(|known| size_of(&place.path, place.inode).unwrap_or(known));
                let behind = self.behind.get(&place.id).copied();
                let since = [open.map(|(_, since)| *since), behind].into_iter().flatten().min();
                Standing {
                    id: place.id,
                    path: Arc::clone(&place.path),
                    offset,
                    size,
                    lag_bytes: size.map_or(0, |size| size.saturating_sub(offset)),
                    lag: since.map_or(Duration::ZERO, |since| now.duration_since(since)),
                }
            })
            .collect();
        all.sort_by(|one, other| one.path.cmp(&other.path).then(one.id.cmp(&other.id)));
        all
    }
}

/// The size of the file of a name, if it still is this one.
pub fn size_of(path: &Path, inode: (u64, u64)) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).ok()?;
    ((meta.dev(), meta.ino()) == inode).then_some(meta.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offsets::{SiteId, Span};

    #[test]
    fn a_log_lags_by_its_oldest_line_that_is_not_settled() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let event = |log, start| Origin { site: SiteId(1), log: LogId(log), line: Span { start, end: start + 10 } };
        let place = |path: &str, read_to, behind_since| Place {
            path: Path::new(path).into(),
            inode: (1, 2),
            size: Some(1_000),
            read_to,
            behind_since,
        };
        let mut logs = Logs::default();
        logs.stands(LogId(2), place("b", 1_000, None));
        logs.stands(LogId(1), place("c", 400, Some(at(5))));
        logs.stands(LogId(3), Place { size: None, ..place("a", 70, None) });
        let seen = |logs: &Logs, size| -> Vec<(i64, u64, u64, u64)> {
            let all = logs.standing(at(60), |_, _| size);
            all.iter().map(|log| (log.id.0, log.offset, log.lag_bytes, log.lag.as_secs())).collect()
        };
        assert_eq!(seen(&logs, None), [(3, 70, 0, 0), (2, 1_000, 0, 0), (1, 400, 600, 55)], "by path");
        assert_eq!(seen(&logs, Some(1_200))[1], (2, 1_000, 200, 0), "just written, and not yet late");
        logs.opened(event(2, 700), at(20));
        logs.opened(event(2, 300), at(30));
        logs.opened(event(1, 390), at(1));
        assert_eq!(seen(&logs, None)[1..], [(2, 300, 700, 40), (1, 390, 610, 59)]);
        logs.settled(&[event(2, 700), event(1, 390), event(9, 1)]);
        assert_eq!(seen(&logs, None)[1..], [(2, 300, 700, 30), (1, 400, 600, 55)]);
        logs.left(LogId(1));
        assert_eq!(seen(&logs, None).len(), 2);
    }
}
