//! Sixteen bytes at a time, and the places that are found so. Pure.

use wide::i8x16;

/// Bytes that are looked at together.
pub const WIDTH: usize = 16;
/// Bytes whose finds are one word: a bit for each.
pub const WORD: usize = 64;
/// Finds in a word that are the rule.
const USUAL: usize = 3;

/// Sixteen bytes; it is for the caller to give so many.
#[inline]
pub fn load(bytes: &[u8]) -> i8x16 {
    let mut lanes = [0; WIDTH];
    lanes.copy_from_slice(bytes);
    i8x16::new(lanes.map(u8::cast_signed))
}

/// Sixteen times the same.
#[inline]
pub fn splat(byte: u8) -> i8x16 {
    i8x16::splat(byte.cast_signed())
}

/// Where a byte is first, mostly among the first sixteen.
#[inline]
pub fn position(bytes: &[u8], wanted: u8) -> Option<usize> {
    let Some(first) = bytes.first_chunk::<WIDTH>() else { return bytes.iter().position(|byte| *byte == wanted) };
    match load(first).simd_eq(splat(wanted)).to_bitmask() {
        0 => memchr::memchr(wanted, &bytes[WIDTH..]).map(|at| WIDTH + at),
        places => Some(places.trailing_zeros() as usize),
    }
}

/// Whether any of three bytes is among some, or one that isn't ASCII: of a few dozen, it costs less to look at here than to
/// call what looks at many.
#[inline]
pub fn holds_any(bytes: &[u8], wanted: [u8; 3]) -> bool {
    // The last sixteen may have been looked at already.
    let Some(last) = bytes.last_chunk() else {
        return bytes.iter().any(|byte| wanted.contains(byte) || !byte.is_ascii());
    };
    let wanted = wanted.map(splat);
    let found = |bytes: &[u8; WIDTH]| {
        let bytes = load(bytes);
        let [one, two, three] = wanted.map(|byte| bytes.simd_eq(byte));
        // The mask is of the highest bits, and those of what isn't ASCII are set.
        one | two | three | bytes
    };
    bytes.as_chunks().0.iter().fold(found(last), |all, bytes| all | found(bytes)).to_bitmask() != 0
}

/// Which are control characters: those before the space.
#[inline]
pub fn controls(bytes: i8x16) -> i8x16 {
    // Bytes are compared as signed numbers: with the highest bit turned over they keep their order.
    (bytes ^ splat(0x80)).simd_lt(splat(b' ' ^ 0x80))
}

/// Whether any of some bytes can't stand in a JSON string as it is: a quote, a backslash, a control character (RFC 8259,
/// section 7).
#[inline]
pub fn needs_escape(bytes: &[u8]) -> bool {
    let (mut few, len) = ([b' '; WIDTH], bytes.len());
    let last = match bytes.last_chunk() {
        Some(last) => last,
        None => {
            few[..len].copy_from_slice(bytes);
            &few
        }
    };
    let (quote, backslash) = (splat(b'"'), splat(b'\\'));
    let found = |bytes: &[u8; WIDTH]| {
        let bytes = load(bytes);
        bytes.simd_eq(quote) | bytes.simd_eq(backslash) | controls(bytes)
    };
    bytes.as_chunks().0.iter().fold(found(last), |all, bytes| all | found(bytes)).to_bitmask() != 0
}

/// Whether a path holds nothing but letters, digits and some of the marks that parsing a URL leaves as they are (RFC 3986,
/// section 3.3: all between `(` and `;`, `@`, `_`), and no segment that begins with a dot.
#[inline]
pub fn is_plain_path(path: &[u8]) -> bool {
    let (Some(last), Some(last_before)) = (path.last_chunk(), path[..path.len().saturating_sub(1)].last_chunk()) else {
        let is_plain = |byte: &u8| matches!(byte, b'('..=b';' | b'@'..=b'Z' | b'_' | b'a'..=b'z');
        return path.iter().all(is_plain) && !path.windows(2).any(|pair| pair == b"/.");
    };
    let within = |bytes: i8x16, first: u8, last: u8| bytes.simd_gt(splat(first - 1)) & bytes.simd_lt(splat(last + 1));
    let plain = |bytes: &[u8; WIDTH], before: &[u8; WIDTH]| {
        let (bytes, before) = (load(bytes), load(before));
        // What isn't ASCII is negative here, and in none of them.
        let marks = within(bytes, b'(', b';') | within(bytes, b'@', b'Z');
        let is_plain = marks | within(bytes, b'a', b'z') | bytes.simd_eq(splat(b'_'));
        !(before.simd_eq(splat(b'/')) & bytes.simd_eq(splat(b'.'))) & is_plain
    };
    let (chunks, _) = path[1..].as_chunks();
    let (before, _) = path.as_chunks();
    chunks
        .iter()
        .zip(before)
        .fold(plain(last, last_before), |all, (bytes, before)| all & plain(bytes, before))
        .to_bitmask()
        == 0xffff
        && matches!(path[0], b'('..=b';' | b'@'..=b'Z' | b'_' | b'a'..=b'z')
}

