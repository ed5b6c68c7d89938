/* What a file contains: what is seen, and what a power loss leaves of it. */
#include "io/io_sim_inode.h"

#include <stdlib.h>
#include <string.h>

#define SECTOR_SIZE ((uint32_t)512)
#define PAGE_SECTORS (PAGE_SIZE / SECTOR_SIZE)

/* The sequence of what a failed sync gave up: no later sync covers it. */
#define GIVEN_UP UINT64_MAX

static const uint8_t zeros[PAGE_SIZE];

/* A page that is not all durable. */
struct dirty {
    struct list_node node; /* of its inode */
    uint64_t page;
    uint8_t mask;                 /* sectors */
    uint64_t first[PAGE_SECTORS]; /* the disk's sequence of the first write since it was durable */
    uint8_t old[PAGE_SIZE];
};

struct sim_page {
    uint8_t *now; /* NULL: zeros */
    struct dirty *dirty;
};

/* How a crash treats something that was not synced. */
enum fate { FATE_OLD, FATE_NEW, FATE_PREFIX, FATE_MIXED, FATE_COUNT };

/* ---- pages ---- */

static struct sim_page *page_at(struct sim_inode *inode, uint64_t number)
{
    if (number >= inode->page_count) {
        uint64_t count = max_u64(number + 1, inode->page_count + inode->page_count / 2);
        inode->pages = realloc(inode->pages, count * sizeof *inode->pages);
        assert(inode->pages != NULL);
        memset(inode->pages + inode->page_count, 0,
               (count - inode->page_count) * sizeof *inode->pages);
        inode->page_count = count;
    }
    return &inode->pages[number];
}

static uint8_t *page_bytes(struct sim_page *page)
{
    if (page->now == NULL)
        page->now = sim_allocate(PAGE_SIZE);
    return page->now;
}

static struct dirty *page_dirty(struct sim_inode *inode, struct sim_page *page, uint64_t number)
{
    if (page->dirty == NULL) {
        page->dirty = sim_allocate(sizeof *page->dirty);
        page->dirty->page = number;
        memcpy(page->dirty->old, page_bytes(page), PAGE_SIZE);
        list_push_back(&inode->dirty, &page->dirty->node);
    }
    return page->dirty;
}

static void page_clean(struct sim_page *page)
{
    list_remove(&page->dirty->node);
    free(page->dirty);
    page->dirty = NULL;
}

/* The sectors that a range of a page touches, and those that it covers. */
static uint8_t sectors_touched(uint32_t from, uint32_t to)
{
    uint32_t first = from / SECTOR_SIZE;
    uint32_t end = (to + SECTOR_SIZE - 1) / SECTOR_SIZE;
    return (uint8_t)((1u << end) - (1u << first));
}

static uint8_t sectors_covered(uint32_t from, uint32_t to)
{
    uint32_t first = (from + SECTOR_SIZE - 1) / SECTOR_SIZE;
    uint32_t end = to / SECTOR_SIZE;
    return first < end ? (uint8_t)((1u << end) - (1u << first)) : 0;
}

static void page_write_durable(struct sim_page *page, const uint8_t *data, uint32_t from,
                               uint32_t to)
{
    memcpy(page_bytes(page) + from, data, to - from);
    if (page->dirty == NULL)
        return;
    memcpy(page->dirty->old + from, data, to - from);
    page->dirty->mask &= (uint8_t)~sectors_covered(from, to);
    if (page->dirty->mask == 0)
        page_clean(page);
}

static void page_write_seen(struct sim_inode *inode, struct sim_page *page, uint64_t number,
                            const uint8_t *data, uint32_t from, uint32_t to, uint64_t sequence)
{
    struct dirty *dirty = page_dirty(inode, page, number);
    uint8_t touched = sectors_touched(from, to);
    for (uint32_t i = 0; i < PAGE_SECTORS; i++) {
        if (!(touched & 1u << i))
            continue;
        if (!(dirty->mask & 1u << i) || dirty->first[i] == GIVEN_UP)
            dirty->first[i] = sequence;
    }
    dirty->mask |= touched;
    memcpy(page->now + from, data, to - from);
}

/* ---- reading and writing ---- */

void inode_read(const struct sim_inode *inode, void *buffer, uint64_t size, uint64_t offset)
{
    uint8_t *to = buffer;
    while (size > 0) {
        uint64_t number = offset / PAGE_SIZE;
        uint64_t within = offset % PAGE_SIZE;
        uint64_t part = min_u64(size, PAGE_SIZE - within);
        const uint8_t *now = number < inode->page_count ? inode->pages[number].now : NULL;
        memcpy(to, (now != NULL ? now : zeros) + within, part);
        to += part;
        offset += part;
        size -= part;
    }
}

