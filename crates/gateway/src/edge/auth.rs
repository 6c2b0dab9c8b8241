//! Who a connecting client is.
//!
//! Not here yet: tokens. A connect command with a token is answered with error 108.

use tidegate_hub::{Authenticator, Identity, Refusal};
use tidegate_protocol::ErrorCode;
use tidegate_protocol::command::Connect;

/// The rules of the settings' `auth` section.
pub(crate) struct Auth {
    /// Whether a client without a token may come in.
    pub(crate) anonymous: bool,
}

impl Authenticator for Auth {
    fn authenticate(&self, connect: &Connect<'_>) -> Result<Identity, Refusal> {
        if !connect.token.is_empty() {
            return Err(Refusal::Error(ErrorCode::NotAvailable));
        }
        if !self.anonymous {
            return Err(Refusal::Error(ErrorCode::Unauthorized));
        }
        Ok(Identity::default())
    }
}
