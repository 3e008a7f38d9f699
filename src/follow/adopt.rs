//! Takes logs in: opens a file, finds out which log it is, and where its sites go on in it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use jiff::Timestamp;

use super::decide::{decide_after, deciding_bytes};
use super::file::{self, Opened};
use super::identity::{self, Who};
use super::known::Known;
use super::look::{Looking, Open};
use super::rewritten::Read;
use super::rotated::Since;
use super::scan::Scan;
use super::source::{Reader, Sink, Source};
use super::wishes::Start;
use super::{Adopted, Follower, discover};
use crate::format::Format;
use crate::ledger::{Fingerprint, LedgerError, LogRow, MARK_MAX, Mark};
use crate::lines::Cutter;
use crate::offsets::{LogId, SiteId};
use crate::pipeline::{Pipeline, Site};

/// A log whose reading begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log<'a> {
    pub(super) id: LogId,
    pub(super) path: &'a Path,
    /// Its own name, which rotation gives to its successor.
    pub(super) name: &'a Path,
    /// It was followed before, for other sites perhaps.
    pub(super) was_followed: bool,
    /// Bytes that it has now.
    pub(super) size: u64,
}

/// Says where the lines of a log can't be told apart.
fn warn_of_a_missing_host(pipeline: &Pipeline, path: &Path) {
    if !pipeline.lacks_the_host() {
        return;
    }
    let names: Vec<&str> = pipeline.sites.iter().map(|site| site.name.as_str()).collect();
    tracing::warn!(
        path = %path.display(),
        sites = names.join(","),
        format = pipeline.format.name(),
        hint = "log the host, as vhost_combined does, or give each site a log of its own",
        "sites share a log whose format has no host: its lines are excluded"
    );
}

impl<S: Sink> Follower<S> {
    /// Opens a log by its name, if it can be read and has a line to decide its format by.
    pub(super) fn open(&mut self, path: &Path, targets: &[usize], looking: &mut Looking) -> Result<(), LedgerError> {
        let opened = match self.open_file(path) {
            Ok(opened) => opened,
            Err(error) => {
                self.say_trouble(path, &error);
                if error.kind() == std::io::ErrorKind::PermissionDenied {
                    self.remember_unopened(path);
                }
                return Ok(());
            }
        };
        let inode = (opened.dev, opened.ino);
        let Looking { known, open } = looking;
        let open = open.get_or_insert_with(|| Open::of(&self.sources));
        let held = open.inodes.contains(&inode);
        if let Some(source) = self.sources.iter_mut().find(|source| held && (source.row.dev, source.row.ino) == inode) {
            // Renamed to a name that is followed too, or a second name of one file.
            if !source.file.is_packed() && source.leaving.take().is_some() {
                source.path = path.into();
                source.row.path = Arc::clone(&source.path);
                source.due = true;
            }
            return if *source.path == *path { Ok(()) } else { self.share(inode, path, targets) };
        }
        let opened = match self.take_over(path, opened) {
            Ok(()) => {
                open.inodes.insert(inode);
                return Ok(());
            }
            Err(opened) => opened,
        };
        if self.finished.contains(&(opened.dev, opened.ino, opened.modified)) {
            return Ok(());
        }
        if self.is_unfinished(inode, opened.modified) {
            self.search_again(path, Since::all(opened.modified.unwrap_or(SystemTime::UNIX_EPOCH)));
            return Ok(());
        }
        let known = match known {
            Some(known) => known,
            none => none.insert(self.known()?),
        };
        // What lies where a log was cut is another one; elsewhere it may be the copy that was made before.
        let whole = |row: &LogRow| !self.cut.contains_key(&row.id) || (row.dev, row.ino) != inode;
        let free = |(_, row): &(usize, &LogRow)| whole(row) && !open.logs.contains(&row.id);
        let who = match identity::stayed(&opened, known.at_inode(inode).filter(free)) {
            Ok(Some(place)) => Ok(Who::Known(place)),
            Ok(None) => {
                let held = self.sources.iter().map(|source| (source.row.id, &source.file)).collect();
                identity::identify(path, &opened, known.rows(), whole, &held)
            }
            Err(error) => Err(error),
        };
        let who = match who {
            Ok(who) => who,
            Err(error) => {
                self.say_trouble(path, &error);
                return Ok(());
            }
        };
        self.give_up_what_was_empty(inode, &who, known)?;
        self.troubles.remove(path);
        // Every copy begins so. What it becomes is seen when it is written to.
        if who == Who::New
            && opened.size == 0
            && discover::has_a_rotated_name(path)
            && self.sources.iter().any(|source| discover::is_named_as_rotated(path, &source.row.path))
        {
            return Ok(());
        }
        let is_packed = opened.file.is_packed();
        // An archive that lay there before: `start` says that what is old is not read.
        let is_old = is_packed
            && who == Who::New
            && self.start == Start::End
            && (self.is_fresh(targets) || self.was_left_alone(targets, opened.modified));
        if who == Who::Copy || is_old {
            if is_old {
                self.finished.insert((opened.dev, opened.ino, opened.modified));
            }
            return Ok(());
        }
        let adopted = self.adopt(path, path, opened, who, known, targets)?;
        match adopted {
            Adopted::Source(mut source) => {
                self.cut.remove(&source.row.id);
                if is_packed {
                    source.leaving = Some(Instant::now());
                }
                self.unopened.remove(&inode);
                open.inodes.insert((source.row.dev, source.row.ino));
                open.logs.insert(source.row.id);
                self.sources.push(*source);
            }
            Adopted::ReadBefore => {}
            Adopted::NotYet => drop(self.unopened.entry(inode).or_insert_with(|| (path.to_path_buf(), None))),
            Adopted::Outrun => {
                looking.known = None;
                return self.open(path, targets, looking);
            }
        }
        Ok(())
    }

