//! One log on its way through a backfill: its stretches one after the other, up to a moment at a time, so that several
//! logs of a site come together in the order of their lines' times.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::ahead::{Bytes, Piece, Pool, Segment, Stretch};
use super::collect::{Collector, Outlet};
use super::patience::Patience;
use super::{End, STOPPED, Trouble};
use crate::follow::archive::{self, Content};
use crate::follow::file;
use crate::follow::identity;
use crate::follow::source::{self, Reader, Sink, Stopped, settle_fate};
use crate::ledger::{Advance, LogRow, Mark, Step};
use crate::lines::{Cut, Line};
use crate::offsets::SiteId;
use crate::pipeline::Pipeline;
use crate::visitor::repeats::Repeats;

/// A part of a log that is to be read, and by whom.
pub(super) struct Part {
    /// Whether what is read is remembered: not where it is sent again.
    pub recording: bool,
    /// Where it begins and ends.
    pub bounds: (u64, u64),
    /// One for each site, and the log's own.
    pub readers: Vec<Reader>,
}

/// How far a stream has come.
pub(super) enum Reached {
    /// Its next event is later than was wanted.
    Later(Timestamp),
    /// Its end, or why not.
    End(End),
    /// Enough POSTs were made.
    Enough,
}

/// An open log.
pub(super) struct Stream {
    pub path: PathBuf,
    pub row: LogRow,
    pub pipeline: Arc<Pipeline>,
    /// To look again whether the log is still what it was; archives don't change.
    pub file: Option<Content>,
    pub max_line: usize,
    pub parts: VecDeque<Part>,
    /// Where its last line ends; of an archive that is only known at its end.
    pub size: u64,
    /// All before is read, or isn't to be read.
    pub read_to: u64,
    /// What isn't being read just now.
    pub bytes: Option<Bytes>,
    /// Bytes on the disk, and how many of them the progress shows.
    pub on_disk: u64,
    pub shown: u64,
    pub current: Option<Current>,
    /// Sites that wait for their set-up to be mended: the others read on without them, and they from here another time.
    pub waiting: Vec<SiteId>,
    /// Why they wait, or why nothing is read.
    pub left: Option<String>,
    /// Whether it is an archive that was read as far as it goes.
    pub is_damaged: bool,
}

/// The part that is being read.
pub(super) struct Current {
    part: Part,
    stretch: Stretch,
    segment: Option<Segment>,
    /// What it holds, and how many of that are applied: they stay where they are, for they are large.
    pieces: Vec<Piece>,
    applied: usize,
    /// What each reader has read of the segment so far, and until where.
    steps: Vec<Vec<Step>>,
    applied_to: u64,
    /// Where the segment begins, and how much the progress showed then.
    segment_from: u64,
    shown_before: u64,
}

impl Stream {
    /// Reads on until its next event is later than `until`.
    pub(super) fn advance(
        &mut self,
        until: Option<Timestamp>,
        pool: &mut Pool,
        collector: &Collector<'_>,
        repeats: &mut Repeats,
        stop: &dyn Fn() -> bool,
    ) -> Result<Reached, Trouble> {
        loop {
            let Some(current) = &mut self.current else {
                match self.parts.pop_front() {
                    Some(part) if self.has_readers(&part) => self.begin(part)?,
                    Some(_) => {}
                    None => return self.finish(collector).map(Reached::End),
                }
                continue;
            };
            if let Some(time) = current.pieces.get(current.applied).and_then(Piece::time)
                && until.is_some_and(|until| time > until)
            {
                return Ok(Reached::Later(time));
            }
            if current.applied < current.pieces.len() {
                collector.recording.set(current.part.recording);
                let full = current.apply_next(&self.row, &self.pipeline, &self.waiting, collector, repeats);
                if let Some(site) = full {
                    // Here it may stay for a while.
                    let shown = current.on_disk().min(self.on_disk).max(self.shown);
                    collector.options.progress.bytes.fetch_add(shown - self.shown, Ordering::Relaxed);
                    self.shown = shown;
                    if collector.state.borrow().limited {
                        self.settle_for_now(collector);
                        return Ok(Reached::Enough);
                    }
                    match wait_for_room(site, collector, stop) {
                        Room::Free => {}
                        Room::Stopped => {
                            self.settle_for_now(collector);
                            return Ok(Reached::End(End::Left(STOPPED.to_owned())));
                        }
                        Room::Hopeless(why) => {
                            self.settle_for_now(collector);
                            self.waiting.push(site);
                            self.left = Some(why.clone());
                            if !self.current.as_ref().is_some_and(|current| self.has_readers(&current.part)) {
                                return Ok(Reached::End(End::Left(why)));
                            }
                        }
                    }
                }
                continue;
            }
            if let Some(left) = self.next_segment(pool, collector)? {
                return Ok(Reached::End(left));
            }
            if stop() {
                self.settle_for_now(collector);
                return Ok(Reached::End(End::Left(STOPPED.to_owned())));
            }
        }
    }

