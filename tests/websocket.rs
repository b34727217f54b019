//! WebSockets after the handshake: what comes back, events, pings, and every way to end (RFC 6455).

mod common;

use std::io::Write;
use std::time::Duration;

use common::ws::{Frame, Raw, check_welcome, connect, json, masked, open, text};
use common::{FANOUTS, Server, assert_timestamp};
use serde_json::json;
use tungstenite::Message;

/// A client past the welcome.
fn welcomed(server: &Server) -> Raw {
    let mut client = Raw::connect(server, "/ws");
    let welcome = client.frame().expect("a welcome");
    assert_eq!((welcome.last, welcome.opcode), (true, 1));
    check_welcome(&serde_json::from_slice(&welcome.payload).expect("JSON")).expect("an id");
    client
}

#[test]
fn text_comes_back_in_json_and_binary_as_it_was() {
    let large = "0123456789abcdef".repeat(20_000);
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout]);
        for target in ["/ws", "/", "/ws?topic=a"] {
            let mut socket = open(&server, target);
            for original in [
                "hello",
                "",
                r#"{"json": "\"quoted\" \\ \n"}"#,
                "line\nbreak\r\n\ttab \0 nul \u{7f}",
                "grüße 🦀 \u{2028} 日本語 \u{feff}",
                &large,
            ] {
                socket.send(Message::text(original)).unwrap();
                let answer = json(&mut socket);
                assert_eq!(answer.as_object().unwrap().len(), 3, "{answer}");
                assert_eq!(answer["type"], "response");
                assert_eq!(answer["original"], original);
                assert_timestamp(answer["processedAt"].as_str().unwrap());
            }
            for bytes in [vec![], (0..=255).collect(), vec![0xff; 200_000]] {
                socket.send(Message::binary(bytes.clone())).unwrap();
                assert_eq!(socket.read().unwrap(), Message::binary(bytes));
            }
        }
    }
}

#[test]
fn echo_only_echoes() {
    let server = Server::start(&[]);
    let mut socket = connect(&server, "/echo?topic=a&last_event_id=1-0");
    assert_eq!(server.publish("/publish?topic=a", "x").json()["subscribers"], 0);
    for message in [Message::text("grüße"), Message::text(""), Message::binary(vec![0, 255, 128])]
    {
        socket.send(message.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), message, "no welcome, and no event");
    }
}

#[test]
fn fragments_are_put_together_and_pings_answered_between_them() {
    let server = Server::start(&[]);
    let mut client = Raw::connect(&server, "/echo");
    let crab = "🦀".as_bytes();
    client.send(0x01, b"one ");
    client.send(0x00, b"");
    client.send(0x89, b"ping");
    client.send(0x00, &crab[..2]);
    client.send(0x80, &crab[2..]);
    assert_eq!(client.frame(), Some(Frame { last: true, opcode: 10, payload: b"ping".to_vec() }));
    assert_eq!(client.frame(), Some(text("one 🦀")));
    for first in [0x02, 0x00, 0x80] {
        client.send(first, &[0xff]);
    }
    assert_eq!(client.frame(), Some(Frame { last: true, opcode: 2, payload: vec![0xff; 3] }));
    for payload in [vec![], vec![7; 125]] {
        client.send(0x89, &payload);
        assert_eq!(client.frame(), Some(Frame { last: true, opcode: 10, payload }));
    }
    // A pong that nobody asked for is allowed, and asks for nothing.
    client.send(0x8a, b"unasked");
    client.send(0x81, b"next");
    assert_eq!(client.frame(), Some(text("next")));
}

#[test]
fn a_close_frame_is_answered_with_the_same_code() {
    let server = Server::start(&[]);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999_u16] {
        let mut client = welcomed(&server);
        client.send(0x88, &[&code.to_be_bytes()[..], "bye 🦀".as_bytes()].concat());
        assert_eq!(client.close_code(), code);
    }
    let mut client = welcomed(&server);
    client.send(0x88, b"");
    let close = Frame { last: true, opcode: 8, payload: vec![] };
    assert_eq!((client.frame(), client.frame()), (Some(close), None));
    server.wait_clients(0, 0);
    server.wait_log("closed by the client", 14);
}

#[test]
fn a_broken_protocol_ends_with_1002() {
    let server = Server::start(&[]);
    let close = |code: u16| masked(0x88, &code.to_be_bytes());
    let long = masked(0x89, &[0; 126]);
    for (what, bytes) in [
        ("not masked", vec![0x81, 2, b'h', b'i']),
        ("RSV1", masked(0xc1, b"x")),
        ("RSV2", masked(0xa1, b"x")),
        ("RSV3 in a control frame", masked(0x99, b"x")),
        ("reserved data opcode", masked(0x83, b"x")),
        ("reserved control opcode", masked(0x8b, b"x")),
        ("continues nothing", masked(0x80, b"x")),
        ("begins within a message", [masked(0x01, b"x"), masked(0x81, b"y")].concat()),
        ("fragmented ping", masked(0x09, b"x")),
        ("fragmented close", masked(0x08, b"")),
        ("long control frame", long),
        ("close with half a code", masked(0x88, &[3])),
        ("close 0", close(0)),
        ("close 999", close(999)),
        ("close 1004", close(1004)),
        ("close 1005", close(1005)),
        ("close 1006", close(1006)),
        ("close 1015", close(1015)),
        ("close 1016", close(1016)),
        ("close 2999", close(2999)),
        ("close 5000", close(5000)),
        ("close 65535", close(65535)),
    ] {
        let mut client = welcomed(&server);
        client.stream.write_all(&bytes).unwrap();
        assert_eq!(client.close_code(), 1002, "{what}");
    }
    server.wait_clients(0, 0);
}

