//! What a rule asks of an entry, and what it missed.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode;
use regex::bytes::Regex;

use super::{Hosts, RefererKind, SiteContext};
use crate::entry::{Entry, as_bytes_or_text};
use crate::format::Glance;

/// File name extensions, of the path as logged, in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extensions(Vec<String>);

impl Extensions {
    /// Takes them with or without their dot.
    pub fn new(list: &[String]) -> Self {
        Self(list.iter().map(|extension| extension.trim_start_matches('.').to_ascii_lowercase()).collect())
    }

    /// In lower case, without their dots.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    fn matches(&self, path: &[u8]) -> bool {
        let name = memchr::memrchr(b'/', path).map_or(path, |slash| &path[slash + 1..]);
        let Some(dot) = memchr::memrchr(b'.', name) else {
            return false;
        };
        // An extension may have a dot itself: tar.gz.
        self.0.iter().any(|extension| {
            name[dot + 1..].eq_ignore_ascii_case(extension.as_bytes())
                || extension.contains('.')
                    && name.len() > extension.len()
                    && name[name.len() - extension.len() - 1] == b'.'
                    && name[name.len() - extension.len()..].eq_ignore_ascii_case(extension.as_bytes())
        })
    }
}

/// What a rule asks of the referer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RefererCondition {
    /// Nothing.
    #[default]
    Any,
    /// A page of the site.
    SameSite,
    /// Another host's, or none at all: what the Silktide script on the site's own pages can't see.
    External,
    /// None at all.
    None,
}

/// All that a rule asks. `Default` asks nothing.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    /// Of the path as logged.
    pub extensions: Option<Extensions>,
    /// On the percent-decoded path.
    pub path: Option<Regex>,
    /// The requested host.
    pub host: Option<Hosts>,
    /// `None`: any.
    pub methods: Option<Vec<String>>,
    /// `None`: any.
    pub statuses: Option<Vec<u16>>,
    /// On the user agent.
    pub user_agent: Option<Regex>,
    /// Where the visitor came from.
    pub referer: RefererCondition,
}

/// The first condition that an entry misses.
#[derive(Debug, Clone, Copy)]
pub enum Miss<'a> {
    /// The method.
    Method(&'a [u8]),
    /// The status.
    Status(Option<u16>),
    /// The extension.
    Extension(&'a Extensions),
    /// The path.
    Path(&'a Regex),
    /// The host.
    Host,
    /// The user agent.
    UserAgent(&'a Regex),
    /// The referer.
    Referer(RefererCondition),
}

impl fmt::Display for Miss<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Miss::Method(b"") => f.write_str("there is no method"),
            Miss::Method(method) => write!(f, "method is {}", String::from_utf8_lossy(method).escape_debug()),
            Miss::Status(None) => f.write_str("there is no status"),
            Miss::Status(Some(status)) => write!(f, "status is {status}"),
            Miss::Extension(extensions) => write!(f, "extension isn't one of {}", extensions.0.join(", ")),
            Miss::Path(regex) => write!(f, "path isn't like `{regex}`"),
            Miss::Host => f.write_str("host is another"),
            Miss::UserAgent(regex) => write!(f, "user agent isn't like `{regex}`"),
            Miss::Referer(RefererCondition::SameSite) => f.write_str("referer isn't a page of the site"),
            Miss::Referer(RefererCondition::External) => f.write_str("referer is a page of the site"),
            Miss::Referer(_) => f.write_str("there is a referer"),
        }
    }
}

/// The path with its percent-encoding undone.
pub(super) fn decoded_path<'a>(entry: &'a Entry<'_>) -> Cow<'a, [u8]> {
    decoded(entry.path.as_deref().unwrap_or_default())
}

fn decoded(path: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', path).is_none() { Cow::Borrowed(path) } else { percent_decode(path).into() }
}

fn matches(regex: &Regex, bytes: &[u8]) -> bool {
    as_bytes_or_text(bytes, |bytes| regex.is_match(bytes).then_some(())).is_some()
}

impl Conditions {
    /// Whether every entry that fits `other` fits these too, as far as it can be told without comparing regexes' meaning.
    pub fn covers(&self, other: &Conditions) -> bool {
        fn wider<T>(mine: Option<&T>, theirs: Option<&T>, holds: impl Fn(&T, &T) -> bool) -> bool {
            mine.is_none_or(|mine| theirs.is_some_and(|theirs| holds(mine, theirs)))
        }
        let same_regex = |mine: &Regex, theirs: &Regex| mine.as_str() == theirs.as_str();
        let referer = match self.referer {
            RefererCondition::Any => true,
            RefererCondition::External => {
                matches!(other.referer, RefererCondition::External | RefererCondition::None)
            }
            mine => mine == other.referer,
        };
        wider(self.extensions.as_ref(), other.extensions.as_ref(), |mine, theirs| {
            theirs.0.iter().all(|extension| mine.0.contains(extension))
        }) && wider(self.methods.as_ref(), other.methods.as_ref(), |mine, theirs| {
            theirs.iter().all(|method| mine.contains(method))
        }) && wider(self.statuses.as_ref(), other.statuses.as_ref(), |mine, theirs| {
            theirs.iter().all(|status| mine.contains(status))
        }) && wider(self.path.as_ref(), other.path.as_ref(), same_regex)
            && wider(self.user_agent.as_ref(), other.user_agent.as_ref(), same_regex)
            && wider(self.host.as_ref(), other.host.as_ref(), Hosts::covers)
            && referer
    }

