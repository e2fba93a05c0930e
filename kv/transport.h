// The network as the store sees it: packets that may be lost, repeated or reordered, and streams that are reliable
// until they break. Sockets are one implementation, the simulator another.
#pragma once

#include "kv/types.h"

namespace weft::kv {

using StreamId = uint64_t;  // chosen by the transport, never reused

// Calls come from the node's thread, never block and never call back into the node before they return. What happens
// later is reported through Node::onPacket, onStreamAccepted, onStreamData and onStreamClosed.
class Transport {
public:
    virtual ~Transport() = default;

    // Best effort; the bytes are copied.
    virtual void sendPacket(const Address& to, BytesView bytes) = 0;

    // Starts to connect. Bytes written before the connection stands are kept. Failure is reported as
    // Node::onStreamClosed.
    virtual StreamId connect(const Address& to) = 0;
    // In order and whole, or onStreamClosed. Unknown ids are ignored.
    virtual void sendStream(StreamId stream, BytesView bytes) = 0;
    // Sends what is queued, then closes. No more events come for this stream.
    virtual void closeStream(StreamId stream) = 0;
};

}  // namespace weft::kv
