#include "driver/http_server.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <httplib.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <list>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>

#include "base/deadline.h"
#include "base/log.h"
#include "base/spare_descriptor.h"
#include "driver/http_frame.h"

namespace weft::driver {
namespace {

using Time = std::chrono::steady_clock::time_point;

constexpr std::chrono::seconds kIdleWorkerLife{5};
constexpr size_t kWorkerStack = 512UL << 10;  // libnftables keeps 70 KiB buffers on it
constexpr size_t kMaxDrain = 16UL << 20;      // bytes read and dropped after an early answer
constexpr auto kDrainTime = std::chrono::seconds(2);
constexpr std::chrono::milliseconds kUndoTime{1500};  // of a handler whose waits took too long

// httplib reads from and writes to memory; sockets are the server's.
class MemoryStream final : public httplib::Stream {
public:
    explicit MemoryStream(std::string_view input) : input_(input) {}

    [[nodiscard]] bool is_readable() const override { return true; }
    [[nodiscard]] bool is_writable() const override { return true; }
    ssize_t read(char* data, size_t size) override {
        const size_t count = std::min(size, input_.size());
        std::memcpy(data, input_.data(), count);
        input_.remove_prefix(count);
        return static_cast<ssize_t>(count);
    }
    ssize_t write(const char* data, size_t size) override {
        output_.append(data, size);
        return static_cast<ssize_t>(size);
    }
    using httplib::Stream::write;
    void get_remote_ip_and_port(std::string&, int&) const override {}
    void get_local_ip_and_port(std::string&, int&) const override {}
    [[nodiscard]] socket_t socket() const override { return INVALID_SOCKET; }

    std::string takeOutput() { return std::move(output_); }

private:
    std::string_view input_;
    std::string output_;
};

// httplib's parser and writer; routing and bodies are ours. Its own routes match paths by std::regex, which recurses
// once a character: too deep for a worker's stack.
class Parser final : public httplib::Server {
public:
    Parser(const HttpHandler& handler, const HttpErrorBody& errorBody) {
        set_pre_routing_handler([&handler, &errorBody](const httplib::Request& from, httplib::Response& to) {
            // target, not path: httplib decodes %2F and the like, and our paths have none.
            const std::string_view target = from.target;
            const size_t query = target.find('?');
            HttpRequest request{from.method, std::string(target.substr(0, query)),
                                query == std::string_view::npos ? "" : std::string(target.substr(query + 1)), from.body,
                                from.get_header_value("Host")};
            HttpResponse response;
            try {
                response = handler(request);
            } catch (const std::exception& error) {
                logError("handler threw path={} err={}", logValue(request.path), logValue(error.what()));
                response = {500, errorBody(500, fmt::format("internal error: {}", error.what()))};
            }
            to.status = response.status;
            for (const auto& [name, value] : response.headers) to.set_header(name, value);
            to.body = std::move(response.body);
            to.set_header("Content-Type", response.contentType);
            return HandlerResponse::Handled;
        });
        set_error_handler([&errorBody](const httplib::Request&, httplib::Response& to) {
            if (to.body.empty()) to.set_content(errorBody(to.status, "malformed HTTP request"), "application/json");
        });
    }

