//! What waits for a worker: a bounded queue from the relay's threads to the worker's own.
//!
//! Bounded in items and bytes. When it is full the sender blocks, so that back-pressure reaches Redis' socket; a worker
//! that takes nothing for [`PATIENCE`] loses the item, which the caller counts, and is told so before it can see anything
//! that was put in later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::Notify;

/// The most items that wait. The queue's places are touched in turn and stay, so there are not more than a worker takes
/// in two turns.
const MAX_ITEMS: usize = 2 * 1024;

/// The most payload bytes that wait.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// How long a full inbox holds its sender back.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a held-back sender looks for room.
const RECHECK: Duration = Duration::from_millis(1);

struct Shared {
    bytes: AtomicUsize,
    woken: AtomicBool,
    notify: Notify,
    /// Whether an item was lost since the worker asked.
    missed: AtomicBool,
}

/// The relay's end.
pub(crate) struct InboxSender<T> {
    items: Sender<(T, usize)>,
    shared: Arc<Shared>,
}

/// The worker's end.
pub(crate) struct Inbox<T> {
    items: Receiver<(T, usize)>,
    shared: Arc<Shared>,
}

/// The worker did not take the item in time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stuck<T>(pub(crate) T);

/// An inbox and the way into it.
pub(crate) fn inbox<T>() -> (InboxSender<T>, Inbox<T>) {
    let (sender, receiver) = bounded(MAX_ITEMS);
    let shared = Arc::new(Shared {
        bytes: AtomicUsize::new(0),
        woken: AtomicBool::new(false),
        notify: Notify::new(),
        missed: AtomicBool::new(false),
    });
    (InboxSender { items: sender, shared: Arc::clone(&shared) }, Inbox { items: receiver, shared })
}

impl<T> InboxSender<T> {
    /// Puts an item in and wakes the worker.
    pub(crate) fn send(&self, item: T, bytes: usize) -> Result<(), Stuck<T>> {
        self.put(item, bytes)?;
        self.wake();
        Ok(())
    }

    /// Wakes the worker, unless it has yet to look since it was woken last.
    pub(crate) fn wake(&self) {
        if !self.shared.woken.swap(true, Ordering::SeqCst) {
            self.shared.notify.notify_one();
        }
    }

    /// Puts an item in, waiting for room for at most [`PATIENCE`]. The worker is woken only to make room: whoever puts
    /// several items in calls [`InboxSender::wake`] after the last.
    pub(crate) fn put(&self, item: T, bytes: usize) -> Result<(), Stuck<T>> {
        let mut item = (item, bytes);
        let mut deadline = None;
        loop {
            if self.shared.bytes.load(Ordering::Acquire) <= MAX_BYTES {
                // Before the item can be taken, or the count would fall below nothing.
                self.shared.bytes.fetch_add(bytes, Ordering::AcqRel);
                match self.items.try_send(item) {
                    Ok(()) => return Ok(()),
                    Err(TrySendError::Full(back)) => {
                        self.shared.bytes.fetch_sub(bytes, Ordering::AcqRel);
                        item = back;
                    }
                    Err(TrySendError::Disconnected((item, _))) => return Err(Stuck(item)),
                }
            }
            self.wake();
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
            if Instant::now() >= deadline {
                // Before anything else is put in: whoever takes that sees this.
                self.shared.missed.store(true, Ordering::Release);
                return Err(Stuck(item.0));
            }
            std::thread::park_timeout(RECHECK);
        }
    }
}

impl<T> Inbox<T> {
    /// Waits until something was put in. Cancel safe.
    pub(crate) async fn ready(&self) {
        self.shared.notify.notified().await;
    }

    /// Whether an item was lost since the last call. Asked behind an item that was taken, it tells of every item that was to
    /// come before that one.
    pub(crate) fn missed(&self) -> bool {
        self.shared.missed.load(Ordering::Acquire) && self.shared.missed.swap(false, Ordering::AcqRel)
    }

    /// Takes up to `most` items, or until `each` has had enough and returns false; says whether there may be more.
    pub(crate) fn take(&self, most: usize, mut each: impl FnMut(T) -> bool) -> bool {
        // Before the first look, so that an item put in after the last look wakes again.
        self.shared.woken.swap(false, Ordering::SeqCst);
        let mut taken = 0;
        let mut more = true;
        for _ in 0..most {
            let Ok((item, bytes)) = self.items.try_recv() else {
                more = false;
                break;
            };
            taken += bytes;
            if !each(item) {
                break;
            }
        }
        self.shared.bytes.fetch_sub(taken, Ordering::AcqRel);
        more
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn items_come_out_in_the_order_they_went_in() {
        let (sender, inbox) = inbox();
        for item in 0..100 {
            assert_eq!(sender.send(item, 1), Ok(()));
        }
        let mut seen = Vec::new();
        let mut see = |item| {
            seen.push(item);
            seen.len() != 60
        };
        assert!(inbox.take(1000, &mut see), "enough for now");
        assert!(!inbox.take(1000, &mut see));
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_put_in_together_wakes_once() {
        let (sender, inbox) = inbox();
        for item in 0..100 {
            assert_eq!(sender.put(item, 1), Ok(()));
        }
        assert_eq!(inbox.ready().now_or_never(), None, "not before the last");
        sender.wake();
        assert_eq!(inbox.ready().now_or_never(), Some(()));
        assert_eq!(sender.send(100, 1), Ok(()));
        assert_eq!(inbox.ready().now_or_never(), None, "nobody has looked since");
        let mut seen = 0;
        assert!(!inbox.take(1000, |_| {
            seen += 1;
            true
        }));
        assert_eq!(seen, 101);
        assert_eq!(sender.send(101, 1), Ok(()));
        assert_eq!(inbox.ready().now_or_never(), Some(()), "somebody has looked since");
    }

    #[test]
    fn who_takes_what_came_after_a_lost_item_knows_of_the_loss() {
        let (sender, inbox) = inbox();
        assert_eq!(sender.send(0, MAX_BYTES + 1), Ok(()));
        assert_eq!(sender.send(1, 1), Err(Stuck(1)), "nobody has taken anything");
        assert!(!inbox.take(1000, |item| {
            assert_eq!(item, 0);
            true
        }));
        assert_eq!(sender.send(2, 1), Ok(()));
        let mut missed = Vec::new();
        inbox.take(1000, |item| {
            missed.push((item, inbox.missed()));
            true
        });
        assert_eq!(missed, [(2, true)]);
        assert!(!inbox.missed(), "it is told once");
    }

    #[test]
    fn a_full_inbox_holds_its_sender_until_there_is_room() {
        let (sender, inbox) = inbox();
        assert_eq!(sender.send(0, MAX_BYTES + 1), Ok(()));
        let sending = std::thread::spawn(move || sender.send(1, 1));
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while seen.len() < 2 && Instant::now() < deadline {
            inbox.take(1, |item| {
                seen.push(item);
                true
            });
        }
        assert_eq!(seen, [0, 1]);
        assert!(matches!(sending.join(), Ok(Ok(()))));
    }
}
