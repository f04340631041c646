//! The daemon's hold on the data path: starts the workers, tells them what to enforce, asks how
//! they are.
//!
//! [`DataPlane::apply`] resolves when every shard enforces the update, never earlier: an
//! acknowledged revocation has cut. A worker that dies is told by [`DataPlane::stopped`]; its TUN
//! goes with it, and the leak guard stays.

use std::any::Any;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use partywall_datapath::shard::{
    Explanation, Limits, PrivateKey, Query, Role, Settings, Shard, Update,
};
use rustix::event::EventfdFlags;
use tokio::sync::{oneshot, watch};
use tracing::info;

use crate::dataplane::report::Report;
use crate::dataplane::tun::TunPort;
use crate::dataplane::udp::UdpPort;
use crate::dataplane::worker::{Command, Worker};
use crate::sys::tun::{Features, TunQueue};

/// How the data path is set up. None of it changes while it runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The TUN interface's name, at most 15 bytes.
    pub tun_name: String,
    /// The agent's WireGuard private key.
    pub private_key: PrivateKey,
    /// Device or gateway.
    pub role: Role,
    /// UDP port; none lets the kernel choose.
    pub listen_port: Option<u16>,
    /// Threads. Only 1 works today.
    pub shards: u16,
    /// `SO_MARK` of the agent's own datagrams.
    pub fwmark: u32,
    /// What the kernel is asked to do for many packets at once.
    pub offloads: Offloads,
}

/// Work on many packets at once that the kernel is asked for. What it refuses is done without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    /// Super-packets at the TUN.
    pub tun: bool,
    /// Segmentation and gathering of datagrams at the UDP socket.
    pub udp: bool,
}

impl Default for Offloads {
    fn default() -> Self {
        Self { tun: true, udp: true }
    }
}

