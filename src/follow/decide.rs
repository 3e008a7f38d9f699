//! By which format a log is read: the one that was named, or the one that its first lines fit.

use super::archive::Content;
use super::file;
use super::wishes::FormatChoice;
use crate::format::{self, Format};

/// Bytes of a log's beginning from which `auto` decides.
pub(super) const DETECT_BYTES: usize = 64 * 1024;

/// Lines from which `auto` decides.
const DETECT_LINES: usize = 100;
/// Lines from which on a decision that they fit holds for the file's life: a client may write the first of a new log so that it
/// fits another format, and a server half a line.
const ENOUGH_LINES: usize = 10;

/// A format, and whether the lines at hand fit it.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The format.
    pub format: Format,
    /// `false`: nothing fitted, and this is the guess that will show as `unparsed`.
    pub fits: bool,
    /// `false`: it is to be decided again with more lines.
    pub is_final: bool,
}

/// Decides how a log's lines are read, by its first lines; `None` while it has no complete line.
pub fn decide_format(choice: &FormatChoice, stored: Option<&str>, first_bytes: &[u8]) -> Option<Decided> {
    decide_after(choice, stored, None, first_bytes)
}

/// The same of a log before which another had its name, and that one's format: few lines are read by that, if they fit it.
pub fn decide_after(
    choice: &FormatChoice,
    stored: Option<&str>,
    before: Option<&str>,
    first_bytes: &[u8],
) -> Option<Decided> {
    let candidates = match choice {
        FormatChoice::Fixed(format) => {
            return Some(Decided { format: format.clone(), fits: true, is_final: true });
        }
        FormatChoice::Auto(candidates) => candidates,
    };
    let named = |name: &str| candidates.iter().find(|format| format.name() == name).cloned();
    // A decision holds for the file's life, so that a restart in the middle of garbage doesn't change it.
    if let Some(format) = stored.and_then(named) {
        return Some(Decided { format, fits: true, is_final: true });
    }
    let end = memchr::memrchr(b'\n', first_bytes)?;
    // NULs before a line are none of it.
    let lines = first_bytes[..end].split(|&byte| byte == b'\n').map(|line| {
        let nuls = line.iter().take_while(|byte| **byte == 0).count();
        &line[nuls..]
    });
    let lines: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).take(DETECT_LINES).collect();
    let before = before.and_then(named);
    // All that will ever be asked.
    let is_all = lines.len() >= DETECT_LINES || first_bytes.len() >= DETECT_BYTES;
    match format::detect(candidates, &lines) {
        Some(format) => {
            let is_final = is_all || lines.len() >= ENOUGH_LINES;
            let before =
                before.filter(|before| !is_final && format::detect(std::slice::from_ref(before), &lines).is_some());
            Some(Decided { format: before.unwrap_or(format), fits: true, is_final })
        }
        None => {
            let combined = || named("combined").or(candidates.first().cloned());
            before.or_else(combined).map(|format| Decided { format, fits: false, is_final: is_all })
        }
    }
}

/// A log's first bytes.
///
/// # Errors
/// Those of reading the file.
pub fn first_bytes(file: &Content) -> std::io::Result<Vec<u8>> {
    bytes_at(file, 0)
}

/// The bytes from which [`decide_format`] decides: the first, or else, where one line is longer than those, or data never
/// reached the disk, some behind them.
///
/// # Errors
/// Those of reading the file.
pub fn deciding_bytes(file: &Content) -> std::io::Result<Vec<u8>> {
    let first = first_bytes(file)?;
    if first.len() < DETECT_BYTES || first.contains(&b'\n') {
        return Ok(first);
    }
    let len = DETECT_BYTES as u64;
    // The last of a log that may grow: else its one long line would be gone through at each look. An archive is read once.
    let mut at = if file.is_packed() { len } else { file.size()?.saturating_sub(len).max(1) };
    loop {
        let bytes = bytes_at(file, at)?;
        if let Some(newline) = memchr::memchr(b'\n', &bytes) {
            let lines = bytes_at(file, at + newline as u64 + 1)?;
            // It may be all that there is.
            return Ok(if lines.contains(&b'\n') { lines } else { bytes });
        }
        if !file.is_packed() || bytes.len() < DETECT_BYTES {
            return Ok(first);
        }
        at += len;
    }
}

