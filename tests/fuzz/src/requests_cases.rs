//! The requests of the `http` target: put together from their parts, mutated byte by byte, and cut
//! into pieces.

use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::mutations::{Mutation, mutation};
use crate::requests_parts::{body, field, fields, method, target, upgrade};

/// Bytes that mean something in a request, or must not be there.
const SPECIAL: &[u8] = b"\r\n\0 \t:,;%\x0b\x0c\x7f\xff/";

/// A request.
#[derive(Clone)]
pub struct Case {
    /// Empty lines, which are skipped.
    leading: &'static str,
    method: String,
    target: Vec<u8>,
    version: String,
    fields: Vec<(String, String)>,
    /// The end of each line; nearly always the right one.
    ends: Vec<&'static str>,
    body: Vec<u8>,
    mutations: Vec<Mutation>,
    /// Where what is sent is cut into pieces.
    pub cuts: Vec<usize>,
    /// The client waits for the response without closing its side, and where the connection is kept
    /// sends another request.
    pub waits: bool,
}

/// As it goes over the wire: that is what one wants to see of a failure.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("bytes", &self.bytes().escape_ascii().to_string())
            .field("cuts", &self.cuts)
            .field("waits", &self.waits)
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
        let mut bytes = self.leading.as_bytes().to_vec();
        for (line, end) in lines.iter().zip(ends) {
            bytes.extend_from_slice(line);
            bytes.extend_from_slice(end.as_bytes());
        }
        bytes.extend_from_slice(&self.body);
        self.mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
        bytes
    }
}

/// A request for a WebSocket, right or nearly, that nothing is changed of.
fn upgrade_case() -> impl Strategy<Value = Case> {
    let target = select(vec!["/ws", "/echo", "/", "/ws?topic=a"]);
    (target, vec(field(), 0..2), vec(any::<usize>(), 0..4)).prop_map(|(target, more, cuts)| Case {
        leading: "",
        method: "GET".to_owned(),
        target: target.into(),
        version: "HTTP/1.1".to_owned(),
        fields: [upgrade(), more].concat(),
        ends: Vec::new(),
        body: Vec::new(),
        mutations: Vec::new(),
        cuts,
        // Whoever closes their side before a stream begins does not get one.
        waits: true,
    })
}

/// Any request, right or wrong.
fn any_case() -> impl Strategy<Value = Case> {
    let version = prop_oneof![
        16 => Just("HTTP/1.1"),
        2 => Just("HTTP/1.0"),
        1 => select(vec![
            "HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3.0", "HTTP/2", "http/1.1", "", "HTTP/1.1 x",
        ]),
    ];
    let ends = prop_oneof![
        12 => Just(Vec::new()),
        1 => vec(select(vec!["\r\n", "\r\n", "\n", "\r", "\r\n ", "\r\n\n"]), 1..5),
    ];
    let mutations = prop_oneof![4 => Just(Vec::new()), 2 => vec(mutation(SPECIAL), 1..4)];
    let sending = (vec(any::<usize>(), 0..4), prop::bool::weighted(0.08));
    let leading = prop_oneof![20 => Just(""), 1 => select(vec!["\r\n", "\r\n\r\n", "\n", "\r"])];
    let first = (leading, method());
    (first, target(), version, fields(), ends, body(), mutations, sending).prop_map(
        |((leading, method), target, version, fields, ends, body, mutations, (cuts, waits))| Case {
            leading,
            method,
            target,
            version: version.to_owned(),
            fields,
            ends,
            body,
            mutations,
            cuts,
            waits,
        },
    )
}

/// A request, right or wrong.
pub fn case() -> impl Strategy<Value = Case> {
    prop_oneof![8 => any_case(), 1 => upgrade_case()]
}
