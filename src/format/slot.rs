//! Where a logged value goes: one variable of a format in, one field of the [`Entry`] out.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::time::{Clock, Moment};
use crate::entry::{Entry, FIELDS, Text};

/// What a value means.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Slot {
    /// A number that nobody asks for, like a port: only its form is checked.
    Number,
    /// Whatever it is, nobody asks for it.
    Ignored,
    Ip,
    /// An address with a port behind it, which is dropped: an IPv6 address's last part looks the same.
    IpPort,
    Time(Clock),
    Request,
    Method,
    Target,
    /// The path alone; `decoded` where the server has already undone the percent-encoding.
    Path {
        decoded: bool,
    },
    /// The query; `marked` where it comes with its `?`.
    Query {
        marked: bool,
    },
    Protocol,
    Status,
    Bytes,
    Referer,
    UserAgent,
    Host,
    User,
    ForwardedFor,
    Range,
    ViewWidth,
    Dnt,
    Gpc,
    /// Beyond the standard fields, under its own name.
    Extra(Arc<str>),
}

/// What reading a time needs beside its text.
#[derive(Debug, Clone, Copy)]
pub(super) struct When<'z> {
    pub zone: &'z TimeZone,
    /// The time of the line before, if known.
    pub after: Option<Timestamp>,
    /// The last time that stands for itself, and how it was written.
    pub last: &'z RefCell<Last>,
}

/// A time with its offset, as most logs write it, and its text: the lines of a second have the same. Elsewhere, for of ten
/// thousand logs hardly any is being read.
#[derive(Debug, Clone, Default)]
pub(super) struct Last(Option<Box<(Vec<u8>, Moment)>>);

impl When<'_> {
    /// The last time that stands for itself, if this is it.
    #[inline]
    fn again(self, text: &[u8]) -> Option<Moment> {
        let last = self.last.borrow();
        let (known, moment) = last.0.as_deref()?;
        // Sixteen bytes at either end, which are all of it: to call what compares any number would take longer.
        let is_known = match (known.first_chunk::<16>(), known.last_chunk::<16>()) {
            (Some(first), Some(last)) if known.len() <= 32 => {
                text.len() == known.len() && text.first_chunk() == Some(first) && text.last_chunk() == Some(last)
            }
            _ => known == text,
        };
        is_known.then_some(*moment)
    }

    /// Reads a time.
    fn read(self, clock: &Clock, text: &[u8]) -> Option<Moment> {
        if *clock != Clock::Auto {
            return clock.read(text, self.zone, self.after);
        }
        if let Some(moment) = self.again(text) {
            return Some(moment);
        }
        let mut last = self.last.borrow_mut();
        let moment = clock.read(text, self.zone, self.after)?;
        // Without an offset it depends on the lines before.
        if moment.offset.is_some() {
            let (known, of) = &mut **last.0.get_or_insert_with(|| Box::new((Vec::new(), moment)));
            known.clear();
            known.extend_from_slice(text);
            *of = moment;
        }
        Some(moment)
    }
}

impl Slot {
    /// The slot of a field by its name, `request` included.
    pub(super) fn of_field(name: &str) -> Option<Slot> {
        Some(match name {
            "ip" => Slot::Ip,
            "time" => Slot::Time(Clock::Auto),
            "request" => Slot::Request,
            "method" => Slot::Method,
            "target" => Slot::Target,
            "path" => Slot::Path { decoded: false },
            "query" => Slot::Query { marked: false },
            "protocol" => Slot::Protocol,
            "status" => Slot::Status,
            "bytes" => Slot::Bytes,
            "referer" => Slot::Referer,
            "user_agent" => Slot::UserAgent,
            "host" => Slot::Host,
            "user" => Slot::User,
            "forwarded_for" => Slot::ForwardedFor,
            "range" => Slot::Range,
            "view_width" => Slot::ViewWidth,
            "dnt" => Slot::Dnt,
            "gpc" => Slot::Gpc,
            _ => return None,
        })
    }

