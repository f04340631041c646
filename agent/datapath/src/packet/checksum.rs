//! The Internet checksum (RFC 1071): summed wide, folded once.
//!
//! A sum is kept in the machine's own byte order, which RFC 1071 §2(B) allows; only [`Sum::fold`]
//! turns it around. Every part must begin at an even place of what is summed; their order makes no difference.

/// A running ones' complement sum of 16-bit words.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// The sum of `bytes`; an odd last byte counts as if a zero followed.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::default().and(bytes)
    }

    /// This sum and that of `bytes`.
    pub(crate) fn and(self, bytes: &[u8]) -> Self {
        let mut lanes = Lanes::default();
        let (blocks, rest) = bytes.as_chunks();
        blocks.iter().for_each(|block| lanes.add(block));
        self.and_lanes(lanes).and_rest(rest)
    }

    /// This sum and that of `from`, which is copied to `to` on the way: one look at each byte where two would be
    /// as dear as the sum.
    ///
    /// # Panics
    /// If they are not of one size.
    pub(crate) fn and_copied(self, from: &[u8], to: &mut [u8]) -> Self {
        assert_eq!(from.len(), to.len(), "a copy is as large as what it is of");
        let mut lanes = Lanes::default();
        let ((blocks, rest), (places, last)) = (from.as_chunks(), to.as_chunks_mut());
        for (block, place) in blocks.iter().zip(places) {
            *place = *block;
            lanes.add(block);
        }
        last.copy_from_slice(rest);
        self.and_lanes(lanes).and_rest(rest)
    }

    fn and_lanes(self, lanes: Lanes) -> Self {
        Self(self.0 + lanes.0.iter().sum::<u64>())
    }

    /// This sum and that of less than a block.
    fn and_rest(self, rest: &[u8]) -> Self {
        let (words, last) = rest.as_chunks();
        let last = last.first().map_or(0, |&byte| u64::from(u16::from_ne_bytes([byte, 0])));
        let sum: u64 = words.iter().map(|&word| u64::from(u16::from_ne_bytes(word))).sum();
        Self(self.0 + sum + last)
    }

    /// This sum and another.
    pub(crate) fn and_sum(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// This sum without that of a part.
    pub(crate) fn without(self, part: Self) -> Self {
        // A number and its complement are all ones together, which is zero here. The fold of the part turns its
        // bytes around, and `to_be` back again.
        Self(self.0 + u64::from((!part.fold()).to_be()))
    }

    /// This sum and one more word, as a header field holds it.
    pub(crate) fn and_word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word.to_be()))
    }

    /// The sum in 16 bits, as a header field holds it; what a sender leaves for hardware to complete.
    pub(crate) fn fold(self) -> u16 {
        let mut sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::from_be(sum as u16)
    }

    /// The checksum itself: what a header's field must be for the whole to sum to all ones.
    pub(crate) fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Whether this, taken over a header's checksum field too, says that nothing was altered.
    pub(crate) fn holds(self) -> bool {
        self.fold() == 0xffff
    }
}

/// Eight sums that do not depend on each other keep a vector unit busy. Each holds that of 2^32 words before it
/// wraps, and no packet is a millionth of that.
#[derive(Debug, Clone, Copy, Default)]
struct Lanes([u64; 8]);

impl Lanes {
    #[inline]
    fn add(&mut self, block: &[u8; 32]) {
        for (lane, &word) in self.0.iter_mut().zip(block.as_chunks().0) {
            *lane += u64::from(u32::from_ne_bytes(word));
        }
    }
}

/// What TCP and UDP sum before their own header (RFC 9293 §3.1, RFC 768, RFC 8200 §8.1):
/// `addresses` are both of them, one after the other, as the IP header has them.
pub(crate) fn pseudo_header(addresses: &[u8], protocol: u8, bytes: usize) -> Sum {
    // An upper layer's length is below 2^16 here: jumbograms are not carried.
    Sum::of(addresses).and_word(protocol.into()).and_word(bytes as u16)
}

/// `checksum` after one 16-bit word that it covers was changed (RFC 1624 §3, equation 3).
pub(crate) fn adjusted(checksum: u16, before: u16, after: u16) -> u16 {
    Sum::default().and_word(!checksum).and_word(!before).and_word(after).checksum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §4.1, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::of(&bytes).fold(), 0xddf2);
        assert_eq!(Sum::of(&bytes).checksum(), !0xddf2);
    }

    proptest! {
        #[test]
        fn it_is_the_sum_word_by_word(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..300) {
            let cut = (cut.min(bytes.len())) & !1;
            let parts = Sum::of(&bytes[..cut]).and(&bytes[cut..]);
            prop_assert_eq!(parts.fold(), reference(&bytes));
            let mut copy = vec![0; bytes.len() - cut];
            let copied = Sum::of(&bytes[..cut]).and_copied(&bytes[cut..], &mut copy);
            prop_assert_eq!(copied.fold(), reference(&bytes));
            prop_assert_eq!(&copy, &bytes[cut..]);
            let both = parts.and_word(0x1234);
            // Either zero says that nothing is left.
            prop_assert_eq!(both.without(parts).fold() % 0xffff, 0x1234);
        }

        #[test]
        fn changing_a_word_adjusts_it(mut words in proptest::collection::vec(any::<u8>(), 4..64), after: u16) {
            words.truncate(words.len() & !1);
            // An all-zero header has two representations of zero; real ones are never all zero.
            words[2] = 0x45;
            let before = u16::from_be_bytes([words[0], words[1]]);
            let checksum = Sum::of(&words).checksum();
            words[..2].copy_from_slice(&after.to_be_bytes());
            prop_assert_eq!(adjusted(checksum, before, after), Sum::of(&words).checksum());
        }
    }
}
