//! What the daemon does for the people at the machine.

use std::time::Instant;

use jiff::Timestamp;
use partywall_proto::agent_api::ClientMessage;
use partywall_proto::ids::AgentId;
use partywall_proto::overlay::Session;
use partywall_proto::rules::Opener;
use tokio::sync::oneshot;
use tracing::info;

use super::conversation::is_live;
use super::enforcer::Enforcer;
use super::login::{Login, problems};
use super::shell::{Daemon, DaemonError};
use super::{Idle, WARN_S};
use crate::dataplane::{DropReason, Query, reason_sentence};
use crate::ipc::{
    Call, ControllerView, DropView, PeerView, Reply, Request, SessionView, StatusView, WhyView,
};

const ROOT: u32 = 0;

impl<E: Enforcer> Daemon<E> {
    pub(super) async fn handle_call(&mut self, call: Call) -> Result<(), DaemonError> {
        let Call { request, uid, reply } = call;
        let answer = match request {
            Request::Login { segment, user, password, code } => {
                if let Some(problem) = self.login_hindrance() {
                    Reply::Refused { problem }
                } else {
                    let request = self.controller.requests.number();
                    self.login = Some(Login::new(request, uid, reply, Instant::now()));
                    let sign_in = ClientMessage::SignIn { request, segment, user, password, code };
                    self.ask(request, sign_in).await;
                    return Ok(());
                }
            }
            Request::Logout => self.log_out(uid).await?,
            Request::Status => Reply::Status(Box::new(self.status(uid).await?)),
            Request::Why { address, protocol, port } => {
                let opener = Opener::Device;
                self.why(Query { opener, peer: None, address, protocol, port }).await?
            }
        };
        answer_to(reply, answer);
        Ok(())
    }

    fn login_hindrance(&self) -> Option<partywall_proto::problem::Problem> {
        match (&self.agent, &self.login) {
            (AgentId::Gateway(_), _) => Some(problems::not_a_device()),
            (AgentId::Device(_), Some(_)) => Some(problems::under_way()),
            (AgentId::Device(_), None) if !self.controller.welcomed => {
                let trouble = self.controller.trouble.as_deref();
                Some(problems::no_controller(trouble.unwrap_or("still connecting")))
            }
            (AgentId::Device(_), None) => None,
        }
    }

    /// Looks whether the sign-in under way has come to its end.
    pub(super) async fn progress_login(&mut self, now: Instant) -> Result<(), DaemonError> {
        let Some(login) = &self.login else { return Ok(()) };
        let is_late = login.is_late(now);
        let Some((session, segment)) = login.accepted() else {
            if let Some(login) = self.login.take_if(|_| is_late) {
                login.fail(problems::no_answer());
            }
            return Ok(());
        };
        let is_up = self.membership.is_settled()
            && self.membership.session().is_some_and(|held| held.id == session.id);
        if is_up && self.enforcer.report().await?.peers.iter().any(is_live) {
            let view = self.session_view(session, segment);
            if let Some(login) = self.login.take() {
                info!(user = %view.user, segment = %view.segment, "signed in");
                self.owner = Some(login.uid);
                login.answer(Reply::SignedIn { session: view });
            }
            return Ok(());
        }
        let segment = segment.clone();
        if let Some(login) = self.login.take_if(|_| is_late) {
            self.owner = Some(login.uid);
            login.fail(match is_up {
                true => problems::no_gateway(&self.title(&segment)),
                false => problems::not_enforced(self.trouble.as_deref()),
            });
        }
        Ok(())
    }

    /// Cuts first, and only then tells the controller, who may be away.
    async fn log_out(&mut self, uid: u32) -> Result<Reply, DaemonError> {
        let Some(config) = self.membership.held().cloned() else {
            return Ok(Reply::Refused { problem: problems::not_signed_in() });
        };
        let Some(session) = self.membership.session().cloned() else {
            return Ok(Reply::Refused { problem: problems::not_signed_in() });
        };
        if self.owner.is_some_and(|owner| owner != uid && uid != ROOT) {
            return Ok(Reply::Refused { problem: problems::not_yours() });
        }
        let view = self.session_view(&session, &config.segment);
        let ended = self.membership.handle_sign_out(Timestamp::now());
        // A full disk must not keep anybody signed in, so the steps come first.
        self.settle().await?;
        if let Some(session) = ended {
            if let Err(error) = self.signed_out.set(&self.state, session) {
                super::conversation::log_error("the sign-out is not kept for a restart", &error);
            }
            self.tell_sign_out().await;
        }
        self.owner = None;
        info!(user = %view.user, segment = %view.segment, "signed out");
        Ok(Reply::SignedOut { session: view })
    }

