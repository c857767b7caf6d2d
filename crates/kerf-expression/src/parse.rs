//! From words to the tree that they mean, by how tightly operators bind.

use crate::ast::{Arithmetic, Binary, Node, NodeKind, Order, Unary};
use crate::error::{ExpressionError, Problem};
use crate::limits;
use crate::render::Span;
use crate::token::{Token, tokens};

/// An expression that has been read, and not been checked.
#[derive(Clone, Debug)]
pub struct Expression {
    pub(crate) text: String,
    pub(crate) root: Node,
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// The first place that cannot be read.
    pub fn parse(text: &str) -> Result<Expression, ExpressionError> {
        let wrong = |wrong| ExpressionError::new(text, wrong);
        let mut parser = Parser { tokens: tokens(text).map_err(wrong)?, at: 0, depth: 0, parts: 0 };
        let root = parser.whole().map_err(wrong)?;
        Ok(Expression { text: text.to_owned(), root })
    }
}

type Parsed<T> = Result<T, (Span, Problem)>;

/// Operators with two sides by how tightly they bind, the loosest first. Unlike in C, `&`, `^` and `|` bind more tightly than
/// comparisons, so that `flags & 4 != 0` means what it says.
const LEVELS: [&[(&str, Binary)]; 10] = [
    &[("||", Binary::Or)],
    &[("&&", Binary::And)],
    &[("==", Binary::Equal), ("!=", Binary::NotEqual)],
    &[
        ("<", Binary::Order(Order::Less)),
        ("<=", Binary::Order(Order::LessEqual)),
        (">", Binary::Order(Order::Greater)),
        (">=", Binary::Order(Order::GreaterEqual)),
    ],
    &[("|", Binary::Arithmetic(Arithmetic::Or))],
    &[("^", Binary::Arithmetic(Arithmetic::Xor))],
    &[("&", Binary::Arithmetic(Arithmetic::And))],
    &[("<<", Binary::Arithmetic(Arithmetic::ShiftLeft)), (">>", Binary::Arithmetic(Arithmetic::ShiftRight))],
    &[("+", Binary::Arithmetic(Arithmetic::Add)), ("-", Binary::Arithmetic(Arithmetic::Subtract))],
    &[
        ("*", Binary::Arithmetic(Arithmetic::Multiply)),
        ("/", Binary::Arithmetic(Arithmetic::Divide)),
        ("%", Binary::Arithmetic(Arithmetic::Remainder)),
    ],
];

/// The level of comparisons, where `in` and `under` are too.
const COMPARISONS: usize = 3;

struct Parser {
    tokens: Vec<(Token, Span)>,
    at: usize,
    depth: usize,
    parts: usize,
}

impl Parser {
    fn here(&self) -> (&Token, Span) {
        self.tokens.get(self.at).or(self.tokens.last()).map_or((&Token::End, Span::default()), |(t, s)| (t, *s))
    }

