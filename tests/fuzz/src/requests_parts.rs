//! The parts of the requests of the `http` target: mostly right, and each wrong at times in the
//! ways that are known to confuse servers.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Methods.
pub fn method() -> impl Strategy<Value = String> {
    let usual = select(vec!["GET", "GET", "GET", "POST", "POST", "HEAD", "OPTIONS"]);
    let odd = select(vec![
        "PUT",
        "DELETE",
        "CONNECT",
        "TRACE",
        "get",
        "G(T",
        "",
        "M-SEARCH",
        "A B",
        "!#$%&'*+-.^_`|~09azAZ",
        "MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM",
    ]);
    prop_oneof![12 => usual, 1 => odd].prop_map(str::to_owned)
}

/// Targets: those that are served, and those that confuse.
pub fn target() -> impl Strategy<Value = Vec<u8>> {
    let known = select(vec![
        "/",
        "/healthz",
        "/healthz",
        "/stats",
        "/metrics",
        "/events",
        "/publish",
        "/publish",
        "/ws",
        "/echo",
        "/app.js",
        "/nothing",
        "/events?topic=a&topic=b",
        "/publish?topic=t&event=e",
        "/ws?topic=*",
        "/events?last_event_id=1-0",
        "/publish?topic=a%0Ab",
        "/publish?topic=*",
    ]);
    let odd = select(vec![
        "*",
        "",
        "//",
        "/..",
        "/../etc/passwd",
        "/a/../b",
        "/%2e%2e/x",
        "/%2E%2e%2fx",
        "/..%5cx",
        "/%00",
        "/a%00b",
        "/%",
        "/%zz",
        "/%2",
        "/a#b",
        "http://x/",
        "http://x/healthz",
        "HTTPS://x:80?a",
        "http://x",
        "http://u@x/",
        "http:///",
        "http://x/../a",
        "ftp://x/",
        "x:80",
        "healthz",
        "/healthz/",
        "/./healthz",
        "/%68ealthz",
        "/healthz?",
        "/healthz?%",
        "/\u{e4}",
        "/?\u{1f600}",
        "/a\tb",
        "/\\",
        "/healthz;a",
        "/healthz\u{0}",
    ]);
    let long = prop_oneof![Just(8191), Just(8192), Just(9000)]
        .prop_map(|length| [b"/".to_vec(), vec![b'a'; length]].concat());
    prop_oneof![
        24 => known.prop_map(|text| text.as_bytes().to_vec()),
        4 => odd.prop_map(|text| text.as_bytes().to_vec()),
        2 => "/[ -~]{0,20}".prop_map(String::into_bytes),
        1 => "/[%0-9a-f./\\\\?]{0,12}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..12),
        1 => long,
    ]
}

