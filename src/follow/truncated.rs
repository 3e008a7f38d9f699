//! Logs that were cut in place: the copy that `copytruncate` made of one, and what was written to one that has no name
//! any more.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::decide::deciding_bytes;
use super::file::{self, Opened};
use super::identity::{self, Who};
use super::source::{Sink, Source};
use super::{Adopted, Follower, QUIET, archive, discover};
use crate::ledger::LedgerError;

/// A file that was truncated in place.
pub(super) struct Truncated {
    /// The name under which it was followed.
    pub(super) name: Arc<Path>,
    /// A handle of its own.
    pub(super) file: std::fs::File,
    /// When that was noticed.
    pub(super) noticed: Instant,
}

/// What `copytruncate` has copied a log to before it cut it.
pub(super) fn copy_of(source: &Source) -> Option<(PathBuf, Opened)> {
    // Under a glob it may have been rotated since, and be known by its new name.
    let mut copies = discover::related(&source.row.path);
    copies.retain(|path| **path != *source.row.path);
    // What can't be read is no copy that would help.
    copies.into_iter().rev().find_map(|path| {
        let opened = file::open(&path).ok()?;
        let continues = identity::continues(&opened, &source.row.fingerprint).unwrap_or(false);
        continues.then_some((path, opened))
    })
}

impl<S: Sink> Follower<S> {
    /// What was written to a log after it was truncated, and is in no directory any more.
    pub(super) fn read_what_has_lost_its_name(&mut self) -> Result<(), LedgerError> {
        let mut pending = std::mem::take(&mut self.truncated);
        let mut done = Ok(());
        while let Some(truncated) = pending.pop() {
            match self.read_nameless(&truncated) {
                Ok(true) => {}
                Ok(false) => self.truncated.push(truncated),
                Err(error) => {
                    // Its handle is the only way to it.
                    self.truncated.push(truncated);
                    self.truncated.append(&mut pending);
                    done = Err(error);
                }
            }
        }
        done
    }

    /// The same of one file; `false`: there may be more to come.
    fn read_nameless(&mut self, truncated: &Truncated) -> Result<bool, LedgerError> {
        // What can't be asked for its state can't be read either.
        let Ok(meta) = truncated.file.metadata() else { return Ok(true) };
        let held = self.sources.iter().any(|source| (source.row.dev, source.row.ino) == (meta.dev(), meta.ino()));
        if held || meta.nlink() > 0 {
            return Ok(true);
        }
        let handle = truncated.file.try_clone().and_then(archive::Content::of);
        let Ok(file) = handle else { return Ok(true) };
        let (name, modified) = (&truncated.name, meta.modified().ok());
        let opened = Opened { file, dev: meta.dev(), ino: meta.ino(), size: meta.len(), modified };
        if !deciding_bytes(&opened.file).is_ok_and(|first| first.contains(&b'\n')) {
            // The server may still have it open.
            return Ok(truncated.noticed.elapsed() >= QUIET);
        }
        // Compressed before it was removed: it is found where it is now.
        let others = discover::related(name).into_iter().filter_map(|path| file::open(&path).ok());
        if others.into_iter().any(|other| identity::begin_alike(&opened, &other).unwrap_or(false)) {
            return Ok(true);
        }
        // Its archive may have been opened and moved on while these were listed.
        let mut archives =
            self.sources.iter().filter(|source| source.file.is_packed() && discover::are_related(name, &source.path));
        if archives.any(|archive| identity::holds_the_same(&opened, &archive.file).unwrap_or(false)) {
            return Ok(true);
        }
        let mut known = self.known()?;
        let targets = self.matching(name);
        match self.adopt(name, name, opened, Who::New, &mut known, &targets)? {
            Adopted::Source(mut source) => {
                source.leaving = Some(Instant::now());
                self.sources.push(*source);
                Ok(true)
            }
            Adopted::NotYet | Adopted::ReadBefore => Ok(true),
            Adopted::Outrun => Ok(false),
        }
    }
}
