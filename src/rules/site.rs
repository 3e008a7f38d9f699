//! What rules and templates know of their site: its hosts, its URLs, and which page an event belongs to.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use url::{Host, Position, Url};

use crate::entry::{Entry, lossy};
use crate::sixteen::{is_plain_path, needs_escape};

/// A list of hosts; `*.example.org` is any subdomain of example.org.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hosts(Vec<String>);

/// What a parser of URLs would drop, turn or stop at, were it not encoded: it strips control characters, and takes a
/// backslash for a slash.
const IN_PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'\\').add(b'?').add(b'#');
const IN_QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'#');

/// Bytes as they may stand in a URL: those of the set and whatever isn't ASCII percent-encoded, valid UTF-8 or not.
pub(super) fn encoded<'t>(bytes: &'t [u8], set: &'static AsciiSet) -> Cow<'t, str> {
    percent_encode(bytes, set).into()
}

/// The comparable form of a host: no port, no last dot, lower case, IDN as punycode.
fn plain(host: &str) -> Option<String> {
    let bare = match host.strip_prefix('[') {
        Some(v6) => format!("[{}]", v6.split(']').next()?),
        None if host.matches(':').count() > 1 => format!("[{host}]"),
        None => host.split(':').next()?.trim_end_matches('.').to_owned(),
    };
    if !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-') {
        return Some(bare.to_ascii_lowercase());
    }
    Host::parse(&bare).ok().map(|host| host.to_string())
}

impl Hosts {
    /// Compiles a list.
    ///
    /// # Errors
    /// The index of the first that is no host, and why.
    pub fn parse(patterns: &[String]) -> Result<Self, (usize, String)> {
        let compile = |(index, pattern): (usize, &String)| {
            let (wild, host) = pattern.strip_prefix("*.").map_or(("", pattern.as_str()), |host| ("*.", host));
            match plain(host) {
                Some(plain) if !host.contains(['/', '*', ' ']) => Ok(format!("{wild}{plain}")),
                _ => Err((index, "not a host name; `*.example.org` is the only kind of wildcard".to_owned())),
            }
        };
        patterns.iter().enumerate().map(compile).collect::<Result<_, _>>().map(Self)
    }

    /// A URL's host, with and without `www.`.
    pub fn of_base_url(url: &Url) -> Self {
        let host = url.host_str().and_then(plain).unwrap_or_default();
        let other = match host.strip_prefix("www.") {
            Some(rest) => rest.to_owned(),
            None => format!("www.{host}"),
        };
        Self(vec![host, other])
    }

    /// Whether a host is one of these; port, case and a last dot don't matter.
    pub fn contains(&self, host: &str) -> bool {
        plain(host).is_some_and(|host| self.contains_plain(host.as_bytes()))
    }

    /// Whether every host of `other` is one of these.
    pub fn covers(&self, other: &Hosts) -> bool {
        other.0.iter().all(|host| match host.strip_prefix("*.") {
            // What a wildcard fits is fitted by itself, or by one of a domain above.
            Some(domain) => self.0.iter().any(|known| {
                known.strip_prefix("*.").is_some_and(|above| {
                    domain == above || domain.strip_suffix(above).is_some_and(|rest| rest.ends_with('.'))
                })
            }),
            None => self.contains_plain(host.as_bytes()),
        })
    }

    /// The same for a host in its comparable form.
    fn contains_plain(&self, host: &[u8]) -> bool {
        self.0.iter().any(|known| match known.as_bytes() {
            [b'*', suffix @ ..] => host.len() > suffix.len() && host.ends_with(suffix),
            known => known == host,
        })
    }
}

/// Query parameters that stay in URLs that are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeepQuery {
    /// All.
    All,
    /// Those of these names.
    Only(Vec<String>),
}

/// Where the POST's `url` comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageSource {
    /// A referer of the same site.
    Referer,
    /// The requested URL itself.
    OwnUrl,
    /// The site's base URL.
    Base,
}

