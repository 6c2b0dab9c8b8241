//! The streams in Redis that are no channel's: durable ingest and events.
//!
//! Not here: what they are for (`tidegate-relay`).

use std::time::Duration;

use tidegate_relay::IngestSettings;

use super::reader::Reader;
use super::value::{duration, flag, number};

const SECOND: Duration = Duration::from_secs(1);
/// Redis remembers an idempotency key for five minutes: whoever takes over later than that may publish once more.
const LATEST_CLAIM: Duration = Duration::from_secs(180);

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
