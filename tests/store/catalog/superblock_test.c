/* The superblock: its format by itself, and formatting and opening directories in the real world.
 */
#include "store/catalog/superblock.h"

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/units.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCK 4096
#define LOG_FILE_SIZE (16 * MIB)

/* ---- one copy ---- */

static struct superblock sample(void)
{
    struct superblock superblock = {
        .format = SUPERBLOCK_FORMAT,
        .sequence = 77,
        .directory_id = 0x1122334455667788,
        .cluster_id = 2,
        .cluster_epoch = 3,
        .clock_ceiling = UINT64_MAX,
        .log_file_size = LOG_FILE_SIZE,
        .damage_accepted = 5,
        .probed = true,
        .use_dsync = false,
        .writes_in_flight = 2,
        .clean = true,
        .log_last = 1001,
        .log_number = 12,
        .manifest_salt = 0xABCDEF0123456789,
        .manifest_blocks = 44,
        .manifest_edition = 3,
        .shard_count = 256,
        .shard = 255,
        .log_base = 1000,
        .segment_base = 1ull << 60,
        .shards_before = 7,
        .start_number = 1ull << 40 | 9,
    };
    for (uint32_t i = 0; i < HASH_SECRET_SIZE; i++)
        superblock.secret[i] = (uint8_t)(i * 7);
    return superblock;
}

/* Makes a changed block valid again. */
static void seal(uint8_t *block)
{
    store_u32(block + 8, crc32c(block + 12, BLOCK - 12));
}

Test(superblock, what_is_encoded_is_decoded)
{
    uint8_t block[BLOCK];
    uint8_t again[BLOCK];
    struct superblock written = sample();
    struct superblock found;
    superblock_encode(&written, block);
    cr_assert_eq(superblock_decode(block, &found), 0);
    cr_expect_eq(found.format, written.format);
    cr_expect_eq(found.sequence, written.sequence);
    cr_expect_eq(found.directory_id, written.directory_id);
    cr_expect_eq(found.cluster_id, written.cluster_id);
    cr_expect_eq(found.cluster_epoch, written.cluster_epoch);
    cr_expect_eq(found.clock_ceiling, written.clock_ceiling);
    cr_expect_eq(found.log_file_size, written.log_file_size);
    cr_expect_eq(found.damage_accepted, written.damage_accepted);
    cr_expect(found.probed && !found.use_dsync && found.clean);
    cr_expect_eq(found.writes_in_flight, 2);
    cr_expect_arr_eq(found.secret, written.secret, HASH_SECRET_SIZE);
    cr_expect_eq(found.log_last, 1001);
    cr_expect_eq(found.log_number, 12);
    cr_expect_eq(found.manifest_salt, written.manifest_salt);
    cr_expect_eq(found.manifest_blocks, 44);
    cr_expect_eq(found.manifest_edition, 3);
    cr_expect_eq(found.shard_count, 256);
    cr_expect_eq(found.shard, 255);
    cr_expect_eq(found.log_base, 1000);
    cr_expect_eq(found.segment_base, 1ull << 60);
    cr_expect_eq(found.shards_before, 7);
    cr_expect_eq(found.start_number, 1ull << 40 | 9);
    superblock_encode(&found, again);
    cr_expect_arr_eq(again, block, BLOCK);
}

