//! What an endpoint can do wrong, and what becomes of the events: none is lost, and hardly any sent twice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::fs;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use common::{Answer, BROWSER, ClosedPort, Daemon, Endpoint, SOON, Sandbox, combined, combined_by, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

const SITE: &str = r#"
[[site]]
name = "docs"
base_url = "https://docs.example.org"
property_key = "8bce2be8c07a84a70e7104634b42878b"
logs = ["LOGS/access.log"]
format = "combined"
"#;

/// Pauses that a test can wait for.
const QUICK: &str = "linger = \"20ms\"\nretry_max = \"100ms\"";

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|n| combined(&format!("192.0.2.{}", n % 250), n, &format!("/files/{n}.pdf"))).collect()
}

fn urls(range: std::ops::Range<u32>) -> Vec<String> {
    let mut urls: Vec<String> = range.map(|n| format!("https://docs.example.org/files/{n}.pdf")).collect();
    urls.sort();
    urls
}

/// The program with `count` downloads in its log, sent to `port`.
fn started(port: u16, endpoint: &str, count: u32) -> (Sandbox, Daemon) {
    let sandbox = Sandbox::new();
    sandbox.configure_with(port, endpoint, SITE);
    sandbox.write("access.log", &lines(0..count));
    let daemon = sandbox.start("said");
    (sandbox, daemon)
}

fn rejected(sandbox: &Sandbox) -> Vec<Value> {
    let done = sandbox.run(&["rejected", "list", "--json"]).expect_code(0);
    done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn says(daemon: &Daemon, what: &str) {
    wait_for(&format!("a word on `{what}`"), SOON, || daemon.stderr().contains(what));
}

#[test]
fn a_refused_connection_delays_and_nothing_is_sent_twice() {
    let closed = ClosedPort::new();
    let (_sandbox, daemon) = started(closed.port(), QUICK, 30);
    says(&daemon, "endpoint unavailable");
    let endpoint = closed.open(|_, _| Answer::Status(202));
    endpoint.wait_delivered(30);
    let said = daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..30));
    assert_eq!(said.matches("endpoint unavailable").count(), 1, "a change of state is said once:\n{said}");
}

#[test]
fn an_endpoint_whose_name_does_not_resolve_for_a_while_delays_and_nothing_is_lost() {
    // Names are what files say that only the program sees in place of the system's.
    const PRIVATE: &str =
        "mount --bind \"$HOSTS\" /etc/hosts && mount --bind \"$SWITCH\" /etc/nsswitch.conf && exec \"$@\"";
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure_with(endpoint.port, &format!("{QUICK}\nallow_http = true"), SITE);
    let config = fs::read_to_string(sandbox.path("config.toml")).unwrap();
    sandbox.write("config.toml", &config.replace("127.0.0.1", "endpoint.example"));
    sandbox.write("switch", "hosts: files\n");
    let resolves = |is_there: bool| {
        let line = if is_there { "127.0.0.1 endpoint.example\n" } else { "" };
        sandbox.write("hosts", &format!("127.0.0.1 localhost\n{line}"));
    };
    resolves(false);
    let private = |program: &Command| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", PRIVATE, "sh"]).arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("HOSTS", sandbox.path("hosts")).env("SWITCH", sandbox.path("switch"));
        command
    };
    let tried = private(&Command::new("true")).output();
    if !tried.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: names can't be taken away here, since no mount namespace can be made: {tried:?}");
        return;
    }
    sandbox.write("access.log", &lines(0..30));
    let daemon = sandbox.start_as("said", |command, _| *command = private(command));
    says(&daemon, "endpoint unavailable");
    let unavailable = |daemon: &Daemon| daemon.stderr().matches("endpoint unavailable").count();
    for (round, written) in [(1, 30), (2, 50)] {
        resolves(true);
        endpoint.set_script(|_, _| Answer::Status(200));
        endpoint.wait_delivered(written);
        assert_eq!(unavailable(&daemon), round, "a change of state is said once:\n{}", daemon.stderr());
        if round == 1 {
            // Gone again: who is connected stays so, until the endpoint hangs up.
            resolves(false);
            endpoint.set_script(|_, _| Answer::Close);
            sandbox.append("access.log", &lines(30..50));
            wait_for("a word on it", SOON, || unavailable(&daemon) == 2);
        }
    }
    let said = daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..50), "{said}");
    assert!(said.contains("failed to lookup address"), "why it is unavailable:\n{said}");
}

