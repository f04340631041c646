//! The REST client.
//!
//! It trusts exactly the CA file that it was given, follows no redirect and uses no proxy, so the token
//! reaches the controller or nobody.

use std::error::Error as _;
use std::time::Duration;

use partywall_proto::keys::Secret;
use partywall_proto::problem::{MEDIA_TYPE, Problem};
use reqwest::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CtlError;
use super::args::Connection;
use crate::pki;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An apply of a whole building is one transaction and one flush.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// One controller and one token.
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    ca: String,
    token: Option<Secret>,
}

impl Client {
    pub(super) fn new(connection: &Connection) -> Result<Self, CtlError> {
        let usage = |text: &str| CtlError::Usage(text.to_owned());
        let base = connection.controller.as_deref().ok_or_else(|| {
            usage("say where the controller is: `--controller https://HOST:PORT` or PARTYWALL_CONTROLLER")
        })?;
        let base = Url::parse(base)
            .ok()
            .filter(|url| url.scheme() == "https" && url.has_host())
            .ok_or_else(|| CtlError::Usage(format!("{base:?} is no https://HOST:PORT")))?;
        let ca = connection.ca.as_deref().ok_or_else(|| {
            usage("say whom to trust: `--ca FILE` or PARTYWALL_CA, with `ca.pem` from the controller's data directory")
        })?;
        let tls = pki::client_config(pki::read_certificates(ca)?)?;
        let token = match &connection.token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| CtlError::Read { path: path.clone(), source })?;
                Some(Secret::from(text.trim().to_owned()))
            }
            None => connection.token.clone(),
        };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .user_agent(concat!("partywallctl/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| CtlError::Connection(format!("cannot set up HTTPS: {error}")))?;
        Ok(Self { http, base, ca: ca.display().to_string(), token })
    }

    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, CtlError> {
        let response = self.send(self.request(Method::GET, path)?.query(query)).await?;
        self.json(response).await
    }

    pub(super) async fn get_text(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<String, CtlError> {
        let response = self.send(self.request(Method::GET, path)?.query(query)).await?;
        response.text().await.map_err(|error| self.explain(&error))
    }

    /// Sends `body` with `method` and reads the answer.
    pub(super) async fn send_json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: &(impl Serialize + Sync),
    ) -> Result<T, CtlError> {
        let response = self.send(self.request(method, path)?.query(query).json(body)).await?;
        self.json(response).await
    }

    /// Sends a policy's text and reads the answer. `if_version` is the version that it builds on.
    pub(super) async fn post_yaml<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        text: String,
        if_version: Option<u64>,
    ) -> Result<T, CtlError> {
        let request = self.request(Method::POST, path)?.header(CONTENT_TYPE, "application/yaml");
        let request = precondition(request, if_version).query(query);
        let response = self.send(request.body(text)).await?;
        self.json(response).await
    }

    /// As [`Self::post_yaml`], with nothing to send.
    pub(super) async fn post_if<T: DeserializeOwned>(
        &self,
        path: &[&str],
        if_version: Option<u64>,
    ) -> Result<T, CtlError> {
        let request = self.request(Method::POST, path)?;
        let response = self.send(precondition(request, if_version)).await?;
        self.json(response).await
    }

    pub(super) async fn delete(&self, path: &[&str]) -> Result<(), CtlError> {
        self.send(self.request(Method::DELETE, path)?).await.map(drop)
    }

    /// Like [`Self::send_json`], for the one request that carries its own proof: signing in.
    pub(super) async fn post_without_token<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &(impl Serialize + Sync),
    ) -> Result<T, CtlError> {
        let url = self.url(path)?;
        let response = self.send(self.http.post(url).json(body)).await?;
        self.json(response).await
    }

    fn url(&self, path: &[&str]) -> Result<Url, CtlError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| CtlError::Usage(format!("{} is no https://HOST:PORT", self.base)))?
            .pop_if_empty()
            .push("v1")
            .extend(path);
        Ok(url)
    }

    fn request(&self, method: Method, path: &[&str]) -> Result<RequestBuilder, CtlError> {
        let token = self.token.as_ref().ok_or_else(|| {
            CtlError::Usage(
                "say who you are: `--token-file FILE`, PARTYWALL_TOKEN_FILE or PARTYWALL_TOKEN"
                    .to_owned(),
            )
        })?;
        Ok(self.http.request(method, self.url(path)?).bearer_auth(token.expose()))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, CtlError> {
        let response = request.send().await.map_err(|error| self.explain(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let is_problem =
            response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == MEDIA_TYPE);
        if is_problem && let Ok(problem) = response.json::<Problem>().await {
            return Err(problem.into());
        }
        Err(CtlError::Connection(format!(
            "{} answers {status}, but not as a Partywall controller would; check `--controller`",
            self.base
        )))
    }

    async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, CtlError> {
        response.json().await.map_err(|error| match error.is_decode() {
            true => CtlError::Connection(format!(
                "{} answers with something else than expected ({}); partywallctl {} may be older or newer than the controller",
                self.base,
                innermost(&error),
                env!("CARGO_PKG_VERSION")
            )),
            false => self.explain(&error),
        })
    }

    fn explain(&self, error: &reqwest::Error) -> CtlError {
        let why = innermost(error);
        let base = &self.base;
        let text = if let Some(tls) = tls_error(error) {
            if let rustls::Error::InvalidCertificate(_) = tls {
                format!(
                    "the certificate of {base} is not accepted ({tls}); check that {} is `ca.pem` of this very controller and that the certificate names this host",
                    self.ca
                )
            } else {
                format!(
                    "no TLS with {base} ({tls}); check that `--controller` names the controller's own port"
                )
            }
        } else if error.is_timeout() {
            format!(
                "{base} does not answer in time; check the address and that nothing blocks the way there"
            )
        } else if error.is_connect() {
            format!(
                "cannot connect to {base} ({why}); check `--controller` and that the controller runs"
            )
        } else {
            format!(
                "the connection to {base} broke ({why}); whether the change was made is not known: look before you repeat it"
            )
        };
        CtlError::Connection(text)
    }
}

fn precondition(request: RequestBuilder, if_version: Option<u64>) -> RequestBuilder {
    match if_version {
        None => request,
        Some(0) => request.header(IF_NONE_MATCH, "*"),
        Some(number) => request.header(IF_MATCH, format!("\"{number}\"")),
    }
}

fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        // An `io::Error` shows what it wraps through `get_ref`; its `source` skips that.
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    None
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
