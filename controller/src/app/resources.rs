//! What admins set up: apply, export, list, get, put and delete.

use partywall_proto::admin::{ApplyReport, Manifest, Page, Versioned};

use super::draft::Draft;
use super::{App, AppError, Principal, Resource, Result};
use crate::domain::catalogue::Catalogue;
use crate::domain::resource::path_of;

/// Largest page of a list.
pub(super) const PAGE_MAX: usize = 1000;

impl App {
    /// Brings what is set up to what `manifest` says, in one transaction; what it does not name
    /// stays. With `dry_run` only reports.
    ///
    /// # Errors
    /// Everything that does not hold, with the place of each; a resource that is not the
    /// principal's. Nothing is changed then.
    pub async fn apply(
        &self,
        principal: &Principal,
        manifest: Manifest,
        dry_run: bool,
    ) -> Result<ApplyReport> {
        let writer = self.writer().await;
        let planned = {
            let state = self.state();
            let mut draft = Draft::new(&state, principal, self.now());
            fill(&mut draft, manifest).and_then(|()| draft.finish())
        };
        match planned {
            Err(refused) => {
                drop(writer);
                self.audited(principal, "apply", "manifest", Err(refused)).await
            }
            Ok((_, changes)) if dry_run => {
                Ok(ApplyReport { changes, revision: self.state().revision })
            }
            Ok((change, changes)) => {
                let revision = self.commit(writer, change, None).await?;
                Ok(ApplyReport { changes, revision })
            }
        }
    }

    /// Everything that the principal may read, as a manifest that `apply` takes.
    ///
    /// # Errors
    /// None for now.
    #[expect(clippy::unused_async, reason = "another store would be asked")]
    pub async fn export(&self, principal: &Principal) -> Result<Manifest> {
        let state = self.state();
        let all = &state.catalogue;
        Ok(Manifest {
            organisations: readable(all, principal),
            buildings: readable(all, principal),
            segments: readable(all, principal),
            gateways: readable(all, principal),
            devices: readable(all, principal),
            groups: readable(all, principal),
            users: readable(all, principal),
            policies: readable(all, principal),
            flow_settings: readable(all, principal),
        })
    }

