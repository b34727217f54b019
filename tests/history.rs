//! Clients that come back with the id of the last event they saw: they get exactly what they
//! missed, or are told that it is not known.

mod common;

use common::sse::Sse;
use common::ws::{check_welcome, connect, json, open};
use common::{FANOUTS, Server};
use serde_json::{Value, json};

/// Ids that this server cannot have given out.
const UNKNOWN: [&str; 7] =
    ["1-0", "99999999999999-0", "garbage", "1", "-1-1", "1-0-0", "99999999999999999999999-0"];

/// Publishes `count` events on topic `n` whose data is their number. Returns their ids.
fn publish_numbers(server: &Server, count: usize) -> Vec<String> {
    (0..count).map(|number| server.publish_id("/publish?topic=n", &number.to_string())).collect()
}

/// Publishes an event, and checks that exactly the numbered ones come before it.
fn expect_numbers(server: &Server, sse: &mut Sse, ids: &[String], numbers: std::ops::Range<usize>) {
    let live = server.publish_id("/publish?topic=n", "live");
    for number in numbers {
        let event = sse.event().unwrap();
        assert_eq!(event.event, None, "{event:?}");
        assert_eq!(event.data, Some(number.to_string()));
        assert_eq!(event.id.as_ref(), Some(&ids[number]));
    }
    assert_eq!(sse.event().unwrap().id, Some(live));
}

/// The id of the `gap` event that must come next.
fn expect_gap(sse: &mut Sse) -> String {
    let gap = sse.event().unwrap();
    assert_eq!(gap.event.as_deref(), Some("gap"), "{gap:?}");
    let id = gap.id.expect("a gap has an id to come back with");
    let said: Value = serde_json::from_str(&gap.data.unwrap()).unwrap();
    assert_eq!(said, json!({"resumed": id}));
    id
}

/// An id's place in the order.
fn order(id: &str) -> (u64, u64) {
    let (millis, sequence) = id.split_once('-').expect("<milliseconds>-<sequence>");
    (millis.parse().unwrap(), sequence.parse().unwrap())
}

#[test]
fn a_client_gets_exactly_what_it_missed() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout]);
        let ids = publish_numbers(&server, 10);
        server.publish_id("/publish?topic=other", "not for them");
        let mut by_header = Sse::open_after(&server, "/events?topic=n", Some(&ids[2]));
        let target = format!("/events?topic=n&last_event_id={}", ids[6]);
        let mut by_query = Sse::open(&server, &target);
        // The header field says what was seen since; the address is that of the first time.
        let mut by_both = Sse::open_after(&server, &target, Some(&ids[8]));
        let mut nothing_missed = Sse::open_after(&server, "/events?topic=n", Some(&ids[9]));
        expect_numbers(&server, &mut by_header, &ids, 3..10);
        for (sse, numbers) in
            [(&mut by_query, 7..10), (&mut by_both, 9..10), (&mut nothing_missed, 0..0)]
        {
            for number in numbers {
                assert_eq!(sse.event().unwrap().id.as_ref(), Some(&ids[number]));
            }
            assert_eq!(sse.event().unwrap().data.as_deref(), Some("live"));
        }
        // An `EventSource` that has seen no id sends none; an empty one means the same.
        for headers in ["", "Last-Event-ID: \r\n"] {
            let mut sse = Sse::connect(&server, "/events?topic=n&last_event_id=", headers);
            sse.block().expect("a greeting").data.expect("a greeting");
            expect_numbers(&server, &mut sse, &ids, 0..0);
        }
    }
}

#[test]
fn all_topics_are_replayed_in_the_order_they_were_published() {
    let server = Server::start(&[]);
    let start = server.publish_id("/publish", "start");
    let mut expected = Vec::new();
    for number in 0..30 {
        let target = format!("/publish?topic={}", ["a", "b", "c"][number % 3]);
        expected.push(server.publish_id(&target, "x"));
    }
    let mut all = Sse::open_after(&server, "/events", Some(&start));
    let mut two = Sse::open_after(&server, "/events?topic=c&topic=a", Some(&start));
    for (number, id) in expected.iter().enumerate() {
        assert_eq!(all.event().unwrap().id.as_ref(), Some(id));
        if number % 3 != 1 {
            assert_eq!(two.event().unwrap().id.as_ref(), Some(id));
        }
    }
}

