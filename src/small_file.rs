//! Reads what somebody names as a small file: a configuration, a key, certificates. It never waits, and never reads without end,
//! whatever stands under the name.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Bytes of one that are read at most.
const MOST: u64 = 16 << 20;

/// A regular file's bytes; links are followed.
///
/// # Errors
/// Those of the system; [`io::ErrorKind::InvalidInput`] for FIFOs, devices and sockets, [`io::ErrorKind::FileTooLarge`] for more
/// than 16 MiB.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a FIFO must not wait for a writer, and a terminal is nobody's. What it is can only be asked safely once it is open.
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        // As reading it would say.
        return Err(rustix::io::Errno::ISDIR.into());
    }
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a FIFO, a device or a socket, not a file"));
    }
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        let text = format!("it is larger than {} MiB", MOST >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// Its text.
///
/// # Errors
/// The same; [`io::ErrorKind::InvalidData`] where it isn't UTF-8.
pub(crate) fn text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it isn't UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_file_of_some_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::fs::write(path("bytes"), b"\xff").unwrap();
        std::fs::write(path("text"), "é\n").unwrap();
        std::os::unix::fs::symlink("text", path("link")).unwrap();
        for (name, bytes) in [("large", MOST), ("too large", MOST + 1)] {
            std::fs::File::create(path(name)).unwrap().set_len(bytes).unwrap();
        }
        let kind = |path: &Path| read(path).map(|bytes| bytes.len()).map_err(|error| error.kind());
        for (name, want) in [
            ("fifo", Err(io::ErrorKind::InvalidInput)),
            ("/dev/zero", Err(io::ErrorKind::InvalidInput)),
            (".", Err(io::ErrorKind::IsADirectory)),
            ("none", Err(io::ErrorKind::NotFound)),
            ("too large", Err(io::ErrorKind::FileTooLarge)),
            ("large", Ok(16 << 20)),
            ("link", Ok(3)),
        ] {
            assert_eq!(kind(&path(name)), want, "{name}");
        }
        assert!(read(&path("socket")).is_err());
        assert_eq!(text(&path("text")).unwrap(), "é\n");
        assert_eq!(text(&path("bytes")).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
