//! `backfill` as people use it: a part of the time, a few POSTs, once more, with a report.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::fs;

use common::{BROWSER, Done, Endpoint, SOON, Sandbox, wait_for};
use serde_json::{Value, json};

const SITE: &str = r#"
[[site]]
name = "docs"
base_url = "https://docs.example.org"
property_key = "8bce2be8c07a84a70e7104634b42878b"
logs = ["LOGS/access.log"]
format = "combined"
"#;

/// A download at a time of the log's own clock, two hours east of UTC.
fn at(day: u32, hour: u32, file: &str) -> String {
    format!(
        "192.0.2.7 - - [{day:02}/Nov/2026:{hour:02}:00:00 +0200] \"GET /{file}.pdf HTTP/1.1\" 200 5 \"-\" \"{BROWSER}\"\n"
    )
}

fn files(endpoint: &Endpoint) -> Vec<String> {
    endpoint.delivered().iter().map(|url| url.trim_start_matches("https://docs.example.org/").to_owned()).collect()
}

fn summary(sandbox: &Sandbox, args: &[&str]) -> Value {
    let all: Vec<&str> = ["backfill", "--yes", "--json"].iter().chain(args).copied().collect();
    sandbox.run(&all).expect_code(0).json()
}

fn sandbox() -> (Sandbox, Endpoint) {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITE);
    (sandbox, endpoint)
}

#[test]
fn a_part_of_the_time_is_sent_and_the_rest_can_be_sent_later() {
    let (sandbox, endpoint) = sandbox();
    // Half past midnight by the log is the evening before in UTC. `late` ended before `early` began to be written.
    let log = [
        at(1, 12, "before"),
        at(2, 0, "midnight"),
        at(2, 12, "noon"),
        at(3, 1, "late"),
        at(2, 23, "early"),
        at(4, 0, "after"),
    ];
    sandbox.write("access.log", &format!("{}no line of the log\n{}", log[..2].concat(), log[2..].concat()));
    let first = summary(&sandbox, &["--since", "2026-11-02", "--until", "2026-11-03"]);
    assert_eq!(files(&endpoint), ["early.pdf", "midnight.pdf", "noon.pdf"]);
    assert_eq!((&first["lines"], &first["event"], &first["unparsed"]), (&json!(4), &json!(3), &json!(1)));
    // In UTC, two hours later.
    summary(&sandbox, &["--since", "2026-11-02T23:00:00Z", "--until", "2026-11-03T00:00:00+00:00"]);
    assert_eq!(files(&endpoint), ["early.pdf", "late.pdf", "midnight.pdf", "noon.pdf"]);
    let rest = summary(&sandbox, &[]);
    assert_eq!((&rest["event"], &rest["already_sent"], &rest["lines"]), (&json!(2), &json!(5), &json!(2)));
    assert_eq!(files(&endpoint).len(), 6);
    let none = summary(&sandbox, &[]);
    assert_eq!((&none["event"], &none["already_sent"]), (&json!(0), &json!(7)));
    // What is too old is left as well.
    sandbox.write("access.log.1", &at(1, 0, "older"));
    assert_eq!(summary(&sandbox, &["--max-age", "1s"])["lines"], json!(0));
    assert_eq!(summary(&sandbox, &["--max-age", "3650d"])["event"], json!(1));
    for (name, args) in [("no time", ["--since", "yesterday"]), ("no duration", ["--max-age", "old"])] {
        let done = sandbox.run(&["backfill", args[0], args[1]]).expect_code(2);
        assert!(done.stderr.contains(args[0]), "{name}: {done:#?}");
    }
}

#[test]
fn a_limit_ends_after_so_many_posts_and_the_same_command_goes_on() {
    let (sandbox, endpoint) = sandbox();
    let log: String = (0..20).map(|hour| at(1, hour, &format!("{hour:02}"))).collect();
    sandbox.write("access.log", &log);
    let whole = sandbox.run(&["backfill", "--dry-run"]).expect_code(0).stdout;
    let some = sandbox.run(&["backfill", "--dry-run", "--limit", "3"]).expect_code(0).stdout;
    assert_eq!(some.lines().collect::<Vec<_>>(), whole.lines().take(3).collect::<Vec<_>>());
    for _ in 0..3 {
        let summary = summary(&sandbox, &["--limit", "8"]);
        assert!(summary["requests"].as_u64().unwrap() <= 8, "{summary}");
    }
    assert_eq!(files(&endpoint), (0..20).map(|hour| format!("{hour:02}.pdf")).collect::<Vec<_>>());
}

