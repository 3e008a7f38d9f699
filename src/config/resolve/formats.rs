//! The formats, own ones and chosen ones, and where in their text something is wrong.

use std::ops::Range;

use ipnet::IpNet;
use jiff::tz::TimeZone;
use toml::de::DeValue;

use super::{Resolver, Text};
use crate::config::raw::{Table, did_you_mean};
use crate::config::{FormatChoice, keys};
use crate::format::{BUILTIN, Format, slip_of};
use crate::rules::{RefererCondition, Rules};
use crate::visitor::bots::Bots;

impl Resolver<'_> {
    pub(super) fn formats(&mut self, root: &mut Table<'_, '_>, source: usize, formats: &mut Vec<Format>) {
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
            Ok(format) => {
                if format.misleads() {
                    let help = "put it in quotes in the server's log format, and here, or to the end";
                    let so = "where it ends can't be told";
                    let message = "the user agent stands in no quotes, and what follows it may hold spaces";
                    self.walk(source).warning(span, message, so, Some(help.to_owned()));
                }
                Some(format)
            }
            Err(error) => {
                let place = error.span.map_or(span.clone(), |at| inside(&self.quoted(source, &span), &span, &at));
                self.walk(source).error(place, error.message, "here", error.help);
                None
            }
        }
    }

    /// Says where a format lacks what a site asks for.
    pub(super) fn missing_fields(
        &mut self,
        source: usize,
        place: &Range<usize>,
        format: &Format,
        (rules, bots, trusted_proxies): (&Rules, Option<&Bots>, &[IpNet]),
    ) {
        for Lack { what, so, help } in lacks(format, rules, bots, trusted_proxies) {
            self.walk(source).warning(place.clone(), what, so, Some(help.to_owned()));
        }
    }

    pub(super) fn format_choice(
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
}

/// Something that a site asks of its lines and that their format doesn't have.
#[derive(Debug)]
pub struct Lack {
    /// What isn't there.
    pub what: String,
    /// What follows from that.
    pub so: &'static str,
    /// What to do.
    pub help: &'static str,
}

/// Where a format lacks what a site asks for: mostly nothing would ever count, or all the wrong way.
pub fn lacks(format: &Format, rules: &Rules, bots: Option<&Bots>, trusted_proxies: &[IpNet]) -> Vec<Lack> {
    let name = format.name();
    let mut lacks = Vec::new();
    let mut add = |what: String, so, help| lacks.push(Lack { what, so, help });
    if !format.gives("user_agent") && bots.is_some_and(|bots| bots.reason(None).is_some()) {
        let help = "log the user agent, as `combined` does, or set `bots = \"send\"`";
        add(format!("format `{name}` has no user agent"), "every request counts as a bot's", help);
    }
    if !format.gives("forwarded_for") && !trusted_proxies.is_empty() {
        let so = "`trusted_proxies` has no effect: a proxy's address would be every visitor's";
        add(format!("format `{name}` has no X-Forwarded-For"), so, "log it as well, or take `trusted_proxies` away");
    }
    let events = || rules.0.iter().filter(|rule| rule.event.is_some()).map(|rule| &rule.conditions);
    if !format.gives("method") && events().all(|asked| asked.methods.is_some()) && events().next().is_some() {
        let help = "log the method, or write `method = \"any\"` into a rule";
        add(format!("format `{name}` has no method"), "no rule fits any line", help);
    }
    if !format.gives("status") && events().all(|asked| asked.statuses.is_some()) && events().next().is_some() {
        let help = "log the status, or write `status = \"any\"` into a rule";
        add(format!("format `{name}` has no status"), "no rule fits any line", help);
    }
    for (number, rule) in (1..).zip(&rules.0) {
        let asked = &rule.conditions;
        let needs_agent = asked.user_agent.as_ref().is_some_and(|regex| !regex.is_match(b""));
        let none = "the rule fits no line";
        for (field, needed, says, so) in [
            ("host", asked.host.is_some(), "the host", "the rule fits only requests whose target names it"),
            ("user_agent", needs_agent, "the user agent", none),
            ("referer", asked.referer == RefererCondition::SameSite, "the referer", none),
        ] {
            if needed && !format.gives(field) {
                let what = format!("rule {number} asks for {says}, and format `{name}` has none");
                add(what, so, "log it as well, or ask for something else");
            }
        }
    }
    lacks
}

/// A place inside a string, as a place in the file. `quote` is how the string is written.
pub(super) fn inside(quote: &str, span: &Range<usize>, at: &Range<usize>) -> Range<usize> {
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

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

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
