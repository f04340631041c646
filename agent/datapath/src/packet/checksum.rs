//! The Internet checksum (RFC 1071): summed wide, folded once.
//!
//! A sum is kept in the machine's own byte order, which RFC 1071 §2(B) allows; only [`Sum::fold`]
//! turns it around. Every part but the last must have an even length.

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
        // Eight lanes that do not depend on each other keep a vector unit busy. A lane holds the sum
        // of 2^32 words before it wraps, and no packet is a millionth of that.
        let mut lanes = [0_u64; 8];
        let blocks = bytes.chunks_exact(32);
        let rest = blocks.remainder();
        for block in blocks {
            for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
                *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
            }
        }
        let mut sum: u64 = lanes.iter().sum();
        let words = rest.chunks_exact(2);
        if let [last] = words.remainder() {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        sum += words.map(|word| u64::from(u16::from_ne_bytes([word[0], word[1]]))).sum::<u64>();
        Self(self.0 + sum)
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
