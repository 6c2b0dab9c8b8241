//! The masters of a cluster: each has a part of the relay, and channels go to another part when their slots go to another
//! master.
//!
//! A channel that moves takes along who hears it and where the node stands in it. The new part subscribes it and, where it
//! has history, reads what was published meanwhile, as after any interruption. Of a channel without history the gap is
//! counted.
//!
//! ```text
//!   a server sends us elsewhere, takes a channel away, or is gone; or a while has passed
//!     --> the table is asked for --> parts for new masters --> channels are routed by it
//!     --> old parts release what is no longer theirs --> new parts adopt it --> parts without slots end
//! ```
//!
//! Not here: the table (`cluster`), what a part does with what it adopts (`hear`, `crate::interest`).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::join_all;
use tidegate_protocol::ChannelName;
use tokio::sync::watch;

use super::cluster::Cluster;
use super::presence::Attendee;
use super::slots::{Place, Table};
use super::standing::Standing;
use super::{RedisRelay, Released, stopped};
use crate::interest::Moved;
use crate::names::Names;
use crate::relay::{Busy, RelayError};
use crate::sink::WorkerId;

/// How often the table is asked for when nothing says that it is old, and while some part is away.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_EVERY_IN_TROUBLE: Duration = Duration::from_millis(500);
/// The least time between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// How many joins and leaves are remembered while channels move.
const MOST_NOTES: usize = 64 * 1024;

/// Makes the part of a master: its number, and where the master is.
type Make = Box<dyn Fn(usize, &Place) -> Result<RedisRelay, RelayError> + Send + Sync>;

/// The parts, and which channel goes to which.
pub(super) struct Masters {
    cluster: Arc<Cluster>,
    names: Arc<Names>,
    standing: Arc<Standing>,
    /// Under which the table counts as a part: the relay is not up before it is known.
    number: usize,
    make: Make,
    routes: RwLock<Routes>,
    /// While channels move: who left or joined meanwhile, by what they did last. A part that has not yet adopted a channel
    /// knows of nobody who could leave it.
    notes: Mutex<Option<HashMap<(WorkerId, ChannelName), bool>>>,
}

struct Routes {
    table: Arc<Table>,
    parts: BTreeMap<Place, Arc<Part>>,
}

/// A master's part.
struct Part {
    number: usize,
    relay: Arc<RedisRelay>,
}

