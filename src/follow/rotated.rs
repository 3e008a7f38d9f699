//! Finds what rotation did to a followed log while nobody looked: its rest under another name, also compressed, and
//! whole files that came and went between two looks, or between two runs.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::discover::{self, Directories, Sibling};
use super::file::{self, Opened};
use super::identity::{self, Who};
use super::known::Known;
use super::look::{Found, Looking, Open};
use super::moment::Moment;
use super::source::{Happened, Sink, Source};
use super::{Adopted, Follower, TICK};
use crate::ledger::{LedgerError, LogRow};
use crate::offsets::{LogId, SiteId};

/// From when on files are looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Since {
    /// What was written to since then, of known logs.
    pub(super) written: SystemTime,
    /// What was made and written to since then, of files that nobody knows: those from before were there to be seen.
    pub(super) made: SystemTime,
}

impl Since {
    pub(super) fn all(at: SystemTime) -> Self {
        Self { written: at, made: at }
    }
}

/// What was written to after this, wasn't there to be read when the log was.
fn last_read(row: &LogRow) -> SystemTime {
    let at = row.last_read.and_then(|at| SystemTime::try_from(at).ok());
    at.map_or(SystemTime::UNIX_EPOCH, |at| at - TICK)
}

impl<S: Sink> Follower<S> {
    /// The names that an earlier run, or an earlier configuration, followed, and since when nobody has looked at them; but
    /// for those of the patterns `followed` all the while.
    ///
    /// What was written under a name and its siblings before that time is known by its content, or was left alone then.
    pub(super) fn names_read_before(
        &mut self,
        followed: &BTreeSet<String>,
    ) -> Result<Vec<(Arc<Path>, SystemTime)>, LedgerError> {
        let rows = self.known.as_ref().map_or(&[][..], Known::rows);
        let mut names = Vec::with_capacity(rows.len());
        let patterns = self.ledger.patterns()?;
        let wall = |at: &Option<jiff::Timestamp>| at.and_then(|at| SystemTime::try_from(at).ok());
        self.known_before = patterns.iter().map(|(pattern, at)| (pattern.clone(), wall(at))).collect();
        let clock = self.ledger.clock()?.and_then(|stored| Moment::of_this_start(&stored));
        self.set_back = clock.map_or(Duration::ZERO, |then| then.set_back_until(&Moment::now()));
        self.orphans.clear();
        for row in rows {
            let of_it = self.targets.iter().filter(|target| discover::is_for(&target.pattern, &row.path));
            if of_it.clone().next().is_none() {
                // What a backfill alone has read was never followed, and what is where it was is another's now, or nobody's.
                if !self.new_patterns.is_empty()
                    && !row.ended
                    && self.ledger.position(None, row.id)?.is_some()
                    && !file::inode(&row.path).is_ok_and(|inode| inode == (row.dev, row.ino))
                {
                    self.orphans.insert(row.id);
                }
                continue;
            }
            if of_it.clone().any(|target| followed.contains(&target.pattern)) {
                continue;
            }
            let looked = of_it.filter_map(|target| *patterns.get(&target.pattern)?).max();
            // It was stopped before it had looked for the first time.
            let since =
                looked.and_then(|at| SystemTime::try_from(at).ok()).map_or_else(|| last_read(row), |at| at - TICK);
            if self.ledger.position(None, row.id)?.is_some() {
                names.push((Arc::clone(&row.path), since - self.set_back));
            }
        }
        // What came while nobody looked, and was rotated, is in no row: neither it nor what has its name now.
        let looked_under = patterns.iter().filter(|(pattern, _)| !followed.contains(*pattern));
        for (pattern, looked) in
            looked_under.filter(|(pattern, _)| self.targets.iter().any(|one| one.pattern == **pattern))
        {
            let Some(looked) = looked.and_then(|at| SystemTime::try_from(at).ok()) else { continue };
            let since = looked - TICK - self.set_back;
            names.extend(discover::rotated_names(pattern).into_iter().map(|name| (Arc::from(name), since)));
        }
        // The earliest of each.
        names.sort_unstable();
        names.dedup_by(|(later, _), (name, _)| later == name);
        Ok(names)
    }

