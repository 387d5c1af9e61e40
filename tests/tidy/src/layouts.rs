//! Tables of bytes in the documents against real ones: each field stands where the one before ends, and has in a block,
//! frame or record that the code made the value that it is known to have there.

use std::ops::Range;

use crate::real::{Real, of_carrier, of_store, of_wire};
use crate::table::{Row, Table, tables};
use crate::tree::Tree;

/// A field of a table.
struct Field<'a> {
    line: usize,
    place: Range<usize>,
    text: &'a str,
}

/// The tables of the OSD wire: the header of a frame, the greeting of a link.
pub fn wire(tree: &Tree) -> Vec<String> {
    check(tree, "docs/wire-protocol.md", &[of_wire(), of_carrier()])
}

/// The tables of the on-disk format: superblock, batches, records, checkpoints and their items.
pub fn disk(tree: &Tree) -> Vec<String> {
    check(tree, "docs/on-disk-format.md", &of_store())
}

fn check(tree: &Tree, path: &str, all: &[Real]) -> Vec<String> {
    let Some(text) = tree.text(path) else {
        return vec![format!("{path} is missing")];
    };
    let tables = tables(text);
    let mut broken = Vec::new();
    for real in all {
        let Some(fields) = tables.iter().find_map(|table| layout(table, real.title)) else {
            broken.push(format!("{path} has no table of {}", real.title));
            continue;
        };
        let (fields, gaps) = fields;
        broken.extend(
            gaps.iter()
                .map(|(line, why)| format!("{path}:{line} ({}): {why}", real.title)),
        );
        let faults = fields
            .iter()
            .flat_map(|field| faults(field, real).map(move |why| (field, why)));
        broken.extend(faults.map(|(field, why)| format!("{path}:{} ({}): {why}", field.line, real.title)));
        broken.extend(unsaid(&fields, real).map(|name| format!("{path}: {} has no field {name}", real.title)));
    }
    broken
}

type Fields<'a> = (Vec<Field<'a>>, Vec<(usize, String)>);

/// The fields of the table, or part of one, that is about this; and where they do not follow each other.
fn layout<'a>(table: &Table<'a>, title: &str) -> Option<Fields<'a>> {
    let head = table.head();
    if let Some(at) = head.iter().position(|name| *name == title) {
        let has_offsets = at >= 2 && head[at - 2] == "offset";
        return Some(if has_offsets {
            with_offsets(table, at)
        } else {
            in_order(table, at)
        });
    }
    let first = table.body().first()?;
    (first.cell(2) == format!("magic `{title}`")).then(|| with_offsets(table, 2))
}

fn with_offsets<'a>(table: &Table<'a>, at: usize) -> Fields<'a> {
    let mut fields = Vec::new();
    let mut gaps = Vec::new();
    let mut end = 0;
    for row in rows(table, at) {
        let offset = row.cell(at - 2).parse().unwrap_or(usize::MAX);
        if offset != end {
            gaps.push((
                row.line,
                format!("the field before ends at {end}, not {}", row.cell(at - 2)),
            ));
        }
        let Some(size) = size(row.cell(at - 1)) else { break };
        end = offset.saturating_add(size);
        fields.push(field(row, at, offset..end));
    }
    (fields, gaps)
}

/// Of a table without offsets the fields up to the first of which there are several.
fn in_order<'a>(table: &Table<'a>, at: usize) -> Fields<'a> {
    let mut fields = Vec::new();
    let mut end = 0;
    for row in rows(table, at) {
        let Some(size) = size(row.cell(at - 1)) else { break };
        fields.push(field(row, at, end..end + size));
        end += size;
    }
    (fields, Vec::new())
}

fn rows<'t, 'a>(table: &'t Table<'a>, at: usize) -> impl Iterator<Item = &'t Row<'a>> {
    table.body().iter().take_while(move |row| !row.cell(at).is_empty())
}

fn field<'a>(row: &Row<'a>, at: usize, place: Range<usize>) -> Field<'a> {
    Field {
        line: row.line,
        place,
        text: row.cell(at),
    }
}

/// "16" or "4 + 4".
fn size(cell: &str) -> Option<usize> {
    cell.split(" + ").map(|part| part.parse::<usize>().ok()).sum()
}

/// What of the field is not as in the real bytes.
fn faults(field: &Field, real: &Real) -> impl Iterator<Item = String> {
    let Some(bytes) = real.bytes.get(field.place.clone()) else {
        return vec![format!("`{}` lies behind the end", field.text)].into_iter();
    };
    let mut faults = Vec::new();
    if let Some(said) = said_value(field.text)
        && said != bytes
        && !alternatives(field.text).any(|value| value == number(bytes))
    {
        faults.push(format!("`{}` is {}", field.text, number(bytes)));
    }
    for (name, value) in &real.fields {
        if field.text.starts_with(name) && value != bytes {
            faults.push(format!("`{}` is not at {:?}", field.text, field.place));
        }
    }
    if let Some(summed) = summed(field.text)
        && real.bytes.get(summed.clone()).map(crc32c::crc32c) != Some(u32::try_from(number(bytes)).unwrap_or_default())
    {
        faults.push(format!("`{}` is not the checksum of {summed:?}", field.text));
    }
    faults.into_iter()
}

