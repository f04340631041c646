//! Promises 1 to 3 on real packets: two organisations on the same addresses, one LAN, and every desk in
//! one of them or in none.
#![expect(clippy::unwrap_used, reason = "a step that fails ends its test where it stands")]

use std::time::Duration;

use partywall_tests::lab::{Host, Process, wait_for, wire};
use partywall_tests::stage::{INTRANET, Line, PATIENCE, Stage, url};
use rustix::process::Signal;

const TUN: &str = "partywall0";

#[test]
fn each_desk_reaches_its_own_segment_and_nothing_of_the_other() {
    let mut stage = Stage::up();
    for url in INTRANET {
        assert_eq!(stage.page("desk-1", url), None, "{url} answers before anybody signed in");
    }
    let lan = stage.lab().capture("lan").unwrap();
    stage.sign_in("desk-1", "alice@council", "council");
    stage.sign_in("desk-2", "nina@nhs", "nhs");
    for url in INTRANET {
        assert_eq!(stage.page("desk-1", url).as_deref(), Some("Council intranet"), "{url}");
        assert_eq!(stage.page("desk-2", url).as_deref(), Some("NHS records"), "{url}");
    }
    for desk in ["desk-1", "desk-2"] {
        for to in ["TCP:10.1.0.10:7", "TCP6:[fd10:1::10]:7"] {
            Line::open(stage.host(desk), to).unwrap();
        }
        for to in ["UDP:10.1.0.10:7", "UDP6:[fd10:1::10]:7"] {
            let echo = ["socat", "-t2", "-T2", "-", to];
            wait_for(&format!("{desk} hears an echo from {to}"), PATIENCE, || {
                stage.host(desk).run_with_input(&echo, "hello").unwrap().stdout == "hello"
            })
            .unwrap();
        }
    }
    // Names: each by its own segment's resolver, and none by the other's.
    assert!(resolves(stage.host("desk-1"), "intranet.council.test"));
    assert!(resolves(stage.host("desk-2"), "records.nhs.test"));
    assert!(
        !resolves(stage.host("desk-1"), "records.nhs.test"),
        "the council resolves the NHS's names"
    );
    assert!(
        !resolves(stage.host("desk-2"), "intranet.council.test"),
        "the NHS resolves the council's"
    );

    // Across: from the council's desk to the NHS's, by its overlay addresses.
    let (council, nhs) = (stage.overlay("desk-1"), stage.overlay("desk-2"));
    let inside = stage.lab().capture("nhs").unwrap();
    for address in &nhs {
        assert!(!pings_through("desk-1", &stage, address), "desk-1 reaches {address} of the NHS");
        let page = ["curl", "-sfg", "--max-time", "1", "--interface", TUN, &url(address)];
        assert!(!stage.host("desk-1").run(&page).unwrap().success());
    }
    assert!(stage.drops("desk-1")["no-rule"] > 0, "they were not dropped by the rules");
    let seen = wire::judge(&inside.stop().unwrap(), &wire::Allowed::default());
    assert!(seen.violations.is_empty(), "desk-1 of the council caused this at the NHS: {seen}");
    for address in &council {
        assert!(
            !pings_through("desk-2", &stage, address),
            "desk-2 reaches {address} of the council"
        );
    }
    let findings = wire::judge(&lan.stop().unwrap(), &stage.allowed());
    assert!(findings.violations.is_empty(), "{findings}");
    assert!(findings.wireguard > 50 && findings.tls > 0, "{findings}");
}

#[test]
fn devices_of_one_segment_do_not_reach_each_other() {
    let mut stage = Stage::up();
    stage.sign_in("desk-1", "alice@council", "council");
    stage.sign_in("desk-2", "carol@council", "council");
    let _server = server(stage.host("desk-2"));
    for address in stage.overlay("desk-2") {
        assert!(!stage.pings("desk-1", &address), "desk-1 pings {address}");
        assert!(!opens(stage.host("desk-1"), &address), "desk-1 opens a port of {address}");
    }
    assert!(stage.page("desk-2", INTRANET[0]).is_some(), "desk-2 has no session");
}

