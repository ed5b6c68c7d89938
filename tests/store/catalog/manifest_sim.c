/* The manifest under crashes and on a device that fails: whatever happens, what was acknowledged is
 * there, of the group that was under way all or nothing, and never half of one. */
#include "manifest_model.h"

#include "io/io_sim.h"

#include <inttypes.h>

#define ALWAYS_PPM 1000000u
#define PATH "data/manifest-3"
#define GROUP_SIZE_MAX ((uint64_t)33 * MANIFEST_BLOCK_SIZE)

struct machine {
    uint64_t seed;
    struct prng prng;
    struct sim *sim;
    struct sim_disk *disk;
    struct io *io;
    struct model *model;
    uint32_t appended;
    uint32_t groups_left; /* to be appended by done */
    bool was_open;        /* once: there is a manifest */
    uint64_t rewrites;
};

static const struct io_options io_options = {.sockets_max = 4,
                                             .files_max = 8,
                                             .receive_buffer_size = 4096,
                                             .receive_buffer_count = 4,
                                             .region_size = MANIFEST_MEMORY_SIZE};

static struct machine *machine_create(uint64_t seed)
{
    struct machine *machine = calloc(1, sizeof *machine);
    cr_assert_not_null(machine);
    machine->seed = seed;
    machine->prng.state = seed;
    machine->sim = sim_create(seed);
    machine->disk = sim_disk_create(machine->sim);
    machine->model = model_create("data");
    return machine;
}

static void machine_free(struct machine *machine)
{
    sim_free(machine->sim);
    free(machine->model);
    free(machine);
}

static void boot(struct machine *machine)
{
    sim_host_open(machine->sim, machine->disk, &io_options, &machine->io);
    (void)io_make_directory(machine->io, "data");
    struct io_op op = {0};
    io_open_file(machine->io, &op, ".", IO_OPEN_DIRECTORY);
    int root = io_wait(machine->io, &op);
    io_sync(machine->io, &op, root);
    (void)io_wait(machine->io, &op);
    io_close_file(machine->io, &op, root);
    (void)io_wait(machine->io, &op);
}

/* The process ends, and so has what it left in flight when the next one begins: the lock on the
 * superblock sees to that. */
static void stop(struct machine *machine)
{
    struct model *model = machine->model;
    if (model->manifest != NULL)
        machine->rewrites += model_rewrites(model);
    io_close(machine->io);
    manifest_free(model->manifest);
    model->manifest = NULL;
    sim_advance(machine->sim, sim_now_ns(machine->sim) + NS_PER_S);
}

static bool is_group_unknown(const struct machine *machine)
{
    return machine->appended != machine->model->done_count || machine->model->result != 0;
}

/* What was shown is what was acknowledged, or that and the last group. From here on it is the
 * truth. */
static void check_shown(struct machine *machine)
{
    struct model *model = machine->model;
    bool is_old = model_table_equal(&model->shown, &model->now);
    bool is_new = is_group_unknown(machine) && model_table_equal(&model->shown, &model->next);
    cr_assert(is_old || is_new, "seed %" PRIu64 ": %s", machine->seed,
              is_group_unknown(machine) ? "half a group" : "not what was acknowledged");
    cr_assert(!manifest_has_loss(model->manifest));
    cr_assert(!manifest_is_new(model->manifest) || !machine->was_open, "seed %" PRIu64,
              machine->seed);
    machine->was_open = true;
    model->now = model->shown;
    model->next = model->shown;
    model->done_count = machine->appended;
    model->result = 0;
}

/* Returns false when the machine stopped meanwhile. */
static bool start(struct machine *machine)
{
    int result = model_open(machine->model, machine->io);
    if (result < 0) {
        cr_assert(sim_host_is_crashed(machine->io), "seed %" PRIu64 ": open says %s: %s",
                  machine->seed, strerror(-result), machine->model->said);
        return false;
    }
    check_shown(machine);
    return true;
}

static void reboot(struct machine *machine)
{
    boot(machine);
    cr_assert(start(machine));
}

/* ---- work ---- */

static uint32_t choose_count(struct prng *prng)
{
    uint64_t dice = prng_below(prng, 4);
    return dice == 0   ? (uint32_t)prng_below(prng, 200)
           : dice == 1 ? (uint32_t)prng_below(prng, MANIFEST_GROUP_MAX)
                       : MANIFEST_GROUP_MAX - (uint32_t)prng_below(prng, 200);
}

