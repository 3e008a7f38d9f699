//! From entry to event: the first rule that fits decides, and says what the event is. Pure.

mod condition;
mod prefilter;
mod sieve;
mod site;
mod template;

use std::sync::Arc;
use std::time::Duration;

pub use condition::{Conditions, Extensions, Miss, RefererCondition};
pub use prefilter::{Finds, Prefilter};
pub use site::{BaseUrl, Hosts, KeepQuery, PageSource, RefererKind, SiteContext};
pub use template::{Template, TemplateError};

use crate::entry::Entry;
use crate::format::Glance;

/// What a site without rules counts: documents, data, archives, installers, books, and media that is downloaded.
pub const DEFAULT_EXTENSIONS: [&str; 33] = [
    "pdf", "doc", "docx", "xls", "xlsx", "ppt", "pptx", "odt", "ods", "odp", "rtf", "csv", "txt", "epub", "mobi",
    "ics", "vcf", "zip", "7z", "rar", "tar", "gz", "tgz", "bz2", "xz", "dmg", "exe", "msi", "pkg", "deb", "rpm", "apk",
    "iso",
];

/// One rule of a site.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The event's name; `None`: lines that fit are excluded.
    pub event: Option<Arc<str>>,
    /// What must be so.
    pub conditions: Conditions,
    /// The event's URL, where it isn't the request's own.
    pub url: Option<Template>,
    /// Further keys of the event.
    pub properties: Vec<(String, Template)>,
    /// This rule's own window.
    pub repeat_window: Option<Duration>,
}

/// A site's rules, in order.
#[derive(Debug, Clone)]
pub struct Rules(pub Vec<Rule>);

impl Rules {
    /// The rule of a site without rules: downloads.
    pub fn downloads(statuses: Vec<u16>) -> Self {
        let extensions: Vec<String> = DEFAULT_EXTENSIONS.iter().map(|extension| (*extension).to_owned()).collect();
        let conditions = Conditions {
            extensions: Some(Extensions::new(&extensions)),
            methods: Some(vec!["GET".to_owned()]),
            statuses: Some(statuses),
            ..Conditions::default()
        };
        let event = Some("download".into());
        Self(vec![Rule { event, conditions, url: None, properties: Vec::new(), repeat_window: None }])
    }

    /// Whether a glance at a line is likely to show that no rule fits: each asks for a path or an extension.
    pub fn are_worth_a_glance(&self) -> bool {
        let asks = |rule: &Rule| rule.conditions.path.is_some() || rule.conditions.extensions.is_some();
        self.0.iter().all(asks)
    }

    /// Whether any rule may fit a line, by what a glance at it has shown.
    pub fn may_fit(&self, seen: &Glance<'_>) -> bool {
        self.0.iter().any(|rule| rule.conditions.may_fit(seen))
    }

    /// The first rule that fits, and its index.
    pub fn first_match(&self, entry: &Entry<'_>, site: &SiteContext) -> Option<(usize, &Rule)> {
        self.0.iter().enumerate().find(|(_, rule)| rule.conditions.miss(entry, site).is_none())
    }
}

impl Rule {
    /// The event's URL: the rule's, or the request's own; and whether it is plain (see [`SiteContext::own_url_in`]). `None`: it
    /// can't be told.
    pub fn url(&self, entry: &Entry<'_>, site: &SiteContext, room: String) -> Option<(String, bool)> {
        match &self.url {
            None => site.own_url_in(entry, room),
            Some(template) => {
                let text = template.render(entry, site, self.conditions.path.as_ref(), true)?;
                site::clean(&text, &KeepQuery::All).map(|url| (url, false))
            }
        }
    }

    /// The event's further keys; an absent value leaves its key out.
    pub fn properties(&self, entry: &Entry<'_>, site: &SiteContext) -> Vec<(String, String)> {
        let value = |template: &Template| template.render(entry, site, self.conditions.path.as_ref(), false);
        self.properties.iter().filter_map(|(name, template)| Some((name.clone(), value(template)?))).collect()
    }
}
