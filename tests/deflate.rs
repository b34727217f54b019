//! Compressed WebSocket messages (RFC 7692), with a client that compresses and inflates by itself.
#![cfg(feature = "deflate")]

mod common;

use std::io::Write;

use common::ws::{Frame, Raw, check_welcome, json, masked, open};
use common::{FANOUTS, Server, wait_for};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
const BOTH: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// Above this size messages come compressed.
const WORTH_IT: usize = 256;

/// FIN, and RSV1 for 'compressed', with text, binary, or a continuation.
const TEXT: u8 = 0xc1;
const BINARY: u8 = 0xc2;

fn connect(server: &Server, target: &str) -> Raw {
    let client = Raw::connect_with(server, target, OFFER, b"");
    assert_eq!(client.answer.header("Sec-WebSocket-Extensions"), Some(BOTH));
    client
}

fn compressor(bits: u8) -> Compress {
    Compress::new_with_window_bits(Compression::default(), false, bits)
}

/// RFC 7692 section 7.2.1.
fn compress_with(compressor: &mut Compress, message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.len() + message.len() / 8 + 64);
    compressor.compress_vec(message, &mut bytes, FlushCompress::Sync).unwrap();
    assert_eq!(compressor.total_in() as usize, message.len());
    assert!(bytes.ends_with(&[0, 0, 0xff, 0xff]));
    bytes.truncate(bytes.len() - 4);
    bytes
}

fn compress(message: &[u8]) -> Vec<u8> {
    compress_with(&mut compressor(15), message)
}

/// Section 7.2.2, by a client that has forgotten all messages before, and has only so much memory.
fn inflate(bits: u8, payload: &[u8]) -> Vec<u8> {
    let mut inflater = Decompress::new_with_window_bits(false, bits);
    let mut message = Vec::with_capacity(payload.len() * 1_100 + 1_000);
    let input = [payload, &[0, 0, 0xff, 0xff]].concat();
    inflater.decompress_vec(&input, &mut message, FlushDecompress::Sync).unwrap();
    assert_eq!(inflater.total_in() as usize, input.len());
    message
}

/// The next frame's message, and whether it was compressed.
fn message(client: &mut Raw) -> (Vec<u8>, bool) {
    let (first, payload) = client.any_frame().expect("a message");
    match first {
        TEXT | BINARY => (inflate(15, &payload), true),
        0x81 | 0x82 => (payload, false),
        other => panic!("{other:#x}"),
    }
}

fn words(length: usize) -> Vec<u8> {
    (0..length).map(|i| b"some words and some more "[i * i % 25]).collect()
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn compression_is_agreed_on_where_both_want_it() {
    let off = Server::start(&[]);
    let client = Raw::connect_with(&off, "/echo", OFFER, b"");
    assert_eq!(client.answer.header("Sec-WebSocket-Extensions"), None);

    let variable = [("THREADCAST_DEFLATE", "1")];
    for server in [Server::start(&["--deflate"]), Server::start_with_environment(&variable, &[])] {
        let name = "Sec-WebSocket-Extensions";
        for (lines, answer) in [
            ("", None),
            ("Sec-WebSocket-Extensions: permessage-deflate\r\n", Some(BOTH.to_owned())),
            ("sec-websocket-extensions: permessage-deflate; unknown\r\n", None),
            ("Sec-WebSocket-Extensions: other; permessage-deflate\r\n", None),
            (
                "Sec-WebSocket-Extensions: other, permessage-deflate; server_max_window_bits=8\r\n\
                 Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=\"12\"\r\n",
                Some(format!("{BOTH}; server_max_window_bits=12")),
            ),
        ] {
            for target in ["/ws", "/", "/echo"] {
                let client = Raw::connect_with(&server, target, lines, b"");
                assert_eq!(client.answer.header(name).map(str::to_owned), answer, "{lines}");
            }
        }
    }
}

#[test]
fn messages_come_back_in_every_window() {
    let server = Server::start(&["--deflate"]);
    for bits in 9..=15 {
        let offer = format!(
            "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits={bits}; \
             client_max_window_bits={bits}\r\n"
        );
        let mut client = Raw::connect_with(&server, "/echo", &offer, b"");
        for length in [0, 1, WORTH_IT - 1, WORTH_IT, 1_000, 70_000, 300_000] {
            for first in [TEXT, BINARY] {
                let original = words(length);
                client.send(first, &compress_with(&mut compressor(bits), &original));
                let (back, payload) = client.any_frame().unwrap();
                if length < WORTH_IT {
                    assert_eq!((back, payload), (first & 0x8f, original));
                } else {
                    assert!(payload.len() < length / 2, "{bits} bits, {length} bytes");
                    assert_eq!((back, inflate(bits, &payload)), (first, original));
                }
            }
        }
    }
}

#[test]
fn what_is_not_compressed_is_read_too_and_what_gains_nothing_is_sent_so() {
    let server = Server::start(&["--deflate"]);
    let mut client = connect(&server, "/echo");
    client.send(0x81, &words(2_000));
    assert_eq!(message(&mut client), (words(2_000), true));
    client.send(0x81, b"short");
    assert_eq!(message(&mut client), (b"short".to_vec(), false));
    client.send(0x81, b"");
    assert_eq!(message(&mut client), (vec![], false));
    // Compressed it is longer than the limit, and longer than what is compressed.
    let noise = noise(1 << 20);
    let compressed = compress(&noise);
    assert!(compressed.len() > noise.len());
    client.send(BINARY, &compressed);
    assert_eq!(message(&mut client), (noise, false));
    // An empty message has one byte; a stream may end with a last block (sections 7.2.3.4 and .6).
    for (compressed, original) in [
        (&[0x00][..], &b""[..]),
        (&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], b"Hello"),
        (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], b"Hello"),
    ] {
        client.send(TEXT, compressed);
        assert_eq!(message(&mut client), (original.to_vec(), false));
    }
}

