//! One worker's sessions and channels.

use std::sync::Arc;

use tidegate_protocol::{ChannelName, Codec, Control, Disconnect, ErrorCode};

use crate::broadcast::Broadcast;
use crate::effect::Effect;
use crate::outbox::Outbox;
use crate::policy::{Authenticator, Policy};
use crate::tally::Tally;
use crate::tick::Tick;

/// Names a session of a shard. The index is small and dense, so that the gateway can keep its sockets in a parallel
/// table; the generation tells a later session in the same place apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// The place in the shard's slab.
    pub index: u32,
    /// How often the place was used before.
    pub generation: u32,
}

/// What is known of a connection when its WebSocket opens.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// Which codec it speaks.
    pub codec: Codec,
    /// Whether it wants native WebSocket pings instead of application pings.
    pub native_ping: bool,
}

/// One worker's sessions and channels.
#[derive(Debug)]
pub struct Shard {
    _policy: Arc<Policy>,
}

impl Shard {
    /// An empty shard.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self { _policy: policy }
    }

    /// A connection opened; it must send `connect` before the policy's deadline.
    pub fn open(&mut self, _opening: Opening, _now: Tick) -> SessionKey {
        todo!()
    }

    /// A whole data message came (text in JSON, binary in Protobuf; `is_text` says which frame type it had, the
    /// wrong one ends the session with 3501). Runs its commands in order; replies made at once leave as one frame.
    pub fn message(
        &mut self,
        _session: SessionKey,
        _is_text: bool,
        _message: &[u8],
        _authenticator: &dyn Authenticator,
        _now: Tick,
    ) {
        todo!()
    }

    /// A native WebSocket pong came.
    pub fn native_pong(&mut self, _session: SessionKey, _now: Tick) {
        todo!()
    }

    /// A native WebSocket ping came: answers with a pong of the same bytes.
    pub fn native_ping(&mut self, _session: SessionKey, _payload: &[u8]) {
        todo!()
    }

    /// The relay hears the channel now, or cannot.
    pub fn joined(&mut self, _channel: &ChannelName, _result: Result<(), ErrorCode>) {
        todo!()
    }

    /// The relay acknowledged a client's publication, or could not take it.
    pub fn published(&mut self, _session: SessionKey, _id: u32, _result: Result<(), ErrorCode>) {
        todo!()
    }

    /// A publication arrived: puts its frame into the outbox of each member.
    pub fn deliver(&mut self, _broadcast: &Broadcast) {
        todo!()
    }

    /// A backend or another node asks something of the sessions it selects.
    pub fn control(&mut self, _control: &Control) {
        todo!()
    }

    /// Ends a session: leaves its channels, puts a Close frame behind what its outbox holds (for `Slow` and
    /// `WriteError` everything but a half-written frame is dropped first) and asks for `Effect::Ended`. Does nothing to
    /// a session that has ended already. `Lost` puts no Close frame.
    pub fn end(&mut self, _session: SessionKey, _reason: Disconnect) {
        todo!()
    }

    /// The socket is gone: forgets the session, whatever its state.
    pub fn remove(&mut self, _session: SessionKey) {
        todo!()
    }

    /// Time has passed: sends due pings, ends sessions past a deadline.
    pub fn sweep(&mut self, _now: Tick) {
        todo!()
    }

    /// A session's outbox, to write from.
    pub fn outbox(&mut self, _session: SessionKey) -> Option<&mut Outbox> {
        todo!()
    }

    /// Moves the sessions whose outbox became non-empty since the last call into `into`, each once.
    pub fn take_dirty(&mut self, _into: &mut Vec<SessionKey>) {
        todo!()
    }

    /// Moves what the shard asks for into `into`, in order.
    pub fn take_effects(&mut self, _into: &mut Vec<Effect>) {
        todo!()
    }

    /// What was counted since the last call.
    pub fn take_tally(&mut self) -> Tally {
        todo!()
    }

    /// Every session that has not ended, for a drain.
    pub fn sessions(&self) -> Vec<SessionKey> {
        todo!()
    }

    /// The sessions counted by codec, in the order of `Codec::ALL`.
    pub fn session_counts(&self) -> [usize; 2] {
        todo!()
    }

    /// How many subscriptions the sessions hold together.
    pub fn subscription_count(&self) -> usize {
        todo!()
    }

    /// Bytes waiting in all outboxes.
    pub fn outbox_bytes(&self) -> usize {
        todo!()
    }

    /// The channels with a member here, each with how many.
    pub fn channels(&self) -> Vec<(ChannelName, usize)> {
        todo!()
    }
}
