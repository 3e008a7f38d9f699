//! Goes through a log's bytes: line by line, or, where the rules allow it, by searching whole blocks and looking only at
//! the lines that may become events. What it finds is judged but for the one question that depends on other lines.

use std::io;

use super::archive::Content;
use super::file;
use crate::entry::{Entry, Known};
use crate::format::{Format, Glimpse, Quoted, Quotes, Reading};
use crate::lines::{Cut, Cutter, Line};
use crate::offsets::LogId;
use crate::pipeline::{Pipeline, Taken};
use crate::rules::{Finds, Prefilter};

/// How far back, at most, a reading looks for the line that says which of two hours of the same name it is in.
const LOOK_BACK: u64 = 16 * 1024 * 1024;

/// Lines at a log's beginning that are all parsed: a wrong format must not hide behind the search.
pub const PARSED_FIRST: u32 = 100;
/// Of the lines that are passed over unread, one in so many is parsed all the same.
pub const SAMPLED: u32 = if cfg!(test) { 7 } else { 1_024 };

/// What is remembered of a log's lines up to an offset.
#[derive(Debug, Default)]
pub struct Recall {
    /// The offset.
    pub at: u64,
    /// For the line at that offset.
    pub reading: Reading,
}

/// A reading that knows what the lines before `at` say of those after them.
///
/// # Errors
/// Those of reading the file.
pub fn directives_before(file: &Content, format: &Format, at: u64) -> io::Result<Reading> {
    let mut reading = Reading::default();
    for directive in format.directives() {
        if let Some(line) = file::last_line_beginning(file, directive, at)? {
            format.parse_in(&mut reading, &line);
        }
    }
    Ok(reading)
}

impl Recall {
    /// What a reading that begins at `at` must know of the lines before.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn at(file: &Content, format: &Format, at: u64) -> io::Result<Recall> {
        let mut reading = directives_before(file, format, at)?;
        if at == 0 {
            return Ok(Recall { at, reading });
        }
        // Whether the hour is one that the clocks repeat is asked of the last line; which of the two it is, of the
        // lines before that hour.
        let mut len = 4 * 1024;
        loop {
            let before = file::read_before(file, at, len)?;
            let whole_file = before.len() as u64 == at;
            let start = if whole_file { 0 } else { memchr::memchr(b'\n', &before).map_or(before.len(), |end| end + 1) };
            let lines = || before[start..].split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
            // A time that says its offset needs no line before it.
            let last = lines().next_back().and_then(|line| format.parse(line));
            if let Some(entry) = last.filter(|entry| entry.offset.is_some() && entry.time.is_some()) {
                reading.time = entry.time;
                return Ok(Recall { at, reading });
            }
            let last_decides = lines().next_back().is_none_or(|line| !format.is_ambiguous(line));
            let first_decides = lines().next().is_some_and(|line| !format.is_ambiguous(line));
            let enough = last_decides || first_decides || whole_file || len as u64 >= LOOK_BACK;
            if enough {
                // Directives among them are those found above, or older.
                for line in lines().filter(|line| !format.is_directive(line)) {
                    format.parse_in(&mut reading, line);
                }
                return Ok(Recall { at, reading });
            }
            len *= 16;
        }
    }
}

/// What a scan comes to next.
#[derive(Debug)]
pub enum Found<'b> {
    /// So many whole lines that can't become events. They are the only site's, since it takes every host.
    Passed(u64),
    /// A line, and its fate but for whether it is a repeat.
    Line(Cut<'b>, Taken),
}

/// Room for scans to work in, used for one block after the other.
#[derive(Debug, Default)]
pub struct Room {
    /// What was found where a block was searched.
    finds: Finds,
    /// What is told by where the quotes are, and remembered from one glance to the next.
    quotes: Quotes,
    glimpse: Glimpse,
}

/// Bytes of a log on their way through a scan.
#[derive(Debug)]
pub struct Block<'b> {
    bytes: &'b [u8],
    /// What has been taken of them.
    at: usize,
    room: &'b mut Room,
    /// Where its whole lines begin and end, once they have been searched.
    searched: Option<(usize, usize)>,
    /// How many of the candidates lie behind.
    behind: usize,
    /// Whether the last line counts though it has no newline.
    finish: bool,
    /// All of it as text, if it is, once somebody has asked.
    text: Option<Option<&'b str>>,
}

impl<'b> Block<'b> {
    /// Bytes that begin where the cutter wants them to.
    pub fn new(bytes: &'b [u8], room: &'b mut Room, finish: bool) -> Self {
        room.quotes.forget();
        room.glimpse.forget();
        Self { bytes, at: 0, room, searched: None, behind: 0, finish, text: None }
    }