    async fn why(&self, query: Query) -> Result<Reply, DaemonError> {
        let Some(explanation) = self.enforcer.explain(query).await? else {
            return Ok(Reply::Refused { problem: problems::nothing_carried() });
        };
        let by_policy = [DropReason::Denied, DropReason::NoRule];
        let decided = explanation.drop.is_none_or(|reason| by_policy.contains(&reason));
        let stamp = self.membership.held().and_then(|config| config.policy);
        let policy = stamp.filter(|_| decided).map(|stamp| stamp.version);
        let user = self.membership.session().map(|session| &session.user);
        let drop = explanation.drop.map(|reason| reason.text());
        Ok(Reply::Why(WhyView {
            allowed: drop.is_none(),
            rule: explanation.rule.map(|rule| rule.to_string()),
            policy,
            policy_of: policy.and(user).map(|user| user.organisation().clone()),
            drop: drop.map(str::to_owned),
            meaning: drop.and_then(reason_sentence).map(str::to_owned),
            gateway: explanation.peer,
            connected: explanation.connected,
        }))
    }

    async fn status(&self, uid: u32) -> Result<StatusView, DaemonError> {
        let report = self.enforcer.report().await?;
        let live = report.peers.iter().filter(|peer| is_live(peer)).count();
        let shows_peers = uid == ROOT || matches!(self.agent, AgentId::Device(_));
        let peers = report.peers.into_iter().filter(|_| shows_peers).map(|peer| PeerView {
            agent: peer.agent,
            endpoint: peer.endpoint,
            handshake_age_s: peer.handshake_age.map(|age| age.as_secs()),
            received_bytes: peer.received.bytes,
            sent_bytes: peer.sent.bytes,
        });
        let drops =
            report.drops.into_iter().filter(|(_, count)| *count > 0).map(|(text, packets)| {
                let meaning = reason_sentence(&text).unwrap_or_default().to_owned();
                (text, DropView { packets, meaning })
            });
        let held = self.membership.held();
        let session = held.and_then(|config| {
            Some(self.session_view(self.membership.session()?, &config.segment))
        });
        Ok(StatusView {
            agent: self.agent.clone(),
            controller: ControllerView {
                address: self.controller.address.clone(),
                connected: self.controller.welcomed,
                trouble: self.controller.trouble.clone(),
                clock_skew_s: self.membership.skew().seconds(),
            },
            segment: held.map(|config| config.segment.clone()),
            generation: held.map(|config| config.generation),
            valid_until: held.map(|config| config.valid_until),
            enforced: self.membership.is_settled(),
            session,
            idle: held.is_none().then(|| idle_text(self.membership.idle())),
            segments: self.controller.offers.clone(),
            live_peers: u32::try_from(live).unwrap_or(u32::MAX),
            peers: peers.collect(),
            drops: drops.collect(),
            flow_records_lost: self.enforcer.flows().lost_ever(),
            warnings: self.all_warnings(),
        })
    }

    fn all_warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.warnings.iter().cloned().collect();
        if let Some(trouble) = &self.trouble {
            warnings.push(trouble.clone());
        }
        if self.membership.skew().is_large() {
            let seconds = self.membership.skew().seconds().unwrap_or_default();
            let (by, way) = (seconds.unsigned_abs(), if seconds > 0 { "ahead" } else { "behind" });
            warnings.push(format!(
                "this machine's clock is {by} s {way} (more than {WARN_S} s); set it, or one-time codes may be refused"
            ));
        }
        warnings
    }

    fn session_view(
        &self,
        session: &Session,
        segment: &partywall_proto::ids::SegmentId,
    ) -> SessionView {
        SessionView {
            segment: segment.clone(),
            title: self.title(segment),
            user: session.user.clone(),
            ends_at: session.ends_at,
        }
    }

    /// The segment in words; its name while the controller has not said.
    fn title(&self, segment: &partywall_proto::ids::SegmentId) -> String {
        let offer = self.controller.offers.iter().find(|offer| offer.segment == *segment);
        offer.map_or_else(|| segment.to_string(), |offer| offer.title.clone())
    }
}

fn answer_to(reply: oneshot::Sender<Reply>, answer: Reply) {
    // Whoever asked may have gone away.
    let _ = reply.send(answer);
}

fn idle_text(idle: &Idle) -> String {
    match idle {
        Idle::NoConfig => "nobody is signed in".to_owned(),
        Idle::Told(reason) => reason.clone(),
        Idle::SignedOut => "signed out".to_owned(),
        Idle::SessionOver => "the session reached its end".to_owned(),
        Idle::Stale => {
            "the controller was away for longer than the network's owner allows".to_owned()
        }
    }
}
