//! An agent's stream: one WebSocket, from the challenge to the goodbye.
//!
//! Until the identity proof held, nothing that the other side says counts and it gets seconds, not
//! minutes. Afterwards the stream never buffers without bound: an agent that does not read is cut
//! off and gets a snapshot when it comes back.

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use data_encoding::BASE64;
use futures_util::{FutureExt as _, StreamExt as _};
use partywall_proto::agent_api::{CLIENT_MESSAGE_MAX_BYTES, ClientMessage, ServerMessage};
use partywall_proto::ids::AgentId;
use partywall_proto::problem::Problem;
use rand::RngCore as _;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::Edge;
use super::problem::Refusal;
use crate::app::{AgentFeed, App, AppError};

/// Time to answer the challenge.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that one message may take to leave: a snapshot of 10,000 peers over 2 Mb/s.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Pings without an answer that end the stream.
const PINGS_MISSED_MAX: u32 = 3;
/// RFC 6455 §5.5: a control frame carries 125 bytes, two of them the code.
const CLOSE_REASON_MAX_BYTES: usize = 123;

/// Opens the stream.
pub(super) async fn open(
    State(edge): State<Edge>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let upgrade = upgrade.map_err(|refused| {
        Refusal::bad_request(format!(
            "this is the agents' stream, a WebSocket (RFC 6455): {}",
            refused.body_text()
        ))
    })?;
    Ok(upgrade
        .max_message_size(CLIENT_MESSAGE_MAX_BYTES)
        .max_frame_size(CLIENT_MESSAGE_MAX_BYTES)
        .on_upgrade(|socket| async move {
            let mut stream = Stream { socket };
            let end = stream.run(edge).await;
            tracing::debug!(?end, "stream ended");
            stream.say_goodbye(&end).await;
        }))
}

/// Why a stream ends.
#[derive(Debug)]
enum End {
    /// The agent went away, or its connection did.
    Gone,
    /// The agent did not answer, or did not read.
    Silent,
    /// The app let go of it: it was superseded or taken out.
    CutOff,
    /// The controller stops.
    Stopping,
    /// The agent said something that it must not say.
    Refused(Box<Problem>),
}

struct Stream {
    socket: WebSocket,
}

/// A request of the agent that the app is at work on. It runs as a task of its own: once begun, it
/// ends, whether or not the agent is still there.
struct Pending {
    request: u32,
    answer: JoinHandle<Result<ServerMessage, AppError>>,
}

impl Stream {
    async fn run(&mut self, edge: Edge) -> End {
        let Edge { app, mut stopping, ping_interval } = edge;
        let admitted = tokio::select! {
            admitted = tokio::time::timeout(HELLO_TIMEOUT, self.admit(&app)) => admitted,
            _ = stopping.wait_for(|stopping| *stopping) => return End::Stopping,
        };
        let (agent, feed) = match admitted {
            Ok(Ok(admitted)) => admitted,
            Ok(Err(end)) => return end,
            Err(_elapsed) => return End::Silent,
        };
        tracing::info!(%agent, "agent connected");
        let end = tokio::select! {
            end = self.carry(&app, &agent, feed, ping_interval) => end,
            _ = stopping.wait_for(|stopping| *stopping) => End::Stopping,
        };
        tracing::info!(%agent, "agent disconnected");
        end
    }

    /// Challenge, proof, welcome.
    async fn admit(&mut self, app: &App) -> Result<(AgentId, AgentFeed), End> {
        let mut nonce = [0; 32];
        rand::rngs::OsRng.fill_bytes(&mut nonce);
        let nonce = BASE64.encode(&nonce);
        let time = jiff::Timestamp::now();
        self.send(&ServerMessage::Challenge { nonce: nonce.clone(), time }).await?;
        let refused = |error: AppError| End::Refused(Box::new(error.problem()));
        let connected = match self.next().await? {
            ClientMessage::Enrol { token, proof, wireguard_key, software } => {
                let agent = app
                    .enrol(&token, &proof, &nonce, wireguard_key, &software)
                    .await
                    .map_err(refused)?;
                let connected = app.connect(&agent, &proof, &nonce, None, &software).await;
                connected.map(|(welcome, feed)| (agent, welcome, feed))
            }
            ClientMessage::Hello { agent, proof, holding, software } => {
                let connected = app.connect(&agent, &proof, &nonce, holding, &software).await;
                connected.map(|(welcome, feed)| (agent, welcome, feed))
            }
            ClientMessage::Applied { .. }
            | ClientMessage::Rejected { .. }
            | ClientMessage::SignIn { .. }
            | ClientMessage::SignOut { .. }
            | ClientMessage::Status { .. }
            | ClientMessage::Flows { .. } => {
                return Err(refused_message("the first message is `enrol` or `hello`"));
            }
        };
        let (agent, welcome, feed) = connected.map_err(refused)?;
        self.send(&welcome.message).await?;
        Ok((agent, feed))
    }

