//! Channels with history: what the answers to questions about their positions and logs lead to.
//!
//! Everything here runs on the hearing thread, between two reads of the pub/sub connection. The questions go out on that
//! same connection: Redis sends what was published before it answered before the answer, so what is heard after the answer
//! follows what the answer said, but for what the driver has taken meanwhile, which the track holds.
//!
//! Not here: the connection (`hear`), the commands (`log`), the bookkeeping (`crate::track`, `crate::recovery`).

use std::sync::Arc;
use std::time::Instant;

use tidegate_protocol::{ChannelName, Position, Publication};

use super::router::Ear;
use crate::interest::{Ask, Interest, Question};
use crate::relay::{Recover, RelayError};
use crate::sink::{Delivery, Observation, Said};
use crate::track::{Entry, Live, Page};

/// How many publications are handed over together at most.
const MOST_TOGETHER: usize = 512;

impl Ear {
    /// A publication with an offset was heard in a channel with history. Gives back what is to be passed on now.
    pub(super) fn heard_live(&self, live: Live) -> Option<Publication> {
        let channel = &live.publication.channel.clone();
        let mut interest = self.interest();
        let (track, _) = interest.track(channel.as_str())?;
        let heard = track.hear(live);
        if let Some(publication) = &heard {
            if track.kept {
                track.kept = self.recoveries().heard(channel, publication);
            }
        } else if track.is_behind() && !track.is_asked() {
            self.ask_for_log(&mut interest, channel);
            self.wake.notify_one();
        }
        heard
    }

    /// Something was heard that cannot be passed on: the log says what it was.
    pub(super) fn doubt(&self, channel: &ChannelName) {
        let mut interest = self.interest();
        let Some((track, _)) = interest.track(channel.as_str()) else { return };
        track.doubt();
        if track.is_behind() && !track.is_asked() {
            self.ask_for_log(&mut interest, channel);
            self.wake.notify_one();
        }
    }

    /// A recovery is asked for while the connection stands.
    pub(super) fn recover(&self, recover: Recover) {
        let (channel, ticket) = (recover.channel.clone(), recover.ticket);
        let refuse = |error| self.sink.recovered(ticket, &channel, Err(error));
        let mut interest = self.interest();
        if !interest.is_member(ticket.worker, &channel) {
            drop(interest);
            return refuse(RelayError::Away("the channel is not heard: it must be joined first".into()));
        }
        let Some((track, _)) = interest.track(channel.as_str()) else {
            drop(interest);
            return refuse(RelayError::Unavailable);
        };
        let level = track.is_level();
        drop(interest);
        if !self.recoveries().wait(recover) {
            return refuse(RelayError::Busy);
        }
        if level {
            self.answer_recoveries(&channel);
            self.ask_for_rest(&channel);
        }
    }

    /// Answers whoever can be answered by what is known.
    fn answer_recoveries(&self, channel: &ChannelName) {
        let mut interest = self.interest();
        let Some((track, joined)) = interest.track(channel.as_str()) else { return };
        let Some(position) = track.position().cloned() else { return };
        drop(interest);
        let answers = self.recoveries().answer(channel, &position);
        for (ticket, recovered) in answers {
            let result = if joined.contains(ticket.worker) {
                Ok(recovered)
            } else {
                Err(RelayError::Away("the worker does not hear the channel any more".into()))
            };
            self.sink.recovered(ticket, channel, result);
        }
    }

    /// Asks for the log where the channel is behind, or a recovery waits for it.
    fn ask_for_rest(&self, channel: &ChannelName) {
        let mut interest = self.interest();
        let Some((track, _)) = interest.track(channel.as_str()) else { return };
        let Some(position) = track.position() else { return };
        if !track.is_asked() && (track.is_behind() || self.recoveries().wanted(channel, position).is_some()) {
            self.ask_for_log(&mut interest, channel);
        }
    }

    /// Asks for the log behind what was passed on, or behind what a recovery wants, if that is more.
    fn ask_for_log(&self, interest: &mut Interest, channel: &ChannelName) {
        let Some((track, _)) = interest.track(channel.as_str()) else { return };
        let Some(position) = track.position().cloned() else { return interest.ask(channel, Ask::Position) };
        let mut recoveries = self.recoveries();
        let offset = recoveries.wanted(channel, &position).unwrap_or(position.offset);
        if offset < position.offset {
            recoveries.begin(channel, offset);
            track.kept = true;
        }
        recoveries.asked(channel.as_str());
        let offset = track.to_verify().map_or(offset, |verified| offset.min(verified.offset));
        interest.ask(channel, Ask::Log(Position { offset, epoch: position.epoch }));
    }

    /// A question is answered.
    pub(super) fn answered(&self, question: Question, page: Page) {
        let Question { channel, number, ask, known } = question;
        let mut interest = self.interest();
        let Some((track, _)) = interest.track(channel.as_str()) else {
            drop(interest);
            return self.refuse_recoveries(&channel, "the channel was given up");
        };
        if !track.expects(number) {
            return;
        }
        track.answered();
        let Some(position) = track.position().cloned() else {
            track.place(page.position);
            drop(interest);
            return self.caught_up(&channel);
        };
        let lost = position.epoch != page.position.epoch;
        if lost || page.position.offset < known {
            // Redis knows less than was passed on: it has lost writes, and must not count them a second time.
            if !lost {
                interest.ask(&channel, Ask::Renew(position.epoch));
                return;
            }
            drop(interest);
            return self.lose(&channel, page.position);
        }
        match ask {
            Ask::Log(since) => {
                drop(interest);
                self.continues(&channel, since, page);
            }
            Ask::Position | Ask::Renew(_) if page.position.offset > position.offset => {
                self.ask_for_log(&mut interest, &channel);
            }
            Ask::Position | Ask::Renew(_) => {
                drop(interest);
                self.caught_up(&channel);
            }
        }
    }

