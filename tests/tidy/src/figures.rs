//! Numbers in the documents that are constants of the code.
//!
//! `figures.txt` lists them: document, words around the number (`{}` in its place), file, constant. Only what has a name in
//! the code can be held so; measurements belong to the day on which they were taken.

use crate::tree::Tree;

const LIST: &str = include_str!("../figures.txt");
const SIMULATOR: &str = "tests/sim/src/trouble.rs";

/// What a number is of: only numbers of one kind can be equal.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Quantity {
    /// Milliseconds.
    Time(f64),
    /// Anything else; bytes of what is a multiple of KiB.
    Count(f64),
}

/// Every listed number is said as the code has it, wherever the words stand.
pub fn figures(tree: &Tree) -> Vec<String> {
    held(tree, LIST)
}

/// The simulator's kinds of trouble are counted in two documents.
pub fn troubles(tree: &Tree) -> Vec<String> {
    let kinds = tree
        .text(SIMULATOR)
        .unwrap_or_default()
        .lines()
        .filter(|line| is_trouble(line));
    let count = Quantity::Count(f64::from(u32::try_from(kinds.count()).expect("a few")));
    let said = [
        ("README.md", "under {} kinds of faults"),
        ("docs/testing.md", "which of {} kinds of trouble"),
    ];
    let faults = said.map(|(path, words)| fault(tree, path, words, count, SIMULATOR));
    faults.into_iter().flatten().collect()
}

/// `    Loss "loss" 40 Network;`
fn is_trouble(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    line.starts_with("    ") && words.len() == 4 && words[1].starts_with('"') && words[3].ends_with(';')
}

fn held(tree: &Tree, list: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for line in list.lines().filter(|line| !line.trim().is_empty()) {
        // The words may have bars of a table in them.
        let parts = line
            .split_once(" | ")
            .and_then(|(path, rest)| Some((path, rest.rsplit_once(" | ")?)));
        let Some((path, (words, source))) = parts else {
            broken.push(format!("tests/tidy/figures.txt: `{line}` has not three parts"));
            continue;
        };
        let (file, name) = source.rsplit_once(' ').unwrap_or((source, ""));
        match tree.text(file).and_then(|text| constant(text, name)) {
            Some(value) => broken.extend(fault(tree, path, words, value, source)),
            None => broken.push(format!("tests/tidy/figures.txt: there is no number {source}")),
        }
    }
    broken
}

fn fault(tree: &Tree, path: &str, words: &str, value: Quantity, source: &str) -> Option<String> {
    let (before, after) = words.split_once("{}")?;
    let (flat, lines) = flattened(tree.text(path).unwrap_or_default());
    let mut is_said = false;
    for (at, _) in flat.match_indices(before) {
        let rest = &flat[at + before.len()..];
        let within_number = before.is_empty() && flat[..at].ends_with(|c: char| c.is_ascii_digit() || c == ',');
        let Some((number, len)) = quantity(rest, after).filter(|_| !within_number) else {
            continue;
        };
        if number != value {
            let (words, line) = (words.replace("{}", &rest[..len]), lines[at + before.len()]);
            return Some(format!("{path}:{line} says `{words}`, but {source} is {value:?}"));
        }
        is_said = true;
    }
    (!is_said).then(|| format!("{path} does not say `{words}`, which is {value:?} ({source})"))
}

/// The text with single spaces between words, and the line of every byte.
fn flattened(text: &str) -> (String, Vec<usize>) {
    let mut flat = String::new();
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for word in line.split_whitespace() {
            flat.push_str(word);
            flat.push(' ');
            lines.resize(flat.len(), at + 1);
        }
    }
    (flat, lines)
}

/// The number at the start, with its unit if there is one that `after` does not begin with, and how many bytes both have.
fn quantity(text: &str, after: &str) -> Option<(Quantity, usize)> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != ',' && c != '.')
        .unwrap_or(text.len());
    let digits = text[..digits].trim_end_matches([',', '.']);
    let number: f64 = digits.replace(',', "").parse().ok()?;
    let unit = text[digits.len()..].strip_prefix(' ').unwrap_or_default();
    let unit = &unit[..unit.find(|c: char| !c.is_alphabetic()).unwrap_or(unit.len())];
    let of_time = [
        ("us", 1e-3),
        ("ms", 1.0),
        ("s", 1e3),
        ("seconds", 1e3),
        ("minutes", 6e4),
        ("days", 864e5),
    ];
    let of_bytes = [("KiB", 1024.0), ("MiB", 1_048_576.0), ("GiB", 1_073_741_824.0)];
    let scaled = |units: &[(&str, f64)]| {
        units
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, scale)| number * scale)
    };
    let with_unit = digits.len() + 1 + unit.len();
    let time = scaled(&of_time).map(|value| (Quantity::Time(value), with_unit));
    let bytes = scaled(&of_bytes).map(|value| (Quantity::Count(value), with_unit));
    let alone = Some((Quantity::Count(number), digits.len()));
    let all = [time, bytes, alone].into_iter().flatten();
    all.into_iter().find(|(_, len)| text[*len..].starts_with(after))
}

