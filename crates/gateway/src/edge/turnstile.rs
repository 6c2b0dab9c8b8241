//! How a worker's newcomers share its thread with the connections it has: established traffic goes first.
//!
//! Two bounds. In the small, all handshakes of a worker together take [`SLICE`] at most before the shard has its turn:
//! a future wrapped by [`Turnstile::pace`] is not polled while the slice is used up, it waits for the next one. In the
//! large, connections wait, as bare sockets and in the order of their coming, until the node's [`Rate`] lets them in.
//!
//! One task a worker, the usher, gives out new slices and calls who waits. Not here: what a handshake is.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::rate::Rate;

/// How long a worker's handshakes may take, together, before its shard has its turn; one poll of one handshake may
/// begin just before and lasts as long as it takes (a signature, 0.1 ms with ECDSA P-256).
const SLICE: Duration = Duration::from_micros(250);

/// How many held futures are woken at once: as many as a slice is likely to have time for.
const WOKEN: usize = 8;

/// Beyond the wait that the rate allows for: by then something is wrong.
const GRACE: Duration = Duration::from_secs(5);

/// A worker's turnstile. Of one thread.
pub(super) struct Turnstile {
    rate: Arc<Rate>,
    /// How long somebody may wait to be called.
    patience: Duration,
    /// What this slice's polls have taken.
    spent: Cell<Duration>,
    /// Futures that wait for the next slice.
    held: RefCell<VecDeque<Waker>>,
    /// Connections that wait to be called. Bounded by the rate's places.
    queue: RefCell<VecDeque<oneshot::Sender<()>>>,
    usher: Notify,
}

/// A connection that was not let in; when to come back, in seconds.
pub(super) struct Refused {
    pub(super) retry_after: u32,
}

impl Turnstile {
    /// Starts the usher on this thread.
    pub(super) fn start(rate: Arc<Rate>, patience: Duration) -> Rc<Self> {
        let turnstile = Rc::new(Self {
            rate,
            patience: patience + GRACE,
            spent: Cell::default(),
            held: RefCell::default(),
            queue: RefCell::default(),
            usher: Notify::new(),
        });
        actix_rt::spawn(Rc::clone(&turnstile).ush());
        turnstile
    }

    /// Waits until the rate lets one more connection in.
    pub(super) async fn turn(&self) -> Result<(), Refused> {
        if !self.rate.limits() || self.queue.borrow().is_empty() && self.rate.take().is_ok() {
            return Ok(());
        }
        let refused = || Refused { retry_after: self.rate.retry_after() };
        let _place = self.rate.wait().ok_or_else(refused)?;
        let (call, called) = oneshot::channel();
        self.queue.borrow_mut().push_back(call);
        self.usher.notify_one();
        match timeout(self.patience, called).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(refused()),
        }
    }

    /// Says that a turn was not used.
    pub(super) fn pass(&self) {
        if self.rate.limits() {
            self.rate.give_back();
            self.usher.notify_one();
        }
    }

    /// The future, polled within the worker's slices.
    pub(super) fn pace<F: Future>(self: &Rc<Self>, future: F) -> Paced<F> {
        Paced { turnstile: Rc::clone(self), future: Box::pin(future) }
    }

    fn used_up(&self) -> bool {
        self.spent.get() >= SLICE
    }

    async fn ush(self: Rc<Self>) {
        loop {
            let next = self.call();
            if self.held.borrow().is_empty() {
                let notified = self.usher.notified();
                match next {
                    // Late or early is no matter: it looks again.
                    Some(wait) => drop(timeout(wait, notified).await),
                    None => notified.await,
                }
            }
            if self.used_up() {
                // Comes back when the runtime has looked at its sockets and run who was ready: the shard is among them.
                tokio::task::yield_now().await;
                self.spent.set(Duration::ZERO);
            }
            self.release();
            // To the end of the runtime's queue, behind those just woken.
            requeue().await;
        }
    }

    /// Wakes some of those who wait for a slice.
    fn release(&self) {
        for _ in 0..WOKEN {
            let Some(waker) = self.held.borrow_mut().pop_front() else { return };
            waker.wake();
        }
    }

    /// Calls those whose turn it is; says when the next one's will be, if there is one.
    fn call(&self) -> Option<Duration> {
        let mut queue = self.queue.borrow_mut();
        let mut share = self.rate.share(queue.len());
        while !queue.is_empty() {
            if share == 0 {
                return Some(Duration::from_millis(1));
            }
            if let Err(wait) = self.rate.take() {
                return Some(wait);
            }
            share -= 1;
            if queue.pop_front().is_some_and(|call| call.send(()).is_err()) {
                self.rate.give_back();
            }
        }
        None
    }
}

/// A future that is polled within the worker's slices.
pub(super) struct Paced<F> {
    turnstile: Rc<Turnstile>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Paced<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if self.turnstile.used_up() {
            self.turnstile.held.borrow_mut().push_back(cx.waker().clone());
            self.turnstile.usher.notify_one();
            return Poll::Pending;
        }
        let began = Instant::now();
        let polled = self.future.as_mut().poll(cx);
        self.turnstile.spent.set(self.turnstile.spent.get() + began.elapsed());
        polled
    }
}

/// Lets every other task run that is ready, once.
async fn requeue() {
    let mut again = true;
    poll_fn(|cx| {
        if std::mem::take(&mut again) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use prometheus::IntGauge;

    use super::*;

    /// A part of a slice, as a poll may take it.
    const POLL: Duration = Duration::from_micros(50);

    fn turnstile(per_second: u32) -> Rc<Turnstile> {
        let patience = Duration::from_secs(20);
        let gauge = IntGauge::new("waiting", "waiting").unwrap();
        Turnstile::start(Arc::new(Rate::new(per_second, 1, patience, gauge)), patience)
    }

    #[actix_rt::test]
    async fn whoever_has_work_has_a_turn_after_each_slice_of_handshakes() {
        let turnstile = turnstile(0);
        let (left, since, most) = (Rc::new(Cell::new(400)), Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        for _ in 0..left.get() {
            let (left, since) = (Rc::clone(&left), Rc::clone(&since));
            actix_rt::spawn(turnstile.pace(async move {
                for _ in 0..3 {
                    let began = Instant::now();
                    while began.elapsed() < POLL {}
                    since.set(since.get() + 1);
                    requeue().await;
                }
                left.set(left.get() - 1);
            }));
        }
        // The shard: it yields as the worker's task does.
        while left.get() > 0 {
            most.set(most.get().max(since.take()));
            tokio::task::yield_now().await;
        }
        let slice = (SLICE.as_micros() / POLL.as_micros()) as u32;
        assert!((1..=slice + 1).contains(&most.get()), "{} polls between two turns", most.get());
    }

    #[actix_rt::test]
    async fn who_gave_up_takes_no_turn_from_those_behind() {
        let turnstile = turnstile(10);
        assert!(turnstile.turn().await.is_ok(), "the burst");
        let mut gone: Vec<_> = (0..100).map(|_| Box::pin(turnstile.turn())).collect();
        for waiting in &mut gone {
            assert!(futures_util::poll!(waiting).is_pending());
        }
        drop(gone);
        let began = Instant::now();
        assert!(turnstile.turn().await.is_ok());
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}
