//! Commands that a backend decides.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tidegate_hub::{Decision, Effect, Grant, History, Matter, Namespace, Recovered, Right, SessionKey};
use tidegate_protocol::{BackendClose, Codec, Disconnect, Epoch, ErrorCode, Position, Publication};

use crate::node::{ByToken, CONNECT_TIMEOUT, Frame, Node, name, publication};

/// A node where a backend decides about connects and calls, and about everything in `asked`.
fn node() -> Node {
    Node::with(|policy| {
        policy.backends.connect = true;
        policy.backends.rpc = true;
        let asked = Namespace::plain(Right::Backend, Right::Backend);
        policy.namespaces.insert("asked".to_owned(), asked);
    })
}

fn granted() -> Decision {
    Decision::Granted(Grant::default())
}

fn refused() -> Decision {
    Decision::Refused { code: 403, message: "not yours".to_owned(), temporary: false }
}

fn closed() -> Decision {
    Decision::Disconnect(BackendClose::new(4501, "banned").expect("a backend's close"))
}

fn user(user: &str) -> Decision {
    Decision::Granted(Grant { user: user.to_owned(), ..Grant::default() })
}

impl Node {
    /// The questions that wait for a backend: session, id, who asks and what.
    fn questions(&mut self) -> Vec<(SessionKey, u32, String, Matter)> {
        let effects = self.effects().into_iter();
        effects
            .filter_map(|effect| match effect {
                Effect::Consult { session, id, asker, matter } => Some((session, id, asker.user, matter)),
                _ => None,
            })
            .collect()
    }

    /// Decides about the only question that waits.
    fn decide(&mut self, decision: Decision) {
        let mut questions = self.questions();
        assert_eq!(questions.len(), 1, "{questions:?}");
        let (session, id, _, matter) = questions.remove(0);
        self.decide_about(session, id, matter, decision);
    }

    fn decide_about(&mut self, session: SessionKey, id: u32, matter: Matter, decision: Decision) {
        self.shard.decided(session, id, matter, decision, &ByToken, self.now);
    }

