//! Templates of URLs and properties: `{base_url}{path}`, `{query.plan}`, `{path|basename|lower}`; `{{` is a brace.

use std::ops::Range;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode};
use regex::bytes::Regex;

use super::SiteContext;
use super::condition::decoded_path;
use super::site::encoded;
use crate::entry::{Entry, as_bytes_or_text};

/// What may not stand raw in a URL.
const UNSAFE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'\\')
    .add(b'^')
    .add(b'|')
    .add(b'{')
    .add(b'}')
    .add(b'#');
/// The same of what means something else in a query than in a path or a referer.
const UNSAFE_IN_QUERY: &AsciiSet = &UNSAFE.add(b'&').add(b'+');
/// The same of text that isn't percent-encoded yet.
const PLAIN: &AsciiSet = &UNSAFE_IN_QUERY.add(b'%').add(b'?');

/// Why a template can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// What is wrong.
    pub message: String,
    /// Where in the template, in bytes.
    pub span: Range<usize>,
    /// The likely fix.
    pub help: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    Lower,
    Basename,
    Extension,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Value { name: String, span: Range<usize>, filters: Vec<Filter> },
}

/// A compiled template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// An unclosed brace, an empty name, an unknown filter. Whether the names exist is asked with [`Template::names`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            if rest.starts_with("{{") || rest.starts_with("}}") {
                literal.push_str(&rest[..1]);
                at += 2;
            } else if rest.starts_with('{') {
                let end = rest.find('}').ok_or_else(|| TemplateError {
                    message: "this brace is never closed".to_owned(),
                    span: at..at + 1,
                    help: Some("write `{{` for a brace itself".to_owned()),
                })?;
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(value(&rest[1..end], at + 1)?);
                at += end + 1;
            } else {
                let len = rest.chars().next().map_or(1, char::len_utf8);
                literal.push_str(&rest[..len]);
                at += len;
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self(pieces))
    }

    /// The names it uses, and where.
    pub fn names(&self) -> impl Iterator<Item = (&str, Range<usize>)> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Value { name, span, .. } => Some((name.as_str(), span.clone())),
            Piece::Literal(_) => None,
        })
    }

    /// Fills it in; `None`: a value is absent. For a URL, values are encoded as the place where they stand wants it.
    pub fn render(&self, entry: &Entry<'_>, site: &SiteContext, path: Option<&Regex>, for_url: bool) -> Option<String> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Value { name, filters, .. } => {
                    let in_query = for_url && out.contains('?');
                    let mut value = lookup(name, entry, site, path, in_query)?;
                    for filter in filters {
                        value = filter.apply(&String::from_utf8_lossy(&value))?.into_bytes();
                    }
                    match (for_url, name.as_str()) {
                        (false, _) => out.push_str(&String::from_utf8_lossy(&value)),
                        (true, "base_url") => out.push_str(&String::from_utf8_lossy(&value)),
                        (true, "target" | "query") => out.push_str(&encoded(&value, UNSAFE)),
                        (true, "path" | "referer") if in_query => out.push_str(&encoded(&value, UNSAFE_IN_QUERY)),
                        (true, "path" | "referer") => out.push_str(&encoded(&value, UNSAFE)),
                        (true, name) if in_query && name.starts_with("query.") => {
                            out.push_str(&encoded(&value, UNSAFE));
                        }
                        (true, _) => out.push_str(&encoded(&value, PLAIN)),
                    }
                }
            }
        }
        Some(out)
    }
}

fn value(inside: &str, at: usize) -> Result<Piece, TemplateError> {
    let mut parts = inside.split('|');
    let name = parts.next().unwrap_or_default().trim();
    let span = at..at + inside.len();
    if name.is_empty() {
        let help = Some("a field, as in {path} or {query.plan}".to_owned());
        return Err(TemplateError { message: "there is no name between the braces".to_owned(), span, help });
    }
    let filters = parts
        .map(|filter| match filter.trim() {
            "lower" => Ok(Filter::Lower),
            "basename" => Ok(Filter::Basename),
            "extension" => Ok(Filter::Extension),
            other => Err(TemplateError {
                message: format!("unknown filter `{other}`"),
                span: span.clone(),
                help: Some("there are lower, basename and extension".to_owned()),
            }),
        })
        .collect::<Result<_, _>>()?;
    Ok(Piece::Value { name: name.to_owned(), span: at..at + name.len(), filters })
}

