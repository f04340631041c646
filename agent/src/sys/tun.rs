//! One queue of a TUN interface: a file descriptor that reads and writes whole IP packets.
//!
//! The interface is not persistent: it lives as long as its last queue. A killed agent therefore
//! takes its addresses and routes with it, and only the leak guard outlives it.

use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// `IFNAMSIZ` of `linux/if.h` less the closing zero.
pub(crate) const NAME_MAX_BYTES: usize = 15;

/// Offloads that a TUN is asked for (`TUN_F_*` of `linux/if_tun.h`): checksums, and segmentation of
/// TCP, with congestion marks too.
const TCP_OFFLOADS: libc::c_uint = 0x01 | 0x02 | 0x04 | 0x08;
/// The same for UDP (`TUN_F_USO4`, `TUN_F_USO6`), which kernels have since 6.2, both or none.
const UDP_OFFLOADS: libc::c_uint = 0x20 | 0x40;

/// What a TUN is asked for, beside `IFF_TUN` and `IFF_NO_PI` (`linux/if_tun.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Features {
    /// Several queues on one interface (`IFF_MULTI_QUEUE`). Every queue must ask for the same.
    pub(crate) multi_queue: bool,
    /// Super-packets, as far as the kernel has them.
    pub(crate) offload: bool,
}

/// What a TUN gives and takes beside single packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Offload {
    /// Every packet is preceded by a `virtio_net_hdr` (`IFF_VNET_HDR`), both ways.
    pub(crate) headers: bool,
    /// Super-packets of TCP.
    pub(crate) tcp: bool,
    /// Super-packets of UDP.
    pub(crate) udp: bool,
}

/// One queue of a TUN interface, non-blocking.
#[derive(Debug)]
pub(crate) struct TunQueue {
    fd: OwnedFd,
    offload: Offload,
}

impl TunQueue {
    /// Attaches to the interface `name`, and makes it where it does not exist. What of the offloads the
    /// kernel refuses is done without; [`offload`](Self::offload) says what there is.
    ///
    /// # Errors
    /// `InvalidInput` for a name that no interface can have; else what the kernel answers: `EPERM`
    /// without `CAP_NET_ADMIN`, `EBUSY` where another process holds the interface, `ENOENT` without
    /// `/dev/net/tun`.
    pub(crate) fn open(name: &str, features: Features) -> io::Result<Self> {
        let Features { multi_queue, offload } = features;
        if !offload {
            return Ok(Self { fd: attach(name, multi_queue, false)?, offload: Offload::default() });
        }
        match attach(name, multi_queue, true) {
            Ok(fd) => {
                let offload = ask_for_offloads(&fd);
                Ok(Self { fd, offload })
            }
            Err(refused) if refused.raw_os_error() == Some(libc::EINVAL) => {
                Self::open(name, Features { offload: false, ..features })
            }
            Err(refused) => Err(refused),
        }
    }

    /// The same queue once more, for a thread that only writes.
    ///
    /// # Errors
    /// What the kernel answers where descriptors run out.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, offload: self.offload })
    }

    /// What the queue gives and takes.
    pub(crate) fn offload(&self) -> Offload {
        self.offload
    }

    /// Reads one packet or super-packet, after its header if there are headers. `WouldBlock` when there
    /// is none.
    pub(crate) fn read(&self, packet: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, packet)?)
    }

    /// Writes one packet or super-packet, whose parts are given in order. `WouldBlock` when the queue
    /// is full.
    pub(crate) fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::writev(&self.fd, parts)?)
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    let valid = !name.is_empty()
        && name.len() <= NAME_MAX_BYTES
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b'%');
    if !valid {
        let message = format!(
            "{name:?} is no interface name: use 1 to {NAME_MAX_BYTES} letters, digits or '-'"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_ifindex: 0 },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

fn attach(name: &str, multi_queue: bool, headers: bool) -> io::Result<OwnedFd> {
    let optional = |wanted, flag| if wanted { flag } else { 0 };
    let flags = libc::IFF_TUN
        | libc::IFF_NO_PI
        | optional(multi_queue, libc::IFF_MULTI_QUEUE)
        | optional(headers, libc::IFF_VNET_HDR);
    let mut request = interface_request(name)?;
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(flags).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let fd = OwnedFd::from(file);
    set_interface(&fd, &mut request)?;
    Ok(fd)
}

/// Asks for all offloads, then for fewer.
fn ask_for_offloads(fd: &OwnedFd) -> Offload {
    let takes = |offloads| set_offloads(fd, offloads).is_ok();
    let udp = takes(TCP_OFFLOADS | UDP_OFFLOADS);
    Offload { headers: true, tcp: udp || takes(TCP_OFFLOADS), udp }
}

#[expect(unsafe_code, reason = "no safe crate in the workspace offers TUNSETIFF")]
fn set_interface(fd: &OwnedFd, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is and outlives the call; the
    // descriptor is open for as long as `fd` is borrowed.
    match unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, std::ptr::from_mut(request)) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[expect(unsafe_code, reason = "no safe crate in the workspace offers TUNSETOFFLOAD")]
fn set_offloads(fd: &OwnedFd, offloads: libc::c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its flags by value and no pointer; the descriptor is open for as long
    // as `fd` is borrowed.
    match unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads)) }
    {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netns;

    #[test]
    fn a_name_that_no_interface_can_have_is_refused_before_the_kernel_is_asked() {
        for bad in ["", "a/b", "tun%d", "a b", "0123456789abcdef"] {
            let refused = TunQueue::open(bad, Features::default()).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{bad:?}");
        }
    }

    #[test]
    fn an_interface_lives_as_long_as_its_queue_and_has_one_owner() {
        netns::in_private_network(|| {
            let exists = || {
                std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().contains("pw-test0")
            };
            let queue = TunQueue::open("pw-test0", Features::default()).unwrap();
            assert!(exists());
            let second = TunQueue::open("pw-test0", Features::default()).unwrap_err();
            assert_eq!(second.raw_os_error(), Some(libc::EBUSY));
            let mut packet = [0; 64];
            assert_eq!(queue.read(&mut packet).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            drop(queue);
            netns::wait_until_gone("pw-test0");
        });
    }

    #[test]
    fn several_queues_and_offloads_are_there_for_the_asking() {
        netns::in_private_network(|| {
            let features = Features { multi_queue: true, offload: true };
            let first = TunQueue::open("pw-test1", features).unwrap();
            let second = TunQueue::open("pw-test1", features).unwrap();
            assert_ne!(first.as_fd().as_raw_fd(), second.as_fd().as_raw_fd());
            assert!(first.offload().headers && first.offload().tcp);
            drop((first, second));
            netns::wait_until_gone("pw-test1");
            let plain = TunQueue::open("pw-test1", Features::default()).unwrap();
            assert_eq!(plain.offload(), Offload::default());
        });
    }
}
