//! The UDP sockets that carry WireGuard: dual-stack, on one port, read and written in batches.
//!
//! The socket's mark is what keeps its datagrams out of the tunnel and lets them pass the leak
//! guard. Senders and destinations are plain IPv4 or IPv6 addresses on this side; mapped ones stay
//! between here and the kernel.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use partywall_datapath::packet::Ecn;
use partywall_datapath::shard::{Origin, Run};
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use rustix::net::SendFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::dataplane::backlog::Backlog;
use crate::dataplane::loss::{Loss, Losses};
use crate::dataplane::train::Train;
use crate::sys::udp::{leave_out_details, set_gro, standing_bytes};

/// What the kernel may keep for us while the worker is busy: 20 ms at 1 Gb/s is 2.5 MB, and the
/// kernel counts its own overhead too.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// The largest UDP payload, and so the largest that GRO gathers into one read.
const DATAGRAM_MAX_BYTES: usize = 65_535;
/// Reads of one batch. Of full size they are half a megabyte, which stays in a core's cache while it is
/// opened.
const READS: usize = 8;

/// The socket.
pub(super) struct UdpPort {
    socket: Socket,
    state: UdpSocketState,
    ipv6: bool,
    local_port: u16,
    /// Whether the kernel is asked to segment and to gather.
    offload: bool,
    /// What stands before the network, where it is kept short.
    backlog: Option<Backlog>,
}

/// The memory that a socket is read into, allocated once. Apart from the socket, so that what a
/// batch leads to can be sent while the batch is still being read.
pub(super) struct Inlet {
    buffers: Box<[u8]>,
    metas: [RecvMeta; READS],
}

impl Inlet {
    pub(super) fn new() -> Self {
        Self {
            buffers: vec![0; READS * DATAGRAM_MAX_BYTES].into_boxed_slice(),
            metas: [RecvMeta::default(); READS],
        }
    }
}

impl UdpPort {
    /// Binds to `port`, or to one that the kernel chooses, on every address of the machine. With
    /// `offload` the kernel segments and gathers datagrams as far as it can.
    ///
    /// # Errors
    /// What the kernel answers: `EADDRINUSE` for a taken port, `EPERM` without `CAP_NET_ADMIN` (the
    /// mark).
    pub(super) fn bind(port: Option<u16>, fwmark: u32, offload: bool) -> io::Result<Self> {
        let port = port.unwrap_or(0);
        // A machine without IPv6 has no such sockets, or has no address to bind them to.
        let (socket, ipv6) = match bind_ipv6(port, fwmark, false) {
            Ok(socket) => (socket, true),
            Err(refused) if lacks_ipv6(&refused) => (bind_ipv4(port, fwmark, false)?, false),
            Err(refused) => return Err(refused),
        };
        Self::of(socket, ipv6, offload)
    }