#[test]
fn a_limit_is_rehearsed_as_it_is_sent() {
    let (sandbox, endpoint) = sandbox();
    // Two visitors; the first comes back within the linger.
    let second = |second: u32, ip: &str, file: &str| {
        let line = at(1, 0, file).replace(":00:00:00 ", &format!(":00:00:{second:02} "));
        line.replace("192.0.2.7", ip).replace("\"-\" \"", "\"https://docs.example.org/\" \"")
    };
    let log = second(0, "192.0.2.7", "a") + &second(0, "192.0.2.8", "b") + &second(1, "192.0.2.7", "c");
    sandbox.write("access.log", &log);
    for limit in ["1", "2", "3"] {
        let rehearsed = sandbox.run(&["backfill", "--dry-run", "--limit", limit]).expect_code(0);
        let state = sandbox.path("state");
        let _ = fs::remove_dir_all(&state);
        let before = endpoint.post_count();
        summary(&sandbox, &["--limit", limit]);
        let sent: Vec<String> = endpoint.posts()[before..].iter().flat_map(|post| post.urls()).collect();
        let shown: Vec<Value> = rehearsed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let shown: Vec<String> = shown
            .iter()
            .flat_map(|body| body["events"].as_array().unwrap())
            .map(|event| event["url"].as_str().unwrap().to_owned())
            .collect();
        let (mut sent, mut shown) = (sent, shown);
        sent.sort();
        shown.sort();
        assert_eq!(sent, shown, "--limit {limit}");
    }
}

#[test]
fn what_would_be_in_vain_is_said_before_anything_is_sent() {
    let (sandbox, endpoint) = sandbox();
    sandbox.write("access.log", &at(1, 0, "a"));
    let nowhere = sandbox.path("nowhere/report.html").display().to_string();
    let missing = sandbox.path("missing.log").display().to_string();
    for (name, args, code, said) in [
        ("a report that can't be written", &["--report", &nowhere][..], 1, "cannot write"),
        ("no time at all", &["--since", "2026-11-02", "--until", "2026-11-02"], 2, "--until is not after --since"),
        ("no such file", &[&missing], 2, "cannot read"),
    ] {
        let all: Vec<&str> = ["backfill", "--yes"].iter().chain(args).copied().collect();
        let done = sandbox.run(&all).expect_code(code);
        assert!(done.stderr.contains(said), "{name}: {done:#?}");
    }
    assert_eq!(endpoint.post_count(), 0);
}

#[test]
fn a_log_without_times_is_in_no_period_and_that_is_said() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    let format = "[formats.timeless]\nnginx = '$remote_addr \"$request\" $status \"$http_user_agent\"'\n";
    sandbox.configure(endpoint.port, &format!("{}{format}", SITE.replace("combined", "timeless")));
    sandbox.write("access.log", &format!("192.0.2.7 \"GET /a.pdf HTTP/1.1\" 200 \"{BROWSER}\"\n"));
    for period in [["--since", "2026-11-02"], ["--until", "2036-11-02"], ["--max-age", "3650d"]] {
        let done = sandbox.run(&["backfill", "--yes", period[0], period[1]]).expect_code(1);
        assert!(done.stderr.contains("has a time that its format knows"), "{done:#?}");
    }
    assert_eq!(endpoint.post_count(), 0);
    assert_eq!(summary(&sandbox, &[])["event"], 1);
    // An empty archive, as rotation leaves it, has no lines that could be left out.
    sandbox.configure(endpoint.port, SITE);
    sandbox.write("access.log", &at(3, 0, "b"));
    sandbox.write("access.log.1.gz", "");
    assert_eq!(summary(&sandbox, &["--since", "2026-11-02"])["event"], 1);
}

