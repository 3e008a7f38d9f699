//! Rules: what makes an event of a line.

use std::ops::Range;

use regex::bytes::Regex;
use toml::de::DeValue;

use super::formats::inside;
use super::{Counting, Resolver, Text};
use crate::config::keys;
use crate::config::raw::{Table, Value, did_you_mean, nearest, number_of};
use crate::entry::FIELDS;
use crate::rules::{Conditions, Extensions, RefererCondition, Rule, Template};

impl Resolver<'_> {
    pub(super) fn regex(&mut self, table: &mut Table<'_, '_>, source: usize, name: &'static str) -> Option<Regex> {
        let text = table.string(&mut self.walk(source), name)?;
        if self.is_regex(source, name, &text) { Regex::new(&text.0).ok() } else { None }
    }

    /// Says what is wrong with a regex.
    pub(super) fn is_regex(&mut self, source: usize, name: &str, (pattern, span): &Text) -> bool {
        let Err(error) = Regex::new(pattern) else { return true };
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        self.walk(source).error(span.clone(), format!("bad regex in `{name}`: {reason}"), "here", None);
        false
    }

    pub(super) fn rule(
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
        let extensions = table.strings(&mut self.walk(source), "extensions").map(|list| {
            for (text, span) in &list {
                // A query begins at `?`, a segment at `/`: neither is in an extension, and nothing is a pattern.
                if text.trim_start_matches('.').is_empty() || text.contains(['*', '?', '/', '#', ' ']) {
                    let message = format!("`{}` is no extension", text.escape_debug());
                    let help =
                        Some("write what stands behind a name's dot: \"pdf\"; for patterns there is `path`".to_owned());
                    self.walk(source).warning(span.clone(), message, "fits no path", help);
                }
            }
            Extensions::new(&list.into_iter().map(|(text, _)| text).collect::<Vec<_>>())
        });
        let path_span = table.key_span("path");
        let path = self.regex(&mut table, source, "path");
        let host = self.hosts(&mut table, source, "host");
        let user_agent = self.regex(&mut table, source, "user_agent");
        let methods = match table.strings(&mut self.walk(source), "method") {
            None => (!skip).then(|| vec!["GET".to_owned()]),
            Some(list) if list.iter().any(|(text, _)| text == "any") => None,
            Some(list) => {
                for (text, span) in list.iter().filter(|(text, _)| text.bytes().any(|b| b.is_ascii_lowercase())) {
                    let upper = text.to_ascii_uppercase();
                    let help = Some(if upper == "ANY" { "write `any`".to_owned() } else { format!("write `{upper}`") });
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
        for group in &groups {
            let is_field = FIELDS.contains(&group.as_str()) || group == "base_url" || extras.contains(group);
            if let (true, Some(span)) = (is_field, &path_span) {
                let message = format!("the group `{group}` is called like a field of the line");
                let help = Some(format!("give it another name: `{{{group}}}` is the field's where the line has it"));
                self.walk(source).warning(span.clone(), message, "not always used", help);
            }
        }
        let url = table.string(&mut self.walk(source), "url");
        // What these begin with has no scheme and no host.
        let part = |text: &str| ["{path", "{query", "{method", "{status"].iter().any(|start| text.starts_with(start));
        let whole = |text: &str| ["http://", "https://", "{"].iter().any(|start| text.starts_with(start));
        if let Some((text, span)) = url.as_ref().filter(|(text, _)| !whole(text) || part(text)) {
            let help = Some(match text.contains("${") {
                true => format!("what the line gives is written without `$`: `{}`", text.replace("${", "{")),
                false => format!("begin it with {{base_url}} or https://: `{{base_url}}{text}`"),
            });
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
            match number_of(item).and_then(|number| u16::try_from(number).ok()) {
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
                let help = nearest(name, names).map(|near| format!("did you mean `{{{near}}}`?"));
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
}
