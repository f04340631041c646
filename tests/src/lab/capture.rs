//! Recording what is on a network's wire.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use pcap_file::pcap::PcapReader;
use rustix::process::Signal;

use super::holder::Holder;
use super::process::Process;
use super::wait::{PATIENCE, wait_for, within};

/// One Ethernet frame, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// When it was seen, since the Unix epoch.
    pub time: Duration,
    /// From the destination address on.
    pub bytes: Vec<u8>,
}

/// A running recording. Dropping it ends it; [`Capture::stop`] also reads it.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
    holder: std::process::Command,
    bridge: String,
}

/// EtherType of IEEE 802 local experiments: marks the end of a recording, and is left out of it.
const MARK: [u8; 2] = [0x88, 0xb5];

impl Capture {
    pub(super) fn start(holder: &Holder, bridge: &str, dir: &Path) -> Result<Self> {
        let file = dir.join(format!("{bridge}-{}.pcap", rand::random::<u32>()));
        let log = file.with_extension("log");
        let mut command = holder.command();
        command
            .args(["tcpdump", "-i", bridge, "-w"])
            .arg(&file)
            // Whole frames, written as they come, with room for a burst while nobody reads.
            .args(["-s", "0", "-U", "-n", "--immediate-mode", "-B", "65536", "-Z", "root"]);
        let mut process = Process::start("tcpdump", command, log)?;
        within("tcpdump listens", PATIENCE, || {
            process.must_run()?;
            Ok(process.log().contains("listening on").then_some(()))
        })?;
        Ok(Self { process, file, holder: holder.command(), bridge: bridge.into() })
    }

    /// The recording, for Wireshark.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Ends the recording and reads it. Every frame that was on the wire before the call is in it: a
    /// mark is sent and waited for.
    ///
    /// # Errors
    /// tcpdump lost frames, or the recording cannot be read.
    pub fn stop(mut self) -> Result<Vec<Frame>> {
        self.process.must_run()?;
        let mark = [[0xff; 6].as_slice(), &[2, 0, 0, 0, 0, 1], &MARK, &[0; 46]].concat();
        self.send(&mark)?;
        wait_for("the recording is complete", PATIENCE, || {
            read(&self.file).is_ok_and(|frames| frames.iter().any(is_mark))
        })?;
        self.process.signal(Signal::INT);
        self.process.wait(PATIENCE)?;
        let log = self.process.log();
        anyhow::ensure!(log.contains("0 packets dropped by kernel"), "frames were lost: {log}");
        let mut frames = read(&self.file)?;
        frames.retain(|frame| !is_mark(frame));
        Ok(frames)
    }

    fn send(&mut self, frame: &[u8]) -> Result<()> {
        let mut child = self
            .holder
            .args(["socat", "-u", "STDIN", &format!("INTERFACE:{}", self.bridge)])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("socat does not start")?;
        child.stdin.take().expect("stdin was asked for").write_all(frame)?;
        child.wait()?;
        Ok(())
    }
}

fn is_mark(frame: &Frame) -> bool {
    frame.bytes.get(12..14) == Some(&MARK)
}

/// Reads a recording; one that is still being written ends at its last whole frame.
fn read(path: &Path) -> Result<Vec<Frame>> {
    let file = File::open(path).with_context(|| format!("{}", path.display()))?;
    let mut reader = PcapReader::new(std::io::BufReader::new(file))?;
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let Ok(packet) = packet else { break };
        frames.push(Frame { time: packet.timestamp, bytes: packet.data.into_owned() });
    }
    Ok(frames)
}