#[test]
fn a_damaged_archive_is_among_the_files_that_were_read() {
    use std::io::Write as _;
    let (sandbox, endpoint) = sandbox();
    let lines: String = (0..200).map(|number| at(1, 0, &number.to_string())).collect();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(lines.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    fs::write(sandbox.path("access.log.1.gz"), &packed[..packed.len() - 8]).unwrap();
    sandbox.write("access.log", &at(2, 0, "live"));
    let done = sandbox.run(&["backfill", "--yes", "--json"]).expect_code(1);
    let summary = done.json();
    assert_eq!((&summary["files"], &summary["lines"], &summary["event"]), (&json!(2), &json!(201), &json!(201)));
    assert_eq!(summary["bytes"], json!(lines.len() + at(2, 0, "live").len()));
    assert_eq!(endpoint.delivered().len(), 201);
}

#[test]
fn lines_that_are_the_daemons_and_not_sent_yet_are_not_called_sent() {
    let (sandbox, endpoint) = sandbox();
    endpoint.set_script(|_, _| common::Answer::Status(503));
    sandbox.write("access.log", &(at(1, 0, "a") + &at(1, 1, "b")));
    let daemon = sandbox.start("said");
    common::wait_for("a try", common::SOON, || endpoint.post_count() > 0);
    daemon.stop();
    let done = sandbox.run(&["backfill", "--yes"]).expect_code(0);
    assert!(done.stdout.contains("left to    2 lines that `run` has begun with"), "{done:#?}");
    assert!(!done.stdout.contains("passed by"), "{done:#?}");
    endpoint.set_script(|_, _| common::Answer::Status(200));
    let daemon = sandbox.start("again");
    endpoint.wait_delivered(2);
    daemon.stop();
    let none = summary(&sandbox, &[]);
    assert_eq!((&none["already_sent"], &none["left_to_run"]), (&json!(2), &json!(0)));
}

#[test]
fn what_run_has_left_of_a_log_that_nobody_follows_any_more_is_sent() {
    for reloads in [false, true] {
        let (sandbox, endpoint) = sandbox();
        sandbox.write("access.log", &at(1, 10, "a"));
        let log = sandbox.path("access.log").display().to_string();
        let other = SITE.replace("access.log", "other.log");
        let daemon = sandbox.start("said");
        endpoint.wait_delivered(1);
        if reloads {
            sandbox.configure(endpoint.port, &other);
            daemon.hang_up();
            wait_for("the new configuration", SOON, || daemon.stderr().contains("following by the new configuration"));
        }
        sandbox.append("access.log", &at(1, 11, "b"));
        if reloads {
            // What it has read, and not sent yet, nobody else knows.
            assert_eq!(summary(&sandbox, &["--site", "docs", &log])["left_to_run"], json!(1));
        } else {
            endpoint.wait_delivered(2);
        }
        daemon.stop();
        sandbox.append("access.log", &at(1, 12, "c"));
        if !reloads {
            // While it is in the configuration, it is `run`'s.
            assert_eq!(summary(&sandbox, &[&log])["left_to_run"], json!(1));
            sandbox.configure(endpoint.port, &other);
        }
        let done = summary(&sandbox, &["--site", "docs", &log]);
        assert_eq!((&done["event"], &done["left_to_run"]), (&json!(1 + i32::from(reloads)), &json!(0)), "{done}");
        assert_eq!(summary(&sandbox, &["--site", "docs", &log])["event"], json!(0));
        // Followed again, it goes on behind that.
        sandbox.append("access.log", &at(1, 13, "d"));
        sandbox.configure(endpoint.port, SITE);
        let daemon = sandbox.start("said-again");
        endpoint.wait_delivered(4);
        daemon.stop();
        assert_eq!(files(&endpoint), ["a.pdf", "b.pdf", "c.pdf", "d.pdf"], "{reloads}");
    }
}

#[test]
fn again_sends_what_was_sent_and_says_so_and_remembers_it_as_before() {
    let (sandbox, endpoint) = sandbox();
    sandbox.write("access.log", &(0..5).map(|hour| at(1, hour, &hour.to_string())).collect::<String>());
    summary(&sandbox, &[]);
    sandbox.append("access.log", &at(2, 0, "new"));
    let done = sandbox.run(&["backfill", "--yes", "--again", "--json"]).expect_code(0);
    assert!(done.stderr.contains("what was sent already is sent again"), "{done:#?}");
    assert_eq!(done.json()["event"], json!(6));
    assert_eq!(files(&endpoint).len(), 5 + 6);
    let none = summary(&sandbox, &[]);
    assert_eq!((&none["event"], &none["already_sent"]), (&json!(0), &json!(6)));
    assert_eq!(files(&endpoint).len(), 11);
}

#[test]
fn before_it_sends_it_says_what_will_be_recorded_as_now_and_asks() {
    let (sandbox, endpoint) = sandbox();
    sandbox.write("access.log.1", &[at(1, 2, "a"), at(2, 3, "b")].concat());
    sandbox.write("access.log", &at(3, 4, "c"));
    let done = sandbox.run(&["backfill"]).expect_code(2);
    for said in [
        "access.log.1",
        "2026-11-01 00:00:00 UTC to 2026-11-02 01:00:00 UTC",
        "2 inputs",
        "2026-11-01 00:00:00 UTC to 2026-11-03 02:00:00 UTC",
        "recorded as happening now",
        "--yes",
    ] {
        assert!(done.stderr.contains(said), "no {said} in {done:#?}");
    }
    assert!(done.stderr.find("access.log.1:").unwrap() < done.stderr.find("access.log:").unwrap(), "oldest first");
    assert_eq!(endpoint.post_count(), 0);
}

#[test]
fn directories_and_patterns_are_spread_and_strangers_need_a_site() {
    let (sandbox, endpoint) = sandbox();
    sandbox.write("old/one.log", &at(1, 1, "one"));
    sandbox.write("old/two.log", &at(1, 2, "two"));
    sandbox.write("other/three.log", &at(1, 3, "three"));
    let done: Done = sandbox.run(&["backfill", "--yes", "old"]).expect_code(2);
    assert!(done.stderr.contains("--site"), "{done:#?}");
    let (old, pattern) = (sandbox.path("old").display().to_string(), sandbox.path("other/*.log").display().to_string());
    let summary = summary(&sandbox, &["--site", "docs", &old, &pattern]);
    assert_eq!(summary["files"], json!(3));
    assert_eq!(files(&endpoint), ["one.pdf", "three.pdf", "two.pdf"]);
}

/// A server may still be in the middle of its last line.
#[test]
fn a_live_log_is_one_by_whatever_name() {
    let (sandbox, endpoint) = sandbox();
    sandbox.append("access.log", &(at(1, 1, "a") + at(1, 2, "b").trim_end()));
    std::os::unix::fs::symlink(sandbox.path("access.log"), sandbox.path("link.log")).unwrap();
    fs::create_dir(sandbox.path("folder")).unwrap();
    let roundabout = sandbox.path("folder/../access.log").display().to_string();
    for name in ["access.log", "link.log", "./access.log", &roundabout, "acc*.log"] {
        let done = sandbox.run(&["backfill", "--yes", "--json", name]).expect_code(0).json();
        assert_eq!(done["unparsed"], 0, "{name}: {done}");
    }
    assert_eq!(files(&endpoint), ["a.pdf"]);
    sandbox.append("access.log", "\n");
    sandbox.run(&["backfill", "--yes", "link.log"]).expect_code(0);
    assert_eq!(files(&endpoint), ["a.pdf", "b.pdf"]);
    let none = sandbox.run(&["backfill", "--yes", "zzz*"]).expect_code(1);
    assert!(none.stderr.contains("no file matches `zzz*`"), "{}", none.stderr);
}

/// By the machine's clock, which is UTC's here, the first was the day before.
#[test]
fn the_report_counts_by_the_days_of_the_log_s_clock() {
    let (sandbox, _endpoint) = sandbox();
    sandbox.write("access.log", &(at(2, 1, "a") + &at(2, 12, "b") + &at(3, 0, "c")));
    sandbox.run(&["backfill", "--dry-run", "--report", "report.html"]).expect_code(0);
    let page = fs::read_to_string(sandbox.path("report.html")).unwrap();
    assert!(page.contains("2026-11-02: 2") && page.contains("2026-11-03: 1"), "{page}");
    assert!(!page.contains("2026-11-01"), "{page}");
}

#[test]
fn the_summary_says_why_and_what_most_and_the_report_is_one_page() {
    let (sandbox, _endpoint) = sandbox();
    let head = at(1, 9, "head").replace("GET", "HEAD");
    let bot = at(1, 9, "bot").replace(BROWSER, "curl/8.5.0");
    let log = [at(1, 1, "a"), at(1, 2, "a"), at(2, 3, "b"), at(2, 3, "b"), head, bot, "garbage\n".to_owned()].concat();
    sandbox.write("access.log", &log);
    let report = sandbox.path("report.html").display().to_string();
    let text = sandbox.run(&["backfill", "--dry-run", "--report", &report]).expect_code(0).stderr;
    for said in ["tool 1", "window 1", "2  https://docs.example.org/a.pdf", "access.log, offset ", ": garbage"] {
        assert!(text.contains(said), "no {said} in\n{text}");
    }
    let page = fs::read_to_string(&report).unwrap();
    for said in ["2026-11-01", "<svg", ">pdf<", "rehearsed, nothing sent"] {
        assert!(page.contains(said), "no {said} in\n{page}");
    }
    assert!(!page.contains("http://") && !page.contains("src="), "it needs nothing else: {page}");
}

#[test]
fn under_changed_rules_a_log_is_read_again_and_only_what_was_not_sent_is_sent() {
    let (sandbox, endpoint) = sandbox();
    let log: String = (0..20)
        .map(|hour| at(1, hour, &hour.to_string()) + &at(2, hour, &format!("zip{hour}")).replace(".pdf", ".zip"))
        .collect();
    sandbox.write("access.log.1", &log);
    let rule = |extensions: &str| format!("{SITE}\n[[site.rule]]\nevent = \"download\"\nextensions = [{extensions}]\n");
    sandbox.configure(endpoint.port, &rule("\"pdf\""));
    let first = summary(&sandbox, &[]);
    assert_eq!((&first["event"], &first["unmatched"], &first["read_again"]), (&json!(20), &json!(20), &json!(0)));
    // More counts now: only that is sent, and the other fates are those of the new rules.
    sandbox.configure(endpoint.port, &rule("\"pdf\", \"zip\""));
    let second = summary(&sandbox, &[]);
    assert_eq!((&second["event"], &second["unmatched"], &second["already_sent"]), (&json!(20), &json!(0), &json!(20)));
    assert_eq!(second["read_again"], json!(1));
    // Less counts: nothing is sent, and what was sent stays so.
    sandbox.configure(endpoint.port, &rule("\"zip\""));
    let third = summary(&sandbox, &[]);
    assert_eq!((&third["event"], &third["unmatched"], &third["already_sent"]), (&json!(0), &json!(20), &json!(20)));
    let text = sandbox.run(&["backfill", "--yes"]).expect_code(0).stdout;
    assert!(!text.contains("since the rules have changed"), "they haven't: {text}");
    let mut want: Vec<String> = (0..20).flat_map(|hour| [format!("{hour}.pdf"), format!("zip{hour}.zip")]).collect();
    want.sort();
    assert_eq!(files(&endpoint), want);
}

#[test]
fn one_site_of_a_shared_log_is_sent_its_own_lines_alone() {
    let site = |name: &str, key: char, hosts: &str| {
        format!(
            "[[site]]\nname = \"{name}\"\nbase_url = \"https://{name}.example.org\"\n\
             property_key = \"{}\"\nlogs = [\"LOGS/access.log\"]\nformat = \"vhost_combined\"\n\
             hosts = [\"{hosts}\"]\n\n",
            String::from(key).repeat(32)
        )
    };
    // The second takes what the first, which comes before it, leaves.
    let sites = site("docs", 'd', "docs.example.org") + &site("all", 'a', "*.example.org");
    let hosts = ["docs.example.org", "shop.example.org", "elsewhere.example.com"];
    let log: String = (0..30_usize).map(|n| format!("{} {}", hosts[n % 3], at(1, 0, &n.to_string()))).collect();
    for how in ["without a path", "with a path", "from standard input"] {
        let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
        sandbox.configure(endpoint.port, &sites);
        sandbox.write("access.log", &log);
        let path = sandbox.path("access.log").display().to_string();
        let one = match how {
            "with a path" => summary(&sandbox, &["--site", "all", &path]),
            "from standard input" => {
                let all = ["backfill", "--yes", "--json", "--site", "all", "-"];
                sandbox.run_with_input(&all, &log).expect_code(0).json()
            }
            _ => summary(&sandbox, &["--site", "all"]),
        };
        let key = |post: &common::Post| post.body["propertyKey"].as_str().unwrap().chars().next();
        let got = |name: char| {
            let posts = endpoint.posts();
            let of = posts.iter().filter(|post| key(post) == Some(name));
            of.flat_map(common::Post::urls).collect::<Vec<_>>()
        };
        assert_eq!((got('a').len(), got('d').len(), &one["event"]), (10, 0, &json!(10)), "{how}");
        let rest = summary(&sandbox, &[]);
        assert_eq!((got('a').len(), got('d').len(), &rest["event"]), (10, 10, &json!(10)), "{how}");
        let counts = sandbox.run(&["status", "--json"]).expect_code(0).json()["logs"][0]["counts"].clone();
        assert_eq!((&counts["lines"], &counts["excluded"]), (&json!(30), &json!(10)), "{how}: {counts}");
    }
    // An old file of one of them tells no host: whoever names the site says it.
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, &sites.replace("\"vhost_combined\"", "\"auto\""));
    sandbox.write("access.log", &log);
    sandbox.write("old.log", &(0..5).map(|n| at(1, 0, &format!("old{n}"))).collect::<String>());
    let old = sandbox.path("old.log").display().to_string();
    assert_eq!(summary(&sandbox, &["--site", "docs", &old])["event"], json!(5));
    assert_eq!(endpoint.delivered().len(), 5);
}