/// The value of `const NAME: .. = ..;`, or of the field `name: ..,`; of an array the length that its type has.
fn constant(text: &str, name: &str) -> Option<Quantity> {
    let of_constant = format!("const {name}: ");
    let of_field = format!("{name}: ");
    let line = text.lines().map(str::trim).find_map(|line| {
        let declared = line.split_once(&of_constant).map(|(_, rest)| rest);
        declared.or_else(|| line.strip_prefix(&of_field).filter(|rest| rest.ends_with(',')))
    })?;
    if let Some((_, length)) = line
        .split(" = ")
        .next()?
        .strip_prefix('[')
        .and_then(|array| array.split_once("; "))
    {
        return Some(Quantity::Count(literal(length.trim_end_matches(']'))?));
    }
    let value = line.split_once(" = ").map_or(line, |(_, value)| value);
    let value = value.trim_end_matches([';', ',']);
    for (unit, scale) in [("secs", 1e3), ("millis", 1.0), ("micros", 1e-3)] {
        let inner = value
            .strip_prefix("Duration::from_")
            .and_then(|rest| rest.strip_prefix(unit));
        if let Some(inner) = inner {
            let inner = inner.strip_prefix('(')?.strip_suffix(')')?;
            return Some(Quantity::Time(number(inner)? * scale));
        }
    }
    number(value).map(Quantity::Count)
}

/// "1 << 20", "16 * 1024", "1024 + 64", "5".
fn number(text: &str) -> Option<f64> {
    let both = |sign| {
        let (left, right) = text.split_once(sign)?;
        Some((number(left)?, number(right)?))
    };
    let sum = both(" + ").map(|(left, right)| left + right);
    let shifted = || both(" << ").map(|(left, right)| left * right.exp2());
    let product = || both(" * ").map(|(left, right)| left * right);
    sum.or_else(shifted)
        .or_else(product)
        .or_else(|| literal(text.trim_matches(['(', ')'])))
}

fn literal(text: &str) -> Option<f64> {
    let digits = text.split(" as ").next()?.replace('_', "");
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Quantity, constant, held, quantity, troubles};
    use crate::tree::Tree;

    const LIST: &str = "d.md | waits for {}, then | a.rs WAIT\nd.md | at most {} of them | a.rs MOST\n";
    const CODE: &str = "const WAIT: Duration = Duration::from_secs(3);\npub const MOST: usize = 1 << 10;\n";

    #[test]
    fn finds_numbers_that_are_not_the_codes() {
        let say = |document: &str, code: &str| held(&Tree::of(&[("d.md", document), ("a.rs", code)]), LIST);
        let right = "It waits\nfor 3 s, then goes. Here are at most 1024\nof them.";
        assert_eq!(say(right, CODE), Vec::<String>::new());
        assert_eq!(say(&right.replace("1024", "1 KiB"), CODE), Vec::<String>::new());
        assert!(say(&right.replace("3 s", "4 s"), CODE)[0].starts_with("d.md:2 says `waits for 4 s, then`"));
        assert!(say(&right.replace("3 s", "3 ms"), CODE)[0].starts_with("d.md:2 says"));
        assert!(say(&right.replace("of them", "or so"), CODE)[0].starts_with("d.md does not say `at most {} of them`"));
        assert!(say(right, &CODE.replace("WAIT", "PAUSE"))[0].contains("there is no number a.rs WAIT"));
        assert!(held(&Tree::of(&[]), "nonsense")[0].contains("has not three parts"));
    }

    #[test]
    fn finds_another_number_of_troubles() {
        let code = "enum {\n    Loss \"loss\" 40 Network;\n    Break \"break\" 10 Network;\n}\n";
        let say = |count: &str| {
            let readme = format!("under {count} kinds of faults");
            let testing = format!("which of {count} kinds of trouble");
            let files = [
                ("README.md", &*readme),
                ("docs/testing.md", &testing),
                (super::SIMULATOR, code),
            ];
            troubles(&Tree::of(&files)).len()
        };
        assert_eq!((say("2"), say("3")), (0, 2));
    }

    #[test]
    fn reads_numbers() {
        let table = [
            ("const A: u64 = 65_536;", Quantity::Count(65_536.0)),
            ("const A: u64 = 4 * 1024 * 1024;", Quantity::Count(4_194_304.0)),
            (
                "    pub(crate) const A: u64 = (64 << 10) + 4096;",
                Quantity::Count(69_632.0),
            ),
            (
                "const A: Duration = Duration::from_secs(14 * 86_400);",
                Quantity::Time(1_209_600_000.0),
            ),
            ("pub const A: [Mutant; 19] = [", Quantity::Count(19.0)),
            ("    A: 16 * 1024,", Quantity::Count(16_384.0)),
        ];
        for (code, value) in table {
            assert_eq!(constant(code, "A"), Some(value), "{code}");
        }
        assert_eq!(constant("const A: u64 = other();", "A"), None);
        assert_eq!(quantity("16,384 and", " and"), Some((Quantity::Count(16_384.0), 6)));
        assert_eq!(quantity("1.5 s, x", ", "), Some((Quantity::Time(1500.0), 5)));
        assert_eq!(quantity("5 s, x", " s,"), Some((Quantity::Count(5.0), 1)));
        assert_eq!(quantity("90 %", " %"), Some((Quantity::Count(90.0), 2)));
        assert_eq!(quantity("90 %", " s"), None);
        assert_eq!(quantity("x", ""), None);
    }
}
