//! All drop-ins together: which word counts where several speak of the same thing.

use std::fs;
use std::path::Path;

use crate::{ConfigError, Constant, DropIn, Policy, check_permissions, files};

/// What all files together want.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// In the order of files and lines.
    pub constants: Vec<Constant>,
    /// In the order of files and lines.
    pub policies: Vec<Policy>,
    /// Sentences about what does not count or is not understood.
    pub warnings: Vec<String>,
}

impl Wanted {
    /// Reads the drop-ins of directories. With `trusted`, none of them may have been written by others than root.
    ///
    /// # Errors
    /// The first file that cannot be read, trusted or understood: then nothing is to be applied.
    pub fn read(directories: &[impl AsRef<Path>], trusted: bool) -> Result<Wanted, ConfigError> {
        let mut dropins = Vec::new();
        for path in files::find(directories)? {
            if trusted {
                check_permissions(&path)?;
            }
            let text = fs::read_to_string(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
            dropins.push(DropIn::parse(&path, &text)?);
        }
        Ok(Wanted::merge(dropins))
    }

    /// The first file that speaks of a constant or policy decides on all of it.
    pub fn merge(dropins: Vec<DropIn>) -> Wanted {
        let mut wanted = Wanted::default();
        for dropin in dropins {
            wanted.warnings.extend(dropin.warnings);
            for constant in dropin.constants {
                match wanted.constants.iter().find(|first| first.id == constant.id) {
                    Some(first) => wanted.warnings.push(format!(
                        "{}: {} does not count: {} came first",
                        constant.place, constant.id, first.place
                    )),
                    None => wanted.constants.push(constant),
                }
            }
            for policy in dropin.policies {
                match wanted.policies.iter().find(|first| first.name == policy.name) {
                    Some(first) => wanted.warnings.push(format!(
                        "{}: the policy {} does not count: {} came first",
                        policy.place, policy.name, first.place
                    )),
                    None => wanted.policies.push(policy),
                }
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str, text: &str) -> DropIn {
        DropIn::parse(Path::new(path), text).unwrap()
    }

    #[test]
    fn the_first_word_counts() {
        let first = parsed("/etc/kerf.d/10-a.toml", "[const]\nA = 1\n[policy]\np = \"p.o\"\n");
        let second = parsed("/usr/lib/kerf.d/20-b.toml", "[const]\nB = 2\nA = 3\n[policy]\np = \"q.o\"\n");
        let wanted = Wanted::merge(vec![first, second]);
        let ids: Vec<&str> = wanted.constants.iter().map(|c| c.id.as_str()).collect();
        assert_eq!((ids, wanted.policies.len()), (vec!["A", "B"], 1));
        assert_eq!(wanted.policies[0].file, Path::new("/etc/kerf.d/p.o"));
        assert_eq!(
            wanted.warnings,
            [
                "/usr/lib/kerf.d/20-b.toml:3: A does not count: /etc/kerf.d/10-a.toml:2 came first",
                "/usr/lib/kerf.d/20-b.toml:5: the policy p does not count: /etc/kerf.d/10-a.toml:4 came first",
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Wanted::read(&[dir.path()], false).unwrap(), Wanted::default());
        fs::write(dir.path().join("a.toml"), "[const]\nA = \n").unwrap();
        let error = Wanted::read(&[dir.path()], false).unwrap_err();
        assert!(matches!(error, ConfigError::Syntax { line: 2, .. }), "{error}");
    }
}
