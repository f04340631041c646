//! Tests of whole shards: a device and a gateway wired back to back in memory.

mod bursts;
mod drops;
mod floods;
mod flows;
mod lab;
mod memory;
mod promises;
mod refusals;
mod shards;
mod status;
mod timers;
mod trains;
