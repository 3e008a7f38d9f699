//! Rotated logs whose content was changed after they were read: scripts that make addresses anonymous, or take lines out,
//! leave a file that no fingerprint knows. Its requests tell which log it is, and what was read isn't read again.

use std::path::Path;
use std::sync::Arc;

use super::archive::Content;
use super::decide::first_bytes;
use super::file::{self, Opened};
use super::identity;
use super::known::Known;
use super::source::{Sink, Source};
use super::{Follower, discover};
use crate::format::{Format, Reading};
use crate::ledger::outline::{self, FIRST, LAST, Request, SHARED, Search, Seen};
use crate::ledger::{Ledger, LedgerError, LogRow};
use crate::offsets::{LogId, SiteId};
use crate::pipeline::Site;

/// Bytes before a log's place in which its last requests are looked for.
const ENDS: usize = 16 * 1024;
/// Bytes of a log's beginning in which its first requests are looked for.
const BEGINNING: u64 = 32 * 1024;
/// Bytes of a log that are read at a time where its place is looked for.
const BLOCK: usize = 256 * 1024;

/// A log that was changed after it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rewritten {
    /// Which, by its place among those that are known.
    pub(super) index: usize,
    /// What of the changed file was read before.
    pub(super) read: Read,
}

/// What of a changed file was read before it was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// All.
    All,
    /// What is before an offset.
    Before(u64),
    /// That can't be told.
    Unknown,
}

/// The first requests that some lines show.
pub fn first_requests(format: &Format, bytes: &[u8], secret: [u8; 16]) -> Vec<Request> {
    seen(format, bytes, secret).take(FIRST).map(|(seen, _)| seen.request).collect()
}

/// Which of some logs a file is that begins so, where its bytes have been changed since; logs by their places. `replaced`:
/// the log whose file it has taken the place of.
///
/// # Errors
/// Those of the ledger.
pub fn which(
    path: &Path,
    opened: &Opened,
    (format, first_lines): (&Format, &[u8]),
    ledger: &Ledger,
    replaced: Option<LogId>,
    mut related: Vec<(usize, Arc<LogRow>)>,
) -> Result<Option<(usize, Arc<LogRow>)>, LedgerError> {
    let secret = ledger.secret();
    let lines: Vec<Seen> = seen(format, first_lines, secret).take(FIRST).map(|(seen, _)| seen).collect();
    // As nearly every log is when it is first seen: nothing is asked of the ledger for it.
    if lines.len() < SHARED {
        return Ok(None);
    }
    // The newest is the likeliest.
    related.sort_by_key(|(_, row)| std::cmp::Reverse(row.id));
    for (index, row) in related {
        let first = ledger.outline(row.id)?.first;
        // What stands under a log's own name, or in its own file, may be another that was asked for the same.
        let is_another_file = (row.dev, row.ino) != (opened.dev, opened.ino);
        let is_told = replaced == Some(row.id) || is_another_file && discover::has_a_rotated_name(path);
        let only_masked = !is_told;
        if outline::is_of(&first, &lines, only_masked) {
            return Ok(Some((index, row)));
        }
    }
    Ok(None)
}

/// Whether all that was read of a log for these sites is settled.
///
/// # Errors
/// Those of the ledger.
pub fn is_settled(ledger: &Ledger, log: LogId, mut sites: impl Iterator<Item = SiteId>) -> Result<bool, LedgerError> {
    let read = ledger.position(None, log)?.map_or(0, |position| position.watermark);
    sites.try_fold(true, |settled, site| {
        let position = ledger.position(Some(site), log)?;
        Ok(settled && position.is_none_or(|position| position.watermark >= read))
    })
}

/// Whether a file still holds the log: what was read of it just now may be another's, put there where it was cut.
fn is_still(file: &Content, row: &LogRow) -> bool {
    identity::agrees(file, &row.fingerprint).unwrap_or(false)
}

/// The lines of some bytes that show a request, with their ends.
fn seen<'b>(format: &'b Format, bytes: &'b [u8], secret: [u8; 16]) -> impl Iterator<Item = (Seen, usize)> + 'b {
    let mut reading = Reading::default();
    let whole = memchr::memrchr(b'\n', bytes).map_or(0, |end| end + 1);
    let mut at = 0;
    bytes[..whole].split_inclusive(|byte| *byte == b'\n').filter_map(move |line| {
        at += line.len();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        Some((Seen::of(&format.parse_in(&mut reading, line)?, secret)?, at))
    })
}

/// The last requests before a log's place.
fn last_requests(file: &Content, format: &Format, at: u64, secret: [u8; 16]) -> std::io::Result<Vec<Request>> {
    let before = file::read_before(file, at, ENDS)?;
    let begins =
        if before.len() as u64 == at { 0 } else { memchr::memchr(b'\n', &before).map_or(before.len(), |end| end + 1) };
    let mut last: Vec<Request> = seen(format, &before[begins..], secret).map(|(seen, _)| seen.request).collect();
    last.drain(..last.len().saturating_sub(LAST));
    Ok(last)
}

/// Where a file stands that was read up to these requests.
fn place(file: &Content, format: &Format, last: &[Request], secret: [u8; 16]) -> std::io::Result<Option<u64>> {
    let mut at = 0;
    let mut search = Search::new(last);
    let mut buffer = vec![0; BLOCK];
    loop {
        let filled = file::read_at(file, &mut buffer, at)?;
        let Some(end) = memchr::memrchr(b'\n', &buffer[..filled]) else { break };
        seen(format, &buffer[..=end], secret).for_each(|(seen, end)| search.take(seen, at + end as u64));
        at += end as u64 + 1;
    }
    Ok(search.found())
}

