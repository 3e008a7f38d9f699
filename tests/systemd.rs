//! The units: clean by `systemd-analyze`, closed as far as they can be, and what the daemon tells systemd.
//!
//! Where systemd isn't installed its tests say so and pass, unless `CI=true`: there they fail. The service is tried for
//! real, booted and installed from its package, by `packaging/nspawn-test.sh`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Answer, Endpoint, SOON, Sandbox, combined, wait_for};

const UNITS: [&str; 2] = ["silktail.service", "silktail@.service"];
const DROP_INS: [&str; 2] = ["credentials.conf", "read-all-logs.conf"];
/// Exposure by `systemd-analyze security` above which a unit is no longer closed enough.
const EXPOSURE_MAX: f64 = 1.2;
/// The same with the drop-in that reads all logs, which opens what it must.
const EXPOSURE_MAX_READING_ALL: f64 = 1.8;

fn unit(name: &str) -> String {
    fs::read_to_string(Path::new("systemd").join(name)).unwrap()
}

/// Whether `systemd-analyze` is there.
fn can_analyze() -> bool {
    let found = Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(found || !is_ci, "systemd-analyze must be installed where CI=true");
    if !found {
        eprintln!("SKIPPED: systemd-analyze isn't installed");
    }
    found
}

/// A folder with the units as they would be installed, but for the program's place; each with these drop-ins.
fn installed(drop_ins: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    for name in UNITS {
        let text = unit(name).replace("/usr/bin/silktail", env!("CARGO_BIN_EXE_silktail"));
        // An instance, so that its name can be put in.
        let name = name.replace('@', "@shop");
        sandbox.write(&name, &text);
        for drop_in in drop_ins {
            let text = unit(drop_in).replace("/usr/bin/silktail", env!("CARGO_BIN_EXE_silktail"));
            sandbox.write(&format!("{name}.d/{drop_in}"), &text);
        }
    }
    sandbox
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if !can_analyze() {
        return;
    }
    for drop_ins in [&[][..], &DROP_INS] {
        let sandbox = installed(drop_ins);
        for name in UNITS {
            let path = sandbox.path(&name.replace('@', "@shop"));
            let done = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            // Units of the machine may be told about as well; those aren't ours.
            let ours: Vec<&str> = said.lines().filter(|line| line.contains("silktail")).collect();
            assert!(ours.is_empty(), "{name} with {drop_ins:?}: {said}");
            assert!(done.status.success(), "{name} with {drop_ins:?}: {said}");
        }
    }
}

#[test]
fn the_units_stay_closed() {
    if !can_analyze() {
        return;
    }
    for (drop_ins, limit) in
        [(&[][..], EXPOSURE_MAX), (&["credentials.conf"], EXPOSURE_MAX), (&DROP_INS, EXPOSURE_MAX_READING_ALL)]
    {
        let sandbox = installed(drop_ins);
        for name in UNITS {
            let path = sandbox.path(&name.replace('@', "@shop"));
            let done = Command::new("systemd-analyze")
                .args(["security", "--offline=yes", "--no-pager"])
                .arg(&path)
                .output()
                .unwrap();
            let table = String::from_utf8_lossy(&done.stdout).into_owned();
            let level = table.lines().find_map(|line| line.split_once("Overall exposure level for "));
            let level =
                level.and_then(|(_, rest)| rest.split_whitespace().nth(1)).unwrap_or_else(|| panic!("{done:?}"));
            let level: f64 = level.parse().unwrap();
            assert!(level <= limit, "{name} with {drop_ins:?} is exposed by {level}, above {limit}:\n{table}");
            // What stays open is a setting, or explained where it is left out; the template's reasons are the unit's.
            let text = unit("silktail.service");
            let open = table.lines().filter_map(|line| line.strip_prefix("✗ ")?.split('=').next());
            let silent: Vec<&str> = open.filter(|directive| !text.contains(&format!("{directive}="))).collect();
            assert!(!drop_ins.is_empty() || silent.is_empty(), "the unit says nothing of {silent:?}");
        }
    }
}

/// The template is the unit with a name in it: what is mended in one is mended in the other.
#[test]
fn the_template_differs_from_the_unit_in_its_instance_alone() {
    let settings = |name: &str| -> Vec<String> {
        let text = unit(name);
        text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
    };
    let named: Vec<String> = settings("silktail.service")
        .into_iter()
        .map(|line| match line.as_str() {
            "StateDirectory=silktail" | "RuntimeDirectory=silktail" => format!("{line}-%i"),
            "ExecReload=/usr/bin/silktail check" | "ExecStart=/usr/bin/silktail run" => {
                format!("{line} --config /etc/silktail/%i.toml")
            }
            line if line.starts_with("Description=") => format!("{line} (%i)"),
            _ => line,
        })
        .collect();
    assert_eq!(settings("silktail@.service"), named);
}

/// What the packages say of the service is what its unit says.
#[test]
fn the_packages_bring_the_units_user_and_every_drop_in() {
    let (service, users) = (unit("silktail.service"), fs::read_to_string("packaging/silktail.sysusers").unwrap());
    assert!(service.lines().any(|line| line == "User=silktail") && users.contains("\nu silktail "), "{users}");
    assert!(service.lines().any(|line| line == "SupplementaryGroups=adm") && users.contains("\nm silktail adm"));
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    for name in UNITS.iter().chain(&DROP_INS) {
        assert_eq!(manifest.matches(&format!("systemd/{name}\"")).count(), 2, "{name}: in .deb and .rpm");
    }
}

/// What came on the notification socket so far.
struct Told {
    socket: UnixDatagram,
    all: Vec<String>,
}

impl Told {
    fn has(&mut self, what: &str, times: usize) -> bool {
        let mut buffer = [0; 4096];
        while let Ok(len) = self.socket.recv(&mut buffer) {
            self.all.extend(String::from_utf8_lossy(&buffer[..len]).lines().map(str::to_owned));
        }
        self.all.iter().filter(|line| *line == what).count() >= times
    }
}

#[test]
fn readiness_is_told_when_following_and_the_watchdog_is_fed_through_an_outage() {
    // From the second POST on, an outage.
    let endpoint = Endpoint::scripted(|n, _| Answer::Status(if n == 0 { 200 } else { 503 }));
    let sandbox = Sandbox::new();
    sandbox.configure(
        endpoint.port,
        "[[site]]\nname = \"docs\"\nbase_url = \"https://docs.example.org\"\n\
         property_key = \"8bce2be8c07a84a70e7104634b42878b\"\nlogs = [\"LOGS/access.log\"]\nformat = \"combined\"",
    );
    sandbox.write("access.log", &combined("192.0.2.1", 0, "/0.pdf"));
    let socket = UnixDatagram::bind(sandbox.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut told = Told { socket, all: Vec::new() };
    let said = fs::File::create(sandbox.path("said")).unwrap();
    let mut child = sandbox
        .silktail()
        .arg("run")
        .env("NOTIFY_SOCKET", sandbox.path("notify"))
        .env("WATCHDOG_USEC", "120000000")
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()
        .unwrap();
    wait_for("READY", SOON, || told.has("READY=1", 1));
    endpoint.wait_delivered(1);
    for second in 1..=3 {
        let fed = told.all.iter().filter(|line| *line == "WATCHDOG=1").count();
        sandbox.append("access.log", &combined("192.0.2.1", second, &format!("/{second}.pdf")));
        wait_for("the watchdog being fed", SOON, || told.has("WATCHDOG=1", fed + 1));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::KILL).unwrap();
    child.wait().unwrap();
}
