//! The examples of the published rules, as a table: what counts, and where it is said.
//!
//! COUNTER: the Code of Practice, release 5.1, section 7. IAB: the IAB Tech Lab's Podcast Measurement Technical Guidelines,
//! version 2.3.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use common::{BROWSER, CRAWLER, Sandbox};

/// (second, method, status, range, user agent)
type Request = (u32, &'static str, u16, &'static str, &'static str);

const HOUR: u32 = 3600;

fn ok(second: u32) -> Request {
    (second, "GET", 200, "-", BROWSER)
}

#[test]
fn the_published_examples_count_as_published() {
    for (source, preset, requests, want) in [
        ("COUNTER 7.2: two clicks within 30 seconds are one", "counter", vec![ok(0), ok(30)], 1),
        ("COUNTER 7.2: after 31 seconds they are two", "counter", vec![ok(0), ok(31)], 2),
        (
            "COUNTER 7.2: three, each within 30 seconds of the one before, are one",
            "counter",
            vec![ok(0), ok(15), ok(40)],
            1,
        ),
        ("COUNTER 7.1: 304 is a success", "counter", vec![(0, "GET", 304, "-", BROWSER)], 1),
        (
            "COUNTER 7.1: a 304 and a 200 within 30 seconds are one",
            "counter",
            vec![(0, "GET", 304, "-", BROWSER), ok(9)],
            1,
        ),
        (
            "COUNTER 7.1: errors and redirects are none",
            "counter",
            vec![(0, "GET", 404, "-", BROWSER), (1, "GET", 301, "-", BROWSER)],
            0,
        ),
        (
            "COUNTER 7.2: another visitor's click is another",
            "counter",
            vec![ok(0), (5, "GET", 200, "-", "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0")],
            2,
        ),
        ("COUNTER 7.8: robots are left out", "counter", vec![(0, "GET", 200, "-", CRAWLER)], 0),
        ("IAB: the same listener within 24 hours is one", "iab", vec![ok(0), ok(23 * HOUR)], 1),
        ("IAB: after 24 hours it is another", "iab", vec![ok(0), ok(24 * HOUR + 1)], 2),
        ("IAB: 304 isn't a download", "iab", vec![(0, "GET", 304, "-", BROWSER)], 0),
        ("IAB: HEAD isn't a download", "iab", vec![(0, "HEAD", 200, "-", BROWSER)], 0),
        ("IAB: the two-byte probe isn't a download", "iab", vec![(0, "GET", 206, "bytes=0-1", BROWSER)], 0),
        (
            "IAB: parts of one file are one",
            "iab",
            vec![(0, "GET", 206, "bytes=0-65535", BROWSER), (1, "GET", 206, "bytes=65536-", BROWSER)],
            1,
        ),
        ("IAB: bots are left out", "iab", vec![(0, "GET", 200, "-", CRAWLER)], 0),
        ("default: 304 isn't a download", "default", vec![(0, "GET", 304, "-", BROWSER), ok(40)], 1),
        ("default: HEAD isn't a download", "default", vec![(0, "HEAD", 200, "-", BROWSER)], 0),
    ] {
        let sandbox = Sandbox::new();
        let site = format!(
            "[formats.ours]\nnginx = '$remote_addr [$time_local] \"$request\" $status \"$http_user_agent\" \"$http_range\"'\n\n\
             [[site]]\nname = \"docs\"\nbase_url = \"https://docs.example.org\"\nproperty_key = \"{}\"\n\
             logs = [\"LOGS/access.log\"]\nformat = \"ours\"\ncounting = \"{preset}\"\n",
            common::KEY
        );
        sandbox.configure(1, &site);
        let log: String = requests
            .into_iter()
            .map(|(second, method, status, range, user_agent)| {
                let (day, hour) = (10 + second / HOUR / 24, second / HOUR % 24);
                let (minute, second) = (second / 60 % 60, second % 60);
                format!(
                    "192.0.2.7 [{day}/Nov/2026:{hour:02}:{minute:02}:{second:02} +0000] \"{method} /a.pdf HTTP/1.1\" {status} \
                     \"{user_agent}\" \"{range}\"\n"
                )
            })
            .collect();
        sandbox.write("access.log", &log);
        let events = sandbox.run(&["backfill", "--dry-run", "--json"]).expect_code(0).stderr;
        let summary: serde_json::Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
        assert_eq!(summary["event"], want, "{source}");
    }
}
