//! Where this machine is enrolled: its name, the controller's address and the CA it trusts.
//!
//! The CA certificate is the one whose fingerprint stood in the enrolment code. Nothing later in the
//! agent's life replaces it.

use data_encoding::{BASE64, HEXLOWER};
use partywall_proto::ids::AgentId;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{StateDir, StateError};

const FILE: &str = "enrolment.json";

/// The outcome of an enrolment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// This machine's name, which also says its role.
    pub agent: AgentId,
    /// The controller, `host:port`.
    pub controller: String,
    /// The controller's CA.
    pub ca: CertificateDer<'static>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    agent: AgentId,
    controller: String,
    /// SHA-256 of the certificate in hex, for the reader's eye and against a slip of an editor.
    ca_fingerprint: String,
    /// DER in base64.
    ca_certificate: String,
}

impl Enrolment {
    /// What was recorded; none on a machine that is not enrolled.
    ///
    /// # Errors
    /// What the file system says, or a damaged record.
    pub fn read(state: &StateDir) -> Result<Option<Self>, StateError> {
        let Some(record) = state.read_json::<Record>(FILE)? else { return Ok(None) };
        let ca = BASE64.decode(record.ca_certificate.as_bytes()).ok();
        let ca = ca.filter(|der| fingerprint_text(der) == record.ca_fingerprint);
        let ca = ca.ok_or_else(|| {
            let detail = "the CA certificate does not have the recorded fingerprint; enrol this machine again";
            state.damaged(FILE, detail.to_owned())
        })?;
        Ok(Some(Self { agent: record.agent, controller: record.controller, ca: ca.into() }))
    }

    /// Records it, durably.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, state: &StateDir) -> Result<(), StateError> {
        let record = Record {
            agent: self.agent.clone(),
            controller: self.controller.clone(),
            ca_fingerprint: fingerprint_text(&self.ca),
            ca_certificate: BASE64.encode(&self.ca),
        };
        state.write_json(FILE, &record)
    }
}

fn fingerprint_text(der: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(der))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swapped_ca_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path()).unwrap();
        assert!(Enrolment::read(&state).unwrap().is_none());
        let enrolment = Enrolment {
            agent: "device/desk-1".parse().unwrap(),
            controller: "controller:8443".to_owned(),
            ca: vec![1, 2, 3].into(),
        };
        enrolment.write(&state).unwrap();
        assert_eq!(Enrolment::read(&state).unwrap().unwrap(), enrolment);

        let text = String::from_utf8(state.read(FILE).unwrap().unwrap()).unwrap();
        let swapped = text.replace(&BASE64.encode(&[1, 2, 3]), &BASE64.encode(&[1, 2, 4]));
        state.write(FILE, swapped.as_bytes()).unwrap();
        assert!(matches!(Enrolment::read(&state), Err(StateError::Damaged { .. })));
    }
}
