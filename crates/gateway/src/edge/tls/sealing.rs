//! One direction of a TLS 1.3 connection: its secret, its key, and the number of its next record.
//!
//! The AEAD's key is made anew for each record, on the stack: that takes 0.15 microseconds, and to keep it would
//! take half a kilobyte a connection. A number is used once: it moves on before anything is encrypted with it.
//!
//! Not here: what records mean.

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::{CipherSuite, ConnectionTrafficSecrets, ContentType};
use zeroize::Zeroize as _;

use super::secrets::TrafficSecret;

/// A record's header: type, version, size.
pub(super) const HEADER: usize = 5;

/// The tag at the end of every record, whichever the cipher.
pub(super) const TAG: usize = 16;

/// How many key updates may have been while rustls handled the records; it takes 32 in a row.
const MAX_UPDATES: usize = 64;

/// The ciphers that can be handled here: all of TLS 1.3 that rustls has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Cipher {
    const fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128Gcm => &aead::AES_128_GCM,
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }
}

/// Whether records of this suite can be handled here.
pub(super) const fn supported(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS13_AES_256_GCM_SHA384
            | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
    )
}

/// Key and sequence number of one direction.
pub(super) struct Half {
    /// Of the next record; the largest is never used, so it says that there is none left.
    next: u64,
    secret: TrafficSecret,
    /// As many bytes of it as the cipher's key has.
    key: [u8; 32],
    iv: [u8; aead::NONCE_LEN],
    cipher: Cipher,
}

impl Half {
    /// Goes on with what rustls used for its last record. `first` is the secret of the connection's first keys; `None` if
    /// the keys do not follow from it.
    pub(super) fn new((next, keys): (u64, ConnectionTrafficSecrets), first: TrafficSecret) -> Option<Self> {
        let (cipher, key, iv) = match &keys {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Cipher::ChaCha20Poly1305, key, iv),
            _ => return None,
        };
        let mut half = Self { next, secret: first, key: [0; 32], iv: [0; aead::NONCE_LEN], cipher };
        half.derive()?;
        for _ in 0..MAX_UPDATES {
            if half.key[..cipher.algorithm().key_len()] == *key.as_ref() && half.iv == *iv.as_ref() {
                return Some(half);
            }
            half.secret = half.secret.next()?;
            half.derive()?;
        }
        None
    }

    /// Key and IV of the secret.
    fn derive(&mut self) -> Option<()> {
        let size = self.cipher.algorithm().key_len();
        self.secret.expand(b"key", &mut self.key[..size])?;
        self.secret.expand(b"iv", &mut self.iv)
    }

    /// The next key; records are counted from 0 again.
    pub(super) fn update(&mut self) -> Option<()> {
        self.secret = self.secret.next()?;
        self.derive()?;
        self.next = 0;
        Some(())
    }

    /// How many records this key has seen.
    pub(super) const fn records(&self) -> u64 {
        self.next
    }

    /// The key for the next record, and its nonce (RFC 8446, 5.3).
    fn next(&mut self) -> Option<(LessSafeKey, Nonce)> {
        let number = self.next;
        self.next = number.checked_add(1)?;
        let mut nonce = self.iv;
        for (byte, number) in nonce[aead::NONCE_LEN - 8..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= number;
        }
        let algorithm = self.cipher.algorithm();
        let key = UnboundKey::new(algorithm, &self.key[..algorithm.key_len()]).ok()?;
        Some((LessSafeKey::new(key), Nonce::assume_unique_for_key(nonce)))
    }

    /// Decrypts what follows a header, in place. `None`: it is not from the peer, or there is no number left.
    pub(super) fn open<'a>(&mut self, header: [u8; HEADER], body: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let (key, nonce) = self.next()?;
        key.open_in_place(nonce, Aad::from(header), body).ok()
    }

    /// Appends a record with `padding` zeros. `None`: it does not fit or there is no number left; what `out` has beyond
    /// its former end then is worth nothing.
    pub(super) fn seal(
        &mut self,
        content_type: ContentType,
        content: &[u8],
        padding: usize,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let size = u16::try_from(content.len() + 1 + padding + TAG).ok()?;
        let (key, nonce) = self.next()?;
        let [high, low] = size.to_be_bytes();
        let header = [ContentType::ApplicationData.into(), 3, 3, high, low];
        out.reserve_exact(HEADER + usize::from(size));
        out.extend_from_slice(&header);
        let start = out.len();
        out.extend_from_slice(content);
        out.push(content_type.into());
        out.resize(out.len() + padding, 0);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut out[start..]).ok()?;
        out.extend_from_slice(tag.as_ref());
        Some(())
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.key.zeroize();
        self.iv.zeroize();
    }
}

#[cfg(test)]
impl Half {
    pub(super) fn copy(&self) -> Self {
        let Self { next, key, iv, cipher, .. } = *self;
        Self { next, secret: self.secret.clone(), key, iv, cipher }
    }

    /// Makes the next record's number this.
    pub(super) const fn set(&mut self, next: u64) {
        self.next = next;
    }
}
