// The emulated GPU itself, on kernels of a few lines: that lanes part and meet, that warps and
// clusters wait for one another, and that it stops where a GPU would.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "tests/emulator/machine.h"

namespace nibble::emulator {
namespace {

using testing::HasSubstr;

// Device memory of 32-bit numbers.
class Numbers {
 public:
  explicit Numbers(size_t count) : data_(static_cast<uint32_t*>(memory().allocate(count * 4))) {
    std::fill_n(data_, count, 0);
  }
  Numbers(const Numbers&) = delete;
  ~Numbers() { memory().free(data_); }
  uint32_t operator[](size_t i) const { return data_[i]; }
  uint64_t address() const { return reinterpret_cast<uint64_t>(data_); }

 private:
  uint32_t* data_;
};

// A kernel that is given the address of `out`; %rd1 is this, %r1 the thread and %rd2 the address of
// the thread's number.
void run_kernel(const std::string& body, const Numbers& out, Dim block, Dim grid = {},
                Dim cluster = {}) {
  Module module(
      ".version 9.0\n.target sm_90a\n.address_size 64\n"
      ".shared .align 8 .b8 shared[1024];\n"
      ".visible .entry kernel(\n .param .u64 kernel_param_0\n)\n{\n"
      " .reg .pred %p<9>;\n .reg .b32 %r<20>;\n .reg .b64 %rd<9>;\n"
      " ld.param.u64 %rd1, [kernel_param_0];\n mov.u32 %r1, %tid.x;\n"
      " mul.wide.u32 %rd2, %r1, 4;\n add.s64 %rd2, %rd1, %rd2;\n" +
      body + "\n ret;\n}\n");
  Launch launch = {&module.kernel("kernel"), grid, block, cluster, 0, std::vector<uint8_t>(8)};
  const uint64_t address = out.address();
  std::memcpy(launch.parameters.data(), &address, sizeof address);
  run(launch);
}

std::string fault_of(const std::string& body, const Numbers& out, Dim block) {
  try {
    run_kernel(body, out, block);
  } catch (const Fault& e) {
    return e.what();
  }
  return "no fault";
}

TEST(Emulator, LanesPartAndMeetAgain) {
  const Numbers out(40);
  // Each lane counts up to its number, then all exchange with their neighbour.
  run_kernel(R"(
    mov.b32 %r2, 0;
  loop:
    setp.ge.u32 %p1, %r2, %r1;
    @%p1 bra done;
    add.s32 %r2, %r2, 1;
    bra loop;
  done:
    shfl.sync.bfly.b32 %r3|%p2, %r2, 1, 31, -1;
    st.global.u32 [%rd2], %r3;)",
             out, {32});
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(out[i], i ^ 1);
  EXPECT_EQ(out[32], 0u);
}

TEST(Emulator, WarpsOfABlockWaitForOneAnother) {
  const Numbers out(70);
  // 70 threads: the last warp is not full. Each reads what the thread across has left.
  run_kernel(R"(
    mov.u32 %r4, shared;
    shl.b32 %r5, %r1, 2;
    add.s32 %r5, %r5, %r4;
    st.shared.u32 [%r5], %r1;
    bar.sync 0;
    sub.s32 %r6, 69, %r1;
    shl.b32 %r6, %r6, 2;
    add.s32 %r6, %r6, %r4;
    ld.shared.u32 %r7, [%r6];
    st.global.u32 [%rd2], %r7;)",
             out, {70});
  for (uint32_t i = 0; i < 70; ++i) EXPECT_EQ(out[i], 69 - i);
}

TEST(Emulator, BlocksOfAClusterReachOneAnother) {
  const Numbers out(4);
  // Thread 0 of each block waits for the number that the other one sends it.
  run_kernel(R"(
    mov.u32 %r4, shared;
    mov.u32 %r8, %cluster_ctarank;
    mbarrier.init.shared::cta.b64 [%r4], 1;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r4], 16;
    barrier.cluster.arrive.relaxed.aligned;
    barrier.cluster.wait.acquire.aligned;
    xor.b32 %r9, %r8, 1;
    mapa.shared::cluster.u32 %r10, %r4, %r9;
    add.s32 %r11, %r10, 16;
    .reg .f32 %f<2>;
    add.s32 %r12, %r8, 7;
    mov.b32 %f1, %r12;
    st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%r11], {%f1, %f1, %f1, %f1}, [%r10];
  again:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r4], 0;
    @!%p1 bra again;
    ld.shared.u32 %r13, [%r4+28];
    mul.wide.u32 %rd3, %r8, 4;
    add.s64 %rd4, %rd1, %rd3;
    st.global.u32 [%rd4], %r13;)",
             out, {1}, {2}, {2});
  EXPECT_EQ(out[0], 8u);
  EXPECT_EQ(out[1], 7u);
}

TEST(Emulator, SpinsWhileAnotherBlockWorks) {
  const Numbers out(2);
  // Block 0, which runs first, waits for a flag of block 1.
  run_kernel(R"(
    mov.u32 %r4, %ctaid.x;
    setp.eq.s32 %p1, %r4, 1;
    @%p1 bra other;
  again:
    ld.acquire.gpu.global.u64 %rd5, [%rd1];
    setp.eq.s64 %p2, %rd5, 0;
    @%p2 bra again;
    ret;
  other:
    mov.b64 %rd6, 5;
    st.release.gpu.global.u64 [%rd1], %rd6;)",
             out, {1}, {2});
  EXPECT_EQ(out[0], 5u);
}