/// A value's bytes. `as_written`: a query's parameter with its encoding, since it goes into a query again.
fn lookup(
    name: &str,
    entry: &Entry<'_>,
    site: &SiteContext,
    path: Option<&Regex>,
    as_written: bool,
) -> Option<Vec<u8>> {
    if name == "base_url" {
        return Some(site.base_url.as_str().trim_end_matches('/').as_bytes().to_vec());
    }
    if name == "referer" {
        return site.clean_referer(entry).map(String::into_bytes);
    }
    if let Some(parameter) = name.strip_prefix("query.") {
        let query = entry.query.as_deref()?;
        return query.split(|b| *b == b'&').find_map(|pair| {
            let equals = memchr::memchr(b'=', pair)?;
            let (key, value) = (&pair[..equals], &pair[equals + 1..]);
            (decode(key) == parameter.as_bytes() && !value.is_empty())
                .then(|| if as_written { value.to_vec() } else { decode(value) })
        });
    }
    if let Some(value) = entry.bytes_of(name) {
        return Some(value.into_owned());
    }
    let decoded = decoded_path(entry);
    let group = |asked: &[u8]| {
        let range = path?.captures(asked)?.name(name)?.range();
        // What was asked as text is sent as the bytes that it stood for.
        Some(if *asked == *decoded { decoded[range].to_vec() } else { behind(&decoded, range).to_vec() })
    };
    as_bytes_or_text(&decoded, group).filter(|bytes| !bytes.is_empty())
}

/// The bytes behind a part of their text in which what isn't UTF-8 is replaced.
fn behind(bytes: &[u8], part: Range<usize>) -> &[u8] {
    let (mut in_text, mut in_bytes) = (0, 0);
    let [mut start, mut end] = [None, None];
    for chunk in bytes.utf8_chunks() {
        for (bound, found) in [(part.start, &mut start), (part.end, &mut end)] {
            if bound <= in_text + chunk.valid().len() {
                found.get_or_insert(in_bytes + bound.saturating_sub(in_text));
            }
        }
        in_bytes += chunk.valid().len() + chunk.invalid().len();
        in_text += chunk.valid().len() + char::REPLACEMENT_CHARACTER.len_utf8();
    }
    bytes.get(start.unwrap_or(in_bytes)..end.unwrap_or(in_bytes)).unwrap_or_default()
}

/// A part of a query as the form's field that it was.
fn decode(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect();
    percent_decode(&spaced).collect()
}

