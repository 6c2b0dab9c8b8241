//! Connections that all publish, each to its own room and at its own pace.

use std::time::Duration;

use slab::Slab;

use super::connection::{Connection, End, Phase, Shared};
use crate::clock;
use crate::process::to_f64;
use crate::speech::{self, Stamp};
use crate::wire::Chat;

/// How long answers are waited for after the last publication: those of connections that are gone never come.
const PATIENCE: u64 = 5_000_000_000;

/// A run of publications by everyone. Publication `i` of the process is number `i / n` of its connection `i % n`, and
/// they are spread evenly over time; neighbours in the order are in different rooms.
pub(super) struct Chatter {
    chat: Chat,
    /// Connections, in the order in which they publish.
    keys: Vec<usize>,
    began: u64,
    next: u64,
}

impl Chatter {
    pub(super) fn new(chat: Chat, table: &Slab<Connection>, shared: &Shared, now: u64) -> Self {
        let open = table.iter().filter(|(_, one)| one.phase == Phase::Open);
        let mut keys: Vec<usize> = open.map(|(key, _)| key).collect();
        keys.sort_by_key(|key| {
            let number = table[*key].number;
            (shared.channels.member(number), shared.channels.index(number))
        });
        Self { chat, keys, began: now, next: 0 }
    }

    fn all(&self) -> u64 {
        self.keys.len() as u64 * u64::from(self.chat.each)
    }

    /// When the next one is due, in nanoseconds of the clock.
    fn due(&self) -> u64 {
        let rate = self.chat.rate * to_f64(self.keys.len() as u64);
        let after = Duration::try_from_secs_f64(to_f64(self.next) / rate).unwrap_or(Duration::MAX);
        self.began.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX))
    }

    /// How long there is nothing to write.
    pub(super) fn rest(&self, now: u64) -> Duration {
        if self.next >= self.all() {
            return Duration::from_millis(5);
        }
        Duration::from_nanos(self.due().saturating_sub(now)).min(Duration::from_millis(20))
    }

    /// Writes the next one if it is due. Errors: the connection that ended, and how.
    pub(super) fn write(
        &mut self,
        table: &mut Slab<Connection>,
        shared: &Shared,
        now: u64,
    ) -> Option<Result<(), (usize, End)>> {
        if self.next >= self.all() || now < self.due() {
            return None;
        }
        let connections = self.keys.len() as u64;
        let key = usize::try_from(self.next % connections).ok().and_then(|at| self.keys.get(at).copied())?;
        let turn = u32::try_from(self.next / connections).unwrap_or(u32::MAX);
        self.next += 1;
        // One that is gone says no more: the others miss it, and the books show it.
        let connection = table.get_mut(key).filter(|one| one.phase == Phase::Open)?;
        let (room, member) =
            (shared.channels.index(connection.number), shared.channels.member(connection.number));
        let number = turn.saturating_mul(self.chat.room).saturating_add(member);
        let stamp = Stamp { run: self.chat.run, number, at: clock::now(), channel: room };
        let data = speech::data(stamp, self.chat.size);
        connection.publish(shared.protocol, turn, &shared.channels.name(room), &data);
        Some(connection.send().map_err(|end| (key, end)))
    }

    /// How many were made so far.
    pub(super) fn made(&self) -> u32 {
        u32::try_from(self.next).unwrap_or(u32::MAX)
    }

    /// Whether all are written and, if they are answered, answered or given up.
    pub(super) fn done(&self, shared: &Shared, now: u64) -> bool {
        let answered = !speech::acknowledged(shared.protocol) || u64::from(shared.acknowledged) >= self.next;
        self.next >= self.all() && (answered || now > self.due().saturating_add(PATIENCE))
    }
}