#[test]
fn an_endpoint_that_accepts_and_never_answers_delays_and_loses_nothing() {
    let endpoint = Endpoint::scripted(|_, _| Answer::Withhold);
    let (_sandbox, daemon) = started(endpoint.port, &format!("{QUICK}\ntimeout = \"300ms\""), 30);
    says(&daemon, "endpoint unavailable");
    assert!(daemon.stderr().contains("no answer in time"), "{}", daemon.stderr());
    endpoint.set_script(|_, _| Answer::Status(200));
    endpoint.wait_delivered(30);
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..30));
}

#[test]
fn a_slow_endpoint_gets_each_event_once() {
    let endpoint = Endpoint::scripted(|_, _| Answer::Slow(200, Duration::from_millis(150)));
    let (_sandbox, daemon) = started(endpoint.port, &format!("{QUICK}\ntimeout = \"5s\""), 40);
    endpoint.wait_delivered(40);
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..40));
    assert_eq!(endpoint.post_count(), 40);
}

#[test]
fn answers_that_come_while_it_is_stopped_for_longer_than_timeout_are_had() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let endpoint = Endpoint::scripted(|_, _| Answer::Slow(200, Duration::from_millis(100)));
    let (sandbox, daemon) = started(endpoint.port, &format!("{QUICK}\ntimeout = \"{}ms\"", TIMEOUT.as_millis()), 0);
    says(&daemon, "ready");
    for round in 0..3 {
        sandbox.append("access.log", &lines(round * 16..(round + 1) * 16));
        let posts = endpoint.post_count();
        wait_for("a POST", SOON, || endpoint.post_count() > posts);
        daemon.signal(Signal::STOP);
        let since = Instant::now();
        wait_for("more than an answer may take", SOON, || since.elapsed() > TIMEOUT * 2);
        daemon.signal(Signal::CONT);
        endpoint.wait_delivered((round as usize + 1) * 16);
    }
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..48));
    assert_eq!(endpoint.post_count(), 48, "each once");
}

#[test]
fn an_answer_that_was_not_had_is_asked_for_again_under_the_same_key() {
    for (name, answer) in [
        ("hangs up", Answer::Close),
        ("half a status line", Answer::Raw("HTTP/1.1 20")),
        ("half a head", Answer::Raw("HTTP/1.1 200 OK\r\nContent-Len")),
        ("only a preliminary answer", Answer::Raw("HTTP/1.1 100 Continue\r\n\r\n")),
        ("not HTTP", Answer::Raw("SSH-2.0-OpenSSH_9.6\r\n")),
        ("binary", Answer::Raw("\u{1}\u{0}\u{3}\u{2}\r\n\r\n")),
        ("status out of range", Answer::Raw("HTTP/1.1 99999 What\r\n\r\n")),
    ] {
        let endpoint = Endpoint::scripted(move |nth, _| if nth < 3 { answer } else { Answer::Status(200) });
        let (sandbox, daemon) = started(endpoint.port, QUICK, 3);
        endpoint.wait_delivered(3);
        daemon.stop();
        assert_eq!(endpoint.delivered(), urls(0..3), "{name}");
        let mut keys: Vec<_> =
            endpoint.posts().iter().map(|post| post.header("idempotency-key").unwrap().to_owned()).collect();
        assert!(keys.len() > 3, "{name}: nothing was asked for again");
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 3, "{name}: a retry has the key of what it repeats");
        assert!(rejected(&sandbox).is_empty(), "{name}");
    }
}

