//! The rules in force, and since when: what a flow that was judged earlier was judged by.
//!
//! An epoch names a moment from which on flows are judged anew. It moves on with new rules and with new
//! classes of a peer; only the former make what a flow remembers of its rule void.

use std::sync::Arc;

use partywall_proto::rules::{Action, ClassId};

use super::DropReason;
use super::flow_event::Judgement;
use super::flow_table::Flow;
use super::rule_table::{Decision, Opening, RuleTable};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RulesInForce {
    table: Arc<RuleTable>,
    epoch: u32,
    /// The epoch in which the rules came: flows judged before name rules of another table.
    since: u32,
}

impl RulesInForce {
    /// Other rules.
    pub(super) fn replace(&mut self, table: Arc<RuleTable>) {
        self.table = table;
        self.judge_anew();
        self.since = self.epoch;
    }

    /// The next epoch.
    pub(super) fn judge_anew(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn table(&self) -> &RuleTable {
        &self.table
    }

    /// The rule that allows a flow.
    ///
    /// # Errors
    /// [`DropReason::Denied`] or [`DropReason::NoRule`], and the rule if there is one.
    pub(super) fn decide(
        &self,
        opening: &Opening,
        classes: &[ClassId],
    ) -> Result<u32, (DropReason, Option<u32>)> {
        match self.table.decide(opening, classes) {
            Some(Decision { rule, action: Action::Allow }) => Ok(rule),
            Some(Decision { rule, action: Action::Deny }) => Err((DropReason::Denied, Some(rule))),
            None => Err((DropReason::NoRule, None)),
        }
    }

    /// What is told of a decision on a flow, with what the rules on trial say to it, if there are any.
    pub(super) fn judgement(
        &self,
        rule: Option<u32>,
        opening: &Opening,
        classes: &[ClassId],
    ) -> Judgement {
        let trial = self.table.trial().map(|(_, rules)| rules.decide(opening, classes));
        Judgement { rules: Arc::clone(&self.table), rule, trial }
    }

    /// What is told of the decision to end a flow; those on trial are asked at its beginning.
    pub(super) fn refusal(&self, rule: Option<u32>) -> Judgement {
        Judgement { rules: Arc::clone(&self.table), rule, trial: None }
    }

    /// The judgement that allowed a flow, if these rules made it.
    pub(super) fn judged(&self, flow: &Flow) -> Option<Judgement> {
        // Epochs wrap, so ages are compared.
        let age = self.epoch.wrapping_sub(flow.epoch);
        let theirs = age <= self.epoch.wrapping_sub(self.since);
        theirs.then(|| self.refusal(Some(flow.rule)))
    }
}
