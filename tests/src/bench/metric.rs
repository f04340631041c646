//! What is measured of every tunnel alike, and what Partywall's figure is held to.
//!
//! The bars are the promises of the fast path, each in terms of what boringtun-cli does in the same run.

use super::row::median;
use super::{Better, Row};

/// What the whole machine may spend, in terms of what cipher and bare transfer alone take.
const FLOORS: f64 = 1.5;

/// One thing that is measured of every tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Metric {
    OneStream,
    EightStreams,
    OneStreamDaemons,
    EightStreamsDaemons,
    OneStreamMachine,
    EightStreamsMachine,
    Udp1300,
    Udp64,
    IdleP50,
    IdleP99,
    IdleLost,
    LoadedP50,
    LoadedP99,
    LoadedLost,
    SlowLink,
    SlowLinkP50,
    SlowLinkP99,
    Memory,
    /// Of the machine, by the hypervisor, during the measurement of a turn that suffered most.
    Stolen,
}

/// What a figure is held to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Hold {
    /// So many times the yardstick's.
    Yardstick(f64, Better),
    /// So many times the floor, at most.
    Floor(f64),
    /// Nothing.
    Nothing,
}

impl Metric {
    pub(super) const ALL: [Self; 19] = [
        Self::OneStream,
        Self::EightStreams,
        Self::OneStreamDaemons,
        Self::EightStreamsDaemons,
        Self::OneStreamMachine,
        Self::EightStreamsMachine,
        Self::Udp1300,
        Self::Udp64,
        Self::IdleP50,
        Self::IdleP99,
        Self::IdleLost,
        Self::LoadedP50,
        Self::LoadedP99,
        Self::LoadedLost,
        Self::SlowLink,
        Self::SlowLinkP50,
        Self::SlowLinkP99,
        Self::Memory,
        Self::Stolen,
    ];

    fn name_and_unit(self) -> (&'static str, &'static str) {
        match self {
            Self::OneStream => ("one TCP stream", "Gb/s"),
            Self::EightStreams => ("eight TCP streams", "Gb/s"),
            Self::OneStreamDaemons => ("one TCP stream, both daemons", "CPU-s/GB"),
            Self::EightStreamsDaemons => ("eight TCP streams, both daemons", "CPU-s/GB"),
            Self::OneStreamMachine => ("one TCP stream, whole machine", "CPU-s/GB"),
            Self::EightStreamsMachine => ("eight TCP streams, whole machine", "CPU-s/GB"),
            Self::Udp1300 => ("UDP, 1,300 bytes, delivered", "Gb/s"),
            Self::Udp64 => ("UDP, 64 bytes, delivered", "packets/s"),
            Self::IdleP50 => ("round trip, idle, p50", "us"),
            Self::IdleP99 => ("round trip, idle, p99", "us"),
            Self::IdleLost => ("pings lost, idle", "%"),
            Self::LoadedP50 => ("round trip, under one TCP stream, p50", "us"),
            Self::LoadedP99 => ("round trip, under one TCP stream, p99", "us"),
            Self::LoadedLost => ("pings lost, under one TCP stream", "%"),
            Self::SlowLink => ("one TCP stream, 100 Mb/s link", "Gb/s"),
            Self::SlowLinkP50 => ("round trip beside it, 100 Mb/s link, p50", "us"),
            Self::SlowLinkP99 => ("round trip beside it, 100 Mb/s link, p99", "us"),
            Self::Memory => ("larger daemon's memory at its peak", "MB"),
            Self::Stolen => ("stolen from the machine meanwhile, at most", "%"),
        }
    }

    fn hold(self) -> Hold {
        match self {
            Self::OneStream | Self::EightStreams => Hold::Yardstick(10.0, Better::Higher),
            Self::OneStreamDaemons | Self::EightStreamsDaemons => {
                Hold::Yardstick(0.2, Better::Lower)
            }
            Self::OneStreamMachine => Hold::Floor(FLOORS),
            Self::Udp1300 => Hold::Yardstick(3.0, Better::Higher),
            Self::Udp64 => Hold::Yardstick(2.0, Better::Higher),
            Self::IdleP50 => Hold::Yardstick(1.0, Better::Lower),
            Self::LoadedP99 => Hold::Yardstick(0.5, Better::Lower),
            Self::EightStreamsMachine
            | Self::IdleP99
            | Self::IdleLost
            | Self::LoadedP50
            | Self::LoadedLost
            | Self::SlowLink
            | Self::SlowLinkP50
            | Self::SlowLinkP99
            | Self::Memory
            | Self::Stolen => Hold::Nothing,
        }
    }

    /// Partywall's row. A bar needs what it is made of from the same run.
    pub(super) fn row(self, ours: &[f64], yardstick: Option<&[f64]>, floor: Option<f64>) -> Row {
        let (name, unit) = self.name_and_unit();
        let held = match self.hold() {
            Hold::Yardstick(times, better) => {
                yardstick.map(|theirs| (times * median(theirs), better))
            }
            Hold::Floor(times) => floor.map(|floor| (times * floor, Better::Lower)),
            Hold::Nothing => None,
        };
        match held {
            Some((bar, better)) => Row::new(name, unit, ours, bar, better),
            None => Row::shown(name, unit, ours),
        }
    }

    /// A rival's row.
    pub(super) fn rival_row(self, rival: &str, figures: &[f64]) -> Row {
        let (name, unit) = self.name_and_unit();
        Row::shown(&format!("{rival}: {name}"), unit, figures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_follow_the_yardsticks_median_and_the_floor() {
        let theirs = [0.5, 0.6, 9.0];
        let row = |metric: Metric, ours| metric.row(&[ours], Some(&theirs), Some(2.0));
        assert!(row(Metric::OneStream, 6.0).ok && !row(Metric::OneStream, 5.9).ok);
        assert!(row(Metric::LoadedP99, 0.3).ok && !row(Metric::LoadedP99, 0.31).ok);
        assert!(row(Metric::OneStreamMachine, 3.0).ok && !row(Metric::OneStreamMachine, 3.1).ok);
        assert!(row(Metric::Memory, 1e9).ok);
    }

    #[test]
    fn every_metric_has_a_row_of_its_own() {
        let rows: std::collections::BTreeSet<String> =
            Metric::ALL.iter().map(|metric| metric.row(&[1.0], None, None).metric).collect();
        assert_eq!(rows.len(), Metric::ALL.len());
    }
}
