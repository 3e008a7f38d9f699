//! The repeat window: whether the same visitor fetched the same thing just before. Pure; time is the log's own.
//!
//! An entry holds the interval of its chain: a line within the window of either end is a repeat and extends it, for logs
//! are out of order by a transfer's length. Entries leave by least recent use, not by the largest time seen: one line
//! from 2099 must not empty the window.

use std::hash::Hasher;
use std::net::IpAddr;
use std::time::Duration;

use hashbrown::HashTable;
use jiff::{SignedDuration, Timestamp};
use siphasher::sip128::{Hasher128, SipHasher13};

use super::client::visitor_prefix;
use crate::offsets::{LogId, Origin, SiteId, Span};

/// What makes two requests the same, hashed with a secret: addresses can't be got back from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// The key of a second chain of the same requests.
    fn beside(self) -> Self {
        Key(self.0.map(|byte| !byte))
    }
}

/// A chain of the same requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its earliest time.
    pub first: Timestamp,
    /// Its latest time.
    pub last: Timestamp,
    /// The line that counted.
    pub origin: Origin,
}

/// The window's entry after a line: what the ledger stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch {
    /// Whose.
    pub key: Key,
    /// The entry.
    pub kept: Kept,
}

/// Whether a line counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The first of its chain.
    First,
    /// Within the window of a line that counted.
    Repeat,
}

/// The window: at most `capacity` entries; the least recently used leaves first.
///
/// Entries lie in one block and are chained by use through their indices: 72 bytes each and some for finding them, whatever
/// the traffic.
#[derive(Debug)]
pub struct Repeats {
    secret: [u8; 16],
    capacity: usize,
    /// Finds an entry's index by its key.
    index: HashTable<u32>,
    entries: Vec<Entry>,
    newest: u32,
    oldest: u32,
}

/// A [`Touch`] in less room.
#[derive(Debug)]
struct Entry {
    key: Key,
    /// Microseconds since 1970, as the ledger stores them.
    first: i64,
    last: i64,
    site: SiteId,
    log: LogId,
    line_end: u64,
    line_len: u32,
    /// The entry used next after it, and the one before.
    newer: u32,
    older: u32,
}

impl Entry {
    fn new(touch: &Touch, older: u32) -> Self {
        let Touch { key, kept: Kept { first, last, origin } } = touch;
        Self {
            key: *key,
            first: first.as_microsecond(),
            last: last.as_microsecond(),
            site: origin.site,
            log: origin.log,
            line_end: origin.line.end,
            // Longer lines than that aren't read; and a line is known by its end.
            line_len: u32::try_from(origin.line.end - origin.line.start.min(origin.line.end)).unwrap_or(u32::MAX),
            newer: NONE,
            older,
        }
    }

    fn kept(&self) -> Kept {
        let time = |at| Timestamp::from_microsecond(at).unwrap_or_default();
        let start = self.line_end.saturating_sub(self.line_len.into());
        let line = Span { start, end: self.line_end };
        let origin = Origin { site: self.site, log: self.log, line };
        Kept { first: time(self.first), last: time(self.last), origin }
    }
}

/// What transfers take at most that are foreseen: lines stand so far behind those that were written before them.
const TRANSFER: SignedDuration = SignedDuration::from_mins(10);

/// Whether a line, not near a chain, may have been under way since before it.
fn is_late(time: Timestamp, first: Timestamp) -> bool {
    (SignedDuration::ZERO..=TRANSFER).contains(&first.duration_since(time))
}

/// No entry.
const NONE: u32 = u32::MAX;

impl Repeats {
    /// An empty window, of as many entries at most.
    pub fn new(secret: [u8; 16], capacity: usize) -> Self {
        let capacity = capacity.clamp(1, NONE as usize);
        Self { secret, capacity, index: HashTable::new(), entries: Vec::new(), newest: NONE, oldest: NONE }
    }

    /// The key of a request: same site, event name, event URL, visitor and user agent.
    pub fn key(&self, site: SiteId, name: &str, url: &str, ip: IpAddr, user_agent: &str) -> Key {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        hasher.write_i64(site.0);
        // Each part with its length: no two lists of parts look the same.
        let mut part = |bytes: &[u8]| {
            hasher.write_usize(bytes.len());
            hasher.write(bytes);
        };
        part(name.as_bytes());
        part(url.as_bytes());
        match visitor_prefix(ip) {
            IpAddr::V4(v4) => part(&v4.octets()),
            IpAddr::V6(v6) => part(&v6.octets()),
        }
        part(user_agent.as_bytes());
        Key(hasher.finish128().as_bytes())
    }

