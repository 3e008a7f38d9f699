//! Which log a file is, whatever its name: content decides, device and inode only say where to look first.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::archive::Content;
use super::discover;
use super::file::{self, Opened};
use crate::ledger::{Fingerprint, HEAD_MAX, Head, LogRow, MARK_MAX, Mark};
use crate::offsets::LogId;

/// Bytes that are compared where nothing has been read yet.
const COMPARED: usize = 64 * 1024;

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

/// Whether a file still holds what was read of it: the head and the bytes before the last mark. The mark alone doesn't
/// tell: lines of one browser all end alike.
///
/// # Errors
/// Those of the system.
pub fn agrees(file: &Content, fingerprint: &Fingerprint) -> io::Result<bool> {
    if !begins_as_it_did(file, fingerprint)? {
        return Ok(false);
    }
    fingerprint.marks.last().map_or(Ok(true), |mark| mark_agrees(file, mark))
}

/// Which of the logs last seen at a file's inode it still is, as [`identify`] would say; `None`: that takes a look at all.
///
/// # Errors
/// Those of the system.
pub fn stayed<'r>(opened: &Opened, at_inode: impl Iterator<Item = (usize, &'r LogRow)>) -> io::Result<Option<usize>> {
    let mut first_bytes = None;
    for (index, row) in at_inode.filter(|(_, row)| row.fingerprint.head_len > 0 || !row.ended) {
        if first_bytes.is_none() {
            first_bytes = Some(head(opened)?);
        }
        // It was empty when it was seen, and may have become a copy of another.
        if row.fingerprint.head_len == 0 && opened.size > 0 {
            return Ok(None);
        }
        if matches!(agreement(opened, first_bytes.as_deref().unwrap_or_default(), &row.fingerprint)?, Agreement::Full) {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// Finds out which of the known logs a file is, of those that are `wanted`. Those in `held` are open already, as another
/// file.
///
/// # Errors
/// Those of the system: nothing is guessed about a file that can't be read.
pub fn identify(
    path: &Path,
    opened: &Opened,
    rows: &[impl Borrow<LogRow>],
    wanted: impl Fn(&LogRow) -> bool,
    held: &HashMap<LogId, &Content>,
) -> io::Result<Who> {
    let head = head(opened)?;
    let mut begins = Head::new(&head);
    let mut same_content = Vec::new();
    let mut cut_back = None;
    let mut is_copy = false;
    let mut was_empty = None;
    let is_begun = !opened.file.is_packed() && head.len() < HEAD_MAX && discover::has_a_rotated_name(path);
    for (index, row) in rows.iter().map(Borrow::borrow).enumerate().filter(|(_, row)| wanted(row)) {
        // All but an archive's comparison with an open log begins with this, and of ten thousand logs few pass it.
        let by_name = opened.file.is_packed() && held.contains_key(&row.id);
        if !by_name && !row.fingerprint.agrees_with(&mut begins) {
            // A copy has less than what a log is known by when it is begun.
            if is_begun
                && let Some(content) = held.get(&row.id)
                && discover::is_named_as_rotated(path, &row.path)
            {
                is_copy |= begins_as(opened, content)?;
            }
            continue;
        }
        if let Some(content) = held.get(&row.id) {
            // Only by its name: two logs may well begin with the same lines.
            if discover::is_sibling(path, &row.path) && row.fingerprint.head_len > 0 {
                is_copy |= is_a_copy(opened, &head, &row.fingerprint, content)?;
            } else if discover::are_related(path, &row.path) {
                is_copy |= match opened.file.is_packed() {
                    true => holds_the_same(opened, content)?,
                    false => {
                        is_what_was_read(opened, &head, &row.fingerprint)?
                            || is_what_was_cut(opened, &head, &row.fingerprint, content)?
                    }
                };
            } else if discover::is_named_as_rotated(path, &row.path) && row.fingerprint.head_len > 0 {
                // On its way to another directory, that of another file system perhaps.
                is_copy |= !opened.file.is_packed() && begins_as(opened, content)?;
            }
            continue;
        }
        let same_inode = row.dev == opened.dev && row.ino == opened.ino;
        let same_name = *row.path == *path;
        match agreement(opened, &head, &row.fingerprint)? {
            // Whatever is in it now, it was empty when it was seen: a copy is so for a moment, too. A log that was done with
            // when it was still empty is known by nothing, and its inode may be another file's by now.
            Agreement::Full if same_inode && row.fingerprint.head_len == 0 => {
                was_empty = (!row.ended).then_some(index).or(was_empty);
            }
            Agreement::Full if same_inode => return Ok(Who::Known(index)),
            Agreement::Full if row.fingerprint.head_len > 0 => same_content.push((index, same_name)),
            Agreement::UpTo(offset) if !row.ended && (same_inode || same_name) => cut_back = Some((index, offset)),
            _ => {}
        }
    }
    if was_empty.is_some() {
        // What has grown where a log was empty is that log, whatever others hold, unless its name is that of their copy.
        same_content.retain(|(index, _)| {
            let other = &rows[*index].borrow().path;
            discover::are_related(path, other) || discover::is_named_as_rotated(path, other)
        });
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
    Ok(match (cut_back, was_empty) {
        (Some((index, offset)), None) => Who::CutBack(index, offset),
        _ if is_copy => Who::Copy,
        (_, Some(index)) => Who::Known(index),
        _ => Who::New,
    })
}

/// Whether a file is exactly what was read of a log: what `copytruncate` left of it under another number.
fn is_what_was_read(opened: &Opened, head: &[u8], known: &Fingerprint) -> io::Result<bool> {
    let read_to = known.marks.last().map(|mark| mark.offset);
    Ok(read_to == Some(opened.size) && matches!(agreement(opened, head, known)?, Agreement::Full))
}

/// Whether a file holds all that was read of a log, and the log doesn't any more: it was cut, and that wasn't noticed yet.
fn is_what_was_cut(opened: &Opened, head: &[u8], known: &Fingerprint, content: &Content) -> io::Result<bool> {
    let Some(last) = known.marks.last() else { return Ok(false) };
    Ok(matches!(agreement(opened, head, known)?, Agreement::Full) && !mark_agrees(content, last)?)
}

/// Whether an archive holds all of a log, the one of them opened just now and the other open as `content`: under a glob
/// rotation gives each of them another name, and a log that was empty when it was opened is known by nothing else.
///
/// # Errors
/// Those of the system.
pub fn holds_the_same(opened: &Opened, content: &Content) -> io::Result<bool> {
    let mut both = [vec![0; COMPARED], vec![0; COMPARED]];
    let one = file::read_at(&opened.file, &mut both[0], 0)?;
    let other = file::read_at(content, &mut both[1], 0)?;
    Ok(one > 0 && both[0][..one] == both[1][..other])
}

/// Whether two files have the same beginning, as far as both go and that is compared.
///
/// # Errors
/// Those of the system.
pub fn begin_alike(one: &Opened, other: &Opened) -> io::Result<bool> {
    let mut both = [vec![0; COMPARED], vec![0; COMPARED]];
    let common = file::read_at(&one.file, &mut both[0], 0)?.min(file::read_at(&other.file, &mut both[1], 0)?);
    Ok(common > 0 && both[0][..common] == both[1][..common])
}

/// Whether all that is in a file stands at a log's beginning, too, as far as that is compared.
fn begins_as(opened: &Opened, content: &Content) -> io::Result<bool> {
    let mut both = [vec![0; COMPARED], vec![0; COMPARED]];
    let one = file::read_at(&opened.file, &mut both[0], 0)?;
    let other = file::read_at(content, &mut both[1], 0)?;
    Ok(one > 0 && opened.size <= content.size()? && one <= other && both[0][..one] == both[1][..one])
}

/// Whether a log still begins with what it was known by first.
fn begins_as_it_did(content: &Content, known: &Fingerprint) -> io::Result<bool> {
    let mut head = vec![0; known.head_len as usize];
    let filled = file::read_at(content, &mut head, 0)?;
    Ok(known.agrees_head(&head[..filled]))
}

/// Whether a file is a copy of a log that is open as `content`, or is becoming one.
fn is_a_copy(opened: &Opened, head: &[u8], known: &Fingerprint, content: &Content) -> io::Result<bool> {
    // A copy isn't longer than its log, unless that was cut and began again as before.
    let goes_on_alike = |from: u64| -> io::Result<bool> {
        let mut both = [vec![0; COMPARED], vec![0; COMPARED]];
        let one = file::read_at(&opened.file, &mut both[0], from)?;
        let other = file::read_at(content, &mut both[1], from)?;
        Ok(one <= other && both[0][..one] == both[1][..one])
    };
    let (Some(first_mark), Some(last_mark)) = (known.marks.first(), known.marks.last()) else {
        // Nothing of it has been read, and logs that aren't the same may begin alike. Where the log doesn't begin as it did,
        // it was cut, and that wasn't noticed yet.
        return Ok(known.agrees_head(head) && (goes_on_alike(0)? || !begins_as_it_did(content, known)?));
    };
    match agreement(opened, head, known)? {
        // All that was read of the log may be in both, and then they differ: the log was cut.
        Agreement::Full => Ok(!mark_agrees(content, last_mark)? || goes_on_alike(last_mark.offset)?),
        Agreement::UpTo(_) => Ok(true),
        // By the size that the marks were held against: it may have grown since.
        Agreement::No => Ok(known.agrees_head(head) && opened.size < first_mark.offset),
    }
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
    // As it is now: another process may have read on since it was opened, and what is known of it be newer than that.
    let size = opened.file.size()?;
    let mut full = true;
    for mark in known.marks.iter().rev() {
        if mark.offset <= size && mark_agrees(&opened.file, mark)? {
            return Ok(if full { Agreement::Full } else { Agreement::UpTo(mark.offset) });
        }
        full = false;
    }
    Ok(if full { Agreement::Full } else { Agreement::No })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_another_process_has_read_on_since_it_was_opened_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        std::fs::write(&path, "one line\n").unwrap();
        let opened = file::open(&path).unwrap();
        let whole = b"one line\nanother line\n";
        std::fs::write(&path, whole).unwrap();
        let mut fingerprint = Fingerprint::of_head(whole);
        fingerprint.push_mark(Mark::of(whole.len() as u64, whole));
        let row = LogRow {
            id: LogId(1),
            path: path.as_path().into(),
            dev: opened.dev,
            ino: opened.ino,
            fingerprint,
            format: None,
            last_read: None,
            ended: false,
        };
        assert_eq!(identify(&path, &opened, &[row], |_| true, &HashMap::new()).unwrap(), Who::Known(0));
    }

    #[test]
    fn a_log_that_was_done_with_while_empty_is_not_what_has_its_inode_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log.4.zst");
        std::fs::write(&path, "a line\n").unwrap();
        let opened = file::open(&path).unwrap();
        for (ended, want) in [(true, Who::New), (false, Who::Known(0))] {
            let row = LogRow {
                id: LogId(1),
                path: folder.path().join("a.log").into(),
                dev: opened.dev,
                ino: opened.ino,
                fingerprint: Fingerprint::default(),
                format: None,
                last_read: None,
                ended,
            };
            assert_eq!(identify(&path, &opened, &[row], |_| true, &HashMap::new()).unwrap(), want, "{ended}");
        }
    }

    #[test]
    fn what_has_grown_where_a_log_was_empty_is_that_log_unless_its_name_is_a_copy_s() {
        for (name, is_copy) in [("b.log", false), ("a.log.1", true)] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            std::fs::write(&path, "the same line\n").unwrap();
            let opened = file::open(&path).unwrap();
            let row = |id, name: &str, ino, fingerprint| LogRow {
                id: LogId(id),
                path: folder.path().join(name).into(),
                dev: opened.dev,
                ino,
                fingerprint,
                format: None,
                last_read: None,
                ended: false,
            };
            let known = Fingerprint::of_head(b"the same line\n");
            let rows = [row(1, "a.log", 0, known), row(2, name, opened.ino, Fingerprint::default())];
            assert_eq!(stayed(&opened, rows[1..].iter().enumerate()).unwrap(), None, "it takes a look at all");
            let who = identify(&path, &opened, &rows, |_| true, &HashMap::new()).unwrap();
            assert_eq!(who, Who::Known(usize::from(!is_copy)), "{name}");
        }
    }
}
