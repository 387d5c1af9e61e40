//! Where the effects of machines go.

use std::collections::VecDeque;

use tokio::sync::mpsc::UnboundedSender;
use trivet_core::NodeId;
use trivet_core::message::Message;
use trivet_reactor::Reactor;

use super::channel::ToControl;
use super::links::Links;

/// Where the effects of machines go.
pub struct Output<'a> {
    /// Messages between nodes.
    pub queue: &'a mut VecDeque<(NodeId, NodeId, Message)>,
    /// The sockets and disks.
    pub reactor: &'a mut Reactor,
    /// The links to other processes.
    pub links: &'a mut Links,
    /// The metadata store.
    pub control: &'a UnboundedSender<ToControl>,
}
