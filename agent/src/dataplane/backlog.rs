//! What stands before a device's network, and what is not sent while that is too much.
//!
//! Datagrams wait in the kernel until the interface has taken those before them. The TUN hides from TCP that its
//! packets are still in this machine, so a bulk transfer over a slow link makes all others wait behind it: 300 ms at
//! 100 Mb/s, and seconds on a bad Wi-Fi. So some of what is read from the TUN is not sent, by CoDel's law (RFC 8289):
//! one read once the wait has been longer than 5 ms for 100 ms, and more and more often for as long as that lasts.
//! Small packets are spared; it is the large ones that others wait for.
//!
//! The kernel tells how many bytes stand, not for how long. That follows from how fast the interface takes them,
//! which is measured while it always has some. It is true only where all datagrams stand in one queue, as a device's
//! do; a gateway's may wait for a neighbour that has left.

use std::time::{Duration, Instant};

/// The wait that is no fault, and for how long it may be longer (RFC 8289 §5).
const TARGET: Duration = Duration::from_millis(5);
const INTERVAL: Duration = Duration::from_millis(100);
/// The wait at which nothing large is sent. A transfer that begins doubles its pace until then, and CoDel alone
/// would take seconds to bring that down.
const LIMIT: Duration = Duration::from_millis(50);
/// What may stand however slow the interface is: a little less than one full super-packet, so that it has work while the
/// next one is read.
const ALWAYS_BYTES: usize = 64 << 10;
/// What the interface's speed is measured over, at least: it may take a call's datagrams all at once.
const WINDOW: Duration = Duration::from_millis(10);
const WINDOW_BYTES: usize = 128 << 10;
/// What the kernel adds to a call's datagrams, roughly: it counts memory (`struct sk_buff` and headers).
const CALL_BYTES: usize = 768;
/// Voice, acknowledgements and keystrokes are no larger.
const SMALL_BYTES: usize = 300;

/// What one socket's datagrams wait for.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// When the kernel was last asked, the bytes that stood then, and what was sent since.
    asked: Option<Instant>,
    standing: usize,
    sent: usize,
    /// What was admitted and is not sent yet: a turn sends what it read when it is over.
    held: usize,
    /// While the interface is never out of work, and whether it is or not.
    busy: Option<Window>,
    any: Option<Window>,
    /// Bytes per second.
    speed: Option<f64>,
    law: Law,
}

/// A time in which the interface's speed is measured.
#[derive(Debug)]
struct Window {
    since: Instant,
    taken_bytes: usize,
}

impl Window {
    /// Adds what the interface took until now. Once that is enough: for how long it was measured and what it took,
    /// and the next window begins.
    fn add(window: &mut Option<Self>, now: Instant, bytes: usize) -> Option<(f64, usize)> {
        let Some(begun) = window else {
            *window = Some(Self { since: now, taken_bytes: 0 });
            return None;
        };
        let elapsed = now.saturating_duration_since(begun.since);
        begun.taken_bytes += bytes;
        let taken_bytes = begun.taken_bytes;
        (elapsed >= WINDOW && taken_bytes >= WINDOW_BYTES).then(|| {
            *window = Some(Self { since: now, taken_bytes: 0 });
            (elapsed.as_secs_f64(), taken_bytes)
        })
    }
}

