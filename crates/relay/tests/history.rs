//! Channels with history on Redis: what is kept, who gets which position, and what a client that was away is given.

mod support;

use std::collections::HashSet;

use support::recorder::{Event, Record};
use support::{Recorder, RedisServer, calls, channel, joined, node, publication, settings};
use tidegate_protocol::{Epoch, Position};
use tidegate_relay::{
    HistoryQuery, Observation, Outgoing, Recover, Recovered, Relay, RelayError, Since, Ticket, WorkerId,
};

async fn published(relay: &Relay, name: &str, data: &str) -> Position {
    relay.publish(publication(name, data)).await.expect("published").expect("a position")
}

fn last_position(recorder: &Recorder, worker: u8, name: &str) -> Position {
    let joins = recorder.answers_to_joins(worker, name);
    joins.last().cloned().expect("a join").expect("joined").expect("a position")
}

fn ask(relay: &Relay, name: &str, worker: u8, id: u32, since: Position) {
    let ticket = Ticket { worker: WorkerId(worker), session: 1, id };
    relay.recover(Recover { channel: channel(name), since, ticket }).expect("room");
}

fn recovered(recorder: &Recorder, id: u32) -> Result<Recovered, String> {
    recorder.wait("the recovery", |r| {
        r.events.iter().find_map(|event| match event {
            Event::Recovered(ticket, _, result) if ticket.id == id => Some(result.clone()),
            _ => None,
        })
    })
}

fn data(recovered: &Recovered) -> Vec<String> {
    let publications = recovered.publications.as_ref().expect("recovered");
    publications.iter().map(|p| String::from_utf8_lossy(&p.data).into_owned()).collect()
}

#[tokio::test]
async fn each_publication_has_the_next_offset_and_everyone_hears_it() {
    let server = RedisServer::start();
    let (one, first) = node("n1", settings(&server.url()));
    let (two, second) = node("n2", settings(&server.url()));
    joined(&one, &first, 0, "kept:a");
    let start = last_position(&first, 0, "kept:a");
    assert_eq!(start.offset, 0);
    for n in 1..=5 {
        let relay = if n % 2 == 0 { &two } else { &one };
        let position = published(relay, "kept:a", &n.to_string()).await;
        assert_eq!(position, Position { offset: n, epoch: start.epoch.clone() });
    }
    joined(&two, &second, 0, "kept:a");
    assert_eq!(last_position(&second, 0, "kept:a").offset, 5);
    published(&one, "kept:a", "6").await;
    first.hears(0, "kept:a", &["1", "2", "3", "4", "5", "6"]);
    second.hears(0, "kept:a", &["6"]);
    let offsets: Vec<_> = first.record().publications(0, "kept:a").map(|p| p.offset).collect();
    assert_eq!(offsets, [1, 2, 3, 4, 5, 6]);
    assert_eq!(first.record().count(|o| matches!(o, Observation::Repaired(_))), 0, "nothing was missing");
}

#[tokio::test]
async fn a_channel_without_history_has_no_positions() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    assert_eq!(recorder.answers_to_joins(0, "news"), [Ok(None)]);
    assert_eq!(relay.publish(publication("news", "1")).await.expect("published"), None);
    let error = relay.history(channel("news"), HistoryQuery::default()).await.expect_err("no history");
    assert!(matches!(error, RelayError::Unavailable));
    ask(&relay, "news", 0, 1, Position { offset: 0, epoch: Epoch::new("x") });
    recovered(&recorder, 1).expect_err("no history");
    assert_eq!(server.command::<Vec<String>>(&["KEYS", "tg:{*"]), [""; 0]);
}

#[tokio::test]
async fn a_publication_that_skips_history_is_heard_and_not_kept() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    published(&relay, "kept:a", "1").await;
    let skipping = Outgoing { skip_history: true, ..publication("kept:a", "2").into() };
    assert_eq!(relay.publish(skipping).await.expect("published"), None);
    published(&relay, "kept:a", "3").await;
    recorder.hears(0, "kept:a", &["1", "2", "3"]);
    let offsets: Vec<_> = recorder.record().publications(0, "kept:a").map(|p| p.offset).collect();
    assert_eq!(offsets, [1, 0, 2]);
}

