//! The statement of worst-case memory.

use std::net::SocketAddr;

use super::super::*;
use super::lab::*;
use crate::testing::*;

#[test]
fn a_gateway_whose_limits_are_used_up_takes_no_more_than_it_says() {
    let limits = Limits {
        flows: 1000,
        flows_per_peer: 1000,
        fragments: 64,
        waiting_bytes: 100_000,
        handshakes_per_s: u64::MAX,
        ..Limits::for_role(Role::Gateway)
    };
    let peers = 40_u8;
    let now = start();
    let desk = |number: u8| {
        let agent = format!("a-device-with-a-rather-long-name-{number}");
        let addresses = format!(r#""10.64.1.{number}","fd64::{number:x}""#);
        (agent.clone(), device_peer(&agent, number + 10, 9, &addresses))
    };
    let config = gateway_config(&(0..peers).map(|number| desk(number).1).collect::<Vec<_>>());
    let update = replace(config, RULES);
    // What devices say and what is sent to them, made before anything is counted.
    let calls: Vec<_> = (0..peers).map(|number| call_of(number + 10, now)).collect();
    let settings = |limits| Settings {
        shard: 0,
        shards: 1,
        role: Role::Gateway,
        private_key: PrivateKey::from([2; 32]),
        wall_clock: wall_clock(now),
        limits,
    };
    let towards =
        |number: u8, port| packet("10.1.7.3", &format!("10.64.1.{number}"), &tcp(port, 22, SYN));
    let opening: Vec<_> = (0..peers)
        .flat_map(|number| (0..40).map(move |port| towards(number, 50_000 + port)))
        .collect();
    let mut out = Outbox::new();
    let taken = allocation_counter::measure(|| {
        let mut gateway = Shard::new(settings(limits), now);
        gateway.apply(&update, now, &mut out);
        for (number, call) in calls.iter().enumerate() {
            out.clear();
            let from = SocketAddr::from(([192, 0, 2, number as u8], 40_000));
            gateway.handle_datagram(from, call, now, &mut out);
        }
        for bytes in &opening {
            out.clear();
            gateway.handle_packet(bytes, now, &mut out);
        }
        assert_eq!(gateway.filter.flows(), limits.flows);
    });
    let stated = Shard::worst_case_bytes(&limits, peers.into()) as u64;
    assert!(taken.bytes_max <= stated, "{} taken, {stated} stated", taken.bytes_max);
    assert!(taken.bytes_max > stated / 2, "{} taken, {stated} stated", taken.bytes_max);
}

#[test]
fn ten_thousand_peers_and_full_tables_fit_a_gateway() {
    let stated = Shard::worst_case_bytes(&Limits::for_role(Role::Gateway), 10_000);
    assert!(stated < 185_000_000, "{stated}");
    let tables = Shard::worst_case_bytes(&Limits::for_role(Role::Gateway), 0);
    assert!(tables < 48_000_000, "{tables}");
}

/// A first call of the device with this key.
fn call_of(key: u8, now: Instant) -> Vec<u8> {
    let mut device = shard(Role::Device, key, now);
    let mut out = Outbox::new();
    device.apply(&replace(device_config("council", "s1", 9), RULES), now, &mut out);
    out.datagrams().next().unwrap().bytes.to_vec()
}