// Thread 0 copies 16 bytes of `out` behind its first four numbers into shared memory and reads them
// back; `wait` stands between.
std::string bulk_copy(const std::string& wait) {
  return R"(
    mov.u32 %r4, shared;
    mbarrier.init.shared::cta.b64 [%r4], 1;
    mov.b32 %r5, 77;
    st.global.u32 [%rd1+16], %r5;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r4], 16;
    add.s32 %r6, %r4, 16;
    add.s64 %rd3, %rd1, 16;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r6], [%rd3], 16, [%r4];)" +
         wait + R"(
    ld.shared.u32 %r7, [%r6];
    st.global.u32 [%rd1], %r7;
  again:
    mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r4], 0;
    @!%p1 bra again;)";
}

TEST(Emulator, CopiesArriveWhenTheyAreWaitedFor) {
  const Numbers out(8);
  run_kernel(bulk_copy(R"(
  first:
    mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r4], 0;
    @!%p2 bra first;)"),
             out, {1});
  EXPECT_EQ(out[0], 77u);
  run_kernel(bulk_copy(""), out, {1});
  EXPECT_EQ(out[0], 0xD6D6D6D6u);

  const std::string copy = R"(
    mov.u32 %r4, shared;
    cp.async.ca.shared.global [%r4], [%rd1+16], 4;
    cp.async.commit_group;
    cp.async.wait_group WAIT;
    ld.shared.u32 %r7, [%r4];
    st.global.u32 [%rd1], %r7;)";
  for (const auto& [pending, read] : {std::pair{"0", 77u}, {"1", 0xD6D6D6D6u}}) {
    std::string body = copy;
    run_kernel(body.replace(body.find("WAIT"), 4, pending), out, {1});
    EXPECT_EQ(out[0], read);
  }
}

TEST(Emulator, ProductsNeedTheirOperandsUntilTheyAreWaitedFor) {
  const Numbers out(32);
  const auto product = [](const std::string& between) {
    return R"(
    .reg .f32 %f<9>;
    mov.b32 %f1, 0; mov.b32 %f2, 0; mov.b32 %f3, 0; mov.b32 %f4, 0;
    mov.b32 %r2, 0x3F803F80;
    mov.u32 %r4, shared;
    shl.b32 %r5, %r1, 5;
    add.s32 %r6, %r4, %r5;
    st.shared.v4.u32 [%r6], {%r2, %r2, %r2, %r2};
    st.shared.v4.u32 [%r6+16], {%r2, %r2, %r2, %r2};
    shr.u32 %r7, %r4, 4;
    mov.b32 %r8, 0x40000040;
    mov.b64 %rd3, {%r7, %r8};
    setp.eq.b32 %p1, 0, 0;
    bar.sync 0;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f1, %f2, %f3, %f4}, {%r2, %r2, %r2, %r2}, %rd3, %p1, 1, 1, 0;
    wgmma.commit_group.sync.aligned;)" +
           between + R"(
    wgmma.wait_group.sync.aligned 0;
    mov.b32 %r9, %f1;
    st.global.u32 [%rd2], %r9;)";
  };
  run_kernel(product(""), out, {32});
  for (int i = 0; i < 32; ++i) EXPECT_EQ(out[i], 0x41800000u);  // 16
  EXPECT_THAT(fault_of(product("st.shared.u32 [%r6], %r1;"), out, {32}),
              HasSubstr("what a product under way reads was overwritten"));
}

TEST(Emulator, StopsWhereAGpuWould) {
  const Numbers out(32);
  EXPECT_THAT(fault_of("st.global.u32 [%rd2+4], %r1;", out, {32}), HasSubstr("is not allocated"));
  EXPECT_THAT(fault_of("st.global.u32 [%rd2+2], %r1;", out, {1}), HasSubstr("misaligned address"));
  EXPECT_THAT(fault_of("mov.u32 %r4, shared;\n st.shared.u32 [%r4+1024], %r1;", out, {1}),
              HasSubstr("outside of the block's 1024 bytes"));
  EXPECT_THAT(fault_of("st.shared.u32 [0], %r1;", out, {1}), HasSubstr("unknown address"));
  EXPECT_THAT(fault_of(".shared .align 2048 .b8 here[16];", out, {1}),
              HasSubstr("shared memory not aligned to 2048"));
  EXPECT_THAT(fault_of("bar.sync 1, 64;", out, {32}), HasSubstr("goes no further"));
  EXPECT_THAT(fault_of(R"(
    setp.lt.u32 %p1, %r1, 16;
    @%p1 bra half;
    shfl.sync.bfly.b32 %r3|%p2, %r1, 1, 31, -1;
    ret;
  half:
    shfl.sync.bfly.b32 %r4|%p3, %r1, 1, 31, -1;)",
                       out, {32}),
              HasSubstr("wait for each other"));
  EXPECT_THAT(fault_of("mov.u32 %r4, shared;\n mbarrier.init.shared::cta.b64 [%r4], 1;\n"
                       "again: mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r4], 0;\n"
                       "@!%p1 bra again;",
                       out, {1}),
              HasSubstr("goes no further"));
  EXPECT_THAT(fault_of("mov.u32 %r4, shared;\n mbarrier.init.shared::cta.b64 [%r4], 1;\n"
                       "add.s32 %r6, %r4, 16;\n cp.async.bulk.shared::cluster.global."
                       "mbarrier::complete_tx::bytes [%r6], [%rd1], 16, [%r4];",
                       out, {1}),
              HasSubstr("ended before a copy to it had arrived"));
  EXPECT_THAT(fault_of("frobnicate.b32 %r1, %r2;", out, {1}),
              HasSubstr("unknown instruction frobnicate.b32"));
}

}  // namespace
}  // namespace nibble::emulator
