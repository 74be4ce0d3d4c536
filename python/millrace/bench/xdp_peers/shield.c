/* Drops UDP to port 9 and counts it by source. */
#include "packet.h"

struct map SECTION("maps") dropped = {MAP_HASH, 4, 8, 1024, 0};

SECTION("xdp") int shield(struct xdp_md *ctx)
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
    if (!udp || ip->protocol != 17 || (void *)(udp + 1) > end || udp->dport != htons(9))
        return XDP_PASS;
    u32 key = ip->src;
    u64 *count = map_lookup(&dropped, &key);
    if (!count) {
        u64 zero = 0;
        map_update(&dropped, &key, &zero, NOEXIST);
        count = map_lookup(&dropped, &key);
    }
    if (count)
        __sync_fetch_and_add(count, 1);
    return XDP_DROP;
}
