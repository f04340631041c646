//! A sink that takes OpenTelemetry logs over HTTP: OTLP 1.x, JSON encoding.
//!
//! The JSON form is part of the protocol, and one POST with the client that is there already: the crates
//! for the binary form bring a second stack for telemetry with them.

use partywall_proto::admin::StoredFlow;
use partywall_proto::flows::FlowEvent;
use partywall_proto::ids::OrganisationId;
use partywall_proto::nets::Prefix;
use partywall_proto::rules::Opener;
use reqwest::{Client, StatusCode, Url};
use serde_json::{Value, json};

use super::SendError;
use super::network::{STEP_TIMEOUT, later, resolve, tls};

/// Longest answer that is looked at.
const ANSWER_MAX_BYTES: usize = 64 << 10;
/// `SEVERITY_NUMBER_INFO` and `SEVERITY_NUMBER_INFO2` of the log data model.
const INFO: u8 = 9;
const INFO_2: u8 = 10;

/// See the module.
pub(super) struct OtlpTarget {
    organisation: OrganisationId,
    url: String,
    ca: String,
    networks: Vec<Prefix>,
    client: Option<(Client, Url)>,
}

impl OtlpTarget {
    pub(super) fn new(
        organisation: &OrganisationId,
        url: &str,
        ca: &str,
        networks: &[Prefix],
    ) -> Self {
        Self {
            organisation: organisation.clone(),
            url: url.to_owned(),
            ca: ca.to_owned(),
            networks: networks.to_vec(),
            client: None,
        }
    }

    pub(super) async fn send(&mut self, flows: &[StoredFlow]) -> Result<(), SendError> {
        let (client, url) = match self.client.take() {
            Some(connected) => connected,
            None => self.connect().await?,
        };
        let request = client.post(url.clone()).json(&body(&self.organisation, flows));
        let response = request.send().await.map_err(|failure| match failure.is_timeout() {
            true => later("it does not answer, or does not read"),
            false => later("it cannot be reached, or its certificate is not accepted"),
        })?;
        let records = flows.len() as u64;
        let refused = match response.status() {
            StatusCode::OK => rejected(response).await?,
            // OTLP/HTTP: these alone are to be tried again.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => return Err(later("it is too busy")),
            status => {
                let why = format!("it refuses records with status {}", status.as_u16());
                return Err(SendError::Never { records, why });
            }
        };
        self.client = Some((client, url));
        match refused {
            0 => Ok(()),
            records => {
                let why = format!("it took a batch without {records} of its records");
                Err(SendError::Never { records, why })
            }
        }
    }

    /// A client whose name is resolved here, so that it connects where it may and nowhere else.
    async fn connect(&self) -> Result<(Client, Url), SendError> {
        let url = Url::parse(&self.url).map_err(|_| later("its address is none"))?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let plain = host.trim_start_matches('[').trim_end_matches(']');
        let port = url.port_or_known_default().unwrap_or(443);
        let addresses = resolve(plain, port, &self.networks).await?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls(&self.ca)?)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(STEP_TIMEOUT)
            .timeout(STEP_TIMEOUT)
            .resolve_to_addrs(&host, &addresses)
            .user_agent(concat!("partywall-controller/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| later("its address is none"))?;
        Ok((client, url))
    }
}

/// Records that the server says it did not take (`ExportLogsPartialSuccess`).
async fn rejected(mut response: reqwest::Response) -> Result<u64, SendError> {
    let mut answer = Vec::new();
    while let Some(more) = response.chunk().await.map_err(|_| later("it hung up"))? {
        answer.extend_from_slice(&more);
        if answer.len() > ANSWER_MAX_BYTES {
            break;
        }
    }
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    // 64-bit numbers are texts in this encoding, but not everybody's.
    let rejected = &answer["partialSuccess"]["rejectedLogRecords"];
    let text = rejected.as_str().and_then(|text| text.parse().ok());
    Ok(text.or(rejected.as_u64()).unwrap_or(0))
}

/// An `ExportLogsServiceRequest`.
fn body(organisation: &OrganisationId, flows: &[StoredFlow]) -> Value {
    let resource = [
        attribute("service.name", "partywall".into()),
        attribute("partywall.organisation", organisation.as_str().into()),
    ];
    let scope = json!({ "name": "partywall.flows", "version": env!("CARGO_PKG_VERSION") });
    let records: Vec<_> = flows.iter().map(log_record).collect();
    json!({ "resourceLogs": [{
        "resource": { "attributes": resource },
        "scopeLogs": [{ "scope": scope, "logRecords": records }],
    }]})
}

fn log_record(stored: &StoredFlow) -> Value {
    let flow = &stored.flow;
    let severity = match flow.event {
        FlowEvent::Opened | FlowEvent::Ended => INFO,
        FlowEvent::Refused => INFO_2,
    };
    let ends = [(flow.device_address, flow.device_port), (flow.network_address, flow.network_port)];
    let [client, server] = match flow.opener {
        Opener::Device => ends,
        Opener::Network => [ends[1], ends[0]],
    };
    let text = |value: &dyn std::fmt::Display| Value::from(value.to_string());
    let mut attributes = vec![
        attribute("client.address", text(&client.0)),
        attribute("client.port", client.1.into()),
        attribute("server.address", text(&server.0)),
        attribute("server.port", server.1.into()),
        attribute("network.transport", text(&flow.protocol)),
        attribute("partywall.flow", text(&flow.id)),
        attribute("partywall.reporter", text(&stored.reporter)),
        attribute("partywall.segment", text(&stored.segment)),
        attribute("partywall.device", text(&flow.device)),
        attribute("partywall.to_network.packets", flow.to_network.packets.into()),
        attribute("partywall.to_network.bytes", flow.to_network.bytes.into()),
        attribute("partywall.to_device.packets", flow.to_device.packets.into()),
        attribute("partywall.to_device.bytes", flow.to_device.bytes.into()),
    ];
    let known = [
        ("user.name", stored.user.as_ref().map(|it| text(it))),
        ("partywall.building", stored.building.as_ref().map(|it| text(it))),
        ("partywall.session", flow.session.as_ref().map(|it| text(it))),
        ("partywall.rule", flow.rule.as_ref().map(|it| text(it))),
        ("partywall.reason", flow.reason.as_ref().map(|it| text(it))),
        ("partywall.policy", flow.policy.map(Value::from)),
    ];
    attributes.extend(known.into_iter().filter_map(|(key, it)| Some(attribute(key, it?))));
    json!({
        "timeUnixNano": flow.at.as_nanosecond().to_string(),
        "observedTimeUnixNano": flow.at.as_nanosecond().to_string(),
        "severityNumber": severity,
        "eventName": format!("partywall.flow.{}", flow.event),
        "body": { "stringValue": format!("flow {}", flow.event) },
        "attributes": attributes,
    })
}

/// A `KeyValue`; whole numbers are texts in this encoding.
fn attribute(key: &str, value: Value) -> Value {
    let value = match value.as_u64() {
        Some(number) => json!({ "intValue": number.to_string() }),
        None => json!({ "stringValue": value }),
    };
    json!({ "key": key, "value": value })
}
