//! The files of the repository, or a few made-up ones for a rule's own test.
//!
//! Takes every text file below the root except build output, data folders and
//! hidden folders other than `.ci`; does not ask git, which may be absent.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A rule returns one line for each place that breaks it.
pub type Rule = fn(&Tree) -> Vec<String>;

/// Paths relative to the root, and the text of each file.
pub struct Tree(BTreeMap<String, String>);

impl Tree {
    /// The repository that this crate was built in.
    pub fn load() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut files = BTreeMap::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(root.join(&folder)).expect("a readable folder") {
                let entry = entry.expect("a readable entry");
                let path = folder.join(entry.file_name());
                if entry.file_type().expect("a file type").is_dir() {
                    if is_ours(&path) {
                        folders.push(path);
                    }
                // In a second working tree this is a file that names the first.
                } else if path == Path::new(".git") {
                } else if let Ok(text) = fs::read_to_string(root.join(&path)) {
                    files.insert(path.to_string_lossy().into_owned(), text);
                }
            }
        }
        Self(files)
    }

    /// Made-up files.
    pub fn of(files: &[(&str, &str)]) -> Self {
        Self(
            files
                .iter()
                .map(|(path, text)| ((*path).into(), (*text).into()))
                .collect(),
        )
    }

    /// All files with their text.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The files whose names end in `.rs`.
    pub fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(|(path, _)| path.ends_with(".rs"))
    }

    /// The text of one file.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    /// The crates: folder (empty for none) and manifest text.
    pub fn crates(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files()
            .filter_map(|(path, text)| Some((path.strip_suffix("/Cargo.toml")?, text)))
            .filter(|(_, text)| text.contains("[package]"))
    }
}

fn is_ours(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let top = folder.components().count() == 1;
    let generated = top && (name == "target" || name.starts_with("data"));
    !generated && (!name.starts_with('.') || name == ".ci")
}

/// Asserts that `rule` accepts each of `good` and reports each of `bad`, given
/// as (path, text) of a tree with that one file.
pub fn assert_rule(rule: Rule, good: &[(&str, &str)], bad: &[(&str, &str)]) {
    for file in good {
        assert_eq!(rule(&Tree::of(&[*file])), Vec::<String>::new(), "refuses {file:?}");
    }
    for file in bad {
        assert!(!rule(&Tree::of(&[*file])).is_empty(), "accepts {file:?}");
    }
}
