//! Who is present, in Redis: one bounded queue, one connection, one batch in flight.
//!
//! What the node's sessions do and what is asked of a channel go one way, so that who enters and then asks finds itself.
//! What Redis has not taken is said again until it has (`rooms`); all of the node's sessions are said anew three times in a
//! time to live, in batches. After an interruption that begins at once: what Redis lost is back before anybody misses it.
//! Whoever touches a channel takes out of it who has expired and tells their leaves (`lua/presence.lua`).
//!
//! Not here: who is told of joins and leaves on this node (`router`).

mod command;
mod release;
mod rooms;
mod sender;

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::{Pipeline, Value};
use ahash::{AHashMap, AHashSet};
use deadpool_redis::Connection;
use tidegate_protocol::ChannelName;
use tokio::sync::{mpsc, watch};

use self::command::{Command, What, bytes, more_expired, number, unexpected};
use self::rooms::{Rooms, Word};
pub(super) use self::sender::{Attendee, PresenceSender};
use self::sender::{Message, Question};
use super::backoff::Backoff;
use super::lane::unanswered;
use super::pool::Pool;
use super::{script, server, stopped};
use crate::names::Names;
use crate::relay::RelayError;
use crate::rules::Rules;
use crate::settings::RedisSettings;
use crate::sink::{Observation, Sink};
use crate::sparse::Sparse;

/// How many sessions one batch speaks of.
const BATCH: usize = 512;
/// At how many bytes of what is known of them it takes no further one.
const BATCH_BYTES: usize = 1024 * 1024;
/// How many sessions one command refreshes.
const REFRESHED: usize = 256;
/// How long the node's sessions may take to leave when it stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// The task, run by the saying thread.
pub(super) struct Presence {
    queue: mpsc::Receiver<Message>,
    rooms: Rooms,
    /// To be sent next, in this order.
    work: VecDeque<Command>,
    pool: Pool,
    names: Arc<Names>,
    rules: Arc<Rules>,
    sink: Arc<dyn Sink>,
    stop: watch::Receiver<bool>,
    /// Whether Redis is heard. When it is again, it may be another one, or have lost everything.
    hearing: watch::Receiver<bool>,
    ttl: Duration,
    timeout: Duration,
    backoff: Backoff,
    /// When Redis last took a batch.
    taken: Option<Instant>,
    /// Until when nobody is taken for expired: other nodes have to come back first, too.
    lenient: Option<Instant>,
    /// Redis' clock, and when it was read.
    clock: Option<(Duration, Instant)>,
    complaint: Sparse,
    refusals: Sparse,
}

impl Presence {
    pub(super) fn new(
        settings: &RedisSettings,
        pool: Pool,
        names: Arc<Names>,
        rules: Arc<Rules>,
        sink: Arc<dyn Sink>,
        stop: watch::Receiver<bool>,
        hearing: watch::Receiver<bool>,
    ) -> (PresenceSender, Self) {
        let timeout = settings.command_timeout;
        let (way_in, queue) = PresenceSender::new(timeout);
        let presence = Self {
            queue,
            rooms: Rooms::new(settings.presence_ttl / 3),
            work: VecDeque::new(),
            pool,
            names,
            rules,
            sink,
            stop,
            hearing,
            ttl: settings.presence_ttl,
            timeout,
            backoff: Backoff::new(),
            taken: None,
            lenient: None,
            clock: None,
            complaint: Sparse::new(Duration::from_secs(10)),
            refusals: Sparse::new(Duration::from_secs(1)),
        };
        (way_in, presence)
    }

    /// Runs until the relay stops; the node's sessions leave then, if Redis is there. Takes no connection before anybody
    /// enters or asks.
    pub(super) async fn run(mut self) {
        while self.first().await {
            let Some(mut connection) = self.reach().await else { break };
            let taken = self.taken;
            let end = self.serve(&mut connection).await;
            // Not back into the pool: a dead connection would cost the next user a timeout.
            let _ = Connection::take(connection);
            let Err(lost) = end else { break };
            if let Some(held_back) = self.complaint.speak(Instant::now()) {
                tracing::warn!(%lost, held_back, "the connection for presence is lost");
            }
            self.give_up(&lost);
            // A connection that was of no use is no reason to hurry.
            if self.taken == taken {
                let wait = self.backoff.wait();
                if self.meanwhile(tokio::time::sleep(wait)).await.is_none() {
                    break;
                }
            }
        }
        self.queue.close();
        let stopping = RelayError::Away("the relay is stopping".into());
        while let Ok(message) = self.queue.try_recv() {
            self.note(message, &stopping);
        }
        self.give_up(&stopping);
    }

