//! Tests of the prover: sentences that a person reads, and a universe small enough to try everything.

mod brute_force;
mod sentences;
