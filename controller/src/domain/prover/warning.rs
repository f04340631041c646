//! What is allowed but surely not meant: a rule of the policy that never decides anything.

use std::fmt;

use partywall_proto::ids::{RuleId, SegmentId};

use crate::domain::policy::Opening;

/// A rule that earlier ones leave nothing to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The segment.
    pub segment: SegmentId,
    /// The rule.
    pub rule: RuleId,
    /// Rules that decide in its stead, in order; the first few.
    pub earlier: Vec<RuleId>,
    /// In what way.
    pub kind: WarningKind,
}

/// In what way a rule never decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WarningKind {
    /// An earlier rule says the opposite.
    Shadowed {
        /// A packet about which it does.
        packet: Opening,
    },
    /// Earlier rules say the same already.
    Redundant,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, rule, earlier, kind } = self;
        let earlier: Vec<_> = earlier.iter().map(RuleId::as_str).collect();
        let earlier = earlier.join(", ");
        match kind {
            WarningKind::Shadowed { packet } => write!(
                f,
                "in segment {segment}, rule {rule} never takes effect: earlier rules decide on all \
                 that it names, and {earlier} says the opposite, as on {packet}; move it up, or \
                 take it out"
            ),
            WarningKind::Redundant => write!(
                f,
                "in segment {segment}, rule {rule} changes nothing: earlier rules say the same \
                 already ({earlier}); take it out"
            ),
        }
    }
}
