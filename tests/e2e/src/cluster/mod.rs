//! A cluster of real processes: etcd, OSDs, monitors and gateways, each of which can be killed, stopped and cut
//! off, and clients that keep writing through all of it.
//!
//! Promises: what is started here is killed when it is dropped, everything stays on 127.0.0.1, and a failure shows
//! the last words of every process. It judges nothing but panics: what must hold is in the cases.

pub mod crowd;
pub mod etcd;
pub mod faults;
pub mod fleet;
pub mod fronts;
pub mod load;
pub mod mover;
mod owner;
pub mod owners;
pub mod post;
pub mod process;
pub mod proxy;
pub mod pulse;
pub mod sizer;
pub mod turnover;
pub mod work;

pub use crowd::{compare, crowd, during};
pub use etcd::Etcd;
pub use faults::Faults;
pub use fleet::{Fleet, Layout};
pub use fronts::Fronts;
pub use load::{Client, Tally};
pub use mover::{Mover, Moves};
pub use process::Process;
pub use proxy::Proxy;
pub use pulse::{Pulse, Stall};
pub use work::{Worker, beside};
