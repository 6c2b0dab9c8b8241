//! What goes wrong and when: everything follows from a seed.
//!
//! Each kind of fault comes once before any comes again, in an order of its own. Most end before the next begins; some
//! overlap, but never two of one part, and what loses data comes alone: that a node dies which alone knew what Redis
//! forgot is beyond what anybody can promise.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use super::store::Topology;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to a node; another starts in its place.
    KillNode(usize),
    /// SIGSTOP to a node, SIGCONT.
    StopNode(usize),
    /// SIGTERM to a node; another starts in its place.
    DrainNode(usize),
    /// SIGSTOP to Redis, SIGCONT.
    StopRedis,
    /// SIGKILL to Redis, which starts again with its data.
    RestartRedis,
    /// The same, without.
    EmptyRedis,
    /// The same, with its data as they were when the fault began.
    RewindRedis,
    /// FLUSHALL.
    Flush,
    /// A replica takes the master's place, as an operator asks for it.
    FailOver,
    /// SIGKILL to the master; its replica takes its place, and it comes back as a replica.
    KillMaster,
    /// SIGSTOP to the master for long enough that its replica takes its place.
    StopMaster,
    /// A channel's slot moves to another master.
    Reshard,
    /// CLIENT KILL TYPE pubsub.
    KillSubscribers,
    /// CLIENT KILL TYPE normal.
    KillClients,
    /// CLIENT PAUSE.
    PauseClients,
    /// Nothing passes between a node and Redis.
    StallRelay(usize),
    /// A node's connections to Redis are closed, and new ones too.
    CutRelay(usize),
    /// A node's connections to Redis hear nothing more, and everything else works. Not healed in the end.
    DeafenRelay(usize),
    /// Nothing passes between a subscriber and its node.
    StallClient(usize),
    /// A subscriber is cut off, and comes back.
    CutClient(usize),
    /// A subscriber goes to another node.
    Hop(usize, usize),
}

/// What a fault is about. Two of one part are never at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Redis,
    Node(usize),
    Link(usize),
}

impl Fault {
    fn part(self) -> Part {
        match self {
            Self::KillNode(node) | Self::StopNode(node) | Self::DrainNode(node) => Part::Node(node),
            Self::StallRelay(node) | Self::CutRelay(node) | Self::DeafenRelay(node) => Part::Link(node),
            _ => Part::Redis,
        }
    }

    /// Whether Redis loses data by it.
    pub fn loses(self) -> bool {
        matches!(
            self,
            Self::EmptyRedis
                | Self::RewindRedis
                | Self::Flush
                | Self::FailOver
                | Self::KillMaster
                | Self::StopMaster
        )
    }

    /// Between how many milliseconds it lasts, in a run of so many seconds.
    fn lasts(self, seconds: u64) -> (u64, u64) {
        // Half a minute is what is asked of a node; a short run has no room for it.
        let standstill = if seconds >= 120 { 30_000 } else { 6_000 };
        match self {
            Self::StopRedis => (1_000, standstill),
            Self::StopNode(_) | Self::StallRelay(_) => (500, 6_000),
            Self::KillNode(_) | Self::DrainNode(_) | Self::CutRelay(_) => (300, 3_000),
            Self::RestartRedis | Self::EmptyRedis => (100, 2_000),
            Self::RewindRedis => (300, 1_500),
            Self::PauseClients => (500, 4_000),
            Self::KillMaster | Self::StopMaster => (1_000, 5_000),
            Self::Flush
            | Self::FailOver
            | Self::Reshard
            | Self::KillSubscribers
            | Self::KillClients
            | Self::DeafenRelay(_)
            | Self::Hop(..) => (0, 0),
            Self::StallClient(_) => (500, 9_000),
            Self::CutClient(_) => (0, 5_000),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillNode(node) => write!(f, "SIGKILL to node {node}, another in its place"),
            Self::StopNode(node) => write!(f, "SIGSTOP to node {node}"),
            Self::DrainNode(node) => write!(f, "SIGTERM to node {node}, another in its place"),
            Self::StopRedis => write!(f, "SIGSTOP to Redis"),
            Self::RestartRedis => write!(f, "SIGKILL to Redis, again with its data"),
            Self::EmptyRedis => write!(f, "SIGKILL to Redis, again without data"),
            Self::RewindRedis => write!(f, "Redis back where it is now"),
            Self::Flush => write!(f, "FLUSHALL"),
            Self::FailOver => write!(f, "a failover that is asked for"),
            Self::KillMaster => write!(f, "SIGKILL to the master, its replica in its place"),
            Self::StopMaster => write!(f, "SIGSTOP to the master, its replica in its place"),
            Self::Reshard => write!(f, "a slot moves to another master"),
            Self::KillSubscribers => write!(f, "CLIENT KILL TYPE pubsub"),
            Self::KillClients => write!(f, "CLIENT KILL TYPE normal"),
            Self::PauseClients => write!(f, "CLIENT PAUSE"),
            Self::StallRelay(node) => write!(f, "nothing passes between node {node} and Redis"),
            Self::CutRelay(node) => write!(f, "node {node} cannot reach Redis"),
            Self::DeafenRelay(node) => write!(f, "node {node} hears nothing more on what it has to Redis"),
            Self::StallClient(seat) => write!(f, "nothing passes between subscriber {seat} and its node"),
            Self::CutClient(seat) => write!(f, "subscriber {seat} is away"),
            Self::Hop(seat, node) => write!(f, "subscriber {seat} goes to node {node}"),
        }
    }
}

