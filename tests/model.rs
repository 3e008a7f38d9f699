//! A log's life as generated actions, against a toy model of what must arrive: lost 0, doubled at most what was in
//! flight at each SIGKILL.
//!
//! `SILKTAIL_MODEL_COUNT=1000 cargo test --test model` plays more of them, half with fixed and half with new seeds;
//! `SILKTAIL_MODEL_SEED` plays the one that a failure names. On two idle cores a hundred take a minute.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::clock::Clock;
use common::{Answer, Daemon, Endpoint, Sandbox, combined};
use rustix::process::Signal;

const IN_FLIGHT: usize = 4;
const EVENTS: usize = 5;

/// How long what must come may take: a poll or two, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who runs the program where the tests run as root and something is to be closed to it.
const NOBODY: u32 = 65_534;

/// Numbers that look like chance and are the same for the same seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Append(u32),
    /// The beginning of a line; its rest comes with what is written next.
    Half,
    /// Renamed; the server writes a few lines to the old file before it opens a new one.
    Rename(u32),
    /// Renamed, and nothing has that name until something is written.
    RenameOnly,
    RenameAndCompress(Packing),
    /// As `delaycompress` does: the newest rotated file that isn't packed yet.
    Compress(Packing),
    CopyTruncate,
    /// Two rotations, with lines in the log that nobody may ever see under its name.
    Twice(u32),
    /// Cut to nothing in place, with no copy; the server then writes a few lines.
    Truncate(u32),
    /// The log is removed; the server writes a few lines to the old file before it opens a new one, and then some to that.
    Delete(u32, u32),
    /// The oldest rotated file is removed.
    Expire,
    /// The log can't be read by the program, until it can.
    Hide,
    /// The newest rotated file can't.
    HideRotated,
    Show,
    /// The wall clock is set by so many seconds, all of a life in one direction.
    Jump(i64),
    Stop,
    Start,
    Kill,
    /// A backfill of the same logs, beside whatever else is done: in some lives.
    Backfill,
    StopBackfill,
    KillBackfill,
    /// A new log of so many lines that a backfill is reading when the program starts to follow it.
    Overlap(u32),
    /// SIGHUP with a configuration that has changed, or is broken for now.
    Reload(bool),
    Endpoint(Mood),
    /// Waits until all is delivered, if it can be.
    Settle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Up,
    Unavailable,
    HangsUp,
    Withholds,
    Flaky,
    Slow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Packing {
    fn suffix(self) -> &'static str {
        match self {
            Packing::Gzip => ".gz",
            Packing::Zstd => ".zst",
            Packing::Xz => ".xz",
            Packing::Bzip2 => ".bz2",
        }
    }

    fn pack(self, bytes: &[u8], to: &mut fs::File) {
        match self {
            Packing::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(to, flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap();
            }
            Packing::Zstd => zstd::stream::copy_encode(bytes, to, 1).unwrap(),
            Packing::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(to, 1);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap();
            }
            Packing::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(to, bzip2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap();
            }
        }
    }
}

const PACKINGS: [Packing; 4] = [Packing::Gzip, Packing::Zstd, Packing::Xz, Packing::Bzip2];

/// An action of a life with backfills. What only one of two has claimed and is then removed is lost with whoever is killed,
/// and a rotated file's last line is taken to be whole.
fn action_beside_backfills(chance: &mut Chance) -> Action {
    loop {
        let action = match chance.below(8) {
            0 => Action::Backfill,
            1 => chance.pick(&[Action::Backfill, Action::StopBackfill, Action::KillBackfill]),
            2 => Action::Overlap(20 + chance.below(60) as u32),
            _ => action(chance),
        };
        if !matches!(action, Action::Half | Action::Truncate(_) | Action::Delete(..) | Action::Expire) {
            return action;
        }
    }
}

