/* Daemons are started with closed descriptors by hand-written init scripts, by `<&- >&- 2>&-`, and
 * by container runtimes without a console. */
#include "base/standard_files.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int standard_files_open(void)
{
    for (int number = STDIN_FILENO; number <= STDERR_FILENO; number++) {
        if (fcntl(number, F_GETFD) >= 0)
            continue;
        /* The lowest free number is this one: those below are open. */
        if (open("/dev/null", O_RDWR) < 0)
            return -errno;
    }
    return 0;
}
