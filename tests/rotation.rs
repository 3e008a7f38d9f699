//! Whatever rotation does to a log, while the program runs, while it is stopped and around a stop and a start: every
//! complete line that can still be found is delivered exactly once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::clock::Clock;
use common::disk::Disk;
use common::{Answer, Daemon, Endpoint, SOON, Sandbox, combined, installed, wait_for};

/// How long what must come may take: a poll or two.
const PATIENCE: Duration = Duration::from_secs(15);

/// Without a repeat window: a line that is read twice counts twice.
const SITE: &str = r#"
[[site]]
name = "docs"
repeat_window = "0s"
base_url = "https://docs.example.org"
property_key = "8bce2be8c07a84a70e7104634b42878b"
logs = ["LOGS/logs/access.log"]
"#;

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|n| combined(&format!("192.0.2.{}", n % 250), n, &format!("/files/{n}.pdf"))).collect()
}

fn urls(range: std::ops::Range<u32>) -> Vec<String> {
    let mut urls: Vec<String> = range.map(|n| format!("https://docs.example.org/files/{n}.pdf")).collect();
    urls.sort();
    urls
}

/// One log directory, one program, and a count of the lines that were written.
struct Play {
    sandbox: Sandbox,
    endpoint: Endpoint,
    daemon: Option<Daemon>,
    written: u32,
}

impl Play {
    fn new(pattern: &str) -> Self {
        let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
        sandbox.configure(endpoint.port, &SITE.replace("access.log", pattern));
        fs::create_dir(sandbox.path("logs")).unwrap();
        Self { sandbox, endpoint, daemon: None, written: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path("logs").join(name)
    }

    /// Appends lines that never were before, as a server does.
    fn append(&mut self, name: &str, count: u32) {
        self.append_bytes(name, lines(self.written..self.written + count).as_bytes());
        self.written += count;
    }

    fn append_bytes(&self, name: &str, bytes: &[u8]) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(bytes).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// As `gzip FILE` does: the archive has the log's time, and the log is removed once it is whole.
    fn gzip(&self, name: &str, to: &str) {
        let bytes = fs::read(self.path(name)).unwrap();
        let written = fs::metadata(self.path(name)).unwrap().modified().unwrap();
        let mut file = fs::File::create(self.path(to)).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(&mut file, flate2::Compression::fast());
        encoder.write_all(&bytes).unwrap();
        encoder.finish().unwrap();
        file.set_modified(written).unwrap();
        self.remove(name);
    }

    /// As logrotate's `copytruncate` does.
    fn copy_and_truncate(&self, to: &str) {
        fs::copy(self.path("access.log"), self.path(to)).unwrap();
        fs::OpenOptions::new().append(true).open(self.path("access.log")).unwrap().set_len(0).unwrap();
    }

    fn is_running(&self) -> bool {
        self.daemon.is_some()
    }

    fn start(&mut self) {
        self.daemon.get_or_insert_with(|| self.sandbox.start("said"));
    }

    fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }

    /// Events that have arrived, however often.
    fn distinct(&self) -> usize {
        let mut urls = self.endpoint.delivered();
        urls.dedup();
        urls.len()
    }