/// Why the data path does not run.
#[derive(Debug, thiserror::Error)]
pub enum DataPlaneError {
    /// A number of shards that does not work.
    #[error(
        "{asked} shards are asked for; only 1 works, because packets are not yet handed over between shards"
    )]
    Shards {
        /// What was asked for.
        asked: u16,
    },
    /// The TUN interface cannot be had.
    #[error("the TUN interface {name} cannot be opened: {advice}")]
    Tun {
        /// The interface.
        name: String,
        /// What to do.
        advice: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The UDP socket cannot be had.
    #[error("the UDP socket on {} cannot be opened: {advice}", port_text(*port))]
    Udp {
        /// The port that was asked for.
        port: Option<u16>,
        /// What to do.
        advice: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A thread or its eventfd cannot be had.
    #[error("the worker thread of shard {shard} cannot be started")]
    Start {
        /// The shard.
        shard: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// A worker died. Nothing is carried any more; restart the agent.
    #[error("the worker of shard {shard} died: {reason}")]
    WorkerDied {
        /// The shard.
        shard: u16,
        /// What it died of.
        reason: String,
    },
}

/// The running data path.
#[derive(Debug)]
pub struct DataPlane {
    workers: Vec<WorkerLine>,
    pub(super) died: watch::Receiver<Option<Death>>,
    local_port: u16,
}

/// The daemon's end of one worker.
#[derive(Debug)]
struct WorkerLine {
    inbox: mpsc::Sender<Command>,
    wake: Arc<OwnedFd>,
    /// Taken by whoever joins it.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone)]
pub(super) struct Death {
    shard: u16,
    reason: String,
}

impl DataPlane {
    /// Opens the TUN and the socket, and starts the workers. They carry nothing until told what.
    ///
    /// # Errors
    /// A setting that does not work, or what the kernel refuses, with what to do.
    pub fn start(options: Options) -> Result<Self, DataPlaneError> {
        let Options { tun_name, private_key, role, listen_port, shards, fwmark, offloads } =
            options;
        if shards != 1 {
            return Err(DataPlaneError::Shards { asked: shards });
        }
        let features = Features { multi_queue: false, offload: offloads.tun };
        let queue = TunQueue::open(&tun_name, features).map_err(|source| DataPlaneError::Tun {
            advice: tun_advice(&source),
            name: tun_name,
            source,
        })?;
        let udp = UdpPort::bind(listen_port, fwmark, offloads.udp).map_err(|source| {
            DataPlaneError::Udp { port: listen_port, advice: udp_advice(&source), source }
        })?;
        let local_port = udp.local_port();
        let (udp_segments, udp_gathers) = udp.segments();
        info!(
            tun = ?queue.offload(),
            udp_segments,
            udp_gathers,
            udp_receive_buffer_bytes = udp.receive_buffer_bytes().unwrap_or_default(),
            "the data path is set up"
        );
        let tun = TunPort::new(queue);
        let limits = Limits::for_role(role);
        let settings = Settings { shard: 0, shards, role, private_key, limits };
        let (death, died) = watch::channel(None);
        let worker = start_worker(settings, tun, udp, death)?;
        Ok(Self { workers: vec![worker], died, local_port })
    }

    /// Has every shard enforce `update`. Resolves once they all do.
    ///
    /// # Errors
    /// [`DataPlaneError::WorkerDied`] alone.
    pub async fn apply(&self, update: Update) -> Result<(), DataPlaneError> {
        let update = Arc::new(update);
        self.ask_all(|done| Command::Apply(Arc::clone(&update), done)).await.map(drop)
    }

    /// Counters and peers, summed over the shards.
    ///
    /// # Errors
    /// [`DataPlaneError::WorkerDied`] alone.
    pub async fn report(&self) -> Result<Report, DataPlaneError> {
        let mut report = Report::default();
        for part in self.ask_all(Command::Report).await? {
            report.add(part);
        }
        Ok(report)
    }

    /// What would become of a flow's first packet.
    ///
    /// # Errors
    /// [`DataPlaneError::WorkerDied`] alone.
    pub async fn explain(&self, query: Query) -> Result<Explanation, DataPlaneError> {
        let query = Box::new(query);
        let mut answers = self.ask_all(|answer| Command::Explain(query.clone(), answer)).await?;
        // A peer lives in one shard; the others do not know it and say so.
        let known = answers.iter().position(|answer| answer.peer.is_some()).unwrap_or(0);
        Ok(answers.swap_remove(known))
    }

    /// The UDP port that peers reach this agent at.
    pub fn local_port(&self) -> u16 {
        self.local_port
    }

    /// Resolves when a worker dies, and not before.
    pub async fn stopped(&self) -> DataPlaneError {
        let mut died = self.died.clone();
        match died.wait_for(Option::is_some).await.map(|death| death.clone()) {
            Ok(Some(death)) => death.into(),
            // Every worker drops its sender only after it has told its death or was asked to stop.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Stops the workers and gives up the TUN and the socket.
    pub async fn stop(self) {
        let threads: Vec<_> = self
            .workers
            .into_iter()
            .filter_map(|mut worker| {
                worker.send(Command::Stop);
                worker.thread.take()
            })
            .collect();
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A worker's panic was caught and told where it happened.
                let _ = thread.join();
            }
        });
        // Only a runtime that is going down cancels this, and then the process ends too.
        let _ = joined.await;
    }

    async fn ask_all<T>(
        &self,
        command: impl Fn(oneshot::Sender<T>) -> Command,
    ) -> Result<Vec<T>, DataPlaneError> {
        let asked: Vec<_> = self
            .workers
            .iter()
            .map(|worker| {
                let (sender, answer) = oneshot::channel();
                worker.send(command(sender));
                answer
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            match answer.await {
                Ok(answer) => answers.push(answer),
                // The worker is gone or going; its death is told in a moment.
                Err(_) => return Err(self.stopped().await),
            }
        }
        Ok(answers)
    }
}

impl WorkerLine {
    /// A command that no worker is left to take is dropped, and with it the sender of its answer.
    fn send(&self, command: Command) {
        let _ = self.inbox.send(command);
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for WorkerLine {
    /// A worker that nobody can reach any more must not go on carrying packets.
    fn drop(&mut self) {
        self.send(Command::Stop);
    }
}

impl From<Death> for DataPlaneError {
    fn from(death: Death) -> Self {
        Self::WorkerDied { shard: death.shard, reason: death.reason }
    }
}

fn start_worker(
    settings: Settings,
    tun: TunPort,
    udp: UdpPort,
    death: watch::Sender<Option<Death>>,
) -> Result<WorkerLine, DataPlaneError> {
    let number = settings.shard;
    let start_error = |source| DataPlaneError::Start { shard: number, source };
    let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
    let wake = rustix::event::eventfd(0, flags).map_err(|errno| start_error(errno.into()))?;
    let wake = Arc::new(wake);
    let (inbox, commands) = mpsc::channel();
    let shard = Shard::new(settings, Instant::now());
    let worker = Worker { shard, tun, udp, inbox: commands, wake: Arc::clone(&wake) };
    let thread = std::thread::Builder::new()
        .name(format!("shard-{number}"))
        .spawn(move || {
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| worker.run()));
            let reason = match outcome {
                Ok(Ok(())) => return,
                Ok(Err(error)) => {
                    let error = anyhow::Error::from(error);
                    format!("{error:#}")
                }
                Err(panic) => format!("it panicked: {}", panic_text(panic.as_ref())),
            };
            death.send_replace(Some(Death { shard: number, reason }));
        })
        .map_err(start_error)?;
    Ok(WorkerLine { inbox, wake, thread: Some(thread) })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn port_text(port: Option<u16>) -> String {
    port.map_or_else(|| "a free port".to_owned(), |port| format!("port {port}"))
}

fn tun_advice(refused: &io::Error) -> &'static str {
    match refused.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "run the agent as root or give it CAP_NET_ADMIN",
        Some(libc::EBUSY) => {
            "another program holds it; stop that, or choose another name with --tun"
        }
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "the kernel has no TUN driver loaded; run modprobe tun"
        }
        Some(libc::EINVAL) => {
            "the name is taken by an interface of another kind; choose another with --tun"
        }
        Some(_) | None => "the system refused it",
    }
}

fn udp_advice(refused: &io::Error) -> &'static str {
    match refused.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "run the agent as root or give it CAP_NET_ADMIN",
        Some(libc::EADDRINUSE) => {
            "another program uses this port; stop that, or change the gateway's port"
        }
        Some(_) | None => "the system refused it",
    }
}
