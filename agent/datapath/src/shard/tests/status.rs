//! Tests of what a shard tells about itself.

use super::super::*;
use super::lab::*;
use partywall_proto::nets::Protocol;
use partywall_proto::rules::Opener;

fn query(address: &str, port: u16) -> Query {
    let address = address.parse().unwrap();
    Query { opener: Opener::Device, peer: None, address, protocol: Protocol::Tcp, port }
}

#[test]
fn explain_names_the_rule_that_decides_and_touches_nothing() {
    let lab = Lab::connected();
    let explain = |address, port| {
        let explanation = lab.device.explain(&query(address, port), lab.now);
        (explanation.drop, explanation.rule.map(|rule| rule.to_string()))
    };
    assert_eq!(explain(SERVER, 443), (None, Some("web".to_owned())));
    assert_eq!(explain("10.1.0.99", 443), (Some(DropReason::Denied), Some("no-admin".to_owned())));
    assert_eq!(explain(SERVER, 80), (Some(DropReason::NoRule), None));
    assert_eq!(explain("192.0.2.9", 443), (Some(DropReason::NoRoute), None));
    assert_eq!(lab.device.filter.flows(), 0);
}

#[test]
fn both_ends_explain_alike() {
    let lab = Lab::connected();
    for (address, port) in [(SERVER, 443), (SERVER, 80), ("10.1.0.99", 443), (SERVER_V6, 443)] {
        let asked = query(address, port);
        let at_device = lab.device.explain(&asked, lab.now);
        let peer = Some("device/desk-1".parse().unwrap());
        let at_gateway = lab.gateway.explain(&Query { peer, ..asked }, lab.now);
        assert_eq!((at_device.drop, at_device.rule), (at_gateway.drop, at_gateway.rule));
        assert!(at_device.connected && at_gateway.connected);
    }
}
