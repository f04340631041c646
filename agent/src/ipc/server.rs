//! The daemon's end of the unix socket.
//!
//! Lines, connections and waiting are bounded: any local user can connect, so nothing that one
//! of them does may cost the daemon memory or its loop.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use partywall_proto::problem::Problem;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::{Reply, Request};

const SOCKET_MODE: u32 = 0o666;
const DIRECTORY_MODE: u32 = 0o755;
/// A login with the longest password that anybody types is far below it.
const LINE_MAX_BYTES: u64 = 16 << 10;
const CONNECTIONS_MAX: usize = 32;
/// A connection that says nothing for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {}; is its directory there, and is another agent running?", path.display())]
pub struct IpcError {
    /// The socket.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// A request, who asks, and where the answer goes.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// The caller's uid as the kernel says.
    pub uid: u32,
    /// For the one answer.
    pub reply: oneshot::Sender<Reply>,
}

/// Listens at `path` and passes calls on, until the receiver is dropped. A socket that a former
/// agent left is replaced; the state directory's lock keeps that from being a live one.
///
/// # Errors
/// A path that cannot be listened on.
pub fn serve(path: &Path, calls: mpsc::Sender<Call>) -> Result<(), IpcError> {
    let listener = listen(path).map_err(|source| IpcError { path: path.to_owned(), source })?;
    tokio::spawn(accept(listener, calls));
    Ok(())
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        fs::create_dir_all(directory)?;
        // Whatever the umask: staff must get to the socket.
        fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE))?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

async fn accept(listener: UnixListener, calls: mpsc::Sender<Call>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = match slots.clone().acquire_owned().await {
            Ok(slot) => slot,
            Err(_) => return,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "a local connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = calls.closed() => return,
        };
        let calls = calls.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, calls).await {
                debug!(%error, "a local connection broke off");
            }
            drop(slot);
        });
    }
}

async fn converse(stream: UnixStream, calls: mpsc::Sender<Call>) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        // The line may hold a password.
        let mut line = Zeroizing::new(Vec::new());
        let mut bounded = (&mut reader).take(LINE_MAX_BYTES);
        match timeout(IDLE_TIMEOUT, bounded.read_until(b'\n', &mut line)).await {
            Ok(Ok(0)) | Err(_) => return Ok(()),
            Ok(read) => read?,
        };
        let is_whole = line.ends_with(b"\n");
        let reply = match serde_json::from_slice(&line) {
            Ok(request) if is_whole => ask(request, uid, &calls).await,
            Ok(_) | Err(_) => Reply::Refused { problem: unreadable() },
        };
        let mut text = serde_json::to_vec(&reply).map_err(io::Error::other)?;
        text.push(b'\n');
        timeout(WRITE_TIMEOUT, writer.write_all(&text)).await??;
        if !is_whole {
            return Ok(());
        }
    }
}

async fn ask(request: Request, uid: u32, calls: &mpsc::Sender<Call>) -> Reply {
    let (reply, answer) = oneshot::channel();
    let sent = calls.send(Call { request, uid, reply }).await;
    match (sent, answer.await) {
        (Ok(()), Ok(reply)) => reply,
        (Ok(()) | Err(_), _) => Reply::Refused {
            problem: Problem::new(
                503,
                "agent-stopping",
                "The Partywall agent is stopping",
                "Try again when it is running.",
            ),
        },
    }
}

fn unreadable() -> Problem {
    let detail = "Use the partywall command of the same version as the agent.";
    Problem::new(400, "request-unreadable", "The agent does not understand the request", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::{ClientError, call};

    async fn answer(mut calls: mpsc::Receiver<Call>) {
        while let Some(call) = calls.recv().await {
            let problem = Problem::new(409, "test", format!("{:?}", call.request), "");
            let _ = call.reply.send(Reply::Refused { problem });
        }
    }

    #[tokio::test]
    async fn a_call_is_answered_and_everybody_may_connect() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run/agent.sock");
        let (sender, calls) = mpsc::channel(1);
        serve(&path, sender).unwrap();
        tokio::spawn(answer(calls));
        let reply = call(&path, &Request::Logout).await.unwrap();
        assert!(matches!(reply, Reply::Refused { problem } if problem.title == "Logout"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
    }

    #[tokio::test]
    async fn garbage_and_endless_lines_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("agent.sock");
        let (sender, _calls) = mpsc::channel(1);
        serve(&path, sender).unwrap();
        for line in [b"{}\n".to_vec(), b"\xff\xff\n".to_vec(), vec![b'x'; 1 << 20]] {
            let stream = UnixStream::connect(&path).await.unwrap();
            let (reader, mut writer) = stream.into_split();
            // The daemon stops reading an endless line, so not all of it can be written.
            let _ = writer.write_all(&line).await;
            let mut reply = String::new();
            BufReader::new(reader).read_line(&mut reply).await.unwrap_or_default();
            assert!(reply.is_empty() || reply.contains("request-unreadable"), "{reply}");
        }
    }

    #[tokio::test]
    async fn a_left_over_socket_is_replaced_and_another_file_is_not() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("agent.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let refused = call(&path, &Request::Status).await.unwrap_err();
        assert!(matches!(refused, ClientError::NotRunning { .. }), "{refused}");
        let (sender, _calls) = mpsc::channel(1);
        serve(&path, sender.clone()).unwrap();
        let file = root.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(serve(&file, sender).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    }
}
