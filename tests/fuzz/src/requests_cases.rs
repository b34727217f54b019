//! The requests of the `http` target: put together from their parts, mutated byte by byte, and cut
//! into pieces.

use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tiny_http::{HTTPVersion, Header, Request, TestRequest};

use crate::mutations::{Mutation, mutation};
use crate::requests_parts::{body, field, fields, method, target, upgrade};

/// Bytes that mean something in a request, or must not be there.
const SPECIAL: &[u8] = b"\r\n\0 \t:,;%\x0b\x0c\x7f\xff/";

/// A request.
#[derive(Clone)]
pub struct Case {
    method: String,
    /// Its target.
    pub target: Vec<u8>,
    version: String,
    fields: Vec<(String, String)>,
    /// The end of each line; nearly always the right one.
    ends: Vec<&'static str>,
    body: Vec<u8>,
    mutations: Vec<Mutation>,
    /// Where what is sent is cut into pieces.
    pub cuts: Vec<usize>,
    /// The client waits for the answer without ending its side.
    pub patient: bool,
}

/// As it goes over the wire: that is what one wants to see of a failure.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("bytes", &self.bytes().escape_ascii().to_string())
            .field("cuts", &self.cuts)
            .field("patient", &self.patient)
            .finish()
    }
}

impl Case {
    /// What goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut lines = vec![[self.method.as_bytes(), b" ", &self.target, b" "].concat()];
        lines[0].extend_from_slice(self.version.as_bytes());
        lines.extend(self.fields.iter().map(|(name, value)| format!("{name}: {value}").into()));
        lines.push(Vec::new());
        let ends = self.ends.iter().chain(std::iter::repeat(&"\r\n"));
        let mut bytes = Vec::new();
        for (line, end) in lines.iter().zip(ends) {
            bytes.extend_from_slice(line);
            bytes.extend_from_slice(end.as_bytes());
        }
        bytes.extend_from_slice(&self.body);
        self.mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
        bytes
    }

    /// The request as tiny_http would hand it out, where it can be had without a connection.
    pub fn as_test_request(&self) -> Option<Request> {
        let version = match self.version.as_str() {
            "HTTP/1.1" => (1, 1),
            "HTTP/1.0" => (1, 0),
            _ => return None,
        };
        // Up to a kilobyte tiny_http reads the body before it hands the request out.
        static BODY: &str = match std::str::from_utf8(&[b'x'; 1024]) {
            Ok(body) => body,
            Err(_) => "",
        };
        let mut request = TestRequest::new()
            .with_body(BODY)
            .with_method(self.method.parse().ok()?)
            .with_path(std::str::from_utf8(&self.target).ok()?)
            .with_http_version(HTTPVersion::from(version));
        for (name, value) in &self.fields {
            // tiny_http refuses what it does not expect before there is a request.
            if name.eq_ignore_ascii_case("expect") {
                return None;
            }
            request = request.with_header(format!("{name}: {value}").parse::<Header>().ok()?);
        }
        Some(request.into())
    }
}

/// A request for a WebSocket, right or nearly, that nothing is changed of.
fn upgrade_case() -> impl Strategy<Value = Case> {
    let target = select(vec!["/ws", "/echo", "/", "/ws?topic=a"]);
    (target, vec(field(), 0..2), vec(any::<usize>(), 0..4)).prop_map(|(target, more, cuts)| Case {
        method: "GET".to_owned(),
        target: target.into(),
        version: "HTTP/1.1".to_owned(),
        fields: [upgrade(), more].concat(),
        ends: Vec::new(),
        body: Vec::new(),
        mutations: Vec::new(),
        cuts,
        // Whoever ends its side before the answer does not get one.
        patient: true,
    })
}

/// Any request, right or wrong.
fn any_case() -> impl Strategy<Value = Case> {
    let version = prop_oneof![
        16 => Just("HTTP/1.1"),
        2 => Just("HTTP/1.0"),
        // Not HTTP/2.0 and 3.0: each costs a worker for ever (README, Limits; tests/faults).
        1 => select(vec!["HTTP/0.9", "HTTP/1.2", "http/1.1", "", "HTTP/1.1 x"]),
    ];
    let ends = prop_oneof![
        12 => Just(Vec::new()),
        1 => vec(select(vec!["\r\n", "\r\n", "\n", "\r", "\r\n ", "\r\n\n"]), 1..5),
    ];
    let mutations = prop_oneof![4 => Just(Vec::new()), 2 => vec(mutation(SPECIAL), 1..4)];
    let sending = (vec(any::<usize>(), 0..4), prop::bool::weighted(0.08));
    (method(), target(), version, fields(), ends, body(), mutations, sending).prop_map(
        |(method, target, version, fields, ends, body, mutations, (cuts, patient))| Case {
            method,
            target,
            version: version.to_owned(),
            fields,
            ends,
            body,
            mutations,
            cuts,
            patient,
        },
    )
}

/// A request, right or wrong.
pub fn case() -> impl Strategy<Value = Case> {
    prop_oneof![8 => any_case(), 1 => upgrade_case()]
}
