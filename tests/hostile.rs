//! What hostile clients send, as the real nginx and the real Apache log it in many formats, is what is read back: each
//! format given to silktail as it stands in the server's configuration.
//!
//! Where a server isn't installed its test says so and passes, unless `CI=true`: there it fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use common::servers::{apache, nginx, server};
use common::{SOON, Sandbox, wait_for};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use silktail::entry::Entry;
use silktail::format::{Format, Reading};

/// One request as the client sends it.
#[derive(Debug, Clone, Default)]
struct Sent {
    method: &'static str,
    target: Vec<u8>,
    protocol: &'static str,
    host: Option<&'static str>,
    referer: Option<Vec<u8>>,
    user_agent: Option<Vec<u8>>,
    range: Option<&'static str>,
    forwarded_for: Option<&'static str>,
    user: Option<&'static str>,
}

impl Sent {
    fn get(target: impl Into<Vec<u8>>) -> Self {
        Self {
            method: "GET",
            target: target.into(),
            protocol: "HTTP/1.1",
            host: Some("docs.example.org"),
            user_agent: Some(b"Mozilla/5.0 (X11; Linux x86_64)".to_vec()),
            ..Self::default()
        }
    }

    fn agent(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.user_agent = Some(text.into());
        self
    }

    fn referer(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.referer = Some(text.into());
        self
    }

