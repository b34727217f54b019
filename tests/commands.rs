//! The subprotocol `threadcast.v1`. Every message, both ways, is checked against
//! threadcast.v1.schema.json.

mod common;

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::schema::Schema;
use common::sse::Sse;
use common::ws::{Raw, check_welcome, masked};
use common::{Answer, FANOUTS, Server};
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

const PROTOCOL: &str = "threadcast.v1";

/// A client that gives commands, past the welcome.
struct Client {
    socket: WebSocket<TcpStream>,
    schema: Schema,
    next: u64,
}

impl Client {
    fn open(server: &Server, target: &str) -> Client {
        Client::open_on(server.connect(), server, target, None)
    }

    fn open_on(
        stream: TcpStream,
        server: &Server,
        target: &str,
        authorization: Option<&str>,
    ) -> Client {
        let url = format!("ws://{}{target}", server.address);
        let mut request = url.into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", PROTOCOL.parse().unwrap());
        if let Some(value) = authorization {
            headers.insert("Authorization", value.parse().unwrap());
        }
        // Fails where the server does not answer with the one protocol that is offered.
        let socket = tungstenite::client(request, stream).expect("a WebSocket").0;
        let schema = Schema::parse(include_str!("threadcast.v1.schema.json"));
        let mut client = Client { socket, schema, next: 0 };
        check_welcome(&client.read());
        client
    }

    fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// Sends what is a command by the schema.
    fn send(&mut self, command: &Value) {
        self.schema.check("command", command).unwrap();
        self.send_text(&command.to_string());
    }

    /// The next message, which must be one by the schema.
    fn read(&mut self) -> Value {
        let message = common::ws::json(&mut self.socket);
        self.schema.check("message", &message).unwrap();
        message
    }

    /// Sends a command with a reference of its own; returns the answer, which must be next.
    fn ask(&mut self, mut command: Value) -> Value {
        self.next += 1;
        command["ref"] = self.next.into();
        self.send(&command);
        let mut answer = self.read();
        assert_eq!(answer["ref"], self.next, "{answer} to {command}");
        answer.as_object_mut().unwrap().remove("ref");
        answer
    }

    /// The same for a command whose answer and event may come in any order.
    fn ask_with_event(&mut self, command: Value) -> Value {
        self.send(&command);
        let both = [self.read(), self.read()];
        assert!(both.iter().any(|message| message["type"] == "event"), "{both:?}");
        both.into_iter().find(|message| message["type"] == "ack").expect("an ack")
    }

    fn topics(&mut self, command: Value) -> Value {
        let mut answer = self.ask(command);
        assert_eq!(answer["type"], "ack", "{answer}");
        answer["topics"].take()
    }

    /// The code of the error that must come next, without a reference.
    fn error_code(&mut self) -> String {
        let answer = self.read();
        assert_eq!((&answer["type"], answer.get("ref")), (&json!("error"), None), "{answer}");
        answer["error"]["code"].as_str().unwrap().to_owned()
    }

    /// The topic and data of the event that must come next.
    fn event(&mut self) -> (String, String) {
        let event = self.read();
        assert_eq!(event["type"], "event", "{event}");
        (event["topic"].as_str().unwrap().into(), event["data"].as_str().unwrap().into())
    }

    /// Checks that no event has come: the answer to a ping must be next.
    fn expect_nothing(&mut self) {
        assert_eq!(self.ask(json!({"type": "ping"})), json!({"type": "ack"}));
    }
}

fn event(topic: &str, data: &str) -> (String, String) {
    (topic.to_owned(), data.to_owned())
}

#[test]
fn a_publish_that_is_repeated_with_its_key_publishes_nothing() {
    let server = Server::start(&[]);
    let mut client = Client::open(&server, "/ws?topic=a");
    let publish = json!({"type": "publish", "topic": "a", "data": "once", "key": "k"});
    let receipt = client.ask_with_event(publish.clone());
    assert_eq!(client.ask(publish)["id"], receipt["id"]);
    client.expect_nothing();
    for bad in [json!(""), json!("k".repeat(129)), json!("a\nb"), json!(7)] {
        client.send_text(&json!({"type": "publish", "data": "x", "key": bad}).to_string());
        assert_eq!(client.error_code(), "bad_event", "{bad}");
    }
}

