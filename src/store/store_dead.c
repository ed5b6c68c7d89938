/* Records and value files that nobody needs any more. */
#include "store/store_dead.h"

#include "base/assert.h"
#include "store/memory/location.h"
#include "store/store_internal.h"
#include "store/store_large.h"

#include <stdlib.h>

/* ---- files that others read ---- */

struct loan {
    struct list_node node;
    struct value_file_name name;
    uint32_t count;
    bool is_dead; /* its removal came meanwhile */
};

static struct loan *find_loan(const struct dead *dead, const struct value_file_name *name)
{
    struct list_node *node = list_first(&dead->loans);
    for (; node != NULL; node = list_next(&dead->loans, node)) {
        struct loan *loan = container_of(node, struct loan, node);
        if (loan->name.key_hash == name->key_hash && loan->name.partition == name->partition &&
            version_compare(loan->name.version, name->version) == 0)
            return loan;
    }
    return NULL;
}

bool store_lend_file(struct store *store, const struct value_file_name *name)
{
    struct dead *dead = &store->dead;
    struct loan *loan = find_loan(dead, name);
    if (loan == NULL) {
        loan = calloc(1, sizeof *loan);
        if (loan == NULL)
            return false;
        loan->name = *name;
        list_push_back(&dead->loans, &loan->node);
    }
    loan->count++;
    return true;
}

void store_take_back_file(struct store *store, const struct value_file_name *name)
{
    struct dead *dead = &store->dead;
    struct loan *loan = find_loan(dead, name);
    assert(loan != NULL);
    assert(loan->count > 0); /* invariant 1 */
    if (--loan->count > 0)
        return;
    if (loan->is_dead)
        value_file_remove(dead->streams, &loan->name);
    list_remove(&loan->node);
    free(loan);
}

/* ---- files that died ---- */

struct removal {
    struct list_node node;
    uint64_t killer_position;
    struct value_file_name name;
};

static void remove_file(struct dead *dead, const struct value_file_name *name)
{
    struct loan *loan = find_loan(dead, name);
    assert(loan == NULL || !loan->is_dead); /* invariant 2 */
    if (loan != NULL)
        loan->is_dead = true;
    else
        value_file_remove(dead->streams, name);
}

static void kill_file(struct dead *dead, const struct value_file_name *name,
                      uint64_t killer_position)
{
    struct removal *removal = calloc(1, sizeof *removal);
    if (removal == NULL)
        return; /* an orphan: the next start removes it */
    removal->killer_position = killer_position;
    removal->name = *name;
    list_push_back(&dead->removals, &removal->node);
}

void dead_flush(struct dead *dead)
{
    /* Killers stand in the log in about this order: what is behind one that must wait, waits. */
    uint64_t durable = wal_durable(dead->wal);
    for (struct list_node *node; (node = list_first(&dead->removals)) != NULL;) {
        struct removal *removal = container_of(node, struct removal, node);
        if (removal->killer_position > durable)
            return;
        list_remove(node);
        remove_file(dead, &removal->name);
        free(removal);
    }
}

void dead_record(struct dead *dead, const struct index_entry *old,
                 const struct value_file_name *file, uint64_t killer_position)
{
    if (old->in_value_file && file != NULL)
        kill_file(dead, file, killer_position);
    if (location_is_segment(old->location))
        segment_record_dead(dead->segments, old->location, old->read_size, killer_position);
    else
        wal_record_dead(dead->wal, old->location, killer_position);
}

/* ---- opening and closing ---- */

void dead_init(struct dead *dead)
{
    list_init(&dead->loans);
    list_init(&dead->removals);
}

void dead_deinit(struct dead *dead)
{
    for (struct list_node *node; (node = list_pop_front(&dead->removals)) != NULL;)
        free(container_of(node, struct removal, node));
    for (struct list_node *node; (node = list_pop_front(&dead->loans)) != NULL;)
        free(container_of(node, struct loan, node));
}
