//! What can happen to the state: a clear message each, exit code 1, nothing guessed; and nothing is sent that could not
//! be remembered.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::disk::Disk;
use common::{Answer, Daemon, Endpoint, SOON, Sandbox, combined, wait_for};

const SITE: &str = r#"
[[site]]
name = "docs"
base_url = "https://docs.example.org"
property_key = "8bce2be8c07a84a70e7104634b42878b"
logs = ["LOGS/access.log"]
format = "combined"
"#;

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|n| combined(&format!("192.0.{}.{}", n / 250 % 250, n % 250), n, &format!("/files/{n}.pdf"))).collect()
}

fn urls(range: std::ops::Range<u32>) -> Vec<String> {
    let mut urls: Vec<String> = range.map(|n| format!("https://docs.example.org/files/{n}.pdf")).collect();
    urls.sort();
    urls
}

/// A sandbox whose program has delivered ten events and was stopped.
fn used() -> (Sandbox, Endpoint) {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITE);
    sandbox.write("access.log", &lines(0..10));
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(10);
    daemon.stop();
    (sandbox, endpoint)
}

/// Runs the daemon, which must refuse; gives what it says.
#[track_caller]
fn refused(sandbox: &Sandbox, name: &str) -> String {
    let (code, said) = sandbox.start(&format!("said-{name}")).wait_ended();
    assert_eq!(code, 1, "{name}:\n{said}");
    assert!(!said.contains("panicked"), "{name}:\n{said}");
    assert!(said.contains("state"), "{name}: not clear:\n{said}");
    said
}

type Damage = fn(&Path);

#[test]
fn a_state_that_cannot_be_read_stops_the_start_and_nothing_is_guessed() {
    let damages: [(&str, &str, Damage); 9] = [
        ("empty", "empty", |path| fs::write(path, "").unwrap()),
        ("cut after 100 bytes", "cannot be read", |path| set_len(path, 100)),
        ("cut in the middle", "cannot be read", |path| set_len(path, fs::metadata(path).unwrap().len() / 2)),
        ("zeroed", "cannot be read", |path| {
            let len = fs::metadata(path).unwrap().len();
            fs::write(path, vec![0; len as usize]).unwrap();
        }),
        ("garbage", "cannot be read", |path| fs::write(path, "this is no database\n".repeat(5_000)).unwrap()),
        ("a page in it overwritten", "cannot be read", |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[4_096..3 * 4_096].fill(0xa5);
            fs::write(path, bytes).unwrap();
        }),
        ("of a newer version", "newer silktail", |path| {
            let db = rusqlite::Connection::open(path).unwrap();
            db.pragma_update(None, "user_version", 99).unwrap();
        }),
        ("of somebody else", "no state of silktail", |path| {
            fs::remove_file(path).unwrap();
            rusqlite::Connection::open(path).unwrap().execute_batch("CREATE TABLE other (x)").unwrap();
        }),
        ("gone but for its newest part", "silktail.db-wal", |path| {
            fs::rename(path, path.with_extension("db-wal")).unwrap();
        }),
    ];
    for (name, words, damage) in damages {
        let (sandbox, endpoint) = used();
        let path = sandbox.path("state/silktail.db");
        damage(&path);
        let before = fs::read(&path).ok();
        sandbox.append("access.log", &lines(10..12));
        let said = refused(&sandbox, name);
        assert!(said.contains(words), "{name}: no `{words}` in\n{said}");
        assert!(said.contains("silktail.db"), "{name}: which file?\n{said}");
        for args in [&["backfill", "--yes"][..], &["status"], &["rejected", "list"]] {
            let done = sandbox.run(args);
            // Who only looks may see what is whole.
            if name.starts_with("a page") && args[0] != "backfill" {
                assert!(done.code <= 1 && !done.stderr.contains("panicked"), "{name}, {args:?}: {done:#?}");
                continue;
            }
            let done = done.expect_code(1);
            assert!(done.stderr.contains(words), "{name}, {args:?}: no `{words}` in {done:#?}");
        }
        assert_eq!(endpoint.post_count(), 10, "{name}: something was guessed");
        assert_eq!(fs::read(&path).ok(), before, "{name}: the broken state was touched");
        if name == "of a newer version" {
            continue;
        }

        // What the message says to do works, and keeps the broken file.
        assert!(said.contains("--state-reset"), "{name}:\n{said}");
        let mut command = sandbox.silktail();
        let mut child = command
            .args(["run", "--state-reset"])
            .stderr(fs::File::create(sandbox.path("reset")).unwrap())
            .spawn()
            .unwrap();
        endpoint.wait_delivered(22);
        common::signal(&child, rustix::process::Signal::TERM);
        assert!(common::wait_with_deadline(&mut child, SOON).unwrap().success(), "{name}");
        let kept = fs::read_dir(sandbox.path("state")).unwrap().flatten();
        assert!(kept.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("broken")), "{name}");
    }
}