    /// Those of a kind that the principal may read, in the order of their names.
    ///
    /// # Errors
    /// None for now.
    #[expect(clippy::unused_async, reason = "another store would be asked")]
    pub async fn list<K: Resource>(
        &self,
        principal: &Principal,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Versioned<K>>> {
        let state = self.state();
        let all = &state.catalogue;
        let mine = K::table(all).iter().filter(|(_, it)| principal.may_read(&it.spec, all));
        Ok(page(mine.map(|(key, it)| (key.to_string(), it)), after, limit, Clone::clone))
    }

    /// One resource.
    ///
    /// # Errors
    /// One that does not exist or that the principal may not read; the second is audited.
    pub async fn get<K: Resource>(
        &self,
        principal: &Principal,
        key: &K::Key,
    ) -> Result<Versioned<K>> {
        let path = path_of::<K>(key);
        let found = {
            let state = self.state();
            match K::table(&state.catalogue).get(key) {
                None => Err(AppError::NotFound(path.clone())),
                Some(it) if principal.may_read(&it.spec, &state.catalogue) => Ok(it.clone()),
                Some(_) => Err(AppError::Forbidden(format!("{path} is not yours to read"))),
            }
        };
        self.audited(principal, "read", &path, found).await
    }

    /// Puts one resource in place. `if_match` is the revision that it must have; 0 that it must not
    /// exist yet.
    ///
    /// # Errors
    /// As [`App::apply`], and [`AppError::ChangedMeanwhile`].
    pub async fn put<K: Resource>(
        &self,
        principal: &Principal,
        spec: K,
        if_match: Option<u64>,
    ) -> Result<Versioned<K>> {
        let writer = self.writer().await;
        let (key, path) = (spec.key(), spec.path());
        let planned = {
            let state = self.state();
            let mut draft = Draft::new(&state, principal, self.now());
            draft
                .set(spec.clone())
                .and_then(|()| matches_revision::<K>(&state.catalogue, &key, if_match))
                .and_then(|()| draft.finish())
        };
        match planned {
            Ok((change, _)) => {
                self.commit(writer, change, None).await?;
                let state = self.state();
                let stored = K::table(&state.catalogue).get(&key).cloned();
                stored.ok_or(AppError::NotFound(path))
            }
            Err(refused) => {
                drop(writer);
                self.audited(principal, "put", &path, Err(refused)).await
            }
        }
    }

    /// Takes one resource away. `if_match` is the revision that it must have.
    ///
    /// # Errors
    /// As [`App::put`]; what still refers to it is named.
    pub async fn delete<K: Resource>(
        &self,
        principal: &Principal,
        key: &K::Key,
        if_match: Option<u64>,
    ) -> Result<()> {
        let writer = self.writer().await;
        let planned = {
            let state = self.state();
            let mut draft = Draft::new(&state, principal, self.now());
            draft
                .remove::<K>(key)
                .and_then(|()| matches_revision::<K>(&state.catalogue, key, if_match))
                .and_then(|()| draft.finish())
        };
        match planned {
            Ok((change, _)) => self.commit(writer, change, None).await.map(drop),
            Err(refused) => {
                drop(writer);
                self.audited(principal, "delete", &path_of::<K>(key), Err(refused)).await
            }
        }
    }
}

/// The order is that of the report; checks look at the whole.
fn fill(draft: &mut Draft<'_>, manifest: Manifest) -> Result<()> {
    let Manifest {
        organisations,
        buildings,
        segments,
        gateways,
        devices,
        groups,
        users,
        policies,
        flow_settings,
    } = manifest;
    fn each<K: Resource>(draft: &mut Draft<'_>, specs: Vec<K>) -> Result<()> {
        specs.into_iter().try_for_each(|spec| draft.set(spec))
    }
    each(draft, organisations)?;
    each(draft, buildings)?;
    each(draft, segments)?;
    each(draft, gateways)?;
    each(draft, devices)?;
    each(draft, groups)?;
    each(draft, users)?;
    each(draft, policies)?;
    each(draft, flow_settings)
}

fn readable<K: Resource>(all: &Catalogue, principal: &Principal) -> Vec<K> {
    let specs = K::table(all).values().map(|it| &it.spec);
    specs.filter(|spec| principal.may_read(*spec, all)).cloned().collect()
}

fn matches_revision<K: Resource>(
    all: &Catalogue,
    key: &K::Key,
    if_match: Option<u64>,
) -> Result<()> {
    let current = K::table(all).get(key).map_or(0, |it| it.revision);
    match if_match {
        Some(expected) if expected != current => {
            Err(AppError::ChangedMeanwhile { path: path_of::<K>(key), expected, current })
        }
        Some(_) | None => Ok(()),
    }
}

/// Cuts a page out of `items` in the order of their names as text, which is what the cursor is.
pub(super) fn page<T, U>(
    items: impl Iterator<Item = (String, T)>,
    after: Option<&str>,
    limit: usize,
    make: impl Fn(T) -> U,
) -> Page<U> {
    let limit = limit.clamp(1, PAGE_MAX);
    let mut rest: Vec<_> =
        items.filter(|(name, _)| after.is_none_or(|after| name.as_str() > after)).collect();
    rest.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let more = rest.len() > limit;
    rest.truncate(limit);
    let next = rest.last().filter(|_| more).map(|(name, _)| name.clone());
    Page { items: rest.into_iter().map(|(_, item)| make(item)).collect(), next }
}

#[cfg(test)]
mod tests {
    use partywall_proto::admin::{
        BuildingSpec, OrganisationSpec, PolicySpec, SegmentSpec, UserSpec,
    };
    use partywall_proto::ids::SegmentId;

    use super::super::testing::{Building, admin, manifest_of, manifest_of_facilities, secret};
    use super::*;

    #[tokio::test]
    async fn an_export_applies_again_without_a_change() {
        let building = Building::new().await;
        let (app, council) = (&building.app, &building.council);
        let export = app.export(council).await.unwrap();
        assert_eq!((export.segments.len(), export.users.len(), export.policies.len()), (1, 1, 1));
        let report = app.apply(council, export, false).await.unwrap();
        assert!(report.changes.is_empty());
        assert_eq!(report.revision, app.state().revision);
    }

