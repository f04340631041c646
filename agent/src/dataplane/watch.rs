//! What a worker waits for. The kernel keeps the list (epoll(7)), so that a turn does not hand it over anew.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// The descriptors of one worker.
pub(super) struct Watched<'a> {
    /// Rung for commands and for what was handed over.
    pub(super) wake: BorrowedFd<'a>,
    pub(super) udp: BorrowedFd<'a>,
    /// None if another worker reads it, which then also hears that it went.
    pub(super) tun: Option<BorrowedFd<'a>>,
    pub(super) alarm: BorrowedFd<'a>,
}

/// Which of them are ready; one that is in error counts as ready, and the read that follows says what is wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) wake: bool,
    pub(super) udp: bool,
    pub(super) tun: bool,
    pub(super) alarm: bool,
}

/// The kernel's list of them. They must stay open for as long as it is used.
#[derive(Debug)]
pub(super) struct Watch(OwnedFd);

const WAKE: u64 = 0;
const UDP: u64 = 1;
const TUN: u64 = 2;
const ALARM: u64 = 3;

impl Watch {
    /// Has the kernel watch them.
    ///
    /// # Errors
    /// What the kernel answers where descriptors or watches run out.
    pub(super) fn over(watched: &Watched<'_>) -> io::Result<Self> {
        let list = epoll::create(CreateFlags::CLOEXEC)?;
        let tun = watched.tun.map(|tun| (TUN, tun));
        let others = [(WAKE, watched.wake), (UDP, watched.udp), (ALARM, watched.alarm)];
        for (name, fd) in others.into_iter().chain(tun) {
            epoll::add(&list, fd, EventData::new_u64(name), EventFlags::IN)?;
        }
        Ok(Self(list))
    }

    /// Waits until one of them is ready; or only looks, if it may not wait.
    ///
    /// # Errors
    /// None that a signal causes: then nothing is ready.
    pub(super) fn wait(&self, may_wait: bool) -> io::Result<Ready> {
        let timeout = (!may_wait).then(Timespec::default);
        let mut events = [const { MaybeUninit::<Event>::uninit() }; 4];
        let events = match epoll::wait(self.0.as_fd(), &mut events, timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(refused) => return Err(refused.into()),
        };
        let mut ready = Ready::default();
        for event in events {
            match event.data.u64() {
                WAKE => ready.wake = true,
                UDP => ready.udp = true,
                TUN => ready.tun = true,
                _ => ready.alarm = true,
            }
        }
        Ok(ready)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn what_is_ready_is_told_until_it_was_taken_and_a_tun_of_others_is_not() {
        let counter = || eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
        let (wake, tun, alarm) = (counter(), counter(), counter());
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let watch = |reads_tun: bool| {
            let (wake, tun, alarm) = (wake.as_fd(), tun.as_fd(), alarm.as_fd());
            Watch::over(&Watched { wake, udp: udp.as_fd(), tun: reads_tun.then_some(tun), alarm })
                .unwrap()
        };
        let (reader, other) = (watch(true), watch(false));
        assert_eq!(reader.wait(false).unwrap(), Ready::default());
        rustix::io::write(&tun, &1_u64.to_ne_bytes()).unwrap();
        for _ in 0..2 {
            assert_eq!(reader.wait(true).unwrap(), Ready { tun: true, ..Ready::default() });
        }
        assert_eq!(other.wait(false).unwrap(), Ready::default());
        for fd in [&wake, &alarm] {
            rustix::io::write(fd, &1_u64.to_ne_bytes()).unwrap();
        }
        udp.send_to(b"datagram", udp.local_addr().unwrap()).unwrap();
        let all = Ready { wake: true, udp: true, tun: true, alarm: true };
        assert_eq!(reader.wait(true).unwrap(), all);
        assert_eq!(other.wait(true).unwrap(), Ready { tun: false, ..all });
    }
}
