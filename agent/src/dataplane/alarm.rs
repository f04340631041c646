//! A worker's timer: a file descriptor that is set only when the time changes.
//!
//! A timeout given to `poll` is a timer that the kernel sets and takes back at every wait, which a
//! virtual machine pays for each time. This one is set a few times a second, whatever the traffic.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// The shortest that can be waited: none at all would take the timer back.
const SHORTEST: Duration = Duration::from_nanos(1);

/// The timer, readable once its time has come.
#[derive(Debug)]
pub(super) struct Alarm {
    fd: OwnedFd,
    at: Option<Instant>,
}

impl Alarm {
    /// A timer that is not set.
    ///
    /// # Errors
    /// What the kernel answers: `EMFILE` or `ENOMEM`.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        // The clock that `Instant` reads.
        let fd = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { fd, at: None })
    }

    /// Sets it to go off at `at`, or never.
    ///
    /// # Errors
    /// None that the kernel documents for such a descriptor.
    pub(super) fn set(&mut self, at: Option<Instant>) -> io::Result<()> {
        if at == self.at {
            return Ok(());
        }
        let wait = at.map(|at| at.saturating_duration_since(Instant::now()).max(SHORTEST));
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A time that the kernel cannot count to is as good as never.
        let value = wait.and_then(|wait| Timespec::try_from(wait).ok()).unwrap_or(never);
        let timer = Itimerspec { it_interval: never, it_value: value };
        rustix::time::timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &timer)?;
        self.at = at;
        Ok(())
    }

    /// It was found readable: it is so no more, and is not set.
    pub(super) fn heard(&mut self) {
        let _ = rustix::io::read(&self.fd, &mut [0; 8]);
        self.at = None;
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    fn rings_within(alarm: &Alarm, wait: Duration) -> bool {
        let mut fds = [PollFd::new(alarm, PollFlags::IN)];
        poll(&mut fds, Some(&wait.try_into().unwrap())).unwrap() == 1
    }

    #[test]
    fn an_alarm_rings_at_its_time_once_and_not_after_it_was_taken_back() {
        let (soon, long) = (Duration::from_millis(20), Duration::from_secs(10));
        let mut alarm = Alarm::new().unwrap();
        let before = Instant::now();
        alarm.set(Some(before + soon)).unwrap();
        assert!(rings_within(&alarm, long) && before.elapsed() >= soon);
        alarm.heard();
        assert!(!rings_within(&alarm, Duration::ZERO));
        // What is past rings at once.
        alarm.set(Some(before)).unwrap();
        assert!(rings_within(&alarm, long));
        alarm.heard();
        alarm.set(Some(Instant::now() + soon)).unwrap();
        alarm.set(None).unwrap();
        assert!(!rings_within(&alarm, soon * 5));
    }
}
