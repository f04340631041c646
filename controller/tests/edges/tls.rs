//! The handshake: post-quantum key exchange, TLS 1.3 alone, and a chain that agents can pin.

use std::sync::Arc;

use crate::controller::Controller;
use partywall_controller::pki::{self, Authority};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NamedGroup, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

#[tokio::test]
async fn the_handshake_is_hybrid_and_shows_the_pinned_ca() {
    let controller = Controller::in_memory().await;
    let config = pki::client_config(authorities(&controller)).unwrap();
    let stream = handshake(&controller, config).await.unwrap();
    let (_, session) = stream.get_ref();
    let group = session.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    let shown = session.peer_certificates().unwrap().last().unwrap();
    let pinned = &authorities(&controller)[0];
    assert_eq!(Authority::fingerprint(shown), Authority::fingerprint(pinned));
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let controller = Controller::in_memory().await;
    let mut roots = RootCertStore::empty();
    roots.add(authorities(&controller).remove(0)).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    handshake(&controller, config).await.unwrap_err();
}

#[tokio::test]
async fn a_client_trusts_no_other_ca() {
    let controller = Controller::in_memory().await;
    let other = tempfile::tempdir().unwrap();
    let foreign = Authority::create(other.path(), "Elsewhere", jiff::Timestamp::now()).unwrap();
    let config = pki::client_config(vec![foreign.certificate().clone()]).unwrap();
    handshake(&controller, config).await.unwrap_err();
}

fn authorities(controller: &Controller) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    pki::read_certificates(&controller.directory.path().join(pki::CA_FILE)).unwrap()
}

async fn handshake(
    controller: &Controller,
    config: ClientConfig,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(controller.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}
