# One static library per folder of src/. Usage, in src/<folder>/CMakeLists.txt:
#   nibble_library(text SOURCES tokenizer.cc DEPS base PRIVATE PkgConfig::PCRE2)
# makes target nibble_text (alias nibble::text), linked to nibble_base.
function(nibble_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;PRIVATE" ${ARGN})
  string(REPLACE "/" "_" target "nibble_${name}")
  add_library(${target} STATIC ${ARG_SOURCES})
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${NIBBLE_WARNINGS}>")
  foreach(dep ${ARG_DEPS})
    string(REPLACE "/" "_" dep_target "nibble_${dep}")
    target_link_libraries(${target} PUBLIC ${dep_target})
  endforeach()
  target_link_libraries(${target} PUBLIC fmt::fmt PRIVATE ${ARG_PRIVATE})
endfunction()

# Tests and programs compile longer than they run; under sanitizers in half of -O1's time without.
set(NIBBLE_QUICK_COMPILE -O1)
if(NIBBLE_SANITIZE)
  set(NIBBLE_QUICK_COMPILE -O0)
endif()

# Tests choose kernels as on a machine that nobody tuned.
set(NIBBLE_TEST_ENVIRONMENT "NIBBLE_CACHE_DIR=${PROJECT_BINARY_DIR}/empty-cache")

# A GoogleTest program: in tests/text/, nibble_test(tokenizer_test DEPS text) builds tokenizer_test.cc.
# Every test program is one CTest entry with the label `cpu` (or LABEL gpu). LONG_LOOPS: its own code
# takes half a minute at -O0.
function(nibble_test path)
  cmake_parse_arguments(ARG "LONG_LOOPS" "LABEL;TIMEOUT" "DEPS;SOURCES;PRIVATE" ${ARGN})
  string(REPLACE "/" "_" target "${path}")
  add_executable(${target} ${path}.cc ${ARG_SOURCES})
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
  set(level ${NIBBLE_QUICK_COMPILE})
  if(ARG_LONG_LOOPS)
    set(level -O1)
  endif()
  target_compile_options(${target} PRIVATE ${NIBBLE_WARNINGS} ${level})
  foreach(dep ${ARG_DEPS})
    string(REPLACE "/" "_" dep_target "nibble_${dep}")
    target_link_libraries(${target} PRIVATE ${dep_target})
  endforeach()
  target_link_libraries(${target} PRIVATE ${ARG_PRIVATE} GTest::gmock GTest::gtest_main)
  add_test(NAME ${target} COMMAND ${target})
  if(NOT ARG_LABEL)
    set(ARG_LABEL cpu)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  set_tests_properties(${target} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT}
    ENVIRONMENT "${NIBBLE_TEST_ENVIRONMENT}")
endfunction()

# A Python program that checks ours against an independent implementation:
# nibble_python_test(forward_test ARGS $<TARGET_FILE:forward_driver>) runs forward_test.py with NIBBLE_PYTHON.
function(nibble_python_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "ARGS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_test(NAME ${name} COMMAND ${NIBBLE_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/${name}.py ${ARG_ARGS})
  set_tests_properties(${name} PROPERTIES LABELS cpu TIMEOUT ${ARG_TIMEOUT}
    ENVIRONMENT "${NIBBLE_TEST_ENVIRONMENT};PYTHONPATH=${PROJECT_SOURCE_DIR}/tests:${PROJECT_SOURCE_DIR}/tools;PYTHONDONTWRITEBYTECODE=1")
endfunction()

# A libFuzzer target (clang only, NIBBLE_FUZZ=ON): nibble_fuzzer(tokenizer_fuzz DEPS text) builds
# tests/fuzz/tokenizer_fuzz.cc; its seed corpus is tests/fuzz/corpus/<name>/.
function(nibble_fuzzer name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  add_executable(${name} ${name}.cc)
  target_compile_options(${name} PRIVATE ${NIBBLE_WARNINGS})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  foreach(dep ${ARG_DEPS})
    string(REPLACE "/" "_" dep_target "nibble_${dep}")
    target_link_libraries(${name} PRIVATE ${dep_target})
  endforeach()
  set(corpus ${CMAKE_CURRENT_SOURCE_DIR}/corpus/${name})
  set(scratch ${CMAKE_CURRENT_BINARY_DIR}/corpus/${name})
  file(MAKE_DIRECTORY ${scratch})
  add_test(NAME ${name} COMMAND ${name} -max_total_time=${NIBBLE_FUZZ_SECONDS} -timeout=10
    -rss_limit_mb=2048 -max_len=16384 -print_final_stats=0 ${scratch} ${corpus})
  set_tests_properties(${name} PROPERTIES LABELS fuzz TIMEOUT 120)
endfunction()