    /// Whether a part is anybody's who doesn't wait.
    fn has_readers(&self, part: &Part) -> bool {
        let sites = part.readers.iter().filter_map(|reader| site_of(reader, &self.pipeline));
        let mut sites = sites.peekable();
        sites.peek().is_none() || sites.any(|site| !self.waiting.contains(&site))
    }

    fn begin(&mut self, part: Part) -> Result<(), Trouble> {
        let Some(bytes) = self.bytes.take() else { return Ok(()) };
        let stretch = Stretch::new(bytes, part.bounds, self.row.id, Arc::clone(&self.pipeline), self.max_line);
        self.current = Some(Current {
            steps: part.readers.iter().map(|_| Vec::new()).collect(),
            applied_to: part.bounds.0,
            segment_from: part.bounds.0,
            shown_before: self.shown,
            part,
            stretch,
            segment: None,
            pieces: Vec::new(),
            applied: 0,
        });
        Ok(())
    }

    /// The segment before is done with; takes the next. Something: why it can't go on.
    fn next_segment(&mut self, pool: &mut Pool, collector: &Collector<'_>) -> Result<Option<End>, Trouble> {
        let Some(current) = &mut self.current else { return Ok(None) };
        if let Some(segment) = current.segment.take() {
            collector.recording.set(current.part.recording);
            // The ledger is to know the log as far as it is said to be read.
            self.row.fingerprint.push_mark(Mark::of(segment.read_to, &segment.tail));
            self.row.last_read = Timestamp::try_from(std::time::SystemTime::now()).ok();
            collector.update(self.row.clone());
            current.settle(segment.read_to, &self.row, &self.pipeline, &self.waiting, collector);
            if self.parts.is_empty() {
                self.read_to = segment.read_to;
            }
            current.applied_to = segment.read_to;
            let shown = segment.on_disk.min(self.on_disk).max(self.shown);
            collector.options.progress.bytes.fetch_add(shown - self.shown, Ordering::Relaxed);
            self.shown = shown;
            if let Some(damage) = segment.damage {
                self.is_damaged = true;
                return Ok(Some(End::Left(format!("`{}`: {damage}", self.path.display()))));
            }
        }
        match current.stretch.next(pool)? {
            Some(mut segment) => {
                if let Some(file) = &self.file
                    && (file.size()? < segment.read_to || !identity::agrees(file, &self.row.fingerprint)?)
                {
                    return Ok(Some(End::Left(format!(
                        "`{}` was truncated while it was read; run the same command again",
                        self.path.display()
                    ))));
                }
                (current.segment_from, current.shown_before) = (current.applied_to, self.shown);
                (current.pieces, current.applied) = (std::mem::take(&mut segment.pieces), 0);
                current.segment = Some(segment);
            }
            None => {
                if let Some(current) = self.current.take() {
                    self.bytes = Some(current.stretch.into_bytes(pool)?);
                }
            }
        }
        Ok(None)
    }

    /// Remembers what was read, though the segment has more.
    pub(super) fn settle_for_now(&mut self, collector: &Collector<'_>) {
        if let Some(current) = &mut self.current {
            let to = current.applied_to;
            collector.recording.set(current.part.recording);
            collector.update(self.row.clone());
            current.settle(to, &self.row, &self.pipeline, &self.waiting, collector);
            if self.parts.is_empty() {
                self.read_to = to;
            }
        }
    }

    fn finish(&mut self, collector: &Collector<'_>) -> Result<End, Trouble> {
        collector.options.progress.bytes.fetch_add(self.on_disk - self.shown, Ordering::Relaxed);
        self.shown = self.on_disk;
        let size = match (&self.bytes, &self.file) {
            (Some(Bytes::Packed(file)), _) => {
                let size = file.size()?;
                self.size = size;
                if let Outlet::Send { ledger, .. } = collector.outlet {
                    let sites = self.pipeline.sites.iter().map(|site| Some(site.id));
                    for site in std::iter::once(None).chain(sites) {
                        ledger.end_claim(site, self.row.id, size)?;
                    }
                }
                size
            }
            (_, Some(file)) => file.size()?,
            _ => 0,
        };
        self.read_to = self.size;
        collector.state.borrow_mut().summary.bytes += size.min(archive::UNKNOWN - 1);
        Ok(self.left.take().map_or(End::Done, End::Left))
    }
}