fn action(chance: &mut Chance) -> Action {
    match chance.below(120) {
        0..=29 => Action::Append(1 + chance.below(40) as u32),
        30..=34 => Action::Half,
        35..=41 => Action::Rename(chance.below(4) as u32),
        42..=44 => Action::RenameOnly,
        45..=49 => Action::RenameAndCompress(chance.pick(&PACKINGS)),
        50..=51 => Action::Compress(chance.pick(&PACKINGS)),
        52..=57 => Action::CopyTruncate,
        58..=61 => Action::Twice(1 + chance.below(5) as u32),
        62..=64 => Action::Truncate(chance.below(40) as u32),
        65..=68 => Action::Delete(chance.below(4) as u32, chance.below(20) as u32),
        69 => Action::Expire,
        70..=72 => Action::Hide,
        73 => Action::HideRotated,
        74..=77 => Action::Show,
        78..=81 => Action::Jump(chance.pick(&[1, 2, 90, 3_600, 86_400, 10 * 86_400])),
        82..=86 => Action::Stop,
        87..=96 => Action::Start,
        97..=101 => Action::Kill,
        102..=104 => Action::Reload(chance.below(3) == 0),
        105..=113 => {
            let moods = [Mood::Up, Mood::Unavailable, Mood::HangsUp, Mood::Withholds, Mood::Flaky, Mood::Slow];
            Action::Endpoint(chance.pick(&moods))
        }
        _ => Action::Settle,
    }
}

/// What the toy model knows of a file.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The events whose whole lines are in it.
    lines: Vec<u32>,
    /// Whether the program can't open it.
    is_hidden: bool,
}

struct Life {
    sandbox: Sandbox,
    endpoint: Endpoint,
    daemon: Option<Daemon>,
    /// Whether this life has backfills, and the one that runs.
    has_backfills: bool,
    backfill: Option<Child>,
    /// Lines that are complete, or whose rest is in `rest`.
    written: u32,
    rest: String,
    /// What lies in the directory, by name.
    files: BTreeMap<String, Known>,
    /// Lines of deleted files that the program holds open: they are gone when it ends.
    held: BTreeSet<u32>,
    /// Lines that were gone before anybody can be sure that they were read: they may arrive, and needn't.
    excused: BTreeSet<u32>,
    mood: Mood,
    kills: usize,
    lines_of_one: u32,
    /// Whether the program runs as somebody to whom a file can be closed.
    can_hide: bool,
    clock: Option<Clock>,
    /// Whether the clock is set back, or else forward: back for a while and put right again before anybody has looked
    /// leaves no trace.
    goes_back: bool,
    /// Bytes that the program had said before it was started last.
    said_before: usize,
}

const LOG: &str = "access.log";

fn url(n: u32) -> String {
    format!("https://docs.example.org/files/{n}.pdf")
}

impl Life {
    fn new(chance: &mut Chance, has_backfills: bool) -> Self {
        let (mut sandbox, endpoint) = (Sandbox::new(), Endpoint::accepting());
        let pattern = chance.pick(&["access.log", "access.log*"]);
        let format = chance.pick(&["combined", "auto"]);
        // With none, a line that is read twice counts twice; with one, a line that is read again must not be its own repeat.
        let window = chance.pick(&["0s", "30s"]);
        let site = format!(
            "[[site]]\nname = \"docs\"\nbase_url = \"https://docs.example.org\"\n\
             property_key = \"8bce2be8c07a84a70e7104634b42878b\"\n\
             logs = [\"LOGS/logs/{pattern}\"]\nformat = \"{format}\"\nrepeat_window = \"{window}\"\n"
        );
        let endpoint_keys = format!(
            "linger = \"{}\"\nretry_max = \"50ms\"\ntimeout = \"1s\"\n\
             max_in_flight = {IN_FLIGHT}\nmax_events = {EVENTS}",
            chance.pick(&["0s", "10ms", "40ms"])
        );
        sandbox.configure_with(endpoint.port, &endpoint_keys, &site);
        fs::create_dir(sandbox.path("logs")).unwrap();
        let lines_of_one = chance.pick(&[1, 3, 8]);
        // Nothing is closed to root: some of the lives are an ordinary user's.
        let is_root = rustix::process::geteuid().is_root();
        sandbox.run_as = (is_root && chance.below(4) == 0).then_some(NOBODY);
        let can_hide = !is_root || sandbox.run_as.is_some();
        let clock = Clock::new(&sandbox);
        let goes_back = chance.below(2) == 0;
        Self {
            sandbox,
            endpoint,
            daemon: None,
            has_backfills,
            backfill: None,
            written: 0,
            rest: String::new(),
            files: BTreeMap::new(),
            held: BTreeSet::new(),
            excused: BTreeSet::new(),
            mood: Mood::Up,
            kills: 0,
            lines_of_one,
            can_hide,
            clock,
            goes_back,
            said_before: 0,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path("logs").join(name)
    }

    /// One visitor's lines follow each other on one page, so that they may travel together.
    fn line(&self, n: u32) -> String {
        let visitor = n / self.lines_of_one;
        let ip = format!("192.0.{}.{}", visitor / 250 % 250, visitor % 250);
        let noise = if n.is_multiple_of(3) { combined(&ip, n, "/index.html") } else { String::new() };
        let page = "https://docs.example.org/manuals.html";
        noise + &common::combined_by(&ip, n, &format!("/files/{n}.pdf"), page, common::BROWSER)
    }

    /// The next lines, after the rest of the one that is half written; and which are whole with that.
    fn next_lines(&mut self, count: u32) -> (String, std::ops::Range<u32>) {
        let first = self.written - u32::from(!self.rest.is_empty());
        let mut text = std::mem::take(&mut self.rest);
        for n in self.written..self.written + count {
            text += &self.line(n);
        }
        self.written += count;
        (text, first..self.written)
    }

    fn write(&mut self, name: &str, count: u32) {
        let (text, whole) = self.next_lines(count);
        self.files.entry(name.to_owned()).or_default().lines.extend(whole);
        self.write_bytes(name, text.as_bytes());
    }

    fn write_bytes(&self, name: &str, bytes: &[u8]) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(bytes).unwrap();
    }

