//! NFS version 3 as a server speaks it: XDR (RFC 4506), ONC RPC version 2 over TCP with record marking
//! (RFC 5531), MOUNT version 3 and NFS version 3 (RFC 1813), both programs on one connection.
//!
//! [`connection::Connection`] is the way in: bytes become [`connection::Call`]s, replies become segments
//! to send. It promises to answer every protocol-level error by itself, never to panic on what a client
//! sends, to hold no more memory than its [`connection::Limits`] allow, and never to copy a READ's or a
//! WRITE's payload.
//!
//! It knows no files, no exports and no permissions: handles and names are opaque bytes here. It does not
//! speak UDP, the port mapper, NLM, or RPCSEC_GSS. Sockets and time belong to the caller.

#[macro_use]
pub mod xdr;

pub mod connection;
pub mod fuzz;
pub mod mount;
pub mod nfs3;
pub mod rpc;
