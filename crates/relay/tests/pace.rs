//! How fast the relay is. Measurements, not promises: run by hand, in release, with `--ignored --nocapture`.

#![expect(clippy::print_stdout, reason = "the figures are the result")]

mod support;

use std::time::Instant;

use support::{RedisServer, joined, node, publication, settings, ticket};

const COUNT: usize = 300_000;

#[tokio::test]
#[ignore = "a measurement"]
async fn deliveries_a_second() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    joined(&relay, &recorder, 0, "news");
    let script = format!(
        "for i = 1, {COUNT} do redis.call('PUBLISH', KEYS[1], '{{\"n\":\"' .. string.rep('x', 116) .. '\"}}') end"
    );
    // Redis' default bound of a subscriber's buffer is below what a script makes in one go.
    let _: String = server.command(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0"]);
    let _: Option<u64> = server.command(&["EVAL", &script, "1", "tg:{news}"]);
    let begun = Instant::now();
    recorder.wait("everything", |r| (r.events.len() > COUNT).then_some(()));
    let seconds = begun.elapsed().as_secs_f64();
    println!("{COUNT} publications of 124 bytes heard in {seconds:.2} s after Redis had queued them");
}

#[tokio::test]
#[ignore = "a measurement"]
async fn publications_a_second() {
    let server = RedisServer::start();
    let (relay, recorder) = node("n1", settings(&server.url()));
    let data = format!("{{\"n\":\"{}\"}}", "x".repeat(116));
    let begun = Instant::now();
    for n in 0..COUNT {
        let id = u32::try_from(n).expect("a small number");
        while relay.submit(publication("news", &data), ticket(id)).is_err() {
            tokio::task::yield_now().await;
        }
    }
    recorder.wait("every answer", |r| (r.events.len() > COUNT).then_some(()));
    let seconds = begun.elapsed().as_secs_f64();
    println!("{COUNT} publications of 124 bytes answered in {seconds:.2} s");
    let begun = Instant::now();
    for _ in 0..1000 {
        relay.publish(publication("news", &data)).await.expect("published");
    }
    println!("one after the other: {:.0} microseconds each", begun.elapsed().as_secs_f64() * 1000.0);
}