/// Where a visitor came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefererKind {
    /// A page of the site.
    SameSite,
    /// Somewhere else, or something that is no URL.
    Other,
    /// The log has none.
    None,
}

/// What a site's URLs begin with, and what is to be known of it for each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    url: Url,
    /// Bytes before its path.
    origin: usize,
    has_credentials: bool,
    /// Whether the origin is a scheme and a host that parsing leaves as it is, wherever it stands in front of a path.
    host_is_plain: bool,
    /// Whether it needs no escape in JSON.
    is_clean: bool,
}

impl From<Url> for BaseUrl {
    fn from(url: Url) -> Self {
        let origin = &url[..Position::BeforePath];
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        Self {
            origin: origin.len(),
            host_is_plain: host.is_some_and(|host| is_plain_name(host.as_bytes())),
            is_clean: !needs_escape(url.as_str().as_bytes()),
            has_credentials: !url[Position::BeforeUsername..Position::BeforeHost].is_empty(),
            url,
        }
    }
}

impl BaseUrl {
    /// The whole of it.
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// Whether it needs no escape in JSON.
    pub(crate) fn is_clean(&self) -> bool {
        self.is_clean
    }

    /// Scheme, host and port, credentials in front of them included.
    fn origin(&self) -> &str {
        &self.url.as_str()[..self.origin]
    }

    /// The origin's host, where that is plain.
    fn host(&self) -> &[u8] {
        let origin = self.origin().as_bytes();
        &origin[memchr::memrchr(b'/', origin).map_or(0, |slash| slash + 1)..]
    }
}

/// A site as its rules see it.
#[derive(Debug, Clone)]
pub struct SiteContext {
    /// What the site's URLs begin with.
    pub base_url: BaseUrl,
    /// The hosts whose URLs are the site's.
    pub hosts: Hosts,
    /// What stays of queries.
    pub keep_query: KeepQuery,
    /// Where the page comes from, in order.
    pub page: Vec<PageSource>,
    /// CSS pixels, where the site knows better than the log.
    pub view_width: Option<u32>,
}

impl SiteContext {
    /// The requested URL: the base URL's scheme and host (or the requested host, where that is the site's), the path as
    /// logged, what stays of the query.
    pub fn own_url(&self, entry: &Entry<'_>) -> Option<String> {
        self.own_url_in(entry, String::new()).map(|(url, _)| url)
    }

    /// The same, into a text that is to be used; and whether it is but the base URL's beginning and the path as it is logged:
    /// what parsing has gone over may hold what neither of them does, for it decodes hosts.
    pub fn own_url_in(&self, entry: &Entry<'_>, room: String) -> Option<(String, bool)> {
        let path = entry.path.as_deref().filter(|path| path.starts_with(b"/"))?;
        let base = self.base_url.origin();
        // nginx logs `*.example.org` for its name where that is how it calls the server.
        let is_ours = |host: &Cow<'_, str>| !host.contains('*') && self.hosts.contains(host);
        let host = entry.host.as_deref().map(lossy).filter(is_ours);
        let query = entry.query.as_deref().filter(|_| self.keep_query != KeepQuery::Only(Vec::new()));
        let mut text = room;
        // Nearly always nothing is to be done to it: the base URL is as parsing left it, and parsing would leave the path.
        if host.is_none()
            && query.is_none()
            && normal_until(path, 0) == Some(path.len())
            && !self.base_url.has_credentials
            && let Some(path) = entry.to_str(path)
        {
            text.reserve(base.len() + path.len());
            text.push_str(base);
            text.push_str(path);
            return Some((text, true));
        }
        let path = encoded(path, IN_PATH);
        let origin = match host {
            None => Cow::Borrowed(base),
            Some(host) => {
                let bare = plain(&host)?;
                let mut url = self.base_url.url.clone();
                // The log has the server's inner port at best; the base URL's is the public one.
                url.set_host(Some(&bare)).ok()?;
                Cow::Owned(url[..Position::BeforePath].to_owned())
            }
        };
        let query = query.map(|query| encoded(query, IN_QUERY));
        text.push_str(&origin);
        text.push_str(&path);
        if let Some(query) = query {
            text.push('?');
            text.push_str(&query);
        }
        match Normal::of(&text) {
            // It has no more than a path: nothing is to be done to it.
            Some(normal) if normal.bare.len() == text.len() => Some((text, false)),
            _ => clean(&text, &self.keep_query).map(|url| (url, false)),
        }
    }

