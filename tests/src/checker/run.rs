//! A whole run: everything started, the schedule carried out, everything healed, and the judgement.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::history::{Recorder, What};
use super::judge::{Counts, Judge, Verdict};
use super::publisher::{Door, Press, publish};
use super::scene::Scene;
use super::schedule::{Crew, Fault, Schedule};
use super::sdk::Driver;
use super::store::Topology;
use super::subscriber::Subscriber;
use crate::deadline::pause;
use crate::node::{Node, Start};
use crate::sdk::Kind;

/// The usual time for healing.
const HEALING: Duration = Duration::from_secs(60);

/// A channel of the run: its name, how many publications it keeps, for how many seconds.
pub type Kept = (&'static str, u64, u64);

/// Channels whose history is long, is soon trimmed, soon expires, and is not there.
pub const CHANNELS: &[Kept] = &[
    ("kept:1", 5_000, 300),
    ("kept:2", 5_000, 300),
    ("short:1", 30, 300),
    ("brief:1", 100, 2),
    ("plain:1", 0, 0),
];

/// Only those that have none.
pub const WITHOUT_HISTORY: &[Kept] = &[("plain:1", 0, 0), ("plain:2", 0, 0)];

/// The namespaces of these channels.
const SETTINGS: &str = "
namespaces:
  - {name: kept, history_size: 5000, history_ttl: 300s, recover: true, subscribe: anyone, publish: anyone}
  - {name: short, history_size: 30, history_ttl: 300s, recover: true, subscribe: anyone, publish: anyone}
  - {name: brief, history_size: 100, history_ttl: 2s, recover: true, subscribe: anyone, publish: anyone}
  - {name: plain, subscribe: anyone, publish: anyone}
";

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What everything follows from.
    pub seed: u64,
    /// For how long publishers publish.
    pub seconds: u64,
    /// What the Redis is.
    pub topology: Topology,
    /// How many nodes.
    pub nodes: usize,
    /// How many subscribers of our own.
    pub raw: usize,
    /// How many of each official SDK with each codec.
    pub sdk: usize,
    /// Where they are subscribed.
    pub channels: &'static [Kept],
    /// The faults; `None`: those that follow from the seed.
    pub schedule: Option<Schedule>,
    /// A build of the node that does something wrong on purpose, and what.
    pub sabotage: Option<(PathBuf, &'static str)>,
    /// How long it may take, when everything is healed, until everyone is where they should be.
    pub healing: Duration,
    /// More settings of the nodes: keys and values.
    pub sets: Vec<(String, String)>,
    /// Where the history is written.
    pub history: PathBuf,
}

impl Plan {
    /// Three nodes, and subscribers of every kind.
    pub fn new(seed: u64, seconds: u64, history: &Path) -> Self {
        Self {
            seed,
            seconds,
            topology: Topology::Single,
            nodes: 3,
            raw: 6,
            sdk: 1,
            channels: CHANNELS,
            schedule: None,
            sabotage: None,
            healing: HEALING,
            sets: Vec::new(),
            history: history.to_owned(),
        }
    }

    fn crew(&self) -> Crew {
        Crew {
            topology: self.topology,
            nodes: self.nodes,
            subscribers: self.raw + self.sdk * Kind::ALL.len(),
        }
    }

    /// The faults, in order.
    pub fn schedule(&self) -> Schedule {
        let follows = || Schedule::of(self.seed, self.seconds, self.crew());
        self.schedule.clone().unwrap_or_else(follows)
    }

    fn start(&self) -> Start {
        let start = Node::dev()
            .file(SETTINGS)
            .set("heartbeat.interval", "2s")
            .set("heartbeat.timeout", "2s")
            .set("relay.redis.ingest.claim_after", "8s")
            .set("drain.duration", "500ms");
        let start = self.sets.iter().fold(start, |start, (key, value)| start.set(key, value));
        match &self.sabotage {
            Some((binary, what)) => start.binary(binary).env("TIDEGATE_SABOTAGE", what),
            None => start,
        }
    }

    /// Runs it, saying what happens to `say`.
    ///
    /// # Panics
    /// When something does not start, or the history cannot be written.
    pub fn run(&self, say: &dyn Fn(&str)) -> Verdict {
        let crew = self.crew();
        let mut scene = Scene::new(self.topology, crew.nodes, crew.subscribers, |_| self.start());
        let recorder = Arc::new(Recorder::create(&self.history).expect("the history can be written"));
        recorder.note(What::Run { seed: self.seed, topology: self.topology.name().to_owned() });
        for (channel, size, ttl) in self.channels {
            recorder.note(What::Channel { channel: (*channel).to_owned(), size: *size, ttl: *ttl });
        }
        let press = Arc::new(Press {
            recorder: Arc::clone(&recorder),
            channels: self.channels.iter().map(|(name, size, _)| ((*name).to_owned(), *size > 0)).collect(),
            nodes: Mutex::new(scene.addresses()),
            redis: scene.redis(),
            over: AtomicBool::new(false),
            next: AtomicU64::new(1),
        });
        scene.inform(&press);
        let over = Arc::new(AtomicBool::new(false));
        let crowd = self.gather(&scene, &recorder, &over);
        settle(&recorder, say);
        let mut rng = Rng::with_seed(self.seed);
        let publishers: Vec<_> = Door::ALL
            .into_iter()
            .map(|door| {
                let (press, seed) = (Arc::clone(&press), rng.u64(..));
                std::thread::spawn(move || publish(&press, door, seed))
            })
            .collect();
        self.act(&mut scene, &recorder, say);
        press.over.store(true, Ordering::Relaxed);
        let mut trouble: Vec<String> = Vec::new();
        for publisher in publishers {
            if publisher.join().is_err() {
                trouble.push("a publisher panicked".to_owned());
            }
        }
        say("healed; the last publications");
        trouble.extend(close(&press, &mut rng, self.healing, say));
        over.store(true, Ordering::Relaxed);
        trouble.extend(
            crowd
                .into_iter()
                .filter_map(|one| one.join().unwrap_or(Some("a subscriber panicked".to_owned()))),
        );
        trouble.extend(scene.dead().iter().map(|node| format!("node {node} ended by itself")));
        for metric in ["relay_gaps_total", "relay_repaired_publications_total", "relay_reconnects_total"] {
            say(&format!(
                "{metric} of the nodes that run now: {}",
                scene.metric(&format!("tidegate_{metric}"))
            ));
        }
        for line in &trouble {
            say(line);
        }
        assert!(trouble.is_empty(), "{trouble:?}");
        recorder.finish().expect("the history can be written").verdict()
    }

    /// Starts every subscriber; each thread ends with what went wrong in it.
    fn gather(
        &self,
        scene: &Scene,
        recorder: &Arc<Recorder>,
        over: &Arc<AtomicBool>,
    ) -> Vec<std::thread::JoinHandle<Option<String>>> {
        let channels: Vec<String> = self.channels.iter().map(|(name, ..)| (*name).to_owned()).collect();
        let mut rng = Rng::with_seed(self.seed ^ 1);
        let raw: Vec<Subscriber> = (0..self.raw)
            .map(|seat| Subscriber {
                who: format!("raw-{seat}"),
                place: scene.place(seat),
                channels: channels.clone(),
                recorder: Arc::clone(recorder),
                over: Arc::clone(over),
                rng: rng.fork(),
            })
            .collect();
        let mut threads = vec![std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let tasks: Vec<_> = raw.into_iter().map(|one| tokio::spawn(one.follow())).collect();
                for task in tasks {
                    if task.await.is_err() {
                        return Some("a subscriber panicked".to_owned());
                    }
                }
                None
            })
        })];
        for (nth, kind) in Kind::ALL.into_iter().enumerate().filter(|_| self.sdk > 0) {
            let seats: Vec<_> = (0..self.sdk)
                .map(|number| {
                    let seat = self.raw + nth * self.sdk + number;
                    let url = format!("ws://{}/connection/websocket", scene.place(seat));
                    (format!("{kind:?}-{seat}").to_lowercase(), url)
                })
                .collect();
            let driver = Driver::start(kind, &seats, &channels);
            let (recorder, over) = (Arc::clone(recorder), Arc::clone(over));
            threads.push(std::thread::spawn(move || {
                driver.record(&recorder, &over).err().map(|why| format!("{kind:?}: {why}"))
            }));
        }
        threads
    }

    /// Carries the schedule out, and heals what is left of it.
    fn act(&self, scene: &mut Scene, recorder: &Recorder, say: &dyn Fn(&str)) {
        let began = Instant::now();
        let mut events: Vec<(Duration, bool, Fault, Duration)> = Vec::new();
        for step in self.schedule().steps {
            events.push((step.at, true, step.fault, step.lasts));
            events.push((step.at + step.lasts, false, step.fault, step.lasts));
        }
        // Stable: the end of a fault stays behind its beginning.
        events.sort_by_key(|(at, ..)| *at);
        let mut told = Instant::now();
        for (at, begins, fault, lasts) in events {
            while began.elapsed() < at {
                pause((at - began.elapsed()).min(Duration::from_millis(500)));
                if told.elapsed() > Duration::from_secs(10) {
                    told = Instant::now();
                    say(&progress(recorder, began.elapsed(), self.seconds));
                }
            }
            if begins {
                scene.begin(fault, u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
            } else {
                scene.end(fault);
            }
        }
        while began.elapsed() < Duration::from_secs(self.seconds) {
            pause(Duration::from_millis(50));
        }
        say(&progress(recorder, began.elapsed(), self.seconds));
    }
}

