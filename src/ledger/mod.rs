//! What is settled and what is open: a value with laws. Its storage is the `store`.
//!
//! In: what was read of a log for one site ([`Advance`]), and what was settled. Out: the watermark (the offset before
//! which everything is settled), and the counts and repeat-window entries of the lines below it. Settling and advancing
//! commute: a settlement may arrive before the advance that opens its line.

mod ends;
mod fingerprint;
pub mod outline;
mod recent;
mod rejected;
mod store;

use std::collections::{BTreeSet, VecDeque};
use std::ops::AddAssign;

pub use fingerprint::{Fingerprint, HEAD_MAX, Head, MARK_MAX, Mark};
pub use rejected::{Rejected, Rejection};
pub use store::{
    Begun, Committed, Ledger, LedgerError, LedgerReader, LogRow, Position, Range, Role, SiteTotal, StatusRow, Waking,
    hurry,
};

use crate::offsets::{LogId, SiteId, Span};
use crate::visitor::repeats::Touch;

/// Lines by their fate. `lines` is the sum of the others.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the fates: see `pipeline::Outcome`")]
pub struct Counts {
    pub lines: u64,
    pub too_long: u64,
    pub unparsed: u64,
    pub unmatched: u64,
    pub excluded: u64,
    pub bot: u64,
    pub repeat: u64,
    pub event: u64,
}

impl Counts {
    /// The counts in the order of their fields.
    pub fn values(&self) -> [u64; 8] {
        let Self { lines, too_long, unparsed, unmatched, excluded, bot, repeat, event } = *self;
        [lines, too_long, unparsed, unmatched, excluded, bot, repeat, event]
    }

    /// The reverse of [`Counts::values`].
    pub fn from_values([lines, too_long, unparsed, unmatched, excluded, bot, repeat, event]: [u64; 8]) -> Self {
        Self { lines, too_long, unparsed, unmatched, excluded, bot, repeat, event }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let mut sums = self.values();
        for (sum, more) in sums.iter_mut().zip(other.values()) {
            *sum += more;
        }
        *self = Self::from_values(sums);
    }
}

/// An event's line, or the lines between two events.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Step {
    /// The fates of these lines.
    pub counts: Counts,
    /// The event's line, which now waits to be settled; `None`: lines that wait for nothing.
    pub open: Option<Span>,
    /// The repeat window's entries after these lines.
    pub touches: Vec<Touch>,
}

/// What was read of a log for one site.
#[derive(Debug, Clone, PartialEq)]
pub struct Advance {
    /// Whose lines; `None`: those that can't be given to a site.
    pub site: Option<SiteId>,
    /// Of which log.
    pub log: LogId,
    /// All lines before this offset have been read.
    pub read_to: u64,
    /// In log order.
    pub steps: Vec<Step>,
}

/// How far one site's reading of one log has come.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    read_to: u64,
    steps: VecDeque<Step>,
    /// Ends of settled lines above the watermark.
    settled: BTreeSet<u64>,
    released: Step,
}

impl Progress {
    /// Goes on from a watermark; `settled` are the ends of lines above it that an earlier run has settled.
    pub fn resume(watermark: u64, settled: impl IntoIterator<Item = u64>) -> Self {
        Self { read_to: watermark, settled: settled.into_iter().collect(), ..Self::default() }
    }

    /// Takes what was read.
    pub fn advance(&mut self, advance: Advance) {
        let Advance { read_to, steps, .. } = advance;
        for step in steps {
            match self.steps.back_mut() {
                // Stretches without an event are one, however they came.
                Some(last) if last.open.is_none() && step.open.is_none() => {
                    last.counts += step.counts;
                    last.touches.extend(step.touches);
                }
                _ => self.steps.push_back(step),
            }
        }
        self.read_to = self.read_to.max(read_to);
        self.release();
    }

    /// The line that ends here is delivered or rejected.
    pub fn settle(&mut self, end: u64) {
        self.settled.insert(end);
        self.release();
    }

    /// The offset before which everything is settled.
    pub fn watermark(&self) -> u64 {
        self.steps.front().and_then(|step| step.open).map_or(self.read_to, |line| line.start)
    }

    /// Whether the line that ends here was settled.
    pub fn is_settled(&self, end: u64) -> bool {
        end <= self.watermark() || self.settled.contains(&end)
    }

