//! Every way in which a publication can come, live or from the log.
#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use tidegate_protocol::{ChannelName, Epoch};

use super::*;

fn publication(offset: u64) -> Publication {
    Publication {
        channel: ChannelName::parse("news").unwrap(),
        data: Bytes::from(offset.to_string()),
        info: None,
        tags: Vec::new(),
        offset,
    }
}

fn live(epoch: &'static str, offset: u64) -> Live {
    Live { epoch: Bytes::from_static(epoch.as_bytes()), publication: publication(offset) }
}

fn logged(offset: u64) -> Entry {
    Entry { offset, publication: Ok(publication(offset)) }
}

fn at(offset: u64) -> Position {
    Position { offset, epoch: Epoch::new("e") }
}

fn offsets(publications: &[Publication]) -> Vec<u64> {
    publications.iter().map(|publication| publication.offset).collect()
}

/// A channel that stands level at the offset.
fn level(offset: u64) -> Track {
    let mut track = Track::default();
    track.confirmed();
    track.ask(1);
    track.answered();
    track.place(at(offset));
    assert!(track.caught_up().is_empty());
    assert!(track.is_level());
    track
}

#[test]
fn what_follows_is_passed_on() {
    let mut track = level(3);
    assert_eq!(track.hear(live("e", 4)).map(|p| p.offset), Some(4));
    assert_eq!(track.hear(live("e", 5)).map(|p| p.offset), Some(5));
    assert_eq!(track.position(), Some(&at(5)));
}

#[test]
fn what_is_heard_before_the_position_is_known_is_held() {
    let mut track = Track::default();
    assert!(track.hear(live("e", 1)).is_none(), "not subscribed");
    track.confirmed();
    track.ask(1);
    for offset in 4..=6 {
        assert!(track.hear(live("e", offset)).is_none());
    }
    track.answered();
    track.place(at(4));
    assert_eq!(offsets(&track.caught_up()), [5, 6]);
    assert!(track.is_level());
}

#[test]
fn after_an_interruption_the_log_is_held_against_what_was_passed_on_last() {
    let mut track = level(3);
    assert_eq!(track.to_verify(), None);
    track.interrupted();
    assert_eq!(track.to_verify(), None, "nothing was passed on");
    track.confirmed();
    track.ask(2);
    track.answered();
    assert!(track.take(&logged(4)));
    assert!(track.caught_up().is_empty());
    track.interrupted();
    assert_eq!(track.to_verify(), Some(at(3)));
    assert!(!track.contradicts(&logged(4)));
    let mut other = logged(4);
    other.publication.as_mut().unwrap().data = Bytes::from_static(b"another");
    assert!(track.contradicts(&other));
    assert!(track.contradicts(&Entry { offset: 4, publication: Err("not_json") }));
    other.offset = 5;
    assert!(!track.contradicts(&other), "it is new");
    track.confirmed();
    track.ask(3);
    track.answered();
    assert!(track.caught_up().is_empty());
    assert_eq!(track.to_verify(), None, "it is as it was");
}

#[test]
fn a_hole_waits_for_the_log() {
    let mut track = level(3);
    assert!(track.hear(live("e", 6)).is_none());
    assert!(track.is_behind());
    track.ask(2);
    assert!(track.hear(live("e", 7)).is_none(), "held behind the hole");
    track.answered();
    assert!(track.take(&logged(4)) && track.take(&logged(5)) && track.take(&logged(6)));
    assert!(!track.take(&logged(6)), "once");
    assert_eq!(offsets(&track.caught_up()), [7]);
    assert!(track.is_level());
}

#[test]
fn what_is_heard_after_the_question_may_be_ahead_of_the_answer() {
    let mut track = level(3);
    track.hear(live("e", 5));
    track.ask(2);
    track.hear(live("e", 9));
    track.answered();
    assert!(track.take(&logged(4)) && track.take(&logged(5)) && track.take(&logged(6)));
    assert!(track.caught_up().is_empty());
    assert!(track.is_behind(), "seven and eight are missing: the log is read again");
    track.ask(3);
    track.answered();
    assert!(track.take(&logged(7)) && track.take(&logged(8)) && track.take(&logged(9)));
    assert!(track.caught_up().is_empty());
    assert!(track.is_level());
}

