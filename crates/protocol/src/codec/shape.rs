//! The shapes of replies and pushes, for both codecs: each field with its JSON name and its Protobuf tag.
//!
//! Zero and empty fields are omitted, as Protobuf does and every SDK expects; a message that stands for a fact,
//! such as the result `{}` of an unsubscribe, is written though empty.

use crate::publication::{ClientInfo, Publication};
use crate::reply::{ConnectResult, Push, Reply, SubscribeResult};

/// A field: its name in JSON and its tag in Protobuf.
#[derive(Clone, Copy)]
pub(super) struct Field(pub(super) &'static str, pub(super) u32);

/// Where fields are written, in either codec.
///
/// `text`, `number`, `flag`, `raw` and the maps write nothing for a zero or empty value.
pub(super) trait Fields {
    fn text(&mut self, field: Field, value: &str);
    fn number(&mut self, field: Field, value: u64);
    fn flag(&mut self, field: Field, value: bool);
    /// A payload: embedded as it is.
    fn raw(&mut self, field: Field, value: &[u8]);
    /// A nested message; written also when `fill` writes nothing.
    fn message(&mut self, field: Field, fill: impl FnOnce(&mut Self));
    /// A map from text to text.
    fn texts(&mut self, field: Field, map: &[(String, String)]);
    /// A map from text to messages.
    fn messages<T>(&mut self, field: Field, map: &[(&str, T)], fill: impl Fn(&T, &mut Self));
}

/// Writes the fields of a `Reply` that answers a command.
pub(super) fn reply(id: u32, reply: &Reply<'_>, to: &mut impl Fields) {
    to.number(Field("id", 1), u64::from(id));
    match reply {
        Reply::Error(error) => to.message(Field("error", 2), |to| {
            to.number(Field("code", 1), u64::from(error.code()));
            to.text(Field("message", 2), error.text());
            to.flag(Field("temporary", 3), error.temporary());
        }),
        Reply::Connect(result) => to.message(Field("connect", 5), |to| connect(result, to)),
        Reply::Subscribe(result) => to.message(Field("subscribe", 6), |to| subscribe(result, to)),
        Reply::Unsubscribe => to.message(Field("unsubscribe", 7), |_| {}),
        Reply::Publish => to.message(Field("publish", 8), |_| {}),
        Reply::Ping => to.message(Field("ping", 12), |_| {}),
    }
}

/// Writes the fields of a `Reply` that carries a push.
pub(super) fn push(push: &Push<'_>, to: &mut impl Fields) {
    to.message(Field("push", 4), |to| {
        let channel = match *push {
            Push::Publication(publication) => publication.channel.as_str(),
            Push::Join(channel, _)
            | Push::Leave(channel, _)
            | Push::Unsubscribe(channel, _)
            | Push::Subscribe(channel) => channel,
            Push::Message(_) | Push::Disconnect(_) => "",
        };
        to.text(Field("channel", 2), channel);
        match *push {
            Push::Publication(it) => to.message(Field("pub", 4), |to| publication(it, to)),
            Push::Join(_, info) => to.message(Field("join", 5), |to| who(Field("info", 1), info, to)),
            Push::Leave(_, info) => to.message(Field("leave", 6), |to| who(Field("info", 1), info, to)),
            Push::Unsubscribe(_, code) => to.message(Field("unsubscribe", 7), |to| {
                to.number(Field("code", 2), u64::from(code.code()));
                to.text(Field("reason", 3), code.text());
            }),
            Push::Message(data) => {
                to.message(Field("message", 8), |to| to.raw(Field("data", 1), data));
            }
            Push::Subscribe(_) => to.message(Field("subscribe", 9), |_| {}),
            Push::Disconnect(disconnect) => to.message(Field("disconnect", 11), |to| {
                to.number(Field("code", 1), u64::from(disconnect.code()));
                to.text(Field("reason", 2), disconnect.text());
                to.flag(Field("reconnect", 3), disconnect.reconnects());
            }),
        }
    });
}

fn connect(result: &ConnectResult<'_>, to: &mut impl Fields) {
    to.text(Field("client", 1), result.client);
    to.text(Field("version", 2), result.version);
    to.flag(Field("expires", 3), result.expires);
    to.number(Field("ttl", 4), u64::from(result.ttl));
    to.messages(Field("subs", 6), &result.subs, |result, to| subscribe(result, to));
    to.number(Field("ping", 7), u64::from(result.ping));
    to.flag(Field("pong", 8), result.pong);
    to.text(Field("node", 10), result.node);
}

fn subscribe(result: &SubscribeResult, to: &mut impl Fields) {
    to.flag(Field("expires", 1), result.expires);
    to.number(Field("ttl", 2), u64::from(result.ttl));
}

fn publication(publication: &Publication, to: &mut impl Fields) {
    to.raw(Field("data", 4), &publication.data);
    if let Some(info) = &publication.info {
        who(Field("info", 5), info, to);
    }
    to.texts(Field("tags", 7), &publication.tags);
}

fn who(field: Field, info: &ClientInfo, to: &mut impl Fields) {
    to.message(field, |to| {
        to.text(Field("user", 1), &info.user);
        to.text(Field("client", 2), &info.client);
        to.raw(Field("conn_info", 3), &info.conn_info);
        to.raw(Field("chan_info", 4), &info.chan_info);
    });
}
