//! Which process is at the other end of a connection within this machine.

use std::fs;
use std::net::TcpStream;

/// Every connection of the machine, one a line.
const CONNECTIONS: &str = "/proc/net/tcp";

/// The process that connected to this end; none if it is gone, or cannot be seen.
pub(super) fn owner(accepted: &TcpStream) -> Option<u32> {
    let (here, there) = (accepted.local_addr().ok()?, accepted.peer_addr().ok()?);
    let table = fs::read_to_string(CONNECTIONS).ok()?;
    let inode = inode(&table, there.port(), here.port())?;
    let socket = format!("socket:[{inode}]");
    let folders = fs::read_dir("/proc").ok()?.flatten();
    let mut processes = folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok());
    processes.find(|process| has_open(*process, &socket))
}

/// The inode of the socket with these ports.
fn inode(table: &str, local: u16, remote: u16) -> Option<u64> {
    let ends = |field: &str, port: u16| field.ends_with(&format!(":{port:04X}"));
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = ends(fields.get(1)?, local) && ends(fields.get(2)?, remote);
        if is_it { fields.get(9)?.parse().ok() } else { None }
    })
}

fn has_open(process: u32, socket: &str) -> bool {
    let files = fs::read_dir(format!("/proc/{process}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|target| target.as_os_str() == socket)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::{inode, owner};

    #[test]
    fn finds_who_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(owner(&listener.accept().unwrap().0), Some(std::process::id()));
    }

    #[test]
    fn reads_the_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     \x20  0: 0100007F:0FA0 0100007F:2710 01 00000000:00000000 00:00000000 00000000     0        0 4711 1\n";
        assert_eq!(inode(table, 4000, 10_000), Some(4711));
        assert_eq!(inode(table, 10_000, 4000), None);
    }
}
