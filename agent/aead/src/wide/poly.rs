//! Poly1305 (RFC 8439 §2.5) of many packets, one in each 64-bit lane.
//!
//! A number modulo 2^130 − 5 is kept in limbs of 44, 44 and 42 bits, so that the processor's multiplication of
//! 52 bits has room for sums and carries can wait for the end of a block. Between blocks a limb may have
//! a few bits more; [`Sums::tags`] brings them in order.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpgt_epu64_mask, _mm512_madd52hi_epu64,
    _mm512_madd52lo_epu64, _mm512_mask_mov_epi64, _mm512_or_si512, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_slli_epi64, _mm512_srli_epi64, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi64,
};
use std::array;

use super::lanes::{load, load_64, store_64, turn_quarters};
use super::{Block, message_bytes};
use crate::{BATCH, Piece, TAG_BYTES};

/// Packets of a group: the lanes of a register.
const LANES: usize = 8;
/// Bytes that are read of each packet at once, and the blocks that they are.
const CHUNK_BYTES: usize = 64;
const CHUNK_BLOCKS: usize = CHUNK_BYTES / TAG_BYTES;

const LIMB_BITS: u32 = 44;
const TOP_LIMB_BITS: u32 = 42;
const LIMB: u64 = (1 << LIMB_BITS) - 1;
const TOP_LIMB: u64 = (1 << TOP_LIMB_BITS) - 1;
/// The bit that is put behind each block of 128 bits, in the top limb.
const BEHIND_BLOCK: u64 = 1 << (128 - 2 * LIMB_BITS);
/// What a one time key's first half is masked with (RFC 8439 §2.5.1).
const CLAMP: u128 = 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;

