//! The roles as processes of their own, on a metadata store that they share: `trivet osd`, `trivet mon`,
//! `trivet gateway`.

pub mod args;
mod disk;
pub mod gateway;
pub mod mon;
pub mod osd;
