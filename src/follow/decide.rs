//! By which format a log is read: the one that was named, or the one that its first lines fit.

use super::archive::Content;
use super::file;
use super::wishes::FormatChoice;
use crate::format::{self, Format};

/// Bytes of a log's beginning from which `auto` decides.
pub(super) const DETECT_BYTES: usize = 64 * 1024;

/// Lines from which `auto` decides.
const DETECT_LINES: usize = 100;

/// A format, and whether the lines at hand fit it.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The format.
    pub format: Format,
    /// `false`: nothing fitted, and this is the guess that will show as `unparsed`.
    pub fits: bool,
}

/// Decides how a log's lines are read, by its first lines; `None` while it has no complete line.
pub fn decide_format(choice: &FormatChoice, stored: Option<&str>, first_bytes: &[u8]) -> Option<Decided> {
    let candidates = match choice {
        FormatChoice::Fixed(format) => return Some(Decided { format: format.clone(), fits: true }),
        FormatChoice::Auto(candidates) => candidates,
    };
    // A decision holds for the file's life, so that a restart in the middle of garbage doesn't change it.
    if let Some(format) = stored.and_then(|name| candidates.iter().find(|format| format.name() == name)) {
        return Some(Decided { format: format.clone(), fits: true });
    }
    let end = memchr::memrchr(b'\n', first_bytes)?;
    let lines: Vec<&[u8]> =
        first_bytes[..end].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).take(DETECT_LINES).collect();
    match format::detect(candidates, &lines) {
        Some(format) => Some(Decided { format, fits: true }),
        None => candidates
            .iter()
            .find(|format| format.name() == "combined")
            .or(candidates.first())
            .map(|format| Decided { format: format.clone(), fits: false }),
    }
}

/// The bytes from which [`decide_format`] decides.
///
/// # Errors
/// Those of reading the file.
pub fn first_bytes(file: &Content) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; DETECT_BYTES];
    let filled = file::read_at(file, &mut bytes, 0)?;
    bytes.truncate(filled);
    Ok(bytes)
}
