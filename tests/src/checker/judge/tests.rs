//! Hand-made histories, one for each verdict, and good ones that look bad.

use super::{Breach, Judge, Verdict};
use crate::checker::history::{Entry, Heard, Loss, Position, What};

const NEWS: &str = "kept:news";
const PLAIN: &str = "plain";

/// A history as it grows: a microsecond an entry.
struct Story {
    entries: Vec<Entry>,
}

fn at(epoch: &str, offset: u64) -> Option<Position> {
    Some(Position { offset, epoch: epoch.to_owned() })
}

impl Story {
    fn new() -> Self {
        let story = Self { entries: Vec::new() };
        story.and(What::Channel { channel: NEWS.to_owned(), size: 100, ttl: 300 }).and(What::Channel {
            channel: PLAIN.to_owned(),
            size: 0,
            ttl: 0,
        })
    }

    fn and(mut self, what: What) -> Self {
        let at = self.entries.len() as u64;
        self.entries.push(Entry { at, what });
        self
    }

    fn tried(self, id: u64) -> Self {
        self.and(What::Attempt { channel: NEWS.to_owned(), id, door: "api".to_owned() })
    }

    fn taken(self, id: u64, position: Option<Position>) -> Self {
        self.and(What::Acknowledged { channel: NEWS.to_owned(), id, position })
    }

    /// Tried and taken.
    fn published(self, id: u64, epoch: &str, offset: u64) -> Self {
        self.tried(id).taken(id, at(epoch, offset))
    }

    fn asked(self, who: &str, since: Option<Position>) -> Self {
        self.and(What::Asked { who: who.to_owned(), channel: NEWS.to_owned(), since })
    }

    fn answered(
        self,
        who: &str,
        position: Option<Position>,
        recovered: Option<bool>,
        got: &[(u64, u64)],
    ) -> Self {
        let publications = got.iter().map(|(id, offset)| Heard { id: *id, offset: *offset }).collect();
        self.and(What::Subscribed {
            who: who.to_owned(),
            channel: NEWS.to_owned(),
            position,
            was_recovering: recovered.is_some(),
            recovered: recovered == Some(true),
            publications: Some(publications),
        })
    }

    /// Subscribed from that position on.
    fn joined(self, who: &str, epoch: &str, offset: u64) -> Self {
        self.asked(who, None).answered(who, at(epoch, offset), None, &[])
    }

    fn heard(self, who: &str, id: u64, offset: u64) -> Self {
        let heard = Heard { id, offset };
        self.and(What::Delivered { who: who.to_owned(), channel: NEWS.to_owned(), heard })
    }

    fn gone(self, who: &str) -> Self {
        self.and(What::Disconnected { who: who.to_owned(), why: "cut".to_owned() })
    }

    fn loses(self, loses: Loss) -> Self {
        self.and(What::Fault { fault: "a fault".to_owned(), loses })
    }

    /// Ends here, with this as the last publication.
    fn last(self, id: u64) -> Self {
        self.and(What::Last { channel: NEWS.to_owned(), id })
    }

    fn judged(self) -> Verdict {
        let mut judge = Judge::default();
        for entry in self.entries {
            // As it would come out of a file.
            let line = serde_json::to_string(&entry).expect("an entry is JSON");
            let read: Entry = serde_json::from_str(&line).expect("and JSON is an entry");
            assert_eq!(read, entry, "{line}");
            judge.take(entry);
        }
        judge.verdict()
    }

    fn good(self) -> Verdict {
        let verdict = self.judged();
        assert!(verdict.good(), "{verdict}");
        verdict
    }

    /// Exactly these, each once or more.
    fn found(self, breaches: &[Breach]) {
        let verdict = self.judged();
        let found: Vec<Breach> = verdict.breaches.keys().copied().collect();
        assert_eq!(found, breaches, "{verdict}");
    }
}

/// Two subscribers, one publication that both heard.
fn scene() -> Story {
    Story::new()
        .joined("a", "x", 0)
        .joined("b", "x", 0)
        .published(1, "x", 1)
        .heard("a", 1, 1)
        .heard("b", 1, 1)
}

#[test]
fn everything_once_in_order_is_good() {
    let verdict = scene().published(2, "x", 2).heard("b", 2, 2).heard("a", 2, 2).last(2).good();
    let counts = verdict.counts[NEWS];
    assert_eq!((counts.attempts, counts.acknowledged, counts.delivered, counts.subscribed), (2, 2, 4, 2));
}

#[test]
fn what_was_missed_and_recovered_is_good() {
    let story = scene().gone("a").published(2, "x", 2).heard("b", 2, 2).published(3, "x", 3).heard("b", 3, 3);
    let story = story.asked("a", at("x", 1)).answered("a", at("x", 1), Some(true), &[(2, 2), (3, 3)]);
    let verdict = story.last(3).good();
    assert_eq!(verdict.counts[NEWS].recovered, 1);
}

