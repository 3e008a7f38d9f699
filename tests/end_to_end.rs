//! The program as its users meet it: logs go in at one end, POSTs come out at the other, whatever happens in between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use common::{Answer, BROWSER, Endpoint, KEY, SOON, Sandbox, combined, combined_by, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

/// One site without rules: downloads.
const SITE: &str = r#"
[[site]]
name = "docs"
base_url = "https://docs.example.org"
property_key = "8bce2be8c07a84a70e7104634b42878b"
logs = ["LOGS/access.log"]
format = "combined"
"#;

const BASE: &str = "https://docs.example.org";

/// Lines of distinct visitors and files, and the URLs of the events that they are.
fn lines(range: std::ops::Range<u32>) -> (String, Vec<String>) {
    let text =
        range.clone().map(|n| combined(&format!("192.0.2.{}", n % 250), n, &format!("/files/{n}.pdf"))).collect();
    (text, urls(range))
}

fn urls(range: std::ops::Range<u32>) -> Vec<String> {
    let mut urls: Vec<String> = range.map(|n| format!("{BASE}/files/{n}.pdf")).collect();
    urls.sort();
    urls
}

#[test]
fn one_visitor_on_one_page_is_one_post_and_two_visitors_never_share() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure_with(endpoint.port, "linger = \"1s\"", SITE);
    let page = "https://docs.example.org/manuals.html";
    let mut log = String::new();
    for n in 0..20 {
        for ip in ["192.0.2.1", "192.0.2.2"] {
            log += &combined_by(ip, n, &format!("/files/{n}.pdf"), page, BROWSER);
        }
    }
    sandbox.write("access.log", &log);
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(40);
    daemon.stop();

    let posts = endpoint.posts();
    assert_eq!(posts.len(), 2, "{posts:#?}");
    let visitors: BTreeSet<_> = posts.iter().map(|post| post.body["ip"].to_string()).collect();
    assert_eq!(visitors, BTreeSet::from(["\"192.0.2.1\"".to_owned(), "\"192.0.2.2\"".to_owned()]));
    for post in &posts {
        assert_eq!(post.body["url"], page);
        let want: Vec<_> = (0..20).map(|n| format!("{BASE}/files/{n}.pdf")).collect();
        assert_eq!(post.urls(), want, "the order is the log's");
    }
}

#[test]
fn a_post_is_what_the_api_describes() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITE);
    sandbox.write("access.log", &combined("192.0.2.1", 0, "/files/report.pdf?utm=x"));
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(1);
    daemon.stop();

    let posts = endpoint.posts();
    assert_eq!(posts.len(), 1);
    let url = format!("{BASE}/files/report.pdf");
    let want = json!({
        "propertyKey": KEY, "url": url, "ip": "192.0.2.1", "userAgent": BROWSER,
        "events": [{ "event": "download", "url": url }],
    });
    assert_eq!(posts[0].body, want);
    assert_eq!(posts[0].request, "POST /v1/events HTTP/1.1");
    assert!(posts[0].header("content-type").unwrap().starts_with("application/json"));
    assert!(!posts[0].header("idempotency-key").unwrap().is_empty());
}

#[test]
fn stopped_and_started_again_and_again_each_line_is_delivered_once() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITE);
    sandbox.write("access.log", "");
    let mut written = 0;
    let mut append = |count: u32| {
        sandbox.append("access.log", &lines(written..written + count).0);
        written += count;
        written
    };
    for _ in 0..20 {
        let before = append(5);
        let daemon = sandbox.start("said");
        endpoint.wait_delivered(before as usize);
        // How many of these are read, open or delivered when it stops is left to chance.
        append(5);
        daemon.stop();
    }
    let all = append(1);
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(all as usize);
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..all));
}

#[test]
fn what_was_read_but_not_delivered_at_a_sigkill_is_delivered_later_and_not_taken_for_a_repeat() {
    for (name, answer) in
        [("unavailable", Answer::Status(503)), ("withheld", Answer::Withhold), ("hung up", Answer::Close)]
    {
        let sandbox = Sandbox::new();
        let endpoint = Endpoint::scripted(move |_, _| answer);
        sandbox.configure(endpoint.port, SITE);
        let (mut log, want) = lines(0..40);
        // A true repeat stays one, before and after.
        log += &combined("192.0.2.39", 45, "/files/39.pdf");
        sandbox.write("access.log", &log);

        let daemon = sandbox.start("said");
        // 16 places are free, so that more than one POST is under way and most lines are read by then.
        wait_for("POSTs under way", SOON, || endpoint.post_count() >= 10);
        daemon.kill();
        endpoint.wait_hung_up();
        assert_eq!(endpoint.delivered(), Vec::<String>::new(), "{name}");

        endpoint.set_script(|_, _| Answer::Status(200));
        let daemon = sandbox.start("said");
        endpoint.wait_delivered(40);
        daemon.stop();
        assert_eq!(endpoint.delivered(), want, "{name}");
    }
}

