//! Where clients are, behind proxies: `--trust-proxy`.
//!
//! A proxy has one address for all its clients, and names theirs in a header field: `Forwarded`
//! (RFC 7239) or `X-Forwarded-For`. Anybody can send such a field, so it counts only on connections
//! from proxies that the operator trusts. Each proxy appends to what it got, so the list is read
//! from its end, up to the first address that is no trusted proxy's. What stands in front of that
//! is the client's own word.
//!
//! The address found is for people and for limits: logs, `/stats`, thread names,
//! `--max-clients-per-ip`. Nothing is allowed because of it.
//!
//! The host that the client used is named in the same way, by `host=` or `X-Forwarded-Host`. It is
//! what a page's origin is compared with (see [`crate::auth::origin`]).
//!
//! The listener's thread asks for the address and a client's thread for the host, once per request;
//! nothing here waits.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use crate::http::head::Head;
use crate::http::list::{split, unquoted};

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    /// Its address; never an IPv4 address mapped into IPv6 where a proxy named it.
    pub ip: IpAddr,
    /// Its port; proxies seldom tell it.
    pub port: Option<u16>,
}

impl From<SocketAddr> for ClientAddress {
    fn from(address: SocketAddr) -> ClientAddress {
        ClientAddress { ip: address.ip(), port: Some(address.port()) }
    }
}

impl fmt::Display for ClientAddress {
    /// As a socket's address, or the bare address where there is no port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

/// A range of addresses, written `192.0.2.0/24` (RFC 4632 section 3.1, RFC 4291 section 2.3); a
/// single address is one, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr(IpNet);

impl Cidr {
    /// Whether the address is in the range. An IPv4 address is the same one where a socket for both
    /// versions shows it mapped into IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is no [`Cidr`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CidrError {
    /// It is neither a range of addresses nor an address.
    Malformed(String),
    /// Its address is not the first one of its range, which is given with it.
    InsideRange(String, Cidr),
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CidrError::Malformed(text) => {
                write!(f, "{text:?} is no range of addresses such as 10.0.0.0/8 or ::1")
            }
            // Which of the two is wrong, only the operator knows.
            CidrError::InsideRange(text, range) => {
                write!(f, "{text:?} names an address inside its range; is it {range}?")
            }
        }
    }
}

impl std::error::Error for CidrError {}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let range = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let range: IpNet = range.map_err(|_| CidrError::Malformed(text.to_owned()))?;
        // A mapped range is one of IPv4, as long as it is not wider than all of it.
        let range = match (range, range.addr().to_canonical()) {
            (IpNet::V6(v6), IpAddr::V4(address)) if v6.prefix_len() >= 96 => {
                Ipv4Net::new_assert(address, v6.prefix_len() - 96).into()
            }
            _ => range,
        };
        match range.trunc() {
            network if network == range => Ok(Cidr(range)),
            network => Err(CidrError::InsideRange(text.to_owned(), Cidr(network))),
        }
    }
}

/// The proxies whose word counts.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Vec<Cidr>);

impl Proxies {
    /// Those in the ranges of [`crate::Config::add_trust_proxy`].
    pub fn new(trusted: Vec<Cidr>) -> Proxies {
        Proxies(trusted)
    }

    fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(address))
    }

    /// The address of the client that sent this `head` on a connection from `peer`.
    ///
    /// Where an address is hidden (`unknown`, `_name`: RFC 7239 section 6) or cannot be read, the
    /// proxy that said so is the last one known. Most proxies write one of the two fields and pass
    /// the other on as the client sent it: where the two name different addresses, one of them may
    /// be the client's invention, and the proxy's own is kept.
    pub fn client(&self, peer: SocketAddr, head: &Head) -> ClientAddress {
        let peer = ClientAddress::from(peer);
        if !self.trust(peer.ip) {
            return peer;
        }
        let named = |field: &'static str, nodes: fn(&str) -> Vec<Option<ClientAddress>>| {
            // The lines of one field are one list (RFC 9110 section 5.3).
            let mut lines = head.values(field).rev().peekable();
            lines.peek().is_some().then(|| self.walk(peer, lines.flat_map(nodes)))
        };
        let by_standard = named("Forwarded", |line| {
            forwarded(line).into_iter().map(|element| element.address).collect()
        });
        let by_usage = named("X-Forwarded-For", x_forwarded_for);
        match (by_standard, by_usage) {
            (Some(one), Some(other)) if one.ip != other.ip => peer,
            (Some(client), _) | (None, Some(client)) => client,
            (None, None) => peer,
        }
    }

    /// From the nearest node on to the first that is no trusted proxy.
    fn walk(
        &self,
        peer: ClientAddress,
        nodes: impl Iterator<Item = Option<ClientAddress>>,
    ) -> ClientAddress {
        let mut client = peer;
        for node in nodes {
            let Some(address) = node else { break };
            client = address;
            if !self.trust(client.ip) {
                break;
            }
        }
        client
    }

    /// The host that the client used to reach the outermost trusted proxy, if one is named to
    /// `peer`. Where the two fields name different ones, none is believed, as with addresses.
    pub fn host(&self, peer: SocketAddr, head: &Head) -> Option<String> {
        if !self.trust(peer.ip()) {
            return None;
        }
        // Each trusted address in the list is one more proxy that has added an entry: the host is
        // in the entry of the outermost of them.
        let trusts = |node: &Option<ClientAddress>| node.is_some_and(|one| self.trust(one.ip));
        let elements: Vec<_> = head.values("Forwarded").rev().flat_map(forwarded).collect();
        let passed = elements.iter().take_while(|element| trusts(&element.address)).count();
        let by_standard = elements.get(passed).or(elements.last()).and_then(|one| one.host.clone());

        let nodes = head.values("X-Forwarded-For").rev().flat_map(x_forwarded_for);
        let passed = nodes.take_while(trusts).count();
        let lines = head.values("X-Forwarded-Host").rev();
        let entries = lines.flat_map(|line| line.rsplit(',').map(str::trim));
        let hosts: Vec<_> = entries.filter(|host| !host.is_empty()).collect();
        // A proxy that passes the field on adds nothing to it: the list may be the shorter one.
        let by_usage = hosts.get(passed).or(hosts.last()).map(|host| (*host).to_owned());
        match (by_standard, by_usage) {
            (Some(one), Some(other)) if !one.eq_ignore_ascii_case(&other) => None,
            (one, other) => one.or(other),
        }
    }
}

/// The addresses in a line of `X-Forwarded-For`, the last one first; `None` for what is none.
fn x_forwarded_for(line: &str) -> Vec<Option<ClientAddress>> {
    let entries = line.rsplit(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(node).collect()
}

/// What a proxy says about the request that it got.
#[derive(Debug, Default)]
struct Element {
    /// `for=`; `None` where that is no address.
    address: Option<ClientAddress>,
    /// `host=`.
    host: Option<String>,
}

/// The elements in a line of `Forwarded`, the last one first. A line that is malformed is one
/// element that nothing is known of: from where on it can be trusted, nobody can tell.
// The crate rfc7239 (0.1.3) splits quoted strings: a client could end its proxy's element early.
fn forwarded(line: &str) -> Vec<Element> {
    // Empty elements of a list are passed over (RFC 9110 section 5.6.1).
    let texts = split(line, ',').filter(|text| split(text, ';').any(|pair| !pair.is_empty()));
    let elements: Option<Vec<_>> = texts.map(element).collect();
    let mut elements = elements.unwrap_or_else(|| vec![Element::default()]);
    elements.reverse();
    elements
}

/// RFC 7239 section 4; `None` for what breaks its grammar.
fn element(text: &str) -> Option<Element> {
    let (mut client, mut host) = (None, None);
    for pair in split(text, ';').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        let value = unquoted(value)?;
        // Each parameter at most once in an element.
        let earlier = match &*name.to_ascii_lowercase() {
            "for" => client.replace(value),
            "host" => host.replace(value),
            _ => None,
        };
        if earlier.is_some() {
            return None;
        }
    }
    let address = client.and_then(|client| node(&client));
    Some(Element { address, host: host.map(|host| host.into_owned()) })
}

