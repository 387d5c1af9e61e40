//! NBD: handshakes of the fixed newstyle, and requests. The target feeds them from the handshake and behind it.

/// `NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES`.
const CLIENT_FLAGS: [u8; 4] = [0, 0, 0, 3];
/// Starts an option.
const IHAVEOPT: &[u8] = b"IHAVEOPT";
/// Starts a request.
const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Starts a request with extended headers.
const EXTENDED_MAGIC: u32 = 0x21e4_1c71;

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).expect("samples are short");
    [IHAVEOPT, &number.to_be_bytes(), &len.to_be_bytes(), data].concat()
}

/// The data of `NBD_OPT_INFO` and `NBD_OPT_GO`.
fn info(name: &str, wanted: &[u16]) -> Vec<u8> {
    let len = u32::try_from(name.len()).expect("samples are short");
    let count = u16::try_from(wanted.len()).expect("samples are short");
    let mut data = [&len.to_be_bytes(), name.as_bytes(), &count.to_be_bytes()].concat();
    wanted.iter().for_each(|info| data.extend(info.to_be_bytes()));
    data
}

/// The data of `NBD_OPT_SET_META_CONTEXT`.
fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let word = |len: usize| u32::try_from(len).expect("samples are short").to_be_bytes();
    let mut data = [&word(name.len()), name.as_bytes(), &word(queries.len())].concat();
    for query in queries {
        data.extend(word(query.len()));
        data.extend(query.as_bytes());
    }
    data
}

fn request(flags: u16, kind: u16, offset: u64, len: u32, data: &[u8]) -> Vec<u8> {
    let mut out = REQUEST_MAGIC.to_be_bytes().to_vec();
    out.extend(flags.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(0x1122_3344_5566_7788_u64.to_be_bytes());
    out.extend(offset.to_be_bytes());
    out.extend(len.to_be_bytes());
    out.extend(data);
    out
}

fn extended(kind: u16, offset: u64, len: u64) -> Vec<u8> {
    let mut out = EXTENDED_MAGIC.to_be_bytes().to_vec();
    out.extend([0, 0]);
    out.extend(kind.to_be_bytes());
    out.extend(9_u64.to_be_bytes());
    out.extend(offset.to_be_bytes());
    out.extend(len.to_be_bytes());
    out
}

fn handshakes() -> Vec<Vec<u8>> {
    let go = option(7, &info("disk", &[0, 1, 3]));
    let structured = option(8, b"");
    let meta = option(10, &contexts("disk", &["base:allocation"]));
    vec![
        [&CLIENT_FLAGS[..], &go].concat(),
        [
            &CLIENT_FLAGS[..],
            &option(3, b""),
            &option(6, &info("", &[])),
            &option(2, b""),
        ]
        .concat(),
        [&CLIENT_FLAGS[..], &option(5, b""), &structured, &meta, &go].concat(),
        [
            &CLIENT_FLAGS[..],
            &option(9, &contexts("disk", &[])),
            &option(11, b""),
            &go,
        ]
        .concat(),
        [&CLIENT_FLAGS[..], &option(1, b"disk")].concat(),
    ]
}

fn requests() -> Vec<Vec<u8>> {
    let (fua, no_hole, one) = (1, 2, 8);
    vec![
        request(0, 0, 4096, 8192, b""),
        request(fua, 1, 512, 1024, &[0x5a; 1024]),
        request(0, 3, 0, 0, b""),
        request(0, 4, 0, 65_536, b""),
        request(no_hole, 6, 4096, 4096, b""),
        request(one, 7, 0, 1 << 20, b""),
        request(0, 2, 0, 0, b""),
    ]
}

/// Handshakes, requests, and whole sessions.
#[must_use]
pub fn samples() -> Vec<Vec<u8>> {
    let (handshakes, requests) = (handshakes(), requests());
    let sessions = handshakes
        .iter()
        .map(|handshake| [&handshake[..], &requests.concat()].concat());
    let mut all: Vec<_> = sessions.collect();
    all.extend([requests.concat(), extended(0, 0, 512), extended(6, 0, 1 << 19)]);
    all.extend(handshakes);
    all.extend(requests);
    all
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use trivet_nbd::{Command, Connection, Export, Exports, Limits};

    use super::{handshakes, requests};

    struct Disk;

    impl Exports for Disk {
        fn find(&self, name: &str) -> Option<Export> {
            (name == "disk").then_some(Export {
                id: 1,
                size: 1 << 20,
                read_only: false,
                rotational: false,
            })
        }

        fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
            each("disk");
        }
    }

    #[test]
    fn requests_behind_a_handshake_are_commands() {
        let mut connection = Connection::new(Limits::default());
        let mut input = BytesMut::from(&[handshakes()[2].clone(), requests().concat()].concat()[..]);
        let (mut out, mut commands) = (Vec::new(), Vec::new());
        connection.receive(&mut input, &Disk, &mut out, &mut commands).ok();
        let writes = commands
            .iter()
            .filter(|request| matches!(request.command, Command::Write { .. }));
        assert_eq!(writes.count(), 1);
        assert!(commands.len() >= 5, "{commands:?}");
    }
}
