//! The nftables table `inet partywall` as a value, in the JSON that `nft -j` reads
//! (libnftables-json(5)).
//!
//! The table carries a chain that is named after the digest of its own content, so that the next
//! start can tell a table that is as it should be from one that must be replaced. Anonymous sets
//! must not overlap.

use data_encoding::HEXLOWER;
use partywall_proto::nets::{PortRange, Prefix};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Name of the table, in the family `inet`.
pub(super) const TABLE_NAME: &str = "partywall";
const FAMILY: &str = "inet";
const DIGEST_PREFIX: &str = "digest_";

/// Where a chain hooks in (nft(8), "Netfilter hooks").
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook {
    pub(super) kind: &'static str,
    pub(super) hook: &'static str,
    pub(super) priority: i32,
}

impl Hook {
    pub(super) const fn filter(hook: &'static str) -> Self {
        Self { kind: "filter", hook, priority: 0 }
    }
}

/// What tells one ruleset from another, in the kernel and here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) digest: String,
    pub(super) rules: usize,
}

/// The content of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ruleset {
    objects: Vec<Value>,
    rules: usize,
}

impl Ruleset {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn counter(&mut self, name: &str) {
        self.objects
            .push(json!({"counter": {"family": FAMILY, "table": TABLE_NAME, "name": name}}));
    }

    /// A base chain that accepts what no rule of it decides.
    pub(super) fn chain(&mut self, name: &str, hook: Hook) {
        let Hook { kind, hook, priority } = hook;
        self.objects.push(json!({"chain": {
            "family": FAMILY, "table": TABLE_NAME, "name": name,
            "type": kind, "hook": hook, "prio": priority, "policy": "accept",
        }}));
    }

    pub(super) fn rule(&mut self, chain: &str, expressions: impl IntoIterator<Item = Value>) {
        let expressions: Vec<Value> = expressions.into_iter().collect();
        self.objects.push(json!({"rule": {
            "family": FAMILY, "table": TABLE_NAME, "chain": chain, "expr": expressions,
        }}));
        self.rules += 1;
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let text = Value::Array(self.objects.clone()).to_string();
        let digest = HEXLOWER.encode(&Sha256::digest(text)[..8]);
        Fingerprint { digest, rules: self.rules }
    }

    /// One transaction that puts this table in the place of the one that is there, if any. At no
    /// moment is there none.
    pub(super) fn replacement(&self) -> Value {
        let table = json!({"table": {"family": FAMILY, "name": TABLE_NAME}});
        let digest = format!("{DIGEST_PREFIX}{}", self.fingerprint().digest);
        let digest_chain =
            json!({"chain": {"family": FAMILY, "table": TABLE_NAME, "name": digest}});
        // To delete is an error where there is nothing, so it is added first.
        let mut commands =
            vec![json!({"add": table}), json!({"delete": table}), json!({"add": table})];
        commands.push(json!({"add": digest_chain}));
        commands.extend(self.objects.iter().map(|object| json!({"add": object})));
        json!({"nftables": commands})
    }

    /// One transaction that leaves no table.
    pub(super) fn removal() -> Value {
        let table = json!({"table": {"family": FAMILY, "name": TABLE_NAME}});
        json!({"nftables": [{"add": table}, {"delete": table}]})
    }
}

/// Reads what `nft -j list table inet partywall` printed. A table that does not say its digest is
/// none of ours that we know.
pub(super) fn fingerprint_of(listing: &Value) -> Option<Fingerprint> {
    let objects = listing.get("nftables")?.as_array()?;
    let names = objects.iter().filter_map(|object| object.pointer("/chain/name")?.as_str());
    let digest = names.filter_map(|name| name.strip_prefix(DIGEST_PREFIX)).next()?.to_owned();
    let rules = objects.iter().filter(|object| object.get("rule").is_some()).count();
    Some(Fingerprint { digest, rules })
}

pub(super) fn meta(key: &str) -> Value {
    json!({"meta": {"key": key}})
}

pub(super) fn ct(key: &str) -> Value {
    json!({"ct": {"key": key}})
}

pub(super) fn field(protocol: &str, field: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": field}})
}

