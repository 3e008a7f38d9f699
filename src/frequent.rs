//! The texts that occur most among any number of them, of which only so many are kept.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

/// Distinct texts that are counted at most; beyond, the rarest are forgotten.
const COUNTED: usize = 8_192;
/// Texts that are kept though they have occurred once only. Where each is another, keeping all would cost more than
/// counting them does.
const KEPT: usize = 1_024;
/// Bytes of a text that are kept; it is counted as a whole.
const SHOWN: usize = 512;

/// Counts texts by their hashes. How often the most frequent occurred is exact while no more than [`COUNTED`] differ; of what
/// occurred once only the first [`KEPT`] or so are known. Two with the same hash of 64 bits would be one.
#[derive(Debug, Default, Clone)]
pub(crate) struct Frequent {
    hasher: DefaultHashBuilder,
    counts: HashTable<(u64, u64)>,
    /// Of what has occurred twice, and of the first ones.
    texts: HashMap<u64, String>,
}

impl Frequent {
    /// One more of these.
    pub(crate) fn add(&mut self, text: &str) {
        let hash = self.hasher.hash_one(text);
        if let Some((_, count)) = self.counts.find_mut(hash, |(known, _)| *known == hash) {
            *count += 1;
            if *count == 2 {
                self.texts.entry(hash).or_insert_with(|| beginning(text));
            }
            return;
        }
        if self.counts.len() >= COUNTED {
            self.forget_the_rarest();
        }
        self.counts.insert_unique(hash, (hash, 1), |(hash, _)| *hash);
        if self.texts.len() < KEPT {
            self.texts.insert(hash, beginning(text));
        }
    }

    /// Halved: what occurs often stays, whatever else comes.
    fn forget_the_rarest(&mut self) {
        let middle = self.counts.len() / 2;
        // Mostly more than half have occurred once only.
        let mut kept: Vec<(u64, u64)> = self.counts.iter().filter(|(_, count)| *count > 1).copied().collect();
        if let Some(median) = middle.checked_sub(self.counts.len() - kept.len()) {
            let median = kept.select_nth_unstable_by_key(median, |(_, count)| *count).1.1;
            kept.retain(|(_, count)| *count > median);
        }
        self.counts.clear();
        for of in kept {
            self.counts.insert_unique(of.0, of, |(hash, _)| *hash);
        }
        let counts = &self.counts;
        self.texts.retain(|hash, _| counts.find(*hash, |(known, _)| known == hash).is_some());
    }

    /// The most frequent of those that are known, and how often they occurred; by their names where that is the same.
    pub(crate) fn most(self, many: usize) -> Vec<(String, u64)> {
        let Self { counts, texts, .. } = self;
        let count_of = |hash: u64| counts.find(hash, |(known, _)| *known == hash).map_or(0, |(_, count)| *count);
        let mut most: Vec<(String, u64)> = texts.into_iter().map(|(hash, text)| (text, count_of(hash))).collect();
        let rank = |(text, count): &(String, u64), (other_text, other): &(String, u64)| {
            other.cmp(count).then_with(|| text.cmp(other_text))
        };
        if most.len() > many {
            most.select_nth_unstable_by(many, rank);
            most.truncate(many);
        }
        most.sort_by(rank);
        most
    }
}

/// As much of a text as is kept: who makes requests chooses how long their URLs are.
fn beginning(text: &str) -> String {
    if text.len() <= SHOWN {
        return text.to_owned();
    }
    let end = (0..=SHOWN).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As long as they aren't too many, it counts as if it kept them all.
        #[test]
        fn few_are_counted_exactly(texts in proptest::collection::vec("[a-e]{1,3}", 0..2_000), many in 1_usize..12) {
            let (mut frequent, mut all) = (Frequent::default(), std::collections::BTreeMap::<String, u64>::new());
            for text in texts {
                frequent.add(&text);
                *all.entry(text).or_default() += 1;
            }
            let mut want: Vec<(String, u64)> = all.into_iter().collect();
            want.sort_by_key(|(text, count)| (std::cmp::Reverse(*count), text.clone()));
            want.truncate(many);
            prop_assert_eq!(frequent.most(many), want);
        }
    }

    #[test]
    fn what_is_frequent_stays_among_any_number_of_others() {
        let mut frequent = Frequent::default();
        for number in 0..100_000 {
            frequent.add(&format!("once {number}"));
            if number % 10 == 0 {
                frequent.add("often");
            }
            if number > 50_000 && number % 100 == 0 {
                frequent.add("late");
            }
            assert!(frequent.counts.len() <= COUNTED && frequent.texts.len() <= COUNTED);
        }
        let most = frequent.most(3);
        assert_eq!(most[0], ("often".to_owned(), 10_000));
        assert_eq!(most[1].0, "late");
        assert!((400..500).contains(&most[1].1), "what is forgotten at first is counted from then on: {most:?}");
    }

    #[test]
    fn of_a_long_text_the_beginning_is_kept_and_the_whole_is_counted() {
        let long = |end: &str| format!("{}é{}{end}", "x".repeat(SHOWN - 1), "y".repeat(8_000));
        let shown = format!("{}…", "x".repeat(SHOWN - 1));
        let mut frequent = Frequent::default();
        for number in 0..COUNTED {
            for _ in 0..2 {
                frequent.add(&long(&number.to_string()));
            }
        }
        frequent.add(&long("0"));
        let kept: usize = frequent.texts.values().map(String::capacity).sum();
        assert!(kept <= COUNTED * 2 * SHOWN, "{kept} bytes are kept");
        let most = frequent.most(2);
        assert_eq!(most, [(shown.clone(), 3), (shown, 2)]);
        let mut frequent = Frequent::default();
        let whole = "é".repeat(SHOWN / 2);
        frequent.add(&whole);
        assert_eq!(frequent.most(1), [(whole, 1)]);
    }
}
