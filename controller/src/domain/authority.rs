//! Who may read and change what: one function over a role and a scope.
//!
//! Nobody reads or changes what is another organisation's, and facilities are no exception. Where a
//! resource changes hands, both the old and the new scope must allow it.

use partywall_proto::admin::TokenRole;

use super::catalogue::Catalogue;
use super::principal::Principal;
use super::resource::Resource;
use super::scope::Scope;

/// What is to be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Look at it.
    Read,
    /// Make, change or delete it.
    Write,
}

impl Principal {
    /// The scope that this one belongs to.
    pub fn scope(&self) -> Scope {
        match &self.role {
            TokenRole::Facilities => Scope::Facilities,
            TokenRole::Admin { organisation } | TokenRole::Auditor { organisation } => {
                Scope::Organisation(organisation.clone())
            }
        }
    }

    /// Whether this one may do `access` in `scope`.
    pub fn may(&self, access: Access, scope: &Scope) -> bool {
        let within = self.scope() == *scope;
        match (&self.role, access) {
            (TokenRole::Facilities | TokenRole::Admin { .. }, Access::Read | Access::Write)
            | (TokenRole::Auditor { .. }, Access::Read) => within,
            (TokenRole::Auditor { .. }, Access::Write) => false,
        }
    }

    /// Whether this one may look at `spec`. Everybody may know which organisations and buildings
    /// there are.
    pub fn may_read<K: Resource>(&self, spec: &K, catalogue: &Catalogue) -> bool {
        let public = matches!(K::KIND, "organisations" | "buildings");
        public || spec.scope(catalogue).is_some_and(|scope| self.may(Access::Read, &scope))
    }

    /// Whether this one may put `after` where `before` is. Organisations come and go by facilities
    /// alone and are otherwise their own.
    pub fn may_write<K: Resource>(
        &self,
        before: Option<&K>,
        after: Option<&K>,
        catalogue: &Catalogue,
    ) -> bool {
        if K::KIND == "organisations" && (before.is_none() || after.is_none()) {
            return self.may(Access::Write, &Scope::Facilities);
        }
        // A scope that cannot be told belongs to a spec that the catalogue's checks refuse.
        [before, after]
            .into_iter()
            .flatten()
            .filter_map(|spec| spec.scope(catalogue))
            .all(|scope| self.may(Access::Write, &scope))
    }
}