    /// The referer without credentials, fragment and what doesn't stay of its query; `None`: no http URL.
    pub fn clean_referer(&self, entry: &Entry<'_>) -> Option<String> {
        let referer = entry.referer.as_deref()?;
        match entry.to_str(referer) {
            Some(text) => clean(text, &self.keep_query),
            None => clean(&encoded(referer, CONTROLS), &self.keep_query),
        }
    }

    /// Where the visitor came from.
    pub fn referer_kind(&self, entry: &Entry<'_>) -> RefererKind {
        match entry.referer.as_deref().map(lossy) {
            None => RefererKind::None,
            Some(referer) => match Normal::of(&referer) {
                Some(normal) if self.hosts.contains_plain(normal.host.as_bytes()) => RefererKind::SameSite,
                Some(_) => RefererKind::Other,
                None => self.kind_of_odd_referer(&referer),
            },
        }
    }

    fn kind_of_odd_referer(&self, referer: &str) -> RefererKind {
        match Url::parse(referer) {
            Ok(url) if url.host_str().is_some_and(|host| self.hosts.contains(host)) => RefererKind::SameSite,
            _ => RefererKind::Other,
        }
    }

    /// The referer, as [`SiteContext::clean_referer`] gives it, if it is a page of the site.
    fn same_site_referer<'t>(&self, entry: &'t Entry<'_>) -> Option<Cow<'t, str>> {
        let referer = entry.referer.as_deref()?;
        // Most are pages below the base URL.
        let below = referer.strip_prefix(self.base_url.origin().as_bytes()).map(|path| (self.base_url.host(), path));
        // Whatever follows a host that parsing leaves as it is, it is the host.
        if let Some((host, path)) = below.filter(|_| self.base_url.host_is_plain).or_else(|| plain_host(referer))
            && path.first() == Some(&b'/')
        {
            if !self.hosts.contains_plain(host) {
                return None;
            }
            if stays_as_it_is(path) {
                return entry.to_str(referer).map(Cow::Borrowed);
            }
        }
        let text = entry.to_str(referer);
        if let Some((text, normal)) = text.and_then(|text| Some((text, Normal::of(text)?))) {
            let keeps_all_of_it = normal.bare.len() == text.len() || self.keep_query == KeepQuery::Only(Vec::new());
            if keeps_all_of_it || !self.hosts.contains_plain(normal.host.as_bytes()) {
                return self.hosts.contains_plain(normal.host.as_bytes()).then_some(Cow::Borrowed(normal.bare));
            }
        }
        let is_ours = self.referer_kind(entry) == RefererKind::SameSite;
        is_ours.then(|| self.clean_referer(entry).map(Cow::Owned)).flatten()
    }

    /// The page an event belongs to. Never a URL of another host: the API would discard the event in silence.
    ///
    /// `own` is the request's own URL, where the caller knows it already.
    pub fn page<'t>(&'t self, entry: &'t Entry<'_>, own: Option<&'t str>) -> Option<Cow<'t, str>> {
        self.page.iter().find_map(|source| match source {
            PageSource::Referer => self.same_site_referer(entry),
            PageSource::OwnUrl => match own {
                Some(own) => Some(Cow::Borrowed(own)),
                None => self.own_url(entry).map(Cow::Owned),
            },
            PageSource::Base => Some(Cow::Borrowed(self.base_url.as_str())),
        })
    }
}

