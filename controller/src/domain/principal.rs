//! Who is asking: the bearer of a token, with the one role that the token has.

use partywall_proto::admin::TokenRole;
use partywall_proto::ids::TokenId;

/// The bearer of a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The token.
    pub token: TokenId,
    /// What it may do.
    pub role: TokenRole,
    /// Whose hands it is in; the audit trail names them.
    pub holder: String,
}

impl Principal {
    /// As the audit trail names this one.
    pub fn actor(&self) -> String {
        format!("{} (token {})", self.holder, self.token)
    }
}
