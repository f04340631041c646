//! Flow records of real conversations: each one told once, with its person and place, to its own
//! organisation and to nobody else.
#![expect(clippy::unwrap_used, reason = "a step that fails ends its test where it stands")]

use std::net::SocketAddr;

use partywall_proto::admin::StoredFlow;
use partywall_proto::flows::FlowRecord;
use partywall_proto::nets::Protocol;
use partywall_proto::rules::Opener;
use partywall_tests::lab::{FLOW_FILES, wait_for};
use partywall_tests::stage::{PATIENCE, Stage, Stock};
use partywall_tests::traffic::{Conversation, Echo, PORTS, Plan, account, drive, refused};

/// Of each family, at one desk.
const CONVERSATIONS: u32 = 1600;
/// Of each family, from each side that is refused.
const REFUSED: u16 = 50;
/// Nothing allows it, in either direction.
const FORBIDDEN: u16 = 9999;

const SERVERS: [&str; 2] = ["10.1.0.10", "fd10:1::10"];

#[test]
fn every_conversation_is_told_once_with_person_and_place_and_to_its_organisation_alone() {
    let mut stage = stage();
    let servers = SERVERS.map(|address| address.parse().unwrap());
    let _council = Echo::start(stage.host("council-intranet"), &servers).unwrap();
    let _nhs = Echo::start(stage.host("nhs-records"), &servers).unwrap();
    stage.sign_in("desk-1", "alice@council", "council");
    stage.sign_in("desk-2", "nina@nhs", "nhs");
    let council = conversations(&stage, "desk-1", CONVERSATIONS);
    let nhs = conversations(&stage, "desk-2", 80);
    // What is still open ends with the session.
    stage.sign_out("desk-1");
    stage.sign_out("desk-2");

    let told = told(&stage, "council", "desk-1", &council);
    for stored in &told {
        assert_eq!(stored.user.as_ref().map(ToString::to_string).unwrap(), "alice@council");
        assert_eq!(stored.building.as_ref().unwrap().as_str(), "old-town-hall");
        assert_eq!(stored.segment.as_str(), "council");
        assert_eq!(stored.reporter.to_string(), "gateway/gw-council");
        assert_eq!(stored.flow.policy, Some(1));
        assert!(stored.flow.session.is_some());
        let rule = stored.flow.rule.as_ref().unwrap().as_str();
        assert!(rule.contains("staff-services"), "{rule}");
    }
    let theirs = self::told(&stage, "nhs", "desk-2", &nhs);
    assert!(theirs.iter().all(|it| it.user.as_ref().unwrap().to_string() == "nina@nhs"));
    assert!(theirs.iter().all(|it| it.segment.as_str() == "nhs"));

    // Each organisation sees its own, and facilities see none.
    for organisation in ["council", "nhs"] {
        let all = stage.flows(organisation, &[]);
        assert!(all.iter().all(|it| it.segment.as_str() == organisation), "{organisation}");
    }
    for args in [&["flows", "--json"][..], &["flows", "status"]] {
        let refused = stage.ctl("facilities", args, "").unwrap();
        assert!(!refused.success() && refused.stdout.is_empty(), "{args:?}: {refused:?}");
    }

    // The file has the same records, and the NHS, which wants none, has no file.
    let file = format!("{FLOW_FILES}/council/archive.jsonl");
    let status = stage.flow_status("council");
    let archived = || -> Vec<StoredFlow> {
        let text = stage.host("controller").read(&file).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    wait_for("the file has every record", PATIENCE, || archived().len() as u64 == status.received)
        .unwrap();
    let sort = |mut flows: Vec<StoredFlow>| {
        flows.sort_by_key(|it| (it.flow.id, it.flow.event));
        flows
    };
    assert_eq!(sort(archived()), sort(stage.flows("council", &[])));
    assert_eq!(stage.host("controller").ok(&["ls", FLOW_FILES]).unwrap().trim(), "council");
}

#[test]
fn every_refused_conversation_is_told_once_and_says_why() {
    let mut stage = stage();
    // A client without our agent is refused by the gateway; our agent does not let its packets out.
    let stock = Stock::register(&mut stage, "desk-3", "tablet", "carol@council");
    stage.stock_sign_in("tablet", "carol@council", "council");
    stock.up(&stage, &[("AllowedIPs", "AllowedIPs = 10.0.0.0/8, fd10::/16")]);
    stage.sign_in("desk-1", "alice@council", "council");
    stage.sign_in("desk-2", "nina@nhs", "nhs");
    let by = |told: &[StoredFlow], reporter: &str| {
        assert!(told.iter().all(|it| it.reporter.to_string() == reporter), "{told:#?}");
    };

    let tried = SERVERS.map(|server| tries(&stage, "desk-3", server));
    let told = refusals(&stage, "council", "tablet", 4 * usize::from(REFUSED));
    for stored in &told {
        assert_eq!(stored.user.as_ref().unwrap().to_string(), "carol@council");
        assert_eq!(stored.flow.opener, Opener::Device);
        assert_eq!(stored.flow.network_port, FORBIDDEN);
    }
    let names = |told: &[StoredFlow], device: bool| {
        let mut names: Vec<_> = told
            .iter()
            .map(|it| {
                let port = if device { it.flow.device_port } else { it.flow.network_port };
                (it.flow.protocol, it.flow.network_address.is_ipv4(), port)
            })
            .collect();
        names.sort_unstable();
        names
    };
    let mut expected = tried.concat();
    expected.sort_unstable();
    assert_eq!(names(&told, true), expected);

    by(&told, "gateway/gw-council");

    // Our own agent refuses it by itself, says so, and the gateway hears nothing of it.
    let tried = SERVERS.map(|server| tries(&stage, "desk-1", server));
    let told = refusals(&stage, "council", "desk-1", 4 * usize::from(REFUSED));
    for stored in &told {
        assert_eq!(stored.user.as_ref().unwrap().to_string(), "alice@council");
        assert_eq!(stored.building.as_ref().unwrap().as_str(), "old-town-hall");
        assert_eq!(stored.flow.opener, Opener::Device);
        assert_eq!(stored.flow.network_port, FORBIDDEN);
    }
    by(&told, "device/desk-1");
    let mut expected = tried.concat();
    expected.sort_unstable();
    assert_eq!(names(&told, true), expected);
    assert_eq!(stage.flow_status("council").lost_at_devices, 0);

    // And what the network opens towards a desk, where the pool is routed.
    let own = [true, false].map(|four| stage.overlay_address("desk-2", four).to_string());
    let tried = own.each_ref().map(|address| tries(&stage, "nhs-records", address));
    let told = refusals(&stage, "nhs", "desk-2", 4 * usize::from(REFUSED));
    for stored in &told {
        assert_eq!(stored.flow.opener, Opener::Network);
        assert_eq!(stored.flow.device_port, FORBIDDEN);
        assert_eq!(stored.user.as_ref().unwrap().to_string(), "nina@nhs");
        assert_eq!(stored.building.as_ref().unwrap().as_str(), "old-town-hall");
    }
    by(&told, "gateway/gw-nhs");
    let mut expected = tried.concat();
    expected.sort_unstable();
    assert_eq!(names(&told, false), expected);
}

/// The old town hall, where the servers' further ports are allowed and the council wants a file.
fn stage() -> Stage {
    Stage::up_with(|organisation, yaml| {
        let ports = format!("ports: [7, {}-{}]", PORTS[0], PORTS[PORTS.len() - 1]);
        let settings = match organisation {
            "council" => {
                "flow_settings:\n  - { organisation: council, sinks: [{ to: file, name: archive }] }\n"
            }
            _ => "",
        };
        format!("{}{settings}", yaml.replace("ports: [7]", &ports))
    })
}

/// Has `count` conversations over IPv4 and as many over IPv6.
fn conversations(stage: &Stage, desk: &str, count: u32) -> Vec<Conversation> {
    let had = [true, false].map(|four| {
        let from = stage.overlay_address(desk, four);
        let to = SERVERS[usize::from(!four)].parse().unwrap();
        drive(stage.host(desk), Plan { from, to, first: 0, count, per_s: None })
            .unwrap_or_else(|error| panic!("{error:#}"))
    });
    had.concat()
}

/// The records of a desk's conversations, once all are there; fails unless they match one for one.
fn told(
    stage: &Stage,
    organisation: &str,
    desk: &str,
    conversations: &[Conversation],
) -> Vec<StoredFlow> {
    let all = 2 * conversations.len() as u64;
    let _ = wait_for("the records are there", PATIENCE, || {
        let status = stage.flow_status(organisation);
        status.stored >= all && status.stored == status.received
    });
    let status = stage.flow_status(organisation);
    assert_eq!((status.dropped, status.lost_at_gateways), (0, 0), "{status:?}");
    let ours = |stored: &StoredFlow| PORTS.contains(&stored.flow.network_port);
    let mut told = stage.flows(organisation, &["--device", desk]);
    told.retain(ours);
    let account = account(conversations, &told);
    assert_eq!(account.matched, conversations.len(), "{account:#?} {status:?}");
    assert_eq!(account.strangers, []);
    told
}

/// Tries what is refused. What was tried: protocol, whether IPv4, and the port that it came from.
fn tries(stage: &Stage, host: &str, to: &str) -> Vec<(Protocol, bool, u16)> {
    let to = SocketAddr::new(to.parse().unwrap(), FORBIDDEN);
    let ports = refused(stage.host(host), to, REFUSED).unwrap_or_else(|error| panic!("{error:#}"));
    let of = |protocol| ports.clone().map(move |port| (protocol, to.is_ipv4(), port));
    of(Protocol::Tcp).chain(of(Protocol::Udp)).collect()
}

/// The refusals at [`FORBIDDEN`] of a device's flows, once `count` are there; fails unless it stays at that
/// and each says why.
fn refusals(stage: &Stage, organisation: &str, device: &str, count: usize) -> Vec<StoredFlow> {
    let asked = || {
        let mut told = stage.flows(organisation, &["--device", device, "--event", "refused"]);
        told.retain(|it| [it.flow.device_port, it.flow.network_port].contains(&FORBIDDEN));
        told
    };
    let _ = wait_for("the refusals are there", PATIENCE, || asked().len() >= count);
    let told = asked();
    assert_eq!(told.len(), count, "{:?}", stage.flow_status(organisation));
    for FlowRecord { reason, rule, policy, to_network, to_device, .. } in
        told.iter().map(|it| &it.flow)
    {
        assert_eq!((reason.as_deref(), rule), (Some("no-rule"), &None));
        assert_eq!(*policy, Some(1));
        assert_eq!((*to_network, *to_device), Default::default());
    }
    told
}