static void append(struct machine *machine);

static void appended(struct manifest_op *op, int result)
{
    struct model *model = container_of(op, struct model, op);
    struct machine *machine = model->options.context;
    model_done(op, result);
    bool at_once = prng_below(&machine->prng, 2) == 0; /* otherwise the seal is written first */
    if (result == 0 && at_once && machine->groups_left > 0)
        append(machine);
}

static void append(struct machine *machine)
{
    struct model *model = machine->model;
    machine->appended++;
    machine->groups_left--;
    uint32_t count = choose_count(&machine->prng);
    model_choose(model, &machine->prng, count);
    model->op.done = appended;
    manifest_append(model->manifest, &model->op, model->edits, count);
}

/* The model is the first thing that the machine's snapshot asks. */
static bool show_state(void *context, uint64_t index, struct manifest_edit *ret_edit)
{
    return model_snapshot(((struct machine *)context)->model, index, ret_edit);
}

/* Returns false when the machine stopped, or the manifest failed. */
static bool work(struct machine *machine, uint32_t groups)
{
    struct model *model = machine->model;
    machine->groups_left = groups;
    while (!sim_host_is_crashed(machine->io) && model->result == 0) {
        if (model->done_count == machine->appended && machine->groups_left == 0)
            return true;
        if (model->done_count == machine->appended)
            append(machine);
        (void)io_run(machine->io, NS_PER_MS);
    }
    return false;
}

static struct machine *machine_create_working(uint64_t seed)
{
    struct machine *machine = machine_create(seed);
    machine->model->options.snapshot = show_state;
    machine->model->options.context = machine;
    return machine;
}

/* ---- crashes ---- */

/* Starts again, perhaps crashing again, until it is up; then what is there stays there. */
static void recover(struct machine *machine)
{
    for (int i = 0; i < 3 && prng_below(&machine->prng, 2) == 0; i++) {
        boot(machine);
        sim_host_crash_after(machine->io, 1 + prng_below(&machine->prng, 40),
                             prng_below(&machine->prng, 2) == 0 ? SIM_KILL : SIM_POWER_LOSS);
        if (start(machine) && !sim_host_is_crashed(machine->io))
            sim_host_crash(machine->io, SIM_POWER_LOSS);
        stop(machine);
    }
    reboot(machine);
    if (prng_below(&machine->prng, 2) == 0) {
        sim_host_crash(machine->io, SIM_POWER_LOSS);
        stop(machine);
        reboot(machine);
    }
}

/* Returns false when the work was done before the crash. */
static bool crash_once(uint64_t seed, uint64_t steps, enum sim_crash crash, uint64_t *rewrites)
{
    struct machine *machine = machine_create_working(seed);
    boot(machine);
    sim_host_crash_after(machine->io, steps, crash);
    bool is_done = start(machine) && work(machine, 16);
    if (!sim_host_is_crashed(machine->io))
        sim_host_crash(machine->io, crash);
    stop(machine);
    machine->prng.state = seed * 1000 + steps;
    recover(machine);
    cr_assert(work(machine, 3));
    cr_assert_eq(manifest_shut(machine->model->manifest), 0);
    stop(machine);
    reboot(machine);
    stop(machine);
    *rewrites += is_done && machine->rewrites > 1;
    machine_free(machine);
    return !is_done;
}

Test(manifest_crash, at_every_moment_all_of_a_group_is_there_or_nothing, .timeout = 120)
{
    const char *text = getenv("MINIVAULT_SEED");
    uint64_t first = text != NULL ? strtoull(text, NULL, 10) : 1;
    uint64_t longest = 0;
    uint64_t rewrites = 0; /* were among what was cut short */
    for (uint64_t seed = first; seed < first + (text != NULL ? 1 : 4); seed++) {
        for (uint64_t steps = 1; crash_once(seed, steps, SIM_POWER_LOSS, &rewrites); steps++) {
            (void)crash_once(seed, steps, SIM_KILL, &rewrites);
            longest = max_u64(longest, steps);
        }
    }
    cr_assert(text != NULL || (longest > 80 && rewrites >= 3));
}

