//! What `trivet up` prints when it serves: one client command per protocol, ready to paste.

use std::net::SocketAddr;

/// Where the servers listen.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// NBD.
    pub nbd: SocketAddr,
    /// iSCSI.
    pub iscsi: SocketAddr,
    /// NFS and MOUNT.
    pub nfs: SocketAddr,
    /// The admin API.
    pub http: SocketAddr,
}

/// The lines above `ready`.
pub fn banner(at: &Addresses) -> String {
    let Addresses { nbd, iscsi, nfs, http } = at;
    let (ip, port) = (nfs.ip(), nfs.port());
    let target = "iqn.2026-11.io.trivet:demo";
    format!(
        "Trivet serves the image 'demo':\n\
         \x20 NBD    qemu-img info nbd://{nbd}/demo\n\
         \x20        nbd-client {} {} /dev/nbd0 -N demo\n\
         \x20 iSCSI  iscsiadm -m discovery -t sendtargets -p {iscsi} && iscsiadm -m node -T {target} -p {iscsi} --login\n\
         \x20 NFS    mount -t nfs -o vers=3,tcp,nolock,port={port},mountport={port},mountproto=tcp {ip}:/ /mnt\n\
         \x20 admin  trivet --api http://{http} status\n",
        nbd.ip(),
        nbd.port(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_has_a_line() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let text = banner(&Addresses {
            nbd: at(1),
            iscsi: at(2),
            nfs: at(3),
            http: at(4),
        });
        for part in [
            "nbd://127.0.0.1:1/demo",
            "-p 127.0.0.1:2",
            "port=3,mountport=3",
            "http://127.0.0.1:4",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
