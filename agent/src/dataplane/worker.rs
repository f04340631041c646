//! One shard's thread: waits for the TUN, the UDP socket, the inbox and the shard's timer, and
//! carries packets between them.
//!
//! This is the hot path. Nothing here allocates or locks per packet, and nothing waits but the one
//! `poll`. Each turn takes at most one batch from either side, so that neither starves the other,
//! the inbox or the timer.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use partywall_datapath::shard::{Explanation, Outbox, Query, Shard, Update};
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::sync::oneshot;

use crate::dataplane::loss::{Loss, Losses};
use crate::dataplane::report::Part;
use crate::dataplane::tun::{TunInlet, TunPort};
use crate::dataplane::udp::{Inlet, UdpPort};

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
    pub(super) tun: TunPort,
    pub(super) udp: UdpPort,
    pub(super) inbox: mpsc::Receiver<Command>,
    pub(super) wake: Arc<OwnedFd>,
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
    losses: Losses,
}

/// What `poll` found.
struct Ready {
    wake: bool,
    udp: bool,
    tun: bool,
}

impl Worker {
    /// Carries packets until told to stop.
    ///
    /// # Errors
    /// Where the TUN or the socket is lost. A datagram that cannot be sent is counted and no error.
    pub(super) fn run(mut self) -> Result<(), WorkerError> {
        let mut desk = Desk {
            outbox: Outbox::new(),
            inlet: Inlet::new(),
            tun_inlet: TunInlet::new(),
            losses: Losses::default(),
        };
        loop {
            let ready = self.wait().map_err(WorkerError::Wait)?;
            let now = Instant::now();
            if ready.wake && self.take_commands(&mut desk, now) == Turn::Last {
                return Ok(());
            }
            if ready.udp {
                self.take_datagrams(&mut desk, now)?;
            }
            if ready.tun {
                self.take_packets(&mut desk, now)?;
            }
            if self.shard.poll_timeout().is_some_and(|due| due <= now) {
                self.shard.handle_timeout(now, &mut desk.outbox);
            }
            flush(&mut self.tun, &self.udp, &mut desk.outbox, &mut desk.losses);
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        let timeout = self.shard.poll_timeout().map(|due| {
            let wait = due.saturating_duration_since(Instant::now());
            // A timer that is further off than poll can count is looked at again when poll returns.
            Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
        });
        let mut fds = [
            PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.udp.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.tun.as_fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(refused) => return Err(refused.into()),
        }
        // An error condition counts as ready: the read that follows says what is wrong.
        let [wake, udp, tun] = fds.map(|fd| !fd.revents().is_empty());
        Ok(Ready { wake, udp, tun })
    }

    fn take_commands(&mut self, desk: &mut Desk, now: Instant) -> Turn {
        // The counter only wakes; how often it was rung does not matter.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        loop {
            // Nobody listens to the answer where the asker gave up; that is no fault.
            match self.inbox.try_recv() {
                Ok(Command::Apply(update, done)) => {
                    self.shard.apply(&update, now, &mut desk.outbox);
                    flush(&mut self.tun, &self.udp, &mut desk.outbox, &mut desk.losses);
                    let _ = done.send(());
                }
                Ok(Command::Report(answer)) => {
                    let _ = answer.send(Part {
                        counters: self.shard.counters().clone(),
                        losses: desk.losses,
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

    fn take_datagrams(&mut self, desk: &mut Desk, now: Instant) -> Result<(), WorkerError> {
        let batch = match self.udp.receive(&mut desk.inlet) {
            Ok(batch) => batch,
            Err(refused) if is_passing(&refused) => return Ok(()),
            Err(refused) => return Err(WorkerError::Udp(refused)),
        };
        for (from, datagram) in batch.datagrams() {
            self.shard.handle_datagram(from, datagram, now, &mut desk.outbox);
            if desk.outbox.is_full() {
                flush(&mut self.tun, &self.udp, &mut desk.outbox, &mut desk.losses);
            }
        }
        Ok(())
    }

    fn take_packets(&mut self, desk: &mut Desk, now: Instant) -> Result<(), WorkerError> {
        let Self { shard, tun, udp, .. } = self;
        let Desk { outbox, tun_inlet, losses, .. } = desk;
        let mut flushed = false;
        for _ in 0..TUN_BATCH {
            match tun.receive(tun_inlet) {
                Ok(Ok(mut burst)) => shard.handle_burst(&mut burst, now, outbox, |outbox| {
                    flush(tun, udp, outbox, losses);
                    flushed = true;
                }),
                Ok(Err(_)) => losses.add(Loss::TunMalformed, 1),
                Err(refused) if is_passing(&refused) => return Ok(()),
                Err(refused) => return Err(WorkerError::TunGone(refused)),
            }
            if flushed {
                break;
            }
        }
        Ok(())
    }
}

/// Hands over everything that the shard has to say. What the kernel will not take is counted.
fn flush(tun: &mut TunPort, udp: &UdpPort, outbox: &mut Outbox, losses: &mut Losses) {
    if outbox.is_empty() {
        return;
    }
    for run in outbox.runs() {
        udp.send(&run, losses);
    }
    tun.deliver(outbox.packets(), losses);
    outbox.clear();
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