#[test]
fn names_go_back_to_what_they_were_after_any_end() {
    let mut stage = Stage::up();
    let before = stage.resolver("desk-1");
    assert!(!resolves(stage.host("desk-1"), "intranet.council.test"));

    stage.sign_in("desk-1", "alice@council", "council");
    assert!(resolves(stage.host("desk-1"), "intranet.council.test"));
    stage.sign_out("desk-1");
    assert_eq!(stage.resolver("desk-1"), before, "after signing out");

    stage.sign_in("desk-1", "alice@council", "council");
    assert_ne!(stage.resolver("desk-1"), before);
    stage.end_agent("desk-1", Signal::TERM);
    assert_eq!(stage.resolver("desk-1"), before, "after SIGTERM");
    assert!(resolves(stage.host("desk-1"), "controller.hall.test"));
    stage.start_agent("desk-1");
    wait_for("the session is back", PATIENCE, || {
        resolves(stage.host("desk-1"), "intranet.council.test")
    })
    .unwrap();

    // A crash mends nothing by itself; the next start does, before it goes on with the session.
    stage.end_agent("desk-1", Signal::KILL);
    stage.start_agent("desk-1");
    wait_for("the session is back", PATIENCE, || {
        resolves(stage.host("desk-1"), "intranet.council.test")
    })
    .unwrap();
    stage.sign_out("desk-1");
    assert_eq!(stage.resolver("desk-1"), before, "after a crash, a restart and signing out");
}

#[test]
fn nobody_on_the_lan_opens_anything_towards_a_desk_with_a_session() {
    let mut stage = Stage::up();
    let _server = server(stage.host("desk-1"));
    let lan = ["192.168.77.11", "fd77:1::11"];
    let opened = |stage: &Stage| lan.map(|address| opens(stage.host("desk-3"), address));
    // The desk itself offers the port: without a session the neighbour gets through.
    assert_eq!(opened(&stage), [true, true], "before signing in");
    stage.sign_in("desk-1", "alice@council", "council");
    assert_eq!(opened(&stage), [false, false], "during the session");
    for address in lan.into_iter().map(str::to_owned).chain(stage.overlay("desk-1")) {
        assert!(!stage.pings("desk-3", &address), "desk-3 pings {address}");
    }
    // A neighbour who routes the overlay's addresses to the desk gets no further.
    stage
        .host("desk-3")
        .ok(&["ip", "route", "add", "100.64.0.0/10", "via", "192.168.77.11"])
        .unwrap();
    for address in stage.overlay("desk-1").into_iter().filter(|address| !address.contains(':')) {
        assert!(!opens(stage.host("desk-3"), &address), "desk-3 opens a port of {address}");
    }
    assert!(stage.page("desk-1", INTRANET[0]).is_some(), "the desk itself is cut off");
    stage.sign_out("desk-1");
    assert_eq!(opened(&stage), [true, true], "after signing out");
}

