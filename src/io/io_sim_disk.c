/* Disks, what io.h asks of them at once, and what a crash does to what was in flight. */
#include "io/io_sim_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A killed process's last writes land within this time. */
#define ORPHAN_NS_MAX (50 * NS_PER_MS)

struct sim_disk *sim_disk_create(struct sim *sim)
{
    struct sim_disk *disk = sim_allocate(sizeof *disk);
    disk->sim = sim;
    disk->options = (struct sim_disk_options){
        .capacity = GIB,
        .latency_ns_max = 300 * NS_PER_US,
        .stall_ppm = 500,
        .stall_ns_max = 100 * NS_PER_MS,
    };
    tree_init(disk);
    list_push_back(&sim->disks, &disk->node);
    return disk;
}

struct sim_disk_options *sim_disk_options(struct sim_disk *disk)
{
    return &disk->options;
}

bool sim_disk_rot(struct sim_disk *disk, const char *path, uint64_t offset, uint64_t size)
{
    struct sim_inode *inode;
    if (tree_find(disk, path, &inode) < 0 || inode->is_directory)
        return false;
    uint64_t end = min_u64(inode->size, offset + min_u64(size, UINT64_MAX - offset));
    if (end <= offset)
        return false;
    offset += prng_below(&disk->sim->prng, end - offset);
    inode_rot(inode, offset, (uint8_t)prng_below(&disk->sim->prng, 8));
    return true;
}

void sim_disk_lose_power(struct sim_disk *disk)
{
    for (struct list_node *node = list_first(&disk->sim->hosts); node != NULL;
         node = list_next(&disk->sim->hosts, node)) {
        const struct io *host = container_of(node, struct io, node);
        assert(host->disk != disk || host->state != SIM_HOST_RUNS);
    }
    orphans_lose_power(disk);
    tree_lose_power(disk);
}

/* ---- what io.h asks at once ---- */

static struct sim_inode *inode_of(struct io *io, int handle)
{
    if (handle < 0 || (uint32_t)handle >= io->options.files_max || io->files[handle] == NULL)
        sim_breach(io, "no file has the handle %d", handle);
    return io->files[handle]->inode;
}

int io_make_directory(struct io *io, const char *path)
{
    if (io->state != SIM_HOST_RUNS)
        return -ESHUTDOWN;
    struct sim_inode *inode;
    int result = tree_find(io->disk, path, &inode);
    if (result == 0)
        return inode->is_directory ? 0 : -EEXIST;
    if (result != -ENOENT)
        return result;
    return tree_create(io->disk, path, true, &inode);
}

int io_remove_directory(struct io *io, const char *path)
{
    return io->state == SIM_HOST_RUNS ? tree_remove_directory(io->disk, path) : -ESHUTDOWN;
}

int io_list_directory(struct io *io, const char *path, io_list_each *each, void *context)
{
    if (io->state != SIM_HOST_RUNS)
        return -ESHUTDOWN;
    struct sim_inode *inode;
    int result = tree_find(io->disk, path, &inode);
    if (result < 0)
        return result;
    if (!inode->is_directory)
        return -ENOTDIR;
    for (uint32_t i = 0; result == 0 && i < inode->now.count; i++)
        result = each(context, inode->now.entries[i].name);
    return result;
}

int64_t io_file_size(struct io *io, int file)
{
    return io->state == SIM_HOST_RUNS ? (int64_t)inode_of(io, file)->size : -ESHUTDOWN;
}

bool io_file_is_direct(struct io *io, int file)
{
    if (io->state != SIM_HOST_RUNS)
        return false;
    (void)inode_of(io, file);
    return io->files[file]->flags & IO_OPEN_DIRECT;
}

int io_identify(struct io *io, const char *path, struct io_file_identity *ret_identity)
{
    if (io->state != SIM_HOST_RUNS)
        return -ESHUTDOWN;
    struct sim_inode *inode;
    int result = tree_find(io->disk, path, &inode);
    if (result == 0)
        *ret_identity = (struct io_file_identity){.inode = inode->number};
    return result;
}

int io_disk_space(struct io *io, const char *path, uint64_t *ret_free, uint64_t *ret_total)
{
    if (io->state != SIM_HOST_RUNS)
        return -ESHUTDOWN;
    struct sim_inode *inode;
    int result = tree_find(io->disk, path, &inode);
    if (result < 0)
        return result;
    uint64_t taken = tree_space(io->disk);
    *ret_total = io->disk->options.capacity;
    *ret_free = *ret_total > taken ? *ret_total - taken : 0;
    return 0;
}

const char *io_file_system(struct io *io, const char *path)
{
    (void)io;
    (void)path;
    return "ext4";
}

int io_lock_file(struct io *io, int file)
{
    if (io->state != SIM_HOST_RUNS)
        return -ESHUTDOWN;
    struct sim_inode *inode = inode_of(io, file);
    if (inode->locked_by != NULL && inode->locked_by != io->files[file])
        return -EWOULDBLOCK;
    inode->locked_by = io->files[file];
    return 0;
}

