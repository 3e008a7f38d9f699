//! The repeat window: whether the same visitor fetched the same thing just before. Pure; time is the log's own.
//!
//! An entry holds the interval of its chain: a line within the window of either end is a repeat and extends it, for logs
//! are out of order by a transfer's length. Entries leave by least recent use, not by the largest time seen: one line
//! from 2099 must not empty the window.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher;
use std::net::IpAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use siphasher::sip128::{Hasher128, SipHasher13};

use super::client::visitor_prefix;
use crate::offsets::{Origin, SiteId};

/// What makes two requests the same, hashed with a secret: addresses can't be got back from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub [u8; 16]);

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
#[derive(Debug)]
pub struct Repeats {
    secret: [u8; 16],
    capacity: usize,
    entries: HashMap<Key, (Kept, u64)>,
    by_use: BTreeMap<u64, Key>,
    uses: u64,
}

impl Repeats {
    /// An empty window.
    pub fn new(secret: [u8; 16], capacity: usize) -> Self {
        Self { secret, capacity, entries: HashMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    /// The key of a request: same site, event name, event URL, visitor and user agent.
    pub fn key(&self, site: SiteId, name: &str, url: &str, ip: IpAddr, user_agent: &str) -> Key {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        hasher.write_i64(site.0);
        // Each part with its length: no two lists of parts look the same.
        for part in [name, url, &visitor_prefix(ip).to_string(), user_agent] {
            hasher.write_usize(part.len());
            hasher.write(part.as_bytes());
        }
        Key(hasher.finish128().as_bytes())
    }

    /// Takes a line: whether it is a repeat, and its entry from now on.
    ///
    /// A line is never a repeat of itself or of a later line of its own log: after a restart, lines that were read and
    /// not yet delivered come by again.
    pub fn take(&mut self, key: Key, time: Timestamp, window: Duration, origin: Origin) -> (Verdict, Option<Touch>) {
        let window = SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX);
        let known = self.entries.get(&key).map(|(kept, _)| kept).filter(|kept| {
            let itself_or_later = kept.origin.site == origin.site
                && kept.origin.log == origin.log
                && kept.origin.line.end >= origin.line.end;
            let near = kept.first.duration_since(time) <= window && time.duration_since(kept.last) <= window;
            near && !itself_or_later
        });
        let (verdict, kept) = match known {
            Some(kept) => {
                let kept = Kept { first: kept.first.min(time), last: kept.last.max(time), origin: kept.origin };
                (Verdict::Repeat, kept)
            }
            None => (Verdict::First, Kept { first: time, last: time, origin }),
        };
        let touch = Touch { key, kept };
        self.put(touch.clone());
        (verdict, Some(touch))
    }

    /// Takes stored entries back, least recently used first.
    pub fn restore(&mut self, touches: impl Iterator<Item = Touch>) {
        touches.for_each(|touch| self.put(touch));
    }

    fn put(&mut self, Touch { key, kept }: Touch) {
        self.uses += 1;
        if let Some((_, used)) = self.entries.insert(key, (kept, self.uses)) {
            self.by_use.remove(&used);
        }
        self.by_use.insert(self.uses, key);
        if self.entries.len() > self.capacity
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offsets::{LogId, Span};

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

    #[test]
    fn clients_of_one_network_are_one_visitor_in_ipv6() {
        let repeats = Repeats::new([7; 16], 2);
        let key = |ip: &str| repeats.key(SiteId(1), "download", "/a", ip.parse().unwrap(), "Mozilla");
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("192.0.2.7"), key("192.0.2.8"));
    }
}
