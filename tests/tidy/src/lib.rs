//! The rules of the house, checked over the whole tree of files.
//!
//! A rule is a function from the files to the places that break it; the test
//! at the end runs all of them over this repository. Each rule has a test that
//! shows it a violation, since a check that cannot fail checks nothing.
//!
//! It does not judge formatting (rustfmt) nor what clippy already knows.

#[cfg(test)]
mod documents;
#[cfg(test)]
mod fields;
#[cfg(test)]
mod figures;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod layers;
#[cfg(test)]
mod layouts;
#[cfg(test)]
mod names;
#[cfg(test)]
mod purity;
#[cfg(test)]
mod real;
#[cfg(test)]
mod routes;
#[cfg(test)]
mod rust_text;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod source;
#[cfg(test)]
mod specimens;
#[cfg(test)]
mod table;
#[cfg(test)]
mod tree;
#[cfg(test)]
mod wire;

#[cfg(test)]
mod tests {
    use super::{documents, figures, keys, layers, layouts, names, purity, routes, source, wire};
    use crate::tree::{Rule, Tree};

    const RULES: &[(&str, Rule)] = &[
        ("dependencies point one way", layers::direction),
        ("pure crates ban time, threads, sockets", purity::clippy_bans),
        ("pure crates depend on no I/O", purity::no_io_crates),
        ("pure crates call no I/O", purity::no_io_paths),
        ("unsafe only in the reactor", source::no_unsafe),
        ("files fit a reading", source::file_size),
        ("functions are short", source::function_length),
        ("modules are named for what they hold", source::module_names),
        ("nothing unfinished", source::nothing_unfinished),
        ("crates say what they are", source::crate_heads),
        ("decisions have title and cost", documents::decisions),
        ("no path of somebody's machine", documents::foreign_paths),
        ("comments say what a thing is", documents::riddles),
        ("messages are as documented", wire::messages),
        ("fields of messages are as documented", wire::bodies),
        ("codes of messages are as documented", wire::codes),
        ("frames and greetings are as documented", layouts::wire),
        ("the disk is as documented", layouts::disk),
        ("keys are as documented", keys::patterns),
        ("keys are all known", keys::sources),
        ("inodes are as documented", keys::inode),
        ("documents name what there is", names::of_code),
        ("links lead somewhere", names::links),
        ("deliberate bugs are told", names::bugs),
        ("the admin API is as documented", routes::routes),
        ("figures are as in the code", figures::figures),
        ("kinds of trouble are counted", figures::troubles),
    ];

    #[test]
    fn repository_keeps_the_rules() {
        let tree = Tree::load();
        let broken: Vec<String> = RULES
            .iter()
            .flat_map(|(name, rule)| rule(&tree).into_iter().map(move |at| format!("{name}: {at}")))
            .collect();
        assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
    }

    #[test]
    fn the_tree_is_really_read() {
        let tree = Tree::load();
        for path in [
            "Cargo.toml",
            "cluster/core/src/lib.rs",
            "tests/tidy/src/lib.rs",
            ".ci/run",
        ] {
            assert!(
                tree.text(path).is_some_and(|text| !text.is_empty()),
                "{path} is missing"
            );
        }
        assert!(tree.files().all(|(path, _)| !path.starts_with("target/")));
    }
}