/// A fault in its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// When it begins.
    pub at: Duration,
    /// For how long.
    pub lasts: Duration,
    /// Which.
    pub fault: Fault,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7.2} s  {}", self.at.as_secs_f64(), self.fault)?;
        if self.lasts.is_zero() {
            return Ok(());
        }
        write!(f, ", for {:.2} s", self.lasts.as_secs_f64())
    }
}

/// Who is there to suffer.
#[derive(Debug, Clone, Copy)]
pub struct Crew {
    /// What the Redis is.
    pub topology: Topology,
    /// How many nodes.
    pub nodes: usize,
    /// How many subscribers.
    pub subscribers: usize,
}

/// All faults of a run, by when they begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// In order.
    pub steps: Vec<Step>,
}

/// How long nothing happens at the start and at the end, in milliseconds.
const QUIET: u64 = 2_000;

impl Schedule {
    /// The schedule of a seed.
    pub fn of(seed: u64, seconds: u64, crew: Crew) -> Self {
        let mut rng = Rng::with_seed(seed);
        let end = (seconds * 1_000).saturating_sub(QUIET);
        let mut steps = servers(&mut rng, seconds, end, crew);
        steps.extend(clients(&mut rng, seconds, end, crew));
        steps.sort_by_key(|step| step.at);
        Self { steps }
    }

    /// Only these faults, one behind the other: for what is to be provoked.
    pub fn only(faults: &[(Fault, Duration)], pause: Duration) -> Self {
        let mut at = Duration::from_millis(QUIET);
        let steps = faults.iter().map(|(fault, lasts)| {
            let step = Step { at, lasts: *lasts, fault: *fault };
            at += *lasts + pause;
            step
        });
        Self { steps: steps.collect() }
    }
}

/// What happens to nodes, to Redis and between them.
fn servers(rng: &mut Rng, seconds: u64, end: u64, crew: Crew) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut deck: Vec<Fault> = Vec::new();
    let mut at = QUIET;
    // When everything so far is over.
    let mut over = at;
    loop {
        if deck.is_empty() {
            deck = kinds(rng, crew);
            rng.shuffle(&mut deck);
        }
        let Some(fault) = deck.pop() else { break };
        let (least, most) = fault.lasts(seconds);
        let lasts = rng.u64(least..=most);
        let overlaps = !fault.loses() && rng.f32() < 0.3;
        let start = if overlaps { at + rng.u64(200..1_500) } else { over + rng.u64(300..2_500) };
        if start + lasts > end {
            break;
        }
        let busy = |step: &Step| {
            let until = step.at + step.lasts + Duration::from_millis(300);
            let loses = step.fault.loses();
            Duration::from_millis(start) < until && (loses || step.fault.part() == fault.part())
        };
        let start = if steps.iter().any(busy) { over + 500 } else { start };
        if start + lasts > end {
            break;
        }
        steps.push(Step { at: Duration::from_millis(start), lasts: Duration::from_millis(lasts), fault });
        at = start;
        over = over.max(start + lasts);
        if fault.loses() {
            // Time for every node to find out before the next thing happens to it.
            over += 3_000;
            at = over;
        }
    }
    steps
}

