/* Drops frames whose IPv4 source has a prefix that is listed, and counts them by the prefix. */
#include "packet.h"

struct prefix {
    u32 length, address;
};

struct map SECTION("maps") blocked = {MAP_LPM_TRIE, 8, 8, 1024, 1};

SECTION("xdp") int blocklist(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    u16 type;
    void *at = network_header(data, end, &type);
    if (!at || type != htons(0x0800))
        return XDP_PASS;
    struct ipv4 *ip = ipv4_header(at, end);
    if (!ip)
        return XDP_PASS;
    struct prefix key = {32, ip->src};
    u64 *count = map_lookup(&blocked, &key);
    if (!count)
        return XDP_PASS;
    __sync_fetch_and_add(count, 1);
    return XDP_DROP;
}
