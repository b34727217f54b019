//! The library as an embedding program uses it: own routes, handlers in their clients' threads, events inside
//! the process, the end. The server is in this process; its clients come over real sockets.

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use common::http::{Http, get};
use common::sse::Sse;
use common::ws::{Raw, connect, json, text, upgrade};
use common::{PATIENCE, Remote, wait_for};
use threadcast::client::reason::Reason;
use threadcast::{
    Builder, ClientError, Draft, EventStream, Fanout, Message, PublishError, Response, Server,
    StartError,
};

const FANOUTS: [Fanout; 2] = [Fanout::Direct, Fanout::Handoff];

/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(3600);

fn start(builder: Builder) -> (Server, Remote) {
    start_with(Fanout::Direct, builder)
}

fn start_with(fanout: Fanout, builder: Builder) -> (Server, Remote) {
    let builder = builder.listen("127.0.0.1:0").configure(|config| {
        config.set_tick(Duration::ZERO)?;
        config.set_fanout(fanout)
    });
    let server = builder.start().expect("the server starts");
    let remote = Remote::of(&server);
    (server, remote)
}

/// A way for handlers to tell their test something.
fn reports<T>() -> (Mutex<Sender<T>>, Receiver<T>) {
    let (sender, receiver) = channel();
    (Mutex::new(sender), receiver)
}

fn report<T>(to: &Mutex<Sender<T>>, value: T) {
    let _ = to.lock().unwrap().send(value);
}

/// Unwinds as a panic does, without its message on standard error.
fn panic_silently() -> ! {
    std::panic::resume_unwind(Box::new("a panic"))
}

/// What this process has logged.
static LOG: Mutex<String> = Mutex::new(String::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        let line = format!("{} {}\n", record.level(), record.args());
        LOG.lock().unwrap().push_str(&line);
    }

    fn flush(&self) {}
}

fn keep_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Logger).unwrap();
        log::set_max_level(log::LevelFilter::Info);
    });
}

fn wait_log(wanted: &[&str]) {
    let is_there = || {
        let log = LOG.lock().unwrap();
        log.lines().any(|line| wanted.iter().all(|part| line.contains(part)))
    };
    wait_for(&format!("a line of the log with {wanted:?}"), is_there);
}

