//! Everything that the store holds apart from the audit records, in memory and typed.
//!
//! It is a function of the store's entries: [`State::set`] is the only way in, at start and after
//! each transaction alike, so that memory cannot hold what a restart would not bring back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use partywall_proto::admin::{
    BuildingSpec, DeviceSpec, FlowSettingsSpec, GatewaySpec, GroupSpec, OrganisationSpec,
    PolicyMode, PolicySpec, PolicyVersion, SegmentSpec, UserSpec, Versioned,
};
use partywall_proto::ids::{
    AgentId, DeviceId, OrganisationId, SegmentId, SessionId, TokenId, UserId,
};
use partywall_proto::keys::SegmentKey;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::records::{
    AddressRecord, AgentRecord, CodeRecord, ControllerRecord, CredentialRecord, HoursRecord,
    ObservedRecord, TokenRecord,
};
use super::{AppError, Resource};
use crate::domain::audit::ChainHead;
use crate::domain::catalogue::Catalogue;
use crate::domain::group_key::GroupKey;
use crate::domain::policy::Compiled;
use crate::domain::session::{PskSecret, SessionRecord};
use crate::domain::throttle::Throttle;

/// See the module.
#[derive(Default)]
pub(super) struct State {
    /// The store revision that this shows.
    pub(super) revision: u64,
    pub(super) controller: Option<ControllerRecord>,
    pub(super) catalogue: Catalogue,
    /// Policies as compiled, by segment.
    pub(super) compiled: BTreeMap<SegmentId, Arc<Compiled>>,
    /// The policies on trial.
    pub(super) observed: BTreeMap<OrganisationId, Observed>,
    /// As of when the hours of an organisation's policy are read.
    pub(super) hours: BTreeMap<OrganisationId, HoursRecord>,
    /// The versions of each organisation's policy, by their numbers. Their texts stay in the store.
    pub(super) versions: BTreeMap<OrganisationId, BTreeMap<u64, PolicyVersion>>,
    pub(super) agents: BTreeMap<AgentId, AgentRecord>,
    pub(super) codes: BTreeMap<AgentId, CodeRecord>,
    pub(super) sessions: BTreeMap<SessionId, SessionRecord>,
    /// The one session of each device that has one.
    pub(super) session_of: BTreeMap<DeviceId, SessionId>,
    pub(super) addresses: BTreeMap<(SegmentId, DeviceId), AddressRecord>,
    pub(super) taken: BTreeSet<IpAddr>,
    pub(super) credentials: BTreeMap<UserId, CredentialRecord>,
    pub(super) throttles: BTreeMap<String, Throttle>,
    pub(super) tokens: BTreeMap<TokenId, TokenRecord>,
    pub(super) segment_keys: BTreeMap<SegmentId, SigningKey>,
    pub(super) stock_secrets: BTreeMap<DeviceId, PskSecret>,
    pub(super) chains: BTreeMap<String, ChainHead>,
    revisions: HashMap<String, u64>,
}

/// A policy on trial.
#[derive(Debug)]
pub(super) struct Observed {
    /// The number of its version.
    pub(super) version: u64,
    pub(super) policy: PolicySpec,
    /// By segment.
    pub(super) compiled: BTreeMap<SegmentId, Compiled>,
}

/// A stored version without its text.
#[derive(Deserialize)]
struct VersionEntry {
    version: PolicyVersion,
}

/// A stored value that this version cannot read.
type Unreadable = serde_json::Error;

impl State {
    /// Takes one entry of the store as it is at `revision`; none where it was deleted.
    pub(super) fn set(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
        revision: u64,
    ) -> Result<(), AppError> {
        let unreadable = |source| AppError::Unreadable { key: key.to_owned(), source };
        self.take(key, value, revision).map_err(unreadable)?;
        let audit = key.starts_with("audit/");
        match value {
            Some(_) if !audit => drop(self.revisions.insert(key.to_owned(), revision)),
            Some(_) => {}
            None => drop(self.revisions.remove(key)),
        }
        self.revision = self.revision.max(revision);
        Ok(())
    }

    /// The revision of the key's last write; none if it does not exist.
    pub(super) fn revision_of(&self, key: &str) -> Option<u64> {
        self.revisions.get(key).copied()
    }

