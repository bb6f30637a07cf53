// Inversion of Laplace transforms on the fixed contour of Talbot (Abate and Valko, 2004), for
// transforms whose singularities are on the negative real axis.
#pragma once

#include <cmath>
#include <complex>
#include <vector>

namespace overparam {

// f(t) = (1/t) sum_j Re(weight_j F(node_j/t)) with nodes in the upper half plane, the first real.
struct Talbot {
    std::vector<std::complex<double>> nodes, weights;

    // An absolute error of about 10^(-0.6 count) or, where it is larger, e^(0.4 count) times that
    // of F.
    explicit Talbot(int count = 24) {
        const double radius = 0.4 * count;
        nodes.emplace_back(radius);
        weights.emplace_back(0.2 * std::exp(radius));
        for (int j = 1; j < count; ++j) {
            const double angle = j * M_PI / count, cotangent = 1.0 / std::tan(angle);
            const std::complex<double> node = radius * angle * std::complex<double>(cotangent, 1.0);
            const double slope = angle + (angle * cotangent - 1.0) * cotangent;
            nodes.push_back(node);
            weights.push_back(0.4 * std::exp(node) * std::complex<double>(1.0, slope));
        }
    }

    // The inverse of F at t > 0.
    template <class F>
    double operator()(F&& transform, double t) const {
        double sum = 0.0;
        for (std::size_t j = 0; j < nodes.size(); ++j)
            sum += std::real(weights[j] * transform(nodes[j] / t));
        return sum / t;
    }
};

}  // namespace overparam
