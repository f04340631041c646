//! Which policy version an overlay config was compiled from, and the one that is on trial beside it.
//!
//! Neither changes a verdict: rules decide, and these two say where they come from and what another
//! version would have decided. An agent that knows neither enforces the same.

use serde::{Deserialize, Serialize};

use crate::rules::Rule;

/// The policy version that the rules were compiled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStamp {
    /// The version, for flow records and `why`.
    pub version: u64,
}

/// A policy version on trial: asked about each flow, and obeyed in nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The version on trial.
    pub version: u64,
    /// What it would enforce; its classes are numbered as those of the rules in force.
    pub rules: Vec<Rule>,
}
