/* Counts DNS queries by source and second, and drops what is beyond 100 of them. */
#include "packet.h"

struct client {
    u32 address, second;
};

struct map SECTION("maps") queries = {MAP_LRU_HASH, 8, 8, 16384, 0};

SECTION("xdp") int dns_rate(struct xdp_md *ctx)
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
    if (!udp || ip->protocol != 17 || (void *)(udp + 1) > end || udp->dport != htons(53))
        return XDP_PASS;
    struct client key = {ip->src, ktime_get_ns() / 1000000000};
    u64 *count = map_lookup(&queries, &key);
    if (!count) {
        u64 zero = 0;
        map_update(&queries, &key, &zero, NOEXIST);
        count = map_lookup(&queries, &key);
        if (!count)
            return XDP_PASS;
    }
    __sync_fetch_and_add(count, 1);
    return *count > 100 ? XDP_DROP : XDP_PASS;
}
