/* A hash table of the newest write of each key. A dump and a count of keys need it, because older
 * writes of a key stay on the disk until they are compacted. */
#include "admin/read/admin_newest.h"

#include "base/assert.h"
#include "base/units.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_MIN 1024u
#define ARENA_SIZE ((uint32_t)MIB)

static_assert(sizeof(struct newest_slot) == 48, "what a key takes");

void newest_init(struct newest *newest, bool keeps_keys)
{
    *newest = (struct newest){.keeps_keys = keeps_keys};
}

void newest_free(struct newest *newest)
{
    for (uint32_t i = 0; i < newest->arena_count; i++)
        free(newest->arenas[i]);
    free(newest->arenas);
    free(newest->slots);
    *newest = (struct newest){0};
}

/* ---- keys ---- */

static int add_arena(struct newest *newest)
{
    uint8_t **arenas = realloc(newest->arenas, (newest->arena_count + 1) * sizeof *arenas);
    if (arenas == NULL)
        return -ENOMEM;
    newest->arenas = arenas;
    uint8_t *arena = malloc(ARENA_SIZE);
    if (arena == NULL)
        return -ENOMEM;
    newest->arenas[newest->arena_count++] = arena;
    newest->arena_used = 0;
    return 0;
}

static int keep_key(struct newest *newest, struct slice key, const uint8_t **ret_key)
{
    static_assert(ARENA_SIZE > UINT16_MAX, "a key fits");
    assert(key.size <= UINT16_MAX);
    if (newest->arena_count == 0 || ARENA_SIZE - newest->arena_used < key.size) {
        int error = add_arena(newest);
        if (error < 0)
            return error;
    }
    uint8_t *copy = newest->arenas[newest->arena_count - 1] + newest->arena_used;
    memcpy(copy, key.data, key.size);
    newest->arena_used += key.size;
    *ret_key = copy;
    return 0;
}

/* ---- the table: linear probing, and nothing is ever removed ---- */

static bool is_key(const struct newest *newest, const struct newest_slot *slot,
                   const struct walk_found *found)
{
    if (slot->hash != found->hash || slot->partition != found->partition)
        return false;
    if (!newest->keeps_keys)
        return true;
    const struct slice *key = &found->record->key;
    return slot->key_size == key->size && memcmp(slot->key, key->data, key->size) == 0;
}

/* The key's slot, or the free one where it belongs. */
static struct newest_slot *find(const struct newest *newest, const struct walk_found *found)
{
    uint64_t index = found->hash & (newest->capacity - 1);
    while (newest->slots[index].size != 0 && !is_key(newest, &newest->slots[index], found))
        index = (index + 1) & (newest->capacity - 1);
    return &newest->slots[index];
}

static int grow(struct newest *newest)
{
    uint64_t capacity = newest->capacity == 0 ? CAPACITY_MIN : 2 * newest->capacity;
    struct newest_slot *slots = calloc(capacity, sizeof *slots);
    if (slots == NULL)
        return -ENOMEM;
    for (uint64_t i = 0; i < newest->capacity; i++) {
        const struct newest_slot *slot = &newest->slots[i];
        if (slot->size == 0)
            continue;
        uint64_t index = slot->hash & (capacity - 1);
        while (slots[index].size != 0)
            index = (index + 1) & (capacity - 1);
        slots[index] = *slot;
    }
    free(newest->slots);
    newest->slots = slots;
    newest->capacity = capacity;
    return 0;
}

int newest_take(void *context, const struct walk_found *found)
{
    struct newest *newest = context;
    assert(found->size > 0);
    assert(found->record != NULL || !newest->keeps_keys);
    newest->records++;
    int error = newest->count >= newest->capacity / 4 * 3 ? grow(newest) : 0;
    if (error < 0)
        return error;
    struct newest_slot *slot = find(newest, found);
    struct version version = {.clock = slot->clock, .origin = slot->origin};
    bool is_new = slot->size == 0;
    if (!is_new && version_compare(version, found->version) > 0)
        return 0;
    const uint8_t *key = slot->key;
    if (is_new && newest->keeps_keys)
        error = keep_key(newest, found->record->key, &key);
    if (error < 0)
        return error;
    newest->count += is_new;
    newest->tombstones += (uint64_t)found->tombstone - slot->tombstone;
    assert(newest->tombstones <= newest->count);
    *slot = (struct newest_slot){
        .hash = found->hash,
        .clock = found->version.clock,
        .offset = found->offset,
        .key = key,
        .origin = found->version.origin,
        .file = found->file,
        .size = found->size,
        .key_size = found->record != NULL ? (uint16_t)found->record->key.size : 0,
        .partition = found->partition,
        .tombstone = found->tombstone,
        .in_value_file = found->in_value_file,
    };
    return 0;
}

bool newest_is(const struct newest *newest, const struct walk_found *found)
{
    if (newest->capacity == 0)
        return false;
    const struct newest_slot *slot = find(newest, found);
    return slot->size != 0 && slot->file == found->file && slot->offset == found->offset;
}

const struct newest_slot *newest_nth(const struct newest *newest, uint64_t index)
{
    return newest->slots[index].size == 0 ? NULL : &newest->slots[index];
}
