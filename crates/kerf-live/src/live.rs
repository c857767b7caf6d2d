//! The open module: a transaction is one write, the state is what a read gives.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use crate::status::{self, Outcome, Status};
use crate::{LiveError, PROTOCOL, Transaction, record};

const DEVICE: &str = "/dev/kerf";

/// A connection to kerf.ko.
#[derive(Debug)]
pub struct Live {
    device: File,
}

impl Live {
    /// Opens the module's device and checks that the module speaks this crate's protocol.
    ///
    /// # Errors
    /// If the module is not loaded, the caller is not root, or the module is of another build.
    pub fn open() -> Result<Live, LiveError> {
        Live::open_at(Path::new(DEVICE))
    }

    pub(crate) fn open_at(path: &Path) -> Result<Live, LiveError> {
        let device = File::options().read(true).write(true).open(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => LiveError::NoModule,
            io::ErrorKind::PermissionDenied => LiveError::NotPermitted,
            _ => LiveError::Device { action: "open it", source },
        })?;
        let mut live = Live { device };
        let found = status::protocol(&live.read()?)?;
        if found == PROTOCOL { Ok(live) } else { Err(LiveError::OtherBuild { module: found, tool: PROTOCOL }) }
    }

    fn read(&mut self) -> Result<String, LiveError> {
        let mut text = String::new();
        let result = self.device.seek(SeekFrom::Start(0)).and_then(|_| self.device.read_to_string(&mut text));
        result.map_err(|source| LiveError::Device { action: "read it", source })?;
        Ok(text)
    }

    /// One write(2): the module carries out all of it or none, also when this process dies meanwhile.
    fn submit(&mut self, record: &[u8]) -> Result<Outcome, LiveError> {
        match self.device.write(record) {
            Ok(written) if written == record.len() => Ok(self.status()?.outcome),
            Ok(_) => Err(LiveError::Device { action: "write all of it", source: io::ErrorKind::WriteZero.into() }),
            Err(source) => {
                let text = self.status().map(|status| status.outcome.text).unwrap_or_default();
                Err(LiveError::from_write(source, text))
            }
        }
    }

    /// Carries out a transaction: all its entries are set and unset in one moment, or none. An id that is set already is replaced.
    ///
    /// # Errors
    /// [`LiveError::Owned`], [`LiveError::Busy`], [`LiveError::Mismatch`], [`LiveError::OtherKernel`] and
    /// [`LiveError::Refused`] say which rule the module refused it by; nothing has changed then.
    pub fn set(&mut self, transaction: &Transaction) -> Result<Outcome, LiveError> {
        self.submit(&record::encode(transaction)?)
    }

    /// Gives the stock text back for these ids, together, waiting up to two seconds for tasks to leave.
    ///
    /// # Errors
    /// As [`Live::set`]; [`LiveError::NotFound`] when one is not set.
    pub fn unset(&mut self, ids: &[impl AsRef<str>]) -> Result<Outcome, LiveError> {
        self.submit(&record::encode_unset(ids, Duration::from_secs(2))?)
    }

    /// Takes a policy out: its constants are stock again together, and its files are closed.
    ///
    /// # Errors
    /// As [`Live::set`]; [`LiveError::NotFound`] when it is not loaded.
    pub fn drop_policy(&mut self, name: &str, timeout: Duration) -> Result<Outcome, LiveError> {
        self.submit(&record::encode_drop(name, timeout)?)
    }

    /// Gives the stock text back everywhere, in one moment.
    ///
    /// # Errors
    /// As [`Live::set`].
    pub fn unset_all(&mut self) -> Result<Outcome, LiveError> {
        self.submit(&record::encode_unset_all(Duration::from_secs(2)))
    }

    /// What is in force now. The module compares the bytes of every location with what they should be.
    ///
    /// # Errors
    /// If the device cannot be read or what it says cannot be understood.
    pub fn status(&mut self) -> Result<Status, LiveError> {
        Ok(status::parse(&self.read()?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn says_that_the_module_is_missing() {
        let error = Live::open_at(Path::new("/nonexistent/kerf")).unwrap_err();
        assert!(matches!(error, LiveError::NoModule), "{error}");
    }

    #[test]
    fn tells_a_module_of_another_build() {
        let other = PROTOCOL + 1;
        let file = device(&format!("kerf protocol={other} build_id=00\n"));
        let error = Live::open_at(file.path()).unwrap_err();
        assert!(matches!(error, LiveError::OtherBuild { module, tool: PROTOCOL } if module == other), "{error}");
    }

    #[test]
    fn tells_a_device_that_is_none() {
        let error = Live::open_at(device("hello\n").path()).unwrap_err();
        assert!(matches!(error, LiveError::Status(_)), "{error}");
    }
}