    /// The last version of an organisation's policy, also where the policy was deleted since.
    pub(super) fn last_version(&self, organisation: &OrganisationId) -> Option<&PolicyVersion> {
        self.versions.get(organisation)?.values().next_back()
    }

    /// The version of an organisation's policy that its agents enforce.
    pub(super) fn version_in_force(&self, organisation: &OrganisationId) -> Option<&PolicyVersion> {
        self.catalogue.policies.get(organisation)?;
        let mut versions = self.versions.get(organisation)?.values().rev();
        versions.find(|version| version.mode == PolicyMode::Enforce)
    }

    /// The version of an organisation's policy that is on trial.
    pub(super) fn version_observed(&self, organisation: &OrganisationId) -> Option<&PolicyVersion> {
        let observed = self.observed.get(organisation)?;
        self.versions.get(organisation)?.get(&observed.version)
    }

    /// What a segment's organisation has on trial, and its rules for the segment.
    pub(super) fn observed_in(&self, segment: &SegmentSpec) -> Option<(u64, &Compiled)> {
        let observed = self.observed.get(&segment.organisation)?;
        Some((observed.version, observed.compiled.get(&segment.name)?))
    }

    /// The session of a device.
    pub(super) fn session_on(&self, device: &DeviceId) -> Option<&SessionRecord> {
        self.sessions.get(self.session_of.get(device)?)
    }

    /// The public half of a segment's signing key.
    pub(super) fn segment_key(&self, segment: &SegmentId) -> Option<SegmentKey> {
        let key = self.segment_keys.get(segment)?;
        Some(SegmentKey::from(key.verifying_key().to_bytes()))
    }

    fn take(&mut self, key: &str, value: Option<&[u8]>, revision: u64) -> Result<(), Unreadable> {
        let (kind, name) = key.split_once('/').unwrap_or((key, ""));
        match kind {
            "meta" => self.controller = value.map(serde_json::from_slice).transpose()?,
            "resource" => self.take_resource(name, value, revision)?,
            "hours" => put(&mut self.hours, parse(name)?, value)?,
            "policy-version" => self.take_version(name, value)?,
            "observed" => self.take_observed(parse(name)?, value)?,
            "agent" => put(&mut self.agents, parse(name)?, value)?,
            "code" => put(&mut self.codes, parse(name)?, value)?,
            "session" => self.take_session(parse(name)?, value)?,
            "address" => self.take_addresses(name, value)?,
            "credential" => put(&mut self.credentials, parse(name)?, value)?,
            "throttle" => put(&mut self.throttles, name.to_owned(), value)?,
            "token" => put(&mut self.tokens, parse(name)?, value)?,
            "stock-secret" => put(&mut self.stock_secrets, parse(name)?, value)?,
            "chain" => put(&mut self.chains, name.to_owned(), value)?,
            "segment-key" => {
                let seed: Option<[u8; 32]> = value.map(serde_json::from_slice).transpose()?;
                let segment = parse(name)?;
                match seed {
                    Some(seed) => {
                        self.segment_keys.insert(segment, SigningKey::from_bytes(&seed));
                    }
                    None => drop(self.segment_keys.remove(&segment)),
                }
            }
            // Audit records stay in the store.
            "audit" => {}
            unknown => return Err(unknown_kind(unknown)),
        }
        Ok(())
    }

