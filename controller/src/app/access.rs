//! Tokens, enrolment codes and users' credentials: what lets somebody in.
//!
//! A secret is answered once, to whoever asked for it to be made, and kept as a hash where possible.

use data_encoding::BASE64URL_NOPAD;
use jiff::{SignedDuration, Timestamp};
use partywall_proto::admin::{
    CredentialCreated, CredentialRequest, DeviceKind, DeviceSpec, EnrolmentCodeCreated,
    EnrolmentCodeRequest, GatewaySpec, Page, Token, TokenCreated, TokenRequest, TokenRole,
};
use partywall_proto::enrolment::EnrolmentCode;
use partywall_proto::ids::{AgentId, TokenId, UserId};
use partywall_proto::keys::Secret;
use partywall_proto::problem::Finding;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::json;

use super::change::Change;
use super::records::{
    CodeRecord, CredentialRecord, SecretHash, TokenRecord, code_key, credential_key, throttle_key,
    token_key,
};
use super::resources::page;
use super::state::State;
use super::{App, AppError, Principal, Resource, Result, random};
use crate::domain::authority::Access;
use crate::domain::password::PasswordHash;
use crate::domain::scope::Scope;
use crate::domain::totp::TotpSecret;

/// Longest life of a token in seconds: two years.
const TOKEN_LIFETIME_MAX_S: u64 = 2 * 365 * 24 * 3600;
/// Longest life of an enrolment code in seconds: a week.
const CODE_LIFETIME_MAX_S: u64 = 7 * 24 * 3600;
/// Longest name of a token's holder in bytes.
const HOLDER_MAX_BYTES: usize = 200;

impl App {
    /// Makes a token.
    ///
    /// # Errors
    /// A role that `principal` may not give, a lifetime out of bounds, an unknown organisation.
    pub async fn create_token(
        &self,
        principal: &Principal,
        request: TokenRequest,
    ) -> Result<TokenCreated> {
        let writer = self.writer().await;
        let now = self.now();
        let allowed = may_give(&self.state(), principal, &request.role, now);
        if let Err(refused) = allowed {
            drop(writer);
            return self.audited(principal, "token-create", "tokens", Err(refused)).await;
        }
        let mut findings = Vec::new();
        check_lifetime(&mut findings, request.lifetime_s, TOKEN_LIFETIME_MAX_S);
        if request.holder.trim().is_empty() || request.holder.len() > HOLDER_MAX_BYTES {
            let detail = format!("say whose hands it goes into, in 1 to {HOLDER_MAX_BYTES} bytes");
            findings.push(Finding::new("holder", detail));
        }
        if !findings.is_empty() {
            return Err(AppError::Invalid(findings));
        }
        let mut change = Change::default();
        let role = request.role;
        let scope = scope_of(&role);
        let created = Self::new_token(&mut change, role, request.holder, request.lifetime_s, now);
        let subject = format!("tokens/{}", created.token.id);
        let detail = serde_json::to_value(&created.token).ok();
        let actor = principal.actor();
        change.done(scope.chain(), now, &actor, "token-create", subject, detail);
        self.commit(writer, change, None).await?;
        Ok(created)
    }

