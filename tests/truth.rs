//! A real-looking log of more than 10,000 lines whose truth is known by construction: what silktail counts equals it, under
//! every preset.
//!
//! The log is made of scenarios (a double click, a viewer that fetches a file in parts, a crawler, …), each with a visitor
//! and a file of its own, mixed by time. What each line must become is written beside it, for the three presets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::collections::BTreeMap;

use common::{BROWSER, CRAWLER, Sandbox};
use jiff::Timestamp;
use serde_json::Value;

const PRESETS: [&str; 3] = ["default", "counter", "iab"];
const FATES: [&str; 7] = ["too_long", "unparsed", "unmatched", "excluded", "bot", "repeat", "event"];
const HOUR: i64 = 3600;

/// One request of a scenario.
#[derive(Debug, Clone)]
struct Request {
    ip: String,
    request: String,
    status: u16,
    user_agent: String,
    range: &'static str,
    dnt: &'static str,
    forwarded_for: String,
    host: &'static str,
}

impl Request {
    fn get(n: u32) -> Self {
        Self {
            ip: format!("20.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255),
            request: format!("GET /f/{n}.pdf HTTP/1.1"),
            status: 200,
            user_agent: BROWSER.to_owned(),
            range: "-",
            dnt: "-",
            forwarded_for: "-".to_owned(),
            host: "docs.example.org",
        }
    }

    fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    fn range(self, range: &'static str) -> Self {
        Self { status: 206, range, ..self }
    }

    fn by(self, user_agent: &str) -> Self {
        Self { user_agent: user_agent.to_owned(), ..self }
    }

    fn from(self, ip: impl Into<String>) -> Self {
        Self { ip: ip.into(), ..self }
    }

    fn asking(self, request: impl Into<String>) -> Self {
        Self { request: request.into(), ..self }
    }
}

/// A pseudo-random number; the same ones every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A log with its truth.
struct Truth {
    /// Whether ranges, DNT, forwarded addresses and hosts are logged.
    rich: bool,
    lines: Vec<(i64, String)>,
    fates: [BTreeMap<&'static str, u64>; 3],
    events: [Vec<String>; 3],
}

impl Truth {
    fn new(rich: bool) -> Self {
        Self { rich, lines: Vec::new(), fates: Default::default(), events: Default::default() }
    }

