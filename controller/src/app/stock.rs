//! The config for a stock WireGuard client: printed once, valid while its user has a session.
//!
//! Its preshared keys come from the device's own secret, which stays while the device's key does, so
//! that a new session does not void what was printed.

use partywall_proto::admin::DeviceKind;
use partywall_proto::ids::{DeviceId, SegmentId};
use partywall_proto::keys::Secret;

use super::change::Change;
use super::desired::gateways;
use super::records::stock_secret_key;
use super::sign_in::addresses;
use super::state::State;
use super::{App, AppError, Principal, Resource, Result, random};
use crate::domain::authority::Access;
use crate::domain::overlay;
use crate::domain::session::PskSecret;

impl App {
    /// A `wg-quick(8)` file for a stock client, its private key left to be filled in.
    ///
    /// # Errors
    /// A device that is not a stock client or not the principal's, a segment of another
    /// organisation than its owner's, a segment without a gateway, an exhausted pool.
    pub async fn stock_config(
        &self,
        principal: &Principal,
        device: &DeviceId,
        segment: &SegmentId,
    ) -> Result<Secret> {
        let writer = self.writer().await;
        let made = self.prepare_stock(&self.state(), principal, device, segment);
        let subject = format!("devices/{device}");
        match made {
            Ok((change, text)) => {
                self.commit(writer, change, None).await?;
                Ok(text)
            }
            Err(refused) => {
                drop(writer);
                self.audited(principal, "stock-config", &subject, Err(refused)).await
            }
        }
    }

    fn prepare_stock(
        &self,
        state: &State,
        principal: &Principal,
        device: &DeviceId,
        segment: &SegmentId,
    ) -> Result<(Change, Secret)> {
        let found = state.catalogue.devices.get(device);
        let spec = &found.ok_or_else(|| AppError::NotFound(format!("device {device}")))?.spec;
        let scope = spec.scope(&state.catalogue);
        let scope = scope.filter(|scope| principal.may(Access::Write, scope)).ok_or_else(|| {
            AppError::Forbidden(format!("device {device} is not of your organisation"))
        })?;
        if spec.kind == DeviceKind::Agent {
            let how = format!("device {device} runs an agent; make an enrolment code for it");
            return Err(AppError::Unready(how));
        }
        let found = state.catalogue.segments.get(segment);
        let segment = &found.ok_or_else(|| AppError::NotFound(format!("segment {segment}")))?.spec;
        if segment.scope(&state.catalogue).as_ref() != Some(&scope) {
            let why = format!("segment {} is not of the organisation of {device}", segment.name);
            return Err(AppError::Forbidden(why));
        }
        let gateways = gateways(state, &segment.name);
        if gateways.is_empty() {
            let why = format!("segment {} has no enrolled gateway yet", segment.name);
            return Err(AppError::Unready(why));
        }
        let mut change = Change::default();
        let addresses = addresses(state, segment, device, &mut change)?;
        let secret = state.stock_secrets.get(device).cloned().unwrap_or_else(|| {
            let secret = PskSecret::from_bytes(random::bytes());
            change.put(stock_secret_key(device), &secret);
            secret
        });
        let (actor, subject) = (principal.actor(), format!("devices/{device}"));
        change.done(scope.chain(), self.now(), &actor, "stock-config", subject, None);
        let text = overlay::stock_config(segment, &gateways, &addresses, &secret);
        Ok((change, Secret::from(text)))
    }
}

#[cfg(test)]
mod tests {
    use partywall_proto::admin::{DeviceSpec, SignInRequest};
    use serde_json::json;

    use super::super::testing::{Building, PASSWORD, secret};
    use super::*;

    #[tokio::test]
    async fn a_stock_client_is_a_peer_while_its_owner_has_a_session_and_its_config_stays_valid() {
        let building = Building::new().await;
        let (mut gateway, _nhs, _desk) = building.seats().await;
        let (app, council) = (&building.app, &building.council);
        let phone: DeviceSpec = serde_json::from_value(json!({
            "name": "phone", "owner": "alice@council",
            "kind": {"runs": "stock", "wireguard_key": "B".repeat(42) + "A="},
        }))
        .unwrap();
        app.put(council, phone, None).await.unwrap();
        let (device, segment) = ("phone".parse().unwrap(), "council".parse().unwrap());
        let request = |code: Secret| SignInRequest {
            device: "phone".parse().unwrap(),
            segment: "council".parse().unwrap(),
            user: "alice@council".parse().unwrap(),
            password: secret(PASSWORD),
            code,
        };
        let early = app.sign_in_stock(request(building.code_of("alice@council"))).await;
        assert!(matches!(early, Err(AppError::Unready(_))), "{early:?}");

        let printed = app.stock_config(council, &device, &segment).await.unwrap();
        assert!(app.stock_config(&building.nhs, &device, &segment).await.is_err());
        for _ in 0..2 {
            gateway.drain();
            assert_eq!(gateway.peers(), 0);
            let code = building.code_of("alice@council");
            let session = app.sign_in_stock(request(code)).await.unwrap();
            gateway.drain();
            let peer = &gateway.held.as_ref().unwrap().peers[0];
            let psk = String::from(peer.preshared_key.clone().unwrap());
            assert!(printed.expose().contains(&psk), "the printed key should still be the key");
            assert!(printed.expose().contains(&session.addresses[0].to_string()));
            app.revoke_session(council, &session.id).await.unwrap();
            building.clock.advance_s(31);
        }
        assert_eq!(app.stock_config(council, &device, &segment).await.unwrap(), printed);
    }
}
