//! Queries, topics, names and ids: nothing panics, what is accepted can stand in one line of an
//! event stream, and what is written as a form is read back as it was.

use std::collections::BTreeSet;

use form_urlencoded::Serializer;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use threadcast::event::draft::check_name;
use threadcast::event::{Draft, EventId};
use threadcast::handlers::query::Query;

use crate::campaign::{Outcome, Plan, campaign};

/// One query: as pairs, and as whatever else may stand behind a question mark.
#[derive(Debug, Clone)]
struct Case {
    pairs: Vec<(String, String)>,
    raw: String,
    id: (u64, u64),
}

/// Whether a topic or name may be used, from the contract: one line of at most 256 bytes, not
/// empty, without control characters (Unicode's `Cc`: C0, DEL and C1).
fn is_name(text: &str) -> bool {
    let is_control = |c: char| matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}');
    (1..=256).contains(&text.len()) && !text.chars().any(is_control)
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z]{1,10}",
        3 => "\\PC{0,20}",
        2 => any::<String>(),
        2 => "[a\u{0}\n\r\t\u{7f}\u{80}\u{85}\u{9f}\u{a0}\u{ad}\u{2028}\u{2029}\u{feff}&=+%;# é😀]{0,8}",
        1 => (253_usize..259).prop_map(|length| "x".repeat(length)),
        1 => (126_usize..131).prop_map(|length| "é".repeat(length)),
        1 => Just("*".to_owned()),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let known = select(vec!["topic", "topic", "topic", "event", "last_event_id", "x", ""]);
    let misspelt = select(vec!["Topic", "topics", "topic[]", "lastId", "Latest"]);
    let name = prop_oneof![
        24 => known.prop_map(str::to_owned),
        1 => misspelt.prop_map(str::to_owned),
        4 => value(),
    ];
    // Percent signs, wherever they make sense or not.
    let raw = prop_oneof![
        3 => "((topic|event|last_event_id|x)=(%[0-9a-fA-F]{2}|%|[a-z]|\\+){0,10}&?){0,5}",
        1 => any::<String>(),
        1 => "[%&=+;topicevn0-9A-F]{0,40}",
    ];
    let id = prop_oneof![any::<(u64, u64)>(), (0_u64..3, 0_u64..3)];
    (vec((name, value()), 0..6), raw, id).prop_map(|(pairs, raw, id)| Case { pairs, raw, id })
}

fn test(case: &Case) -> Result<(), String> {
    let written = Serializer::new(String::new()).extend_pairs(&case.pairs).finish();
    let all = |wanted: &str| {
        let named = case.pairs.iter().filter(move |(name, _)| name == wanted);
        named.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    let (topics, events) = (all("topic"), all("event"));
    let misspelt = case.pairs.iter().any(|(name, _)| is_misspelt(name));
    let good = !misspelt && topics.iter().chain(&events).all(|name| is_name(name));
    match Query::parse(&written) {
        Ok(_) if !good => return Err(format!("{written:?} is accepted")),
        Err(error) if good => return Err(format!("{written:?} is refused: {error:?}")),
        Err(error) if error.status() != 400 => return Err(format!("{error:?}")),
        Err(_) => {}
        Ok(query) => {
            if query.event.as_deref() != events.last().copied() {
                return Err(format!("{written:?} is read as {query:?}"));
            }
            check_topics(&query, &topics.iter().copied().collect())?;
        }
    }
    if let Ok(query) = Query::parse(&case.raw) {
        let mut all = query.topics().iter().chain(&query.event);
        if let Some(bad) = all.find(|name| !is_name(name)) {
            return Err(format!("{:?} gives the name {bad:?}", case.raw));
        }
    }
    for text in case.pairs.iter().map(|(_, value)| value).chain([&case.raw]) {
        check_text(text)?;
    }
    let id = EventId { millis: case.id.0, sequence: case.id.1 };
    match id.to_string().parse() {
        Ok(read) if id == read => Ok(()),
        read => Err(format!("{id} is read as {read:?}")),
    }
}

/// Whether somebody who writes this means one of the parameters, and would get all topics.
fn is_misspelt(name: &str) -> bool {
    let known =
        ["topic", "event", "last_event_id", "lastEventId", "last-event-id", "ticket", "latest"];
    let meant = [
        "topic",
        "topics",
        "channel",
        "channels",
        "event",
        "events",
        "eventname",
        "lasteventid",
        "lastid",
        "latest",
        "ticket",
        "tickets",
    ];
    let bare = name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "");
    !known.contains(&name) && meant.contains(&bare.as_str())
}

/// Whether one may subscribe to the name, but not publish on it.
fn stands_for_several(name: &str) -> bool {
    name == "*" || name.ends_with("/*")
}

/// One name or text on its own.
fn check_text(text: &str) -> Result<(), String> {
    let good = is_name(text);
    let said = [
        check_name("topic", text).is_ok(),
        Draft::new(text, None, text).is_ok() || good && stands_for_several(text),
        Draft::new("t", Some(text), text).is_ok(),
    ];
    if Draft::new(text, None, text).is_ok() && stands_for_several(text) {
        return Err(format!("{text:?} can be published on"));
    }
    if said != [good; 3] {
        return Err(format!("{text:?} is a name: {good}, and the server says {said:?}"));
    }
    // Whatever is read as an id is written in the same way, but for leading zeros.
    if let Ok(id) = text.parse::<EventId>() {
        let plain = |digits: &str| digits.trim_start_matches('0').to_owned();
        let parts: Vec<String> = text.split('-').map(plain).collect();
        let written: Vec<String> = id.to_string().split('-').map(plain).collect();
        if parts != written {
            return Err(format!("{text:?} is read as the id {id}"));
        }
    }
    Ok(())
}

fn check_topics(query: &Query, wanted: &BTreeSet<&str>) -> Result<(), String> {
    let right = query.topics().iter().eq(wanted.iter());
    let single = query.single_topic().ok();
    let expected = match wanted.len() {
        0 => Some(None),
        1 if !wanted.iter().any(|name| stands_for_several(name)) => Some(wanted.first().copied()),
        _ => None,
    };
    match right && single == expected {
        true => Ok(()),
        false => Err(format!(
            "{wanted:?} is read as {:?}, and as {single:?} for a publisher",
            query.topics()
        )),
    }
}

/// Runs the target.
pub fn run(plan: &Plan) -> Outcome {
    campaign(plan, 10_000, case(), test, || Ok(()), String::new)
}
