//! A publication on its way to many: encoded once per codec, whoever needs it first, shared by all workers.

use std::sync::OnceLock;

use bytes::Bytes;
use tidegate_protocol::{Codec, Publication};

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
    pub fn frame(&self, _codec: Codec) -> &Bytes {
        todo!()
    }
}
