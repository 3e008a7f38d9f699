//! SIGHUP: the whole new configuration or none of it, and not a line lost or doubled on the way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::fs;

use common::{Answer, Daemon, Endpoint, SOON, Sandbox, combined, wait_for};
use serde_json::json;

fn site(name: &str, log: &str) -> String {
    format!(
        "[[site]]\nname = \"{name}\"\nbase_url = \"https://{name}.example.org\"\n\
         property_key = \"8bce2be8c07a84a70e7104634b42878b\"\nlogs = [\"LOGS/{log}\"]\nformat = \"combined\"\n\n"
    )
}

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|n| combined(&format!("192.0.2.{}", n % 250), n, &format!("/{n}.pdf"))).collect()
}

fn urls(site: &str, range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("https://{site}.example.org/{n}.pdf")).collect()
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

/// Reloads, and waits until the daemon has said how it went.
fn reload(daemon: &Daemon, said: &str) {
    let count = || daemon.stderr().matches(said).count();
    let before = count();
    daemon.hang_up();
    wait_for(said, SOON, || count() > before);
}

const APPLIED: &str = "following by the new configuration";
const REFUSED: &str = "configuration refused, the old one goes on";

#[test]
fn sites_come_and_go_and_keep_their_place() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, &site("docs", "docs.log"));
    sandbox.write("docs.log", &lines(0..5));
    sandbox.write("shop.log", &lines(0..5));
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(5);

    // A new site on a log of its own (`start` says from where), and the old one goes on.
    sandbox.configure(endpoint.port, &(site("docs", "docs.log") + &site("shop", "shop.log")));
    reload(&daemon, APPLIED);
    endpoint.wait_delivered(10);
    // The first goes; what is written meanwhile waits for it.
    sandbox.configure(endpoint.port, &site("shop", "shop.log"));
    reload(&daemon, APPLIED);
    sandbox.append("docs.log", &lines(5..10));
    sandbox.append("shop.log", &lines(5..10));
    endpoint.wait_delivered(15);
    // It comes back, and another joins it on the same log: that one begins where the log is.
    let hosts = |site: String, host: &str| {
        site.replace("format = \"combined\"\n", &format!("format = \"vhost_combined\"\nhosts = [\"{host}\"]\n"))
    };
    sandbox.configure(endpoint.port, &(site("docs", "docs.log") + &site("shop", "shop.log")));
    reload(&daemon, APPLIED);
    endpoint.wait_delivered(20);
    let both =
        hosts(site("docs", "docs.log"), "docs.example.org") + &hosts(site("more", "docs.log"), "more.example.org");
    sandbox.configure(endpoint.port, &(both + &site("shop", "shop.log")));
    reload(&daemon, APPLIED);
    let vhost = |host: &str, n: u32| format!("{host}:443 {}", lines(n..n + 1));
    sandbox.append("docs.log", &(vhost("docs.example.org", 10) + &vhost("more.example.org", 11)));
    endpoint.wait_delivered(22);
    daemon.stop();
    let want = [urls("docs", 0..11), urls("shop", 0..10), urls("more", 11..12)].concat();
    assert_eq!(endpoint.delivered(), sorted(want));
}

