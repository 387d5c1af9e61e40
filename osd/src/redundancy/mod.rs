//! Redundancy: which part of an object each member of the acting set keeps, how a lost part is made again, and how the
//! parts are compared.
//!
//! The primary's code asks here wherever the answer depends on the pool's scheme. There is one so far: every member keeps
//! a copy of everything ([`copies`]).

pub(crate) mod copies;
