//! Bulk transfers with iperf3: how much arrives, and what the machine spends on it.
//!
//! Datagrams are counted where the receiver's kernel has them for its application. iperf3 itself loses
//! more of them than any tunnel once it is short of a processor, and that is not what is measured.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::Value;

use super::machine;
use crate::lab::{Host, within};

/// An iperf3 server takes one client at a time and needs a moment after the last one.
const PATIENCE: Duration = Duration::from_secs(20);

/// What decides how fast TCP sends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Congestion {
    /// What this machine's kernel begins with.
    #[default]
    Machine,
    /// CUBIC (RFC 9438), which Debian, Windows and macOS begin with. It does not pace.
    Cubic,
}

/// Where iperf3 listens, and how it is sent to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Its address.
    pub(super) address: String,
    /// Its port.
    pub(super) port: u16,
    /// Of TCP towards it.
    pub(super) congestion: Congestion,
}

/// What came of TCP streams.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streamed {
    /// Payload that arrived.
    pub(super) gbit_per_s: f64,
    /// Of the whole machine, both ends' applications included.
    pub(super) machine_s_per_gb: f64,
    /// Of what the caller asked about.
    pub(super) daemons_s_per_gb: f64,
}

/// Runs TCP streams towards `target` for so long. `daemons_s` says how much processor time the programs
/// under test have used so far.
pub(super) fn tcp(
    from: &Host,
    target: &Target,
    streams: u32,
    seconds: u32,
    mut daemons_s: impl FnMut() -> Result<f64>,
) -> Result<Streamed> {
    let (streams, seconds) = (streams.to_string(), seconds.to_string());
    let mut args = vec!["-t", &seconds, "-P", &streams];
    let usual = from.read(BEGINS_WITH)?;
    if target.congestion == Congestion::Cubic {
        begin_with(from, UNPACED)?;
        args.extend(["-C", "cubic"]);
    }
    let measured = within("iperf3 measures", PATIENCE, || {
        let before = (machine::busy_s()?, daemons_s()?);
        let report = run(from, target, &args)?;
        Ok(Some((report, machine::busy_s()? - before.0, daemons_s()? - before.1)))
    });
    begin_with(from, usual.trim())?;
    let (report, machine, daemons) = measured?;
    let received = &report["end"]["sum_received"];
    let gb = field(received, "bytes")? / 1e9;
    ensure!(gb > 0.0, "nothing arrived");
    Ok(Streamed {
        gbit_per_s: field(received, "bits_per_second")? / 1e9,
        machine_s_per_gb: machine / gb,
        daemons_s_per_gb: daemons / gb,
    })
}

/// Sends datagrams of `payload_bytes` as fast as one sender can; how many a second arrived at `to`.
pub(super) fn udp(
    from: &Host,
    to: &Host,
    target: &Target,
    payload_bytes: u32,
    seconds: u32,
) -> Result<f64> {
    let (length, seconds) = (payload_bytes.to_string(), seconds.to_string());
    let (report, arrived) = within("iperf3 measures", PATIENCE, || {
        let before = datagrams(&to.read(SNMP)?)?;
        let report = run(from, target, &["-u", "-b", "0", "-l", &length, "-t", &seconds])?;
        Ok(Some((report, datagrams(&to.read(SNMP)?)?.saturating_sub(before))))
    })?;
    let sent_s = field(&report["end"]["sum_sent"], "seconds")?;
    ensure!(sent_s > 0.0, "iperf3 sent for no time");
    Ok(arrived as f64 / sent_s)
}

/// iperf3 chooses after it has connected, and what connected with BBR goes on to be paced. A network namespace may not
/// begin with CUBIC where the machine does not; with Reno each may, and that does not pace either.
const UNPACED: &str = "reno";
const BEGINS_WITH: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

fn begin_with(from: &Host, congestion: &str) -> Result<()> {
    from.ok(&["sysctl", "-qw", &format!("net.ipv4.tcp_congestion_control={congestion}")])?;
    Ok(())
}

const SNMP: &str = "/proc/net/snmp";

/// Datagrams that a kernel had for its applications so far: those that they read, and those that they
/// were too slow for.
fn datagrams(snmp: &str) -> Result<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = lines.next().zip(lines.next()).context("no Udp in /proc/net/snmp")?;
    let counted = names.split(' ').zip(values.split(' '));
    let wanted = counted.filter(|(name, _)| ["InDatagrams", "RcvbufErrors"].contains(name));
    let numbers = wanted.map(|(_, value)| value.parse()).collect::<Result<Vec<u64>, _>>()?;
    ensure!(numbers.len() == 2, "/proc/net/snmp is not as expected: {names}");
    Ok(numbers.iter().sum())
}

fn run(from: &Host, target: &Target, args: &[&str]) -> Result<Value> {
    let port = target.port.to_string();
    let client = ["iperf3", "-J", "-c", &target.address, "-p", &port];
    let text = from.ok(&[&client[..], args].concat())?;
    serde_json::from_str(&text).context("iperf3 -J")
}

fn field(of: &Value, name: &str) -> Result<f64> {
    of[name].as_f64().with_context(|| format!("iperf3 gives no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_that_the_application_was_too_slow_for_arrived_too() {
        let snmp = "Ip: Forwarding\nIp: 1\n\
            Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors\nUdp: 10 3 5 7 5\n\
            UdpLite: InDatagrams\nUdpLite: 9\n";
        assert_eq!(datagrams(snmp).unwrap(), 15);
        assert!(datagrams("Ip: Forwarding\nIp: 1\n").is_err());
    }
}
