//! A JSON object whose members keep the bytes of their values.
//!
//! What is published is what was sent: a parser that makes a tree of it loses the order of members
//! and which of two with one name came first, and changes numbers (`1.0`, `1e400`). So only the
//! outermost object is taken apart. The value of each member is checked to be JSON, and stays text
//! until somebody asks what is in it.

use std::collections::BTreeMap;
use std::fmt;

use serde_core::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::error::EventError;

/// The members of an object, by name.
#[derive(Debug)]
pub struct Members<'a> {
    values: BTreeMap<String, &'a RawValue>,
    repeated: Option<String>,
}

impl<'a> Members<'a> {
    /// Reads an object.
    ///
    /// # Errors
    /// Where `text` is no JSON, or no object: [`serde_json::Error::is_data`] tells which.
    pub fn parse(text: &'a str) -> serde_json::Result<Members<'a>> {
        // What is no object has been read only to its first byte; the rest may be no JSON at all.
        serde_json::from_str(text)
            .map_err(|error| serde_json::from_str::<&RawValue>(text).err().unwrap_or(error))
    }

    /// The text of a member's value, without white space around it. The member is gone afterwards.
    pub fn take(&mut self, name: &str) -> Option<&'a str> {
        self.values.remove(name).map(RawValue::get)
    }

    /// The same for a member that must be a string, `null`, or not there.
    ///
    /// # Errors
    /// [`EventError::NotAString`].
    pub fn take_string(&mut self, name: &str) -> Result<Option<String>, EventError> {
        let value = self.take(name).unwrap_or("null");
        serde_json::from_str(value).map_err(|_| EventError::NotAString(name.to_owned()))
    }

    /// The name of one of the members that nobody has taken.
    pub fn rest(&self) -> Option<&str> {
        self.values.keys().next().map(String::as_str)
    }

    /// The first name that more than one member has. Which of them counts, programs see differently
    /// (RFC 8259 section 4), so such an object should be refused.
    pub fn repeated(&self) -> Option<&str> {
        self.repeated.as_deref()
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'de>, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members { values: BTreeMap::new(), repeated: None };
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            if members.repeated.is_none() && members.values.contains_key(&name) {
                members.repeated = Some(name.clone());
            }
            members.values.insert(name, value);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_bytes() {
        let text =
            " {\"a\": [1.0,\n 1e400] ,\"b\":\"x\\u0079\",\"c\":null,\"d\":{\"e\":1,\"e\":2}} ";
        let mut members = Members::parse(text).unwrap();
        assert_eq!(members.take("a"), Some("[1.0,\n 1e400]"));
        assert_eq!(members.take("a"), None);
        assert_eq!(members.take_string("b"), Ok(Some("xy".to_owned())));
        assert_eq!(members.take_string("c"), Ok(None));
        assert_eq!(members.rest(), Some("d"));
        assert!(members.take_string("d").is_err());
        assert_eq!((members.rest(), members.repeated()), (None, None));
    }

    #[test]
    fn a_name_that_is_there_twice_is_found() {
        let members = Members::parse(r#"{"b":1,"a":1,"\u0061":1,"b":1,"c":1}"#).unwrap();
        assert_eq!(members.repeated(), Some("a"));
    }

    #[test]
    fn no_json_and_no_object_are_told_apart() {
        for text in [
            "",
            "{",
            r#"{"a":01}"#,
            r#"{"a":"\n}"#,
            "{\"a\":\"\n\"}",
            "{} {}",
            "[1",
            "1 x",
            "{\"a\":1,}",
        ] {
            assert!(!Members::parse(text).unwrap_err().is_data(), "{text}");
        }
        for text in ["1", "null", "[]", "\"x\""] {
            assert!(Members::parse(text).unwrap_err().is_data(), "{text}");
        }
    }
}
