//! The state's file: made whole or not at all, looked at before it is believed, rid of what is long done with.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, TransactionBehavior, params};

use super::error::database_error;
use super::opening::{NO_STATE, READER_CACHE};
use super::waits::{Waits, Who};
use super::{LedgerError, believed};

/// The layout that this version writes.
pub(super) const VERSION: i64 = 3;
/// Bytes of the smallest page that a SQLite database may have (its file format, section 1.3.2).
const LEAST_PAGE: u64 = 512;
/// Logs that are done with are forgotten this long after they were last read: a backfill would read them again.
const FORGET_AFTER: SignedDuration = SignedDuration::from_hours(400 * 24);
/// Logs that are done with and remembered, at most; those that were read longest ago are forgotten first.
pub(super) const LOGS_MAX: i64 = 100_000;

/// The name of what SQLite keeps beside a database.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A connection that waits for others, syncs at checkpoints alone, and keeps few pages in memory.
pub(super) fn connect(path: &Path, waits: &Arc<Waits>, who: Who) -> Result<Connection, LedgerError> {
    let wrong = |error| database_error(path, error);
    let mut db = Connection::open(path).map_err(wrong)?;
    waits.guide(&mut db, who).map_err(wrong)?;
    db.pragma_update(None, "synchronous", "NORMAL").map_err(wrong)?;
    db.pragma_update(None, "cache_size", READER_CACHE).map_err(wrong)?;
    Ok(db)
}

/// Whether there is a state. It is laid out under another name, so that an empty file isn't a new state but a lost one.
pub(super) fn is_there(path: &Path) -> Result<bool, LedgerError> {
    let broken = |reason: &str| LedgerError::Broken { path: path.to_path_buf(), reason: reason.to_owned() };
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() == 0 => Err(broken("the file is empty")),
        // SQLite would fill it up to a page before it says that it can't read it.
        Ok(meta) if meta.len() < LEAST_PAGE => Err(broken("it is cut off within its header")),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut log = path.as_os_str().to_owned();
            log.push("-wal");
            match Path::new(&log).exists() {
                true => Err(broken("it is gone, and its newest part is still there as `silktail.db-wal`")),
                false => Ok(false),
            }
        }
        Err(error) => Err(LedgerError::Directory { path: path.to_path_buf(), error }),
    }
}

/// Makes a new state as `aside`, and gives it its name when it is whole.
pub(super) fn lay_out(aside: &Path, path: &Path) -> Result<(), LedgerError> {
    let mut secret = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut secret))
        .map_err(|error| LedgerError::Directory { path: PathBuf::from("/dev/urandom"), error })?;
    let fill = || {
        let mut db = Connection::open(aside)?;
        let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        change.execute_batch(include_str!("../schema.sql"))?;
        change.execute("INSERT INTO meta (key, value) VALUES ('secret', ?1)", [&secret[..]])?;
        change.pragma_update(None, "user_version", VERSION)?;
        change.commit()
    };
    let named = fill().map_err(|error| database_error(path, error)).and_then(|()| {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, aside, CWD, path, RenameFlags::NOREPLACE) {
            // Another process was quicker: its state is the state.
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            // A file system that can't; a hard link doesn't replace either.
            Err(_) => match std::fs::hard_link(aside, path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    Err(LedgerError::Directory { path: path.to_path_buf(), error })
                }
                _ => Ok(()),
            },
        }
    });
    // It has its name, or isn't needed.
    remove_aside(aside);
    named
}

/// Removes what was laid out and not named, with the journal by which SQLite would take a new one of that name for damaged.
pub(super) fn remove_aside(aside: &Path) {
    for suffix in ["", "-journal"] {
        // What can't be removed is in nobody's way: it is opened as it is, or that says why not.
        let _ = std::fs::remove_file(beside(aside, suffix));
    }
}

/// Checks the database, and gives its secret.
pub(super) fn prepare(db: &mut Connection, path: &Path) -> Result<[u8; 16], LedgerError> {
    let wrong = |error| database_error(path, error);
    let broken = |reason: String| LedgerError::Broken { path: path.to_path_buf(), reason };
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(wrong)?;
    if version > VERSION {
        return Err(LedgerError::Newer { path: path.to_path_buf(), found: version });
    }
    if version == 0 {
        return Err(broken(NO_STATE.to_owned()));
    }
    let verdict: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(wrong)?;
    if verdict != "ok" {
        return Err(broken(verdict));
    }
    db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).map_err(wrong)?;
    if version < VERSION {
        bring_up_to_date(db).map_err(wrong)?;
    }
    db.query_row("SELECT value FROM meta WHERE key = 'secret'", [], |row| row.get(0)).map_err(wrong)
}

/// What a layout lacks of the next one, from layout 1 on.
const STEPS: [&str; 2] = [include_str!("../from-1-to-2.sql"), include_str!("../from-2-to-3.sql")];

/// Gives a state of an older layout what it lacks.
fn bring_up_to_date(db: &mut Connection) -> rusqlite::Result<()> {
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // As it is now: another process may have been quicker.
    let version = change.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))?;
    for (step, layout) in STEPS.iter().zip(1..) {
        if version <= layout {
            change.execute_batch(step)?;
        }
    }
    change.pragma_update(None, "user_version", VERSION.max(version))?;
    change.commit()
}

