//! Cuts the bytes of a log into lines and says where each line ends in the log. Pure.
//!
//! A last line without its newline waits for more bytes: the web server may be half-way through writing it.
//! A line longer than the bound is let go while it is read, and counted once at its newline.
//!
//! NULs before a line are let go, however many: a power cut leaves them where the data never reached the disk, and a
//! server that doesn't append leaves a hole when its log is truncated. The next line stands right behind them.

use crate::offsets::Span;

/// One complete line, without its newline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The line's bytes.
    pub bytes: &'a [u8],
    /// Where they stand in the log, newline included.
    pub span: Span,
}

/// What the cutter takes off the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut<'a> {
    /// A line within the bound.
    Line(Line<'a>),
    /// A line that was longer than the bound; its bytes are gone.
    TooLong(Span),
}

impl Cut<'_> {
    /// Where the line stands in the log.
    pub fn span(&self) -> Span {
        match self {
            Cut::Line(line) => line.span,
            Cut::TooLong(span) => *span,
        }
    }
}

/// Where the reading of one log stands. A few words: the bytes of an unfinished line stay in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutter {
    /// Offset of the first byte of the unfinished line.
    start: u64,
    /// Bytes that were already let go: NULs before the unfinished line, and what there is of it where it is over-long.
    gone: u64,
    max_line: u32,
    /// It is over-long.
    is_long: bool,
}

impl Cutter {
    /// Begins at a line's start; `max_line` is in bytes, without the newline.
    pub fn new(offset: u64, max_line: usize) -> Self {
        Self { start: offset, gone: 0, max_line: u32::try_from(max_line).unwrap_or(u32::MAX), is_long: false }
    }

    /// The bound on a line, in bytes.
    pub fn max_line(&self) -> usize {
        self.max_line as usize
    }

    /// Offset of the unfinished line: all before it has been given out.
    pub fn offset(&self) -> u64 {
        self.start
    }

    /// Offset at which the bytes for [`Cutter::next_line`] must begin.
    pub fn wants(&self) -> u64 {
        self.start.saturating_add(self.gone)
    }

