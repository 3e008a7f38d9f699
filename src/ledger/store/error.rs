//! Why the state can't be used.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::state::VERSION;

/// Why the state can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The directory or a file in it.
    #[error("cannot use state_dir `{}`: {error}; it must be a directory on a local disk that this user may write to", .path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another process holds it.
    #[error("state_dir `{}` is in use by another silktail {who}; stop it first, or give each its own state_dir", .path.display())]
    Locked {
        /// Which.
        path: PathBuf,
        /// `daemon`, or what may run beside it.
        who: &'static str,
    },
    /// A network file system.
    #[error("state_dir `{}` is on a network file system, which cannot hold the state safely; use a local disk", .0.display())]
    Network(PathBuf),
    /// A newer version wrote it.
    #[error("the state in `{}` was written by a newer silktail (layout {found}, this one knows {VERSION}); use that version", .path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its layout.
        found: i64,
    },
    /// Not a database, or a damaged one.
    #[error("the state in `{}` cannot be read ({reason}); restore it, or begin anew with `silktail run --state-reset`, which keeps the broken file", .path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
        /// SQLite's words.
        reason: String,
    },
    /// Another program has locked it.
    #[error("another process has the state in `{}` locked; end it (a sqlite3 shell, a backup), then try again", .0.display())]
    Busy(PathBuf),
    /// The disk is so full that what is sent could not be remembered.
    #[error("there is no room for the state in `{}`; free disk space: nothing is sent until then", .0.display())]
    NoRoom(PathBuf),
    /// Any other trouble with the database.
    #[error("cannot read or write the state in `{}`: {error}", .path.display())]
    Database {
        /// Which file.
        path: PathBuf,
        /// SQLite's words.
        error: rusqlite::Error,
    },
    /// The disk is full, or fails, or another program has locked it; the writer goes on trying.
    #[error("the state in `{}` can't be written now", .0.display())]
    Stuck(PathBuf),
    /// The writer's thread is gone.
    #[error("the state's writer has ended")]
    WriterGone,
}

impl LedgerError {
    /// Whether it may be over in a while without anybody touching the state: a full disk, a lock that is held, a file system
    /// that is read-only just now. That is also what SQLite says where another process closes the state at that moment.
    pub fn is_passing(&self) -> bool {
        match self {
            LedgerError::Stuck(_) | LedgerError::Busy(_) | LedgerError::NoRoom(_) => true,
            LedgerError::Database { error, .. } => matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::DiskFull
                        | ErrorCode::SystemIoFailure
                        | ErrorCode::DatabaseLocked
                        | ErrorCode::CannotOpen
                        | ErrorCode::ReadOnly
                )
            ),
            _ => false,
        }
    }
}

pub(super) fn database_error(path: &Path, error: rusqlite::Error) -> LedgerError {
    let path = path.to_path_buf();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            LedgerError::Broken { path, reason: error.to_string() }
        }
        Some(ErrorCode::DatabaseBusy) => LedgerError::Busy(path),
        _ => LedgerError::Database { path, error },
    }
}
