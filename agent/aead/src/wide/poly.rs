//! Poly1305 (RFC 8439 §2.5) of many packets, one in each 64-bit lane.
//!
//! Packets end together. Before a shorter one come zeros, without the bit that is put behind a block, so that
//! its sum stays zero until it begins.

use std::arch::x86_64::{
    __m512i, _mm512_and_si512, _mm512_cmpge_epi64_mask, _mm512_mask_add_epi64, _mm512_or_si512,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
};
use std::array;

use super::lanes::{load, load_64, load_part, store_64, turn_quarters};
use super::limbs::{BEHIND_BLOCK, Factor, Limbs, Products, Words, limbs, reduced, sum};
use super::message_bytes;
use crate::{BATCH, Piece, TAG_BYTES};

/// Packets of a group: the lanes of a register.
const LANES: usize = 8;
/// Bytes that are read of each packet at once, and the blocks that they are.
const CHUNK_BYTES: usize = 64;
const CHUNK_BLOCKS: usize = CHUNK_BYTES / TAG_BYTES;

/// What the words of a one time key's first half are masked with (RFC 8439 §2.5.1).
const CLAMP: [u64; 2] = [0x0fff_fffc_0fff_ffff, 0x0fff_fffc_0fff_fffc];

/// The tag of each piece's message, with no associated data (RFC 8439 §2.8). Its one time key is the first
/// half of its register.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2")]
pub(super) fn tags(one_time: &[__m512i; BATCH], pieces: &[Piece<'_>]) -> [[u8; TAG_BYTES]; BATCH] {
    let mut tags = [[0; TAG_BYTES]; BATCH];
    // One group after the other: the powers of its keys fill the registers.
    let groups = tags.as_chunks_mut::<LANES>().0.iter_mut().zip(one_time.as_chunks().0);
    for ((tags, keys), pieces) in groups.zip(pieces.chunks(LANES)) {
        *tags = group_tags(keys, pieces);
    }
    tags
}

/// The tags of as many pieces as there are lanes, or fewer, but one at least.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2")]
fn group_tags(keys: &[__m512i; LANES], pieces: &[Piece<'_>]) -> [[u8; TAG_BYTES]; LANES] {
    // A lane without a piece does again what another one does.
    let group = Group::new(array::from_fn(|lane| {
        let piece = &pieces[lane.min(pieces.len() - 1)];
        &piece.bytes[..message_bytes(piece)]
    }));
    let mut sums = Sums::new(keys);
    // The last chunk has the lengths.
    let (whole, last) = (group.whole_from(), group.chunks - 1);
    for chunk in 0..whole.min(last) {
        sums.add_part(&group, chunk, false);
    }
    sums.add_bodies(&group.bodies(whole), last.saturating_sub(whole));
    sums.add_part(&group, last, true);
    sums.tags()
}

/// How many a message has, padded to whole ones, with that of its length.
fn blocks(message: &[u8]) -> usize {
    message.len().div_ceil(TAG_BYTES) + 1
}

/// Of a chunk of each packet, the words of each block, with a packet in each lane.
#[target_feature(enable = "avx512f")]
#[inline]
fn words([a, b, c, d, e, f, g, h]: [__m512i; LANES]) -> [Words; CHUNK_BLOCKS] {
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

/// What the lanes are to take in.
struct Group<'a> {
    messages: [&'a [u8]; LANES],
    /// How many bytes behind the beginning of the first chunk each message begins.
    starts: [usize; LANES],
    /// As many as the longest message has.
    chunks: usize,
}

impl<'a> Group<'a> {
    fn new(messages: [&'a [u8]; LANES]) -> Self {
        let blocks = messages.map(blocks);
        let chunks = blocks.iter().max().map_or(1, |most| most.div_ceil(CHUNK_BLOCKS));
        let starts = blocks.map(|blocks| chunks * CHUNK_BYTES - blocks * TAG_BYTES);
        Self { messages, starts, chunks }
    }

    /// The first chunk before which all of them have begun.
    fn whole_from(&self) -> usize {
        self.starts.iter().max().map_or(0, |start| start.div_ceil(CHUNK_BYTES))
    }

    /// The whole chunks of each message from this one on.
    fn bodies(&self, chunk: usize) -> [&'a [[u8; CHUNK_BYTES]]; LANES] {
        array::from_fn(|lane| {
            let rest = self.messages[lane].get(chunk * CHUNK_BYTES - self.starts[lane]..);
            rest.unwrap_or_default().as_chunks().0
        })
    }
}

/// What a group's packets have come to so far.
#[derive(Debug, Clone, Copy)]
struct Sums {
    sum: Limbs,
    /// The key's first half, to the powers from 4 to 1.
    powers: [Factor; CHUNK_BLOCKS],
    /// The key's second half.
    end: Words,
}

impl Sums {
    #[target_feature(enable = "avx512f,avx512ifma,avx512vbmi2")]
    fn new(keys: &[__m512i; LANES]) -> Self {
        let [[low, high], end, ..] = words(*keys);
        let [clamp_low, clamp_high] = CLAMP.map(|word| _mm512_set1_epi64(word.cast_signed()));
        let first = limbs([_mm512_and_si512(low, clamp_low), _mm512_and_si512(high, clamp_high)]);
        let factor = Factor::new(first);
        let second = Products::of(first, &factor).carried();
        let square = Factor::new(second);
        let third = Products::of(first, &square).carried();
        let fourth = Products::of(second, &square).carried();
        Self {
            sum: [_mm512_setzero_si512(); 3],
            powers: [Factor::new(fourth), Factor::new(third), square, factor],
            end,
        }
    }

    /// Takes in so many chunks of each message. By itself, so that the powers stay in registers.
    #[target_feature(enable = "avx512f,avx512ifma,avx512vbmi2")]
    #[inline(never)]
    fn add_bodies(&mut self, bodies: &[&[[u8; CHUNK_BYTES]]; LANES], chunks: usize) {
        let mut sums = *self;
        for chunk in 0..chunks {
            sums.add_whole(&bodies.map(|body| &body[chunk]));
        }
        *self = sums;
    }

    /// Takes in a chunk of each message.
    #[target_feature(enable = "avx512f,avx512ifma,avx512vbmi2")]
    #[inline]
    fn add_whole(&mut self, chunks: &[&[u8; CHUNK_BYTES]; LANES]) {
        let [a, b, c, d, e, f, g, h] = *chunks;
        let words = words([load(a), load(b), load(c), load(d), load(e), load(f), load(g), load(h)]);
        let behind = _mm512_set1_epi64(BEHIND_BLOCK.cast_signed());
        self.add(words.map(|words| {
            let [a, b, c] = limbs(words);
            [a, b, _mm512_or_si512(c, behind)]
        }));
    }

    /// Takes in a chunk before or in which a message may begin or end; the last one has their lengths.
    #[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2")]
    fn add_part(&mut self, group: &Group<'_>, chunk: usize, last: bool) {
        let mut chunks = [_mm512_setzero_si512(); LANES];
        let mut ats = [0; LANES];
        for lane in 0..LANES {
            let at = (chunk * CHUNK_BYTES) as isize - group.starts[lane] as isize;
            chunks[lane] = load_part(group.messages[lane], at);
            ats[lane] = at as u64;
        }
        let mut words = words(chunks);
        if last {
            // Behind the length of the associated data, which is zero.
            words[CHUNK_BLOCKS - 1][1] =
                load_64(&group.messages.map(|message| message.len() as u64));
        }
        let ats = load_64(&ats);
        let behind = _mm512_set1_epi64(BEHIND_BLOCK.cast_signed());
        let mut blocks = [self.sum; CHUNK_BLOCKS];
        for (at, (block, words)) in blocks.iter_mut().zip(words).enumerate() {
            let first = _mm512_set1_epi64(-((at * TAG_BYTES) as i64));
            let begun = _mm512_cmpge_epi64_mask(ats, first);
            let [a, b, c] = limbs(words);
            *block = [a, b, _mm512_mask_add_epi64(c, begun, c, behind)];
        }
        self.add(blocks);
    }

    /// Takes in four blocks of each packet with one reduction. The one that the sum is added to comes last: the
    /// others do not wait for it.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn add(&mut self, [a, b, c, d]: [Limbs; CHUNK_BLOCKS]) {
        let [power_4, power_3, power_2, power_1] = &self.powers;
        let others = Products::of(d, power_1).and(c, power_2).and(b, power_3);
        self.sum = others.and(sum(self.sum, a), power_4).carried();
    }

    /// Each packet's tag: the sum, fully reduced, and the second half of its key added.
    #[target_feature(enable = "avx512f")]
    fn tags(&self) -> [[u8; TAG_BYTES]; LANES] {
        let [a, b, c] = [store_64(self.sum[0]), store_64(self.sum[1]), store_64(self.sum[2])];
        let [low, high] = [store_64(self.end[0]), store_64(self.end[1])];
        array::from_fn(|lane| {
            let end = u128::from(low[lane]) | u128::from(high[lane]) << 64;
            reduced([a[lane], b[lane], c[lane]]).wrapping_add(end).to_le_bytes()
        })
    }
}