    fn take_resource(
        &mut self,
        path: &str,
        value: Option<&[u8]>,
        revision: u64,
    ) -> Result<(), Unreadable> {
        let (kind, name) = path.split_once('/').unwrap_or((path, ""));
        let all = &mut self.catalogue;
        match kind {
            OrganisationSpec::KIND => set::<OrganisationSpec>(all, parse(name)?, value, revision),
            BuildingSpec::KIND => set::<BuildingSpec>(all, parse(name)?, value, revision),
            SegmentSpec::KIND => set::<SegmentSpec>(all, parse(name)?, value, revision),
            GatewaySpec::KIND => set::<GatewaySpec>(all, parse(name)?, value, revision),
            DeviceSpec::KIND => set::<DeviceSpec>(all, parse(name)?, value, revision),
            GroupSpec::KIND => {
                let (organisation, name) = name.split_once('/').unwrap_or((name, ""));
                let key = GroupKey { organisation: parse(organisation)?, name: parse(name)? };
                set::<GroupSpec>(all, key, value, revision)
            }
            UserSpec::KIND => set::<UserSpec>(all, parse(name)?, value, revision),
            FlowSettingsSpec::KIND => set::<FlowSettingsSpec>(all, parse(name)?, value, revision),
            PolicySpec::KIND => {
                let organisation: OrganisationId = parse(name)?;
                let before = all.policies.get(&organisation);
                for segment in before.iter().flat_map(|policy| policy.spec.segments.keys()) {
                    self.compiled.remove(segment);
                }
                set::<PolicySpec>(all, organisation.clone(), value, revision)?;
                let after = all.policies.get(&organisation).map(|policy| &policy.spec);
                for (policy, segment) in
                    after.into_iter().flat_map(|it| it.segments.keys().map(move |name| (it, name)))
                {
                    let compiled = Arc::new(Compiled::of(policy, segment));
                    self.compiled.insert(segment.clone(), compiled);
                }
                Ok(())
            }
            unknown => Err(unknown_kind(unknown)),
        }
    }

    fn take_version(&mut self, name: &str, value: Option<&[u8]>) -> Result<(), Unreadable> {
        let (organisation, number) = name.split_once('/').unwrap_or((name, ""));
        let versions = self.versions.entry(parse(organisation)?).or_default();
        match value {
            Some(value) => {
                let VersionEntry { version } = serde_json::from_slice(value)?;
                versions.insert(parse(number)?, version);
            }
            None => drop(versions.remove(&parse(number)?)),
        }
        Ok(())
    }

    fn take_observed(
        &mut self,
        organisation: OrganisationId,
        value: Option<&[u8]>,
    ) -> Result<(), Unreadable> {
        match value {
            Some(value) => {
                let ObservedRecord { version, policy } = serde_json::from_slice(value)?;
                let segments = policy.segments.keys();
                let compiled = segments.map(|it| (it.clone(), Compiled::of(&policy, it))).collect();
                self.observed.insert(organisation, Observed { version, policy, compiled });
            }
            None => drop(self.observed.remove(&organisation)),
        }
        Ok(())
    }

    fn take_session(&mut self, id: SessionId, value: Option<&[u8]>) -> Result<(), Unreadable> {
        // Where one transaction ends a session and begins another on the same device, the order of
        // the two writes must not matter.
        if let Some(old) = self.sessions.remove(&id)
            && self.session_of.get(&old.device) == Some(&id)
        {
            self.session_of.remove(&old.device);
        }
        if let Some(value) = value {
            let record: SessionRecord = serde_json::from_slice(value)?;
            self.session_of.insert(record.device.clone(), id.clone());
            self.sessions.insert(id, record);
        }
        Ok(())
    }

    fn take_addresses(&mut self, name: &str, value: Option<&[u8]>) -> Result<(), Unreadable> {
        let (segment, device) = name.split_once('/').unwrap_or((name, ""));
        let key = (parse(segment)?, parse(device)?);
        for address in self.addresses.remove(&key).into_iter().flatten() {
            self.taken.remove(&address);
        }
        if let Some(value) = value {
            let record: AddressRecord = serde_json::from_slice(value)?;
            self.taken.extend(&record);
            self.addresses.insert(key, record);
        }
        Ok(())
    }
}

fn put<N: Ord, T: DeserializeOwned>(
    table: &mut BTreeMap<N, T>,
    name: N,
    value: Option<&[u8]>,
) -> Result<(), Unreadable> {
    match value {
        Some(value) => drop(table.insert(name, serde_json::from_slice(value)?)),
        None => drop(table.remove(&name)),
    }
    Ok(())
}

fn set<K: Resource>(
    all: &mut Catalogue,
    key: K::Key,
    value: Option<&[u8]>,
    revision: u64,
) -> Result<(), Unreadable> {
    match value {
        Some(value) => {
            let spec = serde_json::from_slice(value)?;
            K::table_mut(all).insert(key, Versioned { revision, spec });
        }
        None => drop(K::table_mut(all).remove(&key)),
    }
    Ok(())
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, Unreadable>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| serde::de::Error::custom(format!("the key is no name: {error}")))
}

fn unknown_kind(kind: &str) -> Unreadable {
    serde::de::Error::custom(format!("{kind:?} is written by a newer version"))
}