    std::string answer(std::string_view head, const std::string& body, bool& close) {
        MemoryStream stream(head);
        if (!process_request(stream, false, close, [&body](httplib::Request& request) { request.body = body; })) {
            close = true;
        }
        return stream.takeOutput();
    }
};

std::string_view statusText(int status) {
    switch (status) {
        case 403:
            return "Forbidden";
        case 408:
            return "Request Timeout";
        case 413:
            return "Payload Too Large";
        case 431:
            return "Request Header Fields Too Large";
        case 501:
            return "Not Implemented";
        case 504:
            return "Gateway Timeout";
        default:
            return "Bad Request";
    }
}

std::string rawError(int status, std::string_view text, const HttpErrorBody& errorBody) {
    const std::string body = errorBody(status, text);
    return fmt::format(
        "HTTP/1.1 {} {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}", status,
        statusText(status), body.size(), body);
}

bool sendAll(int fd, std::string_view data, std::chrono::milliseconds timeout) {
    const Time deadline = std::chrono::steady_clock::now() + timeout;
    while (!data.empty()) {
        const ssize_t sent = ::send(fd, data.data(), data.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            data.remove_prefix(static_cast<size_t>(sent));
            continue;
        }
        if (errno == EINTR) continue;
        if (errno != EAGAIN) return false;
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
        pollfd wait{fd, POLLOUT, 0};
        if (left.count() <= 0 || ::poll(&wait, 1, static_cast<int>(left.count())) == 0) return false;
    }
    return true;
}

bool peerIs(int fd, uint32_t user) {
    ucred peer{};
    socklen_t size = sizeof(peer);
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
    return peer.uid == 0 || peer.uid == user;
}

}  // namespace

std::string answerRequest(std::string_view raw, const HttpHandler& handler, const HttpErrorBody& errorBody,
                          bool& close) {
    close = false;
    HttpFrame frame = frameRequest(raw);
    if (frame.state == HttpFrame::State::Incomplete) {
        frame.status = 400;
        frame.error = "request ends early";
    }
    if (frame.state != HttpFrame::State::Complete) {
        close = true;
        return rawError(frame.status, frame.error, errorBody);
    }
    return Parser(handler, errorBody).answer(frame.head, frame.body, close);
}

struct HttpServer::Impl {
    struct Connection;

    // A listener with what is its own.
    struct Desk {
        explicit Desk(HttpListener from) : listener(std::move(from)) {}

        HttpListener listener;
        std::list<Connection*> open{};  // the oldest first; event thread only

        // With the mutex held.
        std::condition_variable work{};
        std::deque<Connection*> queue{};
        size_t workers = 0;
        size_t idleWorkers = 0;
    };

    // Belongs to the event thread while Reading or Draining, to a worker while Working.
    struct Connection {
        UniqueFd fd;
        Desk* desk = nullptr;
        const HttpListener* listener = nullptr;  // desk's
        enum class State : uint8_t { Reading, Working, Draining } state = State::Reading;
        std::string input;
        std::optional<Time> deadline;  // of a request begun, of its answer, or of draining; event thread only
        std::optional<Time> answerBy;  // of the request that a worker has or will have
        size_t drained = 0;
        bool close = false;     // set by the worker: answer sent, do not go on
        bool answered = false;  // with the mutex held: the worker's turn to send, or the event thread has given up
    };

    std::list<Desk> desks;
    HttpLimits limits;
    UniqueFd epoll;
    UniqueFd wake;
    SpareDescriptor spare;
    std::thread thread;

    // Event thread only.
    std::unordered_map<int, std::unique_ptr<Connection>> connections;

    std::mutex mutex;
    std::condition_variable workersGone;
    std::vector<Connection*> done;
    bool stopping = false;

    ~Impl() { stop(); }

    Result<void> open() {
        epoll = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
        wake = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
        if (!epoll || !wake) return errnoError(errno, "http server");
        WEFT_TRY(watch(wake.get(), EPOLL_CTL_ADD, EPOLLIN));
        for (const Desk& desk : desks) {
            const int fd = desk.listener.socket.get();
            const int flags = ::fcntl(fd, F_GETFL);
            if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
                return errnoError(errno, "listening socket");
            WEFT_TRY(watch(fd, EPOLL_CTL_ADD, EPOLLIN));
        }
        thread = std::thread([this] { loop(); });
        return {};
    }

    void stop() {
        if (!thread.joinable()) return;
        {
            const std::lock_guard lock(mutex);
            stopping = true;
        }
        for (Desk& desk : desks) desk.work.notify_all();
        signal();
        thread.join();
        std::unique_lock lock(mutex);
        workersGone.wait(lock, [this] {
            return std::all_of(desks.begin(), desks.end(), [](const Desk& desk) { return desk.workers == 0; });
        });
        connections.clear();
        desks.clear();
    }

    Result<void> watch(int fd, int operation, uint32_t events) const {
        epoll_event event{};
        event.events = events;
        event.data.fd = fd;
        if (::epoll_ctl(epoll.get(), operation, fd, &event) != 0) return errnoError(errno, "epoll_ctl");
        return {};
    }

    void signal() const {
        const uint64_t one = 1;
        [[maybe_unused]] const ssize_t written = ::write(wake.get(), &one, sizeof(one));
    }

