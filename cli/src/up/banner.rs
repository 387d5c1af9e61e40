//! What `trivet up` prints when it serves: one client command per protocol, ready to paste.

use crate::args::front::{Door, FrontArgs};

/// The lines above `ready`; a protocol that is off has none.
pub fn banner(front: &FrontArgs) -> String {
    let target = "iqn.2026-11.io.trivet:demo";
    let mut text = "Trivet serves the image 'demo':\n".to_owned();
    if let Door(Some(nbd)) = front.nbd {
        text.push_str(&format!(
            "\x20 NBD    qemu-img info nbd://{nbd}/demo\n\
             \x20        nbd-client {} {} /dev/nbd0 -N demo\n",
            nbd.ip(),
            nbd.port()
        ));
    }
    if let Door(Some(iscsi)) = front.iscsi {
        text.push_str(&format!(
            "\x20 iSCSI  iscsiadm -m discovery -t sendtargets -p {iscsi} && iscsiadm -m node -T {target} -p {iscsi} --login\n"
        ));
    }
    if let Door(Some(nfs)) = front.nfs {
        let (ip, port) = (nfs.ip(), nfs.port());
        text.push_str(&format!(
            "\x20 NFS    mount -t nfs -o vers=3,tcp,nolock,port={port},mountport={port},mountproto=tcp {ip}:/ /mnt\n"
        ));
    }
    text + &format!("\x20 admin  trivet --api http://{} status\n", front.http)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn front(nfs: Option<u16>) -> FrontArgs {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        FrontArgs {
            nbd: Door(Some(at(1))),
            iscsi: Door(Some(at(2))),
            nfs: Door(nfs.map(at)),
            http: at(4),
            memory: 0,
        }
    }

    #[test]
    fn every_protocol_that_is_spoken_has_a_line() {
        let text = banner(&front(Some(3)));
        for part in [
            "nbd://127.0.0.1:1/demo",
            "-p 127.0.0.1:2",
            "port=3,mountport=3",
            "http://127.0.0.1:4",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!banner(&front(None)).contains("NFS"));
    }
}
