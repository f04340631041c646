//! Has the kernel hand each packet and each datagram to the shard that owns its peer.
//!
//! Two programs of a handful of instructions, assembled here: a classic one for the group of UDP sockets
//! that share a port, an extended one for the queues of a TUN. They do the arithmetic of
//! `partywall_datapath::shard` once more; what they get wrong arrives all the same, but by way of two
//! shards. The kernel may refuse either.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use libc::{
    BPF_A, BPF_ABS, BPF_ALU, BPF_B, BPF_H, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LSH, BPF_MISC,
    BPF_MOD, BPF_OR, BPF_RET, BPF_RSH, BPF_TAX, BPF_X, sock_filter,
};

/// `BPF_PROG_LOAD` of `enum bpf_cmd` (`linux/bpf.h`).
const BPF_PROG_LOAD: libc::c_long = 5;
/// `BPF_PROG_TYPE_SOCKET_FILTER` of `enum bpf_prog_type` (`linux/bpf.h`).
const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
/// `BPF_ALU64` and `BPF_MOV` and `BPF_EXIT` (`linux/bpf.h`), which only extended programs have.
const BPF_ALU64: u32 = 0x07;
const BPF_MOV: u32 = 0xb0;
const BPF_EXIT: u32 = 0x90;

/// WireGuard's message types, in the first byte (WireGuard paper §5.4).
const RESPONSE: u32 = 2;
const COOKIE_REPLY: u32 = 3;
const DATA: u32 = 4;
/// A socket that no group has: the kernel then chooses by sender, always the same for the same one.
const ANY_SOCKET: u32 = u32::MAX;

/// Has the group that `socket` belongs to give each datagram to the socket, in the order of binding,
/// that has the number of its owner.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn steer_datagrams(socket: impl AsFd, shards: u16) -> io::Result<()> {
    let mut program = datagram_program(shards);
    attach_to_group(socket, &mut program)
}

/// Has the TUN that `queue` belongs to put each packet into the queue, in the order of opening, that
/// has the number of its destination's owner.
///
/// # Errors
/// What the kernel answers: `EPERM` without `CAP_BPF`, where only the privileged may load programs.
pub(crate) fn steer_packets(queue: impl AsFd, shards: u16) -> io::Result<()> {
    let program = load(&packet_program(shards))?;
    attach_to_tun(queue, &program)
}

/// `(receiver >> 8) mod shards`, of the little-endian receiver index where the message type has it. Loads
/// past a datagram's end answer 0.
fn datagram_program(shards: u16) -> Vec<sock_filter> {
    let mut program = vec![
        classic(BPF_LD | BPF_B | BPF_ABS, 0),
        // To the data's part, which comes right after the 4 of these and the 11 of the response's.
        classic_jump(DATA, 14, 0),
        classic_jump(COOKIE_REPLY, 13, 0),
        classic_jump(RESPONSE, 1, 0),
        classic(BPF_RET | BPF_K, ANY_SOCKET),
    ];
    program.extend(owner_by_receiver(8, shards));
    program.extend(owner_by_receiver(4, shards));
    program
}

/// Gathers the upper three bytes of the receiver index at `offset`, and answers with the remainder.
fn owner_by_receiver(offset: u32, shards: u16) -> [sock_filter; 11] {
    let byte = |at| classic(BPF_LD | BPF_B | BPF_ABS, offset + at);
    let make_room = classic(BPF_ALU | BPF_LSH | BPF_K, 8);
    let keep = classic(BPF_MISC | BPF_TAX, 0);
    let join = classic(BPF_ALU | BPF_OR | BPF_X, 0);
    let remainder = classic(BPF_ALU | BPF_MOD | BPF_K, shards.max(1).into());
    let answer = classic(BPF_RET | BPF_A, 0);
    // The byte of the highest value first, and each time 8 bits more: what was gathered waits in X.
    [byte(3), make_room, keep, byte(2), join, make_room, keep, byte(1), join, remainder, answer]
}