    /// Waits for something to say, where there is nothing. False when the relay stopped.
    async fn first(&mut self) -> bool {
        if !self.rooms.is_empty() || !self.work.is_empty() {
            return true;
        }
        tokio::select! {
            biased;
            () = stopped(&mut self.stop) => false,
            message = self.queue.recv() => message.map(|message| self.take(message)).is_some(),
        }
    }

    /// Gets a connection that knows the script. The first attempt lets questions wait for its result; after a failure they
    /// are answered at once. `None` when the relay stopped.
    async fn reach(&mut self) -> Option<Connection> {
        let mut patient = true;
        loop {
            // What was heard before this is no news to the connection.
            self.hearing.mark_unchanged();
            let (pool, names) = (self.pool.clone(), Arc::clone(&self.names));
            let attempt = async move {
                let mut connection = pool.get().await.map_err(|error| server::no_connection(&error))?;
                let loaded = script::presence(&names).load().query_async::<()>(&mut *connection).await;
                loaded.map_err(|error| server::away(&error))?;
                let clock = ::redis::cmd("TIME").query_async(&mut *connection).await;
                let clock = clock.map_err(|error| server::away(&error))?;
                Ok::<_, RelayError>((connection, clock))
            };
            let result = if patient {
                tokio::select! {
                    result = attempt => result,
                    () = stopped(&mut self.stop) => return None,
                }
            } else {
                self.meanwhile(attempt).await?
            };
            let error = match result {
                Ok((connection, clock)) => {
                    self.read_clock(&clock);
                    return Some(connection);
                }
                Err(error) => error,
            };
            if let Some(held_back) = self.complaint.speak(Instant::now()) {
                tracing::warn!(%error, held_back, "cannot reach redis for presence; trying again");
            }
            patient = false;
            self.give_up(&error);
            let wait = self.backoff.wait();
            self.meanwhile(tokio::time::sleep(wait)).await?;
            // Who joined meanwhile is to be heard of here, too.
            let mut hearing = self.hearing.clone();
            let heard = async move { hearing.wait_for(|hears| *hears).await.is_ok() };
            let _ = self.meanwhile(tokio::time::timeout(self.ttl / 3, heard)).await?;
        }
    }

