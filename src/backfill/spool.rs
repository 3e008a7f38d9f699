//! Keeps standard input in a file without a name, so that it is a log like any other: known when it comes again, cut
//! into stretches of time, gone on with after a stop.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::follow::archive::Packing;

/// Where it is kept; `TMPDIR` says otherwise. It may be large, so not where memory is taken for it.
const FOLDER: &str = "/var/tmp";

/// Standard input as a file.
#[derive(Debug)]
pub struct Spool {
    /// What is read where that was no file itself; gone with the process.
    _kept: Option<File>,
    /// A path to it, for as long as this lives.
    pub path: PathBuf,
}

/// Reads standard input to its end. What isn't packed is packed on the way: logs take a tenth of their size then.
///
/// # Errors
/// Those of reading it and of writing the file; the folder is named.
pub fn standard_input() -> io::Result<Spool> {
    let input = io::stdin();
    let of = |file: &dyn AsRawFd| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let at_its_beginning = rustix::fs::tell(input.as_fd()).is_ok_and(|at| at == 0);
    if at_its_beginning && std::fs::metadata(of(&input)).is_ok_and(|meta| meta.is_file()) {
        return Ok(Spool { _kept: None, path: of(&input) });
    }
    let folder = std::env::var_os("TMPDIR").filter(|text| !text.is_empty()).map_or(FOLDER.into(), PathBuf::from);
    let there = |error: io::Error| io::Error::new(error.kind(), format!("`{}`: {error}", folder.display()));
    let path = folder.join(format!("silktail-{}", std::process::id()));
    let mut kept = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(there)?;
    std::fs::remove_file(&path).map_err(there)?;
    keep(&mut input.lock(), &mut kept).map_err(there)?;
    Ok(Spool { path: of(&kept), _kept: Some(kept) })
}

fn keep(input: &mut impl Read, kept: &mut File) -> io::Result<()> {
    let mut first = Vec::new();
    input.take(6).read_to_end(&mut first)?;
    let mut whole = first.as_slice().chain(input);
    if first.is_empty() || Packing::of(&first).is_some() {
        io::copy(&mut whole, kept)?;
    } else {
        let mut packer = zstd::Encoder::new(&mut *kept, 1)?;
        io::copy(&mut whole, &mut packer)?;
        packer.finish()?;
    }
    kept.flush()?;
    kept.rewind()
}
