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

use super::wait::{PATIENCE, wait_for};

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
        let routes =
            ["-4", "-6"].map(|family| shown(&["ip", family, "route", "show", "table", "all"]));
        let [four, six] = routes;
        isolated(&links, &(four? + &six?))
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
        // The kernel ends process 1 of a namespace after every other process in it.
        let _ = wait_for("the lab is gone", PATIENCE, || {
            start_ticks(self.pid).map_or(true, |found| found != self.started)
        });
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

/// Judges what `ip` shows of a namespace. Kernels with tunnel modules put a fallback device of each kind
/// into every namespace (`sit0@NONE`); it is down, and nobody here brings it up.
fn isolated(links: &str, routes: &str) -> Result<()> {
    let harmless = |line: &str| {
        let up =
            line.split(['<', '>']).nth(1).is_some_and(|flags| flags.split(',').any(|f| f == "UP"));
        line.contains("link/loopback") || (line.contains("@NONE:") && !up)
    };
    ensure!(
        links.lines().all(harmless),
        "the lab's namespace has a link to somewhere before anything was built:\n{links}"
    );
    ensure!(routes.trim().is_empty(), "the lab's namespace has routes already:\n{routes}");
    Ok(())
}

/// Field 22 of `/proc/PID/stat` (proc(5)): when the process started. The name in field 2 may hold
/// spaces, so fields are counted from the last parenthesis.
fn start_ticks(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("no process {pid}"))?;
    let after = stat.rsplit_once(')').context("/proc is not as expected")?.1;
    after.split_whitespace().nth(19).context("/proc is not as expected")?.parse().context(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LO: &str =
        "1: lo: <LOOPBACK> mtu 65536 qdisc noop state DOWN\\    link/loopback 00:00:00:00:00:00\n";

    #[test]
    fn a_namespace_with_an_uplink_is_refused() {
        let eth0 = "2: eth0: <BROADCAST,MULTICAST> mtu 1500 state DOWN\\    link/ether 52:54:00:12:34:56\n";
        let tunnel = "2: sit0@NONE: <NOARP,UP> mtu 1480 state UNKNOWN\\    link/sit 0.0.0.0\n";
        assert!(isolated(&format!("{LO}{eth0}"), "").is_err());
        assert!(isolated(&format!("{LO}{tunnel}"), "").is_err());
        assert!(isolated(LO, "default via 192.0.2.1 dev eth0\n").is_err());
    }

    #[test]
    fn a_namespace_of_its_own_is_taken_fallback_devices_and_all() {
        let fallback =
            "2: sit0@NONE: <NOARP> mtu 1480 state DOWN\\    link/sit 0.0.0.0 brd 0.0.0.0\n";
        isolated(&format!("{LO}{fallback}"), "").unwrap();
    }
}
