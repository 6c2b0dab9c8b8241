//! Session tickets that any node with the same key file can open, so that a client which comes back to another node
//! resumes its TLS session.
//!
//! A ticket is all there is of a session; no node remembers any. It is
//!
//! ```text
//! name (16) | salt (32) | AEAD( issued (8) | size (2) | session | zeros ) | tag (16)
//! ```
//!
//! From each line of the file HKDF derives the key's public name and the secret of its tickets; from that and a
//! ticket's random salt it derives the key of this one ticket. A key that encrypts once needs no nonce to be kept apart
//! from others', whatever the number of nodes and tickets. Name and salt are authenticated. Sessions are padded to whole
//! blocks, so tickets say nothing by their size.
//!
//! Not here: keeping the file's keys fresh is the operator's; without a file rustls' own ticketer makes keys that die
//! with the process.

use std::fmt;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::aead;
use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{self, HKDF_SHA256, KeyType};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::server::ProducesTickets;

use crate::settings::{TicketKey, read_ticket_keys};

/// How long a ticket is good for. rustls' own ticketer has the same; RFC 8446, 4.6.1, allows seven days.
const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// How far the clocks of two nodes may be apart.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(5);

const NAME: usize = 16;
const SALT: usize = 32;
const TAG: usize = 16;
/// Issued, size.
const HEAD: usize = 8 + 2;
/// Plaintext comes in blocks of this size: one is enough for any session but those with very long host names.
const BLOCK: usize = 192;
/// The most blocks of a ticket. rustls' sessions without client certificates have 400 bytes at most.
const MAX_BLOCKS: usize = 4;

/// The cipher: its key is derived for each ticket, and ChaCha20 has no key schedule to pay for.
static CIPHER: &aead::Algorithm = &aead::CHACHA20_POLY1305;

/// Separates our derivations from any other use of the same bytes.
const CONTEXT: &[u8] = b"tidegate tls tickets 1";

/// One line of the file, made ready.
struct Key {
    name: [u8; NAME],
    tickets: hkdf::Prk,
}

/// Length of what HKDF is to give.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Key {
    fn new(key: &TicketKey) -> Option<Self> {
        let root = hkdf::Salt::new(HKDF_SHA256, CONTEXT).extract(key.expose());
        let mut name = [0; NAME];
        root.expand(&[b"name"], Length(NAME)).ok()?.fill(&mut name).ok()?;
        let tickets = hkdf::Prk::from(root.expand(&[b"tickets"], HKDF_SHA256).ok()?);
        Some(Self { name, tickets })
    }

    /// The key of the ticket with this salt.
    fn ticket(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let unbound = UnboundKey::from(self.tickets.expand(&[salt], CIPHER).ok()?);
        Some(LessSafeKey::new(unbound))
    }
}

/// A key encrypts one ticket, so one nonce does.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
}

/// Makes and opens tickets with the keys of a file.
pub(crate) struct Tickets {
    path: PathBuf,
    random: SystemRandom,
    /// The first encrypts. Never empty.
    keys: RwLock<Vec<Key>>,
}

impl Tickets {
    /// Reads the file. Errors: which line, and what to do.
    pub(crate) fn read(path: PathBuf) -> Result<Self, String> {
        let keys = derive(&read_ticket_keys(&path)?)?;
        Ok(Self { path, random: SystemRandom::new(), keys: RwLock::new(keys) })
    }

