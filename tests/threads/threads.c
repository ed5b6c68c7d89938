/* What the shards' threads share, under load and, as build/tsan/threads, under ThreadSanitizer.
 *
 *     threads [--requests N]         how much of everything
 *
 * A test that has lost a wake-up stands still. Ticks of the watching thread judge that, not the
 * clock: when the whole process is stopped for a while, so are they.
 *
 * Exit code: 0, 1 when a test failed; a failed assertion aborts. */
#include "threads.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    uint64_t requests = 20000;
    if (argc == 3 && strcmp(argv[1], "--requests") == 0)
        requests = strtoull(argv[2], NULL, 10);
    if ((argc != 1 && argc != 3) || requests == 0) {
        (void)fprintf(stderr, "usage: threads [--requests N]\n");
        return 2;
    }
    struct tally tally = {0, 0};
    run_box(requests, &tally);
    run_races(requests, &tally);
    run_towns(requests, &tally);
    run_counts(requests * 200, &tally);
    (void)printf("threads: %u passed, %u failed\n", tally.passed, tally.failed);
    return tally.failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