#[test]
fn an_answer_whose_status_was_had_counts_whatever_follows() {
    for (name, answer) in [
        ("half a body", Answer::Raw("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")),
        ("a broken chunk", Answer::Raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")),
        (
            "a preliminary answer first",
            Answer::Raw("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ),
        ("no length", Answer::Raw("HTTP/1.1 204 No Content\r\n\r\n")),
    ] {
        let endpoint = Endpoint::scripted(move |_, _| answer);
        let (_sandbox, daemon) = started(endpoint.port, QUICK, 5);
        endpoint.wait_delivered(5);
        daemon.stop();
        assert_eq!(endpoint.delivered(), urls(0..5), "{name}");
    }
}

#[test]
fn a_refusal_for_now_is_tried_again_when_the_endpoint_asks_for_it() {
    for (status, forms) in
        [(429_u16, &["seconds", "date"][..]), (408, &["seconds"]), (425, &["seconds"]), (503, &["date"])]
    {
        for form in forms {
            let asked = move || -> &'static str {
                let when = match *form {
                    "seconds" => "1".to_owned(),
                    // Whole seconds: at least one, at most two from now.
                    _ => {
                        let at = jiff::Timestamp::try_from(SystemTime::now() + Duration::from_secs(2)).unwrap();
                        jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap()
                    }
                };
                format!("HTTP/1.1 {status} Later\r\nRetry-After: {when}\r\nContent-Length: 0\r\n\r\n").leak()
            };
            let endpoint = Endpoint::scripted(move |nth, _| match nth {
                0 => Answer::Raw(asked()),
                _ => Answer::Status(200),
            });
            let (_sandbox, daemon) = started(endpoint.port, "linger = \"20ms\"\nretry_max = \"1m\"", 1);
            endpoint.wait_delivered(1);
            daemon.stop();
            let posts = endpoint.posts();
            assert_eq!(posts.len(), 2, "{status}, {form}");
            let waited = posts[1].at - posts[0].at;
            assert!(waited >= Duration::from_millis(900), "{status}, {form}: came again after {waited:?}");
            assert_eq!(endpoint.delivered(), urls(0..1), "{status}, {form}");
        }
    }
}

#[test]
fn no_endpoint_can_make_it_wait_longer_than_retry_max() {
    for when in ["86400", "Fri, 31 Dec 2100 23:59:59 GMT", "18446744073709551615"] {
        let head = format!("HTTP/1.1 429 Later\r\nRetry-After: {when}\r\nContent-Length: 0\r\n\r\n");
        let head: &'static str = head.leak();
        let endpoint = Endpoint::scripted(move |nth, _| if nth < 6 { Answer::Raw(head) } else { Answer::Status(200) });
        let (_sandbox, daemon) = started(endpoint.port, "linger = \"20ms\"\nretry_max = \"300ms\"", 2);
        let start = Instant::now();
        endpoint.wait_delivered(2);
        assert!(start.elapsed() < Duration::from_secs(10), "{when}");
        daemon.stop();
        assert_eq!(endpoint.delivered(), urls(0..2), "{when}");
    }
}

#[test]
fn a_moment_s_outage_with_many_posts_under_way_is_no_reason_for_a_long_pause() {
    // Sixteen fail at once (and some that were started meanwhile): that is one outage, and not as many in a row that each
    // double the pause, up to five minutes.
    let mut began = None;
    let endpoint = Endpoint::scripted(move |_, _| {
        let is_out = began.get_or_insert_with(Instant::now).elapsed() < Duration::from_millis(300);
        Answer::Status(if is_out { 503 } else { 200 })
    });
    let (_sandbox, daemon) = started(endpoint.port, "linger = \"500ms\"", 40);
    endpoint.wait_delivered(40);
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..40));
}

#[test]
fn any_5xx_is_tried_again_until_it_passes() {
    let endpoint = Endpoint::scripted(|nth, _| {
        Answer::Status([500, 501, 502, 503, 504, 507, 520, 599].get(nth).copied().unwrap_or(201))
    });
    let (sandbox, daemon) = started(endpoint.port, QUICK, 10);
    endpoint.wait_delivered(10);
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..10));
    assert!(rejected(&sandbox).is_empty());
}

/// Two sites on one log, told apart by host.
const TWO_SITES: &str = r#"
[[site]]
name = "one"
base_url = "https://one.example.org"
hosts = ["one.example.org"]
property_key = "11111111111111111111111111111111"
logs = ["LOGS/access.log"]
format = "vhost_combined"

[[site]]
name = "two"
base_url = "https://two.example.org"
hosts = ["two.example.org"]
property_key = "22222222222222222222222222222222"
logs = ["LOGS/access.log"]
format = "vhost_combined"
"#;

fn two_sites_lines(range: std::ops::Range<u32>) -> String {
    range
        .flat_map(|n| ["one", "two"].map(|site| (site, n)))
        .map(|(site, n)| {
            format!("{site}.example.org:443 {}", combined(&format!("192.0.2.{}", n % 250), n, &format!("/{n}.pdf")))
        })
        .collect()
}

fn of_site(endpoint: &Endpoint, site: &str) -> Vec<String> {
    let mut urls = endpoint.delivered();
    urls.retain(|url| url.starts_with(&format!("https://{site}.")));
    urls
}

fn site_urls(site: &str, range: std::ops::Range<u32>) -> Vec<String> {
    let mut urls: Vec<String> = range.map(|n| format!("https://{site}.example.org/{n}.pdf")).collect();
    urls.sort();
    urls
}