    /// Carries messages both ways until one side ends it.
    async fn carry(
        &mut self,
        app: &App,
        agent: &AgentId,
        mut feed: AgentFeed,
        ping_interval: Duration,
    ) -> End {
        let mut pings = tokio::time::interval_at(Instant::now() + ping_interval, ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unanswered = 0;
        let mut pending: Option<Pending> = None;
        loop {
            let step = tokio::select! {
                biased;
                message = feed.next() => match message {
                    Some(message) => self.send(&message).await,
                    None => Err(End::CutOff),
                },
                (request, answer) = answered(&mut pending) => {
                    self.answer(&mut feed, request, answer).await
                }
                _ = pings.tick() => match unanswered >= PINGS_MISSED_MAX {
                    true => Err(End::Silent),
                    false => {
                        unanswered += 1;
                        self.send_frame(Message::Ping(Vec::new().into())).await
                    }
                },
                frame = self.socket.recv() => match read(frame) {
                    Ok(heard) => {
                        unanswered = 0;
                        match heard {
                            Some(message) => self.handle(app, agent, &mut pending, message).await,
                            None => Ok(()),
                        }
                    }
                    Err(end) => Err(end),
                },
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn handle(
        &mut self,
        app: &App,
        agent: &AgentId,
        pending: &mut Option<Pending>,
        message: ClientMessage,
    ) -> Result<(), End> {
        match message {
            ClientMessage::Applied { holding } => app.applied(agent, holding),
            ClientMessage::Rejected { problem } => {
                app.rejected(agent, problem)
                    .await
                    .map_err(|error| End::Refused(Box::new(error.problem())))?;
            }
            ClientMessage::Status { drops, live_peers, clock_skew_s } => {
                app.agent_status(agent, drops, live_peers, clock_skew_s);
            }
            ClientMessage::Flows { records, lost } => {
                app.flows_reported(agent, records, lost)
                    .await
                    .map_err(|error| End::Refused(Box::new(error.problem())))?;
            }
            ClientMessage::SignIn { request, .. } | ClientMessage::SignOut { request }
                if pending.is_some() =>
            {
                let problem = Problem::new(
                    429,
                    "busy",
                    "One request at a time",
                    "the request before this one is not answered yet; wait for it",
                );
                self.send(&ServerMessage::Refused { request: Some(request), problem }).await?;
            }
            ClientMessage::SignIn { request, segment, user, password, code } => {
                let (app, agent) = (app.clone(), agent.clone());
                let answer = tokio::spawn(async move {
                    let (session, segment) =
                        app.sign_in(&agent, &segment, &user, &password, &code).await?;
                    Ok(ServerMessage::SignedIn { request, session, segment })
                });
                *pending = Some(Pending { request, answer });
            }
            ClientMessage::SignOut { request } => {
                let (app, agent) = (app.clone(), agent.clone());
                let answer = tokio::spawn(async move {
                    app.sign_out(&agent).await?;
                    Ok(ServerMessage::SignedOut { request })
                });
                *pending = Some(Pending { request, answer });
            }
            ClientMessage::Enrol { .. } | ClientMessage::Hello { .. } => {
                return Err(refused_message("this stream is already somebody's"));
            }
        }
        Ok(())
    }

    /// Sends the answer to a request, after what the request brought about.
    async fn answer(
        &mut self,
        feed: &mut AgentFeed,
        request: u32,
        answer: Result<ServerMessage, AppError>,
    ) -> Result<(), End> {
        let answer = answer.unwrap_or_else(|error| ServerMessage::Refused {
            request: Some(request),
            problem: error.problem(),
        });
        for message in with_what_came_of_it(feed, answer)? {
            self.send(&message).await?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<ClientMessage, End> {
        loop {
            if let Some(message) = read(self.socket.recv().await)? {
                return Ok(message);
            }
        }
    }

    async fn send(&mut self, message: &ServerMessage) -> Result<(), End> {
        let text = serde_json::to_string(message).expect("messages have a JSON form");
        self.send_frame(Message::Text(text.into())).await
    }

    async fn send_frame(&mut self, frame: Message) -> Result<(), End> {
        match tokio::time::timeout(SEND_TIMEOUT, self.socket.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_broken)) => Err(End::Gone),
            Err(_elapsed) => Err(End::Silent),
        }
    }

    async fn say_goodbye(mut self, end: &End) {
        let (code, reason) = match end {
            End::Gone | End::Silent => return,
            End::CutOff => {
                (close_code::POLICY, "another connection took over, or the agent was taken out")
            }
            End::Stopping => (close_code::AWAY, "the controller stops"),
            End::Refused(problem) => {
                let refused =
                    ServerMessage::Refused { request: None, problem: (**problem).clone() };
                if self.send(&refused).await.is_err() {
                    return;
                }
                (close_code::POLICY, problem.title.as_str())
            }
        };
        let cut = reason.floor_char_boundary(CLOSE_REASON_MAX_BYTES);
        let frame = CloseFrame { code, reason: reason[..cut].into() };
        // The other side may be gone already; there is nobody left to tell.
        let _gone = self.send_frame(Message::Close(Some(frame))).await;
    }
}

/// The answer of the request under way; waits for ever where there is none.
async fn answered(pending: &mut Option<Pending>) -> (u32, Result<ServerMessage, AppError>) {
    let Some(Pending { request, answer }) = pending else {
        return std::future::pending().await;
    };
    let request = *request;
    let answer = answer.await.unwrap_or_else(|broken| {
        tracing::error!(%broken, "a request of an agent failed inside the controller");
        Err(AppError::Unready("the controller failed at this request; try again".to_owned()))
    });
    *pending = None;
    (request, answer)
}

/// What waits in the feed, then `answer`: who is told that they are signed in holds their config already.
fn with_what_came_of_it(
    feed: &mut (impl futures_util::Stream<Item = ServerMessage> + Unpin),
    answer: ServerMessage,
) -> Result<Vec<ServerMessage>, End> {
    let mut messages = Vec::new();
    while let Some(waiting) = feed.next().now_or_never() {
        messages.push(waiting.ok_or(End::CutOff)?);
    }
    messages.push(answer);
    Ok(messages)
}

/// What one frame says; none for pings and pongs, which the library answers.
fn read(frame: Option<Result<Message, axum::Error>>) -> Result<Option<ClientMessage>, End> {
    match frame {
        Some(Ok(Message::Text(text))) => serde_json::from_str(&text)
            .map(Some)
            // The error's own text may quote a password; only the place is told.
            .map_err(|error| refused_message(&format!(
                "the message is not understood at column {}; the agent may be newer than the controller",
                error.column()
            ))),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
        Some(Ok(Message::Binary(_))) => Err(refused_message("messages are text frames")),
        Some(Ok(Message::Close(_)) | Err(_)) | None => Err(End::Gone),
    }
}

fn refused_message(detail: &str) -> End {
    End::Refused(Box::new(Problem::new(400, "message", "Message refused", detail)))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[test]
    fn a_config_goes_out_before_the_answer_to_the_sign_in_that_it_came_of() {
        let config = || ServerMessage::Nothing { reason: "stands for a config".to_owned() };
        let answer = || ServerMessage::SignedOut { request: 7 };
        let mut feed = stream::iter([config(), config()]).chain(stream::pending());
        let sent = with_what_came_of_it(&mut feed, answer()).unwrap();
        assert_eq!(sent, [config(), config(), answer()]);
        let cut_off = with_what_came_of_it(&mut stream::empty(), answer());
        assert!(matches!(cut_off, Err(End::CutOff)), "{cut_off:?}");
    }
}
