//! Apache's `LogFormat`: the directive or its string in, the parts of a format out. Pure.
//!
//! `%`, then modifiers in any order (`!`, `<`, `>`, a list of statuses, `{argument}`), then a letter or `^` and two.

use std::ops::Range;
use std::sync::Arc;

use super::FormatError;
use super::slot::Slot;
use super::split::{Item, Var};
use super::time::Clock;

/// The pattern of `%t` without an argument, inside its brackets.
const CLF: &str = "%d/%b/%Y:%H:%M:%S %z";

/// Cuts a `LogFormat` into its parts. Spans are of `text` as given.
pub(super) fn items(text: &str) -> Result<Vec<Item>, FormatError> {
    let Range { start, end } = format_string(text)?;
    let bytes = text.as_bytes();
    let mut items: Vec<Item> = Vec::new();
    let mut at = start;
    while at < end {
        let from = at;
        let literal = match bytes[at] {
            b'%' if bytes.get(at + 1) == Some(&b'%') => {
                at += 2;
                b'%'
            }
            b'%' => {
                at = directive(text, at, end, &mut items)?;
                continue;
            }
            b'\\' if at + 1 < end => {
                at += 2;
                match bytes[at - 1] {
                    // A line continued in the configuration file.
                    b'\n' => continue,
                    b'"' => b'"',
                    b'\'' => b'\'',
                    b'\\' => b'\\',
                    b't' => b'\t',
                    b'n' => b'\n',
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
    Ok(items)
}

/// Where the format itself stands: in a directive, in quotes, or alone.
fn format_string(text: &str) -> Result<Range<usize>, FormatError> {
    let bytes = text.as_bytes();
    let start = text.len() - text.trim_start().len();
    let end = start + text.trim().len();
    let word = text[start..end].split(|c: char| c.is_ascii_whitespace()).next().unwrap_or_default();
    let arguments = match word.to_ascii_lowercase().as_str() {
        "logformat" | "transferlog" => 0,
        "customlog" => 1,
        _ => {
            // The whole string in one pair of quotes, as pasted from a file.
            return Ok(match quoted(bytes, start, end) {
                Some(inner) if inner.end + 1 == end => inner,
                _ => start..end,
            });
        }
    };
    let mut at = start + word.len();
    for argument in 0..=arguments {
        while at < end && bytes[at].is_ascii_whitespace() {
            at += 1;
        }
        let (inner, next) = match quoted(bytes, at, end) {
            Some(inner) => (inner.clone(), inner.end + 1),
            None => {
                let len = bytes[at..end].iter().position(u8::is_ascii_whitespace).unwrap_or(end - at);
                (at..at + len, at + len)
            }
        };
        if argument == arguments {
            if memchr::memchr(b'%', &bytes[inner.clone()]).is_some() {
                return Ok(inner);
            }
            return Err(FormatError {
                message: "the directive holds no format, only a name or nothing".to_owned(),
                span: Some(if inner.is_empty() { start..end } else { inner }),
                help: Some("copy the `LogFormat` directive that defines the format".to_owned()),
            });
        }
        at = next;
    }
    Ok(at..end)
}

/// What stands between the quote at `at` and its partner.
fn quoted(bytes: &[u8], at: usize, end: usize) -> Option<Range<usize>> {
    let quote = *bytes.get(at).filter(|b| matches!(b, b'"' | b'\''))?;
    let mut close = at + 1;
    while close < end {
        match bytes[close] {
            b'\\' => close += 1,
            b if b == quote => return Some(at + 1..close),
            _ => {}
        }
        close += 1;
    }
    None
}

/// Reads the directive that begins with the `%` at `start`; gives the place behind it.
fn directive(text: &str, start: usize, end: usize, items: &mut Vec<Item>) -> Result<usize, FormatError> {
    let bytes = text.as_bytes();
    let mut argument: Option<&str> = None;
    let mut original = false;
    let mut last = false;
    let mut at = start + 1;
    let unfinished = |at: usize| FormatError {
        message: "unfinished `%` directive".to_owned(),
        span: Some(start..at.min(end)),
        help: Some("a per cent sign itself is written `%%`".to_owned()),
    };
    let letter = loop {
        if at >= end {
            return Err(unfinished(at));
        }
        match bytes[at] {
            b'!' | b',' | b'0'..=b'9' => at += 1,
            b'<' => {
                original = true;
                at += 1;
            }
            b'>' => {
                last = true;
                at += 1;
            }
            b'{' => {
                let close = memchr::memchr(b'}', &bytes[at..end]).ok_or_else(|| unfinished(end))?;
                argument = text.get(at + 1..at + close);
                at += close + 1;
            }
            b'^' => {
                let letter = text.get(at..at + 3).filter(|_| at + 3 <= end).ok_or_else(|| unfinished(end))?;
                at += 3;
                break letter;
            }
            _ => {
                let len = text[at..].chars().next().map_or(1, char::len_utf8);
                let letter = &text[at..at + len];
                at += len;
                break letter;
            }
        }
    };
    let span = start..at;
    if letter == "t" {
        time(argument, span, items)?;
        return Ok(at);
    }
    let Some(var) = variable(letter, argument, original, last, span.clone()) else {
        return Err(FormatError {
            message: format!("unknown directive `{}`", &text[span.clone()]),
            span: Some(span),
            help: Some("see the table of Apache's mod_log_config".to_owned()),
        });
    };
    items.push(Item::Var(var));
    Ok(at)
}

fn variable(letter: &str, argument: Option<&str>, original: bool, last: bool, span: Range<usize>) -> Option<Var> {
    let var = |slot: Slot, name: &str, rank: u8| Some(Var { rank, ..Var::new(slot, name, span.clone()) });
    let extra = |name: &str| var(Slot::Extra(Arc::from(name)), name, 0);
    let lower = argument.unwrap_or_default().to_ascii_lowercase();
    let own = lower.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let own = own.as_str();
    match letter {
        "h" if lower == "c" => var(Slot::Ip, "peer_host", 3),
        "h" => var(Slot::Ip, "remote_host", 1),
        "a" if lower == "c" => var(Slot::Ip, "peer_ip", 2),
        "a" => var(Slot::Ip, "remote_ip", 0),
        "l" => extra("ident"),
        "u" => var(Slot::User, "remote_user", 0),
        "r" => var(Slot::Request, "request", 0),
        "m" => var(Slot::Method, "request_method", 0),
        "U" => Some(Var { starts: Some(b'/'), ..Var::new(Slot::Path { decoded: true }, "uri", span) }),
        "q" => Some(Var { starts: Some(b'?'), ..Var::new(Slot::Query { marked: true }, "query_string", span) }),
        "H" => var(Slot::Protocol, "request_protocol", 0),
        "s" if last && !original => var(Slot::Status, "status", 0),
        "s" => var(Slot::Status, "original_status", 1),
        "b" | "B" => var(Slot::Bytes, "response_bytes", 0),
        "O" => var(Slot::Bytes, "bytes_out", 1),
        "I" => extra("bytes_in"),
        "S" => extra("bytes_total"),
        "V" => var(Slot::Host, "canonical_name", 1),
        "v" => var(Slot::Host, "server_name", 2),
        "p" => var(Slot::Number, "port", 0),
        "D" => extra("duration_us"),
        "T" => extra(match own {
            "ms" => "duration_ms",
            "us" => "duration_us",
            _ => "duration",
        }),
        "A" => extra("local_ip"),
        "f" => extra("filename"),
        "k" => extra("keepalives"),
        "L" => extra("log_id"),
        "P" => extra("pid"),
        "R" => extra("handler"),
        "X" => extra("connection_status"),
        "E" => extra("error_status"),
        "i" => match lower.as_str() {
            "referer" => var(Slot::Referer, "http_referer", 0),
            "user-agent" => var(Slot::UserAgent, "http_user_agent", 0),
            "host" => var(Slot::Host, "http_host", 0),
            "x-forwarded-for" => var(Slot::ForwardedFor, "http_x_forwarded_for", 0),
            "forwarded" => var(Slot::ForwardedFor, "http_forwarded", 1),
            "range" => var(Slot::Range, "http_range", 0),
            "dnt" => var(Slot::Dnt, "http_dnt", 0),
            "sec-gpc" => var(Slot::Gpc, "http_sec_gpc", 0),
            "viewport-width" | "sec-ch-viewport-width" => var(Slot::ViewWidth, &format!("http_{own}"), 1),
            _ => extra(&format!("http_{own}")),
        },
        "o" if lower == "content-range" => var(Slot::Range, "sent_http_content_range", 1),
        "o" => extra(&format!("sent_http_{own}")),
        "C" if own == "view_width" => var(Slot::ViewWidth, "cookie_view_width", 0),
        "C" => extra(&format!("cookie_{own}")),
        "e" | "n" => match Slot::of_field(own) {
            Some(slot) => var(slot, own, 9),
            None => extra(own),
        },
        "c" | "x" => extra(&format!("{letter}_{own}")),
        "^ti" => extra(&format!("trailer_{own}")),
        "^to" => extra(&format!("sent_trailer_{own}")),
        "^FB" => extra("first_byte_us"),
        "^FU" => extra("upload_us"),
        _ => None,
    }
}

/// `%t` in all its forms. `begin:` and `end:` say which moment; parts of one time are joined later.
fn time(argument: Option<&str>, span: Range<usize>, items: &mut Vec<Item>) -> Result<(), FormatError> {
    let argument = argument.unwrap_or_default();
    let of = |moment: &str| match argument.strip_prefix(moment)? {
        "" => Some(""),
        form => form.strip_prefix(':'),
    };
    let (name, rank, form) = match (of("begin"), of("end")) {
        (Some(form), _) => ("time_begin", 0, form),
        (_, Some(form)) => ("time_end", 1, form),
        _ => ("time_begin", 0, argument),
    };
    let var = |slot: Slot, time: Option<&str>| {
        let time = time.map(str::to_owned);
        Item::Var(Var { rank, time, ..Var::new(slot, name, span.clone()) })
    };
    match form {
        "" => {
            items.push(Item::Text { bytes: vec![b'['], span: span.clone() });
            items.push(var(Slot::Time(Clock::Auto), Some(CLF)));
            items.push(Item::Text { bytes: vec![b']'], span });
        }
        "sec" => items.push(var(Slot::Time(Clock::Unix), Some("%s"))),
        // These are whole moments, told apart by their size.
        "msec" | "usec" => items.push(var(Slot::Time(Clock::Unix), None)),
        "msec_frac" | "usec_frac" => items.push(var(Slot::Time(Clock::Unix), Some("%f"))),
        pattern => {
            // jiff has no locale and reads no zone name; servers log in the C locale.
            let pattern = pattern.replace("%c", "%a %b %e %H:%M:%S %Y").replace("%r", "%I:%M:%S %p");
            let pattern = pattern.replace("%x", "%m/%d/%y").replace("%X", "%H:%M:%S").replace("%h", "%b");
            items.push(var(Slot::Time(Clock::Auto), Some(&pattern)));
        }
    }
    Ok(())
}
