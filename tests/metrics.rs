//! What the daemon shows to those who watch it: metrics, health, the status page.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use common::{Answer, BROWSER, CRAWLER, Daemon, Endpoint, KEY, SOON, Sandbox, combined, combined_by, wait_for};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

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

/// Status, headers (in lower case) and body of an answer of the daemon's own server.
fn get(daemon: &Daemon, path: &str) -> (u16, String, String) {
    common::status::get(&daemon.status_address(), path, "")
}

/// The samples of an exposition, which is held to the format's rules.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    // OpenMetrics has an end, and families without suffix.
    let is_open = text.ends_with("# EOF\n");
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
            if !is_open {
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            }
        } else if line != "# EOF" {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let bare = name.split('{').next().unwrap();
            let of_histogram = ["_bucket", "_sum", "_count"].iter().any(|end| bare == format!("{family}{end}"));
            let of_open = match kind.as_str() {
                "counter" => bare == format!("{family}_total"),
                "info" => bare == format!("{family}_info"),
                _ => bare == family,
            };
            let fits = if is_open { of_open } else { bare == family };
            assert!(fits || kind == "histogram" && of_histogram, "{line}");
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

    // The same as OpenMetrics.
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let (status, head, open) = common::status::get(&daemon.status_address(), "/metrics", accept);
    assert!(status == 200 && head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    let open: BTreeSet<String> = self::samples(&open).into_keys().collect();
    let names = |samples: BTreeSet<String>| -> BTreeSet<String> {
        samples.into_iter().map(|name| name.split('{').next().unwrap().to_owned()).collect()
    };
    assert_eq!(names(open), names(samples.into_keys().collect()));

    // A refused reload shows, and so does the mended one.
    let right = fs::read_to_string(sandbox.path("config.toml")).unwrap();
    for (config, want) in [(right.replace("logs =", "lgos ="), 0.0), (right.clone(), 1.0)] {
        sandbox.write("config.toml", &config);
        daemon.hang_up();
        wait_for("the reload in the metrics", SOON, || of("silktail_config_last_reload_successful") == Some(want));
        let status = || sandbox.run(&["status"]).expect_code(0).stdout;
        let is_refused = "configuration refused";
        if want == 0.0 {
            let page = get(&daemon, "/").2;
            assert!(page.contains("The configuration was refused") && page.contains("configuration refused, the old"));
            assert!(!page.contains("lgos"), "the diagnostics are in the journal: {page}");
            // The daemon leaves it beside its state once a second. The command itself needs a configuration that is right.
            sandbox.write("config.toml", &right);
            wait_for("the refusal in the status", SOON, || status().contains(is_refused));
        } else {
            wait_for("the mended one in the status", SOON, || !status().contains(is_refused));
        }
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
    assert!(get(&daemon, "/").2.contains("waits for its set-up"));
    assert_eq!(of("silktail_site_misconfigured{site=\"docs\"}"), Some(1.0));
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

/// What is behind, and since when; what becomes of logs.
#[test]
fn a_log_that_lags_and_its_life_show() {
    let sandbox = Sandbox::new();
    let endpoint = Endpoint::scripted(|_, _| Answer::Withhold);
    sandbox.configure(endpoint.port, SITES);
    let lines = combined("192.0.2.1", 0, "/index.html") + &combined("192.0.2.1", 1, "/a.pdf");
    sandbox.write("access.log", &lines);
    let daemon = sandbox.start("said");
    let path = sandbox.path("access.log").display().to_string();
    let all = || samples(&get(&daemon, "/metrics").2);
    let of = |name: &str| all().get(&format!("{name}{{path=\"{path}\"}}")).copied();
    let page = combined("192.0.2.1", 0, "/index.html").len() as f64;
    wait_for("the line that isn't settled", SOON, || of("silktail_log_offset_bytes") == Some(page));
    assert_eq!(of("silktail_log_size_bytes"), Some(lines.len() as f64));
    assert_eq!(of("silktail_log_lag_bytes"), Some(lines.len() as f64 - page));
    let late = of("silktail_log_lag_seconds").unwrap();
    wait_for("it to grow older", SOON, || of("silktail_log_lag_seconds").unwrap() > late + 0.05);
    assert!(all()["silktail_logs_lag_seconds"] >= late);

    fs::rename(sandbox.path("access.log"), sandbox.path("access.log.1")).unwrap();
    sandbox.write("access.log", &combined("192.0.2.1", 0, "/index.html"));
    wait_for("the rotation", SOON, || of("silktail_log_rotations_total") == Some(1.0));
    endpoint.set_script(|_, _| Answer::Status(200));
    wait_for("all to be settled", SOON, || {
        of("silktail_log_lag_bytes") == Some(0.0) && of("silktail_log_lag_seconds") == Some(0.0)
    });
    assert_eq!(endpoint.delivered(), ["https://docs.example.org/a.pdf"]);
    // Cut within: what was read of it is gone, and nothing was unread.
    sandbox.write("access.log", "");
    wait_for("the truncation", SOON, || of("silktail_log_truncations_total") == Some(1.0));
    assert_eq!(of("silktail_log_given_up_unread_bytes_total").unwrap_or(0.0), 0.0);
    daemon.stop();
}

/// Dashboards and alerts rot in silence: a name that isn't there is just an empty panel.
#[test]
fn every_metric_that_alerts_and_dashboard_name_exists() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITES);
    sandbox.write("access.log", &(combined("192.0.2.1", 0, "/a.pdf") + &combined("192.0.2.1", 1, "/a.pdf")));
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(1);
    // The endpoint knows of its answer a little sooner than who gets it.
    wait_for("the answer to be counted", SOON, || get(&daemon, "/metrics").2.contains("status=\"200\""));
    fs::rename(sandbox.path("access.log"), sandbox.path("access.log.1")).unwrap();
    let text = get(&daemon, "/metrics").2;
    let families: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let labels: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.split(['{', ',']).skip(1))
        .filter_map(|label| Some(label.split_once("=\"")?.0))
        .collect();
    // The documents have all of them, and no others.
    let row = regex::Regex::new(r"(?m)^\| `(silktail_[a-z0-9_]+)` \|").unwrap();
    let text = fs::read_to_string("docs/status.md").unwrap();
    let documented: BTreeSet<&str> = row.captures_iter(&text).map(|found| found.get(1).unwrap().as_str()).collect();
    assert_eq!(documented, families);
    let name = regex::Regex::new(r"silktail_[a-z0-9_]+").unwrap();
    let label = regex::Regex::new(r"([a-z_]+) ?=~?").unwrap();
    let by = regex::Regex::new(r"(?:by|on) \(([a-z, ]+)\)").unwrap();
    let braces = regex::Regex::new(r"silktail_[a-z0-9_]+\{([^}]*)\}").unwrap();
    for file in ["packaging/prometheus/silktail.rules.yml", "packaging/grafana/silktail.json"] {
        let text = fs::read_to_string(file).unwrap();
        let mut seen = 0;
        for found in name.find_iter(&text) {
            let bare = found.as_str().trim_end_matches("_bucket");
            assert!(families.contains(bare), "{file}: there is no {bare}");
            seen += 1;
        }
        assert!(seen >= 10, "{file}: {seen} names");
        let in_braces =
            braces.captures_iter(&text).map(|found| found[1].replace('\\', "")).collect::<Vec<_>>().join(",");
        let grouped =
            by.captures_iter(&text).flat_map(|found| found[1].split(", ").map(str::to_owned).collect::<Vec<_>>());
        for used in label.captures_iter(&in_braces).map(|found| found[1].to_owned()).chain(grouped) {
            // Prometheus' own.
            let known = labels.contains(used.as_str()) || used == "instance";
            assert!(known, "{file}: no metric has a label {used}");
        }
    }
    daemon.stop();
}

