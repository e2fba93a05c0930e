// Packets: as a stranger sends them, and, opened, as a broken member would.
#include <cstdlib>

#include "kv/keyring.h"
#include "kv/message.h"

using namespace weft::kv;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const Keyring ring = [] {
        Keyring made;
        static_cast<void>(made.add(Key{{1}}));
        return made;
    }();
    Bytes plain;
    if (ring.open({data, size}, {}, plain) == Keyring::Opened::Ok) std::abort();

    Reader in({data, size});
    Message message;
    for (;;) {
        const Decoded decoded = decodeNext(in, message);
        if (decoded == Decoded::End || decoded == Decoded::Malformed) return 0;
        if (decoded == Decoded::Unknown) continue;
        // What was accepted has one encoding only.
        const Bytes encoded = encode(message);
        Reader again(encoded);
        Message copy;
        if (decodeNext(again, copy) != Decoded::Ok || !(copy == message)) std::abort();
    }
}
