//! One open log, read on for every site that reads it.
//!
//! Sites at the same place share one reading. A site that is full stays where it is; when it has room again it reads
//! its part by itself until it has caught up with the others.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::archive::Content;
use super::file::{self, Opened, Stamp};
use super::identity;
use super::scan::{Block, Found, Recall, Room, Scan, Subject};
use crate::event::Event;
use crate::ledger::{Advance, Counts, Fingerprint, HEAD_MAX, LogRow, MARK_MAX, Mark, Step};
use crate::lines::{Cut, Cutter};
use crate::offsets::{LogId, SiteId};
use crate::pipeline::{Outcome, Pipeline, Taken};
use crate::visitor::repeats::Repeats;

/// Bytes read at a time: more makes no difference in speed, and costs memory.
pub const BLOCK: usize = if cfg!(test) { 1024 } else { 256 * 1024 };

/// Room to read into, used for one log after the other.
#[derive(Debug, Default)]
pub struct Buffers {
    bytes: Vec<u8>,
    room: Room,
}

impl Buffers {
    /// Room for so many bytes, and room to work in. No more than that is touched: mostly it is a line or two.
    fn room(&mut self, bytes: usize) -> (&mut [u8], &mut Room) {
        if self.bytes.len() < bytes {
            self.bytes.resize(bytes, 0);
        }
        (&mut self.bytes[..bytes], &mut self.room)
    }

    /// Gives the memory back, until there is something to read.
    pub fn release(&mut self) {
        *self = Self::default();
    }
}

/// What happens to the logs, for those that count it; logs by the name under which they are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened<'p> {
    /// A log was renamed or removed.
    Rotation(&'p Path),
    /// A log was truncated or overwritten in place.
    Truncation(&'p Path),
    /// A log that wasn't read to its end can't be read any more.
    GivenUp {
        /// Which.
        path: &'p Path,
        /// Bytes that are known to be unread.
        unread: u64,
    },
    /// The follower has come round.
    Turn {
        /// Logs that are open.
        files: usize,
        /// Logs that are there and can't be read.
        unreadable: usize,
    },
}

/// Where a log stands, for those that watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The name under which it is followed.
    pub path: Arc<Path>,
    /// Device and inode.
    pub inode: (u64, u64),
    /// Its bytes; `None`: an archive's aren't known.
    pub size: Option<u64>,
    /// Every site has read what is before.
    pub read_to: u64,
    /// Since when it is known that there are bytes which a site hasn't read.
    pub behind_since: Option<Instant>,
}