Test(superblock, every_flipped_bit_is_noticed)
{
    uint8_t block[BLOCK];
    struct superblock written = sample();
    superblock_encode(&written, block);
    for (uint32_t bit = 0; bit < BLOCK * 8; bit++) {
        struct superblock found;
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(superblock_decode(block, &found), -EBADMSG, "bit %u", bit);
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

Test(superblock, a_torn_copy_is_noticed_at_every_sector)
{
    uint8_t before[BLOCK];
    uint8_t after[BLOCK];
    struct superblock written = sample();
    superblock_encode(&written, before);
    written.sequence += 2;
    superblock_encode(&written, after);
    uint8_t torn[BLOCK];
    struct superblock found;
    /* All that differs is in the first sector, so tear within it. */
    for (uint32_t size = 13; size < 17; size++) {
        memcpy(torn, before, BLOCK);
        memcpy(torn, after, size);
        cr_expect_eq(superblock_decode(torn, &found), -EBADMSG, "%u bytes", size);
    }
    memset(torn, 0, BLOCK);
    cr_expect_eq(superblock_decode(torn, &found), -EBADMSG, "never written");
    for (uint32_t size = 512; size < BLOCK; size += 512) {
        memcpy(torn, before, BLOCK);
        memset(torn + size, 0xFF, BLOCK - size);
        cr_expect_eq(superblock_decode(torn, &found), -EBADMSG, "%u bytes", size);
    }
}

Test(superblock, what_this_program_does_not_know_is_refused)
{
    uint8_t block[BLOCK];
    struct superblock written = sample();
    struct superblock found;
    uint32_t offsets[] = {72,  73,  75,   340,
                          343, 352, 2000, BLOCK - 1}; /* flags, and what is 0 today */
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        superblock_encode(&written, block);
        block[offsets[i]] |= 0x80;
        seal(block);
        cr_expect_eq(superblock_decode(block, &found), -EPROTONOSUPPORT, "offset %u", offsets[i]);
    }
    written.format = SUPERBLOCK_FORMAT + 1;
    superblock_encode(&written, block);
    cr_expect_eq(superblock_decode(block, &found), -EPROTONOSUPPORT);
    cr_expect_eq(found.format, SUPERBLOCK_FORMAT + 1);
}

Test(superblock, nonsense_under_a_sound_checksum_is_refused)
{
    uint8_t block[BLOCK];
    struct superblock written = sample();
    struct superblock found;
    uint64_t log_file_sizes[] = {0, 4095, 4097, 2 * GIB + 4096, UINT64_MAX - 4095};
    for (size_t i = 0; i < sizeof log_file_sizes / sizeof log_file_sizes[0]; i++) {
        superblock_encode(&written, block);
        store_u64(block + 56, log_file_sizes[i]);
        seal(block);
        cr_expect_eq(superblock_decode(block, &found), -EBADMSG, "%lu", log_file_sizes[i]);
    }
    uint32_t writes_in_flight[] = {0, 3, 256 + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof writes_in_flight / sizeof writes_in_flight[0]; i++) {
        superblock_encode(&written, block);
        store_u32(block + 76, writes_in_flight[i]);
        seal(block);
        cr_expect_eq(superblock_decode(block, &found), -EBADMSG, "%u", writes_in_flight[i]);
    }
}

Test(superblock, origin_of_nobody_is_no_directorys)
{
    uint8_t block[BLOCK];
    struct superblock written = sample();
    struct superblock found;
    written.directory_id = 0x1122334455FFFFFF;
    superblock_encode(&written, block);
    cr_expect_eq(superblock_decode(block, &found), -EBADMSG);
    cr_expect_eq(superblock_directory_id(0x1122334455FFFFFF), 0x1122334455FFFFFE);
    cr_expect_eq(superblock_directory_id(UINT64_MAX) & 0xFFFFFF, 0xFFFFFE);
    cr_expect_eq(superblock_directory_id(0xFFFFFFFFFFFFFF00), 0xFFFFFFFFFFFFFF00);
    cr_expect_eq(superblock_directory_id(0), 0);
}

Test(superblock, log_file_is_a_part_of_the_disk)
{
    static const struct {
        uint64_t disk;
        uint32_t shards;
        uint64_t size;
    } cases[] = {
        {0, 1, 4 * MIB},          {48 * MIB, 1, 4 * MIB},  {100 * MIB, 1, 6 * MIB},
        {256 * MIB, 1, 16 * MIB}, {256 * MIB, 3, 5 * MIB}, {256 * MIB, 8, 4 * MIB},
        {512 * MIB, 1, 32 * MIB}, {1 * GIB, 3, 21 * MIB},  {1 * GIB, 8, 8 * MIB},
        {4 * GIB, 8, 32 * MIB},   {8 * GIB, 256, 4 * MIB}, {65536 * GIB, 1, 32 * MIB},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        cr_expect_eq(superblock_log_file_size(cases[i].disk, cases[i].shards), cases[i].size, "%zu",
                     i);
}

Test(superblock, shard_is_one_of_those_that_there_are)
{
    static const uint32_t nonsense[][3] = {
        {0, 0, 0}, {0, 1, 0}, {4, 4, 0}, {257, 0, 0}, {1, 0, 257}};
    uint8_t block[BLOCK];
    struct superblock written = sample();
    struct superblock found;
    for (size_t i = 0; i < sizeof nonsense / sizeof nonsense[0]; i++) {
        written.shard_count = nonsense[i][0];
        written.shard = nonsense[i][1];
        written.shards_before = nonsense[i][2];
        superblock_encode(&written, block);
        cr_expect_eq(superblock_decode(block, &found), -EBADMSG, "%zu", i);
    }
    written.shard_count = 1;
    written.shard = written.shards_before = 0;
    superblock_encode(&written, block);
    cr_expect_eq(superblock_decode(block, &found), 0);
}

/* ---- the file ---- */

struct world {
    char root[64];
    char path[128];
    char said[4096]; /* what was logged */
    struct log log;
    struct io *io;
    struct superblock_birth birth;
    struct superblock_file file;
    bool formatted;
};

static void remember(void *context, const char *line, uint32_t size)
{
    struct world *world = context;
    size_t used = strlen(world->said);
    if (used + size < sizeof world->said)
        memcpy(world->said + used, line, size);
}

static struct world *world_open(void)
{
    struct world *world = calloc(1, sizeof *world);
    cr_assert_not_null(world);
    cr_assert(mkdir("build", 0777) == 0 || errno == EEXIST);
    (void)snprintf(world->root, sizeof world->root, "build/tmp-superblock-XXXXXX");
    cr_assert_not_null(mkdtemp(world->root));
    (void)snprintf(world->path, sizeof world->path, "%s/data", world->root);
    world->birth = (struct superblock_birth){LOG_FILE_SIZE, 1, NULL};
    world->log = (struct log){.level_min = LOG_WARN, .write = remember, .context = world};
    struct io_options options = {
        .sockets_max = 4, .files_max = 16, .receive_buffer_size = 4096, .receive_buffer_count = 4};
    char message[IO_ERROR_SIZE];
    cr_assert_eq(io_open(&options, &world->io, message), 0, "%s", message);
    return world;
}

static void world_close(struct world *world)
{
    char command[128];
    io_close(world->io);
    (void)snprintf(command, sizeof command, "rm -rf %s", world->root);
    cr_expect_eq(system(command), 0);
    free(world);
}

static int open_waiting(struct world *world, uint64_t wait_ns)
{
    memset(world->said, 0, sizeof world->said);
    return superblock_open(world->io, &world->log, world->path, &world->birth, wait_ns,
                           &world->file, &world->formatted);
}

static int open_now(struct world *world)
{
    return open_waiting(world, 0);
}

static bool said(const struct world *world, const char *text)
{
    return strstr(world->said, text) != NULL;
}

/* Reads or writes a copy of the superblock behind the program's back. */
static void copy_read(const struct world *world, uint32_t copy, uint8_t *block)
{
    char path[160];
    (void)snprintf(path, sizeof path, "%s/superblock", world->path);
    int file = open(path, O_RDONLY);
    cr_assert_geq(file, 0);
    cr_assert_eq(pread(file, block, BLOCK, copy * BLOCK), BLOCK);
    (void)close(file);
}

static void copy_write(const struct world *world, uint32_t copy, const uint8_t *block)
{
    char path[160];
    (void)snprintf(path, sizeof path, "%s/superblock", world->path);
    int file = open(path, O_WRONLY);
    cr_assert_geq(file, 0);
    cr_assert_eq(pwrite(file, block, BLOCK, copy * BLOCK), BLOCK);
    (void)close(file);
}

static void copy_damage(const struct world *world, uint32_t copy)
{
    uint8_t block[BLOCK];
    copy_read(world, copy, block);
    block[100] ^= 1;
    copy_write(world, copy, block);
}

static void touch(const struct world *world, const char *name)
{
    char path[192];
    (void)snprintf(path, sizeof path, "%s/%s", world->path, name);
    int file = open(path, O_WRONLY | O_CREAT, 0644);
    cr_assert_geq(file, 0);
    (void)close(file);
}

Test(superblock, a_new_directory_is_formatted_once)
{
    struct world *world = world_open();
    cr_assert_eq(open_now(world), 0, "%s", world->said);
    cr_expect(world->formatted);
    struct superblock first = world->file.now;
    cr_expect_eq(first.format, SUPERBLOCK_FORMAT);
    cr_expect_eq(first.log_file_size, LOG_FILE_SIZE);
    cr_expect(!first.probed);
    cr_expect_eq(first.cluster_id, 0);
    superblock_close(&world->file);
    touch(world, "other"); /* beside a superblock anything may stand */
    cr_assert_eq(open_now(world), 0, "%s", world->said);
    cr_expect(!world->formatted);
    cr_expect_eq(world->file.now.directory_id, first.directory_id);
    cr_expect_arr_eq(world->file.now.secret, first.secret, HASH_SECRET_SIZE);
    superblock_close(&world->file);
    cr_expect_str_empty(world->said);
    world_close(world);
}

Test(superblock, two_directories_have_two_identities)
{
    struct world *worlds[2] = {world_open(), world_open()};
    for (int i = 0; i < 2; i++)
        cr_assert_eq(open_now(worlds[i]), 0);
    cr_expect_neq(worlds[0]->file.now.directory_id, worlds[1]->file.now.directory_id);
    cr_expect_arr_neq(worlds[0]->file.now.secret, worlds[1]->file.now.secret, HASH_SECRET_SIZE);
    for (int i = 0; i < 2; i++) {
        superblock_close(&worlds[i]->file);
        world_close(worlds[i]);
    }
}

Test(superblock, directory_may_be_given_its_identity)
{
    struct superblock_identity identity = {.cluster_id = 0xC1057E4};
    for (uint32_t i = 0; i < HASH_SECRET_SIZE; i++)
        identity.secret[i] = (uint8_t)(200 - i);
    struct world *worlds[2] = {world_open(), world_open()};
    for (int i = 0; i < 2; i++) {
        worlds[i]->birth.identity = &identity;
        cr_assert_eq(open_now(worlds[i]), 0);
        superblock_close(&worlds[i]->file);
        worlds[i]->birth.identity = NULL; /* it is for formatting alone */
        cr_assert_eq(open_now(worlds[i]), 0);
        cr_expect_eq(worlds[i]->file.now.cluster_id, 0xC1057E4);
        cr_expect_arr_eq(worlds[i]->file.now.secret, identity.secret, HASH_SECRET_SIZE);
    }
    cr_expect_neq(worlds[0]->file.now.directory_id, worlds[1]->file.now.directory_id);
    for (int i = 0; i < 2; i++) {
        superblock_close(&worlds[i]->file);
        world_close(worlds[i]);
    }
}

Test(superblock, log_files_are_chosen_by_the_disk_once)
{
    struct world *world = world_open();
    world->birth.log_file_size = 0;
    world->birth.shard_count = 256;
    cr_assert_eq(open_now(world), 0, "%s", world->said);
    uint64_t free_size, total_size;
    cr_assert_eq(io_disk_space(world->io, world->path, &free_size, &total_size), 0);
    uint64_t size = superblock_log_file_size(total_size, 256);
    cr_expect_eq(world->file.now.log_file_size, size);
    superblock_close(&world->file);
    world->birth = (struct superblock_birth){4096, 1, NULL};
    cr_assert_eq(open_now(world), 0, "%s", world->said);
    cr_expect_eq(world->file.now.log_file_size, size);
    superblock_close(&world->file);
    world_close(world);
}

Test(superblock, a_path_is_taken_as_it_is_written)
{
    struct world *world = world_open();
    strcat(world->path, "//");
    cr_assert_eq(open_now(world), 0, "%s", world->said);
    superblock_close(&world->file);
    (void)snprintf(world->path, sizeof world->path, "%s/no/such", world->root);
    cr_expect_eq(open_now(world), -ENOENT);
    cr_expect(said(world, "no/such"));
    world_close(world);
}

Test(superblock, a_directory_of_something_else_is_left_alone)
{
    struct world *world = world_open();
    cr_assert_eq(mkdir(world->path, 0777), 0);
    touch(world, "lost+found");
    touch(world, "holiday.jpg");
    cr_expect_eq(open_now(world), -ENOTEMPTY);
    cr_expect(said(world, "not a minivault data directory") && said(world, "holiday.jpg"));
    char path[160];
    (void)snprintf(path, sizeof path, "%s/superblock", world->path);
    cr_expect_neq(access(path, F_OK), 0, "nothing may be created there");
    (void)snprintf(path, sizeof path, "%s/holiday.jpg", world->path);
    cr_assert_eq(unlink(path), 0);
    cr_expect_eq(open_now(world), 0, "lost+found belongs to the file system");
    superblock_close(&world->file);
    world_close(world);
}

Test(superblock, an_update_alternates_between_the_copies)
{
    struct world *world = world_open();
    cr_assert_eq(open_now(world), 0);
    for (uint64_t i = 1; i <= 5; i++) {
        uint8_t kept[BLOCK];
        uint8_t now[BLOCK];
        uint32_t newer = (uint32_t)(world->file.now.sequence % 2);
        copy_read(world, newer, kept);
        world->file.now.clock_ceiling = i;
        cr_assert_eq(superblock_update(&world->file), 0);
        copy_read(world, newer, now);
        cr_expect_arr_eq(now, kept, BLOCK, "the copy that was the newer one stays whole");
        superblock_close(&world->file);
        cr_assert_eq(open_now(world), 0);
        cr_expect_eq(world->file.now.clock_ceiling, i);
    }
    superblock_close(&world->file);
    world_close(world);
}

Test(superblock, a_damaged_copy_leaves_the_other_one)
{
    struct world *world = world_open();
    cr_assert_eq(open_now(world), 0);
    world->file.now.clock_ceiling = 1;
    cr_assert_eq(superblock_update(&world->file), 0);
    world->file.now.clock_ceiling = 2;
    cr_assert_eq(superblock_update(&world->file), 0);
    uint32_t newer = (uint32_t)(world->file.now.sequence % 2);
    superblock_close(&world->file);
    copy_damage(world, newer);
    cr_assert_eq(open_now(world), 0, "%s", world->said);
    cr_expect(!world->formatted);
    cr_expect_eq(world->file.now.clock_ceiling, 1);
    world->file.now.clock_ceiling = 3;
    cr_assert_eq(superblock_update(&world->file), 0, "into the damaged one");
    superblock_close(&world->file);
    copy_damage(world, 1 - newer);
    cr_assert_eq(open_now(world), 0);
    cr_expect_eq(world->file.now.clock_ceiling, 3);
    superblock_close(&world->file);
    world_close(world);
}

Test(superblock, damage_in_both_copies_beside_data_is_refused)
{
    struct world *world = world_open();
    cr_assert_eq(open_now(world), 0);
    superblock_close(&world->file);
    touch(world, "log");
    copy_damage(world, 0);
    copy_damage(world, 1);
    uint8_t before[2][BLOCK];
    for (uint32_t copy = 0; copy < 2; copy++)
        copy_read(world, copy, before[copy]);
    cr_expect_eq(open_now(world), -EBADMSG);
    cr_expect(said(world, "damaged in both copies") && said(world, "backup"));
    for (uint32_t copy = 0; copy < 2; copy++) {
        uint8_t after[BLOCK];
        copy_read(world, copy, after);
        cr_expect_arr_eq(after, before[copy], BLOCK);
    }
    world_close(world);
}

Test(superblock, another_format_in_either_copy_is_refused_with_both_numbers)
{
    const uint32_t formats[] = {1, 4711}; /* an older one and one to come */
    for (uint32_t i = 0; i < 4; i++) {
        struct world *world = world_open();
        uint32_t copy = i % 2;
        uint8_t block[BLOCK];
        char names[32];
        cr_assert_eq(open_now(world), 0);
        superblock_close(&world->file);
        copy_read(world, copy, block);
        store_u32(block + 12, formats[i / 2]);
        seal(block);
        copy_write(world, copy, block);
        cr_expect_eq(open_now(world), -EPROTONOSUPPORT, "copy %u", copy);
        (void)snprintf(names, sizeof names, "has format version %u,", formats[i / 2]);
        cr_expect(said(world, names) && said(world, "wants version 2 "), "%s", world->said);
        world_close(world);
    }
}

/* Holds the lock in another process for this long; returns when it is held. */
static pid_t hold_lock(const struct world *world, useconds_t time_us)
{
    char path[160];
    (void)snprintf(path, sizeof path, "%s/superblock", world->path);
    int ready[2];
    cr_assert_eq(pipe(ready), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        int file = open(path, O_RDWR);
        bool is_held = file >= 0 && flock(file, LOCK_EX | LOCK_NB) == 0;
        ssize_t written = write(ready[1], "", 1);
        usleep(time_us);
        _exit(is_held && written == 1 ? 0 : 1);
    }
    char byte;
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
    (void)close(ready[1]);
    return child;
}

static void expect_exit(pid_t child)
{
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "it never held the lock");
}

Test(superblock, a_directory_in_use_is_refused)
{
    struct world *world = world_open();
    cr_assert_eq(open_now(world), 0);
    superblock_close(&world->file);
    pid_t child = hold_lock(world, 400000);
    uint64_t begin = io_now_ns(world->io);
    cr_expect_eq(open_waiting(world, 120 * NS_PER_MS), -EWOULDBLOCK);
    uint64_t waited = io_now_ns(world->io) - begin;
    cr_expect(waited >= 100 * NS_PER_MS && waited < 350 * NS_PER_MS, "%lu", waited);
    cr_expect(said(world, "in use") && said(world, world->path), "%s", world->said);
    expect_exit(child);
    cr_expect_eq(open_now(world), 0);
    superblock_close(&world->file);
    world_close(world);
}

Test(superblock, a_dying_process_is_waited_for)
{
    struct world *world = world_open();
    cr_assert_eq(open_now(world), 0);
    superblock_close(&world->file);
    pid_t child = hold_lock(world, 200000);
    cr_expect_eq(open_waiting(world, 10 * NS_PER_S), 0, "%s", world->said);
    superblock_close(&world->file);
    expect_exit(child);
    world_close(world);
}
