//! DHCP client for IPv4 (RFC 2131 §4.4), with the address looked for on the link before it is
//! used (RFC 5227).

mod lease;
mod messages;

use core::net::Ipv4Addr;
use core::time::Duration;

use millrace_frames::{Frame, Instant};
use millrace_wire::dhcpv4::{MessageType, Packet, option};
use millrace_wire::mac::Mac;
use millrace_wire::{arp, udp};

pub use self::lease::Lease;
use crate::Stack;
use crate::hash::Keys;
use crate::ip::IpInfo;
use crate::route::Route;

/// How a stack gets an address by DHCP.
#[derive(Clone, Debug, Default)]
pub struct DhcpConfig {
    /// The name that the server is told, at most 63 bytes; `None`: none.
    pub host_name: Option<String>,
    /// An address that the server is asked for, such as that of an earlier lease.
    pub requested_address: Option<Ipv4Addr>,
    /// How the address is looked for on the link before it is used.
    pub probe: ProbeConfig,
    /// The first message waits for a random time up to this, so that many hosts that start
    /// together do not ask together (RFC 2131 §4.4.1 proposes 10 s).
    pub start_delay: Duration,
}

/// Probes for an address before it is used (RFC 5227 §2.1.1).
#[derive(Clone, Debug)]
pub struct ProbeConfig {
    /// How many; 0: the address is used at once.
    pub count: u8,
    /// Least time between two; the greatest is twice that, as is the time after the last. The
    /// first waits for at most this.
    pub interval: Duration,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        ProbeConfig { count: 3, interval: Duration::from_secs(1) }
    }
}

/// Where a DHCP client stands (RFC 2131 §4.4, figure 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhcpState {
    /// About to look for servers.
    Init,
    /// Has asked for offers.
    Selecting,
    /// Has asked for what was offered.
    Requesting,
    /// Looks whether somebody has the address.
    Checking,
    /// Has an address.
    Bound,
    /// Asks the server to prolong the lease.
    Renewing,
    /// Asks any server to prolong the lease.
    Rebinding,
    /// Has given the address back.
    Released,
}

#[derive(Clone, Debug)]
pub(crate) struct Dhcp {
    config: DhcpConfig,
    state: DhcpState,
    /// When something is to be done.
    deadline: Instant,
    transaction: u32,
    /// When this acquisition or renewal began.
    began: Instant,
    /// Messages sent again since then.
    attempts: u8,
    /// Refusals and conflicts in a row: each makes the next try wait longer.
    refusals: u8,
    /// Address and server of the offer that was taken.
    offer: (Ipv4Addr, Ipv4Addr),
    /// From Checking on; in use from Bound on.
    lease: Option<Lease>,
    /// Who sent the last acknowledgement.
    server_mac: Mac,
    probes_left: u8,
    /// When the address is announced once more.
    announce_at: Instant,
    /// What the lease brought and was not there before: only that goes with it.
    brought: Brought,
    /// The MTU before a lease changed it.
    mtu: u16,
    /// Numbers drawn so far.
    drawn: u64,
}

/// What a lease added to the stack.
#[derive(Clone, Debug, Default)]
struct Brought {
    address: bool,
    routes: Vec<Route>,
}

/// How often a request is sent before the search begins anew (RFC 2131 §3.1.5).
const REQUESTS: u8 = 4;
/// Longest time between two messages (RFC 2131 §4.1).
const LONGEST: Duration = Duration::from_secs(64);
/// Least time between two requests for more time (RFC 2131 §4.4.5).
const RENEW_AGAIN: Duration = Duration::from_secs(60);
/// Time between the two announcements (RFC 5227 §1.1).
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
/// Least time after a conflict (RFC 2131 §3.1.5).
const AFTER_CONFLICT: Duration = Duration::from_secs(10);

