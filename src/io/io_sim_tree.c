/* Directories: what is seen, what is on media, and the changes in between that no sync has covered.
 *
 * A change sets or removes names. At a power loss each happened or not, by itself, in the order of
 * their time, so that a name has the inode of the last change of it that happened, and an inode has
 * one name at most. */
#include "base/hash.h"
#include "io/io_sim_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAME_SIZE 256

/* ---- the entries of a directory ---- */

/* Comparing hashes first makes large directories bearable. */
static uint64_t hash_name(const char *name)
{
    return hash_key((const uint8_t *)name, strlen(name));
}

static bool is_named(const struct sim_entry *entry, uint64_t hash, const char *name)
{
    return entry->hash == hash && strcmp(entry->name, name) == 0;
}

static struct sim_inode *directory_find(const struct sim_directory *directory, const char *name)
{
    uint64_t hash = hash_name(name);
    for (uint32_t i = 0; i < directory->count; i++) {
        if (is_named(&directory->entries[i], hash, name))
            return directory->entries[i].inode;
    }
    return NULL;
}

static void directory_remove_at(struct sim_directory *directory, uint32_t at)
{
    free(directory->entries[at].name);
    directory->entries[at] = directory->entries[--directory->count];
}

static void directory_remove(struct sim_directory *directory, const char *name)
{
    uint64_t hash = hash_name(name);
    for (uint32_t i = 0; i < directory->count; i++) {
        if (is_named(&directory->entries[i], hash, name)) {
            directory_remove_at(directory, i);
            return;
        }
    }
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

static void directory_copy(struct sim_directory *target, const struct sim_directory *source)
{
    while (target->count > 0)
        directory_remove_at(target, target->count - 1);
    for (uint32_t i = 0; i < source->count; i++)
        directory_set(target, source->entries[i].name, source->entries[i].inode);
}

static void directory_free(struct sim_directory *directory)
{
    while (directory->count > 0)
        directory_remove_at(directory, directory->count - 1);
    free(directory->entries);
}

/* ---- inodes and paths ---- */

static struct sim_inode *inode_create(struct sim_disk *disk, bool is_directory)
{
    struct sim_inode *inode = sim_allocate(sizeof *inode);
    inode->number = ++disk->inodes_count;
    inode->is_directory = is_directory;
    list_init(&inode->dirty);
    list_push_back(&disk->inodes, &inode->node);
    return inode;
}

static void inode_delete(struct sim_inode *inode)
{
    directory_free(&inode->now);
    directory_free(&inode->durable);
    inode_free(inode);
}

void tree_init(struct sim_disk *disk)
{
    list_init(&disk->inodes);
    list_init(&disk->changes);
    list_init(&disk->orphans);
    disk->root = inode_create(disk, true);
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

/* Finds the directory that has, or would have, the last name of a path. The root has none:
 * *ret_name is "". */
static int find_parent(struct sim_disk *disk, const char *path, struct sim_inode **ret_parent,
                       char *ret_name)
{
    struct sim_inode *at = disk->root;
    char name[NAME_SIZE];
    ret_name[0] = '\0';
    if (path[0] == '\0')
        return -ENOENT;
    for (;;) {
        int result = next_name(&path, name);
        if (result < 0)
            return result;
        if (result == 0)
            break;
        if (ret_name[0] != '\0') {
            at = directory_find(&at->now, ret_name);
            if (at == NULL)
                return -ENOENT;
            if (!at->is_directory)
                return -ENOTDIR;
        }
        memcpy(ret_name, name, NAME_SIZE);
    }
    *ret_parent = at;
    return 0;
}

int tree_find(struct sim_disk *disk, const char *path, struct sim_inode **ret_inode)
{
    struct sim_inode *parent;
    char name[NAME_SIZE];
    int result = find_parent(disk, path, &parent, name);
    if (result < 0)
        return result;
    struct sim_inode *inode = name[0] == '\0' ? parent : directory_find(&parent->now, name);
    if (inode == NULL)
        return -ENOENT;
    *ret_inode = inode;
    return 0;
}

/* ---- changes ---- */

static void change_add(struct sim_disk *disk, struct sim_inode *inode, struct sim_inode *from,
                       const char *from_name, struct sim_inode *to, const char *to_name)
{
    struct sim_change *change = sim_allocate(sizeof *change);
    change->sequence = ++disk->sequence;
    change->inode = inode;
    change->from = from;
    change->to = to;
    change->from_name = from != NULL ? strdup(from_name) : NULL;
    change->to_name = to != NULL ? strdup(to_name) : NULL;
    list_push_back(&disk->changes, &change->node);
}

static void change_free(struct sim_change *change)
{
    list_remove(&change->node);
    free(change->from_name);
    free(change->to_name);
    free(change);
}

static void change_apply(struct sim_change *change)
{
    if (change->from != NULL &&
        directory_find(&change->from->durable, change->from_name) == change->inode)
        directory_remove(&change->from->durable, change->from_name);
    if (change->to == NULL)
        return;
    directory_remove_inode(&change->to->durable, change->inode);
    directory_set(&change->to->durable, change->to_name, change->inode);
}

int tree_create(struct sim_disk *disk, const char *path, bool is_directory,
                struct sim_inode **ret_inode)
{
    struct sim_inode *parent;
    char name[NAME_SIZE];
    int result = find_parent(disk, path, &parent, name);
    if (result < 0)
        return result;
    if (name[0] == '\0' || directory_find(&parent->now, name) != NULL)
        return -EEXIST;
    struct sim_inode *inode = inode_create(disk, is_directory);
    directory_set(&parent->now, name, inode);
    change_add(disk, inode, NULL, NULL, parent, name);
    *ret_inode = inode;
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
    struct sim_inode *source;
    struct sim_inode *target;
    char source_name[NAME_SIZE];
    char target_name[NAME_SIZE];
    int result = find_parent(disk, from, &source, source_name);
    if (result == 0)
        result = find_parent(disk, to, &target, target_name);
    if (result < 0)
        return result;
    if (source_name[0] == '\0' || target_name[0] == '\0')
        return -EBUSY;
    struct sim_inode *inode = directory_find(&source->now, source_name);
    struct sim_inode *victim = directory_find(&target->now, target_name);
    result = check_rename(inode, victim);
    if (result < 0 || inode == victim)
        return result;
    directory_remove(&source->now, source_name);
    directory_set(&target->now, target_name, inode);
    change_add(disk, inode, source, source_name, target, target_name);
    return 0;
}

int tree_unlink(struct sim_disk *disk, const char *path)
{
    struct sim_inode *parent;
    char name[NAME_SIZE];
    int result = find_parent(disk, path, &parent, name);
    if (result < 0)
        return result;
    struct sim_inode *inode = name[0] == '\0' ? parent : directory_find(&parent->now, name);
    if (inode == NULL)
        return -ENOENT;
    if (inode->is_directory)
        return -EISDIR;
    directory_remove(&parent->now, name);
    change_add(disk, inode, parent, name, NULL, NULL);
    return 0;
}

int tree_remove_directory(struct sim_disk *disk, const char *path)
{
    struct sim_inode *parent;
    char name[NAME_SIZE];
    int result = find_parent(disk, path, &parent, name);
    if (result < 0)
        return result;
    struct sim_inode *inode = name[0] == '\0' ? NULL : directory_find(&parent->now, name);
    if (inode == NULL)
        return name[0] == '\0' ? -EBUSY : -ENOENT;
    if (!inode->is_directory)
        return -ENOTDIR;
    if (inode->now.count > 0)
        return -ENOTEMPTY;
    directory_remove(&parent->now, name);
    change_add(disk, inode, parent, name, NULL, NULL);
    return 0;
}

void tree_sync(struct sim_disk *disk, struct sim_inode *directory, uint64_t sequence)
{
    for (struct list_node *node = list_first(&disk->changes), *next; node != NULL; node = next) {
        next = list_next(&disk->changes, node);
        struct sim_change *change = container_of(node, struct sim_change, node);
        if (change->from != directory && change->to != directory)
            continue;
        if (change->sequence > sequence && prng_below(sim_prng(disk->sim), 2) == 0)
            break; /* what follows may be about the same names */
        change_apply(change);
        change_free(change);
    }
    tree_sweep(disk);
}

void tree_lose_power(struct sim_disk *disk)
{
    /* One disk in three loses all of them, one none, one each by itself. */
    uint64_t kept_of_4 = 2 * prng_below(sim_prng(disk->sim), 3);
    for (struct list_node *node; (node = list_first(&disk->changes)) != NULL;) {
        struct sim_change *change = container_of(node, struct sim_change, node);
        if (prng_below(sim_prng(disk->sim), 4) < kept_of_4)
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
    tree_sweep(disk);
}

/* ---- what nothing leads to ---- */

static bool reach(struct sim_inode *inode)
{
    bool is_new = !inode->is_reached;
    inode->is_reached = true;
    return is_new;
}

static bool reach_children(struct sim_inode *inode)
{
    bool found = false;
    for (uint32_t i = 0; i < inode->now.count; i++)
        found |= reach(inode->now.entries[i].inode);
    for (uint32_t i = 0; i < inode->durable.count; i++)
        found |= reach(inode->durable.entries[i].inode);
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
        struct sim_change *change = container_of(node, struct sim_change, node);
        (void)reach(change->inode);
        if (change->from != NULL)
            (void)reach(change->from);
        if (change->to != NULL)
            (void)reach(change->to);
    }
}

void tree_sweep(struct sim_disk *disk)
{
    mark_roots(disk);
    for (bool found = true; found;) {
        found = false;
        for (struct list_node *node = list_first(&disk->inodes); node != NULL;
             node = list_next(&disk->inodes, node)) {
            struct sim_inode *inode = container_of(node, struct sim_inode, node);
            if (inode->is_reached)
                found |= reach_children(inode);
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
        change_free(container_of(node, struct sim_change, node));
    for (struct list_node *node; (node = list_pop_front(&disk->inodes)) != NULL;)
        inode_delete(container_of(node, struct sim_inode, node));
}