impl Backlog {
    /// One call of the kernel sent so many bytes.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes + CALL_BYTES;
    }

    /// What is held is sent from here on, or is not to be sent after all.
    pub(super) fn flushed(&mut self) {
        self.held = 0;
    }

    /// Whether what one read of the TUN brought, so many bytes, is to be sent. `ask` has the kernel tell how many
    /// bytes stand; it is called only where they may be many.
    pub(super) fn admits(
        &mut self,
        bytes: usize,
        now: Instant,
        ask: impl FnOnce() -> usize,
    ) -> bool {
        let admits = bytes <= SMALL_BYTES
            || self.standing + self.sent + self.held < ALWAYS_BYTES
            || self.has_room(now, ask);
        if admits {
            self.held += bytes;
        }
        admits
    }

    /// Whether one more large read may stand.
    fn has_room(&mut self, now: Instant, ask: impl FnOnce() -> usize) -> bool {
        // A turn has one time. The answer holds for as long as nothing was sent in it.
        if self.sent > 0 || self.asked != Some(now) {
            self.learn(now, ask());
        }
        let wait = self.wait();
        let is_due = self.law.is_due(now, wait);
        !is_due && wait < LIMIT
    }

    /// So many bytes stand now: what the interface took since that was last asked says how fast it is.
    fn learn(&mut self, now: Instant, standing: usize) {
        let taken_bytes = (self.standing + self.sent).saturating_sub(standing);
        let long_ago = self.asked.replace(now).is_some_and(|last| now > last + INTERVAL);
        // Nobody knows whether it rested meanwhile, unless some of what stood then still stands.
        let may_have_rested = long_ago && taken_bytes > self.standing;
        (self.standing, self.sent) = (standing, 0);
        // It is at least so fast, but for the call that it had begun with before.
        if let Some((seconds, bytes)) = Window::add(&mut self.any, now, taken_bytes) {
            let least = bytes.saturating_sub(ALWAYS_BYTES) as f64 / seconds;
            self.speed = self.speed.map(|speed| speed.max(least));
        }
        if standing < ALWAYS_BYTES || may_have_rested {
            self.busy = None;
            self.law.rest();
        }
        if standing >= ALWAYS_BYTES
            && let Some((seconds, bytes)) = Window::add(&mut self.busy, now, taken_bytes)
        {
            self.speed = Some(bytes as f64 / seconds);
        }
    }

    /// How long a datagram waits behind what stands and what is held.
    fn wait(&self) -> Duration {
        let before = self.standing + self.held;
        match self.speed {
            Some(speed) if before >= ALWAYS_BYTES => Duration::from_secs_f64(before as f64 / speed),
            Some(_) | None => Duration::ZERO,
        }
    }
}

/// CoDel's control law (RFC 8289 §5).
#[derive(Debug, Default)]
struct Law {
    /// When the wait will have been too long for long enough; none while it is not too long.
    first_due: Option<Instant>,
    is_dropping: bool,
    next: Option<Instant>,
    /// What was dropped since it began to, and what it began to count with.
    count: u32,
    first_count: u32,
}

impl Law {
    /// The wait is not too long, or was not meanwhile.
    fn rest(&mut self) {
        (self.first_due, self.is_dropping) = (None, false);
    }

