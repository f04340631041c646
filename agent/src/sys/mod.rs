//! The system calls that no safe crate offers: the only files of the workspace that hold `unsafe`.
//!
//! What leaves this module is safe to call with any argument, and owns its file descriptor.

#[cfg(test)]
pub(crate) mod netns;
pub(crate) mod steering;
pub(crate) mod tun;
pub(crate) mod udp;
