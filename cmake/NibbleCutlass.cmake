# CUTLASS's headers, where CUDA is built: from NIBBLE_CUTLASS_DIR (a CMake or an environment
# variable), else where tools/setup.sh unpacks them. NIBBLE_CUTLASS_INCLUDE is empty without them.
set(NIBBLE_CUTLASS_DIR "$ENV{NIBBLE_CUTLASS_DIR}" CACHE PATH
  "CUTLASS 4.5 or newer (the folder of its include/); empty: what tools/setup.sh unpacked")

set(NIBBLE_CUTLASS_INCLUDE "")
if(NIBBLE_HAVE_CUDA)
  set(cutlass ${NIBBLE_CUTLASS_DIR})
  if(NOT cutlass)
    set(cutlass ${PROJECT_SOURCE_DIR}/build/third_party/cutlass)
  endif()
  set(version "")
  if(EXISTS ${cutlass}/include/cutlass/version.h)
    file(STRINGS ${cutlass}/include/cutlass/version.h lines REGEX "define CUTLASS_M(AJOR|INOR) ")
    string(REGEX REPLACE "[^0-9;]" "" version "${lines}")
    string(REPLACE ";" "." version "${version}")
  endif()
  if(version VERSION_GREATER_EQUAL 4.5)
    set(NIBBLE_CUTLASS_INCLUDE ${cutlass}/include)
  else()
    message(WARNING "cutlass_fp4_gemm is not built: it needs the headers of CUTLASS 4.5 or newer in "
      "${cutlass}/include, found version '${version}'. tools/setup.sh test fetches them; "
      "NIBBLE_CUTLASS_DIR names another folder.")
  endif()
endif()