impl Dhcp {
    pub(crate) fn new(config: DhcpConfig, keys: &Keys, now: Instant, mtu: u16) -> Dhcp {
        let mut dhcp = Dhcp {
            state: DhcpState::Init,
            deadline: now,
            transaction: 0,
            began: now,
            attempts: 0,
            refusals: 0,
            offer: (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED),
            lease: None,
            server_mac: Mac::BROADCAST,
            probes_left: 0,
            announce_at: Instant::FAR_FUTURE,
            brought: Brought::default(),
            mtu,
            drawn: 0,
            config,
        };
        dhcp.deadline = now + dhcp.random(keys, dhcp.config.start_delay);
        dhcp
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let deadline = self.deadline.min(self.announce_at);
        (deadline != Instant::FAR_FUTURE).then_some(deadline)
    }

    fn draw(&mut self, keys: &Keys) -> u64 {
        self.drawn += 1;
        keys.prf(&[self.drawn, 0x6468_6370])
    }

    fn random(&mut self, keys: &Keys, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        if nanos == 0 { Duration::ZERO } else { Duration::from_nanos(self.draw(keys) % nanos) }
    }

    /// Time until the next message: 4 s, doubled each time up to 64, a second more or less
    /// (RFC 2131 §4.1).
    fn back_off(&mut self, keys: &Keys) -> Duration {
        let base = Duration::from_secs(4 << self.attempts.min(4)).min(LONGEST);
        base - Duration::from_secs(1) + self.random(keys, Duration::from_secs(2))
    }

    fn go(&mut self, state: DhcpState, deadline: Instant) {
        self.state = state;
        self.deadline = deadline;
        self.attempts = 0;
    }

    /// Begins anew, later after each refusal.
    fn begin(&mut self, now: Instant, refused: bool, least: Duration) {
        let wait = match (refused, self.refusals) {
            (false, _) => Duration::ZERO,
            (true, 0) => least,
            (true, before) => least.max(Duration::from_secs(1 << before.min(6))),
        };
        self.refusals = if refused { self.refusals.saturating_add(1) } else { 0 };
        self.lease = None;
        self.go(DhcpState::Init, now + wait);
    }

    /// When a request for more time is sent again: after half of what is left until `end`, but not
    /// within a minute.
    fn renew_again(&self, now: Instant, end: Instant) -> Instant {
        let half = (end - now) / 2;
        if half < RENEW_AGAIN { end } else { now + half }
    }

    fn in_use(&self) -> bool {
        matches!(self.state, DhcpState::Bound | DhcpState::Renewing | DhcpState::Rebinding)
    }
}

impl Stack {
    /// Where the DHCP client stands; `None` without one.
    pub fn dhcp_state(&self) -> Option<DhcpState> {
        self.dhcp.as_ref().map(|dhcp| dhcp.state)
    }

    /// The lease that the stack's address comes from.
    pub fn dhcp_lease(&self) -> Option<&Lease> {
        let dhcp = self.dhcp.as_ref().filter(|dhcp| dhcp.in_use())?;
        dhcp.lease.as_ref()
    }

    /// Gives the address back to the server, and asks for none again. Connections that use it are
    /// reset. The last thing before a stack is closed.
    pub fn dhcp_release(&mut self) {
        self.with_dhcp(|stack, dhcp| {
            if dhcp.in_use() {
                stack.dhcp_unbind(dhcp, true);
            }
            dhcp.lease = None;
            dhcp.go(DhcpState::Released, Instant::FAR_FUTURE);
        });
    }

    fn with_dhcp(&mut self, act: impl FnOnce(&mut Stack, &mut Dhcp)) {
        if let Some(mut dhcp) = self.dhcp.take() {
            act(self, &mut dhcp);
            self.dhcp = Some(dhcp);
        }
    }

    /// Whether packets to addresses that are not ours may be a server's answers.
    #[inline]
    pub(crate) fn dhcp_waits(&self) -> bool {
        let waits =
            |dhcp: &Dhcp| matches!(dhcp.state, DhcpState::Selecting | DhcpState::Requesting);
        self.dhcp.as_deref().is_some_and(waits)
    }

    /// Does what is due.
    #[inline]
    pub(crate) fn advance_dhcp(&mut self) {
        if self.dhcp.is_some() {
            self.dhcp_timers();
        }
    }