    /// The next candidate from where it stands, or else the end of the whole lines; `None`: there are none left.
    fn find(&mut self, prefilter: &Prefilter) -> Option<(usize, usize)> {
        let (first, whole) = match self.searched {
            Some(searched) => searched,
            None => {
                // All at once: what searches stays in the processor's caches, and then what parses does.
                let whole = memchr::memrchr(b'\n', &self.bytes[self.at..]).map_or(self.at, |end| self.at + end + 1);
                prefilter.find(&self.bytes[self.at..whole], &mut self.room.finds);
                *self.searched.insert((self.at, whole))
            }
        };
        if self.at >= whole {
            return None;
        }
        let candidates = &self.room.finds.candidates;
        while candidates.get(self.behind).is_some_and(|(_, end)| first + end <= self.at) {
            self.behind += 1;
        }
        Some(candidates.get(self.behind).map_or((whole, whole), |(start, end)| (first + start, first + end)))
    }

    /// How many lines end between where it stands and `to`, which were searched.
    fn lines_until(&self, to: usize) -> u64 {
        let (first, whole) = self.searched.unwrap_or_default();
        self.room.finds.lines_within(&self.bytes[first..whole], self.at - first, to - first)
    }
}

/// The state of a scan between two blocks.
#[derive(Debug)]
pub struct Scan {
    /// What the lines before say of the next one.
    pub recall: Recall,
    /// Lines parsed since it began.
    parsed: u32,
    /// Whether lines were passed over since the last that was parsed.
    gap: bool,
    /// Lines that are passed over unread before one is parsed all the same.
    until_sample: u32,
}

impl Default for Scan {
    fn default() -> Self {
        Self { recall: Recall::default(), parsed: 0, gap: false, until_sample: SAMPLED }
    }
}

/// What a scan needs to know of its log.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'s> {
    /// The log.
    pub log: LogId,
    /// Its bytes, for what lies before the block.
    pub file: &'s Content,
    /// Its way.
    pub pipeline: &'s Pipeline,
}

impl Scan {
    /// A scan that parses its first lines in any case.
    pub fn begin(recall: Recall) -> Self {
        Self { recall, ..Self::default() }
    }

    /// A scan that goes on where another has begun.
    pub fn within(recall: Recall) -> Self {
        Self { recall, parsed: PARSED_FIRST, ..Self::default() }
    }

