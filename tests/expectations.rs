//! `test` and `check`: what the user expects of lines, and what they say of the logs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use common::{CRAWLER, KEY, Sandbox, combined, combined_by};

const SITES: &str = r#"
[[site]]
name = "docs"
base_url = "https://docs.example.org"
property_key = "8bce2be8c07a84a70e7104634b42878b"
logs = ["LOGS/access.log"]
format = "combined"

[[site.rule]]
event = "download"
extensions = ["pdf"]
properties = { kind = "{path|extension}" }
"#;

fn expecting(line: &str, expect: &str) -> String {
    format!("{SITES}\n[[test]]\nline = '''{line}'''\nexpect = {expect}\n")
}

#[test]
fn expectations_hold_or_are_named_with_what_came_instead() {
    let pdf = combined("192.0.2.7", 0, "/files/report.pdf");
    let twice = format!("{pdf}{}", combined("192.0.2.7", 5, "/files/report.pdf"));
    let crawler = combined_by("192.0.2.7", 0, "/files/report.pdf", "-", CRAWLER);
    let url = "https://docs.example.org/files/report.pdf";
    for (name, line, expect, want) in [
        ("an event", &pdf, format!("{{ event = \"download\", url = \"{url}\" }}"), Ok(())),
        ("its properties", &pdf, "{ ip = \"192.0.2.7\", properties = { kind = \"pdf\" } }".to_owned(), Ok(())),
        ("the last of several", &twice, "\"repeat\"".to_owned(), Ok(())),
        ("a reason", &crawler, "{ outcome = \"bot\", reason = \"crawler\" }".to_owned(), Ok(())),
        ("no line of the log", &"garbage".to_owned(), "\"unparsed\"".to_owned(), Ok(())),
        (
            "an event's key where there is none",
            &crawler,
            "{ outcome = \"bot\", event = \"download\" }".to_owned(),
            Err("expected event `download`, got none"),
        ),
        ("another fate", &crawler, "{ event = \"download\" }".to_owned(), Err("expected event, got bot (crawler)")),
        (
            "another url",
            &pdf,
            "{ url = \"https://docs.example.org/x.pdf\" }".to_owned(),
            Err("expected url `https://docs.example.org/x.pdf`, got `https://docs.example.org/files/report.pdf`"),
        ),
        (
            "no such property",
            &pdf,
            "{ properties = { plan = \"gold\" } }".to_owned(),
            Err("expected plan `gold`, got none"),
        ),
    ] {
        let sandbox = Sandbox::new();
        sandbox.configure(1, &expecting(line, &expect));
        sandbox.write("access.log", &pdf);
        let config = fs::read_to_string(sandbox.path("config.toml")).unwrap();
        let place = 1 + config.lines().position(|line| line == "[[test]]").unwrap();
        for command in ["test", "check"] {
            let done = sandbox.run(&[command]);
            match want {
                Ok(()) => {
                    assert!(done.code == 0 && done.stdout.contains("1 of 1 expectations hold"), "{name}: {done:#?}")
                }
                Err(said) => {
                    assert_eq!(done.code, 1, "{name}: {done:#?}");
                    assert!(done.stderr.contains(said), "{name}: no {said} in {done:#?}");
                    assert!(done.stderr.contains(&format!("config.toml:{place}:1: ")), "{name}: {done:#?}");
                    assert!(!done.stderr.contains(KEY), "{name}");
                }
            }
        }
    }
}

#[test]
fn an_expectation_that_says_nothing_is_refused() {
    for (name, test, said) in [
        ("no line", "expect = \"bot\"", "a test has no `line`"),
        ("no expectation", "line = 'x'", "a test has no `expect`"),
        ("no fate", "line = 'x'\nexpect = \"robot\"", "no line has the fate `robot`"),
        ("a misspelt key", "line = 'x'\nexpect = { evnt = \"download\" }", "did you mean `event`?"),
        ("no such site", "line = 'x'\nexpect = \"bot\"\nsite = \"dogs\"", "did you mean `docs`?"),
    ] {
        let sandbox = Sandbox::new();
        sandbox.configure(1, &format!("{SITES}\n[[test]]\n{test}\n"));
        for command in ["test", "check", "run"] {
            let done = sandbox.run(&[command]).expect_code(2);
            assert!(done.stderr.contains(said), "{name}: no {said} in {done:#?}");
        }
    }
}

