//! Policies as texts: check, publish, read what was published, and bring it back.
//!
//! A version that is brought back goes through the same gate as a new one: what it names may be gone.

use partywall_proto::admin::{
    Page, PolicyMode, PolicyPublished, PolicyReport, PolicySpec, PolicyVersion, PolicyVersionText,
};
use partywall_proto::ids::OrganisationId;
use partywall_proto::problem::Finding;
use serde_json::json;

use super::change::Change;
use super::draft::{Draft, Written};
use super::records::policy_version_key;
use super::resources::PAGE_MAX;
use super::state::State;
use super::{App, AppError, Principal, Resource, Result};
use crate::domain::authority::Access;
use crate::domain::policy::text;
use crate::domain::resource::path_of;
use crate::domain::scope::Scope;

impl App {
    /// Says what is wrong with a text that is to be the policy of `organisation`; changes nothing.
    ///
    /// # Errors
    /// A principal who may not publish it, which is audited.
    pub async fn check_policy(
        &self,
        principal: &Principal,
        organisation: &OrganisationId,
        text: &str,
    ) -> Result<PolicyReport> {
        let path = path_of::<PolicySpec>(organisation);
        let checked = {
            let state = self.state();
            may(&state, principal, Access::Write, organisation).and_then(|()| {
                let spec = match read(organisation, text) {
                    Ok(spec) => spec,
                    Err(findings) => return Ok(report(None, findings, Vec::new())),
                };
                let mut draft = Draft::new(&state, principal, self.now());
                let written = Written { text: text.to_owned(), restored_from: None };
                match draft.publish(spec.clone(), written).and_then(|()| draft.finish()) {
                    Ok(_) => {
                        let mut warnings = draft.warnings(&spec);
                        text::locate(text, &spec, &mut warnings);
                        Ok(report(Some(&spec), Vec::new(), warnings))
                    }
                    Err(AppError::Invalid(mut findings)) => {
                        text::locate(text, &spec, &mut findings);
                        Ok(report(Some(&spec), findings, Vec::new()))
                    }
                    Err(refused) => Err(refused),
                }
            })
        };
        self.audited(principal, "policy-check", &path, checked).await
    }

    /// Makes a text the next version of the policy of `organisation`: in force, or on trial. `expected` is the number of the
    /// version that it builds on; 0 that there is none.
    ///
    /// # Errors
    /// Everything that does not hold, with its place in the text; a principal who may not, which is
    /// audited; [`AppError::PublishedMeanwhile`]. Nothing is changed then.
    pub async fn publish_policy(
        &self,
        principal: &Principal,
        organisation: &OrganisationId,
        text: String,
        mode: PolicyMode,
        expected: Option<u64>,
    ) -> Result<PolicyPublished> {
        let written = Written { text, restored_from: None };
        self.publish(principal, organisation, written, mode, expected).await
    }

    /// Publishes what version `number` said as a new version.
    ///
    /// # Errors
    /// As [`App::publish_policy`]; a version that does not exist.
    pub async fn restore_policy(
        &self,
        principal: &Principal,
        organisation: &OrganisationId,
        number: u64,
        expected: Option<u64>,
    ) -> Result<PolicyPublished> {
        let earlier = self.policy_version(principal, organisation, number).await?;
        let written = Written { text: earlier.text, restored_from: Some(number) };
        self.publish(principal, organisation, written, PolicyMode::Enforce, expected).await
    }

