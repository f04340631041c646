//! A process that runs on a host of the lab.
//!
//! `nsenter` stands between us and it: signals and `/proc` readings must go to the process itself,
//! which is what [`Process::pid`] names.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use super::wait::{PATIENCE, within};

/// A running process; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    wrapper: Option<Child>,
    pid: u32,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts an `nsenter` command that forks its program. Both outputs go to the file `log`.
    pub(super) fn start(name: &str, mut command: Command, log: PathBuf) -> Result<Self> {
        let file = File::options().create(true).append(true).open(&log)?;
        if command.get_envs().all(|(key, _)| key != "RUST_LOG") {
            command.env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into()));
        }
        let mut wrapper = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        let children = format!("/proc/{0}/task/{0}/children", wrapper.id());
        let mut status = None;
        let pid = within(&format!("{name} starts"), PATIENCE, || {
            status = wrapper.try_wait()?;
            let text = std::fs::read_to_string(&children).unwrap_or_default();
            let pid = text.split_whitespace().next().and_then(|pid| pid.parse().ok());
            Ok(pid.or(status.map(|_| 0)))
        })?;
        Ok(Self { name: name.into(), wrapper: Some(wrapper), pid, log, status })
    }

    /// What it was started as.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process itself, in the caller's process namespace; 0 if it ended at once.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where both its outputs go.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Both its outputs so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.poll().is_none()
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        if self.status.is_none()
            && let Some(wrapper) = &mut self.wrapper
        {
            self.status = wrapper.try_wait().ok().flatten();
        }
        self.status
    }

    /// Sends a signal to the process itself. One that has ended is left alone.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running()
            && let Some(pid) = Pid::from_raw(self.pid.cast_signed())
        {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It still runs at the deadline.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        within(&what, deadline, || Ok(self.poll()))
    }

    /// Asks it to end (SIGTERM) and waits for that.
    ///
    /// # Errors
    /// It still runs after [`PATIENCE`].
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        let ended = self.wait(PATIENCE);
        ended.with_context(|| format!("it does not stop; its log:\n{}", self.tail()))
    }

    /// Kills it as a power cut would (SIGKILL) and waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    /// An error with the end of the log, unless it still runs.
    ///
    /// # Errors
    /// It has ended.
    pub fn must_run(&mut self) -> Result<()> {
        match self.poll() {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.tail()),
        }
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// User and system time that it has used so far, in seconds (proc(5), `/proc/PID/stat`).
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu_s(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .with_context(|| format!("{} has ended", self.name))?;
        let fields = stat.rsplit_once(')').context("/proc is not as expected")?.1;
        let ticks: u64 =
            fields.split_whitespace().skip(11).take(2).flat_map(str::parse::<u64>).sum();
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Lets it go on without this process.
    pub(super) fn release(mut self) {
        self.wrapper = None;
    }

    fn end(&mut self) {
        self.signal(Signal::KILL);
        if let Some(wrapper) = &mut self.wrapper {
            self.status = wrapper.wait().ok();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.wrapper.is_some() {
            self.end();
        }
    }
}