#[test]
fn after_sigkill_at_most_what_was_in_flight_is_delivered_twice() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure_with(endpoint.port, "linger = \"0s\"\nmax_in_flight = 4", SITE);
    let (log, want) = lines(0..600);
    sandbox.write("access.log", &log);
    let mut kills = 0;
    for threshold in [50, 200, 350] {
        let daemon = sandbox.start("said");
        wait_for("some deliveries", SOON, || endpoint.delivered().len() >= threshold);
        daemon.kill();
        kills += 1;
    }
    let distinct = || endpoint.delivered().into_iter().collect::<BTreeSet<_>>();
    let daemon = sandbox.start("said");
    wait_for("all deliveries", SOON, || distinct().len() >= 600);
    daemon.stop();
    assert_eq!(distinct().into_iter().collect::<Vec<_>>(), want, "none is lost");
    let doubles = endpoint.delivered().len() - 600;
    assert!(doubles <= 4 * kills, "{doubles} doubles after {kills} kills with 4 POSTs in flight");
}

#[test]
fn an_unavailable_endpoint_delays_and_loses_nothing() {
    let sandbox = Sandbox::new();
    let endpoint = Endpoint::scripted(|nth, _| match nth % 5 {
        0 => Answer::Status(503),
        1 => Answer::Close,
        2 => Answer::Status(429),
        _ => Answer::Status(202),
    });
    sandbox.configure(endpoint.port, SITE);
    let (log, want) = lines(0..12);
    sandbox.write("access.log", &log);
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(12);
    daemon.stop();
    assert_eq!(endpoint.delivered(), want);
}

#[test]
fn a_retry_has_the_same_idempotency_key() {
    let sandbox = Sandbox::new();
    let endpoint = Endpoint::scripted(|nth, _| Answer::Status(if nth == 0 { 500 } else { 200 }));
    sandbox.configure(endpoint.port, SITE);
    sandbox.write("access.log", &lines(0..1).0);
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(1);
    daemon.stop();
    let posts = endpoint.posts();
    assert_eq!(posts.len(), 2);
    assert_eq!(posts[0].header("idempotency-key"), posts[1].header("idempotency-key"));
    assert_eq!(posts[0].body, posts[1].body);
}

#[test]
fn a_renamed_log_is_read_to_its_end_and_its_successor_from_the_beginning() {
    for (name, pattern) in [("exact path", "access.log"), ("glob over the siblings", "access.log*")] {
        let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
        sandbox.configure(endpoint.port, &SITE.replace("access.log", pattern));
        sandbox.write("access.log", &lines(0..5).0);
        let daemon = sandbox.start("said");
        endpoint.wait_delivered(5);
        for turn in 0..3 {
            let start = 5 + turn * 15;
            sandbox.append("access.log", &lines(start..start + 5).0);
            let rotated = format!("access.log.{}", turn + 1);
            fs::rename(sandbox.path("access.log"), sandbox.path(&rotated)).unwrap();
            // The server writes on into the old file until it is told to reopen.
            sandbox.append(&rotated, &lines(start + 5..start + 10).0);
            sandbox.append("access.log", &lines(start + 10..start + 15).0);
            endpoint.wait_delivered(start as usize + 15);
        }
        daemon.stop();
        assert_eq!(endpoint.delivered(), urls(0..50), "{name}");
    }
}

#[test]
fn a_log_rotated_while_nobody_looked_is_read_to_its_end() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITE);
    sandbox.write("access.log", &lines(0..5).0);
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(5);
    daemon.stop();

    sandbox.append("access.log", &lines(5..10).0);
    fs::rename(sandbox.path("access.log"), sandbox.path("access.log.1")).unwrap();
    sandbox.append("access.log", &lines(10..15).0);

    let daemon = sandbox.start("said");
    endpoint.wait_delivered(15);
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..15));
}

