//! Where what Redis says can be taken apart: whole replies, and which of them are messages of pub/sub.
//!
//! Nothing is understood beyond that, and what cannot be taken apart is passed on as it is.

/// Bytes from Redis, of which the last reply may be unfinished.
#[derive(Debug, Default)]
pub(super) struct Replies {
    pending: Vec<u8>,
}

impl Replies {
    /// Takes what was read; gives out what of it is whole, without messages if they are not wanted.
    pub(super) fn sift(&mut self, read: &[u8], messages: bool) -> Vec<u8> {
        self.pending.extend_from_slice(read);
        let (mut passed, mut start) = (Vec::new(), 0);
        while let Some(rest) = self.pending.get(start..).filter(|rest| !rest.is_empty()) {
            let size = match whole(rest) {
                Whole::Yes(size) => size,
                Whole::NotYet => break,
                Whole::Never => rest.len(),
            };
            let reply = &rest[..size];
            if messages || !is_message(reply) {
                passed.extend_from_slice(reply);
            }
            start += size;
        }
        self.pending.drain(..start);
        passed
    }
}

enum Whole {
    Yes(usize),
    NotYet,
    Never,
}

/// The size of the reply that `bytes` begin with.
fn whole(bytes: &[u8]) -> Whole {
    let (mut at, mut left) = (0, 1_u64);
    while left > 0 {
        let Some(rest) = bytes.get(at..) else { return Whole::NotYet };
        let Some(line) = rest.windows(2).position(|pair| pair == b"\r\n") else { return Whole::NotYet };
        let number = || std::str::from_utf8(&rest[1..line]).ok()?.parse::<i64>().ok();
        at += line + 2;
        left -= 1;
        match rest[0] {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => {}
            kind @ (b'$' | b'=' | b'!' | b'*' | b'>' | b'~' | b'%' | b'|') => {
                let Some(number) = number() else { return Whole::Never };
                let count = u64::try_from(number).unwrap_or(0);
                match kind {
                    b'$' | b'=' | b'!' if number < 0 => {}
                    b'$' | b'=' | b'!' => at += usize::try_from(count).unwrap_or(usize::MAX - at - 2) + 2,
                    b'%' => left += count * 2,
                    // Attributes stand before what they belong to.
                    b'|' => left += count * 2 + 1,
                    _ => left += count,
                }
            }
            _ => return Whole::Never,
        }
    }
    if at <= bytes.len() { Whole::Yes(at) } else { Whole::NotYet }
}

fn is_message(reply: &[u8]) -> bool {
    if !matches!(reply.first(), Some(b'*' | b'>')) {
        return false;
    }
    let Some(line) = reply.windows(2).position(|pair| pair == b"\r\n") else { return false };
    let first = &reply[line + 2..];
    first.starts_with(b"$7\r\nmessage\r\n") || first.starts_with(b"$8\r\nsmessage\r\n")
}

#[cfg(test)]
mod tests {
    use super::Replies;

    const SAID: &[u8] = b"+OK\r\n*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\n\r\n\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n\
        >3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$-1\r\n%1\r\n+a\r\n*1\r\n:5\r\n$-1\r\n-ERR no\r\n";
    const KEPT: &[u8] =
        b"+OK\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n%1\r\n+a\r\n*1\r\n:5\r\n$-1\r\n-ERR no\r\n";

    #[test]
    fn messages_are_told_from_other_replies_however_they_are_cut() {
        for size in 1..=SAID.len() {
            let sift = |messages: bool| {
                let mut replies = Replies::default();
                SAID.chunks(size).flat_map(|chunk| replies.sift(chunk, messages)).collect::<Vec<u8>>()
            };
            assert_eq!(sift(true), SAID, "in pieces of {size}");
            assert_eq!(sift(false).escape_ascii().to_string(), KEPT.escape_ascii().to_string());
        }
    }
}
