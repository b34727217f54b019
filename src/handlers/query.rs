//! The query of a request, the part of its target behind the `?`: which topics, from which event on.

use std::collections::BTreeSet;

use super::error::HandlerError;
use crate::event::draft::{check_name, check_topic};
use crate::http::head::percent_decode;
use crate::session::{LAST_EVENT_ID_NAMES, LATEST, LATEST_VALUES};

/// The parameters of all endpoints. Unknown ones are ignored, unless their name is nearly one of these.
#[derive(Debug, Default)]
pub struct Query {
    topics: BTreeSet<String>,
    /// `event=`: the name of a published event.
    pub event: Option<String>,
    /// `ticket=`: for clients that cannot send the subscribe token (see [`crate::auth::access`]).
    pub ticket: Option<String>,
}

impl Query {
    /// Reads a query, which has the form `application/x-www-form-urlencoded` (WHATWG URL, section 5.1).
    ///
    /// # Errors
    /// [`HandlerError::BadQuery`]: a topic or an event name that no event can have (see [`check_name`]),
    /// a parameter that is nearly one of ours, or percent-encoding that is not UTF-8.
    pub fn parse(query: &str) -> Result<Query, HandlerError> {
        let bad = HandlerError::BadQuery;
        let mut parsed = Query::default();
        // The parser would replace such bytes: two different topics would become one.
        if percent_decode(query).is_some_and(|bytes| std::str::from_utf8(&bytes).is_err()) {
            return Err(bad("the query holds percent-encoding that is not UTF-8".into()));
        }
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "topic" => {
                    check_name("topic", &value).map_err(|why| bad(why.to_string()))?;
                    parsed.topics.insert(value.into_owned());
                }
                "event" => {
                    check_name("event", &value).map_err(|why| bad(why.to_string()))?;
                    parsed.event = Some(value.into_owned());
                }
                // The session reads it.
                known if LAST_EVENT_ID_NAMES.contains(&known) => {}
                // The session reads this one, too.
                LATEST if LATEST_VALUES.contains(&&*value) => {}
                LATEST => return Err(bad("latest takes no value; leave it out, or use 1".into())),
                "ticket" => parsed.ticket = Some(value.into_owned()),
                unknown => {
                    if let Some(meant) = nearly(unknown) {
                        let message = format!("there is no parameter {unknown:?}; use {meant}=");
                        return Err(bad(message));
                    }
                }
            }
        }
        Ok(parsed)
    }

    /// The names of the topics asked for; `*`, which stands for all, may be one of them.
    pub fn topics(&self) -> &BTreeSet<String> {
        &self.topics
    }

    /// The topics that a query names, which the router has checked.
    ///
    /// # Errors
    /// As for [`Query::parse`].
    // Not inlined: its frame would be below every idle client's.
    #[inline(never)]
    pub fn topics_in(query: &str) -> Result<BTreeSet<String>, HandlerError> {
        Query::parse(query).map(|query| query.topics)
    }

    /// The one topic to publish on; `None` where the query names none.
    ///
    /// # Errors
    /// [`HandlerError::BadQuery`] where the query names several topics, or one that stands for several.
    pub fn single_topic(&self) -> Result<Option<&str>, HandlerError> {
        let bad = |message: String| HandlerError::BadQuery(message);
        if self.topics.len() > 1 {
            return Err(bad("an event has one topic; name it once".to_owned()));
        }
        let topic = self.topics.first().map(String::as_str);
        topic.map_or(Ok(()), check_topic).map_err(|error| bad(error.to_string()))?;
        Ok(topic)
    }
}

/// The parameter that `name` is probably meant to be. If a misspelt `topic` were ignored, the client
/// would get all topics.
fn nearly(name: &str) -> Option<&'static str> {
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    match letters.to_ascii_lowercase().as_str() {
        "topic" | "topics" | "channel" | "channels" => Some("topic"),
        "event" | "events" | "eventname" => Some("event"),
        "lasteventid" | "lastid" => Some("last_event_id"),
        "latest" => Some("latest"),
        "ticket" | "tickets" => Some("ticket"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_decoded_and_deduplicated() {
        let query = Query::parse("topic=a&topic=b%20c&topic=a&x=1&event=e").unwrap();
        assert_eq!(query.event.as_deref(), Some("e"));
        assert!(query.topics().iter().eq(["a", "b c"]));
        assert!(Query::parse("").unwrap().topics().is_empty());
    }

    #[test]
    fn a_publisher_names_one_topic() {
        let single = |query| {
            let query = Query::parse(query).unwrap();
            query.single_topic().map(|topic| topic.map(str::to_owned)).map_err(|_| ())
        };
        assert_eq!(single(""), Ok(None));
        assert_eq!(single("topic=a"), Ok(Some("a".to_owned())));
        assert_eq!(single("topic=a&topic=b"), Err(()));
        assert_eq!(single("topic=*"), Err(()));
        assert_eq!(single("topic=a/*"), Err(()));
    }

    #[test]
    fn what_is_nearly_a_parameter_is_refused() {
        for bad in ["topics=a", "Topic=a", "topic[]=a", "channel=a", "eventName=a", "topic=caf%E9"]
        {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
        for name in LAST_EVENT_ID_NAMES {
            assert!(Query::parse(&format!("{name}=x&_=17&access_token=x")).is_ok(), "{name}");
        }
        for latest in ["latest", "latest=", "latest=1", "latest=true"] {
            assert!(Query::parse(latest).is_ok(), "{latest}");
        }
        assert!(Query::parse("latest=5").is_err() && Query::parse("Latest").is_err());
        assert!(Query::parse("topic=caf%C3%A9").is_ok());
    }

    #[test]
    fn line_breaks_in_names_are_refused() {
        assert!(Query::parse("topic=a%0Ab").is_err());
        assert!(Query::parse("event=a%0Db").is_err());
        assert!(Query::parse("topic=").is_err());
    }
}
