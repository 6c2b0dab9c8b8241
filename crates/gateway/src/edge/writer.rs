//! A connection's outbound side and its end.
//!
//! The end of a connection, whoever begins it:
//!
//! 1. The shard ends the session: no publication reaches it any more, its Close frame is the last in its outbox.
//! 2. The outbox is written, then our side of the socket is shut.
//! 3. The socket is dropped when the peer has closed too, or at the deadline. RFC 6455, 7.1.1, wants the server to
//!    close first, which the FIN of step 2 is; dropping the socket then already would reset the connection if the peer
//!    still sends, and the reset could take the Close frame with it.
//! 4. Dropping the session gives the permit back.

use std::io::ErrorKind;

use tidegate_hub::SessionKey;
use tidegate_protocol::Disconnect;

use super::session::Phase;
use super::transport::Written;
use super::worker::Worker;

impl Worker {
    /// Writes a session's outbox as far as the socket takes it.
    pub(super) fn flush(&mut self, key: SessionKey) {
        let Self { sessions, shard, plaintext, bytes_sent, now, .. } = self;
        let Some(session) = sessions.get_mut(key.index) else { return };
        let Some(outbox) = shard.outbox(key) else { return };
        let before = *bytes_sent;
        match session.transport.write(outbox, plaintext, bytes_sent) {
            Ok(Written::All) => {
                session.stalled = None;
                if session.phase != Phase::Open {
                    self.written_out(key);
                }
            }
            Ok(Written::Blocked) => {
                shard.blocked(key);
                if session.stalled.is_none() || *bytes_sent > before {
                    session.stalled = Some(*now);
                    self.watch(key);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "writing to a client failed");
                // A peer that reset the connection has gone; anything else is a socket that failed.
                let reset = matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
                self.gone(key, if reset { Disconnect::Lost } else { Disconnect::WriteError });
            }
        }
    }

    /// TLS may have answered by itself while it read; what the socket did not take goes out when it has room.
    pub(super) fn await_room(&mut self, key: SessionKey) {
        let now = self.now;
        if let Some(session) = self.session(key)
            && session.transport.has_pending()
            && session.stalled.is_none()
        {
            session.stalled = Some(now);
            self.watch(key);
        }
    }

    /// A socket has room again.
    pub(super) fn writable(&mut self, key: SessionKey) {
        if self.session(key).is_some_and(|session| session.stalled.is_some()) {
            self.flush(key);
        }
    }

    /// The shard has ended a session.
    pub(super) fn ended(&mut self, key: SessionKey, reason: Disconnect) {
        let deadline = self.now.after(self.deadlines.closing);
        let Some(session) = self.session(key) else {
            self.shard.remove(key);
            return;
        };
        if session.phase != Phase::Open {
            return;
        }
        session.phase = Phase::Ending { reason, deadline };
        session.unfinished = None;
        if reason == Disconnect::Lost {
            self.remove(key);
        } else {
            self.watch(key);
            self.flush(key);
        }
    }

    /// Everything is written to a session that has ended.
    fn written_out(&mut self, key: SessionKey) {
        let Some(session) = self.session(key) else { return };
        if session.transport.shutdown().is_err() {
            self.remove(key);
        }
    }

    /// The peer has closed its side of the socket, or the socket has failed.
    pub(super) fn peer_gone(&mut self, key: SessionKey) {
        self.gone(key, Disconnect::Lost);
    }

    fn gone(&mut self, key: SessionKey, reason: Disconnect) {
        let Some(session) = self.session(key) else { return };
        match session.phase {
            // The shard answers with `Effect::Ended`, unless nothing can be written any more.
            Phase::Open if reason == Disconnect::Lost => self.shard.end(key, reason),
            Phase::Open => {
                let deadline = self.now;
                if let Some(session) = self.session(key) {
                    session.phase = Phase::Ending { reason, deadline };
                }
                self.remove(key);
            }
            Phase::Ending { .. } => self.remove(key),
        }
    }

    /// Drops the socket and forgets the session.
    pub(super) fn remove(&mut self, key: SessionKey) {
        if self.session(key).is_none() {
            return;
        }
        let Some(session) = self.sessions.remove(key.index) else { return };
        let reason = match session.phase {
            Phase::Ending { reason, .. } => reason,
            Phase::Open => Disconnect::Lost,
        };
        let age = session.opened.elapsed();
        tracing::debug!(
            code = reason.code(),
            reason = reason.text(),
            age_seconds = age.as_secs_f64(),
            "connection ended"
        );
        self.common.metrics.disconnected(reason, age);
        drop(session);
        self.shard.remove(key);
    }

    /// Bytes in outboxes whose socket has no room. Every other outbox was written out in its turn.
    pub(super) fn waiting_bytes(&mut self) -> usize {
        let Self { watched, shard, .. } = self;
        watched.iter().map(|key| shard.outbox(*key).map_or(0, |outbox| outbox.bytes())).sum()
    }

    /// Puts a session into the list of those with a deadline.
    pub(super) fn watch(&mut self, key: SessionKey) {
        if let Some(session) = self.session(key)
            && !session.watched
        {
            session.watched = true;
            self.watched.push(key);
        }
    }

    /// Ends what is past its deadline: unfinished messages, stalled writes, ended connections that linger.
    pub(super) fn sweep_watched(&mut self) {
        let watched = std::mem::take(&mut self.watched);
        for key in watched {
            let (now, deadlines) = (self.now, self.deadlines);
            let Some(session) = self.session(key) else { continue };
            match session.phase {
                Phase::Open => {
                    if session.unfinished.is_some_and(|since| now > since.after(deadlines.message)) {
                        self.shard.end(key, Disconnect::BadRequest);
                    } else if session.stalled.is_some_and(|since| now > since.after(deadlines.write)) {
                        self.shard.end(key, Disconnect::WriteError);
                    }
                }
                Phase::Ending { deadline, .. } if now > deadline => {
                    session.transport.abort();
                    self.remove(key);
                    continue;
                }
                Phase::Ending { .. } => {}
            }
            // Still to be watched while it has a deadline; an end that was just asked for is watched by its effect.
            let Some(session) = self.session(key) else { continue };
            session.watched =
                session.unfinished.is_some() || session.stalled.is_some() || session.phase != Phase::Open;
            if session.watched {
                self.watched.push(key);
            }
        }
    }
}
