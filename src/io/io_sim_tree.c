/* Directories: what is seen, what is on media, and the changes in between that no sync has covered.
 *
 * A change sets or removes names. At a power loss each happened or not, by itself, in the order of
 * their time, so that a name has the inode of the last change of it that happened, and an inode has
 * one name at most. */
#include "io/io_sim_tree.h"

#include "base/hash.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAME_SIZE 256

/* What a path leads to. */
struct place {
    struct sim_inode *parent;
    struct sim_inode *inode; /* NULL: there is none */
    char name[NAME_SIZE];    /* in the parent; the root has none */
};

/* A change of directories that no sync has covered: from one name, to another, or one of both. */
struct change {
    struct list_node node;
    uint64_t sequence;
    struct sim_inode *inode;
    struct place from; /* no parent: it had no name */
    struct place to;
};

/* ---- the entries of a directory ---- */

/* Comparing hashes first makes large directories bearable. */
static uint64_t hash_name(const char *name)
{
    return hash_key((const uint8_t *)name, strlen(name));
}

/* The entry's index, or `count`. */
static uint32_t directory_search(const struct sim_directory *directory, const char *name)
{
    uint64_t hash = hash_name(name);
    uint32_t i = 0;
    while (i < directory->count &&
           (directory->entries[i].hash != hash || strcmp(directory->entries[i].name, name) != 0))
        i++;
    return i;
}

static struct sim_inode *directory_find(const struct sim_directory *directory, const char *name)
{
    uint32_t i = directory_search(directory, name);
    return i < directory->count ? directory->entries[i].inode : NULL;
}

static void directory_remove_at(struct sim_directory *directory, uint32_t at)
{
    free(directory->entries[at].name);
    directory->entries[at] = directory->entries[--directory->count];
}

static void directory_remove(struct sim_directory *directory, const char *name)
{
    uint32_t i = directory_search(directory, name);
    if (i < directory->count)
        directory_remove_at(directory, i);
}

static void directory_remove_inode(struct sim_directory *directory, const struct sim_inode *inode)
{
    for (uint32_t i = directory->count; i > 0; i--) {
        if (directory->entries[i - 1].inode == inode)
            directory_remove_at(directory, i - 1);
    }
}

static void directory_set(struct sim_directory *directory, const char *name,
                          struct sim_inode *inode)
{
    directory_remove(directory, name);
    if (directory->count == directory->capacity) {
        directory->capacity = 2 * directory->capacity + 8;
        directory->entries =
            realloc(directory->entries, directory->capacity * sizeof *directory->entries);
        assert(directory->entries != NULL);
    }
    char *copy = strdup(name);
    assert(copy != NULL);
    directory->entries[directory->count++] = (struct sim_entry){copy, hash_name(name), inode};
}

static void directory_clear(struct sim_directory *directory)
{
    while (directory->count > 0)
        directory_remove_at(directory, directory->count - 1);
}

static void directory_copy(struct sim_directory *target, const struct sim_directory *source)
{
    directory_clear(target);
    for (uint32_t i = 0; i < source->count; i++)
        directory_set(target, source->entries[i].name, source->entries[i].inode);
}

/* ---- inodes and paths ---- */

static struct sim_inode *inode_create(struct sim_disk *disk, bool is_directory)
{
    struct sim_inode *inode = sim_allocate(sizeof *inode);
    inode->is_directory = is_directory;
    list_init(&inode->dirty);
    list_push_back(&disk->inodes, &inode->node);
    return inode;
}

static void inode_delete(struct sim_inode *inode)
{
    directory_clear(&inode->now);
    directory_clear(&inode->durable);
    free(inode->now.entries);
    free(inode->durable.entries);
    inode_free(inode);
}

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
    list_init(&disk->inodes);
    list_init(&disk->changes);
    list_init(&disk->orphans);
    list_init(&disk->hosts);
    list_init(&disk->peers);
    disk->root = inode_create(disk, true);
    list_push_back(sim_disks(sim), &disk->node);
    return disk;
}

struct sim_disk_options *sim_disk_options(struct sim_disk *disk)
{
    return &disk->options;
}

