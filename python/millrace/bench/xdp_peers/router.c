/* Decrements the time to live of IPv4 and the hop limit of IPv6; what has run out goes to Linux. */
#include "packet.h"

struct map SECTION("maps") expired = {MAP_PERCPU_ARRAY, 4, 8, 1, 0};

SECTION("xdp") int router(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    u16 type;
    void *at = network_header(data, end, &type);
    if (!at)
        return XDP_PASS;
    if (type == htons(0x0800)) {
        struct ipv4 *ip = ipv4_header(at, end);
        if (!ip)
            return XDP_PASS;
        if (ip->ttl <= 1)
            goto late;
        ip->ttl--;
        u32 sum = ip->checksum + 1;
        ip->checksum = sum + ((sum + 1) >> 16);
        return XDP_TX;
    }
    if (type == htons(0x86dd)) {
        struct ipv6 *ip = ipv6_header(at, end);
        if (!ip)
            return XDP_PASS;
        if (ip->hop_limit <= 1)
            goto late;
        ip->hop_limit--;
        return XDP_TX;
    }
    return XDP_PASS;
late:;
    u32 zero = 0;
    u64 *count = map_lookup(&expired, &zero);
    if (count)
        *count += 1;
    return XDP_PASS;
}
