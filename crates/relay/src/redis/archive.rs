//! What is kept of a channel, for whoever asks: `history` and `history_remove`, over pooled connections.
//!
//! Not here: what subscribers missed (`repair`), which is read by the hearing thread.

use std::sync::Arc;

use ::redis::{Cmd, Value};
use tidegate_protocol::ChannelName;

use super::pool::Pool;
use super::script::{HISTORY, seconds};
use super::{log, server};
use crate::names::Names;
use crate::relay::{History, HistoryQuery, RelayError};
use crate::rules::{Retention, Rules};
use crate::track::Page;

/// The largest offset that scripts tell from its neighbours; no channel gets there.
const MOST_OFFSET: u64 = 1 << 53;

pub(super) struct Archive {
    pool: Pool,
    names: Arc<Names>,
    rules: Arc<Rules>,
    most: usize,
}

impl Archive {
    pub(super) fn new(pool: Pool, names: &Arc<Names>, rules: &Arc<Rules>, most: usize) -> Self {
        Self { pool, names: Arc::clone(names), rules: Arc::clone(rules), most }
    }

    /// A part of a channel's history.
    pub(super) async fn history(
        &self,
        channel: &ChannelName,
        query: HistoryQuery,
    ) -> Result<History, RelayError> {
        let Retention { size, ttl } = self.retention(channel)?;
        let kept = usize::try_from(size).unwrap_or(usize::MAX);
        let mut command = HISTORY.evaluate(&self.names.channel(channel));
        command.arg(seconds(ttl)).arg(query.limit.unwrap_or(kept).min(kept));
        command.arg(if query.reverse { "-" } else { "+" });
        if let Some(since) = &query.since {
            command.arg(since.offset.min(MOST_OFFSET));
        }
        let Page { position, entries } = log::page(self.run(command).await?, channel, self.most)?;
        let asked = query.since.and_then(|since| since.epoch);
        if asked.is_some_and(|epoch| epoch != position.epoch) {
            return Err(RelayError::Unrecoverable);
        }
        let publications = entries.into_iter().filter_map(|entry| entry.publication.ok()).collect();
        Ok(History { publications, position })
    }

    /// Forgets what is kept of a channel. Offsets go on; the epoch stays.
    pub(super) async fn remove(&self, channel: &ChannelName) -> Result<(), RelayError> {
        self.retention(channel)?;
        let mut command = ::redis::cmd("DEL");
        command.arg(self.names.log(channel));
        server::answer(&self.run(command).await?)
    }

    fn retention(&self, channel: &ChannelName) -> Result<Retention, RelayError> {
        self.rules.of(channel).retention.ok_or(RelayError::Unavailable)
    }

    async fn run(&self, command: Cmd) -> Result<Value, RelayError> {
        let mut connection = self.pool.get().await.map_err(|error| server::no_connection(&error))?;
        command.query_async(&mut *connection).await.map_err(|error| server::away(&error))
    }
}
