//! The traffic secrets of a TLS 1.3 connection, and what is derived from them (RFC 8446, 7.1 to 7.3).
//!
//! rustls gives keys away, but the secrets from which the next keys follow it only keeps, in half a kilobyte that is
//! mostly made for QUIC; it tells them once, to its key log. [`Heard`] is the key log of one connection, and remembers
//! the two secrets until that connection changes its record layer. They are written nowhere.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ring::hkdf::{self, HKDF_SHA256, HKDF_SHA384, KeyType};
use rustls::{KeyLog, ServerConfig};
use zeroize::Zeroize as _;

/// The size of SHA-384, the largest hash of TLS 1.3's suites.
const MAX_SIZE: usize = 48;

/// A traffic secret. Wiped when dropped.
#[derive(Clone)]
pub(super) struct TrafficSecret {
    bytes: [u8; MAX_SIZE],
    /// As many of them as the suite's hash has.
    size: u8,
}

impl TrafficSecret {
    fn new(secret: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_SIZE];
        bytes.get_mut(..secret.len())?.copy_from_slice(secret);
        Some(Self { bytes, size: secret.len() as u8 })
    }

    /// HKDF-Expand-Label with an empty context; fills all of `out`.
    pub(super) fn expand(&self, label: &[u8], out: &mut [u8]) -> Option<()> {
        let size = usize::from(self.size);
        let algorithm = match size {
            32 => HKDF_SHA256,
            48 => HKDF_SHA384,
            _ => return None,
        };
        let length = u16::try_from(out.len()).ok()?.to_be_bytes();
        let label_size = [u8::try_from(PREFIX.len() + label.len()).ok()?];
        let info = [&length[..], &label_size, PREFIX, label, &[0]];
        let secret = hkdf::Prk::new_less_safe(algorithm, &self.bytes[..size]);
        secret.expand(&info, Length(out.len())).ok()?.fill(out).ok()
    }

    /// The secret after a key update.
    pub(super) fn next(&self) -> Option<Self> {
        let mut next = Self { bytes: [0; MAX_SIZE], size: self.size };
        self.expand(b"traffic upd", &mut next.bytes[..usize::from(self.size)])?;
        Some(next)
    }
}

const PREFIX: &[u8] = b"tls13 ";

impl Drop for TrafficSecret {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// The key log of one connection.
#[derive(Default)]
pub(super) struct Heard(Mutex<Pair>);

#[derive(Default)]
struct Pair {
    client: Option<TrafficSecret>,
    server: Option<TrafficSecret>,
}

const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";

impl Heard {
    /// A configuration for one connection, which tells its secrets to what is returned beside it.
    pub(super) fn of_one(config: &ServerConfig) -> (Arc<ServerConfig>, Arc<Self>) {
        let heard = Arc::new(Self::default());
        let mut config = config.clone();
        config.key_log = Arc::clone(&heard) as Arc<dyn KeyLog>;
        (Arc::new(config), heard)
    }

    /// The client's and the server's first application traffic secret.
    pub(super) fn take(&self) -> Option<(TrafficSecret, TrafficSecret)> {
        let pair = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        Some((pair.client?, pair.server?))
    }
}

impl KeyLog for Heard {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let mut pair = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match label {
            CLIENT => pair.client = TrafficSecret::new(secret),
            SERVER => pair.server = TrafficSecret::new(secret),
            _ => {}
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == CLIENT || label == SERVER
    }
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