pub(super) fn is(left: Value, right: impl Into<Value>) -> Value {
    json!({"match": {"op": "==", "left": left, "right": right.into()}})
}

pub(super) fn is_not(left: Value, right: impl Into<Value>) -> Value {
    json!({"match": {"op": "!=", "left": left, "right": right.into()}})
}

/// A flow's state or a header's flags have any of these bits.
pub(super) fn has(left: Value, right: impl Into<Value>) -> Value {
    json!({"match": {"op": "in", "left": left, "right": right.into()}})
}

pub(super) fn one_of(elements: impl IntoIterator<Item = Value>) -> Value {
    let elements: Vec<Value> = elements.into_iter().collect();
    json!({"set": elements})
}

pub(super) fn set_to(key: Value, value: impl Into<Value>) -> Value {
    json!({"mangle": {"key": key, "value": value.into()}})
}

pub(super) fn accept() -> Value {
    json!({"accept": null})
}

/// Drops and counts under `counter`.
pub(super) fn drop_as(counter: &str) -> [Value; 2] {
    [json!({"counter": counter}), json!({"drop": null})]
}

/// The source (`saddr`) or destination (`daddr`) lies in one of the prefixes of one family; none
/// where that family has none. The prefixes must be disjoint.
pub(super) fn address_in<'a>(
    side: &str,
    prefixes: impl IntoIterator<Item = &'a Prefix>,
    ipv4: bool,
) -> Option<Value> {
    let of_family: Vec<&Prefix> =
        prefixes.into_iter().filter(|prefix| prefix.is_ipv4() == ipv4).collect();
    let (protocol, nfproto) = if ipv4 { ("ip", "ipv4") } else { ("ip6", "ipv6") };
    match of_family.as_slice() {
        [] => None,
        all if all.iter().any(|prefix| prefix.length() == 0) => Some(is(meta("nfproto"), nfproto)),
        some => {
            let elements = some.iter().map(|prefix| {
                json!({"prefix": {"addr": prefix.address().to_string(), "len": prefix.length()}})
            });
            Some(is(field(protocol, side), one_of(elements)))
        }
    }
}

/// The port is in one of the ranges, which may overlap; none where every port is.
pub(super) fn port_in(protocol: &str, side: &str, ports: &[PortRange]) -> Option<Value> {
    let merged = merge(ports);
    let all = merged.is_empty() || merged == [(0, u16::MAX)];
    let elements = merged.into_iter().map(|(first, last)| match first == last {
        true => json!(first),
        false => json!({"range": [first, last]}),
    });
    (!all).then(|| is(field(protocol, side), one_of(elements)))
}

fn merge(ports: &[PortRange]) -> Vec<(u16, u16)> {
    let mut ranges: Vec<_> = ports.iter().map(|range| (range.first(), range.last())).collect();
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            Some(_) | None => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_follows_the_content_and_is_read_back_from_a_listing() {
        let mut one = Ruleset::new();
        one.chain("output", Hook::filter("output"));
        let mut other = one.clone();
        other.rule("output", [accept()]);
        assert_eq!(one.fingerprint(), one.clone().fingerprint());
        assert_ne!(one.fingerprint().digest, other.fingerprint().digest);
        let added = other.replacement()["nftables"].as_array().unwrap().clone();
        let objects: Vec<_> = added.iter().filter_map(|command| command.get("add")).collect();
        assert_eq!(fingerprint_of(&json!({"nftables": objects})), Some(other.fingerprint()));
    }

    #[test]
    fn ports_that_overlap_become_ranges_that_do_not() {
        let ports: Vec<PortRange> =
            serde_json::from_str(r#"["8000-8099", 22, 8050, 8100, 23]"#).unwrap();
        assert_eq!(merge(&ports), [(22, 23), (8000, 8100)]);
        assert_eq!(port_in("tcp", "dport", &[PortRange::ALL]), None);
    }

    #[test]
    fn the_prefix_of_everything_matches_the_family() {
        let all: Vec<Prefix> = vec!["0.0.0.0/0".parse().unwrap()];
        assert_eq!(address_in("daddr", &all, true), Some(is(meta("nfproto"), "ipv4")));
        assert_eq!(address_in("daddr", &all, false), None);
    }
}
