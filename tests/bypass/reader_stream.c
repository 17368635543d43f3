/* Opens a file with fopen, which is hooked, and gives its descriptor as standard input to a program that runs
 * without the library. Usage: reader_stream FILE PROGRAM ARGS... (PROGRAM is an absolute path) */
#define _GNU_SOURCE
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    FILE *file = fopen(argv[1], "rb");
    if (!file) { perror("fopen"); return 1; }
    if (dup2(fileno(file), 0) < 0) { perror("dup2"); return 1; }
    char *none[] = {NULL};
    execve(argv[2], argv + 2, none);
    perror("execve");
    return 1;
}
