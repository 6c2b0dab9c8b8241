//! A publication on its way to many: encoded once per codec, whoever needs it first, shared by all workers.
//!
//! Publications of one channel that wait together travel on as a [`Run`]: their frames are put behind each other once,
//! and each member's outbox takes them as one piece. Order within the channel is theirs.

use std::cell::OnceCell;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tidegate_protocol::frame::{self, MAX_HEADER_BYTES};
use tidegate_protocol::{Codec, Publication, Push};

use crate::session::opcode;
use crate::shard::ordinal;

/// A publication with its encoded WebSocket frames.
#[derive(Debug)]
pub struct Broadcast {
    publication: Publication,
    json: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
}

impl Broadcast {
    /// Wraps a publication; nothing is encoded yet.
    pub const fn new(publication: Publication) -> Self {
        Self { publication, json: OnceLock::new(), protobuf: OnceLock::new() }
    }

    /// The publication.
    pub const fn publication(&self) -> &Publication {
        &self.publication
    }

    /// The whole WebSocket frame of the publication's push in `codec`.
    pub fn frame(&self, codec: Codec) -> &Bytes {
        let cell = match codec {
            Codec::Json => &self.json,
            Codec::Protobuf => &self.protobuf,
        };
        cell.get_or_init(|| {
            let mut payload = Vec::with_capacity(self.publication.data.len() + 128);
            codec.push(&Push::Publication(&self.publication), &mut payload);
            let mut out = Vec::with_capacity(payload.len() + MAX_HEADER_BYTES);
            frame::encode(opcode(codec), &payload, &mut out);
            out.into()
        })
    }
}

/// Publications of one channel, in order, on their way to the members of one shard.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    publications: &'a [Arc<Broadcast>],
    /// Their frames behind each other, by codec in the order of `Codec::ALL`; made when the first member needs them.
    joint: [OnceCell<Bytes>; 2],
}

impl<'a> Run<'a> {
    pub(crate) const fn new(publications: &'a [Arc<Broadcast>]) -> Self {
        Self { publications, joint: [OnceCell::new(), OnceCell::new()] }
    }

    /// How many publications it is.
    pub(crate) const fn len(&self) -> usize {
        self.publications.len()
    }

    /// The whole WebSocket frame of the last one.
    pub(crate) fn newest(&self, codec: Codec) -> &Bytes {
        match self.publications.last() {
            Some(last) => last.frame(codec),
            None => self.frames(codec),
        }
    }

    /// The whole WebSocket frames of all publications in `codec`. One publication's frame is shared as it is.
    pub(crate) fn frames(&self, codec: Codec) -> &Bytes {
        self.joint[ordinal(codec)].get_or_init(|| match self.publications {
            [one] => one.frame(codec).clone(),
            many => {
                let frames = many.iter().map(|broadcast| broadcast.frame(codec));
                let mut joint = Vec::with_capacity(frames.clone().map(Bytes::len).sum());
                frames.for_each(|frame| joint.extend_from_slice(frame));
                joint.into()
            }
        })
    }
}