fn is_of_site_one(body: &Value) -> bool {
    body["propertyKey"] == "11111111111111111111111111111111"
}

#[test]
fn a_site_that_is_set_up_wrongly_waits_and_loses_nothing_while_another_on_the_same_log_goes_on() {
    for status in [401_u16, 403, 404, 410, 451, 302] {
        let endpoint =
            Endpoint::scripted(move |_, body| Answer::Status(if is_of_site_one(body) { status } else { 200 }));
        let sandbox = Sandbox::new();
        sandbox.configure_with(endpoint.port, QUICK, TWO_SITES);
        sandbox.write("access.log", &two_sites_lines(0..200));
        let daemon = sandbox.start("said");
        endpoint.wait_delivered(200);
        says(&daemon, "this site waits");
        // What is written while the one waits is as safe.
        sandbox.append("access.log", &two_sites_lines(200..300));
        endpoint.wait_delivered(300);
        assert_eq!(of_site(&endpoint, "two"), site_urls("two", 0..300), "{status}");
        assert_eq!(of_site(&endpoint, "one"), Vec::<String>::new(), "{status}");
        assert!(rejected(&sandbox).is_empty(), "{status}");

        endpoint.set_script(|_, _| Answer::Status(200));
        endpoint.wait_delivered(600);
        let said = daemon.stop();
        assert_eq!(of_site(&endpoint, "one"), site_urls("one", 0..300), "{status}");
        assert_eq!(of_site(&endpoint, "two"), site_urls("two", 0..300), "{status}");
        assert!(rejected(&sandbox).is_empty(), "{status}");
        assert_eq!(said.matches("ERROR").count(), 1, "{status}: said loudly, and once:\n{said}");
        assert!(said.contains(&format!("status={status}")), "{status}:\n{said}");
    }
}

#[test]
fn a_site_whose_queue_is_full_reads_its_part_again_when_it_is_mended_also_after_a_rotation_and_a_restart() {
    let endpoint = Endpoint::scripted(|_, body| Answer::Status(if is_of_site_one(body) { 403 } else { 200 }));
    let sandbox = Sandbox::new();
    sandbox.configure_with(endpoint.port, QUICK, TWO_SITES);
    // More than a site may hold in memory.
    sandbox.write("access.log", &two_sites_lines(0..2_500));
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(2_500);
    fs::rename(sandbox.path("access.log"), sandbox.path("access.log.1")).unwrap();
    sandbox.write("access.log", &two_sites_lines(2_500..2_600));
    endpoint.wait_delivered(2_600);
    says(&daemon, "what is unsent of it is lost if it is removed before a restart");
    daemon.stop();
    let daemon = sandbox.start("said");
    wait_for("a try of the site that waits", SOON, || {
        endpoint.posts().last().is_some_and(|post| is_of_site_one(&post.body))
    });
    endpoint.set_script(|_, _| Answer::Status(200));
    endpoint.wait_delivered(5_200);
    daemon.stop();
    for site in ["one", "two"] {
        assert!(of_site(&endpoint, site) == site_urls(site, 0..2_600), "{site}");
    }
}

#[test]
fn a_site_whose_posts_hang_leaves_places_to_the_others_of_its_endpoint() {
    let endpoint =
        Endpoint::scripted(|_, body| if is_of_site_one(body) { Answer::Withhold } else { Answer::Status(200) });
    let sandbox = Sandbox::new();
    sandbox.configure_with(endpoint.port, "linger = \"20ms\"\ntimeout = \"120s\"\nmax_in_flight = 8", TWO_SITES);
    let line = |site: &str, n: u32| {
        format!("{site}.example.org:443 {}", combined(&format!("192.0.2.{}", n % 250), n, &format!("/{n}.pdf")))
    };
    sandbox.write("access.log", &(0..100).map(|n| line("one", n)).collect::<String>());
    let daemon = sandbox.start("said");
    let of_one = || endpoint.posts().iter().filter(|post| is_of_site_one(&post.body)).count();
    wait_for("its POSTs", SOON, || of_one() >= 6);
    for n in 0..20 {
        sandbox.append("access.log", &line("two", n));
        endpoint.wait_delivered(n as usize + 1);
    }
    assert_eq!((of_one(), of_site(&endpoint, "two")), (6, site_urls("two", 0..20)), "two of eight places are left");
    endpoint.set_script(|_, _| Answer::Status(200));
    endpoint.wait_delivered(120);
    daemon.stop();
    assert_eq!(of_site(&endpoint, "one"), site_urls("one", 0..100));
}