#[test]
fn the_protocol_is_chosen_in_the_handshake() {
    let server = Server::start(&[]);
    let chosen = |target, lines: &str| {
        let client = Raw::connect_with(&server, target, lines, b"");
        client.answer.header("Sec-WebSocket-Protocol").map(str::to_owned)
    };
    for line in [
        "Sec-WebSocket-Protocol: threadcast.v1\r\n",
        "sec-websocket-protocol: chat,threadcast.v1 , other\r\n",
        "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: threadcast.v1\r\n",
    ] {
        for target in ["/ws", "/", "/ws?topic=a"] {
            assert_eq!(chosen(target, line).as_deref(), Some(PROTOCOL), "{line}");
        }
        assert_eq!(chosen("/echo", line), None);
    }
    // RFC 6455 section 4.2.2: no field where no offered protocol is spoken. Then all is as ever.
    for line in
        ["", "Sec-WebSocket-Protocol: chat\r\n", "Sec-WebSocket-Protocol: Threadcast.V1\r\n"]
    {
        let mut client = Raw::connect_with(&server, "/ws", line, &masked(0x81, b"ping"));
        assert_eq!(client.answer.header("Sec-WebSocket-Protocol"), None);
        client.frame().expect("the welcome");
        let answer = String::from_utf8(client.frame().unwrap().payload).unwrap();
        assert!(answer.contains(r#""type":"response""#), "{answer}");
    }
}

#[test]
fn commands_change_the_topics_and_publish() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout]);
        let mut client = Client::open(&server, "/ws");
        let publish = |topic: &str, data: &str| {
            server.publish_id(&format!("/publish?topic={topic}"), data);
        };
        publish("a", "nobody is subscribed");
        assert_eq!(
            client.topics(json!({"type": "subscribe", "topics": ["b", "a", "b"]})),
            json!(["a", "b"])
        );
        publish("a", "1");
        publish("c", "not this one");
        publish("b", "2");
        assert_eq!((client.event(), client.event()), (event("a", "1"), event("b", "2")));

        // What is subscribed twice, or by its name and as all, comes once.
        assert_eq!(
            client.topics(json!({"type": "subscribe", "topics": ["*", "a"]})),
            json!(["*", "a", "b"])
        );
        publish("a", "3");
        publish("c", "4");
        assert_eq!((client.event(), client.event()), (event("a", "3"), event("c", "4")));
        assert_eq!(
            client.topics(json!({"type": "unsubscribe", "topics": ["*", "x"]})),
            json!(["a", "b"])
        );
        publish("c", "not any more");
        publish("b", "5");
        assert_eq!(client.event(), event("b", "5"));
        assert_eq!(client.topics(json!({"type": "unsubscribe", "topics": ["a", "b"]})), json!([]));
        publish("a", "nor this");
        client.expect_nothing();

        // Publishing, in every form, to another client and to itself.
        let mut other = Client::open(&server, "/?topic=a&topic=default");
        let (text, any) = (json!("x\r\ny"), json!({"n": [1, 0.1, null]}));
        let ack = client.ask(json!({"type": "publish", "topic": "a", "event": "e", "data": text}));
        assert_eq!(ack["subscribers"], 1);
        let expected = json!({
            "type": "event", "id": ack["id"], "topic": "a", "event": "e", "data": "x\ny"
        });
        assert_eq!(other.read(), expected);
        let ack = client.ask(json!({"type": "publish", "topic": null, "event": null, "data": any}));
        let expected = json!({
            "type": "event", "id": ack["id"], "topic": "default", "event": "message",
            "data": any.to_string(),
        });
        assert_eq!(other.read(), expected);
        assert_eq!(
            client.ask(json!({"type": "publish", "topic": "b", "data": ""}))["subscribers"],
            0
        );
        other.send(&json!({"type": "publish", "data": "mine"}));
        let both = [other.read(), other.read()];
        assert_eq!(both.iter().filter(|one| one["type"] == "ack").count(), 1, "{both:?}");
        assert_eq!(both.iter().filter(|one| one["data"] == "mine").count(), 1, "{both:?}");
        // What is nobody's any more is not counted.
        drop((client, other));
        server.wait_clients(0, 0);
        assert_eq!(server.publish("/publish?topic=a", "x").json()["subscribers"], 0);
    }
}

