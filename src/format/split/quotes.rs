//! Where the double quotes of lines are, found sixteen bytes at a time. Pure.
//!
//! A line of a format with quotes is mostly told by them: with as many as the format has, and no backslash, none is hidden in
//! a field.

use wide::i8x16;

use crate::sixteen::{Places, WIDTH, WORD, controls, load, splat};

/// Bytes that are looked at together: a few dozen lines, so that they are still in the nearest cache when these are read.
const REACH: usize = if cfg!(test) { 256 } else { 8 * 1024 };

/// The quotes, backslashes and line ends of some bytes of a block, for one line after the other.
#[derive(Debug, Default)]
pub struct Quotes {
    places: Option<Box<Places<REACH>>>,
    /// The bytes of the block that were looked at.
    from: usize,
    to: usize,
    /// How many of the places lie behind.
    behind: usize,
}

/// What a line is told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// How many quotes it has, and no backslash.
    pub quotes: usize,
    /// And no control character: what stands between its quotes could stand in a JSON string as it is (RFC 8259, section 7).
    pub clean: bool,
}

/// The places of a line's quotes.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'q> {
    places: &'q [u16],
    /// Bytes between what they are counted from and the line.
    before: usize,
}

impl Quoted<'_> {
    /// The offset of one of them.
    #[inline]
    pub fn at(&self, index: usize) -> Option<usize> {
        Some(usize::from(*self.places.get(index)?) - self.before)
    }
}

impl Quotes {
    /// To be used with another block.
    pub fn forget(&mut self) {
        (self.from, self.to, self.behind) = (0, 0, 0);
    }

    /// The quotes of the line that begins at an offset of a block, and where its newline is, if it has these marks; `None`: it
    /// hasn't, or it is long, or it has no newline. Lines of a block are asked for by the same marks, in their order, each as
    /// often as one likes.
    #[inline]
    pub fn of_line(&mut self, block: &[u8], at: usize, marks: Marks) -> Option<(Quoted<'_>, usize)> {
        let Marks { quotes: many, clean } = marks;
        if !self.is_told(block, at, many)? {
            // The line goes on behind what was looked at.
            match clean {
                true => self.look::<true>(block, at),
                false => self.look::<false>(block, at),
            }
            if !self.is_told(block, at, many)? {
                return None;
            }
        }
        let places = self.places.as_ref()?.all();
        let (quotes, end) = (places.get(self.behind..self.behind + many)?, *places.get(self.behind + many)?);
        Some((Quoted { places: quotes, before: at - self.from }, self.from + usize::from(end)))
    }

    /// The next line to be asked for is the one after that which was told of last, and had so many quotes.
    #[inline]
    pub fn go_on_behind(&mut self, many: usize) {
        self.behind += many + 1;
    }

    /// Whether the line has so many quotes and then its end; `false`: not among what was looked at; `None`: it hasn't.
    #[inline]
    fn is_told(&mut self, block: &[u8], at: usize, many: usize) -> Option<bool> {
        if at < self.from || at >= self.to {
            return Some(false);
        }
        let places = self.places.as_ref()?.all();
        while places.get(self.behind).is_some_and(|place| self.from + usize::from(*place) < at) {
            self.behind += 1;
        }
        let byte = |place: &u16| block.get(self.from + usize::from(*place));
        match places.get(self.behind..=self.behind + many) {
            Some([quotes @ .., end]) => {
                let fits = byte(end) == Some(&b'\n') && quotes.iter().all(|place| byte(place) == Some(&b'"'));
                fits.then_some(true)
            }
            // There is nothing more to look at.
            _ if at == self.from => None,
            _ => Some(false),
        }
    }

    #[inline(never)]
    fn look<const CLEAN: bool>(&mut self, block: &[u8], at: usize) {
        let places = self.places.get_or_insert_with(|| Box::new(Places::new()));
        places.clear();
        let bytes = &block[at..block.len().min(at + REACH)];
        (self.from, self.to, self.behind) = (at, at + bytes.len(), 0);
        let (words, rest) = bytes.as_chunks::<WORD>();
        for (index, word) in words.iter().enumerate() {
            places.add(index * WORD, finds::<CLEAN>(word));
        }
        if !rest.is_empty() {
            let mut word = [0; WORD];
            word[..rest.len()].copy_from_slice(rest);
            places.add(words.len() * WORD, finds::<CLEAN>(&word));
        }
    }
}

/// Where there is a quote, a backslash or a newline among the bytes, or another control character, if that is wanted: a bit for
/// each.
#[inline]
fn finds<const CONTROLS: bool>(word: &[u8; WORD]) -> u64 {
    let wanted: [i8x16; 3] = [b'"', b'\\', b'\n'].map(splat);
    (0..WORD).step_by(WIDTH).fold(0, |finds, at| {
        let bytes = load(&word[at..at + WIDTH]);
        let [quotes, backslashes, newlines] = wanted.map(|byte| bytes.simd_eq(byte));
        let ends = if CONTROLS { controls(bytes) } else { newlines };
        finds | u64::from((quotes | backslashes | ends).to_bitmask()) << at
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is told of a line is what one look at each byte tells, whichever lines were asked for before.
        #[test]
        fn lines_are_told_by_their_quotes(
            lines in proptest::collection::vec(
                (proptest::collection::vec(prop::sample::select(vec!["\"", "\\", "x", "0123456789", "\0", "\t", "\u{7f}", "é"]), 0..60),
                 0_usize..3, 0_usize..9),
                0..40,
            ),
            clean: bool,
        ) {
            let block: Vec<u8> = lines.iter().flat_map(|(pieces, ..)| [&pieces.concat(), "\n"].concat().into_bytes()).collect();
            let (mut quotes, mut at) = (Quotes::default(), 0);
            for (pieces, asked, many) in &lines {
                let (line, mut was_told) = (pieces.concat(), false);
                for _ in 0..*asked {
                    let places: Vec<usize> = line.match_indices('"').map(|(place, _)| place).collect();
                    let odd = |c: char| c == '\\' || clean && c < ' ';
                    let fits = places.len() == *many && !line.contains(odd) && line.len() < REACH;
                    let told = quotes.of_line(&block, at, Marks { quotes: *many, clean });
                    let told = told.map(|(told, end)| ((0..).map_while(|index| told.at(index)).collect(), end));
                    was_told = told.is_some();
                    prop_assert_eq!(told, fits.then_some((places, at + line.len())));
                }
                if was_told && at % 2 == 0 {
                    quotes.go_on_behind(*many);
                }
                at += line.len() + 1;
            }
            quotes.forget();
            prop_assert!(quotes.of_line(b"\"", 0, Marks { quotes: 1, clean }).is_none(), "it has no newline");
        }
    }
}
