/* The C ABI: quantize, prepare, GEMM. What each does is said in full beside its C++ twin, in
 * nibble/gemm.h and nibble/weight.h.
 *
 * Every function that can fail returns a nibble_status; nibble_last_error() then has the message.
 * Nothing is printed, nothing aborts, no exception crosses this boundary. Handles are made by
 * nibble_*_create and given back by nibble_*_free, which takes null. A handle keeps what it was
 * made from alive, so handles may be freed in any order. One thread at a time may use a device and
 * what was made from it. Structs are zeroed before they are filled: zero is every member's default.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum nibble_status {
  NIBBLE_OK = 0,
  NIBBLE_INVALID_ARGUMENT, /* a pointer, shape or option is wrong; the message names it */
  NIBBLE_UNSUPPORTED,      /* no implementation takes it; the message lists every refusal */
  NIBBLE_DEVICE,           /* the accelerator failed or is missing */
  NIBBLE_OUT_OF_MEMORY,
  NIBBLE_INTERNAL /* a bug in Nibble */
} nibble_status;

/* Of this thread's last call that failed; "" before one did. Valid until the thread's next call. */
const char* nibble_last_error(void);

/* The *_MAX_ENUM fix the enums' size, and that a wrong value can be looked at and refused. */
typedef enum nibble_dtype {
  NIBBLE_F32 = 0,
  NIBBLE_F16 = 1,
  NIBBLE_BF16 = 2,
  NIBBLE_F8_E4M3 = 3, /* nibble_quantize's src only */
  NIBBLE_FP4 = 5,     /* nibble_gemm's A and D only: codes with block scales */
  NIBBLE_DTYPE_MAX_ENUM = 0x7fffffff
} nibble_dtype;
typedef enum nibble_format {
  NIBBLE_NVFP4 = 3,
  NIBBLE_MXFP4 = 4,
  NIBBLE_FORMAT_MAX_ENUM = 0x7fffffff
} nibble_format;
typedef enum nibble_scale_layout {
  NIBBLE_LINEAR = 0,
  NIBBLE_SWIZZLED_128X4 = 1,
  NIBBLE_SWIZZLED_8X4 = 2,
  NIBBLE_SCALE_LAYOUT_MAX_ENUM = 0x7fffffff
} nibble_scale_layout;
typedef enum nibble_activation {
  NIBBLE_ACTIVATION_DEFAULT =
      0, /* the device's: int8 on a CPU; fp4 on GPUs that multiply it, else 16bit */
  NIBBLE_ACTIVATION_16BIT, /* as given: products of the given values, fp32 sums */
  NIBBLE_ACTIVATION_FP4,   /* quantized to the weight's format first */
  NIBBLE_ACTIVATION_INT8,  /* to 8 bits per block of 16, exact integer dot products */
  NIBBLE_ACTIVATION_BF16,  /* rounded to bf16, fp32 sums */
  NIBBLE_ACTIVATION_MAX_ENUM = 0x7fffffff
} nibble_activation;

typedef struct nibble_device nibble_device;

/* threads = 0: every core that the process may use. */
nibble_status nibble_device_create_cpu(int threads, nibble_device** device);
/* NIBBLE_DEVICE where this machine, or this build of Nibble, has no such device. */
nibble_status nibble_device_create_cuda(int index, nibble_device** device);
/* The stream that the device's ops are put in order on, a cudaStream_t; null for a CPU. */
void* nibble_device_stream(const nibble_device* device);
/* Puts the ops of this device and of all that was made from it on a cudaStream_t of the caller's
 * from now on; null: on the device's own again (cudaStreamLegacy names the default stream). What
 * was put on the other stream before is not waited for. */
nibble_status nibble_device_use_stream(const nibble_device* device, void* stream);
/* Programmatic dependent launch, off at first: kernels of this device and of all that was made from
 * it may start while what stands in front of them on the stream ends. It must not write what they
 * were made with (weights, bias). NIBBLE_INVALID_ARGUMENT for a CPU, NIBBLE_UNSUPPORTED before
 * sm_90. */
nibble_status nibble_device_use_pdl(const nibble_device* device, int on);
/* Waits for what was put on the stream. A CPU's calls are done when they return. */
nibble_status nibble_device_synchronize(const nibble_device* device);
void nibble_device_free(nibble_device* device);

/* Bytes of the block scales of m rows of k elements, padding included; 0 for arguments that
 * nibble_quantize would refuse. Codes take m * k / 2. */
size_t nibble_scale_bytes(nibble_format format, nibble_scale_layout layout, int64_t m, int64_t k);
/* Rewrites the scales of m rows of k elements from one layout to another, in host memory: src and
 * dst have nibble_scale_bytes() of theirs and do not overlap. Padding in dst is zeroed. */
nibble_status nibble_convert_scales(nibble_format format, nibble_scale_layout from,
                                    nibble_scale_layout to, int64_t m, int64_t k,
                                    const uint8_t* src, uint8_t* dst);

/* What is quantized. The fused ones are rounded to src_type first, as the op by itself would be. */
typedef enum nibble_quantize_input {
  NIBBLE_INPUT_PLAIN = 0,    /* src */
  NIBBLE_INPUT_SILU_MUL = 1, /* silu(gate) * up; src is [m, 2 k], gate first */
  NIBBLE_INPUT_RMS_NORM = 2, /* src / sqrt(mean(src^2) + norm_eps) * norm_weight */
  NIBBLE_INPUT_MAX_ENUM = 0x7fffffff
} nibble_quantize_input;

