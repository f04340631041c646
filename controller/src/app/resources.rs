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
                stored.ok_or_else(|| AppError::NotFound(path))
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
    let Manifest { organisations, buildings, segments, gateways, devices, groups, users, policies } =
        manifest;
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
    each(draft, policies)
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