/// Where what was read goes.
pub trait Sink {
    /// An event that is to be sent.
    fn submit(&self, event: Box<Event>);
    /// Whether a site's queue takes another event.
    fn has_room(&self, site: SiteId) -> bool;
    /// Whether a site's events are taken, as far as it is known.
    fn is_sending(&self, _site: SiteId) -> bool {
        true
    }
    /// What was read of a log.
    fn advance(&self, advance: Advance);
    /// Whether it is to be known of each event which line it stands for, and not only how many there were.
    fn keeps_lines(&self) -> bool {
        true
    }
    /// An event's line was read again that an earlier run had settled.
    fn already_sent(&self, site: SiteId);
    /// What is known of a log's file.
    fn update(&self, row: LogRow);
    /// Something has happened to the logs.
    fn happened(&self, _what: Happened<'_>) {}
    /// Where a log stands after a turn.
    fn stands(&self, _log: LogId, _place: Place) {}
    /// A log isn't open any more.
    fn left(&self, _log: LogId) {}
    /// The fate of every line that was parsed, for those that watch or sum up.
    fn saw(&self, _row: &LogRow, _pipeline: &Pipeline, _taken: &Taken, _cut: Cut<'_>) {}
    /// So many lines, up to an offset, that a glance has shown to fit no rule, and the format as far as it went.
    fn glanced_at(&self, _row: &LogRow, _pipeline: &Pipeline, _lines: u64, _offset: u64) {}
}

/// How far one site has read, or the log's own count of lines that are no site's.
#[derive(Debug)]
pub struct Reader {
    /// Index into the pipeline's sites; `None`: the log's own.
    pub site: Option<usize>,
    /// Where it stands.
    pub cutter: Cutter,
    /// Ends of lines ahead that an earlier run has settled: they are read, and not sent. Nearly always none, in which case
    /// there is no set: there are thousands of readers.
    pub settled: Option<Box<BTreeSet<u64>>>,
}

impl Reader {
    /// One that begins where its cutter stands.
    pub fn new(site: Option<usize>, cutter: Cutter, settled: impl IntoIterator<Item = u64>) -> Self {
        let settled = settled.into_iter().collect::<BTreeSet<u64>>();
        Self { site, cutter, settled: (!settled.is_empty()).then(|| Box::new(settled)) }
    }
}

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// There is more to read now.
    More,
    /// Nothing more until the file grows.
    End,
    /// There is more, but a site has no room.
    Full,
    /// What was read is no longer there: the file was truncated or overwritten in place.
    Truncated,
}

/// An open log.
#[derive(Debug)]
pub struct Source {
    /// What the ledger stores of it.
    pub row: LogRow,
    /// When the file was last written to, as it was opened.
    pub modified: Option<SystemTime>,
    /// The handle: reads go on after a rename or removal.
    pub file: Content,
    /// The format and the sites.
    pub pipeline: Arc<Pipeline>,
    /// One for each site, and the log's own.
    pub readers: Vec<Reader>,
    /// Since when the file has another name or none; its end is read until it has been quiet for a while.
    pub leaving: Option<Instant>,
    /// The path this source was opened by.
    pub path: Arc<Path>,
    /// Whether it has, perhaps, more to read.
    pub due: bool,
    /// Where the going through its lines stands.
    pub scan: Scan,
    /// Its bytes, when they were last asked for.
    pub size: u64,
    /// Since when it is known that there are bytes which a site hasn't read.
    pub behind_since: Option<Instant>,
    /// How the file stood when it was last read to its end: while it stays so, there is nothing new in it.
    pub seen: Option<Stamp>,
}

impl Source {
    /// Reads one block, at the place that is furthest behind of those whose sites have room.
    ///
    /// # Errors
    /// Those of reading the file; nothing has moved then.
    pub fn turn(&mut self, buffers: &mut Buffers, repeats: &mut Repeats, sink: &impl Sink) -> io::Result<Turn> {
        self.turn_up_to(u64::MAX, buffers, repeats, sink)
    }

    /// The same up to an offset at most.
    ///
    /// # Errors
    /// Those of reading.
    pub fn turn_up_to(
        &mut self,
        most: u64,
        buffers: &mut Buffers,
        repeats: &mut Repeats,
        sink: &impl Sink,
    ) -> io::Result<Turn> {
        self.seen = None;
        // Before it is read: what is written meanwhile changes it.
        let (size, stamp) = self.file.stands()?;
        let turn = self.turn_within(size.min(most), buffers, repeats, sink)?;
        if size > most && turn == Turn::End {
            return Ok(Turn::More);
        }
        self.seen = stamp.filter(|_| turn == Turn::End);
        Ok(turn)
    }

    /// The same of a file that goes, as far as it is to be read, up to `size`.
    fn turn_within(
        &mut self,
        size: u64,
        buffers: &mut Buffers,
        repeats: &mut Repeats,
        sink: &impl Sink,
    ) -> io::Result<Turn> {
        let sites = &self.pipeline.sites;
        // Where all lines are one site's, the log's own count has nothing to read ahead for.
        let only = self.pipeline.is_one_sites().then_some(0);
        let has_room = |reader: &Reader| reader.site.or(only).is_none_or(|site| sites[site].id_has_room(sink));
        let full = self.readers.iter().any(|reader| !has_room(reader) && reader.cutter.wants() < size);
        let waiting = if full { Turn::Full } else { Turn::End };
        let Some(at) = self.readers.iter().filter(|reader| has_room(reader)).map(|reader| reader.cutter.wants()).min()
        else {
            return Ok(if self.still_holds_what_was_read()? { waiting } else { Turn::Truncated });
        };
        // Those further ahead are caught up with at a line's start (or in the middle of a line that is being let go):
        // from there on the reading is shared.
        let place = |cutter: &Cutter| if cutter.offset() > at { cutter.offset() } else { cutter.wants() };
        let ahead =
            self.readers.iter().filter(|reader| reader.cutter.wants() > at).map(|reader| place(&reader.cutter)).min();
        let cohort: Vec<bool> =
            self.readers.iter().map(|reader| reader.cutter.wants() == at && has_room(reader)).collect();

        let limit = ahead.unwrap_or(size).saturating_sub(at);
        let block = self.block();
        let (buffer, room) = buffers.room(usize::try_from(limit).unwrap_or(block).min(block));
        let began = SystemTime::now();
        let filled = file::read_at(&self.file, buffer, at)?;
        // Only after it was read: it may be truncated and written to again at any time.
        if !self.still_holds_what_was_read()? {
            return Ok(Turn::Truncated);
        }
        if filled == 0 {
            return Ok(waiting);
        }
        self.recall(&cohort)?;
        let bytes = &buffer[..filled];
        let (stopped, advances) = self.read(bytes, room, &cohort, repeats, sink, false)?;
        self.remember(at, bytes, began, sink);
        advances.into_iter().for_each(|advance| sink.advance(advance));
        let moved = self.readers.iter().zip(&cohort).any(|(reader, member)| *member && reader.cutter.wants() > at);
        let more = stopped == Stopped::Full || ahead.is_some() || at + (filled as u64) < size;
        Ok(if moved && more { Turn::More } else { waiting })
    }

