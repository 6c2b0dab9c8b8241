//! An entry of the ingest stream: what it asks for, or why it can never be done.
//!
//! Pure. Not here: doing it (`super`), reading it (`super::stream`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tidegate_protocol::codec::json::payload;
use tidegate_protocol::{ChannelName, Control};

use crate::rules::Rules;

/// The most channels of one entry, as of one broadcast of the API.
const MAX_CHANNELS: usize = 10_000;
/// The most bytes of an idempotency key.
const MAX_KEY_BYTES: usize = 255;
/// The most bytes of tags, as of `FCALL tg_publish`: the envelope's header has room for them escaped.
const MAX_TAGS_BYTES: usize = 30_000;

/// Fields as Redis has them.
pub(super) type Fields = Vec<(Bytes, Bytes)>;

/// What stands in the stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// The id that Redis gave it.
    pub(super) id: String,
    /// How often it was given to a node.
    pub(super) deliveries: u64,
    pub(super) fields: Fields,
}

/// What an entry asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Order {
    /// One publication into each of these channels.
    Publish(Post),
    /// A control message to every node, checked.
    Control(Bytes),
}

/// A publication and where it goes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Post {
    /// Each once, in the order they were given.
    pub(super) channels: Vec<ChannelName>,
    pub(super) data: Bytes,
    pub(super) tags: Vec<(String, String)>,
    /// The idempotency key: the publisher's, or made from the entry's id.
    pub(super) key: String,
}

/// What can be known of a publication before it is tried.
pub(super) struct Bounds<'a> {
    pub(super) rules: &'a Rules,
    /// `relay.redis.max_publication_bytes`
    pub(super) max_publication_bytes: usize,
}

impl Entry {
    /// How many bytes its fields have.
    pub(super) fn len(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// What it asks for. The error is the reason why it never can be done.
    pub(super) fn order(&self, bounds: &Bounds<'_>) -> Result<Order, String> {
        let fields = Known::sort(&self.fields)?;
        if let Some(control) = fields.control {
            if self.fields.len() > 1 {
                return Err("`control` stands alone: put publications into entries of their own".into());
            }
            return match Control::parse(control) {
                Ok(_) => Ok(Order::Control(Bytes::copy_from_slice(control))),
                Err(error) => Err(format!("`control`: {error}")),
            };
        }
        let channels = fields.channels(bounds.rules)?;
        let data = fields.data.ok_or("no `data`: the publication, one JSON value")?;
        if data.len() > bounds.max_publication_bytes {
            return Err(format!(
                "`data` has {} bytes; relay.redis.max_publication_bytes is {}",
                data.len(),
                bounds.max_publication_bytes
            ));
        }
        let data = payload(data).map_err(|error| format!("`data`: {error}"))?;
        let key = match fields.id.map(text).transpose().map_err(|error| format!("`id`: {error}"))? {
            Some(key) if key.is_empty() || key.len() > MAX_KEY_BYTES => {
                return Err(format!("`id` must have 1 to {MAX_KEY_BYTES} bytes"));
            }
            Some(key) => key.to_owned(),
            None => format!("ingest:{}", self.id),
        };
        Ok(Order::Publish(Post { channels, data, tags: fields.tags()?, key }))
    }
}

/// The fields that an entry may have.
#[derive(Default)]
struct Known<'a> {
    channel: Option<&'a [u8]>,
    channels: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
    tags: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    control: Option<&'a [u8]>,
}

impl<'a> Known<'a> {
    /// A field that is not known is an error: it may be a known one with a slip in its name.
    fn sort(fields: &'a Fields) -> Result<Self, String> {
        let mut known = Self::default();
        for (name, value) in fields {
            let place = match &name[..] {
                b"channel" => &mut known.channel,
                b"channels" => &mut known.channels,
                b"data" => &mut known.data,
                b"tags" => &mut known.tags,
                b"id" => &mut known.id,
                b"control" => &mut known.control,
                _ => {
                    let name = name[..name.len().min(64)].escape_ascii();
                    return Err(format!(
                        "`{name}` is no field: there are channel, channels, data, tags, id and control"
                    ));
                }
            };
            if place.replace(value).is_some() {
                return Err(format!("`{}` is there twice", name.escape_ascii()));
            }
        }
        Ok(known)
    }

    fn channels(&self, rules: &Rules) -> Result<Vec<ChannelName>, String> {
        let names = match (self.channel, self.channels) {
            (Some(_), Some(_)) => return Err("`channel` and `channels`: give one of them".into()),
            (None, None) => return Err("no `channel`, and no `channels` either".into()),
            (Some(one), None) => vec![text(one).map_err(|error| format!("`channel`: {error}"))?.to_owned()],
            (None, Some(list)) => serde_json::from_slice::<Vec<String>>(list)
                .map_err(|error| format!("`channels` is not a JSON list of names: {error}"))?,
        };
        if names.is_empty() {
            return Err("`channels` is empty".into());
        }
        if names.len() > MAX_CHANNELS {
            return Err(format!("`channels` has more than {MAX_CHANNELS} names"));
        }
        let mut seen = BTreeSet::new();
        let mut channels = Vec::with_capacity(names.len());
        for name in names {
            let channel = ChannelName::parse(&name).map_err(|error| format!("channel {name:?}: {error}"))?;
            if !rules.knows(&channel) {
                return Err(format!(
                    "channel {name:?}: the namespace {:?} is not known",
                    channel.namespace()
                ));
            }
            if seen.insert(name) {
                channels.push(channel);
            }
        }
        Ok(channels)
    }

