//! The only writer of the controller's state, and what the outside calls.
//!
//! Every change is validated, then made durable in one store transaction together with its audit
//! record, then shown to readers, then sent to the agents concerned. Nothing skips a step.

mod clock;
mod error;
mod feed;

use std::collections::BTreeMap;
use std::sync::Arc;

use partywall_proto::admin::{
    ApplyReport, AuditRecord, AuditVerdict, CredentialCreated, CredentialRequest,
    EnrolmentCodeCreated, EnrolmentCodeRequest, Manifest, Page, SessionView, SignInRequest, Token,
    TokenCreated, TokenRequest, Versioned,
};
use partywall_proto::agent_api::{Holding, IdentityProof};
use partywall_proto::ids::{AgentId, DeviceId, SegmentId, SessionId, TokenId, UserId};
use partywall_proto::keys::{Secret, WireguardKey};
use partywall_proto::overlay::Session;
use partywall_proto::problem::Problem;

pub use crate::domain::principal::Principal;
pub use crate::domain::resource::{GroupKey, Resource};
use crate::store::Store;
pub use clock::{Clock, ManualClock, SystemClock};
pub use error::AppError;
pub use feed::{AgentFeed, Welcome};

type Result<T, E = AppError> = std::result::Result<T, E>;

/// The controller without its edges. Cheap to clone.
#[derive(Clone)]
pub struct App {}

#[expect(clippy::unused_async, unused_variables, reason = "bodies come next")]
impl App {
    pub async fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self> {
        unimplemented!()
    }
    /// First administrator (facilities); refused if already done.
    pub async fn bootstrap(
        &self,
        name: &str,
        address: &str,
        ca_fingerprint: [u8; 32],
    ) -> Result<TokenCreated> {
        unimplemented!()
    }
    pub async fn authenticate(&self, bearer: &str) -> Result<Principal> {
        unimplemented!()
    }

    pub async fn apply(
        &self,
        principal: &Principal,
        manifest: Manifest,
        dry_run: bool,
    ) -> Result<ApplyReport> {
        unimplemented!()
    }
    pub async fn export(&self, principal: &Principal) -> Result<Manifest> {
        unimplemented!()
    }
    /// `after` is the previous page's `next`.
    pub async fn list<K: Resource>(
        &self,
        principal: &Principal,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Versioned<K>>> {
        unimplemented!()
    }
    pub async fn get<K: Resource>(
        &self,
        principal: &Principal,
        key: &K::Key,
    ) -> Result<Versioned<K>> {
        unimplemented!()
    }
    /// `if_match` 0: only if it does not exist yet.
    pub async fn put<K: Resource>(
        &self,
        principal: &Principal,
        spec: K,
        if_match: Option<u64>,
    ) -> Result<Versioned<K>> {
        unimplemented!()
    }
    pub async fn delete<K: Resource>(
        &self,
        principal: &Principal,
        key: &K::Key,
        if_match: Option<u64>,
    ) -> Result<()> {
        unimplemented!()
    }

    pub async fn create_token(
        &self,
        principal: &Principal,
        request: TokenRequest,
    ) -> Result<TokenCreated> {
        unimplemented!()
    }
    pub async fn list_tokens(
        &self,
        principal: &Principal,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Token>> {
        unimplemented!()
    }
    pub async fn revoke_token(&self, principal: &Principal, id: &TokenId) -> Result<()> {
        unimplemented!()
    }
    pub async fn create_enrolment_code(
        &self,
        principal: &Principal,
        request: EnrolmentCodeRequest,
    ) -> Result<EnrolmentCodeCreated> {
        unimplemented!()
    }
    pub async fn set_credentials(
        &self,
        principal: &Principal,
        user: &UserId,
        request: CredentialRequest,
    ) -> Result<CredentialCreated> {
        unimplemented!()
    }

    pub async fn sessions(
        &self,
        principal: &Principal,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<SessionView>> {
        unimplemented!()
    }
    pub async fn revoke_session(&self, principal: &Principal, id: &SessionId) -> Result<()> {
        unimplemented!()
    }
    pub async fn sign_in_stock(&self, request: SignInRequest) -> Result<SessionView> {
        unimplemented!()
    }
    /// A wg-quick file without the private key.
    pub async fn stock_config(
        &self,
        principal: &Principal,
        device: &DeviceId,
        segment: &SegmentId,
    ) -> Result<Secret> {
        unimplemented!()
    }

    /// `chain` none: the principal's own.
    pub async fn audit(
        &self,
        principal: &Principal,
        chain: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<AuditRecord>> {
        unimplemented!()
    }
    pub async fn audit_verify(&self, principal: &Principal) -> Result<Vec<AuditVerdict>> {
        unimplemented!()
    }

    /// Uses up an enrolment code. Then call `connect` with the same proof and nonce.
    pub async fn enrol(
        &self,
        token: &Secret,
        proof: &IdentityProof,
        nonce: &str,
        wireguard_key: WireguardKey,
        software: &str,
    ) -> Result<AgentId> {
        unimplemented!()
    }
    /// Sends nothing itself: send `Welcome::message` first, then what the feed yields.
    pub async fn connect(
        &self,
        agent: &AgentId,
        proof: &IdentityProof,
        nonce: &str,
        holding: Option<Holding>,
        software: &str,
    ) -> Result<(Welcome, AgentFeed)> {
        unimplemented!()
    }
    pub fn applied(&self, agent: &AgentId, holding: Holding) {
        unimplemented!()
    }
    pub async fn rejected(&self, agent: &AgentId, problem: Problem) -> Result<()> {
        unimplemented!()
    }
    pub fn agent_status(
        &self,
        agent: &AgentId,
        drops: BTreeMap<String, u64>,
        live_peers: u32,
        clock_skew_s: i64,
    ) {
        unimplemented!()
    }
    /// The config goes out over the feed before this answers.
    pub async fn sign_in(
        &self,
        agent: &AgentId,
        segment: &SegmentId,
        user: &UserId,
        password: &Secret,
        code: &Secret,
    ) -> Result<(Session, SegmentId)> {
        unimplemented!()
    }
    pub async fn sign_out(&self, agent: &AgentId) -> Result<()> {
        unimplemented!()
    }
    /// Expiry and renewals, until the app is dropped or the task is aborted. Spawn it once.
    pub async fn run_background(&self) {
        unimplemented!()
    }
}
