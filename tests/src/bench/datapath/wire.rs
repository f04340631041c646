//! A device's shard and a gateway's, connected in memory through their public interface.
//!
//! The gate for handshakes reads the clock itself, so what is told here is the time that it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Result, ensure};
use partywall_datapath::RuleTable;
use partywall_datapath::shard::{
    Limits, Outbox, PrivateKey, Role, Settings, Shard, Update, WallClock,
};
use partywall_proto::overlay::OverlayConfig;

use super::super::config::{self, GATEWAY};
use super::packets::Ends;

/// Where the gateway's UDP socket is.
pub(super) const GATEWAY_AT: ([u8; 4], u16) = ([198, 51, 100, 21], 51_820);
const DEVICE: u32 = 1;

/// Both ends, and a conversation that goes from the device to a server behind the gateway.
pub(super) struct Wire {
    pub(super) device: Shard,
    pub(super) gateway: Shard,
    pub(super) ends: Ends,
}

impl Wire {
    /// Both ends, with keys agreed.
    pub(super) fn connected() -> Result<Self> {
        let now = Instant::now();
        let mut device = shard(Role::Device, DEVICE, now);
        let mut gateway = shard(Role::Gateway, GATEWAY, now);
        let (mut from_device, mut from_gateway) = (Outbox::new(), Outbox::new());
        gateway.apply(&replace(config::gateway(1, config::allow_all()?)?), now, &mut from_gateway);
        from_gateway.clear();
        device.apply(
            &replace(config::device(DEVICE, config::allow_all()?)?),
            now,
            &mut from_device,
        );
        // Call, answer, confirmation.
        for _ in 0..2 {
            carry(&from_device, device_at(DEVICE), &mut gateway, now, &mut from_gateway);
            from_device.clear();
            carry(&from_gateway, GATEWAY_AT.into(), &mut device, now, &mut from_device);
            from_gateway.clear();
        }
        for shard in [&device, &gateway] {
            let status = shard.peer_status(now);
            let connected = status.iter().all(|peer| peer.handshake_age.is_some());
            ensure!(status.len() == 1 && connected, "the shards do not agree on keys: {status:?}");
        }
        let ends =
            Ends { from: (config::address(DEVICE), 40_000), to: ([10, 1, 0, 10].into(), 5201) };
        Ok(Self { device, gateway, ends })
    }
}

/// Carries what one end has to say to the other.
fn carry(said: &Outbox, from: SocketAddr, to: &mut Shard, now: Instant, out: &mut Outbox) {
    for datagram in said.datagrams() {
        let mut bytes = datagram.bytes.to_vec();
        to.handle_datagrams(from, &mut bytes, datagram.bytes.len(), now, out, |_| {});
    }
}

/// A shard that is alone at its work, with an agent's own bounds, but for calls: they are let in as fast
/// as they come.
pub(super) fn shard(role: Role, number: u32, now: Instant) -> Shard {
    let limits = Limits { handshakes_per_s: u64::from(u32::MAX), ..Limits::for_role(role) };
    let private_key = PrivateKey::from(config::private_key(number));
    // The true one, or a device that is made anew would seem to repeat its first call.
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let wall_clock = WallClock { read_at: now, since_epoch };
    Shard::new(Settings { shard: 0, shards: 1, role, private_key, wall_clock, limits }, now)
}

/// A config, to be enforced.
pub(super) fn replace(config: OverlayConfig) -> Update {
    let rules = Arc::new(RuleTable::compile(&config.rules));
    Update::Replace { config: Arc::new(config), rules }
}

/// Where a device's datagrams come from: each has an address of its own.
pub(super) fn device_at(number: u32) -> SocketAddr {
    let [_, a, b, c] = number.to_be_bytes();
    SocketAddr::from(([198, 18_u8.wrapping_add(a), b, c], 40_000))
}