#[test]
fn a_recovery_told_as_its_end_is_good_too() {
    let story = scene().gone("a").published(2, "x", 2).heard("b", 2, 2);
    story.asked("a", at("x", 1)).answered("a", at("x", 2), Some(true), &[(2, 2)]).last(2).good();
}

#[test]
fn one_that_never_arrives_is_lost() {
    scene().published(2, "x", 2).heard("a", 2, 2).last(2).found(&[Breach::Lost]);
}

#[test]
fn one_that_only_a_client_knows_to_be_taken_is_lost_too() {
    let story = scene().tried(2).taken(2, None).published(3, "x", 2).heard("a", 3, 2).heard("b", 3, 2);
    story.last(3).found(&[Breach::Lost]);
}

#[test]
fn a_jump_is_a_hole_and_what_it_jumps_over_is_nobodys() {
    let story = scene().published(2, "x", 2).heard("a", 2, 2).published(3, "x", 3).heard("a", 3, 3);
    story.heard("b", 3, 3).last(3).found(&[Breach::Hole]);
}

#[test]
fn a_recovery_with_a_hole_is_a_hole() {
    let story = scene().gone("a").published(2, "x", 2).heard("b", 2, 2).published(3, "x", 3).heard("b", 3, 3);
    let story = story.asked("a", at("x", 1)).answered("a", at("x", 1), Some(true), &[(3, 3)]);
    story.last(3).found(&[Breach::Hole]);
}

#[test]
fn a_recovery_of_nothing_that_moves_the_position_is_a_hole() {
    let story = scene().gone("a").published(2, "x", 2).heard("b", 2, 2);
    let story = story.asked("a", at("x", 1)).answered("a", at("x", 2), Some(true), &[]);
    story.last(2).found(&[Breach::Lost, Breach::Hole]);
}

#[test]
fn a_wish_to_recover_that_is_not_answered_is_a_hole() {
    let story = scene().gone("a").published(2, "x", 2).heard("b", 2, 2);
    story.asked("a", at("x", 1)).answered("a", at("x", 2), None, &[]).last(2).found(&[Breach::Hole]);
}

#[test]
fn twice_is_duplicated() {
    scene().heard("a", 1, 1).last(1).found(&[Breach::Duplicated]);
    scene().heard("a", 1, 2).last(1).found(&[Breach::Duplicated, Breach::Conflict]);
}

#[test]
fn taken_twice_is_duplicated() {
    let story = scene().tried(1).taken(1, at("x", 2)).heard("a", 1, 2).heard("b", 1, 2);
    story.last(1).found(&[Breach::Duplicated]);
}

#[test]
fn one_behind_a_later_one_is_reordered() {
    let story = scene().published(2, "x", 2).published(3, "x", 3);
    let story = story.heard("a", 2, 2).heard("a", 3, 3).heard("b", 3, 3).heard("b", 2, 2);
    story.last(3).found(&[Breach::Reordered, Breach::Hole]);
}

#[test]
fn what_nobody_tried_is_stray() {
    let story = scene().heard("a", 7, 2);
    story.last(1).found(&[Breach::Stray]);
}

#[test]
fn what_was_refused_must_not_arrive() {
    let failed = What::Failed { channel: NEWS.to_owned(), id: 2, why: "no".to_owned() };
    let story = scene().tried(2).and(failed.clone()).last(1);
    story.good();
    let story = scene().tried(2).and(failed).heard("a", 2, 2).heard("b", 2, 2);
    story.last(1).found(&[Breach::Stray]);
}

#[test]
fn what_nobody_knows_may_arrive_or_not() {
    let unknown = What::Unknown { channel: NEWS.to_owned(), id: 2, why: "late".to_owned() };
    scene().tried(2).and(unknown.clone()).last(1).good();
    scene().tried(2).and(unknown).heard("a", 2, 2).heard("b", 2, 2).last(1).good();
}

#[test]
fn a_push_before_the_reply_is_found() {
    let story = scene().gone("a").published(2, "x", 2).heard("b", 2, 2).asked("a", at("x", 1));
    let story = story.heard("a", 2, 2).answered("a", at("x", 1), Some(true), &[(2, 2)]);
    story.last(2).found(&[Breach::Unsubscribed]);
}

#[test]
fn a_push_behind_the_end_is_found() {
    let unsubscribed = What::Unsubscribed { who: "a".to_owned(), channel: NEWS.to_owned(), code: 2500 };
    let story = scene().and(unsubscribed).published(2, "x", 2).heard("b", 2, 2).heard("a", 2, 2);
    let story = story.asked("a", at("x", 1)).answered("a", at("x", 1), Some(true), &[(2, 2)]);
    story.last(2).found(&[Breach::Unsubscribed]);
}

