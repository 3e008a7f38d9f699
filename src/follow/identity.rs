//! Which log a file is, whatever its name: content decides, device and inode only say where to look first.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use super::archive::Content;
use super::discover;
use super::file::{self, Opened};
use crate::ledger::{Fingerprint, HEAD_MAX, LogRow, MARK_MAX, Mark};
use crate::offsets::LogId;

/// What a file's content says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A log that the ledger knows, read on where it stands: index into the rows.
    Known(usize),
    /// A known log whose end has been lost (a power cut, a restored copy): it agrees up to this offset.
    CutBack(usize, u64),
    /// A copy of a log that is held open (`copytruncate`, or a compression under way): what it may have more than that
    /// is read when the log itself is cut.
    Copy,
    /// A log that was never seen.
    New,
}

/// Whether a file's content is a log's as far as that was read.
///
/// # Errors
/// Those of the system.
pub fn continues(opened: &Opened, known: &Fingerprint) -> io::Result<bool> {
    Ok(known.head_len > 0 && matches!(agreement(opened, &head(opened)?, known)?, Agreement::Full))
}

/// The first bytes of a file, as a fingerprint takes them.
///
/// # Errors
/// Those of the system.
pub fn head(opened: &Opened) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD_MAX];
    let filled = file::read_at(&opened.file, &mut head, 0)?;
    head.truncate(filled);
    Ok(head)
}

/// Whether the bytes before a mark's offset are still those that were read.
///
/// # Errors
/// Those of the system.
pub fn mark_agrees(file: &Content, mark: &Mark) -> io::Result<bool> {
    let bytes = file::read_before(file, mark.offset, MARK_MAX)?;
    Ok(Mark::of(mark.offset, &bytes) == *mark)
}

/// Finds out which of the known logs a file is. Rows in `taken` are held by another open file already.
///
/// # Errors
/// Those of the system: nothing is guessed about a file that can't be read.
pub fn identify(path: &Path, opened: &Opened, rows: &[LogRow], taken: &HashSet<LogId>) -> io::Result<Who> {
    let head = head(opened)?;
    let mut same_content = Vec::new();
    let mut cut_back = None;
    let mut is_copy = false;
    for (index, row) in rows.iter().enumerate() {
        if taken.contains(&row.id) {
            // Only by its name: two logs may well begin with the same lines.
            if discover::is_sibling(path, &row.path) && row.fingerprint.head_len > 0 {
                let first_mark = row.fingerprint.marks.first().map_or(0, |mark| mark.offset);
                let unfinished = row.fingerprint.agrees_head(&head) && opened.size < first_mark;
                if unfinished || !matches!(agreement(opened, &head, &row.fingerprint)?, Agreement::No) {
                    is_copy = true;
                }
            }
            continue;
        }
        let same_inode = row.dev == opened.dev && row.ino == opened.ino;
        let same_name = row.path == path;
        match agreement(opened, &head, &row.fingerprint)? {
            Agreement::Full if same_inode => return Ok(Who::Known(index)),
            Agreement::Full if row.fingerprint.head_len > 0 => same_content.push((index, same_name)),
            Agreement::UpTo(offset) if same_inode || same_name => cut_back = Some((index, offset)),
            _ => {}
        }
    }
    match same_content.as_slice() {
        [(only, _)] => return Ok(Who::Known(*only)),
        [] => {}
        // Two known logs with this content: only the name can tell them apart.
        several => {
            if let Some((index, _)) = several.iter().find(|(_, same_name)| *same_name) {
                return Ok(Who::Known(*index));
            }
        }
    }
    Ok(match cut_back {
        Some((index, offset)) => Who::CutBack(index, offset),
        None if is_copy => Who::Copy,
        None => Who::New,
    })
}

enum Agreement {
    Full,
    UpTo(u64),
    No,
}

fn agreement(opened: &Opened, head: &[u8], known: &Fingerprint) -> io::Result<Agreement> {
    if !known.agrees_head(head) {
        return Ok(Agreement::No);
    }
    if opened.file.is_packed() {
        // Archives are read forwards: the last mark on the way that agrees.
        let mut agreed = None;
        for mark in &known.marks {
            if !mark_agrees(&opened.file, mark)? {
                return Ok(agreed.map_or(Agreement::No, Agreement::UpTo));
            }
            agreed = Some(mark.offset);
        }
        return Ok(Agreement::Full);
    }
    let mut full = true;
    for mark in known.marks.iter().rev() {
        if mark.offset <= opened.size && mark_agrees(&opened.file, mark)? {
            return Ok(if full { Agreement::Full } else { Agreement::UpTo(mark.offset) });
        }
        full = false;
    }
    Ok(if full { Agreement::Full } else { Agreement::No })
}
