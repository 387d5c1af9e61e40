//! The address of a metadata store in etcd, as users write it.
//!
//! `etcd://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]..]/PREFIX`, or `etcds://` for TLS with
//! `?ca=FILE&cert=FILE&key=FILE` (each optional; without `ca` the system's certificates are trusted).
//! `%XX` stands for a byte in user, password and file names. Does not open files.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// etcd's client port, registered with IANA.
const DEFAULT_PORT: u16 = 2379;
/// More members than any etcd cluster should have.
const MAX_ENDPOINTS: usize = 32;
/// Length of the prefix, bytes.
const MAX_PREFIX_BYTES: usize = 255;
/// What every message says in the end.
const SHAPE: &str = "etcd://[USER:PASSWORD@]HOST:PORT[,HOST:PORT..]/PREFIX";

/// Where a cluster's metadata is. Displays itself without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct MetaUrl {
    pub(super) endpoints: Vec<String>,
    pub(super) user: Option<(String, String)>,
    pub(super) tls: Option<TlsFiles>,
    prefix: String,
}

/// PEM files for TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TlsFiles {
    /// Whom to trust; the system's authorities if absent.
    pub(super) ca: Option<PathBuf>,
    /// Who we are: certificate and key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

/// Why a text is not the address of a metadata store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; it must look like {SHAPE}")]
pub struct MetaUrlError {
    reason: String,
}

fn error<T>(reason: impl Into<String>) -> Result<T, MetaUrlError> {
    Err(MetaUrlError { reason: reason.into() })
}

impl MetaUrl {
    /// The name of the cluster: what comes before every key, without slashes at its ends.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Host and port of every endpoint.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.endpoints.iter().map(String::as_str)
    }
}

impl FromStr for MetaUrl {
    type Err = MetaUrlError;

    fn from_str(text: &str) -> Result<MetaUrl, MetaUrlError> {
        let (secure, rest) = match text.split_once("://") {
            Some(("etcd", rest)) => (false, rest),
            Some(("etcds", rest)) => (true, rest),
            Some((scheme, _)) => return error(format!("`{scheme}://` is neither `etcd://` nor `etcds://`")),
            None => return error("the address of the metadata store does not begin with `etcd://` or `etcds://`"),
        };
        let (rest, query) = rest
            .split_once('?')
            .map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let Some((authority, prefix)) = rest.split_once('/') else {
            return error("the prefix, which names the cluster, is missing: add `/` and a name");
        };
        // Else parts of the password would be taken for hosts and the prefix, and be quoted.
        if prefix.contains('@') {
            return error("`/` in user or password has to be written as `%2F`, and `@` cannot be in the prefix");
        }
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(credentials(user)?), hosts),
            None => (None, authority),
        };
        let endpoints: Vec<String> = hosts.split(',').map(endpoint).collect::<Result<_, _>>()?;
        if endpoints.len() > MAX_ENDPOINTS {
            return error(format!("more than {MAX_ENDPOINTS} endpoints"));
        }
        check_prefix(prefix)?;
        let tls = match (secure, query) {
            (true, query) => Some(tls_files(query.unwrap_or_default())?),
            (false, None) => None,
            (false, Some(_)) => return error("options after `?` are for TLS: use `etcds://`"),
        };
        Ok(MetaUrl {
            endpoints,
            user,
            tls,
            prefix: prefix.to_owned(),
        })
    }
}

impl fmt::Display for MetaUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls.is_some() { "etcds://" } else { "etcd://" })?;
        if let Some((user, _)) = &self.user {
            write!(f, "{user}@")?;
        }
        write!(f, "{}/{}", self.endpoints.join(","), self.prefix)
    }
}

