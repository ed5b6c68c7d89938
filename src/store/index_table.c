#include "store/index_table.h"

#include "base/assert.h"
#include "base/units.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static_assert(sizeof(struct index_slot) == 24, "a slot");
static_assert(sizeof(struct index_bucket) == INDEX_BUCKET_SIZE, "a bucket");

/* Address space, not memory: 2 Mi buckets of a partition are 10 billion keys over all of them. */
#define TABLE_BUCKETS_MAX ((uint32_t)1 << 21)
#define OVERFLOW_BUCKETS_MAX ((uint32_t)1 << 26)

#define CLASS_BITS 6
#define CLASS_MASK ((1u << CLASS_BITS) - 1)

/* Size classes: four to a doubling, from 512 bytes: a read from disk has whole blocks anyway. */
static uint64_t class_size(uint32_t size_class)
{
    return (uint64_t)(4 + size_class % 4) << (7 + size_class / 4);
}

static uint32_t size_class(uint64_t size)
{
    uint32_t class = 0;
    while (class_size(class) < size)
        class++;
    assert(class <= CLASS_MASK);
    return class;
}

uint64_t index_read_size(uint64_t record_size)
{
    return class_size(size_class(record_size));
}

/* ---- slots: words[0] location low; words[1] location high 16, class 6, tombstone 1, hash high 9; words[2] hash low ---- */

static void encode(struct index_slot *slot, uint64_t hash, const struct index_entry *entry)
{
    uint64_t kept = hash & INDEX_HASH_MASK;
    slot->clock = entry->version.clock;
    slot->origin = entry->version.origin;
    slot->words[0] = (uint32_t)entry->location;
    slot->words[1] = (uint32_t)(entry->location >> 32) | size_class(entry->read_size) << 16 |
                     (uint32_t)entry->tombstone << 22 | (uint32_t)(kept >> 32) << 23;
    slot->words[2] = (uint32_t)kept;
}

static uint64_t slot_location(const struct index_slot *slot)
{
    return (uint64_t)(slot->words[1] & 0xFFFF) << 32 | slot->words[0];
}

static uint64_t slot_hash(const struct index_slot *slot)
{
    return (uint64_t)(slot->words[1] >> 23) << 32 | slot->words[2];
}

static void decode(const struct index_slot *slot, struct index_entry *ret_entry)
{
    *ret_entry = (struct index_entry){
        .version = {slot->clock, slot->origin},
        .location = slot_location(slot),
        .read_size = class_size(slot->words[1] >> 16 & CLASS_MASK),
        .tombstone = slot->words[1] >> 22 & 1,
    };
}

static uint8_t tag_of(uint64_t hash)
{
    return (uint8_t)(hash >> 56);
}

/* ---- memory ---- */

