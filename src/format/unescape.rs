//! Undoes what servers do to the bytes of a field: `\xHH` in either case, `\"`, `\\`, `\n` and their kin.

use std::borrow::Cow;

/// Borrows where there is nothing to undo. An escape that is none (`\q`, `\x4`) stays as it is.
pub fn unescape(bytes: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr::memchr(b'\\', bytes) else { return Cow::Borrowed(bytes) };
    let mut out = Vec::with_capacity(bytes.len());
    out.extend_from_slice(&bytes[..first]);
    let mut rest = &bytes[first..];
    while let Some((&byte, after)) = rest.split_first() {
        let (undone, taken) = match (byte, after) {
            (b'\\', [b'x', high, low, ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 4),
                _ => (byte, 1),
            },
            (b'\\', [b'"', ..]) => (b'"', 2),
            (b'\\', [b'\\', ..]) => (b'\\', 2),
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [b'b', ..]) => (8, 2),
            (b'\\', [b'v', ..]) => (11, 2),
            (b'\\', [b'f', ..]) => (12, 2),
            _ => (byte, 1),
        };
        out.push(undone);
        rest = &rest[taken..];
    }
    Cow::Owned(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_both_servers_are_undone() {
        for (name, escaped, want) in [
            ("nothing to do", &b"plain"[..], &b"plain"[..]),
            ("nginx", br"\x22caf\xC3\xA9\x22", "\"café\"".as_bytes()),
            ("Apache", br#"\"caf\xc3\xa9\" \\ \t"#, "\"café\" \\ \t".as_bytes()),
            ("not an escape", br"C:\q \x4", br"C:\q \x4"),
            ("cut off", br"end\", br"end\"),
        ] {
            assert_eq!(&*unescape(escaped), want, "{name}");
        }
    }
}