    /// Follows the file for as long as the node lives. What cannot be read is logged once and changes nothing.
    pub(crate) async fn follow(&self) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_error = None;
        loop {
            looks.tick().await;
            match self.refresh() {
                Ok(changed) => {
                    if changed || last_error.is_some() {
                        tracing::info!(path = %self.path.display(), "tls.ticket_keys: using the file's keys");
                    }
                    last_error = None;
                }
                Err(error) => {
                    if last_error.as_ref() != Some(&error) {
                        tracing::warn!(
                            path = %self.path.display(),
                            %error,
                            "tls.ticket_keys: the file cannot be used; the keys from before stay in use"
                        );
                    }
                    last_error = Some(error);
                }
            }
        }
    }

    /// Takes the file's keys if they are others. Says whether they were.
    fn refresh(&self) -> Result<bool, String> {
        let keys = derive(&read_ticket_keys(&self.path)?)?;
        let same = {
            let current = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            current.iter().map(|key| key.name).eq(keys.iter().map(|key| key.name))
        };
        if !same {
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        }
        Ok(!same)
    }

    fn seal(&self, session: &[u8], issued: u64) -> Option<Vec<u8>> {
        let blocks = (HEAD + session.len()).div_ceil(BLOCK);
        if blocks > MAX_BLOCKS {
            return None;
        }
        let mut salt = [0; SALT];
        self.random.fill(&mut salt).ok()?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.first()?;
        let mut ticket = Vec::with_capacity(NAME + SALT + blocks * BLOCK + TAG);
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(&salt);
        ticket.extend_from_slice(&issued.to_be_bytes());
        ticket.extend_from_slice(&u16::try_from(session.len()).ok()?.to_be_bytes());
        ticket.extend_from_slice(session);
        ticket.resize(NAME + SALT + blocks * BLOCK, 0);
        let (public, secret) = ticket.split_at_mut(NAME + SALT);
        let tag = key.ticket(&salt)?.seal_in_place_separate_tag(nonce(), Aad::from(&*public), secret).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        // What no node makes is refused before any work for it.
        let blocks = ticket.len().checked_sub(NAME + SALT + TAG)?;
        if blocks == 0 || !blocks.is_multiple_of(BLOCK) || blocks / BLOCK > MAX_BLOCKS {
            return None;
        }
        let (public, sealed) = ticket.split_at(NAME + SALT);
        let (name, salt) = public.split_at(NAME);
        let key = {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            // A name is no secret: it stands in every ticket.
            keys.iter().find(|key| key.name == name)?.ticket(salt)?
        };
        let mut sealed = sealed.to_vec();
        let plain = key.open_in_place(nonce(), Aad::from(public), &mut sealed).ok()?;
        let (issued, rest) = plain.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let issued = u64::from_be_bytes(*issued);
        if now.saturating_sub(issued) > LIFETIME.as_secs() || issued.saturating_sub(now) > SKEW.as_secs() {
            return None;
        }
        rest.get(..usize::from(u16::from_be_bytes(*size))).map(<[u8]>::to_vec)
    }
}

fn derive(keys: &[TicketKey]) -> Result<Vec<Key>, String> {
    let keys: Option<Vec<Key>> = keys.iter().map(Key::new).collect();
    keys.ok_or_else(|| "no keys can be derived from it".to_owned())
}

