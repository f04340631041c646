//! The other ends of a shard's tunnels, and every way to find one: by name, by public key, by receiver
//! index, by overlay address.
//!
//! A peer's number is its place here and is used again after it; its receiver index is drawn at random
//! so that a datagram meant for a former peer finds nobody. `index mod shards` is the owning shard.
//!
//! A shard is told of every peer of the agent and has tunnels only for its own. Of another shard's peer
//! it keeps what names the owner, under a number like any other: [`Peers::at`] does not find it,
//! [`Peers::owner`] does.

mod entry;
mod owner;
mod slot;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use foldhash::fast::RandomState as FastState;
use partywall_proto::ids::AgentId;
use partywall_proto::keys::WireguardKey;
use partywall_proto::nets::Prefix;
use partywall_proto::overlay::Peer;

pub(crate) use entry::PeerEntry;
pub use owner::{OWNER_BITS, owner_of_address};

use owner::owner_of_peer;
use slot::{Slot, Theirs};

use crate::filter::{PEERS_MAX, Party};
use crate::packet::{Address, PrefixTable};
use crate::tunnel::{INDICES, Tunnel};

/// What [`Peers::set`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerChange {
    /// It is as it was.
    None,
    /// The tunnel goes on, but flows must be judged anew.
    Changed(u32),
    /// The tunnel goes on, but under another session: its flows must be cut.
    OtherSession(u32),
    /// There is a new tunnel under this number; flows of the former must be cut.
    New(u32),
    /// It had this number and is another shard's now; its flows must be cut.
    Left(u32),
}

/// All peers that a shard knows: its own, and whose the others are.
#[derive(Debug)]
pub(crate) struct Peers {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    by_agent: BTreeMap<AgentId, u32>,
    by_key: HashMap<WireguardKey, u32>,
    by_index: HashMap<u32, u32, FastState>,
    routes: PrefixTable<u32>,
    shard: u16,
    shards: u16,
    draws: RandomState,
    drawn: u64,
    /// At a device, whose all flows are: its own.
    own: Option<Arc<Party>>,
}

