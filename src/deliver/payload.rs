//! The API's JSON: the one file that knows it (<https://help.silktide.com>, "How to record an event from a server").

use std::borrow::Cow;
use std::fmt;
use std::hash::Hasher;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::batch::Batch;
use crate::event::Event;

/// A site's property key. It shows itself in full only to [`PropertyKey::expose`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PropertyKey(String);

impl PropertyKey {
    /// Takes a key as it is.
    pub fn new(key: String) -> Self {
        Self(key)
    }

    /// The key itself, for the POST.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A text with the key hidden wherever it stands in it.
    pub fn hide_in(&self, text: String) -> String {
        if self.0.is_empty() || !text.contains(&self.0) {
            return text;
        }
        text.replace(&self.0, &redact(&self.0))
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
        f.write_str(&redact(&self.0))
    }
}

impl fmt::Debug for PropertyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PropertyKey({self})")
    }
}

struct Body<'a> {
    key: &'a str,
    batch: &'a Batch,
}

struct Events<'a>(&'a Batch);
struct OneEvent<'a>(&'a Event);

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let visitor = self.batch.visitor();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("propertyKey", self.key)?;
        map.serialize_entry("url", self.batch.page())?;
        map.serialize_entry("ip", &visitor.ip)?;
        if let Some(width) = visitor.view_width {
            map.serialize_entry("viewWidth", &width)?;
        }
        map.serialize_entry("userAgent", &visitor.user_agent)?;
        map.serialize_entry("events", &Events(self.batch))?;
        map.end()
    }
}

impl Serialize for Events<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for event in self.0.events() {
            list.serialize_element(&OneEvent(event))?;
        }
        list.end()
    }
}

impl Serialize for OneEvent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("event", &*self.0.name)?;
        map.serialize_entry("url", &self.0.url)?;
        for (name, value) in &self.0.properties {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Writes a POST's body. `hide_key`: for eyes, not for the endpoint.
pub fn body(key: &PropertyKey, batch: &Batch, hide_key: bool, out: &mut Vec<u8>) {
    let shown = if hide_key { Cow::Owned(redact(key.expose())) } else { Cow::Borrowed(key.expose()) };
    // Writing strings and numbers to memory can't fail.
    let _ = serde_json::to_writer(out, &Body { key: &shown, batch });
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
    use crate::event::Visitor;
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
            time: None,
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
}
