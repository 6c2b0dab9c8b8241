//! Who publishes in a run: a connection of its own, a server API, or Redis.
//!
//! A flood is closed-loop: the publisher is never more than a window ahead of the deliveries, so what is measured is how
//! fast the server delivers, not how it treats clients that cannot keep up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::delivery::{Delivery, Load, summed};
use crate::api::Api;
use crate::channels::{Channels, Dealt};
use crate::clock;
use crate::error::Error;
use crate::fleet::{Fleet, Kind};
use crate::process::{Server, to_f64};
use crate::progress::Progress;
use crate::resp::Redis;
use crate::speech::{self, Stamp};
use crate::target::{Protocol, Target};
use crate::wire::{Order, Publish, Report};

/// How long nothing must come until the rest is taken for lost.
pub(crate) const PATIENCE_MS: u64 = 5_000;

/// The most publications of a batch for Redis.
const BATCH: u32 = 64;

/// Who publishes.
pub(crate) struct Publisher {
    way: Way,
    channels: Channels,
    /// How many channels publications are dealt to.
    count: u32,
    run: u32,
}

/// How it is done.
enum Way {
    /// By the one connection of a process.
    Socket(Fleet),
    /// From here, one request after the other.
    Api(Api),
    /// From here, in batches.
    Redis(Redis),
}

/// What is to be published, and how long.
#[derive(Clone, Copy)]
pub(crate) struct Pace<'a> {
    /// The most publications.
    pub(crate) count: u32,
    /// How many a second; none is a flood.
    pub(crate) rate: Option<f64>,
    /// Ends it before all are published.
    pub(crate) stop: Option<&'a AtomicBool>,
}

impl Pace<'_> {
    /// So many a second, for so many seconds, and one at least.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is not negative, and a float that is too large becomes the most"
    )]
    pub(crate) fn lasting(rate: f64, seconds: u32) -> Self {
        let count = (rate * f64::from(seconds)).max(1.0) as u32;
        Self { count, rate: Some(rate), stop: None }
    }

    fn stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}

impl Publisher {
    /// For `connections` that hear `channels`.
    pub(crate) fn start(
        target: &Target,
        load: &Load,
        channels: &Channels,
        connections: u32,
        shown: &mut Progress,
    ) -> Result<Self, Error> {
        let way = if let Some(redis) = Redis::new(&load.redis)? {
            Way::Redis(redis)
        } else if let Some(api) = Api::new(&load.api)? {
            Way::Api(api)
        } else {
            // A client event goes only to a channel that its sender is in.
            let kind = match target.protocol {
                Protocol::Pusher => Kind::hears(channels),
                _ => Kind::knows(channels),
            };
            let mut fleet = Fleet::start(target, 1, &kind)?;
            fleet.connect(1, 1, shown)?;
            Way::Socket(fleet)
        };
        Ok(Self { way, channels: channels.clone(), count: channels.count(connections), run: 0 })
    }

    /// Publishes at a pace or as a flood, and waits for what comes of it.
    pub(crate) fn run(
        &mut self,
        subscribers: &mut Fleet,
        server: Option<&Server>,
        pace: Pace<'_>,
        load: &Load,
        shown: &mut Progress,
    ) -> Result<Delivery, Error> {
        self.run += 1;
        subscribers.ask(&Order::Begin { run: self.run }, |_| ())?;
        let cpu = server.map(Server::times).transpose()?;
        let dealt = Dealt { published: pace.count, channels: self.count };
        let window = load.window.unwrap_or(if self.count > 1 { 8_192 } else { 256 });
        let publish =
            Publish { run: self.run, dealt, rate: pace.rate, size: load.size(), allowed: window.max(1) };
        let unheard = self.unheard();
        let made = match &mut self.way {
            Way::Socket(fleet) => by_socket(fleet, subscribers, &publish, pace, shown)?,
            Way::Api(api) => from_here((api, 1), &self.channels, subscribers, &publish, pace, shown)?,
            Way::Redis(redis) => {
                let made = from_here((redis, BATCH), &self.channels, subscribers, &publish, pace, shown)?;
                redis.drain(Duration::from_secs(30))?;
                made
            }
        };
        // What comes later than this after everything else is lost for whoever waits for it.
        let dealt = Dealt { published: made, channels: self.count };
        let finish = Order::Finish { dealt, patience_ms: PATIENCE_MS };
        let reports = subscribers.ask(&finish, |fleet| shown.say(&deliveries(fleet)))?;
        let cpu = match (server, cpu) {
            (Some(server), Some(before)) => Some(server.times()? - before),
            _ => None,
        };
        let mut delivery = summed(made, reports, cpu);
        delivery.unheard = self.unheard() - unheard;
        Ok(delivery)
    }

    /// The number of the run that comes next.
    pub(crate) fn next_run(&self) -> u32 {
        self.run + 1
    }

    /// Publications that Redis gave to no node.
    fn unheard(&self) -> u64 {
        if let Way::Redis(redis) = &self.way { redis.unheard() } else { 0 }
    }
}

