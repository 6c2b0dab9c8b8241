//! A worker's connections after the upgrade: one poller, one shard, one task.
//!
//! ```text
//!  sockets --readiness--> read, decode --> shard --effects--> relay
//!  relay   ----inbox----> shard --outboxes--> flush --> sockets
//! ```
//!
//! A turn takes what is ready, runs it through the shard, carries out the shard's effects and then writes each dirty
//! outbox once, so frames for one socket in one turn share a write. The task owns a readiness poller of its own nested
//! in the worker's runtime: a connection has no task, no timer and no buffer.
//!
//! Reading is in [`super::session`], writing and ending in [`super::writer`], what the shard asks in [`super::effects`].
//! Not here: HTTP, TLS handshakes, permits.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Registry, Token};
use tidegate_hub::{Broadcast, Effect, Opening, SessionKey, Shard, Table, Tick, tick::TICK};
use tidegate_protocol::ErrorCode;
use tidegate_protocol::frame::Limits;
use tidegate_relay::{Relay, WorkerId};

use super::admission::Permit;
use super::attendance::Attendance;
use super::auth::Auth;
use super::consulting::Consulting;
use super::drain::Draining;
use super::poller::Poller;
use super::session::Session;
use super::transport::Transport;
use crate::inbox::Inbox;
use crate::join::{Inbound, Late, Recovery, WorkerStats};
use crate::metrics::Metrics;
use crate::proxy::Proxy;
use crate::proxy::headers::Kept;
use crate::settings::Settings;

/// How much one read takes from a socket at most.
const READ_SIZE: usize = 64 * 1024;

/// How many inbox items one turn takes at most, so that sockets get their turn.
const MAX_INBOUND: usize = 1024;

/// How many outboxes one turn gives something at most before it writes, give or take one run. Each costs a place in an
/// outbox meanwhile: this bounds what a flood takes, and what of it the allocator keeps for itself afterwards, at a few
/// megabytes a worker. Small enough for the processor's cache.
const MAX_PUSHES: usize = 64 * 1024;

/// How many bytes of publications one turn takes at most before it writes, unless it is one publication: large enough to
/// share writes, small enough that a turn alone never fills the outbox of a reader who keeps up.
const MAX_TURN_BYTES: usize = 256 * 1024;

/// How many turns that the inbox alone asked for the worker keeps the thread for.
const KEEP: u32 = 32;

/// How many entries of a list that every turn fills and empties have their room kept between bursts.
const KEPT: usize = 256;

/// How long an ended connection may take to take its Close frame and close.
const CLOSING: Duration = Duration::from_secs(5);

/// How late a tick may be before the worker counts as held up.
const LATE: Duration = Duration::from_secs(1);

/// How long a worker that was held up reads before it sweeps.
const CATCH_UP: Duration = Duration::from_millis(250);

/// What every worker shares.
pub(crate) struct Common {
    pub(crate) settings: Arc<Settings>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) relay: Relay,
    pub(crate) stats: Arc<[WorkerStats]>,
    pub(crate) late: Arc<[Late]>,
    pub(crate) proxy: Arc<Proxy>,
}

/// Deadlines in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    /// How old an unfinished message may be.
    pub(super) message: u32,
    /// How long a socket may take nothing of what waits for it.
    pub(super) write: u32,
    /// How long an ended connection may take to take its Close frame and close.
    pub(super) closing: u32,
}

