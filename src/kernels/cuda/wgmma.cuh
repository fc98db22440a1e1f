// Warpgroup matrix products of sm_90a: four warps, asynchronous, A from registers and B from shared
// memory. Registers that a product reads or writes are not touched between the fence before it and
// the wait for its group.
#pragma once

#include <cstdint>

namespace nibble::cuda {

__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most kPending of the warpgroup's latest groups are under way.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// More or fewer registers for every thread of the warpgroup, out of what the block was given.
template <int kRegisters>
__device__ __forceinline__ void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// B as a tensor copy with 128-byte swizzle leaves it: rows of 64 elements of k, 1024 bytes for
// eight. `address` is a multiple of 1024 plus 32 bytes for each 16 of k. Only the lower word moves,
// so callers add to that alone; see wgmma's matrix descriptors in the PTX manual.
__device__ __forceinline__ uint32_t operand_of(uint32_t address) { return address >> 4 | 1u << 16; }
inline constexpr uint32_t kOperandStep16 = 32 >> 4;  // to the next 16 of k
inline constexpr uint32_t kOperandHigh = 1u << 30 | 1024 >> 4;

// d[64, kColumns] += a[64, 16] * b[16, kColumns], bf16 or fp16 in, fp32 sums. Warp i of four has
// rows 16 i .. 16 i + 15; its a and d are those of mma, d by eight columns, kColumns / 2 floats.
// `operand_high` is kOperandHigh, from a register: as a constant it is moved there anew for most
// products.
template <bool kF16, int kColumns>
__device__ __forceinline__ void wgmma(float* d, const uint32_t* a, uint32_t operand,
                                      uint32_t operand_high);

#define NIBBLE_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define NIBBLE_D8(i)                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define NIBBLE_D12(i) NIBBLE_D8(i), NIBBLE_D4(i + 8)
#define NIBBLE_D16(i) NIBBLE_D8(i), NIBBLE_D8(i + 8)
#define NIBBLE_D20(i) NIBBLE_D16(i), NIBBLE_D4(i + 16)
#define NIBBLE_D24(i) NIBBLE_D16(i), NIBBLE_D8(i + 16)
#define NIBBLE_D28(i) NIBBLE_D24(i), NIBBLE_D4(i + 24)
#define NIBBLE_D32(i) NIBBLE_D16(i), NIBBLE_D16(i + 16)
#define NIBBLE_D36(i) NIBBLE_D32(i), NIBBLE_D4(i + 32)
#define NIBBLE_D40(i) NIBBLE_D32(i), NIBBLE_D8(i + 32)
#define NIBBLE_D44(i) NIBBLE_D40(i), NIBBLE_D4(i + 40)
#define NIBBLE_D48(i) NIBBLE_D32(i), NIBBLE_D16(i + 32)
#define NIBBLE_D52(i) NIBBLE_D48(i), NIBBLE_D4(i + 48)
#define NIBBLE_D56(i) NIBBLE_D48(i), NIBBLE_D8(i + 48)
#define NIBBLE_D60(i) NIBBLE_D56(i), NIBBLE_D4(i + 56)
#define NIBBLE_D64(i) NIBBLE_D32(i), NIBBLE_D32(i + 32)
#define NIBBLE_D68(i) NIBBLE_D64(i), NIBBLE_D4(i + 64)
#define NIBBLE_D72(i) NIBBLE_D64(i), NIBBLE_D8(i + 64)
#define NIBBLE_D76(i) NIBBLE_D72(i), NIBBLE_D4(i + 72)
#define NIBBLE_D80(i) NIBBLE_D72(i), NIBBLE_D8(i + 72)
#define NIBBLE_D84(i) NIBBLE_D80(i), NIBBLE_D4(i + 80)
#define NIBBLE_D88(i) NIBBLE_D80(i), NIBBLE_D8(i + 80)
#define NIBBLE_D92(i) NIBBLE_D88(i), NIBBLE_D4(i + 88)
#define NIBBLE_D96(i) NIBBLE_D64(i), NIBBLE_D32(i + 64)
#define NIBBLE_D128(i) NIBBLE_D64(i), NIBBLE_D64(i + 64)
// `floats` of a lane are columns / 2.
#define NIBBLE_WGMMA(f16, type, columns, floats, a_names, b_names)                               \
  template <>                                                                                    \
  __device__ __forceinline__ void wgmma<f16, columns>(float* d, const uint32_t* a,               \
                                                      uint32_t operand, uint32_t operand_high) { \
    asm volatile(                                                                                \
        "{\n .reg .pred add;\n .reg .b64 b;\n setp.eq.b32 add, 0, 0;\n mov.b64 b, {" b_names     \
        "};\n"                                                                                   \
        " wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type                   \
        " {" NIBBLE_NAMES##floats "}, {" a_names "}, b, add, 1, 1, 0;\n}"                        \
        : NIBBLE_D##floats(0)                                                                    \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(operand), "r"(operand_high));          \
  }
#define NIBBLE_NAMES8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define NIBBLE_NAMES12 NIBBLE_NAMES8 ", %8, %9, %10, %11"
#define NIBBLE_NAMES16 NIBBLE_NAMES8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define NIBBLE_NAMES20 NIBBLE_NAMES16 ", %16, %17, %18, %19"
#define NIBBLE_NAMES24 NIBBLE_NAMES16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define NIBBLE_NAMES28 NIBBLE_NAMES24 ", %24, %25, %26, %27"
#define NIBBLE_NAMES32 NIBBLE_NAMES24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define NIBBLE_NAMES36 NIBBLE_NAMES32 ", %32, %33, %34, %35"
#define NIBBLE_NAMES40 NIBBLE_NAMES32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define NIBBLE_NAMES44 NIBBLE_NAMES40 ", %40, %41, %42, %43"
#define NIBBLE_NAMES48 NIBBLE_NAMES40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define NIBBLE_NAMES52 NIBBLE_NAMES48 ", %48, %49, %50, %51"
#define NIBBLE_NAMES56 NIBBLE_NAMES52 ", %52, %53, %54, %55"
#define NIBBLE_NAMES60 NIBBLE_NAMES56 ", %56, %57, %58, %59"
#define NIBBLE_NAMES64 NIBBLE_NAMES60 ", %60, %61, %62, %63"
#define NIBBLE_NAMES68 NIBBLE_NAMES64 ", %64, %65, %66, %67"
#define NIBBLE_NAMES72 NIBBLE_NAMES68 ", %68, %69, %70, %71"
#define NIBBLE_NAMES76 NIBBLE_NAMES72 ", %72, %73, %74, %75"
#define NIBBLE_NAMES80 NIBBLE_NAMES76 ", %76, %77, %78, %79"
#define NIBBLE_NAMES84 NIBBLE_NAMES80 ", %80, %81, %82, %83"
#define NIBBLE_NAMES88 NIBBLE_NAMES84 ", %84, %85, %86, %87"
#define NIBBLE_NAMES92 NIBBLE_NAMES88 ", %88, %89, %90, %91"
#define NIBBLE_NAMES96 NIBBLE_NAMES92 ", %92, %93, %94, %95"
#define NIBBLE_NAMES128                                                                        \
  NIBBLE_NAMES96                                                                               \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "   \
  "%111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, " \
  "%126, %127"
#define NIBBLE_WGMMAS(f16, type)                                       \
  NIBBLE_WGMMA(f16, type, 16, 8, "%8, %9, %10, %11", "%12, %13")       \
  NIBBLE_WGMMA(f16, type, 24, 12, "%12, %13, %14, %15", "%16, %17")    \
  NIBBLE_WGMMA(f16, type, 32, 16, "%16, %17, %18, %19", "%20, %21")    \
  NIBBLE_WGMMA(f16, type, 40, 20, "%20, %21, %22, %23", "%24, %25")    \
  NIBBLE_WGMMA(f16, type, 48, 24, "%24, %25, %26, %27", "%28, %29")    \
  NIBBLE_WGMMA(f16, type, 56, 28, "%28, %29, %30, %31", "%32, %33")    \
  NIBBLE_WGMMA(f16, type, 64, 32, "%32, %33, %34, %35", "%36, %37")    \
  NIBBLE_WGMMA(f16, type, 72, 36, "%36, %37, %38, %39", "%40, %41")    \
  NIBBLE_WGMMA(f16, type, 80, 40, "%40, %41, %42, %43", "%44, %45")    \
  NIBBLE_WGMMA(f16, type, 88, 44, "%44, %45, %46, %47", "%48, %49")    \
  NIBBLE_WGMMA(f16, type, 96, 48, "%48, %49, %50, %51", "%52, %53")    \
  NIBBLE_WGMMA(f16, type, 104, 52, "%52, %53, %54, %55", "%56, %57")   \
  NIBBLE_WGMMA(f16, type, 112, 56, "%56, %57, %58, %59", "%60, %61")   \
  NIBBLE_WGMMA(f16, type, 120, 60, "%60, %61, %62, %63", "%64, %65")   \
  NIBBLE_WGMMA(f16, type, 128, 64, "%64, %65, %66, %67", "%68, %69")   \
  NIBBLE_WGMMA(f16, type, 136, 68, "%68, %69, %70, %71", "%72, %73")   \
  NIBBLE_WGMMA(f16, type, 144, 72, "%72, %73, %74, %75", "%76, %77")   \
  NIBBLE_WGMMA(f16, type, 152, 76, "%76, %77, %78, %79", "%80, %81")   \
  NIBBLE_WGMMA(f16, type, 160, 80, "%80, %81, %82, %83", "%84, %85")   \
  NIBBLE_WGMMA(f16, type, 168, 84, "%84, %85, %86, %87", "%88, %89")   \
  NIBBLE_WGMMA(f16, type, 176, 88, "%88, %89, %90, %91", "%92, %93")   \
  NIBBLE_WGMMA(f16, type, 184, 92, "%92, %93, %94, %95", "%96, %97")   \
  NIBBLE_WGMMA(f16, type, 192, 96, "%96, %97, %98, %99", "%100, %101") \
  NIBBLE_WGMMA(f16, type, 256, 128, "%128, %129, %130, %131", "%132, %133")
NIBBLE_WGMMAS(false, "bf16")
NIBBLE_WGMMAS(true, "f16")
#undef NIBBLE_WGMMAS
#undef NIBBLE_WGMMA
#undef NIBBLE_D4
#undef NIBBLE_D8
#undef NIBBLE_D12
#undef NIBBLE_D16
#undef NIBBLE_D20
#undef NIBBLE_D24
#undef NIBBLE_D28
#undef NIBBLE_D32
#undef NIBBLE_D36
#undef NIBBLE_D40
#undef NIBBLE_D44
#undef NIBBLE_D48
#undef NIBBLE_D52
#undef NIBBLE_D56
#undef NIBBLE_D60
#undef NIBBLE_D64
#undef NIBBLE_D68
#undef NIBBLE_D72
#undef NIBBLE_D76
#undef NIBBLE_D80
#undef NIBBLE_D84
#undef NIBBLE_D88
#undef NIBBLE_D92
#undef NIBBLE_D96
#undef NIBBLE_D128
#undef NIBBLE_NAMES8
#undef NIBBLE_NAMES12
#undef NIBBLE_NAMES16
#undef NIBBLE_NAMES20
#undef NIBBLE_NAMES24
#undef NIBBLE_NAMES28
#undef NIBBLE_NAMES32
#undef NIBBLE_NAMES36
#undef NIBBLE_NAMES40
#undef NIBBLE_NAMES44
#undef NIBBLE_NAMES48
#undef NIBBLE_NAMES52
#undef NIBBLE_NAMES56
#undef NIBBLE_NAMES60
#undef NIBBLE_NAMES64
#undef NIBBLE_NAMES68
#undef NIBBLE_NAMES72
#undef NIBBLE_NAMES76
#undef NIBBLE_NAMES80
#undef NIBBLE_NAMES84
#undef NIBBLE_NAMES88
#undef NIBBLE_NAMES92
#undef NIBBLE_NAMES96
#undef NIBBLE_NAMES128

}  // namespace nibble::cuda
