//! Signing in: password and one-time code, one guess at a time for each user, then one transaction that
//! ends the device's old session and begins the new one.
//!
//! An unknown user costs the same time and meets the same delays as a known one. What is wrong is said
//! only where it is no secret: names of segments and who a device belongs to.

use jiff::Timestamp;
use partywall_proto::admin::{DeviceKind, SegmentSpec, SessionView, SignInRequest, SignInStrength};
use partywall_proto::ids::{AgentId, DeviceId, SegmentId, UserId};
use partywall_proto::keys::Secret;
use partywall_proto::overlay::Session;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::access::later;
use super::agents::chain_of;
use super::change::Change;
use super::desired::gateways;
use super::records::{
    AddressRecord, CredentialRecord, address_key, credential_key, session_key, throttle_key,
};
use super::state::State;
use super::{App, AppError, Result, random};
use crate::domain::addresses::{allocate, gateway_addresses, still_fit};
use crate::domain::password::PasswordHash;
use crate::domain::session::{PskSecret, SessionRecord};

/// Unknown names share this many delays, so that made-up names cannot fill the store.
const UNKNOWN_BUCKETS: u16 = 4096;

/// Who wants in, where and with what.
struct Attempt<'a> {
    device: &'a DeviceId,
    segment: &'a SegmentId,
    user: &'a UserId,
    password: &'a Secret,
    code: &'a Secret,
    /// Whether the device is to be a stock client.
    stock: bool,
}

impl App {
    /// A person signs in at the device `agent`. The device's config has gone out over its feed when
    /// this answers.
    ///
    /// # Errors
    /// [`AppError::SignInRefused`], [`AppError::TooSoon`]; a segment of another organisation, a
    /// device of somebody else, a segment without a gateway.
    pub async fn sign_in(
        &self,
        agent: &AgentId,
        segment: &SegmentId,
        user: &UserId,
        password: &Secret,
        code: &Secret,
    ) -> Result<(Session, SegmentId)> {
        let AgentId::Device(device) = agent else {
            return Err(AppError::AgentRefused("nobody signs in at a gateway".to_owned()));
        };
        let attempt = Attempt { device, segment, user, password, code, stock: false };
        match self.admit(&attempt).await {
            Ok(session) => Ok((session.session(), segment.clone())),
            Err(AppError::Forbidden(why)) => {
                let writer = self.writer().await;
                let mut change = Change::default();
                let chain = chain_of(&self.state(), agent);
                let (actor, subject) = (user.to_string(), format!("segments/{segment}"));
                change.refused(&chain, self.now(), &actor, "sign-in", subject, &why);
                self.commit(writer, change, None).await?;
                Err(AppError::Forbidden(why))
            }
            Err(error) => Err(error),
        }
    }

    /// The owner of a stock client signs in for it.
    ///
    /// # Errors
    /// As [`App::sign_in`].
    pub async fn sign_in_stock(&self, request: SignInRequest) -> Result<SessionView> {
        let SignInRequest { device, segment, user, password, code } = &request;
        let attempt = Attempt { device, segment, user, password, code, stock: true };
        Ok(self.admit(&attempt).await?.view())
    }

    async fn admit(&self, attempt: &Attempt<'_>) -> Result<SessionRecord> {
        let _turn = self.turn_of(attempt.user)?;
        let credential = {
            let state = self.state();
            check_place(&state, attempt)?;
            let throttle = state.throttles.get(&throttle_name(&state, attempt.user));
            if let Some(wait_s) = throttle.and_then(|throttle| throttle.wait_s(self.now())) {
                return Err(AppError::TooSoon { wait_s });
            }
            state.credentials.get(attempt.user).cloned()
        };
        let hash = credential.as_ref().map(|it| it.password.clone());
        let password = attempt.password.clone();
        let knows =
            self.hash(move || hash.unwrap_or_else(PasswordHash::decoy).fits(&password)).await?;

        let writer = self.writer().await;
        let now = self.now();
        let (change, admitted) = {
            let state = self.state();
            // Things may have changed while the hash was computed.
            let segment = check_place(&state, attempt)?;
            let credential = state.credentials.get(attempt.user).filter(|current| {
                credential.as_ref().is_some_and(|checked| checked.password == current.password)
            });
            match admission_step(&state, attempt, knows, credential, now) {
                Some((credential, step)) => {
                    let (change, session) = begin(&state, attempt, segment, credential, step, now)?;
                    (change, Ok(session))
                }
                None => (refusal(&state, attempt, now), Err(AppError::SignInRefused)),
            }
        };
        let device = AgentId::Device(attempt.device.clone());
        let last = admitted.is_ok().then_some(device);
        self.commit(writer, change, last).await?;
        admitted
    }

