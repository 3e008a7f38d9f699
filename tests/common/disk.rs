//! A small file system of its own, where this user may mount one.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// A file system in memory, of 8 MiB; gone at the end.
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts one, over whatever is mounted there already; `None`: it can't be done here, and that is said.
    pub fn mount(path: PathBuf) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs"]).arg(&path).output();
        Self::mounted(path, output)
    }

    /// Mounts a file of another file system over one.
    pub fn bind(from: &std::path::Path, path: PathBuf) -> Option<Self> {
        let output = Command::new("mount").arg("--bind").arg(from).arg(&path).output();
        Self::mounted(path, output)
    }

    fn mounted(path: PathBuf, output: std::io::Result<std::process::Output>) -> Option<Self> {
        match output {
            Ok(output) if output.status.success() => Some(Self(path)),
            other => {
                eprintln!("SKIPPED: this can't be tried here, since no file system can be mounted: {other:?}");
                None
            }
        }
    }

    /// Leaves not a byte.
    pub fn fill(&self) {
        let mut filler = fs::File::create(self.0.join("filler")).unwrap();
        while filler.write_all(&[0; 512]).is_ok() {}
    }

    /// Leaves so many bytes.
    pub fn fill_but_for(&self, bytes: u64) {
        self.fill();
        let filler = fs::OpenOptions::new().write(true).open(self.0.join("filler")).unwrap();
        filler.set_len(filler.metadata().unwrap().len() - bytes).unwrap();
    }

    /// Makes room again.
    pub fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}
