//! One shard's thread: waits for the TUN, the UDP socket, other shards, the inbox and the shard's timer,
//! and carries packets between them.
//!
//! This is the hot path. Nothing here allocates per packet, nor locks but where it must be handed over, or a
//! gateway's flow begins or ends, and a turn waits once, before it begins. Each turn takes at most one batch
//! from either side, so that neither starves the other, the inbox or the timer.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use partywall_datapath::shard::{Explanation, Outbox, Query, Shard, Update};
use tokio::sync::oneshot;

use crate::dataplane::alarm::Alarm;
use crate::dataplane::clock::wall_clock;
use crate::dataplane::courtesy::Courtesy;
use crate::dataplane::flow_queue::FlowTap;
use crate::dataplane::handover::{HandOver, Handed, Slab};
use crate::dataplane::loss::{Loss, Losses};
use crate::dataplane::ports::Ports;
use crate::dataplane::report::Part;
use crate::dataplane::train::Train;
use crate::dataplane::tun::TunInlet;
use crate::dataplane::udp::Inlet;
use crate::dataplane::watch::{Ready, Watch};

/// Reads of the TUN in one turn. Each yields one packet, or one super-packet; with the latter a turn
/// ends when the outbox was full.
const TUN_BATCH: usize = 64;

/// What a worker is asked for. Each is answered once done.
pub(super) enum Command {
    Apply(Arc<Update>, oneshot::Sender<()>),
    Report(oneshot::Sender<Part>),
    Explain(Box<Query>, oneshot::Sender<Explanation>),
    Stop,
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkerError {
    #[error("waiting for packets failed")]
    Wait(#[source] io::Error),
    #[error("the TUN interface is gone; somebody may have removed it")]
    TunGone(#[source] io::Error),
    #[error("the UDP socket failed")]
    Udp(#[source] io::Error),
}

/// What one thread owns.
pub(super) struct Worker {
    pub(super) shard: Shard,
    pub(super) ports: Ports,
    pub(super) flows: FlowTap,
    pub(super) alarm: Alarm,
    pub(super) inbox: mpsc::Receiver<Command>,
    pub(super) wake: Arc<OwnedFd>,
    /// Over what is in this very worker.
    pub(super) watch: Watch,
}

/// Whether to take another turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Next,
    Last,
}

/// What the hot path works in, allocated once.
struct Desk {
    outbox: Outbox,
    inlet: Inlet,
    tun_inlet: TunInlet,
    /// What other shards handed over, where there are any.
    handed: Option<Slab>,
    losses: Losses,
    courtesy: Courtesy,
    /// Whether the last turn brought more than one packet from the TUN.
    is_busy: bool,
}

impl Worker {
    /// Carries packets until told to stop.
    ///
    /// # Errors
    /// Where the TUN or the socket is lost. A datagram that cannot be sent is counted and no error.
    // Under its own name, by which `hot-path.ld` knows it, not within that of the thread's start.
    #[inline(never)]
    pub(super) fn run(mut self) -> Result<(), WorkerError> {
        let mut desk = Desk {
            outbox: Outbox::new(),
            inlet: Inlet::new(),
            tun_inlet: TunInlet::new(),
            handed: self.ports.hand_over.is_some().then(Slab::new),
            losses: Losses::default(),
            courtesy: Courtesy::default(),
            is_busy: false,
        };
        loop {
            let ready = self.wait().map_err(WorkerError::Wait)?;
            let now = Instant::now();
            if ready.wake && self.take_commands(&mut desk, now) == Turn::Last {
                return Ok(());
            }
            self.take_handed(&mut desk, now);
            let mut brought_bytes = 0;
            if ready.udp {
                brought_bytes = self.take_datagrams(&mut desk, now)?;
                // A server next door has answered before the write returns.
                self.ports.flush(&mut desk.outbox, &mut desk.losses);
            }
            if ready.tun || (ready.udp && self.ports.reads_tun) {
                self.take_packets(&mut desk, now)?;
            }
            if self.shard.poll_timeout().is_some_and(|due| due <= now) {
                self.shard.handle_timeout(now, &mut desk.outbox);
            }
            self.ports.flush(&mut desk.outbox, &mut desk.losses);
            self.flows.drain(&mut self.shard);
            if let Some(hand_over) = &mut self.ports.hand_over {
                hand_over.wake_owed();
            }
            desk.courtesy.after_turn(brought_bytes);
        }
    }

    fn wait(&mut self) -> io::Result<Ready> {
        self.alarm.set(self.shard.poll_timeout())?;
        let hand_over = &self.ports.hand_over;
        let ready = self.watch.wait(hand_over.as_ref().is_none_or(HandOver::may_wait))?;
        if let Some(hand_over) = hand_over {
            hand_over.awake();
        }
        if ready.alarm {
            self.alarm.heard();
        }
        Ok(ready)
    }

    #[cold]
    fn take_commands(&mut self, desk: &mut Desk, now: Instant) -> Turn {
        // The counter only wakes; how often it was rung does not matter.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        loop {
            // Nobody listens to the answer where the asker gave up; that is no fault.
            match self.inbox.try_recv() {
                Ok(Command::Apply(update, done)) => {
                    // A machine that starts may learn the time later; calls of new sessions have it right.
                    self.shard.set_wall_clock(wall_clock());
                    self.shard.apply(&update, now, &mut desk.outbox);
                    self.ports.flush(&mut desk.outbox, &mut desk.losses);
                    // What was cut is told before the cut is acknowledged.
                    self.flows.drain(&mut self.shard);
                    let _ = done.send(());
                }
                Ok(Command::Report(answer)) => {
                    let _ = answer.send(Part {
                        counters: self.shard.counters().clone(),
                        losses: desk.losses,
                        handed_over: self.ports.hand_over.as_ref().map_or(0, HandOver::given),
                        peers: self.shard.peer_status(now),
                    });
                }
                Ok(Command::Explain(query, answer)) => {
                    let _ = answer.send(self.shard.explain(&query, now));
                }
                Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => return Turn::Last,
                Err(mpsc::TryRecvError::Empty) => return Turn::Next,
            }
        }
    }

    /// Takes one batch; how many bytes it was.
    fn take_datagrams(&mut self, desk: &mut Desk, now: Instant) -> Result<usize, WorkerError> {
        let Desk { outbox, inlet, losses, .. } = desk;
        let batch = match self.ports.udp.receive(inlet) {
            Ok(batch) => batch,
            Err(refused) if is_passing(&refused) => return Ok(0),
            Err(refused) => return Err(WorkerError::Udp(refused)),
        };
        let mut bytes = 0;
        for train in batch.trains() {
            bytes += train.bytes.len();
            self.take_train(train, now, outbox, losses);
        }
        Ok(bytes)
    }

    /// Takes datagrams of one sender; those that are other shards' are handed over.
    fn take_train(
        &mut self,
        train: Train<'_>,
        now: Instant,
        outbox: &mut Outbox,
        losses: &mut Losses,
    ) {
        let Self { shard, ports, .. } = self;
        if ports.hand_over.is_none() {
            return take_own(shard, ports, train, now, outbox, losses);
        }
        for (owner, part) in train.by_owner(shard.owner_of_datagrams()) {
            if let (Some(hand_over), Some(owner)) = (&mut ports.hand_over, owner) {
                let handed = Handed::Train(part.from, part.segment_bytes);
                hand_over.give(owner, handed, part.bytes, losses);
            } else {
                take_own(shard, ports, part, now, outbox, losses);
            }
        }
    }

    fn take_packets(&mut self, desk: &mut Desk, now: Instant) -> Result<(), WorkerError> {
        let Desk { outbox, tun_inlet, losses, is_busy, .. } = desk;
        // Where packets come one by one, the first goes before it is asked for a second.
        let was_busy = std::mem::take(is_busy);
        for number in 0..TUN_BATCH {
            // What does not fit would be parted, and so would datagrams that go in one call.
            let is_full = outbox.is_full();
            if is_full && number > 0 {
                break;
            }
            if is_full || (number == 1 && !was_busy) {
                self.ports.flush(outbox, losses);
            }
            let read = match self.ports.tun.receive(tun_inlet) {
                Ok(read) => read,
                Err(refused) if is_passing(&refused) => return Ok(()),
                Err(refused) => return Err(WorkerError::TunGone(refused)),
            };
            *is_busy = number > 0;
            if let Some(hand_over) = &mut self.ports.hand_over
                && let Some(owner) = self.shard.owner_of_packet(self.ports.tun.packet(read))
            {
                hand_over.give(owner, Handed::Packet, read, losses);
            } else if self.take_burst(read, now, outbox, losses) {
                break;
            }
        }
        Ok(())
    }

    /// Takes what other shards handed over.
    fn take_handed(&mut self, desk: &mut Desk, now: Instant) {
        let Desk { outbox, handed: Some(slab), losses, .. } = desk else { return };
        let Some(hand_over) = &self.ports.hand_over else { return };
        hand_over.take(slab);
        for call in slab.calls() {
            self.shard.handle_call(call, now, outbox);
            if outbox.is_full() {
                self.ports.flush(outbox, losses);
            }
        }
        for number in 0..slab.len() {
            match slab.item(number) {
                (Handed::Packet, read) => {
                    self.take_burst(read, now, outbox, losses);
                }
                (Handed::Train(from, segment_bytes), bytes) => {
                    let train = Train { from, segment_bytes, bytes };
                    take_own(&mut self.shard, &mut self.ports, train, now, outbox, losses);
                }
            }
        }
        slab.clear();
    }

    /// Takes what one read of the TUN brought; whether the outbox was full on the way.
    fn take_burst(
        &mut self,
        read: &mut [u8],
        now: Instant,
        outbox: &mut Outbox,
        losses: &mut Losses,
    ) -> bool {
        let Self { shard, ports, .. } = self;
        let mut flushed = false;
        let admitted = ports.udp.admits(ports.tun.packet(read).len(), now);
        match ports.tun.burst(read) {
            Ok(burst) if !admitted => losses.add(Loss::Backlog, burst.remaining() as u64),
            Ok(mut burst) => shard.handle_burst(&mut burst, now, outbox, |outbox| {
                ports.flush(outbox, losses);
                flushed = true;
            }),
            Err(_) => losses.add(Loss::TunMalformed, 1),
        }
        flushed
    }
}

/// Takes datagrams that are all this shard's.
fn take_own(
    shard: &mut Shard,
    ports: &mut Ports,
    train: Train<'_>,
    now: Instant,
    outbox: &mut Outbox,
    losses: &mut Losses,
) {
    let Train { from, segment_bytes, bytes } = train;
    shard.handle_datagrams(from, bytes, segment_bytes, now, outbox, |outbox| {
        ports.flush(outbox, losses);
    });
}

/// Errors of a read after which the next read is as good as ever: nothing there, or an ICMP error
/// about something sent earlier.
fn is_passing(refused: &io::Error) -> bool {
    matches!(refused.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
        || matches!(
            refused.raw_os_error(),
            Some(
                libc::ECONNREFUSED
                    | libc::ECONNRESET
                    | libc::ENETUNREACH
                    | libc::EHOSTUNREACH
                    | libc::ENETDOWN
                    | libc::EMSGSIZE
                    | libc::EPERM
                    | libc::ENOBUFS
                    | libc::ENOMEM
            )
        )
}