    /// What is open, and what the ledger knows, is asked when it is needed.
    pub(super) fn looking(&mut self) -> Looking {
        Looking { known: self.known.take(), open: None }
    }

    /// What the ledger knows, with all that it has been told by now: a copy is told from another log by what was read last.
    pub(super) fn known(&self) -> Result<Known, LedgerError> {
        self.ledger.sync()?;
        Known::of(&self.ledger)
    }

    /// For the look that comes right after; else it is let go.
    pub(super) fn keep(&mut self, looking: Looking) {
        if self.looking_stored.is_none() {
            self.known = looking.known;
        }
    }

    /// Takes a log in, to be followed from an offset on; `false`: a backfill has taken one in since the logs were asked for.
    pub(super) fn add_log(&self, row: &mut LogRow, from: u64, known: &Known) -> Result<bool, LedgerError> {
        let Some(id) = self.ledger.add_log(row, known.newest(), Some(from))? else { return Ok(false) };
        row.id = id;
        Ok(true)
    }

    /// Opens a file, unless so many are open that nothing is left for the rest of the program.
    pub(super) fn open_file(&self, path: &Path) -> std::io::Result<Opened> {
        if self.sources.len() >= self.open_max {
            let error = format!("{} logs are open, and the limit for open files allows no more", self.sources.len());
            return Err(std::io::Error::other(error));
        }
        file::open(path)
    }

    /// Whether no earlier run had the patterns of these targets.
    pub(super) fn is_fresh(&self, targets: &[usize]) -> bool {
        let mut patterns = targets.iter().filter_map(|index| self.targets.get(*index)).map(|target| &target.pattern);
        patterns.all(|pattern| self.new_patterns.contains(pattern))
    }

    /// Whether a file that was never read lay there already when an earlier run last knew all that there was.
    fn was_left_alone(&self, targets: &[usize], modified: Option<SystemTime>) -> bool {
        let patterns = targets.iter().filter_map(|index| self.targets.get(*index)).map(|target| &target.pattern);
        let looked = patterns.filter_map(|pattern| *self.known_before.get(pattern)?).max();
        // What comes while it runs was not there.
        self.looked.is_none() && modified.zip(looked).is_some_and(|(written, looked)| written < looked)
    }

    /// A file has taken the place of a log that has lost its last name, and holds all that was read of it: a tool that
    /// replaces what it brings up to date. It is that log.
    fn take_over(&mut self, path: &Path, opened: Opened) -> Result<(), Opened> {
        let replaced = self.sources.iter_mut().find(|source| {
            source.leaving.is_some()
                && *source.path == *path
                && source.has_no_name()
                && opened.size >= source.progress().0
                && identity::continues(&opened, &source.row.fingerprint).unwrap_or(false)
        });
        let Some(source) = replaced.filter(|_| !opened.file.is_packed()) else { return Err(opened) };
        tracing::info!(path = %path.display(), offset = source.read_to(), "file replaced by a copy of itself, reading on in it");
        (source.row.dev, source.row.ino, source.modified) = (opened.dev, opened.ino, opened.modified);
        source.file = opened.file;
        (source.leaving, source.due) = (None, true);
        self.sink.update(source.row.clone());
        Ok(())
    }

