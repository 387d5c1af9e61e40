//! Why a link was closed here.

use trivet_core::NodeId;
use trivet_core::wire::{FORMAT, WireError};

/// Why a link was closed here. Each closes that link and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Something else speaks there.
    #[error("not a Trivet node: it starts with {0:02x?}")]
    Stranger([u8; 4]),
    /// The peer speaks another format of the wire.
    #[error("the peer speaks format {0} of the wire, this node {FORMAT}")]
    Format(u8),
    /// The greeting was damaged on the way.
    #[error("the checksum of the greeting is wrong")]
    Sum,
    /// A field of the greeting has a value that it cannot have.
    #[error("malformed greeting: {0}")]
    Field(&'static str),
    /// The peer belongs to another cluster.
    #[error("the peer belongs to another cluster")]
    Cluster,
    /// The peer wanted to reach somebody else.
    #[error("the peer looks for {}", name(.0))]
    Addressee(NodeId),
    /// Somebody else answers at the address.
    #[error("{} answers instead", name(.0))]
    Answerer(NodeId),
    /// The peer says that it is this node.
    #[error("the peer has the number of this node")]
    Myself,
    /// Links are between OSDs, or from a client to an OSD.
    #[error("{} cannot open a link to this node", name(.0))]
    Role(NodeId),
    /// An earlier start of the peer's process, after a later one.
    #[error("the peer has restarted since")]
    Restarted,
    /// An earlier link of the peer, after a later one.
    #[error("the peer has opened another link since")]
    Older,
    /// No greeting in time.
    #[error("no greeting within 5 s")]
    Silent,
    /// No connection in time.
    #[error("no connection within 2 s")]
    Unreachable,
    /// The bytes are not a frame.
    #[error("{0}")]
    Frame(#[from] WireError),
    /// A message that this peer must not send to this node.
    #[error("a message that {} must not send", name(.0))]
    Message(NodeId),
}

fn name(node: &NodeId) -> String {
    match node {
        NodeId::Osd(osd) => format!("OSD {osd}"),
        NodeId::Client(client) => format!("client {:x}", client.0),
    }
}
