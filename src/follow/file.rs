//! Opens what may be a log, without ever blocking on it, and reads parts of it.

use std::fs::{Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::archive::Content;
use crate::lines::{Cut, Cutter};

/// An open regular file, and where to look first for it later.
#[derive(Debug)]
pub struct Opened {
    /// The handle, and the log's bytes.
    pub file: Content,
    /// Device number: a hint only, it changes with LVM, btrfs, NFS and restores.
    pub dev: u64,
    /// Inode number: a hint only, inodes are used again.
    pub ino: u64,
    /// Bytes of the log when it was opened; of an archive [`super::archive::UNKNOWN`].
    pub size: u64,
    /// When it was last written to.
    pub modified: Option<SystemTime>,
}

/// What changes whenever a file is written to: its length, and when it was last changed, which nobody can set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    size: u64,
    /// Nanoseconds since 1970.
    changed: i64,
}

impl Stamp {
    /// Clocks of file systems tick, some only once in two seconds: a file that was changed just now may be changed again
    /// without showing it.
    const TICK: Duration = Duration::from_secs(3);

    /// As the system tells it.
    pub fn of(meta: &Metadata) -> Self {
        let changed = meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec());
        Self { size: meta.len(), changed }
    }

    /// It, if the next change is sure to show.
    pub fn settled(self, now: SystemTime) -> Option<Self> {
        let changed = SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(self.changed).ok()?);
        // One from the future was given by another clock, and says nothing.
        now.duration_since(changed).is_ok_and(|ago| ago > Self::TICK).then_some(self)
    }
}

/// Opens a regular file for reading; links are followed.
///
/// # Errors
/// Those of the system, and [`io::ErrorKind::InvalidInput`] for FIFOs, devices, sockets and directories.
pub fn open(path: &Path) -> io::Result<Opened> {
    // O_NONBLOCK: opening a FIFO must not wait for a writer. What it is can only be asked safely once it is open.
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = Content::of(file)?;
    Ok(Opened { dev: meta.dev(), ino: meta.ino(), size: file.size()?, modified: meta.modified().ok(), file })
}

/// A file's device and inode; links are followed.
///
/// # Errors
/// Those of the system.
pub fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let meta = std::fs::metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// Fills as much of `buffer` as the log has from `offset` on, and says how much that was.
///
/// # Errors
/// Those of the system, but for interruptions.
pub fn read_at(file: &Content, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    fill(buffer, |rest, at| file.read_some(rest, offset + at))
}

/// Fills as much of `buffer` as `read` gives: it is asked with the rest of the buffer and how much has come before.
pub(super) fn fill(buffer: &mut [u8], read: impl Fn(&mut [u8], u64) -> io::Result<usize>) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read(&mut buffer[filled..], filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The `len` bytes at most that end at `offset`.
///
/// # Errors
/// Those of [`read_at`].
pub fn read_before(file: &Content, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let start = offset.saturating_sub(len as u64);
    let mut bytes = vec![0; usize::try_from(offset - start).unwrap_or(len)];
    let filled = read_at(file, &mut bytes, start)?;
    bytes.truncate(filled);
    Ok(bytes)
}

/// Offset just past the last newline, or 0: where `start = "end"` begins.
///
/// # Errors
/// Those of [`read_at`].
pub fn after_last_newline(file: &Content, size: u64) -> io::Result<u64> {
    let mut end = size;
    let mut block = vec![0; 64 * 1024];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let want = usize::try_from(end - start).unwrap_or(block.len());
        let filled = read_at(file, &mut block[..want], start)?;
        if let Some(at) = memchr::memrchr(b'\n', &block[..filled]) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The last line that begins with `beginning` (in any ASCII case) and ends before `until`.
///
/// # Errors
/// Those of [`read_at`].
pub fn last_line_beginning(file: &Content, beginning: &[u8], until: u64) -> io::Result<Option<Vec<u8>>> {
    const BLOCK: u64 = 256 * 1024;
    let begins = |line: &[u8]| line.get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning));
    if file.is_packed() {
        return last_line_forwards(file, begins, until);
    }
    let mut end = until;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        // Enough more for the beginning of a line that starts in this block, and the newline before the first.
        let from = start.saturating_sub(1);
        let to = end.saturating_add(beginning.len() as u64).min(until);
        let block = read_before(file, to, usize::try_from(to - from).unwrap_or(0))?;
        let starts = memchr::memchr_iter(b'\n', &block).map(|at| at + 1);
        let first = (from == 0).then_some(0);
        if let Some(at) = first.into_iter().chain(starts).rfind(|&at| begins(&block[at..])) {
            let mut line = read_line(file, from + at as u64, until)?;
            line.truncate(memchr::memchr(b'\n', &line).unwrap_or(line.len()));
            return Ok(Some(line));
        }
        end = start;
    }
    Ok(None)
}

