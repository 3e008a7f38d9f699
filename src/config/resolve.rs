//! From the TOML as written to the configuration as used.

mod endpoint;
mod formats;
mod rule;
mod secrets;
mod sites;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use toml::de::{DeTable, DeValue};

use super::raw::{Table, Walk, did_you_mean, strings_of};
pub use formats::{Lack, lacks};

use super::report::{Problem, Report, Source};
use super::{Config, Expectation, Follow, Loaded, Site, Start, Status, Want, keys};
use crate::deliver::payload::redact;
use crate::follow::discover;
use crate::format::Format;
use crate::pipeline::FATES;
use crate::small_file;
use crate::status::access::Listen;

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

/// Where the state is that a configuration names, whatever else is wrong with it; `None`: that can't be told.
pub fn state_dir(path: &Path, env: Env<'_>) -> Option<PathBuf> {
    let (mut sources, mut problems) = (Vec::new(), Vec::new());
    let main = part_of(path, small_file::read(path).ok()?, &mut sources, &mut problems)?;
    let (table, _) = DeTable::parse_recoverable(&main.text);
    let mut root = Table::new(table.get_ref(), table.span(), &keys::ROOT);
    let (texts, names, files) = (HashMap::new(), HashSet::new(), Vec::new());
    let problems = &mut problems;
    let mut resolver = Resolver { env, problems, zone: TimeZone::UTC, texts, broken: Vec::new(), names, files };
    resolver.state_dir(&mut root, main.source)
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
    let bytes = match small_file::read(path) {
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
            match small_file::read(&file) {
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
    let files = parts.iter().map(|part| part.path.clone()).collect();
    Resolver { env, problems, zone: TimeZone::system(), texts, broken: Vec::new(), names: HashSet::new(), files }
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
    /// What was read.
    files: Vec<PathBuf>,
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
        let (endpoint, allow_http) = self.endpoint(endpoint_table, first);
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
            files: std::mem::take(&mut self.files),
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
                let shown = if secrets::is_secret(name) { redact(name) } else { name.escape_debug().to_string() };
                let message = format!("the environment has no `{shown}`");
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
            let help = Some("write a number and a unit, ten years at most: 500ms, 2s, 5m, 24h, 30d".to_owned());
            self.walk(source).error(value.span(), format!("`{name}` is not a duration"), "not a duration", help);
        }
        parsed
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
