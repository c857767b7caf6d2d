//! What the compiler has made of a text before: kept in files, named by all that it depends on.
//!
//! A preprocessed text includes nothing, so the text, the options and the compiler decide the result, down to what is said of an error. Many
//! constants share units, and a build that was interrupted begins again: what was compiled once is read instead.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::entry::to_hex;

/// A directory of results.
#[derive(Debug)]
pub struct Kept {
    directory: PathBuf,
}

/// What came of a compilation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The object, or the listing.
    Made(Vec<u8>),
    /// What the compiler said.
    Refused(String),
}

impl Kept {
    /// Results are kept in this directory, which is made when the first one comes.
    pub fn in_directory(directory: PathBuf) -> Self {
        Kept { directory }
    }

    /// The file for a compilation; nothing where it is not known what else decides the result.
    pub fn place(&self, compiler: &str, words: &[String], text: &str) -> Option<PathBuf> {
        if words.iter().any(|word| word.starts_with("-fplugin")) {
            return None;
        }
        let program = which(compiler)?;
        let metadata = fs::metadata(&program).ok()?;
        let changed = metadata.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let mut digest = Sha256::new();
        let mut add = |bytes: &[u8]| {
            digest.update(bytes.len().to_le_bytes());
            digest.update(bytes);
        };
        add(program.as_os_str().as_encoded_bytes());
        add(&metadata.len().to_le_bytes());
        add(&changed.as_nanos().to_le_bytes());
        add(&words.len().to_le_bytes());
        words.iter().for_each(|word| add(word.as_bytes()));
        add(text.as_bytes());
        let name = to_hex(&digest.finalize());
        let (shelf, rest) = name.split_at(2);
        Some(self.directory.join(shelf).join(rest))
    }

    /// What is there. A file that cannot be read is as good as none.
    pub fn find(&self, place: &Path) -> Option<Outcome> {
        let packed = fs::read(place).ok()?;
        let mut content = lz4_flex::block::decompress_size_prepended(&packed).ok()?;
        let outcome = match content.pop()? {
            0 => Outcome::Made(content),
            1 => Outcome::Refused(String::from_utf8(content).ok()?),
            _ => return None,
        };
        // When it was asked for decides how long it stays.
        let _ = fs::File::open(place).and_then(|file| file.set_modified(SystemTime::now()));
        Some(outcome)
    }

    /// Keeps a result. Where that is not possible the next one compiles again.
    pub fn keep(&self, place: &Path, outcome: &Outcome) {
        let (bytes, word) = match outcome {
            Outcome::Made(bytes) => (bytes.as_slice(), 0),
            Outcome::Refused(said) => (said.as_bytes(), 1),
        };
        let packed = lz4_flex::block::compress_prepend_size(&[bytes, &[word]].concat());
        let write = || {
            let directory = place.parent().unwrap_or(&self.directory);
            fs::create_dir_all(directory)?;
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(&packed)?;
            file.persist(place).map_err(|error| error.error)
        };
        if let Err(error) = write() {
            tracing::debug!(%error, place = %place.display(), "keep a compilation");
        }
    }

    /// Removes what was asked for longest ago until at most `limit` bytes are left.
    pub fn prune(&self, limit: u64) {
        let shelves = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let files = shelves.flat_map(|shelf| fs::read_dir(shelf.path()).into_iter().flatten().flatten());
        let mut known: Vec<(SystemTime, u64, PathBuf)> = files
            .filter_map(|file| {
                let metadata = file.metadata().ok()?;
                Some((metadata.modified().ok()?, metadata.len(), file.path()))
            })
            .collect();
        known.sort();
        let mut total = 0;
        for (_, size, file) in known.into_iter().rev() {
            total += size;
            if total > limit {
                // Another process may have been faster.
                let _ = fs::remove_file(file);
            }
        }
    }
}

/// Where the shell would find a program.
fn which(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_result_is_found_by_all_that_it_depends_on() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::in_directory(dir.path().join("objects"));
        let place = |w: &[&str], text: &str| kept.place("sh", &words(w), text).unwrap();
        let one = place(&["-O2", "-c"], "int a;");
        assert_eq!(kept.find(&one), None);
        kept.keep(&one, &Outcome::Made(vec![0, 1, 2]));
        assert_eq!(kept.find(&place(&["-O2", "-c"], "int a;")), Some(Outcome::Made(vec![0, 1, 2])));
        for other in [place(&["-O2-c"], "int a;"), place(&["-O2", "-c"], "int b;"), place(&["-c", "-O2"], "int a;")] {
            assert_eq!(kept.find(&other), None);
        }
        assert_eq!(kept.place("no-such-compiler", &[], ""), None);
        assert_eq!(kept.place("sh", &words(&["-fplugin=x.so"]), ""), None, "a plugin may read anything");
    }

    #[test]
    fn refusals_are_kept_and_damage_counts_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::in_directory(dir.path().to_owned());
        let place = kept.place("sh", &[], "x").unwrap();
        let refused = Outcome::Refused("error: size of array is negative".into());
        kept.keep(&place, &refused);
        assert_eq!(kept.find(&place), Some(refused));
        fs::write(&place, b"\xff\xff\xff\xff half").unwrap();
        assert_eq!(kept.find(&place), None);
    }

    #[test]
    fn the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::in_directory(dir.path().to_owned());
        let places: Vec<PathBuf> = ["a", "b", "c"].map(|text| kept.place("sh", &[], text).unwrap()).into();
        for (age, place) in places.iter().enumerate() {
            kept.keep(place, &Outcome::Made(vec![7; 100]));
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(age as u64 + 1);
            fs::File::open(place).unwrap().set_modified(time).unwrap();
        }
        let size = fs::metadata(&places[0]).unwrap().len();
        kept.prune(2 * size);
        assert_eq!(places.iter().map(|place| place.exists()).collect::<Vec<_>>(), [false, true, true]);
    }
}