#[test]
fn the_example_s_own_expectations_hold() {
    let sandbox = Sandbox::new();
    sandbox.write("config.toml", include_str!("../config.example.toml"));
    let done = sandbox.run(&["test"]).expect_code(0);
    assert!(done.stdout.contains("2 of 2 expectations hold"), "{done:#?}");
}

#[test]
fn check_says_how_many_lines_fit_and_whether_a_proxy_seems_to_stand_in_front() {
    let sandbox = Sandbox::new();
    sandbox.configure(1, SITES);
    let log = |ip: &dyn Fn(u32) -> String| -> String {
        (0..120).map(|n| combined(&ip(n), n, &format!("/files/{n}.pdf"))).collect()
    };
    let visitors = log(&|n| format!("203.0.113.{n}"));
    for (name, log, warning, code) in [
        ("visitors", visitors.clone(), None, 0),
        ("a proxy of ours", log(&|n| format!("10.0.0.{n}")), Some("private addresses"), 1),
        ("one for all", log(&|_| "203.0.113.9".to_owned()), Some("one address"), 1),
        ("garbage", visitors + "what is this\n", Some("1 of 121 recent lines don't fit `combined`"), 1),
    ] {
        sandbox.write("access.log", &log);
        let done = sandbox.run(&["check", "--strict"]).expect_code(code);
        sandbox.run(&["check"]).expect_code(0);
        match warning {
            None => assert_eq!(done.stderr, "", "{name}"),
            Some(warning) => assert!(done.stderr.contains(warning), "{name}: no {warning} in {done:#?}"),
        }
        assert!(done.stdout.contains("`combined`, 120 of 12"), "{name}: {done:#?}");
    }
    sandbox.configure(1, &SITES.replace("format = \"combined\"\n", "trusted_proxies = [\"private\"]\n"));
    sandbox.write("access.log", &log(&|n| format!("203.0.113.{n}")));
    let done = sandbox.run(&["check", "--strict"]).expect_code(1);
    assert!(done.stderr.contains("format `combined` has no X-Forwarded-For"), "{done:#?}");
    sandbox.configure(1, &SITES.replace("format = \"combined\"\n", ""));
    sandbox.write("access.log", &"what is this\n".repeat(20));
    let done = sandbox.run(&["check", "--strict"]).expect_code(1);
    assert!(done.stderr.contains("none of the known formats fits: 20 of 20 recent lines"), "{done:#?}");
    assert!(done.stdout.contains("no known format, 0 of 20 recent lines fit"), "{done:#?}");
}

#[test]
fn a_log_is_one_by_whatever_names() {
    let sandbox = Sandbox::new();
    sandbox.write("access.log", &combined("192.0.2.7", 0, "/files/report.pdf"));
    sandbox.configure(1, &SITES.replace("\"LOGS/access.log\"", "\"LOGS/access.log\", \"LOGS/*.log\""));
    let done = sandbox.run(&["check", "--strict"]).expect_code(0);
    assert_eq!(done.stdout.matches("access.log:").count(), 1, "{done:#?}");
    std::os::unix::fs::symlink(sandbox.path("access.log"), sandbox.path("link.log")).unwrap();
    let other = SITES.replace("docs", "shop").replace("access.log", "link.log");
    let with =
        |site: &str, host: &str| site.replace("format =", &format!("hosts = [\"{host}.example.org\"]\nformat ="));
    for (name, sites, warns) in [
        ("neither has hosts", SITES.to_owned() + &other, true),
        ("one has", SITES.to_owned() + &with(&other, "shop"), true),
        ("both have", with(SITES, "docs") + &with(&other, "shop"), false),
    ] {
        sandbox.configure(1, &sites.replace("\"combined\"", "\"vhost_combined\""));
        let done = sandbox.run(&["check"]).expect_code(0);
        assert_eq!(done.stderr.contains("which is site `docs`'s, too, by another name"), warns, "{name}: {done:#?}");
    }
}

