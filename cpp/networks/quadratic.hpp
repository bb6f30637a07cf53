// The quadratic network f(x) = |W^T x|^2 on given samples: squared loss and its gradient.
#pragma once

#include <vector>

#include "base/types.hpp"

namespace overparam {

// Samples X (n, d) with labels y (n,), weights W (d, m); all row-major. With r = f(x) - y:
// returns (1/n) sum r^2, and writes (1/n) X^T diag(r) X W to `gradient` (d, m). The samples are
// taken in blocks whose number depends on n alone, so that no bit depends on the threads.
class QuadraticSamples {
  public:
    QuadraticSamples(const double* X, const double* y, Index n, Index d);

    double loss_gradient(const double* W, Index m, int threads, double* gradient);

    // Steps W <- W - rate (gradient / 2 + ridge W) on `W` in place; returns the sum of |W|^2 over
    // the weights at which the steps were taken.
    double descend(double* W, Index m, double rate, double ridge, Index steps, int threads);

  private:
    const double *X_, *y_;
    Index n_, d_, blocks_;
    std::vector<std::vector<double>> partial_;
    std::vector<double> losses_;
};

}  // namespace overparam
