//! Every line has exactly one fate, and the counts say so: for each log, for each site and in total.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};

use common::{BROWSER, CRAWLER, Endpoint, SOON, Sandbox, combined_by, wait_for};
use serde_json::{Value, json};

const FATES: [&str; 7] = ["too_long", "unparsed", "unmatched", "excluded", "bot", "repeat", "event"];

/// Two sites that share one log, and a log that is the first's alone.
const SITES: &str = r#"
[[site]]
name = "docs"
base_url = "https://docs.example.org"
property_key = "8bce2be8c07a84a70e7104634b42878b"
logs = ["LOGS/shared.log"]
format = "vhost_combined"
hosts = ["docs.example.org", "*.docs.example.org"]
exclude_ips = ["198.51.100.0/24"]

[[site]]
name = "shop"
base_url = "https://shop.example.org"
property_key = "0f0e0d0c0b0a09080706050403020100"
logs = ["LOGS/shared.log"]
format = "vhost_combined"
hosts = ["shop.example.org"]
"#;

fn line(host: &str, ip: &str, second: u32, path: &str, user_agent: &str) -> String {
    format!("{host}:443 {}", combined_by(ip, second, path, "-", user_agent))
}

/// One line, or a few, for each fate; whose they are (nobody's count at the log alone).
fn cases() -> Vec<(Option<&'static str>, &'static str, String)> {
    let long = "x".repeat(70 * 1024);
    let docs = "docs.example.org";
    vec![
        (Some("docs"), "event", line(docs, "192.0.2.1", 0, "/files/a.pdf", BROWSER)),
        (Some("docs"), "event", line(docs, "192.0.2.1", 1, "/files/b.PDF", BROWSER)),
        (Some("docs"), "event", line("old.docs.example.org", "192.0.2.1", 2, "/files/c.pdf?x=y", BROWSER)),
        (Some("docs"), "repeat", line(docs, "192.0.2.1", 5, "/files/a.pdf", BROWSER)),
        (Some("docs"), "event", line(docs, "192.0.2.1", 100, "/files/a.pdf", BROWSER)),
        (Some("docs"), "bot", line(docs, "192.0.2.2", 6, "/files/a.pdf", CRAWLER)),
        (Some("docs"), "bot", line(docs, "192.0.2.2", 6, "/files/a.pdf", "-")),
        (Some("docs"), "excluded", line(docs, "198.51.100.9", 7, "/files/a.pdf", BROWSER)),
        (Some("docs"), "unmatched", line(docs, "192.0.2.3", 8, "/index.html", BROWSER)),
        (Some("docs"), "unmatched", line(docs, "192.0.2.3", 8, "/files/a.pdf", BROWSER).replace("\" 200 ", "\" 404 ")),
        (Some("docs"), "unmatched", line(docs, "192.0.2.3", 8, "/files/a.pdf", BROWSER).replace("GET", "HEAD")),
        (Some("shop"), "event", line("shop.example.org", "192.0.2.1", 3, "/files/a.pdf", BROWSER)),
        (Some("shop"), "repeat", line("shop.example.org", "192.0.2.1", 4, "/files/a.pdf", BROWSER)),
        (None, "excluded", line("other.example.org", "192.0.2.1", 9, "/files/a.pdf", BROWSER)),
        (None, "unparsed", "this is no log line, though it names GET /files/a.pdf HTTP/1.1\n".to_owned()),
        (None, "too_long", line(docs, "192.0.2.4", 10, &format!("/{long}.pdf"), BROWSER)),
    ]
}

fn log() -> String {
    cases().into_iter().map(|(_, _, line)| line).collect()
}

/// What `counts` should hold for the lines of which `is_mine` is true.
fn want(is_mine: impl Fn(Option<&str>) -> bool) -> Vec<(&'static str, u64)> {
    let cases = cases();
    let mine = || cases.iter().filter(|(site, _, _)| is_mine(*site));
    let mut want = vec![("lines", mine().count() as u64)];
    want.extend(FATES.map(|fate| (fate, mine().filter(|(_, of, _)| *of == fate).count() as u64)));
    want
}

#[track_caller]
fn assert_counts(name: &str, counts: &Value, want: &[(&str, u64)]) {
    let got: Vec<(&str, u64)> =
        want.iter().map(|(fate, _)| (*fate, counts[*fate].as_u64().unwrap_or(u64::MAX))).collect();
    assert_eq!(got, want, "{name}: {counts}");
    let fates: u64 = FATES.iter().map(|fate| counts[*fate].as_u64().unwrap()).sum();
    assert_eq!(counts["lines"], json!(fates), "{name}: lines are the sum of their fates");
}

/// The object in `list` whose `key` ends in `end`.
fn pick<'v>(list: &'v Value, key: &str, end: &str) -> &'v Value {
    let found = list.as_array().unwrap().iter().find(|object| object[key].as_str().is_some_and(|it| it.ends_with(end)));
    found.unwrap_or_else(|| panic!("no {key} {end} in {list}"))
}

#[test]
fn a_backfill_s_summary_gives_each_line_one_fate() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITES);
    sandbox.write("shared.log", &log());
    let summary = sandbox.run(&["backfill", "--yes", "--json"]).expect_code(0).json();
    assert_counts("summary", &summary, &want(|_| true));
    assert_eq!(summary["files"], json!(1), "{summary}");
    assert_eq!(summary["bytes"], json!(log().len()), "{summary}");
    for (name, count) in [("delivered", 5), ("rejected", 0), ("already_sent", 0)] {
        assert_eq!(summary[name], json!(count), "{name}: {summary}");
    }
    assert_eq!(summary["requests"], json!(endpoint.post_count()), "{summary}");
    assert!(summary["elapsed_seconds"].is_number(), "{summary}");
    assert_eq!(endpoint.delivered().len(), 5);
}