    void loop() {
        std::array<epoll_event, 64> events{};
        for (;;) {
            const int count =
                ::epoll_wait(epoll.get(), events.data(), static_cast<int>(events.size()), waitMilliseconds());
            for (int i = 0; i < count; ++i) {
                const int fd = events.at(static_cast<size_t>(i)).data.fd;
                if (fd == wake.get()) {
                    uint64_t ignored = 0;
                    [[maybe_unused]] const ssize_t size = ::read(fd, &ignored, sizeof(ignored));
                } else if (Desk* desk = findDesk(fd)) {
                    acceptAt(*desk);
                } else if (const auto found = connections.find(fd); found != connections.end()) {
                    readable(*found->second);
                }
            }
            {
                const std::lock_guard lock(mutex);
                if (stopping) return;
            }
            takeBackDone();
            expire();
        }
    }

    Desk* findDesk(int fd) {
        const auto found = std::find_if(desks.begin(), desks.end(),
                                        [fd](const Desk& desk) { return desk.listener.socket.get() == fd; });
        return found == desks.end() ? nullptr : &*found;
    }

    // A connection with a deadline is rare: begun requests, drained ones, and the few of a port for anybody.
    std::list<Connection*> timed;

    void setDeadline(Connection& connection, std::chrono::milliseconds after) {
        if (!connection.deadline) timed.push_back(&connection);
        connection.deadline = std::chrono::steady_clock::now() + after;
    }

    void clearDeadline(Connection& connection) {
        if (connection.deadline) timed.remove(&connection);
        connection.deadline.reset();
    }

    [[nodiscard]] int waitMilliseconds() const {
        if (timed.empty()) return -1;
        Time next = Time::max();
        for (const Connection* connection : timed) next = std::min(next, *connection->deadline);
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - std::chrono::steady_clock::now());
        return static_cast<int>(std::max<int64_t>(left.count(), 0));
    }

    void expire() {
        const Time now = std::chrono::steady_clock::now();
        std::vector<Connection*> late;
        std::copy_if(timed.begin(), timed.end(), std::back_inserter(late),
                     [now](const Connection* connection) { return *connection->deadline <= now; });
        for (Connection* connection : late) {
            const auto state = stateOf(*connection);
            const bool idle = state != Connection::State::Working && connection->input.empty();
            if (state == Connection::State::Draining || (idle && connection->listener->idleTimeout)) {
                drop(*connection);
            } else if (state == Connection::State::Working && !connection->listener->answerWithin) {
                setDeadline(*connection, *connection->listener->idleTimeout);
            } else if (state == Connection::State::Working) {
                giveUp(*connection);
            } else if (idle) {
                clearDeadline(*connection);  // answered in time
            } else {
                refuse(*connection, 408,
                       fmt::format("request not complete within {} ms", limits.requestTimeout.count()));
            }
        }
    }