/* Takes the next name off *path. 0: there was none; errors: -ENAMETOOLONG, -EINVAL (".."). */
static int next_name(const char **path, char *ret_name)
{
    for (;;) {
        while (**path == '/')
            (*path)++;
        size_t size = strcspn(*path, "/");
        if (size == 0)
            return 0;
        if (size >= NAME_SIZE)
            return -ENAMETOOLONG;
        memcpy(ret_name, *path, size);
        ret_name[size] = '\0';
        *path += size;
        if (strcmp(ret_name, "..") == 0)
            return -EINVAL;
        if (strcmp(ret_name, ".") != 0)
            return 1;
    }
}

/* Errors: -ENOENT, -ENOTDIR (no directory could have the last name), next_name's. */
static int look_up(struct sim_disk *disk, const char *path, struct place *ret_place)
{
    struct place place = {.inode = disk->root};
    char name[NAME_SIZE];
    if (path[0] == '\0')
        return -ENOENT;
    for (int result; (result = next_name(&path, name)) != 0;) {
        if (result < 0)
            return result;
        if (place.inode == NULL)
            return -ENOENT;
        if (!place.inode->is_directory)
            return -ENOTDIR;
        place.parent = place.inode;
        place.inode = directory_find(&place.parent->now, name);
        memcpy(place.name, name, NAME_SIZE);
    }
    *ret_place = place;
    return 0;
}

int tree_find(struct sim_disk *disk, const char *path, struct sim_inode **ret_inode)
{
    struct place place;
    int result = look_up(disk, path, &place);
    if (result < 0)
        return result;
    if (place.inode == NULL)
        return -ENOENT;
    *ret_inode = place.inode;
    return 0;
}

/* ---- changes ---- */

/* Moves an inode, or sets or removes its name (`from` or `to` is NULL). */
static void change_add(struct sim_disk *disk, struct sim_inode *inode, const struct place *from,
                       const struct place *to)
{
    struct change *change = sim_allocate(sizeof *change);
    change->sequence = ++disk->sequence;
    change->inode = inode;
    if (from != NULL) {
        change->from = *from;
        directory_remove(&from->parent->now, from->name);
    }
    if (to != NULL) {
        change->to = *to;
        directory_set(&to->parent->now, to->name, inode);
    }
    list_push_back(&disk->changes, &change->node);
}

static void change_free(struct change *change)
{
    list_remove(&change->node);
    free(change);
}

static void change_apply(const struct change *change)
{
    const struct place *from = &change->from;
    const struct place *to = &change->to;
    if (from->parent != NULL && directory_find(&from->parent->durable, from->name) == change->inode)
        directory_remove(&from->parent->durable, from->name);
    if (to->parent == NULL)
        return;
    directory_remove_inode(&to->parent->durable, change->inode);
    directory_set(&to->parent->durable, to->name, change->inode);
}

int tree_create(struct sim_disk *disk, const char *path, bool is_directory,
                struct sim_inode **ret_inode)
{
    struct place place;
    int result = look_up(disk, path, &place);
    if (result < 0)
        return result;
    if (place.inode != NULL)
        return -EEXIST;
    *ret_inode = inode_create(disk, is_directory);
    change_add(disk, *ret_inode, NULL, &place);
    return 0;
}

static int check_rename(const struct sim_inode *inode, const struct sim_inode *target)
{
    if (inode == NULL)
        return -ENOENT;
    if (target == NULL)
        return 0;
    if (target->is_directory && !inode->is_directory)
        return -EISDIR;
    if (!target->is_directory && inode->is_directory)
        return -ENOTDIR;
    return target->is_directory && target->now.count > 0 ? -ENOTEMPTY : 0;
}

int tree_rename(struct sim_disk *disk, const char *from, const char *to)
{
    struct place source;
    struct place target;
    int result = look_up(disk, from, &source);
    if (result == 0)
        result = look_up(disk, to, &target);
    if (result < 0)
        return result;
    if (source.parent == NULL || target.parent == NULL)
        return -EBUSY; /* the root */
    result = check_rename(source.inode, target.inode);
    if (result < 0 || source.inode == target.inode)
        return result;
    change_add(disk, source.inode, &source, &target);
    return 0;
}

int tree_remove(struct sim_disk *disk, const char *path, bool is_directory)
{
    struct place place;
    int result = look_up(disk, path, &place);
    if (result < 0)
        return result;
    if (place.inode == NULL)
        return -ENOENT;
    if (place.inode->is_directory && !is_directory)
        return -EISDIR;
    if (place.parent == NULL)
        return -EBUSY; /* the root */
    if (!place.inode->is_directory && is_directory)
        return -ENOTDIR;
    if (place.inode->now.count > 0)
        return -ENOTEMPTY;
    change_add(disk, place.inode, &place, NULL);
    return 0;
}

