//! Between memory and registers of 512 bits.
#![expect(unsafe_code, reason = "the only loads and stores that there are take pointers")]

use std::arch::x86_64::{
    __m512i, _mm512_loadu_si512, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8,
    _mm512_shuffle_i32x4, _mm512_storeu_si512,
};

/// A register with these bytes.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes are there to be read, and the load asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// A register with these 16 numbers, the first one in the lowest lane.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load_32(lanes: &[u32; 16]) -> __m512i {
    // SAFETY: as above.
    unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
}

/// A register with these 8 numbers, the first one in the lowest lane.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load_64(lanes: &[u64; 8]) -> __m512i {
    // SAFETY: as above.
    unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
}

/// A register with the 64 bytes that begin there, and zeros where there are none, before the first and
/// behind the last.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(super) fn load_part(bytes: &[u8], at: isize) -> __m512i {
    // SAFETY: what is not of the slice has no bit set, and is not read.
    unsafe { _mm512_maskz_loadu_epi8(within(bytes, at), bytes.as_ptr().wrapping_offset(at).cast()) }
}

/// A bit for each of the 64 places from there on that is one of the slice.
fn within(bytes: &[u8], at: isize) -> u64 {
    let places_from = |place: isize| u64::MAX.checked_shl(place.clamp(0, 64) as u32).unwrap_or(0);
    places_from(-at) & !places_from(bytes.len() as isize - at)
}

/// Writes a register's bytes.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn store(register: __m512i, bytes: &mut [u8; 64]) {
    // SAFETY: there is room for 64 bytes, and the store asks for no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), register) }
}

/// A register's 8 numbers, that of the lowest lane first.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn store_64(register: __m512i) -> [u64; 8] {
    let mut lanes = [0; 8];
    // SAFETY: as above.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), register) }
    lanes
}

/// Writes as many of a register's bytes as there is room for.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(super) fn store_part(register: __m512i, bytes: &mut [u8]) {
    // SAFETY: what is not of the slice has no bit set, and is not written.
    unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), within(bytes, 0), register) }
}

/// Four registers as a square of quarters of 128 bits, with rows and columns exchanged.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn turn_quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    /// The even quarters of both, and the odd ones.
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    let ab_even = _mm512_shuffle_i32x4::<EVEN>(a, b);
    let ab_odd = _mm512_shuffle_i32x4::<ODD>(a, b);
    let cd_even = _mm512_shuffle_i32x4::<EVEN>(c, d);
    let cd_odd = _mm512_shuffle_i32x4::<ODD>(c, d);
    [
        _mm512_shuffle_i32x4::<EVEN>(ab_even, cd_even),
        _mm512_shuffle_i32x4::<EVEN>(ab_odd, cd_odd),
        _mm512_shuffle_i32x4::<ODD>(ab_even, cd_even),
        _mm512_shuffle_i32x4::<ODD>(ab_odd, cd_odd),
    ]
}
