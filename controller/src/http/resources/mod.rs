//! The kinds of things that an admin sets up: the same four verbs for each.

mod kinds;
mod verbs;

pub(super) use kinds::{
    buildings, devices, flow_settings, gateways, groups, organisations, policies, segments, users,
};