#[test]
fn a_truncated_log_is_read_from_its_beginning() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITE);
    sandbox.write("access.log", &lines(0..20).0);
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(20);
    let mut written = 20;
    // Shorter than before, as long, and grown past the old offset before anyone looks.
    for count in [5, 5, 40] {
        fs::copy(sandbox.path("access.log"), sandbox.path("access.log.1")).unwrap();
        let file = fs::OpenOptions::new().append(true).open(sandbox.path("access.log")).unwrap();
        file.set_len(0).unwrap();
        sandbox.append("access.log", &lines(written..written + count).0);
        written += count;
        endpoint.wait_delivered(written as usize);
    }
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..written));
}

#[test]
fn a_line_is_read_when_its_newline_is_there_however_it_is_written() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITE);
    sandbox.write("access.log", "");
    let daemon = sandbox.start("said");
    let (text, want) = lines(0..3);
    for piece in text.as_bytes().chunks(37) {
        sandbox.append("access.log", std::str::from_utf8(piece).unwrap());
    }
    endpoint.wait_delivered(3);
    daemon.stop();
    assert_eq!(endpoint.delivered(), want);
}

#[test]
fn the_end_is_where_following_starts_unless_the_configuration_says_otherwise() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITE);
    let config = fs::read_to_string(sandbox.path("config.toml")).unwrap();
    sandbox.write("config.toml", &config.replace("start = \"beginning\"", ""));
    sandbox.write("access.log", &lines(0..5).0);
    let daemon = sandbox.start("said");
    wait_for("the log in the state", SOON, || {
        let status: Value = serde_json::from_str(&sandbox.run(&["status", "--json"]).stdout).unwrap_or_default();
        status["logs"].as_array().is_some_and(|logs| !logs.is_empty())
    });
    sandbox.append("access.log", &lines(5..10).0);
    endpoint.wait_delivered(5);
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(5..10));
}

#[test]
fn the_property_key_is_seen_in_posts_only() {
    let (sandbox, endpoint) =
        (Sandbox::new(), Endpoint::scripted(|nth, _| Answer::Status(if nth < 2 { 403 } else { 200 })));
    sandbox.configure(endpoint.port, SITE);
    let (log, _) = lines(0..2);
    sandbox.write("access.log", &log);
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(2);
    let mut said = vec![("run", daemon.stop())];
    let line = log.lines().next().unwrap();
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["check"],
        &["check", "--strict"],
        &["explain", line],
        &["explain", "--json", line],
        &["backfill", "--yes"],
        &["rejected", "list"],
    ] {
        let done = sandbox.run(args);
        said.push((args[0], done.stdout + &done.stderr));
    }
    // Quoted configuration lines, where the mistake is beside the key or in its very name.
    let config = fs::read_to_string(sandbox.path("config.toml")).unwrap();
    for (name, mistake) in [
        ("key given twice", format!("property_key = \"{KEY}\"\nproperty_key = \"{KEY}\"")),
        ("misspelt name", format!("propertykey = \"{KEY}\"")),
        ("rubbish behind it", format!("property_key = \"{KEY}\" oops")),
        ("wrong type", format!("property_key = [\"{KEY}\"]")),
    ] {
        sandbox.write("config.toml", &config.replace(&format!("property_key = \"{KEY}\""), &mistake));
        let done = sandbox.run(&["check"]).expect_code(2);
        said.push((name, done.stdout + &done.stderr));
    }
    for (name, said) in said {
        assert!(!said.contains(KEY), "{name}: the key is in\n{said}");
    }
}

#[test]
fn plain_http_to_another_machine_is_refused_unless_allowed() {
    let sandbox = Sandbox::new();
    sandbox.configure(1, SITE);
    sandbox.write("access.log", "");
    let config = fs::read_to_string(sandbox.path("config.toml")).unwrap();
    let plain = config.replace("http://127.0.0.1:1/", "http://192.0.2.1/");
    sandbox.write("config.toml", &plain);
    for command in ["check", "run"] {
        let done = sandbox.run(&[command]).expect_code(2);
        assert!(done.stderr.contains("http"), "{done:#?}");
    }
    sandbox.write("config.toml", &plain.replace("[follow]", "allow_http = true\n[follow]"));
    sandbox.run(&["check"]).expect_code(0);
}

