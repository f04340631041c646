//! Tests of the packet views: what is read is right, and no bytes whatever make them panic.

use super::*;
use crate::testing::*;
use proptest::prelude::*;

const V4: (&str, &str) = ("10.1.0.1", "10.2.0.1");
const V6: (&str, &str) = ("fd00:1::1", "fd00:2::1");

/// Packets of every kind that is understood, for mutation and as the corpus.
fn samples() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for ((from, to), name) in [(V4, "v4"), (V6, "v6")] {
        let v4 = name == "v4";
        let syn = packet(from, to, &tcp(40_000, 443, SYN));
        let big = udp(5000, 53, 3000);
        let kinds = [
            ("tcp-syn", syn.clone()),
            ("udp", packet(from, to, &udp(5000, 53, 11))),
            ("echo-request", packet(from, to, &ping(7, v4))),
            ("echo-reply", packet(from, to, &pong(7, v4))),
            ("unreachable", packet(to, from, &unreachable(&syn, v4))),
            ("first-fragment", part(from, to, &big, 0..1400, 9)),
            ("later-fragment", part(from, to, &big, 1400..2800, 9)),
            ("gre", packet(from, to, &gre())),
        ];
        all.extend(kinds.map(|(kind, bytes)| (format!("{name}-{kind}"), bytes)));
    }
    let syn = tcp(40_000, 443, SYN);
    let options = with_options(V4.0, V4.1, &syn, &[1, 131, 3, 4, 7, 4, 8, 0]);
    all.push(("v4-source-route".into(), options));
    let hop = [(0, [0, 1, 4, 0, 0, 0, 0]), (60, [0, 1, 4, 0, 0, 0, 0])];
    all.push(("v6-extensions".into(), with_extensions(V6.0, V6.1, &syn, &hop)));
    all.push(("v6-routing".into(), with_extensions(V6.0, V6.1, &syn, &[(43, [0; 7])])));
    all
}

fn sample(name: &str) -> Vec<u8> {
    samples().into_iter().find(|(held, _)| held == name).unwrap().1
}

#[test]
fn a_packet_is_read_from_its_own_lengths_and_not_from_the_buffers() {
    for name in ["v4-tcp-syn", "v6-tcp-syn"] {
        let bytes = sample(name);
        let padded = [bytes.clone(), vec![0xee; 13]].concat();
        let read = parse(&padded).unwrap();
        assert_eq!(read.bytes, bytes);
        let Payload::Tcp(tcp) = read.payload else { panic!("{read:?}") };
        assert_eq!((tcp.source_port, tcp.destination_port), (40_000, 443));
        assert!(tcp.flags.opens());
        assert_eq!(parse(&bytes[..bytes.len() - 1]), Err(PacketError::Malformed));
    }
}

#[test]
fn extension_headers_are_walked_with_a_bound() {
    let read = sample("v6-extensions");
    assert!(matches!(parse(&read).unwrap().payload, Payload::Tcp(_)));
    assert_eq!(parse(&sample("v6-routing")), Err(PacketError::SourceRoute));
    let syn = tcp(1, 2, SYN);
    let many = |count| with_extensions(V6.0, V6.1, &syn, &vec![(60, [0; 7]); count]);
    assert!(parse(&many(7)).is_ok());
    assert_eq!(parse(&many(8)), Err(PacketError::ExtensionHeaders));
    let late_hop = with_extensions(V6.0, V6.1, &syn, &[(60, [0; 7]), (0, [0; 7])]);
    assert_eq!(parse(&late_hop), Err(PacketError::ExtensionHeaders));
}

#[test]
fn a_source_route_is_seen_behind_other_options() {
    assert_eq!(parse(&sample("v4-source-route")), Err(PacketError::SourceRoute));
    let syn = tcp(1, 2, SYN);
    for bad in [&[7, 0][..], &[7, 1], &[7, 200], &[7]] {
        // Four bytes, so that no padding comes to help.
        let options = [&vec![1; 4 - bad.len()][..], bad].concat();
        let bytes = with_options(V4.0, V4.1, &syn, &options);
        assert_eq!(parse(&bytes), Err(PacketError::Malformed), "{bad:?}");
    }
}

#[test]
fn a_first_fragment_must_hold_the_whole_transport_header() {
    for (from, to) in [V4, V6] {
        let syn = tcp(1, 443, SYN);
        let short = part(from, to, &syn, 0..16, 1);
        assert_eq!(parse(&short), Err(PacketError::FragmentTooShort));
        let big = udp(1, 53, 100);
        let first = part(from, to, &big, 0..8, 1);
        let read = parse(&first).unwrap();
        assert!(read.fragment.unwrap().is_first() && matches!(read.payload, Payload::Udp(_)));
        let odd = part(from, to, &big, 0..12, 1);
        assert_eq!(parse(&odd), Err(PacketError::Malformed), "a part that is not whole units");
        let odd = part(from, to, &big, 16..28, 1);
        assert_eq!(parse(&odd), Err(PacketError::Malformed), "the same of a later part");
        let empty = part(from, to, &big, 16..16, 1);
        assert_eq!(parse(&empty), Err(PacketError::Malformed), "a part of nothing");
        let whole = part(from, to, &syn, 0..20, 1);
        assert_eq!(parse(&whole).unwrap().fragment, None, "an atomic fragment is a whole packet");
    }
}

