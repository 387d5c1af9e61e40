//! The notation in which `docs/wire-protocol.md` writes the fields of messages, and how bytes are taken apart by it.
//!
//! The document explains it. Types are defined by the document alone: nothing here knows what they are.

use std::collections::BTreeMap;

use crate::table::Table;

/// The types that the document defines, by their names.
pub struct Types<'a>(BTreeMap<&'a str, Type<'a>>);

struct Type<'a> {
    line: usize,
    /// The sizes that it may have; none are said if it varies freely.
    sizes: Vec<usize>,
    fields: &'a str,
}

/// A field that does not say what is there: the line that defines it, if it is not the one that was read, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The line of a type's definition.
    pub line: Option<usize>,
    /// What is wrong.
    pub why: String,
}

/// Bytes that are taken apart, and the numbers that were found in them, each as "type.field".
pub struct Reader<'a> {
    /// What is left.
    pub bytes: &'a [u8],
    /// What was found, in order.
    pub found: Vec<(String, u64)>,
}

fn mismatch(why: String) -> Mismatch {
    Mismatch { line: None, why }
}

impl<'a> Types<'a> {
    /// Those of the table with the columns name, bytes and fields.
    pub fn of(tables: &[Table<'a>]) -> Types<'a> {
        let defined = tables.iter().filter(|table| table.begins(&["name", "bytes", "fields"]));
        let rows = defined.flat_map(|table| table.body());
        let types = rows.map(|row| {
            let words = row.cell(1).split(|c: char| !c.is_ascii_digit());
            let defined = Type {
                line: row.line,
                sizes: words.filter_map(|word| word.parse().ok()).collect(),
                fields: row.cell(2),
            };
            (row.cell(0), defined)
        });
        Types(types.collect())
    }

    /// Reads what `cell` says; the fields are those of `owner`. Returns the last number before the first semicolon.
    pub fn read(&self, cell: &str, owner: &str, reader: &mut Reader) -> Result<Option<u64>, Mismatch> {
        let mut parts = cell.split(';').map(str::trim);
        let last = self.list(parts.next().unwrap_or_default(), owner, reader)?;
        for part in parts {
            if let Some(fields) = part.strip_prefix("each ") {
                let count = last.ok_or_else(|| mismatch(format!("nothing counts `{fields}`")))?;
                for _ in 0..count {
                    self.list(fields, owner, reader)?;
                }
            } else if let Some((values, fields)) = condition(part)
                && last.is_some_and(|last| values.contains(&last))
            {
                self.list(&fields, owner, reader)?;
            }
        }
        Ok(last)
    }

    fn list(&self, fields: &str, owner: &str, reader: &mut Reader) -> Result<Option<u64>, Mismatch> {
        let mut last = None;
        for field in fields.split(", ").filter(|field| !field.is_empty()) {
            last = self.field(field, owner, reader)?;
        }
        Ok(last)
    }

    fn field(&self, field: &str, owner: &str, reader: &mut Reader) -> Result<Option<u64>, Mismatch> {
        if let Some((name, size)) = number(field) {
            return reader.number(&format!("{owner}.{name}"), size).map(Some);
        }
        let known = self.0.iter().filter(|(name, _)| is_called(field, name));
        let Some((name, defined)) = known.max_by_key(|(name, _)| name.len()) else {
            return Err(mismatch(format!("`{field}` ends with no type")));
        };
        let before = reader.bytes.len();
        let value = self.read(defined.fields, name, reader).map_err(|error| Mismatch {
            line: error.line.or(Some(defined.line)),
            ..error
        })?;
        let size = before - reader.bytes.len();
        if !defined.sizes.is_empty() && !defined.sizes.contains(&size) {
            let why = format!("`{name}` has {size} bytes");
            let line = Some(defined.line);
            return Err(Mismatch { line, why });
        }
        Ok(value)
    }
}

impl Reader<'_> {
    fn number(&mut self, name: &str, size: usize) -> Result<u64, Mismatch> {
        let Some((bytes, rest)) = self.bytes.split_at_checked(size) else {
            return Err(mismatch(format!("nothing is left for {name}")));
        };
        self.bytes = rest;
        let value = bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        self.found.push((name.to_owned(), value));
        Ok(value)
    }
}

/// "count u32": the name, and how many bytes it has.
fn number(field: &str) -> Option<(&str, usize)> {
    let (name, kind) = field.rsplit_once(' ')?;
    let sizes = [("u8", 1), ("u16", 2), ("u32", 4), ("u64", 8)];
    let (_, size) = sizes.iter().find(|(name, _)| *name == kind)?;
    Some((name, *size))
}

/// "damaged units" is called "units".
fn is_called(field: &str, name: &str) -> bool {
    field
        .strip_suffix(name)
        .is_some_and(|before| before.is_empty() || before.ends_with(' '))
}

/// "with 1 or 2 time u32": the values, and what follows.
fn condition(part: &str) -> Option<(Vec<u64>, String)> {
    let mut words = part.strip_prefix("with ")?.split(' ');
    let mut values = vec![words.next()?.parse().ok()?];
    let mut rest: Vec<&str> = words.collect();
    while let ["or", value, ..] = rest[..] {
        values.push(value.parse().ok()?);
        rest.drain(..2);
    }
    Some((values, rest.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::{Mismatch, Reader, Types};
    use crate::table::tables;

    const DOCUMENT: &str = "\
| name | bytes | fields |
|---|---|---|
| flag | 1 | value u8; 0 or 1 |
| place | 3 | image u16, number u8; within the pool |
| when | 1 or 3 | flag; with 1 or 2 time u16; later |
| places | | count u8; each place; in order |
";

    fn read(fields: &str, bytes: &[u8]) -> Result<(Vec<(String, u64)>, usize), Mismatch> {
        let mut reader = Reader {
            bytes,
            found: Vec::new(),
        };
        Types::of(&tables(DOCUMENT)).read(fields, "x", &mut reader)?;
        Ok((reader.found, reader.bytes.len()))
    }

    #[test]
    fn takes_bytes_apart() {
        let (found, left) = read("old flag, n u16; a remark", &[1, 2, 3, 4]).unwrap();
        assert_eq!(found, [("flag.value".to_owned(), 1), ("x.n".to_owned(), 0x0302)]);
        assert_eq!(left, 1);
        assert_eq!(read("when", &[0, 9]).unwrap().1, 1);
        assert_eq!(read("when", &[2, 9, 9]).unwrap().1, 0);
        let (found, left) = read("places", &[2, 1, 0, 7, 2, 0, 8]).unwrap();
        assert_eq!((found.len(), left), (5, 0));
        assert_eq!(found[4], ("place.number".to_owned(), 8));
    }

    #[test]
    fn tells_what_does_not_fit() {
        let of = |line, why: &str| {
            let why = why.to_owned();
            Err(Mismatch { line, why })
        };
        assert_eq!(read("place", &[1, 2]), of(Some(4), "nothing is left for place.number"));
        assert_eq!(read("n u64", &[1]), of(None, "nothing is left for x.n"));
        assert_eq!(read("flags", &[1]), of(None, "`flags` ends with no type"));
        assert_eq!(read("; each place", &[1]), of(None, "nothing counts `place`"));
        let wrong = DOCUMENT.replace("| 3 |", "| 4 |");
        let mut reader = Reader {
            bytes: &[1, 2, 3],
            found: Vec::new(),
        };
        let got = Types::of(&tables(&wrong)).read("place", "x", &mut reader).unwrap_err();
        assert_eq!((got.line, &*got.why), (Some(4), "`place` has 3 bytes"));
    }
}