fn set_len(path: &Path, len: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

#[test]
fn one_daemon_for_each_state_and_others_may_look_at_it() {
    let (sandbox, endpoint) = used();
    let daemon = sandbox.start("said");
    wait_for("the first", SOON, || daemon.stderr().matches("ready").count() == 2);
    let said = refused(&sandbox, "second");
    assert!(said.contains("in use by another silktail"), "{said}");
    let reset = sandbox.run(&["run", "--state-reset"]).expect_code(1);
    assert!(reset.stderr.contains("in use by another silktail"), "{reset:#?}");
    let kept = fs::read_dir(sandbox.path("state")).unwrap().flatten();
    assert!(!kept.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("broken")), "it was set aside");
    sandbox.run(&["status"]).expect_code(0);
    sandbox.run(&["rejected", "list"]).expect_code(0);
    sandbox.append("access.log", &lines(10..15));
    endpoint.wait_delivered(15);
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..15));
}

#[test]
fn a_state_directory_that_cannot_be_used_stops_the_start() {
    let nobody = rustix::process::geteuid().is_root().then_some(65_534);
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    type Spoil<'s> = &'s dyn Fn(&Path);
    let spoils: [(&str, Spoil<'_>); 4] = [
        ("belongs to another", &|state| {
            if nobody.is_some() {
                chown(state, Some(0), Some(0)).unwrap();
            }
            mode(state, 0o555);
        }),
        ("is a file", &|state| {
            fs::remove_dir_all(state).unwrap();
            fs::write(state, "").unwrap();
        }),
        ("can't be made", &|state| {
            fs::remove_dir_all(state).unwrap();
            std::os::unix::fs::symlink("/proc/none/of/this", state).unwrap();
        }),
        ("holds a database that can't be opened", &|state| {
            fs::write(state.join("silktail.db"), "x".repeat(600)).unwrap();
            mode(&state.join("silktail.db"), 0o000);
        }),
    ];
    for (name, spoil) in spoils {
        let (mut sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
        sandbox.configure(endpoint.port, SITE);
        sandbox.write("access.log", &lines(0..3));
        sandbox.run_as = nobody;
        fs::create_dir(sandbox.path("state")).unwrap();
        let daemon = sandbox.start("said");
        endpoint.wait_delivered(3);
        daemon.stop();
        spoil(&sandbox.path("state"));
        sandbox.append("access.log", &lines(3..5));
        let said = refused(&sandbox, name);
        assert!(said.contains("local disk") || said.contains("cannot read or write"), "{name}:\n{said}");
        assert_eq!(endpoint.post_count(), 3, "{name}");
        if sandbox.path("state").is_dir() {
            mode(&sandbox.path("state"), 0o755);
        }
    }
}

const IN_FLIGHT: usize = 4;

fn is_stuck(daemon: &Daemon) -> bool {
    let said = daemon.stderr();
    said.matches("can't write the state").count() > said.matches("can be written again").count()
}

/// It makes do with what room its database has in itself, until that is used up for good.
fn is_stuck_for_good(daemon: &Daemon, endpoint: &Endpoint) -> bool {
    is_stuck(daemon) && endpoint.posts().last().is_some_and(|post| post.at.elapsed() > Duration::from_secs(1))
}

#[test]
fn on_a_full_disk_nothing_is_delivered_that_could_not_be_remembered_and_it_goes_on_by_itself() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    let Some(disk) = Disk::mount(sandbox.path("state")) else { return };
    sandbox.configure_with(endpoint.port, &format!("linger = \"0s\"\nmax_in_flight = {IN_FLIGHT}"), SITE);
    sandbox.write("access.log", &lines(0..20));
    let mut daemon = sandbox.start("said");
    endpoint.wait_delivered(20);
    let mut written = 20;
    for round in 1..=3 {
        disk.fill();
        let before = endpoint.post_count();
        wait_for("nothing goes any more", SOON, || {
            sandbox.append("access.log", &lines(written..written + 20));
            written += 20;
            is_stuck_for_good(&daemon, &endpoint)
        });
        // More work, and a rotation in the middle of it.
        let stuck = endpoint.post_count();
        sandbox.append("access.log", &lines(written..written + 300));
        fs::rename(sandbox.path("access.log"), sandbox.path(&format!("access.log.{round}"))).unwrap();
        sandbox.append("access.log", &lines(written + 300..written + 310));
        written += 310;
        let status = sandbox.run(&["status"]);
        assert!(status.code == 0 || status.code == 1, "{status:#?}");
        assert!(daemon.is_running(), "{}", daemon.stderr());
        let sent = endpoint.post_count();
        assert!(sent <= stuck + IN_FLIGHT, "{before} sent before, {stuck} when it was noticed, {sent} now");
        disk.empty();
        endpoint.wait_delivered(written as usize);
        wait_for("a word on it", SOON, || !is_stuck(&daemon));
    }
    let said = daemon.stop();
    assert!(said.contains("disk"), "{said}");
    assert_eq!(endpoint.delivered(), urls(0..written), "each once");
}

#[test]
fn at_the_limit_on_the_size_of_files_it_waits_as_on_a_full_disk_and_goes_on_when_that_is_lifted() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure_with(endpoint.port, &format!("linger = \"0s\"\nmax_in_flight = {IN_FLIGHT}"), SITE);
    sandbox.write("access.log", &lines(0..20));
    let mut daemon = sandbox.start("said");
    endpoint.wait_delivered(20);
    let limit = |most: u64| {
        // The hard limit may be lowered by anyone and lifted by few.
        let limits = Rlimit { current: Some(most), maximum: None };
        prlimit(Pid::from_raw(daemon.pid().cast_signed()), Resource::Fsize, limits).unwrap();
    };
    // What it says must still fit into its file.
    limit(48 * 1_024);
    let mut written = 20;
    wait_for("nothing goes any more", SOON, || {
        sandbox.append("access.log", &lines(written..written + 50));
        written += 50;
        is_stuck_for_good(&daemon, &endpoint)
    });
    limit(u64::MAX / 2);
    assert!(daemon.is_running(), "{}", daemon.stderr());
    endpoint.wait_delivered(written as usize);
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..written), "each once");
}

