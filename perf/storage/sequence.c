/* sequence: the bare sequence that makes a value of its own file durable: create, write with
 * O_DIRECT, fdatasync, sync of the directory. So many threads do it at a time, each into the next
 * of the directories. What it reaches bounds a server that keeps large values in files.
 *
 * Nothing is shared between threads, neither a sync nor a thought. */
#include "../common/clock.h"
#include "../common/options.h"
#include "base/histogram.h"
#include "base/prng.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_SIZE 4096u
#define DIRECTORIES_MAX 256

struct settings {
    const char *folder;
    uint64_t threads;
    uint64_t value_size;
    uint64_t directories;
    double seconds;
    int handles[DIRECTORIES_MAX];
};

struct thread {
    pthread_t id;
    const struct settings *settings;
    uint64_t number;
    uint64_t end_ns;
    uint8_t *buffer;
    uint64_t count; /* files made */
    int error;
    struct histogram latency;
};

static int parse(struct settings *settings, int argc, char **argv)
{
    const struct option_spec specs[] = {
        {"folder", OPTION_STRING, &settings->folder, "DIR", 0, 0,
         "where the files are made; they are removed at the end"},
        {"threads", OPTION_U64, &settings->threads, "N", 1, 1024, "values under way at a time"},
        {"value-size", OPTION_U64, &settings->value_size, "BYTES", 1, 256 << 20,
         "size of a file; written as whole blocks of 4 KiB"},
        {"directories", OPTION_U64, &settings->directories, "N", 1, DIRECTORIES_MAX,
         "folders that take turns"},
        {"seconds", OPTION_DOUBLE, &settings->seconds, "SECONDS", 0, 1e6, "how long"},
    };
    const struct option_table table = {
        .usage = "sequence: create, write (O_DIRECT), fdatasync, directory sync, again and again. "
                 "Prints JSON.",
        .specs = specs,
        .spec_count = sizeof specs / sizeof specs[0],
    };
    return options_parse(&table, argc, argv);
}

static int write_all(int file, const uint8_t *data, uint64_t size)
{
    for (uint64_t done = 0; done < size;) {
        ssize_t written = pwrite(file, data + done, size - done, (off_t)done);
        if (written <= 0)
            return written < 0 ? -errno : -EIO;
        done += (uint64_t)written;
    }
    return 0;
}

static void name_of(const struct thread *thread, uint64_t index, char *ret_name, size_t size)
{
    (void)snprintf(ret_name, size, "%03llu-%010llu", (unsigned long long)thread->number,
                   (unsigned long long)index);
}

static int directory_of(const struct thread *thread, uint64_t index)
{
    return thread->settings->handles[(thread->number + index) % thread->settings->directories];
}

/* One value. */
static int make_file(struct thread *thread)
{
    char name[32];
    name_of(thread, thread->count, name, sizeof name);
    int directory = directory_of(thread, thread->count);
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC;
    int file = openat(directory, name, flags, 0600);
    if (file < 0)
        return -errno;
    thread->count++;
    uint64_t size = thread->settings->value_size;
    int error = write_all(file, thread->buffer, (size + BLOCK_SIZE - 1) / BLOCK_SIZE * BLOCK_SIZE);
    if (error == 0 && fdatasync(file) < 0)
        error = -errno;
    if (error == 0 && fsync(directory) < 0)
        error = -errno;
    (void)close(file);
    return error;
}

static void *run(void *context)
{
    struct thread *thread = context;
    uint64_t now_ns = clock_now_ns();
    while (now_ns < thread->end_ns && thread->error == 0) {
        thread->error = make_file(thread);
        uint64_t after_ns = clock_now_ns();
        histogram_add(&thread->latency, after_ns - now_ns, 1);
        now_ns = after_ns;
    }
    return NULL;
}

static void remove_files(const struct thread *thread)
{
    for (uint64_t i = 0; i < thread->count; i++) {
        char name[32];
        name_of(thread, i, name, sizeof name);
        (void)unlinkat(directory_of(thread, i), name, 0);
    }
}

