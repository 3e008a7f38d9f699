//! Places in logs. An offset is part of the data: whatever is made of a line carries where the line ends.
//!
//! A position is (source, offset). Nothing here knows that sources are files.

/// A site, as the ledger numbers it: stable across restarts and reloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(pub i64);

/// A log, as the ledger numbers it: one file's content, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId(pub i64);

/// The bytes of one line in its log, its newline included: `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Offset of the line's first byte.
    pub start: u64,
    /// Offset just past the newline: reading resumes here once the line is settled.
    pub end: u64,
}

/// Where an event comes from, and what is settled with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Whose event it is.
    pub site: SiteId,
    /// The log the line was read from.
    pub log: LogId,
    /// The line.
    pub line: Span,
}