impl<S: Sink> Follower<S> {
    /// Which known log a new file is, if its content was changed after it was read.
    pub(super) fn rewritten(
        &self,
        path: &Path,
        opened: &Opened,
        format: &Format,
        sites: &[Arc<Site>],
        known: &mut Known,
    ) -> Result<Option<Rewritten>, LedgerError> {
        let related = known.related(path);
        if related.is_empty() {
            return Ok(None);
        }
        // What can't be read now is asked again when it is read.
        let Ok(first) = first_bytes(&opened.file) else { return Ok(None) };
        // What an editor or `sed -i` leaves: the old file has no name any more, and this has its name.
        let replaced = self.sources.iter().filter(|source| *source.path == *path && source.has_no_name());
        let replaced = replaced.map(|source| source.row.id).max();
        let found = which(path, opened, (format, &first), &self.ledger, replaced, related)?;
        let Some((index, row)) = found else { return Ok(None) };
        let open = self.sources.iter().find(|source| source.row.id == row.id);
        // It was read to its end and is changed in place.
        let was_cut = self.cut.get(&row.id) == Some(&0);
        let in_this_run = open.is_some() || was_cut;
        // What is read and not sent is found in the changed file alone, should this run end before it is.
        let is_sent = match in_this_run {
            true => self.is_being_sent(open, sites),
            false => is_settled(&self.ledger, row.id, sites.iter().map(|site| site.id))?,
        };
        if !is_sent {
            return Ok(Some(Rewritten { index, read: Read::Unknown }));
        }
        // Nobody writes to it any more, unless it has a log's own name.
        if (in_this_run || row.ended) && (path != &*row.path || discover::has_a_rotated_name(path)) {
            return Ok(Some(Rewritten { index, read: Read::All }));
        }
        let secret = self.ledger.secret();
        let last = match open {
            Some(source) => {
                let size = source.file.size().unwrap_or(0).max(source.own_offset());
                let last = last_requests(&source.file, &source.pipeline.format, size, secret);
                last.ok().filter(|_| is_still(&source.file, &source.row)).unwrap_or_default()
            }
            None => {
                // Of the place where a run was killed they aren't known.
                let position = self.ledger.position(None, row.id)?.map(|position| position.watermark);
                let last = self.ledger.outline(row.id)?.last;
                last.filter(|(place, _)| Some(*place) == position).map(|(_, last)| last).unwrap_or_default()
            }
        };
        let place = place(&opened.file, format, &last, secret).ok().flatten();
        Ok(Some(Rewritten { index, read: place.map_or(Read::Unknown, Read::Before) }))
    }

    /// Whether all that was read of a log in this run is on its way: no site waits, for room or for its set-up.
    fn is_being_sent(&self, open: Option<&Source>, sites: &[Arc<Site>]) -> bool {
        let is_level =
            |source: &Source| source.readers.iter().all(|reader| reader.cutter.offset() == source.own_offset());
        open.is_none_or(is_level) && sites.iter().all(|site| self.sink.is_sending(site.id))
    }

    /// A log isn't looked for any more: it goes on in a file that was made of it.
    pub(super) fn goes_on_in_another(&mut self, index: usize, known: &mut Known) -> Result<(), LedgerError> {
        let Some(mut row) = known.rows().get(index).map(|row| LogRow::clone(row)) else { return Ok(()) };
        if row.ended || self.sources.iter().any(|source| source.row.id == row.id) {
            return Ok(());
        }
        self.left_over.remove(&row.id);
        self.cut.remove(&row.id);
        self.ledger.give_up(row.id)?;
        row.ended = true;
        known.put(row);
        Ok(())
    }

    /// Keeps what a log can be told by when it is changed, where its beginning has been read, or as much again of it.
    pub(super) fn outline(&self, index: usize, read_before: u64) {
        let Some(source) = self.sources.get(index).filter(|_| read_before < BEGINNING) else { return };
        let read = source.read_to().max(1);
        if read_before > 0 && read_before.ilog2() == read.ilog2() {
            return;
        }
        self.keep_first(&source.row, &source.file, &source.pipeline.format, read);
    }

    /// Keeps the first requests of a log's first bytes.
    pub(super) fn keep_first(&self, row: &LogRow, file: &Content, format: &Format, bytes: u64) {
        // What can't be read or written now is kept when more has come: nothing depends on it until then.
        let Ok(first) = file::read_before(file, bytes.min(BEGINNING), BEGINNING as usize) else { return };
        if !is_still(file, row) {
            return;
        }
        let requests = first_requests(format, &first, self.ledger.secret());
        self.ledger
            .keep_first(row.id, &requests)
            .unwrap_or_else(|error| tracing::debug!(%error, "what a log is told by isn't kept yet"));
    }

    /// Keeps by what the places will be found to which the logs were read in this run, should one of them be changed before
    /// the next.
    pub(super) fn outline_ends(&self) {
        let secret = self.ledger.secret();
        let was_read = |source: &&Source| source.row.last_read.is_some_and(|at| at >= self.began);
        let last = |source: &Source| {
            let last = last_requests(&source.file, &source.pipeline.format, source.own_offset(), secret).ok()?;
            is_still(&source.file, &source.row).then(|| (source.row.id, source.own_offset(), last))
        };
        let logs: Vec<_> = self.sources.iter().filter(was_read).filter_map(last).collect();
        if !logs.is_empty() {
            // Without them a log that is changed meanwhile is read again, and that is said.
            self.ledger
                .keep_last(&logs)
                .unwrap_or_else(|error| tracing::debug!(%error, "the places of the logs aren't kept"));
        }
    }
}
