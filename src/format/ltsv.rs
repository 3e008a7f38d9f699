//! Labelled tab-separated values (ltsv.org): `label:value`, in any order. The labels recommended there, and those
//! that nginx users make of its variables' names.

use super::slot::{Slot, When, complete};
use super::split::Stop;
use super::time::Clock;
use super::unescape::unescape;
use crate::entry::Entry;

/// What the labels mean. `host` is missing: it is the client, unless another label is.
static LABELS: &[(&[u8], Slot)] = &[
    (b"time", Slot::Time(Clock::Auto)),
    (b"req", Slot::Request),
    (b"method", Slot::Method),
    (b"uri", Slot::Target),
    (b"protocol", Slot::Protocol),
    (b"status", Slot::Status),
    (b"size", Slot::Bytes),
    (b"referer", Slot::Referer),
    (b"ua", Slot::UserAgent),
    (b"vhost", Slot::Host),
    (b"forwardedfor", Slot::ForwardedFor),
    (b"user", Slot::User),
    (b"range", Slot::Range),
    (b"dnt", Slot::Dnt),
    (b"gpc", Slot::Gpc),
    (b"view_width", Slot::ViewWidth),
    (b"remote_addr", Slot::Ip),
    (b"remote_host", Slot::Ip),
    (b"ip", Slot::Ip),
    (b"remote_user", Slot::User),
    (b"time_local", Slot::Time(Clock::Auto)),
    (b"time_iso8601", Slot::Time(Clock::Auto)),
    (b"msec", Slot::Time(Clock::Unix)),
    (b"request", Slot::Request),
    (b"request_method", Slot::Method),
    (b"request_uri", Slot::Target),
    (b"server_protocol", Slot::Protocol),
    (b"body_bytes_sent", Slot::Bytes),
    (b"bytes_sent", Slot::Bytes),
    (b"bytes", Slot::Bytes),
    (b"http_referer", Slot::Referer),
    (b"http_user_agent", Slot::UserAgent),
    (b"user_agent", Slot::UserAgent),
    (b"useragent", Slot::UserAgent),
    (b"http_host", Slot::Host),
    (b"server_name", Slot::Host),
    (b"domain", Slot::Host),
    (b"http_x_forwarded_for", Slot::ForwardedFor),
    (b"x_forwarded_for", Slot::ForwardedFor),
    (b"forwarded_for", Slot::ForwardedFor),
    (b"http_range", Slot::Range),
    (b"http_dnt", Slot::Dnt),
    (b"http_sec_gpc", Slot::Gpc),
];

/// What lines with these labels may give.
pub(super) fn slots() -> impl Iterator<Item = &'static Slot> + Clone {
    LABELS.iter().map(|(_, slot)| slot)
}

/// Reads a line into an empty entry, or says where it stops fitting.
pub(super) fn read<'l>(line: &'l [u8], when: When<'_>, entry: &mut Entry<'l>) -> Result<(), Stop> {
    let (mut client, mut request) = (false, false);
    let mut host: Option<&[u8]> = None;
    let mut at = 0;
    while at < line.len() {
        let end = memchr::memchr(b'\t', &line[at..]).map_or(line.len(), |tab| at + tab);
        let part = &line[at..end];
        let stop = Stop { format_span: 0..0, line_at: at };
        at = end + 1;
        if part.trim_ascii().is_empty() {
            continue;
        }
        let Some(colon) = memchr::memchr(b':', part).filter(|&colon| is_label(&part[..colon])) else {
            return Err(stop);
        };
        let (label, value) = (&part[..colon], &part[colon + 1..]);
        let value = if end == line.len() { value.trim_ascii_end() } else { value };
        if label == b"host" {
            host = Some(value);
            continue;
        }
        let Some((_, slot)) = LABELS.iter().find(|(name, _)| *name == label) else { continue };
        client |= matches!(slot, Slot::Ip | Slot::ForwardedFor);
        request |= matches!(slot, Slot::Request | Slot::Target);
        if !slot.take(unescape(value), when, entry) {
            return Err(stop);
        }
        // At the end of a line, a request without its protocol is one that was cut off: its target is another's.
        if matches!(slot, Slot::Request) && at > line.len() && entry.protocol.is_none() && entry.target.is_some() {
            return Err(stop);
        }
    }
    if let Some(host) = host {
        client = true;
        let slot = if entry.ip.is_none() { Slot::Ip } else { Slot::Host };
        slot.take(unescape(host), when, entry);
    }
    if !client || !request {
        return Err(Stop { format_span: 0..0, line_at: line.len() });
    }
    complete(entry);
    Ok(())
}

fn is_label(label: &[u8]) -> bool {
    !label.is_empty() && label.iter().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(b))
}