/// JSON that a parser would write back differently: `data` is published as these very bytes.
#[test]
fn data_that_is_no_string_is_published_as_its_bytes() {
    let server = Server::start(&[]);
    let mut client = Client::open(&server, "/ws");
    let mut sse = Sse::open(&server, "/events");
    for (data, published) in [
        ("1.0", "1.0"),
        ("1e400", "1e400"),
        ("12345678901234567890123", "12345678901234567890123"),
        (r#"{"b":1,"a":2,"a":3}"#, r#"{"b":1,"a":2,"a":3}"#),
        ("[1,\r\n 2]", "[1,\n 2]"),
        (r#"["\ud800"]"#, r#"["\ud800"]"#),
    ] {
        client.send_text(&format!(r#"{{"type":"publish","data": {data} }}"#));
        let answer = client.read();
        assert_eq!(answer["type"], "ack", "{answer} to {data}");
        assert_eq!(sse.event().unwrap().data.as_deref(), Some(published));
    }
}

/// Programs differ in which of two members of one name counts.
#[test]
fn a_member_that_is_there_twice_is_refused() {
    let server = Server::start(&[]);
    let mut client = Client::open(&server, "/ws?topic=*");
    for text in [
        r#"{"type":"publish","ref":7,"data":1,"data":2}"#,
        r#"{"ref":7,"type":"ping","type":"publish","data":1}"#,
        r#"{"ref":7,"type":"ping","\u0074ype":"ping"}"#,
    ] {
        client.send_text(text);
        let answer = client.read();
        assert_eq!((&answer["ref"], &answer["error"]["code"]), (&json!(7), &json!("bad_command")));
    }
    client.send_text(r#"{"type":"ping","ref":7,"ref":8}"#);
    assert_eq!(client.error_code(), "bad_command");
    client.expect_nothing();
}

#[test]
fn references_come_back_as_they_were() {
    let server = Server::start(&[]);
    let mut client = Client::open(&server, "/ws");
    for reference in
        ["\"\"", "\"grüße\"", "0", "-1.5", "0.1", "1700000000000.125", "9007199254740993"]
    {
        let value: Value = serde_json::from_str(reference).unwrap();
        client.send_text(&format!(r#"{{"type":"ping","ref":{reference}}}"#));
        assert_eq!(client.read(), json!({"type": "ack", "ref": value}));
        client.send_text(&format!(r#"{{"type":"pong","ref":{reference}}}"#));
        let answer = client.read();
        assert_eq!((&answer["ref"], &answer["error"]["code"]), (&value, &json!("unknown_command")));
    }
    client.send(&json!({"type": "ping"}));
    client.send(&json!({"type": "ping", "ref": null}));
    assert_eq!((client.read(), client.read()), (json!({"type": "ack"}), json!({"type": "ack"})));
}

#[test]
fn what_was_missed_comes_between_the_ack_and_what_is_new() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout, "--history", "6"]);
        let mut client = Client::open(&server, "/ws?topic=live");
        let publish =
            |topic: &str, data: &str| server.publish_id(&format!("/publish?topic={topic}"), data);
        let first = publish("a", "1");
        for (topic, data) in [("a", "2"), ("live", "3"), ("b", "4")] {
            publish(topic, data);
        }
        assert_eq!(client.event(), event("live", "3"));
        // Only what is new to it: `live` has missed nothing.
        let subscribe = |topics: &[&str], last: &str| json!({"type": "subscribe", "topics": topics, "last_event_id": last});
        assert_eq!(client.topics(subscribe(&["a", "live"], &first)), json!(["a", "live"]));
        assert_eq!(client.event(), event("a", "2"));
        client.topics(subscribe(&["a", "live"], &first));
        client.expect_nothing();
        client.topics(subscribe(&["*"], &first));
        assert_eq!(client.event(), event("b", "4"));
        publish("a", "5");
        assert_eq!(client.event(), event("a", "5"));
        // Who left a topic may have it again.
        client.topics(json!({"type": "unsubscribe", "topics": ["*", "a", "live"]}));
        client.topics(subscribe(&["a"], &first));
        assert_eq!((client.event(), client.event()), (event("a", "2"), event("a", "5")));

        // Whoever has seen nothing but an ack comes back with its id.
        client.topics(json!({"type": "unsubscribe", "topics": ["a"]}));
        let subscribed = client.ask(json!({"type": "subscribe", "topics": ["e"]}));
        let acked = subscribed["lastEventId"].as_str().expect("an id").to_owned();
        client.topics(json!({"type": "unsubscribe", "topics": ["e"]}));
        publish("e", "missed");
        let back = client.ask(subscribe(&["e"], &acked));
        assert_eq!(back["lastEventId"], acked, "until it has read what it missed");
        assert_eq!(client.event(), event("e", "missed"));
        let nothing_new = client.ask(subscribe(&["e"], &acked));
        assert_eq!(nothing_new.get("lastEventId"), None);
        client.topics(json!({"type": "unsubscribe", "topics": ["e"]}));
        client.topics(subscribe(&["a"], &acked));

        // A gap is told before anything else, and not where nothing can be missing.
        client.topics(json!({"type": "unsubscribe", "topics": ["a"]}));
        let mut last = String::new();
        for number in 6..12 {
            last = publish("a", &number.to_string());
        }
        client.topics(subscribe(&["a"], &first));
        let gap = client.read();
        assert_eq!((&gap["event"], &gap["topic"]), (&json!("gap"), &json!("")));
        let told: Value = serde_json::from_str(gap["data"].as_str().unwrap()).unwrap();
        assert_eq!(told["resumed"], gap["id"]);
        for number in 6..12 {
            assert_eq!(client.event(), event("a", &number.to_string()));
        }
        client.topics(subscribe(&["a"], "stranger"));
        client.expect_nothing();
        client.topics(subscribe(&["c"], "stranger"));
        let gap = client.read();
        assert_eq!((&gap["event"], &gap["id"]), (&json!("gap"), &json!(last)));
        client.expect_nothing();
    }
}

/// Topics are left and joined again while events flow: between the ack of `subscribe` and the ack of
/// `unsubscribe` every event is the one after the last, and elsewhere there is none.
#[test]
fn patterns_and_what_is_kept_are_asked_for_by_name() {
    let server = Server::start(&[]);
    let mut client = Client::open(&server, "/ws?topic=a/1");
    let publish =
        |topic: &str, data: &str| server.publish_id(&format!("/publish?topic={topic}"), data);
    for (topic, data) in [("a/1", "1"), ("a/2", "2"), ("a/2", "3"), ("b", "4"), ("b", "5")] {
        publish(topic, data);
    }
    assert_eq!(client.event(), event("a/1", "1"));
    let subscribe = |topics: &[&str], last: &str| json!({"type": "subscribe", "topics": topics, "last_event_id": last});
    // What it has already does not come again, though a new name stands for it.
    let ack = client.ask(subscribe(&["a/*"], "earliest"));
    assert_eq!((&ack["topics"], ack.get("lastEventId")), (&json!(["a/*", "a/1"]), None));
    assert_eq!((client.event(), client.event()), (event("a/2", "2"), event("a/2", "3")));
    client.topics(subscribe(&["b"], "latest"));
    assert_eq!(client.event(), event("b", "5"));
    publish("a/1", "once");
    assert_eq!(client.event(), event("a/1", "once"));
    // Its name is still there when the pattern goes.
    assert_eq!(
        client.topics(json!({"type": "unsubscribe", "topics": ["a/*"]})),
        json!(["a/1", "b"])
    );
    publish("a/2", "not any more");
    publish("a/1", "6");
    assert_eq!(client.event(), event("a/1", "6"));
    client.send(&json!({"type": "publish", "topic": "a/*", "data": 1}));
    assert_eq!(client.error_code(), "bad_event");
    client.expect_nothing();
}

#[test]
fn no_gap_and_no_duplicate_while_events_flow() {
    for fanout in FANOUTS {
        let flags = ["--fanout", fanout, "--history", "100000"];
        let server = Server::start(&flags);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let publisher = scope.spawn(|| {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let mut lines = String::new();
                    for _ in 0..20 {
                        for topic in ["a", "b"] {
                            lines += &format!("{{\"topic\":\"{topic}\",\"data\":\"{number}\"}}\n");
                        }
                        number += 1;
                    }
                    server.publish_lines(&lines);
                    // Slow enough for clients that look at each event, on a busy machine.
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            let clients: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| come_and_go(Client::open(&server, "/ws?topic=b"))))
                .collect();
            let results: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
            stop.store(true, Ordering::Relaxed);
            publisher.join().unwrap();
            for result in results {
                result.expect("a client that lost nothing");
            }
        });
    }
}

fn come_and_go(mut client: Client) {
    let mut last_a: Option<(u64, String)> = None;
    let mut last_b: Option<u64> = None;
    for round in 0..60 {
        let mut subscribe = json!({"type": "subscribe", "topics": ["a", "b"], "ref": "in"});
        if let Some((_, id)) = &last_a {
            subscribe["last_event_id"] = id.clone().into();
        }
        client.send(&subscribe);
        let mut subscribed = false;
        let mut seen = 0;
        loop {
            let message = client.read();
            match message["type"].as_str().unwrap() {
                "ack" if message["ref"] == "in" => subscribed = true,
                "ack" => break,
                _ => {}
            }
            if message["type"] != "event" {
                continue;
            }
            let number: u64 = message["data"].as_str().unwrap().parse().expect("no gap");
            if message["topic"] == "b" {
                assert!(last_b.is_none_or(|last| number == last + 1), "{last_b:?}, {number}");
                last_b = Some(number);
                continue;
            }
            assert!(subscribed, "{message} before the ack");
            let last = last_a.as_ref().map(|(last, _)| *last);
            assert!(last.is_none_or(|last| number == last + 1), "{last:?}, {number}");
            last_a = Some((number, message["id"].as_str().unwrap().to_owned()));
            seen += 1;
            if seen == 1 + round % 30 {
                client.send(&json!({"type": "unsubscribe", "topics": ["a"], "ref": "out"}));
            }
        }
        // `b` goes on; nothing on `a` comes any more.
        for _ in 0..5 {
            let message = client.read();
            assert_eq!(message["topic"], "b", "{message}");
            last_b = Some(message["data"].as_str().unwrap().parse().unwrap());
        }
    }
}

#[test]
fn what_is_no_command_gets_an_error_and_nothing_else() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout]);
        let mut client = Client::open(&server, "/ws");
        let deep = "[".repeat(100_000);
        let long = format!(r#"{{"type":"ping","{}":1}}"#, "x".repeat(500_000));
        for (text, code) in [
            ("", "bad_json"),
            ("hello", "bad_json"),
            (r#"{"type":"ping"} {"type":"ping"}"#, "bad_json"),
            (&deep, "bad_json"),
            ("[]", "bad_command"),
            ("null", "bad_command"),
            ("{}", "bad_command"),
            (r#"{"type":"ping","ref":{}}"#, "bad_command"),
            (&long, "bad_command"),
            (r#"{"type":"shutdown"}"#, "unknown_command"),
            (r#"{"type":"subscribe","topics":["a\n"]}"#, "bad_topic"),
            (r#"{"type":"publish","topic":"*","data":""}"#, "bad_event"),
        ] {
            client.send_text(text);
            assert_eq!(client.error_code(), code, "{:?}", text.get(..60));
            assert!(client.schema.check("command", &json!(text)).is_err());
        }
        for binary in [vec![], br#"{"type":"ping"}"#.to_vec(), vec![0xff; 100_000]] {
            client.socket.send(Message::binary(binary)).unwrap();
            assert_eq!(client.error_code(), "binary");
        }
        client.expect_nothing();
        // What breaks the WebSocket protocol itself does end the connection.
        client.send_text(&"x".repeat((1 << 20) + 1));
        match client.socket.read() {
            Ok(Message::Close(Some(close))) => assert_eq!(close.code, CloseCode::Size),
            other => panic!("{other:?} instead of 1009"),
        }
    }
}

#[test]
fn a_client_has_so_many_topics() {
    let server = Server::start(&[]);
    let mut client = Client::open(&server, "/ws");
    let names = |range: std::ops::Range<u32>| range.map(|n| n.to_string()).collect::<Vec<_>>();
    let subscribe = |topics: Vec<String>| json!({"type": "subscribe", "topics": topics});
    client.topics(subscribe(names(0..999)));
    let refused = client.ask(subscribe(names(998..1001)));
    assert_eq!(refused["error"]["code"], "too_many_topics");
    let topics = client.topics(subscribe(names(990..1000)));
    assert_eq!(topics.as_array().unwrap().len(), 1000);
    server.publish_id("/publish?topic=1000", "refused");
    server.publish_id("/publish?topic=999", "x");
    assert_eq!(client.event(), event("999", "x"));
    client.topics(json!({"type": "unsubscribe", "topics": ["0"]}));
    client.topics(subscribe(names(1000..1001)));
}

#[test]
fn publishing_takes_what_post_publish_takes() {
    let publish = json!({"type": "publish", "data": "x"});
    let authorize = |token: &str| json!({"type": "authorize", "token": token});
    let code = |answer: Value| answer["error"]["code"].as_str().unwrap_or("ack").to_owned();
    let server = Server::start(&["--token", "s3cret"]);
    let mut client = Client::open(&server, "/ws");
    assert_eq!(code(client.ask(publish.clone())), "unauthorized");
    for wrong in ["", "s3cre", "s3crets", "Bearer s3cret"] {
        assert_eq!(code(client.ask(authorize(wrong))), "unauthorized");
        assert_eq!(code(client.ask(publish.clone())), "unauthorized");
    }
    // Reading is another right.
    client.topics(json!({"type": "subscribe", "topics": ["b"]}));
    assert_eq!(code(client.ask(authorize("s3cret"))), "ack");
    assert_eq!(code(client.ask(publish.clone())), "ack");
    assert_eq!(code(client.ask(authorize("wrong"))), "ack", "nothing is taken away");
    assert_eq!(code(client.ask(publish.clone())), "ack");
    for (header, expected) in [
        ("Bearer s3cret", "ack"),
        ("Bearer wrong", "unauthorized"),
        ("Basic s3cret", "unauthorized"),
    ] {
        let mut client = Client::open_on(server.connect(), &server, "/ws", Some(header));
        assert_eq!(code(client.ask(publish.clone())), expected, "{header}");
    }
    assert!(!server.log().contains("s3cret"), "{}", server.log());

    // Without a token: on loopback everybody, elsewhere nobody.
    let server = Server::start(&[]);
    let mut client = Client::open(&server, "/ws");
    assert_eq!(code(client.ask(authorize("any"))), "ack");
    let server = Server::start(&["--listen", "0.0.0.0:0"]);
    let mut client = Client::open(&server, "/ws");
    assert_eq!(code(client.ask(publish.clone())), "forbidden");
    assert_eq!(code(client.ask(authorize("any"))), "forbidden");

    // A page of another origin does not get as far.
    let server = Server::start(&[]);
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\n{}Sec-WebSocket-Protocol: {PROTOCOL}\r\n\
         Origin: https://evil.example\r\n\r\n",
        server.address,
        common::ws::upgrade_lines()
    );
    let answer = Answer::parse(&server.exchange(head.as_bytes()));
    assert_eq!((answer.status, &*answer.error_code()), (403, "forbidden_origin"));
}

/// Behind by more than its queue, a client goes, and nobody waits for it. One that sends commands
/// without reading the answers is not read from either: TCP stops it.
#[test]
fn a_client_that_does_not_read_is_bounded() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout, "--queue", "20", "--log", "info"]);
        let mut slow = Client::open_on(server.connect_narrow(), &server, "/ws", None);
        let mut good = Client::open(&server, "/ws");
        for client in [&mut slow, &mut good] {
            client.topics(json!({"type": "subscribe", "topics": ["a"]}));
        }
        let data = "x".repeat(100_000);
        for _ in 0..40 {
            server.publish_id("/publish?topic=a", &data);
            assert_eq!(good.event().1.len(), data.len());
        }
        server.wait_stats("the slow one to be given up", |stats| {
            stats["clients"]["websocket"] == 1
                || stats["clients"]["listed"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|one| one["state"] == "closing")
        });
        loop {
            match slow.socket.read() {
                Ok(Message::Close(Some(close))) => break assert_eq!(close.code, CloseCode::Again),
                Ok(_) => {}
                Err(error) => panic!("{error} instead of 1013"),
            }
        }
        let mut deaf = Client::open_on(server.connect_narrow(), &server, "/ws", None);
        deaf.socket.get_ref().set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let ping = Message::text(json!({"type": "ping", "ref": "x".repeat(250)}).to_string());
        let sent = (0..1_000_000).take_while(|_| deaf.socket.send(ping.clone()).is_ok()).count();
        assert!(sent < 1_000_000, "nobody stopped it");
        let waiting = server.stats()["backlogBytes"].as_u64().unwrap();
        assert!(waiting < 1 << 20, "{waiting} bytes wait for it");
        good.expect_nothing();
    }
}