#[test]
fn a_quiet_log_that_is_rotated_while_its_site_waits_is_named_before_and_after_it_is_lost() {
    for status in [403, 503] {
        let endpoint = Endpoint::scripted(move |_, _| Answer::Status(status));
        let (sandbox, daemon) = started(endpoint.port, QUICK, 5);
        // What is rotated before anybody has looked is nobody's.
        says(&daemon, "ready");
        let in_it = fs::metadata(sandbox.path("access.log")).unwrap().len();
        fs::rename(sandbox.path("access.log"), sandbox.path("access.log.1")).unwrap();
        sandbox.append("access.log", &lines(5..7));
        wait_for("a word on the rotated log", SOON, || daemon.stderr().contains("a rotated log can't be sent now"));
        let said = daemon.stderr();
        let line = said.lines().find(|line| line.contains("a rotated log can't be sent now")).unwrap();
        assert!(line.contains("access.log") && line.contains("offset=0"), "{status}: {line}");
        fs::remove_file(sandbox.path("access.log.1")).unwrap();
        daemon.stop();
        endpoint.set_script(|_, _| Answer::Status(200));
        let daemon = sandbox.start("again");
        endpoint.wait_delivered(2);
        wait_for("a word on what is lost", SOON, || daemon.stderr().contains("wasn't all sent"));
        let said = daemon.stop();
        let line = said.lines().find(|line| line.contains("wasn't all sent")).unwrap();
        assert!(line.contains("offset=0") && line.contains(&format!("read={in_it}")), "{status}: {line}");
        assert_eq!(endpoint.delivered().len(), 2, "{status}: what was removed can't be had");
    }
}

#[test]
fn a_site_that_waits_tries_one_post_at_a_time() {
    let endpoint = Endpoint::scripted(|_, _| Answer::Status(403));
    let (_sandbox, daemon) = started(endpoint.port, "linger = \"20ms\"\nretry_max = \"100ms\"\nmax_in_flight = 8", 200);
    says(&daemon, "this site waits");
    wait_for("some tries", SOON, || endpoint.post_count() >= 8 + 10);
    let posts = endpoint.posts();
    // The first are under way before the first answer; from then on there is a pause between two.
    for pair in posts[8..].windows(2) {
        assert!(pair[1].at - pair[0].at >= Duration::from_millis(40), "{:?}", pair[1].at - pair[0].at);
    }
    endpoint.set_script(|_, _| Answer::Status(200));
    endpoint.wait_delivered(200);
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..200));
}

#[test]
fn an_event_that_is_refused_is_kept_with_its_place_and_the_others_are_delivered() {
    for status in [400_u16, 409, 413, 414, 415, 422] {
        let refusal: &'static str =
            format!("HTTP/1.1 {status} No\r\nContent-Length: 34\r\n\r\n{{\"error\": \"no such\\u0007 \u{1b}event\"}}")
                .leak();
        let endpoint = Endpoint::scripted(move |_, body| {
            if body.to_string().contains("/files/7.pdf") { Answer::Raw(refusal) } else { Answer::Status(200) }
        });
        let (sandbox, daemon) = started(endpoint.port, QUICK, 20);
        endpoint.wait_delivered(19);
        wait_for("the rejection", SOON, || rejected(&sandbox).len() == 1);
        daemon.stop();
        let list = rejected(&sandbox);
        assert_eq!(list.len(), 1, "{status}");
        assert_eq!(list[0]["status"], json!(status));
        assert_eq!(list[0]["offset"], json!(lines(0..7).len()), "{status}");
        assert_eq!(list[0]["log"], sandbox.path("access.log").display().to_string(), "{status}");
        let shown = list[0].to_string();
        assert!(shown.contains("no such") && !shown.contains('\u{1b}'), "{status}: {shown}");
        let mut want = urls(0..20);
        want.retain(|url| !url.ends_with("/7.pdf"));
        assert_eq!(endpoint.delivered(), want, "{status}");
    }
}