    /// The field that is set, `request` for the three of a request line.
    pub(super) fn field(&self) -> Option<&'static str> {
        Some(match self {
            Slot::Number | Slot::Ignored | Slot::Extra(_) => return None,
            Slot::Ip | Slot::IpPort => "ip",
            Slot::Time(_) => "time",
            Slot::Request => "request",
            Slot::Method => "method",
            Slot::Target => "target",
            Slot::Path { .. } => "path",
            Slot::Query { .. } => "query",
            Slot::Protocol => "protocol",
            Slot::Status => "status",
            Slot::Bytes => "bytes",
            Slot::Referer => "referer",
            Slot::UserAgent => "user_agent",
            Slot::Host => "host",
            Slot::User => "user",
            Slot::ForwardedFor => "forwarded_for",
            Slot::Range => "range",
            Slot::ViewWidth => "view_width",
            Slot::Dnt => "dnt",
            Slot::Gpc => "gpc",
        })
    }

    /// Whether only digits or `-` can stand here.
    pub(super) fn is_number(&self) -> bool {
        matches!(self, Slot::Number | Slot::Status | Slot::Bytes)
    }

    /// The field of an entry that keeps any value of this slot as it is.
    #[inline]
    pub(super) fn place<'e, 'l>(&self, entry: &'e mut Entry<'l>) -> Option<&'e mut Option<Text<'l>>> {
        Some(match self {
            Slot::Path { decoded: false } => &mut entry.path,
            Slot::Ip => &mut entry.ip,
            Slot::Method => &mut entry.method,
            Slot::Protocol => &mut entry.protocol,
            Slot::Referer => &mut entry.referer,
            Slot::UserAgent => &mut entry.user_agent,
            Slot::ForwardedFor => &mut entry.forwarded_for,
            Slot::Range => &mut entry.range,
            Slot::Dnt => &mut entry.dnt,
            Slot::Gpc => &mut entry.gpc,
            _ => return None,
        })
    }

    /// The same as [`Slot::take`] for what is neither empty nor `-`, and had no escapes.
    #[inline]
    pub(super) fn take_borrowed<'l>(&self, value: &'l [u8], when: When<'_>, entry: &mut Entry<'l>) -> bool {
        if let Some(place) = self.place(entry) {
            *place = Some(Cow::Borrowed(value));
            return true;
        }
        // What nearly every format has.
        match self {
            Slot::Time(Clock::Auto) => match when.again(value) {
                Some(Moment { time, offset }) => {
                    (entry.time, entry.offset) = (Some(time), offset);
                    true
                }
                None => self.take(Cow::Borrowed(value), when, entry),
            },
            Slot::Status => {
                entry.status = number(value).and_then(|status| u16::try_from(status).ok());
                entry.status.is_some()
            }
            Slot::Bytes => {
                entry.bytes = number(value);
                entry.bytes.is_some()
            }
            Slot::Request => {
                if !entry.set_plain_request(value) {
                    entry.set_request(Cow::Borrowed(value));
                }
                true
            }
            _ => self.take(Cow::Borrowed(value), when, entry),
        }
    }

    /// Puts a value, escapes undone, into the entry; `false` if it can't be one: the line doesn't fit.
    pub(super) fn take<'l>(&self, value: Text<'l>, when: When<'_>, entry: &mut Entry<'l>) -> bool {
        if value.is_empty() || &*value == b"-" {
            return true;
        }
        if let Some(place) = self.place(entry) {
            *place = Some(value);
            return true;
        }
        match self {
            Slot::Number => return number(&value).is_some(),
            Slot::Ignored => {}
            Slot::Status => match number(&value).and_then(|status| u16::try_from(status).ok()) {
                Some(status) => entry.status = Some(status),
                None => return false,
            },
            Slot::Bytes => match number(&value) {
                Some(bytes) => entry.bytes = Some(bytes),
                None => return false,
            },
            Slot::Time(clock) => match when.read(clock, &value) {
                Some(Moment { time, offset }) => (entry.time, entry.offset) = (Some(time), offset),
                None => return false,
            },
            // A client may send anything as its width: nonsense is no reason to disbelieve the line.
            Slot::ViewWidth => {
                let width = number(&value).and_then(|width| u32::try_from(width).ok());
                entry.view_width = width.filter(|width| *width > 0);
            }
            Slot::Request => entry.set_request(value),
            Slot::Target => entry.set_target(value),
            Slot::Path { decoded: true } => entry.path = Some(encode(value)),
            Slot::Query { marked } => {
                let query = if *marked { without_mark(value) } else { value };
                if !query.is_empty() {
                    entry.query = Some(query);
                }
            }
            // The host of an absolute target is what the client asked for.
            Slot::Host if entry.host.is_none() => entry.host = Some(value),
            Slot::IpPort => entry.ip = Some(without_port(value)),
            // How Apache logs a name that was given and is empty.
            Slot::User if &*value == b"\"\"" => {}
            Slot::User => entry.user = Some(value),
            Slot::Extra(name) => entry.extra.push((Arc::clone(name), value)),
            // It is known better already.
            Slot::Host => {}
            // Those have a place of their own.
            Slot::Path { decoded: false }
            | Slot::Ip
            | Slot::Method
            | Slot::Protocol
            | Slot::Referer
            | Slot::UserAgent
            | Slot::ForwardedFor
            | Slot::Range
            | Slot::Dnt
            | Slot::Gpc => {}
        }
        true
    }
}

