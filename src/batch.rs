//! Brings the events of one visitor on one page together, so that they travel in one POST. Pure: time is an input.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::hash::BuildHasher;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::event::{Event, Visitor};
use crate::offsets::SiteId;

/// What becomes one POST: the events share site, page and visitor, which the first of them tells.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Batches are numbered in the order of their first events.
    pub number: u64,
    /// Passed on as it is from its line to its POST.
    first: Box<Event>,
    /// Nearly always nothing, which takes a word: batches go through many hands.
    #[expect(clippy::box_collection, reason = "a vector takes three")]
    more: Option<Box<Vec<Event>>>,
}

impl Batch {
    /// A batch of one event.
    pub fn of(number: u64, first: impl Into<Box<Event>>) -> Self {
        Self { number, first: first.into(), more: None }
    }

    /// Whose.
    pub fn site(&self) -> SiteId {
        self.first.origin.site
    }

    /// Who.
    pub fn visitor(&self) -> &Visitor {
        &self.first.visitor
    }

    /// The POST's `url`.
    pub fn page(&self) -> &str {
        &self.first.page
    }

    /// Whether it is known that page and user agent need no escape in JSON.
    pub fn is_clean(&self) -> bool {
        self.first.clean.0
    }

    /// In log order.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        std::iter::once(&*self.first).chain(self.more.iter().flat_map(|more| more.iter()))
    }

    /// Bytes of memory that its events take.
    pub(crate) fn weight(&self) -> usize {
        self.events().map(Event::weight).sum()
    }

    /// Lets go of it on the thread that makes others.
    pub(crate) fn spare(self) {
        self.first.spare();
    }

    /// How many events: at least one.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        1 + self.more.as_ref().map_or(0, |more| more.len())
    }

    /// Takes the second half off, where there are two events or more.
    pub fn halve(&mut self) -> Option<Batch> {
        let keeps = (self.len() / 2).checked_sub(1)?;
        let mut more = *self.more.take()?;
        let mut rest = more.split_off(keeps).into_iter();
        self.more = (!more.is_empty()).then(|| Box::new(more));
        let first = rest.next()?.into();
        let more: Vec<Event> = rest.collect();
        Some(Batch { number: self.number, first, more: (!more.is_empty()).then(|| Box::new(more)) })
    }

    fn takes(&self, event: &Event) -> bool {
        self.site() == event.origin.site && self.first.visitor == event.visitor && self.first.page == event.page
    }
}

/// Batches that wait for company. `T` is any clock.
#[derive(Debug)]
pub struct Batcher<T> {
    max_events: usize,
    /// Finds the place of the open batch of a visitor on a page.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Open batches, each with the hash that it is found by; a place that is free is used again.
    open: Vec<Option<(u64, Batch)>>,
    free: Vec<u32>,
    /// When they leave, with number and place. One that left before, because it was full, is passed over then. Nearly always
    /// they leave in the order in which they came; the others are sorted in.
    schedule: VecDeque<(T, u64, u32)>,
    early: BinaryHeap<Reverse<(T, u64, u32)>>,
    next: u64,
}

impl<T: Copy + Ord> Batcher<T> {
    /// Batches of at most this many events.
    pub fn new(max_events: usize) -> Self {
        Self {
            max_events: max_events.max(1),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            open: Vec::new(),
            free: Vec::new(),
            schedule: VecDeque::new(),
            early: BinaryHeap::new(),
            next: 0,
        }
    }

    /// Takes an event; `due` is when its batch leaves, if it is the first of it. Gives the batch out when it is full.
    pub fn add(&mut self, event: impl Into<Box<Event>>, due: T) -> Option<Batch> {
        self.add_beside(event, due, |_, _| true)
    }

