//! Which log this is where its bytes are others now: addresses were made anonymous after it was rotated, or lines were
//! taken out. Pure.
//!
//! A fingerprint tells a log by its bytes. Of one that was changed after it was read, only the requests are the same still:
//! what was asked for, when, and with which answer.

use std::collections::{HashSet, VecDeque};
use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::entry::Entry;

/// Requests at a log's beginning that it is told by.
pub const FIRST: usize = 64;
/// Requests before the place to which it was read, by which that is found again.
pub const LAST: usize = 8;
/// Different requests that two files must share to be one log. Fewer may come twice.
pub const SHARED: usize = 3;
/// Bytes of a request in the state.
const STORED: usize = 8;

/// A request, as two hashes with the state's secret: an address can't be got back from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// With the address that the line has.
    whole: u32,
    /// Without it.
    bare: u32,
}

/// What is known of a log's requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The first ones.
    pub first: Vec<Request>,
    /// A place to which it was read, and the last ones before that.
    pub last: Option<(u64, Vec<Request>)>,
}

/// A request, and whether the line says of its client no more than an anonymous one would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The request.
    pub request: Request,
    is_masked: bool,
}

impl Seen {
    /// What a line shows; `None`: it has no time or no path, and could be any.
    pub fn of(entry: &Entry<'_>, secret: [u8; 16]) -> Option<Self> {
        let (time, path) = (entry.time?, entry.path.as_deref()?);
        let mut hasher = SipHasher13::new_with_key(&secret);
        hasher.write_i64(time.as_millisecond());
        hasher.write_u16(entry.status.unwrap_or(0));
        hasher.write_u64(entry.bytes.unwrap_or(0));
        for text in [entry.method.as_deref().unwrap_or_default(), path] {
            // Each with its length: no two lists look the same.
            hasher.write_usize(text.len());
            hasher.write(text);
        }
        let bare = short(&hasher);
        let client = entry.ip.as_deref().unwrap_or_default();
        hasher.write(client);
        Some(Self { request: Request { whole: short(&hasher), bare }, is_masked: is_masked(client) })
    }

    /// Whether this is what a request looks like now; `only_masked`: all that may have happened to it is that it was made
    /// anonymous.
    fn is(&self, known: &Request, only_masked: bool) -> bool {
        (self.is_masked && self.request.bare == known.bare) || (!only_masked && self.request.whole == known.whole)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
fn short(hasher: &SipHasher13) -> u32 {
    hasher.finish() as u32
}

/// Whether an address may stand for many: cut off, put in place of every other, or none at all.
fn is_masked(client: &[u8]) -> bool {
    let Some(address) = std::str::from_utf8(client).ok().and_then(|text| text.parse::<IpAddr>().ok()) else {
        return true;
    };
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets()[3] == 0 || v4.is_loopback(),
        IpAddr::V6(v6) => v6.segments()[4..] == [0; 4] || v6.is_loopback(),
    }
}

/// Whether a file whose first lines show this is the log that began with `first`; `only_masked`: all that may have happened
/// to it is that it was made anonymous.
///
/// Each of its lines must be one of the log's, in order, as far as three quarters of what is known of that: a log that only
/// begins as another is one of its own.
pub fn is_of(first: &[Request], lines: &[Seen], only_masked: bool) -> bool {
    let mut rest = first;
    let mut shared = HashSet::new();
    for seen in lines {
        // What was taken out leaves the others where they are.
        let Some(at) = rest.iter().position(|known| seen.is(known, only_masked)) else {
            return shared.len() >= SHARED && rest.len() * 4 <= first.len();
        };
        shared.insert(rest[at].bare);
        rest = &rest[at + 1..];
    }
    shared.len() >= SHARED
}

/// Looks for the place to which a log was read, as its lines come by.
#[derive(Debug)]
pub struct Search<'r> {
    last: &'r [Request],
    /// The last lines that came by.
    passed: VecDeque<Seen>,
    found: Option<u64>,
}

impl<'r> Search<'r> {
    /// For the place behind these requests.
    pub fn new(last: &'r [Request]) -> Self {
        Self { last, passed: VecDeque::with_capacity(LAST + 1), found: None }
    }