    /// As [`bind`](Self::bind), so many sockets on one port. Only they share it: another program that
    /// would, this one started twice for instance, is refused, and so are these where it came first.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub(super) fn bind_group(
        port: Option<u16>,
        fwmark: u32,
        offload: bool,
        count: u16,
    ) -> io::Result<Vec<Self>> {
        let first = Self::bind(port, fwmark, offload)?;
        // Not before it is bound, or it would have joined whoever is there.
        first.socket.set_reuse_port(count > 1)?;
        let (port, ipv6) = (first.local_port, first.ipv6);
        let mut group = vec![first];
        for _ in 1..count {
            let bind = if ipv6 { bind_ipv6 } else { bind_ipv4 };
            group.push(Self::of(bind(port, fwmark, true)?, ipv6, offload)?);
        }
        Ok(group)
    }

    fn of(socket: Socket, ipv6: bool, offload: bool) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        leave_out_details(&socket, ipv6)?;
        if !offload && state.gro_segments() > 1 {
            set_gro(&socket, false)?;
        }
        // Only CAP_NET_ADMIN may go over net.core.{r,w}mem_max; less is slower, not wrong.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER_BYTES)
            .is_err()
        {
            socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        }
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
        let bound = socket.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable)?;
        Ok(Self { socket, state, ipv6, local_port: bound.port(), offload, backlog: None })
    }

    /// The port that the socket is bound to.
    pub(super) fn local_port(&self) -> u16 {
        self.local_port
    }

    /// Datagrams that one call sends and that one read may bring: 1 without offload.
    pub(super) fn segments(&self) -> (usize, usize) {
        match self.offload {
            true => (self.state.max_gso_segments().max(1), self.state.gro_segments()),
            false => (1, 1),
        }
    }

    /// What the kernel keeps for us until it is read, its own overhead included.
    pub(super) fn receive_buffer_bytes(&self) -> io::Result<usize> {
        self.socket.recv_buffer_size()
    }

    /// From now on not everything is admitted. For a socket whose datagrams all stand in one queue.
    pub(super) fn keep_backlog_short(&mut self) {
        self.backlog = Some(Backlog::default());
    }

    /// Whether what one read of the TUN brought, so many bytes, is to be sent, or others would wait for it.
    pub(super) fn admits(&mut self, bytes: usize, now: Instant) -> bool {
        let Self { backlog: Some(backlog), socket, .. } = self else { return true };
        backlog.admits(bytes, now, || standing_bytes(socket).unwrap_or_default())
    }

    /// All that was admitted is being sent, or is not to be sent after all.
    pub(super) fn flushed(&mut self) {
        self.backlog.iter_mut().for_each(Backlog::flushed);
    }

    /// Reads one batch. `WouldBlock` when there is none.
    pub(super) fn receive<'a>(&self, inlet: &'a mut Inlet) -> io::Result<Batch<'a>> {
        let mut chunks = inlet.buffers.chunks_exact_mut(DATAGRAM_MAX_BYTES);
        let mut slices: [IoSliceMut<'_>; READS] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let count = self.state.recv((&self.socket).into(), &mut slices, &mut inlet.metas)?;
        Ok(Batch { buffers: &mut inlet.buffers, metas: &inlet.metas[..count] })
    }

    /// Sends a run, in one call where the kernel segments. What it would not take is counted.
    pub(super) fn send(&mut self, run: &Run<'_>, losses: &mut Losses) {
        let call_bytes = run.segment_bytes * self.segments().0;
        for contents in run.bytes.chunks(call_bytes) {
            let Err(refused) = self.send_one(run, contents, run.segment_bytes) else {
                continue;
            };
            let segments = contents.len().div_ceil(run.segment_bytes) as u64;
            if refused.kind() == ErrorKind::WouldBlock {
                losses.add(Loss::UdpFull, segments);
            } else if segments > 1 {
                // Interfaces without checksum offload refuse segmentation, not the datagrams.
                self.send_singly(run, contents, losses);
            } else {
                losses.add(Loss::UdpRefused, 1);
            }
        }
    }

    #[cold]
    fn send_singly(&mut self, run: &Run<'_>, contents: &[u8], losses: &mut Losses) {
        for datagram in contents.chunks(run.segment_bytes) {
            match self.send_one(run, datagram, datagram.len()) {
                Ok(()) => {}
                Err(refused) if refused.kind() == ErrorKind::WouldBlock => {
                    losses.add(Loss::UdpFull, 1)
                }
                Err(_) => losses.add(Loss::UdpRefused, 1),
            }
        }
    }

    fn send_one(&mut self, run: &Run<'_>, contents: &[u8], segment_bytes: usize) -> io::Result<()> {
        let destination = self.as_sent(run.destination);
        // None for what says nothing.
        let ecn = EcnCodepoint::from_bits(run.ecn.bits());
        let segment_size = (contents.len() > segment_bytes).then_some(segment_bytes);
        if ecn.is_none() && segment_size.is_none() {
            // The kernel is spared a control message that would say as much.
            rustix::net::sendto(&self.socket, contents, SendFlags::empty(), &destination)?;
        } else {
            let transmit = Transmit { destination, ecn, contents, segment_size, src_ip: None };
            self.state.try_send((&self.socket).into(), &transmit)?;
        }
        if let Some(backlog) = &mut self.backlog {
            backlog.sent(contents.len());
        }
        Ok(())
    }

    /// An IPv6 socket reaches IPv4 by mapped addresses (RFC 4291 §2.5.5.2).
    fn as_sent(&self, destination: SocketAddr) -> SocketAddr {
        match destination {
            SocketAddr::V4(v4) if self.ipv6 => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            SocketAddr::V4(_) | SocketAddr::V6(_) => destination,
        }
    }
}

impl AsFd for UdpPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Datagrams that one call of the kernel brought.
pub(super) struct Batch<'a> {
    buffers: &'a mut [u8],
    metas: &'a [RecvMeta],
}

impl<'a> Batch<'a> {
    /// All of it, in the order of arrival from each sender.
    pub(super) fn trains(self) -> impl Iterator<Item = Train<'a>> {
        let buffers = self.buffers.chunks_exact_mut(DATAGRAM_MAX_BYTES);
        self.metas.iter().zip(buffers).map(|(meta, buffer)| {
            let ecn = Ecn::from_bits(meta.ecn.map_or(0, |codepoint| codepoint as u8));
            let from = Origin { address: as_known(meta.addr), ecn };
            Train { from, segment_bytes: meta.stride.max(1), bytes: &mut buffer[..meta.len] }
        })
    }
}

fn as_known(from: SocketAddr) -> SocketAddr {
    SocketAddr::new(from.ip().to_canonical(), from.port())
}

fn bind_ipv6(port: u16, fwmark: u32, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_port(shared)?;
    bound(socket, IpAddr::V6(Ipv6Addr::UNSPECIFIED), port, fwmark)
}

fn bind_ipv4(port: u16, fwmark: u32, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    socket.set_reuse_port(shared)?;
    bound(socket, IpAddr::V4(Ipv4Addr::UNSPECIFIED), port, fwmark)
}

fn bound(socket: Socket, address: IpAddr, port: u16, fwmark: u32) -> io::Result<Socket> {
    socket.set_mark(fwmark)?;
    socket.bind(&SocketAddr::new(address, port).into())?;
    Ok(socket)
}

