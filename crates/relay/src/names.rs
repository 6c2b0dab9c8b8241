//! The names under which Redis knows things: pub/sub channels and keys, all behind one prefix.
//!
//! Pure text. Not here: what travels on the channels (`envelope`).

use tidegate_protocol::ChannelName;

/// Maps channels to Redis names and back.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// Whether channels are sharded ones, as in a cluster.
    sharded: bool,
    before: String,
    control: String,
    own: String,
    probe: String,
    nodes: String,
    node: String,
    ingest: String,
    poison: String,
    events: String,
}

/// Where a message on the pub/sub connection came from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Origin<'a> {
    /// A channel, by its bare name.
    Channel(&'a str),
    /// The control channel of all nodes.
    Control,
    /// The control channel of this node alone.
    Own,
    /// Nothing of ours.
    Foreign,
}

impl Names {
    /// `prefix` must be what `RedisSettings::check_prefix` accepts, `id` the node's.
    pub(crate) fn new(prefix: &str, id: &str) -> Self {
        Self {
            sharded: false,
            before: format!("{prefix}:{{"),
            control: format!("{prefix}:control"),
            own: format!("{prefix}:control:{id}"),
            probe: format!("{prefix}:probe:{id}"),
            nodes: format!("{prefix}:nodes"),
            node: format!("{prefix}:node:"),
            ingest: format!("{prefix}:ingest"),
            poison: format!("{prefix}:ingest:poison"),
            events: format!("{prefix}:events"),
        }
    }

    /// The same for a cluster: channels are sharded ones.
    pub(crate) const fn sharded(mut self) -> Self {
        self.sharded = true;
        self
    }

    /// Whether channels are sharded ones.
    pub(crate) const fn are_sharded(&self) -> bool {
        self.sharded
    }

    /// `tg:{news}`
    pub(crate) fn channel(&self, channel: &ChannelName) -> String {
        let name = channel.as_str();
        let mut text = String::with_capacity(self.before.len() + name.len() + 1);
        text.push_str(&self.before);
        text.push_str(name);
        text.push('}');
        text
    }

    /// `tg:{news}:log`
    pub(crate) fn log(&self, channel: &ChannelName) -> String {
        let mut text = self.channel(channel);
        text.push_str(":log");
        text
    }

    /// `tg:control`
    pub(crate) fn control(&self) -> &str {
        &self.control
    }

    /// `tg:control:<id>` of this node.
    pub(crate) fn own(&self) -> &str {
        &self.own
    }

    /// `tg:control:<id>` of another node.
    pub(crate) fn control_of(&self, id: &str) -> String {
        format!("{}:{id}", self.control)
    }

    /// `tg:probe:<id>` of this node.
    pub(crate) fn probe(&self) -> &str {
        &self.probe
    }

    /// `tg:nodes`
    pub(crate) fn nodes(&self) -> &str {
        &self.nodes
    }

    /// `tg:node:<id>`
    pub(crate) fn node(&self, id: &str) -> String {
        format!("{}{id}", self.node)
    }

    /// `tg:ingest`
    pub(crate) fn ingest(&self) -> &str {
        &self.ingest
    }

    /// `tg:ingest:poison`
    pub(crate) fn poison(&self) -> &str {
        &self.poison
    }

    /// `tg:events`
    pub(crate) fn events(&self) -> &str {
        &self.events
    }

    /// What a pub/sub channel of Redis is to us.
    pub(crate) fn origin<'a>(&self, raw: &'a [u8]) -> Origin<'a> {
        if let Some(name) = raw.strip_prefix(self.before.as_bytes()).and_then(|rest| rest.strip_suffix(b"}"))
        {
            return std::str::from_utf8(name).map_or(Origin::Foreign, Origin::Channel);
        }
        if raw == self.control.as_bytes() {
            Origin::Control
        } else if raw == self.own.as_bytes() {
            Origin::Own
        } else {
            Origin::Foreign
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_channel_is_found_again_under_its_redis_name() {
        let names = Names::new("tg", "n1");
        let news = ChannelName::parse("chat:größe").unwrap();
        assert_eq!(names.channel(&news), "tg:{chat:größe}");
        assert_eq!(names.origin("tg:{chat:größe}".as_bytes()), Origin::Channel("chat:größe"));
        assert_eq!(names.origin(b"tg:control"), Origin::Control);
        assert_eq!(names.origin(b"tg:control:n1"), Origin::Own);
        assert_eq!(names.origin(b"tg:control:n2"), Origin::Foreign);
        assert_eq!(names.origin(b"tg:{\xff}"), Origin::Foreign);
        assert_eq!(names.origin(b"other:{news}"), Origin::Foreign);
    }
}
