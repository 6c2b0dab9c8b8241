//! A publication on its way to many: encoded once per codec, whoever needs it first, shared by all workers.

use std::sync::OnceLock;

use bytes::Bytes;
use tidegate_protocol::frame::{self, MAX_HEADER_BYTES};
use tidegate_protocol::{Codec, Publication, Push};

use crate::session::opcode;

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
