//! Finds a path that a rewrite pattern turns into a given path.
//!
//! The values of the groups follow from the given path and the template. Around them, the expression is spelled out: its
//! literals stay, one character stands for a class, and optional parts are left out. An expression that refers to more than
//! that has no answer here, so callers verify each answer with the pattern itself.

use crate::forward::pattern::{Part, Pattern};
use regex::bytes::Regex;
use std::iter::Peekable;
use std::str::Chars;

/// Characters that stand for a class.
const LETTERS: &str = "a1-_.~A0bB9xX!$&'()*+,=:@% /";
/// The maximum number of copies of a part that an expression requires.
const COPIES_MAX: usize = 100;

/// A pattern that is prepared for the search. Its regular expressions are compiled once.
#[derive(Debug)]
pub(super) struct Inverse {
    alternatives: Vec<Vec<Node>>,
    /// The template as an expression, in which the groups of the pattern are the groups.
    template: Regex,
    /// The number of the pattern's group at each group of the template.
    numbers: Vec<usize>,
}

impl Inverse {
    /// Returns `None` for an expression that is not understood.
    pub(super) fn of(pattern: &Pattern) -> Option<Self> {
        let alternatives = parse(pattern.expression())?;
        let (template, numbers) = template(pattern, &alternatives)?;
        Some(Self { alternatives, template, numbers })
    }

    /// Returns paths that the pattern turns into `sent`, one for each alternative of the expression that has one.
    pub(super) fn sources(&self, pattern: &Pattern, sent: &str) -> Vec<String> {
        let Some(values) = self.values(sent) else { return Vec::new() };
        let spelled = self.alternatives.iter().filter_map(|alternative| spell(alternative, &values));
        spelled.filter(|path| pattern.path(path).is_ok_and(|path| path == sent)).collect()
    }

    /// Returns the value of each group of the template, by the number of the group.
    fn values(&self, sent: &str) -> Option<Vec<(usize, String)>> {
        let found = self.template.captures(sent.as_bytes())?;
        let mut values: Vec<(usize, String)> = Vec::new();
        for (place, number) in self.numbers.iter().enumerate() {
            let value = found.name(&format!("v{}", place + 1)).map(|value| value.as_bytes());
            let value = std::str::from_utf8(value.unwrap_or_default()).ok()?.to_owned();
            match values.iter().find(|(known, _)| known == number) {
                Some((_, known)) if *known != value => return None,
                Some(_) => {}
                None => values.push((*number, value)),
            }
        }
        Some(values)
    }
}

/// A part of an expression, and how many times it is needed.
#[derive(Debug)]
struct Node {
    atom: Atom,
    copies: usize,
}

#[derive(Debug)]
enum Atom {
    /// A literal, or a character that stands for its class.
    Literal(char),
    /// The number of a group, if it captures, its text, and its alternatives.
    Group(Option<usize>, String, Vec<Vec<Node>>),
    /// An anchor, or a group that only sets flags.
    Nothing,
}

struct Parser<'e> {
    chars: Peekable<Chars<'e>>,
    groups: usize,
}

/// Returns the alternatives of an expression. Returns `None` for syntax that is not understood.
fn parse(expression: &str) -> Option<Vec<Vec<Node>>> {
    let mut parser = Parser { chars: expression.chars().peekable(), groups: 0 };
    let alternatives = parser.alternatives()?;
    parser.chars.next().is_none().then_some(alternatives)
}

