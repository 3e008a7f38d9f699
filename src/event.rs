//! What a line becomes when a rule says that it counts.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
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
    /// Of page, URL and user agent.
    pub clean: Clean,
    /// When the log says that it happened.
    pub time: Option<Timestamp>,
    /// Seconds east of UTC of the log's clock then: its day may be another than ours.
    pub offset: Option<i32>,
    /// The line it stands for.
    pub origin: Origin,
}

/// Whether texts are known to need no escape in JSON (RFC 8259, section 7). That is how an event is written, not what it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clean(pub bool);

impl PartialEq for Clean {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

thread_local! {
    /// Events that nobody needs any more.
    static SPARE: RefCell<Spared> = const { RefCell::new(Vec::new()) };
}

/// They go from hand to hand as boxes.
pub(crate) type Spared = Vec<Box<Event>>;

/// As many as are made of some blocks of a log before the first of them is written.
const SPARE_MAX: usize = 2_048;
/// Bytes that its texts have room for, if it is kept: one that an attacker filled is no use to the others.
const SPARE_TEXTS_MAX: usize = 4 * 1024;

impl Event {
    /// What it takes in memory beside its texts, with all that is kept of it on the way: rather too much.
    pub(crate) const OVERHEAD: usize = 512;

    /// Bytes of memory that it takes. It stays the same as long as the event does.
    pub(crate) fn weight(&self) -> usize {
        let properties: usize = self.properties.iter().map(|(name, value)| name.len() + value.len()).sum();
        Self::OVERHEAD + self.visitor.user_agent.len() + self.page.len() + self.url.len() + properties
    }

    /// Room for an event, its texts empty: where each line is one, asking the system for it takes longer than reading does.
    pub(crate) fn room(name: &Arc<str>, origin: Origin) -> Box<Event> {
        if let Some(mut event) = SPARE.with_borrow_mut(Vec::pop) {
            // Mostly the same one.
            if !Arc::ptr_eq(&event.name, name) {
                event.name = Arc::clone(name);
            }
            event.origin = origin;
            return event;
        }
        let visitor = Visitor { ip: Ipv4Addr::UNSPECIFIED.into(), user_agent: String::new(), view_width: None };
        let (page, url) = (String::new(), String::new());
        Box::new(Event {
            visitor,
            page,
            name: Arc::clone(name),
            url,
            properties: Vec::new(),
            clean: Clean::default(),
            time: None,
            offset: None,
            origin,
        })
    }

    /// What this thread has let go of, for another that makes events.
    pub(crate) fn spared() -> Spared {
        SPARE.take()
    }

    /// Takes what another thread has let go of.
    pub(crate) fn take_spared(mut events: Spared) {
        SPARE.with_borrow_mut(|spare| {
            events.truncate(SPARE_MAX.saturating_sub(spare.len()));
            if spare.is_empty() { *spare = events } else { spare.append(&mut events) }
        });
    }

    /// Lets go of an event on the thread that makes others.
    pub(crate) fn spare(mut self: Box<Self>) {
        let Self { visitor, page, url, properties, .. } = &*self;
        let properties: usize = properties.iter().map(|(name, value)| name.capacity() + value.capacity()).sum();
        if visitor.user_agent.capacity() + page.capacity() + url.capacity() + properties > SPARE_TEXTS_MAX {
            return;
        }
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_MAX {
                [&mut self.visitor.user_agent, &mut self.page, &mut self.url].into_iter().for_each(String::clear);
                spare.push(self);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offsets::{LogId, SiteId, Span};

    #[test]
    fn an_event_whose_texts_are_large_is_not_kept() {
        let name: Arc<str> = "download".into();
        let origin = Origin { site: SiteId(1), log: LogId(1), line: Span { start: 0, end: 10 } };
        for (field, len, kept) in [("page", 1_000, 1), ("page", 5_000, 0), ("url", 5_000, 0), ("user agent", 5_000, 0)]
        {
            drop(Event::spared());
            let mut event = Event::room(&name, origin);
            let text = "x".repeat(len);
            match field {
                "page" => event.page = text,
                "url" => event.url = text,
                _ => event.visitor.user_agent = text,
            }
            event.spare();
            assert_eq!(Event::spared().len(), kept, "{field} of {len} bytes");
        }
    }
}
