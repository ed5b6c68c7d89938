/* How hosts start, crash and end, and what a crash does to what was in flight. */
#include "io/io_sim_host.h"
#include "io/io_sim_tree.h"
#include "io/io_sim_wire.h"

#include <stdlib.h>
#include <string.h>

/* A killed process's last writes land within this time. */
#define ORPHAN_NS_MAX (50 * NS_PER_MS)

/* A killed process whose last writes may still land; its locks are held meanwhile. */
struct sim_zombie {
    struct sim_disk *disk;
    uint32_t writes;
    struct list files; /* struct sim_file */
};

/* ---- writes that outlive their process ---- */

static void zombie_free(struct sim_zombie *zombie)
{
    for (struct list_node *node; (node = list_pop_front(&zombie->files)) != NULL;)
        file_free(container_of(node, struct sim_file, node));
    free(zombie);
}

static void orphan_free(struct sim_op *op)
{
    sim_unschedule(op->zombie->disk->sim, &op->event);
    list_remove(&op->node);
    if (--op->zombie->writes == 0)
        zombie_free(op->zombie);
    free(op->buffer);
    free(op);
}

static void orphan_lands(struct sim_event *event)
{
    struct sim_op *op = container_of(event, struct sim_op, event);
    struct sim_disk *disk = op->zombie->disk;
    sim_note(disk->sim, 0, "late write", (int64_t)op->offset, (int64_t)op->size);
    uint64_t sequence = ++disk->sequence;
    bool is_durable = op->flags & IO_WRITE_DSYNC;
    if (sim_below(disk->sim, 4) == 0)
        inode_write_torn(disk->sim, op->file->inode, op->buffer, op->size, op->offset, sequence,
                         is_durable);
    else
        inode_write(op->file->inode, op->buffer, op->size, op->offset, sequence, is_durable);
    orphan_free(op);
}

static void orphan_write(struct sim_op *op, struct sim_zombie *zombie)
{
    struct sim_disk *disk = zombie->disk;
    void *data = sim_allocate(op->size);
    memcpy(data, op->buffer, op->size);
    op->buffer = data;
    op->zombie = zombie;
    op->event.fire = orphan_lands;
    zombie->writes++;
    list_remove(&op->node);
    list_push_back(&disk->orphans, &op->node);
    sim_schedule(disk->sim, &op->event,
                 sim_now_ns(disk->sim) + sim_delay(disk->sim, ORPHAN_NS_MAX));
}

/* A write that was in flight when the power went. */
static void tear_write(struct sim *sim, struct sim_op *op)
{
    inode_write_torn(sim, op->file->inode, op->buffer, op->size, op->offset, 0, true);
}

/* ---- the end of a process ---- */

/* What was in flight happens in part; at an orderly end it happened or was cancelled. */
static void end_operation(struct sim_op *op, enum sim_crash crash, struct sim_zombie *zombie)
{
    if (op->kind < SIM_OPEN || op->is_done)
        return;
    bool is_orderly = op->io->state == SIM_HOST_CLOSING;
    bool is_lucky = sim_below(op->io->sim, 2) == 0;
    if (op->kind == SIM_WRITE && !is_orderly && crash == SIM_POWER_LOSS)
        tear_write(op->io->sim, op);
    else if (op->kind == SIM_WRITE && !is_orderly)
        orphan_write(op, zombie);
    else if (is_lucky && (op->kind != SIM_READ || is_orderly))
        (void)file_apply(op);
}

/* Locks and files are given back, once the last writes have landed. */
static void end_files(struct io *io, enum sim_crash crash)
{
    struct sim_zombie *zombie = sim_allocate(sizeof *zombie);
    zombie->disk = io->disk;
    list_init(&zombie->files);
    for (struct list_node *node = list_first(&io->active), *next; node != NULL; node = next) {
        next = list_next(&io->active, node);
        end_operation(container_of(node, struct sim_op, node), crash, zombie);
    }
    for (uint32_t i = 0; i < io->options.files_max; i++) {
        if (io->files[i] != NULL)
            list_push_back(&zombie->files, &io->files[i]->node);
        io->files[i] = NULL;
    }
    if (zombie->writes == 0)
        zombie_free(zombie);
}

