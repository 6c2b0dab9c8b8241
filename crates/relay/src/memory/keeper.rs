//! The thread of the memory relay: takes one message after another, and does all of it before the next.
//!
//! So joins, publications, recoveries and presence of a channel have one order, and a position that is told is where the
//! deliveries before it have led. Not here: how messages come here and answers go back (`mod`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use tidegate_protocol::{ChannelName, Position};

use super::Message;
use super::logs::{Logs, Taken};
use super::presence::Presence;
use crate::relay::{Outgoing, Recover, RelayError};
use crate::rules::Rules;
use crate::sink::{Delivery, Observation, Said, Sink, WorkerId, WorkerSet};

/// How long after one sweep the next may be.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

pub(super) struct Keeper {
    sink: Arc<dyn Sink>,
    rules: Arc<Rules>,
    interest: AHashMap<ChannelName, WorkerSet>,
    logs: Logs,
    presence: Presence,
    /// How many channels have a worker; read by others.
    heard: Arc<AtomicUsize>,
    /// One delivery; its memory is kept.
    batch: Vec<Delivery>,
}

impl Keeper {
    pub(super) fn new(
        history_bytes: usize,
        rules: Arc<Rules>,
        sink: Arc<dyn Sink>,
        heard: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            sink,
            logs: Logs::new(Arc::clone(&rules), history_bytes),
            rules,
            interest: AHashMap::new(),
            presence: Presence::default(),
            heard,
            batch: Vec::with_capacity(1),
        }
    }

    /// Until it is told to stop, or nobody is left who could.
    pub(super) fn run(mut self, messages: &Receiver<Box<Message>>) {
        self.sink.observe(Observation::Up);
        let mut swept = Instant::now();
        loop {
            let sweep = self.logs.due().map(|due| due.max(swept + SWEEP_EVERY));
            let message = match sweep {
                Some(at) => messages.recv_deadline(at),
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match message.map(|message| *message) {
                Ok(Message::Stop(done)) => {
                    drop(done);
                    return;
                }
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            if sweep.is_some_and(|at| at <= now) {
                self.logs.sweep(now);
                swept = now;
            }
        }
    }

    fn take(&mut self, message: Message) {
        // Whoever waits for an answer may have given up.
        match message {
            Message::Join(worker, channel) => self.join(worker, &channel),
            Message::Leave(worker, channel) => self.leave(worker, &channel),
            Message::Submit(outgoing, ticket, _claim) => {
                self.publish(outgoing);
                self.sink.published(ticket, Ok(()));
            }
            Message::Publish(outgoing, reply, _claim) => drop(reply.send(Ok(self.publish(outgoing)))),
            Message::Recover(recover) => self.recover(&recover),
            Message::History(channel, query, reply) => {
                drop(reply.send(self.logs.history(&channel, &query, Instant::now())));
            }
            Message::HistoryRemove(channel, reply) => {
                drop(reply.send(self.logs.remove(&channel, Instant::now())));
            }
            Message::Enter(channel, info, _claim) => {
                if self.presence.enter(channel.clone(), info.clone()) && self.rules.of(&channel).join_leave {
                    self.deliver(Said::Join(channel, info));
                }
            }
            Message::Exit(channel, client) => {
                if let Some(info) = self.presence.exit(&channel, &client)
                    && self.rules.of(&channel).join_leave
                {
                    self.deliver(Said::Leave(channel, info));
                }
            }
            Message::Presence(channel, reply) => drop(reply.send(Ok(self.presence.read(&channel)))),
            Message::PresenceStats(channel, reply) => drop(reply.send(Ok(self.presence.stats(&channel)))),
            Message::Control(control, reply) => {
                self.sink.control(control);
                drop(reply.send(Ok(())));
            }
            Message::Stop(done) => drop(done),
        }
    }

    fn join(&mut self, worker: WorkerId, channel: &ChannelName) {
        self.interest.entry(channel.clone()).or_default().insert(worker);
        self.heard.store(self.interest.len(), Ordering::Relaxed);
        let position = self.logs.joined(channel, Instant::now());
        self.sink.joined(worker, channel, Ok(position));
    }

    fn leave(&mut self, worker: WorkerId, channel: &ChannelName) {
        let Some(workers) = self.interest.get_mut(channel) else { return };
        workers.remove(worker);
        if workers.is_empty() {
            self.interest.remove(channel);
            self.heard.store(self.interest.len(), Ordering::Relaxed);
            self.logs.left(channel, Instant::now());
        }
    }

    fn publish(&mut self, outgoing: Outgoing) -> Option<Position> {
        let Taken { position, publication } = self.logs.take(outgoing, Instant::now());
        if let Some(publication) = publication {
            self.deliver(Said::Publication(publication));
        }
        position
    }

    fn recover(&mut self, recover: &Recover) {
        let Recover { channel, since, ticket } = recover;
        let hears = self.interest.get(channel).is_some_and(|workers| workers.contains(ticket.worker));
        let recovered = hears.then(|| self.logs.recover(channel, since, Instant::now())).flatten();
        self.sink.recovered(*ticket, channel, recovered.ok_or(RelayError::Unavailable));
    }

    fn deliver(&mut self, said: Said) {
        if let Some(&workers) = self.interest.get(said.channel()) {
            self.batch.push(Delivery { workers, said });
            self.sink.deliver(&mut self.batch, Instant::now());
        }
    }
}
