/* The queues of a shard's clients, and what of a client's replies is pending. */
#include "net/client/client.h"

#include "net/client/limits.h"

#include "base/assert.h"

void client_open(struct client *client, struct client_shared *shared, uint64_t number)
{
    *client = (struct client){.shared = shared};
    output_init(&client->output, &shared->outputs);
    client_request(client)->client = number;
    list_init(&client->downloads);
}

static void unlink_node(struct list_node *node)
{
    if (list_node_is_linked(node))
        list_remove(node);
}

void client_close(struct client *client)
{
    client_set_waits(client, false);
    unlink_node(&client->woken_node);
    unlink_node(&client->parked_node);
    unlink_node(&client->waiting_node);
    unlink_node(&client->held_node);
    unlink_node(&client->dirty_node);
}

/* ---- into the queues ---- */

void client_wake(struct client *client)
{
    if (!list_node_is_linked(&client->woken_node))
        list_push_back(&client->shared->woken, &client->woken_node);
}

void client_park(struct client *client)
{
    if (!list_node_is_linked(&client->parked_node))
        list_push_back(&client->shared->parked, &client->parked_node);
}

void client_abort(struct client *client)
{
    client->is_broken = true;
    client_touch(client);
}

void client_set_waits(struct client *client, bool waits)
{
    uint32_t *count = &client->shared->sets_waiting;
    assert(!client->set_waits || *count > 0); /* invariant 2 */
    if (waits && !client->set_waits)
        ++*count;
    if (!waits && client->set_waits)
        --*count;
    client->set_waits = waits;
}

bool client_hold(struct client *client)
{
    struct client_shared *shared = client->shared;
    uint64_t now_ns = io_now_ns(shared->io);
    bool is_new = client->held_ns == 0;
    assert(!is_new || !list_node_is_linked(&client->held_node)); /* invariant 3 */
    if (client->asked_count == 0 || !output_may_send(&client->output) ||
        (!is_new && now_ns - client->held_ns >= LIMITS_HOLD_NS)) {
        client->held_ns = 0;
        unlink_node(&client->held_node);
        return false;
    }
    if (is_new) {
        client->held_ns = now_ns;
        list_push_back(&shared->held, &client->held_node);
    }
    return true;
}

void client_wait_for_gate(struct client *client)
{
    if (output_gate(&client->output) > 0 && !list_node_is_linked(&client->waiting_node))
        list_push_back(&client->shared->waiting, &client->waiting_node);
}

/* ---- out of the queues ---- */

/* Gates grow with arrival, so the list is all but sorted: the first that must still wait ends it.
 */
void client_release_waiting(struct client_shared *shared)
{
    for (struct list_node *node; (node = list_first(&shared->waiting)) != NULL;) {
        struct client *client = container_of(node, struct client, waiting_node);
        if (output_gate(&client->output) > 0)
            return;
        list_remove(node);
        client_touch(client);
    }
}

/* The queue is in the order of held_ns. */
uint64_t client_held_until_ns(const struct client_shared *shared)
{
    const struct list_node *node = list_first(&shared->held);
    if (node == NULL)
        return UINT64_MAX;
    return container_of(node, const struct client, held_node)->held_ns + LIMITS_HOLD_NS;
}

void client_release_held(struct client_shared *shared)
{
    uint64_t now_ns = io_now_ns(shared->io);
    while (client_held_until_ns(shared) <= now_ns) {
        struct list_node *node = list_pop_front(&shared->held);
        client_touch(container_of(node, struct client, held_node));
    }
}

/* ---- requests ---- */

bool client_admit(struct client *client)
{
    const struct client_shared *shared = client->shared;
    if (!client->is_admitted)
        client->is_admitted = shared->rate == NULL ||
                              rate_take(shared->rate, shared->shard->number, io_now_ns(shared->io));
    return client->is_admitted;
}

void client_end_pending(struct client *client, bool is_asked, bool is_large)
{
    assert(client->pending_count > 0);
    assert(client->asked_count >= is_asked);
    assert(client->large_pending >= is_large);
    client->pending_count--;
    client->asked_count -= is_asked;
    client->large_pending -= is_large;
    client_touch(client);
    if (is_large || !list_is_empty(&client->downloads))
        client_wake(client); /* one of them may be the first now */
}
