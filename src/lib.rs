//! silktail follows web servers' access logs and records the requests that matter as events in Silktide Analytics.
//!
//! The modules, in the order in which the data meets them:
//!
//! 1. [`follow`] finds the logs and reads each on across its life; [`lines`] cuts the bytes into lines.
//! 2. [`mod@format`] makes an [`entry::Entry`] of a line.
//! 3. [`rules`] decide which entries are events; [`visitor`] whose request it was and whether it counts.
//! 4. [`pipeline`] is that path on one screen: every line has exactly one fate.
//! 5. [`batch`] brings the events of one visitor on one page together; [`deliver`] POSTs them; [`outbox`] bounds what
//!    waits.
//! 6. [`ledger`] remembers what is settled, so that a restart goes on where it stopped.
//!
//! [`oddities`] says what is odd about the lines while they pass.
//!
//! [`daemon`] and [`mod@backfill`] wire these together, [`background`] being the thread for what is asynchronous; a backfill
//! ends with its [`summary`], which [`report`] shows as a page. [`cli`] is the face, [`config`] what the user wrote,
//! [`status`] what can be seen from outside, [`journal`] how log lines look, [`receive`] an endpoint to try it all with,
//! [`setup`] what the web servers' own configuration says.

pub mod backfill;
pub mod background;
pub mod batch;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod deliver;
pub mod entry;
pub mod event;
pub mod follow;
pub mod format;
mod frequent;
pub mod journal;
pub mod ledger;
pub mod lines;
pub mod oddities;
pub mod offsets;
pub mod outbox;
pub mod pipeline;
pub mod receive;
pub mod report;
pub mod rules;
pub mod setup;
mod sixteen;
mod small_file;
pub mod status;
pub mod summary;
pub mod visitor;
