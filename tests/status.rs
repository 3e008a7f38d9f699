//! Who may see the status page, and what it and the log lines never show.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::status::{connect, exchange, get, parse};
use common::{
    Answer, BROWSER, CRAWLER, Daemon, Endpoint, KEY, SOON, Sandbox, combined, combined_by, signal, wait_for,
    wait_with_deadline,
};
use rustix::process::Signal;
use serde_json::Value;

/// One site, and `[status]` with these lines.
fn sites(status: &str) -> String {
    format!(
        "[status]\n{status}\n\n[[site]]\nname = \"docs\"\nbase_url = \"https://docs.example.org\"\n\
         property_key = \"{KEY}\"\nlogs = [\"LOGS/access.log\"]\nformat = \"combined\"\n"
    )
}

fn started(status: &str) -> (Sandbox, Endpoint, Daemon) {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, &sites(status));
    sandbox.write("access.log", "");
    let daemon = sandbox.start("said");
    wait_for("the start", SOON, || daemon.stderr().contains(" ready "));
    (sandbox, endpoint, daemon)
}

#[test]
fn a_stranger_s_page_that_names_itself_this_machine_is_refused() {
    let (_sandbox, _endpoint, daemon) = started("listen = \"127.0.0.1:0\"");
    let address = daemon.status_address();
    let port = address.rsplit(':').next().unwrap().to_owned();
    for (host, want) in [
        (address.clone(), 200),
        (format!("localhost:{port}"), 200),
        (format!("evil.example.org:{port}"), 421),
        (format!("127.0.0.1.example.org:{port}"), 421),
    ] {
        for path in ["/", "/metrics", "/readyz"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let (status, head, _) = parse(&exchange(connect(&address), request.as_bytes()));
            assert_eq!(status, want, "{host}{path}");
            assert!(!head.contains("access-control-"), "nobody else's page may read it: {head}");
        }
    }
    let absolute = "GET http://evil.example.org/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    assert_eq!(parse(&exchange(connect(&address), absolute.as_bytes())).0, 421);
    daemon.stop();
}

#[test]
fn the_state_is_shown_beside_a_configuration_that_was_broken_meanwhile() {
    let (sandbox, endpoint, daemon) = started("listen = \"127.0.0.1:0\"");
    sandbox.append("access.log", &combined("192.0.2.7", 1, "/a.pdf"));
    wait_for("the event", SOON, || endpoint.delivered().len() == 1);
    let config = fs::read_to_string(sandbox.path("config.toml")).unwrap();
    for broken in [config.replace("base_url", "bass_url"), config.replace("[[site]]", "[[site]")] {
        fs::write(sandbox.path("config.toml"), broken).unwrap();
        let done = sandbox.run(&["status"]).expect_code(2);
        assert!(done.stderr.contains("error: ") && done.stderr.contains("all the same"), "{done:#?}");
        wait_for("the count", SOON, || sandbox.run(&["status", "--json"]).json()["sites"][0]["name"] == "docs");
        assert!(done.stdout.contains("docs") && done.stdout.contains("access.log"), "{done:#?}");
    }
    fs::write(sandbox.path("config.toml"), config).unwrap();
    daemon.stop();
}