    /// Takes the unfinished last line of a file that nobody writes any more.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn finish(&mut self, buffers: &mut Buffers, repeats: &mut Repeats, sink: &impl Sink) -> io::Result<()> {
        self.finish_until(u64::MAX, buffers, repeats, sink)
    }

    /// The same, but no further than `until`.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn finish_until(
        &mut self,
        until: u64,
        buffers: &mut Buffers,
        repeats: &mut Repeats,
        sink: &impl Sink,
    ) -> io::Result<()> {
        let size = self.file.size()?.min(until);
        let furthest = self.readers.iter().map(|reader| reader.cutter.wants()).max().unwrap_or(size);
        if furthest >= size {
            return Ok(());
        }
        let cohort: Vec<bool> = self.readers.iter().map(|reader| reader.cutter.wants() == furthest).collect();
        self.recall(&cohort)?;
        let block = self.block();
        let (buffer, room) = buffers.room(usize::try_from(size - furthest).unwrap_or(block).min(block));
        let began = SystemTime::now();
        let filled = file::read_at(&self.file, buffer, furthest)?;
        let bytes = &buffer[..filled];
        let (_, advances) = self.read(bytes, room, &cohort, repeats, sink, true)?;
        self.remember(furthest, bytes, began, sink);
        advances.into_iter().for_each(|advance| sink.advance(advance));
        Ok(())
    }

    /// Bytes read at a time, at most: no line within the bound is longer.
    fn block(&self) -> usize {
        let longest = self.readers.iter().map(|reader| reader.cutter.max_line()).max().unwrap_or(0);
        BLOCK.max(longest.saturating_add(2))
    }

    /// Whether its file is in no directory any more.
    pub fn has_no_name(&self) -> bool {
        let meta = self.file.plain().and_then(|file| file.metadata().ok());
        meta.is_some_and(|meta| meta.nlink() == 0)
    }

    /// How far the furthest reader has come.
    pub fn read_to(&self) -> u64 {
        self.readers.iter().map(|reader| reader.cutter.offset()).max().unwrap_or(0)
    }

    /// How far it has been read, and how many bytes there were: what changes while it is written to.
    pub fn progress(&self) -> (u64, u64) {
        (self.readers.iter().map(|reader| reader.cutter.wants()).max().unwrap_or(0), self.size)
    }

    /// How far the log's own count of lines has come: the log's position, for a site that is added.
    pub fn own_offset(&self) -> u64 {
        let own = self.readers.iter().find(|reader| reader.site.is_none());
        own.map_or_else(|| self.read_to(), |reader| reader.cutter.offset())
    }

    /// Other sites or another format hold from here on.
    pub fn go_on_with(&mut self, pipeline: Arc<Pipeline>) {
        self.pipeline = pipeline;
        self.scan = Scan::default();
        self.due = true;
    }

    /// The log goes on in another file with the same content: `copytruncate` has cut this one.
    pub fn continue_in(&mut self, path: Arc<Path>, copy: Opened) {
        (self.row.dev, self.row.ino) = (copy.dev, copy.ino);
        self.modified = copy.modified;
        self.file = copy.file;
        self.path = path;
        self.leaving = Some(Instant::now());
        self.due = true;
    }

    /// Where it stands after a turn; `behind`: there are bytes that a site hasn't read.
    pub fn place(&mut self, behind: bool) -> Place {
        self.behind_since = behind.then(|| self.behind_since.unwrap_or_else(Instant::now));
        let read_to = self.readers.iter().map(|reader| reader.cutter.offset()).min().unwrap_or(0);
        Place {
            path: Arc::clone(&self.row.path),
            inode: (self.row.dev, self.row.ino),
            size: (!self.file.is_packed()).then_some(self.size),
            read_to,
            behind_since: self.behind_since,
        }
    }

    /// Bytes that are known to have been there, and that a site hasn't read.
    pub fn unread(&self) -> u64 {
        let read = self.readers.iter().map(|reader| reader.cutter.wants()).min().unwrap_or(self.size);
        if self.file.is_packed() { 0 } else { self.size.saturating_sub(read) }
    }

    /// Bytes that no site has read yet.
    pub fn backlog(&self) -> u64 {
        // How much an archive holds is known at its end.
        let size = if self.file.is_packed() { 0 } else { self.file.size().unwrap_or(0) };
        let read = self.readers.iter().map(|reader| reader.cutter.offset()).min().unwrap_or(size);
        size.saturating_sub(read)
    }

    /// Remembers what comes before the line at which the cohort reads on.
    fn recall(&mut self, cohort: &[bool]) -> io::Result<()> {
        let first = self.readers.iter().zip(cohort).find(|(_, member)| **member);
        if let Some(at) = first.map(|(reader, _)| reader.cutter.offset()).filter(|at| *at != self.scan.recall.at) {
            self.scan.recall = Recall::at(&self.file, &self.pipeline.format, at)?;
        }
        Ok(())
    }

    fn still_holds_what_was_read(&mut self) -> io::Result<bool> {
        let size = self.file.size()?;
        let read = self.readers.iter().map(|reader| reader.cutter.wants()).max().unwrap_or(0);
        // A copytruncate may have grown past the old offset before we look; nobody writes into an archive.
        let holds = size >= read && (self.file.is_packed() || identity::agrees(&self.file, &self.row.fingerprint)?);
        if holds {
            self.size = size;
        }
        Ok(holds)
    }

    /// Sends the lines in `bytes` through the pipeline for the readers of the cohort. What they have read with that is for the
    /// ledger, once it knows what the log looks like there: a position in a log that is known by less than was read of it may
    /// be taken for one in whatever gets its inode.
    fn read(
        &mut self,
        bytes: &[u8],
        room: &mut Room,
        cohort: &[bool],
        repeats: &mut Repeats,
        sink: &impl Sink,
        finish: bool,
    ) -> io::Result<(Stopped, Vec<Advance>)> {
        let Some(first) = cohort.iter().position(|member| *member) else { return Ok((Stopped::AtEnd, Vec::new())) };
        let mut cutter = self.readers[first].cutter;
        let mut readings: Vec<Vec<Step>> = self.readers.iter().map(|_| Vec::new()).collect();
        let pipeline = Arc::clone(&self.pipeline);
        let mut stopped = Stopped::AtEnd;
        let mut block = Block::new(bytes, room, finish);
        let subject = |file| Subject { log: self.row.id, file, pipeline: &pipeline };
        while let Some(found) = self.scan.next(subject(&self.file), &mut cutter, &mut block)? {
            match found {
                Found::Passed(lines) => {
                    if let Some(owner) = self.readers.iter().position(|reader| reader.site.is_some()) {
                        pass(lines, &mut readings[owner]);
                        if pipeline.glances && cohort.get(owner) == Some(&true) {
                            sink.glanced_at(&self.row, &pipeline, lines, cutter.offset());
                        }
                    }
                }
                Found::Line(cut, mut taken) => {
                    let owner = self.readers.iter().position(|reader| reader.site == taken.site);
                    let Some(owner) = owner.filter(|owner| cohort.get(*owner) == Some(&true)) else { continue };
                    let reader = &mut self.readers[owner];
                    stopped =
                        settle_fate(cut, &mut taken, &self.row, &pipeline, reader, &mut readings[owner], repeats, sink);
                    if stopped == Stopped::Full {
                        break;
                    }
                }
            }
        }
        let read_to = cutter.offset();
        self.scan.recall.at = read_to;
        let mut advances = Vec::new();
        for ((reader, steps), member) in self.readers.iter_mut().zip(readings).zip(cohort) {
            if !member {
                continue;
            }
            let before = reader.cutter.offset();
            reader.cutter = cutter;
            if read_to > before {
                let site = reader.site.map(|site| self.pipeline.sites[site].id);
                advances.push(Advance { site, log: self.row.id, read_to, steps });
            }
        }
        Ok((stopped, advances))
    }

    /// Stores the fingerprint as it is after a reading that was begun at that time.
    fn remember(&mut self, at: u64, bytes: &[u8], began: SystemTime, sink: &impl Sink) {
        let read = self.readers.iter().map(|reader| reader.cutter.wants()).max().unwrap_or(0);
        let known = &mut self.row.fingerprint;
        let known_to = known.marks.last().map_or(0, |mark| mark.offset);
        if read <= known_to {
            return;
        }
        if (known.head_len as usize) < HEAD_MAX {
            let wanted = HEAD_MAX.min(usize::try_from(read).unwrap_or(HEAD_MAX));
            let mut head = vec![0; wanted];
            if at == 0 {
                // What was read, whatever became of the file since then.
                head = bytes[..wanted.min(bytes.len())].to_vec();
            } else {
                // A head that can't be read now is taken at the next turn.
                let filled = file::read_at(&self.file, &mut head, 0).unwrap_or(0);
                head.truncate(filled);
            }
            if head.len() > known.head_len as usize && known.agrees_head(&head) {
                let marks = std::mem::take(&mut known.marks);
                *known = Fingerprint::of_head(&head);
                known.marks = marks;
            }
        }
        let end = usize::try_from(read - at).unwrap_or(0).min(bytes.len());
        let before = if end >= MARK_MAX || at == 0 {
            Some(bytes[end.saturating_sub(MARK_MAX)..end].to_vec())
        } else {
            // Without its mark this offset isn't vouched for; the former mark still is.
            file::read_before(&self.file, read, MARK_MAX).ok().filter(|before| before.ends_with(&bytes[..end]))
        };
        if let Some(before) = before {
            known.push_mark(Mark::of(read, &before));
        }
        // What was written after this wasn't there to be read; a while may have passed since.
        self.row.last_read = jiff::Timestamp::try_from(began).ok();
        sink.update(self.row.clone());
    }
}

