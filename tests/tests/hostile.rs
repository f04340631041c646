//! A peer with a valid session and a hostile owner: whatever it injects, the gateway drops and counts it
//! under the right reason, and neither network sees any of it (promises 3 and 10).
#![expect(clippy::unwrap_used, reason = "a step that fails ends its test where it stands")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use partywall_tests::hostile::{
    Datagram, Handshake, Injector, Keys, RawTunnel, Row, Scene, Side, rows, rows_below_ip,
};
use partywall_tests::lab::{wait_for, wire};
use partywall_tests::stage::{INTERFACE, INTRANET, Line, PATIENCE, Stage, Stock};

const GATEWAY: &str = "gw-council";
/// Between two initiations of the flood.
const FLOOD_PACE: Duration = Duration::from_micros(200);
/// Ends a flood that nobody ends, after half a minute or more.
const FLOOD_MAX: usize = 150_000;
const ENDPOINT: &str = "198.51.100.21:51820";

/// The hostile peer is carol's tablet at desk-3. alice at desk-1 and nina at desk-2 are honest.
struct Hostile {
    stage: Stage,
    stock: Stock,
    scene: Scene,
    /// alice's open flows, IPv4 and IPv6.
    honest: [Line; 2],
}

impl Hostile {
    fn up() -> Self {
        let mut stage = Stage::up();
        stage.sign_in("desk-1", "alice@council", "council");
        stage.sign_in("desk-2", "nina@nhs", "nhs");
        let honest = ["TCP:10.1.0.10:7,sourceport=41000", "TCP6:[fd10:1::10]:7,sourceport=41001"]
            .map(|to| Line::open(stage.host("desk-1"), to).unwrap());
        let stock = Stock::register(&mut stage, "desk-3", "tablet", "carol@council");
        stage.stock_sign_in("tablet", "carol@council", "council");
        let own =
            stage.sessions("council").into_iter().find(|s| s.device.as_str() == "tablet").unwrap();
        let side = |four: bool| {
            let address =
                |v4: &str, v6: &str| -> IpAddr { if four { v4 } else { v6 }.parse().unwrap() };
            let own =
                own.addresses.iter().copied().find(|address| address.is_ipv4() == four).unwrap();
            Side {
                own,
                gateway: first_of_pool(own),
                gateway_inside: address("10.1.0.1", "fd10:1::1"),
                gateway_underlay: address("198.51.100.21", "fd51::21"),
                controller: address("198.51.100.10", "fd51::10"),
                neighbour: stage.overlay_address("desk-1", four),
                neighbour_port: if four { 41000 } else { 41001 },
                server: address("10.1.0.10", "fd10:1::10"),
                // Nothing on the port that is tried; its web is for finance, to which carol belongs.
                closed_server: address("10.1.0.20", "fd10:1::20"),
                unlisted: address("10.200.0.1", "fd10:200::1"),
                other_gateway: first_of_pool(stage.overlay_address("desk-2", four)),
                other_device: stage.overlay_address("desk-2", four),
                other_underlay: address("198.51.100.22", "fd51::22"),
            }
        };
        let scene = Scene { four: side(true), six: side(false), open_port: 7, closed_port: 22 };
        Self { stage, stock, scene, honest }
    }

    /// Sends a row, and says what is wrong with what became of it.
    fn complaint(&self, row: &Row, mut send: impl FnMut(&[u8])) -> Option<String> {
        let before = self.stage.drops(GATEWAY);
        row.packets.iter().for_each(|packet| send(packet));
        let mut grown = BTreeMap::new();
        let expected = BTreeMap::from([(row.reason.to_owned(), row.dropped() as u64)]);
        let _ = wait_for("the drops are counted", PATIENCE, || {
            grown = difference(&before, &self.stage.drops(GATEWAY));
            grown.values().sum::<u64>() >= row.dropped() as u64
        });
        (grown != expected).then(|| format!("{}: {grown:?} instead of {expected:?}", row.name))
    }
}

fn first_of_pool(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(four) => {
            let [a, b, c, _] = four.octets();
            IpAddr::from([a, b, c, 1])
        }
        IpAddr::V6(six) => {
            let [a, b, c, d, ..] = six.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 1])
        }
    }
}

