//! Fragments that hide what they carry (RFC 1858, RFC 3128, RFC 5722).

use std::net::SocketAddr;

use super::super::packet::{Fragment, Packet, SYN};
use super::{Row, Scene, Side};

pub(super) fn rows(scene: &Scene, side: &Side) -> Vec<Row> {
    let at = |port| SocketAddr::new(side.server, port);
    let open = Packet::udp(side.from(5300), at(scene.open_port), &[b'f'; 56]);
    let closed = Packet::udp(side.from(5301), at(scene.closed_port), &[b'f'; 56]);
    let tcp = Packet::tcp(side.from(5302), at(scene.open_port), SYN);
    let lone = |offset_bytes, more, id| {
        let fragment = Some(Fragment { offset_bytes, more, id });
        Packet { fragment, body: vec![0; 16], ..open.clone() }.bytes()
    };
    vec![
        Row::new(
            side,
            "a first fragment with half a TCP header",
            "fragment-too-short",
            tcp.part(0..8, 1).bytes(),
        ),
        Row::several(
            side,
            "TCP flags in the second fragment",
            "fragment-too-short",
            vec![tcp.part(0..8, 2).bytes()],
        ),
        Row::new(side, "a first fragment of nothing", "malformed", open.part(0..0, 3).bytes()),
        Row::new(
            side,
            "a later fragment without a first",
            "fragment-without-first",
            open.part(16..32, 4).bytes(),
        ),
        Row::new(
            side,
            "a last fragment without a first",
            "fragment-without-first",
            open.part(32..64, 5).bytes(),
        ),
        Row::several(
            side,
            "a first fragment that is not allowed",
            "no-rule",
            vec![closed.part(0..32, 6).bytes()],
        ),
        Row::several(
            side,
            "later fragments of a packet that was not allowed",
            "fragment-without-first",
            vec![closed.part(32..48, 6).bytes(), closed.part(48..64, 6).bytes()],
        ),
        // Sets a TCP header's flags anew (RFC 3128), or a UDP header's port.
        Row::several(
            side,
            "a fragment that overlaps its first",
            "fragment-overlap",
            vec![open.part(0..32, 7).bytes(), open.part(8..40, 7).bytes()],
        )
        .after_passing(1),
        Row::several(
            side,
            "a second first fragment with another port",
            "no-rule",
            vec![open.part(0..32, 8).bytes(), closed.part(0..32, 8).bytes()],
        )
        .after_passing(1),
        Row::new(side, "a fragment past 65535 bytes", "malformed", lone(65_528, false, 9)),
        Row::new(side, "a middle fragment of odd length", "malformed", {
            let fragment = Some(Fragment { offset_bytes: 64, more: true, id: 10 });
            Packet { fragment, body: vec![0; 13], ..open.clone() }.bytes()
        }),
    ]
}
