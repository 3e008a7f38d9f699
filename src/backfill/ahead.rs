//! Reads a stretch of a log ahead of its use, in segments, on as many threads as are wanted.
//!
//! A segment is what depends on nothing but the log's bytes: its lines, judged but for whether they are repeats. Where a
//! segment begins and ends depends on the stretch alone, so any number of threads gives the same.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::event::Event;
use crate::follow::archive::{Content, Damage};
use crate::follow::file;
use crate::follow::scan::{self, Block, Found, Recall, Scan, Subject};
use crate::follow::source::BLOCK;
use crate::ledger::MARK_MAX;
use crate::lines::{Cut, Cutter};
use crate::offsets::{LogId, Span};
use crate::pipeline::{Outcome, Pipeline, Taken};

/// Bytes of a segment of which little is kept.
const SEGMENT: u64 = 1024 * 1024;
/// Bytes of one of which each line is kept, with an event perhaps: what is judged should still be in the processor's caches
/// when it is used.
const SEGMENT_OF_LINES: u64 = 128 * 1024;
/// Bytes read beyond a segment for the end of its last line: mostly enough.
const BEYOND: u64 = if cfg!(test) { 16 } else { 4 * 1024 };

/// Room to work in, one for each thread.
#[derive(Debug, Default)]
struct Room {
    bytes: Vec<u8>,
    scans: scan::Room,
    /// How many pieces the last segment had: a vector that grows by and by is copied again and again.
    pieces: usize,
}

type Task = Box<dyn FnOnce(&mut Room) + Send>;

/// The threads that read ahead; none where one job is wanted, and then its caller reads.
pub(super) struct Pool {
    tasks: Option<Sender<Task>>,
    /// Where whoever waits for a segment finds another to read meanwhile.
    given: Option<Arc<Mutex<Receiver<Task>>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
    room: Room,
}