pub(super) fn forget_if_possible(db: &Connection) {
    // On a full disk, or where another process writes just now, what can be forgotten waits for the next time.
    let forgotten = believed::at_last_look(db).and_then(|now| forget(db, now, LOGS_MAX));
    forgotten.unwrap_or_else(|error| tracing::debug!(%error, "nothing forgotten"));
}

/// Forgets logs that are done with, so that the state is bounded however many years of rotations it sees: those that
/// nobody follows any more and of which all is settled.
pub(super) fn forget(db: &Connection, now: Timestamp, most: i64) -> rusqlite::Result<()> {
    let oldest = now.saturating_sub(FORGET_AFTER).map_or(i64::MIN, Timestamp::as_microsecond);
    let forgotten = db.execute(
        "WITH done AS (
             SELECT id, last_read FROM log WHERE last_read IS NOT NULL
             AND (ended <> 0 OR NOT EXISTS (SELECT 1 FROM range WHERE log = log.id AND until_offset IS NULL))
             AND NOT EXISTS (
                 SELECT 1 FROM range of, range own WHERE of.log = log.id AND own.log = log.id AND own.site = 0
                 AND of.until_offset IS NULL AND own.until_offset IS NULL AND of.watermark < own.watermark
                 AND log.ended <> 2
             ))
         DELETE FROM log WHERE id IN (
             SELECT id FROM done WHERE last_read < ?1
             UNION SELECT id FROM (SELECT id FROM done ORDER BY last_read DESC LIMIT -1 OFFSET ?2))",
        params![oldest, most],
    )?;
    if forgotten > 0 {
        db.execute("DELETE FROM range WHERE log NOT IN (SELECT id FROM log)", [])?;
        db.execute("DELETE FROM sent WHERE range NOT IN (SELECT id FROM range)", [])?;
        db.execute("DELETE FROM outline WHERE log NOT IN (SELECT id FROM log)", [])?;
        db.execute(
            "DELETE FROM meta WHERE key GLOB 'read-before-*' AND CAST(substr(key, 13) AS INTEGER) NOT IN (SELECT id FROM log)",
            [],
        )?;
        tracing::debug!(logs = forgotten, "forgot logs that were done with long ago");
    }
    Ok(())
}

/// Bytes that must be free: some times what the outcomes of all that is in flight need, in the database and in its log.
const ROOM: usize = 512 * 1024;

/// Whether the outcomes of what is in flight can be written, as far as it depends on the disk's room.
pub(super) fn has_room(state_dir: &Path) -> bool {
    let written = tempfile::tempfile_in(state_dir).and_then(|mut file| file.write_all(&vec![0; ROOM]));
    // What else may be wrong, the database will tell.
    !written.is_err_and(|error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

/// SQLite's WAL needs shared memory, which network file systems don't have.
pub(super) fn refuse_network(state_dir: &Path) -> Result<(), LedgerError> {
    // NFS, SMB, CIFS, SMB2, AFS, Ceph: the magic numbers of statfs(2).
    const NETWORK: [u64; 6] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x5346_414f, 0x00c3_6400];
    match rustix::fs::statfs(state_dir) {
        Ok(stat) if NETWORK.contains(&(stat.f_type as u64 & 0xffff_ffff)) => {
            Err(LedgerError::Network(state_dir.to_path_buf()))
        }
        // What kind of file system it is can't be told: the database will say if it doesn't work.
        _ => Ok(()),
    }
}

/// The owner of a directory that root writes to for another; `None`: nobody else's, or this isn't root.
fn other_owner(state_dir: &Path) -> Option<(u32, u32)> {
    let owner = std::fs::metadata(state_dir).ok()?;
    (rustix::process::geteuid().is_root() && owner.uid() != 0).then(|| (owner.uid(), owner.gid()))
}

/// Where root writes into another's directory, none of the state's files may be a link: what it leads to would be written
/// to, and given away.
pub(super) fn refuse_links(state_dir: &Path) -> Result<(), LedgerError> {
    if other_owner(state_dir).is_none() {
        return Ok(());
    }
    for name in ["silktail.db", "silktail.db-wal", "silktail.db-shm", "daemon.lock", "backfill.lock"] {
        let path = state_dir.join(name);
        let Ok(meta) = path.symlink_metadata() else { continue };
        if !meta.is_file() || meta.nlink() > 1 {
            let what = if meta.is_file() { "has another hard link" } else { "is a link" };
            let error =
                io::Error::other(format!("{name} {what}, and root writes to no such file in another's directory"));
            return Err(LedgerError::Directory { path: state_dir.to_path_buf(), error });
        }
    }
    Ok(())
}

/// What root creates belongs to the directory's owner, or a first `sudo silktail backfill` would lock the service out.
pub(super) fn give_to_owner(state_dir: &Path, file: &File) {
    if let Some((uid, gid)) = other_owner(state_dir) {
        // Where it can't, the service will say so.
        let _ = std::os::unix::fs::fchown(file, Some(uid), Some(gid));
    }
}

/// The same of what SQLite has made; of a link it is the link itself.
pub(super) fn give_link_to_owner(state_dir: &Path, path: &Path) {
    if let Some((uid, gid)) = other_owner(state_dir) {
        let _ = std::os::unix::fs::lchown(path, Some(uid), Some(gid));
    }
}
