//! A policy as a person means it: drawn at random, written out in the language, and read by the
//! simplest reader there is, which knows nothing of classes and compilers.

use partywall_controller::domain::policy::Opening;
use partywall_proto::admin::{DeviceClass, PolicySpec};
use partywall_proto::nets::{Prefix, Protocol};
use partywall_proto::rules::Opener;
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::nets;

pub(crate) const GROUPS: [&str; 3] = ["g0", "g1", "g2"];
const PORTS: [u16; 8] = [0, 1, 22, 80, 443, 444, 8000, u16::MAX];

/// Somebody at a device.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) groups: Vec<&'static str>,
    pub(crate) device: DeviceClass,
}

/// The rules of one segment.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    rules: Vec<WrittenRule>,
}

#[derive(Debug, Clone)]
struct WrittenRule {
    /// None is everyone.
    groups: Option<Vec<&'static str>>,
    only: Option<DeviceClass>,
    nets: Vec<Net>,
    allow: bool,
    opener: Opener,
}

/// A destination, or a source.
#[derive(Debug, Clone)]
pub(crate) struct Net {
    pub(crate) prefix: Prefix,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) ports: Vec<(u16, u16)>,
}

impl Written {
    pub(crate) fn random(inside: &[Prefix], dice: &mut Dice) -> Self {
        let rules = 1 + dice.below(8);
        Self { rules: (0..rules).map(|_| WrittenRule::random(inside, dice)).collect() }
    }

    /// What the rules speak of, to draw packets about.
    pub(crate) fn nets(&self) -> Vec<&Net> {
        self.rules.iter().flat_map(|rule| &rule.nets).collect()
    }

    pub(crate) fn spec(&self, name: &str) -> PolicySpec {
        let rules: Vec<Value> =
            self.rules.iter().zip(0..).map(|(rule, at)| rule.json(at)).collect();
        let policy = json!({
            "version": 1, "organisation": name, "segments": { name: { "rules": rules } },
        });
        serde_json::from_value(policy).unwrap()
    }

    /// Whether `person` may open this, or have it opened towards them.
    pub(crate) fn allows(&self, person: &Person, opening: &Opening) -> bool {
        let first = self.rules.iter().find(|rule| rule.concerns(person) && rule.speaks_of(opening));
        first.is_some_and(|rule| rule.allow)
    }
}

impl WrittenRule {
    fn random(inside: &[Prefix], dice: &mut Dice) -> Self {
        let groups = GROUPS.iter().copied().filter(|_| dice.percent(50)).collect::<Vec<_>>();
        Self {
            groups: Some(groups).filter(|groups| !groups.is_empty() && dice.percent(50)),
            only: dice.percent(20).then_some(DeviceClass::Managed),
            nets: (0..1 + dice.below(3)).map(|_| Net::random(inside, dice)).collect(),
            allow: dice.percent(75),
            opener: if dice.percent(75) { Opener::Device } else { Opener::Network },
        }
    }

    fn concerns(&self, person: &Person) -> bool {
        let named = |groups: &Vec<_>| groups.iter().any(|group| person.groups.contains(group));
        self.groups.as_ref().is_none_or(named) && self.only.is_none_or(|it| it == person.device)
    }

    fn speaks_of(&self, opening: &Opening) -> bool {
        let far = &opening.far;
        self.opener == opening.opener
            && self.nets.iter().any(|net| {
                net.prefix.holds(far.address())
                    && net.protocol.is_none_or(|protocol| protocol == far.protocol())
                    && (net.ports.is_empty()
                        || net.ports.iter().any(|(from, to)| (*from..=*to).contains(&far.port())))
            })
    }

    fn json(&self, at: usize) -> Value {
        let who = match &self.groups {
            None => json!("everyone"),
            Some(groups) => json!({ "groups": groups }),
        };
        let when = self.only.map_or(json!({}), |device| json!({ "devices": [device] }));
        let what: Vec<Value> = self.nets.iter().map(|net| json!({ "net": net.json() })).collect();
        json!({
            "name": format!("r{at}"), "who": who, "when": when, "what": what,
            "action": if self.allow { "allow" } else { "deny" }, "opened_by": self.opener,
        })
    }
}

impl Net {
    fn random(inside: &[Prefix], dice: &mut Dice) -> Self {
        let protocol = match dice.below(8) {
            0 => None,
            1 => Some(Protocol::Icmp),
            2 | 3 => Some(Protocol::Udp),
            _ => Some(Protocol::Tcp),
        };
        let with_ports = matches!(protocol, Some(Protocol::Tcp | Protocol::Udp));
        let range = |dice: &mut Dice| {
            let (a, b) = (*dice.pick(&PORTS), *dice.pick(&PORTS));
            if dice.percent(50) { (a, a) } else { (a.min(b), a.max(b)) }
        };
        let ranges = if with_ports { dice.below(3) } else { 0 };
        let outer = dice.pick(inside);
        Self {
            prefix: nets::within(outer, dice),
            protocol,
            ports: (0..ranges).map(|_| range(dice)).collect(),
        }
    }

    fn json(&self) -> Value {
        let ports: Vec<_> = self.ports.iter().map(|(from, to)| format!("{from}-{to}")).collect();
        let mut net = json!({ "prefixes": [self.prefix], "ports": ports });
        if let Some(protocol) = self.protocol {
            net["protocol"] = json!(protocol);
        }
        net
    }
}
