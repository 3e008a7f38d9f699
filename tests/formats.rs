#![expect(clippy::unwrap_used, reason = "tests")]
//! The same requests in every log format mean the same, and whatever else a log holds is never taken for something else.

use std::borrow::Cow;

use jiff::tz::TimeZone;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use silktail::entry::{Entry, FIELDS};
use silktail::format::{BUILTIN, Format, Reading, detect};

const TRUTH: &str = include_str!("../fixtures/formats/requests.jsonl");

/// A log of all requests, and how its format tells them.
struct Log {
    name: &'static str,
    format: &'static str,
    bytes: &'static [u8],
    /// What the format leaves out.
    without: &'static [&'static str],
    /// The server logs a request in parts, as it understood it: of garbage nothing.
    understood: bool,
    /// No bytes are written as 0.
    zero: bool,
    /// The writer encodes on top of what it was sent, or decodes it: URLs are compared decoded.
    encoded: bool,
}

const fn log(name: &'static str, bytes: &'static [u8], without: &'static [&'static str]) -> Log {
    Log { name, format: name, bytes, without, understood: false, zero: false, encoded: false }
}

const fn understood(name: &'static str, bytes: &'static [u8], without: &'static [&'static str]) -> Log {
    Log { understood: true, zero: true, ..log(name, bytes, without) }
}

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../fixtures/formats/", $name, ".log"))
    };
}

const LOGS: [Log; 11] = [
    log("common", fixture!("common"), &["referer", "user_agent", "host"]),
    log("combined", fixture!("combined"), &["host"]),
    log("vhost_combined", fixture!("vhost_combined"), &[]),
    log("traefik_clf", fixture!("traefik_clf"), &["host"]),
    log("ltsv", fixture!("ltsv"), &[]),
    understood("traefik", fixture!("traefik"), &[]),
    understood("caddy", fixture!("caddy"), &[]),
    understood("alb", fixture!("alb"), &["referer", "user"]),
    Log { zero: false, ..understood("s3", fixture!("s3"), &["user"]) },
    Log { format: "w3c", encoded: true, ..understood("w3c_iis", fixture!("w3c_iis"), &[]) },
    Log { format: "w3c", encoded: true, ..understood("w3c_cloudfront", fixture!("w3c_cloudfront"), &["user"]) },
];

