//! The first administrator, and how every later bearer of a token is told apart.

use partywall_proto::admin::{TokenCreated, TokenRole};
use partywall_proto::enrolment::EnrolmentCode;
use partywall_proto::ids::TokenId;
use partywall_proto::problem::Finding;

use super::change::Change;
use super::records::{CONTROLLER_KEY, ControllerRecord};
use super::{App, AppError, Principal, Result};
use crate::domain::audit::FACILITIES_CHAIN;

/// Life of the first administrator's token in seconds: a year.
const FIRST_TOKEN_LIFETIME_S: u64 = 365 * 24 * 3600;

impl App {
    /// Makes the first administrator, of the role facilities. `address` is where agents will find
    /// the controller (`host:port`), `ca_fingerprint` the SHA-256 of its CA certificate in DER.
    ///
    /// # Errors
    /// Refused once it has been done, and for an address that is not `host:port`.
    pub async fn bootstrap(
        &self,
        name: &str,
        address: &str,
        ca_fingerprint: [u8; 32],
    ) -> Result<TokenCreated> {
        EnrolmentCode::new([0; 16], ca_fingerprint, address).map_err(|_| {
            let detail = format!("{address:?} is not host:port; write controller.example:8443");
            AppError::Invalid(vec![Finding::new("address", detail)])
        })?;
        let writer = self.writer().await;
        if self.state().controller.is_some() {
            let why = "the controller has its first administrator already; use that token";
            return Err(AppError::AlreadyDone(why.to_owned()));
        }
        let now = self.now();
        let mut change = Change::default();
        let record =
            ControllerRecord { name: name.to_owned(), address: address.to_owned(), ca_fingerprint };
        change.put(CONTROLLER_KEY.to_owned(), &record);
        let holder = "first administrator".to_owned();
        let created = Self::new_token(
            &mut change,
            TokenRole::Facilities,
            holder,
            FIRST_TOKEN_LIFETIME_S,
            now,
        );
        let subject = format!("tokens/{}", created.token.id);
        change.done(FACILITIES_CHAIN, now, "partywall-controller init", "bootstrap", subject, None);
        self.commit(writer, change, None).await?;
        Ok(created)
    }

    /// The bearer of a token.
    ///
    /// # Errors
    /// [`AppError::Unauthenticated`] for a token that is unknown, expired or revoked.
    #[expect(clippy::unused_async, reason = "another store would be asked")]
    pub async fn authenticate(&self, bearer: &str) -> Result<Principal> {
        let refuse = || AppError::Unauthenticated;
        let (id, _) = bearer.split_once('.').ok_or_else(refuse)?;
        let id: TokenId = id.parse().map_err(|_| refuse())?;
        let state = self.state();
        let record = state.tokens.get(&id).ok_or_else(refuse)?;
        if record.expires_at <= self.now() || !record.secret.fits(bearer.as_bytes()) {
            return Err(refuse());
        }
        Ok(Principal { token: id, role: record.role.clone(), holder: record.holder.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Building;
    use super::*;

    #[tokio::test]
    async fn there_is_one_first_administrator() {
        let building = Building::new().await;
        let again = building.app.bootstrap("hq", "controller.test:8443", [7; 32]).await;
        assert!(matches!(again, Err(AppError::AlreadyDone(_))));
        let nowhere = building.app.bootstrap("hq", "controller.test", [7; 32]).await;
        assert!(matches!(nowhere, Err(AppError::Invalid(_))));
    }

    #[tokio::test]
    async fn a_token_is_good_until_it_expires_or_is_revoked() {
        let building = Building::new().await;
        let app = &building.app;
        let request = partywall_proto::admin::TokenRequest {
            role: building.council.role.clone(),
            holder: "Bo".to_owned(),
            lifetime_s: 100,
        };
        let one = app.create_token(&building.council, request.clone()).await.unwrap();
        let two = app.create_token(&building.council, request).await.unwrap();
        app.authenticate(one.secret.expose()).await.unwrap();
        let forged = format!("{}.{}", one.token.id, two.secret.expose().split_once('.').unwrap().1);
        for bad in ["", ".", "x", &forged, one.token.id.as_str()] {
            assert!(matches!(app.authenticate(bad).await, Err(AppError::Unauthenticated)), "{bad}");
        }
        app.revoke_token(&building.council, &one.token.id).await.unwrap();
        assert!(app.authenticate(one.secret.expose()).await.is_err());
        app.authenticate(two.secret.expose()).await.unwrap();
        building.clock.advance_s(100);
        assert!(app.authenticate(two.secret.expose()).await.is_err());
        let last = app.revoke_token(&building.facilities, &building.facilities.token).await;
        assert!(matches!(last, Err(AppError::Unready(_))), "{last:?}");
    }
}
