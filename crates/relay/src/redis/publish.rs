//! How a publication is said to Redis: by PUBLISH (SPUBLISH in a cluster), or by the script where its channel has history.
//!
//! Not here: the order of publications, and what becomes of an answer (`lane`).

use ::redis::Cmd;

use super::script::{publishing, seconds};
use crate::envelope;
use crate::names::Names;
use crate::relay::Outgoing;
use crate::rules::Retention;

/// Publishes at most once.
pub(super) fn plain(outgoing: &Outgoing, names: &Names) -> Cmd {
    let publication = &outgoing.publication;
    let mut command = ::redis::cmd(if names.are_sharded() { "SPUBLISH" } else { "PUBLISH" });
    command.arg(names.channel(&publication.channel));
    if publication.info.is_none() && publication.tags.is_empty() {
        command.arg(&publication.data[..]);
    } else {
        command.arg(envelope::seal(&publication.data, publication.info.as_ref(), &publication.tags));
    }
    command
}

/// Publishes into the channel's history; the answer is a position.
pub(super) fn kept(outgoing: &Outgoing, retention: Retention, names: &Names) -> Cmd {
    let publication = &outgoing.publication;
    let mut command = publishing(names).call(&names.channel(&publication.channel));
    command.arg(&publication.data[..]).arg("checked").arg(1);
    command.arg("size").arg(retention.size.max(1)).arg("ttl").arg(seconds(retention.ttl));
    if !outgoing.idempotency_key.is_empty() {
        command.arg("id").arg(&outgoing.idempotency_key);
    }
    if let Some(info) = &publication.info {
        command.arg("info").arg(envelope::write_info(info));
    }
    if !publication.tags.is_empty() {
        command.arg("tags").arg(envelope::write_tags(&publication.tags));
    }
    command
}
