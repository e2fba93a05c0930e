# cmake -DINPUT=FILE -DOUTPUT=HEADER -DNAME=CONSTANT -P embed.cmake: the file's bytes as a constant in namespace weft::net.
file(READ ${INPUT} bytes HEX)
string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
file(WRITE ${OUTPUT} "#pragma once
namespace weft::net {
alignas(8) inline constexpr unsigned char ${NAME}[] = {${bytes}};
}  // namespace weft::net
")
