//! A request rendered in a format, by the server's escaping rules, and parsed by that format gives the request back:
//! whatever bytes it holds.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use jiff::tz::TimeZone;
use proptest::prelude::*;
use silktail::entry::Entry;
use silktail::format::{BUILTIN, Format};

/// nginx's `escape=default`: control characters, quotes, backslashes and everything from 0x7F on as `\xHH`.
fn nginx_default(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in value {
        match byte {
            0x20..=0x7e if !b"\"\\".contains(byte) => out.push(*byte),
            _ => out.extend(format!("\\x{byte:02X}").bytes()),
        }
    }
    out
}

/// nginx's `escape=json`: JSON's own escapes, `\u00HH` for other control characters, the rest raw.
fn nginx_json(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in value {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            0x08 => out.extend(b"\\b"),
            0x0c => out.extend(b"\\f"),
            0x00..0x20 => out.extend(format!("\\u00{byte:02X}").bytes()),
            _ => out.push(*byte),
        }
    }
    out
}

/// Apache's: quotes and backslashes with a backslash, C's escapes, `\xhh` for what isn't printable.
fn apache(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in value {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            0x08 => out.extend(b"\\b"),
            0x0b => out.extend(b"\\v"),
            0x20..=0x7e => out.push(*byte),
            _ => out.extend(format!("\\x{byte:02x}").bytes()),
        }
    }
    out
}

/// What a header may hold: anything but what ends it. Servers take the space around it off.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let spicy = prop_oneof![
        3 => any::<u8>().prop_filter("ends a header", |byte| !b"\r\n\0".contains(byte)),
        2 => proptest::sample::select(b"\" \\-[]x2u0{}:,".to_vec()),
    ];
    proptest::collection::vec(spicy, 0..40).prop_map(|bytes| bytes.trim_ascii().to_vec())
}

/// A request target as clients send it: no space, no control character.
fn target() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => (0x21_u8..=0xff).prop_filter("not in a target", |byte| *byte != 0x7f),
        2 => proptest::sample::select(b"/?%\"\\.&=".to_vec()),
    ];
    proptest::collection::vec(byte, 0..40).prop_map(|bytes| [b"/", bytes.as_slice()].concat())
}

#[derive(Debug, Clone)]
struct Request {
    target: Vec<u8>,
    referer: Vec<u8>,
    user_agent: Vec<u8>,
    forwarded_for: Vec<u8>,
    range: Vec<u8>,
    user: String,
    status: u16,
    bytes: u64,
}

fn request() -> impl Strategy<Value = Request> {
    (target(), value(), value(), value(), value(), "[a-z.@]{1,8}", 100_u16..600, any::<u64>()).prop_map(
        |(target, referer, user_agent, forwarded_for, range, user, status, bytes)| Request {
            target,
            referer,
            user_agent,
            forwarded_for,
            range,
            user,
            status,
            bytes,
        },
    )
}

/// What a field says; empty and `-` are absent.
fn said(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty() && value != b"-").then(|| value.to_vec())
}

fn same(entry: &Entry<'_>, request: &Request, with: &[&str], line: &[u8]) -> Result<(), TestCaseError> {
    let line = String::from_utf8_lossy(line);
    prop_assert_eq!(entry.method.as_deref(), Some(&b"GET"[..]), "{}", line);
    prop_assert_eq!(entry.target.as_deref(), Some(&request.target[..]), "{}", line);
    prop_assert_eq!(entry.protocol.as_deref(), Some(&b"HTTP/1.1"[..]), "{}", line);
    prop_assert_eq!(entry.status, Some(request.status), "{}", line);
    prop_assert_eq!(entry.bytes, Some(request.bytes), "{}", line);
    prop_assert_eq!(entry.user.as_deref(), Some(request.user.as_bytes()), "{}", line);
    for (name, got, want) in [
        ("referer", &entry.referer, &request.referer),
        ("user_agent", &entry.user_agent, &request.user_agent),
        ("forwarded_for", &entry.forwarded_for, &request.forwarded_for),
        ("range", &entry.range, &request.range),
    ] {
        if with.contains(&name) {
            prop_assert_eq!(got.as_deref().map(<[u8]>::to_vec), said(want), "{} of {}", name, line);
        }
    }
    Ok(())
}

