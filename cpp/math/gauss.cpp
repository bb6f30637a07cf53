#include "math/gauss.hpp"

#include <cmath>

namespace overparam {

Quadrature gauss_legendre(int count) {
    Quadrature rule{std::vector<double>(count), std::vector<double>(count)};
    for (int i = 0; i < count; ++i) {
        // Newton's method on the Legendre polynomial, from the asymptotic position of its roots.
        double x = std::cos(M_PI * (i + 0.75) / (count + 0.5));
        double slope = 1.0;
        for (int iteration = 0; iteration < 100; ++iteration) {
            double previous = 1.0, value = x;
            for (int n = 2; n <= count; ++n) {
                const double next = ((2 * n - 1) * x * value - (n - 1) * previous) / n;
                previous = value;
                value = next;
            }
            slope = count * (x * value - previous) / (x * x - 1.0);
            const double change = value / slope;
            x -= change;
            if (std::abs(change) < 1e-15) break;
        }
        rule.nodes[i] = 0.5 * (1.0 - x);
        rule.weights[i] = 1.0 / ((1.0 - x * x) * slope * slope);
    }
    return rule;
}

}  // namespace overparam