#[tokio::test]
async fn the_same_idempotency_key_is_published_once() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    let order =
        |data: &str| Outgoing { idempotency_key: "order-1".into(), ..publication("kept:a", data).into() };
    let first = relay.publish(order("1")).await.expect("published");
    let second = relay.publish(order("1")).await.expect("published");
    assert_eq!(first, second);
    published(&relay, "kept:a", "2").await;
    recorder.hears(0, "kept:a", &["1", "2"]);
}

#[tokio::test]
async fn what_was_missed_is_recovered_up_to_where_the_worker_stands() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    let since = published(&relay, "kept:a", "1").await;
    for n in 2..=4 {
        published(&relay, "kept:a", &n.to_string()).await;
    }
    // As a hub does: it joins, and asks at once.
    relay.join(WorkerId(0), channel("kept:a")).expect("room");
    ask(&relay, "kept:a", 0, 1, since.clone());
    let got = recovered(&recorder, 1).expect("recovered");
    assert_eq!(got.position, Position { offset: 4, epoch: since.epoch.clone() });
    assert_eq!(data(&got), ["2", "3", "4"]);
    let joined_first = recorder.record().events.iter().position(|e| matches!(e, Event::Joined(..)));
    let then = recorder.record().events.iter().position(|e| matches!(e, Event::Recovered(..)));
    assert!(joined_first < then, "the join is answered before");
    // Whoever is up to date needs nothing.
    ask(&relay, "kept:a", 0, 2, got.position.clone());
    assert_eq!(data(&recovered(&recorder, 2).expect("recovered")), [""; 0]);
    // Another epoch, or a future that never was.
    let unknown = [
        Position { offset: 1, epoch: Epoch::new("other") },
        Position { offset: 5, epoch: since.epoch.clone() },
    ];
    for (id, since) in (3..).zip(unknown) {
        ask(&relay, "kept:a", 0, id, since);
        let got = recovered(&recorder, id).expect("an answer");
        assert_eq!((got.publications, got.position.offset), (None, 4));
    }
}

#[tokio::test]
async fn what_was_trimmed_is_not_recovered() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "brief:a");
    let start = last_position(&recorder, 0, "brief:a");
    for n in 1..=5 {
        published(&relay, "brief:a", &n.to_string()).await;
    }
    let at = |offset| Position { offset, epoch: start.epoch.clone() };
    recorder.hears(0, "brief:a", &["1", "2", "3", "4", "5"]);
    ask(&relay, "brief:a", 0, 1, at(1));
    assert_eq!(recovered(&recorder, 1).expect("an answer").publications, None);
    ask(&relay, "brief:a", 0, 2, at(2));
    assert_eq!(data(&recovered(&recorder, 2).expect("an answer")), ["3", "4", "5"]);
}

#[tokio::test]
async fn a_worker_that_has_not_joined_recovers_nothing() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    let since = published(&relay, "kept:a", "1").await;
    ask(&relay, "kept:a", 0, 1, since.clone());
    recovered(&recorder, 1).expect_err("nobody joined");
    joined(&relay, &recorder, 1, "kept:a");
    ask(&relay, "kept:a", 0, 2, since);
    recovered(&recorder, 2).expect_err("another worker did");
}

#[tokio::test]
async fn a_client_that_heard_more_on_another_node_is_not_told_that_its_history_is_gone() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    let start = last_position(&recorder, 0, "kept:a");
    // In the log, and not heard here yet.
    let script = "redis.call('HSET', KEYS[1] .. ':meta', 'offset', 1) \
                  return redis.call('XADD', KEYS[1] .. ':log', '1-0', 'data', '1')";
    let _: String = server.command(&["EVAL", script, "1", "tg:{kept:a}"]);
    let last = Position { offset: 1, epoch: start.epoch };
    ask(&relay, "kept:a", 0, 1, last.clone());
    let got = recovered(&recorder, 1).expect("an answer");
    assert_eq!((data(&got), got.position), (vec![], last));
    recorder.hears(0, "kept:a", &["1"]);
}

