//! Multicast as sockets see it (RFC 1112, RFC 3376 §2, RFC 3678): membership with source filters,
//! who gets a datagram to a group, and what is sent to one.

use core::net::IpAddr;
use std::io;

use millrace_frames::{Arena, ChecksumState, Frame, Owners};
use millrace_wire::mac::Mac;
use millrace_wire::{ether, ipv4, ipv6, udp};

use crate::Stack;
use crate::address::{Word, address, is_v4, word};
use crate::control::L2;
use crate::destination::no_source;
use crate::first_hop::Path;
use crate::fragmentation::IpHeader;
use crate::group::{Filter, FilterMode, Listening};
use crate::ip::IpInfo;
use crate::stack::NO_SOCKET;
use crate::udp::SocketId;

/// What a socket has to do with groups.
#[derive(Clone, Debug)]
pub(crate) struct SocketMulticast {
    memberships: Vec<(Word, Filter)>,
    /// Time to live, or hop limit, of what is sent to groups.
    pub(crate) ttl: u8,
    /// Sockets of this stack get what is sent to groups that they listen to.
    pub(crate) looped: bool,
    /// Where what is sent to groups comes from; 0: the first address.
    pub(crate) source: Word,
}

impl SocketMulticast {
    pub(crate) const NONE: SocketMulticast =
        SocketMulticast { memberships: Vec::new(), ttl: 1, looped: true, source: 0 };

    fn find(&self, group: Word) -> Option<&Filter> {
        self.memberships.iter().find(|(other, _)| *other == group).map(|(_, filter)| filter)
    }

    pub(crate) fn admits(&self, group: Word, source: Word) -> bool {
        self.find(group).is_some_and(|filter| filter.admits(source))
    }
}

/// A group that a stack listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// The group.
    pub group: IpAddr,
    /// Whether the sources are those that are wanted, or those that are not.
    pub mode: FilterMode,
    /// The sources.
    pub sources: Vec<IpAddr>,
}

pub(crate) const ALL_HOSTS_V4: Word = 0xffff_e000_0001;
pub(crate) const ALL_NODES_V6: Word = 0xff02 << 112 | 1;

#[inline]
pub(crate) fn is_multicast(word: Word) -> bool {
    if is_v4(word) { word as u32 >> 28 == 0xe } else { word >> 120 == 0xff }
}

/// Whether routers are told of the group. All hosts listen to the first one of each family, and
/// what does not leave the host is nobody's business (RFC 3376 §6, RFC 3810 §6).
pub(crate) fn is_reported(group: Word) -> bool {
    if is_v4(group) {
        return group != ALL_HOSTS_V4;
    }
    group != ALL_NODES_V6 && leaves_the_host(group)
}

/// Whether a group can have members on the link, and packets to it come from there: those of an
/// interface or of no scope are for the host alone (RFC 4291 §2.7).
pub(crate) fn leaves_the_host(group: Word) -> bool {
    is_v4(group) || (group >> 112) & 0x0f >= 2
}

/// The hardware address of a group (RFC 1112 §6.4, RFC 2464 §7).
pub(crate) fn group_mac(group: Word) -> Mac {
    let [.., a, b, c, d] = group.to_be_bytes();
    if is_v4(group) { Mac([1, 0, 0x5e, b & 0x7f, c, d]) } else { Mac([0x33, 0x33, a, b, c, d]) }
}

