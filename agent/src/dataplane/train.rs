//! Datagrams of one sender that came in one read, one after the other.

use partywall_datapath::shard::Origin;

/// Datagrams of one sender. An empty one is one too, that somebody sent.
#[derive(Debug)]
pub(super) struct Train<'a> {
    /// The sender.
    pub(super) from: Origin,
    /// The size of each, but the last may be shorter.
    pub(super) segment_bytes: usize,
    /// All of them.
    pub(super) bytes: &'a mut [u8],
}

impl<'a> Train<'a> {
    /// The whole in parts: as many datagrams as come together and have the same owner, and whose they are.
    pub(super) fn by_owner<T: PartialEq>(
        self,
        owner: impl Fn(&[u8]) -> T,
    ) -> impl Iterator<Item = (T, Train<'a>)> {
        let Self { from, segment_bytes, bytes } = self;
        let mut left = Some(bytes);
        std::iter::from_fn(move || {
            let bytes = left.take()?;
            let mut datagrams = bytes.chunks(segment_bytes);
            let first = datagrams.next().unwrap_or_default();
            let of = owner(first);
            let alike = datagrams.take_while(|datagram| owner(datagram) == of);
            let count = first.len() + alike.map(<[u8]>::len).sum::<usize>();
            let (bytes, rest) = bytes.split_at_mut(count);
            left = Some(rest).filter(|rest| !rest.is_empty());
            Some((of, Train { from, segment_bytes, bytes }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn a_train_comes_in_parts_of_one_owner_and_nothing_is_left_out() {
        let from = Origin::from(SocketAddr::from(([192, 0, 2, 1], 1)));
        let parts = |bytes: &mut [u8]| -> Vec<(u8, Vec<u8>)> {
            let train = Train { from, segment_bytes: 2, bytes };
            let parts = train.by_owner(|datagram| datagram.first().copied().unwrap_or(9));
            parts.map(|(owner, part)| (owner, part.bytes.to_vec())).collect()
        };
        assert_eq!(
            parts(&mut [1, 0, 1, 1, 2, 0, 1, 2, 1]),
            [(1, vec![1, 0, 1, 1]), (2, vec![2, 0]), (1, vec![1, 2, 1])]
        );
        assert_eq!(parts(&mut [7]), [(7, vec![7])]);
        assert_eq!(parts(&mut []), [(9, vec![])]);
    }
}
