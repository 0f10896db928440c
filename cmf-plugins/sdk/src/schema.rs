//! The part of JSON Schema that parameters are described in: a flat object of plain types.

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::parameters::Parameters;

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any finite number.
    Number,
    /// A whole number.
    Integer,
    /// true or false.
    Boolean,
    /// Text.
    Text,
    /// An array of numbers; of strings for the files of a task.
    Array,
}

/// One parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// What it is, for people.
    pub description: String,
    /// Its value where none is given.
    pub default: Option<Value>,
    /// The least number.
    pub minimum: Option<f64>,
    /// The largest number.
    pub maximum: Option<f64>,
    /// The texts that are allowed; any if empty.
    pub choices: Vec<String>,
    /// The fewest items of an array.
    pub min_items: usize,
    /// The most items of an array.
    pub max_items: usize,
}

/// The parameters of one entry.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schema {
    /// The parameters, in alphabetical order.
    pub properties: Vec<Property>,
    /// What becomes of the files that the user names: the property `inputs` of a task.
    pub inputs: Option<Property>,
}

/// Names that the command line has for itself.
const RESERVED: [&str; 9] =
    ["help", "model", "plugin", "no-plugins", "out", "json", "quiet", "set", "version"];

impl Schema {
    /// Reads a schema. Empty text is that of no parameters.
    pub fn parse(text: &str) -> Result<Schema> {
        if text.is_empty() {
            return Ok(Schema::default());
        }
        let fail = |what: &str| Error::invalid(format!("the parameter schema {what}"));
        let value: Value = serde_json::from_str(text).map_err(|e| fail(&format!("is no JSON: {e}")))?;
        if value["type"] != "object" {
            return Err(fail("must have \"type\": \"object\""));
        }
        let none = Map::new();
        let properties = match &value["properties"] {
            Value::Null => &none,
            Value::Object(map) => map,
            _ => return Err(fail("must have an object as its \"properties\"")),
        };
        let required: Vec<&str> =
            value["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut schema = Schema::default();
        for (name, value) in properties {
            let property =
                Property::parse(name, value).map_err(|e| fail(&format!("property {name}: {e}")))?;
            if name == "inputs" {
                schema.inputs = Some(property);
                continue;
            }
            if property.default.is_none() && !required.contains(&name.as_str()) {
                return Err(fail(&format!("property {name}: has no default and is not required")));
            }
            schema.properties.push(property);
        }
        Ok(schema)
    }

    /// Checks parameters given as JSON, empty text being none, and fills in the defaults.
    pub fn complete(&self, json: &str) -> Result<Parameters> {
        let given = match json.trim() {
            "" => Map::new(),
            text => match serde_json::from_str(text) {
                Ok(Value::Object(map)) => map,
                Ok(_) => return Err(Error::invalid("parameters: expected a JSON object")),
                Err(e) => return Err(Error::invalid(format!("parameters: are no JSON: {e}"))),
            },
        };
        if let Some(name) = given.keys().find(|name| self.properties.iter().all(|p| &p.name != *name)) {
            let known: Vec<&str> = self.properties.iter().map(|p| p.name.as_str()).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            return Err(Error::invalid(format!("there is no parameter {name}; expected one of: {known}")));
        }
        let mut all = Map::new();
        for property in &self.properties {
            let Some(value) = given.get(&property.name).or(property.default.as_ref()) else {
                return Err(Error::invalid(format!("the parameter {} is missing", property.name)));
            };
            property.check(value)?;
            all.insert(property.name.clone(), value.clone());
        }
        Ok(Parameters::new(all))
    }
}

impl Property {
    fn parse(name: &str, value: &Value) -> Result<Property, String> {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if name.is_empty() || !name.chars().all(letter) || name.starts_with('-') {
            return Err("a name is lower case letters, digits, - and _".into());
        }
        if RESERVED.contains(&name) {
            return Err("the command line has this name for itself".into());
        }
        let kind = match value["type"].as_str() {
            Some("number") => Kind::Number,
            Some("integer") => Kind::Integer,
            Some("boolean") => Kind::Boolean,
            Some("string") => Kind::Text,
            Some("array") => Kind::Array,
            _ => return Err("type must be number, integer, boolean, string or array".into()),
        };
        let items = |key: &str, otherwise: usize| value[key].as_u64().map_or(otherwise, |v| v as usize);
        let choices = value["enum"].as_array().into_iter().flatten();
        let property = Property {
            name: name.to_string(),
            kind,
            description: value["description"].as_str().unwrap_or_default().to_string(),
            default: value.get("default").cloned(),
            minimum: value["minimum"].as_f64(),
            maximum: value["maximum"].as_f64(),
            choices: choices.filter_map(|v| v.as_str().map(String::from)).collect(),
            min_items: items("minItems", 0),
            max_items: items("maxItems", usize::MAX),
        };
        if let Some(default) = &property.default {
            property.check(default).map_err(|e| format!("its default: {e}"))?;
        }
        Ok(property)
    }