fn truth() -> Vec<Value> {
    TRUTH.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn lines(log: &[u8]) -> Vec<&[u8]> {
    log.strip_suffix(b"\n").unwrap_or(log).split(|&b| b == b'\n').collect()
}

fn builtin(name: &str) -> Format {
    Format::builtin(name, &TimeZone::UTC).unwrap()
}

fn agrees(entry: &Entry<'_>, truth: &Value, log: &Log) {
    let (name, log_name) = (&truth["name"], log.name);
    let decode = |field: &str, text: Option<Cow<'_, str>>| {
        let text = text?;
        let decoded = log.encoded && ["target", "path", "query", "referer"].contains(&field);
        Some(if decoded { percent_decode_str(&text).decode_utf8_lossy().into_owned() } else { text.into_owned() })
    };
    for field in ["ip", "time", "status", "bytes", "referer", "user_agent", "host", "user"] {
        // An absolute target gives the host even where the format doesn't.
        if log.without.contains(&field) {
            continue;
        }
        let want = match &truth[field] {
            Value::Null if field == "bytes" && log.zero => Some("0".to_owned()),
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let mut got = decode(field, entry.text(field));
        if log.name == "alb" && field == "host" {
            // It is in the target, with its port, and nowhere else.
            got = got.map(|host| host.trim_end_matches(":443").to_owned());
            if entry.target.is_none() {
                continue;
            }
        }
        assert_eq!(got, want, "{field} of {name} in {log_name}");
    }
    let mut request = Entry::default();
    request.set_request(truth["request"].as_str().unwrap_or_default().as_bytes().into());
    if log.understood {
        // In parts, the server doesn't repeat the host; or it does so for all of them.
        if request.method.is_none() {
            request = Entry::default();
        }
        assert_eq!(entry.target.is_some(), request.target.is_some(), "target of {name} in {log_name}");
    } else {
        assert_eq!(entry.text("target"), request.text("target"), "target of {name} in {log_name}");
    }
    for field in ["method", "path", "query", "protocol"] {
        let got = decode(field, entry.text(field));
        // A load balancer makes up the protocol where there was none.
        if log.name == "alb" && field == "protocol" && request.protocol.is_none() {
            continue;
        }
        assert_eq!(got, decode(field, request.text(field)), "{field} of {name} in {log_name}");
    }
}

/// The log's requests, each with what the lines before it say.
fn requests(log: &Log) -> Vec<(Reading, &'static [u8])> {
    let format = builtin(log.format);
    let mut reading = Reading::default();
    let mut out = Vec::new();
    for line in lines(log.bytes) {
        if format.is_directive(line) {
            assert_eq!(format.parse_in(&mut reading, line), Some(Entry::default()));
        } else {
            out.push((reading.clone(), line));
        }
    }
    out
}

#[test]
fn the_same_requests_mean_the_same_in_every_format() {
    for log in &LOGS {
        let format = builtin(log.format);
        let (requests, truth) = (requests(log), truth());
        assert_eq!(requests.len(), truth.len(), "{}", log.name);
        for ((mut reading, line), truth) in requests.into_iter().zip(&truth) {
            let misfit = format.misfit_in(&reading, line);
            let entry = format.parse_in(&mut reading, line);
            let entry = entry.unwrap_or_else(|| panic!("{} in {}: {misfit:?}", truth["name"], log.name));
            assert_eq!(misfit, None);
            agrees(&entry, truth, log);
        }
    }
}

#[test]
fn line_endings_and_byte_order_marks_mean_nothing() {
    for log in &LOGS {
        let format = builtin(log.format);
        for ((reading, line), truth) in requests(log).into_iter().zip(&truth()) {
            for line in [
                [b"\xef\xbb\xbf", line].concat(),
                [line, &b"\r"[..]].concat(),
                [line, &b"\r\n"[..]].concat(),
                [line, &b"  \r\n"[..]].concat(),
            ] {
                let entry = format.parse_in(&mut reading.clone(), &line);
                agrees(&entry.unwrap_or_else(|| panic!("{} in {}", truth["name"], log.name)), truth, log);
            }
        }
    }
}

#[test]
fn a_log_is_recognised_as_what_it_is() {
    let all: Vec<Format> = BUILTIN.iter().filter_map(|name| Format::builtin(name, &TimeZone::UTC)).collect();
    assert_eq!(all.len(), BUILTIN.len());
    for name in BUILTIN {
        assert!(LOGS.iter().any(|log| log.format == *name), "no log in {name}");
    }
    for log in &LOGS {
        let found = detect(&all, &lines(log.bytes)).unwrap();
        assert_eq!(found.name(), log.format, "{}", log.name);
    }
    assert!(detect(&all, &[b"Oct 10 13:55:36 example kernel: nothing of the kind"]).is_none());
    assert!(detect(&all, &[b"# a comment", b"# and another"]).is_none());
    assert!(detect(&all, &[]).is_none());
}

#[test]
fn a_format_that_fits_all_lines_beats_one_that_says_more_of_half() {
    let all: Vec<Format> = BUILTIN.iter().filter_map(|name| Format::builtin(name, &TimeZone::UTC)).collect();
    let line = |n: usize| format!(r#"192.0.2.{n} - - [10/Oct/2026:13:55:36 +0000] "GET /{n} HTTP/1.1" 200 5"#);
    for (with_agent, want) in [(51, "common"), (89, "common"), (91, "combined"), (100, "combined")] {
        let made: Vec<String> =
            (0..100).map(|n| if n < with_agent { format!(r#"{} "-" "UA""#, line(n)) } else { line(n) }).collect();
        let lines: Vec<&[u8]> = made.iter().map(String::as_bytes).collect();
        assert_eq!(detect(&all, &lines).unwrap().name(), want, "{with_agent} of 100 lines are combined");
    }
}

#[test]
fn a_w3c_reading_that_begins_in_the_middle_knows_nothing_until_it_is_shown_the_fields() {
    let format = builtin("w3c");
    let log = LOGS.iter().find(|log| log.name == "w3c_iis").unwrap();
    let lines = lines(log.bytes);
    let (fields, request) = (lines[3], lines[4]);
    assert!(format.parse(request).is_none());
    let mut reading = Reading::default();
    assert!(format.directives().iter().any(|directive| fields.starts_with(directive)));
    format.parse_in(&mut reading, fields).unwrap();
    assert_eq!(format.parse_in(&mut reading, request).unwrap().text("path").as_deref(), Some("/files/report.pdf"));
    // The day may stand in the header alone.
    let mut reading = Reading::default();
    format.parse_in(&mut reading, b"#Date: 2026-10-10 13:00:00").unwrap();
    format.parse_in(&mut reading, b"#Fields: time c-ip cs-method cs-uri-stem sc-status").unwrap();
    let entry = format.parse_in(&mut reading, b"13:55:36 192.0.2.7 GET /a+b%.pdf 200").unwrap();
    assert_eq!(entry.text("time").as_deref(), Some("2026-10-10T13:55:36Z"));
    assert_eq!(entry.text("path").as_deref(), Some("/a%20b%25.pdf"));
    for line in ["13:55:36 192.0.2.7 GET /a 200 5", "13:55:36 192.0.2.7 GET /a", "13:55 192.0.2.7 GET /a 200", ""] {
        assert!(format.parse_in(&mut reading, line.as_bytes()).is_none(), "{line}");
    }
}

#[test]
fn times_without_an_offset_go_forward_through_the_hour_that_is_repeated() {
    let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let format = Format::builtin("combined", &berlin).unwrap();
    let mut reading = Reading::default();
    let mut times = Vec::new();
    for clock in ["01:59:59", "02:30:00", "02:59:59", "02:00:01", "02:30:00", "02:59:59", "03:00:00"] {
        let line = format!(r#"192.0.2.7 - - [25/Oct/2026:{clock}] "GET /a HTTP/1.1" 200 5 "-" "UA""#);
        assert_eq!(format.is_ambiguous(line.as_bytes()), clock.starts_with("02"), "{clock}");
        times.push(format.parse_in(&mut reading, line.as_bytes()).unwrap().time.unwrap());
    }
    let seconds: Vec<i64> = times.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs()).collect();
    assert_eq!(seconds, [1801, 1799, 2, 1799, 1799, 1]);
}

/// What a log might hold where the client, the request, the user and the user agent stand.
const HOSTILE: [&str; 40] = [
    "",
    "-",
    "--",
    "\"",
    "\\",
    "\\\"",
    "\\x22",
    "\\x",
    "\" \"",
    "\"\"",
    "a \" b",
    "a\" 200 5 \"-\" \"x",
    "a\" \"b",
    "[",
    "]",
    "] \"",
    "[10/Oct/2026:13:55:36 +0000]",
    "GET",
    "GET ",
    "GET /a\"b c\" HTTP/1.1",
    "GET /[x]?[y] HTTP/1.1",
    "GET  /two  spaces  HTTP/1.1",
    "\x16\x03\x01\x02\x00\x01\u{0}\u{fffd}",
    "\u{0}\u{0}\u{0}",
    "ä ö ü",
    "unix:",
    "client.example.net",
    "192.0.2.7:50123",
    "[2001:db8::1]:50123",
    "fe80::1%eth0",
    "198.51.100.1, 192.0.2.7",
    "john doe",
    "a b [c] \"d\" e",
    "\t",
    "a\tb:c",
    "{\"a\":",
    "}",
    "#Fields: x",
    "%",
    "+",
];

#[test]
fn what_a_client_can_make_of_an_escaped_field_is_only_ever_in_that_field() {
    // As nginx and Apache write what they are sent.
    let nginx = |text: &str| {
        let byte = |b: u8| match b {
            b' '..=b'~' if !b"\"\\".contains(&b) => char::from(b).to_string(),
            _ => format!("\\x{b:02X}"),
        };
        text.bytes().map(byte).collect::<String>()
    };
    let apache = |text: &str| {
        let byte = |b: u8| match b {
            b'"' | b'\\' => format!("\\{}", char::from(b)),
            b' '..=b'~' => char::from(b).to_string(),
            _ => format!("\\x{b:02x}"),
        };
        text.bytes().map(byte).collect::<String>()
    };
    let format = builtin("combined");
    for escape in [&nginx as &dyn Fn(&str) -> String, &apache] {
        for hostile in HOSTILE {
            let text = escape(hostile);
            let want = Some(hostile).filter(|text| !text.is_empty() && *text != "-");
            for (field, line) in [
                (
                    "user_agent",
                    format!(r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET /a HTTP/1.1" 200 5 "r" "{text}""#),
                ),
                (
                    "referer",
                    format!(r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET /a HTTP/1.1" 200 5 "{text}" "u""#),
                ),
                ("target", format!(r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "X /{text} HTTP/1.1" 200 5 "r" "u""#)),
            ] {
                let entry = format.parse(line.as_bytes()).unwrap_or_else(|| panic!("{line}"));
                let want = if field == "target" { Some(format!("/{hostile}")) } else { want.map(str::to_owned) };
                assert_eq!(entry.text(field).map(Cow::into_owned), want, "{line}");
                for (other, want) in
                    [("ip", "192.0.2.7"), ("status", "200"), ("bytes", "5"), ("time", "2026-10-10T13:55:36Z")]
                {
                    assert_eq!(entry.text(other).as_deref(), Some(want), "{other} of {line}");
                }
                let others = match field {
                    "user_agent" => [("referer", "r"), ("path", "/a")],
                    "referer" => [("user_agent", "u"), ("path", "/a")],
                    _ => [("user_agent", "u"), ("referer", "r")],
                };
                for (other, want) in others {
                    assert_eq!(entry.text(other).as_deref(), Some(want), "{other} of {line}");
                }
            }
        }
    }
}

#[test]
fn what_is_written_raw_leaves_the_numbers_and_the_client_alone() {
    // Writers that don't escape: what can be told apart is; the line is never read with another status or client.
    let format = builtin("combined");
    for hostile in HOSTILE {
        for (at, line) in [
            format!(r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET /a HTTP/1.1" 200 5 "-" "{hostile}""#),
            format!(r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET /{hostile} HTTP/1.1" 200 5 "-" "UA""#),
            format!(r#"192.0.2.7 - {hostile} [10/Oct/2026:13:55:36 +0000] "GET /a HTTP/1.1" 200 5 "-" "UA""#),
        ]
        .into_iter()
        .enumerate()
        {
            let Some(entry) = format.parse(line.as_bytes()) else { continue };
            let got = ["ip", "time", "status", "bytes"].map(|field| entry.text(field).unwrap_or_default().into_owned());
            assert_eq!(got, ["192.0.2.7", "2026-10-10T13:55:36Z", "200", "5"], "{at}: {line}");
        }
    }
}

#[test]
fn clients_are_given_as_they_are_logged() {
    let format = builtin("combined");
    for client in ["unix:", "client.example.net", "192.0.2.7:50123", "[2001:db8::1]:50123", "fe80::1%eth0", "::1"] {
        let line = format!(r#"{client} - john doe [10/Oct/2026:13:55:36] "GET /a HTTP/1.1" 200 5 "-" "UA""#);
        let entry = format.parse(line.as_bytes()).unwrap();
        assert_eq!(entry.text("ip").as_deref(), Some(client));
        assert_eq!(entry.text("user").as_deref(), Some("john doe"));
        let line = format!("time:10/Oct/2026:13:55:36 +0000\thost:{client}\treq:GET /a HTTP/1.1\tstatus:200");
        assert_eq!(builtin("ltsv").parse(line.as_bytes()).unwrap().text("ip").as_deref(), Some(client));
        let line = format!(r#"{{"ClientHost":"{client}","RequestPath":"/a"}}"#);
        assert_eq!(builtin("traefik").parse(line.as_bytes()).unwrap().text("ip").as_deref(), Some(client));
    }
    let list =
        br#"{"request":{"client_ip":"198.51.100.1, 192.0.2.7","uri":"/a","headers":{"X-Forwarded-For":["a, b","c"]}}}"#;
    let entry = builtin("caddy").parse(list).unwrap();
    assert_eq!(entry.text("ip").as_deref(), Some("198.51.100.1, 192.0.2.7"));
    assert_eq!(entry.text("forwarded_for").as_deref(), Some("a, b, c"));
}

#[test]
fn labels_of_nginx_users_are_known_too() {
    let line = b"remote_addr:192.0.2.7\ttime_iso8601:2026-10-10T13:55:36+00:00\thost:docs.example.org\t\
        request_method:GET\trequest_uri:/a?b\tserver_protocol:HTTP/1.1\tstatus:200\tbody_bytes_sent:5\t\
        http_user_agent:U \\x22A\\x22\thttp_x_forwarded_for:-\tunknown:x";
    let entry = builtin("ltsv").parse(line).unwrap();
    for (field, want) in [
        ("ip", Some("192.0.2.7")),
        ("host", Some("docs.example.org")),
        ("time", Some("2026-10-10T13:55:36Z")),
        ("method", Some("GET")),
        ("query", Some("b")),
        ("bytes", Some("5")),
        ("user_agent", Some("U \"A\"")),
        ("forwarded_for", None),
    ] {
        assert_eq!(entry.text(field).as_deref(), want, "{field}");
    }
    for line in ["host:192.0.2.7\tstatus:200", "req:GET / HTTP/1.1", "a line", "host:192.0.2.7\treq:GET /\tno label"] {
        assert!(builtin("ltsv").parse(line.as_bytes()).is_none(), "{line}");
    }
}

/// A field without half an escape, which stays as it is, and half a character, which can't be shown.
fn settled(text: &str) -> &str {
    let from = text.char_indices().rev().nth(2).map_or(0, |(at, _)| at);
    let escape = text[from..].rfind('\\').map_or(text.len(), |at| from + at);
    text[..escape].trim_end_matches('\u{fffd}')
}

#[test]
fn a_line_cut_at_any_byte_holds_what_it_held_or_does_not_fit() {
    for log in &LOGS {
        let format = builtin(log.format);
        for (reading, line) in requests(log) {
            let whole = format.parse_in(&mut reading.clone(), line).unwrap();
            for cut in 0..line.len() {
                // What is left of the line's end is no less hostile, but nobody can tell that it isn't whole.
                let _ = format.parse_in(&mut reading.clone(), &line[cut..]);
                let Some(entry) = format.parse_in(&mut reading.clone(), &line[..cut]) else { continue };
                let shown = String::from_utf8_lossy(&line[..cut]);
                let mut cut_fields = 0;
                for field in FIELDS {
                    let (Some(got), Some(was)) = (entry.text(field), whole.text(field)) else {
                        assert_eq!(entry.text(field), None, "{field} of {shown}");
                        continue;
                    };
                    // The field in which the line was cut can't be told from one that is short, nor, after an escaped
                    // quote, from one whose writer doesn't escape.
                    let in_escape = line[..cut].trim_ascii_end().ends_with(br#"\""#);
                    assert!(was.starts_with(settled(&got)) || in_escape, "{field} of {shown}");
                    cut_fields += usize::from(got != was);
                }
                let request = ["target", "path", "query", "method", "protocol"];
                let in_request = request.iter().any(|field| entry.text(field) != whole.text(field));
                assert!(cut_fields <= 1 || in_request, "{cut_fields} fields of {shown}");
            }
        }
    }
}

#[test]
fn long_lines_and_nul_bytes_are_lines_like_others() {
    let long = "x".repeat(100 * 1024);
    for (name, line) in [
        (
            "combined",
            format!(r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET /{long} HTTP/1.1" 200 5 "-" "{long}""#),
        ),
        ("ltsv", format!("host:192.0.2.7\treq:GET /{long} HTTP/1.1\tua:{long}")),
        ("traefik", format!(r#"{{"ClientHost":"192.0.2.7","RequestPath":"/{long}","request_User-Agent":"{long}"}}"#)),
    ] {
        let entry = builtin(name).parse(line.as_bytes()).unwrap();
        assert_eq!(entry.path.as_deref().map(<[u8]>::len), Some(long.len() + 1), "{name}");
        assert_eq!(entry.user_agent.as_deref(), Some(long.as_bytes()), "{name}");
    }
    for bytes in [vec![0; 100 * 1024], vec![b'"'; 100 * 1024], vec![b'['; 100 * 1024], b"{\"a\":[".repeat(20_000)] {
        for name in BUILTIN {
            assert!(builtin(name).parse(&bytes).is_none(), "{name}");
        }
    }
    let nuls = b"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] \"GET /a\0b HTTP/1.1\" 200 5 \"-\" \"U\0A\"";
    assert_eq!(builtin("combined").parse(nuls).unwrap().user_agent.as_deref(), Some(&b"U\0A"[..]));
}
