//! The streams in Redis that are no channel's: durable ingest and events.
//!
//! Not here: what they are for (`tidegate-relay`).

use std::time::Duration;

use tidegate_protocol::{EventKind, EventKinds};
use tidegate_relay::IngestSettings;

use super::reader::Reader;
use super::value::{duration, flag, number, one_of};

const SECOND: Duration = Duration::from_secs(1);
/// Redis remembers an idempotency key for five minutes: whoever takes over later than that may publish once more.
const LATEST_CLAIM: Duration = Duration::from_secs(180);

/// The most events that can be asked to be kept: some tens of gigabytes.
const MAX_EVENTS: usize = 100_000_000;

/// A batch is one read, and at most half of what may be on its way to Redis.
const MAX_BATCH: usize = 512;

/// How the node takes part in durable ingest; `None`: it does not.
pub(super) fn ingest(
    reader: &mut Reader<'_>,
    is_redis: bool,
    command_timeout: Duration,
) -> Option<IngestSettings> {
    let enabled = reader.auto("relay.redis.ingest.enabled", flag);
    if enabled == Some(true) && !is_redis {
        reader.problem(
            "relay.redis.ingest.enabled",
            "needs relay.kind: redis, as the stream is in Redis: set that, or leave this at auto",
        );
    }
    let ingest = IngestSettings {
        claim_after: reader.take("relay.redis.ingest.claim_after", duration(SECOND..=LATEST_CLAIM)),
        batch: reader.take("relay.redis.ingest.batch", number(1..=MAX_BATCH)),
    };
    let enabled = enabled.unwrap_or(is_redis);
    if enabled && is_redis && ingest.claim_after < 4 * command_timeout {
        reader.warnings.push(format!(
            "relay.redis.ingest.claim_after ({:?}) is less than four times relay.redis.command_timeout ({:?}): another \
             node may publish what this one is still publishing",
            ingest.claim_after, command_timeout
        ));
    }
    enabled.then_some(ingest)
}

/// Which events are written, and about how many of them are kept.
pub(super) fn events(reader: &mut Reader<'_>, is_redis: bool) -> (EventKinds, usize) {
    let known = EventKind::ALL.map(|kind| (kind.label(), kind));
    let kinds: EventKinds = reader.list("events.kinds", one_of(&known)).into_iter().collect();
    if !kinds.is_empty() && !is_redis {
        reader.problem(
            "events.kinds",
            "needs relay.kind: redis, as events go into a stream there: set that, or take this out",
        );
    }
    (kinds, reader.take("events.max_len", number(1..=MAX_EVENTS)))
}