fn lacks_ipv6(refused: &io::Error) -> bool {
    matches!(refused.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netns;

    fn run(to: SocketAddr, segment_bytes: usize, bytes: &[u8]) -> Run<'_> {
        Run { destination: to, ecn: Ecn::Capable0, segment_bytes, bytes }
    }

    /// Every datagram that has arrived at `port`, in order. Loopback delivers before `send`
    /// returns.
    fn arrived(port: &UdpPort) -> Vec<(Origin, Vec<u8>)> {
        let mut inlet = Inlet::new();
        let mut all = Vec::new();
        while let Ok(batch) = port.receive(&mut inlet) {
            for Train { from, segment_bytes, bytes } in batch.trains() {
                all.extend(bytes.chunks(segment_bytes).map(|datagram| (from, datagram.to_vec())));
            }
        }
        all
    }

    fn loopback_up() {
        let done = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(done.expect("ip(8) from iproute2").success());
    }

    #[test]
    fn a_run_arrives_as_the_datagrams_it_was_made_of_over_both_families() {
        for (offload, segments) in [(true, 64), (false, 1)] {
            netns::in_private_network(|| {
                loopback_up();
                let to = UdpPort::bind(None, 0x5057, offload).unwrap();
                let mut from = UdpPort::bind(Some(51820), 0x5057, offload).unwrap();
                assert_eq!(to.segments(), (segments, segments));
                let bytes: Vec<u8> = (0..250_u32).map(|n| n as u8).collect();
                for ip in ["127.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()] {
                    let mut losses = Losses::default();
                    from.send(&run((ip, to.local_port()).into(), 100, &bytes), &mut losses);
                    let address = SocketAddr::new(ip, 51820);
                    let origin = Origin { address, ecn: Ecn::Capable0 };
                    let expected: Vec<_> =
                        bytes.chunks(100).map(|d| (origin, d.to_vec())).collect();
                    assert_eq!(arrived(&to), expected);
                    assert_eq!(losses, Losses::default());
                }
            });
        }
    }

    #[test]
    fn a_lone_datagram_says_of_congestion_what_it_is_to_say() {
        netns::in_private_network(|| {
            loopback_up();
            let to = UdpPort::bind(None, 0x5057, true).unwrap();
            let mut from = UdpPort::bind(None, 0x5057, true).unwrap();
            for ip in ["127.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()] {
                for ecn in [Ecn::NotCapable, Ecn::Capable1, Ecn::Congested, Ecn::NotCapable] {
                    let lone = Run { ecn, ..run((ip, to.local_port()).into(), 5, b"hello") };
                    from.send(&lone, &mut Losses::default());
                    let origin = Origin { address: (ip, from.local_port()).into(), ecn };
                    assert_eq!(arrived(&to), [(origin, b"hello".to_vec())]);
                }
            }
        });
    }

    #[test]
    fn a_destination_without_a_route_is_counted_and_nothing_more() {
        netns::in_private_network(|| {
            let mut from = UdpPort::bind(None, 0x5057, true).unwrap();
            let mut losses = Losses::default();
            from.send(&run("192.0.2.1:9".parse().unwrap(), 4, b"datagrams"), &mut losses);
            assert_eq!(losses.iter().find(|(_, count)| *count > 0), Some((Loss::UdpRefused, 3)));
        });
    }

    #[test]
    fn a_machine_without_ipv6_is_served_over_ipv4() {
        netns::in_private_network(|| {
            loopback_up();
            let to = UdpPort::bind(None, 0x5057, true).unwrap();
            let socket = bind_ipv4(0, 0x5057, false).unwrap();
            let state = UdpSocketState::new((&socket).into()).unwrap();
            let mut from = UdpPort {
                socket,
                state,
                ipv6: false,
                ..UdpPort::bind(None, 0x5057, true).unwrap()
            };
            from.send(
                &run(([127, 0, 0, 1], to.local_port()).into(), 5, b"hello"),
                &mut Losses::default(),
            );
            assert_eq!(arrived(&to).len(), 1);
        });
    }

    #[test]
    fn a_port_that_is_taken_is_refused() {
        netns::in_private_network(|| {
            let first = UdpPort::bind(Some(51820), 0x5057, true).unwrap();
            let refused = UdpPort::bind(Some(first.local_port()), 0x5057, true).err().unwrap();
            assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        });
    }

    #[test]
    fn a_group_shares_its_port_with_nobody_else() {
        netns::in_private_network(|| {
            let bind = |port, count| UdpPort::bind_group(port, 0x5057, true, count);
            let first = bind(None, 4).unwrap();
            let port = first[0].local_port();
            assert!(first.iter().all(|socket| socket.local_port() == port));
            for count in [1, 4] {
                let refused = bind(Some(port), count).err().unwrap();
                assert_eq!(refused.kind(), ErrorKind::AddrInUse);
            }
            drop(first);
            let alone = bind(Some(port), 1).unwrap();
            assert_eq!(bind(Some(port), 2).err().unwrap().kind(), ErrorKind::AddrInUse);
            drop(alone);
        });
    }
}