#[test]
fn what_is_no_longer_kept_is_a_gap() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout, "--history", "3"]);
        let ids = publish_numbers(&server, 10);
        let mut sse = Sse::open_after(&server, "/events", Some(&ids[1]));
        let resumed = expect_gap(&mut sse);
        // Cut off right after the gap, it comes back with the gap's id: it misses what it has not
        // read, and no more.
        let mut again = Sse::open_after(&server, "/events", Some(&resumed));
        expect_numbers(&server, &mut again, &ids, 7..10);
        for id in &ids[7..] {
            assert_eq!(sse.event().unwrap().id.as_ref(), Some(id));
        }
    }
}

#[test]
fn without_a_history_every_loss_is_a_gap() {
    let server = Server::start(&["--history", "0"]);
    let ids = publish_numbers(&server, 2);
    let mut sse = Sse::open_after(&server, "/events", Some(&ids[0]));
    assert_eq!(expect_gap(&mut sse), ids[1]);
    let mut sse = Sse::open_after(&server, "/events", Some(&ids[1]));
    expect_numbers(&server, &mut sse, &ids, 0..0);
}

#[test]
fn losses_on_other_topics_are_no_gap() {
    let server = Server::start(&["--history", "2"]);
    let seen = server.publish_id("/publish?topic=quiet", "x");
    let kept = publish_numbers(&server, 5);
    let mut quiet = Sse::open_after(&server, "/events?topic=quiet", Some(&seen));
    let mut noisy = Sse::open_after(&server, "/events?topic=quiet&topic=n", Some(&seen));
    assert_eq!(expect_gap(&mut noisy), kept[2]);
    let live = server.publish_id("/publish?topic=quiet", "y");
    assert_eq!(quiet.event().unwrap().id, Some(live));
}

/// A client that has seen nothing but its greeting comes back with the id in it.
#[test]
fn a_client_that_was_only_greeted_misses_nothing() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout, "--history", "50"]);
        let first = server.publish_id("/publish?topic=n", "before");
        let mut sse = Sse::connect(&server, "/events?topic=quiet", "");
        let greeted = sse.block().unwrap().id.expect("an id");
        let mut raw = connect(&server, "/ws?topic=quiet");
        let welcomed = check_welcome(&json(&mut raw)).expect("an id");
        assert_eq!([&greeted, &welcomed], [&first; 2]);
        drop((sse, raw));

        // Far more than is kept, on other topics: nothing of `quiet` is lost by it.
        for many in 0..4 {
            // More topics than the server can tell apart in what it has lost at little cost.
            let line = |number| format!("{{\"topic\":\"{}\",\"data\":0}}\n", many * 1_000 + number);
            let filler: String = (0..1_000).map(line).collect();
            server.publish_lines(&filler);
        }
        let missed: Vec<String> =
            (0..3).map(|_| server.publish_id("/publish?topic=quiet", "missed")).collect();
        let mut sse = Sse::open_after(&server, "/events?topic=quiet", Some(&greeted));
        let mut raw = open(&server, &format!("/ws?topic=quiet&last_event_id={welcomed}"));
        for id in &missed {
            assert_eq!(sse.event().unwrap().id.as_ref(), Some(id), "{fanout}");
            assert_eq!(json(&mut raw)["id"], **id, "{fanout}");
        }
    }
}

/// The greeting of a client that comes back holds its own id, so that one that is cut off between the
/// greeting and the replay still misses nothing; where its id is unknown, the gap's id is the first.
#[test]
fn a_greeting_never_hides_what_is_still_to_be_replayed() {
    let server = Server::start(&["--history", "2"]);
    let ids = publish_numbers(&server, 5);
    for (id, greeted) in [(&*ids[4], true), (&ids[3], true), (&ids[0], true), ("stranger", false)] {
        let mut sse = Sse::connect(&server, "/events", &format!("Last-Event-ID: {id}\r\n"));
        let expected = greeted.then(|| id.to_owned());
        assert_eq!(sse.block().unwrap().id, expected, "{id}");
        let mut raw = connect(&server, &format!("/ws?topic=*&last_event_id={id}"));
        assert_eq!(check_welcome(&json(&mut raw)), expected, "{id}");
    }
}

