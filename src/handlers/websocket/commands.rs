//! The subprotocol `threadcast.v1`: commands in JSON, each with exactly one answer.
//!
//! A client that offers it in its handshake changes its topics and publishes while it is connected.
//! Nothing it sends as a message ends the connection: what cannot be done is answered with an
//! error.
//!
//! **Order.** The client's own thread reads a command, carries it out, and answers it before it
//! reads the next: answers come in the order of the commands. `subscribe` holds the client's outbox
//! while it joins the live events (see [`Outbox::take`]), so the client reads: the ack, a `gap` if
//! there is one, what it missed, and then live events. `unsubscribe` is answered when
//! the client's broadcaster has heard of it: behind the ack there is no event on these topics. Who
//! publishes on a topic of their own may see the event before the ack.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::output::{encoding, text_message};
use crate::app::App;
use crate::auth::access::constant_time_eq;
use crate::client::outbox::Outbox;
use crate::event::members::Members;
use crate::event::payload::Payload;
use crate::event::{DEFAULT_TOPIC, Draft, MAX_NAME, check_name};
use crate::handlers::publish::{ONLY_FROM_LOOPBACK, PublishPermission, permission, take_draft};
use crate::hub::topics::Topics;
use crate::hub::{LastSeen, Stopped, Subscription};
use crate::ws::deflate::Window;

/// The subprotocol's name (RFC 6455 section 1.9).
pub const PROTOCOL: &str = "threadcast.v1";

/// How many topics one client may be subscribed to: they are kept for as long as it guards.
const MAX_TOPICS: usize = 1_000;

/// What a client can ask for.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Subscribe { topics: BTreeSet<String>, last: LastSeen },
    Unsubscribe { topics: BTreeSet<String> },
    Publish(Draft),
    Authorize { token: String },
    Ping,
}

/// Why a command is not carried out.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    /// For programs; [`crate::docs::commands`] lists them.
    code: &'static str,
    /// For people: what is wrong, and what to do.
    message: String,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }
}

/// What the client calls its command, to know the answer by: a string or a number.
type Reference = Option<Value>;

/// One client that gives commands.
pub struct Commands {
    app: Arc<App>,
    outbox: Arc<Outbox>,
    deflate: Option<Window>,
    subscription: Subscription,
    /// The topics it is subscribed to, by the names it gave them; `*` is one of them.
    names: BTreeSet<String>,
    permission: PublishPermission,
}

impl Commands {
    /// A client that is subscribed to the topics `names` already, and may publish as `permission` says.
    pub fn new(
        app: &Arc<App>,
        outbox: &Arc<Outbox>,
        deflate: Option<Window>,
        subscription: Subscription,
        names: BTreeSet<String>,
        permission: PublishPermission,
    ) -> Commands {
        let (app, outbox) = (Arc::clone(app), Arc::clone(outbox));
        Commands { app, outbox, deflate, subscription, names, permission }
    }

    /// Carries out the command in a text message, and answers it. Called by the client's own
    /// thread: it waits where the client does not read.
    pub fn execute(&mut self, text: &str) {
        let (reference, command) = parse(text);
        let done = match command {
            Ok(Command::Subscribe { topics, last }) => {
                match self.subscribe(topics, last, &reference) {
                    // Answered already, in front of the events that it brings.
                    Ok(()) => return,
                    Err(refusal) => Err(refusal),
                }
            }
            Ok(Command::Unsubscribe { topics }) => Ok(self.unsubscribe(&topics)),
            Ok(Command::Publish(draft)) => self.publish(draft),
            Ok(Command::Authorize { token }) => self.authorize(&token),
            Ok(Command::Ping) => Ok(json!({})),
            Err(refusal) => Err(refusal),
        };
        self.answer(&match done {
            Ok(members) => ack(&reference, members),
            Err(refusal) => error(&reference, &refusal),
        });
    }

    /// Answers a binary message.
    pub fn refuse_binary(&mut self) {
        let refusal = Refusal::new("binary", "commands are JSON in text messages");
        self.answer(&error(&None, &refusal));
    }

    fn answer(&self, text: &str) {
        self.outbox.write(&text_message(text, self.deflate));
    }