/// A line in the order of `combined`, with `more` quoted fields behind it.
fn line(request: &Request, escape: fn(&[u8]) -> Vec<u8>, before: &str, more: &[&[u8]], empty: &[u8]) -> Vec<u8> {
    let quoted = |value: &[u8]| match value {
        b"" => [b"\"", empty, b"\""].concat(),
        value => [b"\"", escape(value).as_slice(), b"\""].concat(),
    };
    let first = [b"GET ", request.target.as_slice(), b" HTTP/1.1"].concat();
    let mut out = format!("{before}192.0.2.7 - {} [10/Oct/2026:13:55:36 +0000] ", request.user).into_bytes();
    out.extend(quoted(&first));
    out.extend(format!(" {} {}", request.status, request.bytes).bytes());
    for value in [&request.referer[..], &request.user_agent].into_iter().chain(more.iter().copied()) {
        out.push(b' ');
        out.extend(quoted(value));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn combined_gives_the_request_back_by_either_server_s_escapes(request in request()) {
        let combined = Format::builtin("combined", &TimeZone::UTC).unwrap();
        for escape in [nginx_default, apache] {
            let line = line(&request, escape, "", &[], b"-");
            let entry = combined.parse(&line);
            prop_assert!(entry.is_some(), "{}", String::from_utf8_lossy(&line));
            same(&entry.unwrap(), &request, &["referer", "user_agent"], &line)?;
        }
    }

    #[test]
    fn vhost_combined_gives_the_request_back(request in request()) {
        let format = Format::builtin("vhost_combined", &TimeZone::UTC).unwrap();
        let line = line(&request, apache, "docs.example.org:443 ", &[], b"-");
        let entry = format.parse(&line);
        prop_assert!(entry.is_some(), "{}", String::from_utf8_lossy(&line));
        let entry = entry.unwrap();
        prop_assert!(entry.host.as_deref().is_some_and(|host| host.starts_with(b"docs.example.org")));
        same(&entry, &request, &["referer", "user_agent"], &line)?;
    }

    #[test]
    fn a_pasted_format_gives_the_request_back(request in request()) {
        let nginx = r#"log_format ours '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" "$http_x_forwarded_for" "$http_range"';"#;
        let apache_text = r#"LogFormat "%h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\" \"%{X-Forwarded-For}i\" \"%{Range}i\"" ours"#;
        let more = [&request.forwarded_for[..], &request.range];
        for (format, escape) in [
            (Format::nginx("ours", nginx, TimeZone::UTC).unwrap(), nginx_default as fn(&[u8]) -> Vec<u8>),
            (Format::apache("ours", apache_text, TimeZone::UTC).unwrap(), apache),
        ] {
            let line = line(&request, escape, "", &more, b"-");
            let entry = format.parse(&line);
            prop_assert!(entry.is_some(), "{}", String::from_utf8_lossy(&line));
            same(&entry.unwrap(), &request, &["referer", "user_agent", "forwarded_for", "range"], &line)?;
        }
    }

    #[test]
    fn nginx_s_json_gives_the_request_back(request in request()) {
        let directive = r#"log_format j escape=json '{"u":"$remote_user","ip":"$remote_addr","r":"$request","s":$status,"b":$body_bytes_sent,"f":"$http_referer","a":"$http_user_agent","x":"$http_x_forwarded_for"}';"#;
        let keys = [("ip", "ip"), ("user", "u"), ("request", "r"), ("status", "s"), ("bytes", "b"), ("referer", "f"), ("user_agent", "a"), ("forwarded_for", "x")];
        let keys: Vec<(String, String)> = keys.iter().map(|(field, key)| ((*field).to_owned(), (*key).to_owned())).collect();
        let first = [b"GET ", request.target.as_slice(), b" HTTP/1.1"].concat();
        let mut line = format!("{{\"u\":\"{}\",\"ip\":\"192.0.2.7\",\"r\":\"", request.user).into_bytes();
        line.extend(nginx_json(&first));
        line.extend(format!("\",\"s\":{},\"b\":{}", request.status, request.bytes).bytes());
        for (key, value) in [("f", &request.referer), ("a", &request.user_agent), ("x", &request.forwarded_for)] {
            line.extend(format!(",\"{key}\":\"").bytes());
            line.extend(nginx_json(value));
            line.push(b'"');
        }
        line.push(b'}');
        for format in [
            Format::nginx("j", directive, TimeZone::UTC).unwrap(),
            Format::json("j", &keys, None, TimeZone::UTC).unwrap(),
        ] {
            let entry = format.parse(&line);
            prop_assert!(entry.is_some(), "{}", String::from_utf8_lossy(&line));
            same(&entry.unwrap(), &request, &["referer", "user_agent", "forwarded_for"], &line)?;
        }
    }

    /// A line that was cut off somewhere isn't read, or says nothing that the whole line didn't say.
    #[test]
    fn a_cut_line_never_says_what_the_whole_line_did_not(request in request(), at in any::<proptest::sample::Index>()) {
        let whole = line(&request, nginx_default, "", &[], b"-");
        let cut = &whole[..at.index(whole.len())];
        for name in BUILTIN {
            let format = Format::builtin(name, &TimeZone::UTC).unwrap();
            let (Some(before), Some(after)) = (format.parse(&whole), format.parse(cut)) else { continue };
            if before.user_agent.is_none() {
                // Not this line's format: what it means by it is its own affair.
                continue;
            }
            for field in ["ip", "time", "method", "target", "status", "referer", "user"] {
                if let Some(text) = after.text(field) {
                    prop_assert_eq!(Some(text), before.text(field), "{} by {} of {}", field, name, String::from_utf8_lossy(cut));
                }
            }
        }
    }
}
