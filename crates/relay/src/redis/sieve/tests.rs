//! The sieve against streams cut anywhere, and against what is no RESP.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use super::*;

const MOST: usize = 300_000;

/// What came out, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Out {
    Message(Vec<u8>, Vec<u8>),
    TooLarge(Vec<u8>, usize),
    TakenAway(Vec<u8>),
    Passed(Vec<u8>),
}

#[derive(Default, Clone)]
struct Notes(Arc<Mutex<Vec<Out>>>);

impl Listener for Notes {
    fn most_bytes(&self) -> usize {
        MOST
    }

    fn listens(&self) -> bool {
        true
    }

    fn message(&self, channel: &[u8], payload: &[u8], _: Instant) {
        self.0.lock().unwrap().push(Out::Message(channel.to_vec(), payload.to_vec()));
    }

    fn too_large(&self, channel: &[u8], beginning: &[u8], bytes: usize) {
        assert!(beginning.len() <= bytes);
        self.0.lock().unwrap().push(Out::TooLarge(channel.to_vec(), bytes));
    }

    fn taken_away(&self, channel: &[u8]) -> bool {
        let away = channel.starts_with(b"away");
        if away {
            self.0.lock().unwrap().push(Out::TakenAway(channel.to_vec()));
        }
        away
    }

    fn read_is_done(&self) {}
}

/// Gives its bytes in pieces of the given sizes, over and over.
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    sizes: Vec<usize>,
    turn: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let size = self.sizes[self.turn % self.sizes.len()];
        let end = self.bytes.len().min(self.at + size.min(out.remaining()));
        out.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        self.turn += 1;
        Poll::Ready(Ok(()))
    }
}

/// Sends the bytes through a sieve, read with a buffer of `room` bytes. Says how large its own one became, too.
fn sifted(bytes: &[u8], sizes: Vec<usize>, room: usize) -> (Vec<Out>, Result<()>, usize) {
    let notes = Notes::default();
    let pieces = Pieces { bytes: bytes.to_vec(), at: 0, sizes, turn: 0 };
    let mut sieve = Sieve::new(pieces, notes.clone());
    let mut largest = 0;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let result = runtime.block_on(async {
        loop {
            let mut passed = vec![0; room];
            let count = sieve.read(&mut passed).await?;
            largest = largest.max(sieve.buffer.len());
            if count == 0 {
                return Ok(());
            }
            let mut seen = notes.0.lock().unwrap();
            match seen.last_mut() {
                Some(Out::Passed(before)) => before.extend_from_slice(&passed[..count]),
                _ => seen.push(Out::Passed(passed[..count].to_vec())),
            }
        }
    });
    (std::mem::take(&mut *notes.0.lock().unwrap()), result, largest)
}

