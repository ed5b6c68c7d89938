/* The offline tools on directories of several shards, also in the middle of a conversion. */
#include "tests/support/store_fixture.h"

#include "admin/read/admin.h"
#include "admin/read/admin_walk.h"
#include "base/hash.h"
#include "store/reshard/store_convert.h"

#define KEYS 200u

static void hide_output(void)
{
    cr_assert_not_null(freopen("/dev/null", "w", stdout));
}

static struct slice name_of(uint32_t key, char *name)
{
    return (struct slice){(const uint8_t *)name, (uint32_t)snprintf(name, 32, "key-%u", key)};
}

static void begin(struct fixture *fixture, uint32_t count, struct store_directory *ret_directory)
{
    char message[IO_ERROR_SIZE];
    fixture->options.shard = 0;
    fixture->options.shard_count = count;
    fixture->options.handover = NULL;
    struct io_options options = {.sockets_max = 16,
                                 .files_max = 512,
                                 .receive_buffer_size = 4096,
                                 .receive_buffer_count = 16,
                                 .region_size = store_region_size(&fixture->options)};
    cr_assert_eq(io_open(&options, &fixture->io, message), 0, "%s", message);
    cr_assert_eq(
        store_directory_prepare(fixture->io, &fixture->log, &fixture->options, ret_directory), 0);
}

static void end(struct fixture *fixture, struct store_directory *directory)
{
    store_directory_release(directory);
    io_close(fixture->io);
    store_directory_free(directory);
}

/* Each key in the store of its shard. */
static void fill(struct fixture *fixture, uint32_t count)
{
    struct store_directory directory;
    begin(fixture, count, &directory);
    for (uint32_t shard = 0; shard < count; shard++) {
        fixture->options.shard = shard;
        fixture->options.handover = &directory.handover;
        cr_assert_eq(store_open(fixture->io, &fixture->log, &fixture->options, &fixture->store), 0);
        uint64_t gate = 0;
        for (uint32_t key = 0; key < KEYS; key++) {
            char name[32];
            struct slice slice = name_of(key, name);
            if (hash_partition(hash_key(slice.data, slice.size)) % count == shard)
                gate = fixture_set(fixture, slice, slice);
        }
        fixture_settle(fixture, gate);
        cr_assert_eq(store_shut(fixture->store), 0);
        store_free(fixture->store);
    }
    end(fixture, &directory);
}

/* ---- what the tools find ---- */

struct look {
    int code;
    uint64_t records;
    uint64_t damages;
    uint32_t shards;
    char *said;
};

static int count_record(void *context, const struct walk_found *found)
{
    struct look *look = context;
    look->records += found->record != NULL;
    return 0;
}

static void look_at(const struct fixture *fixture, struct look *ret_look)
{
    size_t size;
    struct admin_options options = {.data = fixture->path, .is_quiet = true};
    struct admin admin = {.options = &options};
    *ret_look = (struct look){.code = ADMIN_EXIT_CANNOT};
    FILE *findings = open_memstream(&ret_look->said, &size);
    report_init(&admin.report, "check", true, findings, true);
    if (admin_start(&admin) == 0) {
        struct walk walk = {.admin = &admin, .each = count_record, .context = ret_look};
        cr_assert_eq(admin_walk(&walk), 0);
        cr_assert_eq(admin_check(&admin), 0);
        ret_look->code = (int)report_exit(&admin.report);
        (void)admin_stat(&admin);
        (void)admin_dump(&admin);
    }
    ret_look->damages = admin.report.damages;
    ret_look->shards = admin.shard_count;
    admin_shut(&admin);
    (void)fclose(findings);
}

/* `said`: among its findings; "": there are none. */
static void expect_sound(const struct fixture *fixture, uint32_t shards, const char *said)
{
    struct look look;
    look_at(fixture, &look);
    cr_assert_eq(look.code, ADMIN_EXIT_SOUND, "%s", look.said);
    cr_assert_eq(look.damages, 0, "%s", look.said);
    cr_assert_eq(look.shards, shards);
    cr_assert_eq(look.records, KEYS, "%lu", look.records);
    if (said[0] != '\0')
        cr_assert_not_null(strstr(look.said, said), "%s", look.said);
    else
        cr_assert_str_eq(look.said, "");
    free(look.said);
}

Test(admin_shards, every_shards_records_are_found, .init = hide_output)
{
    struct fixture fixture;
    fixture_init(&fixture, MIB);
    fill(&fixture, 3);
    expect_sound(&fixture, 3, "");
    fixture_remove(&fixture);
}

