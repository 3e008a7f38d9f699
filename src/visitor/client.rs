//! Whose request it is: the client as logged, or what a trusted proxy says of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::entry::{Entry, lossy};

/// The client's address; `None`: the log doesn't tell a usable one (a host name, `unix:`, nothing).
///
/// Where the logged address is a trusted proxy's, the client is the right-most address of `forwarded_for` that isn't
/// trusted: what stands further left was written by the client itself. All trusted: the left-most. A proxy that says that
/// it doesn't know (`unknown`, `_hidden`) leaves nobody: its own address is no visitor's.
pub fn client(entry: &Entry<'_>, trusted: &[IpNet]) -> Option<IpAddr> {
    let logged = entry.ip.as_deref().unwrap_or_default();
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|network| network.contains(ip));
    // Nearly always it is an address and nothing else.
    if let Some(ip) = ipv4(logged).map(IpAddr::from).filter(|ip| !is_trusted(ip)) {
        return Some(ip);
    }
    let logged = lossy(logged);
    if let Some(ip) = logged.parse().ok().map(canonical).filter(|ip| !is_trusted(ip)) {
        return Some(ip);
    }
    let forwarded = entry.forwarded_for.as_deref().map(lossy).unwrap_or_default();
    // A list may stand in the client's place, and a log that has only the list gives its right-most as the client.
    let hops = hops(&logged).chain(hops(&forwarded));
    let mut farthest = None;
    for hop in hops {
        let ip = address(forwarded_address(hop))?;
        farthest = Some(ip);
        if !is_trusted(&ip) {
            break;
        }
    }
    farthest
}

/// What parsing makes of an IPv4 address, in less time.
fn ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    // Digits that are read already, and what they say.
    let (mut digits, mut octet) = (0, 0_u64);
    // A number that begins with a zero is that alone.
    let is_octet = |digits, octet| match digits {
        1 => true,
        2 => octet >= 10,
        3 => (100..=255).contains(&octet),
        _ => false,
    };
    let (mut octets, mut behind) = ([0; 4], 0);
    if text.len() > "255.255.255.255".len() {
        return None;
    }
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            octet = octet * 10 + u64::from(digit);
            digits += 1;
        } else if byte == b'.' && behind < 3 && is_octet(digits, octet) {
            octets[behind] = octet as u8;
            behind += 1;
            (digits, octet) = (0, 0);
        } else {
            return None;
        }
    }
    octets[3] = octet as u8;
    (behind == 3 && is_octet(digits, octet)).then(|| octets.into())
}

/// The elements of a list of addresses, the nearest first.
fn hops(list: &str) -> impl Iterator<Item = &str> {
    list.rsplit(',').filter(|hop| !hop.trim().is_empty())
}