/// A worker's connections.
pub(crate) struct Worker {
    pub(super) id: WorkerId,
    pub(super) common: Arc<Common>,
    pub(super) auth: Auth,
    pub(super) limits: Limits,
    pub(super) deadlines: Deadlines,
    pub(super) shard: Shard,
    /// By the session's index in the shard.
    pub(super) sessions: Table<Session>,
    registry: Registry,
    started: Instant,
    pub(super) now: Tick,
    /// Sessions with a deadline of the edge: an unfinished message, a stalled write, an end.
    pub(super) watched: Vec<SessionKey>,
    /// Sessions that have more to read than one turn takes, or an end.
    pub(super) unread: VecDeque<SessionKey>,
    /// Channels to leave as soon as the relay's queue has room; while there are any, no channel is joined. Bounded by
    /// the channels the shard had.
    pub(super) leaving: VecDeque<tidegate_protocol::ChannelName>,
    /// Who came and went, as soon as the relay's queue has room.
    pub(super) attendance: Attendance,
    /// How many questions of clients are under way.
    pub(super) questions: usize,
    /// The worker itself, for what comes back to it by itself.
    pub(super) this: Weak<RefCell<Self>>,
    pub(super) draining: Option<Draining>,
    /// Publications of one channel, taken from the inbox and not given to the shard yet: they go together.
    run: Vec<Arc<Broadcast>>,
    /// A publication that was too much for its turn: the first of the next.
    held: Option<(Arc<Broadcast>, Instant)>,
    /// When the publications of this turn were received.
    received: Vec<Instant>,
    /// How many bytes of publications one turn takes.
    turn_bytes: usize,
    pub(super) scratch: Vec<u8>,
    pub(super) plaintext: Vec<u8>,
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
    pub(super) effects: Vec<Effect>,
    dirty: Vec<SessionKey>,
    pub(super) consulting: Consulting,
}

/// What a turn has taken from the inbox.
#[derive(Default)]
struct Taken {
    /// Outboxes that were given something.
    pushes: usize,
    /// Bytes of publications.
    bytes: usize,
}

/// A connection on its way from HTTP to the worker.
pub(crate) struct Adoption {
    pub(crate) transport: Transport,
    pub(crate) opening: Opening,
    pub(crate) permit: Permit,
    pub(crate) kept: Kept,
    /// What the client sent behind its handshake.
    pub(crate) pipelined: Vec<u8>,
    /// Whether the connection is an echo, for conformance suites.
    pub(crate) echo: bool,
}

impl Worker {
    /// Starts a worker's task on this thread; sockets are handed to what is returned.
    pub(crate) fn start(
        id: WorkerId,
        common: Arc<Common>,
        shard: Shard,
        inbox: Inbox<Inbound>,
    ) -> io::Result<Rc<RefCell<Self>>> {
        let poller = Poller::new()?;
        let settings = &common.settings;
        let worker = Rc::new(RefCell::new(Self {
            id,
            auth: Auth { anonymous: settings.auth.anonymous },
            limits: Limits {
                max_message_bytes: settings.limits.max_message_bytes,
                max_fragments: settings.limits.max_fragments,
            },
            deadlines: Deadlines {
                message: Tick::count(settings.limits.message_timeout),
                write: Tick::count(settings.limits.write_timeout),
                closing: Tick::count(CLOSING),
            },
            shard,
            sessions: Table::default(),
            registry: poller.registry()?,
            started: Instant::now(),
            now: Tick::default(),
            watched: Vec::new(),
            unread: VecDeque::new(),
            leaving: VecDeque::new(),
            attendance: Attendance::default(),
            questions: 0,
            consulting: Consulting::new(&common.proxy),
            this: Weak::new(),
            draining: None,
            run: Vec::new(),
            held: None,
            received: Vec::new(),
            turn_bytes: MAX_TURN_BYTES.min(settings.outbox.max_bytes / 2),
            scratch: vec![0; READ_SIZE],
            plaintext: Vec::new(),
            bytes_received: 0,
            bytes_sent: 0,
            effects: Vec::new(),
            dirty: Vec::new(),
            common: Arc::clone(&common),
        }));
        worker.borrow_mut().this = Rc::downgrade(&worker);
        actix_rt::spawn(run(Rc::clone(&worker), poller, inbox));
        Ok(worker)
    }

    /// Takes over a socket: from now on it belongs to the poller. What the client sent already is read first.
    pub(crate) fn adopt(&mut self, adoption: Adoption) -> io::Result<()> {
        let Adoption { mut transport, opening, permit, kept, mut pipelined, echo } = adoption;
        self.tick();
        let key = self.shard.open(opening, self.now);
        let token = Token(key.index as usize);
        let registered =
            self.registry.register(transport.socket(), token, Interest::READABLE | Interest::WRITABLE);
        if let Err(error) = registered {
            self.shard.remove(key);
            return Err(error);
        }
        self.sessions.put(key.index, Session::new(key, transport, permit, kept, echo));
        self.bytes_received += pipelined.len() as u64;
        self.input(key, &mut pipelined);
        self.settle();
        Ok(())
    }

