//! People and destinations of a change in few words: a group's name for its members, a service's for what it is.

use std::collections::{BTreeSet, HashMap};

use partywall_proto::admin::{EffectAudience, EffectKind, PolicySpec};
use partywall_proto::ids::{GroupId, ServiceId};
use partywall_proto::nets::{PortRange, Prefix, Protocol};

use super::Person;
use crate::domain::prover::{Piece, spoken};

/// People that a line names.
const NAMED_MAX: usize = 3;
/// Destinations that a line names.
const WHAT_MAX: usize = 20;

type Spoken = Vec<(Protocol, Vec<PortRange>)>;

/// What the organisation has names for.
pub(super) struct Words<'a> {
    people: &'a [Person],
    groups: HashMap<Vec<usize>, &'a GroupId>,
    /// Of the policy before and of the one after.
    services: [Vec<(&'a ServiceId, BTreeSet<Prefix>, Spoken)>; 2],
}

impl<'a> Words<'a> {
    pub(super) fn of(people: &'a [Person], policies: [Option<&'a PolicySpec>; 2]) -> Self {
        let mut members: HashMap<&GroupId, Vec<usize>> = HashMap::new();
        for (at, (_, groups)) in people.iter().enumerate() {
            for group in groups.iter().collect::<BTreeSet<_>>() {
                members.entry(group).or_default().push(at);
            }
        }
        let mut groups: HashMap<Vec<usize>, &GroupId> = HashMap::new();
        for (group, members) in members {
            let named = groups.entry(members).or_insert(group);
            // Of two groups of the same people the same one each time.
            *named = group.min(named);
        }
        let services = policies.map(|policy| {
            let all = policy.into_iter().flat_map(|it| &it.services);
            all.map(|(name, it)| {
                let prefixes = it.prefixes.iter().copied().collect();
                (name, prefixes, spoken(it.protocol, &it.ports))
            })
            .collect()
        });
        Self { people, groups, services }
    }

    /// People by their numbers, which are in order.
    pub(super) fn who(&self, people: &[usize]) -> EffectAudience {
        let named = people.iter().take(NAMED_MAX).filter_map(|at| self.people.get(*at));
        let everyone = people.len() == self.people.len();
        EffectAudience {
            everyone,
            group: self.groups.get(people).filter(|_| !everyone).map(|it| GroupId::clone(it)),
            people: people.len() as u64,
            users: named.map(|(user, _)| user.clone()).collect(),
        }
    }

    /// The first few destinations of `pieces`, and how many more there are.
    pub(super) fn what(&self, effect: EffectKind, pieces: &[&Piece]) -> (Vec<String>, u64) {
        let services = match effect {
            EffectKind::Loses => &self.services[0],
            EffectKind::Gains => &self.services[1],
        };
        let mut left: BTreeSet<(Prefix, &Spoken)> =
            pieces.iter().map(|piece| (piece.prefix, &piece.what)).collect();
        let mut what = Vec::new();
        for (name, prefixes, spoken) in services {
            let whole = |prefix: &Prefix| left.contains(&(*prefix, spoken));
            if !prefixes.is_empty() && prefixes.iter().all(whole) {
                left.retain(|(prefix, what)| *what != spoken || !prefixes.contains(prefix));
                what.push(name.to_string());
            }
        }
        what.extend(left.into_iter().map(|(prefix, spoken)| in_words(prefix, spoken)));
        let more = what.len().saturating_sub(WHAT_MAX);
        what.truncate(WHAT_MAX);
        (what, more as u64)
    }
}

/// As in `10.1.0.0/16 tcp 443, 8000-8099`; what is not restricted is not said.
fn in_words(prefix: Prefix, spoken: &Spoken) -> String {
    let mut text = prefix.to_string();
    if *spoken == self::spoken(None, &[]) {
        return text;
    }
    for (protocol, ports) in spoken {
        text.push_str(&format!(" {protocol}"));
        if !ports.is_empty() && *ports != [PortRange::ALL] {
            let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
            text.push_str(&format!(" {}", ports.join(", ")));
        }
    }
    text
}