#[test]
fn root_is_told_what_of_the_configuration_the_service_cannot_read() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can look for another");
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("access.log", &combined("192.0.2.7", 0, "/files/report.pdf"));
    sandbox.configure(1, SITES);
    let open = |path: &std::path::Path| fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    open(sandbox.path("access.log").parent().unwrap());
    fs::create_dir_all(sandbox.path("state")).unwrap();
    chown(sandbox.path("state"), Some(65_534), Some(65_534)).unwrap();
    let config = sandbox.path("config.toml");
    for (mode, says) in [(0o644, false), (0o600, true)] {
        fs::set_permissions(&config, PermissionsExt::from_mode(mode)).unwrap();
        let done = sandbox.run(&["check"]).expect_code(0);
        let said =
            done.stderr.lines().any(|line| line.contains("config.toml: `nobody`") && line.contains("can't read"));
        assert_eq!(said, says, "{mode:o}: {done:#?}");
    }
}

#[test]
fn lines_that_tell_no_host_are_none_of_the_sites_that_share_a_log() {
    let sandbox = Sandbox::new();
    let site = |name: &str| {
        format!(
            "[[site]]\nname = \"{name}\"\nbase_url = \"https://{name}.example.org\"\nproperty_key = \"{KEY}\"\n\
             logs = [\"LOGS/access.log\"]\nhosts = [\"{name}.example.org\"]\n"
        )
    };
    let line = combined("192.0.2.7", 0, "/files/report.pdf");
    sandbox.write("access.log", &line.repeat(3));
    sandbox.configure(1, &(site("docs") + &site("shop")));
    let done = sandbox.run(&["check", "--strict"]).expect_code(1);
    assert!(done.stderr.contains("sites share it, and `combined` has no host"), "{done:#?}");
    let explained = sandbox.run_with_input(&["explain", "--json"], &line).expect_code(0).json();
    assert_eq!((&explained["outcome"], &explained["reason"]), (&"excluded".into(), &"host".into()), "{explained}");
    assert!(explained["site"].is_null(), "{explained}");
    let done = sandbox.run(&["backfill", "--dry-run"]).expect_code(0);
    assert_eq!(done.stdout, "", "nobody's lines are sent");
    // The only site of a log takes its lines, whatever its hosts.
    sandbox.configure(1, &site("docs"));
    let explained = sandbox.run_with_input(&["explain", "--json"], &line).expect_code(0).json();
    assert_eq!((&explained["outcome"], &explained["site"]), (&"event".into(), &"docs".into()), "{explained}");
}

#[test]
fn a_line_is_explained_for_the_site_and_the_log_that_it_is_of() {
    let sandbox = Sandbox::new();
    let log = |host: &str, file: &str| format!("{host}:443 {}", combined("192.0.2.7", 0, &format!("/{file}.pdf")));
    let site = |name: &str, logs: &str, more: &str| {
        let site = SITES.replace("docs", name).replace("\"LOGS/access.log\"", logs);
        site.replace("format = \"combined\"", more)
    };
    // One site with logs of two formats, and two sites that share a log.
    let shared = "\"LOGS/shared.log\"";
    let sites = site("docs", "\"LOGS/one.log\", \"LOGS/two.log\"", "")
        + &site("shop", shared, "hosts = [\"shop.example.org\"]")
        + &site("wiki", shared, "hosts = [\"wiki.example.org\"]");
    sandbox.configure(1, &sites);
    sandbox.write("one.log", "192.0.2.7 - - [10/Nov/2026:00:00:00 +0000] \"GET / HTTP/1.1\" 200 5\n");
    sandbox.write("two.log", &combined("192.0.2.7", 0, "/a.pdf"));
    sandbox.write("shared.log", &log("shop.example.org", "a"));
    for (line, site) in [
        (combined("192.0.2.7", 9, "/b.pdf"), "docs"),
        (log("shop.example.org", "b"), "shop"),
        (log("wiki.example.org", "b"), "wiki"),
    ] {
        let done = sandbox.run_with_input(&["explain", "--json"], &line).expect_code(0).json();
        assert_eq!((&done["outcome"], &done["site"]), (&"event".into(), &site.into()), "{line}: {done}");
    }
    // What is expected of a line doesn't turn on what a log holds just now.
    let auto =
        expecting(&combined("192.0.2.7", 9, "/b.pdf"), "{ event = \"download\" }").replace("format = \"combined\"", "");
    for first in ["192.0.2.7 - - [10/Nov/2026:00:00:00 +0000] \"GET / HTTP/1.1\" 200 5\n", "", "garbage\n"] {
        sandbox.configure(1, &auto);
        sandbox.write("access.log", first);
        sandbox.run(&["test"]).expect_code(0);
    }
}
