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
    // user nice system idle iowait irq softirq steal …; guest time is within user's.
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let line = line.context("/proc/stat is not as expected")?;
    let ticks = line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
        anyhow::bail!("/proc/stat is not as expected: {line}");
    };
    let busy = user + nice + system + irq + softirq;
    Ok(busy as f64 / rustix::param::clock_ticks_per_second() as f64)
}

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
    fn a_process_has_more_memory_at_its_peak_than_now() {
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(memory.resident_mb > 0.1 && memory.peak_mb >= memory.resident_mb, "{memory:?}");
    }
}