#[test]
fn a_start_at_the_limit_on_the_size_of_files_says_so_and_leaves_nothing_behind() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, SITE);
    sandbox.write("access.log", &lines(0..3));
    let state = || {
        let names = fs::read_dir(sandbox.path("state")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().contains("new")).collect::<Vec<_>>()
    };
    // A start that was killed while it laid the state out.
    for name in ["silktail.db.new-daemon", "silktail.db.new-daemon-journal"] {
        sandbox.write(&format!("state/{name}"), &"half a state".repeat(1_000));
    }
    let script = "ulimit -f 8; exec \"$@\"";
    let mut command = std::process::Command::new("sh");
    let silktail = sandbox.silktail();
    command.args(["-c", script, "sh"]).arg(silktail.get_program()).args(silktail.get_args()).arg("run");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("silktail.db`: "), "{said}");
    assert_eq!(state(), [""; 0]);
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(3);
    daemon.stop();
    assert_eq!(state(), [""; 0]);
}

#[test]
fn a_clock_that_is_years_ahead_at_one_start_makes_nothing_forgotten() {
    const FIVE_YEARS: i64 = 5 * 365 * 24 * 3600;
    let answer =
        |_, body: &serde_json::Value| Answer::Status(if body.to_string().contains("/bad") { 422 } else { 200 });
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::scripted(answer));
    let Some(mut clock) = common::clock::Clock::new(&sandbox) else { return };
    sandbox.configure(endpoint.port, SITE);
    sandbox.write("access.log", "");
    sandbox.write("old.log", &(lines(0..5) + &combined("192.0.2.1", 0, "/bad-1.pdf")));
    let old = sandbox.path("old.log").display().to_string();
    let backfill = || sandbox.run(&["backfill", "--yes", "--site", "docs", &old]);
    backfill().expect_code(1);
    let sent = endpoint.post_count();
    clock.jump(FIVE_YEARS);
    let daemon = sandbox.start_as("said", |command, _| clock.give_to(command));
    sandbox.append("access.log", &combined("192.0.2.1", 0, "/bad-2.pdf"));
    wait_for("the answer", SOON, || daemon.stderr().contains("event rejected"));
    daemon.stop();
    let kept = sandbox.run(&["rejected", "list"]).expect_code(0).stdout;
    assert!(kept.contains("/bad-1.pdf") && kept.contains("/bad-2.pdf"), "{kept}");
    backfill().expect_code(0);
    assert_eq!(endpoint.post_count(), sent + 1, "what was sent is still known");
}

