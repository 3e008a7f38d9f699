//! One request as a log line tells it, whatever the format.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;

use crate::sixteen::holds_any;

/// A field's bytes with the log's escapes undone; borrowed from the line wherever nothing had to be undone.
pub type Text<'l> = Cow<'l, [u8]>;

/// The names of all fields, as templates, regex groups and `explain` spell them.
pub const FIELDS: [&str; 18] = [
    "ip",
    "time",
    "method",
    "target",
    "path",
    "query",
    "protocol",
    "status",
    "bytes",
    "referer",
    "user_agent",
    "host",
    "user",
    "forwarded_for",
    "range",
    "view_width",
    "dnt",
    "gpc",
];

/// One request. A field is `None` where the format doesn't log it or the log says `-`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry<'l> {
    /// The client as logged: an address, a host name, `ip:port`, `unix:`.
    pub ip: Option<Text<'l>>,
    /// When, by the log.
    pub time: Option<Timestamp>,
    /// Seconds east of UTC of that time as it is written, where the log says it.
    pub offset: Option<i32>,
    /// `GET`.
    pub method: Option<Text<'l>>,
    /// The request target as logged, percent-encoding kept.
    pub target: Option<Text<'l>>,
    /// The target's path, percent-encoding kept.
    pub path: Option<Text<'l>>,
    /// The target's query, without `?`.
    pub query: Option<Text<'l>>,
    /// `HTTP/1.1`.
    pub protocol: Option<Text<'l>>,
    /// The response's status code.
    pub status: Option<u16>,
    /// Bytes of the response, as the format counts them.
    pub bytes: Option<u64>,
    /// The `Referer` header.
    pub referer: Option<Text<'l>>,
    /// The `User-Agent` header.
    pub user_agent: Option<Text<'l>>,
    /// The requested host, or the server's name for itself.
    pub host: Option<Text<'l>>,
    /// The authenticated user.
    pub user: Option<Text<'l>>,
    /// `X-Forwarded-For` or `Forwarded`.
    pub forwarded_for: Option<Text<'l>>,
    /// The `Range` header, or the response's `Content-Range`.
    pub range: Option<Text<'l>>,
    /// The browser window's width, where a site logs it.
    pub view_width: Option<u32>,
    /// The `DNT` header.
    pub dnt: Option<Text<'l>>,
    /// The `Sec-GPC` header.
    pub gpc: Option<Text<'l>>,
    /// Other named groups or variables of the format, by name.
    pub extra: Vec<(Arc<str>, Text<'l>)>,
    /// What is known already of the line that its fields are parts of.
    pub line: Known<'l>,
}

/// What is known of a line before its fields are read: how they are used, not what they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'l> {
    /// The line as text, where it is known to be UTF-8: its parts needn't be looked at again.
    pub text: Option<&'l str>,
    /// No field, as it is logged, needs an escape in JSON.
    pub is_clean: bool,
}

/// Two requests are the same, whatever is known of the lines that tell them.
impl PartialEq for Known<'_> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Known<'_> {
    /// Some bytes as text, if they are a part of the line: told by where they lie.
    #[inline]
    fn part<'t>(&self, bytes: &'t [u8]) -> Option<&'t str>
    where
        Self: 't,
    {
        let text = self.text?;
        let start = bytes.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
        text.get(start..start.checked_add(bytes.len())?)
    }
}

impl<'l> Entry<'l> {
    /// Splits a request line (`GET /a?b HTTP/1.1`) into method, target and protocol, garbage included.
    ///
    /// A target may hold spaces; a request without a protocol (HTTP/0.9) has two parts. What doesn't look like
    /// a request (TLS bytes, an empty line) leaves a lone target, or nothing.
    pub fn set_request(&mut self, request: Text<'l>) {
        let (method, target, protocol) = request_parts(&request);
        if let Cow::Borrowed(bytes) = request {
            let borrowed = |(start, end): Part| Cow::Borrowed(&bytes[start..end]);
            let text = &bytes[target.0..target.1];
            // Mostly there is nothing in it but a path.
            if text.first() == Some(&b'/') && text.last() != Some(&b' ') && !holds_any(text, *b"?##") {
                (self.method, self.protocol) = (method.map(borrowed), protocol.map(borrowed));
                (self.target, self.path) = (Some(Cow::Borrowed(text)), Some(Cow::Borrowed(text)));
                return;
            }
        }
        self.method = method.map(|range| part(&request, range));
        self.protocol = protocol.map(|range| part(&request, range));
        if target.0 < target.1 {
            self.set_target(part(&request, target));
        }
    }

