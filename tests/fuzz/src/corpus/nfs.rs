//! RPC records (RFC 5531) with calls of NFSv3 and MOUNT (RFC 1813), and results of both. Samples begin with the target's byte
//! of flags: the length of the pieces in which they arrive.

/// Program numbers.
const NFS: u32 = 100_003;
const MOUNT: u32 = 100_005;
/// Pieces as long as possible.
const WHOLE: u8 = 255;

/// Bytes in XDR (RFC 4506).
#[derive(Clone, Default)]
struct Xdr(Vec<u8>);

impl Xdr {
    fn words(mut self, words: &[u32]) -> Xdr {
        words.iter().for_each(|word| self.0.extend(word.to_be_bytes()));
        self
    }

    fn opaque(self, bytes: &[u8]) -> Xdr {
        let len = u32::try_from(bytes.len()).expect("samples are short");
        let mut with = self.words(&[len]);
        with.0.extend(bytes);
        with.0.resize(with.0.len().next_multiple_of(4), 0);
        with
    }
}

/// A handle of 16 bytes.
fn handle() -> Xdr {
    Xdr::default().opaque(&[0x11; 16])
}

/// A handle and a name.
fn place(name: &[u8]) -> Xdr {
    handle().opaque(name)
}

/// One record with one call, by AUTH_SYS.
fn call(program: u32, procedure: u32, arguments: &Xdr) -> Vec<u8> {
    let credentials = Xdr::default()
        .words(&[0x5eed])
        .opaque(b"host")
        .words(&[1000, 1000, 2, 10, 20]);
    let header = Xdr::default()
        .words(&[7, 0, 2, program, 3, procedure, 1])
        .opaque(&credentials.0)
        .words(&[0, 0]);
    let len = u32::try_from(header.0.len() + arguments.0.len()).expect("samples are short");
    [&(len | 0x8000_0000).to_be_bytes()[..], &header.0, &arguments.0].concat()
}

/// sattr3: mode 0644, size 4096, mtime by the client.
const ATTRIBUTES: [u32; 11] = [1, 0o644, 0, 0, 1, 0, 4096, 0, 2, 1_700_000_000, 5];

fn calls() -> Vec<Vec<u8>> {
    let nfs = |procedure, arguments| call(NFS, procedure, &arguments);
    let path = Xdr::default().opaque(b"/vms");
    vec![
        nfs(0, Xdr::default()),
        nfs(1, handle()),
        nfs(2, handle().words(&ATTRIBUTES).words(&[1, 1_700_000_000, 6])),
        nfs(3, place(b"web01.vmdk")),
        nfs(4, handle().words(&[0x3f])),
        nfs(5, handle()),
        nfs(6, handle().words(&[0, 8192, 4096])),
        nfs(7, handle().words(&[0, 4096, 512, 2]).opaque(&[0x5a; 512])),
        nfs(8, place(b"new").words(&[1]).words(&ATTRIBUTES)),
        nfs(8, place(b"exclusive").words(&[2, 0x1234, 0x5678])),
        nfs(9, place(b"dir").words(&ATTRIBUTES)),
        nfs(10, place(b"link").words(&ATTRIBUTES).opaque(b"../target")),
        nfs(11, place(b"pipe").words(&[7]).words(&ATTRIBUTES)),
        nfs(11, place(b"device").words(&[3]).words(&ATTRIBUTES).words(&[8, 1])),
        nfs(12, place(b"old")),
        nfs(13, place(b"dir")),
        nfs(14, Xdr([place(b"from").0, place(b"to").0].concat())),
        nfs(15, Xdr([handle().0, place(b"hard").0].concat())),
        nfs(16, handle().words(&[0, 16, 0, 0, 4096])),
        nfs(17, handle().words(&[0, 16, 0, 0, 4096, 32_768])),
        nfs(18, handle()),
        nfs(19, handle()),
        nfs(20, handle()),
        nfs(21, handle().words(&[0, 0, 0])),
        call(MOUNT, 1, &path),
        call(MOUNT, 2, &Xdr::default()),
        call(MOUNT, 3, &path),
        call(MOUNT, 5, &Xdr::default()),
    ]
}

/// fattr3 of a regular file.
fn attributes() -> Xdr {
    let words = [1, 0o644, 1, 0, 0, 0, 4096, 0, 4096, 0, 0, 0, 7, 0, 9, 1, 0, 2, 0, 3, 0];
    Xdr::default().words(&words)
}

/// Results: the status, then what the procedure gives.
fn results() -> Vec<Vec<u8>> {
    let ok = |rest: Xdr| [&[0; 4][..], &rest.0].concat();
    let with = |rest: Xdr| [&Xdr::default().words(&[1]).0[..], &attributes().0, &rest.0].concat();
    let wcc = |rest: Xdr| Xdr([Xdr::default().words(&[1, 0, 4096, 1, 0, 2, 0]).0, with(rest)].concat());
    let entries = Xdr::default()
        .words(&[9, 9, 1, 0, 16])
        .opaque(b"name")
        .words(&[0, 20, 0, 1]);
    vec![
        ok(attributes()),
        ok(Xdr(with(Xdr::default().words(&[8, 1]).opaque(&[1; 8])))),
        ok(Xdr([handle().0, with(Xdr::default().words(&[0]))].concat())),
        ok(wcc(Xdr::default().words(&[512, 2, 1, 2]))),
        ok(Xdr(with(entries))),
        ok(handle().words(&[1, 1])),
        Xdr::default().words(&[2, 0, 0, 0, 0]).0,
    ]
}

/// Calls alone, calls in a row, a call in two fragments, and results.
#[must_use]
pub fn samples() -> Vec<Vec<u8>> {
    let calls = calls();
    let whole = |bytes: &[u8]| [&[WHOLE][..], bytes].concat();
    let mut all: Vec<_> = calls.iter().chain(&results()).map(|bytes| whole(bytes)).collect();
    all.push(whole(&calls.concat()));
    let (_, body) = calls[1].split_at(4);
    let (head, tail) = body.split_at(40);
    let last = 0x8000_0000 | u32::try_from(tail.len()).expect("samples are short");
    all.push(whole(
        &[&40_u32.to_be_bytes(), head, &last.to_be_bytes(), tail].concat(),
    ));
    all
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use trivet_nfs::connection::{Connection, Limits};
    use trivet_nfs::mount;
    use trivet_nfs::nfs3::Reply;
    use trivet_nfs::xdr::Reader;

    use super::{calls, results};

    #[test]
    fn calls_are_understood() {
        for bytes in &calls()[1..] {
            let mut connection = Connection::new(Limits::default());
            let (mut out, mut calls) = (Vec::new(), Vec::new());
            connection
                .receive(&mut BytesMut::from(&bytes[..]), &mut out, &mut calls)
                .unwrap();
            assert_eq!((calls.len(), out.len()), (1, 0), "{bytes:02x?}");
        }
    }

    #[test]
    fn results_fit_some_procedure() {
        for bytes in results() {
            let bytes = Bytes::from(bytes);
            let nfs = |procedure| matches!(Reply::decode(procedure, &mut Reader::new(&bytes)), Some(Ok(_)));
            let mount = |procedure| matches!(mount::Reply::decode(procedure, &mut Reader::new(&bytes)), Some(Ok(_)));
            assert!((1..=21).any(nfs) || (1..=5).any(mount), "{bytes:02x?}");
        }
    }
}
