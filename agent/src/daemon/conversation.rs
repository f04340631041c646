//! What the daemon does with what comes from the controller.

use std::time::Instant;

use jiff::Timestamp;
use partywall_proto::agent_api::{ClientMessage, ServerMessage};
use partywall_proto::envelope::{Envelope, Payload};
use partywall_proto::problem::Problem;
use tracing::{debug, error, info, warn};

use super::enforcer::Enforcer;
use super::login::problems;
use super::shell::{Daemon, DaemonError};
use super::{ClockSkew, Refusal, describe};
use crate::control::LinkEvent;

/// Seconds without a handshake after which a peer does not count as live: WireGuard's keys are
/// void then (`REJECT_AFTER_TIME`, whitepaper §6.1).
pub(super) const LIVE_HANDSHAKE_S: u64 = 180;

impl<E: Enforcer> Daemon<E> {
    pub(super) async fn handle_link(&mut self, event: LinkEvent) -> Result<(), DaemonError> {
        match event {
            LinkEvent::Connected { challenge, addresses } => {
                let skew = ClockSkew::measured(challenge.time, challenge.received_at);
                if skew.is_large() {
                    let seconds = skew.seconds().unwrap_or_default();
                    warn!(
                        seconds,
                        "this machine's clock is wrong; set it, or codes will be refused"
                    );
                }
                self.membership.handle_skew(skew, Timestamp::now());
                self.remember_addresses(&addresses);
                self.settle().await
            }
            LinkEvent::Message(message) => self.handle_message(message).await,
            LinkEvent::Unreadable(why) => {
                let title = "The message is not understood";
                let problem = Problem::new(422, "message-unreadable", title, why.clone());
                error!(why, "a message from the controller is not understood");
                self.tell(ClientMessage::Rejected { problem }).await;
                Ok(())
            }
            LinkEvent::Disconnected(why) => {
                self.controller.welcomed = false;
                self.controller.sign_out = None;
                self.controller.requests.clear();
                self.controller.trouble = Some(why.clone());
                // A sign-in that the controller has accepted may still come up.
                if let Some(login) = self.login.take_if(|login| login.accepted().is_none()) {
                    login.fail(problems::no_controller(&why));
                }
                Ok(())
            }
        }
    }

    async fn handle_message(&mut self, message: ServerMessage) -> Result<(), DaemonError> {
        match message {
            ServerMessage::Challenge { .. } => debug!("a second challenge means nothing"),
            ServerMessage::Welcome { agent, segment_keys, segments } => {
                if agent != self.agent {
                    error!(%agent, "the controller knows this machine under another name");
                }
                for conflict in self.pins.learn(&segment_keys) {
                    error!("{conflict}");
                    self.warnings.insert(conflict.to_string());
                }
                self.pins.write(&self.state)?;
                self.remember_offers(segments);
                self.controller.welcomed = true;
                self.controller.trouble = None;
                if self.signed_out.session().is_some() {
                    self.tell_sign_out().await;
                }
            }
            ServerMessage::Config { envelope } => return self.handle_config(&envelope).await,
            ServerMessage::Nothing { reason } => {
                if self.membership.held().is_some() {
                    info!(reason, "the controller ends what was carried");
                }
                self.membership.handle_nothing(reason, Timestamp::now());
                return self.settle().await;
            }
            ServerMessage::SignedIn { request, session, segment } => {
                self.answered(request).await;
                if let Some(login) = self.login.as_mut().filter(|login| login.request == request) {
                    login.accept(session, segment, Instant::now());
                    return self.progress_login(Instant::now()).await;
                }
                // Whoever asked has been told that it failed, so the session must not stay.
                warn!(request, "a session began that nobody waits for any more; ending it");
                let request = self.controller.requests.number();
                self.ask(request, ClientMessage::SignOut { request }).await;
            }
            ServerMessage::SignedOut { request } => {
                self.confirm_sign_out(request)?;
                self.answered(request).await;
            }
            ServerMessage::Refused { request: Some(request), problem } => {
                self.answered(request).await;
                if let Some(login) = self.login.take_if(|login| login.request == request) {
                    login.fail(problem);
                } else if is_passing(&problem) {
                    // Left for the next status, which tries again.
                    self.controller.sign_out.take_if(|pending| *pending == request);
                } else {
                    // Nothing to sign out of any more is what was wanted.
                    self.confirm_sign_out(request)?;
                }
            }
            ServerMessage::Refused { request: None, problem } => {
                return self.handle_refused_connection(problem).await;
            }
        }
        Ok(())
    }

