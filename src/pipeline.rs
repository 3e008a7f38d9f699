//! The whole path of a line on one screen: format, site, rule, exclusions, bots, repeats. Pure.
//!
//! A [`Pipeline`] belongs to one log: its format and the sites that read it. [`Pipeline::take`] gives every line
//! exactly one [`Outcome`].

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::tz::TimeZone;

use crate::entry::{Entry, lossy};
use crate::event::{Clean, Event, Visitor};
use crate::format::{Format, Glimpse, Marks, Quoted, Reading};
use crate::ledger::Counts;
use crate::lines::{Cut, Line};
use crate::offsets::{LogId, Origin, SiteId};
use crate::rules::{Hosts, Prefilter, Rule, Rules, SiteContext};
use crate::visitor::bots::Bots;
use crate::visitor::client;
use crate::visitor::repeats::{Repeats, Touch, Verdict};

/// A site as the pipeline sees it: compiled, nothing left to go wrong.
#[derive(Debug)]
pub struct Site {
    /// The ledger's number for it.
    pub id: SiteId,
    /// Its name in the configuration.
    pub name: String,
    /// What rules and templates know of it.
    pub context: SiteContext,
    /// The hosts that route a shared log's lines; `None`: every line is the site's.
    pub hosts: Option<Hosts>,
    /// First match decides.
    pub rules: Rules,
    /// `None`: bots count too.
    pub bots: Option<Arc<Bots>>,
    /// Clients that never count.
    pub exclude_ips: Vec<IpNet>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Leaves out requests with `DNT: 1` or `Sec-GPC: 1`.
    pub respect_dnt: bool,
    /// How long the same visitor's same request is a repeat, by the log's time.
    pub repeat_window: Duration,
}

/// The names of the fates, in the order in which they are decided.
pub const FATES: [&str; 7] = ["too_long", "unparsed", "unmatched", "excluded", "bot", "repeat", "event"];

/// The one fate of a line, in the order in which it is decided.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Longer than `max_line`.
    TooLong,
    /// Doesn't fit the format.
    Unparsed,
    /// No rule fits.
    Unmatched,
    /// A rule, a site setting or the host says no: the reason.
    Excluded(&'static str),
    /// The user agent is a program's: which kind.
    Bot(&'static str),
    /// The same visitor fetched the same thing within the window.
    Repeat,
    /// It counts.
    Event(Box<Event>),
}

impl Outcome {
    /// The outcome's name in every output.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::TooLong => "too_long",
            Outcome::Unparsed => "unparsed",
            Outcome::Unmatched => "unmatched",
            Outcome::Excluded(_) => "excluded",
            Outcome::Bot(_) => "bot",
            Outcome::Repeat => "repeat",
            Outcome::Event(_) => "event",
        }
    }

    /// Why, where the name alone doesn't say it.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Outcome::Excluded(reason) | Outcome::Bot(reason) => Some(reason),
            Outcome::Repeat => Some("window"),
            _ => None,
        }
    }

    /// Counts one line of this fate.
    pub fn count(&self, counts: &mut Counts) {
        counts.lines += 1;
        *match self {
            Outcome::TooLong => &mut counts.too_long,
            Outcome::Unparsed => &mut counts.unparsed,
            Outcome::Unmatched => &mut counts.unmatched,
            Outcome::Excluded(_) => &mut counts.excluded,
            Outcome::Bot(_) => &mut counts.bot,
            Outcome::Repeat => &mut counts.repeat,
            Outcome::Event(_) => &mut counts.event,
        } += 1;
    }
}

/// A line's fate, and whose it is.
#[derive(Debug)]
pub struct Taken {
    /// Index into the pipeline's sites; `None`: the line can't be given to a site and counts at its log.
    pub site: Option<usize>,
    /// Index of the rule that decided.
    pub rule: Option<usize>,
    /// The fate.
    pub outcome: Outcome,
    /// Whose request it is, where a rule fits and it isn't a bot's: what tells of a proxy in front.
    pub client: Option<IpAddr>,
    /// How long the same request is a repeat of an event: zero once that was asked, and where it is never asked.
    pub window: Duration,
}

impl Taken {
    fn of(site: Option<usize>, outcome: Outcome) -> Self {
        Self { site, rule: None, outcome, client: None, window: Duration::ZERO }
    }

    /// The last question, and the only one that depends on other lines: whether it is a repeat. To be asked of lines in
    /// their order. Gives the window's entry after this line.
    pub fn ask(&mut self, repeats: &mut Repeats) -> Option<Touch> {
        let window = std::mem::take(&mut self.window);
        let Outcome::Event(event) = &self.outcome else { return None };
        // Without a time there is no telling how far apart two requests were: each counts.
        let time = event.time.filter(|_| !window.is_zero())?;
        let Visitor { ip, user_agent, .. } = &event.visitor;
        let key = repeats.key(event.origin.site, &event.name, &event.url, *ip, user_agent);
        let (verdict, touch) = repeats.take(key, time, window, event.origin);
        if verdict == Verdict::Repeat {
            self.outcome = Outcome::Repeat;
        }
        Some(touch)
    }
}