#[test]
fn of_a_refused_batch_only_the_event_that_is_at_fault_is_rejected() {
    for status in [413_u16, 400] {
        let endpoint = Endpoint::scripted(move |_, body| {
            Answer::Status(if body.to_string().contains("/files/33.pdf") { status } else { 200 })
        });
        let sandbox = Sandbox::new();
        sandbox.configure_with(endpoint.port, "linger = \"500ms\"\nmax_events = 50", SITE);
        let page = "https://docs.example.org/manuals.html";
        let log: String =
            (0..50).map(|n| combined_by("192.0.2.1", n, &format!("/files/{n}.pdf"), page, BROWSER)).collect();
        sandbox.write("access.log", &log);
        let daemon = sandbox.start("said");
        endpoint.wait_delivered(49);
        wait_for("the rejection", SOON, || rejected(&sandbox).len() == 1);
        daemon.stop();
        assert_eq!(endpoint.posts()[0].urls().len(), 50, "{status}: they travel together");
        let mut want = urls(0..50);
        want.retain(|url| !url.ends_with("/33.pdf"));
        assert_eq!(endpoint.delivered(), want, "{status}");
        assert!(rejected(&sandbox)[0].to_string().contains("/files/33.pdf"), "{status}");
    }
}

#[test]
fn a_redirect_is_never_followed() {
    let target = Endpoint::accepting();
    for status in [301_u16, 302, 303, 307, 308] {
        let head: &'static str = format!(
            "HTTP/1.1 {status} Moved\r\nLocation: http://127.0.0.1:{}/v1/events\r\nContent-Length: 0\r\n\r\n",
            target.port
        )
        .leak();
        let endpoint = Endpoint::scripted(move |_, _| Answer::Raw(head));
        let (sandbox, daemon) = started(endpoint.port, QUICK, 5);
        says(&daemon, "redirects aren't followed");
        wait_for("more tries", SOON, || endpoint.post_count() >= 8);
        assert!(rejected(&sandbox).is_empty(), "{status}");
        endpoint.set_script(|_, _| Answer::Status(200));
        endpoint.wait_delivered(5);
        daemon.stop();
        assert_eq!(endpoint.delivered(), urls(0..5), "{status}");
    }
    assert_eq!(target.post_count(), 0, "personal data went where nobody sent it");
}

#[test]
fn twenty_refusals_in_a_row_are_the_set_up_s_fault_and_nothing_drains_away() {
    let endpoint = Endpoint::scripted(|_, _| Answer::Status(400));
    // All of them are there before the first is refused.
    let (sandbox, daemon) = started(endpoint.port, "linger = \"1s\"\nretry_max = \"100ms\"", 100);
    says(&daemon, "this site waits");
    wait_for("more tries", SOON, || endpoint.post_count() >= 50);
    assert!(rejected(&sandbox).is_empty(), "nothing may drain away");
    endpoint.set_script(|_, _| Answer::Status(200));
    endpoint.wait_delivered(100);
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..100));
    assert!(rejected(&sandbox).is_empty());
}

#[test]
fn a_wrong_set_up_is_found_out_also_where_events_come_one_by_one() {
    let endpoint = Endpoint::scripted(|_, _| Answer::Status(400));
    let (sandbox, daemon) = started(endpoint.port, QUICK, 0);
    let mut written = 0;
    while !daemon.stderr().contains("this site waits") {
        assert!(written < 25, "25 refused in a row:\n{}", daemon.stderr());
        sandbox.append("access.log", &lines(written..written + 1));
        written += 1;
        wait_for("a refusal", SOON, || endpoint.post_count() >= written as usize);
        wait_for("its consequence", SOON, || {
            rejected(&sandbox).len() == written as usize || daemon.stderr().contains("this site waits")
        });
    }
    let lost = rejected(&sandbox).len();
    assert!(lost < 20, "{lost} were rejected before it was noticed");
    sandbox.append("access.log", &lines(written..written + 30));
    endpoint.set_script(|_, _| Answer::Status(200));
    endpoint.wait_delivered(written as usize + 30 - lost);
    daemon.stop();
    assert_eq!(rejected(&sandbox).len(), lost, "what was kept waits for `rejected retry`");
    sandbox.run(&["rejected", "retry"]).expect_code(0);
    assert_eq!(endpoint.delivered(), urls(0..written + 30));
}

