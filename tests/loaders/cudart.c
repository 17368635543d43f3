/* A stand-in for the CUDA runtime whose device memory is the host's. Built by tests/checks/loaders_real.py for InstantTensor,
   which needs a CUDA device and calls these functions of it alone. It never computes: a copy is a memcpy that is done
   when it returns, so streams and events have nothing to wait for. What it cannot show is a real GPU's copy engine. */
#include <stdlib.h>
#include <string.h>

#define CUDA(name, ...) __attribute__((visibility("default"))) int name(__VA_ARGS__)
static char event;

CUDA(cudaMalloc, void **at, size_t size) { return posix_memalign(at, 4096, size) == 0 ? 0 : 2; }
CUDA(cudaFree, void *at) { free(at); return 0; }
CUDA(cudaSetDevice, int device) { return device == 0 ? 0 : 101; }
CUDA(cudaStreamCreateWithFlags, void **stream, unsigned flags) { (void)flags; *stream = &event; return 0; }
CUDA(cudaStreamDestroy, void *stream) { (void)stream; return 0; }
CUDA(cudaMemcpyAsync, void *to, const void *from, size_t size, int kind, void *stream)
{ (void)kind; (void)stream; memcpy(to, from, size); return 0; }
CUDA(cudaEventCreateWithFlags, void **made, unsigned flags) { (void)flags; *made = &event; return 0; }
CUDA(cudaEventDestroy, void *old) { (void)old; return 0; }
CUDA(cudaEventRecord, void *which, void *stream) { (void)which; (void)stream; return 0; }
CUDA(cudaEventSynchronize, void *which) { (void)which; return 0; }
CUDA(cudaEventQuery, void *which) { (void)which; return 0; }
CUDA(cudaStreamWaitEvent, void *stream, void *which, unsigned flags) { (void)stream; (void)which; (void)flags; return 0; }
CUDA(cudaHostRegister, void *at, size_t size, unsigned flags) { (void)at; (void)size; (void)flags; return 0; }
CUDA(cudaHostUnregister, void *at) { (void)at; return 0; }
__attribute__((visibility("default"))) const char *cudaGetErrorString(int error) { return error ? "stand-in: failed" : "no error"; }
