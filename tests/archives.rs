//! Compressed logs: the same lines, whatever they are packed in and whoever packs them when.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use common::{Answer, Endpoint, SOON, Sandbox, combined, wait_for};
use serde_json::{Value, json};

const SITE: &str = r#"
[[site]]
name = "docs"
base_url = "https://docs.example.org"
property_key = "8bce2be8c07a84a70e7104634b42878b"
logs = ["LOGS/access.log"]
format = "combined"
"#;

const PACKINGS: [&str; 5] = ["plain", "gz", "zst", "bz2", "xz"];

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|n| combined(&format!("192.0.2.{}", n % 250), n, &format!("/files/{n}.pdf"))).collect()
}

fn urls(range: std::ops::Range<u32>) -> Vec<String> {
    let mut urls: Vec<String> = range.map(|n| format!("https://docs.example.org/files/{n}.pdf")).collect();
    urls.sort();
    urls
}

fn pack(log: &str, packing: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let bytes = log.as_bytes();
    match packing {
        "plain" => out.extend_from_slice(bytes),
        // Two members: what `cat a.gz b.gz` and many servers write.
        "gz" => {
            for part in [&bytes[..bytes.len() / 2], &bytes[bytes.len() / 2..]] {
                let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::fast());
                encoder.write_all(part).unwrap();
                encoder.finish().unwrap();
            }
        }
        "zst" => out = zstd::encode_all(bytes, 1).unwrap(),
        "bz2" => {
            let mut encoder = bzip2::write::BzEncoder::new(&mut out, bzip2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap();
        }
        "xz" => {
            let mut encoder = liblzma::write::XzEncoder::new(&mut out, 1);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap();
        }
        other => panic!("no packing {other}"),
    }
    out
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}

fn fates(summary: &Value) -> Value {
    let mut fates = summary.clone();
    fates["elapsed_seconds"] = json!(0);
    fates
}

#[test]
fn the_same_log_packed_in_any_way_gives_the_same_events_and_a_second_time_none() {
    // The last line has no newline: in an archive nobody will write the rest of it.
    let log = lines(0..300).trim_end().to_owned();
    let mut summaries = Vec::new();
    for packing in PACKINGS {
        let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
        sandbox.configure(endpoint.port, SITE);
        // The name says nothing about what is in it.
        write(&sandbox.path("access.log.old"), &pack(&log, packing));
        let rehearsed = sandbox.run(&["backfill", "--dry-run", "--json"]).expect_code(0);
        assert_eq!(rehearsed.stdout.lines().count(), 300, "{packing}");
        let first = sandbox.run(&["backfill", "--yes", "--json"]).expect_code(0).json();
        assert_eq!(endpoint.delivered(), urls(0..300), "{packing}");
        summaries.push(fates(&first));
        for name in ["access.log.old", "access.log.prev"] {
            fs::rename(sandbox.path("access.log.old"), sandbox.path(name)).unwrap();
            let again = sandbox.run(&["backfill", "--yes", "--json"]).expect_code(0).json();
            assert_eq!((&again["event"], &again["already_sent"]), (&json!(0), &json!(300)), "{packing} {name}");
        }
        // The same log packed in another way is the same log.
        for other in PACKINGS {
            write(&sandbox.path("access.log.prev"), &pack(&log, other));
            let again = sandbox.run(&["backfill", "--yes", "--json"]).expect_code(0).json();
            assert_eq!((&again["event"], &again["already_sent"]), (&json!(0), &json!(300)), "{packing} as {other}");
        }
        assert_eq!(endpoint.delivered(), urls(0..300), "{packing}: nothing twice");
    }
    for summary in &summaries {
        assert_eq!(*summary, summaries[0]);
    }
}