/// The tag of each piece's message, with no associated data (RFC 8439 §2.8).
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn tags(one_time: &[Block; BATCH], pieces: &[Piece<'_>]) -> [[u8; TAG_BYTES]; BATCH] {
    // Two groups side by side: while one waits for its products, the other goes on.
    if pieces.len() > LANES { groups::<2>(one_time, pieces) } else { groups::<1>(one_time, pieces) }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn groups<const GROUPS: usize>(
    one_time: &[Block; BATCH],
    pieces: &[Piece<'_>],
) -> [[u8; TAG_BYTES]; BATCH] {
    let mut tags = [[0; TAG_BYTES]; BATCH];
    let Some(last) = pieces.len().checked_sub(1) else { return tags };
    // A lane without a piece does again what another one does.
    let messages: [[&[u8]; LANES]; GROUPS] = array::from_fn(|group| {
        array::from_fn(|lane| {
            let piece = &pieces[(group * LANES + lane).min(last)];
            &piece.bytes[..message_bytes(piece)]
        })
    });
    let keys = one_time.as_chunks::<LANES>().0;
    let mut sums = [Sums::none(); GROUPS];
    for (sums, keys) in sums.iter_mut().zip(keys) {
        *sums = Sums::new(keys);
    }
    let lengths = || messages.iter().flatten().map(|message| message.len());
    let whole = lengths().min().unwrap_or(0) / CHUNK_BYTES;
    let all = lengths().max().unwrap_or(0).div_ceil(TAG_BYTES) + 1;
    for chunk in 0..whole {
        for (sums, messages) in sums.iter_mut().zip(&messages) {
            sums.add_chunk(&messages.map(|message| &message.as_chunks().0[chunk]));
        }
    }
    for chunk in whole..all.div_ceil(CHUNK_BLOCKS) {
        for (sums, messages) in sums.iter_mut().zip(&messages) {
            let chunks = messages.map(|message| last_chunk(message, chunk));
            let blocks = messages.map(|message| message.len().div_ceil(TAG_BYTES) + 1);
            sums.add_last_chunk(
                &chunks.each_ref(),
                &blocks.map(|blocks| blocks.saturating_sub(chunk * CHUNK_BLOCKS) as u64),
            );
        }
    }
    for ((tags, sums), keys) in tags.as_chunks_mut::<LANES>().0.iter_mut().zip(sums).zip(keys) {
        *tags = sums.tags(keys);
    }
    tags
}

/// A chunk of what is authenticated: the message, padded to whole blocks, and its length.
fn last_chunk(message: &[u8], chunk: usize) -> [u8; CHUNK_BYTES] {
    let mut bytes = [0; CHUNK_BYTES];
    let start = chunk * CHUNK_BYTES;
    if let Some(rest) = message.get(start..) {
        let count = rest.len().min(CHUNK_BYTES);
        bytes[..count].copy_from_slice(&rest[..count]);
    }
    // Behind the length of the associated data, which is zero.
    let length_at = message.len().next_multiple_of(TAG_BYTES) + 8;
    if let Some(room) = length_at.checked_sub(start).and_then(|at| bytes.get_mut(at..at + 8)) {
        room.copy_from_slice(&(message.len() as u64).to_le_bytes());
    }
    bytes
}

/// Of a chunk of each packet, the low and the high word of each block, with a packet in each lane.
#[target_feature(enable = "avx512f")]
#[inline]
fn words(chunks: &[&[u8; CHUNK_BYTES]; LANES]) -> [[__m512i; 2]; CHUNK_BLOCKS] {
    let [a, b, c, d] = [load(chunks[0]), load(chunks[1]), load(chunks[2]), load(chunks[3])];
    let [e, f, g, h] = [load(chunks[4]), load(chunks[5]), load(chunks[6]), load(chunks[7])];
    let low = turn_quarters([
        _mm512_unpacklo_epi64(a, b),
        _mm512_unpacklo_epi64(c, d),
        _mm512_unpacklo_epi64(e, f),
        _mm512_unpacklo_epi64(g, h),
    ]);
    let high = turn_quarters([
        _mm512_unpackhi_epi64(a, b),
        _mm512_unpackhi_epi64(c, d),
        _mm512_unpackhi_epi64(e, f),
        _mm512_unpackhi_epi64(g, h),
    ]);
    [[low[0], high[0]], [low[1], high[1]], [low[2], high[2]], [low[3], high[3]]]
}

/// What a group's packets have come to so far.
#[derive(Debug, Clone, Copy)]
struct Sums {
    sum: [__m512i; 3],
    /// The factor, and 20 times its upper limbs: what overflows 132 bits counts 20-fold, as 2^132 is 4 × 5.
    factor: [__m512i; 3],
    folded: [__m512i; 2],
}

impl Sums {
    #[target_feature(enable = "avx512f")]
    fn none() -> Self {
        let zero = _mm512_setzero_si512();
        Self { sum: [zero; 3], factor: [zero; 3], folded: [zero; 2] }
    }

    #[target_feature(enable = "avx512f")]
    fn new(keys: &[Block; LANES]) -> Self {
        let factors = keys.map(|key| half(&key, 0) & CLAMP);
        let limb = |at: u32| factors.map(|factor| (factor >> (at * LIMB_BITS)) as u64 & LIMB);
        let folded = |at: u32| limb(at).map(|limb| 20 * limb);
        Self {
            factor: [load_64(&limb(0)), load_64(&limb(1)), load_64(&limb(2))],
            folded: [load_64(&folded(1)), load_64(&folded(2))],
            ..Self::none()
        }
    }

    /// Takes in a chunk of each packet.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn add_chunk(&mut self, chunks: &[&[u8; CHUNK_BYTES]; LANES]) {
        for [low, high] in words(chunks) {
            self.add(low, high);
        }
    }

    /// Takes in so many blocks of each packet's chunk.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn add_last_chunk(&mut self, chunks: &[&[u8; CHUNK_BYTES]; LANES], blocks: &[u64; LANES]) {
        for (at, [low, high]) in words(chunks).into_iter().enumerate() {
            let before = self.sum;
            self.add(low, high);
            let more = _mm512_cmpgt_epu64_mask(load_64(blocks), _mm512_set1_epi64(at as i64));
            for (sum, before) in self.sum.iter_mut().zip(before) {
                *sum = _mm512_mask_mov_epi64(before, more, *sum);
            }
        }
    }

    /// Takes in a block of each packet: adds it and multiplies.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn add(&mut self, low: __m512i, high: __m512i) {
        let limb = _mm512_set1_epi64(LIMB.cast_signed());
        let top_limb = _mm512_set1_epi64(TOP_LIMB.cast_signed());
        let behind = _mm512_set1_epi64(BEHIND_BLOCK.cast_signed());
        let across = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
        let [a, b, c] = self.sum;
        let a = _mm512_add_epi64(a, _mm512_and_si512(low, limb));
        let b = _mm512_add_epi64(b, _mm512_and_si512(across, limb));
        let c = _mm512_add_epi64(c, _mm512_or_si512(_mm512_srli_epi64::<24>(high), behind));

        let [r0, r1, r2] = self.factor;
        let [s1, s2] = self.folded;
        let [low_0, high_0] = products([(a, r0), (c, s1), (b, s2)]);
        let [low_1, high_1] = products([(a, r1), (c, s2), (b, r0)]);
        let [low_2, high_2] = products([(a, r2), (c, r0), (b, r1)]);

        // A product's upper part counts 2^52, which is 2^8 of the next limb, or 2^10 above the top one.
        let carried =
            _mm512_add_epi64(_mm512_slli_epi64::<8>(high_0), _mm512_srli_epi64::<44>(low_0));
        let low_1 = _mm512_add_epi64(low_1, carried);
        let carried =
            _mm512_add_epi64(_mm512_slli_epi64::<8>(high_1), _mm512_srli_epi64::<44>(low_1));
        let low_2 = _mm512_add_epi64(low_2, carried);
        let over =
            _mm512_add_epi64(_mm512_slli_epi64::<10>(high_2), _mm512_srli_epi64::<42>(low_2));
        let over = _mm512_add_epi64(over, _mm512_slli_epi64::<2>(over));
        let low_0 = _mm512_add_epi64(_mm512_and_si512(low_0, limb), over);
        self.sum = [
            _mm512_and_si512(low_0, limb),
            _mm512_add_epi64(_mm512_and_si512(low_1, limb), _mm512_srli_epi64::<44>(low_0)),
            _mm512_and_si512(low_2, top_limb),
        ];
    }

    /// Each packet's tag: the sum, fully reduced, and the second half of its key added.
    #[target_feature(enable = "avx512f")]
    fn tags(&self, keys: &[Block; LANES]) -> [[u8; TAG_BYTES]; LANES] {
        let limbs = [store_64(self.sum[0]), store_64(self.sum[1]), store_64(self.sum[2])];
        array::from_fn(|lane| {
            let limbs = limbs.map(|limb| limb[lane]);
            reduced(limbs).wrapping_add(half(&keys[lane], 1)).to_le_bytes()
        })
    }
}

