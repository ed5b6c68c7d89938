/* What is known to be wrong: counted at once, told once, and as long as it is met. */
#include "store/disk/findings.h"

#include "tests/support/log_lines.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

struct bench {
    struct findings findings;
    struct log_lines lines;
};

static void begin(struct bench *bench)
{
    log_lines_begin(&bench->lines, LOG_INFO);
    cr_assert_eq(findings_init(&bench->findings, &bench->lines.log), 0);
}

static void expect(const struct bench *bench, uint64_t damaged, uint64_t dead, uint64_t unreadable,
                   uint32_t lines)
{
    struct findings_stats stats;
    findings_stats(&bench->findings, &stats);
    cr_assert_eq(stats.damaged, damaged);
    cr_assert_eq(stats.damaged_dead, dead);
    cr_assert_eq(stats.unreadable, unreadable);
    cr_assert_eq(bench->lines.count, lines, "%s", bench->lines.last);
}

static const struct finding record = {.kind = FINDING_SEGMENT, .number = 7, .offset = 4224};

Test(findings, place_counts_at_once_and_once)
{
    struct bench bench;
    begin(&bench);
    for (uint32_t i = 0; i < 3; i++)
        findings_damage(&bench.findings, &record, true, "segment %d is damaged", 7);
    expect(&bench, 1, 0, 0, 1);
    struct finding other = record;
    other.offset += 8;
    findings_damage(&bench.findings, &other, false, "nobody needs it");
    expect(&bench, 1, 1, 0, 1);
    findings_deinit(&bench.findings);
}

Test(findings, what_a_whole_pass_does_not_meet_counts_no_longer)
{
    struct bench bench;
    begin(&bench);
    (void)findings_note(&bench.findings, &record, true);
    findings_end_pass(&bench.findings); /* it was under way */
    expect(&bench, 1, 0, 0, 0);
    findings_incomplete(&bench.findings);
    findings_end_pass(&bench.findings);
    expect(&bench, 1, 0, 0, 0);
    findings_end_pass(&bench.findings);
    expect(&bench, 0, 0, 0, 0);
    cr_assert(!findings_note(&bench.findings, &record, true), "it was told");
    expect(&bench, 1, 0, 0, 0);
    findings_deinit(&bench.findings);
}

Test(findings, loss_that_a_start_found_lasts)
{
    struct bench bench;
    struct finding loss = record;
    begin(&bench);
    loss.is_lasting = true;
    cr_assert(findings_note(&bench.findings, &loss, true));
    (void)findings_note(&bench.findings, &record, false); /* the scrubber takes it for dead */
    findings_segment_sound(&bench.findings, loss.number);
    for (uint32_t i = 0; i < 3; i++)
        findings_end_pass(&bench.findings);
    expect(&bench, 1, 0, 0, 0);
    findings_deinit(&bench.findings);
}

Test(findings, file_that_cannot_be_read_is_no_damage)
{
    struct bench bench;
    begin(&bench);
    for (uint32_t i = 0; i < 3; i++)
        findings_unreadable(&bench.findings, &record, "/data/ab/seg-7", -EACCES);
    expect(&bench, 0, 0, 1, 1);
    cr_assert_not_null(
        strstr(bench.lines.last, "/data/ab/seg-7 cannot be read: Permission denied"));
    findings_damage(&bench.findings, &record, true, "a place in it is damaged");
    expect(&bench, 1, 0, 1, 2);
    findings_readable(&bench.findings, &record);
    expect(&bench, 1, 0, 0, 2);
    findings_unreadable(&bench.findings, &record, "/data/ab/seg-7", -EACCES);
    expect(&bench, 1, 0, 1, 3); /* it is news */
    findings_incomplete(&bench.findings);
    findings_end_pass(&bench.findings);
    findings_incomplete(&bench.findings);
    findings_end_pass(&bench.findings);
    expect(&bench, 1, 0, 0, 3); /* nobody has tried it since */
    findings_deinit(&bench.findings);
}

Test(findings, what_passes_by_itself_is_not_told)
{
    static const int errors[] = {-ENOMEM, -EMFILE, -ENFILE};
    struct bench bench;
    begin(&bench);
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        findings_unreadable(&bench.findings, &record, "/data/ab/seg-7", errors[i]);
    expect(&bench, 0, 0, 0, 0);
    findings_deinit(&bench.findings);
}

Test(findings, full_table_gives_up_what_is_over)
{
    struct bench bench;
    struct finding finding = record;
    begin(&bench);
    for (uint32_t i = 0; i < FINDINGS_MAX + 10; i++) {
        finding.number = i;
        (void)findings_note(&bench.findings, &finding, true);
    }
    expect(&bench, FINDINGS_MAX, 0, 0, 1);
    findings_end_pass(&bench.findings);
    findings_end_pass(&bench.findings);
    expect(&bench, 0, 0, 0, 1);
    cr_assert(findings_note(&bench.findings, &finding, true), "there is room for it now");
    expect(&bench, 1, 0, 0, 1);
    findings_deinit(&bench.findings);
}