#[test]
fn odd_requests_are_refused_and_clients_that_dawdle_hold_up_nobody() {
    let (_sandbox, _endpoint, daemon) = started("listen = \"127.0.0.1:0\"");
    let address = daemon.status_address();
    let ask = |request: &str| exchange(connect(&address), request.replace("HOST", &address).as_bytes());
    let huge = format!("GET / HTTP/1.1\r\nHost: HOST\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    let many: String = (0..500).map(|n| format!("X{n}: y\r\n")).collect();
    for (name, request, want) in [
        ("POST", "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "HTTP/1.1 405"),
        ("a method of its own", "BREW / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", "HTTP/1.1 405"),
        ("another path", "GET /../etc/passwd HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"),
        ("no HTTP", "\x16\x03\x01\x02\x00\x01\r\n\r\n", "HTTP/1.1 400"),
        ("a huge header", &huge, "HTTP/1.1 431"),
        ("many headers", &format!("GET / HTTP/1.1\r\nHost: HOST\r\n{many}\r\n"), "HTTP/1.1 431"),
    ] {
        let answer = ask(request);
        // A server that has read enough may hang up so early that the client sees no answer at all.
        assert!(answer.starts_with(want) || name == "a huge header" && answer.is_empty(), "{name}: {answer}");
    }
    let head = ask("HEAD /metrics HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    // As many as there may be, that never finish their request: they are sent away after a few seconds.
    let mut slow: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = connect(&address);
            stream.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
            stream
        })
        .collect();
    let begin = Instant::now();
    assert_eq!(get(&address, "/healthz", "").0, 200);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    let mut rest = Vec::new();
    slow[0].read_to_end(&mut rest).unwrap();
    daemon.stop();
}

#[test]
fn elsewhere_a_token_is_needed_and_a_reload_may_change_it() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.write("status.token", "a-long-and-random-token\n");
    sandbox.write("access.log", "");
    let listen = |port| format!("listen = \"0.0.0.0:{port}\"");
    sandbox.configure(endpoint.port, &sites(&listen(0)));
    let refused = sandbox.run(&["run"]).expect_code(2);
    assert!(refused.stderr.contains("no token"), "{refused:#?}");
    sandbox.configure(endpoint.port, &sites(&format!("{}\ntoken_file = \"status.token\"", listen(0))));
    let daemon = sandbox.start("said");
    let port = daemon.status_address().rsplit(':').next().unwrap().to_owned();
    let address = format!("127.0.0.1:{port}");
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    for path in ["/", "/metrics", "/healthz", "/readyz", "/nothing"] {
        let (status, head, body) = get(&address, path, "");
        assert!(status == 401 && head.contains("www-authenticate: basic"), "{path}: {head}");
        assert!(!body.contains("docs"), "{body}");
        assert_eq!(get(&address, path, &bearer("another")).0, 401, "{path}");
    }
    // With it, the name by which it is asked doesn't matter.
    let with_host = format!(
        "GET /metrics HTTP/1.1\r\nHost: status.example.org\r\nConnection: close\r\n{}\r\n",
        bearer("a-long-and-random-token")
    );
    assert_eq!(parse(&exchange(connect(&address), with_host.as_bytes())).0, 200);
    // user:a-long-and-random-token
    assert_eq!(get(&address, "/", "Authorization: Basic dXNlcjphLWxvbmctYW5kLXJhbmRvbS10b2tlbg==\r\n").0, 200);

    sandbox.write("status.token", "quite-another-random-token\n");
    daemon.hang_up();
    wait_for("the new token", SOON, || get(&address, "/healthz", &bearer("quite-another-random-token")).0 == 200);
    assert_eq!(get(&address, "/healthz", &bearer("a-long-and-random-token")).0, 401);
    let said = daemon.stop();
    assert!(!said.contains("random-token"), "{said}");
}

#[test]
fn a_unix_socket_serves_its_group_and_is_taken_over_when_it_was_left_behind() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    let path = sandbox.path("status.sock");
    sandbox.configure(endpoint.port, &sites("listen = \"unix:LOGS/status.sock\""));
    sandbox.write("access.log", &combined("192.0.2.1", 0, "/a.pdf"));
    let ask = || {
        let request = b"GET /metrics HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n";
        UnixStream::connect(&path).ok().map(|stream| parse(&exchange(stream, request)))
    };
    let daemon = sandbox.start("said");
    wait_for("the socket", SOON, || ask().is_some_and(|(status, _, body)| status == 200 && body.contains("silktail_")));
    let mode = fs::symlink_metadata(&path).unwrap();
    assert!(mode.file_type().is_socket());
    assert_eq!(mode.permissions().mode() & 0o777, 0o660);
    // Another that is alive is not thrown out.
    let other = Sandbox::new();
    other.write("access.log", "");
    other.configure(endpoint.port, &sites(&format!("listen = \"unix:{}\"", path.display())));
    let refused = other.run(&["run"]).expect_code(1);
    assert!(refused.stderr.contains("[status]") && refused.stderr.contains("status.sock"), "{refused:#?}");
    daemon.kill();
    assert!(path.exists(), "nobody tidies up after SIGKILL");
    let daemon = sandbox.start("said again");
    wait_for("the socket", SOON, || ask().is_some_and(|(status, ..)| status == 200));
    daemon.stop();
    assert!(!path.exists());
    // What is no socket is left alone.
    fs::write(&path, "mine").unwrap();
    sandbox.run(&["run"]).expect_code(1);
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn it_is_not_ready_while_a_log_cannot_be_read() {
    // To root, everything can be read; another user does what root starts.
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can start it as another user");
        return;
    }
    let (mut sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.run_as = Some(65_534);
    sandbox.configure(endpoint.port, &sites("listen = \"127.0.0.1:0\"").replace("access.log", "*.log"));
    sandbox.write("a.log", &combined("192.0.2.1", 0, "/a.pdf"));
    sandbox.write("closed.log", &combined("192.0.2.2", 0, "/b.pdf"));
    // No log, and nothing that could be mended.
    fs::create_dir(sandbox.path("directory.log")).unwrap();
    let closed = |mode| fs::set_permissions(sandbox.path("closed.log"), fs::Permissions::from_mode(mode)).unwrap();
    closed(0o600);
    let daemon = sandbox.start("said");
    let address = daemon.status_address();
    let ready = || get(&address, "/readyz", "");
    wait_for("the trouble", SOON, || ready().2 == "a log can't be read\n");
    assert_eq!((ready().0, get(&address, "/healthz", "").0), (503, 200));
    let page = get(&address, "/", "").2;
    assert!(page.contains("not ready") && page.contains("closed.log") && page.contains("Debian: adm"), "{page}");
    closed(0o644);
    wait_for("the mended log", SOON, || ready().0 == 200);
    endpoint.wait_delivered(2);
    daemon.stop();
}