impl Parser<'_> {
    fn alternatives(&mut self) -> Option<Vec<Vec<Node>>> {
        let mut all = vec![Vec::new()];
        while let Some(&next) = self.chars.peek() {
            match next {
                ')' => break,
                '|' => {
                    self.chars.next();
                    all.push(Vec::new());
                }
                _ => {
                    let atom = self.atom()?;
                    let copies = self.copies()?;
                    all.last_mut()?.push(Node { atom, copies });
                }
            }
        }
        Some(all)
    }

    fn atom(&mut self) -> Option<Atom> {
        Some(match self.chars.next()? {
            '^' | '$' => Atom::Nothing,
            '.' => of_class(".")?,
            '(' => self.group()?,
            '[' => of_class(&self.class()?)?,
            '\\' => match self.chars.next()? {
                'A' | 'z' | 'b' | 'B' => Atom::Nothing,
                letter if letter.is_ascii_alphanumeric() => match letter {
                    'd' | 'D' | 'w' | 'W' | 's' | 'S' => of_class(&format!("\\{letter}"))?,
                    _ => return None,
                },
                literal => Atom::Literal(literal),
            },
            '*' | '+' | '?' | '{' => return None,
            literal => Atom::Literal(literal),
        })
    }

    fn class(&mut self) -> Option<String> {
        let (mut text, mut depth) = ("[".to_owned(), 1);
        while depth > 0 {
            let next = self.chars.next()?;
            text.push(next);
            match next {
                '\\' => text.push(self.chars.next()?),
                '[' => depth += 1,
                // A bracket at the start of a class is a literal.
                ']' if text != "[]" && text != "[^]" => depth -= 1,
                _ => {}
            }
        }
        Some(text)
    }

    fn group(&mut self) -> Option<Atom> {
        let mut number = None;
        if self.chars.next_if_eq(&'?').is_some() {
            self.chars.next_if_eq(&'P');
            if self.chars.next_if_eq(&'<').is_some() {
                while self.chars.next()? != '>' {}
                number = Some(());
            } else {
                // Flags, up to the expression that they are for.
                loop {
                    match self.chars.next()? {
                        ':' => break,
                        ')' => return Some(Atom::Nothing),
                        _ => {}
                    }
                }
            }
        } else {
            number = Some(());
        }
        let number = number.map(|()| {
            self.groups += 1;
            self.groups
        });
        let before = self.chars.clone();
        let inner = self.alternatives()?;
        let length = before.clone().count() - self.chars.clone().count();
        self.chars.next_if_eq(&')')?;
        Some(Atom::Group(number, before.take(length).collect(), inner))
    }

    /// Reads a repetition. Returns the least number of copies.
    fn copies(&mut self) -> Option<usize> {
        let copies = match self.chars.peek() {
            Some('*' | '?') => 0,
            Some('+') => 1,
            Some('{') => {
                let digits: String = self.chars.clone().skip(1).take_while(char::is_ascii_digit).collect();
                while self.chars.next_if(|next| *next != '}').is_some() {}
                digits.parse().ok().filter(|copies| *copies <= COPIES_MAX)?
            }
            _ => return Some(1),
        };
        self.chars.next()?;
        // A lazy repetition matches the same paths.
        self.chars.next_if_eq(&'?');
        Some(copies)
    }
}

/// Returns a character that stands for a class.
fn of_class(class: &str) -> Option<Atom> {
    let class = Regex::new(&format!("^(?:{class})$")).ok()?;
    let is_in = |letter: &char| class.is_match(letter.to_string().as_bytes());
    LETTERS.chars().find(is_in).map(Atom::Literal)
}

/// Returns the template as an expression, and the numbers of the pattern's groups in it.
fn template(pattern: &Pattern, nodes: &[Vec<Node>]) -> Option<(Regex, Vec<usize>)> {
    let mut texts = Vec::new();
    collect(nodes, &mut texts);
    let mut numbers = Vec::new();
    let mut expression = String::from("^");
    for part in pattern.parts() {
        match part {
            Part::Literal(literal) => expression.push_str(&regex::escape(literal)),
            Part::Group(number) => {
                let (_, text) = texts.iter().find(|(known, _)| known == number)?;
                numbers.push(*number);
                expression.push_str(&format!("(?<v{}>{text})?", numbers.len()));
            }
        }
    }
    expression.push('$');
    Some((Regex::new(&without_names(&expression)).ok()?, numbers))
}

/// Collects the texts of capturing groups.
fn collect(nodes: &[Vec<Node>], texts: &mut Vec<(usize, String)>) {
    for node in nodes.iter().flatten() {
        if let Atom::Group(number, text, inner) = &node.atom {
            texts.extend(number.map(|number| (number, text.clone())));
            collect(inner, texts);
        }
    }
}

