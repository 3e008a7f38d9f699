//! Where the status page listens, and who may see it.

use std::fmt;
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use hyper::{HeaderMap, Uri, header};

/// Where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address of this machine.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Listen {
    /// From the configuration: `127.0.0.1:9464`, `unix:/run/silktail/status.sock`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(PathBuf::from(path))),
            Some(_) => Err("not an absolute path"),
            None => text.parse().map(Self::Tcp).map_err(|_| "not an address with a port"),
        }
    }

    /// Whether only this machine reaches it.
    pub fn is_private(&self) -> bool {
        match self {
            Listen::Tcp(address) => address.ip().is_loopback(),
            Listen::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What those who ask must know. It shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token as it is.
    pub fn new(token: String) -> Self {
        Self(token)
    }

    /// Whether the headers hold it: `Authorization: Bearer TOKEN`, or as a password, whatever the user's name: so a
    /// browser can ask for it.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let Some(given) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
            return false;
        };
        let (scheme, rest) = given.split_once(' ').unwrap_or_default();
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.is(rest.trim().as_bytes());
        }
        let basic = scheme.eq_ignore_ascii_case("basic").then(|| from_base64(rest.trim())).flatten();
        let password = basic.as_deref().and_then(|pair| pair.splitn(2, |byte| *byte == b':').nth(1));
        password.is_some_and(|password| self.is(password))
    }

    /// Compares what nobody can foresee, so that the time it takes tells nothing.
    fn is(&self, given: &[u8]) -> bool {
        let key = std::hash::RandomState::new();
        let more = std::hash::RandomState::new();
        let hash = |bytes: &[u8]| (key.hash_one(bytes), more.hash_one(bytes));
        hash(self.0.as_bytes()) == hash(given) && self.0.as_bytes() == given
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// RFC 4648, section 4; `None`: it isn't.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut held) = (0_u32, 0);
    for byte in digits.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(out)
}

/// Whether a request names this machine itself. A page of a stranger can make its own name point to 127.0.0.1 (DNS
/// rebinding); the browser then still sends that name. Without any name it is no browser's request.
pub fn names_this_machine(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    hosts.all(|host| host.to_str().is_ok_and(is_this_machine))
        && uri.authority().is_none_or(|authority| is_this_machine(authority.as_str()))
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_its_names() {
        for (host, want) in [
            ("localhost:9464", true),
            ("LocalHost", true),
            ("127.0.0.1:9464", true),
            ("127.8.8.8", true),
            ("[::1]:9464", true),
            ("[::1]", true),
            ("evil.example.org:9464", false),
            ("localhost.evil.example.org", false),
            ("127.0.0.1.evil.example.org", false),
            ("192.0.2.1:9464", false),
            ("[2001:db8::1]:9464", false),
            ("", false),
        ] {
            assert_eq!(is_this_machine(host), want, "{host}");
        }
        let headers: HeaderMap = [(header::HOST, "localhost".parse().unwrap())].into_iter().collect();
        assert!(names_this_machine(&Uri::from_static("/metrics"), &headers));
        assert!(!names_this_machine(&Uri::from_static("http://evil.example.org/metrics"), &headers));
        assert!(names_this_machine(&Uri::from_static("/metrics"), &HeaderMap::new()), "HTTP/1.0");
    }

    #[test]
    fn a_token_is_taken_as_bearer_and_as_password() {
        let token = Token::new("open:sesame".to_owned());
        for (given, want) in [
            ("Bearer open:sesame", true),
            ("bearer  open:sesame", true),
            ("Bearer open:sesam", false),
            ("Bearer ", false),
            ("open:sesame", false),
            // user:open:sesame, :open:sesame, open:sesame
            ("Basic dXNlcjpvcGVuOnNlc2FtZQ==", true),
            ("Basic Om9wZW46c2VzYW1l", true),
            ("Basic b3BlbjpzZXNhbWU=", false),
            ("Basic not base64", false),
        ] {
            let headers: HeaderMap = [(header::AUTHORIZATION, given.parse().unwrap())].into_iter().collect();
            assert_eq!(token.is_in(&headers), want, "{given}");
        }
        assert!(!token.is_in(&HeaderMap::new()));
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[test]
    fn where_to_listen_is_an_address_or_a_socket() {
        for (text, want) in [("127.0.0.1:9464", Some(true)), ("[::1]:1", Some(true)), ("0.0.0.0:9464", Some(false))] {
            assert_eq!(Listen::parse(text).ok().map(|listen| listen.is_private()), want, "{text}");
        }
        assert_eq!(Listen::parse("unix:/run/a.sock"), Ok(Listen::Unix(PathBuf::from("/run/a.sock"))));
        for text in ["localhost", "127.0.0.1", "unix:run/a.sock", "unix:", ""] {
            assert!(Listen::parse(text).is_err(), "{text}");
        }
    }
}
