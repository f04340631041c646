//! The packet filter: which packets pass, judged the same way at both ends of a tunnel.
//!
//! Addresses are checked before: a packet that comes here has a source that its sender may use.
//! Nothing passes without a rule that allows its flow *now*: a flow remembers the epoch of the rule
//! set that allowed it, and is judged anew, as if its originator opened it now, when that is another.

mod drop_reason;
mod engine;
mod flow_event;
mod flow_index;
mod flow_key;
mod flow_log;
mod flow_table;
mod fragments;
mod in_force;
mod rule_table;
mod tcp_state;
mod told;

pub use drop_reason::DropReason;
pub use engine::{Filter, PeerView, Verdict};
pub use flow_event::{FlowEnd, FlowEvent, Happening, Judgement, Party};
pub use flow_key::{Direction, FlowKey, PEERS_MAX, Side};
pub use flow_table::{Flow, FlowSlot, FlowState, FlowTable, FlowTableFull};
pub use fragments::{FragmentKey, FragmentTable};
pub use rule_table::{Decision, Opening, RuleTable};
pub use tcp_state::{OutOfPlace, TcpState};