#[test]
fn a_state_that_is_taken_away_while_it_runs_stops_the_sending_until_it_is_back() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure_with(endpoint.port, &format!("linger = \"0s\"\nmax_in_flight = {IN_FLIGHT}"), SITE);
    sandbox.write("access.log", &lines(0..5));
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(5);
    let mut written = 5;
    for by in ["renamed", "replaced"] {
        fs::rename(sandbox.path("state"), sandbox.path("elsewhere")).unwrap();
        if by == "replaced" {
            fs::create_dir(sandbox.path("state")).unwrap();
            fs::write(sandbox.path("state/silktail.db"), "another").unwrap();
        }
        // It is looked after once a second.
        wait_for("a word on it", SOON, || {
            sandbox.append("access.log", &lines(written..written + 1));
            written += 1;
            is_stuck_for_good(&daemon, &endpoint)
        });
        assert!(daemon.stderr().contains("was removed or replaced"), "{}", daemon.stderr());
        if by == "replaced" {
            fs::remove_dir_all(sandbox.path("state")).unwrap();
        }
        fs::rename(sandbox.path("elsewhere"), sandbox.path("state")).unwrap();
        endpoint.wait_delivered(written as usize);
        wait_for("a word that it is back", SOON, || !is_stuck(&daemon));
    }
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..written), "each once");
}

#[test]
fn a_state_that_another_program_has_locked_is_waited_for_and_said_and_a_stop_is_obeyed() {
    const SAID: &str = "another process has the state locked";
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure_with(endpoint.port, &format!("linger = \"0s\"\nmax_in_flight = {IN_FLIGHT}"), SITE);
    sandbox.write("access.log", &lines(0..5));
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(5);
    let shell = rusqlite::Connection::open(sandbox.path("state/silktail.db")).unwrap();
    let lock = |begins: bool| shell.execute_batch(if begins { "BEGIN IMMEDIATE" } else { "ROLLBACK" }).unwrap();
    lock(true);
    sandbox.append("access.log", &lines(5..30));
    wait_for("a word on it", SOON, || daemon.stderr().contains(SAID));
    wait_for("its place in the status", SOON, || sandbox.run(&["status"]).stdout.contains(SAID));
    assert!(endpoint.post_count() <= 5 + IN_FLIGHT, "nothing is sent that can't be remembered");
    assert!(daemon.stderr().contains("silktail.db") && !daemon.stderr().contains("free disk space"), "what to do");
    lock(false);
    endpoint.wait_delivered(30);
    wait_for("a word that it is over", SOON, || daemon.stderr().contains("can be written again"));
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..30), "each once");

    // Whoever comes while it is locked says so, too, and ends when that is asked for.
    lock(true);
    sandbox.append("access.log", &lines(30..35));
    let daemon = sandbox.start("at_the_start");
    wait_for("a word on it", SOON, || daemon.stderr().contains(SAID));
    let asked = Instant::now();
    daemon.terminate();
    let (code, said) = daemon.wait_ended();
    assert_eq!(code, 1, "{said}");
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    let said = sandbox.path("backfill");
    let mut command = sandbox.silktail();
    let mut backfill = command.args(["backfill", "--yes"]).stderr(fs::File::create(&said).unwrap()).spawn().unwrap();
    wait_for("a word on it", SOON, || fs::read_to_string(&said).unwrap().contains(SAID));
    common::signal(&backfill, rustix::process::Signal::INT);
    let ended = common::wait_with_deadline(&mut backfill, Duration::from_secs(20)).expect("it ends");
    assert_eq!(ended.code(), Some(1), "{}", fs::read_to_string(&said).unwrap());
    lock(false);
    let daemon = sandbox.start("after_it");
    endpoint.wait_delivered(35);
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..35), "each once");
}

