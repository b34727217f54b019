//! Origins (RFC 6454) in the one form in which they are compared: for `--allow-origin`, and for what
//! browsers send. Nothing here waits.

/// An origin as browsers send it (RFC 6454 section 6.2): in lower case, without the port that its
/// scheme has anyway, and without a slash at the end.
pub fn normalized_origin(origin: &str) -> String {
    let origin = origin.to_ascii_lowercase();
    let Some((scheme, rest)) = origin.split_once("://") else { return origin };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let rest = default_port(scheme).and_then(|port| rest.strip_suffix(port)).unwrap_or(rest);
    format!("{scheme}://{rest}")
}

/// `:` and the port that a URL of this scheme has if it names none; `None` for another scheme.
pub fn default_port(scheme: &str) -> Option<&'static str> {
    match scheme {
        "http" | "ws" => Some(":80"),
        "https" | "wss" => Some(":443"),
        _ => None,
    }
}