static void end(struct io *io, enum sim_host_state state, enum sim_crash crash)
{
    io->state = state;
    end_files(io, crash);
    net_end(io, crash == SIM_POWER_LOSS);
    host_forget(io);
}

static void crash_one(struct io *io, enum sim_crash crash)
{
    if (io->state != SIM_HOST_RUNS)
        return;
    sim_note(io->sim, io->number, crash == SIM_KILL ? "killed" : "power loss", (int64_t)io->steps,
             0);
    end(io, SIM_HOST_CRASHED, crash);
}

void sim_disk_lose_power(struct sim_disk *disk)
{
    for (struct list_node *node = list_first(&disk->hosts); node != NULL;
         node = list_next(&disk->hosts, node))
        assert(container_of(node, struct io, node)->state != SIM_HOST_RUNS);
    for (struct list_node *node; (node = list_first(&disk->orphans)) != NULL;) {
        struct sim_op *op = container_of(node, struct sim_op, node);
        tear_write(disk->sim, op);
        orphan_free(op);
    }
    tree_lose_power(disk);
}

void sim_host_crash(struct io *io, enum sim_crash crash)
{
    if (crash == SIM_KILL) {
        crash_one(io, crash);
        return;
    }
    struct list *hosts = &io->disk->hosts;
    for (struct list_node *node = list_first(hosts); node; node = list_next(hosts, node))
        crash_one(container_of(node, struct io, node), crash);
    sim_disk_lose_power(io->disk);
}

void sim_host_crash_after(struct io *io, uint64_t count, enum sim_crash crash)
{
    io->crash_at_steps = io->steps + (count > 0 ? count : 1);
    io->crash = crash;
}

bool sim_host_is_crashed(const struct io *io)
{
    return io->state == SIM_HOST_CRASHED;
}

void io_close(struct io *io)
{
    assert(!io->is_running);
    if (io->state == SIM_HOST_RUNS)
        end(io, SIM_HOST_CLOSING, SIM_KILL);
    list_remove(&io->node);
    host_free(io);
}

/* ---- the beginning of a process, and the end of it all ---- */

void sim_host_open(struct sim *sim, struct sim_disk *disk, const struct io_options *options,
                   struct io **ret_io)
{
    *ret_io = host_create(sim, disk, options);
    (*ret_io)->crash_now = sim_host_crash;
    list_push_back(&disk->hosts, &(*ret_io)->node);
}

bool sim_disk_rot(struct sim_disk *disk, const char *path, uint64_t offset, uint64_t size)
{
    struct sim_inode *inode;
    if (tree_find(disk, path, &inode) < 0 || inode->is_directory)
        return false;
    uint64_t end = min_u64(inode->size, offset + min_u64(size, UINT64_MAX - offset));
    if (end <= offset)
        return false;
    offset += sim_below(disk->sim, end - offset);
    inode_rot(inode, offset, (uint8_t)sim_below(disk->sim, 8));
    return true;
}

void sim_free(struct sim *sim)
{
    struct list *disks = sim_disks(sim);
    for (struct list_node *node = list_first(disks); node; node = list_next(disks, node)) {
        struct sim_disk *disk = container_of(node, struct sim_disk, node);
        assert(list_is_empty(&disk->hosts));
        wire_close_peers(&disk->peers);
    }
    /* What is still on its way ends here: each packet holds its connection. */
    while (sim_step(sim, UINT64_MAX))
        ;
    for (struct list_node *node; (node = list_first(disks)) != NULL;)
        tree_free(container_of(node, struct sim_disk, node));
    sim_destroy(sim);
}
