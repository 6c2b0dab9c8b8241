//! How a node leaves: not ready, nobody new, everyone sent away with 3001 over a while, then gone.
//!
//! The first SIGTERM or SIGINT begins it, the second one ends the process at once. SIGINT, which a person sends, skips
//! the delay that load balancers need.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::edge::Admission;
use crate::join::Switchboard;
use crate::metrics::{Metrics, gauge_value};
use crate::settings::Settings;

/// Beyond the drain's duration: time for the last Close frames to be answered.
const GRACE: Duration = Duration::from_secs(6);

/// How often the remaining connections are counted.
const LOOK: Duration = Duration::from_millis(50);

/// How often progress is logged.
const PROGRESS: Duration = Duration::from_secs(1);

/// The exit code after a second signal: 128 and the number of SIGTERM, as shells have it.
const IMPATIENT: i32 = 143;

/// The signals that make a node leave.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches the signals from now on.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for a signal; says whether a person may have sent it.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => true,
        }
    }
}

/// What a drain touches.
pub(crate) struct Drain {
    pub(crate) signals: Signals,
    pub(crate) settings: Arc<Settings>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) ready: Arc<AtomicBool>,
    pub(crate) switchboard: Arc<Switchboard>,
}

/// Waits for a signal, then sends everyone away. Returns when nobody is left or the time is over.
pub(crate) async fn run(mut drain: Drain) {
    let by_hand = drain.signals.next().await;
    tokio::select! {
        () = send_away(&drain.settings, &drain.metrics, &drain.admission, &drain.ready, &drain.switchboard, by_hand) => {}
        _ = drain.signals.next() => {
            tracing::warn!(remaining = drain.admission.open(), "second signal: leaving at once");
            #[expect(clippy::disallowed_methods, reason = "the second signal asks for exactly that")]
            std::process::exit(IMPATIENT);
        }
    }
}

async fn send_away(
    settings: &Settings,
    metrics: &Metrics,
    admission: &Admission,
    ready: &AtomicBool,
    switchboard: &Switchboard,
    by_hand: bool,
) {
    let began = Instant::now();
    ready.store(false, Ordering::Release);
    admission.close();
    let connections = admission.open();
    metrics.drain_remaining.set(gauge_value(connections));
    tracing::info!(connections, "draining");
    if !by_hand {
        tokio::time::sleep(settings.drain.delay).await;
    }
    switchboard.drain(settings.drain.duration);
    let deadline = Instant::now() + settings.drain.duration + GRACE;
    let mut looks = tokio::time::interval(LOOK);
    let mut said = Instant::now();
    loop {
        looks.tick().await;
        let remaining = admission.open();
        metrics.drain_remaining.set(gauge_value(remaining));
        if remaining == 0 || Instant::now() > deadline {
            tracing::info!(remaining, seconds = began.elapsed().as_secs_f64(), "drained");
            return;
        }
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            tracing::info!(remaining, "draining");
        }
    }
}
