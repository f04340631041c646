//! Opens conversations from a device's own network and sees each to its end.
//!
//! What was not answered in full is an error: what the gateway should have seen would not be known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use partywall_proto::nets::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Conversation, LAST_PORT, PORTS, Plan};
use crate::lab::{Host, PATIENCE};

/// Groups at a time. More would fill the queues on the way, and a lost datagram is an error.
const AT_ONCE: usize = 16;

/// Above the ports of conversations, below those that the system gives out.
const REFUSED_PORT: u16 = LAST_PORT;
/// How long a connection may hang that is refused without a word: less than its first repetition takes
/// (RFC 6298 §2), so that each attempt is one packet.
const REFUSAL: Duration = Duration::from_millis(900);

/// Has every conversation of `plan` from `host`; what took place.
///
/// # Errors
/// One of them was not answered in full.
pub fn drive(host: &Host, plan: Plan) -> Result<Vec<Conversation>> {
    host.enter(|| runtime()?.block_on(all(plan)))?
}

/// Opens `count` TCP connections to `to`, and sends as many datagrams, all of which are to be refused; the
/// ports that both came from.
///
/// # Errors
/// A connection is made, or a port is taken.
pub fn refused(host: &Host, to: SocketAddr, count: u16) -> Result<Range<u16>> {
    let ports = REFUSED_PORT..REFUSED_PORT + count;
    let tried = ports.clone();
    host.enter(|| {
        runtime()?.block_on(async {
            let mut running = JoinSet::new();
            for port in tried {
                running.spawn(async move {
                    attempt(port, to).await.with_context(|| format!("from port {port} to {to}"))
                });
            }
            while let Some(tried) = running.join_next().await {
                tried??;
            }
            Ok(ports)
        })
    })?
}

async fn attempt(port: u16, to: SocketAddr) -> Result<()> {
    let any: IpAddr =
        if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, port)).await?;
    socket.connect(to).await?;
    socket.send(b"hello").await?;
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(SocketAddr::new(any, port))?;
    // The refusal comes at once, but nothing depends on that here.
    let made = timeout(REFUSAL, socket.connect(to)).await;
    ensure!(!matches!(made, Ok(Ok(_))), "it is not refused");
    Ok(())
}

pub(super) fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("no runtime")
}

async fn all(plan: Plan) -> Result<Vec<Conversation>> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    let (began, mut begun) = (Instant::now(), 0_u32);
    for group in plan.groups() {
        if let Some(per_s) = plan.per_s {
            let due = began + Duration::from_secs_f64(f64::from(begun) / f64::from(per_s));
            tokio::time::sleep_until(due.into()).await;
        }
        begun += PORTS.len() as u32;
        let permit = Arc::clone(&room).acquire_owned().await.context("the room is closed")?;
        running.spawn(async move {
            let _permit = permit;
            match group[0].protocol {
                Protocol::Udp => datagrams(&group).await?,
                Protocol::Tcp | Protocol::Icmp => {
                    for conversation in &group {
                        let had = timeout(PATIENCE, connection(conversation)).await;
                        had.context("not within the time")
                            .flatten()
                            .with_context(|| format!("{conversation:?}"))?;
                    }
                }
            }
            anyhow::Ok(group)
        });
    }
    let mut done = Vec::new();
    while let Some(group) = running.join_next().await {
        done.extend(group??);
    }
    Ok(done)
}

/// Sends all, finishes, and hears all of it back.
async fn connection(conversation: &Conversation) -> Result<()> {
    let Conversation { from, to, payload_bytes, .. } = *conversation;
    let socket = if from.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The group's other connections have the same end here.
    socket.set_reuseaddr(true)?;
    socket.bind(from)?;
    let mut stream = socket.connect(to).await.context("connecting")?;
    stream.write_all(&vec![7; payload_bytes as usize]).await?;
    stream.shutdown().await?;
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await?;
    ensure!(heard.len() as u64 == payload_bytes, "{} bytes came back", heard.len());
    Ok(())
}

/// One after the other from one socket, each answered before the next.
async fn datagrams(group: &[Conversation]) -> Result<()> {
    let from: SocketAddr = group[0].from;
    let socket = UdpSocket::bind(from).await.with_context(|| from.to_string())?;
    let mut buffer = vec![0; 1 << 16];
    for conversation in group {
        let Conversation { to, payload_bytes, datagrams, .. } = *conversation;
        let datagram = vec![7; (payload_bytes / datagrams) as usize];
        for _ in 0..datagrams {
            socket.send_to(&datagram, to).await?;
            let heard = timeout(PATIENCE, socket.recv_from(&mut buffer)).await;
            let heard = heard.with_context(|| format!("no answer: {conversation:?}"))??;
            ensure!(heard == (datagram.len(), to), "{heard:?} came back: {conversation:?}");
        }
    }
    Ok(())
}