#[test]
fn a_site_that_comes_back_to_a_shared_log_reads_what_was_rotated_meanwhile_and_what_came_since() {
    for restarts in [false, true] {
        let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
        let shared = |name: &str| {
            let vhost = format!("format = \"vhost_combined\"\nhosts = [\"{name}.example.org\"]");
            site(name, "access.log").replace("format = \"combined\"", &vhost)
        };
        let vhost = |host: &str, numbers: std::ops::Range<u32>| -> String {
            numbers.map(|n| format!("{host}.example.org:443 {}", lines(n..n + 1))).collect()
        };
        let configure = |sites: &str, daemon: Daemon| {
            sandbox.configure(endpoint.port, sites);
            if restarts {
                daemon.stop();
                return sandbox.start("said");
            }
            reload(&daemon, APPLIED);
            daemon
        };
        sandbox.configure(endpoint.port, &(shared("docs") + &shared("shop")));
        sandbox.write("access.log", &(vhost("docs", 0..2) + &vhost("shop", 0..2)));
        let daemon = sandbox.start("said");
        endpoint.wait_delivered(4);
        let daemon = configure(&shared("docs"), daemon);
        sandbox.append("access.log", &(vhost("docs", 2..4) + &vhost("shop", 2..4)));
        endpoint.wait_delivered(6);
        fs::rename(sandbox.path("access.log"), sandbox.path("access.log.1")).unwrap();
        sandbox.write("access.log", &(vhost("shop", 4..6) + &vhost("docs", 4..6)));
        endpoint.wait_delivered(8);
        let daemon = configure(&(shared("docs") + &shared("shop")), daemon);
        sandbox.append("access.log", &vhost("shop", 6..7));
        endpoint.wait_delivered(13);
        // Who is new begins where the log is.
        let daemon = configure(&(shared("docs") + &shared("shop") + &shared("more")), daemon);
        sandbox.append("access.log", &vhost("more", 7..8));
        endpoint.wait_delivered(14);
        daemon.stop();
        let want = [urls("docs", 0..6), urls("shop", 0..7), urls("more", 7..8)].concat();
        assert_eq!(endpoint.delivered(), sorted(want), "{restarts}");
    }
}

#[test]
fn a_log_that_goes_to_another_site_is_not_behind_where_the_first_left_it() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, &(site("docs", "moved.log") + &site("shop", "shop.log")));
    sandbox.append("moved.log", &lines(0..3));
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(3);
    sandbox.configure(endpoint.port, &(site("docs", "docs.log") + &site("shop", "moved.log")));
    reload(&daemon, APPLIED);
    sandbox.append("moved.log", &lines(3..20));
    endpoint.wait_delivered(20);
    let moved = || {
        let status = sandbox.run(&["status", "--json"]).expect_code(0).json();
        let logs = status["logs"].as_array().unwrap().clone();
        logs.into_iter().find(|log| log["path"].as_str().unwrap().ends_with("moved.log")).unwrap()
    };
    wait_for("the picture of it", SOON, || moved()["counts"]["event"] == 20);
    let shown = moved();
    assert_eq!((&shown["lag_bytes"], &shown["sites"]), (&json!(0), &json!(["shop"])), "{shown}");
    daemon.stop();
}

#[test]
fn what_was_read_of_a_rotated_log_and_not_sent_is_not_looked_for_again() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure_with(
        endpoint.port,
        "linger = \"20ms\"\nretry_max = \"100ms\"",
        &site("docs", "access.log").replace("combined", "auto"),
    );
    let rename = |from: &str, to: &str| fs::rename(sandbox.path(from), sandbox.path(to)).unwrap();
    sandbox.write("access.log", &lines(0..10));
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(10);
    daemon.stop();
    // Rotated and compressed while it is stopped, and read to its end while the endpoint is away.
    sandbox.append("access.log", &lines(10..60));
    let packed = flate2::read::GzEncoder::new(fs::File::open(sandbox.path("access.log")).unwrap(), Default::default());
    std::io::copy(&mut { packed }, &mut fs::File::create(sandbox.path("access.log.1.gz")).unwrap()).unwrap();
    sandbox.write("access.log", "");
    endpoint.set_script(|_, _| Answer::Status(503));
    let daemon = sandbox.start("said");
    wait_for("all to be read", SOON, || daemon.stderr().contains("endpoint unavailable"));
    reload(&daemon, APPLIED);
    rename("access.log.1.gz", "access.log.2.gz");
    rename("access.log", "access.log.1");
    // It is looked for while nothing has come yet under the name.
    sandbox.write("access.log", "");
    daemon.hang_up();
    wait_for("a look", SOON, || daemon.stderr().matches(APPLIED).count() == 2);
    sandbox.append("access.log", &lines(60..61));
    endpoint.set_script(|_, _| Answer::Status(200));
    sandbox.run(&["backfill", "--yes"]).expect_code(0);
    endpoint.wait_delivered(61);
    let said = daemon.stop();
    assert_eq!(endpoint.delivered(), sorted(urls("docs", 0..61)));
    assert!(!said.contains("unaccounted"), "{said}");
}