#[test]
fn standard_input_is_a_log_like_any_other_packed_in_any_way() {
    let site = SITE.replace("[[site]]\n", "[[site]]\nrepeat_window = \"0s\"\n");
    for packing in PACKINGS {
        let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
        sandbox.configure(endpoint.port, &site);
        let send = |log: &str| {
            let done = sandbox.run_with_input(&["backfill", "--yes", "--json", "-"], pack(log, packing)).expect_code(0);
            let summary = done.json();
            (summary["event"].as_u64().unwrap(), summary["already_sent"].as_u64().unwrap())
        };
        assert_eq!(send(&lines(0..100)), (100, 0), "{packing}");
        assert_eq!(send(&lines(0..100)), (0, 100), "{packing}: a second time");
        assert_eq!(send(&lines(0..120)), (20, 100), "{packing}: the log has grown");
        // The same log, where it lies.
        sandbox.write("access.log", &lines(0..130));
        let file = sandbox.run(&["backfill", "--yes", "--json"]).expect_code(0).json();
        assert_eq!((&file["event"], &file["already_sent"]), (&json!(10), &json!(120)), "{packing}");
        assert_eq!(send(&lines(0..130)), (0, 130), "{packing}: from its file to standard input");
        let redirected = sandbox
            .silktail()
            .args(["backfill", "--yes", "--json", "-"])
            .stdin(fs::File::open(sandbox.path("access.log")).unwrap())
            .output()
            .unwrap();
        let redirected: Value = serde_json::from_slice(&redirected.stdout).unwrap();
        assert_eq!((&redirected["event"], &redirected["already_sent"]), (&json!(0), &json!(130)), "{packing}");
        assert_eq!(endpoint.delivered(), urls(0..130), "{packing}: each once");
    }
}

#[test]
fn a_part_of_the_time_may_be_asked_of_standard_input() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITE);
    let log = lines(0..120);
    let part = ["backfill", "--yes", "--since", "2026-11-10T10:01:00Z", "--until", "2026-11-10T10:01:30Z", "-"];
    let done = sandbox.run_with_input(&part, log.as_bytes()).expect_code(0);
    assert!(
        done.stderr.contains(&format!("standard input: {} bytes", log.len())),
        "as they were given: {}",
        done.stderr
    );
    assert!(done.stderr.contains("standard input") && done.stderr.contains("2026-11-10 10:01:59"), "{}", done.stderr);
    assert_eq!(endpoint.delivered(), urls(60..90));
    sandbox.run_with_input(&["backfill", "--yes", "-"], log.as_bytes()).expect_code(0);
    assert_eq!(endpoint.delivered(), urls(0..120), "each once");
    // Nobody has to wait for a long log's end to hear that something is missing.
    let done = sandbox.run_with_input(&["backfill", "-"], b"").expect_code(2);
    assert!(done.stderr.contains("--yes"), "{}", done.stderr);
}

#[test]
fn parts_of_standard_input_may_be_sent_one_after_the_other() {
    for packing in PACKINGS {
        let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
        // Where every request counts, nothing but what is remembered of the log keeps it from counting twice.
        sandbox.configure(endpoint.port, &format!("{SITE}repeat_window = \"0s\"\n"));
        let input = pack(&lines(0..100), packing);
        let backfill = |more: &[&str], input: &[u8]| {
            sandbox.run_with_input(&[&["backfill", "--yes", "--json", "-"], more].concat(), input)
        };
        backfill(&["--until", "2026-11-10T10:00:20Z"], &input).expect_code(0);
        assert_eq!(endpoint.delivered(), urls(0..20), "{packing}: until");
        backfill(&["--since", "2026-11-10T10:00:50Z"], &input).expect_code(0);
        backfill(&["--limit", "10"], &input).expect_code(0);
        assert_eq!(endpoint.delivered().len(), 80, "{packing}: limit");
        let all = backfill(&[], &input).expect_code(0).json();
        assert_eq!((&all["event"], endpoint.delivered()), (&json!(20), urls(0..100)), "{packing}");
        let again = backfill(&[], &input).expect_code(0).json();
        assert_eq!((&again["event"], &again["already_sent"]), (&json!(0), &json!(100)), "{packing}: again");
        // The same log as a file is the same log.
        write(&sandbox.path("access.log"), &input);
        sandbox.run(&["backfill", "--yes"]).expect_code(0);
        assert_eq!(endpoint.delivered(), urls(0..100), "{packing}: as a file");
        let cut = backfill(&[], &pack(&lines(200..3_000), packing)[..9_000]);
        assert_eq!(cut.code, i32::from(packing != "plain"), "{packing}: {cut:#?}");
    }
}