fn bytes_at(file: &Content, at: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; DETECT_BYTES];
    let filled = file::read_at(file, &mut bytes, at)?;
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use jiff::tz::TimeZone;

    use super::*;

    fn auto() -> FormatChoice {
        let builtin = |name: &&str| Format::builtin(name, &TimeZone::UTC);
        FormatChoice::Auto(format::BUILTIN.iter().filter_map(builtin).collect())
    }

    fn line(ip: &str, user: &str, agent: &str) -> String {
        format!("{ip} - {user} [10/Nov/2026:10:00:00 +0000] \"GET /a.pdf HTTP/1.1\" 200 5 \"-\" \"{agent}\"\n")
    }

    #[test]
    fn a_log_whose_first_line_is_long_or_lost_is_decided_by_the_lines_behind_it() {
        let ordinary = line("192.0.2.7", "-", "Firefox");
        let long = line("192.0.2.7", "-", &"x".repeat(100_000));
        let nuls = "\0".repeat(200_000);
        for (name, log, want) in [
            ("ordinary", ordinary.repeat(20), Some("combined")),
            ("a long line", long.clone() + &ordinary.repeat(3), Some("combined")),
            ("a long line alone", long, Some("combined")),
            ("a line without end", "x".repeat(200_000), None),
            ("a hole", nuls.clone() + &ordinary.repeat(3), Some("combined")),
            ("a hole, and one line", nuls + &ordinary, Some("combined")),
            ("a short hole, and one line", "\0".repeat(500) + &ordinary, Some("combined")),
        ] {
            let packed = zstd::encode_all(log.as_bytes(), 1).unwrap();
            for bytes in [log.as_bytes(), &packed] {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(bytes).unwrap();
                let bytes = deciding_bytes(&Content::of(file).unwrap()).unwrap();
                let decided = decide_format(&auto(), None, &bytes);
                assert_eq!(decided.as_ref().map(|decided| decided.format.name()), want, "{name}");
            }
        }
    }

    #[test]
    fn few_lines_are_read_as_the_log_before_was_and_more_decide_again() {
        let combined = line("192.0.2.7", "-", "Firefox");
        let with_host = format!("docs.example.org:443 {combined}");
        // A failed login's name is logged as it was sent.
        let crafted = line("203.0.113.9", "x 192.0.2.9 - y", "Firefox");
        let (caddy, half) = ("{\"level\":\"info\",\"msg\":\"serving\"}\n", "5 \"-\" \"Firefox\"\n");
        let before = Some("combined");
        for (name, before, log, want) in [
            ("nothing before", None, combined.clone(), ("combined", true, false)),
            ("crafted", before, crafted.clone(), ("combined", true, false)),
            ("crafted, and ten others", before, crafted + &combined.repeat(10), ("combined", true, true)),
            ("half a line", Some("vhost_combined"), half.to_owned(), ("vhost_combined", false, false)),
            ("half a line, more", None, half.to_owned() + &with_host.repeat(10), ("vhost_combined", true, true)),
            ("no request", Some("caddy"), caddy.to_owned(), ("caddy", false, false)),
            ("a new format", before, with_host.clone(), ("combined", true, false)),
            ("a new format, more", before, with_host.repeat(10), ("vhost_combined", true, true)),
            ("garbage", None, "what is this\n".repeat(50), ("combined", false, false)),
            ("much of it", None, "what is this\n".repeat(200), ("combined", false, true)),
        ] {
            let decided = decide_after(&auto(), None, before, log.as_bytes()).unwrap();
            assert_eq!((decided.format.name(), decided.fits, decided.is_final), want, "{name}");
        }
    }
}