/// One field.
pub fn field() -> impl Strategy<Value = (String, String)> {
    let named = |name: &'static str, values: &[&'static str]| {
        select(values.to_vec()).prop_map(move |value| (name.to_owned(), value.to_owned())).boxed()
    };
    let lengths = &[
        "0",
        "1",
        "5",
        "5",
        "100",
        "4096",
        "4097",
        "1048577",
        "99999999999999",
        "18446744073709551615",
        "18446744073709551616",
        "-1",
        "+5",
        "5,5",
        "0x5",
        "5 5",
        " 5",
        "",
        "5;",
        "٥",
        "5\t",
        "05",
    ];
    let codings = &[
        "chunked",
        "chunked",
        "Chunked",
        "gzip, chunked",
        "chunked, identity",
        "identity",
        "xchunked",
        "chunked;a=b",
        "\u{b}chunked",
        "",
        "chunked\u{0}",
    ];
    prop_oneof![
        6 => named("Host", &["x", "localhost", "x:80", "[::1]:3000", "a b", "x/y", "u@x", "", "x,y"]),
        5 => named("Content-Length", lengths),
        4 => named("Transfer-Encoding", codings),
        3 => named("Connection", &[
            "close", "keep-alive", "Upgrade", "upgrade, close", "keep-alive, Upgrade", "upgraded", "",
            "close\u{3000}", "\u{a0}Upgrade", "x,close", "keep-alive\t,x",
        ]),
        3 => named("Upgrade", &["websocket", "WebSocket", "h2c", "websocket, h2c", "", "websocket\u{a0}"]),
        3 => named("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ==", "short", ""]),
        3 => named("Sec-WebSocket-Version", &["13", "8", "13, 8", ""]),
        1 => named("Sec-WebSocket-Extensions", &["permessage-deflate", "x; y=\"", ""]),
        1 => named("Sec-WebSocket-Protocol", &["threadcast.v1", "a, b", ""]),
        2 => named("Expect", &["100-continue", "100-Continue", "200-ok", "", "100-continue\u{2003}"]),
        2 => named("Origin", &["http://x", "null", "http://evil.example", "", "http://x/"]),
        2 => named("Last-Event-ID", &["1-0", "x", "99999999999999-0", "", "1-0\u{1}"]),
        1 => named("Content-Type", &["application/x-ndjson", "text/plain", "application/x-ndjson;"]),
        1 => named("Authorization", &["Bearer x", "Bearer", "Basic eA=="]),
        1 => named("If-None-Match", &["*", "\"x\"", "W/\"x\"", ","]),
        2 => ("[ -~]{0,12}", "[\u{0}-~\u{e4}]{0,20}"),
        1 => ("X-Custom", "[a-z]{0,20}"),
        1 => Just(("X-Long".to_owned(), "x".repeat(40_000))),
    ]
}

fn own(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What a WebSocket's request needs.
pub fn upgrade() -> Vec<(String, String)> {
    own(&[
        ("Host", "x"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ])
}

/// The fields that a right request needs, so that a good part of all requests is served.
pub fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let base = prop_oneof![
        5 => Just(own(&[("Host", "x")])),
        4 => Just(upgrade()),
        2 => Just(own(&[("Host", "x"), ("Content-Length", "5")])),
        1 => Just(own(&[("Host", "x"), ("Transfer-Encoding", "chunked")])),
        1 => Just(Vec::new()),
    ];
    let more = prop_oneof![
        6 => Just(Vec::new()),
        6 => vec(field(), 1..3),
        2 => vec(field(), 3..12),
        1 => (95_usize..110).prop_map(|count| vec![("X".to_owned(), "y".to_owned()); count]),
    ];
    (base, more).prop_map(|(base, more)| [base, more].concat())
}

/// Bodies, and what may stand in their place.
pub fn body() -> impl Strategy<Value = Vec<u8>> {
    let size =
        select(vec!["0", "1", "5", "5", "A", "1000", "ffffffffffffffff", "-1", "x", "5;a=b", ""]);
    let end = select(vec!["\r\n", "\r\n", "\r\n", "\n", ""]);
    let chunk = (size, end, "[a-z]{0,6}", end_of_chunk());
    let chunk = chunk.prop_map(|(size, end, data, last)| format!("{size}{end}{data}{last}"));
    let chunks = vec(chunk, 0..4).prop_map(|chunks| chunks.concat() + "0\r\n\r\n");
    prop_oneof![
        4 => Just(Vec::new()),
        4 => Just(b"hello".to_vec()),
        2 => Just(b"5\r\nhello\r\n0\r\n\r\n".to_vec()),
        2 => chunks.prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..50),
        1 => select(vec![1023, 1024, 1025, 4096, 5000]).prop_map(|length| vec![b'x'; length]),
        // Another request behind the first.
        3 => Just(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        1 => Just(b"5;a\r\nhello\r\n0\r\nT: t\r\n\r\nPOST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx".to_vec()),
        2 => Just(b"helloGET /stats HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        1 => "\\{\"data\":[ -~]{0,10}\\}\n".prop_map(String::into_bytes),
    ]
}

fn end_of_chunk() -> impl Strategy<Value = &'static str> {
    select(vec!["\r\n", "\r\n", "\n", ""])
}
