/* Sends UDP to port 7 back to where it came from, with a new time to live. */
#include "packet.h"

SECTION("xdp") int reflector(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    u16 type;
    void *at = network_header(data, end, &type);
    if (!at || type != htons(0x0800))
        return XDP_PASS;
    struct ipv4 *ip = ipv4_header(at, end);
    if (!ip)
        return XDP_PASS;
    struct udp *udp = ipv4_payload(ip);
    if (!udp || ip->protocol != 17 || (void *)(udp + 1) > end || udp->dport != htons(7))
        return XDP_PASS;

    struct ethernet *eth = data;
    u16 *dst = (u16 *)eth->dst, *src = (u16 *)eth->src, mac[3] = {dst[0], dst[1], dst[2]};
    dst[0] = src[0], dst[1] = src[1], dst[2] = src[2];
    src[0] = mac[0], src[1] = mac[1], src[2] = mac[2];
    /* What changes places changes no sum. */
    u32 address = ip->src;
    ip->src = ip->dst;
    ip->dst = address;
    u16 port = udp->sport;
    udp->sport = udp->dport;
    udp->dport = port;
    /* RFC 1624; the first byte of a word counts for one in a little-endian load. */
    u32 sum = ip->checksum + ip->ttl + (0xff - 64) + 0xff00;
    ip->ttl = 64;
    sum = (sum & 0xffff) + (sum >> 16);
    ip->checksum = sum + ((sum + 1) >> 16);
    return XDP_TX;
}