    /// Waits for `work`, keeping in mind what sessions do meanwhile. `None` when the relay stopped.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let away = RelayError::Away("redis cannot be reached".into());
        loop {
            tokio::select! {
                biased;
                result = &mut work => return Some(result),
                () = stopped(&mut self.stop) => return None,
                message = self.queue.recv() => self.note(message?, &away),
            }
        }
    }

    /// Uses one connection until it fails; `Ok` when the relay stopped.
    async fn serve(&mut self, connection: &mut Connection) -> Result<(), RelayError> {
        let now = Instant::now();
        // After an outage, others are as late as we are: half of what an entry lives is enough to come back.
        if self.taken.is_some_and(|taken| now.saturating_duration_since(taken) > self.ttl / 2) {
            self.lenient = Some(now + self.ttl / 2);
        }
        self.rooms.all_due(now);
        let mut turn = Vec::new();
        loop {
            self.gather_due();
            if self.work.is_empty() {
                // Without anybody here, nothing is ever due; a look now and then does no harm.
                let due = self.rooms.next_due().unwrap_or_else(|| Instant::now() + self.ttl);
                tokio::select! {
                    biased;
                    () = stopped(&mut self.stop) => return self.farewell(connection).await,
                    Ok(()) = self.hearing.changed() => if *self.hearing.borrow() {
                        return Err(RelayError::Away("redis went away and is heard again".into()));
                    },
                    count = self.queue.recv_many(&mut turn, BATCH) => if count == 0 { return Ok(()) },
                    () = tokio::time::sleep_until(due.into()) => {}
                }
            } else if *self.stop.borrow() {
                return self.farewell(connection).await;
            } else {
                while turn.len() < BATCH
                    && let Ok(message) = self.queue.try_recv()
                {
                    turn.push(message);
                }
            }
            turn.drain(..).for_each(|message| self.take(message));
            self.exchange(connection).await?;
        }
    }

    /// Takes the node's sessions out of Redis at once, rather than by their expiry.
    async fn farewell(&mut self, connection: &mut Connection) -> Result<(), RelayError> {
        let deadline = Instant::now() + FAREWELL;
        self.give_up(&RelayError::Away("the relay is stopping".into()));
        self.rooms.all_gone(Instant::now());
        while !self.rooms.is_empty() && Instant::now() < deadline {
            self.gather_due();
            self.exchange(connection).await?;
        }
        Ok(())
    }

    /// A message while a connection stands.
    fn take(&mut self, message: Message) {
        match message {
            Message::Enter { channel, client, known, _claim } => {
                let change = self.rooms.enter(&channel, client.clone(), known.clone(), Instant::now());
                self.work
                    .push_back(Command { channel, what: What::Enter { client, known, change, aloud: true } });
            }
            Message::Exit { channel, client } => {
                if let Some((change, _)) = self.rooms.exit(&channel, &client) {
                    self.work.push_back(Command { channel, what: What::Exit { client, change } });
                }
            }
            Message::Ask { channel, question } => {
                self.work.push_back(Command { channel, what: What::Ask(question) });
            }
            Message::Release { is_kept, reply } => self.release(&*is_kept, reply),
        }
    }

    /// A message while none does.
    fn note(&mut self, message: Message, error: &RelayError) {
        match message {
            Message::Enter { channel, client, known, _claim } => {
                self.rooms.enter(&channel, client, known, Instant::now());
            }
            Message::Exit { channel, client } => {
                // Whom Redis has not confirmed need not be remembered: if it is there, it expires.
                if let Some((change, false)) = self.rooms.exit(&channel, &client) {
                    self.rooms.settled(&channel, &client, change, Instant::now());
                }
            }
            Message::Ask { question, .. } => question.fail(error.clone()),
            Message::Release { is_kept, reply } => self.release(&*is_kept, reply),
        }
    }

    /// The connection is gone: what was to be sent follows from the rooms once there is another one.
    fn give_up(&mut self, error: &RelayError) {
        for command in self.work.drain(..) {
            if let What::Ask(question) = command.what {
                question.fail(error.clone());
            }
        }
    }

    /// Puts what is due behind the rest of the work, until there is enough for a batch.
    fn gather_due(&mut self) {
        let now = Instant::now();
        while self.work.len() < BATCH
            && let Some((channel, words)) = self.rooms.take_due(now)
        {
            let mut refresh = Vec::new();
            for (client, change, word) in words {
                let what = match word {
                    Word::Enter(known) => What::Enter { client, known, change, aloud: true },
                    Word::Exit => What::Exit { client, change },
                    Word::Refresh => {
                        refresh.push((client, change));
                        continue;
                    }
                };
                self.work.push_back(Command { channel: channel.clone(), what });
            }
            while !refresh.is_empty() {
                let rest = refresh.split_off(refresh.len().min(REFRESHED));
                let what = What::Refresh(std::mem::replace(&mut refresh, rest));
                self.work.push_back(Command { channel: channel.clone(), what });
            }
        }
    }

    /// Takes a batch from the work. Questions go last, each once however many ask it: a thousand clients that come at once
    /// and want to know who is there make Redis read it once.
    fn next_batch(&mut self) -> Vec<Command> {
        let (mut batch, mut sessions, mut bytes) = (Vec::new(), 0, 0);
        let mut asked: AHashMap<_, Question> = AHashMap::new();
        while sessions < BATCH
            && bytes < BATCH_BYTES
            && let Some(Command { channel, what }) = self.work.pop_front()
        {
            sessions += what.sessions();
            bytes += what.bytes();
            match what {
                What::Ask(question) => match asked.entry((channel, std::mem::discriminant(&question))) {
                    Entry::Occupied(mut same) => same.get_mut().join(question),
                    Entry::Vacant(first) => drop(first.insert(question)),
                },
                what => batch.push(Command { channel, what }),
            }
        }
        let ask = |((channel, _), question)| Command { channel, what: What::Ask(question) };
        batch.extend(asked.into_iter().map(ask));
        batch
    }

    /// Sends one batch of the work. An error means that the connection is not to be used again.
    async fn exchange(&mut self, connection: &mut Connection) -> Result<(), RelayError> {
        let sent = self.next_batch();
        if sent.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let deadline = self.deadline(now);
        let mut pipeline = Pipeline::with_capacity(sent.len() + 1);
        for command in &sent {
            let told = self.rules.of(&command.channel).join_leave;
            pipeline.add_command(command.call(&self.names, self.ttl, told, deadline));
        }
        pipeline.cmd("TIME");
        let result = connection.send_packed_commands(&pipeline, 0, sent.len() + 1).await;
        self.sink.observe(Observation::Command("presence", now.elapsed()));
        let (values, mut lost) = match result {
            Ok(values) => (values, None),
            Err(error) if error.is_timeout() => (Vec::new(), Some(unanswered(self.timeout))),
            Err(error) => (Vec::new(), Some(server::away(&error))),
        };
        let mut values = values.into_iter();
        for command in sent {
            let error = match values.next() {
                Some(value) => match server::answer(&value) {
                    Ok(()) => {
                        self.answered(command, value, now);
                        continue;
                    }
                    Err(RelayError::Refused(text)) if !text.starts_with("NOSCRIPT") => {
                        self.refused(command, RelayError::Refused(text));
                        continue;
                    }
                    Err(error) => lost.insert(error).clone(),
                },
                None => lost
                    .get_or_insert_with(|| RelayError::Away("redis did not answer every command".into()))
                    .clone(),
            };
            if let What::Ask(question) = command.what {
                question.fail(error);
            }
        }
        if let Some(lost) = lost {
            return Err(lost);
        }
        values.next().iter().for_each(|time| self.read_clock(time));
        self.taken = Some(now);
        self.backoff.reset();
        Ok(())
    }

    /// Until which second of its clock Redis may take somebody for expired by a command that is sent now; 0: not at all. A
    /// command that lay before a Redis that stood still comes too late: others had no chance to say that they are here.
    fn deadline(&self, now: Instant) -> f64 {
        match self.clock {
            Some((time, read)) if self.lenient.is_none_or(|until| now >= until) => {
                (time + now.saturating_duration_since(read) + self.timeout).as_secs_f64()
            }
            _ => 0.0,
        }
    }

    fn read_clock(&mut self, time: &Value) {
        if let Value::Array(parts) = time
            && let [seconds, micros] = &parts[..]
            && let Some((seconds, micros)) = number(seconds).zip(number(micros))
        {
            self.clock = Some((Duration::from_secs(seconds) + Duration::from_micros(micros), Instant::now()));
        }
    }

    fn answered(&mut self, command: Command, value: Value, sent: Instant) {
        let Command { channel, what } = command;
        match what {
            What::Enter { client, change, .. } | What::Exit { client, change } => {
                self.rooms.settled(&channel, &client, change, sent);
            }
            What::Refresh(clients) => {
                let Value::Array(parts) = value else { return };
                if let [_, Value::Array(missing)] = &parts[..] {
                    self.refreshed(&channel, clients, missing, sent);
                }
                if more_expired(&parts) {
                    self.work.push_back(Command { channel, what: What::Refresh(Vec::new()) });
                }
            }
            What::Ask(question) => match value {
                Value::Array(parts) if more_expired(&parts) => {
                    self.work.push_front(Command { channel, what: What::Ask(question) });
                }
                Value::Array(parts) => question.answer(&parts),
                _ => question.fail(unexpected()),
            },
        }
    }

    /// Puts back whom Redis does not know: silently, if it must have lost them; aloud, if others may have taken them for
    /// expired.
    fn refreshed(
        &mut self,
        channel: &ChannelName,
        clients: Vec<(String, u64)>,
        missing: &[Value],
        sent: Instant,
    ) {
        let missing: AHashSet<&[u8]> = missing.iter().filter_map(bytes).collect();
        let before = self.work.len();
        for (client, change) in clients {
            if !missing.contains(client.as_bytes()) {
                self.rooms.settled(channel, &client, change, sent);
            } else if let Some((known, change, settled)) = self.rooms.missing(channel, &client) {
                let aloud = sent.saturating_duration_since(settled) > self.ttl;
                let what = What::Enter { client, known, change, aloud };
                self.work.push_back(Command { channel: channel.clone(), what });
            }
        }
        let lost = self.work.len() - before;
        if lost > 0
            && let Some(held_back) = self.refusals.speak(Instant::now())
        {
            tracing::warn!(%channel, lost, held_back, "redis did not know who is present here; put back");
        }
    }

    /// Redis refuses a command for good, for instance by its ACL, or as something else stands under the key.
    fn refused(&mut self, command: Command, error: RelayError) {
        if let Some(held_back) = self.refusals.speak(Instant::now()) {
            tracing::warn!(channel = %command.channel, %error, held_back, "redis refuses what is said of presence");
        }
        match command.what {
            // It will be said again with the next refresh.
            What::Enter { .. } | What::Refresh(_) => {}
            What::Exit { client, change } => {
                self.rooms.settled(&command.channel, &client, change, Instant::now());
            }
            What::Ask(question) => question.fail(error),
        }
    }
}
