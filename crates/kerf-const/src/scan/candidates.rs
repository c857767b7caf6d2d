//! Definitions, numbers and uses of all files brought together: each constant with what speaks for it.

use std::collections::{HashMap, HashSet};

use super::context::Context;
use super::parse::{Definition, Facts, Number, Reader};
use super::reasons::{self, Evidence, Reason};
use super::value::Evaluator;
use super::{files, words};
use crate::build::is_call;
use crate::error::ConstError;
use crate::grep;
use crate::site::{SiteKind, literals, parse_integer};
use crate::tree::Tree;
use crate::variants::in_parallel;

/// How far a value is followed through the names that are made of it.
const MOST_CARRIERS: usize = 3;

/// A place of the source.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Place {
    /// Path relative to the top of the tree.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
}

/// A constant that is likely to govern performance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What `kerf const build` takes: `file:Lline:value:index`, or the name where the value cannot be known from the source.
    pub site: String,
    /// The name, if it has one.
    pub name: Option<String>,
    /// Where it is written.
    pub place: Place,
    /// In which form.
    pub kind: SiteKind,
    /// The text of the value.
    pub text: String,
    /// The value, if the source and the configuration say it.
    pub value: Option<i128>,
    /// The comment beside it.
    pub comment: Option<String>,
    /// Where it is used, by its own name or by one that is made of it.
    pub uses: Vec<Place>,
    /// Why it is thought to govern performance; at least one.
    pub reasons: Vec<Reason>,
    /// How sure that is, from 0 to [`reasons::BEST`].
    pub score: u32,
}

/// What to look at.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Files and directories, relative to the tree; all if there are none.
    pub paths: Vec<String>,
}

/// Told how far it is.
pub trait Progress: Sync {
    /// So many files will be read.
    fn files(&self, count: usize);
    /// One of them is done.
    fn file(&self);
}

impl Progress for () {
    fn files(&self, _: usize) {}
    fn file(&self) {}
}

/// Candidates in the files that the configuration compiles, best first.
///
/// # Errors
/// If the source cannot be read, or a path is not in the tree.
pub fn scan(tree: &Tree, wanted: &Wanted, progress: &dyn Progress) -> Result<Vec<Candidate>, ConstError> {
    let compiled = files::compiled(tree)?;
    let listed = listed(tree, &compiled, &wanted.paths)?;
    let mut facts = read(tree, &listed, None, progress)?;
    let names = if wanted.paths.is_empty() { Vec::new() } else { shared_names(&listed, &facts) };
    // No word is in every file.
    if !names.is_empty() {
        let inside: HashSet<&String> = listed.iter().collect();
        let others: Vec<String> = grep::files_with_words(tree.root(), &names)?
            .into_iter()
            .filter(|file| !inside.contains(file) && compiled.binary_search(file).is_ok())
            .collect();
        facts.extend(read(tree, &others, Some(&names.into_iter().collect()), progress)?);
    }
    let index = Index::new(&facts);
    let mut found = Vec::new();
    for (file, own) in facts.iter().take(listed.len()) {
        let definitions = own.definitions.iter().filter_map(|d| index.named(tree, file, d));
        let numbers = own.numbers.iter().filter_map(number_in(file));
        found.extend(definitions.chain(numbers));
    }
    finish(tree, &mut found)?;
    Ok(found)
}

/// The compiled files that the paths name.
fn listed(tree: &Tree, compiled: &[String], paths: &[String]) -> Result<Vec<String>, ConstError> {
    let mut chosen = Vec::new();
    for path in paths {
        let path = path.trim_start_matches("./").trim_end_matches('/');
        if path.is_empty() || path == "." {
            return Ok(compiled.to_vec());
        }
        let directory = format!("{path}/");
        let before = chosen.len();
        chosen.extend(compiled.iter().filter(|f| *f == path || f.starts_with(&directory)).cloned());
        if chosen.len() == before {
            if !tree.root().join(path).exists() {
                return Err(ConstError::NoSuchFile { file: path.into(), tree: tree.root().into() });
            }
            return Err(ConstError::NotCompiled { path: path.into() });
        }
    }
    if paths.is_empty() {
        return Ok(compiled.to_vec());
    }
    chosen.sort();
    chosen.dedup();
    Ok(chosen)
}

/// What each of the files says; with `only`, uses of these names alone.
fn read(
    tree: &Tree,
    files: &[String],
    only: Option<&HashSet<String>>,
    progress: &dyn Progress,
) -> Result<Vec<(String, Facts)>, ConstError> {
    progress.files(files.len());
    let read = in_parallel(files.len(), |n| {
        let file = &files[n];
        let text = grep::read_source(tree.root(), file)?;
        let mut facts =
            if files::is_register_list(file, &text) { Facts::default() } else { Reader::new()?.read(&text) };
        if let Some(only) = only {
            facts.uses.retain(|u| only.contains(&u.name));
            facts.numbers.clear();
        }
        progress.file();
        Ok((file.clone(), facts))
    });
    read.into_iter().collect()
}

