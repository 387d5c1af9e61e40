//! Which crate may see which: `protocols` and `cluster/core` are the floor;
//! `osd`, `mon` and `gateway` never see each other; `cli` and `tests` see all.

use crate::tree::Tree;

/// Where a crate stands, and the prefixes of the crates that it may see.
const MAY_SEE: &[(&str, &[&str])] = &[
    ("protocols/iscsi", &["protocols/scsi"]),
    ("protocols/", &[]),
    ("cluster/core", &[]),
    ("cluster/reactor", &[]),
    ("cluster/", &["cluster/"]),
    ("osd", &["cluster/", "osd/"]),
    ("mon", &["cluster/"]),
    ("gateway/api", &["cluster/core"]),
    ("gateway/namespace", &["cluster/core"]),
    ("gateway/control", &["cluster/", "gateway"]),
    ("gateway", &["cluster/", "gateway/", "protocols/"]),
    ("cli", &[""]),
    ("tests/", &[""]),
];

/// Every dependency on a crate of this workspace points down.
pub fn direction(tree: &Tree) -> Vec<String> {
    let folders: Vec<(String, &str)> = tree
        .crates()
        .filter_map(|(folder, text)| Some((package_name(text)?, folder)))
        .collect();
    let folder_of = |name: &str| {
        let known = folders.iter().find(|(package, _)| package == name);
        known.map_or_else(|| format!("unknown crate {name}"), |(_, folder)| (*folder).to_owned())
    };
    let mut broken = Vec::new();
    for (folder, manifest) in tree.crates() {
        let Some((_, allowed)) = MAY_SEE.iter().find(|(prefix, _)| covers(prefix, folder)) else {
            broken.push(format!("{folder}: tests/tidy does not know which crates it may see"));
            continue;
        };
        for name in dependencies(manifest).filter(|name| name.starts_with("trivet")) {
            let target = folder_of(&name);
            if !allowed.iter().any(|prefix| target.starts_with(prefix)) {
                broken.push(format!("{folder} must not see {target}"));
            }
        }
    }
    broken
}

fn covers(prefix: &str, folder: &str) -> bool {
    folder
        .strip_prefix(prefix)
        .is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
}

fn package_name(manifest: &str) -> Option<String> {
    let line = manifest.lines().find(|line| line.starts_with("name"))?;
    Some(line.split('"').nth(1)?.to_owned())
}

/// The packages that a manifest depends on, of every kind and target.
pub fn dependencies(manifest: &str) -> impl Iterator<Item = String> {
    let mut section = "";
    manifest.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(head) = line.strip_prefix('[') {
            section = head.trim_end_matches(']');
            let (_, name) = section.rsplit_once("dependencies.")?;
            return Some(name.to_owned());
        }
        let listed = section.ends_with("dependencies") && !line.is_empty() && !line.starts_with('#');
        listed.then(|| renamed(line).unwrap_or_else(|| key(line)))
    })
}

fn key(line: &str) -> String {
    line.split(['.', '=', ' ']).next().unwrap_or_default().to_owned()
}

fn renamed(line: &str) -> Option<String> {
    let (_, after) = line.split_once("package")?;
    Some(after.trim_start().strip_prefix('=')?.split('"').nth(1)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{dependencies, direction};
    use crate::tree::Tree;

    fn manifest(name: &str, lines: &str) -> String {
        format!("[package]\nname = \"{name}\"\n{lines}")
    }

    /// What `direction` says when the crate in `folder` has these lines, beside one crate of each layer.
    fn verdict(folder: &str, lines: &str) -> Vec<String> {
        let path = format!("{folder}/Cargo.toml");
        let others = ["protocols/scsi", "cluster/core", "osd", "mon", "gateway", "cli"];
        let mut files: Vec<(String, String)> = others
            .iter()
            .map(|folder| {
                let name = folder.rsplit('/').next().unwrap();
                (format!("{folder}/Cargo.toml"), manifest(&format!("trivet-{name}"), ""))
            })
            .collect();
        files.retain(|(other, _)| *other != path);
        files.push((path, manifest("trivet-subject", lines)));
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, &**text)).collect();
        direction(&Tree::of(&files))
    }

    #[test]
    fn accepts_arrows_that_point_down() {
        let table = [
            (
                "protocols/iscsi",
                "[dependencies]\nbytes = \"1\"\ntrivet-scsi.workspace = true",
            ),
            ("osd", "[dependencies]\ntrivet-core.workspace = true"),
            (
                "gateway",
                "[dependencies]\ntrivet-core.workspace = true\ntrivet-scsi = { path = \"x\" }",
            ),
            (
                "cli",
                "[dependencies]\ntrivet-osd.workspace = true\ntrivet-mon.workspace = true",
            ),
        ];
        for (folder, lines) in table {
            assert_eq!(verdict(folder, lines), Vec::<String>::new(), "{folder}");
        }
    }

    #[test]
    fn refuses_arrows_that_point_up_or_across() {
        let table = [
            ("protocols/nbd", "[dependencies]\ntrivet-core.workspace = true"),
            ("protocols/nbd", "[dependencies]\ntrivet-scsi.workspace = true"),
            ("protocols/iscsi", "[dependencies]\ntrivet-core.workspace = true"),
            ("cluster/core", "[dependencies]\ntrivet-scsi.workspace = true"),
            ("osd", "[dependencies]\ntrivet-mon.workspace = true"),
            ("mon", "[dev-dependencies]\ntrivet-osd.workspace = true"),
            ("gateway", "[dependencies.trivet-osd]\npath = \"../osd\""),
            (
                "gateway",
                "[target.'cfg(unix)'.dependencies]\nother = { package = \"trivet-osd\", path = \"../osd\" }",
            ),
            ("osd/store", "[dependencies]\ntrivet-gateway.workspace = true"),
            ("mon", "[dependencies]\ntrivet-unheard-of.workspace = true"),
            ("elsewhere", ""),
        ];
        for (folder, lines) in table {
            assert_ne!(verdict(folder, lines), Vec::<String>::new(), "{folder}: {lines}");
        }
    }

    #[test]
    fn reads_every_kind_of_dependency() {
        let text = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = \"1\" # why\n# c\n[build-dependencies]\nd = {}\n[features]\ne = []\n";
        assert_eq!(dependencies(text).collect::<Vec<_>>(), ["a", "b", "d"]);
    }
}