    /// The versions of a policy, the oldest first. The cursor is a number.
    ///
    /// # Errors
    /// A principal who may not read it, which is audited; a cursor that is no number.
    pub async fn policy_versions(
        &self,
        principal: &Principal,
        organisation: &OrganisationId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<PolicyVersion>> {
        let path = path_of::<PolicySpec>(organisation);
        let after: u64 = after.unwrap_or("0").parse().map_err(|_| {
            let detail = "this is no cursor; take `next` of the page before as it is";
            AppError::Invalid(vec![Finding::new("cursor", detail)])
        })?;
        let page = {
            let state = self.state();
            may(&state, principal, Access::Read, organisation).map(|()| {
                let all = state.versions.get(organisation).into_iter().flatten();
                let mut rest = all.map(|(_, it)| it).filter(|it| it.number > after);
                let limit = limit.clamp(1, PAGE_MAX);
                let items: Vec<_> = rest.by_ref().take(limit).cloned().collect();
                let next = items.last().filter(|_| rest.next().is_some());
                Page { next: next.map(|it| it.number.to_string()), items }
            })
        };
        self.audited(principal, "policy-versions", &path, page).await
    }

    /// One version with its text.
    ///
    /// # Errors
    /// A principal who may not read it, which is audited; a version that does not exist.
    pub async fn policy_version(
        &self,
        principal: &Principal,
        organisation: &OrganisationId,
        number: u64,
    ) -> Result<PolicyVersionText> {
        let path = format!("{}/versions/{number}", path_of::<PolicySpec>(organisation));
        let allowed = may(&self.state(), principal, Access::Read, organisation);
        self.audited(principal, "read", &path, allowed).await?;
        let key = policy_version_key(organisation, number);
        let entry = self.inner.store.get(key.as_bytes()).await?;
        let entry = entry.ok_or(AppError::NotFound(path))?;
        serde_json::from_slice(&entry.value).map_err(|source| AppError::Unreadable { key, source })
    }

    async fn publish(
        &self,
        principal: &Principal,
        organisation: &OrganisationId,
        written: Written,
        mode: PolicyMode,
        expected: Option<u64>,
    ) -> Result<PolicyPublished> {
        let path = path_of::<PolicySpec>(organisation);
        let writer = self.writer().await;
        let planned = {
            let state = self.state();
            may(&state, principal, Access::Write, organisation)
                .and_then(|()| builds_on(&state, organisation, expected))
                .and_then(|()| {
                    let text = written.text.clone();
                    let spec = read(organisation, &text).map_err(AppError::Invalid)?;
                    let mut draft = Draft::new(&state, principal, self.now());
                    let planned = draft.publish(spec.clone(), written);
                    let change = planned.and_then(|()| match mode {
                        PolicyMode::Enforce => draft.finish().map(|(change, _)| change),
                        PolicyMode::Observe => draft.observe(),
                    });
                    let change = change.map_err(|refused| located(&text, &spec, refused))?;
                    let mut warnings = draft.warnings(&spec);
                    text::locate(&text, &spec, &mut warnings);
                    Ok((change, warnings))
                })
        };
        match planned {
            Ok((change, warnings)) => {
                self.commit(writer, change, None).await?;
                let version = self.state().last_version(organisation).cloned();
                let version = version.ok_or(AppError::NotFound(path))?;
                Ok(PolicyPublished { version, warnings })
            }
            Err(refused) => {
                drop(writer);
                self.audited(principal, "policy-publish", &path, Err(refused)).await
            }
        }
    }

    /// Gives policies that were written before versions were kept their first one.
    pub(super) async fn number_policies(&self) -> Result<()> {
        let writer = self.writer().await;
        let mut change = Change::default();
        {
            let (state, now) = (self.state(), self.now());
            let all = &state.catalogue.policies;
            for (organisation, policy) in all.iter().filter(|it| !state.versions.contains_key(it.0))
            {
                let version = PolicyVersion {
                    number: 1,
                    published_by: "controller".to_owned(),
                    published_at: now,
                    mode: PolicyMode::Enforce,
                    restored_from: None,
                };
                let text = text::write(&policy.spec);
                let value = PolicyVersionText { version, text };
                change.put(policy_version_key(organisation, 1), &value);
                let subject = format!("{}/versions/1", policy.spec.path());
                let detail =
                    json!({ "version": 1, "why": "it was written before versions were kept" });
                let chain = organisation.as_str();
                change.done(chain, now, "controller", "policy-publish", subject, Some(detail));
            }
        }
        self.commit(writer, change, None).await.map(drop)
    }
}

pub(super) fn may(
    state: &State,
    principal: &Principal,
    access: Access,
    organisation: &OrganisationId,
) -> Result<()> {
    let path = path_of::<PolicySpec>(organisation);
    if !principal.may(access, &Scope::Organisation(organisation.clone())) {
        let what = match access {
            Access::Read => "read",
            Access::Write => "change",
        };
        return Err(AppError::Forbidden(format!("{path} is not yours to {what}")));
    }
    match state.catalogue.organisations.contains_key(organisation) {
        true => Ok(()),
        false => Err(AppError::NotFound(path)),
    }
}

fn builds_on(state: &State, organisation: &OrganisationId, expected: Option<u64>) -> Result<()> {
    let current = state.last_version(organisation);
    match expected {
        Some(expected) if expected != current.map_or(0, |it| it.number) => {
            let (organisation, current) = (organisation.clone(), current.cloned());
            Err(AppError::PublishedMeanwhile { organisation, expected, current })
        }
        Some(_) | None => Ok(()),
    }
}

pub(super) fn read(organisation: &OrganisationId, text: &str) -> Result<PolicySpec, Vec<Finding>> {
    let spec = text::read(text).map_err(|finding| vec![*finding])?;
    if spec.organisation == *organisation {
        return Ok(spec);
    }
    let detail = format!("this is published as the policy of {organisation}; write that name here");
    let mut findings = vec![Finding::new(format!("{}/organisation", spec.path()), detail)];
    text::locate(text, &spec, &mut findings);
    Err(findings)
}

pub(super) fn located(text: &str, spec: &PolicySpec, mut refused: AppError) -> AppError {
    if let AppError::Invalid(findings) = &mut refused {
        text::locate(text, spec, findings);
    }
    refused
}

fn report(
    spec: Option<&PolicySpec>,
    findings: Vec<Finding>,
    warnings: Vec<Finding>,
) -> PolicyReport {
    let rules = |spec: &PolicySpec| spec.segments.values().map(|it| it.rules.len()).sum();
    PolicyReport {
        findings,
        warnings,
        tests: spec.map_or(0, |spec| spec.tests.len()),
        rules: spec.map_or(0, rules),
    }
}

#[cfg(test)]
mod tests {
    use partywall_proto::admin::UserSpec;

