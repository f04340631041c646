//! Sessions as admins and agents see them, and how they end.
//!
//! A session that goes is gone from the store before its gateways and its device are told, all at once;
//! whoever asked for it does not wait until they have done it.

use jiff::Timestamp;
use partywall_proto::admin::{Page, SessionView};
use partywall_proto::ids::{AgentId, SessionId};
use serde_json::json;

use super::change::Change;
use super::records::session_key;
use super::resources::page;
use super::{App, AppError, Principal, Result};
use crate::domain::authority::Access;
use crate::domain::scope::Scope;
use crate::domain::session::SessionRecord;

impl App {
    /// The sessions of the principal's organisation.
    ///
    /// # Errors
    /// None for now.
    #[expect(clippy::unused_async, reason = "another store would be asked")]
    pub async fn sessions(
        &self,
        principal: &Principal,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<SessionView>> {
        let state = self.state();
        let mine = state.sessions.values().filter(|it| principal.may(Access::Read, &scope_of(it)));
        let mine = mine.map(|session| (session.id.to_string(), session));
        Ok(page(mine, after, limit, SessionRecord::view))
    }

    /// Ends a session at once, with every flow of it.
    ///
    /// # Errors
    /// An unknown session, or one of another organisation.
    pub async fn revoke_session(&self, principal: &Principal, id: &SessionId) -> Result<()> {
        let writer = self.writer().await;
        let subject = format!("sessions/{id}");
        let found = match self.state().sessions.get(id) {
            None => Err(AppError::NotFound(format!("session {id}"))),
            Some(it) if principal.may(Access::Write, &scope_of(it)) => Ok(it.clone()),
            Some(_) => Err(AppError::Forbidden(format!("session {id} is not yours to revoke"))),
        };
        match found {
            Ok(session) => {
                let mut change = Change::default();
                let actor = principal.actor();
                end(&mut change, &session, "session-revoke", &actor, "revoked", self.now());
                self.commit(writer, change, None).await.map(drop)
            }
            Err(refused) => {
                drop(writer);
                self.audited(principal, "session-revoke", &subject, Err(refused)).await
            }
        }
    }

    /// The person at the device `agent` signs out. Nobody signed in is no error.
    ///
    /// # Errors
    /// A store that does not take it.
    pub async fn sign_out(&self, agent: &AgentId) -> Result<()> {
        let AgentId::Device(device) = agent else {
            return Err(AppError::AgentRefused("nobody signs out at a gateway".to_owned()));
        };
        let writer = self.writer().await;
        let session = self.state().session_on(device).cloned();
        let mut change = Change::default();
        if let Some(session) = session {
            let actor = session.user.to_string();
            end(&mut change, &session, "sign-out", &actor, "signed out", self.now());
        }
        self.commit(writer, change, None).await.map(drop)
    }
}

/// Adds the end of `session` to `change`.
pub(super) fn end(
    change: &mut Change,
    session: &SessionRecord,
    action: &str,
    actor: &str,
    why: &str,
    now: Timestamp,
) {
    change.delete(session_key(&session.id));
    let chain = session.user.organisation().as_str();
    let detail = json!({ "why": why, "user": session.user, "device": session.device });
    change.done(chain, now, actor, action, format!("sessions/{}", session.id), Some(detail));
}

fn scope_of(session: &SessionRecord) -> Scope {
    Scope::Organisation(session.user.organisation().clone())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Building;
    use super::*;

    #[tokio::test]
    async fn a_revoked_session_is_gone_from_gateway_and_device_when_it_is_answered() {
        let building = Building::new().await;
        let (mut gateway, mut nhs, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        let session = building.sessions(&building.council).await.remove(0).id;

        let refused = building.app.revoke_session(&building.nhs, &session).await;
        assert!(matches!(refused, Err(AppError::Forbidden(_))));
        assert_eq!(building.sessions(&building.council).await.len(), 1);

        building.app.revoke_session(&building.council, &session).await.unwrap();
        assert_eq!(gateway.drain(), ["delta"]);
        assert_eq!(desk.drain(), ["nothing"]);
        assert_eq!(gateway.peers(), 0);
        assert_eq!(nhs.drain(), Vec::<&str>::new(), "a change reaches the agents concerned only");
    }

    #[tokio::test]
    async fn a_session_ends_with_its_time_its_user_or_its_device() {
        let building = Building::new().await;
        let (mut gateway, _nhs, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        building.app.sweep().await.unwrap();
        assert_eq!(building.sessions(&building.council).await.len(), 1);
        building.clock.advance_s(3600);
        building.app.sweep().await.unwrap();
        assert!(building.sessions(&building.council).await.is_empty());
        gateway.drain();
        assert_eq!(gateway.peers(), 0);

        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        let user = "alice@council".parse().unwrap();
        let mut alice = building
            .app
            .get::<partywall_proto::admin::UserSpec>(&building.council, &user)
            .await
            .unwrap()
            .spec;
        alice.disabled = true;
        building.app.put(&building.council, alice.clone(), None).await.unwrap();
        assert!(building.sessions(&building.council).await.is_empty());
        let refused = building.sign_in(&mut desk, "alice@council", &mut []).await;
        assert!(matches!(refused, Err(AppError::SignInRefused)));

        alice.disabled = false;
        building.app.put(&building.council, alice, None).await.unwrap();
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        let device = "desk-1".parse().unwrap();
        let (facilities, none) = (&building.facilities, None);
        building
            .app
            .delete::<partywall_proto::admin::DeviceSpec>(facilities, &device, none)
            .await
            .unwrap();
        assert!(building.sessions(&building.council).await.is_empty());
        gateway.drain();
        assert_eq!(gateway.peers(), 0);
    }

    #[tokio::test]
    async fn a_policy_change_reaches_both_ends_of_a_live_session() {
        let building = Building::new().await;
        let (mut gateway, _nhs, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        assert_eq!(desk.held.as_ref().unwrap().rules.len(), 1);
        let council = "council".parse().unwrap();
        let mut policy = building
            .app
            .get::<partywall_proto::admin::PolicySpec>(&building.council, &council)
            .await
            .unwrap()
            .spec;
        policy.segments.clear();
        building.app.put(&building.council, policy, None).await.unwrap();
        assert_eq!((desk.drain(), gateway.drain()), (vec!["delta"], vec!["delta"]));
        assert!(desk.held.unwrap().rules.is_empty() && gateway.held.unwrap().rules.is_empty());
    }

    #[tokio::test]
    async fn signing_out_twice_is_no_error() {
        let building = Building::new().await;
        let (mut gateway, _nhs, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        building.app.sign_out(&desk.agent).await.unwrap();
        building.app.sign_out(&desk.agent).await.unwrap();
        assert_eq!((desk.drain(), gateway.drain()), (vec!["nothing"], vec!["delta"]));
    }
}