#[test]
fn one_event_that_something_before_the_endpoint_dislikes_holds_up_no_other() {
    for status in [403, 404, 418] {
        let endpoint = Endpoint::scripted(move |_, body| {
            Answer::Status(if body.to_string().contains("/3.pdf") { status } else { 200 })
        });
        let (sandbox, daemon) = started(endpoint.port, QUICK, 10);
        endpoint.wait_delivered(9);
        sandbox.append("access.log", &lines(10..20));
        endpoint.wait_delivered(19);
        // Alone with it, after a restart, until another comes.
        daemon.stop();
        let daemon = sandbox.start("said");
        let tries = endpoint.post_count();
        wait_for("another try", SOON, || endpoint.post_count() > tries);
        sandbox.append("access.log", &lines(20..25));
        endpoint.wait_delivered(24);
        assert!(rejected(&sandbox).is_empty(), "it may be taken yet");
        endpoint.set_script(|_, _| Answer::Status(200));
        endpoint.wait_delivered(25);
        daemon.stop();
        assert_eq!(endpoint.delivered(), urls(0..25), "{status}");
    }
}

#[test]
fn a_score_of_refused_events_holds_up_no_other() {
    let refuses = |below: u32| {
        let urls = urls(0..below);
        move |_: usize, body: &Value| {
            let url = body["events"][0]["url"].as_str().unwrap();
            Answer::Status(if urls.iter().any(|refused| refused == url) { 400 } else { 200 })
        }
    };
    let endpoint = Endpoint::scripted(refuses(25));
    let (sandbox, daemon) = started(endpoint.port, "linger = \"1s\"\nretry_max = \"100ms\"", 40);
    endpoint.wait_delivered(15);
    wait_for("the rejections", SOON, || rejected(&sandbox).len() == 25);
    daemon.stop();
    assert_eq!(endpoint.delivered().len(), 15);
    // So it is with those that are tried again: what is taken by now is reached, whatever stands before it.
    endpoint.set_script(refuses(22));
    for _ in 0..2 {
        sandbox.run(&["rejected", "retry"]).expect_code(1);
    }
    assert_eq!((endpoint.delivered().len(), rejected(&sandbox).len()), (18, 22));
}

#[test]
fn a_captive_portal_is_taken_at_its_word_and_said_once() {
    let endpoint = Endpoint::scripted(|_, _| {
        Answer::Raw(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 13\r\n\r\n<html></html>",
        )
    });
    let (_sandbox, daemon) = started(endpoint.port, QUICK, 10);
    endpoint.wait_delivered(10);
    let said = daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..10));
    assert_eq!(said.matches("web page").count(), 1, "{said}");
}

const MIB: &str = match std::str::from_utf8(&[b'x'; 1 << 20]) {
    Ok(text) => text,
    Err(_) => "",
};

#[test]
fn an_answer_without_end_takes_no_memory() {
    let header: &'static str = format!("X-Padding: {}\r\n", "y".repeat(8_000)).leak();
    for (name, answer, is_answer) in [
        ("body of 100 MiB", Answer::Flood("HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n", MIB, 100), true),
        ("body without length", Answer::Flood("HTTP/1.1 200 OK\r\n\r\n", MIB, 100), true),
        ("endless headers", Answer::Flood("HTTP/1.1 200 OK\r\n", header, 13_000), false),
        ("endless header", Answer::Flood("HTTP/1.1 200 OK\r\nX: ", MIB, 100), false),
        ("endless status line", Answer::Flood("HTTP/1.1 200 ", MIB, 100), false),
    ] {
        let endpoint = Endpoint::accepting();
        let (sandbox, daemon) = started(endpoint.port, QUICK, 10);
        endpoint.wait_delivered(10);
        let before = daemon.resident();
        endpoint.set_script(move |_, _| answer);
        sandbox.append("access.log", &lines(10..40));
        if is_answer {
            endpoint.wait_delivered(40);
        } else {
            says(&daemon, "endpoint unavailable");
            endpoint.set_script(|_, _| Answer::Status(200));
            endpoint.wait_delivered(40);
        }
        let grown = daemon.resident().saturating_sub(before);
        assert!(grown < 32 * 1024, "{name}: {grown} KiB more");
        daemon.stop();
        assert_eq!(endpoint.delivered(), urls(0..40), "{name}");
    }
}

