//! Backfills that are read by several threads, of several servers, killed again and again, and beside the daemon.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Answer, BROWSER, Endpoint, SOON, Sandbox, combined, combined_by, wait_for};
use rustix::process::Signal;
use serde_json::json;

const SITE: &str = r#"
[[site]]
name = "docs"
base_url = "https://docs.example.org"
property_key = "8bce2be8c07a84a70e7104634b42878b"
logs = ["LOGS/access.log"]
format = "combined"
"#;

fn urls(range: std::ops::Range<u32>) -> Vec<String> {
    let mut urls: Vec<String> = range.map(|n| format!("https://docs.example.org/files/{n}.pdf")).collect();
    urls.sort();
    urls
}

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|n| combined(&format!("192.0.{}.{}", n / 250 % 250, n % 250), n, &format!("/files/{n}.pdf"))).collect()
}

fn gzip(path: &Path, log: &[u8]) {
    let mut encoder = flate2::write::GzEncoder::new(fs::File::create(path).unwrap(), flate2::Compression::fast());
    encoder.write_all(log).unwrap();
    encoder.finish().unwrap();
}

#[test]
fn any_number_of_jobs_gives_the_same_bodies_and_counts() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITE);
    // Some MiB: several segments, with what makes dividing a log hard.
    let mut log = String::new();
    for n in 0..24_000_u32 {
        let visitor = format!("192.0.{}.{}", n / 40 % 9, n % 5);
        match n % 97 {
            3 => log += &format!("garbage {n}\n"),
            5 => log += &"\0".repeat(300),
            7 => log += &combined(&visitor, n / 3, &format!("/long/{}.pdf", "x".repeat(3_000))),
            11 if n % 1_000 < 97 => log += &format!("{}\n", "y".repeat(90_000)),
            13..40 => log += &combined(&visitor, n / 3, &format!("/files/{}.pdf", n % 50)),
            _ => log += &combined(&visitor, n / 3, "/index.html"),
        }
    }
    assert!(log.len() > 4 << 20);
    let (older, newer) = log.split_at(log[..log.len() / 2].rfind('\n').unwrap() + 1);
    gzip(&sandbox.path("access.log.1.gz"), older.as_bytes());
    sandbox.write("access.log", newer);
    for rule in ["", "\n[[site.rule]]\nevent = \"hit\"\nmethod = \"any\"\nstatus = \"any\"\n"] {
        sandbox.configure(endpoint.port, &format!("{SITE}{rule}"));
        let rehearse = |jobs: &str, sink: &[&str]| {
            let done =
                sandbox.run(&[&["backfill", "--dry-run", "--json", "--jobs", jobs], sink].concat()).expect_code(0);
            let mut fates: serde_json::Value = serde_json::from_str(done.stderr.lines().last().unwrap()).unwrap();
            fates["elapsed_seconds"] = json!(0);
            (done.stdout, fates)
        };
        let one = rehearse("1", &[]);
        assert!(one.0.lines().count() > 3_000, "{}", one.1);
        for jobs in ["2", "4"] {
            let more = rehearse(jobs, &[]);
            assert_eq!(more.1, one.1, "{jobs} jobs");
            assert!(more.0 == one.0, "{jobs} jobs give other bodies");
        }
    }
}