/// Makes named groups within the values anonymous, because a name may be used once.
fn without_names(expression: &str) -> String {
    let mut text = String::new();
    let mut rest = expression;
    while let Some(at) = rest.find("(?") {
        let (before, group) = rest.split_at(at);
        text.push_str(before);
        let name = group.strip_prefix("(?P<").or_else(|| group.strip_prefix("(?<"));
        match name.and_then(|name| name.split_once('>')) {
            Some((name, after)) if !name.starts_with('v') || name[1..].parse::<usize>().is_err() => {
                text.push('(');
                rest = after;
            }
            _ => {
                text.push_str("(?");
                rest = &group[2..];
            }
        }
    }
    text + rest
}

/// Spells out an alternative with these values of its groups.
fn spell(nodes: &[Node], values: &[(usize, String)]) -> Option<String> {
    let mut path = String::new();
    for node in nodes {
        let text = match &node.atom {
            Atom::Nothing => String::new(),
            Atom::Literal(literal) => literal.to_string(),
            Atom::Group(number, _, inner) => {
                let value = values.iter().find(|(known, _)| Some(*known) == *number);
                match value {
                    Some((_, value)) => {
                        path.push_str(value);
                        continue;
                    }
                    None => inner.iter().find_map(|alternative| spell(alternative, values))?,
                }
            }
        };
        path.extend(std::iter::repeat_n(text.as_str(), node.copies));
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(pattern: &str, template: &str, sent: &str) -> Vec<String> {
        let pattern = Pattern::parse(pattern, template).unwrap();
        Inverse::of(&pattern).map(|inverse| inverse.sources(&pattern, sent)).unwrap_or_default()
    }

    #[test]
    fn a_path_is_found_for_usual_expressions() {
        for (pattern, template, sent, source) in [
            ("/open/(.*)", "/{1}", "/admin/a", "/open/admin/a"),
            (r"/shop/(?<id>\d+)/(.*)", "/v2/{2}/{id}", "/v2/parts/a/7", "/shop/7/parts/a"),
            ("/open/([^/]+)", "/admin/{1}", "/admin/a", "/open/a"),
            ("/x", "/admin", "/admin", "/x"),
            (r"/(?:de|en)/[a-z]{3}/\w+/(a|b)*?/?(.*)", "/{2}", "/admin", "/de/aaa/a/admin"),
            ("(?i)^/A\\.b/(.*)$", "/{1}", "/admin", "/A.b/admin"),
            ("/a/(.*)|/b/(.*)", "/{2}", "/admin", "/b/admin"),
            ("/a/(.*)", "/{1}-{1}", "/b-b", "/a/b"),
            ("/a(/[^/]+)?(/x)?", "/admin{1}", "/admin", "/a"),
        ] {
            assert_eq!(found(pattern, template, sent), [source], "{pattern} {template}");
        }
        for (pattern, template, sent) in [
            ("/open/([^/]+)", "/{1}", "/admin/a"),
            ("/open/(.*)", "/v2/{1}", "/admin/a"),
            (r"/open/(\d+)", "/{1}", "/admin"),
            ("/a/(.*)", "/{1}-{1}", "/b-c"),
        ] {
            assert!(found(pattern, template, sent).is_empty(), "{pattern} {template}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// A path that is found becomes the given one, and no expression panics.
        #[test]
        fn a_source_becomes_the_path(
            pattern in "/(a|[(]b*[)]|[(][?]<n>[^/]*[)]|\\[a-c\\]|\\\\d|[.]|[|]|[?]|[+]|[{]2[}]|/){0,8}",
            template in "/(a|b|[{][12n][}]|/c){0,4}",
            sent in "/[a-c/]{0,8}",
        ) {
            let Ok(pattern) = Pattern::parse(&pattern, &template) else { return Ok(()) };
            let inverse = Inverse::of(&pattern);
            for path in inverse.map(|inverse| inverse.sources(&pattern, &sent)).unwrap_or_default() {
                prop_assert_eq!(pattern.path(&path).unwrap(), sent.as_str());
            }
        }
    }
}