    /// Ends of settled lines above the watermark.
    pub fn settled_above(&self) -> impl Iterator<Item = u64> + '_ {
        self.settled.iter().copied()
    }

    /// Events that are read and not settled.
    pub fn open(&self) -> usize {
        self.steps.iter().filter_map(|step| step.open).filter(|line| !self.settled.contains(&line.end)).count()
    }

    /// Whether all that was read is settled, and nothing else.
    pub fn has_nothing_open(&self) -> bool {
        self.steps.is_empty() && self.settled.is_empty()
    }

    /// The counts and window entries of the lines that have fallen below the watermark since the last call.
    pub fn take_released(&mut self) -> (Counts, Vec<Touch>) {
        let Step { counts, touches, .. } = std::mem::take(&mut self.released);
        (counts, touches)
    }

    /// Forgets what was read above the watermark, and keeps what is settled there.
    pub fn rewind(&mut self) {
        self.read_to = self.watermark();
        self.steps.clear();
    }

    fn release(&mut self) {
        while let Some(step) = self.steps.front() {
            if step.open.is_some_and(|line| !self.settled.contains(&line.end)) {
                break;
            }
            let Some(step) = self.steps.pop_front() else { break };
            self.released.counts += step.counts;
            self.released.touches.extend(step.touches);
        }
        let watermark = self.watermark();
        self.settled = self.settled.split_off(&(watermark + 1));
    }
}

/// The parts of `stretches` that lie within `from..until`.
pub fn overlaps(stretches: &[(u64, u64)], from: u64, until: u64) -> impl Iterator<Item = (u64, u64)> {
    let part = move |(start, end): &(u64, u64)| ((*start).max(from), (*end).min(until));
    stretches.iter().map(part).filter(|(start, end)| start < end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: u64 = 10;

    fn advance(from: u64, events: &[bool]) -> Advance {
        let mut steps = Vec::new();
        for (index, is_event) in events.iter().enumerate() {
            let start = (from + index as u64) * LINE;
            let mut step = Step { counts: Counts { lines: 1, ..Counts::default() }, ..Step::default() };
            if *is_event {
                step.counts.event += 1;
                step.open = Some(Span { start, end: start + LINE });
            } else {
                step.counts.unmatched += 1;
            }
            steps.push(step);
        }
        let read_to = (from + events.len() as u64) * LINE;
        Advance { site: Some(SiteId(1)), log: LogId(1), read_to, steps }
    }

    proptest! {
        /// Whatever is read in whatever pieces, settled in whatever order, cut off and resumed wherever: each event is
        /// settled once, each line is counted once, and the watermark is the first open line's start.
        #[test]
        fn nothing_is_lost_or_counted_twice(
            lines in proptest::collection::vec(any::<bool>(), 1..40),
            actions in proptest::collection::vec((0_u8..4, any::<prop::sample::Index>()), 1..120),
        ) {
            let mut progress = Progress::resume(0, []);
            let mut stored = Counts::default();
            let mut read = 0;
            let mut sent: Vec<u32> = vec![0; lines.len()];
            let mut flying: Vec<usize> = Vec::new();
            for (action, pick) in actions {
                match action {
                    0 => {
                        let to = read + pick.index(lines.len() - read + 1);
                        for line in (read..to).filter(|line| lines[*line]) {
                            if !progress.is_settled((line as u64 + 1) * LINE) {
                                flying.push(line);
                            }
                        }
                        progress.advance(advance(read as u64, &lines[read..to]));
                        read = to;
                    }
                    1 if !flying.is_empty() => {
                        let line = flying.swap_remove(pick.index(flying.len()));
                        sent[line] += 1;
                        progress.settle((line as u64 + 1) * LINE);
                    }
                    2 => {
                        let settled: Vec<u64> = progress.settled_above().collect();
                        progress = Progress::resume(progress.watermark(), settled);
                        read = (progress.watermark() / LINE) as usize;
                        flying.clear();
                    }
                    3 => {
                        progress.rewind();
                        read = (progress.watermark() / LINE) as usize;
                        flying.clear();
                    }
                    _ => {}
                }
                stored += progress.take_released().0;
                let first_open = (0..read).find(|line| lines[*line] && sent[*line] == 0).unwrap_or(read);
                prop_assert_eq!(progress.watermark(), first_open as u64 * LINE);
                prop_assert_eq!(stored.lines, first_open as u64);
                prop_assert!(sent.iter().all(|times| *times <= 1));
            }
        }

        /// A settlement may be heard of before the line is.
        #[test]
        fn settling_and_advancing_commute(lines in proptest::collection::vec(any::<bool>(), 1..20), which in any::<prop::sample::Index>()) {
            let end = (which.index(lines.len()) as u64 + 1) * LINE;
            let mut one = Progress::resume(0, []);
            one.settle(end);
            one.advance(advance(0, &lines));
            let mut other = Progress::resume(0, []);
            other.advance(advance(0, &lines));
            other.settle(end);
            prop_assert_eq!(one.watermark(), other.watermark());
            prop_assert_eq!(one.take_released(), other.take_released());
        }
    }
}
