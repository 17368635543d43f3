/* Shared by the io_*.c programs: a table of cases, each a small deterministic
 * program whose output is compared between a plain folder and a managed one.
 * Usage: io_X CASE FILE SCRATCH_FOLDER */
#ifndef CASES_H
#define CASES_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

struct case_entry {
    const char *name;
    void (*run)(const char *file, const char *scratch);
};

static unsigned char buffer[1 << 20];

/* FNV-1a: order matters, so swapped or doubled blocks show. */
static inline uint64_t fold(uint64_t hash, const void *data, size_t length) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < length; i++) hash = (hash ^ bytes[i]) * 1099511628211ULL;
    return hash;
}
#define FOLD_START 14695981039346656037ULL

static inline void report(const char *what, long result) {
    if (result < 0) printf("%s: %ld %s\n", what, result, strerror(errno));
    else printf("%s: %ld\n", what, result);
    fflush(stdout);
}

static inline void report_bytes(const char *what, long result, const void *data) {
    if (result < 0) report(what, result);
    else printf("%s: %ld %016llx\n", what, result, (unsigned long long)fold(FOLD_START, data, (size_t)result));
    fflush(stdout);
}

static inline int must_open(const char *file, int flags) {
    int fd = open(file, flags);
    if (fd < 0) { perror(file); exit(3); }
    return fd;
}

static inline int run_case(const struct case_entry *table, int argc, char **argv) {
    if (argc != 4) { fprintf(stderr, "usage: %s CASE FILE SCRATCH\n", argv[0]); return 2; }
    for (; table->name; table++)
        if (!strcmp(table->name, argv[1])) { table->run(argv[2], argv[3]); return 0; }
    fprintf(stderr, "no case %s\n", argv[1]);
    return 2;
}
#endif
