// Gaussian quadrature rules and Hermite series.
#pragma once

#include <vector>

#include "base/types.hpp"

namespace overparam {

struct Quadrature {
    std::vector<double> nodes, weights;
};

// Gauss-Legendre rule on [0, 1], exact for polynomials of degree 2 count - 1.
Quadrature gauss_legendre(int count);

// Gauss rule of `count` nodes for the measure of positive `weights` at more than `count` points:
// the same sums for polynomials of degree 2 count - 1.
Quadrature gauss_rule(const std::vector<double>& points, const std::vector<double>& weights,
                      int count);

// A function g of a standard normal variable x by its coefficients mu_k = E[g(x) He_k(x)], He_k the
// probabilists' Hermite polynomials: the first of them, and mu_{k+2} = -ratio (k - shift) mu_k for
// the others.
struct HermiteSeries {
    std::vector<double> first;
    double ratio = 0.0, shift = 0.0;
};

// mu_k for k = 0 .. order.
std::vector<double> hermite_coefficients(const HermiteSeries& g, Index order);

// mu_k mu'_k/k! for k = 0 .. order: E[g(x) h(y)] at covariance rho is their power series in rho.
std::vector<double> hermite_products(const HermiteSeries& g, const HermiteSeries& h, Index order);

}  // namespace overparam