    fn move_to(&mut self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
        let known = self.files.remove(from).unwrap();
        self.files.insert(to.to_owned(), known);
    }

    /// Rotated files by age, newest first.
    fn rotated(&self) -> Vec<String> {
        let number = |name: &str| name.split('.').nth(2).and_then(|number| number.parse::<u32>().ok());
        let mut names: Vec<(u32, String)> =
            self.files.keys().filter_map(|name| Some((number(name)?, name.clone()))).collect();
        names.sort();
        names.into_iter().map(|(_, name)| name).collect()
    }

    /// Each rotated log goes one number up.
    fn shift(&mut self) {
        for name in self.rotated().into_iter().rev() {
            let mut parts: Vec<String> = name.split('.').map(str::to_owned).collect();
            parts[2] = (parts[2].parse::<u32>().unwrap() + 1).to_string();
            self.move_to(&name, &parts.join("."));
        }
    }

    /// `false`: there is nothing to rotate.
    fn rename(&mut self) -> bool {
        if !self.files.contains_key(LOG) {
            return false;
        }
        self.shift();
        self.move_to(LOG, "access.log.1");
        true
    }

    fn compress(&mut self, name: &str, packing: Packing) {
        let (plain, packed) = (self.path(name), format!("{name}{}", packing.suffix()));
        let bytes = fs::read(&plain).unwrap();
        let meta = fs::metadata(&plain).unwrap();
        let mut file = fs::File::create(self.path(&packed)).unwrap();
        file.set_permissions(meta.permissions()).unwrap();
        packing.pack(&bytes, &mut file);
        file.set_modified(meta.modified().unwrap()).unwrap();
        fs::remove_file(plain).unwrap();
        let known = self.files.remove(name).unwrap();
        self.files.insert(packed, known);
    }

    /// These lines are in no file any more.
    fn lose(&mut self, lines: impl IntoIterator<Item = u32>) {
        let delivered: BTreeSet<String> = self.endpoint.delivered().into_iter().collect();
        self.excused.extend(lines.into_iter().filter(|n| !delivered.contains(&url(*n))));
    }

