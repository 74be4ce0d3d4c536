//! What the client says to servers (RFC 2131 §4.4, RFC 2132).

use core::net::{IpAddr, Ipv4Addr};

use millrace_wire::dhcpv4::{
    CLIENT_PORT, Header, MAX_LEN, MessageType, SERVER_PORT, Writer, option,
};
use millrace_wire::mac::Mac;
use millrace_wire::{checksum, ipv4, protocol, udp};

use super::{Dhcp, DhcpState, Lease};
use crate::Stack;
use crate::control::{Hop, L4};

impl Stack {
    /// Sends a message of the client's, of the state that it is in (RFC 2131 §4.4, table 5).
    pub(super) fn dhcp_send(&mut self, dhcp: &Dhcp, kind: MessageType) {
        let bound = dhcp.lease.as_ref().filter(|_| dhcp.in_use());
        let own = bound.map_or(Ipv4Addr::UNSPECIFIED, Lease::v4);
        let unicast =
            bound.filter(|_| dhcp.state != DhcpState::Rebinding).map(|lease| lease.server);
        let destination = unicast.unwrap_or(Ipv4Addr::BROADCAST);
        let hop = match (unicast, kind) {
            (None, _) => Hop::Mac(Mac::BROADCAST),
            // Nobody waits for the answer to a question any more.
            (Some(_), MessageType::Release) => Hop::Mac(dhcp.server_mac),
            (Some(server), _) => match self.addresses.route(IpAddr::V4(server)) {
                Some(path) => Hop::Address(path.next_hop),
                None => Hop::Mac(dhcp.server_mac),
            },
        };
        let Some(frame) = self.control_frame() else { return };
        let mac = self.config.mac;
        let seconds = (self.now - dhcp.began).as_secs().min(u64::from(u16::MAX)) as u16;
        let room = &mut self.control_room(frame)[L4..];
        let header = Header {
            reply: false,
            transaction: dhcp.transaction,
            seconds,
            // Before there is an address, nobody can be asked for the way to it.
            broadcast: bound.is_none() && kind != MessageType::Decline,
            client_address: own,
            your_address: Ipv4Addr::UNSPECIFIED,
            hardware_address: mac,
        };
        let body = &mut room[udp::HEADER_LEN..udp::HEADER_LEN + MAX_LEN];
        let mut writer = Writer::new(body, header, kind);
        dhcp.options(&mut writer, kind, mac);
        let len = udp::HEADER_LEN + writer.finish();
        udp::emit(room, CLIENT_PORT, SERVER_PORT, len - udp::HEADER_LEN);
        let sum = checksum::sum(&room[udp::HEADER_LEN..len]);
        let pseudo = checksum::pseudo_v4(own, destination, protocol::UDP, len);
        udp::fill_checksum(room, pseudo, sum);
        let ip = ipv4::Header {
            source: own,
            destination,
            protocol: protocol::UDP,
            ttl: 64,
            tos: 0,
            identification: 0,
            dont_fragment: true,
        };
        self.control_header(frame, ip, len);
        self.counters.dhcp_messages_out += 1;
        self.control_packet(frame, L4 + len, hop);
    }
}

impl Dhcp {
    fn options(&self, writer: &mut Writer<'_>, kind: MessageType, mac: Mac) {
        // Hardware type and address: what servers take for the client anyway (RFC 2132 §9.14).
        let mut identifier = [1; 7];
        identifier[1..].copy_from_slice(&mac.0);
        writer.option(option::CLIENT_IDENTIFIER, &identifier);
        let lease = self.lease.as_ref();
        match kind {
            MessageType::Discover => {
                if let Some(address) = self.config.requested_address {
                    writer.option(option::REQUESTED_ADDRESS, &address.octets());
                }
            }
            MessageType::Request if self.state == DhcpState::Requesting => {
                writer.option(option::REQUESTED_ADDRESS, &self.offer.0.octets());
                writer.option(option::SERVER_IDENTIFIER, &self.offer.1.octets());
            }
            MessageType::Decline => {
                let (address, server) =
                    lease.map_or(self.offer, |lease| (lease.v4(), lease.server));
                writer.option(option::REQUESTED_ADDRESS, &address.octets());
                writer.option(option::SERVER_IDENTIFIER, &server.octets());
            }
            MessageType::Release => {
                let server = lease.map_or(self.offer.1, |lease| lease.server);
                writer.option(option::SERVER_IDENTIFIER, &server.octets());
            }
            _ => {}
        }
        if !matches!(kind, MessageType::Discover | MessageType::Request) {
            return;
        }
        let most = MAX_LEN as u16 + (ipv4::HEADER_LEN + udp::HEADER_LEN) as u16;
        writer.option(option::MAX_MESSAGE_SIZE, &most.to_be_bytes());
        if let Some(name) = &self.config.host_name {
            writer.option(option::HOST_NAME, name.as_bytes());
        }
        let wanted = [
            option::SUBNET_MASK,
            // Before the routers, which it replaces (RFC 3442).
            option::CLASSLESS_ROUTES,
            option::ROUTER,
            option::DOMAIN_NAME_SERVER,
            option::DOMAIN_NAME,
            option::DOMAIN_SEARCH,
            option::INTERFACE_MTU,
            option::LEASE_TIME,
            option::RENEWAL_TIME,
            option::REBINDING_TIME,
        ];
        writer.option(option::PARAMETER_LIST, &wanted);
    }
}
