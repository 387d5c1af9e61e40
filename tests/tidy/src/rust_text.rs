//! Just enough of Rust's lexical structure to tell code from comments and
//! literals. It does not parse: macros and attributes are code like any other.

/// The text with comments and the contents of string and character literals
/// blanked out, line for line.
pub fn code_only(text: &str) -> String {
    let mut rest = text;
    let mut code = String::with_capacity(text.len());
    while let Some(first) = rest.chars().next() {
        let hidden = hidden_length(rest, code.chars().next_back());
        if hidden == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let (gone, after) = rest.split_at(hidden);
            code.extend(gone.chars().map(|c| if c == '\n' { c } else { ' ' }));
            rest = after;
        }
    }
    code
}

/// Bytes of the comment or literal that `rest` starts with, else 0.
fn hidden_length(rest: &str, before: Option<char>) -> usize {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        rest.find('\n').unwrap_or(rest.len())
    } else if rest.starts_with("/*") {
        block_comment(rest)
    } else if let Some(body) = rest.strip_prefix('"') {
        1 + quoted(body, '"')
    } else if rest.starts_with('r') && !in_word {
        raw_string(rest)
    } else if rest.starts_with('\'') {
        character(rest)
    } else {
        0
    }
}

fn block_comment(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0usize);
    while at < rest.len() {
        let tail = &rest.as_bytes()[at..];
        if tail.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if tail.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Bytes up to and with the closing quote.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string(rest: &str) -> usize {
    let hashes = rest[1..].bytes().take_while(|b| *b == b'#').count();
    let open = 1 + hashes;
    if rest.as_bytes().get(open) != Some(&b'"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let body = &rest[open + 1..];
    body.find(&close).map_or(rest.len(), |at| open + 1 + at + close.len())
}

/// A character literal, not a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest[1..].char_indices();
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => 1 + quoted(&rest[1..], '\''),
        (Some((_, _)), Some((at, '\''))) => 1 + at + 1,
        _ => 0,
    }
}

/// Whether `word` stands in `code` as a word of its own.
pub fn has_word(code: &str, word: &str) -> bool {
    let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word)
        .any(|(at, _)| !joins(code[..at].chars().next_back()) && !joins(code[at + word.len()..].chars().next()))
}

/// The part of a file before its test module.
pub fn without_tests(code: &str) -> &str {
    code.find("#[cfg(test)]").map_or(code, |at| &code[..at])
}

/// First line (from 1) and number of lines of each function with a body.
pub fn functions(code: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let starts_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if let Some(body) = starts_word.then(|| body_end(&code[at..])).flatten() {
            let lines = code[at..at + body].lines().count();
            found.push((code[..at].lines().count().max(1), lines));
        }
    }
    found
}

/// Bytes to the end of the function's body; none for a signature or a type.
fn body_end(code: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut nested = 0usize;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' if depth == 0 => nested += 1,
            ')' | ']' if depth == 0 => nested = nested.checked_sub(1)?,
            ';' | ',' | '=' | '>' if depth == 0 && nested == 0 && ends_type(code, c) => {
                return None;
            }
            '{' => depth += 1,
            '}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// A `;` ends a signature. The others end only a function *type* (`fn (u8) -> u8`).
fn ends_type(code: &str, c: char) -> bool {
    c == ';' || code["fn ".len()..].starts_with('(')
}

#[cfg(test)]
mod tests {
    use super::{code_only, functions, has_word};

    #[test]
    fn hides_comments_and_literals() {
        let table = [
            ("a // b", "a     "),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"x("q\"r") y"#, "x(      ) y"),
            (r##"x(r#"q"r"#) y"##, "x(        ) y"),
            ("f::<'a>('b', '\\'') z", "f::<'a>(   ,     ) z"),
            ("var\"s\"", "var   "),
        ];
        for (text, code) in table {
            assert_eq!(code_only(text), code);
        }
    }

    #[test]
    fn knows_words() {
        assert!(has_word("an unsafe block", "unsafe"));
        assert!(!has_word("unsafe_code and notunsafe", "unsafe"));
    }

    #[test]
    fn measures_functions() {
        let code =
            "fn a() {\n  b\n}\ntrait T { fn c(&self);\n fn d(f: fn(u8) -> u8) -> [u8; 2] where T: X<Y = Z> { {} }\n}\n";
        assert_eq!(functions(code), [(1, 3), (5, 1)]);
    }
}
