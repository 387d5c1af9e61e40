//! `docs/wire-protocol.md` against the codec: kinds and their names against the code, fields against the recorded frames
//! that the codec's own tests hold it to.

use std::collections::{BTreeMap, BTreeSet};

use trivet_core::wire::{FORMAT, HEADER, kinds};

use crate::fields::{Reader, Types};
use crate::samples::VALUES;
use crate::table::{Row, Table, tables};
use crate::tree::Tree;

pub const DOCUMENT: &str = "docs/wire-protocol.md";
pub const GOLDEN: &str = "cluster/core/src/wire/golden.txt";

/// A recorded frame.
struct Frame<'a> {
    name: &'a str,
    header: Vec<u8>,
    body: Vec<u8>,
}

impl Frame<'_> {
    fn kind(&self) -> u8 {
        self.header[5]
    }
}

/// A kind as the document has it.
struct Documented<'a> {
    line: usize,
    name: &'a str,
    /// The fields before its own.
    prefix: &'a str,
    fields: &'a str,
    payload: &'a str,
}

/// Every kind is documented with its number and name, and whether it has a payload; and no other is.
pub fn messages(tree: &Tree) -> Vec<String> {
    let Some(text) = tree.text(DOCUMENT) else {
        return vec![format!("{DOCUMENT} is missing")];
    };
    let documented = documented(&tables(text));
    let mut broken = Vec::new();
    let mut known = BTreeSet::new();
    for (number, name, payload) in kinds() {
        known.insert(number);
        let Some(row) = documented.get(&number) else {
            broken.push(format!("{DOCUMENT} has no kind {number}, {name}"));
            continue;
        };
        if row.name != name {
            broken.push(format!(
                "{DOCUMENT}:{}: kind {number} is {name}, not {}",
                row.line, row.name
            ));
        }
        if payload == row.payload.is_empty() {
            let has = if payload { "a payload" } else { "no payload" };
            broken.push(format!("{DOCUMENT}:{}: {name} has {has}", row.line));
        }
    }
    let unknown = documented.iter().filter(|(number, _)| !known.contains(number));
    broken.extend(unknown.map(|(number, row)| format!("{DOCUMENT}:{}: there is no kind {number}", row.line)));
    broken
}

/// The documented fields take every recorded frame apart, with nothing left, and find in each what the samples have there.
pub fn bodies(tree: &Tree) -> Vec<String> {
    let (Some(text), Some(golden)) = (tree.text(DOCUMENT), tree.text(GOLDEN)) else {
        return vec![format!("{DOCUMENT} or {GOLDEN} is missing")];
    };
    let tables = tables(text);
    let (types, documented) = (Types::of(&tables), documented(&tables));
    let mut broken = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for frame in frames(golden) {
        if let Some(row) = documented.get(&frame.kind()) {
            match read(&types, row, &frame) {
                Ok(found) => seen.extend(found),
                Err(why) => drop(broken.insert(why)),
            }
        }
    }
    if broken.is_empty() {
        let unseen = VALUES.iter().filter(|(name, _)| !seen.contains(*name));
        broken.extend(unseen.map(|(name, _)| format!("{DOCUMENT}: no field is {name}")));
    }
    broken.into_iter().collect()
}

/// The header's table, and the codes of failures and of the ends of writes, which the recorded frames are named for.
pub fn codes(tree: &Tree) -> Vec<String> {
    let (Some(text), Some(golden)) = (tree.text(DOCUMENT), tree.text(GOLDEN)) else {
        return vec![format!("{DOCUMENT} or {GOLDEN} is missing")];
    };
    let tables = tables(text);
    let rows: Vec<&Row> = tables.iter().flat_map(Table::body).collect();
    let mut broken = Vec::new();
    for frame in frames(golden) {
        if usize::from(frame.header[4]) != usize::from(FORMAT) || frame.header.len() != HEADER {
            broken.push(format!("{GOLDEN}: {} is of another format", frame.name));
        }
        let (row, code, name) = match frame.kind() {
            9 => ("failure", frame.body[24], frame.name),
            14 => (
                "Written",
                frame.body[46],
                frame.name.split(", ").nth(1).unwrap_or("durable"),
            ),
            _ => continue,
        };
        let said = rows.iter().find(|r| r.cell(0) == row || r.cell(1) == row);
        let phrase = format!("{code} {name}");
        let says = |row: &&&Row| row.cells.iter().any(|cell| has_phrase(cell, &phrase));
        if said.filter(says).is_none() {
            let line = said.map_or(0, |row| row.line);
            broken.push(format!("{DOCUMENT}:{line}: {row} does not say `{phrase}`"));
        }
    }
    broken
}

/// Whether the words stand in the list, not as a part of others.
fn has_phrase(cell: &str, phrase: &str) -> bool {
    cell.split([',', ';', '.']).any(|part| part.trim() == phrase)
}

