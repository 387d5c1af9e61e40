//! The administration of the cluster: what an administrator asks about pools, OSDs, the placement tree, PGs and settings,
//! and changes of them.
//!
//! Every change is one transaction (removing a pool takes two) that compares the revisions of what it was decided on, see
//! [`edits`]. Nothing here moves data: monitors plan on what is written, OSDs follow.

mod adopt;
mod edits;
mod health;
mod marks;
mod moving;
mod osds;
mod pgs;
mod pools;
mod recovery;
mod space;
mod tree;
mod unwell;
mod usage;

pub(crate) use edits::Edits;
pub(crate) use health::health;
pub(crate) use moving::Moving;
pub(crate) use pgs::pg_state;
pub(crate) use pools::NO_POOL;
pub(crate) use recovery::Progress;
pub(crate) use usage::Usages;

use crate::admin::{
    AdminAnswer, AdminError, AdminResult, ClusterQuestion as Question, Df, ErrorKind, GatewayInfo, GatewayList,
    MonitorInfo, MonitorList, PoolList,
};
use crate::gateway::Gateway;

impl Gateway {
    /// Answers a question about what the cluster is made of.
    pub(crate) fn cluster_question(&self, question: &Question) -> AdminResult {
        Ok(match question {
            Question::Pools => AdminAnswer::Pools(PoolList { pools: self.pools() }),
            Question::Df => AdminAnswer::Df(Df {
                raw: self.raw_space(),
                pools: self.pools(),
            }),
            Question::Tree => AdminAnswer::Tree(self.tree()),
            Question::Pgs(filter) => AdminAnswer::Pgs(self.pg_list(filter)?),
            Question::Pg { pg } => AdminAnswer::Pg(self.pg_explained(pg)?),
            Question::Monitors => AdminAnswer::Monitors(self.monitors()),
            Question::Gateways => AdminAnswer::Gateways(self.gateways()),
            Question::Settings => AdminAnswer::Settings(self.client.map().settings.clone()),
        })
    }

    fn monitors(&self) -> MonitorList {
        let map = self.client.map();
        let leader = map.leader.as_ref().map(|leader| leader.value.id);
        let mut monitors: Vec<MonitorInfo> = map
            .monitors
            .iter()
            .map(|(&id, state)| MonitorInfo {
                id: format!("{id:016x}"),
                host: Some(state.value.host.clone()),
                leads: leader == Some(id),
            })
            .collect();
        // One that leads without having said where it runs.
        if let Some(id) = leader.filter(|id| !map.monitors.contains_key(id)) {
            monitors.push(MonitorInfo {
                id: format!("{id:016x}"),
                host: None,
                leads: true,
            });
        }
        monitors.sort_by(|a, b| a.id.cmp(&b.id));
        MonitorList { monitors }
    }

    fn gateways(&self) -> GatewayList {
        let gateways = self.client.map().gateways.iter();
        let gateways = gateways.map(|(&id, state)| GatewayInfo {
            id: format!("{:016x}", id.0),
            name: state.value.name.clone(),
            http: state.value.http.clone(),
            this: id == self.id,
        });
        GatewayList {
            gateways: gateways.collect(),
        }
    }
}

fn conflict(message: impl Into<String>) -> AdminError {
    AdminError::new(ErrorKind::Conflict, message)
}

fn not_found(message: impl Into<String>) -> AdminError {
    AdminError::new(ErrorKind::NotFound, message)
}

/// `1, 2, 3`; of many only the first ones, and how many more.
fn listed<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 8;
    let all: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    let mut text = all[..all.len().min(SHOWN)].join(", ");
    if all.len() > SHOWN {
        text.push_str(&format!(" and {} more", all.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(listed::<u32>([]), "");
        assert_eq!(listed([1, 2]), "1, 2");
        assert_eq!(listed(1..=9), "1, 2, 3, 4, 5, 6, 7, 8 and 1 more");
    }
}