#[test]
fn plain_routes_get_their_requests() {
    let builder = Server::builder()
        .route("GET", "/hello", |request| {
            let name = request.parameter("name").unwrap_or_default();
            let from = request.header("X-From").unwrap_or("nobody");
            Response::text(format!("hello {name} from {from} at {}", request.peer().ip))
        })
        .route("POST", "/hello", |request| match request.body() {
            Ok(body) => Response::text(format!("{} bytes to {}", body.len(), request.path())),
            Err(response) => response,
        })
        .configure(|config| config.set_max_message(1000));
    let (_server, remote) = start(builder);

    // On one connection, which stays open.
    let mut http = Http::connect(&remote);
    let answer = http.ask(get("/hello?name=J%C3%B6rg&x=1", "x-from: me\r\n"));
    assert_eq!((answer.status, answer.text()), (200, "hello Jörg from me at 127.0.0.1"));
    let post = "POST /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert_eq!(http.ask(post).text(), "3 bytes to /hello");
    assert_eq!(http.ask(post).status, 200);

    let long = remote.request("POST", "/hello", "", &[b'x'; 1001]);
    assert_eq!((long.status, long.error_code().as_str()), (413, "too_large"));
    let head = remote.request("HEAD", "/hello", "", b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_ne!(head.header("Content-Length"), Some("0"));
    let wrong = remote.request("PUT", "/hello", "", b"");
    assert_eq!((wrong.status, wrong.error_code().as_str()), (405, "method_not_allowed"));
    assert_eq!(wrong.header("Allow"), Some("GET, HEAD, OPTIONS, POST"));
    let options = remote.request("OPTIONS", "/hello", "", b"");
    assert_eq!((options.status, options.header("Allow")), (204, Some("GET, HEAD, OPTIONS, POST")));
    let preflight = "Origin: http://else.example\r\nAccess-Control-Request-Method: POST\r\n";
    let preflight = remote.request("OPTIONS", "/hello", preflight, b"");
    let methods = preflight.header("Access-Control-Allow-Methods");
    assert_eq!(methods, Some("GET, HEAD, OPTIONS, POST"));
    assert_eq!(remote.get("/hello/").status, 404, "paths are compared as they are sent");
}

#[test]
fn paths_of_streams_and_websockets_say_what_they_are() {
    let builder = Server::builder()
        .websocket("/chat", |_| Ok(()))
        .stream("/job", |_| Ok(()))
        .websocket("/both", |client| Ok(client.send("by websocket")?))
        .route("GET", "/both", |_| Response::text("by get"));
    let (_server, remote) = start(builder);
    assert_eq!(remote.get("/chat").status, 426);
    for (path, methods) in [("/chat", "GET, OPTIONS"), ("/job", "GET, HEAD, OPTIONS")] {
        for (method, status) in [("OPTIONS", 204), ("POST", 405)] {
            let answer = remote.request(method, path, "", b"");
            assert_eq!((answer.status, answer.header("Allow")), (status, Some(methods)), "{path}");
        }
    }
    let head = remote.request("HEAD", "/job", "", b"");
    assert_eq!(head.header("Content-Type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(remote.get("/both").text(), "by get");
    assert_eq!(Raw::connect(&remote, "/both").frame(), Some(text("by websocket")));
}

/// A stream is as public as `/events`. A plain route is for pages of allowed origins, and else its own
/// response decides.
#[test]
fn pages_of_other_origins_read_streams_and_what_allows_it() {
    let builder = Server::builder()
        .configure(|config| config.add_allow_origin("http://friend.example"))
        .route("GET", "/private", |_| Response::text("private"))
        .route("GET", "/public", |_| {
            Response::text("public").with("Access-Control-Allow-Origin", "*")
        })
        .stream("/job", |_| Ok(()));
    let (_server, remote) = start(builder);
    let allowed = |path: &str, origin: &str| {
        let answer = remote.request("GET", path, &format!("Origin: {origin}\r\n"), b"");
        answer.header("Access-Control-Allow-Origin").map(str::to_owned)
    };
    assert_eq!(allowed("/private", "http://else.example"), None);
    assert_eq!(allowed("/public", "http://else.example").as_deref(), Some("*"));
    assert_eq!(allowed("/job", "http://else.example").as_deref(), Some("*"));
    let friend = "http://friend.example";
    assert_eq!(allowed("/private", friend).as_deref(), Some(friend));
    assert_eq!(allowed("/job", friend).as_deref(), Some(friend));
}

#[test]
fn a_page_of_a_foreign_origin_cannot_post_to_an_own_route() {
    let (_server, remote) =
        start(Server::builder().route("POST", "/save", |_| Response::text("saved")));
    let post = |origin: &str| remote.request("POST", "/save", origin, b"x").status;
    assert_eq!(post("Origin: http://stranger.example\r\n"), 403);
    assert_eq!((post(""), post(&format!("Origin: http://{}\r\n", remote.address))), (200, 200));
}

#[test]
fn an_own_route_takes_the_place_of_a_built_in_one() {
    let builder = Server::builder().route("GET", "/stats", |_| Response::text("mine"));
    let (_server, remote) = start(builder);
    assert_eq!(remote.get("/stats").text(), "mine");
    assert_eq!(remote.get("/healthz").status, 200);
}

#[test]
fn what_is_built_in_can_be_under_a_prefix() {
    let builder = Server::builder().prefix("/live/").route("GET", "/", |_| Response::text("mine"));
    let (_server, remote) = start(builder);
    let mut client = Sse::open(&remote, "/live/events?topic=t");
    let mut websocket = connect(&remote, "/live/ws?topic=t");
    json(&mut websocket);
    let id = remote.publish_id("/live/publish?topic=t", "x");
    assert_eq!(client.event().unwrap().id.as_deref(), Some(&*id));
    assert_eq!(json(&mut websocket)["id"], *id);
    assert_eq!(remote.get("/live/stats").status, 200);
    assert_eq!(remote.get("/").text(), "mine");
    for path in ["/events", "/stats", "/liveevents", "/livestats", "/live2/stats"] {
        assert_eq!(remote.get(path).status, 404, "{path}");
    }
    // The page's links are relative.
    if cfg!(feature = "page") {
        let page = remote.get("/live/");
        assert!(page.status == 200 && page.text().contains("\"app.js\""));
        assert_eq!(remote.get("/live/app.js").status, 200);
        let redirect = remote.get("/live");
        assert_eq!((redirect.status, redirect.header("Location")), (301, Some("./live/")));
    }
}

#[test]
fn a_bare_server_serves_only_its_routes() {
    let builder = Server::builder().bare().route("GET", "/mine", |_| Response::text("mine"));
    let (_server, remote) = start(builder);
    assert_eq!(remote.get("/mine").text(), "mine");
    for path in ["/", "/events", "/ws", "/stats", "/healthz", "/metrics", "/app.js"] {
        assert_eq!(remote.get(path).status, 404, "{path}");
    }
    assert_eq!(upgrade(&remote, "/ws", "").status, 404);
    assert_eq!(remote.publish("/publish", "x").status, 404);
}

#[test]
fn a_check_decides_who_may_connect() {
    keep_log();
    let builder = Server::builder()
        .check(|request| match request.header("Cookie") {
            Some("name=Zoë") if request.peer().ip.is_loopback() => Ok(()),
            _ => Err(Response::error(403, "stranger", format!("no {}", request.path()))),
        })
        .websocket("/own", |client| Ok(client.send("welcome")?))
        .stream("/job", |stream| Ok(stream.send("welcome", "")?))
        .route("GET", "/plain", |_| Response::text("for friends"));
    let (_server, remote) = start(builder);
    for path in ["/own", "/ws", "/echo"] {
        let refused = upgrade(&remote, path, "Cookie: name=Joe\r\n");
        assert_eq!((refused.status, refused.error_code().as_str()), (403, "stranger"), "{path}");
        assert_eq!(upgrade(&remote, path, "Cookie: name=Zoë\r\n").status, 101, "{path}");
    }
    for path in ["/job", "/events"] {
        assert_eq!(remote.get(path).error_code(), "stranger", "{path}");
        Sse::connect(&remote, path, "Cookie: name=Zoë\r\n").event().expect("an event");
    }
    wait_log(&["INFO websocket", "refused with 403: no /own"]);
    for path in ["/plain", "/stats", "/nowhere"] {
        assert_eq!(remote.get(path).error_code(), "stranger", "{path}");
    }
    assert_eq!(remote.request("POST", "/publish", "", b"x").error_code(), "stranger");
    let friend = remote.request("GET", "/plain", "Cookie: name=Zoë\r\n", b"");
    assert_eq!(friend.text(), "for friends");
    assert_eq!(remote.get("/healthz").status, 200);
}

#[test]
fn a_handler_that_panics_affects_only_its_own_client() {
    for fanout in FANOUTS {
        let builder = Server::builder()
            .configure(|config| config.set_max_clients(3))
            .route("GET", "/panic", |_| panic_silently())
            .websocket("/panic_ws", |client| {
                client.subscribe(["t"], None)?;
                client.receive()?;
                panic_silently()
            })
            .stream("/panic_sse", |stream| {
                stream.send("step", "1")?;
                panic_silently()
            });
        let (server, remote) = start_with(fanout, builder);
        let mut sse = Sse::open(&remote, "/events?topic=t");
        let mut websocket = connect(&remote, "/ws?topic=t");
        json(&mut websocket);
        // More often than there are places.
        for round in 0..4 {
            let answer = remote.get("/panic");
            assert_eq!((answer.status, answer.error_code().as_str()), (500, "internal"));
            let mut client = Raw::connect(&remote, "/panic_ws");
            client.send(0x81, b"now");
            assert_eq!(client.frame(), None);
            wait_for("the place", || server.app().clients.counts() == (1, 1));
            let mut client = Sse::connect(&remote, "/panic_sse", "");
            assert_eq!(client.event().unwrap().data.as_deref(), Some("1"));
            assert_eq!(client.event(), None);
            assert!(!client.is_whole(), "it is cut off");
            wait_for("the place", || server.app().clients.counts() == (1, 1));
            // The others go on, and nobody else is subscribed.
            let data = format!("round {round}");
            assert_eq!(server.publish("t", &data).unwrap().subscribers, 2);
            assert_eq!(sse.event().unwrap().data.as_deref(), Some(&*data));
            assert_eq!(json(&mut websocket)["data"], *data);
        }
    }
}

#[test]
fn what_a_websocket_handler_returns_decides_the_close_code() {
    keep_log();
    let builder = Server::builder()
        .websocket("/ends", |client| Ok(client.send("bye")?))
        .websocket("/silent", |_| Ok(()))
        .websocket("/fails", |_| Err("the database of /fails is gone".into()))
        .websocket("/text", |client| {
            while let Some(message) = client.receive()? {
                client.send(message.text()?)?;
            }
            Ok(())
        });
    let (_server, remote) = start(builder);
    let mut client = Raw::connect(&remote, "/ends");
    assert_eq!(client.frame(), Some(text("bye")));
    assert_eq!(client.close_code(), 1000);
    assert_eq!(Raw::connect(&remote, "/silent").close_code(), 1000);
    let mut client = Raw::connect(&remote, "/fails");
    let peer = client.stream.local_addr().unwrap().to_string();
    assert_eq!(client.close_code(), 1011);
    wait_log(&["WARN websocket", &peer, "its handler failed: the database of /fails is gone"]);

    let mut client = Raw::connect(&remote, "/text");
    let peer = client.stream.local_addr().unwrap().to_string();
    client.send(0x81, b"hello");
    assert_eq!(client.frame(), Some(text("hello")));
    client.send(0x82, b"\x00");
    assert_eq!(client.close_code(), 1011);
    wait_log(&["WARN websocket", &peer, "the message is binary; expected text"]);
}

#[test]
fn a_handler_closes_with_a_code_of_its_own() {
    for fanout in FANOUTS {
        let builder = Server::builder().websocket("/own", |client| {
            while let Some(message) = client.receive()? {
                match message.text() {
                    Ok(text) => client.send(text)?,
                    Err(_) => client.close(1003, "text only"),
                }
            }
            unreachable!("the next `receive` tells that the connection is over")
        });
        let (_server, remote) = start_with(fanout, builder);
        let mut client = Raw::connect(&remote, "/own");
        client.send(0x81, b"text");
        assert_eq!(client.frame().expect("a frame").payload, b"text");
        client.send(0x82, b"bytes");
        let close = client.frame().expect("a frame");
        assert_eq!((close.opcode, &*close.payload), (8, &b"\x03\xebtext only"[..]));
        client.send(0x88, &close.payload);
        assert!(client.frame().is_none());
    }
}

#[test]
fn a_stream_ends_with_its_handler() {
    keep_log();
    for fanout in FANOUTS {
        let builder = Server::builder()
            .stream("/steps", |stream| {
                for step in 0..100 {
                    stream.send("step", format!("{step}\nof 100"))?;
                }
                Ok(())
            })
            .stream("/silent", |_| Ok(()))
            .stream("/fails", |stream| {
                stream.send("step", "1")?;
                stream.send("line\nbreak", "")?;
                unreachable!("such a name is an error")
            });
        let (_server, remote) = start_with(fanout, builder);
        let mut client = Sse::connect(&remote, "/steps", "");
        for step in 0..100 {
            let block = client.event().unwrap();
            assert_eq!(block.event.as_deref(), Some("step"));
            assert_eq!(block.data, Some(format!("{step}\nof 100")));
        }
        assert!(client.event().is_none() && client.is_whole());
        let mut client = Sse::connect(&remote, "/silent", "");
        assert!(client.event().is_none() && client.is_whole());
        let mut client = Sse::connect(&remote, "/fails", "");
        let peer = client.stream().local_addr().unwrap().to_string();
        assert_eq!(client.event().unwrap().data.as_deref(), Some("1"));
        assert!(client.event().is_none() && !client.is_whole(), "it has not ended by intent");
        wait_log(&["WARN sse", &peer, "its handler failed"]);
    }
}

#[test]
fn a_stream_that_follows_topics_begins_with_what_was_missed() {
    for fanout in FANOUTS {
        let builder = Server::builder().stream("/own", |stream| Ok(stream.follow(["a", "b"])?));
        let (server, remote) = start_with(fanout, builder);
        let seen = server.publish("a", "seen").unwrap().id.to_string();
        server.publish("b", "missed").unwrap();
        server.publish("c", "another topic").unwrap();
        let mut client = Sse::open_after(&remote, "/own", Some(&seen));
        assert_eq!(client.event().unwrap().data.as_deref(), Some("missed"));
        server.publish_event(Draft::new("a", Some("name"), "live").unwrap()).unwrap();
        let live = client.event().unwrap();
        assert_eq!((live.event.as_deref(), live.data.as_deref()), (Some("name"), Some("live")));
    }
}

#[test]
fn a_websocket_handler_knows_its_request() {
    let builder = Server::builder().websocket_with("/own", &["two", "one"], |client| {
        let protocol = client.protocol().unwrap_or("none");
        let name = client.parameter("name").unwrap_or_default();
        let last = client.last_event_id().unwrap_or_default();
        client.send(format!("{protocol} {name} {last}"))?;
        client.send(Message::Binary(vec![0, 255]))?;
        Ok(())
    });
    let (_server, remote) = start(builder);
    let headers = "Sec-WebSocket-Protocol: one, two\r\nLast-Event-ID: 1-2\r\n";
    let mut client = Raw::connect_with(&remote, "/own?name=a+b", headers, b"");
    assert_eq!(client.answer.header("Sec-WebSocket-Protocol"), Some("two"));
    assert_eq!(client.frame(), Some(text("two a b 1-2")));
    let binary = client.frame().unwrap();
    assert_eq!((binary.opcode, &*binary.payload), (2, &[0, 255][..]));
}

#[test]
fn a_websocket_handler_subscribes_and_publishes() {
    for fanout in FANOUTS {
        let builder = Server::builder().websocket("/chat", |client| {
            client.subscribe(["chat"], None)?.send_first("welcome");
            while let Some(message) = client.receive()? {
                let receipt = client.publish("chat", message.text()?)?;
                client.send(format!("{} heard", receipt.subscribers))?;
            }
            Ok(())
        });
        let (_server, remote) = start_with(fanout, builder);
        let mut clients = [Raw::connect(&remote, "/chat"), Raw::connect(&remote, "/chat")];
        for client in &mut clients {
            assert_eq!(client.frame(), Some(text("welcome")));
        }
        clients[0].send(0x81, b"hello");
        // To the one that speaks, the answer and the event come by two threads.
        let [speaker, listener] = &mut clients;
        let frames = [speaker.frame(), speaker.frame()];
        assert!(frames.contains(&Some(text("2 heard"))), "{frames:?}");
        assert!(frames.contains(&listener.frame()), "the same event");
    }
}

/// The server answers the ping though the handler does nothing for it, and asks for signs of life itself.
#[test]
fn pings_are_seen_to_while_a_handler_waits_for_a_message() {
    let builder = Server::builder()
        .configure(|config| config.set_ping(Duration::from_millis(100)))
        .websocket("/own", |client| {
            client.receive()?;
            Ok(())
        });
    let (_server, remote) = start(builder);
    let mut client = Raw::connect(&remote, "/own");
    client.send(0x89, b"there?");
    let (mut is_pinged, mut is_answered) = (false, false);
    while !is_pinged || !is_answered {
        let frame = client.frame().expect("a frame");
        match frame.opcode {
            9 => is_pinged = true,
            10 => is_answered = frame.payload == b"there?",
            other => panic!("a frame of opcode {other}"),
        }
        // A sign of life.
        client.send(0x8a, &frame.payload);
    }
    client.send(0x81, b"go");
    while client.frame().is_some_and(|frame| frame.opcode != 8) {}
}

/// It never reads, so it does not see the client's pongs either: that is no silence of the client's.
#[test]
fn the_client_of_a_handler_that_only_sends_stays() {
    let builder = Server::builder()
        .configure(|config| config.set_ping(Duration::from_millis(100)))
        .websocket("/own", |client| {
            for number in 0..20 {
                client.send(number.to_string())?;
                std::thread::sleep(Duration::from_millis(30));
            }
            Ok(())
        });
    let (_server, remote) = start(builder);
    let mut client = Raw::connect(&remote, "/own");
    for number in 0..20 {
        let frame = client.frame().expect("a frame");
        assert_eq!((frame.opcode, frame.payload), (1, number.to_string().into_bytes()));
    }
    assert_eq!(client.frame().expect("a frame").payload[..2], 1000_u16.to_be_bytes());
}

#[test]
fn a_handler_learns_why_its_client_is_gone() {
    for fanout in FANOUTS {
        let (sender, results) = reports();
        let sender = Arc::new(sender);
        let (to_stream, to_websocket) = (Arc::clone(&sender), sender);
        let builder = Server::builder()
            .stream("/wait", move |stream| {
                let result = stream.wait(LONG);
                // What comes after the end says the same.
                assert_eq!(stream.send("late", ""), result);
                report(&to_stream, result);
                Ok(())
            })
            .websocket("/receive", move |client| {
                let result = client.receive().map(|_| ());
                report(&to_websocket, result);
                Ok(())
            });
        let (server, remote) = start_with(fanout, builder);
        let next = || results.recv_timeout(PATIENCE).expect("the handler is woken");

        drop(Sse::connect(&remote, "/wait", ""));
        assert_eq!(next(), Err(ClientError::Closed(Reason::Closed)));
        drop(Raw::connect(&remote, "/receive"));
        assert_eq!(next(), Err(ClientError::Closed(Reason::Lost)));
        let mut client = Raw::connect(&remote, "/receive");
        client.send(0x88, &1000_u16.to_be_bytes());
        assert_eq!(next(), Ok(()));

        let mut client = Sse::connect(&remote, "/wait", "");
        assert!(server.shutdown(), "it has left in time");
        assert_eq!(next(), Err(ClientError::Closed(Reason::Shutdown)));
        assert!(client.event().is_none() && client.is_whole() && client.retry.is_some());
    }
}

/// Nothing piles up for it: its handler waits, and only that one.
#[test]
fn a_slow_client_slows_only_its_own_handler() {
    for fanout in FANOUTS {
        let (sender, results) = reports();
        let builder = Server::builder().stream("/flood", move |stream| {
            let filler = "x".repeat(10_000);
            let mut result = Ok(());
            while result.is_ok() {
                result = stream.send("filler", &filler);
            }
            report(&sender, result);
            Ok(())
        });
        let (server, remote) = start_with(fanout, builder);
        let slow = Sse::connect_narrow(&remote, "/flood");
        let mut quick = Sse::connect(&remote, "/flood", "");
        let mut other = Sse::open(&remote, "/events");
        for number in 0..50 {
            quick.event().expect("the flood");
            let data = number.to_string();
            server.publish("t", &data).unwrap();
            assert_eq!(other.event().unwrap().data, Some(data));
        }
        assert!(results.try_recv().is_err(), "both handlers go on");
        // When it hangs up, its handler ends, in the middle of a `send`.
        drop(slow);
        let ended = results.recv_timeout(PATIENCE).expect("the handler ends");
        assert!(matches!(ended, Err(ClientError::Closed(_))), "{ended:?}");
        drop(quick);
        let ended = results.recv_timeout(PATIENCE).expect("the handler ends");
        assert!(matches!(ended, Err(ClientError::Closed(_))), "{ended:?}");
    }
}

#[test]
fn events_inside_the_process_come_in_order_and_gaps_are_told() {
    let builder = Server::builder().configure(|config| config.set_history(10));
    let (server, _) = start(builder);
    server.publish("t", "before").unwrap();
    let mut some = server.subscribe(["t", "u"]);
    let mut all = server.subscribe(["*"]);
    let data = |events: &mut threadcast::Events, count| -> Vec<String> {
        let named = events.by_ref().take(count);
        named.map(|event| event.name().unwrap_or(event.data()).to_owned()).collect()
    };
    for (topic, number) in [("t", "0"), ("noise", "1"), ("u", "2"), ("t", "3")] {
        server.publish(topic, number).unwrap();
    }
    assert_eq!(data(&mut some, 3), ["0", "2", "3"]);
    assert_eq!(data(&mut all, 4), ["0", "1", "2", "3"]);

    // One that has fallen behind by more than the history gets what is left of it, and is told.
    let mut lost = None;
    for number in 100..115 {
        let id = server.publish("t", number.to_string()).unwrap().id;
        lost = lost.or((number == 104).then_some(id));
    }
    let gap = some.next().expect("the gap");
    assert_eq!((gap.name(), gap.id), (Some("gap"), lost.unwrap()));
    assert!(gap.data().contains(&gap.id.to_string()));
    let kept: Vec<String> = (105..115).map(|number| number.to_string()).collect();
    assert_eq!(data(&mut some, 10), kept);
    let expected: Vec<String> = std::iter::once("gap".to_owned()).chain(kept).collect();
    assert_eq!(data(&mut all, 11), expected);

    // A reader that waits is woken by the next event, and by the end.
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| some.map(|event| event.data().to_owned()).collect::<Vec<_>>());
        server.publish("t", "last").unwrap();
        assert!(server.shutdown());
        assert_eq!(reader.join().unwrap(), ["last"]);
    });
    assert_eq!(data(&mut all, 2), ["last"], "what was published comes before the end");
    assert!(server.subscribe(["t"]).next().is_none());
    assert_eq!(server.publish("t", "late"), Err(PublishError::Stopped));
}

