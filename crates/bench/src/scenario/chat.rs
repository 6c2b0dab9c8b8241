//! Rooms in which everyone publishes: many channels, a few dozen subscribers each, commands from all connections.

use clap::Args;
use serde::Serialize;

use super::Rows;
use super::delivery::{Delivery, summed};
use super::publisher::PATIENCE_MS;
use super::setup::{self, Setup};
use crate::channels::{Channels, Dealt};
use crate::error::Error;
use crate::process::Server;
use crate::progress::Progress;
use crate::target::Protocol;
use crate::wire::{Chat, Order, Report};

/// Options.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// Connections in a room
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) room: u32,
    /// Publications a second that each connection makes
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.1)]
    pub(crate) rate: f64,
    /// Publications that each connection makes
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) each: u32,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    scenario: &'static str,
    target: String,
    connections: u32,
    rooms: u32,
    /// Connections in a room.
    room: u32,
    /// Publications a second of each connection.
    rate: f64,
    /// Bytes of each one's data.
    size: usize,
    pub(crate) delivery: Delivery,
}

/// Runs it.
pub(crate) fn run(options: &Options, shown: &mut Progress) -> Result<Outcome, Error> {
    setup::rate("--rate", Some(options.rate))?;
    let setup = &options.setup;
    if setup.aim.protocol == Protocol::Pusher {
        // It sends a client event to all but its sender, so no two would miss the same.
        return Err(Error::Asked("--protocol pusher: chat needs Centrifuge".into()));
    }
    let room = options.room.max(1);
    // Whole rooms, so that all get equally many.
    let rooms = setup.connections(5_000).div_ceil(room);
    let channels = Channels::rooms(&setup.channel, room);
    let mut held = setup.stand("chat", &channels, rooms * room, shown)?;
    held.calm(shown)?;
    shown.phase("chatting");
    held.fleet.ask(&Order::Begin { run: 1 }, |_| ())?;
    let before = held.server.as_ref().map(Server::times).transpose()?;
    let size = setup.load.size();
    let chat = Order::Chat(Chat { run: 1, each: options.each, rate: options.rate, room, size });
    let mut published: u32 = 0;
    for report in held.fleet.ask(&chat, |fleet| shown.say(&format!("delivered: {}", fleet.delivered())))? {
        match report {
            Report::Published { refused: Some(why), .. } => return Err(Error::Refused(why)),
            Report::Published { count, .. } => published = published.saturating_add(count),
            _ => {}
        }
    }
    let dealt = Dealt { published, channels: rooms };
    let reports = held.fleet.ask(&Order::Finish { dealt, patience_ms: PATIENCE_MS }, |_| ())?;
    let cpu = match (&held.server, before) {
        (Some(server), Some(before)) => Some(server.times()? - before),
        _ => None,
    };
    Ok(Outcome {
        scenario: "chat",
        target: held.target.url(),
        connections: held.connections,
        rooms,
        room,
        rate: options.rate,
        size,
        delivery: summed(published, reports, cpu),
    })
}

impl Rows for Outcome {
    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = vec![
            ("target".into(), self.target.clone()),
            ("connections".into(), format!("{} in {} rooms of {}", self.connections, self.rooms, self.room)),
            (
                "publications".into(),
                format!("{} of {} B, {} a second by each", self.delivery.publications, self.size, self.rate),
            ),
        ];
        rows.extend(self.delivery.rows());
        rows
    }
}