#[test]
fn a_rehearsal_counts_what_the_backfill_then_counts() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITES);
    sandbox.write("shared.log", &log());
    let rehearsed = sandbox.run(&["backfill", "--dry-run"]).expect_code(0);
    assert_eq!(endpoint.post_count(), 0);
    let mut bodies: Vec<String> = rehearsed.stdout.lines().map(str::to_owned).collect();
    sandbox.run(&["backfill", "--yes"]).expect_code(0);
    let mut sent: Vec<String> = endpoint.posts().iter().map(|post| post.body.to_string()).collect();
    bodies.sort();
    sent.sort();
    assert_eq!(bodies, sent, "byte for byte");
}

#[test]
fn the_daemon_s_status_gives_each_line_one_fate_for_each_log_and_site() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITES);
    sandbox.write("shared.log", &log());
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(5);
    let status = || sandbox.run(&["status", "--json"]).expect_code(0).json();
    let is_settled = |status: &Value| {
        let logs = status["logs"].as_array().cloned().unwrap_or_default();
        logs.iter().any(|log| log["offset"] == json!(self::log().len()) && log["lag_bytes"] == json!(0))
    };
    wait_for("the whole log to be settled", SOON, || is_settled(&status()));
    let (running, _) = (status(), daemon.stop());
    let stopped = status();
    for (name, status) in [("while it runs", &running), ("after the stop", &stopped)] {
        let log = pick(&status["logs"], "path", "shared.log");
        assert_eq!(log["size"], json!(self::log().len()), "{name}");
        assert_counts(name, &log["counts"], &want(|_| true));
        for site in ["docs", "shop"] {
            let counts = &pick(&status["sites"], "name", site)["counts"];
            assert_counts(&format!("{site} {name}"), counts, &want(|of| of == Some(site)));
        }
    }

    // A restart reads nothing again that was settled, so that it counts nothing again.
    let before = endpoint.post_count();
    let daemon = sandbox.start("said");
    sandbox.append("shared.log", &line("shop.example.org", "192.0.2.77", 200, "/new.pdf", BROWSER));
    endpoint.wait_delivered(6);
    daemon.stop();
    assert_eq!(endpoint.post_count(), before + 1);
    let log = status()["logs"].clone();
    assert_eq!(pick(&log, "path", "shared.log")["counts"]["lines"], json!(cases().len() + 1), "{log}");
}

#[test]
fn explain_answers_each_line_as_it_comes() {
    let sandbox = Sandbox::new();
    sandbox.configure(1, SITES);
    let mut explain = sandbox
        .silktail()
        .args(["explain", "--json"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = explain.stdin.take().unwrap();
    let mut output = BufReader::new(explain.stdout.take().unwrap());
    for (_, fate, line) in cases().iter().take(3) {
        // Half a line is none yet.
        let (start, end) = line.trim_end().split_at(line.len() / 2);
        input.write_all(start.as_bytes()).unwrap();
        input.write_all(format!("{end}\n").as_bytes()).unwrap();
        let mut explained = String::new();
        output.read_line(&mut explained).unwrap();
        let explained: Value = serde_json::from_str(&explained).unwrap();
        assert_eq!(explained["outcome"], json!(fate), "{line}");
    }
    // The last line needs no newline.
    input.write_all(b"x").unwrap();
    drop(input);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest.lines().count(), 1);
    assert!(explain.wait().unwrap().success());
}

#[test]
fn explain_keeps_no_more_of_a_line_than_is_read_of_one() {
    const LONG: usize = 8 << 20;
    let sandbox = Sandbox::new();
    sandbox.configure(1, SITES);
    let (_, fate, good) = cases().into_iter().find(|(_, fate, _)| *fate == "event").unwrap();
    // Twice as much as can be kept, with NULs before it, and the last without its newline.
    let input = format!("{}\n{}{good}{}", "a".repeat(LONG), "\0".repeat(LONG), "b".repeat(LONG));
    let done = sandbox.run_with_input(&["explain", "--json"], &input).expect_code(0);
    let explained: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let fates: Vec<&str> = explained.iter().map(|one| one["outcome"].as_str().unwrap()).collect();
    assert_eq!(fates, ["too_long", fate, "too_long"]);
    assert_eq!(explained[0]["line"], json!(format!("{}…", "a".repeat(64 << 10))));
    let text = sandbox.run_with_input(&["explain"], &input).expect_code(0).stdout;
    assert!(text.len() < 1 << 18 && text.matches("too_long: longer than `max_line`").count() == 2, "{}", text.len());
}

#[test]
fn explain_names_the_fate_that_is_counted() {
    let sandbox = Sandbox::new();
    sandbox.configure(1, SITES);
    // Repeats are between lines, and lines too long are told apart by length: both are seen in one input.
    let done = sandbox.run_with_input(&["explain", "--json"], log()).expect_code(0);
    let explained: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let cases = cases();
    assert_eq!(explained.len(), cases.len());
    for (explained, (site, fate, line)) in explained.iter().zip(&cases) {
        let line = line.get(..200).unwrap_or(line);
        assert_eq!(explained["outcome"], json!(fate), "{line}");
        if let Some(site) = site {
            assert_eq!(explained["site"], json!(site), "{line}");
        }
        assert_eq!(explained["fields"].is_null(), ["unparsed", "too_long"].contains(fate), "{line}");
        assert_eq!(explained["payload"].is_null(), *fate != "event", "{line}");
        assert!(!explained.to_string().contains("8bce2be8c07a84a70e7104634b42878b"), "{line}");
    }
}