static struct index_bucket *reserve(uint64_t count)
{
    void *memory = mmap(NULL, count * INDEX_BUCKET_SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

int index_overflow_init(struct index_overflow *overflow)
{
    *overflow = (struct index_overflow){.buckets = reserve(OVERFLOW_BUCKETS_MAX), .count = 1};
    return overflow->buckets == NULL ? -ENOMEM : 0;
}

void index_overflow_deinit(struct index_overflow *overflow)
{
    if (overflow->buckets != NULL)
        (void)munmap(overflow->buckets, (uint64_t)OVERFLOW_BUCKETS_MAX * INDEX_BUCKET_SIZE);
}

int index_table_init(struct index_table *table)
{
    *table = (struct index_table){.buckets = reserve(TABLE_BUCKETS_MAX), .count = 1, .half = 1};
    return table->buckets == NULL ? -ENOMEM : 0;
}

void index_table_deinit(struct index_table *table)
{
    if (table->buckets != NULL)
        (void)munmap(table->buckets, (uint64_t)TABLE_BUCKETS_MAX * INDEX_BUCKET_SIZE);
}

/* An empty overflow bucket's number, 0: none left. */
static uint32_t overflow_get(struct index_overflow *overflow)
{
    uint32_t number = overflow->free_first;
    if (number != 0)
        overflow->free_first = overflow->buckets[number].next;
    else if (overflow->count < OVERFLOW_BUCKETS_MAX)
        number = overflow->count++;
    else
        return 0;
    overflow->used++;
    overflow->buckets[number].next = 0;
    overflow->buckets[number].count = 0;
    return number;
}

static void overflow_put(struct index_overflow *overflow, uint32_t number)
{
    overflow->buckets[number].next = overflow->free_first;
    overflow->free_first = number;
    overflow->used--;
}

/* ---- chains ---- */

static struct index_bucket *next_of(const struct index_overflow *overflow, const struct index_bucket *bucket)
{
    return bucket->next == 0 ? NULL : &overflow->buckets[bucket->next];
}

static uint32_t bucket_number(const struct index_table *table, uint64_t hash)
{
    uint32_t number = (uint32_t)hash & (2 * table->half - 1);
    return number < table->count ? number : number & (table->half - 1);
}

const struct index_bucket *index_table_bucket(const struct index_table *table, uint64_t hash)
{
    return &table->buckets[bucket_number(table, hash)];
}

/* Every bucket of a chain but its last is full. */
static int chain_append(struct index_table *table, struct index_overflow *overflow, struct index_bucket *bucket,
                        const struct index_slot *slot, uint8_t tag)
{
    while (bucket->next != 0)
        bucket = &overflow->buckets[bucket->next];
    if (bucket->count == INDEX_BUCKET_SLOTS) {
        uint32_t number = overflow_get(overflow);
        if (number == 0)
            return -ENOMEM;
        bucket->next = number;
        bucket = &overflow->buckets[number];
        table->overflow_used++;
    }
    bucket->slots[bucket->count] = *slot;
    bucket->tags[bucket->count] = tag;
    bucket->count++;
    return 0;
}

/* Distributes the slots of a bucket, copied out before, over the table. */
static void redistribute(struct index_table *table, struct index_overflow *overflow,
                         const struct index_bucket *from)
{
    for (uint32_t i = 0; i < from->count; i++) {
        struct index_bucket *to = &table->buckets[bucket_number(table, slot_hash(&from->slots[i]))];
        int result = chain_append(table, overflow, to, &from->slots[i], from->tags[i]);
        assert(result == 0); /* no more buckets than before are needed beyond those given back */
    }
}

static void split(struct index_table *table, struct index_overflow *overflow)
{
    if (table->count == 2 * table->half)
        table->half *= 2;
    struct index_bucket *old = &table->buckets[table->count - table->half];
    struct index_bucket copy = *old;
    old->count = 0;
    old->next = 0;
    table->count++;
    redistribute(table, overflow, &copy);
    for (uint32_t number = copy.next; number != 0; number = copy.next) {
        copy = overflow->buckets[number];
        overflow_put(overflow, number);
        table->overflow_used--;
        redistribute(table, overflow, &copy);
    }
}

int index_table_add(struct index_table *table, struct index_overflow *overflow, uint64_t hash,
                    const struct index_entry *entry)
{
    struct index_slot slot;
    encode(&slot, hash, entry);
    struct index_bucket *bucket = &table->buckets[bucket_number(table, hash)];
    int result = chain_append(table, overflow, bucket, &slot, tag_of(hash));
    if (result < 0)
        return result;
    table->slots++;
    bool affordable = index_table_memory(table) + INDEX_BUCKET_SIZE <= table->slots * INDEX_BYTES_PER_SLOT;
    if (affordable && table->count < TABLE_BUCKETS_MAX)
        split(table, overflow);
    return 0;
}

bool index_table_locate(const struct index_table *table, const struct index_overflow *overflow, uint64_t hash,
                        uint64_t location, struct index_place *ret_place)
{
    uint8_t tag = tag_of(hash);
    struct index_bucket *bucket = &table->buckets[bucket_number(table, hash)];
    for (; bucket != NULL; bucket = next_of(overflow, bucket)) {
        for (uint32_t i = 0; i < bucket->count; i++) {
            const struct index_slot *slot = &bucket->slots[i];
            if (bucket->tags[i] == tag && slot_hash(slot) == (hash & INDEX_HASH_MASK) &&
                slot_location(slot) == location) {
                *ret_place = (struct index_place){bucket, i};
                return true;
            }
        }
    }
    return false;
}

void index_table_set(struct index_place place, uint64_t hash, const struct index_entry *entry)
{
    encode(&place.bucket->slots[place.slot], hash, entry);
}

void index_table_get(struct index_place place, struct index_entry *ret_entry)
{
    decode(&place.bucket->slots[place.slot], ret_entry);
}

/* The chain's last slot fills the gap; an overflow bucket that is empty then goes back. */
void index_table_remove(struct index_table *table, struct index_overflow *overflow, uint64_t hash,
                        struct index_place place)
{
    struct index_bucket *before = NULL;
    struct index_bucket *last = &table->buckets[bucket_number(table, hash)];
    for (; last->next != 0; last = &overflow->buckets[last->next])
        before = last;
    last->count--;
    place.bucket->slots[place.slot] = last->slots[last->count];
    place.bucket->tags[place.slot] = last->tags[last->count];
    table->slots--;
    if (last->count == 0 && before != NULL) {
        overflow_put(overflow, before->next);
        before->next = 0;
        table->overflow_used--;
    }
}

/* Keeps ret_entries sorted, newest first, and its length within capacity. */
static void insert_newest(struct index_entry *ret_entries, uint32_t kept, uint32_t capacity,
                          const struct index_entry *entry)
{
    uint32_t at = kept < capacity ? kept : capacity;
    for (; at > 0 && version_compare(ret_entries[at - 1].version, entry->version) < 0; at--)
        if (at < capacity)
            ret_entries[at] = ret_entries[at - 1];
    if (at < capacity)
        ret_entries[at] = *entry;
}

uint32_t index_table_find(const struct index_table *table, const struct index_overflow *overflow, uint64_t hash,
                          struct index_entry *ret_entries, uint32_t capacity)
{
    uint8_t tag = tag_of(hash);
    uint32_t found = 0;
    const struct index_bucket *bucket = index_table_bucket(table, hash);
    for (; bucket != NULL; bucket = next_of(overflow, bucket)) {
        for (uint32_t i = 0; i < bucket->count; i++) {
            if (bucket->tags[i] != tag || slot_hash(&bucket->slots[i]) != (hash & INDEX_HASH_MASK))
                continue;
            struct index_entry entry;
            decode(&bucket->slots[i], &entry);
            insert_newest(ret_entries, found, capacity, &entry);
            found++;
        }
    }
    return found;
}
