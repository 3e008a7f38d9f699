//! Standard input, kept in a file while it is read: what comes in there but once is then looked at as any other log is,
//! for who it is, what of it is settled already, and from when to when it is.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use super::ENDS;
use crate::follow::archive::{Content, Packing};
use crate::follow::file::Opened;
use crate::follow::source::BLOCK;

/// Fast, and access logs become a tenth of what they were.
const LEVEL: i32 = 1;

/// What came in on standard input.
#[derive(Debug)]
pub struct Kept {
    file: File,
    /// Its last bytes, where the file itself doesn't show them.
    end: Vec<u8>,
    /// How many bytes came in.
    given: u64,
    /// Who it is, if it is a file of the user's.
    inode: (u64, u64),
    modified: Option<SystemTime>,
}

impl Kept {
    /// Reads `input` to its end into a nameless file in `dir`, compressed; a file that was redirected is used as it is.
    ///
    /// # Errors
    /// Those of reading, and of a `dir` that can't be written to or is full.
    pub fn of(input: impl Read + AsFd, dir: &Path) -> io::Result<Self> {
        let mut own = File::from(input.as_fd().try_clone_to_owned()?);
        let meta = own.metadata()?;
        // Somebody may have read a part of it already, and that is not ours then.
        if meta.is_file() && own.stream_position()? == 0 {
            let inode = (meta.dev(), meta.ino());
            let (given, modified) = (meta.len(), meta.modified().ok());
            return Ok(Self { file: own, end: Vec::new(), given, inode, modified });
        }
        Self::copy(input, tempfile::tempfile_in(dir)?)
    }

    fn copy(mut input: impl Read, mut file: File) -> io::Result<Self> {
        let mut block = vec![0; BLOCK];
        let mut filled = fill(&mut input, &mut block)?;
        let (mut end, mut given) = (Vec::new(), 0);
        if Packing::of(&block[..filled]).is_some() {
            while filled > 0 {
                given += filled as u64;
                file.write_all(&block[..filled])?;
                filled = fill(&mut input, &mut block)?;
            }
        } else {
            let mut packed = zstd::Encoder::new(file, LEVEL)?;
            while filled > 0 {
                given += filled as u64;
                packed.write_all(&block[..filled])?;
                end.extend_from_slice(&block[..filled]);
                end.drain(..end.len().saturating_sub(ENDS));
                filled = fill(&mut input, &mut block)?;
            }
            file = packed.finish()?;
        }
        file.seek(SeekFrom::Start(0))?;
        Ok(Self { file, end, given, inode: (0, 0), modified: None })
    }

    /// Its last bytes, if it was kept compressed.
    pub(super) fn end(&self) -> &[u8] {
        &self.end
    }

    /// How many bytes came in: more than lie on the disk, where it was kept compressed.
    pub(super) fn given(&self) -> u64 {
        self.given
    }

    pub(super) fn open(&self) -> io::Result<Opened> {
        let file = Content::of(self.file.try_clone()?)?;
        let (dev, ino) = self.inode;
        Ok(Opened { dev, ino, size: file.size()?, modified: self.modified, file })
    }
}

/// Reads until the block is full or the input has ended.
fn fill(input: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match input.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follow::file;

    #[test]
    fn what_came_in_is_read_back_packed_or_not() {
        let log = b"one line\nanother\n".repeat(40_000);
        let packed = zstd::encode_all(&log[..], 1).unwrap();
        for (name, input) in [("plain", &log), ("packed", &packed), ("empty", &Vec::new())] {
            let kept = Kept::copy(input.as_slice(), tempfile::tempfile().unwrap()).unwrap();
            assert_eq!(kept.given(), input.len() as u64, "{name}");
            for _ in 0..2 {
                let opened = kept.open().unwrap();
                let mut got = vec![0; log.len() + 1];
                let filled = file::read_at(&opened.file, &mut got, 0).unwrap();
                got.truncate(filled);
                assert!(got == if input.is_empty() { &input[..] } else { &log[..] }, "{name}");
            }
        }
        let kept = Kept::copy(log.as_slice(), tempfile::tempfile().unwrap()).unwrap();
        assert!(log.ends_with(kept.end()) && kept.end().len() == ENDS);
    }
}