/// A URL that is already as it would be after parsing, as nearly all are: told without parsing it.
struct Normal<'u> {
    host: &'u str,
    /// Scheme, host and path.
    bare: &'u str,
}

impl<'u> Normal<'u> {
    /// `None`: it may be normal all the same, and takes parsing to tell.
    fn of(text: &'u str) -> Option<Self> {
        let (host, path) = plain_host(text.as_bytes())?;
        let slash = text.len() - path.len();
        Some(Self { host: &text[slash - host.len()..slash], bare: &text[..normal_until(text.as_bytes(), slash)?] })
    }
}

/// The host of an http URL that is a name which parsing leaves as it is, and what follows it from the path on.
fn plain_host(url: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = url.strip_prefix(b"https://").or_else(|| url.strip_prefix(b"http://"))?;
    let (host, path) = rest.split_at(memchr::memchr(b'/', rest)?);
    is_plain_name(host).then_some((host, path))
}

/// Where the path that begins with the slash there ends, its query or fragment being left out or kept by the parser's rules,
/// if it is already as it would be after parsing; `None`: it may be so all the same.
fn normal_until(url: &[u8], slash: usize) -> Option<usize> {
    if stays_as_it_is(&url[slash..]) {
        return Some(url.len());
    }
    for (at, &byte) in url.iter().enumerate().skip(slash + 1) {
        if STAYS[usize::from(byte)] {
            continue;
        }
        match byte {
            b'?' | b'#' => return (url[at - 1] != b'.').then_some(at),
            // A segment that begins with a dot may be `.` or `..`.
            b'.' if url[at - 1] != b'/' => {}
            b'%' if url.get(at + 1) != Some(&b'2') || url.get(at + 2).is_none_or(|b| b | 0x20 != b'e') => {}
            _ => return None,
        }
    }
    Some(url.len())
}

/// Whether a path, which nothing follows, is as it would be after parsing; `false`: it may be so all the same.
fn stays_as_it_is(path: &[u8]) -> bool {
    path.first() == Some(&b'/') && is_plain_path(path)
}

/// Whether a host is a name that parsing leaves as it is: in lower case, letters to the end, so that it is no address; no
/// `xn--`, no port, no credentials.
fn is_plain_name(host: &[u8]) -> bool {
    let (mut last, mut only_letters) = (0, true);
    for &byte in host {
        match byte {
            b'a'..=b'z' => {}
            b'0'..=b'9' => only_letters = false,
            b'-' if last != b'-' => only_letters = false,
            b'.' if last != b'.' => only_letters = true,
            _ => return false,
        }
        last = byte;
    }
    only_letters && last.is_ascii_lowercase() && host.first().is_some_and(u8::is_ascii_alphanumeric)
}