    /// A question was not understood, and is asked again.
    pub(super) fn ask_again(&self, question: Question) {
        let mut interest = self.interest();
        let Some((track, _)) = interest.track(question.channel.as_str()) else { return };
        if track.expects(question.number) {
            track.answered();
            interest.ask(&question.channel, question.ask);
        }
    }

    /// The log's entries behind `since`, of the epoch that is known.
    fn continues(&self, channel: &ChannelName, since: Position, page: Page) {
        let Page { position: end, entries } = page;
        let (mut batch, mut repaired, mut last) = (Vec::new(), 0, since.offset);
        let nothing = entries.is_empty();
        for entry in entries {
            let mut interest = self.interest();
            let Some((track, workers)) = interest.track(channel.as_str()) else { return };
            if track.contradicts(&entry) {
                // Writes were lost, and as many or more made since. Nobody knows which the others have seen.
                interest.ask(channel, Ask::Renew(since.epoch));
                return;
            }
            let missed = track.take(&entry);
            let Entry { offset, publication } = entry;
            let mut recoveries = self.recoveries();
            if offset != last + 1 {
                recoveries.trimmed(channel, offset.saturating_sub(1));
            }
            last = offset;
            if !missed && track.position().is_some_and(|position| position.offset < offset) {
                drop((recoveries, interest));
                self.pass_on(&mut batch);
                return self.lose(channel, end);
            }
            match publication {
                Ok(publication) => {
                    #[cfg(feature = "sabotage")]
                    let missed = missed && !crate::sabotage::drops_repairs();
                    if missed && !workers.is_empty() {
                        repaired += 1;
                        batch.push(Delivery { workers, said: Said::Publication(publication.clone()) });
                    }
                    recoveries.read(channel, Arc::new(publication), missed);
                    drop((recoveries, interest));
                    if batch.len() >= MOST_TOGETHER {
                        self.pass_on(&mut batch);
                    }
                }
                Err(reason) => {
                    drop((recoveries, interest));
                    self.refuse(reason, channel.as_str(), b"an entry of the log");
                }
            }
        }
        self.pass_on(&mut batch);
        if repaired > 0 {
            self.sink.observe(Observation::Repaired(repaired));
        }
        if last >= end.offset {
            return self.caught_up(channel);
        }
        let mut interest = self.interest();
        let Some((track, _)) = interest.track(channel.as_str()) else { return };
        if !nothing {
            return interest.ask(channel, Ask::Log(Position { offset: last, epoch: since.epoch }));
        }
        // Trimmed, expired or removed.
        let missed = track.position().is_some_and(|position| position.offset < end.offset);
        drop(interest);
        if missed {
            return self.lose(channel, end);
        }
        self.recoveries().trimmed(channel, end.offset);
        self.caught_up(channel);
    }

    /// Everything up to the position is passed on: joins and recoveries are answered by it, then what was held follows.
    fn caught_up(&self, channel: &ChannelName) {
        let mut interest = self.interest();
        let told = interest.placed(channel);
        let Some((track, _)) = interest.track(channel.as_str()) else { return };
        let position = track.position().cloned();
        drop(interest);
        told.iter().for_each(|worker| self.sink.joined(worker, channel, Ok(position.clone())));
        self.recoveries().complete(channel, Instant::now());
        self.answer_recoveries(channel);

        let mut interest = self.interest();
        let Some((track, workers)) = interest.track(channel.as_str()) else { return };
        let held = track.caught_up();
        for publication in &held {
            if track.kept {
                track.kept = self.recoveries().heard(channel, publication);
            }
        }
        drop(interest);
        if !workers.is_empty() {
            let mut batch: Vec<_> = held
                .into_iter()
                .map(|publication| Delivery { workers, said: Said::Publication(publication) })
                .collect();
            self.pass_on(&mut batch);
        }
        self.ask_for_rest(channel);
    }

    /// Whoever hears the channel has missed something for good. Who comes now begins at the position.
    fn lose(&self, channel: &ChannelName, position: Position) {
        let mut interest = self.interest();
        let joined = interest.lost(channel, Instant::now());
        if let Some((track, _)) = interest.track(channel.as_str()) {
            track.place(position);
            track.kept = false;
        }
        drop(interest);
        let tickets = {
            let mut recoveries = self.recoveries();
            recoveries.forget(channel);
            recoveries.give_up_of(channel, joined)
        };
        for ticket in tickets {
            let error = RelayError::Away("the channel's history is another one by now".into());
            self.sink.recovered(ticket, channel, Err(error));
        }
        joined.iter().for_each(|worker| self.sink.lost(worker, channel));
        if !joined.is_empty() {
            tracing::info!(%channel, "a history was lost or trimmed too far: its subscribers are told");
            self.sink.observe(Observation::Missed { channels: 1 });
        }
        self.caught_up(channel);
    }

    /// Nobody's recovery of the channel can be answered.
    pub(super) fn refuse_recoveries(&self, channel: &ChannelName, why: &str) {
        let tickets = self.recoveries().give_up(channel);
        for ticket in tickets {
            self.sink.recovered(ticket, channel, Err(RelayError::Away(why.to_owned())));
        }
    }

    fn pass_on(&self, batch: &mut Vec<Delivery>) {
        if !batch.is_empty() {
            self.sink.deliver(batch, Instant::now());
            batch.clear();
        }
    }
}