#[test]
fn the_segments_traffic_never_leaves_by_the_lan_even_after_a_crash() {
    let mut stage = Stage::up();
    stage.sign_in("desk-1", "alice@council", "council");
    let mut line = Line::open(stage.host("desk-1"), "TCP:10.1.0.10:7").unwrap();
    let lan = stage.lab().capture("lan").unwrap();
    let overlay = stage.overlay("desk-1");
    stage.end_agent("desk-1", Signal::KILL);
    for url in INTRANET {
        assert_eq!(stage.page("desk-1", url), None, "{url} answers without an agent");
    }
    for address in ["10.1.0.10", "10.99.1.1", "fd10:1::10"] {
        assert!(!stage.pings("desk-1", address));
    }
    // From the overlay address itself, too, should somebody put it elsewhere.
    for address in overlay {
        stage.host("desk-1").ok(&["ip", "address", "add", &address, "dev", "lo"]).unwrap();
        let gateway = if address.contains(':') { "fd77:1::1" } else { "192.168.77.1" };
        assert!(
            !stage
                .host("desk-1")
                .run(&["ping", "-c1", "-W1", "-I", &address, gateway])
                .unwrap()
                .success()
        );
        stage.host("desk-1").ok(&["ip", "address", "del", &address, "dev", "lo"]).unwrap();
    }
    assert!(!line.answers(Duration::from_secs(2)));
    let findings = wire::judge(&lan.stop().unwrap(), &stage.allowed());
    assert!(findings.violations.is_empty(), "{findings}");
    stage.start_agent("desk-1");
    wait_for("the session is back", PATIENCE, || stage.page("desk-1", INTRANET[0]).is_some())
        .unwrap();
}

#[test]
fn changing_the_segment_cuts_the_old_one_before_the_first_packet_of_the_new() {
    let mut stage = Stage::up();
    let lan = stage.lab().capture("lan").unwrap();
    stage.sign_in("desk-1", "alice@council", "council");
    let council = stage.overlay("desk-1");
    let mut old = Line::open(stage.host("desk-1"), "TCP:10.1.0.10:7").unwrap();
    let inside = stage.lab().capture("nhs").unwrap();

    stage.sign_in("desk-1", "nina@nhs", "nhs");
    assert_eq!(stage.page("desk-1", INTRANET[0]).as_deref(), Some("NHS records"));
    assert!(!old.answers(Duration::from_secs(2)), "the old segment's connection lives on");
    assert!(stage.overlay("desk-1").iter().all(|address| !council.contains(address)));
    let mut new = Line::open(stage.host("desk-1"), "TCP:10.1.0.10:7").unwrap();
    assert!(new.answers(PATIENCE));

    // Nothing of the old conversation turned up in the new network.
    for frame in inside.stop().unwrap() {
        let text = String::from_utf8_lossy(&frame.bytes);
        assert!(!text.contains("Council"), "the old segment's bytes in the new: {text}");
        for address in &council {
            let sought: Vec<u8> = match address.parse().unwrap() {
                std::net::IpAddr::V4(four) => four.octets().into(),
                std::net::IpAddr::V6(six) => six.octets().into(),
            };
            let found = frame.bytes.windows(sought.len()).any(|window| window == sought);
            assert!(!found, "{address} of the old segment in the new one: {:02x?}", frame.bytes);
        }
    }
    let findings = wire::judge(&lan.stop().unwrap(), &stage.allowed());
    assert!(findings.violations.is_empty(), "{findings}");
}

/// Pings through the tunnel, where a split tunnel's routes would not lead.
fn pings_through(desk: &str, stage: &Stage, address: &str) -> bool {
    stage.host(desk).run(&["ping", "-c1", "-W1", "-I", TUN, address]).unwrap().success()
}

fn resolves(host: &Host, name: &str) -> bool {
    host.run(&["timeout", "8", "getent", "ahosts", name]).unwrap().success()
}

/// A server on port 8080 of a desk, as a careless user starts one.
fn server(host: &Host) -> Process {
    let listen = "TCP6-LISTEN:8080,ipv6only=0,reuseaddr,fork";
    let process = host.spawn("server", &["socat", listen, "PIPE"]).unwrap();
    host.wait_for_listener('t', 8080).unwrap();
    process
}

fn opens(from: &Host, address: &str) -> bool {
    let to = match address.contains(':') {
        true => format!("TCP6:[{address}]:8080,connect-timeout=2"),
        false => format!("TCP:{address}:8080,connect-timeout=2"),
    };
    from.run_with_input(&["socat", "-t5", "-T5", "-", &to], "hello").unwrap().stdout == "hello"
}