#[test]
fn check_reports_all_mistakes_at_once_each_with_its_place() {
    let sandbox = Sandbox::new();
    let config = r#"
state_dir = "state"

[endpoint]
url = "https://a.eu.silktide.com/v1/events"
lingr = "2s"

[[site]]
name = "docs"
base_url = "https://docs.example.org"
property_key = "8bce2be8c07a84a70e7104634b42878b"
logs = ["access.log"]
view_width = "wide"

[[site.rule]]
event = "download"
extentions = ["pdf"]

[[site.rule]]
event = "download"
path = '^/files/('
"#;
    sandbox.write("config.toml", config);
    let done = sandbox.run(&["check"]).expect_code(2);
    let said = format!("{}{}", done.stdout, done.stderr);
    for (name, text, column) in [
        ("unknown key of the endpoint", "lingr", Some(1)),
        ("wrong type", "view_width", None),
        ("unknown key of a rule", "extentions", Some(1)),
        ("bad regex", "path = '^/files/('", None),
    ] {
        let line = 1 + config.lines().position(|line| line.starts_with(text)).unwrap();
        let place = match column {
            Some(column) => format!("config.toml:{line}:{column}"),
            None => format!("config.toml:{line}:"),
        };
        assert!(said.contains(&place), "{name}: no {place} in\n{said}");
    }
    assert!(said.contains("`extensions`") && said.contains("`linger`"), "the likely fix:\n{said}");
    let other = sandbox.run(&["run"]).expect_code(2);
    assert!(other.stderr.contains("extentions"), "{other:#?}");
}

#[test]
fn an_unknown_option_is_a_wrong_command_line() {
    let sandbox = Sandbox::new();
    sandbox.configure(1, SITE);
    for args in [&["run", "--frobnicate"][..], &["frobnicate"], &["backfill", "--limit", "many"]] {
        let done = sandbox.run(args).expect_code(2);
        assert!(done.stdout.is_empty() && !done.stderr.is_empty(), "{done:#?}");
    }
}

#[test]
fn logs_that_are_not_there_are_warnings() {
    let sandbox = Sandbox::new();
    sandbox.configure(1, SITE);
    let done = sandbox.run(&["check"]).expect_code(0);
    assert!(format!("{}{}", done.stdout, done.stderr).contains("access.log"), "{done:#?}");
    sandbox.run(&["check", "--strict"]).expect_code(1);
}

#[test]
fn backfill_of_standard_input_wants_to_be_sure() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITE);
    let (mut log, want) = lines(0..6);
    // Standard input has an end: a last line without newline is a line.
    log.pop();

    let refused = sandbox.run_with_input(&["backfill", "--site", "docs", "-"], &log);
    assert_ne!(refused.code, 0, "{refused:#?}");
    assert!(refused.stderr.contains("--yes"), "{refused:#?}");
    assert_eq!(endpoint.post_count(), 0);

    let rehearsed = sandbox.run_with_input(&["backfill", "--site", "docs", "--dry-run", "-"], &log).expect_code(0);
    let bodies: Vec<Value> = rehearsed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(bodies.len(), 6, "{rehearsed:#?}");
    for (n, body) in bodies.iter().enumerate() {
        let url = format!("{BASE}/files/{n}.pdf");
        let event = json!([{ "event": "download", "url": url }]);
        let want = json!({
            "propertyKey": KEY, "url": url, "ip": format!("192.0.2.{n}"), "userAgent": BROWSER, "events": event,
        });
        assert_eq!(body, &want);
    }
    assert_eq!(endpoint.post_count(), 0, "a rehearsal sends nothing");

    sandbox.run_with_input(&["backfill", "--site", "docs", "--yes", "-"], &log).expect_code(0);
    assert_eq!(endpoint.delivered(), want);
    let sent: Vec<Value> = endpoint.posts().into_iter().map(|post| post.body).collect();
    for body in bodies {
        assert!(sent.contains(&body), "rehearsed and not sent: {body}");
    }
}

#[test]
fn backfill_twice_sends_nothing_twice_and_run_goes_on_where_it_ended() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITE);
    sandbox.write("access.log", &lines(0..10).0);
    let first = sandbox.run(&["backfill", "--yes", "--json"]).expect_code(0).json();
    assert_eq!((&first["delivered"], &first["already_sent"]), (&json!(10), &json!(0)), "{first}");
    let second = sandbox.run(&["backfill", "--yes", "--json"]).expect_code(0).json();
    assert_eq!(second["delivered"], json!(0), "{second}");
    assert_eq!(endpoint.delivered(), urls(0..10));

    sandbox.append("access.log", &lines(10..12).0);
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(12);
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..12));
}