    /// The next line, and where it ends.
    pub fn take(&mut self, seen: Seen, end: u64) {
        let Some((newest, before)) = self.last.split_last() else { return };
        if seen.is(newest, false) {
            let mut agreed = 0;
            let mut rest = self.passed.iter().rev();
            for known in before.iter().rev() {
                let mut back = rest.clone();
                if back.any(|seen| seen.is(known, false)) {
                    (rest, agreed) = (back, agreed + 1);
                }
            }
            // What was asked for again elsewhere had others before it; of these some may have been taken out.
            if agreed * 3 >= before.len() {
                self.found = Some(end);
            }
        }
        if self.passed.len() == LAST {
            self.passed.pop_front();
        }
        self.passed.push_back(seen);
    }

    /// The end of the last line that fits.
    pub fn found(&self) -> Option<u64> {
        self.found
    }
}

/// As the state holds it.
pub fn to_bytes(requests: &[Request]) -> Vec<u8> {
    let bytes = |request: &Request| (u64::from(request.whole) << 32 | u64::from(request.bare)).to_le_bytes();
    requests.iter().flat_map(bytes).collect()
}

/// From what the state holds.
pub fn from_bytes(bytes: &[u8]) -> Vec<Request> {
    let (requests, _) = bytes.as_chunks::<STORED>();
    let request = |bytes: &[u8; STORED]| {
        let both = u64::from_le_bytes(*bytes);
        Request { whole: (both >> 32) as u32, bare: (both & u64::from(u32::MAX)) as u32 }
    };
    requests.iter().map(request).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;
    use jiff::tz::TimeZone;

    const SECRET: [u8; 16] = [7; 16];

    fn line(number: u32, ip: &str) -> String {
        format!(r#"{ip} - - [10/Oct/2026:13:55:{:02} +0000] "GET /f{number}.pdf HTTP/1.1" 200 5 "-" "UA""#, number % 60)
    }

    fn seen(lines: impl Iterator<Item = String>) -> Vec<Seen> {
        let format = Format::builtin("combined", &TimeZone::UTC).unwrap();
        lines.map(|line| Seen::of(&format.parse(line.as_bytes()).unwrap(), SECRET).unwrap()).collect()
    }

    fn requests(seen: &[Seen]) -> Vec<Request> {
        seen.iter().map(|seen| seen.request).collect()
    }

    fn log(numbers: impl Iterator<Item = u32>) -> Vec<Seen> {
        seen(numbers.map(|number| line(number, &format!("192.0.2.{}", number % 200 + 1))))
    }

    #[test]
    fn a_log_is_known_by_its_requests_when_it_was_made_anonymous_or_lines_were_taken_out() {
        let first = requests(&log(0..64));
        let masked = |ip: &str| seen((0..80).map(|number| line(number, ip)));
        for (name, lines, only_masked, want) in [
            ("as it was", log(0..64), false, true),
            ("last octets cut off", masked("192.0.2.0"), true, true),
            ("one address for all", masked("127.0.0.1"), true, true),
            ("of the sixth version", masked("2001:db8:1:2::"), true, true),
            ("none", masked("-"), true, true),
            ("every third line taken out", log((0..64).filter(|number| number % 3 > 0)), false, true),
            ("the first eight taken out", log(8..64), false, true),
            ("other clients", masked("198.51.100.7"), false, false),
            ("lines taken out where it may only be anonymous", log(8..64), true, false),
            ("more lines than are known of it", log(2..96), false, true),
            ("what came after it", log(64..128), false, false),
            ("one that begins as it does", log((0..40).chain(100..124)), false, false),
            ("its lines in another order", log((0..64).rev()), false, false),
            ("nothing", Vec::new(), false, false),
            ("one request again and again", masked("192.0.2.0")[..1].repeat(64), false, false),
        ] {
            assert_eq!(is_of(&first, &lines, only_masked), want, "{name}");
        }
        assert_eq!(from_bytes(&to_bytes(&first)), first);
    }

    #[test]
    fn the_place_to_which_a_log_was_read_is_found_again() {
        let last = requests(&log(32..40));
        let ends = |numbers: Vec<u32>| log(numbers.iter().copied()).into_iter().zip(1..).collect::<Vec<(Seen, u64)>>();
        for (name, numbers, want) in [
            ("as it was", (0..64).collect(), Some(40)),
            (
                "half of what is before it taken out",
                (0..64).filter(|number| *number >= 40 || number % 2 == 1).collect(),
                Some(20),
            ),
            ("the last request again, elsewhere", (0..64).chain([1, 2, 39]).collect(), Some(40)),
            ("the last request taken out", (0..64).filter(|number| *number != 39).collect(), None),
        ] {
            let mut search = Search::new(&last);
            ends(numbers).into_iter().for_each(|(seen, end)| search.take(seen, end));
            assert_eq!(search.found(), want, "{name}");
        }
    }
}