    /// Takes the one turn that each user has.
    fn turn_of(&self, user: &UserId) -> Result<Turn> {
        let mut taken =
            self.inner.signing_in.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match taken.insert(user.clone()) {
            true => Ok(Turn { app: self.clone(), user: user.clone() }),
            false => Err(AppError::TooSoon { wait_s: 1 }),
        }
    }
}

/// A user's turn; dropping it lets the next one in.
struct Turn {
    app: App,
    user: UserId,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let taken = &self.app.inner.signing_in;
        taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&self.user);
    }
}

/// Whether this user could have a session on this device in this segment at all.
fn check_place<'a>(state: &'a State, attempt: &Attempt<'_>) -> Result<&'a SegmentSpec> {
    let Attempt { device, segment, user, stock, .. } = attempt;
    let spec = state.catalogue.segments.get(segment);
    let spec = &spec.ok_or_else(|| AppError::NotFound(format!("segment {segment}")))?.spec;
    let device_spec = state.catalogue.devices.get(device).map(|device| &device.spec);
    if *stock {
        // Anybody may ask here: unknown devices and other people's are not told apart.
        let owned = device_spec
            .is_some_and(|it| it.owner.as_ref() == Some(user) && it.kind != DeviceKind::Agent);
        if !owned {
            let why = format!("{device} is not a stock client of {user}");
            return Err(AppError::Forbidden(why));
        }
    }
    let device_spec = device_spec.ok_or_else(|| AppError::NotFound(format!("device {device}")))?;
    if spec.organisation != *user.organisation() {
        let owner = &spec.organisation;
        return Err(AppError::Forbidden(format!(
            "segment {segment} belongs to {owner}; sign in to it as a user of {owner}"
        )));
    }
    if device_spec.owner.as_ref().is_some_and(|owner| owner != *user) {
        return Err(AppError::Forbidden(format!("device {device} belongs to somebody else")));
    }
    match (&device_spec.kind, stock) {
        (DeviceKind::Agent, false) => {}
        (DeviceKind::Stock { .. }, true) if state.stock_secrets.contains_key(device) => {}
        (DeviceKind::Stock { .. }, true) => {
            let how = format!("ask an admin for its config first (stock-config {device})");
            return Err(AppError::Unready(how));
        }
        (DeviceKind::Agent, true) | (DeviceKind::Stock { .. }, false) => {
            let why = format!("a stock client and an agent sign in in different ways: {device}");
            return Err(AppError::AgentRefused(why));
        }
    }
    match gateways(state, segment).is_empty() {
        false => Ok(spec),
        true => Err(AppError::Unready(format!("segment {segment} has no enrolled gateway yet"))),
    }
}

/// The credential and the code's step, if password, code and user are all good.
fn admission_step<'a>(
    state: &'a State,
    attempt: &Attempt<'_>,
    knows: bool,
    credential: Option<&'a CredentialRecord>,
    now: Timestamp,
) -> Option<(&'a CredentialRecord, u64)> {
    state.catalogue.users.get(attempt.user).filter(|user| !user.spec.disabled)?;
    let credential = credential?;
    let CredentialRecord { totp, step_s, last_step, .. } = credential;
    let checked = totp.check(attempt.code.expose(), *step_s, now, *last_step);
    Some((credential, checked.ok().filter(|_| knows)?))
}

fn begin(
    state: &State,
    attempt: &Attempt<'_>,
    segment: &SegmentSpec,
    credential: &CredentialRecord,
    step: u64,
    now: Timestamp,
) -> Result<(Change, SessionRecord)> {
    let mut change = Change::default();
    let chain = attempt.user.organisation().as_str();
    let actor = attempt.user.to_string();
    let addresses = addresses(state, segment, attempt.device, &mut change)?;
    let session = SessionRecord {
        id: random::name("s-").parse().expect("letters and hex are a name"),
        user: attempt.user.clone(),
        device: attempt.device.clone(),
        segment: segment.name.clone(),
        addresses,
        // Both were checked.
        sign_in: SignInStrength::Code,
        began_at: now,
        ends_at: later(now, segment.session_length_s),
        secret: PskSecret::from_bytes(random::bytes()),
    };
    if let Some(old) = state.session_on(attempt.device) {
        change.delete(session_key(&old.id));
        let detail = json!({ "why": "somebody signed in on the device", "user": old.user });
        let subject = format!("sessions/{}", old.id);
        // The old session may be the other organisation's: its chain does not name the newcomer.
        let chain = old.user.organisation().as_str();
        let device = format!("device/{}", old.device);
        change.done(chain, now, &device, "session-end", subject, Some(detail));
    }
    let used = CredentialRecord { last_step: Some(step), ..credential.clone() };
    change.put(credential_key(attempt.user), &used);
    let throttle = throttle_name(state, attempt.user);
    if state.throttles.contains_key(&throttle) {
        change.delete(throttle_key(&throttle));
    }
    change.put(session_key(&session.id), &session);
    let detail = serde_json::to_value(session.view()).ok();
    change.done(chain, now, &actor, "sign-in", format!("sessions/{}", session.id), detail);
    Ok((change, session))
}