/// Visitors' addresses, query strings and lines as they stand: not at INFO and above, and not on the page, whatever the
/// endpoint answers; nor the key.
#[test]
fn neither_the_log_nor_the_page_tells_who_came() {
    let sandbox = Sandbox::new();
    // Answers that quote what was sent.
    const BUSY: Answer = Answer::Raw(
        "HTTP/1.1 503 Busy\r\nContent-Length: 59\r\n\r\n198.51.100.7, [2001:db8::7]: /a.pdf?mail=secret is too much",
    );
    const WRONG: Answer =
        Answer::Raw("HTTP/1.1 403 No\r\nContent-Length: 38\r\n\r\n198.51.100.7 may not ask ?mail=secret!");
    const BAD: Answer = Answer::Raw("HTTP/1.1 400 Bad\r\nContent-Length: 32\r\n\r\n198.51.100.7 ?mail=secret is bad");
    let endpoint = Endpoint::scripted(|nth, body| match nth {
        _ if body["events"][0]["url"].as_str().is_some_and(|url| url.contains("poison")) => BAD,
        40..46 => BUSY,
        60 => WRONG,
        _ => Answer::Status(200),
    });
    sandbox.configure_with(
        endpoint.port,
        "linger = \"0s\"\nmax_in_flight = 1",
        &(sites("listen = \"127.0.0.1:0\"") + "keep_query = true\nrepeat_window = \"5s\"\n"),
    );
    let mut log = String::new();
    for n in 0..300 {
        log += &combined("198.51.100.7", n * 7, &format!("/{n}.pdf?mail=secret@example.org"));
        log += &combined_by("198.51.100.8", n * 7, "/a.pdf", "https://search.example/?q=secret", CRAWLER);
        log += "garbage 198.51.100.9 secret\n";
        log += &"more garbage 198.51.100.9 secret\n".repeat(3);
        log += &combined_by("client.example.org", n * 7, "/a.pdf?secret", "-", BROWSER);
    }
    log += &combined("198.51.100.7", 9_000, "/poison.pdf?mail=secret");
    sandbox.write("access.log", &log);
    let daemon = sandbox.start("said");
    let address = daemon.status_address();
    endpoint.wait_delivered(300);
    wait_for("the rejection", SOON, || daemon.stderr().contains("event rejected"));
    let page = get(&address, "/", "").2;
    assert!(page.contains("event rejected") && page.contains("more than half of the requests"), "{page}");
    let metrics = get(&address, "/metrics", "").2;
    let status = sandbox.run(&["status"]).expect_code(0).stdout;
    let said = daemon.stop();
    for part in ["endpoint unavailable", "property refused", "lines don't fit", "event rejected", "summary", "proxies"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    for (name, text) in [("log", &said), ("page", &page), ("metrics", &metrics), ("status", &status)] {
        for secret in ["198.51.100.", "2001:db8", "secret", "garbage", KEY] {
            assert!(!text.contains(secret), "{name} shows {secret}:\n{text}");
        }
    }
}

#[test]
fn log_lines_can_be_json() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, &sites("listen = \"127.0.0.1:0\""));
    sandbox.write("access.log", &combined("192.0.2.1", 0, "/a.pdf"));
    for by_flag in [true, false] {
        let name = if by_flag { "by flag" } else { "by environment" };
        let daemon = sandbox.start_as(name, |command, _| {
            if by_flag {
                command.args(["--log-format", "json"]);
            } else {
                command.env("SILKTAIL_LOG_FORMAT", "json");
            }
        });
        wait_for("the start", SOON, || daemon.stderr().contains("\"ready\""));
        endpoint.wait_delivered(1);
        let said = daemon.stop();
        let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.len() >= 4, "{said}");
        for line in &lines {
            for key in ["time", "level", "message"] {
                assert!(line[key].is_string(), "{line}");
            }
            line["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        }
        let follows = lines.iter().find(|line| line["message"] == "following file").unwrap();
        assert_eq!(follows["path"], sandbox.path("access.log").display().to_string());
        assert!(follows["offset"].is_u64() && follows["sites"] == "docs", "{follows}");
    }
}

