//! The table of the admin API in `docs/operating.md` against the routes that the server has.

use std::collections::BTreeSet;

use crate::table::tables;
use crate::tree::Tree;

const DOCUMENT: &str = "docs/operating.md";
const SERVER: &str = "gateway/control/src/";
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// Every route below `/api/` is documented with its methods, and no other is.
pub fn routes(tree: &Tree) -> Vec<String> {
    let sources = tree.files().filter(|(path, _)| path.starts_with(SERVER));
    let served: BTreeSet<String> = sources.flat_map(|(_, text)| served(text)).collect();
    let mut documented = BTreeSet::new();
    let mut broken = Vec::new();
    let tables = tables(tree.text(DOCUMENT).unwrap_or_default());
    for row in tables
        .iter()
        .filter(|table| table.begins(&["route"]))
        .flat_map(|table| table.body())
    {
        for route in said(row.cell(0)) {
            if !served.contains(&route) {
                broken.push(format!("{DOCUMENT}:{}: there is no {route}", row.line));
            }
            documented.insert(route);
        }
    }
    broken.extend(
        served
            .difference(&documented)
            .map(|route| format!("{DOCUMENT} has no {route}")),
    );
    broken
}

/// `.route("/api/v1/pools", get(..).post(..))`: "GET /api/v1/pools" and "POST /api/v1/pools".
fn served(text: &str) -> Vec<String> {
    let mut routes = Vec::new();
    for part in text.split(".route(").skip(1) {
        let part = part.split(';').next().unwrap_or_default();
        let Some(path) = part.split('"').nth(1).filter(|path| path.starts_with("/api/")) else {
            continue;
        };
        let words: BTreeSet<&str> = part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        let methods = METHODS.iter().filter(|method| words.contains(**method));
        routes.extend(methods.map(|method| format!("{} {}", method.to_uppercase(), shape(path))));
    }
    routes
}

/// "`GET`, `POST /api/v1/pools`": the same.
fn said(cell: &str) -> Vec<String> {
    let mut methods = Vec::new();
    let mut routes = Vec::new();
    for span in cell.split('`').skip(1).step_by(2) {
        let (method, path) = span.split_once(' ').unwrap_or((span, ""));
        methods.push(method);
        if !path.is_empty() {
            routes.extend(methods.drain(..).map(|method| format!("{method} {}", shape(path))));
        }
    }
    routes
}

/// The path with `*` for what stands for a name or number.
fn shape(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let stands_for = |part: &str| part.starts_with('{') || part.starts_with(|c: char| c.is_ascii_uppercase());
    let parts = path.split('/').map(|part| if stands_for(part) { "*" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::routes;
    use crate::tree::Tree;

    #[test]
    fn finds_routes_that_are_not_as_documented() {
        let code = ".route(\"/api/v1/pools\", get(list).post(make))\n.route(\n\"/api/v1/pools/{name}\",\npatch(post_it));\nx.post()";
        let say = |cell: &str| {
            let text = format!("| route | |\n|---|---|\n| {cell} | pools |\n");
            routes(&Tree::of(&[
                ("docs/operating.md", &text),
                ("gateway/control/src/http.rs", code),
            ]))
        };
        assert_eq!(
            say("`GET`, `POST /api/v1/pools?x=`; `PATCH /api/v1/pools/POOL`"),
            Vec::<String>::new()
        );
        assert_eq!(
            say("`GET /api/v1/pools`; `PATCH`, `DELETE /api/v1/pools/POOL`"),
            [
                "docs/operating.md:3: there is no DELETE /api/v1/pools/*",
                "docs/operating.md has no POST /api/v1/pools"
            ]
        );
    }
}