    /// Sends it and gives the status of the answer.
    fn send(&self, port: u16) -> u16 {
        let mut head = [self.method.as_bytes(), b" ", &self.target, b" ", self.protocol.as_bytes(), b"\r\n"].concat();
        let mut header = |name: &str, value: &[u8]| {
            head.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
        };
        if let Some(host) = self.host {
            header("Host", host.as_bytes());
        }
        for (name, value) in [("Referer", &self.referer), ("User-Agent", &self.user_agent)] {
            if let Some(value) = value {
                header(name, value);
            }
        }
        for (name, value) in [("Range", self.range), ("X-Forwarded-For", self.forwarded_for)] {
            if let Some(value) = value {
                header(name, value.as_bytes());
            }
        }
        if self.user.is_some() {
            // Aladdin:open sesame, as in RFC 7617.
            header("Authorization", b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        }
        header("Connection", b"close");
        head.extend_from_slice(b"\r\n");
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(&head).unwrap();
        let mut answer = Vec::new();
        // A server that refuses may hang up before it has read everything.
        drop(stream.read_to_end(&mut answer));
        let status = std::str::from_utf8(answer.get(9..12).unwrap_or_else(|| panic!("no answer to {self:?}"))).unwrap();
        status.parse().unwrap()
    }
}

fn requests() -> Vec<Sent> {
    let long = [b"/files/".to_vec(), vec![b'a'; 6_000], b".pdf".to_vec()].concat();
    vec![
        Sent::get("/files/report.pdf"),
        Sent::get("/files/report.pdf?utm=x&y=%22").referer("https://docs.example.org/list?q=\"a b\""),
        Sent::get("/files/%22quoted%22%20%C3%BC.pdf"),
        Sent::get("/missing[1].pdf").agent("say \"hi\" \\ there"),
        Sent::get("/files/report.pdf").agent("tilde ~ caret ^ brace {} pipe | tick ' back ` end"),
        Sent::get("/files/report.pdf").agent("\u{fc}bersicht \u{4e2d}\u{6587}").referer("https://b\u{fc}cher.example/"),
        Sent::get("/files/report.pdf").agent([b"bytes \xff\xfe\x80 end".to_vec()].concat()),
        Sent::get("/files/report.pdf").agent("\" 200 5 \"-\" \"forged").referer("x\" \"y"),
        Sent::get("/files/report.pdf").agent("\\\" \\x22 \\u0022 \\n"),
        Sent::get("/files/report.pdf").agent("tab\there"),
        Sent::get("/files/report.pdf").agent("[brackets] (parens) 10/Oct/2026:13:55:36 +0000"),
        Sent::get("/files/report.pdf").agent("-").referer("-"),
        Sent::get("/files/report.pdf").agent(""),
        Sent { user_agent: None, ..Sent::get("/files/report.pdf") },
        Sent { protocol: "HTTP/1.0", ..Sent::get("/files/report.pdf") },
        Sent { protocol: "HTTP/1.0", host: None, ..Sent::get("/files/report.pdf") },
        Sent { method: "HEAD", ..Sent::get("/files/report.pdf") },
        Sent { method: "DELETE", ..Sent::get("/files/report.pdf") },
        Sent { range: Some("bytes=0-3"), ..Sent::get("/files/report.pdf") },
        Sent { range: Some("bytes=4-"), ..Sent::get("/files/report.pdf") },
        Sent { forwarded_for: Some("192.0.2.7, 2001:db8::1, unknown"), ..Sent::get("/files/report.pdf") },
        Sent { user: Some("Aladdin"), ..Sent::get("/files/report.pdf") },
        Sent::get("http://docs.example.org/files/report.pdf?absolute"),
        Sent::get(long),
        Sent::get("/files/report.pdf").agent(vec![b'u'; 6_000]),
        // What servers may refuse; the line is read all the same.
        Sent::get("/files/my annual report.pdf"),
        Sent::get(b"/files/\xc3\xbc.pdf".to_vec()),
        Sent::get("/say\"hi\".pdf"),
        Sent::get("/back\\slash.pdf"),
    ]
}

/// How a log's format says things.
#[derive(Debug, Clone, Copy, Default)]
struct Says {
    /// Paths are as the server understood them: escapes undone, `..` resolved.
    decoded: bool,
    /// An absolute target's scheme and host are left out.
    origin_form: bool,
    /// Nothing is escaped: what holds a delimiter can't be told apart from it.
    raw: Option<char>,
    /// The referer is logged for other statuses only.
    referer_unless_good: bool,
}

struct Log {
    name: &'static str,
    format: Format,
    says: Says,
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// Compares what was read with what was sent, as far as the format tells it.
fn agrees(log: &Log, sent: &Sent, status: u16, entry: &Entry<'_>, line: &str) {
    let Log { name, format, says } = log;
    let of = |field: &str, got: Option<&[u8]>, want: Option<&[u8]>| {
        if format.gives(field) {
            let want = want.filter(|want| !want.is_empty() && *want != b"-").map(lossy);
            assert_eq!(got.map(lossy), want, "{field} in {name} of\n{line}");
        }
    };
    assert_eq!(entry.status, Some(status), "status in {name} of\n{line}");
    // A refused request may never have been taken apart by the server.
    let refused = status == 400;
    let plain = !sent.target.iter().any(|b| b"%[\\\"".contains(b) || *b >= 0x80) && !sent.target.starts_with(b"http");
    if !refused && (!says.decoded || plain) {
        of("method", entry.method.as_deref(), Some(sent.method.as_bytes()));
        of("protocol", entry.protocol.as_deref(), Some(sent.protocol.as_bytes()));
        let mut want = Entry::default();
        let authority = b"http://docs.example.org";
        let target = sent.target.strip_prefix(authority).filter(|_| says.origin_form).unwrap_or(&sent.target);
        want.set_target(target.into());
        if !says.decoded {
            of("target", entry.target.as_deref(), want.target.as_deref());
        }
        of("path", entry.path.as_deref(), want.path.as_deref());
        of("query", entry.query.as_deref(), want.query.as_deref());
    } else if refused && let Some(target) = &entry.target {
        // Apache logs what it had read when it refused.
        assert!(lossy(&sent.target).starts_with(&lossy(target)), "target in {name} of\n{line}");
    }
    if refused {
        return;
    }
    // Servers take the space around a value off.
    of("user_agent", entry.user_agent.as_deref(), sent.user_agent.as_deref());
    if !says.referer_unless_good || !matches!(status, 200 | 206 | 304) {
        of("referer", entry.referer.as_deref(), sent.referer.as_deref());
    } else {
        assert_eq!(entry.referer, None, "{name} of\n{line}");
    }
    of("range", entry.range.as_deref(), sent.range.map(str::as_bytes));
    of("forwarded_for", entry.forwarded_for.as_deref(), sent.forwarded_for.map(str::as_bytes));
    if format.gives("host") && sent.host.is_some() {
        assert_eq!(
            entry.host.as_deref().map(|host| lossy(host).split(':').next().unwrap().to_owned()).as_deref(),
            sent.host
        );
    }
    assert_eq!(entry.ip.as_deref(), Some(&b"127.0.0.1"[..]), "{name} of\n{line}");
}

/// Sends everything, and reads every log back.
fn check(port: u16, sandbox: &Sandbox, logs: &[Log]) {
    let before = Timestamp::now().as_second() - 1;
    let requests = requests();
    let statuses: Vec<u16> = requests.iter().map(|request| request.send(port)).collect();
    assert!(statuses.iter().filter(|status| **status == 200).count() >= 15, "most are served: {statuses:?}");
    for log in logs {
        let path = sandbox.path(&format!("{}.log", log.name));
        let lines = || fs::read(&path).unwrap().iter().filter(|byte| **byte == b'\n').count();
        wait_for("every request to be logged", SOON, || lines() >= requests.len());
        let content = fs::read(&path).unwrap();
        let content: Vec<&[u8]> = content.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n').collect();
        assert_eq!(content.len(), requests.len(), "{}", log.name);
        let after = Timestamp::now().as_second() + 1;
        let mut reading = Reading::default();
        for ((line, sent), status) in content.iter().zip(&requests).zip(&statuses) {
            let shown = lossy(&line[..line.len().min(600)]);
            let entry = log.format.parse_in(&mut reading, line);
            if let Some(delimiter) = log.says.raw {
                // What holds the delimiter can't be told from it: nobody could read that line.
                let holds =
                    |text: &Option<Vec<u8>>| text.as_ref().is_some_and(|text| text.contains(&(delimiter as u8)));
                if holds(&sent.user_agent) || holds(&sent.referer) {
                    continue;
                }
            }
            let entry =
                entry.unwrap_or_else(|| panic!("{} can't be read:\n{shown}\n{:?}", log.name, log.format.misfit(line)));
            if log.format.gives("time") {
                let time = entry.time.unwrap_or_else(|| panic!("no time in {} of\n{shown}", log.name)).as_second();
                assert!((before..=after).contains(&time), "{time} isn't now in {} of\n{shown}", log.name);
            }
            agrees(log, sent, *status, &entry, &shown);
        }
    }
}

fn files(sandbox: &Sandbox) {
    for name in ["report.pdf", "\"quoted\" \u{fc}.pdf"] {
        sandbox.write(&format!("www/files/{name}"), "%PDF-1.4 of a kind\n");
    }
}

#[test]
fn what_clients_send_is_what_is_read_from_nginx_s_logs() {
    let Some(program) = server(&["nginx"]) else { return };
    let sandbox = Sandbox::new();
    files(&sandbox);
    let directives = [
        (
            "usual",
            r#"log_format usual '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
                         '"$http_referer" "$http_user_agent" "$host" "$http_range" "$http_x_forwarded_for"';"#,
        ),
        (
            "objects",
            r#"log_format objects escape=json '{"ip":"$remote_addr","at":"$time_iso8601","request":"$request",'
                '"status":$status,"bytes":"$body_bytes_sent","referer":"$http_referer","ua":"$http_user_agent",'
                '"host":"$host","range":"$http_range","xff":"$http_x_forwarded_for"}';"#,
        ),
        (
            "raw",
            r"log_format raw escape=none '$remote_addr\t$msec\t$request_method\t$request_uri\t$server_protocol\t$status\t$http_referer\t$http_user_agent';",
        ),
        (
            "apart",
            r#"log_format apart '$host ${remote_addr} [$time_iso8601] "$request_method $request_uri $server_protocol" $status "$http_user_agent" "$http_referer" rt=$request_time';"#,
        ),
        (
            "mixed",
            r#"log_format mixed "$remote_addr [$msec] " '"$request" $status ' "$body_bytes_sent \"$http_user_agent\" \"$http_referer\" $http_range";"#,
        ),
    ];
    let mut text = String::new();
    for (name, directive) in directives {
        text.push_str(&format!("    {directive}\n    access_log DIR/{name}.log {name};\n"));
    }
    text.push_str("    access_log DIR/combined.log combined;\n");
    let mut logs: Vec<Log> = directives
        .iter()
        .map(|(name, directive)| Log {
            name,
            format: Format::nginx(name, directive, TimeZone::UTC).unwrap_or_else(|error| panic!("{name}: {error}")),
            says: Says {
                raw: (*name == "raw").then_some('\t'),
                origin_form: ["raw", "apart"].contains(name),
                ..Says::default()
            },
        })
        .collect();
    let combined = Format::builtin("combined", &TimeZone::UTC).unwrap();
    logs.push(Log { name: "combined", format: combined, says: Says::default() });
    // The same log as a map of keys.
    let fields: Vec<(String, String)> = [
        ("ip", "ip"),
        ("time", "at"),
        ("request", "request"),
        ("status", "status"),
        ("referer", "referer"),
        ("user_agent", "ua"),
        ("host", "host"),
        ("range", "range"),
        ("forwarded_for", "xff"),
    ]
    .map(|(field, key)| (field.to_owned(), key.to_owned()))
    .to_vec();
    let objects = Format::json("objects", &fields, None, TimeZone::UTC).unwrap();
    logs.push(Log { name: "objects", format: objects, says: Says::default() });
    let server = nginx(&program, &sandbox, &text);
    check(server.port, &sandbox, &logs);
}

#[test]
fn what_clients_send_is_what_is_read_from_apache_s_logs() {
    let Some(program) = server(&["apache2", "httpd"]) else { return };
    let sandbox = Sandbox::new();
    files(&sandbox);
    let directives = [
        ("combined", r#"LogFormat "%h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\"" combined"#),
        ("vhosts", r#"LogFormat "%v:%p %h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\"" vhosts"#),
        (
            "apart",
            r#"LogFormat "%{%Y-%m-%dT%H:%M:%S}t.%{msec_frac}t%{%z}t %a \"%m %U%q %H\" %>s %B \"%{Referer}i\" \"%{User-Agent}i\"" apart"#,
        ),
        (
            "seconds",
            r#"LogFormat "%{sec}t %h %u \"%r\" %s \"%{Range}i\" \"%{User-Agent}i\" \"%{Referer}i\" %{Host}i" seconds"#,
        ),
        (
            "peer",
            r#"LogFormat "%{c}a %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\" \"%{X-Forwarded-For}i\" %D" peer"#,
        ),
        (
            "conditional",
            r#"LogFormat "%{usec}t %a \"%r\" %>s \"%!200,206,304{Referer}i\" \"%{User-Agent}i\" \"%{Range}i\" %X" conditional"#,
        ),
    ];
    let mut text = String::new();
    for (name, directive) in directives {
        text.push_str(&format!("{directive}\nCustomLog DIR/{name}.log {name}\n"));
    }
    let logs: Vec<Log> = directives
        .iter()
        .map(|(name, directive)| Log {
            name,
            format: Format::apache(name, directive, TimeZone::UTC).unwrap_or_else(|error| panic!("{name}: {error}")),
            says: Says { decoded: *name == "apart", referer_unless_good: *name == "conditional", ..Says::default() },
        })
        .collect();
    let server = apache(&program, &sandbox, &text);
    check(server.port, &sandbox, &logs);
}
