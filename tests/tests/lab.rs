//! The lab's own promises: it is a building with real servers, nothing leaks out of it, and nothing is
//! left of it.

use std::time::Duration;

use partywall_tests::lab::{Lab, Topology, wait_for, wire};

fn building() -> Lab {
    Lab::up(&Topology::named("building").expect("the topology is there")).expect("the lab comes up")
}

#[test]
fn the_building_has_two_networks_behind_their_gateways_and_a_lan_that_reaches_neither() {
    let lab = building();
    let page = |host: &str, address: &str| {
        let url = format!("http://{address}/");
        let limits = ["--connect-timeout", "3", "--max-time", "20"];
        lab.host(host).run(&[&["curl", "-sg"], &limits[..], &[&url]].concat()).unwrap()
    };
    for address in ["10.1.0.10", "[fd10:1::10]", "10.1.0.20"] {
        assert_eq!(page("gw-council", address).stdout.trim(), "Council intranet");
        assert_eq!(page("gw-nhs", address).stdout.trim(), "NHS records");
        assert!(!page("desk-1", address).success(), "the LAN reaches {address} by itself");
    }
    // The desks do reach the gateways and the controller on the underlay.
    for address in ["198.51.100.21", "198.51.100.10", "fd51::22"] {
        lab.host("desk-1").ok(&["ping", "-c1", "-W10", address]).unwrap();
    }
    let resolved = lab.host("desk-1").ok(&["getent", "hosts", "controller.hall.test"]).unwrap();
    assert!(resolved.contains("fd51::10"), "{resolved}");
    let echo = |to: &str| {
        lab.host("gw-nhs")
            .run_with_input(&["socat", "-t5", "-T5", "-", to], "hello")
            .unwrap()
            .stdout
    };
    for to in ["TCP:10.1.0.10:7", "TCP6:[fd10:1::10]:7", "UDP:10.1.0.10:7", "UDP6:[fd10:1::10]:7"] {
        assert_eq!(echo(to), "hello", "{to}");
    }
}

#[test]
fn a_host_changes_its_own_files_and_nobody_elses() {
    let lab = building();
    let before = std::fs::read_to_string("/etc/hosts").unwrap();
    lab.host("desk-1")
        .ok(&["sh", "-c", "echo x >/etc/new && mv /etc/new /etc/resolv.conf"])
        .unwrap();
    assert_eq!(lab.host("desk-1").read("/etc/resolv.conf").unwrap(), "x\n");
    assert!(lab.host("desk-2").read("/etc/resolv.conf").unwrap().contains("192.168.77.1"));
    assert_eq!(std::fs::read_to_string("/etc/hosts").unwrap(), before);
    assert_eq!(lab.host("desk-1").ok(&["hostname"]).unwrap().trim(), "desk-1");
}

#[test]
fn a_capture_holds_every_frame_and_what_is_not_ours_is_found_in_it() {
    let lab = building();
    let capture = lab.capture("lan").unwrap();
    lab.host("desk-1").ok(&["ping", "-c3", "-i0.01", "192.168.77.12"]).unwrap();
    let findings = wire::judge(&capture.stop().unwrap(), &wire::Allowed::default());
    let pings = findings.violations.iter().filter(|v| v.what.contains("IP protocol 1 ")).count();
    assert_eq!(pings, 6, "{findings}");
    assert!(findings.neighbours >= 2, "{findings}");
}

#[test]
fn nothing_is_left_of_a_lab() {
    let lab = building();
    let (pid, dir) = (lab.pid(), lab.dir().to_owned());
    let sleeper = lab.host("desk-3").spawn("sleep", &["sleep", "600"]).unwrap();
    let sleeping = format!("/proc/{}", sleeper.pid());
    assert!(std::path::Path::new(&sleeping).exists());
    std::mem::forget(sleeper);
    drop(lab);
    wait_for("the lab is gone", Duration::from_secs(30), || {
        !std::path::Path::new(&format!("/proc/{pid}/ns/net")).exists()
            && !std::path::Path::new(&sleeping).join("cwd").exists()
    })
    .unwrap();
    assert!(!dir.exists());
}
