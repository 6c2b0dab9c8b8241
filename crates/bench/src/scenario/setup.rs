//! What scenarios have in common: whom they aim at, how many connections, and the steps until those stand.

use clap::Args;

use super::delivery::Load;
use super::publisher::Publisher;
use crate::channels::Channels;
use crate::error::Error;
use crate::fleet::{Fleet, Kind};
use crate::process::Server;
use crate::progress::Progress;
use crate::target::{Aim, Target};

/// Options of every scenario with publications.
#[derive(Debug, Clone, Args)]
pub(crate) struct Setup {
    #[command(flatten)]
    pub(crate) aim: Aim,
    #[command(flatten)]
    pub(crate) load: Load,
    /// Connections
    #[arg(long, short = 'n', value_name = "N", default_value_t = 5_000)]
    pub(crate) connections: u32,
    /// What the names of channels are or begin with
    #[arg(long, value_name = "NAME", default_value = crate::channels::NAME)]
    pub(crate) channel: String,
}

/// Connections that stand, and who publishes to them.
pub(crate) struct Standing {
    pub(crate) target: Target,
    /// None if its processes were not named.
    pub(crate) server: Option<Server>,
    pub(crate) fleet: Fleet,
    pub(crate) publisher: Publisher,
}

impl Setup {
    /// How many connections, at least one.
    pub(crate) fn connections(&self) -> u32 {
        self.connections.max(1)
    }

    /// Connects and subscribes everyone, and makes the publisher ready.
    pub(crate) fn stand(
        &self,
        scenario: &str,
        channels: &Channels,
        shown: &mut Progress,
    ) -> Result<Standing, Error> {
        let target = self.aim.resolve()?;
        target.subscribes(scenario)?;
        let server = self.aim.server()?;
        let connections = self.connections();
        shown.phase("connecting");
        let mut fleet = Fleet::start(&target, connections, &Kind::hears(channels))?;
        fleet.connect(connections, self.aim.at_once, shown)?;
        let publisher = Publisher::start(&target, &self.load, channels, connections, shown)?;
        if let Some(server) = &server {
            shown.phase("connected; waiting until the server is calm");
            server.calm()?;
        }
        Ok(Standing { target, server, fleet, publisher })
    }
}

/// Errors: what was typed is no rate.
pub(crate) fn rate(option: &str, rate: Option<f64>) -> Result<(), Error> {
    if rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        return Err(Error::Asked(format!("{option}: write a number a second, above 0")));
    }
    Ok(())
}
