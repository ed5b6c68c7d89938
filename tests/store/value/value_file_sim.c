/* Value files on a device that fails: crashes and losses of power at any step, EIO, a full disk,
 * rot. What was said to be finished is there, whatever happens; what failed leaves nothing. */
#include "value_streams.h"

#include "io/io_sim.h"
#include "tests/support/log_lines.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define POOL_COUNT 6u
#define VALUES 8u
#define ALWAYS_PPM 1000000u

struct value {
    struct upload upload;
    struct download download;
    struct kept_descriptor kept;
    bool is_open;
    bool is_finished; /* with 0 */
    bool is_removed;
};

struct machine {
    uint64_t seed;
    struct prng prng;
    struct sim *sim;
    struct sim_disk *disk;
    struct io *io;
    struct log_lines lines;
    struct stream_pool *pool;
    struct value values[VALUES];
};

static void machine_start(struct machine *machine)
{
    struct io_options options = {.sockets_max = 4,
                                 .files_max = 64,
                                 .receive_buffer_size = 4096,
                                 .receive_buffer_count = 4,
                                 .region_size = POOL_COUNT * VALUE_FILE_BUFFER_SIZE};
    sim_host_open(machine->sim, machine->disk, &options, &machine->io);
    log_lines_begin(&machine->lines, LOG_WARN);
    cr_assert_eq(stream_pool_create(machine->io, &machine->lines.log, "data",
                                    io_region(machine->io), POOL_COUNT, &machine->pool),
                 0);
}

static void machine_stop(struct machine *machine)
{
    io_close(machine->io);
    stream_pool_free(machine->pool);
}

static void sync_directory(struct machine *machine, const char *path)
{
    struct io_op op = {0};
    io_open_file(machine->io, &op, path, IO_OPEN_DIRECTORY);
    int directory = io_wait(machine->io, &op);
    io_sync(machine->io, &op, directory);
    cr_assert_eq(io_wait(machine->io, &op), 0);
    io_close_file(machine->io, &op, directory);
    cr_assert_eq(io_wait(machine->io, &op), 0);
}

static struct machine *machine_create(uint64_t seed)
{
    struct machine *machine = calloc(1, sizeof *machine);
    cr_assert_not_null(machine);
    machine->seed = seed;
    machine->prng.state = seed;
    machine->sim = sim_create(seed);
    machine->disk = sim_disk_create(machine->sim);
    machine_start(machine);
    cr_assert_eq(io_make_directory(machine->io, "data"), 0);
    cr_assert_eq(io_make_directory(machine->io, "data/00"), 0);
    cr_assert_eq(io_make_directory(machine->io, "data/01"), 0);
    cr_assert_eq(io_make_directory(machine->io, "data/02"), 0);
    sync_directory(machine, ".");
    sync_directory(machine, "data");
    return machine;
}

static void machine_free(struct machine *machine)
{
    machine_stop(machine);
    sim_free(machine->sim);
    free(machine);
}

/* ---- values ---- */

static void value_on_finished(void *context, int result)
{
    struct value *value = container_of(context, struct value, upload);
    upload_on_finished(&value->upload, result);
    value->is_finished = result == 0;
    if (result == 0)
        keep_descriptor(&value->kept, value->upload.writer);
}

static void begin_upload(struct machine *machine, uint32_t index, uint64_t size)
{
    struct value *value = &machine->values[index];
    bool hinted = prng_below(&machine->prng, 2) == 0;
    *value = (struct value){.is_open = true};
    value->upload = (struct upload){.stream = index,
                                    .size = size,
                                    .part_max = 1 + (uint32_t)prng_below(&machine->prng, 300000)};
    struct value_file_name name = upload_name(index);
    struct value_writer_events events = {&value->upload, upload_on_room, value_on_finished};
    cr_assert_eq(value_writer_open(machine->pool, &name, size, hinted ? size : 0, &events,
                                   &value->upload.writer),
                 0);
    upload_pump(&value->upload);
}

static void end_upload(struct value *value, bool keep)
{
    value->is_open = false;
    value_writer_close(value->upload.writer, keep);
}

/* Runs until everything that is open has said its last word. */
static void run_uploads(struct machine *machine)
{
    for (uint32_t i = 0; i < VALUES; i++) {
        while (machine->values[i].is_open && machine->values[i].upload.finishes == 0 &&
               io_run(machine->io, NS_PER_MS) >= 0) {
        }
    }
}

static void run_until_idle(struct machine *machine)
{
    for (uint32_t i = 0; stream_pool_is_busy(machine->pool); i++) {
        cr_assert_geq(io_run(machine->io, NS_PER_MS), 0);
        cr_assert_lt(i, 100000);
    }
    assert_pool_is_whole(machine->pool);
}

