//! What time brings about: sessions, codes and tokens end, hours of policies begin and end, and configs
//! are renewed.
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

    /// Ends what has run out, reads the hours of policies anew and renews what was sent a while ago.
    pub(super) async fn sweep(&self) -> Result<()> {
        let now = self.now();
        let due = {
            let state = self.state();
            state.sessions.values().any(|it| it.ends_at <= now)
                || state.codes.values().any(|it| it.expires_at <= now)
                || state.tokens.values().any(|it| it.expires_at <= now)
                || state.hours.values().any(|it| it.until <= now)
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
                for organisation in
                    state.hours.iter().filter(|(_, it)| it.until <= now).map(|it| it.0)
                {
                    let policy = state.catalogue.policies.get(organisation).map(|it| &it.spec);
                    let observed = state.observed.get(organisation).map(|it| &it.policy);
                    change.read_hours(organisation, policy.into_iter().chain(observed), now);
                }
                for token in state.tokens.values().filter(|it| it.expires_at <= now) {
                    change.delete(token_key(&token.id));
                }
            }
            self.commit(writer, change, None).await?;
        }
        if let Some(flows) = self.inner.flows.get() {
            flows.sweep(now);
        }
        self.inner.distribution.renew(&self.state(), now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use partywall_proto::admin::PolicySpec;
    use serde_json::json;

    use super::super::Clock as _;
    use super::super::testing::Building;

    /// The rules that the desk holds and the classes that its gateway gives it.
    fn held(
        desk: &super::super::testing::Seat,
        gateway: &super::super::testing::Seat,
    ) -> [usize; 2] {
        let (desk, gateway) = (desk.held.as_ref().unwrap(), gateway.held.as_ref().unwrap());
        [desk.rules.len(), gateway.peers[0].classes.len()]
    }

    #[tokio::test]
    async fn hours_that_end_are_taken_away_from_both_ends_and_from_nobody_else() {
        let building = Building::new().await;
        let (mut gateway, mut nhs, mut desk) = building.seats().await;
        // The clock stands at eight on a Friday.
        assert_eq!(building.clock.now().to_string(), "2027-01-15T08:00:00Z");
        let name = "council".parse().unwrap();
        let policy = building.app.get::<PolicySpec>(&building.council, &name).await.unwrap().spec;
        let mut policy = serde_json::to_value(policy).unwrap();
        policy["segments"]["council"]["rules"][0]["when"] =
            json!({"hours": [{"days": ["fri"], "from": "08:00", "until": "08:30"}]});
        let policy: PolicySpec = serde_json::from_value(policy).unwrap();
        building.app.put(&building.council, policy, None).await.unwrap();
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        assert_eq!(held(&desk, &gateway), [1, 1]);

        building.clock.advance_s(30 * 60 - 31 - 1);
        building.app.sweep().await.unwrap();
        desk.drain();
        gateway.drain();
        nhs.drain();
        assert_eq!(held(&desk, &gateway), [1, 1]);
        let before = building.app.state().revision;

        building.clock.advance_s(1);
        building.app.sweep().await.unwrap();
        assert_eq!((desk.drain(), gateway.drain()), (vec!["delta"], vec!["delta"]));
        assert_eq!(held(&desk, &gateway), [0, 0]);
        assert_eq!(nhs.drain(), Vec::<&str>::new());
        // Agents tell configs apart by their generation, so the time is a change like any other.
        assert_eq!(building.app.state().revision, before + 1);
        building.app.sweep().await.unwrap();
        assert_eq!(building.app.state().revision, before + 1, "the same edge was passed twice");
        let reopened = building.reopened().await;
        assert_eq!(reopened.state().hours, building.app.state().hours);
    }

    #[tokio::test]
    async fn a_policy_without_hours_waits_for_no_edge() {
        let building = Building::new().await;
        assert!(building.app.state().hours.is_empty());
    }
}
