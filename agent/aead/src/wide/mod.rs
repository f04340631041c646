//! The cipher on registers of 512 bits: 32 ChaCha20 blocks at once, of whichever packets, and Poly1305 of eight
//! packets, one in each 64-bit lane.
//!
//! Nothing branches on a key or a message, and no address depends on one; only lengths decide what is done.
//! Every function in here needs the processor that [`Key::new`] has looked for.

mod chacha;
mod lanes;
mod limbs;
mod poly;

use std::arch::x86_64::{__m512i, _mm512_xor_si512};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{BATCH, KEY_BYTES, Piece, TAG_BYTES, split};
use chacha::{BLOCK_BYTES, LANES, Places};
use lanes::{load, load_part, store, store_part};

/// Fewer are sealed one by one: most of the lanes would be idle, and short ones take longer so.
pub(crate) const PIECES_MIN: usize = 4;

/// Sets of blocks that are made at once.
const SETS: usize = 2;

/// A key for this processor.
pub(crate) struct Key(Zeroizing<[u32; 8]>);

impl Key {
    /// None if this processor is not wide enough.
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Option<Self> {
        let able = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512ifma")
            && is_x86_feature_detected!("avx512vbmi2");
        let mut words = Zeroizing::new([0; 8]);
        for (word, bytes) in words.iter_mut().zip(key.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        able.then_some(Self(words))
    }

    /// Seals at most [`BATCH`] pieces.
    pub(crate) fn seal(&self, pieces: &mut [Piece<'_>]) {
        // SAFETY: a key is only made where the processor has these features.
        #[expect(unsafe_code, reason = "the compiler does not know which processor it will be")]
        unsafe {
            seal(&self.0, pieces);
        }
    }

    /// Opens at most [`BATCH`] pieces; a bit for each that is authentic.
    pub(crate) fn open(&self, pieces: &mut [Piece<'_>]) -> u16 {
        // SAFETY: a key is only made where the processor has these features.
        #[expect(unsafe_code, reason = "the compiler does not know which processor it will be")]
        unsafe {
            open(&self.0, pieces)
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2")]
fn seal(key: &[u32; 8], pieces: &mut [Piece<'_>]) {
    let one_time = one_time_keys(key, pieces);
    apply_keystream(key, pieces, u16::MAX);
    let tags = poly::tags(&one_time, pieces);
    for (piece, tag) in pieces.iter_mut().zip(tags) {
        let at = message_bytes(piece);
        piece.bytes[at..].copy_from_slice(&tag);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2")]
fn open(key: &[u32; 8], pieces: &mut [Piece<'_>]) -> u16 {
    let one_time = one_time_keys(key, pieces);
    let tags = poly::tags(&one_time, pieces);
    let mut authentic = 0;
    for (at, (piece, tag)) in pieces.iter().zip(tags).enumerate() {
        let given = piece.bytes.last_chunk().map_or(0, |given| u128::from_le_bytes(*given));
        let equal = given.ct_eq(&u128::from_le_bytes(tag));
        authentic |= u16::from(equal.unwrap_u8()) << at;
    }
    apply_keystream(key, pieces, authentic);
    authentic
}

/// Each piece's block 0, the first half of which is its key for Poly1305 (RFC 8439 §2.6).
#[target_feature(enable = "avx512f")]
fn one_time_keys(key: &[u32; 8], pieces: &[Piece<'_>]) -> [__m512i; BATCH] {
    let mut places = Places::none();
    for (at, piece) in pieces.iter().enumerate() {
        places.set_from(at, piece.counter, 0);
    }
    let [blocks] = chacha::blocks(key, &[places]);
    blocks
}

/// Encrypts or decrypts the messages of those pieces whose bits are set: as many blocks at once as there
/// are lanes in all sets, whichever pieces they belong to.
#[target_feature(enable = "avx512f,avx512bw")]
fn apply_keystream(key: &[u32; 8], pieces: &mut [Piece<'_>], wanted: u16) {
    let mut places = [Places::none(); SETS];
    let mut runs = [Run::default(); SETS * LANES];
    let mut count = 0;
    let mut lane = 0;
    for at in (0..pieces.len()).filter(|at| wanted & (1 << at) != 0) {
        let blocks = message_bytes(&pieces[at]).div_ceil(BLOCK_BYTES);
        let mut done = 0;
        while done < blocks {
            let (set, first) = (lane / LANES, lane % LANES);
            let lanes = (blocks - done).min(LANES - first);
            // Block 0 made the key for the tag.
            places[set].set_from(first, pieces[at].counter, 1 + done as u32);
            runs[count] = Run { lane, lanes, piece: at, start: done * BLOCK_BYTES };
            count += 1;
            done += lanes;
            lane += lanes;
            if lane == SETS * LANES {
                apply_blocks(&chacha::blocks(key, &places), &runs[..count], pieces);
                (count, lane) = (0, 0);
            }
        }
    }
    let runs = &runs[..count];
    match lane {
        0 => {}
        1..=LANES => apply_blocks(&chacha::blocks(key, &[places[0]]), runs, pieces),
        _ => apply_blocks(&chacha::blocks(key, &places), runs, pieces),
    }
}

/// What the blocks of neighbouring lanes are for.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    /// The first lane of all sets', and how many there are.
    lane: usize,
    lanes: usize,
    piece: usize,
    /// Where in its message.
    start: usize,
}

#[target_feature(enable = "avx512f,avx512bw")]
fn apply_blocks(sets: &[[__m512i; LANES]], runs: &[Run], pieces: &mut [Piece<'_>]) {
    let blocks = sets.as_flattened();
    for run in runs {
        let blocks = &blocks[run.lane..][..run.lanes];
        let (message, _) = split(pieces[run.piece].bytes);
        let (whole, part) = message[run.start..].as_chunks_mut::<BLOCK_BYTES>();
        if let Some(block) = blocks.get(whole.len()) {
            store_part(_mm512_xor_si512(load_part(part, 0), *block), part);
        }
        for (bytes, block) in whole.iter_mut().zip(blocks) {
            store(_mm512_xor_si512(load(bytes), *block), bytes);
        }
    }
}

fn message_bytes(piece: &Piece<'_>) -> usize {
    piece.bytes.len() - TAG_BYTES
}
