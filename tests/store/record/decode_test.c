/* Decompressing jobs by themselves: many share a few contexts. */
#include "store/record/decode.h"

#include "base/units.h"
#include "tests/support/zstd_frame.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct owner {
    struct decode_job job;
    bool done;
    int result;
    size_t size;
    uint8_t first, last;
};

static void owner_done(struct decode_job *job, int result, uint8_t *data, size_t size)
{
    struct owner *owner = container_of(job, struct owner, job);
    cr_assert(!owner->done, "done twice");
    owner->done = true;
    owner->result = result;
    owner->size = size;
    if (result == 0 && size > 0) {
        owner->first = data[0];
        owner->last = data[size - 1];
    }
    free(data);
}

static uint8_t *make_frame(size_t size, uint8_t fill, size_t *ret_size)
{
    uint8_t *plain = malloc(size);
    uint8_t *frame = malloc(compress_bound(size));
    memset(plain, fill, size);
    int64_t result = compress_frame(frame, compress_bound(size), plain, size);
    cr_assert_gt(result, 0);
    *ret_size = (size_t)result;
    free(plain);
    return frame;
}

Test(decode, more_jobs_than_contexts_all_end_in_slices)
{
    struct decode_queue queue;
    enum { JOBS = 3 * DECODE_CONTEXTS };
    struct owner owners[JOBS];
    uint8_t *frames[JOBS];
    memset(owners, 0, sizeof owners);
    cr_assert_eq(decode_queue_init(&queue, 8), 0);
    for (int i = 0; i < JOBS; i++) {
        size_t size;
        frames[i] = make_frame(4 * DECODE_SLICE_SIZE, (uint8_t)i, &size);
        owners[i].job = (struct decode_job){.done = owner_done,
                                            .frame = frames[i],
                                            .frame_size = size,
                                            .decoded_size_max = 4 * MIB};
        decode_submit(&queue, &owners[i].job);
    }
    int steps = 0;
    while (decode_step(&queue))
        cr_assert_lt(++steps, 100);
    cr_assert_geq(steps, 6, "12 jobs of 4 slices over 4 contexts cannot end in %d steps", steps);
    for (int i = 0; i < JOBS; i++) {
        cr_assert(owners[i].done);
        cr_assert_eq(owners[i].result, 0);
        cr_assert_eq(owners[i].size, 4 * DECODE_SLICE_SIZE);
        cr_assert_eq(owners[i].last, (uint8_t)i);
        free(frames[i]);
    }
    decode_queue_deinit(&queue);
}

Test(decode, bad_frames_end_with_an_error_and_give_their_context_back)
{
    struct decode_queue queue;
    struct owner bad = {0};
    uint8_t garbage[64] = {1, 2, 3};
    cr_assert_eq(decode_queue_init(&queue, 8), 0);
    bad.job = (struct decode_job){.done = owner_done,
                                  .frame = garbage,
                                  .frame_size = sizeof garbage,
                                  .decoded_size_max = MIB};
    decode_submit(&queue, &bad.job);
    cr_assert(!decode_step(&queue));
    cr_assert_eq(bad.result, -EBADMSG);
    cr_assert_eq(queue.context_count, DECODE_CONTEXTS);
    decode_queue_deinit(&queue);
}

Test(decode, small_frames_need_no_job_and_large_ones_do)
{
    struct decode_queue queue;
    uint8_t *data = NULL;
    size_t size, frame_size;
    cr_assert_eq(decode_queue_init(&queue, 8), 0);
    uint8_t *frame = make_frame(1000, 5, &frame_size);
    cr_assert_eq(decode_small(&queue, frame, frame_size, MIB, &data, &size), 1);
    cr_assert_eq(size, 1000);
    cr_assert_eq(data[999], 5);
    free(data);
    cr_assert_eq(decode_small(&queue, frame, frame_size, 999, &data, &size), -EFBIG);
    free(frame);
    frame = make_frame(4 * DECODE_SLICE_SIZE, 5, &frame_size);
    cr_assert_eq(decode_small(&queue, frame, frame_size, 4 * MIB, &data, &size), 0);
    free(frame);
    decode_queue_deinit(&queue);
}
