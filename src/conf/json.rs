//! JSON text to a value, where a key that stands twice in one object is an error: the parser by itself would let
//! the last one win, and the user would look at the other one.
//!
//! Called by `config`. Pure.

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Error, Map, Value};
use std::fmt;

/// The value of a whole text.
///
/// # Errors
/// With line and column of what is no JSON, or of a key that was there before.
pub(crate) fn parse(text: &str) -> Result<Value, Error> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let value = Once.deserialize(&mut parser)?;
    parser.end()?;
    Ok(value)
}

/// Builds a value whose keys are there once.
struct Once;

impl<'de> DeserializeSeed<'de> for Once {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Value, D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, on: bool) -> Result<Value, E> {
        Ok(on.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Once)? {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            if object.contains_key(&name) {
                let name = name.escape_debug();
                return Err(A::Error::custom(format_args!(
                    "key `{name}` stands here a second time: remove one of them"
                )));
            }
            let value = entries.next_value_seed(Once)?;
            object.insert(name, value);
        }
        Ok(object.into())
    }
}
