//! Kills the machine's sockets that are bound to an overlay address, so that an old session's
//! connections die at once instead of hanging until they time out.
//!
//! Speaks sock_diag(7) in bytes: `inet_diag_req_v2` and `inet_diag_msg` of `linux/inet_diag.h`. A
//! convenience, not the cut itself, which the data path has already made; so a kernel without
//! `CONFIG_INET_DIAG_DESTROY` is no error.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_HEADER_BYTES: usize = 16;
/// `struct inet_diag_sockid`: ports, addresses, interface and cookie.
const ID_BYTES: usize = 48;
/// Where `inet_diag_msg` has its id: after family, state, timer and retransmissions.
const ID_OFFSET: usize = 4;
const REQUEST_BYTES: usize = 8 + ID_BYTES;

/// One socket as the kernel names it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    family: u8,
    protocol: u8,
    id: [u8; ID_BYTES],
}

/// Kills every TCP and UDP socket whose local address is one of `addresses`. Answers how many.
pub(super) fn kill_bound_to(addresses: &BTreeSet<IpAddr>) -> io::Result<usize> {
    if addresses.is_empty() {
        return Ok(0);
    }
    let mut netlink = Socket::new(NETLINK_SOCK_DIAG)?;
    netlink.bind_auto()?;
    netlink.connect(&SocketAddr::new(0, 0))?;
    let mut killed = 0;
    for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
        for family in [libc::AF_INET, libc::AF_INET6] {
            // Both numbers are below 256 on Linux (socket(2), RFC 1700).
            let (family, protocol) = (family as u8, protocol as u8);
            for found in list(&netlink, family, protocol, addresses)? {
                let request = request(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, &found);
                netlink.send(&request, 0)?;
                let (answer, _) = netlink.recv_from_full()?;
                killed += usize::from(is_success(&answer));
            }
        }
    }
    Ok(killed)
}

fn list(
    netlink: &Socket,
    family: u8,
    protocol: u8,
    addresses: &BTreeSet<IpAddr>,
) -> io::Result<Vec<Found>> {
    let every = Found { family, protocol, id: [0; ID_BYTES] };
    netlink.send(&request(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, &every), 0)?;
    let mut all = Vec::new();
    loop {
        let (answer, _) = netlink.recv_from_full()?;
        for (kind, body) in messages(&answer) {
            match kind {
                NLMSG_DONE | NLMSG_ERROR => return Ok(all),
                SOCK_DIAG_BY_FAMILY => {
                    let id = body.get(ID_OFFSET..).and_then(|rest| rest.first_chunk::<ID_BYTES>());
                    let Some(&id) = id else { continue };
                    if addresses.contains(&local_address(family, &id)) {
                        all.push(Found { family, protocol, id });
                    }
                }
                _ => {}
            }
        }
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`, in the machine's byte order but for the id,
/// which the kernel gave.
fn request(kind: u16, flags: u16, socket: &Found) -> Vec<u8> {
    let length = NLMSG_HEADER_BYTES + REQUEST_BYTES;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]); // sequence and port: one question at a time
    bytes.extend_from_slice(&[socket.family, socket.protocol, 0, 0]);
    bytes.extend_from_slice(&u32::MAX.to_ne_bytes()); // every state
    bytes.extend_from_slice(&socket.id);
    bytes
}

/// The messages of one netlink datagram, as kinds and bodies. Stops at what is no message.
fn messages(datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<NLMSG_HEADER_BYTES>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = rest.get(NLMSG_HEADER_BYTES..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

fn is_success(datagram: &[u8]) -> bool {
    messages(datagram).any(|(kind, body)| kind == NLMSG_ERROR && body.starts_with(&[0; 4]))
}

/// An IPv6 socket may be bound to an IPv4 address; it counts as that.
fn local_address(family: u8, id: &[u8; ID_BYTES]) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&id[4..20]);
    match i32::from(family) == libc::AF_INET {
        true => Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into(),
        false => IpAddr::from(Ipv6Addr::from(octets)).to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netns;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn sockets_of_the_old_address_die_and_the_others_live() {
        netns::in_private_network(|| {
            let script = "ip link set lo up && ip addr add 100.64.0.5/32 dev lo && ip addr add fd00:64::5/128 dev lo";
            assert!(
                std::process::Command::new("sh").args(["-c", script]).status().unwrap().success()
            );
            let server = TcpListener::bind("[::]:0").unwrap();
            let port = server.local_addr().unwrap().port();
            let open = |to: &str| {
                let client = TcpStream::connect((to, port)).unwrap();
                let held = server.accept().unwrap().0;
                (client, held)
            };
            let mut doomed = [open("100.64.0.5"), open("fd00:64::5")];
            let (mut spared, _held) = open("127.0.0.1");
            let addresses = ["100.64.0.5".parse().unwrap(), "fd00:64::5".parse().unwrap()].into();
            // The other end of each dies of the reset before its turn comes.
            assert!(kill_bound_to(&addresses).unwrap() >= 2);
            for (client, _held) in &mut doomed {
                assert!(client.read(&mut [0; 1]).is_err());
            }
            spared.set_nonblocking(true).unwrap();
            assert_eq!(spared.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            drop(spared);
        });
    }

    #[test]
    fn a_torn_netlink_message_ends_the_reading() {
        let whole =
            request(SOCK_DIAG_BY_FAMILY, 0, &Found { family: 2, protocol: 6, id: [0; ID_BYTES] });
        assert_eq!(messages(&whole).count(), 1);
        for length in 0..whole.len() {
            assert_eq!(messages(&whole[..length]).count(), 0);
        }
        assert_eq!(messages(&[0; 64]).count(), 0);
    }
}
