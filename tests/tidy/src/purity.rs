//! The pure cores: no time, threads, sockets, files, locks or randomness of
//! their own. clippy's bans do the fine work; here they are proved to be there,
//! with the coarse checks that clippy's lists cannot express.

use crate::layers::dependencies;
use crate::rust_text::{code_only, without_tests};
use crate::tree::Tree;

const PURE: &[&str] = &[
    "protocols/nbd",
    "protocols/scsi",
    "protocols/iscsi",
    "protocols/nfs",
    "cluster/core",
    "cluster/client",
    "cluster/carrier",
    "osd/store",
    "osd",
    "mon",
    "gateway/api",
    "gateway/namespace",
    "gateway",
];

const BANS: &[&str] = &[
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "std::thread::spawn",
    "std::thread::sleep",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::fs::File",
    "std::sync::Mutex",
    "std::sync::RwLock",
];

const IO_CRATES: &[&str] = &[
    "tokio",
    "axum",
    "ureq",
    "rustix",
    "libc",
    "io-uring",
    "getrandom",
    "rand",
    "redb",
    "etcd-client",
];

const IO_WORDS: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::thread",
    "std::process",
    "SystemTime",
    "Instant::now",
    "async fn",
    "allow(clippy::disallowed",
];

/// The pure crates that the tree has.
fn pure(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.crates().filter(|(folder, _)| PURE.contains(folder))
}

/// Each pure crate's `clippy.toml` has every ban, and the crate is there.
pub fn clippy_bans(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for (folder, _) in pure(tree) {
        let path = format!("{folder}/clippy.toml");
        let text = tree.text(&path).unwrap_or_default();
        let active: String = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .collect();
        let lost = BANS.iter().filter(|ban| !active.contains(&format!("\"{ban}\"")));
        broken.extend(lost.map(|ban| format!("{path} does not ban {ban}")));
    }
    broken
}

/// No pure crate depends on a crate that does I/O.
pub fn no_io_crates(tree: &Tree) -> Vec<String> {
    pure(tree)
        .flat_map(|(folder, manifest)| {
            let manifest = manifest.split("[dev-dependencies]").next().unwrap_or_default();
            dependencies(manifest)
                .filter(|name| IO_CRATES.contains(&name.as_str()))
                .map(move |name| format!("{folder} depends on {name}"))
        })
        .collect()
}

/// No pure crate names I/O outside its tests, nor silences the bans.
pub fn no_io_paths(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, text) in tree.rust() {
        if !PURE.iter().any(|folder| path.starts_with(&format!("{folder}/src/"))) {
            continue;
        }
        let code = code_only(text);
        let found = IO_WORDS.iter().filter(|word| without_tests(&code).contains(**word));
        broken.extend(found.map(|word| format!("{path} says `{word}`")));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::{BANS, PURE, clippy_bans, no_io_crates, no_io_paths};
    use crate::tree::{Tree, assert_rule};

    const MANIFEST: (&str, &str) = ("mon/Cargo.toml", "[package]\nname = \"trivet-mon\"");

    fn with_bans(bans: &[&str]) -> Vec<String> {
        let text: String = bans.iter().map(|ban| format!("{{ path = \"{ban}\" }},\n")).collect();
        clippy_bans(&Tree::of(&[MANIFEST, ("mon/clippy.toml", &text)]))
    }

    #[test]
    fn misses_each_ban_that_is_gone() {
        assert_eq!(with_bans(BANS), Vec::<String>::new());
        assert_eq!(clippy_bans(&Tree::of(&[MANIFEST])).len(), BANS.len());
        for gone in BANS {
            let rest: Vec<&str> = BANS.iter().copied().filter(|ban| ban != gone).collect();
            assert_eq!(with_bans(&rest).len(), 1, "{gone}");
        }
    }

    #[test]
    fn every_pure_crate_exists() {
        let tree = Tree::load();
        for folder in PURE {
            assert!(tree.text(&format!("{folder}/Cargo.toml")).is_some(), "{folder}");
        }
    }

    #[test]
    fn refuses_io_crates() {
        let head = "[package]\nname = \"x\"\n[dependencies]\n";
        let good = format!("{head}bytes = \"1\"\n");
        let bad = format!("{head}tokio = \"1\"\n");
        assert_rule(
            no_io_crates,
            &[("mon/Cargo.toml", &good), ("cli/Cargo.toml", &bad)],
            &[("mon/Cargo.toml", &bad)],
        );
    }

    #[test]
    fn refuses_io_by_name() {
        assert_rule(
            no_io_paths,
            &[
                (
                    "mon/src/lib.rs",
                    "// std::fs\nfn f() {}\n#[cfg(test)]\nmod tests { use std::fs; }",
                ),
                ("cli/src/main.rs", "use std::fs;"),
            ],
            &[
                ("mon/src/lib.rs", "use std::fs;"),
                ("osd/store/src/log.rs", "async fn f() {}"),
                ("protocols/nbd/src/lib.rs", "#![allow(clippy::disallowed_types)]"),
            ],
        );
    }
}
