//! A set of changes to what is set up, before it is decided: the catalogue as it would be, what
//! follows from it, and the report.
//!
//! What follows (sessions that end, keys that go) is worked out in one place, [`Draft::finish`], so that
//! no way of changing a thing can forget it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use partywall_proto::admin::{
    DeviceKind, GatewaySpec, OrganisationSpec, PolicyMode, PolicySpec, PolicyVersion,
    PolicyVersionText, ResourceChange, SegmentSpec,
};
use partywall_proto::ids::{AgentId, DeviceId, OrganisationId, SegmentId};
use serde_json::{Value, json};

use super::change::Change;
use super::desired::wireguard_key;
use super::records::{
    ObservedRecord, address_key, agent_key, code_key, credential_key, observed_key,
    policy_version_key, resource_key, segment_key, session_key, stock_secret_key, throttle_key,
    token_key,
};
use super::state::State;
use super::{AppError, Principal, Resource, Result, proof, random};
use crate::domain::catalogue::{Catalogue, Table};
use crate::domain::policy::text;
use crate::domain::resource::path_of;
use crate::domain::scope::Scope;
use partywall_proto::admin::{TokenRole, Versioned};
use partywall_proto::problem::Finding;

/// Rules that never decide which are told one by one; more than anyone reads.
const WARNINGS_MAX: usize = 100;

/// A policy as somebody wrote it.
pub(super) struct Written {
    pub(super) text: String,
    /// The version whose text it is.
    pub(super) restored_from: Option<u64>,
}