#[test]
fn a_part_in_the_middle_is_whole_units_and_not_empty() {
    for (more, bytes) in [(true, 12), (true, 0), (false, 0), (true, 65_528)] {
        assert_eq!(Fragment::new(1, 2, more, bytes), Err(PacketError::Malformed), "{bytes}");
    }
    assert!(Fragment::new(1, 2, false, 12).unwrap().is_some());
}

#[test]
fn no_fragment_reaches_past_the_largest_packet() {
    let mut bytes = sample("v4-later-fragment");
    bytes[6..8].copy_from_slice(&0x1fff_u16.to_be_bytes());
    assert_eq!(parse(&bytes), Err(PacketError::Malformed));
}

#[test]
fn an_icmp_error_names_the_packet_that_it_quotes() {
    for name in ["v4-unreachable", "v6-unreachable"] {
        let bytes = sample(name);
        let read = parse(&bytes).unwrap();
        let Payload::Icmp(Icmp::Error { quoted: Some(quoted) }) = read.payload else {
            panic!("{read:?}")
        };
        assert_eq!(quoted.payload, QuotedPayload::Tcp(40_000, 443));
        assert_eq!(quoted.source, read.destination);
    }
}

#[test]
fn a_udp_length_must_fit() {
    for (from, to, at) in [(V4.0, V4.1, 20), (V6.0, V6.1, 40)] {
        for length in [0_u16, 7, 20, u16::MAX] {
            let mut bytes = packet(from, to, &udp(1, 2, 4));
            bytes[at + 4..at + 6].copy_from_slice(&length.to_be_bytes());
            assert_eq!(parse(&bytes), Err(PacketError::Malformed), "length {length}");
        }
    }
}

#[test]
fn the_corpus_is_read_without_a_panic_and_holds_every_sample() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/packet_view");
    for (name, bytes) in samples() {
        let path = format!("{folder}/{name}.bin");
        // `UPDATE_CORPUS=1 cargo test` writes samples that were added.
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{path} is not the sample of that name");
    }
    for entry in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let _ = parse(&bytes);
    }
}

fn check(bytes: &[u8]) {
    if let Ok(packet) = parse(bytes) {
        assert!(bytes.starts_with(packet.bytes));
        if let Some(part) = packet.fragment {
            assert!(part.offset_bytes < part.end_bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), v4 in any::<bool>()) {
        check(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = if v4 { 0x40 | (*first & 0xf) } else { 0x60 };
        }
        check(&bytes);
    }

    #[test]
    fn mutated_packets_never_panic(
        pick in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((0_usize..120, any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let (_, mut bytes) = samples().swap_remove(pick.index(samples().len()));
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        check(&bytes);
        check(&bytes[..cut.index(bytes.len())]);
    }
}

#[test]
fn packets_in_the_midst_of_one_conversation_are_alike_and_no_others() {
    let whole = |upper: &Upper| packet("10.64.0.5", "10.1.0.80", upper);
    let alike = |one: &[u8], other: &[u8]| parse(one).unwrap().is_like(&parse(other).unwrap());
    let (ack, query) = (whole(&tcp(1, 2, ACK)), whole(&udp(1, 2, 9)));
    assert!(alike(&ack, &ack));
    assert!(alike(&query, &whole(&udp(1, 2, 90))), "a length is nothing that a rule could see");
    let first = part("10.64.0.5", "10.1.0.80", &udp(1, 2, 92), 0..48, 7);
    for other in [whole(&tcp(1, 3, ACK)), whole(&tcp(1, 2, ACK | RST)), query.clone()] {
        assert!(!alike(&ack, &other) && !alike(&other, &ack));
    }
    for elsewhere in [
        packet("10.64.0.6", "10.1.0.80", &udp(1, 2, 9)),
        packet("10.64.0.5", "10.1.0.8", &udp(1, 2, 9)),
        first.clone(),
    ] {
        assert!(!alike(&query, &elsewhere) && !alike(&elsewhere, &query));
    }
    // What begins or ends something, or has no ports, is judged each by itself.
    for single in
        [whole(&tcp(1, 2, SYN)), whole(&tcp(1, 2, ACK | RST)), whole(&ping(1, true)), first]
    {
        assert!(!alike(&single, &single));
    }
}
