/* Spreads UDP to port 80 over four backends by a hash of the flow: rewrites the destination, keeps
 * both checksums right, and redirects to the backend's interface.
 */
#include "packet.h"

struct map SECTION("maps") backends = {MAP_ARRAY, 4, 4, 4, 0};
struct map SECTION("maps") interfaces = {MAP_DEVMAP, 4, 4, 4, 0};

INLINE u32 fold(u64 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

SECTION("xdp") int balancer(struct xdp_md *ctx)
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
    if (!udp || ip->protocol != 17 || (void *)(udp + 1) > end || udp->dport != htons(80))
        return XDP_PASS;

    u32 hash = (ntohl(ip->src) ^ ntohs(udp->sport)) * 0x9e3779b1u;
    u32 index = hash >> 30;
    u32 *backend = map_lookup(&backends, &index);
    if (!backend)
        return XDP_PASS;
    u32 new = *backend, old = ip->dst;
    ip->dst = new;
    u64 change = (u64)old + (u32)~new;
    u32 sum = fold(ip->checksum + change);
    ip->checksum = sum + ((sum + 1) >> 16);
    if (udp->checksum) {
        sum = fold(udp->checksum + change);
        udp->checksum = sum + (sum >> 16);
    }
    return redirect_map(&interfaces, index, XDP_PASS);
}
