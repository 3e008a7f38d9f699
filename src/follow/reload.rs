//! Goes on with another configuration, and hands logs over to other sites.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::adopt::Log;
use super::decide::{decide_after, deciding_bytes};
use super::source::{Reader, Sink, Source};
use super::wishes::{Target, Wishes};
use super::{Follower, discover};
use crate::format::Format;
use crate::ledger::{Ledger, LedgerError};
use crate::offsets::{LogId, SiteId};
use crate::pipeline::Site;

/// Whose a reader is: its log, and its site; `None`: the log's own.
type Whose = (LogId, Option<SiteId>);

/// Readers that are out of use.
pub(super) type Parked = HashMap<Whose, Reader>;

/// A configuration that is to be taken up.
#[derive(Clone)]
pub(super) struct Wanted {
    wishes: Wishes,
    /// Patterns that were followed until it came.
    followed: BTreeSet<String>,
    /// It was begun: the targets are its own already, and when all was known is stored of those before.
    begun: bool,
}

/// The patterns that no earlier run had.
pub(super) fn new_patterns(targets: &[Target], ledger: &Ledger) -> Result<BTreeSet<String>, LedgerError> {
    let known = ledger.patterns()?;
    Ok(targets.iter().map(|target| target.pattern.clone()).filter(|pattern| !known.contains_key(pattern)).collect())
}

impl<S: Sink> Follower<S> {
    /// Another configuration is wanted: from now on it is tried to go on by it.
    pub(super) fn want(&mut self, wishes: Wishes) {
        // Those that are followed, even if one that was wanted in between couldn't be taken up.
        let followed = match self.wanted.take() {
            Some(wanted) => wanted.followed,
            None => self.targets.iter().map(|target| target.pattern.clone()).collect(),
        };
        self.wanted = Some(Wanted { wishes, followed, begun: false });
    }

    /// Goes on with the configuration that is wanted: logs and sites that stay keep their place, and what was read stays
    /// read. What fails, since it can't be remembered, is done again.
    pub(super) fn reload(&mut self) -> Result<(), LedgerError> {
        let Some(Wanted { wishes, followed, begun }) = self.wanted.clone() else { return Ok(()) };
        self.new_patterns = new_patterns(&wishes.targets, &self.ledger)?;
        if !begun {
            self.remember_looking(true)?;
        }
        self.wanted.iter_mut().for_each(|wanted| wanted.begun = true);
        Wishes { targets: self.targets, start: self.start, max_line: self.max_line, rest: self.rest } = wishes;
        let mut index = 0;
        while let Some(source) = self.sources.get_mut(index) {
            let path = Arc::clone(&source.row.path);
            let targets = self.matching(&path);
            let choice = targets.first().and_then(|index| self.targets.get(*index)).map(|target| &target.format);
            let source = &mut self.sources[index];
            let Some(choice) = choice else {
                tracing::info!(path = %source.path.display(), offset = source.read_to(), "file isn't followed any more");
                let mut source = self.sources.remove(index);
                self.sink.left(source.row.id);
                self.park(&mut source);
                continue;
            };
            let first = deciding_bytes(&source.file).unwrap_or_default();
            let now = source.pipeline.format.shared_name();
            let decided = decide_after(choice, source.row.format.as_deref(), Some(&now), &first);
            let is_final = source.file.is_packed() || decided.as_ref().is_none_or(|decided| decided.is_final);
            let format = decided.map_or_else(|| source.pipeline.format.clone(), |decided| decided.format);
            source.row.format = is_final.then(|| format.shared_name());
            self.hand_over(index, format, &targets)?;
            self.sink.update(self.sources[index].row.clone());
            index += 1;
        }
        // What comes back after it wasn't followed for a while, may have been rotated.
        self.look_at_all(&followed)?;
        self.wanted = None;
        tracing::info!(files = self.sources.len(), "following by the new configuration");
        Ok(())
    }

    /// A log that was begun with few lines may, by those that it has now, be in another format. Gives how far it is known to be in
    /// this one.
    pub(super) fn decide_again(&mut self, index: usize) -> Result<u64, LedgerError> {
        const ALL: u64 = u64::MAX;
        let Some(source) = self.sources.get(index) else { return Ok(ALL) };
        // Before it is decided: what is written meanwhile is for the next time.
        let Ok(size) = source.file.size() else { return Ok(ALL) };
        let targets = self.matching(&source.row.path);
        let choice = targets.first().and_then(|index| self.targets.get(*index)).map(|target| &target.format);
        // What can't be read is said when its turn comes.
        let (Some(choice), Ok(bytes)) = (choice, deciding_bytes(&source.file)) else { return Ok(ALL) };
        let now = source.pipeline.format.shared_name();
        let Some(decided) = decide_after(choice, None, Some(&now), &bytes) else { return Ok(size) };
        if decided.format.name() != &*now {
            tracing::info!(
                path = %source.path.display(), offset = source.read_to(), format = decided.format.name(), before = &*now,
                "the log's format shows now that it has more lines"
            );
            self.hand_over(index, decided.format, &targets)?;
        }
        if decided.is_final
            && let Some(source) = self.sources.get_mut(index)
        {
            source.row.format = Some(source.pipeline.format.shared_name());
            self.sink.update(source.row.clone());
            return Ok(ALL);
        }
        Ok(size)
    }

