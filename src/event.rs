//! What a line becomes when a rule says that it counts.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::offsets::Origin;

/// Who made the request, as the API asks for it: these name the visitor, so only events that agree on all of them share a POST.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Visitor {
    /// The client's address, IPv4-mapped forms undone.
    pub ip: IpAddr,
    /// The user agent as sent (lossy UTF-8).
    pub user_agent: String,
    /// CSS pixels, where the log or the site's settings know it.
    pub view_width: Option<u32>,
}

/// One event with all that its delivery needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Whose request it was.
    pub visitor: Visitor,
    /// The page: the POST's `url`.
    pub page: String,
    /// The event's name: `download`.
    pub name: Arc<str>,
    /// The event's own URL.
    pub url: String,
    /// Further keys of the event object, in the rule's order; absent values have been left out.
    pub properties: Vec<(String, String)>,
    /// When the log says that it happened.
    pub time: Option<Timestamp>,
    /// The line it stands for.
    pub origin: Origin,
}
