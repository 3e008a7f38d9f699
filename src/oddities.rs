//! What is odd about the lines that are read, said before it is noticed in the numbers. Pure.
//!
//! Two set-up errors don't show as errors: a proxy in front, whose address then stands for every visitor, and a format
//! that doesn't fit. [`FrontProxy`] and [`Fit`] look at what the pipeline makes of the lines; who says it, and how,
//! is for the daemon and for `check`.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::visitor::client::is_private;

/// Lines after which a judgement is made.
const WINDOW: u32 = 100;

/// Why the clients of a log look like a proxy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxied {
    /// More than half of the requests come from private addresses.
    Private,
    /// More than half come from one address.
    One,
}

impl Proxied {
    /// The oddity in words.
    pub fn what(self) -> &'static str {
        match self {
            Proxied::Private => "more than half of the requests that count come from private addresses",
            Proxied::One => "more than half of the requests that count come from one address",
        }
    }

    /// What to do about it.
    pub const HINT: &'static str =
        "a proxy in front? `trusted_proxies` must name it, and the log must have X-Forwarded-For";
}

/// Watches the clients of lines that count for signs of a proxy in front that isn't in `trusted_proxies`.
#[derive(Debug, Default)]
pub struct FrontProxy {
    seen: u32,
    private: u32,
    clients: HashMap<IpAddr, u32>,
    said: bool,
}

impl FrontProxy {
    /// Takes the client of one more line that counts; the finding is given once.
    pub fn see(&mut self, client: IpAddr) -> Option<Proxied> {
        if self.said {
            return None;
        }
        self.seen += 1;
        self.private += u32::from(is_private(client));
        *self.clients.entry(client).or_default() += 1;
        if self.seen < WINDOW {
            return None;
        }
        let found = self.finding();
        *self = Self { said: found.is_some(), ..Self::default() };
        found
    }

    /// What the lines so far say, however few.
    pub fn finding(&self) -> Option<Proxied> {
        let most = self.clients.values().max().copied().unwrap_or(0);
        if self.private * 2 > self.seen {
            Some(Proxied::Private)
        } else if most * 2 > self.seen {
            Some(Proxied::One)
        } else {
            None
        }
    }

    /// Whether there are enough lines for a judgement.
    pub fn is_enough(&self) -> bool {
        self.seen >= WINDOW / 5
    }
}

/// A change in how a log's lines fit its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FitChange {
    /// More than half of the last lines don't fit: how many of how many, and where the first stands.
    Misfits {
        /// Lines that don't fit.
        unfit: u32,
        /// Lines looked at.
        lines: u32,
        /// Byte offset of the first of them.
        first_offset: u64,
    },
    /// They fit again.
    Fits,
}

/// Watches whether the lines of a log fit its format.
#[derive(Debug, Default)]
pub struct Fit {
    lines: u32,
    unfit: u32,
    first_offset: Option<u64>,
    bad: bool,
}

impl Fit {
    /// Takes one more line; a change is given once.
    pub fn see(&mut self, fits: bool, offset: u64) -> Option<FitChange> {
        self.lines += 1;
        if !fits {
            self.unfit += 1;
            self.first_offset.get_or_insert(offset);
        }
        self.judge(offset)
    }

    /// Takes lines that fit; their end is at `offset`.
    pub fn see_fitting(&mut self, lines: u64, offset: u64) -> Option<FitChange> {
        self.lines = self.lines.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.judge(offset)
    }

    fn judge(&mut self, offset: u64) -> Option<FitChange> {
        if self.lines < WINDOW {
            return None;
        }
        let bad = self.unfit * 2 > self.lines;
        let change = match (self.bad, bad) {
            (false, true) => {
                let first_offset = self.first_offset.unwrap_or(offset);
                Some(FitChange::Misfits { unfit: self.unfit, lines: self.lines, first_offset })
            }
            (true, false) => Some(FitChange::Fits),
            _ => None,
        };
        *self = Self { bad, ..Self::default() };
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(clients: impl Iterator<Item = String>) -> Vec<Proxied> {
        let mut watch = FrontProxy::default();
        clients.filter_map(|ip| watch.see(ip.parse().unwrap())).collect()
    }

    #[test]
    fn a_proxy_in_front_shows_in_the_clients_and_is_said_once() {
        let many = |n: u32| format!("192.0.2.{}", n % 250);
        assert_eq!(findings((0..300).map(many)), [], "visitors from everywhere");
        assert_eq!(findings((0..99).map(|_| "10.0.0.1".to_owned())), [], "too few to tell");
        assert_eq!(findings((0..300).map(|n| format!("10.0.{}.1", n % 200))), [Proxied::Private]);
        assert_eq!(findings((0..300).map(|_| "203.0.113.9".to_owned())), [Proxied::One]);
        let half = |n: u32| if n.is_multiple_of(2) { many(n) } else { "10.0.0.1".to_owned() };
        assert_eq!(findings((0..300).map(half)), [], "half is not more than half");
    }

    #[test]
    fn a_format_that_stops_fitting_is_said_once_and_so_is_its_return() {
        let mut fit = Fit::default();
        let changes: Vec<FitChange> =
            (0..500_u64).filter_map(|line| fit.see(!(100..300).contains(&line), line * 10)).collect();
        let misfits = FitChange::Misfits { unfit: 100, lines: 100, first_offset: 1_000 };
        assert_eq!(changes, [misfits, FitChange::Fits]);
        // Most lines are only glanced at, and those that don't fit are read.
        let mut fit = Fit::default();
        let read = |fit: &mut Fit, line: u64| fit.see(false, line).or_else(|| fit.see_fitting(20, line + 20));
        assert!((0..1_000_u64).all(|line| read(&mut fit, line * 21).is_none()), "a little garbage is no wrong format");
        let mut fit = Fit::default();
        assert!((0..1_000_u64).all(|line| fit.see(line % 2 == 0, line).is_none()), "half garbage is no wrong format");
    }
}
