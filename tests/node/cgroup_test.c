/* Limits of control groups, from trees of files as the kernel shows them. */
#include "node/cgroup.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char root[] = "/tmp/cgroup-test-XXXXXX";

static void write_file(const char *path, const char *text)
{
    char whole[512];
    (void)snprintf(whole, sizeof whole, "%s/%s", root, path);
    for (char *slash = whole + sizeof root; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        (void)mkdir(whole, 0700);
        *slash = '/';
    }
    FILE *file = fopen(whole, "w");
    cr_assert_not_null(file);
    (void)fputs(text, file);
    (void)fclose(file);
}

static void begin(const char *groups)
{
    cr_assert_not_null(mkdtemp(root));
    write_file("proc/self/cgroup", groups);
}

static void end(void)
{
    char command[64];
    (void)snprintf(command, sizeof command, "rm -rf %s", root);
    cr_assert_eq(system(command), 0);
}

TestSuite(cgroup, .fini = end);

Test(cgroup, the_smallest_on_the_way_up_counts_rounded_up)
{
    begin("0::/a/b\n");
    write_file("sys/fs/cgroup/a/b/cpu.max", "350000 100000\n");
    cr_assert_eq(cgroup_cpus(root), 4);
    write_file("sys/fs/cgroup/a/cpu.max", "150000 100000\n");
    cr_assert_eq(cgroup_cpus(root), 2);
    write_file("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    cr_assert_eq(cgroup_cpus(root), 2);
    write_file("sys/fs/cgroup/a/cpu.max", "1000 100000\n");
    cr_assert_eq(cgroup_cpus(root), 1);
}

Test(cgroup, without_a_quota_there_is_no_limit)
{
    begin("0::/\n");
    cr_assert_eq(cgroup_cpus(root), 0);
    write_file("sys/fs/cgroup/cpu.max", "max 100000\n");
    cr_assert_eq(cgroup_cpus(root), 0);
    write_file("sys/fs/cgroup/cpu.max", "nonsense");
    cr_assert_eq(cgroup_cpus(root), 0);
}

/* Docker on version 1: the path is the host's, the mount shows the container's group as its root. */
Test(cgroup, a_path_of_the_hosts_is_the_root_here)
{
    begin("9:cpuset:/docker/1\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/docker/1\n");
    write_file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000\n");
    write_file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    cr_assert_eq(cgroup_cpus(root), 3);
    write_file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    cr_assert_eq(cgroup_cpus(root), 0);
}

Test(cgroup, the_smallest_memory_on_the_way_up_counts)
{
    begin("0::/a/b\n");
    cr_assert_eq(cgroup_memory(root), 0);
    write_file("sys/fs/cgroup/a/b/memory.max", "max\n");
    cr_assert_eq(cgroup_memory(root), 0);
    write_file("sys/fs/cgroup/a/memory.max", "268435456\n");
    cr_assert_eq(cgroup_memory(root), 268435456);
    write_file("sys/fs/cgroup/a/b/memory.max", "536870912\n");
    cr_assert_eq(cgroup_memory(root), 268435456);
    write_file("sys/fs/cgroup/memory.max", "1048576\n");
    cr_assert_eq(cgroup_memory(root), 1048576);
}

Test(cgroup, memory_of_version_1_has_a_greatest_number_for_no_limit)
{
    begin("8:memory:/docker/1\n1:cpu:/\n0::/\n");
    write_file("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    cr_assert_eq(cgroup_memory(root), 0);
    write_file("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n");
    cr_assert_eq(cgroup_memory(root), 268435456);
    write_file("sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "134217728\n");
    cr_assert_eq(cgroup_memory(root), 134217728);
    cr_assert_eq(cgroup_cpus(root), 0);
}

Test(cgroup, without_control_groups_there_is_no_limit)
{
    begin("");
    cr_assert_eq(cgroup_cpus(root), 0);
    cr_assert_eq(cgroup_memory(root), 0);
    cr_assert_eq(cgroup_cpus("/nowhere"), 0);
}
