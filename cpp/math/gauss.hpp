// Gaussian quadrature rules.
#pragma once

#include <vector>

namespace overparam {

struct Quadrature {
    std::vector<double> nodes, weights;
};

// Gauss-Legendre rule on [0, 1], exact for polynomials of degree 2 count - 1.
Quadrature gauss_legendre(int count);

}  // namespace overparam
