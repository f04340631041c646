//! A version on trial: which one it is, and its end. How it comes there is publication's.

use partywall_proto::admin::{PolicySpec, PolicyStatus};
use partywall_proto::ids::OrganisationId;

use super::change::Change;
use super::policies::may;
use super::{App, AppError, Principal, Result};
use crate::domain::authority::Access;
use crate::domain::resource::path_of;

impl App {
    /// Which versions agents know of.
    ///
    /// # Errors
    /// A principal who may not read it, which is audited.
    pub async fn policy_status(
        &self,
        principal: &Principal,
        organisation: &OrganisationId,
    ) -> Result<PolicyStatus> {
        let path = path_of::<PolicySpec>(organisation);
        let status = {
            let state = self.state();
            may(&state, principal, Access::Read, organisation).map(|()| PolicyStatus {
                in_force: state.version_in_force(organisation).cloned(),
                observed: state.version_observed(organisation).cloned(),
            })
        };
        self.audited(principal, "read", &path, status).await
    }

    /// Ends the trial of a version; the one in force stays.
    ///
    /// # Errors
    /// A principal who may not, which is audited; nothing on trial.
    pub async fn end_observation(
        &self,
        principal: &Principal,
        organisation: &OrganisationId,
    ) -> Result<()> {
        let path = path_of::<PolicySpec>(organisation);
        let writer = self.writer().await;
        let planned = {
            let state = self.state();
            may(&state, principal, Access::Write, organisation).and_then(|()| {
                let observed = state.observed.get(organisation);
                let none = || AppError::NotFound(format!("{path}: a version on trial"));
                let observed = observed.ok_or_else(none)?;
                let now = self.now();
                let mut change = Change::default();
                change.end_observation(organisation, observed.version, &principal.actor(), now);
                let in_force = state.catalogue.policies.get(organisation).map(|it| &it.spec);
                change.read_hours(organisation, in_force, now);
                Ok(change)
            })
        };
        match planned {
            Ok(change) => self.commit(writer, change, None).await.map(drop),
            Err(refused) => {
                drop(writer);
                self.audited(principal, "policy-observation-end", &path, Err(refused)).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use partywall_proto::admin::{PolicyMode, PolicyVersion};
    use partywall_proto::rules::{Opener, Rule};

    use super::super::testing::Building;
    use super::*;
    use crate::domain::policy::{Opening, decide};

    /// Another who than in force, so that the classes of the two are counted apart.
    const TRIAL: &str = "\
version: 1
organisation: council
segments:
  council:
    rules:
      - name: web
        who: { users: [alice@council] }
        what:
          - net: { prefixes: [10.1.0.0/16], protocol: tcp, ports: [443] }
      - name: help
        who: { groups: [staff] }
        what:
          - net: { prefixes: [10.3.0.0/16], protocol: tcp, ports: [22] }
";

    #[tokio::test]
    async fn a_version_on_trial_is_asked_at_gateways_and_enforced_nowhere() {
        let building = Building::new().await;
        let (mut gateway, _, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        let app = &building.app;
        let council: OrganisationId = "council".parse().unwrap();
        let observe = || {
            let text = TRIAL.to_owned();
            app.publish_policy(&building.council, &council, text, PolicyMode::Observe, None)
        };
        let before = app.state().catalogue.policies.get(&council).unwrap().spec.clone();
        desk.drain();
        let version = observe().await.unwrap().version;
        assert_eq!((version.number, version.mode), (2, PolicyMode::Observe));
        gateway.drain();
        assert_eq!(desk.drain(), Vec::<&str>::new(), "nothing is another to the device");
        assert_eq!(app.state().catalogue.policies.get(&council).unwrap().spec, before);

        let held = gateway.held.clone().unwrap();
        assert_eq!(held.policy.map(|it| it.version), Some(1));
        let observed = held.observed.unwrap();
        let names = |rules: &[Rule]| rules.iter().map(|it| it.id.to_string()).collect::<Vec<_>>();
        assert_eq!(
            (observed.version, names(&observed.rules)),
            (2, vec!["web".into(), "help".into()])
        );
        assert_eq!(names(&held.rules), ["web"]);
        let allowed = |rules: &[Rule], to: &str| {
            let opening = Opening { opener: Opener::Device, far: to.parse().unwrap() };
            decide(rules, &held.peers[0].classes, &opening).allows()
        };
        assert!(
            allowed(&held.rules, "10.1.2.3:443/tcp")
                && allowed(&observed.rules, "10.1.2.3:443/tcp")
        );
        assert!(
            !allowed(&held.rules, "10.3.2.3:22/tcp") && allowed(&observed.rules, "10.3.2.3:22/tcp")
        );
        let of = |rules: &[Rule]| {
            rules.iter().filter_map(|it| it.matches.class()).collect::<BTreeSet<_>>()
        };
        assert!(of(&held.rules).is_disjoint(&of(&observed.rules)), "a class means one thing");

        let status = app.policy_status(&building.council, &council).await.unwrap();
        let number = |version: Option<PolicyVersion>| version.map(|it| it.number);
        assert_eq!((number(status.in_force), number(status.observed)), (Some(1), Some(2)));
        let reopened = building.reopened().await;
        assert_eq!(reopened.state().observed.get(&council).unwrap().version, 2);

        app.end_observation(&building.council, &council).await.unwrap();
        gateway.drain();
        assert_eq!(gateway.held.as_ref().unwrap().observed, None);
        assert!(app.end_observation(&building.council, &council).await.is_err());

        observe().await.unwrap();
        building.app.restore_policy(&building.council, &council, 3, None).await.unwrap();
        gateway.drain();
        let held = gateway.held.as_ref().unwrap();
        assert_eq!((&held.observed, held.policy.map(|it| it.version)), (&None, Some(4)));
        assert_eq!(names(&held.rules), ["web", "help"]);
    }
}