    fn tags(&self) -> Result<Vec<(String, String)>, String> {
        let Some(tags) = self.tags else { return Ok(Vec::new()) };
        if tags.len() > MAX_TAGS_BYTES {
            return Err(format!("`tags` has more than {MAX_TAGS_BYTES} bytes"));
        }
        serde_json::from_slice::<BTreeMap<String, String>>(tags)
            .map(|tags| tags.into_iter().collect())
            .map_err(|error| format!("`tags` is not a JSON object of strings: {error}"))
    }
}

fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(bytes).map_err(|_| "not UTF-8")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::rules::ChannelRules;

    fn order(fields: &[(&str, &str)]) -> Result<Order, String> {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let fields = fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
        let known = ["default", "chat"].map(|name| (name.to_owned(), ChannelRules::default()));
        let rules = Rules { namespaces: known.into(), any: None };
        let bounds = Bounds { rules: &rules, max_publication_bytes: 32 };
        Entry { id: "17-0".into(), deliveries: 1, fields }.order(&bounds)
    }

    fn post(fields: &[(&str, &str)]) -> Post {
        match order(fields).unwrap() {
            Order::Publish(post) => post,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_channel_or_many_each_once_in_order() {
        let names = |post: Post| post.channels.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(post(&[("channel", "news"), ("data", "1")])), ["news"]);
        let many = post(&[("data", "1"), ("channels", r#"["news","chat:1","news"]"#)]);
        assert_eq!(names(many), ["news", "chat:1"]);
    }

    #[test]
    fn the_idempotency_key_is_the_publishers_or_the_entrys() {
        assert_eq!(post(&[("channel", "news"), ("data", "1")]).key, "ingest:17-0");
        assert_eq!(post(&[("channel", "news"), ("data", "1"), ("id", "order-7")]).key, "order-7");
    }

    #[test]
    fn tags_come_in_the_order_of_their_names() {
        let tagged = post(&[("channel", "news"), ("data", "1"), ("tags", r#"{"b":"2","a":"1"}"#)]);
        assert_eq!(tagged.tags, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn a_control_message_stands_alone() {
        let json = r#"{"disconnect":{"user":"42"}}"#;
        assert_eq!(order(&[("control", json)]), Ok(Order::Control(Bytes::from_static(json.as_bytes()))));
        let reason = order(&[("control", json), ("channel", "news")]).unwrap_err();
        assert!(reason.starts_with("`control` stands alone"), "{reason}");
        let reason = order(&[("control", r#"{"disconnect":{}}"#)]).unwrap_err();
        assert_eq!(reason, "`control`: `disconnect` names neither `user` nor `client`: give one of them");
    }

    #[test]
    fn what_can_never_be_published_says_why() {
        let long = format!("\"{}\"", "x".repeat(40));
        let key = "k".repeat(256);
        for (fields, reason) in [
            (vec![], "no `channel`, and no `channels` either"),
            (vec![("channel", "news")], "no `data`: the publication, one JSON value"),
            (vec![("channel", "news"), ("data", "{")], "`data`: not JSON: not exactly one JSON value"),
            (vec![("channel", "news"), ("data", "")], "`data`: not JSON: not exactly one JSON value"),
            (vec![("channel", "news"), ("data", &long)], "`data` has 42 bytes"),
            (vec![("channel", "a b"), ("data", "1")], "channel \"a b\": a channel name may not contain"),
            (vec![("channel", "x:1"), ("data", "1")], "channel \"x:1\": the namespace \"x\" is not known"),
            (vec![("channel", "a"), ("channels", "[]"), ("data", "1")], "`channel` and `channels`"),
            (vec![("channels", "[]"), ("data", "1")], "`channels` is empty"),
            (vec![("channels", "news"), ("data", "1")], "`channels` is not a JSON list of names"),
            (vec![("channel", "a"), ("channel", "b"), ("data", "1")], "`channel` is there twice"),
            (vec![("chanel", "news"), ("data", "1")], "`chanel` is no field"),
            (vec![("channel", "a"), ("data", "1"), ("tags", "[1]")], "`tags` is not a JSON object"),
            (vec![("channel", "a"), ("data", "1"), ("tags", r#"{"a":1}"#)], "`tags` is not a JSON object"),
            (vec![("channel", "a"), ("data", "1"), ("id", "")], "`id` must have 1 to 255 bytes"),
            (vec![("channel", "a"), ("data", "1"), ("id", &key)], "`id` must have 1 to 255 bytes"),
        ] {
            let found = order(&fields).unwrap_err();
            assert!(found.starts_with(reason), "{fields:?}: {found}");
        }
    }
}
