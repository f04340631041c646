//! The packet filter: which packets pass, judged the same way at both ends of a tunnel.

mod drop_reason;
mod rule_table;

pub use drop_reason::DropReason;
pub use rule_table::RuleTable;