#[test]
fn the_short_help_is_shorter_than_the_long_one() {
    let sandbox = Sandbox::new();
    let commands = sandbox.run(&["completions", "bash"]).expect_code(0).stdout;
    for command in [
        "",
        "run",
        "backfill",
        "check",
        "explain",
        "test",
        "init",
        "status",
        "rejected",
        "receive",
        "demo",
        "completions",
        "man",
    ] {
        assert!(commands.contains(command), "{command}");
        let help = |flag| {
            let args: Vec<&str> = [command, flag].into_iter().filter(|arg| !arg.is_empty()).collect();
            sandbox.run(&args).expect_code(0)
        };
        let (short, long) = (help("-h"), help("--help"));
        assert!(short.stdout.len() < long.stdout.len(), "{command}: {short:#?}");
        assert_eq!((short.stderr.as_str(), long.stderr.as_str()), ("", ""), "help is data");
    }
}

#[test]
fn a_demo_that_is_ended_early_leaves_nothing_behind() {
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let sandbox = Sandbox::new();
        let folder = sandbox.path("tmp");
        fs::create_dir(&folder).unwrap();
        let mut command = sandbox.silktail();
        command.arg("demo").env("TMPDIR", &folder).stdout(Stdio::null()).stderr(Stdio::null());
        let mut demo = command.spawn().unwrap();
        let what_is_there = || fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()).next();
        let runs = || what_is_there().is_some_and(|stage| stage.join("state/daemon.lock").exists());
        wait_for("the demo's daemon", SOON, runs);
        let stage = what_is_there().unwrap().display().to_string();
        common::signal(&demo, signal);
        assert_eq!(common::wait_with_deadline(&mut demo, SOON).unwrap().code(), Some(1), "{signal:?}");
        assert_eq!(what_is_there(), None, "{signal:?}");
        let daemon = fs::read_dir("/proc").unwrap().flatten().find(|process| {
            fs::read(process.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&stage))
        });
        assert!(daemon.is_none(), "{signal:?}: {daemon:?} still runs");
    }
}

#[test]
fn a_line_that_is_not_utf8_may_stand_on_the_command_line() {
    use std::os::unix::ffi::OsStrExt;

    let sandbox = Sandbox::new();
    sandbox.configure(1, SITE);
    let line = common::combined("192.0.2.7", 0, "/caf\u{e9}.pdf").replace('\n', "");
    // The letter's two bytes as the one that they are in Latin-1.
    let bytes: Vec<u8> = line.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let output =
        sandbox.silktail().args(["explain", "--json"]).arg(std::ffi::OsStr::from_bytes(&bytes)).output().unwrap();
    let explained: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(explained["fields"]["path"], json!("/caf\u{fffd}.pdf"), "{explained}");
    assert_eq!(explained["payload"]["url"], json!(format!("{BASE}/caf%E9.pdf")), "{explained}");
}

#[test]
fn explain_has_nothing_to_say_of_no_line() {
    let sandbox = Sandbox::new();
    for format in ["combined", "auto"] {
        sandbox.configure(1, &SITE.replace("combined", format));
        let done = sandbox.run_with_input(&["explain", "--json"], "").expect_code(0);
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""), "{format}");
    }
}

#[test]
fn json_misleads_on_no_terminal_and_is_byte_for_byte_elsewhere() {
    const EVIL: &str = "\u{9b}31m\u{202e}\u{7f}";
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::scripted(|_, _| Answer::Status(422)));
    sandbox.configure(endpoint.port, SITE);
    let line = combined_by("192.0.2.1", 0, "/a.pdf", "-", &format!("{BROWSER} {EVIL}"));
    sandbox.write("access.log", &line);
    let backfill = |how| ["backfill", "--yes", "--progress", "off", how];
    let (dry, wet) = (backfill("--dry-run"), backfill("--json"));
    let misleads = |text: &str| text.contains(|c: char| c.is_control() && !"\r\n".contains(c) || c == '\u{202e}');
    for args in [&dry[..], &["explain", "--json"], &wet, &["rejected", "list", "--json"]] {
        let seen = sandbox.run_on_terminal(args, &line);
        assert!(!misleads(&seen), "{args:?}: {seen:?}");
        // Its summary quotes no line.
        if args == wet {
            continue;
        }
        assert!(seen.contains(r"\u009b31m\u202e\u007f"), "{args:?}: {seen:?}");
        let shown = seen.lines().find(|line| line.starts_with('{')).unwrap();
        let done = sandbox.run_with_input(args, &line).expect_code(0);
        assert!(done.stdout.contains(EVIL), "{args:?}: {done:#?}");
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(value(shown), value(done.stdout.lines().next().unwrap()), "{args:?}");
    }
}
