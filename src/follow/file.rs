//! Opens what may be a log, without ever blocking on it, and reads parts of it.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use super::archive::Content;

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

#[cfg(test)]
mod tests {
    use super::*;

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
