//! The formats that need no configuration: a name in, a format out.

use jiff::tz::TimeZone;

use super::split::{Splitter, Tail};
use super::{Format, Reader, apache};

/// The names, in the order in which they are worth trying.
pub const BUILTIN: &[&str] = &["common", "combined", "vhost_combined", "caddy"];

/// What a name stands for, as Apache writes it.
fn log_format(name: &str) -> Option<&'static str> {
    Some(match name {
        "common" => r#"%h %l %u %t "%r" %>s %b"#,
        "combined" => r#"%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i""#,
        "vhost_combined" => r#"%v:%p %h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i""#,
        _ => return None,
    })
}

/// Where Caddy's access log has the fields.
const CADDY: [(&str, &str); 15] = [
    // The last that is there wins: older versions have the first alone.
    ("ip", "request.remote_addr"),
    ("ip", "request.remote_ip"),
    ("ip", "request.client_ip"),
    ("time", "ts"),
    ("method", "request.method"),
    ("target", "request.uri"),
    ("protocol", "request.proto"),
    ("host", "request.host"),
    ("status", "status"),
    ("bytes", "size"),
    ("referer", "request.headers.Referer[0]"),
    ("user_agent", "request.headers.User-Agent[0]"),
    ("user", "user_id"),
    ("forwarded_for", "request.headers.X-Forwarded-For"),
    ("range", "request.headers.Range[0]"),
];

pub(super) fn format(name: &str, zone: &TimeZone) -> Option<Format> {
    if name == "caddy" {
        let fields = CADDY.map(|(field, path)| (field.to_owned(), path.to_owned()));
        return Format::json(name, &fields, None, zone.clone()).ok();
    }
    let text = log_format(name)?;
    // As people's servers really write them: as above, with a time that has lost its brackets, or with tabs.
    let bare = text.replace("%t", "%{%d/%b/%Y:%H:%M:%S %z}t");
    let tabs = text.replace(' ', "\t");
    let ways: Vec<Splitter> = [text, &bare, &tabs]
        .into_iter()
        .filter_map(|text| Splitter::new(apache::items(text).ok()?, Tail::Open, true).ok())
        .collect();
    Some(Format::new(name, text, zone.clone(), Reader::Split(ways)))
}
