#include <doctest/doctest.h>

#include <cmath>
#include <initializer_list>

#include "math/gauss.hpp"

using namespace overparam;

TEST_CASE("Gauss-Legendre is exact for polynomials of degree 2 n - 1 on [0, 1]") {
    for (int n : {1, 2, 5, 16, 40, 101}) {
        const Quadrature rule = gauss_legendre(n);
        for (int degree = 0; degree < 2 * n; ++degree) {
            double integral = 0.0;
            for (int i = 0; i < n; ++i)
                integral += rule.weights[i] * std::pow(rule.nodes[i], degree);
            REQUIRE(integral == doctest::Approx(1.0 / (degree + 1)).epsilon(1e-13));
        }
        for (int i = 1; i < n; ++i) REQUIRE(rule.nodes[i] > rule.nodes[i - 1]);
    }
}