/// sd-daemon(3): a line that begins with `<N>` has that priority; times are the journal's own.
#[test]
fn the_journal_is_told_how_grave_a_line_is() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, &sites(""));
    for (name, is_journal) in [("journal", true), ("elsewhere", false)] {
        let daemon = sandbox.start_as(name, |command, said| {
            let meta = said.metadata().unwrap();
            // A child whose standard error leads elsewhere inherits the variable, too.
            let inode = if is_journal { meta.ino() } else { meta.ino() + 1 };
            command.env("JOURNAL_STREAM", format!("{}:{inode}", meta.dev()));
        });
        wait_for("the start", SOON, || daemon.stderr().contains("ready"));
        let said = daemon.stop();
        if is_journal {
            assert!(said.lines().all(|line| line.starts_with("<6> INFO ") || line.starts_with("<4> WARN ")), "{said}");
            assert!(said.contains("<4> WARN log doesn't exist yet, waiting for it path="), "{said}");
        } else {
            assert!(
                said.lines().all(|line| line.split(' ').next().unwrap().parse::<jiff::Timestamp>().is_ok()),
                "{said}"
            );
        }
    }
}

#[test]
fn what_is_said_again_and_again_is_counted() {
    let sandbox = Sandbox::new();
    let endpoint = Endpoint::scripted(|_, _| Answer::Status(400));
    // Single events that are refused: the first ones by themselves, until it is clear that it is the set-up.
    sandbox.configure_with(endpoint.port, "linger = \"0s\"\nmax_in_flight = 1", &sites(""));
    let daemon = sandbox.start("said");
    sandbox.write("access.log", "");
    wait_for("the log", SOON, || daemon.stderr().contains("following file"));
    for n in 0..5 {
        sandbox.append("access.log", &combined("192.0.2.1", n, &format!("/{n}.pdf")));
        let rejected = || sandbox.run(&["status", "--json"]).expect_code(0).json()["sites"][0]["rejected"].clone();
        wait_for("the rejection", SOON, || rejected() == n + 1);
    }
    let said = daemon.stop();
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("event rejected")).collect();
    assert_eq!(lines.len(), 2, "{said}");
    let path = format!("path={:?}", sandbox.path("access.log"));
    assert!(lines[0].contains("hint=") && lines[0].contains(&path) && lines[0].contains(" offset=0 "), "{said}");
    assert!(lines[1].contains("site=\"docs\"") && lines[1].contains(&format!("{path} repeated=4 in=")), "{said}");
}

#[test]
fn watch_shows_it_again_until_it_is_told_to_stop() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, &sites(""));
    let out = fs::File::create(sandbox.path("out")).unwrap();
    let mut child =
        sandbox.silktail().args(["status", "--watch"]).stdout(out).stderr(Stdio::inherit()).spawn().unwrap();
    let shown = || fs::read_to_string(sandbox.path("out")).unwrap().matches("not running").count();
    wait_for("a second look", SOON, || shown() >= 2);
    signal(&child, Signal::INT);
    let status = wait_with_deadline(&mut child, SOON).expect("it ends");
    assert!(status.success(), "{status:?}");
    assert!(!fs::read_to_string(sandbox.path("out")).unwrap().contains('\x1b'), "a file is no terminal");
}
