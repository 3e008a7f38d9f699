#![expect(clippy::unwrap_used, reason = "tests")]
//! The same requests in every log format mean the same.

use jiff::tz::TimeZone;
use serde_json::Value;
use silktail::entry::Entry;
use silktail::format::{BUILTIN, Format, detect};

const TRUTH: &str = include_str!("../fixtures/formats/requests.jsonl");
const LOGS: [(&str, &[u8], &[&str]); 3] = [
    ("common", include_bytes!("../fixtures/formats/common.log"), &["referer", "user_agent", "host"]),
    ("combined", include_bytes!("../fixtures/formats/combined.log"), &["host"]),
    ("vhost_combined", include_bytes!("../fixtures/formats/vhost_combined.log"), &[]),
];

fn truth() -> Vec<Value> {
    TRUTH.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn lines(log: &[u8]) -> Vec<&[u8]> {
    log.strip_suffix(b"\n").unwrap_or(log).split(|&b| b == b'\n').collect()
}

fn agrees(entry: &Entry<'_>, truth: &Value, without: &[&str], log: &str) {
    let name = &truth["name"];
    for field in ["ip", "time", "status", "bytes", "referer", "user_agent", "host", "user"] {
        // An absolute target gives the host even where the format doesn't.
        if without.contains(&field) {
            continue;
        }
        let want = match &truth[field] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        assert_eq!(entry.text(field).as_deref(), want.as_deref(), "{field} of {name} in {log}");
    }
    let mut request = Entry::default();
    request.set_request(truth["request"].as_str().unwrap_or_default().as_bytes().into());
    for field in ["method", "target", "path", "query", "protocol"] {
        assert_eq!(entry.text(field), request.text(field), "{field} of {name} in {log}");
    }
}

#[test]
fn the_same_requests_mean_the_same_in_every_format() {
    for (name, log, without) in LOGS {
        let format = Format::builtin(name, &TimeZone::UTC).unwrap();
        let (lines, truth) = (lines(log), truth());
        assert_eq!(lines.len(), truth.len(), "{name}");
        for (line, truth) in lines.iter().zip(&truth) {
            let misfit = format.misfit(line);
            let entry = format.parse(line).unwrap_or_else(|| panic!("{} in {name}: {misfit:?}", truth["name"]));
            agrees(&entry, truth, without, name);
        }
    }
}

#[test]
fn line_endings_and_byte_order_marks_mean_nothing() {
    for (name, log, without) in LOGS {
        let format = Format::builtin(name, &TimeZone::UTC).unwrap();
        for (line, truth) in lines(log).iter().zip(&truth()) {
            for line in
                [[b"\xef\xbb\xbf", *line].concat(), [line, &b"\r"[..]].concat(), [line, &b"  \r\n"[..]].concat()]
            {
                agrees(&format.parse(&line).unwrap(), truth, without, name);
            }
        }
    }
}

#[test]
fn a_log_is_recognised_as_what_it_is() {
    let all: Vec<Format> = BUILTIN.iter().filter_map(|name| Format::builtin(name, &TimeZone::UTC)).collect();
    assert_eq!(all.len(), BUILTIN.len());
    for (name, log, _) in LOGS {
        let found = detect(&all, &lines(log)).unwrap();
        assert_eq!(found.name(), name);
    }
    assert!(detect(&all, &[b"Oct 10 13:55:36 example kernel: nothing of the kind"]).is_none());
    assert!(detect(&all, &[]).is_none());
}
