//! Looks at the names there are now, and holds them against the open files.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::file::Stamp;
use super::known::Known;
use super::moment::Moment;
use super::rotated::Since;
use super::source::{Happened, Sink, Source};
use super::{Follower, SETTLED, TICK, discover};
use crate::ledger::LedgerError;
use crate::offsets::LogId;

/// Other files in the logs' directories that are known to be none.
const UNCONCERNED: usize = 1_024;

/// Writes to files that aren't open, but may be logs, are followed by a look at all names so often at most.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The paths that the patterns match, with the indices of the targets whose patterns they are.
pub(super) type Found = BTreeMap<PathBuf, Arc<[usize]>>;

/// What is known while names are looked at.
pub(super) struct Looking {
    /// What the ledger knows, with what was added since it was asked.
    pub(super) known: Option<Known>,
    /// What is open; `None`: nobody has asked yet, as at nearly all looks.
    pub(super) open: Option<Open>,
}

/// Files that are remembered to be done with.
const FINISHED: usize = 65_536;

/// What is open.
pub(super) struct Open {
    /// Its files.
    pub(super) inodes: HashSet<(u64, u64)>,
    /// Its logs.
    pub(super) logs: HashSet<LogId>,
}

impl Open {
    pub(super) fn of(sources: &[Source]) -> Self {
        let (inodes, logs) = sources.iter().map(|source| ((source.row.dev, source.row.ino), source.row.id)).unzip();
        Self { inodes, logs }
    }
}

/// The names of open logs that have them still, found by their sources' places: a set of names would be several times as
/// large.
struct OpenNames {
    places: HashTable<usize>,
    hasher: DefaultHashBuilder,
}

impl OpenNames {
    fn of(sources: &[Source]) -> Self {
        let (mut places, hasher) = (HashTable::with_capacity(sources.len()), DefaultHashBuilder::default());
        let hash = |place: &usize| hasher.hash_one(&*sources[*place].path);
        for place in (0..sources.len()).filter(|place| sources[*place].leaving.is_none()) {
            places.insert_unique(hash(&place), place, hash);
        }
        Self { places, hasher }
    }

    /// Whether a name is among them; sources may have been added since.
    fn hold(&self, name: &Path, sources: &[Source]) -> bool {
        self.places.find(self.hasher.hash_one(name), |place| *sources[*place].path == *name).is_some()
    }
}

impl<S: Sink> Follower<S> {
    /// Holds the open files against the names there are now.
    pub(super) fn look(&mut self) -> Result<(), LedgerError> {
        let began = Moment::now();
        self.looked_at = Instant::now();
        self.wants_to_look = false;
        self.unconcerned.clear();
        self.followed_names.clear();
        if self.finished.len() + self.unfinished.len() > FINISHED {
            // What lies there still is looked into once more.
            self.finished.clear();
            self.unfinished.clear();
        }
        self.allow_for_the_clock(&began);
        let patterns: Vec<String> = self.targets.iter().map(|target| target.pattern.clone()).collect();
        let found = self.list(&patterns);
        let mut moved = self.see_who_has_moved();
        let new = match self.take_in(&found, &mut moved) {
            Ok(new) => new,
            Err(error) => {
                // What can't be remembered now is looked for again, all of it.
                let since = self.looked.map(|looked| Since::all(looked.wall - TICK));
                since.into_iter().for_each(|since| moved.iter().for_each(|name| self.search_again(name, since)));
                return Err(error);
            }
        };
        self.looked = Some(began);
        // The first look of a run, or by a new configuration, isn't all: what was rotated before is searched for after it.
        if self.looking_stored.is_some() && self.wanted.is_none() {
            self.remember_looking(new > 0 || !moved.is_empty())?;
        }
        let unread = self.sources.iter().filter(|source| source.row.fingerprint.marks.is_empty());
        self.unread = unread.map(|source| source.row.id).collect();
        self.see_where_links_lead(&found, new > 0 || !moved.is_empty());
        if self.watches.set(self.directories(&patterns, &found)) {
            // A file that came before its directory was watched is seen by looking once more.
            self.look_again = true;
        }
        Ok(())
    }

    /// The paths that the patterns match, and what is wrong with those of which it was said before.
    fn list(&mut self, patterns: &[String]) -> Found {
        let mut unlisted = Vec::new();
        let found = discover::paths(patterns, |directory, error| unlisted.push((directory.to_path_buf(), error)));
        self.troubles.retain(|path, _| {
            found.contains_key(path)
                || unlisted.iter().any(|(directory, _)| directory == path)
                || !path.is_dir() && path.symlink_metadata().is_ok()
        });
        for (directory, error) in unlisted {
            self.say_trouble(&directory, &error);
        }
        found
    }

