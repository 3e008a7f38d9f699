//! What can be seen of a silktail from outside: the live picture beside the state, metrics, health, the status page.

pub mod access;
pub mod counters;
pub mod exposition;
pub mod history;
pub mod live;
pub mod logs;
pub mod metrics;
pub mod page;
pub mod picture;
pub mod server;
pub mod words;