/* Many lives of one disk, with errors of the device among them. */
static void live_on(uint64_t seed)
{
    struct machine *machine = machine_create_working(seed);
    struct sim_disk_options *disk = sim_disk_options(machine->disk);
    for (uint32_t life = 0; life < 8; life++) {
        recover(machine);
        uint64_t kind = prng_below(&machine->prng, 4);
        disk->write_error_ppm = kind == 0 ? 20000 : 0;
        disk->sync_error_ppm = kind == 1 ? ALWAYS_PPM / 2 : 0;
        disk->no_space_ppm = kind == 2 ? ALWAYS_PPM / 2 : 0;
        sim_host_crash_after(machine->io, 1 + prng_below(&machine->prng, 120),
                             prng_below(&machine->prng, 3) == 0 ? SIM_KILL : SIM_POWER_LOSS);
        (void)work(machine, 30);
        if (!sim_host_is_crashed(machine->io))
            sim_host_crash(machine->io, SIM_POWER_LOSS);
        disk->write_error_ppm = disk->sync_error_ppm = disk->no_space_ppm = 0;
        stop(machine);
    }
    reboot(machine);
    stop(machine);
    machine_free(machine);
}

Test(manifest_crash, many_lives_with_a_device_that_fails_now_and_then, .timeout = 120)
{
    const char *text = getenv("MINIVAULT_SEED");
    uint64_t first = text != NULL ? strtoull(text, NULL, 10) : 1;
    for (uint64_t seed = first; seed < first + (text != NULL ? 1 : 60); seed++)
        live_on(seed);
}

static int wait_open(struct io *io, const char *path)
{
    struct io_op op = {0};
    io_open_file(io, &op, path, IO_OPEN_WRITE | IO_OPEN_DIRECT);
    int file = io_wait(io, &op);
    cr_assert_geq(file, 0);
    return file;
}

/* A whole group behind the last one, seen but not synced: what a killed process may leave. */
static void leave_unsynced(struct machine *machine, uint32_t index)
{
    uint8_t *bytes = io_region(machine->io);
    int file = wait_open(machine->io, PATH);
    struct io_op op = {0};
    io_read(machine->io, &op, file, bytes, MANIFEST_BLOCK_SIZE, 0);
    cr_assert_eq(io_wait(machine->io, &op), (int32_t)MANIFEST_BLOCK_SIZE);
    struct manifest_block block;
    cr_assert_geq(manifest_block_decode(bytes, &block), 0);
    block.flags = MANIFEST_GROUP_FIRST | MANIFEST_GROUP_LAST;
    block.sequence = index + 1;
    block.count = 1;
    block.edits[0] = model_edit(MANIFEST_SEGMENT, 5, prng_next(&machine->prng) | 1);
    model_table_apply(&machine->model->now, &block.edits[0]);
    manifest_block_encode(&block, bytes);
    io_write(machine->io, &op, file, bytes, MANIFEST_BLOCK_SIZE,
             (uint64_t)index * MANIFEST_BLOCK_SIZE, IO_WRITE_PLAIN);
    cr_assert_eq(io_wait(machine->io, &op), (int32_t)MANIFEST_BLOCK_SIZE);
}

Test(manifest_crash, what_was_shown_once_stays)
{
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct machine *machine = machine_create_working(seed);
        reboot(machine);
        cr_assert(work(machine, 3));
        cr_assert_eq(manifest_shut(machine->model->manifest), 0);
        uint64_t used = model_used(machine->model);
        leave_unsynced(machine, (uint32_t)(used / MANIFEST_BLOCK_SIZE));
        sim_host_crash(machine->io, SIM_KILL);
        stop(machine);
        reboot(machine);
        sim_host_crash(machine->io, SIM_POWER_LOSS);
        stop(machine);
        reboot(machine);
        stop(machine);
        machine_free(machine);
    }
}

/* ---- a device that fails ---- */

Test(manifest_faults, after_a_failed_write_it_takes_no_more)
{
    struct machine *machine = machine_create_working(1);
    struct model *model = machine->model;
    reboot(machine);
    cr_assert(work(machine, 2));
    sim_disk_options(machine->disk)->write_error_ppm = ALWAYS_PPM;
    cr_assert_not(work(machine, 1));
    cr_assert_eq(model->result, -EIO);
    sim_disk_options(machine->disk)->write_error_ppm = 0;
    struct model_table unknown = model->next;
    for (int i = 0; i < 3; i++) {
        machine->appended++;
        cr_assert_eq(model_append_wait(model, &machine->prng, 10), -EIO);
    }
    cr_assert_eq(manifest_shut(model->manifest), -EIO);
    model->next = unknown;
    stop(machine);
    reboot(machine);
    cr_assert(work(machine, 2));
    stop(machine);
    machine_free(machine);
}