#[test]
fn text_that_is_not_utf8_ends_with_1007() {
    let server = Server::start(&[]);
    let close = [&1000_u16.to_be_bytes()[..], b"\xff"].concat();
    for (what, bytes) in [
        ("a byte that is never", masked(0x81, b"ok \xff")),
        ("too long a form", masked(0x81, b"\xc0\xaf")),
        ("a surrogate", masked(0x81, b"\xed\xa0\x80")),
        ("above U+10FFFF", masked(0x81, b"\xf4\x90\x80\x80")),
        ("cut off at the end", masked(0x81, b"\xf0\x9f\xa6")),
        ("in a later fragment", [masked(0x01, b"ok"), masked(0x80, b"\xc3(")].concat()),
        ("in the reason of a close frame", masked(0x88, &close)),
    ] {
        for mut client in [welcomed(&server), Raw::connect(&server, "/echo")] {
            client.stream.write_all(&bytes).unwrap();
            assert_eq!(client.close_code(), 1007, "{what}");
        }
    }
    server.wait_clients(0, 0);
}

#[test]
fn text_that_cannot_become_utf8_is_refused_before_all_of_it_has_come() {
    let server = Server::start(&[]);
    let long = [b'x'; 30_000];
    // Autobahn's cases 6.4.1 to 6.4.4 among them: U+110000 in its fifth of twelve bytes.
    for (what, start) in [
        ("at once", &b"\xff"[..]),
        ("above U+10FFFF", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90"),
        ("a surrogate", b"\xed\xa0"),
        ("behind more than is read at once", &[&long[..], b"\xc3\xc3"].concat()),
    ] {
        // In a frame that goes on, in one whose end is all that is missing, in a later fragment.
        for (before, first, claimed) in [
            (&[][..], 0x81, start.len() + 100),
            (&[], 0x81, start.len() + 1),
            (&[], 0x81, 1 << 20),
            (&[], 0x01, start.len()),
            (&masked(0x01, "grüße ".as_bytes()), 0x80, 100_000),
            (&masked(0x01, b"half a character \xe2"), 0x80, 100_000),
        ] {
            let mut client = Raw::connect(&server, "/echo");
            let mut frame = masked(first, &[start, &vec![b' '; claimed - start.len()]].concat());
            frame.truncate(frame.len() - (claimed - start.len()));
            client.stream.write_all(before).unwrap();
            client.stream.write_all(&frame).unwrap();
            assert_eq!(client.close_code(), 1007, "{what} {claimed}");
        }
    }
    // Byte by byte, and not before it is certain.
    let mut client = Raw::connect(&server, "/echo");
    let bytes = masked(0x81, b"\xce\xba\xf4\x90\x80\x80ed");
    let (good, bad) = bytes.split_at(6 + 3);
    for byte in good {
        client.stream.write_all(&[*byte]).unwrap();
    }
    // A ping cannot be answered in the middle of a frame: that nothing comes is all there is to see.
    client.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(client.stream.peek(&mut [0]).is_err());
    client.stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    client.stream.write_all(&bad[..1]).unwrap();
    assert_eq!(client.close_code(), 1007);
    server.wait_clients(0, 0);
}

#[test]
fn a_message_may_come_in_any_pieces() {
    let server = Server::start(&[]);
    let original = "grüße 🦀 日本語 ".repeat(3_000);
    for step in [1, 7, 1_000, 4_096, 5_001] {
        let mut client = Raw::connect(&server, "/echo");
        client.stream.set_nodelay(true).unwrap();
        // What comes byte by byte is shorter, or it would take seconds.
        let original = &original.as_bytes()[..if step == 1 { 190 } else { original.len() }];
        let (one, two) = original.split_at(original.len() / 2 + 1);
        let bytes =
            [masked(0x81, original), masked(0x01, one), masked(0x89, b"?"), masked(0x80, two)];
        for piece in bytes.concat().chunks(step) {
            client.stream.write_all(piece).unwrap();
        }
        assert_eq!(client.frame(), Some(text(original)), "{step}");
        assert_eq!(client.frame().unwrap().payload, b"?");
        assert_eq!(client.frame(), Some(text(original)), "{step}");
    }
    // A length may be written in more bytes than it needs, but for the first bit of 64.
    let mut client = Raw::connect(&server, "/echo");
    client.stream.write_all(&[0x81, 0x80 | 126, 0, 1, 0, 0, 0, 0, b'a']).unwrap();
    client.stream.write_all(&[0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, b'b']).unwrap();
    assert_eq!((client.frame(), client.frame()), (Some(text("a")), Some(text("b"))));
}

#[test]
fn too_long_a_message_ends_with_1009() {
    let server = Server::start(&["--max-message", "1000"]);
    let mut client = Raw::connect(&server, "/echo");
    client.send(0x81, &[b'x'; 1000]);
    assert_eq!(client.frame(), Some(text([b'x'; 1000])));
    client.send(0x01, &[b'x'; 600]);
    client.send(0x80, &[b'x'; 400]);
    assert_eq!(client.frame(), Some(text([b'x'; 1000])));
    drop(client);
    // Only announced: the server need not wait for it.
    let announced = [0x82, 0x80 | 127, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    for bytes in [
        masked(0x81, &[b'x'; 1001]),
        masked(0x82, &[b'x'; 500_000]),
        [masked(0x01, &[b'x'; 600]), masked(0x80, &[b'x'; 401])].concat(),
        [masked(0x02, &[0; 600]), masked(0x00, &[0; 400]), masked(0x00, &[0; 1])].concat(),
        announced.to_vec(),
    ] {
        let mut client = Raw::connect(&server, "/echo");
        client.stream.write_all(&bytes).unwrap();
        assert_eq!(client.close_code(), 1009);
    }
    server.wait_clients(0, 0);
}

/// On a slow line, or with a client that reads only when it has sent all, it takes seconds until the
/// close frame is read. A connection that is closed before would be reset, and the code be lost.
#[test]
fn who_is_still_sending_gets_the_close_code() {
    let server = Server::start(&["--max-message", "100000"]);
    let piece = 4_000;
    // Each piece ends with what could be a close frame, if it were none of the message.
    let payload = [&vec![b'x'; piece - 6][..], b"\x88\x80mask"].concat().repeat(70);
    let not_utf8 = [b"\xff", &payload[1..90_000]].concat();
    let halves = payload.split_at(payload.len() / 2);
    std::thread::scope(|scope| {
        for (what, bytes, code) in [
            ("too long at once", masked(0x82, &payload), 1009),
            ("in fragments", [masked(0x02, halves.0), masked(0x80, halves.1)].concat(), 1009),
            ("not UTF-8", masked(0x81, &not_utf8), 1007),
        ] {
            let server = &server;
            scope.spawn(move || {
                // With a topic, somebody else sees to it that it does not stay too long.
                let mut client = Raw::connect(server, "/ws?topic=t");
                assert_eq!(client.frame().unwrap().opcode, 1);
                for piece in bytes.chunks(piece) {
                    let sent = client.stream.write_all(piece);
                    sent.unwrap_or_else(|error| panic!("{what}: {error}"));
                    std::thread::sleep(Duration::from_millis(100));
                }
                assert_eq!(client.close_code(), code, "{what}");
            });
        }
    });
    server.wait_clients(0, 0);
}

#[test]
fn who_is_still_sending_does_not_hold_up_a_shutdown() {
    let mut server = Server::start(&["--max-message", "1000", "--drain", "200ms"]);
    let mut client = Raw::connect(&server, "/echo");
    let bytes = masked(0x82, &[0; 1 << 20]);
    let (first, rest) = bytes.split_at(2_000);
    client.stream.write_all(first).unwrap();
    assert_eq!(client.frame().unwrap().opcode, 8);
    std::thread::scope(|scope| {
        // It goes on for as long as it can.
        scope.spawn(|| {
            for piece in rest.chunks(100) {
                if client.stream.write_all(piece).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        server.signal("TERM");
        assert_eq!(server.wait_exit().code(), Some(0));
    });
}

#[test]
fn events_come_to_those_who_ask_for_a_topic() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout]);
        let mut one = open(&server, "/ws?topic=a");
        let mut two = open(&server, "/?topic=a&topic=k%C3%A4se");
        let mut all = open(&server, "/ws?topic=*");
        let mut none = open(&server, "/ws");
        let publish = |target: &str, data: &str, subscribers: u64| {
            let receipt = server.publish(target, data).json();
            assert_eq!(receipt["subscribers"], subscribers, "{target}");
            receipt["id"].clone()
        };
        let data = "say \"hi\" \\ 🦀\r\nand\rbye\n";
        let event = |id, topic: &str, event: &str, data: &str| json!({"type": "event", "id": id, "topic": topic, "event": event, "data": data});
        let id = publish("/publish?topic=k%C3%A4se", "", 2);
        let cheese = event(id, "käse", "message", "");
        let id = publish("/publish?topic=a&event=greeting", data, 3);
        let greeting = event(id, "a", "greeting", "say \"hi\" \\ 🦀\nand\nbye\n");
        for socket in [&mut two, &mut all] {
            assert_eq!(json(socket), cheese, "{fanout}");
        }
        for socket in [&mut one, &mut two, &mut all] {
            assert_eq!(json(socket), greeting, "{fanout}");
            socket.send(Message::text("still answered")).unwrap();
            assert_eq!(json(socket)["original"], "still answered");
        }
        none.send(Message::text("first")).unwrap();
        assert_eq!(json(&mut none)["original"], "first");
    }
}
