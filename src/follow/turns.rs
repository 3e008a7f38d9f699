//! Turns over the logs with unread bytes, and what follows from how each ended.

use std::collections::HashSet;
use std::time::{Instant, SystemTime};

use super::rotated::Since;
use super::source::{Buffers, Happened, Sink, Turn};
use super::truncated::{Truncated, copy_of};
use super::{Follower, QUIET, SETTLED, Unfinished};
use crate::ledger::LedgerError;

/// What becomes of a log after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// There is more to read now.
    More,
    /// It waits: for bytes, for room, for the next try.
    Waits,
    /// It is let go.
    LetGo,
    /// It was cut, and goes on in its copy.
    GoesOnInItsCopy,
    /// It was cut, and is let go: what is under its name now is another.
    Cut,
}

impl<S: Sink> Follower<S> {
    /// One turn for each log with unread bytes. `true`: some have more.
    pub(super) fn turns(&mut self, buffers: &mut Buffers) -> Result<bool, LedgerError> {
        let mut more = false;
        let mut truncated = Vec::new();
        let mut let_go = Vec::new();
        for index in 0..self.sources.len() {
            if !self.sources[index].due {
                continue;
            }
            let mut decided_to = u64::MAX;
            if self.sources[index].row.format.is_none() && !self.sources[index].file.is_packed() {
                decided_to = self.decide_again(index)?;
            }
            let next = self.turn(index, decided_to, buffers);
            more |= matches!(next, Next::More | Next::GoesOnInItsCopy);
            if matches!(next, Next::GoesOnInItsCopy | Next::Cut) {
                truncated.push(self.sources[index].row.clone());
            }
            if matches!(next, Next::LetGo | Next::Cut) {
                let_go.push(index);
            }
        }
        if truncated.is_empty() && let_go.is_empty() {
            return Ok(more);
        }
        for row in &truncated {
            self.search_after_truncation(row);
        }
        for index in let_go.into_iter().rev() {
            let source = self.sources.remove(index);
            self.waiting.remove(&source.row.id);
            if source.row.ended {
                self.watch_what_is_unsent(&source);
            }
            self.sink.left(source.row.id);
            self.remember_reading(&source);
        }
        self.look()?;
        // What was found now waits for nothing.
        Ok(more || self.sources.iter().any(|source| source.due))
    }

    /// `decided_to`: what comes behind that may be in another format.
    fn turn(&mut self, index: usize, decided_to: u64, buffers: &mut Buffers) -> Next {
        let source = &mut self.sources[index];
        let before = source.progress();
        let turn = source.turn_up_to(decided_to, buffers, &mut self.repeats, &self.sink);
        let has_read = source.progress() != before;
        if source.leaving.is_some() && !source.file.is_packed() && has_read {
            // It is written to still.
            source.leaving = Some(Instant::now());
        }
        let behind = matches!(turn, Ok(Turn::More | Turn::Full) | Err(_));
        self.sink.stands(source.row.id, source.place(behind));
        if has_read && turn.is_ok() {
            self.outline(index, before.0);
        }
        let source = &mut self.sources[index];
        match turn {
            Ok(Turn::More) => {
                if let Some(since) = &mut source.leaving {
                    *since = Instant::now();
                }
                Next::More
            }
            Ok(Turn::End) => {
                source.due = false;
                self.at_its_end(index, buffers)
            }
            Ok(Turn::Full) => {
                source.due = false;
                if source.leaving.is_some() && self.waiting.insert(source.row.id) {
                    tracing::warn!(
                        path = %source.path.display(), unread = source.backlog(), offset = source.read_to(),
                        hint = "keep rotated logs until the endpoint takes events again (logrotate's `rotate`)",
                        "a rotated log can't be sent now; what is unsent of it is lost if it is removed before a restart"
                    );
                }
                Next::Waits
            }
            Ok(Turn::Truncated) => self.was_cut(index),
            Err(error) => {
                // Tried again at the next poll.
                source.due = false;
                self.troubles.entry(source.path.to_path_buf()).or_insert_with(|| {
                    tracing::warn!(path = %source.path.display(), %error, "can't read file, will keep trying");
                    error.to_string()
                });
                Next::Waits
            }
        }
    }

    /// A log was read to its end: where nobody writes to it any more, it is done with.
    fn at_its_end(&mut self, index: usize, buffers: &mut Buffers) -> Next {
        let source = &mut self.sources[index];
        let path = &source.row.path;
        if let Some(damage) = source.file.damage() {
            // Perhaps it is still being written; what it holds so far is read, and not again.
            let written = source.modified.and_then(|at| at.elapsed().ok());
            if written.is_none_or(|ago| ago > SETTLED) {
                tracing::warn!(path = %source.path.display(), %damage, "an archive can't be read to its end");
                self.sink.happened(Happened::GivenUp { path, unread: source.unread() });
                self.finished.insert((source.row.dev, source.row.ino, source.modified));
            } else {
                let since = source.modified.unwrap_or(SystemTime::UNIX_EPOCH);
                let path = path.to_path_buf();
                let unfinished = Unfinished { modified: source.modified, read: Instant::now() };
                self.unfinished.insert((source.row.dev, source.row.ino), unfinished);
                self.search_again(&path, Since::all(since));
            }
            return Next::LetGo;
        }
        if source.leaving.is_none_or(|since| !source.file.is_packed() && since.elapsed() < QUIET) {
            return Next::Waits;
        }
        source.finish(buffers, &mut self.repeats, &self.sink).unwrap_or_else(|error| {
            tracing::warn!(path = %source.path.display(), %error, "can't read the last line");
            self.sink.happened(Happened::GivenUp { path: &source.row.path, unread: source.unread() });
        });
        source.row.ended = true;
        self.sink.update(source.row.clone());
        if source.file.is_packed() {
            self.finished.insert((source.row.dev, source.row.ino, source.modified));
        }
        Next::LetGo
    }

    /// What was read of a log isn't there any more.
    fn was_cut(&mut self, index: usize) -> Next {
        let held: HashSet<(u64, u64)> = self.sources.iter().map(|source| (source.row.dev, source.row.ino)).collect();
        let source = &mut self.sources[index];
        self.sink.happened(Happened::Truncation(&source.row.path));
        let handle = source.file.plain().and_then(|file| file.try_clone().ok());
        let name = source.row.path.clone();
        self.truncated.extend(handle.map(|file| Truncated { name, file, noticed: Instant::now() }));
        match copy_of(source).filter(|(_, copy)| !held.contains(&(copy.dev, copy.ino))) {
            Some((path, copy)) => {
                tracing::info!(
                    path = %source.path.display(), copy = %path.display(),
                    "file truncated or overwritten, reading the rest of its copy and then its new content"
                );
                source.continue_in(path.into(), copy);
                Next::GoesOnInItsCopy
            }
            None => {
                tracing::info!(
                    path = %source.path.display(), offset = source.read_to(),
                    "file truncated or overwritten, reading its new content"
                );
                // It may be on its way to another name, or be compressed just now.
                self.cut.insert(source.row.id, source.unread());
                Next::Cut
            }
        }
    }
}
