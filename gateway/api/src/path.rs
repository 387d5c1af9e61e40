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

/// The same of a path that something is to get. Clients of NFS may give any name; an administrator does not give one that
/// would move the cursor of who lists it, or be taken for two.
///
/// # Errors
/// As [`clean_path`]; `Invalid` for control characters, too.
pub fn new_path(path: &str) -> Result<String, AdminError> {
    let path = clean_path(path)?;
    if path.contains(char::is_control) {
        return Err(AdminError::invalid(format!(
            "bad image name {path:?}: it contains a control character; names look like vms/web01"
        )));
    }
    Ok(path)
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
    fn control_characters_are_old_or_of_others() {
        for name in ["a\nb", "a/\u{1b}[2J", "a\u{7f}", "a\u{85}b/c", "\ta"] {
            assert_eq!(clean_path(name).as_deref(), Ok(name), "{name:?}");
            let error = new_path(name).unwrap_err();
            assert!(error.message.contains("control character"), "{error}");
            assert!(!error.message.contains(char::is_control), "{error}");
        }
        assert_eq!(new_path("/a b/ü").as_deref(), Ok("a b/ü"));
        assert!(new_path("a//b").is_err());
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