    /// Whether to drop, now that the wait is so long.
    fn is_due(&mut self, now: Instant, wait: Duration) -> bool {
        if wait < TARGET {
            self.rest();
            return false;
        }
        if now < *self.first_due.get_or_insert(now + INTERVAL) {
            return false;
        }
        let begins_at = match self.next {
            Some(next) if self.is_dropping => {
                if now < next {
                    return false;
                }
                self.count += 1;
                next
            }
            // It goes on where it was if that is not long ago.
            last => {
                let is_recent = last.is_some_and(|last| now < last + 16 * INTERVAL);
                let dropped = self.count - self.first_count;
                self.count = if is_recent && dropped > 1 { dropped } else { 1 };
                (self.first_count, self.is_dropping) = (self.count, true);
                now
            }
        };
        self.next = Some(begins_at + INTERVAL.div_f64(f64::from(self.count).sqrt()));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const READ_BYTES: usize = 60_000;

    /// An interface that takes so many bytes a second, and is done with a call's datagrams when it has sent the
    /// last; and somebody who offers it reads.
    struct Link {
        backlog: Backlog,
        now: Instant,
        bytes_per_s: f64,
        /// Each call's bytes, and how many bytes of the first are sent.
        calls: VecDeque<f64>,
        begun: f64,
        /// What the turn has read and not sent yet.
        held: Vec<usize>,
        asked: usize,
    }

    impl Link {
        fn of(bytes_per_s: f64) -> Self {
            let (backlog, calls) = (Backlog::default(), VecDeque::new());
            let (now, held) = (Instant::now(), Vec::new());
            Self { backlog, now, bytes_per_s, calls, begun: 0.0, held, asked: 0 }
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
            self.begun += time.as_secs_f64() * self.bytes_per_s;
            while let Some(call) = self.calls.pop_front_if(|call| *call <= self.begun) {
                self.begun -= call;
            }
            if self.calls.is_empty() {
                self.begun = 0.0;
            }
        }

        fn standing(&self) -> f64 {
            self.calls.iter().sum()
        }

        fn wait(&self) -> Duration {
            Duration::from_secs_f64((self.standing() - self.begun) / self.bytes_per_s)
        }

        /// Whether so many bytes are to be sent.
        fn read(&mut self, bytes: usize) -> bool {
            let standing = self.standing() as usize;
            let Self { backlog, now, asked, held, .. } = self;
            let admits = backlog.admits(bytes, *now, || {
                *asked += 1;
                standing
            });
            held.extend(admits.then_some(bytes));
            admits
        }

        fn flush(&mut self) {
            self.backlog.flushed();
            for bytes in self.held.drain(..) {
                self.backlog.sent(bytes);
                self.calls.push_back((bytes + CALL_BYTES) as f64);
            }
        }

        /// A turn that reads so many bytes once; whether they are sent.
        fn offer(&mut self, bytes: usize) -> bool {
            let admits = self.read(bytes);
            self.flush();
            admits
        }

        /// Offers reads for so long, `load` times what the link takes; how many are sent and how many not.
        fn load(&mut self, load: f64, time: Duration) -> (usize, usize) {
            let gap =
                Duration::from_secs_f64((READ_BYTES + CALL_BYTES) as f64 / self.bytes_per_s / load);
            let end = self.now + time;
            let (mut sent, mut dropped) = (0, 0);
            while self.now < end {
                *(if self.offer(READ_BYTES) { &mut sent } else { &mut dropped }) += 1;
                self.pass(gap);
            }
            (sent, dropped)
        }
    }

    #[test]
    fn a_network_that_keeps_up_gets_everything_and_is_hardly_asked_for() {
        let mut link = Link::of(1.25e9);
        let (sent, dropped) = link.load(0.9, Duration::from_secs(1));
        assert!(sent > 10_000 && dropped == 0, "{sent} {dropped}");
        assert!(link.asked <= sent / 2 + 1, "asked {} times for {sent} reads", link.asked);
    }

    #[test]
    fn a_burst_that_drains_is_sent_whole() {
        let mut link = Link::of(12.5e6);
        link.load(1.05, Duration::from_secs(1));
        assert!(link.backlog.speed.is_some(), "the link's speed is known");
        for _ in 0..20 {
            link.pass(Duration::from_millis(200));
            assert!((0..6).all(|_| link.offer(READ_BYTES)), "{:?}", link.wait());
        }
    }

    #[test]
    fn who_offers_too_much_makes_nobody_wait_longer_than_the_limit_and_leaves_no_gap() {
        let cases = [(2.5e5, 2.0), (2.5e6, 2.0), (12.5e6, 1.2), (12.5e6, 10.0), (125e6, 3.0)];
        for (bytes_per_s, load) in cases {
            let mut link = Link::of(bytes_per_s);
            // The speed is not known at first.
            link.load(load, Duration::from_secs(4));
            let (mut longest, mut idle) = (Duration::ZERO, 0);
            for _ in 0..1000 {
                link.load(load, Duration::from_millis(1));
                longest = longest.max(link.wait());
                idle += usize::from(link.calls.is_empty());
            }
            let one_read = Duration::from_secs_f64((READ_BYTES + CALL_BYTES) as f64 / bytes_per_s);
            let limit = LIMIT.max(one_read) + 2 * one_read;
            // CoDel alone holds back a little too much.
            let least = if load < 2.0 { TARGET } else { LIMIT * 3 / 4 };
            let fits = (least..=limit).contains(&longest);
            assert!(fits, "{bytes_per_s} × {load}: {longest:?} for {limit:?}");
            assert_eq!(idle, 0, "{bytes_per_s} × {load}");
        }
    }

    #[test]
    fn what_one_turn_reads_waits_for_what_it_read_before() {
        let mut link = Link::of(2.5e6);
        link.load(1.05, Duration::from_secs(2));
        link.pass(Duration::from_secs(1));
        let asked = link.asked;
        let admitted = (0..100).filter(|_| link.read(READ_BYTES)).count();
        link.flush();
        // 50 ms are two reads, and one more goes once the wait is shorter.
        assert!((2..=3).contains(&admitted), "{admitted}");
        assert!(link.asked <= asked + 1, "a turn asks once");
    }

    #[test]
    fn a_long_time_of_small_packets_says_nothing_of_the_speed() {
        let mut link = Link::of(12.5e6);
        link.load(1.2, Duration::from_secs(1));
        let speed = link.backlog.speed.unwrap();
        for _ in 0..10_000 {
            link.pass(Duration::from_millis(1));
            assert!(link.offer(SMALL_BYTES));
        }
        link.calls.push_back(2.0 * ALWAYS_BYTES as f64);
        assert!(link.offer(READ_BYTES), "{:?}", link.backlog.speed);
        assert_eq!(link.backlog.speed, Some(speed));
    }

    #[test]
    fn a_transfer_that_heeds_each_drop_is_brought_to_the_target() {
        // It sends what it has leave to, and a tenth of a read more after each; half of that after a drop.
        let mut link = Link::of(125e6);
        let mut reads = 100.0_f64;
        let mut waits = Vec::new();
        for _ in 0..20_000 {
            while (link.standing() / READ_BYTES as f64) < reads {
                reads = if link.offer(READ_BYTES) { reads + 0.01 } else { (reads / 2.0).max(1.0) };
            }
            link.pass(Duration::from_micros(500));
            waits.push(link.wait());
        }
        let late = &mut waits[10_000..];
        late.sort();
        assert!(late[late.len() / 2] < 2 * TARGET, "{:?}", late[late.len() / 2]);
    }

    #[test]
    fn small_packets_are_sent_whatever_stands() {
        let mut link = Link::of(12.5e6);
        link.load(10.0, Duration::from_secs(1));
        link.calls.push_back(2.0 * LIMIT.as_secs_f64() * link.bytes_per_s);
        assert!(!link.offer(READ_BYTES));
        assert!(link.offer(SMALL_BYTES));
        assert!(!link.offer(READ_BYTES), "a small one changes nothing for the large");
    }

    #[test]
    fn an_interface_that_takes_nothing_is_given_nothing_more_and_all_again_when_it_takes_it() {
        let mut link = Link::of(12.5e6);
        link.load(1.2, Duration::from_secs(1));
        link.bytes_per_s = 1.0;
        let (sent, dropped) = link.load(12.5e6, Duration::from_secs(1));
        assert!(sent < 20 && dropped > 100, "{sent} {dropped}");
        link.bytes_per_s = 12.5e6;
        link.pass(Duration::from_secs(1));
        assert_eq!(link.load(0.5, Duration::from_secs(1)).1, 0);
    }

    #[test]
    fn an_interface_that_became_faster_is_soon_given_what_it_takes() {
        let mut link = Link::of(2.5e6);
        link.load(2.0, Duration::from_secs(1));
        link.bytes_per_s = 125e6;
        let mut bursts = Vec::new();
        for _ in 0..400 {
            bursts.push((0..6).all(|_| link.offer(READ_BYTES)));
            link.pass(Duration::from_millis(10));
        }
        assert!(!bursts[0], "it still passes for a slow one");
        assert!(bursts[50..].iter().all(|whole| *whole));
    }

    #[test]
    fn an_interface_that_rests_is_not_taken_for_faster_than_it_is() {
        let mut link = Link::of(12.5e6);
        link.backlog.speed = Some(link.bytes_per_s);
        // It is done with the first of three calls as soon as it is watched, and rests after the third.
        link.backlog.sent(3 * READ_BYTES);
        link.backlog.learn(link.now, 3 * READ_BYTES);
        link.pass(WINDOW);
        link.backlog.learn(link.now, 0);
        assert_eq!(link.backlog.speed, Some(link.bytes_per_s));
        // A turn's time stands still, but not the interface.
        for _ in 0..10 {
            link.calls.clear();
            (0..4).for_each(|_| _ = link.offer(READ_BYTES));
        }
        assert_eq!(link.backlog.speed, Some(link.bytes_per_s));
    }

    #[test]
    fn the_law_waits_for_an_interval_and_drops_ever_more_often() {
        let start = Instant::now();
        let mut law = Law::default();
        let mut drops = Vec::new();
        for ms in 0..500 {
            if law.is_due(start + Duration::from_millis(ms), TARGET) {
                drops.push(ms);
            }
        }
        // 100 ms each divided by the root of the count.
        assert_eq!(drops, [100, 200, 271, 329, 379, 424, 464]);
        let (after, again) = (start + Duration::from_millis(500), INTERVAL);
        assert!(!law.is_due(after, TARGET / 2), "the wait is short again");
        assert!(!law.is_due(after, TARGET) && law.is_due(after + again, TARGET));
        let next = law.next.map(|next| next - (after + again));
        assert_eq!(next, Some(INTERVAL.div_f64(6.0_f64.sqrt())), "it goes on where it was");
        let later = after + 20 * INTERVAL;
        assert!(!law.is_due(later, Duration::ZERO) && !law.is_due(later, TARGET));
        assert!(law.is_due(later + INTERVAL, TARGET));
        assert_eq!(law.next, Some(later + 2 * INTERVAL), "it begins anew");
    }
}
