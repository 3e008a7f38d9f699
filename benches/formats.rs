#![expect(clippy::unwrap_used, reason = "a benchmark")]
//! Reading lines with a [`Format`] against one capturing regex for the same fields, over the lines of the fixtures.
//!
//! The regexes only find the fields: times, numbers, requests and escapes, which a format also reads, they leave as text.
//! `cargo bench --bench formats`

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use jiff::tz::TimeZone;
use regex::bytes::{CaptureLocations, Regex, RegexBuilder};
use silktail::format::{Format, Reading};

fn main() {
    divan::main();
}

/// How often a log's lines are read in one go.
const TIMES: usize = 40;

struct Log {
    format: &'static str,
    bytes: &'static [u8],
    regex: &'static str,
}

macro_rules! log {
    ($name:literal, $format:literal, $regex:expr) => {
        (
            $name,
            Log {
                format: $format,
                bytes: include_bytes!(concat!("../fixtures/formats/", $name, ".log")),
                regex: $regex,
            },
        )
    };
}

const LOGS: [(&str, Log); 11] = [
    log!("common", "common", r#"^(\S+) (\S+) (.+?) \[([^\]]+)\] "(.*?)" (\d{3}|-) (\d+|-)$"#),
    log!(
        "combined",
        "combined",
        r#"^(\S+) (\S+) (.+?) \[([^\]]+)\] "(.*?)" (\d{3}|-) (\d+|-) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.|"\S)*)""#
    ),
    log!(
        "vhost_combined",
        "vhost_combined",
        r#"^(\S+):(\d+) (\S+) (\S+) (.+?) \[([^\]]+)\] "(.*?)" (\d{3}|-) (\d+|-) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.|"\S)*)""#
    ),
    log!(
        "traefik_clf",
        "traefik_clf",
        r#"^(\S+) (\S+) (.+?) \[([^\]]+)\] "(.*?)" (\d{3}|-) (\d+|-) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.|"\S)*)" (\d+|-) "([^"]*)" "([^"]*)" (\d+)ms"#
    ),
    log!(
        "traefik",
        "traefik",
        concat!(
            r#""ClientHost":"([^"]*)".*"ClientUsername":"([^"]*)","DownstreamContentSize":(\d+),"DownstreamStatus":(\d+),.*"#,
            r#""RequestHost":"([^"]*)","RequestMethod":"([^"]*)","RequestPath":"((?:[^"\\]|\\.)*)",.*"#,
            r#""RequestProtocol":"([^"]*)",.*"RouterName":"([^"]*)",.*"StartUTC":"([^"]*)""#,
            r#"(?:.*"request_Referer":"((?:[^"\\]|\\.)*)")?(?:.*"request_User-Agent":"((?:[^"\\]|\\.)*)")?"#
        )
    ),
    log!(
        "caddy",
        "caddy",
        concat!(
            r#""ts":([0-9.]+),.*"client_ip":"([^"]*)","proto":"([^"]*)","method":"([^"]*)","host":"([^"]*)","#,
            r#""uri":"((?:[^"\\]|\\.)*)","headers":\{(?:"Referer":\["((?:[^"\\]|\\.)*)"\],)?"#,
            r#"(?:"User-Agent":\["((?:[^"\\]|\\.)*)"\])?.*"user_id":"([^"]*)",.*"size":(\d+),"status":(\d+)"#
        )
    ),
    log!(
        "ltsv",
        "ltsv",
        r"^time:\[([^\]]+)\]\thost:([^\t]*)\tforwardedfor:([^\t]*)\treq:([^\t]*)\tstatus:(\d+|-)\tsize:(\d+|-)\t.*?referer:([^\t]*)\tua:([^\t]*)\tvhost:([^\t]*)\tuser:([^\t]*)"
    ),
    log!(
        "alb",
        "alb",
        r#"^(\S+) (\S+) (\S+) (\S+):(\d+) (\S+) (\S+) (\S+) (\S+) (\d+|-) (\d+|-) (\d+) (\d+) "(.*?)" "((?:[^"\\]|\\.|"\S)*)" (\S+) (\S+)"#
    ),
    log!(
        "s3",
        "s3",
        r#"^(\S+) (\S+) \[([^\]]+)\] (\S+) (\S+) (\S+) (\S+) (\S+) "(.*?)" (\d{3}|-) (\S+) (\d+|-) (\d+|-) (\d+|-) (\d+|-) "([^"]*)" "(.*)" (\S+) (\S+) (\S+) (\S+) (\S+) (\S+)"#
    ),
    log!(
        "w3c_iis",
        "w3c",
        r"^(\S+) (\S+) (\S+) (\S+) (\S+) (\S+) (\S+) (\S+) (\S+) (\S+) (\S+) (\S+) (\S+) (\S+) (\S+) (\S+) (\S+) (\S+) (\S+)$"
    ),
    log!(
        "w3c_cloudfront",
        "w3c",
        r"^([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t[^\t]*\t[^\t]*\t[^\t]*\t([^\t]*)\t[^\t]*\t[^\t]*\t[^\t]*\t([^\t]*)\t[^\t]*\t[^\t]*\t[^\t]*\t([^\t]*)\t"
    ),
];

fn names() -> impl Iterator<Item = &'static str> {
    LOGS.iter().map(|(name, _)| *name)
}