    #[tokio::test]
    async fn a_dry_run_reports_and_changes_nothing() {
        let building = Building::new().await;
        let mut manifest = manifest_of("council", "alice", "100.64.0.0/24");
        manifest.users[0].title = "Alice".to_owned();
        let before = building.app.state().revision;
        for (dry_run, after) in [(true, before), (false, before + 1)] {
            let report =
                building.app.apply(&building.council, manifest.clone(), dry_run).await.unwrap();
            assert_eq!(report.changes.len(), 1);
            assert_eq!(report.changes[0].resource, "users/alice@council");
            assert_eq!(building.app.state().revision, after);
        }
    }

    #[tokio::test]
    async fn what_a_manifest_writes_twice_is_refused() {
        let building = Building::new().await;
        let mut manifest = manifest_of("council", "bob", "100.64.0.0/24");
        manifest.users.push(UserSpec { title: "Robert".to_owned(), ..manifest.users[0].clone() });
        let refused = building.app.apply(&building.council, manifest, false).await.unwrap_err();
        let AppError::Invalid(findings) = refused else { panic!("{refused}") };
        assert_eq!(findings.len(), 1);
        assert!(findings[0].to_string().contains("users/bob@council: it is written twice"));
    }

    #[tokio::test]
    async fn a_bad_manifest_names_every_fault_and_changes_nothing() {
        let building = Building::new().await;
        let mut manifest = manifest_of("council", "alice", "100.64.1.0/25");
        manifest.users[0].groups.push("ghosts".parse().unwrap());
        manifest.groups.push(manifest.groups[0].clone());
        manifest.groups[1].title = "Twice".to_owned();
        let before = building.app.state().revision;
        let refused = building.app.apply(&building.council, manifest, false).await.unwrap_err();
        let problem = refused.problem();
        let places: Vec<_> = problem.errors.iter().map(|it| it.at.as_str()).collect();
        for at in ["segments/council/pools", "segments/nhs/pools", "users/alice@council/groups"] {
            assert!(places.contains(&at), "{at} is not among {places:?}");
        }
        assert_eq!((problem.status, building.app.state().revision), (422, before));
    }

    #[tokio::test]
    async fn of_two_admins_who_change_the_same_thing_the_second_is_told() {
        let building = Building::new().await;
        let (app, council) = (&building.app, &building.council);
        let name: SegmentId = "council".parse().unwrap();
        let read = app.get::<SegmentSpec>(council, &name).await.unwrap();
        let with_title = |title: &str| SegmentSpec { title: title.to_owned(), ..read.spec.clone() };
        let (first, second) = tokio::join!(
            app.put(council, with_title("One"), Some(read.revision)),
            app.put(council, with_title("Two"), Some(read.revision)),
        );
        let stored = first.unwrap();
        let refused = second.unwrap_err();
        assert!(matches!(refused, AppError::ChangedMeanwhile { .. }), "{refused}");
        assert_eq!(app.get::<SegmentSpec>(council, &name).await.unwrap(), stored);
        let exists = app.put(council, with_title("New"), Some(0)).await;
        assert!(matches!(exists, Err(AppError::ChangedMeanwhile { .. })));
    }

    #[tokio::test]
    async fn nobody_reads_or_changes_what_is_the_others() {
        let building = Building::new().await;
        let (app, nhs, facilities) = (&building.app, &building.nhs, &building.facilities);
        let council: SegmentId = "council".parse().unwrap();
        let alice = "alice@council".parse().unwrap();
        for stranger in [nhs, facilities] {
            let export = app.export(stranger).await.unwrap();
            assert!(export.segments.iter().all(|it| it.name != council));
            assert!(export.users.iter().all(|it| it.name != alice));
            let page = app.list::<PolicySpec>(stranger, None, 100).await.unwrap();
            assert!(page.items.iter().all(|it| it.spec.organisation.as_str() != "council"));
            assert!(app.get::<SegmentSpec>(stranger, &council).await.is_err());
            assert!(app.delete::<UserSpec>(stranger, &alice, None).await.is_err());
            for principal_of_apply in [manifest_of("council", "mallory", "100.64.0.0/24")] {
                let refused = app.apply(stranger, principal_of_apply, false).await.unwrap_err();
                assert!(matches!(refused, AppError::Forbidden(_)), "{refused}");
            }
            let request =
                partywall_proto::admin::CredentialRequest { password: secret("a long password") };
            assert!(app.set_credentials(stranger, &alice, request).await.is_err());
            assert!(admin(app, stranger, "council").await.is_err());
            let trail = app.audit(stranger, None, None, 1000).await.unwrap().items;
            let refusals = trail.iter().filter(|it| it.outcome.starts_with("refused")).count();
            assert_eq!(refusals, 5, "every refusal is in the trail");
        }
        // What is the building's is facilities' to change.
        let hq = "hq".parse().unwrap();
        let spec = app.get::<BuildingSpec>(nhs, &hq).await.unwrap().spec;
        let changed = BuildingSpec { title: "Mine".to_owned(), ..spec };
        assert!(matches!(app.put(nhs, changed, None).await, Err(AppError::Forbidden(_))));
        let own = OrganisationSpec {
            name: "nhs".parse().unwrap(),
            title: "NHS".to_owned(),
            code_step_s: 60,
        };
        assert!(matches!(
            app.put(facilities, own.clone(), None).await,
            Err(AppError::Forbidden(_))
        ));
        app.put(nhs, own, None).await.unwrap();
    }

