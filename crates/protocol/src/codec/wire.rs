//! The wire format of Protobuf: varints, and the fields of a message as slices of it.
//!
//! Reads in place, so that payloads are borrowed and a length is only ever a range of bytes that are there. Knows
//! no message of the protocol (see `protobuf`). Groups, deprecated and never part of it, are refused.

use super::DecodeError;

/// The value of one field as far as the wire type tells.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    /// A number or a boolean.
    Varint(u64),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
    /// A fixed-width number: no field of the protocol has one, so its value is not kept.
    Fixed,
}

/// What is left to read of a message.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Reads one field: its tag and its value; `None` at the end.
    pub(super) fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
        if self.is_empty() {
            return Ok(None);
        }
        let key = u32::try_from(self.varint()?).map_err(|_| DecodeError("a field tag out of range"))?;
        let tag = key >> 3;
        if tag == 0 {
            return Err(DecodeError("a field tag of zero"));
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => Value::Bytes(self.delimited()?),
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(DecodeError("a field of an unknown wire type")),
        };
        Ok(Some((tag, value)))
    }

    /// Reads a length as a varint and that many bytes.
    pub(super) fn delimited(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.varint()?;
        self.take(length)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let split = usize::try_from(length).ok().and_then(|length| self.0.split_at_checked(length));
        let (taken, rest) = split.ok_or(DecodeError("a length beyond the end of the message"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for (at, &byte) in self.0.iter().enumerate().take(10) {
            if at == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
        }
        Err(DecodeError("a varint without an end"))
    }
}

impl<'a> Value<'a> {
    pub(super) fn number(self) -> Result<u64, DecodeError> {
        match self {
            Self::Varint(value) => Ok(value),
            Self::Bytes(_) | Self::Fixed => Err(DecodeError("a field of the wrong wire type")),
        }
    }

    pub(super) fn flag(self) -> Result<bool, DecodeError> {
        Ok(self.number()? != 0)
    }

    pub(super) fn bytes(self) -> Result<&'a [u8], DecodeError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Fixed => Err(DecodeError("a field of the wrong wire type")),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, DecodeError> {
        simdutf8::basic::from_utf8(self.bytes()?).map_err(|_| DecodeError("text that is not UTF-8"))
    }
}

/// Appends a varint.
pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Keeps a byte for a length; what is appended until [`close`] is the content.
pub(super) fn open(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len()
}

/// Writes the length of the content that began at `start`. Where one byte is too few for it, the content moves.
pub(super) fn close(start: usize, out: &mut Vec<u8>) {
    let end = out.len();
    let length = (end - start) as u64;
    if length < 0x80 {
        out[start - 1] = length as u8;
        return;
    }
    out[start - 1] = length as u8 | 0x80;
    put_varint(length >> 7, out);
    let width = out.len() - end;
    out[start..].rotate_right(width);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_varint_is_read_as_it_was_written_at_every_width() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(value, &mut out);
                out.push(0x55);
                let mut reader = Reader::new(&out);
                assert_eq!(reader.varint().unwrap(), value);
                assert_eq!(reader.0, [0x55]);
            }
        }
    }

    #[test]
    fn a_varint_ends_within_ten_bytes_and_64_bits() {
        assert!(Reader::new(&[0x80; 9]).varint().is_err());
        assert!(Reader::new(&[0x80; 20]).varint().is_err());
        let mut eleven = [0x80; 11];
        eleven[10] = 0;
        assert!(Reader::new(&eleven).varint().is_err());
        let mut beyond = [0xff; 10];
        beyond[9] = 2;
        assert!(Reader::new(&beyond).varint().is_err());
        // Not the shortest form, but a varint.
        assert_eq!(Reader::new(&[0x81, 0x80, 0x00]).varint(), Ok(1));
    }

    #[test]
    fn content_stands_behind_its_length_at_every_width() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 70_000] {
            let mut out = vec![9, 9];
            let start = open(&mut out);
            out.extend((0..length).map(|n| n as u8));
            close(start, &mut out);
            assert_eq!(out[..2], [9, 9]);
            let mut reader = Reader::new(&out[2..]);
            let content = reader.delimited().unwrap();
            assert!(content.iter().enumerate().all(|(n, &byte)| byte == n as u8));
            assert_eq!(content.len(), length);
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        assert!(Reader::new(&[5, 1, 2]).delimited().is_err());
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0];
        assert!(Reader::new(&huge).delimited().is_err());
    }

    #[test]
    fn tag_zero_tags_out_of_range_and_groups_are_refused() {
        assert!(Reader::new(&[0x00, 0x00]).field().is_err());
        assert!(Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x10, 0x00]).field().is_err());
        assert!(Reader::new(&[0x0b, 0x0c]).field().is_err());
        assert!(Reader::new(&[0x0f]).field().is_err());
    }
}
