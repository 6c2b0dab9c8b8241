//! A server that speaks Pusher, as far as the tool does: subscriptions, pings, client events.

#![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]

mod tool;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tool::{bench, json};

/// Who is in the one channel, and how many pings were answered.
#[derive(Default)]
struct Room {
    members: Mutex<Vec<TcpStream>>,
    pongs: AtomicU32,
}

/// A short text message of the server.
fn frame(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81, 126];
    bytes.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

/// The next message of a client, up to 64 KiB; none at its end.
fn next(stream: &mut TcpStream) -> Option<Value> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    let mut length = u16::from(head[1] & 0x7f);
    if length == 126 {
        let mut long = [0; 2];
        stream.read_exact(&mut long).ok()?;
        length = u16::from_be_bytes(long);
    }
    let mut rest = vec![0; 4 + usize::from(length)];
    stream.read_exact(&mut rest).ok()?;
    let (mask, payload) = rest.split_at_mut(4);
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    (head[0] == 0x81).then(|| serde_json::from_slice(payload).unwrap())
}

fn serve(mut stream: TcpStream, room: &Room) {
    let (mut asked, mut byte) = (Vec::new(), [0]);
    while !asked.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        asked.push(byte[0]);
    }
    assert!(asked.starts_with(b"GET /app/key?protocol=7 HTTP/1.1\r\n"));
    let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    let answer = format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
    stream.write_all(answer.as_bytes()).unwrap();
    let established = json!({"event": "pusher:connection_established", "data": "{\"socket_id\":\"1.1\"}"});
    stream.write_all(&frame(&established.to_string())).unwrap();
    while let Some(message) = next(&mut stream) {
        match message["event"].as_str().unwrap() {
            "pusher:subscribe" => {
                let channel = &message["data"]["channel"];
                let event = "pusher_internal:subscription_succeeded";
                let subscribed = json!({"event": event, "channel": channel, "data": "{}"}).to_string();
                let ping = json!({"event": "pusher:ping", "data": {}}).to_string();
                room.members.lock().unwrap().push(stream.try_clone().unwrap());
                stream.write_all(&[frame(&subscribed), frame(&ping)].concat()).unwrap();
            }
            "pusher:pong" => {
                room.pongs.fetch_add(1, Ordering::SeqCst);
            }
            // To all but its sender, with its data as a string.
            event if event.starts_with("client-") => {
                let data = message["data"].to_string();
                let text = json!({"event": event, "channel": message["channel"], "data": data}).to_string();
                let own = stream.peer_addr().unwrap();
                for member in room.members.lock().unwrap().iter_mut() {
                    if member.peer_addr().is_ok_and(|address| address != own) {
                        let _ = member.write_all(&frame(&text));
                    }
                }
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn pusher_is_spoken_as_far_as_subscribing_pings_and_client_events() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("ws://{}/app/key?protocol=7", listener.local_addr().unwrap());
    let room = Arc::new(Room::default());
    let theirs = Arc::clone(&room);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, room) = (stream.unwrap(), Arc::clone(&theirs));
            std::thread::spawn(move || serve(stream, &room));
        }
    });
    let arguments = ["fanout", "--json", "--protocol", "pusher", "-n", "3", "--publications", "5"];
    let result = json(&bench(&[&arguments[..], &["--target", &url]].concat()));
    let account = &result["delivery"]["account"];
    assert_eq!((&account["received"], &account["lost"]), (&15.into(), &0.into()), "{result}");
    // Three that hear and the one that publishes.
    assert_eq!(room.pongs.load(Ordering::SeqCst), 4);
}

#[test]
fn what_pusher_cannot_say_is_refused_before_anything_is_started() {
    for scenario in ["direct", "chat"] {
        let output = bench(&[scenario, "--target", "ws://127.0.0.1:9/app/key", "--protocol", "pusher"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("--protocol pusher"), "{text}");
    }
}
