//! One side of a comparison: a tunnel between `device` and `gateway`, in a lab of its own.

use anyhow::Result;

use super::iperf::{self, Streamed, Target};
use super::machine::Memory;
use super::rival::{Rival, RivalTunnel};
use crate::lab::{Building, Host, Lab, Site, Topology};

const USER: &str = "user-1@bench";

/// A tunnel that is up.
#[derive(Debug)]
pub(super) enum Side {
    /// Ours.
    Partywall(Box<Building>),
    /// Another's.
    Rival(Box<RivalTunnel>),
}

impl Side {
    /// Partywall with these manifests, and a user signed in.
    pub(super) fn partywall(topology: &Topology, site: &Site) -> Result<Self> {
        let mut building = Building::up_with(Lab::up(topology)?, site)?;
        building.sign_in("device", USER, "bench")?;
        Ok(Self::Partywall(Box::new(building)))
    }

    /// Another WireGuard.
    pub(super) fn rival(topology: &Topology, rival: &Rival) -> Result<Self> {
        Ok(Self::Rival(Box::new(rival.up(Lab::up(topology)?)?)))
    }

    /// The device.
    pub(super) fn device(&self) -> &Host {
        self.lab().host("device")
    }

    /// The server behind the gateway.
    pub(super) fn server(&self) -> &Host {
        self.lab().host("server")
    }

    fn lab(&self) -> &Lab {
        match self {
            Self::Partywall(building) => building.lab(),
            Self::Rival(tunnel) => &tunnel.lab,
        }
    }

    /// TCP streams through the tunnel.
    pub(super) fn tcp(&mut self, target: &Target, streams: u32, seconds: u32) -> Result<Streamed> {
        let device = self.device().clone();
        iperf::tcp(&device, target, streams, seconds, || self.daemons_s())
    }

    /// Datagrams a second through the tunnel.
    pub(super) fn udp(&self, target: &Target, payload_bytes: u32, seconds: u32) -> Result<f64> {
        iperf::udp(self.device(), self.server(), target, payload_bytes, seconds)
    }

    /// Measures while the device's own link is a slow one with a long queue.
    ///
    /// # Errors
    /// As `measure`, and where the kernel has no such link.
    pub(super) fn over_slow_link<T>(
        &mut self,
        measure: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let device = self.device().clone();
        let qdisc = |verb: &str, link: &str| {
            let command = format!("tc qdisc {verb} dev eth0 root{link}");
            device.ok(&command.split(' ').collect::<Vec<_>>())
        };
        qdisc("replace", " tbf rate 100mbit burst 128kb limit 8mb")?;
        let measured = measure(self);
        qdisc("del", "")?;
        measured
    }

    /// Processor time of both daemons so far.
    fn daemons_s(&mut self) -> Result<f64> {
        match self {
            Self::Partywall(building) => {
                Ok(building.agent("device").cpu_s()? + building.agent("gateway").cpu_s()?)
            }
            Self::Rival(tunnel) => Ok(tunnel.device.cpu_s()? + tunnel.gateway.cpu_s()?),
        }
    }

    /// The most memory that either daemon ever had, in MB.
    pub(super) fn peak_mb(&mut self) -> Result<f64> {
        let pids = match self {
            Self::Partywall(building) => {
                [building.agent("device").pid(), building.agent("gateway").pid()]
            }
            Self::Rival(tunnel) => [tunnel.device.pid(), tunnel.gateway.pid()],
        };
        let [device, gateway] = pids.map(Memory::of);
        Ok(device?.peak_mb.max(gateway?.peak_mb))
    }
}
