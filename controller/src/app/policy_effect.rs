//! What a policy would change, before it is published: by what it allows, and by what was recorded.
//!
//! A text is checked as publishing it now would; but nothing is written, so whoever may read the policy may
//! ask.

use std::collections::BTreeSet;
use std::sync::Arc;

use partywall_proto::admin::{PolicyDiff, PolicySpec};
use partywall_proto::ids::{OrganisationId, SegmentId};

use super::draft::Draft;
use super::policies::{located, may, read};
use super::state::State;
use super::{App, AppError, Principal, Result};
use crate::domain::authority::Access;
use crate::domain::policy::Compiled;
use crate::domain::policy_diff::{Pair, Person, diff};
use crate::domain::resource::path_of;

/// A policy with its rules by segment; none allows nothing.
pub(super) struct Ready {
    pub(super) policy: Option<PolicySpec>,
    pub(super) compiled: Vec<(SegmentId, Arc<Compiled>)>,
}

impl Ready {
    fn in_force(state: &State, organisation: &OrganisationId) -> Self {
        let policy = state.catalogue.policies.get(organisation).map(|it| it.spec.clone());
        let segments = policy.iter().flat_map(|it| it.segments.keys());
        let compiled = segments.filter_map(|segment| {
            Some((segment.clone(), Arc::clone(state.compiled.get(segment)?)))
        });
        let compiled = compiled.collect();
        Self { policy, compiled }
    }

    fn of(policy: PolicySpec) -> Self {
        let compiled =
            |segment: &SegmentId| (segment.clone(), Arc::new(Compiled::of(&policy, segment)));
        let compiled = policy.segments.keys().map(compiled).collect();
        Self { policy: Some(policy), compiled }
    }

    pub(super) fn rules(&self, segment: &SegmentId) -> Option<&Arc<Compiled>> {
        self.compiled.iter().find(|(name, _)| name == segment).map(|(_, compiled)| compiled)
    }
}

impl App {
    /// Who would gain or lose what if a text became the policy of `organisation`; changes nothing.
    ///
    /// # Errors
    /// Everything that does not hold, with its place in the text; a principal who may not read the policy,
    /// which is audited.
    pub async fn diff_policy(
        &self,
        principal: &Principal,
        organisation: &OrganisationId,
        text: &str,
    ) -> Result<PolicyDiff> {
        let (before, after) = self.tried(principal, organisation, "policy-diff", text).await?;
        self.difference(organisation, before, after).await
    }

    /// Who gained or lost what between two versions, for the people that there are now. Without `to` it is
    /// the policy in force.
    ///
    /// # Errors
    /// A principal who may not read it, which is audited; a version that does not exist, or whose text is no
    /// policy any more.
    pub async fn diff_versions(
        &self,
        principal: &Principal,
        organisation: &OrganisationId,
        from: u64,
        to: Option<u64>,
    ) -> Result<PolicyDiff> {
        let before = self.version_ready(principal, organisation, from).await?;
        let after = match to {
            Some(number) => self.version_ready(principal, organisation, number).await?,
            None => Ready::in_force(&self.state(), organisation),
        };
        self.difference(organisation, before, after).await
    }

    async fn version_ready(
        &self,
        principal: &Principal,
        organisation: &OrganisationId,
        number: u64,
    ) -> Result<Ready> {
        let version = self.policy_version(principal, organisation, number).await?;
        let policy = read(organisation, &version.text).map_err(AppError::Invalid)?;
        Ok(Ready::of(policy))
    }

    /// The policy in force, and the text as it would be.
    pub(super) async fn tried(
        &self,
        principal: &Principal,
        organisation: &OrganisationId,
        action: &str,
        text: &str,
    ) -> Result<(Ready, Ready)> {
        let tried = {
            let state = self.state();
            may(&state, principal, Access::Read, organisation).and_then(|()| {
                let spec = read(organisation, text).map_err(AppError::Invalid)?;
                let draft = Draft::new(&state, principal, self.now());
                match draft.would_hold(spec.clone()) {
                    Ok(()) => Ok((Ready::in_force(&state, organisation), Ready::of(spec))),
                    Err(refused) => Err(located(text, &spec, refused)),
                }
            })
        };
        self.audited(principal, action, &path_of::<PolicySpec>(organisation), tried).await
    }

    async fn difference(
        &self,
        organisation: &OrganisationId,
        before: Ready,
        after: Ready,
    ) -> Result<PolicyDiff> {
        let people: Vec<Person> = {
            let state = self.state();
            let all = state.catalogue.users.values().map(|it| &it.spec);
            let own = all.filter(|it| it.name.organisation() == organisation);
            own.map(|it| (it.name.clone(), it.groups.clone())).collect()
        };
        let now = self.now();
        let work = move || {
            let none = Compiled::default();
            let segments: BTreeSet<&SegmentId> =
                before.compiled.iter().chain(&after.compiled).map(|(name, _)| name).collect();
            let pairs: Vec<_> = segments
                .into_iter()
                .map(|segment| {
                    let [before, after] = [&before, &after]
                        .map(|it| it.rules(segment).map_or(&none, |rules| &**rules));
                    Pair { segment, before, after }
                })
                .collect();
            diff(&pairs, [before.policy.as_ref(), after.policy.as_ref()], &people, now)
        };
        let gone = |_| AppError::Unready("the comparison was given up; ask again".to_owned());
        tokio::task::spawn_blocking(work).await.map_err(gone)
    }
}
