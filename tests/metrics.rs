//! What the daemon shows to those who watch it: metrics, health, the status page.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use common::{Answer, BROWSER, CRAWLER, Daemon, Endpoint, KEY, SOON, Sandbox, combined, combined_by, wait_for};

const SITES: &str = r#"
[status]
listen = "127.0.0.1:0"

[[site]]
name = "docs"
base_url = "https://docs.example.org"
property_key = "8bce2be8c07a84a70e7104634b42878b"
logs = ["LOGS/access*.log"]
format = "combined"
"#;

/// Status, headers and body of an answer of the daemon's own server.
fn get(daemon: &Daemon, path: &str) -> (u16, String, String) {
    const SAID: &str = "status page and metrics address=\"http://";
    wait_for("the address", SOON, || daemon.stderr().contains(SAID));
    let said = daemon.stderr();
    let address = said.split(SAID).nth(1).unwrap().split('/').next().unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

/// The samples of an exposition, which is held to the format's rules.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let (mut family, mut kind) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} twice");
            assert!(family.starts_with("silktail_"), "{family}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').unwrap();
            assert_eq!(name, family);
            kind = of.to_owned();
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let bare = name.split('{').next().unwrap();
            let of_histogram = ["_bucket", "_sum", "_count"].iter().any(|end| bare == format!("{family}{end}"));
            assert!(bare == family || kind == "histogram" && of_histogram, "{line}");
            assert!(samples.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{name} twice");
        }
    }
    samples
}

#[test]
fn metrics_add_up_to_the_lines_and_name_the_reasons() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITES);
    let log: String = [
        combined("192.0.2.1", 0, "/a.pdf"),
        combined("192.0.2.1", 5, "/a.pdf"),
        combined("192.0.2.2", 6, "/index.html"),
        combined_by("192.0.2.3", 7, "/a.pdf", "-", CRAWLER),
        "garbage\n".to_owned(),
        combined_by("client.example.org", 8, "/a.pdf", "-", BROWSER),
    ]
    .concat();
    sandbox.write("access.log", &log);
    // A name that a stranger may have made.
    sandbox.write("access<b>\"\\.log", &combined("192.0.2.9", 0, "/b.pdf"));
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(2);
    let of = |name: &str| samples(&get(&daemon, "/metrics").2).get(name).copied();
    wait_for("the deliveries in the metrics", SOON, || {
        of("silktail_events_delivered_total{site=\"docs\"}") == Some(2.0)
    });
    let (status, head, text) = get(&daemon, "/metrics");
    assert!(status == 200 && head.contains("text/plain; version=0.0.4"), "{head}");
    let samples = samples(&text);
    let docs = |outcome: &str| samples[&format!("silktail_lines_total{{site=\"docs\",outcome=\"{outcome}\"}}")];
    assert_eq!(
        ["event", "repeat", "unmatched", "bot", "unparsed", "excluded"].map(docs),
        [2.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        "{text}"
    );
    for reason in [
        "outcome=\"bot\",reason=\"crawler\"",
        "outcome=\"excluded\",reason=\"client\"",
        "outcome=\"repeat\",reason=\"window\"",
    ] {
        assert_eq!(samples[&format!("silktail_line_reasons_total{{site=\"docs\",{reason}}}")], 1.0, "{text}");
    }
    assert_eq!(samples["silktail_posts_total{site=\"docs\",status=\"200\"}"], 2.0);
    assert_eq!(samples["silktail_post_duration_seconds_count"], 2.0);
    assert_eq!(samples["silktail_config_last_reload_successful"], 1.0);
    let lag: Vec<f64> =
        samples.iter().filter(|(name, _)| name.starts_with("silktail_log_lag_bytes{")).map(|(_, lag)| *lag).collect();
    assert_eq!(lag, [0.0, 0.0]);

    let (status, head, page) = get(&daemon, "/");
    assert!(status == 200 && head.contains("content-security-policy: default-src 'none'"), "{head}");
    assert!(page.contains("access&lt;b&gt;&quot;\\.log") && !page.contains("<b>"), "{page}");
    for text in [&page, &text] {
        assert!(!text.contains(KEY));
    }
    assert_eq!(get(&daemon, "/healthz").0, 200);
    assert_eq!(get(&daemon, "/readyz").0, 200);
    assert_eq!(get(&daemon, "/nothing").0, 404);

    // A refused reload shows, and so does the mended one.
    let right = fs::read_to_string(sandbox.path("config.toml")).unwrap();
    for (config, want) in [(right.replace("logs =", "lgos ="), 0.0), (right.clone(), 1.0)] {
        sandbox.write("config.toml", &config);
        daemon.hang_up();
        wait_for("the reload in the metrics", SOON, || of("silktail_config_last_reload_successful") == Some(want));
    }
    daemon.stop();
}

#[test]
fn what_the_endpoint_refuses_shows() {
    let sandbox = Sandbox::new();
    let endpoint = Endpoint::scripted(|_, _| Answer::Status(403));
    sandbox.configure(endpoint.port, SITES);
    sandbox.write("access.log", &combined("192.0.2.1", 0, "/a.pdf"));
    let daemon = sandbox.start("said");
    let of = |name: &str| samples(&get(&daemon, "/metrics").2).get(name).copied();
    wait_for("a refusal", SOON, || of("silktail_site_sending{site=\"docs\"}") == Some(0.0));
    assert!(of("silktail_posts_total{site=\"docs\",status=\"403\"}") >= Some(1.0));
    assert_eq!(of("silktail_waiting_events{site=\"docs\"}"), Some(1.0));
    assert!(get(&daemon, "/").2.contains("misconfigured"));
    daemon.stop();
}

#[test]
fn an_address_that_is_taken_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let sandbox = Sandbox::new();
    sandbox.configure(1, &SITES.replace("127.0.0.1:0", &address));
    sandbox.write("access.log", "");
    let done = sandbox.run(&["run"]).expect_code(1);
    assert!(done.stderr.contains(&address) && done.stderr.contains("[status]"), "{done:#?}");
}