fn difference(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let grown = after.iter().map(|(reason, count)| {
        (reason.clone(), count - before.get(reason).copied().unwrap_or_default())
    });
    grown.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn every_hostile_packet_is_dropped_and_counted_and_no_network_sees_it() {
    let mut hostile = Hostile::up();
    // All of the hostile owner's traffic goes to the gateway, and nothing of his own stack's does.
    let everything = "AllowedIPs = 0.0.0.0/0, ::/0";
    hostile.stock.up(
        &hostile.stage,
        &[
            ("AllowedIPs", &format!("{everything}\nPersistentKeepalive = 25")),
            ("[Interface]", "[Interface]\nTable = off"),
        ],
    );
    let host = hostile.stage.host("desk-3").clone();
    host.ok(&["sysctl", "-qw", &format!("net.ipv6.conf.{INTERFACE}.disable_ipv6=1")]).unwrap();
    wait_for("the hostile peer has a tunnel", PATIENCE, || {
        hostile.stock.has_handshake(&hostile.stage)
    })
    .unwrap();
    let mut injector = Injector::open(&host, INTERFACE).unwrap();

    let [council, nhs, underlay] =
        ["council", "nhs", "underlay"].map(|network| hostile.stage.lab().capture(network).unwrap());
    let rows = rows(&hostile.scene);
    let mut complaints: Vec<String> = rows
        .iter()
        .filter_map(|row| hostile.complaint(row, |packet| injector.send(packet).unwrap()))
        .collect();

    // The tunnel's owner may also have a WireGuard of his own, which takes over with the same key.
    hostile.stock.down(&hostile.stage);
    let keys = keys(&hostile.stock);
    let socket = Datagram::open(&host, ENDPOINT.parse().unwrap()).unwrap();
    let mut tunnel = RawTunnel::connect(&socket, &keys).unwrap();
    complaints.extend(rows_below_ip(&hostile.scene).iter().filter_map(|row| {
        hostile.complaint(row, |packet| socket.send(&tunnel.seal(packet)).unwrap())
    }));
    assert!(complaints.is_empty(), "{} of the rows:\n{}", complaints.len(), complaints.join("\n"));

    for (name, capture) in [("council", council), ("nhs", nhs)] {
        let seen = wire::judge(&capture.stop().unwrap(), &wire::Allowed::default());
        assert!(seen.violations.is_empty(), "the {name} network saw some of it: {seen}");
    }
    let seen = wire::judge(&underlay.stop().unwrap(), &hostile.stage.allowed());
    assert!(seen.violations.is_empty(), "the underlay saw some of it: {seen}");
    for line in &mut hostile.honest {
        assert!(line.answers(PATIENCE), "the honest flow died");
    }
    assert_eq!(hostile.stage.page("desk-2", INTRANET[0]).as_deref(), Some("NHS records"));
    // The table is dropped for what it is, and not because nothing gets through: an honest packet does.
    let honest = partywall_tests::hostile::packet::Packet::udp(
        SocketAddr::new(hostile.scene.four.own, 5999),
        SocketAddr::new(hostile.scene.four.server, hostile.scene.open_port),
        b"hello",
    );
    let council = hostile.stage.lab().capture("council").unwrap();
    socket.send(&tunnel.seal(&honest.bytes())).unwrap();
    // Data (type 4) with something in it; a keepalive is 32 bytes.
    let is_echo = |datagram: Vec<u8>| datagram[0] == 4 && datagram.len() > 32;
    wait_for("the echo comes back", PATIENCE, || socket.receive().is_some_and(is_echo)).unwrap();
    let seen = wire::judge(&council.stop().unwrap(), &wire::Allowed::default());
    // An acknowledgement that TCP put off may still come from the honest flow.
    let datagrams = seen.violations.iter().filter(|v| v.what.starts_with("UDP from "));
    assert_eq!(datagrams.count(), 2, "a datagram and its echo: {seen}");
}

fn keys(stock: &Stock) -> Keys {
    let decode = |text: &str| -> [u8; 32] {
        data_encoding::BASE64.decode(text.as_bytes()).unwrap().try_into().unwrap()
    };
    Keys {
        private: decode(&stock.private_key),
        gateway: decode(&stock.value("PublicKey").unwrap()),
        preshared: stock.value("PresharedKey").map_or([0; 32], |text| decode(&text)),
    }
}

#[test]
fn garbage_truncated_and_replayed_datagrams_are_counted_and_the_honest_go_on() {
    let mut hostile = Hostile::up();
    let keys = keys(&hostile.stock);
    let host = hostile.stage.host("desk-3").clone();
    let open = || Datagram::open(&host, ENDPOINT.parse().unwrap()).unwrap();
    let socket = open();
    let [council, nhs] =
        ["council", "nhs"].map(|network| hostile.stage.lab().capture(network).unwrap());
    let row = |name: &str, reason, packets| Row { name: name.into(), packets, passing: 0, reason };
    let send = |bytes: &[u8]| socket.send(bytes).unwrap();

    let initiation = Handshake::begin(&keys).message;
    let mut tunnel = RawTunnel::connect(&socket, &keys).unwrap();
    // An open flow of the hostile peer's own, so that its replays would have something to say.
    let side = &hostile.scene.four;
    let honest = partywall_tests::hostile::packet::Packet::udp(
        SocketAddr::new(side.own, 5600),
        SocketAddr::new(side.server, hostile.scene.closed_port),
        b"to nowhere",
    );
    let sealed = tunnel.seal(&honest.bytes());
    let altered = |at: usize, bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let next = tunnel.seal(&honest.bytes());
    let stranger = Keys { private: rand::random(), ..keys.clone() };
    let wrong_psk = Keys { preshared: rand::random(), ..keys.clone() };
    let other_gateway = Keys { gateway: rand::random(), ..keys.clone() };
    let mut last = next.clone();
    last[8..16].copy_from_slice(&u64::MAX.to_le_bytes());

    let rows = [
        row(
            "noise",
            "garbage-datagram",
            vec![vec![0xaa; 148], vec![9; 32], vec![0; 92], vec![5, 0, 0, 0]],
        ),
        row("an empty datagram", "garbage-datagram", vec![vec![]]),
        row(
            "a truncated initiation",
            "garbage-datagram",
            vec![initiation[..147].to_vec(), initiation[..4].to_vec()],
        ),
        row(
            "an initiation with a tail",
            "garbage-datagram",
            vec![[&initiation[..], &[0]].concat()],
        ),
        row("truncated data", "garbage-datagram", vec![next[..31].to_vec(), next[..15].to_vec()]),
        row(
            "an initiation to another gateway",
            "bad-mac",
            vec![Handshake::begin(&other_gateway).message],
        ),
        row("an initiation with a broken mac", "bad-mac", vec![altered(117, &initiation)]),
        row(
            "an initiation from a stranger",
            "unknown-peer",
            vec![Handshake::begin(&stranger).message],
        ),
        row("a first data packet, and policy", "no-rule", vec![sealed.clone()]),
        row("the same data packet again", "replayed", vec![sealed.clone(), sealed]),
        row(
            "altered data",
            "unauthentic",
            vec![altered(next.len() - 1, &next), altered(20, &next)],
        ),
        row("data without its end", "unauthentic", vec![next[..next.len() - 16].to_vec()]),
        row("data with the highest counter", "unauthentic", vec![last]),
        row("data for an index that nobody has", "unknown-index", vec![altered(7, &next)]),
    ];
    let complaints: Vec<String> =
        rows.iter().filter_map(|row| hostile.complaint(row, send)).collect();
    assert!(complaints.is_empty(), "{} of the rows:\n{}", complaints.len(), complaints.join("\n"));

    // An initiation is taken once. A peer with the wrong preshared key gets no tunnel.
    let replay = row("a replayed initiation", "bad-handshake", vec![initiation]);
    assert_eq!(hostile.complaint(&replay, send), None);
    assert!(RawTunnel::connect(&open(), &wrong_psk).is_err());

    // A flood of random initiations from one address does not keep honest desks from shaking hands.
    let nonsense: Vec<Vec<u8>> =
        (0..2000).map(|_| Handshake::begin_nonsense(&keys.gateway)).collect();
    let (sent, honest_are_in) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for message in nonsense.iter().cycle().take(FLOOD_MAX) {
                if honest_are_in.load(Ordering::Relaxed) {
                    break;
                }
                // A full socket buffer is part of a flood.
                sent.fetch_add(socket.send(message).is_ok().into(), Ordering::Relaxed);
                std::thread::sleep(FLOOD_PACE);
            }
        });
        hostile.stage.sign_out("desk-1");
        let flooded = wait_for("the port is flooded", PATIENCE, || {
            sent.load(Ordering::Relaxed) > nonsense.len()
        });
        let signed_in = hostile.stage.try_sign_in("desk-1", "alice@council", "council");
        honest_are_in.store(true, Ordering::Relaxed);
        flooded.and(signed_in.ok()).unwrap();
    });
    assert_eq!(hostile.stage.page("desk-1", INTRANET[0]).as_deref(), Some("Council intranet"));
    assert_eq!(hostile.stage.page("desk-2", INTRANET[0]).as_deref(), Some("NHS records"));
    let pages = ["nhs", "council"].iter().zip([nhs, council]);
    for (name, capture) in pages {
        let found = capture
            .stop()
            .unwrap()
            .iter()
            .any(|frame| frame.bytes.windows(10).any(|window| window == b"to nowhere"));
        assert!(!found, "the {name} network saw a packet that no rule allows");
    }
}