#[test]
fn root_follows_no_link_in_the_state_of_another() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can be led astray");
        return;
    }
    for name in ["backfill.lock", "silktail.db", "silktail.db-wal"] {
        for is_hard in [false, true] {
            let (sandbox, endpoint) = used();
            let (secret, link) = (sandbox.path("secret"), sandbox.path("state").join(name));
            fs::write(&secret, "of root").unwrap();
            let _ = fs::remove_file(&link);
            match is_hard {
                true => fs::hard_link(&secret, &link).unwrap(),
                false => std::os::unix::fs::symlink(&secret, &link).unwrap(),
            }
            chown(sandbox.path("state"), Some(65_534), Some(65_534)).unwrap();
            let done = sandbox.run(&["backfill", "--yes"]).expect_code(1);
            assert!(done.stderr.contains("in another's directory"), "{name}: {done:#?}");
            let meta = fs::metadata(&secret).unwrap();
            assert_eq!(
                (std::os::unix::fs::MetadataExt::uid(&meta), fs::read(&secret).unwrap()),
                (0, b"of root".to_vec())
            );
            assert_eq!(endpoint.post_count(), 10, "{name}");
        }
    }
}

#[test]
fn a_stop_on_a_full_disk_ends_says_so_and_doubles_at_most_what_was_in_flight() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    let Some(disk) = Disk::mount(sandbox.path("state")) else { return };
    sandbox.configure_with(endpoint.port, &format!("linger = \"0s\"\nmax_in_flight = {IN_FLIGHT}"), SITE);
    sandbox.write("access.log", &lines(0..20));
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(20);
    disk.fill();
    let mut written = 20;
    wait_for("nothing goes any more", SOON, || {
        sandbox.append("access.log", &lines(written..written + 50));
        written += 50;
        is_stuck_for_good(&daemon, &endpoint)
    });
    daemon.terminate();
    let (code, said) = daemon.wait_ended();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("can't be written"), "{said}");
    // A start on the full disk waits as well.
    let daemon = sandbox.start("said-full");
    let says_so = |said: String| said.contains("can't write the state") || said.contains("can't go on");
    wait_for("a word on the full disk", SOON, || says_so(daemon.stderr()));

    disk.empty();
    let distinct = || endpoint.delivered().into_iter().collect::<BTreeSet<_>>();
    wait_for("all of them", SOON, || distinct().len() == written as usize);
    daemon.stop();
    let doubled = endpoint.delivered().len() - written as usize;
    assert!(doubled <= IN_FLIGHT, "{doubled} doubled");
}

#[test]
fn where_little_room_is_left_at_a_start_nothing_is_sent_that_could_not_be_remembered() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    let Some(disk) = Disk::mount(sandbox.path("state")) else { return };
    sandbox.configure_with(endpoint.port, &format!("linger = \"0s\"\nmax_in_flight = {IN_FLIGHT}"), SITE);
    sandbox.write("access.log", &lines(0..20));
    sandbox.run(&["backfill", "--yes"]).expect_code(0);
    sandbox.append("access.log", &lines(20..600));
    disk.fill_but_for(64 * 1024);
    // As cron or systemd do it, which try again and again.
    for _ in 0..3 {
        let daemon = sandbox.start("said");
        wait_for("a word on it", SOON, || daemon.stderr().contains("there is no room for the state"));
        daemon.terminate();
        daemon.wait_ended();
        let done = sandbox.run(&["backfill", "--yes"]).expect_code(1);
        assert!(done.stderr.contains("there is no room for the state"), "{done:#?}");
        fs::remove_file(sandbox.path("said")).unwrap();
    }
    assert_eq!(endpoint.post_count(), 20, "nothing that could not be remembered");
    let daemon = sandbox.start("said");
    wait_for("a word on it", SOON, || daemon.stderr().contains("there is no room for the state"));
    disk.empty();
    endpoint.wait_delivered(600);
    daemon.stop();
    assert_eq!(endpoint.delivered(), urls(0..600), "each once");
}

