/* Dropping privileges, in this process: every capability is gone afterwards, in later threads too.
 */
#include "net/privilege.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The five sets of a thread, as the kernel tells them. */
struct sets {
    uint64_t inheritable, permitted, effective, bounding, ambient;
};

static struct sets read_sets(void)
{
    struct sets sets = {1, 1, 1, 1, 1};
    char line[256];
    FILE *status = fopen("/proc/thread-self/status", "r");
    cr_assert_not_null(status);
    while (fgets(line, sizeof line, status) != NULL) {
        (void)sscanf(line, "CapInh: %lx", &sets.inheritable);
        (void)sscanf(line, "CapPrm: %lx", &sets.permitted);
        (void)sscanf(line, "CapEff: %lx", &sets.effective);
        (void)sscanf(line, "CapBnd: %lx", &sets.bounding);
        (void)sscanf(line, "CapAmb: %lx", &sets.ambient);
    }
    (void)fclose(status);
    return sets;
}

static void skip_without_capabilities(void)
{
    if (read_sets().permitted != 0)
        return;
    (void)fprintf(stderr, "SKIPPED: there are no capabilities here that could be dropped\n");
    cr_skip_test("there are no capabilities here that could be dropped");
}

static void *expect_none(void *context)
{
    struct sets sets = read_sets();
    *(bool *)context = (sets.permitted | sets.effective | sets.ambient | sets.inheritable) == 0;
    return NULL;
}

Test(privilege, the_right_to_bind_stays_until_it_is_dropped)
{
    skip_without_capabilities();
    uint64_t bind = (uint64_t)1 << CAP_NET_BIND_SERVICE;
    if ((read_sets().permitted & bind) == 0)
        cr_skip_test("needs CAP_NET_BIND_SERVICE");
    cr_assert_eq(privilege_drop(PRIVILEGE_KEEP_BIND), 0);
    cr_assert_eq(read_sets().permitted, bind);
    cr_assert_eq(read_sets().effective, bind);
    cr_assert_eq(privilege_drop(PRIVILEGE_KEEP_NONE), 0);
    cr_assert_eq(read_sets().permitted, 0);
    cr_assert_eq(read_sets().effective, 0);
}

Test(privilege, every_set_is_empty_afterwards)
{
    skip_without_capabilities();
    cr_assert_eq(privilege_drop(PRIVILEGE_KEEP_NONE), 0);
    struct sets sets = read_sets();
    cr_assert_eq(sets.inheritable, 0);
    cr_assert_eq(sets.permitted, 0);
    cr_assert_eq(sets.effective, 0);
    cr_assert_eq(sets.bounding, 0, "%lx", sets.bounding);
    cr_assert_eq(sets.ambient, 0);
    cr_assert_eq(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
}

/* AmbientCapabilities= of a unit gives them this way: permitted, inheritable and ambient. */
Test(privilege, ambient_capabilities_go_too)
{
    skip_without_capabilities();
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
    cr_assert_eq(syscall(SYS_capget, &header, sets), 0);
    for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
        sets[i].inheritable = sets[i].permitted;
    cr_assert_eq(syscall(SYS_capset, &header, sets), 0);
    cr_assert_eq(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0), 0);
    cr_assert_neq(read_sets().ambient, 0);
    cr_assert_eq(privilege_drop(PRIVILEGE_KEEP_NONE), 0);
    cr_assert_eq(read_sets().ambient, 0);
    cr_assert_eq(read_sets().inheritable, 0);
}

Test(privilege, what_needs_one_is_refused_and_none_comes_back)
{
    skip_without_capabilities();
    char path[] = "/tmp/minivault-privilege-XXXXXX";
    int file = mkstemp(path);
    cr_assert_geq(file, 0);
    cr_assert_eq(fchown(file, 65534, 65534), 0);
    cr_assert_eq(fchmod(file, 0600), 0);
    cr_assert_eq(privilege_drop(PRIVILEGE_KEEP_NONE), 0);
    cr_assert_eq(open(path, O_RDONLY | O_CLOEXEC), -1);
    cr_assert_eq(errno, EACCES);
    cr_assert_eq(fchown(file, 0, 0), -1);
    cr_assert_eq(errno, EPERM);
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {
        {.effective = 1, .permitted = 1}};
    cr_assert_eq(syscall(SYS_capset, &header, sets), -1);
    cr_assert_eq(errno, EPERM);
    (void)unlink(path); /* /tmp is sticky, and the file is somebody else's: may fail */
    (void)close(file);
}

Test(privilege, later_threads_have_none_earlier_ones_keep_theirs)
{
    skip_without_capabilities();
    pthread_t thread;
    bool has_none = true;
    cr_assert_eq(pthread_create(&thread, NULL, expect_none, &has_none), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert(!has_none);
    cr_assert_eq(privilege_drop(PRIVILEGE_KEEP_NONE), 0);
    cr_assert_eq(pthread_create(&thread, NULL, expect_none, &has_none), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert(has_none);
}

Test(privilege, nothing_to_drop_is_no_error)
{
    cr_assert_eq(privilege_drop(PRIVILEGE_KEEP_NONE), 0);
    cr_assert_eq(privilege_drop(PRIVILEGE_KEEP_NONE), 0);
    cr_assert_eq(read_sets().permitted, 0);
}
