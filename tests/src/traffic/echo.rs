//! Servers that say back what they hear, for thousands of conversations at a time.
//!
//! They run on a thread of this process inside the host's network, not as programs: a program for each
//! connection would be slower than the tunnel that is looked at.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Notify;

use super::PORTS;
use crate::lab::Host;

/// The servers; dropping them ends them.
#[derive(Debug)]
pub struct Echo {
    over: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Listens on a host's `addresses`, TCP and UDP, on each of [`PORTS`].
    ///
    /// # Errors
    /// A port is taken, or the host's network cannot be entered.
    pub fn start(host: &Host, addresses: &[IpAddr]) -> Result<Self> {
        let over = Arc::new(Notify::new());
        let (ready, listens) = mpsc::channel();
        let (host, addresses, end) = (host.clone(), addresses.to_vec(), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let failed = ready.clone();
            let entered =
                host.enter(|| super::drive::runtime()?.block_on(serve(addresses, &ready, &end)));
            if let Err(error) = entered.and_then(|served| served) {
                let _nobody_waits = failed.send(Err(error));
            }
        });
        let echo = Self { over, thread: Some(thread) };
        listens.recv().context("the echo servers are gone")??;
        Ok(echo)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.over.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    addresses: Vec<IpAddr>,
    ready: &mpsc::Sender<Result<()>>,
    end: &Notify,
) -> Result<()> {
    for address in addresses.iter().flat_map(|ip| PORTS.map(|port| SocketAddr::new(*ip, port))) {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("tcp {address}"))?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream));
            }
        });
        let socket = UdpSocket::bind(address).await.with_context(|| format!("udp {address}"))?;
        tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 16];
            // An error is what a client's machine said of an answer before; the next client is another.
            loop {
                if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                    let _ = socket.send_to(&buffer[..length], from).await;
                }
            }
        });
    }
    let _ = ready.send(Ok(()));
    end.notified().await;
    Ok(())
}

async fn echo(mut stream: TcpStream) {
    let (mut from, mut to) = stream.split();
    // A client that goes away is told of by the client.
    if tokio::io::copy(&mut from, &mut to).await.is_ok() {
        let _ = to.shutdown().await;
    }
}