/// Numbers that look like chance (SplitMix64).
fn chance(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn killed_at_any_moment_under_load_none_is_lost_and_only_what_was_in_flight_is_doubled() {
    // `SILKTAIL_KILLS=200 cargo test --test state_faults killed_at_any_moment`
    let kills: u32 = std::env::var("SILKTAIL_KILLS").map_or(10, |text| text.parse().unwrap());
    let mut state = 1;
    let sandbox = Sandbox::new();
    let endpoint = Endpoint::scripted(|nth, _| match nth % 11 {
        0 => Answer::Status(503),
        3 => Answer::Close,
        5 => Answer::Status(429),
        8 => Answer::Slow(200, Duration::from_millis(15)),
        _ => Answer::Status(200),
    });
    let keys = format!("linger = \"0s\"\nmax_in_flight = {IN_FLIGHT}\nretry_max = \"50ms\"");
    sandbox.configure_with(endpoint.port, &keys, SITE);
    sandbox.write("access.log", "");
    let mut written = 0;
    for _ in 0..kills {
        let daemon = sandbox.start("said");
        // The moment is chance, not a condition: anything from before its first step to the middle of its work.
        let end = Instant::now() + Duration::from_millis(chance(&mut state) % 180);
        while Instant::now() < end {
            let more = (chance(&mut state) % 5) as u32;
            sandbox.append("access.log", &lines(written..written + more));
            written += more;
            std::thread::sleep(Duration::from_millis(2));
        }
        daemon.kill();
        endpoint.wait_hung_up();
    }
    let daemon = sandbox.start("said");
    let distinct = || endpoint.delivered().into_iter().collect::<BTreeSet<_>>().len();
    let end = Instant::now() + Duration::from_secs(60);
    while distinct() < written as usize && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    daemon.stop();
    let lost = written as usize - distinct();
    let doubled = endpoint.delivered().len() - distinct();
    eprintln!("{kills} kills, {written} events: {lost} lost, {doubled} doubled");
    assert_eq!(lost, 0);
    assert!(doubled <= kills as usize * IN_FLIGHT, "{doubled} doubled");
}

#[test]
fn a_power_cut_loses_none_and_doubles_only_what_was_sent_just_before() {
    const JUST_BEFORE: Duration = Duration::from_secs(2);
    let endpoint = Endpoint::scripted(|_, _| Answer::Slow(200, Duration::from_millis(2)));
    let sandbox = Sandbox::new();
    sandbox.configure_with(endpoint.port, "linger = \"5ms\"\nmax_in_flight = 2", SITE);
    sandbox.write("access.log", "");
    let mut written = 0;
    let mut write = |count: u32| {
        sandbox.append("access.log", &lines(written..written + count));
        written += count;
        written
    };
    let mut daemon = Some(sandbox.start("said"));
    let copy = sandbox.path("copy.db");
    for cut in 0..3 {
        let began = Instant::now();
        wait_for("some seconds of traffic", SOON, || {
            write(5);
            began.elapsed() > Duration::from_secs(3)
        });
        // What is in the database itself, without its log, has been synced; but not while it is being copied there.
        let running = daemon.take().unwrap();
        let mut at = Instant::now();
        wait_for("a state that is whole", SOON, || {
            running.signal(rustix::process::Signal::STOP);
            at = Instant::now();
            fs::copy(sandbox.path("state/silktail.db"), &copy).unwrap();
            running.signal(rustix::process::Signal::CONT);
            let db = rusqlite::Connection::open(&copy).unwrap();
            let whole = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
            whole.is_ok_and(|verdict| verdict == "ok")
        });
        running.kill();
        endpoint.wait_hung_up();
        for name in ["silktail.db-wal", "silktail.db-shm"] {
            let _ = fs::remove_file(sandbox.path("state").join(name));
        }
        fs::copy(&copy, sandbox.path("state/silktail.db")).unwrap();
        let before = endpoint.posts();
        let known: BTreeSet<String> = before.iter().flat_map(common::Post::urls).collect();
        daemon = Some(sandbox.start("said"));
        let all = write(1) as usize;
        let distinct = || endpoint.delivered().into_iter().collect::<BTreeSet<_>>().len();
        wait_for("everything", SOON, || distinct() == all);
        // Whatever would be sent again has been sent before what came last.
        let again: BTreeSet<String> = endpoint.posts()[before.len()..]
            .iter()
            .flat_map(common::Post::urls)
            .filter(|url| known.contains(url))
            .collect();
        let long_before = before.iter().filter(|post| post.is_delivered() && post.at + JUST_BEFORE < at);
        let doubled: Vec<String> = long_before.flat_map(common::Post::urls).filter(|url| again.contains(url)).collect();
        assert_eq!(doubled, Vec::<String>::new(), "cut {cut}: sent long before, and sent again");
        eprintln!("cut {cut}: {all} events, {} doubled", again.len());
    }
    daemon.unwrap().stop();
    assert_eq!(endpoint.delivered().into_iter().collect::<BTreeSet<_>>().len(), written as usize, "nothing foreign");
}

/// Damages a file in one of the ways in which files are damaged.
fn damage(bytes: &mut Vec<u8>, state: &mut u64) -> String {
    let mut below = |end: usize| (chance(state) % end.max(1) as u64) as usize;
    let from = below(bytes.len());
    let to = (from + 1 + below([16, 512, 8_192][from % 3])).min(bytes.len());
    let how = match below(8) {
        0 | 1 => {
            let flips = 1 + below(8);
            for _ in 0..flips {
                let at = below(bytes.len());
                bytes[at] ^= 1 << below(8);
            }
            return format!("{flips} bits flipped");
        }
        2 => {
            let noise = below(256) as u8;
            bytes[from..to].iter_mut().enumerate().for_each(|(at, byte)| *byte = noise.wrapping_mul(at as u8 | 1));
            "overwritten"
        }
        3 => {
            bytes[from..to].fill(0);
            "zeroed"
        }
        4 => {
            let len = to - from;
            let at = below(bytes.len() - len);
            bytes.copy_within(from..to, at);
            "copied elsewhere"
        }
        5 => {
            bytes.truncate(from);
            "cut off from there"
        }
        6 => {
            bytes.drain(from..to);
            "taken out"
        }
        _ => {
            let page = 4_096;
            let (one, other) = (below(bytes.len() / page), below(bytes.len() / page));
            for at in 0..page {
                bytes.swap(one * page + at, other * page + at);
            }
            return format!("pages {one} and {other} exchanged");
        }
    };
    format!("bytes {from} to {to} {how}")
}

/// Runs a command to its end; a state however damaged makes none hang, panic or end otherwise than with 0 or 1.
fn ends_well(mut command: Command, said: &Path, what: &str) -> (i32, String) {
    let mut child = command.stdout(Stdio::null()).stderr(fs::File::create(said).unwrap()).spawn().unwrap();
    let ended = common::wait_with_deadline(&mut child, SOON);
    let said = String::from_utf8_lossy(&fs::read(said).unwrap()).into_owned();
    if ended.is_none() {
        child.kill().unwrap();
    }
    let code = ended.unwrap_or_else(|| panic!("{what}: hangs\n{said}")).code().unwrap_or(-1);
    assert!(code == 0 || code == 1, "{what}: {code}\n{said}");
    assert!(!said.contains("panicked"), "{what}:\n{said}");
    assert!(code == 0 || said.contains("state"), "{what}: not clear:\n{said}");
    (code, said)
}

/// What became of some damaged states.
#[derive(Default)]
struct Damaged {
    states: usize,
    refused: usize,
    /// The daemon ran, and sent what came later.
    went_on: usize,
    commands: usize,
    commands_refused: usize,
}

/// Damages one state again and again, each time from what it was.
fn damaged_states(seeds: &[u64]) -> Damaged {
    let mut sum = Damaged::default();
    let refuse_one = |_: usize, body: &serde_json::Value| {
        Answer::Status(if body.to_string().contains("/files/7.pdf") { 400 } else { 200 })
    };
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::scripted(refuse_one));
    sandbox.configure(endpoint.port, SITE);
    sandbox.write("access.log", &lines(0..10));
    sandbox.write("old.log", &lines(100..110));
    let daemon = sandbox.start("said");
    endpoint.wait_delivered(9);
    daemon.stop();
    sandbox.run(&["backfill", "--yes", "--site", "docs", sandbox.path("old.log").to_str().unwrap()]).expect_code(0);
    endpoint.set_script(|_, _| Answer::Status(200));
    let path = sandbox.path("state/silktail.db");
    let whole = fs::read(&path).unwrap();
    assert!(!sandbox.path("state/silktail.db-wal").exists(), "all of it is in one file");
    for seed in seeds {
        let mut state = *seed;
        fs::remove_dir_all(sandbox.path("state")).unwrap();
        sandbox.write("state/other", "somebody else's");
        let mut bytes = whole.clone();
        let how = damage(&mut bytes, &mut state);
        fs::write(&path, &bytes).unwrap();
        sandbox.write("access.log", &lines(0..12));
        let before = endpoint.post_count();
        let arrived = || {
            let posts = endpoint.posts().split_off(before);
            posts.iter().flat_map(common::Post::urls).collect::<BTreeSet<String>>()
        };
        let what = |command: &str| format!("SILKTAIL_STATE_SEED={seed} ({how}), {command}");
        let old = sandbox.path("old.log");
        let old = old.to_str().unwrap();
        for args in [
            &["status"][..],
            &["status", "--json"],
            &["rejected", "list"],
            &["backfill", "--yes", "--site", "docs", old],
            &["rejected", "drop", "--yes"],
        ] {
            let mut command = sandbox.silktail();
            command.args(args);
            let (code, _) = ends_well(command, &sandbox.path("said-command"), &what(&args.join(" ")));
            sum.commands += 1;
            sum.commands_refused += usize::from(code == 1);
        }
        // The daemon refuses at once, or runs until it is told to stop.
        let touched = fs::read(&path).ok();
        fs::write(sandbox.path("said-run"), "").unwrap();
        let mut daemon = sandbox.start("said-run");
        let mut new = urls(10..12);
        wait_for(&what("run"), SOON, || !daemon.is_running() || daemon.stderr().contains("ready"));
        // What no longer knows how far it was may be wrong about that: whether it sends them is a figure.
        let end = Instant::now() + Duration::from_secs(1);
        while daemon.is_running() && !new.is_empty() && Instant::now() < end {
            let arrived = arrived();
            new.retain(|url| !arrived.contains(url));
            std::thread::sleep(Duration::from_millis(5));
        }
        let is_refused = !daemon.is_running();
        if !is_refused {
            daemon.terminate();
        }
        let (code, said) = daemon.wait_ended();
        assert!(code == 0 || code == 1, "{}: {code}\n{said}", what("run"));
        assert!(!said.contains("panicked"), "{}:\n{said}", what("run"));
        assert!(code == 0 || said.contains("state"), "{}: not clear:\n{said}", what("run"));
        sum.states += 1;
        sum.went_on += usize::from(new.is_empty());
        if is_refused && said.contains("--state-reset") {
            assert_eq!(fs::read(&path).ok(), touched, "{}: the broken state was touched", what("run"));
        }
        sum.refused += usize::from(is_refused);
        // What the message says to do works, whatever is broken: all of the log arrives.
        let before = endpoint.post_count();
        let arrived = || {
            let posts = endpoint.posts().split_off(before);
            posts.iter().flat_map(common::Post::urls).collect::<BTreeSet<String>>()
        };
        let daemon = sandbox.start_as("said-run", |command, _| {
            command.arg("--state-reset");
        });
        let all: BTreeSet<String> = urls(0..12).into_iter().collect();
        wait_for(&what("run --state-reset"), SOON, || all.is_subset(&arrived()));
        daemon.stop();
        assert_eq!(fs::read_to_string(sandbox.path("state/other")).unwrap(), "somebody else's", "{}", what("run"));
    }
    sum
}

