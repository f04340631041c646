//! Deltas: what leads from one generation of an overlay config to a later one.
//!
//! [`OverlayConfig::changes_to`] and [`OverlayConfig::with`] are each other's inverse. `with` never
//! alters the config that it starts from, so a delta that is refused half-way changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Generation, Observed, OverlayConfig, Peer, PolicyStamp, check_version};
use crate::ids::{AgentId, SegmentId};
use crate::rules::Rule;

/// From one generation of a config to a later one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// See [`VERSION`](super::VERSION).
    pub version: u32,
    /// Whom it is for.
    pub agent: AgentId,
    /// Which segment it carries.
    pub segment: SegmentId,
    /// The generation that this builds on.
    pub base: Generation,
    /// The generation that results. Equal to `base` where only the validity is renewed.
    pub generation: Generation,
    /// When the controller signed it.
    pub issued_at: Timestamp,
    /// The new staleness limit.
    pub valid_until: Timestamp,
    /// In order; none renews the validity alone.
    pub changes: Vec<Change>,
}

/// One step of a [`Delta`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// A peer is new or changed.
    PeerSet {
        /// The peer as it is now.
        peer: Box<Peer>,
    },
    /// A peer is gone, and every flow of it.
    PeerGone {
        /// Which peer.
        agent: AgentId,
    },
    /// The rules are these now. What is left out of it is gone, not kept.
    RulesSet {
        /// All of them.
        rules: Vec<Rule>,
        /// The policy version that they come from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<PolicyStamp>,
        /// The policy version on trial.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        observed: Option<Observed>,
    },
}

impl OverlayConfig {
    /// The steps that lead from `self` to `next`, or none where only a snapshot will do because
    /// the interface, the role, the agent or the segment differ.
    pub fn changes_to(&self, next: &OverlayConfig) -> Option<Vec<Change>> {
        let same_frame = self.version == next.version
            && self.agent == next.agent
            && self.segment == next.segment
            && self.interface == next.interface
            && self.role == next.role;
        if !same_frame {
            return None;
        }
        let held: BTreeMap<_, _> = self.peers.iter().map(|peer| (&peer.agent, peer)).collect();
        let kept: BTreeSet<_> = next.peers.iter().map(|peer| &peer.agent).collect();
        let gone = held.keys().filter(|agent| !kept.contains(*agent));
        let mut changes: Vec<Change> =
            gone.map(|agent| Change::PeerGone { agent: (*agent).clone() }).collect();
        let set = next.peers.iter().filter(|peer| held.get(&peer.agent) != Some(peer));
        changes.extend(set.map(|peer| Change::PeerSet { peer: Box::new(peer.clone()) }));
        let same_rules = self.rules == next.rules
            && self.policy == next.policy
            && self.observed == next.observed;
        if !same_rules {
            changes.push(Change::RulesSet {
                rules: next.rules.clone(),
                policy: next.policy,
                observed: next.observed.clone(),
            });
        }
        Some(changes)
    }

    /// The config that `delta` leads to. `self` stays as it was.
    ///
    /// # Errors
    /// A delta made for something else, or one whose result does not [`check`](Self::check).
    pub fn with(&self, delta: &Delta) -> Result<OverlayConfig, ConfigError> {
        check_version(delta.version)?;
        let grows = if delta.changes.is_empty() {
            delta.generation >= delta.base && delta.issued_at >= self.issued_at
        } else {
            delta.generation > delta.base
        };
        let fits = delta.base == self.generation
            && delta.agent == self.agent
            && delta.segment == self.segment
            && grows;
        if !fits {
            return Err(ConfigError::WrongBase {
                agent: delta.agent.clone(),
                segment: delta.segment.clone(),
                base: delta.base,
            });
        }
        let mut next = self.clone();
        next.generation = delta.generation;
        next.issued_at = delta.issued_at;
        next.valid_until = delta.valid_until;
        for change in &delta.changes {
            next.step(change)?;
        }
        next.check()?;
        Ok(next)
    }

    /// The peer of this name. Costs O(log n).
    pub fn peer(&self, agent: &AgentId) -> Option<&Peer> {
        self.place_of(agent).ok().and_then(|at| self.peers.get(at))
    }

    /// Takes one step. What it results in is not checked: [`with`](Self::with) does that.
    ///
    /// # Errors
    /// [`ConfigError::NoSuchPeer`]; nothing is changed then.
    pub fn step(&mut self, change: &Change) -> Result<(), ConfigError> {
        match change {
            Change::PeerSet { peer } => match self.place_of(&peer.agent) {
                Ok(at) => self.peers[at] = (**peer).clone(),
                Err(at) => self.peers.insert(at, (**peer).clone()),
            },
            Change::PeerGone { agent } => match self.place_of(agent) {
                Ok(at) => drop(self.peers.remove(at)),
                Err(_) => return Err(ConfigError::NoSuchPeer { peer: agent.clone() }),
            },
            Change::RulesSet { rules, policy, observed } => {
                self.rules.clone_from(rules);
                self.policy = *policy;
                self.observed.clone_from(observed);
            }
        }
        Ok(())
    }

