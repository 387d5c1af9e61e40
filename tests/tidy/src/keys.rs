//! `docs/metadata-keys.md` against the keys and values that the code makes.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::specimens::{Specimen, specimens};
use crate::table::{Row, Table, tables};
use crate::tree::Tree;

pub const DOCUMENT: &str = "docs/metadata-keys.md";
/// Where keys are made, with the name of each module.
const SOURCES: [(&str, &str); 3] = [
    ("keys", "cluster/core/src/keys.rs"),
    ("usage", "cluster/core/src/usage.rs"),
    ("witness", "cluster/core/src/witness.rs"),
];

/// Every key that there can be is documented, with the fields of its value, and so is who writes it; and no other is.
pub fn patterns(tree: &Tree) -> Vec<String> {
    let Some(text) = tree.text(DOCUMENT) else {
        return vec![format!("{DOCUMENT} is missing")];
    };
    let tables = tables(text);
    let documented = documented(&tables, "key");
    let prefixes = documented_spans(&tables, "prefix");
    let specimens = specimens();
    let mut broken = Vec::new();
    for specimen in &specimens {
        let row = documented.iter().find(|(_, pattern)| matches(pattern, &specimen.key));
        match row {
            Some((row, _)) => broken.extend(value_fault(row, specimen)),
            None => broken.push(format!("{DOCUMENT} has no key like {}", specimen.key)),
        }
        if !prefixes.iter().any(|prefix| is_below(prefix, &specimen.key)) {
            broken.push(format!("{DOCUMENT} does not say who writes {}", specimen.key));
        }
    }
    for (row, pattern) in &documented {
        if !specimens.iter().any(|specimen| matches(pattern, &specimen.key)) {
            broken.push(format!("{DOCUMENT}:{}: there is no key like {pattern}", row.line));
        }
    }
    broken
}

/// Every key that the core can make has a specimen here, and is documented as on a lease where the code says so.
pub fn sources(tree: &Tree) -> Vec<String> {
    let specimens = specimens();
    let tables = tables(tree.text(DOCUMENT).unwrap_or_default());
    let documented = documented(&tables, "key");
    let mut broken = Vec::new();
    for (module, path) in SOURCES {
        let Some(text) = tree.text(path) else {
            broken.push(format!("{path} is missing"));
            continue;
        };
        for (line, name, comment) in makers(text) {
            let from = format!("{module}::{name}");
            let Some(specimen) = specimens.iter().find(|specimen| specimen.from == Some(&*from)) else {
                broken.push(format!(
                    "{path}:{line}: tests/tidy/src/specimens.rs has no key of {from}"
                ));
                continue;
            };
            let leased = comment.contains("'s lease") || comment.contains("on its lease");
            let row = documented.iter().find(|(_, pattern)| matches(pattern, &specimen.key));
            if let Some((row, pattern)) = row
                && leased != row.cell(0).contains("(lease)")
            {
                let on = if leased { "on a lease" } else { "on no lease" };
                broken.push(format!(
                    "{DOCUMENT}:{}: {pattern} is {on}, says {path}:{line}",
                    row.line
                ));
            }
        }
    }
    broken
}

/// The fields of inodes have a table of their own.
pub fn inode(tree: &Tree) -> Vec<String> {
    let tables = tables(tree.text(DOCUMENT).unwrap_or_default());
    let specimen = specimens()
        .into_iter()
        .find(|specimen| specimen.key.starts_with("vfs/inode/"));
    let fields: BTreeSet<String> = match specimen.map(|specimen| specimen.value) {
        Some(Value::Object(fields)) => fields.into_iter().map(|(name, _)| name).collect(),
        _ => BTreeSet::new(),
    };
    let said: BTreeSet<String> = documented_spans(&tables, "field")
        .into_iter()
        .map(str::to_owned)
        .collect();
    let missing = fields
        .difference(&said)
        .map(|name| format!("{DOCUMENT}: inodes have the field {name}"));
    let surplus = said
        .difference(&fields)
        .map(|name| format!("{DOCUMENT}: inodes have no field {name}"));
    missing.chain(surplus).collect()
}

