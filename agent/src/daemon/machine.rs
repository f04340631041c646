//! The real machine: steps become calls to the data path and to the operating system.
//!
//! The data path (and with it the TUN) exists only while something is carried. It starts before the
//! operating system is set up, because addresses and routes need the TUN, and carries nothing until
//! [`Step::Replace`].

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;

use partywall_datapath::RuleTable;
use partywall_proto::overlay::OverlayConfig;

use super::{EnforceError, Enforcer, Step};
use crate::dataplane::{
    DataPlane, DataPlaneError, Explanation, FlowQueue, Offloads, Options, PrivateKey, Query,
    Report, Role, SHARDS_MAX, Update,
};
use crate::os::{Desired, FWMARK, OsError, System, SystemOptions};
use crate::state::Keys;

/// How the data path uses this machine. It changes nothing of what is carried.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// Threads; none for as many as suit the role.
    pub shards: Option<u16>,
    /// What the kernel is asked to do for many packets at once.
    pub offloads: Offloads,
    /// Whether the kernel is asked to give each packet to the thread that owns it.
    pub steering: bool,
}

impl Tuning {
    /// A device's traffic is its gateway's, and so one thread's; a gateway's devices are shared out to all
    /// cores.
    fn shards(&self, role: Role) -> u16 {
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        let suitable = || match role {
            Role::Device => 1,
            Role::Gateway => u16::try_from(cores()).unwrap_or(SHARDS_MAX).min(SHARDS_MAX),
        };
        self.shards.unwrap_or_else(suitable)
    }
}

/// This machine's data path and operating system.
#[derive(Debug)]
pub struct Machine {
    private_key: PrivateKey,
    role: Role,
    tun_name: String,
    tuning: Tuning,
    controller: Option<SocketAddr>,
    system: System,
    data_plane: Option<Running>,
    flows: FlowQueue,
}

#[derive(Debug)]
struct Running {
    data_plane: DataPlane,
    listen_port: Option<u16>,
}

impl Machine {
    /// A machine that nothing was done to yet.
    pub fn new(
        keys: &Keys,
        is_gateway: bool,
        tun_name: String,
        tuning: Tuning,
        state: PathBuf,
    ) -> Self {
        let system = System::new(SystemOptions::new(tun_name.clone(), state));
        Self {
            private_key: PrivateKey::from(*keys.expose_wireguard()),
            role: if is_gateway { Role::Gateway } else { Role::Device },
            tun_name,
            tuning,
            controller: None,
            system,
            data_plane: None,
            flows: FlowQueue::default(),
        }
    }

    /// Undoes what a daemon that is gone has left.
    ///
    /// # Errors
    /// What could not be undone.
    pub async fn mend(tun_name: String, state: PathBuf) -> Result<(), OsError> {
        System::mend(&SystemOptions::new(tun_name, state)).await
    }

    async fn update(&self, update: Update) -> Result<(), EnforceError> {
        match &self.data_plane {
            Some(running) => running.data_plane.apply(update).await.map_err(fatal),
            // Steps within a config come only after its first, which starts the data path.
            None => Ok(()),
        }
    }

    /// Starts the data path, anew where the config asks for another port.
    async fn ensure_data_plane(&mut self, config: &OverlayConfig) -> Result<(), EnforceError> {
        let listen_port = config.interface.listen_port;
        if self.data_plane.as_ref().is_some_and(|running| running.listen_port == listen_port) {
            return Ok(());
        }
        self.stop_data_plane().await;
        let options = Options {
            tun_name: self.tun_name.clone(),
            private_key: self.private_key.clone(),
            role: self.role,
            listen_port,
            shards: self.tuning.shards(self.role),
            fwmark: FWMARK,
            offloads: self.tuning.offloads,
            steering: self.tuning.steering,
            flows: self.flows.clone(),
        };
        let data_plane = DataPlane::start(options).map_err(retry)?;
        self.data_plane = Some(Running { data_plane, listen_port });
        Ok(())
    }

    async fn stop_data_plane(&mut self) {
        if let Some(running) = self.data_plane.take() {
            running.data_plane.stop().await;
        }
    }

    async fn system(&mut self, config: &OverlayConfig) -> Result<(), EnforceError> {
        self.ensure_data_plane(config).await?;
        let desired = Desired::for_config(config, &self.tun_name, self.controller);
        self.system.reconcile(&desired).await.map_err(retry)
    }
}

impl Enforcer for Machine {
    const MARKED: bool = true;

    fn controller_is_at(&mut self, address: SocketAddr) {
        self.controller = Some(address);
    }

    async fn take(&mut self, step: Step) -> Result<(), EnforceError> {
        match step {
            Step::Cut => self.update(Update::Clear).await,
            Step::System(config) => self.system(&config).await,
            Step::Replace(config) => {
                let OverlayConfig { rules, policy, observed, .. } = &*config;
                let rules = Arc::new(RuleTable::of(rules, *policy, observed.as_ref()));
                self.update(Update::Replace { config, rules }).await
            }
            Step::PeerSet(peer) => self.update(Update::PeerSet(peer)).await,
            Step::PeerGone(agent) => self.update(Update::PeerGone(agent)).await,
            Step::RulesSet { rules, policy, observed } => {
                let rules = RuleTable::of(&rules, policy, observed.as_ref());
                self.update(Update::RulesSet(Arc::new(rules))).await
            }
            Step::Undo => {
                self.system.reconcile(&Desired::nothing()).await.map_err(retry)?;
                self.stop_data_plane().await;
                Ok(())
            }
        }
    }

    fn flows(&self) -> FlowQueue {
        self.flows.clone()
    }

    async fn report(&self) -> Result<Report, EnforceError> {
        match &self.data_plane {
            Some(running) => running.data_plane.report().await.map_err(fatal),
            None => Ok(Report::default()),
        }
    }

    async fn explain(&self, query: Query) -> Result<Option<Explanation>, EnforceError> {
        match &self.data_plane {
            Some(running) => running.data_plane.explain(query).await.map(Some).map_err(fatal),
            None => Ok(None),
        }
    }

    async fn died(&self) -> EnforceError {
        match &self.data_plane {
            Some(running) => fatal(running.data_plane.stopped().await),
            None => std::future::pending().await,
        }
    }
}

fn fatal(error: DataPlaneError) -> EnforceError {
    EnforceError::Fatal(Box::new(error))
}

fn retry(error: impl std::error::Error + Send + Sync + 'static) -> EnforceError {
    EnforceError::Retry(Box::new(error))
}