    /// The names whose files aren't those that are open under them, or may not be.
    fn see_who_has_moved(&mut self) -> BTreeSet<PathBuf> {
        // Under its name nothing tells any more whether a log that is leaving is written to.
        self.sources.iter_mut().for_each(|source| source.due |= source.leaving.is_some());
        let unread = self.sources.iter().filter(|source| self.unread.contains(&source.row.id));
        let mut moved: BTreeSet<PathBuf> = unread.map(|source| source.row.path.to_path_buf()).collect();
        for source in self.sources.iter_mut().filter(|source| source.leaving.is_none()) {
            let there = std::fs::metadata(&source.path).ok();
            let there = there.filter(|meta| (meta.dev(), meta.ino()) == (source.row.dev, source.row.ino));
            if let Some(meta) = there {
                // Whether anybody has told of it or not.
                source.due |= source.seen != Some(Stamp::of(&meta));
            } else {
                tracing::info!(path = %source.path.display(), "file renamed or removed, reading it to its end");
                self.sink.happened(Happened::Rotation(&source.row.path));
                source.leaving = Some(Instant::now());
                source.due = true;
                moved.insert(source.path.to_path_buf());
            }
        }
        moved
    }

    /// Opens what isn't open, and looks for what had these names before. Gives how many names were new.
    fn take_in(&mut self, found: &Found, moved: &mut BTreeSet<PathBuf>) -> Result<usize, LedgerError> {
        let open = OpenNames::of(&self.sources);
        let new = found.keys().filter(|path| !open.hold(path, &self.sources)).count();
        let mut looking = self.looking();
        // At once: a vector that grows by and by leaves holes as large as itself.
        self.sources.reserve_exact(new);
        for (path, targets) in found {
            if open.hold(path, &self.sources) {
                continue;
            }
            // At the first look nothing is known to have moved; a copy of each name would only lie between the logs.
            if self.looked.is_some() {
                moved.insert(path.clone());
            }
            self.open(path, targets, &mut looking)?;
        }
        self.keep(looking);
        self.find_what_was_rotated_since_the_last_look(moved, found)?;
        self.read_what_has_lost_its_name()?;
        Ok(new)
    }

    /// Notifications tell of a file by the name that it has where it lies.
    fn see_where_links_lead(&mut self, found: &Found, changed: bool) {
        // Where every name still has its file, no link leads elsewhere now.
        let mut names = DefaultHasher::new();
        found.keys().for_each(|path| path.hash(&mut names));
        let names = names.finish();
        if changed || names != self.found {
            self.real_paths = found
                .keys()
                .filter_map(|path| Some((std::fs::canonicalize(path).ok()?, path.clone())))
                .filter(|(real, path)| real != path)
                .collect();
            self.found = names;
        }
    }

    /// Where something must happen before a log is written to, renamed, or there at all.
    fn directories(&self, patterns: &[String], found: &Found) -> BTreeSet<PathBuf> {
        let mut directories: BTreeSet<PathBuf> =
            patterns.iter().map(|pattern| discover::watched_directory(pattern)).collect();
        // By their order those of one directory mostly come one after the other.
        let mut last = None;
        let folders = found.keys().filter_map(|path| path.parent());
        directories.extend(folders.filter(|folder| last.replace(*folder) != Some(*folder)).map(Path::to_path_buf));
        directories.extend(self.real_paths.keys().filter_map(|path| path.parent().map(Path::to_path_buf)));
        directories
    }

    /// `false`: no log of that name is open.
    pub(super) fn mark_due(&mut self, path: &Path) -> bool {
        let path = self.real_paths.get(path).map_or(path, PathBuf::as_path);
        let mut known = false;
        let (whole, name) = (path.as_os_str(), path.file_name());
        for source in &mut self.sources {
            // A path is compared part by part; of ten thousand, nearly all differ in their last one.
            let same = source.path.as_os_str() == whole || (source.path.file_name() == name && *source.path == *path);
            source.due |= same || source.leaving.is_some();
            // What is written under the name of a log that is leaving is its successor's.
            known |= same && source.leaving.is_none();
        }
        known
    }

    /// Whether what is written to a file that isn't open may be a log's: error logs lie in the same directory.
    pub(super) fn concerns(&mut self, path: &Path) -> bool {
        let path = self.real_paths.get(path).map_or(path, PathBuf::as_path);
        if self.unconcerned.contains(path) {
            return false;
        }
        let is_its = |source: &&Source| discover::may_be_rotated(path, &source.row.path);
        if let Some(of) = self.sources.iter().find(is_its).map(|source| Arc::clone(&source.row.path)) {
            // Perhaps it was closed already. It was written to just now, but that may have been heard late.
            let now = SystemTime::now();
            let written = now.checked_sub(SETTLED).unwrap_or(SystemTime::UNIX_EPOCH);
            self.search_again(&of, Since { written, made: now });
            return true;
        }
        if self.targets.iter().any(|target| discover::is_for(&target.pattern, path)) {
            return true;
        }
        if self.unconcerned.len() < UNCONCERNED {
            self.unconcerned.insert(path.to_path_buf());
        }
        false
    }

    /// How often names are looked at for the sake of files that aren't open: a tenth of the time at most goes into it.
    pub(super) fn look_every(&self) -> Duration {
        LOOK_EVERY.max(self.look_took.saturating_mul(9))
    }
}
