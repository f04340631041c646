//! A catalogue out of a manifest, for the domain's tests.

use partywall_proto::admin::{Manifest, Versioned};
use serde_json::Value;

use super::catalogue::Catalogue;
use super::resource::Resource;

/// What `manifest` sets up, whether or not it holds.
pub(super) fn catalogue(manifest: Value) -> Catalogue {
    fn add<K: Resource>(all: &mut Catalogue, specs: Vec<K>) {
        let entries = specs.into_iter().map(|spec| (spec.key(), Versioned { revision: 1, spec }));
        K::table_mut(all).extend(entries);
    }
    let manifest: Manifest = serde_json::from_value(manifest).unwrap();
    let mut all = Catalogue::default();
    add(&mut all, manifest.organisations);
    add(&mut all, manifest.buildings);
    add(&mut all, manifest.segments);
    add(&mut all, manifest.gateways);
    add(&mut all, manifest.devices);
    add(&mut all, manifest.groups);
    add(&mut all, manifest.users);
    add(&mut all, manifest.policies);
    all
}
