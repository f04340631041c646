//! What a test user knows and holds.

use serde::{Deserialize, Serialize};

use super::totp::Authenticator;

/// A user's password and authenticator app.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Credentials {
    /// What they know.
    pub password: String,
    /// What they hold.
    pub authenticator: Authenticator,
}

impl Credentials {
    /// The two lines that `partywall login --stdin` reads, with a code that was not given before.
    pub fn lines(&mut self) -> String {
        format!("{}\n{}\n", self.password, self.authenticator.fresh_code())
    }
}