    void acceptAt(Desk& desk) {
        const HttpListener& listener = desk.listener;
        for (;;) {
            UniqueFd fd(::accept4(listener.socket.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
            if (!fd) {
                if (spare.refuse(listener.socket.get(), errno)) {
                    logWarn("connection refused: no file descriptor left");
                    continue;
                }
                if (errno == EINTR || errno == ECONNABORTED) continue;
                return;
            }
            if (desk.open.size() >= listener.maxConnections && !makeRoom(desk)) {
                logWarn("connection refused: {} are open", desk.open.size());
                continue;
            }
            const int number = fd.get();
            auto connection = std::make_unique<Connection>();
            connection->fd = std::move(fd);
            connection->desk = &desk;
            connection->listener = &listener;
            desk.open.push_back(connection.get());
            Connection& added = *connections.emplace(number, std::move(connection)).first->second;
            if (!watch(number, EPOLL_CTL_ADD, EPOLLIN | EPOLLONESHOT)) {
                drop(added);
            } else if (listener.onlyUser && !peerIs(number, *listener.onlyUser)) {
                refuse(added, 403, "only root may use this socket");
            } else if (listener.idleTimeout) {
                setDeadline(added, *listener.idleTimeout);
            }
        }
    }

    // True: one that asked for nothing is gone.
    bool makeRoom(Desk& desk) {
        if (!desk.listener.idleTimeout) return false;
        const auto idle = std::find_if(desk.open.begin(), desk.open.end(), [this](const Connection* connection) {
            return stateOf(*connection) != Connection::State::Working;
        });
        if (idle == desk.open.end()) return false;
        drop(**idle);
        return true;
    }

    void drop(Connection& connection) {
        clearDeadline(connection);
        connection.desk->open.remove(&connection);
        connections.erase(connection.fd.get());
    }

    Connection::State stateOf(const Connection& connection) {
        const std::lock_guard lock(mutex);
        return connection.state;
    }

    void readable(Connection& connection) {
        if (stateOf(connection) == Connection::State::Working) return;
        if (connection.state == Connection::State::Reading && connection.input.empty()) clearDeadline(connection);
        std::array<char, 16384> chunk{};
        for (;;) {
            const ssize_t count = ::recv(connection.fd.get(), chunk.data(), chunk.size(), 0);
            if (count > 0) {
                if (connection.state == Connection::State::Draining) {
                    connection.drained += static_cast<size_t>(count);
                    if (connection.drained > kMaxDrain) return drop(connection);
                    continue;
                }
                connection.input.append(chunk.data(), static_cast<size_t>(count));
                // More than one request's worth waits in the socket's buffer.
                if (connection.input.size() > kMaxBody + kMaxHead) break;
                continue;
            }
            if (count < 0 && errno == EINTR) continue;
            if (count < 0 && errno == EAGAIN) break;
            // The peer is gone, or has sent all it will: a half-closed one may still wait for an answer.
            if (count == 0 && connection.state == Connection::State::Reading && isComplete(connection.input)) break;
            return drop(connection);
        }
        if (connection.state == Connection::State::Reading) {
            dispatch(connection);
        } else if (!watch(connection.fd.get(), EPOLL_CTL_MOD, EPOLLIN | EPOLLONESHOT)) {
            drop(connection);
        }
    }

    static bool isComplete(std::string_view input) { return frameRequest(input).state == HttpFrame::State::Complete; }

    // Hands a complete request to a worker, refuses a bad one, waits for the rest of a begun one.
    void dispatch(Connection& connection) {
        const HttpFrame frame = frameRequest(connection.input);
        if (frame.state == HttpFrame::State::Bad) return refuse(connection, frame.status, frame.error);
        if (frame.state == HttpFrame::State::Incomplete) {
            const auto within =
                connection.input.empty() ? connection.listener->idleTimeout : std::optional(limits.requestTimeout);
            if (within && !connection.deadline) setDeadline(connection, *within);
            if (!watch(connection.fd.get(), EPOLL_CTL_MOD, EPOLLIN | EPOLLONESHOT)) drop(connection);
            return;
        }
        clearDeadline(connection);
        const auto within = connection.listener->answerWithin;
        if (within) connection.answerBy = std::chrono::steady_clock::now() + *within;
        if (within || connection.listener->idleTimeout) {
            setDeadline(connection, within ? *within : *connection.listener->idleTimeout);
        }
        Desk& desk = *connection.desk;
        if (connection.listener->idleTimeout) {  // who asked last is the last to make room
            desk.open.splice(desk.open.end(), desk.open, std::find(desk.open.begin(), desk.open.end(), &connection));
        }
        {
            const std::lock_guard lock(mutex);
            connection.state = Connection::State::Working;
            connection.answered = false;
            desk.queue.push_back(&connection);
            if (desk.idleWorkers < desk.queue.size() && desk.workers < desk.listener.maxWorkers) addWorker(desk);
        }
        desk.work.notify_one();
    }

    // A worker has the connection, or will have it; what it would answer goes nowhere.
    void giveUp(Connection& connection) {
        clearDeadline(connection);
        {
            const std::lock_guard lock(mutex);
            if (std::exchange(connection.answered, true)) return;
        }
        const std::string text = fmt::format("not done within {} ms", connection.listener->answerWithin->count());
        logWarn("request answered for its handler: {}", text);
        const std::string answer = rawError(504, text, connection.listener->errorBody);
        ::send(connection.fd.get(), answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        ::shutdown(connection.fd.get(), SHUT_WR);
    }

    // Answers from the event thread, then drops what the peer still sends: closing with unread bytes would reset the
    // connection before the peer has read the answer.
    void refuse(Connection& connection, int status, std::string_view text) {
        const std::string answer = rawError(status, text, connection.listener->errorBody);
        ::send(connection.fd.get(), answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        startDraining(connection);
    }

    void startDraining(Connection& connection) {
        connection.input.clear();
        connection.input.shrink_to_fit();
        ::shutdown(connection.fd.get(), SHUT_WR);
        connection.state = Connection::State::Draining;
        setDeadline(connection, kDrainTime);
        if (!watch(connection.fd.get(), EPOLL_CTL_MOD, EPOLLIN | EPOLLONESHOT)) drop(connection);
    }

    void takeBackDone() {
        std::vector<Connection*> back;
        {
            const std::lock_guard lock(mutex);
            back.swap(done);
            for (Connection* connection : back) connection->state = Connection::State::Reading;
        }
        for (Connection* connection : back) {
            clearDeadline(*connection);
            if (connection->close) {
                startDraining(*connection);
            } else {
                dispatch(*connection);
            }
        }
    }

    // With the mutex held.
    void addWorker(Desk& desk) {
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, kWorkerStack);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        pthread_t id{};
        auto place = std::make_unique<std::pair<Impl*, Desk*>>(this, &desk);
        const auto run = [](void* own) -> void* {
            const std::unique_ptr<std::pair<Impl*, Desk*>> at(static_cast<std::pair<Impl*, Desk*>*>(own));
            at->first->worker(*at->second);
            return nullptr;
        };
        const int failed = ::pthread_create(&id, &attributes, run, place.get());
        pthread_attr_destroy(&attributes);
        if (failed == 0) {
            static_cast<void>(place.release());
            ++desk.workers;
        } else {
            logWarn("no thread for a request, {} are running: {}", desk.workers, std::strerror(failed));
        }
    }

    void worker(Desk& desk) {
        std::unique_lock lock(mutex);
        for (;;) {
            ++desk.idleWorkers;
            bool timedOut = false;
            while (desk.queue.empty() && !stopping && !timedOut) {
                // The last one stays, so that an idle daemon sleeps and the next call finds a thread.
                if (desk.workers > 1) {
                    timedOut = desk.work.wait_for(lock, kIdleWorkerLife) == std::cv_status::timeout;
                } else {
                    desk.work.wait(lock);
                }
            }
            --desk.idleWorkers;
            if (desk.queue.empty() && (stopping || desk.workers > 1)) break;
            if (desk.queue.empty()) continue;
            Connection* connection = desk.queue.front();
            desk.queue.pop_front();
            bool keep = false;
            if (!connection->answered) {
                lock.unlock();
                keep = serve(*connection);
                lock.lock();
            }
            finish(*connection, keep);
        }
        --desk.workers;
        workersGone.notify_all();
    }

    // True: the connection stays open.
    bool serve(Connection& connection) {
        const HttpFrame frame = frameRequest(connection.input);
        bool close = false;
        std::optional<CallDeadline> call;
        if (connection.answerBy) call.emplace(Deadline(*connection.answerBy - kUndoTime));
        const std::string answer =
            Parser(connection.listener->handler, connection.listener->errorBody).answer(frame.head, frame.body, close);
        {
            const std::lock_guard lock(mutex);
            if (std::exchange(connection.answered, true)) return false;
        }
        connection.input.erase(0, frame.size);
        return sendAll(connection.fd.get(), answer, limits.responseTimeout) && !close;
    }

    // With the mutex held.
    void finish(Connection& connection, bool keep) {
        if (keep && connection.input.empty()) {
            // Straight back to epoll, without waking the event thread; it owns the connection from here on.
            connection.state = Connection::State::Reading;
            if (connection.input.capacity() > kMaxHead) connection.input.shrink_to_fit();
            if (watch(connection.fd.get(), EPOLL_CTL_MOD, EPOLLIN | EPOLLONESHOT)) return;
            connection.state = Connection::State::Working;
            keep = false;
        }
        connection.close = !keep;
        done.push_back(&connection);
        signal();
    }
};

HttpServer::HttpServer() : impl_(std::make_unique<Impl>()) {}
HttpServer::~HttpServer() = default;

Result<std::unique_ptr<HttpServer>> HttpServer::start(std::vector<HttpListener> listeners, HttpLimits limits) {
    std::unique_ptr<HttpServer> server(new HttpServer());
    for (HttpListener& listener : listeners) server->impl_->desks.emplace_back(std::move(listener));
    server->impl_->limits = limits;
    WEFT_TRY(server->impl_->open());
    return server;
}

void HttpServer::stop() {
    impl_->stop();
}

}  // namespace weft::driver