#[tokio::test]
async fn five_thousand_recoveries_of_a_channel_read_its_log_a_few_times() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    let since = published(&relay, "kept:a", "1").await;
    for n in 2..=50 {
        published(&relay, "kept:a", &n.to_string()).await;
    }
    joined(&relay, &recorder, 0, "kept:a");
    let before = calls(&server, "evalsha");
    for id in 0..5000 {
        let since = Position { offset: 1 + u64::from(id % 40), epoch: since.epoch.clone() };
        ask(&relay, "kept:a", 0, id, since);
    }
    let all = |r: &Record| {
        let answers = r.events.iter().filter(|e| matches!(e, Event::Recovered(_, _, Ok(_))));
        (answers.count() == 5000).then_some(())
    };
    recorder.wait("every recovery", all);
    let reads = calls(&server, "evalsha") - before;
    assert!((1..=3).contains(&reads), "{reads} reads");
    for id in [0, 39, 40, 4999] {
        let got = recovered(&recorder, id).expect("recovered");
        assert_eq!(data(&got).len() as u32, 49 - id % 40);
    }
}

/// Each worker's deliveries and recoveries, put together, are one stream.
#[tokio::test]
async fn joins_and_recoveries_in_a_flood_leave_neither_hole_nor_duplicate() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    let start = published(&relay, "kept:a", "0").await;
    support::library(&server);
    let flooding = {
        let url = server.url();
        std::thread::spawn(move || {
            let mut backend = redis::Client::open(url).expect("a url").get_connection().expect("connected");
            for n in 1..=1500 {
                let mut pipeline = redis::pipe();
                for k in 0..4 {
                    pipeline.cmd("FCALL").arg("tg_publish").arg(1).arg("tg:{kept:a}").arg(n * 4 + k).ignore();
                }
                pipeline.exec(&mut backend).expect("published");
            }
        })
    };
    let mut id = 0;
    for _ in 0..60 {
        for worker in 0..4 {
            let joins = recorder.answers_to_joins(worker, "kept:a").len();
            relay.join(WorkerId(worker), channel("kept:a")).expect("room");
            let offset =
                recorder.record().publications(worker, "kept:a").map(|p| p.offset).max().unwrap_or(1);
            let offset = offset.saturating_sub(20).max(1);
            id += 1;
            ask(&relay, "kept:a", worker, id, Position { offset, epoch: start.epoch.clone() });
            recorder.wait("joined", |r| (r.joins(worker, "kept:a").len() > joins).then_some(()));
            let _ = recovered(&recorder, id);
            relay.leave(WorkerId(worker), channel("kept:a")).expect("room");
        }
    }
    flooding.join().expect("the flood ends");
    let record = recorder.record();
    for worker in 0..4 {
        let mut at = None;
        let mut recoveries = 0;
        for event in &record.events {
            match event {
                Event::Joined(w, _, Ok(Some(position))) if w.0 == worker => at = Some(position.offset),
                Event::Recovered(ticket, _, Ok(recovered)) if ticket.worker.0 == worker => {
                    assert_eq!(Some(recovered.position.offset), at, "exactly what was delivered");
                    recoveries += 1;
                    if let Some(publications) = &recovered.publications {
                        let offsets: Vec<_> = publications.iter().map(|p| p.offset).collect();
                        let first = offsets.first().copied().unwrap_or(1);
                        let whole: Vec<_> = (first..=recovered.position.offset).collect();
                        assert!(offsets.is_empty() || offsets == whole, "{offsets:?}");
                    }
                }
                Event::Said(workers, tidegate_relay::Said::Publication(p))
                    if workers.contains(WorkerId(worker)) =>
                {
                    assert_eq!(Some(p.offset), at.map(|at| at + 1), "in order, once");
                    at = Some(p.offset);
                }
                _ => {}
            }
        }
        assert!(recoveries > 0);
    }
}

