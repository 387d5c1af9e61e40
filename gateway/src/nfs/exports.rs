//! What is exported to whom: subtrees, client lists, squashing.

use std::net::IpAddr;
use std::str::FromStr;

use trivet_namespace::Caller;
use trivet_nfs::rpc::{Credentials, SysCredentials};

/// Ports below this can only be opened by the client's root (RFC 2623 section 2.1).
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// One exported subtree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Part of every handle, so it must stay while clients have the export mounted.
    pub id: u32,
    /// What clients mount; starts with a slash.
    pub path: String,
    /// The directory in the tree of names, slash-separated, without a leading slash; empty for all of it.
    pub subtree: String,
    /// Who may; checked on every call.
    pub clients: Vec<Network>,
    /// Nothing can be changed through it.
    pub read_only: bool,
    /// Whose claims to be root, or anyone, are not believed.
    pub squash: Squash,
    /// The uid and gid that squashed callers, and those without credentials, get.
    pub anonymous: (u32, u32),
    /// Calls without credentials are served, as the anonymous user's.
    pub auth_none: bool,
    /// Calls must come from a port below 1024.
    pub privileged_port: bool,
}

/// Whose credentials are replaced by the anonymous ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Squash {
    /// Nobody's: root is root (what ESXi needs).
    Nobody,
    /// Root's.
    Root,
    /// Everybody's.
    Everybody,
}

impl Export {
    /// Whether a client at this address and port may use it.
    #[must_use]
    pub fn admits(&self, address: IpAddr, port: u16) -> bool {
        (!self.privileged_port || port < FIRST_UNPRIVILEGED_PORT)
            && self.clients.iter().any(|network| network.contains(address))
    }

    /// On whose behalf a call with these credentials acts; `None` if they are not enough.
    pub(super) fn caller(&self, credentials: &Credentials) -> Option<Caller> {
        match credentials {
            Credentials::None if !self.auth_none => None,
            Credentials::None => Some(self.nobody()),
            Credentials::Sys(sys) => Some(self.squashed(sys)),
        }
    }

    fn squashed(&self, sys: &SysCredentials) -> Caller {
        let gids = sys.groups.to_vec();
        match self.squash {
            Squash::Everybody => self.nobody(),
            Squash::Nobody => Caller {
                uid: sys.uid,
                gid: sys.gid,
                gids,
            },
            Squash::Root => {
                let (anonymous_uid, anonymous_gid) = self.anonymous;
                let uid = if sys.uid == 0 { anonymous_uid } else { sys.uid };
                let not_root = |gid| if gid == 0 { anonymous_gid } else { gid };
                Caller {
                    uid,
                    gid: not_root(sys.gid),
                    gids: gids.into_iter().map(not_root).collect(),
                }
            }
        }
    }

    fn nobody(&self) -> Caller {
        let (uid, gid) = self.anonymous;
        Caller {
            uid,
            gid,
            gids: Vec::new(),
        }
    }

    /// What is left of `path` below the mounted path, if it is that or below it.
    pub(super) fn below<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let own = self.path.trim_end_matches('/').as_bytes();
        let rest = path.strip_prefix(own)?;
        (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
    }
}

/// Addresses that share their leading bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Whether the address is one of them. An IPv4 address mapped into IPv6 is that IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                differ.checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                differ.checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// Why a text is no [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address or a network like 10.0.0.0/8 or fd00::/8")]
pub struct BadNetwork;

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Network, BadNetwork> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, bits)| (a, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| BadNetwork)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(longest), str::parse).map_err(|_| BadNetwork)?;
        if bits > longest {
            Err(BadNetwork)
        } else {
            Ok(Network { address, bits })
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivet_nfs::rpc::Groups;

    #[test]
    fn networks() {
        for (network, address, inside) in [
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("fd00::/9", "fd7f::1", true),
            ("fd00::/9", "fd80::1", false),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(parsed.contains(address.parse().unwrap()), inside, "{network} {address}");
        }
        for bad in [
            "",
            "host",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "::/129",
            "10.0.0/8",
        ] {
            assert_eq!(bad.parse::<Network>(), Err(BadNetwork), "{bad}");
        }
    }

    fn export(squash: Squash) -> Export {
        Export {
            id: 1,
            path: "/vms".to_owned(),
            subtree: String::new(),
            clients: vec!["10.0.0.0/8".parse().unwrap()],
            read_only: false,
            squash,
            anonymous: (65_534, 65_533),
            auth_none: false,
            privileged_port: true,
        }
    }

    fn sys(uid: u32, gid: u32, groups: &[u32]) -> Credentials {
        let groups = Groups::new(groups);
        Credentials::Sys(SysCredentials {
            stamp: 0,
            machine: Default::default(),
            uid,
            gid,
            groups,
        })
    }

    #[test]
    fn squashing() {
        let who = |uid, gid, gids: &[u32]| {
            Some(Caller {
                uid,
                gid,
                gids: gids.to_vec(),
            })
        };
        for (squash, root, user) in [
            (Squash::Nobody, who(0, 0, &[0, 7]), who(5, 6, &[0])),
            (Squash::Root, who(65_534, 65_533, &[65_533, 7]), who(5, 6, &[65_533])),
            (Squash::Everybody, who(65_534, 65_533, &[]), who(65_534, 65_533, &[])),
        ] {
            let export = export(squash);
            assert_eq!(export.caller(&sys(0, 0, &[0, 7])), root, "{squash:?}");
            assert_eq!(export.caller(&sys(5, 6, &[0])), user, "{squash:?}");
            assert_eq!(export.caller(&Credentials::None), None);
            let open = Export {
                auth_none: true,
                ..export
            };
            assert_eq!(open.caller(&Credentials::None), who(65_534, 65_533, &[]));
        }
    }

    #[test]
    fn addresses_and_ports() {
        let export = export(Squash::Nobody);
        for (address, port, may) in [
            ("10.0.0.1", 1023, true),
            ("10.0.0.1", 1024, false),
            ("192.0.2.1", 1023, false),
        ] {
            assert_eq!(export.admits(address.parse().unwrap(), port), may);
        }
        let open = Export {
            privileged_port: false,
            ..export
        };
        assert!(open.admits("10.0.0.1".parse().unwrap(), 50_000));
    }

    #[test]
    fn paths_below_an_export() {
        let export = export(Squash::Nobody);
        let cases: [(&[u8], Option<&[u8]>); 5] = [
            (b"/vms", Some(b"")),
            (b"/vms/", Some(b"/")),
            (b"/vms/a/b", Some(b"/a/b")),
            (b"/vmsx", None),
            (b"/", None),
        ];
        for (path, rest) in cases {
            assert_eq!(export.below(path), rest);
        }
        let all = Export {
            path: "/".to_owned(),
            ..export
        };
        assert_eq!(all.below(b"/a"), Some(&b"/a"[..]));
        assert_eq!(all.below(b"/"), Some(&b"/"[..]));
    }
}
