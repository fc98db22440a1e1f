// base/cuda.h for a build without CUDA.
#include "base/check.h"
#include "base/cuda.h"

namespace nibble::cuda {
namespace {

[[noreturn]] void refuse() {
  fail(ErrorCode::kDevice, "no CUDA device: this build of Nibble is without CUDA");
}

}  // namespace

Properties properties(int) { refuse(); }
int num_sms(int) { refuse(); }
int set_device(int) { refuse(); }
void restore_device(int) noexcept {}
void* new_memory(int, size_t) { refuse(); }
void delete_memory(int, void*) noexcept {}
void* new_stream(int) { refuse(); }
void delete_stream(int, void*) noexcept {}
void* new_event(int) { refuse(); }
void delete_event(int, void*) noexcept {}
void copy(void*, const void*, size_t, void*) { refuse(); }
void fill(void*, uint8_t, size_t, void*) { refuse(); }
void record(void*, void*) { refuse(); }
void begin_capture(void*) { refuse(); }
void* end_capture(void*) { refuse(); }
void delete_graph(int, void*) noexcept {}
void launch_graph(void*, void*) { refuse(); }
int64_t kernel_graphs() { return 0; }
void synchronize(void*) { refuse(); }
double milliseconds(void*, void*) { refuse(); }
int device_of_stream(void*) { refuse(); }
int device_of(const void*) { refuse(); }

}  // namespace nibble::cuda