#[test]
fn an_unknown_id_is_a_gap() {
    for (history, count) in [("1000", 5), ("1000", 0), ("3", 5)] {
        let server = Server::start(&["--history", history]);
        let ids = publish_numbers(&server, count);
        let clients = UNKNOWN.map(|id| {
            let mut sse = Sse::open_after(&server, "/events", Some(id));
            let resumed = expect_gap(&mut sse);
            let mut by_query = Sse::open(&server, &format!("/events?last_event_id={id}"));
            assert_eq!(expect_gap(&mut by_query), resumed, "{id}");
            let again = Sse::open_after(&server, "/events", Some(&resumed));
            (resumed, [sse, by_query, again])
        });
        let live = server.publish_id("/publish", "live");
        for (resumed, streams) in clients {
            // From the gap's id on nothing is missing, now and when it comes back with it.
            let mut promised: Vec<&String> = ids.iter().collect();
            promised.retain(|id| order(id) > order(&resumed));
            promised.push(&live);
            for mut sse in streams {
                for id in &promised {
                    let event = sse.event().unwrap();
                    assert_eq!((event.event, event.id.as_ref()), (None, Some(*id)));
                }
            }
        }
    }
}

/// Who has been greeted has been told that it will hear of everything from now on.
#[test]
fn a_greeted_client_is_subscribed() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout]);
        // Many at once, so that the threads of the server are interrupted in odd places.
        let missed: usize = std::thread::scope(|scope| {
            let client = |number: usize| {
                let server = &server;
                scope.spawn(move || {
                    let mut missed = 0;
                    for round in 0..40 {
                        let topic = format!("{number}-{round}");
                        let publish = format!("/publish?topic={topic}");
                        let sse = Sse::open(server, &format!("/events?topic={topic}"));
                        let one = server.publish(&publish, "x").json();
                        let socket = open(server, &format!("/ws?topic={topic}"));
                        let two = server.publish(&publish, "x").json();
                        missed += usize::from(one["subscribers"] != 1);
                        missed += usize::from(two["subscribers"] != 2);
                        drop((sse, socket));
                    }
                    missed
                })
            };
            let clients: Vec<_> = (0..8).map(client).collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        assert_eq!(missed, 0, "{fanout}: so many of 640 missed an event after their greeting");
    }
}

#[test]
fn websockets_resume_in_the_same_way() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout, "--history", "4"]);
        let ids = publish_numbers(&server, 10);
        server.publish_id("/publish?topic=other", "not for them");
        let resume = |id: &str| open(&server, &format!("/ws?topic=n&last_event_id={id}"));
        let event = |number: usize| {
            json!({
                "type": "event", "id": ids[number], "topic": "n", "event": "message",
                "data": number.to_string(),
            })
        };

        let mut socket = resume(&ids[7]);
        assert_eq!(json(&mut socket), event(8));
        assert_eq!(json(&mut socket), event(9));

        // Of the four events kept, one is on another topic.
        let expected = |resumed: &str| {
            json!({
                "type": "event", "id": resumed, "topic": "", "event": "gap",
                "data": format!(r#"{{"resumed":"{resumed}"}}"#),
            })
        };
        let mut socket = resume(&ids[2]);
        assert_eq!(json(&mut socket), expected(&ids[6]));
        let mut again = resume(&ids[6]);
        for socket in [&mut socket, &mut again] {
            for number in 7..10 {
                assert_eq!(json(socket), event(number), "{fanout}");
            }
        }
        for id in UNKNOWN {
            let mut socket = resume(id);
            let gap = json(&mut socket);
            assert_eq!(gap, expected(gap["id"].as_str().unwrap()), "{id}");
        }
        let live = server.publish_id("/publish?topic=n", "live");
        assert_eq!(json(&mut again)["id"], live);
    }
}