#[test]
fn the_shutdown_waits_for_handlers() {
    for fanout in FANOUTS {
        let (sender, reached) = reports();
        let (release, released) = channel::<()>();
        let released = Mutex::new(released);
        // It has something to finish after its client is gone.
        let save = move |_: &mut EventStream| {
            report(&sender, ());
            released.lock().unwrap().recv_timeout(PATIENCE)?;
            report(&sender, ());
            Ok(())
        };
        let builder = Server::builder()
            .configure(|config| config.set_drain(PATIENCE))
            .stream("/save", save)
            .route("GET", "/own", |_| Response::text("here"));
        let (server, remote) = start_with(fanout, builder);
        let _client = Sse::connect_unanswered(&remote, "/save");
        reached.recv_timeout(PATIENCE).expect("the handler has begun");
        std::thread::scope(|scope| {
            let shutdown = scope.spawn(|| server.shutdown());
            let waiting = scope.spawn(|| server.wait());
            wait_for("the drain", || remote.get("/own").status == 503);
            assert!(!shutdown.is_finished() && !waiting.is_finished());
            release.send(()).unwrap();
            assert!(shutdown.join().unwrap(), "the handler has finished in time");
            waiting.join().unwrap();
        });
        assert!(reached.try_recv().is_ok(), "before the shutdown was over");
        assert!(server.shutdown(), "the second call has nothing to do");
    }
}