/// The same for an archive, which can't be read backwards.
fn last_line_forwards(file: &Content, wanted: impl Fn(&[u8]) -> bool, until: u64) -> io::Result<Option<Vec<u8>>> {
    let mut cutter = Cutter::new(0, 64 * 1024);
    let mut buffer = vec![0; 256 * 1024];
    let mut last = None;
    loop {
        let at = cutter.wants();
        let want = usize::try_from(until.saturating_sub(at)).unwrap_or(buffer.len()).min(buffer.len());
        let filled = read_at(file, &mut buffer[..want], at)?;
        let mut bytes = &buffer[..filled];
        while let Some(cut) = cutter.next_line(&mut bytes) {
            if let Cut::Line(line) = cut
                && wanted(line.bytes)
            {
                last = Some(line.bytes.to_vec());
            }
        }
        if filled == 0 || cutter.wants() == at {
            return Ok(last);
        }
    }
}

/// The bytes from a line's start on, at least to its end.
fn read_line(file: &Content, start: u64, until: u64) -> io::Result<Vec<u8>> {
    let mut len = 4 * 1024;
    loop {
        let most = usize::try_from(until - start).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(most)];
        let filled = read_at(file, &mut bytes, start)?;
        bytes.truncate(filled);
        if filled < len || memchr::memchr(b'\n', &bytes).is_some() {
            return Ok(bytes);
        }
        len *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_changed_just_now_may_change_again_without_showing_it() {
        let stamp = Stamp { size: 5, changed: 1_000_000_000_000 };
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (name, now, want) in
            [("long ago", 1_060, true), ("just now", 1_002, false), ("in the future, by a wrong clock", 900, false)]
        {
            assert_eq!(stamp.settled(at(now)).is_some(), want, "{name}");
        }
    }

    #[test]
    fn the_last_line_of_a_kind_is_found_wherever_the_blocks_end() {
        let filler = |len: usize| [vec![b'x'; len], b"\n".to_vec()].concat();
        for len in [0, 10, 256 * 1024 - 9, 256 * 1024 - 4, 256 * 1024 - 1, 256 * 1024, 600_000] {
            let content =
                [&b"#Fields: a\n"[..], &filler(9), b"#fields: b\r\n", b" #Fields: no\n", &filler(len)].concat();
            let path = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(path.path(), &content).unwrap();
            let opened = open(path.path()).unwrap();
            let last = |until| last_line_beginning(&opened.file, b"#Fields:", until).unwrap();
            assert_eq!(last(opened.size).as_deref(), Some(&b"#fields: b\r"[..]), "{len} bytes behind");
            assert_eq!(last(21).as_deref(), Some(&b"#Fields: a"[..]));
            assert_eq!(last(0), None);
        }
    }

    #[test]
    fn the_end_is_after_the_last_newline() {
        for (name, content, want) in [
            ("empty", Vec::new(), 0),
            ("no newline", b"abc".to_vec(), 0),
            ("whole lines", b"abc\ndef\n".to_vec(), 8),
            ("an unfinished last line", b"abc\ndef".to_vec(), 4),
            ("an unfinished line longer than a block", [b"a\n".to_vec(), vec![b'x'; 200_000]].concat(), 2),
        ] {
            let path = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(path.path(), &content).unwrap();
            let opened = open(path.path()).unwrap();
            assert_eq!(after_last_newline(&opened.file, opened.size).unwrap(), want, "{name}");
        }
    }

    #[test]
    fn a_fifo_is_refused_and_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        assert_eq!(open(&path).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(open(folder.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
