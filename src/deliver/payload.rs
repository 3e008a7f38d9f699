//! The API's JSON: the one file that knows it (<https://help.silktide.com>, "How to record an event from a server").

use std::fmt;
use std::hash::Hasher;
use std::io::Write;
use std::net::IpAddr;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::batch::Batch;
use crate::sixteen::needs_escape;

/// A site's property key. It shows itself in full only to [`PropertyKey::expose`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PropertyKey {
    key: String,
    /// What each body begins with: up to the page.
    opening: Vec<u8>,
}

impl PropertyKey {
    /// Takes a key as it is.
    pub fn new(key: String) -> Self {
        Self { opening: opening(&key), key }
    }

    /// The key itself, for the POST.
    pub fn expose(&self) -> &str {
        &self.key
    }

    /// A text with the key hidden wherever it stands in it.
    pub fn hide_in(&self, text: String) -> String {
        if self.key.is_empty() || !text.contains(&self.key) {
            return text;
        }
        text.replace(&self.key, &redact(&self.key))
    }
}

/// A secret as it may be shown: its ends, where enough is hidden between them.
pub fn redact(secret: &str) -> String {
    let chars: Vec<char> = secret.chars().collect();
    if chars.len() < 16 {
        return "…".to_owned();
    }
    chars[..4].iter().chain(&['…']).chain(&chars[chars.len() - 4..]).collect()
}

impl fmt::Display for PropertyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.key))
    }
}

impl fmt::Debug for PropertyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PropertyKey({self})")
    }
}

/// Writes a POST's body. `hide_key`: for eyes, not for the endpoint.
pub fn body(key: &PropertyKey, batch: &Batch, hide_key: bool, out: &mut Vec<u8>) {
    let (visitor, is_clean) = (batch.visitor(), batch.is_clean());
    match hide_key {
        true => out.extend_from_slice(&opening(&redact(key.expose()))),
        false => out.extend_from_slice(&key.opening),
    }
    known_text(batch.page(), is_clean, out);
    out.extend_from_slice(b"\",\"ip\":\"");
    match visitor.ip {
        IpAddr::V4(ip) => write_v4(ip.octets(), out),
        // Writing to memory can't fail.
        IpAddr::V6(ip) => drop(write!(out, "{ip}")),
    }
    out.push(b'"');
    if let Some(width) = visitor.view_width {
        let _ = write!(out, ",\"viewWidth\":{width}");
    }
    out.extend_from_slice(b",\"userAgent\":\"");
    known_text(&visitor.user_agent, is_clean, out);
    out.extend_from_slice(b"\",\"events\":");
    for (number, event) in batch.events().enumerate() {
        out.extend_from_slice(if number == 0 { b"[{\"event\":\"" } else { b",{\"event\":\"" });
        text(&event.name, out);
        out.extend_from_slice(b"\",\"url\":\"");
        known_text(&event.url, event.clean.0, out);
        for (name, value) in &event.properties {
            out.extend_from_slice(b"\",\"");
            text(name, out);
            out.extend_from_slice(b"\":\"");
            text(value, out);
        }
        out.extend_from_slice(b"\"}");
    }
    out.extend_from_slice(b"]}");
}

/// A body's beginning, up to the page.
fn opening(key: &str) -> Vec<u8> {
    let mut out = b"{\"propertyKey\":\"".to_vec();
    text(key, &mut out);
    out.extend_from_slice(b"\",\"url\":\"");
    out
}

/// Writes an address as it is displayed, in a twentieth of the time.
fn write_v4(octets: [u8; 4], out: &mut Vec<u8>) {
    let (mut text, mut len) = ([0; 16], 0);
    for octet in octets {
        let (digits, many) = DECIMAL[usize::from(octet)];
        text[len..len + 4].copy_from_slice(&digits);
        len += usize::from(many) + 1;
    }
    // Without the last dot.
    out.extend_from_slice(&text[..len - 1]);
}

/// The decimal form of each byte with a dot behind it, and how many digits it has.
const DECIMAL: [([u8; 4], u8); 256] = {
    let mut all = [([0; 4], 0); 256];
    let mut byte = 0;
    while byte < 256 {
        let digits = [byte / 100, byte / 10 % 10, byte % 10];
        let many = if byte < 10 {
            1
        } else if byte < 100 {
            2
        } else {
            3
        };
        let mut at = 0;
        while at < many {
            all[byte].0[at] = b'0' + digits[3 - many + at] as u8;
            at += 1;
        }
        all[byte].0[many] = b'.';
        all[byte].1 = many as u8;
        byte += 1;
    }
    all
};

/// Writes what stands between the quotes of a JSON string. Nearly none needs an escape.
fn text(text: &str, out: &mut Vec<u8>) {
    if needs_escape(text.as_bytes()) { escaped(text, out) } else { out.extend_from_slice(text.as_bytes()) }
}

