//! The real machine: steps become calls to the data path and to the operating system.
//!
//! The data path (and with it the TUN) exists only while something is carried. It starts before the
//! operating system is set up, because addresses and routes need the TUN, and carries nothing until
//! [`Step::Replace`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use partywall_datapath::RuleTable;
use partywall_proto::overlay::OverlayConfig;

use super::{EnforceError, Enforcer, Step};
use crate::dataplane::{
    DataPlane, DataPlaneError, Explanation, Offloads, Options, PrivateKey, Query, Report, Role,
    Update,
};
use crate::os::{Desired, FWMARK, OsError, System, SystemOptions};
use crate::state::Keys;

const SHARDS: u16 = 1;

/// This machine's data path and operating system.
#[derive(Debug)]
pub struct Machine {
    private_key: PrivateKey,
    role: Role,
    tun_name: String,
    offloads: Offloads,
    controller: Option<SocketAddr>,
    system: System,
    data_plane: Option<Running>,
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
        offloads: Offloads,
        state: PathBuf,
    ) -> Self {
        let system = System::new(SystemOptions::new(tun_name.clone(), state));
        Self {
            private_key: PrivateKey::from(*keys.expose_wireguard()),
            role: if is_gateway { Role::Gateway } else { Role::Device },
            tun_name,
            offloads,
            controller: None,
            system,
            data_plane: None,
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
            shards: SHARDS,
            fwmark: FWMARK,
            offloads: self.offloads,
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
                let rules = Arc::new(RuleTable::compile(&config.rules));
                self.update(Update::Replace { config, rules }).await
            }
            Step::PeerSet(peer) => self.update(Update::PeerSet(peer)).await,
            Step::PeerGone(agent) => self.update(Update::PeerGone(agent)).await,
            Step::RulesSet(rules) => {
                self.update(Update::RulesSet(Arc::new(RuleTable::compile(&rules)))).await
            }
            Step::Undo => {
                self.system.reconcile(&Desired::nothing()).await.map_err(retry)?;
                self.stop_data_plane().await;
                Ok(())
            }
        }
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