    fn subscribe(
        &mut self,
        topics: BTreeSet<String>,
        last: LastSeen,
        reference: &Reference,
    ) -> Result<(), Refusal> {
        if self.names.union(&topics).count() > MAX_TOPICS {
            let message = format!("a client may be subscribed to {MAX_TOPICS} topics at once");
            return Err(Refusal::new("too_many_topics", message));
        }
        self.names.extend(topics);
        // From here on live events wait behind what this thread writes.
        if !self.outbox.take() {
            return Ok(());
        }
        let replay = self.subscription.change(Topics::asked_for(&self.names), last);
        let mut members = json!({"topics": self.names});
        if let Some(seen) = replay.seen {
            members["lastEventId"] = seen.to_string().into();
        }
        let answer = ack(reference, members);
        self.outbox.write_held(&Payload::own(text_message(&answer, self.deflate)));
        for payload in replay.payloads(encoding(self.deflate)) {
            self.outbox.write_held(&payload);
        }
        self.outbox.release();
        Ok(())
    }

    fn unsubscribe(&mut self, topics: &BTreeSet<String>) -> Value {
        self.names.retain(|name| !topics.contains(name));
        self.subscription.change(Topics::asked_for(&self.names), LastSeen::Nothing);
        self.subscription.wait_applied();
        json!({"topics": self.names})
    }

    fn publish(&self, draft: Draft) -> Result<Value, Refusal> {
        self.check_permission()?;
        let message = "the server is shutting down; publish again later";
        let receipt =
            self.app.hub.publish(draft).map_err(|Stopped| Refusal::new("draining", message))?;
        Ok(json!({"id": receipt.id.to_string(), "subscribers": receipt.subscribers}))
    }

    /// For browsers, whose handshakes carry no `Authorization`. A wrong token takes nothing away.
    fn authorize(&mut self, token: &str) -> Result<Value, Refusal> {
        if self.permission != PublishPermission::Granted {
            self.permission = permission(&self.app, |known| constant_time_eq(known, token));
        }
        self.check_permission().map(|()| json!({}))
    }

    fn check_permission(&self) -> Result<(), Refusal> {
        match self.permission {
            PublishPermission::Granted => Ok(()),
            PublishPermission::OnlyFromLoopback => {
                Err(Refusal::new("forbidden", ONLY_FROM_LOOPBACK))
            }
            PublishPermission::TokenMissing => {
                let message = "publishing needs the server's token: send it in an authorize \
                               command, or as 'Authorization: Bearer' in the handshake";
                Err(Refusal::new("unauthorized", message))
            }
        }
    }
}

/// Reads a command. The reference is found even where the rest is wrong.
fn parse(text: &str) -> (Reference, Result<Command, Refusal>) {
    let no_json = |error| Err(Refusal::new("bad_json", format!("no JSON: {error}")));
    let mut members = match Members::parse(text) {
        Ok(members) => members,
        Err(error) if error.is_data() => {
            return (None, bad("a command is a JSON object with a \"type\""));
        }
        Err(error) => return (None, no_json(error)),
    };
    // With two of them nobody can tell which one the answer is known by.
    if members.repeated() == Some("ref") {
        return (None, bad("the member \"ref\" is there twice"));
    }
    let reference = match serde_json::from_str(members.take("ref").unwrap_or("null")) {
        Ok(Value::Null) => None,
        Ok(Value::String(text)) if text.len() <= MAX_NAME => Some(Value::String(text)),
        Ok(Value::Number(number)) => Some(Value::Number(number)),
        Ok(_) => {
            let message = format!("\"ref\" must be a number, or a string of {MAX_NAME} bytes");
            return (None, bad(message));
        }
        // A number too large, or half a surrogate pair: it could not be repeated. Nested too deep.
        Err(error) => return (None, no_json(error)),
    };
    (reference, parse_members(&mut members))
}

fn parse_members(members: &mut Members) -> Result<Command, Refusal> {
    if let Some(name) = members.repeated() {
        return bad(format!("the member {:?} is there twice", shortened(name)));
    }
    let Ok(Some(kind)) = members.take_string("type") else {
        return bad("\"type\" is missing or no string");
    };
    let command = match &*kind {
        "subscribe" => {
            Command::Subscribe { topics: take_topics(members)?, last: take_last(members)? }
        }
        "unsubscribe" => Command::Unsubscribe { topics: take_topics(members)? },
        "publish" => Command::Publish(
            take_draft(members, DEFAULT_TOPIC, None)
                .map_err(|why| Refusal::new("bad_event", why))?,
        ),
        "authorize" => match members.take_string("token") {
            Ok(Some(token)) => Command::Authorize { token },
            _ => return bad("\"token\" is missing or no string"),
        },
        "ping" => Command::Ping,
        _ => {
            let message = "\"type\" is none of subscribe, unsubscribe, publish, authorize, ping";
            return Err(Refusal::new("unknown_command", message));
        }
    };
    // Whoever mistypes last_event_id must not lose events silently.
    match members.rest() {
        Some(name) => bad(format!("{kind} has_token no member {:?}", shortened(name))),
        None => Ok(command),
    }
}

