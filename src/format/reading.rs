//! What reading a log remembers from line to line: a [`Format`](super::Format) is shared and never changes.

use std::cell::RefCell;
use std::sync::Arc;

use jiff::Timestamp;

use super::slot::Last;
use super::w3c::Columns;

/// Where the reading of one log stands, as far as the meaning of its next line depends on it. Cheap to clone.
///
/// A reading that begins in the middle of a log must have been shown the lines before that matter:
/// [`Format::directives`](super::Format::directives).
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// The time of the last line that had one: it decides between the two readings of autumn's repeated hour.
    pub(crate) time: Option<Timestamp>,
    /// How it was written, where that is all it depends on.
    pub(super) last: RefCell<Last>,
    /// What the last `#Fields:` line says of the lines after it.
    pub(super) columns: Option<Arc<Columns>>,
    /// The day of the last `#Date:` line, for lines with a clock alone.
    pub(super) date: Option<Box<[u8; 10]>>,
}