    /// The session with this key, unless it is gone.
    pub(super) fn session(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.sessions.get_mut(key.index).filter(|session| session.key == key)
    }

    pub(super) fn tick(&mut self) {
        let ticks = self.started.elapsed().as_millis() / TICK.as_millis();
        self.now = Tick(u32::try_from(ticks).unwrap_or(u32::MAX));
    }

    /// Sockets are ready.
    fn ready(&mut self, events: &Events) {
        for event in events {
            let index = u32::try_from(event.token().0).ok();
            let Some(key) = index.and_then(|index| self.sessions.get(index)).map(|session| session.key)
            else {
                continue;
            };
            if event.is_writable() {
                self.writable(key);
            }
            if event.is_read_closed() || event.is_error() {
                // To end a connection costs twenty times a read, and often many end at once: in their turn.
                self.read_later(key);
            } else if event.is_readable() {
                self.read(key, false);
            }
        }
    }

    /// Reads every socket that is ready, for [`CATCH_UP`] at most: who floods must not hold up the sweep for ever.
    fn catch_up(&mut self, poller: &mut Poller) -> io::Result<()> {
        let began = Instant::now();
        self.tick();
        while began.elapsed() < CATCH_UP {
            let events = poller.look()?;
            if events.is_empty() && self.unread.is_empty() {
                break;
            }
            self.ready(events);
            self.read_unread();
            self.settle();
        }
        Ok(())
    }

    /// Takes what came from the relay and from other threads of the node, as much as a turn takes; says whether there
    /// may be more. Publications of one channel that follow each other become one run; nothing changes its order.
    fn inbox(&mut self, inbox: &Inbox<Inbound>) -> bool {
        let mut taken = Taken::default();
        if let Some((broadcast, received)) = self.held.take() {
            self.publication(broadcast, received, &mut taken);
        }
        let more = inbox.take(MAX_INBOUND, |inbound| {
            if inbox.missed() {
                self.catch_up_with_relay();
            }
            self.inbound(inbound, &mut taken);
            taken.pushes < MAX_PUSHES && self.held.is_none()
        });
        if inbox.missed() {
            self.catch_up_with_relay();
        }
        self.deliver();
        more || self.held.is_some()
    }

    /// Adds a publication to the run, or holds it for the next turn if this one has enough.
    fn publication(&mut self, broadcast: Arc<Broadcast>, received: Instant, taken: &mut Taken) {
        let bytes = broadcast.bytes();
        if taken.bytes > 0 && taken.bytes + bytes > self.turn_bytes {
            self.held = Some((broadcast, received));
            return;
        }
        let other = |first: &Arc<Broadcast>| {
            first.channel() != broadcast.channel() || first.is_publication() != broadcast.is_publication()
        };
        if self.run.first().is_some_and(other) {
            taken.pushes += self.deliver();
        }
        taken.bytes += bytes;
        self.received.push(received);
        self.run.push(broadcast);
    }

    /// Gives the run to the shard. Says how many outboxes got it.
    pub(super) fn deliver(&mut self) -> usize {
        let pushes = self.shard.deliver(&self.run);
        self.run.clear();
        pushes
    }

    /// Something came from the relay or from another thread of the node.
    fn inbound(&mut self, inbound: Inbound, taken: &mut Taken) {
        // The reply to a publication has no order with the publications that others made; all else has.
        if !matches!(inbound, Inbound::Said(..) | Inbound::Published(..)) {
            taken.pushes += self.deliver();
        }
        match inbound {
            Inbound::Said(broadcast, received) => self.publication(broadcast, received, taken),
            Inbound::Published(session, id, result) => self.shard.published(session, id, result),
            Inbound::Joined(channel, result) => {
                self.shard.joined(&channel, result.map(|position| position.map(|it| *it)));
            }
            Inbound::Unjoined(channel) => self.shard.joined(&channel, Err(ErrorCode::Internal)),
            Inbound::Recovered(recovery) => {
                let Recovery { session, id, channel, result } = *recovery;
                self.shard.recovered(session, id, &channel, result);
            }
            Inbound::Lost(channel) => self.shard.lost(&channel),
            Inbound::Control(control) => self.shard.control(&control),
            Inbound::Channels(gather) => gather.answer(self.shard.channels()),
            Inbound::Drain(duration) => self.drain(duration),
        }
    }

