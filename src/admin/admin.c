/* minivault-admin: the command line. */
#include "admin/read/admin.h"

#include "admin/read/admin_files.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

#ifndef MINIVAULT_VERSION
#define MINIVAULT_VERSION "unknown"
#endif

#define OUTPUT_BUFFER_SIZE ((size_t)1024 * 1024)

static const char HELP[] =
    "minivault-admin: looks at a data directory that no server has open; changes nothing in it.\n"
    "\n"
    "  minivault-admin check DATA          verifies every checksum\n"
    "  minivault-admin dump DATA           the newest record of each key, one JSON object a line\n"
    "      --all                           every record, also older ones\n"
    "      --values                        with values (base64 when they are not UTF-8)\n"
    "  minivault-admin stat DATA           files, keys, live shares and space, one number a line\n"
    "  minivault-admin --help, --version\n"
    "\n"
    "  --quiet                             no progress (a line a second on stderr)\n"
    "\n"
    "check says what it finds on stdout, dump and stat on stderr (damage alone), a line each:\n"
    "    FILE: OFFSET: what, what it means          damage\n"
    "    FILE: OFFSET: stop: what, what it means    damage: a server refuses to start\n"
    "    FILE: OFFSET: note: what, what it means    nothing is lost\n"
    "FILE is relative to DATA. check ends with a line \"summary: ...\".\n"
    "\n"
    "Memory: check and dump need at most 192 bytes a key and the keys themselves (dump --all:\n"
    "none of it), stat at most 192 bytes a key; dump --values also one value.\n"
    "\n"
    "Exit codes:\n"
    "  0  sound\n"
    "  1  damage was found\n"
    "  2  wrong usage\n"
    "  3  it could not be done: no data directory, in use by a server, of another format,\n"
    "     another directory, not readable for this user, not enough memory, output not writable\n"
    "A directory whose number of shards is just being changed is shown as the next start finds "
    "it.\n";

struct command {
    const char *name;
    int (*run)(struct admin *admin);
    bool shows_findings; /* as its result, with the notes */
};

static const struct command COMMANDS[] = {
    {"check", admin_check, true},
    {"dump", admin_dump, false},
    {"stat", admin_stat, false},
};

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof COMMANDS / sizeof COMMANDS[0]; i++)
        if (strcmp(name, COMMANDS[i].name) == 0)
            return &COMMANDS[i];
    return NULL;
}

static int say_usage(const char *what, const char *argument)
{
    (void)fprintf(stderr, "minivault-admin: %s%s; minivault-admin --help tells the usage\n", what,
                  argument);
    return ADMIN_EXIT_USAGE;
}

/* Both -x and --x, as the server. */
static bool is_flag(const char *argument, const char *name)
{
    return argument[0] == '-' && strcmp(argument + 1 + (argument[1] == '-'), name) == 0;
}

/* Returns whether there is such a flag for this command. */
static bool take_flag(const struct command *command, const char *flag,
                      struct admin_options *options)
{
    bool is_dump = command->run == admin_dump;
    if (is_flag(flag, "quiet"))
        options->is_quiet = true;
    else if (is_dump && is_flag(flag, "all"))
        options->all = true;
    else if (is_dump && is_flag(flag, "values"))
        options->values = true;
    else
        return false;
    return true;
}

static int parse(int argc, char **argv, const struct command *command,
                 struct admin_options *ret_options)
{
    for (int i = 2; i < argc; i++) {
        const char *argument = argv[i];
        if (argument[0] == '-') {
            if (!take_flag(command, argument, ret_options))
                return say_usage("no such flag for this command: ", argument);
        } else if (ret_options->data != NULL) {
            return say_usage("more than one directory: ", argument);
        } else {
            ret_options->data = argument;
        }
    }
    return ret_options->data == NULL || *ret_options->data == '\0'
               ? say_usage("which data directory?", "")
               : 0;
}

static int run(const struct command *command, const struct admin_options *options)
{
    struct admin admin = {.options = options};
    report_init(&admin.report, command->name, options->is_quiet,
                command->shows_findings ? stdout : stderr, command->shows_findings);
    int result = admin_start(&admin);
    if (result == 0)
        result = command->run(&admin);
    if (result == -ENOMEM)
        report_failure(&admin.report, "not enough memory");
    if ((fflush(stdout) != 0 || ferror(stdout)) && !admin.report.is_refused)
        report_failure(&admin.report, "the output cannot be written");
    admin_shut(&admin);
    return (int)report_exit(&admin.report);
}

int main(int argc, char **argv)
{
    if (log_open_standard_files() < 0)
        return ADMIN_EXIT_CANNOT; /* there is nowhere to say so */
    (void)setvbuf(stdout, NULL, _IOFBF, OUTPUT_BUFFER_SIZE);
    if (argc < 2)
        return say_usage("check, dump or stat?", "");
    if (is_flag(argv[1], "help") || is_flag(argv[1], "h"))
        return fputs(HELP, stdout) < 0 ? ADMIN_EXIT_CANNOT : ADMIN_EXIT_SOUND;
    if (is_flag(argv[1], "version"))
        return puts("minivault-admin " MINIVAULT_VERSION) < 0 ? ADMIN_EXIT_CANNOT
                                                              : ADMIN_EXIT_SOUND;
    const struct command *command = find_command(argv[1]);
    if (command == NULL)
        return say_usage("no such command: ", argv[1]);
    struct admin_options options = {0};
    int error = parse(argc, argv, command, &options);
    return error != 0 ? error : run(command, &options);
}
