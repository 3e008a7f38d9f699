//! nginx's `log_format`: the directive or its strings in, the parts of a format out. Pure.
//!
//! `[escape=default|json|none]`, then strings that are joined; `$name` and `${name}`.

use std::ops::Range;
use std::sync::Arc;

use super::FormatError;
use super::slot::Slot;
use super::split::{Item, Var};
use super::time::Clock;

/// Cuts a `log_format` into its parts, and says whether the log is written with escapes. Spans are of `text` as given.
pub(super) fn items(text: &str) -> Result<(Vec<Item>, bool), FormatError> {
    let mut escaped = true;
    let mut items: Vec<Item> = Vec::new();
    for (range, quote) in strings(text, &mut escaped)? {
        string(text, range, quote, &mut items)?;
    }
    Ok((items, escaped))
}

/// Where a string stands, and its quote.
type Quoted = (Range<usize>, Option<u8>);

/// The strings of the format, with the quote each stands in.
fn strings(text: &str, escaped: &mut bool) -> Result<Vec<Quoted>, FormatError> {
    let bytes = text.as_bytes();
    let start = text.len() - text.trim_start().len();
    let end = start + text.trim().len();
    let word = |at: usize| {
        let len = bytes[at..end].iter().position(u8::is_ascii_whitespace).unwrap_or(end - at);
        at..at + len
    };
    // White space and comments.
    let skip = |mut at: usize, end: usize| {
        loop {
            match bytes[..end].get(at) {
                Some(b) if b.is_ascii_whitespace() => at += 1,
                Some(b'#') => at = comment_end(bytes, at, end),
                _ => return at,
            }
        }
    };
    let start = if bytes[start..end].starts_with(b"#") { skip(start, end) } else { start };
    let mut at = start;
    let directive = &text[word(start)] == "log_format";
    if directive {
        at = skip(word(start).end, end);
        // The format's name.
        at = skip(word(at).end, end);
    }
    if text[at..end].starts_with("escape=") {
        let len = bytes[at..end].iter().position(u8::is_ascii_whitespace).unwrap_or(end - at);
        *escaped = match &text[at + 7..at + len] {
            "default" | "json" => true,
            "none" => false,
            other => {
                return Err(FormatError {
                    message: format!("unknown escaping `{other}`"),
                    span: Some(at..at + len),
                    help: Some("nginx knows `escape=default`, `escape=json` and `escape=none`".to_owned()),
                });
            }
        };
        at = skip(at + len, end);
    }
    // The bare string, as TOML holds it: it may well begin with a quote that is its own.
    let Some(strings) = quoted(bytes, at, end, directive) else {
        if directive && at < end && matches!(bytes[at], b'"' | b'\'') {
            return Err(FormatError {
                message: "unfinished string".to_owned(),
                span: Some(at..end),
                help: Some("copy the whole directive, up to its `;`".to_owned()),
            });
        }
        let bare_end = if bytes[at..end].ends_with(b";") && directive { end - 1 } else { end };
        return Ok(vec![(at..bare_end, None)]);
    };
    Ok(strings)
}

/// Where the comment that begins at `at` ends.
fn comment_end(bytes: &[u8], at: usize, end: usize) -> usize {
    memchr::memchr(b'\n', &bytes[at..end]).map_or(end, |newline| at + newline)
}

/// The strings if the text is nothing but strings in quotes. Without the directive around them, double quotes are only
/// taken for nginx's where they are escaped inside or there is but one pair: else they are the log's.
fn quoted(bytes: &[u8], mut at: usize, end: usize, directive: bool) -> Option<Vec<Quoted>> {
    let mut out = Vec::new();
    while at < end {
        let quote = bytes[at];
        if quote.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        if quote == b'#' && (directive || !out.is_empty()) {
            at = comment_end(bytes, at, end);
            continue;
        }
        if quote == b';' && (directive || at + 1 == end) {
            // What stands behind the directive isn't its.
            break;
        }
        if !matches!(quote, b'"' | b'\'') {
            return None;
        }
        let start = at + 1;
        at = start;
        while at < end && bytes[at] != quote {
            at += if bytes[at] == b'\\' { 2 } else { 1 };
        }
        if at >= end {
            return None;
        }
        out.push((start..at, Some(quote)));
        at += 1;
        if at < end && !bytes[at].is_ascii_whitespace() && bytes[at] != b';' {
            return None;
        }
    }
    let doubles = out.iter().filter(|(_, quote)| *quote == Some(b'"')).count();
    if out.is_empty() || (!directive && doubles > 1) {
        return None;
    }
    Some(out)
}