    /// A file that is followed has a second name, by which other sites follow it.
    fn share(&mut self, inode: (u64, u64), path: &Path, targets: &[usize]) -> Result<(), LedgerError> {
        let Some(index) = self.sources.iter().position(|source| (source.row.dev, source.row.ino) == inode) else {
            return Ok(());
        };
        let known: Vec<SiteId> = self.sources[index].pipeline.sites.iter().map(|site| site.id).collect();
        let new: Vec<SiteId> =
            self.sites_of(targets).iter().map(|site| site.id).filter(|id| !known.contains(id)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let is_its = |index: &usize| {
            self.targets
                .get(*index)
                .is_some_and(|target| known.contains(&target.site.id) || new.contains(&target.site.id))
        };
        let all: Vec<usize> = (0..self.targets.len()).filter(is_its).collect();
        let format = self.sources[index].pipeline.format.clone();
        self.hand_over(index, format, &all)?;
        let source = &self.sources[index];
        let names: Vec<&str> = source.pipeline.sites.iter().map(|site| site.name.as_str()).collect();
        tracing::info!(
            sites = names.join(","), path = %source.path.display(), other = %path.display(),
            "one file has two names, following it once for the sites of both"
        );
        warn_of_a_missing_host(&source.pipeline, &source.path);
        Ok(())
    }

    /// Makes a source of an opened file whose identity is known.
    ///
    /// `name` is the path that is followed, under which the ledger knows the log; `path` is where it lies now.
    pub(super) fn adopt(
        &mut self,
        name: &Path,
        path: &Path,
        opened: Opened,
        who: Who,
        known: &mut Known,
        targets: &[usize],
    ) -> Result<Adopted, LedgerError> {
        let row = match &who {
            Who::Known(index) | Who::CutBack(index, _) => known.rows().get(*index).cloned(),
            Who::New | Who::Copy => None,
        };
        let row = row.as_deref();
        let had_the_name = row.is_some_and(|row| *row.path == *name);
        let Some(choice) = targets.first().and_then(|index| self.targets.get(*index)).map(|target| &target.format)
        else {
            return Ok(Adopted::NotYet);
        };
        let stored = row.and_then(|row| row.format.as_deref());
        // Without its first bytes, where it was decided before.
        let decided = match decide_after(choice, stored, None, &[]) {
            Some(decided) => Some(decided),
            None => match deciding_bytes(&opened.file) {
                Ok(first) => decide_after(choice, stored, known.format_before(name, row), &first),
                Err(error) => {
                    self.say_trouble(path, &error);
                    return Ok(Adopted::NotYet);
                }
            },
        };
        let Some(decided) = decided else {
            // It has its first line when it has another name, perhaps, and we aren't there to see it.
            let id = match row {
                Some(row) => row.id,
                None => {
                    let mut row = Self::new_row(name, &opened, 0);
                    if !self.add_log(&mut row, 0, known)? {
                        return Ok(Adopted::Outrun);
                    }
                    let id = row.id;
                    known.put(row);
                    id
                }
            };
            self.unopened.insert((opened.dev, opened.ino), (name.to_path_buf(), Some(id)));
            return Ok(Adopted::NotYet);
        };
        if !decided.fits {
            tracing::warn!(
                path = %path.display(),
                format = decided.format.name(),
                hint = "name a format, or give your own in [formats]; `silktail explain` shows where a line stops fitting",
                "no known format fits the log"
            );
        }
        let sites = self.sites_of(targets);
        let fresh = self.is_fresh(targets) && !self.succeeds_an_orphan(name, targets, known)?;
        let rewritten =
            if who == Who::New { self.rewritten(path, &opened, &decided.format, &sites, known)? } else { None };
        let read_before = rewritten.map(|rewritten| rewritten.read);
        if read_before == Some(Read::All) {
            tracing::info!(path = %path.display(), "a log was changed after it was read, not reading it again");
            self.finished.insert((opened.dev, opened.ino, opened.modified));
            return Ok(Adopted::ReadBefore);
        }
        let start = match (&who, read_before, self.start) {
            (_, Some(Read::Before(offset)), _) => offset,
            (Who::CutBack(_, offset), ..) => *offset,
            (Who::New | Who::Known(_), _, Start::End) if fresh && !opened.file.is_packed() => {
                match file::after_last_newline(&opened.file, opened.size) {
                    Ok(offset) => offset,
                    Err(error) => {
                        self.say_trouble(path, &error);
                        return Ok(Adopted::NotYet);
                    }
                }
            }
            _ => 0,
        };
        let mut row = match (&who, row) {
            (Who::Known(_), Some(row)) => row.clone(),
            (Who::CutBack(_, offset), Some(row)) => {
                tracing::warn!(path = %path.display(), offset, "the end of the log is gone, reading on from where it agrees");
                // What is no longer here may be in a rotated file: the log was truncated and begins as it did before.
                self.cut.insert(row.id, 0);
                self.search_after_truncation(row);
                let mut row = row.clone();
                row.fingerprint.marks.retain(|mark| mark.offset <= *offset);
                if !self.add_log(&mut row, start, known)? {
                    return Ok(Adopted::Outrun);
                }
                row
            }
            _ => {
                let mut row = Self::new_row(name, &opened, start);
                if !self.add_log(&mut row, start, known)? {
                    return Ok(Adopted::Outrun);
                }
                row
            }
        };
        row.path = name.into();
        let at = if path == name { Arc::clone(&row.path) } else { path.into() };
        (row.dev, row.ino, row.ended) = (opened.dev, opened.ino, false);
        // An archive has all its lines.
        let is_final = decided.is_final || opened.file.is_packed();
        row.format = is_final.then(|| decided.format.shared_name());
        let followed_to = self.ledger.position(None, row.id)?.map_or(start, |position| position.watermark);
        // What had another name until now is no successor.
        let was_followed = matches!(who, Who::Known(_)) && had_the_name;
        let log = Log { id: row.id, path, name: &row.path, was_followed, size: opened.size };
        let readers = self.readers(&sites, log, start, followed_to)?;
        let offset = readers.iter().map(|reader| reader.cutter.offset()).min().unwrap_or(start);
        let from = match (&who, read_before) {
            (Who::New, Some(Read::Before(_))) => "where it was read to before it was changed",
            (Who::New, _) => "start",
            _ => "checkpoint",
        };
        let names: Vec<String> = sites.iter().map(|site| site.name.clone()).collect();
        tracing::info!(
            sites = names.join(","), path = %path.display(), from, offset, format = decided.format.name(),
            "following file"
        );
        if read_before == Some(Read::Unknown) {
            let hint = "change rotated logs while silktail runs: it knows then how far it has read them";
            tracing::warn!(
                path = %path.display(), hint,
                "a log was changed after it was read, and the place is gone to which that was: reading it again from its beginning"
            );
        }
        if who == Who::New && start > 0 {
            self.keep_first(&row, &opened.file, &decided.format, start);
        }
        if let Some(Read::Before(_)) = read_before {
            self.ledger.was_read_before(row.id)?;
        }
        if let Some(rewritten) = rewritten {
            self.goes_on_in_another(rewritten.index, known)?;
        }
        let pipeline = self.pipeline(decided.format, sites);
        warn_of_a_missing_host(&pipeline, path);
        self.left_over.remove(&row.id);
        // Of ten thousand logs at a start nearly all are as they were.
        if !known.holds(&row) {
            self.sink.update(row.clone());
            known.put(row.clone());
        }
        Ok(Adopted::Source(Box::new(Source {
            row,
            modified: opened.modified,
            file: opened.file,
            pipeline,
            readers,
            leaving: None,
            path: at,
            due: true,
            scan: Scan::default(),
            size: opened.size,
            behind_since: None,
            seen: None,
        })))
    }

    /// The way of logs of one format that the same sites read: one for all of them, or ten thousand would each compile
    /// and keep what they search for.
    pub(super) fn pipeline(&self, format: Format, sites: Vec<Arc<Site>>) -> Arc<Pipeline> {
        let same = |known: &&Arc<Pipeline>| {
            known.format.is(&format)
                && known.sites.len() == sites.len()
                && known.sites.iter().zip(&sites).all(|(one, other)| Arc::ptr_eq(one, other))
        };
        // Mostly that of the log before.
        let known = self.sources.iter().rev().map(|source| &source.pipeline).find(same).map(Arc::clone);
        known.unwrap_or_else(|| Arc::new(Pipeline::new(format, sites)))
    }

    pub(super) fn new_row(path: &Path, opened: &Opened, start: u64) -> LogRow {
        // What can't be read now leaves the fingerprint empty; it grows with the reading.
        let head = identity::head(opened).unwrap_or_default();
        let mut fingerprint = Fingerprint::of_head(&head);
        if start > 0
            && let Ok(before) = file::read_before(&opened.file, start, MARK_MAX)
        {
            fingerprint.push_mark(Mark::of(start, &before));
        }
        LogRow {
            id: LogId(0),
            path: path.into(),
            dev: opened.dev,
            ino: opened.ino,
            fingerprint,
            format: None,
            last_read: Timestamp::try_from(SystemTime::now()).ok(),
            ended: false,
        }
    }

    /// Where a site, or the log's own count, goes on; at `start` where nobody has read it for that.
    pub(super) fn reader(
        &mut self,
        site: Option<usize>,
        id: Option<SiteId>,
        log: Log<'_>,
        start: u64,
    ) -> Result<Reader, LedgerError> {
        // Before it is taken, for asking may fail.
        let position = self.ledger.position(id, log.id)?;
        if let Some(reader) = self.parked.remove(&(log.id, id)) {
            let cutter = match reader.cutter.max_line() {
                same if same == self.max_line => reader.cutter,
                _ => Cutter::new(reader.cutter.offset(), self.max_line),
            };
            // While nobody followed it, a backfill may have read on.
            let read_on = position.filter(|position| position.watermark > cutter.offset());
            return Ok(match read_on {
                Some(position) => Reader::new(site, Cutter::new(position.watermark, self.max_line), position.settled),
                None => Reader { site, cutter, settled: reader.settled },
            });
        }
        if let Some(position) = position {
            let read_to = self.read_to.get(&(id, log.id)).copied().unwrap_or(0);
            let cutter = Cutter::new(position.watermark.max(read_to), self.max_line);
            return Ok(Reader::new(site, cutter, position.settled));
        }
        // A site that was taken away and is back reads what has come in the meantime, as it does where the log is its own.
        let is_back = match id {
            Some(site) if log.was_followed && start > 0 => {
                self.ledger.is_followed_from_its_beginning(log.id)? && self.has_followed(site, log.name)?
            }
            _ => false,
        };
        let begun = self.ledger.follow(id, log.id, if is_back { 0 } else { start }, log.size)?;
        if let Some(offset) = begun.gap.filter(|_| id.is_some()) {
            tracing::warn!(
                path = %log.path.display(), offset, until = begun.at,
                hint = "`silktail backfill` reads what it has left out",
                "a backfill has read a later part of this log, following it from where that ended"
            );
        }
        Ok(Reader::new(site, Cutter::new(begun.at, self.max_line), []))
    }

    /// Whether logs of a name were followed for a site before.
    fn has_followed(&mut self, site: SiteId, name: &Path) -> Result<bool, LedgerError> {
        if let Some(names) = self.followed_names.get(&site) {
            return Ok(names.contains(name));
        }
        let names = self.ledger.names_followed(site)?;
        let has = names.contains(name);
        self.followed_names.insert(site, names);
        Ok(has)
    }

    pub(super) fn say_trouble(&mut self, path: &Path, error: &std::io::Error) {
        let text = error.to_string();
        if self.troubles.get(path) == Some(&text) {
            return;
        }
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), "log doesn't exist yet, waiting for it");
            }
            std::io::ErrorKind::PermissionDenied => {
                let hint = "add the service's user to the group that may read it (Debian: adm)";
                tracing::warn!(path = %path.display(), %error, hint, "can't read file, will keep trying");
            }
            std::io::ErrorKind::Other => {
                let hint = "raise LimitNOFILE in the service's unit, or follow fewer logs";
                tracing::warn!(path = %path.display(), %error, hint, "can't read file, will keep trying");
            }
            _ => tracing::warn!(path = %path.display(), %error, "can't read file, will keep trying"),
        }
        self.troubles.insert(path.to_path_buf(), text);
    }
}
