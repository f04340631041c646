//! What one shard has read and another is to take: a mailbox for each shard, filled by all others.
//!
//! A flow's packets go through here all or none, and leave in the order in which they came: a packet must
//! never take the shorter way while an earlier one of its flow is still in a mailbox. That holds because
//! the kernel gives a flow to one queue and one socket, and an owner does not change while it lives.
//!
//! The memory is allocated once. Where a mailbox is full, what comes is dropped and counted.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use partywall_datapath::shard::{Call, Origin};

use crate::dataplane::loss::{Loss, Losses};

/// Bytes that wait in one mailbox: 16 super-packets, 0.8 ms at 10 Gb/s. The memory is touched, and
/// so taken, only where something is handed over.
const SLAB_BYTES: usize = 1 << 20;
/// Packets and datagrams that wait in one mailbox.
const SLAB_ITEMS: usize = 2048;
/// Calls that wait in one mailbox.
const SLAB_CALLS: usize = 256;

/// Something handed over, apart from its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Handed {
    /// What one read of the TUN brought.
    Packet,
    /// Datagrams that came from there, each of so many bytes, but the last may be shorter.
    Train(Origin, usize),
}

impl Handed {
    /// How many packets or datagrams these bytes are.
    fn count(self, bytes: &[u8]) -> u64 {
        match self {
            Self::Packet => 1,
            Self::Train(_, segment_bytes) => bytes.len().div_ceil(segment_bytes).max(1) as u64,
        }
    }
}

/// Things handed over, in order.
#[derive(Debug)]
pub(super) struct Slab {
    bytes: Box<[u8]>,
    used: usize,
    items: Vec<(Handed, Range<usize>)>,
    calls: Vec<Call>,
}

impl Slab {
    /// An empty slab, with all the memory that it will ever have.
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; SLAB_BYTES].into_boxed_slice(),
            used: 0,
            items: Vec::with_capacity(SLAB_ITEMS),
            calls: Vec::with_capacity(SLAB_CALLS),
        }
    }

    /// Calls to answer.
    pub(super) fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// How many packets and datagrams there are.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The packet or datagram of this number, in order of arrival.
    pub(super) fn item(&mut self, number: usize) -> (Handed, &mut [u8]) {
        let (handed, range) = &self.items[number];
        (*handed, &mut self.bytes[range.clone()])
    }

    /// Forgets what was taken.
    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.items.clear();
        self.calls.clear();
    }

    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.calls.is_empty()
    }

    fn add(&mut self, handed: Handed, bytes: &[u8]) -> bool {
        let end = self.used + bytes.len();
        if self.items.len() == SLAB_ITEMS || end > self.bytes.len() {
            return false;
        }
        self.bytes[self.used..end].copy_from_slice(bytes);
        self.items.push((handed, self.used..end));
        self.used = end;
        true
    }

    fn add_call(&mut self, call: &Call) -> bool {
        let fits = self.calls.len() < SLAB_CALLS;
        if fits {
            self.calls.push(*call);
        }
        fits
    }
}

/// Where others put what one shard is to take.
#[derive(Debug)]
struct Mailbox {
    slab: Mutex<Slab>,
    /// Its worker waits, or is about to, and wants to be woken.
    asleep: AtomicBool,
    wake: Arc<OwnedFd>,
}

impl Mailbox {
    fn slab(&self) -> MutexGuard<'_, Slab> {
        // Whoever panicked with it has ended the data path, which the daemon was told.
        self.slab.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One worker's end of all mailboxes.
#[derive(Debug)]
pub(super) struct HandOver {
    mailboxes: Arc<[Mailbox]>,
    own: usize,
    /// Which mailboxes got something since their workers were last woken.
    owed: Box<[bool]>,
    given: u64,
}

impl HandOver {
    /// The ends of as many workers as there are eventfds to wake them by.
    pub(super) fn between(wakes: &[Arc<OwnedFd>]) -> Vec<Self> {
        let mailbox = |wake: &Arc<OwnedFd>| Mailbox {
            slab: Mutex::new(Slab::new()),
            asleep: AtomicBool::new(false),
            wake: Arc::clone(wake),
        };
        let mailboxes: Arc<[Mailbox]> = wakes.iter().map(mailbox).collect();
        let owed = vec![false; wakes.len()].into_boxed_slice();
        let end =
            |own| Self { mailboxes: Arc::clone(&mailboxes), own, owed: owed.clone(), given: 0 };
        (0..wakes.len()).map(end).collect()
    }

    /// Gives a packet or a datagram to its owner, or counts it as lost.
    pub(super) fn give(&mut self, owner: u16, handed: Handed, bytes: &[u8], losses: &mut Losses) {
        let added = self.put(owner, losses, |slab| slab.add(handed, bytes));
        self.given += if added { handed.count(bytes) } else { 0 };
    }

    /// Packets and datagrams that were given to others.
    pub(super) fn given(&self) -> u64 {
        self.given
    }

    /// Gives a call to its owner, or counts it as lost.
    pub(super) fn give_call(&mut self, call: &Call, losses: &mut Losses) {
        self.put(call.owner, losses, |slab| slab.add_call(call));
    }

    /// Wakes those who got something and wait. Once for a whole batch: waking costs a system call.
    pub(super) fn wake_owed(&mut self) {
        for (mailbox, owed) in self.mailboxes.iter().zip(&mut self.owed) {
            if std::mem::take(owed) && mailbox.asleep.swap(false, Ordering::SeqCst) {
                let _ = rustix::io::write(&mailbox.wake, &1_u64.to_ne_bytes());
            }
        }
    }

