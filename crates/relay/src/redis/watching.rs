//! One pub/sub connection under supervision: what was sent on it and what it has come to.
//!
//! Not here: what to send and what an answer means (`hear`).

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use ::redis::aio::ConnectionLike;
use ::redis::{Pipeline, RedisResult, Value};
use futures_util::stream::FuturesUnordered;
use tidegate_protocol::ChannelName;

use super::log::Paging;
use super::router::Ear;
use super::script;
use super::server::Listening;
use crate::interest::Question;
use crate::rules::Rules;

/// A command on the pub/sub connection has been answered.
pub(super) enum Done {
    Control(RedisResult<()>),
    Subscribed(Batch, RedisResult<()>),
    /// The same of sharded channels, each of which has an answer of its own.
    EachSubscribed(Batch, RedisResult<Vec<Value>>),
    Unsubscribed(RedisResult<()>),
    Ping(RedisResult<()>),
    /// Redis knows the scripts, or says why not.
    Loaded(RedisResult<Vec<Value>>),
    Answered(Questions, RedisResult<Vec<Value>>),
}

/// Questions that were sent together.
pub(super) struct Questions {
    pub(super) all: Vec<Question>,
    /// Whether they ask for logs: answers that may be long.
    pub(super) long: bool,
    pub(super) asked: Instant,
}

/// What one SUBSCRIBE asked for.
pub(super) struct Batch {
    pub(super) number: u32,
    pub(super) channels: Vec<ChannelName>,
    pub(super) asked: Instant,
}

pub(super) type Flying = FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>;

/// One connection under supervision.
pub(super) struct Watch {
    pub(super) listening: Listening,
    pub(super) flying: Flying,
    /// Of the last SUBSCRIBE.
    pub(super) number: u32,
    pub(super) subscribing: usize,
    pub(super) unsubscribing: bool,
    /// Batches of questions about positions, and about logs, that are under way.
    pub(super) looking: usize,
    pub(super) reading: usize,
    /// Why Redis does not take our scripts, where it does not.
    pub(super) unscripted: Option<String>,
    /// Whether the control channels are confirmed.
    pub(super) controlled: bool,
    /// Whether joins are taken.
    pub(super) standing: bool,
    pub(super) last_probe: Instant,
    /// When the unanswered PING was sent.
    pub(super) pinged: Option<Instant>,
    /// How often the lane had found Redis read-only before this connection was made.
    pub(super) demotions: u64,
    /// The probe that Redis took and that was not heard yet, and since when we know.
    pub(super) taken: Option<(u64, Instant)>,
    /// Questions about channels whose slot was moving when they were asked: for the next look.
    pub(super) postponed: Vec<Question>,
}

/// One command for each channel: those of one command must be of one slot.
fn each(command: &str, names: &[String]) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(names.len());
    for name in names {
        pipeline.cmd(command).arg(name);
    }
    pipeline
}

impl Watch {
    pub(super) fn new(listening: Listening, demotions: u64, now: Instant) -> Self {
        Self {
            listening,
            flying: Flying::new(),
            number: 0,
            subscribing: 0,
            unsubscribing: false,
            looking: 0,
            reading: 0,
            unscripted: None,
            controlled: false,
            standing: false,
            last_probe: now,
            pinged: None,
            demotions,
            taken: None,
            postponed: Vec::new(),
        }
    }

    pub(super) fn fly(&mut self, command: impl Future<Output = Done> + Send + 'static) {
        self.flying.push(Box::pin(command));
    }

    pub(super) fn subscribe_control(&mut self, channels: Vec<String>) {
        let mut connection = self.listening.connection.clone();
        self.fly(async move { Done::Control(connection.subscribe(&channels).await) });
    }

    /// Numbers commands of this connection, never with 0.
    pub(super) const fn next_number(&mut self) -> u32 {
        self.number = if self.number == u32::MAX { 1 } else { self.number + 1 };
        self.number
    }

    pub(super) fn subscribe(&mut self, number: u32, channels: Vec<ChannelName>, ear: &Ear) {
        self.subscribing += 1;
        let names: Vec<_> = channels.iter().map(|channel| ear.names.channel(channel)).collect();
        let (mut connection, asked) = (self.listening.connection.clone(), Instant::now());
        if ear.names.are_sharded() {
            let pipeline = each("SSUBSCRIBE", &names);
            self.fly(async move {
                let result = connection.req_packed_commands(&pipeline, 0, names.len()).await;
                Done::EachSubscribed(Batch { number, channels, asked }, result)
            });
            return;
        }
        self.fly(async move {
            let result = connection.subscribe(names).await;
            Done::Subscribed(Batch { number, channels, asked }, result)
        });
    }

    pub(super) fn unsubscribe(&mut self, channels: &[ChannelName], ear: &Ear) {
        self.unsubscribing = true;
        let names: Vec<_> = channels.iter().map(|channel| ear.names.channel(channel)).collect();
        let mut connection = self.listening.connection.clone();
        if ear.names.are_sharded() {
            let pipeline = each("SUNSUBSCRIBE", &names);
            self.fly(async move {
                let result = connection.req_packed_commands(&pipeline, 0, names.len()).await;
                Done::Unsubscribed(result.map(drop))
            });
            return;
        }
        self.fly(async move { Done::Unsubscribed(connection.unsubscribe(names).await) });
    }

    pub(super) fn ping(&mut self, now: Instant) {
        self.pinged = Some(now);
        self.last_probe = now;
        let mut connection = self.listening.connection.clone();
        self.fly(async move { Done::Ping(::redis::cmd("PING").query_async::<()>(&mut connection).await) });
    }

    /// Makes Redis know the scripts that are called on this connection. Answers come in order: what is called after this is
    /// known by then.
    pub(super) fn load_scripts(&mut self) {
        let mut pipeline = Pipeline::new();
        pipeline.add_command(script::READING.load()).add_command(script::RENEWING.load());
        let mut connection = self.listening.connection.clone();
        self.fly(async move { Done::Loaded(connection.req_packed_commands(&pipeline, 0, 2).await) });
    }

    /// Asks about channels with history.
    pub(super) fn ask(&mut self, all: Vec<Question>, long: bool, paging: Paging, rules: &Rules, ear: &Ear) {
        *(if long { &mut self.reading } else { &mut self.looking }) += 1;
        let mut pipeline = Pipeline::with_capacity(all.len());
        for question in &all {
            pipeline.add_command(paging.command(question, &ear.names, rules, all.len()));
        }
        let mut connection = self.listening.connection.clone();
        let asked = Instant::now();
        self.fly(async move {
            let result = connection.req_packed_commands(&pipeline, 0, all.len()).await;
            Done::Answered(Questions { all, long, asked }, result)
        });
    }
}