fn message(channel: &[u8], payload: &[u8]) -> Vec<u8> {
    // Every other name is that of a sharded channel.
    let kind = if channel.len().is_multiple_of(2) { "$7\r\nmessage" } else { "$8\r\nsmessage" };
    let mut out = format!(">3\r\n{kind}\r\n${}\r\n", channel.len()).into_bytes();
    out.extend_from_slice(channel);
    out.extend_from_slice(format!("\r\n${}\r\n", payload.len()).as_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
    out
}

/// Frames of every kind that are no messages.
const OTHERS: [&[u8]; 12] = [
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":1\r\n",
    b"_\r\n",
    b"$-1\r\n",
    b"$7\r\nmessage\r\n",
    b"*-1\r\n",
    b"%2\r\n+a\r\n:1\r\n$1\r\nb\r\n*2\r\n#t\r\n,1.5\r\n",
    b">3\r\n$9\r\nsubscribe\r\n$7\r\ntg:{ab}\r\n:1\r\n",
    b">3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n",
    b"|1\r\n+key\r\n*1\r\n+value\r\n~2\r\n(12\r\n=5\r\ntxt:a\r\n",
    b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\n\r\n>3\r\n",
];

#[derive(Debug, Clone)]
enum In {
    Message(Vec<u8>, Vec<u8>),
    TooLarge(usize),
    TakenAway(u32),
    Other(usize),
}

fn input() -> impl Strategy<Value = In> {
    prop_oneof![
        6 => (any::<Vec<u8>>(), any::<Vec<u8>>()).prop_map(|(c, p)| In::Message(c, p)),
        1 => (0..MOST).prop_map(|n| In::Message(b"large".to_vec(), vec![b'x'; n])),
        1 => (1..MOST).prop_map(|n| In::TooLarge(MOST + n)),
        1 => any::<u32>().prop_map(In::TakenAway),
        6 => (0..OTHERS.len()).prop_map(In::Other),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn messages_come_out_and_the_rest_passes_in_order_however_it_is_cut(
        inputs in proptest::collection::vec(input(), 0..24),
        sizes in proptest::collection::vec(1..70_000usize, 1..6),
        tiny in any::<bool>(),
        room in prop_oneof![1..20usize, Just(8192)],
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for input in &inputs {
            match input {
                In::Message(channel, payload) => {
                    bytes.extend(message(channel, payload));
                    expected.push(Out::Message(channel.clone(), payload.clone()));
                }
                In::TooLarge(count) => {
                    bytes.extend(message(b"huge", &vec![b'\n'; *count]));
                    expected.push(Out::TooLarge(b"huge".to_vec(), *count));
                }
                In::TakenAway(count) => {
                    bytes.extend(format!(">3\r\n$12\r\nsunsubscribe\r\n$6\r\naway{{}}\r\n:{count}\r\n").bytes());
                    expected.push(Out::TakenAway(b"away{}".to_vec()));
                }
                In::Other(which) => {
                    bytes.extend(OTHERS[*which]);
                    match expected.last_mut() {
                        Some(Out::Passed(before)) => before.extend_from_slice(OTHERS[*which]),
                        _ => expected.push(Out::Passed(OTHERS[*which].to_vec())),
                    }
                }
            }
        }
        let sizes = if tiny && bytes.len() < 20_000 { vec![1, 2, 3] } else { sizes };
        let (out, result, _) = sifted(&bytes, sizes, room);
        prop_assert!(result.is_ok());
        prop_assert!(out == expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        mut bytes in any::<Vec<u8>>(),
        other in 0..OTHERS.len(),
        begins_as_message in any::<bool>(),
        sizes in proptest::collection::vec(1..9usize, 1..4),
    ) {
        let begin = if begins_as_message { MESSAGE } else { OTHERS[other] };
        bytes.splice(0..0, begin[..begin.len() - usize::from(!begins_as_message)].iter().copied());
        let _ = sifted(&bytes, sizes, 7);
    }
}

#[test]
fn an_announced_length_takes_no_memory() {
    for head in [
        format!(">3\r\n$7\r\nmessage\r\n$1\r\na\r\n${}\r\nxxx", usize::MAX - 100),
        format!(">3\r\n$7\r\nmessage\r\n$1\r\na\r\n${}\r\nxxx", MOST - 1),
        "$500000000\r\nxxx".to_owned(),
        "*4000000000\r\n+OK\r\n".to_owned(),
    ] {
        let (_, result, largest) = sifted(head.as_bytes(), vec![1000], 100);
        assert!(result.is_ok(), "{head}: it may still come");
        assert_eq!(largest, READ_BYTES, "{head}");
    }
}

#[test]
fn what_is_no_resp_ends_the_connection() {
    let endless = "+".repeat(READ_BYTES + 1);
    for broken in [
        "hello\r\n",
        "+OK\n",
        "\r\n",
        "$\r\n",
        "$-2\r\n",
        "*99999999999999999999\r\n",
        "*5000000000\r\n",
        ">3\r\n$7\r\nmessage\r\n$5000\r\n",
        ">3\r\n$7\r\nmessage\r\n$00000000000000000000000000001\r\n",
        ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n:1\r\n",
        ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nabc",
        &endless,
    ] {
        let (_, result, _) = sifted(broken.as_bytes(), vec![1000], 100);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidData, "{broken:.60}");
    }
}
