//! The subprotocol `threadcast.v1`: commands in JSON, each with exactly one answer, an `ack` or an
//! `error`.
//!
//! A client that offers it in its handshake can change its topics and publish while it is connected. No
//! message ends the connection: a command that cannot be carried out is answered with an error.
//!
//! **Thread.** The client's own thread reads a command, carries it out and answers it before it reads
//! the next one, so answers come in the order of the commands. It waits for the client where an answer
//! does not fit into the socket, in `publish` for a broadcaster that is behind, and in `unsubscribe`
//! for the client's own broadcaster.
//!
//! **Order.** `subscribe` holds live events back while it joins them (see
//! [`WebSocket::subscribe`]), so the client reads: the ack, a `gap` if events are lost, the replay, and then live
//! events. `unsubscribe` is answered when the client's broadcaster has applied it: behind the ack comes
//! no event on these topics. A client that publishes on a topic of its own may read the event before the
//! ack.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::auth::error::AuthError;
use crate::auth::permission::PublishPermission;
use crate::event::Draft;
use crate::event::draft::{DEFAULT_TOPIC, MAX_NAME, check_name};
use crate::event::members::Members;
use crate::handlers::error::HandlerError;
use crate::session::error::{ClientError, HandlerResult};
use crate::session::websocket::WebSocket;
use crate::store::error::PublishError;

/// The subprotocol's name (RFC 6455 section 1.9).
pub const PROTOCOL: &str = "threadcast.v1";

/// The most topics of one client: their names take memory for as long as it is connected.
const MAX_TOPICS: usize = 1_000;

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Subscribe { topics: BTreeSet<String>, last: Option<String> },
    Unsubscribe { topics: BTreeSet<String> },
    Publish(Draft),
    Authorize { token: String },
    Ping,
}

/// `ref`, the client's own name for a command, which the answer repeats: a string or a number.
type Reference = Option<Value>;

/// The commands of one client.
pub struct Commands<'a> {
    client: &'a mut WebSocket,
}

impl Commands<'_> {
    /// `client` has been subscribed, perhaps to nothing.
    pub fn new(client: &mut WebSocket) -> Commands<'_> {
        Commands { client }
    }

    /// Carries out the client's commands until it leaves.
    ///
    /// # Errors
    /// See [`WebSocket::receive`].
    pub fn serve(mut self) -> HandlerResult {
        while let Some(message) = self.client.receive()? {
            match message.text() {
                Ok(text) => self.execute(text)?,
                Err(_) => self.client.send(error_answer(&None, &HandlerError::Binary))?,
            }
        }
        Ok(())
    }

    /// Carries out the command in a text message, and answers it.
    fn execute(&mut self, text: &str) -> Result<(), ClientError> {
        let (reference, command) = parse(text);
        let result = match command {
            Ok(Command::Subscribe { topics, last }) => self.subscribe(topics, last, &reference)?,
            Ok(Command::Unsubscribe { topics }) => Ok(Some(self.unsubscribe(&topics))),
            Ok(Command::Publish(draft)) => self.publish(draft).map(Some),
            Ok(Command::Authorize { token }) => self.authorize(&token).map(Some),
            Ok(Command::Ping) => Ok(Some(json!({}))),
            Err(error) => Err(error),
        };
        match result {
            Ok(Some(members)) => self.client.send(ack(&reference, members)),
            // `subscribe` has sent its ack itself, in front of the events.
            Ok(None) => Ok(()),
            Err(error) => self.client.send(error_answer(&reference, &error)),
        }
    }

    /// Sends the ack itself, and so returns no members for one.
    fn subscribe(
        &mut self,
        topics: BTreeSet<String>,
        last: Option<String>,
        reference: &Reference,
    ) -> Result<Result<Option<Value>, HandlerError>, ClientError> {
        if self.client.topics().union(&topics).count() > MAX_TOPICS {
            return Ok(Err(HandlerError::TooManyTopics(MAX_TOPICS)));
        }
        // From here on live events wait.
        let missed = self.client.subscribe(topics, last.as_deref())?;
        let mut members = json!({"topics": missed.topics()});
        if let Some(seen) = missed.last_event_id() {
            members["lastEventId"] = seen.to_string().into();
        }
        // The ack in front of the replay: it tells from which id on the client misses nothing.
        missed.send_first(ack(reference, members));
        Ok(Ok(None))
    }

    fn unsubscribe(&mut self, topics: &BTreeSet<String>) -> Value {
        self.client.unsubscribe(topics);
        json!({"topics": self.client.topics()})
    }

    fn publish(&self, draft: Draft) -> Result<Value, HandlerError> {
        check(self.client.permission())?;
        let receipt = self.client.publish_event(draft).map_err(|error| match error {
            ClientError::Publish(error) => HandlerError::NotPublished(error),
            _ => HandlerError::NotPublished(PublishError::Stopped),
        })?;
        Ok(json!({"id": receipt.id.to_string(), "subscribers": receipt.subscribers}))
    }

    /// For browsers, which cannot send `Authorization` in a handshake.
    fn authorize(&mut self, token: &str) -> Result<Value, HandlerError> {
        check(self.client.authorize(token)).map(|()| json!({}))
    }
}