    /// Takes a line: whether it is a repeat, and its entry from now on.
    ///
    /// A line is never a repeat of itself or of a later line of its own log: after a restart, lines that were read and
    /// not yet delivered come by again.
    pub fn take(&mut self, key: Key, time: Timestamp, window: Duration, origin: Origin) -> (Verdict, Touch) {
        let window = SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX);
        let is_of_its_log = |kept: &Kept| kept.origin.site == origin.site && kept.origin.log == origin.log;
        let itself_or_later = |kept: &Kept| is_of_its_log(kept) && kept.origin.line.end >= origin.line.end;
        let is_near = |kept: &Kept| {
            let near = kept.first.duration_since(time) <= window && time.duration_since(kept.last) <= window;
            near && !itself_or_later(kept)
        };
        let known = self.kept(key);
        // A request that began long before and was written now begins a chain beside the one that is under way.
        let is_late = known.as_ref().is_some_and(|kept| {
            is_of_its_log(kept) && !itself_or_later(kept) && !is_near(kept) && is_late(time, kept.first)
        });
        let (key, known) = if is_late { (key.beside(), self.kept(key.beside())) } else { (key, known) };
        let (verdict, kept) = match known.filter(is_near) {
            Some(kept) => {
                let kept = Kept { first: kept.first.min(time), last: kept.last.max(time), origin: kept.origin };
                (Verdict::Repeat, kept)
            }
            None => (Verdict::First, Kept { first: time, last: time, origin }),
        };
        let touch = Touch { key, kept };
        self.put(&touch);
        (verdict, touch)
    }

    fn kept(&self, key: Key) -> Option<Kept> {
        self.find(key).and_then(|at| self.entries.get(at as usize)).map(Entry::kept)
    }

    /// Takes stored entries back, least recently used first.
    pub fn restore(&mut self, touches: impl Iterator<Item = Touch>) {
        touches.for_each(|touch| self.put(&touch));
    }

    fn find(&self, key: Key) -> Option<u32> {
        let is_it = |at: &u32| self.entries.get(*at as usize).is_some_and(|entry| entry.key == key);
        self.index.find(hash(key), is_it).copied()
    }

    fn put(&mut self, touch: &Touch) {
        let key = touch.key;
        let at = match self.find(key) {
            Some(at) => {
                self.unchain(at);
                at
            }
            None if self.entries.len() < self.capacity => {
                let at = self.entries.len() as u32;
                self.entries.push(Entry::new(touch, NONE));
                self.enter(key, at);
                at
            }
            None => {
                let at = self.oldest;
                self.unchain(at);
                let left = self.entries.get(at as usize).map(|entry| entry.key);
                if let Some(Ok(found)) = left.map(|left| self.index.find_entry(hash(left), |known| *known == at)) {
                    found.remove();
                }
                self.enter(key, at);
                at
            }
        };
        let newest = std::mem::replace(&mut self.newest, at);
        if let Some(entry) = self.entries.get_mut(at as usize) {
            *entry = Entry::new(touch, newest);
        }
        match self.entries.get_mut(newest as usize) {
            Some(before) => before.newer = at,
            None => self.oldest = at,
        }
    }

    fn enter(&mut self, key: Key, at: u32) {
        let Self { index, entries, .. } = self;
        index.insert_unique(hash(key), at, |known| entries.get(*known as usize).map_or(0, |entry| hash(entry.key)));
    }

    /// Takes an entry out of the order of use.
    fn unchain(&mut self, at: u32) {
        let Some(&Entry { newer, older, .. }) = self.entries.get(at as usize) else { return };
        match self.entries.get_mut(newer as usize) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }
}