#[test]
fn logs_of_several_servers_come_together_by_time() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    let logs = r#"logs = ["LOGS/one.log", "LOGS/two.log"]"#;
    sandbox.configure(endpoint.port, &SITE.replace(r#"logs = ["LOGS/access.log"]"#, logs));
    let line = |second: u32, file: u32| {
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        format!(
            "192.0.2.7 - - [10/Nov/2026:{hour:02}:{minute:02}:{second:02} +0000] \"GET /files/{file}.pdf HTTP/1.1\" 200 5 \
             \"-\" \"{BROWSER}\"\n"
        )
    };
    // Each file three times, 25 seconds apart, on one server and the other in turn: only together are they one chain.
    let (mut one, mut two) = (String::new(), String::new());
    for file in 0..400 {
        let (odd, even) = if file % 2 == 0 { (&mut one, &mut two) } else { (&mut two, &mut one) };
        odd.push_str(&line(file * 100, file));
        even.push_str(&line(file * 100 + 25, file));
        odd.push_str(&line(file * 100 + 50, file));
    }
    sandbox.write("one.log", &one);
    sandbox.write("two.log", &two);
    let rehearsed = sandbox.run(&["backfill", "--dry-run"]).expect_code(0);
    let order: Vec<u32> = rehearsed
        .stdout
        .lines()
        .flat_map(|line| line.split("/files/").skip(1).map(|rest| rest.split('.').next().unwrap().parse().unwrap()))
        .collect();
    let mut sorted = order.clone();
    sorted.dedup();
    assert_eq!(
        order,
        (0..400).flat_map(|file| std::iter::repeat_n(file, 2)).collect::<Vec<u32>>(),
        "in order, page and event"
    );
    let done = sandbox.run(&["backfill", "--yes", "--json"]).expect_code(0).json();
    assert_eq!((&done["event"], &done["repeat"], &done["files"]), (&json!(400), &json!(800), &json!(2)));
    assert_eq!(endpoint.delivered(), urls(0..400));
}

#[test]
fn a_slow_endpoint_gets_the_posts_that_a_rehearsal_shows() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::scripted(|_, _| Answer::Slow(200, Duration::from_millis(3))));
    sandbox.configure_with(endpoint.port, "linger = \"5s\"\nmax_in_flight = 4", SITE);
    // Several times as much as may wait: visitors who fetch three files each, with seconds and many others in between.
    let from_page = |visitor: u32, second: u32, file: u32| {
        let ip = format!("192.0.{}.{}", visitor / 250, visitor % 250);
        combined_by(&ip, second, &format!("/files/{visitor}-{file}.pdf"), "https://docs.example.org/", BROWSER)
    };
    let log: String = (0..300)
        .flat_map(|second| (0..20).map(move |n| (second, (second / 5) * 20 + n, second % 5)))
        .filter(|(_, _, file)| *file < 4)
        .map(|(second, visitor, file)| from_page(visitor, second, file))
        .collect();
    sandbox.write("access.log", &log);
    let rehearsed = sandbox.run(&["backfill", "--dry-run"]).expect_code(0).stdout;
    let mut want: Vec<serde_json::Value> = rehearsed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    sandbox.run(&["backfill", "--yes"]).expect_code(0);
    let mut got: Vec<serde_json::Value> = endpoint.posts().into_iter().map(|post| post.body).collect();
    for bodies in [&mut want, &mut got] {
        bodies.sort_by_key(ToString::to_string);
    }
    assert!(want.len() * 4 == log.lines().count(), "{} POSTs", want.len());
    assert!(got == want, "{} POSTs, and not {}", got.len(), want.len());
}

#[test]
fn hundreds_of_logs_of_one_time_are_not_all_open_at_once() {
    const LOGS: u32 = 200;
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, &SITE.replace("access.log", "*.log"));
    for log in 0..LOGS {
        // Every log has a line of each part of the time.
        let all: String = (0..5).map(|line| lines(line * LOGS + log..line * LOGS + log + 1)).collect();
        sandbox.write(&format!("{log}.log"), &all);
    }
    let done = Command::new("sh")
        .args(["-c", "ulimit -n 128 && exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_silktail"))
        .args(sandbox.silktail().get_args())
        .args(["backfill", "--yes", "--json"])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(endpoint.delivered(), urls(0..5 * LOGS));
}

