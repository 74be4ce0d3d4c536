/* What the peers in C share: the layouts of headers, and a parser that takes and refuses the same
 * frames as Millrace's: up to two VLAN tags, IPv4 with options, IPv6 without extension headers, and
 * no transport header in a later fragment. Only clang is needed, no header of the system.
 */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT };
enum { MAP_HASH = 1, MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6, MAP_LRU_HASH = 9, MAP_LPM_TRIE = 11, MAP_DEVMAP = 14 };
enum { ANY = 0, NOEXIST = 1 };

struct xdp_md {
    u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

struct map {
    u32 type, key_size, value_size, max_entries, flags;
};

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static u64 (*const ktime_get_ns)(void) = (void *)5;
static long (*const redirect_map)(void *map, u32 key, u64 flags) = (void *)51;

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define htons(x) ((u16)__builtin_bswap16(x))
#define ntohs(x) ((u16)__builtin_bswap16(x))
#define ntohl(x) ((u32)__builtin_bswap32(x))

struct ethernet {
    u8 dst[6], src[6];
    u16 ethertype;
};

struct vlan {
    u16 tci, ethertype;
};

struct ipv4 {
    u8 ihl : 4, version : 4;
    u8 tos;
    u16 total_length, id, fragment;
    u8 ttl, protocol;
    u16 checksum;
    u32 src, dst;
};

struct ipv6 {
    u32 first;
    u16 payload_length;
    u8 next_header, hop_limit;
    u32 src[4], dst[4];
};

struct udp {
    u16 sport, dport, length, checksum;
};

struct tcp {
    u16 sport, dport;
    u32 seq, ack;
    u16 flags, window, checksum, urgent;
};

/* Where the network header starts, or 0; `type` receives the EtherType behind the tags. */
INLINE void *network_header(void *data, void *end, u16 *type)
{
    struct ethernet *eth = data;
    if ((void *)(eth + 1) > end)
        return 0;
    void *at = eth + 1;
    u16 found = eth->ethertype;
#pragma unroll
    for (int tag = 0; tag < 2; tag++) {
        if (found != htons(0x8100) && found != htons(0x88a8))
            break;
        struct vlan *vlan = at;
        if ((void *)(vlan + 1) > end)
            return 0;
        found = vlan->ethertype;
        at = vlan + 1;
    }
    *type = found;
    return at;
}

INLINE struct ipv4 *ipv4_header(void *at, void *end)
{
    struct ipv4 *ip = at;
    if ((void *)(ip + 1) > end)
        return 0;
    u8 first = *(u8 *)ip;
    return first < 0x45 || first > 0x4f ? 0 : ip;
}

INLINE struct ipv6 *ipv6_header(void *at, void *end)
{
    struct ipv6 *ip = at;
    if ((void *)(ip + 1) > end || (*(u8 *)ip & 0xf0) != 0x60)
        return 0;
    return ip;
}

/* What is behind an IPv4 header, or 0 in a later fragment. */
INLINE void *ipv4_payload(struct ipv4 *ip)
{
    if (ip->fragment & htons(0x1fff))
        return 0;
    return (void *)ip + ip->ihl * 4;
}