#[test]
fn a_wrong_configuration_is_refused_whole_with_its_diagnostics() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, &site("docs", "docs.log"));
    sandbox.write("docs.log", &lines(0..1));
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(1);
    let right = fs::read_to_string(sandbox.path("config.toml")).unwrap();
    for (name, wrong, said) in [
        ("a typo", right.replace("logs =", "lgos ="), "unknown key `lgos`"),
        ("no TOML", format!("{right}]["), "this isn't TOML"),
        ("another state", right.replace("/state\"", "/other\""), "`state_dir` can't change while running"),
    ] {
        // The rest of it would be a change that shows.
        sandbox.write("config.toml", &wrong.replace("https://docs.example.org", "https://changed.example.org"));
        reload(&daemon, REFUSED);
        assert!(daemon.stderr().contains(said), "{name}: no {said} in\n{}", daemon.stderr());
        assert!(!daemon.stderr().contains("nothing was started"), "{name}: it runs\n{}", daemon.stderr());
    }
    sandbox.append("docs.log", &lines(1..2));
    endpoint.wait_delivered(2);
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls("docs", 0..2));
}

#[test]
fn a_site_that_waits_for_its_set_up_tries_at_once_when_it_is_mended() {
    let sandbox = Sandbox::new();
    let endpoint = Endpoint::scripted(|_, body| {
        let right = body["propertyKey"] == "00000000000000000000000000000000";
        Answer::Status(if right { 200 } else { 403 })
    });
    // Without the reload the next try could be an hour away.
    sandbox.configure_with(endpoint.port, "linger = \"0s\"\nretry_max = \"1h\"", &site("docs", "docs.log"));
    sandbox.write("docs.log", &lines(0..20));
    let daemon = sandbox.start("said");
    wait_for("a refusal", SOON, || daemon.stderr().contains("property refused, this site waits"));
    let config = fs::read_to_string(sandbox.path("config.toml")).unwrap();
    sandbox.write("config.toml", &config.replace(common::KEY, "00000000000000000000000000000000"));
    reload(&daemon, APPLIED);
    endpoint.wait_delivered(20);
    daemon.stop();
    assert_eq!(endpoint.delivered(), sorted(urls("docs", 0..20)));
}

/// `SILKTAIL_TEST_RELOADS=1000` for a longer run.
#[test]
fn reloads_under_load_lose_nothing_and_double_nothing() {
    let reloads: u32 = std::env::var("SILKTAIL_TEST_RELOADS").ok().and_then(|count| count.parse().ok()).unwrap_or(100);
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    let config = |turn: u32| {
        let shop = if turn % 3 == 1 { String::new() } else { site("shop", "shop.log") };
        let docs =
            if turn % 4 == 2 { site("docs", "docs.*").replace("combined", "auto") } else { site("docs", "docs.log") };
        let late = if turn.is_multiple_of(2) { String::new() } else { site("late", "late.log") };
        format!("{late}{docs}{shop}")
    };
    sandbox.configure(endpoint.port, &config(0));
    for log in ["docs.log", "shop.log", "late.log"] {
        sandbox.write(log, "");
    }
    let daemon = sandbox.start("said");
    wait_for("the logs to be followed", SOON, || daemon.stderr().contains("ready"));
    let mut written = 0;
    for turn in 1..=reloads {
        for log in ["docs.log", "shop.log", "late.log"] {
            sandbox.append(log, &lines(written..written + 20));
        }
        written += 20;
        sandbox.configure(endpoint.port, &config(turn));
        reload(&daemon, APPLIED);
    }
    // All of them once more, so that each can finish.
    let all = site("docs", "docs.log") + &site("shop", "shop.log") + &site("late", "late.log");
    sandbox.configure(endpoint.port, &all);
    reload(&daemon, APPLIED);
    endpoint.wait_delivered(3 * written as usize);
    daemon.stop();
    let want = [urls("docs", 0..written), urls("shop", 0..written), urls("late", 0..written)].concat();
    assert_eq!(endpoint.delivered(), sorted(want));
}
