// The quadratic network f(x) = |W^T x|^2 - c |W|^2 on given samples: squared loss and its gradient.
#pragma once

#include <vector>

#include "base/types.hpp"
#include "networks/sensing.hpp"

namespace overparam {

// Samples X (n, d) with labels y (n,), weights W (d, m); all row-major. The matrices that measure
// S = W W^T are x x^T - c I: with r = f(x) - y, the gradient is (1/n) X^T diag(r) X W less
// (c/n) sum r W. The samples are taken in blocks whose number depends on n alone, so that no bit
// depends on the threads.
class QuadraticSamples : public Sensing {
  public:
    QuadraticSamples(const double* X, const double* y, Index n, Index d, double centring = 0.0);

    double loss_gradient(const double* W, Index m, int threads, double* gradient) override;

    // Steps W <- W - rate (gradient / 2 + ridge W) on `W` in place; returns the sum of |W|^2 over
    // the weights at which the steps were taken.
    double descend(double* W, Index m, double rate, double ridge, Index steps, int threads);

  private:
    const double *X_, *y_;
    Index n_, d_, blocks_;
    double centring_;
    // Sums over a block: of the gradient, of r^2, of r; and the block's fields.
    std::vector<std::vector<double>> partial_, fields_;
    std::vector<double> losses_, residuals_;
};

}  // namespace overparam
