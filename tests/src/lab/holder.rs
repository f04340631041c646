//! The process that holds a lab's namespaces.
//!
//! The holder is process 1 of its own process namespace, so the kernel ends everything in the lab
//! with it. A holder that is not kept reads a pipe from its starter and ends when that closes:
//! even a test that is killed leaves nothing behind.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};

/// Mounts that hide the machine's own: a fresh `/proc` for the process namespace, and an empty
/// `/run`, so that nothing in the lab reaches the machine's daemons through their sockets.
const SCRIPT: &str = r#"
set -e
read -r pid _ </proc/self/stat
mount -t proc proc /proc
mount -t tmpfs -o mode=755 lab /run
echo "$pid"
exec >/dev/null
"#;

#[derive(Debug)]
pub(super) struct Holder {
    pid: u32,
    started: u64,
    child: Option<Child>,
}

impl Holder {
    pub(super) fn start(detached: bool, dir: &Path) -> Result<Self> {
        // A file, for unshare complains (harmlessly) when its child is killed, which is how a lab ends.
        let log = dir.join("holder.log");
        let wait = if detached { "sleep infinity" } else { "cat >/dev/null" };
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--"])
            .args(["sh", "-c", &format!("{SCRIPT}{wait} || true")])
            .env_remove("ENV")
            .stdin(if detached { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .process_group(0);
        let mut child = command.spawn().context("unshare (util-linux) does not start")?;
        let stdout = child.stdout.take().expect("stdout was asked for");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("the lab's holder says nothing")?;
        let Ok(pid) = line.trim().parse() else {
            let _ = child.kill();
            let _ = child.wait();
            let why = std::fs::read_to_string(&log).unwrap_or_default();
            bail!(
                "no private namespaces could be made here; the lab needs root and namespaces: {why}"
            );
        };
        Ok(Self { pid, started: start_ticks(pid)?, child: Some(child) })
    }

    pub(super) fn attach(pid: u32, started: u64) -> Result<Self> {
        let found = start_ticks(pid).context("the lab is gone")?;
        ensure!(
            found == started,
            "the lab is gone (its process id belongs to another process now)"
        );
        Ok(Self { pid, started, child: None })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn started(&self) -> u64 {
        self.started
    }

    /// Holds the promise that no packet leaves the machine: this must be a network namespace of its
    /// own with no link but loopback and no route at all. Asked before anything is built in it.
    pub(super) fn refuse_uplink(&self) -> Result<()> {
        let inode = |path: String| -> Result<u64> {
            Ok(std::fs::metadata(&path).with_context(|| format!("{path} cannot be read"))?.ino())
        };
        let inside = inode(format!("/proc/{}/ns/net", self.pid))?;
        let outside = inode("/proc/self/ns/net".into())?;
        ensure!(inside != outside, "the lab is not in a network namespace of its own");
        let shown = |args: &[&str]| -> Result<String> {
            let output = self.command().args(args).output().context("ip (iproute2) fails")?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let links = shown(&["ip", "-o", "link", "show"])?;
        ensure!(
            links.lines().all(|line| line.contains(" lo: ") && line.contains("link/loopback")),
            "the lab's namespace has a link to somewhere before anything was built:\n{links}"
        );
        let routes = shown(&["ip", "route", "show", "table", "all"])?;
        ensure!(routes.trim().is_empty(), "the lab's namespace has routes already:\n{routes}");
        Ok(())
    }

    /// A command in the lab's own namespaces, outside any host.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        let proc = format!("/proc/{}/ns", self.pid);
        command
            .arg(format!("--net={proc}/net"))
            .arg(format!("--mount={proc}/mnt"))
            .arg(format!("--pid={proc}/pid_for_children"))
            .arg("--")
            .process_group(0);
        command
    }

    pub(super) fn run_script(&self, script: &str) -> Result<()> {
        let mut child = self
            .command()
            .args(["sh", "-eu"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("nsenter (util-linux) does not start")?;
        child.stdin.take().expect("stdin was asked for").write_all(script.as_bytes())?;
        let output = child.wait_with_output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the lab could not be built: {}", errors.trim());
        Ok(())
    }

    /// Lets the holder go on without this process.
    pub(super) fn release(&mut self) {
        self.child = None;
    }

    /// Ends the holder, and with it the lab. Returns when it is gone.
    pub(super) fn end(&mut self) {
        if let Some(pid) = Pid::from_raw(self.pid.cast_signed())
            && start_ticks(self.pid).is_ok_and(|found| found == self.started)
        {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // A kept or attached holder has no child here and goes on.
        if self.child.is_some() {
            self.end();
        }
    }
}

/// Field 22 of `/proc/PID/stat` (proc(5)): when the process started. The name in field 2 may hold
/// spaces, so fields are counted from the last parenthesis.
fn start_ticks(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("no process {pid}"))?;
    let after = stat.rsplit_once(')').context("/proc is not as expected")?.1;
    after.split_whitespace().nth(19).context("/proc is not as expected")?.parse().context(path)
}
