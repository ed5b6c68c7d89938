/* Syncs of folders. A sync covers what was created before it was submitted; so those that come
 * while one is under way share the next one.
 *
 *   idle -> open -> sync -> [sync -> ...] close -> idle, or open again
 *
 * The folder is open only meanwhile: 256 of them would be many files. */
#include "store/stream.h"

void directory_init(struct directory *directory, struct io *io, char *path)
{
    directory->io = io;
    directory->path = path;
    directory->handle = -1;
    list_init(&directory->waiting);
    list_init(&directory->covered);
}

static void open_directory(struct directory *directory);

static void tell(struct list *list, int result)
{
    struct list_node *node;
    while ((node = list_pop_front(list)) != NULL) {
        struct directory_waiter *waiter = container_of(node, struct directory_waiter, node);
        waiter->done(waiter, result);
    }
}

/* Nothing is open, nothing under way; whoever came meanwhile begins anew. */
static void become_idle(struct directory *directory)
{
    directory->is_busy = false;
    if (!list_is_empty(&directory->waiting))
        open_directory(directory);
}

static void close_done(struct io_op *op, int32_t result)
{
    struct directory *directory = container_of(op, struct directory, op);
    (void)result;
    directory->handle = -1;
    become_idle(directory);
}

static void sync_done(struct io_op *op, int32_t result);

static void sync_or_close(struct directory *directory)
{
    struct list_node *node;
    while ((node = list_pop_front(&directory->waiting)) != NULL)
        list_push_back(&directory->covered, node);
    if (!list_is_empty(&directory->covered)) {
        directory->op.done = sync_done;
        io_sync(directory->io, &directory->op, directory->handle);
    } else {
        directory->op.done = close_done;
        io_close_file(directory->io, &directory->op, directory->handle);
    }
}

static void sync_done(struct io_op *op, int32_t result)
{
    struct directory *directory = container_of(op, struct directory, op);
    tell(&directory->covered, result);
    sync_or_close(directory);
}

static void open_done(struct io_op *op, int32_t result)
{
    struct directory *directory = container_of(op, struct directory, op);
    if (result >= 0) {
        directory->handle = result;
        sync_or_close(directory);
        return;
    }
    struct list_node *node;
    while ((node = list_pop_front(&directory->waiting)) != NULL)
        list_push_back(&directory->covered, node);
    tell(&directory->covered, result);
    become_idle(directory);
}

static void open_directory(struct directory *directory)
{
    assert(!directory->is_busy);
    directory->is_busy = true;
    directory->op.done = open_done;
    io_open_file(directory->io, &directory->op, directory->path, IO_OPEN_DIRECTORY);
}

void directory_sync(struct directory *directory, struct directory_waiter *waiter)
{
    list_push_back(&directory->waiting, &waiter->node);
    if (!directory->is_busy)
        open_directory(directory);
}

void directory_forget(struct directory_waiter *waiter)
{
    if (list_node_is_linked(&waiter->node))
        list_remove(&waiter->node);
}