#[test]
fn what_the_log_does_not_confirm_is_dropped_and_asks_no_more() {
    let mut track = level(3);
    assert!(track.hear(live("e", 1000)).is_none());
    assert!(track.hear(live("other", 4)).is_none());
    assert!(track.is_behind());
    track.ask(2);
    track.answered();
    assert!(track.caught_up().is_empty());
    assert!(track.is_level());
    assert_eq!(track.hear(live("e", 4)).map(|p| p.offset), Some(4));
}

#[test]
fn an_offset_that_was_passed_on_is_looked_at_before_it_is_dropped() {
    let mut track = level(3);
    assert!(track.hear(live("e", 2)).is_none());
    assert!(track.is_behind(), "a failover that lost writes would look like this");
    track.ask(2);
    track.answered();
    assert!(track.caught_up().is_empty());
    assert_eq!(track.position(), Some(&at(3)));
}

#[test]
fn a_doubt_is_settled_by_a_question_asked_after_it() {
    let mut track = level(3);
    track.doubt();
    track.ask(2);
    track.doubt();
    track.answered();
    assert!(track.take(&logged(4)));
    track.caught_up();
    assert!(track.is_behind(), "the second one came after the question");
    track.ask(3);
    track.answered();
    track.caught_up();
    assert!(track.is_level());
}

#[test]
fn what_is_held_is_bounded() {
    let mut track = level(0);
    for offset in 2..10_000 {
        track.hear(live("e", offset));
    }
    assert_eq!(track.held.len(), HELD_ITEMS);
    let mut large = level(0);
    for offset in 2..20 {
        let publication = Publication { data: vec![b'x'; HELD_BYTES / 4].into(), ..publication(offset) };
        large.hear(Live { epoch: Bytes::from_static(b"e"), publication });
    }
    assert!(large.held_bytes <= HELD_BYTES && large.held.len() == 4);
}

#[test]
fn an_interruption_keeps_the_position_and_nothing_else() {
    let mut track = level(3);
    track.hear(live("e", 5));
    track.ask(2);
    track.interrupted();
    assert!(!track.expects(2) && !track.is_level() && !track.is_behind());
    assert_eq!(track.position(), Some(&at(3)));
    assert!(track.hear(live("e", 4)).is_none(), "not subscribed");
}

#[derive(Debug, Clone)]
enum Step {
    Publish { heard: bool },
    Ask,
    Answer,
}

proptest! {
    /// Whatever live publications are missing, and whenever the log is read: one stream, in order, without a hole.
    #[test]
    fn what_is_passed_on_has_no_holes(steps in proptest::collection::vec(prop_oneof![
        4 => any::<bool>().prop_map(|heard| Step::Publish { heard }),
        1 => Just(Step::Ask),
        1 => Just(Step::Answer),
    ], 1..200)) {
        let mut track = level(0);
        let (mut log, mut passed_on, mut number) = (0, Vec::new(), 1);
        for step in steps.into_iter().chain([Step::Publish { heard: true }, Step::Ask, Step::Answer, Step::Ask, Step::Answer]) {
            match step {
                Step::Publish { heard } => {
                    log += 1;
                    if heard {
                        passed_on.extend(track.hear(live("e", log)).map(|p| p.offset));
                    }
                }
                Step::Ask if track.is_behind() && !track.is_asked() => {
                    number += 1;
                    track.ask(number);
                }
                Step::Answer if track.is_asked() => {
                    track.answered();
                    passed_on.extend((1..=log).filter(|offset| track.take(&logged(*offset))));
                    passed_on.extend(track.caught_up().iter().map(|p| p.offset));
                }
                _ => {}
            }
        }
        prop_assert_eq!(passed_on, (1..=log).collect::<Vec<_>>());
        prop_assert!(track.is_level());
    }
}
