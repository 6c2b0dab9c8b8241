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
    fn messages<'a, T: 'a>(
        &mut self,
        field: Field,
        map: impl ExactSizeIterator<Item = (&'a str, &'a T)>,
        fill: impl Fn(&T, &mut Self),
    );
    /// A list of messages; nothing is written for an empty one.
    fn list<'a, T: 'a>(
        &mut self,
        field: Field,
        items: impl ExactSizeIterator<Item = &'a T>,
        fill: impl Fn(&T, &mut Self),
    );
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
        Reply::Presence(clients) => to.message(Field("presence", 9), |to| {
            to.messages(Field("presence", 1), clients.iter().map(|info| (info.client.as_str(), info)), who);
        }),
        Reply::PresenceStats { clients, users } => to.message(Field("presence_stats", 10), |to| {
            to.number(Field("num_clients", 1), u64::from(*clients));
            to.number(Field("num_users", 2), u64::from(*users));
        }),
        Reply::History { publications, position } => to.message(Field("history", 11), |to| {
            to.list(Field("publications", 1), publications.iter(), publication);
            to.text(Field("epoch", 2), position.epoch.as_str());
            to.number(Field("offset", 3), position.offset);
        }),
        Reply::Rpc { data } => to.message(Field("rpc", 13), |to| to.raw(Field("data", 1), data)),
        Reply::Refused { code, message, temporary } => to.message(Field("error", 2), |to| {
            to.number(Field("code", 1), u64::from(*code));
            to.text(Field("message", 2), message);
            to.flag(Field("temporary", 3), *temporary);
        }),
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
            | Push::Subscribe(channel, _) => channel,
            Push::Message(_) | Push::Disconnect(_) => "",
        };
        to.text(Field("channel", 2), channel);
        match push {
            Push::Publication(it) => to.message(Field("pub", 4), |to| publication(it, to)),
            Push::Join(_, info) => to.message(Field("join", 5), |to| {
                to.message(Field("info", 1), |to| who(info, to));
            }),
            Push::Leave(_, info) => to.message(Field("leave", 6), |to| {
                to.message(Field("info", 1), |to| who(info, to));
            }),
            Push::Unsubscribe(_, code) => to.message(Field("unsubscribe", 7), |to| {
                to.number(Field("code", 2), u64::from(code.code()));
                to.text(Field("reason", 3), code.text());
            }),
            Push::Message(data) => {
                to.message(Field("message", 8), |to| to.raw(Field("data", 1), data));
            }
            Push::Subscribe(_, result) => to.message(Field("subscribe", 9), |to| {
                to.flag(Field("recoverable", 1), result.recoverable);
                if let Some(position) = result.position {
                    to.text(Field("epoch", 4), position.epoch.as_str());
                    to.number(Field("offset", 5), position.offset);
                    to.flag(Field("positioned", 6), true);
                }
                to.raw(Field("data", 7), result.data);
            }),
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
    to.raw(Field("data", 5), result.data);
    to.messages(Field("subs", 6), result.subs.iter().map(|(channel, result)| (*channel, result)), subscribe);
    to.number(Field("ping", 7), u64::from(result.ping));
    to.flag(Field("pong", 8), result.pong);
    to.text(Field("node", 10), result.node);
}

fn subscribe<F: Fields>(result: &SubscribeResult<'_>, to: &mut F) {
    to.flag(Field("expires", 1), result.expires);
    to.number(Field("ttl", 2), u64::from(result.ttl));
    to.flag(Field("recoverable", 3), result.recoverable);
    if let Some(position) = result.position {
        to.text(Field("epoch", 6), position.epoch.as_str());
    }
    to.list(Field("publications", 7), result.publications.iter(), |it, to| publication(it, to));
    to.flag(Field("recovered", 8), result.recovered);
    if let Some(position) = result.position {
        to.number(Field("offset", 9), position.offset);
        to.flag(Field("positioned", 10), true);
    }
    to.raw(Field("data", 11), result.data);
    to.flag(Field("was_recovering", 12), result.was_recovering);
}

fn publication<F: Fields>(publication: &Publication, to: &mut F) {
    to.raw(Field("data", 4), &publication.data);
    if let Some(info) = &publication.info {
        to.message(Field("info", 5), |to| who(info, to));
    }
    to.number(Field("offset", 6), publication.offset);
    to.texts(Field("tags", 7), &publication.tags);
}

fn who<F: Fields>(info: &ClientInfo, to: &mut F) {
    to.text(Field("user", 1), &info.user);
    to.text(Field("client", 2), &info.client);
    to.raw(Field("conn_info", 3), &info.conn_info);
    to.raw(Field("chan_info", 4), &info.chan_info);
}