/// Random commands, right and nearly right, all at once: as many answers, in order; and what the
/// server takes and refuses is what the schema takes and refuses.
#[test]
fn the_schema_and_the_server_agree() {
    let mut seed = 7_u64;
    let mut below = |limit: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % limit as u64) as usize
    };
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1.5),
        json!(""),
        json!("a"),
        json!("*"),
        json!("x".repeat(256)),
        json!("x".repeat(257)),
        json!([]),
        json!(["a"]),
        json!(["a", "b"]),
        json!(["*", ""]),
        json!([["a"]]),
        json!([1]),
        json!({}),
        json!({"a": 1}),
        json!("0-0"),
    ];
    let kinds = ["subscribe", "unsubscribe", "publish", "authorize", "ping", "", "event"];
    let members = ["topics", "topic", "event", "data", "token", "last_event_id", "extra"];
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout]);
        let mut client = Client::open(&server, "/ws");
        let mut taken = 0;
        for _ in 0..30 {
            let commands: Vec<Value> = (0..100)
                .map(|number| {
                    let mut command = json!({"type": kinds[below(kinds.len())], "ref": number});
                    for _ in 0..below(3) {
                        let value = values[below(values.len())].clone();
                        command[members[below(members.len())]] = value;
                    }
                    command
                })
                .collect();
            for command in &commands {
                client.send_text(&command.to_string());
            }
            for (number, command) in commands.iter().enumerate() {
                let answer = loop {
                    let message = client.read();
                    if message["type"] != "event" {
                        break message;
                    }
                };
                assert_eq!(answer["ref"], number, "{answer} to {command}");
                // The schema does not say that * cannot be published on.
                let star = command["type"] == "publish" && command["topic"] == "*";
                let good = client.schema.check("command", command).is_ok() && !star;
                assert_eq!(answer["type"] == "ack", good, "{answer} to {command}");
                taken += usize::from(good);
            }
        }
        assert!(taken > 100, "{taken} were commands");
        client.expect_nothing();
    }
}