/// A handler that returns at once when the server shuts down must not cut its client off: that would lose the
/// close frame, or what was sent before.
#[test]
fn the_shutdown_waits_for_clients_whose_handlers_have_returned() {
    for fanout in FANOUTS {
        let builder = Server::builder()
            .configure(|config| config.set_drain(Duration::from_millis(300)))
            .websocket("/sends", |client| {
                loop {
                    client.send("again")?;
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        let (server, remote) = start_with(fanout, builder);
        let mut client = Raw::connect(&remote, "/sends");
        assert_eq!(client.frame(), Some(text("again")));
        assert!(!server.shutdown(), "the client has not answered the close frame");
        while client.frame().expect("a close frame") == text("again") {}

        let (sender, begun) = reports();
        let builder = Server::builder().stream("/flood", move |stream| {
            stream.send("first", "")?;
            report(&sender, ());
            loop {
                stream.send("filler", "x".repeat(10_000))?;
            }
        });
        let (server, remote) = start_with(fanout, builder);
        let mut client = Sse::connect_narrow(&remote, "/flood");
        begun.recv_timeout(PATIENCE).expect("the handler has begun");
        std::thread::scope(|scope| {
            let shutdown = scope.spawn(|| server.shutdown());
            wait_for("the drain", || server.app().is_draining());
            while client.event().is_some() {}
            assert!(client.is_whole() && client.retry.is_some(), "it is told that this is the end");
            assert!(shutdown.join().unwrap());
        });
    }
}

#[test]
fn the_shutdown_waits_no_longer_than_the_drain_time() {
    let (sender, reached) = reports();
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let builder = Server::builder()
        .configure(|config| config.set_drain(Duration::from_millis(100)))
        .websocket("/stuck", move |client| {
            report(&sender, Ok(()));
            let _ = released.lock().unwrap().recv();
            report(&sender, client.send("late"));
            Ok(())
        });
    let (server, remote) = start(builder);
    let stream = remote.connect();
    let head = format!("GET /stuck HTTP/1.1\r\nHost: x\r\n{}\r\n", common::ws::upgrade_lines());
    std::io::Write::write_all(&mut &stream, head.as_bytes()).unwrap();
    assert_eq!(reached.recv_timeout(PATIENCE), Ok(Ok(())));
    assert!(!server.shutdown(), "a client's handler is still there");
    server.wait();
    // The handler lives on, and its client is gone.
    release.send(()).unwrap();
    let late = reached.recv_timeout(PATIENCE).expect("the handler goes on");
    assert_eq!(late, Err(ClientError::Closed(Reason::Shutdown)));
}

#[test]
fn a_handler_that_publishes_too_late_has_not_failed() {
    keep_log();
    let (sender, reached) = reports();
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let builder = Server::builder().websocket("/late", move |client| {
        client.send("welcome")?;
        report(&sender, ());
        released.lock().unwrap().recv()?;
        client.publish("t", "late")?;
        unreachable!("nothing is published any more")
    });
    let (server, remote) = start(builder);
    let mut client = Raw::connect(&remote, "/late");
    let peer = client.stream.local_addr().unwrap().to_string();
    assert_eq!(client.frame(), Some(text("welcome")));
    reached.recv_timeout(PATIENCE).unwrap();
    std::thread::scope(|scope| {
        let shutdown = scope.spawn(|| server.shutdown());
        wait_for("the drain", || server.publish("t", "x") == Err(PublishError::Stopped));
        release.send(()).unwrap();
        assert_eq!(client.close_code(), 1012);
        assert!(shutdown.join().unwrap());
    });
    wait_log(&[&peer, "left after"]);
    let log = LOG.lock().unwrap().clone();
    assert!(!log.lines().any(|line| line.contains(&peer) && line.contains("failed")), "{log}");
}

#[test]
fn a_server_that_is_dropped_is_gone() {
    let (server, remote) = start(Server::builder());
    let mut client = Sse::open(&remote, "/events");
    drop(server);
    assert!(client.event().is_none() && client.is_whole());
    assert!(std::net::TcpStream::connect(remote.address).is_err());
}

#[test]
fn a_route_that_no_request_reaches_is_an_error_of_start() {
    for builder in [
        Server::builder().route("get", "/a", |_| Response::text("")),
        Server::builder().stream("a", |_| Ok(())),
    ] {
        assert!(matches!(builder.listen("127.0.0.1:0").start(), Err(StartError::Route(_))));
    }
}

#[test]
fn a_wrong_setting_is_an_error_of_start() {
    let builder = Server::builder().listen("nowhere").configure(|config| config.set_queue(0));
    let error = builder.start().err().expect("an error").to_string();
    assert!(error.contains("listen") && error.lines().count() == 1, "the first one: {error}");
}
