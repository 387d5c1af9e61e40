//! Credentials of a call (RFC 5531 sections 8.2, 9, 10 and appendix A).

use bytes::Bytes;

use super::flavor;
use crate::xdr::{Reader, Writer, Xdr, XdrError};

/// Bytes of a credential's or a verifier's body (RFC 5531 section 8.2).
pub const MAX_AUTH_BODY: u32 = 400;
/// Additional groups of AUTH_SYS (RFC 5531 appendix A).
pub const MAX_GROUPS: usize = 16;
/// Bytes of the client's name in AUTH_SYS (RFC 5531 appendix A).
pub const MAX_MACHINE_NAME: u32 = 255;

xdr_enum! {
    /// Why authentication failed (`auth_stat`, RFC 5531 section 9; the GSS values are left out).
    AuthStat {
        /// The credential cannot be understood (AUTH_BADCRED).
        BadCredential = 1,
        /// The client must begin a new session (AUTH_REJECTEDCRED).
        RejectedCredential = 2,
        /// The verifier cannot be understood (AUTH_BADVERF).
        BadVerifier = 3,
        /// The verifier expired or was replayed (AUTH_REJECTEDVERF).
        RejectedVerifier = 4,
        /// The flavour is not enough for what was asked (AUTH_TOOWEAK).
        TooWeak = 5,
    }
}

/// Who calls, as the caller says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// AUTH_NONE.
    None,
    /// AUTH_SYS.
    Sys(SysCredentials),
}

xdr_struct! {
    /// `authsys_parms`.
    SysCredentials {
        /// Arbitrary, chosen by the client.
        stamp: u32,
        /// The client's name, at most [`MAX_MACHINE_NAME`] bytes.
        machine: MachineName,
        /// Effective user id.
        uid: u32,
        /// Effective group id.
        gid: u32,
        /// Further groups.
        groups: Groups,
    }
}

/// The client's name; not to be trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineName(
    /// Any bytes.
    pub Bytes,
);

impl Xdr for MachineName {
    fn encode(&self, w: &mut Writer) {
        w.opaque(&self.0);
    }

    fn decode(r: &mut Reader<'_>) -> Result<MachineName, XdrError> {
        r.opaque(MAX_MACHINE_NAME).map(MachineName)
    }
}

/// Up to [`MAX_GROUPS`] group ids.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Groups {
    ids: [u32; MAX_GROUPS],
    len: usize,
}

impl Groups {
    /// The given groups; those beyond the sixteenth are left out.
    #[must_use]
    pub fn new(groups: &[u32]) -> Groups {
        let len = groups.len().min(MAX_GROUPS);
        let mut ids = [0; MAX_GROUPS];
        ids[..len].copy_from_slice(&groups[..len]);
        Groups { ids, len }
    }
}

impl std::ops::Deref for Groups {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.ids[..self.len]
    }
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Xdr for Groups {
    fn encode(&self, w: &mut Writer) {
        w.length(self.len);
        self.iter().for_each(|&id| w.u32(id));
    }

    fn decode(r: &mut Reader<'_>) -> Result<Groups, XdrError> {
        let length = r.u32()?;
        let limit = 16;
        let len = usize::try_from(length).unwrap_or(usize::MAX);
        let mut groups = Groups {
            ids: [0; MAX_GROUPS],
            len,
        };
        let ids = groups.ids.get_mut(..len).ok_or(XdrError::TooLong { length, limit })?;
        for id in ids {
            *id = r.u32()?;
        }
        Ok(groups)
    }
}

impl Credentials {
    /// Takes credential and verifier from a call's header.
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Credentials, AuthStat> {
        let (cred_flavor, body) = opaque_auth(r).map_err(|_| AuthStat::BadCredential)?;
        let (verf_flavor, verifier) = opaque_auth(r).map_err(|_| AuthStat::BadVerifier)?;
        let credentials = Credentials::parse(cred_flavor, &body)?;
        if verf_flavor != flavor::NONE || !verifier.is_empty() {
            return Err(AuthStat::BadVerifier);
        }
        Ok(credentials)
    }

    fn parse(flavor: u32, body: &Bytes) -> Result<Credentials, AuthStat> {
        let mut r = Reader::new(body);
        let credentials = match flavor {
            flavor::NONE => Credentials::None,
            flavor::SYS => Xdr::decode(&mut r)
                .map(Credentials::Sys)
                .map_err(|_| AuthStat::BadCredential)?,
            flavor::SHORT => return Err(AuthStat::RejectedCredential),
            _ => return Err(AuthStat::BadCredential),
        };
        r.finish().map_err(|_| AuthStat::BadCredential)?;
        Ok(credentials)
    }

