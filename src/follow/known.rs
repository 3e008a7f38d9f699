//! The logs that the ledger knows, while names are looked at: by inode and by name, so that ten thousand names don't cost
//! a look at ten thousand logs each.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::ledger::LogRow;
use crate::offsets::LogId;

/// Rows of the ledger. Places in it stay what they are.
#[derive(Debug, Default)]
pub struct Known {
    rows: Vec<LogRow>,
    by_id: HashMap<LogId, usize>,
    by_inode: HashMap<(u64, u64), Vec<usize>>,
    by_name: HashMap<PathBuf, Vec<usize>>,
}

impl Known {
    /// Takes the rows in, in their order.
    pub fn new(rows: Vec<LogRow>) -> Self {
        let mut known = Self::default();
        rows.into_iter().for_each(|row| known.put(row));
        known
    }

    /// All of them.
    pub fn rows(&self) -> &[LogRow] {
        &self.rows
    }

    /// Those last seen with this device and inode.
    pub fn at_inode(&self, inode: (u64, u64)) -> impl Iterator<Item = (usize, &LogRow)> {
        let places = self.by_inode.get(&inode).into_iter().flatten();
        // A row that has another inode by now is still listed at its old one.
        places.map(|place| (*place, &self.rows[*place])).filter(move |(_, row)| (row.dev, row.ino) == inode)
    }

    /// Those last seen under this name.
    pub fn named(&self, name: &Path) -> impl Iterator<Item = (usize, &LogRow)> {
        let places = self.by_name.get(name).into_iter().flatten();
        places.map(|place| (*place, &self.rows[*place])).filter(move |(_, row)| row.path == name)
    }

    /// Takes in what is known of a log by now.
    pub fn put(&mut self, row: LogRow) {
        let place = *self.by_id.entry(row.id).or_insert(self.rows.len());
        let places = self.by_inode.entry((row.dev, row.ino)).or_default();
        if !places.contains(&place) {
            places.push(place);
        }
        match self.by_name.get_mut(&row.path) {
            Some(places) if places.contains(&place) => {}
            Some(places) => places.push(place),
            None => drop(self.by_name.insert(row.path.clone(), vec![place])),
        }
        match self.rows.get_mut(place) {
            Some(known) => *known = row,
            None => self.rows.push(row),
        }
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
            path: PathBuf::from(path),
            dev: 1,
            ino,
            fingerprint: Fingerprint::default(),
            format: None,
            last_read: None,
            ended: false,
        };
        let mut known = Known::new(vec![row(7, "/a", 10), row(8, "/b", 11)]);
        known.put(row(8, "/c", 10));
        known.put(row(9, "/b", 11));
        let ids = |found: Vec<(usize, &LogRow)>| found.into_iter().map(|(at, row)| (at, row.id.0)).collect::<Vec<_>>();
        assert_eq!(ids(known.at_inode((1, 10)).collect()), [(0, 7), (1, 8)]);
        assert_eq!(ids(known.at_inode((1, 11)).collect()), [(2, 9)]);
        assert_eq!(ids(known.named(Path::new("/b")).collect()), [(2, 9)]);
        assert_eq!(ids(known.named(Path::new("/c")).collect()), [(1, 8)]);
        assert_eq!(known.rows().len(), 3);
    }
}