fn wrong(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

impl Stack {
    fn listening_mut(&mut self, group: Word) -> &mut Listening {
        if is_v4(group) { &mut self.igmp } else { &mut self.mld }
    }

    pub(crate) fn listening(&self, group: Word) -> &Listening {
        if is_v4(group) { &self.igmp } else { &self.mld }
    }

    /// Whether packets to the group are taken.
    #[inline]
    pub(crate) fn listens_to(&self, group: Word) -> bool {
        group == ALL_HOSTS_V4 || group == ALL_NODES_V6 || self.listening(group).has(group)
    }

    /// Takes datagrams to a group: from every source, or (source-specific) from this one and those
    /// of further calls.
    ///
    /// # Errors
    /// `InvalidInput` for what is no group, a source of another family, or a source where all were
    /// wanted; `AlreadyExists`; `QuotaExceeded` when a bound of
    /// [`MulticastConfig`](crate::MulticastConfig) is reached; `NotConnected` if the socket is
    /// closed.
    pub fn join_group(
        &mut self,
        id: SocketId,
        group: IpAddr,
        source: Option<IpAddr>,
    ) -> io::Result<()> {
        let word = check_group(group)?;
        let current = self.membership(id, word)?;
        let filter = match (source, current) {
            (None, None) => Filter::EVERYTHING,
            (None, Some(_)) => return Err(joined_already(group)),
            (Some(_), Some(Filter { mode: FilterMode::Exclude, .. })) => {
                return Err(wrong(format!(
                    "the socket takes {group} from every source already; leave it first"
                )));
            }
            (Some(source), current) => {
                let mut filter = current.unwrap_or(Filter::NOTHING);
                add_source(&mut filter, check_source(group, source)?)
                    .ok_or_else(|| joined_already(group))?;
                filter
            }
        };
        self.set_membership(id, word, filter)
    }

    /// Takes no more datagrams to a group, or no more from a source that was joined by name.
    ///
    /// # Errors
    /// `AddrNotAvailable` if the socket is no member; `InvalidInput` for what is no group;
    /// `NotConnected` if the socket is closed.
    pub fn leave_group(
        &mut self,
        id: SocketId,
        group: IpAddr,
        source: Option<IpAddr>,
    ) -> io::Result<()> {
        let word = check_group(group)?;
        let Some(mut filter) = self.membership(id, word)? else { return Err(no_member(group)) };
        match source {
            None => filter = Filter::NOTHING,
            Some(source) => {
                let source = check_source(group, source)?;
                let at = filter.sources.binary_search(&source);
                match (filter.mode, at) {
                    (FilterMode::Include, Ok(at)) => drop(filter.sources.remove(at)),
                    _ => return Err(no_member(group)),
                }
            }
        }
        self.set_membership(id, word, filter)
    }

    /// Takes no datagrams of one source any more, of a group that was joined for every source.
    ///
    /// # Errors
    /// `InvalidInput` unless the group was joined so; `AlreadyExists`; as [`Stack::join_group`].
    pub fn block_source(&mut self, id: SocketId, group: IpAddr, source: IpAddr) -> io::Result<()> {
        let (word, mut filter) = self.excluding(id, group)?;
        add_source(&mut filter, check_source(group, source)?).ok_or_else(|| {
            let text = format!("the source {source} of {group} is blocked already");
            io::Error::new(io::ErrorKind::AlreadyExists, text)
        })?;
        self.set_membership(id, word, filter)
    }

    /// Takes datagrams of a source again that was blocked.
    ///
    /// # Errors
    /// `AddrNotAvailable` if it was not blocked; as [`Stack::block_source`].
    pub fn unblock_source(
        &mut self,
        id: SocketId,
        group: IpAddr,
        source: IpAddr,
    ) -> io::Result<()> {
        let (word, mut filter) = self.excluding(id, group)?;
        match filter.sources.binary_search(&check_source(group, source)?) {
            Ok(at) => drop(filter.sources.remove(at)),
            Err(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::AddrNotAvailable,
                    format!("the source {source} of {group} is not blocked"),
                ));
            }
        }
        self.set_membership(id, word, filter)
    }

    /// Sets the whole filter of a group at once (RFC 3678 §4.2). To include nobody is to leave.
    ///
    /// # Errors
    /// As [`Stack::join_group`].
    pub fn set_source_filter(
        &mut self,
        id: SocketId,
        group: IpAddr,
        mode: FilterMode,
        sources: &[IpAddr],
    ) -> io::Result<()> {
        let word = check_group(group)?;
        self.membership(id, word)?;
        let mut filter = Filter { mode, sources: Vec::new() };
        for &source in sources {
            let source = check_source(group, source)?;
            if filter.sources.len() <= usize::from(self.config.multicast.sources) {
                let _ = add_source(&mut filter, source);
            }
        }
        self.set_membership(id, word, filter)
    }

    /// The socket's filter of a group; `None` if it is no member.
    ///
    /// # Errors
    /// `InvalidInput` for what is no group; `NotConnected` if the socket is closed.
    pub fn source_filter(
        &mut self,
        id: SocketId,
        group: IpAddr,
    ) -> io::Result<Option<(FilterMode, Vec<IpAddr>)>> {
        let filter = self.membership(id, check_group(group)?)?;
        let filter = filter.map(|filter| {
            (filter.mode, filter.sources.iter().map(|&source| address(source)).collect())
        });
        Ok(filter)
    }

    /// How many routers may forward what the socket sends to groups: 1 at first, which is none;
    /// with 0 it does not leave the host.
    ///
    /// # Errors
    /// `NotConnected` if the socket is closed.
    pub fn set_multicast_ttl(&mut self, id: SocketId, ttl: u8) -> io::Result<()> {
        self.socket(id)?.multicast.ttl = ttl;
        Ok(())
    }

    /// Whether sockets of this stack get what the socket sends to groups that they listen to. On
    /// at first.
    ///
    /// # Errors
    /// `NotConnected` if the socket is closed.
    pub fn set_multicast_loop(&mut self, id: SocketId, on: bool) -> io::Result<()> {
        self.socket(id)?.multicast.looped = on;
        Ok(())
    }

    /// The address of ours that what is sent to groups comes from, where the socket is bound to
    /// none; `None`: the first one of the group's family.
    ///
    /// # Errors
    /// `AddrNotAvailable` if it is not ours; `NotConnected` if the socket is closed.
    pub fn set_multicast_source(&mut self, id: SocketId, source: Option<IpAddr>) -> io::Result<()> {
        let source = source.map(|source| self.own_address(source)).transpose()?.unwrap_or(0);
        self.socket(id)?.multicast.source = source;
        Ok(())
    }

    /// The groups that the stack listens to, and from whom: what sockets want, taken together.
    pub fn multicast_groups(&self) -> Vec<GroupInfo> {
        let groups = self.igmp.groups().chain(self.mld.groups());
        groups
            .map(|(group, filter)| GroupInfo {
                group: address(group),
                mode: filter.mode,
                sources: filter.sources.iter().map(|&source| address(source)).collect(),
            })
            .collect()
    }

    fn membership(&mut self, id: SocketId, group: Word) -> io::Result<Option<Filter>> {
        Ok(self.socket(id)?.multicast.find(group).cloned())
    }

    fn excluding(&mut self, id: SocketId, group: IpAddr) -> io::Result<(Word, Filter)> {
        let word = check_group(group)?;
        match self.membership(id, word)? {
            Some(filter) if filter.mode == FilterMode::Exclude => Ok((word, filter)),
            _ => Err(wrong(format!(
                "the socket does not take {group} from every source, so there is none to block"
            ))),
        }
    }

    fn set_membership(&mut self, id: SocketId, group: Word, filter: Filter) -> io::Result<()> {
        let config = &self.config.multicast;
        let (most_groups, most_sources) = (config.groups_per_socket, config.sources);
        let full = |what: String| Err(io::Error::new(io::ErrorKind::QuotaExceeded, what));
        if filter.sources.len() > usize::from(most_sources) {
            return full(format!("a socket's filter has at most {most_sources} sources"));
        }
        let room = self.listening(group).has_room(group);
        let memberships = &mut self.socket(id)?.multicast.memberships;
        let at = memberships.iter().position(|(other, _)| *other == group);
        match (at, filter.is_nothing()) {
            (Some(at), true) => drop(memberships.swap_remove(at)),
            (Some(at), false) => memberships[at].1 = filter,
            (None, true) => {}
            (None, false) if memberships.len() >= usize::from(most_groups) => {
                return full(format!("a socket listens to at most {most_groups} groups"));
            }
            (None, false) if !room => {
                let most = self.config.multicast.groups;
                return full(format!("the stack listens to its most groups, {most}"));
            }
            (None, false) => memberships.push((group, filter)),
        }
        self.group_changed(group);
        Ok(())
    }

    /// A socket is closed: it is a member of nothing any more.
    pub(crate) fn leave_all_groups(&mut self, index: u16) {
        let multicast = &mut self.sockets[usize::from(index)].multicast;
        for (group, _) in core::mem::take(&mut multicast.memberships) {
            self.group_changed(group);
        }
    }

    /// The stack itself listens to a group, or one reason to do so less. Returns false where no
    /// more groups fit.
    pub(crate) fn listen_internally(&mut self, group: Word, join: bool) -> bool {
        if join && !self.listening(group).has_room(group) {
            return false;
        }
        self.listening_mut(group).count_internal(group, join);
        self.group_changed(group);
        true
    }

    /// Works out what is wanted of a group, and tells routers if that is something new.
    fn group_changed(&mut self, group: Word) {
        let filters = self.sockets.iter().filter_map(|socket| socket.multicast.find(group));
        let merged = match self.listening(group).internal(group) {
            0 => Filter::merge(filters),
            _ => Filter::EVERYTHING,
        };
        let now = self.now;
        self.listening_mut(group).set(group, merged, now, is_reported(group));
        self.advance_multicast();
    }

    /// Tells routers what is due.
    #[inline]
    pub(crate) fn advance_multicast(&mut self) {
        if self.igmp.is_due(self.now) || self.mld.is_due(self.now) {
            self.tell_groups();
        }
    }

    fn tell_groups(&mut self) {
        while let Some(tell) = self.igmp.due(&self.keys, self.now) {
            self.igmp_tell(tell);
        }
        while let Some(tell) = self.mld.due(&self.keys, self.now) {
            self.mld_tell(tell);
        }
    }

    /// From which address of ours something goes to a group, which needs no route.
    pub(crate) fn multicast_path(&self, group: IpAddr, source: Word) -> io::Result<Path> {
        let next_hop = word(group);
        let chosen = match source {
            0 if group.is_ipv6() => self.addresses.source(next_hop),
            0 => self.addresses.first_v4(),
            _ => self.addresses.find(source),
        };
        let local = chosen.ok_or_else(|| no_source(group))?;
        Ok(Path { local, next_hop })
    }

    /// Hands a datagram to every socket that it is for: the last takes the frames, the others get
    /// copies.
    pub(crate) fn udp_to_many(&mut self, frame: Frame, ip: &IpInfo, ports: (u16, u16), len: usize) {
        let first = self.udp_ports[usize::from(ports.1)];
        let Some(mut index) = self.next_receiver(first, ip, ports.0) else {
            self.counters.drop_udp_no_socket += 1;
            return self.drop_chain(frame);
        };
        while let Some(next) = self.next_receiver(self.sockets[index].next, ip, ports.0) {
            match self.copy_chain(frame) {
                Some(copy) => self.udp_deliver(index, copy, ip, len),
                None => self.udp_not_delivered(index),
            }
            index = next;
        }
        self.udp_deliver(index, frame, ip, len);
    }

    /// The first socket from `at` on, in its port's list, that takes what came to a group or
    /// broadcast address.
    fn next_receiver(&self, mut at: u16, ip: &IpInfo, source_port: u16) -> Option<usize> {
        let group = is_multicast(ip.destination);
        while at != NO_SOCKET {
            let socket = &self.sockets[usize::from(at)];
            let wanted = match group {
                true => {
                    socket.local.takes(ip.destination).is_some()
                        && socket.multicast.admits(ip.destination, ip.source)
                }
                false => socket.local.takes_broadcast(),
            };
            if wanted && socket.remote.is_none_or(|remote| remote == (ip.source, source_port)) {
                return Some(at.into());
            }
            at = socket.next;
        }
        None
    }

    /// A copy of received frames, as far as there are frames to spare.
    fn copy_chain(&mut self, chain: Frame) -> Option<Frame> {
        let reserve = self.config.frame_reserve as usize;
        let (mut at, mut head, mut last) = (chain, Frame::NONE, Frame::NONE);
        while at.is_some() {
            let Some(copy) = self.arena.allocate_keeping(Owners::RECEIVED, reserve) else {
                self.drop_chain(head);
                return None;
            };
            let from = *self.arena.meta(at);
            let end = usize::from(from.offset) + usize::from(from.len);
            self.arena.meta_mut(copy).offset = 0;
            self.arena.append_from(copy, at, 0, end);
            *self.arena.meta_mut(copy) = millrace_frames::Meta { next: Frame::NONE, ..from };
            match last.get() {
                Some(last) => self.arena.meta_mut(last).next = copy,
                None => head = copy,
            }
            (last, at) = (copy, from.next);
        }
        head.get()
    }

    /// Gives a datagram that is sent to a group to our own sockets that listen to it.
    pub(crate) fn loop_back(&mut self, ip: &IpHeader, ports: (u16, u16), data: &[u8]) {
        let (source, destination, _) = ip.addresses();
        if !self.listens_to(destination) {
            return;
        }
        let reserve = self.config.frame_reserve as usize;
        let Some(head) = self.arena.allocate_keeping(Owners::RECEIVED, reserve) else {
            self.counters.drop_no_frame += 1;
            return;
        };
        let mac = self.config.mac;
        let len = udp::HEADER_LEN + data.len();
        let room = &mut self.arena.room_mut(head)[Arena::HEADROOM..];
        let (ether_type, l4) = match ip {
            IpHeader::V4(ip) => {
                ip.emit(&mut room[L2..], len);
                (ether::EtherType::IPV4, L2 + ipv4::HEADER_LEN)
            }
            IpHeader::V6(ip) => {
                ip.emit(&mut room[L2..], len);
                (ether::EtherType::IPV6, L2 + ipv6::HEADER_LEN)
            }
        };
        ether::emit(room, group_mac(destination), mac, ether_type);
        udp::emit(&mut room[l4..], ports.0, ports.1, data.len());
        let headers = l4 + udp::HEADER_LEN;
        let first = data.len().min(room.len() - headers);
        room[headers..headers + first].copy_from_slice(&data[..first]);
        let meta = self.arena.meta_mut(head);
        meta.len = (headers + first) as u16;
        meta.total = (l4 + len) as u32;
        meta.checksum = ChecksumState::Verified;
        let mut last = head;
        for part in data[first..].chunks(self.arena.frame_size() - Arena::HEADROOM) {
            let Some(frame) = self.arena.allocate_keeping(Owners::RECEIVED, reserve) else {
                self.counters.drop_no_frame += 1;
                return self.drop_chain(head);
            };
            self.arena.room_mut(frame)[Arena::HEADROOM..][..part.len()].copy_from_slice(part);
            self.arena.meta_mut(frame).len = part.len() as u16;
            self.arena.meta_mut(last).next = frame;
            last = frame;
        }
        let info =
            IpInfo { source, destination, local: 0, mac, start: L2, payload: l4, len, many: true };
        self.udp_packet(head, &info);
    }
}

fn check_group(group: IpAddr) -> io::Result<Word> {
    if !group.is_multicast() {
        return Err(wrong(format!("{group} is no multicast group")));
    }
    Ok(word(group))
}

fn check_source(group: IpAddr, source: IpAddr) -> io::Result<Word> {
    if source.is_ipv4() != group.is_ipv4() || source.is_multicast() || source.is_unspecified() {
        return Err(wrong(format!("{source} cannot be a source of {group}")));
    }
    Ok(word(source))
}

fn add_source(filter: &mut Filter, source: Word) -> Option<()> {
    let at = filter.sources.binary_search(&source).err()?;
    filter.sources.insert(at, source);
    Some(())
}

fn joined_already(group: IpAddr) -> io::Error {
    let text = format!("the socket is a member of {group} already");
    io::Error::new(io::ErrorKind::AlreadyExists, text)
}

fn no_member(group: IpAddr) -> io::Error {
    let text = format!("the socket is no such member of {group}");
    io::Error::new(io::ErrorKind::AddrNotAvailable, text)
}
