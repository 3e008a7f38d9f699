//! Whose request it is ([`client`]), whether it is a bot's ([`bots`]), whether it was just counted ([`repeats`]). Pure.

pub mod bots;
pub mod client;
pub mod repeats;
