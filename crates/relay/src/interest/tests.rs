//! The bookkeeping step by step, and against a model of Redis.
#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

const LINGER: Duration = Duration::from_secs(5);

fn set(workers: &[u8]) -> WorkerSet {
    let mut set = WorkerSet::default();
    workers.iter().for_each(|w| set.insert(WorkerId(*w)));
    set
}

fn heard_by(workers: &[u8]) -> Option<Hearing> {
    Some(Hearing { channel: news(), workers: set(workers), tracked: false })
}

fn news() -> ChannelName {
    ChannelName::parse("news").unwrap()
}

#[test]
fn a_join_waits_for_redis_and_a_second_one_does_not() {
    let mut interest = Interest::new(LINGER, Arc::default());
    assert_eq!(interest.join(WorkerId(0), &news()), Join::Later);
    assert_eq!(interest.join(WorkerId(1), &news()), Join::Later);
    assert_eq!(interest.next_to_ask(10, 1), [news()]);
    assert_eq!(interest.hears("news"), None, "nobody was told yet");
    assert_eq!(interest.confirmed("news"), Some((news(), set(&[0, 1]))));
    assert_eq!(interest.hears("news"), heard_by(&[0, 1]));
    assert_eq!(interest.join(WorkerId(2), &news()), Join::Heard(None));
    assert!(!interest.has_to_ask());
    assert_eq!(interest.wanted().load(Ordering::Relaxed), 1, "once, however many workers hear it");
}

#[test]
fn a_channel_lingers_and_a_return_within_that_time_costs_nothing() {
    let mut interest = Interest::new(LINGER, Arc::default());
    let start = Instant::now();
    interest.join(WorkerId(0), &news());
    interest.next_to_ask(10, 1);
    interest.confirmed("news");
    interest.leave(WorkerId(0), &news(), start);
    assert!(interest.next_to_give_up(start + LINGER / 2, 10).is_empty());
    assert_eq!(interest.join(WorkerId(0), &news()), Join::Heard(None));
    assert!(interest.next_to_give_up(start + LINGER, 10).is_empty());
    let later = start + LINGER * 2;
    interest.leave(WorkerId(0), &news(), later);
    assert_eq!(interest.next_to_give_up(later + LINGER, 10), [news()]);
    interest.given_up("news");
    assert_eq!(interest.len(), 0);
}

#[test]
fn a_join_while_redis_gives_the_channel_up_subscribes_it_again() {
    let mut interest = Interest::new(Duration::ZERO, Arc::default());
    let now = Instant::now();
    interest.join(WorkerId(0), &news());
    interest.next_to_ask(10, 1);
    interest.confirmed("news");
    interest.leave(WorkerId(0), &news(), now);
    assert_eq!(interest.next_to_give_up(now, 10), [news()]);
    assert_eq!(interest.join(WorkerId(3), &news()), Join::Later);
    assert_eq!(interest.confirmed("news"), None, "a late confirmation must not answer");
    interest.given_up("news");
    assert_eq!(interest.next_to_ask(10, 1), [news()]);
    assert_eq!(interest.confirmed("news"), Some((news(), set(&[3]))));
}

#[test]
fn an_interruption_fails_pending_joins_and_keeps_what_was_heard() {
    let mut interest = Interest::new(LINGER, Arc::default());
    let other = ChannelName::parse("other").unwrap();
    interest.join(WorkerId(0), &news());
    interest.next_to_ask(10, 1);
    interest.confirmed("news");
    interest.join(WorkerId(1), &other);
    assert_eq!(interest.interrupted(), Interrupted { gaps: 1, failed: vec![(other, set(&[1]))] });
    interest.restore();
    assert_eq!(interest.next_to_ask(10, 1), [news()]);
    assert_eq!(interest.confirmed("news"), Some((news(), set(&[]))));
    assert_eq!(interest.hears("news"), heard_by(&[0]));
}

#[test]
fn a_channel_that_redis_refuses_is_forgotten_and_whoever_heard_it_is_known() {
    let mut interest = Interest::new(LINGER, Arc::default());
    interest.join(WorkerId(0), &news());
    interest.join(WorkerId(1), &news());
    interest.next_to_ask(10, 1);
    interest.confirmed("news");
    interest.interrupted();
    interest.restore();
    interest.next_to_ask(10, 1);
    interest.join(WorkerId(1), &news());
    interest.join(WorkerId(2), &news());
    assert_eq!(interest.refused(&news()), Refused { waiting: set(&[1, 2]), joined: set(&[0]) });
    assert_eq!(interest.refused(&news()), Refused::default());
    assert_eq!(interest.len(), 0);
    assert_eq!(interest.join(WorkerId(0), &news()), Join::Later);
}