    /// Fails, saying found and expected, unless the value is one of this parameter.
    pub fn check(&self, value: &Value) -> Result<()> {
        let number = |v: &Value| v.as_f64().filter(|v| v.is_finite());
        let in_range = |v: f64| self.minimum.is_none_or(|m| v >= m) && self.maximum.is_none_or(|m| v <= m);
        let fits = match self.kind {
            Kind::Number => number(value).is_some_and(in_range),
            Kind::Integer => (value.is_i64() || value.is_u64()) && number(value).is_some_and(in_range),
            Kind::Boolean => value.is_boolean(),
            Kind::Text => value
                .as_str()
                .is_some_and(|text| self.choices.is_empty() || self.choices.iter().any(|c| c == text)),
            Kind::Array => value.as_array().is_some_and(|items| {
                (self.min_items..=self.max_items).contains(&items.len())
                    && items.iter().all(|v| number(v).is_some_and(in_range))
            }),
        };
        if fits {
            return Ok(());
        }
        Err(Error::invalid(format!("parameter {}: expected {}, found {value}", self.name, self.expected())))
    }

    /// What is accepted, in words.
    pub fn expected(&self) -> String {
        let kind = match self.kind {
            Kind::Number => "a number",
            Kind::Integer => "a whole number",
            Kind::Boolean => "true or false",
            Kind::Text if !self.choices.is_empty() => return format!("one of {}", self.choices.join(", ")),
            Kind::Text => "text",
            Kind::Array => "an array of numbers",
        };
        let mut words = kind.to_string();
        match (self.minimum, self.maximum) {
            (Some(low), Some(high)) => words += &format!(" from {low} to {high}"),
            (Some(low), None) => words += &format!(" from {low}"),
            (None, Some(high)) => words += &format!(" up to {high}"),
            (None, None) => {}
        }
        match (self.kind, self.min_items, self.max_items) {
            (Kind::Array, 0, usize::MAX) => {}
            (Kind::Array, low, usize::MAX) => words += &format!(", at least {low}"),
            (Kind::Array, low, high) => words += &format!(", {low} to {high} of them"),
            _ => {}
        }
        words
    }

    /// The value that a word of the command line stands for.
    pub fn parse_word(&self, word: &str) -> Result<Value> {
        let value = match self.kind {
            Kind::Text => Value::String(word.to_string()),
            Kind::Array if !word.trim_start().starts_with('[') => {
                serde_json::from_str(&format!("[{word}]")).unwrap_or(Value::String(word.to_string()))
            }
            // 1e3 and .5 are numbers to people, if not to JSON.
            Kind::Number => {
                let number = word.parse().ok().and_then(serde_json::Number::from_f64);
                number.map_or(Value::String(word.to_string()), Value::Number)
            }
            _ => serde_json::from_str(word).unwrap_or(Value::String(word.to_string())),
        };
        self.check(&value)?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"type":"object","properties":{
        "depth":{"type":"number","default":1.5,"minimum":0},"side":{"type":"integer","minimum":2,"maximum":9},
        "mode":{"type":"string","enum":["a","b"],"default":"a"},"means":{"type":"array","default":[1,2],"minItems":1}},
        "required":["side"]}"#;

    #[test]
    fn defaults_are_filled_in_and_what_does_not_fit_is_named() {
        let schema = Schema::parse(TEXT).unwrap();
        let all = schema.complete(r#"{"side":4}"#).unwrap();
        assert_eq!(all.to_json(), r#"{"depth":1.5,"means":[1,2],"mode":"a","side":4}"#);
        assert_eq!(all.numbers("means").unwrap(), [1.0, 2.0]);
        for (json, words) in [
            ("{}", "the parameter side is missing"),
            (r#"{"side":1}"#, "side: expected a whole number from 2 to 9, found 1"),
            (r#"{"side":2.5}"#, "found 2.5"),
            (r#"{"side":2,"mode":"c"}"#, "expected one of a, b, found \"c\""),
            (r#"{"side":2,"means":[]}"#, "expected an array of numbers, at least 1"),
            (r#"{"side":2,"deep":1}"#, "there is no parameter deep; expected one of: depth, means"),
            ("[", "are no JSON"),
            ("[]", "expected a JSON object"),
        ] {
            let e = schema.complete(json).unwrap_err();
            assert!(e.text.contains(words), "{e}");
        }
    }

    #[test]
    fn schemas_that_cannot_be_served_are_refused() {
        for (text, words) in [
            (r#"{"type":"array"}"#, "\"type\": \"object\""),
            (r#"{"type":"object","properties":{"a":{"type":"number"}}}"#, "no default and is not required"),
            (r#"{"type":"object","properties":{"a":{"type":"null","default":1}}}"#, "type must be"),
            (r#"{"type":"object","properties":{"model":{"type":"string","default":""}}}"#, "for itself"),
            (r#"{"type":"object","properties":{"a":{"type":"integer","default":1.5}}}"#, "its default"),
        ] {
            assert!(Schema::parse(text).unwrap_err().text.contains(words), "{text}");
        }
    }

    #[test]
    fn words_of_the_command_line_become_values() {
        let schema = Schema::parse(TEXT).unwrap();
        let of = |name: &str| schema.properties.iter().find(|p| p.name == name).unwrap().clone();
        assert_eq!(of("depth").parse_word("1e3").unwrap(), 1000.0);
        assert_eq!(of("means").parse_word("1,-2.5").unwrap(), serde_json::json!([1, -2.5]));
        assert_eq!(of("side").parse_word("7").unwrap(), 7);
        assert!(of("side").parse_word("x").unwrap_err().text.contains("found \"x\""));
        assert!(of("depth").parse_word("nan").is_err());
    }
}