impl Pool {
    /// A pool of so many readers. `helps`: whoever takes the segments is one of them, and reads while it waits for one.
    /// With two jobs that is one thread less on two cores. Where it has POSTs to see to it is better off at that: helping
    /// made a backfill that sends a tenth slower.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub(super) fn new(jobs: usize, helps: bool) -> io::Result<Self> {
        let mut pool = Self { tasks: None, given: None, threads: Vec::new(), room: Room::default() };
        if jobs > 1 {
            let (tasks, given) = channel::<Task>();
            let given = Arc::new(Mutex::new(given));
            for _ in usize::from(helps)..jobs {
                let given = Arc::clone(&given);
                let work = move || {
                    let mut room = Room::default();
                    loop {
                        let next = given.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(task) = next else { return };
                        // A panic says so itself, and whoever waits for the result hears that there will be none. The
                        // others go on.
                        if catch_unwind(AssertUnwindSafe(|| task(&mut room))).is_err() {
                            room = Room::default();
                        }
                    }
                };
                pool.threads.push(std::thread::Builder::new().name("reader".into()).spawn(work)?);
            }
            pool.tasks = Some(tasks);
            pool.given = helps.then_some(given);
        }
        Ok(pool)
    }

    /// Segments of one stretch that may be under way.
    fn ahead(&self) -> usize {
        self.threads.len() + 1 + usize::from(self.given.is_some())
    }

    fn submit<T: Send + 'static>(&self, task: impl FnOnce(&mut Room) -> T + Send + 'static) -> Handle<T> {
        let Some(tasks) = &self.tasks else { return Handle::Later(Box::new(task)) };
        let (done, result) = channel();
        // Events are made there and let go of here: what isn't needed any more goes back.
        let spared = Event::spared();
        // Whoever asked may be gone: a stop. Threads that are gone are noticed where the result is taken.
        let _ = tasks.send(Box::new(move |room| {
            Event::take_spared(spared);
            drop(done.send(task(room)));
        }));
        Handle::UnderWay(result)
    }

    fn take<T>(&mut self, handle: Handle<T>) -> io::Result<T> {
        match handle {
            Handle::Later(task) => Ok(task(&mut self.room)),
            Handle::UnderWay(result) => {
                let mut done = result.try_recv();
                // Where a reader holds what is given, it waits because there is nothing, or is just taking the next.
                while matches!(done, Err(TryRecvError::Empty))
                    && let Some(given) = &self.given
                    && let Some(task) = given.try_lock().ok().and_then(|given| given.try_recv().ok())
                {
                    task(&mut self.room);
                    done = result.try_recv();
                }
                done.or_else(|_| result.recv())
                    .map_err(|_| io::Error::other("a thread that was reading has ended; please report this"))
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.tasks = None;
        for thread in self.threads.drain(..) {
            // One that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

enum Handle<T> {
    Later(Box<dyn FnOnce(&mut Room) -> T + Send>),
    UnderWay(Receiver<T>),
}

/// What a segment holds, in the order of the log.
#[derive(Debug)]
pub(super) enum Piece {
    /// Lines that can't become events.
    Passed {
        /// How many.
        lines: u64,
        /// Offset behind them.
        end: u64,
    },
    /// A line, judged.
    Line {
        /// Where it stands.
        span: Span,
        /// What became of it, but for whether it is a repeat.
        taken: Taken,
        /// Its bytes, where it didn't fit.
        bytes: Box<[u8]>,
    },
}

impl Piece {
    /// The offset behind it.
    pub(super) fn end(&self) -> u64 {
        match self {
            Piece::Passed { end, .. } => *end,
            Piece::Line { span, .. } => span.end,
        }
    }

    /// When the event happened, if it is one.
    pub(super) fn time(&self) -> Option<jiff::Timestamp> {
        match self {
            Piece::Line { taken: Taken { outcome: Outcome::Event(event), .. }, .. } => event.time,
            _ => None,
        }
    }
}

/// Some of a log's lines.
#[derive(Debug)]
pub(super) struct Segment {
    /// What they are.
    pub pieces: Vec<Piece>,
    /// Where reading stands behind them.
    pub read_to: u64,
    /// The bytes before that place, for a mark.
    pub tail: Vec<u8>,
    /// Bytes that were read from the disk until here.
    pub on_disk: u64,
    /// Where an archive is broken.
    pub damage: Option<Damage>,
}

/// A stretch of one log that is being read.
pub(super) struct Stretch {
    log: LogId,
    pipeline: Arc<Pipeline>,
    max_line: usize,
    /// Where it begins and ends.
    from: u64,
    until: u64,
    source: Source,
}

enum Source {
    /// Segments are read one beside the other.
    Plain { file: Arc<File>, next: u64, under_way: std::collections::VecDeque<Handle<io::Result<Segment>>> },
    /// Segments come one after the other, each of what the last has left.
    Packed { state: Option<Box<Unpacking>>, under_way: Option<Handle<Unpacked>> },
}

/// An archive on its way through the segments.
struct Unpacking {
    file: Content,
    cutter: Cutter,
    scan: Option<Scan>,
    /// What the next mark is made of, and the bytes before the place of reading: inside a line without end the one is ever
    /// further behind the other, and an archive that is read backwards is read anew from its beginning.
    tail: Vec<u8>,
    before: Vec<u8>,
    ended: bool,
}

/// The archive again, and what came of it.
type Unpacked = (Box<Unpacking>, io::Result<Segment>);

/// A log's bytes between two stretches.
pub(super) enum Bytes {
    /// As they lie in the file.
    Plain(Arc<File>),
    /// An archive; reading on goes forwards.
    Packed(Content),
}

impl Bytes {
    /// Takes an open log.
    pub(super) fn of(content: Content) -> Self {
        match content {
            Content::Plain(file) => Bytes::Plain(Arc::new(file)),
            packed => Bytes::Packed(packed),
        }
    }
}

impl Stretch {
    /// Prepares to read `from..until`, which are the beginnings of lines, or the end.
    pub(super) fn new(
        bytes: Bytes,
        (from, until): (u64, u64),
        log: LogId,
        pipeline: Arc<Pipeline>,
        max_line: usize,
    ) -> Self {
        let source = match bytes {
            Bytes::Plain(file) => Source::Plain { file, next: from, under_way: Default::default() },
            Bytes::Packed(file) => {
                let cutter = Cutter::new(from, max_line);
                let (tail, before) = (Vec::new(), Vec::new());
                let state = Unpacking { file, cutter, scan: None, tail, before, ended: false };
                Source::Packed { state: Some(Box::new(state)), under_way: None }
            }
        };
        Self { log, pipeline, max_line, from, until, source }
    }

    /// The next segment; `None`: that was the last.
    ///
    /// # Errors
    /// Those of reading.
    pub(super) fn next(&mut self, pool: &mut Pool) -> io::Result<Option<Segment>> {
        let (log, max_line, until) = (self.log, self.max_line, self.until);
        let len = if self.pipeline.prefilter.is_some() || self.pipeline.glances { SEGMENT } else { SEGMENT_OF_LINES };
        match &mut self.source {
            Source::Plain { file, next, under_way } => {
                while under_way.len() < pool.ahead() && *next < until {
                    let part = Part { from: self.from, start: *next, end: next.saturating_add(len).min(until), until };
                    *next = part.end;
                    let (file, pipeline) = (Arc::clone(file), Arc::clone(&self.pipeline));
                    under_way.push_back(pool.submit(move |room| {
                        let file = Content::Plain(file.try_clone()?);
                        part.read(Subject { log, file: &file, pipeline: &pipeline }, max_line, room)
                    }));
                }
                under_way.pop_front().map(|handle| pool.take(handle)?).transpose()
            }
            Source::Packed { state, under_way } => {
                let submit = |mut state: Box<Unpacking>, pool: &Pool| {
                    let pipeline = Arc::clone(&self.pipeline);
                    pool.submit(move |room| {
                        let segment = state.read(log, &pipeline, (len, until), room);
                        (state, segment)
                    })
                };
                let handle = match (under_way.take(), state.take()) {
                    (Some(handle), _) => handle,
                    (None, Some(first)) if !first.ended => submit(first, pool),
                    (None, left) => {
                        *state = left;
                        return Ok(None);
                    }
                };
                let (back, segment) = pool.take(handle)?;
                if back.ended || segment.is_err() {
                    *state = Some(back);
                } else {
                    *under_way = Some(submit(back, pool));
                }
                segment.map(Some)
            }
        }
    }

    /// The log's bytes again.
    ///
    /// # Errors
    /// Those of reading, where that is still under way.
    pub(super) fn into_bytes(self, pool: &mut Pool) -> io::Result<Bytes> {
        match self.source {
            Source::Plain { file, .. } => Ok(Bytes::Plain(file)),
            Source::Packed { state: Some(state), .. } => Ok(Bytes::Packed(state.file)),
            Source::Packed { under_way: Some(handle), .. } => Ok(Bytes::Packed(pool.take(handle)?.0.file)),
            Source::Packed { .. } => {
                Err(io::Error::other("an archive that was being read is gone; please report this"))
            }
        }
    }
}

/// A part of a plain log: the lines that begin in `start..end`.
struct Part {
    /// Where the whole stretch begins and ends.
    from: u64,
    until: u64,
    start: u64,
    end: u64,
}

impl Part {
    fn read(&self, subject: Subject<'_>, max_line: usize, room: &mut Room) -> io::Result<Segment> {
        let Room { bytes: buffer, scans, pieces: expected } = room;
        let mut pieces = Vec::with_capacity(*expected);
        let done = |pieces: Vec<Piece>, read_to| -> io::Result<Segment> {
            let tail = file::read_before(subject.file, read_to, MARK_MAX)?;
            Ok(Segment { pieces, read_to, tail, on_disk: self.end, damage: None })
        };
        let Some(first) = self.first_line(subject.file, buffer)? else { return done(pieces, self.start) };
        let recall = Recall::at(subject.file, &subject.pipeline.format, first)?;
        let mut scan = if self.start == self.from { Scan::begin(recall) } else { Scan::within(recall) };
        let mut cutter = Cutter::new(first, max_line);
        let mut stuck = false;
        while cutter.offset() < self.end {
            let at = cutter.wants();
            // What is searched and then parsed should stay in the processor's caches.
            let wanted = match stuck {
                false => self.end.saturating_sub(at).saturating_add(BEYOND).min(BLOCK as u64),
                true => (max_line as u64).saturating_add(2).max(BLOCK as u64),
            };
            let len = usize::try_from(wanted.min(self.until - at)).unwrap_or(usize::MAX);
            if buffer.len() < len {
                buffer.resize(len, 0);
            }
            let filled = file::read_at(subject.file, &mut buffer[..len], at)?;
            let mut bytes = &buffer[..filled];
            // What begins behind the part's end is another's.
            let last = usize::try_from(self.end.saturating_sub(at + 1)).unwrap_or(usize::MAX);
            let end = bytes.get(last..).and_then(|rest| memchr::memchr(b'\n', rest)).map(|end| last + end + 1);
            bytes = &bytes[..end.unwrap_or(filled)];
            let finish = end.is_none() && at + filled as u64 == self.until;
            scan_block(&mut scan, subject, &mut cutter, Block::new(bytes, scans, finish), &mut pieces)?;
            if filled == 0 || finish {
                break;
            }
            // A line that goes on behind what was read: the next time, as much as it may be long.
            stuck = cutter.wants() == at;
        }
        *expected = pieces.len();
        done(pieces, cutter.offset())
    }

    /// Where the first line begins that is this part's; `None`: none does.
    fn first_line(&self, log: &Content, buffer: &mut Vec<u8>) -> io::Result<Option<u64>> {
        const STEP: u64 = 4 * 1024;
        if self.start == self.from {
            return Ok(Some(self.start));
        }
        buffer.resize(buffer.len().max(STEP as usize), 0);
        let mut at = self.start - 1;
        while at + 1 < self.end {
            let len = (self.end - 1 - at).min(STEP) as usize;
            let filled = file::read_at(log, &mut buffer[..len], at)?;
            if let Some(newline) = memchr::memchr(b'\n', &buffer[..filled]) {
                return Ok(Some(at + newline as u64 + 1));
            }
            if filled == 0 {
                break;
            }
            at += filled as u64;
        }
        Ok(None)
    }
}

impl Unpacking {
    fn read(
        &mut self,
        log: LogId,
        pipeline: &Pipeline,
        (len, until): (u64, u64),
        room: &mut Room,
    ) -> io::Result<Segment> {
        let Self { file, cutter, scan, tail, before, ended } = self;
        let Room { bytes: buffer, scans, .. } = room;
        let scan = match scan {
            Some(scan) => scan,
            None => {
                let recall = Recall::at(file, &pipeline.format, cutter.offset())?;
                *before = file::read_before(file, cutter.offset(), MARK_MAX)?;
                tail.clone_from(before);
                scan.insert(Scan::begin(recall))
            }
        };
        let mut pieces = Vec::new();
        let at = cutter.wants();
        let room = len.max(cutter.max_line() as u64 + 2).min(until.saturating_sub(at));
        let len = usize::try_from(room).unwrap_or(usize::MAX);
        buffer.resize(buffer.len().max(len), 0);
        let filled = file::read_at(file, &mut buffer[..len], at)?;
        *ended = filled < len || at + filled as u64 >= until;
        let damage = file.damage().filter(|_| *ended);
        // What a damaged archive ends with may be half a line.
        let block = Block::new(&buffer[..filled], scans, *ended && damage.is_none());
        let subject = Subject { log, file, pipeline };
        scan_block(scan, subject, cutter, block, &mut pieces)?;
        scan.recall.at = cutter.offset();
        let read_to = cutter.offset();
        let came_by = |to: u64| &buffer[..usize::try_from(to.saturating_sub(at)).unwrap_or(filled).min(filled)];
        if read_to >= at {
            *tail = end_of(before, came_by(read_to));
        }
        *before = end_of(before, came_by(cutter.wants()));
        Ok(Segment { pieces, read_to, tail: tail.clone(), on_disk: file.on_disk().1, damage })
    }
}

/// The last bytes of two pieces that follow each other, as many as a mark is made of.
fn end_of(first: &[u8], second: &[u8]) -> Vec<u8> {
    let of_second = &second[second.len().saturating_sub(MARK_MAX)..];
    let of_first = &first[first.len().saturating_sub(MARK_MAX - of_second.len())..];
    [of_first, of_second].concat()
}

fn scan_block(
    scan: &mut Scan,
    subject: Subject<'_>,
    cutter: &mut Cutter,
    mut block: Block<'_>,
    pieces: &mut Vec<Piece>,
) -> io::Result<()> {
    // Of a line that no rule fits nothing is kept but that it was there.
    let counts_only = subject.pipeline.is_one_sites();
    while let Some(found) = scan.next(subject, cutter, &mut block)? {
        let passed = match &found {
            Found::Passed(lines) => Some(*lines),
            Found::Line(_, taken) => (counts_only && taken.outcome == Outcome::Unmatched).then_some(1),
        };
        if let Some(more) = passed {
            match pieces.last_mut() {
                Some(Piece::Passed { lines, end }) => (*lines, *end) = (*lines + more, cutter.offset()),
                _ => pieces.push(Piece::Passed { lines: more, end: cutter.offset() }),
            }
            continue;
        }
        let Found::Line(cut, taken) = found else { continue };
        let bytes = match (&taken.outcome, cut) {
            (Outcome::Unparsed, Cut::Line(line)) => line.bytes.into(),
            _ => Box::default(),
        };
        pieces.push(Piece::Line { span: cut.span(), taken, bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    use super::*;
    use crate::follow::archive;
    use crate::format::Format;
    use crate::rules::{Conditions, Extensions, Prefilter, Rule, Rules};

    /// The lines of each part, those that are passed over among them: where the last of each piece ends, what became of it,
    /// and how many there are.
    fn pieces(
        log: &[u8],
        parts: impl Iterator<Item = (u64, u64)>,
        max_line: usize,
        searched: bool,
    ) -> Vec<(u64, &'static str, u64)> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(log).unwrap();
        let file = Content::Plain(file);
        let mut pipeline = Pipeline::new(Format::builtin("combined", &TimeZone::UTC).unwrap(), Vec::new());
        let extensions = Some(Extensions::new(&["pdf".to_owned()]));
        let rule = Rule {
            event: Some("download".into()),
            conditions: Conditions { extensions, ..Conditions::default() },
            url: None,
            properties: Vec::new(),
            repeat_window: None,
        };
        pipeline.prefilter = Prefilter::new(&Rules(vec![rule])).filter(|_| searched);
        let subject = Subject { log: LogId(1), file: &file, pipeline: &pipeline };
        let mut room = Room::default();
        let mut all = Vec::new();
        for (start, end) in parts {
            let part = Part { from: 0, until: log.len() as u64, start, end };
            all.extend(part.read(subject, max_line, &mut room).unwrap().pieces.into_iter().map(|piece| match piece {
                Piece::Line { span, taken, .. } => (span.end, taken.outcome.name(), 1),
                Piece::Passed { lines, end } => (end, "passed", lines),
            }));
        }
        all
    }

    #[test]
    fn an_archive_with_a_line_without_end_is_read_once_from_its_beginning_to_its_end() {
        let line = b"192.0.2.7 - - [10/Nov/2026:10:00:00 +0000] \"GET /a.pdf HTTP/1.1\" 200 5 \"-\" \"Mozilla/5.0\"\n";
        // Letters that can't be packed well, and many times what is kept of them.
        let mut seed = 1_u32;
        let letters = (0..12 * 1024 * 1024).map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b'a' + (seed >> 24) as u8 % 26
        });
        let log: Vec<u8> = line.iter().copied().chain(letters).chain(*b"\n").chain(line.repeat(3)).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&zstd::encode_all(&log[..], 1).unwrap()).unwrap();
        let bytes = Bytes::of(Content::of(file).unwrap());
        let pipeline = Arc::new(Pipeline::new(Format::builtin("combined", &TimeZone::UTC).unwrap(), Vec::new()));
        let mut pool = Pool::new(1, false).unwrap();
        let mut stretch = Stretch::new(bytes, (0, archive::UNKNOWN), LogId(1), pipeline, 1_000);
        let (mut spans, mut on_disk) = (Vec::new(), Vec::new());
        while let Some(segment) = stretch.next(&mut pool).unwrap() {
            let read_to = segment.read_to as usize;
            assert!(segment.tail == log[read_to.saturating_sub(MARK_MAX)..read_to], "the mark at {read_to}");
            spans.extend(segment.pieces.iter().map(Piece::end));
            on_disk.push(segment.on_disk);
        }
        let ends = memchr::memchr_iter(b'\n', &log).map(|at| at as u64 + 1);
        assert_eq!(spans, ends.collect::<Vec<_>>());
        assert!(on_disk.len() > 20 && on_disk.is_sorted(), "went back: {on_disk:?}");
    }

    proptest! {
        /// However a log is divided, each line is in one part: over-long lines, NULs and a missing last newline included.
        #[test]
        fn parts_of_a_log_together_hold_each_line_once(
            lines in proptest::collection::vec((0_usize..60, 0_usize..4, any::<bool>()), 0..40),
            newline in any::<bool>(),
            part in 1_u64..200,
        ) {
            let mut log = Vec::new();
            for (len, nuls, candidate) in lines {
                log.extend(std::iter::repeat_n(0_u8, nuls * 7));
                log.extend(std::iter::repeat_n(b'x', len));
                log.extend_from_slice(if candidate { b".pdf" } else { b"" });
                log.push(b'\n');
            }
            if !newline {
                log.pop();
            }
            let len = log.len() as u64;
            let starts = (0..len).step_by(part as usize);
            let parts: Vec<_> = starts.map(|start| (start, (start + part).min(len))).collect();
            let whole = pieces(&log, std::iter::once((0, len)), 40, false);
            prop_assert_eq!(&pieces(&log, parts.iter().copied(), 40, false), &whole);
            // Where they are searched, too; what is passed over is only counted.
            let searched = pieces(&log, parts.into_iter(), 40, true);
            prop_assert_eq!(searched.iter().map(|(_, _, lines)| lines).sum::<u64>(), whole.len() as u64);
            let mut ends = searched.iter().map(|(end, _, _)| *end);
            prop_assert!(ends.clone().is_sorted() && ends.all(|end| whole.iter().any(|(known, _, _)| *known == end)));
        }
    }
}