    use super::super::Clock as _;
    use super::super::testing::Building;
    use super::*;

    const TEXT: &str = "\
# Who reaches what.
version: 1
organisation: council
segments:
  council:
    rules:
      - name: web
        who: { groups: [staff] }
        what:
          - net: { prefixes: [10.1.0.0/16], protocol: tcp, ports: [443] }
      - name: help
        who: { groups: [staff] }
        what:
          - net: { prefixes: [10.3.0.0/16], protocol: tcp, ports: [22] }
tests:
  - name: the web is there
    given: { user: alice@council }
    to: 10.1.2.3:443/tcp
    expect: allow
";

    fn council() -> OrganisationId {
        "council".parse().unwrap()
    }

    impl Building {
        async fn publish(&self, text: &str, expected: Option<u64>) -> Result<PolicyVersion> {
            let text = text.to_owned();
            self.app
                .publish_policy(&self.council, &council(), text, PolicyMode::Enforce, expected)
                .await
                .map(|it| it.version)
        }

        async fn texts(&self) -> Vec<String> {
            let page =
                self.app.policy_versions(&self.council, &council(), None, 100).await.unwrap();
            let mut texts = Vec::new();
            for version in page.items {
                let read = self.app.policy_version(&self.council, &council(), version.number).await;
                texts.push(read.unwrap().text);
            }
            texts
        }
    }