static int open_directories(struct settings *settings)
{
    for (uint64_t i = 0; i < settings->directories; i++) {
        char path[4096];
        (void)snprintf(path, sizeof path, "%s/%02x", settings->folder, (unsigned)i);
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
            return -errno;
        settings->handles[i] = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (settings->handles[i] < 0)
            return -errno;
    }
    sync();
    return 0;
}

static int init_thread(struct thread *thread, const struct settings *settings, uint64_t number)
{
    uint64_t size = (settings->value_size + BLOCK_SIZE - 1) / BLOCK_SIZE * BLOCK_SIZE;
    *thread = (struct thread){.settings = settings, .number = number};
    thread->buffer = aligned_alloc(BLOCK_SIZE, size);
    if (thread->buffer == NULL)
        return -ENOMEM;
    struct prng prng = {.state = number};
    for (uint64_t i = 0; i + 8 <= size; i += 8) {
        uint64_t noise = prng_next(&prng);
        memcpy(thread->buffer + i, &noise, sizeof noise);
    }
    return 0;
}

static void print(const struct settings *settings, const struct histogram *latency, double seconds)
{
    double rate = (double)histogram_total(latency) / seconds;
    printf("{\"threads\":%llu,\"value_size\":%llu,\"seconds\":%.3f,\"ops_per_second\":%.1f,"
           "\"bytes_per_second\":%.0f,\"latency_us\":{\"p50\":%.1f,\"p99\":%.1f,\"p99.9\":%.1f}}\n",
           (unsigned long long)settings->threads, (unsigned long long)settings->value_size, seconds,
           rate, rate * (double)settings->value_size,
           (double)histogram_quantile(latency, 0.5) / 1e3,
           (double)histogram_quantile(latency, 0.99) / 1e3,
           (double)histogram_quantile(latency, 0.999) / 1e3);
}

static int measure(const struct settings *settings, struct thread *threads)
{
    uint64_t start_ns = clock_now_ns();
    uint64_t end_ns = start_ns + (uint64_t)(settings->seconds * 1e9);
    uint64_t started = 0;
    int error = 0;
    for (; started < settings->threads && error == 0; started++) {
        threads[started].end_ns = end_ns;
        error = -pthread_create(&threads[started].id, NULL, run, &threads[started]);
    }
    for (uint64_t i = 0; i < started - (error < 0); i++) {
        (void)pthread_join(threads[i].id, NULL);
        error = error == 0 ? threads[i].error : error;
    }
    double seconds = (double)(clock_now_ns() - start_ns) / 1e9;
    for (uint64_t i = 1; i < settings->threads; i++)
        histogram_merge(&threads[0].latency, &threads[i].latency);
    for (uint64_t i = 0; i < settings->threads; i++)
        remove_files(&threads[i]);
    if (error == 0)
        print(settings, &threads[0].latency, seconds);
    return error;
}

int main(int argc, char **argv)
{
    struct settings settings = {
        .folder = ".", .threads = 8, .value_size = 1 << 20, .directories = 256, .seconds = 5};
    int error = parse(&settings, argc, argv);
    if (error < 0)
        return error == -ECANCELED ? 0 : 2;
    struct thread *threads = calloc(settings.threads, sizeof *threads);
    error = threads == NULL ? -ENOMEM : open_directories(&settings);
    for (uint64_t i = 0; error == 0 && i < settings.threads; i++)
        error = init_thread(&threads[i], &settings, i);
    if (error == 0)
        error = measure(&settings, threads);
    if (error < 0)
        fprintf(stderr, "sequence: %s: %s\n", settings.folder, strerror(-error));
    for (uint64_t i = 0; threads != NULL && i < settings.threads; i++)
        free(threads[i].buffer);
    free(threads);
    return error < 0 ? 1 : 0;
}