/// A node (RFC 7239 section 6): `192.0.2.1`, `[2001:db8::1]`, either with a port; for
/// `X-Forwarded-For` also IPv6 without brackets. Where the port is 0 or obfuscated, there is none.
fn node(text: &str) -> Option<ClientAddress> {
    let text = text.split_once(":_").map_or(text, |(address, _hidden)| address);
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let (ip, port) = match (bracketed, text.parse::<SocketAddr>()) {
        (Some(address), _) => (address.parse::<Ipv6Addr>().ok()?.into(), None),
        (None, Ok(address)) => (address.ip(), Some(address.port()).filter(|port| *port != 0)),
        (None, Err(_)) => (text.parse::<IpAddr>().ok()?, None),
    };
    Some(ClientAddress { ip: ip.to_canonical(), port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::head::parse;

    /// A head with these field lines.
    fn head(lines: &[&str]) -> Head {
        let fields: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        parse(format!("GET / HTTP/1.0\r\n{fields}\r\n").as_bytes()).unwrap()
    }

    fn proxies(ranges: &[&str]) -> Proxies {
        Proxies::new(ranges.iter().map(|range| range.parse().unwrap()).collect())
    }

    /// What a client is called whose connection comes from a trusted proxy at 10.0.0.1:5.
    fn client(lines: &[&str]) -> String {
        let trusted = proxies(&["10.0.0.0/8", "2001:db8:1::/48"]);
        trusted.client("10.0.0.1:5".parse().unwrap(), &head(lines)).to_string()
    }

    #[test]
    fn ranges_hold_what_they_say() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.6/31", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("::1", "::1", "::2"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
        ] {
            let cidr: Cidr = range.parse().unwrap();
            assert!(cidr.contains(inside.parse().unwrap()), "{inside} in {range}");
            assert!(!cidr.contains(outside.parse().unwrap()), "{outside} in {range}");
        }
        for bad in [
            "",
            "/",
            "10.0.0.0/",
            "/8",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0/8",
            "proxy",
            "10.0.0.1:80",
            "10.0.0.0/999",
            "*",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        let error = "10.1.0.0/8".parse::<Cidr>().unwrap_err().to_string();
        assert!(error.contains("10.0.0.0/8"), "{error}");
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let fields = head(&["Forwarded: for=192.0.2.1", "X-Forwarded-For: 192.0.2.1"]);
        let name = |trusted: &[&str], peer: &str| {
            proxies(trusted).client(peer.parse().unwrap(), &fields).to_string()
        };
        assert_eq!(name(&[], "127.0.0.1:5"), "127.0.0.1:5");
        assert_eq!(name(&["10.0.0.0/8"], "127.0.0.1:5"), "127.0.0.1:5");
        assert_eq!(name(&["10.0.0.0/8", "127.0.0.1"], "127.0.0.1:5"), "192.0.2.1");
        assert_eq!(name(&["127.0.0.0/8"], "[::ffff:127.0.0.1]:5"), "192.0.2.1");
        assert_eq!(name(&["127.0.0.0/8"], "[::1]:5"), "[::1]:5");
    }

    #[test]
    fn the_nearest_address_that_is_no_proxys_counts() {
        for (line, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("1.1.1.1, 192.0.2.1", "192.0.2.1"),
            ("1.1.1.1,192.0.2.1,10.0.0.2 , 10.9.9.9", "192.0.2.1"),
            ("192.0.2.1, , ", "192.0.2.1"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("192.0.2.1:4711", "192.0.2.1:4711"),
            ("192.0.2.1:0", "192.0.2.1"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:4711, 2001:db8:1::2", "[2001:db8::7]:4711"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("1.1.1.1, unknown", "10.0.0.1:5"),
            ("1.1.1.1, unknown, 10.0.0.2", "10.0.0.2"),
            ("", "10.0.0.1:5"),
        ] {
            assert_eq!(client(&[&format!("X-Forwarded-For: {line}")]), expected, "{line}");
        }
        let lines = ["X-Forwarded-For: 1.1.1.1", "Host: x", "x-forwarded-for: 192.0.2.1, 10.0.0.2"];
        assert_eq!(client(&lines), "192.0.2.1");
    }

    #[test]
    fn forwarded_is_read_as_its_grammar_says() {
        for (line, expected) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("For=\"192.0.2.1:4711\";proto=http;by=203.0.113.43", "192.0.2.1:4711"),
            ("proto=https ; for=\"[2001:db8:cafe::17]:4711\"", "[2001:db8:cafe::17]:4711"),
            ("for=\"[2001:db8:cafe::17]\"", "2001:db8:cafe::17"),
            ("for=\"\\1\\9\\2.0.2.1\"", "192.0.2.1"),
            ("for=192.0.2.1:4711", "192.0.2.1:4711"),
            ("for=\"192.0.2.1:_hidden\"", "192.0.2.1"),
            ("for=1.1.1.1, for=192.0.2.1,for=10.0.0.2;by=\"a,b;for=2.2.2.2\"", "192.0.2.1"),
            ("for=1.1.1.1, for=192.0.2.1;, ,", "192.0.2.1"),
            // Hidden, or not told: the proxy is all that is known.
            ("for=1.1.1.1, for=unknown", "10.0.0.1:5"),
            ("for=1.1.1.1, for=_gazonk, for=10.0.0.2", "10.0.0.2"),
            ("for=1.1.1.1, by=10.0.0.1", "10.0.0.1:5"),
            // Malformed: what a client has left open swallows what its proxy appended.
            ("for=\", for=192.0.2.1", "10.0.0.1:5"),
            ("for=\"1.1.1.1, for=\"192.0.2.1\"", "10.0.0.1:5"),
            ("for=1.1.1.1;for=2.2.2.2", "10.0.0.1:5"),
            ("1.1.1.1", "10.0.0.1:5"),
            ("for 1=1.1.1.1", "10.0.0.1:5"),
            ("for=\"1.1.1.1\"x", "10.0.0.1:5"),
            ("for=\"1.1.1.1\\", "10.0.0.1:5"),
            ("for=\"[::1\"", "10.0.0.1:5"),
            ("for=\"1.1.1.1:99999\"", "10.0.0.1:5"),
            ("for=\"1.1.1.1:+80\"", "10.0.0.1:5"),
            ("for=", "10.0.0.1:5"),
        ] {
            assert_eq!(client(&[&format!("Forwarded: {line}")]), expected, "{line}");
        }
        // A line of the client's cannot spoil the proxy's own.
        let lines = ["Forwarded: for=\"", "Forwarded: for=192.0.2.1"];
        assert_eq!(client(&lines), "192.0.2.1");
        // Both fields: one of them may be the client's own.
        let lines = ["X-Forwarded-For: 1.1.1.1", "Forwarded: for=192.0.2.1"];
        assert_eq!(client(&lines), "10.0.0.1:5");
        let lines = ["X-Forwarded-For: 1.1.1.1", "Forwarded: for=_x"];
        assert_eq!(client(&lines), "10.0.0.1:5");
        let lines = ["X-Forwarded-For: 192.0.2.1", "Forwarded: for=\"192.0.2.1:80\""];
        assert_eq!(client(&lines), "192.0.2.1:80");
    }

    /// Whatever stands there, what is shown is an address and nothing else.
    #[test]
    fn noise_is_never_shown() {
        const PARTS: &[&str] = &[
            "for",
            "=",
            "\"",
            "\\",
            ",",
            ";",
            " ",
            "[",
            "]",
            ":",
            "192.0.2.1",
            "2001:db8::1",
            "_x",
            "unknown",
            "\u{1b}[31m",
            "\u{7}",
            "%0a",
            "0",
            "65536",
            "by",
            "10.0.0.2",
            "\t",
            ".",
        ];
        let (mut seed, mut known) = (7_u64, 0);
        for _ in 0..50_000 {
            let mut text = String::new();
            for _ in 0..seed % 12 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                text.push_str(PARTS[(seed % PARTS.len() as u64) as usize]);
            }
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            for name in ["Forwarded", "X-Forwarded-For"] {
                // Control characters do not get as far as this.
                let request = format!("GET / HTTP/1.0\r\n{name}: {text}\r\n\r\n");
                let Ok(field) = parse(request.as_bytes()) else { continue };
                let address = "10.0.0.1:5".parse().unwrap();
                let shown = proxies(&["10.0.0.0/8"]).client(address, &field).to_string();
                let plain = shown.parse::<SocketAddr>().is_ok() || shown.parse::<IpAddr>().is_ok();
                assert!(plain, "{shown:?} of {text:?}");
                known += usize::from(shown != "10.0.0.1:5");
            }
        }
        assert!(known > 100, "{known} of them were addresses");
    }
}
