//! A build id: which build of a kernel or module bytes belong to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A GNU build id of 1 to 20 bytes. Shown and parsed as lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct BuildId(Vec<u8>);

/// A text or a run of bytes that is no build id.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a build id (2 to 40 hexadecimal digits, an even number)")]
pub struct BuildIdError(String);

impl BuildId {
    /// From raw bytes.
    ///
    /// # Errors
    /// If there are none or more than 20.
    pub fn from_bytes(bytes: &[u8]) -> Result<BuildId, BuildIdError> {
        match bytes.len() {
            1..=20 => Ok(BuildId(bytes.to_vec())),
            _ => Err(BuildIdError(hex(bytes))),
        }
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for BuildId {
    type Err = BuildIdError;

    fn from_str(text: &str) -> Result<BuildId, BuildIdError> {
        let bytes = unhex(text).ok_or_else(|| BuildIdError(text.to_owned()))?;
        BuildId::from_bytes(&bytes).map_err(|_| BuildIdError(text.to_owned()))
    }
}

impl From<BuildId> for String {
    fn from(id: BuildId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for BuildId {
    type Error = BuildIdError;

    fn try_from(text: String) -> Result<BuildId, BuildIdError> {
        text.parse()
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that hexadecimal digits stand for, if they do.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    pairs
        .remainder()
        .is_empty()
        .then(|| pairs.map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints() {
        let id = BuildId::from_bytes(&[0x76, 0x49, 0x00, 0xff]).unwrap();
        assert_eq!(id.to_string(), "764900ff");
        assert_eq!(id.to_string().parse::<BuildId>().unwrap(), id);
    }

    #[test]
    fn refuses_what_is_none() {
        for text in ["", "7", "7g", "zz", &"00".repeat(21)] {
            assert!(text.parse::<BuildId>().is_err(), "{text:?}");
        }
    }
}
