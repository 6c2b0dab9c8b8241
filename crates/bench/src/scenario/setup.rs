//! What scenarios have in common: whom they aim at, how many connections, and the steps until those stand.

use clap::Args;

use super::delivery::Load;
use super::publisher::Publisher;
use crate::channels::Channels;
use crate::error::Error;
use crate::fleet::{Fleet, Kind};
use crate::process::Server;
use crate::progress::Progress;
use crate::target::{Aim, Protocol, Target};

/// Options of every scenario with publications.
#[derive(Debug, Clone, Args)]
pub(crate) struct Setup {
    #[command(flatten)]
    pub(crate) aim: Aim,
    #[command(flatten)]
    pub(crate) load: Load,
    /// Connections; each scenario has its own default
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) connections: Option<u32>,
    /// What the names of channels are or begin with
    #[arg(long, value_name = "NAME", default_value = crate::channels::NAME)]
    pub(crate) channel: String,
}

/// Connections that stand.
pub(crate) struct Standing {
    pub(crate) target: Target,
    /// None if its processes were not named.
    pub(crate) server: Option<Server>,
    pub(crate) connections: u32,
    pub(crate) fleet: Fleet,
}

impl Setup {
    /// How many connections, at least one.
    pub(crate) fn connections(&self, default: u32) -> u32 {
        self.connections.unwrap_or(default).max(1)
    }

    /// Connects and subscribes so many.
    pub(crate) fn stand(
        &self,
        scenario: &str,
        channels: &Channels,
        connections: u32,
        shown: &mut Progress,
    ) -> Result<Standing, Error> {
        let target = self.aim.resolve()?;
        target.subscribes(scenario)?;
        let from_here = self.load.api.api.is_some() || self.load.redis.redis.is_some();
        if target.protocol == Protocol::Pusher && channels.count(connections) > 1 && !from_here {
            // A client event goes only to a channel that its sender is in.
            let why = "--protocol pusher: only --api or --redis can publish to several channels";
            return Err(Error::Asked(why.into()));
        }
        let server = self.aim.server()?;
        shown.phase("connecting");
        let mut fleet = Fleet::start(&target, connections, &Kind::hears(channels))?;
        fleet.connect(connections, self.aim.at_once, shown)?;
        Ok(Standing { target, server, connections, fleet })
    }
}

impl Standing {
    /// Makes ready who publishes to them, and waits until the server is calm.
    pub(crate) fn publisher(
        &self,
        setup: &Setup,
        channels: &Channels,
        shown: &mut Progress,
    ) -> Result<Publisher, Error> {
        let publisher = Publisher::start(&self.target, &setup.load, channels, self.connections, shown)?;
        self.calm(shown)?;
        Ok(publisher)
    }

    /// Waits until the server is calm.
    pub(crate) fn calm(&self, shown: &mut Progress) -> Result<(), Error> {
        if let Some(server) = &self.server {
            shown.phase("connected; waiting until the server is calm");
            server.calm()?;
        }
        Ok(())
    }
}

/// Errors: what was typed is no rate.
pub(crate) fn rate(option: &str, rate: Option<f64>) -> Result<(), Error> {
    if rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        return Err(Error::Asked(format!("{option}: write a number a second, above 0")));
    }
    Ok(())
}