    /// Writes credential and an AUTH_NONE verifier.
    pub(super) fn encode(&self, w: &mut Writer) {
        match self {
            Credentials::None => w.bytes(&[0; 8]),
            Credentials::Sys(sys) => {
                let mut body = Writer::new();
                sys.encode(&mut body);
                w.u32(flavor::SYS);
                w.opaque(&body.into_bytes());
            }
        }
        w.bytes(&[0; 8]);
    }
}

/// `opaque_auth`: flavour and body.
fn opaque_auth(r: &mut Reader<'_>) -> Result<(u32, Bytes), XdrError> {
    Ok((r.u32()?, r.opaque(MAX_AUTH_BODY)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// stamp 1, "host", uid 0, gid 0, then the groups.
    fn sys_body(machine: &[u8], groups: u32) -> Bytes {
        let mut w = Writer::new();
        w.u32(1);
        w.opaque(machine);
        w.u32(1000);
        w.u32(100);
        w.u32(groups);
        (0..groups).for_each(|id| w.u32(id));
        w.into_bytes()
    }

    fn header(flavor: u32, body: &[u8], verifier: (u32, &[u8])) -> Bytes {
        let mut w = Writer::new();
        w.u32(flavor);
        w.opaque(body);
        w.u32(verifier.0);
        w.opaque(verifier.1);
        w.into_bytes()
    }

    fn decode(message: &Bytes) -> Result<Credentials, AuthStat> {
        Credentials::decode(&mut Reader::new(message))
    }

    const NO_VERIFIER: (u32, &[u8]) = (0, b"");

    #[test]
    fn auth_sys_is_understood() {
        let bytes = b"\0\0\0\x01\0\0\0\x1c\x12\x34\x56\x78\0\0\0\x02ab\0\0\0\0\x03\xe8\0\0\0\x64\0\0\0\x01\
            \0\0\0\x0a\0\0\0\0\0\0\0\0";
        let expected = Credentials::Sys(SysCredentials {
            stamp: 0x1234_5678,
            machine: MachineName(Bytes::from_static(b"ab")),
            uid: 1000,
            gid: 100,
            groups: Groups::new(&[10]),
        });
        assert_eq!(decode(&Bytes::from_static(bytes)), Ok(expected.clone()));
        let mut w = Writer::new();
        expected.encode(&mut w);
        assert_eq!(&w.into_bytes()[..], bytes);
    }

    #[test]
    fn limits_of_auth_sys() {
        let cases = [
            (sys_body(b"", 0), true),
            (sys_body(&[b'm'; 255], 16), true),
            (sys_body(&[b'm'; 256], 0), false),
            (sys_body(b"host", 16), true),
            (sys_body(b"host", 17), false),
            (Bytes::from([&sys_body(b"host", 0)[..], &[0; 4]].concat()), false),
            (sys_body(b"host", 2).slice(..20), false),
            (Bytes::new(), false),
        ];
        for (body, good) in cases {
            let result = decode(&header(flavor::SYS, &body, NO_VERIFIER));
            assert_eq!(result.is_ok(), good, "{body:?}");
            assert!(good || result == Err(AuthStat::BadCredential));
        }
    }

    #[test]
    fn other_flavours_and_verifiers() {
        let cases = [
            (header(0, b"", NO_VERIFIER), Ok(Credentials::None)),
            (header(0, b"junk", NO_VERIFIER), Err(AuthStat::BadCredential)),
            (header(2, b"", NO_VERIFIER), Err(AuthStat::RejectedCredential)),
            (header(6, b"", NO_VERIFIER), Err(AuthStat::BadCredential)),
            (header(7, b"", NO_VERIFIER), Err(AuthStat::BadCredential)),
            (header(0, b"", (1, b"")), Err(AuthStat::BadVerifier)),
            (header(0, b"", (0, b"abcd")), Err(AuthStat::BadVerifier)),
            (header(0, &[0; 401], NO_VERIFIER), Err(AuthStat::BadCredential)),
            (header(0, b"", (0, &[0; 401])), Err(AuthStat::BadVerifier)),
            (header(0, b"", NO_VERIFIER).slice(..6), Err(AuthStat::BadCredential)),
            (header(0, b"", NO_VERIFIER).slice(..12), Err(AuthStat::BadVerifier)),
        ];
        for (message, expected) in cases {
            assert_eq!(decode(&message), expected, "{message:?}");
        }
    }
}
