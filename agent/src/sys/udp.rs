//! What no safe crate asks of a UDP socket: options, and what waits in it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Has the kernel gather datagrams of one sender into one read, or not (`UDP_GRO` of `linux/udp.h`).
///
/// # Errors
/// What the kernel answers; `ENOPROTOOPT` before Linux 5.0.
pub(crate) fn set_gro(socket: impl AsFd, on: bool) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, on)
}

/// Has the kernel tell neither when datagrams arrived nor at which address: what quinn-udp asks for and
/// nobody here reads. Beside them its control buffer has no room for the congestion mark of a datagram
/// that came over IPv4 to a socket of IPv6.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn leave_out_details(socket: impl AsFd, is_ipv6: bool) -> io::Result<()> {
    set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, false)?;
    match is_ipv6 {
        true => set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, false),
        false => set(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, false),
    }
}

/// The memory of datagrams that were sent and that no interface has taken yet, in bytes (`SIOCOUTQ` of
/// `linux/sockios.h`).
///
/// # Errors
/// What the kernel answers; none for an open socket.
#[expect(unsafe_code, reason = "no safe crate in the workspace offers this request")]
pub(crate) fn standing_bytes(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes one `c_int` at the pointer, which is to one that outlives the call; the
    // descriptor is open for as long as `socket` is borrowed.
    match unsafe { libc::ioctl(fd, libc::TIOCOUTQ, std::ptr::from_mut(&mut bytes)) } {
        0 => Ok(usize::try_from(bytes).unwrap_or_default()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[expect(unsafe_code, reason = "no safe crate in the workspace offers these options")]
fn set(socket: impl AsFd, level: libc::c_int, option: libc::c_int, on: bool) -> io::Result<()> {
    let value = libc::c_int::from(on);
    // An int has four bytes.
    let bytes = size_of::<libc::c_int>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads `bytes` bytes at the pointer, which is a whole `c_int` that outlives the
    // call; the descriptor is open for as long as `socket` is borrowed.
    let done =
        unsafe { libc::setsockopt(fd, level, option, std::ptr::from_ref(&value).cast(), bytes) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
