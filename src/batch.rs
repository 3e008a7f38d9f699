//! Brings the events of one visitor on one page together, so that they travel in one POST. Pure: time is an input.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

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

/// Batches that wait for company. `T` is any clock.
#[derive(Debug)]
pub struct Batcher<T> {
    max_events: usize,
    /// Finds the open batch of a visitor on a page.
    index: HashTable<u64>,
    hasher: DefaultHashBuilder,
    /// By the number of their first event.
    open: BTreeMap<u64, (T, Batch)>,
    /// When they leave. The sites' lingers differ, so a later batch may be due before an earlier one.
    schedule: BTreeSet<(T, u64)>,
    next: u64,
}

impl<T: Copy + Ord> Batcher<T> {
    /// Batches of at most this many events.
    pub fn new(max_events: usize) -> Self {
        Self {
            max_events: max_events.max(1),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            open: BTreeMap::new(),
            schedule: BTreeSet::new(),
            next: 0,
        }
    }

    /// Takes an event; `due` is when its batch leaves, if it is the first of it. Gives the batch out when it is full.
    pub fn add(&mut self, event: Event, due: T) -> Option<Batch> {
        let Self { index, hasher, open, schedule, .. } = self;
        let hash = hash(hasher, event.origin.site, &event.page, &event.visitor);
        let fits = |number: &u64| {
            open.get(number).is_some_and(|(_, batch)| {
                batch.site == event.origin.site && batch.visitor == event.visitor && batch.page == event.page
            })
        };
        let number = match index.find(hash, fits) {
            Some(known) => *known,
            None => {
                let number = self.next;
                self.next += 1;
                let rehash = |number: &u64| open.get(number).map_or(0, |(_, batch)| hash_of(hasher, batch));
                index.insert_unique(hash, number, rehash);
                let (site, visitor, page) = (event.origin.site, event.visitor.clone(), event.page.clone());
                open.insert(number, (due, Batch { site, visitor, page, events: Vec::new() }));
                schedule.insert((due, number));
                number
            }
        };
        let (_, batch) = open.get_mut(&number)?;
        batch.events.push(event);
        if batch.events.len() < self.max_events {
            return None;
        }
        self.remove(number)
    }

    /// Another bound on events in a batch, for those that are added from now on.
    pub fn set_max_events(&mut self, max_events: usize) {
        self.max_events = max_events.max(1);
    }

    /// Batches begun so far.
    pub fn opened(&self) -> u64 {
        self.next
    }

    /// The batches whose time has come, in the order of their first events.
    pub fn due(&mut self, now: T) -> Vec<Batch> {
        let mut numbers: Vec<u64> =
            self.schedule.iter().take_while(|(due, _)| *due <= now).map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        numbers.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    /// All batches, in the order of their first events.
    pub fn drain(&mut self) -> Vec<Batch> {
        self.index.clear();
        self.schedule.clear();
        std::mem::take(&mut self.open).into_values().map(|(_, batch)| batch).collect()
    }

    /// When the next batch leaves.
    pub fn next_due(&self) -> Option<T> {
        self.schedule.first().map(|(due, _)| *due)
    }

    fn remove(&mut self, number: u64) -> Option<Batch> {
        let (due, batch) = self.open.remove(&number)?;
        self.schedule.remove(&(due, number));
        if let Ok(found) = self.index.find_entry(hash_of(&self.hasher, &batch), |known| *known == number) {
            found.remove();
        }
        Some(batch)
    }
}

fn hash(hasher: &DefaultHashBuilder, site: SiteId, page: &str, visitor: &Visitor) -> u64 {
    hasher.hash_one((site, page, visitor))
}

fn hash_of(hasher: &DefaultHashBuilder, batch: &Batch) -> u64 {
    hash(hasher, batch.site, &batch.page, &batch.visitor)
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
