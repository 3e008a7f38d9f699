//! Undoes what a log's writer escaped: bytes as logged in, the bytes that the client sent out. Pure.
//!
//! nginx writes `\xHH` (upper case), or JSON's escapes; Apache `\xhh`, `\"`, `\\`, `\n` and the like. Logs pass through
//! converters and syslog, so all of them are undone everywhere, in either case. A backslash that begins no known
//! escape is itself.

use std::borrow::Cow;

use crate::entry::Text;

/// The text without its escapes; borrowed where there were none.
pub fn unescape(text: &[u8]) -> Text<'_> {
    let Some(first) = memchr::memchr(b'\\', text) else { return Cow::Borrowed(text) };
    let mut out = Vec::with_capacity(text.len());
    let (plain, mut rest) = text.split_at(first);
    out.extend_from_slice(plain);
    while !rest.is_empty() {
        let taken = escape(rest, &mut out);
        rest = &rest[taken..];
        let plain = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
    }
    Cow::Owned(out)
}

/// Undoes the escape at the start of `text` (a backslash) and says how many bytes it took, at least one.
fn escape(text: &[u8], out: &mut Vec<u8>) -> usize {
    let byte = match text.get(1) {
        Some(b'"' | b'\\' | b'/' | b'\'') => text[1],
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'b') => 0x08,
        Some(b'f') => 0x0c,
        Some(b'v') => 0x0b,
        Some(b'x' | b'X') => {
            if let Some(value) = hex(text, 2, 2) {
                // Two digits: fits a byte.
                out.push(value as u8);
                return 4;
            }
            out.push(b'\\');
            return 1;
        }
        Some(b'u') => {
            if let Some((c, taken)) = unicode(text) {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return taken;
            }
            out.push(b'\\');
            return 1;
        }
        _ => {
            out.push(b'\\');
            return 1;
        }
    };
    out.push(byte);
    2
}

/// `\uHHHH`, or two of them that make one character.
fn unicode(text: &[u8]) -> Option<(char, usize)> {
    let high = hex(text, 2, 4)?;
    if let Some(c) = char::from_u32(high) {
        return Some((c, 6));
    }
    let low = if text.get(6..8) == Some(b"\\u") { hex(text, 8, 4) } else { None };
    match (high, low) {
        (0xd800..0xdc00, Some(low @ 0xdc00..0xe000)) => {
            char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)).map(|c| (c, 12))
        }
        _ => Some((char::REPLACEMENT_CHARACTER, 6)),
    }
}

/// The number that `digits` hexadecimal digits at `at` spell.
fn hex(text: &[u8], at: usize, digits: usize) -> Option<u32> {
    text.get(at..at + digits)?.iter().try_fold(0, |value, &b| Some(value << 4 | char::from(b).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_servers_escapes_are_undone() {
        for (name, logged, want) in [
            ("nothing", &b"/a b"[..], &b"/a b"[..]),
            ("nginx", br"\x22\xC3\xA4\x5C", "\"ä\\".as_bytes()),
            ("apache", br#"\"\xc3\xa4\\\n\t\v"#, "\"ä\\\n\t\x0b".as_bytes()),
            ("an escaped backslash before x", br"\\x41", br"\x41"),
            ("json", br"\u00e4\u001F\/", "ä\x1f/".as_bytes()),
            ("a surrogate pair", br"\ud83d\ude00", "😀".as_bytes()),
            ("a lone surrogate", br"\ud83dx", "\u{fffd}x".as_bytes()),
            ("cut short", br"a\x4", br"a\x4"),
            ("a backslash at the end", br"a\", br"a\"),
            ("not an escape", br"C:\dir\xyz", br"C:\dir\xyz"),
        ] {
            assert_eq!(&*unescape(logged), want, "{name}");
        }
    }

    proptest! {
        #[test]
        fn nginx_and_apache_escapes_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..40), upper: bool) {
            let mut logged = Vec::new();
            for &b in &bytes {
                match b {
                    b'"' | b'\\' | 0..0x20 | 0x7f.. if upper => logged.extend(format!("\\x{b:02X}").bytes()),
                    b'"' | b'\\' => logged.extend([b'\\', b]),
                    0..0x20 | 0x7f.. => logged.extend(format!("\\x{b:02x}").bytes()),
                    _ => logged.push(b),
                }
            }
            prop_assert_eq!(&*unescape(&logged), &bytes[..]);
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(prop_oneof![Just(b'\\'), Just(b'u'), Just(b'x'), any::<u8>()], 0..40)) {
            let _ = unescape(&bytes);
        }
    }
}
