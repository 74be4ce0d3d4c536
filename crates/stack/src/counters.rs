//! What a stack counts: every drop by its reason, and what tells whether it is well.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counters since the stack was made. A dropped packet raises exactly one that begins with
        /// `drop_`.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Counters {
            /// Names and values, in the order of declaration.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Packets handed in.
    packets_in,
    /// Packets handed out.
    packets_out,
    /// TCP segments taken by a connection or a listener.
    segments_in,
    /// TCP segments handed out.
    segments_out,
    /// TCP segments handed out again.
    segments_retransmitted,
    /// Lost segments that left again as a part of the one before them.
    retransmissions_coalesced,
    /// Retransmission timeouts.
    retransmission_timeouts,
    /// Fast retransmissions begun.
    fast_retransmits,
    /// Tail loss probes sent (RFC 8985).
    tail_loss_probes,
    /// Windows reduced without anything to send again: congestion marks, and losses that a probe
    /// repaired.
    congestion_reductions,
    /// Reductions taken back because nothing was lost.
    reductions_undone,
    /// Retransmission timeouts that F-RTO found to be needless (RFC 5682).
    spurious_timeouts,
    /// Packets of connections with ECN that came with a Congestion Experienced mark.
    ce_received,
    /// Connections that agreed on ECN (RFC 3168).
    ecn_connections,
    /// Connections that agreed on Accurate ECN (RFC 9768).
    accurate_ecn_connections,
    /// SYNs and SYN-ACKs sent again without the ECN bits of the first.
    ecn_fallbacks,
    /// Connections whose path changes ECN bits as it must not (RFC 9768 §3.2.2.3, §3.2.2.4): they
    /// send nothing ECN-capable any more.
    ecn_mangled,
    /// Duplicates that peers reported (RFC 2883).
    dsacks_received,
    /// SACK blocks that make no sense, such as of what was never sent.
    sack_blocks_refused,
    /// Peers that threw away what they had acknowledged selectively.
    sack_reneged,
    /// How often the memory came under pressure ([`crate::MemoryState`])...
    memory_pressures,
    /// ...for how many nanoseconds in all, as far as it has ended...
    memory_pressure_nanoseconds,
    /// ...and how often it was used up.
    memory_highs,
    /// Connections given up for their frames, for their peers took nothing while the memory was used
    /// up.
    memory_reclaimed,
    /// Writes that were refused a frame.
    writes_starved,
    /// Windows that were taken back, for there was no frame for what came.
    windows_taken_back,
    /// Zero-window probes sent.
    window_probes,
    /// Receive buffers that grew with what their connection moves.
    receive_buffers_grown,
    /// Path MTUs that a router's report made smaller.
    path_mtu_reductions,
    /// Reports of a path MTU that is not below what is in use, or below the least of IPv6 (RFC 8201
    /// §4).
    path_mtu_ignored,
    /// Connections that made their segments smaller because full ones vanished (RFC 4821).
    path_mtu_black_holes,
    /// Larger segments sent to see whether the path takes them.
    path_mtu_probes,
    /// Those that did arrive.
    path_mtu_increases,
    /// User timeouts that peers told (RFC 5482).
    user_timeouts_received,
    /// Keepalive probes sent.
    keepalive_probes,
    /// Acknowledgements that the delay timer sent.
    delayed_acks,
    /// Segments that came out of order and were kept.
    out_of_order,
    /// Segments that carried only what had been received.
    duplicates,
    /// Segments without the timestamp that was agreed on.
    timestamps_missing,
    /// Duplicates that were reported to the peer (RFC 2883).
    duplicates_reported,
    /// Connections opened from here and established.
    connections_opened,
    /// Connections opened by a peer and established.
    connections_accepted,
    /// Connections that ended by a reset from the peer.
    connections_reset,
    /// Connections given up after too many retransmissions.
    connections_timed_out,
    /// Resets sent.
    resets_sent,
    /// Challenge acknowledgements sent (RFC 5961).
    challenge_acks,
    /// Answers to wrong segments that were left out, for the connection had just sent one.
    acks_suppressed,
    /// SYNs that were answered with a cookie (RFC 4987).
    syn_cookies_sent,
    /// Connections made from a cookie that came back.
    syn_cookies_accepted,
    /// Acknowledgements with a wrong or outdated cookie.
    syn_cookies_wrong,
    /// Connections opened from here whose SYN carried data that the server took (RFC 7413)...
    fast_open_active,
    /// ...and whose data it did not take.
    fast_open_active_failed,
    /// SYNs without data, for such with data were lost on the way to that server.
    fast_open_black_holes,
    /// Connections that a SYN opened at once.
    fast_open_passive,
    /// SYNs that asked for a cookie.
    fast_open_cookies_asked,
    /// SYNs with a wrong cookie.
    fast_open_cookies_wrong,
    /// SYNs that would have opened a connection, but the listener had its most early ones.
    fast_open_overflow,
    /// Half-open connections that made way for a new one.
    half_open_evicted,
    /// Connections that were reset when their application closed them, for too many others went on
    /// without one.
    orphans_reset,
    /// Closed connections in FIN-WAIT-2 that made way before their time.
    fin_wait_2_recycled,
    /// TIME-WAIT entries that made way before their time.
    time_wait_recycled,
    /// TIME-WAIT entries that a new SYN or connect took over.
    time_wait_reused,
    /// Datagrams handed to sockets.
    datagrams_in,
    /// Datagrams sent.
    datagrams_out,
    /// Fragments taken for reassembly.
    fragments_in,
    /// Datagrams that were put together from fragments.
    datagrams_reassembled,
    /// Fragments sent.
    fragments_out,
    /// Datagrams that were sent in fragments.
    datagrams_fragmented,
    /// Queries of multicast routers that were taken.
    multicast_queries,
    /// Multicast reports sent.
    multicast_reports,
    /// DHCP messages sent.
    dhcp_messages_out,
    /// Addresses taken into use from DHCP servers.
    dhcp_leases,
    /// Addresses lost because a lease ended, a server said so, or another host claimed them.
    dhcp_leases_lost,
    /// Routes of leases that could not be taken: the table is full, or nothing leads to their router.
    dhcp_routes_refused,
    /// Refusals of DHCP servers.
    dhcp_naks,
    /// Echo requests answered.
    echo_replies,
    /// ICMP errors sent.
    icmp_errors_sent,
    /// ICMP errors about a connection that is open, which goes on until its own timers end it
    /// (RFC 5461).
    icmp_errors_soft,
    /// ICMP errors that belonged to a live connection, a connected socket, or a datagram that was too
    /// big for its path.
    icmp_errors_taken,
    /// ARP requests sent.
    arp_requests_sent,
    /// ARP replies sent.
    arp_replies_sent,
    /// Neighbour solicitations sent, those of duplicate address detection among them.
    neighbour_solicitations_sent,
    /// Neighbour advertisements sent.
    neighbour_advertisements_sent,
    /// Router solicitations sent.
    router_solicitations_sent,
    /// Router advertisements taken.
    router_advertisements,
    /// Redirects taken.
    redirects_taken,
    /// Routes that a router advertised beyond the most that are kept: they, or one of a router that
    /// had told more, were let go.
    learned_routes_refused,
    /// Prefixes that a router advertised beyond the most that addresses are made from: they, or one
    /// of a router that had told more, were let go.
    learned_prefixes_refused,
    /// Name servers and search domains that a router advertised beyond the most that are kept: they, or
    /// one of a router that had told more, were let go.
    learned_name_servers_refused,
    /// Addresses of ours that another host was found to have (RFC 4862).
    duplicate_addresses,
    /// ARP packets and neighbour advertisements that claim our own address for another hardware
    /// address (RFC 5227).
    address_conflicts,
    /// Ethernet header incomplete.
    drop_ethernet_malformed,
    /// Ethernet frame for another host.
    drop_ethernet_not_ours,
    /// Ether type that nobody here speaks.
    drop_ether_type,
    /// VLAN tag: the stack is on no VLAN.
    drop_vlan,
    /// ARP packet malformed.
    drop_arp_malformed,
    /// ARP packet that is no business of ours.
    drop_arp_not_ours,
    /// IP header malformed.
    drop_ip_malformed,
    /// IP header checksum wrong.
    drop_ip_checksum,
    /// IP destination is not ours.
    drop_ip_not_ours,
    /// IPv4 source route (RFC 7126 §4.3.5).
    drop_ip_source_route,
    /// IP source that no host may use (multicast, broadcast, loopback, unspecified).
    drop_ip_source,
    /// Fragment that is empty, cut within eight bytes, too small to name its ports, or that would
    /// make a datagram of more than 65,535 bytes.
    drop_fragment_malformed,
    /// Fragment that overlaps another (RFC 5722) or contradicts its datagram's length, with all
    /// others of the datagram.
    drop_fragment_overlap,
    /// Fragment that had come before.
    drop_fragment_duplicate,
    /// Fragment of a datagram that made way for others, or that has more frames than one may.
    drop_fragment_bound,
    /// Fragment of a datagram that was not whole in time.
    drop_fragment_timeout,
    /// Fragment of a datagram whose fragments disagree about ECN (RFC 3168 §5.3).
    drop_fragment_ecn,
    /// IPv6, and the stack has no IPv6 address.
    drop_ipv6,
    /// IPv6 extension headers malformed, beyond the limits, or with what must be refused.
    drop_ip_extension,
    /// IP protocol that nobody here speaks.
    drop_ip_protocol,
    /// Packet to a multicast group that nobody here listens to.
    drop_multicast_not_joined,
    /// IGMP message malformed or its checksum wrong.
    drop_igmp_malformed,
    /// IGMP message that is no business of ours, or a query that no router on the link sent.
    drop_igmp_ignored,
    /// Message of neighbour discovery malformed, or not from the link.
    drop_ndp_malformed,
    /// Message of neighbour discovery in a fragment (RFC 6980).
    drop_ndp_fragment,
    /// Message of neighbour discovery that is no business of ours.
    drop_ndp_not_ours,
    /// MLD message malformed.
    drop_mld_malformed,
    /// MLD message that is no business of ours, or a query that no router on the link sent.
    drop_mld_ignored,
    /// ICMP message malformed or its checksum wrong.
    drop_icmp_malformed,
    /// ICMP message of a type that is ignored.
    drop_icmp_ignored,
    /// ICMP error that quotes no live connection, a sequence number never sent, or no datagram of ours
    /// that it could be about.
    drop_icmp_unrelated,
    /// ICMP redirect that is not followed: they are switched off, it is not by the router that packets
    /// to there go to, the host has a route of its own, it leads to no other router on the link, or there
    /// is no room for it.
    drop_icmp_redirect,
    /// UDP header malformed.
    drop_udp_malformed,
    /// UDP checksum wrong.
    drop_udp_checksum,
    /// No socket has the UDP port.
    drop_udp_no_socket,
    /// The socket's receive queue is full.
    drop_udp_queue_full,
    /// A datagram came while its socket held its share of the frames, or the arena was down to half
    /// of the reserve.
    drop_udp_no_frame,
    /// DHCP message malformed, or what it gives makes no sense.
    drop_dhcp_malformed,
    /// DHCP message that is not for us, or that nobody asked for.
    drop_dhcp_ignored,
    /// TCP header malformed.
    drop_tcp_malformed,
    /// TCP options malformed.
    drop_tcp_options,
    /// TCP checksum wrong.
    drop_tcp_checksum,
    /// TCP to a broadcast or multicast address.
    drop_tcp_not_unicast,
    /// No connection and no listener takes the segment.
    drop_tcp_no_connection,
    /// Outside the receive window.
    drop_tcp_outside_window,
    /// Its timestamp is older than what came before (RFC 7323 §5).
    drop_tcp_paws,
    /// Acknowledges what was never sent.
    drop_tcp_bad_ack,
    /// No ACK flag where one is due.
    drop_tcp_no_ack,
    /// A reset or SYN that RFC 5961 does not believe.
    drop_tcp_challenged,
    /// A reset of a connection in TIME-WAIT (RFC 1337).
    drop_tcp_time_wait_reset,
    /// Carried nothing new.
    drop_tcp_duplicate,
    /// Payload behind the peer's FIN.
    drop_tcp_after_fin,
    /// The out-of-order queue is full, or holds its share of the frames, or the arena is down to
    /// the reserve.
    drop_tcp_out_of_order_full,
    /// The receive queue holds its share of the frames, or the arena is down to half of the reserve.
    drop_tcp_receive_queue_full,
    /// The listener has its most half-open connections.
    drop_listen_syn_queue_full,
    /// A SYN that would have got a cookie, but more arrived than the stack could take, and nothing
    /// was known of its sender.
    drop_listen_behind,
    /// The listener has its most connections that nobody accepted.
    drop_listen_accept_queue_full,
    /// The connection table is full.
    drop_no_connection_entry,
    /// A reset was due, but too many were sent in this second.
    drop_reset_rate,
    /// An ICMP message was due, but too many were sent in this second.
    drop_icmp_rate,
    /// A challenge acknowledgement was due, but too many were sent in this second.
    drop_challenge_rate,
    /// No frame was free for a packet of our own.
    drop_no_frame,
    /// Too many packets of our own wait to be sent.
    drop_control_queue_full,
    /// The route to where a packet was to go is gone.
    drop_no_route,
    /// Too many packets wait for one neighbour.
    drop_neighbour_queue_full,
    /// The neighbour did not answer.
    drop_neighbour_unreachable,
    /// The neighbour cache is full of unanswered requests.
    drop_neighbour_cache_full,
}

impl Counters {
    /// Sum of all drops.
    pub fn dropped(&self) -> u64 {
        self.iter().filter(|(name, _)| name.starts_with("drop_")).map(|(_, value)| value).sum()
    }
}
