//! The last segments of a function's path, of Rust and of C++.

use super::brackets;

/// What a path ends in.
#[derive(Default)]
pub(super) struct Path<'a> {
    /// What the function is in.
    pub(super) parent: Option<Segment<'a>>,
    /// The function.
    pub(super) function: Option<Segment<'a>>,
    /// Of the closures and blocks inside it, the innermost two: the other may be the function's body itself.
    pub(super) inner: [Option<&'a str>; 2],
    /// It, or what it is in, is followed by its arguments, as in C++.
    pub(super) arguments: bool,
}

/// A piece of a path.
#[derive(Clone, Copy)]
pub(super) enum Segment<'a> {
    /// An identifier, or a C++ operator.
    Name(&'a str),
    /// The type of a Rust `<TYPE>`, `<TYPE as TRAIT>` or `<impl TRAIT for TYPE>`.
    Type(&'a str),
    /// The type of a C++ `operator TYPE`.
    Conversion(&'a str),
}

/// The type, and the trait if there is one, of what a Rust path has in angle brackets.
pub(super) fn type_and_trait(inner: &str) -> (&str, Option<&str>) {
    if let Some(implementation) = inner.strip_prefix("impl ") {
        return match brackets::split_once(implementation, " for ") {
            Some((of_trait, of_type)) => (of_type, Some(of_trait)),
            None => (implementation, None),
        };
    }
    match brackets::split_once(inner, " as ") {
        Some((of_type, of_trait)) => (of_type, Some(of_trait)),
        None => (inner, None),
    }
}

/// True for names with a list of arguments: those of C++, and no others.
pub(in super::super) fn has_arguments(full: &str) -> bool {
    full.starts_with("{virtual ") || Path::of_function(full).is_some_and(|path| path.arguments)
}

impl<'a> Path<'a> {
    /// None for what looks like neither Rust nor C++.
    pub(super) fn of_function(text: &'a str) -> Option<Path<'a>> {
        Reader { text, at: 0, path: Path::default() }.function()
    }

    /// As [`Path::of_function`]; what follows a type, such as `const&`, is left.
    pub(super) fn of_type(text: &'a str) -> Option<Path<'a>> {
        let mut reader = Reader { text, at: 0, path: Path::default() };
        reader.segments()?;
        Some(reader.path)
    }

    fn push(&mut self, segment: Segment<'a>) {
        if self.inner[1] == Some("lambda") && matches!(segment, Segment::Name("operator()" | "_FUN")) {
            return;
        }
        self.parent = self.function.replace(segment);
        self.inner = [None, None];
    }

    fn push_inner(&mut self, name: &'a str) {
        self.inner = [self.inner[1], Some(name)];
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    path: Path<'a>,
}

impl<'a> Reader<'a> {
    /// In C++ a path may follow that of the type which is returned, and be followed by `const` and the like.
    fn function(mut self) -> Option<Path<'a>> {
        let mut spaces = false;
        loop {
            self.segments()?;
            let rest = self.rest().trim_start_matches(['*', '&']);
            self.at = self.text.len() - rest.len();
            match rest.strip_prefix(' ') {
                None if !rest.is_empty() => return None,
                None => break,
                Some(rest) if rest.starts_with("(.") || rest.starts_with("[clone ") => break,
                Some(rest) if self.path.arguments && is_qualifier(rest) => break,
                Some(_) => {
                    self.at += 1;
                    spaces = true;
                    self.path = Path::default();
                }
            }
        }
        (self.path.arguments || !spaces).then_some(self.path)
    }

    /// Up to what is no path any more. None where nothing is understood.
    fn segments(&mut self) -> Option<()> {
        loop {
            let start = self.at;
            self.segment();
            self.what_follows_a_name();
            if let Some(rest) = self.rest().strip_prefix("::") {
                self.at = self.text.len() - rest.len();
            } else {
                return (self.at > start).then_some(());
            }
        }
    }

    fn segment(&mut self) {
        match self.text.as_bytes().get(self.at) {
            Some(b'<') => {
                let (inner, end) = brackets::inside(self.text, self.at);
                if self.at == 0 || inner.starts_with("impl ") {
                    self.path.push(Segment::Type(type_and_trait(inner).0));
                }
                self.at = end;
            }
            Some(b'{') => {
                let (inner, end) = brackets::inside(self.text, self.at);
                if let Some(name) = name_of_inner(inner) {
                    self.path.push_inner(name);
                }
                self.at = end;
            }
            // `(anonymous namespace)`
            Some(b'(') => self.at = brackets::end_of(self.text, self.at),
            Some(_) => self.name(),
            None => {}
        }
    }

    fn name(&mut self) {
        const OPERATOR: &str = "operator";
        let start = self.at;
        let end = end_of_name(self.rest());
        self.at += end;
        let mut name = &self.text[start..self.at];
        // Symbols that may be in an operator may also have been taken for part of the name.
        let symbol = if name.starts_with(OPERATOR) { operator(&self.text[start + OPERATOR.len()..]) } else { None };
        match symbol {
            Some(Operator::Symbol(length)) => {
                self.at = start + OPERATOR.len() + length;
                name = &self.text[start..self.at];
                // C++ sets the arguments of an operator's template apart.
                self.at += if self.rest().starts_with(" <") { 1 } else { 0 };
            }
            Some(Operator::Conversion(length)) => {
                self.at = start + OPERATOR.len() + length;
                self.path.push(Segment::Conversion(self.text[start + OPERATOR.len()..self.at].trim()));
                return;
            }
            None => {}
        }
        // Clang's names for lambdas.
        if name.starts_with("'lambda") || name.starts_with("$_") {
            self.path.push_inner("lambda");
        } else if !name.is_empty() {
            self.path.push(Segment::Name(name));
        }
    }

    /// Generics, marks of shims and of the ABI, and arguments.
    fn what_follows_a_name(&mut self) {
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b'(') => self.path.arguments = true,
                Some(b'<' | b'{' | b'[') => {}
                _ => return,
            }
            self.at = brackets::end_of(self.text, self.at);
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }
}

fn end_of_name(text: &str) -> usize {
    let bytes = text.as_bytes();
    let ends = |at: usize| match bytes[at] {
        b'<' | b'(' | b'{' | b'[' | b' ' => true,
        b':' => bytes.get(at + 1) == Some(&b':'),
        _ => false,
    };
    (0..bytes.len()).find(|&at| ends(at)).unwrap_or(bytes.len())
}

/// What stands behind the arguments of a C++ function.
fn is_qualifier(text: &str) -> bool {
    ["const", "volatile", "&", "noexcept", "restrict", "[", "requires"].iter().any(|word| text.starts_with(word))
}

/// The name of a closure, a block or a lambda, from what it has in braces. None for what is only a shim of the
/// function, or the number of an implementation.
fn name_of_inner(braced: &str) -> Option<&str> {
    let braced = braced.trim_matches(['{', '}']);
    let name = &braced[..braced.find(['#', ':', '(']).unwrap_or(braced.len())];
    let name = name.strip_suffix("_env").unwrap_or(name);
    match name {
        "" | "impl" | "shim" => None,
        _ if name.ends_with(".shim") => None,
        _ if name.starts_with("async_") => Some("async"),
        _ => Some(name),
    }
}

/// What follows the word `operator`, and its length.
enum Operator {
    Symbol(usize),
    Conversion(usize),
}

/// None for a function that has that name, or one that begins with it.
fn operator(text: &str) -> Option<Operator> {
    const SYMBOLS: [&str; 43] = [
        "()",
        "[]",
        "<=>",
        "<<=",
        ">>=",
        "->*",
        "<<",
        ">>",
        "<=",
        ">=",
        "==",
        "!=",
        "&&",
        "||",
        "++",
        "--",
        "->",
        "+=",
        "-=",
        "*=",
        "/=",
        "%=",
        "^=",
        "&=",
        "|=",
        "<",
        ">",
        "=",
        "+",
        "-",
        "*",
        "/",
        "%",
        "^",
        "&",
        "|",
        "~",
        "!",
        ",",
        " new[]",
        " delete[]",
        " new",
        " delete",
    ];
    let is_identifier = |text: &str| text.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_');
    let symbol = SYMBOLS.iter().find(|symbol| text.starts_with(**symbol));
    // There may be a type called `newest`.
    if let Some(symbol) = symbol.filter(|symbol| !symbol.starts_with(' ') || !is_identifier(&text[symbol.len()..])) {
        return Some(Operator::Symbol(symbol.len()));
    }
    if let Some(suffix) = text.strip_prefix("\"\"") {
        let spaces = suffix.len() - suffix.trim_start().len();
        return Some(Operator::Symbol(2 + spaces + end_of_name(&suffix[spaces..])));
    }
    let conversion = text.strip_prefix(' ')?;
    let of_type = brackets::split_once(conversion, "(").map_or(conversion, |(of_type, _)| of_type);
    Some(Operator::Conversion(1 + of_type.len()))
}