/// The device's addresses in the segment: those it had, or new ones, which `change` then keeps.
pub(super) fn addresses(
    state: &State,
    segment: &SegmentSpec,
    device: &DeviceId,
    change: &mut Change,
) -> Result<AddressRecord> {
    let key = (segment.name.clone(), device.clone());
    if let Some(kept) = state.addresses.get(&key)
        && still_fit(&segment.pools, kept)
    {
        return Ok(kept.clone());
    }
    let own = gateway_addresses(&segment.pools);
    let taken = |address| state.taken.contains(&address) || own.contains(&address);
    let fresh = allocate(&segment.pools, device, taken)
        .map_err(|error| AppError::Unready(error.to_string()))?;
    change.put(address_key(&segment.name, device), &fresh);
    Ok(fresh)
}

fn refusal(state: &State, attempt: &Attempt<'_>, now: Timestamp) -> Change {
    let mut change = Change::default();
    let name = throttle_name(state, attempt.user);
    let throttle = state.throttles.get(&name).copied().unwrap_or_default().failed(now);
    change.put(throttle_key(&name), &throttle);
    let actor = attempt.user.to_string();
    let subject = format!("device/{}", attempt.device);
    let chain = attempt.user.organisation().as_str();
    change.refused(chain, now, &actor, "sign-in", subject, "user, password or code is wrong");
    change
}

