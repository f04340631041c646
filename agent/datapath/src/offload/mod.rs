//! Many packets of one flow as one: what the kernel's offloads are fed with, and fed from.
//!
//! From the TUN the kernel gives super-packets, up to 64 KiB of one flow under one header, which a
//! [`Burst`] takes apart; towards the TUN a [`Coalescer`] puts packets together again. Neither may
//! change what a receiver sees: taking apart what was put together gives the same bytes, order within
//! a flow is kept, and a packet whose checksum is wrong is never merged into one that is right.

mod burst;
mod coalescer;
mod layout;
mod vnet;

pub use burst::{Burst, BurstError};
pub use coalescer::{Batch, Coalescer, Gathered, Merging};
pub use vnet::VNET_HEADER_BYTES;

#[cfg(test)]
mod tests;
