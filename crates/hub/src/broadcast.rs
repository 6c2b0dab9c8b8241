//! A publication on its way to many, or somebody's join or leave: encoded once per codec, whoever needs it first, shared
//! by all workers.
//!
//! Publications of one channel that wait together travel on as a [`Run`]: their frames are put behind each other once,
//! and each member's outbox takes them as one piece. Order within the channel is theirs.

use std::cell::OnceCell;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tidegate_protocol::frame::{self, MAX_HEADER_BYTES};
use tidegate_protocol::{ChannelName, ClientInfo, Codec, Publication, Push};

use crate::session::opcode;
use crate::shard::ordinal;
use crate::tally::{SENT_PUBLICATION, SENT_PUSH};

/// What somebody's join or leave counts as in bytes, about.
const PRESENCE_BYTES: usize = 128;

/// Something said in a channel, with its encoded WebSocket frames.
#[derive(Debug)]
pub struct Broadcast {
    said: Said,
    json: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
}

/// What is said to all members of a channel.
#[derive(Debug)]
enum Said {
    Publication(Publication),
    Join(ChannelName, ClientInfo),
    Leave(ChannelName, ClientInfo),
}

impl Broadcast {
    /// Wraps a publication; nothing is encoded yet.
    pub const fn new(publication: Publication) -> Self {
        Self::of(Said::Publication(publication))
    }

    /// Somebody joined a channel.
    pub const fn join(channel: ChannelName, info: ClientInfo) -> Self {
        Self::of(Said::Join(channel, info))
    }

    /// Somebody left a channel.
    pub const fn leave(channel: ChannelName, info: ClientInfo) -> Self {
        Self::of(Said::Leave(channel, info))
    }

    const fn of(said: Said) -> Self {
        Self { said, json: OnceLock::new(), protobuf: OnceLock::new() }
    }

    /// Where it is said.
    pub const fn channel(&self) -> &ChannelName {
        match &self.said {
            Said::Publication(publication) => &publication.channel,
            Said::Join(channel, _) | Said::Leave(channel, _) => channel,
        }
    }

    /// Whether it is a publication, not somebody's join or leave.
    pub const fn is_publication(&self) -> bool {
        matches!(self.said, Said::Publication(_))
    }

    /// How many bytes of payload it carries, about.
    pub const fn bytes(&self) -> usize {
        match &self.said {
            Said::Publication(publication) => publication.data.len(),
            Said::Join(..) | Said::Leave(..) => PRESENCE_BYTES,
        }
    }

    /// A publication's offset; 0 where there is none.
    const fn offset(&self) -> u64 {
        match &self.said {
            Said::Publication(publication) => publication.offset,
            Said::Join(..) | Said::Leave(..) => 0,
        }
    }

    /// The whole WebSocket frame of its push in `codec`.
    pub fn frame(&self, codec: Codec) -> &Bytes {
        let cell = match codec {
            Codec::Json => &self.json,
            Codec::Protobuf => &self.protobuf,
        };
        cell.get_or_init(|| {
            let mut payload = Vec::with_capacity(self.bytes() + 128);
            let push = match &self.said {
                Said::Publication(publication) => Push::Publication(publication),
                Said::Join(channel, info) => Push::Join(channel.as_str(), info),
                Said::Leave(channel, info) => Push::Leave(channel.as_str(), info),
            };
            codec.push(&push, &mut payload);
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

    /// The offset of the last publication; 0 where there is none.
    pub(crate) fn offset(&self) -> u64 {
        self.publications.last().map_or(0, |last| last.offset())
    }

    /// What its frames count as, by `SENT` index.
    pub(crate) fn kind(&self) -> usize {
        let publications = self.publications.first().is_none_or(|first| first.is_publication());
        if publications { SENT_PUBLICATION } else { SENT_PUSH }
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
