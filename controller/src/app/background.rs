//! What time brings about: sessions, codes and tokens end, and configs are renewed.
//!
//! Takes no input and may run at any moment, as often as one likes: it looks at the state and the
//! clock and does what is due.

use std::time::Duration;

use tracing::warn;

use super::change::Change;
use super::records::{code_key, token_key};
use super::sessions::end;
use super::{App, Result};

/// Seconds between looks. A gateway ends a peer at its session's end by itself, so a second late
/// admits nobody.
const INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two looks that were asked for.
const PAUSE: Duration = Duration::from_millis(100);

impl App {
    /// Does what is due, whenever it is due, until it is dropped. Spawn it once.
    pub async fn run_background(&self) {
        loop {
            if let Err(failure) = self.sweep().await {
                warn!(%failure, "what was due could not be done; trying again");
            }
            let _ = tokio::time::timeout(INTERVAL, self.inner.due.notified()).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Ends what has run out and renews what was sent a while ago.
    pub(super) async fn sweep(&self) -> Result<()> {
        let now = self.now();
        let due = {
            let state = self.state();
            state.sessions.values().any(|it| it.ends_at <= now)
                || state.codes.values().any(|it| it.expires_at <= now)
                || state.tokens.values().any(|it| it.expires_at <= now)
        };
        if due {
            let writer = self.writer().await;
            let mut change = Change::default();
            {
                let state = self.state();
                for session in state.sessions.values().filter(|it| it.ends_at <= now) {
                    end(&mut change, session, "session-end", "controller", "its time is over", now);
                }
                for (agent, _) in state.codes.iter().filter(|(_, it)| it.expires_at <= now) {
                    change.delete(code_key(agent));
                }
                for token in state.tokens.values().filter(|it| it.expires_at <= now) {
                    change.delete(token_key(&token.id));
                }
            }
            self.commit(writer, change, None).await?;
        }
        self.inner.distribution.renew(&self.state(), now);
        Ok(())
    }
}