static int download(struct machine *machine, uint32_t index)
{
    struct value *value = &machine->values[index];
    value->download = (struct download){.stream = index};
    download_open(&value->download, machine->pool, kept_slice(&value->kept));
    download_pump(&value->download);
    for (uint32_t i = 0; !value->download.has_ended; i++) {
        cr_assert_geq(io_run(machine->io, NS_PER_MS), 0);
        cr_assert_lt(i, 100000);
    }
    value_reader_close(value->download.reader);
    run_until_idle(machine);
    return value->download.result;
}

static int count_entry(void *context, const char *name)
{
    struct value_file_name parsed;
    cr_assert_eq(value_file_name_parse(0, name, &parsed), 0);
    (*(uint32_t *)context)++;
    return 0;
}

static uint32_t count_files(struct machine *machine)
{
    uint32_t count = 0;
    cr_assert_eq(io_list_directory(machine->io, "data/00", count_entry, &count), 0);
    cr_assert_eq(io_list_directory(machine->io, "data/01", count_entry, &count), 0);
    cr_assert_eq(io_list_directory(machine->io, "data/02", count_entry, &count), 0);
    return count;
}

static uint64_t free_space(struct machine *machine)
{
    uint64_t space, total;
    cr_assert_eq(io_disk_space(machine->io, ".", &space, &total), 0);
    return space;
}

static void path_of(uint32_t index, char *ret_path)
{
    struct value_file_name name = upload_name(index);
    memcpy(ret_path, "data", 4);
    value_file_name_write(&name, ret_path + 4);
}

/* ---- crashes ---- */

static void check_values(struct machine *machine)
{
    for (uint32_t i = 0; i < VALUES; i++) {
        const struct value *value = &machine->values[i];
        if (!value->is_finished)
            continue;
        int result = download(machine, i);
        if (value->is_removed && result == -ENOENT)
            continue;
        cr_assert_eq(result, 0, "seed %" PRIu64 ": value %u is lost (%d)", machine->seed, i,
                     result);
        cr_assert_eq(value->download.received, value->upload.size);
    }
}

static void work_until_crash(struct machine *machine)
{
    for (uint32_t i = 0; i < VALUES; i++)
        begin_upload(machine, i, prng_below(&machine->prng, 900000));
    uint32_t left = VALUES;
    while (left > 0 && io_run(machine->io, NS_PER_MS) >= 0) {
        for (uint32_t i = 0; i < VALUES; i++) {
            struct value *value = &machine->values[i];
            bool is_aborted = prng_below(&machine->prng, 500) == 0;
            if (!value->is_open || (value->upload.finishes == 0 && !is_aborted))
                continue;
            value->is_removed = prng_below(&machine->prng, 4) == 0;
            end_upload(value, value->is_finished && !value->is_removed);
            left--;
        }
    }
}

static uint32_t crash_once(uint64_t seed)
{
    struct machine *machine = machine_create(seed);
    enum sim_crash crash = prng_below(&machine->prng, 3) == 0 ? SIM_KILL : SIM_POWER_LOSS;
    sim_host_crash_after(machine->io, 1 + prng_below(&machine->prng, 400), crash);
    work_until_crash(machine);
    if (!sim_host_is_crashed(machine->io))
        sim_host_crash(machine->io, crash);
    machine_stop(machine);
    sim_advance(machine->sim, sim_now_ns(machine->sim) + NS_PER_S);
    if (prng_below(&machine->prng, 2) == 0)
        sim_disk_lose_power(machine->disk);
    machine_start(machine);
    uint32_t finished = 0;
    for (uint32_t i = 0; i < VALUES; i++)
        finished += machine->values[i].is_finished;
    check_values(machine);
    machine_free(machine);
    return finished;
}

static uint64_t seeds_from_environment(uint64_t usual, uint64_t *ret_first)
{
    const char *text = getenv("MINIVAULT_SEED");
    const char *many = getenv("MINIVAULT_SEEDS");
    *ret_first = text != NULL ? strtoull(text, NULL, 10) : 1;
    if (many != NULL)
        return strtoull(many, NULL, 10);
    return text != NULL ? 1 : usual;
}

Test(value_file_crash, what_was_finished_survives, .timeout = 120)
{
    uint64_t first;
    uint64_t count = seeds_from_environment(150, &first);
    uint64_t finished = 0;
    for (uint64_t seed = first; seed < first + count; seed++)
        finished += crash_once(seed);
    cr_assert(count < 10 || (finished > count && finished < count * VALUES),
              "crashes must come in between: %" PRIu64 " finished", finished);
}

/* ---- a failing device ---- */

static void choose_faults(struct machine *machine, bool fails)
{
    struct sim_disk_options *options = sim_disk_options(machine->disk);
    uint64_t kind = prng_below(&machine->prng, 4);
    options->write_error_ppm = fails && kind == 0 ? 50000 : 0;
    options->sync_error_ppm = fails && kind == 1 ? 100000 : 0;
    options->no_space_ppm = fails && kind == 2 ? 50000 : 0;
    options->read_error_ppm = fails && kind == 3 ? 100000 : 0;
}

