//! Origins (RFC 6454), as they are compared.

/// An origin as browsers send it (RFC 6454 section 6.2): in lower case, without the port that its
/// scheme has anyway, and without a slash at the end.
pub fn normalized_origin(origin: &str) -> String {
    let origin = origin.to_ascii_lowercase();
    let Some((scheme, rest)) = origin.split_once("://") else { return origin };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let rest = default_port(scheme).and_then(|port| rest.strip_suffix(port)).unwrap_or(rest);
    format!("{scheme}://{rest}")
}

/// `:` and the port of URLs that name none.
pub fn default_port(scheme: &str) -> Option<&'static str> {
    match scheme {
        "http" | "ws" => Some(":80"),
        "https" | "wss" => Some(":443"),
        _ => None,
    }
}
