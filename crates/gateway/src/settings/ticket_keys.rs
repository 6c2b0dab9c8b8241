//! The file that nodes share to open each other's session tickets: one key a line, base64 of 32 random bytes or more.
//!
//! The first key encrypts, all of them decrypt, so keys are rotated by putting a new one before the others. Empty lines
//! and lines that begin with `#` are left out.
//!
//! Not here: what is made of the keys (`edge`).

use std::fmt;
use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The fewest bytes of a key: as many as the cipher's.
const MIN_BYTES: usize = 32;

/// The most bytes of a key. More than 64 add nothing; the bound is for whoever names a wrong file.
const MAX_BYTES: usize = 1024;

/// The most keys of a file.
const MAX_KEYS: usize = 16;

/// The largest file that is read.
const MAX_FILE: u64 = 64 * 1024;

/// Standard base64, with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Random bytes that nodes share. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TicketKey(Vec<u8>);

impl TicketKey {
    /// The bytes themselves, for the one place that derives keys from them: 32 at least.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Reads the file; the key that encrypts is the first, and there is one at least. Errors: which line, and what to do.
pub(crate) fn read(path: &Path) -> Result<Vec<TicketKey>, String> {
    let mut text = String::new();
    let unreadable = |error| format!("cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("is larger than {} KiB: name a file with one key a line", MAX_FILE / 1024));
    }
    parse(&text)
}

/// Takes the keys out of the file's text.
fn parse(text: &str) -> Result<Vec<TicketKey>, String> {
    let mut keys: Vec<(usize, TicketKey)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let (number, line) = (at + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // What does not decode is not shown: it may be most of a key.
        let bytes = BASE64.decode(line).map_err(|_| {
            format!(
                "line {number} is not base64: write one key a line, each made by `openssl rand -base64 32`"
            )
        })?;
        if bytes.len() < MIN_BYTES || bytes.len() > MAX_BYTES {
            return Err(format!(
                "line {number} is a key of {} bytes: it must have {MIN_BYTES} to {MAX_BYTES}; make it by \
                 `openssl rand -base64 32`",
                bytes.len()
            ));
        }
        let key = TicketKey(bytes);
        if let Some((first, _)) = keys.iter().find(|(_, known)| *known == key) {
            return Err(format!("line {number} is the same key as line {first}: take one of them out"));
        }
        if keys.len() == MAX_KEYS {
            return Err(format!(
                "line {number} is one key too many: {MAX_KEYS} at most, take out the oldest"
            ));
        }
        keys.push((number, key));
    }
    if keys.is_empty() {
        return Err("has no key: write one a line, each made by `openssl rand -base64 32`".to_owned());
    }
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key of `size` bytes, each `byte`, as a line.
    fn line(byte: u8, size: usize) -> String {
        BASE64.encode(vec![byte; size])
    }

    #[test]
    fn keys_are_read_in_their_order_with_comments_and_empty_lines_left_out() {
        let text =
            format!("# new\n{}\n\n  {}  \r\n{}", line(1, 32), line(2, 48), line(3, 33).trim_end_matches('='));
        let keys = parse(&text).expect("good keys");
        let exposed: Vec<(u8, usize)> =
            keys.iter().map(|key| (key.expose()[0], key.expose().len())).collect();
        assert_eq!(exposed, [(1, 32), (2, 48), (3, 33)]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_without_the_key() {
        let (good, other) = (line(1, 32), line(2, 32));
        let many: String = (0..17).map(|byte| line(byte, 32) + "\n").collect();
        for (text, says) in [
            (String::new(), "no key"),
            ("# nothing\n".to_owned(), "no key"),
            (format!("{good}\nsecret words!\n"), "line 2 is not base64"),
            (format!("{good}\n{}\n", line(9, 31)), "line 2 is a key of 31 bytes"),
            (line(9, 1025), "line 1 is a key of 1025 bytes"),
            (format!("{good}\n{other}\n{good}\n"), "line 3 is the same key as line 1"),
            (many, "line 17 is one key too many"),
        ] {
            let said = parse(&text).expect_err("bad keys");
            assert!(said.contains(says), "{said}");
            assert!(
                !said.contains("secret") && !said.contains(&good) && !said.contains(&line(9, 31)),
                "{said}"
            );
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", parse(&line(1, 32)).expect("a key")), "[***]");
    }
}
