//! Why the operating system does not look as it should, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// A step of [`System::reconcile`](super::System::reconcile) that failed. What was enforced stays.
#[derive(Debug, thiserror::Error)]
pub enum OsError {
    /// The kernel refuses this process.
    #[error("not permitted to {what}: run the agent as root or give it CAP_NET_ADMIN")]
    NotPermitted {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// The kernel refuses the step itself.
    #[error("cannot {what}")]
    Netlink {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// The netlink socket cannot be had.
    #[error("cannot open a netlink socket to the kernel")]
    NetlinkSocket {
        /// What the kernel said.
        source: io::Error,
    },
    /// The TUN interface is missing: the data path has to be started first.
    #[error("the interface {name} is not there; the data path makes it when it starts")]
    NoLink {
        /// The interface.
        name: String,
    },
    /// A program that the agent needs does not run.
    #[error("cannot run {program}: {advice}")]
    Program {
        /// The program.
        program: &'static str,
        /// What to do.
        advice: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A program that the agent needs refused what it was asked, or did not answer in time.
    #[error("{program} cannot {what}: {message}")]
    Refused {
        /// The program.
        program: &'static str,
        /// What it was asked.
        what: String,
        /// What it said, cut to a readable length.
        message: String,
    },
    /// A file of the system or of the state directory.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl OsError {
    pub(super) fn netlink(what: String, source: rtnetlink::Error) -> Self {
        match errno(&source) {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted { what, source },
            Some(_) | None => Self::Netlink { what, source },
        }
    }

    pub(super) fn file<'a>(
        what: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::File { what, path: path.to_owned(), source }
    }
}

/// The kernel's error number in a netlink answer.
pub(super) fn errno(error: &rtnetlink::Error) -> Option<i32> {
    if let rtnetlink::Error::NetlinkError(message) = error {
        return message.code.map(|code| code.get().abs());
    }
    None
}
