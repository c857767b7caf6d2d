//! Which registers each call passes, as the compiler itself says in its annotated listing (`-S -dP`).

use std::collections::HashMap;

use regex::Regex;

/// A call of a function, in the compiler's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The function, if the call is direct.
    pub callee: Option<String>,
    /// The registers that carry arguments, by their number in encodings, and how many bits of each count.
    pub registers: Vec<(usize, u32)>,
    /// Bytes of arguments that lie on the stack.
    pub stack: u32,
}

/// The calls of every function of a listing, in order. Parts that were moved out of a function have names of their own.
pub fn read(listing: &str) -> HashMap<String, Vec<Call>> {
    let (Ok(symbol), Ok(used)) = (
        Regex::new(r#"\(call \(mem:\w+ \(symbol_ref:DI \("\*?([^"]+)"\)"#),
        Regex::new(r"\(use \(reg[^ :]*:(\w+) \d+ (\w+)"),
    ) else {
        return HashMap::new();
    };
    let mut calls: HashMap<String, Vec<Call>> = HashMap::new();
    let mut function = String::new();
    let mut lines = listing.lines().peekable();
    while let Some(line) = lines.next() {
        // Numbers are labels of inline assembly, names with a dot in front are local.
        let named = |l: &&str| l.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !l.contains([' ', '\t']);
        if let Some(label) = line.strip_suffix(':').filter(named) {
            function = label.to_string();
        }
        if !line.starts_with("#(call_insn") {
            continue;
        }
        let mut text = line.to_string();
        while let Some(more) = lines.next_if(|l| l.starts_with("# ") && !is_line_mark(l)) {
            text.push_str(&more[1..]);
        }
        let registers = used
            .captures_iter(&text)
            .filter_map(|c| Some((register_number(&c[2])?, mode_bits(&c[1]))))
            .filter(|(number, _)| *number != 0)
            .collect();
        let callee = symbol.captures(&text).map(|c| c[1].to_string());
        calls.entry(function.clone()).or_default().push(Call { callee, registers, stack: stack_bytes(&text) });
    }
    calls
}

fn is_line_mark(line: &str) -> bool {
    line[2..].starts_with(|c: char| c.is_ascii_digit())
}

/// The bytes of arguments on the stack: the number after the called address.
fn stack_bytes(text: &str) -> u32 {
    let Some(call) = text.find("(call (mem") else { return u32::MAX };
    let mut depth = 0;
    for (at, c) in text[call + 6..].char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            let rest = text[call + 6 + at + 1..].trim_start();
            let number = rest.strip_prefix("(const_int ").and_then(|r| r.split([' ', ')']).next());
            return number.and_then(|n| n.parse().ok()).unwrap_or(u32::MAX);
        }
    }
    u32::MAX
}

fn register_number(name: &str) -> Option<usize> {
    let names = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
    names.iter().position(|n| *n == name)
}

fn mode_bits(mode: &str) -> u32 {
    match mode {
        "QI" => 8,
        "HI" => 16,
        "SI" => 32,
        _ => 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_compilers_listing_names_the_arguments() {
        let dir = tempfile::tempdir().unwrap();
        let (c, s) = (dir.path().join("a.c"), dir.path().join("a.s"));
        let text = "int g(int, long); void many(int,int,int,int,int,int,int,int); struct o { void (*f)(void); };\n\
                    int h(struct o *o, long x) { o->f(); int r = g((int)x, x); many(1,2,3,4,5,6,7,8); return r + g(r, 2); }";
        std::fs::write(&c, text).unwrap();
        assert!(Command::new("gcc").args(["-O2", "-S", "-dP", "-o"]).arg(&s).arg(&c).status().unwrap().success());
        let calls = read(&std::fs::read_to_string(&s).unwrap());
        let h = &calls["h"];
        assert_eq!(h.len(), 4, "{h:?}");
        assert_eq!(h[0], Call { callee: None, registers: vec![], stack: 0 });
        assert_eq!(h[1], Call { callee: Some("g".into()), registers: vec![(7, 32), (6, 64)], stack: 0 });
        assert!(h[2].stack == 16 && h[2].callee.as_deref() == Some("many"));
    }
}
