//! Round trips, one by one: `ping`, whose answers the server's kernel gives, so that no other program's
//! turn on a processor is measured.
//!
//! A ping that is lost has no time. It is counted, and shown beside the times: a tunnel that loses what is
//! late would look fast otherwise.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::row::percentile;
use crate::lab::{Host, within};

/// As far apart as a voice call's packets. iputils' ping does not sleep when its next one is due within 10 ms (a tick of
/// `USER_HZ`) and none is on its way: more often than this it would keep a processor busy between its pings, and
/// nothing that it measures would be idle.
const INTERVAL_S: &str = "0.02";

/// Enough for two handshakes that were lost: each is repeated after 5 s (WireGuard's `REKEY_TIMEOUT`).
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);

/// Pings `server` until it answers, so that no handshake falls into what is measured.
pub(super) fn until_answered(host: &Host, server: &str) -> Result<()> {
    within(&format!("{server} answers a ping"), ANSWERED_WITHIN, || {
        host.ok(&["ping", "-n", "-c", "1", "-W", "1", server]).map(Some)
    })?;
    Ok(())
}

/// What came of a number of pings.
#[derive(Debug, Clone, Default)]
pub(super) struct Pings {
    times_us: Vec<f64>,
    lost: usize,
}

impl Pings {
    /// Pings `server` so many times; the first `skipped` do not count.
    pub(super) fn send(host: &Host, server: &str, count: usize, skipped: usize) -> Result<Self> {
        let total = (count + skipped).to_string();
        // ping fails where none of its last pings came back, and that is a result here.
        let args = ["ping", "-n", "-W", "1", "-i", INTERVAL_S, "-c", &total, server];
        let output = host.run(&args)?;
        let pings = Self::read(&output.stdout, count, skipped);
        ensure!(
            !pings.times_us.is_empty(),
            "no ping came back: {}{}",
            output.stdout,
            output.stderr
        );
        Ok(pings)
    }

    /// Takes others in.
    pub(super) fn add(&mut self, others: Self) {
        self.times_us.extend(others.times_us);
        self.lost += others.lost;
    }

    fn read(text: &str, count: usize, skipped: usize) -> Self {
        let answers = text.lines().filter_map(|line| {
            let sequence: usize =
                line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok()?;
            let time_ms: f64 = line.split_once("time=")?.1.split(' ').next()?.parse().ok()?;
            (sequence > skipped && !line.contains("DUP!")).then_some(time_ms * 1000.0)
        });
        let times_us: Vec<f64> = answers.collect();
        Self { lost: count.saturating_sub(times_us.len()), times_us }
    }

    /// The time in microseconds that a share of the answers does not pass.
    pub(super) fn us(&self, share: f64) -> f64 {
        percentile(&self.times_us, share)
    }

    /// How many of a hundred had no answer.
    pub(super) fn lost_percent(&self) -> f64 {
        100.0 * self.lost as f64 / (self.times_us.len() + self.lost) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_that_are_skipped_or_lost_have_no_time() {
        let text = "PING 10.1.0.10 (10.1.0.10) 56(84) bytes of data.
64 bytes from 10.1.0.10: icmp_seq=1 ttl=63 time=900 ms
64 bytes from 10.1.0.10: icmp_seq=2 ttl=63 time=0.100 ms
64 bytes from 10.1.0.10: icmp_seq=4 ttl=63 time=1.20 ms
64 bytes from 10.1.0.10: icmp_seq=4 ttl=63 time=7.20 ms (DUP!)
";
        let mut pings = Pings::read(text, 2, 2);
        assert_eq!((pings.us(0.5).round(), pings.lost), (1200.0, 1));
        pings.add(Pings { times_us: vec![100.0], lost: 1 });
        assert_eq!((pings.us(0.5).round(), pings.us(0.99).round()), (100.0, 1200.0));
        assert!((pings.lost_percent() - 50.0).abs() < 1e-9);
    }
}