    /// The tokens of the principal's own scope.
    ///
    /// # Errors
    /// None for now.
    #[expect(clippy::unused_async, reason = "another store would be asked")]
    pub async fn list_tokens(
        &self,
        principal: &Principal,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Token>> {
        let state = self.state();
        let scope = principal.scope();
        let mine = state.tokens.values().filter(|token| scope_of(&token.role) == scope);
        let mine = mine.map(|token| (token.id.to_string(), token));
        Ok(page(mine, after, limit, TokenRecord::token))
    }

    /// Ends a token at once.
    ///
    /// # Errors
    /// An unknown token, one of another scope, or the last one of facilities.
    pub async fn revoke_token(&self, principal: &Principal, id: &TokenId) -> Result<()> {
        let writer = self.writer().await;
        let now = self.now();
        let subject = format!("tokens/{id}");
        let checked = {
            let state = self.state();
            let record = state.tokens.get(id).map(|record| scope_of(&record.role));
            let others = state.tokens.values().filter(|token| token.id != *id);
            let last = others
                .filter(|token| token.role == TokenRole::Facilities && token.expires_at > now)
                .count()
                == 0;
            match record {
                None => Err(AppError::NotFound(format!("token {id}"))),
                Some(scope) if !principal.may(Access::Write, &scope) => {
                    Err(AppError::Forbidden(format!("token {id} is not yours to revoke")))
                }
                Some(Scope::Facilities) if last => Err(AppError::Unready(
                    "this is the last facilities token; make another one first".to_owned(),
                )),
                Some(scope) => Ok(scope),
            }
        };
        match checked {
            Ok(scope) => {
                let mut change = Change::default();
                change.delete(token_key(id));
                let actor = principal.actor();
                change.done(scope.chain(), now, &actor, "token-revoke", subject, None);
                self.commit(writer, change, None).await.map(drop)
            }
            Err(refused) => {
                drop(writer);
                self.audited(principal, "token-revoke", &subject, Err(refused)).await
            }
        }
    }

    /// Makes an enrolment code; one for the same agent that is not used yet is void.
    ///
    /// # Errors
    /// An agent that is not set up, is a stock client or is not the principal's.
    pub async fn create_enrolment_code(
        &self,
        principal: &Principal,
        request: EnrolmentCodeRequest,
    ) -> Result<EnrolmentCodeCreated> {
        let writer = self.writer().await;
        let now = self.now();
        let mut findings = Vec::new();
        check_lifetime(&mut findings, request.lifetime_s, CODE_LIFETIME_MAX_S);
        if !findings.is_empty() {
            return Err(AppError::Invalid(findings));
        }
        let agent = request.agent;
        let scope = may_enrol(&self.state(), principal, &agent);
        let scope = match scope {
            Ok(scope) => scope,
            Err(refused) => {
                drop(writer);
                let subject = agent.to_string();
                return self.audited(principal, "enrolment-code", &subject, Err(refused)).await;
            }
        };
        let token: [u8; 16] = random::bytes();
        let code = {
            let state = self.state();
            let controller = state.controller.as_ref().ok_or_else(|| {
                AppError::Unready("run `partywall-controller init` first".to_owned())
            })?;
            EnrolmentCode::new(token, controller.ca_fingerprint, &controller.address)
                .map_err(|error| AppError::Unready(error.to_string()))?
        };
        let expires_at = later(now, request.lifetime_s);
        let mut change = Change::default();
        change.put(code_key(&agent), &CodeRecord { token: SecretHash::of(&token), expires_at });
        let detail = Some(json!({ "expires_at": expires_at }));
        let actor = principal.actor();
        change.done(scope.chain(), now, &actor, "enrolment-code", agent.to_string(), detail);
        self.commit(writer, change, None).await?;
        Ok(EnrolmentCodeCreated { code: Secret::from(code.to_text()), expires_at })
    }

    /// Sets a user's password and makes a new one-time-code secret. Delays for failures end.
    ///
    /// # Errors
    /// An unknown user, one of another organisation, or a password that is too short.
    pub async fn set_credentials(
        &self,
        principal: &Principal,
        user: &UserId,
        request: CredentialRequest,
    ) -> Result<CredentialCreated> {
        let action = "credentials-set";
        let scope = Scope::Organisation(user.organisation().clone());
        let subject = format!("users/{user}");
        if !principal.may(Access::Write, &scope) {
            let refused = AppError::Forbidden(format!("{user} is not of your organisation"));
            return self.audited(principal, action, &subject, Err(refused)).await;
        }
        let salt = random::bytes();
        let password = request.password;
        let hash = self.hash(move || PasswordHash::make(&password, salt)).await?;
        let password = hash.map_err(|error| {
            let finding = Finding::new("password", error.to_string());
            AppError::Invalid(vec![finding])
        })?;
        let writer = self.writer().await;
        let now = self.now();
        let step_s = {
            let state = self.state();
            if !state.catalogue.users.contains_key(user) {
                return Err(AppError::NotFound(format!("user {user}")));
            }
            let organisation = state.catalogue.organisations.get(user.organisation());
            organisation.map_or(30, |organisation| organisation.spec.code_step_s)
        };
        let totp = TotpSecret::from_bytes(random::bytes());
        let otpauth_uri = totp.otpauth_uri(user, "Partywall", step_s);
        let qr = QrCode::new(otpauth_uri.expose())
            .map_err(|error| AppError::Unready(format!("the URI fits no QR code: {error}")))?;
        let qr = Secret::from(qr.render::<Dense1x2>().build());
        let mut change = Change::default();
        let record = CredentialRecord { password, totp, step_s, last_step: None };
        change.put(credential_key(user), &record);
        change.delete(throttle_key(&user.to_string()));
        change.done(scope.chain(), now, &principal.actor(), action, subject, None);
        self.commit(writer, change, None).await?;
        Ok(CredentialCreated { otpauth_uri, qr })
    }

    /// Adds a new token to `change`.
    pub(super) fn new_token(
        change: &mut Change,
        role: TokenRole,
        holder: String,
        lifetime_s: u64,
        now: Timestamp,
    ) -> TokenCreated {
        let name = random::name("t-");
        let text = format!("{name}.{}", BASE64URL_NOPAD.encode(&random::bytes::<32>()));
        let record = TokenRecord {
            id: name.parse().expect("letters and hex are a name"),
            role,
            holder,
            expires_at: later(now, lifetime_s),
            secret: SecretHash::of(text.as_bytes()),
        };
        change.put(token_key(&record.id), &record);
        TokenCreated { token: record.token(), secret: Secret::from(text) }
    }

    /// Runs a slow hash off the runtime, a bounded number of them at a time.
    pub(super) async fn hash<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let gone = || AppError::Unready("the controller is shutting down".to_owned());
        let _permit = self.inner.hashing.acquire().await.map_err(|_| gone())?;
        tokio::task::spawn_blocking(work).await.map_err(|_| gone())
    }
}

