//! What the kernel says of processor time and memory: of the whole machine, of a process, of this thread.
//!
//! The whole machine's time is what counts between programs that leave work to the kernel in different
//! ways: what one saves in its own time it may spend in a softirq that no process answers for.

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// Time that all cores together were busy since boot, in seconds (proc(5), `/proc/stat`). Waiting for a
/// disk is idleness, and so is what the hypervisor took.
pub(super) fn busy_s() -> Result<f64> {
    busy_of(&std::fs::read_to_string("/proc/stat")?)
}

fn busy_of(stat: &str) -> Result<f64> {
    let [user, nice, system, _idle, _iowait, irq, softirq, _stolen] = ticks_of(stat)?;
    let busy = user + nice + system + irq + softirq;
    Ok(busy as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// user nice system idle iowait irq softirq steal; guest time, which may follow, is within user's.
fn ticks_of(stat: &str) -> Result<[u64; 8]> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let line = line.context("/proc/stat is not as expected")?;
    let ticks = line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    ticks.first_chunk().copied().with_context(|| format!("/proc/stat is not as expected: {line}"))
}

/// What the hypervisor took of the machine so far.
#[derive(Debug, Clone, Copy)]
struct Theft {
    stolen: u64,
    total: u64,
}

impl Theft {
    fn now() -> Result<Self> {
        Self::of(&std::fs::read_to_string("/proc/stat")?)
    }

    fn of(stat: &str) -> Result<Self> {
        let ticks = ticks_of(stat)?;
        Ok(Self { stolen: ticks[7], total: ticks.iter().sum() })
    }

    /// The share of all processor time that it took since `before`.
    fn share_since(self, before: Self) -> f64 {
        let total = self.total.saturating_sub(before.total).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 / total as f64
    }
}

/// Takes a measurement, and takes it again where the hypervisor took more than [`THEFT_MAX`] of the
/// machine meanwhile: what is left of a machine says nothing of a program. The least disturbed one of
/// [`ATTEMPTS`] counts; the share that was stolen during it comes along.
pub(super) fn undisturbed<T>(mut measure: impl FnMut() -> Result<T>) -> Result<(T, f64)> {
    let mut best: Option<(T, f64)> = None;
    for _ in 0..ATTEMPTS {
        let before = Theft::now()?;
        let measured = measure()?;
        let stolen = Theft::now()?.share_since(before);
        if best.as_ref().is_none_or(|(_, least)| stolen < *least) {
            best = Some((measured, stolen));
        }
        if stolen <= THEFT_MAX {
            break;
        }
    }
    best.context("nothing was measured")
}

/// A twentieth is within what two runs of anything differ by.
const THEFT_MAX: f64 = 0.05;
/// A neighbour's burst is over after some seconds, or is not going to be.
const ATTEMPTS: usize = 4;

/// Processor time of this thread, in seconds.
pub(super) fn thread_s() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Memory of a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// Resident now, in MB.
    pub(super) resident_mb: f64,
    /// The most that was ever resident, in MB.
    pub(super) peak_mb: f64,
}

impl Memory {
    /// That of a running process (proc(5), `/proc/PID/status`).
    pub(super) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let field = |name: &str| -> Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next());
            let kib: f64 = kib.with_context(|| format!("{path} has no {name}"))?.parse()?;
            Ok(kib * 1024.0 / 1e6)
        };
        Ok(Self { resident_mb: field("VmRSS:")?, peak_mb: field("VmHWM:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_and_stolen_time_is_not_busy_and_guests_count_once() {
        let hz = rustix::param::clock_ticks_per_second();
        let tick = |n: u64| (n * hz).to_string();
        let fields = [1, 2, 4, 800, 800, 8, 16, 800, 1, 2].map(tick).join(" ");
        let busy = busy_of(&format!("cpu  {fields}\ncpu0 {fields}\n")).unwrap();
        assert!((busy - 31.0).abs() < 1e-9, "{busy}");
        assert!(busy_of("cpu  1 2 3\n").is_err());
    }

    #[test]
    fn a_measurement_that_the_hypervisor_disturbed_is_known() {
        let before = Theft::of("cpu  100 0 0 100 0 0 0 10 0 0\n").unwrap();
        let after = Theft::of("cpu  150 0 0 120 0 0 0 40 5 0\n").unwrap();
        assert!((after.share_since(before) - 0.3).abs() < 1e-9);
        assert!(before.share_since(before).abs() < 1e-9);
    }

    #[test]
    fn a_process_has_more_memory_at_its_peak_than_now() {
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(memory.resident_mb > 0.1 && memory.peak_mb >= memory.resident_mb, "{memory:?}");
    }
}