fn value_fault(row: &Row, specimen: &Specimen) -> Option<String> {
    let Value::Object(_) = specimen.value else { return None };
    if specimen.key.starts_with("vfs/inode/") {
        return None;
    }
    let said = said_fields(row.cell(1));
    let mut real = BTreeSet::new();
    json_fields(&specimen.value, "", &mut real);
    // What is within a field is said only where it matters.
    real.retain(|path| {
        let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        parent.is_empty() || said.iter().any(|said| said.starts_with(&format!("{parent}.")))
    });
    let list = |fields: Vec<&String>| fields.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let (lacks, surplus) = (
        list(real.difference(&said).collect()),
        list(said.difference(&real).collect()),
    );
    let fault = format!("{DOCUMENT}:{}: the value of {} ", row.line, specimen.key);
    if !lacks.is_empty() {
        return Some(format!("{fault}has {lacks}"));
    }
    (!surplus.is_empty()).then(|| format!("{fault}has no {surplus}"))
}

/// Rows of tables whose first column is called so, with each pattern in that column.
fn documented<'a>(tables: &[Table<'a>], column: &str) -> Vec<(Row<'a>, &'a str)> {
    let tables = tables.iter().filter(|table| table.begins(&[column]));
    let rows = tables.flat_map(|table| table.body().to_vec());
    rows.flat_map(|row| spans(row.cell(0)).map(|span| (row.clone(), span)).collect::<Vec<_>>())
        .collect()
}

fn documented_spans<'a>(tables: &[Table<'a>], column: &str) -> Vec<&'a str> {
    documented(tables, column).into_iter().map(|(_, span)| span).collect()
}

/// What stands between backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// "osd/<n>/state" and "osd/7/state".
fn matches(pattern: &str, key: &str) -> bool {
    pattern.split('/').count() == key.split('/').count() && is_below(pattern, key)
}

/// Whether the key begins with the pattern.
fn is_below(pattern: &str, key: &str) -> bool {
    let mut parts = key.split('/');
    pattern.split('/').all(|expected| {
        let part = parts.next();
        expected.is_empty() || expected.starts_with('<') && part.is_some() || part == Some(expected)
    })
}

/// The fields of a value as a document writes it: "a" and "a.b" of `{"a": {"b", ...}}`; of the span that says most.
fn said_fields(cell: &str) -> BTreeSet<String> {
    let values = spans(cell).filter(|span| span.starts_with('{')).map(said_in);
    values.max_by_key(BTreeSet::len).unwrap_or_default()
}

fn said_in(value: &str) -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    let mut above: Vec<String> = Vec::new();
    let mut last = String::new();
    for (at, part) in value.split('"').enumerate() {
        if at % 2 == 1 {
            last = path(above.last().map_or("", String::as_str), part);
            fields.insert(last.clone());
            continue;
        }
        for sign in part.chars() {
            match sign {
                '{' => above.push(last.clone()),
                '}' => drop(above.pop()),
                _ => {}
            }
        }
    }
    fields
}

fn json_fields(value: &Value, above: &str, fields: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = path(above, name);
                json_fields(value, &path, fields);
                fields.insert(path);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| json_fields(value, above, fields)),
        _ => {}
    }
}

/// Names that are ids are all alike.
fn path(above: &str, name: &str) -> String {
    let is_id = name.starts_with('<') || name.starts_with(|c: char| c.is_ascii_digit());
    let name = if is_id { "<id>" } else { name };
    if above.is_empty() {
        return name.to_owned();
    }
    format!("{above}.{name}")
}

