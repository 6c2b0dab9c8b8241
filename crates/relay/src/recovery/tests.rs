//! Who is answered by what.
#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use tidegate_protocol::Epoch;

use super::*;
use crate::sink::WorkerId;

fn news() -> ChannelName {
    ChannelName::parse("news").unwrap()
}

fn at(offset: u64) -> Position {
    Position { offset, epoch: Epoch::new("e") }
}

fn publication(offset: u64, bytes: usize) -> Publication {
    let data = Bytes::from(vec![b'1'; bytes]);
    Publication { channel: news(), data, info: None, tags: Vec::new(), offset }
}

fn recover(id: u32, since: Position) -> Recover {
    Recover { channel: news(), since, ticket: Ticket { worker: WorkerId(0), session: 1, id } }
}

fn offsets(recovered: &Recovered) -> Option<Vec<u64>> {
    recovered.publications.as_ref().map(|all| all.iter().map(|p| p.offset).collect())
}

/// The tail behind `from`, read up to `to`.
fn read(recoveries: &mut Recoveries, from: u64, to: u64, now: Instant) {
    recoveries.begin(&news(), from);
    (from + 1..=to).for_each(|offset| recoveries.read(&news(), Arc::new(publication(offset, 1)), false));
    recoveries.complete(&news(), now);
}

#[test]
fn what_needs_no_log_is_answered_without() {
    let mut recoveries = Recoveries::default();
    let other = Position { offset: 3, epoch: Epoch::new("other") };
    for (id, since) in (1..).zip([at(5), at(6), other]) {
        assert!(recoveries.wait(recover(id, since)));
    }
    let answers = recoveries.answer(&news(), &at(5));
    let got: Vec<_> = answers.iter().map(|(ticket, recovered)| (ticket.id, offsets(recovered))).collect();
    assert_eq!(got, [(1, Some(vec![]))], "the others may have been ahead of us");
    assert_eq!(recoveries.wanted(&news(), &at(5)), Some(5), "a look is enough");
    recoveries.asked("news");
    let answers = recoveries.answer(&news(), &at(5));
    let got: Vec<_> = answers.iter().map(|(ticket, recovered)| (ticket.id, offsets(recovered))).collect();
    assert_eq!(got, [(2, None), (3, None)]);
    assert_eq!(recoveries.wanted(&news(), &at(5)), None);
}

#[test]
fn one_reading_answers_everyone_and_those_who_come_a_little_later() {
    let now = Instant::now();
    let mut recoveries = Recoveries::default();
    for (id, since) in [(1, 3), (2, 2), (3, 3)] {
        recoveries.wait(recover(id, at(since)));
    }
    assert!(recoveries.answer(&news(), &at(5)).is_empty());
    assert_eq!(recoveries.wanted(&news(), &at(5)), Some(2));
    recoveries.begin(&news(), 2);
    // Heard while the log is read; the log has some of it.
    assert!(recoveries.heard(&news(), &publication(6, 1)) && recoveries.heard(&news(), &publication(7, 1)));
    (3..=6).for_each(|offset| recoveries.read(&news(), Arc::new(publication(offset, 1)), false));
    recoveries.complete(&news(), now);
    let answers = recoveries.answer(&news(), &at(7));
    let got: Vec<_> = answers.iter().map(|(ticket, recovered)| (ticket.id, offsets(recovered))).collect();
    assert_eq!(
        got,
        [(1, Some(vec![4, 5, 6, 7])), (2, Some(vec![3, 4, 5, 6, 7])), (3, Some(vec![4, 5, 6, 7]))]
    );

    assert!(recoveries.heard(&news(), &publication(8, 1)));
    recoveries.wait(recover(4, at(6)));
    recoveries.wait(recover(5, at(1)));
    let answers = recoveries.answer(&news(), &at(8));
    assert_eq!(answers.len(), 1, "the other one wants more than was read");
    assert_eq!(offsets(&answers[0].1), Some(vec![7, 8]));
    assert_eq!(recoveries.wanted(&news(), &at(8)), Some(1));

    recoveries.sweep(now + KEEP);
    assert!(!recoveries.heard(&news(), &publication(9, 1)), "it is not kept any more");
    assert_eq!(recoveries.bytes, 0);
}

#[test]
fn who_asks_for_the_same_shares_it() {
    let mut recoveries = Recoveries::default();
    read(&mut recoveries, 0, 5, Instant::now());
    for id in 1..=2 {
        recoveries.wait(recover(id, at(2)));
    }
    let answers = recoveries.answer(&news(), &at(5));
    let [one, two] = [0, 1].map(|n: usize| answers[n].1.publications.clone().unwrap());
    assert!(Arc::ptr_eq(&one, &two));
}

#[test]
fn what_was_trimmed_cannot_be_had() {
    let mut recoveries = Recoveries::default();
    recoveries.begin(&news(), 1);
    recoveries.trimmed(&news(), 3);
    recoveries.read(&news(), Arc::new(publication(4, 1)), false);
    recoveries.complete(&news(), Instant::now());
    recoveries.wait(recover(1, at(2)));
    recoveries.wait(recover(2, at(3)));
    let answers = recoveries.answer(&news(), &at(4));
    assert_eq!(offsets(&answers[0].1), None);
    assert_eq!(offsets(&answers[1].1), Some(vec![4]));
}

#[test]
fn everything_is_bounded() {
    let mut recoveries = Recoveries::default();
    recoveries.begin(&news(), 0);
    for offset in 1..=9 {
        recoveries.read(&news(), Arc::new(publication(offset, TAIL_BYTES / 8)), false);
    }
    recoveries.complete(&news(), Instant::now());
    recoveries.wait(recover(1, at(0)));
    let answers = recoveries.answer(&news(), &at(9));
    assert_eq!(offsets(&answers[0].1), None, "more than a client could be sent");
    recoveries.sweep(Instant::now());
    assert_eq!(recoveries.bytes, 0);

    for id in 0..u32::try_from(MOST_WAITING).unwrap() {
        assert!(recoveries.wait(recover(id, at(0))));
    }
    assert!(!recoveries.wait(recover(0, at(0))));
    assert_eq!(recoveries.interrupted().len(), MOST_WAITING);
    assert!(recoveries.wait(recover(0, at(0))));
    assert_eq!(recoveries.give_up(&news()).len(), 1);
    assert_eq!(recoveries.count, 0);
}
