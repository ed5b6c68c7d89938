/* Refused writes in the log: once a second, with how many a line stands for. */
#include "store/disk/refusal.h"

#include "tests/support/log_lines.h"
#include "tests/support/sim_machine.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static void pass_ms(struct machine *machine, uint64_t ms)
{
    struct io_op op = {0};
    io_timer(machine->io, &op, io_now_ns(machine->io) + ms * NS_PER_MS);
    cr_assert_eq(machine_wait(machine, &op), 0);
}

Test(refusal, a_line_a_second_stands_for_all)
{
    struct machine machine;
    struct log_lines lines;
    log_lines_begin(&lines, LOG_INFO);
    machine_open(&machine, 1);
    struct refusals refusals = {.io = machine.io, .log = &lines.log, .path = "data"};
    pass_ms(&machine, 1);
    refusals_tell(&refusals, "a set", -ENOSPC);
    cr_assert_eq(lines.count, 1, "the first is told at once");
    cr_assert_not_null(
        strstr(lines.last, "data: a set was refused (refusals since the last such line: 1)"), "%s",
        lines.last);
    cr_assert_not_null(strstr(lines.last, "No space left on device: the disk is full"));
    for (int i = 0; i < 500; i++) {
        pass_ms(&machine, 1);
        refusals_tell(&refusals, "a set", -ENOSPC);
    }
    cr_assert_eq(lines.count, 1);
    pass_ms(&machine, 1000);
    refusals_tell(&refusals, "a large value", -EMFILE);
    cr_assert_eq(lines.count, 2);
    cr_assert_not_null(
        strstr(lines.last, "a large value was refused (refusals since the last such line: 501)"),
        "%s", lines.last);
    cr_assert_not_null(strstr(lines.last, "LimitNOFILE="), "%s", lines.last);
    machine_close(&machine);
}

Test(refusal, every_error_says_what_to_do)
{
    static const int errors[] = {-ENOSPC, -EDQUOT, -EMFILE, -ENFILE, -EFBIG,
                                 -ENOMEM, -EROFS,  -EACCES, -EPERM,  -EIO};
    struct machine machine;
    machine_open(&machine, 1);
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        cr_expect_gt(strlen(refusal_meaning(machine.io, ".", errors[i])), 20);
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        cr_expect_eq(refusal_may_pass(errors[i]), i < 6, "%s", strerror(-errors[i]));
    machine_close(&machine);
}
