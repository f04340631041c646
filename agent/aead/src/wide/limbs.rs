//! Numbers modulo 2^130 − 5, one in each 64-bit lane, in limbs of 44, 44 and 42 bits.
//!
//! The processor's multiplication ignores what a factor has above 52 bits; [`Products`] says why none has.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_shrdi_epi64, _mm512_slli_epi64,
    _mm512_srli_epi64,
};

const LIMB_BITS: u32 = 44;
const TOP_LIMB_BITS: u32 = 42;
const LIMB: u64 = (1 << LIMB_BITS) - 1;
const TOP_LIMB: u64 = (1 << TOP_LIMB_BITS) - 1;
/// 2^128, in the top limb: the bit that is put behind a block.
pub(super) const BEHIND_BLOCK: u64 = 1 << (128 - 2 * LIMB_BITS);

/// The limbs of a number, the lowest first.
pub(super) type Limbs = [__m512i; 3];
/// The low and the high word of a number of 128 bits.
pub(super) type Words = [__m512i; 2];

/// The limbs of these words.
#[target_feature(enable = "avx512f,avx512vbmi2")]
#[inline]
pub(super) fn limbs([low, high]: Words) -> Limbs {
    let limb = _mm512_set1_epi64(LIMB.cast_signed());
    [
        _mm512_and_si512(low, limb),
        _mm512_and_si512(_mm512_shrdi_epi64::<44>(low, high), limb),
        _mm512_srli_epi64::<24>(high),
    ]
}

/// The sum, not carried.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn sum(a: Limbs, b: Limbs) -> Limbs {
    [_mm512_add_epi64(a[0], b[0]), _mm512_add_epi64(a[1], b[1]), _mm512_add_epi64(a[2], b[2])]
}

/// A number to multiply by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factor {
    limbs: Limbs,
    /// 20 times its upper limbs: what overflows 132 bits counts 20-fold, as 2^132 is 4 × 5.
    folded: [__m512i; 2],
}

impl Factor {
    /// Of limbs as [`limbs`] or [`Products::carried`] gives them.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn new(limbs: Limbs) -> Self {
        Self { limbs, folded: [twenty_fold(limbs[1]), twenty_fold(limbs[2])] }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn twenty_fold(limb: __m512i) -> __m512i {
    _mm512_add_epi64(_mm512_slli_epi64::<4>(limb), _mm512_slli_epi64::<2>(limb))
}

/// The sum of up to four products, not carried: of each limb what they have below 2^52, and what above.
///
/// The limbs that [`Self::carried`] gives are below 2^44, 2^44 + 2^12 and 2^42, and 20 times as much is below
/// 2^49. With a block added they are below 2^45, 2^46 and 2^43. A product of limbs is then below 2^95: the twelve
/// of a limb come to less than 2^56 below 2^52, and to less than 2^47 above. Those of the top limb, where
/// nothing is 20-fold, are below 2^91 and come to less than 2^95, of which 2^53 goes over 2^42 and counts
/// 5-fold: less than 2^12 is carried to the middle limb last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Products {
    low: Limbs,
    high: Limbs,
}

impl Products {
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    pub(super) fn of(limbs: Limbs, factor: &Factor) -> Self {
        let zero = [_mm512_setzero_si512(); 3];
        Self { low: zero, high: zero }.and(limbs, factor)
    }

    /// With one more.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    pub(super) fn and(self, [a, b, c]: Limbs, factor: &Factor) -> Self {
        let [r0, r1, r2] = factor.limbs;
        let [s1, s2] = factor.folded;
        let columns =
            [[(a, r0), (c, s1), (b, s2)], [(a, r1), (c, s2), (b, r0)], [(a, r2), (c, r0), (b, r1)]];
        let Self { mut low, mut high } = self;
        for (at, column) in columns.into_iter().enumerate() {
            for (x, y) in column {
                low[at] = _mm512_madd52lo_epu64(low[at], x, y);
                high[at] = _mm512_madd52hi_epu64(high[at], x, y);
            }
        }
        Self { low, high }
    }

    /// As a number modulo the prime.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn carried(self) -> Limbs {
        let limb = _mm512_set1_epi64(LIMB.cast_signed());
        let top_limb = _mm512_set1_epi64(TOP_LIMB.cast_signed());
        let Self { low: [a, b, c], high: [a_high, b_high, c_high] } = self;
        // A product's upper part counts 2^52, which is 2^8 of the next limb, or 2^10 above the top one.
        let carry = _mm512_add_epi64(_mm512_slli_epi64::<8>(a_high), _mm512_srli_epi64::<44>(a));
        let b = _mm512_add_epi64(b, carry);
        let carry = _mm512_add_epi64(_mm512_slli_epi64::<8>(b_high), _mm512_srli_epi64::<44>(b));
        let c = _mm512_add_epi64(c, carry);
        let over = _mm512_add_epi64(_mm512_slli_epi64::<10>(c_high), _mm512_srli_epi64::<42>(c));
        let over = _mm512_add_epi64(over, _mm512_slli_epi64::<2>(over));
        let a = _mm512_add_epi64(_mm512_and_si512(a, limb), over);
        [
            _mm512_and_si512(a, limb),
            _mm512_add_epi64(_mm512_and_si512(b, limb), _mm512_srli_epi64::<44>(a)),
            _mm512_and_si512(c, top_limb),
        ]
    }
}

/// The low 128 bits of carried limbs, modulo 2^130 − 5.
pub(super) fn reduced([a, b, c]: [u64; 3]) -> u128 {
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