/// As much of a member's name as an answer should repeat.
fn shortened(name: &str) -> String {
    name.chars().take(64).collect()
}

fn take_topics(members: &mut Members) -> Result<BTreeSet<String>, Refusal> {
    let names: Option<Vec<String>> =
        members.take("topics").and_then(|topics| serde_json::from_str(topics).ok());
    let Some(names) = names else {
        return bad("\"topics\" is missing or no array of strings");
    };
    let checked = names.into_iter().map(|name| match check_name("topic", &name) {
        Ok(()) => Ok(name),
        Err(why) => Err(Refusal::new("bad_topic", why.0)),
    });
    let names = checked.collect::<Result<BTreeSet<_>, _>>()?;
    if names.is_empty() { bad("\"topics\" is empty; name at least one") } else { Ok(names) }
}

fn take_last(members: &mut Members) -> Result<LastSeen, Refusal> {
    match members.take_string("last_event_id") {
        Ok(None) => Ok(LastSeen::Nothing),
        Ok(Some(id)) => Ok(LastSeen::parse(Some(&id))),
        Err(why) => bad(why),
    }
}

fn bad<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new("bad_command", message))
}

/// An `ack` with further members.
fn ack(reference: &Reference, members: Value) -> String {
    answer("ack", reference, members)
}

/// An `error`.
fn error(reference: &Reference, refusal: &Refusal) -> String {
    let error = json!({"code": refusal.code, "message": refusal.message});
    answer("error", reference, json!({"error": error}))
}

