# CUDA where it is there and wanted. NIBBLE_HAVE_CUDA tells the CMakeLists which list.cc to build;
# no C++ source outside of src/base and src/kernels asks.
set(NIBBLE_CUDA AUTO CACHE STRING "Build the CUDA backends: AUTO (where nvcc is found), ON or OFF")
set_property(CACHE NIBBLE_CUDA PROPERTY STRINGS AUTO ON OFF)

set(NIBBLE_HAVE_CUDA OFF)
if(NIBBLE_CUDA STREQUAL AUTO)
  find_package(CUDAToolkit 12.8 QUIET)
  set(NIBBLE_HAVE_CUDA ${CUDAToolkit_FOUND})
elseif(NIBBLE_CUDA)
  find_package(CUDAToolkit 12.8 REQUIRED)
  set(NIBBLE_HAVE_CUDA ON)
endif()

if(NIBBLE_HAVE_CUDA)
  if(CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
  endif()
  if(NOT CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
  endif()
  set(CMAKE_CUDA_ARCHITECTURES OFF)  # every source names its own
  enable_language(CUDA)
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 knows none for this nvcc
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
endif()

# Kernels for every chip that Nibble takes: machine code of an architecture runs on all of its
# generation (8.0 on 8.6 and 8.9, 12.0 on 12.1), so four cover them and nothing is compiled at start.
set(NIBBLE_CUDA_PORTABLE 80 90 100 120 CACHE STRING "Architectures of the portable CUDA kernels")

option(NIBBLE_EMULATOR "Test CUDA kernels without a GPU, too: those of sm_80, sm_90 and sm_120 carry \
their PTX along, which tests/emulator runs on the CPU" OFF)

add_custom_target(cuda_objects)  # everything that nvcc compiles

# nibble_cuda_sources(kernels/sm90 ARCHITECTURES 90a SOURCES gemm.cu [FLAGS --fmad=false]) adds CUDA
# sources to a library, or to a program named by its target. Spills and warnings of every stage are
# errors. Sources include headers without fmt only: nvcc does not compile fmt 9 as C++20, and it is
# slow to read.
function(nibble_cuda_sources name)
  cmake_parse_arguments(ARG "" "" "SOURCES;ARCHITECTURES;FLAGS" ${ARGN})
  string(REPLACE "/" "_" target "nibble_${name}")
  if(NOT TARGET ${target})
    set(target ${name})
  endif()
  set(flags -Werror=all-warnings -Xptxas=-warn-spills,--warning-as-error -Xcompiler=-Wall,-Wextra
            ${ARG_FLAGS})
  set(compress -Xfatbin=-compress-all)
  foreach(arch ${ARG_ARCHITECTURES})
    list(APPEND flags -gencode=arch=compute_${arch},code=sm_${arch})
    if(NIBBLE_EMULATOR AND arch MATCHES "^(80|90a?|120f?)$")
      list(APPEND flags -gencode=arch=compute_${arch},code=compute_${arch})
      set(compress --no-compress)
    endif()
  endforeach()
  list(APPEND flags ${compress})
  target_sources(${target} PRIVATE ${ARG_SOURCES})
  target_include_directories(${target} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  add_dependencies(cuda_objects ${target})
  set_source_files_properties(${ARG_SOURCES} PROPERTIES COMPILE_OPTIONS "${flags}")
endfunction()
