//! The TUN as a worker uses it: bursts out of it, batches into it.
//!
//! Where the kernel takes super-packets, packets of one flow go in one write. A kernel that refuses one
//! gets the packets one by one, and no more of that kind if it takes those: nothing is lost on the way.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use partywall_datapath::offload::{
    Batch, Burst, BurstError, Coalescer, Gathered, Merging, VNET_HEADER_BYTES,
};
use partywall_datapath::shard::Outbox;

use crate::dataplane::loss::{Loss, Losses};
use crate::sys::tun::{Offload, TunQueue};

/// The largest super-packet that the kernel makes, and its header.
const READ_MAX_BYTES: usize = VNET_HEADER_BYTES + 65_536;
/// A header, and as many payloads as one group has.
const PARTS_MAX: usize = 1 + Gathered::COUNT_MAX;

/// One queue of the TUN.
#[derive(Debug)]
pub(super) struct TunPort {
    queue: TunQueue,
    coalescer: Coalescer,
}

/// The memory that the TUN is read into, allocated once.
pub(super) struct TunInlet(Box<[u8]>);

impl TunInlet {
    pub(super) fn new() -> Self {
        Self(vec![0; READ_MAX_BYTES].into_boxed_slice())
    }
}

impl TunPort {
    pub(super) fn new(queue: TunQueue) -> Self {
        let Offload { tcp, udp, .. } = queue.offload();
        Self { queue, coalescer: Coalescer::new(Merging { tcp, udp }, Outbox::ITEMS) }
    }

    /// Reads a packet or a super-packet, as the kernel gives it. `WouldBlock` when there is none.
    pub(super) fn receive<'a>(&self, inlet: &'a mut TunInlet) -> io::Result<&'a mut [u8]> {
        let bytes = self.queue.read(&mut inlet.0)?;
        Ok(&mut inlet.0[..bytes])
    }

    /// The IP packet in what this queue, or another of the same TUN, gave.
    pub(super) fn packet<'a>(&self, read: &'a [u8]) -> &'a [u8] {
        let header_bytes = if self.queue.offload().headers { VNET_HEADER_BYTES } else { 0 };
        read.get(header_bytes..).unwrap_or_default()
    }

    /// What this queue, or another of the same TUN, gave, to be taken packet by packet.
    ///
    /// # Errors
    /// A super-packet that cannot be.
    pub(super) fn burst<'a>(&self, read: &'a mut [u8]) -> Result<Burst<'a>, BurstError> {
        if self.queue.offload().headers { Burst::read(read) } else { Ok(Burst::single(read)) }
    }

    /// Writes packets, in order. What the kernel would not take is counted.
    pub(super) fn deliver(&mut self, batch: Batch<'_>, losses: &mut Losses) {
        let Self { queue, coalescer } = self;
        if !queue.offload().headers {
            for packet in batch.packets() {
                count(queue.write(&[IoSlice::new(packet)]), 1, losses);
            }
            return;
        }
        if batch.len() < 2 {
            // Nobody to be merged with.
            write_singly(queue, batch.packets(), losses);
            return;
        }
        let mut merging = coalescer.merging();
        for gathered in coalescer.gather(batch) {
            let written = write(queue, &gathered);
            match written {
                Err(refused) if gathered.count() > 1 && refused.kind() != ErrorKind::WouldBlock => {
                    if write_singly(queue, gathered.packets(), losses) {
                        merging = merging.without(gathered.kind());
                    }
                }
                Ok(_) | Err(_) => count(written, gathered.count() as u64, losses),
            }
        }
        coalescer.set_merging(merging);
    }
}

impl AsFd for TunPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

fn write(queue: &TunQueue, gathered: &Gathered<'_>) -> io::Result<usize> {
    let headers = IoSlice::new(gathered.headers());
    let mut payloads = gathered.payloads();
    if gathered.count() == 1 {
        return queue.write(&[headers, IoSlice::new(payloads.next().unwrap_or_default())]);
    }
    let mut parts = [headers; PARTS_MAX];
    let mut used = 1;
    for (part, payload) in parts[1..].iter_mut().zip(payloads) {
        *part = IoSlice::new(payload);
        used += 1;
    }
    queue.write(&parts[..used])
}

/// Writes packets each by itself; whether the kernel took any.
fn write_singly<'a>(
    queue: &TunQueue,
    packets: impl Iterator<Item = &'a [u8]>,
    losses: &mut Losses,
) -> bool {
    let header = Gathered::plain_header();
    let mut taken = false;
    for packet in packets {
        let written = queue.write(&[IoSlice::new(&header), IoSlice::new(packet)]);
        taken |= written.is_ok();
        count(written, 1, losses);
    }
    taken
}

fn count(written: io::Result<usize>, packets: u64, losses: &mut Losses) {
    match written {
        Ok(_) => {}
        Err(refused) if refused.kind() == ErrorKind::WouldBlock => {
            losses.add(Loss::TunFull, packets);
        }
        Err(_) => losses.add(Loss::TunRefused, packets),
    }
}