    /// From now on a log is read for other sites, or by another format: who read it goes on where it was, who is new begins
    /// where the log stands. Where that can't be remembered, all is as it was.
    pub(super) fn hand_over(&mut self, index: usize, format: Format, targets: &[usize]) -> Result<(), LedgerError> {
        let sites = self.sites_of(targets);
        let Some(source) = self.sources.get_mut(index) else { return Ok(()) };
        let at = source.own_offset();
        let (id, path, name) = (source.row.id, Arc::clone(&source.path), Arc::clone(&source.row.path));
        let size = source.file.size().unwrap_or(at);
        let log = Log { id, path: &path, name: &name, was_followed: true, size };
        let before = Self::park_in(&mut self.parked, source);
        match self.readers(&sites, log, at, at) {
            Ok(readers) => {
                // By its neighbours' way, if it is the same.
                let pipeline = self.pipeline(format, sites);
                let source = &mut self.sources[index];
                source.readers = readers;
                source.go_on_with(pipeline);
                Ok(())
            }
            Err(error) => {
                let parked = &mut self.parked;
                let back = before.into_iter().filter_map(|(site, key)| Some(Reader { site, ..parked.remove(&key)? }));
                self.sources[index].readers = back.collect();
                Err(error)
            }
        }
    }

    /// The log's own reader and one for each site, from where they are known to be; else from these offsets.
    pub(super) fn readers(
        &mut self,
        sites: &[Arc<Site>],
        log: Log<'_>,
        own: u64,
        start: u64,
    ) -> Result<Vec<Reader>, LedgerError> {
        // None to spare: there are thousands of them.
        let mut readers = Vec::with_capacity(1 + sites.len());
        let all = sites.iter().enumerate().map(|(index, site)| (Some(index), Some(site.id), start));
        for (site, id, start) in std::iter::once((None, None, own)).chain(all) {
            match self.reader(site, id, log, start) {
                Ok(reader) => readers.push(reader),
                Err(error) => {
                    // They know better than the ledger how far they are.
                    let id = |reader: &Reader| reader.site.and_then(|site| sites.get(site)).map(|site| site.id);
                    self.parked.extend(readers.into_iter().map(|reader| ((log.id, id(&reader)), reader)));
                    return Err(error);
                }
            }
        }
        Ok(readers)
    }

    /// Takes a log's readers out of use; they go on from where they are, should they be wanted again.
    fn park(&mut self, source: &mut Source) {
        Self::park_in(&mut self.parked, source);
    }

    /// The same; gives for which of its sites each was, and where it is now.
    fn park_in(parked: &mut Parked, source: &mut Source) -> Vec<(Option<usize>, Whose)> {
        let mut places = Vec::with_capacity(source.readers.len());
        for reader in source.readers.drain(..) {
            let site = reader.site.and_then(|index| source.pipeline.sites.get(index)).map(|site| site.id);
            places.push((reader.site, (source.row.id, site)));
            parked.insert((source.row.id, site), reader);
        }
        places
    }

    /// The targets whose pattern a path matches, whether it exists or not.
    pub(super) fn matching(&self, path: &Path) -> Vec<usize> {
        let fits = |target: &Target| discover::is_for(&target.pattern, path);
        (0..self.targets.len()).filter(|index| fits(&self.targets[*index])).collect()
    }

    /// The sites of some targets, each once, in file order.
    pub(super) fn sites_of(&self, targets: &[usize]) -> Vec<Arc<Site>> {
        let mut sites: Vec<Arc<Site>> = Vec::new();
        for target in targets.iter().filter_map(|index| self.targets.get(*index)) {
            if !sites.iter().any(|site| site.id == target.site.id) {
                sites.push(Arc::clone(&target.site));
            }
        }
        sites
    }

    /// From now on these patterns aren't new; but those are of which nothing may be read yet: `start` holds for what lies there
    /// when that is mended.
    pub(super) fn know_patterns(&mut self) -> Result<(), LedgerError> {
        let forbidden: Vec<&PathBuf> =
            self.troubles.iter().filter(|(_, why)| why.contains("Permission denied")).map(|(path, _)| path).collect();
        let is_hidden = |pattern: &String| {
            let is_its = |path: &&&PathBuf| discover::is_for(pattern, path) || Path::new(pattern).starts_with(path);
            forbidden.iter().any(|path| is_its(&path))
                && !self.sources.iter().any(|source| discover::is_for(pattern, &source.row.path))
        };
        let known: Vec<String> = self.new_patterns.iter().filter(|pattern| !is_hidden(pattern)).cloned().collect();
        for pattern in known {
            self.ledger.add_pattern(&pattern)?;
            self.new_patterns.remove(&pattern);
        }
        Ok(())
    }
}