/// Places among at most `N` bytes, a multiple of [`WORD`], in their order.
///
/// They are put down first and looked at then: how many there are in a word can't be foreseen, and a processor that guesses
/// wrong has to begin again.
#[derive(Debug)]
pub struct Places<const N: usize> {
    places: [u16; N],
    many: usize,
}

impl<const N: usize> Places<N> {
    /// None yet.
    pub const fn new() -> Self {
        assert!(N.is_multiple_of(WORD) && N <= 1 << 16, "places are counted with 16 bits");
        Self { places: [0; N], many: 0 }
    }

    /// None any more.
    #[inline]
    pub fn clear(&mut self) {
        self.many = 0;
    }

    /// Adds what was found in the word that begins `at` there. Words come in their order, each once.
    #[inline]
    pub fn add(&mut self, at: usize, mut finds: u64) {
        // There are never more than bytes; the remainder spares asking.
        let put_down = |places: &mut [u16; N], many: usize, finds: u64| {
            places[many % N] = (at + finds.trailing_zeros() as usize) as u16;
        };
        // Mostly there are so many at most, and what isn't one is written over.
        for _ in 0..USUAL {
            put_down(&mut self.places, self.many, finds);
            self.many += usize::from(finds != 0);
            finds &= finds.wrapping_sub(1);
        }
        while finds != 0 {
            put_down(&mut self.places, self.many, finds);
            self.many += 1;
            finds &= finds - 1;
        }
    }

    /// All of them.
    #[inline]
    pub fn all(&self) -> &[u16] {
        &self.places[..self.many.min(N)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_among_them_is_found_wherever_it_is(
            len in 0_usize..70,
            place in 0_usize..80,
            byte in proptest::sample::select(b"abcde\x00\x7f\x80\xff".to_vec()),
        ) {
            let mut bytes = vec![b'x'; len];
            if let Some(there) = bytes.get_mut(place) {
                *there = byte;
            }
            prop_assert_eq!(holds_any(&bytes, *b"abc"), place < len && (b"abc".contains(&byte) || byte >= 0x80));
        }

        #[test]
        fn plain_paths_are_told_wherever_the_other_byte_is(
            len in 0_usize..70,
            place in 0_usize..80,
            pair in proptest::sample::select(vec![*b"/.", *b"x.", *b".x", *b"./", *b"//", *b".."]),
            byte: u8,
        ) {
            for put in [&pair[..], &[byte]] {
                let mut path = vec![b'x'; len];
                for (there, byte) in path.iter_mut().skip(place).zip(put) {
                    *there = *byte;
                }
                let stays = |byte: &u8| byte.is_ascii_alphanumeric() || b"()*+,-./:;@_".contains(byte);
                let is_plain = path.iter().all(stays) && !path.windows(2).any(|pair| pair == b"/.");
                prop_assert_eq!(is_plain_path(&path), is_plain);
            }
        }

        #[test]
        fn what_must_be_escaped_is_found_wherever_it_is(len in 0_usize..70, place in 0_usize..80, byte: u8) {
            let mut bytes = vec![b'x'; len];
            if let Some(there) = bytes.get_mut(place) {
                *there = byte;
            }
            let must_be = matches!(byte, 0..0x20 | b'"' | b'\\');
            prop_assert_eq!(needs_escape(&bytes), place < len && must_be);
        }
    }
}
