//! TLS session tickets of a client process: given to whoever connects next.
//!
//! Every ticket is used once (RFC 8446, section C.4), and with several nodes not on the node that gave it: what is
//! measured is that any node of the fleet resumes it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// The most tickets that are kept of one node: one for each connection of a process, and a little more.
const MOST: usize = 10_000;

/// The tickets of all nodes.
pub(super) struct Tickets {
    nodes: Mutex<Vec<Kept>>,
}

#[derive(Default)]
struct Kept {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: VecDeque<Tls13ClientSessionValue>,
}

impl Tickets {
    pub(super) fn new(nodes: usize) -> Arc<Self> {
        Arc::new(Self { nodes: Mutex::new((0..nodes.max(1)).map(|_| Kept::default()).collect()) })
    }

    fn with<T>(&self, node: usize, act: impl FnOnce(&mut Kept) -> T) -> Option<T> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.get_mut(node).map(act)
    }
}

/// The tickets as connections to one node see them.
pub(super) struct Purse {
    /// All tickets of the process.
    pub(super) tickets: Arc<Tickets>,
    /// The node that connections with this purse go to.
    pub(super) node: usize,
    /// The node whose tickets they show; none for those that only collect.
    pub(super) from: Option<usize>,
}

impl fmt::Debug for Purse {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Purse").field("node", &self.node).field("from", &self.from).finish_non_exhaustive()
    }
}

impl ClientSessionStore for Purse {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.tickets.with(self.node, |kept| kept.group = Some(group));
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.tickets.with(self.node, |kept| kept.group).flatten()
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.tickets.with(self.node, |kept| kept.tls12 = Some(value));
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.tickets.with(self.from?, |kept| kept.tls12.clone()).flatten()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        if let Some(from) = self.from {
            self.tickets.with(from, |kept| kept.tls12 = None);
        }
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.tickets.with(self.node, |kept| {
            if kept.tls13.len() >= MOST {
                kept.tls13.pop_front();
            }
            kept.tls13.push_back(value);
        });
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        // The oldest: the order in which they are used is that in which they came, so none grows old.
        self.tickets.with(self.from?, |kept| kept.tls13.pop_front()).flatten()
    }
}