#[test]
fn a_state_that_is_damaged_anyhow_makes_no_command_panic_or_hang_and_a_reset_mends_it() {
    // `SILKTAIL_STATES=200 cargo test --test state_faults damaged_anyhow`; `SILKTAIL_STATE_SEED` for one.
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds: Vec<u64> = match number("SILKTAIL_STATE_SEED") {
        Some(seed) => vec![seed],
        None => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
            let count = number("SILKTAIL_STATES").unwrap_or(24);
            (0..count / 2).chain(now..now + count.div_ceil(2)).collect()
        }
    };
    let sums: Vec<Damaged> = std::thread::scope(|scope| {
        let parts: Vec<_> =
            seeds.chunks(seeds.len().div_ceil(4)).map(|part| scope.spawn(|| damaged_states(part))).collect();
        parts.into_iter().map(|part| part.join().unwrap()).collect()
    });
    let total = |of: fn(&Damaged) -> usize| sums.iter().map(of).sum::<usize>();
    eprintln!(
        "{} states: the daemon refused {} and went on with {}; {} of {} commands refused",
        total(|sum| sum.states),
        total(|sum| sum.refused),
        total(|sum| sum.went_on),
        total(|sum| sum.commands_refused),
        total(|sum| sum.commands)
    );
    assert_eq!(total(|sum| sum.states), seeds.len());
}