/// Names that other files may use: those of headers, and what is made of them.
fn shared_names(files: &[String], facts: &[(String, Facts)]) -> Vec<String> {
    let shared = |file: &String| file.ends_with(".h") || files.len() == 1;
    let definitions = facts.iter().filter(|(file, _)| shared(file)).flat_map(|(_, facts)| &facts.definitions);
    let mut names: Vec<String> = definitions
        .map(|d| d.name.clone())
        .filter(|n| !words::leaning(n).never || words::leaning(n).strong > 1)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The file and line of a use, and what it is for.
type Used<'a> = (&'a str, u32, Option<&'a Context>);

/// All definitions and uses by name.
struct Index<'a> {
    definitions: HashMap<&'a str, Vec<(&'a str, &'a Definition)>>,
    uses: HashMap<&'a str, Vec<Used<'a>>>,
    /// Names that are made of a name, with the file that makes them.
    carriers: HashMap<&'a str, Vec<(&'a str, &'a str)>>,
}

impl<'a> Index<'a> {
    fn new(facts: &'a [(String, Facts)]) -> Index<'a> {
        let mut index = Index { definitions: HashMap::new(), uses: HashMap::new(), carriers: HashMap::new() };
        for (file, facts) in facts {
            for definition in &facts.definitions {
                index.definitions.entry(&definition.name).or_default().push((file, definition));
            }
            for carried in &facts.carried {
                index.carriers.entry(&carried.name).or_default().push((file, &carried.by));
            }
        }
        for (file, facts) in facts {
            for used in facts.uses.iter().filter(|u| index.definitions.contains_key(u.name.as_str())) {
                index.uses.entry(&used.name).or_default().push((file, used.line, used.context.as_ref()));
            }
        }
        index
    }

    /// Whether the use of a name in a file means the definition in another.
    fn means(&self, name: &str, user: &str, definer: &str) -> bool {
        if user == definer {
            return true;
        }
        let Some(all) = self.definitions.get(name) else { return false };
        if all.iter().any(|(file, _)| *file == user) {
            return false;
        }
        let directory = |file: &str| file.rsplit_once('/').map_or(String::new(), |(d, _)| d.to_owned());
        if definer.ends_with(".c") {
            return user.ends_with(".c") && directory(user) == directory(definer) && all.len() == 1;
        }
        let common = |file: &str| user.split('/').zip(file.split('/')).take_while(|(a, b)| a == b).count();
        let best = all.iter().filter(|(file, _)| file.ends_with(".h")).map(|(file, _)| common(file)).max().unwrap_or(0);
        // A driver's own header is nobody else's.
        common(definer) == best
            && (best > 0 || definer.starts_with("include/") || definer.starts_with("arch/x86/include/"))
    }

    /// All uses of a name as one file defines it, through the names that are made of it.
    fn uses_of(&self, name: &'a str, file: &'a str) -> Vec<Used<'a>> {
        let mut found = Vec::new();
        let mut pending = vec![(name, file, 0)];
        let mut seen = HashSet::from([name]);
        while let Some((name, file, depth)) = pending.pop() {
            let uses = self.uses.get(name).into_iter().flatten();
            found.extend(uses.filter(|(user, ..)| self.means(name, user, file)));
            if depth == MOST_CARRIERS {
                continue;
            }
            for (by_file, by) in self.carriers.get(name).into_iter().flatten() {
                if self.means(name, by_file, file) && seen.insert(by) {
                    pending.push((by, by_file, depth + 1));
                }
            }
        }
        found.sort_by_key(|(user, line, _)| (*user != file, *user, *line));
        found.dedup_by_key(|(user, line, _)| (*user, *line));
        found
    }

    /// The value of an expression, as a file sees it.
    fn value(&self, tree: &Tree, file: &str, text: &str) -> Option<i128> {
        let lookup = |name: &str| {
            if let Some(option) = name.strip_prefix("CONFIG_") {
                return tree.config(option).map(str::to_owned);
            }
            if name == "HZ" {
                return tree.config("HZ").map(str::to_owned);
            }
            let all = self.definitions.get(name)?;
            let mut meant = all.iter().filter(|(definer, _)| self.means(name, file, definer));
            let (_, first) = meant.next()?;
            // Two different values depend on a condition that only the preprocessor knows.
            meant.all(|(_, other)| other.text == first.text).then(|| first.text.clone())
        };
        Evaluator { lookup: &lookup }.value(text)
    }

