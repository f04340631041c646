//! What the shards tell of flows, on its way to the controller.
//!
//! It is bounded, and whoever finds it full drops and counts: a controller that is away or slow never
//! slows packets. Workers put events in as they are; the daemon's side makes records of them, so that
//! names are written out where nobody waits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use partywall_datapath::filter::{FlowEvent, Happening, Side};
use partywall_datapath::shard::{Role, Shard};
use partywall_proto::flows::{
    self, DEVICE_FLOWS_AT_ONCE, FLOWS_PER_MESSAGE_MAX, FlowId, FlowRecord,
};
use partywall_proto::ids::AgentId;
use partywall_proto::nets::Protocol;
use partywall_proto::rules::Opener;

/// What waits at most at a gateway: a controller that is away for a minute, at a thousand events a second.
/// 12 MB.
const ROOM: usize = 1 << 16;
/// The same at a device: what its controller takes of it at once.
const DEVICE_ROOM: usize = DEVICE_FLOWS_AT_ONCE as usize;

/// Events of an agent's flows. Its clones are the same queue.
#[derive(Debug, Clone, Default)]
pub struct FlowQueue(Arc<Mutex<Held>>);

/// Records for one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowBatch {
    /// At most [`FLOWS_PER_MESSAGE_MAX`], oldest first.
    pub records: Vec<FlowRecord>,
    /// Records lost since the last batch.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct Held {
    events: VecDeque<(Timestamp, FlowId, FlowEvent)>,
    /// Not told to the controller yet.
    lost: u64,
    lost_ever: u64,
}

impl Held {
    fn lose(&mut self, count: u64) {
        self.lost += count;
        self.lost_ever += count;
    }
}

impl FlowQueue {
    /// Takes out what fits one message; none if there is nothing to say.
    pub fn take(&self) -> Option<FlowBatch> {
        let mut held = self.held();
        let count = held.events.len().min(FLOWS_PER_MESSAGE_MAX);
        let taken: Vec<_> = held.events.drain(..count).collect();
        let lost = std::mem::take(&mut held.lost);
        drop(held);
        let records: Vec<_> = taken.iter().filter_map(record).collect();
        (!records.is_empty() || lost > 0).then_some(FlowBatch { records, lost })
    }

    /// Records were lost on their way to the controller.
    pub fn lose(&self, count: u64) {
        self.held().lose(count);
    }

