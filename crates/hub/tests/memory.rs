//! What a session costs: every byte of heap that a shard holds, counted by the allocator.
//!
//! One test alone in its process, since the allocator counts for all threads.

#![expect(clippy::print_stdout, reason = "the figures are worth reading when the test is run by hand")]

use std::alloc::System;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tidegate_hub::{
    Authenticator, Backends, Broadcast, Effect, Identity, Namespace, Opening, Policy, Refusal, Right,
    SessionKey, Shard, Tick,
};
use tidegate_protocol::command::Connect;
use tidegate_protocol::{ChannelName, Codec, EventKinds, Publication};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SESSIONS: usize = 10_000;

struct ByToken;

impl Authenticator for ByToken {
    fn authenticate(&self, connect: &Connect<'_>) -> Result<Identity, Refusal> {
        Ok(Identity { user: connect.token.clone().into_owned() })
    }
}

fn policy() -> Policy {
    Policy {
        namespaces: HashMap::new(),
        any_namespace: Some(Namespace::plain(Right::Anyone, Right::Anyone)),
        backends: Backends::default(),
        max_subscriptions: 128,
        outbox_max_bytes: 1024 * 1024,
        connect_timeout: 40,
        ping_interval: 100,
        pong_timeout: 32,
        ping_seconds: 25,
        events: EventKinds::default(),
        version: "1.2.3".to_owned(),
    }
}

/// Bytes of heap that were taken since the region began and not given back.
fn held(region: &Region<'_, System>) -> usize {
    let stats = region.change();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

/// Reads what waits, answers joins. Gives its own memory back.
fn turn(shard: &mut Shard) {
    let mut effects = Vec::new();
    while {
        shard.take_effects(&mut effects);
        !effects.is_empty()
    } {
        for effect in effects.drain(..) {
            match effect {
                Effect::Join(channel) => shard.joined(&channel, Ok(None)),
                other => panic!("{other:?}"),
            }
        }
    }
    let mut dirty = Vec::new();
    shard.take_dirty(&mut dirty);
    for session in dirty {
        if let Some(outbox) = shard.outbox(session) {
            outbox.advance(outbox.bytes());
        }
    }
}

/// Sessions with a user and a channel each as given, idle.
fn fill(
    shard: &mut Shard,
    user: impl Fn(usize) -> String,
    channel: impl Fn(usize) -> String,
) -> Vec<SessionKey> {
    let mut message = String::new();
    (0..SESSIONS)
        .map(|number| {
            let session = shard.open(Opening { codec: Codec::Json, native_ping: false }, Tick(0));
            message.clear();
            write!(
                message,
                "{{\"id\":1,\"connect\":{{\"token\":\"{}\"}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{}\"}}}}",
                user(number),
                channel(number)
            )
            .expect("text");
            shard.message(session, true, message.as_bytes(), &ByToken, Tick(0));
            turn(shard);
            session
        })
        .collect()
}

fn deliver(shard: &mut Shard, channel: &str) {
    let publication = Publication {
        channel: ChannelName::parse(channel).expect("a name"),
        data: Bytes::from_static(b"{\"text\":\"hello\"}"),
        info: None,
        tags: Vec::new(),
        offset: 0,
    };
    shard.deliver(&[Arc::new(Broadcast::new(publication))]);
}

#[test]
fn an_idle_session_costs_a_few_hundred_bytes_and_a_burst_leaves_nothing_behind() {
    let policy = Arc::new(policy());

    let region = Region::new(ALLOCATOR);
    let mut shard = Shard::new(Arc::clone(&policy));
    let sessions = fill(&mut shard, |_| String::new(), |_| "news".to_owned());
    assert_eq!(shard.subscription_count(), SESSIONS);
    let keys = sessions.capacity() * size_of::<SessionKey>();
    let anonymous = held(&region) - keys;
    println!("anonymous, one channel for all: {} bytes a session", anonymous / SESSIONS);
    assert!(anonymous <= 200 * SESSIONS, "{anonymous}");

    for _ in 0..20 {
        deliver(&mut shard, "news");
    }
    let burst = held(&region) - keys;
    println!("with 20 publications waiting: {} bytes a session", burst / SESSIONS);
    turn(&mut shard);
    let after = held(&region) - keys;
    println!("after the burst: {} bytes a session", after / SESSIONS);
    assert!(after <= anonymous + anonymous / 10, "{after} after {anonymous}");
    drop(shard);
    drop(sessions);

    let region = Region::new(ALLOCATOR);
    let mut shard = Shard::new(policy);
    let sessions =
        fill(&mut shard, |number| format!("user-{number:08}"), |number| format!("inbox:user-{number:08}"));
    let own = held(&region) - sessions.capacity() * size_of::<SessionKey>();
    println!("a user and a channel each: {} bytes a session", own / SESSIONS);
    assert!(own <= 400 * SESSIONS, "{own}");

    for session in sessions {
        shard.remove(session);
    }
    let mut effects = Vec::new();
    shard.take_effects(&mut effects);
    assert_eq!(effects.len(), SESSIONS, "every channel is left");
    assert_eq!((shard.subscription_count(), shard.outbox_bytes()), (0, 0));
}