/// A log's format and its requests, many times.
fn requests(name: &str) -> (&'static Log, Format, Vec<&'static [u8]>) {
    let (_, log) = LOGS.iter().find(|(known, _)| *known == name).unwrap();
    let format = Format::builtin(log.format, &TimeZone::UTC).unwrap();
    // Of a log whose columns change, the part before.
    let lines = log.bytes.split(|&b| b == b'\n').skip_while(|line| format.is_directive(line));
    let lines: Vec<&[u8]> = lines.take_while(|line| !line.is_empty() && !format.is_directive(line)).collect();
    (log, format, lines.repeat(TIMES))
}

fn reading(log: &Log, format: &Format) -> Reading {
    let mut reading = Reading::default();
    let directives = log.bytes.split(|&b| b == b'\n').take_while(|line| format.is_directive(line));
    for line in directives {
        format.parse_in(&mut reading, line);
    }
    reading
}

fn counted<'a, 'b>(bencher: Bencher<'a, 'b>, lines: &[&[u8]]) -> Bencher<'a, 'b> {
    let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
    bencher.counter(ItemsCount::new(lines.len())).counter(BytesCount::new(bytes))
}

/// Lines that the regex must fit too, so that both do the same work.
fn fitting<'l>(log: &Log, format: &Format, lines: Vec<&'l [u8]>, regex: &Regex) -> Vec<&'l [u8]> {
    let mut reading = reading(log, format);
    let all = lines.len();
    let fits = |line: &&[u8]| regex.is_match(line) && format.parse_in(&mut reading, line).is_some();
    let lines: Vec<&[u8]> = lines.into_iter().filter(fits).collect();
    assert!(lines.len() * 10 >= all * 9, "{}: {} of {all} lines", log.format, lines.len());
    lines
}

fn regex(log: &Log) -> Regex {
    RegexBuilder::new(log.regex).unicode(false).build().unwrap()
}

#[divan::bench(args = names())]
fn format(bencher: Bencher<'_, '_>, name: &str) {
    let (log, format, lines) = requests(name);
    let lines = fitting(log, &format, lines, &regex(log));
    let mut reading = reading(log, &format);
    counted(bencher, &lines).bench_local(|| {
        for line in &lines {
            black_box(format.parse_in(&mut reading, black_box(line)));
        }
    });
}

#[divan::bench(args = names())]
fn one_regex(bencher: Bencher<'_, '_>, name: &str) {
    let (log, format, lines) = requests(name);
    let regex = regex(log);
    let lines = fitting(log, &format, lines, &regex);
    let mut places: CaptureLocations = regex.capture_locations();
    counted(bencher, &lines).bench_local(|| {
        for line in &lines {
            regex.captures_read(&mut places, black_box(line));
            for group in 1..places.len() {
                black_box(places.get(group));
            }
        }
    });
}
