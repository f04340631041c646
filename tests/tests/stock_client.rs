//! A stock client: Debian's wireguard-go under wg-quick, with the config that the controller prints. The
//! wire is WireGuard and nothing of ours; its user's session is what opens the gateway.
#![expect(clippy::unwrap_used, reason = "a step that fails ends its test where it stands")]

use partywall_tests::lab::{wait_for, wire};
use partywall_tests::stage::{INTRANET, PATIENCE, Stage, Stock};

#[test]
fn a_stock_client_gets_through_while_its_user_has_a_session_and_not_otherwise() {
    let mut stage = Stage::up();
    let lan = stage.lab().capture("lan").unwrap();
    let stock = Stock::register(&mut stage, "desk-3", "tablet", "carol@council");
    stock.up(&stage, &[]);
    assert_eq!(stage.page("desk-3", INTRANET[0]), None, "it gets through before anybody signed in");
    assert!(!stock.has_handshake(&stage), "the gateway answers a stock client without a session");

    let refused = stage.try_stock_sign_in("tablet", "alice@council", "council");
    assert!(!refused.success(), "somebody else signs in for carol's tablet: {}", refused.stdout);
    assert_eq!(stage.page("desk-3", INTRANET[0]), None);

    stage.stock_sign_in("tablet", "carol@council", "council");
    reached(&stage);
    for url in INTRANET {
        assert_eq!(stage.page("desk-3", url).as_deref(), Some("Council intranet"), "{url}");
    }
    assert_eq!(stage.page("desk-3", "http://10.1.0.20/").as_deref(), Some("Council intranet"));
    assert!(stock.has_handshake(&stage));

    let session = stage.sessions("council").remove(0);
    assert_eq!(session.device.as_str(), "tablet");
    stage.ctl("council", &["revoke", session.id.as_str()], "").unwrap().ok().unwrap();
    // The gateway is told at once, and does it a moment later.
    wait_for("it no longer gets through", PATIENCE, || stage.page("desk-3", INTRANET[0]).is_none())
        .unwrap();

    // The same printed config goes on with the next session.
    stage.stock_sign_in("tablet", "carol@council", "council");
    reached(&stage);
    let findings = wire::judge(&lan.stop().unwrap(), &stage.allowed());
    assert!(findings.violations.is_empty(), "{findings}");
    assert!(findings.wireguard > 10, "{findings}");
}

fn reached(stage: &Stage) {
    // A stock client asks again every five seconds (WireGuard's REKEY_TIMEOUT).
    wait_for("the stock client gets through", PATIENCE, || {
        stage.page("desk-3", INTRANET[0]).as_deref() == Some("Council intranet")
    })
    .unwrap();
}

#[test]
fn the_printed_config_holds_no_private_key_and_another_key_does_not_fit_it() {
    let mut stage = Stage::up();
    let stock = Stock::register(&mut stage, "desk-3", "tablet", "carol@council");
    let printed =
        stage.ctl("council", &["stock-config", "tablet", "--segment", "council"], "").unwrap();
    let printed = printed.ok().unwrap();
    let line = printed.lines().find(|line| line.contains("PrivateKey")).unwrap();
    assert!(line.trim_start().starts_with('#'), "{line}");
    assert!(!printed.contains(&stock.private_key), "the controller knows the private key");
    // Whoever copies the file without the key has nothing.
    stage.stock_sign_in("tablet", "carol@council", "council");
    let stolen = Stock {
        private_key: stage.host("desk-3").ok(&["wg", "genkey"]).unwrap().trim().into(),
        ..stock
    };
    stolen.up(&stage, &[]);
    assert_eq!(stage.page("desk-3", INTRANET[0]), None);
    assert!(!stolen.has_handshake(&stage));
    wait_for("the gateway counts it", PATIENCE, || stage.drops("gw-council")["unknown-peer"] > 0)
        .unwrap();
}