fn documented<'a>(tables: &[Table<'a>]) -> BTreeMap<u8, Documented<'a>> {
    let mut kinds = BTreeMap::new();
    for table in tables.iter().filter(|table| table.begins(&["kind", "name"])) {
        let column = |name| table.head().iter().position(|head| *head == name).unwrap_or(usize::MAX);
        let prefix = table.above.split_once("Body: ").map_or("", |(_, prefix)| prefix);
        for row in table.body() {
            let described = Documented {
                line: row.line,
                name: row.cell(1),
                prefix: prefix.strip_suffix(", then").unwrap_or_default(),
                fields: row.cell(column("fields")),
                payload: row.cell(column("payload")),
            };
            kinds.insert(row.cell(0).parse().unwrap_or_default(), described);
        }
    }
    kinds
}

/// The names of the fields that are in the frame.
fn read(types: &Types, row: &Documented, frame: &Frame) -> Result<Vec<String>, String> {
    let mut reader = Reader {
        bytes: &frame.body,
        found: Vec::new(),
    };
    let fault = |line: Option<usize>, why: &str| {
        let at = line.unwrap_or(row.line);
        format!("{DOCUMENT}:{at} ({}): {why}, in the frame `{}`", row.name, frame.name)
    };
    let whole = types.read(row.prefix, "body", &mut reader);
    let whole = whole.and_then(|_| types.read(row.fields, row.name, &mut reader));
    whole.map_err(|mismatch| fault(mismatch.line, &mismatch.why))?;
    if !reader.bytes.is_empty() {
        return Err(fault(None, &format!("{} bytes are left", reader.bytes.len())));
    }
    for (name, value) in &reader.found {
        let known = VALUES.iter().find(|(known, _)| known == name);
        match known {
            Some((_, values)) if values.is_empty() || values.contains(value) => {}
            Some(_) => return Err(fault(None, &format!("{value:#x} is no {name} of the samples"))),
            None => return Err(fault(None, &format!("tests/tidy/src/samples.rs has no {name}"))),
        }
    }
    Ok(reader.found.into_iter().map(|(name, _)| name).collect())
}

fn frames(golden: &str) -> impl Iterator<Item = Frame<'_>> {
    golden.lines().filter_map(|line| {
        let (name, bytes) = line.split_once(": ")?;
        let (header, body) = bytes.split_once('|')?;
        Some(Frame {
            name,
            header: unhex(header.trim()),
            body: unhex(body.trim()),
        })
    })
}

fn unhex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("digits");
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::{DOCUMENT, GOLDEN, bodies, codes, has_phrase, messages};
    use crate::tree::{Rule, Tree};

    /// What `rule` says of the documents of this repository with one change.
    fn changed(rule: Rule, from: &str, to: &str) -> Vec<String> {
        let tree = Tree::load();
        let (text, golden) = (tree.text(DOCUMENT).unwrap(), tree.text(GOLDEN).unwrap());
        assert!(text.contains(from), "{from}");
        rule(&Tree::of(&[(DOCUMENT, &text.replacen(from, to, 1)), (GOLDEN, golden)]))
    }

    #[test]
    fn finds_kinds_that_are_not_as_documented() {
        let table = [
            ("| 17 | Forget |", "| 17 | Forgot |", "kind 17 is Forget, not Forgot"),
            ("| 17 | Forget |", "| 30 | Forget |", "has no kind 17, Forget"),
            ("| 22 | Drop |", "| 30 | Drop |", "there is no kind 30"),
            ("| the bytes asked for, at least one |", "| |", "Data has a payload"),
            (
                "| 6 | Changed | | |",
                "| 6 | Changed | | some |",
                "Changed has no payload",
            ),
        ];
        for (from, to, said) in table {
            let broken = changed(messages, from, to);
            assert!(broken.iter().any(|line| line.contains(said)), "{to}: {broken:?}");
        }
    }

    #[test]
    fn finds_fields_that_are_not_as_documented() {
        let table = [
            (
                "| object, version; of the tombstone",
                "| version, object; of the tombstone",
                "is no version.",
            ),
            (
                "settled u64, answered u64",
                "answered u64, settled u64",
                "is no request.answered",
            ),
            ("part u32, parts u32", "part u32, parts u16", "(Listing)"),
            (
                "object, after version or none, mutation",
                "object, mutation",
                "(MemberWrite)",
            ),
            ("| pg | 6 |", "| pg | 4 |", "`pg` has 6 bytes"),
            ("digest u64, damaged units", "digest u64", "4 bytes are left"),
            ("revision u64; of", "commit u64; of", "has no Barrier.commit"),
            ("Body: op id, tick u64, then", "Body: op id, then", "8 bytes are left"),
            ("with 5 epoch u64", "with 4 epoch u64", "(Failed)"),
        ];
        for (from, to, said) in table {
            let broken = changed(bodies, from, to);
            assert!(broken.iter().any(|line| line.contains(said)), "{to}: {broken:?}");
            assert!(broken.iter().all(|line| line.starts_with(DOCUMENT)), "{broken:?}");
        }
    }

    #[test]
    fn finds_codes_that_are_not_as_documented() {
        for (from, to) in [
            ("7 outdated", "8 outdated"),
            ("2 stale", "2 old"),
            ("0 durable", "durable"),
        ] {
            assert_eq!(changed(codes, from, to).len(), 1, "{to}");
        }
        assert!(has_phrase("u8; 1 no space, 2 stale", "2 stale"));
        assert!(!has_phrase("12 stale", "2 stale"));
    }
}
