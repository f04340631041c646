//! `partywall`'s end of the unix socket.

use std::io;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use super::{Reply, Request};

/// A gateway's status with 10,000 peers takes about 2 MB.
const REPLY_MAX_BYTES: u64 = 16 << 20;

/// The daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "Partywall is not running on this machine (nothing answers at {}); ask IT to start partywall-agent",
        path.display()
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The connection broke off.
    #[error("the Partywall agent stopped while it was being asked; try again")]
    Broken(#[source] io::Error),
    /// The answer is not one that this version knows.
    #[error("the Partywall agent gave an answer that this command does not know; update both")]
    Unreadable(#[source] serde_json::Error),
}

/// Asks one question and waits for its answer.
///
/// # Errors
/// See [`ClientError`]. A request that the agent refuses is an answer, not an error.
///
/// # Panics
/// Never: requests all have a JSON form.
pub async fn call(path: &Path, request: &Request) -> Result<Reply, ClientError> {
    let stream = UnixStream::connect(path)
        .await
        .map_err(|source| ClientError::NotRunning { path: path.to_owned(), source })?;
    let (reader, mut writer) = stream.into_split();
    let mut text = Zeroizing::new(serde_json::to_vec(request).expect("requests have a JSON form"));
    text.push(b'\n');
    writer.write_all(&text).await.map_err(ClientError::Broken)?;
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader).take(REPLY_MAX_BYTES);
    let read = reader.read_until(b'\n', &mut line).await.map_err(ClientError::Broken)?;
    if read == 0 {
        return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_slice(&line).map_err(ClientError::Unreadable)
}
