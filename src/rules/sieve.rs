//! One pass over bytes, sixteen at a time, for what tells the lines apart that may hold a file name extension: where one
//! begins, where an escape does, and how many lines end before each place. Pure.

use std::fmt;

use wide::i8x16;

use crate::sixteen::{Places, WIDTH, WORD, load, splat};

/// Bytes between two places of which it is known how many lines end before them.
const STEP: usize = 1024;

/// Knows some extensions, and finds where one of them may stand.
#[derive(Clone)]
pub(super) struct Sieve {
    /// In lower case, without their dots.
    extensions: Vec<Box<[u8]>>,
    /// For the first two bytes of an extension a bit for each third; the low five bits of each byte, which both cases of a
    /// letter share.
    thirds: Box<[[u32; 32]; 32]>,
    /// What follows a dot is worth a look if it is greater than this, or equal to `or`. Letters are; the digits of
    /// addresses and versions aren't, as long as no extension begins with one, or all that do begin with the same.
    above: i8,
    or: u8,
    /// What all extensions have before them; without any, what is looked for anyway.
    dot: u8,
}

impl fmt::Debug for Sieve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.extensions.iter().map(|extension| extension.escape_ascii().to_string())).finish()
    }
}

impl Sieve {
    /// For these extensions, in lower case and without their dots.
    pub(super) fn new<'e>(extensions: impl Iterator<Item = &'e str>) -> Self {
        let extensions: Vec<Box<[u8]>> = extensions.map(|extension| extension.as_bytes().into()).collect();
        let mut thirds = Box::new([[0; 32]; 32]);
        let of = |byte: Option<&u8>| match byte {
            Some(byte) => usize::from(byte & 31)..usize::from(byte & 31) + 1,
            // What isn't an extension's any more may be anything.
            None => 0..32,
        };
        for extension in &extensions {
            for first in of(extension.first()) {
                for second in of(extension.get(1)) {
                    thirds[first][second] |= of(extension.get(2)).fold(0, |bits, third| bits | 1 << third);
                }
            }
        }
        let mut others: Vec<Option<u8>> = extensions
            .iter()
            .map(|extension| extension.first().copied())
            .filter(|first| !first.is_some_and(|first| first.is_ascii_alphabetic()))
            .collect();
        others.sort_unstable();
        others.dedup();
        let (above, or) = match others[..] {
            [] => (b'A'.cast_signed() - 1, b'A'),
            [Some(other)] => (b'A'.cast_signed() - 1, other),
            // Any byte.
            _ => (i8::MIN, i8::MIN.cast_unsigned()),
        };
        let dot = if extensions.is_empty() { b'\\' } else { b'.' };
        Self { extensions, thirds, above, or, dot }
    }

    /// Passes `found` each offset of a backslash, and of a dot with an extension behind it that no letter or digit goes
    /// on with, in their order. Sets how many lines end before each step.
    ///
    /// A function of its own: the registers are all needed.
    #[inline(never)]
    pub(super) fn pass(&self, bytes: &[u8], newlines: &mut Newlines, mut found: impl FnMut(usize)) {
        let mut ends = 0;
        newlines.before.clear();
        let mut places = Places::<STEP>::new();
        for start in (0..bytes.len()).step_by(STEP) {
            newlines.before.push(ends);
            let mut counts = i8x16::ZERO;
            places.clear();
            for at in (start..bytes.len().min(start + STEP)).step_by(WORD) {
                let finds = match bytes.get(at..=at + WORD) {
                    Some(word) => self.finds(word, &mut counts),
                    // The last ones, with nothing behind them that could be found.
                    None => {
                        let mut word = [0; WORD + 1];
                        let rest = &bytes[at..bytes.len().min(at + WORD + 1)];
                        word[..rest.len()].copy_from_slice(rest);
                        self.finds(&word, &mut counts)
                    }
                };
                places.add(at - start, finds);
            }
            for place in places.all().iter().map(|place| start + usize::from(*place)) {
                if bytes[place] == b'\\' || self.stands_at(&bytes[place + 1..]) {
                    found(place);
                }
            }
            // One for each sixteenth byte, which are 64 in a step.
            ends += counts.to_array().iter().map(|count| u32::from(count.unsigned_abs())).sum::<u32>();
        }
    }

    /// Where there is a backslash, or a dot that may be an extension's, among the first bytes: a bit for each. Adds the
    /// lines that end there.
    #[inline]
    fn finds(&self, word: &[u8], counts: &mut i8x16) -> u64 {
        let (newline, dot) = (splat(b'\n'), splat(self.dot));
        let (backslash, above, or) = (splat(b'\\'), i8x16::splat(self.above), splat(self.or));
        (0..WORD).step_by(WIDTH).fold(0, |finds, at| {
            let (bytes, next) = (load(&word[at..at + WIDTH]), load(&word[at + 1..at + 1 + WIDTH]));
            let dots = bytes.simd_eq(dot) & (next.simd_gt(above) | next.simd_eq(or));
            // What is equal is all ones, which is less by one.
            *counts -= bytes.simd_eq(newline);
            finds | u64::from((dots | bytes.simd_eq(backslash)).to_bitmask()) << at
        })
    }

    /// Whether what comes behind a dot is an extension, in any case, and then no letter or digit.
    fn stands_at(&self, after: &[u8]) -> bool {
        if let [first, second, third, ..] = after {
            let [first, second, third] = [first, second, third].map(|byte| usize::from(byte & 31));
            if self.thirds[first][second] & 1 << third == 0 {
                return false;
            }
        }
        self.extensions.iter().any(|extension| {
            after.get(..extension.len()).is_some_and(|text| text.eq_ignore_ascii_case(extension))
                && !after.get(extension.len()).is_some_and(u8::is_ascii_alphanumeric)
        })
    }
}