#[test]
fn two_at_one_position_are_found() {
    let story = scene().tried(2).tried(3).heard("a", 2, 2).heard("b", 3, 2);
    story.last(1).found(&[Breach::Conflict]);
}

#[test]
fn an_epoch_that_changes_without_a_word_is_found() {
    // The offsets happen to go on, so that only the publisher knows.
    let story = scene().loses(Loss::Everything).published(2, "y", 1).published(3, "y", 2);
    story.heard("a", 3, 2).heard("b", 3, 2).last(3).found(&[Breach::Lost, Breach::Conflict]);
}

#[test]
fn a_new_epoch_that_is_told_is_good() {
    let story = scene().loses(Loss::Everything).published(2, "y", 1);
    let story = ["a", "b"].into_iter().fold(story, |story, who| {
        let code = 2500;
        story
            .and(What::Unsubscribed { who: who.to_owned(), channel: NEWS.to_owned(), code })
            .asked(who, at("x", 1))
            .answered(who, at("y", 1), Some(false), &[])
    });
    let verdict = story.last(2).good();
    assert_eq!((verdict.counts[NEWS].gaps, verdict.counts[NEWS].interrupted), (2, 2));
}

#[test]
fn a_gap_that_is_none_is_needless() {
    let story = scene().gone("a").published(2, "x", 2).heard("b", 2, 2).asked("a", at("x", 1));
    story.answered("a", at("x", 2), Some(false), &[]).last(2).found(&[Breach::Needless]);
    let story = scene().gone("a").published(2, "y", 1).asked("a", at("x", 1));
    let story = story.answered("a", at("y", 1), Some(false), &[]).gone("b");
    let story = story.asked("b", at("x", 1)).answered("b", at("y", 1), Some(false), &[]);
    story.last(2).found(&[Breach::Needless]);
}

#[test]
fn a_gap_beyond_what_is_kept_is_good() {
    let mut story = scene().gone("a");
    for id in 2..=200 {
        story = story.published(id, "x", id).heard("b", id, id);
    }
    story.asked("a", at("x", 1)).answered("a", at("x", 200), Some(false), &[]).last(200).good();
}

#[test]
fn positions_given_twice_must_be_told_to_whoever_saw_the_first() {
    // 2 was heard by a, and then Redis forgot it and gave its position to 3.
    let story = scene().gone("b").published(2, "x", 2).heard("a", 2, 2).loses(Loss::Latest);
    let story = story.published(3, "x", 2).asked("b", at("x", 1));
    let story = story.answered("b", at("x", 1), Some(true), &[(3, 2)]);
    story.last(3).found(&[Breach::Lost, Breach::Conflict]);
}

#[test]
fn what_redis_forgot_before_anybody_heard_it_is_gone_and_counted() {
    let story = scene().published(2, "x", 2).loses(Loss::Latest).published(3, "x", 2);
    let verdict = story.heard("a", 3, 2).heard("b", 3, 2).last(3).good();
    assert_eq!(verdict.counts[NEWS].gone, 1);
}

#[test]
fn who_does_not_come_back_is_stranded() {
    scene().gone("a").last(1).found(&[Breach::Stranded]);
    scene().asked("c", None).last(1).found(&[Breach::Stranded]);
}

/// Two publications in the channel without history, and one who hears what it is given.
fn plain(heard: &[u64]) -> Story {
    let channel = || PLAIN.to_owned();
    let who = || "a".to_owned();
    let mut story =
        Story::new().and(What::Asked { who: who(), channel: channel(), since: None }).and(What::Subscribed {
            who: who(),
            channel: channel(),
            position: None,
            was_recovering: false,
            recovered: false,
            publications: None,
        });
    for id in [1, 2, 3] {
        story = story
            .and(What::Attempt { channel: channel(), id, door: "api".to_owned() })
            .and(What::Acknowledged { channel: channel(), id, position: None });
    }
    for id in heard {
        let heard = Heard { id: *id, offset: 0 };
        story = story.and(What::Delivered { who: who(), channel: channel(), heard });
    }
    story.and(What::Last { channel: channel(), id: 3 })
}

#[test]
fn without_history_the_order_holds_and_nothing_comes_twice() {
    plain(&[1, 2, 3]).good();
    plain(&[1, 3]).good();
    plain(&[2, 1, 3]).found(&[Breach::Reordered]);
    plain(&[1, 1, 3]).found(&[Breach::Duplicated]);
    plain(&[1, 2]).found(&[Breach::Stranded]);
    plain(&[1, 9, 3]).found(&[Breach::Stray]);
}