impl Peers {
    /// No peers yet, for shard `shard` of `shards`.
    pub(crate) fn new(shard: u16, shards: u16) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_agent: BTreeMap::new(),
            by_key: HashMap::new(),
            by_index: HashMap::default(),
            routes: PrefixTable::default(),
            shard,
            shards: shards.max(1),
            draws: RandomState::new(),
            drawn: 0,
            own: None,
        }
    }

    /// At a device: from now on all flows are this party's, whichever peer they go to.
    pub(crate) fn set_own(&mut self, party: Party) {
        self.own = Some(Arc::new(party));
    }

    /// Adds a peer or brings it up to date. A tunnel whose keys stay goes on, while its owner does.
    /// None if there is no room for another peer.
    pub(crate) fn set(&mut self, peer: &Peer) -> Option<PeerChange> {
        // Another agent's key moves to this one only if that agent loses it.
        let holder = self.by_key.get(&peer.public_key).and_then(|&number| self.slot(number));
        if let Some(agent) = holder.map(Slot::agent).filter(|&agent| *agent != peer.agent).cloned()
        {
            self.remove(&agent);
        }
        let owner = owner_of_peer(&peer.allowed_ips, self.shards);
        if owner != self.shard {
            return self.set_theirs(owner, peer);
        }
        if let Some(&number) = self.by_agent.get(&peer.agent) {
            if self.at(number).is_some_and(|entry| entry.keeps_tunnel(peer)) {
                return self.update(number, peer);
            }
            self.remove(&peer.agent);
        }
        self.add(peer).map(PeerChange::New)
    }

    /// Takes a peer out; its former number if it was there.
    pub(crate) fn remove(&mut self, agent: &AgentId) -> Option<u32> {
        let number = self.by_agent.remove(agent)?;
        let slot = self.slots[number as usize].take()?;
        self.by_key.remove(slot.public_key());
        if let Slot::Mine(entry) = &slot {
            self.by_index.remove(&entry.index);
        }
        self.unroute(number, slot.allowed_ips());
        self.free.push(number);
        Some(number)
    }

    /// Takes all peers out.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.shard, self.shards);
    }

    /// The peer of this number, if it is this shard's.
    pub(crate) fn at(&self, number: u32) -> Option<&PeerEntry> {
        match self.slot(number)? {
            Slot::Mine(entry) => Some(entry),
            Slot::Theirs(_) => None,
        }
    }

    /// The peer of this number, if it is this shard's.
    pub(crate) fn at_mut(&mut self, number: u32) -> Option<&mut PeerEntry> {
        match self.slots.get_mut(number as usize)?.as_mut()? {
            Slot::Mine(entry) => Some(entry),
            Slot::Theirs(_) => None,
        }
    }

    /// The other shard that the peer of this number belongs to; none if it is this one's, or nobody's.
    pub(crate) fn owner(&self, number: u32) -> Option<u16> {
        match self.slot(number)? {
            Slot::Mine(_) => None,
            Slot::Theirs(theirs) => Some(theirs.owner),
        }
    }

    /// Numbers in use are below this.
    pub(crate) fn numbers(&self) -> u32 {
        // Bounded by PEERS_MAX.
        self.slots.len() as u32
    }

    /// The peer with this name.
    pub(crate) fn by_agent(&self, agent: &AgentId) -> Option<u32> {
        self.by_agent.get(agent).copied()
    }

    /// The peer with this public key.
    pub(crate) fn by_key(&self, key: &WireguardKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// The peer that was given this receiver index.
    pub(crate) fn by_index(&self, index: u32) -> Option<u32> {
        self.by_index.get(&index).copied()
    }

    /// The peer that `address` belongs to.
    pub(crate) fn by_address(&self, address: Address) -> Option<u32> {
        self.routes.find(address).copied()
    }

    /// The names of all peers, other shards' too, in order.
    pub(crate) fn agents(&self) -> impl Iterator<Item = &AgentId> {
        self.by_agent.keys()
    }

    /// This shard's peers, in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &PeerEntry> {
        self.by_agent.values().filter_map(|&number| self.at(number))
    }

    fn slot(&self, number: u32) -> Option<&Slot> {
        self.slots.get(number as usize)?.as_ref()
    }

    /// Notes another shard's peer, and gives it up where it was this one's.
    fn set_theirs(&mut self, owner: u16, peer: &Peer) -> Option<PeerChange> {
        let held = self.by_agent.get(&peer.agent).copied();
        let left = held.filter(|&number| self.at(number).is_some());
        self.remove(&peer.agent);
        let Peer { agent, public_key, allowed_ips, .. } = peer.clone();
        let number = self.free_number()?;
        let theirs = Theirs { owner, agent, public_key, allowed_ips };
        self.place(number, peer, Slot::Theirs(Box::new(theirs)));
        Some(left.map_or(PeerChange::None, PeerChange::Left))
    }

    fn update(&mut self, number: u32, peer: &Peer) -> Option<PeerChange> {
        let party = self.party(peer);
        let entry = self.at_mut(number)?;
        let before = entry.set_config(peer, party);
        if entry.connected_at.is_none() && before.endpoints != peer.endpoints {
            entry.endpoint = peer.endpoints.first().copied().or(entry.endpoint);
        }
        if before.allowed_ips != peer.allowed_ips {
            self.unroute(number, &before.allowed_ips);
            self.route(number, &peer.allowed_ips);
        }
        let session = |peer: &Peer| peer.session.as_ref().map(|session| session.id.clone());
        Some(if session(&before) != session(peer) {
            PeerChange::OtherSession(number)
        } else if before.classes != peer.classes || before.allowed_ips != peer.allowed_ips {
            PeerChange::Changed(number)
        } else {
            PeerChange::None
        })
    }

    fn add(&mut self, peer: &Peer) -> Option<u32> {
        let index = self.draw_index()?;
        let number = self.free_number()?;
        let Peer { public_key, preshared_key, keepalive_s, .. } = peer;
        let tunnel = Tunnel::new(public_key, preshared_key.as_ref(), *keepalive_s, index);
        let entry = PeerEntry::new(number, peer, self.party(peer), tunnel, index);
        self.by_index.insert(index, number);
        self.place(number, peer, Slot::Mine(Box::new(entry)));
        Some(number)
    }

    /// Whose flows with this peer are.
    fn party(&self, peer: &Peer) -> Arc<Party> {
        let theirs = || {
            let session = peer.session.as_ref().map(|session| session.id.clone());
            Arc::new(Party { agent: peer.agent.clone(), session })
        };
        self.own.clone().unwrap_or_else(theirs)
    }

    /// A number that no peer has; none if they have run out.
    fn free_number(&mut self) -> Option<u32> {
        if let Some(number) = self.free.pop() {
            return Some(number);
        }
        if self.slots.len() >= PEERS_MAX as usize {
            return None;
        }
        self.slots.push(None);
        Some(self.numbers() - 1)
    }

    fn place(&mut self, number: u32, peer: &Peer, slot: Slot) {
        self.slots[number as usize] = Some(slot);
        self.by_agent.insert(peer.agent.clone(), number);
        self.by_key.insert(peer.public_key, number);
        self.route(number, &peer.allowed_ips);
    }

    fn route(&mut self, number: u32, allowed_ips: &[Prefix]) {
        for prefix in allowed_ips {
            self.routes.insert(*prefix, number);
        }
    }

    /// Takes out the peer's prefixes, but not one that another peer was given since.
    fn unroute(&mut self, number: u32, allowed_ips: &[Prefix]) {
        for prefix in allowed_ips {
            if self.routes.at(*prefix) == Some(&number) {
                self.routes.remove(*prefix);
            }
        }
    }

    /// A free index that belongs to this shard; none if they are about to run out.
    fn draw_index(&mut self) -> Option<u32> {
        let places = INDICES / u32::from(self.shards);
        // Draws stay short: more than half are always free.
        if self.by_index.len() as u32 >= places / 2 {
            return None;
        }
        loop {
            self.drawn += 1;
            let draw = self.draws.hash_one(self.drawn);
            // Below `places`, so that it fits.
            let index =
                (draw % u64::from(places)) as u32 * u32::from(self.shards) + u32::from(self.shard);
            if !self.by_index.contains_key(&index) {
                return Some(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, key: u8, allowed_ips: &[&str]) -> Peer {
        let key = WireguardKey::from([key; 32]);
        let allowed_ips = allowed_ips.join("\",\"");
        let json = format!(
            r#"{{"agent":"device/{name}","public_key":"{key}","allowed_ips":["{allowed_ips}"]}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    fn set(peers: &mut Peers, peer: &Peer) -> PeerChange {
        peers.set(peer).unwrap()
    }

    #[test]
    fn nothing_leads_to_a_peer_that_is_gone() {
        let mut peers = Peers::new(0, 1);
        let gone = peer("a", 1, &["10.0.0.1"]);
        set(&mut peers, &gone);
        let index = peers.at(0).unwrap().index;
        assert_eq!(peers.by_index(index), Some(0));
        assert_eq!(peers.remove(&gone.agent), Some(0));
        assert_eq!(set(&mut peers, &peer("b", 2, &["10.0.0.2"])), PeerChange::New(0));
        assert_eq!(peers.by_index(index), None);
        assert_eq!(peers.by_key(&gone.public_key), None);
        assert_eq!(peers.by_agent(&gone.agent), None);
        assert_eq!(peers.by_address(Address::v4([10, 0, 0, 1])), None);
    }

    #[test]
    fn a_prefix_that_moves_to_another_peer_stays_there_when_the_first_is_updated() {
        let mut peers = Peers::new(0, 1);
        set(&mut peers, &peer("a", 1, &["10.0.0.1"]));
        set(&mut peers, &peer("b", 2, &["10.0.0.1", "10.0.0.2"]));
        assert_eq!(set(&mut peers, &peer("a", 1, &["10.0.0.3"])), PeerChange::Changed(0));
        assert_eq!(peers.by_address(Address::v4([10, 0, 0, 1])), Some(1));
    }

    #[test]
    fn a_new_key_is_a_new_tunnel_with_another_index() {
        let mut peers = Peers::new(0, 1);
        set(&mut peers, &peer("a", 1, &["10.0.0.1"]));
        let index = peers.at(0).unwrap().index;
        assert_eq!(set(&mut peers, &peer("a", 1, &["10.0.0.1"])), PeerChange::None);
        assert_eq!(set(&mut peers, &peer("a", 2, &["10.0.0.1"])), PeerChange::New(0));
        assert_ne!(peers.at(0).unwrap().index, index);
    }

    #[test]
    fn another_shards_peer_is_found_without_a_tunnel() {
        let mut peers = Peers::new(0, 2);
        let theirs = peer("a", 1, &["10.0.0.1"]);
        assert_eq!(set(&mut peers, &theirs), PeerChange::None);
        let number = peers.by_address(Address::v4([10, 0, 0, 1])).unwrap();
        assert_eq!(
            (peers.by_key(&theirs.public_key), peers.owner(number)),
            (Some(number), Some(1))
        );
        assert!(peers.at(number).is_none() && peers.iter().next().is_none());
        assert_eq!(peers.remove(&theirs.agent), Some(number));
        assert_eq!(peers.by_address(Address::v4([10, 0, 0, 1])), None);
        assert_eq!((peers.by_key(&theirs.public_key), peers.owner(number)), (None, None));
    }

    #[test]
    fn a_peer_whose_address_moves_it_to_another_shard_loses_its_tunnel_and_may_come_back() {
        let mut peers = Peers::new(0, 2);
        set(&mut peers, &peer("a", 1, &["10.0.0.2"]));
        let index = peers.at(0).unwrap().index;
        assert_eq!(set(&mut peers, &peer("a", 1, &["10.0.0.1"])), PeerChange::Left(0));
        assert_eq!((peers.by_index(index), peers.owner(0)), (None, Some(1)));
        assert_eq!(set(&mut peers, &peer("a", 1, &["10.0.0.2"])), PeerChange::New(0));
        assert_eq!((peers.owner(0), peers.at(0).is_some()), (None, true));
    }

    #[test]
    fn a_key_or_an_address_of_another_shards_peer_can_move_to_one_of_this() {
        let mut peers = Peers::new(0, 2);
        set(&mut peers, &peer("a", 1, &["10.0.0.1"]));
        set(&mut peers, &peer("c", 3, &["10.0.0.3"]));
        let mine = peer("b", 1, &["10.0.0.2"]);
        set(&mut peers, &mine);
        assert_eq!(peers.by_address(Address::v4([10, 0, 0, 1])), None);
        assert!(peers.by_key(&mine.public_key).is_some_and(|number| peers.at(number).is_some()));
        set(&mut peers, &peer("d", 4, &["10.0.0.3"]));
        peers.remove(&"device/c".parse().unwrap());
        assert!(peers.by_address(Address::v4([10, 0, 0, 3])).is_some());
    }
}
