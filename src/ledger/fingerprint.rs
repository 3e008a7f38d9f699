//! Which file this is: a hash of its first bytes, and marks on the way to where it was read. Pure.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

/// A fingerprint's head grows with the file up to this many bytes, so that small files have an identity too.
pub const HEAD_MAX: usize = 1_024;
/// Bytes before a mark's offset that it vouches for: more than a user agent is long, since lines of one browser end alike.
pub const MARK_MAX: usize = 256;
/// Marks that are kept: the newest, and ever fewer on the way back.
const MARKS: usize = 12;

/// A hash of 128 bits; a number of that size would have to lie at a multiple of 16, in each of ten thousand logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u128", into = "u128")]
struct Digest([u8; 16]);

impl From<u128> for Digest {
    fn from(number: u128) -> Self {
        Self(number.to_ne_bytes())
    }
}

impl From<Digest> for u128 {
    fn from(Digest(bytes): Digest) -> Self {
        u128::from_ne_bytes(bytes)
    }
}

fn hash(bytes: &[u8]) -> Digest {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish128().as_u128().into()
}

/// The bytes before an offset, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Where it stands.
    pub offset: u64,
    hash: Digest,
}

impl Mark {
    /// Marks an offset by the (at most [`MARK_MAX`]) bytes before it.
    pub fn of(offset: u64, before: &[u8]) -> Self {
        Self { offset, hash: hash(&before[before.len().saturating_sub(MARK_MAX)..]) }
    }
}

/// What is remembered of a file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Bytes of the head that are hashed.
    pub head_len: u32,
    head_hash: Digest,
    /// By rising offset.
    pub marks: Vec<Mark>,
}

impl Fingerprint {
    /// Of a file's first bytes.
    pub fn of_head(head: &[u8]) -> Self {
        let head = &head[..head.len().min(HEAD_MAX)];
        Self { head_len: u32::try_from(head.len()).unwrap_or(0), head_hash: hash(head), marks: Vec::new() }
    }

    /// Whether a file that begins with these bytes (as many as it has, up to [`HEAD_MAX`]) may be the same.
    pub fn agrees_head(&self, head: &[u8]) -> bool {
        head.get(..self.head_len as usize).is_some_and(|head| self.head_len == 0 || hash(head) == self.head_hash)
    }

    /// The same of a head that many fingerprints are held against.
    pub fn agrees_with(&self, head: &mut Head<'_>) -> bool {
        self.head_len == 0 || head.hash(self.head_len) == Some(self.head_hash)
    }

    /// Adds the newest mark and thins out the older ones.
    pub fn push_mark(&mut self, mark: Mark) {
        self.marks.retain(|known| known.offset < mark.offset);
        self.marks.push(mark);
        if self.marks.len() > MARKS {
            // The one whose neighbours are closest, as seen from the end, says the least.
            let newest = mark.offset;
            let gap = |at: usize| {
                let distance = (newest - self.marks[at].offset).max(1) as f64;
                (self.marks[at + 1].offset - self.marks[at - 1].offset) as f64 / distance
            };
            let least = (1..self.marks.len() - 1).min_by(|a, b| gap(*a).total_cmp(&gap(*b)));
            if let Some(least) = least {
                self.marks.remove(least);
            }
        }
    }
}

/// A file's first bytes, hashed once for each length that is asked for: nearly always the same.
#[derive(Debug)]
pub struct Head<'h> {
    bytes: &'h [u8],
    last: Option<(u32, Option<Digest>)>,
}

impl<'h> Head<'h> {
    /// As many as the file has, up to [`HEAD_MAX`].
    pub fn new(bytes: &'h [u8]) -> Self {
        Self { bytes, last: None }
    }

    fn hash(&mut self, len: u32) -> Option<Digest> {
        match self.last {
            Some((known, hash)) if known == len => hash,
            _ => {
                let hash = self.bytes.get(..len as usize).map(hash);
                self.last = Some((len, hash));
                hash
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_grew_is_the_same_and_one_that_shrank_is_not() {
        let known = Fingerprint::of_head(b"one line\n");
        assert!(known.agrees_head(b"one line\nanother\n"));
        assert!(!known.agrees_head(b"one li"));
        assert!(!known.agrees_head(b"two line\nanother\n"));
        let mut head = Head::new(b"one line\nanother\n");
        for (len, want) in [(9, true), (17, true), (18, false), (9, true), (0, true)] {
            let other = Fingerprint::of_head(&b"one line\nanother\n!"[..len]);
            assert_eq!(other.agrees_with(&mut head), want, "{len} bytes");
        }
        assert!(Fingerprint::of_head(b"").agrees_head(b"anything"));
    }

    #[test]
    fn marks_are_few_and_the_newest_is_kept() {
        let mut fingerprint = Fingerprint::of_head(b"x");
        for offset in (1_000..2_000_000).step_by(1_000) {
            fingerprint.push_mark(Mark::of(offset, b"bytes"));
            assert!(fingerprint.marks.len() <= MARKS);
            assert_eq!(fingerprint.marks.last().map(|mark| mark.offset), Some(offset));
            assert_eq!(fingerprint.marks.first().map(|mark| mark.offset), Some(1_000));
        }
    }
}