/// Fills in what follows from the other fields: a target from a path and a query that were logged apart.
pub(super) fn complete(entry: &mut Entry<'_>) {
    if entry.target.is_some() {
        return;
    }
    let Some(path) = &entry.path else { return };
    entry.target = Some(match &entry.query {
        None => path.clone(),
        Some(query) => Cow::Owned([&path[..], b"?", &query[..]].concat()),
    });
}

/// What a format with these slots can give, `request` spelled out, in the order of [`FIELDS`].
pub(super) fn fields_given<'s>(slots: impl Iterator<Item = &'s Slot> + Clone) -> Vec<&'static str> {
    let set = |name: &str| slots.clone().any(|slot| slot.field() == Some(name));
    FIELDS
        .into_iter()
        .filter(|field| match *field {
            "method" | "protocol" => set(field) || set("request"),
            "target" | "path" => set("path") || set("target") || set("request"),
            "query" => set("query") || set("target") || set("request"),
            _ => set(field),
        })
        .collect()
}

#[inline]
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    // So many digits are no more than it can hold.
    if text.len() < 20 {
        let (mut value, mut is_number) = (0_u64, true);
        for byte in text {
            let digit = byte.wrapping_sub(b'0');
            is_number &= digit < 10;
            value = value.wrapping_mul(10).wrapping_add(digit.into());
        }
        return is_number.then_some(value);
    }
    text.iter().try_fold(0u64, |value, b| match b {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(b - b'0')),
        _ => None,
    })
}

fn without_port(address: Text<'_>) -> Text<'_> {
    let colon = memchr::memrchr(b':', &address).filter(|&colon| number(&address[colon + 1..]).is_some());
    let end = colon.unwrap_or(address.len());
    match address {
        Cow::Borrowed(bytes) => {
            let bytes = &bytes[..end];
            Cow::Borrowed(bytes.strip_prefix(b"[").and_then(|bytes| bytes.strip_suffix(b"]")).unwrap_or(bytes))
        }
        Cow::Owned(mut bytes) => {
            bytes.truncate(end);
            Cow::Owned(bytes)
        }
    }
}

fn without_mark(query: Text<'_>) -> Text<'_> {
    match query {
        Cow::Borrowed(bytes) => Cow::Borrowed(bytes.strip_prefix(b"?").unwrap_or(bytes)),
        Cow::Owned(mut bytes) => {
            if bytes.first() == Some(&b'?') {
                bytes.remove(0);
            }
            Cow::Owned(bytes)
        }
    }
}

/// Makes a decoded path one that can be decoded again, and put in front of a query.
fn encode(path: Text<'_>) -> Text<'_> {
    if !path.iter().any(|b| b"%?#".contains(b)) {
        return path;
    }
    let mut out = Vec::with_capacity(path.len() + 8);
    for &b in path.iter() {
        match b {
            b'%' => out.extend_from_slice(b"%25"),
            b'?' => out.extend_from_slice(b"%3F"),
            b'#' => out.extend_from_slice(b"%23"),
            _ => out.push(b),
        }
    }
    Cow::Owned(out)
}
