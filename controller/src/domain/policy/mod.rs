//! The policy language: what it means, what is wrong with a policy, and what it decides.
//!
//! What is unknown is never allowed. The checks refuse it before it is kept; should it come past them,
//! an allowing rule that cannot be understood is left out, and a denying one ends the list.

mod checks;
mod compiled;
mod decide;
mod facts;
mod hours;
mod subject;
pub mod text;
mod trial;

pub use compiled::Compiled;
pub use decide::{Decision, Opening, decide, would_allow};
pub use facts::Facts;
pub use hours::LocalTime;
pub use trial::{Trial, trials};
