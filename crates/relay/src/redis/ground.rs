//! What a part stands on: its server, the way to keys, the names it uses; by its role.

use std::sync::Arc;

use super::cluster::Cluster;
use super::pool::Pool;
use super::server::Server;
use super::slots::Place;
use crate::names::Names;
use crate::relay::RelayError;
use crate::settings::RedisSettings;

/// What a part is for.
pub(super) enum Role {
    /// Everything, over one server.
    Whole,
    /// In a cluster: all but channels. Its keys are where their slots are.
    Home(Arc<Cluster>),
    /// In a cluster: the channels of one master.
    Master { cluster: Arc<Cluster>, place: Place, number: usize },
}

/// What follows from the role.
pub(super) struct Ground {
    pub(super) server: Arc<Server>,
    pub(super) pool: Pool,
    pub(super) names: Arc<Names>,
    pub(super) cluster: Option<Arc<Cluster>>,
    /// Whether the part writes the node into the registry.
    pub(super) is_listed: bool,
}

impl Ground {
    pub(super) fn new(role: &Role, settings: &RedisSettings, id: &str) -> Result<Self, RelayError> {
        let names = Names::new(&settings.prefix, id);
        let (server, pool, names, cluster) = match role {
            Role::Whole => {
                let server = Arc::new(Server::new(settings)?);
                let pool = server.pool();
                (server, pool, names, None)
            }
            Role::Home(cluster) => {
                let server = Arc::new(Server::owner(cluster, names.control(), settings));
                let pool = Pool::Key { cluster: Arc::clone(cluster), key: names.control().into() };
                (server, pool, names, Some(cluster))
            }
            Role::Master { cluster, place, number } => {
                let server = Arc::new(Server::of_cluster(cluster, place, settings));
                let pool = server.pool();
                // A probe must not be heard by another part, and a cluster tells all servers what is published.
                let names = Names::new(&settings.prefix, &format!("{id}.{number}")).sharded();
                (server, pool, names, Some(cluster))
            }
        };
        let is_listed = !names.are_sharded();
        Ok(Self { server, pool, names: Arc::new(names), cluster: cluster.cloned(), is_listed })
    }
}
