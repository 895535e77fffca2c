# The CUDA kernels as fat binaries, which become bytes of the extension: nothing of CUDA is linked. Machine code for each
# generation, and PTX, which the driver compiles for later ones.
set(CUDA_IMAGES "")
if(NOT PYENGINE_CUDA STREQUAL "OFF")
  find_program(NVCC nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin PATHS /usr/local/cuda/bin)
  set(WHY_NOT "no nvcc was found")
  if(NVCC)
    execute_process(COMMAND ${NVCC} --version OUTPUT_VARIABLE NVCC_SAYS ERROR_VARIABLE NVCC_SAYS)
    string(REGEX MATCH "release ([0-9.]+)" NVCC_RELEASE "${NVCC_SAYS}")
    set(NVCC_VERSION "${CMAKE_MATCH_1}")
    set(WHY_NOT "${NVCC} is of CUDA ${NVCC_VERSION}, and 13.0 is needed")
    if(NVCC_VERSION VERSION_GREATER_EQUAL 13.0)
      set(CUDA_IMAGES
        select filtering refine code
        dense_topk dense_topk_sm90 dense_between dense_rank dense_both dense_float32 dense_bits
        maxsim maxsim_sm90 maxsim_steps maxsim_refine maxsim_packed maxsim_packed_steps
        sparse_topk sparse_refine)
    endif()
  endif()
  if(PYENGINE_CUDA STREQUAL "ON" AND NOT CUDA_IMAGES)
    message(FATAL_ERROR "PYENGINE_CUDA=ON: ${WHY_NOT}")
  endif()
else()
  set(WHY_NOT "PYENGINE_CUDA=OFF")
endif()
if(CUDA_IMAGES)
  message(STATUS "CUDA kernels: built by ${NVCC}, of CUDA ${NVCC_VERSION}")
else()
  message(STATUS "CUDA kernels: not built (${WHY_NOT})")
endif()

# -fmad=false: the specification rounds every product and every sum on its own. What ends in _sm90 is for this chip alone.
set(NVCC_OPTIONS -std=c++17 -O3 -fmad=false -fatbin)
set(NVCC_CHIPS -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90a,code=sm_90a
  -gencode=arch=compute_100,code=[sm_100,compute_100])
set(EMBEDDED ${CMAKE_BINARY_DIR}/cuda/images.cpp)
file(GLOB CUDA_HEADERS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/csrc/cuda/*.cuh)
set(SECTION "")
set(SYMBOLS "")
set(LISTED "")
set(BINARIES "")
foreach(image ${CUDA_IMAGES})
  set(source ${CMAKE_SOURCE_DIR}/csrc/cuda/${image}.cu)
  set(binary ${CMAKE_BINARY_DIR}/cuda/${image}.fatbin)
  set(chips ${NVCC_CHIPS})
  set(capability 0)
  if(image MATCHES "_sm90$")
    list(FILTER chips INCLUDE REGEX sm_90a)
    set(capability 90)
  endif()
  add_custom_command(OUTPUT ${binary} COMMAND ${NVCC} ${NVCC_OPTIONS} ${chips} -o ${binary} ${source}
    DEPENDS ${source} ${CUDA_HEADERS} COMMENT "CUDA kernels: ${image}" VERBATIM)
  list(APPEND BINARIES ${binary})
  string(APPEND SECTION "asm(\".pushsection .rodata\\n.balign 64\\npyengine_cuda_${image}:\\n\"\n"
    "    \".incbin \\\"${binary}\\\"\\n.popsection\\n\");\n")
  string(APPEND SYMBOLS "extern \"C\" const char pyengine_cuda_${image}[] __attribute__((visibility(\"hidden\")));\n")
  string(APPEND LISTED "{\"${image}\", pyengine_cuda_${image}, ${capability}}, ")
endforeach()
file(CONFIGURE OUTPUT ${EMBEDDED} CONTENT "// Made by csrc/cuda/build.cmake.
#include \"cuda/driver.h\"
${SECTION}${SYMBOLS}
const std::vector<pyengine::cuda::Image>& pyengine::cuda::images() {
  static const std::vector<Image> all{${LISTED}};
  return all;
}
" @ONLY)
# Symbols of assembly do not outlive link-time optimisation.
set_source_files_properties(${EMBEDDED} PROPERTIES OBJECT_DEPENDS "${BINARIES}" COMPILE_OPTIONS -fno-lto)
target_sources(_native PRIVATE ${EMBEDDED})
