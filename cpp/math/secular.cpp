#include "math/secular.hpp"

#include <cmath>
#include <utility>

#include "math/roots.hpp"

namespace overparam {

namespace {

// 1 - sum_k weight_k/(z - pole_k) and its derivative, which is positive, at poles[origin] + offset.
std::pair<double, double> secular(const std::vector<double>& poles,
                                  const std::vector<double>& weights, std::size_t origin,
                                  double offset) {
    double value = 1.0, slope = 0.0;
    for (std::size_t k = 0; k < poles.size(); ++k) {
        const double inverse = 1.0 / ((poles[origin] - poles[k]) + offset);
        value -= weights[k] * inverse;
        slope += weights[k] * inverse * inverse;
    }
    return {value, slope};
}

}  // namespace

std::vector<SecularRoot> secular_roots(const std::vector<double>& poles,
                                       const std::vector<double>& weights) {
    const std::size_t n = poles.size();
    std::vector<SecularRoot> roots(n);
    double total = 0.0;
    for (const double weight : weights) total += weight;
    for (std::size_t i = 0; i < n; ++i) {
        const double gap = i + 1 < n ? poles[i + 1] - poles[i] : total;
        // The equation times the distance to the nearest pole is almost linear around the root.
        const bool left = i + 1 == n || secular(poles, weights, i, 0.5 * gap).first >= 0.0;
        const std::size_t origin = left ? i : i + 1;
        const double low = left ? 0.0 : -0.5 * gap;
        const double high = left ? (i + 1 < n ? 0.5 * gap : gap) : 0.0;
        const double side = left ? 1.0 : -1.0;
        const auto flattened = [&](double x) {
            const auto [value, slope] = secular(poles, weights, origin, x);
            return std::pair(side * x * value, side * (value + x * slope));
        };
        const double guess = left ? std::min(weights[i], 0.5 * high) : 0.5 * low;
        const double offset = newton(flattened, low, high, guess, 4e-16);
        roots[i] = {origin, offset};
    }
    return roots;
}

}  // namespace overparam