    /// The next thing in a block; `None`: it holds no more whole line.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn next<'b>(
        &mut self,
        subject: Subject<'_>,
        cutter: &mut Cutter,
        block: &mut Block<'b>,
    ) -> io::Result<Option<Found<'b>>> {
        let may_pass = self.parsed >= PARSED_FIRST && !cutter.is_inside_a_long_line();
        if may_pass && subject.pipeline.glances {
            let (bytes, lines) = self.glance_over(subject.pipeline, block, cutter.max_line());
            if lines > 0 {
                cutter.pass(&block.bytes[block.at..block.at + bytes]);
                block.at += bytes;
                self.gap = true;
                return Ok(Some(Found::Passed(lines)));
            }
        }
        let prefilter = subject.pipeline.prefilter.as_ref().filter(|_| may_pass);
        if prefilter.is_none()
            && let Some(found) = self.next_plain(subject, cutter, block)?
        {
            return Ok(Some(found));
        }
        let mut end = block.bytes.len();
        if let Some(prefilter) = prefilter
            && let Some((start, candidate_end)) = block.find(prefilter)
        {
            if block.at < start {
                let count = block.lines_until(start);
                let (bytes, lines) = self.passable(&block.bytes[block.at..start], count, cutter.max_line());
                if lines > 0 {
                    cutter.pass(&block.bytes[block.at..block.at + bytes]);
                    block.at += bytes;
                    self.gap = true;
                    return Ok(Some(Found::Passed(lines)));
                }
            }
            // Lines too long, and the sample, are taken one by one; then comes the candidate.
            end = candidate_end;
        }
        let mut rest = &block.bytes[block.at..end];
        let cut = match cutter.next_line(&mut rest) {
            Some(cut) => Some(cut),
            None if block.finish => cutter.last_line(std::mem::take(&mut rest)),
            None => None,
        };
        block.at = end - rest.len();
        let Some(cut) = cut else { return Ok(None) };
        self.parsed = self.parsed.saturating_add(1);
        let gap = std::mem::take(&mut self.gap);
        let taken = match cut {
            Cut::Line(line) => self.judge(subject, line, None, gap)?,
            Cut::TooLong(_) => subject.pipeline.judge(cut, subject.log, &mut self.recall.reading),
        };
        Ok(Some(Found::Line(cut, taken)))
    }

    /// The next line, if it can be read by where its quotes are.
    fn next_plain<'b>(
        &mut self,
        subject: Subject<'_>,
        cutter: &mut Cutter,
        block: &mut Block<'b>,
    ) -> io::Result<Option<Found<'b>>> {
        let format = &subject.pipeline.format;
        if !format.is_told_by_quotes() || cutter.is_inside_a_long_line() {
            return Ok(None);
        }
        let marks = subject.pipeline.marks;
        let Some((quoted, end)) = block.room.quotes.of_line(block.bytes, block.at, marks) else { return Ok(None) };
        let (bytes, all) = (&block.bytes[block.at..end], block.bytes);
        let text = block.text.get_or_insert_with(|| std::str::from_utf8(all).ok());
        let known = Known { text: text.and_then(|text| text.get(block.at..end)), is_clean: marks.clean };
        // NULs before a line are none of it.
        if bytes.len() > cutter.max_line() || bytes.first() == Some(&0) {
            return Ok(None);
        }
        block.at = end + 1;
        let line = cutter.whole_line(bytes);
        self.parsed = self.parsed.saturating_add(1);
        let gap = std::mem::take(&mut self.gap);
        let taken = self.judge(subject, line, Some((quoted, known)), gap)?;
        block.room.quotes.go_on_behind(marks.quotes);
        Ok(Some(Found::Line(Cut::Line(line), taken)))
    }

    /// After a gap: of the two hours that the clocks call the same, the lines that were passed over tell which it is.
    fn judge<'b>(
        &mut self,
        subject: Subject<'_>,
        line: Line<'b>,
        quotes: Option<(Quoted<'_>, Known<'b>)>,
        gap: bool,
    ) -> io::Result<Taken> {
        let format = &subject.pipeline.format;
        let mut entry = Entry::default();
        let reading = &mut self.recall.reading;
        let mut fits = false;
        if let Some((quotes, known)) = quotes {
            entry.line = known;
            fits = format.parse_plain(reading, line.bytes, quotes, &mut entry);
        }
        if !fits {
            entry = Entry::default();
            fits = format.parse_into(reading, line.bytes, &mut entry);
        }
        if gap && fits && entry.offset.is_none() && format.is_ambiguous(line.bytes) {
            self.recall = Recall::at(subject.file, format, line.span.start)?;
            entry = Entry::default();
            fits = format.parse_into(&mut self.recall.reading, line.bytes, &mut entry);
        }
        Ok(subject.pipeline.judge_parsed(fits.then_some(&entry), line, subject.log))
    }

    /// How much can be passed over after a glance at each line, up to one that must be read: bytes and lines. Only time,
    /// request and status are looked at, so that a line in a thousand has to show whether lines still fit.
    fn glance_over(&mut self, pipeline: &Pipeline, block: &mut Block<'_>, max_line: usize) -> (usize, u64) {
        let mut passed = (0, 0);
        if self.until_sample <= 1 {
            self.until_sample = SAMPLED;
            return passed;
        }
        let Room { quotes, glimpse, .. } = &mut *block.room;
        let marks = pipeline.marks;
        while self.until_sample > 1 {
            let at = block.at + passed.0;
            let Some((quoted, end)) = quotes.of_line(block.bytes, at, marks) else { break };
            let line = &block.bytes[at..end];
            // NULs before a line are none of it.
            if line.len() > max_line || line.first() == Some(&0) || !pipeline.passes(line, quoted, glimpse) {
                break;
            }
            quotes.go_on_behind(marks.quotes);
            passed = (passed.0 + line.len() + 1, passed.1 + 1);
            self.until_sample -= 1;
        }
        passed
    }

    /// How much of so many whole lines can be passed over, up to one that must be looked at all the same: bytes and lines.
    fn passable(&mut self, lines: &[u8], count: u64, max_line: usize) -> (usize, u64) {
        if lines.len() <= max_line && count < u64::from(self.until_sample) {
            self.until_sample -= count as u32;
            return (lines.len(), count);
        }
        // A line too long ends it, and so does the one that is due to be parsed.
        let mut passed = (0, 0);
        for end in memchr::memchr_iter(b'\n', lines) {
            if end - passed.0 > max_line || passed.1 + 1 >= u64::from(self.until_sample) {
                break;
            }
            passed = (end + 1, passed.1 + 1);
        }
        self.until_sample = if passed.0 == lines.len() { self.until_sample - passed.1 as u32 } else { SAMPLED };
        passed
    }
}