#[test]
fn a_log_and_its_copies_in_one_run_are_one_log() {
    let site = SITE.replace("[[site]]\n", "[[site]]\nrepeat_window = \"0s\"\n");
    for rehearsal in [false, true] {
        let (sandbox, endpoint) =
            (Sandbox::new(), Endpoint::scripted(|_, _| Answer::Slow(200, Duration::from_millis(1))));
        sandbox.configure(endpoint.port, &site);
        sandbox.write("access.log", &lines(0..310));
        write(&sandbox.path("access.log.1.gz"), &pack(&lines(0..300), "gz"));
        write(&sandbox.path("access.log.2.xz"), &pack(&lines(0..300), "xz"));
        // One that begins alike, and is another.
        sandbox.write("access.log.3", &(lines(0..20) + &lines(400..410)));
        let args: &[&str] = if rehearsal { &["--dry-run"] } else { &["--yes"] };
        let done = sandbox.run(&[&["backfill", "--json", "--jobs", "2"], args].concat()).expect_code(0);
        let summary: Value =
            serde_json::from_str(if rehearsal { done.stderr.lines().last().unwrap() } else { &done.stdout }).unwrap();
        assert_eq!(summary["event"], json!(340), "{summary}");
        assert_eq!(summary["already_sent"], json!(600), "{summary}");
        if !rehearsal {
            let mut want = [urls(0..310), urls(0..20), urls(400..410)].concat();
            want.sort();
            assert_eq!(endpoint.delivered(), want);
        }
    }
}

#[test]
fn standard_input_is_read_once_and_needs_no_last_newline() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITE);
    for args in [&["backfill", "-"][..], &["backfill", "--yes", "-", "-"]] {
        sandbox.run_with_input(args, b"").expect_code(2);
    }
    sandbox.run_with_input(&["backfill", "--yes", "-"], b"").expect_code(0);
    sandbox.run_with_input(&["backfill", "--yes", "-"], lines(0..1).trim_end().as_bytes()).expect_code(0);
    assert_eq!(endpoint.delivered(), urls(0..1), "its last line is whole without a newline");
}

#[test]
fn a_refused_site_is_given_up_when_its_queue_is_full_and_the_others_of_its_log_are_finished() {
    const SITES: &str = r#"
[[site]]
name = "one"
base_url = "https://one.example.org"
property_key = "8bce2be8c07a84a70e7104634b428701"
logs = ["LOGS/access.log"]
format = "vhost_combined"
hosts = ["one.example.org"]

[[site]]
name = "two"
base_url = "https://two.example.org"
property_key = "8bce2be8c07a84a70e7104634b428702"
logs = ["LOGS/access.log"]
format = "vhost_combined"
hosts = ["two.example.org"]
"#;
    let of_one = |body: &Value| body["propertyKey"].as_str().unwrap().ends_with("01");
    let endpoint = Endpoint::scripted(move |_, body| Answer::Status(if of_one(body) { 403 } else { 200 }));
    let sandbox = Sandbox::new();
    sandbox.configure_with(endpoint.port, "linger = \"0s\"", SITES);
    // More than may wait in memory.
    let log: String = lines(0..6_000)
        .lines()
        .enumerate()
        .map(|(n, line)| format!("{}.example.org:443 {line}\n", ["one", "two"][n % 2]))
        .collect();
    write(&sandbox.path("access.log.1"), &pack(&log, "gz"));
    let done = sandbox.run(&["backfill", "--yes", "--json"]).expect_code(1);
    assert!(done.stderr.contains("property_key"), "{done:#?}");
    let of = |n: u32| format!("https://{}.example.org/files/{n}.pdf", ["one", "two"][n as usize % 2]);
    let sorted = |range: std::ops::Range<u32>, step: usize| {
        let mut urls: Vec<String> = range.step_by(step).map(of).collect();
        urls.sort();
        urls
    };
    assert_eq!(endpoint.delivered(), sorted(1..6_000, 2), "the other site's");
    endpoint.set_script(|_, _| Answer::Status(200));
    sandbox.run(&["backfill", "--yes"]).expect_code(0);
    assert_eq!(endpoint.delivered(), sorted(0..6_000, 1), "each once");
    // Standard input, of one site, doesn't wait for ever either.
    endpoint.set_script(|_, _| Answer::Status(403));
    let input = lines(10_000..16_000);
    sandbox.run_with_input(&["backfill", "--yes", "--site", "one", "-"], input.as_bytes()).expect_code(0);
    let input = input.replace("192.0", "one.example.org:443 192.0");
    let done = sandbox.run_with_input(&["backfill", "--yes", "--site", "one", "-"], input.as_bytes()).expect_code(1);
    assert!(done.stderr.contains("property_key"), "{done:#?}");
}