/// The low and the high 52 bits of the products' sum.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn products(factors: [(__m512i, __m512i); 3]) -> [__m512i; 2] {
    let mut low = _mm512_setzero_si512();
    let mut high = _mm512_setzero_si512();
    for (a, b) in factors {
        low = _mm512_madd52lo_epu64(low, a, b);
        high = _mm512_madd52hi_epu64(high, a, b);
    }
    [low, high]
}

/// The first or the second half of a one time key.
fn half(key: &Block, at: usize) -> u128 {
    u128::from_le_bytes(key.as_chunks().0[at])
}

/// The low 128 bits of a number modulo 2^130 − 5.
fn reduced([a, b, c]: [u64; 3]) -> u128 {
    let (b, a) = (b + (a >> LIMB_BITS), a & LIMB);
    let (c, b) = (c + (b >> LIMB_BITS), b & LIMB);
    let (a, c) = (a + 5 * (c >> TOP_LIMB_BITS), c & TOP_LIMB);
    let (b, a) = (b + (a >> LIMB_BITS), a & LIMB);
    let (c, b) = (c + (b >> LIMB_BITS), b & LIMB);
    // It may still be 2^130 − 5 or a little more: then 5 more go over the top.
    let up = (a + 5) >> LIMB_BITS;
    let up = (b + up) >> LIMB_BITS;
    let over = (c + up) >> TOP_LIMB_BITS;
    let number = u128::from(a) | u128::from(b) << LIMB_BITS | u128::from(c) << (2 * LIMB_BITS);
    number.wrapping_add(u128::from(5 * over))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums near the prime are as good as never met with random keys (RFC 8439 appendix A.3 tests them with keys
    /// that no ChaCha20 key leads to).
    #[test]
    fn sums_are_reduced_fully_at_the_edges_of_the_prime() {
        let cases = [
            ([LIMB - 5, LIMB, TOP_LIMB], u128::MAX - 5),
            // The prime itself, and a little more.
            ([LIMB - 4, LIMB, TOP_LIMB], 0),
            ([LIMB - 3, LIMB, TOP_LIMB], 1),
            ([LIMB, LIMB, TOP_LIMB], 4),
            // A limb may have a few bits more.
            ([LIMB, LIMB + 1, TOP_LIMB], 4 + (1 << LIMB_BITS)),
            ([0, 0, TOP_LIMB + 1], 5),
        ];
        for (limbs, expected) in cases {
            assert_eq!(reduced(limbs), expected, "{limbs:?}");
        }
    }
}