/// How many lines end in some bytes, known at every step.
#[derive(Debug, Default)]
pub(super) struct Newlines {
    before: Vec<u32>,
}

impl Newlines {
    /// How many lines end in `from..to` of the bytes that were passed over.
    pub(super) fn within(&self, bytes: &[u8], from: usize, to: usize) -> u64 {
        self.before(bytes, to).saturating_sub(self.before(bytes, from))
    }

    fn before(&self, bytes: &[u8], place: usize) -> u64 {
        let step = (place / STEP).min(self.before.len().saturating_sub(1));
        let counted = self.before.get(step).copied().unwrap_or(0);
        u64::from(counted) + memchr::memchr_iter(b'\n', &bytes[step * STEP..place]).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What stands for a line's bytes where extensions are looked for.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => prop::sample::select(vec![
                ".pdf", ".PdF", ".gz", ".7z", ".tar.gz", ".c", "..", ".", ".pd", ".pdfx", "\\x2e", "\n", " ", "192.0.2.7",
                ".é", ".7", ".8", "?", "\"",
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 0..80),
            1 => (0_usize..1100).prop_map(|len| vec![b'x'; len]),
            1 => (0_usize..1100).prop_map(|len| vec![b'\\'; len]),
        ];
        proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        /// What it finds is what one look at each byte finds, and so are the lines that it counts.
        #[test]
        fn sixteen_bytes_at_a_time_are_as_good_as_one(
            text in text(),
            extensions in proptest::sample::subsequence(vec!["pdf", "gz", "7z", "8svx", "tar.gz", "c", "", "é"], 0..8),
            places in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        ) {
            let follows = |after: &[u8], extension: &str| {
                after.to_ascii_lowercase().starts_with(extension.as_bytes())
                    && !after[extension.len()..].first().is_some_and(u8::is_ascii_alphanumeric)
            };
            let want: Vec<usize> = (0..text.len())
                .filter(|&at| {
                    let after = &text[at + 1..];
                    text[at] == b'\\' || text[at] == b'.' && extensions.iter().any(|extension| follows(after, extension))
                })
                .collect();
            let (mut newlines, mut found) = (Newlines::default(), Vec::new());
            Sieve::new(extensions.into_iter()).pass(&text, &mut newlines, |at| found.push(at));
            prop_assert_eq!(found, want);

            let (one, other) = (places.0.index(text.len() + 1), places.1.index(text.len() + 1));
            let (from, to) = (one.min(other), one.max(other));
            let lines = text[from..to].iter().filter(|byte| **byte == b'\n').count() as u64;
            prop_assert_eq!(newlines.within(&text, from, to), lines);
        }
    }
}