    #[tokio::test]
    async fn every_way_of_writing_a_policy_makes_a_version_and_numbers_never_repeat() {
        let building = Building::new().await;
        assert_eq!(building.publish(TEXT, Some(1)).await.unwrap().number, 2);
        let spec = text::read(TEXT).unwrap();
        // As it is already: nothing is written, so nothing is a version.
        building.app.put(&building.council, spec.clone(), None).await.unwrap();
        assert_eq!(building.texts().await.len(), 2);
        let other = PolicySpec { tests: Vec::new(), ..spec };
        building.app.put(&building.council, other, None).await.unwrap();
        building.app.delete::<PolicySpec>(&building.council, &council(), None).await.unwrap();
        let restored = building.app.restore_policy(&building.council, &council(), 2, Some(3)).await;
        let restored = restored.unwrap().version;
        assert_eq!((restored.number, restored.restored_from), (4, Some(2)));
        let texts = building.texts().await;
        assert_eq!((&*texts[1], &*texts[3]), (TEXT, TEXT), "comments and all");
        assert!(texts[2].contains("name: web") && !texts[2].contains('#'), "{}", texts[2]);
        let reopened = building.reopened().await;
        assert_eq!(reopened.state().versions, building.app.state().versions);
    }

    #[tokio::test]
    async fn agents_are_told_which_version_their_rules_come_from() {
        let building = Building::new().await;
        let (mut gateway, _, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        for (text, number) in [(TEXT, 2), (TEXT, 3)] {
            building.publish(text, None).await.unwrap();
            for seat in [&mut gateway, &mut desk] {
                seat.drain();
                let held = seat.held.as_ref().unwrap();
                assert_eq!(held.policy.as_ref().map(|it| it.version), Some(number));
            }
        }
    }

    #[tokio::test]
    async fn of_two_who_publish_at_once_one_is_told_of_the_other() {
        let building = Building::new().await;
        building.publish(TEXT, Some(1)).await.unwrap();
        let refused = building.publish(TEXT, Some(1)).await.unwrap_err();
        assert!(matches!(refused, AppError::PublishedMeanwhile { .. }));
        let words = refused.to_string();
        let by = building.council.actor();
        assert!(words.contains("at version 2, not 1") && words.contains(&by), "{words}");
        assert!(words.contains(&building.clock.now().to_string()), "{words}");
        assert_eq!(refused.problem().status, 412);
    }

    #[tokio::test]
    async fn a_text_that_is_refused_changes_nothing_and_says_where() {
        let building = Building::new().await;
        let before = building.app.state().revision;
        for (from, to, line, says) in [
            ("groups: [staff]", "groups: [stuff]", 8, "no group"),
            ("expect: allow", "expect: refuse", 16, "rule web allows it"),
            ("10.1.0.0/16", "192.168.0.0/16", 10, "192.168.0.0/16"),
            ("organisation: council", "organisation: nhs", 3, "council"),
            ("who:", "whom:", 8, "whom"),
        ] {
            let text = TEXT.replacen(from, to, 1);
            let report = building.app.check_policy(&building.council, &council(), &text).await;
            let findings = report.unwrap().findings;
            let found = findings.iter().find(|it| it.detail.contains(says));
            assert_eq!(found.and_then(|it| it.line), Some(line), "{findings:?}");
            let Err(AppError::Invalid(refused)) = building.publish(&text, None).await else {
                panic!("published: {text}")
            };
            assert_eq!(refused, findings);
        }
        assert_eq!(building.app.state().revision, before);
        let report = building.app.check_policy(&building.council, &council(), TEXT).await.unwrap();
        assert_eq!((report.findings, report.tests, report.rules), (Vec::new(), 1, 2));
    }

    #[tokio::test]
    async fn rules_that_never_decide_are_told_with_their_places_when_checked_and_when_published() {
        let building = Building::new().await;
        let (app, council) = (&building.app, council());
        let help = TEXT.find("      - name: help").unwrap();
        let tests = TEXT.find("tests:").unwrap();
        let again =
            TEXT[help..tests].replace("help", "help-again").replace("10.3.0.0/16", "10.3.2.0/24");
        let text = format!("{}{again}{}", &TEXT[..tests], &TEXT[tests..]);
        let told = |warnings: &[Finding]| {
            let one =
                |it: &Finding| (it.at.clone(), it.line, it.detail.contains("changes nothing"));
            warnings.iter().map(one).collect::<Vec<_>>()
        };
        let at = "policies/council/segments/council/rules/help-again".to_owned();
        let expected = [(at, Some(15), true)];
        for _ in 0..2 {
            let report = app.check_policy(&building.council, &council, &text).await.unwrap();
            assert_eq!((told(&report.warnings), report.findings), (expected.to_vec(), Vec::new()));
            let enforce = PolicyMode::Enforce;
            let published =
                app.publish_policy(&building.council, &council, text.clone(), enforce, None).await;
            assert_eq!(told(&published.unwrap().warnings), expected);
        }
        let nhs =
            text.replace("council", "nhs").replace("alice", "nina").replace("help-again", "other");
        let report = app.check_policy(&building.nhs, &"nhs".parse().unwrap(), &nhs).await.unwrap();
        let others = report.warnings.iter().filter(|it| it.detail.contains("help-again")).count();
        assert_eq!((report.warnings.len(), others), (1, 0), "{:?}", report.warnings);
    }

    #[tokio::test]
    async fn a_version_is_brought_back_only_if_it_still_holds() {
        let building = Building::new().await;
        let text = TEXT.replace("{ user: alice@council }", "{ user: amy@council }");
        let amy = serde_json::json!({"name": "amy@council", "title": "Amy", "groups": ["staff"]});
        let amy: UserSpec = serde_json::from_value(amy).unwrap();
        let name = amy.name.clone();
        building.app.put(&building.council, amy, None).await.unwrap();
        building.publish(&text, None).await.unwrap();
        building.publish(TEXT, None).await.unwrap();
        let council = &building.council;
        building.app.delete::<UserSpec>(council, &name, None).await.unwrap();
        let refused = building.app.restore_policy(council, &self::council(), 2, None).await;
        assert!(matches!(refused, Err(AppError::Invalid(_))), "{refused:?}");
    }

    #[tokio::test]
    async fn nobody_reads_or_writes_the_others_policy() {
        let building = Building::new().await;
        let (app, council) = (&building.app, council());
        for other in [&building.nhs, &building.facilities] {
            let refused = [
                app.check_policy(other, &council, TEXT).await.unwrap_err(),
                app.publish_policy(other, &council, TEXT.to_owned(), PolicyMode::Observe, None)
                    .await
                    .unwrap_err(),
                app.policy_versions(other, &council, None, 9).await.unwrap_err(),
                app.policy_version(other, &council, 1).await.unwrap_err(),
                app.restore_policy(other, &council, 1, None).await.unwrap_err(),
            ];
            for refused in refused {
                assert!(matches!(refused, AppError::Forbidden(_)), "{refused}");
            }
        }
        assert_eq!(building.texts().await.len(), 1);
    }

    #[tokio::test]
    async fn a_policy_from_before_versions_becomes_the_first() {
        let building = Building::new().await;
        let key = policy_version_key(&council(), 1).into_bytes();
        let write = crate::store::Write { key, value: None };
        let transaction = crate::store::Transaction { writes: vec![write], ..Default::default() };
        building.store.transact(transaction).await.unwrap();
        let reopened = building.reopened().await;
        let version = reopened.policy_version(&building.council, &council(), 1).await.unwrap();
        let spec = text::read(&version.text).unwrap();
        assert_eq!(spec, reopened.state().catalogue.policies[&council()].spec);
        assert_eq!(version.version.published_by, "controller");
    }
}