fn kinds(rng: &mut Rng, crew: Crew) -> Vec<Fault> {
    let mut node = || rng.usize(..crew.nodes);
    let mut kinds = vec![
        Fault::KillNode(node()),
        Fault::StopNode(node()),
        Fault::DrainNode(node()),
        Fault::Flush,
        Fault::KillSubscribers,
        Fault::KillClients,
    ];
    kinds.extend(match crew.topology {
        Topology::Single => vec![
            Fault::StallRelay(node()),
            Fault::CutRelay(node()),
            Fault::DeafenRelay(node()),
            Fault::StopRedis,
            // Where there are replicas, a master that pauses is one that failed.
            Fault::PauseClients,
            Fault::RestartRedis,
            Fault::EmptyRedis,
            Fault::RewindRedis,
        ],
        Topology::Sentinel => vec![Fault::FailOver, Fault::KillMaster, Fault::StopMaster],
        Topology::Cluster => vec![Fault::FailOver, Fault::KillMaster, Fault::StopMaster, Fault::Reshard],
    });
    kinds
}

/// What happens to subscribers, meanwhile.
fn clients(rng: &mut Rng, seconds: u64, end: u64, crew: Crew) -> Vec<Step> {
    let mut steps = Vec::new();
    // Until when something happens to each.
    let mut busy = vec![0; crew.subscribers];
    let mut at = QUIET;
    loop {
        at += rng.u64(300..1_500);
        if at > end || crew.subscribers == 0 {
            return steps;
        }
        let seat = rng.usize(..crew.subscribers);
        let fault = match rng.u8(..10) {
            0..=4 => Fault::Hop(seat, rng.usize(..crew.nodes)),
            5..=8 => Fault::CutClient(seat),
            _ => Fault::StallClient(seat),
        };
        let (least, most) = fault.lasts(seconds);
        let lasts = rng.u64(least..=most).min(end - at);
        if busy[seat] > at {
            continue;
        }
        busy[seat] = at + lasts + 300;
        steps.push(Step { at: Duration::from_millis(at), lasts: Duration::from_millis(lasts), fault });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Crew, Fault, Schedule, Topology};

    const CREW: Crew = Crew { topology: Topology::Single, nodes: 3, subscribers: 8 };

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(Schedule::of(7, 120, CREW), Schedule::of(7, 120, CREW));
        assert_ne!(Schedule::of(7, 120, CREW), Schedule::of(8, 120, CREW));
    }

    #[test]
    fn every_kind_of_fault_comes_in_two_minutes_and_ends_in_time() {
        for seed in 0..50 {
            let schedule = Schedule::of(seed, 180, CREW);
            let kinds: HashSet<_> =
                schedule.steps.iter().map(|step| std::mem::discriminant(&step.fault)).collect();
            assert!(kinds.len() >= 16, "seed {seed}: {} kinds: {:?}", kinds.len(), schedule.steps);
            assert!(schedule.steps.iter().all(|step| (step.at + step.lasts).as_secs() <= 180));
        }
    }

    #[test]
    fn what_loses_data_comes_alone() {
        let servers =
            |fault: Fault| !matches!(fault, Fault::Hop(..) | Fault::CutClient(_) | Fault::StallClient(_));
        for seed in 0..50 {
            let schedule = Schedule::of(seed, 300, CREW);
            let steps: Vec<_> = schedule.steps.iter().filter(|step| servers(step.fault)).collect();
            for one in steps.iter().filter(|step| step.fault.loses()) {
                let alone = steps
                    .iter()
                    .filter(|other| other.at <= one.at + one.lasts && one.at <= other.at + other.lasts);
                assert_eq!(alone.count(), 1, "seed {seed}: {one}: {steps:?}");
            }
        }
    }
}
