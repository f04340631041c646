//! Rules compiled for lookup.

use partywall_proto::rules::Rule;

/// A list of rules, ready for lookup.
#[derive(Debug, Default)]
pub struct RuleTable {}

impl RuleTable {
    /// Compiles `rules`; their order decides, the first match wins.
    pub fn compile(_rules: &[Rule]) -> Self {
        Self::default()
    }
}
