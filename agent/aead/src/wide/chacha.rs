//! ChaCha20 (RFC 8439 §2.3): one block in each 32-bit lane.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_mask_add_epi32, _mm512_mask_set1_epi32, _mm512_rol_epi32,
    _mm512_set1_epi32, _mm512_setzero_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use super::lanes::{load_32, turn_quarters};

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 64;
/// Blocks of a set: one in each lane.
pub(super) const LANES: usize = 16;

/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
const LANE_NUMBERS: [u32; LANES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// Of two rounds each.
const DOUBLE_ROUNDS: usize = 10;

/// Which block each lane of a set makes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    numbers: __m512i,
    counters: [__m512i; 2],
}

impl Places {
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn none() -> Self {
        let zero = _mm512_setzero_si512();
        Self { numbers: zero, counters: [zero; 2] }
    }

    /// Has this lane and those behind it make the blocks from this number on of the packet with this
    /// counter as its nonce.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn set_from(&mut self, lane: usize, counter: u64, number: u32) {
        let lanes = u16::MAX << lane;
        let ahead = _mm512_set1_epi32(number.wrapping_sub(lane as u32).cast_signed());
        self.numbers = _mm512_mask_add_epi32(self.numbers, lanes, load_32(&LANE_NUMBERS), ahead);
        for (words, shift) in self.counters.iter_mut().zip([0, 32]) {
            *words = _mm512_mask_set1_epi32(*words, lanes, (counter >> shift) as i32);
        }
    }

    /// The lanes before the first round: of each word of a block, that of all blocks in a register.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn rows(&self, key: &[u32; 8]) -> [__m512i; 16] {
        let mut rows = [_mm512_setzero_si512(); 16];
        for (row, &word) in rows.iter_mut().zip(CONSTANTS.iter().chain(key)) {
            *row = _mm512_set1_epi32(word.cast_signed());
        }
        rows[12] = self.numbers;
        // The nonce's first word is zero.
        [rows[14], rows[15]] = self.counters;
        rows
    }
}

/// The keystream's blocks at these places, each in a register. Two sets at once fill the registers, and the rounds
/// of one the gaps that those of the other leave.
#[target_feature(enable = "avx512f")]
pub(super) fn blocks<const SETS: usize>(
    key: &[u32; 8],
    places: &[Places; SETS],
) -> [[__m512i; LANES]; SETS] {
    let firsts = places.each_ref().map(|places| places.rows(key));
    let mut sets = firsts;
    for _ in 0..DOUBLE_ROUNDS {
        sets = sets.map(|rows| double_round(rows));
    }
    for (row, first) in sets.as_flattened_mut().iter_mut().zip(firsts.as_flattened()) {
        *row = _mm512_add_epi32(*row, *first);
    }
    sets.map(|rows| transpose(&rows))
}

/// Quarter rounds of the columns, and then of the diagonals.
#[target_feature(enable = "avx512f")]
#[inline]
fn double_round(rows: [__m512i; 16]) -> [__m512i; 16] {
    let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = rows;
    let columns = [[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3]];
    let [a, [b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3]] = quarter_rounds(columns);
    let diagonals = [a, [b1, b2, b3, b0], [c2, c3, c0, c1], [d3, d0, d1, d2]];
    let [[a0, a1, a2, a3], [b1, b2, b3, b0], [c2, c3, c0, c1], [d3, d0, d1, d2]] =
        quarter_rounds(diagonals);
    [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3]
}

/// A word of each of four quarter rounds.
type Four = [__m512i; 4];

/// Four quarter rounds (RFC 8439 §2.1), step by step side by side: one alone has nothing to do while it waits for
/// each result. The compiler keeps that order, and a processor looks ahead over few instructions only.
#[target_feature(enable = "avx512f")]
#[inline]
fn quarter_rounds([a, b, c, d]: [Four; 4]) -> [Four; 4] {
    let (a, d) = steps::<16>(a, b, d);
    let (c, b) = steps::<12>(c, d, b);
    let (a, d) = steps::<8>(a, b, d);
    let (c, b) = steps::<7>(c, d, b);
    [a, b, c, d]
}

/// Adds `y` to `x`, and mixes that into `z`.
#[target_feature(enable = "avx512f")]
#[inline]
fn steps<const LEFT: i32>(x: Four, y: Four, z: Four) -> (Four, Four) {
    let ([x0, x1, x2, x3], [y0, y1, y2, y3], [z0, z1, z2, z3]) = (x, y, z);
    let (x0, z0) = step::<LEFT>(x0, y0, z0);
    let (x1, z1) = step::<LEFT>(x1, y1, z1);
    let (x2, z2) = step::<LEFT>(x2, y2, z2);
    let (x3, z3) = step::<LEFT>(x3, y3, z3);
    ([x0, x1, x2, x3], [z0, z1, z2, z3])
}

#[target_feature(enable = "avx512f")]
#[inline]
fn step<const LEFT: i32>(x: __m512i, y: __m512i, z: __m512i) -> (__m512i, __m512i) {
    let x = _mm512_add_epi32(x, y);
    (x, _mm512_rol_epi32::<LEFT>(_mm512_xor_si512(z, x)))
}

/// From a word of each block in a register to a block in a register.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose(rows: &[__m512i; 16]) -> [__m512i; LANES] {
    // By four rows: in each quarter of a register, these four words of one block.
    let mut words = [[rows[0]; 4]; 4];
    for (words, rows) in words.iter_mut().zip(rows.as_chunks::<4>().0) {
        let [a, b, c, d] = *rows;
        let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
        let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
        *words = [
            _mm512_unpacklo_epi64(ab, cd),
            _mm512_unpackhi_epi64(ab, cd),
            _mm512_unpacklo_epi64(ab_high, cd_high),
            _mm512_unpackhi_epi64(ab_high, cd_high),
        ];
    }
    let mut blocks = [rows[0]; LANES];
    for column in 0..4 {
        let quarters = turn_quarters(words.map(|words| words[column]));
        for (at, block) in quarters.into_iter().enumerate() {
            blocks[4 * at + column] = block;
        }
    }
    blocks
}