/* ---- what nothing leads to ---- */

static bool reach(const struct sim_directory *directory)
{
    bool found = false;
    for (uint32_t i = 0; i < directory->count; i++) {
        struct sim_inode *inode = directory->entries[i].inode;
        found |= !inode->is_reached;
        inode->is_reached = true;
    }
    return found;
}

static void mark_roots(struct sim_disk *disk)
{
    for (struct list_node *node = list_first(&disk->inodes); node != NULL;
         node = list_next(&disk->inodes, node)) {
        struct sim_inode *inode = container_of(node, struct sim_inode, node);
        inode->is_reached = inode == disk->root || inode->opens > 0;
    }
    for (struct list_node *node = list_first(&disk->changes); node != NULL;
         node = list_next(&disk->changes, node)) {
        struct change *change = container_of(node, struct change, node);
        change->inode->is_reached = true;
        if (change->from.parent != NULL)
            change->from.parent->is_reached = true;
        if (change->to.parent != NULL)
            change->to.parent->is_reached = true;
    }
}

/* Frees what no name, change or open file leads to. */
static void sweep(struct sim_disk *disk)
{
    mark_roots(disk);
    for (bool found = true; found;) {
        found = false;
        for (struct list_node *node = list_first(&disk->inodes); node != NULL;
             node = list_next(&disk->inodes, node)) {
            struct sim_inode *inode = container_of(node, struct sim_inode, node);
            if (!inode->is_reached)
                continue;
            found = reach(&inode->now) || found;
            found = reach(&inode->durable) || found;
        }
    }
    for (struct list_node *node = list_first(&disk->inodes), *next; node != NULL; node = next) {
        next = list_next(&disk->inodes, node);
        struct sim_inode *inode = container_of(node, struct sim_inode, node);
        if (!inode->is_reached) {
            list_remove(&inode->node);
            inode_delete(inode);
        }
    }
}

/* ---- what is on media ---- */

void tree_sync(struct sim_disk *disk, struct sim_inode *directory, uint64_t sequence)
{
    for (struct list_node *node = list_first(&disk->changes), *next; node != NULL; node = next) {
        next = list_next(&disk->changes, node);
        struct change *change = container_of(node, struct change, node);
        if (change->from.parent != directory && change->to.parent != directory)
            continue;
        if (change->sequence > sequence && sim_below(disk->sim, 2) == 0)
            break; /* what follows may be about the same names */
        change_apply(change);
        change_free(change);
    }
    sweep(disk);
}

void tree_lose_power(struct sim_disk *disk)
{
    /* One disk in three loses all of them, one none, one each by itself. */
    uint64_t kept_of_4 = 2 * sim_below(disk->sim, 3);
    for (struct list_node *node; (node = list_first(&disk->changes)) != NULL;) {
        struct change *change = container_of(node, struct change, node);
        if (sim_below(disk->sim, 4) < kept_of_4)
            change_apply(change);
        change_free(change);
    }
    for (struct list_node *node = list_first(&disk->inodes); node != NULL;
         node = list_next(&disk->inodes, node)) {
        struct sim_inode *inode = container_of(node, struct sim_inode, node);
        if (inode->is_directory)
            directory_copy(&inode->now, &inode->durable);
        else
            inode_lose_power(disk->sim, inode);
    }
    sweep(disk);
}

/* ---- the whole disk ---- */

static uint64_t space_of_children(const struct sim_inode *directory)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < directory->now.count; i++)
        sum += directory->now.entries[i].inode->reserved + PAGE_SIZE;
    return sum;
}

uint64_t tree_space(const struct sim_disk *disk)
{
    uint64_t sum = 0;
    for (struct list_node *node = list_first(&disk->inodes); node != NULL;
         node = list_next(&disk->inodes, node)) {
        const struct sim_inode *inode = container_of(node, struct sim_inode, node);
        if (inode->is_directory)
            sum += space_of_children(inode);
    }
    return sum;
}

void tree_free(struct sim_disk *disk)
{
    for (struct list_node *node; (node = list_first(&disk->changes)) != NULL;)
        change_free(container_of(node, struct change, node));
    for (struct list_node *node; (node = list_pop_front(&disk->inodes)) != NULL;)
        inode_delete(container_of(node, struct sim_inode, node));
    list_remove(&disk->node);
    free(disk);
}