    #[inline(never)]
    fn dhcp_timers(&mut self) {
        let due = |dhcp: &Dhcp, now| dhcp.deadline.min(dhcp.announce_at) <= now;
        while self.dhcp.as_deref().is_some_and(|dhcp| due(dhcp, self.now)) {
            self.with_dhcp(Stack::dhcp_due);
        }
    }

    fn dhcp_due(&mut self, dhcp: &mut Dhcp) {
        let now = self.now;
        if dhcp.announce_at <= now {
            dhcp.announce_at = Instant::FAR_FUTURE;
            if let Some(lease) = &dhcp.lease {
                self.announce_v4(lease.v4());
            }
            return;
        }
        match dhcp.state {
            DhcpState::Init => {
                dhcp.go(DhcpState::Selecting, now);
                (dhcp.transaction, dhcp.began) = (dhcp.draw(&self.keys) as u32, now);
                self.dhcp_send_again(dhcp);
            }
            DhcpState::Requesting if dhcp.attempts >= REQUESTS => {
                dhcp.begin(now, true, Duration::ZERO);
            }
            DhcpState::Selecting | DhcpState::Requesting => self.dhcp_send_again(dhcp),
            DhcpState::Checking => self.dhcp_probe(dhcp),
            DhcpState::Bound => {
                let rebind_at = dhcp.lease.as_ref().and_then(|lease| lease.rebind_at);
                (dhcp.transaction, dhcp.began) = (dhcp.draw(&self.keys) as u32, now);
                dhcp.go(DhcpState::Renewing, rebind_at.unwrap_or(Instant::FAR_FUTURE));
                self.dhcp_renew(dhcp);
            }
            DhcpState::Renewing | DhcpState::Rebinding => self.dhcp_renew(dhcp),
            DhcpState::Released => dhcp.deadline = Instant::FAR_FUTURE,
        }
    }

    fn dhcp_send_again(&mut self, dhcp: &mut Dhcp) {
        let kind = match dhcp.state {
            DhcpState::Selecting => MessageType::Discover,
            _ => MessageType::Request,
        };
        self.dhcp_send(dhcp, kind);
        dhcp.deadline = self.now + dhcp.back_off(&self.keys);
        dhcp.attempts = dhcp.attempts.saturating_add(1);
    }

    /// Asks for more time, or gives up when there is none left.
    fn dhcp_renew(&mut self, dhcp: &mut Dhcp) {
        let now = self.now;
        let times = dhcp.lease.as_ref().and_then(|lease| lease.rebind_at.zip(lease.expires));
        let Some((rebind_at, expires)) = times else {
            dhcp.deadline = Instant::FAR_FUTURE;
            return;
        };
        if now >= expires {
            self.dhcp_unbind(dhcp, false);
            self.counters.dhcp_leases_lost += 1;
            return dhcp.begin(now, false, Duration::ZERO);
        }
        if now >= rebind_at {
            dhcp.state = DhcpState::Rebinding;
        }
        self.dhcp_send(dhcp, MessageType::Request);
        let end = if dhcp.state == DhcpState::Renewing { rebind_at } else { expires };
        dhcp.deadline = dhcp.renew_again(now, end);
    }

    /// The next probe for the address, or its use when nobody objected.
    fn dhcp_probe(&mut self, dhcp: &mut Dhcp) {
        let Some(lease) = &dhcp.lease else { return dhcp.begin(self.now, false, Duration::ZERO) };
        if dhcp.probes_left == 0 {
            return self.dhcp_bind(dhcp);
        }
        let wanted = lease.v4();
        let unset = Ipv4Addr::UNSPECIFIED;
        self.arp_send(arp::Operation::Request, unset, Mac([0; 6]), wanted, Mac::BROADCAST);
        self.counters.arp_requests_sent += 1;
        dhcp.probes_left -= 1;
        let interval = dhcp.config.probe.interval;
        let wait = match dhcp.probes_left {
            0 => interval * 2,
            _ => interval + dhcp.random(&self.keys, interval),
        };
        dhcp.deadline = self.now + wait;
    }

