//! Raw sockets in a host's network namespace: inner packets onto an interface, datagrams onto the wire.
//!
//! A socket belongs to the namespace that it was made in, whoever uses it later. So a thread of its own
//! enters the host, makes the socket and ends; no other thread ever changes namespace.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use pnet::datalink::{self, Channel, Config, DataLinkSender};

use crate::lab::Host;

/// How long [`Datagram::receive`] waits: no answer within it is none.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Puts raw IP packets onto a tunnel interface, past the host's own IP stack and its filters.
pub struct Injector {
    sender: Box<dyn DataLinkSender>,
}

impl Injector {
    /// Opens `interface` of `host` by `AF_PACKET`.
    ///
    /// # Errors
    /// There is no such interface, or it is no IP tunnel.
    pub fn open(host: &Host, interface: &str) -> Result<Self> {
        let found = host.enter(|| -> Result<Channel> {
            let all = datalink::interfaces();
            let link = all.into_iter().find(|link| link.name == interface);
            let link = link.with_context(|| format!("there is no interface {interface}"))?;
            Ok(datalink::channel(&link, Config::default())?)
        })??;
        match found {
            Channel::Ethernet(sender, _) => Ok(Self { sender }),
            _ => bail!("{interface} is not a channel that takes raw packets"),
        }
    }

    /// Sends one packet as it is.
    ///
    /// # Errors
    /// The interface does not take it.
    pub fn send(&mut self, packet: &[u8]) -> Result<()> {
        self.sender.send_to(packet, None).context("the socket is gone")??;
        Ok(())
    }
}

/// A UDP socket on a host, connected to one place.
#[derive(Debug)]
pub struct Datagram {
    socket: UdpSocket,
}

impl Datagram {
    /// Opens a socket on `host` towards `to`.
    ///
    /// # Errors
    /// The host cannot reach that address.
    pub fn open(host: &Host, to: SocketAddr) -> Result<Self> {
        let socket = host.enter(|| -> Result<UdpSocket> {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(ANSWER_LIMIT))?;
            Ok(socket)
        })??;
        Ok(Self { socket })
    }

    /// Sends one datagram as it is.
    ///
    /// # Errors
    /// The network does not take it.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        self.socket.send(bytes)?;
        Ok(())
    }

    /// The next answer; none if there is none in time.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 65_536];
        let length = self.socket.recv(&mut bytes).ok()?;
        bytes.truncate(length);
        Some(bytes)
    }
}
