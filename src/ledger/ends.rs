//! Lists of offsets, sorted and delta-coded: a few bytes for each. Pure.

/// Codes offsets, in any order and each at most once.
pub(super) fn encode(mut ends: Vec<u64>) -> Vec<u8> {
    ends.sort_unstable();
    ends.dedup();
    let mut out = Vec::with_capacity(ends.len() * 3);
    let mut last = 0;
    for end in ends {
        // LEB128: seven bits a byte, the lowest first, the eighth says that more follow.
        let mut delta = end - last;
        last = end;
        while delta >= 0x80 {
            out.push((delta & 0x7f) as u8 | 0x80);
            delta >>= 7;
        }
        out.push(delta as u8);
    }
    out
}

/// The offsets again; what follows a broken number is left out.
pub(super) fn decode(bytes: &[u8]) -> Vec<u64> {
    let mut ends = Vec::new();
    let (mut last, mut delta, mut shift) = (0_u64, 0_u64, 0_u32);
    for byte in bytes {
        let Some(part) = u64::from(byte & 0x7f).checked_shl(shift) else { break };
        delta |= part;
        shift += 7;
        if byte & 0x80 == 0 {
            last = last.saturating_add(delta);
            ends.push(last);
            (delta, shift) = (0, 0);
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn offsets_come_back_sorted(mut ends in proptest::collection::vec(any::<u64>(), 0..50)) {
            let got = decode(&encode(ends.clone()));
            ends.sort_unstable();
            ends.dedup();
            prop_assert_eq!(got, ends);
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            decode(&bytes);
        }
    }
}
