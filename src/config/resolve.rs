//! From the TOML as written to the configuration as used.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::tz::TimeZone;
use regex::bytes::Regex;
use toml::de::{DeTable, DeValue};
use url::Url;

use super::keys;
use super::raw::{Table, Value, Walk, did_you_mean, strings_of};
use super::report::{Problem, Report, Source};
use super::{Config, Expectation, Follow, FormatChoice, Loaded, Site, Start, Status, Want};
use crate::deliver::connect::certificates;
use crate::deliver::{EndpointSettings, PropertyKey};
use crate::entry::FIELDS;
use crate::follow::discover;
use crate::format::{BUILTIN, Format, slip_of};
use crate::pipeline::FATES;
use crate::rules::{
    Conditions, Extensions, Hosts, KeepQuery, PageSource, RefererCondition, Rule, Rules, SiteContext, Template,
};
use crate::status::access::{Listen, Token};
use crate::visitor::bots::{Bots, Group};
use crate::visitor::client::parse_networks;

type Env<'e> = &'e dyn Fn(&str) -> Option<String>;
type Text = (String, Range<usize>);

/// Reads a configuration with its includes; all its problems at once.
///
/// # Errors
/// The report of everything that must be mended.
pub fn load(path: &Path, env: Env<'_>) -> Result<Loaded, Report> {
    let main = path.display().to_string();
    let mut problems = Vec::new();
    let mut sources = Vec::new();
    let resolved = read_all(path, env, &mut sources, &mut problems);
    let report = Report::new(main, sources, problems);
    match resolved {
        Some(config) if report.errors == 0 => Ok(Loaded { config, warnings: report }),
        _ => Err(report),
    }
}

/// Why a file can't be read, and what to do about it.
fn lost(path: &Path, error: &std::io::Error) -> (String, String) {
    let help = match error.kind() {
        std::io::ErrorKind::NotFound => "name the configuration with --config FILE",
        std::io::ErrorKind::PermissionDenied => "let this user read it",
        _ => "name a file",
    };
    (format!("cannot read `{}`: {error}", path.display()), help.to_owned())
}

/// A file's text; where it isn't UTF-8, what can be shown of it and where that is.
fn text_of(bytes: Vec<u8>) -> (String, Option<Range<usize>>) {
    // A byte order mark is no text: columns are counted from behind it.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(bytes);
    match String::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            (text, Some(at..at + char::REPLACEMENT_CHARACTER.len_utf8()))
        }
    }
}

/// Reads a file into `sources`; `None`: it isn't text, which is said.
fn part_of(path: &Path, bytes: Vec<u8>, sources: &mut Vec<Source>, problems: &mut Vec<Problem>) -> Option<Part> {
    let source = sources.len();
    let (text, wrong) = text_of(bytes);
    sources.push(Source { path: path.to_path_buf(), text: text.clone() });
    if let Some(span) = wrong {
        let help = Some("save the file as UTF-8".to_owned());
        Walk { source, problems }.error(span, "this isn't UTF-8", "here", help);
        return None;
    }
    Some(Part { source, path: path.to_path_buf(), text })
}

fn read_all(path: &Path, env: Env<'_>, sources: &mut Vec<Source>, problems: &mut Vec<Problem>) -> Option<Config> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let (message, help) = lost(path, &error);
            let (label, help) = (String::new(), Some(help));
            problems.push(Problem { error: true, source: None, span: 0..0, message, label, help });
            return None;
        }
    };
    let main = part_of(path, bytes, sources, problems)?;
    // Which files are included must be known before anything can be resolved.
    let patterns = includes(&main, problems);
    let mut parts = vec![main];
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut included: Vec<PathBuf> = Vec::new();
    let mut broken = false;
    for (pattern, span) in patterns {
        let full = folder.join(&pattern).display().to_string();
        if discover::is_glob(&pattern)
            && let Err(error) = glob::Pattern::new(&pattern)
        {
            let message = format!("bad pattern in `include`: {}", error.msg);
            Walk { source: 0, problems }.error(span, message, "here", None);
            continue;
        }
        for file in discover::expand(&full) {
            // Two patterns may fit one file.
            if included.contains(&file) {
                continue;
            }
            included.push(file.clone());
            match std::fs::read(&file) {
                Ok(bytes) => match part_of(&file, bytes, sources, problems) {
                    Some(part) => parts.push(part),
                    None => broken = true,
                },
                Err(error) => {
                    let message = format!("cannot read `{}`: {error}", file.display());
                    let help = "paths are relative to this file; a pattern, like sites.d/*.toml, may fit nothing";
                    let mut walk = Walk { source: 0, problems };
                    walk.error(span.clone(), message, "included here", Some(help.to_owned()));
                }
            }
        }
    }
    let mut tables = Vec::new();
    for part in &parts {
        let (table, errors) = DeTable::parse_recoverable(&part.text);
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let message = format!("this isn't TOML: {}", error.message().trim());
            Walk { source: part.source, problems }.error(span, message, "here", None);
            broken = true;
        }
        tables.push((part, table));
    }
    if broken {
        // What a broken file means can't be told; its other mistakes would be guesses.
        return None;
    }
    let texts = parts.iter().map(|part| (part.source, part.text.as_str())).collect();
    Resolver { env, problems, zone: TimeZone::system(), texts, broken: Vec::new(), names: HashSet::new() }
        .resolve(path, &tables)
}

struct Part {
    source: usize,
    path: PathBuf,
    text: String,
}

fn includes(part: &Part, problems: &mut Vec<Problem>) -> Vec<Text> {
    let (table, _) = DeTable::parse_recoverable(&part.text);
    let mut walk = Walk { source: part.source, problems };
    let value = table.get_ref().iter().find(|(key, _)| key.get_ref() == "include").map(|(_, value)| value);
    value.and_then(|value| strings_of(&mut walk, value, "include")).unwrap_or_default()
}

/// How downloads are counted: statuses and window.
struct Counting {
    statuses: Vec<u16>,
    window: Duration,
}

struct Resolver<'r> {
    env: Env<'r>,
    problems: &'r mut Vec<Problem>,
    zone: TimeZone,
    /// The files as written, by the number of their source.
    texts: HashMap<usize, &'r str>,
    /// Formats with an error of their own: to use one is no second error.
    broken: Vec<String>,
    /// The sites' names so far.
    names: HashSet<String>,
}

/// A site with the places that are needed to compare it with the others.
struct Placed {
    site: Site,
    source: usize,
    name_span: Range<usize>,
    logs: Vec<Text>,
    format_span: Option<Range<usize>>,
}