impl Filter {
    fn apply(self, text: &str) -> Option<String> {
        let basename = text.rsplit('/').next().unwrap_or(text);
        let out = match self {
            Filter::Lower => text.to_lowercase(),
            Filter::Basename => basename.to_owned(),
            Filter::Extension => basename.rsplit_once('.').map(|(_, extension)| extension.to_owned())?,
        };
        (!out.is_empty()).then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use url::Url;

    use super::*;
    use crate::rules::{Hosts, KeepQuery};

    #[test]
    fn templates_are_filled_from_the_entry() {
        let base_url = Url::parse("https://docs.example.org/").unwrap();
        let site = SiteContext {
            hosts: Hosts::of_base_url(&base_url),
            base_url: base_url.into(),
            keep_query: KeepQuery::Only(Vec::new()),
            page: Vec::new(),
            view_width: None,
        };
        let path = Regex::new(r"^/files/(?P<year>\d+)/").unwrap();
        let mut entry = Entry { status: Some(200), ..Entry::default() };
        entry.set_target(Cow::Borrowed(b"/files/2026/Annual%20Report.PDF?plan=go%6Cd+plus&x="));
        for (template, want) in [
            ("{base_url}{path}", Some("https://docs.example.org/files/2026/Annual%20Report.PDF")),
            ("{query.plan}", Some("gold plus")),
            ("{query.x}", None),
            ("{query.y}", None),
            ("{path|extension|lower}", Some("pdf")),
            ("{path|basename}", Some("Annual%20Report.PDF")),
            ("{year}-{status}", Some("2026-200")),
            ("{{{year}}}", Some("{2026}")),
            ("{user}", None),
            ("plain", Some("plain")),
        ] {
            let parsed = Template::parse(template).unwrap();
            assert_eq!(parsed.render(&entry, &site, Some(&path), false).as_deref(), want, "{template}");
        }
        let path = Regex::new("^/(?P<name>[^/]+)/(?P<rest>.*)$").unwrap();
        entry.set_target(Cow::Borrowed(b"/caf%E9/a%FFb"));
        let parsed = Template::parse("{base_url}/{name}-{rest}").unwrap();
        let url = parsed.render(&entry, &site, Some(&path), true);
        assert_eq!(url.as_deref(), Some("https://docs.example.org/caf%E9-a%FFb"));
    }

    proptest::proptest! {
        #[test]
        fn behind_each_part_of_a_text_are_its_bytes(
            bytes in proptest::collection::vec(proptest::sample::select(b"a\xc3\xa9\xff\xf0\x9f".to_vec()), 0..9),
        ) {
            let text = String::from_utf8_lossy(&bytes);
            let bounds: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
            for (at, start) in bounds.iter().enumerate() {
                for end in &bounds[at..] {
                    let part = behind(&bytes, *start..*end);
                    proptest::prop_assert_eq!(String::from_utf8_lossy(part), &text[*start..*end], "{:?} {:?}", start, end);
                }
            }
        }
    }

    #[test]
    fn in_a_url_each_value_is_encoded_as_its_place_wants_it() {
        let base_url = Url::parse("https://docs.example.org/").unwrap();
        let site = SiteContext {
            hosts: Hosts::of_base_url(&base_url),
            base_url: base_url.into(),
            keep_query: KeepQuery::All,
            page: Vec::new(),
            view_width: None,
        };
        let path = Regex::new(r"(?-u)^/files/(?P<name>.+)\.pdf$").unwrap();
        let mut entry = Entry {
            user_agent: Some(Cow::Borrowed(b"A/1 (50% & +)")),
            referer: Some(Cow::Borrowed(b"https://docs.example.org/p?a=1&b=2+3")),
            ..Entry::default()
        };
        entry.set_target(Cow::Borrowed(b"/files/a%3Fb%25c%23d%20e+f&g%2F%E9h\xe9.pdf?q=x+y%26z"));
        let encoded = "a%3Fb%25c%23d%20e%2Bf%26g/%E9h%E9";
        for (template, want) in [
            ("/n/{name}", format!("/n/{encoded}")),
            ("/n?name={name}", format!("/n?name={encoded}")),
            ("{path}", "/files/a%3Fb%25c%23d%20e+f&g%2F%E9h%E9.pdf".to_owned()),
            ("/n?path={path}", "/n?path=/files/a%3Fb%25c%23d%20e%2Bf%26g%2F%E9h%E9.pdf".to_owned()),
            ("/n/{query.q}", "/n/x%20y%26z".to_owned()),
            ("/n?q={query.q}", "/n?q=x+y%26z".to_owned()),
            ("/n?{query}", "/n?q=x+y%26z".to_owned()),
            ("/n?from={referer}", "/n?from=https://docs.example.org/p?a=1%26b=2%2B3".to_owned()),
            ("/n?ua={user_agent}", "/n?ua=A/1%20(50%25%20%26%20%2B)".to_owned()),
        ] {
            let parsed = Template::parse(template).unwrap();
            assert_eq!(parsed.render(&entry, &site, Some(&path), true), Some(want), "{template}");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        assert_eq!(Template::parse("a{path").unwrap_err().span, 1..2);
        assert_eq!(Template::parse("{path|upper}").unwrap_err().message, "unknown filter `upper`");
        assert_eq!(Template::parse("{}").unwrap_err().message, "there is no name between the braces");
    }
}
