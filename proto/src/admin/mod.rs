//! The admin API's bodies. An unknown field is refused: a typo must not widen access.
//!
//! What an admin writes is a `…Spec`; what the controller adds around it is a [`Versioned`].

mod access;
mod audit;
mod effect;
mod flows;
mod policy;
mod resources;
mod versions;
mod why;

use serde::{Deserialize, Serialize};

pub use access::{
    CredentialCreated, CredentialRequest, EnrolmentCodeCreated, EnrolmentCodeRequest, SessionView,
    SignInRequest, Token, TokenCreated, TokenRequest, TokenRole,
};
pub use audit::{AuditRecord, AuditVerdict};
pub use effect::{EffectAudience, EffectConditions, EffectKind, PolicyDiff, PolicyEffect};
pub use flows::{
    FlowSettingsSpec, FlowSink, FlowSinkStatus, FlowStatus, StoredFlow, WhatIfLine, WhatIfReport,
};
pub use policy::{
    Day, Defaults, Destination, DeviceClass, Endpoint, EndpointError, Expectation, Given, Hours,
    LanguageVersion, LanguageVersionError, Members, POLICY_MAX_BYTES, PolicyRule, PolicySpec,
    PolicyTest, SegmentPolicy, ServiceSpec, SignInStrength, Target, TimeOfDay, TimeOfDayError,
    When, Who,
};
pub use resources::{
    BuildingSpec, DeviceKind, DeviceSpec, GatewaySpec, GroupSpec, OrganisationSpec, SegmentSpec,
    UserSpec,
};
pub use versions::{
    PolicyMode, PolicyPublished, PolicyReport, PolicyStatus, PolicyVersion, PolicyVersionText,
};
pub use why::{EndVerdict, RecordedVerdict, WhyDrop, WhyReport, WhySession};

/// Path of the OpenAPI document.
pub const OPENAPI_PATH: &str = "/v1/openapi.json";

/// Largest request body in bytes.
pub const BODY_MAX_BYTES: usize = 10 << 20;

/// A resource as stored: what was written, and the revision for `If-Match`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Versioned<T> {
    /// Changes with every write; also sent as `ETag`.
    pub revision: u64,
    /// What was written.
    pub spec: T,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// In the order of their names.
    pub items: Vec<T>,
    /// Pass as `?cursor=` for the next page; none on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Everything that an admin sets up, in one document: the body of `apply`, and what `export` writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Manifest {
    /// Organisations. Only facilities may add one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub organisations: Vec<OrganisationSpec>,
    /// Buildings. Only facilities may change them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub buildings: Vec<BuildingSpec>,
    /// Segments, each by its own organisation's admin.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<SegmentSpec>,
    /// Gateways, each by its segment's organisation's admin.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<GatewaySpec>,
    /// Devices: those of a building by facilities, those of a person by their organisation's admin.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceSpec>,
    /// Groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupSpec>,
    /// Users, without their credentials.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<UserSpec>,
    /// Policies, one for each organisation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicySpec>,
    /// What is done with flow records, by each organisation for itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flow_settings: Vec<FlowSettingsSpec>,
}

/// What `apply` did, or with `?dry_run=true` would do. Everything is one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApplyReport {
    /// In the order of the manifest; what stays as it is does not appear.
    pub changes: Vec<ResourceChange>,
    /// The revision after it.
    pub revision: u64,
}

/// One resource that `apply` creates or updates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResourceChange {
    /// As a path: `segments/council`.
    pub resource: String,
    /// As stored before; none if it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub before: Option<serde_json::Value>,
    /// As stored after.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub after: serde_json::Value,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const MANIFEST: &str = include_str!("../../tests/golden/manifest.json");

    /// Every object of the manifest, as a JSON pointer, apart from the maps whose keys are names.
    fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                let names = ["/services", "/policies/0/groups", "/policies/0/segments"];
                if !names.iter().any(|map| at.ends_with(map)) {
                    found.push(at.to_owned());
                }
                for (name, inner) in fields {
                    objects(inner, &format!("{at}/{name}"), found);
                }
            }
            Value::Array(items) => {
                for (index, inner) in items.iter().enumerate() {
                    objects(inner, &format!("{at}/{index}"), found);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn an_unknown_field_is_refused_at_every_level_of_a_manifest() {
        let value: Value = serde_json::from_str(MANIFEST).unwrap();
        let mut all = Vec::new();
        objects(&value, "", &mut all);
        assert!(all.len() > 20, "the golden manifest should show every kind of object: {all:?}");
        for at in all {
            let mut typo = value.clone();
            typo.pointer_mut(&at).unwrap()["prefixs"] = Value::Array(Vec::new());
            let read = serde_json::from_value::<Manifest>(typo);
            assert!(read.is_err(), "an unknown field at {at:?} was taken");
        }
    }

    #[test]
    fn an_unknown_word_is_refused_in_every_choice_of_a_manifest() {
        for (known, unknown) in [
            (r#""runs": "agent""#, r#""runs": "toaster""#),
            (r#""tunnel": "split""#, r#""tunnel": "half""#),
            (r#""forwarding": "nat""#, r#""forwarding": "bridge""#),
            (r#""action": "deny""#, r#""action": "log""#),
            (r#""opened_by": "network""#, r#""opened_by": "moon""#),
            (r#""who": "everyone""#, r#""who": "everybody""#),
            (r#""protocol": "tcp""#, r#""protocol": "sctp""#),
            (r#""class": "managed""#, r#""class": "trusted""#),
            (r#""sign_in": "code""#, r#""sign_in": "smile""#),
            (r#""expect": "refuse""#, r#""expect": "deny""#),
        ] {
            assert!(MANIFEST.contains(known), "the golden manifest lacks {known}");
            let typo = MANIFEST.replacen(known, unknown, 1);
            assert!(serde_json::from_str::<Manifest>(&typo).is_err(), "{unknown} was taken");
        }
    }
}
