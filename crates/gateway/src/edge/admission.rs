//! Who is let in: the node's connection permits.
//!
//! A permit is taken atomically before the 101 is written and given back exactly once, when it is dropped with the
//! socket, whatever ended the connection. The gauges move with the permits and so cannot drift from them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_protocol::Codec;

use crate::metrics::{Metrics, Rejection};

/// The permits of a node.
pub(crate) struct Admission {
    max_connections: usize,
    max_per_ip: u32,
    open: AtomicUsize,
    /// Connections by address; touched only where `limits.max_connections_per_ip` is set.
    by_ip: Mutex<HashMap<IpAddr, u32, ahash::RandomState>>,
    closed: AtomicBool,
    metrics: Arc<Metrics>,
}

/// One connection's place on the node.
pub(crate) struct Permit {
    admission: Arc<Admission>,
    ip: Option<IpAddr>,
    codec: Codec,
}

impl Admission {
    /// Nobody is in yet. `max_per_ip` of 0 is no limit.
    pub(crate) fn new(max_connections: usize, max_per_ip: u32, metrics: Arc<Metrics>) -> Self {
        Self {
            max_connections,
            max_per_ip,
            open: AtomicUsize::new(0),
            by_ip: Mutex::default(),
            closed: AtomicBool::new(false),
            metrics,
        }
    }

    /// Takes a permit, or says why there is none.
    pub(crate) fn admit(self: &Arc<Self>, ip: Option<IpAddr>, codec: Codec) -> Result<Permit, Rejection> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Rejection::Shutdown);
        }
        let below = |open: usize| (open < self.max_connections).then_some(open + 1);
        if self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, below).is_err() {
            return Err(Rejection::Full);
        }
        let ip = ip.filter(|_| self.max_per_ip > 0);
        if let Some(ip) = ip {
            let mut by_ip = self.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
            let count = by_ip.entry(ip).or_default();
            if *count >= self.max_per_ip {
                drop(by_ip);
                self.open.fetch_sub(1, Ordering::AcqRel);
                return Err(Rejection::PerIp);
            }
            *count += 1;
        }
        self.metrics.connections(codec).inc();
        self.metrics.connections_accepted.inc();
        Ok(Permit { admission: Arc::clone(self), ip, codec })
    }

    /// Whether a newcomer could be let in now.
    pub(super) fn has_room(&self) -> bool {
        !self.closed.load(Ordering::Acquire) && self.open.load(Ordering::Acquire) < self.max_connections
    }

    /// Lets nobody in from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// How many are in.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(ip) = self.ip {
            let mut by_ip = self.admission.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = by_ip.get_mut(&ip) {
                *count -= 1;
                if *count == 0 {
                    by_ip.remove(&ip);
                }
            }
        }
        self.admission.metrics.connections(self.codec).dec();
        self.admission.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    fn admission(max: usize, per_ip: u32) -> (Arc<Admission>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new().unwrap());
        (Arc::new(Admission::new(max, per_ip, Arc::clone(&metrics))), metrics)
    }

    #[test]
    fn never_one_more_than_allowed_however_many_come_at_once() {
        let (admission, metrics) = admission(100, 0);
        let taken: Vec<Permit> = std::thread::scope(|scope| {
            let come = || (0..50).filter_map(|_| admission.admit(None, Codec::Json).ok()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(come)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(taken.len(), 100);
        assert_eq!((admission.open(), metrics.connections(Codec::Json).get()), (100, 100));
        drop(taken);
        assert_eq!((admission.open(), metrics.connections(Codec::Json).get()), (0, 0));
    }

    #[test]
    fn an_address_has_its_own_limit_and_gets_its_places_back() {
        let (admission, _) = admission(100, 2);
        let here = Some(IpAddr::from([127, 0, 0, 1]));
        let there = Some(IpAddr::from([127, 0, 0, 2]));
        let first = admission.admit(here, Codec::Json).ok().unwrap();
        let _second = admission.admit(here, Codec::Protobuf).ok().unwrap();
        assert_eq!(admission.admit(here, Codec::Json).err(), Some(Rejection::PerIp));
        assert!(admission.admit(there, Codec::Json).is_ok());
        drop(first);
        assert!(admission.admit(here, Codec::Json).is_ok());
        assert_eq!(admission.open(), 1, "a refused connection holds nothing");
    }

    #[test]
    fn a_closed_admission_lets_nobody_in() {
        let (admission, _) = admission(100, 0);
        admission.close();
        assert_eq!(admission.admit(None, Codec::Json).err(), Some(Rejection::Shutdown));
    }
}