    #[tokio::test]
    async fn a_policy_that_fails_its_own_tests_is_refused_and_the_old_one_stays() {
        let building = Building::new().await;
        let (app, council) = (&building.app, &building.council);
        let name = "council".parse().unwrap();
        let before = app.get::<PolicySpec>(council, &name).await.unwrap();
        let with = |expect: &str| -> PolicySpec {
            let mut policy = serde_json::to_value(&before.spec).unwrap();
            policy["tests"] = serde_json::json!([{
                "name": "the web", "given": {"user": "alice@council"}, "to": "10.1.0.1:443/tcp",
                "expect": expect,
            }]);
            serde_json::from_value(policy).unwrap()
        };
        let problem = app.put(council, with("refuse"), None).await.unwrap_err().problem();
        assert_eq!((problem.status, problem.errors.len()), (422, 1));
        assert_eq!(problem.errors[0].at, "policies/council/tests/the web");
        assert!(problem.errors[0].detail.contains("rule web allows it"), "{problem}");
        assert_eq!(app.get::<PolicySpec>(council, &name).await.unwrap(), before);
        app.put(council, with("allow"), None).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_still_referred_to_stays_and_the_referrer_is_named() {
        let building = Building::new().await;
        let (app, council) = (&building.app, &building.council);
        let refused = app.delete::<SegmentSpec>(council, &"council".parse().unwrap(), None).await;
        let problem = refused.unwrap_err().problem();
        assert!(problem.errors.iter().any(|it| it.at == "gateways/gw-council/segment"));
        assert!(problem.errors.iter().any(|it| it.at == "policies/council/segments/council"));
        let hq = "hq".parse().unwrap();
        let refused = app.delete::<BuildingSpec>(&building.facilities, &hq, None).await;
        let problem = refused.unwrap_err().problem();
        assert!(problem.errors.iter().any(|it| it.at == "devices/desk-1/building"));
    }

    #[tokio::test]
    async fn a_list_is_read_in_pages_that_miss_and_repeat_nothing() {
        let building = Building::new().await;
        let mut manifest = manifest_of_facilities();
        for name in ["desk", "desk-1-a", "desk-10", "a", "z"] {
            let mut device = manifest.devices[0].clone();
            device.name = name.parse().unwrap();
            manifest.devices.push(device);
        }
        building.app.apply(&building.facilities, manifest, false).await.unwrap();
        let mut names = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = building
                .app
                .list::<partywall_proto::admin::DeviceSpec>(
                    &building.facilities,
                    after.as_deref(),
                    2,
                )
                .await
                .unwrap();
            names.extend(page.items.into_iter().map(|it| it.spec.name.to_string()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(names, ["a", "desk", "desk-1", "desk-1-a", "desk-10", "desk-2", "z"]);
    }

    #[tokio::test]
    async fn what_was_answered_is_there_after_a_restart() {
        let building = Building::new().await;
        building.seats().await;
        let before = building.app.export(&building.council).await.unwrap();
        let reopened = building.reopened().await;
        assert_eq!(reopened.export(&building.council).await.unwrap(), before);
        assert_eq!(reopened.state().revision, building.app.state().revision);
        let segment: SegmentId = "council".parse().unwrap();
        assert_eq!(
            reopened.state().segment_key(&segment),
            building.app.state().segment_key(&segment)
        );
    }
}