    /// Stores when all was known, where something has changed or it was long ago: what was written since then is looked
    /// at by the next run.
    pub(super) fn remember_looking(&mut self, changed: bool) -> Result<(), LedgerError> {
        /// How often it is stored where nothing changes.
        const EVERY: Duration = Duration::from_secs(600);
        let Some(looked) = self.looked else { return Ok(()) };
        if !changed && self.looking_stored.is_some_and(|at| at.elapsed() < EVERY) {
            return Ok(());
        }
        // What is still searched for isn't known.
        let at = self.search.values().map(|since| since.made).fold(looked.wall, SystemTime::min);
        let Ok(at) = jiff::Timestamp::try_from(at) else { return Ok(()) };
        let now = Instant::now();
        // What was found must be known before it is said that all is: else a kill in between leaves it alone for good.
        let patterns = self.targets.iter().map(|target| target.pattern.as_str());
        match self.ledger.sync().and_then(|()| self.ledger.looked(patterns, at, looked.stored().as_deref())) {
            Ok(()) => self.looking_stored = Some(now),
            // A full disk: the next look stores it, or the next run looks at more.
            Err(error) if error.is_passing() => self.looking_stored = now.checked_sub(EVERY).or(Some(now)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// At start: logs that were followed and whose name holds another file now are looked for among its siblings, and
    /// their rest is read first. So are siblings that were never seen and were written to after the last reading.
    pub(super) fn find_what_was_rotated_away(
        &mut self,
        names: Vec<(Arc<Path>, SystemTime)>,
    ) -> Result<(), LedgerError> {
        // Those that are open, and those that were read to their end in this run: what isn't settled of them is on its way.
        let mut held: BTreeSet<LogId> = self.sources.iter().map(|source| source.row.id).collect();
        held.extend(self.read_to.keys().map(|(_, log)| *log));
        let sites: Vec<SiteId> = self.targets.iter().map(|target| target.site.id).collect();
        self.left_over = self.ledger.left_over(&sites)?.into_iter().filter(|id| !held.contains(id)).collect();
        let mut directories = Directories::since(self.looked);
        let mut looking = self.looking();
        for (name, read) in names {
            let since = Since::all(read);
            self.search(&name, since, &mut directories, &mut looking)?;
            if !directories.has_all_siblings(&name) {
                self.search_again(&name, since);
            }
        }
        if !self.orphans.is_empty() {
            // What nobody knows there isn't read.
            let since = Since { written: SystemTime::UNIX_EPOCH, made: SystemTime::now() };
            let new: Vec<String> = self.new_patterns.iter().cloned().collect();
            self.seeks_orphans = true;
            let mut names = new.iter().flat_map(|pattern| discover::rotated_names(pattern));
            let done = names.try_for_each(|name| self.search(&name, since, &mut directories, &mut looking));
            self.seeks_orphans = false;
            self.orphans.clear();
            return done;
        }
        Ok(())
    }

    /// Whether a log that was followed under a name that no pattern fits any more is one of these targets' sites', and may lie
    /// at a path by now, as what rotation has made of `name`.
    fn is_an_orphan(&self, row: &LogRow, path: &Path, name: &Path, targets: &[usize]) -> Result<bool, LedgerError> {
        if !self.orphans.contains(&row.id) || !discover::is_rotated(path, name) {
            return Ok(false);
        }
        for target in targets.iter().filter_map(|index| self.targets.get(*index)) {
            // All of them: who is new to it would begin in the middle of what is old.
            if self.ledger.position(Some(target.site.id), row.id)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether rotation has given a name, which is new, to the successor of a log that was followed under another name.
    pub(super) fn succeeds_an_orphan(
        &self,
        name: &Path,
        targets: &[usize],
        known: &Known,
    ) -> Result<bool, LedgerError> {
        if self.orphans.is_empty() {
            return Ok(false);
        }
        for path in discover::siblings(name) {
            let Ok(opened) = file::open(&path) else { continue };
            let is_wanted = |row: &LogRow| self.orphans.contains(&row.id);
            let Ok(who) = identity::identify(&path, &opened, known.rows(), is_wanted, &HashMap::new()) else {
                continue;
            };
            if let Who::Known(index) | Who::CutBack(index, _) = who
                && self.is_an_orphan(&known.rows()[index], &path, name, targets)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What was written under a name since then wasn't all seen: it is looked for at the next look, too.
    pub(super) fn search_again(&mut self, name: &Path, since: Since) {
        let known = self.search.entry(name.to_path_buf()).or_insert(since);
        *known = Since { written: known.written.min(since.written), made: known.made.min(since.made) };
    }

    /// What was read of a log isn't there any more. Its rest may be in a copy, and what stands there now may have another
    /// name by now.
    pub(super) fn search_after_truncation(&mut self, row: &LogRow) {
        self.search_again(&row.path, Since::all(last_read(row) - self.set_back));
    }

    /// Where the clock was set back since the last look, all that was known of times is earlier by that.
    pub(super) fn allow_for_the_clock(&mut self, now: &Moment) {
        let Some(looked) = &mut self.looked else { return };
        let back = looked.set_back_until(now);
        if back.is_zero() {
            return;
        }
        tracing::info!(back = format!("{back:.1?}"), "the clock was set back");
        *looked = looked.earlier_by(back);
        self.search
            .values_mut()
            .for_each(|since| (since.written, since.made) = (since.written - back, since.made - back));
        let back = jiff::SignedDuration::try_from(back).unwrap_or(jiff::SignedDuration::MAX);
        for source in &mut self.sources {
            // It is what the next search goes by.
            let known = source.row.last_read.as_mut();
            known.into_iter().for_each(|at| *at = at.saturating_sub(back).unwrap_or(*at));
        }
    }

    /// While running: of what came under these names since the last look, all but the last has another name now.
    pub(super) fn find_what_was_rotated_since_the_last_look(
        &mut self,
        moved: &BTreeSet<PathBuf>,
        found: &Found,
    ) -> Result<(), LedgerError> {
        let Some(looked) = self.looked else { return Ok(()) };
        let mut directories = Directories::since(self.looked);
        let mut looking = self.looking();
        let mut pending = std::mem::take(&mut self.search);
        while let Some((name, since)) = pending.pop_first() {
            if let Err(error) = self.search(&name, since, &mut directories, &mut looking) {
                pending.insert(name, since);
                pending.into_iter().for_each(|(name, since)| self.search_again(&name, since));
                return Err(error);
            }
            // While names move on, one may have been missed, also where nothing that is known is missing.
            if !directories.has_all_siblings(&name) {
                self.search_again(&name, since);
            }
        }
        self.unopened.retain(|inode, (name, _)| {
            let is_there = |path: &Path| file::inode(path).is_ok_and(|there| there == *inode);
            is_there(name) || directories.siblings(name).iter().any(|sibling| sibling.inode == *inode)
        });
        let since = Since::all(looked.wall - TICK);
        for name in moved {
            let is_new = |sibling: &Sibling| sibling.modified.is_none_or(|written| written >= since.written);
            let news = directories.siblings(name).into_iter().any(|sibling| {
                (is_new(&sibling) || self.unopened.contains_key(&sibling.inode))
                    && !found.contains_key(&sibling.path)
                    && !looking.open.get_or_insert_with(|| Open::of(&self.sources)).inodes.contains(&sibling.inode)
            });
            if news {
                self.search(name, since, &mut directories, &mut looking)?;
            }
            if !directories.has_all_siblings(name) {
                self.search_again(name, since);
            }
        }
        Ok(())
    }

    /// A source is let go; what it has read is on its way, and isn't read again in this run.
    pub(super) fn remember_reading(&mut self, source: &Source) {
        for reader in &source.readers {
            let site = reader.site.map(|site| source.pipeline.sites[site].id);
            self.read_to.insert((site, source.row.id), reader.cutter.offset());
        }
        if self.read_to.len() >= self.read_to_checked * 2 {
            // What is settled is known to the ledger; where that can't be asked now, it is kept.
            let ledger = &self.ledger;
            self.read_to.retain(|(site, log), at| match ledger.position(*site, *log) {
                Ok(position) => position.is_some_and(|position| position.watermark < *at),
                Err(_) => true,
            });
            self.read_to_checked = self.read_to.len().max(512);
        }
    }

    pub(super) fn remember_unopened(&mut self, path: &Path) {
        // What can't even be asked for its inode is tried again by its name alone.
        if let Ok(inode) = file::inode(path) {
            self.unopened.insert(inode, (path.to_path_buf(), None));
        }
    }

    /// Whether a file is an archive that is to be read again, but not yet.
    pub(super) fn is_unfinished(&mut self, inode: (u64, u64), modified: Option<SystemTime>) -> bool {
        let Some(unfinished) = self.unfinished.get(&inode) else { return false };
        let waits = unfinished.waits(modified);
        if !waits {
            self.unfinished.remove(&inode);
        }
        waits
    }

    /// A file that was empty when it was seen has become a copy of a log that is known: nothing more is to come of it.
    pub(super) fn give_up_what_was_empty(
        &mut self,
        inode: (u64, u64),
        who: &Who,
        known: &mut Known,
    ) -> Result<(), LedgerError> {
        let is_it = |index: usize| matches!(who, Who::Known(known) | Who::CutBack(known, _) if *known == index);
        let is_empty = |row: &LogRow| row.fingerprint.head_len == 0 && !row.ended;
        let at_inode = known.at_inode(inode).filter(|(index, row)| is_empty(row) && !is_it(*index));
        for mut row in at_inode.map(|(_, row)| row.clone()).collect::<Vec<_>>() {
            if *who == Who::New || self.sources.iter().any(|source| source.row.id == row.id) {
                continue;
            }
            self.left_over.remove(&row.id);
            self.ledger.give_up(row.id)?;
            row.ended = true;
            known.put(row);
        }
        Ok(())
    }

    /// Whether a log that was read to its end, and closed, has been written to since: a server writes on to a rotated log until
    /// it opens the new one, and each of its old processes until its last connection ends.
    fn has_grown(&self, row: &LogRow, opened: &Opened) -> Result<bool, LedgerError> {
        if !row.ended || opened.file.is_packed() {
            return Ok(false);
        }
        let stored = self.ledger.position(None, row.id)?;
        let read = self.read_to.get(&(None, row.id)).copied();
        Ok(read.max(stored.map(|position| position.watermark)).is_some_and(|read| opened.size > read))
    }

    /// Looks among a name's siblings for the rest of logs that had this name, and for files that were written to after
    /// `since` and never seen.
    fn search(
        &mut self,
        name: &Path,
        since: Since,
        directories: &mut Directories,
        looking: &mut Looking,
    ) -> Result<(), LedgerError> {
        let targets: Vec<usize> =
            (0..self.targets.len()).filter(|index| discover::is_for(&self.targets[*index].pattern, name)).collect();
        if targets.is_empty() {
            return Ok(());
        }
        let Looking { known, open } = looking;
        let Open { inodes, logs } = open.get_or_insert_with(|| Open::of(&self.sources));
        let known = match known {
            Some(known) => known,
            none => none.insert(self.known()?),
        };
        // As they were before anything is found.
        let own: HashSet<(u64, u64)> = known.named(name).map(|(_, row)| (row.dev, row.ino)).collect();
        let mut missing = Vec::new();
        // Logs that may still be what lies under the name, which can't be read: or it was cut, and its copy is a sibling.
        let mut hidden = Vec::new();
        // Something that may be what is searched for can't be read now.
        let mut is_unsure = false;
        for (index, row) in known.named(name) {
            if row.ended && !self.left_over.contains(&row.id) {
                continue;
            }
            let inode = (row.dev, row.ino);
            if self.unfinished.contains_key(&inode) {
                let is_there = |path: &Path| file::inode(path).is_ok_and(|there| there == inode);
                if is_there(name) || directories.siblings(name).iter().any(|sibling| sibling.inode == inode) {
                    is_unsure = true;
                    continue;
                }
                self.unfinished.remove(&inode);
            }
            let is_under_its_name = file::inode(name).is_ok_and(|inode| inode == (row.dev, row.ino));
            let is_held = logs.contains(&row.id);
            let waits = self.unopened.get(&(row.dev, row.ino));
            let waits = waits.filter(|(_, log)| is_under_its_name && log.is_none_or(|log| log == row.id));
            if !is_held && self.ledger.position(None, row.id)?.is_some() {
                match waits {
                    None => missing.push(index),
                    Some((_, None)) => hidden.push(index),
                    // It has no complete line yet.
                    Some((_, Some(_))) => {}
                }
            }
        }
        let mut first: Vec<Source> = Vec::new();
        is_unsure |= !missing.is_empty() && !directories.has_all_siblings(name);
        is_unsure |= self.troubles.contains_key(name) && name.symlink_metadata().is_ok();
        for sibling in directories.siblings(name) {
            let Sibling { path, inode, modified, born } = sibling;
            let followed_itself = self.targets.iter().any(|target| discover::is_for(&target.pattern, &path));
            if inodes.contains(&inode) || self.finished.contains(&(inode.0, inode.1, modified)) {
                continue;
            }
            let is_news = modified.is_none_or(|written| written >= since.written) || self.unopened.contains_key(&inode);
            if self.is_unfinished(inode, modified) {
                is_unsure = true;
                continue;
            }
            // An old one can only be what is missing.
            if !is_news && missing.is_empty() && !self.seeks_orphans {
                continue;
            }
            let opened = match self.open_file(&path) {
                Ok(opened) => opened,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    is_unsure = true;
                    continue;
                }
                Err(error) => {
                    // An old one that nobody could ever read is nobody's concern.
                    if is_news || !missing.is_empty() {
                        is_unsure = true;
                        self.say_trouble(&path, &error);
                    }
                    continue;
                }
            };
            // The names may have moved on since they were listed: what was listed has another name by now.
            is_unsure |= inode != (opened.dev, opened.ino);
            let inode = (opened.dev, opened.ino);
            if inodes.contains(&inode) {
                is_unsure = true;
                continue;
            }
            let files = self.sources.iter().chain(&first).map(|source| (source.row.id, &source.file)).collect();
            let who = match identity::identify(&path, &opened, known.rows(), |_| true, &files) {
                Ok(who) => who,
                Err(error) => {
                    is_unsure = true;
                    self.say_trouble(&path, &error);
                    continue;
                }
            };
            self.give_up_what_was_empty(inode, &who, known)?;
            missing.retain(|index| !known.rows()[*index].ended || self.left_over.contains(&known.rows()[*index].id));
            let wanted = match &who {
                Who::Known(index) if is_news && hidden.contains(index) => true,
                Who::Known(index) if is_news && self.has_grown(&known.rows()[*index], &opened)? => true,
                Who::Known(index) | Who::CutBack(index, _) if self.seeks_orphans => {
                    missing.contains(index) || self.is_an_orphan(&known.rows()[*index], &path, name, &targets)?
                }
                Who::Known(index) | Who::CutBack(index, _) => missing.contains(index),
                // What was there before all was known, was left alone then, and a server may go on writing to it; but for a
                // log's own file, which holds something else where it was cut.
                Who::New => {
                    let is_since = |at: Option<SystemTime>| at.is_none_or(|at| at >= since.made);
                    let is_made_since = (is_since(modified) && is_since(born))
                        || self.unopened.contains_key(&inode)
                        || own.contains(&inode);
                    is_news && is_made_since && !followed_itself && discover::is_plainly_rotated(&path, name)
                }
                Who::Copy => false,
            };
            if !wanted {
                continue;
            }
            let index = match &who {
                Who::Known(index) | Who::CutBack(index, _) => Some(*index),
                Who::New | Who::Copy => None,
            };
            let adopted = self.adopt(name, &path, opened, who, known, &targets)?;
            if let Adopted::Outrun = adopted {
                is_unsure = true;
                continue;
            }
            // It may be what has become of one of them.
            missing.retain(|index| !known.rows()[*index].ended || self.left_over.contains(&known.rows()[*index].id));
            if let Some(index) = index {
                missing.retain(|missing| *missing != index);
                self.cut.remove(&known.rows()[index].id);
            }
            if let Adopted::Source(source) = adopted {
                inodes.insert(inode);
                logs.insert(source.row.id);
                self.troubles.remove(&path);
                self.unopened.remove(&inode);
                first.push(*source);
            }
        }
        if is_unsure {
            self.search_again(name, since);
        } else {
            for index in missing {
                let Some(mut row) = known.rows().get(index).map(|row| LogRow::clone(row)) else { continue };
                // That a log was cut has been said when it was noticed, but not that no copy of it is there.
                let unread_when_cut = self.cut.remove(&row.id);
                if unread_when_cut != Some(0) {
                    let unread = unread_when_cut.unwrap_or(0);
                    self.sink.happened(Happened::GivenUp { path: &row.path, unread });
                }
                if let Some(unread) = unread_when_cut.filter(|unread| *unread > 0) {
                    let hint = "a log must be kept until it is sent: rotate it by renaming, or keep the copy";
                    tracing::error!(
                        path = %row.path.display(), unread, hint,
                        "the log was truncated before it was read to its end, and no copy of it is there"
                    );
                }
                if unread_when_cut.is_none() {
                    let read = row.fingerprint.marks.last().map_or(0, |mark| mark.offset);
                    let hint = "if the rotated file is still to be had, `silktail backfill --site NAME FILE` reads it";
                    let mut sent = read;
                    for target in targets.iter().filter_map(|index| self.targets.get(*index)) {
                        let position = self.ledger.position(Some(target.site.id), row.id)?;
                        sent = position.map_or(sent, |position| sent.min(position.watermark));
                    }
                    if sent < read {
                        tracing::warn!(
                            path = %row.path.display(), offset = sent, read, hint,
                            "the log that was followed is gone; what it held after this offset wasn't all sent"
                        );
                    } else {
                        tracing::warn!(
                            path = %row.path.display(), offset = read, hint,
                            "the log that was followed is gone; what was written to it after this offset is unaccounted for"
                        );
                    }
                }
                // Said once; a backfill of the file goes on from this offset.
                self.left_over.remove(&row.id);
                self.ledger.give_up(row.id)?;
                row.ended = true;
                known.put(row);
            }
        }
        for source in &mut first {
            source.leaving = Some(Instant::now());
        }
        self.sources.splice(0..0, first);
        Ok(())
    }
}
