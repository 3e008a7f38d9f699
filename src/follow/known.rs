//! The logs that the ledger knows, while names are looked at: by inode and by name, so that ten thousand names don't cost
//! a look at ten thousand logs each.

use std::hash::BuildHasher;
use std::path::Path;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::ledger::{Ledger, LedgerError, LogRow};
use crate::offsets::LogId;

/// Rows of the ledger. Places in it stay what they are.
#[derive(Debug, Default)]
pub struct Known {
    // Each by itself: what the C library gets back in one large piece it takes for what is wanted again, and from then on
    // it keeps as much of the small ones.
    rows: Vec<Arc<LogRow>>,
    // Places of the rows, found by what the rows say now: a copy of ten thousand names would be as large as the rows.
    by_id: HashTable<usize>,
    by_inode: HashTable<usize>,
    by_name: HashTable<usize>,
    hasher: DefaultHashBuilder,
    newest: i64,
}

impl Known {
    /// All that the ledger knows now.
    ///
    /// # Errors
    /// Those of the ledger.
    pub fn of(ledger: &Ledger) -> Result<Self, LedgerError> {
        // By a thread of its own: the C library gives that memory of its own, and can return it when all of it is free,
        // which it never is where it lies among what stays.
        std::thread::scope(|scope| {
            let load = || {
                let mut known = Self::default();
                ledger.each_log(|row| known.put(row))?;
                Ok(known)
            };
            match std::thread::Builder::new().name("known".into()).spawn_scoped(scope, load) {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(_) => load(),
            }
        })
    }

    /// Whether this is what is known of a log.
    pub fn holds(&self, row: &LogRow) -> bool {
        self.by_id.find(self.hasher.hash_one(row.id), |place| *self.rows[*place] == *row).is_some()
    }

    /// All of them.
    pub fn rows(&self) -> &[Arc<LogRow>] {
        &self.rows
    }

    /// The one that was taken in last: where the ledger has a newer one, another process has taken it in since.
    pub fn newest(&self) -> LogId {
        LogId(self.newest)
    }

    /// Those last seen with this device and inode.
    pub fn at_inode(&self, inode: (u64, u64)) -> impl Iterator<Item = (usize, &LogRow)> {
        self.at(&self.by_inode, self.hasher.hash_one(inode)).filter(move |(_, row)| (row.dev, row.ino) == inode)
    }

    /// Those last seen under this name.
    pub fn named(&self, name: &Path) -> impl Iterator<Item = (usize, &LogRow)> {
        self.at(&self.by_name, self.hasher.hash_one(name)).filter(move |(_, row)| *row.path == *name)
    }

    /// Rows whose places a table has under a hash, in their order.
    fn at(&self, table: &HashTable<usize>, hash: u64) -> impl Iterator<Item = (usize, &LogRow)> {
        let mut places: Vec<usize> = table.iter_hash(hash).copied().collect();
        places.sort_unstable();
        places.into_iter().map(|place| (place, &*self.rows[place]))
    }

    /// Takes in what is known of a log by now.
    pub fn put(&mut self, row: LogRow) {
        let Self { rows, by_id, by_inode, by_name, hasher, newest } = self;
        *newest = row.id.0.max(*newest);
        let of_id = |row: &LogRow| hasher.hash_one(row.id);
        let of_inode = |row: &LogRow| hasher.hash_one((row.dev, row.ino));
        let of_name = |row: &LogRow| hasher.hash_one(&*row.path);
        let place = match by_id.find(of_id(&row), |place| rows[*place].id == row.id) {
            Some(place) => {
                let place = *place;
                for (table, hash) in [(&mut *by_inode, of_inode(&rows[place])), (&mut *by_name, of_name(&rows[place]))]
                {
                    if let Ok(known) = table.find_entry(hash, |known| *known == place) {
                        known.remove();
                    }
                }
                rows[place] = Arc::new(row);
                place
            }
            None => {
                rows.push(Arc::new(row));
                let place = rows.len() - 1;
                by_id.insert_unique(of_id(&rows[place]), place, |place| of_id(&rows[*place]));
                place
            }
        };
        by_inode.insert_unique(of_inode(&rows[place]), place, |place| of_inode(&rows[*place]));
        by_name.insert_unique(of_name(&rows[place]), place, |place| of_name(&rows[*place]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Fingerprint;

    #[test]
    fn a_log_is_found_by_what_is_known_of_it_last() {
        let row = |id, path: &str, ino| LogRow {
            id: LogId(id),
            path: Path::new(path).into(),
            dev: 1,
            ino,
            fingerprint: Fingerprint::default(),
            format: None,
            last_read: None,
            ended: false,
        };
        let mut known = Known::default();
        for row in [row(7, "/a", 10), row(8, "/b", 11), row(8, "/c", 10), row(9, "/b", 11)] {
            known.put(row);
        }
        let ids = |found: Vec<(usize, &LogRow)>| found.into_iter().map(|(at, row)| (at, row.id.0)).collect::<Vec<_>>();
        assert_eq!(ids(known.at_inode((1, 10)).collect()), [(0, 7), (1, 8)]);
        assert_eq!(ids(known.at_inode((1, 11)).collect()), [(2, 9)]);
        assert_eq!(ids(known.named(Path::new("/b")).collect()), [(2, 9)]);
        assert_eq!(ids(known.named(Path::new("/c")).collect()), [(1, 8)]);
        assert_eq!(known.rows().len(), 3);
        assert!(known.holds(&row(8, "/c", 10)) && !known.holds(&row(8, "/b", 11)) && !known.holds(&row(1, "/c", 10)));
    }
}