impl Masters {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        names: Arc<Names>,
        standing: Arc<Standing>,
        make: Make,
    ) -> Result<Self, RelayError> {
        let table = cluster.table();
        let masters = Self {
            cluster,
            names,
            number: standing.add(),
            standing,
            make,
            routes: RwLock::new(Routes { table: Arc::clone(&table), parts: BTreeMap::new() }),
            notes: Mutex::default(),
        };
        let parts = masters.parts_of(&table)?;
        masters.routes.write().unwrap_or_else(PoisonError::into_inner).parts = parts;
        Ok(masters)
    }

    /// The part that has the channel.
    pub(super) fn of(&self, channel: &ChannelName) -> Arc<RedisRelay> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let owner = routes.table.owner(self.names.channel(channel).as_bytes());
        let part = owner.and_then(|owner| routes.parts.get(owner)).or_else(|| routes.parts.values().next());
        Arc::clone(
            &part.expect("there is a part for each master of the table, and one master at least").relay,
        )
    }

    pub(super) fn join(&self, worker: WorkerId, channel: ChannelName) -> Result<(), Busy> {
        self.note(worker, &channel, false);
        self.of(&channel).join(worker, channel)
    }

    pub(super) fn leave(&self, worker: WorkerId, channel: ChannelName) -> Result<(), Busy> {
        self.note(worker, &channel, true);
        self.of(&channel).leave(worker, channel)
    }

    fn note(&self, worker: WorkerId, channel: &ChannelName, left: bool) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notes) = notes.as_mut().filter(|notes| notes.len() < MOST_NOTES) {
            notes.insert((worker, channel.clone()), left);
        }
    }

    /// Follows the cluster until the relay stops.
    pub(super) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut leaving: Vec<Arc<Part>> = Vec::new();
        let mut hinted = false;
        loop {
            let table = self.cluster.ask().await;
            let is_known = table.is_some();
            let changed = table.filter(|table| **table != *self.cluster.table());
            let is_changed = changed.is_some();
            if let Some(table) = changed
                && let Err(error) = self.follow(table, &mut leaving)
            {
                tracing::error!(%error, "a part for a master of the cluster cannot be started");
            }
            if is_known {
                self.standing.is_up(self.number);
            }
            if is_changed || hinted || !leaving.is_empty() {
                self.settle(&mut leaving).await;
            }
            let wait = if self.standing.status().up && leaving.is_empty() && !is_changed {
                LOOK_EVERY
            } else {
                LOOK_EVERY_IN_TROUBLE
            };
            tokio::time::sleep(PAUSE).await;
            tokio::select! {
                () = stopped(&mut stop) => return,
                () = self.cluster.is_stale() => hinted = true,
                () = tokio::time::sleep(wait) => hinted = false,
            }
        }
    }

    /// The parts that the table asks for: those there are, and new ones.
    fn parts_of(&self, table: &Table) -> Result<BTreeMap<Place, Arc<Part>>, RelayError> {
        let known = self.routes.read().unwrap_or_else(PoisonError::into_inner).parts.clone();
        let part = |place: &Place| {
            let part = match known.get(place) {
                Some(part) => Arc::clone(part),
                None => {
                    let number = self.standing.add();
                    Arc::new(Part { number, relay: Arc::new((self.make)(number, place)?) })
                }
            };
            Ok((place.clone(), part))
        };
        table.masters().iter().map(part).collect()
    }

    /// Routes channels by this table from now on.
    fn follow(&self, table: Arc<Table>, leaving: &mut Vec<Arc<Part>>) -> Result<(), RelayError> {
        let parts = self.parts_of(&table)?;
        let masters: Vec<String> = table.masters().iter().map(ToString::to_string).collect();
        tracing::info!(masters = masters.join(", "), "the cluster's slots are shared out anew");
        *self.notes.lock().unwrap_or_else(PoisonError::into_inner) = Some(HashMap::new());
        self.cluster.follow(Arc::clone(&table));
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        for (place, part) in &routes.parts {
            if !parts.contains_key(place) {
                leaving.push(Arc::clone(part));
            }
        }
        *routes = Routes { table, parts };
        Ok(())
    }

    /// Brings every channel to the part that has it, and subscribes again what was taken away and came back.
    async fn settle(&self, leaving: &mut Vec<Arc<Part>>) {
        let (table, parts) = {
            let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
            (Arc::clone(&routes.table), routes.parts.clone())
        };
        let staying = parts.iter().map(|(place, part)| (Some(place.clone()), Arc::clone(part)));
        let all: Vec<_> = staying.chain(leaving.iter().map(|part| (None, Arc::clone(part)))).collect();
        let released = join_all(all.into_iter().map(|(place, part)| self.release(&table, place, part))).await;
        let mut adopted: BTreeMap<Place, (Vec<Moved>, Vec<Attendee>)> = BTreeMap::new();
        let mut is_all = true;
        for (part, released) in released {
            let owner = |channel: &ChannelName| table.owner(self.names.channel(channel).as_bytes()).cloned();
            for moved in released.moved {
                if let Some(owner) = owner(moved.channel()) {
                    adopted.entry(owner).or_default().0.push(moved);
                }
            }
            for attendee in released.attendees {
                if let Some(owner) = owner(&attendee.channel) {
                    adopted.entry(owner).or_default().1.push(attendee);
                }
            }
            is_all &= released.is_all;
            let at = leaving.iter().position(|leaving| leaving.number == part.number);
            if let Some(at) = at.filter(|_| released.is_all) {
                leaving.swap_remove(at);
                self.standing.remove(part.number);
                tokio::spawn(async move { part.relay.stop().await });
            }
        }
        for (place, (moved, attendees)) in adopted {
            if let Some(part) = parts.get(&place) {
                part.relay.adopt(moved, attendees).await;
            }
        }
        if is_all {
            self.replay();
        } else {
            self.cluster.look_again();
        }
    }

    /// What a part holds that is not its own.
    async fn release(
        &self,
        table: &Arc<Table>,
        place: Option<Place>,
        part: Arc<Part>,
    ) -> (Arc<Part>, Released) {
        let (table, names) = (Arc::clone(table), Arc::clone(&self.names));
        let is_kept = move |channel: &ChannelName| {
            place.is_some() && table.owner(names.channel(channel).as_bytes()) == place.as_ref()
        };
        let released = part.relay.release(Arc::new(is_kept)).await;
        (part, released)
    }

    /// Who left while channels moved leaves again, now that the parts know of them.
    fn replay(&self) {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner).take();
        for ((worker, channel), left) in notes.into_iter().flatten() {
            if left {
                let _ = self.of(&channel).leave(worker, channel);
            }
        }
    }

    /// Ends all parts.
    pub(super) async fn stop(&self) {
        let parts: Vec<_> = {
            let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
            routes.parts.values().cloned().collect()
        };
        join_all(parts.iter().map(|part| part.relay.stop())).await;
    }
}