#[test]
fn an_outage_of_any_length_takes_no_memory_and_everything_arrives_once_after_it() {
    const A_SECOND: u32 = 2_000;
    // `SILKTAIL_OUTAGE_SECONDS=600 cargo test --test endpoint_faults an_outage`
    let seconds: u32 = std::env::var("SILKTAIL_OUTAGE_SECONDS").map_or(5, |text| text.parse().unwrap());
    for files in [1, 1_000] {
        let endpoint = Endpoint::scripted(|_, _| Answer::Status(503));
        let sandbox = Sandbox::new();
        let keys = "linger = \"20ms\"\nretry_max = \"1s\"";
        sandbox.configure_with(endpoint.port, keys, &SITE.replace("access.log", "*.log"));
        for file in 0..files {
            sandbox.write(&format!("{file}.log"), "");
        }
        let daemon = sandbox.start("said");
        says(&daemon, "ready");
        let mut resident = Vec::new();
        let mut open_files = 0;
        let began = Instant::now();
        for tenth in 0..seconds * 10 {
            let due = began + Duration::from_millis(100) * tenth;
            wait_for("the next tenth of a second", SOON, || Instant::now() >= due);
            // Ten events of a visitor on a page, each tenth in another log.
            let n = tenth * A_SECOND / 10;
            let page = "https://docs.example.org/manuals.html";
            let line = |n: u32| {
                let ip = format!("198.{}.{}.{}", 18 + n / 10 / 62_500 % 2, n / 10 / 250 % 250, n / 10 % 250);
                combined_by(&ip, n / A_SECOND, &format!("/files/{n}.pdf"), page, BROWSER)
            };
            let text: String = (n..n + A_SECOND / 10).map(line).collect();
            sandbox.append(&format!("{}.log", tenth % files), &text);
            resident.push(daemon.resident());
            open_files = open_files.max(fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count());
        }
        let count = (seconds * A_SECOND) as usize;
        let seen = Arc::new(Mutex::new((vec![0_u8; count], 0)));
        let marked = Arc::clone(&seen);
        endpoint.set_script(move |_, body| {
            let (seen, total) = &mut *marked.lock().unwrap();
            for event in body["events"].as_array().unwrap() {
                let name = event["url"].as_str().unwrap().rsplit('/').next().unwrap();
                seen[name.trim_end_matches(".pdf").parse::<usize>().unwrap()] += 1;
                *total += 1;
            }
            Answer::Status(200)
        });
        let deadline = SOON + Duration::from_secs(u64::from(seconds));
        wait_for("all of it", deadline, || seen.lock().unwrap().1 >= count);
        daemon.stop();
        assert!(seen.lock().unwrap().0.iter().all(|times| *times == 1), "each once");
        // When what may wait is full, after the first seconds, it stays as it is.
        let full = resident[resident.len() * 3 / 5];
        let last = *resident.last().unwrap();
        eprintln!(
            "{files} logs, {count} events: {full} KiB, at the end of the outage {last} KiB, {open_files} files open"
        );
        assert!(last < full + 4 * 1024, "{files} logs: from {full} KiB to {last} KiB");
        assert!(open_files < files as usize + 64, "{files} logs: {open_files} files open");
    }
}

/// A certificate authority, and what a server needs to show a certificate of it.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    fn server(&self, host: &str, until_year: i32) -> Arc<rustls::ServerConfig> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}

#[test]
fn a_certificate_that_does_not_hold_delays_and_nothing_is_sent_to_its_server() {
    let authority = Authority::new("an authority that is trusted");
    let good = authority.server("localhost", 2100);
    for (name, wrong, words) in [
        ("expired", authority.server("localhost", 2021), "expired"),
        ("for another host", authority.server("elsewhere.example.org", 2100), "not valid for name"),
        ("of an unknown authority", Authority::new("another").server("localhost", 2100), "UnknownIssuer"),
    ] {
        let tls = Arc::new(Mutex::new(wrong));
        let endpoint = Endpoint::scripted_with_tls(Arc::clone(&tls), |_, _| Answer::Status(200));
        let sandbox = Sandbox::new();
        sandbox.write("ca.pem", &authority.pem);
        let ca_file = format!("{QUICK}\nca_file = \"{}\"", sandbox.path("ca.pem").display());
        sandbox.configure_with(endpoint.port, &ca_file, SITE);
        let config = fs::read_to_string(sandbox.path("config.toml")).unwrap();
        sandbox.write("config.toml", &config.replace("http://127.0.0.1", "https://localhost"));
        sandbox.write("access.log", &lines(0..10));
        let daemon = sandbox.start("said");
        says(&daemon, "endpoint unavailable");
        assert!(daemon.stderr().contains(words), "{name}: no `{words}` in\n{}", daemon.stderr());
        assert_eq!(endpoint.post_count(), 0, "{name}: sent to a server that isn't proved");
        assert!(rejected(&sandbox).is_empty(), "{name}");

        *tls.lock().unwrap() = Arc::clone(&good);
        endpoint.wait_delivered(10);
        daemon.stop();
        assert_eq!(endpoint.delivered(), urls(0..10), "{name}");
    }
}
