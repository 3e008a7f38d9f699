//! What can be seen of silktail from outside: the ledger's counts, and what the running daemon knows beside it.

pub mod live;
