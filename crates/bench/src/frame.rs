//! RFC 6455 frames, the client's side: as much of it as a load tool needs.
//!
//! It does not put fragmented messages together: servers that send them are told apart by an error, not misread.

/// The most payload a frame of the server may announce. Nothing is allocated for it before it is there.
const LONGEST: u64 = 16 * 1024 * 1024;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A whole text message.
    Text,
    /// A whole binary message.
    Binary,
    /// The end, with its code in the first two bytes.
    Close,
    /// To be answered by a pong.
    Ping,
    /// The answer to a ping.
    Pong,
}

/// One frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// What it carries.
    pub(crate) kind: Kind,
    /// Its payload.
    pub(crate) payload: &'a [u8],
    /// How many bytes of the input it took.
    pub(crate) length: usize,
}

/// Why the server's bytes cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// RFC 6455, section 5.1.
    #[error("the server sent a masked frame")]
    Masked,
    /// Reserved bits (no extension was negotiated) or an unknown opcode.
    #[error("the server sent a frame with a reserved bit or opcode")]
    Reserved,
    /// Not supported here.
    #[error("the server sent a fragmented message, which this tool does not read")]
    Fragmented,
    /// Longer than this tool takes.
    #[error("the server announced a frame above 16 MiB")]
    TooLong,
}

/// The first frame of `bytes`, if it is there to its end.
pub(crate) fn next(bytes: &[u8]) -> Result<Option<Frame<'_>>, Fault> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(Fault::Reserved);
    }
    if second & 0x80 != 0 {
        return Err(Fault::Masked);
    }
    let kind = match first & 0x0f {
        0 => return Err(Fault::Fragmented),
        1 => Kind::Text,
        2 => Kind::Binary,
        8 => Kind::Close,
        9 => Kind::Ping,
        10 => Kind::Pong,
        _ => return Err(Fault::Reserved),
    };
    if first & 0x80 == 0 {
        return Err(Fault::Fragmented);
    }
    let (head, length) = match second & 0x7f {
        126 => match bytes.get(2..4) {
            Some(long) => (4, long.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(long) => (10, long.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))),
            None => return Ok(None),
        },
        short => (2, u64::from(short)),
    };
    if length > LONGEST {
        return Err(Fault::TooLong);
    }
    let end = head + usize::try_from(length).map_err(|_| Fault::TooLong)?;
    Ok(bytes.get(head..end).map(|payload| Frame { kind, payload, length: end }))
}

/// Appends a frame of ours to `out`.
///
/// The mask is zero, which makes masking cost nothing: it protects proxies from what scripts in browsers send
/// (RFC 6455, section 10.3), and a server cannot tell.
pub(crate) fn write(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    let opcode = match kind {
        Kind::Text => 1,
        Kind::Binary => 2,
        Kind::Close => 8,
        Kind::Ping => 9,
        Kind::Pong => 10,
    };
    out.push(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => out.push(0x80 | short),
        (_, Ok(long)) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&long.to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test is what should happen")]
    use super::*;

    /// A frame as a server sends it: ours without the mask.
    fn served(kind: Kind, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(kind, payload, &mut bytes);
        bytes[1] &= 0x7f;
        let mask = bytes.len() - payload.len() - 4;
        bytes.drain(mask..mask + 4);
        bytes
    }

    #[test]
    fn what_is_written_is_read_at_every_form_of_length() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let payload = vec![b'x'; length];
            let bytes = served(Kind::Text, &payload);
            let frame = next(&bytes).unwrap().unwrap();
            assert_eq!((frame.kind, frame.payload.len(), frame.length), (Kind::Text, length, bytes.len()));
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_waited_for() {
        for payload in [vec![7; 5], vec![7; 300], vec![7; 66_000]] {
            let bytes = served(Kind::Binary, &payload);
            for end in (0..20).chain([bytes.len() - 1]).filter(|end| *end < bytes.len()) {
                assert_eq!(next(&bytes[..end]), Ok(None), "{end}");
            }
        }
    }

    #[test]
    fn two_frames_in_one_read_are_two() {
        let bytes = [served(Kind::Ping, b"a"), served(Kind::Text, b"{}")].concat();
        let first = next(&bytes).unwrap().unwrap();
        assert_eq!((first.kind, first.payload), (Kind::Ping, &b"a"[..]));
        let second = next(&bytes[first.length..]).unwrap().unwrap();
        assert_eq!((second.kind, second.payload), (Kind::Text, &b"{}"[..]));
    }

    #[test]
    fn what_would_be_misread_is_a_fault() {
        assert_eq!(next(&[0x81, 0x80, 0, 0, 0, 0]), Err(Fault::Masked));
        assert_eq!(next(&[0xc1, 0]), Err(Fault::Reserved));
        assert_eq!(next(&[0x83, 0]), Err(Fault::Reserved));
        assert_eq!(next(&[0x01, 0]), Err(Fault::Fragmented));
        assert_eq!(next(&[0x80, 0]), Err(Fault::Fragmented));
        assert_eq!(next(&[0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0]), Err(Fault::TooLong));
    }

    #[test]
    fn our_frames_are_masked() {
        let mut bytes = Vec::new();
        write(Kind::Close, &[3, 232], &mut bytes);
        assert_eq!(bytes, [0x88, 0x82, 0, 0, 0, 0, 3, 232]);
    }
}
