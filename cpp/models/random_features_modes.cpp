// Second moments of the modes of a given first layer: docs/papers/random_features.md, section 4.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "math/secular.hpp"
#include "models/random_features.hpp"

namespace overparam::random_features {

namespace {

// Poles that agree to this fraction of the largest count as one.
constexpr double EQUAL = 1e-15;

}  // namespace

std::vector<double> rank_one_response(const std::vector<double>& poles,
                                      const std::vector<double>& weights,
                                      const std::vector<double>& load, double source,
                                      const std::vector<double>& t, bool steps) {
    std::vector<std::size_t> order(poles.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(),
              [&](std::size_t i, std::size_t j) { return poles[i] < poles[j]; });
    double largest = 0.0;
    for (const double pole : poles) largest = std::max(largest, std::abs(pole));
    std::vector<double> d, w, x;
    for (const std::size_t k : order) {
        if (d.empty() || poles[k] - d.back() > EQUAL * largest) {
            d.push_back(poles[k]);
            w.push_back(weights[k]);
            x.push_back(load[k]);
        } else {
            w.back() += weights[k];
            x.back() += load[k];
        }
    }
    std::vector<double> S(t.size(), source);
    for (const SecularRoot& root : secular_roots(d, w)) {
        double curvature = 0.0, loaded = 0.0;
        for (std::size_t k = 0; k < d.size(); ++k) {
            const double inverse = 1.0 / root.distance(d, k);
            curvature += w[k] * inverse * inverse;
            loaded += x[k] * inverse;
        }
        const double z = d[root.nearest] + root.offset, residue = 1.0 / curvature;
        for (std::size_t i = 0; i < t.size(); ++i) {
            double growth, grown;  // e^{z t} or (1 + z)^t, and the same minus one
            if (steps && z <= -1.0) {
                growth = std::pow(1.0 + z, t[i]);
                grown = growth - 1.0;
            } else {
                const double exponent = t[i] * (steps ? std::log1p(z) : z);
                growth = std::exp(exponent);
                grown = std::expm1(exponent);
            }
            const double driven = z == 0.0 ? t[i] : grown / z;
            S[i] += residue * (loaded * growth + (source == 0.0 ? 0.0 : source * driven));
        }
    }
    return S;
}

std::vector<double> rank_one_steps(const std::vector<double>& lambda, std::vector<double> load,
                                   double source, const std::vector<double>& rates,
                                   const std::vector<Index>& steps, bool gaussian, bool noise) {
    std::vector<double> S(steps.size());
    double sum = source;
    for (const double x : load) sum += x;
    Index done = 0;
    for (std::size_t i = 0; i < steps.size(); ++i) {
        for (; done < steps[i]; ++done) {
            const double eta = rates[done], square = noise ? eta * eta : 0.0;
            const double more = gaussian ? 2.0 * square : 0.0;
            double next = source;
            for (std::size_t k = 0; k < load.size(); ++k) {
                const double l = lambda[k];
                load[k] += l * ((more * l - 2.0 * eta) * load[k] + square * l * sum);
                next += load[k];
            }
            sum = next;
        }
        S[i] = sum;
    }
    return S;
}

}  // namespace overparam::random_features