/// The key is a keyed hash already: any part of it will do.
fn hash(key: Key) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = key.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn line(end: u64) -> Origin {
        Origin { site: SiteId(1), log: LogId(1), line: Span { start: end - 1, end } }
    }

    fn run(capacity: usize, lines: &[(&str, i64)]) -> Vec<Verdict> {
        let mut repeats = Repeats::new([7; 16], capacity);
        let mut verdicts = Vec::new();
        for (index, (url, second)) in lines.iter().enumerate() {
            let key = repeats.key(SiteId(1), "download", url, "192.0.2.7".parse().unwrap(), "Mozilla");
            verdicts.push(repeats.take(key, at(*second), WINDOW, line(index as u64 + 1)).0);
        }
        verdicts
    }

    #[test]
    fn the_first_of_a_chain_counts_and_each_repeat_renews_the_window() {
        use Verdict::{First, Repeat};
        for (name, lines, want) in [
            ("a double click", vec![("/a", 0), ("/a", 5)], vec![First, Repeat]),
            ("at the window's end", vec![("/a", 0), ("/a", 30)], vec![First, Repeat]),
            ("after it", vec![("/a", 0), ("/a", 31)], vec![First, First]),
            ("a chain", vec![("/a", 0), ("/a", 25), ("/a", 50), ("/a", 75)], vec![First, Repeat, Repeat, Repeat]),
            ("out of order", vec![("/a", 20), ("/a", 0), ("/a", -25)], vec![First, Repeat, Repeat]),
            ("a transfer that took long", vec![("/a", 100), ("/a", 10), ("/a", 105)], vec![First, First, Repeat]),
            (
                "two chains beside each other",
                vec![("/a", 100), ("/a", 10), ("/a", 15), ("/a", 105), ("/a", 40), ("/a", 200)],
                vec![First, First, Repeat, Repeat, Repeat, First],
            ),
            ("older logs", vec![("/a", 9_000), ("/a", 0), ("/a", 5)], vec![First, First, Repeat]),
            ("another file", vec![("/a", 0), ("/b", 5)], vec![First, First]),
            ("a line from 2099", vec![("/a", 0), ("/b", 2_300_000_000), ("/a", 5)], vec![First, First, Repeat]),
        ] {
            assert_eq!(run(100, &lines), want, "{name}");
        }
    }

    #[test]
    fn a_line_is_never_a_repeat_of_itself_or_of_a_later_one() {
        let mut repeats = Repeats::new([7; 16], 10);
        let key = repeats.key(SiteId(1), "download", "/a", "192.0.2.7".parse().unwrap(), "Mozilla");
        assert_eq!(repeats.take(key, at(0), WINDOW, line(10)).0, Verdict::First);
        assert_eq!(repeats.take(key, at(0), WINDOW, line(10)).0, Verdict::First, "itself");
        assert_eq!(repeats.take(key, at(0), WINDOW, line(5)).0, Verdict::First, "an earlier line");
        assert_eq!(repeats.take(key, at(1), WINDOW, line(20)).0, Verdict::Repeat);
    }

    #[test]
    fn memory_is_bounded_and_the_least_recently_used_leaves() {
        use Verdict::{First, Repeat};
        let verdicts = run(2, &[("/a", 0), ("/b", 0), ("/a", 1), ("/c", 1), ("/a", 2), ("/b", 2)]);
        assert_eq!(verdicts, [First, First, Repeat, First, Repeat, First]);
    }

    proptest::proptest! {
        /// The order of use is that of a list from which the last is taken and to which it is put first.
        #[test]
        fn what_leaves_is_what_a_list_would_let_go(
            capacity in 1_usize..8, keys in proptest::collection::vec(0_u8..12, 0..200)
        ) {
            let mut repeats = Repeats::new([7; 16], capacity);
            let mut list: Vec<u8> = Vec::new();
            for (index, key) in keys.into_iter().enumerate() {
                let known = list.iter().position(|known| *known == key);
                let (verdict, _) = repeats.take(Key([key; 16]), at(0), WINDOW, line(index as u64 + 1));
                proptest::prop_assert_eq!(verdict == Verdict::Repeat, known.is_some());
                known.map(|at| list.remove(at));
                list.insert(0, key);
                list.truncate(capacity);
                proptest::prop_assert_eq!(repeats.index.len(), list.len());
            }
        }
    }

    #[test]
    fn clients_of_one_network_are_one_visitor_in_ipv6() {
        let repeats = Repeats::new([7; 16], 2);
        let key = |ip: &str| repeats.key(SiteId(1), "download", "/a", ip.parse().unwrap(), "Mozilla");
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("192.0.2.7"), key("192.0.2.8"));
    }
}