    /// The same of `GET /a HTTP/1.1`, as nearly all requests are; `false`: it has more to it, and nothing is set.
    #[inline]
    pub(crate) fn set_plain_request(&mut self, request: &'l [u8]) -> bool {
        let [b'G', b'E', b'T', b' ', target @ .., b' ', b'H', b'T', b'T', b'P', b'/', major, dot, minor] = request
        else {
            return false;
        };
        let is_version = *major != b' ' && *dot != b' ' && *minor != b' ';
        let is_path = target.first() == Some(&b'/') && target.last() != Some(&b' ') && !holds_any(target, *b"?##");
        if !is_version || !is_path {
            return false;
        }
        (self.method, self.protocol) =
            (Some(Cow::Borrowed(&request[..3])), Some(Cow::Borrowed(&request[request.len() - 8..])));
        (self.target, self.path) = (Some(Cow::Borrowed(target)), Some(Cow::Borrowed(target)));
        true
    }

    /// Takes a request target: origin form (`/a?b`), or absolute form (`http://host/a?b`), which gives the host too.
    ///
    /// Servers take several spaces in a request for one: those around a target are none of its path.
    pub fn set_target(&mut self, target: Text<'l>) {
        let len = target.len() - target.iter().rev().take_while(|byte| **byte == b' ').count();
        let blank = if len == 0 { 0 } else { target.iter().take_while(|byte| **byte == b' ').count() };
        let begins = |scheme: &&str| {
            target[blank..].get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
        };
        let authority = if target.get(blank) == Some(&b'/') {
            None
        } else {
            ["http://", "https://", "ws://", "wss://"]
                .iter()
                .find(|scheme| begins(scheme))
                .map(|scheme| blank + scheme.len())
        };
        let path_start = match authority {
            Some(start) => {
                let end = target[start..len].iter().position(|b| b"/?#".contains(b)).map_or(len, |at| start + at);
                // Credentials in front of the host are nobody's business.
                let host = memchr::memrchr(b'@', &target[start..end]).map_or(start, |at| start + at + 1);
                if host < end {
                    self.host = Some(part(&target, (host, end)));
                }
                end
            }
            None => blank,
        };
        let path_end = memchr::memchr2(b'?', b'#', &target[path_start..len]).map_or(len, |at| path_start + at);
        let question = Some(path_end).filter(|at| target.get(*at) == Some(&b'?'));
        let fragment = match question {
            Some(question) => memchr::memchr(b'#', &target[question..len]).map_or(len, |at| question + at),
            None => path_end,
        };
        if path_start < path_end {
            self.path = Some(part(&target, (path_start, path_end)));
        } else if authority.is_some() {
            self.path = Some(Cow::Borrowed(b"/"));
        }
        if let Some(question) = question {
            self.query = Some(part(&target, (question + 1, fragment)));
        }
        self.target = Some(target);
    }

    /// Some bytes, mostly a field's, as text; `None`: they aren't UTF-8.
    pub fn to_str<'t>(&'t self, bytes: &'t [u8]) -> Option<&'t str> {
        self.line.part(bytes).or_else(|| std::str::from_utf8(bytes).ok())
    }

    /// The same, what isn't UTF-8 replaced.
    pub fn to_str_lossy<'t>(&'t self, bytes: &'t [u8]) -> Cow<'t, str> {
        self.line.part(bytes).map_or_else(|| lossy(bytes), Cow::Borrowed)
    }

    /// A field or extra as text, by its name: for templates and `explain`. Times are RFC 3339 in UTC.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        Some(match self.bytes_of(name)? {
            Cow::Borrowed(bytes) => lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        })
    }

    /// The same as the bytes that they are.
    pub fn bytes_of(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let written = |text: String| Some(Cow::Owned(text.into_bytes()));
        let bytes = match name {
            "time" => return written(self.time?.to_string()),
            "status" => return written(self.status?.to_string()),
            "bytes" => return written(self.bytes?.to_string()),
            "view_width" => return written(self.view_width?.to_string()),
            "ip" => &self.ip,
            "method" => &self.method,
            "target" => &self.target,
            "path" => &self.path,
            "query" => &self.query,
            "protocol" => &self.protocol,
            "referer" => &self.referer,
            "user_agent" => &self.user_agent,
            "host" => &self.host,
            "user" => &self.user,
            "forwarded_for" => &self.forwarded_for,
            "range" => &self.range,
            "dnt" => &self.dnt,
            "gpc" => &self.gpc,
            other => {
                let extra = self.extra.iter().find(|(name, _)| &**name == other);
                return extra.map(|(_, text)| Cow::Borrowed(&**text));
            }
        };
        bytes.as_deref().map(Cow::Borrowed)
    }
}

/// Bytes as text, what isn't UTF-8 replaced: nearly all of it is, and is asked for that first.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// What a user's regex says of a client's bytes: as they are, or else as the text that `explain` shows. To a regex `.` and
/// `[^/]` are characters, and what isn't UTF-8 has none: `^/internal/.*$` is to exclude `/internal/caf\xE9.pdf`, too.
pub fn as_bytes_or_text<T>(bytes: &[u8], ask: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    // Nearly all are ASCII, which is seen sooner than that they are UTF-8.
    ask(bytes).or_else(|| if bytes.is_ascii() { None } else { ask_as_text(bytes, ask) })
}