/// What takes publications from this thread.
trait Outlet {
    fn put(&mut self, channel: &str, data: &str) -> Result<(), Error>;

    fn flush(&mut self) -> Result<(), Error>;
}

impl Outlet for Api {
    fn put(&mut self, channel: &str, data: &str) -> Result<(), Error> {
        self.publish(channel, data)
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

impl Outlet for Redis {
    fn put(&mut self, channel: &str, data: &str) -> Result<(), Error> {
        self.publish(channel, data);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        Redis::flush(self)
    }
}

/// Whether anything moves, and how far a flood may go.
struct Watch {
    moved: Instant,
    seen: u64,
    /// Publications for each delivery.
    share: f64,
}

impl Watch {
    fn new(publish: &Publish, subscribers: &Fleet) -> Self {
        Self::sharing(f64::from(publish.dealt.channels) / to_f64(subscribers.holds().max(1)))
    }

    fn sharing(share: f64) -> Self {
        Self { moved: Instant::now(), seen: 0, share }
    }

    /// How many publications may have been made by now. Errors: nothing was delivered for long.
    fn upto(&mut self, subscribers: &Fleet, publish: &Publish) -> Result<u32, Error> {
        let delivered = subscribers.delivered();
        if delivered != self.seen {
            (self.moved, self.seen) = (Instant::now(), delivered);
        }
        // At a slow pace nothing is delivered between two publications.
        let pause = publish.rate.map_or(0.0, |rate| 2.0 / rate);
        if self.moved.elapsed().as_secs_f64() > 30.0 + pause {
            return Err(Error::Stalled { what: "the publisher", seconds: 30 });
        }
        // In one channel in bursts of half a window: a publication for each that was delivered to all would be a pace,
        // not a flood.
        let burst = if publish.dealt.channels == 1 { (publish.allowed / 2).max(1) } else { 1 };
        let reached = self.reached(delivered) / burst * burst;
        Ok(reached.saturating_add(publish.allowed).min(publish.dealt.published))
    }

    /// How many publications so many deliveries make.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is not negative, and what is more than there can be is as good as the most"
    )]
    fn reached(&self, delivered: u64) -> u32 {
        (to_f64(delivered) * self.share) as u32
    }
}

/// Lets the process that publishes go on, until it is through. Returns how many it made.
fn by_socket(
    fleet: &mut Fleet,
    subscribers: &Fleet,
    publish: &Publish,
    pace: Pace<'_>,
    shown: &mut Progress,
) -> Result<u32, Error> {
    fleet.tell(&Order::Publish(publish.clone()))?;
    let (mut watch, mut allowed, mut stopped) = (Watch::new(publish, subscribers), 0, false);
    loop {
        match fleet.heard(Duration::from_millis(5))? {
            Some(Report::Published { refused: Some(why), .. }) => return Err(Error::Refused(why)),
            Some(Report::Published { count, refused: None }) => return Ok(count),
            _ => {}
        }
        let upto = watch.upto(subscribers, publish)?;
        if publish.rate.is_none() && upto > allowed {
            allowed = upto;
            fleet.tell(&Order::Allow { upto })?;
        }
        if !stopped && pace.stopped() {
            stopped = true;
            fleet.tell(&Order::Stop)?;
        }
        shown.say(&deliveries(subscribers));
    }
}

/// Publishes from this thread, at most so many between two looks at the deliveries. Returns how many it made.
fn from_here(
    (outlet, batch): (&mut dyn Outlet, u32),
    channels: &Channels,
    subscribers: &Fleet,
    publish: &Publish,
    pace: Pace<'_>,
    shown: &mut Progress,
) -> Result<u32, Error> {
    let (began, mut watch) = (Instant::now(), Watch::new(publish, subscribers));
    let mut next = 0;
    while next < publish.dealt.published && !pace.stopped() {
        let allowed = watch.upto(subscribers, publish)?;
        let (upto, wait) = match publish.rate {
            Some(rate) => {
                let early = f64::from(next) / rate - began.elapsed().as_secs_f64();
                (if early > 0.0 { next } else { next + 1 }, early)
            }
            // What has been written is not delivered at once: there is no use in looking more often.
            None => (allowed.min(next.saturating_add(batch)), 0.0002),
        };
        if upto <= next {
            clock::pass(Duration::from_secs_f64(wait.clamp(0.0, 0.1)));
            continue;
        }
        while next < upto {
            let (channel, number) = publish.dealt.place(next);
            let data =
                speech::data(Stamp { run: publish.run, number, at: clock::now(), channel }, publish.size);
            outlet.put(&channels.name(channel), &data)?;
            next += 1;
        }
        outlet.flush()?;
        shown.say(&deliveries(subscribers));
    }
    Ok(next)
}

fn deliveries(fleet: &Fleet) -> String {
    format!("delivered: {}", fleet.delivered())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_window_ahead_of_what_everyone_has() {
        assert_eq!(Watch::sharing(1.0 / 500.0).reached(1_499), 2);
        assert_eq!(Watch::sharing(1.0).reached(7), 7);
        assert_eq!(Watch::sharing(0.02).reached(u64::MAX), u32::MAX);
    }
}
