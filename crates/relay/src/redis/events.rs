//! The stream of events: what clients did, for backends to read.
//!
//! Workers put events into one queue, bounded in items and bytes, and never wait: when it is full the oldest go, and are
//! counted. A writer on the saying thread takes whatever has gathered and sends it as one pipeline. What Redis did not
//! answer is sent again, so an event may stand in the stream twice after an interruption; each has the node's id and a
//! number that rises by one, by which a reader knows both duplicates and gaps.
//!
//! Not here: which events are made (the settings, by way of `tidegate-hub`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::redis::Pipeline;
use ::redis::aio::MultiplexedConnection;
use deadpool_redis::Connection;
use tidegate_protocol::Event;
use tokio::sync::{Notify, watch};

use super::backoff::Backoff;
use super::pool::Pool;
use super::{server, stopped};
use crate::names::Names;
use crate::relay::RelayError;
use crate::sink::{Observation, Sink};
use crate::sparse::Sparse;

/// How many events may wait.
const QUEUE_ITEMS: usize = 64 * 1024;
/// How many bytes may wait.
const QUEUE_BYTES: usize = 32 * 1024 * 1024;
/// What each event costs besides what it carries.
const ITEM_BYTES: usize = 192;
/// How many events one pipeline takes.
const BATCH_ITEMS: usize = 512;
/// At how many bytes a pipeline takes no further event.
const BATCH_BYTES: usize = 1024 * 1024;
/// How many places of the queue are kept between bursts.
const KEPT: usize = 1024;

/// An event with what the node adds.
#[derive(Debug, Clone, PartialEq)]
struct Stamped {
    event: Event,
    /// Milliseconds since 1970, by this machine's clock.
    time: u64,
    number: u64,
}

impl Stamped {
    fn bytes(&self) -> usize {
        self.event.len() + ITEM_BYTES
    }
}

/// What waits to be written.
#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Stamped>,
    bytes: usize,
    /// The number of the newest event.
    last: u64,
}

impl Queue {
    /// Adds an event at the end. Says how many had to go for it.
    fn push(&mut self, event: Event, time: u64) -> u64 {
        self.last += 1;
        let stamped = Stamped { event, time, number: self.last };
        self.bytes += stamped.bytes();
        self.items.push_back(stamped);
        self.trim()
    }

    /// Takes the oldest, as many as one pipeline takes.
    fn take(&mut self) -> Vec<Stamped> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_ITEMS
            && bytes < BATCH_BYTES
            && let Some(stamped) = self.items.pop_front()
        {
            bytes += stamped.bytes();
            batch.push(stamped);
        }
        self.bytes -= bytes;
        if self.items.is_empty() {
            self.items.shrink_to(KEPT);
        }
        batch
    }

    /// Puts events back that were not written: they are the oldest still. Says how many had to go.
    fn put_back(&mut self, batch: Vec<Stamped>) -> u64 {
        for stamped in batch.into_iter().rev() {
            self.bytes += stamped.bytes();
            self.items.push_front(stamped);
        }
        self.trim()
    }

    fn trim(&mut self) -> u64 {
        let mut dropped = 0;
        while (self.items.len() > QUEUE_ITEMS || self.bytes > QUEUE_BYTES)
            && let Some(oldest) = self.items.pop_front()
        {
            self.bytes -= oldest.bytes();
            dropped += 1;
        }
        dropped
    }
}

/// The queue and its writer.
pub(super) struct Events {
    queue: Mutex<Queue>,
    wake: Notify,
    /// About how many entries the stream keeps.
    most: usize,
    node: String,
    names: Arc<Names>,
    /// Of the server that owns the stream.
    pool: Pool,
    sink: Arc<dyn Sink>,
    /// How long writing may take once the relay has stopped.
    patience: Duration,
    complaint: Sparse,
}

impl Events {
    pub(super) fn new(
        most: usize,
        node: &str,
        names: &Arc<Names>,
        pool: Pool,
        sink: &Arc<dyn Sink>,
        patience: Duration,
    ) -> Self {
        Self {
            queue: Mutex::default(),
            wake: Notify::new(),
            most,
            node: node.to_owned(),
            names: Arc::clone(names),
            pool,
            sink: Arc::clone(sink),
            patience,
            complaint: Sparse::new(Duration::from_secs(10)),
        }
    }