/* ---- the end of a process ---- */

static void zombie_free(struct sim_zombie *zombie)
{
    for (struct list_node *node; (node = list_pop_front(&zombie->files)) != NULL;)
        file_free(container_of(node, struct sim_file, node));
    free(zombie);
}

static void orphan_free(struct sim_orphan *orphan)
{
    sim_unschedule(orphan->disk->sim, &orphan->event);
    list_remove(&orphan->node);
    orphan->inode->opens--;
    if (--orphan->zombie->writes == 0)
        zombie_free(orphan->zombie);
    free(orphan->data);
    free(orphan);
}

static void orphan_lands(struct sim_event *event)
{
    struct sim_orphan *orphan = container_of(event, struct sim_orphan, event);
    struct sim_disk *disk = orphan->disk;
    sim_note(disk->sim, 0, "late write", (int64_t)orphan->offset, (int64_t)orphan->size);
    uint64_t sequence = ++disk->sequence;
    if (prng_below(&disk->sim->prng, 4) == 0)
        inode_write_torn(disk->sim, orphan->inode, orphan->data, orphan->size, orphan->offset,
                         sequence, orphan->is_durable);
    else
        inode_write(orphan->inode, orphan->data, orphan->size, orphan->offset, sequence,
                    orphan->is_durable);
    orphan_free(orphan);
}

static void orphan_write(struct sim_op *op, struct sim_zombie *zombie)
{
    struct sim_disk *disk = op->io->disk;
    struct sim_orphan *orphan = sim_allocate(sizeof *orphan);
    orphan->event.fire = orphan_lands;
    orphan->disk = disk;
    orphan->inode = op->file->inode;
    orphan->inode->opens++;
    orphan->zombie = zombie;
    orphan->data = sim_allocate(op->size);
    memcpy(orphan->data, op->buffer, op->size);
    orphan->size = op->size;
    orphan->offset = op->offset;
    orphan->is_durable = op->flags & IO_WRITE_DSYNC;
    zombie->writes++;
    list_push_back(&disk->orphans, &orphan->node);
    sim_schedule(disk->sim, &orphan->event,
                 disk->sim->now_ns + sim_delay(disk->sim, ORPHAN_NS_MAX));
}

void orphans_lose_power(struct sim_disk *disk)
{
    for (struct list_node *node; (node = list_first(&disk->orphans)) != NULL;) {
        struct sim_orphan *orphan = container_of(node, struct sim_orphan, node);
        inode_write_torn(disk->sim, orphan->inode, orphan->data, orphan->size, orphan->offset, 0,
                         true);
        orphan_free(orphan);
    }
}

/* A write that was in flight when the power went. */
static void tear_write(struct sim_op *op)
{
    inode_write_torn(op->io->sim, op->file->inode, op->buffer, op->size, op->offset, 0, true);
}

static void crash_operation(struct sim_op *op, enum sim_crash crash, struct sim_zombie *zombie)
{
    if (op->kind < SIM_OPEN || op->is_done)
        return;
    bool is_lucky = prng_below(&op->io->sim->prng, 2) == 0;
    if (op->kind == SIM_WRITE && crash == SIM_POWER_LOSS)
        tear_write(op);
    else if (op->kind == SIM_WRITE)
        orphan_write(op, zombie);
    else if (op->kind != SIM_READ && is_lucky)
        (void)file_apply(op);
}

static void give_back_files(struct io *io, struct sim_zombie *zombie)
{
    for (uint32_t i = 0; i < io->options.files_max; i++) {
        if (io->files[i] == NULL)
            continue;
        list_push_back(&zombie->files, &io->files[i]->node);
        io->files[i] = NULL;
    }
    if (zombie->writes == 0)
        zombie_free(zombie);
}

void files_crash(struct io *io, enum sim_crash crash)
{
    struct sim_zombie *zombie = sim_allocate(sizeof *zombie);
    list_init(&zombie->files);
    for (struct list_node *node = list_first(&io->active); node != NULL;
         node = list_next(&io->active, node))
        crash_operation(container_of(node, struct sim_op, node), crash, zombie);
    give_back_files(io, zombie);
}

/* An orderly end: what was in flight happened or was cancelled. */
void files_close(struct io *io)
{
    struct sim_zombie *zombie = sim_allocate(sizeof *zombie);
    list_init(&zombie->files);
    for (struct list_node *node = list_first(&io->active); node != NULL;
         node = list_next(&io->active, node)) {
        struct sim_op *op = container_of(node, struct sim_op, node);
        if (op->kind >= SIM_OPEN && !op->is_done && prng_below(&io->sim->prng, 2) == 0)
            (void)file_apply(op);
    }
    give_back_files(io, zombie);
}
