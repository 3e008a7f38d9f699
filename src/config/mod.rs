//! The configuration: as written (`raw`) → as used ([`Config`]); all problems at once ([`Report`]). [`keys`] says which keys
//! there are, and what they mean.

pub mod keys;
mod raw;
mod report;
mod resolve;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use report::Report;
pub use resolve::{Lack, lacks, load, parse_duration, state_dir};

use crate::deliver::{EndpointSettings, PropertyKey};
use crate::format::Format;
use crate::rules::{Hosts, Rules, SiteContext};
use crate::status::access::{Listen, Token};
use crate::visitor::bots::Bots;

/// A configuration in which nothing can be invalid any more.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it was read from.
    pub path: PathBuf,
    /// The files that it was read from: itself, what it includes, certificates. Not those of secrets: they may be root's, and
    /// handed to the service as credentials.
    pub files: Vec<PathBuf>,
    /// Where the ledger lives.
    pub state_dir: PathBuf,
    /// What holds for sites that don't say otherwise.
    pub endpoint: EndpointSettings,
    /// How logs are followed.
    pub follow: Follow,
    /// Where metrics, health and the status page are; `None`: nowhere.
    pub status: Option<Status>,
    /// The user's formats, in file order.
    pub formats: Vec<Format>,
    /// In file order: the first that fits a host wins.
    pub sites: Vec<Site>,
    /// What the user expects of lines, in file order.
    pub tests: Vec<Expectation>,
}

/// Where metrics, health and the status page are, and who may see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Where it listens.
    pub listen: Listen,
    /// What those who ask must know; `None`: whoever reaches it may see it.
    pub token: Option<Token>,
}

/// What the user expects of a line (`[[test]]`).
#[derive(Debug, Clone)]
pub struct Expectation {
    /// Where it stands: file, line, column.
    pub place: String,
    /// The line; of several, the last is meant, after the others.
    pub line: String,
    /// The site whose rules are meant, where `hosts` doesn't tell.
    pub site: Option<String>,
    /// What must come of it.
    pub want: Want,
}

/// What must come of a line; `None` and absent keys may be anything.
#[derive(Debug, Clone, Default)]
pub struct Want {
    /// The fate's name.
    pub outcome: String,
    /// Why it was excluded, a bot or a repeat.
    pub reason: Option<String>,
    /// The event's name.
    pub event: Option<String>,
    /// The event's URL.
    pub url: Option<String>,
    /// The POST's URL.
    pub page: Option<String>,
    /// The POST's address.
    pub ip: Option<String>,
    /// Further keys of the event.
    pub properties: Vec<(String, String)>,
}

/// How logs are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follow {
    /// Where to begin in logs that a new pattern matches.
    pub start: Start,
    /// Longest line, in bytes.
    pub max_line: usize,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// After the last newline.
    End,
    /// At the first byte.
    Beginning,
}

/// How a site's logs are read.
#[derive(Debug, Clone)]
pub enum FormatChoice {
    /// By their first lines.
    Auto,
    /// So.
    Fixed(Format),
}

/// One site.
#[derive(Debug, Clone)]
pub struct Site {
    /// Identifies the site in the state.
    pub name: String,
    /// What its rules know of it.
    pub context: SiteContext,
    /// Its property.
    pub property_key: PropertyKey,
    /// Where its events go.
    pub endpoint: EndpointSettings,
    /// Paths or globs.
    pub logs: Vec<String>,
    /// How they are read.
    pub format: FormatChoice,
    /// `hosts`, where it is given.
    pub hosts: Option<Hosts>,
    /// By the log's time.
    pub repeat_window: Duration,
    /// `None`: bots are sent.
    pub bots: Option<Arc<Bots>>,
    /// Clients that never count.
    pub exclude_ips: Vec<IpNet>,
    /// Proxies that are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether DNT and Sec-GPC are obeyed.
    pub respect_dnt: bool,
    /// First match decides.
    pub rules: Rules,
}

/// A configuration that can be used, and what is odd about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings only.
    pub warnings: Report,
}
