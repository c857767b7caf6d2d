//! Knobs that the kernel has already: a sysctl, module parameter or debugfs file whose variable begins with the constant. Read from the
//! source, by names; what is assigned in another way is not found.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use regex::Regex;

use crate::error::ConstError;
use crate::site::Site;
use crate::{data, grep};

/// More variables than this say that the constant is a number that everybody uses.
const MOST_VARIABLES: usize = 40;

/// Where a file makes knobs, one of these stands.
const REGISTRATIONS: [&str; 4] = [".procname", "module_param", "core_param", "debugfs_create_"];

/// Short names are those of local variables.
const SHORTEST: usize = 6;

/// Where a variable or member is filled.
#[derive(Default)]
struct Assigned {
    files: BTreeSet<String>,
    /// Whether others can mean it by its name: it is not one file's own.
    shared: bool,
}

/// The knobs that govern a constant's value, each in words: `the sysctl tcp_rto_min_us, by sysctl_tcp_rto_min_us`.
///
/// # Errors
/// If the source cannot be searched.
pub fn knobs(tree: &Path, site: &Site) -> Result<Vec<String>, ConstError> {
    let token = site.name.clone().unwrap_or_else(|| site.text.trim().to_owned());
    let mut variables: BTreeMap<String, Assigned> = BTreeMap::new();
    for file in files(tree, site)? {
        let text = grep::read_source(tree, &file)?;
        let part = match site.name {
            Some(_) => &text,
            // A number without a name is meant in its own line alone.
            None => text.lines().nth((site.line as usize).saturating_sub(1)).unwrap_or_default(),
        };
        for variable in assigned(part, &token) {
            let shared = !data::has_namesake(&text, &variable);
            let known = variables.entry(variable).or_default();
            known.shared |= shared;
            known.files.insert(file.clone());
        }
    }
    if variables.is_empty() || variables.len() > MOST_VARIABLES {
        return Ok(Vec::new());
    }
    let words: Vec<String> = variables.keys().cloned().collect();
    let mut found = BTreeSet::new();
    for file in grep::files_with_words(tree, &words)? {
        let text = grep::read_source(tree, &file)?;
        if !REGISTRATIONS.iter().any(|word| text.contains(word)) {
            continue;
        }
        let module = file.rsplit('/').next().unwrap_or(&file).trim_end_matches(".c").replace('-', "_");
        for (variable, assigned) in variables.iter().filter(|(variable, _)| text.contains(*variable)) {
            if assigned.files.contains(&file) || assigned.shared && !data::has_namesake(&text, variable) {
                let knob = data::governing_knob(&text, variable, &module);
                found.extend(knob.map(|knob| format!("{knob}, by {variable}")));
            }
        }
    }
    Ok(found.into_iter().collect())
}

fn files(tree: &Path, site: &Site) -> Result<Vec<String>, ConstError> {
    match &site.name {
        Some(name) => grep::files_with_words(tree, std::slice::from_ref(name)),
        None => Ok(vec![site.file.clone()]),
    }
}

/// Variables and members that an assignment or initializer with the token fills.
fn assigned(text: &str, token: &str) -> Vec<String> {
    let pattern = format!(r"(?m)\b(\w+)(?:\[[^\]\n]*\])?\s*=(?:[^=;\n]*[^=;\w\n])?{}\b", regex::escape(token));
    let Ok(regex) = Regex::new(&pattern) else { return Vec::new() };
    let names = regex.captures_iter(text).filter_map(|found| Some(found.get(1)?.as_str().to_owned()));
    names.filter(|name| name.len() >= SHORTEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::SiteKind;

    #[test]
    fn assignments_name_what_they_fill() {
        let text = "int backlog_max = LIMIT;\nnet->ipv4.sysctl_rto_min = to_usecs(LIMIT * 2);\nif (depth == LIMIT)\n\tx = LIMIT;\nother_one = LIMITS;\n\
                    static int table_of[2] = LIMIT;\n";
        assert_eq!(assigned(text, "LIMIT"), ["backlog_max", "sysctl_rto_min", "table_of"]);
    }

    #[test]
    fn the_knob_of_a_variable_that_begins_with_it_is_found() {
        let tree = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(tree.path().join(file), text).unwrap();
        write("a.h", "#define LIMIT 4\n");
        write("a.c", "net->ipv4.sysctl_rto_min = LIMIT;\nint queue_depth = LIMIT;\n");
        write("sysctl.c", "{ .procname = \"rto_min\", .data = &init_net.ipv4.sysctl_rto_min, },\n");
        write("b.c", "extern int queue_depth;\nmodule_param(queue_depth, int, 0);\n");
        write("namesake.c", "static int queue_depth = 7;\nmodule_param(queue_depth, int, 0);\n");
        let site = |name: Option<&str>, file: &str, line, text: &str| Site {
            file: file.into(),
            line,
            index: 0,
            name: name.map(Into::into),
            kind: SiteKind::Macro,
            text: text.into(),
            range: 0..0,
        };
        let found = knobs(tree.path(), &site(Some("LIMIT"), "a.h", 1, "4")).unwrap();
        assert_eq!(
            found,
            ["/sys/module/b/parameters/queue_depth, by queue_depth", "the sysctl rto_min, by sysctl_rto_min"]
        );
        assert_eq!(
            knobs(tree.path(), &site(None, "namesake.c", 1, "7")).unwrap(),
            ["/sys/module/namesake/parameters/queue_depth, by queue_depth"]
        );
        assert_eq!(knobs(tree.path(), &site(Some("MISSING"), "a.h", 1, "4")).unwrap(), Vec::<String>::new());
    }
}
