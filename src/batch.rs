//! Brings the events of one visitor on one page together, so that they travel in one POST. Pure: time is an input.

use std::collections::{HashMap, VecDeque};

use crate::event::{Event, Visitor};
use crate::offsets::SiteId;

/// What becomes one POST: the events share site, page and visitor.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Whose.
    pub site: SiteId,
    /// Who.
    pub visitor: Visitor,
    /// The POST's `url`.
    pub page: String,
    /// In log order.
    pub events: Vec<Event>,
}

type BatchKey = (SiteId, String, Visitor);

/// Batches that wait for company. `T` is any clock.
#[derive(Debug)]
pub struct Batcher<T> {
    max_events: usize,
    open: HashMap<BatchKey, (u64, T, Batch)>,
    order: VecDeque<(u64, T, BatchKey)>,
    next: u64,
}

impl<T: Copy + Ord> Batcher<T> {
    /// Batches of at most this many events.
    pub fn new(max_events: usize) -> Self {
        Self { max_events: max_events.max(1), open: HashMap::new(), order: VecDeque::new(), next: 0 }
    }

    /// Takes an event; `due` is when its batch leaves, if it is the first of it. Gives the batch out when it is full.
    pub fn add(&mut self, event: Event, due: T) -> Option<Batch> {
        let key = (event.origin.site, event.page.clone(), event.visitor.clone());
        let (number, next) = (self.next, &mut self.next);
        let (_, _, batch) = self.open.entry(key.clone()).or_insert_with(|| {
            *next += 1;
            self.order.push_back((number, due, key.clone()));
            let (site, page, visitor) = key.clone();
            (number, due, Batch { site, visitor, page, events: Vec::new() })
        });
        batch.events.push(event);
        if batch.events.len() < self.max_events {
            return None;
        }
        self.open.remove(&key).map(|(_, _, batch)| batch)
    }

    /// Batches begun so far.
    pub fn opened(&self) -> u64 {
        self.next
    }

    /// The batches whose time has come, in the order of their first events.
    pub fn due(&mut self, now: T) -> Vec<Batch> {
        self.take(|due| due <= now)
    }

    /// All batches.
    pub fn drain(&mut self) -> Vec<Batch> {
        self.take(|_| true)
    }

    /// When the next batch leaves.
    pub fn next_due(&mut self) -> Option<T> {
        while let Some((number, due, key)) = self.order.front() {
            if self.open.get(key).is_some_and(|(open, _, _)| open == number) {
                return Some(*due);
            }
            self.order.pop_front();
        }
        None
    }

    fn take(&mut self, is_due: impl Fn(T) -> bool) -> Vec<Batch> {
        let mut taken = Vec::new();
        // The sites' lingers differ, so a later batch may be due before an earlier one.
        let mut kept = VecDeque::new();
        for (number, due, key) in std::mem::take(&mut self.order) {
            if self.open.get(&key).is_none_or(|(open, _, _)| *open != number) {
                continue;
            }
            if is_due(due) {
                taken.extend(self.open.remove(&key).map(|(_, _, batch)| batch));
            } else {
                kept.push_back((number, due, key));
            }
        }
        self.order = kept;
        taken
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::offsets::{LogId, Origin, Span};

    pub(crate) fn event(visitor: u8, page: &str, end: u64) -> Event {
        Event {
            visitor: Visitor {
                ip: [192, 0, 2, visitor].into(),
                user_agent: "Mozilla/5.0".to_owned(),
                view_width: None,
            },
            page: page.to_owned(),
            name: "download".to_owned(),
            url: format!("https://docs.example.org/{end}.pdf"),
            properties: Vec::new(),
            time: None,
            origin: Origin { site: SiteId(1), log: LogId(1), line: Span { start: end - 1, end } },
        }
    }

    #[test]
    fn only_events_of_one_visitor_on_one_page_share_a_batch() {
        let mut batcher = Batcher::new(50);
        for (visitor, page, end) in [(1, "/a", 1), (2, "/a", 2), (1, "/a", 3), (1, "/b", 4)] {
            assert_eq!(batcher.add(event(visitor, page, end), 10), None);
        }
        assert_eq!(batcher.next_due(), Some(10));
        assert_eq!(batcher.due(9), []);
        let ends: Vec<Vec<u64>> = batcher
            .due(10)
            .iter()
            .map(|batch| batch.events.iter().map(|event| event.origin.line.end).collect())
            .collect();
        assert_eq!(ends, [vec![1, 3], vec![2], vec![4]]);
        assert_eq!(batcher.next_due(), None);
    }

    #[test]
    fn a_full_batch_leaves_at_once_and_the_next_one_waits_anew() {
        let mut batcher = Batcher::new(2);
        assert_eq!(batcher.add(event(1, "/a", 1), 10), None);
        assert_eq!(batcher.add(event(1, "/a", 2), 11).unwrap().events.len(), 2);
        assert_eq!(batcher.add(event(1, "/a", 3), 20), None);
        assert_eq!(batcher.due(15), []);
        assert_eq!(batcher.next_due(), Some(20));
        assert_eq!(batcher.drain().len(), 1);
    }
}