    /// An ARP packet that says or asks something about an address. One that is about the address
    /// that we look for ends the search for another host that has it (RFC 5227 §2.1.1).
    pub(crate) fn dhcp_hears_arp(&mut self, sender_mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) {
        let checking = |dhcp: &Dhcp| match (&dhcp.lease, dhcp.state) {
            (Some(lease), DhcpState::Checking) => Some(lease.v4()),
            _ => None,
        };
        let Some(wanted) = self.dhcp.as_deref().and_then(checking) else { return };
        let probed = sender.is_unspecified() && target == wanted;
        if sender_mac == self.config.mac || (sender != wanted && !probed) {
            return;
        }
        self.counters.address_conflicts += 1;
        self.with_dhcp(Stack::dhcp_decline);
    }

    /// Tells the server that another host has the address, and begins anew (RFC 2131 §3.1.5).
    fn dhcp_decline(&mut self, dhcp: &mut Dhcp) {
        self.dhcp_send(dhcp, MessageType::Decline);
        dhcp.begin(self.now, true, AFTER_CONFLICT);
    }

    /// Takes the address and what came with it into use.
    fn dhcp_bind(&mut self, dhcp: &mut Dhcp) {
        let Some(lease) = dhcp.lease.clone() else { return };
        dhcp.refusals = 0;
        dhcp.go(DhcpState::Bound, lease.renew_at.unwrap_or(Instant::FAR_FUTURE));
        // An address that was configured as well stays as it is, now and when the lease ends.
        dhcp.brought.address |= self.add_address(lease.address).is_ok();
        let mtu = lease.mtu.map_or(dhcp.mtu, |mtu| mtu.min(dhcp.mtu));
        self.change_link_mtu(|stack| stack.config.mtu = mtu);
        for &route in &lease.routes {
            if self.has_route(route) {
                continue;
            }
            // Too many, or by a router that nothing leads to: the others still work.
            match self.add_route(route) {
                Ok(()) => dhcp.brought.routes.push(route),
                Err(_) => self.counters.dhcp_routes_refused += 1,
            }
        }
        self.announce_v4(lease.v4());
        // Two, for one may be lost (RFC 5227 §2.3).
        dhcp.announce_at = self.now + ANNOUNCE_INTERVAL;
        self.counters.dhcp_leases += 1;
    }

    /// Takes the address out of use.
    fn dhcp_unbind(&mut self, dhcp: &mut Dhcp, release: bool) {
        if release {
            self.dhcp_send(dhcp, MessageType::Release);
        }
        dhcp.announce_at = Instant::FAR_FUTURE;
        let Some(lease) = dhcp.lease.take() else { return };
        let brought = core::mem::take(&mut dhcp.brought);
        for route in brought.routes {
            let _ = self.remove_route(route);
        }
        if brought.address {
            let _ = self.remove_address(lease.address.address);
        }
        let mtu = dhcp.mtu;
        self.change_link_mtu(|stack| stack.config.mtu = mtu);
    }

    /// Gives up an address of ours that another host claims and goes on claiming (RFC 5227 §2.4 b),
    /// if it comes from a lease.
    pub(crate) fn dhcp_gives_up(&mut self, address: Ipv4Addr) {
        let leased = |dhcp: &Dhcp| {
            // One that was configured as well is to stay.
            let from_lease = dhcp.in_use() && dhcp.brought.address;
            from_lease && dhcp.lease.as_ref().is_some_and(|lease| lease.v4() == address)
        };
        if !self.dhcp.as_deref().is_some_and(leased) {
            return;
        }
        self.with_dhcp(|stack, dhcp| {
            let lease = dhcp.lease.clone();
            stack.dhcp_unbind(dhcp, false);
            stack.counters.dhcp_leases_lost += 1;
            // It is named in the message, which no more comes from it.
            dhcp.lease = lease;
            dhcp.go(DhcpState::Checking, Instant::FAR_FUTURE);
            stack.dhcp_decline(dhcp);
        });
    }