/// Without the password, too: addresses end up in logs.
impl fmt::Debug for MetaUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MetaUrl({self})")
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`, with the port made explicit.
fn endpoint(text: &str) -> Result<String, MetaUrlError> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inner, port)) => {
            if inner.parse::<std::net::Ipv6Addr>().is_err() {
                return error(format!("`[{inner}]` is not an IPv6 address"));
            }
            (&text[..inner.len() + 2], port)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let named = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    if host.is_empty() || host == "[]" || !host.chars().all(named) {
        return error(format!("`{text}` has no valid host name"));
    }
    if port.is_empty() {
        return Ok(format!("{host}:{DEFAULT_PORT}"));
    }
    match port.strip_prefix(':').map(str::parse::<u16>) {
        Some(Ok(port)) if port > 0 => Ok(format!("{host}:{port}")),
        _ => error(format!(
            "`{text}` does not end in a port (1-65535); IPv6 addresses need brackets"
        )),
    }
}

fn check_prefix(prefix: &str) -> Result<(), MetaUrlError> {
    if prefix.len() > MAX_PREFIX_BYTES {
        return error(format!("a prefix of more than {MAX_PREFIX_BYTES} bytes"));
    }
    for element in prefix.split('/') {
        if element.is_empty() {
            return error(format!(
                "the prefix `{prefix}` has an empty part: the cluster needs a name"
            ));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if let Some(strange) = element.chars().find(|&c| !plain(c)) {
            return error(format!(
                "`{strange}` in the prefix `{prefix}` (letters, digits, `-._/` may be)"
            ));
        }
    }
    Ok(())
}

fn credentials(text: &str) -> Result<(String, String), MetaUrlError> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() => Ok((unescape(user)?, unescape(password)?)),
        _ => error("what comes before `@` is not `USER:PASSWORD`"),
    }
}

fn tls_files(query: &str) -> Result<TlsFiles, MetaUrlError> {
    let (mut ca, mut cert, mut key) = (None, None, None);
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let slot = match option.split_once('=') {
            Some(("ca", file)) => (&mut ca, file),
            Some(("cert", file)) => (&mut cert, file),
            Some(("key", file)) => (&mut key, file),
            _ => return error(format!("`{option}` is none of `ca=FILE`, `cert=FILE`, `key=FILE`")),
        };
        if slot.1.is_empty() {
            return error(format!("`{option}` names no file"));
        }
        if slot.0.replace(PathBuf::from(unescape(slot.1)?)).is_some() {
            return error(format!("`{option}` is there twice"));
        }
    }
    match (cert, key) {
        (None, None) => Ok(TlsFiles { ca, identity: None }),
        (Some(cert), Some(key)) => Ok(TlsFiles {
            ca,
            identity: Some((cert, key)),
        }),
        _ => error("`cert=FILE` and `key=FILE` go together"),
    }
}

/// Puts bytes in place of `%XX`.
fn unescape(text: &str) -> Result<String, MetaUrlError> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(byte) = digits.and_then(|two| u8::from_str_radix(two, 16).ok()) else {
            return error("a `%` is not followed by two hexadecimal digits (write `%25` for itself)");
        };
        bytes.push(byte);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).or_else(|_| error("a user, password or file name is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_address() {
        let table = [
            ("etcd://a:1/x", "etcd://a:1/x"),
            ("etcd://a,b:7,10.0.0.1/x/y-z", "etcd://a:2379,b:7,10.0.0.1:2379/x/y-z"),
            ("etcd://[::1]:2379,[fe80::2]/x", "etcd://[::1]:2379,[fe80::2]:2379/x"),
            ("etcd://u:p@a/x", "etcd://u@a:2379/x"),
            ("etcds://a/x", "etcds://a:2379/x"),
            ("etcds://a/x?ca=/c.pem&key=/k&cert=/d", "etcds://a:2379/x"),
        ];
        for (text, shown) in table {
            let url: MetaUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
        }
    }

    #[test]
    fn what_it_holds() {
        let url: MetaUrl = "etcds://me%40:p%3A@%25@a,b:1/x/y?ca=/c%20d".parse().unwrap();
        assert_eq!(url.user, Some(("me@".into(), "p:@%".into())));
        assert_eq!(url.endpoints().collect::<Vec<_>>(), ["a:2379", "b:1"]);
        assert_eq!(url.prefix(), "x/y");
        let tls = url.tls.clone().unwrap();
        assert_eq!((tls.ca, tls.identity), (Some("/c d".into()), None));
        assert!(!format!("{url:?} {url}").contains("p:"), "the password is not shown");
    }

    #[test]
    fn what_is_no_address() {
        let table = [
            ("", "begin with"),
            ("localhost:2379/x", "begin with"),
            ("http://a/x", "neither"),
            ("etcd://a", "prefix"),
            ("etcd://a/", "empty part"),
            ("etcd://a/x/", "empty part"),
            ("etcd://a//x", "empty part"),
            ("etcd://a/x y", "` ` in the prefix"),
            ("etcd:///x", "host"),
            ("etcd://a,,b/x", "host"),
            ("etcd://a b/x", "host"),
            ("etcd://a:0/x", "port"),
            ("etcd://a:70000/x", "port"),
            ("etcd://a:/x", "port"),
            ("etcd://::1/x", "host"),
            ("etcd://fe80::1/x", "brackets"),
            ("etcd://[zz]/x", "IPv6"),
            ("etcd://u@a/x", "USER:PASSWORD"),
            ("etcd://:p@a/x", "USER:PASSWORD"),
            ("etcd://u:pa/ss@a/x", "%2F"),
            ("etcd://u:%4@a/x", "hexadecimal"),
            ("etcd://u:%+4@a/x", "hexadecimal"),
            ("etcd://u:%ff@a/x", "UTF-8"),
            ("etcd://a/x?ca=/f", "etcds://"),
            ("etcds://a/x?ca=", "no file"),
            ("etcds://a/x?cert=/f", "go together"),
            ("etcds://a/x?ca=/f&ca=/g", "twice"),
            ("etcds://a/x?timeout=1", "none of"),
        ];
        for (text, why) in table {
            let error = text.parse::<MetaUrl>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let many = format!("etcd://{}/x", vec!["a"; MAX_ENDPOINTS + 1].join(","));
        assert!(many.parse::<MetaUrl>().is_err());
        assert!(format!("etcd://a/{}", "x".repeat(256)).parse::<MetaUrl>().is_err());
    }
}
