//! A worker's readiness poller, nested in the worker's runtime: one entry of tokio's own poller stands for all sockets.
//!
//! One of the two modules of the gateway with unsafe code; the other is `allocator`.

use std::io;
use std::time::Duration;

use mio::{Events, Poll, Registry};
use tokio::io::unix::AsyncFd;

/// How many events one look returns at most.
const MAX_EVENTS: usize = 1024;

/// A readiness poller that can be awaited.
pub(super) struct Poller {
    poll: AsyncFd<Poll>,
    events: Events,
}

impl Poller {
    /// A poller with no socket. Must be called inside a runtime.
    pub(super) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        // SAFETY: `AsyncFd::register` wants the descriptor to stay open, and `as_raw_fd` to go on returning it, for as long
        // as the `AsyncFd` owns the value. `mio::Poll` opens its epoll (or kqueue) descriptor once, returns that one from
        // `as_raw_fd`, never exchanges it, and closes it only when dropped; the value moves into the `AsyncFd` here and is
        // only ever borrowed from it afterwards.
        #[expect(unsafe_code, reason = "mio::Poll cannot show its ownership of the descriptor by a type")]
        let poll = unsafe { AsyncFd::register(poll) }.map_err(io::Error::from)?;
        Ok(Self { poll, events: Events::with_capacity(MAX_EVENTS) })
    }

    /// Where sockets are registered.
    pub(super) fn registry(&self) -> io::Result<Registry> {
        self.poll.get_ref().registry().try_clone()
    }

    /// What is ready now, without waiting. An error is final.
    pub(super) fn look(&mut self) -> io::Result<&Events> {
        self.events.clear();
        match self.poll.get_mut().poll(&mut self.events, Some(Duration::ZERO)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            Ok(()) | Err(_) => Ok(&self.events),
        }
    }

    /// Waits until sockets are ready; may return without any. Cancel safe. An error is final.
    pub(super) async fn ready(&mut self) -> io::Result<&Events> {
        let mut guard = self.poll.readable_mut().await?;
        self.events.clear();
        match guard.get_inner_mut().poll(&mut self.events, Some(Duration::ZERO)) {
            // Only an empty look may clear the readiness: events that did not fit come with the next.
            Ok(()) if self.events.is_empty() => guard.clear_ready(),
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(&self.events)
    }
}