    /// A datagram from a server's port to a client's: takes the frames.
    pub(crate) fn dhcp_packet(&mut self, frame: Frame, ip: &IpInfo, len: usize) {
        let bytes = &self.arena.bytes(frame)[ip.payload..];
        let message = bytes.get(udp::HEADER_LEN..len).map(Packet::parse);
        let reply = message.and_then(Result::ok).filter(Packet::is_reply);
        let Some((reply, kind)) = reply.and_then(|reply| Some((reply, reply.message_type()?)))
        else {
            self.counters.drop_dhcp_malformed += 1;
            return self.drop_chain(frame);
        };
        let ours = self.dhcp.as_ref().is_some_and(|dhcp| {
            reply.transaction() == dhcp.transaction
                && reply.hardware_address() == self.config.mac
                && dhcp.expects(kind, reply.address_option(option::SERVER_IDENTIFIER))
        });
        if !ours {
            self.counters.drop_dhcp_ignored += 1;
            return self.drop_chain(frame);
        }
        let (address, server) =
            (reply.your_address(), reply.address_option(option::SERVER_IDENTIFIER));
        let lease = Lease::read(&reply, self.now);
        self.drop_chain(frame);
        let mac = ip.mac;
        let mut understood = true;
        self.with_dhcp(|stack, dhcp| match (kind, lease) {
            (MessageType::Offer, _) => match server {
                Some(server) if lease::is_a_hosts(address) => {
                    dhcp.offer = (address, server);
                    dhcp.go(DhcpState::Requesting, stack.now);
                }
                _ => understood = false,
            },
            (MessageType::Ack, Some(lease)) => stack.dhcp_acknowledged(dhcp, lease, mac),
            (MessageType::Nak, _) => {
                stack.counters.dhcp_naks += 1;
                if dhcp.in_use() {
                    stack.dhcp_unbind(dhcp, false);
                    stack.counters.dhcp_leases_lost += 1;
                }
                dhcp.begin(stack.now, true, Duration::ZERO);
            }
            _ => understood = false,
        });
        if !understood {
            self.counters.drop_dhcp_malformed += 1;
        }
        self.advance_dhcp();
    }

    fn dhcp_acknowledged(&mut self, dhcp: &mut Dhcp, lease: Lease, mac: Mac) {
        dhcp.server_mac = mac;
        if !dhcp.in_use() {
            dhcp.lease = Some(lease);
            dhcp.probes_left = dhcp.config.probe.count;
            let wait = match dhcp.probes_left {
                0 => Duration::ZERO,
                _ => dhcp.random(&self.keys, dhcp.config.probe.interval),
            };
            return dhcp.go(DhcpState::Checking, self.now + wait);
        }
        let same = dhcp.lease.as_ref().is_some_and(|old| {
            (old.address, &old.routes, old.mtu) == (lease.address, &lease.routes, lease.mtu)
        });
        if !same {
            let kept = dhcp.lease.as_ref().map(|old| old.address) == Some(lease.address);
            match kept {
                // Only what comes with the address is new, so connections go on.
                true => self.dhcp_reroute(dhcp, &lease),
                false => self.dhcp_unbind(dhcp, false),
            }
            dhcp.lease = Some(lease);
            return self.dhcp_bind(dhcp);
        }
        dhcp.go(DhcpState::Bound, lease.renew_at.unwrap_or(Instant::FAR_FUTURE));
        dhcp.lease = Some(lease);
    }

    /// Takes out what the old lease brought besides the address and the new one does not.
    fn dhcp_reroute(&mut self, dhcp: &mut Dhcp, new: &Lease) {
        dhcp.lease = None;
        dhcp.brought.routes.retain(|route| {
            let stays = new.routes.contains(route);
            if !stays {
                let _ = self.remove_route(*route);
            }
            stays
        });
    }
}

impl Dhcp {
    /// Whether a message fits the state, and comes from the server that was chosen.
    fn expects(&self, kind: MessageType, server: Option<Ipv4Addr>) -> bool {
        match (self.state, kind) {
            (DhcpState::Selecting, MessageType::Offer) => true,
            (DhcpState::Requesting, MessageType::Ack | MessageType::Nak) => {
                server == Some(self.offer.1)
            }
            (DhcpState::Renewing | DhcpState::Rebinding, MessageType::Ack | MessageType::Nak) => {
                true
            }
            _ => false,
        }
    }
}
