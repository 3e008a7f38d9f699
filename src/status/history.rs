//! What happened in each minute of the last hours, for the status page's plots. Bounded; pure: the minute is given.

use std::collections::VecDeque;

/// Minutes that are remembered.
pub const MINUTES: usize = 360;

/// One minute.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Minute {
    /// Lines read.
    pub lines: u64,
    /// Events made of them.
    pub events: u64,
    /// Events delivered.
    pub delivered: u64,
}

/// The minutes up to the newest in which something happened.
#[derive(Debug, Default)]
pub struct History {
    newest: i64,
    minutes: VecDeque<Minute>,
}

impl History {
    /// The minute to count in; `now` is in minutes since 1970. A clock that is set back goes on counting in the newest.
    pub fn at(&mut self, now: i64) -> &mut Minute {
        if self.minutes.is_empty() {
            self.newest = now;
            self.minutes.push_back(Minute::default());
        }
        let ahead = usize::try_from(now - self.newest).unwrap_or(0).min(MINUTES);
        self.minutes.extend(std::iter::repeat_n(Minute::default(), ahead));
        self.newest = self.newest.max(now);
        let surplus = self.minutes.len().saturating_sub(MINUTES);
        self.minutes.drain(..surplus);
        let last = self.minutes.len() - 1;
        &mut self.minutes[last]
    }

    /// The last [`MINUTES`] up to `now`, oldest first.
    pub fn last(&self, now: i64) -> Vec<Minute> {
        let quiet = usize::try_from(now - self.newest).unwrap_or(0).min(MINUTES);
        let mut all: Vec<Minute> = self.minutes.iter().copied().collect();
        all.extend(std::iter::repeat_n(Minute::default(), quiet));
        let before = MINUTES.saturating_sub(all.len());
        let mut last = vec![Minute::default(); before];
        last.extend(all.drain(all.len().saturating_sub(MINUTES)..));
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(history: &History, now: i64) -> Vec<(usize, u64)> {
        let last = history.last(now);
        assert_eq!(last.len(), MINUTES);
        last.iter().enumerate().filter(|(_, minute)| minute.lines > 0).map(|(at, minute)| (at, minute.lines)).collect()
    }

    #[test]
    fn minutes_are_counted_where_they_belong_and_forgotten_after_hours() {
        let mut history = History::default();
        assert_eq!(lines(&history, 1_000), []);
        for (minute, count) in [(1_000, 1), (1_000, 2), (1_005, 4), (1_003, 8)] {
            history.at(minute).lines += count;
        }
        assert_eq!(lines(&history, 1_005), [(MINUTES - 6, 3), (MINUTES - 1, 12)], "a clock set back goes on");
        assert_eq!(lines(&history, 1_010), [(MINUTES - 11, 3), (MINUTES - 6, 12)], "quiet minutes show");
        assert_eq!(lines(&history, 1_004 + MINUTES as i64), [(0, 12)]);
        assert_eq!(lines(&history, 1_005 + MINUTES as i64), []);
        history.at(10_000_000).lines += 1;
        assert_eq!(lines(&history, 10_000_000), [(MINUTES - 1, 1)]);
        assert_eq!(history.minutes.len(), MINUTES, "bounded");
    }
}