impl Resolver<'_> {
    /// How a value is written in its file.
    fn quoted(&self, source: usize, span: &Range<usize>) -> String {
        self.texts.get(&source).and_then(|text| text.get(span.clone())).unwrap_or_default().to_owned()
    }

    fn walk(&mut self, source: usize) -> Walk<'_> {
        Walk { source, problems: self.problems }
    }

    fn resolve(&mut self, path: &Path, parts: &[(&Part, toml::Spanned<DeTable<'_>>)]) -> Option<Config> {
        let (first, main) = parts.first()?;
        let mut root = Table::new(main.get_ref(), main.span(), &keys::ROOT);
        root.take("include");
        let state_dir = self.state_dir(&mut root, first.source);
        let endpoint_table = root.table(&mut self.walk(first.source), "endpoint", &keys::ENDPOINT);
        let (endpoint, allow_http) = self.endpoint(endpoint_table, first.source);
        let follow = self.follow(&mut root, first.source);
        let status = self.status(&mut root, first);
        let test_tables = root.tables(&mut self.walk(first.source), "test", &keys::TEST);
        let tests: Vec<(Expectation, Option<Range<usize>>)> =
            test_tables.into_iter().filter_map(|table| self.expectation(table, first)).collect();
        let mut roots = vec![(*first, root)];
        for (part, table) in &parts[1..] {
            roots.push((*part, Table::new(table.get_ref(), table.span(), &keys::INCLUDED)));
        }
        let mut formats: Vec<Format> = Vec::new();
        for (part, root) in &mut roots {
            self.formats(root, part.source, &mut formats);
        }
        let mut sites: Vec<Placed> = Vec::new();
        for (part, root) in &mut roots {
            let tables = root.tables(&mut self.walk(part.source), "site", &keys::SITE);
            for table in tables {
                sites.extend(self.site(table, part, &endpoint, allow_http, &formats));
            }
        }
        for (part, root) in roots {
            root.finish(&mut self.walk(part.source));
        }
        if sites.is_empty() && !self.problems.iter().any(|problem| problem.error) {
            let help = Some("add a [[site]] with name, base_url, property_key and logs".to_owned());
            self.walk(first.source).error(0..0, "there is no site", "nothing would be followed", help);
        }
        self.compare(&sites);
        for (test, span) in &tests {
            if let (Some(name), Some(span)) = (&test.site, span)
                && !self.names.contains(name)
            {
                let help = did_you_mean(name, self.names.iter().map(String::as_str));
                let message = format!("no site is named `{name}`");
                self.walk(first.source).error(span.clone(), message, "no such site", help);
            }
        }
        Some(Config {
            path: path.to_path_buf(),
            state_dir: state_dir?,
            endpoint: endpoint.clone(),
            follow,
            status,
            formats,
            sites: sites.into_iter().map(|placed| placed.site).collect(),
            tests: tests.into_iter().map(|(test, _)| test).collect(),
        })
    }

    /// One `[[test]]`, and where it names a site.
    fn expectation(&mut self, mut table: Table<'_, '_>, part: &Part) -> Option<(Expectation, Option<Range<usize>>)> {
        let source = part.source;
        let span = table.span.clone();
        let line = table.string(&mut self.walk(source), "line");
        let site = table.string(&mut self.walk(source), "site");
        let expect = table.take("expect");
        if !table.has("line") {
            let help = Some("line = '…', as it stands in the log".to_owned());
            self.walk(source).error(span.clone(), "a test has no `line`", "this test", help);
        }
        let want = match expect.map(|value| (value, value.get_ref())) {
            None => {
                let help = Some("expect = \"bot\", or expect = { event = \"download\", url = \"…\" }".to_owned());
                self.walk(source).error(span.clone(), "a test has no `expect`", "this test", help);
                None
            }
            Some((value, DeValue::String(fate))) => {
                self.fate(source, fate, value.span()).map(|outcome| Want { outcome, ..Want::default() })
            }
            Some((value, DeValue::Table(inner))) => {
                let mut inner = Table::new(inner, value.span(), &keys::EXPECT);
                let mut text =
                    |resolver: &mut Self, name| inner.string(&mut resolver.walk(source), name).map(|(text, _)| text);
                let (event, url) = (text(self, "event"), text(self, "url"));
                let (page, ip, reason) = (text(self, "page"), text(self, "ip"), text(self, "reason"));
                let outcome = match inner.string(&mut self.walk(source), "outcome") {
                    Some((fate, span)) => self.fate(source, &fate, span),
                    None => Some("event".to_owned()),
                };
                let mut properties = Vec::new();
                if let Some(table) = inner.table(&mut self.walk(source), "properties", &keys::CHOSEN) {
                    for (name, _, value) in table.entries() {
                        match value.get_ref() {
                            DeValue::String(text) => properties.push((name, text.to_string())),
                            _ => {
                                let message = format!("property `{name}` must be a string");
                                self.walk(source).error(value.span(), message, "here", None);
                            }
                        }
                    }
                }
                inner.finish(&mut self.walk(source));
                outcome.map(|outcome| Want { outcome, reason, event, url, page, ip, properties })
            }
            Some((value, _)) => {
                let message = "`expect` must be a fate's name or a table";
                self.walk(source).error(value.span(), message, "neither", None);
                None
            }
        };
        table.finish(&mut self.walk(source));
        let place = format!("{}:{}", part.path.display(), super::report::line_and_column(&part.text, span.start));
        let (site, site_span) = site.map_or((None, None), |(name, span)| (Some(name), Some(span)));
        Some((Expectation { place, line: line?.0, site, want: want? }, site_span))
    }

    fn fate(&mut self, source: usize, name: &str, span: Range<usize>) -> Option<String> {
        if FATES.contains(&name) {
            return Some(name.to_owned());
        }
        let help = did_you_mean(name, FATES);
        let label = format!("the fates are {}", FATES.join(", "));
        self.walk(source).error(span, format!("no line has the fate `{}`", name.escape_debug()), &label, help);
        None
    }

    /// `${NAME}` from the environment, where that is allowed.
    fn expand(&mut self, source: usize, (text, span): Text) -> Option<Text> {
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find("${") {
            out.push_str(&rest[..at]);
            let Some(end) = rest[at..].find('}') else {
                self.walk(source).error(span, "`${` is never closed", "write ${NAME}", None);
                return None;
            };
            let name = &rest[at + 2..at + end];
            let Some(value) = (self.env)(name) else {
                let message = format!("the environment has no `{}`", name.escape_debug());
                self.walk(source).error(
                    span,
                    message,
                    "not set",
                    Some("set it for the service, or write the value".to_owned()),
                );
                return None;
            };
            if value.is_empty() {
                let message = format!("the environment's `{}` is empty", name.escape_debug());
                self.walk(source).error(span, message, "nothing", None);
                return None;
            }
            out.push_str(&value);
            rest = &rest[at + end + 1..];
        }
        out.push_str(rest);
        Some((out, span))
    }

    fn state_dir(&mut self, root: &mut Table<'_, '_>, source: usize) -> Option<PathBuf> {
        match root.string(&mut self.walk(source), "state_dir") {
            Some(text) => self.expand(source, text).map(|(text, _)| PathBuf::from(text)),
            None => {
                let given = (self.env)("STATE_DIRECTORY");
                // systemd separates several by a colon; the first is the unit's own.
                let given = given.as_deref().and_then(|list| list.split(':').next()).filter(|path| !path.is_empty());
                Some(PathBuf::from(given.unwrap_or("/var/lib/silktail")))
            }
        }
    }

    fn duration(&mut self, table: &mut Table<'_, '_>, source: usize, name: &'static str) -> Option<Duration> {
        let value = table.take(name)?;
        let Some(text) = value.get_ref().as_str() else {
            self.walk(source).wrong_type(value, name, "a duration in quotes, like \"2s\"");
            return None;
        };
        let parsed = parse_duration(text);
        if parsed.is_none() {
            let help = Some("write a number and a unit: 500ms, 2s, 5m, 24h, 30d".to_owned());
            self.walk(source).error(value.span(), format!("`{name}` is not a duration"), "not a duration", help);
        }
        parsed
    }

    fn endpoint(&mut self, table: Option<Table<'_, '_>>, source: usize) -> (EndpointSettings, bool) {
        let mut settings = EndpointSettings {
            // Replaced below, or by each site's own; a site without either is an error.
            url: no_url(),
            linger: Duration::from_secs(2),
            max_events: 50,
            max_in_flight: 16,
            timeout: Duration::from_secs(10),
            retry_max: Duration::from_secs(300),
            max_rate: 0,
            max_age: Duration::ZERO,
            proxy: None,
            ca_file: None,
        };
        let Some(mut table) = table else { return (settings, false) };
        let allow_http = table.boolean(&mut self.walk(source), "allow_http").unwrap_or(false);
        if let Some(text) = table.string(&mut self.walk(source), "url")
            && let Some(url) = self.endpoint_url(source, text, allow_http)
        {
            settings.url = url;
        }
        for (name, place) in [
            ("linger", &mut settings.linger),
            ("timeout", &mut settings.timeout),
            ("retry_max", &mut settings.retry_max),
            ("max_age", &mut settings.max_age),
        ] {
            if let Some(duration) = self.duration(&mut table, source, name) {
                *place = duration;
            }
        }
        let mut count = |resolver: &mut Self, name, least| {
            let number = table.number(&mut resolver.walk(source), name, least);
            number.and_then(|(number, _)| usize::try_from(number).ok())
        };
        settings.max_events = count(self, "max_events", 1).unwrap_or(settings.max_events);
        settings.max_in_flight = count(self, "max_in_flight", 1).unwrap_or(settings.max_in_flight);
        settings.max_rate = count(self, "max_rate", 0).and_then(|rate| u32::try_from(rate).ok()).unwrap_or(0);
        if let Some(text) = table.string(&mut self.walk(source), "proxy")
            && let Some((text, span)) = self.expand(source, text)
        {
            match Url::parse(&text) {
                Ok(url) if matches!(url.scheme(), "http" | "https") => settings.proxy = Some(url),
                _ => self.walk(source).error(span, "`proxy` is not a URL", "write http://host:port", None),
            }
        }
        if let Some(text) = table.string(&mut self.walk(source), "ca_file")
            && let Some((text, span)) = self.expand(source, text)
        {
            let pem = std::fs::read(&text).map_err(|error| error.to_string());
            let certificates = pem.and_then(|pem| certificates(&pem).map_err(|error| error.to_string()));
            match certificates {
                Ok(list) if !list.is_empty() => settings.ca_file = Some(PathBuf::from(text)),
                Ok(_) => self.walk(source).error(span, "`ca_file` has no certificate", "not a PEM file", None),
                Err(error) => self.walk(source).error(span, format!("`ca_file` can't be used: {error}"), "here", None),
            }
        }
        table.finish(&mut self.walk(source));
        (settings, allow_http)
    }

    fn endpoint_url(&mut self, source: usize, text: Text, allow_http: bool) -> Option<Url> {
        let (text, span) = self.expand(source, text)?;
        let url = match Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() => url,
            _ => {
                let help = Some("in the browser's console: window.stConfig.endpointUrl".to_owned());
                self.walk(source).error(span, "the endpoint is not an http or https URL", "not a URL", help);
                return None;
            }
        };
        let here = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        if url.scheme() == "http" && !here {
            let message = "http:// sends addresses over the network unencrypted";
            if allow_http {
                self.walk(source).warning(span, message, "not encrypted", None);
            } else {
                let help = Some("write https://, or say `allow_http = true` in [endpoint]".to_owned());
                self.walk(source).error(span, message, "not encrypted", help);
                return None;
            }
        }
        Some(url)
    }

    fn follow(&mut self, root: &mut Table<'_, '_>, source: usize) -> Follow {
        let mut follow = Follow { start: Start::End, max_line: 64 * 1024 };
        let Some(mut table) = root.table(&mut self.walk(source), "follow", &keys::FOLLOW) else { return follow };
        if let Some((text, span)) = table.string(&mut self.walk(source), "start") {
            match text.as_str() {
                "end" => {}
                "beginning" => follow.start = Start::Beginning,
                _ => {
                    let help = did_you_mean(&text, ["end", "beginning"]);
                    self.walk(source).error(span, "`start` is \"end\" or \"beginning\"", "neither", help);
                }
            }
        }
        if let Some(value) = table.take("max_line") {
            let size = match value.get_ref() {
                DeValue::String(text) => parse_size(text),
                _ => super::raw::number_of(value),
            };
            match size.and_then(|size| usize::try_from(size).ok()).filter(|size| (64..=1 << 30).contains(size)) {
                Some(size) => follow.max_line = size,
                None => {
                    let help = Some("write a number of bytes, or a size like 64KiB; from 64 bytes to 1GiB".to_owned());
                    self.walk(source).error(value.span(), "`max_line` is not a size", "not a size", help);
                }
            }
        }
        table.finish(&mut self.walk(source));
        follow
    }

    fn status(&mut self, root: &mut Table<'_, '_>, part: &Part) -> Option<Status> {
        let source = part.source;
        let mut table = root.table(&mut self.walk(source), "status", &keys::STATUS)?;
        let span = table.span.clone();
        let listen = table.string(&mut self.walk(source), "listen");
        let given = table.string(&mut self.walk(source), "token");
        let file = table.string(&mut self.walk(source), "token_file");
        table.finish(&mut self.walk(source));
        let has_token = given.is_some() || file.is_some();
        let token = self.token(given, file, part);
        let Some((text, listen_span)) = listen else {
            if has_token {
                let help = Some("add listen = \"127.0.0.1:9464\", or take the table away".to_owned());
                self.walk(source).warning(span, "[status] has no `listen`", "nothing listens", help);
            }
            return None;
        };
        let listen = match Listen::parse(&text) {
            Ok(listen) => listen,
            Err(error) => {
                let help = Some("127.0.0.1:9464, [::1]:9464, or unix:/run/silktail/status.sock".to_owned());
                self.walk(source).error(listen_span, "`listen` is not an address", error, help);
                return None;
            }
        };
        if !listen.is_private() && !has_token {
            let message = "the status page would be shown to whoever reaches this address";
            let help = "add token_file = \"status.token\" (a file with a long random text), or listen on 127.0.0.1 or on \
                        unix:/run/silktail/status.sock";
            self.walk(source).error(
                listen_span,
                message,
                "not this machine alone, and no token",
                Some(help.to_owned()),
            );
            return None;
        }
        if !listen.is_private() {
            let message = "the token and the status cross the network unencrypted";
            let help = "put a proxy with TLS in front, or listen where only trusted machines are";
            self.walk(source).warning(listen_span, message, "plain HTTP", Some(help.to_owned()));
        }
        Some(Status { listen, token })
    }

    /// `token`, or what `token_file` holds.
    fn token(&mut self, given: Option<Text>, file: Option<Text>, part: &Part) -> Option<Token> {
        const LEAST: usize = 16;
        let source = part.source;
        let (text, span) = match (given, file) {
            (Some(_), Some((_, span))) => {
                let message = "`token` and `token_file` are both given";
                self.walk(source).error(span, message, "take one away", None);
                return None;
            }
            (given, None) => given?,
            (None, Some((name, span))) => match self.secret_file(&name, part) {
                Ok(text) => (text, span),
                Err(error) => {
                    self.walk(source).error(span, format!("cannot read the token from {error}"), "this file", None);
                    return None;
                }
            },
        };
        // What goes into a header, in every client.
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = "the token must be visible ASCII characters without spaces";
            let help = Some("make one: openssl rand -hex 24".to_owned());
            self.walk(source).error(span, message, if text.is_empty() { "empty" } else { "not a token" }, help);
            return None;
        }
        if text.len() < LEAST {
            let help = Some("make one: openssl rand -hex 24".to_owned());
            self.walk(source).warning(span, "the token can be guessed", "fewer than 16 characters", help);
        }
        Some(Token::new(text))
    }

    /// A secret of its own file: in `$CREDENTIALS_DIRECTORY`, then beside the file that names it.
    fn secret_file(&self, name: &str, part: &Part) -> Result<String, String> {
        let credentials = (self.env)("CREDENTIALS_DIRECTORY").map(|folder| Path::new(&folder).join(name));
        let beside = part.path.parent().unwrap_or(Path::new("")).join(name);
        let path = credentials.filter(|path| path.exists()).unwrap_or(beside);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => Err(format!("`{}`: {error}", path.display())),
        }
    }

    fn formats(&mut self, root: &mut Table<'_, '_>, source: usize, formats: &mut Vec<Format>) {
        let Some(table) = root.table(&mut self.walk(source), "formats", &keys::CHOSEN) else { return };
        for (name, span, value) in table.entries() {
            let DeValue::Table(inner) = value.get_ref() else {
                self.walk(source).error(
                    value.span(),
                    format!("format `{name}` must be a table"),
                    "write [formats.NAME]",
                    None,
                );
                self.broken.push(name);
                continue;
            };
            if name == "auto" || BUILTIN.contains(&name.as_str()) || formats.iter().any(|known| known.name() == name) {
                self.walk(source).error(
                    span,
                    format!("there is a format `{name}` already"),
                    "choose another name",
                    None,
                );
                continue;
            }
            let mut table = Table::new(inner, value.span(), &keys::FORMAT);
            match self.one_format(&name, &span, &mut table, source) {
                Some(format) => formats.push(format),
                None => self.broken.push(name),
            }
            table.finish(&mut self.walk(source));
        }
    }

    fn one_format(
        &mut self,
        name: &str,
        name_span: &Range<usize>,
        table: &mut Table<'_, '_>,
        source: usize,
    ) -> Option<Format> {
        let texts = [
            ("nginx", table.string(&mut self.walk(source), "nginx")),
            ("apache", table.string(&mut self.walk(source), "apache")),
            ("regex", table.string(&mut self.walk(source), "regex")),
        ];
        let json = table.table(&mut self.walk(source), "json", &keys::CHOSEN);
        let time = table.string(&mut self.walk(source), "time");
        let zone = match table.string(&mut self.walk(source), "timezone") {
            None => self.zone.clone(),
            Some((text, span)) => TimeZone::get(&text).unwrap_or_else(|_| {
                let known = jiff::tz::db().available().map(|name| name.to_string()).collect::<Vec<_>>();
                let help = did_you_mean(&text, known.iter().map(String::as_str));
                let help = help.or_else(|| Some("a name like Europe/Berlin".to_owned()));
                let message = format!("unknown time zone `{text}`");
                self.walk(source).error(span, message, "not in the machine's list", help);
                self.zone.clone()
            }),
        };
        let time = time.filter(|(pattern, span)| {
            let Some(error) = Format::time_error(pattern) else { return true };
            self.walk(source).error(span.clone(), error.message, "here", error.help);
            false
        });
        let mut given: Vec<(&str, Text)> = texts.into_iter().filter_map(|(kind, text)| Some((kind, text?))).collect();
        let help = Some("give exactly one of nginx, apache, regex and json".to_owned());
        if json.is_none() && table.has("json")
            || ["nginx", "apache", "regex"].iter().filter(|kind| table.has(kind)).count() > given.len()
        {
            // One of them is of a wrong type, which was said.
            return None;
        }
        if given.len() + usize::from(json.is_some()) != 1 {
            let message = format!("format `{name}` must be given in one way");
            self.walk(source).error(name_span.clone(), message, "none, or several", help);
            return None;
        }
        if let (Some((_, span)), Some((kind @ ("nginx" | "apache"), _))) = (&time, given.first()) {
            let message = format!("`time` doesn't go with `{kind}`, which says itself how times are written");
            self.walk(source).error(span.clone(), message, "take it away", None);
        }
        let pattern = time.as_ref().map(|(text, _)| text.as_str());
        let (made, span) = match (json, given.pop()) {
            (Some(json), _) => {
                let mut fields = Vec::new();
                let mut wrong = false;
                for (field, name_span, value) in json.entries() {
                    if let Some(meant) = slip_of(&field) {
                        let help = Some(format!("did you mean `{meant}`?"));
                        self.walk(source).error(name_span, format!("unknown field `{field}`"), "no such field", help);
                        wrong = true;
                    }
                    match value.get_ref() {
                        DeValue::String(path) if path.is_empty() => {
                            let help = "give a key of the log's objects, or a path like `request.headers.Referer[0]`";
                            let message = format!("`{field}` has an empty key");
                            self.walk(source).error(value.span(), message, "fill it in", Some(help.to_owned()));
                            wrong = true;
                        }
                        DeValue::String(path) => fields.push((field, path.to_string())),
                        _ => {
                            let message = format!("field `{field}` must be the path of a value, a string");
                            self.walk(source).error(value.span(), message, "here", None);
                            wrong = true;
                        }
                    }
                }
                if wrong {
                    return None;
                }
                (Format::json(name, &fields, pattern, zone), json.span)
            }
            (None, Some((kind, (text, span)))) => {
                let made = match kind {
                    "nginx" => Format::nginx(name, &text, zone),
                    "apache" => Format::apache(name, &text, zone),
                    _ => Format::regex(name, &text, pattern, zone),
                };
                (made, span)
            }
            (None, None) => return None,
        };
        match made {
            Ok(format) => Some(format),
            Err(error) => {
                let place = error.span.map_or(span.clone(), |at| inside(&self.quoted(source, &span), &span, &at));
                self.walk(source).error(place, error.message, "here", error.help);
                None
            }
        }
    }

    fn property_key(&mut self, table: &mut Table<'_, '_>, part: &Part) -> Option<PropertyKey> {
        let source = part.source;
        let given = table.string(&mut self.walk(source), "property_key");
        let file = table.string(&mut self.walk(source), "property_key_file");
        let (key, span) = match (given, file) {
            (Some(_), Some((_, span))) => {
                self.walk(source).error(
                    span,
                    "`property_key` and `property_key_file` are both given",
                    "take one away",
                    None,
                );
                return None;
            }
            (Some(text), None) => self.expand(source, text)?,
            (None, Some((name, span))) => match self.secret_file(&name, part) {
                Ok(text) => (text, span),
                Err(error) => {
                    let message = format!("cannot read the property key from {error}");
                    self.walk(source).error(span, message, "this file", None);
                    return None;
                }
            },
            (None, None) => {
                if !table.has("property_key") && !table.has("property_key_file") {
                    let help = Some("in the browser's console: window.stConfig.propertyKey".to_owned());
                    self.walk(source).error(table.span.clone(), "a site has no `property_key`", "this site", help);
                }
                return None;
            }
        };
        if key.is_empty() {
            let help = Some("in the browser's console: window.stConfig.propertyKey".to_owned());
            self.walk(source).error(span, "the property key is empty", "fill it in", help);
            return None;
        }
        if key.len() != 32 || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let help = Some("compare it with window.stConfig.propertyKey".to_owned());
            self.walk(source).warning(span, "the property key is not 32 letters and digits", "looks wrong", help);
        }
        Some(PropertyKey::new(key))
    }

    fn networks(&mut self, table: &mut Table<'_, '_>, source: usize, name: &'static str) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (text, span) in table.strings(&mut self.walk(source), name).unwrap_or_default() {
            match parse_networks(&text) {
                Ok(more) => networks.extend(more),
                Err(error) => self.walk(source).error(span, format!("bad network in `{name}`"), &error, None),
            }
        }
        networks
    }

    fn hosts(&mut self, table: &mut Table<'_, '_>, source: usize, name: &'static str) -> Option<Hosts> {
        let list = table.strings(&mut self.walk(source), name)?;
        let texts: Vec<String> = list.iter().map(|(text, _)| text.clone()).collect();
        match Hosts::parse(&texts) {
            Ok(hosts) => Some(hosts),
            Err((index, error)) => {
                let span = list.get(index).map_or(0..0, |(_, span)| span.clone());
                self.walk(source).error(span, format!("bad host in `{name}`"), &error, None);
                None
            }
        }
    }

    fn counting(&mut self, table: &mut Table<'_, '_>, source: usize) -> Counting {
        let default = Counting { statuses: vec![200, 206], window: Duration::from_secs(30) };
        let Some((text, span)) = table.string(&mut self.walk(source), "counting") else { return default };
        match text.as_str() {
            "default" => default,
            // COUNTER Code of Practice 5.1, section 7: 304 is a success too; double clicks within 30 seconds are one.
            "counter" => Counting { statuses: vec![200, 206, 304], ..default },
            // IAB Tech Lab Podcast Measurement 2.3: 200 and 206, the same listener within 24 hours is one.
            "iab" => Counting { window: Duration::from_secs(24 * 3600), ..default },
            _ => {
                let help = did_you_mean(&text, ["default", "counter", "iab"]);
                self.walk(source).error(span, format!("unknown counting `{text}`"), "default, counter or iab", help);
                default
            }
        }
    }

    fn bots(&mut self, table: &mut Table<'_, '_>, source: usize) -> Option<Arc<Bots>> {
        let mut own = |resolver: &mut Self, name| {
            let list = table.strings(&mut resolver.walk(source), name).unwrap_or_default();
            list.into_iter().filter(|text| resolver.is_regex(source, name, text)).map(|(text, _)| text).collect()
        };
        let (extra, allow): (Vec<String>, Vec<String>) = (own(self, "bots_extra"), own(self, "bots_allow"));
        let mut groups = Vec::new();
        match table.strings(&mut self.walk(source), "bots") {
            None => groups = vec![Group::Crawlers, Group::Libraries, Group::Tools],
            Some(names) => {
                for (name, span) in names {
                    match name.as_str() {
                        "skip" => groups.extend([Group::Crawlers, Group::Libraries, Group::Tools]),
                        "send" => {}
                        "crawlers" => groups.push(Group::Crawlers),
                        "libraries" => groups.push(Group::Libraries),
                        "tools" => groups.push(Group::Tools),
                        _ => {
                            let label = "\"skip\", \"send\", or a list of \"crawlers\", \"libraries\", \"tools\"";
                            let help = did_you_mean(&name, ["skip", "send", "crawlers", "libraries", "tools"]);
                            self.walk(source).error(span, format!("unknown kind of bots `{name}`"), label, help);
                        }
                    }
                }
            }
        }
        // The user's own bots are bots whatever becomes of the others.
        if groups.is_empty() && extra.is_empty() {
            return None;
        }
        Bots::new(&groups, &extra, &allow).ok().map(Arc::new)
    }

    fn base_url(&mut self, source: usize, (text, span): Text) -> Option<Url> {
        let is_host = |host: &str| Hosts::parse(&[host.to_owned()]).is_ok() && !host.contains(['$', '{', '}']);
        let mut url = match Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(is_host) => url,
            _ => {
                let help = if text.contains("${") {
                    "the environment is not read here: write it whole, https://docs.example.org"
                } else {
                    "write it whole: https://docs.example.org"
                };
                let message = "`base_url` is not an http or https URL";
                self.walk(source).error(span, message, "not a URL", Some(help.to_owned()));
                return None;
            }
        };
        let written = url.clone();
        url.set_fragment(None);
        url.set_query(None);
        // A URL with a host takes both.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        if url != written {
            let help = Some(format!("write {url}"));
            let message = "`base_url` has more than scheme, host and path: credentials, a query or a fragment";
            self.walk(source).warning(span, message, "left out", help);
        }
        Some(url)
    }

    fn site(
        &mut self,
        mut table: Table<'_, '_>,
        part: &Part,
        general: &EndpointSettings,
        allow_http: bool,
        formats: &[Format],
    ) -> Option<Placed> {
        let source = part.source;
        let span = table.span.clone();
        let name = table.string(&mut self.walk(source), "name");
        if name.as_ref().map_or(!table.has("name"), |(name, _)| name.is_empty()) {
            let help = Some("a name identifies the site in the state: name = \"docs\"".to_owned());
            self.walk(source).error(span.clone(), "a site has no `name`", "this site", help);
        }
        if let Some((name, span)) = &name
            && !self.names.insert(name.clone())
        {
            let help = Some("the name identifies the site in the state: choose another".to_owned());
            let message = format!("two sites are named `{name}`");
            self.walk(source).error(span.clone(), message, "the second one", help);
        }
        let base_url = table.string(&mut self.walk(source), "base_url");
        let base_url = match base_url {
            None => {
                if !table.has("base_url") {
                    let help = Some("base_url = \"https://docs.example.org\"".to_owned());
                    self.walk(source).error(span.clone(), "a site has no `base_url`", "this site", help);
                }
                None
            }
            Some(text) => self.base_url(source, text),
        };
        let property_key = self.property_key(&mut table, part);
        let mut endpoint = general.clone();
        match table.string(&mut self.walk(source), "endpoint") {
            Some(text) => endpoint.url = self.endpoint_url(source, text, allow_http).unwrap_or(endpoint.url),
            None if general.url == no_url()
                && !self.problems.iter().any(|problem| {
                    problem.message.contains("endpoint")
                        || problem.message.starts_with("http://")
                        || problem.message.starts_with("the environment")
                }) =>
            {
                let help = Some("add url = \"https://…/v1/events\" to [endpoint]; in the browser's console: window.stConfig.endpointUrl".to_owned());
                self.walk(source).error(span.clone(), "a site has no endpoint", "this site", help);
            }
            None => {}
        }
        let given = table.strings(&mut self.walk(source), "logs");
        let mistyped = given.is_none() && table.has("logs");
        let logs = given.unwrap_or_default();
        if logs.is_empty() && !mistyped {
            let help = Some("logs = [\"/var/log/nginx/access.log\"]".to_owned());
            self.walk(source).error(span.clone(), "a site has no `logs`", "this site", help);
        }
        for (pattern, span) in &logs {
            if pattern.contains("${") {
                let help = Some("write the path".to_owned());
                self.walk(source).warning(span.clone(), "the environment is not read here", "taken as it is", help);
            }
            if discover::is_glob(pattern)
                && let Err(error) = glob::Pattern::new(pattern)
            {
                self.walk(source).error(span.clone(), format!("bad pattern in `logs`: {}", error.msg), "here", None);
            }
        }
        let (format, format_span) = self.format_choice(&mut table, source, formats);
        let hosts = self.hosts(&mut table, source, "hosts");
        if let Some(span) = table.empty_list("hosts") {
            let help = Some("leave it out, or name the hosts whose requests are the site's".to_owned());
            self.walk(source).warning(span, "`hosts` is empty: no line would be the site's", "no host", help);
        }
        let view_width =
            table.number(&mut self.walk(source), "view_width", 1).and_then(|(width, _)| u32::try_from(width).ok());
        let page = self.page(&mut table, source);
        let keep_query = self.keep_query(&mut table, source);
        let counting = self.counting(&mut table, source);
        let repeat_window = self.duration(&mut table, source, "repeat_window").unwrap_or(counting.window);
        let bots = self.bots(&mut table, source);
        let exclude_ips = self.networks(&mut table, source, "exclude_ips");
        let trusted_proxies = self.networks(&mut table, source, "trusted_proxies");
        let respect_dnt = table.boolean(&mut self.walk(source), "respect_dnt").unwrap_or(true);
        let extras: Vec<String> = match &format {
            FormatChoice::Fixed(format) => format.extra().iter().map(ToString::to_string).collect(),
            FormatChoice::Auto => {
                formats.iter().flat_map(|format| format.extra()).map(|name| name.to_string()).collect()
            }
        };
        let rule_tables = table.tables(&mut self.walk(source), "rule", &keys::RULE);
        let has_rules = !rule_tables.is_empty();
        let mut rules: Vec<Rule> = Vec::new();
        for rule_table in rule_tables {
            let place = rule_table.span.clone();
            let Some(rule) = self.rule(rule_table, source, &counting, &extras) else { continue };
            if let Some(before) = rules.iter().position(|before| before.conditions.covers(&rule.conditions)) {
                let label = format!("rule {} fits every line that this one fits", before + 1);
                self.walk(source).warning(place, "this rule is never reached", &label, None);
            }
            rules.push(rule);
        }
        table.finish(&mut self.walk(source));
        let rules = if has_rules { Rules(rules) } else { Rules::downloads(counting.statuses) };
        if let FormatChoice::Fixed(format) = &format {
            let place = format_span.clone().unwrap_or_else(|| span.clone());
            self.missing_fields(source, &place, format, &rules, bots.as_deref());
        }
        let ((name, name_span), base_url, property_key) = (name?, base_url?, property_key?);
        let context = SiteContext {
            hosts: hosts.clone().unwrap_or_else(|| Hosts::of_base_url(&base_url)),
            base_url,
            keep_query,
            page,
            view_width,
        };
        let site = Site {
            name,
            context,
            property_key,
            endpoint,
            logs: logs.iter().map(|(text, _)| text.clone()).collect(),
            format,
            hosts,
            repeat_window,
            bots,
            exclude_ips,
            trusted_proxies,
            respect_dnt,
            rules,
        };
        Some(Placed { site, source, name_span, logs, format_span })
    }

    /// Says where a format lacks what every line is asked for: nothing would ever count.
    fn missing_fields(
        &mut self,
        source: usize,
        place: &Range<usize>,
        format: &Format,
        rules: &Rules,
        bots: Option<&Bots>,
    ) {
        let name = format.name();
        let mut warn = |message: String, label: &str, help: &str| {
            self.walk(source).warning(place.clone(), message, label, Some(help.to_owned()));
        };
        if !format.gives("user_agent") && bots.is_some_and(|bots| bots.reason(None).is_some()) {
            let help = "log the user agent, as `combined` does, or set `bots = \"send\"`";
            warn(format!("format `{name}` has no user agent"), "every request counts as a bot's", help);
        }
        let events = || rules.0.iter().filter(|rule| rule.event.is_some()).map(|rule| &rule.conditions);
        if !format.gives("method") && events().all(|asked| asked.methods.is_some()) && events().next().is_some() {
            let help = "log the method, or write `method = \"any\"` into a rule";
            warn(format!("format `{name}` has no method"), "no rule fits any line", help);
        }
        if !format.gives("status") && events().all(|asked| asked.statuses.is_some()) && events().next().is_some() {
            let help = "log the status, or write `status = \"any\"` into a rule";
            warn(format!("format `{name}` has no status"), "no rule fits any line", help);
        }
    }

    fn format_choice(
        &mut self,
        table: &mut Table<'_, '_>,
        source: usize,
        formats: &[Format],
    ) -> (FormatChoice, Option<Range<usize>>) {
        let Some((name, span)) = table.string(&mut self.walk(source), "format") else {
            return (FormatChoice::Auto, None);
        };
        if name == "auto" || self.broken.contains(&name) {
            return (FormatChoice::Auto, Some(span));
        }
        let own = formats.iter().find(|format| format.name() == name).cloned();
        if let Some(format) = own.or_else(|| Format::builtin(&name, &self.zone)) {
            return (FormatChoice::Fixed(format), Some(span));
        }
        let known = formats.iter().map(Format::name).chain(BUILTIN.iter().copied()).chain(["auto"]);
        let help = did_you_mean(&name, known);
        let help = help.or_else(|| Some(format!("there are auto, {}, and what [formats] defines", BUILTIN.join(", "))));
        self.walk(source).error(span.clone(), format!("unknown format `{name}`"), "no such format", help);
        (FormatChoice::Auto, Some(span))
    }

    fn page(&mut self, table: &mut Table<'_, '_>, source: usize) -> Vec<PageSource> {
        let whole = table.take("page").map(|value| value.span());
        let Some(names) = table.strings(&mut self.walk(source), "page") else {
            return vec![PageSource::Referer, PageSource::OwnUrl];
        };
        if let (true, Some(span)) = (names.is_empty(), whole) {
            let help = Some("leave it out, or choose of \"referer\", \"self\" and \"base\"".to_owned());
            self.walk(source).warning(span, "`page` is empty: every event needs one", "no line would count", help);
        }
        let mut page = Vec::new();
        for (name, span) in names {
            match name.as_str() {
                "referer" => page.push(PageSource::Referer),
                "self" => page.push(PageSource::OwnUrl),
                "base" => page.push(PageSource::Base),
                _ => {
                    let help = did_you_mean(&name, ["referer", "self", "base"]);
                    let label = "\"referer\", \"self\" or \"base\"";
                    self.walk(source).error(span, format!("unknown page `{name}`"), label, help);
                }
            }
        }
        page
    }

    fn keep_query(&mut self, table: &mut Table<'_, '_>, source: usize) -> KeepQuery {
        match table.take("keep_query") {
            None => KeepQuery::Only(Vec::new()),
            Some(value) => match value.get_ref() {
                DeValue::Boolean(true) => KeepQuery::All,
                DeValue::Boolean(false) => KeepQuery::Only(Vec::new()),
                DeValue::Integer(_) | DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => {
                    self.walk(source).wrong_type(value, "keep_query", "a list of names, or true");
                    KeepQuery::Only(Vec::new())
                }
                _ => {
                    let names = strings_of(&mut self.walk(source), value, "keep_query").unwrap_or_default();
                    KeepQuery::Only(names.into_iter().map(|(name, _)| name).collect())
                }
            },
        }
    }

    fn regex(&mut self, table: &mut Table<'_, '_>, source: usize, name: &'static str) -> Option<Regex> {
        let text = table.string(&mut self.walk(source), name)?;
        if self.is_regex(source, name, &text) { Regex::new(&text.0).ok() } else { None }
    }

    /// Says what is wrong with a regex.
    fn is_regex(&mut self, source: usize, name: &str, (pattern, span): &Text) -> bool {
        let Err(error) = Regex::new(pattern) else { return true };
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        self.walk(source).error(span.clone(), format!("bad regex in `{name}`: {reason}"), "here", None);
        false
    }

    fn rule(
        &mut self,
        mut table: Table<'_, '_>,
        source: usize,
        counting: &Counting,
        extras: &[String],
    ) -> Option<Rule> {
        let span = table.span.clone();
        let event = table.string(&mut self.walk(source), "event");
        let skip = table.boolean(&mut self.walk(source), "skip").unwrap_or(false);
        match (&event, skip) {
            _ if event.is_none() && table.has("event") => {}
            (Some((_, span)), true) => {
                self.walk(source).error(span.clone(), "a rule has `event` and `skip`", "take one away", None);
            }
            (None, false) => {
                let help = Some("event = \"download\", or skip = true".to_owned());
                self.walk(source).error(span, "a rule has no `event`", "this rule", help);
            }
            (Some((name, span)), false) if name.is_empty() => {
                self.walk(source).error(span.clone(), "the event's name is empty", "fill it in", None);
            }
            _ => {}
        }
        for name in ["extensions", "method", "status", "host"] {
            if let Some(span) = table.empty_list(name) {
                let message = format!("`{name}` is an empty list: the rule fits no line");
                self.walk(source).warning(span, message, "fits nothing", Some("leave it out".to_owned()));
            }
        }
        for name in ["url", "properties", "repeat_window"].into_iter().filter(|_| skip) {
            if let Some(span) = table.key_span(name) {
                let message = format!("`{name}` has no effect beside `skip`: the rule makes no event");
                self.walk(source).warning(span, message, "no effect", Some("take it away".to_owned()));
            }
        }
        let extensions = table
            .strings(&mut self.walk(source), "extensions")
            .map(|list| Extensions::new(&list.into_iter().map(|(text, _)| text).collect::<Vec<_>>()));
        let path = self.regex(&mut table, source, "path");
        let host = self.hosts(&mut table, source, "host");
        let user_agent = self.regex(&mut table, source, "user_agent");
        let methods = match table.strings(&mut self.walk(source), "method") {
            None => (!skip).then(|| vec!["GET".to_owned()]),
            Some(list) if list.iter().any(|(text, _)| text == "any") => None,
            Some(list) => {
                for (text, span) in list.iter().filter(|(text, _)| text.bytes().any(|b| b.is_ascii_lowercase())) {
                    let help = Some(format!("write `{}`", text.to_ascii_uppercase()));
                    self.walk(source).warning(span.clone(), "methods are upper case", "fits no request", help);
                }
                Some(list.into_iter().map(|(text, _)| text).collect())
            }
        };
        let statuses = self.statuses(&mut table, source, if skip { None } else { Some(&counting.statuses) });
        let referer = match table.string(&mut self.walk(source), "referer") {
            None => RefererCondition::Any,
            Some((text, span)) => match text.as_str() {
                "any" => RefererCondition::Any,
                "same-site" => RefererCondition::SameSite,
                "external" => RefererCondition::External,
                "none" => RefererCondition::None,
                _ => {
                    let known = ["any", "same-site", "external", "none"];
                    let help = did_you_mean(&text, known);
                    self.walk(source).error(
                        span,
                        format!("unknown referer `{text}`"),
                        "any, same-site, external or none",
                        help,
                    );
                    RefererCondition::Any
                }
            },
        };
        let groups: Vec<String> =
            path.iter().flat_map(|regex| regex.capture_names().flatten()).map(str::to_owned).collect();
        let url = table.string(&mut self.walk(source), "url");
        // What these begin with has no scheme and no host.
        let part = |text: &str| ["{path", "{query", "{method", "{status"].iter().any(|start| text.starts_with(start));
        let whole = |text: &str| ["http://", "https://", "{"].iter().any(|start| text.starts_with(start));
        if let Some((text, span)) = url.as_ref().filter(|(text, _)| !whole(text) || part(text)) {
            let help = Some(format!("begin it with {{base_url}} or https://: `{{base_url}}{text}`"));
            self.walk(source).warning(span.clone(), "`url` is not a whole URL", "no line would count", help);
        }
        let url = url.and_then(|text| self.template(source, text, extras, &groups));
        let mut properties = Vec::new();
        if let Some(inner) = table.table(&mut self.walk(source), "properties", &keys::CHOSEN) {
            for (name, name_span, value) in inner.entries() {
                if name == "event" || name == "url" {
                    self.walk(source).error(
                        name_span,
                        format!("`{name}` can't be a property"),
                        "the event has it already",
                        None,
                    );
                    continue;
                }
                let DeValue::String(text) = value.get_ref() else {
                    self.walk(source).error(value.span(), format!("property `{name}` must be a string"), "here", None);
                    continue;
                };
                let template = self.template(source, (text.to_string(), value.span()), extras, &groups);
                properties.extend(template.map(|template| (name, template)));
            }
        }
        let repeat_window = self.duration(&mut table, source, "repeat_window");
        table.finish(&mut self.walk(source));
        let conditions = Conditions { extensions, path, host, methods, statuses, user_agent, referer };
        Some(Rule {
            event: event.map(|(name, _)| name.into()).filter(|_| !skip),
            conditions,
            url,
            properties,
            repeat_window,
        })
    }

    fn statuses(&mut self, table: &mut Table<'_, '_>, source: usize, default: Option<&Vec<u16>>) -> Option<Vec<u16>> {
        let Some(value) = table.take("status") else { return default.cloned() };
        let mut statuses = Vec::new();
        let items: Vec<&Value<'_>> = match value.get_ref() {
            DeValue::String(text) if text == "any" => return None,
            DeValue::Array(items) if items.iter().any(|item| item.get_ref().as_str() == Some("any")) => return None,
            DeValue::Array(items) => items.iter().collect(),
            _ => vec![value],
        };
        for item in items {
            match super::raw::number_of(item).and_then(|number| u16::try_from(number).ok()) {
                Some(status @ 100..=599) => statuses.push(status),
                _ => self.walk(source).error(
                    item.span(),
                    "`status` is a list of HTTP statuses, or \"any\"",
                    "not a status",
                    None,
                ),
            }
        }
        Some(statuses)
    }

    fn template(
        &mut self,
        source: usize,
        (text, span): Text,
        extras: &[String],
        groups: &[String],
    ) -> Option<Template> {
        let quote = self.quoted(source, &span);
        let inside = |at: &Range<usize>| inside(&quote, &span, at);
        let template = match Template::parse(&text) {
            Ok(template) => template,
            Err(error) => {
                self.walk(source).error(inside(&error.span), error.message, "here", error.help);
                return None;
            }
        };
        for (name, at) in template.names() {
            let known = name == "base_url"
                || name.strip_prefix("query.").is_some_and(|parameter| !parameter.is_empty())
                || FIELDS.contains(&name)
                || extras.iter().chain(groups).any(|extra| extra == name);
            if !known {
                let names =
                    FIELDS.iter().copied().chain(["base_url"]).chain(extras.iter().chain(groups).map(String::as_str));
                let help = super::raw::nearest(name, names).map(|near| format!("did you mean `{{{near}}}`?"));
                self.walk(source).error(
                    inside(&at),
                    format!("unknown field `{name}` in a template"),
                    "no such field",
                    help,
                );
            }
        }
        Some(template)
    }

    /// What only shows when sites are held beside each other.
    fn compare(&mut self, sites: &[Placed]) {
        for (index, placed) in sites.iter().enumerate() {
            for (pattern, span) in &placed.logs {
                let mine = discover::expand(pattern);
                let shared = sites[..index].iter().find(|other| {
                    other.logs.iter().any(|(theirs, _)| {
                        theirs == pattern || discover::expand(theirs).iter().any(|path| mine.contains(path))
                    })
                });
                let Some(other) = shared else { continue };
                if let (Some(first), Some(second)) = (&other.site.hosts, &placed.site.hosts)
                    && first.covers(second)
                {
                    let message = format!("no line of this log is ever `{}`'s", placed.site.name);
                    let label = format!("site `{}`, which stands before it, has all its hosts", other.site.name);
                    self.walk(placed.source).warning(span.clone(), message, &label, None);
                }
                if placed.site.hosts.is_none() || other.site.hosts.is_none() {
                    let message = format!("sites `{}` and `{}` share a log", other.site.name, placed.site.name);
                    let help =
                        Some("give both sites `hosts`, so that each line can be given to one of them".to_owned());
                    self.walk(placed.source).error(span.clone(), message, "shared", help);
                }
                for placed in [other, placed] {
                    if let FormatChoice::Fixed(format) = &placed.site.format
                        && !format.gives("host")
                    {
                        let message = format!("format `{}` has no host, which a shared log needs", format.name());
                        let span = placed.format_span.clone().unwrap_or_else(|| placed.name_span.clone());
                        let help = Some("log the host, as vhost_combined does".to_owned());
                        if !self.problems.iter().any(|known| known.source == Some(placed.source) && known.span == span)
                        {
                            self.walk(placed.source).error(span, message, "no host", help);
                        }
                    }
                }
            }
        }
    }
}

