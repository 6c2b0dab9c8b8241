//! Sentinel: which server is the master now.
//!
//! All sentinels are asked at once. Each knows the master as of some configuration epoch, and the highest epoch is the
//! truth, as it is among sentinels; the answer is taken when a majority has spoken, or after a deadline from those who
//! have. Who was cut off from the others and still names the old master does not count for more than it knows.
//!
//! Not here: whether the named server agrees (`server` asks for its role), and what follows a failover (`hear`).

use std::collections::HashMap;
use std::time::Duration;

use ::redis::{AsyncConnectionConfig, Client, ConnectionInfo};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::access::{Access, Credentials, refuse};
use super::slots::Place;
use crate::relay::RelayError;
use crate::settings::SentinelSettings;

/// How often one sentinel is asked whether the master is still the same.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The sentinels of one master.
pub(super) struct Sentinels {
    master: String,
    nodes: Vec<Client>,
    /// How long one may take to answer, connecting included.
    patience: Duration,
}

/// What one sentinel knows.
struct Word {
    epoch: u64,
    place: Place,
}

impl Sentinels {
    /// `timeout` is that of commands: the master must be found and reached within it.
    pub(super) fn new(
        settings: &SentinelSettings,
        access: &Access,
        timeout: Duration,
    ) -> Result<Self, RelayError> {
        if settings.nodes.is_empty() {
            return Err(refuse("sentinel.nodes", "names no sentinel".to_owned()));
        }
        let credentials =
            Credentials { username: settings.username.as_ref(), password: settings.password.as_ref() };
        let client = |url: &String| {
            let info: ConnectionInfo = access.to("sentinel.nodes", url, credentials)?;
            Client::open(info).map_err(|error| refuse("sentinel.nodes", error.to_string()))
        };
        let nodes = settings.nodes.iter().map(client).collect::<Result<_, _>>()?;
        Ok(Self { master: settings.master.clone(), nodes, patience: timeout / 2 })
    }

    /// What the master is called.
    pub(super) fn name(&self) -> &str {
        &self.master
    }

    /// Where the master is, by those sentinels that answer.
    pub(super) async fn find(&self) -> Result<Place, RelayError> {
        let mut asked: FuturesUnordered<_> = self.nodes.iter().map(|node| self.ask(node)).collect();
        let mut best: Option<Word> = None;
        let (mut answers, mut last_error) = (0, String::new());
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(word) => {
                    answers += 1;
                    if best.as_ref().is_none_or(|best| best.epoch < word.epoch) {
                        best = Some(word);
                    }
                    if answers > self.nodes.len() / 2 {
                        break;
                    }
                }
                Err(error) => last_error = error,
            }
        }
        let nobody = || {
            RelayError::Away(format!("no sentinel says where the master {:?} is: {last_error}", self.master))
        };
        best.map(|word| word.place).ok_or_else(nobody)
    }

    /// Returns when the sentinels name another master than this. One is asked at a time; what it says counts once the
    /// others have been heard.
    pub(super) async fn leave(&self, known: &Place) {
        loop {
            tokio::time::sleep(LOOK_EVERY.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            let Some(node) = self.nodes.get(fastrand::usize(..self.nodes.len())) else { return };
            if self.ask(node).await.is_ok_and(|word| word.place != *known)
                && self.find().await.is_ok_and(|place| place != *known)
            {
                return;
            }
        }
    }

    async fn ask(&self, node: &Client) -> Result<Word, String> {
        let answer = async {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(self.patience))
                .set_response_timeout(Some(self.patience));
            let mut connection = node.get_multiplexed_async_connection_with_config(&config).await?;
            ::redis::cmd("SENTINEL")
                .arg("MASTER")
                .arg(&self.master)
                .query_async::<HashMap<String, String>>(&mut connection)
                .await
        };
        let at = node.get_connection_info().addr();
        let fields = match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(fields)) => fields,
            Ok(Err(error)) => return Err(format!("{at}: {error}")),
            Err(_) => return Err(format!("{at}: no answer within {:?}", self.patience)),
        };
        let number = |field: &str| fields.get(field)?.parse::<u64>().ok();
        let word = || {
            let host = fields.get("ip").filter(|host| !host.is_empty())?.clone();
            let port = u16::try_from(number("port")?).ok()?;
            Some(Word { epoch: number("config-epoch")?, place: Place { host, port } })
        };
        word().ok_or_else(|| format!("{at}: an answer without ip, port or config-epoch"))
    }
}