#[cold]
fn ask_as_text<T>(bytes: &[u8], ask: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    match lossy(bytes) {
        Cow::Borrowed(_) => None,
        Cow::Owned(text) => ask(text.as_bytes()),
    }
}

/// The beginning and the end of a part of a text.
pub(crate) type Part = (usize, usize);

/// Where method, target and protocol stand in a request line: what [`Entry::set_request`] makes of it.
pub(crate) fn request_parts(request: &[u8]) -> (Option<Part>, Part, Option<Part>) {
    let len = request.len();
    // How a load balancer logs what it couldn't make out.
    if request.starts_with(b"- ") {
        return (None, (0, 0), None);
    }
    // Method and protocol are a few bytes: looking at each costs less than calling what looks at many.
    let is_method = |byte: &u8| byte.is_ascii_alphabetic() || b"-_".contains(byte);
    let space = if request.starts_with(b"GET ") { Some(3) } else { request.iter().position(|byte| !is_method(byte)) };
    let Some(space) = space.filter(|space| *space > 0 && request[*space] == b' ') else {
        return (None, (0, len), None);
    };
    let rest = space + 1;
    // ` HTTP/1.1`, as nearly all end.
    if let [target @ .., b' ', b'H', b'T', b'T', b'P', b'/', major, dot, minor] = &request[rest..]
        && [major, dot, minor].iter().all(|byte| **byte != b' ')
    {
        return (Some((0, space)), (rest, rest + target.len()), Some((rest + target.len() + 1, len)));
    }
    // Servers take one that ends with spaces, too.
    let end = len - request[rest..].iter().rev().take_while(|byte| **byte == b' ').count();
    match request[rest..end].iter().rposition(|byte| *byte == b' ') {
        Some(last) if request[rest + last + 1..end].starts_with(b"HTTP/") => {
            (Some((0, space)), (rest, rest + last), Some((rest + last + 1, end)))
        }
        _ => (Some((0, space)), (rest, len), None),
    }
}

fn part<'l>(text: &Text<'l>, (start, end): Part) -> Text<'l> {
    match text {
        Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[start..end]),
        Cow::Owned(bytes) => Cow::Owned(bytes[start..end].to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_in_the_wild_are_split_for_what_they_hold() {
        for (name, request, method, target, protocol) in [
            ("plain", "GET /a?b=c HTTP/1.1", Some("GET"), Some("/a?b=c"), Some("HTTP/1.1")),
            ("spaces in the target", "GET /a b.pdf HTTP/1.1", Some("GET"), Some("/a b.pdf"), Some("HTTP/1.1")),
            ("spaces at the end", "GET /a HTTP/1.1  ", Some("GET"), Some("/a"), Some("HTTP/1.1")),
            ("no protocol", "GET /a", Some("GET"), Some("/a"), None),
            ("spaces alone", "GET   HTTP/1.1", Some("GET"), Some(" "), Some("HTTP/1.1")),
            ("empty", "", None, None, None),
            ("a TLS handshake", "\x16\x03\x01", None, Some("\x16\x03\x01"), None),
            ("nothing like a request", "\x01 a b", None, Some("\x01 a b"), None),
            ("not made out", "- http://docs.example.org:80- -", None, None, None),
            ("own methods", "VERSION-CONTROL * HTTP/1.1", Some("VERSION-CONTROL"), Some("*"), Some("HTTP/1.1")),
        ] {
            let mut entry = Entry::default();
            entry.set_request(Cow::Borrowed(request.as_bytes()));
            assert_eq!(entry.text("method").as_deref(), method, "{name}");
            assert_eq!(entry.text("target").as_deref(), target, "{name}");
            assert_eq!(entry.text("protocol").as_deref(), protocol, "{name}");
        }
    }

    #[test]
    fn an_absolute_target_gives_the_host() {
        let mut entry = Entry::default();
        entry.set_target(Cow::Borrowed(b"http://user:pw@docs.example.org:8080/a.pdf?x#frag"));
        assert_eq!(entry.text("host").as_deref(), Some("docs.example.org:8080"));
        assert_eq!(entry.text("path").as_deref(), Some("/a.pdf"));
        assert_eq!(entry.text("query").as_deref(), Some("x"));
    }

    #[test]
    fn spaces_around_a_target_are_none_of_its_path() {
        for (request, target, path, query) in [
            ("GET  /a b.pdf   HTTP/1.1", " /a b.pdf  ", Some("/a b.pdf"), None),
            (
                "GET  http://docs.example.org/a.pdf?x  HTTP/1.1",
                " http://docs.example.org/a.pdf?x ",
                Some("/a.pdf"),
                Some("x"),
            ),
            ("GET   HTTP/1.1", " ", None, None),
        ] {
            let mut entry = Entry::default();
            entry.set_request(Cow::Borrowed(request.as_bytes()));
            assert_eq!(entry.text("target").as_deref(), Some(target), "{request}");
            assert_eq!(entry.text("path").as_deref(), path, "{request}");
            assert_eq!(entry.text("query").as_deref(), query, "{request}");
        }
    }
}