static void fail_once(uint64_t seed, uint32_t *ret_failed)
{
    struct machine *machine = machine_create(seed);
    choose_faults(machine, true);
    for (uint32_t i = 0; i < VALUES; i++)
        begin_upload(machine, i, prng_below(&machine->prng, 1200000));
    run_uploads(machine);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < VALUES; i++) {
        struct value *value = &machine->values[i];
        int result = value->upload.result;
        cr_assert_eq(value->upload.finishes, 1, "reported once");
        cr_assert(result == 0 || result == -EIO || result == -ENOSPC, "seed %" PRIu64 ": %d", seed,
                  result);
        kept += result == 0;
        end_upload(value, true);
    }
    run_until_idle(machine);
    cr_assert_eq(count_files(machine), kept, "seed %" PRIu64, seed);
    for (uint32_t i = 0; i < VALUES; i++) {
        if (!machine->values[i].is_finished)
            continue;
        int result = download(machine, i);
        cr_assert(result == 0 || result == -EIO);
    }
    *ret_failed += VALUES - kept;
    choose_faults(machine, false);
    sim_host_crash(machine->io, SIM_POWER_LOSS);
    machine_stop(machine);
    machine_start(machine);
    check_values(machine);
    machine_free(machine);
}

Test(value_file_faults, each_writer_finishes_or_leaves_nothing, .timeout = 120)
{
    uint64_t first;
    uint64_t count = seeds_from_environment(100, &first);
    uint32_t failed = 0;
    for (uint64_t seed = first; seed < first + count; seed++)
        fail_once(seed, &failed);
    cr_assert(count < 10 || failed > count / 2);
}

Test(value_file_faults, a_full_disk_is_an_error_and_its_space_comes_back)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct machine *machine = machine_create(seed);
        sim_disk_options(machine->disk)->capacity = 2 * MIB;
        uint64_t before = free_space(machine);
        begin_upload(machine, 0, 4 * MIB);
        run_uploads(machine);
        cr_assert_eq(machine->values[0].upload.result, -ENOSPC);
        end_upload(&machine->values[0], false);
        run_until_idle(machine);
        cr_assert_eq(count_files(machine), 0);
        cr_assert_eq(free_space(machine), before);
        cr_assert_eq(machine->lines.count, 0, "the store reports that");
        begin_upload(machine, 1, MIB);
        run_uploads(machine);
        cr_assert_eq(machine->values[1].upload.result, 0);
        end_upload(&machine->values[1], true);
        machine_free(machine);
    }
}

Test(value_file_faults, a_failed_write_or_sync_is_logged_with_its_file)
{
    for (int kind = 0; kind < 2; kind++) {
        struct machine *machine = machine_create(1);
        if (kind == 0)
            sim_disk_options(machine->disk)->write_error_ppm = ALWAYS_PPM;
        else
            sim_disk_options(machine->disk)->sync_error_ppm = ALWAYS_PPM;
        begin_upload(machine, 1, 500000);
        run_uploads(machine);
        cr_assert_eq(machine->values[1].upload.result, -EIO);
        cr_assert_eq(machine->lines.count, 1);
        cr_assert_not_null(strstr(machine->lines.last, "data/01/0123456789abcdf0-"));
        end_upload(&machine->values[1], true);
        run_until_idle(machine);
        cr_assert_eq(count_files(machine), 0);
        machine_free(machine);
    }
}

Test(value_file_faults, one_rotten_bit_is_found_wherever_it_is)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct machine *machine = machine_create(seed);
        uint64_t size = 1 + prng_below(&machine->prng, 1500000);
        begin_upload(machine, 2, size);
        run_uploads(machine);
        end_upload(&machine->values[2], true);
        run_until_idle(machine);
        char path[64];
        path_of(2, path);
        cr_assert(sim_disk_rot(machine->disk, path, 0, size));
        cr_assert_eq(download(machine, 2), -EBADMSG);
        cr_assert_lt(machine->values[2].download.received, size);
        cr_assert_str_eq(machine->values[2].download.path, path);
        machine_free(machine);
    }
}

Test(value_file_faults, a_failed_read_is_an_error_and_damages_nothing)
{
    struct machine *machine = machine_create(3);
    begin_upload(machine, 1, 1500000);
    run_uploads(machine);
    end_upload(&machine->values[1], true);
    run_until_idle(machine);
    sim_disk_options(machine->disk)->read_error_ppm = ALWAYS_PPM;
    cr_assert_eq(download(machine, 1), -EIO);
    cr_assert_eq(machine->values[1].download.received, 0);
    cr_assert(!machine->values[1].download.told.is_read);
    sim_disk_options(machine->disk)->read_error_ppm = 0;
    cr_assert_eq(download(machine, 1), 0);
    machine_free(machine);
}