    /// Whether the program has a file open: then it reads it to its end, whatever becomes of its name.
    fn is_held(&self, name: &str) -> bool {
        let Some(daemon) = &self.daemon else { return false };
        let inode = |path: PathBuf| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
        let wanted = inode(self.path(name));
        let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).into_iter().flatten().flatten();
        wanted.is_some() && open.into_iter().any(|entry| inode(entry.path()) == wanted)
    }

    /// Removes a file, into which the server may still write a few lines.
    fn remove(&mut self, name: &str, late: Option<u32>) {
        // It is open for a moment, too, when it has no whole line yet: who has sent of it, reads it. A rotated one may be a
        // copy that is just being compared.
        let delivered = self.distinct();
        let is_read = self.files[name].lines.iter().any(|n| delivered.contains(&url(*n)));
        let is_held = name == LOG && is_read && self.is_held(name);
        let mut server = fs::OpenOptions::new().append(true).open(self.path(name)).unwrap();
        fs::remove_file(self.path(name)).unwrap();
        let mut lines = self.files.remove(name).unwrap().lines;
        if let Some(late) = late {
            let (text, whole) = self.next_lines(late);
            server.write_all(text.as_bytes()).unwrap();
            lines.extend(whole);
        }
        if is_held {
            self.held.extend(lines);
        } else {
            self.lose(lines);
        }
    }

    fn set_mode(&mut self, name: &str, is_hidden: bool) {
        if !self.can_hide {
            return;
        }
        let Some(known) = self.files.get_mut(name) else { return };
        known.is_hidden = is_hidden;
        let mode = if is_hidden { 0o000 } else { 0o644 };
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// With the program goes what only it had.
    fn ended(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.lose(held);
    }

    fn set_mood(&mut self, mood: Mood) {
        self.mood = mood;
        self.endpoint.set_script(move |nth, _| match mood {
            Mood::Up => Answer::Status(200),
            Mood::Unavailable => Answer::Status(503),
            Mood::HangsUp => Answer::Close,
            Mood::Withholds => Answer::Withhold,
            Mood::Slow => Answer::Slow(200, Duration::from_millis(20)),
            Mood::Flaky => match nth % 7 {
                0 => Answer::Status(503),
                1 | 4 => Answer::Close,
                2 => Answer::Status(429),
                _ => Answer::Status(202),
            },
        });
    }

    fn reload(&self, is_broken: bool) {
        let Some(daemon) = &self.daemon else { return };
        // A signal that comes before the program's first instruction ends it as it ends any.
        common::wait_for("a sign of life", common::SOON, || daemon.stderr().len() > self.said_before);
        let path = self.sandbox.path("config.toml");
        let good = fs::read_to_string(&path).unwrap();
        if !is_broken {
            let (new, old) =
                if good.contains("max_line") { ("", "max_line = 5000\n") } else { ("max_line = 5000\n", "") };
            let start = "start = \"beginning\"\n";
            fs::write(&path, good.replace(&format!("{start}{old}"), &format!("{start}{new}"))).unwrap();
            daemon.hang_up();
            return;
        }
        let refused = || daemon.stderr().matches("configuration refused").count();
        let before = refused();
        fs::write(&path, format!("{good}\n[[site]]\nnam = 1\n")).unwrap();
        daemon.hang_up();
        common::wait_for("a word on the broken configuration", common::SOON, || refused() > before);
        fs::write(&path, good).unwrap();
    }

    fn distinct(&self) -> BTreeSet<String> {
        self.endpoint.delivered().into_iter().collect()
    }

    /// The whole lines that must arrive now or later: those that can still be found, or were read for certain.
    fn wanted(&self) -> BTreeSet<u32> {
        let whole = 0..self.written - u32::from(!self.rest.is_empty());
        whole.filter(|n| !self.excused.contains(n)).collect()
    }

    /// Waits until all lines that can be read have arrived; `false`: in vain.
    fn settle(&self) -> bool {
        let mut wanted = self.wanted();
        for known in self.files.values().filter(|known| known.is_hidden) {
            wanted.retain(|n| !known.lines.contains(n));
        }
        let wanted: BTreeSet<String> = wanted.into_iter().map(url).collect();
        let end = Instant::now() + PATIENCE;
        loop {
            if wanted.is_subset(&self.distinct()) {
                return true;
            }
            if Instant::now() > end {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Append(count) => self.write(LOG, count),
            Action::Half => {
                self.write(LOG, 0);
                let line = self.line(self.written);
                let (half, rest) = line.split_at(line.len() / 2);
                self.write_bytes(LOG, half.as_bytes());
                self.rest = rest.to_owned();
                self.written += 1;
            }
            Action::Rename(late) => {
                if self.rename() {
                    self.write("access.log.1", late);
                    self.write(LOG, 0);
                }
            }
            Action::RenameOnly => {
                if self.rename() {
                    self.write("access.log.1", 0);
                }
            }
            Action::RenameAndCompress(packing) => {
                if self.rename() {
                    self.write("access.log.1", 1);
                    self.write(LOG, 1);
                    self.compress("access.log.1", packing);
                }
            }
            Action::Compress(packing) => {
                // The server has let go of it: what was half written to the log is in the log.
                if let Some(name) = self.rotated().into_iter().find(|name| name.split('.').count() == 3) {
                    self.compress(&name, packing);
                }
            }
            Action::CopyTruncate => {
                self.write(LOG, 0);
                self.shift();
                fs::copy(self.path(LOG), self.path("access.log.1")).unwrap();
                fs::OpenOptions::new().append(true).open(self.path(LOG)).unwrap().set_len(0).unwrap();
                let known = self.files.get_mut(LOG).unwrap();
                let copy = Known { lines: std::mem::take(&mut known.lines), is_hidden: known.is_hidden };
                self.files.insert("access.log.1".to_owned(), copy);
            }
            Action::Twice(lines) => {
                for _ in 0..2 {
                    self.write(LOG, lines);
                    self.rename();
                    self.write(LOG, 0);
                }
            }
            Action::Truncate(lines) => {
                let Some(known) = self.files.get_mut(LOG) else { return true };
                let mut lost = std::mem::take(&mut known.lines);
                // The beginning of the unfinished line goes too, and its rest comes.
                lost.extend((!self.rest.is_empty()).then(|| self.written - 1));
                fs::OpenOptions::new().append(true).open(self.path(LOG)).unwrap().set_len(0).unwrap();
                self.lose(lost);
                self.write(LOG, lines);
            }
            Action::Delete(late, lines) => {
                if self.files.contains_key(LOG) {
                    self.remove(LOG, Some(late));
                    if lines > 0 {
                        self.write(LOG, lines);
                    }
                }
            }
            Action::Expire => {
                if let Some(oldest) = self.rotated().pop() {
                    self.remove(&oldest, None);
                }
            }
            Action::Hide => self.set_mode(LOG, true),
            Action::HideRotated => {
                if let Some(newest) = self.rotated().first() {
                    self.set_mode(newest, true);
                }
            }
            Action::Show => {
                let names: Vec<String> = self.files.keys().cloned().collect();
                names.iter().for_each(|name| self.set_mode(name, false));
            }
            Action::Jump(seconds) => {
                if let Some(clock) = &mut self.clock {
                    clock.jump(if self.goes_back { -seconds } else { seconds });
                }
            }
            Action::Stop => {
                if let Some(daemon) = self.daemon.take() {
                    // A signal that comes before the program's first instruction ends it as it ends any.
                    common::wait_for("a sign of life", common::SOON, || daemon.stderr().len() > self.said_before);
                    daemon.stop();
                    self.ended();
                }
            }
            Action::Start => {
                if self.daemon.is_none() {
                    let said = fs::metadata(self.sandbox.path("said")).map_or(0, |meta| meta.len());
                    self.said_before = usize::try_from(said).unwrap();
                    let started = self.sandbox.start_as("said", |command, _| {
                        if let Some(clock) = &self.clock {
                            clock.give_to(command);
                        }
                    });
                    self.daemon = Some(started);
                }
            }
            Action::Kill => {
                if let Some(daemon) = self.daemon.take() {
                    daemon.kill();
                    self.kills += 1;
                    self.ended();
                }
            }
            Action::Backfill => {
                if self.backfill.as_mut().is_none_or(|running| running.try_wait().unwrap().is_some()) {
                    let said = fs::OpenOptions::new().create(true).append(true).open(self.sandbox.path("backfills"));
                    let said = said.unwrap();
                    let mut command = self.sandbox.silktail();
                    command.args(["backfill", "--yes", "--progress", "off"]).stdin(Stdio::null());
                    command.stdout(said.try_clone().unwrap()).stderr(said);
                    self.backfill = Some(command.spawn().unwrap());
                }
            }
            Action::Overlap(count) => {
                self.act(Action::Stop);
                self.act(Action::Rename(0));
                let before = self.distinct().len();
                self.act(Action::Append(count));
                self.set_mood(Mood::Slow);
                self.act(Action::Backfill);
                let mut backfill = self.backfill.take().unwrap();
                common::wait_for("a backfill's first POSTs, or its end", PATIENCE, || {
                    self.distinct().len() > before || backfill.try_wait().unwrap().is_some()
                });
                self.backfill = Some(backfill);
                self.act(Action::Start);
                self.act(Action::Append(3));
            }
            Action::StopBackfill | Action::KillBackfill => {
                let running = self
                    .backfill
                    .take()
                    .and_then(|mut backfill| backfill.try_wait().unwrap().is_none().then_some(backfill));
                if let Some(mut backfill) = running {
                    // Before it hears signals a stop ends it as a kill does.
                    let signal = if action == Action::KillBackfill { Signal::KILL } else { Signal::INT };
                    common::signal(&backfill, signal);
                    common::wait_with_deadline(&mut backfill, PATIENCE).expect("a backfill stops");
                    self.kills += 1;
                }
            }
            Action::Reload(is_broken) => self.reload(is_broken),
            Action::Endpoint(mood) => self.set_mood(mood),
            Action::Settle => {
                // What a backfill has claimed is its, and it may be gone: there is a last one.
                return self.has_backfills
                    || self.daemon.is_none()
                    || !matches!(self.mood, Mood::Up | Mood::Slow | Mood::Flaky)
                    || self.settle();
            }
        }
        true
    }
}

/// What came of one life.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    events: usize,
    doubled: usize,
    kills: usize,
    /// Lines that were gone unread, as far as can be told, and that did not arrive.
    gone: usize,
}