/// Prometheus' own judgement of names, rules and their tests.
#[test]
fn promtool_finds_nothing_wrong() {
    let Some(promtool) = common::installed("promtool") else {
        eprintln!("skipped: promtool isn't installed");
        return;
    };
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITES);
    sandbox.write("access.log", &combined("192.0.2.1", 0, "/a.pdf"));
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(1);
    sandbox.write("metrics", &get(&daemon, "/metrics").2);
    daemon.stop();
    let metrics = fs::File::open(sandbox.path("metrics")).unwrap();
    for (what, file) in
        [("metrics", None), ("rules", Some("silktail.rules.yml")), ("test", Some("silktail.rules.test.yml"))]
    {
        let mut command = Command::new(&promtool);
        command.current_dir("packaging/prometheus").stdin(metrics.try_clone().unwrap());
        match file {
            Some(file) if what == "test" => command.args(["test", "rules", file]),
            Some(file) => command.args(["check", what, file]),
            None => command.args(["check", what]),
        };
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}: {said}");
        assert!(what != "metrics" || said.is_empty(), "{said}");
    }
}

/// As far as it can be told without Grafana: what its schema demands of a dashboard and its panels.
#[test]
fn the_dashboard_is_one() {
    let text = fs::read_to_string("packaging/grafana/silktail.json").unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(
        dashboard["uid"].as_str().is_some_and(|uid| uid.len() <= 40) && dashboard["schemaVersion"].as_u64() >= Some(36)
    );
    let variables: Vec<&str> =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    let mut ids = BTreeSet::new();
    let mut places = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its number is another's");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for (x, y) in (0..place("w")).flat_map(|x| (0..place("h")).map(move |y| (x, y))) {
            assert!(place("x") + x < 24, "{title} is wider than the grid");
            assert!(places.insert((place("x") + x, place("y") + y)), "{title} lies on another");
        }
        for target in panel["targets"].as_array().into_iter().flatten() {
            let of = target["datasource"]["uid"].as_str().unwrap().trim_matches(['$', '{', '}']);
            assert!(variables.contains(&of) && !target["expr"].as_str().unwrap().is_empty(), "{title}");
        }
    }
    let variable = regex::Regex::new(r"\$(?:\{)?([a-z]+)").unwrap();
    for used in variable.captures_iter(&text) {
        assert!(variables.contains(&&used[1]), "there is no variable {}", &used[1]);
    }
}