Test(manifest_faults, a_failed_seal_is_told_to_the_next_group)
{
    struct machine *machine = machine_create(2);
    struct model *model = machine->model;
    reboot(machine);
    uint32_t before = model->done_count;
    machine->appended++;
    model_append(model, &machine->prng, 10);
    while (model->done_count == before)
        cr_assert_geq(io_run(machine->io, 0), 0);
    sim_disk_options(machine->disk)->write_error_ppm = ALWAYS_PPM;
    machine->appended++;
    cr_assert_eq(model_append_wait(model, &machine->prng, 10), -EIO);
    sim_disk_options(machine->disk)->write_error_ppm = 0;
    stop(machine);
    reboot(machine);
    stop(machine);
    machine_free(machine);
}

/* Appends groups until the present file has grown beyond what it should. */
static void grow(struct machine *machine)
{
    do
        cr_assert(work(machine, 1));
    while (model_used(machine->model) + GROUP_SIZE_MAX <= MANIFEST_SIZE_MAX);
}

Test(manifest_faults, a_rewrite_that_fails_leaves_the_old_one_usable)
{
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct machine *machine = machine_create_working(seed);
        struct sim_disk_options *disk = sim_disk_options(machine->disk);
        reboot(machine);
        grow(machine);
        /* Appends are written with DSYNC: a sync is the rewrite's only. */
        disk->sync_error_ppm = ALWAYS_PPM;
        for (int i = 0; i < 20; i++) {
            machine->appended++;
            uint32_t count = i == 0 ? MANIFEST_GROUP_MAX : 10;
            cr_assert_eq(model_append_wait(machine->model, &machine->prng, count), 0);
        }
        cr_assert_gt(model_used(machine->model), MANIFEST_SIZE_MAX);
        cr_assert_eq(model_rewrites(machine->model), 1, "only the first file");
        disk->sync_error_ppm = 0;
        if (seed % 2 == 0) {
            cr_assert(work(machine, 3), "seed %" PRIu64, seed);
            cr_assert(model_settle(machine->model));
            cr_assert_eq(model_rewrites(machine->model), 2);
        }
        sim_host_crash(machine->io, SIM_POWER_LOSS);
        stop(machine);
        reboot(machine);
        stop(machine);
        machine_free(machine);
    }
}

/* The world without room for a second file. */
static uint64_t fill_disk(struct machine *machine)
{
    uint64_t unused;
    uint64_t total;
    cr_assert_eq(io_disk_space(machine->io, "data", &unused, &total), 0);
    sim_disk_options(machine->disk)->capacity = total - unused;
    return total;
}

/* A new file would be as large as the old one. */
Test(manifest_faults, a_limit_of_file_sizes_refuses_appends_and_fails_nothing)
{
    struct machine *machine = machine_create_working(4);
    reboot(machine);
    sim_disk_options(machine->disk)->file_size_max = MANIFEST_SIZE_MAX + MANIFEST_RESERVE - 1;
    while (work(machine, 1))
        continue;
    cr_assert_eq(machine->model->result, -EFBIG);
    machine->appended++;
    cr_assert_eq(model_append_wait(machine->model, &machine->prng, MANIFEST_GROUP_MAX), -EFBIG);
    sim_disk_options(machine->disk)->file_size_max = 0;
    machine->appended++;
    cr_assert_eq(model_append_wait(machine->model, &machine->prng, MANIFEST_GROUP_MAX), 0);
    cr_assert_eq(manifest_shut(machine->model->manifest), 0);
    stop(machine);
    reboot(machine);
    stop(machine);
    machine_free(machine);
}

