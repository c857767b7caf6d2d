//! Places of a constant, and which arguments of their functions an expression can read there.

/// A place in the code where an expression decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The function.
    pub function: String,
    /// How far in it.
    pub offset: u64,
    /// What the function takes, in order.
    pub arguments: Vec<Argument>,
}

/// An argument of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name in the source.
    pub name: String,
    /// Its type, as C writes it.
    pub type_name: String,
    /// Whether it is held anywhere at the place.
    pub held: bool,
}

impl Argument {
    /// As C declares it.
    pub(crate) fn declaration(&self) -> String {
        let space = if self.type_name.ends_with('*') { "" } else { " " };
        format!("{}{space}{}", self.type_name, self.name)
    }
}

impl Place {
    /// The position of an argument, from 0.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.arguments.iter().position(|argument| argument.name == name)
    }

    /// The names of the arguments that can be read.
    pub(crate) fn readable(&self) -> Vec<String> {
        let first = self.arguments.iter().take(REGISTERS);
        first.filter(|argument| argument.held && !argument.name.is_empty()).map(|a| a.name.clone()).collect()
    }

    /// All arguments, in words.
    pub(crate) fn listed(&self) -> String {
        let names: Vec<String> = self.arguments.iter().map(|a| format!("`{}`", a.declaration())).collect();
        if names.is_empty() { "none".into() } else { names.join(", ") }
    }
}

/// How many arguments are passed in registers, where a program finds them.
pub(crate) const REGISTERS: usize = 6;