    /// Records lost since the agent started.
    pub fn lost_ever(&self) -> u64 {
        self.held().lost_ever
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // What a panic elsewhere left is as good as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker's end of the queue.
#[derive(Debug)]
pub(super) struct FlowTap {
    queue: FlowQueue,
    run: u32,
    shard: u16,
    shards: u16,
    room: usize,
    /// What the shard has lost, as far as the queue was told.
    lost: u64,
}

impl FlowTap {
    /// The end of shard `shard` of `shards`. `run` tells its flows' ids from those of another run.
    pub(super) fn new(queue: FlowQueue, role: Role, run: u32, shard: u16, shards: u16) -> Self {
        let room = match role {
            Role::Device => DEVICE_ROOM,
            Role::Gateway => ROOM,
        };
        Self { queue, run, shard, shards, room, lost: 0 }
    }

    /// Moves what the shard has to tell into the queue. Costs a comparison where there is nothing.
    pub(super) fn drain(&mut self, shard: &mut Shard) {
        let lost = shard.flow_events_lost();
        let first = shard.poll_flow_event();
        if first.is_none() && lost == self.lost {
            return;
        }
        let more = std::iter::from_fn(|| shard.poll_flow_event());
        self.put(first.into_iter().chain(more), lost - self.lost);
        self.lost = lost;
    }

    fn put(&self, events: impl Iterator<Item = FlowEvent>, lost: u64) {
        let now = Timestamp::now();
        let mut held = self.queue.held();
        held.lose(lost);
        for event in events {
            if held.events.len() < self.room {
                let id = self.id(event.number);
                held.events.push_back((now, id, event));
            } else {
                held.lose(1);
            }
        }
    }

    /// 24 bits of the run and 40 of the flow: a trillion flows, in turn by shard.
    fn id(&self, number: u64) -> FlowId {
        let number = number * u64::from(self.shards) + u64::from(self.shard);
        FlowId(u64::from(self.run) << 40 | (number & ((1 << 40) - 1)))
    }
}

/// The record of an event; none where the flow is no device's, which does not happen.
fn record((at, id, event): &(Timestamp, FlowId, FlowEvent)) -> Option<FlowRecord> {
    let AgentId::Device(device) = &event.party.agent else { return None };
    let (key, network) = (&event.key, event.device.other());
    let protocol = key.protocol();
    let port = |side| match protocol {
        Protocol::Tcp | Protocol::Udp => key.port(side),
        Protocol::Icmp => 0,
    };
    let (happening, reason) = match event.happening {
        Happening::Opened => (flows::FlowEvent::Opened, None),
        Happening::Refused(reason) => (flows::FlowEvent::Refused, Some(reason.text())),
        Happening::Ended(why) => (flows::FlowEvent::Ended, Some(why.text())),
    };
    let judgement = event.judgement.as_ref();
    let from = |side| match side {
        Side::Local => event.from_local,
        Side::Remote => event.from_remote,
    };
    Some(FlowRecord {
        id: *id,
        event: happening,
        at: *at,
        device: device.clone(),
        session: event.party.session.clone(),
        opener: if event.originator == event.device { Opener::Device } else { Opener::Network },
        device_address: key.address(event.device).into(),
        network_address: key.address(network).into(),
        protocol,
        device_port: port(event.device),
        network_port: port(network),
        rule: judgement.and_then(|judgement| judgement.rule()).cloned(),
        reason: reason.map(str::to_owned),
        policy: judgement.and_then(|judgement| judgement.policy()),
        observed: judgement.and_then(|judgement| judgement.observed()),
        to_network: from(event.device),
        to_device: from(network),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use partywall_datapath::RuleTable;
    use partywall_datapath::filter::{Direction, Filter, Party, PeerView};
    use partywall_datapath::packet;
    use partywall_datapath::shard::{Limits, Role};

    use super::*;

    /// What an agent tells when desk-1 looks up a name, and when the network pings it.
    fn events(role: Role) -> Vec<FlowEvent> {
        let rule = r#"[{"id":"names","action":"allow","match":{"opener":"device","prefix":"10.0.0.0/8"}}]"#;
        let rules: Vec<_> = serde_json::from_str(rule).unwrap();
        let mut filter = Filter::new(role, &Limits::for_role(role));
        filter.set_rules(Arc::new(RuleTable::compile(&rules)));
        let session = Some("s-1".parse().unwrap());
        let party = Arc::new(Party { agent: "device/desk-1".parse().unwrap(), session });
        let peer = PeerView { number: 0, classes: &[], connected_at: None, party: &party };
        let header = |protocol, bytes: u8, from: [u8; 4], to: [u8; 4]| {
            let mut header = vec![0x45, 0, 0, 20 + bytes, 0, 0, 0, 0, 64, protocol, 0, 0];
            header.extend(from.into_iter().chain(to));
            header
        };
        let mut query = header(17, 8, [100, 64, 0, 5], [10, 1, 0, 53]);
        query.extend([0x13, 0x88, 0, 53, 0, 8, 0, 0]);
        let mut ping = header(1, 8, [10, 1, 0, 53], [100, 64, 0, 5]);
        ping.extend([8, 0, 0, 0, 0, 7, 0, 1]);
        let now = Instant::now();
        let [to_gateway, to_device] = match role {
            Role::Device => [Direction::IntoTunnel, Direction::OutOfTunnel],
            Role::Gateway => [Direction::OutOfTunnel, Direction::IntoTunnel],
        };
        for (direction, bytes) in [(to_gateway, query), (to_device, ping)] {
            let packet = packet::parse(&bytes).unwrap();
            filter.verdict(direction, &packet, &peer, now);
        }
        std::iter::from_fn(|| filter.poll_event()).collect()
    }

    #[test]
    fn an_event_becomes_a_record_in_the_words_of_a_gateway() {
        let queue = FlowQueue::default();
        let events = events(Role::Gateway).into_iter();
        FlowTap::new(queue.clone(), Role::Gateway, 0xabcdef, 1, 2).put(events, 0);
        let records = queue.take().unwrap().records;
        let [opened, refused] = &records[..] else { panic!("{records:?}") };
        assert_eq!(opened.id.to_string(), "abcdef0000000003");
        assert_eq!((opened.event, opened.opener), (flows::FlowEvent::Opened, Opener::Device));
        assert_eq!(opened.device.as_str(), "desk-1");
        assert_eq!(opened.session.as_ref().unwrap().as_str(), "s-1");
        assert_eq!(opened.device_address.to_string(), "100.64.0.5");
        assert_eq!(opened.network_address.to_string(), "10.1.0.53");
        assert_eq!((opened.device_port, opened.network_port), (5000, 53));
        assert_eq!(opened.rule.as_ref().unwrap().as_str(), "names");
        assert_eq!((opened.to_network.bytes, opened.to_device.bytes), (28, 0));
        assert_eq!((refused.event, refused.opener), (flows::FlowEvent::Refused, Opener::Network));
        assert_eq!(refused.reason.as_deref(), Some("no-rule"));
        assert_eq!((refused.protocol, refused.network_port), (Protocol::Icmp, 0));
    }

    #[test]
    fn a_device_tells_of_a_refusal_what_a_gateway_would_and_of_what_it_allows_nothing() {
        let records = [Role::Gateway, Role::Device].map(|role| {
            let queue = FlowQueue::default();
            FlowTap::new(queue.clone(), role, 1, 0, 1).put(events(role).into_iter(), 0);
            queue.take().unwrap().records
        });
        let [[_, at_gateway], [at_device]] = [&records[0][..], &records[1][..]] else {
            panic!("{records:?}")
        };
        let same = FlowRecord { id: at_gateway.id, at: at_gateway.at, ..at_device.clone() };
        assert_eq!(same, *at_gateway);
    }

    #[test]
    fn a_full_queue_keeps_what_it_has_and_counts_what_it_drops() {
        let queue = FlowQueue::default();
        let tap = FlowTap::new(queue.clone(), Role::Gateway, 1, 0, 1);
        let event = events(Role::Gateway).remove(0);
        tap.put(std::iter::repeat_n(event, ROOM + 3), 2);
        assert_eq!(queue.lost_ever(), 5);
        let first = queue.take().unwrap();
        assert_eq!((first.records.len(), first.lost), (FLOWS_PER_MESSAGE_MAX, 5));
        let rest: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        assert!(rest.iter().all(|batch| batch.lost == 0), "a loss is told once");
        let records = rest.iter().map(|batch| batch.records.len()).sum::<usize>();
        assert_eq!(FLOWS_PER_MESSAGE_MAX + records, ROOM);
    }
}