    /// Takes everything that was handed to this worker, for an empty slab.
    pub(super) fn take(&self, slab: &mut Slab) {
        std::mem::swap(slab, &mut self.mailboxes[self.own].slab());
    }

    /// Says that this worker is about to wait. False if there is something to take already: then it must
    /// not. Whoever gives something after this sees that it waits.
    pub(super) fn may_wait(&self) -> bool {
        let mailbox = &self.mailboxes[self.own];
        mailbox.asleep.store(true, Ordering::SeqCst);
        let empty = mailbox.slab().is_empty();
        if !empty {
            mailbox.asleep.store(false, Ordering::SeqCst);
        }
        empty
    }

    /// Says that this worker waits no more.
    pub(super) fn awake(&self) {
        self.mailboxes[self.own].asleep.store(false, Ordering::SeqCst);
    }

    fn put(
        &mut self,
        owner: u16,
        losses: &mut Losses,
        add: impl FnOnce(&mut Slab) -> bool,
    ) -> bool {
        let owner = usize::from(owner);
        let added = self.mailboxes.get(owner).is_some_and(|mailbox| add(&mut mailbox.slab()));
        if !added {
            losses.add(Loss::HandOverFull, 1);
        }
        // Where it is full, its worker is all the more to be woken.
        self.owed[owner] = true;
        added
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::EventfdFlags;
    use std::time::{Duration, Instant};

    fn two() -> ([HandOver; 2], [Arc<OwnedFd>; 2]) {
        let wakes =
            [0; 2].map(|_| Arc::new(rustix::event::eventfd(0, EventfdFlags::NONBLOCK).unwrap()));
        (HandOver::between(&wakes).try_into().unwrap(), wakes)
    }

    fn was_woken(wake: &OwnedFd) -> bool {
        rustix::io::read(wake, &mut [0; 8]).is_ok()
    }

    fn give(end: &mut HandOver, bytes: &[u8]) -> Losses {
        let mut losses = Losses::default();
        end.give(1, Handed::Packet, bytes, &mut losses);
        losses
    }

    #[test]
    fn what_is_handed_over_comes_out_in_order_and_once() {
        let ([mut first, second], _wakes) = two();
        let mut slab = Slab::new();
        for round in 0..3_u8 {
            let sent: Vec<Vec<u8>> =
                (0..9_u8).map(|n| vec![n ^ round; 1 + usize::from(n)]).collect();
            sent.iter().for_each(|bytes| assert_eq!(give(&mut first, bytes), Losses::default()));
            second.take(&mut slab);
            let taken: Vec<_> = (0..slab.len()).map(|n| slab.item(n).1.to_vec()).collect();
            assert_eq!(taken, sent);
            slab.clear();
            second.take(&mut slab);
            assert!(slab.is_empty());
        }
    }

    #[test]
    fn a_full_mailbox_counts_what_it_does_not_hold_and_takes_more_once_emptied() {
        for (bytes, held) in [(vec![0; 65_546], SLAB_BYTES / 65_546), (vec![0; 40], SLAB_ITEMS)] {
            let ([mut first, second], _wakes) = two();
            (0..held).for_each(|_| assert_eq!(give(&mut first, &bytes), Losses::default()));
            let lost = give(&mut first, &bytes);
            assert_eq!(lost.iter().find(|(_, n)| *n > 0), Some((Loss::HandOverFull, 1)));
            let mut slab = Slab::new();
            second.take(&mut slab);
            assert_eq!(slab.len(), held);
            assert_eq!(give(&mut first, &bytes), Losses::default());
        }
    }

    #[test]
    fn a_worker_is_woken_once_and_only_while_it_waits() {
        let ([mut first, second], [_, wake]) = two();
        give(&mut first, b"busy");
        first.wake_owed();
        assert!(!was_woken(&wake));
        assert!(!second.may_wait(), "there is something to take");
        let mut slab = Slab::new();
        second.take(&mut slab);
        slab.clear();
        assert!(second.may_wait());
        first.wake_owed();
        assert!(!was_woken(&wake), "nothing new came");
        for _ in 0..2 {
            give(&mut first, b"asleep");
            first.wake_owed();
        }
        assert!(was_woken(&wake) && !was_woken(&wake));
        second.take(&mut slab);
        assert!(second.may_wait());
        second.awake();
        give(&mut first, b"awake");
        first.wake_owed();
        assert!(!was_woken(&wake));
    }

    #[test]
    fn nobody_sleeps_through_what_is_handed_over() {
        let ([mut first, second], [_, wake]) = two();
        const ITEMS: usize = 20_000;
        const DEADLINE: Duration = Duration::from_secs(10);
        let started = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..ITEMS {
                    while give(&mut first, &number.to_ne_bytes()) != Losses::default() {
                        assert!(started.elapsed() < DEADLINE, "nobody takes it");
                        first.wake_owed();
                        std::thread::yield_now();
                    }
                    first.wake_owed();
                }
            });
            let (mut slab, mut expected) = (Slab::new(), 0_usize);
            while expected < ITEMS {
                if second.may_wait() {
                    let fd = rustix::event::PollFd::new(&wake, rustix::event::PollFlags::IN);
                    let deadline = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
                    let ready = rustix::event::poll(&mut [fd], Some(&deadline)).unwrap();
                    assert_eq!(ready, 1, "slept through {expected}");
                }
                second.awake();
                was_woken(&wake);
                second.take(&mut slab);
                for number in 0..slab.len() {
                    assert_eq!(slab.item(number).1, expected.to_ne_bytes());
                    expected += 1;
                }
                slab.clear();
            }
        });
    }
}
