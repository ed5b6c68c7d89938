/* Syncs of folders. A sync covers what was created before it was submitted; so those that come
 * while one is under way share the next one.
 *
 *   closed -> open -> sync -> [sync -> ...] idle -> sync ..., or close -> closed, or open again
 *
 * A folder stays open while it has users: under load, opening and closing it would be three more
 * trips through the kernel's workers for each value.
 *
 * Invariants:
 * 1. One operation at a time; while none is, nobody waits.
 * 2. Who is covered came before the sync under way was submitted.
 * 3. A folder is synced only while it is open. */
#include "store/value/directory_sync.h"

#include "base/assert.h"

void directory_init(struct directory *directory, struct io *io, const char *path,
                    const struct list *users)
{
    directory->io = io;
    directory->users = users;
    directory->path = path;
    directory->handle = -1;
    list_init(&directory->waiting);
    list_init(&directory->covered);
}

static void open_directory(struct directory *directory);

static void move_all(struct list *from, struct list *to)
{
    struct list_node *node;
    while ((node = list_pop_front(from)) != NULL)
        list_push_back(to, node);
}

/* From a list of their own: one that is told may begin a sync, and who is covered by that one must
 * not be told of this one's result. */
static void tell(struct list *covered, int result)
{
    struct list told;
    list_init(&told);
    move_all(covered, &told);
    struct list_node *node;
    while ((node = list_pop_front(&told)) != NULL) {
        struct directory_waiter *waiter = container_of(node, struct directory_waiter, node);
        waiter->done(waiter, result);
    }
}

static void close_done(struct io_op *op, int32_t result)
{
    struct directory *directory = container_of(op, struct directory, op);
    (void)result;
    directory->handle = -1;
    if (!list_is_empty(&directory->waiting))
        open_directory(directory); /* whoever came meanwhile begins anew */
}

static void sync_done(struct io_op *op, int32_t result);

/* What waits is synced; nobody left: it is closed. */
static void go_on(struct directory *directory)
{
    if (io_op_is_active(&directory->op))
        return;
    assert(directory->handle >= 0);             /* invariant 3 */
    assert(list_is_empty(&directory->covered)); /* invariant 2 */
    move_all(&directory->waiting, &directory->covered);
    if (!list_is_empty(&directory->covered)) {
        directory->op.done = sync_done;
        io_sync(directory->io, &directory->op, directory->handle);
    } else if (list_is_empty(directory->users)) {
        directory->op.done = close_done;
        io_close_file(directory->io, &directory->op, directory->handle);
    }
}

static void sync_done(struct io_op *op, int32_t result)
{
    struct directory *directory = container_of(op, struct directory, op);
    tell(&directory->covered, result);
    go_on(directory);
}

static void open_done(struct io_op *op, int32_t result)
{
    struct directory *directory = container_of(op, struct directory, op);
    if (result >= 0) {
        directory->handle = result;
        go_on(directory);
        return;
    }
    move_all(&directory->waiting, &directory->covered);
    tell(&directory->covered, result);
    if (!list_is_empty(&directory->waiting) && !io_op_is_active(&directory->op))
        open_directory(directory);
}

static void open_directory(struct directory *directory)
{
    assert(directory->handle < 0);
    assert(!io_op_is_active(&directory->op)); /* invariant 1 */
    directory->op.done = open_done;
    io_open_file(directory->io, &directory->op, directory->path, IO_OPEN_DIRECTORY);
}

void directory_sync(struct directory *directory, struct directory_waiter *waiter,
                    directory_synced *done)
{
    waiter->done = done;
    list_push_back(&directory->waiting, &waiter->node);
    if (io_op_is_active(&directory->op))
        return;
    if (directory->handle < 0)
        open_directory(directory);
    else
        go_on(directory);
}

void directory_forget(struct directory_waiter *waiter)
{
    if (list_node_is_linked(&waiter->node))
        list_remove(&waiter->node);
}

void directory_close(struct directory *directory)
{
    assert(list_is_empty(directory->users));
    if (directory->handle >= 0)
        go_on(directory);
}

bool directory_is_busy(const struct directory *directory)
{
    return directory->handle >= 0 || io_op_is_active(&directory->op);
}
