//! Partywall's controller: who may be where, and the overlay configs that follow from it.

pub mod app;
pub mod ctl;
pub mod daemon;
pub mod domain;
pub mod flows;
pub mod http;
pub mod pki;
pub mod store;
