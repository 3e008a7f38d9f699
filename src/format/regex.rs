//! The user's own regexes, with named groups.

use std::sync::Arc;

use jiff::tz::TimeZone;
use regex::bytes::Regex;

use super::{FormatError, time, unescape::unescape};
use crate::entry::{Entry, FIELDS};

/// A compiled regex and what its groups mean.
#[derive(Debug)]
pub struct RegexFormat {
    regex: Regex,
    groups: Vec<(usize, Arc<str>)>,
    time: Option<String>,
}

impl RegexFormat {
    /// Compiles a pattern.
    pub fn new(pattern: &str, time: Option<&str>) -> Result<Self, FormatError> {
        let wrong = |message: String, help: Option<String>| FormatError { message, span: None, help };
        let regex = Regex::new(pattern).map_err(|error| {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            wrong(format!("bad regex: {reason}"), None)
        })?;
        let groups: Vec<(usize, Arc<str>)> =
            regex.capture_names().enumerate().filter_map(|(index, name)| Some((index, name?.into()))).collect();
        let has = |name: &str| groups.iter().any(|(_, group)| &**group == name);
        let mut missing = Vec::new();
        for name in ["ip", "user_agent"] {
            if !has(name) {
                missing.push(format!("`{name}`"));
            }
        }
        if !has("request") && !has("target") {
            missing.push("`request` or `target`".to_owned());
        }
        if !missing.is_empty() {
            let help = "name a group like this: (?P<ip>\\S+)".to_owned();
            return Err(wrong(format!("the regex has no group {}", missing.join(", ")), Some(help)));
        }
        if let Some(pattern) = time
            && let Err(error) = jiff::fmt::strtime::format(pattern, jiff::Timestamp::UNIX_EPOCH)
        {
            return Err(wrong(format!("bad time pattern: {error}"), None));
        }
        Ok(Self { regex, groups, time: time.map(str::to_owned) })
    }

    /// Whether it has a group of this name.
    pub fn has(&self, name: &str) -> bool {
        self.groups.iter().any(|(_, group)| &**group == name)
    }

    /// Groups that are no fields.
    pub fn extra(&self) -> Vec<Arc<str>> {
        let is_field = |name: &str| name == "request" || FIELDS.contains(&name);
        self.groups.iter().filter(|(_, name)| !is_field(name)).map(|(_, name)| Arc::clone(name)).collect()
    }

    /// How many groups it has.
    pub fn fields(&self) -> usize {
        self.groups.len()
    }

    /// Reads a line.
    pub fn parse<'l>(&self, line: &'l [u8], zone: &TimeZone) -> Option<Entry<'l>> {
        let captures = self.regex.captures(line)?;
        let mut entry = Entry::default();
        let mut path = None;
        let mut query = None;
        let mut host = None;
        for (index, name) in &self.groups {
            let Some(value) = captures.get(*index).map(|group| group.as_bytes()) else { continue };
            if value.is_empty() || value == b"-" {
                continue;
            }
            let number = || std::str::from_utf8(value).ok();
            let text = || Some(unescape(value));
            match &**name {
                "ip" => entry.ip = text(),
                "time" => {
                    entry.time = Some(match &self.time {
                        Some(pattern) => time::by_pattern(value, pattern, zone)?,
                        None => time::any(value, zone)?,
                    });
                }
                "request" => entry.set_request(unescape(value)),
                "method" => entry.method = text(),
                "target" => entry.set_target(unescape(value)),
                "path" => path = text(),
                "query" => query = text(),
                "protocol" => entry.protocol = text(),
                "status" => entry.status = Some(number()?.parse().ok()?),
                "bytes" => entry.bytes = Some(number()?.parse().ok()?),
                "referer" => entry.referer = text(),
                "user_agent" => entry.user_agent = text(),
                "host" => host = text(),
                "user" => entry.user = text(),
                "forwarded_for" => entry.forwarded_for = text(),
                "range" => entry.range = text(),
                "view_width" => entry.view_width = number().and_then(|number| number.parse().ok()),
                "dnt" => entry.dnt = text(),
                "gpc" => entry.gpc = text(),
                _ => entry.extra.push((Arc::clone(name), unescape(value))),
            }
        }
        // Groups of their own beat what the request or target gave.
        entry.path = path.or(entry.path);
        entry.query = query.or(entry.query);
        entry.host = host.or(entry.host);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_fields_and_others_are_kept() {
        let format = RegexFormat::new(
            r#"^(?P<ip>\S+) (?P<time>\S+ \S+) "(?P<request>[^"]*)" (?P<status>\d+) (?P<plan>\w+) "(?P<user_agent>[^"]*)"$"#,
            Some("%Y-%m-%d %H:%M:%S"),
        )
        .unwrap();
        let line = br#"192.0.2.7 2026-10-10 13:55:36 "GET /a.pdf?x=1 HTTP/1.1" 200 gold "\x22Me\x22""#;
        let entry = format.parse(line, &TimeZone::UTC).unwrap();
        assert_eq!(entry.text("plan").as_deref(), Some("gold"));
        assert_eq!(entry.text("query").as_deref(), Some("x=1"));
        assert_eq!(entry.text("user_agent").as_deref(), Some("\"Me\""));
        assert_eq!(entry.text("time").as_deref(), Some("2026-10-10T13:55:36Z"));
        assert_eq!(format.parse(b"something else", &TimeZone::UTC), None);
        assert_eq!(format.extra(), [Arc::from("plan")]);
    }

    #[test]
    fn a_missing_group_is_named() {
        let error = RegexFormat::new(r"^(?P<ip>\S+)$", None).unwrap_err();
        assert_eq!(error.message, "the regex has no group `user_agent`, `request` or `target`");
    }
}