    /// The same, with a say in whether the event may travel with the first of a batch that waits.
    #[inline(never)]
    pub fn add_beside(
        &mut self,
        event: impl Into<Box<Event>>,
        due: T,
        may_share: impl Fn(&Event, &Event) -> bool,
    ) -> Option<Batch> {
        let event = event.into();
        let number = self.next;
        if self.max_events == 1 {
            self.next += 1;
            return Some(Batch::of(number, event));
        }
        let Self { index, hasher, open, .. } = self;
        let hash = hash(hasher, &event);
        let open_at = |place: &u32| open.get(*place as usize).and_then(Option::as_ref);
        let takes = |place: &u32| {
            open_at(place)
                .is_some_and(|(known, batch)| *known == hash && batch.takes(&event) && may_share(&batch.first, &event))
        };
        let found = index.entry(hash, takes, |place| open_at(place).map_or(0, |(hash, _)| *hash));
        let place = match found {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(vacant) => {
                self.next += 1;
                let place = self.free.pop().unwrap_or(open.len() as u32);
                vacant.insert(place);
                if place as usize == open.len() {
                    open.push(None);
                }
                open[place as usize] = Some((hash, Batch::of(number, event)));
                if self.schedule.back().is_none_or(|(last, ..)| *last <= due) {
                    self.schedule.push_back((due, number, place));
                } else {
                    self.early.push(Reverse((due, number, place)));
                }
                return None;
            }
        };
        let (_, batch) = open.get_mut(place as usize)?.as_mut()?;
        batch.more.get_or_insert_default().push(*event);
        if batch.len() < self.max_events {
            return None;
        }
        let number = batch.number;
        let full = self.remove(number, place);
        // What was full before its time is still scheduled; it mustn't add up.
        if self.schedule.len() + self.early.len() > 64 + 2 * (self.open.len() - self.free.len()) {
            let Self { schedule, early, open, .. } = self;
            let is_open = |(_, number, place): &(T, u64, u32)| {
                open.get(*place as usize).and_then(Option::as_ref).is_some_and(|(_, batch)| batch.number == *number)
            };
            schedule.retain(is_open);
            early.retain(|Reverse(scheduled)| is_open(scheduled));
        }
        full
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
        let mut due = Vec::new();
        self.take_due(now, &mut due);
        due
    }

    /// The same, into an empty list.
    pub fn take_due(&mut self, now: T, due: &mut Vec<Batch>) {
        while let Some((at, number, place)) = self.next_scheduled()
            && at <= now
        {
            self.pop_scheduled();
            due.extend(self.remove(number, place));
        }
        if due.len() > 1 {
            due.sort_unstable_by_key(|batch| batch.number);
        }
    }

    /// All batches, in the order of their first events.
    pub fn drain(&mut self) -> Vec<Batch> {
        self.index.clear();
        self.schedule.clear();
        self.early.clear();
        self.free.clear();
        let open = std::mem::take(&mut self.open).into_iter().flatten();
        let mut all: Vec<Batch> = open.map(|(_, batch)| batch).collect();
        all.sort_unstable_by_key(|batch| batch.number);
        all
    }

    /// When the next batch leaves.
    pub fn next_due(&mut self) -> Option<T> {
        while let Some((at, number, place)) = self.next_scheduled() {
            if self.open.get(place as usize).and_then(Option::as_ref).is_some_and(|(_, batch)| batch.number == number) {
                return Some(at);
            }
            self.pop_scheduled();
        }
        None
    }

    /// The soonest of what is scheduled.
    fn next_scheduled(&self) -> Option<(T, u64, u32)> {
        let early = self.early.peek().map(|Reverse(scheduled)| *scheduled);
        let first = self.schedule.front().copied();
        early.map_or(first, |early| Some(first.map_or(early, |first| first.min(early))))
    }

    fn pop_scheduled(&mut self) {
        let early = self.early.peek().map(|Reverse(scheduled)| scheduled);
        if early.is_some_and(|early| self.schedule.front().is_none_or(|first| early < first)) {
            self.early.pop();
        } else {
            self.schedule.pop_front();
        }
    }

    fn remove(&mut self, number: u64, place: u32) -> Option<Batch> {
        let (hash, batch) = self.open.get_mut(place as usize)?.take_if(|(_, batch)| batch.number == number)?;
        self.free.push(place);
        if let Ok(found) = self.index.find_entry(hash, |known| *known == place) {
            found.remove();
        }
        Some(batch)
    }
}

