//! silktail follows web servers' access logs and records the requests that matter as events in Silktide Analytics.
//!
//! The modules, in the order in which the data meets them:
//!
//! 1. `follow` finds the logs and reads each on across its life; `lines` cuts the bytes into lines.
//! 2. [`mod@format`] makes an [`entry::Entry`] of a line.
//! 3. [`rules`] decide which entries are events; [`visitor`] whose request it was and whether it counts.
//! 4. [`pipeline`] is that path on one screen: every line has exactly one fate.
//! 5. [`batch`] brings the events of one visitor on one page together; [`deliver`] POSTs them.
//! 6. [`ledger`] remembers what is settled, so that a restart goes on where it stopped.
//!
//! [`daemon`] and [`backfill`] wire these together; [`cli`] is the face, [`config`] what the user wrote.

pub mod cli;
pub mod entry;
pub mod event;
pub mod offsets;