fn live(seed: u64) -> Sum {
    let mut chance = Chance(seed);
    // By numbers of its own, so that those of older lives mean what they meant.
    let has_backfills = !REGRESSIONS.contains(&seed) && Chance(!seed).below(3) == 0;
    let mut life = Life::new(&mut chance, has_backfills);
    // What was rotated before the program ever looked was never its to follow.
    let mut actions = vec![Action::Append(3), Action::Start, Action::Settle];
    for _ in 0..6 + chance.below(16) {
        actions.push(if life.has_backfills { action_beside_backfills(&mut chance) } else { action(&mut chance) });
    }
    actions.extend([Action::Show, Action::Endpoint(Mood::Up), Action::Append(1), Action::Start]);
    actions.extend([Action::Settle, Action::Stop]);
    let failed = |what: &str, life: &Life| -> ! {
        let said = ["said", "backfills"].map(|said| fs::read_to_string(life.sandbox.path(said)).unwrap_or_default());
        let said = said.join("\n--- backfills\n");
        let got = life.distinct();
        let lost: Vec<u32> = life.wanted().into_iter().filter(|n| !got.contains(&url(*n))).collect();
        // Which answers each doubled event had, and when: those that came too late were none.
        let began = life.endpoint.posts().first().map(|post| post.at);
        let mut answers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for post in life.endpoint.posts() {
            let answer = format!("{:?} {:?}", began.map(|began| post.at - began).unwrap_or_default(), post.answer);
            post.urls().into_iter().for_each(|url| answers.entry(url).or_default().push(answer.clone()));
        }
        answers.retain(|url, _| life.endpoint.delivered().iter().filter(|other| *other == url).count() > 1);
        let (files, excused) = (&life.files, &life.excused);
        panic!(
            "{what}: SILKTAIL_MODEL_SEED={seed}\nlost {lost:?}\nexcused {excused:?}\ndoubled {answers:#?}\n\
             {actions:#?}\n{files:?}\n{said}"
        );
    };
    for action in &actions {
        if !life.act(*action) {
            failed(&format!("waited in vain at {action:?}"), &life);
        }
    }
    if life.has_backfills {
        if let Some(mut backfill) = life.backfill.take() {
            common::wait_with_deadline(&mut backfill, PATIENCE).expect("a backfill ends where the endpoint is up");
        }
        // The last ends what others have left; after it there is nothing to send.
        for nth in ["the last", "one after it"] {
            let before = life.endpoint.delivered().len();
            life.act(Action::Backfill);
            let mut backfill = life.backfill.take().unwrap();
            let ended = common::wait_with_deadline(&mut backfill, PATIENCE);
            if !ended.is_some_and(|ended| ended.success()) {
                failed(&format!("{nth} backfill ends {ended:?}"), &life);
            }
            if nth != "the last" && life.endpoint.delivered().len() != before {
                failed("a backfill after the last sends something", &life);
            }
        }
    }
    // Whatever would be sent twice is sent when all is read again.
    life.act(Action::Append(1));
    life.act(Action::Start);
    if !life.settle() {
        failed("waited in vain after a restart", &life);
    }
    life.act(Action::Stop);
    let got = life.distinct();
    let doubled = life.endpoint.delivered().len() - got.len();
    if doubled > life.kills * IN_FLIGHT * EVENTS {
        failed(&format!("{doubled} doubled after {} kills", life.kills), &life);
    }
    let known: BTreeSet<String> = (0..life.written).map(url).collect();
    if !got.is_subset(&known) {
        let foreign: Vec<_> = got.difference(&known).collect();
        failed(&format!("something arrived that was never written: {foreign:?}"), &life);
    }
    Sum { events: got.len(), doubled, kills: life.kills, gone: known.len() - got.len() }
}