fn check(permission: PublishPermission) -> Result<(), HandlerError> {
    permission.check().map_err(|error| match error {
        // A WebSocket's client has one more way to send the token.
        AuthError::PublishingNeedsToken => HandlerError::TokenMissing,
        error => HandlerError::Forbidden(error),
    })
}

/// Reads a command. Finds the reference even where the rest is wrong.
fn parse(text: &str) -> (Reference, Result<Command, HandlerError>) {
    let no_json = |error: serde_json::Error| Err(HandlerError::BadJson(error.to_string()));
    let mut members = match Members::parse(text) {
        Ok(members) => members,
        Err(error) if error.is_data() => {
            return (None, bad("a command is a JSON object with a \"type\""));
        }
        Err(error) => return (None, no_json(error)),
    };
    // Before the other members: with two references an answer cannot be told from another's.
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
        // The parser checks numbers and escapes only here. An answer could not repeat a number that is
        // too large, or half a surrogate pair.
        Err(error) => return (None, no_json(error)),
    };
    (reference, parse_members(&mut members))
}

fn parse_members(members: &mut Members) -> Result<Command, HandlerError> {
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
        "publish" => Command::Publish(Draft::take_from(members, DEFAULT_TOPIC, None)?),
        "authorize" => match members.take_string("token") {
            Ok(Some(token)) => Command::Authorize { token },
            _ => return bad("\"token\" is missing or no string"),
        },
        "ping" => Command::Ping,
        _ => return Err(HandlerError::UnknownCommand),
    };
    // A client that misspells last_event_id must not lose events silently.
    match members.rest() {
        Some(name) => bad(format!("{kind} has no member {:?}", shortened(name))),
        None => Ok(command),
    }
}

/// The beginning of a member's name, for an answer.
fn shortened(name: &str) -> String {
    name.chars().take(64).collect()
}

fn take_topics(members: &mut Members) -> Result<BTreeSet<String>, HandlerError> {
    let names: Option<Vec<String>> =
        members.take("topics").and_then(|topics| serde_json::from_str(topics).ok());
    let Some(names) = names else {
        return bad("\"topics\" is missing or no array of strings");
    };
    let checked = names.into_iter().map(|name| match check_name("topic", &name) {
        Ok(()) => Ok(name),
        Err(error) => Err(HandlerError::BadTopic(error)),
    });
    let names = checked.collect::<Result<BTreeSet<_>, _>>()?;
    if names.is_empty() { bad("\"topics\" is empty; name at least one") } else { Ok(names) }
}

fn take_last(members: &mut Members) -> Result<Option<String>, HandlerError> {
    match members.take_string("last_event_id") {
        Ok(id) => Ok(id),
        Err(error) => bad(error.to_string()),
    }
}

fn bad<T>(message: impl Into<String>) -> Result<T, HandlerError> {
    Err(HandlerError::BadCommand(message.into()))
}

/// An `ack` with these members.
fn ack(reference: &Reference, members: Value) -> String {
    answer("ack", reference, members)
}

fn error_answer(reference: &Reference, error: &HandlerError) -> String {
    let error = json!({"code": error.code(), "message": error.to_string()});
    answer("error", reference, json!({"error": error}))
}

/// An answer without a `ref` where the command has none.
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
        parse(text).1.expect_err(text).code()
    }

    #[test]
    fn commands_are_read() {
        let command = |text: &str| parse(text).1.unwrap();
        let topics = names(&["a", "b"]);
        let (last, text) = (None, r#"{"type":"subscribe","topics":["b","a","b"]}"#);
        assert_eq!(command(text), Command::Subscribe { topics, last });
        for (id, last) in
            [("null", None), (r#""""#, Some(String::new())), (r#""7-1""#, Some("7-1".to_owned()))]
        {
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

    /// Whatever comes is a command or an error, and can be answered.
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
                Err(error) => error_answer(&reference, error),
            };
            let answer: Value = serde_json::from_str(&answer).expect(&text);
            assert_eq!(answer["type"], if command.is_ok() { "ack" } else { "error" });
            assert_eq!(answer.get("ref"), reference.as_ref());
            good += usize::from(command.is_ok());
        }
        assert!(good > 200, "{good} of them were commands");
    }
}
