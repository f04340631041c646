//! What the workers read and write: for each a queue of the TUN and a socket, with the kernel told who
//! owns what.
//!
//! A flow's packets must reach one worker only. A TUN that is not steered moves flows from queue to queue
//! while they live, so such a TUN has just one reader, which hands over what is not its own.

use std::io;

use partywall_datapath::shard::{Outbox, Role};
use tracing::{info, warn};

use crate::dataplane::error::DataPlaneError;
use crate::dataplane::handover::HandOver;
use crate::dataplane::loss::Losses;
use crate::dataplane::options::Options;
use crate::dataplane::tun::TunPort;
use crate::dataplane::udp::UdpPort;
use crate::sys::steering::{steer_datagrams, steer_packets};
use crate::sys::tun::{Features, TunQueue};

/// What one worker reads and writes.
pub(super) struct Ports {
    pub(super) tun: TunPort,
    /// Whether this worker is one that the TUN is read by.
    pub(super) reads_tun: bool,
    pub(super) udp: UdpPort,
    /// The way to other shards; none where there are none.
    pub(super) hand_over: Option<HandOver>,
}

impl Ports {
    /// Opens a queue and a socket for each shard, in their order.
    ///
    /// # Errors
    /// [`DataPlaneError::Tun`] or [`DataPlaneError::Udp`], with what to do.
    pub(super) fn open(options: &Options) -> Result<Vec<Self>, DataPlaneError> {
        let Options { tun_name, role, listen_port, shards, fwmark, offloads, .. } = options;
        let (queues, tun_steered) =
            open_queues(options).map_err(|source| DataPlaneError::tun(tun_name, source))?;
        let mut sockets = UdpPort::bind_group(*listen_port, *fwmark, offloads.udp, *shards)
            .map_err(|source| DataPlaneError::udp(*listen_port, source))?;
        // What stands before one of a gateway's devices says nothing of another.
        if *role == Role::Device {
            sockets.iter_mut().for_each(UdpPort::keep_backlog_short);
        }
        let udp_steered = steer_sockets(&sockets, options);
        let (udp_segments, udp_gathers) = sockets[0].segments();
        info!(
            shards,
            tun = ?queues[0].offload(),
            tun_steered,
            udp_steered,
            udp_segments,
            udp_gathers,
            udp_receive_buffer_bytes = sockets[0].receive_buffer_bytes().unwrap_or_default(),
            "the data path is set up"
        );
        let pairs = queues.into_iter().zip(sockets).enumerate();
        let ports = pairs.map(|(number, (queue, udp))| Self {
            tun: TunPort::new(queue),
            reads_tun: tun_steered || number == 0,
            udp,
            hand_over: None,
        });
        Ok(ports.collect())
    }

    /// Passes on everything that the shard has to say. What cannot be is counted.
    pub(super) fn flush(&mut self, outbox: &mut Outbox, losses: &mut Losses) {
        self.udp.flushed();
        if outbox.is_empty() {
            return;
        }
        for run in outbox.runs() {
            self.udp.send(&run, losses);
        }
        self.tun.deliver(outbox.packets(), losses);
        if let Some(hand_over) = &mut self.hand_over {
            outbox.calls().iter().for_each(|call| hand_over.give_call(call, losses));
        }
        outbox.clear();
    }
}

/// The queues, and whether the kernel chooses among them by owner.
fn open_queues(options: &Options) -> io::Result<(Vec<TunQueue>, bool)> {
    let Options { tun_name, role, shards, offloads, .. } = options;
    let features = Features { multi_queue: *shards > 1, offload: offloads.tun };
    let first = TunQueue::open(tun_name, features)?;
    // A device's peers are gateways, whose prefixes no address can name: shard 0 has them all.
    let owners = match role {
        Role::Device => 1,
        Role::Gateway => *shards,
    };
    let steered = *shards > 1 && is_done("packets", options, || steer_packets(&first, owners));
    let mut queues = vec![first];
    for _ in 1..*shards {
        queues.push(match steered {
            true => TunQueue::open(tun_name, features)?,
            false => queues[0].try_clone()?,
        });
    }
    Ok((queues, steered))
}

fn steer_sockets(sockets: &[UdpPort], options: &Options) -> bool {
    options.shards > 1
        && is_done("datagrams", options, || steer_datagrams(&sockets[0], options.shards))
}

/// Whether the kernel was asked to steer and does it. Where it refuses, threads hand over instead.
fn is_done(what: &str, options: &Options, steer: impl FnOnce() -> io::Result<()>) -> bool {
    if !options.steering {
        return false;
    }
    match steer() {
        Ok(()) => true,
        Err(refused) => {
            warn!(%refused, "the kernel does not steer {what} to their threads; this costs speed alone");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use partywall_datapath::shard::PrivateKey;
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    use super::*;
    use crate::dataplane::options::Offloads;
    use crate::sys::netns::in_private_network;

    fn readers(shards: u16, role: Role, steering: bool) -> Vec<bool> {
        let options = Options {
            flows: crate::dataplane::FlowQueue::default(),
            tun_name: "pw-test0".to_owned(),
            private_key: PrivateKey::from([1; 32]),
            role,
            listen_port: None,
            shards,
            fwmark: 0x5057,
            offloads: Offloads::default(),
            steering,
        };
        let ports = Ports::open(&options).unwrap();
        ports.iter().map(|ports| ports.reads_tun).collect()
    }

    #[test]
    fn a_tun_has_one_reader_unless_it_is_steered() {
        let readers = |shards, steering| {
            [Role::Device, Role::Gateway]
                .map(|role| in_private_network(move || readers(shards, role, steering)))
        };
        assert_eq!(readers(1, true), [[true], [true]]);
        assert_eq!(readers(3, true), [[true; 3], [true; 3]]);
        assert_eq!(readers(3, false), [[true, false, false], [true, false, false]]);
    }

    #[test]
    fn a_kernel_that_refuses_to_steer_is_done_without() {
        const FREE_FOR_ALL: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";
        if std::fs::read_to_string(FREE_FOR_ALL).is_ok_and(|text| text.trim() == "0") {
            eprintln!("SKIPPED: this kernel lets everybody load programs; set {FREE_FOR_ALL} to 2");
            return;
        }
        in_private_network(|| {
            let mut held = capabilities(None).unwrap();
            held.effective.remove(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN);
            set_capabilities(None, held).unwrap();
            assert_eq!(readers(2, Role::Gateway, true), [true, false]);
        });
    }
}