/* All pointers are to the device's memory (a CPU's: host memory). */
typedef struct nibble_quantize_args {
  nibble_format format;
  nibble_scale_layout layout;
  nibble_dtype src_type;
  const void* src;    /* [m, k], src_stride elements from row to row */
  int64_t src_stride; /* 0: packed */
  int64_t m;
  int64_t k; /* a multiple of 16 (NVFP4) or 32 (MXFP4) */
  /* NVFP4: the global scale that multiplies on decoding, one float or one for each expert. Read,
   * or, with compute_decode_scale, made from the largest magnitude of src and written. */
  float* decode_scale;
  int compute_decode_scale;
  uint8_t* codes;  /* [m, k / 2], even k in the low nibble */
  uint8_t* scales; /* nibble_scale_bytes(): e4m3 (NVFP4) or ue8m0 (MXFP4), padding zeroed */
  float src_scale; /* NIBBLE_F8_E4M3: multiplies every element; 0: 1 */
  nibble_quantize_input input;
  const float* norm_weight; /* RMS_NORM: [k] */
  float norm_eps;
  void* residual;          /* RMS_NORM: null, or [m, k] of src_type, which src is added to first */
  int64_t residual_stride; /* 0: k */
  /* Matrices stacked along m: m / experts rows each, or those from expert_offsets[e] up to
   * expert_offsets[e + 1]. Each one's scales are padded by themselves and follow the last one's. */
  int64_t experts;               /* 0: one matrix */
  const int32_t* expert_offsets; /* [experts + 1], or null */
} nibble_quantize_args;

/* Round to nearest. Bit for bit the same on every device. Source of the arithmetic: NVIDIA
 * ModelOpt's NVFP4 recipe; OCP MX 1.0 with the scale rounded up for MXFP4. */
nibble_status nibble_quantize(const nibble_quantize_args* args, const nibble_device* device);

/* A weight matrix [n, k] in host memory, scales linear: [n, k / block]. */
typedef struct nibble_weight_desc {
  nibble_format format;
  int64_t n;
  int64_t k;
  const uint8_t* codes;
  const uint8_t* scales;
  /* NVFP4: segment i is the rows from segment_begin[i] on and is multiplied by decode_scales[i].
   * A null segment_begin is one segment from row 0. */
  int64_t num_segments; /* 0: 1 */
  const int64_t* segment_begin;
  const float* decode_scales;
  /* Not 0: rows 0 .. n / 2 - 1 are an MLP's gate and the others its up projection. Its GEMMs write
   * D[m, n / 2] = silu(gate) * up. */
  int gate_up;
} nibble_weight_desc;

typedef struct nibble_weight nibble_weight;

/* Puts the weights in the device's one layout, which its kernels for every m read. The arrays of
 * desc are copied: they may go once the call returns. */
nibble_status nibble_weight_create(const nibble_weight_desc* desc, const nibble_device* device,
                                   nibble_activation activation, nibble_weight** weight);
size_t nibble_weight_bytes(const nibble_weight* weight); /* that one pass over them reads */
void nibble_weight_free(nibble_weight* weight);

typedef struct nibble_gemm nibble_gemm;

typedef struct nibble_gemm_options {
  int64_t max_m; /* 0: 1 */
  nibble_dtype a_type;
  nibble_dtype d_type;
  nibble_activation activation; /* as the weight was prepared for */
  int add;                      /* D += instead of D = */
  const float* bias;            /* [n] in the device's memory, added to A * W^T; null: none */
  /* With NIBBLE_FP4: how block scales lie. Null: as nibble_gemm_layouts() tells for each m. D's are
   * those that d_reader, the GEMM that D is the activations of, wants, where there is one. */
  const nibble_scale_layout* a_layout;
  const nibble_scale_layout* d_layout;
  const nibble_gemm* d_reader;
} nibble_gemm_options;

/* Chooses the kernel of every m up to max_m. Nothing is compiled, launched or timed for it. */
nibble_status nibble_gemm_create(const nibble_weight* weight, const nibble_device* device,
                                 const nibble_gemm_options* options, nibble_gemm** gemm);

/* D[m, n] = A[m, k] * W^T + bias (see gate_up), put in order on the device's stream. Strides in
 * elements, 0: packed.
 * Allocates nothing and can be captured in a CUDA graph. */
nibble_status nibble_gemm_run(const nibble_gemm* gemm, const void* a, int64_t a_stride, void* d,
                              int64_t d_stride, int64_t m);

/* A and D with their block scales: nibble_scale_bytes() in the layouts of nibble_gemm_layouts().
 * Codes are two a byte, even k in the low nibble; their strides are in bytes. A decode scale is one
 * float, which multiplies; MXFP4 has none. All in the device's memory. */
typedef struct nibble_gemm_operands {
  const void* a;
  int64_t a_stride; /* 0: packed */
  const uint8_t* a_scales;
  const float* a_decode_scale;
  void* d;
  int64_t d_stride; /* 0: packed */
  uint8_t* d_scales;
  const float* d_decode_scale; /* read: D is quantized as it is written */
} nibble_gemm_operands;

/* nibble_gemm_run for a_type or d_type NIBBLE_FP4; of a side that is not, scales are ignored. */
nibble_status nibble_gemm_run_fp4(const nibble_gemm* gemm, const nibble_gemm_operands* operands,
                                  int64_t m);

/* How the scales of m rows of A must lie, and how D's will: 8x4 up to 32 rows and 128x4 above,
 * unless the options say otherwise or another layout is faster. Either pointer may be null. */
nibble_status nibble_gemm_layouts(const nibble_gemm* gemm, int64_t m, nibble_scale_layout* a_layout,
                                  nibble_scale_layout* d_layout);

/* The name of the kernel that m rows go to, valid as long as gemm; null where m is not in 1 ..
 * max_m. */
const char* nibble_gemm_kernel(const nibble_gemm* gemm, int64_t m);
void nibble_gemm_free(nibble_gemm* gemm);

#ifdef __cplusplus
}
#endif
