//! Which strings name an image.

use super::AdminError;

/// Bytes of one component, as every NFS client's `NAME_MAX`.
pub const MAX_COMPONENT: usize = 255;
/// Bytes of a whole path (MNTPATHLEN, RFC 1813 section 5.1.2).
pub const MAX_PATH: usize = 1024;

/// The canonical form of an image's path: components joined by `/`, none empty, without the one leading slash
/// that is allowed.
///
/// # Errors
/// `Invalid`, with the rule that was broken.
pub fn clean_path(path: &str) -> Result<String, AdminError> {
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.len() > MAX_PATH {
        return Err(AdminError::invalid(format!(
            "the name has {} bytes; at most {MAX_PATH} are possible",
            path.len()
        )));
    }
    match path.split('/').find_map(fault) {
        None => Ok(path.to_owned()),
        Some(fault) => Err(AdminError::invalid(format!(
            "bad image name {path:?}: {fault}; names look like vms/web01"
        ))),
    }
}

fn fault(component: &str) -> Option<&'static str> {
    match component {
        "" => Some("a component is empty"),
        "." | ".." => Some("a component is . or .."),
        _ if component.len() > MAX_COMPONENT => Some("a component has more than 255 bytes"),
        _ if component.contains('\0') => Some("it contains a NUL"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names() {
        let longest = "x".repeat(MAX_COMPONENT);
        for (given, clean) in [
            ("demo", "demo"),
            ("/demo", "demo"),
            ("vms/web01/web01-flat.vmdk", "vms/web01/web01-flat.vmdk"),
            ("/vms/web01", "vms/web01"),
            ("...", "..."),
            ("a b/ü", "a b/ü"),
            (longest.as_str(), longest.as_str()),
        ] {
            assert_eq!(clean_path(given).as_deref(), Ok(clean), "{given:?}");
        }
    }

    #[test]
    fn bad_names() {
        let component = "x".repeat(MAX_COMPONENT + 1);
        let whole = vec!["x".repeat(MAX_COMPONENT); 5].join("/");
        for (given, why) in [
            ("", "empty"),
            ("/", "empty"),
            ("//demo", "empty"),
            ("vms/", "empty"),
            ("vms//web01", "empty"),
            (".", ". or .."),
            ("vms/../demo", ". or .."),
            ("vms/./demo", ". or .."),
            ("de\0mo", "NUL"),
            (component.as_str(), "255"),
            (whole.as_str(), "1024"),
        ] {
            let error = clean_path(given).unwrap_err();
            assert!(error.message.contains(why), "{given:?}: {error}");
            assert!(!error.message.contains('\0'), "{given:?}");
        }
    }
}