/// Seconds since 1970; 0 if the clock is before that, which makes tickets of that time useless and nothing worse.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, now())
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use tempfile::NamedTempFile;

    use super::*;

    /// A file whose keys consist of these bytes.
    fn file(keys: &[u8]) -> NamedTempFile {
        let mut file = NamedTempFile::new().expect("a file");
        write(&mut file, keys);
        file
    }

    fn write(file: &mut NamedTempFile, keys: &[u8]) {
        file.as_file().set_len(0).expect("an empty file");
        let lines: String = keys.iter().map(|&byte| STANDARD.encode([byte; 32]) + "\n").collect();
        std::fs::write(file.path(), lines).expect("the file takes keys");
        file.flush().expect("the file takes keys");
    }

    fn tickets(keys: &[u8]) -> Tickets {
        Tickets::read(file(keys).path().to_owned()).expect("good keys")
    }

    #[test]
    fn a_ticket_is_opened_by_whoever_has_its_key_and_nobody_else() {
        let ticket = tickets(&[1]).encrypt(b"session").expect("a ticket");
        for (keys, opens) in [(&[1][..], true), (&[2, 1], true), (&[2], false), (&[2, 3], false)] {
            assert_eq!(tickets(keys).decrypt(&ticket).is_some(), opens, "{keys:?}");
        }
        assert_eq!(tickets(&[2, 1]).decrypt(&ticket).expect("its key"), b"session");
    }

    #[test]
    fn the_first_key_encrypts() {
        let ticket = tickets(&[2, 1]).encrypt(b"session").expect("a ticket");
        assert!(tickets(&[2]).decrypt(&ticket).is_some());
        assert!(tickets(&[1]).decrypt(&ticket).is_none());
    }

    #[test]
    fn a_ticket_with_any_bit_changed_or_any_byte_missing_is_refused() {
        let tickets = tickets(&[1]);
        let ticket = tickets.encrypt(b"session").expect("a ticket");
        for at in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[at] ^= 1;
            assert!(tickets.decrypt(&forged).is_none(), "byte {at}");
            assert!(tickets.decrypt(&ticket[..at]).is_none(), "cut at {at}");
        }
        let longer = [&ticket[..], &[0]].concat();
        assert!(tickets.decrypt(&longer).is_none());
        assert!(tickets.decrypt(&vec![0; 1 << 16]).is_none());
    }

    #[test]
    fn tickets_have_one_size_and_no_two_are_alike() {
        let tickets = tickets(&[1]);
        let short = tickets.encrypt(b"").expect("a ticket");
        let long = tickets.encrypt(&[7; BLOCK - HEAD]).expect("a ticket");
        assert_eq!(short.len(), long.len());
        assert_eq!(short.len(), 256);
        assert_ne!(tickets.encrypt(b"").expect("a ticket")[NAME..], short[NAME..]);
        assert_eq!(tickets.decrypt(&long).expect("its key"), [7; BLOCK - HEAD]);
        let largest = [7; MAX_BLOCKS * BLOCK - HEAD];
        assert_eq!(tickets.decrypt(&tickets.encrypt(&largest).expect("a ticket")).expect("its key"), largest);
        assert_eq!(tickets.encrypt(&[7; MAX_BLOCKS * BLOCK - HEAD + 1]), None);
    }

    #[test]
    fn a_ticket_is_good_for_its_lifetime_and_for_clocks_a_little_apart() {
        let tickets = tickets(&[1]);
        let issued = 1_800_000_000;
        let ticket = tickets.seal(b"session", issued).expect("a ticket");
        let (lifetime, skew) = (LIFETIME.as_secs(), SKEW.as_secs());
        for (now, opens) in [
            (issued, true),
            (issued + lifetime, true),
            (issued + lifetime + 1, false),
            (issued - skew, true),
            (issued - skew - 1, false),
        ] {
            assert_eq!(tickets.open(&ticket, now).is_some(), opens, "{now}");
        }
    }

    #[test]
    fn a_changed_file_counts_and_a_broken_one_does_not() {
        let mut file = file(&[1]);
        let tickets = Tickets::read(file.path().to_owned()).expect("good keys");
        let old = tickets.encrypt(b"old").expect("a ticket");
        assert_eq!(tickets.refresh(), Ok(false));

        write(&mut file, &[2, 1]);
        assert_eq!(tickets.refresh(), Ok(true));
        assert!(tickets.decrypt(&old).is_some(), "the old key stands second");
        let new = tickets.encrypt(b"new").expect("a ticket");

        std::fs::write(file.path(), "nonsense").expect("the file takes anything");
        assert!(tickets.refresh().is_err());
        assert!(tickets.decrypt(&new).is_some(), "the keys from before");

        write(&mut file, &[2]);
        assert_eq!(tickets.refresh(), Ok(true));
        assert!(tickets.decrypt(&old).is_none(), "its key is gone");
        assert!(tickets.decrypt(&new).is_some());
    }

    #[test]
    fn nothing_of_a_key_is_shown() {
        let shown = format!("{:?}", tickets(&[1]));
        assert!(shown.starts_with("Tickets { path: "), "{shown}");
        assert!(shown.ends_with(", .. }"), "{shown}");
    }
}
