//! `kerf generate`: man pages and shell completions from the words of the command line, for who packages the program.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use crate::print;

/// Where to.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// The directory in which `usr/share/…` is made.
    root: PathBuf,
}

/// Shells and where their packages look for completions.
const SHELLS: [(Shell, &str, &str); 3] = [
    (Shell::Bash, "usr/share/bash-completion/completions", "kerf"),
    (Shell::Zsh, "usr/share/zsh/vendor-completions", "_kerf"),
    (Shell::Fish, "usr/share/fish/vendor_completions.d", "kerf.fish"),
];

impl GenerateArgs {
    /// Does it.
    pub fn run(self) -> anyhow::Result<u8> {
        let mut command = Cli::command();
        command.build();
        for (shell, directory, name) in SHELLS {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command, "kerf", &mut text);
            self.write(directory, name, &text)?;
        }
        self.pages(&command)?;
        Ok(0)
    }

    /// A page for a word and one for each word below it: `kerf-const-set.1`.
    fn pages(&self, command: &clap::Command) -> anyhow::Result<()> {
        let page = clap_mangen::Man::new(command.clone());
        let (name, mut text) = (page.get_filename(), Vec::new());
        page.render(&mut text).with_context(|| format!("write the page {name}"))?;
        self.write("usr/share/man/man1", &name, &text)?;
        let mut below = command.get_subcommands().filter(|word| !word.is_hide_set() && word.get_name() != "help");
        below.try_for_each(|word| self.pages(word))
    }

    fn write(&self, directory: &str, name: &str, text: &[u8]) -> anyhow::Result<()> {
        let directory = self.root.join(directory);
        let file = directory.join(name);
        write_file(&directory, &file, text).with_context(|| format!("write {}", file.display()))?;
        print::text(&file.display().to_string())
    }
}

fn write_file(directory: &Path, file: &Path, text: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::write(file, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        GenerateArgs { root: dir.path().to_owned() }.run().unwrap();
        let page = |name: &str| fs::read_to_string(dir.path().join("usr/share/man/man1").join(name)).unwrap();
        assert!(page("kerf.1").contains("kerf\\-const(1)"), "{}", page("kerf.1"));
        assert!(page("kerf-const-set.1").contains("BLK_MAX_REQUEST_COUNT"));
        for (_, directory, name) in SHELLS {
            let text = fs::read_to_string(dir.path().join(directory).join(name)).unwrap();
            assert!(text.contains("kerf") && text.contains("unset"), "{name}");
        }
        assert!(!dir.path().join("usr/share/man/man1/kerf-lab-init.1").exists());
    }
}