/// The low 16 bits of the destination, modulo shards. Whatever is no IP packet goes to the first queue,
/// as does what is too short: a load past the end ends the program with 0.
fn packet_program(shards: u16) -> Vec<Instruction> {
    const CONTEXT: u8 = 6;
    let remainder = Instruction::new(BPF_ALU | BPF_MOD | BPF_K, i32::from(shards.max(1)));
    let exit = Instruction::new(BPF_JMP | BPF_EXIT, 0);
    vec![
        // Loads from the packet find it by this register.
        Instruction {
            registers: CONTEXT | 1 << 4,
            ..Instruction::new(BPF_ALU64 | BPF_MOV | BPF_X, 0)
        },
        Instruction::new(BPF_LD | BPF_ABS | BPF_B, 0),
        Instruction::new(BPF_ALU | BPF_RSH | BPF_K, 4),
        Instruction { offset: 3, ..Instruction::new(BPF_JMP | BPF_JEQ | BPF_K, 4) },
        Instruction { offset: 5, ..Instruction::new(BPF_JMP | BPF_JEQ | BPF_K, 6) },
        Instruction::new(BPF_ALU64 | BPF_MOV | BPF_K, 0),
        exit,
        // RFC 791 §3.1: the last two of the destination's bytes 16 to 19.
        Instruction::new(BPF_LD | BPF_ABS | BPF_H, 18),
        remainder,
        exit,
        // RFC 8200 §3: of 24 to 39.
        Instruction::new(BPF_LD | BPF_ABS | BPF_H, 38),
        remainder,
        exit,
    ]
}

fn classic(code: u32, k: u32) -> sock_filter {
    // Operation codes are a byte.
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Skips so many instructions where the type is `k`, and else so many.
fn classic_jump(k: u32, equal: u8, unequal: u8) -> sock_filter {
    sock_filter { jt: equal, jf: unequal, ..classic(BPF_JMP | BPF_JEQ | BPF_K, k) }
}

/// `struct bpf_insn` (`linux/bpf.h`).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u8,
    /// Destination in the lower half, source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    /// On register 0, which loads and answers use.
    const fn new(code: u32, immediate: i32) -> Self {
        // Operation codes are a byte.
        Self { code: code as u8, registers: 0, offset: 0, immediate }
    }
}

/// The first members of `union bpf_attr` as `BPF_PROG_LOAD` reads it (`linux/bpf.h`). The kernel takes
/// the rest to be zero.
#[repr(C)]
struct LoadRequest {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[expect(unsafe_code, reason = "no safe crate in the workspace offers bpf(2)")]
fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let request = LoadRequest {
        prog_type: BPF_PROG_TYPE_SOCKET_FILTER,
        insn_cnt: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    // SAFETY: the kernel reads as many bytes of `request` as it has, `insn_cnt` instructions of the layout
    // of `bpf_insn` at `insns` and a closed string at `license`; all of them outlive the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const request, size_of::<LoadRequest>())
    };
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: BPF_PROG_LOAD answered with a new descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[expect(unsafe_code, reason = "no safe crate in the workspace offers TUNSETSTEERINGEBPF")]
fn attach_to_tun(queue: impl AsFd, program: &OwnedFd) -> io::Result<()> {
    let program: libc::c_int = program.as_raw_fd();
    let fd = queue.as_fd().as_raw_fd();
    // SAFETY: TUNSETSTEERINGEBPF reads one int, which outlives the call; both descriptors are open for as
    // long as they are borrowed, and the TUN holds the program itself afterwards.
    match unsafe { libc::ioctl(fd, libc::TUNSETSTEERINGEBPF, &raw const program) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[expect(unsafe_code, reason = "no safe crate in the workspace offers SO_ATTACH_REUSEPORT_CBPF")]
fn attach_to_group(socket: impl AsFd, program: &mut [sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let request = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // A struct of a few bytes.
    let bytes = size_of::<libc::sock_fprog>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads one `sock_fprog` and the `len` instructions that it points to, which outlive
    // the call; the descriptor is open for as long as `socket` is borrowed.
    let done = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const request).cast(),
            bytes,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests;
