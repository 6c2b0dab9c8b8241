//! Carrying out what a worker's shard asks: most of it goes to the relay.
//!
//! What the relay's queue has no room for now either fails (a join, a publication, a recovery: the client is told and
//! tries again) or waits here, in order (a leave, who is present), for nobody else would make good for it.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Weak;
use std::time::Duration;

use tidegate_hub::{Effect, Found, Question, SessionKey};
use tidegate_protocol::{ErrorCode, Publication};
use tidegate_relay::{History, HistoryQuery, Outgoing, PresenceStats, Recover, Relay, RelayError, Since};

use super::attendance::Change;
use super::worker::Worker;
use crate::join::{Inbound, ticket};

/// How many questions of a worker's clients may be under way; beyond: error 111.
const MAX_QUESTIONS: usize = 256;

/// How long the answer to a question may take; beyond: error 100.
const QUESTION_DEADLINE: Duration = Duration::from_secs(5);

impl Worker {
    /// Carries out what the shard asks, until it asks nothing.
    pub(super) fn effects(&mut self) {
        loop {
            self.shard.take_effects(&mut self.effects);
            if self.effects.is_empty() {
                return;
            }
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.drain(..) {
                self.effect(effect);
            }
            self.effects = effects;
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Join(channel) => {
                // While channels wait to be left, a join could overtake the leave of the same channel.
                let joined =
                    self.leaving.is_empty() && self.common.relay.join(self.id, channel.clone()).is_ok();
                if !joined {
                    self.shard.joined(&channel, Err(ErrorCode::Internal));
                }
            }
            Effect::Leave(channel) => {
                let left =
                    self.leaving.is_empty() && self.common.relay.leave(self.id, channel.clone()).is_ok();
                if !left {
                    self.leaving.push_back(channel);
                }
            }
            Effect::Publish { session, id, channel, data, info, skip_history } => {
                let publication =
                    Publication { channel, data, info: Some(info), tags: Vec::new(), offset: 0 };
                let outgoing = Outgoing { skip_history, ..Outgoing::from(publication) };
                if self.common.relay.submit(outgoing, ticket(self.id, session, id)).is_err() {
                    self.common.metrics.publish_failed(&RelayError::Busy);
                    self.shard.published(session, id, Err(ErrorCode::Internal));
                }
            }
            Effect::Recover { session, id, channel, since } => {
                let recover =
                    Recover { channel: channel.clone(), since, ticket: ticket(self.id, session, id) };
                if self.common.relay.recover(recover).is_err() {
                    self.shard.recovered(session, id, &channel, Err(ErrorCode::Internal));
                }
            }
            Effect::Ask { session, id, question } => self.ask(session, id, question),
            Effect::Consult { session, id, asker, matter } => self.consult(session, id, asker, matter),
            Effect::Enter { channel, info } => self.attend(Change::Enter(channel, info)),
            Effect::Exit { channel, client } => self.attend(Change::Exit(channel, client)),
            Effect::Happened(event) => self.common.relay.happened(*event),
            Effect::Ended { session, reason } => self.ended(session, reason),
        }
    }

    /// Something that the relay said did not reach the inbox: what the shard cannot know of is lost, and what was
    /// too important for that comes now.
    pub(super) fn catch_up_with_relay(&mut self) {
        self.deliver();
        self.shard.missed();
        let late = self.common.late.get(usize::from(self.id.0)).map(|late| late.take());
        for inbound in late.into_iter().flatten() {
            match inbound {
                Inbound::Joined(channel, result) => {
                    self.shard.joined(&channel, result.map(|position| position.map(|it| *it)));
                }
                Inbound::Unjoined(channel) => {
                    self.shard.joined(&channel, Err(ErrorCode::Internal));
                    // The relay hears it, and believes that the shard knows.
                    self.effect(Effect::Leave(channel));
                }
                Inbound::Lost(channel) => self.shard.lost(&channel),
                _ => {}
            }
        }
    }

    /// Hands to the relay what it had no room for.
    pub(super) fn hand_over(&mut self) {
        while let Some(channel) = self.leaving.pop_front() {
            if self.common.relay.leave(self.id, channel.clone()).is_err() {
                self.leaving.push_front(channel);
                break;
            }
        }
        let Self { attendance, common, .. } = self;
        attendance.hand_over(|change| tell(&common.relay, change));
    }

    fn attend(&mut self, change: Change) {
        if !self.attendance.is_empty() || !tell(&self.common.relay, &change) {
            self.attendance.add(change);
        }
    }

    /// Has a question answered beside the worker's turns: it needs no order with anything.
    fn ask(&mut self, session: SessionKey, id: u32, question: Question) {
        if self.questions >= MAX_QUESTIONS {
            self.shard.answered(session, id, Err(ErrorCode::TooManyRequests));
            return;
        }
        self.questions += 1;
        let answer = find(self.common.relay.clone(), question);
        actix_rt::spawn(bring(self.this.clone(), session, id, answer));
    }
}

/// Tells the relay of a change; false if it has no room for it.
fn tell(relay: &Relay, change: &Change) -> bool {
    match change {
        Change::Enter(channel, info) => relay.enter(channel.clone(), info.clone()).is_ok(),
        Change::Exit(channel, client) => relay.exit(channel.clone(), client.clone()).is_ok(),
    }
}

/// Waits for an answer and brings it to the worker.
async fn bring(
    worker: Weak<RefCell<Worker>>,
    session: SessionKey,
    id: u32,
    answer: impl Future<Output = Result<Found, RelayError>>,
) {
    let answer = tokio::time::timeout(QUESTION_DEADLINE, answer).await;
    let answer = answer.unwrap_or_else(|_| Err(RelayError::Away("no answer in time".to_owned())));
    let Some(worker) = worker.upgrade() else { return };
    let mut worker = worker.borrow_mut();
    worker.questions -= 1;
    worker.shard.answered(session, id, answer.map_err(|error| code(&error)));
    worker.settle();
}

async fn find(relay: Relay, question: Question) -> Result<Found, RelayError> {
    match question {
        Question::History { channel, limit, since, reverse } => {
            let since = since.map(|(offset, epoch)| Since { offset, epoch });
            let History { publications, position } =
                relay.history(channel, HistoryQuery { limit, since, reverse }).await?;
            Ok(Found::History { publications, position })
        }
        Question::Presence(channel) => relay.presence(channel).await.map(Found::Presence),
        Question::PresenceStats(channel) => {
            let PresenceStats { clients, users } = relay.presence_stats(channel).await?;
            let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
            Ok(Found::PresenceStats { clients: count(clients), users: count(users) })
        }
    }
}

/// What a client is told of a question that could not be answered.
fn code(error: &RelayError) -> ErrorCode {
    tracing::debug!(%error, "a question could not be answered");
    match error {
        RelayError::Unavailable => ErrorCode::NotAvailable,
        RelayError::Unrecoverable => ErrorCode::UnrecoverablePosition,
        RelayError::Away(_) | RelayError::Refused(_) | RelayError::Busy | RelayError::Settings(_) => {
            ErrorCode::Internal
        }
    }
}
