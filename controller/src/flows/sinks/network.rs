//! Where a sink may be in the network, and how it is told from another.
//!
//! An organisation says where the controller connects to, so the controller does not go to places that
//! only it can reach, and what went wrong there is told in a few words that give nothing else away.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use partywall_proto::nets::Prefix;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::SendError;
use crate::pki;

/// Time for each step: a name's answer, a connection, a handshake, a batch.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// The addresses of `host` that a sink may have.
pub(super) async fn resolve(
    host: &str,
    port: u16,
    networks: &[Prefix],
) -> Result<Vec<SocketAddr>, SendError> {
    let found = within(tokio::net::lookup_host((host, port))).await?;
    let (allowed, refused): (Vec<_>, Vec<_>) =
        found.partition(|address| is_allowed(address.ip(), networks));
    match (allowed.is_empty(), refused.is_empty()) {
        (false, _) => Ok(allowed),
        (true, true) => Err(later("its name has no address")),
        (true, false) => Err(later("its address is not one that the controller may connect to")),
    }
}

/// Whether a sink may be at `address`.
fn is_allowed(address: IpAddr, networks: &[Prefix]) -> bool {
    let address = address.to_canonical();
    if !networks.is_empty() {
        return networks.iter().any(|network| network.holds(address));
    }
    let own = match address {
        IpAddr::V4(four) => four.is_link_local() || four.is_broadcast(),
        IpAddr::V6(six) => six.is_unicast_link_local(),
    };
    !own && !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

/// TLS settings that trust `ca`, in PEM, and nothing else.
pub(super) fn tls(ca: &str) -> Result<ClientConfig, SendError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(ca.as_bytes()).collect();
    let certificates = certificates.map_err(|_| later("its CA is no certificate"))?;
    pki::client_config(certificates).map_err(|_| later("its CA is no certificate"))
}

/// What `step` brings, within [`STEP_TIMEOUT`].
pub(super) async fn within<T>(step: impl Future<Output = io::Result<T>>) -> Result<T, SendError> {
    match tokio::time::timeout(STEP_TIMEOUT, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(failure)) if failure.kind() == io::ErrorKind::InvalidData => {
            Err(later("its certificate or its TLS is not accepted"))
        }
        Ok(Err(_failure)) => Err(later("it cannot be reached, or it hung up")),
        Err(_elapsed) => Err(later("it does not answer, or does not read")),
    }
}

pub(super) fn later(why: &str) -> SendError {
    SendError::Later(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_is_not_on_the_controllers_own_machine_or_link() {
        let allowed =
            |address: &str, networks: &[Prefix]| is_allowed(address.parse().unwrap(), networks);
        for own in [
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "::",
            "169.254.169.254",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "::ffff:127.0.0.1",
        ] {
            assert!(!allowed(own, &[]), "{own}");
        }
        assert!(allowed("10.1.0.5", &[]) && allowed("2001:db8::5", &[]));
        let only = ["10.1.0.0/16".parse().unwrap()];
        assert!(allowed("10.1.0.5", &only) && !allowed("10.2.0.5", &only));
        assert!(allowed("::ffff:10.1.0.5", &only));
    }
}