#[derive(Debug, Clone)]
enum Step {
    Join(u8, u8),
    Leave(u8, u8),
    Redis,
    GiveUp,
    Interrupt,
    Wait(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4u8, 0..3u8).prop_map(|(w, c)| Step::Join(w, c)),
        (0..4u8, 0..3u8).prop_map(|(w, c)| Step::Leave(w, c)),
        Just(Step::Redis),
        Just(Step::GiveUp),
        Just(Step::Interrupt),
        (0..20u8).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Against a model of Redis: whoever was told that it hears a channel does hear it after every interruption,
    /// and what nobody wants is subscribed no longer once everything settled.
    #[test]
    fn interest_and_redis_agree_when_all_is_quiet(steps in proptest::collection::vec(step(), 0..200)) {
        use std::collections::{BTreeMap, BTreeSet, VecDeque};
        let mut interest = Interest::new(LINGER, Arc::default());
        let mut now = Instant::now();
        let mut commands: VecDeque<(bool, ChannelName)> = VecDeque::new();
        let mut redis: BTreeSet<String> = BTreeSet::new();
        let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
        let name = |c: u8| ChannelName::parse(&format!("c{c}")).unwrap();
        let mut pending: BTreeSet<(u8, u8)> = BTreeSet::new();
        let settle = |interest: &mut Interest,
                      commands: &mut VecDeque<(bool, ChannelName)>,
                      redis: &mut BTreeSet<String>,
                      pending: &mut BTreeSet<(u8, u8)>| {
            commands.extend(interest.next_to_ask(100, 1).into_iter().map(|c| (true, c)));
            while let Some((subscribe, channel)) = commands.pop_front() {
                if subscribe {
                    redis.insert(channel.to_string());
                    let (_, told) = interest.confirmed(channel.as_str()).unwrap();
                    let c: u8 = channel.as_str()[1..].parse().unwrap();
                    for w in told.iter() {
                        assert!(pending.remove(&(w.0, c)), "told without having asked");
                    }
                } else {
                    redis.remove(channel.as_str());
                    interest.given_up(channel.as_str());
                }
                commands.extend(interest.next_to_ask(100, 1).into_iter().map(|c| (true, c)));
            }
        };
        for step in steps {
            match step {
                Step::Join(w, c) => {
                    if interest.join(WorkerId(w), &name(c)) == Join::Later {
                        pending.insert((w, c));
                    }
                    *wanted.entry(name(c).to_string()).or_default() |= 1 << w;
                }
                Step::Leave(w, c) => {
                    interest.leave(WorkerId(w), &name(c), now);
                    pending.remove(&(w, c));
                    *wanted.entry(name(c).to_string()).or_default() &= !(1 << w);
                }
                Step::Redis => settle(&mut interest, &mut commands, &mut redis, &mut pending),
                Step::GiveUp => {
                    commands.extend(interest.next_to_give_up(now, 100).into_iter().map(|c| (false, c)));
                }
                Step::Interrupt => {
                    let lost = interest.interrupted().failed;
                    commands.clear();
                    redis.clear();
                    for (channel, workers) in lost {
                        let c: u8 = channel.as_str()[1..].parse().unwrap();
                        for w in workers.iter() {
                            prop_assert!(pending.remove(&(w.0, c)));
                            *wanted.entry(channel.to_string()).or_default() &= !(1 << w.0);
                        }
                    }
                    prop_assert!(pending.is_empty(), "every pending join is answered");
                    interest.restore();
                }
                Step::Wait(s) => now += Duration::from_secs(s.into()),
            }
        }
        for _ in 0..3 {
            settle(&mut interest, &mut commands, &mut redis, &mut pending);
            now += LINGER * 2;
            commands.extend(interest.next_to_give_up(now, 100).into_iter().map(|c| (false, c)));
        }
        settle(&mut interest, &mut commands, &mut redis, &mut pending);
        prop_assert!(pending.is_empty());
        wanted.retain(|_, workers| *workers != 0);
        prop_assert_eq!(interest.wanted().load(Ordering::Relaxed), wanted.len());
        for (channel, workers) in &wanted {
            prop_assert_eq!(interest.hears(channel).map(|hearing| hearing.workers.0), Some(*workers));
        }
        prop_assert_eq!(redis.into_iter().collect::<Vec<_>>(), wanted.into_keys().collect::<Vec<_>>());
        prop_assert!(interest.lingering.is_empty());
    }
}

fn kept() -> Arc<Rules> {
    let retention = crate::rules::Retention { size: 10, ttl: Duration::from_secs(60) };
    let rules = crate::rules::ChannelRules { retention: Some(retention), ..Default::default() };
    Arc::new(Rules { any: Some(rules), ..Rules::default() })
}

fn at(offset: u64) -> Position {
    Position { offset, epoch: tidegate_protocol::Epoch::new("e") }
}

#[test]
fn a_join_of_a_channel_with_history_waits_for_its_position_too() {
    let mut interest = Interest::new(LINGER, kept());
    assert_eq!(interest.join(WorkerId(0), &news()), Join::Later);
    interest.next_to_ask(10, 1);
    assert_eq!(interest.confirmed("news"), None, "not before the position is known");
    assert_eq!(interest.join(WorkerId(1), &news()), Join::Later);
    let questions = interest.next_looks(10);
    assert_eq!(questions.len(), 1);
    assert_eq!(questions[0].ask, Ask::Position);
    interest.ask(&news(), Ask::Position);
    assert!(interest.next_looks(10).is_empty(), "one question at a time");
    let (track, joined) = interest.track("news").unwrap();
    assert!(track.expects(questions[0].number) && joined.is_empty());
    track.answered();
    track.place(at(7));
    assert_eq!(interest.placed(&news()), set(&[0, 1]));
    assert_eq!(interest.join(WorkerId(2), &news()), Join::Heard(Some(at(7))));
}

#[test]
fn an_interruption_is_no_gap_where_there_is_history() {
    let mut interest = Interest::new(LINGER, kept());
    interest.join(WorkerId(0), &news());
    interest.next_to_ask(10, 1);
    interest.confirmed("news");
    interest.track("news").unwrap().0.place(at(7));
    interest.placed(&news());
    assert_eq!(interest.interrupted(), Interrupted::default());
    assert_eq!(interest.track("news").unwrap().0.position(), Some(&at(7)), "it is known where to go on");
    assert!(interest.take_missed().is_empty());
    interest.restore();
    interest.next_to_ask(10, 2);
    interest.confirmed("news");
    // Whoever has lost something is told, and forgotten.
    assert_eq!(interest.lost(&news(), Instant::now()), set(&[0]));
    assert_eq!(interest.hears("news").unwrap().workers, set(&[]));
    assert_eq!(interest.wanted().load(Ordering::Relaxed), 0);
}
