//! The daemon's hold on the data path: starts the workers, tells them what to enforce, asks how
//! they are.
//!
//! [`DataPlane::apply`] resolves when every shard enforces the update, never earlier: an
//! acknowledged revocation has cut. A worker that dies is told by [`DataPlane::stopped`]; its TUN
//! goes with it, and the leak guard stays.

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use partywall_datapath::shard::{Explanation, Limits, Query, Settings, Shard, Update};
use rustix::event::EventfdFlags;
use tokio::sync::{oneshot, watch};

use crate::dataplane::alarm::Alarm;
use crate::dataplane::clock::wall_clock;
use crate::dataplane::error::DataPlaneError;
use crate::dataplane::flow_queue::FlowTap;
use crate::dataplane::handover::HandOver;
use crate::dataplane::options::{Options, SHARDS_MAX};
use crate::dataplane::ports::Ports;
use crate::dataplane::report::Report;
use crate::dataplane::watch::{Watch, Watched};
use crate::dataplane::worker::{Command, Worker};

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
        let Options { role, shards, .. } = options;
        if shards == 0 || shards > SHARDS_MAX {
            return Err(DataPlaneError::Shards { asked: shards });
        }
        let mut ports = Ports::open(&options)?;
        let local_port = ports[0].udp.local_port();
        let wakes: Vec<_> = (0..shards).map(wake).collect::<Result<_, _>>()?;
        if shards > 1 {
            for (port, hand_over) in ports.iter_mut().zip(HandOver::between(&wakes)) {
                port.hand_over = Some(hand_over);
            }
        }
        let (death, died) = watch::channel(None);
        let limits = Limits::for_role(role).shared_by(shards);
        // 24 bits, which is what a flow's id has for it.
        let run = rand::random::<u32>() >> 8;
        let wall_clock = wall_clock();
        let workers = (0..shards).zip(ports).zip(wakes).map(|((shard, ports), wake)| {
            let private_key = options.private_key.clone();
            let settings = Settings { shard, shards, role, private_key, wall_clock, limits };
            let flows = FlowTap::new(options.flows.clone(), role, run, shard, shards);
            start_worker(settings, ports, flows, wake, death.clone())
        });
        Ok(Self { workers: workers.collect::<Result<_, _>>()?, died, local_port })
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

/// What wakes a worker.
fn wake(shard: u16) -> Result<Arc<OwnedFd>, DataPlaneError> {
    let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
    let made = rustix::event::eventfd(0, flags);
    made.map(Arc::new).map_err(|errno| DataPlaneError::Start { shard, source: errno.into() })
}

fn start_worker(
    settings: Settings,
    ports: Ports,
    flows: FlowTap,
    wake: Arc<OwnedFd>,
    death: watch::Sender<Option<Death>>,
) -> Result<WorkerLine, DataPlaneError> {
    let number = settings.shard;
    let start_error = |source| DataPlaneError::Start { shard: number, source };
    let (inbox, commands) = mpsc::channel();
    let shard = Shard::new(settings, Instant::now());
    let alarm = Alarm::new().map_err(start_error)?;
    let watched = Watched {
        wake: wake.as_fd(),
        udp: ports.udp.as_fd(),
        tun: ports.reads_tun.then(|| ports.tun.as_fd()),
        alarm: alarm.as_fd(),
    };
    let watch = Watch::over(&watched).map_err(start_error)?;
    let wake_too = Arc::clone(&wake);
    let worker = Worker { shard, ports, flows, alarm, inbox: commands, wake: wake_too, watch };
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