#[test]
fn each_row_of_the_table_of_faults_is_a_test_and_each_test_a_row() {
    let sources = [
        include_str!("endpoint_faults.rs"),
        include_str!("rotation.rs"),
        include_str!("state_faults.rs"),
        include_str!("backfill_runs.rs"),
        include_str!("model.rs"),
    ];
    let mut tests: BTreeSet<&str> = sources
        .iter()
        .flat_map(|source| source.split("\n#[test]\nfn ").skip(1))
        .map(|rest| rest.split('(').next().unwrap())
        .collect();
    assert!(tests.remove("each_row_of_the_table_of_faults_is_a_test_and_each_test_a_row"));
    let table = include_str!("../docs/faults.md").lines().filter(|line| line.starts_with("| "));
    let rows: BTreeSet<&str> =
        table.filter_map(|line| line.trim_end_matches(" |").rsplit_once(" | `")?.1.strip_suffix('`')).collect();
    assert_eq!(rows, tests);
}

/// Lives that something was lost or doubled in, once: truncated, renamed, compressed and removed before anybody looked, or
/// renamed while the names were listed by a clock that had just been set, or packed into a file with the inode of a log that
/// was given up while empty, or cut and copied where nobody may read it. What older lives have found, by another choice of
/// actions, is in the tests of rotation.
const REGRESSIONS: [u64; 10] = [
    1_795_651_792_388_124,
    1_795_648_454_408_761,
    1_795_644_457_143_209,
    1_795_642_722_053_263,
    1_795_640_929_795_659,
    1_795_638_596_456_475,
    1_795_636_709_547_156,
    1_795_636_765_171_337,
    1_795_636_821_272_639,
    1_795_636_765_909_589,
];