    /// A session that a backend has let in.
    fn let_in(&mut self, as_user: &str) -> SessionKey {
        let session = self.open(Codec::Json);
        self.say(session, r#"{"id":1,"connect":{}}"#);
        self.decide(user(as_user));
        assert_eq!(self.replies(session).len(), 1);
        session
    }
}

#[test]
fn a_connect_waits_for_the_backend_which_says_who_it_is() {
    let mut node = node();
    let session = node.open(Codec::Json);
    node.say(session, r#"{"id":7,"connect":{"token":"t","data":{"a":1},"name":"js","version":"5"}}"#);
    assert_eq!(node.replies(session), Vec::<serde_json::Value>::new());
    let grant = Grant { user: "42".to_owned(), data: Some(Bytes::from_static(b"[1]")), ..Grant::default() };
    let effects = node.effects();
    let [Effect::Consult { session: by, id: 7, asker, matter }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((*by, asker.user.as_str(), asker.codec), (session, "", Codec::Json));
    let Matter::Connect { token, name, version, data } = matter else { panic!("{matter:?}") };
    assert_eq!(
        (token.as_str(), name.as_str(), version.as_str(), &data[..]),
        ("t", "js", "5", &br#"{"a":1}"#[..])
    );
    node.decide_about(session, 7, matter.clone(), Decision::Granted(grant));
    assert_eq!(
        node.replies(session),
        [
            json!({"id": 7, "connect": {"client": asker.client, "version": "1.2.3", "data": [1], "ping": 25, "pong": true}})
        ]
    );
    node.say(session, r#"{"id":2,"rpc":{"method":"who","data":null}}"#);
    assert!(matches!(&node.questions()[..], [(_, 2, user, _)] if user == "42"));
}

#[test]
fn what_is_said_behind_a_connect_is_run_in_order_once_it_is_decided() {
    let mut node = node();
    let session = node.open(Codec::Json);
    node.say(
        session,
        "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}\n{\"id\":3,\"ping\":{}}",
    );
    node.say(session, r#"{"id":4,"ping":{}}"#);
    node.say(session, "{\"id\":5,\"ping\":{}}\n{\"id\":6,\"subscribe\":{\"channel\":\"users:1\"}}");
    assert_eq!(node.replies(session), Vec::<serde_json::Value>::new());
    node.decide(user("42"));
    assert_eq!(node.effects(), [Effect::Join(name("news")), Effect::Join(name("users:1"))]);
    let ids: Vec<_> = node.replies(session).iter().map(|reply| reply["id"].clone()).collect();
    assert_eq!(ids, [1, 3, 4, 5]);
}

#[test]
fn after_a_refused_connect_what_was_said_behind_it_is_dropped_and_the_client_may_try_again() {
    let mut node = node();
    for (decision, code) in [(refused(), 403), (Decision::Failed(ErrorCode::Internal), 100)] {
        let session = node.open(Codec::Json);
        node.say(session, "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}");
        node.decide(decision);
        let replies = node.replies(session);
        assert_eq!(
            (replies.len(), &replies[0]["id"], &replies[0]["error"]["code"]),
            (1, &json!(1), &json!(code))
        );
        assert_eq!(node.effects(), []);
        node.say(session, r#"{"id":3,"connect":{}}"#);
        node.decide(user("42"));
        assert_eq!(node.replies(session)[0]["id"], 3);
    }
}

#[test]
fn a_backends_close_reaches_the_client_in_its_words_and_counts_as_one_reason() {
    let mut node = node();
    let connecting = node.open(Codec::Json);
    node.say(connecting, r#"{"id":1,"connect":{}}"#);
    node.decide(closed());
    let connected = node.let_in("42");
    node.say(connected, r#"{"id":2,"rpc":{"method":"a"}}"#);
    node.decide(closed());
    for session in [connecting, connected] {
        assert_eq!(node.frames(session), [Frame::Close(4501, "banned".to_owned())]);
    }
    let ended = |session| Effect::Ended { session, reason: Disconnect::Backend };
    assert_eq!(node.effects(), [ended(connected)]);
    assert_eq!(node.shard.session_counts(), [0, 0]);
}

#[test]
fn who_says_too_much_before_the_decision_is_sent_away() {
    let mut node = node();
    let session = node.open(Codec::Json);
    node.say(session, r#"{"id":1,"connect":{}}"#);
    let padding = " ".repeat(16 * 1024);
    let mut said = 0;
    while node.shard.sessions().contains(&session) {
        node.say(session, &format!("{{\"id\":2,\"ping\":{{}}}}{padding}"));
        said += 1;
        assert!(said < 10);
    }
    assert_eq!(said, 5);
    assert_eq!(node.close(session), Some((3013, "too many requests".to_owned())));
    node.decide(user("42"));
    assert_eq!(node.frames(session), []);
}

#[test]
fn a_connect_that_nobody_decides_ends_at_the_deadline_of_all_connects() {
    let mut node = node();
    let session = node.open(Codec::Json);
    node.say(session, r#"{"id":1,"connect":{}}"#);
    node.pass(CONNECT_TIMEOUT + 1);
    assert_eq!(node.close(session), Some((3502, "stale".to_owned())));
}

#[test]
fn a_message_that_is_no_message_ends_a_session_whose_connect_waits() {
    let mut node = node();
    let session = node.open(Codec::Json);
    node.say(session, "{\"id\":1,\"connect\":{}}\n{\"id\":");
    assert_eq!(node.close(session), Some((3501, "bad request".to_owned())));
    let session = node.open(Codec::Json);
    node.effects();
    node.say(session, r#"{"id":1,"connect":{}}"#);
    node.say(session, r#"{"id":2,"connect":{}}"#);
    node.decide(user("42"));
    assert_eq!(node.close(session), Some((3501, "bad request".to_owned())));
}

#[test]
fn a_backend_subscribes_a_client_from_the_start() {
    let mut node = node();
    let session = node.open(Codec::Json);
    node.say(session, r#"{"id":1,"connect":{}}"#);
    let channels = ["inbox:42", "closed:1", "asked:1", "nowhere:1"].map(name).to_vec();
    node.decide(Decision::Granted(Grant { user: "42".to_owned(), channels, ..Grant::default() }));
    node.replies(session);
    // A namespace that the node does not know is left out; rights are not asked.
    let joins = node.effects();
    assert_eq!(joins, [Effect::Join(name("closed:1")), Effect::Join(name("asked:1"))]);
    node.shard.joined(&name("closed:1"), Ok(None));
    assert_eq!(node.replies(session), [json!({"push": {"channel": "closed:1", "subscribe": {}}})]);
}

#[test]
fn a_subscribe_waits_for_the_backend_and_then_for_the_relay() {
    let mut node = node();
    let session = node.let_in("42");
    node.say(session, r#"{"id":2,"subscribe":{"channel":"asked:1","token":"t","data":5}}"#);
    let questions = node.questions();
    let [(_, 2, user, matter)] = &questions[..] else { panic!("{questions:?}") };
    let Matter::Subscribe { channel, token, data } = matter else { panic!("{matter:?}") };
    assert_eq!(
        (user.as_str(), channel.as_str(), token.as_str(), &data[..]),
        ("42", "asked:1", "t", &b"5"[..])
    );
    let data = Some(Bytes::from_static(b"{\"topic\":\"x\"}"));
    node.decide_about(session, 2, matter.clone(), Decision::Granted(Grant { data, ..Grant::default() }));
    assert_eq!(node.effects(), [Effect::Join(name("asked:1"))]);
    assert_eq!(node.replies(session), Vec::<serde_json::Value>::new());
    node.shard.joined(&name("asked:1"), Ok(None));
    assert_eq!(node.replies(session), [json!({"id": 2, "subscribe": {"data": {"topic": "x"}}})]);
    // A second session, where the relay hears the channel already.
    let second = node.let_in("43");
    node.say(second, r#"{"id":2,"subscribe":{"channel":"asked:1"}}"#);
    node.decide(Decision::Granted(Grant { data: Some(Bytes::from_static(b"7")), ..Grant::default() }));
    assert_eq!(node.replies(second), [json!({"id": 2, "subscribe": {"data": 7}})]);
}

#[test]
fn who_comes_back_to_what_a_backend_grants_gets_what_it_missed() {
    let mut node = Node::with(|policy| {
        let asked =
            Namespace { history: History::Recoverable, ..Namespace::plain(Right::Backend, Right::Nobody) };
        policy.namespaces.insert("asked".to_owned(), asked);
    });
    let at = |offset| Position { offset, epoch: Epoch::new("e") };
    let first = node.connect("42");
    node.say(first, r#"{"id":2,"subscribe":{"channel":"asked:1"}}"#);
    node.decide(granted());
    node.effects();
    node.shard.joined(&name("asked:1"), Ok(Some(at(5))));
    assert_eq!(node.replies(first)[0]["subscribe"]["offset"], 5);
    let second = node.connect("43");
    node.say(second, r#"{"id":2,"subscribe":{"channel":"asked:1","recover":true,"epoch":"e","offset":3}}"#);
    node.decide(Decision::Granted(Grant { data: Some(Bytes::from_static(b"7")), ..Grant::default() }));
    let recover = Effect::Recover { session: second, id: 2, channel: name("asked:1"), since: at(3) };
    assert_eq!(node.effects(), [recover]);
    let publications = [4, 5].map(|offset| Arc::new(Publication { offset, ..publication("asked:1", "0") }));
    let recovered = Recovered { position: at(5), publications: Some(Arc::new(publications)) };
    node.shard.recovered(second, 2, &name("asked:1"), Ok(recovered));
    let reply = node.replies(second)[0]["subscribe"].clone();
    assert_eq!((&reply["recovered"], &reply["data"]), (&json!(true), &json!(7)), "{reply}");
    assert_eq!(reply["publications"].as_array().map(Vec::len), Some(2), "{reply}");
}

#[test]
fn a_refused_subscribe_leaves_nothing_behind() {
    let mut node = node();
    let session = node.let_in("42");
    for (decision, code) in [(refused(), 403), (Decision::Failed(ErrorCode::TooManyRequests), 111)] {
        node.say(session, r#"{"id":2,"subscribe":{"channel":"asked:1"}}"#);
        node.decide(decision);
        let replies = node.replies(session);
        assert_eq!((replies.len(), &replies[0]["error"]["code"]), (1, &json!(code)));
        assert_eq!(node.effects(), []);
    }
    assert_eq!(node.shard.subscription_count(), 0);
}

#[test]
fn a_subscribe_that_waits_counts_and_can_be_withdrawn() {
    let mut node = Node::with(|policy| {
        policy.max_subscriptions = 2;
        policy.namespaces.insert("asked".to_owned(), Namespace::plain(Right::Backend, Right::Nobody));
    });
    let session = node.connect("42");
    node.say(session, r#"{"id":2,"subscribe":{"channel":"asked:1"}}"#);
    node.say(session, r#"{"id":3,"subscribe":{"channel":"asked:1"}}"#);
    assert_eq!(node.replies(session)[0]["error"]["code"], 105);
    node.say(session, r#"{"id":4,"subscribe":{"channel":"asked:2"}}"#);
    node.say(session, r#"{"id":5,"subscribe":{"channel":"asked:3"}}"#);
    assert_eq!(node.replies(session)[0]["error"]["code"], 106);
    node.say(session, r#"{"id":6,"unsubscribe":{"channel":"asked:1"}}"#);
    let replies = node.replies(session);
    assert_eq!((&replies[0]["id"], &replies[0]["error"]["code"]), (&json!(2), &json!(100)));
    assert_eq!(replies[1], json!({"id": 6, "unsubscribe": {}}));
    for (session, id, _, matter) in node.questions() {
        node.decide_about(session, id, matter, granted());
    }
    // Only the one that still waited goes on.
    assert_eq!(node.effects(), [Effect::Join(name("asked:2"))]);
}

#[test]
fn a_decision_for_a_session_that_is_gone_is_for_nobody() {
    let mut node = node();
    let session = node.let_in("42");
    node.say(session, r#"{"id":2,"subscribe":{"channel":"asked:1"}}"#);
    node.say(session, r#"{"id":3,"rpc":{}}"#);
    node.say(session, r#"{"id":4,"publish":{"channel":"asked:1","data":1}}"#);
    let questions = node.questions();
    assert_eq!(questions.len(), 3);
    node.shard.end(session, Disconnect::Shutdown);
    node.shard.remove(session);
    node.effects();
    // Somebody else has its place now, with a subscribe of the same id.
    let next = node.let_in("43");
    assert_eq!(next.index, session.index);
    node.say(next, r#"{"id":2,"subscribe":{"channel":"asked:1"}}"#);
    node.effects();
    for (session, id, _, matter) in questions {
        node.decide_about(session, id, matter, granted());
    }
    assert_eq!(node.effects(), []);
    assert_eq!(node.frames(next), []);
}

#[test]
fn a_publication_is_made_as_the_backend_wants_it() {
    let mut node = node();
    let session = node.let_in("42");
    node.say(session, r#"{"id":2,"publish":{"channel":"asked:1","data":{"a":1}}}"#);
    let data = Some(Bytes::from_static(b"{\"a\":2}"));
    node.decide(Decision::Granted(Grant { data, skip_history: true, ..Grant::default() }));
    let effects = node.effects();
    let [Effect::Publish { id: 2, channel, data, skip_history: true, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!((channel.as_str(), &data[..]), ("asked:1", &b"{\"a\":2}"[..]));
    node.say(session, r#"{"id":3,"publish":{"channel":"asked:1","data":3}}"#);
    node.decide(granted());
    assert!(
        matches!(&node.effects()[..], [Effect::Publish { data, skip_history: false, .. }] if data == "3")
    );
    node.say(session, r#"{"id":4,"publish":{"channel":"asked:1","data":4}}"#);
    node.decide(refused());
    assert_eq!(node.effects(), []);
    assert_eq!(node.replies(session)[0]["error"]["message"], "not yours");
    // What is no JSON is not asked about.
    node.say(session, r#"{"id":5,"publish":{"channel":"asked:1"}}"#);
    assert_eq!(node.replies(session)[0]["error"]["code"], 107);
    assert!(node.questions().is_empty());
}

#[test]
fn what_a_backend_says_of_a_client_others_see_beside_its_user() {
    let mut node = node();
    let session = node.open(Codec::Json);
    node.say(session, r#"{"id":1,"connect":{}}"#);
    let info = |json: &'static str| Grant { info: Bytes::from_static(json.as_bytes()), ..Grant::default() };
    node.decide(Decision::Granted(Grant { user: "42".to_owned(), ..info(r#"{"n":1}"#) }));
    node.say(session, r#"{"id":2,"subscribe":{"channel":"asked:1"}}"#);
    node.decide(Decision::Granted(info(r#"{"c":1}"#)));
    node.effects();
    let seen = |node: &mut Node, channel: &str| {
        node.say(session, &format!(r#"{{"id":3,"publish":{{"channel":"{channel}","data":1}}}}"#));
        let effect = node.effects().into_iter().find(|effect| matches!(effect, Effect::Publish { .. }));
        let Some(Effect::Publish { info, .. }) = effect else { panic!("no publication") };
        (info.conn_info, info.chan_info)
    };
    assert_eq!(seen(&mut node, "news"), (Bytes::from_static(br#"{"n":1}"#), Bytes::new()));
    node.say(session, r#"{"id":4,"publish":{"channel":"asked:1","data":1}}"#);
    node.decide(granted());
    let effects = node.effects();
    let [Effect::Publish { info, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((&info.conn_info[..], &info.chan_info[..]), (&br#"{"n":1}"#[..], &br#"{"c":1}"#[..]));
    // With the subscription goes what was said of it.
    node.say(session, r#"{"id":5,"unsubscribe":{"channel":"asked:1"}}"#);
    node.say(session, r#"{"id":6,"publish":{"channel":"asked:1","data":1}}"#);
    node.decide(granted());
    let effects = node.effects();
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Publish { info, .. } if info.chan_info.is_empty()))
    );
}

#[test]
fn a_call_returns_what_the_backend_says_in_whatever_order_it_says_it() {
    let mut node = node();
    let session = node.let_in("42");
    node.say(session, "{\"id\":2,\"rpc\":{\"method\":\"slow\",\"data\":1}}\n{\"id\":3,\"rpc\":{\"method\":\"fast\",\"data\":2}}");
    let questions = node.questions();
    for (session, id, _, matter) in questions.into_iter().rev() {
        let data = Some(Bytes::from(id.to_string()));
        node.decide_about(session, id, matter, Decision::Granted(Grant { data, ..Grant::default() }));
    }
    assert_eq!(
        node.replies(session),
        [json!({"id": 3, "rpc": {"data": 3}}), json!({"id": 2, "rpc": {"data": 2}})]
    );
    for (decision, code) in [(refused(), 403), (Decision::Failed(ErrorCode::MethodNotFound), 104)] {
        node.say(session, r#"{"id":4,"rpc":{}}"#);
        node.decide(decision);
        assert_eq!(node.replies(session)[0]["error"]["code"], code);
    }
}

#[test]
fn where_no_backend_decides_nobody_is_asked() {
    let mut node = Node::new();
    let session = node.connect("42");
    node.say(session, r#"{"id":2,"rpc":{"method":"a"}}"#);
    assert_eq!(node.replies(session)[0]["error"]["code"], 108);
    node.say(session, r#"{"id":3,"subscribe":{"channel":"news"}}"#);
    assert_eq!(node.effects(), [Effect::Join(name("news"))]);
}