impl Current {
    /// How many bytes on the disk it has come to, as far as it can be told within a segment.
    fn on_disk(&self) -> u64 {
        let Some(segment) = &self.segment else { return self.shown_before };
        let from = self.segment_from;
        let (done, all) = (self.applied_to.saturating_sub(from), segment.read_to.saturating_sub(from));
        let bytes = u128::from(segment.on_disk.saturating_sub(self.shown_before));
        let part = bytes * u128::from(done) / u128::from(all.max(1));
        self.shown_before + u64::try_from(part).unwrap_or(0)
    }

    /// Does what follows from the next piece; a site: it has no room for more.
    fn apply_next(
        &mut self,
        row: &LogRow,
        pipeline: &Pipeline,
        waiting: &[SiteId],
        collector: &Collector<'_>,
        repeats: &mut Repeats,
    ) -> Option<SiteId> {
        let piece = self.pieces.get_mut(self.applied)?;
        self.applied += 1;
        self.applied_to = piece.end();
        let readers = &mut self.part.readers;
        let waits = |reader: &Reader| site_of(reader, pipeline).is_some_and(|site| waiting.contains(&site));
        match piece {
            Piece::Passed { lines, .. } => {
                if let Some(owner) = readers.iter().position(|reader| reader.site.is_some() && !waits(reader)) {
                    source::pass(*lines, &mut self.steps[owner]);
                }
                None
            }
            Piece::Line { span, taken, bytes } => {
                let owner = readers.iter().position(|reader| reader.site == taken.site && !waits(reader))?;
                let cut = if taken.outcome == crate::pipeline::Outcome::TooLong {
                    Cut::TooLong(*span)
                } else {
                    Cut::Line(Line { bytes, span: *span })
                };
                let site = taken.site.and_then(|index| pipeline.sites.get(index)).map(|site| site.id);
                let (reader, steps) = (&mut readers[owner], &mut self.steps[owner]);
                let stopped = settle_fate(cut, taken, row, pipeline, reader, steps, repeats, collector);
                site.filter(|_| stopped == Stopped::Full)
            }
        }
    }

    /// Everything before `read_to` has been read.
    fn settle(
        &mut self,
        read_to: u64,
        row: &LogRow,
        pipeline: &Pipeline,
        waiting: &[SiteId],
        collector: &Collector<'_>,
    ) {
        for (reader, steps) in self.part.readers.iter_mut().zip(&mut self.steps) {
            let site = site_of(reader, pipeline);
            if site.is_some_and(|site| waiting.contains(&site)) {
                continue;
            }
            // The next segment has about as many.
            let next = Vec::with_capacity(steps.len());
            let steps = std::mem::replace(steps, next);
            if read_to > reader.cutter.offset() {
                reader.cutter = crate::lines::Cutter::new(read_to, reader.cutter.max_line());
                collector.advance(Advance { site, log: row.id, read_to, steps });
            }
        }
    }
}

fn site_of(reader: &Reader, pipeline: &Pipeline) -> Option<SiteId> {
    reader.site.and_then(|index| pipeline.sites.get(index)).map(|site| site.id)
}

/// Whether a site's queue takes another event.
enum Room {
    Free,
    /// Somebody has asked to stop.
    Stopped,
    /// It won't: why, and what to do.
    Hopeless(String),
}

/// Waits until a site's queue takes another event, or that is hopeless.
fn wait_for_room(site: SiteId, collector: &Collector<'_>, stop: &dyn Fn() -> bool) -> Room {
    let Outlet::Send { delivery, rooms, .. } = collector.outlet else { return Room::Free };
    let mut patience = Patience::new(rooms, &[site]);
    while !collector.has_room(site) {
        if stop() {
            return Room::Stopped;
        }
        if let Some(why) = patience.lost(delivery, rooms, &[site]) {
            return Room::Hopeless(why);
        }
        rooms.wait_for_room(site, std::time::Duration::from_millis(200));
    }
    Room::Free
}

/// Another handle of a plain log, to look whether it is still what it was.
pub(super) fn witness(content: &Content) -> std::io::Result<Option<Content>> {
    match content {
        Content::Plain(file) => Ok(Some(Content::Plain(file.try_clone()?))),
        Content::Packed(_) => Ok(None),
    }
}

/// How many bytes of a log lie on the disk.
pub(super) fn on_disk(content: &Content) -> u64 {
    content.on_disk().0
}

/// A head that was short when the log was known first, as it is now.
pub(super) fn complete_head(row: &mut LogRow, file: &Content) -> std::io::Result<()> {
    if (row.fingerprint.head_len as usize) < crate::ledger::HEAD_MAX {
        let mut head = vec![0; crate::ledger::HEAD_MAX];
        let filled = file::read_at(file, &mut head, 0)?;
        head.truncate(filled);
        if row.fingerprint.agrees_head(&head) {
            let marks = std::mem::take(&mut row.fingerprint.marks);
            row.fingerprint = crate::ledger::Fingerprint::of_head(&head);
            row.fingerprint.marks = marks;
        }
    }
    Ok(())
}