/// Whether a site's queue has taken an event and has room for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It has.
    AtEnd,
    /// It is full.
    Full,
}

/// Counts lines that were passed over.
pub fn pass(lines: u64, steps: &mut Vec<Step>) {
    let counts = &mut closed(steps).counts;
    counts.lines += lines;
    counts.unmatched += lines;
}

/// The step that gathers lines which wait for nothing.
fn closed(steps: &mut Vec<Step>) -> &mut Step {
    if steps.last().is_none_or(|step| step.open.is_some()) {
        steps.push(Step::default());
    }
    let last = steps.len() - 1;
    &mut steps[last]
}

/// Asks a line the last question, and does what follows from its fate.
#[expect(clippy::too_many_arguments, reason = "one line, its log, its reader, and where its fate goes")]
pub fn settle_fate(
    cut: Cut<'_>,
    taken: &mut Taken,
    row: &LogRow,
    pipeline: &Pipeline,
    reader: &mut Reader,
    steps: &mut Vec<Step>,
    repeats: &mut Repeats,
    sink: &impl Sink,
) -> Stopped {
    let touch = taken.ask(repeats);
    sink.saw(row, pipeline, taken, cut);
    let event = match std::mem::replace(&mut taken.outcome, Outcome::Unmatched) {
        Outcome::Event(event) => event,
        other => {
            let step = closed(steps);
            other.count(&mut step.counts);
            step.touches.extend(touch);
            return Stopped::AtEnd;
        }
    };
    let counts = Counts { lines: 1, event: 1, ..Counts::default() };
    if sink.keeps_lines() {
        steps.push(Step { counts, open: Some(cut.span()), touches: touch.into_iter().collect() });
    } else {
        closed(steps).counts += counts;
    }
    let site = event.origin.site;
    if reader.settled.as_mut().is_some_and(|settled| settled.remove(&cut.span().end)) {
        sink.already_sent(site);
        return Stopped::AtEnd;
    }
    sink.submit(event);
    if sink.has_room(site) { Stopped::AtEnd } else { Stopped::Full }
}

