/* Counts frames by destination port, of UDP and TCP over IPv4 and IPv6. */
#include "packet.h"

struct map SECTION("maps") counts = {MAP_PERCPU_ARRAY, 4, 8, 65536, 0};

SECTION("xdp") int ports(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    u16 type;
    void *at = network_header(data, end, &type), *transport;
    u8 protocol;
    if (!at)
        return XDP_PASS;
    if (type == htons(0x0800)) {
        struct ipv4 *ip = ipv4_header(at, end);
        if (!ip)
            return XDP_PASS;
        transport = ipv4_payload(ip);
        if (!transport)
            return XDP_PASS;
        protocol = ip->protocol;
    } else if (type == htons(0x86dd)) {
        struct ipv6 *ip = ipv6_header(at, end);
        if (!ip)
            return XDP_PASS;
        transport = ip + 1;
        protocol = ip->next_header;
    } else {
        return XDP_PASS;
    }
    u32 port;
    if (protocol == 17) {
        struct udp *udp = transport;
        if ((void *)(udp + 1) > end)
            return XDP_PASS;
        port = ntohs(udp->dport);
    } else if (protocol == 6) {
        struct tcp *tcp = transport;
        if ((void *)(tcp + 1) > end)
            return XDP_PASS;
        port = ntohs(tcp->dport);
    } else {
        return XDP_PASS;
    }
    u64 *count = map_lookup(&counts, &port);
    if (count)
        *count += 1;
    return XDP_PASS;
}
