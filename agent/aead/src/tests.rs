//! Both ways against each other, at every length and place.

use proptest::prelude::*;

use super::*;

/// As ring alone seals it.
fn alone(key: &Key, counter: u64, message: &[u8]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    let tag = key.single.seal_in_place_separate_tag(nonce(counter), Aad::empty(), &mut bytes);
    bytes.extend_from_slice(tag.unwrap().as_ref());
    bytes
}

/// Whether batches are worked on by other code than ring's.
fn is_wide(key: &Key) -> bool {
    #[cfg(target_arch = "x86_64")]
    return key.wide.is_some();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

fn batch<'a>(counters: &[u64], packets: &'a mut [Vec<u8>]) -> Vec<Piece<'a>> {
    let pieces = counters.iter().zip(packets);
    pieces.map(|(&counter, bytes)| Piece { counter, bytes }).collect()
}

fn with_room(message: &[u8]) -> Vec<u8> {
    [message, &[0xa5; TAG_BYTES]].concat()
}

/// A message whose ciphertext has no bit that is zero.
fn sealed_to_ones(key: &Key, counter: u64, length: usize) -> Vec<u8> {
    let keystream = alone(key, counter, &vec![0; length]);
    keystream[..length].iter().map(|byte| !byte).collect()
}

proptest! {
    #[test]
    fn a_batch_is_sealed_as_each_packet_is_alone_and_opens_but_where_a_bit_has_changed(
        key: [u8; KEY_BYTES],
        packets in prop::collection::vec(
            (any::<u64>(), prop::collection::vec(any::<u8>(), 0..1600)), 0..=BATCH),
        change in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_u8..8)),
    ) {
        let key = Key::new(&key);
        let (counters, messages): (Vec<_>, Vec<_>) = packets.into_iter().unzip();
        let expected: Vec<_> =
            counters.iter().zip(&messages).map(|(&counter, message)| alone(&key, counter, message)).collect();
        let mut packets: Vec<_> = messages.iter().map(|message| with_room(message)).collect();
        key.seal(&mut batch(&counters, &mut packets));
        prop_assert_eq!(&packets, &expected);

        let changed = change.filter(|_| !packets.is_empty()).map(|(packet, byte, bit)| {
            let at = packet.index(packets.len());
            let bytes = packets[at].len();
            packets[at][byte.index(bytes)] ^= 1 << bit;
            at
        });
        let authentic = key.open(&mut batch(&counters, &mut packets));
        for (at, message) in messages.iter().enumerate() {
            prop_assert_eq!(authentic.is(at), changed != Some(at));
            let opened = &packets[at][..message.len()];
            // A short message may look like its ciphertext.
            prop_assert!(authentic.is(at) == (opened == message) || message.len() < 16);
        }
    }
}

#[test]
fn every_length_around_the_ends_of_blocks_is_sealed_as_it_is_alone() {
    let key = Key::new(&[7; KEY_BYTES]);
    if !is_wide(&key) {
        eprintln!(
            "SKIPPED: this processor has no registers of 512 bits; ring is compared with itself"
        );
    }
    let bytes: Vec<u8> = (0..=255).cycle().take(65_535).collect();
    let counters: [u64; BATCH] =
        std::array::from_fn(|at| [0, u64::from(u32::MAX), u64::MAX - 99][at % 3] + at as u64);
    for longest in (0..1100_usize).chain([1420, 65_535]) {
        let unequal = [longest, longest / 2, longest.saturating_sub(1), 0, longest];
        let equal = [4, 8, 9, BATCH].into_iter().map(|count| vec![longest; count]);
        for lengths in equal.chain([unequal.to_vec()]) {
            let messages: Vec<_> = lengths.iter().map(|&length| &bytes[..length]).collect();
            let mut packets: Vec<_> = messages.iter().map(|message| with_room(message)).collect();
            let counters = &counters[..packets.len()];
            key.seal(&mut batch(counters, &mut packets));
            for ((&counter, message), packet) in counters.iter().zip(&messages).zip(&packets) {
                let case = format!("{} of {lengths:?}", message.len());
                assert_eq!(*packet, alone(&key, counter, message), "{case}");
            }
            let authentic = key.open(&mut batch(counters, &mut packets));
            for (at, (message, packet)) in messages.iter().zip(&packets).enumerate() {
                let case = format!("{at} of {lengths:?}");
                assert!(authentic.is(at) && packet.starts_with(message), "{case}");
            }
        }
    }
}

/// The limbs of whole blocks are then as large as they can be, and the packets begin in different chunks.
#[test]
fn ciphertexts_of_ones_and_of_unequal_lengths_are_sealed_and_opened_as_they_are_alone() {
    let key = Key::new(&[7; KEY_BYTES]);
    let cases = (0..=BATCH).flat_map(|count| (0..=130).map(move |longest| (count, longest)));
    for (count, longest) in cases {
        let counters: Vec<_> = (0..count as u64).collect();
        let lengths = (0..count).map(|at| longest - 11 * at % (longest + 1));
        let messages: Vec<_> = counters
            .iter()
            .zip(lengths)
            .map(|(&at, length)| sealed_to_ones(&key, at, length))
            .collect();
        let mut packets: Vec<_> = messages.iter().map(|message| with_room(message)).collect();
        key.seal(&mut batch(&counters, &mut packets));
        let sealed = packets.clone();
        let authentic = key.open(&mut batch(&counters, &mut packets));
        for (at, message) in messages.iter().enumerate() {
            let case = format!("{at} of {count}, the longest of {longest} bytes");
            let (ones, tag) = sealed[at].split_at(message.len());
            assert!(ones.iter().all(|&byte| byte == 0xff), "{case}");
            assert_eq!(sealed[at], alone(&key, counters[at], message), "{case}");
            assert!(authentic.is(at), "{case}");
            assert_eq!(packets[at], [message, tag].concat(), "{case}");
        }
    }
}