/// The address in an element of `Forwarded` (RFC 7239: `for="[2001:db8::1]:80";proto=https`) or `X-Forwarded-For`.
fn forwarded_address(hop: &str) -> &str {
    let of = hop.split(';').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    });
    of.unwrap_or(hop).trim().trim_matches('"')
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`, `fe80::1%eth0`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = match text.strip_prefix('[') {
        Some(inside) => inside.split(']').next()?,
        None if text.matches(':').count() == 1 => text.split(':').next()?,
        None => text,
    };
    let bare = bare.split('%').next()?;
    bare.parse().ok().map(canonical)
}

/// IPv4 addresses in IPv6 clothes (`::ffff:0:0/96`, and NAT64's `64:ff9b::/96`) as IPv4: else all such clients would
/// share one /64.
pub fn canonical(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    match v6.octets() {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
        | [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => Ipv4Addr::new(a, b, c, d).into(),
        _ => ip,
    }
}

/// A network of such addresses as the IPv4 network that it is.
fn canonical_network(network: IpNet) -> IpNet {
    let IpAddr::V4(v4) = canonical(network.addr()) else { return network };
    let bits = if network.addr().is_ipv4() { Some(network.prefix_len()) } else { network.prefix_len().checked_sub(96) };
    bits.and_then(|bits| IpNet::new(v4.into(), bits).ok()).unwrap_or(network)
}

/// The part of an address that names a visitor: IPv6 clients change within their /64.
pub fn visitor_prefix(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 64 << 64).into(),
    }
}

/// Whether an address belongs to a network of its own rather than to the internet: what a proxy in front has.
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            // Carrier-grade NAT's 100.64.0.0/10 (RFC 6598) has no name in the standard library.
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// A CIDR, an address, `private` (RFC 1918, unique local, link local, carrier-grade NAT) or `loopback`.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_networks(text: &str) -> Result<Vec<IpNet>, String> {
    let named: &[&str] = match text {
        "private" => &[
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "169.254.0.0/16",
            "fc00::/7",
            "fe80::/10",
        ],
        "loopback" => &["127.0.0.0/8", "::1/128"],
        other => &[other],
    };
    named
        .iter()
        .map(|text| {
            text.parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map(canonical_network)
                .map_err(|_| "not an address or network like 192.0.2.0/24, `private` or `loopback`".to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[test]
    fn the_client_is_the_right_most_that_is_not_trusted() {
        let trusted = [parse_networks("10.0.0.0/8").unwrap(), parse_networks("loopback").unwrap()].concat();
        for (name, ip, forwarded, want) in [
            ("direct", "192.0.2.7", None, Some("192.0.2.7")),
            ("a claim that nobody vouches for", "192.0.2.7", Some("203.0.113.1"), Some("192.0.2.7")),
            ("behind a proxy", "10.0.0.1", Some("203.0.113.1"), Some("203.0.113.1")),
            ("spoofed from the left", "10.0.0.1", Some("198.51.100.9, 203.0.113.1, 10.0.0.2"), Some("203.0.113.1")),
            ("all trusted", "10.0.0.1", Some("10.0.0.3, 10.0.0.2"), Some("10.0.0.3")),
            ("nothing forwarded", "10.0.0.1", None, Some("10.0.0.1")),
            ("RFC 7239", "127.0.0.1", Some("for=\"[2001:db8::1]:4711\";proto=https"), Some("2001:db8::1")),
            ("with a port", "192.0.2.7:4711", None, Some("192.0.2.7")),
            ("IPv6 with a port", "[2001:db8::1]:4711", None, Some("2001:db8::1")),
            ("with a zone", "fe80::1%eth0", None, Some("fe80::1")),
            ("mapped", "::ffff:192.0.2.7", None, Some("192.0.2.7")),
            ("NAT64", "64:ff9b::c000:207", None, Some("192.0.2.7")),
            ("no address of its own", "", Some("198.51.100.9, 203.0.113.1"), Some("203.0.113.1")),
            ("a comma at the end", "10.0.0.1", Some("203.0.113.1, "), Some("203.0.113.1")),
            ("an empty list", "10.0.0.1", Some(" , "), Some("10.0.0.1")),
            ("a proxy that doesn't know", "10.0.0.1", Some("203.0.113.1, unknown"), None),
            ("one that doesn't say", "10.0.0.1", Some("for=_hidden;proto=https"), None),
            ("a client's nonsense further left", "10.0.0.1", Some("unknown, 203.0.113.1"), Some("203.0.113.1")),
            ("a list in the client's place", "203.0.113.1, 10.0.0.2", None, Some("203.0.113.1")),
            ("a list there, nobody trusted", "198.51.100.9, 203.0.113.1", None, Some("203.0.113.1")),
            ("a host name", "client.example.org", None, None),
            ("a socket", "unix:", None, None),
        ] {
            let entry = Entry {
                ip: Some(Cow::Borrowed(ip.as_bytes())).filter(|ip| !ip.is_empty()),
                forwarded_for: forwarded.map(|text| Cow::Borrowed(text.as_bytes())),
                ..Entry::default()
            };
            assert_eq!(client(&entry, &trusted), want.map(|want| want.parse().unwrap()), "{name}");
        }
    }

    #[test]
    fn networks_are_compared_in_the_form_that_addresses_get() {
        for (text, ip, want) in [
            ("::ffff:192.0.2.0/120", "192.0.2.7", true),
            ("::ffff:192.0.2.7", "::ffff:192.0.2.7", true),
            ("64:ff9b::c000:200/120", "192.0.2.7", true),
            ("::ffff:192.0.2.0/120", "192.0.3.7", false),
            ("192.0.2.0/24", "::ffff:192.0.2.7", true),
            ("2001:db8::/32", "2001:db8::1", true),
            ("::/0", "2001:db8::1", true),
        ] {
            let networks = parse_networks(text).unwrap();
            let ip = canonical(ip.parse().unwrap());
            assert_eq!(networks.iter().any(|network| network.contains(&ip)), want, "{text} and {ip}");
        }
    }

    proptest::proptest! {
        #[test]
        fn ipv4_addresses_are_those_that_parse(text in "([0-9]{0,3}\\.){2,4}[0-9]{0,3}|[0-9.:x -]{0,16}") {
            proptest::prop_assert_eq!(ipv4(text.as_bytes()), text.parse().ok(), "{}", text);
        }
    }
}
