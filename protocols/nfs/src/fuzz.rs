//! The entry for fuzzers: any bytes as a client's stream and as a server's result.
//!
//! Checks what must hold for all bytes: nothing panics, memory stays within the limits, and whatever was
//! decoded survives encoding and decoding.

use bytes::{Bytes, BytesMut};

use crate::connection::{Call, Connection, Limits, Reply, Request};
use crate::nfs3::Status;
use crate::xdr::{Reader, Writer};
use crate::{mount, nfs3};

/// Small enough that fuzzers reach them.
const LIMITS: Limits = Limits {
    record: 4096,
    fragments: 8,
    calls: 4,
    bytes: 1 << 20,
};

/// Feeds `data`, its first byte choosing the size of the pieces in which it arrives.
///
/// # Panics
/// If a promise of this crate is broken.
pub fn fuzz(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else {
        return;
    };
    stream(usize::from(first).max(1), data);
    results(&Bytes::copy_from_slice(data));
}

fn stream(piece: usize, data: &[u8]) {
    let mut connection = Connection::new(LIMITS);
    let (mut input, mut out, mut calls) = (BytesMut::new(), Vec::new(), Vec::new());
    for piece in data.chunks(piece) {
        input.extend_from_slice(piece);
        // Each round either ends with nothing left to take or answers a call.
        while connection.receive(&mut input, &mut out, &mut calls).is_ok() {
            assert!(connection.calls_in_flight() <= LIMITS.calls);
            assert!(connection.collected() <= LIMITS.record);
            if calls.is_empty() {
                break;
            }
            calls.drain(..).for_each(|call| answer(&mut connection, call, &mut out));
        }
        assert!(out.iter().map(Bytes::len).sum::<usize>() <= 16 * data.len());
    }
}

/// Checks that the call survives a round trip, and answers it.
fn answer(connection: &mut Connection, call: Call, out: &mut Vec<Bytes>) {
    match &call.body {
        Request::Nfs(request) => {
            let wire = encoded(|w| request.encode(w));
            let again = nfs3::Request::decode(request.procedure(), &mut Reader::new(&wire));
            assert_eq!(again, Some(Ok(request.clone())));
            let reply = Reply::Nfs(request.fail(Status::ServerFault));
            connection.reply(call.ticket, &reply, out);
        }
        Request::Mount(request) => {
            let wire = encoded(|w| request.encode(w));
            let again = mount::Request::decode(request.procedure(), &mut Reader::new(&wire));
            assert_eq!(again, Some(Ok(request.clone())));
            connection.forget(call.ticket);
        }
    }
}

/// Decodes the bytes as the result of every procedure.
fn results(data: &Bytes) {
    for procedure in 1..=21 {
        if let Some(Ok(reply)) = nfs3::Reply::decode(procedure, &mut Reader::new(data)) {
            let wire = encoded(|w| reply.encode(w));
            let again = nfs3::Reply::decode(procedure, &mut Reader::new(&wire));
            assert_eq!(again, Some(Ok(reply)));
        }
        if let Some(Ok(reply)) = mount::Reply::decode(procedure, &mut Reader::new(data)) {
            let wire = encoded(|w| reply.encode(w));
            let again = mount::Reply::decode(procedure, &mut Reader::new(&wire));
            assert_eq!(again, Some(Ok(reply)));
        }
    }
}

fn encoded(encode: impl FnOnce(&mut Writer)) -> Bytes {
    let (mut w, mut out) = (Writer::new(), Vec::new());
    encode(&mut w);
    w.finish(&mut out);
    Bytes::from(out.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfs3::samples;
    use crate::rpc::{CallHeader, Credentials, finish_record, write_call_header};

    /// xorshift64 (Marsaglia 2003).
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
        }
    }

    const INTERESTING: [u32; 10] = [
        0,
        1,
        2,
        3,
        4,
        0x7fff_ffff,
        0x8000_0000,
        0x8000_0100,
        u32::MAX - 2,
        u32::MAX,
    ];

    fn mutate(data: &mut Vec<u8>, random: &mut Random) {
        for _ in 0..random.below(4) {
            let at = random.below(data.len());
            match random.below(4) {
                0 => data[at] ^= 1 << random.below(8),
                1 => data.truncate(at.max(1)),
                2 => drop(data.splice(at..at, vec![0; random.below(9)])),
                _ => {
                    let word = INTERESTING[random.below(INTERESTING.len())].to_be_bytes();
                    let at = at & !3;
                    let end = data.len().min(at + 4);
                    data[at..end].copy_from_slice(&word[..end - at]);
                }
            }
        }
    }

    fn call(request: &nfs3::Request) -> Vec<u8> {
        let (mut w, mut out) = (Writer::new(), Vec::new());
        let (program, version, procedure) = (nfs3::PROGRAM, nfs3::VERSION, request.procedure());
        let header = CallHeader {
            xid: 7,
            program,
            version,
            procedure,
            credentials: Credentials::None,
        };
        write_call_header(&mut w, &header);
        request.encode(&mut w);
        finish_record(&mut w, &mut out);
        out.concat()
    }

    #[test]
    fn mutated_calls_and_results_break_no_promise() {
        let requests = samples::requests();
        let replies = samples::replies();
        let mut random = Random(0x0dd_ba11);
        for _ in 0..40_000 {
            let mut data = Vec::new();
            for _ in 0..random.below(3) {
                data.extend(call(&requests[random.below(requests.len())]));
            }
            let reply = &replies[random.below(replies.len())];
            if data.is_empty() {
                data.extend_from_slice(&encoded(|w| reply.encode(w)));
            }
            data.push(0);
            mutate(&mut data, &mut random);
            let piece = u8::try_from(random.below(256)).unwrap();
            data.insert(0, piece);
            fuzz(&data);
        }
    }
}
