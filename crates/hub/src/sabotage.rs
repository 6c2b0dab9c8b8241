//! A way to break the delivery promise on purpose, so that the delivery checker can be seen to find it. Only with the
//! feature `sabotage`, which no release has.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use tidegate_protocol::reply::SubscribeResult;
use tidegate_protocol::{ChannelName, Position, Reply};

use crate::recovery::Recovered;
use crate::shard::Shard;

static WITHHOLDS: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Replies that wait for a push to come before them; one shard a thread.
    static WITHHELD: RefCell<Vec<Withheld>> = const { RefCell::new(Vec::new()) };
}

struct Withheld {
    session: u32,
    id: u32,
    channel: u32,
    since: Position,
    recovered: Recovered,
}

/// From now on who recovers is answered behind the next push.
pub fn withhold_replies() {
    WITHHOLDS.store(true, Ordering::Relaxed);
}

impl Shard {
    /// Makes the session a member and keeps its answer back. `false`: nothing is sabotaged.
    pub(crate) fn withhold(
        &mut self,
        (session, id): (u32, u32),
        (channel, name): (u32, &ChannelName),
        since: &Position,
        recovered: &Recovered,
    ) -> bool {
        if !WITHHOLDS.load(Ordering::Relaxed) {
            return false;
        }
        let (since, recovered) = (since.clone(), recovered.clone());
        WITHHELD.with_borrow_mut(|all| all.push(Withheld { session, id, channel, since, recovered }));
        self.stand(session, channel, name);
        true
    }

    /// Sends the answers that waited for a push in the channel.
    pub(crate) fn give_withheld(&mut self, channel: u32) {
        let due: Vec<Withheld> =
            WITHHELD.with_borrow_mut(|all| all.extract_if(.., |one| one.channel == channel).collect());
        for Withheld { session, id, since, recovered, .. } in due {
            let publications = recovered.publications.as_deref().unwrap_or_default();
            let result = SubscribeResult {
                position: Some(&since),
                recoverable: true,
                was_recovering: true,
                recovered: recovered.publications.is_some(),
                publications,
                ..SubscribeResult::default()
            };
            self.send_reply(session, id, &Reply::Subscribe(result));
        }
    }
}