/// Functions and constants that make keys: line, name, and the comment above.
fn makers(text: &str) -> Vec<(usize, &str, String)> {
    let mut found = Vec::new();
    let mut comment = String::new();
    for (at, line) in text.lines().enumerate() {
        if let Some(words) = line.strip_prefix("///") {
            comment.push_str(words);
        } else if let Some(rest) = line.strip_prefix("pub fn ")
            && line.contains("-> String")
        {
            let name = rest.split('(').next().unwrap_or_default();
            found.push((at + 1, name, std::mem::take(&mut comment)));
        } else if let Some((name, value)) = line
            .strip_prefix("pub const ")
            .and_then(|rest| rest.split_once(": &str = "))
            && value.contains('/')
            && !value.ends_with("/\";")
        {
            found.push((at + 1, name, std::mem::take(&mut comment)));
        } else if !line.starts_with("#[") {
            comment.clear();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{DOCUMENT, SOURCES, inode, is_below, makers, matches, patterns, said_fields, sources};
    use crate::tree::{Rule, Tree};

    /// What `rule` says of the files of this repository with one change.
    fn changed(rule: Rule, path: &str, from: &str, to: &str) -> Vec<String> {
        let tree = Tree::load();
        let paths = SOURCES.iter().map(|(_, path)| *path).chain([DOCUMENT]);
        let texts: Vec<(&str, String)> = paths
            .map(|path| (path, tree.text(path).unwrap().to_owned()))
            .map(|(at, text)| match at == path {
                true => {
                    assert!(text.contains(from), "{from}");
                    (at, text.replacen(from, to, 1))
                }
                false => (at, text),
            })
            .collect();
        let files: Vec<(&str, &str)> = texts.iter().map(|(path, text)| (*path, &**text)).collect();
        rule(&Tree::of(&files))
    }

    #[test]
    fn finds_keys_and_values_that_are_not_as_documented() {
        let table = [
            (
                "| `osd/<n>/stats` (lease) |",
                "| `osd/<n>/stat` (lease) |",
                "has no key like osd/7/stats",
            ),
            (
                "| `osd/<n>/stats` (lease) |",
                "| `osd/<n>/stat` (lease) |",
                "no key like osd/<n>/stat",
            ),
            (
                "`config/scrub` | gateways",
                "`config/scrubs` | gateways",
                "does not say who writes config/scrub",
            ),
            (
                "\"reweight\", \"noout\"",
                "\"noout\"",
                "the value of osd/7/config has reweight",
            ),
            (
                "{\"level\", \"parent\"}",
                "{\"level\", \"up\", \"parent\"}",
                "the value of tree/r1 has no up",
            ),
            (
                "\"epoch\", \"acting\": [n, ...], \"active\", \"of\"",
                "\"epoch\", \"acting\", \"of\"",
                "has intervals.active",
            ),
            ("\"objects\", \"copies\"}", "\"objects\"}", "has pools.<id>.copies"),
        ];
        for (from, to, said) in table {
            let broken = changed(patterns, DOCUMENT, from, to);
            assert!(broken.iter().any(|line| line.contains(said)), "{to}: {broken:?}");
        }
        assert_eq!(changed(inode, DOCUMENT, "| `rdev` |", "| `dev` |").len(), 2);
    }

    #[test]
    fn finds_keys_that_nothing_here_knows() {
        let (_, path) = SOURCES[0];
        let table = [
            ("pub fn plan(", "pub fn plans(", "has no key of keys::plans"),
            ("pub const SCRUB: ", "pub const SCRUBS: ", "has no key of keys::SCRUBS"),
        ];
        for (from, to, said) in table {
            let broken = changed(sources, path, from, to);
            assert!(broken.len() == 1 && broken[0].contains(said), "{broken:?}");
        }
        let broken = changed(sources, DOCUMENT, "| `mon/leader` (lease) |", "| `mon/leader` |");
        assert!(
            broken.len() == 1 && broken[0].contains("mon/leader is on a lease"),
            "{broken:?}"
        );
        let broken = changed(sources, DOCUMENT, "| `plan/<pool>` |", "| `plan/<pool>` (lease) |");
        assert!(
            broken.len() == 1 && broken[0].contains("plan/<pool> is on no lease"),
            "{broken:?}"
        );
    }

    #[test]
    fn reads_patterns_values_and_code() {
        assert!(matches("osd/<n>/state", "osd/7/state") && !matches("osd/<n>", "osd/7/state"));
        assert!(is_below("osd/<n>/", "osd/7/state") && !is_below("osd/<n>/stats", "osd/7/state"));
        let fields = said_fields("a `key`, `{\"a\", \"b\": {\"<id>\": {\"c\", ...}}, \"d\"}`: and `{\"x\"}`");
        assert!(fields.iter().eq(["a", "b", "b.<id>", "b.<id>.c", "d"]), "{fields:?}");
        let code = "/// One, on its\n/// lease.\n#[must_use]\npub fn one(a: u8) -> String {\n}\npub const P: &str = \"p/\";\npub const TWO: &str = \"p/two\";\n";
        let found = makers(code);
        assert_eq!(found[0], (4, "one", " One, on its lease.".to_owned()));
        assert_eq!((found.len(), found[1].1), (2, "TWO"));
    }
}