/// Bytes of a path that parsing leaves as they are wherever they stand.
const STAYS: [bool; 256] = {
    let mut stays = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        stays[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"/-_~!$&()*+,;=:@";
    let mut at = 0;
    while at < others.len() {
        stays[others[at] as usize] = true;
        at += 1;
    }
    stays
};

/// An http URL without credentials and fragment, with what stays of its query.
pub(super) fn clean(text: &str, keep: &KeepQuery) -> Option<String> {
    if let Some(normal) = Normal::of(text)
        && (normal.bare.len() == text.len() || *keep == KeepQuery::Only(Vec::new()))
    {
        return Some(normal.bare.to_owned());
    }
    clean_odd(text, keep)
}

/// The same for any URL, by parsing it.
fn clean_odd(text: &str, keep: &KeepQuery) -> Option<String> {
    let mut url = Url::parse(text).ok()?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return None;
    }
    url.set_fragment(None);
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    if let (KeepQuery::Only(names), Some(query)) = (keep, url.query()) {
        let kept: Vec<&str> = query
            .split('&')
            .filter(|pair| {
                let name = pair.split('=').next().unwrap_or_default().replace('+', " ");
                let name = percent_encoding::percent_decode_str(&name).decode_utf8_lossy();
                names.iter().any(|wanted| *wanted == name)
            })
            .collect();
        let kept = kept.join("&");
        url.set_query((!kept.is_empty()).then_some(&kept));
    }
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn site(keep: &[&str]) -> SiteContext {
        let base_url = Url::parse("https://docs.example.org/").unwrap();
        SiteContext {
            hosts: Hosts::of_base_url(&base_url),
            base_url: base_url.into(),
            keep_query: KeepQuery::Only(keep.iter().map(|name| (*name).to_owned()).collect()),
            page: vec![PageSource::Referer, PageSource::OwnUrl],
            view_width: None,
        }
    }

    fn entry<'l>(target: &'l str, referer: Option<&'l str>) -> Entry<'l> {
        let mut entry = Entry { referer: referer.map(|text| Cow::Borrowed(text.as_bytes())), ..Entry::default() };
        entry.set_target(Cow::Borrowed(target.as_bytes()));
        entry
    }

    #[test]
    fn hosts_are_compared_as_names() {
        let hosts =
            Hosts::parse(&["docs.example.org".to_owned(), "*.shop.example".to_owned(), "bücher.example".to_owned()])
                .unwrap();
        for (host, want) in [
            ("docs.example.org", true),
            ("DOCS.example.org.:8080", true),
            ("www.docs.example.org", false),
            ("a.shop.example", true),
            ("shop.example", false),
            ("xn--bcher-kva.example", true),
            ("evil-shop.example", false),
            ("", false),
        ] {
            assert_eq!(hosts.contains(host), want, "{host}");
        }
    }

    #[test]
    fn hosts_cover_those_that_they_fit() {
        let of = |list: &[&str]| Hosts::parse(&list.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap();
        for (mine, theirs, want) in [
            (&["a.example"][..], &["A.example."][..], true),
            (&["*.example"], &["a.example", "*.b.example", "*.example"], true),
            (&["*.b.example"], &["*.example"], false),
            (&["*.b.example"], &["*.ab.example"], false),
            (&["*.b.example"], &["b.example"], false),
            (&["a.example"], &["a.example", "b.example"], false),
        ] {
            assert_eq!(of(mine).covers(&of(theirs)), want, "{mine:?} and {theirs:?}");
        }
    }

    #[test]
    fn urls_that_are_sent_say_no_more_than_they_must() {
        for (name, target, keep, want) in [
            ("plain", "/a.pdf", vec![], "https://docs.example.org/a.pdf"),
            ("query dropped", "/a.pdf?utm=x", vec![], "https://docs.example.org/a.pdf"),
            ("query kept", "/a.pdf?utm=x&id=7&utm=y", vec!["id"], "https://docs.example.org/a.pdf?id=7"),
            ("encoding kept", "/caf%C3%A9%20menu.pdf", vec![], "https://docs.example.org/caf%C3%A9%20menu.pdf"),
            ("raw bytes encoded", "/a b\"é.pdf", vec![], "https://docs.example.org/a%20b%22%C3%A9.pdf"),
            ("a backslash", "/a\\b.pdf", vec![], "https://docs.example.org/a%5Cb.pdf"),
            ("controls", "/a\tb\n.pdf?c\td", vec!["c\td"], "https://docs.example.org/a%09b%0A.pdf?c%09d"),
            ("www", "http://www.docs.example.org:8080/a.pdf", vec![], "https://www.docs.example.org/a.pdf"),
            ("not ours", "http://other.example/a.pdf", vec![], "https://docs.example.org/a.pdf"),
        ] {
            assert_eq!(site(&keep).own_url(&entry(target, None)).as_deref(), Some(want), "{name}");
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_are_sent_as_what_they_are() {
        let mut entry = Entry { referer: Some(Cow::Borrowed(b"https://docs.example.org/p\xe9")), ..Entry::default() };
        entry.set_target(Cow::Borrowed(b"/caf\xe9.pdf?q=\xff"));
        let site = SiteContext { keep_query: KeepQuery::All, ..site(&[]) };
        assert_eq!(site.own_url(&entry).as_deref(), Some("https://docs.example.org/caf%E9.pdf?q=%FF"));
        assert_eq!(site.page(&entry, None).as_deref(), Some("https://docs.example.org/p%E9"));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(4_096))]
        /// What is told without parsing is what parsing tells.
        #[test]
        fn normal_urls_are_what_parsing_makes_of_them(
            scheme in "https?://|HTTP://|ftp://|https:/",
            host in "[a-z0-9.-]{1,12}|docs\\.example\\.org|[a-zA-Z0-9.:@%_-]{0,14}",
            path in "(/[ -~]{0,6}){0,3}|(/([a-z]|\\.|%2[eE]|\\?|#|[&'=;:@é\\\\|]){0,6}){0,3}",
        ) {
            let text = format!("{scheme}{host}{path}");
            for keep in [KeepQuery::All, KeepQuery::Only(Vec::new()), KeepQuery::Only(vec!["a".to_owned()])] {
                proptest::prop_assert_eq!(clean(&text, &keep), clean_odd(&text, &keep), "{}", text);
            }
            if let Some(normal) = Normal::of(&text) {
                let url = Url::parse(&text).unwrap();
                proptest::prop_assert_eq!(url.host_str(), Some(normal.host));
                let comparable = plain(normal.host);
                proptest::prop_assert_eq!(comparable.as_deref(), Some(normal.host));
            }
        }
    }

    proptest::proptest! {
        /// A path that is put behind the base URL as it is, is what parsing makes of both.
        #[test]
        fn own_urls_are_what_parsing_makes_of_them(
            base in "https?://(docs\\.example\\.org|192\\.0\\.2\\.1|\\[2001:db8::1\\]|xn--bcher-kva\\.example|me:pw@a\\.example)(:8443)?/?",
            path in "(/[ -~]{0,6}){1,3}|(/([a-z]|\\.|%2[eE]|%|[&'=;:@é\\\\|]){0,6}){1,3}",
            query in proptest::option::of("[ -~]{0,6}"),
        ) {
            let base_url = Url::parse(&base).unwrap();
            let origin = base_url[..Position::BeforePath].to_owned();
            let site = SiteContext { hosts: Hosts::of_base_url(&base_url), base_url: base_url.into(), ..site(&[]) };
            let entry = Entry {
                path: Some(Cow::Borrowed(path.as_bytes())),
                query: query.as_ref().map(|query| Cow::Borrowed(query.as_bytes())),
                ..Entry::default()
            };
            let parsed = clean_odd(&format!("{origin}{}", encoded(path.as_bytes(), IN_PATH)), &KeepQuery::All);
            proptest::prop_assert_eq!(site.own_url(&entry), parsed);
        }
    }

    #[test]
    fn the_page_is_never_another_hosts() {
        for (name, referer, want) in [
            ("same site", Some("https://docs.example.org/reports?q=x#top"), "https://docs.example.org/reports"),
            ("www", Some("https://www.docs.example.org/reports"), "https://www.docs.example.org/reports"),
            ("credentials", Some("https://me:pw@docs.example.org/reports"), "https://docs.example.org/reports"),
            ("another host", Some("https://search.example/"), "https://docs.example.org/a.pdf"),
            ("looks alike", Some("https://docs.example.org.evil.example/"), "https://docs.example.org/a.pdf"),
            ("none", None, "https://docs.example.org/a.pdf"),
            ("no URL", Some("hello"), "https://docs.example.org/a.pdf"),
        ] {
            let entry = entry("/a.pdf", referer);
            assert_eq!(site(&[]).page(&entry, None).as_deref(), Some(want), "{name}");
        }
    }
}
