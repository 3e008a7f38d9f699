//! Sites: what they read and what counts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;
use url::Url;

use super::endpoint::no_url;
use super::{Counting, Part, Placed, Resolver, Text};
use crate::config::raw::{Table, did_you_mean, strings_of};
use crate::config::{FormatChoice, Site, keys};
use crate::deliver::EndpointSettings;
use crate::follow::discover;
use crate::format::Format;
use crate::rules::{Hosts, KeepQuery, PageSource, Rule, Rules, SiteContext};
use crate::visitor::bots::{Bots, Group};
use crate::visitor::client::parse_networks;

impl Resolver<'_> {
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

    pub(super) fn hosts(&mut self, table: &mut Table<'_, '_>, source: usize, name: &'static str) -> Option<Hosts> {
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
        // What `silktail init` writes where it doesn't know.
        if url.host_str() == Some("example.org") {
            let help = Some("write the site's own, or Silktide discards its events".to_owned());
            self.walk(source).warning(span.clone(), "`base_url` is an example's", "fill it in", help);
        }
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

    pub(super) fn site(
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
            && name.chars().any(char::is_control)
        {
            let help = Some("letters, digits, spaces and marks: it is shown in many places".to_owned());
            self.walk(source).error(span.clone(), "the name has control characters in it", "here", help);
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
        let known = self.problems.len();
        let logs = table.strings(&mut self.walk(source), "logs").unwrap_or_default();
        let mistyped = self.problems.len() > known;
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
            self.missing_fields(source, &place, format, (&rules, bots.as_deref(), &trusted_proxies));
        }
        let ((name, name_span), base_url, property_key) = (name?, base_url?, property_key?);
        let context = SiteContext {
            hosts: hosts.clone().unwrap_or_else(|| Hosts::of_base_url(&base_url)),
            base_url: base_url.into(),
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
                    for (_, span) in names.iter().filter(|(name, _)| name.contains('*')) {
                        let help = Some("keep_query = true keeps all; else name each parameter".to_owned());
                        self.walk(source).warning(
                            span.clone(),
                            "`keep_query` knows no wildcard",
                            "taken as it is",
                            help,
                        );
                    }
                    KeepQuery::Only(names.into_iter().map(|(name, _)| name).collect())
                }
            },
        }
    }

    /// What only shows when sites are held beside each other.
    pub(super) fn compare(&mut self, sites: &[Placed]) {
        // To find what one site alone reads would be for nothing.
        if sites.len() < 2 {
            return;
        }
        // The first site of each pattern and each path: with thousands of sites, they aren't held against each other.
        let (mut patterns, mut paths): (BTreeMap<&str, usize>, BTreeMap<PathBuf, usize>) = Default::default();
        let mut globs: Vec<(discover::Glob, usize)> = Vec::new();
        for (index, placed) in sites.iter().enumerate() {
            let mine: Vec<Vec<PathBuf>> = placed.logs.iter().map(|(pattern, _)| discover::expand(pattern)).collect();
            for ((pattern, span), mine) in placed.logs.iter().zip(&mine) {
                // A glob of the one may fit the log of the other, whether that is there or not.
                let fitting = match discover::Glob::of(pattern) {
                    Some(glob) => {
                        let below = discover::watched_directory(pattern).display().to_string();
                        let there = patterns.range(below.as_str()..).take_while(|(other, _)| other.starts_with(&below));
                        let logs = there.filter(|(other, _)| !discover::is_glob(other) && glob.fits(other));
                        logs.map(|(_, index)| *index).min()
                    }
                    None => globs
                        .iter()
                        .find(|(glob, _): &&(discover::Glob, usize)| glob.fits(pattern))
                        .map(|(_, index)| *index),
                };
                let others =
                    mine.iter().filter_map(|path| paths.get(path)).chain(patterns.get(pattern.as_str())).copied();
                let others = others.chain(fitting);
                let shared = others.min().and_then(|first: usize| sites.get(first));
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
            for path in mine.into_iter().flatten() {
                paths.entry(path).or_insert(index);
            }
            for (pattern, _) in &placed.logs {
                patterns.entry(pattern).or_insert(index);
                globs.extend(discover::Glob::of(pattern).map(|glob| (glob, index)));
            }
        }
    }
}