#[tokio::test]
async fn history_is_read_from_both_ends_and_removed() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    for n in 1..=6 {
        published(&relay, "kept:a", &n.to_string()).await;
    }
    let position = last_position(&recorder, 0, "kept:a");
    let read = async |query: HistoryQuery| {
        let history = relay.history(channel("kept:a"), query).await.expect("history");
        assert_eq!(history.position, Position { offset: 6, epoch: position.epoch.clone() });
        history.publications.iter().map(|p| p.offset).collect::<Vec<_>>()
    };
    let since = |offset| Some(Since { offset, epoch: Some(position.epoch.clone()) });
    let query = HistoryQuery::default;
    assert_eq!(read(query()).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(read(HistoryQuery { limit: Some(0), ..query() }).await, [0; 0]);
    assert_eq!(read(HistoryQuery { limit: Some(2), ..query() }).await, [1, 2]);
    assert_eq!(read(HistoryQuery { limit: Some(2), reverse: true, ..query() }).await, [6, 5]);
    assert_eq!(read(HistoryQuery { since: since(4), ..query() }).await, [5, 6]);
    assert_eq!(read(HistoryQuery { since: since(4), reverse: true, ..query() }).await, [3, 2, 1]);
    assert_eq!(read(HistoryQuery { since: since(1), reverse: true, ..query() }).await, [0; 0]);
    assert_eq!(read(HistoryQuery { since: since(6), ..query() }).await, [0; 0]);
    let foreign = Some(Since { offset: 1, epoch: Some(Epoch::new("other")) });
    let error = relay.history(channel("kept:a"), HistoryQuery { since: foreign, ..query() }).await;
    assert!(matches!(error, Err(RelayError::Unrecoverable)));

    relay.history_remove(channel("kept:a")).await.expect("removed");
    assert_eq!(read(query()).await, [0; 0]);
    let next = published(&relay, "kept:a", "7").await;
    assert_eq!(next, Position { offset: 7, epoch: position.epoch.clone() }, "offsets go on");
    ask(&relay, "kept:a", 0, 1, Position { offset: 5, epoch: position.epoch.clone() });
    assert_eq!(recovered(&recorder, 1).expect("an answer").publications, None);
}

#[tokio::test]
async fn who_published_and_tags_are_kept() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    let mut whole = publication("kept:a", r#"{"text":"hello"}"#);
    whole.tags = vec![("lang".into(), "en\n".into())];
    whole.info = Some(tidegate_protocol::ClientInfo {
        user: "42".into(),
        client: "c1".into(),
        conn_info: bytes::Bytes::from_static(b"{\n\"name\":\"Ada\"}"),
        chan_info: bytes::Bytes::new(),
    });
    relay.publish(whole.clone()).await.expect("published");
    let live = recorder.wait("the publication", |r| r.publications(0, "kept:a").next().cloned());
    let history = relay.history(channel("kept:a"), HistoryQuery::default()).await.expect("history");
    assert_eq!(history.publications, std::slice::from_ref(&live));
    assert_eq!((live.tags, live.offset), (whole.tags, 1));
    let info = live.info.expect("who published");
    assert_eq!((info.user.as_str(), &info.conn_info[..]), ("42", b"{ \"name\":\"Ada\"}".as_slice()));
}

#[tokio::test]
async fn a_forgotten_script_is_told_again_and_nothing_is_lost() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "kept:a");
    for n in 1..=5 {
        let _: String = server.command(&["SCRIPT", "FLUSH"]);
        assert_eq!(published(&relay, "kept:a", &n.to_string()).await.offset, n);
        joined(&relay, &recorder, 0, &format!("kept:{n}"));
    }
    recorder.hears(0, "kept:a", &["1", "2", "3", "4", "5"]);
    let mut channels = HashSet::new();
    channels.extend(recorder.record().publications(0, "kept:a").map(|p| p.channel.clone()));
    assert_eq!(channels.len(), 1);
}