    fn named(&'a self, tree: &Tree, file: &'a str, definition: &'a Definition) -> Option<Candidate> {
        // A name that only stands for another one is that other one.
        if definition.text.trim_matches(['(', ')', ' ']).bytes().all(|b| b.is_ascii_alphabetic() || b == b'_') {
            let inner = definition.text.trim_matches(['(', ')', ' ']);
            if self.definitions.contains_key(inner) {
                return None;
            }
        }
        let own = words::leaning(&definition.name);
        if own.never && own.strong < 2 {
            return None;
        }
        let uses = self.uses_of(&definition.name, file);
        if uses.is_empty() {
            return None;
        }
        let value = self.value(tree, file, &definition.text);
        let contexts = uses.iter().filter_map(|(_, _, context)| *context).collect();
        let evidence = Evidence {
            name: Some(&definition.name),
            file,
            text: &definition.text,
            value,
            comment: definition.comment.as_deref(),
            contexts,
            uses: uses.len(),
        };
        let (reasons, score) = reasons::judge(&evidence)?;
        let uses = uses.iter().map(|(file, line, _)| Place { file: (*file).to_owned(), line: *line }).collect();
        Some(Candidate {
            site: String::new(),
            name: Some(definition.name.clone()),
            place: Place { file: file.to_owned(), line: definition.line },
            kind: definition.kind,
            text: definition.text.clone(),
            value,
            comment: definition.comment.clone(),
            uses,
            reasons,
            score,
        })
    }
}

/// Numbers of one file.
fn number_in(file: &str) -> impl Fn(&Number) -> Option<Candidate> {
    move |number| {
        let value = parse_integer(&number.text);
        let evidence = Evidence {
            name: None,
            file,
            text: &number.text,
            value,
            comment: number.comment.as_deref(),
            contexts: vec![&number.context],
            uses: 1,
        };
        let (reasons, score) = reasons::judge(&evidence)?;
        let place = Place { file: file.to_owned(), line: number.line };
        Some(Candidate {
            // Where it begins in its file, until the lines are at hand.
            site: number.range.start.to_string(),
            name: None,
            place: place.clone(),
            kind: SiteKind::Literal,
            text: number.text.clone(),
            value,
            comment: number.comment.clone(),
            uses: vec![place],
            reasons,
            score,
        })
    }
}

/// Gives every candidate the name by which it is built, drops doubles, and sorts: best first.
fn finish(tree: &Tree, found: &mut Vec<Candidate>) -> Result<(), ConstError> {
    let mut start = 0;
    while start < found.len() {
        let file = found[start].place.file.clone();
        let end = start + found[start..].iter().take_while(|c| c.place.file == file).count();
        let text = grep::read_source(tree.root(), &file)?;
        let mut lines = Vec::new();
        let mut at = 0;
        for line in text.split('\n') {
            lines.push((at, line));
            at += line.len() + 1;
        }
        for candidate in &mut found[start..end] {
            narrow(candidate);
            let (begin, line) = lines.get(candidate.place.line as usize - 1).copied().unwrap_or_default();
            candidate.site = site(candidate, begin, line);
        }
        start = end;
    }
    found.sort_by(|a, b| {
        b.score
            .cmp(&a.score)
            .then_with(|| a.place.file.cmp(&b.place.file))
            .then(a.place.line.cmp(&b.place.line))
            .then_with(|| a.site.cmp(&b.site))
    });
    let mut seen = HashSet::new();
    found.retain(|c| seen.insert(c.site.clone()));
    Ok(())
}

/// `f(2)`: what is built is the argument.
fn narrow(candidate: &mut Candidate) {
    if is_call(&candidate.text)
        && let Some(argument) = literals(&candidate.text).first()
    {
        candidate.value = Some(argument.value);
        candidate.text = candidate.text[argument.range.clone()].to_owned();
    }
}

/// `file:Lline:value:index`; the name where these would mean something else.
fn site(candidate: &Candidate, begin: usize, line: &str) -> String {
    let Place { file, line: number } = &candidate.place;
    let same: Vec<usize> =
        literals(line).into_iter().filter(|l| Some(l.value) == candidate.value).map(|l| l.range.start).collect();
    let Some(name) = &candidate.name else {
        let at = candidate.site.parse::<usize>().unwrap_or_default().saturating_sub(begin);
        let index = same.iter().position(|start| *start == at).unwrap_or_default();
        return format!("{file}:L{number}:{}:{index}", candidate.value.unwrap_or_default());
    };
    let Some(value) = candidate.value else { return name.clone() };
    let whole = candidate.text.trim_matches(['(', ')', ' ']);
    let own = line.find(name.as_str()).map_or(0, |at| at + name.len());
    if parse_integer(whole).is_some() {
        // The number itself, after its name.
        return match same.iter().position(|start| *start >= own) {
            Some(index) if line.contains(name.as_str()) => format!("{file}:L{number}:{value}:{index}"),
            _ => name.clone(),
        };
    }
    // An expression is named by the value of the whole, unless a number in it has that value.
    let first = line.trim_start();
    let defines = match candidate.kind {
        SiteKind::Macro => first.starts_with('#'),
        SiteKind::Enum => first.starts_with(name.as_str()),
        _ => first.starts_with("static") && line.contains(name.as_str()),
    };
    if same.is_empty() && defines { format!("{file}:L{number}:{value}:0") } else { name.clone() }
}
