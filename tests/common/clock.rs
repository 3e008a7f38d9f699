//! A wall clock that can be set while the program runs; the times of the files it sees go by the same clock.
//!
//! It is a library in C, preloaded: what stands between a program and its clock can't be reached without `unsafe`.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use super::{SOON, Sandbox, wait_for};

/// The clock of one sandbox's program.
pub struct Clock {
    preloaded: PathBuf,
    table: PathBuf,
    jumps: usize,
    /// Nanoseconds that it is wrong by.
    by: i64,
}

impl Clock {
    /// One that is right until it is set; `None`: there is no C compiler to build it.
    pub fn new(sandbox: &Sandbox) -> Option<Self> {
        static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
        let built = BUILT.get_or_init(build).as_ref()?;
        // Where the tests are built may be closed to who runs the program.
        let clock = Self { preloaded: sandbox.path("clock.so"), table: sandbox.path("clock"), jumps: 0, by: 0 };
        fs::copy(built, &clock.preloaded).unwrap();
        fs::write(&clock.table, [0; 4096]).unwrap();
        Some(clock)
    }

    /// The program that this starts goes by this clock.
    pub fn give_to(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.preloaded).env("SILKTAIL_TEST_CLOCK", &self.table);
    }

    /// Sets it forward or back; what is written to any file from now on has a time after that.
    pub fn jump(&mut self, seconds: i64) {
        let now = SystemTime::now();
        self.by += seconds * 1_000_000_000;
        let at = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as i64;
        let table = fs::OpenOptions::new().write(true).open(&self.table).unwrap();
        let place = 8 + 16 * self.jumps as u64;
        table.write_all_at(&[at.to_ne_bytes(), self.by.to_ne_bytes()].concat(), place).unwrap();
        self.jumps += 1;
        // Counted once it is there.
        table.write_all_at(&(self.jumps as i64).to_ne_bytes(), 0).unwrap();
        let probe = self.table.with_extension("probe");
        // The clock that a file system stamps with is a tick or so behind.
        wait_for("the file system's clock", SOON, || {
            fs::write(&probe, "").unwrap();
            fs::metadata(&probe).unwrap().modified().unwrap() > now
        });
    }
}

fn build() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, library) = (folder.join("clock.c"), folder.join(format!("clock-{}.so", std::process::id())));
    fs::write(&source, include_str!("clock.c")).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output();
    let built = built.map(|output| (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()));
    if let Ok((true, _)) = built {
        let settled = folder.join("clock.so");
        fs::rename(&library, &settled).unwrap();
        return Some(settled);
    }
    assert!(std::env::var_os("CI").is_none(), "a clock that can be set can't be built: {built:?}");
    eprintln!("SKIPPED: jumps of the clock, since there is no C compiler to build one that can be set: {built:?}");
    None
}
