//! The verbs about who gets in: codes, tokens, credentials and sessions.
//!
//! A secret is printed alone on its line of standard output, so that `$(…)` catches it and nothing else.

use std::io::Write;

use partywall_proto::admin::{
    CredentialCreated, CredentialRequest, EnrolmentCodeCreated, EnrolmentCodeRequest, SessionView,
    SignInRequest, Token, TokenCreated, TokenRequest, TokenRole,
};
use partywall_proto::ids::{AgentId, DeviceId, SegmentId, SessionId, TokenId, UserId};
use reqwest::Method;

use super::args::Lifetime;
use super::client::Client;
use super::setup::all;
use super::{CtlError, done, hint, prompt, tables, write_json};

type Out<'a> = &'a mut (dyn Write + Send);

pub(super) async fn enrol_code(
    client: &Client,
    agent: AgentId,
    lifetime: Lifetime,
    json: bool,
    out: Out<'_>,
) -> Result<(), CtlError> {
    let request = EnrolmentCodeRequest { agent: agent.clone(), lifetime_s: lifetime.seconds };
    let created: EnrolmentCodeCreated =
        client.send_json(Method::POST, &["enrolment-codes"], &[], &request).await?;
    if json {
        return write_json(out, &created);
    }
    writeln!(out, "{}", created.code.expose())?;
    hint(format_args!(
        "once, until {}, on the machine that becomes {agent}: partywall-agent enrol CODE",
        created.expires_at
    ));
    Ok(())
}

pub(super) async fn create_token(
    client: &Client,
    role: TokenRole,
    holder: String,
    lifetime: Lifetime,
    json: bool,
    out: Out<'_>,
) -> Result<(), CtlError> {
    let request = TokenRequest { role, holder, lifetime_s: lifetime.seconds };
    let created: TokenCreated = client.send_json(Method::POST, &["tokens"], &[], &request).await?;
    if json {
        return write_json(out, &created);
    }
    writeln!(out, "{}", created.secret.expose())?;
    hint(format_args!(
        "token {} for {}, until {}; it is not shown again",
        created.token.id, created.token.holder, created.token.expires_at
    ));
    Ok(())
}

pub(super) async fn tokens(client: &Client, json: bool, out: Out<'_>) -> Result<(), CtlError> {
    let tokens: Vec<Token> = all(client, &["tokens"], &[]).await?;
    match json {
        true => write_json(out, &tokens),
        false => Ok(writeln!(out, "{}", tables::tokens(&tokens))?),
    }
}

pub(super) async fn revoke_token(
    client: &Client,
    token: &TokenId,
    json: bool,
    out: Out<'_>,
) -> Result<(), CtlError> {
    client.delete(&["tokens", token.as_str()]).await?;
    done(json, out, &serde_json::json!({ "revoked": token }), &format!("token {token} is revoked"))
}

pub(super) async fn credentials(
    client: &Client,
    user: &UserId,
    json: bool,
    out: Out<'_>,
) -> Result<(), CtlError> {
    let request =
        CredentialRequest { password: prompt::new_secret(&format!("new password of {user}"))? };
    let created: CredentialCreated = client
        .send_json(Method::PUT, &["users", &user.to_string(), "credentials"], &[], &request)
        .await?;
    if json {
        return write_json(out, &created);
    }
    writeln!(out, "{}", created.otpauth_uri.expose())?;
    writeln!(out, "{}", created.qr.expose())?;
    hint(format_args!("scan this with {user}'s authenticator now; it is not shown again"));
    Ok(())
}

pub(super) async fn sessions(client: &Client, json: bool, out: Out<'_>) -> Result<(), CtlError> {
    let sessions: Vec<SessionView> = all(client, &["sessions"], &[]).await?;
    match json {
        true => write_json(out, &sessions),
        false => Ok(writeln!(out, "{}", tables::sessions(&sessions))?),
    }
}

pub(super) async fn revoke_session(
    client: &Client,
    session: &SessionId,
    json: bool,
    out: Out<'_>,
) -> Result<(), CtlError> {
    client.delete(&["sessions", session.as_str()]).await?;
    done(
        json,
        out,
        &serde_json::json!({ "revoked": session }),
        &format!("session {session} is ended"),
    )
}

pub(super) async fn sign_in(
    client: &Client,
    device: DeviceId,
    segment: SegmentId,
    user: UserId,
    json: bool,
    out: Out<'_>,
) -> Result<(), CtlError> {
    let password = prompt::secret(&format!("password of {user}"))?;
    let code = prompt::secret("one-time code")?;
    let request = SignInRequest { device, segment, user, password, code };
    let session: SessionView = client.post_without_token(&["sign-in"], &request).await?;
    match json {
        true => write_json(out, &session),
        false => Ok(writeln!(out, "{}", tables::sessions(std::slice::from_ref(&session)))?),
    }
}

pub(super) async fn stock_config(
    client: &Client,
    device: &DeviceId,
    segment: &SegmentId,
    json: bool,
    out: Out<'_>,
) -> Result<(), CtlError> {
    let path = ["devices", device.as_str(), "stock-config"];
    let config = client.get_text(&path, &[("segment", segment.as_str())]).await?;
    if json {
        return write_json(out, &serde_json::json!({ "config": config }));
    }
    out.write_all(config.as_bytes())?;
    hint(format_args!("on the device: fill in `PrivateKey`, then `wg-quick up` with this file"));
    Ok(())
}