fn hash(hasher: &DefaultHashBuilder, event: &Event) -> u64 {
    hasher.hash_one((event.origin.site, &event.page, &event.visitor))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::event::Clean;
    use crate::offsets::{LogId, Origin, Span};

    pub(crate) fn event(visitor: u8, page: &str, end: u64) -> Event {
        Event {
            visitor: Visitor {
                ip: [192, 0, 2, visitor].into(),
                user_agent: "Mozilla/5.0".to_owned(),
                view_width: None,
            },
            page: page.to_owned(),
            name: "download".into(),
            url: format!("https://docs.example.org/{end}.pdf"),
            properties: Vec::new(),
            clean: Clean::default(),
            time: None,
            offset: None,
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
        let ends: Vec<Vec<u64>> =
            batcher.due(10).iter().map(|batch| batch.events().map(|event| event.origin.line.end).collect()).collect();
        assert_eq!(ends, [vec![1, 3], vec![2], vec![4]]);
        assert_eq!(batcher.next_due(), None);
    }

    #[test]
    fn a_full_batch_leaves_at_once_and_the_next_one_waits_anew() {
        let mut batcher = Batcher::new(2);
        assert_eq!(batcher.add(event(1, "/a", 1), 10), None);
        assert_eq!(batcher.add(event(1, "/a", 2), 11).unwrap().len(), 2);
        assert_eq!(batcher.add(event(1, "/a", 3), 20), None);
        assert_eq!(batcher.due(15), []);
        assert_eq!(batcher.next_due(), Some(20));
        assert_eq!(batcher.drain().len(), 1);
    }

    #[test]
    fn who_may_not_travel_together_waits_in_batches_of_its_own() {
        let mut batcher = Batcher::new(50);
        let is_near = |first: &Event, next: &Event| first.origin.line.end.abs_diff(next.origin.line.end) < 10;
        for end in [100, 1, 101, 2, 99] {
            assert_eq!(batcher.add_beside(event(1, "/a", end), end, is_near), None);
        }
        let ends: Vec<Vec<u64>> =
            batcher.drain().iter().map(|batch| batch.events().map(|event| event.origin.line.end).collect()).collect();
        assert_eq!(ends, [vec![100, 101, 99], vec![1, 2]]);
    }

    #[test]
    fn a_batch_is_halved_until_it_is_one_event() {
        let ends = |batch: &Batch| batch.events().map(|event| event.origin.line.end).collect::<Vec<_>>();
        let mut batch = Batch {
            more: Some(Box::new((2..=5).map(|end| event(1, "/a", end)).collect())),
            ..Batch::of(7, event(1, "/a", 1))
        };
        let rest = batch.halve().unwrap();
        assert_eq!((ends(&batch), ends(&rest)), (vec![1, 2], vec![3, 4, 5]));
        assert_eq!(ends(&batch.halve().unwrap()), [2]);
        assert_eq!(batch.halve(), None);
    }

    proptest::proptest! {
        /// Whatever comes and goes, a batch leaves once, when it is full or due, and what is forgotten takes no room.
        #[test]
        fn every_event_leaves_once(steps in proptest::collection::vec((0_u8..6, 0_u64..9, 0_u64..4), 0..300)) {
            let mut batcher = Batcher::new(3);
            let (mut given, mut now) = (Vec::new(), 0);
            for (end, (visitor, linger, passed)) in steps.iter().enumerate() {
                now += passed;
                given.extend(batcher.due(now));
                given.extend(batcher.add(event(*visitor, "/a", end as u64 + 1), now + linger * 100));
                proptest::prop_assert!(batcher.schedule.len() <= 64 + 2 * batcher.open.len());
                proptest::prop_assert!(batcher.open.len() <= 6);
            }
            given.extend(batcher.drain());
            let mut ends: Vec<u64> =
                given.iter().flat_map(Batch::events).map(|event| event.origin.line.end).collect();
            ends.sort_unstable();
            proptest::prop_assert_eq!(ends, (1..=steps.len() as u64).collect::<Vec<_>>());
            proptest::prop_assert!(given.iter().all(|batch| batch.len() <= 3));
        }
    }
}
