//! To be filled.
pub mod api;