/// The fields that the real bytes are known to have, and of which the document says nothing.
fn unsaid<'r>(fields: &[Field], real: &'r Real) -> impl Iterator<Item = &'r str> {
    let names = real.fields.iter().map(|(name, _)| *name);
    let unsaid = names.filter(|name| !fields.iter().any(|field| field.text.starts_with(name)));
    unsaid.collect::<Vec<_>>().into_iter()
}

/// "magic `TRVT`", or a number alone or behind the last comma.
fn said_value(text: &str) -> Option<Vec<u8>> {
    if let Some(magic) = text.strip_prefix("magic `") {
        return Some(magic.trim_end_matches('`').as_bytes().to_vec());
    }
    alternatives(text).next().map(|value| value.to_le_bytes().to_vec())
}

/// The numbers that a field may be: "3", "3, or 4", "format, 7".
fn alternatives(text: &str) -> impl Iterator<Item = u64> {
    let last = text.rsplit(", ").next().unwrap_or_default();
    let last = last.trim_start_matches("or ").parse().ok();
    let first = last.and_then(|_| text.split(", ").next()?.parse().ok());
    first.into_iter().chain(last)
}

/// "checksum of bytes 0-63", "crc32c of bytes 0-55".
fn summed(text: &str) -> Option<Range<usize>> {
    let rest = text.strip_prefix("checksum of").or(text.strip_prefix("crc32c of"))?;
    let (from, to) = rest.strip_prefix(" bytes ")?.split_once('-')?;
    Some(from.parse().ok()?..to.parse::<usize>().ok()? + 1)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::{disk, summed, wire};
    use crate::tree::{Rule, Tree};

    const WIRE: &str = "docs/wire-protocol.md";
    const DISK: &str = "docs/on-disk-format.md";

    /// What `rule` says of a document of this repository with one change.
    fn changed(rule: Rule, path: &str, from: &str, to: &str) -> Vec<String> {
        let tree = Tree::load();
        let text = tree.text(path).unwrap();
        assert!(text.contains(from), "{from}");
        rule(&Tree::of(&[(path, &text.replacen(from, to, 1))]))
    }

    #[test]
    fn finds_bytes_that_are_not_as_documented() {
        let table: [(Rule, &str, &str, &str, &str); 14] = [
            (wire, WIRE, "| format, 7 |", "| format, 6 |", "`format, 6` is 7"),
            (
                wire,
                WIRE,
                "| 8 | 4 | length of the body |",
                "| 8 | 8 | length of the body |",
                "ends at 16, not 12",
            ),
            (wire, WIRE, "bytes 0-55", "bytes 0-51", "is not the checksum of 0..52"),
            (
                wire,
                WIRE,
                "| 16 | 8 | boot of",
                "| 16 | 8 | start of",
                "TRVH has no field boot of",
            ),
            (disk, DISK, "`TRIVETOS`", "`TRIVETOX`", "no table of TRIVETOS"),
            (disk, DISK, "| format version, 2 |", "| format version, 3 |", "is 2"),
            (
                disk,
                DISK,
                "| bytes of the log |",
                "| log |",
                "TRIVETOS has no field bytes of the log",
            ),
            (
                disk,
                DISK,
                "| 32 | 8 | incarnation:",
                "| 40 | 8 | incarnation:",
                "ends at 32, not 40",
            ),
            (disk, DISK, "| 1 | number of patches |\n", "", "(write): "),
            (
                disk,
                DISK,
                "| 16 | version: epoch",
                "| 8 | version: epoch",
                "(write): `version: epoch",
            ),
            (
                disk,
                DISK,
                "| 1 | 2 | | 4 | 3 |",
                "| 1 | 2 | | 4 | 2 |",
                "(forgotten tombstone): `2` is 3",
            ),
            (disk, DISK, "| 8 | epoch | |", "| 4 | epoch | |", "(accepted epoch): "),
            (
                disk,
                DISK,
                "| 48 | 8 | position where",
                "| 48 | 4 | position where",
                "ends at 52, not 56",
            ),
            (
                disk,
                DISK,
                "| 4 | slot; ffffffff",
                "| 8 | slot; ffffffff",
                "(object): `object, version",
            ),
        ];
        for (rule, path, from, to, said) in table {
            let broken = changed(rule, path, from, to);
            assert!(broken.iter().any(|line| line.contains(said)), "{to}: {broken:?}");
            assert!(broken.iter().all(|line| line.starts_with(path)), "{broken:?}");
        }
    }

    #[test]
    fn reads_what_a_checksum_is_of() {
        assert_eq!(summed("checksum of bytes 0-63"), Some(0..64));
        assert_eq!(summed("checksum of all other bytes"), None);
    }
}