    /// Where the peer of this name is, or would be.
    fn place_of(&self, agent: &AgentId) -> Result<usize, usize> {
        self.peers.binary_search_by(|held| held.agent.cmp(agent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::tests::{gateway_config, peer};
    use proptest::prelude::*;

    fn delta(from: &OverlayConfig, changes: Vec<Change>) -> Delta {
        Delta {
            version: from.version,
            agent: from.agent.clone(),
            segment: from.segment.clone(),
            base: from.generation,
            generation: Generation(from.generation.0 + 1),
            issued_at: from.issued_at,
            valid_until: from.valid_until,
            changes,
        }
    }

    #[test]
    fn a_delta_for_anything_but_what_is_held_is_refused() {
        let held = gateway_config();
        let good = delta(&held, vec![no_rules()]);
        held.with(&good).unwrap();
        let refused: [fn(&mut Delta); 6] = [
            |delta| delta.agent = "gateway/other".parse().unwrap(),
            |delta| delta.segment = "nhs".parse().unwrap(),
            |delta| delta.base = Generation(delta.base.0 - 1),
            |delta| delta.base = delta.generation,
            |delta| delta.generation = delta.base,
            |delta| delta.generation = Generation(delta.base.0 - 1),
        ];
        for (row, alter) in refused.iter().enumerate() {
            let mut bad = good.clone();
            alter(&mut bad);
            let error = held.with(&bad).unwrap_err();
            assert!(matches!(error, ConfigError::WrongBase { .. }), "row {row}: {error}");
        }
        let mut newer = good;
        newer.version += 1;
        assert_eq!(held.with(&newer), Err(ConfigError::Version { found: newer.version }));
    }

    #[test]
    fn a_renewal_keeps_the_generation_and_an_older_one_is_refused() {
        let held = gateway_config();
        let mut renewal = delta(&held, Vec::new());
        renewal.generation = renewal.base;
        renewal.issued_at += jiff::SignedDuration::from_secs(60);
        renewal.valid_until += jiff::SignedDuration::from_secs(60);
        let renewed = held.with(&renewal).unwrap();
        assert_eq!(
            (renewed.generation, renewed.valid_until),
            (held.generation, renewal.valid_until)
        );
        renewal.issued_at = held.issued_at - jiff::SignedDuration::from_secs(1);
        assert!(matches!(held.with(&renewal), Err(ConfigError::WrongBase { .. })));
    }

    #[test]
    fn a_delta_that_fails_half_way_changes_nothing() {
        let held = gateway_config();
        let before = held.clone();
        let missing: AgentId = "device/absent".parse().unwrap();
        let changes = vec![no_rules(), Change::PeerGone { agent: missing.clone() }];
        assert_eq!(
            held.with(&delta(&held, changes)),
            Err(ConfigError::NoSuchPeer { peer: missing })
        );
        assert_eq!(held, before);
    }

    #[test]
    fn a_delta_whose_result_clashes_is_refused() {
        let held = gateway_config();
        let mut thief = peer(200, 9);
        thief.allowed_ips.clone_from(&held.peers[0].allowed_ips);
        let change = Change::PeerSet { peer: Box::new(thief) };
        let error = held.with(&delta(&held, vec![change])).unwrap_err();
        assert!(matches!(error, ConfigError::PeerClash { .. }), "{error}");
    }

    #[test]
    fn only_a_snapshot_changes_the_frame() {
        let held = gateway_config();
        let mut next = held.clone();
        next.interface.mtu += 1;
        assert_eq!(held.changes_to(&next), None);
        let mut next = held.clone();
        next.segment = "nhs".parse().unwrap();
        assert_eq!(held.changes_to(&next), None);
    }

    fn peers() -> impl Strategy<Value = Vec<Peer>> {
        proptest::collection::btree_map(0u8..12, 0u8..3, 0..10)
            .prop_map(|all| all.into_iter().map(|(name, salt)| peer(name, salt)).collect())
    }

    proptest! {
        #[test]
        fn the_changes_between_two_configs_lead_from_one_to_the_other(
            before in peers(), after in peers(), fewer_rules in any::<bool>(),
            policies in any::<[Option<u64>; 2]>(), trials in any::<[Option<u64>; 2]>(),
        ) {
            let [held, next] = [0, 1].map(|at| {
                let config = gateway_config();
                let policy = policies[at].map(|version| PolicyStamp { version });
                let trial = |version| Observed { version, rules: config.rules.clone() };
                OverlayConfig { policy, observed: trials[at].map(trial), ..config }
            });
            let held = OverlayConfig { peers: sorted(before), ..held };
            let mut next = OverlayConfig { peers: sorted(after), ..next };
            if fewer_rules {
                next.rules.truncate(1);
            }
            next.generation = Generation(held.generation.0 + 1);
            let changes = held.changes_to(&next).unwrap();
            let text = serde_json::to_string(&delta(&held, changes.clone())).unwrap();
            let read: Delta = serde_json::from_str(&text).unwrap();
            // An empty delta may still raise the generation.
            prop_assert_eq!(held.with(&read).unwrap(), next);
        }
    }

    fn no_rules() -> Change {
        Change::RulesSet { rules: Vec::new(), policy: None, observed: None }
    }

    fn sorted(mut peers: Vec<Peer>) -> Vec<Peer> {
        peers.sort_by(|a, b| a.agent.cmp(&b.agent));
        peers
    }
}
