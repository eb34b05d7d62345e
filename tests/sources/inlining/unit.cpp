// What C++ compilers write differently: namespaces, lambdas, exceptions, virtual calls, cold parts, static functions.
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace outer {
namespace {
inline __attribute__((always_inline)) unsigned long twist(unsigned long value) {
    value ^= value >> 31;
    return value * 0x9e3779b97f4a7c15UL;
}

template <typename T>
inline __attribute__((always_inline)) unsigned long stir(T value, unsigned long state) {
    return twist(state + static_cast<unsigned long>(value));
}
}  // namespace

struct Shape {
    virtual ~Shape() = default;
    virtual double area() const = 0;
};

template <typename T>
struct Square final : Shape {
    explicit Square(T side) : side(side), name(std::to_string(side)) {}
    double area() const override { return static_cast<double>(stir(side, name.size())); }
    T side;
    std::string name;
};

__attribute__((noinline)) int risky(int value) {
    if (value % 7 == 0) throw std::runtime_error("seven " + std::to_string(value));
    return static_cast<int>(stir(value, 3));
}

__attribute__((noinline)) int careful(int value) {
    try {
        return risky(value);
    } catch (const std::exception &error) {
        std::printf("%s\n", error.what());
        return -1;
    }
}

__attribute__((noinline)) unsigned long sorted(std::vector<int> values) {
    std::sort(values.begin(), values.end(), [](int one, int other) { return stir(one, 1) < stir(other, 1); });
    std::map<std::string, unsigned long> counts;
    for (int value : values) counts[std::to_string(value % 5)] += stir(value, 2);
    unsigned long total = 0;
    for (const auto &[name, count] : counts) total += stir(name.size(), count);
    return total;
}
}  // namespace outer

int main(int count, char **) {
    std::vector<std::unique_ptr<outer::Shape>> shapes;
    for (int index = 0; index < count + 3; ++index) {
        shapes.push_back(std::make_unique<outer::Square<int>>(index));
        shapes.push_back(std::make_unique<outer::Square<float>>(index));
    }
    double area = 0;
    for (const auto &shape : shapes) area += shape->area();
    std::printf("%f %d %lu\n", area, outer::careful(count), outer::sorted({5, 3, count}));
}