    fn advance(&mut self) -> Span {
        let (_, span) = self.here();
        self.at += 1;
        span
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.here().0, Token::Symbol(s) if *s == symbol)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.here().0, Token::Name(name) if name == word)
    }

    /// Takes a symbol or word that must be here.
    fn expect(&mut self, wanted: &str) -> Parsed<Span> {
        if self.is(wanted) || self.is_word(wanted) {
            return Ok(self.advance());
        }
        Err(self.missing(&format!("`{wanted}`")))
    }

    fn missing(&self, wanted: &str) -> (Span, Problem) {
        let (token, span) = self.here();
        let found = match token {
            Token::Number(n) => n.to_string(),
            Token::Text(text) => format!("\"{text}\""),
            Token::Name(name) => name.clone(),
            Token::Symbol(symbol) => (*symbol).to_owned(),
            Token::End => String::new(),
        };
        (span, Problem::Expected { wanted: wanted.to_owned(), found })
    }

    fn node(&mut self, span: Span, kind: NodeKind) -> Parsed<Node> {
        self.parts += 1;
        if self.parts > limits::PARTS {
            return Err((span, Problem::Long));
        }
        Ok(Node { span, kind })
    }

    fn whole(&mut self) -> Parsed<Node> {
        let node = self.expression()?;
        match self.here() {
            (Token::End, _) => Ok(node),
            _ => Err(self.missing("an operator")),
        }
    }

    /// What may stand in parentheses, and as a branch.
    fn expression(&mut self) -> Parsed<Node> {
        self.nested(|parser| if parser.is_word("if") { parser.choice() } else { parser.binary(0) })
    }

    fn nested(&mut self, read: impl FnOnce(&mut Parser) -> Parsed<Node>) -> Parsed<Node> {
        if self.depth >= limits::DEPTH {
            return Err((self.here().1, Problem::Deep));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn choice(&mut self) -> Parsed<Node> {
        let start = self.expect("if")?;
        let condition = self.expression()?;
        self.expect("then")?;
        let yes = self.expression()?;
        self.expect("else")?;
        let no = self.expression()?;
        let span = start.to(no.span);
        self.node(span, NodeKind::If(Box::new(condition), Box::new(yes), Box::new(no)))
    }

    fn binary(&mut self, level: usize) -> Parsed<Node> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        loop {
            if level == COMPARISONS && self.is_word("in") {
                left = self.list(left)?;
                continue;
            }
            if level == COMPARISONS && self.is_word("under") {
                self.advance();
                let right = self.binary(level + 1)?;
                let span = left.span.to(right.span);
                left = self.node(span, NodeKind::Under(Box::new(left), Box::new(right)))?;
                continue;
            }
            let Some((_, operator)) = operators.iter().find(|(symbol, _)| self.is(symbol)) else { return Ok(left) };
            self.advance();
            let right = self.binary(level + 1)?;
            let span = left.span.to(right.span);
            left = self.node(span, NodeKind::Binary(*operator, Box::new(left), Box::new(right)))?;
        }
    }

    /// `X in (A, B)`, from the `in` on.
    fn list(&mut self, left: Node) -> Parsed<Node> {
        self.advance();
        self.expect("(")?;
        let mut items = vec![self.expression()?];
        while self.is(",") {
            self.advance();
            items.push(self.expression()?);
        }
        if !self.is(")") {
            return Err(self.missing("`,` or `)`"));
        }
        let end = self.advance();
        let span = left.span.to(end);
        self.node(span, NodeKind::In(Box::new(left), items))
    }

    fn unary(&mut self) -> Parsed<Node> {
        let operators = [("!", Unary::Not), ("-", Unary::Negate), ("~", Unary::Complement)];
        let Some((_, operator)) = operators.into_iter().find(|(symbol, _)| self.is(symbol)) else {
            return self.postfix();
        };
        let start = self.advance();
        let operand = self.nested(Parser::unary)?;
        let span = start.to(operand.span);
        self.node(span, NodeKind::Unary(operator, Box::new(operand)))
    }

    fn postfix(&mut self) -> Parsed<Node> {
        let mut node = self.primary()?;
        loop {
            if self.is("->") || self.is(".") {
                let arrow = self.is("->");
                self.advance();
                let (name, at) = self.name("the name of a member")?;
                let span = node.span.to(at);
                node = self.node(span, NodeKind::Member { base: Box::new(node), arrow, name, at })?;
            } else if self.is("[") {
                self.advance();
                let index = self.expression()?;
                let end = self.expect("]")?;
                let span = node.span.to(end);
                node = self.node(span, NodeKind::Index(Box::new(node), Box::new(index)))?;
            } else {
                return Ok(node);
            }
        }
    }

    fn name(&mut self, wanted: &str) -> Parsed<(String, Span)> {
        match self.here() {
            (Token::Name(name), span) => {
                let name = name.clone();
                self.advance();
                Ok((name, span))
            }
            _ => Err(self.missing(wanted)),
        }
    }

    fn primary(&mut self) -> Parsed<Node> {
        let (token, span) = self.here();
        match token.clone() {
            Token::Number(number) => {
                self.advance();
                self.node(span, NodeKind::Number(number))
            }
            Token::Text(text) => {
                self.advance();
                self.node(span, NodeKind::Text(text))
            }
            Token::Symbol("(") => {
                self.advance();
                let inner = self.expression()?;
                let end = self.expect(")")?;
                Ok(Node { span: span.to(end), ..inner })
            }
            Token::Name(name) => self.word(&name, span),
            Token::Symbol(_) | Token::End => Err(self.missing("a name, a number or a string")),
        }
    }

    fn word(&mut self, name: &str, span: Span) -> Parsed<Node> {
        let next = self.tokens.get(self.at + 1).map(|(token, _)| token);
        match (name, next) {
            ("if", _) => return Err((span, Problem::BareIf)),
            ("then" | "else" | "in" | "under", _) => return Err(self.missing("a name, a number or a string")),
            ("arg", Some(Token::Symbol("."))) => {
                self.advance();
                self.advance();
                let (name, at) = self.name("the name of an argument")?;
                return self.node(span.to(at), NodeKind::Argument(name));
            }
            ("signed" | "unsigned", Some(Token::Symbol("("))) => {
                self.advance();
                self.advance();
                let inner = self.expression()?;
                let end = self.expect(")")?;
                return self.node(span.to(end), NodeKind::Signed(name == "signed", Box::new(inner)));
            }
            _ => {}
        }
        self.advance();
        self.node(
            span,
            match name {
                "true" => NodeKind::Truth(true),
                "false" => NodeKind::Truth(false),
                "null" => NodeKind::Null,
                "keep" => NodeKind::Keep,
                _ => NodeKind::Name(name.to_owned()),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An expression with all its parentheses.
    fn full(node: &Node) -> String {
        match &node.kind {
            NodeKind::Number(n) => n.to_string(),
            NodeKind::Name(name) => name.clone(),
            NodeKind::Argument(name) => format!("arg.{name}"),
            NodeKind::Unary(operator, inner) => format!("({operator:?} {})", full(inner)),
            NodeKind::Binary(operator, left, right) => {
                let symbol = LEVELS.iter().flat_map(|level| level.iter()).find(|(_, o)| o == operator);
                format!("({} {} {})", full(left), symbol.map_or("?", |(symbol, _)| symbol), full(right))
            }
            NodeKind::If(c, a, b) => format!("(if {} {} {})", full(c), full(a), full(b)),
            NodeKind::In(x, items) => {
                format!("({} in {})", full(x), items.iter().map(full).collect::<Vec<_>>().join(","))
            }
            NodeKind::Member { base, arrow, name, .. } => {
                format!("{}{}{name}", full(base), if *arrow { "->" } else { "." })
            }
            NodeKind::Index(base, index) => format!("{}[{}]", full(base), full(index)),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn operators_bind_as_in_c_but_for_bits() {
        for (text, meaning) in [
            ("1 + 2 * 3 << 4", "((1 + (2 * 3)) << 4)"),
            ("a & 4 != 0", "((a & 4) != 0)"),
            ("a | b ^ c & d", "(a | (b ^ (c & d)))"),
            ("a - b - c", "((a - b) - c)"),
            ("a < b == c >= d", "((a < b) == (c >= d))"),
            ("a || b && c || d", "((a || (b && c)) || d)"),
            ("-a->b[2].c * 2", "((Negate a->b[2].c) * 2)"),
            ("!a && ~b == c", "((Not a) && ((Complement b) == c))"),
            ("cpu in (1, 2 + 3) || x", "((cpu in 1,(2 + 3)) || x)"),
            ("if a then 1 else if b then 2 else 3", "(if a 1 (if b 2 3))"),
            ("arg.in->then + arg", "(arg.in->then + arg)"),
        ] {
            assert_eq!(full(&Expression::parse(text).unwrap().root), meaning, "{text}");
        }
    }

    #[test]
    fn limits_end_before_the_stack_does() {
        let problem = |text: String| *Expression::parse(&text).unwrap_err().problem;
        assert_eq!(problem("(".repeat(100_000)), Problem::Deep);
        assert_eq!(problem("-".repeat(100_000)), Problem::Deep);
        assert_eq!(problem("if ".repeat(100_000)), Problem::Deep);
        assert_eq!(problem(format!("1{}", "+1".repeat(100_000))), Problem::Long);
        assert_eq!(problem(format!("p{}", "->a".repeat(100_000))), Problem::Long);
    }
}
