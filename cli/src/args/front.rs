//! The gateway's options, which `trivet up` and `trivet gateway` share: where it listens, and what it may take.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use clap::Args;
use trivet_gateway::metrics::Protocol;

use crate::size::parse_size;

/// The least that lets a client send the largest message.
const MIN_MEMORY: usize = 64 << 20;

/// Of a gateway.
#[derive(Clone, Debug, Args)]
pub struct FrontArgs {
    /// Where NBD listens, or 'off'
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10809", value_parser = door)]
    pub nbd: Door,
    /// Where iSCSI listens, or 'off'
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3260", value_parser = door)]
    pub iscsi: Door,
    /// Where NFS and MOUNT listen, or 'off'
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:2049", value_parser = door)]
    pub nfs: Door,
    /// Where the admin API listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090", value_parser = address)]
    pub http: SocketAddr,
    /// Memory for clients' data: requests under way and answers that were not taken
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = memory, allow_hyphen_values = true)]
    pub memory: usize,
}

impl FrontArgs {
    /// What it speaks where, and the option that says so.
    pub fn doors(&self) -> Vec<(Protocol, &'static str, SocketAddr)> {
        let doors = [
            (Protocol::Nbd, "--nbd", self.nbd),
            (Protocol::Iscsi, "--iscsi", self.iscsi),
            (Protocol::Nfs, "--nfs", self.nfs),
        ];
        let open = |(protocol, option, Door(at))| Option::map(at, |at| (protocol, option, at));
        doors.into_iter().filter_map(open).collect()
    }
}

/// Where a protocol is spoken, if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door(pub Option<SocketAddr>);

fn door(text: &str) -> Result<Door, String> {
    match text {
        "off" => Ok(Door(None)),
        text => address(text).map(|at| Door(Some(at))),
    }
}

/// An address and a port; a host's name is looked up at once.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    resolve(text, |host, port| Ok((host, port).to_socket_addrs()?.collect()))
}

fn resolve(text: &str, look_up: impl FnOnce(&str, u16) -> io::Result<Vec<SocketAddr>>) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let bad = || format!("bad address {text:?}: write it as 127.0.0.1:10809, [::1]:10809 or localhost:10809");
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let port = port.parse().map_err(|_| bad())?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if host.is_empty() || !host.chars().all(plain) {
        return Err(bad());
    }
    let found = look_up(host, port).map_err(|error| format!("bad address {text:?}: {error}"))?;
    // Whoever has both means the one that the defaults are of.
    let best = found.iter().find(|address| address.is_ipv4()).or(found.first());
    best.copied()
        .ok_or_else(|| format!("bad address {text:?}: {host} has none"))
}

/// A budget for clients' data, bytes.
fn memory(text: &str) -> Result<usize, String> {
    let bytes = usize::try_from(parse_size(text)?).map_err(|_| format!("{text}: more than there can be"))?;
    if bytes < MIN_MEMORY {
        return Err(format!(
            "{text}: too little; at least {} MiB are needed",
            MIN_MEMORY >> 20
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that knows two hosts.
    fn hosts(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let addresses: &[&str] = match host {
            "both" => &["::1", "127.0.0.1", "127.0.0.2"],
            "six" => &["fd00::1", "fd00::2"],
            "none" => &[],
            _ => return Err(io::Error::other("no such host")),
        };
        let addresses = addresses.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
        Ok(addresses.collect())
    }

    #[test]
    fn names_are_looked_up() {
        for (text, address) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("both:80", "127.0.0.1:80"),
            ("six:0", "[fd00::1]:0"),
        ] {
            assert_eq!(resolve(text, hosts), Ok(address.parse().unwrap()), "{text}");
        }
        for (text, why) in [
            ("both", "write it as"),
            ("", "write it as"),
            (":80", "write it as"),
            ("both:", "write it as"),
            ("both:65536", "write it as"),
            ("::1:80000", "write it as"),
            ("a b:80", "write it as"),
            ("http://both:80", "write it as"),
            ("none:80", "none has none"),
            ("elsewhere:80", "no such host"),
        ] {
            let error = resolve(text, hosts).unwrap_err();
            assert!(
                error.starts_with("bad address ") && error.contains(why),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn doors_that_are_off_do_not_open() {
        let at = |port| Door(Some(SocketAddr::from(([127, 0, 0, 1], port))));
        let args = FrontArgs {
            nbd: at(1),
            iscsi: door("off").unwrap(),
            nfs: at(3),
            http: SocketAddr::from(([127, 0, 0, 1], 4)),
            memory: MIN_MEMORY,
        };
        let doors: Vec<_> = args
            .doors()
            .into_iter()
            .map(|(_, option, at)| (option, at.port()))
            .collect();
        assert_eq!(doors, [("--nbd", 1), ("--nfs", 3)]);
        assert!(door("on").is_err());
    }

    #[test]
    fn a_budget_has_a_least() {
        assert_eq!(memory("64M"), Ok(MIN_MEMORY));
        assert!(memory("63M").unwrap_err().contains("at least 64 MiB"));
        assert!(memory("-1G").is_err());
    }
}