static void note_size(struct sim_inode *inode, uint64_t sequence)
{
    if (inode->size_changed == 0)
        inode->size_changed = sequence;
}

/* Changes bytes, not sizes. */
static void write_bytes(struct sim_inode *inode, const uint8_t *from, uint64_t size,
                        uint64_t offset, uint64_t sequence, bool is_durable)
{
    for (uint64_t end = offset + size; offset < end;) {
        uint64_t number = offset / PAGE_SIZE;
        uint32_t within = (uint32_t)(offset % PAGE_SIZE);
        uint32_t part = (uint32_t)min_u64(end - offset, PAGE_SIZE - within);
        struct sim_page *page = page_at(inode, number);
        if (page->now == NULL && memcmp(from, zeros, part) == 0)
            ; /* zeros over zeros change nothing */
        else if (is_durable)
            page_write_durable(page, from, within, within + part);
        else
            page_write_seen(inode, page, number, from, within, within + part, sequence);
        from += part;
        offset += part;
    }
}

void inode_write(struct sim_inode *inode, const void *buffer, uint64_t size, uint64_t offset,
                 uint64_t sequence, bool is_durable)
{
    uint64_t end = offset + size;
    write_bytes(inode, buffer, size, offset, sequence, is_durable);
    if (end > inode->size && !is_durable)
        note_size(inode, sequence);
    inode->size = max_u64(inode->size, end);
    if (is_durable)
        inode->size_durable = max_u64(inode->size_durable, end);
    inode->reserved = max_u64(inode->reserved, round_up(end, PAGE_SIZE));
}

static void zero_beyond(struct sim_inode *inode, uint64_t size, uint64_t sequence, bool is_durable)
{
    uint64_t end = inode->page_count * PAGE_SIZE;
    for (uint64_t at = size, part; at < end; at += part) {
        part = PAGE_SIZE - at % PAGE_SIZE;
        write_bytes(inode, zeros, part, at, sequence, is_durable);
    }
}

void inode_resize(struct sim_inode *inode, uint64_t size, uint64_t sequence)
{
    if (size < inode->size)
        zero_beyond(inode, size, sequence, false);
    if (size != inode->size)
        note_size(inode, sequence);
    inode->size = size;
    inode->reserved = round_up(size, PAGE_SIZE);
}

/* ---- syncing ---- */

void inode_sync(struct sim *sim, struct sim_inode *inode, uint64_t sequence)
{
    for (struct list_node *node = list_first(&inode->dirty), *next; node != NULL; node = next) {
        next = list_next(&inode->dirty, node);
        struct dirty *dirty = container_of(node, struct dirty, node);
        struct sim_page *page = &inode->pages[dirty->page];
        for (uint32_t i = 0; i < PAGE_SECTORS; i++) {
            if (!(dirty->mask & 1u << i) || dirty->first[i] == GIVEN_UP)
                continue;
            if (dirty->first[i] > sequence && sim_below(sim, 2) == 0)
                continue;
            memcpy(dirty->old + i * SECTOR_SIZE, page->now + i * SECTOR_SIZE, SECTOR_SIZE);
            dirty->mask &= (uint8_t) ~(1u << i);
        }
        if (dirty->mask == 0)
            page_clean(page);
    }
    if (inode->size_changed <= sequence) {
        inode->size_durable = inode->size;
        inode->size_changed = 0;
    }
}

static void give_up(struct dirty *dirty)
{
    for (uint32_t i = 0; i < PAGE_SECTORS; i++)
        dirty->first[i] = GIVEN_UP;
}

/* The device lost some of what it had taken, and still has the rest. */
static void lose_some(struct sim *sim, struct sim_page *page)
{
    struct dirty *dirty = page->dirty;
    for (uint32_t i = 0; i < PAGE_SECTORS; i++) {
        if (!(dirty->mask & 1u << i) || sim_below(sim, 2) == 0)
            continue;
        memcpy(page->now + i * SECTOR_SIZE, dirty->old + i * SECTOR_SIZE, SECTOR_SIZE);
        dirty->mask &= (uint8_t) ~(1u << i);
    }
    if (dirty->mask == 0)
        page_clean(page);
}