    /// A line that says `time` and stands in the log where those of `place` stand; its fate under each preset.
    fn line_at(&mut self, place: i64, time: i64, request: &Request, fates: [&'static str; 3]) {
        let Request { ip, request, status, user_agent, range, dnt, forwarded_for, host } = request;
        let zoned = Timestamp::from_second(time).unwrap().to_zoned_datetime(jiff::tz::TimeZone::UTC);
        let time = zoned.strftime("%d/%b/%Y:%H:%M:%S +0000");
        let mut line = format!("{ip} - - [{time}] \"{request}\" {status} 51200 \"-\" \"{user_agent}\"");
        if self.rich {
            line.push_str(&format!(" \"{range}\" \"{dnt}\" \"{forwarded_for}\" \"{host}\""));
        }
        self.lines.push((place, line));
        let url = request.split([' ', '?']).nth(1).map(|path| format!("https://docs.example.org{path}"));
        for (preset, fate) in fates.into_iter().enumerate() {
            *self.fates[preset].entry(fate).or_default() += 1;
            if fate == "event" {
                self.events[preset].extend(url.clone());
            }
        }
    }

    fn line(&mut self, at: i64, request: &Request, fates: [&'static str; 3]) {
        self.line_at(at, at, request, fates);
    }

    fn all(&mut self, at: i64, request: &Request, fate: &'static str) {
        self.line(at, request, [fate; 3]);
    }

    fn raw(&mut self, at: i64, line: &str, fate: &'static str) {
        self.lines.push((at, line.to_owned()));
        self.fates.iter_mut().for_each(|fates| *fates.entry(fate).or_default() += 1);
    }

    /// Adds one scenario, whose number makes its visitor and file its own.
    fn scenario(&mut self, kind: u64, n: u32, at: i64) {
        let get = Request::get(n);
        match kind {
            0 => self.all(at, &get, "event"),
            // A double click, and an impatient chain: each renews the window.
            1 => {
                self.all(at, &get, "event");
                self.all(at + 5, &get, "repeat");
            }
            2 => {
                self.all(at, &get, "event");
                [25, 50, 75, 105].into_iter().for_each(|later| self.all(at + later, &get, "repeat"));
            }
            // Again: after the 30 s of two presets, within the 24 h of the third, and after those.
            3 => {
                self.all(at, &get, "event");
                self.line(at + 31, &get, ["event", "event", "repeat"]);
            }
            4 => {
                self.all(at, &get, "event");
                self.line(at + 23 * HOUR, &get, ["event", "event", "repeat"]);
                // Renewed by the one before.
                self.line(at + 46 * HOUR, &get, ["event", "event", "repeat"]);
            }
            5 => {
                self.all(at, &get, "event");
                self.all(at + 25 * HOUR, &get, "event");
            }
            // A viewer: the whole is begun and given up, the parts come over minutes.
            6 => {
                self.all(at, &get, "event");
                for part in 1..=30 {
                    let fate = if self.rich { "excluded" } else { "repeat" };
                    self.all(at + part * 14, &get.clone().range("bytes=65536-131071"), fate);
                }
            }
            7 => {
                self.all(at, &get.clone().range("bytes=0-65535"), "event");
                let fate = if self.rich { "excluded" } else { "repeat" };
                self.all(at + 3, &get.clone().range("bytes=65536-"), fate);
                self.all(at + 6, &get.range("bytes=-500"), fate);
            }
            // A media player's probe; where the log doesn't tell it from a first part, that is what counts.
            8 => {
                self.all(at, &get.clone().range("bytes=0-1"), if self.rich { "excluded" } else { "event" });
                self.all(at + 1, &get.range("bytes=0-"), if self.rich { "event" } else { "repeat" });
            }
            // Parts without their range, 40 of them, never half a minute apart: one event.
            9 => {
                let part = Request { status: 206, ..get };
                self.all(at, &part, "event");
                (1..40).for_each(|later| self.all(at + later * 29, &part, "repeat"));
            }
            10 => {
                for (later, method) in (0..).zip(["HEAD", "POST", "OPTIONS", "PUT"]) {
                    self.all(at + later, &get.clone().asking(format!("{method} /f/{n}.pdf HTTP/1.1")), "unmatched");
                }
            }
            11 => self.line(at, &get.status(304), ["unmatched", "event", "unmatched"]),
            12 => {
                self.line(at, &get.clone().status(304), ["unmatched", "event", "unmatched"]);
                self.line(at + 10, &get, ["event", "repeat", "event"]);
            }
            13 => [301, 403, 404, 416, 500].into_iter().for_each(|status| {
                self.all(at, &get.clone().status(status), "unmatched");
            }),
            14 => {
                for user_agent in [CRAWLER, "curl/8.5.0", "python-requests/2.32.3", "Wget/1.21.4", "-", "GPTBot/1.2"] {
                    self.all(at, &get.clone().by(user_agent), "bot");
                }
            }
            // Not one visitor: another browser, another address.
            15 => {
                self.all(at, &get, "event");
                let other = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0";
                self.all(at + 1, &get.clone().by(other), "event");
                self.all(at + 2, &get.from(format!("21.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255)), "event");
            }
            // One visitor: IPv6 within its /64, IPv4 in IPv6 clothes, another query.
            16 => {
                self.all(at, &get.clone().from(format!("2001:db8:{:x}:{:x}::1", n >> 16, n & 0xffff)), "event");
                self.all(at + 9, &get.clone().from(format!("2001:db8:{:x}:{:x}::ff:2", n >> 16, n & 0xffff)), "repeat");
                self.all(at + 9, &get.from(format!("2001:db9:{:x}:{:x}::1", n >> 16, n & 0xffff)), "event");
            }
            17 => {
                self.all(at, &get, "event");
                self.all(at + 9, &get.clone().from(format!("::ffff:{}", get.ip)), "repeat");
            }
            18 => {
                self.all(at, &get.clone().asking(format!("GET /f/{n}.pdf?utm=a HTTP/1.1")), "event");
                self.all(at + 9, &get.asking(format!("GET /f/{n}.pdf?utm=b HTTP/2.0")), "repeat");
            }
            // Logged out of order, by a transfer's length.
            19 => {
                self.line_at(at + 20, at + 20, &get, ["event"; 3]);
                self.line_at(at + 21, at, &get, ["repeat"; 3]);
                self.line_at(at + 22, at + 22, &get, ["repeat"; 3]);
            }
            20 => self.all(at, &get.from(format!("198.51.100.{}", n & 255)), "excluded"),
            21 => {
                for (later, request) in
                    (0..).zip(["GET / HTTP/1.1", "GET /news.html?f=a.pdf HTTP/1.1", "GET /a.pdf/ HTTP/1.1", "-", ""])
                {
                    self.all(at + later, &get.clone().asking(request), "unmatched");
                }
                self.all(at, &get.clone().asking("\\x16\\x03\\x01").status(400), "unmatched");
            }
            22 => self.raw(at, "this is no line of the log", "unparsed"),
            23 if self.rich => self.all(at, &Request { dnt: "1", ..get }, "excluded"),
            24 if self.rich => self.all(at, &Request { host: "other.example.org", ..get }, "excluded"),
            // Behind a proxy of ours; what stands further left, the client wrote itself.
            25 if self.rich => {
                let through = |claim: &str| Request {
                    ip: "10.0.0.1".to_owned(),
                    forwarded_for: format!("{claim}, {}, 10.0.0.2", get.ip),
                    ..get.clone()
                };
                self.all(at, &through("192.0.2.1"), "event");
                self.all(at + 4, &through("192.0.2.2"), "repeat");
                self.all(at + 8, &get, "repeat");
            }
            _ => self.all(at, &get, "event"),
        }
    }

    fn generate(rich: bool, lines: usize) -> Self {
        let mut truth = Self::new(rich);
        let mut dice = Dice(20_261_110);
        // Three days, and two more for what comes again.
        let start = 1_793_750_400;
        let mut n = 1;
        while truth.lines.len() < lines {
            // Each kind in turn, so that none is left to chance.
            let at = start + i64::try_from(dice.below(3 * 24 * 3600)).unwrap();
            truth.scenario(u64::from(n) % 26, n, at);
            n += 1;
        }
        // Stable: lines of one second stay in their order.
        truth.lines.sort_by_key(|(place, _)| *place);
        truth
    }
}

fn check(rich: bool, site: &str, merged: bool) {
    let mut truth = Truth::generate(rich, 10_000);
    let log: String = truth.lines.iter().map(|(_, line)| format!("{line}\n")).collect();
    for (preset, name) in PRESETS.into_iter().enumerate() {
        let sandbox = Sandbox::new();
        sandbox.configure(1, &site.replace("PRESET", name));
        sandbox.write("access.log", &log);
        let done = sandbox.run(&["backfill", "--dry-run", "--json"]).expect_code(0);
        let summary: Value = serde_json::from_str(done.stderr.lines().last().unwrap()).unwrap();
        let count = |fate: &str| summary[fate].as_u64().unwrap();
        assert_eq!(count("lines"), truth.lines.len() as u64, "{name}");
        assert_eq!(count("lines"), FATES.into_iter().map(count).sum::<u64>(), "{name}: every line has one fate");
        let mut want = truth.fates[preset].clone();
        let mut got: BTreeMap<&str, u64> = FATES.into_iter().map(|fate| (fate, count(fate))).collect();
        if merged {
            // Where blocks are searched, lines that can't become events aren't parsed.
            for counts in [&mut want, &mut got] {
                let unparsed = counts.remove("unparsed").unwrap_or(0);
                *counts.entry("unmatched").or_default() += unparsed;
            }
        }
        got.retain(|_, count| *count > 0);
        assert_eq!(got, want, "{name}");

        let bodies = done.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut urls: Vec<String> = bodies
            .flat_map(|body| body["events"].as_array().unwrap().clone())
            .map(|event| event["url"].as_str().unwrap().to_owned())
            .collect();
        urls.sort();
        truth.events[preset].sort();
        assert_eq!(urls, truth.events[preset], "{name}");
    }
}

#[test]
fn a_log_that_says_everything_is_counted_right_under_every_preset() {
    let site = r#"
[formats.rich]
nginx = '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" "$http_range" "$http_dnt" "$http_x_forwarded_for" "$host"'

[[site]]
name = "docs"
base_url = "https://docs.example.org"
property_key = "8bce2be8c07a84a70e7104634b42878b"
logs = ["LOGS/access.log"]
format = "rich"
hosts = ["docs.example.org"]
counting = "PRESET"
exclude_ips = ["198.51.100.0/24"]
trusted_proxies = ["private"]
"#;
    check(true, site, false);
}

#[test]
fn a_combined_log_is_counted_right_under_every_preset() {
    let site = r#"
[[site]]
name = "docs"
base_url = "https://docs.example.org"
property_key = "8bce2be8c07a84a70e7104634b42878b"
logs = ["LOGS/access.log"]
format = "combined"
counting = "PRESET"
exclude_ips = ["198.51.100.0/24"]
"#;
    check(false, site, true);
}