fn progress(recorder: &Recorder, elapsed: Duration, seconds: u64) -> String {
    recorder.ask(|judge| {
        let verdict = judge.so_far();
        let sum = |count: fn(&Counts) -> u64| verdict.counts.values().map(count).sum::<u64>();
        format!(
            "{:5.0} s of {seconds}: {} acknowledged, {} delivered, {} gaps told, {} breaches",
            elapsed.as_secs_f64(),
            sum(|c| c.acknowledged),
            sum(|c| c.delivered),
            sum(|c| c.gaps),
            verdict.breaches.values().sum::<u64>()
        )
    })
}

/// Waits until everyone is subscribed for the first time.
fn settle(recorder: &Recorder, say: &dyn Fn(&str)) {
    wait(recorder, HEALING, say);
}

/// Publishes a last publication in each channel and waits until everyone has it or was told otherwise. Where it may have
/// been lost on its way (a channel without history while nodes still find back), another one follows. What went wrong.
fn close(press: &Press, rng: &mut Rng, healing: Duration, say: &dyn Fn(&str)) -> Vec<String> {
    let deadline = Instant::now() + healing;
    loop {
        let mut refused = Vec::new();
        for (channel, _) in &press.channels {
            match press.last(rng, channel) {
                Some(id) => press.recorder.note(What::Last { channel: channel.clone(), id }),
                None => refused.push(format!("nothing can be published in {channel}")),
            }
        }
        let late = wait(&press.recorder, Duration::from_secs(5), &|_| {});
        if late.is_empty() && refused.is_empty() {
            return refused;
        }
        if Instant::now() > deadline {
            say(&format!("not where they should be after {healing:?}: {}", late.join("; ")));
            return refused;
        }
    }
}

/// Waits until nobody is behind; who still is.
fn wait(recorder: &Recorder, within: Duration, say: &dyn Fn(&str)) -> Vec<String> {
    let deadline = Instant::now() + within;
    loop {
        let behind = recorder.ask(Judge::behind);
        if behind.is_empty() {
            return behind;
        }
        if Instant::now() > deadline {
            say(&format!("after {within:?}: {}", behind.join("; ")));
            return behind;
        }
        pause(Duration::from_millis(200));
    }
}
