//! Origins (RFC 6454) in the one form in which they are compared: for `--allow-origin`, and for what
//! browsers send. Nothing here waits.

use std::net::Ipv6Addr;

/// An origin as browsers send it (RFC 6454 section 6.2): in lower case, without the port that its
/// scheme has anyway, and without a slash at the end.
pub fn normalized_origin(origin: &str) -> String {
    let origin = origin.to_ascii_lowercase();
    let Some((scheme, rest)) = origin.split_once("://") else { return origin };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let rest = default_port(scheme).and_then(|port| rest.strip_suffix(port)).unwrap_or(rest);
    format!("{scheme}://{rest}")
}

/// Whether an origin, normalized, is one that browsers send: scheme, host, port, and nothing else.
pub fn is_origin(origin: &str) -> bool {
    // Pages without an origin of their own, and those in files.
    if matches!(origin, "null" | "file://") {
        return true;
    }
    let parts = origin.split_once("://");
    parts.is_some_and(|(scheme, authority)| is_scheme(scheme) && is_authority(authority))
}

/// RFC 3986 section 3.1, in lower case.
fn is_scheme(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_lowercase()) && text.bytes().all(is_part)
}

/// A host with a port or without. Names that are not ASCII are sent as punycode.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(is_part),
    };
    // Without leading zeros, as browsers send it.
    is_host && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|one| one.to_string() == port))
}

/// `:` and the port that a URL of this scheme has if it names none; `None` for another scheme.
pub fn default_port(scheme: &str) -> Option<&'static str> {
    match scheme {
        "http" | "ws" => Some(":80"),
        "https" | "wss" => Some(":443"),
        _ => None,
    }
}
