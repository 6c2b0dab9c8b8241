//! What one subscriber got of a run of publications: lost, twice, late.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The most holes that are remembered. Beyond it the oldest is taken for lost for good; what fills it later counts as
/// a duplicate, and by then the result says enough.
const MOST_HOLES: usize = 1_024;

/// The books of one connection. Empty, they take no heap.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The number that comes next if all is well.
    next: u32,
    /// How many of those before `next` came.
    distinct: u32,
    duplicated: u32,
    reordered: u32,
    /// Numbers before `next` that did not come: first, and one behind the last; in order.
    holes: VecDeque<(u32, u32)>,
}

/// The sum of many ledgers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Publications that came, each counted once.
    pub(crate) received: u64,
    /// Publications that were published and did not come.
    pub(crate) lost: u64,
    /// Publications that came again.
    pub(crate) duplicated: u64,
    /// Publications that came after a later one.
    pub(crate) reordered: u64,
    /// Publications that came to a connection that is not in their channel.
    pub(crate) strayed: u64,
}

impl Ledger {
    /// Publication `number` of the run came; numbers begin with 0.
    pub(crate) fn came(&mut self, number: u32) {
        if number >= self.next {
            if number > self.next {
                if self.holes.len() == MOST_HOLES {
                    self.holes.pop_front();
                }
                self.holes.push_back((self.next, number));
            }
            self.next = number.saturating_add(1);
            self.distinct += 1;
            return;
        }
        let Some(at) = self.holes.iter().position(|&(from, to)| (from..to).contains(&number)) else {
            self.duplicated += 1;
            return;
        };
        let (from, to) = self.holes[at];
        self.holes.remove(at);
        // The two halves that are left, in order and if there is anything in them.
        if number + 1 < to {
            self.holes.insert(at, (number + 1, to));
        }
        if from < number {
            self.holes.insert(at, (from, number));
        }
        self.distinct += 1;
        self.reordered += 1;
    }

    /// Whether all of `published` came.
    pub(crate) fn complete(&self, published: u32) -> bool {
        self.distinct >= published
    }

    /// Whether the newest of `published` came.
    pub(crate) fn newest(&self, published: u32) -> bool {
        self.next >= published
    }

    /// Adds the books to an account, `published` publications having been made.
    pub(crate) fn close(&self, published: u32, account: &mut Account) {
        account.received += u64::from(self.distinct);
        account.lost += u64::from(published.saturating_sub(self.distinct));
        account.duplicated += u64::from(self.duplicated);
        account.reordered += u64::from(self.reordered);
    }
}

impl Account {
    /// Adds another one.
    pub(crate) fn add(&mut self, other: Self) {
        self.received += other.received;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.strayed += other.strayed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(numbers: &[u32], published: u32) -> (u64, u64, u64, u64) {
        let mut ledger = Ledger::default();
        for &number in numbers {
            ledger.came(number);
        }
        let mut account = Account::default();
        ledger.close(published, &mut account);
        assert_eq!(ledger.complete(published), account.lost == 0);
        (account.received, account.lost, account.duplicated, account.reordered)
    }

    #[test]
    fn everything_in_order_is_nothing_lost() {
        assert_eq!(account(&[0, 1, 2, 3], 4), (4, 0, 0, 0));
        assert_eq!(account(&[], 0), (0, 0, 0, 0));
    }

    #[test]
    fn what_never_came_is_lost_at_the_start_in_the_middle_and_at_the_end() {
        assert_eq!(account(&[], 3), (0, 3, 0, 0));
        assert_eq!(account(&[2, 3], 4), (2, 2, 0, 0));
        assert_eq!(account(&[0, 3], 4), (2, 2, 0, 0));
        assert_eq!(account(&[0, 1], 4), (2, 2, 0, 0));
    }

    #[test]
    fn what_came_twice_does_not_make_up_for_what_was_lost() {
        assert_eq!(account(&[0, 0, 1, 1, 1], 4), (2, 2, 3, 0));
    }

    #[test]
    fn what_came_late_is_neither_lost_nor_twice_and_the_second_time_is() {
        assert_eq!(account(&[0, 5, 3, 1, 2, 4], 6), (6, 0, 0, 4));
        assert_eq!(account(&[0, 5, 3, 3, 5], 6), (3, 3, 2, 1));
    }

    #[test]
    fn the_books_stay_small_however_much_is_missing() {
        let mut ledger = Ledger::default();
        for number in (0..100_000).step_by(2) {
            ledger.came(number + 1);
        }
        assert!(ledger.holes.len() <= MOST_HOLES);
        let mut account = Account::default();
        ledger.close(100_000, &mut account);
        assert_eq!((account.received, account.lost), (50_000, 50_000));
    }
}
