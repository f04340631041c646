//! Ways in which a compiler could be wrong, done to configs that were right.

use partywall_proto::nets::PortRange;
use partywall_proto::overlay::OverlayConfig;
use partywall_proto::rules::{Action, ClassId, Match, Opener, Rule};

use crate::dice::Dice;
use crate::nets::of_length;
use crate::world::Segment;

/// A fault in one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its prefix is one bit shorter.
    PrefixWidened,
    /// Its prefix is everything.
    PrefixLost,
    /// It concerns everyone.
    ClassDropped,
    /// It says the opposite.
    ActionFlipped,
    /// It names one port more.
    PortAdded,
    /// It holds for every protocol and port.
    ProtocolDropped,
    /// It is taken for one of what the other side opens.
    OpenerSwapped,
    /// It is left out.
    RuleLost,
    /// It comes after all others.
    MovedLast,
}

/// Who is told the wrong thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The gateway.
    Gateway,
    /// One device.
    Device,
    /// All agents of the segment, so that its ends agree.
    Everywhere,
}

impl Fault {
    pub(crate) const ALL: [Self; 9] = [
        Self::PrefixWidened,
        Self::PrefixLost,
        Self::ClassDropped,
        Self::ActionFlipped,
        Self::PortAdded,
        Self::ProtocolDropped,
        Self::OpenerSwapped,
        Self::RuleLost,
        Self::MovedLast,
    ];

    /// Puts the fault into a random rule; false where it makes no difference to the text.
    pub(crate) fn put(self, place: Place, segment: &mut Segment, dice: &mut Dice) -> bool {
        match place {
            Place::Gateway => self.put_into(&mut segment.gateway, dice),
            Place::Device => {
                let device = dice.below(segment.devices.len());
                self.put_into(&mut segment.devices[device], dice)
            }
            Place::Everywhere => {
                let changed = self.put_into(&mut segment.gateway, dice);
                for person in 0..segment.devices.len() {
                    let classes = segment.classes(person).to_vec();
                    segment.devices[person].rules = resolved(&segment.gateway.rules, &classes);
                }
                changed
            }
        }
    }

    fn put_into(self, config: &mut OverlayConfig, dice: &mut Dice) -> bool {
        let rules = &mut config.rules;
        if rules.is_empty() {
            return false;
        }
        let at = dice.below(rules.len());
        let before = rules.clone();
        match self {
            Self::RuleLost => {
                rules.remove(at);
            }
            Self::MovedLast => rules[at..].rotate_left(1),
            Self::ActionFlipped => {
                rules[at].action = match rules[at].action {
                    Action::Allow => Action::Deny,
                    Action::Deny => Action::Allow,
                };
            }
            Self::PrefixWidened
            | Self::PrefixLost
            | Self::ClassDropped
            | Self::PortAdded
            | Self::ProtocolDropped
            | Self::OpenerSwapped => rules[at].matches = self.other_match(&before[at].matches),
        }
        *rules != before
    }

    fn other_match(self, it: &Match) -> Match {
        let (mut opener, mut class, mut prefix) = (it.opener(), it.class(), it.prefix());
        let (mut protocol, mut ports) = (it.protocol(), it.ports().to_vec());
        match self {
            Self::PrefixWidened => prefix = of_length(&prefix, prefix.length().saturating_sub(1)),
            Self::PrefixLost => prefix = of_length(&prefix, 0),
            Self::ClassDropped => class = None,
            Self::PortAdded => {
                if let Some(next) = ports.last().and_then(|range| range.last().checked_add(1)) {
                    ports.push(PortRange::single(next));
                }
            }
            Self::ProtocolDropped => (protocol, ports) = (None, Vec::new()),
            Self::OpenerSwapped => {
                opener = match opener {
                    Opener::Device => Opener::Network,
                    Opener::Network => Opener::Device,
                };
            }
            Self::ActionFlipped | Self::RuleLost | Self::MovedLast => {}
        }
        Match::new(opener, class, prefix, protocol, ports).unwrap()
    }
}

/// The rules of a device of these classes.
fn resolved(rules: &[Rule], classes: &[ClassId]) -> Vec<Rule> {
    let concerned =
        rules.iter().filter(|it| it.matches.class().is_none_or(|class| classes.contains(&class)));
    concerned
        .map(|rule| {
            let it = &rule.matches;
            let ports = it.ports().to_vec();
            let matches = Match::new(it.opener(), None, it.prefix(), it.protocol(), ports).unwrap();
            Rule { id: rule.id.clone(), action: rule.action, matches }
        })
        .collect()
}
