//! Why a process cannot listen at an address, in words that say what to do.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

use anyhow::anyhow;

/// Ports below this are for the system's own servers, as most kernels are set (`net.ipv4.ip_unprivileged_port_start`).
const FIRST_FREE_PORT: u16 = 1024;

/// The address that an option names is not to be had.
pub fn refused(option: &str, at: SocketAddr, error: &Error) -> anyhow::Error {
    let why = match error.kind() {
        ErrorKind::AddrInUse => "it is in use; is another server running?".to_owned(),
        ErrorKind::AddrNotAvailable => {
            "this machine has no such address; 'ip address' shows those that it has".to_owned()
        }
        ErrorKind::PermissionDenied if at.port() < FIRST_FREE_PORT => {
            format!("ports below {FIRST_FREE_PORT} need root or CAP_NET_BIND_SERVICE; choose a higher one")
        }
        _ => error.to_string(),
    };
    anyhow!("{option} {at}: cannot listen there: {why}")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn each_reason_has_its_advice() {
        for (kind, at, said) in [
            (ErrorKind::AddrInUse, "127.0.0.1:10809", "is another server running?"),
            (ErrorKind::AddrNotAvailable, "10.1.2.3:10809", "no such address"),
            (ErrorKind::PermissionDenied, "127.0.0.1:80", "CAP_NET_BIND_SERVICE"),
            (ErrorKind::PermissionDenied, "127.0.0.1:10809", "permission denied"),
            (ErrorKind::OutOfMemory, "127.0.0.1:10809", "out of memory"),
        ] {
            let text = refused("--nbd", at.parse().unwrap(), &kind.into()).to_string();
            let start = format!("--nbd {at}: cannot listen there: ");
            assert!(text.starts_with(&start) && text.contains(said), "{text}");
            let asks = text.contains("another server");
            assert_eq!(asks, kind == ErrorKind::AddrInUse, "{text}");
        }
    }

    #[test]
    fn the_system_s_reasons_are_known() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = held.local_addr().unwrap();
        let why = |at: SocketAddr| crate::listen_http(at).unwrap_err().to_string();
        assert!(why(at).contains("is another server running?"), "{}", why(at));
        // TEST-NET-1 (RFC 5737): no machine's.
        let foreign = why("192.0.2.1:10809".parse().unwrap());
        assert!(foreign.contains("no such address"), "{foreign}");
    }
}