#[test]
fn a_damaged_archive_gives_what_it_holds_and_the_others_are_read() {
    for packing in &PACKINGS[1..] {
        let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
        sandbox.configure(endpoint.port, SITE);
        let bytes = pack(&lines(0..3_000), packing);
        write(&sandbox.path("access.log.2"), &bytes[..bytes.len() * 9 / 10]);
        sandbox.write("access.log.1", &lines(3_000..3_010));
        let done = sandbox.run(&["backfill", "--yes", "--json"]).expect_code(1);
        assert!(done.stderr.contains("access.log.2") && done.stderr.contains("damaged or cut off after"), "{done:#?}");
        let delivered = endpoint.delivered();
        let all = urls(0..3_010);
        assert!(delivered.iter().all(|url| all.contains(url)), "{packing}: no half line becomes an event");
        assert!(urls(3_000..3_010).iter().all(|url| delivered.contains(url)), "{packing}: the other file is read");

        // Mended, it goes on where it was.
        write(&sandbox.path("access.log.2"), &bytes);
        sandbox.run(&["backfill", "--yes"]).expect_code(0);
        assert_eq!(endpoint.delivered(), all, "{packing}");
    }
}

#[test]
fn what_was_rotated_and_packed_while_nobody_looked_is_read_to_its_end() {
    for packing in PACKINGS {
        for pattern in ["access.log", "access.log*"] {
            let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
            sandbox.configure(endpoint.port, &SITE.replace("access.log", pattern));
            sandbox.write("access.log", &lines(0..50));
            let daemon = sandbox.start("said");
            endpoint.wait_delivered(50);
            daemon.stop();
            // Twice: the first of them was followed, the second was never seen. What they hold counts, not what they are
            // called.
            write(&sandbox.path("access.log.2.gz"), &pack(&lines(0..60), packing));
            write(&sandbox.path("access.log.1.gz"), &pack(&lines(60..70), packing));
            sandbox.write("access.log", &lines(70..75));
            let daemon = sandbox.start("said");
            endpoint.wait_delivered(75);
            daemon.stop();
            assert_eq!(endpoint.delivered(), urls(0..75), "{packing} {pattern}");
            // What was read stays read.
            let daemon = sandbox.start("said");
            sandbox.append("access.log", &lines(75..76));
            endpoint.wait_delivered(76);
            daemon.stop();
            assert_eq!(endpoint.delivered(), urls(0..76), "{packing} {pattern}");
        }
    }
}

#[test]
fn what_copytruncate_copied_before_it_cut_is_read_from_the_copy() {
    for (pattern, packing) in [("access.log", "plain"), ("access.log*", "plain"), ("access.log*", "gz")] {
        let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
        sandbox.configure(endpoint.port, &SITE.replace("access.log", pattern));
        sandbox.write("access.log", &lines(0..50));
        let daemon = sandbox.start("said");
        endpoint.wait_delivered(50);
        daemon.stop();
        // Stopped, so that nothing of this is seen on the way.
        write(&sandbox.path("access.log.1"), &pack(&lines(0..60), packing));
        let file = fs::OpenOptions::new().write(true).open(sandbox.path("access.log")).unwrap();
        file.set_len(0).unwrap();
        sandbox.append("access.log", &lines(60..180));
        let daemon = sandbox.start("said");
        endpoint.wait_delivered(180);
        daemon.stop();
        assert_eq!(endpoint.delivered(), urls(0..180), "{pattern} {packing}");
    }
}

#[test]
fn a_copy_beside_a_followed_log_is_not_read_twice() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, &SITE.replace("access.log", "access.log*"));
    sandbox.write("access.log", &lines(0..50));
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(50);
    for packing in PACKINGS {
        write(&sandbox.path(&format!("access.log.{packing}")), &pack(&lines(0..50), packing));
    }
    // Half of an archive that is still being written.
    let half = pack(&lines(0..50), "gz");
    write(&sandbox.path("access.log.half"), &half[..half.len() / 2]);
    sandbox.append("access.log", &lines(50..60));
    endpoint.wait_delivered(60);
    let file = fs::OpenOptions::new().write(true).open(sandbox.path("access.log")).unwrap();
    file.set_len(0).unwrap();
    sandbox.append("access.log", &lines(60..65));
    endpoint.wait_delivered(65);
    let status = || sandbox.run(&["status", "--json"]).expect_code(0).json();
    let at_end = |log: &Value| log["path"].as_str().is_some_and(|path| path.ends_with("access.log"));
    wait_for("the new content in the state", SOON, || {
        status()["logs"]
            .as_array()
            .is_some_and(|logs| logs.iter().any(|log| at_end(log) && log["lag_bytes"] == json!(0)))
    });
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..65));
}
