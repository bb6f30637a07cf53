// Activations of committee machines and their Gaussian kernels: averages over centred Gaussian
// fields with covariance C of products of the activation g, its derivative g' and the fields
// themselves.
#pragma once

#include <cmath>

#include "base/types.hpp"

namespace overparam {

// g(u) = u^2, erf(u/sqrt 2), max(u, 0).
enum class Activation { QUADRATIC, ERF, RELU };

inline double activate(Activation g, double u) {
    switch (g) {
        case Activation::ERF:
            return std::erf(u * M_SQRT1_2);
        case Activation::RELU:
            return u > 0.0 ? u : 0.0;
        default:
            return u * u;
    }
}

inline double activate_slope(Activation g, double u) {
    switch (g) {
        case Activation::ERF:
            return std::sqrt(2.0 / M_PI) * std::exp(-0.5 * u * u);
        case Activation::RELU:
            return u > 0.0 ? 1.0 : 0.0;
        default:
            return 2.0 * u;
    }
}

// The kernels below are for erf and ReLU; the quadratic network has closed matrix forms instead.

// E[g(u)]
double kernel_value(Activation g, double cuu);
// E[g'(u) v]
double kernel_slope_field(Activation g, double cuu, double cuv);
// E[g(u) g(v)]
double kernel_value_value(Activation g, double cuu, double cuv, double cvv);
// E[g'(u) g'(v)]
double kernel_slope_slope(Activation g, double cuu, double cuv, double cvv);
// E[g'(u) v g(w)]
double kernel_slope_field_value(Activation g, double cuu, double cuv, double cuw, double cvw,
                                double cww);
// E[g'(u) g'(v) g(w)] for the fields with numbers u, v, w of the n x n covariance `cov`
// (row-major).
double kernel_slope_slope_value(Activation g, const double* cov, Index n, Index u, Index v,
                                Index w);
// E[g'(u) g'(v) g(w) g(z)] for the fields with numbers u, v, w, z of the n x n covariance `cov`
// (row-major). Equal numbers are allowed. ReLU: one-dimensional quadrature to about 1e-9.
double kernel_slope_slope_value_value(Activation g, const double* cov, Index n, Index u, Index v,
                                      Index w, Index z);

}  // namespace overparam
