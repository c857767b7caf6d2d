//! 128-bit numbers in JSON: plain where serde's buffered formats can hold them, else decimal text.
//!
//! Tagged enums and flattened fields are buffered by serde before they are read, and the buffer has no 128-bit integers.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

/// Writes a number; for `#[serde(with = "crate::exact")]`.
pub fn serialize<S: Serializer>(value: &i128, serializer: S) -> Result<S::Ok, S::Error> {
    match (i64::try_from(*value), u64::try_from(*value)) {
        (Ok(small), _) => serializer.serialize_i64(small),
        (_, Ok(small)) => serializer.serialize_u64(small),
        _ => serializer.serialize_str(&value.to_string()),
    }
}

/// Reads what [`serialize`] wrote.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i128, D::Error> {
    deserializer.deserialize_any(Exact)
}

struct Exact;

impl Visitor<'_> for Exact {
    type Value = i128;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an integer")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<i128, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<i128, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<i128, E> {
        text.parse().map_err(|_| E::custom(format!("`{text}` is not an integer")))
    }
}

#[cfg(test)]
mod tests {
    use crate::form::Form;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn forms_come_back_whatever_their_numbers(a: i128, b: i64) {
            let form = Form::Affine { a, b: b.into() };
            let text = serde_json::to_string(&form).unwrap();
            prop_assert_eq!(serde_json::from_str::<Form>(&text).unwrap(), form);
        }
    }

    #[test]
    fn numbers_are_plain_where_they_can_be() {
        let text = serde_json::to_string(&Form::Quotient { factor: 1, a: 4, b: 3, c: 0 }).unwrap();
        assert_eq!(text, r#"{"form":"quotient","a":4,"b":3,"c":0}"#);
        let multiple = Form::Quotient { factor: 64, a: 4, b: 3, c: 0 };
        let text = serde_json::to_string(&multiple).unwrap();
        assert_eq!(text, r#"{"form":"quotient","factor":64,"a":4,"b":3,"c":0}"#);
        assert_eq!(serde_json::from_str::<Form>(&text).unwrap(), multiple);
    }
}
