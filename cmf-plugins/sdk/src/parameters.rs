//! Parameters as a plugin reads them: checked against the schema, defaults filled in.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Parameters by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parameters(Map<String, Value>);

impl Parameters {
    /// From a JSON object; [`crate::Schema::complete`] is what checks it.
    pub(crate) fn new(map: Map<String, Value>) -> Parameters {
        Parameters(map)
    }

    /// The JSON object, flat and without spaces.
    pub fn to_json(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// A parameter as it stands.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A number.
    pub fn number(&self, name: &str) -> Result<f64> {
        self.read(name, "a number", Value::as_f64)
    }

    /// A whole number that is not negative.
    pub fn count(&self, name: &str) -> Result<usize> {
        let as_count = |v: &Value| v.as_u64().and_then(|v| usize::try_from(v).ok());
        self.read(name, "a whole number that is not negative", as_count)
    }

    /// A seed, or another whole number that is not negative.
    pub fn seed(&self, name: &str) -> Result<u64> {
        self.read(name, "a whole number that is not negative", Value::as_u64)
    }

    /// Yes or no.
    pub fn flag(&self, name: &str) -> Result<bool> {
        self.read(name, "true or false", Value::as_bool)
    }

    /// Text.
    pub fn text(&self, name: &str) -> Result<&str> {
        let value = self.0.get(name).and_then(Value::as_str);
        value.ok_or_else(|| self.mismatch(name, "text"))
    }

    /// Several numbers.
    pub fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        let all = |v: &Value| v.as_array().and_then(|a| a.iter().map(Value::as_f64).collect());
        self.read(name, "an array of numbers", all)
    }

    fn read<T>(&self, name: &str, kind: &str, read: impl Fn(&Value) -> Option<T>) -> Result<T> {
        self.0.get(name).and_then(read).ok_or_else(|| self.mismatch(name, kind))
    }

    fn mismatch(&self, name: &str, kind: &str) -> Error {
        let found = self.0.get(name).map_or("nothing".to_string(), Value::to_string);
        Error::invalid(format!("parameter {name}: expected {kind}, found {found}"))
    }
}