/// A place inside a string, as a place in the file. `quote` is how the string is written.
fn inside(quote: &str, span: &Range<usize>, at: &Range<usize>) -> Range<usize> {
    let open = ["'''\r\n", "'''\n", "\"\"\"\r\n", "\"\"\"\n", "'''", "\"\"\""]
        .iter()
        .find(|open| quote.starts_with(**open))
        .map_or(1, |open| open.len());
    let written = |at: usize| if quote.starts_with('"') { written_at(quote, open, at) } else { open + at };
    let start = (span.start + written(at.start)).min(span.end);
    start..(span.start + written(at.end)).clamp(start, span.end)
}

/// Where in a string with escapes, whose text begins at `open`, its byte number `at` is written.
fn written_at(quote: &str, open: usize, at: usize) -> usize {
    let (mut here, mut meant) = (open, 0);
    while let Some(rest) = quote.get(here..).filter(|rest| !rest.is_empty()) {
        let code = |digits: usize| rest.get(2..2 + digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let len = |code: Option<u32>| code.and_then(char::from_u32).map_or(1, char::len_utf8);
        let (written, means) = match rest.as_bytes() {
            [b'\\', b'x', ..] => (4, len(code(2))),
            [b'\\', b'u', ..] => (6, len(code(4))),
            [b'\\', b'U', ..] => (10, len(code(8))),
            // A line that goes on: neither the backslash nor the white space after it is text.
            [b'\\', b' ' | b'\t' | b'\r' | b'\n', ..] => (rest.len() - rest[1..].trim_start().len(), 0),
            [b'\\', ..] => (2, 1),
            _ => {
                let len = rest.chars().next().map_or(1, char::len_utf8);
                (len, len)
            }
        };
        if means > 0 && meant >= at {
            break;
        }
        here += written;
        meant += means;
    }
    here
}

/// Stands for "not given": no site may be sent to it.
fn no_url() -> Url {
    // A data URL always parses and is never an endpoint.
    Url::parse("data:,").unwrap_or_else(|_| unreachable!("a constant that parses"))
}

/// A number and a unit: `500ms`, `2s`, `5m`, `24h`, `30d`; ten years at most.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..at].parse().ok()?;
    Some(match text[at..].trim() {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" | "min" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3_600)?),
        "d" => Duration::from_secs(number.checked_mul(86_400)?),
        _ => return None,
    })
    .filter(|duration| *duration <= Duration::from_secs(10 * 366 * 86_400))
}

fn parse_size(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..at].parse().ok()?;
    let unit: u64 = match text[at..].trim() {
        "" | "B" => 1,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_strings_are_found_in_the_file_however_the_string_is_written() {
        for written in [
            "'a $x'",
            "\"a $x\"",
            "\"\\\"\\\" $x\"",
            "\"\\u00e4\\U0001F600é\\t $x\"",
            "\"\"\"\na\n $x\"\"\"",
            "\"\"\"a \\\n   $x\"\"\"",
            "'''\r\na $x'''",
        ] {
            let file = format!("k = {written}\n");
            let table = DeTable::parse(&file).unwrap();
            let (_, value) = table.get_ref().iter().next().unwrap();
            let text = value.get_ref().as_str().unwrap();
            let at = text.find("$x").unwrap();
            let place = inside(&file[value.span()], &value.span(), &(at..at + 2));
            assert!(file[place.clone()].starts_with("$x"), "{written}: {}", &file[place]);
        }
    }
}