    /// Locked for a few moves of the list, by workers and the writer.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an event in.
    pub(super) fn push(&self, event: Event) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let dropped = self.queue().push(event, time);
        self.dropped(dropped);
        self.wake.notify_one();
    }

    fn dropped(&self, count: u64) {
        if count > 0 {
            self.sink.observe(Observation::EventsDropped(count));
        }
    }

    /// Writes until the relay stops, and then what is left, if Redis takes it at once.
    pub(super) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut connection = None;
        let mut backoff = Backoff::new();
        // A batch on its way is waited for, or it would be written twice.
        while self.comes(&mut stop).await {
            match self.send(&mut connection).await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    connection = None;
                    self.complain(&error);
                    let _ = tokio::time::timeout(backoff.wait(), stopped(&mut stop)).await;
                }
            }
        }
        let last = async { while self.waits() && self.send(&mut connection).await.is_ok() {} };
        let _ = tokio::time::timeout(self.patience, last).await;
        let left = self.queue().items.len() as u64;
        if left > 0 {
            tracing::warn!(events = left, "redis did not take the last events");
            self.dropped(left);
        }
    }

    /// Waits for events; false when the relay stops.
    async fn comes(&self, stop: &mut watch::Receiver<bool>) -> bool {
        while !*stop.borrow() {
            if self.waits() {
                return true;
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = stopped(stop) => {}
            }
        }
        false
    }

    fn waits(&self) -> bool {
        !self.queue().items.is_empty()
    }

    /// Writes one batch. After an error what was not written is back in the queue, and the connection is of no use.
    async fn send(&self, connection: &mut Option<MultiplexedConnection>) -> Result<(), RelayError> {
        let mut lent = match connection.take() {
            Some(connection) => connection,
            // Taken out of the pool, whose connections are for commands that come and go.
            None => {
                let connection = self.pool.get().await.map_err(|error| server::no_connection(&error))?;
                Connection::take(connection)
            }
        };
        // From here on a future that is dropped gives the batch back.
        let mut batch = Batch { events: self, batch: self.queue().take() };
        let pipeline = self.pipeline(&batch.batch);
        let sent = lent.send_packed_commands(&pipeline, 0, pipeline.len()).await;
        let answers = sent.map_err(|error| server::away(&error))?;
        let (mut written, mut refused) = (0, 0);
        for answer in &answers {
            match server::answer(answer) {
                Ok(()) => written += 1,
                Err(RelayError::Refused(why)) => {
                    refused += 1;
                    self.complain(&RelayError::Refused(why));
                }
                // What comes behind it was not taken either, or is written a second time.
                Err(error) => {
                    batch.batch.drain(..written + refused);
                    self.wrote(written, refused);
                    return Err(error);
                }
            }
        }
        batch.batch.clear();
        self.wrote(written, refused);
        *connection = Some(lent);
        Ok(())
    }

    fn wrote(&self, written: usize, refused: usize) {
        if written > 0 {
            self.sink.observe(Observation::EventsWritten(written as u64));
        }
        self.dropped(refused as u64);
    }

    fn pipeline(&self, batch: &[Stamped]) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(batch.len());
        for Stamped { event, time, number } in batch {
            let command = pipeline.cmd("XADD").arg(self.names.events());
            command.arg("MAXLEN").arg("~").arg(self.most).arg("*");
            command.arg("kind").arg(event.kind.label()).arg("time").arg(*time);
            command.arg("node").arg(&self.node).arg("number").arg(*number);
            command.arg("client").arg(&event.client).arg("user").arg(&event.user);
            if let Some(channel) = &event.channel {
                command.arg("channel").arg(channel.as_str());
            }
            if let Some(code) = event.code {
                command.arg("code").arg(code);
            }
            if !event.method.is_empty() {
                command.arg("method").arg(&event.method);
            }
            if let Some(data) = &event.data {
                command.arg("data").arg(&data[..]);
            }
        }
        pipeline
    }

    fn complain(&self, error: &RelayError) {
        if let Some(held_back) = self.complaint.speak(Instant::now()) {
            tracing::warn!(%error, held_back, "events are not written");
        }
    }
}

/// Events on their way; what is left of them when it is dropped goes back into the queue.
struct Batch<'a> {
    events: &'a Events,
    batch: Vec<Stamped>,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if !self.batch.is_empty() {
            let dropped = self.events.queue().put_back(std::mem::take(&mut self.batch));
            self.events.dropped(dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidegate_protocol::EventKind;

    use super::*;

    fn event(bytes: usize) -> Event {
        let data = Some(Bytes::from(vec![b'1'; bytes]));
        Event { data, ..Event::new(EventKind::Send, String::new(), String::new()) }
    }

    fn numbers(queue: &Queue) -> Vec<u64> {
        queue.items.iter().map(|stamped| stamped.number).collect()
    }

    #[test]
    fn a_full_queue_loses_its_oldest_events() {
        let mut queue = Queue::default();
        let dropped: u64 = (0..QUEUE_ITEMS + 10).map(|_| queue.push(event(0), 0)).sum();
        assert_eq!((dropped, queue.items.len()), (10, QUEUE_ITEMS));
        assert_eq!(queue.items.front().map(|oldest| oldest.number), Some(11));

        let mut queue = Queue::default();
        let dropped: u64 = (0..5).map(|_| queue.push(event(QUEUE_BYTES / 4), 0)).sum();
        assert_eq!((dropped, numbers(&queue)), (2, vec![3, 4, 5]), "bytes count too");
        assert_eq!(queue.push(event(QUEUE_BYTES), 0), 4, "what cannot fit at all goes as well");
        assert_eq!((numbers(&queue), queue.bytes), (vec![], 0));
    }

    #[test]
    fn what_was_not_written_is_the_oldest_again() {
        let mut queue = Queue::default();
        for _ in 0..BATCH_ITEMS + 3 {
            queue.push(event(1), 0);
        }
        let before = queue.bytes;
        let batch = queue.take();
        assert_eq!((batch.len(), queue.items.len()), (BATCH_ITEMS, 3));
        assert_eq!(queue.put_back(batch), 0);
        assert_eq!(numbers(&queue), (1..=BATCH_ITEMS as u64 + 3).collect::<Vec<_>>());
        assert_eq!(queue.bytes, before);
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_and_takes_one_at_least() {
        let mut queue = Queue::default();
        for bytes in [2 * BATCH_BYTES, BATCH_BYTES / 2, BATCH_BYTES / 2, 1] {
            queue.push(event(bytes), 0);
        }
        assert_eq!([queue.take().len(), queue.take().len(), queue.take().len()], [1, 2, 1]);
        assert!(queue.take().is_empty());
    }
}