static void spoil(const struct fixture *fixture, const char *name)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", fixture->path, name);
    FILE *file = fopen(path, "r+");
    cr_assert_not_null(file, "%s", path);
    for (long offset = 100; offset < 8192; offset += 4096) {
        (void)fseek(file, offset, SEEK_SET);
        int byte = fgetc(file); /* of a random secret, it may be any */
        (void)fseek(file, offset, SEEK_SET);
        (void)fputc(byte ^ 0xA5, file);
    }
    (void)fclose(file);
}

Test(admin_shards, damage_of_any_shard_is_found_and_named, .init = hide_output)
{
    static const char *const names[] = {"shard-2/manifest-2", "shard-1/superblock",
                                        "shard-1/log/wal-00000001"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct fixture fixture;
        struct look look;
        fixture_init(&fixture, MIB);
        fill(&fixture, 3);
        spoil(&fixture, names[i]);
        look_at(&fixture, &look);
        cr_assert_eq(look.code, ADMIN_EXIT_DAMAGED, "%s: %s", names[i], look.said);
        cr_assert_not_null(strstr(look.said, names[i]), "%s", look.said);
        free(look.said);
        fixture_remove(&fixture);
    }
}

/* ---- in the middle ---- */

/* From `before` shards to `count`: writes the plan, and decides. */
static void stop_conversion(struct fixture *fixture, uint32_t before, uint32_t count,
                            bool is_decided)
{
    struct store_directory directory;
    struct superblock superblock;
    begin(fixture, before, &directory);
    struct conversion conversion = {
        .io = fixture->io,
        .log = &fixture->log,
        .options = &fixture->options,
        .directory = &directory,
        .count_before = before,
        .count = count,
    };
    cr_assert_eq(convert_empty_logs(&conversion), 0);
    cr_assert_eq(convert_write_plan(&conversion, &superblock), 0);
    if (is_decided) {
        superblock.sequence = directory.handover.file.now.sequence;
        superblock.shards_before = before;
        directory.handover.file.now = superblock;
        cr_assert_eq(superblock_update_both(&directory.handover.file), 0);
    }
    free(conversion.edits);
    end(fixture, &directory);
}

static void rename_in(const struct fixture *fixture, const char *from, const char *to)
{
    char command[1024];
    (void)snprintf(command, sizeof command, "mkdir -p %s/shard-1 && mv %s/%s %s/%s", fixture->path,
                   fixture->path, from, fixture->path, to);
    cr_assert_eq(system(command), 0);
}

/* A start finishes what was decided: nothing is left to be said of it. */
static void finish_conversion(struct fixture *fixture, uint32_t count)
{
    struct store_directory directory;
    begin(fixture, count, &directory);
    end(fixture, &directory);
    expect_sound(fixture, count, "");
}

Test(admin_shards, conversion_that_is_not_decided_changes_nothing, .init = hide_output)
{
    struct fixture fixture;
    fixture_init(&fixture, MIB);
    fill(&fixture, 2);
    stop_conversion(&fixture, 2, 3, false);
    expect_sound(&fixture, 2, "resharding/manifest-2: 0: note: ");
    fixture_remove(&fixture);
}

Test(admin_shards, conversion_that_is_decided_counts_however_far_it_came, .init = hide_output)
{
    struct fixture fixture;
    fixture_init(&fixture, MIB);
    fill(&fixture, 2);
    stop_conversion(&fixture, 2, 3, true);
    expect_sound(&fixture, 3, "a conversion from 2 shards to 3 was cut short");
    rename_in(&fixture, "resharding/manifest-1", "shard-1/manifest-1");
    expect_sound(&fixture, 3, "cut short");
    rename_in(&fixture, "resharding/superblock-1", "shard-1/superblock");
    expect_sound(&fixture, 3, "cut short");
    rename_in(&fixture, "resharding/manifest-0", "manifest-0");
    expect_sound(&fixture, 3, "cut short");
    finish_conversion(&fixture, 3);
    fixture_remove(&fixture);
}

Test(admin_shards, fewer_shards_leave_nothing_of_the_others, .init = hide_output)
{
    struct fixture fixture;
    fixture_init(&fixture, MIB);
    fill(&fixture, 3);
    stop_conversion(&fixture, 3, 1, true);
    expect_sound(&fixture, 1, "a conversion from 3 shards to 1 was cut short");
    finish_conversion(&fixture, 1);
    char path[512];
    (void)snprintf(path, sizeof path, "%s/shard-1", fixture.path);
    cr_assert_neq(access(path, F_OK), 0);
    (void)snprintf(path, sizeof path, "%s/resharding", fixture.path);
    cr_assert_neq(access(path, F_OK), 0);
    fixture_remove(&fixture);
}
