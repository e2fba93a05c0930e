# Compile settings and helpers shared by every folder.

add_library(weft_settings INTERFACE)
target_include_directories(weft_settings INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(weft_settings INTERFACE -Wall -Wextra -Wshadow -Wconversion -Wnon-virtual-dtor -Wno-psabi)
if(WEFT_WERROR)
  target_compile_options(weft_settings INTERFACE -Werror)
endif()
if(WEFT_SANITIZE)
  target_compile_options(weft_settings INTERFACE -fsanitize=${WEFT_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(weft_settings INTERFACE -fsanitize=${WEFT_SANITIZE})
endif()
if(WEFT_FUZZ)
  target_compile_options(weft_settings INTERFACE -fsanitize=fuzzer-no-link)
endif()

# weft_library(NAME [LIBRARY ...]): a static library from the *.cpp of the current folder, but for main.cpp: that is the
# executable's, and tests link the library.
function(weft_library name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/main\\.cpp$")
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC weft_settings ${ARGN})
endfunction()
