//! A cluster as its clients see it: which master has which slots, asked again and again, and connections to each.
//!
//! Three servers are asked at once, and of two masters that claim a slot the one with the higher configuration epoch has
//! it, as it is among servers: so neither a server that was cut off nor one that has not heard of a move yet is believed
//! against those who know better.
//!
//! Not here: what follows when a slot moves (`masters`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::ConnectionInfo;
use deadpool_redis::{Connection, PoolError};
use futures_util::future::join_all;
use rustls::ClientConfig;
use tokio::sync::Notify;

use super::access::{self, Access, Credentials, refuse};
use super::pool;
use super::server;
use super::slots::{Claim, Place, Table, claims};
use super::stream;
use crate::relay::RelayError;
use crate::settings::RedisSettings;

/// How many servers are asked for the table.
const ASKED: usize = 3;

/// The cluster.
pub(super) struct Cluster {
    /// All of a connection but the place.
    like: ConnectionInfo,
    /// What settings name, to begin with and where nothing else answers.
    seeds: Vec<Place>,
    /// Whether servers are called by their names: certificates know no addresses, mostly.
    by_name: bool,
    state: Mutex<State>,
    /// Somebody was sent elsewhere: the table is old.
    stale: Notify,
    tls: Option<Arc<ClientConfig>>,
    timeout: Duration,
    pool_size: usize,
}

struct State {
    table: Arc<Table>,
    pools: HashMap<Place, deadpool_redis::Pool>,
}

impl Cluster {
    pub(super) fn new(settings: &RedisSettings, nodes: &[String]) -> Result<Arc<Self>, RelayError> {
        let access = Access::new(settings)?;
        let credentials =
            Credentials { username: settings.username.as_ref(), password: settings.password.as_ref() };
        let info = |url: &String| access.to("cluster.nodes", url, credentials);
        let infos = nodes.iter().map(info).collect::<Result<Vec<_>, _>>()?;
        let place = |info: &ConnectionInfo| access::place(info.addr());
        let seeds: Vec<Place> = infos.iter().filter_map(place).collect();
        let (Some(like), Some(first)) = (infos.into_iter().next(), seeds.first()) else {
            return Err(refuse("cluster.nodes", "names no server".to_owned()));
        };
        let table = Arc::new(Table::all(first.clone()));
        Ok(Arc::new(Self {
            by_name: access::is_tls(like.addr()),
            tls: access::is_tls(like.addr()).then(|| stream::tls(access.authorities())),
            like,
            seeds,
            state: Mutex::new(State { table, pools: HashMap::new() }),
            stale: Notify::new(),
            timeout: settings.command_timeout,
            pool_size: settings.pool_size,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which master has which slots, as far as is known.
    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.state().table)
    }

    /// How TLS is spoken to its servers, if it is.
    pub(super) fn tls(&self) -> Option<Arc<ClientConfig>> {
        self.tls.clone()
    }

    /// How to connect to the server at this place.
    pub(super) fn at(&self, place: &Place) -> ConnectionInfo {
        access::moved(&self.like, place.host.clone(), place.port)
    }

    /// The master of the slot that a name is in.
    pub(super) fn owner(&self, name: &[u8]) -> Option<ConnectionInfo> {
        self.table().owner(name).map(|place| self.at(place))
    }

    /// A connection for commands about this key.
    pub(super) async fn connection(&self, key: &str) -> Result<Connection, PoolError> {
        let table = self.table();
        let owner = table.owner(key.as_bytes()).or_else(|| table.masters().first());
        let Some(owner) = owner else {
            return Err(pool::failed(&RelayError::Away("no master is known".into())));
        };
        let result = self.pool(owner)?.get().await;
        if result.is_err() {
            self.look_again();
        }
        result
    }

    fn pool(&self, place: &Place) -> Result<deadpool_redis::Pool, PoolError> {
        if let Some(pool) = self.state().pools.get(place) {
            return Ok(pool.clone());
        }
        let pool = pool::make(self.at(place), self.timeout, self.pool_size, false)
            .map_err(|error| pool::failed(&error))?;
        Ok(self.state().pools.entry(place.clone()).or_insert(pool).clone())
    }

    /// The table is old: somebody was sent elsewhere, or a master does not answer.
    pub(super) fn look_again(&self) {
        self.stale.notify_one();
    }

    /// Returns when the table was found to be old.
    pub(super) async fn is_stale(&self) {
        self.stale.notified().await;
    }

    /// Asks for the table. `None`: nobody answers, or some slots are nobody's.
    pub(super) async fn ask(&self) -> Option<Arc<Table>> {
        let known = self.table();
        let mut places: Vec<Place> = known.masters().to_vec();
        places.extend(self.seeds.iter().filter(|seed| !known.masters().contains(seed)).cloned());
        let claims = loop {
            if places.is_empty() {
                return None;
            }
            let mut asked = Vec::new();
            while asked.len() < ASKED && !places.is_empty() {
                asked.push(places.swap_remove(fastrand::usize(..places.len())));
            }
            let views = join_all(asked.iter().map(|place| self.view(place))).await;
            let claims: Vec<Claim> = views.into_iter().flatten().flatten().collect();
            if !claims.is_empty() {
                break claims;
            }
        };
        let table = Table::of(claims);
        table.is_whole().then(|| Arc::new(table))
    }

    async fn view(&self, asked: &Place) -> Option<Vec<Claim>> {
        let pool = self.pool(asked).ok()?;
        let answer = async {
            let mut connection = pool.get().await.map_err(|error| server::no_connection(&error))?;
            let mut nodes = ::redis::cmd("CLUSTER");
            let nodes = nodes.arg("NODES").query_async::<String>(&mut *connection);
            nodes.await.map_err(|error| server::away(&error))
        };
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(text)) => claims(&text, asked, self.by_name),
            Ok(Err(error)) => {
                tracing::debug!(server = %asked, %error, "a server of the cluster does not say who has which slots");
                None
            }
            Err(_) => None,
        }
    }

    /// The table that counts from now on. Pools of servers that are not in it are given up.
    pub(super) fn follow(&self, table: Arc<Table>) {
        let mut state = self.state();
        let keep = |place: &Place| table.masters().contains(place) || self.seeds.contains(place);
        state.pools.retain(|place, _| keep(place));
        state.table = table;
    }
}