/// See the module.
pub(super) struct Draft<'a> {
    state: &'a State,
    principal: &'a Principal,
    now: Timestamp,
    catalogue: Catalogue,
    change: Change,
    findings: Vec<Finding>,
    /// Rules that never decide, of every policy.
    warnings: Vec<Finding>,
    /// What policies were read from, where somebody wrote them as a text.
    written: BTreeMap<OrganisationId, Written>,
    /// What is created or updated, in order.
    pub(super) report: Vec<ResourceChange>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(state: &'a State, principal: &'a Principal, now: Timestamp) -> Self {
        Self {
            state,
            principal,
            now,
            catalogue: state.catalogue.clone(),
            change: Change::default(),
            findings: Vec::new(),
            warnings: Vec::new(),
            written: BTreeMap::new(),
            report: Vec::new(),
        }
    }

    /// Puts `spec` in place. One that is there already as it is changes nothing.
    pub(super) fn set<K: Resource>(&mut self, spec: K) -> Result<()> {
        let key = spec.key();
        let before = K::table(&self.state.catalogue).get(&key).map(|it| &it.spec);
        if before == Some(&spec) && self.principal.may_read(&spec, &self.catalogue) {
            return Ok(());
        }
        if !self.principal.may_write(before, Some(&spec), &self.catalogue) {
            return Err(forbidden::<K>(&key, self.principal));
        }
        if let Some(before) = before {
            let (was, is) = (before.scope(&self.state.catalogue), spec.scope(&self.catalogue));
            if K::KIND == "segments" && was != is {
                let detail = "a segment stays with its organisation; make another one".to_owned();
                let at = format!("{}/organisation", spec.path());
                self.findings.push(Finding::new(at, detail));
            }
        }
        if self.change.writes(&resource_key::<K>(&key)) {
            let detail = "it is written twice; keep one of the two".to_owned();
            self.findings.push(Finding::new(spec.path(), detail));
        }
        let before = before.map(json_of);
        let after = json_of(&spec);
        let detail = json!({ "before": before, "after": after });
        self.record::<K>(&spec, "set", Some(detail));
        self.report.push(ResourceChange { resource: spec.path(), before, after });
        self.change.put(resource_key::<K>(&key), &spec);
        K::table_mut(&mut self.catalogue)
            .insert(key, Versioned { revision: self.state.revision + 1, spec });
        Ok(())
    }

    /// Puts a policy in place as a version of its own, even where it says what the last one said.
    pub(super) fn publish(&mut self, spec: PolicySpec, written: Written) -> Result<()> {
        // What is there already is not written again, and so not asked about by `set`.
        if !self.principal.may_write(None, Some(&spec), &self.catalogue) {
            return Err(forbidden::<PolicySpec>(&spec.organisation, self.principal));
        }
        self.written.insert(spec.organisation.clone(), written);
        self.set(spec)
    }

    /// Takes `key` away.
    pub(super) fn remove<K: Resource>(&mut self, key: &K::Key) -> Result<()> {
        let Some(before) = K::table(&self.state.catalogue).get(key) else {
            return Err(AppError::NotFound(path_of::<K>(key)));
        };
        if !self.principal.may_write(Some(&before.spec), None, &self.catalogue) {
            return Err(forbidden::<K>(key, self.principal));
        }
        self.record::<K>(&before.spec, "delete", Some(json!({ "before": before.spec })));
        self.change.delete(resource_key::<K>(key));
        K::table_mut(&mut self.catalogue).remove(key);
        Ok(())
    }

    fn record<K: Resource>(&mut self, spec: &K, verb: &str, detail: Option<Value>) {
        let singular = match K::KIND {
            "policies" => "policy",
            kind => kind.trim_end_matches('s'),
        };
        let action = format!("{singular}-{verb}");
        // An organisation comes and goes by facilities, in whose chain that belongs.
        let scope = match K::KIND == OrganisationSpec::KIND {
            true => self.principal.scope(),
            false => spec.scope(&self.catalogue).unwrap_or_else(|| self.principal.scope()),
        };
        let actor = self.principal.actor();
        self.change.done(scope.chain(), self.now, &actor, &action, spec.path(), detail);
    }

    /// The change that puts the policies of this draft on trial beside those in force.
    ///
    /// # Errors
    /// Everything that would not hold if they were put in force.
    pub(super) fn observe(&mut self) -> Result<Change> {
        self.check_all()?;
        self.change = Change::default();
        for organisation in self.rewritten() {
            self.make_version(&organisation, PolicyMode::Observe);
            let Some(policy) = self.catalogue.policies.get(&organisation) else { continue };
            let in_force = self.state.catalogue.policies.get(&organisation);
            let both = [in_force, Some(policy)].into_iter().flatten().map(|it| &it.spec);
            self.change.read_hours(&organisation, both, self.now);
            let record = ObservedRecord {
                version: self.next_number(&organisation),
                policy: policy.spec.clone(),
            };
            self.change.put(observed_key(&organisation), &record);
        }
        Ok(std::mem::take(&mut self.change))
    }

    /// The change with all that follows from it.
    ///
    /// # Errors
    /// Everything in the new catalogue that does not hold.
    pub(super) fn finish(&mut self) -> Result<(Change, Vec<ResourceChange>)> {
        self.check_all()?;
        for organisation in self.rewritten() {
            self.make_version(&organisation, PolicyMode::Enforce);
            self.end_observation(&organisation);
            let policy = self.catalogue.policies.get(&organisation).map(|it| &it.spec);
            self.change.read_hours(&organisation, policy, self.now);
        }
        self.end_sessions();
        self.segments_that_come_and_go();
        self.machines_that_go();
        self.people_that_go();
        Ok((std::mem::take(&mut self.change), std::mem::take(&mut self.report)))
    }

    /// The rules of a policy of this draft that never decide; known once the draft has been finished.
    pub(super) fn warnings(&self, policy: &PolicySpec) -> Vec<Finding> {
        let own = format!("{}/", policy.path());
        let mut found = self.warnings.iter().filter(|it| it.at.starts_with(&own));
        let mut listed: Vec<_> = found.by_ref().take(WARNINGS_MAX).cloned().collect();
        match found.count() {
            0 => {}
            more => {
                let detail = format!("{more} more rules never decide; see to these first");
                listed.push(Finding::new(policy.path(), detail));
            }
        }
        listed
    }

    /// Whether `spec` could be put in force, for somebody who asks and need not be let write it.
    ///
    /// # Errors
    /// Everything that would not hold.
    pub(super) fn would_hold(mut self, spec: PolicySpec) -> Result<()> {
        let (organisation, revision) = (spec.organisation.clone(), self.state.revision + 1);
        let text = Written { text: String::new(), restored_from: None };
        self.written.insert(organisation.clone(), text);
        self.catalogue.policies.insert(organisation, Versioned { revision, spec });
        self.check_all()
    }

    fn check_all(&mut self) -> Result<()> {
        self.findings.extend(self.catalogue.check());
        self.check_keys();
        if self.findings.is_empty() {
            self.run_tests();
        }
        // A version is proved also where it says what is in force.
        if self.findings.is_empty() && (self.may_change_rules() || !self.written.is_empty()) {
            let found = proof::of(&self.catalogue, self.state, self.now);
            self.findings.extend(found.refutations);
            self.warnings = found.warnings;
        }
        match self.findings.is_empty() {
            true => Ok(()),
            false => Err(AppError::Invalid(std::mem::take(&mut self.findings))),
        }
    }

    /// A stock client may not register a key that an enrolled agent made.
    fn check_keys(&mut self) {
        for device in self.catalogue.devices.values() {
            let DeviceKind::Stock { wireguard_key } = &device.spec.kind else { continue };
            if self.state.agents.values().any(|agent| agent.wireguard_key == *wireguard_key) {
                let at = format!("{}/kind/wireguard_key", device.spec.path());
                let detail = "an enrolled agent has this key; make a new pair on this device";
                self.findings.push(Finding::new(at, detail));
            }
        }
    }

    /// Every policy that is written is a version, whichever way it came.
    fn make_version(&mut self, organisation: &OrganisationId, mode: PolicyMode) {
        let Some(policy) = self.catalogue.policies.get(organisation) else { return };
        let written = self.written.remove(organisation);
        let Written { text, restored_from } = written
            .unwrap_or_else(|| Written { text: text::write(&policy.spec), restored_from: None });
        let (number, actor) = (self.next_number(organisation), self.principal.actor());
        let version = PolicyVersion {
            number,
            published_by: actor.clone(),
            published_at: self.now,
            mode,
            restored_from,
        };
        let detail = json!({ "version": number, "mode": mode, "restored_from": restored_from });
        let subject = format!("{}/versions/{number}", policy.spec.path());
        let value = PolicyVersionText { version, text };
        self.change.put(policy_version_key(organisation, number), &value);
        let chain = organisation.as_str();
        self.change.done(chain, self.now, &actor, "policy-publish", subject, Some(detail));
    }

    fn next_number(&self, organisation: &OrganisationId) -> u64 {
        self.state.last_version(organisation).map_or(0, |version| version.number) + 1
    }

    /// Another policy is in force: what was on trial was to be compared with the one before.
    fn end_observation(&mut self, organisation: &OrganisationId) {
        if let Some(observed) = self.state.observed.get(organisation) {
            let actor = self.principal.actor();
            self.change.end_observation(organisation, observed.version, &actor, self.now);
        }
    }

    /// The organisations whose policies this draft writes or deletes.
    fn rewritten(&self) -> Vec<OrganisationId> {
        let (before, after) = (&self.state.catalogue.policies, &self.catalogue.policies);
        let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let spec = |all: &Table<OrganisationId, PolicySpec>, name| {
            all.get(name).map(|policy: &Versioned<PolicySpec>| policy.revision)
        };
        let changed = names.into_iter().filter(|name| spec(before, name) != spec(after, name));
        changed.chain(self.written.keys()).cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether what is written can make agents enforce other rules than those that were proved. People,
    /// groups and devices only choose among the classes, and rules are proved for every set of them.
    fn may_change_rules(&self) -> bool {
        let kinds = [PolicySpec::KIND, SegmentSpec::KIND, GatewaySpec::KIND];
        let written = |kind: &&str| {
            let prefix = format!("resource/{kind}/");
            self.change.keys().any(|key| key.starts_with(&prefix))
        };
        kinds.iter().any(written)
    }

    /// The tests of a policy must hold before it takes effect.
    fn run_tests(&mut self) {
        for organisation in self.rewritten() {
            if let Some(policy) = self.catalogue.policies.get(&organisation) {
                self.findings.extend(self.catalogue.failing_tests(&policy.spec));
            }
        }
    }

    fn end_sessions(&mut self) {
        for session in self.state.sessions.values() {
            let kind = |all: &Catalogue| {
                all.devices.get(&session.device).map(|device| device.spec.kind.clone())
            };
            let rekeyed = kind(&self.catalogue) != kind(&self.state.catalogue);
            let why = self.catalogue.ends_session(session);
            if let Some(why) = why.or(rekeyed.then_some("the device's key was changed")) {
                self.change.delete(session_key(&session.id));
                let chain = session.user.organisation().as_str();
                let detail = json!({ "why": why, "user": session.user, "device": session.device });
                let subject = format!("sessions/{}", session.id);
                let actor = self.principal.actor();
                self.change.done(chain, self.now, &actor, "session-end", subject, Some(detail));
            }
        }
    }

    fn segments_that_come_and_go(&mut self) {
        for name in self.catalogue.segments.keys() {
            if !self.state.segment_keys.contains_key(name) {
                self.change.put(segment_key(name), &random::bytes::<32>());
            }
        }
        for name in self.state.segment_keys.keys() {
            if !self.catalogue.segments.contains_key(name) {
                self.change.delete(segment_key(name));
            }
        }
        for ((segment, device), addresses) in &self.state.addresses {
            if !self.keeps_addresses(segment, device, addresses) {
                self.change.delete(address_key(segment, device));
            }
        }
    }

    fn keeps_addresses(
        &self,
        segment: &SegmentId,
        device: &DeviceId,
        addresses: &[std::net::IpAddr],
    ) -> bool {
        self.catalogue.devices.contains_key(device)
            && self.catalogue.segments.get(segment).is_some_and(|segment| {
                crate::domain::addresses::still_fit(&segment.spec.pools, addresses)
            })
    }

    fn machines_that_go(&mut self) {
        let stays = |agent: &AgentId| match agent {
            AgentId::Device(name) => {
                let device = self.catalogue.devices.get(name);
                device.is_some_and(|device| device.spec.kind == DeviceKind::Agent)
            }
            AgentId::Gateway(name) => self.catalogue.gateways.contains_key(name),
        };
        for agent in self.state.agents.keys().filter(|agent| !stays(agent)) {
            self.change.delete(agent_key(agent));
        }
        for agent in self.state.codes.keys().filter(|agent| !stays(agent)) {
            self.change.delete(code_key(agent));
        }
        for device in self.state.stock_secrets.keys() {
            let key = self.catalogue.devices.get(device).map(|device| match &device.spec.kind {
                DeviceKind::Stock { wireguard_key } => Some(*wireguard_key),
                DeviceKind::Agent => None,
            });
            // Another key is another client: it gets a config, and a secret, of its own.
            if key != Some(wireguard_key(self.state, device)) {
                self.change.delete(stock_secret_key(device));
            }
        }
    }

    fn people_that_go(&mut self) {
        for user in self.state.credentials.keys() {
            if !self.catalogue.users.contains_key(user) {
                self.change.delete(credential_key(user));
                self.change.delete(throttle_key(&user.to_string()));
            }
        }
        for token in self.state.tokens.values() {
            let organisation = match &token.role {
                TokenRole::Facilities => continue,
                TokenRole::Admin { organisation } | TokenRole::Auditor { organisation } => {
                    organisation
                }
            };
            if !self.catalogue.organisations.contains_key(organisation) {
                self.change.delete(token_key(&token.id));
            }
        }
    }
}

fn forbidden<K: Resource>(key: &K::Key, principal: &Principal) -> AppError {
    let whose = match principal.scope() {
        Scope::Facilities => "facilities change organisations, buildings and shared devices only",
        Scope::Organisation(_) => "it is not your organisation's to change",
    };
    AppError::Forbidden(format!("{}: {whose}", path_of::<K>(key)))
}

fn json_of(spec: &impl Resource) -> Value {
    serde_json::to_value(spec).expect("specs have a JSON form")
}