#[test]
fn a_compressed_message_may_come_in_fragments() {
    let server = Server::start(&["--deflate"]);
    let mut client = connect(&server, "/echo");
    let original = "grüße 🦀 日本語 ".repeat(500);
    let compressed = compress(original.as_bytes());
    for step in [1, 2, 10, compressed.len()] {
        let mut first = 0x41;
        for (number, fragment) in compressed.chunks(step).enumerate() {
            client.send(first, fragment);
            client.send(0x89, &number.to_be_bytes());
            first = 0x00;
            client.send(first, b"");
        }
        client.send(0x80, b"");
        for number in 0..compressed.chunks(step).len() {
            let pong = Frame { last: true, opcode: 10, payload: number.to_be_bytes().into() };
            assert_eq!(client.frame(), Some(pong));
        }
        assert_eq!(message(&mut client), (original.as_bytes().to_vec(), true));
    }
    // And cut anywhere on the way.
    for piece in masked(TEXT, &compressed).chunks(3) {
        client.stream.write_all(piece).unwrap();
    }
    assert_eq!(message(&mut client), (original.into_bytes(), true));
}

#[test]
fn no_message_needs_the_one_before() {
    let server = Server::start(&["--deflate"]);
    let mut client = connect(&server, "/echo");
    for _ in 0..3 {
        // `message` begins with an empty window each time.
        client.send(TEXT, &compress(&words(5_000)));
        assert_eq!(message(&mut client), (words(5_000), true));
    }
    // The client was asked to do the same. One that does not is not understood.
    let mut keeps = compressor(15);
    client.send(TEXT, &compress_with(&mut keeps, &words(500)));
    assert_eq!(message(&mut client), (words(500), true));
    let mut second = Vec::with_capacity(1_000);
    keeps.compress_vec(&words(500), &mut second, FlushCompress::Sync).unwrap();
    client.send(TEXT, &second[..second.len() - 4]);
    assert_eq!(client.close_code(), 1007);
}

#[test]
fn the_limit_holds_after_inflation() {
    let server = Server::start(&["--deflate", "--max-message", "100000"]);
    let mut client = connect(&server, "/echo");
    client.send(TEXT, &compress(&words(100_000)));
    assert_eq!(message(&mut client), (words(100_000), true));
    client.send(TEXT, &compress(&words(100_001)));
    assert_eq!(client.close_code(), 1009);

    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    let bomb = compress(&vec![b'x'; 60 << 20]);
    assert!((50_000..100_000).contains(&bomb.len()));
    let before = resident();
    for frames in [
        masked(TEXT, &bomb),
        [masked(0x42, &bomb[..50_000]), masked(0x80, &bomb[50_000..])].concat(),
        // More than any message within the limit needs, whatever it inflates to; only announced.
        vec![TEXT, 0x80 | 127, 0, 0, 0, 0, 0, 2, 0, 0, 1, 2, 3, 4],
        [masked(0x41, &[0; 90_000]), masked(0x00, &[0; 90_000])].concat(),
    ] {
        for target in ["/echo", "/ws?topic=a"] {
            let mut client = connect(&server, target);
            if target != "/echo" {
                message(&mut client);
            }
            client.stream.write_all(&frames).unwrap();
            assert_eq!(client.close_code(), 1009);
        }
    }
    assert!(resident() < before + 8, "{before} MiB, then {} MiB", resident());
    server.wait_clients(0, 0);
}