    async fn handle_config(&mut self, envelope: &Envelope) -> Result<(), DaemonError> {
        let taken = self.pins.open(envelope).map_err(Refusal::from).and_then(|payload| {
            let is_snapshot = matches!(payload, Payload::Snapshot(_));
            self.membership.handle_payload(payload, Timestamp::now())?;
            Ok(is_snapshot)
        });
        let is_snapshot = match taken {
            Ok(is_snapshot) => is_snapshot,
            Err(Refusal::SignedOut) => {
                debug!("a config of a session that was signed out of is left alone");
                return Ok(());
            }
            Err(refusal) => {
                let problem = refusal.problem();
                error!(%problem, "a config is refused; what was enforced stays");
                self.tell(ClientMessage::Rejected { problem }).await;
                return Ok(());
            }
        };
        self.settle().await?;
        let kept = match is_snapshot {
            true => self.cache.replace(&self.state, envelope),
            false => self.cache.append(&self.state, envelope),
        };
        self.is_cached = true;
        self.note_cache(kept);
        if self.cache.is_overgrown() {
            info!("the cache is full of changes; asking for a snapshot");
            self.controller.holding.send_replace(None);
            self.controller.again.notify_one();
        }
        match self.membership.is_settled() {
            true => self.acknowledge().await,
            false => {
                let detail = self.trouble.clone().unwrap_or_default();
                let title = "The machine could not be set up";
                let problem = Problem::new(500, "not-enforced", title, detail);
                self.tell(ClientMessage::Rejected { problem }).await;
            }
        }
        if let Some(config) = self.membership.held() {
            info!(segment = %config.segment, generation = %config.generation, "config taken");
        }
        self.progress_login(Instant::now()).await
    }

    /// The controller does not let this machine in. If it no longer knows it, what the machine
    /// holds was taken away from it.
    async fn handle_refused_connection(&mut self, problem: Problem) -> Result<(), DaemonError> {
        error!(%problem, "the controller refuses this machine");
        self.controller.welcomed = false;
        self.controller.trouble = Some(problem.to_string());
        if matches!(problem.status, 401 | 403 | 404 | 410) {
            self.membership.handle_nothing(problem.to_string(), Timestamp::now());
            return self.settle().await;
        }
        Ok(())
    }

    pub(super) async fn tell_sign_out(&mut self) {
        let request = self.controller.requests.number();
        self.controller.sign_out = Some(request);
        self.ask(request, ClientMessage::SignOut { request }).await;
    }

    fn confirm_sign_out(&mut self, request: u32) -> Result<(), DaemonError> {
        if self.controller.sign_out == Some(request) {
            self.controller.sign_out = None;
            self.signed_out.clear(&self.state)?;
        }
        Ok(())
    }

    pub(super) async fn tell_status(&mut self) -> Result<(), DaemonError> {
        if !self.controller.welcomed {
            return Ok(());
        }
        if self.signed_out.session().is_some() && self.controller.sign_out.is_none() {
            self.tell_sign_out().await;
        }
        let report = self.enforcer.report().await?;
        let live = report.peers.iter().filter(|peer| is_live(peer)).count();
        let status = ClientMessage::Status {
            drops: report.drops.into_iter().filter(|(_, count)| *count > 0).collect(),
            live_peers: u32::try_from(live).unwrap_or(u32::MAX),
            clock_skew_s: self.membership.skew().seconds().unwrap_or_default(),
        };
        self.tell(status).await;
        Ok(())
    }
}

/// Whether a peer's keys are in use.
pub(super) fn is_live(peer: &crate::dataplane::PeerStatus) -> bool {
    peer.handshake_age.is_some_and(|age| age.as_secs() < LIVE_HANDSHAKE_S)
}

/// Whether asking again later may end otherwise.
fn is_passing(problem: &Problem) -> bool {
    problem.status == 429 || problem.status >= 500
}

/// Logs what is not worth ending for.
pub(super) fn log_error(what: &str, error: &dyn std::error::Error) {
    warn!(error = describe(error), "{what}");
}
