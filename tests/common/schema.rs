//! A check against a JSON schema, of the keywords that tests/*.schema.json use. A library would
//! bring fifty crates along, for `cargo test` to build.

use serde_json::{Map, Value};

/// A schema document.
pub struct Schema(Value);

impl Schema {
    pub fn parse(text: &str) -> Schema {
        Schema(serde_json::from_str(text).expect("the schema is JSON"))
    }

    /// Checks a value against the definition `#/$defs/name`.
    pub fn check(&self, name: &str, value: &Value) -> Result<(), String> {
        check(&self.0, self.definition(&format!("#/$defs/{name}")), value, "")
    }

    fn definition(&self, reference: &str) -> &Value {
        definition(&self.0, reference)
    }
}

fn definition<'a>(root: &'a Value, reference: &str) -> &'a Value {
    let pointer = reference.strip_prefix('#').expect("references stay within the document");
    root.pointer(pointer).unwrap_or_else(|| panic!("the schema has no {reference}"))
}

fn check(root: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let schema = match schema {
        Value::Bool(true) => return Ok(()),
        Value::Object(schema) => schema,
        other => panic!("{other} is no schema that is understood here"),
    };
    for (keyword, rule) in schema {
        let right = match &**keyword {
            "$schema" | "$id" | "$defs" | "title" | "description" => true,
            "$ref" => {
                check(root, definition(root, text(rule)), value, place)?;
                true
            }
            "oneOf" => {
                let checked = list(rule).iter().map(|one| check(root, one, value, place));
                let (good, bad): (Vec<_>, Vec<_>) = checked.partition(Result::is_ok);
                if good.len() != 1 {
                    return Err(format!("{place}: {value} is {} of {bad:?}", good.len()));
                }
                true
            }
            "type" => match rule {
                Value::Array(types) => types.iter().any(|one| has_type(value, text(one))),
                one => has_type(value, text(one)),
            },
            "const" => value == rule,
            "enum" => list(rule).contains(value),
            "minLength" => value.as_str().is_none_or(|s| s.chars().count() >= number(rule)),
            "maxLength" => value.as_str().is_none_or(|s| s.chars().count() <= number(rule)),
            "minItems" => value.as_array().is_none_or(|items| items.len() >= number(rule)),
            "maxItems" => value.as_array().is_none_or(|items| items.len() <= number(rule)),
            "minimum" => value.as_f64().is_none_or(|n| n >= rule.as_f64().unwrap()),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{place}/{index}"))?;
                }
                true
            }
            "required" => value
                .as_object()
                .is_none_or(|object| list(rule).iter().all(|name| object.contains_key(text(name)))),
            "properties" => {
                for (name, item) in value.as_object().into_iter().flatten() {
                    if let Some(rule) = rule.get(name) {
                        check(root, rule, item, &format!("{place}/{name}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                assert_eq!(*rule, Value::Bool(false), "the only rule that is understood here");
                let known = |name: &String| properties(schema).contains_key(name);
                value.as_object().is_none_or(|object| object.keys().all(known))
            }
            // Passing over a rule would be to check less than the schema says.
            other => panic!("the keyword {other} is not understood here"),
        };
        if !right {
            return Err(format!("{place}: {value} is not as {keyword} {rule} says"));
        }
    }
    Ok(())
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the type {other} is not understood here"),
    }
}

fn properties(schema: &Map<String, Value>) -> &Map<String, Value> {
    schema["properties"].as_object().expect("properties are an object")
}

fn text(rule: &Value) -> &str {
    rule.as_str().expect("a string in the schema")
}

fn list(rule: &Value) -> &[Value] {
    rule.as_array().expect("an array in the schema")
}

fn number(rule: &Value) -> usize {
    rule.as_u64().expect("a whole number in the schema") as usize
}
