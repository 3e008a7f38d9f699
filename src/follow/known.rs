//! The logs that the ledger knows, while names are looked at: by inode and by name, so that ten thousand names don't cost
//! a look at ten thousand logs each.

use std::hash::BuildHasher;
use std::path::Path;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::discover;
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
    /// Made when it is asked for, which is seldom. Of a row that has another name now, the old one's place is left.
    by_family: Option<HashTable<usize>>,
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

    /// The format of the log that had this name last before one, or before any that isn't known.
    pub fn format_before(&self, name: &Path, row: Option<&LogRow>) -> Option<&str> {
        let of = self.named(name).filter(|(_, one)| row.is_none_or(|row| one.id < row.id));
        of.filter(|(_, one)| one.format.is_some()).max_by_key(|(_, one)| one.id)?.1.format.as_deref()
    }

    /// Those whose names rotation may have made of the same one as this (see [`discover::are_related`]).
    pub fn related(&mut self, path: &Path) -> Vec<(usize, Arc<LogRow>)> {
        let Self { rows, by_family, hasher, .. } = self;
        let of = |place: &usize| hasher.hash_one(discover::family(&rows[*place].path));
        let families = by_family.get_or_insert_with(|| {
            let mut families = HashTable::with_capacity(rows.len());
            for place in 0..rows.len() {
                families.insert_unique(of(&place), place, of);
            }
            families
        });
        let mut places: Vec<usize> = families.iter_hash(hasher.hash_one(discover::family(path))).copied().collect();
        places.sort_unstable();
        places.dedup();
        let all = places.into_iter().map(|place| (place, Arc::clone(&rows[place])));
        all.filter(|(_, row)| *row.path == *path || discover::are_related(path, &row.path)).collect()
    }

    /// Rows whose places a table has under a hash, in their order.
    fn at(&self, table: &HashTable<usize>, hash: u64) -> impl Iterator<Item = (usize, &LogRow)> {
        let mut places: Vec<usize> = table.iter_hash(hash).copied().collect();
        places.sort_unstable();
        places.into_iter().map(|place| (place, &*self.rows[place]))
    }

    /// Takes in what is known of a log by now.
    pub fn put(&mut self, row: LogRow) {
        let Self { rows, by_id, by_inode, by_name, by_family, hasher, newest } = self;
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
        if let Some(families) = by_family {
            let of = |place: &usize| hasher.hash_one(discover::family(&rows[*place].path));
            families.insert_unique(of(&place), place, of);
        }
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
        for (id, name) in [(10, "/logs/a.log"), (11, "/logs/a.log.2"), (12, "/logs/b.log")] {
            known.put(row(id, name, 20 + u64::try_from(id).unwrap()));
            let related = known.related(Path::new("/logs/a.log.1.gz")).into_iter().map(|(_, row)| row.id.0);
            assert_eq!(related.collect::<Vec<_>>(), [10, 11][..usize::try_from(id.min(11) - 9).unwrap()]);
        }
        assert!(known.holds(&row(8, "/c", 10)) && !known.holds(&row(8, "/b", 11)) && !known.holds(&row(1, "/c", 10)));
    }
}