/// `lifetime_s` seconds after `now`.
pub(super) fn later(now: Timestamp, lifetime_s: u64) -> Timestamp {
    let lifetime = SignedDuration::from_secs(i64::try_from(lifetime_s).unwrap_or(i64::MAX));
    now.saturating_add(lifetime).unwrap_or(Timestamp::MAX)
}

fn scope_of(role: &TokenRole) -> Scope {
    match role {
        TokenRole::Facilities => Scope::Facilities,
        TokenRole::Admin { organisation } | TokenRole::Auditor { organisation } => {
            Scope::Organisation(organisation.clone())
        }
    }
}

fn check_lifetime(findings: &mut Vec<Finding>, lifetime_s: u64, max_s: u64) {
    if lifetime_s == 0 || lifetime_s > max_s {
        let detail = format!("{lifetime_s} s is out of bounds; write 1 to {max_s}");
        findings.push(Finding::new("lifetime_s", detail));
    }
}

/// Each scope gives its own tokens; facilities also give an organisation its first admin.
fn may_give(state: &State, principal: &Principal, role: &TokenRole, now: Timestamp) -> Result<()> {
    if let TokenRole::Admin { organisation } | TokenRole::Auditor { organisation } = role
        && !state.catalogue.organisations.contains_key(organisation)
    {
        let detail = format!("there is no organisation {organisation}; set it up first");
        let finding = Finding::new("organisation", detail);
        return Err(AppError::Invalid(vec![finding]));
    }
    if principal.may(Access::Write, &scope_of(role)) {
        return Ok(());
    }
    let has_admin =
        state.tokens.values().any(|token| token.role == *role && token.expires_at > now);
    match (&principal.role, role) {
        (TokenRole::Facilities, TokenRole::Admin { .. }) if !has_admin => Ok(()),
        (TokenRole::Facilities, TokenRole::Admin { organisation }) => Err(AppError::Forbidden(
            format!("{organisation} has an admin, who makes its further tokens"),
        )),
        (_, _) => Err(AppError::Forbidden("you may not give this role".to_owned())),
    }
}

fn may_enrol(state: &State, principal: &Principal, agent: &AgentId) -> Result<Scope> {
    let missing = || AppError::NotFound(agent.to_string());
    let all = &state.catalogue;
    let scope = match agent {
        AgentId::Device(name) => {
            let device: &DeviceSpec = &all.devices.get(name).ok_or_else(missing)?.spec;
            if device.kind != DeviceKind::Agent {
                let why = format!("{agent} is a stock client; print its config instead");
                return Err(AppError::Unready(why));
            }
            device.scope(all)
        }
        AgentId::Gateway(name) => {
            let gateway: &GatewaySpec = &all.gateways.get(name).ok_or_else(missing)?.spec;
            gateway.scope(all)
        }
    };
    let scope = scope.ok_or_else(missing)?;
    match principal.may(Access::Write, &scope) {
        true => Ok(scope),
        false => Err(AppError::Forbidden(format!("{agent} is not yours to enrol"))),
    }
}