fn string(text: &str, range: Range<usize>, quote: Option<u8>, items: &mut Vec<Item>) -> Result<(), FormatError> {
    let bytes = text.as_bytes();
    let mut at = range.start;
    while at < range.end {
        let from = at;
        let literal = match bytes[at] {
            b'$' => {
                let (name, end) = name(text, at, range.end)?;
                items.push(Item::Var(variable(name, at..end)));
                at = end;
                continue;
            }
            // Undone by nginx's configuration parser, within quotes.
            b'\\' if quote.is_some() && at + 1 < range.end => {
                at += 2;
                match bytes[at - 1] {
                    b't' => b'\t',
                    b'n' => b'\n',
                    b'r' => b'\r',
                    other @ (b'"' | b'\'' | b'\\') => other,
                    _ => {
                        at -= 1;
                        b'\\'
                    }
                }
            }
            other => {
                at += 1;
                other
            }
        };
        match items.last_mut() {
            Some(Item::Text { bytes, span }) => {
                bytes.push(literal);
                span.end = at;
            }
            _ => items.push(Item::Text { bytes: vec![literal], span: from..at }),
        }
    }
    Ok(())
}

/// The name of the variable whose `$` is at `at`, and where it ends.
fn name(text: &str, at: usize, end: usize) -> Result<(&str, usize), FormatError> {
    let bytes = text.as_bytes();
    let braced = bytes.get(at + 1) == Some(&b'{') && at + 1 < end;
    let start = at + 1 + usize::from(braced);
    let rest = bytes.get(start..end).unwrap_or_default();
    let len = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    let close = start + len + usize::from(braced);
    if len == 0 || (braced && bytes.get(start + len..end).and_then(<[u8]>::first) != Some(&b'}')) {
        return Err(FormatError {
            message: if len == 0 { "a `$` without a name" } else { "`${` without its `}`" }.to_owned(),
            span: Some(at..(start + len).min(end)),
            help: Some("a variable is `$name` or `${name}`".to_owned()),
        });
    }
    Ok((&text[start..start + len], close))
}

fn variable(name: &str, span: Range<usize>) -> Var {
    let (slot, rank) = match name {
        "remote_addr" => (Slot::Ip, 0),
        "realip_remote_addr" => (Slot::Ip, 1),
        "http_x_forwarded_for" => (Slot::ForwardedFor, 0),
        "proxy_add_x_forwarded_for" => (Slot::ForwardedFor, 1),
        "http_forwarded" => (Slot::ForwardedFor, 2),
        "msec" => (Slot::Time(Clock::Unix), 0),
        "time_iso8601" => (Slot::Time(Clock::Auto), 1),
        "time_local" => (Slot::Time(Clock::Auto), 2),
        "request" => (Slot::Request, 0),
        "request_method" => (Slot::Method, 0),
        "request_uri" => (Slot::Target, 0),
        "uri" | "document_uri" => (Slot::Path { decoded: true }, 0),
        "args" | "query_string" => (Slot::Query { marked: false }, 0),
        "server_protocol" => (Slot::Protocol, 0),
        "host" => (Slot::Host, 0),
        "http_host" => (Slot::Host, 1),
        "server_name" => (Slot::Host, 2),
        "status" => (Slot::Status, 0),
        "body_bytes_sent" => (Slot::Bytes, 0),
        "bytes_sent" => (Slot::Bytes, 1),
        "http_referer" => (Slot::Referer, 0),
        "http_user_agent" => (Slot::UserAgent, 0),
        "http_range" => (Slot::Range, 0),
        "sent_http_content_range" => (Slot::Range, 1),
        "http_dnt" => (Slot::Dnt, 0),
        "http_sec_gpc" => (Slot::Gpc, 0),
        "remote_user" => (Slot::User, 0),
        "cookie_view_width" | "arg_view_width" | "http_viewport_width" | "http_sec_ch_viewport_width" => {
            (Slot::ViewWidth, 1)
        }
        // A variable of the user's own (`map`, `set`) that is named like a field is meant as that.
        other => match Slot::of_field(other) {
            Some(slot) => (slot, 9),
            None => (Slot::Extra(Arc::from(other)), 0),
        },
    };
    let starts = match name {
        "request_uri" | "uri" | "document_uri" => Some(b'/'),
        "is_args" => Some(b'?'),
        _ => None,
    };
    let time = (name == "time_local").then(|| "%d/%b/%Y:%H:%M:%S %z".to_owned());
    Var { rank, starts, is_mark: name == "is_args", time, ..Var::new(slot, name, span) }
}
