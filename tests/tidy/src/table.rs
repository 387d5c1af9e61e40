//! The tables of a Markdown document, with the lines where they stand.

/// A table, and the text of the last line before it that has any.
#[derive(Debug)]
pub struct Table<'a> {
    /// What stands above it.
    pub above: &'a str,
    /// The head and the rows.
    pub rows: Vec<Row<'a>>,
}

/// One row of a table.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// Its line, from 1.
    pub line: usize,
    /// Its cells.
    pub cells: Vec<&'a str>,
}

impl<'a> Table<'a> {
    /// The names of the columns.
    pub fn head(&self) -> &[&'a str] {
        &self.rows[0].cells
    }

    /// Whether the columns begin with these.
    pub fn begins(&self, columns: &[&str]) -> bool {
        self.head().starts_with(columns)
    }

    /// The rows below the head.
    pub fn body(&self) -> &[Row<'a>] {
        &self.rows[1..]
    }
}

impl<'a> Row<'a> {
    /// A cell; empty if the row has no such column.
    pub fn cell(&self, column: usize) -> &'a str {
        self.cells.get(column).copied().unwrap_or_default()
    }
}

/// All tables of a document.
pub fn tables(text: &str) -> Vec<Table<'_>> {
    let mut tables: Vec<Table> = Vec::new();
    let mut above = "";
    let mut inside = false;
    for (at, line) in text.lines().enumerate() {
        if !line.starts_with('|') {
            inside = false;
            above = if line.trim().is_empty() { above } else { line };
            continue;
        }
        if !inside {
            tables.push(Table {
                above,
                rows: Vec::new(),
            });
            inside = true;
        }
        if !line.starts_with("|-") {
            let table = tables.last_mut().expect("one was begun");
            table.rows.push(Row {
                line: at + 1,
                cells: cells(line),
            });
        }
    }
    tables
}

/// What stands between the bars that no backslash precedes.
fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim_end().trim_start_matches('|');
    let inner = inner.strip_suffix('|').unwrap_or(inner);
    let mut cells = Vec::new();
    let mut start = 0;
    for (at, _) in inner.match_indices('|') {
        if !inner[..at].ends_with('\\') {
            cells.push(inner[start..at].trim());
            start = at + 1;
        }
    }
    cells.push(inner[start..].trim());
    cells
}

#[cfg(test)]
mod tests {
    use super::tables;

    #[test]
    fn finds_tables_rows_and_what_stands_above() {
        let text = "# x\n\nAbove.\n\n| a | b |\n|---|---|\n| 1 | x\\|y |\n| 2 |\n\nmore\n| c |\n|---|\n| |\n";
        let found = tables(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].above, found[1].above), ("Above.", "more"));
        assert!(found[0].begins(&["a", "b"]));
        let body = found[0].body();
        assert_eq!((body[0].line, body[0].cell(1)), (7, "x\\|y"));
        assert_eq!((body[1].cell(0), body[1].cell(1)), ("2", ""));
        assert_eq!(found[1].body()[0].cells, [""]);
    }
}