    /// Waits until all that was written is delivered, if anybody is there to do it.
    fn settle(&self) {
        if self.is_running() {
            let end = std::time::Instant::now() + PATIENCE;
            while self.distinct() < self.written as usize {
                if std::time::Instant::now() > end {
                    self.expect_each_once("waited in vain");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    #[track_caller]
    fn expect_each_once(&self, what: &str) {
        let (got, want) = (self.endpoint.delivered(), urls(0..self.written));
        if got != want {
            let said = fs::read_to_string(self.sandbox.path("said")).unwrap();
            let lost: Vec<_> = want.iter().filter(|url| !got.contains(url)).collect();
            let doubled: Vec<_> = got.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
            panic!("{what}: {} delivered of {}; lost {lost:#?}; doubled {doubled:#?}\n{said}", got.len(), want.len());
        }
    }
}

type Step<'s> = &'s dyn Fn(&mut Play);

/// Plays the steps of a rotation while the program runs (waiting for each step's lines, and all in one go), while it is
/// stopped, and with the program stopped during each one of the steps.
fn play(name: &str, pattern: &str, steps: &[Step<'_>]) {
    let whens = [("waiting", None), ("in one go", None), ("all while stopped", Some(0..steps.len()))];
    let each = (0..steps.len()).map(|step| ("one while stopped", Some(step..step + 1)));
    for (how, stopped) in whens.into_iter().chain(each) {
        let what = format!("{name}, {pattern}, {how} {stopped:?}");
        let mut play = Play::new(pattern);
        play.append("access.log", 5);
        play.start();
        play.settle();
        for (index, step) in steps.iter().enumerate() {
            match &stopped {
                Some(range) if range.contains(&index) => play.stop(),
                _ => play.start(),
            }
            step(&mut play);
            if how != "in one go" {
                play.settle();
            }
        }
        play.start();
        let end = std::time::Instant::now() + PATIENCE;
        while play.distinct() < play.written as usize && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        play.stop();
        // What would be sent twice is sent when it is read again.
        play.start();
        play.append("access.log", 1);
        let last = format!("/files/{}.pdf", play.written - 1);
        let end = std::time::Instant::now() + PATIENCE;
        while !play.endpoint.delivered().iter().any(|url| url.ends_with(&last)) && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        play.stop();
        play.expect_each_once(&what);
    }
}

const EXACT: &str = "access.log";
const SIBLINGS_TOO: &str = "access.log*";

#[test]
fn renamed_and_created_while_the_server_writes_on_to_the_old_file() {
    for pattern in [EXACT, SIBLINGS_TOO, "*.log"] {
        play(
            "rename and create",
            pattern,
            &[
                &|play| play.append("access.log", 3),
                &|play| {
                    play.rename("access.log", "access.log.1");
                    play.append("access.log.1", 3);
                },
                &|play| {
                    play.append("access.log", 3);
                    play.append("access.log.1", 2);
                },
                &|play| play.append("access.log", 2),
            ],
        );
    }
}

#[test]
fn renamed_and_not_created_for_a_while() {
    for pattern in [EXACT, "*.log"] {
        play(
            "rename",
            pattern,
            &[
                &|play| play.append("access.log", 3),
                &|play| {
                    play.rename("access.log", "access.log.1");
                    play.append("access.log.1", 3);
                },
                &|play| play.append("access.log.1", 1),
                &|play| play.append("access.log", 3),
            ],
        );
    }
}

#[test]
fn rotated_twice_between_two_looks() {
    for pattern in [EXACT, SIBLINGS_TOO] {
        play(
            "twice",
            pattern,
            &[
                &|play| {
                    play.append("access.log", 2);
                    for _ in 0..2 {
                        if play.path("access.log.1").exists() {
                            play.rename("access.log.1", "access.log.2");
                        }
                        play.rename("access.log", "access.log.1");
                        play.append("access.log", 3);
                    }
                },
                &|play| {
                    for n in [3, 2, 1] {
                        if play.path(&format!("access.log.{n}")).exists() {
                            play.rename(&format!("access.log.{n}"), &format!("access.log.{}", n + 1));
                        }
                    }
                    play.rename("access.log", "access.log.1");
                    play.append("access.log", 1);
                    play.rename("access.log", "access.log.0");
                    // The newest is empty, as it is after most rotations.
                    play.append("access.log", 0);
                },
                &|play| play.append("access.log", 2),
            ],
        );
    }
}

#[test]
fn rotated_twice_while_the_log_in_between_never_had_a_line_when_it_was_looked_at() {
    play(
        "empty in between",
        EXACT,
        &[
            &|play| {
                play.rename("access.log", "access.log.1");
                play.append("access.log", 0);
            },
            &|play| {
                play.append("access.log", 3);
                play.rename("access.log.1", "access.log.2");
                play.rename("access.log", "access.log.1");
                play.append("access.log", 0);
            },
            &|play| play.append("access.log", 2),
        ],
    );
}

#[test]
fn renamed_to_names_with_dates() {
    for (pattern, dated) in [
        (EXACT, "access.log-20261110"),
        (SIBLINGS_TOO, "access.log-20261110"),
        (EXACT, "access-20261110.log"),
        ("*.log", "access-20261110.log"),
    ] {
        play(
            dated,
            pattern,
            &[
                &|play| {
                    play.append("access.log", 3);
                    play.rename("access.log", dated);
                    play.append("access.log", 3);
                },
                &|play| {
                    let next = dated.replace("10", "11");
                    play.rename("access.log", &next);
                    play.append("access.log", 2);
                },
            ],
        );
    }
}

#[test]
fn compressed_at_the_next_rotation() {
    for pattern in [EXACT, SIBLINGS_TOO] {
        play(
            "delaycompress",
            pattern,
            &[
                &|play| {
                    play.append("access.log", 3);
                    play.rename("access.log", "access.log.1");
                    play.append("access.log", 3);
                },
                &|play| {
                    play.append("access.log", 2);
                    play.gzip("access.log.1", "access.log.2.gz");
                    play.rename("access.log", "access.log.1");
                    play.append("access.log", 2);
                },
                &|play| {
                    play.append("access.log", 2);
                    play.rename("access.log.2.gz", "access.log.3.gz");
                    play.gzip("access.log.1", "access.log.2.gz");
                    play.rename("access.log", "access.log.1");
                    play.append("access.log", 2);
                },
            ],
        );
    }
}

#[test]
fn compressed_at_once() {
    for pattern in [EXACT, SIBLINGS_TOO] {
        play(
            "compress",
            pattern,
            &[
                &|play| {
                    play.append("access.log", 3);
                    play.rename("access.log", "access.log.1");
                    play.append("access.log", 3);
                    play.gzip("access.log.1", "access.log.1.gz");
                },
                &|play| {
                    play.append("access.log", 2);
                    play.rename("access.log.1.gz", "access.log.2.gz");
                    play.rename("access.log", "access.log.1");
                    play.append("access.log", 2);
                    play.gzip("access.log.1", "access.log.1.gz");
                },
            ],
        );
    }
}

#[test]
fn an_archive_that_is_being_written_is_not_taken_for_another_log() {
    let mut play = Play::new(SIBLINGS_TOO);
    play.append("access.log", 400);
    play.start();
    play.settle();
    play.rename("access.log", "access.log.1");
    play.append("access.log", 5);
    play.settle();
    let bytes = fs::read(play.path("access.log.1")).unwrap();
    let mut packed = Vec::new();
    let mut encoder = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast());
    encoder.write_all(&bytes).unwrap();
    encoder.finish().unwrap();
    for part in packed.chunks(packed.len() / 6 + 1) {
        play.append_bytes("access.log.1.gz", part);
        // It looks at the directory at each part.
        play.append("access.log", 1);
        fs::write(play.path("other"), "").unwrap();
        play.remove("other");
        play.settle();
    }
    play.remove("access.log.1");
    play.append("access.log", 1);
    play.settle();
    play.stop();
    play.start();
    play.append("access.log", 1);
    play.settle();
    play.stop();
    play.expect_each_once("gzip at work");
}

#[test]
fn copied_and_truncated() {
    for pattern in [EXACT, SIBLINGS_TOO] {
        play(
            "copytruncate",
            pattern,
            &[
                &|play| {
                    play.append("access.log", 4);
                    play.copy_and_truncate("access.log.1");
                },
                &|play| play.append("access.log", 2),
                &|play| {
                    play.append("access.log", 2);
                    play.rename("access.log.1", "access.log.2");
                    play.copy_and_truncate("access.log.1");
                    // Past the old offset before anybody looks.
                    play.append("access.log", 30);
                },
                &|play| {
                    play.gzip("access.log.2", "access.log.3.gz");
                    play.gzip("access.log.1", "access.log.2.gz");
                    play.copy_and_truncate("access.log.1");
                    play.append("access.log", 1);
                },
            ],
        );
    }
}

#[test]
fn copied_and_truncated_where_all_logs_begin_alike() {
    // More than a fingerprint's head, and nothing that counts: health checks without a time would look like this.
    let beginning =
        |play: &Play| play.append_bytes("access.log", combined("192.0.2.9", 0, "/health").repeat(12).as_bytes());
    for pattern in [EXACT, SIBLINGS_TOO] {
        play(
            "identical beginnings",
            pattern,
            &[
                &|play| {
                    play.append("access.log", 3);
                    play.copy_and_truncate("access.log.1");
                    beginning(play);
                },
                &|play| play.append("access.log", 3),
                &|play| {
                    play.append("access.log", 3);
                    play.rename("access.log.1", "access.log.2");
                    play.copy_and_truncate("access.log.1");
                    beginning(play);
                    play.append("access.log", 40);
                },
                &|play| {
                    play.rename("access.log", "access.log.0");
                    beginning(play);
                    play.append("access.log", 2);
                },
            ],
        );
    }
}

#[test]
fn deleted_and_created_again() {
    let mut reused = 0;
    for stopped in [false, true] {
        let mut play = Play::new(EXACT);
        for _ in 0..4 {
            play.append("access.log", 5);
            play.start();
            play.settle();
            if stopped {
                play.stop();
            } else {
                // Read to its end, since it is open.
                play.append("access.log", 3);
            }
            let before = fs::metadata(play.path("access.log")).unwrap().ino();
            play.remove("access.log");
            play.append("access.log", 4);
            reused += usize::from(fs::metadata(play.path("access.log")).unwrap().ino() == before);
            play.start();
            play.settle();
        }
        play.stop();
        play.expect_each_once(if stopped { "deleted while stopped" } else { "deleted while running" });
    }
    // Where the file system gives a freed inode out again, that was tried as well; content decides, so nothing differs.
    eprintln!("{reused} inodes were used again");
}

#[test]
fn an_inode_that_is_used_again_is_another_file() {
    // Rewritten in place: the same inode whatever the file system does, with other content, longer than before.
    for stopped in [false, true] {
        let mut play = Play::new(EXACT);
        play.append("access.log", 5);
        play.start();
        play.settle();
        if stopped {
            play.stop();
        }
        let text = lines(play.written..play.written + 20);
        play.written += 20;
        fs::write(play.path("access.log"), text).unwrap();
        play.start();
        play.settle();
        play.stop();
        play.expect_each_once("rewritten in place");
    }
}

#[test]
fn two_names_of_one_file_are_one_log() {
    let mut play = Play::new("*.log");
    play.append("a.log", 5);
    fs::hard_link(play.path("a.log"), play.path("b.log")).unwrap();
    symlink(play.path("a.log"), play.path("c.log")).unwrap();
    play.start();
    play.settle();
    play.append("b.log", 3);
    play.settle();
    play.stop();
    play.append("a.log", 2);
    play.start();
    play.settle();
    // The name that it is followed by goes, the file stays.
    play.remove("a.log");
    play.append("b.log", 3);
    play.settle();
    play.stop();
    play.append("b.log", 3);
    play.start();
    play.settle();
    play.stop();
    play.expect_each_once("hard and soft links");
}

#[test]
fn a_link_that_points_elsewhere_is_followed_there() {
    for stopped in [false, true] {
        let mut play = Play::new(EXACT);
        play.append("access.2026-11-10", 5);
        symlink("access.2026-11-10", play.path("access.log")).unwrap();
        play.start();
        play.settle();
        for day in 11..14 {
            // As `rotatelogs -L` and cronolog do.
            let (old, new) = (format!("access.2026-11-{}", day - 1), format!("access.2026-11-{day}"));
            if stopped {
                play.stop();
            } else {
                play.append(&old, 2);
            }
            play.append(&new, 3);
            play.remove("access.log");
            symlink(&new, play.path("access.log")).unwrap();
            if !stopped {
                // A process that hasn't noticed yet.
                play.append(&old, 1);
            }
            play.append(&new, 2);
            play.start();
            play.settle();
        }
        play.stop();
        play.expect_each_once("links");
    }
}

#[test]
fn a_renamed_directory_is_read_to_its_end_and_the_new_one_from_its_beginning() {
    for pattern in [EXACT, "*.log"] {
        let mut play = Play::new(pattern);
        play.append("access.log", 5);
        play.start();
        play.settle();
        for turn in 0..3 {
            play.append("access.log", 2);
            let aside = format!("logs.{turn}");
            fs::rename(play.sandbox.path("logs"), play.sandbox.path(&aside)).unwrap();
            let old = lines(play.written..play.written + 2);
            play.sandbox.append(&format!("{aside}/access.log"), &old);
            play.written += 2;
            fs::create_dir(play.path("")).unwrap();
            play.append("access.log", 3);
            play.settle();
            // The new directory is watched, and not only polled.
            let start = std::time::Instant::now();
            for _ in 0..5 {
                play.append("access.log", 1);
                play.settle();
            }
            assert!(start.elapsed() < Duration::from_secs(5), "{pattern}: {:?}", start.elapsed());
        }
        play.stop();
        play.expect_each_once(pattern);
    }
}

/// Who runs the program where the tests run as root, to whom nothing is forbidden.
const NOBODY: u32 = 65_534;

#[test]
fn a_log_that_was_cut_where_it_cannot_be_read_is_found_in_its_copy() {
    for pattern in [EXACT, "*.log"] {
        let mut play = Play::new(pattern);
        play.sandbox.run_as = (rustix::process::geteuid().is_root()).then_some(NOBODY);
        play.append("access.log", 3);
        play.start();
        play.settle();
        play.stop();
        play.append("access.log", 2);
        play.copy_and_truncate("access.log.1");
        play.append("access.log", 4);
        fs::set_permissions(play.path("access.log"), fs::Permissions::from_mode(0o000)).unwrap();
        // It may still be the log that was followed, as far as its name and its inode tell.
        play.start();
        play.endpoint.wait_delivered(5);
        fs::set_permissions(play.path("access.log"), fs::Permissions::from_mode(0o644)).unwrap();
        play.settle();
        play.stop();
        play.expect_each_once(pattern);
    }
}

#[test]
fn a_log_that_cannot_be_read_for_a_while_is_read_when_it_can_be() {
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for pattern in [EXACT, "*.log"] {
        let mut play = Play::new(pattern);
        play.sandbox.run_as = (rustix::process::geteuid().is_root()).then_some(NOBODY);
        play.append("access.log", 5);
        mode(&play.path("access.log"), 0o000);
        play.start();
        wait_for("a word on it", SOON, || play.daemon.as_ref().unwrap().stderr().contains("can't read file"));
        mode(&play.path("access.log"), 0o644);
        play.settle();

        // At a rotation, the new file belongs to root for a moment.
        play.append("access.log", 1);
        play.rename("access.log", "access.log.1");
        let mut server = fs::File::create(play.path("access.log")).unwrap();
        mode(&play.path("access.log"), 0o000);
        play.append("access.log.1", 2);
        play.settle();
        let hidden = play.written;
        server.write_all(lines(hidden..hidden + 3).as_bytes()).unwrap();
        play.written += 3;
        // It is rotated before anybody could read it.
        play.rename("access.log.1", "access.log.2");
        play.rename("access.log", "access.log.1");
        play.append("access.log", 2);
        play.endpoint.wait_delivered((hidden + 2) as usize);
        mode(&play.path("access.log.1"), 0o644);
        play.settle();

        // The rotated file can't be read at a start, the log can.
        play.stop();
        play.append("access.log", 3);
        play.rename("access.log.2", "access.log.3");
        play.rename("access.log.1", "access.log.2");
        play.rename("access.log", "access.log.1");
        mode(&play.path("access.log.1"), 0o000);
        play.append("access.log", 2);
        play.start();
        play.endpoint.wait_delivered((play.written - 3) as usize);
        mode(&play.path("access.log.1"), 0o644);
        play.settle();

        // The directory: it may be searched and not listed, and then not even searched.
        mode(&play.path(""), 0o711);
        play.append("access.log", 1);
        play.settle();
        mode(&play.path(""), 0o700);
        play.append("access.log", 1);
        mode(&play.path(""), 0o755);
        play.settle();
        play.stop();
        play.expect_each_once(pattern);
    }
}

#[test]
fn what_is_no_log_is_skipped_and_said_and_strange_names_are_no_obstacle() {
    let mut play = Play::new("*.log");
    let status = Command::new("mkfifo").arg(play.path("fifo.log")).status().unwrap();
    assert!(status.success());
    let _socket = UnixListener::bind(play.path("socket.log")).unwrap();
    symlink("/dev/zero", play.path("device.log")).unwrap();
    symlink("nowhere", play.path("dangling.log")).unwrap();
    symlink("loop.log", play.path("loop.log")).unwrap();
    fs::create_dir(play.path("directory.log")).unwrap();
    play.append("access.log", 5);
    let strange: [&[u8]; 5] =
        [b"new\nline ERROR forged.log", b"escape\x1b[31m.log", b"invalid\xff\xfe.log", b"[glob]*.log", b" -rf .log"];
    for name in strange {
        let path = play.sandbox.path("logs").join(OsStr::from_bytes(name));
        fs::write(path, lines(play.written..play.written + 3)).unwrap();
        play.written += 3;
    }
    play.start();
    play.settle();
    for name in strange {
        let path = play.sandbox.path("logs").join(OsStr::from_bytes(name));
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(lines(play.written..play.written + 2).as_bytes()).unwrap();
        play.written += 2;
    }
    play.settle();
    let said = play.daemon.take().unwrap().stop();
    play.expect_each_once("strange names");
    for name in ["fifo.log", "socket.log", "device.log"] {
        assert!(said.lines().any(|line| line.contains(name) && line.contains("WARN")), "{name} isn't said:\n{said}");
    }
    assert!(!said.contains("directory.log"), "{said}");
    assert!(!said.contains('\u{1b}'), "a name writes to the terminal:\n{said}");
    assert!(!said.lines().any(|line| line.starts_with("line ERROR")), "a name forges a line:\n{said}");
}

#[test]
fn logs_that_begin_with_the_same_kibibyte_are_several() {
    let mut play = Play::new("*.log");
    let same = combined("192.0.2.9", 0, "/health").repeat(12);
    assert!(same.len() > 1024);
    let names = ["a.log", "b.log", "c.log"];
    for name in names {
        play.append_bytes(name, same.as_bytes());
    }
    play.append("a.log", 2);
    play.start();
    play.settle();
    for round in 0..3 {
        for name in names {
            play.append(name, 3 + round);
        }
        play.settle();
        play.stop();
        for name in names {
            play.append(name, 2);
        }
        // The inodes change, as after a restore.
        for name in names {
            let bytes = fs::read(play.path(name)).unwrap();
            fs::write(play.path("copy"), bytes).unwrap();
            play.rename("copy", name);
        }
        play.start();
        play.settle();
    }
    play.stop();
    play.expect_each_once("same beginnings");
}

#[test]
fn empty_and_tiny_files_and_unfinished_lines_are_no_obstacle() {
    for format in ["combined", "auto"] {
        let mut play = Play::new("*.log");
        let config = fs::read_to_string(play.sandbox.path("config.toml")).unwrap();
        let config = config.replace("base_url", &format!("format = \"{format}\"\nbase_url"));
        play.sandbox.write("config.toml", &config);
        for n in 0..5 {
            play.append(&format!("{n}.log"), 0);
        }
        play.append("0.log", 1);
        play.start();
        play.settle();
        play.append("1.log", 1);
        let line = lines(play.written..play.written + 1);
        let (half, rest) = line.split_at(30);
        play.append_bytes("2.log", half.as_bytes());
        play.settle();
        play.stop();
        play.append_bytes("2.log", rest.as_bytes());
        play.written += 1;
        play.append_bytes("3.log", b"\n");
        play.start();
        play.append("3.log", 1);
        play.append("4.log", 1);
        play.settle();
        play.stop();
        for n in 0..5 {
            play.append(&format!("{n}.log"), 1);
        }
        play.start();
        play.settle();
        play.stop();
        play.expect_each_once(format);
    }
}

#[test]
fn nuls_behind_which_a_log_goes_on_hide_no_line() {
    for stopped in [false, true] {
        let mut play = Play::new(EXACT);
        play.append("access.log", 5);
        play.start();
        play.settle();
        if stopped {
            play.stop();
        }
        // More than a line may be long.
        play.append_bytes("access.log", &vec![0; 300_000]);
        play.append("access.log", 3);
        play.start();
        play.settle();
        play.stop();
        play.expect_each_once("NULs");
    }
}

#[test]
fn a_hole_that_a_truncated_log_is_left_with_hides_no_line() {
    let mut play = Play::new(EXACT);
    // A server that doesn't append writes on at its own offset.
    // More than that by which a format is decided.
    let text = lines(0..500);
    play.written = 500;
    let mut server = fs::File::create(play.path("access.log")).unwrap();
    server.write_all(text.as_bytes()).unwrap();
    play.start();
    play.settle();
    play.copy_and_truncate("access.log.1");
    let text = lines(500..505);
    play.written = 505;
    server.write_all(text.as_bytes()).unwrap();
    play.settle();
    play.stop();
    play.expect_each_once("a hole");
}

#[test]
fn a_log_that_a_power_cut_left_shorter_is_read_on_from_where_it_agrees() {
    for (name, tail) in [("shorter", 0_usize), ("with a tail of NULs", 4_000)] {
        let mut play = Play::new(EXACT);
        play.start();
        // Each reading leaves a mark.
        for _ in 0..6 {
            play.append("access.log", 10);
            play.settle();
        }
        play.stop();
        // The last five lines never reached the disk.
        let kept = lines(0..55).len() as u64;
        let file = fs::OpenOptions::new().write(true).open(play.path("access.log")).unwrap();
        file.set_len(kept).unwrap();
        drop(file);
        play.append_bytes("access.log", &vec![0; tail]);
        play.append("access.log", 7);
        play.start();
        play.endpoint.wait_delivered(67);
        wait_for("the last of them", SOON, || play.endpoint.delivered().iter().any(|url| url.ends_with("/66.pdf")));
        let said = play.daemon.take().unwrap().stop();
        let mut got = play.endpoint.delivered();
        let sent = got.len();
        got.dedup();
        assert_eq!(got, urls(0..67), "{name}: none is lost");
        // From the mark after the 50th line, and not the whole day.
        assert!(sent - got.len() <= 5, "{name}: {} doubled", sent - got.len());
        assert!(said.contains("reading on from where it agrees"), "{name}:\n{said}");
        play.start();
        play.append("access.log", 1);
        play.settle();
        let said = play.daemon.take().unwrap().stop();
        assert_eq!(said.matches("is gone; what was written").count(), 0, "{name}: nothing is unaccounted for:\n{said}");
    }
}

/// Whether a process holds a file open whose path ends like this.
fn holds_open(pid: u32, name: &str) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|path| path.to_string_lossy().contains(name))
}

#[test]
fn a_log_rotated_during_an_outage_is_let_go_and_its_events_survive_a_restart() {
    for (packed, how) in [(true, "stop"), (false, "kill")] {
        let mut play = Play::new(EXACT);
        play.append("access.log", 5);
        play.start();
        play.settle();
        play.endpoint.set_script(|_, _| Answer::Status(503));
        play.append("access.log", 3);
        if packed {
            play.stop();
            play.append("access.log", 3);
        }
        play.rename("access.log", "access.log.1");
        play.append("access.log", 2);
        if packed {
            play.gzip("access.log.1", "access.log.1.gz");
            play.start();
        }
        let pid = play.daemon.as_ref().unwrap().pid();
        wait_for("the rotated log is open", SOON, || {
            play.daemon.as_ref().unwrap().stderr().matches("following").count() >= 2
        });
        wait_for("the rotated log is let go", SOON, || !holds_open(pid, "access.log.1"));
        match how {
            "stop" => play.stop(),
            _ => drop(play.daemon.take().unwrap().kill()),
        }
        play.rename(if packed { "access.log.1.gz" } else { "access.log.1" }, "access.log.2.gz");
        if !packed {
            play.rename("access.log.2.gz", "access.log.2");
        }
        play.rename("access.log", "access.log.1");
        play.append("access.log", 2);
        play.endpoint.set_script(|_, _| Answer::Status(200));
        play.start();
        play.settle();
        play.stop();
        // Done with: another start looks for nothing.
        play.start();
        play.append("access.log", 1);
        play.settle();
        let said = play.daemon.take().unwrap().stop();
        assert!(!said.contains("is gone"), "{said}");
        play.expect_each_once(how);
    }
}

#[test]
fn a_log_that_is_deleted_while_open_is_read_to_its_end_and_let_go() {
    let mut play = Play::new(EXACT);
    play.append("access.log", 5);
    play.start();
    play.settle();
    let pid = play.daemon.as_ref().unwrap().pid();
    play.append("access.log", 5);
    let last = combined("192.0.2.77", 3_600, "/files/last.pdf");
    // Its last line has no newline: nobody will finish it.
    play.append_bytes("access.log", last.trim_end().as_bytes());
    play.remove("access.log");
    wait_for("the deleted log is let go", SOON, || !holds_open(pid, "access.log"));
    play.endpoint.wait_delivered(11);
    play.stop();
    assert!(play.endpoint.delivered().iter().any(|url| url.ends_with("/last.pdf")));
}

#[test]
fn what_cannot_be_found_is_said_and_a_backfill_reads_it_when_it_is_found_after_all() {
    let mut play = Play::new(EXACT);
    play.append("access.log", 5);
    play.start();
    play.settle();
    play.stop();
    play.append("access.log", 4);
    let elsewhere = play.sandbox.path("elsewhere.log");
    fs::rename(play.path("access.log"), &elsewhere).unwrap();
    play.append("access.log", 2);
    play.start();
    play.endpoint.wait_delivered(7);
    wait_for("a word on it", SOON, || play.daemon.as_ref().unwrap().stderr().contains("unaccounted for"));
    let said = play.daemon.take().unwrap().stop();
    let offset = lines(0..5).len();
    assert!(said.contains("unaccounted for") && said.contains(&format!("offset={offset}")), "{said}");
    play.start();
    play.append("access.log", 1);
    play.endpoint.wait_delivered(8);
    let said = play.daemon.take().unwrap().stop();
    assert_eq!(said.matches("unaccounted for").count(), 1, "said once:\n{said}");
    play.sandbox.run(&["backfill", "--yes", "--site", "docs", elsewhere.to_str().unwrap()]).expect_code(0);
    play.expect_each_once("found after all");
}

#[test]
fn a_log_that_is_truncated_and_then_deleted_is_read_to_its_end() {
    for with_copy in [false, true] {
        let mut play = Play::new(EXACT);
        play.append("access.log", 5);
        play.start();
        play.settle();
        // None of it is seen before all of it has happened.
        let daemon = play.daemon.as_ref().unwrap();
        daemon.signal(rustix::process::Signal::STOP);
        if with_copy {
            play.append("access.log", 3);
            fs::copy(play.path("access.log"), play.path("access.log.1")).unwrap();
        }
        fs::OpenOptions::new().append(true).open(play.path("access.log")).unwrap().set_len(0).unwrap();
        play.append("access.log", 3);
        play.remove("access.log");
        play.append("access.log", 2);
        play.daemon.as_ref().unwrap().signal(rustix::process::Signal::CONT);
        play.settle();
        let pid = play.daemon.as_ref().unwrap().pid();
        wait_for("the deleted log is let go", SOON, || !holds_open(pid, "access.log (deleted)"));
        play.stop();
        play.expect_each_once("truncated, then deleted");
    }
}

#[test]
fn a_clock_that_is_set_back_hides_no_log_that_came_and_went() {
    const DAY: i64 = 86_400;
    for pattern in [EXACT, SIBLINGS_TOO] {
        for stopped in [false, true] {
            let mut play = Play::new(pattern);
            let Some(mut clock) = Clock::new(&play.sandbox) else { return };
            let start = |play: &mut Play, clock: &Clock| {
                play.daemon.get_or_insert_with(|| play.sandbox.start_as("said", |command, _| clock.give_to(command)));
            };
            play.append("access.log", 5);
            start(&mut play, &clock);
            play.settle();
            for seconds in [-DAY, -1, -90, -3_600] {
                match stopped {
                    true => play.stop(),
                    false => play.daemon.as_ref().unwrap().signal(rustix::process::Signal::STOP),
                }
                clock.jump(seconds);
                play.append("access.log", 2);
                // One of them is in a file that never had the log's name while anybody looked.
                for _ in 0..2 {
                    for n in (1..20).rev().filter(|n| play.path(&format!("access.log.{n}")).exists()) {
                        play.rename(&format!("access.log.{n}"), &format!("access.log.{}", n + 1));
                    }
                    play.rename("access.log", "access.log.1");
                    play.append("access.log", 3);
                }
                start(&mut play, &clock);
                play.daemon.as_ref().unwrap().signal(rustix::process::Signal::CONT);
                play.settle();
            }
            play.stop();
            play.expect_each_once(&format!("{pattern}, stopped: {stopped}"));
        }
    }
}

/// Puts a copy where a log is: another inode, and another time.
fn put_back(play: &Play, name: &str, bytes: &[u8], written: std::time::SystemTime) {
    let copy = play.path("copy");
    fs::write(&copy, bytes).unwrap();
    fs::File::options().append(true).open(&copy).unwrap().set_modified(written).unwrap();
    fs::rename(copy, play.path(name)).unwrap();
}

#[test]
fn a_device_that_has_another_number_after_a_stop_holds_the_same_logs() {
    for pattern in [EXACT, SIBLINGS_TOO] {
        let mut play = Play::new(pattern);
        let Some(_old) = Disk::mount(play.path("")) else { return };
        play.append("access.log", 5);
        play.start();
        play.settle();
        play.rename("access.log", "access.log.1");
        play.append("access.log", 3);
        play.settle();
        play.gzip("access.log.1", "access.log.1.gz");
        play.append("access.log", 3);
        play.settle();
        play.stop();
        // Written before the move, and after it.
        play.append("access.log", 2);
        let before = fs::metadata(play.path("access.log")).unwrap().dev();
        let names = ["access.log", "access.log.1.gz"];
        let files = names.map(|name| {
            let path = play.path(name);
            (name, fs::read(&path).unwrap(), fs::metadata(path).unwrap().modified().unwrap())
        });
        let Some(_new) = Disk::mount(play.path("")) else { return };
        for (name, bytes, written) in &files {
            put_back(&play, name, bytes, *written);
        }
        assert_ne!(fs::metadata(play.path("access.log")).unwrap().dev(), before);
        play.append("access.log", 2);
        play.start();
        play.settle();
        play.append("access.log", 1);
        play.settle();
        let said = play.daemon.take().unwrap().stop();
        play.expect_each_once(pattern);
        assert!(!said.contains("unaccounted for"), "nothing is missing:\n{said}");
    }
}

/// As `mv` does it between two file systems: a copy with the log's time, and then the log is removed. `meanwhile` comes
/// when the copy is half written, and when it is whole.
fn move_over(play: &mut Play, from: &str, to: &str, meanwhile: impl Fn(&mut Play)) {
    let bytes = fs::read(play.path(from)).unwrap();
    let written = fs::metadata(play.path(from)).unwrap().modified().unwrap();
    let mut copy = fs::File::create(play.path(to)).unwrap();
    for half in bytes.chunks(bytes.len() / 2 + 1) {
        copy.write_all(half).unwrap();
        meanwhile(play);
    }
    copy.set_modified(written).unwrap();
    play.remove(from);
}

#[test]
fn a_rotation_that_moves_a_log_to_another_file_system_is_one_like_any_other() {
    // The rotated file is on another device: under a name in the log's directory, and in a directory that is read too.
    for (pattern, in_folders) in [(EXACT, false), (SIBLINGS_TOO, false), ("*/access.log*", true)] {
        for stopped in [false, true] {
            let what = format!("{pattern}, stopped: {stopped}");
            let mut play = Play::new(pattern);
            let Some(_disk) = Disk::mount(play.path("disk")) else { return };
            let mut bound = Vec::new();
            let log = if in_folders { "log/access.log" } else { "access.log" };
            if in_folders {
                // They are watched from the beginning.
                for folder in ["log", "other", "disk"] {
                    fs::create_dir_all(play.path(folder)).unwrap();
                    play.append(&format!("{folder}/access.log"), 1);
                }
            }
            play.append(log, 5);
            play.start();
            play.settle();
            for round in 1..=3 {
                let to = format!("{}access.log.{round}", if in_folders { "disk/" } else { "" });
                if !in_folders {
                    let elsewhere = play.path(&format!("disk/{round}"));
                    fs::write(&elsewhere, "").unwrap();
                    fs::write(play.path(&to), "").unwrap();
                    let Some(disk) = Disk::bind(&elsewhere, play.path(&to)) else { return };
                    bound.push(disk);
                }
                if stopped {
                    play.stop();
                }
                play.append(log, 2 + round);
                move_over(&mut play, log, &to, |play| {
                    // It has looked at all names when it has read this.
                    if in_folders {
                        play.append("other/new", 1);
                        play.rename("other/new", &format!("other/access.log-{}", play.written));
                        play.settle();
                    }
                });
                play.append(log, 3);
                let device = |name: &str| fs::metadata(play.path(name)).unwrap().dev();
                assert_ne!(device(&to), device(log), "{what}");
                play.start();
                play.settle();
            }
            play.stop();
            play.start();
            play.append(log, 1);
            play.settle();
            play.stop();
            play.expect_each_once(&what);
        }
    }
}

#[test]
fn a_log_that_is_restored_from_a_backup_goes_on_where_it_agrees() {
    let day = Duration::from_secs(86_400);
    for pattern in [EXACT, SIBLINGS_TOO] {
        // All of it, as another file, and with the time of the backup or of the restoring.
        let mut play = Play::new(pattern);
        play.append("access.log", 20);
        play.start();
        play.settle();
        for written in [std::time::SystemTime::now() - day, std::time::SystemTime::now()] {
            play.stop();
            let bytes = fs::read(play.path("access.log")).unwrap();
            put_back(&play, "access.log", &bytes, written);
            play.start();
            play.append("access.log", 2);
            play.settle();
        }
        play.stop();
        play.expect_each_once("restored as it was");

        // An older one, which then grows on otherwise.
        let mut play = Play::new(pattern);
        play.start();
        let mut backup = Vec::new();
        // Each reading leaves a mark.
        for round in 0..6 {
            play.append("access.log", 10);
            play.settle();
            if round == 3 {
                backup = fs::read(play.path("access.log")).unwrap();
            }
        }
        play.stop();
        put_back(&play, "access.log", &backup, std::time::SystemTime::now() - day);
        // Less than was lost, then more than that.
        for more in [3, 60] {
            play.append("access.log", more);
            play.start();
            play.settle();
            let last = format!("/files/{}.pdf", play.written - 1);
            wait_for("what came last", SOON, || play.endpoint.delivered().iter().any(|url| url.ends_with(&last)));
            play.stop();
        }
        // It agrees up to a mark, and that is where the backup ended.
        play.expect_each_once("restored, and older");
        let said = fs::read_to_string(play.sandbox.path("said")).unwrap();
        assert!(said.contains("reading on from where it agrees"), "{said}");
    }
}

#[test]
fn logrotate_itself() {
    let Some(logrotate) = installed("logrotate") else {
        assert!(std::env::var_os("CI").is_none(), "logrotate isn't installed");
        eprintln!("skipped: logrotate isn't installed");
        return;
    };
    for (name, directives) in [
        ("create", "create 0644"),
        ("create, compress", "create 0644\n compress"),
        ("create, delaycompress", "create 0644\n compress\n delaycompress"),
        ("dateext", "create 0644\n dateext\n dateformat -%Y%m%d-%s"),
        ("dateext, extension, compress", "create 0644\n dateext\n dateformat -%Y%m%d-%s\n extension .log\n compress"),
        ("nocreate", "nocreate"),
        ("copytruncate", "copytruncate"),
        ("copytruncate, compress", "copytruncate\n compress"),
        (
            "copytruncate, dateext, delaycompress",
            "copytruncate\n dateext\n dateformat -%Y%m%d-%s\n compress\n delaycompress",
        ),
    ] {
        let mut play = Play::new(EXACT);
        let log = play.path("access.log");
        play.sandbox
            .write("logrotate.conf", &format!("{} {{\n rotate 20\n nomail\n {directives}\n}}\n", log.display()));
        fs::set_permissions(play.sandbox.path("logrotate.conf"), fs::Permissions::from_mode(0o644)).unwrap();
        let mut day = 1_700_000_000_u64;
        let mut rotate = |play: &Play| {
            let mut command = Command::new(&logrotate);
            command.arg("-f").arg("-s").arg(play.sandbox.path("logrotate.state"));
            let output = command.arg(play.sandbox.path("logrotate.conf")).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            // Dated names are by the second: each rotation has another.
            for entry in fs::read_dir(play.path("")).unwrap().flatten() {
                let old = entry.file_name().into_string().unwrap();
                if let Some(at) = old.find("-202") {
                    day += 1;
                    let rest = old[at + 10..].trim_start_matches(|c: char| c.is_ascii_digit());
                    if !old.contains("-1970") {
                        fs::rename(entry.path(), play.path(&format!("{}-1970{day}{rest}", &old[..at]))).unwrap();
                    }
                }
            }
        };
        play.append("access.log", 5);
        play.start();
        play.settle();
        // While running.
        for _ in 0..2 {
            play.append("access.log", 3);
            rotate(&play);
            play.append("access.log", 3);
            play.settle();
        }
        // While stopped, once and twice.
        for times in [1, 2] {
            play.stop();
            play.append("access.log", 3);
            for _ in 0..times {
                rotate(&play);
                play.append("access.log", 4);
            }
            play.start();
            play.settle();
        }
        play.stop();
        play.expect_each_once(name);
    }
}

#[test]
fn with_more_logs_than_may_be_open_some_wait_and_none_is_lost() {
    let (sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
    sandbox.configure(endpoint.port, &SITE.replace("access.log", "*.log"));
    fs::create_dir_all(sandbox.path("logs")).unwrap();
    for n in 0..60 {
        sandbox.write(&format!("logs/{n:02}.log"), &combined("192.0.2.1", n, &format!("/files/{n}.pdf")));
    }
    let bare = sandbox.silktail();
    let mut command = std::process::Command::new("sh");
    // Half of so few are spared for what else the program does.
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]).arg(bare.get_program()).args(bare.get_args()).arg("run");
    for (name, value) in bare.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let said = sandbox.path("said");
    let mut child = command.stderr(fs::File::create(&said).unwrap()).spawn().unwrap();
    endpoint.wait_delivered(32);
    wait_for("a word on the limit", SOON, || fs::read_to_string(&said).unwrap().contains("raise LimitNOFILE"));
    assert_eq!(endpoint.delivered().len(), 32);
    // Room comes with each log that goes.
    for n in 0..32 {
        fs::remove_file(sandbox.path(&format!("logs/{n:02}.log"))).unwrap();
    }
    endpoint.wait_delivered(60);
    common::signal(&child, rustix::process::Signal::TERM);
    assert!(common::wait_with_deadline(&mut child, SOON).unwrap().success());
    let mut delivered = endpoint.delivered();
    delivered.dedup();
    assert_eq!(delivered.len(), 60, "each once");
}

#[test]
fn a_log_that_is_truncated_and_then_renamed_or_compressed_is_read_once() {
    for (pattern, packed) in [(EXACT, false), (SIBLINGS_TOO, false), (EXACT, true), (SIBLINGS_TOO, true)] {
        let mut play = Play::new(pattern);
        play.append("access.log", 5);
        play.start();
        play.settle();
        // None of it is seen before all of it has happened.
        let signal = |play: &Play, which| play.daemon.as_ref().unwrap().signal(which);
        signal(&play, rustix::process::Signal::STOP);
        play.copy_and_truncate("access.log.2");
        play.append("access.log", if packed { 3 } else { 0 });
        play.rename("access.log", "access.log.1");
        play.append("access.log", 2);
        if packed {
            play.gzip("access.log.1", "access.log.1.gz");
        }
        signal(&play, rustix::process::Signal::CONT);
        play.settle();
        play.stop();
        play.start();
        play.append("access.log", 1);
        play.settle();
        play.stop();
        play.expect_each_once(pattern);
    }
}

#[test]
fn a_server_that_writes_on_to_a_log_that_was_let_go_is_still_heard() {
    for stopped in [false, true] {
        let mut play = Play::new(EXACT);
        play.append("access.log", 5);
        play.start();
        play.settle();
        play.rename("access.log", "access.log.1");
        play.append("access.log", 2);
        play.settle();
        // Long downloads end one after the other, each in the log that their process has open.
        for _ in 0..2 {
            let pid = play.daemon.as_ref().unwrap().pid();
            wait_for("the rotated log is let go", SOON, || !holds_open(pid, "access.log.1"));
            if stopped {
                play.stop();
            }
            play.append("access.log.1", 1);
            play.start();
            play.settle();
        }
        play.stop();
        play.expect_each_once(if stopped { "stopped" } else { "running" });
    }
}

#[test]
fn a_log_is_followed_under_its_name_at_once_however_busy_it_is() {
    let mut play = Play::new(EXACT);
    play.append("access.log", 5);
    play.start();
    play.settle();
    play.rename("access.log", "access.log.1");
    let before = play.endpoint.delivered().len();
    // It never falls silent, until a line of it has come.
    wait_for("a line of the new log", SOON, || {
        play.append("access.log", 1);
        play.endpoint.delivered().len() > before
    });
    play.settle();
    play.stop();
    play.expect_each_once("busy");
}

#[test]
fn a_log_that_nobody_tells_of_is_found_beside_one_that_is_never_silent() {
    let mut play = Play::new("*/access.log");
    for name in ["busy", "late"] {
        fs::create_dir(play.path(name)).unwrap();
    }
    play.append("busy/access.log", 5);
    play.start();
    play.settle();
    // Its directory isn't watched, for there was no log in it.
    let late = play.written;
    play.append("late/access.log", 1);
    let late = format!("/files/{late}.pdf");
    wait_for("the late log's line", SOON, || {
        play.append("busy/access.log", 1);
        play.endpoint.delivered().iter().any(|url| url.ends_with(&late))
    });
    play.settle();
    play.stop();
    play.expect_each_once("beside a busy log");
}

#[test]
fn sites_that_name_one_file_differently_share_it() {
    let link = |play: &Play| symlink(play.path("access.log"), play.path("link.log")).unwrap();
    let hard = |play: &Play| fs::hard_link(play.path("access.log"), play.path("link.log")).unwrap();
    for make in [&link as &dyn Fn(&Play), &hard] {
        let mut play = Play::new(EXACT);
        let site = |name: &str, log: &str| {
            let hosts = format!("hosts = [\"{name}.example.org\"]\nformat = \"vhost_combined\"\n");
            let site = SITE.replace("\"docs\"", &format!("\"{name}\"")).replace("access.log", log) + &hosts;
            site.replace("https://docs", &format!("https://{name}"))
        };
        play.sandbox.configure(play.endpoint.port, &(site("docs", "access.log") + &site("shop", "link.log")));
        let line = |host: &str, n: u32| format!("{host}.example.org:443 {}", lines(n..n + 1));
        let both = |n: u32| line("docs", n) + &line("shop", n);
        play.append_bytes("access.log", both(0).as_bytes());
        make(&play);
        play.start();
        play.endpoint.wait_delivered(2);
        play.append_bytes("access.log", both(1).as_bytes());
        play.endpoint.wait_delivered(4);
        play.daemon.as_ref().unwrap().hang_up();
        wait_for("the reload", SOON, || play.daemon.as_ref().unwrap().stderr().contains("by the new configuration"));
        play.append_bytes("access.log", both(2).as_bytes());
        play.endpoint.wait_delivered(6);
        play.stop();
        play.append_bytes("access.log", both(3).as_bytes());
        play.start();
        play.endpoint.wait_delivered(8);
        play.stop();
        let mut want: Vec<String> = urls(0..4);
        want.extend(urls(0..4).iter().map(|url| url.replace("//docs", "//shop")));
        want.sort();
        assert_eq!(play.endpoint.delivered(), want);
    }
}

#[test]
fn a_log_that_is_replaced_by_a_longer_copy_of_itself_goes_on_in_it() {
    let mut play = Play::new(EXACT);
    play.append("brought", 5);
    fs::copy(play.path("brought"), play.path("access.log")).unwrap();
    play.start();
    play.settle();
    // As rsync does.
    for _ in 0..3 {
        play.append("brought", 3);
        fs::copy(play.path("brought"), play.path(".access.log.part")).unwrap();
        play.rename(".access.log.part", "access.log");
        play.settle();
    }
    play.stop();
    play.append("brought", 3);
    fs::copy(play.path("brought"), play.path(".access.log.part")).unwrap();
    play.rename(".access.log.part", "access.log");
    play.start();
    play.settle();
    play.stop();
    play.expect_each_once("replaced");
}

#[test]
fn a_log_that_came_and_went_under_a_glob_while_nobody_looked_is_read() {
    // A number may be the log's own.
    for name in ["new.log", "new-8080.log", "new-1.log"] {
        let mut play = Play::new("*.log");
        play.append_bytes("old.log.1", lines(900..905).as_bytes());
        was_there(&play.path("old.log.1"));
        play.append("access.log", 5);
        play.start();
        play.settle();
        play.stop();
        play.append(name, 5);
        play.rename(name, &format!("{name}.1"));
        play.start();
        play.settle();
        play.append(name, 1);
        play.settle();
        play.stop();
        play.expect_each_once(name);
        // A backfill takes what lies there all the same.
        play.sandbox.run(&["backfill", "--yes"]).expect_code(0);
        let old: Vec<String> = urls(900..905);
        let got = play.endpoint.delivered();
        assert!(old.iter().all(|url| got.contains(url)) && got.len() == 16, "{got:#?}");
    }
}

#[test]
fn a_log_that_was_waited_for_and_came_and_went_while_nobody_looked_is_read() {
    for (pattern, is_there_again) in [("late.log", false), ("late.log", true), ("lat*.log", true)] {
        let mut play = Play::new(pattern);
        play.start();
        wait_for("it waits", SOON, || play.daemon.as_ref().unwrap().stderr().contains("ready"));
        play.stop();
        play.append("late.log", 5);
        play.rename("late.log", "late.log.1");
        if is_there_again {
            play.append("late.log", 2);
        }
        play.start();
        play.settle();
        play.append("late.log", 1);
        play.settle();
        play.stop();
        play.expect_each_once(&format!("{pattern}, {is_there_again}"));
    }
}

#[test]
fn a_log_that_is_rotated_and_then_has_another_path_is_read_on() {
    for start in ["beginning", "end"] {
        let mut play = Play::new(EXACT);
        play.start();
        play.append("access.log", 5);
        play.settle();
        play.stop();
        play.append("access.log", 3);
        play.rename("access.log", "access.log.1");
        play.append("access.log", 2);
        // Not the log's: it was there before.
        play.append_bytes("access.log.2", lines(900..905).as_bytes());
        was_there(&play.path("access.log.2"));
        // Another machine, or another name for the directory.
        fs::rename(play.sandbox.path("logs"), play.sandbox.path("moved")).unwrap();
        let config = fs::read_to_string(play.sandbox.path("config.toml")).unwrap();
        let config =
            config.replace("/logs/", "/moved/").replace("start = \"beginning\"", &format!("start = \"{start}\""));
        play.sandbox.write("config.toml", &config);
        play.start();
        play.settle();
        play.stop();
        play.expect_each_once(start);
    }
}

#[test]
fn one_line_makes_no_other_format_of_a_new_log() {
    // A failed login's name is logged as it was sent; the others are what a rotation or a server may begin with.
    let crafted = combined("203.0.113.9", 0, "/index.html").replace(" - - [", " - x 192.0.2.9 - y [");
    for first in [crafted.as_str(), "5 \"-\" \"Firefox\"\n", "{\"level\":\"info\",\"msg\":\"serving\"}\n"] {
        for restarts in [false, true] {
            let mut play = Play::new(EXACT);
            play.append("access.log", 12);
            play.start();
            play.settle();
            play.rename("access.log", "access.log.1");
            play.append_bytes("access.log", first.as_bytes());
            let said = || play.daemon.as_ref().unwrap().stderr();
            wait_for("the new log", SOON, || said().matches("following file").count() == 2);
            if restarts {
                play.stop();
                play.start();
            }
            play.append("access.log", 5);
            play.settle();
            play.append("access.log", 20);
            play.settle();
            play.stop();
            play.expect_each_once(first);
        }
    }
    // Without a log before, more lines tell.
    let mut play = Play::new(EXACT);
    play.append_bytes("access.log", crafted.as_bytes());
    play.start();
    wait_for("the log", SOON, || play.daemon.as_ref().unwrap().stderr().contains("format=\"vhost_combined\""));
    play.append("access.log", 20);
    play.settle();
    play.stop();
    play.expect_each_once("nothing before");
    // And where the format is another from then on, the lines that there are do.
    let mut play = Play::new(EXACT);
    let site = SITE.replace("logs =", "hosts = [\"docs.example.org\"]\nlogs =");
    play.sandbox.configure(play.endpoint.port, &site);
    play.append("access.log", 12);
    play.start();
    play.settle();
    play.rename("access.log", "access.log.1");
    let others = |range: std::ops::Range<u32>| -> String {
        range.map(|n| format!("{}.example.org:443 {}", ["docs", "shop"][n as usize % 2], lines(n..n + 1))).collect()
    };
    play.append_bytes("access.log", others(12..40).as_bytes());
    let mut want: Vec<String> =
        urls(0..12).into_iter().chain((12..40).step_by(2).flat_map(|n| urls(n..n + 1))).collect();
    want.sort();
    play.endpoint.wait_delivered(want.len());
    play.stop();
    assert_eq!(play.endpoint.delivered(), want);
}

/// Waits until a file is older than the clock of file systems may be behind.
fn was_there(path: &Path) {
    let made = fs::metadata(path).unwrap().created().unwrap();
    common::wait_for("a file to be older", SOON, || made.elapsed().is_ok_and(|ago| ago > Duration::from_millis(50)));
}

#[test]
fn other_logs_beside_it_are_not_taken_for_rotated_ones() {
    for (log, other) in [
        ("example.com", "example.com-ssl_log"),
        ("example.com", "example.com.au"),
        ("access.log", "access.log.json"),
        // By its name it may have been rotated; but it was there before.
        ("access.log", "access.log.2"),
        ("access.log", "access.2.log"),
        ("access.log", "access-8080.log"),
    ] {
        let mut play = Play::new(log);
        play.append(log, 5);
        play.append_bytes(other, lines(900..905).as_bytes());
        was_there(&play.path(other));
        play.start();
        play.settle();
        let rotated = format!("{log}.1");
        play.rename(log, &rotated);
        play.append_bytes(other, lines(905..910).as_bytes());
        play.append(log, 2);
        play.settle();
        play.stop();
        play.append_bytes(other, lines(910..915).as_bytes());
        play.append(&rotated, 1);
        play.append(log, 2);
        play.start();
        play.settle();
        play.stop();
        play.expect_each_once(other);
    }
}

#[test]
fn what_lay_beside_a_log_before_and_what_is_cut_out_of_it_is_not_read() {
    let mut play = Play::new(EXACT);
    play.append_bytes("access.log.1", lines(900..905).as_bytes());
    play.append("access.log", 5);
    was_there(&play.path("access.log.1"));
    play.start();
    play.settle();
    // An old process of the server still has it open.
    play.append_bytes("access.log.1", lines(905..906).as_bytes());
    for name in ["access.log.old", "access.log.bak", "access.log.1.txt", "access-10.log"] {
        play.append_bytes(name, lines(0..3).as_bytes());
    }
    play.append("access.log", 1);
    play.settle();
    play.rename("access.log.1", "access.log.2");
    play.rename("access.log", "access.log.1");
    play.append("access.log", 1);
    play.settle();
    play.stop();
    play.append_bytes("access.log.2", lines(906..907).as_bytes());
    play.start();
    play.append("access.log", 1);
    play.settle();
    play.stop();
    play.expect_each_once("what was there before");
}

#[test]
fn what_is_old_stays_unread_at_later_starts_and_where_it_could_not_be_read_at_first() {
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for (pattern, hidden, restarts) in
        [(SIBLINGS_TOO, false, true), (EXACT, true, false), (EXACT, true, true), ("*.log", true, true)]
    {
        let what = format!("{pattern}, hidden {hidden}, restarts {restarts}");
        let mut play = Play::new(pattern);
        play.sandbox.run_as = (rustix::process::geteuid().is_root()).then_some(NOBODY);
        let config = fs::read_to_string(play.sandbox.path("config.toml")).unwrap();
        play.sandbox.write("config.toml", &config.replace("start = \"beginning\"", "start = \"end\""));
        play.append_bytes("access.log.2", lines(900..905).as_bytes());
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(100_000);
        fs::File::options().append(true).open(play.path("access.log.2")).unwrap().set_modified(long_ago).unwrap();
        play.gzip("access.log.2", "access.log.2.gz");
        play.append_bytes("access.log", lines(905..910).as_bytes());
        if hidden {
            mode(&play.path("access.log"), 0o000);
            play.start();
            wait_for("a word on it", SOON, || play.daemon.as_ref().unwrap().stderr().contains("can't read file"));
            if restarts {
                play.stop();
            }
            mode(&play.path("access.log"), 0o644);
        }
        play.start();
        wait_for("it is followed", SOON, || play.daemon.as_ref().unwrap().stderr().contains("following file"));
        play.append("access.log", 2);
        play.settle();
        for _ in 0..2 {
            play.stop();
            play.append("access.log", 1);
            play.start();
            play.append("access.log", 1);
            play.settle();
        }
        play.stop();
        play.expect_each_once(&what);
    }
}

#[test]
fn a_log_that_is_edited_while_it_is_followed_goes_on_behind_what_was_read() {
    for pattern in [EXACT, "*.log"] {
        let mut play = Play::new(pattern);
        play.append("access.log", 100);
        play.start();
        play.settle();
        for number in [5, 60, 98] {
            // As `sed -i` does it: another file, without one line, under the same name.
            let log = fs::read_to_string(play.path("access.log")).unwrap();
            let kept = log.lines().filter(|line| !line.contains(&format!("/files/{number}.pdf")));
            fs::write(play.path("sedXYZ"), kept.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
            play.rename("sedXYZ", "access.log");
            play.append("access.log", 3);
            play.settle();
        }
        play.stop();
        play.start();
        play.append("access.log", 1);
        play.settle();
        play.stop();
        play.expect_each_once(pattern);
    }
}

/// A log as scripts leave it that make addresses anonymous, or take one visitor's lines out.
fn changed(log: &str, how: &str) -> String {
    let lines = log.lines().filter(|line| how != "taken out" || !line.starts_with("192.0.2.3 "));
    let anonymous = |line: &str| match line.split_once(' ') {
        Some((_, rest)) if how == "masked" => format!("192.0.2.0 {rest}\n"),
        Some((_, rest)) if how == "all alike" => format!("127.0.0.1 {rest}\n"),
        _ => format!("{line}\n"),
    };
    lines.map(anonymous).collect()
}

#[test]
fn a_log_that_is_changed_before_all_of_it_is_sent_loses_nothing() {
    for while_stopped in [false, true] {
        let mut play = Play::new(EXACT);
        play.append("access.log", 40);
        play.start();
        play.settle();
        play.endpoint.set_script(|_, _| Answer::Status(503));
        play.append("access.log", 10);
        let said = |play: &Play, what: &str| play.daemon.as_ref().unwrap().stderr().contains(what);
        wait_for("a word on the outage", SOON, || said(&play, "endpoint unavailable"));
        if while_stopped {
            play.stop();
        }
        let log = fs::read_to_string(play.path("access.log")).unwrap();
        play.rename("access.log", "access.log.1");
        play.append("access.log", 1);
        fs::write(play.path("changed"), changed(&log, "masked")).unwrap();
        play.rename("changed", "access.log.1");
        if !while_stopped {
            wait_for("it to be seen", SOON, || said(&play, "file renamed"));
            play.stop();
        }
        play.endpoint.set_script(|_, _| Answer::Status(200));
        play.start();
        play.settle();
        play.stop();
        assert_eq!(play.distinct(), 51, "some may come twice, none is lost");
    }
}

#[test]
fn a_rotated_log_that_was_made_anonymous_is_not_read_again() {
    // What was there before it was followed stays unread in what becomes of it, too.
    let mut play = Play::new(EXACT);
    let config = fs::read_to_string(play.sandbox.path("config.toml")).unwrap();
    play.sandbox.write("config.toml", &config.replace("start = \"beginning\"", "start = \"end\""));
    play.append_bytes("access.log", lines(900..1_300).as_bytes());
    play.start();
    wait_for("it to be followed", SOON, || play.daemon.as_ref().unwrap().stderr().contains("ready"));
    play.append("access.log", 5);
    play.settle();
    play.rename("access.log", "access.log.1");
    play.append("access.log", 5);
    play.settle();
    let log = fs::read_to_string(play.path("access.log.1")).unwrap();
    fs::write(play.path("changed"), changed(&log, "masked")).unwrap();
    play.rename("changed", "access.log.1");
    play.gzip("access.log.1", "access.log.1.gz");
    play.stop();
    play.start();
    play.append("access.log", 1);
    play.settle();
    play.stop();
    play.expect_each_once("start = \"end\"");
    for pattern in [EXACT, SIBLINGS_TOO] {
        for how in ["masked", "all alike", "taken out"] {
            for (when, stopped, in_place, packed) in [
                ("while it runs", false, false, false),
                ("in place", false, true, false),
                ("and packed", false, false, true),
                ("while it is stopped, with lines that nobody has read", true, false, false),
            ] {
                // Where lines are taken out in place, it may as well be another log that begins as the one before.
                if in_place && how == "taken out" {
                    continue;
                }
                let what = format!("{pattern}, {how}, {when}");
                let mut play = Play::new(pattern);
                play.append("access.log", 40);
                play.start();
                play.settle();
                if stopped {
                    play.stop();
                    play.append("access.log", 5);
                }
                play.rename("access.log", "access.log.1");
                play.append("access.log", 5);
                play.settle();
                let log = fs::read_to_string(play.path("access.log.1")).unwrap();
                if in_place {
                    fs::write(play.path("access.log.1"), changed(&log, how)).unwrap();
                    let said = || play.daemon.as_ref().unwrap().stderr();
                    wait_for("a word on it", SOON, || said().contains("file truncated or overwritten"));
                } else {
                    fs::write(play.path("changed"), changed(&log, how)).unwrap();
                    play.rename("changed", "access.log.1");
                }
                if packed {
                    play.gzip("access.log.1", "access.log.1.gz");
                }
                play.start();
                play.settle();
                for _ in 0..2 {
                    play.stop();
                    play.start();
                    play.append("access.log", 1);
                    play.settle();
                }
                play.stop();
                play.expect_each_once(&what);
                play.sandbox.run(&["backfill", "--yes"]).expect_code(0);
                play.expect_each_once(&format!("{what}, and a backfill"));
            }
        }
    }
}