/// The same; `is_clean`: none needs one.
#[inline]
fn known_text(bytes: &str, is_clean: bool, out: &mut Vec<u8>) {
    if !is_clean {
        return text(bytes, out);
    }
    debug_assert!(!needs_escape(bytes.as_bytes()), "{bytes:?}");
    out.extend_from_slice(bytes.as_bytes());
}

#[cold]
fn escaped(text: &str, out: &mut Vec<u8>) {
    let quote = out.len();
    // Writing strings to memory can't fail.
    let _ = serde_json::to_writer(&mut *out, text);
    out.remove(quote);
    out.pop();
}

/// The `Idempotency-Key` of a POST: a hash of the lines it stands for. A retry has the same.
pub fn idempotency_key(batch: &Batch) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write_i64(batch.site().0);
    for event in batch.events() {
        hasher.write_i64(event.origin.log.0);
        hasher.write_u64(event.origin.line.start);
        hasher.write_u64(event.origin.line.end);
        // Two state directories number their logs alike; what the lines say tells them apart.
        hasher.write(event.url.as_bytes());
        hasher.write_i64(event.time.map_or(0, jiff::Timestamp::as_microsecond));
    }
    format!("{:032x}", hasher.finish128().as_u128())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Clean, Event, Visitor};
    use crate::offsets::{LogId, Origin, SiteId, Span};

    #[test]
    fn the_body_is_the_documents_example() {
        let visitor = Visitor {
            ip: "84.14.132.114".parse().unwrap(),
            user_agent: "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)".to_owned(),
            view_width: Some(979),
        };
        let event = Event {
            visitor,
            page: "https://silktide.com/".to_owned(),
            name: "download".into(),
            url: "https://example.com/downloaded-file.pdf".to_owned(),
            properties: vec![("plan".to_owned(), "gold".to_owned())],
            clean: Clean::default(),
            time: None,
            offset: None,
            origin: Origin { site: SiteId(1), log: LogId(1), line: Span { start: 0, end: 1 } },
        };
        let batch = Batch::of(0, event);
        let key = PropertyKey::new("8bce2be8c07a84a70e7104634b42878b".to_owned());
        let mut out = Vec::new();
        body(&key, &batch, false, &mut out);
        let want = r#"{"propertyKey":"8bce2be8c07a84a70e7104634b42878b","url":"https://silktide.com/","ip":"84.14.132.114","viewWidth":979,"userAgent":"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)","events":[{"event":"download","url":"https://example.com/downloaded-file.pdf","plan":"gold"}]}"#;
        assert_eq!(String::from_utf8(out).unwrap(), want);
        assert_eq!(format!("{key} {key:?}"), "8bce…878b PropertyKey(8bce…878b)");
        assert_eq!(idempotency_key(&batch).len(), 32);
    }

    #[test]
    fn addresses_are_written_as_they_are_displayed() {
        for octets in (0..=255).map(|octet| [octet, 255 - octet, 1, octet]) {
            let mut out = Vec::new();
            write_v4(octets, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), std::net::Ipv4Addr::from(octets).to_string());
        }
    }

    proptest::proptest! {
        /// Whatever a client sent, the body is the JSON of it, and two events are two.
        #[test]
        fn a_body_is_json_whatever_stands_in_it(
            texts in proptest::collection::vec("[a\"\\\\\\x00-\\x1f\\x7fé/😀]{0,12}", 7),
            width in proptest::option::of(0_u32..9),
        ) {
            let [key, page, agent, name, url, property, value] = &texts[..] else { unreachable!() };
            let event = Event {
                visitor: Visitor { ip: "2001:db8::1".parse().unwrap(), user_agent: agent.clone(), view_width: width },
                page: page.clone(),
                name: name.as_str().into(),
                url: url.clone(),
                properties: vec![(format!("{property}."), value.clone())],
                clean: Clean::default(),
                time: None,
                offset: None,
                origin: Origin { site: SiteId(1), log: LogId(1), line: Span { start: 0, end: 1 } },
            };
            let mut batcher = crate::batch::Batcher::new(2);
            proptest::prop_assert_eq!(batcher.add(event.clone(), 0), None);
            let batch = batcher.add(event, 0).unwrap();
            let mut out = Vec::new();
            body(&PropertyKey::new(key.clone()), &batch, false, &mut out);
            let event = serde_json::json!({ "event": name, "url": url, format!("{property}."): value });
            let mut want = serde_json::json!({ "propertyKey": key, "url": page, "ip": "2001:db8::1" });
            if let Some(width) = width {
                want["viewWidth"] = width.into();
            }
            want["userAgent"] = agent.as_str().into();
            want["events"] = serde_json::json!([event, event]);
            // The order of keys is the document's, too.
            proptest::prop_assert_eq!(String::from_utf8(out).unwrap(), want.to_string());
        }
    }
}
