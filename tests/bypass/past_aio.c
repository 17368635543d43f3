/* libaio, by its library. See past.h. */
#include "past.h"
#include <libaio.h>

static io_context_t context;

static int prepare(void) { return io_setup(4, &context) == 0; }

static long get(int fd, char *room, long at) {
    struct iocb request, *requests[] = {&request};
    struct io_event event;
    io_prep_pread(&request, fd, room, BLOCK, at);
    int status = io_submit(context, 1, requests);
    if (status == 1) status = io_getevents(context, 1, 1, &event, NULL);
    return status == 1 ? (long)event.res : status;
}