#[test]
fn a_backfill_that_is_told_to_stop_says_that_something_is_left() {
    for (files, signal) in [(2, Signal::TERM), (3, Signal::HUP), (4, Signal::QUIT)] {
        let (sandbox, endpoint) =
            (Sandbox::new(), Endpoint::scripted(|_, _| Answer::Slow(200, Duration::from_millis(20))));
        sandbox.configure_with(endpoint.port, "max_in_flight = 1", SITE);
        // Small ones, each read in one go.
        for file in 0..files {
            sandbox.write(&format!("access.log.{}", files - file), &lines(30 * file..30 * (file + 1)));
        }
        let mut command = sandbox.silktail();
        let said = fs::File::create(sandbox.path("said")).unwrap();
        let mut child = command.args(["backfill", "--yes"]).stdout(Stdio::null()).stderr(said).spawn().unwrap();
        endpoint.wait_delivered(3);
        common::signal(&child, signal);
        let ended = common::wait_with_deadline(&mut child, SOON).unwrap();
        let said = fs::read_to_string(sandbox.path("said")).unwrap();
        assert_eq!(ended.code(), Some(1), "{files} files: {said}");
        assert!(said.contains("run the same command again"), "{files} files: {said}");
        endpoint.set_script(|_, _| Answer::Status(200));
        sandbox.run(&["backfill", "--yes"]).expect_code(0);
        assert_eq!(endpoint.delivered(), urls(0..30 * files), "each once");
    }
}