/// One log's way from line to outcome.
#[derive(Debug)]
pub struct Pipeline {
    /// How the log's lines are read.
    pub format: Format,
    /// The sites that read it, in file order.
    pub sites: Vec<Arc<Site>>,
    /// What every line must hold that may become an event; `None`: nothing in particular, each line is parsed.
    pub prefilter: Option<Prefilter>,
    /// Whether a glance at a line is worth its while, where there is nothing to search for.
    pub glances: bool,
    /// What lines are told by that can be glanced at, or read by their quotes.
    pub marks: Marks,
}

impl Pipeline {
    /// A log's way, for the sites that read it, in file order.
    pub fn new(format: Format, sites: Vec<Arc<Site>>) -> Self {
        // Where sites share a log, each line is parsed, so that it counts for the site it belongs to.
        let prefilter = match sites.as_slice() {
            [site] if site.hosts.is_none() && format.can_be_searched() => Prefilter::new(&site.rules),
            _ => None,
        };
        let glances = match sites.as_slice() {
            [site] if prefilter.is_none() && site.hosts.is_none() => {
                format.can_be_glanced_at() && site.rules.are_worth_a_glance()
            }
            _ => false,
        };
        // A glance reads nothing that goes into JSON; and what a format has itself is in each of its lines.
        let marks = Marks { quotes: format.quotes(), clean: !glances && !format.has_controls() };
        Self { format, sites, prefilter, glances, marks }
    }

    /// Whether a glance is enough to see that none of the only site's rules fits a line, whatever else is in it.
    pub fn passes(&self, line: &[u8], quotes: Quoted<'_>, glimpse: &mut Glimpse) -> bool {
        let Some(seen) = self.format.glance(line, quotes, glimpse) else { return false };
        self.sites.first().is_some_and(|site| !site.rules.may_fit(&seen))
    }

    /// Decides the fate of the next line of a reading.
    pub fn take(&self, cut: Cut<'_>, log: LogId, reading: &mut Reading, repeats: &mut Repeats) -> Taken {
        let mut taken = self.judge(cut, log, reading);
        taken.ask(repeats);
        taken
    }

    /// Decides it but for the last question, [`Taken::ask`].
    pub fn judge(&self, cut: Cut<'_>, log: LogId, reading: &mut Reading) -> Taken {
        let Cut::Line(line) = cut else { return self.unowned(Outcome::TooLong) };
        let entry = self.format.parse_in(reading, line.bytes);
        self.judge_parsed(entry.as_ref(), line, log)
    }

    /// The same of a line that was parsed already; `None`: it doesn't fit the format.
    pub fn judge_parsed(&self, entry: Option<&Entry<'_>>, line: Line<'_>, log: LogId) -> Taken {
        let Some(entry) = entry else { return self.unowned(Outcome::Unparsed) };
        // It fits the format, but is no request that a rule or a host could be asked about.
        if self.format.is_directive(line.bytes) {
            return self.unowned(Outcome::Unmatched);
        }
        let Some(index) = self.route(entry) else {
            return Taken::of(None, Outcome::Excluded("host"));
        };
        let site = &self.sites[index];
        let Some((rule_index, rule)) = site.rules.first_match(entry, &site.context) else {
            return Taken::of(Some(index), Outcome::Unmatched);
        };
        let origin = Origin { site: site.id, log, line: line.span };
        let mut client = None;
        let outcome = site.judge(entry, rule, origin, self.format.zone(), &mut client);
        let window = rule.repeat_window.unwrap_or(site.repeat_window);
        Taken { rule: Some(rule_index), client, window, ..Taken::of(Some(index), outcome) }
    }

    /// The site whose line this is. The first site in file order wins.
    ///
    /// Where the format has no host, the lines are the only site's; of several, the first's that takes every host, or nobody's.
    pub fn route(&self, entry: &Entry<'_>) -> Option<usize> {
        if self.is_one_sites() {
            return Some(0);
        }
        let untold = self.sites.len() == 1 && !self.format.gives("host");
        self.sites.iter().position(|site| match (&site.hosts, entry.host.as_deref()) {
            (None, _) => true,
            (Some(hosts), Some(host)) => hosts.contains(&lossy(host)),
            (Some(_), None) => untold,
        })
    }

    /// Whether sites share lines that can be given to none of them.
    pub fn lacks_the_host(&self) -> bool {
        self.sites.len() > 1 && !self.format.gives("host") && self.sites.iter().all(|site| site.hosts.is_some())
    }

