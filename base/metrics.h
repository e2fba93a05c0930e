// Metrics: counters, gauges and histograms with labels, shown in Prometheus' text format (version 0.0.4).
//
// Metrics::counter() and its like find or make the series under a lock and return a reference that lives as long as the
// registry; counting on it is one atomic addition. A hot path keeps the reference.
// Names and label names must be valid for Prometheus ([a-zA-Z_:][a-zA-Z0-9_:]*, asserted); label values are any text.
// A family has one kind and one set of label names (asserted). Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weft {

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

class Counter {
public:
    void add(uint64_t count = 1) { value_.fetch_add(count, std::memory_order_relaxed); }
    [[nodiscard]] uint64_t value() const { return value_.load(std::memory_order_relaxed); }

private:
    std::atomic<uint64_t> value_{0};
};

class Gauge {
public:
    void set(double value) { value_.store(value, std::memory_order_relaxed); }
    [[nodiscard]] double value() const { return value_.load(std::memory_order_relaxed); }

private:
    std::atomic<double> value_{0};
};

// Upper bounds in seconds, made for calls that take 0.1 ms to 10 s.
inline constexpr double kLatencyBounds[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                            0.05,   0.1,     0.25,   0.5,   1,      2.5,   5,    10};

class Histogram {
public:
    void observe(double seconds);
    [[nodiscard]] uint64_t count() const;
    [[nodiscard]] double sum() const {
        return static_cast<double>(sumNanoseconds_.load(std::memory_order_relaxed)) / 1e9;
    }

private:
    friend class Metrics;
    static constexpr size_t kBounds = std::size(kLatencyBounds);

    std::atomic<uint64_t> buckets_[kBounds + 1]{};  // not cumulative; the last is +Inf
    std::atomic<uint64_t> sumNanoseconds_{0};
};

class Metrics {
public:
    Metrics();
    ~Metrics();

    Counter& counter(std::string_view name, std::string_view help, const MetricLabels& labels = {});
    Gauge& gauge(std::string_view name, std::string_view help, const MetricLabels& labels = {});
    Histogram& histogram(std::string_view name, std::string_view help, const MetricLabels& labels = {});

    // Gauges that are looked up when somebody asks: render() calls `collect` and shows what it returns.
    struct Sample {
        MetricLabels labels;
        double value = 0;
    };
    void gaugesFrom(std::string_view name, std::string_view help, std::function<std::vector<Sample>()> collect);

    // Families in order of name, series in order of labels.
    [[nodiscard]] std::string render() const;

private:
    struct Family;
    Family& family(std::string_view name, std::string_view help, std::string_view kind);

    mutable std::mutex mutex_;
    std::map<std::string, std::unique_ptr<Family>, std::less<>> families_;
};

}  // namespace weft
