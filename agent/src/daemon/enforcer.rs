//! What takes the steps: the real machine, or a pretend one in tests.

use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;

use super::Step;
use crate::dataplane::{Explanation, FlowQueue, Query, Report};

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    /// The data path is gone. The daemon must end: nothing can be cut any more but by ending.
    #[error("the data path failed")]
    Fatal(#[source] Box<dyn Error + Send + Sync>),
    /// It can be tried again.
    #[error("this machine could not be set up")]
    Retry(#[source] Box<dyn Error + Send + Sync>),
}

/// Takes steps, one after the other, each completely before it returns.
pub trait Enforcer: Send + Sync {
    /// Whether the connection to the controller must be marked, so that it stays out of the tunnel.
    const MARKED: bool;

    /// Where the controller is, for the steps from here on.
    fn controller_is_at(&mut self, address: SocketAddr);

    /// Takes one step.
    ///
    /// # Errors
    /// See [`EnforceError`].
    fn take(&mut self, step: Step) -> impl Future<Output = Result<(), EnforceError>> + Send;

    /// What the data path tells of flows; the same queue for as long as the enforcer lives.
    fn flows(&self) -> FlowQueue;

    /// The data path's counters and peers; empty while nothing is carried.
    ///
    /// # Errors
    /// [`EnforceError::Fatal`] alone.
    fn report(&self) -> impl Future<Output = Result<Report, EnforceError>> + Send;

    /// What would become of a flow; none while nothing is carried.
    ///
    /// # Errors
    /// [`EnforceError::Fatal`] alone.
    fn explain(
        &self,
        query: Query,
    ) -> impl Future<Output = Result<Option<Explanation>, EnforceError>> + Send;

    /// Resolves when the data path has died, and never otherwise.
    fn died(&self) -> impl Future<Output = EnforceError> + Send;
}