fn throttle_name(state: &State, user: &UserId) -> String {
    match state.catalogue.users.contains_key(user) {
        true => user.to_string(),
        false => {
            let digest = Sha256::digest(user.to_string());
            let bucket = u16::from_be_bytes([digest[0], digest[1]]) % UNKNOWN_BUCKETS;
            format!("unknown-{bucket}")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use partywall_proto::admin::OrganisationSpec;

    use super::super::GATEWAY_WAIT;
    use super::super::testing::{Building, PASSWORD, secret};
    use super::*;

    #[tokio::test]
    async fn a_device_has_at_most_one_session_and_the_old_gateway_loses_it_before_the_device_moves()
    {
        let building = Building::new().await;
        let (mut council, mut nhs, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut council, &mut nhs]).await.unwrap();
        assert_eq!((council.peers(), nhs.peers()), (1, 0));
        let first = desk.held.clone().unwrap();
        assert_eq!(first.segment.as_str(), "council");
        // Both ends hold the same preshared key, and the gateway knows the device's address.
        let peer = &council.held.as_ref().unwrap().peers[0];
        assert_eq!(peer.preshared_key, first.peers[0].preshared_key);
        assert_eq!(peer.allowed_ips[0].address(), first.interface.addresses[0]);

        building.sign_in(&mut desk, "nina@nhs", &mut [&mut council, &mut nhs]).await.unwrap();
        assert_eq!((council.peers(), nhs.peers()), (0, 1));
        assert_eq!(desk.held.as_ref().unwrap().segment.as_str(), "nhs");
        assert!(building.sessions(&building.council).await.is_empty());
        assert_eq!(building.sessions(&building.nhs).await.len(), 1);

        // Back again: the same address as before.
        building.sign_in(&mut desk, "alice@council", &mut [&mut council, &mut nhs]).await.unwrap();
        assert_eq!(desk.held.unwrap().interface.addresses, first.interface.addresses);
        let reopened = building.reopened().await;
        assert_eq!(reopened.state().sessions.len(), 1);
    }

    #[tokio::test]
    async fn the_device_is_told_only_when_its_gateway_has_applied() {
        let building = Building::new().await;
        let (mut gateway, _nhs, mut desk) = building.seats().await;
        let (app, agent) = (building.app.clone(), desk.agent.clone());
        let code = building.code_of("alice@council");
        let signing = tokio::spawn(async move {
            let (segment, user) = ("council".parse().unwrap(), "alice@council".parse().unwrap());
            app.sign_in(&agent, &segment, &user, &secret(PASSWORD), &code).await
        });
        let mut before = Instant::now();
        let told = async {
            while gateway.feed.messages.is_empty() {
                before = Instant::now();
                tokio::task::yield_now().await;
            }
        };
        let limit = std::time::Duration::from_secs(30);
        tokio::time::timeout(limit, told).await.expect("the gateway hears of the session");
        tokio::time::sleep(GATEWAY_WAIT / 10).await;
        let mut came = desk.drain();
        // A machine that slept through the whole wait proves nothing either way.
        let early = before.elapsed() < GATEWAY_WAIT && !came.is_empty();
        assert!(!early, "the device was told before its gateway had the peer");
        assert_eq!(gateway.drain(), ["delta"]);
        signing.await.unwrap().unwrap();
        came.extend(desk.drain());
        assert_eq!(came, ["snapshot"]);
    }

    #[tokio::test]
    async fn a_gateway_that_does_not_answer_holds_a_sign_in_up_for_a_bounded_time() {
        let building = Building::new().await;
        let (mut gateway, _nhs, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut []).await.unwrap();
        assert_eq!((gateway.peers(), desk.peers()), (0, 1));
        assert_eq!(gateway.drain(), ["delta"]);
    }

    #[tokio::test]
    async fn a_code_is_used_once_even_over_a_restart() {
        let building = Building::new().await;
        let (_gateway, _nhs, desk) = building.seats().await;
        let (segment, user) = ("council".parse().unwrap(), "alice@council".parse().unwrap());
        let (code, password) = (building.code_of("alice@council"), secret(PASSWORD));
        building.app.sign_in(&desk.agent, &segment, &user, &password, &code).await.unwrap();
        let again = building.app.sign_in(&desk.agent, &segment, &user, &password, &code).await;
        assert!(matches!(again, Err(AppError::SignInRefused)), "{again:?}");
        let reopened = building.reopened().await;
        let again = reopened.sign_in(&desk.agent, &segment, &user, &password, &code).await;
        assert!(matches!(again, Err(AppError::SignInRefused)), "{again:?}");
    }

    #[tokio::test]
    async fn failures_cost_a_growing_delay_that_a_restart_keeps_and_unknown_users_meet_too() {
        let building = Building::new().await;
        let (_gateway, _nhs, desk) = building.seats().await;
        for user in ["alice@council", "nobody@council"] {
            let (segment, user) = ("council".parse().unwrap(), user.parse().unwrap());
            let (code, password) = (secret("000000"), secret("wrong password"));
            let attempt = || building.app.sign_in(&desk.agent, &segment, &user, &password, &code);
            let mut refused = 0;
            let wait = loop {
                let error = attempt().await.unwrap_err();
                if let AppError::TooSoon { wait_s } = error {
                    break wait_s;
                }
                assert!(matches!(error, AppError::SignInRefused), "{error}");
                refused += 1;
                assert!(refused < 10, "failures cost {user} no delay");
            };
            assert_eq!((refused, wait), (4, 1), "{user}");
            let again = building.reopened().await;
            let again = again.sign_in(&desk.agent, &segment, &user, &password, &code).await;
            assert!(matches!(again, Err(AppError::TooSoon { .. })), "{again:?}");
        }
        // A right password does not jump the queue, and works once the wait is over.
        let mut desk = desk;
        let early = building.sign_in(&mut desk, "alice@council", &mut []).await;
        assert!(matches!(early, Err(AppError::TooSoon { .. })), "{early:?}");
        building.sign_in(&mut desk, "alice@council", &mut []).await.unwrap();
    }

    #[tokio::test]
    async fn a_new_step_of_codes_is_for_tokens_to_come_and_locks_nobody_out() {
        let building = Building::new().await;
        let (mut gateway, _nhs, mut desk) = building.seats().await;
        let name = "council".parse().unwrap();
        let found = building.app.get::<OrganisationSpec>(&building.council, &name).await.unwrap();
        assert_eq!(found.spec.code_step_s, 8);
        let changed = OrganisationSpec { code_step_s: 30, ..found.spec };
        building.app.put(&building.council, changed, None).await.unwrap();
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
    }

    #[tokio::test]
    async fn nobody_signs_in_to_the_other_organisation() {
        let building = Building::new().await;
        let (_council, _nhs, desk) = building.seats().await;
        let (segment, user) = ("nhs".parse().unwrap(), "alice@council".parse().unwrap());
        let code = building.code_of("alice@council");
        let refused =
            building.app.sign_in(&desk.agent, &segment, &user, &secret(PASSWORD), &code).await;
        assert!(matches!(refused, Err(AppError::Forbidden(_))), "{refused:?}");
        let trail = building.app.audit(&building.facilities, None, None, 1000).await.unwrap().items;
        let last = trail.last().unwrap();
        assert_eq!((last.actor.as_str(), last.action.as_str()), ("alice@council", "sign-in"));
    }
}