#[test]
fn whatever_happens_to_log_program_and_endpoint_none_is_lost_and_hardly_any_doubled() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds: Vec<u64> = match number("SILKTAIL_MODEL_SEED") {
        Some(seed) => (seed..seed + number("SILKTAIL_MODEL_COUNT").unwrap_or(1)).collect(),
        None => {
            // Half of them new each time, so that every run tries something that none has tried.
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
            let count = number("SILKTAIL_MODEL_COUNT").unwrap_or(24);
            REGRESSIONS.into_iter().chain(1..=count / 2).chain(now..now + count.div_ceil(2)).collect()
        }
    };
    let (next, failures) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let sums = [const { AtomicU64::new(0) }; 4];
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match std::panic::catch_unwind(|| live(*seed)) {
                        Ok(Sum { events, doubled, kills, gone }) => {
                            for (sum, more) in sums.iter().zip([events, doubled, kills, gone]) {
                                sum.fetch_add(more as u64, Ordering::Relaxed);
                            }
                        }
                        Err(_) => drop(failures.fetch_add(1, Ordering::Relaxed)),
                    }
                }
            });
        }
    });
    let [events, doubled, kills, gone] = sums.map(AtomicU64::into_inner);
    let failures = failures.into_inner();
    eprintln!(
        "{} lives, {events} events, {kills} kills: {doubled} doubled; {gone} were gone unread; {failures} failed",
        seeds.len()
    );
    assert_eq!(failures, 0, "of {} lives", seeds.len());
}