Test(manifest_faults, a_full_disk_hinders_no_append_for_long_and_then_nothing_is_lost)
{
    struct machine *machine = machine_create_working(4);
    struct model *model = machine->model;
    reboot(machine);
    uint64_t total = fill_disk(machine);
    while (work(machine, 1))
        continue;
    cr_assert_eq(model->result, -ENOSPC);
    cr_assert_geq(model_used(model), MANIFEST_SIZE_MAX + MANIFEST_RESERVE - GROUP_SIZE_MAX);
    for (int i = 0; i < 3; i++) { /* it is not failed: smaller ones may fit, and this one not */
        machine->appended++;
        int result = model_append_wait(model, &machine->prng, MANIFEST_GROUP_MAX);
        cr_assert_eq(result, -ENOSPC);
    }
    /* A restart finds everything and needs no space. */
    cr_assert_eq(manifest_shut(model->manifest), 0);
    stop(machine);
    model->next = model->now;
    reboot(machine);
    machine->appended++;
    cr_assert_eq(model_append_wait(model, &machine->prng, MANIFEST_GROUP_MAX), -ENOSPC);
    sim_disk_options(machine->disk)->capacity = total;
    machine->appended++;
    cr_assert_eq(model_append_wait(model, &machine->prng, MANIFEST_GROUP_MAX), 0);
    cr_assert(work(machine, 5));
    cr_assert_geq(model_rewrites(model), 1);
    sim_host_crash(machine->io, SIM_POWER_LOSS);
    stop(machine);
    reboot(machine);
    stop(machine);
    machine_free(machine);
}

Test(manifest_faults, a_full_disk_refuses_the_first_file)
{
    struct machine *machine = machine_create(5);
    boot(machine);
    (void)fill_disk(machine);
    cr_assert_eq(model_open(machine->model, machine->io), -ENOSPC);
    cr_assert_not_null(strstr(machine->model->said, "manifest-3.new"));
    stop(machine);
    sim_disk_options(machine->disk)->capacity = GIB;
    reboot(machine);
    cr_assert(manifest_is_new(machine->model->manifest));
    stop(machine);
    machine_free(machine);
}

Test(manifest_faults, what_cannot_be_read_is_not_taken_for_empty)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct machine *machine = machine_create_working(seed);
        reboot(machine);
        cr_assert(work(machine, 5));
        cr_assert_eq(manifest_shut(machine->model->manifest), 0);
        stop(machine);
        struct sim_disk_options *disk = sim_disk_options(machine->disk);
        disk->read_error_ppm = seed % 3 == 0 ? ALWAYS_PPM : ALWAYS_PPM / 50;
        boot(machine);
        int result = model_open(machine->model, machine->io);
        cr_assert(result == -EIO || (result == 0 && disk->read_error_ppm != ALWAYS_PPM));
        if (result == 0)
            check_shown(machine);
        else
            cr_assert_not_null(strstr(machine->model->said, "cannot be read at offset"));
        stop(machine);
        /* When it is accepted, what could be read is shown, and the rest is known to be missing. */
        boot(machine);
        machine->model->options.accept_loss = true;
        result = model_open(machine->model, machine->io);
        cr_assert(result == 0 || (result == -EIO && disk->read_error_ppm != ALWAYS_PPM));
        if (disk->read_error_ppm == ALWAYS_PPM)
            cr_assert(manifest_has_loss(machine->model->manifest));
        else if (result == 0 && !manifest_has_loss(machine->model->manifest))
            check_shown(machine);
        stop(machine);
        machine->model->options.accept_loss = false;
        disk->read_error_ppm = 0;
        reboot(machine);
        stop(machine);
        machine_free(machine);
    }
}

/* Flips a bit of what counts, or behind it. */
static void rot_once(uint64_t seed, uint32_t *ret_refused)
{
    struct machine *machine = machine_create_working(seed);
    reboot(machine);
    cr_assert(work(machine, 1 + (uint32_t)prng_below(&machine->prng, 12)));
    cr_assert_eq(manifest_shut(machine->model->manifest), 0);
    uint64_t used = model_used(machine->model);
    stop(machine);
    bool is_used = prng_below(&machine->prng, 3) != 0;
    cr_assert(sim_disk_rot(machine->disk, PATH, is_used ? 0 : used, is_used ? used : UINT64_MAX));
    boot(machine);
    int result = model_open(machine->model, machine->io);
    cr_assert_eq(result, is_used ? -EBADMSG : 0, "seed %" PRIu64 ": %s", seed, strerror(-result));
    *ret_refused += is_used;
    if (result == 0) {
        check_shown(machine);
        cr_assert(work(machine, 2));
    }
    stop(machine);
    if (result == 0) {
        reboot(machine);
        stop(machine);
    }
    machine_free(machine);
}

Test(manifest_faults, rot_in_what_counts_never_goes_unnoticed, .timeout = 60)
{
    uint32_t refused = 0;
    for (uint64_t seed = 1; seed <= 100; seed++)
        rot_once(seed, &refused);
    cr_assert(refused > 30 && refused < 95);
}
