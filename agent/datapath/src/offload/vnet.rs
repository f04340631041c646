//! The header that precedes each packet on a TUN opened with `IFF_VNET_HDR`: `struct virtio_net_hdr`
//! of `linux/virtio_net.h`, in the machine's byte order.

/// Its size.
pub const VNET_HEADER_BYTES: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the transport checksum covers the pseudo-header only, so far.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_ECN`, which goes beside a type: the first segment carries CWR.
const ECN: u8 = 0x80;
// `VIRTIO_NET_HDR_GSO_*`. Type 3 is the UDP fragmentation offload, which no kernel since 4.14 has.
const NONE: u8 = 0;
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
const UDP: u8 = 5;

/// What the packets of a burst are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One packet.
    Single,
    /// TCP segments.
    Tcp,
    /// UDP datagrams.
    Udp,
}

/// The header, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VnetHeader {
    pub(super) kind: Kind,
    /// Payload of each packet but the last. 0 for [`Kind::Single`].
    pub(super) segment_bytes: u16,
    /// Where the checksum begins to cover, if it is yet to be completed, and where its field is,
    /// counted from there.
    pub(super) checksum: Option<(u16, u16)>,
    /// Where the payload begins. The kernel wants it, and does not promise it.
    pub(super) header_bytes: u16,
    /// Whether the first TCP segment carries CWR (RFC 3168 §6.1.2).
    pub(super) congestion_reduced: bool,
}

impl VnetHeader {
    /// One packet whose checksums are what they are.
    pub(super) const PLAIN: [u8; VNET_HEADER_BYTES] = [0; VNET_HEADER_BYTES];

    /// Reads a header; none for a kind that was never asked for.
    pub(super) fn read(bytes: &[u8; VNET_HEADER_BYTES]) -> Option<Self> {
        let [flags, kind, ..] = *bytes;
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let kind = match kind & !ECN {
            NONE => Kind::Single,
            TCP_V4 | TCP_V6 => Kind::Tcp,
            UDP => Kind::Udp,
            _ => return None,
        };
        Some(Self {
            kind,
            segment_bytes: word(4),
            checksum: (flags & NEEDS_CHECKSUM != 0).then(|| (word(6), word(8))),
            header_bytes: word(2),
            congestion_reduced: bytes[1] & ECN != 0,
        })
    }

    /// The header for a packet of the family whose version number is `version`.
    pub(super) fn write(&self, version: u8) -> [u8; VNET_HEADER_BYTES] {
        let mut bytes = Self::PLAIN;
        let kind = match (self.kind, version) {
            (Kind::Single, _) => NONE,
            (Kind::Tcp, 4) => TCP_V4,
            (Kind::Tcp, _) => TCP_V6,
            (Kind::Udp, _) => UDP,
        };
        bytes[1] = if self.congestion_reduced { kind | ECN } else { kind };
        bytes[2..4].copy_from_slice(&self.header_bytes.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.segment_bytes.to_ne_bytes());
        if let Some((start, offset)) = self.checksum {
            bytes[0] = NEEDS_CHECKSUM;
            bytes[6..8].copy_from_slice(&start.to_ne_bytes());
            bytes[8..10].copy_from_slice(&offset.to_ne_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for (kind, version) in [(Kind::Tcp, 4), (Kind::Tcp, 6), (Kind::Udp, 4), (Kind::Udp, 6)] {
            let header = VnetHeader {
                kind,
                segment_bytes: 1380,
                checksum: Some((20, 16)),
                header_bytes: 40,
                congestion_reduced: kind == Kind::Tcp,
            };
            assert_eq!(VnetHeader::read(&header.write(version)), Some(header));
        }
    }

    #[test]
    fn a_kind_that_was_not_asked_for_is_refused() {
        for kind in [2, 3, 6, 0x7f] {
            let mut bytes = VnetHeader::PLAIN;
            bytes[1] = kind;
            assert_eq!(VnetHeader::read(&bytes), None, "{kind}");
        }
    }
}