    /// Takes the next line off `bytes`, which begin at [`Cutter::wants`].
    ///
    /// `None`: no newline yet. What is then left in `bytes` must be shown again with more behind it.
    pub fn next_line<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Cut<'a>> {
        if !self.is_long && bytes.first() == Some(&0) {
            let nuls = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
            self.gone += nuls as u64;
            *bytes = &bytes[nuls..];
        }
        match memchr::memchr(b'\n', bytes) {
            Some(at) => {
                let (line, rest) = (&bytes[..at], &bytes[at + 1..]);
                *bytes = rest;
                Some(self.cut(line, at as u64 + 1))
            }
            None => {
                if self.is_long || bytes.len() > self.max_line() {
                    self.is_long = true;
                    self.gone += bytes.len() as u64;
                    *bytes = &[];
                }
                None
            }
        }
    }

    /// Takes a line whose end is known: it isn't longer than the bound and doesn't begin with a NUL, and its newline follows. It
    /// begins at [`Cutter::wants`], outside a long line.
    pub fn whole_line<'a>(&mut self, line: &'a [u8]) -> Line<'a> {
        Line { bytes: line, span: self.span(line.len() as u64 + 1) }
    }

    /// Whether the next bytes go on with a line whose beginning was let go.
    pub fn is_inside_a_long_line(&self) -> bool {
        self.is_long
    }

    /// Passes over whole lines, none of them longer than the bound. They begin at [`Cutter::wants`], outside a long line.
    pub fn pass(&mut self, whole_lines: &[u8]) {
        // NUL bytes that were let go belong to the first of them.
        self.start = self.wants() + whole_lines.len() as u64;
        self.gone = 0;
    }

    /// Takes the last line, which has no newline: for archives and for files that nobody writes any more.
    pub fn last_line<'a>(&mut self, bytes: &'a [u8]) -> Option<Cut<'a>> {
        (self.is_long || !bytes.is_empty()).then(|| self.cut(bytes, bytes.len() as u64))
    }

    fn cut<'a>(&mut self, line: &'a [u8], consumed: u64) -> Cut<'a> {
        let too_long = self.is_long || line.len() > self.max_line();
        let span = self.span(consumed);
        if too_long { Cut::TooLong(span) } else { Cut::Line(Line { bytes: line, span }) }
    }

    /// Where the line stands that ends so many bytes on; the next one begins there.
    fn span(&mut self, consumed: u64) -> Span {
        let span = Span { start: self.start, end: self.wants() + consumed };
        self.start = span.end;
        (self.gone, self.is_long) = (0, false);
        span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_passed_over_take_the_nuls_before_them_along() {
        let mut cutter = Cutter::new(7, 100);
        assert_eq!(cutter.next_line(&mut &b"\0\0\0"[..]), None);
        assert_eq!((cutter.offset(), cutter.wants()), (7, 10));
        cutter.pass(b"one\ntwo\n");
        assert_eq!((cutter.offset(), cutter.wants()), (18, 18));
    }

    /// Cuts `log`, which arrives in pieces of `size` bytes; the unfinished rest is shown again, as a file would.
    fn cut_all(log: &[u8], size: usize, max_line: usize) -> Vec<(Option<Vec<u8>>, Span)> {
        let mut cutter = Cutter::new(0, max_line);
        let mut cuts = Vec::new();
        let mut arrived = 0;
        while arrived < log.len() {
            arrived = (arrived + size).min(log.len());
            let mut bytes = &log[cutter.wants() as usize..arrived];
            while let Some(cut) = cutter.next_line(&mut bytes) {
                cuts.push(match cut {
                    Cut::Line(line) => (Some(line.bytes.to_vec()), line.span),
                    Cut::TooLong(span) => (None, span),
                });
            }
        }
        cuts
    }

    #[test]
    fn lines_do_not_depend_on_how_the_bytes_arrive() {
        let log = b"first\n\nthis line is longer than the bound\nsecond\r\nthe last has no newline";
        let want = cut_all(log, log.len(), 10);
        assert_eq!(want.len(), 4);
        assert_eq!(want[2], (None, Span { start: 7, end: 42 }));
        assert_eq!(want[3], (Some(b"second\r".to_vec()), Span { start: 42, end: 50 }));
        for size in 1..=log.len() {
            assert_eq!(cut_all(log, size, 10), want, "chunks of {size} bytes");
        }
    }

    #[test]
    fn nuls_before_a_line_are_no_part_of_it_however_many() {
        let log = [&b"first\n"[..], &[0; 40], b"second\nthi\0rd\n", &[0; 7], b"\n", &[0; 5]].concat();
        let want = cut_all(&log, log.len(), 10);
        let lines: Vec<_> = want.iter().map(|(line, _)| line.as_deref().unwrap()).collect();
        assert_eq!(lines, [&b"first"[..], b"second", b"thi\0rd", b""]);
        assert_eq!(want[1].1, Span { start: 6, end: 53 });
        for size in 1..=log.len() {
            assert_eq!(cut_all(&log, size, 10), want, "chunks of {size} bytes");
        }
        let mut cutter = Cutter::new(0, 10);
        let mut bytes: &[u8] = &[0; 5];
        assert_eq!(cutter.next_line(&mut bytes), None);
        assert_eq!((cutter.last_line(bytes), cutter.offset(), cutter.wants()), (None, 0, 5), "NULs alone are no line");
    }

    #[test]
    fn the_last_line_is_taken_only_when_asked_for() {
        let mut cutter = Cutter::new(100, 10);
        let mut bytes: &[u8] = b"end";
        assert_eq!(cutter.next_line(&mut bytes), None);
        assert_eq!(bytes, b"end");
        let Some(Cut::Line(line)) = cutter.last_line(bytes) else { panic!("no line") };
        assert_eq!((line.bytes, line.span), (&b"end"[..], Span { start: 100, end: 103 }));
        assert_eq!(cutter.last_line(b""), None);
    }
}