#[test]
fn killed_again_and_again_a_backfill_of_archives_loses_none_and_doubles_only_what_was_in_flight() {
    const IN_FLIGHT: usize = 4;
    // `SILKTAIL_KILLS=50 cargo test --test backfill_runs killed`
    let kills: u64 = std::env::var("SILKTAIL_KILLS").map_or(8, |text| text.parse().unwrap());
    let endpoint = Endpoint::scripted(|nth, _| match nth % 9 {
        0 => Answer::Status(503),
        5 => Answer::Close,
        _ => Answer::Slow(200, Duration::from_millis(2)),
    });
    let sandbox = Sandbox::new();
    let keys = format!("linger = \"1s\"\nmax_in_flight = {IN_FLIGHT}\nretry_max = \"20ms\"");
    sandbox.configure_with(endpoint.port, &keys, SITE);
    // Small enough that some logs are read to their end while an earlier one is still being sent.
    let count = 180 * kills as u32;
    let part = count / 3;
    gzip(&sandbox.path("access.log.2.gz"), lines(0..part).as_bytes());
    fs::write(sandbox.path("access.log.1"), zstd::encode_all(lines(part..2 * part).as_bytes(), 1).unwrap()).unwrap();
    sandbox.write("access.log", &lines(2 * part..count));
    let start = || {
        let mut command = sandbox.silktail();
        command.args(["backfill", "--yes", "--jobs", "2"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    for kill in 0..kills {
        let before = endpoint.delivered().len();
        let mut child = start();
        // Another moment each time.
        let further = before + 5 + (kill as usize * 37) % 120;
        wait_for("some more events", SOON, || {
            endpoint.delivered().len() >= further || child.try_wait().unwrap().is_some()
        });
        // It may have ended by itself meanwhile.
        let _ = child.kill();
        child.wait().unwrap();
        endpoint.wait_hung_up();
    }
    endpoint.set_script(|_, _| Answer::Status(200));
    let last = sandbox.run(&["backfill", "--yes"]).expect_code(0);
    let delivered = endpoint.delivered();
    let distinct: BTreeSet<&String> = delivered.iter().collect();
    let doubled = delivered.len() - distinct.len();
    eprintln!("{kills} kills, {count} events: {} lost, {doubled} doubled", count as usize - distinct.len());
    assert_eq!(distinct.len(), count as usize, "lost: {last:#?}");
    assert!(doubled <= kills as usize * IN_FLIGHT, "{doubled} doubled");
    let again = sandbox.run(&["backfill", "--yes", "--json"]).expect_code(0).json();
    assert_eq!(again["event"], json!(0));
}

#[test]
fn the_daemon_started_in_the_middle_of_a_backfill_of_its_log_takes_over_where_that_ends() {
    let endpoint = Endpoint::scripted(|_, _| Answer::Slow(200, Duration::from_millis(3)));
    let sandbox = Sandbox::new();
    sandbox.configure_with(endpoint.port, "linger = \"20ms\"\nmax_in_flight = 2", SITE);
    // What lies there when the daemon starts is the backfill's.
    let config = fs::read_to_string(sandbox.path("config.toml")).unwrap();
    sandbox.write("config.toml", &config.replace("start = \"beginning\"", "start = \"end\""));
    gzip(&sandbox.path("access.log.1.gz"), lines(0..300).as_bytes());
    sandbox.write("access.log", &lines(300..900));
    let mut backfill =
        sandbox.silktail().args(["backfill", "--yes"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // It is in its second log.
    endpoint.wait_delivered(400);
    let daemon = sandbox.start("said");
    wait_for("the daemon to follow", SOON, || daemon.stderr().contains("ready"));
    sandbox.append("access.log", &lines(900..1_000));
    // Rotation and compression, as logrotate does it, with the backfill still at work.
    fs::rename(sandbox.path("access.log.1.gz"), sandbox.path("access.log.2.gz")).unwrap();
    fs::rename(sandbox.path("access.log"), sandbox.path("access.log.1")).unwrap();
    sandbox.append("access.log", &lines(1_000..1_100));
    assert!(backfill.try_wait().unwrap().is_none(), "too quick for this test");
    gzip(&sandbox.path("access.log.1.gz"), &fs::read(sandbox.path("access.log.1")).unwrap());
    fs::remove_file(sandbox.path("access.log.1")).unwrap();
    assert!(common::wait_with_deadline(&mut backfill, SOON).unwrap().success());
    endpoint.wait_delivered(1_100);
    sandbox.append("access.log", &lines(1_100..1_110));
    endpoint.wait_delivered(1_110);
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..1_110), "each once");
    let again = sandbox.run(&["backfill", "--yes", "--json"]).expect_code(0).json();
    assert_eq!(again["event"], json!(0));
    assert_eq!(endpoint.delivered().len(), 1_110);
}

#[test]
fn a_daemon_may_be_restarted_while_a_backfill_reads_the_same_log() {
    let endpoint = Endpoint::scripted(|_, _| Answer::Slow(200, Duration::from_millis(5)));
    let sandbox = Sandbox::new();
    sandbox.configure_with(endpoint.port, "linger = \"20ms\"\nmax_in_flight = 2", SITE);
    let config = fs::read_to_string(sandbox.path("config.toml")).unwrap();
    sandbox.write("config.toml", &config.replace("start = \"beginning\"", "start = \"end\""));
    sandbox.write("access.log", &lines(0..600));
    let mut backfill =
        sandbox.silktail().args(["backfill", "--yes"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    endpoint.wait_delivered(20);
    for from in [600, 620, 640] {
        let daemon = sandbox.start("said");
        wait_for("the daemon to follow", SOON, || daemon.stderr().contains("ready"));
        sandbox.append("access.log", &lines(from..from + 20));
        let last = urls(from + 19..from + 20);
        wait_for("what was written", SOON, || endpoint.delivered().contains(&last[0]));
        daemon.stop();
    }
    assert!(backfill.try_wait().unwrap().is_none(), "too quick for this test");
    assert!(common::wait_with_deadline(&mut backfill, SOON).unwrap().success());
    assert_eq!(endpoint.delivered(), urls(0..660), "each once");
}

#[test]
fn under_other_rules_a_log_is_read_to_its_end_beside_a_daemon_that_follows_it() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    let zips = |range| lines(range).replace(".pdf", ".zip");
    let set_up = |extensions: &str| {
        let rule = format!("{SITE}[[site.rule]]\nevent = \"download\"\nextensions = [{extensions}]\n");
        sandbox.configure(endpoint.port, &rule);
        let config = fs::read_to_string(sandbox.path("config.toml")).unwrap();
        sandbox.write("config.toml", &config.replace("start = \"beginning\"", "start = \"end\""));
    };
    set_up("\"pdf\"");
    sandbox.write("access.log", &(lines(0..50) + &zips(50..100)));
    sandbox.run(&["backfill", "--yes"]).expect_code(0);
    let daemon = sandbox.start("said");
    wait_for("the daemon to follow", SOON, || daemon.stderr().contains("ready"));
    sandbox.append("access.log", &lines(100..102));
    endpoint.wait_delivered(52);
    set_up("\"pdf\", \"zip\"");
    sandbox.run(&["backfill", "--yes", "--limit", "5"]).expect_code(0);
    sandbox.append("access.log", &lines(102..104));
    endpoint.wait_delivered(59);
    sandbox.run(&["backfill", "--yes"]).expect_code(0);
    daemon.stop();
    let mut want = [urls(0..50), urls(100..104), urls(50..100)].concat();
    want.iter_mut().skip(54).for_each(|url| *url = url.replace(".pdf", ".zip"));
    want.sort();
    let mut got = endpoint.delivered();
    got.sort();
    assert_eq!(got, want, "each once");
}

/// One client may have asked both servers for the same in the same second.
#[test]
fn logs_of_two_sites_that_say_the_same_are_two_logs() {
    for start in ["end", "beginning"] {
        let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
        let shop = SITE.replace("docs", "shop").replace("access.log", "shop.log").replace("8bce", "9bce");
        sandbox.configure(endpoint.port, &(SITE.to_owned() + &shop));
        let config = fs::read_to_string(sandbox.path("config.toml")).unwrap();
        sandbox.write("config.toml", &config.replace("start = \"beginning\"", &format!("start = \"{start}\"")));
        for (log, rotated) in [("access.log", "access.log.1"), ("shop.log", "shop.log.1")] {
            sandbox.write(rotated, &lines(0..3));
            sandbox.write(log, &lines(3..10));
        }
        let both = |range: std::ops::Range<u32>| {
            let shop = urls(range.clone()).into_iter().map(|url| url.replace("docs", "shop"));
            urls(range).into_iter().chain(shop).collect::<Vec<_>>()
        };
        let sorted = || {
            let mut urls = endpoint.delivered();
            urls.sort();
            urls
        };
        let rehearsed = sandbox.run(&["backfill", "--dry-run"]).expect_code(0).stdout;
        assert_eq!(rehearsed.lines().count(), 20, "{start}");
        sandbox.run(&["backfill", "--yes"]).expect_code(0);
        assert_eq!(sorted(), both(0..10), "{start}");
        for log in ["access.log", "shop.log"] {
            sandbox.append(log, &lines(10..12));
        }
        let daemon = sandbox.start("said");
        wait_for("the daemon to follow", SOON, || daemon.stderr().contains("ready"));
        for log in ["access.log", "shop.log"] {
            sandbox.append(log, &lines(12..14));
        }
        endpoint.wait_delivered(28);
        daemon.stop();
        sandbox.run(&["backfill", "--yes"]).expect_code(0);
        assert_eq!(sorted(), both(0..14), "{start}: each once");
        let status = sandbox.run(&["status", "--json"]).expect_code(0).json();
        let lags = status["logs"].as_array().unwrap().iter().map(|log| &log["lag_bytes"]).collect::<Vec<_>>();
        assert!(lags.iter().all(|lag| **lag == json!(0)), "{start}: {status}");
    }
}

#[test]
fn the_daemon_goes_on_where_a_backfill_of_a_part_has_ended() {
    for start in ["end", "beginning"] {
        let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
        sandbox.configure(endpoint.port, SITE);
        let config = fs::read_to_string(sandbox.path("config.toml")).unwrap();
        sandbox.write("config.toml", &config.replace("start = \"beginning\"", &format!("start = \"{start}\"")));
        sandbox.write("access.log", &lines(0..20));
        sandbox.run(&["backfill", "--yes", "--since", "2026-11-10T10:00:10Z"]).expect_code(0);
        assert_eq!(endpoint.delivered(), urls(10..20), "{start}");
        sandbox.append("access.log", &lines(20..25));
        let daemon = sandbox.start("said");
        wait_for("the daemon to follow", SOON, || daemon.stderr().contains("ready"));
        sandbox.append("access.log", &lines(25..30));
        endpoint.wait_delivered(20);
        let said = daemon.stop();
        assert_eq!(endpoint.delivered(), urls(10..30), "{start}: what was written in between, too");
        // What should have been read from the beginning, and isn't, is said.
        assert_eq!(said.contains("a backfill has read a later part"), start == "beginning", "{start}: {said}");
        sandbox.run(&["backfill", "--yes"]).expect_code(0);
        assert_eq!(endpoint.delivered(), urls(0..30), "{start}: each once");
    }
}

#[test]
fn a_backfill_and_a_daemon_that_start_at_once_share_the_logs() {
    const LOGS: u32 = 24;
    // `SILKTAIL_ROUNDS=100 cargo test --test backfill_runs at_once`
    let rounds: u32 = std::env::var("SILKTAIL_ROUNDS").map_or(6, |text| text.parse().unwrap());
    for round in 0..rounds {
        let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
        sandbox.configure_with(endpoint.port, "linger = \"10ms\"", &SITE.replace("access.log", "*.log"));
        for log in 0..LOGS {
            sandbox.write(&format!("{log}.log"), &lines(10 * log..10 * (log + 1)));
        }
        // Either has a head start of as many logs as may be, in turn.
        let backfill = || {
            sandbox.silktail().args(["backfill", "--yes", "--progress", "off"]).stderr(Stdio::null()).spawn().unwrap()
        };
        let head_start = (round / 2 * 5 % LOGS) as usize * 10;
        let (mut backfill, daemon) = if round % 2 == 0 {
            let first = backfill();
            wait_for("a head start", SOON, || endpoint.delivered().len() >= head_start);
            (first, sandbox.start("said"))
        } else {
            let first = sandbox.start("said");
            wait_for("a head start", SOON, || endpoint.delivered().len() >= head_start);
            (backfill(), first)
        };
        assert!(common::wait_with_deadline(&mut backfill, SOON).unwrap().success(), "round {round}");
        endpoint.wait_delivered(10 * LOGS as usize);
        daemon.stop();
        assert_eq!(endpoint.delivered(), urls(0..10 * LOGS), "round {round}: each once");
    }
}

#[test]
fn stopped_in_the_middle_of_a_long_log_it_has_shown_how_far_it_is_and_counts_what_it_sent() {
    const COUNT: u32 = 4_000;
    // One at a time: what is read waits, and is far from the end of what is read at once.
    let endpoint = Endpoint::scripted(|_, _| Answer::Slow(200, Duration::from_millis(1)));
    let sandbox = Sandbox::new();
    sandbox.configure_with(endpoint.port, "linger = \"0s\"\nmax_in_flight = 1", SITE);
    gzip(&sandbox.path("access.log.1"), lines(0..COUNT).as_bytes());
    let said = sandbox.path("progress");
    let child = sandbox
        .silktail()
        .args(["backfill", "--yes", "--json", "--progress", "json"])
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    let shows = || -> Vec<serde_json::Value> {
        let text = fs::read_to_string(&said).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    wait_for("a place in the middle", SOON, || {
        shows().iter().any(|shown| {
            let (at, total) = (shown["bytes"].as_u64().unwrap(), shown["total_bytes"].as_u64().unwrap());
            total / 4 < at && at < total
        })
    });
    common::signal(&child, rustix::process::Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let sent = json!(endpoint.delivered().len());
    assert_eq!((&summary["delivered"], &summary["requests"]), (&sent, &sent));
    endpoint.set_script(|_, _| Answer::Status(200));
    sandbox.run(&["backfill", "--yes"]).expect_code(0);
    assert_eq!(endpoint.delivered(), urls(0..COUNT), "each once");
}