    /// Carries out what the shard asks and writes what waits, until both are quiet.
    pub(super) fn settle(&mut self) {
        loop {
            self.effects();
            self.shard.take_dirty(&mut self.dirty);
            if self.dirty.is_empty() {
                break;
            }
            let mut dirty = std::mem::take(&mut self.dirty);
            for key in dirty.drain(..) {
                self.flush(key);
            }
            self.dirty = dirty;
        }
        if !self.received.is_empty() {
            let now = Instant::now();
            for received in self.received.drain(..) {
                let took = now.saturating_duration_since(received);
                self.common.metrics.delivery_seconds.observe(took.as_secs_f64());
            }
        }
        if self.bytes_received > 0 {
            self.common.metrics.bytes_received.inc_by(std::mem::take(&mut self.bytes_received));
        }
        if self.bytes_sent > 0 {
            self.common.metrics.bytes_sent.inc_by(std::mem::take(&mut self.bytes_sent));
        }
        self.common.metrics.tally(&self.shard.take_tally());
    }

    /// Time has passed.
    fn sweep(&mut self) {
        self.tick();
        self.shard.sweep(self.now);
        self.sweep_watched();
        self.sweep_drain();
        // What a burst made them is not needed for the next turn.
        self.dirty.shrink_to(KEPT);
        self.effects.shrink_to(KEPT);
        self.received.shrink_to(KEPT);
        self.run.shrink_to(KEPT);
        self.hand_over();
        let waiting = self.waiting_bytes();
        if let Some(stats) = self.common.stats.get(usize::from(self.id.0)) {
            let connections = self.shard.session_counts().iter().sum::<usize>();
            stats.connections.store(connections as u64, Ordering::Relaxed);
            stats.subscriptions.store(self.shard.subscription_count() as u64, Ordering::Relaxed);
            stats.outbox_bytes.store(waiting as u64, Ordering::Relaxed);
        }
    }
}

/// The worker's task. Returns only when its poller has failed.
async fn run(worker: Rc<RefCell<Worker>>, mut poller: Poller, inbox: Inbox<Inbound>) {
    let error = match turns(&worker, &mut poller, &inbox).await {
        Ok(never) => match never {},
        Err(error) => error,
    };
    // Without its poller the worker can serve nobody: better a restart than a node that looks alive.
    tracing::error!(%error, "a worker's poller has failed");
    #[expect(
        clippy::disallowed_methods,
        reason = "its connections are lost already; nothing is left to drain"
    )]
    std::process::abort();
}

async fn turns(
    worker: &RefCell<Worker>,
    poller: &mut Poller,
    inbox: &Inbox<Inbound>,
) -> io::Result<Infallible> {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut swept = Instant::now();
    let mut more = false;
    let mut kept = 0;
    loop {
        kept += 1;
        let unfinished = more || !worker.borrow().unread.is_empty();
        tokio::select! {
            biased;
            _ = ticks.tick() => {
                let mut worker = worker.borrow_mut();
                let lag = swept.elapsed().saturating_sub(TICK);
                worker.common.metrics.worker_lag.observe(lag.as_secs_f64());
                if lag > LATE {
                    // The worker was held up: pongs that wait in the sockets are not late, only unread.
                    worker.catch_up(poller)?;
                }
                worker.sweep();
                swept = Instant::now();
            }
            events = poller.ready() => {
                worker.borrow_mut().ready(events?);
                // A busy poller is always ready, and awaiting it spends nothing: without a pause the runtime would not
                // get to its own timers and sockets, and one client that never stops could hold up the worker.
                kept = KEEP;
            }
            () = inbox.ready() => {}
            // Work left over from the last turn: the other branches looked first, now it goes on.
            () = tokio::task::yield_now(), if unfinished => {}
        }
        {
            let mut worker = worker.borrow_mut();
            more = worker.inbox(inbox);
            worker.read_unread();
            worker.settle();
        }
        // Nothing else was ready when a single publication woke the worker: a pause for each would be a look at the
        // runtime's poller for nothing.
        if more || kept >= KEEP {
            kept = 0;
            tokio::task::yield_now().await;
        }
    }
}