/// The reference is left out where the command had none.
fn answer(kind: &str, reference: &Reference, mut members: Value) -> String {
    members["type"] = kind.into();
    if let Some(reference) = reference {
        members["ref"] = reference.clone();
    }
    members.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn code(text: &str) -> &'static str {
        parse(text).1.expect_err(text).code
    }

    #[test]
    fn commands_are_read() {
        let command = |text: &str| parse(text).1.unwrap();
        let topics = names(&["a", "b"]);
        let (last, text) = (LastSeen::Nothing, r#"{"type":"subscribe","topics":["b","a","b"]}"#);
        assert_eq!(command(text), Command::Subscribe { topics, last });
        for (id, last) in [
            ("null", LastSeen::Nothing),
            (r#""""#, LastSeen::Nothing),
            (r#""7-1""#, LastSeen::Event("7-1".parse().unwrap())),
            (r#""other""#, LastSeen::Unknown),
        ] {
            let text = format!(r#"{{"type":"subscribe","topics":["*"],"last_event_id":{id}}}"#);
            assert_eq!(command(&text), Command::Subscribe { topics: names(&["*"]), last });
        }
        let text = r#"{"topics":["a"],"type":"unsubscribe"}"#;
        assert_eq!(command(text), Command::Unsubscribe { topics: names(&["a"]) });
        let draft = |topic, name, data| Command::Publish(Draft::new(topic, name, data).unwrap());
        let text = r#"{"type":"publish","data":"x"}"#;
        assert_eq!(command(text), draft(DEFAULT_TOPIC, None, "x"));
        let text = r#"{"type":"publish","topic":"t","event":"e","data":{"n":[1,0.1,null]}}"#;
        assert_eq!(command(text), draft("t", Some("e"), r#"{"n":[1,0.1,null]}"#));
        let text = r#"{"type":"authorize","token":"s3cret"}"#;
        assert_eq!(command(text), Command::Authorize { token: "s3cret".to_owned() });
        assert_eq!(command(r#" {"type":"ping"} "#), Command::Ping);
    }

    #[test]
    fn the_reference_is_found_even_where_the_rest_is_wrong() {
        let reference = |text: &str| parse(text).0;
        assert_eq!(reference(r#"{"type":"ping"}"#), None);
        assert_eq!(reference(r#"{"type":"ping","ref":null}"#), None);
        for value in [r#""""#, r#""grüße""#, "0", "-7", "0.1", "1e300", "18446744073709551615"] {
            let expected = Some(serde_json::from_str(value).unwrap());
            assert_eq!(reference(&format!(r#"{{"type":"ping","ref":{value}}}"#)), expected);
            assert_eq!(reference(&format!(r#"{{"type":7,"ref":{value}}}"#)), expected);
        }
        let long = format!(r#"{{"type":"ping","ref":"{}"}}"#, "x".repeat(MAX_NAME + 1));
        for bad in [r#"{"type":"ping","ref":[]}"#, r#"{"type":"ping","ref":true}"#, &long] {
            assert_eq!((reference(bad), code(bad)), (None, "bad_command"), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let deep = format!(r#"{{"type":"ping","ref":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
        for bad in ["", "x", "{", r#"{"type":"ping"}{}"#, r#"{"ref":1e999}"#, r#""\ud800""#, &deep]
        {
            assert_eq!(code(bad), "bad_json", "{bad}");
        }
        for bad in [
            "1",
            "null",
            "[]",
            r#""ping""#,
            "{}",
            r#"{"type":null}"#,
            r#"{"type":"ping","more":1}"#,
            r#"{"type":"subscribe"}"#,
            r#"{"type":"subscribe","topics":[]}"#,
            r#"{"type":"subscribe","topics":"a"}"#,
            r#"{"type":"subscribe","topics":["a",1]}"#,
            r#"{"type":"subscribe","topics":["a"],"lastEventId":"1-0"}"#,
            r#"{"type":"subscribe","topics":["a"],"last_event_id":1}"#,
            r#"{"type":"unsubscribe","topics":["a"],"last_event_id":"1-0"}"#,
            r#"{"type":"publish","data":"x","token":"y"}"#,
            r#"{"type":"authorize"}"#,
            r#"{"type":"authorize","token":1}"#,
        ] {
            assert_eq!(code(bad), "bad_command", "{bad}");
        }
        for bad in [r#"{"type":""}"#, r#"{"type":"Ping"}"#, r#"{"type":"event","data":"x"}"#] {
            assert_eq!(code(bad), "unknown_command", "{bad}");
        }
        for bad in [
            r#"{"type":"publish"}"#,
            r#"{"type":"publish","data":"x","topic":"*"}"#,
            r#"{"type":"publish","data":"x","topic":""}"#,
            r#"{"type":"publish","data":"x","topic":1}"#,
            r#"{"type":"publish","data":"x","event":"a\nb"}"#,
        ] {
            assert_eq!(code(bad), "bad_event", "{bad}");
        }
        assert_eq!(code(r#"{"type":"subscribe","topics":["a",""]}"#), "bad_topic");
        assert_eq!(code(r#"{"type":"unsubscribe","topics":["a\u0000"]}"#), "bad_topic");
    }

    /// A small generator of random numbers (xorshift): a failure can be run again.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit as u64) as usize
        }

        fn pick<'a>(&mut self, among: &[&'a str]) -> &'a str {
            among[self.below(among.len())]
        }

        /// JSON, or nearly, out of the words that commands are made of.
        fn json(&mut self, depth: usize) -> String {
            const WORDS: &[&str] = &[
                "type",
                "ref",
                "topics",
                "topic",
                "event",
                "data",
                "token",
                "last_event_id",
                "subscribe",
                "unsubscribe",
                "publish",
                "authorize",
                "ping",
                "*",
                "a",
                "",
                "7-0",
                r"\u0000",
                r"\ud800",
                "\u{1f980}",
                r"\",
            ];
            const SCALARS: &[&str] =
                &["null", "true", "0", "-1", "1e400", "0.1", "18446744073709551616", "01", "nul"];
            match self.below(if depth == 0 { 3 } else { 6 }) {
                0 => self.pick(SCALARS).to_owned(),
                1 | 2 => format!("\"{}\"", self.pick(WORDS)),
                3 => {
                    let items: Vec<_> = (0..self.below(4)).map(|_| self.json(depth - 1)).collect();
                    format!("[{}]", items.join(","))
                }
                _ => {
                    let mut members = Vec::new();
                    if self.below(4) > 0 {
                        members.push(format!(r#""type":"{}""#, self.pick(&WORDS[8..14])));
                    }
                    for _ in 0..self.below(4) {
                        let name = self.pick(WORDS);
                        members.push(format!(r#""{name}":{}"#, self.json(depth - 1)));
                    }
                    format!("{{{}}}", members.join(","))
                }
            }
        }
    }

    /// Whatever comes is a command or a refusal, and either way can be answered.
    #[test]
    fn anything_has_an_answer() {
        let mut random = Random(20_261_122);
        let mut good = 0;
        for _ in 0..50_000 {
            let mut text = random.json(4);
            if random.below(8) == 0 {
                let mut end = random.below(text.len() + 1);
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                text.truncate(end);
            }
            let (reference, command) = parse(&text);
            let answer = match &command {
                Ok(_) => ack(&reference, json!({})),
                Err(refusal) => error(&reference, refusal),
            };
            let answer: Value = serde_json::from_str(&answer).expect(&text);
            assert_eq!(answer["type"], if command.is_ok() { "ack" } else { "error" });
            assert_eq!(answer.get("ref"), reference.as_ref());
            good += usize::from(command.is_ok());
        }
        assert!(good > 200, "{good} of them were commands");
    }
}
