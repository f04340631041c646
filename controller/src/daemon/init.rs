//! `init`: from nothing to a data directory that `serve` runs on, and the first administrator's token.
//!
//! All or nothing: everything is made in a directory beside the final one, which one rename puts in
//! place, so that an `init` that fails or is killed leaves nothing that looks like a controller.

use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use partywall_proto::admin::TokenCreated;
use partywall_proto::enrolment::EnrolmentCode;

use super::STORE_DIRECTORY;
use crate::app::{App, AppError, Clock as _, SystemClock};
use crate::pki::{self, Authority, PkiError};
use crate::store::StoreError;
use crate::store::sled::SledStore;

/// What a new controller is to be.
#[derive(Debug, Clone, clap::Args)]
pub struct InitRequest {
    /// The data directory; must not exist yet, or be empty
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// What the controller is called, for people: "Old Town Hall"
    #[arg(long)]
    pub name: String,
    /// Where agents and admins reach it; goes into enrolment codes and the server certificate
    #[arg(long, value_name = "HOST:PORT")]
    pub address: String,
    /// Another DNS name or IP address for the server certificate; repeat for several
    #[arg(long, value_name = "NAME")]
    pub also: Vec<String>,
    /// Your own CA's certificate, for agents to pin instead of a new one; then `serve` needs `--cert` and `--key`
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Write the first administrator's token there (0600) instead of printing it
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Why there is no new controller. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The directory is in use.
    #[error(
        "{path} is not empty; an initialised controller is never overwritten, choose another directory"
    )]
    NotEmpty {
        /// Which directory.
        path: PathBuf,
    },
    /// The token's file is there already.
    #[error("{path} exists already and would be overwritten; choose another token file")]
    TokenFile {
        /// Which file.
        path: PathBuf,
    },
    /// The address is of no use to agents.
    #[error(
        "{address:?} is no HOST:PORT that agents could reach; write it as in controller.example:8443 or [fd00::1]:8443"
    )]
    Address {
        /// What was given.
        address: String,
    },
    /// The name is of no use.
    #[error("a controller's name has 1 to 64 characters, none of them control characters")]
    Name,
    /// The directory cannot be made or moved.
    #[error("cannot make {path}")]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Keys or certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The app.
    #[error(transparent)]
    App(#[from] AppError),
}

/// A new controller.
pub struct Initialised {
    /// The first administrator's token, for facilities.
    pub token: TokenCreated,
    /// The CA's certificate, for `partywallctl --ca`.
    pub ca: PathBuf,
}

/// Makes the data directory.
///
/// # Errors
/// A directory that is in use, or anything that cannot be made; nothing is left behind then.
pub async fn init(request: &InitRequest) -> Result<Initialised, InitError> {
    let host = host_of(&request.address)?;
    if request.name.is_empty()
        || request.name.chars().count() > 64
        || request.name.chars().any(char::is_control)
    {
        return Err(InitError::Name);
    }
    refuse_unless_empty(&request.data)?;
    if let Some(path) = &request.token_file
        && path.exists()
    {
        return Err(InitError::TokenFile { path: path.clone() });
    }
    let directory = |path: &Path| {
        let path = path.to_owned();
        move |source| InitError::Directory { path, source }
    };
    let staging = staging_beside(&request.data).map_err(directory(&request.data))?;
    let token = fill(staging.path(), request, host).await?;
    // The token is in its file before the controller exists: the other way round, a crash between
    // the two would leave a controller that nobody can ever administer.
    if let Some(path) = &request.token_file {
        pki::write_new(path, format!("{}\n", token.secret.expose()).as_bytes())?;
    }
    let staged = staging.keep();
    let placed = std::fs::rename(&staged, &request.data).and_then(|()| {
        let parent = parent_of(&request.data);
        std::fs::File::open(parent)?.sync_all()
    });
    if let Err(source) = placed {
        // Best effort: the error that is reported is the one that counts.
        let _left = std::fs::remove_dir_all(&staged);
        if let Some(path) = &request.token_file {
            let _left = std::fs::remove_file(path);
        }
        return Err(directory(&request.data)(source));
    }
    Ok(Initialised { token, ca: request.data.join(pki::CA_FILE) })
}

async fn fill(
    directory: &Path,
    request: &InitRequest,
    host: String,
) -> Result<TokenCreated, InitError> {
    let now = SystemClock.now();
    let certificate = match &request.ca {
        Some(path) => {
            let certificate = pki::read_certificates(path)?.swap_remove(0);
            pki::write_ca(directory, &certificate)?;
            certificate
        }
        None => {
            let authority = Authority::create(directory, &request.name, now)?;
            let mut names = vec![host];
            names.extend(request.also.iter().cloned());
            names.dedup();
            authority.issue_server(directory, &names, now)?;
            authority.certificate().clone()
        }
    };
    let store = Arc::new(SledStore::open(&directory.join(STORE_DIRECTORY))?);
    let app = App::open(store, Arc::new(SystemClock)).await?;
    let fingerprint = Authority::fingerprint(&certificate);
    Ok(app.bootstrap(&request.name, &request.address, fingerprint).await?)
}

/// The host that the certificate is made for; the address is held to what enrolment codes carry.
fn host_of(address: &str) -> Result<String, InitError> {
    let refused = || InitError::Address { address: address.to_owned() };
    EnrolmentCode::new([0; 16], [0; 32], address).map_err(|_| refused())?;
    let (host, _port) = address.rsplit_once(':').ok_or_else(refused)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err(refused()),
        Ok(_) | Err(_) => Ok(host.to_owned()),
    }
}

fn refuse_unless_empty(path: &Path) -> Result<(), InitError> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(InitError::NotEmpty { path: path.to_owned() }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(InitError::Directory { path: path.to_owned(), source }),
    }
}

fn staging_beside(path: &Path) -> std::io::Result<tempfile::TempDir> {
    let parent = parent_of(path);
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    tempfile::Builder::new()
        .prefix(".partywall-init-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_host_that_agents_can_reach() {
        assert_eq!(host_of("controller.example:8443").unwrap(), "controller.example");
        assert_eq!(host_of("[fd00::1]:8443").unwrap(), "fd00::1");
        assert_eq!(host_of("192.0.2.1:443").unwrap(), "192.0.2.1");
        for bad in ["", "controller", "controller:", "0.0.0.0:8443", "[::]:8443", "a b:1"] {
            assert!(host_of(bad).is_err(), "{bad:?}");
        }
    }
}