impl crate::pipeline::Site {
    fn id_has_room(&self, sink: &impl Sink) -> bool {
        sink.has_room(self.id)
    }
}

/// Sums what a reading counted, for those that show it before the ledger has it.
pub fn counts_of(advance: &Advance) -> Counts {
    let mut counts = Counts::default();
    for step in &advance.steps {
        counts += step.counts;
    }
    counts
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use crate::format::Format;

    use super::*;

    fn written(content: &[u8]) -> Content {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        Content::of(file.reopen().unwrap()).unwrap()
    }

    /// The times of the lines after each line's start, when the reading begins there.
    fn from_every_line(format: &Format, log: &str) -> Vec<Vec<Option<String>>> {
        let file = written(log.as_bytes());
        let starts = std::iter::once(0).chain(log.match_indices('\n').map(|(at, _)| at + 1));
        let read_from = |start: usize| {
            let mut recall = Recall::at(&file, format, start as u64).unwrap();
            let lines = log[start..].lines();
            let parse = |line: &str| {
                let entry = format.parse_in(&mut recall.reading, line.as_bytes());
                entry.and_then(|entry| entry.text("time").map(|time| time.into_owned()))
            };
            lines.map(parse).collect()
        };
        starts.map(read_from).collect()
    }

    #[test]
    fn it_does_not_matter_where_a_reading_begins() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let combined = Format::builtin("combined", &berlin).unwrap();
        let line =
            |clock: &str| format!("192.0.2.7 - - [25/Oct/2026:{clock}] \"GET /a HTTP/1.1\" 200 5 \"-\" \"UA\"\n");
        // Enough lines in either hour that the last of them don't show which it is.
        let hour = |hour: &str| (0..60).map(|minute| line(&format!("{hour}:{minute:02}:30"))).collect();
        let repeated: [String; 4] = ["01", "02", "02", "03"].map(hour);
        let header = |fields: &str| format!("#Date: 2026-10-10 00:00:00\n#Fields: {fields}\n");
        let w3c = [
            header("time c-ip cs-uri-stem sc-status"),
            "13:55:36 192.0.2.7 /a 200\n".repeat(3),
            header("sc-status cs-uri-stem c-ip time"),
            "200 /a 192.0.2.7 13:55:36\n".repeat(3),
        ];
        let w3c_format = Format::builtin("w3c", &TimeZone::UTC).unwrap();
        for (format, log) in [(combined, repeated.concat()), (w3c_format, w3c.concat())] {
            let all = from_every_line(&format, &log);
            let whole = &all[0];
            assert!(whole.iter().flatten().count() > 5);
            for (start, read) in all.iter().enumerate() {
                assert_eq!(read[..], whole[start.min(whole.len())..], "from line {start} of a `{}` log", format.name());
            }
        }
    }

    /// Remembers what it is given.
    #[derive(Default)]
    struct Recorder {
        events: std::cell::RefCell<Vec<Event>>,
        /// When the first came.
        first: std::cell::Cell<Option<SystemTime>>,
        counts: std::cell::RefCell<Counts>,
        /// How far the log is known by its content.
        known_to: std::cell::Cell<u64>,
        /// Advances beyond that, and others.
        advances: std::cell::Cell<(usize, usize)>,
    }

    impl Sink for Recorder {
        fn submit(&self, event: Box<Event>) {
            self.first.set(self.first.get().or_else(|| Some(SystemTime::now())));
            self.events.borrow_mut().push(*event);
        }
        fn has_room(&self, _site: SiteId) -> bool {
            true
        }
        fn advance(&self, advance: Advance) {
            let (beyond, within) = self.advances.get();
            let is_beyond = advance.read_to > self.known_to.get();
            self.advances.set((beyond + usize::from(is_beyond), within + usize::from(!is_beyond)));
            if advance.site.is_some() || counts_of(&advance).lines > 0 {
                *self.counts.borrow_mut() += counts_of(&advance);
            }
        }
        fn already_sent(&self, _site: SiteId) {}
        fn update(&self, row: LogRow) {
            let vouched = row.fingerprint.marks.last().map_or(0, |mark| mark.offset);
            self.known_to.set(if row.fingerprint.head_len > 0 { vouched } else { 0 });
        }
    }

    /// A log that is open, to be read with or without the search.
    fn source(log: &[u8], rules: &crate::rules::Rules, searched: bool) -> Source {
        let base_url = url::Url::parse("https://docs.example.org").unwrap();
        let hosts = ["docs.example.org", "*.docs.example.org"].map(str::to_owned);
        let context = crate::rules::SiteContext {
            hosts: crate::rules::Hosts::parse(&hosts).unwrap(),
            base_url: base_url.into(),
            keep_query: crate::rules::KeepQuery::Only(Vec::new()),
            page: vec![crate::rules::PageSource::Referer, crate::rules::PageSource::OwnUrl],
            view_width: None,
        };
        let site = crate::pipeline::Site {
            id: SiteId(1),
            name: "docs".to_owned(),
            context,
            hosts: None,
            rules: rules.clone(),
            bots: None,
            exclude_ips: Vec::new(),
            trusted_proxies: Vec::new(),
            respect_dnt: true,
            repeat_window: std::time::Duration::from_secs(30),
        };
        let combined = Format::builtin("combined", &TimeZone::UTC).unwrap();
        let mut pipeline = Pipeline::new(combined, vec![Arc::new(site)]);
        assert!(pipeline.prefilter.is_some() || pipeline.glances);
        if !searched {
            (pipeline.prefilter, pipeline.glances) = (None, false);
        }
        let reader = |site| Reader::new(site, Cutter::new(0, 300), []);
        Source {
            row: LogRow {
                id: LogId(1),
                path: Path::new("access.log").into(),
                dev: 0,
                ino: 0,
                fingerprint: Fingerprint::default(),
                format: None,
                last_read: None,
                ended: false,
            },
            modified: None,
            file: written(log),
            pipeline: Arc::new(pipeline),
            readers: vec![reader(None), reader(Some(0))],
            leaving: None,
            path: Path::new("access.log").into(),
            due: true,
            scan: Scan::within(Recall::default()),
            size: 0,
            behind_since: None,
            seen: None,
        }
    }

    /// The events and counts of a log, read with or without the search.
    fn outcomes(log: &[u8], rules: &crate::rules::Rules, searched: bool) -> (Vec<Event>, Counts) {
        let mut source = source(log, rules, searched);
        let (recorder, mut repeats, mut buffers) =
            (Recorder::default(), Repeats::new([0; 16], 100), Buffers::default());
        while source.turn(&mut buffers, &mut repeats, &recorder).unwrap() == Turn::More {}
        source.finish(&mut buffers, &mut repeats, &recorder).unwrap();
        (recorder.events.into_inner(), recorder.counts.into_inner())
    }

    fn rule(extensions: &[&str], path: Option<&str>, event: bool) -> crate::rules::Rule {
        let extensions: Vec<String> = extensions.iter().map(|text| (*text).to_owned()).collect();
        let conditions = crate::rules::Conditions {
            extensions: (!extensions.is_empty()).then(|| crate::rules::Extensions::new(&extensions)),
            path: path.map(|path| regex::bytes::Regex::new(path).unwrap()),
            ..crate::rules::Conditions::default()
        };
        let event = event.then(|| "download".into());
        crate::rules::Rule { event, conditions, url: None, properties: Vec::new(), repeat_window: None }
    }

    /// The ledger may commit, and the program be killed, between any two words to it.
    #[test]
    fn the_ledger_knows_a_log_as_far_as_it_is_told_that_it_was_read() {
        let line =
            |n| format!("192.0.2.1 - - [10/Nov/2026:10:00:00 +0000] \"GET /{n}.pdf HTTP/1.1\" 200 5 \"-\" \"UA\"\n");
        let log: String = (0..2_000).map(line).collect();
        let rules = crate::rules::Rules(vec![rule(&["pdf"], None, true)]);
        let mut source = source(log.as_bytes(), &rules, true);
        let recorder = Recorder::default();
        let (mut repeats, mut buffers) = (Repeats::new([0; 16], 100), Buffers::default());
        while source.turn(&mut buffers, &mut repeats, &recorder).unwrap() == Turn::More {}
        let (beyond, within) = recorder.advances.get();
        assert_eq!(beyond, 0);
        assert!(within >= 2, "{within}: for the site and for the log itself");
    }

    #[test]
    fn a_log_was_read_when_reading_began() {
        let log = "192.0.2.1 - - [10/Nov/2026:10:00:00 +0000] \"GET /a.pdf HTTP/1.1\" 200 5 \"-\" \"UA\"\n";
        let rules = crate::rules::Rules(vec![rule(&["pdf"], None, true)]);
        let mut source = source(log.as_bytes(), &rules, true);
        let (recorder, mut repeats) = (Recorder::default(), Repeats::new([0; 16], 100));
        source.turn(&mut Buffers::default(), &mut repeats, &recorder).unwrap();
        // Else what is written while a slow turn goes on would be taken for older than what was read.
        let first = jiff::Timestamp::try_from(recorder.first.get().unwrap()).unwrap();
        assert!(source.row.last_read.unwrap() < first);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(192))]
        /// The search is exact: whatever stands in the log and whatever the rules, the events are the same, and so are
        /// all fates but for those that it may merge.
        #[test]
        fn searching_blocks_finds_what_parsing_each_line_finds(
            rules in proptest::sample::subsequence(vec![0_usize, 1, 2, 3, 4, 5, 6, 7], 1..5),
            lines in proptest::collection::vec((0_usize..27, 0_usize..7, proptest::prelude::any::<u16>()), 0..120),
            newline in proptest::prelude::any::<bool>(),
        ) {
            let known = [
                rule(&["pdf", "tar.gz", "doc"], None, true),
                rule(&[], Some("^/files/"), true),
                rule(&[], Some("(?i)^/(?:api|form)/x?"), true),
                rule(&["pdf"], Some("^/intern/"), false),
                rule(&["7z"], Some("a"), true),
                rule(&[], Some("/download$"), true),
                // Nothing to search for: a glance at each line.
                rule(&[], Some("^/[a-z]/?"), true),
                rule(&[], Some(r"\.."), true),
            ];
            let rules: Vec<_> = rules.into_iter().map(|index| known[index].clone()).collect();
            proptest::prop_assume!(rules.iter().any(|rule| rule.event.is_some()));
            let rules = crate::rules::Rules(rules);
            let targets = [
                "/a.pdf", "/a.PDF?x=1", "/a.pdfx", "/a.pdf/", "/files/x", "/%66iles/x", "/FILES/x", "/api/x", "/Form/1",
                "/a.tar.gz", "/a.gz", "/intern/a.pdf", "/x/download", "/x/down%6coad", "/a.7z", "/", "/a.doc#f", "-", "",
                "http://h/files/a.pdf", "/a\\x2epdf", "/a b.pdf", "/x.docs.pdf.html", "/a.pdf\\\"", "\\/files\\/x", "/x\\/download",
                // What parsing makes a quote of.
                "http://x%22y.docs.example.org/files/a.pdf",
            ];
            let mut log = Vec::new();
            for (target, kind, number) in lines {
                let target = targets[target];
                let minute = number % 60;
                let agent = ["UA", "U\tA", "\u{7f}UÄ", "\u{1}"][usize::from(number / 7 % 4)];
                let page = ["docs.example.org/", "docs.example.org/a", "docs.example.org/a?b=\\x22", "docs.example.org/\t",
                    "docs.example.org/é", "docs.example.org/a#b", "docs.example.org/..", "x＂y.docs.example.org/",
                    "x%22y.docs.example.org/"][usize::from(number / 11 % 9)];
                match kind {
                    0 => log.extend_from_slice(format!("garbage .pdf {target}\n").as_bytes()),
                    1 => log.extend_from_slice(format!("{}{target}.pdf\n", "x".repeat(usize::from(number % 700))).as_bytes()),
                    2 => log.extend_from_slice(b"\r\n\n\xff.pdf \0\n"),
                    // Where data never reached the disk; longer than a block, sometimes.
                    3 if number % 5 == 0 => log.extend(std::iter::repeat_n(0, usize::from(number % 1500))),
                    _ => log.extend_from_slice(
                        format!(
                            "192.0.2.{} - - [10/Nov/2026:10:{minute:02}:00 +0000] \"GET {target} HTTP/1.1\" 200 5 \
                             \"https://{page}\" \"{agent}\"\n",
                            number % 7
                        )
                        .as_bytes(),
                    ),
                }
            }
            if !newline {
                log.pop();
            }
            let (events, counts) = outcomes(&log, &rules, false);
            let (found, searched) = outcomes(&log, &rules, true);
            proptest::prop_assert_eq!(&found, &events);
            // What reading a line by its quotes says of it.
            for event in events.iter().filter(|event| event.clean.0) {
                for text in [&event.page, &event.url, &event.visitor.user_agent] {
                    proptest::prop_assert_eq!(serde_json::to_string(text).unwrap(), format!("\"{text}\""));
                }
            }
            let merged = |counts: Counts| Counts {
                unmatched: counts.unmatched + counts.unparsed + counts.excluded,
                unparsed: 0,
                excluded: 0,
                ..counts
            };
            proptest::prop_assert_eq!(merged(searched), merged(counts));
        }
    }
}
