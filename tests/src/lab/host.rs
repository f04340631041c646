//! One machine of the lab, and how to run things on it.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::output::Output;
use super::process::Process;
use super::{PATIENCE, binaries, within};

/// Longest that [`Host::run`] lets a command take, in seconds. A hung command fails its test, not the
/// whole run.
const RUN_LIMIT_S: &str = "120";

/// A machine. Cheap to clone; it lives as long as its lab.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
    holder: u32,
    /// Process id of the host's own holder, in the lab's process namespace.
    inner: u32,
    dir: PathBuf,
}

impl Host {
    pub(super) fn new(name: &str, holder: u32, dir: &Path) -> Result<Self> {
        let file = format!("/proc/{holder}/root/run/hosts/{name}");
        let inner = std::fs::read_to_string(&file).with_context(|| file.clone())?;
        let inner = inner.trim().parse().with_context(|| format!("{file} has {inner:?}"))?;
        Ok(Self { name: name.into(), holder, inner, dir: dir.into() })
    }

    /// The host's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command on this host, for callers who want their own pipes. Partywall's programs are on the
    /// `PATH`. The child is `nsenter`, which waits for the program and ends as it does.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.interactive(args);
        // Ctrl-C at a terminal is for the caller, who then ends the lab in order.
        command.process_group(0);
        command
    }

    /// As [`Host::command`], for a person at a terminal.
    pub fn interactive(&self, args: &[&str]) -> Command {
        let own = format!("/proc/{}/root/proc/{}/ns", self.holder, self.inner);
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={own}/net"))
            .arg(format!("--mount={own}/mnt"))
            .arg(format!("--uts={own}/uts"))
            .arg(format!("--pid=/proc/{}/ns/pid_for_children", self.holder))
            .args(["--wd=/", "--"])
            .args(args)
            .env("PATH", binaries::path());
        command
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// It could not be started. A command that fails is no error here: see [`Output::ok`].
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        self.run_with_input(args, "")
    }

    /// Runs a command to its end, with `input` on its standard input.
    ///
    /// # Errors
    /// As [`Host::run`].
    pub fn run_with_input(&self, args: &[&str], input: &str) -> Result<Output> {
        let shown = format!("{}: {}", self.name, args.join(" "));
        let limited: Vec<&str> = ["timeout", "--kill-after=2", RUN_LIMIT_S]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        let mut child = self
            .command(&limited)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| shown.clone())?;
        // Inputs are a few lines, so they fit the pipe; a command that does not read is no error.
        let _ = child.stdin.take().expect("stdin was asked for").write_all(input.as_bytes());
        let output = child.wait_with_output()?;
        Ok(Output {
            command: shown,
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Standard output of a command that must succeed.
    ///
    /// # Errors
    /// It fails.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        self.run(args)?.ok()
    }

    /// Starts a process whose outputs go to `HOST-NAME.log` in the lab's directory.
    ///
    /// # Errors
    /// It could not be started.
    pub fn spawn(&self, name: &str, args: &[&str]) -> Result<Process> {
        self.spawn_with(name, args, &[])
    }

    /// As [`Host::spawn`], with environment variables.
    ///
    /// # Errors
    /// As [`Host::spawn`].
    pub fn spawn_with(&self, name: &str, args: &[&str], env: &[(&str, &str)]) -> Result<Process> {
        let mut command = self.command(args);
        command.envs(env.iter().copied());
        let log = self.dir.join(format!("{}-{name}.log", self.name));
        Process::start(&format!("{name} on {}", self.name), command, log)
    }

    /// Runs `action` in this host's network, on a thread of its own: what it opens there stays there.
    ///
    /// # Errors
    /// The host's network cannot be entered.
    pub fn enter<T: Send>(&self, action: impl FnOnce() -> T + Send) -> Result<T> {
        let path = format!("/proc/{}/root/run/netns/{}", self.holder, self.name);
        let network = std::fs::File::open(&path).with_context(|| format!("no network {path}"))?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(network.as_fd(), kind).context("it cannot be entered")?;
                Ok(action())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Text of a file as this host sees it: its `/etc/resolv.conf` is its own.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self, path: &str) -> Result<String> {
        self.ok(&["cat", path])
    }

    /// Waits until something listens on a port. `protocol` is `t` for TCP, `u` for UDP.
    ///
    /// # Errors
    /// Nothing does within [`PATIENCE`].
    pub fn wait_for_listener(&self, protocol: char, port: u16) -> Result<()> {
        let what = format!("something listens on port {port} of {}", self.name);
        let flags = format!("-Hln{protocol}");
        let filter = format!("sport = :{port}");
        within(&what, PATIENCE, || {
            let shown = self.ok(&["ss", &flags, &filter])?;
            Ok((!shown.trim().is_empty()).then_some(()))
        })
    }
}
