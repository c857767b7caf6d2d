//! What can go wrong between a name and a proved entry, and what to do about it.

use std::path::PathBuf;

use thiserror::Error;

/// An error of the constants crate. Messages read well after "failed to …:".
#[derive(Debug, Error)]
pub enum ConstError {
    /// The words that name a constant cannot be read.
    #[error("`{query}` names no constant: {why}")]
    BadQuery {
        /// What was typed.
        query: String,
        /// What is wrong with it.
        why: String,
    },
    /// No definition with that name.
    #[error("no macro, static const, enum member or variable is called `{name}`{}", suggest(suggestions))]
    UnknownName {
        /// What was typed.
        name: String,
        /// Names that look alike.
        suggestions: Vec<String>,
    },
    /// The file is not in the tree.
    #[error("`{file}` is not in {}: give a path relative to the top of the source", tree.display())]
    NoSuchFile {
        /// What was typed.
        file: String,
        /// The source tree.
        tree: PathBuf,
    },
    /// A path of the tree from which nothing is compiled.
    #[error("nothing in `{path}` is compiled with this configuration: name another file or directory")]
    NotCompiled {
        /// What was typed.
        path: String,
    },
    /// The history of a work tree cannot be read.
    #[error("git cannot say how often values changed in {}: it ended with {status}", tree.display())]
    History {
        /// The tree.
        tree: PathBuf,
        /// How git ended.
        status: String,
    },
    /// The file is shorter.
    #[error("`{file}` has {lines} lines, there is no line {line}")]
    NoSuchLine {
        /// The file.
        file: String,
        /// The line asked for.
        line: u32,
        /// How many there are.
        lines: u32,
    },
    /// The line does not use the name.
    #[error("line {line} of {file} has no use {index} of `{name}`, counted from 0: it reads `{content}`")]
    NoSuchUse {
        /// The file.
        file: String,
        /// The line.
        line: u32,
        /// The name asked for.
        name: String,
        /// Which of its uses.
        index: u32,
        /// What the line holds.
        content: String,
    },
    /// The line does not hold the value.
    #[error(
        "line {line} of {file} has no token {index} with the value {value}: it reads `{content}`{}",
        literal_list(literals)
    )]
    NoSuchValue {
        /// The file.
        file: String,
        /// The line.
        line: u32,
        /// The value asked for.
        value: i128,
        /// Which token of that value.
        index: u32,
        /// What the line holds.
        content: String,
        /// The integers that stand there.
        literals: Vec<String>,
    },
    /// The compiler refused something that must compile.
    #[error("the compiler refused {unit}{}:\n{output}", value.map(|v| format!(" with the value {v}")).unwrap_or_default())]
    Compile {
        /// The translation unit.
        unit: String,
        /// The value, if a variant was compiled.
        value: Option<i128>,
        /// What it said.
        output: String,
    },
    /// The kernel's build system gave no command for a unit.
    #[error("the kernel's build does not make {object}: {output}")]
    NoCommand {
        /// The object asked for.
        object: String,
        /// What make said.
        output: String,
    },
    /// The tree is not a prepared kernel source.
    #[error("{} is not a prepared kernel source: {why}", tree.display())]
    BadTree {
        /// The directory.
        tree: PathBuf,
        /// What is missing.
        why: String,
    },
    /// The source belongs to another kernel.
    #[error("the source in {} is {source_version}, the image is {image_release}: prepare the source of the image's own version", tree.display())]
    ForeignSource {
        /// The directory.
        tree: PathBuf,
        /// What the tree says it is.
        source_version: String,
        /// What the image says it is.
        image_release: String,
    },
    /// A value that the entry does not cover.
    #[error("{id} cannot be set to {value}: {why}")]
    OutsideDomain {
        /// The constant.
        id: String,
        /// The value.
        value: i128,
        /// Why not.
        why: String,
    },
    /// A policy reads an argument that is nowhere any more where the constant is used.
    #[error("a policy of {id} cannot see this: {why}")]
    NoArgument {
        /// The constant.
        id: String,
        /// Which argument, where, and which ones are there.
        why: String,
    },
    /// Immediate mode, where a thread could meet the old and the new value in one piece of work.
    #[error("{id} cannot be switched for everybody at once: {why}")]
    NotIndependent {
        /// The constant.
        id: String,
        /// In which safe span, and what to do.
        why: String,
    },
    /// A policy that could not be held to one decision for an execution of a safe span.
    #[error("{id} cannot have one decision for all of its places: {why}")]
    NoOnce {
        /// The constant.
        id: String,
        /// What stands in the way.
        why: String,
    },
    /// The constant is not settable at all.
    #[error("{id} cannot be set: {class}: {reason}")]
    NotSettable {
        /// The constant.
        id: String,
        /// Its class.
        class: String,
        /// Why.
        reason: String,
    },
    /// An entry that the table does not have.
    #[error("the scope table {} has no entry for `{query}` of build {build_id}{}", table.display(), suggest(suggestions))]
    NoEntry {
        /// The table.
        table: PathBuf,
        /// What was asked for.
        query: String,
        /// The running or named image.
        build_id: String,
        /// Entries that look alike.
        suggestions: Vec<String>,
    },
    /// The scope table cannot be used.
    #[error("the scope table {} cannot be used: {why}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A stored entry does not hold what it should.
    #[error("the entry of {id} is damaged: {why}; build it again")]
    Damaged {
        /// The constant.
        id: String,
        /// What is wrong.
        why: String,
    },
    /// The image.
    #[error(transparent)]
    Image(#[from] kerf_image::ImageError),
    /// A file or process.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The action.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A bug of ours.
    #[error("internal error: {0}")]
    Internal(String),
}

fn suggest(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("; did you mean {}?", names.join(", ")) }
}

fn literal_list(literals: &[String]) -> String {
    if literals.is_empty() {
        ", with no integer in it".into()
    } else {
        format!(", its integers are {}", literals.join(", "))
    }
}
