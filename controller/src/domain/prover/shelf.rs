//! Blocks in order: which of them cover a block, and which lie in it, without asking each.

use super::block::Block;

/// Blocks, each with the position of what it belongs to, in the order that [`Block`] has.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    entries: Vec<(Block, u32)>,
    /// Lengths in use, by family.
    lengths: Vec<(bool, u8)>,
}

impl Shelf {
    /// The blocks with their places in the sequence, from 0.
    pub(super) fn numbered(blocks: impl Iterator<Item = Block>) -> Self {
        blocks.zip(0..).collect()
    }

    /// Positions of the blocks that cover all of `block`, itself included.
    pub(super) fn covering(&self, block: Block) -> impl Iterator<Item = u32> {
        let lengths = self.lengths.iter();
        let fitting =
            lengths.filter(move |(ipv6, length)| *ipv6 == block.ipv6 && *length <= block.length);
        fitting.flat_map(move |&(_, length)| {
            let outer = block.cut_to(length);
            let from = self.entries.partition_point(|(held, _)| *held < outer);
            let equal = self.entries[from..].iter().take_while(move |(held, _)| *held == outer);
            equal.map(|(_, at)| *at)
        })
    }

    /// The blocks that lie in `block` and are not all of it.
    pub(super) fn inside(&self, block: Block) -> &[(Block, u32)] {
        let after = |end: Block| self.entries.partition_point(|(held, _)| *held <= end);
        // No block is longer than 128 bits, so this one is past everything that begins in `block`.
        let end = Block { first: block.last(), length: u8::MAX, ..block };
        &self.entries[after(block)..after(end)]
    }

    /// Positions of the blocks that have an address in common with `block`.
    pub(super) fn meeting(&self, block: Block) -> impl Iterator<Item = u32> {
        self.covering(block).chain(self.inside(block).iter().map(|(_, at)| *at))
    }
}

impl FromIterator<(Block, u32)> for Shelf {
    fn from_iter<I: IntoIterator<Item = (Block, u32)>>(entries: I) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_unstable();
        let mut lengths: Vec<_> =
            entries.iter().map(|(block, _)| (block.ipv6, block.length)).collect();
        lengths.sort_unstable();
        lengths.dedup();
        Self { entries, lengths }
    }
}
