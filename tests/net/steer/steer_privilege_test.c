/* What steering needs to be loaded, what it says without, and what it can do afterwards. */
#include "net/privilege.h"
#include "steer_fixture.h"

#define ONLY(capability) ((uint64_t)1 << (capability))

static void skip_without_capabilities(void)
{
    struct steer *steer;
    open_steer(1, &steer);
    steer_close(steer);
}

Test(steer_privilege, cap_bpf_alone_is_enough_and_may_go_once_it_is_loaded)
{
    struct group group;
    skip_without_capabilities();
    open_listeners(&group, 4, false);
    set_capabilities(ONLY(CAP_BPF));
    open_steer(4, &group.steer);
    cr_assert_eq(privilege_drop(PRIVILEGE_KEEP_NONE), 0);
    steer_group(&group, group.steer, STEER_CLIENTS);
    steer_load_drain(&(struct steer_load){.shared = steer_shard(group.steer, 0)});
    connect_many(&group, 30);
    cr_assert_eq(accept_queued(&group, 0), 0);
    cr_assert_eq(accept_queued(&group, 1), 10);
    close_listener(&group, 1);
    cr_assert_eq(accept_all(&group), 20);
    close_group(&group);
}

/* Errors leave the output alone, and the line tells what to do. */
static void expect_refusal(uint64_t capabilities)
{
    struct steer *steer = NULL;
    char error[STEER_ERROR_SIZE] = "";
    set_capabilities(capabilities);
    cr_assert_eq(steer_open(2, LOG_INFO, &steer, error), -EPERM);
    cr_assert_null(steer);
    cr_assert_not_null(strstr(error, "CAP_BPF is missing"), "%s", error);
    cr_assert_not_null(strstr(error, "setcap cap_bpf+ep"), "%s", error);
    cr_assert_null(strchr(error, '\n'));
}

Test(steer_privilege, without_capabilities_one_line_says_what_is_missing)
{
    skip_without_capabilities();
    expect_refusal(0);
}

Test(steer_privilege, cap_net_admin_is_no_substitute)
{
    skip_without_capabilities();
    expect_refusal(ONLY(CAP_NET_ADMIN) | ONLY(CAP_PERFMON));
}

/* In a user namespace a process has every capability, but not over the kernel. */
Test(steer_privilege, in_a_user_namespace_the_line_says_so)
{
    skip_without_capabilities();
    if (unshare(CLONE_NEWUSER) < 0)
        cr_skip_test("no user namespaces here: %s", strerror(errno));
    struct steer *steer = NULL;
    char error[STEER_ERROR_SIZE] = "";
    cr_assert_eq(steer_open(2, LOG_INFO, &steer, error), -EACCES);
    cr_assert_not_null(strstr(error, "user namespace"), "%s", error);
}

/* At debug, what libbpf says comes as lines of the log, and nothing of it otherwise. */
static size_t size_of_output(enum log_level level)
{
    FILE *file = tmpfile();
    cr_assert_not_null(file);
    int before = dup(STDERR_FILENO);
    cr_assert_geq(dup2(fileno(file), STDERR_FILENO), 0);
    struct steer *steer;
    char error[STEER_ERROR_SIZE];
    int result = steer_open(2, level, &steer, error);
    (void)dup2(before, STDERR_FILENO);
    (void)close(before);
    cr_assert_eq(result, 0, "%s", error);
    steer_close(steer);
    char line[LOG_LINE_MAX + 1];
    rewind(file);
    while (fgets(line, sizeof line, file) != NULL)
        cr_assert(strstr(line, " DEBUG ") != NULL || strncmp(line, "<7>", 3) == 0, "%s", line);
    size_t size = (size_t)ftell(file);
    (void)fclose(file);
    return size;
}

Test(steer_privilege, libbpf_speaks_at_debug_only)
{
    skip_without_capabilities();
    cr_assert_eq(size_of_output(LOG_INFO), 0);
    cr_assert_gt(size_of_output(LOG_DEBUG), 0);
}