    /// Whether a line may fit, by what a glance at it has shown.
    pub fn may_fit(&self, seen: &Glance<'_>) -> bool {
        let method = seen.method.unwrap_or_default();
        // A few bytes: comparing them here costs less than calling what compares many.
        let is_it = |wanted: &String| wanted.len() == method.len() && wanted.bytes().eq(method.iter().copied());
        self.methods.as_ref().is_none_or(|methods| methods.iter().any(is_it))
            && self.statuses.as_ref().is_none_or(|known| seen.status.is_some_and(|status| known.contains(&status)))
            && self.extensions.as_ref().is_none_or(|extensions| extensions.matches(seen.path))
            && self.path.as_ref().is_none_or(|path| match seen.is_plain {
                true => path.is_match(seen.path),
                false => matches(path, &decoded(seen.path)),
            })
    }

    /// The first condition that is missed; `None`: the entry fits.
    pub fn miss<'a>(&'a self, entry: &'a Entry<'_>, site: &SiteContext) -> Option<Miss<'a>> {
        if let Some(methods) = &self.methods {
            let method = entry.method.as_deref().unwrap_or_default();
            if !methods.iter().any(|wanted| wanted.as_bytes() == method) {
                return Some(Miss::Method(method));
            }
        }
        if let Some(statuses) = &self.statuses
            && !entry.status.is_some_and(|status| statuses.contains(&status))
        {
            return Some(Miss::Status(entry.status));
        }
        if let Some(extensions) = &self.extensions
            && !extensions.matches(entry.path.as_deref().unwrap_or_default())
        {
            return Some(Miss::Extension(extensions));
        }
        if let Some(path) = &self.path
            && (entry.path.is_none() || !matches(path, &decoded_path(entry)))
        {
            return Some(Miss::Path(path));
        }
        if let Some(hosts) = &self.host
            && !entry.text("host").is_some_and(|host| hosts.contains(&host))
        {
            return Some(Miss::Host);
        }
        if let Some(regex) = &self.user_agent
            && !matches(regex, entry.user_agent.as_deref().unwrap_or_default())
        {
            return Some(Miss::UserAgent(regex));
        }
        let fits = match self.referer {
            RefererCondition::Any => true,
            RefererCondition::SameSite => site.referer_kind(entry) == RefererKind::SameSite,
            RefererCondition::External => site.referer_kind(entry) != RefererKind::SameSite,
            RefererCondition::None => site.referer_kind(entry) == RefererKind::None,
        };
        (!fits).then_some(Miss::Referer(self.referer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_covers_what_asks_as_much_or_more() {
        let of = |extensions: &[&str], statuses: &[u16]| Conditions {
            extensions: Some(Extensions::new(&extensions.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())),
            statuses: Some(statuses.to_vec()),
            ..Conditions::default()
        };
        let path = |pattern| Conditions { path: Some(Regex::new(pattern).unwrap()), ..of(&["pdf"], &[200]) };
        for (name, before, after, want) in [
            ("the same", of(&["pdf"], &[200]), of(&["pdf"], &[200]), true),
            ("asks nothing", Conditions::default(), of(&["pdf"], &[200]), true),
            ("more extensions", of(&["pdf", "zip"], &[200]), of(&["pdf"], &[200]), true),
            ("fewer statuses", of(&["pdf"], &[200]), of(&["pdf"], &[200, 206]), false),
            ("asks for what the other lifts", of(&["pdf"], &[200]), Conditions::default(), false),
            ("asks for a path, too", of(&["pdf"], &[200]), path("^/files/"), true),
            ("another path", path("^/a/"), path("^/b/"), false),
        ] {
            assert_eq!(before.covers(&after), want, "{name}");
        }
    }

    #[test]
    fn what_is_not_utf8_fits_a_regex_as_the_text_that_it_is_shown_as() {
        let hosts = url::Url::parse("https://docs.example.org").unwrap();
        let site = SiteContext {
            hosts: Hosts::of_base_url(&hosts),
            base_url: hosts.into(),
            keep_query: crate::rules::KeepQuery::All,
            page: Vec::new(),
            view_width: None,
        };
        for (path, target, want) in [
            ("^/internal/.*$", "/internal/caf%C3%A9.pdf", true),
            ("^/internal/.*$", "/internal/caf%E9.pdf", true),
            ("^/files/[^/]+$", "/files/a%FF.pdf", true),
            (r"(?-u:\xE9)", "/caf%E9.pdf", true),
            ("é", "/caf%E9.pdf", false),
            ("^/other/.*$", "/files/a%FF.pdf", false),
        ] {
            let regex = Regex::new(path).unwrap();
            let of_path = Conditions { path: Some(regex.clone()), ..Conditions::default() };
            let mut entry = Entry::default();
            entry.set_target(Cow::Borrowed(target.as_bytes()));
            assert_eq!(of_path.miss(&entry, &site).is_none(), want, "{path} and {target}");
            let of_agent = Conditions { user_agent: Some(regex), ..Conditions::default() };
            let user_agent = Some(decoded(target.as_bytes()));
            let entry = Entry { user_agent, ..Entry::default() };
            assert_eq!(of_agent.miss(&entry, &site).is_none(), want, "{path} and a user agent of {target}");
        }
    }

    #[test]
    fn extensions_are_of_the_last_segment_in_any_case() {
        let list = Extensions::new(&["pdf".to_owned(), ".tar.gz".to_owned()]);
        for (path, want) in [
            ("/a.pdf", true),
            ("/a.PDF", true),
            ("/a.pdf/", false),
            ("/a.pdf.html", false),
            ("/pdf", false),
            ("/a.tar.gz", true),
            ("/a.gz", false),
            ("", false),
        ] {
            assert_eq!(list.matches(path.as_bytes()), want, "{path}");
        }
    }
}