    /// Whether one site reads the log, and takes every host: all lines are its own.
    pub fn is_one_sites(&self) -> bool {
        matches!(self.sites.as_slice(), [site] if site.hosts.is_none())
    }

    /// A line that tells no host is the only site's, if that takes every host.
    fn unowned(&self, outcome: Outcome) -> Taken {
        Taken::of(self.is_one_sites().then_some(0), outcome)
    }
}

/// Whether a header is set, as `DNT: 1` and `Sec-GPC: 1` are; in a log that is JSON it may be a boolean.
fn is_set(value: &[u8]) -> bool {
    matches!(value, b"1" | b"true")
}

impl Site {
    /// The fate of an entry that a rule fits. Sets the client of a line that a person's browser may have caused.
    fn judge(
        &self,
        entry: &Entry<'_>,
        rule: &Rule,
        origin: Origin,
        zone: &TimeZone,
        client: &mut Option<IpAddr>,
    ) -> Outcome {
        let Some(name) = &rule.event else { return Outcome::Excluded("rule") };
        let Some(ip) = client::client(entry, &self.trusted_proxies) else { return Outcome::Excluded("client") };
        if self.exclude_ips.iter().any(|network| network.contains(&ip)) {
            return Outcome::Excluded("ip");
        }
        if self.respect_dnt && entry.dnt.as_deref().is_some_and(is_set) {
            return Outcome::Excluded("dnt");
        }
        if self.respect_dnt && entry.gpc.as_deref().is_some_and(is_set) {
            return Outcome::Excluded("gpc");
        }
        if entry.status == Some(206) && entry.range.as_deref().is_some_and(|range| !begins_a_download(range)) {
            return Outcome::Excluded("range");
        }
        let mut event = Event::room(name, origin);
        let Some((url, is_plain)) = rule.url(entry, &self.context, std::mem::take(&mut event.url)) else {
            return Outcome::Excluded("url");
        };
        let Some(page) = self.context.page(entry, rule.url.is_none().then_some(url.as_str())) else {
            return Outcome::Excluded("page");
        };
        event.page.push_str(&page);
        // A page that is borrowed is a part of the line, the URL, or the base URL.
        let is_plain = is_plain && matches!(page, Cow::Borrowed(_));
        drop(page);
        event.url = url;
        if let Some(kind) = self.bots.as_ref().and_then(|bots| bots.reason(entry.user_agent.as_deref())) {
            event.spare();
            return Outcome::Bot(kind);
        }
        *client = Some(ip);
        event.visitor.ip = ip;
        event.visitor.view_width = entry.view_width.or(self.context.view_width);
        if let Some(user_agent) = entry.user_agent.as_deref() {
            event.visitor.user_agent.push_str(&entry.to_str_lossy(user_agent));
        }
        if rule.properties.is_empty() {
            event.properties.clear();
        } else {
            event.properties = rule.properties(entry, &self.context);
        }
        event.clean = Clean(is_plain && entry.line.is_clean && self.context.base_url.is_clean());
        event.time = entry.time;
        event.offset = entry.offset.or_else(|| Some(zone.to_offset(entry.time?).seconds()));
        Outcome::Event(event)
    }
}

/// Whether a range is the beginning of a download: it starts at byte 0, and isn't the two-byte probe of media players
/// (IAB Tech Lab Podcast Measurement 2.3 leaves `bytes=0-1` out).
///
/// Takes a `Range` request header (`bytes=0-`) or a `Content-Range` response header (`bytes 0-499/1234`).
fn begins_a_download(range: &[u8]) -> bool {
    let unit = range.get(..5).is_some_and(|unit| unit.eq_ignore_ascii_case(b"bytes"));
    let spec = if unit { &range[5..] } else { range };
    let spec = spec.strip_prefix(b"=").unwrap_or(spec).trim_ascii();
    let first = spec.split(|&b| b == b',' || b == b'/').next().unwrap_or_default().trim_ascii();
    first.starts_with(b"0-") && first != b"0-1"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_range_from_the_first_byte_begins_a_download() {
        for (name, range, want) in [
            ("whole", "bytes=0-", true),
            ("any case", "Bytes=0-", true),
            ("first part", "bytes=0-65535", true),
            ("later part", "bytes=65536-", false),
            ("probe", "bytes=0-1", false),
            ("the last bytes", "bytes=-500", false),
            ("several", "bytes=0-99, 200-299", true),
            ("of the response", "bytes 0-499/1234", true),
            ("probe of the response", "bytes 0-1/1234", false),
            ("garbage", "x", false),
        ] {
            assert_eq!(begins_a_download(range.as_bytes()), want, "{name}");
        }
    }
}