#[test]
fn rsv1_stands_only_on_the_first_frame_of_a_message() {
    let server = Server::start(&["--deflate"]);
    let compressed = compress(b"text");
    for (what, bytes) in [
        ("a ping", masked(0xc9, b"")),
        ("a pong", masked(0xca, b"")),
        ("a close frame", masked(0xc8, b"")),
        ("a continuation", [masked(0x41, &compressed), masked(0xc0, b"")].concat()),
        ("a continuation of what is plain", [masked(0x01, b"x"), masked(0xc0, b"")].concat()),
        ("a continuation of nothing", masked(0xc0, b"")),
        ("with RSV2", masked(0xe1, &compressed)),
        ("with RSV3", masked(0xd1, &compressed)),
        ("RSV2 alone", masked(0xa1, b"")),
        ("within a message", [masked(0x41, &compressed), masked(TEXT, &compressed)].concat()),
    ] {
        let mut client = connect(&server, "/echo");
        client.stream.write_all(&bytes).unwrap();
        assert_eq!(client.close_code(), 1002, "{what}");
    }
    // Not agreed on: not offered, declined, or not wanted by the server.
    let declined = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8\r\n";
    let off = Server::start(&[]);
    for (server, lines) in [(&server, ""), (&server, declined), (&off, OFFER)] {
        let mut client = Raw::connect_with(server, "/echo", lines, b"");
        client.send(TEXT, &compressed);
        assert_eq!(client.close_code(), 1002);
        let mut client = Raw::connect_with(server, "/echo", lines, b"");
        client.send(0x81, &words(2_000));
        assert_eq!(message(&mut client), (words(2_000), false));
    }
    server.wait_clients(0, 0);
}

#[test]
fn what_does_not_inflate_to_the_message_ends_with_1007() {
    let server = Server::start(&["--deflate"]);
    let cut = compress(&words(1_000));
    for (what, bytes) in [
        ("a reserved block", masked(BINARY, b"\x07")),
        ("nothing at all", masked(BINARY, b"")),
        ("cut off", masked(BINARY, &cut[..cut.len() / 2])),
        ("stored, with a wrong length", masked(BINARY, b"\x00\x05\x00\xfb\xffHello\x00")),
        ("not UTF-8", masked(TEXT, &compress(b"\xff"))),
        ("not UTF-8, long", masked(TEXT, &compress(&noise(10_000)))),
        ("half a character at the end", masked(TEXT, &compress(b"\xf0\x9f\xa6"))),
    ] {
        let mut client = connect(&server, "/echo");
        client.stream.write_all(&bytes).unwrap();
        assert_eq!(client.close_code(), 1007, "{what}");
    }
    // It is the messages that are UTF-8, not what they are sent as, nor the single frames.
    let mut client = connect(&server, "/echo");
    client.send(TEXT, &compress("🦀".as_bytes()));
    assert_eq!(message(&mut client).0, "🦀".as_bytes());
    drop(client);
    server.wait_clients(0, 0);
}

#[test]
fn an_event_is_the_same_with_and_without() {
    for fanout in FANOUTS {
        let server = Server::start(&["--deflate", "--fanout", fanout]);
        let narrow = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10\r\n";
        let mut plain = open(&server, "/ws?topic=a");
        let mut wide = [connect(&server, "/ws?topic=a"), connect(&server, "/ws?topic=*")];
        let mut narrow = Raw::connect_with(&server, "/?topic=a", narrow, b"");
        for client in wide.iter_mut().chain([&mut narrow]) {
            let (welcome, is_compressed) = message(client);
            check_welcome(&serde_json::from_slice(&welcome).expect("JSON"));
            assert!(!is_compressed);
        }
        let mut first = None;
        for length in [10, 2_000, 10, 100_000] {
            let id = server.publish_id("/publish?topic=a", str::from_utf8(&words(length)).unwrap());
            first.get_or_insert(id);
            let event = json(&mut plain);
            for client in &mut wide {
                let (text, compressed) = message(client);
                assert_eq!(compressed, length > WORTH_IT);
                assert_eq!(serde_json::from_slice::<serde_json::Value>(&text).unwrap(), event);
            }
            let (first, payload) = narrow.any_frame().unwrap();
            let text = if first == TEXT { inflate(10, &payload) } else { payload };
            assert_eq!(first == TEXT, length > WORTH_IT);
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&text).unwrap(), event);
        }
        // A replay, and an answer.
        let target = format!("/ws?topic=a&last_event_id={}", first.unwrap());
        let mut late = connect(&server, &target);
        let compressed: Vec<bool> = (0..4).map(|_| message(&mut late).1).collect();
        assert_eq!(compressed, [false, true, false, true], "a welcome and three events");
        late.send(TEXT, &compress(&words(1_000)));
        let (text, compressed) = message(&mut late);
        let answer: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert!(compressed);
        assert_eq!(answer["original"].as_str().unwrap().as_bytes(), words(1_000));
        drop((plain, wide, narrow, late));
        server.wait_clients(0, 0);
        wait_for("the threads to end", || server.client_threads() == 0);
    }
}
