//! Questions of a worker's sessions to backends: each is a task of the worker's runtime, and what came of it goes to the
//! shard.
//!
//! Publications of one session to one channel are asked one after the other, because their order counts. Not here: how a
//! backend is asked and how many may ask at once (`proxy`), and what a decision leads to (the hub).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use ahash::RandomState;
use tidegate_hub::{Asker, Decision, Matter, SessionKey};
use tidegate_protocol::{ChannelName, ErrorCode};

use super::session::Phase;
use super::worker::Worker;
use crate::proxy::{Caller, Kind, Proxy, Question};

/// How many publications of one session to one channel wait for the one that is asked; beyond: error 111.
const MAX_SPEAKING: usize = 32;

/// How many publications wait so in all; beyond: error 111.
const MAX_BEHIND: usize = 1024;

/// Room for how many channels in which somebody speaks is kept between bursts.
const KEPT: usize = 256;

/// A worker's way to the backends, and who waits for whom on it.
pub(super) struct Consulting {
    caller: Rc<Caller>,
    /// Whose publication to which channel is asked, and those that wait behind it.
    speaking: HashMap<(SessionKey, ChannelName), VecDeque<Inquiry>, RandomState>,
    /// How many wait so in all.
    behind: usize,
}

/// A question of a session.
struct Inquiry {
    session: SessionKey,
    id: u32,
    asker: Asker,
    matter: Matter,
}

impl Consulting {
    pub(super) fn new(proxy: &Arc<Proxy>) -> Self {
        let caller = Rc::new(Caller::new(Arc::clone(proxy)));
        Self { caller, speaking: HashMap::default(), behind: 0 }
    }
}

impl Worker {
    /// The shard asks for a decision.
    pub(super) fn consult(&mut self, session: SessionKey, id: u32, asker: Asker, matter: Matter) {
        let inquiry = Inquiry { session, id, asker, matter };
        if let Matter::Publish { channel, .. } = &inquiry.matter {
            let Consulting { speaking, behind, .. } = &mut self.consulting;
            match speaking.entry((session, channel.clone())) {
                Entry::Occupied(mut waiting)
                    if waiting.get().len() < MAX_SPEAKING && *behind < MAX_BEHIND =>
                {
                    waiting.get_mut().push_back(inquiry);
                    *behind += 1;
                    return;
                }
                Entry::Occupied(_) => {
                    self.decided(inquiry, Decision::Failed(ErrorCode::TooManyRequests));
                    return;
                }
                Entry::Vacant(nobody) => {
                    nobody.insert(VecDeque::new());
                }
            }
        }
        self.inquire(inquiry);
    }

    /// Asks the backend that decides about it, if one does.
    fn inquire(&mut self, inquiry: Inquiry) {
        let kept = self.session(inquiry.session).and_then(|session| session.kept.clone());
        let (kind, method, namespace) = match &inquiry.matter {
            Matter::Connect { .. } => (Kind::Connect, "", ""),
            Matter::Rpc { method, .. } => (Kind::Rpc, method.as_str(), ""),
            Matter::Subscribe { channel, .. } => (Kind::Subscribe, "", channel.namespace()),
            Matter::Publish { channel, .. } => (Kind::Publish, "", channel.namespace()),
        };
        let Some(endpoint) = self.common.proxy.route(kind, method, namespace) else {
            // Settings give every other kind that is asked a backend.
            self.decided(inquiry, Decision::Failed(ErrorCode::MethodNotFound));
            return;
        };
        let question = question(&inquiry.asker, &inquiry.matter);
        let caller = Rc::clone(&self.consulting.caller);
        let worker = Weak::clone(&self.this);
        actix_rt::spawn(async move {
            let codec = inquiry.asker.codec;
            let answer = caller.ask(endpoint, kind, codec, &question, &kept).await;
            let decision = answer.unwrap_or_else(|failure| Decision::Failed(failure.code()));
            if let Some(worker) = worker.upgrade() {
                let mut worker = worker.borrow_mut();
                worker.tick();
                worker.come_to(inquiry, decision);
                worker.settle();
            }
        });
    }

    /// A backend's decision, or that there is none: tells the shard, then asks what waited for it.
    fn come_to(&mut self, inquiry: Inquiry, decision: Decision) {
        let spoken = match &inquiry.matter {
            Matter::Publish { channel, .. } => Some((inquiry.session, channel.clone())),
            _ => None,
        };
        self.decided(inquiry, decision);
        let Some(spoken) = spoken else { return };
        let speaks = self.session(spoken.0).is_some_and(|session| session.phase == Phase::Open);
        let Consulting { speaking, behind, .. } = &mut self.consulting;
        let Entry::Occupied(mut waiting) = speaking.entry(spoken) else { return };
        match waiting.get_mut().pop_front() {
            Some(next) if speaks => {
                *behind -= 1;
                self.inquire(next);
            }
            // Nobody waits, or nobody is there to be told.
            next => {
                *behind -= waiting.remove().len() + usize::from(next.is_some());
                speaking.shrink_to(KEPT);
            }
        }
    }

    fn decided(&mut self, inquiry: Inquiry, decision: Decision) {
        let Inquiry { session, id, matter, .. } = inquiry;
        if let Decision::Disconnect(close) = &decision {
            tracing::debug!(code = close.code(), reason = close.reason(), "a backend ends a connection");
        }
        self.shard.decided(session, id, matter, decision, &self.auth, self.now);
    }
}

/// The question as a backend reads it.
fn question(asker: &Asker, matter: &Matter) -> Question {
    let question = Question { client: asker.client.clone(), user: asker.user.clone(), ..Question::default() };
    match matter.clone() {
        Matter::Connect { token, name, version, data } => Question { token, name, version, data, ..question },
        Matter::Subscribe { channel, token, data } => {
            Question { channel: channel.as_str().to_owned(), token, data, ..question }
        }
        Matter::Publish { channel, data } => {
            Question { channel: channel.as_str().to_owned(), data, ..question }
        }
        Matter::Rpc { method, data } => Question { method, data, ..question },
    }
}