void inode_sync_failed(struct sim *sim, struct sim_inode *inode, bool is_direct)
{
    for (struct list_node *node = list_first(&inode->dirty), *next; node != NULL; node = next) {
        next = list_next(&inode->dirty, node);
        struct dirty *dirty = container_of(node, struct dirty, node);
        if (is_direct)
            lose_some(sim, &inode->pages[dirty->page]);
        else
            give_up(dirty);
    }
}

/* ---- crashing ---- */

static enum fate choose_fate(struct sim *sim)
{
    return (enum fate)sim_below(sim, FATE_COUNT);
}

/* What becomes of the `index`th of `count` sectors when `cut` is where a prefix ends: how many of
 * its bytes, from *ret_from to *ret_to, are new. */
static void choose_bytes(struct sim *sim, enum fate fate, uint64_t index, uint64_t cut,
                         uint32_t size, uint32_t *ret_from, uint32_t *ret_to)
{
    uint32_t tear = (uint32_t)sim_below(sim, size + 1);
    uint64_t dice = sim_below(sim, 16);
    *ret_from = 0;
    *ret_to = 0;
    if (fate == FATE_NEW || (fate == FATE_PREFIX && index < cut) ||
        (fate == FATE_MIXED && dice < 7)) {
        *ret_to = size;
    } else if ((fate == FATE_PREFIX && index == cut) || (fate == FATE_MIXED && dice == 7)) {
        *ret_to = tear;
    } else if (fate == FATE_MIXED && dice == 8) {
        *ret_from = tear;
        *ret_to = size;
    }
}

void inode_write_torn(struct sim *sim, struct sim_inode *inode, const void *buffer, uint64_t size,
                      uint64_t offset, uint64_t sequence, bool is_durable)
{
    enum fate fate = choose_fate(sim);
    uint64_t cut = sim_below(sim, size / SECTOR_SIZE + 1);
    uint64_t index = 0;
    for (uint64_t at = 0; at < size; index++) {
        uint64_t left = SECTOR_SIZE - (offset + at) % SECTOR_SIZE;
        uint32_t part = (uint32_t)min_u64(left, size - at);
        uint32_t from;
        uint32_t to;
        choose_bytes(sim, fate, index, cut, part, &from, &to);
        if (from < to)
            inode_write(inode, (const uint8_t *)buffer + at + from, to - from, offset + at + from,
                        sequence, is_durable);
        at += part;
    }
}

static void page_lose_power(struct sim *sim, struct sim_page *page, enum fate fate, uint64_t index,
                            uint64_t cut)
{
    struct dirty *dirty = page->dirty;
    for (uint32_t i = 0; i < PAGE_SECTORS; i++) {
        uint32_t from;
        uint32_t to;
        if (!(dirty->mask & 1u << i))
            continue;
        choose_bytes(sim, fate, index + i, cut, SECTOR_SIZE, &from, &to);
        uint8_t *now = page->now + i * SECTOR_SIZE;
        const uint8_t *old = dirty->old + i * SECTOR_SIZE;
        memcpy(now, old, from);
        memcpy(now + to, old + to, SECTOR_SIZE - to);
    }
    page_clean(page);
}

void inode_lose_power(struct sim *sim, struct sim_inode *inode)
{
    enum fate fate = choose_fate(sim);
    uint64_t cut = sim_below(sim, inode->page_count * PAGE_SECTORS + 1);
    for (struct list_node *node; (node = list_first(&inode->dirty)) != NULL;) {
        uint64_t number = container_of(node, struct dirty, node)->page;
        page_lose_power(sim, &inode->pages[number], fate, number * PAGE_SECTORS, cut);
    }
    if (inode->size_changed != 0 && sim_below(sim, 2) == 0)
        inode->size = inode->size_durable;
    inode->size_durable = inode->size;
    inode->size_changed = 0;
    inode->reserved = round_up(inode->size, PAGE_SIZE);
    zero_beyond(inode, inode->size, 0, true);
}

void inode_rot(struct sim_inode *inode, uint64_t offset, uint8_t bit)
{
    struct sim_page *page = page_at(inode, offset / PAGE_SIZE);
    page_bytes(page)[offset % PAGE_SIZE] ^= (uint8_t)(1u << bit);
    if (page->dirty != NULL)
        page->dirty->old[offset % PAGE_SIZE] ^= (uint8_t)(1u << bit);
}

void inode_free(struct sim_inode *inode)
{
    for (uint64_t i = 0; i < inode->page_count; i++) {
        free(inode->pages[i].now);
        free(inode->pages[i].dirty);
    }
    free(inode->pages);
    free(inode);
}
