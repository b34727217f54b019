//! Which extension is agreed on in the handshake (RFC 6455 section 9.1, RFC 7692 sections 5 and 7.1).
//! The client's thread calls this once, before it becomes a client; nothing here waits.
//!
//! A client offers what it can do, the best first. The response accepts one offer, or none: an offer
//! that is not understood is declined, and the client goes on without.

use super::deflate::Window;
use crate::http::list::{BLANK, split, unquoted};

/// The only extension that this server knows.
const NAME: &str = "permessage-deflate";

/// Bits of the window where the client sets no limit (section 7.1.2.1).
const DEFAULT_WINDOW_BITS: u8 = 15;

/// What was agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// For compressed messages to the client.
    pub window: Window,
    /// The value of `Sec-WebSocket-Extensions` in the response.
    pub response: String,
}

/// Takes the first offer that can be met from the values of `Sec-WebSocket-Extensions`, which
/// count as one list.
///
/// The response asks both sides to begin each message afresh, which section 7.1.1 allows it to do
/// unasked: then a broadcast is compressed once for all, and nothing is kept for a connection. It
/// sets no `client_max_window_bits`: a client may use any window, since it costs nothing here.
pub fn negotiate<'a>(offered: impl IntoIterator<Item = &'a str>) -> Option<Agreed> {
    offered.into_iter().flat_map(|list| split(list, ',')).find_map(accept)
}

/// Section 7.1: an offer with a parameter that is unknown, there twice, or has a value that it
/// must not have, is declined.
fn accept(offer: &str) -> Option<Agreed> {
    let mut parts = split(offer, ';');
    if parts.next()? != NAME {
        return None;
    }
    let mut seen = Vec::new();
    let mut limit = None;
    for part in parts {
        // RFC 6455 section 9.1: a value may be quoted, and white space is allowed around the `=`.
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => {
                (name.trim_end_matches(BLANK), Some(unquoted(value.trim_start_matches(BLANK))?))
            }
            None => (part, None),
        };
        match (name, value) {
            // The response says both in any case.
            ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
            ("server_max_window_bits", Some(value)) => limit = Some(bits(&value)?),
            ("client_max_window_bits", None) => {}
            // A promise that the inflater, which has the widest window, need not know.
            ("client_max_window_bits", Some(value)) => {
                bits(&value)?;
            }
            _ => return None,
        }
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    // zlib has no window of 8 bits: declined.
    let window = Window::new(limit.unwrap_or(DEFAULT_WINDOW_BITS))?;
    // A limit that was asked for must be confirmed (section 7.1.2.1).
    let limit = limit.map(|bits| format!("; server_max_window_bits={bits}")).unwrap_or_default();
    let response = format!("{NAME}; server_no_context_takeover; client_no_context_takeover{limit}");
    Some(Agreed { window, response })
}

/// Section 7.1.2: a decimal integer without leading zeroes, from 8 to 15.
fn bits(value: &str) -> Option<u8> {
    let plain = matches!(value.as_bytes(), [b'8' | b'9'] | [b'1', b'0'..=b'5']);
    plain.then(|| value.parse().ok()).flatten()
}

#[cfg(all(test, feature = "deflate"))]
mod tests {
    use super::*;

    const BOTH: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    fn response(offered: &[&str]) -> Option<String> {
        negotiate(offered.iter().copied()).map(|agreed| agreed.response)
    }

    #[test]
    fn what_can_be_met_is_accepted() {
        for offer in [
            "permessage-deflate",
            " \tpermessage-deflate ",
            "permessage-deflate; client_max_window_bits", // Chromium, Firefox
            "permessage-deflate; client_max_window_bits=8",
            "permessage-deflate;client_max_window_bits=15;client_no_context_takeover",
            "permessage-deflate ; server_no_context_takeover ; client_max_window_bits = \"10\"",
            "permessage-deflate; client_max_window_bits=\"1\\2\"",
            ", permessage-deflate,",
            "x-webkit-deflate-frame, permessage-deflate",
            "other; with=\"a, permessage-deflate; b\", permessage-deflate",
            "other; with=\"\\\", permessage-deflate; server_max_window_bits=9\", permessage-deflate",
            "permessage-deflate; unknown, permessage-deflate",
            "permessage-deflate; server_max_window_bits=8, permessage-deflate",
        ] {
            assert_eq!(response(&[offer]).as_deref(), Some(BOTH), "{offer}");
        }
        for bits in 9..=15_u8 {
            for offer in [
                format!("permessage-deflate; server_max_window_bits={bits}"),
                format!(
                    "permessage-deflate; client_max_window_bits; server_max_window_bits=\"{bits}\""
                ),
            ] {
                let agreed = negotiate([&*offer]).unwrap();
                assert_eq!(agreed.window, Window::new(bits).unwrap());
                assert_eq!(agreed.response, format!("{BOTH}; server_max_window_bits={bits}"));
            }
        }
    }

    #[test]
    fn the_first_that_can_be_met_is_taken_from_all_lines() {
        let nine = "permessage-deflate; server_max_window_bits=9";
        let ten = "permessage-deflate; server_max_window_bits=10";
        let bits = |offered: &[&str]| response(offered).map(|text| text[BOTH.len()..].to_owned());
        let first = Some("; server_max_window_bits=9".to_owned());
        assert_eq!(bits(&[&format!("{nine}, {ten}, permessage-deflate")]), first);
        assert_eq!(bits(&["other, permessage-deflate; no", nine, ten]), first);
        assert_eq!(bits(&["permessage-deflate", nine]), Some(String::new()));
    }

    #[test]
    fn what_is_not_understood_is_declined() {
        for offer in [
            "",
            ",",
            ";",
            "deflate",
            "PERMESSAGE-DEFLATE",
            "permessage-deflate-2",
            "permessage-deflate=1",
            "permessage-deflate;",
            "permessage-deflate; ;client_max_window_bits",
            "permessage-deflate; =",
            "permessage-deflate; unknown",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover=",
            "permessage-deflate; client_no_context_takeover=\"\"",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
            "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; server_max_window_bits=1 0",
            "permessage-deflate; server_max_window_bits=\"10",
            "permessage-deflate; server_max_window_bits=\"10\" x",
            "permessage-deflate; server_max_window_bits=\" 10\"",
            "permessage-deflate; client_max_window_bits=0",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=015",
            "permessage-deflate; client_max_window_bits=ten",
        ] {
            assert_eq!(response(&[offer]), None, "{offer}");
        }
        assert_eq!(response(&[]), None);
    }
}
